//! What is wrong with what a terminal brings of a signing card, and what that does (B8).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use countersign_crypto::{Secret, aws_lc};
use countersign_payment::joint::{Commitment, Form};
use countersign_payment::{Amount, ConfirmationRequest};
use countersign_pki::Role;
use countersign_service::{Actor, JointAnswer, PaymentAnswer, PaymentPolicy, Policy, ServiceError};
use countersign_store::{DeviceStatus, PaymentRecord, Role as OperatorRole};
use tokio::runtime::Handle;

use crate::answers::{DAY, plant};
use crate::bank::{Bank, House, Place, START, check, rng};
use crate::card::{Brought, Card};
use crate::counted::CountedVault;

/// As many wrong answers as a policy may allow.
async fn lenient(place: Place) -> Bank {
    let policy = PaymentPolicy { wrong_answers_max: 5, ..PaymentPolicy::default() };
    Bank::with(place, aws_lc::provider(), Policy { payments: policy, ..Policy::default() }).await
}

pub(crate) async fn slips_count_for_nothing(place: Place) {
    let bank = Bank::new(place).await;
    let card = Card::enrol(&bank, "SC-1", &["PAYER1"]).await;
    let record = bank.pending("5.00").await;
    let id = &record.payment.id;
    let brought = card.sign(&bank, &record, Form::SealedRandom);
    let typed = |text: &str| {
        let password = Secret::copied_from(text.as_bytes());
        JointAnswer { password, ..brought.answer() }
    };
    let digits = &brought.password;
    let mut slips = Vec::new();
    // Each wrong digit is found by the check digit.
    for place in 0..9 {
        for by in 1..10 {
            let mut other = digits.clone().into_bytes();
            other[place] = b'0' + (other[place] - b'0' + by) % 10;
            slips.push(typed(std::str::from_utf8(&other).unwrap()));
        }
    }
    let wide: String = digits.chars().map(|c| char::from_u32(c as u32 + 0xfee0).unwrap()).collect();
    for text in ["", " ", &digits[1..], &digits[..8], &format!("{digits}0"), "12345678x", &wide] {
        slips.push(typed(text));
    }
    slips.push(typed(&" ".repeat(10_000)));
    let of = |change: fn(&mut JointAnswer)| {
        let mut answer = brought.answer();
        change(&mut answer);
        answer
    };
    slips.extend([
        of(|answer| answer.password = Secret::copied_from(&[0xff; 9])),
        of(|answer| answer.device_serial.clear()),
        of(|answer| answer.device_serial = "SC 1".into()),
        of(|answer| answer.device_serial = "S".repeat(65)),
        of(|answer| answer.transaction.clear()),
        of(|answer| answer.transaction = vec![b'x'; 4097]),
        of(|answer| answer.commitment.clear()),
        of(|answer| answer.commitment = vec![1; 257]),
        of(|answer| answer.commitment[0] = 0),
        of(|answer| answer.commitment[0] = 4),
        of(|answer| answer.commitment.truncate(20)),
        of(|answer| answer.signature.clear()),
        of(|answer| answer.signature = vec![0x30; 81]),
    ]);
    for (number, slip) in slips.into_iter().enumerate() {
        let refused = bank.service.answer_joint(&bank.shop, id, slip).await;
        assert_eq!(check(refused), "answer-format", "{number}");
    }
    assert_eq!(bank.payment(id).await.payment.wrong_answers, 0);
    assert_eq!(bank.service.payment_authorisations(&bank.admin, id).await.unwrap(), []);
    assert_eq!(bank.failures(&card).await, 0);
    bank.bring(&record, &brought).await.unwrap();
}

/// Cards, of which the first two may confirm the payer's payments.
struct Cards {
    card: Card,
    second: Card,
    unbound: Card,
    blocked: Card,
    revoked: Card,
}

