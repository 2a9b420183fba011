use countersign_crypto::Secret;
use countersign_store::{AuditEntry, IdKind, Key, KeyScope, KeyState, KeyValue, KsnSeries};
use data_encoding::HEXUPPER;
use serde_json::json;
use tr31::dukpt::Allotted;
use tr31::{Header, Kcv, OptionalBlock, OptionalId, Version};

use super::lifecycle::{header_of_key, range};
use super::{Strongbox, stored_kcv};
use crate::{Actor, Service, ServiceError, done};

/// The initial serial number of a DUKPT key: a KSN with counter zero (TDES), or the identifier of
/// the initial key (AES).
pub type Ksn = Allotted;

/// What one injection sends.
pub struct KeyToSend {
    /// The header: the key's policy, and for a DUKPT initial key its serial number in block KS
    /// (TDES) or IK (AES). Its length is zero, for nothing is wrapped yet.
    pub header: Header,
    /// The key.
    pub key: Secret,
    /// Its check value, whole.
    pub kcv: Kcv,
    /// Its serial number, if it is a DUKPT initial key.
    pub ksn: Option<Ksn>,
}

/// Reads a serial number back as [`ksn_bytes`] wrote it.
fn stored_ksn(bytes: &[u8]) -> Result<Ksn, ServiceError> {
    if let Ok(bytes) = bytes.try_into() {
        return Ok(Allotted::Tdes(tr31::dukpt::TdesKsn::from_bytes(bytes)));
    }
    let damaged = || ServiceError::Internal { detail: "a stored serial number is damaged".into() };
    let bytes = bytes.try_into().map_err(|_| damaged())?;
    Ok(Allotted::Aes(tr31::dukpt::InitialKeyId::from_bytes(bytes)))
}

/// Ten bytes of a TDES serial number, eight of an AES initial key's identifier.
fn ksn_bytes(ksn: &Ksn) -> &[u8] {
    match ksn {
        Allotted::Tdes(ksn) => ksn.as_bytes(),
        Allotted::Aes(id) => id.as_bytes(),
    }
}

/// The header of a DUKPT initial key (X9.143 6.3.1: B1, to derive from).
fn initial_key_header(ksn: &Ksn) -> Header {
    let (algorithm, id, value) = match ksn {
        Allotted::Tdes(ksn) => (b'T', OptionalId::KS, ksn.to_string()),
        Allotted::Aes(id) => (b'A', OptionalId::IK, id.to_string()),
    };
    let mut header = Header::new(Version::D, *b"B1", algorithm, b'X', b'N');
    header.optional.push(OptionalBlock::new(id, value));
    header
}

/// The device number that was allotted, in its kind's form.
fn numbered(algorithm: u8, series: &KsnSeries, counter: i64) -> Result<Ksn, ServiceError> {
    let damaged = || ServiceError::Internal { detail: "a series of serial numbers".into() };
    let number = |number: i64| u32::try_from(number).map_err(|_| damaged());
    let (first, last) = (number(series.first)?, number(series.end - 1)?);
    let given_out = u64::try_from(counter - series.first).map_err(|_| damaged())?;
    Ok(range(algorithm, &series.base, first, last)?.next(given_out)?)
}

/// The version that a terminal sees: the cipher that protects a key is of its own kind.
fn sent(mut header: Header) -> Header {
    header.version = if header.algorithm == b'A' { Version::D } else { Version::B };
    header.length = 0;
    header
}

/// The row that the block of a value names: which injection it is for, and into which terminal.
pub(super) fn value_row(injection_id: &str, device_id: &str) -> String {
    format!("{injection_id}/{device_id}")
}

/// Whether the key of `row` may go to a terminal. The block says what it is, whatever the row says:
/// neither a base derivation key nor a key-encrypting key of this server ever leaves for one.
fn may_be_sent(row: &str, scope: KeyScope, header: &Header) -> bool {
    let kind = row.split('_').next().unwrap_or_default();
    let injected = [IdKind::Key, IdKind::Injection].iter().any(|one| one.prefix() == kind);
    let usage = match scope {
        KeyScope::Dukpt => header.usage == *b"B1",
        KeyScope::Shared | KeyScope::PerTerminal => header.usage != *b"B0",
    };
    injected && usage
}

/// A value that was made for one injection, before it is sealed.
struct Made {
    header: Header,
    key: Secret,
    ksn: Option<Ksn>,
}

impl Service {
    /// The key that this injection sends to this terminal. The first call decides: a random value
    /// or a derived one is stored before it is returned, so that every further call for the same
    /// injection, on any server, returns the same.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`]; `key-not-active`; `ksn-exhausted`.
    pub async fn key_for_injection(
        &self,
        key_id: &str,
        device_id: &str,
        injection_id: &str,
    ) -> Result<KeyToSend, ServiceError> {
        let (id, injection) = (key_id.to_owned(), injection_id.to_owned());
        let (record, value) = self
            .store
            .read("key_for_injection", move |tx| {
                let record = tx.key_by_id(&id)?.ok_or(ServiceError::NotFound { what: "key" })?;
                Ok::<_, ServiceError>((record, tx.key_value(&injection)?))
            })
            .await?;
        let key = record.key;
        if key.state != KeyState::Active {
            let detail = format!("the key is {}", key.state);
            return Err(ServiceError::refused("key-not-active", detail));
        }
        let value = match value {
            Some(value) => value,
            None => self.decide_value(&key, device_id, injection_id).await?,
        };
        if value.key_id != key.id || value.device_id != device_id {
            let detail = "the injection has a value of another key or for another terminal";
            return Err(ServiceError::refused("injection-other-key", detail));
        }
        self.open_value(&key, value).await
    }

