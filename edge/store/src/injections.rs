//! Injections of keys into terminals (E3, E5–E8): what waits, what was sent, what is installed.

use countersign_crypto::UnixTime;

use crate::names::stored_as_text;
use crate::page::{check_cursor, fetch_limit};
use crate::value::check_texts;
use crate::{Page, Row, StoreError, Tx, Value};

/// Where an injection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InjectionState {
    /// It waits for the terminal.
    Assigned,
    /// A token was made for it; the terminal has not reported.
    Issued,
    /// The terminal reported the right check value.
    Installed,
    /// The terminal refused it, or reported a wrong check value.
    Failed,
    /// An operator took it back.
    Cancelled,
    /// Another key was assigned to the same place before it was installed.
    Replaced,
}

stored_as_text!(InjectionState, "injection state", {
    Assigned => "assigned",
    Issued => "issued",
    Installed => "installed",
    Failed => "failed",
    Cancelled => "cancelled",
    Replaced => "replaced",
});

impl InjectionState {
    /// Whether it may still be installed.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Assigned | Self::Issued)
    }
}

/// What kind of token was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// `KT_KDH`.
    Key,
    /// `RBT_KDH`.
    Rebind,
    /// `RBT_CA`.
    RebindByCa,
    /// `UBT_KDH`.
    Unbind,
}

impl TokenKind {
    /// The stable name, as stored.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Rebind => "rebind",
            Self::RebindByCa => "rebind-ca",
            Self::Unbind => "unbind",
        }
    }
}

/// One key for one place in one terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// `inj_…`.
    pub id: String,
    /// The terminal, `trm_…`.
    pub device_id: String,
    /// The key, `key_…`.
    pub key_id: String,
    /// The place in the terminal.
    pub slot: u32,
    /// The run it belongs to, if to one.
    pub run_id: Option<String>,
    /// Where it stands.
    pub state: InjectionState,
    /// How many tokens were made for it.
    pub attempts: u32,
    /// The KDH that signed the latest token.
    pub kdh_id: Option<String>,
    /// The header of the key block in the latest token.
    pub header: Option<String>,
    /// The check value that the terminal must report.
    pub kcv: Option<Vec<u8>>,
    /// The initial key serial number of a DUKPT key.
    pub ksn: Option<Vec<u8>>,
    /// Why it failed.
    pub failed_check: Option<String>,
    /// Under which incident the audit has it.
    pub incident: Option<String>,
    /// Who assigned it, as in the audit.
    pub assigned_by: String,
    /// When.
    pub assigned_at: UnixTime,
    /// When the latest token was made.
    pub issued_at: Option<UnixTime>,
    /// When it was installed, failed, cancelled or replaced.
    pub ended_at: Option<UnixTime>,
}

/// A key to be assigned to a place in a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// `inj_…` of the injection it makes.
    pub id: String,
    /// The terminal.
    pub device_id: String,
    /// The key.
    pub key_id: String,
    /// The place.
    pub slot: u32,
    /// The run, if any.
    pub run_id: Option<String>,
    /// Who assigns, as in the audit.
    pub by: String,
    /// When.
    pub at: UnixTime,
}

/// A token that is about to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenIntent {
    /// For which terminal.
    pub device_id: String,
    /// The terminal's nonce.
    pub nonce: Vec<u8>,
    /// What kind.
    pub kind: TokenKind,
    /// Which KDH signs; for `RBT_CA`, to which the terminal is bound.
    pub kdh_id: String,
    /// When; for `RBT_CA`, the signing time in it.
    pub at: UnixTime,
}

/// What a key token carries, beside its [`TokenIntent`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyIntent {
    /// For which injection.
    pub injection_id: String,
    /// The key block's header.
    pub header: String,
    /// The check value to expect.
    pub kcv: Vec<u8>,
    /// The initial key serial number of a DUKPT key.
    pub ksn: Option<Vec<u8>>,
}

/// Which injections a list has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InjectionFilter {
    /// Of this terminal.
    pub device_id: Option<String>,
    /// Of this key.
    pub key_id: Option<String>,
    /// Of this run.
    pub run_id: Option<String>,
    /// In this state.
    pub state: Option<InjectionState>,
}

