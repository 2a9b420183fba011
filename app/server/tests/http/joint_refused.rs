//! What is wrong with what a terminal brings of a signing card is told nobody but the audit (B8).

use std::sync::atomic::{AtomicU32, Ordering};

use countersign_payment::joint::{Form, JointPassword};
use countersign_service::{PaymentPolicy, Policy};
use countersign_store::{AuditOutcome, Role, StoreError};
use data_encoding::BASE64URL_NOPAD;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use testkit::rng::seeded;

use crate::bank::Bank;
use crate::cards::{Card, Made, card_from, enrolment};
use crate::world::{Answer, World, provider};

/// A refusal's whole body, but for the request's id and the incident's.
fn plain(answer: &Answer) -> (Value, String) {
    answer.assert_check(422, "authorisation-refused");
    let mut body = answer.json();
    let detail = body["detail"].as_str().unwrap().to_owned();
    let (before, after) = detail.split_once("inc_").unwrap_or_else(|| panic!("{detail}"));
    let end = after.find(')').unwrap();
    let incident = format!("inc_{}", &after[..end]);
    body["detail"] = format!("{before}*{}", &after[end..]).into();
    assert_eq!(body["requestId"], answer.header("x-request-id"));
    body["requestId"] = json!("*");
    (body, incident)
}

/// What the audit has under an incident: its one refusal's check and detail.
async fn under(bank: &Bank, incident: &str) -> (String, Value) {
    let rows = bank.world.service.audit_page(None, 200).await.unwrap().items;
    let mut rows = rows.into_iter().map(|row| row.entry).filter(|entry| {
        entry.incident.as_deref() == Some(incident) && entry.action == "payment.answer"
    });
    let (row, more) = (rows.next().unwrap(), rows.next());
    assert_eq!((row.outcome, more), (AuditOutcome::Refused, None));
    (row.check.unwrap(), serde_json::from_str(&row.detail).unwrap())
}

/// A joint password that nobody drew for anything.
fn guess() -> String {
    JointPassword::random(&mut seeded(u64::MAX)).unwrap().digits().to_owned()
}

/// With one bit of the bytes in a member turned.
fn flipped(made: &Made, member: &str, at: usize) -> Value {
    let text = made.body()[member].as_str().unwrap().to_owned();
    let mut bytes = BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
    let at = at.min(bytes.len() - 1);
    bytes[at] ^= 1;
    made.with(member, BASE64URL_NOPAD.encode(&bytes))
}

/// The members of another answer in this one.
fn with_of(made: &Made, members: &[&str], other: &Made) -> Value {
    let mut body = made.body();
    for member in members {
        body[*member] = other.body()[*member].clone();
    }
    body
}

struct Stage {
    bank: Bank,
    /// The payer's.
    card: Card,
    /// The payer's second.
    second: Card,
    /// Of another account.
    foreign: Card,
}

impl Stage {
    async fn new(policy: Policy) -> Self {
        let bank = Bank::on(World::with_policy(policy).await).await;
        let card = bank.card("CARD-1", "PAYER0001").await;
        let second = bank.card("CARD-2", "PAYER0001").await;
        let foreign = bank.card("CARD-9", "SHOP0001").await;
        Self { bank, card, second, foreign }
    }

    /// Brings what `wrong` makes for a payment of its own, and returns how it was refused. Nothing
    /// is paid, and the right answer is taken afterwards.
    async fn refused(
        &self,
        form: Form,
        name: &str,
        wrong: impl Fn(&Self, Form, &[u8]) -> Value,
    ) -> (Value, String) {
        let key = format!("k-{name}-{}", form.name()).replace(' ', "-");
        let (id, transaction) = self.bank.transacted(&key).await;
        let before = self.bank.balance("PAYER0001").await;
        let body = wrong(self, form, &transaction);
        let answer = self.bank.submit(&id, &body).await;
        let (told, incident) = plain(&answer);
        let again = self.bank.submit(&id, &body).await;
        assert_eq!(plain(&again), (told.clone(), incident.clone()), "{name}: the same again");
        assert_eq!(self.bank.balance("PAYER0001").await, before, "{name}");
        let (check, detail) = under(&self.bank, &incident).await;
        assert_eq!(detail["wrongAnswers"], 1, "{name}: the same again counts once");
        let right = self.card.signed(Form::SealedRandom, &transaction);
        let right = self.bank.submit(&id, &right.body()).await.json();
        assert_eq!(right["status"], "executed", "{name}: {right}");
        (told, check)
    }
}