impl Cards {
    async fn enrol(bank: &Bank) -> Self {
        let blocked = Card::enrol(bank, "SC-4", &["PAYER1"]).await;
        bank.service.block_signer(&bank.admin, &blocked.id, "lost").await.unwrap();
        let revoked = Card::enrol(bank, "SC-5", &["PAYER1"]).await;
        bank.service.revoke_signer(&bank.admin, &revoked.id, "lost").await.unwrap();
        Self {
            card: Card::enrol(bank, "SC-1", &["PAYER1"]).await,
            second: Card::enrol(bank, "SC-2", &["PAYER1"]).await,
            unbound: Card::enrol(bank, "SC-3", &["PAYEE1"]).await,
            blocked,
            revoked,
        }
    }

    /// Everything that can be wrong, by the check that finds it.
    fn wrong(&self, bank: &Bank, record: &PaymentRecord) -> Vec<(&'static str, Brought)> {
        let Self { card, second, unbound, blocked, revoked } = self;
        let form = Form::SealedRandom;
        let sign = |card: &Card| card.sign(bank, record, form);
        let as_of = |serial: &str, card| Brought { serial: serial.to_owned(), ..sign(card) };
        let request = &record.payment.request;
        let longer = Brought { transaction: [request, b" ".as_slice()].concat(), ..sign(card) };
        let for_a_phone = countersign_payment::sign(&*card.key, &mut rng(), request).unwrap();
        vec![
            ("joint-form", card.sign(bank, record, Form::Sealed)),
            ("joint-transaction", altered(bank, card, record)),
            ("joint-transaction", longer),
            ("device-unknown", as_of("SC-9", card)),
            ("device-not-bound", sign(unbound)),
            ("device-blocked", sign(blocked)),
            ("certificate-revoked", sign(revoked)),
            // Devices that sign otherwise.
            ("method", as_of("SD-1", card)),
            ("method", as_of("TK-1", card)),
            // Another card's; one of the same key for a phone; one over another commitment.
            ("answer-signature", as_of("SC-1", second)),
            ("answer-signature", Brought { signature: for_a_phone, ..sign(card) }),
            ("answer-signature", Brought { commitment: sign(card).commitment, ..sign(card) }),
            ("joint-password", sign(card).guessed(0)),
            ("joint-password", card.sign(bank, record, Form::Digest).guessed(0)),
        ]
    }
}

/// One error outside, whatever is wrong; which, only the audit says.
pub(crate) async fn everything_else_is_refused_alike(place: Place) {
    let joint_forms = vec![Form::SealedRandom, Form::Digest];
    let policy = PaymentPolicy { joint_forms, ..PaymentPolicy::default() };
    let policy = Policy { payments: policy, ..Policy::default() };
    let bank = Bank::with(place, aws_lc::provider(), policy).await;
    bank.token("TK-1", &["PAYER1"]).await;
    let cards = Cards::enrol(&bank).await;
    let count = cards.wrong(&bank, &bank.pending("5.00").await).len();
    let mut told = std::collections::BTreeSet::new();
    for number in 0..count {
        let record = bank.pending("5.00").await;
        let (expected, brought) = cards.wrong(&bank, &record).swap_remove(number);
        let error = bank.bring(&record, &brought).await.unwrap_err();
        assert_eq!(bank.incident(&error).await, expected);
        let ServiceError::AuthorisationRefused { incident } = &error else { panic!("{error:?}") };
        told.insert((error.check(), error.to_string().replace(incident, "")));
        let id = &record.payment.id;
        assert_eq!(bank.states(id).await, ["created", "pending"]);
        assert_eq!(bank.payment(id).await.payment.wrong_answers, 1);
        // Nor does the initiator read it.
        let seen = bank.service.payment_authorisations(&bank.shop, id).await.unwrap();
        assert_eq!((&seen[0].failed_check, &seen[0].device_id), (&None, &None), "{expected}");
        // What is right still counts.
        let right = cards.second.sign(&bank, &record, Form::SealedRandom);
        bank.bring(&record, &right).await.unwrap();
    }
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(bank.balance("PAYEE1").await, i64::try_from(count).unwrap() * 500);
    for card in [&cards.second, &cards.unbound, &cards.blocked, &cards.revoked] {
        assert_eq!(bank.failures(card).await, 0);
    }
    assert_eq!(bank.failures(&cards.card).await, 2, "the wrong passwords, and nothing else");
    assert_eq!(bank.service.signer(&bank.device.id).await.unwrap().signer.failures, 0);
    bank.in_order().await;
}

