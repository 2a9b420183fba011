//! Key-encrypting keys: entered as components by different operators, then held as one key (E4).

use countersign_crypto::UnixTime;

use crate::names::stored_as_text;
use crate::page::{check_cursor, fetch_limit};
use crate::value::check_texts;
use crate::{Page, Row, StoreError, Tx};

/// Most components that a key-encrypting key may have.
pub const MAX_COMPONENTS: u32 = 3;
/// Longest key block that is stored, in characters.
pub(crate) const BLOCK_MAX: usize = 4096;

/// Where a key-encrypting key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KekState {
    /// Components are awaited.
    Collecting,
    /// Keys may be taken in and exported under it.
    Active,
    /// It is erased.
    Retired,
}

stored_as_text!(KekState, "state of a key-encrypting key", {
    Collecting => "collecting",
    Active => "active",
    Retired => "retired",
});

/// A key-encrypting key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kek {
    /// `kek_…`.
    pub id: String,
    /// Unique name.
    pub name: String,
    /// Where it stands.
    pub state: KekState,
    /// As TR-31 writes it: `A` or `T`.
    pub algorithm: String,
    /// In bytes.
    pub length: u32,
    /// How many components make it, 2..=[`MAX_COMPONENTS`].
    pub components: u32,
    /// The check value that the combined key must have, if it was told beforehand.
    pub expected_kcv: Option<String>,
    /// The combined key's check value.
    pub kcv: Option<String>,
    /// The combined key under the storage key, unless the vault holds it.
    pub block: Option<String>,
    /// Its label in the vault, if that holds it.
    pub label: Option<String>,
    /// The operator who began it.
    pub created_by: String,
    /// When.
    pub created_at: UnixTime,
    /// When the last component was entered.
    pub activated_at: Option<UnixTime>,
    /// When it was erased.
    pub retired_at: Option<UnixTime>,
}

/// A component that was entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KekComponent {
    /// 1..=`components`.
    pub number: u32,
    /// Who entered it.
    pub operator_id: String,
    /// Its own check value.
    pub kcv: String,
    /// The component under the storage key, until the last one has come.
    pub block: Option<String>,
    /// When.
    pub at: UnixTime,
}

/// How a key-encrypting key is held once it is combined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeldKek {
    /// As a key block under the storage key.
    Block(String),
    /// In the vault, under this label.
    Label(String),
}

const COLUMNS: &str = "id, name, state, algorithm, length, components, expected_kcv, kcv, block, \
                       label, created_by, created_at, activated_at, retired_at";

fn kek(row: &Row) -> Result<Kek, StoreError> {
    let text = |column| Ok::<_, StoreError>(row.opt_text(column)?.map(str::to_owned));
    Ok(Kek {
        id: row.text(0)?.to_owned(),
        name: row.text(1)?.to_owned(),
        state: KekState::stored(row.text(2)?)?,
        algorithm: row.text(3)?.to_owned(),
        length: row.u32(4)?,
        components: row.u32(5)?,
        expected_kcv: text(6)?,
        kcv: text(7)?,
        block: text(8)?,
        label: text(9)?,
        created_by: row.text(10)?.to_owned(),
        created_at: row.time(11)?,
        activated_at: row.opt_time(12)?,
        retired_at: row.opt_time(13)?,
    })
}

/// Refuses a key block that is longer than any that is made here.
pub(crate) fn check_block(block: &str) -> Result<(), StoreError> {
    if block.len() <= BLOCK_MAX {
        Ok(())
    } else {
        Err(StoreError::Refused { check: "block-too-long" })
    }
}

