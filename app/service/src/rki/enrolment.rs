//! Enrolment of a terminal by its one-time code (E1): the two certificates are intended, signed,
//! and stored together with the use of the code.

use std::sync::Arc;

use countersign_crypto::{Secret, UnixTime};
use countersign_pki::{self as pki, CertificateNumber, Role};
use countersign_store::{
    Certificate, CertificateIntent, CertificateState, KrdCertificate, TerminalRecord, Tx,
};
use data_encoding::HEXLOWER;
use tr34::{self, Issuer, Party, RequestError, Requested, Validity};

use super::hierarchy::Hierarchy;
use super::terminals::no_terminal;
use crate::codes::{CodeOf, WRONG_WINDOW};
use crate::refusals::{Party as Refused, Refusal};
use crate::{Actor, Service, ServiceError, done};

/// Wrong codes for one terminal within [`WRONG_WINDOW`] that are counted one by one; further ones
/// are refused as too many. The right code is taken all the same.
pub const WRONG_CODES_MAX: u32 = 10;
/// The audit's action.
const ENROL: &str = "terminal.enrol";
/// Most bytes of a serial number that the audit repeats.
const SUBJECT_MAX: usize = 64;

/// What a terminal sends to be enrolled.
pub struct TerminalRequest {
    /// Its serial number.
    pub serial: String,
    /// The one-time code, as it was typed.
    pub code: Secret,
    /// PKCS#10 for the channel's key, DER.
    pub channel: Vec<u8>,
    /// PKCS#10 for the RSA key, DER.
    pub krd: Vec<u8>,
}

/// What a terminal gets at enrolment.
pub struct EnrolledTerminal {
    /// The terminal.
    pub record: TerminalRecord,
    /// The channel's certificate, DER.
    pub certificate: Vec<u8>,
    /// The RSA certificate, DER.
    pub krd: Vec<u8>,
    /// The Sub_CA_KRD that issued it: in a repeat after a roll-over, the one before.
    pub ca_krd: tr34::Certificate,
    /// The injection hierarchy that goes with it.
    pub hierarchy: Arc<Hierarchy>,
    /// Whether anything was issued now; false for a repeat.
    pub created: bool,
}

/// Why a code is refused; the terminal is not told.
#[derive(Clone, Copy)]
enum CodeRefused {
    Wrong,
    Expired,
    Used,
    TooMany,
    TooManyHere,
}

impl CodeRefused {
    const fn reason(self) -> &'static str {
        match self {
            Self::Wrong => "the code is wrong",
            Self::Expired => "the code has expired",
            Self::Used => "the code was used with other keys",
            Self::TooMany => "too many wrong codes for this terminal within an hour",
            Self::TooManyHere => "too many wrong codes or requests from this source within an hour",
        }
    }
}

/// What the first transaction decided.
enum Decision {
    Code(CodeRefused),
    Go { device_id: String, channel: Side, krd: Side, used: bool },
}

/// One of the two certificates: there already, or to be signed.
enum Side {
    Have(Vec<u8>),
    Sign,
}

/// Everything that the transactions need; they may run several times.
#[derive(Clone)]
struct Plan {
    serial: String,
    code: Option<[u8; 32]>,
    /// Hash of both public keys.
    keys: [u8; 32],
    channel: CertificateIntent,
    krd: KrdCertificate,
    now: UnixTime,
}

impl From<RequestError> for ServiceError {
    fn from(error: RequestError) -> Self {
        Self::refused(error.check(), error.to_string())
    }
}

impl Service {
    /// Enrols a terminal that is on the allow-list, for its one-time code. Repeating it with the
    /// same keys and the same code returns the same certificates; other keys with a used code are
    /// refused. `peer` is an address, for the audit.
    ///
    /// # Errors
    /// The requests' checks; `request-role`; `request-serial`; `terminal-not-allowed`;
    /// `enrolment-code` for a wrong, expired or used one, with an incident id, under which the
    /// audit says which; `device-blocked`; `serial-taken` if it is enrolled with other keys; those
    /// of [`Self::hierarchy`].
    pub async fn enrol_terminal(
        &self,
        peer: &str,
        request: TerminalRequest,
    ) -> Result<EnrolledTerminal, ServiceError> {
        let subject: String = request.serial.chars().take(SUBJECT_MAX).collect();
        if self.wrong_codes.too_many(peer, self.now()) {
            return Err(self.refuse_code(peer, &subject, CodeRefused::TooManyHere).await);
        }
        let enrolled = self.enrol_by_code(peer, request).await;
        match &enrolled {
            // Told and audited where it was decided.
            Err(ServiceError::Refused { check: "enrolment-code", .. }) => {}
            Err(error) if error.is_refusal() => {
                if is_guess(error) {
                    self.wrong_codes.count(peer, self.now());
                }
                let reason = error.to_string();
                self.refused_enrolment(peer, &subject, error.check(), reason).await;
            }
            _ => {}
        }
        enrolled
    }

