//! Terminals: the allow-list with its one-time codes, their RSA certificates, and to which KDH each
//! is bound (E1, E2).

use countersign_crypto::UnixTime;

use crate::devices::{RECORD_WIDTH, record, select_with};
use crate::page::{check_cursor, fetch_limit};
use crate::value::check_texts;
use crate::{
    AuthorityState, CertificateState, DeviceKind, DeviceRecord, Page, Row, StoreError, Tx, Value,
};

/// Where a terminal stands: it follows from what is stored of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TerminalState {
    /// It may enrol, and has not.
    Allowed,
    /// It has its certificates and is bound to no KDH.
    Enrolled,
    /// It is bound to a KDH.
    Bound,
    /// It was bound and is no more.
    Unbound,
    /// It is refused.
    Blocked,
}

impl TerminalState {
    /// The stable name, as shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Enrolled => "enrolled",
            Self::Bound => "bound",
            Self::Unbound => "unbound",
            Self::Blocked => "blocked",
        }
    }
}

/// What only terminals have, beside their device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TerminalRow {
    /// `trm_…`.
    pub device_id: String,
    /// Its model, for people.
    pub model: String,
    /// Whose it is, for people.
    pub owner: String,
    /// Hash of the enrolment code, if one was given out.
    pub code_hash: Option<[u8; 32]>,
    /// Until when the code may be used.
    pub code_expires_at: Option<UnixTime>,
    /// When it was used, if it was.
    pub code_used_at: Option<UnixTime>,
    /// Hash of the keys it was used with.
    pub code_used_by: Option<[u8; 32]>,
    /// Wrong codes since `wrong_since`.
    pub wrong_codes: u32,
    /// When these began to be counted.
    pub wrong_since: UnixTime,
    /// The KDH that it is bound to.
    pub bound_kdh: Option<String>,
    /// When it was bound.
    pub bound_at: Option<UnixTime>,
    /// When an operator asked to unbind it, if it has not been yet.
    pub unbind_asked_at: Option<UnixTime>,
    /// When it was unbound last.
    pub unbound_at: Option<UnixTime>,
}

/// A terminal: the device, what only terminals have, and its live RSA certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TerminalRecord {
    /// The device and its channel certificate.
    pub device: DeviceRecord,
    /// What only terminals have.
    pub terminal: TerminalRow,
    /// Its live RSA certificate.
    pub krd: Option<KrdCertificate>,
}

impl TerminalRecord {
    /// Where it stands at `now`.
    #[must_use]
    pub fn state(&self, now: UnixTime) -> TerminalState {
        let issued = |krd: &KrdCertificate| krd.state == CertificateState::Issued;
        if self.device.blocked(now).is_some() {
            TerminalState::Blocked
        } else if self.terminal.bound_kdh.is_some() {
            TerminalState::Bound
        } else if !self.krd.as_ref().is_some_and(issued) {
            TerminalState::Allowed
        } else if self.terminal.unbound_at.is_some() {
            TerminalState::Unbound
        } else {
            TerminalState::Enrolled
        }
    }
}

/// A terminal's RSA certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KrdCertificate {
    /// The Sub_CA_KRD that certifies it, `rka_…`.
    pub issuer_id: String,
    /// Its serial number, lower-case hexadecimal: its identity together with the issuer.
    pub serial: String,
    /// Whose it is.
    pub device_id: String,
    /// SHA-256 of the public key.
    pub public_key: [u8; 32],
    /// Where it stands.
    pub state: CertificateState,
    /// The certificate, once issued.
    pub der: Option<Vec<u8>>,
    /// Until when it is valid.
    pub not_after: UnixTime,
    /// When it was decided.
    pub intended_at: UnixTime,
    /// When its signature was stored.
    pub issued_at: Option<UnixTime>,
    /// When it was revoked.
    pub revoked_at: Option<UnixTime>,
    /// Why.
    pub revoke_reason: Option<String>,
}

const COLUMNS: &str = "t.device_id, t.model, t.owner, t.code_hash, t.code_expires_at, \
     t.code_used_at, t.code_used_by, t.wrong_codes, t.wrong_since, t.bound_kdh, t.bound_at, \
     t.unbind_asked_at, t.unbound_at";
const WIDTH: usize = 13;
const KRD_COLUMNS: &str = "k.issuer_id, k.serial, k.device_id, k.public_key, k.state, k.der, \
     k.not_after, k.intended_at, k.issued_at, k.revoked_at, k.revoke_reason";