    /// What an injection has sent, or will: its check value and serial number; the sealed value
    /// only while the key is not retired.
    ///
    /// # Errors
    /// The store's.
    pub async fn injected_value(
        &self,
        injection_id: &str,
    ) -> Result<Option<KeyValue>, ServiceError> {
        let id = injection_id.to_owned();
        self.store.read("injected_value", move |tx| Ok(tx.key_value(&id)?)).await
    }

    async fn decide_value(
        &self,
        key: &Key,
        device_id: &str,
        injection_id: &str,
    ) -> Result<KeyValue, ServiceError> {
        let made = match key.scope {
            KeyScope::Shared => None,
            KeyScope::PerTerminal => {
                let header = header_of_key(key)?;
                let value = self.draw(header.clone(), key.length as usize).await?;
                Some(Made { header, key: value, ksn: None })
            }
            KeyScope::Dukpt => Some(self.derive(key, device_id, injection_id).await?),
        };
        let mut value = KeyValue {
            injection_id: injection_id.to_owned(),
            key_id: key.id.clone(),
            device_id: device_id.to_owned(),
            kcv: key.kcv.clone().unwrap_or_default(),
            ksn: None,
            block: None,
            at: self.now(),
        };
        if let Some(Made { header, key, ksn }) = made {
            let (strongbox, mut rng) = (self.strongbox().await?, self.rng());
            let row = value_row(injection_id, device_id);
            value.ksn = ksn.as_ref().map(|ksn| ksn_bytes(ksn).to_vec());
            let (kcv, block) = self
                .blocking(move || {
                    let kcv = strongbox.kcv(header.algorithm, &key)?.to_string();
                    Ok((kcv, strongbox.seal(&mut *rng, &row, &header, &key)?))
                })
                .await?;
            (value.kcv, value.block) = (kcv, Some(block));
        }
        let own = value.block.is_some();
        let detail = json!({
            "key": key.id,
            "device": device_id,
            "kcv": value.kcv,
            "ksn": value.ksn.as_deref().map(|ksn| HEXUPPER.encode(ksn)),
        });
        let action = if value.ksn.is_some() { "key.derive" } else { "key.draw" };
        let entry = AuditEntry {
            detail: detail.to_string(),
            ..done(value.at, &Actor::System, action, injection_id)
        };
        self.store
            .run_tx("put_key_value", move |tx| {
                let (stored, new) = tx.put_key_value(&value)?;
                if own && new {
                    tx.append_audit(&entry)?;
                }
                Ok::<_, ServiceError>(stored)
            })
            .await
    }

    /// A DUKPT initial key under the next device number. The number is this injection's from here
    /// on, whatever becomes of it.
    async fn derive(
        &self,
        key: &Key,
        device_id: &str,
        injection_id: &str,
    ) -> Result<Made, ServiceError> {
        let header = header_of_key(key)?;
        let series = key.ksn.as_ref().ok_or_else(|| damaged(key))?;
        let (id, injection, device) =
            (key.id.clone(), injection_id.to_owned(), device_id.to_owned());
        let now = self.now();
        let counter = self
            .store
            .run_snapshot("allot_ksn", move |tx| {
                Ok::<_, ServiceError>(tx.allot_ksn(&id, &injection, &device, now)?)
            })
            .await
            .map_err(|error| match error.check() {
                "ksn-exhausted" => {
                    let detail = "all serial numbers of this key are given out";
                    ServiceError::refused("ksn-exhausted", detail)
                }
                _ => error,
            })?;
        let ksn = numbered(header.algorithm, series, counter)?;
        let strongbox = self.strongbox().await?;
        let (row, block) = (key.id.clone(), key.block.clone().ok_or_else(|| damaged(key))?);
        self.blocking(move || {
            let (_, base) = strongbox.open(&row, &block)?;
            let initial = match &ksn {
                Allotted::Tdes(ksn) => ksn.initial_key(&*strongbox.ciphers, &base)?,
                Allotted::Aes(id) => id.initial_key(&*strongbox.ciphers, &base)?,
            };
            Ok(Made { header: initial_key_header(&ksn), key: initial, ksn: Some(ksn) })
        })
        .await
    }

    async fn open_value(&self, key: &Key, value: KeyValue) -> Result<KeyToSend, ServiceError> {
        let strongbox = self.strongbox().await?;
        let (row, block) = match (value.block, key.scope) {
            (Some(block), _) => (value_row(&value.injection_id, &value.device_id), block),
            (None, KeyScope::Shared) => {
                (key.id.clone(), key.block.clone().ok_or_else(|| damaged(key))?)
            }
            (None, _) => return Err(damaged(key)),
        };
        let ksn = value.ksn.as_deref().map(stored_ksn).transpose()?;
        let (told, scope) = (value.kcv, key.scope);
        self.blocking(move || {
            let opened = open_sealed(&strongbox, &row, &block, &told, ksn)?;
            if may_be_sent(&row, scope, &opened.header) {
                return Ok(opened);
            }
            let detail = format!("the key of {row} is not one that goes to a terminal");
            Err(ServiceError::Internal { detail })
        })
        .await
    }
}

fn open_sealed(
    strongbox: &Strongbox,
    row: &str,
    block: &str,
    told: &str,
    ksn: Option<Ksn>,
) -> Result<KeyToSend, ServiceError> {
    let (header, key) = strongbox.open(row, block)?;
    let kcv = strongbox.kcv(header.algorithm, &key)?;
    if !kcv.starts_with(&stored_kcv(header.algorithm, told)?) {
        let detail = format!("the key of {row} has another check value than its row");
        return Err(ServiceError::Internal { detail });
    }
    Ok(KeyToSend { header: sent(header), key, kcv, ksn })
}

fn damaged(key: &Key) -> ServiceError {
    ServiceError::Internal { detail: format!("the row of {} is damaged", key.id) }
}
