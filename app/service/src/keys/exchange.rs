//! Keys in and out: TR-31 blocks under a key-encrypting key (E4).

use countersign_crypto::Secret;
use countersign_store::{
    AuditEntry, IdKind, Kek, KekState, Key, KeyOrigin, KeyRecord, KeyScope, KeyState,
};
use data_encoding::HEXLOWER;
use serde_json::json;
use tr31::{Header, Leniency, OptionalId, Padding, Tr31Error, Version};

use super::issue::value_row;
use super::keks::{algorithm_of, cipher_of};
use super::lifecycle::{check_length, check_scope, series, series_json};
use super::{NewKsn, check_name, refuse_taken};
use crate::{Actor, Gated, Scope, Service, ServiceError, done};

/// The departures from the standard that an import may forgive. What weakens a key is not among
/// them.
const FORGIVABLE: [Leniency; 5] = [
    Leniency::LOWER_CASE_HEX,
    Leniency::EXTENDED_LENGTH_04,
    Leniency::UNKNOWN_OPTIONAL_BLOCK,
    Leniency::OPTIONAL_BLOCK_PADDING,
    Leniency::NO_LENGTH_OBFUSCATION,
];
/// Optional blocks that say how a key may be used; they stay with it. The others speak of the block
/// it came in.
const KEPT: [OptionalId; 4] = [OptionalId::DA, OptionalId::FL, OptionalId::KS, OptionalId::IK];

/// A key that is to be taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportKey {
    /// Unique name.
    pub name: String,
    /// Under which key-encrypting key it comes.
    pub kek_id: String,
    /// The TR-31 block.
    pub block: String,
    /// What terminals get of it.
    pub scope: KeyScope,
    /// For a DUKPT key, and only for such.
    pub ksn: Option<NewKsn>,
    /// Departures from the standard to forgive, by name.
    pub lenient: Vec<String>,
}

/// What is to be exported, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportKey {
    /// Under which key-encrypting key.
    pub kek_id: String,
    /// The block's version; by default `D` under an AES key and `B` under a TDES key.
    pub version: Option<String>,
    /// The value that this injection sends, instead of the key itself.
    pub injection_id: Option<String>,
}

/// A key as it leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The TR-31 block.
    pub block: String,
    /// The key's check value.
    pub kcv: String,
}

/// A key from its block, with its own policy.
struct Received {
    header: Header,
    key: Secret,
    kcv: String,
}

fn leniency(names: &[String]) -> Result<Leniency, ServiceError> {
    names.iter().try_fold(Leniency::NONE, |all, name| match Leniency::from_name(name) {
        Some(one) if FORGIVABLE.contains(&one) => Ok(all | one),
        _ => {
            let known: Vec<_> = FORGIVABLE.iter().flat_map(|one| one.names()).collect();
            let detail = format!("an import may forgive: {}", known.join(", "));
            Err(ServiceError::refused("leniency", detail))
        }
    })
}

