use countersign_store::{
    AuditEntry, IdKind, Key, KeyOrigin, KeyRecord, KeyScope, KeyState, KsnSeries, Page,
};
use serde_json::{Value, json};
use tr31::dukpt::KsnRange;
use tr31::{Header, Tr31Error, Version, policy};

use super::{check_name, refuse_taken};
use crate::{Actor, Gated, Scope, Service, ServiceError, done};

/// Keys whose values one turn of the sweep makes.
const SWEEP_KEYS: u32 = 20;

/// The device numbers that a DUKPT key is to give out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKsn {
    /// The key set identifier (5 bytes) of a TDES key, the base derivation key's identifier
    /// (4 bytes) of an AES key.
    pub base: Vec<u8>,
    /// The first device number.
    pub first: u32,
    /// The last one; by default as many as the serial number has room for.
    pub last: Option<u32>,
}

/// A key that is to be made here. The values are TR-31's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyToMake {
    /// Unique name.
    pub name: String,
    /// What terminals get of it.
    pub scope: KeyScope,
    /// Key usage.
    pub usage: String,
    /// `A` or `T`.
    pub algorithm: String,
    /// Mode of use.
    pub mode: String,
    /// `E`, `N` or `S`.
    pub exportability: String,
    /// In bytes.
    pub length: u32,
    /// For a DUKPT key, and only for such.
    pub ksn: Option<NewKsn>,
}

/// A header of these values, which are checked and go together.
pub(super) fn header_of(
    usage: &str,
    algorithm: &str,
    mode: &str,
    exportability: &str,
) -> Result<Header, ServiceError> {
    let one = |text: &str, error: Tr31Error| match text.as_bytes() {
        [one] => Ok(*one),
        _ => Err(error),
    };
    let usage = usage.as_bytes().try_into().map_err(|_| Tr31Error::Usage)?;
    let header = Header::new(
        Version::D,
        usage,
        one(algorithm, Tr31Error::Algorithm)?,
        one(mode, Tr31Error::Mode)?,
        one(exportability, Tr31Error::Exportability)?,
    );
    policy::check_header(&header)?;
    Ok(header)
}

/// The header that a key of the database has.
pub(super) fn header_of_key(key: &Key) -> Result<Header, ServiceError> {
    header_of(&key.usage, &key.algorithm, &key.mode, &key.exportability)
        .map_err(|_| ServiceError::Internal { detail: format!("the row of {} is damaged", key.id) })
}

/// Whether a key of this policy can be injected in this scope.
pub(super) fn check_scope(
    scope: KeyScope,
    origin: KeyOrigin,
    header: &Header,
) -> Result<(), ServiceError> {
    if !matches!(header.algorithm, b'A' | b'T') {
        let detail = "keys for injection are AES (A) or TDES (T) keys";
        return Err(ServiceError::refused("key-algorithm", detail));
    }
    let base = header.usage == *b"B0";
    let detail = match scope {
        KeyScope::Dukpt if !base => "the scope dukpt needs a base derivation key (usage B0)",
        KeyScope::Dukpt if !matches!(header.mode, b'X' | b'N') => {
            "a base derivation key only derives: mode of use X"
        }
        KeyScope::Shared | KeyScope::PerTerminal if base => {
            "a base derivation key (usage B0) never goes to a terminal: its scope is dukpt"
        }
        KeyScope::PerTerminal if origin == KeyOrigin::Imported => {
            "a value of its own for each terminal is made here, not taken in"
        }
        _ => return Ok(()),
    };
    Err(ServiceError::refused("key-scope", detail))
}

/// Whether the algorithm has keys of this length, and DUKPT with it.
pub(super) fn check_length(
    scope: KeyScope,
    algorithm: u8,
    length: u32,
) -> Result<(), ServiceError> {
    let fits = match (algorithm, length) {
        (b'A', 16 | 24 | 32) | (b'T', 16) => true,
        (b'T', 24) => scope != KeyScope::Dukpt,
        _ => false,
    };
    if fits {
        return Ok(());
    }
    let detail = "AES keys have 16, 24 or 32 bytes, TDES keys 16 or 24, for DUKPT 16";
    Err(ServiceError::refused("key-length", detail))
}

/// The serial numbers of a DUKPT key, and none of another.
pub(super) fn series(
    scope: KeyScope,
    algorithm: u8,
    ksn: Option<&NewKsn>,
) -> Result<Option<KsnSeries>, ServiceError> {
    let ksn = match (scope, ksn) {
        (KeyScope::Dukpt, Some(ksn)) => ksn,
        (KeyScope::Dukpt, None) => {
            let detail = "a DUKPT key needs a base for its serial numbers";
            return Err(ServiceError::refused("ksn-needed", detail));
        }
        (_, None) => return Ok(None),
        (_, Some(_)) => {
            let detail = "only DUKPT keys have serial numbers";
            return Err(ServiceError::refused("ksn-unneeded", detail));
        }
    };
    let longest = if algorithm == b'A' { u32::MAX } else { tr31::dukpt::TdesKsn::DEVICE_MAX };
    let last = ksn.last.unwrap_or(longest);
    range(algorithm, &ksn.base, ksn.first, last)?;
    Ok(Some(KsnSeries {
        base: ksn.base.clone(),
        first: ksn.first.into(),
        next: ksn.first.into(),
        end: i64::from(last) + 1,
    }))
}