/// A card's certificate and its shared key count as they are when the answer comes.
pub(crate) async fn a_cards_certificate_is_verified_to_the_root(place: Place) {
    let bank = Bank::new(place).await;
    let card = Card::enrol(&bank, "SC-1", &["PAYER1"]).await;
    let form = Form::SealedRandom;
    // The shared key was erased, and the certificate was not: a fault, and told alike.
    let id = card.id.clone();
    bank.tx(move |tx| tx.erase_joint_key(&id).map(drop)).await;
    let record = bank.pending("5.00").await;
    let brought = card.sign(&bank, &record, form);
    assert_eq!(bank.why_not(&record, &brought).await, "device-revoked");
    let card = card.enrol_again(&bank).await;
    bank.bring(&record, &card.sign(&bank, &record, form)).await.unwrap();
    // Another's certificates.
    let (mut own, mut foreign) = (bank.house(), House::new(aws_lc::provider(), 8));
    for (certificate, expected) in [
        (foreign.certify(Role::SecurityDevice, "SC-1", &*card.key, DAY), "certificate-issuer"),
        (own.certify(Role::Terminal, "SC-1", &*card.key, DAY), "certificate-role"),
        (own.certify(Role::SecurityDevice, "SC-2", &*card.key, DAY), "certificate-identity"),
    ] {
        let (der, number) = certificate;
        plant(&bank, &card.id, (der, number.to_string()), 10).await;
        let record = bank.pending("5.00").await;
        let brought = card.sign(&bank, &record, form);
        assert_eq!(bank.why_not(&record, &brought).await, expected);
    }
    let (der, number) = own.certify(Role::SecurityDevice, "SC-1", &*card.key, DAY);
    plant(&bank, &card.id, (der, number.to_string()), 1).await;
    let record = bank.pending("5.00").await;
    bank.bring(&record, &card.sign(&bank, &record, form)).await.unwrap();
    // Time ends it.
    bank.set_clock(START.plus(DAY));
    let record = bank.pending("5.00").await;
    let brought = card.sign(&bank, &record, form);
    assert_eq!(bank.why_not(&record, &brought).await, "certificate-expired");
    assert_eq!(bank.failures(&card).await, 0);
    bank.in_order().await;
}

/// A terminal that has the card sign another request than the server's: all of it is genuine, and
/// it is for something else.
fn altered(bank: &Bank, card: &Card, record: &PaymentRecord) -> Brought {
    let mut request = ConfirmationRequest::parse(&record.payment.request).unwrap();
    request.amount = Amount::parse("0.01", "CNY").unwrap();
    card.sign_bytes(bank.provider(), &request.to_bytes().unwrap(), Form::Digest)
}

/// A commitment, its signature and its password hold together, for one transaction.
pub(crate) async fn joint_passwords_belong_to_one_signing(place: Place) {
    let bank = Bank::new(place).await;
    let card = Card::enrol(&bank, "SC-1", &["PAYER1"]).await;
    let foreign = Card::enrol(&bank, "SC-2", &["PAYER1"]).await;
    for (round, form) in (1..).zip(Form::ALL) {
        let (record, other) = (bank.pending("5.00").await, bank.pending("5.00").await);
        let old = card.sign(&bank, &record, form);
        let new = card.sign(&bank, &record, form);
        let elsewhere = card.sign(&bank, &other, form);
        // The password of an earlier signing of the same bytes, or of another payment.
        for password in [&old.password, &elsewhere.password] {
            let mixed = Brought { password: password.clone(), ..new.clone() };
            assert_eq!(bank.why_not(&record, &mixed).await, "joint-password", "{form:?}");
        }
        // All of it is the card's, for the payment that is not asked for.
        let moved = Brought { transaction: record.payment.request.clone(), ..elsewhere.clone() };
        assert_eq!(bank.why_not(&record, &moved).await, "answer-signature", "{form:?}");
        // Another card's commitment, which this card was made to sign: bound to its serial number.
        let record = bank.pending("5.00").await;
        let of_foreign = foreign.sign(&bank, &record, form);
        let commitment = Commitment::parse(&of_foreign.commitment).unwrap();
        let signature = card.sign_commitment(bank.provider(), &of_foreign.transaction, &commitment);
        let relayed = Brought { serial: "SC-1".into(), signature, ..of_foreign.clone() };
        let found = if form == Form::Digest { "joint-password" } else { "joint-sealed" };
        assert_eq!(bank.why_not(&record, &relayed).await, found, "{form:?}");
        // As a whole each of them counts.
        bank.bring(&record, &of_foreign).await.unwrap();
        bank.bring(&other, &elsewhere).await.unwrap();
        assert_eq!(bank.balance("PAYEE1").await, round * 1000);
    }
    bank.in_order().await;
}

