//! What answers come to: decided over locked rows, without touching the database.

mod account;
mod case;
mod device;
mod joint;

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_crypto::UnixTime;
use countersign_payment::joint::TRIES_MAX;
use countersign_payment::machine::{self, Decision, Refusal, RejectReason, Step};
use countersign_payment::{Amount, ConfirmationRequest, Currency, State};
use countersign_store::{
    Account, AnswerContext, AnswerOutcome, AuditEntry, AuditOutcome, Authorisation, IdKind,
    LockedAnswers, Outcomes, Payment, PaymentChange, PaymentRecord, PostingKind, SignerChange,
    SignerRecord,
};
use serde_json::json;

pub(super) use self::case::{Brought, Case, Digits, Joint, Proof, Seen};
use self::device::{Fault, check_device};
pub(super) use self::joint::JointProof;
use self::joint::check_joint;
use super::answer::PaymentAnswer;
use super::postings::{Cause, record_posting, try_posting};
use super::settle::{event, view, walk};
use crate::{Actor, ServiceError, done};

/// What an answer comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was accepted, or it was the payer's rejection.
    Answered { record: Box<PaymentRecord>, authorisation: Box<Authorisation>, replayed: bool },
    /// It did not verify.
    Refused { incident: String },
    /// The payment takes no answer any more.
    Closed(Refusal),
    /// There is no such payment for this phone.
    Unknown,
    /// What it was verified under has changed since: verify again.
    Stale,
}

/// What decides, beside what is locked.
pub(super) struct Desk<'a> {
    /// Read after the rows were locked: who waited for them may have come too late.
    pub(super) now: UnixTime,
    /// Wrong answers with which a payment fails.
    pub(super) wrong_answers_max: u32,
    /// Makes ids.
    pub(super) new_id: &'a mut dyn FnMut(IdKind) -> String,
}

/// The rows while answers are decided over them, one after the other: each sees what those before
/// it did.
struct Rows {
    payments: BTreeMap<String, Payment>,
    /// The versions as they were locked.
    versions: BTreeMap<String, i64>,
    accounts: BTreeMap<String, Account>,
    signers: BTreeMap<String, SignerRecord>,
    changed: BTreeMap<String, SignerChange>,
    decided: BTreeMap<(String, [u8; 32]), Authorisation>,
    out: Outcomes,
}

/// Decides answers from locked rows (D5–D7): a verdict for each, and what is to be stored, in the
/// transaction that holds the locks.
///
/// # Errors
/// [`ServiceError::Internal`] for a damaged row: then nothing of all this is to be stored.
pub(super) fn decide(
    desk: &mut Desk<'_>,
    locked: LockedAnswers,
    cases: &[(Arc<Case>, Proof)],
) -> Result<(Vec<Verdict>, Outcomes), ServiceError> {
    let mut rows = Rows {
        payments: BTreeMap::new(),
        versions: BTreeMap::new(),
        accounts: locked.accounts,
        signers: BTreeMap::new(),
        changed: BTreeMap::new(),
        decided: BTreeMap::new(),
        out: Outcomes::default(),
    };
    let mut verdicts = Vec::with_capacity(cases.len());
    for ((case, proof), context) in cases.iter().zip(locked.contexts) {
        verdicts.push(rows.answer(desk, case, proof, context)?);
    }
    Ok((verdicts, rows.finish()))
}

impl Rows {
    fn answer(
        &mut self,
        desk: &mut Desk<'_>,
        case: &Case,
        proof: &Proof,
        context: AnswerContext,
    ) -> Result<Verdict, ServiceError> {
        let AnswerContext { payment, prior, phone_serves_payer, device } = context;
        // A phone learns nothing of payments that are not its own, nor does a terminal (404).
        let answers = |payment: &Payment| case.may_answer(payment, phone_serves_payer);
        let Some(payment) = payment.filter(answers) else {
            return Ok(Verdict::Unknown);
        };
        self.versions.entry(payment.id.clone()).or_insert(payment.version);
        let payment = self.payments.remove(&payment.id).unwrap_or(payment);
        if let Some(device) = device {
            let serial = device.device.device.serial.clone();
            self.signers.entry(serial).or_insert(device);
        }
        let mut record = self.record(payment)?;
        // Servers' clocks differ; a payment's own time never runs backwards.
        let now = desk.now;
        desk.now = now.max(record.payment.updated_at);
        let verdict = self.decide_one(desk, case, proof, prior, &mut record);
        desk.now = now;
        let PaymentRecord { payment, payer, payee } = record;
        self.payments.insert(payment.id.clone(), payment);
        self.accounts.insert(payer.id.clone(), payer);
        self.accounts.insert(payee.id.clone(), payee);
        verdict
    }

