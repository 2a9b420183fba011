//! Security devices: whether one may confirm a payment, and what wrong answers do to it.

use countersign_crypto::UnixTime;
use countersign_payment::PaymentError;
use countersign_store::{
    AuditEntry, CertificateState, DeviceStatus, Event, IdKind, Payment, SignMethod, SignerChange,
    SignerRecord,
};
use serde_json::json;

use super::super::answer::PaymentAnswer;
use super::case::{Case, Proof};
use super::{Desk, Rows};
use crate::{Actor, done};

/// Wrong answers in a row of one security device after which its owner is alerted.
const DEVICE_ALERT_AT: u32 = 3;
/// Wrong answers in a row of one security device with which it is blocked.
const DEVICE_BLOCK_AT: u32 = 5;
/// Why such a device is blocked.
const BLOCK_REASON: &str = "too many wrong answers in a row";

/// Why a security device's answer does not count.
pub(super) enum Fault {
    /// The check that failed, and whether it counts as a wrong answer of the device.
    Check(&'static str, bool),
    Stale,
}

/// The device, if it may confirm this payment.
pub(super) fn check_signer<'a>(
    signer: Option<&'a SignerRecord>,
    payment: &Payment,
    now: UnixTime,
) -> Result<&'a SignerRecord, Fault> {
    let other = |check| Err(Fault::Check(check, false));
    let Some(signer) = signer else { return other("device-unknown") };
    if !signer.serves(&payment.payer_account) {
        return other("device-not-bound");
    }
    if signer.device.blocked(now).is_some() {
        return other("device-blocked");
    }
    Ok(signer)
}

/// Whether the device's live certificate is the one with this number, and holds.
pub(super) fn check_certificate(
    signer: &SignerRecord,
    verified_under: Option<&str>,
    now: UnixTime,
) -> Result<(), Fault> {
    let live = signer.device.certificate.as_ref();
    let live = live.filter(|it| it.state == CertificateState::Issued && it.der.is_some());
    match (live, verified_under) {
        (None, _) => Err(Fault::Check("certificate-revoked", false)),
        (Some(live), Some(number)) if live.number == number => {
            if live.not_after <= now {
                return Err(Fault::Check("certificate-expired", false));
            }
            Ok(())
        }
        (Some(_), _) => Err(Fault::Stale),
    }
}

/// Whether the device may confirm this payment, and did.
pub(super) fn check_device(
    signer: Option<&SignerRecord>,
    payment: &Payment,
    answer: &PaymentAnswer,
    proof: &Proof,
    now: UnixTime,
) -> Result<(), Fault> {
    let other = |check| Err(Fault::Check(check, false));
    let wrong = |check| Err(Fault::Check(check, true));
    let signer = check_signer(signer, payment, now)?;
    if proof.seen().is_none_or(|seen| seen.bytes() != payment.request) {
        return Err(Fault::Stale);
    }
    match (signer.signer.method, answer, proof) {
        (
            SignMethod::Pki,
            PaymentAnswer::Pki { .. },
            Proof::Signature { certificate, verified, .. },
        ) => {
            check_certificate(signer, certificate.as_deref(), now)?;
            let is_signature = |check: &str| check == PaymentError::Signature.check();
            verified.or_else(|check| if is_signature(check) { wrong(check) } else { other(check) })
        }
        (SignMethod::Ocra, PaymentAnswer::Ocra { .. }, Proof::Digits(digits)) => {
            match (&signer.signer.ocra_key, &digits.block) {
                (None, _) => other("device-revoked"),
                (Some(block), Some(verified)) if block == verified => {
                    if digits.good {
                        Ok(())
                    } else {
                        wrong("dynamic-password")
                    }
                }
                (Some(_), _) => Err(Fault::Stale),
            }
        }
        // A signing card is to blame only for what its own signature covers.
        (SignMethod::Joint, _, _) => other("method"),
        _ => wrong("method"),
    }
}

impl Rows {
    /// A wrong answer of a device: its owner is alerted before it is blocked (D7).
    pub(super) fn blame(&mut self, desk: &mut Desk<'_>, case: &Case, incident: &str) {
        let Some(signer) = case.key.device_serial.as_ref().and_then(|it| self.signers.get_mut(it))
        else {
            return;
        };
        signer.signer.failures = signer.signer.failures.saturating_add(1);
        let (failures, id) = (signer.signer.failures, signer.signer.device_id.clone());
        let blocked = failures >= DEVICE_BLOCK_AT;
        let verb = if blocked { "blocked" } else { "alert" };
        if failures >= DEVICE_ALERT_AT {
            let data = json!({ "securityDevice": id, "wrongAnswers": failures });
            self.out.events.push(Event {
                id: (desk.new_id)(IdKind::Event),
                kind: format!("security_device.{verb}"),
                subject: id.clone(),
                owner: None,
                data: data.to_string(),
                at: desk.now,
            });
            signer.signer.alerted_at = Some(desk.now);
            let action = if blocked { "security-device.block" } else { "security-device.alert" };
            let reason = json!({ "reason": BLOCK_REASON, "wrongAnswers": failures });
            self.out.audit.push(AuditEntry {
                incident: Some(incident.to_owned()),
                detail: reason.to_string(),
                ..done(desk.now, &Actor::System, action, &id)
            });
        }
        if blocked {
            signer.device.device.status = DeviceStatus::Blocked;
            signer.device.device.block_reason = Some(BLOCK_REASON.to_owned());
        }
        let change = signer_change(signer, blocked, desk.now);
        self.changed.insert(id, change);
    }

    /// A good answer ends the row of wrong ones.
    pub(super) fn forgive(&mut self, desk: &Desk<'_>, case: &Case) {
        let serial = case.key.device_serial.as_ref();
        let Some(signer) = serial.and_then(|it| self.signers.get_mut(it)) else { return };
        if signer.signer.failures > 0 || signer.signer.alerted_at.is_some() {
            signer.signer.failures = 0;
            signer.signer.alerted_at = None;
            let change = signer_change(signer, false, desk.now);
            self.changed.insert(signer.signer.device_id.clone(), change);
        }
    }
}

fn signer_change(signer: &SignerRecord, blocked: bool, at: UnixTime) -> SignerChange {
    SignerChange {
        device_id: signer.signer.device_id.clone(),
        failures: signer.signer.failures,
        alerted_at: signer.signer.alerted_at,
        blocked: blocked.then(|| BLOCK_REASON.to_owned()),
        at,
    }
}
