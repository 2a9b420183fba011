//! That the judge sees what it is there to see: what a world came to is changed, once in what was
//! read and once in the database itself, and the change has to be found under its name.

mod joint;

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use countersign_store::StoreError;
use libtest_mimic::{Failed, Trial};

use crate::house::{Place, START};
use crate::judge::Promise;
use crate::run::live;
use crate::snapshot::{Answer, Payment, Posting, Snapshot};
use crate::world::World;
use crate::{block_on, forge};

/// The worlds in which one is looked for that has everything in it which is changed here.
const SEEDS: std::ops::Range<u64> = 1..40;
const STEPS: usize = 120;

/// What is changed, and the name under which it has to be found.
type Mutant = (&'static str, fn(&mut Snapshot), &'static str);

const MUTANTS: [Mutant; 35] = [
    ("a_balance", |now| account(now).balance += 1, "balance-of-entries"),
    ("a_sum", |now| account(now).balance += 1, "sum-of-balances"),
    ("an_overdraft", |now| overdrawn(now), "overdraft"),
    ("a_running_balance", |now| posting(now, "payment").debit.balance += 1, "running-balance"),
    ("an_entry_number", |now| posting(now, "payment").credit.entry += 1000, "entry-numbers"),
    ("an_amount_posted", |now| posting(now, "payment").amount += 1, "posting-differs"),
    ("a_posting_turned_round", turned_round, "posting-differs"),
    ("a_posting_twice", posted_twice, "executed-twice"),
    ("a_reference_twice", posted_twice, "posted-twice"),
    (
        "a_posting_gone",
        |now| now.postings.retain(|one| !executes(one)),
        "execution-without-posting",
    ),
    ("a_posting_of_a_cancelled", |now| set_state(now, "cancelled"), "posting-without-execution"),
    ("a_refund_of_another", |now| posting(now, "refund").amount += 1, "refunded"),
    ("a_currency", |now| posting(now, "payment").currency = "EUR".to_owned(), "posting-shape"),
    ("an_approval_gone", |now| now.answers.clear(), "execution-without-approval"),
    ("an_approval_twice", approved_twice, "approved-twice"),
    ("an_approval_of_a_cancelled", |now| set_state(now, "cancelled"), "approval-without-execution"),
    ("an_approval_of_another", reused, "approval-used-twice"),
    ("a_signature", |now| flip(approval(now, "pki").signature.as_mut()), "signature"),
    ("digits", |now| flip(approval(now, "ocra").signature.as_mut()), "signature"),
    ("a_certificate", |now| flip(approval(now, "pki").certificate.as_mut()), "signature"),
    ("a_late_approval", |now| approval(now, "pki").at = START.plus(YEAR), "late-approval"),
    ("a_foreign_device", foreign, "foreign-device"),
    ("an_amount_asked_for", |now| executed(now).amount += 1, "request-differs"),
    ("a_request", |now| executed(now).request.push(b' '), "request-differs"),
    ("a_step_left_out", step_left_out, "state-step"),
    ("a_step_too_many", step_too_many, "state-step"),
    ("a_wrong_answer_more", |now| executed(now).wrong_answers += 1, "wrong-answers"),
    (
        "a_wrong_answer_gone",
        |now| now.answers.retain(|one| one.outcome != "refused"),
        "wrong-answers",
    ),
    ("a_push", |now| now.pushes.clear(), "no-push"),
    ("an_event", |now| now.events.clear(), "no-event"),
    ("an_audit_row", |now| now.audit.clear(), "audit-differs"),
    ("an_audit_row_twice", |now| now.audit.values_mut().for_each(|it| *it += 1), "audit-differs"),
    ("a_phone_gone", |now| approval(now, "pki").phone = None, "foreign-phone"),
    ("an_incident", |now| now.incidents.clear(), "no-incident"),
    ("a_state", |now| executed(now).state = "failed".to_owned(), "timeline-end"),
];

/// What may not change from one look to the next.
const REWRITTEN: [Mutant; 6] = [
    ("a_payee", |now| executed(now).order.push('!'), "history-changed"),
    ("a_payment_gone", |now| drop(now.payments.pop_first()), "history-changed"),
    ("a_past_state", |now| first_change(now).at = START, "history-changed"),
    ("a_past_posting", |now| posting(now, "payment").reference.push('x'), "history-changed"),
    ("a_past_posting_gone", |now| drop(now.postings.pop()), "history-changed"),
    ("a_version", |now| executed(now).version -= 1, "version"),
];

const YEAR: std::time::Duration = std::time::Duration::from_secs(365 * 86_400);

