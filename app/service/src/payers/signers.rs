//! Security devices: enrolled by an operator, with a certificate or with a key for dynamic
//! passwords, and bound to the accounts whose payments they confirm (D4).

use countersign_crypto::{Secret, UnixTime};
use countersign_payment::ocra::{PAYMENT_KEY_LEN, PAYMENT_SUITE};
use countersign_pki::{Identity, Role};
use countersign_store::{
    Device, DeviceKind, DeviceStatus, IdKind, Page, SignMethod, SignerRecord, SignerRow,
    StoreError, Tx,
};
use serde_json::json;

use super::check_label;
use crate::devices::check_reason;
use crate::{Actor, Enrolled, Scope, Service, ServiceError, done};

/// Longest label of a security device or a phone, in characters.
pub const SIGNER_LABEL_MAX: usize = 64;
const KIND: DeviceKind = DeviceKind::SecurityDevice;
/// The audit's subject while an enrolment request was not looked at.
const UNREAD: &str = "request";

/// What an operator says of a security device that is to be enrolled.
#[derive(Debug, Clone)]
pub struct SignerToEnrol {
    /// For people, 1 to [`SIGNER_LABEL_MAX`] characters.
    pub label: String,
    /// The accounts that it may confirm payments from: ids or numbers, at most
    /// [`countersign_store::BOUND_ACCOUNTS_MAX`].
    pub accounts: Vec<String>,
}

/// A security device that signs with a key of its own.
pub struct EnrolledSigner {
    /// The device.
    pub record: SignerRecord,
    /// Its certificate and whether it is new.
    pub enrolled: Enrolled,
}

/// A security device that makes dynamic passwords.
#[derive(Debug)]
pub struct EnrolledOcra {
    /// The device.
    pub record: SignerRecord,
    /// The OCRA suite (RFC 6287) that its answers are made in.
    pub suite: &'static str,
    /// Its key, told this once.
    pub key: Secret,
}

fn no_signer() -> ServiceError {
    ServiceError::NotFound { what: "security device" }
}

fn refuse_taken(error: StoreError) -> ServiceError {
    match error {
        StoreError::Conflict { constraint } if constraint == "devices_kind_serial_key" => taken(),
        other => other.into(),
    }
}

fn taken() -> ServiceError {
    let detail = "a security device with this serial number is enrolled";
    ServiceError::refused("serial-taken", detail)
}

impl Service {
    /// Enrols a security device that signs, from its PKCS#10 request: its certificate as any
    /// device's, then its row and its accounts. Repeating it with the same key gives the same
    /// certificate, and binds what is not bound yet; a crash in between leaves a certificate under
    /// which nothing is confirmed.
    ///
    /// # Errors
    /// `label-format`, `bound-accounts`, [`ServiceError::NotFound`] for an account; `signer-method`
    /// for the serial number of a device that makes dynamic passwords; those of
    /// [`Service::enrol_device`].
    pub async fn enrol_signer(
        &self,
        actor: &Actor,
        request: &[u8],
        new: &SignerToEnrol,
    ) -> Result<EnrolledSigner, ServiceError> {
        self.enrol_certified(actor, request, new, SignMethod::Pki, None).await
    }

