use countersign_channel::{DirectoryEntry, LookupRefusal, ReaderId};
use countersign_crypto::UnixTime;
use countersign_pki::{
    CertificateNumber, PkiError, Prepared, Requested, Role, Validity, parse_request,
};
use countersign_store::{
    AuditEntry, Certificate, CertificateIntent, CertificateState, Device, DeviceKind, DeviceRecord,
    DeviceStatus, IdKind, Page, StoreError, Tx,
};

use crate::{Actor, Scope, Service, ServiceError, done};

/// Longest reason for blocking a reader or revoking its certificate, in bytes.
const REASON_MAX: usize = 200;

/// The audit's subject while an enrolment request could not be read.
const UNREAD_REQUEST: &str = "request";

/// What a reader gets at enrolment.
pub struct Enrolled {
    /// The reader.
    pub device: Device,
    /// Its certificate, DER.
    pub certificate: Vec<u8>,
    /// That certificate's number.
    pub number: String,
    /// Until when it holds.
    pub not_after: UnixTime,
    /// Its encryption certificate, DER, if it asked for one.
    pub encryption_certificate: Option<Vec<u8>>,
    /// Whether it was issued now; false if this key had it before.
    pub created: bool,
}

/// A device that comes to the gateway, as the directory knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownDevice {
    /// `rdr_…`, `trm_…`, `slv_…`, `mgr_…`.
    pub id: String,
    /// What it is: it says which protocol follows the handshake.
    pub kind: DeviceKind,
    /// What the channel checks the handshake against.
    pub entry: DirectoryEntry,
}

/// What differs between kinds of devices.
struct DeviceSort {
    kind: DeviceKind,
    role: Role,
    id: IdKind,
    /// For people, and the first part of the audit's actions.
    name: &'static str,
    action: &'static str,
    /// Who may enrol one with an operator's token.
    enrols: Scope,
    /// What one that is blocked is told when it enrols.
    blocked: &'static str,
}

const READER: DeviceSort = DeviceSort {
    kind: DeviceKind::Reader,
    role: Role::Reader,
    id: IdKind::Reader,
    name: "reader",
    action: "reader",
    enrols: Scope::ReadersEnrol,
    blocked: "reader-blocked",
};

const SAM_HOST: DeviceSort = DeviceSort {
    kind: DeviceKind::SamHost,
    role: Role::SamHost,
    id: IdKind::SamHost,
    name: "SAM host",
    action: "sam-host",
    enrols: Scope::SamsManage,
    blocked: "device-blocked",
};

const TERMINAL: DeviceSort = DeviceSort {
    kind: DeviceKind::Terminal,
    role: Role::Terminal,
    id: IdKind::Terminal,
    name: "terminal",
    action: "terminal",
    enrols: Scope::TerminalsManage,
    blocked: "device-blocked",
};

const SECURITY_DEVICE: DeviceSort = DeviceSort {
    kind: DeviceKind::SecurityDevice,
    role: Role::SecurityDevice,
    id: IdKind::SecurityDevice,
    name: "security device",
    action: "security-device",
    enrols: Scope::SecurityDevicesManage,
    blocked: "device-blocked",
};

const SLEEVE: DeviceSort = DeviceSort {
    kind: DeviceKind::Sleeve,
    role: Role::Sleeve,
    id: IdKind::Sleeve,
    name: "sleeve",
    action: "sleeve",
    enrols: Scope::WalletsManage,
    blocked: "device-blocked",
};

const MANAGER: DeviceSort = DeviceSort {
    kind: DeviceKind::Manager,
    role: Role::Manager,
    id: IdKind::Manager,
    name: "manager",
    action: "manager",
    enrols: Scope::WalletsManage,
    blocked: "device-blocked",
};

impl DeviceSort {
    fn of(kind: DeviceKind) -> Result<&'static Self, ServiceError> {
        match kind {
            DeviceKind::Reader => Ok(&READER),
            DeviceKind::SamHost => Ok(&SAM_HOST),
            DeviceKind::Terminal => Ok(&TERMINAL),
            DeviceKind::SecurityDevice => Ok(&SECURITY_DEVICE),
            DeviceKind::Sleeve => Ok(&SLEEVE),
            DeviceKind::Manager => Ok(&MANAGER),
            other => Err(ServiceError::Internal { detail: format!("no use cases for a {other}") }),
        }
    }

    fn action(&self, verb: &str) -> String {
        format!("{}.{verb}", self.action)
    }

    fn missing(&self) -> ServiceError {
        ServiceError::NotFound { what: self.name }
    }
}