pub(crate) async fn a_joint_password_is_guessed_three_times_at_most(place: Place) {
    let bank = lenient(place).await;
    let card = Card::enrol(&bank, "SC-1", &["PAYER1"]).await;
    let record = bank.pending("5.00").await;
    let id = &record.payment.id;
    let brought = card.sign(&bank, &record, Form::Digest);
    for guess in 1..=3 {
        assert_eq!(bank.why_not(&record, &brought.guessed(guess)).await, "joint-password");
        assert_eq!(bank.payment(id).await.payment.wrong_answers, guess);
    }
    assert_eq!(bank.states(id).await, ["created", "pending", "failed"]);
    let failed = bank.payment(id).await.payment;
    assert_eq!(failed.reason.as_deref(), Some("too-many-wrong-answers"));
    assert_eq!(check(bank.bring(&record, &brought).await), "payment-failed");
    // Whatever else is wrong counts as well.
    let record = bank.pending("5.00").await;
    let brought = card.sign(&bank, &record, Form::Digest);
    let mut other = brought.clone();
    other.transaction.push(b' ');
    assert_eq!(bank.why_not(&record, &other).await, "joint-transaction");
    assert_eq!(bank.why_not(&record, &brought.guessed(1)).await, "joint-password");
    let unsigned = card.sign(&bank, &record, Form::Sealed).signature;
    let unsigned = Brought { signature: unsigned, ..brought.clone() };
    assert_eq!(bank.why_not(&record, &unsigned).await, "answer-signature");
    assert_eq!(check(bank.bring(&record, &brought).await), "payment-failed");
    // A phone's wrong answers go to the policy's end, and leave a card one try.
    bank.service.unblock_signer(&bank.admin, &card.id).await.unwrap();
    let (record, foreign) = (bank.pending("5.00").await, bank.pending("6.00").await);
    for _ in 0..4 {
        bank.answer(&record, bank.device.answer(&foreign)).await.unwrap_err();
    }
    let brought = card.sign(&bank, &record, Form::Digest);
    assert_eq!(bank.states(&record.payment.id).await, ["created", "pending"]);
    bank.bring(&record, &brought.guessed(1)).await.unwrap_err();
    assert_eq!(check(bank.bring(&record, &brought).await), "payment-failed");
    assert_eq!(bank.balance("PAYEE1").await, 0);
    bank.in_order().await;
}

/// However many come at once, at two servers: the right one among them counts only if it was among
/// the first three.
pub(crate) async fn guesses_at_once_are_three_at_most(place: Place) {
    let bank = lenient(place).await;
    let card = Card::enrol(&bank, "SC-1", &["PAYER1"]).await;
    let servers = [bank.service.clone(), bank.another().await];
    let record = bank.pending("5.00").await;
    let id = &record.payment.id;
    let brought = card.sign(&bank, &record, Form::Digest);
    let mut tasks = tokio::task::JoinSet::new();
    for guess in 0..40 {
        let (server, shop) = (servers[guess as usize % 2].clone(), bank.shop.clone());
        let (id, answer) = (id.clone(), brought.guessed(guess).answer());
        tasks.spawn(async move { server.answer_joint(&shop, &id, answer).await });
    }
    let mut told = std::collections::BTreeMap::new();
    while let Some(ended) = tasks.join_next().await {
        *told.entry(check(ended.unwrap())).or_insert(0) += 1;
    }
    assert_eq!(
        told.into_iter().collect::<Vec<_>>(),
        [("authorisation-refused", 3), ("payment-failed", 37)]
    );
    assert_eq!(bank.payment(id).await.payment.wrong_answers, 3);
    assert_eq!(bank.failures(&card).await, 3);
    assert_eq!(check(bank.bring(&record, &brought).await), "payment-failed");
    bank.in_order().await;
}