/// SQL behind everybody's back, one after the other, and what has to be found then and not before.
const TAMPERED: [(&str, &str, &[&str]); 4] = [
    (
        "a_balance",
        "UPDATE ledger_accounts SET balance = balance + 1 WHERE number = 'PAYEE0001'",
        &["balance-of-entries", "sum-of-balances", "store-check"],
    ),
    (
        "an_amount",
        "UPDATE payments SET amount = amount + 1 WHERE state = 'executed'",
        &["request-differs", "posting-differs"],
    ),
    (
        "a_signature",
        "UPDATE payment_authorisations SET signature = x'00' WHERE outcome = 'accepted'",
        &["signature"],
    ),
    (
        "an_approval",
        "DELETE FROM payment_authorisations WHERE outcome = 'accepted'",
        &["execution-without-approval"],
    ),
];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("the_judge_bites::in_what_was_read", in_what_was_read),
        Trial::test("the_judge_bites::over_time", over_time),
        Trial::test("the_judge_bites::in_the_database", in_the_database),
        Trial::test("the_judge_bites::broken_promises", broken_promises),
        Trial::test("the_judge_bites::on_forgeries", on_forgeries),
        Trial::test("the_judge_bites::on_cards", crate::card::the_judge_bites),
        Trial::test("the_judge_bites::on_signing_cards", crate::signing::the_judge_bites),
        Trial::test("the_judge_bites::on_joint_passwords", joint::on_joint_passwords),
    ]
}

/// One world for all who do not change it.
fn shared() -> Result<MutexGuard<'static, World>, Failed> {
    static SHARED: OnceLock<Result<Mutex<World>, String>> = OnceLock::new();
    let made =
        SHARED.get_or_init(|| lived().map(Mutex::new).map_err(|failed| format!("{failed:?}")));
    match made {
        Ok(world) => Ok(world.lock().unwrap_or_else(PoisonError::into_inner)),
        Err(failed) => Err(failed.into()),
    }
}

fn lived() -> Result<World, Failed> {
    for seed in SEEDS {
        let lived = block_on(async { live(Place::memory().await, seed, STEPS).await });
        let world = lived.map_err(|failure| failure.to_string())?;
        if has_everything(&world.now) {
            return Ok(world);
        }
    }
    Err("no world has everything".into())
}

/// Approvals of both kinds, of several payers; a refund; a refused answer.
fn has_everything(now: &Snapshot) -> bool {
    let accepted = || now.answers.iter().filter(|one| one.outcome == "accepted");
    let executed = |one: &&Answer| now.payments[&one.payment].state == "executed";
    let payer = |one: &Answer| now.payments[&one.payment].payer.clone();
    let of = |method: &str| accepted().filter(|one| one.method == method).count();
    let payers: BTreeSet<_> = accepted().filter(executed).map(payer).collect();
    of("pki") > 1
        && of("ocra") > 0
        && payers.len() > 1
        && now.postings.iter().any(|one| one.kind == "refund")
        && now.answers.iter().any(|one| one.outcome == "refused")
}

fn names(world: &World, before: Option<&Snapshot>, now: &Snapshot) -> Vec<&'static str> {
    let mut judge = world.fresh_judge();
    if let Some(before) = before {
        assert_eq!(judge.look(before), [], "nothing is wrong before it is changed");
    }
    judge.look(now).into_iter().map(|violation| violation.name).collect()
}

fn in_what_was_read() -> Result<(), Failed> {
    let world = shared()?;
    for (what, change, name) in MUTANTS {
        let mut now = world.now.clone();
        change(&mut now);
        let found = names(&world, None, &now);
        assert!(found.contains(&name), "{what}: {found:?} has no {name}");
    }
    Ok(())
}

fn over_time() -> Result<(), Failed> {
    let world = shared()?;
    for (what, change, name) in REWRITTEN {
        let mut now = world.now.clone();
        change(&mut now);
        let found = names(&world, Some(&world.now), &now);
        assert!(found.contains(&name), "{what}: {found:?} has no {name}");
    }
    Ok(())
}

fn in_the_database() -> Result<(), Failed> {
    let world = lived()?;
    let mut before = names(&world, None, &world.now);
    for (what, sql, expected) in TAMPERED {
        let now = block_on(async {
            let store = world.eye().clone();
            let changed = store.run_tx("tamper", move |tx| tx.execute(sql, &[])).await?;
            assert!(changed > 0, "{what}: there was something to change");
            Snapshot::take(world.eye()).await
        });
        let found = names(&world, None, &now.map_err(|error: StoreError| error.to_string())?);
        for name in expected {
            assert!(!before.contains(name), "{what}: {name} was found before");
            assert!(found.contains(name), "{what}: {found:?} has no {name}");
        }
        before = found;
    }
    Ok(())
}

