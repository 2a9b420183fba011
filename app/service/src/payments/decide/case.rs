//! An answer on its way to its decision, and what was verified of it outside the lock.

use std::sync::Arc;

use countersign_payment::ConfirmationRequest;
use countersign_store::{AnswerKey, Payment, SignMethod};

use super::super::answer::{PaymentAnswer, bearer};
use super::joint::JointProof;
use crate::Actor;

/// An answer that is to be decided.
pub(in super::super) struct Case {
    pub(in super::super) key: AnswerKey,
    pub(in super::super) brought: Brought,
    /// Whether the number to match is right; none if none came, and none was needed.
    pub(in super::super) matches: Option<bool>,
}

/// What was brought, and by whom.
pub(in super::super) enum Brought {
    /// By a phone of the payer, or typed into the page of a checkout.
    ByPayer {
        answer: PaymentAnswer,
        /// The digits of a dynamic password were verified before the answer was queued.
        digits: Option<Digits>,
    },
    /// By the terminal into which the payer's signing card was put.
    ByTerminal(Joint),
}

/// What a terminal brought of a signing card. The joint password is not among it: it was verified,
/// and forgotten.
pub(in super::super) struct Joint {
    /// The operator whose terminal it is.
    pub(in super::super) actor: Actor,
    pub(in super::super) commitment: Vec<u8>,
    pub(in super::super) signature: Vec<u8>,
    pub(in super::super) proof: JointProof,
}

impl Case {
    /// The actor in audit rows.
    pub(super) fn actor(&self) -> Actor {
        match &self.brought {
            Brought::ByPayer { .. } => bearer(self.key.phone_id.as_deref()),
            Brought::ByTerminal(joint) => joint.actor.clone(),
        }
    }

    /// Whether it is known to who brought it that there is this payment. A checkout's key is good
    /// for its payment, and was looked at.
    pub(super) fn may_answer(&self, payment: &Payment, phone_serves_payer: bool) -> bool {
        match &self.brought {
            Brought::ByPayer { .. } => phone_serves_payer || self.key.phone_id.is_none(),
            Brought::ByTerminal(joint) => joint.actor.id() == payment.created_by,
        }
    }

    /// How it is signed, and the signature, or the digits as text.
    pub(super) fn signed(&self) -> (Option<SignMethod>, Option<Vec<u8>>) {
        match &self.brought {
            Brought::ByPayer { answer: PaymentAnswer::Pki { signature, .. }, .. } => {
                (Some(SignMethod::Pki), Some(signature.clone()))
            }
            Brought::ByPayer { answer: PaymentAnswer::Ocra { digits, .. }, .. } => {
                (Some(SignMethod::Ocra), Some(digits.clone().into_bytes()))
            }
            Brought::ByPayer { answer: PaymentAnswer::Reject { .. }, .. } => (None, None),
            Brought::ByTerminal(joint) => (Some(SignMethod::Joint), Some(joint.signature.clone())),
        }
    }

    /// A signing card's commitment to its joint password.
    pub(super) fn commitment(&self) -> Option<Vec<u8>> {
        match &self.brought {
            Brought::ByPayer { .. } => None,
            Brought::ByTerminal(joint) => Some(joint.commitment.clone()),
        }
    }
}

/// The bytes over which an answer was verified, and what they say, if they are a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Seen {
    bytes: Vec<u8>,
    says: Option<ConfirmationRequest>,
}

impl Seen {
    pub(in super::super) fn new(bytes: Vec<u8>) -> Arc<Self> {
        let says = ConfirmationRequest::parse(&bytes).ok();
        Arc::new(Self { bytes, says })
    }

    pub(in super::super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the bytes ask for, if they are a request.
    pub(super) const fn says(&self) -> Option<&ConfirmationRequest> {
        self.says.as_ref()
    }
}

/// What came of verifying a dynamic password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Digits {
    /// What it was verified over; none if there was no such payment.
    pub(in super::super) seen: Option<Arc<Seen>>,
    /// The sealed key under which it was verified; none if the payer had no such device.
    pub(in super::super) block: Option<String>,
    pub(in super::super) good: bool,
}

/// What was verified outside the lock. It counts only if what it was verified under is still so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Proof {
    /// A rejection is not signed.
    None,
    /// A signature.
    Signature {
        /// What it was verified over; none if there was no such payment.
        seen: Option<Arc<Seen>>,
        /// The number of the certificate under which it was verified; none if there was none.
        certificate: Option<String>,
        /// The check that failed, if one did.
        verified: Result<(), &'static str>,
    },
    /// A dynamic password.
    Digits(Digits),
    /// A signing card's signature and joint password.
    Joint(JointProof),
}

impl Proof {
    pub(super) fn seen(&self) -> Option<&Seen> {
        match self {
            Self::None => None,
            Self::Signature { seen, .. }
            | Self::Digits(Digits { seen, .. })
            | Self::Joint(JointProof { seen, .. }) => seen.as_deref(),
        }
    }
}
