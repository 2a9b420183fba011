//! Payments: confirmation requests, texts, OCRA, the machine; receipts and evidence.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use countersign_crypto::{
    CryptoRng, Provider, Secret, SecureElement, Suite, UnixTime, VerifyingKey, provider_of,
};
use countersign_payment::evidence::{self, Answer, Event, Evidence, Method, Outcome, Posting};
use countersign_payment::joint::{self, Form, JointPassword, SealTo};
use countersign_payment::machine::{self, Decision, PaymentView, RejectReason};
use countersign_payment::receipt::{self, Receipt};
use countersign_payment::{
    AccountNumber, Amount, ConfirmationRequest, ORDER_MAX, REQUEST_MAX, State, StatementKey,
    ledger::LedgerError, ocra, request_hash, sign, text, verify,
};
use countersign_pki::Role;
use testkit::pki::{NOW, TestPki};

use crate::script::Script;

/// A genuine payment of one suite, with everything that proves it.
struct Genuine {
    root: Vec<u8>,
    key: Arc<dyn VerifyingKey>,
    ocra_key: Secret,
    digits: String,
    request: Vec<u8>,
    signature: Vec<u8>,
    receipt: String,
    bundle: Vec<u8>,
    joint_bundle: Vec<u8>,
}

impl Genuine {
    fn confirms(&self, request: &[u8], signature: &[u8]) -> bool {
        verify(&*self.key, request, signature).is_ok()
    }
}

fn genuine(sm2: bool) -> &'static Genuine {
    static P256: OnceLock<Genuine> = OnceLock::new();
    static SM2: OnceLock<Genuine> = OnceLock::new();
    let (made, suite) = match sm2 {
        false => (&P256, Suite::X25519_P256_AES128GCM_SHA256),
        true => (&SM2, Suite::SM2_SM4GCM_SM3),
    };
    made.get_or_init(|| make(provider_of(suite).expect("known")))
}

fn after(seconds: u64) -> UnixTime {
    NOW.plus(Duration::from_secs(seconds))
}

/// The genuine request; also what the seeds begin with.
pub(crate) fn request() -> ConfirmationRequest {
    let account = |number| AccountNumber::parse(number).expect("a number");
    ConfirmationRequest {
        server: "Bank of Example".into(),
        payment: "pay_1".into(),
        payer_account: account("6222021234567890123"),
        payee_account: account("DE89370400440532013000"),
        payee_name: "Müller & Söhne".into(),
        order: "订单 117: \"2\"".into(),
        amount: Amount::parse("1299.00", "CNY").expect("an amount"),
        expires: after(300),
        initiator: "shop.example".into(),
        alerts: vec!["new-payee".into()],
    }
}

fn make(provider: Provider) -> Genuine {
    let mut pki = TestPki::new(provider.clone(), 1);
    let server = pki.party(Role::Server, "server-1");
    let device = pki.party(Role::SecurityDevice, "SD-1");
    let (server_issuer, device_issuer) =
        (pki.issuer(Role::Server).to_vec(), pki.issuer(Role::SecurityDevice).to_vec());
    let root = pki.root().to_vec();
    let mut rng = pki.rng;
    let request = request();
    let bytes = request.to_bytes().expect("good texts");
    let signature = sign(&*device.key, &mut rng, &bytes).expect("it signs");
    let statement = StatementKey {
        provider: &provider,
        key: &*server.key,
        certificate: &server.certificate,
        issuer: &server_issuer,
    };
    let said = Receipt {
        payment: request.payment.clone(),
        end_to_end_id: "order-117".into(),
        payer_account: request.payer_account.clone(),
        payee_account: request.payee_account.clone(),
        payee_name: request.payee_name.clone(),
        order: request.order.clone(),
        amount: request.amount,
        executed_at: after(20),
        posting: "pst_1".into(),
        authorisation: "aut_1".into(),
        request_hash: request_hash(&bytes),
        issued_at: after(30),
    };
    let receipt = receipt::make(&said, &statement, &mut rng).expect("a receipt");
    let answer = Answer {
        id: said.authorisation.clone(),
        outcome: Outcome::Accepted,
        method: Method::Pki,
        device: Some(device.id),
        phone: None,
        signature: Some(signature.clone()),
        commitment: None,
        certificate: Some(device.certificate),
        issuer: Some(device_issuer),
        failed_check: None,
        at: after(20),
    };
    let number = device.number.to_string();
    let evidence = evidence_of(&bytes, said, answer, number, receipt.clone());
    let bundle = evidence::make(&evidence, &statement, &mut rng).expect("a bundle");
    let joint = jointly(&provider, &mut rng, &*device.key, evidence);
    let joint_bundle = evidence::make(&joint, &statement, &mut rng).expect("a bundle");
    for bundle in [&bundle, &joint_bundle] {
        assert!(evidence::verify(bundle, &root).is_good());
    }
    let point = device.key.public_key().to_vec();
    let key = provider.signature.public_key(&point).expect("a key");
    let ocra_key = Secret::new(vec![7; ocra::PAYMENT_KEY_LEN]);
    let digits = ocra::respond(&ocra_key, &bytes).expect("a request");
    Genuine {
        root,
        key,
        ocra_key,
        digits,
        request: bytes,
        signature,
        receipt,
        bundle,
        joint_bundle,
    }
}

