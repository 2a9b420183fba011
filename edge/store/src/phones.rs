//! Payers' phones: enrolled by a one-time code, known by a token, both stored hashed (D2, D5).

use countersign_crypto::UnixTime;

use crate::page::{check_cursor, fetch_limit};
use crate::security_devices::{BoundAccount, bound_accounts};
use crate::value::check_texts;
use crate::{Page, Row, StoreError, Tx, Value};

/// Most phones that are told of one account's payments; one more is refused.
pub const PHONES_PER_ACCOUNT_MAX: usize = 16;

/// Length of a phone's public key in bytes: an uncompressed P-256 point.
pub const SESSION_KEY_LEN: usize = 65;

/// Where a phone stands: it follows from what is stored of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PhoneState {
    /// It may enrol, and has not.
    Allowed,
    /// It has its token.
    Enrolled,
    /// It is refused, for good.
    Revoked,
}

impl PhoneState {
    /// The stable name, as shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Enrolled => "enrolled",
            Self::Revoked => "revoked",
        }
    }
}

/// A payer's phone. Its token is not read back, not even hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phone {
    /// `phn_…`.
    pub id: String,
    /// For people.
    pub label: String,
    /// Until when its one-time code may be used; `None` without an open one.
    pub code_expires_at: Option<UnixTime>,
    /// When it was allowed.
    pub created_at: UnixTime,
    /// When it got the token that it has.
    pub enrolled_at: Option<UnixTime>,
    /// When it last came, about.
    pub seen_at: Option<UnixTime>,
    /// When it was revoked, if it was.
    pub revoked_at: Option<UnixTime>,
    /// Why.
    pub revoke_reason: Option<String>,
    /// The public key whose holder alone may use its token. `None`: the token alone counts.
    pub session_key: Option<[u8; SESSION_KEY_LEN]>,
}

/// A phone and the accounts whose payments it is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhoneRecord {
    /// The phone.
    pub phone: Phone,
    /// Its accounts, in the order of their ids.
    pub accounts: Vec<BoundAccount>,
}

impl PhoneRecord {
    /// Where it stands.
    #[must_use]
    pub const fn state(&self) -> PhoneState {
        if self.phone.revoked_at.is_some() {
            PhoneState::Revoked
        } else if self.phone.enrolled_at.is_some() {
            PhoneState::Enrolled
        } else {
            PhoneState::Allowed
        }
    }

    /// Whether it is told of this account's payments.
    #[must_use]
    pub fn serves(&self, account_id: &str) -> bool {
        self.accounts.iter().any(|bound| bound.id == account_id)
    }
}

const SELECT: &str = "SELECT p.id, p.label, p.code_expires_at, p.created_at, p.enrolled_at, \
     p.seen_at, p.revoked_at, p.revoke_reason, p.session_key, \
     (SELECT string_agg(l.id || ' ' || l.number, ',') FROM phone_accounts a \
     JOIN ledger_accounts l ON l.id = a.account_id WHERE a.phone_id = p.id) \
     FROM phones p WHERE ";

fn phone(row: &Row) -> Result<PhoneRecord, StoreError> {
    Ok(PhoneRecord {
        phone: Phone {
            id: row.text(0)?.to_owned(),
            label: row.text(1)?.to_owned(),
            code_expires_at: row.opt_time(2)?,
            created_at: row.time(3)?,
            enrolled_at: row.opt_time(4)?,
            seen_at: row.opt_time(5)?,
            revoked_at: row.opt_time(6)?,
            revoke_reason: row.opt_text(7)?.map(str::to_owned),
            session_key: row
                .opt_blob(8)?
                .map(<[u8; SESSION_KEY_LEN]>::try_from)
                .transpose()
                .map_err(|_| StoreError::corrupt("a phone's key has another length"))?,
        },
        accounts: bound_accounts(row.opt_text(9)?)?,
    })
}