/// Who has had the card in a terminal can guess, and the card is blocked by it. Who has not cannot
/// have it blocked, however often it is named.
pub(crate) async fn a_card_is_blocked_by_wrong_passwords_only(place: Place) {
    let bank = Bank::new(place).await;
    let card = Card::enrol(&bank, "SC-1", &["PAYER1"]).await;
    let thief = Card { serial: "SC-1".into(), ..Card::enrol(&bank, "SC-7", &["PAYEE1"]).await };
    for round in 0..6 {
        let record = bank.pending("1.00").await;
        let forged = thief.sign(&bank, &record, Form::ALL[round % 3]);
        assert_eq!(bank.why_not(&record, &forged).await, "answer-signature");
        let mut signed = card.sign(&bank, &record, Form::ALL[round % 3]);
        signed.transaction.push(b' ');
        assert_eq!(bank.why_not(&record, &signed).await, "joint-transaction");
    }
    assert_eq!(bank.failures(&card).await, 0);
    let status = async || bank.service.signer(&card.id).await.unwrap().device.device.status;
    for count in 1..=5_u32 {
        let record = bank.pending("1.00").await;
        let brought = card.sign(&bank, &record, Form::Digest);
        assert_eq!(bank.why_not(&record, &brought.guessed(count)).await, "joint-password");
        assert_eq!(bank.failures(&card).await, count);
        let alerts = bank.events_of("security_device.alert").await.len();
        assert_eq!(alerts, if count < 3 { 0 } else { (count as usize).min(4) - 2 });
        assert_eq!(status().await == DeviceStatus::Blocked, count >= 5);
    }
    let told = bank.events_of("security_device.blocked").await;
    assert_eq!(told, std::slice::from_ref(&card.id));
    let record = bank.pending("1.00").await;
    let brought = card.sign(&bank, &record, Form::Digest);
    assert_eq!(bank.why_not(&record, &brought).await, "device-blocked");
    bank.service.unblock_signer(&bank.admin, &card.id).await.unwrap();
    // The very same answer is answered as before; a new signing counts.
    assert_eq!(bank.why_not(&record, &brought).await, "device-blocked");
    bank.bring(&record, &card.sign(&bank, &record, Form::Digest)).await.unwrap();
    assert_eq!(bank.failures(&card).await, 0);
    bank.in_order().await;
}