    /// Enrols a device with a certificate: its row of this method, with the key that it shares with
    /// the server, if it does. One that is known gets this key in place of the one that it had.
    pub(super) async fn enrol_certified(
        &self,
        actor: &Actor,
        request: &[u8],
        new: &SignerToEnrol,
        method: SignMethod,
        shared: Option<&Secret>,
    ) -> Result<EnrolledSigner, ServiceError> {
        if let Err(error) = self.may_enrol(actor, new).await {
            self.refused_operator(actor, "security-device.enrol", UNREAD, &error).await;
            return Err(error);
        }
        self.refuse_other_method(actor, request, method).await?;
        let enrolled = self.enrol_device(KIND, actor, request, None).await?;
        let now = self.now();
        let joint_key = match shared {
            Some(key) => Some(self.seal_hmac(&enrolled.device.id, key).await?),
            None => None,
        };
        let row = SignerRow {
            device_id: enrolled.device.id.clone(),
            method,
            label: new.label.clone(),
            ocra_suite: None,
            ocra_key: None,
            joint_key,
            failures: 0,
            alerted_at: None,
        };
        let detail = json!({ "method": row.method.name(), "accounts": new.accounts });
        let done = done(now, actor, "security-device.bind", &row.device_id);
        let accounts = new.accounts.clone();
        let bound = self
            .store
            .run_tx("enrol_signer", move |tx| {
                let known = tx.signer_by_id(&row.device_id)?;
                let (mut entry, mut detail) = (done.clone(), detail.clone());
                if row.joint_key.is_some() {
                    let had_one = known.as_ref().is_some_and(|one| one.signer.joint_key.is_some());
                    detail["sharedKey"] = if had_one { "replaced" } else { "first" }.into();
                }
                entry.detail = detail.to_string();
                match known {
                    None => tx.insert_signer(&row)?,
                    Some(known) if known.signer.method != row.method => return Err(other_method()),
                    Some(_) => {
                        if let Some(block) = &row.joint_key {
                            tx.set_joint_key(&row.device_id, block)?;
                        }
                    }
                }
                tx.bind_signer(&row.device_id, &accounts)?;
                tx.append_audit(&entry)?;
                tx.signer_by_id(&row.device_id)?.ok_or_else(no_signer)
            })
            .await;
        match bound {
            Ok(record) => Ok(EnrolledSigner { record, enrolled }),
            Err(error) => {
                let (action, subject) = ("security-device.bind", &enrolled.device.id);
                self.refused_operator(actor, action, subject, &error).await;
                Err(error)
            }
        }
    }

    /// Refuses the serial number of a device that signs by another method before it is given a
    /// certificate. What is no request is told by who reads it next.
    async fn refuse_other_method(
        &self,
        actor: &Actor,
        request: &[u8],
        method: SignMethod,
    ) -> Result<(), ServiceError> {
        let Ok(requested) = self.parse(request) else { return Ok(()) };
        let serial = requested.identity().id().to_owned();
        let of = serial.clone();
        let known = self
            .store
            .read("signer_by_serial", move |tx| Ok::<_, ServiceError>(tx.signer_by_serial(&of)?))
            .await?;
        if known.is_none_or(|known| known.signer.method == method) {
            return Ok(());
        }
        let error = other_method();
        self.refused_operator(actor, "security-device.enrol", &serial, &error).await;
        Err(error)
    }

    async fn may_enrol(&self, actor: &Actor, new: &SignerToEnrol) -> Result<(), ServiceError> {
        actor.require(Scope::SecurityDevicesManage)?;
        check_label(&new.label)?;
        let accounts = new.accounts.clone();
        self.store
            .read("account_ids", move |tx| Ok::<_, ServiceError>(tx.account_ids(&accounts)?))
            .await
            .map(|_| ())
    }

    /// Enrols a security device that makes dynamic passwords (OCRA): its key is drawn here and told
    /// this once. A device whose key was erased by revoking it gets another one.
    ///
    /// # Errors
    /// `serial-format`, `label-format`, `bound-accounts`, [`ServiceError::NotFound`] for an
    /// account; `serial-taken` if the device has a key, `signer-method` if it signs otherwise,
    /// `device-blocked`.
    pub async fn enrol_ocra(
        &self,
        actor: &Actor,
        serial: &str,
        new: &SignerToEnrol,
    ) -> Result<EnrolledOcra, ServiceError> {
        let enrolled = self.enrol_with_key(actor, serial, new).await;
        if let Err(error) = &enrolled {
            let subject = if serial.len() <= SIGNER_LABEL_MAX { serial } else { "serial" };
            self.refused_operator(actor, "security-device.enrol", subject, error).await;
        }
        enrolled
    }