impl Tx<'_> {
    /// Allows a phone, with the hash of its one-time code. What comes later (enrolled, seen,
    /// revoked) is not looked at.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `text-too-long`; [`StoreError::Conflict`] `phones_code_hash_key`.
    pub fn insert_phone(&mut self, new: &Phone, code: &[u8; 32]) -> Result<(), StoreError> {
        check_texts([new.id.as_str(), &new.label])?;
        self.execute(
            "INSERT INTO phones (id, label, code_hash, code_expires_at, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            &[
                (&new.id).into(),
                (&new.label).into(),
                code.into(),
                new.code_expires_at.into(),
                new.created_at.into(),
            ],
        )?;
        Ok(())
    }

    /// The phone with this id.
    ///
    /// # Errors
    /// What the database answers.
    pub fn phone_by_id(&mut self, id: &str) -> Result<Option<PhoneRecord>, StoreError> {
        self.phone_where("p.id = ?1", &[id.into()])
    }

    /// The phone whose open one-time code has this hash, expired or not, unless it is revoked.
    ///
    /// # Errors
    /// What the database answers.
    pub fn phone_by_code(&mut self, code: &[u8; 32]) -> Result<Option<PhoneRecord>, StoreError> {
        self.phone_where("p.code_hash = ?1 AND p.revoked_at IS NULL", &[code.into()])
    }

    /// The phone whose token has this hash, unless it is revoked. A token is long and random, so
    /// looking it up by its hash tells by its timing nothing about any token.
    ///
    /// # Errors
    /// What the database answers.
    pub fn phone_of_token(&mut self, token: &[u8; 32]) -> Result<Option<PhoneRecord>, StoreError> {
        self.phone_where("p.token_hash = ?1 AND p.revoked_at IS NULL", &[token.into()])
    }

    /// Phones, oldest first, after `cursor`; `limit` in 1..=[`crate::MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`, `page-cursor`.
    pub fn phones_page(
        &mut self,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<PhoneRecord>, StoreError> {
        let sql = format!("{SELECT} p.id > ?1 ORDER BY p.id LIMIT ?2");
        let after = check_cursor(cursor)?.unwrap_or_default();
        let values = [after.into(), fetch_limit(limit)?.into()];
        let items = self.query(&sql, &values)?.iter().map(phone).collect::<Result<_, _>>()?;
        Ok(Page::cut(items, limit, |found: &PhoneRecord| found.phone.id.clone()))
    }

    /// Gives a phone another one-time code. The one before is void; the token that it may have
    /// holds until the new code is used.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also for a revoked phone.
    pub fn renew_phone_code(
        &mut self,
        id: &str,
        code: &[u8; 32],
        expires_at: UnixTime,
    ) -> Result<(), StoreError> {
        self.change_one(
            "phone",
            "UPDATE phones SET code_hash = ?2, code_expires_at = ?3
             WHERE id = ?1 AND revoked_at IS NULL",
            &[id.into(), code.into(), expires_at.into()],
        )
    }

    /// Uses a phone's one-time code up: once, for the token with this hash and, if it has one, the
    /// phone's key. A token and a key that it had before are void.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `enrolment-code-used` if it was used, replaced or the phone revoked
    /// meanwhile.
    pub fn use_phone_code(
        &mut self,
        id: &str,
        code: &[u8; 32],
        token: &[u8; 32],
        session_key: Option<&[u8; SESSION_KEY_LEN]>,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let changed = self.execute(
            "UPDATE phones SET code_hash = NULL, code_expires_at = NULL, token_hash = ?3,
                 session_key = ?4, enrolled_at = ?5, seen_at = ?5
             WHERE id = ?1 AND code_hash = ?2 AND revoked_at IS NULL",
            &[
                id.into(),
                code.into(),
                token.into(),
                session_key.map(<[u8; SESSION_KEY_LEN]>::as_slice).into(),
                now.into(),
            ],
        )?;
        let used = StoreError::Refused { check: "enrolment-code-used" };
        if changed == 1 { Ok(()) } else { Err(used) }
    }

    /// Notes when a phone came.
    ///
    /// # Errors
    /// What the database answers.
    pub fn note_phone(&mut self, id: &str, now: UnixTime) -> Result<(), StoreError> {
        let sql = "UPDATE phones SET seen_at = ?2 WHERE id = ?1";
        self.execute(sql, &[id.into(), now.into()]).map(|_| ())
    }

    /// Revokes a phone for good: its code and its token are void. Revoking again keeps time and
    /// reason.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Refused`] `text-too-long`.
    pub fn revoke_phone(
        &mut self,
        id: &str,
        reason: &str,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        check_texts([reason])?;
        self.change_one(
            "phone",
            "UPDATE phones SET revoked_at = COALESCE(revoked_at, ?3),
                 revoke_reason = COALESCE(revoke_reason, ?2), code_hash = NULL,
                 code_expires_at = NULL, token_hash = NULL, session_key = NULL
             WHERE id = ?1",
            &[id.into(), reason.into(), now.into()],
        )
    }

    /// Has a phone told of the payments of these accounts (ids or numbers) too. Binding again
    /// changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for no such phone or account; [`StoreError::Refused`]
    /// `bound-accounts` if it would have more than [`crate::BOUND_ACCOUNTS_MAX`],
    /// `account-phones` if an account would have more than [`PHONES_PER_ACCOUNT_MAX`] phones.
    pub fn bind_phone(&mut self, id: &str, accounts: &[String]) -> Result<(), StoreError> {
        let accounts = self.bind_accounts("phone_accounts", "phone_id", id, accounts)?;
        for account in accounts {
            if self.phones_of_account(&account)?.len() > PHONES_PER_ACCOUNT_MAX {
                return Err(StoreError::Refused { check: "account-phones" });
            }
        }
        Ok(())
    }

    /// Takes an account (id or number) away from a phone; returns whether it had it.
    ///
    /// # Errors
    /// What the database answers.
    pub fn unbind_phone(&mut self, id: &str, account: &str) -> Result<bool, StoreError> {
        let sql = "DELETE FROM phone_accounts WHERE phone_id = ?1 AND account_id IN
                   (SELECT id FROM ledger_accounts WHERE id = ?2 OR number = ?2)";
        Ok(self.execute(sql, &[id.into(), account.into()])? == 1)
    }

    /// The phones that are told of an account's payments: those not revoked, enrolled or not, at
    /// most one more than [`PHONES_PER_ACCOUNT_MAX`].
    ///
    /// # Errors
    /// What the database answers.
    pub fn phones_of_account(&mut self, account_id: &str) -> Result<Vec<String>, StoreError> {
        let limit = u32::try_from(PHONES_PER_ACCOUNT_MAX).unwrap_or(u32::MAX).saturating_add(1);
        let rows = self.query(
            "SELECT p.id FROM phone_accounts a JOIN phones p ON p.id = a.phone_id
             WHERE a.account_id = ?1 AND p.revoked_at IS NULL ORDER BY p.id LIMIT ?2",
            &[account_id.into(), limit.into()],
        )?;
        rows.iter().map(|row| Ok(row.text(0)?.to_owned())).collect()
    }

    fn phone_where(
        &mut self,
        condition: &str,
        values: &[Value],
    ) -> Result<Option<PhoneRecord>, StoreError> {
        self.query_one(&format!("{SELECT} {condition}"), values)?.map(|row| phone(&row)).transpose()
    }
}
