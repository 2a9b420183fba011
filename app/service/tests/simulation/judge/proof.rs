//! Approvals: whatever executed was approved once, in time, over the stored bytes, by a signer of
//! the payer's.

use std::collections::{BTreeMap, BTreeSet};

use countersign_crypto::{Provider, UnixTime};
use countersign_pki::Role;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Judge, Violation, find};
use crate::snapshot::{Account, Answer, Payment, Snapshot};

/// What stands before the bytes that are signed.
const DOMAIN: &[u8] = b"countersign.payment.confirmation.v1\0";
/// Wrong answers of terminals with which a payment fails, whatever the policy says (B8).
const JOINT_MAX: i64 = 3;
/// The suite of dynamic passwords.
const OCRA_SUITE: &str = "OCRA-1:HOTP-SHA256-8:QH64";
/// Bytes of an OCRA question, filled up with zeros (RFC 6287, 5.1).
const OCRA_QUESTION: usize = 128;

impl Judge {
    pub(super) fn check_proofs(&mut self, now: &Snapshot, found: &mut Vec<Violation>) {
        let mut accepted: BTreeMap<&str, u32> = BTreeMap::new();
        let mut proofs = BTreeSet::new();
        for answer in now.answers.iter().filter(|answer| answer.outcome == "accepted") {
            *accepted.entry(&answer.payment).or_default() += 1;
            let used = !proofs.insert((&answer.device, &answer.signature));
            find(found, used && answer.method != "ocra", "approval-used-twice", &answer.id);
            match now.payments.get(&answer.payment) {
                Some(payment) => self.check_answer(now, payment, answer, found),
                None => find(found, true, "approval-of-nothing", &answer.id),
            }
        }
        for (id, payment) in &now.payments {
            let approvals = accepted.get(id.as_str()).copied().unwrap_or_default();
            find(found, approvals > 1, "approved-twice", id);
            let went_on = ["executed", "execution_failed"].contains(&payment.state.as_str());
            find(found, went_on && approvals == 0, "execution-without-approval", id);
            find(found, !went_on && approvals > 0, "approval-without-execution", id);
            let counted = self.are_counted(now, id, payment);
            let detail = format!("{id}: {}, {}", payment.wrong_answers, payment.state);
            find(found, !counted, "wrong-answers", detail);
            let right = requests_the_same(now, id, payment).unwrap_or(false);
            find(found, !right, "request-differs", id);
        }
    }

    /// Whether wrong answers were counted, and had the end that they must have.
    fn are_counted(&self, now: &Snapshot, id: &str, payment: &Payment) -> bool {
        let refused = |one: &&Answer| one.outcome == "refused" && one.payment == id;
        let wrong = now.answers.iter().filter(refused).count() as i64;
        let of_cards = now.answers.iter().filter(refused).filter(|one| one.method == "joint");
        let of_cards = of_cards.count() as i64;
        let full = wrong >= self.wrong_max || of_cards >= JOINT_MAX;
        // The last one was a terminal's, others came before it.
        let may = full || (of_cards > 0 && wrong >= JOINT_MAX);
        let failed = payment.state == "failed";
        payment.wrong_answers == wrong
            && wrong <= self.wrong_max
            && (failed || !full)
            && (may || !failed)
    }

    fn check_answer(
        &mut self,
        now: &Snapshot,
        payment: &Payment,
        answer: &Answer,
        found: &mut Vec<Violation>,
    ) {
        find(found, answer.at > payment.expires_at, "late-approval", &answer.id);
        let device = answer.device.as_ref().and_then(|id| self.devices.get(id));
        let phone = answer.phone.as_ref().and_then(|id| self.phones.get(id));
        // Digits come without a phone too, and what a card signs at a terminal.
        let typed = answer.phone.is_none() && ["ocra", "joint"].contains(&answer.method.as_str());
        let signers = [(device, "foreign-device"), (phone, "foreign-phone")];
        for (signer, name) in signers.into_iter().take(if typed { 1 } else { 2 }) {
            let own = signer.is_some_and(|signer| signer.accounts.contains(&payment.payer));
            find(found, !own, name, &answer.id);
            let barred = signer.is_some_and(|signer| {
                signer.barred.iter().any(|(from, until)| *from < answer.at && answer.at < *until)
            });
            find(found, barred, "barred-signer", &answer.id);
        }
        if !self.is_proven(now, payment, answer) {
            find(found, true, "signature", &answer.id);
        }
    }