    async fn enrol_with_key(
        &self,
        actor: &Actor,
        serial: &str,
        new: &SignerToEnrol,
    ) -> Result<EnrolledOcra, ServiceError> {
        self.may_enrol(actor, new).await?;
        Identity::new(Role::SecurityDevice, serial)?;
        let known = serial.to_owned();
        let known = self
            .store
            .read("signer_by_serial", move |tx| tx.signer_by_serial(&known))
            .await
            .map_err(|error: StoreError| ServiceError::from(error))?;
        let now = self.now();
        let id = match &known {
            Some(known) => known.device.device.id.clone(),
            None => self.new_id(IdKind::SecurityDevice),
        };
        let mut key = vec![0; PAYMENT_KEY_LEN];
        self.rng().fill_bytes(&mut key);
        let key = Secret::new(key);
        let row = SignerRow {
            device_id: id.clone(),
            method: SignMethod::Ocra,
            label: new.label.clone(),
            ocra_suite: Some(PAYMENT_SUITE.to_owned()),
            ocra_key: Some(self.seal_hmac(&id, &key).await?),
            joint_key: None,
            failures: 0,
            alerted_at: None,
        };
        let device = Device {
            id,
            kind: KIND,
            serial: serial.to_owned(),
            status: DeviceStatus::Enrolled,
            block_reason: None,
            created_at: now,
            updated_at: now,
        };
        let mut entry = done(now, actor, "security-device.enrol", &device.id);
        let detail = json!({ "method": row.method.name(), "accounts": new.accounts });
        entry.detail = detail.to_string();
        let accounts = new.accounts.clone();
        let record = self
            .store
            .run_tx("enrol_ocra", move |tx| {
                match tx.signer_by_id(&device.id)? {
                    None => {
                        tx.insert_device(&device).map_err(refuse_taken)?;
                        tx.insert_signer(&row)?;
                    }
                    Some(known) => give_new_key(tx, &known, &row, now)?,
                }
                tx.bind_signer(&device.id, &accounts)?;
                tx.append_audit(&entry)?;
                tx.signer_by_id(&device.id)?.ok_or_else(no_signer)
            })
            .await?;
        Ok(EnrolledOcra { record, suite: PAYMENT_SUITE, key })
    }

    /// Opens an OCRA device's key, to verify its answers with.
    ///
    /// # Errors
    /// `ocra-key-absent` if it is no OCRA device or its key was erased; those of the vault.
    pub(crate) async fn ocra_key(&self, signer: &SignerRecord) -> Result<Secret, ServiceError> {
        let Some(block) = &signer.signer.ocra_key else {
            let detail = "the device has no key for dynamic passwords";
            return Err(ServiceError::refused("ocra-key-absent", detail));
        };
        self.open_hmac(&signer.signer.device_id, block).await
    }

    /// Security devices, oldest first.
    ///
    /// # Errors
    /// `page-limit`, `page-cursor`.
    pub async fn signers(
        &self,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<SignerRecord>, ServiceError> {
        self.store
            .read("signers_page", move |tx| Ok(tx.signers_page(cursor.as_deref(), limit)?))
            .await
    }

    /// A security device by its id.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub async fn signer(&self, id: &str) -> Result<SignerRecord, ServiceError> {
        let id = id.to_owned();
        let found: Option<SignerRecord> = self
            .store
            .read("signer_by_id", move |tx| tx.signer_by_id(&id))
            .await
            .map_err(|error: StoreError| ServiceError::from(error))?;
        found.ok_or_else(no_signer)
    }