    fn record(&self, payment: Payment) -> Result<PaymentRecord, ServiceError> {
        let account = |id: &str| {
            self.accounts.get(id).cloned().ok_or_else(|| ServiceError::Internal {
                detail: format!("the account {id} of a payment is missing"),
            })
        };
        let (payer, payee) = (account(&payment.payer_account)?, account(&payment.payee_account)?);
        Ok(PaymentRecord { payment, payer, payee })
    }

    /// The order of the checks is D5's; see `docs/protocols/payments.md`.
    fn decide_one(
        &mut self,
        desk: &mut Desk<'_>,
        case: &Case,
        proof: &Proof,
        prior: Option<Authorisation>,
        record: &mut PaymentRecord,
    ) -> Result<Verdict, ServiceError> {
        let id = (case.key.payment_id.clone(), case.key.answer_hash);
        if let Some(authorisation) = prior.or_else(|| self.decided.get(&id).cloned()) {
            return Ok(as_before(authorisation, record));
        }
        let max = match case.brought {
            Brought::ByPayer { .. } => desk.wrong_answers_max,
            // A joint password has eight digits to guess: no policy allows more tries than that.
            Brought::ByTerminal(_) => desk.wrong_answers_max.min(TRIES_MAX),
        };
        let refused = machine::refuse_answer(&view(&record.payment), desk.now, max);
        if let Some(refusal) = refused.refusal {
            self.follow(desk, record, refused, &Actor::System);
            return Ok(Verdict::Closed(refusal));
        }
        let checked = match (&case.brought, proof) {
            (Brought::ByPayer { answer: PaymentAnswer::Reject { reason }, .. }, _) => {
                let decision = machine::reject(&view(&record.payment), desk.now, *reason);
                let actor = case.actor();
                let row = self.authorisation(desk, case, AnswerOutcome::Rejected);
                let row = Authorisation { failed_check: Some(reason.name().to_owned()), ..row };
                self.follow(desk, record, decision, &actor);
                if *reason == RejectReason::NotMine {
                    self.freeze(desk, record, &actor);
                }
                return Ok(self.answered(row, record));
            }
            _ if case.matches == Some(false) => {
                // Before anything of the device is looked at: it is not to blame.
                return Ok(self.refuse(desk, case, record, refused, ("match-code", false)));
            }
            (Brought::ByPayer { answer, .. }, _) => {
                check_device(self.signer(case), &record.payment, answer, proof, desk.now)
            }
            (Brought::ByTerminal(_), Proof::Joint(proof)) => {
                check_joint(self.signer(case), &record.payment, proof, desk.now)
            }
            (Brought::ByTerminal(_), _) => Err(Fault::Stale),
        };
        match checked {
            Ok(()) => self.accept(desk, case, proof, record),
            Err(Fault::Stale) => Ok(Verdict::Stale),
            Err(Fault::Check(check, counts)) => {
                Ok(self.refuse(desk, case, record, refused, (check, counts)))
            }
        }
    }

    /// The security device that an answer names, if there is one.
    fn signer(&self, case: &Case) -> Option<&SignerRecord> {
        case.key.device_serial.as_ref().and_then(|it| self.signers.get(it))
    }