fn letters(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

impl Service {
    /// Takes a key in. Its usage, algorithm, mode and exportability are the block's.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`]; `name-format`, `key-name-taken`,
    /// `kek-not-active`, `leniency`, TR-31's checks of the block, `key-algorithm`, `key-scope`,
    /// `ksn-needed`, `ksn-unneeded`, `ksn-base`, `ksn-range`, `ksn-base-taken`; the gate's.
    pub async fn import_key(
        &self,
        actor: &Actor,
        new: &ImportKey,
        approval: Option<&str>,
    ) -> Result<Gated<KeyRecord>, ServiceError> {
        let imported = self.import(actor, new, approval).await;
        if let Err(error) = &imported {
            self.refused_operator(actor, "key.import", &new.kek_id, error).await;
        }
        imported
    }

    async fn import(
        &self,
        actor: &Actor,
        new: &ImportKey,
        approval: Option<&str>,
    ) -> Result<Gated<KeyRecord>, ServiceError> {
        actor.require(Scope::KeysManage)?;
        check_name(&new.name)?;
        let kek = self.kek(&new.kek_id).await?.kek;
        let received = self.unwrap_under(&kek, new).await?;
        check_scope(new.scope, KeyOrigin::Imported, &received.header)?;
        let series = series(new.scope, received.header.algorithm, new.ksn.as_ref())?;
        if new.scope == KeyScope::Dukpt && received.header.algorithm == b'T' {
            check_length(new.scope, b'T', length_of(&received.key)?)?;
        }
        self.check_key_free(&new.name, approval).await?;
        let header = &received.header;
        let digest = self.authority.provider.hash.hash(&[new.block.as_bytes()]);
        let subject = json!({
            "name": new.name,
            "scope": new.scope.name(),
            "kek": kek.id,
            "usage": letters(&header.usage),
            "algorithm": letters(&[header.algorithm]),
            "mode": letters(&[header.mode]),
            "exportability": letters(&[header.exportability]),
            "kcv": received.kcv,
            "ksn": series_json(series.as_ref()),
            "lenient": new.lenient,
            "blockDigest": HEXLOWER.encode(digest.as_ref()),
        });
        let grant = match self.gate(actor, "key.import", &subject, approval).await? {
            Gated::Done(grant) => grant,
            Gated::Pending(approval) => return Ok(Gated::Pending(approval)),
        };
        let (now, id, kek_id) = (self.now(), self.new_id(IdKind::Key), kek.id.clone());
        let (strongbox, mut rng, row) = (self.strongbox().await?, self.rng(), id.clone());
        let mut key = Key {
            id,
            name: new.name.clone(),
            scope: new.scope,
            state: KeyState::Active,
            origin: KeyOrigin::Imported,
            usage: letters(&header.usage),
            algorithm: letters(&[header.algorithm]),
            mode: letters(&[header.mode]),
            exportability: letters(&[header.exportability]),
            length: length_of(&received.key)?,
            kek_id: Some(kek.id),
            kcv: Some(received.kcv.clone()),
            block: None,
            ksn: series,
            created_by: actor.id().to_owned(),
            created_at: now,
            activated_at: Some(now),
            retired_at: None,
        };
        let Received { header, key: value, kcv } = received;
        let sealed = self.blocking(move || strongbox.seal(&mut *rng, &row, &header, &value));
        key.block = Some(sealed.await?);
        let detail = json!({ "name": key.name, "kek": key.kek_id, "kcv": kcv }).to_string();
        let entry = AuditEntry { detail, ..done(now, actor, "key.import", &key.id) };
        let record = self
            .store
            .run_tx("import_key", move |tx| {
                grant.consume(tx, now)?;
                check_active(tx.kek_by_id(&kek_id)?)?; // it may have been retired meanwhile
                tx.insert_key(&key).map_err(refuse_taken)?;
                tx.append_audit(&entry)?;
                Ok::<_, ServiceError>(KeyRecord { key: key.clone(), terminals: 0 })
            })
            .await?;
        Ok(Gated::Done(record))
    }

    /// The key in a block under this key-encrypting key, which is at least as strong.
    async fn unwrap_under(&self, kek: &Kek, new: &ImportKey) -> Result<Received, ServiceError> {
        let leniency = leniency(&new.lenient)?;
        let open = self.open_kek(kek).await?;
        let (strongbox, block) = (self.strongbox().await?, new.block.trim().to_owned());
        let cipher = cipher_of(algorithm_of(&kek.algorithm)?);
        self.blocking(move || {
            let ciphers = &*strongbox.ciphers;
            let claimed = Header::parse_prefix(block.as_bytes(), leniency)?.header;
            // A clear key of 16 bytes would serve either cipher.
            if claimed.version.cipher() != cipher {
                return Err(Tr31Error::KbpkCipher.into());
            }
            let opened = tr31::unwrap(ciphers, open.kbpk(), block.as_bytes(), leniency)?;
            tr31::policy::check_whole(&opened.header)?;
            let mut header = opened.header;
            header.optional.retain(|block| KEPT.contains(&block.id));
            let kcv = strongbox.kcv(header.algorithm, &opened.key).map_err(|_| {
                let detail = "keys for injection are AES (A) or TDES (T) keys";
                ServiceError::refused("key-algorithm", detail)
            })?;
            Ok(Received { header, key: opened.key, kcv: kcv.to_string() })
        })
        .await
    }

    /// Wraps a key, or the value that one injection sends, under a key-encrypting key.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`]; `key-not-active`,
    /// `kek-not-active`, `key-not-exportable`, `export-version`, `injection-needed` for a key of
    /// which only terminals have values, `wrapping-key-weaker` and what else TR-31 refuses; the
    /// gate's.
    pub async fn export_key(
        &self,
        actor: &Actor,
        id: &str,
        how: &ExportKey,
        approval: Option<&str>,
    ) -> Result<Gated<Exported>, ServiceError> {
        let exported = self.export(actor, id, how, approval).await;
        if let Err(error) = &exported {
            self.refused_operator(actor, "key.export", id, error).await;
        }
        exported
    }

    async fn export(
        &self,
        actor: &Actor,
        id: &str,
        how: &ExportKey,
        approval: Option<&str>,
    ) -> Result<Gated<Exported>, ServiceError> {
        actor.require(Scope::KeysManage)?;
        let key = self.key(id).await?.key;
        if key.state != KeyState::Active {
            let detail = format!("the key is {}", key.state);
            return Err(ServiceError::refused("key-not-active", detail));
        }
        let kek = self.kek(&how.kek_id).await?.kek;
        let version = export_version(&kek, how.version.as_deref())?;
        // Wrapped before anybody is asked: what is refused is refused now.
        let exported = self.wrap_under(&key, &kek, version, how.injection_id.as_deref()).await?;
        let subject = json!({
            "key": id,
            "name": key.name,
            "kek": kek.id,
            "version": version.to_string(),
            "injection": how.injection_id,
            "kcv": exported.kcv,
        });
        let grant = match self.gate(actor, "key.export", &subject, approval).await? {
            Gated::Done(grant) => grant,
            Gated::Pending(approval) => return Ok(Gated::Pending(approval)),
        };
        let now = self.now();
        let entry =
            AuditEntry { detail: subject.to_string(), ..done(now, actor, "key.export", id) };
        let (id, kek_id) = (id.to_owned(), kek.id);
        self.store
            .run_tx("export_key", move |tx| {
                grant.consume(tx, now)?;
                // It may have been retired meanwhile.
                let record = tx.key_by_id(&id)?.ok_or(ServiceError::NotFound { what: "key" })?;
                if record.key.state != KeyState::Active {
                    let detail = format!("the key is {}", record.key.state);
                    return Err(ServiceError::refused("key-not-active", detail));
                }
                check_active(tx.kek_by_id(&kek_id)?)?;
                tx.append_audit(&entry)?;
                Ok(())
            })
            .await?;
        Ok(Gated::Done(exported))
    }

    async fn wrap_under(
        &self,
        key: &Key,
        kek: &Kek,
        version: Version,
        injection_id: Option<&str>,
    ) -> Result<Exported, ServiceError> {
        let (row, block) = match injection_id {
            None => (key.id.clone(), key.block.clone()),
            Some(injection_id) => {
                let value = self.injected_value(injection_id).await?;
                let value = value.filter(|value| value.key_id == key.id);
                let value =
                    value.ok_or(ServiceError::NotFound { what: "injection of this key" })?;
                match value.block {
                    Some(block) => (value_row(&value.injection_id, &value.device_id), Some(block)),
                    None => (key.id.clone(), key.block.clone()),
                }
            }
        };
        let block = block.ok_or_else(|| {
            let detail = "each terminal has a value of its own of this key: name the injection";
            ServiceError::refused("injection-needed", detail)
        })?;
        let open = self.open_kek(kek).await?;
        let (strongbox, mut rng) = (self.strongbox().await?, self.rng());
        self.blocking(move || {
            let (header, value) = strongbox.open(&row, &block)?;
            if header.exportability == b'N' {
                let detail = "the key's exportability is N: it never leaves but to terminals";
                return Err(ServiceError::refused("key-not-exportable", detail));
            }
            let header = Header { version, length: 0, ..header };
            let kcv = strongbox.kcv(header.algorithm, &value)?.to_string();
            let padding = Padding::Random(&mut *rng);
            let ciphers = &*strongbox.ciphers;
            let kbpk = open.kbpk();
            let block = tr31::wrap(ciphers, kbpk, &header, &value, padding, Leniency::NONE)?;
            Ok(Exported { block, kcv })
        })
        .await
    }
}

/// Whether a key-encrypting key may be used.
fn check_active(kek: Option<Kek>) -> Result<(), ServiceError> {
    let kek = kek.ok_or(ServiceError::NotFound { what: "key-encrypting key" })?;
    if kek.state == KekState::Active {
        return Ok(());
    }
    let detail = format!("the key-encrypting key is {}", kek.state);
    Err(ServiceError::refused("kek-not-active", detail))
}

/// The version that was asked for, if a key of this kind protects it.
fn export_version(kek: &Kek, asked: Option<&str>) -> Result<Version, ServiceError> {
    let aes = kek.algorithm == "A";
    let version = match asked.map(str::as_bytes) {
        None => Some(if aes { Version::D } else { Version::B }),
        Some([letter]) => Version::from_letter(*letter),
        Some(_) => None,
    };
    let fits = |version: &Version| matches!(version, Version::D | Version::E) == aes;
    version.filter(fits).ok_or_else(|| {
        let detail = "an AES key protects blocks of version D or E, a TDES key A, B or C";
        ServiceError::refused("export-version", detail)
    })
}

fn length_of(key: &Secret) -> Result<u32, ServiceError> {
    let too_long = |_| ServiceError::Internal { detail: "a key of impossible length".into() };
    u32::try_from(key.len()).map_err(too_long)
}