    /// A security device by its serial number.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub async fn signer_by_serial(&self, serial: &str) -> Result<SignerRecord, ServiceError> {
        let serial = serial.to_owned();
        let found: Option<SignerRecord> = self
            .store
            .read("signer_by_serial", move |tx| tx.signer_by_serial(&serial))
            .await
            .map_err(|error: StoreError| ServiceError::from(error))?;
        found.ok_or_else(no_signer)
    }

    /// Lets a security device confirm payments from these accounts (ids or numbers) too.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`]; `bound-accounts`.
    pub async fn bind_signer(
        &self,
        actor: &Actor,
        id: &str,
        accounts: &[String],
    ) -> Result<SignerRecord, ServiceError> {
        let (detail, accounts) = (json!({ "accounts": accounts }), accounts.to_vec());
        let bind = move |tx: &mut Tx<'_>, known: &SignerRecord, _| {
            Ok(tx.bind_signer(&known.signer.device_id, &accounts)?)
        };
        self.change_signer(actor, id, "bind", detail.to_string(), bind).await
    }

    /// Takes an account (id or number) away from a security device.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], also for an account that it does not serve.
    pub async fn unbind_signer(
        &self,
        actor: &Actor,
        id: &str,
        account: &str,
    ) -> Result<SignerRecord, ServiceError> {
        let (detail, account) = (json!({ "account": account }), account.to_owned());
        let unbind = move |tx: &mut Tx<'_>, known: &SignerRecord, _| {
            let had = tx.unbind_signer(&known.signer.device_id, &account)?;
            if had { Ok(()) } else { Err(ServiceError::NotFound { what: "bound account" }) }
        };
        self.change_signer(actor, id, "unbind", detail.to_string(), unbind).await
    }

    /// Blocks a security device: no answer of it is taken from now on.
    ///
    /// # Errors
    /// `reason-length`; [`ServiceError::NotFound`].
    pub async fn block_signer(
        &self,
        actor: &Actor,
        id: &str,
        reason: &str,
    ) -> Result<SignerRecord, ServiceError> {
        let reason = check_reason(reason)?;
        let detail = json!({ "reason": reason }).to_string();
        let block = move |tx: &mut Tx<'_>, known: &SignerRecord, now| {
            Ok(tx.block_device(&known.signer.device_id, &reason, now)?)
        };
        self.change_signer(actor, id, "block", detail, block).await
    }

    /// Lets a blocked security device answer again; its wrong answers are forgiven.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub async fn unblock_signer(
        &self,
        actor: &Actor,
        id: &str,
    ) -> Result<SignerRecord, ServiceError> {
        let unblock = |tx: &mut Tx<'_>, known: &SignerRecord, now| {
            tx.forgive_signer(&known.signer.device_id)?;
            Ok(tx.unblock_device(&known.signer.device_id, now)?)
        };
        self.change_signer(actor, id, "unblock", "{}".to_owned(), unblock).await
    }

    /// Revokes a security device's certificate, or erases its key for dynamic passwords, or both of
    /// a signing card: it must enrol again.
    ///
    /// # Errors
    /// `reason-length`; [`ServiceError::NotFound`] if there is no such device or it has neither.
    pub async fn revoke_signer(
        &self,
        actor: &Actor,
        id: &str,
        reason: &str,
    ) -> Result<SignerRecord, ServiceError> {
        let reason = check_reason(reason)?;
        let detail = json!({ "reason": reason }).to_string();
        let revoke = move |tx: &mut Tx<'_>, known: &SignerRecord, now| {
            let device_id = &known.signer.device_id;
            let shared = tx.erase_joint_key(device_id)?;
            if let Some(live) = &known.device.certificate {
                return Ok(tx.revoke_certificate(&live.number, &reason, now)?);
            }
            let erased = tx.erase_ocra_key(device_id)? || shared;
            if erased { Ok(()) } else { Err(ServiceError::NotFound { what: "certificate or key" }) }
        };
        self.change_signer(actor, id, "revoke", detail, revoke).await
    }

    async fn change_signer(
        &self,
        actor: &Actor,
        id: &str,
        verb: &str,
        detail: String,
        change: impl Fn(&mut Tx<'_>, &SignerRecord, UnixTime) -> Result<(), ServiceError>
        + Send
        + 'static,
    ) -> Result<SignerRecord, ServiceError> {
        let (now, action) = (self.now(), format!("security-device.{verb}"));
        let mut entry = done(now, actor, &action, id);
        entry.detail = detail;
        let device_id = id.to_owned();
        let changed = match actor.require(Scope::SecurityDevicesManage) {
            Err(error) => Err(error),
            Ok(()) => {
                self.store
                    .run_tx("change_signer", move |tx| {
                        let known = tx.signer_by_id(&device_id)?.ok_or_else(no_signer)?;
                        change(tx, &known, now)?;
                        tx.append_audit(&entry)?;
                        tx.signer_by_id(&device_id)?.ok_or_else(no_signer)
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

fn other_method() -> ServiceError {
    let detail = "the security device with this serial number signs by another method";
    ServiceError::refused("signer-method", detail)
}

/// An OCRA device that was revoked gets another key.
fn give_new_key(
    tx: &mut Tx<'_>,
    known: &SignerRecord,
    row: &SignerRow,
    now: UnixTime,
) -> Result<(), ServiceError> {
    if known.signer.method != SignMethod::Ocra {
        return Err(other_method());
    }
    if known.signer.ocra_key.is_some() {
        return Err(taken());
    }
    if known.device.blocked(now).is_some() {
        return Err(ServiceError::refused("device-blocked", "the security device is blocked"));
    }
    let (Some(suite), Some(block)) = (&row.ocra_suite, &row.ocra_key) else {
        return Err(ServiceError::Internal { detail: "an OCRA device without a key".to_owned() });
    };
    Ok(tx.set_ocra_key(&row.device_id, suite, block)?)
}