    /// A good answer: the payment is approved and executed (D6).
    fn accept(
        &mut self,
        desk: &mut Desk<'_>,
        case: &Case,
        proof: &Proof,
        record: &mut PaymentRecord,
    ) -> Result<Verdict, ServiceError> {
        let actor = case.actor();
        let amount = confirmed(record, proof)?;
        let posted = try_posting(&record.payer, &record.payee, amount)?;
        let result = posted.map(|_| ());
        let decision = machine::approve(&view(&record.payment), desk.now, result);
        if let Some(refusal) = decision.refusal {
            // It was open a moment ago, under the same lock.
            return Ok(Verdict::Closed(refusal));
        }
        let certificate = self.signer(case).and_then(|signer| signer.device.certificate.clone());
        let row = self.authorisation(desk, case, AnswerOutcome::Accepted);
        let row = Authorisation {
            certificate_number: certificate.as_ref().map(|it| it.number.clone()),
            certificate: certificate.and_then(|it| it.der),
            ..row
        };
        let mut detail = json!({ "authorisation": row.id, "device": row.device_id });
        let mut entry = done(desk.now, &actor, "payment.execute", &record.payment.id);
        match posted {
            Ok(posted) => {
                let cause = Cause {
                    id: (desk.new_id)(IdKind::Posting),
                    kind: PostingKind::Payment,
                    reference: record.payment.id.clone(),
                    payment_id: Some(record.payment.id.clone()),
                    actor: actor.id(),
                    at: desk.now,
                };
                let (payer, payee) = (&mut record.payer, &mut record.payee);
                let posting = record_posting(cause, payer, payee, amount, posted);
                detail["posting"] = posting.id.clone().into();
                self.out.postings.push(posting);
            }
            Err(error) => {
                entry.outcome = AuditOutcome::Failed;
                entry.check = Some(error.check().to_owned());
            }
        }
        entry.detail = detail.to_string();
        self.out.audit.push(entry);
        self.steps(desk, record, &decision.steps, &actor);
        self.forgive(desk, case);
        Ok(self.answered(row, record))
    }