/// The same payment, confirmed with a signing card and a joint password.
fn jointly(
    provider: &Provider,
    rng: &mut dyn CryptoRng,
    key: &dyn SecureElement,
    mut evidence: Evidence,
) -> Evidence {
    let password = JointPassword::random(rng).expect("a password");
    let shared = Secret::new(vec![7; joint::SHARED_LEN]);
    let to = SealTo { server_point: &[], shared: &shared };
    let request = &evidence.request;
    let made = joint::commit(provider, rng, Form::Digest, "SD-1", request, &password, &to);
    let commitment = made.expect("it commits");
    let signature = joint::sign(key, rng, &*provider.hash, request, &commitment);
    let answer = &mut evidence.answers[0];
    answer.method = Method::Joint;
    answer.signature = Some(signature.expect("it signs"));
    answer.commitment = Some(commitment.as_bytes().to_vec());
    evidence
}

/// All that the server knows about the payment of which the receipt says `said`.
fn evidence_of(
    request: &[u8],
    said: Receipt,
    answer: Answer,
    certificate_number: String,
    receipt: String,
) -> Evidence {
    let paid = Posting {
        id: said.posting,
        kind: evidence::KIND_PAYMENT.into(),
        debit_account: said.payer_account,
        credit_account: said.payee_account,
        amount: said.amount,
        at: after(20),
    };
    let revocation = evidence::Revocation {
        certificate_number,
        revoked_at: None,
        reason: None,
        stated_at: after(40),
    };
    Evidence {
        payment: said.payment,
        end_to_end_id: said.end_to_end_id,
        state: State::Executed,
        request: request.to_vec(),
        answers: vec![answer],
        revocation: Some(revocation),
        timeline: timeline(),
        postings: vec![paid],
        receipt: Some(receipt),
        made_at: after(60),
    }
}

fn timeline() -> Vec<Event> {
    let states = [
        (State::Created, 1),
        (State::Pending, 1),
        (State::Approved, 20),
        (State::Executing, 20),
        (State::Executed, 20),
    ];
    let events = states.into_iter().zip(1..).map(|((state, second), number)| Event {
        number,
        state,
        actor: "opr_1".into(),
        reason: None,
        at: after(second),
    });
    events.collect()
}

/// The first byte says what the others are: a request, edits of a genuine one, a text, an OCRA
/// suite, a walk of the machine, an amount and an account. What is read is written again, what is
/// altered is not confirmed any more, and a payment that has ended stays so.
pub fn payment(data: &[u8]) {
    let mut script = Script::new(data);
    match script.byte() % 6 {
        0 => one_request(script.rest()),
        1 => altered_request(&mut script),
        2 => one_text(&mut script),
        3 => one_suite(&mut script),
        4 => walk(&mut script),
        _ => numbers(&mut script),
    }
}

fn one_request(bytes: &[u8]) {
    let Ok(read) = ConfirmationRequest::parse(bytes) else { return };
    assert!(bytes.len() <= REQUEST_MAX);
    assert_eq!(read.to_bytes().as_deref(), Ok(bytes), "one form");
    let lines = read.lines();
    assert!(lines[0].text.ends_with(read.amount.currency().code()), "the amount first");
    assert!(lines.iter().all(|line| !line.text.chars().any(char::is_control)), "what is shown");
    let key = Secret::new(vec![7; ocra::PAYMENT_KEY_LEN]);
    let digits = ocra::respond(&key, bytes).expect("it is a request");
    assert!(digits.len() == ocra::PAYMENT_DIGITS && ocra::verify(&key, bytes, &digits));
}

fn altered_request(script: &mut Script<'_>) {
    let genuine = genuine(script.byte() & 1 == 1);
    let mut altered = genuine.request.clone();
    if !script.edit(&mut altered) {
        return;
    }
    if let Ok(read) = ConfirmationRequest::parse(&altered) {
        assert_ne!(read, request(), "another form of the same request");
    }
    assert!(!genuine.confirms(&altered, &genuine.signature), "signed, but altered");
    assert!(!ocra::verify(&genuine.ocra_key, &altered, &genuine.digits), "answered, but altered");
    let mut signature = genuine.signature.clone();
    signature.truncate(altered.len() % 80);
    assert!(signature == genuine.signature || !genuine.confirms(&genuine.request, &signature));
}

fn one_text(script: &mut Script<'_>) {
    let Ok(order) = std::str::from_utf8(script.rest()) else { return };
    let accepted = text::check("order", order, ORDER_MAX).is_ok();
    let with = ConfirmationRequest { order: order.into(), ..request() };
    let written = with.to_bytes();
    assert_eq!(written.is_ok(), accepted, "one rule");
    if let Ok(bytes) = written {
        assert!(order.chars().count() <= ORDER_MAX && !order.chars().any(char::is_control));
        assert_eq!(ConfirmationRequest::parse(&bytes), Ok(with));
    }
}

