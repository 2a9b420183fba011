//! An executed payment with everything that belongs to it.

use std::sync::Arc;
use std::time::Duration;

use countersign_crypto::{Secret, SecureElement, Suite, UnixTime, provider_of};
use countersign_payment::evidence::{
    self, Answer, Event, Evidence, KIND_PAYMENT, Method, Outcome, Posting, Report, Revocation,
};
use countersign_payment::joint::{self, Form, JointPassword, SealTo};
use countersign_payment::receipt::{self, Receipt};
use countersign_payment::{
    AccountNumber, Amount, ConfirmationRequest, State, StatementKey, ocra, request_hash, sign,
};
use countersign_pki::Role;
use testkit::pki::{NOW, Party, TestPki};

pub(crate) fn after(seconds: u64) -> UnixTime {
    NOW.plus(Duration::from_secs(seconds))
}

pub(crate) fn account(number: &str) -> AccountNumber {
    AccountNumber::parse(number).unwrap()
}

pub(crate) fn amount(decimal: &str) -> Amount {
    Amount::parse(decimal, "CNY").unwrap()
}

pub(crate) const PAYER: &str = "6222021234567890123";
pub(crate) const PAYEE: &str = "DE89370400440532013000";

/// A tree of certificates, a server and a device of it.
pub(crate) struct Case {
    pub(crate) pki: TestPki,
    pub(crate) server: Party,
    pub(crate) device: Party,
}

impl Case {
    pub(crate) fn new(suite: Suite, seed: u64) -> Self {
        let mut pki = TestPki::new(provider_of(suite).unwrap(), seed);
        let server = pki.party(Role::Server, "server-1");
        let device = pki.party(Role::SecurityDevice, "SD-1");
        Self { pki, server, device }
    }

    pub(crate) fn p256() -> Self {
        Self::new(Suite::X25519_P256_AES128GCM_SHA256, 7)
    }

    pub(crate) fn root(&self) -> Vec<u8> {
        self.pki.root().to_vec()
    }

    pub(crate) fn request(&self) -> ConfirmationRequest {
        ConfirmationRequest {
            server: "Bank of Example".into(),
            payment: "pay_1".into(),
            payer_account: account(PAYER),
            payee_account: account(PAYEE),
            payee_name: "Müller GmbH".into(),
            order: "订单 117".into(),
            amount: amount("1299.00"),
            expires: after(300),
            initiator: "shop.example".into(),
            alerts: Vec::new(),
        }
    }

    /// Signs `request` with the device's key.
    pub(crate) fn signature(&mut self, request: &[u8]) -> Vec<u8> {
        let key: Arc<dyn SecureElement> = self.device.key.clone();
        sign(&*key, &mut self.pki.rng, request).unwrap()
    }

    pub(crate) fn receipt(&self, evidence: &Evidence) -> Receipt {
        let request = ConfirmationRequest::parse(&evidence.request).unwrap();
        Receipt {
            payment: evidence.payment.clone(),
            end_to_end_id: evidence.end_to_end_id.clone(),
            payer_account: request.payer_account,
            payee_account: request.payee_account,
            payee_name: request.payee_name,
            order: request.order,
            amount: request.amount,
            executed_at: after(20),
            posting: "pst_1".into(),
            authorisation: "aut_1".into(),
            request_hash: request_hash(&evidence.request),
            issued_at: after(30),
        }
    }

    pub(crate) fn sealed_receipt(&mut self, receipt: &Receipt) -> String {
        let issuer = self.pki.issuer(Role::Server).to_vec();
        let provider = self.pki.provider.clone();
        let key = StatementKey {
            provider: &provider,
            key: &*self.server.key,
            certificate: &self.server.certificate,
            issuer: &issuer,
        };
        receipt::make(receipt, &key, &mut self.pki.rng).unwrap()
    }

    /// A bundle of `evidence`, sealed by the server.
    pub(crate) fn sealed(&mut self, evidence: &Evidence) -> Vec<u8> {
        let issuer = self.pki.issuer(Role::Server).to_vec();
        let provider = self.pki.provider.clone();
        let key = StatementKey {
            provider: &provider,
            key: &*self.server.key,
            certificate: &self.server.certificate,
            issuer: &issuer,
        };
        evidence::make(evidence, &key, &mut self.pki.rng).unwrap()
    }

    pub(crate) fn verified(&mut self, evidence: &Evidence) -> Report {
        evidence::verify(&self.sealed(evidence), &self.root())
    }