#[tokio::test]
async fn everything_that_is_wrong_looks_alike_and_the_audit_has_the_check() {
    type Wrong = fn(&Stage, Form, &[u8]) -> Value;
    let stage = Stage::new(Policy::default()).await;
    let payer = stage.bank.payer("KEY-1", "PAYER0001").await;
    assert_eq!(payer.serial, "KEY-1");
    let cases: &[(&str, &str, Wrong)] = &[
        ("a joint password that is wrong", "joint-password", |stage, form, transaction| {
            let made = stage.card.signed(form, transaction);
            made.with("jointPassword", guess())
        }),
        ("the old one of the same transaction", "joint-password", |stage, form, transaction| {
            let old = stage.card.signed(form, transaction).password;
            stage.card.signed(form, transaction).with("jointPassword", old)
        }),
        ("another card's", "joint-password", |stage, form, transaction| {
            let foreign = stage.second.signed(form, transaction).password;
            stage.card.signed(form, transaction).with("jointPassword", foreign)
        }),
        ("a transaction altered after signing", "joint-transaction", |stage, form, transaction| {
            let made = stage.card.signed(form, transaction);
            made.with("transaction", altered(transaction))
        }),
        ("an altered one that the card signed", "joint-transaction", |stage, form, transaction| {
            let bytes = BASE64URL_NOPAD.decode(altered(transaction).as_bytes()).unwrap();
            stage.card.signed(form, &bytes).body()
        }),
        ("that, under the stored bytes", "answer-signature", |stage, form, transaction| {
            let bytes = BASE64URL_NOPAD.decode(altered(transaction).as_bytes()).unwrap();
            let made = stage.card.signed(form, &bytes);
            made.with("transaction", BASE64URL_NOPAD.encode(transaction))
        }),
        ("a signature with a bit turned", "answer-signature", |stage, form, transaction| {
            flipped(&stage.card.signed(form, transaction), "signature", 20)
        }),
        ("a commitment with a bit turned", "answer-signature", |stage, form, transaction| {
            flipped(&stage.card.signed(form, transaction), "commitment", usize::MAX)
        }),
        ("another card's signature", "answer-signature", |stage, form, transaction| {
            let (made, other) =
                (stage.card.signed(form, transaction), stage.second.signed(form, transaction));
            with_of(&made, &["signature"], &other)
        }),
        ("all of another card's", "answer-signature", |stage, form, transaction| {
            let (made, other) =
                (stage.card.signed(form, transaction), stage.second.signed(form, transaction));
            with_of(&made, &["signature", "commitment", "jointPassword"], &other)
        }),
        ("an earlier commitment", "answer-signature", |stage, form, transaction| {
            let (made, old) =
                (stage.card.signed(form, transaction), stage.card.signed(form, transaction));
            with_of(&made, &["commitment", "jointPassword"], &old)
        }),
        ("a card of another account", "device-not-bound", |stage, form, transaction| {
            stage.foreign.signed(form, transaction).body()
        }),
        ("a card that nobody knows", "device-unknown", |stage, form, transaction| {
            stage.card.signed(form, transaction).with("deviceSerial", "CARD-8")
        }),
        ("a device of another method", "method", |stage, form, transaction| {
            stage.card.signed(form, transaction).with("deviceSerial", "KEY-1")
        }),
    ];
    let mut looks = Vec::new();
    for form in [Form::Sealed, Form::SealedRandom, Form::Digest] {
        for (name, check, wrong) in cases {
            let (told, found) = stage.refused(form, name, wrong).await;
            assert_eq!(found, *check, "{name}, {}", form.name());
            looks.push(told);
        }
    }
    looks.dedup();
    assert_eq!(looks.len(), 1, "{looks:?}");
    // Terminals can block nobody's device.
    for serial in ["KEY-1", "CARD-9"] {
        let found = stage.bank.world.get(&format!("/v1/devices?serial={serial}")).await.json();
        let device = &found["items"][0];
        assert_eq!((&device["failures"], &device["status"]), (&json!(0), &json!("enrolled")));
    }
}

