//! Payers' phones: allowed by an operator, enrolled by a one-time code, known by a token (D2, D5).
//! A phone sees payments of its accounts and answers them, nothing else.

use countersign_crypto::{Secret, UnixTime};
use countersign_store::{IdKind, Page, Phone, PhoneRecord, StoreError, Tx};
use data_encoding::BASE64URL_NOPAD;
use serde_json::json;
use zeroize::Zeroizing;

use super::check_label;
use super::proof::SessionKey;
use crate::codes::{CodeOf, EnrolmentCode};
use crate::devices::check_reason;
use crate::refusals::{Party, Refusal};
use crate::{Actor, Scope, Service, ServiceError, done};

/// What every phone's token starts with, so that scanners can find lost ones.
pub(super) const TOKEN_PREFIX: &str = "csp_";
/// Random bytes in a token.
const TOKEN_BYTES: usize = 32;
/// Length of every token in characters: the prefix, and the random bytes in base64.
pub(super) const TOKEN_LEN: usize = TOKEN_PREFIX.len() + (TOKEN_BYTES * 8).div_ceil(6);
/// What a token's hash begins with, so that it is the hash of nothing else.
const TOKEN_HASH: &[u8] = b"countersign phone token v1";
/// The audit's action.
const ENROL: &str = "phone.enrol";

/// A phone that may enrol now.
#[derive(Debug)]
pub struct AllowedPhone {
    /// The phone.
    pub record: PhoneRecord,
    /// Shown once; only its hash is kept.
    pub code: EnrolmentCode,
    /// Until when it may be used.
    pub expires_at: UnixTime,
}

/// A phone that has got its token.
#[derive(Debug)]
pub struct EnrolledPhone {
    /// The phone.
    pub record: PhoneRecord,
    /// `csp_…`, told this once; only its hash is kept.
    pub token: Zeroizing<String>,
}

/// A phone that has shown its token.
#[derive(Debug, Clone)]
pub struct PhoneActor {
    /// The phone.
    pub record: PhoneRecord,
}

impl PhoneActor {
    /// `phn_…`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.record.phone.id
    }

    /// Whether it is told of this account's payments.
    #[must_use]
    pub fn serves(&self, account_id: &str) -> bool {
        self.record.serves(account_id)
    }

    /// The actor in audit rows.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor::Device(self.id().to_owned())
    }
}

fn no_phone() -> ServiceError {
    ServiceError::NotFound { what: "phone" }
}

impl Service {
    /// Allows a phone to enrol, for these accounts (ids or numbers), and gives it a one-time code.
    ///
    /// # Errors
    /// `label-format`, `bound-accounts`, `account-phones`, [`ServiceError::NotFound`] for an
    /// account.
    pub async fn allow_phone(
        &self,
        actor: &Actor,
        label: &str,
        accounts: &[String],
    ) -> Result<AllowedPhone, ServiceError> {
        let allowed = self.allow_one_phone(actor, label, accounts).await;
        if let Err(error) = &allowed {
            self.refused_operator(actor, "phone.allow", "phone", error).await;
        }
        allowed
    }

    async fn allow_one_phone(
        &self,
        actor: &Actor,
        label: &str,
        accounts: &[String],
    ) -> Result<AllowedPhone, ServiceError> {
        actor.require(Scope::SecurityDevicesManage)?;
        check_label(label)?;
        let now = self.now();
        let (code, hash) = self.fresh_code(CodeOf::Phone);
        let expires_at = now.plus(self.policy.rki.code_validity);
        let phone = Phone {
            id: self.new_id(IdKind::Phone),
            label: label.to_owned(),
            code_expires_at: Some(expires_at),
            created_at: now,
            enrolled_at: None,
            seen_at: None,
            revoked_at: None,
            revoke_reason: None,
            session_key: None,
        };
        let mut entry = done(now, actor, "phone.allow", &phone.id);
        entry.detail = json!({ "accounts": accounts }).to_string();
        let accounts = accounts.to_vec();
        let record = self
            .store
            .run_tx("allow_phone", move |tx| {
                tx.insert_phone(&phone, &hash)?;
                tx.bind_phone(&phone.id, &accounts)?;
                tx.append_audit(&entry)?;
                tx.phone_by_id(&phone.id)?.ok_or_else(no_phone)
            })
            .await?;
        Ok(AllowedPhone { record, code, expires_at })
    }