/// The serial numbers as TR-31's kinds of DUKPT have them.
pub(super) fn range(
    algorithm: u8,
    base: &[u8],
    first: u32,
    last: u32,
) -> Result<KsnRange, ServiceError> {
    let (length, range) = match algorithm {
        b'A' => (4, base.try_into().ok().map(|base| KsnRange::aes(base, first, last))),
        _ => (5, base.try_into().ok().map(|base| KsnRange::tdes(base, first, last))),
    };
    let Some(range) = range else {
        let detail = format!("the base of this key's serial numbers has {length} bytes");
        return Err(ServiceError::refused("ksn-base", detail));
    };
    range.map_err(|_| {
        let detail = "device numbers rise from first to last, and TDES ones have 19 bits";
        ServiceError::refused("ksn-range", detail)
    })
}

/// Serial numbers as an approver sees them.
pub(super) fn series_json(series: Option<&KsnSeries>) -> Value {
    series.map_or(Value::Null, |series| {
        json!({
            "base": data_encoding::HEXUPPER.encode(&series.base),
            "first": series.first,
            "last": series.end - 1,
        })
    })
}

impl Service {
    /// Makes a key, in the vault's generator. The intent is stored first: a key whose value could
    /// not be made at once is pending until the vault works again.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; `name-format`, `key-name-taken`, TR-31's checks of the header,
    /// `key-algorithm`, `key-scope`, `key-length`, `ksn-needed`, `ksn-unneeded`, `ksn-base`,
    /// `ksn-range`, `ksn-base-taken`; the gate's.
    pub async fn generate_key(
        &self,
        actor: &Actor,
        new: &KeyToMake,
        approval: Option<&str>,
    ) -> Result<Gated<KeyRecord>, ServiceError> {
        let made = self.generate(actor, new, approval).await;
        if let Err(error) = &made {
            self.refused_operator(actor, "key.generate", "key", error).await;
        }
        made
    }

    async fn generate(
        &self,
        actor: &Actor,
        new: &KeyToMake,
        approval: Option<&str>,
    ) -> Result<Gated<KeyRecord>, ServiceError> {
        actor.require(Scope::KeysManage)?;
        check_name(&new.name)?;
        let header = header_of(&new.usage, &new.algorithm, &new.mode, &new.exportability)?;
        check_scope(new.scope, KeyOrigin::Generated, &header)?;
        check_length(new.scope, header.algorithm, new.length)?;
        let series = series(new.scope, header.algorithm, new.ksn.as_ref())?;
        self.check_key_free(&new.name, approval).await?;
        self.strongbox().await?; // nobody is asked to approve what this server cannot do
        let subject = json!({
            "name": new.name,
            "scope": new.scope.name(),
            "usage": new.usage,
            "algorithm": new.algorithm,
            "mode": new.mode,
            "exportability": new.exportability,
            "length": new.length,
            "ksn": series_json(series.as_ref()),
        });
        let grant = match self.gate(actor, "key.generate", &subject, approval).await? {
            Gated::Done(grant) => grant,
            Gated::Pending(approval) => return Ok(Gated::Pending(approval)),
        };
        let now = self.now();
        // Where each terminal gets a value of its own there is none to make yet.
        let active = new.scope == KeyScope::PerTerminal;
        let key = Key {
            id: self.new_id(IdKind::Key),
            name: new.name.clone(),
            scope: new.scope,
            state: if active { KeyState::Active } else { KeyState::Pending },
            origin: KeyOrigin::Generated,
            usage: new.usage.clone(),
            algorithm: new.algorithm.clone(),
            mode: new.mode.clone(),
            exportability: new.exportability.clone(),
            length: new.length,
            kek_id: None,
            kcv: None,
            block: None,
            ksn: series,
            created_by: actor.id().to_owned(),
            created_at: now,
            activated_at: active.then_some(now),
            retired_at: None,
        };
        let detail = json!({ "name": key.name, "scope": key.scope.name() }).to_string();
        let entry = AuditEntry { detail, ..done(now, actor, "key.generate", &key.id) };
        let stored = key.clone();
        self.store
            .run_tx("generate_key", move |tx| {
                grant.consume(tx, now)?;
                tx.insert_key(&stored).map_err(refuse_taken)?;
                tx.append_audit(&entry)?;
                Ok::<_, ServiceError>(())
            })
            .await?;
        if !active && let Err(error) = self.make_value(&key).await {
            tracing::warn!(%error, key = key.id, "a key stays pending: its value was not made");
        }
        self.key(&key.id).await.map(Gated::Done)
    }