fn opt_array(row: &Row, column: usize) -> Result<Option<[u8; 32]>, StoreError> {
    if row.is_null(column)? { Ok(None) } else { row.array(column).map(Some) }
}

fn terminal(row: &Row, first: usize) -> Result<TerminalRow, StoreError> {
    Ok(TerminalRow {
        device_id: row.text(first)?.to_owned(),
        model: row.text(first + 1)?.to_owned(),
        owner: row.text(first + 2)?.to_owned(),
        code_hash: opt_array(row, first + 3)?,
        code_expires_at: row.opt_time(first + 4)?,
        code_used_at: row.opt_time(first + 5)?,
        code_used_by: opt_array(row, first + 6)?,
        wrong_codes: row.u32(first + 7)?,
        wrong_since: row.time(first + 8)?,
        bound_kdh: row.opt_text(first + 9)?.map(str::to_owned),
        bound_at: row.opt_time(first + 10)?,
        unbind_asked_at: row.opt_time(first + 11)?,
        unbound_at: row.opt_time(first + 12)?,
    })
}

fn krd(row: &Row, first: usize) -> Result<KrdCertificate, StoreError> {
    Ok(KrdCertificate {
        issuer_id: row.text(first)?.to_owned(),
        serial: row.text(first + 1)?.to_owned(),
        device_id: row.text(first + 2)?.to_owned(),
        public_key: row.array(first + 3)?,
        state: CertificateState::stored(row.text(first + 4)?)?,
        der: row.opt_blob(first + 5)?.map(<[u8]>::to_vec),
        not_after: row.time(first + 6)?,
        intended_at: row.time(first + 7)?,
        issued_at: row.opt_time(first + 8)?,
        revoked_at: row.opt_time(first + 9)?,
        revoke_reason: row.opt_text(first + 10)?.map(str::to_owned),
    })
}

fn select(condition: &str) -> String {
    select_with(
        &format!(", {COLUMNS}, {KRD_COLUMNS}"),
        "JOIN terminals t ON t.device_id = d.id
         LEFT JOIN krd_certificates k
           ON k.device_id = d.id AND k.state IN ('intended', 'issued')",
        condition,
    )
}

fn whole(row: &Row) -> Result<TerminalRecord, StoreError> {
    let first = RECORD_WIDTH + WIDTH;
    let live = if row.is_null(first)? { None } else { Some(krd(row, first)?) };
    Ok(TerminalRecord { device: record(row)?, terminal: terminal(row, RECORD_WIDTH)?, krd: live })
}

