use std::collections::BTreeMap;

use countersign_crypto::UnixTime;
use countersign_payment::evidence::{self, Answer, Event, Evidence, Method, Outcome, Revocation};
use countersign_payment::receipt::{self, Receipt};
use countersign_payment::{
    AccountNumber, Amount, ConfirmationRequest, Currency, PaymentError, State, StatementKey,
    request_hash,
};
use countersign_store::{
    AnswerOutcome, Authorisation, Certificate, PaymentRecord, Posting, PostingKind, SignMethod,
    TimelineRow, Tx,
};

use super::read::{missing, outside, sees_all};
use crate::{Actor, Service, ServiceError};

/// What is stored about a payment, from one snapshot.
struct File {
    record: PaymentRecord,
    timeline: Vec<TimelineRow>,
    answers: Vec<Authorisation>,
    postings: Vec<Posting>,
    /// The certificate of the accepted answer.
    certificate: Option<Certificate>,
    /// Serial numbers of the devices that answered, by id.
    serials: BTreeMap<String, String>,
}

fn damaged(error: impl std::fmt::Display) -> ServiceError {
    ServiceError::Internal { detail: format!("a payment's rows are damaged: {error}") }
}

impl File {
    fn read(tx: &mut Tx<'_>, id: &str) -> Result<Self, ServiceError> {
        let record = tx.payment(id)?.ok_or_else(missing)?;
        let (timeline, mut answers) = (tx.timeline(id)?, tx.authorisations(id)?);
        // Ids sort by the clock of the server that made them, and servers' clocks differ.
        answers.sort_by(|one, other| (one.at, &one.id).cmp(&(other.at, &other.id)));
        let postings = tx.postings_of_payment(id)?;
        let mut certificate = None;
        let mut serials = BTreeMap::new();
        for answer in &answers {
            if answer.outcome == AnswerOutcome::Accepted
                && let Some(number) = &answer.certificate_number
            {
                certificate = tx.certificate_by_number(number)?;
            }
            if let Some(device) = &answer.device_id
                && !serials.contains_key(device)
                && let Some(found) = tx.device_by_id(device)?
            {
                serials.insert(device.clone(), found.device.serial);
            }
        }
        Ok(Self { record, timeline, answers, postings, certificate, serials })
    }

    fn accepted(&self) -> Option<&Authorisation> {
        self.answers.iter().find(|answer| answer.outcome == AnswerOutcome::Accepted)
    }

    fn receipt(&self, now: UnixTime) -> Result<Receipt, ServiceError> {
        let payment = &self.record.payment;
        let executed = self.timeline.iter().find(|row| row.state == State::Executed);
        let paid = self.postings.iter().find(|posting| posting.kind == PostingKind::Payment);
        let (Some(executed), Some(paid), Some(answer)) = (executed, paid, self.accepted()) else {
            return Err(damaged("it was executed without an answer, or without a posting"));
        };
        let request = ConfirmationRequest::parse(&payment.request).map_err(damaged)?;
        Ok(Receipt {
            payment: payment.id.clone(),
            end_to_end_id: payment.end_to_end_id.clone(),
            payer_account: request.payer_account,
            payee_account: request.payee_account,
            payee_name: request.payee_name,
            order: request.order,
            amount: request.amount,
            executed_at: executed.at,
            posting: paid.id.clone(),
            authorisation: answer.id.clone(),
            request_hash: request_hash(&payment.request),
            issued_at: now.max(executed.at),
        })
    }

    fn evidence(
        &self,
        issuer: &[u8],
        receipt: Option<String>,
        now: UnixTime,
    ) -> Result<Evidence, ServiceError> {
        let payment = &self.record.payment;
        let made_at = now.max(payment.updated_at);
        let revocation = self.certificate.as_ref().map(|certificate| Revocation {
            certificate_number: certificate.number.clone(),
            revoked_at: certificate.revoked_at,
            reason: certificate.revoke_reason.clone(),
            stated_at: made_at,
        });
        let answers = self.answers.iter().map(|answer| self.answer(answer, issuer)).collect();
        let timeline = (1..).zip(&self.timeline).map(|(number, row)| Event {
            number,
            state: row.state,
            actor: row.actor.clone(),
            reason: row.reason.clone(),
            at: row.at,
        });
        let postings = self.postings.iter().map(|posting| self.posting(posting));
        Ok(Evidence {
            payment: payment.id.clone(),
            end_to_end_id: payment.end_to_end_id.clone(),
            state: payment.state,
            request: payment.request.clone(),
            answers,
            revocation,
            timeline: timeline.collect(),
            postings: postings.collect::<Result<_, _>>()?,
            receipt,
            made_at,
        })
    }