    /// A payment that was signed for, executed, and has its receipt.
    pub(crate) fn executed(&mut self) -> Evidence {
        let request = self.request().to_bytes().unwrap();
        let signature = self.signature(&request);
        let answer = Answer {
            id: "aut_1".into(),
            outcome: Outcome::Accepted,
            method: Method::Pki,
            device: Some("SD-1".into()),
            phone: Some("phn_1".into()),
            signature: Some(signature),
            commitment: None,
            certificate: Some(self.device.certificate.clone()),
            issuer: Some(self.pki.issuer(Role::SecurityDevice).to_vec()),
            failed_check: None,
            at: after(20),
        };
        let revocation = Revocation {
            certificate_number: self.device.number.to_string(),
            revoked_at: None,
            reason: None,
            stated_at: after(40),
        };
        let states = [
            (State::Created, 1),
            (State::Pending, 1),
            (State::Approved, 20),
            (State::Executing, 20),
            (State::Executed, 20),
        ];
        let mut evidence = Evidence {
            payment: "pay_1".into(),
            end_to_end_id: "order-117".into(),
            state: State::Executed,
            request,
            answers: vec![wrong_answer(), answer],
            revocation: Some(revocation),
            timeline: timeline(&states),
            postings: vec![posting("pst_1", KIND_PAYMENT, (PAYER, PAYEE), "1299.00", 20)],
            receipt: None,
            made_at: after(60),
        };
        let receipt = self.receipt(&evidence);
        evidence.receipt = Some(self.sealed_receipt(&receipt));
        evidence
    }

    /// The same, answered with OCRA.
    pub(crate) fn executed_by_ocra(&mut self) -> Evidence {
        let mut evidence = self.executed();
        let key = Secret::new(vec![7; ocra::PAYMENT_KEY_LEN]);
        let digits = ocra::respond(&key, &evidence.request).unwrap();
        evidence.revocation = None;
        let answer = &mut evidence.answers[1];
        answer.method = Method::Ocra;
        answer.signature = Some(digits.into_bytes());
        (answer.certificate, answer.issuer) = (None, None);
        evidence
    }

    /// The same, confirmed with a signing card and a joint password.
    pub(crate) fn executed_jointly(&mut self, form: Form) -> Evidence {
        let mut evidence = self.executed();
        let (commitment, signature) = self.signed_jointly(form, &evidence.request);
        let answer = &mut evidence.answers[1];
        answer.method = Method::Joint;
        answer.phone = None;
        answer.signature = Some(signature);
        answer.commitment = Some(commitment);
        evidence
    }

    /// What the device, as a signing card, makes of `request`: commitment and signature.
    pub(crate) fn signed_jointly(&mut self, form: Form, request: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let TestPki { provider, rng, .. } = &mut self.pki;
        let server = provider.sealing.generate(rng).unwrap().key;
        let shared = Secret::new(vec![7; joint::SHARED_LEN]);
        let to = SealTo { server_point: server.public_key(), shared: &shared };
        let password = JointPassword::random(rng).unwrap();
        let commitment =
            joint::commit(provider, rng, form, "SD-1", request, &password, &to).unwrap();
        let (key, hash) = (&*self.device.key, &*provider.hash);
        let signature = joint::sign(key, rng, hash, request, &commitment).unwrap();
        (commitment.as_bytes().to_vec(), signature)
    }

    /// A payment that ended otherwise, by `states` (and the second after [`NOW`] of each).
    pub(crate) fn ended(&mut self, states: &[(State, u64)]) -> Evidence {
        let mut evidence = self.executed();
        evidence.state = states.last().unwrap().0;
        evidence.timeline = timeline(states);
        evidence.postings.clear();
        evidence.receipt = None;
        if evidence.state != State::ExecutionFailed {
            evidence.answers.truncate(1);
            evidence.revocation = None;
        }
        evidence
    }
}

pub(crate) fn timeline(states: &[(State, u64)]) -> Vec<Event> {
    let events = states.iter().zip(1..).map(|((state, second), number)| Event {
        number,
        state: *state,
        actor: "opr_1".into(),
        reason: None,
        at: after(*second),
    });
    events.collect()
}

/// An answer before the good one.
pub(crate) fn wrong_answer() -> Answer {
    Answer {
        id: "aut_0".into(),
        outcome: Outcome::Refused,
        method: Method::Pki,
        device: Some("SD-1".into()),
        phone: Some("phn_1".into()),
        signature: Some(vec![0x30, 0]),
        commitment: None,
        certificate: None,
        issuer: None,
        failed_check: Some("answer-signature".into()),
        at: after(10),
    }
}

pub(crate) fn posting(
    id: &str,
    kind: &str,
    accounts: (&str, &str),
    decimal: &str,
    second: u64,
) -> Posting {
    Posting {
        id: id.into(),
        kind: kind.into(),
        debit_account: account(accounts.0),
        credit_account: account(accounts.1),
        amount: amount(decimal),
        at: after(second),
    }
}