    async fn refused_enrolment(
        &self,
        peer: &str,
        subject: &str,
        check: &str,
        reason: String,
    ) -> String {
        let party = Refused::Stranger;
        let refusal =
            Refusal { party, actor: peer, action: ENROL, subject, check, reason, reader: None };
        self.audit_refusal(refusal).await
    }

    async fn enrol_by_code(
        &self,
        peer: &str,
        request: TerminalRequest,
    ) -> Result<EnrolledTerminal, ServiceError> {
        let TerminalRequest { serial, code, channel, krd } = request;
        let channel = self.parse(&channel)?;
        if channel.identity().role() != Role::Terminal {
            let detail = "the channel's request is not for a terminal";
            return Err(ServiceError::refused("request-role", detail));
        }
        let rsa = self.rsa()?.clone();
        let krd = self.blocking(move || Ok(tr34::parse_request(&*rsa, &krd)?)).await?;
        if krd.party().role() != tr34::Role::Krd {
            let detail = "the RSA request is not for a KRD";
            return Err(ServiceError::refused("request-role", detail));
        }
        if channel.identity().id() != serial || Party::id(krd.party()) != serial {
            let detail = "the requests are not for this serial number";
            return Err(ServiceError::refused("request-serial", detail));
        }
        let hierarchy = self.hierarchy().await?;
        let (now, mut rng) = (self.now(), self.rng());
        let validity = pki::Validity::from(now, self.policy.certificate_validity);
        let number = CertificateNumber::random(&mut *rng);
        let issuer = self.authority.issuer()?;
        let prepared = issuer.prepare(&channel, Role::Terminal, number, validity)?;
        let of_krd = self.prepare_krd(&hierarchy, &krd, now, rng).await?;
        let hash = &self.authority.provider.hash;
        let len = u64::try_from(channel.point().len()).unwrap_or_default().to_be_bytes();
        let plan = Plan {
            keys: hash.hash(&[&len, channel.point(), krd.public_key()]),
            code: self.typed_code_hash(CodeOf::Terminal, &code),
            channel: CertificateIntent {
                number: prepared.number().to_string(),
                device_id: String::new(),
                public_key: hash.hash(&[channel.point()]),
                not_after: validity.not_after,
                at: now,
            },
            krd: intent_of(&hierarchy, &of_krd, self.rsa()?.sha256(krd.public_key()), now),
            serial,
            now,
        };
        let (stored, entries) = (plan.clone(), self.intent_entries(peer, &plan));
        let decision = self
            .store
            .run_tx("enrol_terminal_intend", move |tx| intend(tx, &stored, &entries))
            .await?;
        let (device_id, channel, krd, used) = match decision {
            Decision::Code(why) => {
                self.wrong_codes.count(peer, now);
                return Err(self.refuse_code(peer, &plan.serial, why).await);
            }
            Decision::Go { device_id, channel, krd, used } => (device_id, channel, krd, used),
        };
        let created = matches!(channel, Side::Sign) || matches!(krd, Side::Sign);
        let device_key = self.authority.device_issuer_key.clone();
        let mut rng = self.rng();
        let new_channel = match channel {
            Side::Have(_) => None,
            Side::Sign => Some(prepared.sign(&*device_key, &mut *rng)?),
        };
        drop(rng);
        let new_krd = match krd {
            Side::Have(_) => None,
            Side::Sign => {
                let (rsa, key) = (self.rsa()?.clone(), hierarchy.ca_krd_key.clone());
                Some(self.blocking(move || Ok(of_krd.sign(&*rsa, &*key)?)).await?)
            }
        };
        let outcome = Outcome { plan, device_id, channel: new_channel, krd: new_krd, used };
        let record = self.record_enrolment(peer, &outcome).await?;
        let ca_krd = match record.krd.as_ref().map(|krd| krd.issuer_id.as_str()) {
            Some(issuer) if issuer != hierarchy.ca_krd_id => self.ca_krd_by_id(issuer).await?,
            _ => hierarchy.ca_krd.clone(),
        };
        let have = |side: Side, new: Option<Vec<u8>>| match side {
            Side::Have(der) => der,
            Side::Sign => new.unwrap_or_default(),
        };
        Ok(EnrolledTerminal {
            record,
            certificate: have(channel, outcome.channel),
            krd: have(krd, outcome.krd),
            ca_krd,
            hierarchy,
            created,
        })
    }