const COLUMNS: &str = "id, device_id, key_id, slot, run_id, state, attempts, kdh_id, header, kcv, \
     ksn, failed_check, incident, assigned_by, assigned_at, issued_at, ended_at";

/// Bytes of a terminal's nonce.
const NONCE_LEN: std::ops::RangeInclusive<usize> = 8..=16;

pub(crate) fn injection(row: &Row) -> Result<Injection, StoreError> {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let bytes = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    Ok(Injection {
        id: row.text(0)?.to_owned(),
        device_id: row.text(1)?.to_owned(),
        key_id: row.text(2)?.to_owned(),
        slot: row.u32(3)?,
        run_id: owned(row.opt_text(4)?),
        state: InjectionState::stored(row.text(5)?)?,
        attempts: row.u32(6)?,
        kdh_id: owned(row.opt_text(7)?),
        header: owned(row.opt_text(8)?),
        kcv: bytes(row.opt_blob(9)?),
        ksn: bytes(row.opt_blob(10)?),
        failed_check: owned(row.opt_text(11)?),
        incident: owned(row.opt_text(12)?),
        assigned_by: row.text(13)?.to_owned(),
        assigned_at: row.time(14)?,
        issued_at: row.opt_time(15)?,
        ended_at: row.opt_time(16)?,
    })
}