fn one_suite(script: &mut Script<'_>) {
    let (name, question, answer) = (script.short(), script.short(), script.short());
    let [name, question, answer] = [name, question, answer].map(String::from_utf8_lossy);
    let Ok(suite) = ocra::Suite::parse(&name) else { return };
    assert_eq!(suite.name(), name);
    let (key, pin) = (Secret::new(vec![7; 20]), Secret::copied_from(b"1234"));
    let session = script.short();
    // Every choice of inputs: at most one of them is the suite's.
    let mut answers = 0;
    for inputs in 0..16_u8 {
        let has = |bit: u8| inputs & bit != 0;
        let data = ocra::Data {
            counter: has(1).then_some(u64::MAX),
            question: &[&question],
            pin: has(2).then_some(&pin),
            session: has(4).then_some(session),
            time: has(8).then_some(NOW),
        };
        let Ok(wanted) = suite.answer(&key, &data) else { continue };
        answers += 1;
        assert_eq!(suite.verify(&key, &data, &wanted), Ok(true));
        assert_eq!(suite.verify(&key, &data, &answer), Ok(wanted == answer));
    }
    assert!(answers <= 1, "a suite has its inputs");
}

fn walk(script: &mut Script<'_>) {
    let mut payment =
        PaymentView { state: State::Pending, expires_at: after(100), wrong_answers: 0 };
    let (mut seconds, mut approvals) = (0, 0);
    while !script.is_empty() {
        let before = payment;
        seconds += u64::from(script.byte() % 32);
        let now = after(seconds);
        let decision: Decision = match script.byte() % 6 {
            0 => machine::approve(&payment, now, Ok(())),
            1 => machine::approve(&payment, now, Err(LedgerError::InsufficientFunds)),
            2 => machine::refuse_answer(&payment, now, 3),
            3 => machine::reject(&payment, now, RejectReason::NotMine),
            4 => machine::cancel(&payment, now, "by-initiator"),
            _ => machine::expire(&payment, now),
        };
        for step in &decision.steps {
            assert!(payment.state.may_become(step.state), "a change that is none");
            payment.state = step.state;
            approvals += u32::from(step.state == State::Approved);
        }
        payment.wrong_answers = decision.wrong_answers;
        assert_eq!(payment.state, decision.state(before.state));
        assert!(!before.state.is_terminal() || before == payment, "a terminal state left");
        assert!(payment.wrong_answers <= 3 && approvals <= 1);
        let in_time = now < before.expires_at;
        assert!(in_time || approvals == 0 || before.state.is_terminal(), "approved too late");
    }
}

fn numbers(script: &mut Script<'_>) {
    let (decimal, code) = (script.short(), script.short());
    let (decimal, code) = (String::from_utf8_lossy(decimal), String::from_utf8_lossy(code));
    if let Ok(amount) = Amount::parse(&decimal, &code) {
        assert_eq!(Amount::parse(&amount.decimal(), amount.currency().code()), Ok(amount));
        assert!(amount.decimal().starts_with(&*decimal) || decimal.len() > amount.decimal().len());
    }
    let number = String::from_utf8_lossy(script.rest());
    if let Ok(account) = AccountNumber::parse(&number) {
        assert_eq!(
            (account.as_str(), account.grouped().replace(' ', "").as_str()),
            (&*number, &*number)
        );
    }
}

/// The first byte says what the others are: bit 0 SM2; bits 1 and 2 edits of a genuine bundle, a
/// whole bundle, edits of a genuine receipt, a whole receipt; bit 3 the bundle of a joint password.
/// What was altered proves nothing.
pub fn evidence(data: &[u8]) {
    let mut script = Script::new(data);
    let setting = script.byte();
    let genuine = genuine(setting & 1 == 1);
    match setting >> 1 & 3 {
        0 => {
            let original = match setting & 8 {
                0 => &genuine.bundle,
                _ => &genuine.joint_bundle,
            };
            let mut altered = original.clone();
            if script.edit(&mut altered) && evidence::verify(&altered, &genuine.root).is_good() {
                // White space may be anywhere between members.
                let json = |bytes| serde_json::from_slice::<serde_json::Value>(bytes).ok();
                assert_eq!(json(&altered), json(original), "altered, and proven");
            }
        }
        1 => {
            let report = evidence::verify(script.rest(), &genuine.root);
            assert!(!report.is_good() && !report.checks.is_empty(), "nobody signed that");
        }
        2 => {
            let mut altered = genuine.receipt.clone().into_bytes();
            let altered_at_all = script.edit(&mut altered);
            let altered = String::from_utf8_lossy(&altered);
            let read = receipt::verify(&altered, &genuine.root);
            assert_eq!(read.is_ok(), !altered_at_all, "an altered receipt");
        }
        _ => {
            let text = String::from_utf8_lossy(script.rest());
            assert!(receipt::verify(&text, &genuine.root).is_err(), "nobody signed that");
        }
    }
}