    async fn prepare_krd(
        &self,
        hierarchy: &Arc<Hierarchy>,
        request: &Requested,
        now: UnixTime,
        mut rng: Box<dyn countersign_crypto::CryptoRng + Send>,
    ) -> Result<tr34::Prepared, ServiceError> {
        let (rsa, hierarchy) = (self.rsa()?.clone(), hierarchy.clone());
        let (request, term) = (request.clone(), self.policy.rki.krd_validity);
        self.blocking(move || {
            let validity = Validity::from(now, term).within(&hierarchy.ca_krd);
            let issuer = Issuer::new(hierarchy.ca_krd.clone())?;
            Ok(issuer.prepare(&*rsa, &request, tr34::Role::Krd, &mut *rng, validity)?)
        })
        .await
    }

    fn intent_entries(&self, peer: &str, plan: &Plan) -> [countersign_store::AuditEntry; 2] {
        let entry = |subject: &str| countersign_store::AuditEntry {
            actor: peer.to_owned(),
            ..done(plan.now, &Actor::System, "certificate.intend", subject)
        };
        [entry(&plan.channel.number), entry(&plan.krd.serial)]
    }

    /// One answer for all: what is wrong with the code is in the audit.
    async fn refuse_code(&self, peer: &str, serial: &str, why: CodeRefused) -> ServiceError {
        let (check, reason) = ("enrolment-code", why.reason().to_owned());
        let incident = self.refused_enrolment(peer, serial, check, reason).await;
        let incident =
            if incident.is_empty() { String::new() } else { format!(" (incident {incident})") };
        let detail = format!("the enrolment code is wrong, expired or used{incident}");
        ServiceError::refused(check, detail)
    }

    async fn record_enrolment(
        &self,
        peer: &str,
        outcome: &Outcome,
    ) -> Result<TerminalRecord, ServiceError> {
        let now = self.now();
        let entry = countersign_store::AuditEntry {
            detail: serde_json::json!({ "peer": peer }).to_string(),
            ..done(now, &Actor::Device(outcome.device_id.clone()), ENROL, &outcome.device_id)
        };
        let outcome = outcome.clone();
        self.store
            .run_tx("enrol_terminal_record", move |tx| {
                let Outcome { plan, device_id, channel, krd, used } = &outcome;
                if let Some(der) = channel {
                    tx.record_issued_certificate(&plan.channel.number, der, now)?;
                }
                if let Some(der) = krd {
                    tx.record_issued_krd(&plan.krd.issuer_id, &plan.krd.serial, der, now)?;
                    cancel_waiting(tx, device_id, &plan.krd.public_key, now)?;
                }
                if !used && let Some(code) = &plan.code {
                    tx.use_enrolment_code(device_id, code, &plan.keys, now)?;
                }
                if channel.is_some() || krd.is_some() || !used {
                    tx.append_audit(&entry)?;
                }
                tx.terminal_by_id(device_id)?.ok_or_else(no_terminal)
            })
            .await
    }
}

/// Keys that others agreed to give a terminal are not for one that enrols in its place: who can
/// revoke certificates and give out codes does so alone.
fn cancel_waiting(
    tx: &mut Tx<'_>,
    device_id: &str,
    public_key: &[u8; 32],
    now: UnixTime,
) -> Result<(), ServiceError> {
    for id in tx.cancel_for_other_key(device_id, public_key, now)? {
        let detail = serde_json::json!({ "reason": "the terminal has enrolled with another key" });
        let entry = countersign_store::AuditEntry {
            detail: detail.to_string(),
            ..done(now, &Actor::System, "injection.cancel", &id)
        };
        tx.append_audit(&entry)?;
    }
    Ok(())
}

/// Whether a refusal counts against the source as a wrong code does: who has no right code neither
/// learns without end which serial numbers are on the list, nor has signatures verified.
fn is_guess(error: &ServiceError) -> bool {
    match error.check() {
        "terminal-not-allowed" | "serial-format" => true,
        "certificate-not-intended" => false,
        other => other.starts_with("request-") || other.starts_with("certificate-"),
    }
}

/// What the second transaction stores.
#[derive(Clone)]
struct Outcome {
    plan: Plan,
    device_id: String,
    channel: Option<Vec<u8>>,
    krd: Option<Vec<u8>>,
    /// The code was used before, with these keys.
    used: bool,
}

fn intent_of(
    hierarchy: &Hierarchy,
    prepared: &tr34::Prepared,
    public_key: [u8; 32],
    now: UnixTime,
) -> KrdCertificate {
    KrdCertificate {
        issuer_id: hierarchy.ca_krd_id.clone(),
        serial: HEXLOWER.encode(prepared.identity().serial()),
        device_id: String::new(),
        public_key,
        state: CertificateState::Intended,
        der: None,
        not_after: prepared.validity().not_after,
        intended_at: now,
        issued_at: None,
        revoked_at: None,
        revoke_reason: None,
    }
}

