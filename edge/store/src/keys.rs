//! The keys that are injected into terminals (E3, E4), and what each injection sends.

use countersign_crypto::UnixTime;

use crate::keks::check_block;
use crate::names::stored_as_text;
use crate::page::{check_cursor, fetch_limit};
use crate::value::check_texts;
use crate::{Page, Row, StoreError, Tx};

/// What terminals get of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyScope {
    /// All the same value.
    Shared,
    /// Each injection a fresh random one.
    PerTerminal,
    /// Each injection a DUKPT initial key that is derived from this base derivation key.
    Dukpt,
}

stored_as_text!(KeyScope, "scope of a key", {
    Shared => "shared",
    PerTerminal => "per-terminal",
    Dukpt => "dukpt",
});

/// Where a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyState {
    /// It is decided; its value is not made yet.
    Pending,
    /// It may be injected.
    Active,
    /// Its value is erased, and so are those that were made for terminals.
    Retired,
}

stored_as_text!(KeyState, "state of a key", {
    Pending => "pending",
    Active => "active",
    Retired => "retired",
});

/// Where a key's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyOrigin {
    /// Made here.
    Generated,
    /// Taken in under a key-encrypting key.
    Imported,
}

stored_as_text!(KeyOrigin, "origin of a key", {
    Generated => "generated",
    Imported => "imported",
});

/// The device numbers that a base derivation key gives out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KsnSeries {
    /// What all its serial numbers begin with: the key set identifier (5 bytes) of a TDES key, the
    /// base derivation key's identifier (4 bytes) of an AES key. No two keys ever have the same.
    pub base: Vec<u8>,
    /// The first device number.
    pub first: i64,
    /// The next device number.
    pub next: i64,
    /// The first that is not in the series.
    pub end: i64,
}

/// A key for injection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// `key_…`.
    pub id: String,
    /// Unique name.
    pub name: String,
    /// What terminals get of it.
    pub scope: KeyScope,
    /// Where it stands.
    pub state: KeyState,
    /// Where its value comes from.
    pub origin: KeyOrigin,
    /// Key usage, as TR-31 writes it.
    pub usage: String,
    /// Algorithm, as TR-31 writes it.
    pub algorithm: String,
    /// Mode of use, as TR-31 writes it.
    pub mode: String,
    /// Exportability, as TR-31 writes it.
    pub exportability: String,
    /// In bytes.
    pub length: u32,
    /// Under which key-encrypting key it came, if it did.
    pub kek_id: Option<String>,
    /// Its check value; none for a key whose terminals get a value each.
    pub kcv: Option<String>,
    /// Its value under the storage key; none while pending, once retired, and where each terminal
    /// gets a value of its own.
    pub block: Option<String>,
    /// Its device numbers, if its scope is [`KeyScope::Dukpt`].
    pub ksn: Option<KsnSeries>,
    /// The operator who made it or took it in.
    pub created_by: String,
    /// When.
    pub created_at: UnixTime,
    /// When it could first be injected.
    pub activated_at: Option<UnixTime>,
    /// When it was erased.
    pub retired_at: Option<UnixTime>,
}

/// A key, and for how many terminals it was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// The key.
    pub key: Key,
    /// How many different terminals an injection has prepared a value of it for.
    pub terminals: u32,
}

/// What one injection sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// `inj_…`.
    pub injection_id: String,
    /// Of which key.
    pub key_id: String,
    /// To which terminal.
    pub device_id: String,
    /// The value's check value.
    pub kcv: String,
    /// The initial key serial number, if the key's scope is [`KeyScope::Dukpt`].
    pub ksn: Option<Vec<u8>>,
    /// The value under the storage key; none if it is the key's own, or erased.
    pub block: Option<String>,
    /// When it was made.
    pub at: UnixTime,
}

const COLUMNS: &str = "k.id, k.name, k.scope, k.state, k.origin, k.key_usage, k.algorithm, \
                       k.mode_of_use, k.exportability, k.length, k.kek_id, k.kcv, k.block, \
                       k.ksn_base, k.ksn_first, k.ksn_next, k.ksn_end, k.created_by, \
                       k.created_at, k.activated_at, k.retired_at";
const WIDTH: usize = 21;
const TERMINALS: &str =
    "(SELECT count(DISTINCT v.device_id) FROM key_values v WHERE v.key_id = k.id)";