/// What the first transaction of an enrolment decided.
enum Decision {
    /// The same key was enrolled before: the same certificate again.
    Already(Box<Enrolled>),
    /// The intent is stored; sign now.
    Sign(Box<Device>),
}

impl Service {
    /// Enrols a device from its PKCS#10 request: `prepare` → stored intent → sign → stored
    /// outcome.
    /// With `encryption`, a request for the same device's second key, where the suite has such.
    /// Terminals enrol by themselves: [`Self::enrol_terminal`].
    ///
    /// Repeating it with the same key returns the same certificate. A crash between the two
    /// transactions leaves an intent whose certificate nobody has seen; the next try revokes it.
    /// Of an encryption certificate intent and outcome stand in the audit only, and repeating gives
    /// a new one: it opens nothing without the live signing certificate.
    ///
    /// # Errors
    /// The requests' checks; `request-role`; `request-pair`; `reader-blocked`, and `device-blocked`
    /// for other kinds; `serial-taken` for another key; `enrolment-code` for a terminal.
    pub async fn enrol_device(
        &self,
        kind: DeviceKind,
        actor: &Actor,
        request: &[u8],
        encryption: Option<&[u8]>,
    ) -> Result<Enrolled, ServiceError> {
        let sort = DeviceSort::of(kind)?;
        let mut subject = UNREAD_REQUEST.to_owned();
        let enrolled = self.enrol(sort, actor, request, encryption, &mut subject).await;
        if let Err(error) = &enrolled {
            self.refused_operator(actor, &sort.action("enrol"), &subject, error).await;
        }
        enrolled
    }

    /// `subject` becomes the id in the request as soon as it is known.
    async fn enrol(
        &self,
        sort: &'static DeviceSort,
        actor: &Actor,
        request: &[u8],
        encryption: Option<&[u8]>,
        subject: &mut String,
    ) -> Result<Enrolled, ServiceError> {
        actor.require(sort.enrols)?;
        if sort.kind == DeviceKind::Terminal {
            let detail = "a terminal enrols with its one-time code";
            return Err(ServiceError::refused("enrolment-code", detail));
        }
        let requested = self.parse(request)?;
        requested.identity().id().clone_into(subject);
        if requested.identity().role() != sort.role {
            let detail = format!("the request is not for a {}", sort.name);
            return Err(ServiceError::refused("request-role", detail));
        }
        let now = self.now();
        let validity = Validity::from(now, self.policy.certificate_validity);
        let number = CertificateNumber::random(&mut *self.rng());
        let issuer = self.authority.issuer()?;
        let prepared = issuer.prepare(&requested, sort.role, number, validity)?;
        let second = encryption.map(|second| {
            let second = self.parse_second(second, &requested)?;
            let number = CertificateNumber::random(&mut *self.rng());
            Ok::<_, ServiceError>(issuer.prepare_encryption(&second, sort.role, number, validity)?)
        });
        let second = second.transpose()?;
        let decision = self.intend(sort, actor, &requested, &prepared, second.as_ref()).await?;
        let mut enrolled = match decision {
            Decision::Already(enrolled) => *enrolled,
            Decision::Sign(device) => self.sign(sort, actor, *device, prepared).await?,
        };
        if let Some(second) = second {
            let certificate = self.sign_second(actor, &enrolled.device, second, now).await?;
            enrolled.encryption_certificate = Some(certificate);
        }
        Ok(enrolled)
    }

    /// A request in this server's suite.
    pub(crate) fn parse(&self, request: &[u8]) -> Result<Requested, ServiceError> {
        let provider = &self.authority.provider;
        parse_request(provider, request).map_err(|error| match error {
            PkiError::WrongAlgorithm => {
                let (suite, short) = (provider.suite, provider.suite.name().unwrap_or_default());
                let detail = format!("this server certifies keys of the suite {short} ({suite})");
                ServiceError::refused(error.check(), detail)
            }
            other => other.into(),
        })
    }