    /// Refuses a name that is taken before anybody is asked to approve it.
    pub(super) async fn check_key_free(
        &self,
        name: &str,
        approval: Option<&str>,
    ) -> Result<(), ServiceError> {
        if approval.is_some() {
            return Ok(()); // an approval that was used says so first
        }
        let name = name.to_owned();
        let taken = self.store.read("key_by_name", move |tx| tx.key_by_name(&name)).await?;
        if taken.is_some() {
            return Err(ServiceError::refused("key-name-taken", "a key with this name exists"));
        }
        Ok(())
    }

    /// Makes the value of a pending key and stores it, unless someone else did.
    async fn make_value(&self, key: &Key) -> Result<bool, ServiceError> {
        let header = header_of_key(key)?;
        let value = self.draw(header.clone(), key.length as usize).await?;
        let (strongbox, mut rng, row) = (self.strongbox().await?, self.rng(), key.id.clone());
        let (kcv, block) = self
            .blocking(move || {
                let kcv = strongbox.kcv(header.algorithm, &value)?;
                Ok((kcv.to_string(), strongbox.seal(&mut *rng, &row, &header, &value)?))
            })
            .await?;
        let (now, id) = (self.now(), key.id.clone());
        let detail = json!({ "kcv": kcv }).to_string();
        let entry = AuditEntry { detail, ..done(now, &Actor::System, "key.activate", &id) };
        self.store
            .run_tx("activate_key", move |tx| {
                let won = tx.activate_key(&id, &kcv, &block, now)?;
                if won {
                    tx.append_audit(&entry)?;
                }
                Ok::<_, ServiceError>(won)
            })
            .await
    }

    /// Makes the values of keys that are still pending: after a crash, or while the vault was away.
    /// Returns how many.
    ///
    /// # Errors
    /// The store's or the vault's, when all that could be made are made.
    pub async fn finish_pending_keys(&self) -> Result<usize, ServiceError> {
        let pending = self
            .store
            .read("pending_keys", |tx| Ok::<_, ServiceError>(tx.pending_keys(SWEEP_KEYS)?));
        let mut finished = Ok(0);
        for key in pending.await? {
            finished = match (self.make_value(&key).await, finished) {
                (Ok(made), Ok(before)) => Ok(before + usize::from(made)),
                (Err(error), _) | (_, Err(error)) => Err(error),
            };
        }
        finished
    }

    /// Keys, oldest first. Never their values.
    ///
    /// # Errors
    /// `page-limit`, `page-cursor`.
    pub async fn keys(
        &self,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<KeyRecord>, ServiceError> {
        self.store.read("keys_page", move |tx| Ok(tx.keys_page(cursor.as_deref(), limit)?)).await
    }

    /// One key. Never its value.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub async fn key(&self, id: &str) -> Result<KeyRecord, ServiceError> {
        let id = id.to_owned();
        self.store
            .read("key", move |tx| tx.key_by_id(&id))
            .await?
            .ok_or(ServiceError::NotFound { what: "key" })
    }

    /// Erases a key's value and what was made of it for terminals. What terminals have, they keep.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`]; `key-retired`; the gate's.
    pub async fn retire_key(
        &self,
        actor: &Actor,
        id: &str,
        approval: Option<&str>,
    ) -> Result<Gated<KeyRecord>, ServiceError> {
        let retired = self.retire_one_key(actor, id, approval).await;
        if let Err(error) = &retired {
            self.refused_operator(actor, "key.retire", id, error).await;
        }
        retired
    }

    async fn retire_one_key(
        &self,
        actor: &Actor,
        id: &str,
        approval: Option<&str>,
    ) -> Result<Gated<KeyRecord>, ServiceError> {
        actor.require(Scope::KeysManage)?;
        let record = self.key(id).await?;
        if record.key.state == KeyState::Retired && approval.is_none() {
            return Err(ServiceError::refused("key-retired", "the key is retired"));
        }
        let subject = json!({ "key": id, "name": record.key.name });
        let grant = match self.gate(actor, "key.retire", &subject, approval).await? {
            Gated::Done(grant) => grant,
            Gated::Pending(approval) => return Ok(Gated::Pending(approval)),
        };
        let (now, id) = (self.now(), id.to_owned());
        let entry = done(now, actor, "key.retire", &id);
        let key = id.clone();
        self.store
            .run_tx("retire_key", move |tx| {
                grant.consume(tx, now)?;
                tx.retire_key(&id, now)?;
                tx.append_audit(&entry)?;
                Ok::<_, ServiceError>(())
            })
            .await?;
        self.key(&key).await.map(Gated::Done)
    }
}