fn key(row: &Row) -> Result<Key, StoreError> {
    let text = |column| Ok::<_, StoreError>(row.opt_text(column)?.map(str::to_owned));
    let ksn = match row.opt_blob(13)? {
        None => None,
        Some(base) => Some(KsnSeries {
            base: base.to_vec(),
            first: row.int(14)?,
            next: row.int(15)?,
            end: row.int(16)?,
        }),
    };
    Ok(Key {
        id: row.text(0)?.to_owned(),
        name: row.text(1)?.to_owned(),
        scope: KeyScope::stored(row.text(2)?)?,
        state: KeyState::stored(row.text(3)?)?,
        origin: KeyOrigin::stored(row.text(4)?)?,
        usage: row.text(5)?.to_owned(),
        algorithm: row.text(6)?.to_owned(),
        mode: row.text(7)?.to_owned(),
        exportability: row.text(8)?.to_owned(),
        length: row.u32(9)?,
        kek_id: text(10)?,
        kcv: text(11)?,
        block: text(12)?,
        ksn,
        created_by: row.text(17)?.to_owned(),
        created_at: row.time(18)?,
        activated_at: row.opt_time(19)?,
        retired_at: row.opt_time(20)?,
    })
}

fn record(row: &Row) -> Result<KeyRecord, StoreError> {
    Ok(KeyRecord { key: key(row)?, terminals: row.u32(WIDTH)? })
}

fn value(row: &Row) -> Result<KeyValue, StoreError> {
    Ok(KeyValue {
        injection_id: row.text(0)?.to_owned(),
        key_id: row.text(1)?.to_owned(),
        device_id: row.text(2)?.to_owned(),
        kcv: row.text(3)?.to_owned(),
        ksn: row.opt_blob(4)?.map(<[u8]>::to_vec),
        block: row.opt_text(5)?.map(str::to_owned),
        at: row.time(6)?,
    })
}