/// The transaction with another amount.
fn altered(transaction: &[u8]) -> String {
    let text = std::str::from_utf8(transaction).unwrap();
    let other = text.replace("12.34", "12.35");
    assert_ne!(text, other);
    BASE64URL_NOPAD.encode(other.as_bytes())
}

/// The answer of one payment does not fit another, not even one with the same order.
#[tokio::test]
async fn an_answer_settles_no_other_payment() {
    let stage = Stage::new(Policy::default()).await;
    let bank = &stage.bank;
    let (first, transaction) = bank.transacted("k-1").await;
    let (second, _) = bank.transacted("k-2").await;
    let made = stage.card.signed(Form::SealedRandom, &transaction);
    assert_eq!(bank.submit(&first, &made.body()).await.json()["status"], "executed");
    let (_, incident) = plain(&bank.submit(&second, &made.body()).await);
    assert_eq!(under(bank, &incident).await.0, "joint-transaction");
    let stored = made.with("transaction", BASE64URL_NOPAD.encode(&bank.transaction(&second).await));
    let (_, incident) = plain(&bank.submit(&second, &stored).await);
    assert_eq!(under(bank, &incident).await.0, "answer-signature");
    assert_eq!(bank.balance("PAYER0001").await, "987.66");
}

#[tokio::test]
async fn a_form_that_was_not_announced_is_refused_like_anything_else() {
    let payments =
        PaymentPolicy { joint_forms: vec![Form::Digest, Form::Sealed], ..PaymentPolicy::default() };
    let stage = Stage::new(Policy { payments, ..Policy::default() }).await;
    let (id, transaction) = stage.bank.transacted("k-1").await;
    let terms = stage.bank.joint_terms(&stage.bank.till, &id).await.json();
    assert_eq!(terms["forms"], json!(["digest", "sealed"]));
    let made = stage.card.signed(Form::SealedRandom, &transaction);
    let (not_announced, incident) = plain(&stage.bank.submit(&id, &made.body()).await);
    assert_eq!(under(&stage.bank, &incident).await.0, "joint-form");
    let made = stage.card.signed(Form::Digest, &transaction);
    let (wrong, incident) =
        plain(&stage.bank.submit(&id, &made.with("jointPassword", guess())).await);
    assert_eq!(under(&stage.bank, &incident).await.0, "joint-password");
    assert_eq!(not_announced, wrong);
    assert_eq!(stage.bank.submit(&id, &made.body()).await.json()["status"], "executed");
}