impl Tx<'_> {
    /// Assigns a key to a place in a terminal. What waited there is replaced, but for the same key
    /// of the same run, which stays. The injection that waits, and whether it is new.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for no such terminal, key or run; [`StoreError::Conflict`]
    /// `injections_device_id_slot_key` if another transaction assigned at the same moment.
    pub fn assign_injection(
        &mut self,
        assignment: &Assignment,
    ) -> Result<(Injection, bool), StoreError> {
        let Assignment { id, device_id, key_id, slot, run_id, by, at } = assignment;
        check_texts([id.as_str(), by])?;
        if let Some(open) = self.open_injection_at(device_id, *slot)? {
            if open.key_id == *key_id && open.run_id == *run_id {
                return Ok((open, false));
            }
            self.end_injection(&open.id, InjectionState::Replaced, None, *at)?;
        }
        self.execute(
            "INSERT INTO injections
                 (id, device_id, key_id, slot, run_id, state, attempts, assigned_by, assigned_at)
             VALUES (?1, ?2, ?3, ?4, ?5, 'assigned', 0, ?6, ?7)",
            &[
                id.into(),
                device_id.into(),
                key_id.into(),
                (*slot).into(),
                run_id.as_deref().into(),
                by.into(),
                (*at).into(),
            ],
        )?;
        let made = self.injection_by_id(id)?;
        Ok((made.ok_or(StoreError::NotFound { what: "injection" })?, true))
    }

    /// The injection with this id.
    ///
    /// # Errors
    /// What the database answers.
    pub fn injection_by_id(&mut self, id: &str) -> Result<Option<Injection>, StoreError> {
        self.injection_where("id = ?1", &[id.into()])
    }

    /// What waits for a place in a terminal.
    ///
    /// # Errors
    /// What the database answers.
    pub fn open_injection_at(
        &mut self,
        device_id: &str,
        slot: u32,
    ) -> Result<Option<Injection>, StoreError> {
        let open = "device_id = ?1 AND slot = ?2 AND state IN ('assigned', 'issued')";
        self.injection_where(open, &[device_id.into(), slot.into()])
    }

    /// What a terminal is to be given next: of what waits, what was assigned first.
    ///
    /// # Errors
    /// What the database answers.
    pub fn next_injection(&mut self, device_id: &str) -> Result<Option<Injection>, StoreError> {
        let open = "device_id = ?1 AND state IN ('assigned', 'issued') ORDER BY id LIMIT 1";
        self.injection_where(open, &[device_id.into()])
    }

    /// What stands in a terminal: for each place what was installed last, and what waits there or
    /// failed after it.
    ///
    /// # Errors
    /// What the database answers.
    pub fn keys_at(&mut self, device_id: &str) -> Result<Vec<Injection>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM injections i WHERE device_id = ?1
               AND state NOT IN ('cancelled', 'replaced')
               AND NOT EXISTS (SELECT 1 FROM injections later
                   WHERE later.device_id = i.device_id AND later.slot = i.slot
                     AND later.state = 'installed' AND later.id > i.id)
               AND NOT (state = 'failed' AND EXISTS (SELECT 1 FROM injections newer
                   WHERE newer.device_id = i.device_id AND newer.slot = i.slot
                     AND newer.id > i.id AND newer.state NOT IN ('cancelled', 'replaced')))
             ORDER BY slot, id"
        );
        self.query(&sql, &[device_id.into()])?.iter().map(injection).collect()
    }

    /// Stores the intent to make a token, so that a nonce makes one only, and no two `RBT_CA` for
    /// a terminal have one signing time.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `nonce-length`, `nonce-reused`, `signing-time-taken`.
    pub fn intend_token(
        &mut self,
        intent: &TokenIntent,
        injection_id: Option<&str>,
    ) -> Result<(), StoreError> {
        if !NONCE_LEN.contains(&intent.nonce.len()) {
            return Err(StoreError::Refused { check: "nonce-length" });
        }
        if intent.kind == TokenKind::RebindByCa
            && self.signing_time(&intent.device_id)?.is_some_and(|last| intent.at <= last)
        {
            return Err(StoreError::Refused { check: "signing-time-taken" });
        }
        let made = self.query(
            "INSERT INTO injection_tokens (device_id, nonce, kind, kdh_id, injection_id, at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (device_id, nonce) DO NOTHING RETURNING at",
            &[
                (&intent.device_id).into(),
                intent.nonce.as_slice().into(),
                intent.kind.name().into(),
                (&intent.kdh_id).into(),
                injection_id.into(),
                intent.at.into(),
            ],
        )?;
        if made.is_empty() { Err(StoreError::Refused { check: "nonce-reused" }) } else { Ok(()) }
    }

    /// The latest signing time of an `RBT_CA` for a terminal: the next one's must be later.
    ///
    /// # Errors
    /// What the database answers.
    pub fn signing_time(&mut self, device_id: &str) -> Result<Option<UnixTime>, StoreError> {
        let sql = "SELECT max(at) FROM injection_tokens WHERE device_id = ?1 AND kind = ?2";
        let kind = TokenKind::RebindByCa.name();
        let row = self.query_one(sql, &[device_id.into(), kind.into()])?;
        row.map_or(Ok(None), |row| row.opt_time(0))
    }

    /// Stores the intent to make a key token, and what the terminal must report of it.
    ///
    /// # Errors
    /// As [`Tx::intend_token`]; [`StoreError::Refused`] `injection-closed` if the injection waits
    /// no more, `text-too-long`.
    pub fn issue_injection(
        &mut self,
        intent: &TokenIntent,
        key: &KeyIntent,
    ) -> Result<(), StoreError> {
        check_texts([key.header.as_str()])?;
        self.intend_token(intent, Some(&key.injection_id))?;
        let changed = self.execute(
            "UPDATE injections SET state = 'issued', attempts = attempts + 1, kdh_id = ?3,
                 header = ?4, kcv = ?5, ksn = ?6, issued_at = ?7
             WHERE id = ?1 AND device_id = ?2 AND state IN ('assigned', 'issued')",
            &[
                (&key.injection_id).into(),
                (&intent.device_id).into(),
                (&intent.kdh_id).into(),
                (&key.header).into(),
                key.kcv.as_slice().into(),
                key.ksn.as_deref().into(),
                intent.at.into(),
            ],
        )?;
        if changed == 1 { Ok(()) } else { Err(StoreError::Refused { check: "injection-closed" }) }
    }

    /// How many tokens were intended for a terminal since then.
    ///
    /// # Errors
    /// What the database answers.
    pub fn tokens_since(&mut self, device_id: &str, since: UnixTime) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM injection_tokens WHERE device_id = ?1 AND at > ?2";
        let row = self.query_one(sql, &[device_id.into(), since.into()])?;
        let count = row.map_or(Ok(0), |row| row.int(0))?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// An issued injection is installed. Whether it was so before.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `injection-closed` in every other state.
    pub fn confirm_injection(&mut self, id: &str, now: UnixTime) -> Result<bool, StoreError> {
        let changed = self.execute(
            "UPDATE injections SET state = 'installed', ended_at = ?2
             WHERE id = ?1 AND state = 'issued'",
            &[id.into(), now.into()],
        )?;
        if changed == 1 {
            return Ok(false);
        }
        match self.injection_by_id(id)? {
            Some(Injection { state: InjectionState::Installed, .. }) => Ok(true),
            _ => Err(StoreError::Refused { check: "injection-closed" }),
        }
    }

    /// An open injection ends without being installed; `failure` is the check and the incident.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Refused`] `injection-closed` if it has ended.
    pub fn end_injection(
        &mut self,
        id: &str,
        state: InjectionState,
        failure: Option<(&str, &str)>,
        now: UnixTime,
    ) -> Result<Injection, StoreError> {
        let (check, incident) = failure.unzip();
        check_texts(check.into_iter().chain(incident))?;
        let sql = format!(
            "UPDATE injections SET state = ?2, failed_check = ?3, incident = ?4, ended_at = ?5
             WHERE id = ?1 AND state IN ('assigned', 'issued') RETURNING {COLUMNS}"
        );
        let values = [id.into(), state.name().into(), check.into(), incident.into(), now.into()];
        if let Some(row) = self.query_one(&sql, &values)? {
            return injection(&row);
        }
        match self.injection_by_id(id)? {
            Some(_) => Err(StoreError::Refused { check: "injection-closed" }),
            None => Err(StoreError::NotFound { what: "injection" }),
        }
    }

    /// Cancels what waits for a terminal that has enrolled with another RSA key than before: what
    /// others agreed to was for the terminal that it was. Nothing if it has the key it always had.
    /// The injections' ids.
    ///
    /// # Errors
    /// What the database answers.
    pub fn cancel_for_other_key(
        &mut self,
        device_id: &str,
        public_key: &[u8; 32],
        now: UnixTime,
    ) -> Result<Vec<String>, StoreError> {
        let rows = self.query(
            "UPDATE injections SET state = 'cancelled', ended_at = ?3
             WHERE device_id = ?1 AND state IN ('assigned', 'issued') AND EXISTS (
                 SELECT 1 FROM krd_certificates k WHERE k.device_id = ?1 AND k.der IS NOT NULL
                   AND k.public_key <> ?2)
             RETURNING id",
            &[device_id.into(), public_key.into(), now.into()],
        )?;
        rows.iter().map(|row| Ok(row.text(0)?.to_owned())).collect()
    }

    /// Injections, newest first, before `cursor`; `limit` in 1..=[`crate::MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`, `page-cursor`.
    pub fn injections_page(
        &mut self,
        filter: &InjectionFilter,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<Injection>, StoreError> {
        let mut condition = "id < ?1".to_owned();
        let before = check_cursor(cursor)?.unwrap_or("inj~");
        let mut values: Vec<Value> = vec![before.into(), fetch_limit(limit)?.into()];
        let state = filter.state.map(|state| state.name().to_owned());
        let wanted = [
            ("device_id", &filter.device_id),
            ("key_id", &filter.key_id),
            ("run_id", &filter.run_id),
            ("state", &state),
        ];
        for (column, value) in wanted {
            if let Some(value) = value {
                values.push(value.into());
                condition.push_str(&format!(" AND {column} = ?{}", values.len()));
            }
        }
        let sql =
            format!("SELECT {COLUMNS} FROM injections WHERE {condition} ORDER BY id DESC LIMIT ?2");
        let items = self.query(&sql, &values)?.iter().map(injection).collect::<Result<_, _>>()?;
        Ok(Page::cut(items, limit, |injection: &Injection| injection.id.clone()))
    }

    fn injection_where(
        &mut self,
        condition: &str,
        values: &[Value],
    ) -> Result<Option<Injection>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM injections WHERE {condition}");
        self.query_one(&sql, values)?.map(|row| injection(&row)).transpose()
    }
}