    /// A wrong answer: counted for the payment and, if its device is to blame, for that (D7).
    fn refuse(
        &mut self,
        desk: &mut Desk<'_>,
        case: &Case,
        record: &mut PaymentRecord,
        decision: Decision,
        (check, counts): (&'static str, bool),
    ) -> Verdict {
        let incident = (desk.new_id)(IdKind::Incident);
        let actor = case.actor();
        let row = self.authorisation(desk, case, AnswerOutcome::Refused);
        let detail = json!({
            "authorisation": row.id,
            "serial": case.key.device_serial,
            "wrongAnswers": decision.wrong_answers,
        });
        self.out.audit.push(AuditEntry {
            outcome: AuditOutcome::Refused,
            check: Some(check.to_owned()),
            incident: Some(incident.clone()),
            detail: detail.to_string(),
            ..done(desk.now, &actor, "payment.answer", &record.payment.id)
        });
        record.payment.wrong_answers = decision.wrong_answers;
        if decision.steps.is_empty() {
            record.payment.version += 1;
            record.payment.updated_at = desk.now;
        } else {
            record.payment.incident = Some(incident.clone());
            self.follow(desk, record, decision, &Actor::System);
        }
        if counts {
            self.blame(desk, case, &incident);
        }
        let row = Authorisation {
            failed_check: Some(check.to_owned()),
            incident: Some(incident.clone()),
            ..row
        };
        self.keep(row);
        Verdict::Refused { incident }
    }

    /// Changes of state that no other row of the audit tells.
    fn follow(
        &mut self,
        desk: &mut Desk<'_>,
        record: &mut PaymentRecord,
        decision: Decision,
        actor: &Actor,
    ) {
        for step in &decision.steps {
            let action = match step.state {
                State::Expired => "payment.expire",
                State::Failed => "payment.fail",
                State::Rejected => "payment.reject",
                _ => continue,
            };
            let detail = json!({ "reason": step.reason }).to_string();
            let entry = done(desk.now, actor, action, &record.payment.id);
            let incident = record.payment.incident.clone();
            self.out.audit.push(AuditEntry { detail, incident, ..entry });
        }
        self.steps(desk, record, &decision.steps, actor);
    }

    fn steps(
        &mut self,
        desk: &mut Desk<'_>,
        record: &mut PaymentRecord,
        steps: &[Step],
        actor: &Actor,
    ) {
        if steps.is_empty() {
            return;
        }
        let timeline = walk(&mut record.payment, steps, actor.id(), desk.now);
        self.out.timeline.extend(timeline);
        self.out.events.push(event((desk.new_id)(IdKind::Event), &record.payment, desk.now));
    }

    fn authorisation(
        &self,
        desk: &mut Desk<'_>,
        case: &Case,
        outcome: AnswerOutcome,
    ) -> Authorisation {
        let (method, signature) = case.signed();
        Authorisation {
            id: (desk.new_id)(IdKind::Authorisation),
            payment_id: case.key.payment_id.clone(),
            answer_hash: case.key.answer_hash,
            outcome,
            method,
            device_id: self.signer(case).map(|signer| signer.signer.device_id.clone()),
            phone_id: case.key.phone_id.clone(),
            certificate_number: None,
            certificate: None,
            signature,
            commitment: case.commitment(),
            failed_check: None,
            incident: None,
            at: desk.now,
        }
    }

    fn answered(&mut self, row: Authorisation, record: &PaymentRecord) -> Verdict {
        self.keep(row.clone());
        let (record, authorisation) = (Box::new(record.clone()), Box::new(row));
        Verdict::Answered { record, authorisation, replayed: false }
    }

    fn keep(&mut self, row: Authorisation) {
        self.decided.insert((row.payment_id.clone(), row.answer_hash), row.clone());
        self.out.authorisations.push(row);
    }

    fn finish(mut self) -> Outcomes {
        for (id, payment) in self.payments {
            let before = self.versions.get(&id).copied().unwrap_or_default();
            if payment.version != before {
                self.out.changes.push(change(&payment, before));
            }
        }
        self.out.signers.extend(self.changed.into_values());
        self.out
    }
}

/// How a locked payment changes, from the version that was locked.
pub(super) fn change(payment: &Payment, before: i64) -> PaymentChange {
    PaymentChange {
        id: payment.id.clone(),
        version_before: before,
        version: payment.version,
        state: payment.state,
        wrong_answers: payment.wrong_answers,
        refunded: payment.refunded,
        reason: payment.reason.clone(),
        incident: payment.incident.clone(),
        at: payment.updated_at,
    }
}

/// What the verified bytes say is to be paid, if the rows say the same: executed is what was
/// confirmed, whatever happened to a row.
fn confirmed(record: &PaymentRecord, proof: &Proof) -> Result<Amount, ServiceError> {
    let PaymentRecord { payment, payer, payee } = record;
    let same = |request: &&ConfirmationRequest| {
        request.payment == payment.id
            && request.payer_account.as_str() == payer.number
            && request.payee_account.as_str() == payee.number
            && request.amount.minor() == payment.amount
            && request.amount.currency().code() == payment.currency
            && request.expires == payment.expires_at
    };
    let says = proof.seen().and_then(Seen::says);
    let request = says.filter(same).ok_or_else(|| ServiceError::Internal {
        detail: format!("the row of {} is not what its request says", payment.id),
    })?;
    Ok(request.amount)
}

pub(super) fn currency(payment: &Payment) -> Result<Currency, ServiceError> {
    Currency::parse(&payment.currency).map_err(|_| ServiceError::Internal {
        detail: format!("the currency of {} is damaged", payment.id),
    })
}

/// The same answer again: the same result, and nothing twice.
fn as_before(authorisation: Authorisation, record: &PaymentRecord) -> Verdict {
    match (authorisation.outcome, &authorisation.incident) {
        (AnswerOutcome::Refused, incident) => {
            Verdict::Refused { incident: incident.clone().unwrap_or_default() }
        }
        (AnswerOutcome::Accepted | AnswerOutcome::Rejected, _) => Verdict::Answered {
            record: Box::new(record.clone()),
            authorisation: Box::new(authorisation),
            replayed: true,
        },
    }
}