    /// The request for an encryption key that goes with `first`.
    fn parse_second(&self, second: &[u8], first: &Requested) -> Result<Requested, ServiceError> {
        let refused = |detail| Err(ServiceError::refused("request-pair", detail));
        if self.authority.provider.encryption.is_none() {
            return refused("devices of this server's suite have no encryption certificates");
        }
        let second = self.parse(second)?;
        if second.identity() != first.identity() {
            return refused("the two requests are for different devices");
        }
        if second.point() == first.point() {
            return refused("the encryption key must not be the signing key");
        }
        Ok(second)
    }

    async fn intend(
        &self,
        sort: &'static DeviceSort,
        actor: &Actor,
        requested: &Requested,
        prepared: &Prepared,
        second: Option<&Prepared>,
    ) -> Result<Decision, ServiceError> {
        let now = self.now();
        let serial = requested.identity().id().to_owned();
        let fresh = Device {
            id: self.new_id(sort.id),
            kind: sort.kind,
            serial,
            status: DeviceStatus::Enrolled,
            block_reason: None,
            created_at: now,
            updated_at: now,
        };
        let intent = CertificateIntent {
            number: prepared.number().to_string(),
            device_id: fresh.id.clone(),
            public_key: self.authority.provider.hash.hash(&[requested.point()]),
            not_after: prepared.validity().not_after,
            at: now,
        };
        let entry = done(now, actor, "certificate.intend", &intent.number);
        let second = second
            .map(|second| done(now, actor, "certificate.intend", &second.number().to_string()));
        self.store
            .run_tx("enrol_intend", move |tx| {
                let found = match tx.device_by_serial(fresh.kind, &fresh.serial)? {
                    None => {
                        tx.insert_device(&fresh)?;
                        Err(fresh.clone())
                    }
                    Some(record) => reenrol(tx, sort, record, &intent)?,
                };
                if let Some(second) = &second {
                    let device = found.as_ref().map_or_else(|device| device, |known| &known.device);
                    let detail = encryption_detail(&device.id);
                    tx.append_audit(&AuditEntry { detail, ..second.clone() })?;
                }
                let device = match found {
                    Ok(enrolled) => return Ok(Decision::Already(Box::new(enrolled))),
                    Err(device) => device,
                };
                let intent = CertificateIntent { device_id: device.id.clone(), ..intent.clone() };
                tx.intend_certificate(&intent)?;
                tx.append_audit(&entry)?;
                Ok(Decision::Sign(Box::new(device)))
            })
            .await
    }

    async fn sign(
        &self,
        sort: &'static DeviceSort,
        actor: &Actor,
        device: Device,
        prepared: Prepared,
    ) -> Result<Enrolled, ServiceError> {
        let now = self.now();
        let number = prepared.number().to_string();
        let not_after = prepared.validity().not_after;
        let certificate = prepared.sign(&*self.authority.device_issuer_key, &mut *self.rng())?;
        let encryption_certificate = None;
        let enrolled = Enrolled {
            device,
            certificate,
            number,
            not_after,
            encryption_certificate,
            created: true,
        };
        let (number, der) = (enrolled.number.clone(), enrolled.certificate.clone());
        let entry = done(now, actor, &sort.action("enrol"), &enrolled.device.id);
        self.store
            .run_tx("enrol_record", move |tx| {
                tx.record_issued_certificate(&number, &der, now)?;
                tx.append_audit(&entry)?;
                Ok::<_, ServiceError>(())
            })
            .await?;
        Ok(enrolled)
    }

    /// Signs an encryption certificate, whose intent the audit has, and has the outcome there too.
    async fn sign_second(
        &self,
        actor: &Actor,
        device: &Device,
        prepared: Prepared,
        now: UnixTime,
    ) -> Result<Vec<u8>, ServiceError> {
        let number = prepared.number().to_string();
        let certificate = prepared.sign(&*self.authority.device_issuer_key, &mut *self.rng())?;
        let detail = encryption_detail(&device.id);
        let entry = AuditEntry { detail, ..done(now, actor, "certificate.issue", &number) };
        self.store
            .run_tx("enrol_encryption", move |tx| {
                tx.append_audit(&entry)?;
                Ok::<_, ServiceError>(())
            })
            .await?;
        Ok(certificate)
    }