/// The server has another key than the one that a card seals to, or the card sealed what it should
/// not have: no password fits, also not the right one, and nobody typed a wrong one. The payment
/// counts it, the card is not blamed, and outside it is told like anything else.
pub(crate) async fn what_does_not_open_is_not_the_cards_fault(place: Place) {
    let bank = Bank::new(place).await;
    let card = Card::enrol(&bank, "SC-1", &["PAYER1"]).await;
    let before = bank.provider().sealing.generate(&mut rng()).unwrap().key;
    let server_point = before.public_key().to_vec();
    let to_the_old_key = Card { server_point, ..card.enrol_again(&bank).await };
    for round in 0..6 {
        let form = [Form::SealedRandom, Form::Sealed][round % 2];
        let record = bank.pending("1.00").await;
        let id = &record.payment.id;
        let brought = to_the_old_key.sign(&bank, &record, form);
        // The right one first, and two guesses: it does not depend on them.
        let mut told = std::collections::BTreeSet::new();
        for (count, answer) in (1..).zip([brought.clone(), brought.guessed(1), brought.guessed(2)])
        {
            let error = bank.bring(&record, &answer).await.unwrap_err();
            assert_eq!(bank.incident(&error).await, "joint-sealed", "{form:?}");
            let ServiceError::AuthorisationRefused { incident } = &error else { panic!() };
            told.insert((error.check(), error.to_string().replace(incident, "")));
            assert_eq!(bank.payment(id).await.payment.wrong_answers, count);
        }
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(bank.states(id).await, ["created", "pending", "failed"]);
    }
    assert_eq!(bank.failures(&to_the_old_key).await, 0);
    assert_eq!(bank.events_of("security_device.alert").await.len(), 0);
    assert_eq!(bank.events_of("security_device.blocked").await.len(), 0);
    // With the new key it pays again, and a wrong one is its own.
    let refreshed =
        Card { server_point: card.server_point.clone(), ..to_the_old_key.enrol_again(&bank).await };
    let record = bank.pending("1.00").await;
    let brought = refreshed.sign(&bank, &record, Form::SealedRandom);
    assert_eq!(bank.why_not(&record, &brought.guessed(1)).await, "joint-password");
    assert_eq!(bank.failures(&refreshed).await, 1);
    bank.bring(&record, &brought).await.unwrap();
    bank.in_order().await;
}

/// What cards seal to one server each server of its database opens: one with another key is noticed
/// before it serves, and does not become the one that counts.
pub(crate) async fn all_servers_have_one_encryption_key(place: Place) {
    let bank = Bank::new(place).await;
    let (same, other) = (bank.another().await, bank.with_another_key());
    assert!(bank.service.has_common_encryption_key().await.unwrap());
    for _ in 0..2 {
        assert!(!other.has_common_encryption_key().await.unwrap());
        assert!(same.has_common_encryption_key().await.unwrap());
    }
    // It could not have taken part.
    let card = Card::enrol(&bank, "SC-1", &["PAYER1"]).await;
    let record = bank.pending("1.00").await;
    let brought = card.sign(&bank, &record, Form::Sealed);
    let error = other.answer_joint(&bank.shop, &record.payment.id, brought.answer()).await;
    assert_eq!(bank.incident(&error.unwrap_err()).await, "joint-sealed");
    bank.in_order().await;
}

pub(crate) async fn a_payment_is_its_terminals(place: Place) {
    let bank = Bank::new(place).await;
    let service = &bank.service;
    let card = Card::enrol(&bank, "SC-1", &["PAYER1"]).await;
    let record = bank.pending("5.00").await;
    let id = record.payment.id.as_str();
    let brought = card.sign(&bank, &record, Form::SealedRandom);
    let integrator = service.add_operator(&bank.admin, "other", &[OperatorRole::Integrator]).await;
    let other = Actor::Operator(integrator.unwrap().0);
    let auditor = service.add_operator(&bank.admin, "eve", &[OperatorRole::Auditor]).await;
    let auditor = Actor::Operator(auditor.unwrap().0);
    // Right or wrong, another's payment is as none, and nothing is counted.
    for actor in [&other, &bank.admin] {
        for answer in [brought.answer(), brought.guessed(1).answer()] {
            assert_eq!(check(service.answer_joint(actor, id, answer).await), "not-found");
        }
    }
    let nowhere = "pay_00000000-0000-7000-8000-000000000000";
    let unknown = service.answer_joint(&bank.shop, nowhere, brought.answer()).await;
    assert_eq!(check(unknown), "not-found");
    assert_eq!(check(service.answer_joint(&auditor, id, brought.answer()).await), "scope");
    assert_eq!(bank.payment(id).await, record);
    assert_eq!(bank.failures(&card).await, 0);
    // The refusals are in the audit.
    let rows = bank.audit_of(id).await;
    let refused = rows.iter().filter(|row| row.entry.action == "payment.answer").count();
    assert_eq!(refused, 5);
    bank.bring(&record, &brought).await.unwrap();
    // Nor is another told how it ended, by the same bytes.
    assert_eq!(check(service.answer_joint(&other, id, brought.answer()).await), "not-found");
}