/// Blocked, revoked, taken away: as good as unknown, and right again once it is lifted.
#[tokio::test]
async fn a_card_is_asked_for_its_state_when_it_is_brought() {
    let stage = Stage::new(Policy::default()).await;
    let (bank, card) = (&stage.bank, &stage.card);
    let reason = json!({ "reason": "lost" });
    let accounts = json!({ "accounts": ["PAYER0001"] });
    let account = json!({ "account": "PAYER0001" });
    let mut looks = Vec::new();
    for (step, body, check, undo) in [
        ("block", &reason, "device-blocked", Some(("unblock", json!({})))),
        ("unbind", &account, "device-not-bound", Some(("bind", accounts))),
        ("revoke", &reason, "certificate-revoked", None),
    ] {
        let (id, transaction) = bank.transacted(step).await;
        let made = card.signed(Form::Digest, &transaction);
        let path = format!("/v1/devices/{}", card.device);
        let changed = bank.world.post(&format!("{path}/{step}"), body).await;
        assert_eq!(changed.status, 200, "{changed:?}");
        let (told, incident) = plain(&bank.submit(&id, &made.body()).await);
        assert_eq!(under(bank, &incident).await.0, check, "{step}");
        looks.push(told);
        let Some((step, body)) = undo else { continue };
        let changed = bank.world.post(&format!("{path}/{step}"), &body).await;
        assert_eq!(changed.status, 200, "{changed:?}");
        let later = card.signed(Form::Digest, &transaction);
        assert_eq!(bank.submit(&id, &later.body()).await.json()["status"], "executed");
    }
    looks.dedup();
    assert_eq!(looks.len(), 1, "{looks:?}");
}

/// A server that died between certificate and shared key leaves a card that confirms nothing, and
/// that enrols again.
#[tokio::test]
async fn a_card_without_its_shared_key_confirms_nothing_until_it_has_another() {
    let stage = Stage::new(Policy::default()).await;
    let (bank, id) = (&stage.bank, stage.card.device.clone());
    let (payment, transaction) = bank.transacted("k-1").await;
    let store = bank.world.service.store();
    let erased: Result<_, StoreError> =
        store.run_tx("test_erase", move |tx| tx.erase_joint_key(&id)).await;
    assert!(erased.unwrap());
    for form in [Form::Sealed, Form::Digest] {
        let made = stage.card.signed(form, &transaction);
        let (_, incident) = plain(&bank.submit(&payment, &made.body()).await);
        assert_eq!(under(bank, &incident).await.0, "device-revoked");
    }
    let body = enrolment(&provider(), "CARD-1", &["PAYER0001"]);
    let again = bank.world.post("/v1/devices/joint", &body).await;
    assert_eq!(again.status, 200, "{again:?}");
    let made = card_from(provider(), &again.json()).signed(Form::Digest, &transaction);
    assert_eq!(bank.submit(&payment, &made.body()).await.json()["status"], "executed");
}

/// Who asks for payments learns that an answer was refused and under which incident; whose device
/// it was, and whether there is one, only operators who see all payments are told.
#[tokio::test]
async fn a_refused_answer_does_not_say_whose_device_it_was() {
    let stage = Stage::new(Policy::default()).await;
    let bank = &stage.bank;
    let (id, transaction) = bank.transacted("k-1").await;
    let known = stage.foreign.signed(Form::Sealed, &transaction).body();
    let unknown = stage.foreign.signed(Form::Sealed, &transaction).with("deviceSerial", "CARD-8");
    let mut told = Vec::new();
    for body in [&known, &unknown] {
        told.push(plain(&bank.submit(&id, body).await));
    }
    let path = format!("/v1/payments/{id}/authorisations");
    let seen = bank.world.get_with(&bank.till, &path).await;
    let items = seen.json()["items"].clone();
    let of = |items: &Value, incident: &str| {
        let mut items = items.as_array().unwrap().iter();
        items.find(|item| item["incident"] == incident).unwrap().clone()
    };
    for (_, incident) in &told {
        let item = of(&items, incident);
        assert_eq!((&item["deviceId"], &item["phoneId"]), (&Value::Null, &Value::Null));
        assert_eq!(
            (&item["outcome"], &item["certificateNumber"]),
            (&json!("refused"), &Value::Null)
        );
        assert_eq!((&item["incident"], &item["method"]), (&json!(incident), &json!("joint")));
    }
    assert!(!seen.text.contains(&stage.foreign.device) && !seen.text.contains("failedCheck"));
    assert_eq!(told[0].0, told[1].0);
    let auditor = bank.world.token("audrey", &[Role::Auditor]).await;
    let all = bank.world.get_with(&auditor, &path).await.json();
    assert_eq!(of(&all["items"], &told[0].1)["deviceId"], stage.foreign.device);
    assert_eq!(of(&all["items"], &told[1].1)["deviceId"], Value::Null, "there is no such card");
}