    /// Devices of a kind, oldest first.
    ///
    /// # Errors
    /// `page-limit`, `page-cursor`.
    pub async fn devices(
        &self,
        kind: DeviceKind,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<DeviceRecord>, ServiceError> {
        self.store
            .read("devices_page", move |tx| Ok(tx.devices_page(kind, cursor.as_deref(), limit)?))
            .await
    }

    /// One device by its serial number.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub async fn device_by_serial(
        &self,
        kind: DeviceKind,
        serial: &str,
    ) -> Result<DeviceRecord, ServiceError> {
        let (sort, serial) = (DeviceSort::of(kind)?, serial.to_owned());
        self.store
            .read("device_by_serial", move |tx| tx.device_by_serial(kind, &serial))
            .await?
            .ok_or_else(|| sort.missing())
    }

    /// One device by its id.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], also for the id of another kind.
    pub async fn device(&self, kind: DeviceKind, id: &str) -> Result<DeviceRecord, ServiceError> {
        let (sort, id) = (DeviceSort::of(kind)?, id.to_owned());
        self.store
            .read("device_by_id", move |tx| tx.device_by_id(&id))
            .await?
            .filter(|record| record.device.kind == kind)
            .ok_or_else(|| sort.missing())
    }

    /// Blocks a device: its next handshake is refused, and what its running session wants next. No
    /// server uses a blocked SAM host, from the next second on.
    ///
    /// # Errors
    /// `reason-length`; [`ServiceError::NotFound`].
    pub async fn block_device(
        &self,
        kind: DeviceKind,
        actor: &Actor,
        id: &str,
        reason: &str,
    ) -> Result<DeviceRecord, ServiceError> {
        let reason = check_reason(reason)?;
        let block = move |tx: &mut Tx<'_>, id: &str, now| tx.block_device(id, &reason, now);
        self.change_device(kind, actor, id, "block", block).await
    }

    /// Lets a blocked device in again.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub async fn unblock_device(
        &self,
        kind: DeviceKind,
        actor: &Actor,
        id: &str,
    ) -> Result<DeviceRecord, ServiceError> {
        let unblock = |tx: &mut Tx<'_>, id: &str, now| tx.unblock_device(id, now);
        self.change_device(kind, actor, id, "unblock", unblock).await
    }

    /// Revokes a device's live certificate, of a terminal the RSA certificate too, which stands on
    /// the next CRL: it must enrol again. Open sessions of that certificate may begin nothing more.
    ///
    /// # Errors
    /// `reason-length`; [`ServiceError::NotFound`] if there is no such device or it has no live
    /// certificate.
    pub async fn revoke_device(
        &self,
        kind: DeviceKind,
        actor: &Actor,
        id: &str,
        reason: &str,
    ) -> Result<DeviceRecord, ServiceError> {
        let revoke = revoke_live(check_reason(reason)?);
        let record = self.change_device(kind, actor, id, "revoke", revoke).await?;
        if kind == DeviceKind::Terminal
            && let Err(error) = self.refresh_krd_crls().await
        {
            tracing::warn!(%error, "the CRL will list a revoked terminal a little later");
        }
        Ok(record)
    }

    async fn change_device(
        &self,
        kind: DeviceKind,
        actor: &Actor,
        id: &str,
        verb: &str,
        change: impl Fn(&mut Tx<'_>, &str, UnixTime) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<DeviceRecord, ServiceError> {
        let sort = DeviceSort::of(kind)?;
        let now = self.now();
        let entry = done(now, actor, &sort.action(verb), id);
        let id = id.to_owned();
        self.store
            .run_tx("change_device", move |tx| {
                let found = tx.device_by_id(&id)?;
                found.filter(|record| record.device.kind == kind).ok_or_else(|| sort.missing())?;
                change(tx, &id, now)?;
                tx.append_audit(&entry)?;
                tx.device_by_id(&id)?.ok_or_else(|| sort.missing())
            })
            .await
    }

    /// The directory that the channel asks in mid-handshake: maps one kind of id to the other (C4).
    /// Asked anew for each handshake, so that blocking and revoking hold at once, on every server.
    ///
    /// # Errors
    /// [`LookupRefusal`].
    pub async fn look_up(&self, id: &ReaderId) -> Result<KnownDevice, LookupRefusal> {
        let asked = id.clone();
        let found = self
            .store
            .read("look_up", move |tx| match &asked {
                ReaderId::Serial(serial) => tx.device_by_serial(DeviceKind::Reader, serial),
                ReaderId::CertificateNumber(number) => {
                    tx.device_by_certificate_number(&number.to_string())
                }
            })
            .await;
        let comes_here = |record: &DeviceRecord| {
            use DeviceKind::{Manager, Reader, Sleeve, Terminal};
            matches!(record.device.kind, Reader | Terminal | Sleeve | Manager)
        };
        let record = match found {
            Ok(found) => found.filter(comes_here).ok_or(LookupRefusal::Unknown)?,
            Err(error) => {
                tracing::warn!(%error, "the directory cannot be asked");
                return Err(LookupRefusal::Unavailable);
            }
        };
        if record.blocked(self.now()).is_some() {
            return Err(LookupRefusal::Blocked);
        }
        let issued = |certificate: &Certificate| certificate.state == CertificateState::Issued;
        let live = record.certificate.filter(issued).ok_or(LookupRefusal::Revoked)?;
        let number = hex_number(&live.number).ok_or(LookupRefusal::Unavailable)?;
        if let ReaderId::CertificateNumber(asked) = id
            && *asked != number
        {
            return Err(LookupRefusal::Revoked); // replaced by a newer one
        }
        let entry = DirectoryEntry { serial: record.device.serial, certificate_number: number };
        Ok(KnownDevice { id: record.device.id, kind: record.device.kind, entry })
    }
}