impl Tx<'_> {
    /// Inserts a key as it is: pending, or active with its value.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `keys_name_key`, `keys_ksn_base_key`; [`StoreError::Refused`]
    /// `text-too-long`, `block-too-long`; [`StoreError::NotFound`] for no such operator or
    /// key-encrypting key.
    pub fn insert_key(&mut self, key: &Key) -> Result<(), StoreError> {
        check_block(key.block.as_deref().unwrap_or_default())?;
        check_texts([key.id.as_str(), &key.name, &key.usage, &key.algorithm, &key.mode])?;
        check_texts([key.exportability.as_str(), key.kcv.as_deref().unwrap_or_default()])?;
        let ksn = key.ksn.as_ref();
        self.execute(
            "INSERT INTO keys (id, name, scope, state, origin, key_usage, algorithm, mode_of_use,
                               exportability, length, kek_id, kcv, block, ksn_base, ksn_first,
                               ksn_next, ksn_end, created_by, created_at, activated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
                     ?18, ?19, ?20)",
            &[
                (&key.id).into(),
                (&key.name).into(),
                key.scope.name().into(),
                key.state.name().into(),
                key.origin.name().into(),
                (&key.usage).into(),
                (&key.algorithm).into(),
                (&key.mode).into(),
                (&key.exportability).into(),
                key.length.into(),
                key.kek_id.as_deref().into(),
                key.kcv.as_deref().into(),
                key.block.as_deref().into(),
                ksn.map(|ksn| ksn.base.as_slice()).into(),
                ksn.map_or(0, |ksn| ksn.first).into(),
                ksn.map_or(0, |ksn| ksn.next).into(),
                ksn.map_or(0, |ksn| ksn.end).into(),
                (&key.created_by).into(),
                key.created_at.into(),
                key.activated_at.into(),
            ],
        )?;
        Ok(())
    }

    /// The key with this id.
    ///
    /// # Errors
    /// What the database answers.
    pub fn key_by_id(&mut self, id: &str) -> Result<Option<KeyRecord>, StoreError> {
        let sql = format!("SELECT {COLUMNS}, {TERMINALS} FROM keys k WHERE k.id = ?1");
        self.query_one(&sql, &[id.into()])?.map(|row| record(&row)).transpose()
    }

    /// The key with this name.
    ///
    /// # Errors
    /// What the database answers.
    pub fn key_by_name(&mut self, name: &str) -> Result<Option<KeyRecord>, StoreError> {
        let sql = format!("SELECT {COLUMNS}, {TERMINALS} FROM keys k WHERE k.name = ?1");
        self.query_one(&sql, &[name.into()])?.map(|row| record(&row)).transpose()
    }

    /// Keys, oldest first, after `cursor`; `limit` in 1..=[`crate::MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`, `page-cursor`.
    pub fn keys_page(
        &mut self,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<KeyRecord>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS}, {TERMINALS} FROM keys k WHERE k.id > ?1 ORDER BY k.id LIMIT ?2"
        );
        let after = check_cursor(cursor)?.unwrap_or_default();
        let rows = self.query(&sql, &[after.into(), fetch_limit(limit)?.into()])?;
        let items = rows.iter().map(record).collect::<Result<_, _>>()?;
        Ok(Page::cut(items, limit, |record: &KeyRecord| record.key.id.clone()))
    }

    /// Keys whose value is still to be made, oldest first, `limit` at most.
    ///
    /// # Errors
    /// What the database answers.
    pub fn pending_keys(&mut self, limit: u32) -> Result<Vec<Key>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM keys k WHERE k.state = 'pending' ORDER BY k.id LIMIT ?1"
        );
        self.query(&sql, &[limit.into()])?.iter().map(key).collect()
    }

    /// Gives a pending key its value. Whether it was still pending: of two who do it one wins.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `block-too-long`, `text-too-long`.
    pub fn activate_key(
        &mut self,
        id: &str,
        kcv: &str,
        block: &str,
        now: UnixTime,
    ) -> Result<bool, StoreError> {
        check_block(block)?;
        check_texts([kcv])?;
        let sql = "UPDATE keys SET state = 'active', kcv = ?2, block = ?3, activated_at = ?4
                   WHERE id = ?1 AND state = 'pending'";
        let values = [id.into(), kcv.into(), block.into(), now.into()];
        Ok(self.execute(sql, &values)? == 1)
    }

    /// Erases a key's value and those that were made of it for terminals; check values stay.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none, or it is retired.
    pub fn retire_key(&mut self, id: &str, now: UnixTime) -> Result<(), StoreError> {
        let sql = "UPDATE keys SET state = 'retired', block = NULL, retired_at = ?2
                   WHERE id = ?1 AND state <> 'retired'";
        self.change_one("key", sql, &[id.into(), now.into()])?;
        self.execute("UPDATE key_values SET block = NULL WHERE key_id = ?1", &[id.into()])?;
        Ok(())
    }

    /// What an injection sends, if that was decided.
    ///
    /// # Errors
    /// What the database answers.
    pub fn key_value(&mut self, injection_id: &str) -> Result<Option<KeyValue>, StoreError> {
        let sql = "SELECT injection_id, key_id, device_id, kcv, ksn, block, at FROM key_values
                   WHERE injection_id = ?1";
        self.query_one(sql, &[injection_id.into()])?.map(|row| value(&row)).transpose()
    }

    /// Stores what an injection sends, once: returns what is stored, which is what came first, and
    /// whether that is this. In a serializable transaction, so that a key is not retired meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `key-not-active`, `block-too-long`, `text-too-long`;
    /// [`StoreError::NotFound`] for no such device.
    pub fn put_key_value(&mut self, new: &KeyValue) -> Result<(KeyValue, bool), StoreError> {
        check_block(new.block.as_deref().unwrap_or_default())?;
        check_texts([new.injection_id.as_str(), &new.kcv])?;
        if let Some(stored) = self.key_value(&new.injection_id)? {
            return Ok((stored, false));
        }
        let sql = "SELECT 1 FROM keys WHERE id = ?1 AND state = 'active'";
        if self.query_one(sql, &[(&new.key_id).into()])?.is_none() {
            return Err(StoreError::Refused { check: "key-not-active" });
        }
        self.execute(
            "INSERT INTO key_values (injection_id, key_id, device_id, kcv, ksn, block, at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            &[
                (&new.injection_id).into(),
                (&new.key_id).into(),
                (&new.device_id).into(),
                (&new.kcv).into(),
                new.ksn.as_deref().into(),
                new.block.as_deref().into(),
                new.at.into(),
            ],
        )?;
        Ok((new.clone(), true))
    }
}