impl Tx<'_> {
    /// Inserts a key-encrypting key that awaits its components (whatever `state` says).
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `keks_name_key`; [`StoreError::Refused`] `kek-components`,
    /// `text-too-long`; [`StoreError::NotFound`] for no such operator.
    pub fn insert_kek(&mut self, kek: &Kek) -> Result<(), StoreError> {
        if !(2..=MAX_COMPONENTS).contains(&kek.components) {
            return Err(StoreError::Refused { check: "kek-components" });
        }
        let expected = kek.expected_kcv.as_deref().unwrap_or_default();
        check_texts([kek.id.as_str(), &kek.name, &kek.algorithm, expected])?;
        self.execute(
            "INSERT INTO keks (id, name, state, algorithm, length, components, expected_kcv,
                               created_by, created_at)
             VALUES (?1, ?2, 'collecting', ?3, ?4, ?5, ?6, ?7, ?8)",
            &[
                (&kek.id).into(),
                (&kek.name).into(),
                (&kek.algorithm).into(),
                kek.length.into(),
                kek.components.into(),
                kek.expected_kcv.as_deref().into(),
                (&kek.created_by).into(),
                kek.created_at.into(),
            ],
        )?;
        Ok(())
    }

    /// The key-encrypting key with this id.
    ///
    /// # Errors
    /// What the database answers.
    pub fn kek_by_id(&mut self, id: &str) -> Result<Option<Kek>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM keks WHERE id = ?1");
        self.query_one(&sql, &[id.into()])?.map(|row| kek(&row)).transpose()
    }

    /// The key-encrypting key with this name.
    ///
    /// # Errors
    /// What the database answers.
    pub fn kek_by_name(&mut self, name: &str) -> Result<Option<Kek>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM keks WHERE name = ?1");
        self.query_one(&sql, &[name.into()])?.map(|row| kek(&row)).transpose()
    }

    /// Key-encrypting keys, oldest first, after `cursor`; `limit` in 1..=[`crate::MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`, `page-cursor`.
    pub fn keks_page(&mut self, cursor: Option<&str>, limit: u32) -> Result<Page<Kek>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM keks WHERE id > ?1 ORDER BY id LIMIT ?2");
        let after = check_cursor(cursor)?.unwrap_or_default();
        let rows = self.query(&sql, &[after.into(), fetch_limit(limit)?.into()])?;
        let items = rows.iter().map(kek).collect::<Result<_, _>>()?;
        Ok(Page::cut(items, limit, |kek| kek.id.clone()))
    }

    /// The components entered so far, by number.
    ///
    /// # Errors
    /// What the database answers.
    pub fn kek_components(&mut self, kek_id: &str) -> Result<Vec<KekComponent>, StoreError> {
        let rows = self.query(
            "SELECT number, operator_id, kcv, block, at FROM kek_components WHERE kek_id = ?1
             ORDER BY number LIMIT ?2",
            &[kek_id.into(), MAX_COMPONENTS.into()],
        )?;
        rows.iter()
            .map(|row| {
                Ok(KekComponent {
                    number: row.u32(0)?,
                    operator_id: row.text(1)?.to_owned(),
                    kcv: row.text(2)?.to_owned(),
                    block: row.opt_text(3)?.map(str::to_owned),
                    at: row.time(4)?,
                })
            })
            .collect()
    }

    /// Stores one component of a key-encrypting key that awaits components.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `kek_components_kek_id_operator_id_key` if this operator has
    /// entered one of this key, `kek_components_kek_id_number_key` if this one was entered;
    /// [`StoreError::NotFound`] unless the key awaits components; [`StoreError::Refused`]
    /// `block-too-long`, `text-too-long`.
    pub fn insert_kek_component(
        &mut self,
        kek_id: &str,
        component: &KekComponent,
    ) -> Result<(), StoreError> {
        check_block(component.block.as_deref().unwrap_or_default())?;
        check_texts([component.kcv.as_str()])?;
        let sql = "UPDATE keks SET state = 'collecting' WHERE id = ?1 AND state = 'collecting'
                   AND components >= ?2";
        let what = "key-encrypting key that awaits this component";
        self.change_one(what, sql, &[kek_id.into(), component.number.into()])?;
        self.execute(
            "INSERT INTO kek_components (kek_id, number, operator_id, kcv, block, at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            &[
                kek_id.into(),
                component.number.into(),
                (&component.operator_id).into(),
                (&component.kcv).into(),
                component.block.as_deref().into(),
                component.at.into(),
            ],
        )?;
        Ok(())
    }

    /// Makes a key-encrypting key usable, and erases its components.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] unless it awaits components; [`StoreError::Refused`]
    /// `kek-incomplete` unless all have come, `block-too-long`, `text-too-long`.
    pub fn activate_kek(
        &mut self,
        id: &str,
        kcv: &str,
        held: &HeldKek,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let (block, label) = match held {
            HeldKek::Block(block) => (Some(block.as_str()), None),
            HeldKek::Label(label) => (None, Some(label.as_str())),
        };
        check_block(block.unwrap_or_default())?;
        check_texts([kcv, label.unwrap_or_default()])?;
        let sql = "UPDATE keks SET state = 'active', kcv = ?2, block = ?3, label = ?4,
                       activated_at = ?5
                   WHERE id = ?1 AND state = 'collecting'";
        let values = [id.into(), kcv.into(), block.into(), label.into(), now.into()];
        self.change_one("key-encrypting key that awaits components", sql, &values)?;
        let sql = "SELECT k.components - (SELECT count(*) FROM kek_components c
                                          WHERE c.kek_id = k.id)
                   FROM keks k WHERE k.id = ?1";
        let missing = self.query_one(sql, &[id.into()])?;
        if missing.is_none_or(|row| row.int(0) != Ok(0)) {
            return Err(StoreError::Refused { check: "kek-incomplete" });
        }
        self.erase_components(id)
    }

    /// Erases a key-encrypting key, whether it awaits components or is usable.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none, or it is retired.
    pub fn retire_kek(&mut self, id: &str, now: UnixTime) -> Result<(), StoreError> {
        let sql = "UPDATE keks SET state = 'retired', block = NULL, retired_at = ?2
                   WHERE id = ?1 AND state <> 'retired'";
        self.change_one("key-encrypting key", sql, &[id.into(), now.into()])?;
        self.erase_components(id)
    }

    fn erase_components(&mut self, kek_id: &str) -> Result<(), StoreError> {
        let sql = "UPDATE kek_components SET block = NULL WHERE kek_id = ?1";
        self.execute(sql, &[kek_id.into()]).map(|_| ())
    }
}