/// Revokes a device's live certificates.
fn revoke_live(
    reason: String,
) -> impl Fn(&mut Tx<'_>, &str, UnixTime) -> Result<(), StoreError> + Send + 'static {
    move |tx, id, now| {
        let record = tx.device_by_id(id)?.ok_or(StoreError::NotFound { what: "device" })?;
        let rsa = tx.revoke_krd(id, &reason, now)?;
        match record.certificate {
            Some(live) => tx.revoke_certificate(&live.number, &reason, now),
            None if rsa => Ok(()),
            None => Err(StoreError::NotFound { what: "certificate" }),
        }
    }
}

/// What the audit says of an encryption certificate beside its number.
fn encryption_detail(device_id: &str) -> String {
    serde_json::json!({ "usage": "encryption", "device": device_id }).to_string()
}

pub(crate) fn check_reason(reason: &str) -> Result<String, ServiceError> {
    if reason.is_empty() || reason.len() > REASON_MAX || reason.contains(char::is_control) {
        let detail = format!("a reason has 1 to {REASON_MAX} bytes and no control characters");
        return Err(ServiceError::refused("reason-length", detail));
    }
    Ok(reason.to_owned())
}

fn hex_number(text: &str) -> Option<CertificateNumber> {
    let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?;
    CertificateNumber::from_bytes(&bytes).ok()
}

/// A serial number that is known: the same key gets its certificate again (`Ok`); a device without
/// a live certificate, or with one that was never signed, gets a new one (`Err`).
fn reenrol(
    tx: &mut Tx<'_>,
    sort: &DeviceSort,
    record: DeviceRecord,
    intent: &CertificateIntent,
) -> Result<Result<Enrolled, Device>, ServiceError> {
    let blocked = record.blocked(intent.at).is_some();
    let DeviceRecord { device, certificate, .. } = record;
    if blocked {
        let detail = format!("the {} is blocked", sort.name);
        return Err(ServiceError::refused(sort.blocked, detail));
    }
    let Some(live) = certificate else { return Ok(Err(device)) };
    match live.der {
        None => {
            tx.revoke_certificate(&live.number, "never signed", intent.at)?;
            Ok(Err(device))
        }
        Some(der) if live.public_key == intent.public_key && live.not_after > intent.at => {
            let (number, not_after) = (live.number, live.not_after);
            Ok(Ok(Enrolled {
                device,
                certificate: der,
                number,
                not_after,
                encryption_certificate: None,
                created: false,
            }))
        }
        Some(_) if live.not_after <= intent.at => {
            tx.revoke_certificate(&live.number, "expired", intent.at)?;
            Ok(Err(device))
        }
        Some(_) => {
            let detail = format!(
                "a {} with this serial number is enrolled with another key; revoke its \
                 certificate first",
                sort.name
            );
            Err(ServiceError::refused("serial-taken", detail))
        }
    }
}