/// A card whose signature is right and whose joint password is not was in the terminal: five in a
/// row block it. What did not verify says nothing of it.
#[tokio::test]
async fn only_what_a_card_signed_counts_against_the_card() {
    let stage = Stage::new(Policy::default()).await;
    let (bank, card) = (&stage.bank, &stage.card);
    let device = async || {
        let device = bank.world.get(&format!("/v1/devices/{}", card.device)).await.json();
        (device["failures"].clone(), device["status"].clone())
    };
    let forged = async |key: &str| {
        let (id, transaction) = bank.transacted(key).await;
        let made = card.signed(Form::Sealed, &transaction);
        plain(&bank.submit(&id, &flipped(&made, "signature", 20)).await);
    };
    for at in 0..6 {
        forged(&format!("forged-{at}")).await;
    }
    assert_eq!(device().await, (json!(0), json!("enrolled")), "nobody can block another's card");
    for at in 1..=5 {
        let (id, transaction) = bank.transacted(&format!("wrong-{at}")).await;
        let made = card.signed(Form::Sealed, &transaction);
        plain(&bank.submit(&id, &made.with("jointPassword", guess())).await);
        assert_eq!(device().await.0, at);
    }
    assert_eq!(device().await.1, "blocked");
}

/// What a terminal might make of a good answer: never a fault of the server, never money.
#[test]
fn no_altered_answer_makes_the_server_fail_or_pay() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stage = runtime.block_on(Stage::new(Policy::default()));
    let members = ["transaction", "commitment", "signature", "deviceSerial", "jointPassword"];
    let alteration = (0..members.len(), any::<usize>(), any::<u8>(), 0..4_u8);
    let strategy = (0..Form::ALL.len(), prop::collection::vec(alteration, 1..4));
    let mut runner = TestRunner::new(ProptestConfig::with_cases(150));
    let number = AtomicU32::new(0);
    let result = runner.run(&strategy, |(form, alterations)| {
        let key = format!("k-{}", number.fetch_add(1, Ordering::Relaxed));
        let (id, transaction) = runtime.block_on(stage.bank.transacted(&key));
        let good = stage.card.signed(Form::ALL[form], &transaction).body();
        let mut body = good.clone();
        for (member, at, value, how) in alterations {
            let member = members[member];
            let text = body[member].as_str().unwrap().to_owned();
            body[member] = alter(&text, at, value, how).into();
        }
        prop_assume!(body != good);
        let answer = runtime.block_on(stage.bank.submit(&id, &body));
        let check = answer.json()["check"].as_str().unwrap_or_default().to_owned();
        let refused = ["answer-format", "authorisation-refused", "body"].contains(&&*check);
        prop_assert!(refused, "{answer:?}");
        Ok(())
    });
    result.unwrap();
    assert_eq!(runtime.block_on(stage.bank.balance("PAYER0001")), "1000.00");
}

/// A text that is not the one it was: a character exchanged, cut off, put in, or doubled.
fn alter(text: &str, at: usize, value: u8, how: u8) -> String {
    // No hyphen: a joint password that has one more is the same.
    const LETTERS: &[u8] = b"ABCxyz0189_";
    let mut bytes = text.as_bytes().to_vec();
    let at = at % bytes.len().max(1);
    let letter = LETTERS[usize::from(value) % LETTERS.len()];
    match how {
        0 if !bytes.is_empty() => bytes[at] = letter,
        1 => bytes.truncate(at),
        2 => bytes.insert(at, letter),
        _ => bytes.extend_from_within(at.min(bytes.len())..),
    }
    String::from_utf8(bytes).unwrap()
}