/// The first transaction: the code is looked at, and what is to be signed is intended.
fn intend(
    tx: &mut Tx<'_>,
    plan: &Plan,
    entries: &[countersign_store::AuditEntry; 2],
) -> Result<Decision, ServiceError> {
    let Some(record) = tx.terminal_by_serial(&plan.serial)? else {
        let detail = "no terminal with this serial number is allowed to enrol";
        return Err(ServiceError::refused("terminal-not-allowed", detail));
    };
    let device_id = record.device.device.id.clone();
    let used = match check_code(tx, plan, &record)? {
        Err(why) => return Ok(Decision::Code(why)),
        Ok(used) => used,
    };
    if record.device.blocked(plan.now).is_some() {
        return Err(ServiceError::refused("device-blocked", "the terminal is blocked"));
    }
    let channel = channel_side(tx, plan, record.device.certificate, used)?;
    let krd = krd_side(tx, plan, record.krd, used)?;
    let (Some(channel), Some(krd)) = (channel, krd) else {
        // Used, and what it brought was revoked since: it takes another code.
        return Ok(Decision::Code(CodeRefused::Used));
    };
    if matches!(channel, Side::Sign) {
        let device_id = device_id.clone();
        tx.intend_certificate(&CertificateIntent { device_id, ..plan.channel.clone() })?;
        tx.append_audit(&entries[0])?;
    }
    if matches!(krd, Side::Sign) {
        let device_id = device_id.clone();
        tx.intend_krd(&KrdCertificate { device_id, ..plan.krd.clone() })?;
        tx.append_audit(&entries[1])?;
    }
    Ok(Decision::Go { device_id, channel, krd, used })
}

/// Whether the code is the terminal's, and live; `Ok(true)` if it was used with these very keys.
/// A wrong one is counted.
fn check_code(
    tx: &mut Tx<'_>,
    plan: &Plan,
    record: &TerminalRecord,
) -> Result<Result<bool, CodeRefused>, ServiceError> {
    let terminal = &record.terminal;
    let right = match (&plan.code, &terminal.code_hash) {
        (Some(typed), Some(kept)) => Secret::copied_from(kept).ct_eq(typed),
        _ => false,
    };
    if !right {
        // The right code counts all the same: nobody can keep a terminal out with wrong ones.
        let in_window = plan.now.since(terminal.wrong_since) < WRONG_WINDOW;
        if in_window && terminal.wrong_codes >= WRONG_CODES_MAX {
            return Ok(Err(CodeRefused::TooMany));
        }
        let first = !in_window || terminal.wrong_codes == 0;
        tx.count_wrong_code(&terminal.device_id, first, plan.now)?;
        return Ok(Err(CodeRefused::Wrong));
    }
    if let Some(keys) = &terminal.code_used_by {
        return Ok(if *keys == plan.keys { Ok(true) } else { Err(CodeRefused::Used) });
    }
    let expired = terminal.code_expires_at.is_none_or(|end| plan.now >= end);
    Ok(if expired { Err(CodeRefused::Expired) } else { Ok(false) })
}

/// `None` if the code was used and its certificate is not live any more.
fn channel_side(
    tx: &mut Tx<'_>,
    plan: &Plan,
    live: Option<Certificate>,
    used: bool,
) -> Result<Option<Side>, ServiceError> {
    let Some(live) = live else { return Ok((!used).then_some(Side::Sign)) };
    let same = live.public_key == plan.channel.public_key && live.not_after > plan.now;
    let reason = match &live.der {
        Some(der) if same => return Ok(Some(Side::Have(der.clone()))),
        None => "never signed",
        Some(_) if live.not_after <= plan.now => "expired",
        Some(_) => return Err(taken()),
    };
    if used {
        return Ok(None);
    }
    tx.revoke_certificate(&live.number, reason, plan.now)?;
    Ok(Some(Side::Sign))
}

fn krd_side(
    tx: &mut Tx<'_>,
    plan: &Plan,
    live: Option<KrdCertificate>,
    used: bool,
) -> Result<Option<Side>, ServiceError> {
    let Some(live) = live else { return Ok((!used).then_some(Side::Sign)) };
    let same = live.public_key == plan.krd.public_key && live.not_after > plan.now;
    // With another code it comes under the Sub_CA_KRD in use.
    let current = used || live.issuer_id == plan.krd.issuer_id;
    let reason = match &live.der {
        Some(der) if same && current => return Ok(Some(Side::Have(der.clone()))),
        Some(_) if same => "superseded",
        None => "never signed",
        Some(_) if live.not_after <= plan.now => "expired",
        Some(_) => return Err(taken()),
    };
    if used {
        return Ok(None);
    }
    tx.revoke_krd(&live.device_id, reason, plan.now)?;
    Ok(Some(Side::Sign))
}

fn taken() -> ServiceError {
    let detail = "the terminal is enrolled with other keys; revoke its certificates first";
    ServiceError::refused("serial-taken", detail)
}
