//! Payments that a signing card confirmed: not the signature alone, but the consent that its holder
//! gave at that very card, for these very bytes, and a joint password that served nothing else.

use std::collections::BTreeSet;

use super::{Judge, Violation, find};
use crate::snapshot::{Answer, Snapshot};

/// Wrong joint passwords of one payment, at most, whatever the policy says.
const TRIES_MAX: usize = 3;
const LABEL: &[u8] = b"countersign.joint.transaction.v1\0";
const DOMAIN: &[u8] = b"countersign.payment.joint.v1\0";

impl Judge {
    pub(super) fn check_joint(&self, now: &Snapshot, found: &mut Vec<Violation>) {
        let mut used = BTreeSet::new();
        let is_joint = |answer: &&Answer| answer.method == "joint";
        for answer in now.answers.iter().filter(|answer| !is_joint(answer)) {
            find(found, answer.commitment.is_some(), "commitment-of-others", &answer.id);
        }
        for answer in now.answers.iter().filter(is_joint) {
            find(found, answer.commitment.is_none(), "commitment-missing", &answer.id);
            find(found, answer.phone.is_some(), "foreign-phone", &answer.id);
            if answer.outcome != "accepted" {
                continue;
            }
            let consent =
                answer.device.as_ref().and_then(|id| self.devices.get(id)).and_then(|it| {
                    let payment = now.payments.get(&answer.payment)?;
                    it.consents.iter().find(|consent| {
                        consent.transaction == payment.request
                            && Some(&consent.commitment) == answer.commitment.as_ref()
                            && Some(&consent.signature) == answer.signature.as_ref()
                    })
                });
            let Some(consent) = consent else {
                find(found, true, "executed-without-consent", &answer.id);
                continue;
            };
            let first = used.insert((&answer.device, &consent.password));
            find(found, !first, "password-used-twice", &answer.id);
        }
        for id in now.payments.keys() {
            let wrong = |one: &&Answer| one.payment == *id && one.outcome == "refused";
            let tries = now.answers.iter().filter(is_joint).filter(wrong).count();
            find(found, tries > TRIES_MAX, "too-many-tries", format!("{id}: {tries}"));
        }
        check_blame(now, found);
    }

    /// What a card signs (B3 to B5), worked out again.
    pub(super) fn joint_statement(&self, transaction: &[u8], commitment: &[u8]) -> Vec<u8> {
        let hash = self.pure.hash.hash(&[LABEL, transaction]);
        [DOMAIN, &hash, commitment].concat()
    }
}

/// A card is to blame for wrong joint passwords under its own signature, and for nothing else:
/// nobody who does not have it can have it blocked.
fn check_blame(now: &Snapshot, found: &mut Vec<Violation>) {
    for (id, device) in &now.devices {
        let blamed = |one: &&Answer| {
            let joint = one.method == "joint";
            one.outcome == "refused"
                && one.device.as_ref() == Some(id)
                && joint == (one.failed_check.as_deref() == Some("joint-password"))
                && joint == (device.method == "joint")
        };
        let most = now.answers.iter().filter(blamed).count() as i64;
        let detail = format!("{id}: {} failures, {most} to blame for", device.failures);
        find(found, device.failures > most, "blamed-for-others", detail);
    }
}