    /// Whether the answer is one over the stored bytes, by the device that it names.
    fn is_proven(&mut self, now: &Snapshot, payment: &Payment, answer: &Answer) -> bool {
        let (Some(device), Some(proof)) = (&answer.device, &answer.signature) else {
            return false;
        };
        let certificate = answer.certificate.as_deref().unwrap_or_default();
        let commitment = answer.commitment.as_deref().unwrap_or_default();
        let method = answer.method.as_bytes();
        let parts = [device.as_bytes(), method, &payment.request, commitment, proof, certificate];
        let hashes = parts.map(|part| self.pure.hash.hash(&[part]));
        let known = self.pure.hash.hash(&hashes.each_ref().map(<[u8; 32]>::as_slice));
        if self.verified.contains(&known) {
            return true;
        }
        let proven = match answer.method.as_str() {
            method @ ("pki" | "joint") => {
                let leaf = self.trust.verify(certificate, Role::SecurityDevice, answer.at, None);
                let serial = now.devices.get(device).map(|device| device.serial.as_str());
                let signed = match method {
                    "pki" => signing_input(&payment.request),
                    _ => self.joint_statement(&payment.request, commitment),
                };
                leaf.is_ok_and(|leaf| {
                    serial == Some(leaf.identity().id())
                        && leaf.key().verify(&signed, proof).is_ok()
                })
            }
            "ocra" => {
                let key = self.devices.get(device).and_then(|device| device.ocra_key.as_ref());
                key.is_some_and(|key| digits(&self.pure, key, &payment.request) == *proof)
            }
            _ => false,
        };
        if proven {
            self.verified.insert(known);
        }
        proven
    }
}

pub(crate) fn signing_input(request: &[u8]) -> Vec<u8> {
    [DOMAIN, request].concat()
}

/// A dynamic password over a request (RFC 6287 with HMAC-SHA-256 and 8 digits), worked out again.
pub(crate) fn digits(pure: &Provider, key: &[u8], request: &[u8]) -> Vec<u8> {
    let mut question = pure.hash.hash(&[&signing_input(request)]).to_vec();
    question.resize(OCRA_QUESTION, 0);
    let mac = pure.mac.mac(key, &[OCRA_SUITE.as_bytes(), &[0], &question]);
    let at = usize::from(mac[31] & 0x0F);
    let word = u32::from_be_bytes([mac[at] & 0x7F, mac[at + 1], mac[at + 2], mac[at + 3]]);
    format!("{:08}", word % 100_000_000).into_bytes()
}

/// Whether the stored bytes say what the payment's row says; none if they are no request at all.
fn requests_the_same(now: &Snapshot, id: &str, payment: &Payment) -> Option<bool> {
    let fields: BTreeMap<String, Value> = serde_json::from_slice(&payment.request).ok()?;
    let canonical = serde_json::to_vec(&fields).ok()? == payment.request;
    let number = |account| now.accounts.get(account).map(|one: &Account| one.number.clone());
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    let expires = OffsetDateTime::parse(text("expires"), &Rfc3339).ok()?;
    let expires = UnixTime::from_secs(u64::try_from(expires.unix_timestamp()).ok()?);
    Some(
        canonical
            && text("payment") == id
            && Some(text("payerAccount")) == number(&payment.payer).as_deref()
            && Some(text("payeeAccount")) == number(&payment.payee).as_deref()
            && text("amount") == decimal(payment.amount, &payment.currency)
            && text("currency") == payment.currency
            && text("order") == payment.order
            && text("initiator") == payment.initiator
            && expires.as_secs() == payment.expires_at.as_secs(),
    )
}

/// An amount as people write it.
pub(crate) fn decimal(minor: i64, currency: &str) -> String {
    match currency {
        "JPY" => minor.to_string(),
        "BHD" => format!("{}.{:03}", minor / 1000, minor % 1000),
        _ => format!("{}.{:02}", minor / 100, minor % 100),
    }
}