    fn answer(&self, answer: &Authorisation, issuer: &[u8]) -> Answer {
        let device = answer.device_id.as_ref().and_then(|id| self.serials.get(id));
        Answer {
            id: answer.id.clone(),
            outcome: match answer.outcome {
                AnswerOutcome::Accepted => Outcome::Accepted,
                AnswerOutcome::Refused => Outcome::Refused,
                AnswerOutcome::Rejected => Outcome::Rejected,
            },
            method: match answer.method {
                Some(SignMethod::Pki) => Method::Pki,
                Some(SignMethod::Ocra) => Method::Ocra,
                Some(SignMethod::Joint) => Method::Joint,
                None => Method::None,
            },
            device: device.cloned(),
            phone: answer.phone_id.clone(),
            signature: answer.signature.clone(),
            commitment: answer.commitment.clone(),
            certificate: answer.certificate.clone(),
            issuer: answer.certificate.as_ref().map(|_| issuer.to_vec()),
            failed_check: answer.failed_check.clone(),
            at: answer.at,
        }
    }

    fn posting(&self, posting: &Posting) -> Result<evidence::Posting, ServiceError> {
        let PaymentRecord { payer, payee, .. } = &self.record;
        let number = |id: &str| {
            let account = [payer, payee].into_iter().find(|account| account.id == id);
            let account = account.ok_or_else(|| damaged("a posting of other accounts"))?;
            AccountNumber::parse(&account.number).map_err(damaged)
        };
        let currency = Currency::parse(&posting.currency).map_err(damaged)?;
        Ok(evidence::Posting {
            id: posting.id.clone(),
            kind: posting.kind.name().to_owned(),
            debit_account: number(&posting.debit_account)?,
            credit_account: number(&posting.credit_account)?,
            amount: Amount::new(posting.amount, currency).map_err(damaged)?,
            at: posting.at,
        })
    }
}

/// What fails in making a paper is the program's or its data's fault, not the caller's.
fn not_made(error: PaymentError) -> ServiceError {
    ServiceError::Internal { detail: format!("a paper was not made: {error}") }
}

impl Service {
    async fn file(&self, actor: &Actor, id: &str) -> Result<File, ServiceError> {
        let id = self.payment(actor, id).await?.payment.id;
        let file = self.store.read("payment_file", move |tx| File::read(tx, &id)).await?;
        if sees_all(actor) {
            return Ok(file);
        }
        Ok(File { answers: outside(file.answers), ..file })
    }

    fn statement_key(&self) -> StatementKey<'_> {
        let authority = &self.authority;
        StatementKey {
            provider: &authority.provider,
            key: &*authority.server_key,
            certificate: &authority.server,
            issuer: &authority.server_issuer,
        }
    }

    fn make_receipt(&self, file: &File) -> Result<String, ServiceError> {
        let receipt = file.receipt(self.now())?;
        receipt::make(&receipt, &self.statement_key(), &mut *self.rng()).map_err(not_made)
    }

    /// The receipt of an executed payment, signed by this server: a compact JWS that anyone checks
    /// who trusts the root (`countersign_payment::receipt::verify`).
    ///
    /// # Errors
    /// As [`Self::payment`]; `receipt-not-ready` if it is not executed.
    pub async fn payment_receipt(&self, actor: &Actor, id: &str) -> Result<String, ServiceError> {
        let file = self.file(actor, id).await?;
        if file.record.payment.state != State::Executed {
            let detail = "only an executed payment has a receipt";
            return Err(ServiceError::refused("receipt-not-ready", detail));
        }
        self.make_receipt(&file)
    }

    /// Everything that shows how a payment ended, sealed by this server, for a dispute: JSON that
    /// `countersign_payment::evidence::verify` checks offline.
    ///
    /// # Errors
    /// As [`Self::payment`]; `evidence-not-ready` while its state may still change.
    pub async fn payment_evidence(&self, actor: &Actor, id: &str) -> Result<Vec<u8>, ServiceError> {
        let file = self.file(actor, id).await?;
        let state = file.record.payment.state;
        if !state.is_terminal() {
            let detail = "there is evidence when the payment has ended";
            return Err(ServiceError::refused("evidence-not-ready", detail));
        }
        let executed = state == State::Executed;
        let receipt = executed.then(|| self.make_receipt(&file)).transpose()?;
        let evidence = file.evidence(&self.authority.device_issuer, receipt, self.now())?;
        evidence::make(&evidence, &self.statement_key(), &mut *self.rng()).map_err(not_made)
    }
}