impl Tx<'_> {
    /// Puts a device that was just inserted on the allow-list, with its enrolment code. What says
    /// how far it came (used, bound, unbound) is not looked at.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `terminals_device_id_key`; [`StoreError::NotFound`] for no such
    /// device; [`StoreError::Refused`] `text-too-long`.
    pub fn insert_terminal(&mut self, new: &TerminalRow) -> Result<(), StoreError> {
        check_texts([new.device_id.as_str(), &new.model, &new.owner])?;
        let hash = new.code_hash.as_ref().map(|hash| hash.to_vec());
        self.execute(
            "INSERT INTO terminals (device_id, model, owner, code_hash, code_expires_at,
                 wrong_codes, wrong_since)
             VALUES (?1, ?2, ?3, ?4, ?5, 0, 0)",
            &[
                (&new.device_id).into(),
                (&new.model).into(),
                (&new.owner).into(),
                hash.into(),
                new.code_expires_at.into(),
            ],
        )?;
        Ok(())
    }

    /// The terminal with this id.
    ///
    /// # Errors
    /// What the database answers.
    pub fn terminal_by_id(&mut self, id: &str) -> Result<Option<TerminalRecord>, StoreError> {
        self.terminal_where("d.id = ?1", &[id.into()])
    }

    /// The terminal with this serial number.
    ///
    /// # Errors
    /// What the database answers.
    pub fn terminal_by_serial(
        &mut self,
        serial: &str,
    ) -> Result<Option<TerminalRecord>, StoreError> {
        let kind = DeviceKind::Terminal.name();
        self.terminal_where("d.kind = ?1 AND d.serial = ?2", &[kind.into(), serial.into()])
    }

    /// Terminals, oldest first, after `cursor`; `limit` in 1..=[`crate::MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`, `page-cursor`.
    pub fn terminals_page(
        &mut self,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<TerminalRecord>, StoreError> {
        let sql = select("d.kind = ?1 AND d.id > ?2 ORDER BY d.id LIMIT ?3");
        let after = check_cursor(cursor)?.unwrap_or_default();
        let kind = DeviceKind::Terminal.name();
        let values = [kind.into(), after.into(), fetch_limit(limit)?.into()];
        let items = self.query(&sql, &values)?.iter().map(whole).collect::<Result<_, _>>()?;
        Ok(Page::cut(items, limit, |found: &TerminalRecord| found.device.device.id.clone()))
    }

    fn terminal_where(
        &mut self,
        condition: &str,
        values: &[Value],
    ) -> Result<Option<TerminalRecord>, StoreError> {
        self.query_one(&select(condition), values)?.map(|row| whole(&row)).transpose()
    }

    /// Gives a terminal another enrolment code; the one before is void, used or not.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub fn renew_enrolment_code(
        &mut self,
        device_id: &str,
        hash: &[u8; 32],
        expires_at: UnixTime,
    ) -> Result<(), StoreError> {
        self.change_one(
            "terminal",
            "UPDATE terminals SET code_hash = ?2, code_expires_at = ?3, code_used_at = NULL,
                 code_used_by = NULL, wrong_codes = 0
             WHERE device_id = ?1",
            &[device_id.into(), hash.into(), expires_at.into()],
        )
    }

    /// Counts a wrong enrolment code: the first since `now`, or one more.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub fn count_wrong_code(
        &mut self,
        device_id: &str,
        first: bool,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        if first {
            let sql = "UPDATE terminals SET wrong_codes = 1, wrong_since = ?2 WHERE device_id = ?1";
            return self.change_one("terminal", sql, &[device_id.into(), now.into()]);
        }
        let sql = "UPDATE terminals SET wrong_codes = wrong_codes + 1 WHERE device_id = ?1";
        self.change_one("terminal", sql, &[device_id.into()])
    }

    /// Uses a terminal's enrolment code up: once, for keys with this hash.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `enrolment-code-used` if it was used meanwhile, for whatever keys,
    /// or another code was given out.
    pub fn use_enrolment_code(
        &mut self,
        device_id: &str,
        hash: &[u8; 32],
        keys: &[u8; 32],
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let changed = self.execute(
            "UPDATE terminals SET code_used_at = ?4, code_used_by = ?3
             WHERE device_id = ?1 AND code_hash = ?2 AND code_used_at IS NULL",
            &[device_id.into(), hash.into(), keys.into(), now.into()],
        )?;
        let used = StoreError::Refused { check: "enrolment-code-used" };
        if changed == 1 { Ok(()) } else { Err(used) }
    }

    /// Binds a terminal to a KDH. That it is to be unbound, if so, stands.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for no such terminal or KDH.
    pub fn bind_terminal(
        &mut self,
        device_id: &str,
        kdh: &str,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        self.change_one(
            "terminal",
            "UPDATE terminals SET bound_kdh = ?2, bound_at = ?3, unbound_at = NULL
             WHERE device_id = ?1",
            &[device_id.into(), kdh.into(), now.into()],
        )?;
        self.settle_rebind(device_id, now)
    }

    /// Whether a terminal may be given a key that this KDH signs for, in the transaction that
    /// decides on it: what an operator has ended meanwhile counts.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `device-blocked`; `krd-revoked` without a live RSA certificate;
    /// `kdh-revoked`. [`StoreError::NotFound`] for no such terminal or KDH.
    pub fn check_served(
        &mut self,
        device_id: &str,
        kdh: &str,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let refused = |check| Err(StoreError::Refused { check });
        let terminal = self.terminal_by_id(device_id)?;
        let terminal = terminal.ok_or(StoreError::NotFound { what: "terminal" })?;
        if terminal.device.blocked(now).is_some() {
            return refused("device-blocked");
        }
        if terminal.krd.is_none_or(|live| live.state != CertificateState::Issued) {
            return refused("krd-revoked");
        }
        let kdh = self.authority_by_id(kdh)?.ok_or(StoreError::NotFound { what: "KDH" })?;
        if kdh.state == AuthorityState::Revoked { refused("kdh-revoked") } else { Ok(()) }
    }

    /// A terminal refused the KDH that it was to be bound to: it is bound to none.
    ///
    /// # Errors
    /// What the database answers.
    pub fn binding_refused(&mut self, device_id: &str) -> Result<(), StoreError> {
        let sql = "UPDATE terminals SET bound_kdh = NULL, bound_at = NULL WHERE device_id = ?1";
        self.execute(sql, &[device_id.into()]).map(|_| ())
    }

    /// Notes that a bound terminal is to be unbound at its next contact.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `terminal-not-bound`.
    pub fn ask_unbind(&mut self, device_id: &str, now: UnixTime) -> Result<(), StoreError> {
        let changed = self.execute(
            "UPDATE terminals SET unbind_asked_at = ?2
             WHERE device_id = ?1 AND bound_kdh IS NOT NULL",
            &[device_id.into(), now.into()],
        )?;
        let free = StoreError::Refused { check: "terminal-not-bound" };
        if changed == 1 { Ok(()) } else { Err(free) }
    }

    /// Unbinds a terminal. Unbinding again changes nothing.
    ///
    /// # Errors
    /// What the database answers.
    pub fn unbind_terminal(&mut self, device_id: &str, now: UnixTime) -> Result<(), StoreError> {
        let sql = "UPDATE terminals SET bound_kdh = NULL, unbind_asked_at = NULL, unbound_at = ?2
                   WHERE device_id = ?1 AND bound_kdh IS NOT NULL";
        self.execute(sql, &[device_id.into(), now.into()])?;
        self.settle_rebind(device_id, now)
    }

    /// How many terminals are bound to each KDH.
    ///
    /// # Errors
    /// What the database answers.
    pub fn bound_counts(&mut self) -> Result<Vec<(String, u64)>, StoreError> {
        let rows = self.query(
            "SELECT bound_kdh, count(*) FROM terminals WHERE bound_kdh IS NOT NULL
             GROUP BY bound_kdh ORDER BY bound_kdh LIMIT ?1",
            &[crate::authorities::AUTHORITIES_MAX.into()],
        )?;
        let count = |row: &Row| {
            Ok((row.text(0)?.to_owned(), u64::try_from(row.int(1)?).unwrap_or_default()))
        };
        rows.iter().map(count).collect()
    }

    /// Stores the intent to issue a terminal's RSA certificate (`state`, `der` and the times after
    /// it are not looked at).
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `krd_certificates_device_id_key` if the terminal has a live one,
    /// `krd_certificates_issuer_id_serial_key` if the number was used before.
    pub fn intend_krd(&mut self, intent: &KrdCertificate) -> Result<(), StoreError> {
        check_texts([intent.serial.as_str()])?;
        self.execute(
            "INSERT INTO krd_certificates
                 (issuer_id, serial, device_id, public_key, state, not_after, intended_at)
             VALUES (?1, ?2, ?3, ?4, 'intended', ?5, ?6)",
            &[
                (&intent.issuer_id).into(),
                (&intent.serial).into(),
                (&intent.device_id).into(),
                (&intent.public_key).into(),
                intent.not_after.into(),
                intent.intended_at.into(),
            ],
        )?;
        Ok(())
    }

    /// Stores the signed RSA certificate of an intent.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `certificate-not-intended` if it is not intended any more.
    pub fn record_issued_krd(
        &mut self,
        issuer_id: &str,
        serial: &str,
        der: &[u8],
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let changed = self.execute(
            "UPDATE krd_certificates SET state = 'issued', der = ?3, issued_at = ?4
             WHERE issuer_id = ?1 AND serial = ?2 AND state = 'intended'",
            &[issuer_id.into(), serial.into(), der.into(), now.into()],
        )?;
        let gone = StoreError::Refused { check: "certificate-not-intended" };
        if changed == 1 { Ok(()) } else { Err(gone) }
    }

    /// Revokes a terminal's live RSA certificate, if it has one; returns whether it had.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `text-too-long`.
    pub fn revoke_krd(
        &mut self,
        device_id: &str,
        reason: &str,
        now: UnixTime,
    ) -> Result<bool, StoreError> {
        check_texts([reason])?;
        let changed = self.execute(
            "UPDATE krd_certificates SET state = 'revoked', revoked_at = ?3, revoke_reason = ?2
             WHERE device_id = ?1 AND state IN ('intended', 'issued')",
            &[device_id.into(), reason.into(), now.into()],
        )?;
        Ok(changed == 1)
    }
}