/// The card gets another shared key while an answer is verified under the one before: what was
/// verified counts for nothing, and it is verified anew.
pub(crate) async fn a_key_that_changed_meanwhile_verifies_nothing(place: Place) {
    let bank = Bank::new(place).await;
    let card = Card::enrol(&bank, "SC-1", &["PAYER1"]).await;
    let armed = Arc::new(AtomicBool::new(false));
    let (store, id, trigger) = (bank.store().clone(), card.id.clone(), armed.clone());
    let runtime = Handle::current();
    let block = {
        // A key that nobody has: the block of a second enrolment, put back for now.
        let first = bank.service.signer(&card.id).await.unwrap().signer.joint_key.unwrap();
        card.enrol_again(&bank).await;
        let second = bank.service.signer(&card.id).await.unwrap().signer.joint_key.unwrap();
        let device = card.id.clone();
        bank.tx(move |tx| tx.set_joint_key(&device, &first)).await;
        second
    };
    let replaced = block.clone();
    let meanwhile = Arc::new(move || {
        if trigger.swap(false, Ordering::SeqCst) {
            let (id, block) = (id.clone(), block.clone());
            let changed = store.run_tx::<_, countersign_store::StoreError, _>("test", move |tx| {
                tx.set_joint_key(&id, &block)
            });
            runtime.block_on(changed).unwrap();
        }
    });
    let service = bank.serve_with(|inner| {
        Arc::new(CountedVault { inner, cmacs: Arc::new(AtomicU64::new(0)), meanwhile })
    });
    // It works through this server, until then.
    let record = bank.pending("1.00").await;
    let brought = card.sign(&bank, &record, Form::Digest);
    service.answer_joint(&bank.shop, &record.payment.id, brought.answer()).await.unwrap();
    let record = bank.pending("1.00").await;
    let brought = card.sign(&bank, &record, Form::Digest);
    armed.store(true, Ordering::SeqCst);
    let error = service.answer_joint(&bank.shop, &record.payment.id, brought.answer()).await;
    assert!(!armed.load(Ordering::SeqCst), "it happened");
    assert_eq!(bank.incident(&error.unwrap_err()).await, "joint-password");
    let now = bank.service.signer(&card.id).await.unwrap().signer.joint_key;
    assert_eq!(now, Some(replaced));
    assert_eq!(bank.balance("PAYEE1").await, 100);
    bank.in_order().await;
}

/// A card's signature is none of a phone's devices, and no phone is offered a card.
pub(crate) async fn phones_bring_nothing_of_a_card(place: Place) {
    let bank = Bank::new(place).await;
    let card = Card::enrol(&bank, "SC-1", &["PAYER1"]).await;
    let record = bank.pending("1.00").await;
    let offered = bank.service.phone_devices(&bank.phone, &record.payment.id).await.unwrap();
    let serials: Vec<_> = offered.iter().map(|device| device.serial.as_str()).collect();
    assert_eq!(serials, ["SD-1"]);
    // Neither what it signed nor a plain signature of its key, nor digits.
    let brought = card.sign(&bank, &record, Form::Sealed);
    let plain = bank.device.answer(&record);
    let PaymentAnswer::Pki { signature: plain, .. } = plain else { panic!("{plain:?}") };
    for answer in [
        PaymentAnswer::Pki { device_serial: "SC-1".into(), signature: brought.signature.clone() },
        PaymentAnswer::Ocra { device_serial: "SC-1".into(), digits: "01234567".into() },
    ] {
        let error = bank.answer(&record, answer).await.unwrap_err();
        assert_eq!(bank.incident(&error).await, "method");
    }
    let error = bank
        .answer(&record, PaymentAnswer::Pki { device_serial: "SC-1".into(), signature: plain })
        .await
        .unwrap_err();
    assert_eq!(bank.incident(&error).await, "method");
    assert_eq!(bank.failures(&card).await, 0, "who only names it does it no harm");
    assert_eq!(bank.states(&record.payment.id).await, ["created", "pending", "failed"]);
    bank.in_order().await;
}