fn broken_promises() -> Result<(), Failed> {
    let world = shared()?;
    let (id, _) = world.now.payments.iter().find(|(_, one)| one.state == "executed").unwrap();
    let kept = [
        Promise::Made(id.clone()),
        Promise::Ended(id.clone(), "executed".to_owned()),
        Promise::Refunded(id.clone(), 0),
    ];
    let broken = [
        Promise::Made("pay_0".to_owned()),
        Promise::Ended(id.clone(), "cancelled".to_owned()),
        Promise::Refunded(id.clone(), i64::MAX),
    ];
    for (kept, broken) in kept.into_iter().zip(broken) {
        let mut judge = world.fresh_judge();
        judge.promised(kept.clone());
        assert_eq!(judge.look(&world.now), [], "{kept:?}");
        judge.promised(broken.clone());
        let found = judge.look(&world.now);
        assert_eq!(found.len(), 1, "{broken:?}: {found:?}");
        assert_eq!(found[0].name, "acknowledged-lost");
    }
    Ok(())
}

/// A proof that is right in itself, over bytes that are not the stored ones.
fn on_forgeries() -> Result<(), Failed> {
    let world = shared()?;
    for method in ["pki", "ocra"] {
        let mut now = world.now.clone();
        let payment = approval(&mut now, method).payment.clone();
        let device = approval(&mut now, method).device.clone();
        let key = world.devices.iter().find(|one| Some(&one.id) == device.as_ref()).unwrap();
        let request = forge::with(&now.payments[&payment].request, "amount", forge::AMOUNT);
        let forged = match forge::sign(key.key(), &request, &mut world.house.rng()) {
            crate::world::Words::Signature(signature) => signature,
            crate::world::Words::Digits(digits) => digits.into_bytes(),
            _ => unreachable!("a device signs"),
        };
        approval(&mut now, method).signature = Some(forged);
        assert_eq!(names(&world, None, &now), ["signature"], "{method}");
    }
    Ok(())
}

fn account(now: &mut Snapshot) -> &mut crate::snapshot::Account {
    now.accounts.values_mut().find(|one| one.number == "PAYEE0001").unwrap()
}

fn overdrawn(now: &mut Snapshot) {
    let account = now.accounts.values_mut().find(|one| one.number == "PAYER0001").unwrap();
    account.balance = -1;
}

fn posting<'a>(now: &'a mut Snapshot, kind: &str) -> &'a mut Posting {
    now.postings.iter_mut().find(|one| one.kind == kind).unwrap()
}

fn executes(posting: &Posting) -> bool {
    posting.kind == "payment"
}

fn turned_round(now: &mut Snapshot) {
    let posting = posting(now, "payment");
    std::mem::swap(&mut posting.debit, &mut posting.credit);
}

fn posted_twice(now: &mut Snapshot) {
    let twice = posting(now, "payment").clone();
    now.postings.push(twice);
}

fn executed(now: &mut Snapshot) -> &mut Payment {
    now.payments.values_mut().find(|one| one.state == "executed").unwrap()
}

fn set_state(now: &mut Snapshot, state: &str) {
    executed(now).state = state.to_owned();
}

/// An approval that was taken, of this kind.
fn approval<'a>(now: &'a mut Snapshot, method: &str) -> &'a mut Answer {
    let is = |one: &&mut Answer| one.outcome == "accepted" && one.method == method;
    now.answers.iter_mut().find(is).unwrap()
}

fn approved_twice(now: &mut Snapshot) {
    let twice = approval(now, "pki").clone();
    now.answers.push(twice);
}

/// Another payment has the signature of the first.
fn reused(now: &mut Snapshot) {
    let first = approval(now, "pki").clone();
    let is = |one: &&mut Answer| one.outcome == "accepted" && one.payment != first.payment;
    let other = now.answers.iter_mut().find(is).unwrap();
    *other = Answer { payment: other.payment.clone(), id: other.id.clone(), ..first };
}

fn foreign(now: &mut Snapshot) {
    let own = approval(now, "pki").payment.clone();
    let payer = now.payments[&own].payer.clone();
    let others =
        |one: &&Answer| one.outcome == "accepted" && now.payments[&one.payment].payer != payer;
    let device = now.answers.iter().find(others).unwrap().device.clone();
    approval(now, "pki").device = device;
}

fn flip(bytes: Option<&mut Vec<u8>>) {
    let bytes = bytes.unwrap();
    let last = bytes.last_mut().unwrap();
    *last ^= 1;
}

fn timeline(now: &mut Snapshot) -> &mut Vec<crate::snapshot::Change> {
    let (id, _) = now.payments.iter().find(|(_, one)| one.state == "executed").unwrap();
    now.timelines.get_mut(id).unwrap()
}

fn first_change(now: &mut Snapshot) -> &mut crate::snapshot::Change {
    timeline(now).first_mut().unwrap()
}

fn step_left_out(now: &mut Snapshot) {
    timeline(now).retain(|change| change.state != "approved");
}

fn step_too_many(now: &mut Snapshot) {
    let timeline = timeline(now);
    let mut again = timeline.last().unwrap().clone();
    again.number += 1;
    timeline.push(again);
}