    /// Gives a phone another one-time code: for a payer with a new handset, or whose answer at
    /// enrolment was lost. The code before is void; the token goes when the new code is used.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], also for a revoked phone.
    pub async fn renew_phone_code(
        &self,
        actor: &Actor,
        id: &str,
    ) -> Result<AllowedPhone, ServiceError> {
        let (code, hash) = self.fresh_code(CodeOf::Phone);
        let expires_at = self.now().plus(self.policy.rki.code_validity);
        let renew = move |tx: &mut Tx<'_>, known: &PhoneRecord, _| {
            Ok(tx.renew_phone_code(&known.phone.id, &hash, expires_at)?)
        };
        let record = self.change_phone(actor, id, "code", "{}".to_owned(), renew).await?;
        Ok(AllowedPhone { record, code, expires_at })
    }

    /// Enrols a phone for its one-time code: it gets its token. With a session key the token
    /// counts only beside a proof of that key ([`Self::authorise_phone_with`]); token and key that
    /// the phone had before are void. `peer` is an address, for the bound on wrong codes and for
    /// the audit.
    ///
    /// # Errors
    /// `enrolment-code` for a wrong, expired or used one, with an incident id, under which the
    /// audit says which.
    pub async fn enrol_phone(
        &self,
        peer: &str,
        code: &Secret,
        session_key: Option<SessionKey>,
    ) -> Result<EnrolledPhone, ServiceError> {
        let now = self.now();
        if self.wrong_codes.too_many(peer, now) {
            let reason = "too many wrong codes or requests from this source within an hour";
            return Err(self.refuse_phone_code(peer, "phone", reason).await);
        }
        let Some(hash) = self.typed_code_hash(CodeOf::Phone, code) else {
            self.wrong_codes.count(peer, now);
            return Err(self.refuse_phone_code(peer, "phone", "no code looks like this").await);
        };
        let (token, token_hash) = self.fresh_phone_token();
        let mut entry = done(now, &Actor::System, ENROL, "phone");
        entry.detail = json!({ "peer": peer, "sessionKey": session_key.is_some() }).to_string();
        let enrolled: Result<PhoneRecord, Refused> = self
            .store
            .run_tx("enrol_phone", move |tx| {
                let found = tx.phone_by_code(&hash)?;
                let found = found.ok_or(Refused::Code(None, "the code is wrong, or was used"))?;
                let id = found.phone.id;
                if found.phone.code_expires_at.is_none_or(|end| now >= end) {
                    return Err(Refused::Code(Some(id), "the code has expired"));
                }
                let key = session_key.as_ref().map(SessionKey::point);
                tx.use_phone_code(&id, &hash, &token_hash, key, now)?;
                let mut entry = entry.clone();
                (entry.actor, entry.subject) = (id.clone(), id.clone());
                tx.append_audit(&entry)?;
                Ok(tx.phone_by_id(&id)?.ok_or(StoreError::NotFound { what: "phone" })?)
            })
            .await;
        match enrolled {
            Ok(record) => {
                // A handset that had the token before is to go.
                self.wake_phone(&record.phone.id);
                Ok(EnrolledPhone { record, token })
            }
            Err(Refused::Store(error)) => Err(error.into()),
            Err(Refused::Code(subject, reason)) => {
                self.wrong_codes.count(peer, now);
                let subject = subject.as_deref().unwrap_or("phone");
                Err(self.refuse_phone_code(peer, subject, reason).await)
            }
        }
    }

    /// One answer for all: what is wrong with the code is in the audit.
    async fn refuse_phone_code(&self, peer: &str, subject: &str, reason: &str) -> ServiceError {
        let check = "enrolment-code";
        let incident = self
            .audit_refusal(Refusal {
                party: Party::Stranger,
                actor: peer,
                action: ENROL,
                subject,
                check,
                reason: reason.to_owned(),
                reader: None,
            })
            .await;
        let incident =
            if incident.is_empty() { String::new() } else { format!(" (incident {incident})") };
        let detail = format!("the enrolment code is wrong, expired or used{incident}");
        ServiceError::refused(check, detail)
    }

    fn fresh_phone_token(&self) -> (Zeroizing<String>, [u8; 32]) {
        let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
        self.rng().fill_bytes(&mut *bytes);
        let text = Zeroizing::new(BASE64URL_NOPAD.encode(&*bytes));
        let token = Zeroizing::new(format!("{TOKEN_PREFIX}{}", *text));
        let hash = self.phone_token_hash(&token);
        (token, hash)
    }

    pub(super) fn phone_token_hash(&self, token: &str) -> [u8; 32] {
        self.authority.provider.hash.hash(&[TOKEN_HASH, token.as_bytes()])
    }

    /// Phones, oldest first.
    ///
    /// # Errors
    /// `page-limit`, `page-cursor`.
    pub async fn phones(
        &self,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<PhoneRecord>, ServiceError> {
        self.store
            .read("phones_page", move |tx| Ok(tx.phones_page(cursor.as_deref(), limit)?))
            .await
    }

    /// A phone by its id.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub async fn phone(&self, id: &str) -> Result<PhoneRecord, ServiceError> {
        let id = id.to_owned();
        let found: Option<PhoneRecord> = self
            .store
            .read("phone_by_id", move |tx| tx.phone_by_id(&id))
            .await
            .map_err(|error: StoreError| ServiceError::from(error))?;
        found.ok_or_else(no_phone)
    }

    /// Has a phone told of the payments of these accounts (ids or numbers) too: of those that are
    /// made from now on.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`]; `bound-accounts`, `account-phones`.
    pub async fn bind_phone(
        &self,
        actor: &Actor,
        id: &str,
        accounts: &[String],
    ) -> Result<PhoneRecord, ServiceError> {
        let (detail, accounts) = (json!({ "accounts": accounts }), accounts.to_vec());
        let bind = move |tx: &mut Tx<'_>, known: &PhoneRecord, _| {
            Ok(tx.bind_phone(&known.phone.id, &accounts)?)
        };
        self.change_phone(actor, id, "bind", detail.to_string(), bind).await
    }

    /// Takes an account (id or number) away from a phone: it sees nothing of it any more.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], also for an account that it does not have.
    pub async fn unbind_phone(
        &self,
        actor: &Actor,
        id: &str,
        account: &str,
    ) -> Result<PhoneRecord, ServiceError> {
        let (detail, account) = (json!({ "account": account }), account.to_owned());
        let unbind = move |tx: &mut Tx<'_>, known: &PhoneRecord, _| {
            let had = tx.unbind_phone(&known.phone.id, &account)?;
            if had { Ok(()) } else { Err(ServiceError::NotFound { what: "bound account" }) }
        };
        self.change_phone(actor, id, "unbind", detail.to_string(), unbind).await
    }

    /// Revokes a phone for good: its token is refused at once, also where it waits for pushes.
    ///
    /// # Errors
    /// `reason-length`; [`ServiceError::NotFound`].
    pub async fn revoke_phone(
        &self,
        actor: &Actor,
        id: &str,
        reason: &str,
    ) -> Result<PhoneRecord, ServiceError> {
        let reason = check_reason(reason)?;
        let detail = json!({ "reason": reason }).to_string();
        let revoke = move |tx: &mut Tx<'_>, known: &PhoneRecord, now| {
            Ok(tx.revoke_phone(&known.phone.id, &reason, now)?)
        };
        let record = self.change_phone(actor, id, "revoke", detail, revoke).await?;
        self.wake_phone(&record.phone.id);
        Ok(record)
    }

    async fn change_phone(
        &self,
        actor: &Actor,
        id: &str,
        verb: &str,
        detail: String,
        change: impl Fn(&mut Tx<'_>, &PhoneRecord, UnixTime) -> Result<(), ServiceError>
        + Send
        + 'static,
    ) -> Result<PhoneRecord, ServiceError> {
        let (now, action) = (self.now(), format!("phone.{verb}"));
        let mut entry = done(now, actor, &action, id);
        entry.detail = detail;
        let phone_id = id.to_owned();
        let changed = match actor.require(Scope::SecurityDevicesManage) {
            Err(error) => Err(error),
            Ok(()) => {
                self.store
                    .run_tx("change_phone", move |tx| {
                        let known = tx.phone_by_id(&phone_id)?.ok_or_else(no_phone)?;
                        change(tx, &known, now)?;
                        tx.append_audit(&entry)?;
                        tx.phone_by_id(&phone_id)?.ok_or_else(no_phone)
                    })
                    .await
            }
        };
        if let Err(error) = &changed {
            self.refused_operator(actor, &action, id, error).await;
        }
        changed
    }
}

/// Why a phone was not enrolled.
enum Refused {
    /// Whose code it is, if anyone's, and what is wrong with it.
    Code(Option<String>, &'static str),
    Store(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused { check: "enrolment-code-used" } => {
                Self::Code(None, "the code was used at this moment")
            }
            other => Self::Store(other),
        }
    }
}
