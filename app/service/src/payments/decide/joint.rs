//! Answers of signing cards with a joint password (B8): what was verified of one outside the lock,
//! and whether it counts under it.

use std::sync::Arc;

use countersign_crypto::UnixTime;
use countersign_payment::PaymentError;
use countersign_store::{Payment, SignMethod, SignerRecord};

use super::case::Seen;
use super::device::{Fault, check_certificate, check_signer};

/// What came of verifying what a terminal brought of a signing card. By default nothing was there
/// to verify it under.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in super::super) struct JointProof {
    /// The stored bytes that were looked at; none if the terminal has no such payment.
    pub(in super::super) seen: Option<Arc<Seen>>,
    /// Whether what was brought is for these bytes, in a form that is taken: the check that failed.
    pub(in super::super) message: Option<&'static str>,
    /// The number of the certificate under which it was verified; none if there was none.
    pub(in super::super) certificate: Option<String>,
    /// The sealed key that the card shared with the server then; none if there was none.
    pub(in super::super) block: Option<String>,
    /// What came of certificate, signature and joint password: the check that failed, if one did;
    /// none if they were not looked at.
    pub(in super::super) verified: Option<Result<(), &'static str>>,
}

/// Whether the card may confirm this payment, and its owner did. A card is to blame for a wrong
/// joint password only, and so only after its own signature was found good: who has never had the
/// card cannot have it blocked. What does not open (`joint-sealed`) is nobody's guess: it counts
/// against the payment alone.
pub(super) fn check_joint(
    signer: Option<&SignerRecord>,
    payment: &Payment,
    proof: &JointProof,
    now: UnixTime,
) -> Result<(), Fault> {
    let other = |check| Err(Fault::Check(check, false));
    if proof.seen.as_ref().is_none_or(|seen| seen.bytes() != payment.request) {
        return Err(Fault::Stale);
    }
    if let Some(check) = proof.message {
        return other(check);
    }
    let signer = check_signer(signer, payment, now)?;
    if signer.signer.method != SignMethod::Joint {
        return other("method");
    }
    check_certificate(signer, proof.certificate.as_deref(), now)?;
    match (&signer.signer.joint_key, &proof.block) {
        (None, _) => return other("device-revoked"),
        (Some(block), Some(verified)) if block == verified => {}
        (Some(_), _) => return Err(Fault::Stale),
    }
    match proof.verified {
        Some(Ok(())) => Ok(()),
        Some(Err(check)) => {
            let blamed = check == PaymentError::JointPassword.check();
            Err(Fault::Check(check, blamed))
        }
        None => Err(Fault::Stale),
    }
}
