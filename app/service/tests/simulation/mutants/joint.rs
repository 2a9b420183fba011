//! The same of payments that a signing card confirmed: rows are changed, and what the world knows
//! of its holders' consent.

use libtest_mimic::Failed;

use super::{approval, flip};
use crate::block_on;
use crate::house::Place;
use crate::judge::Judge;
use crate::plan::CARDS_IN;
use crate::run::live;
use crate::snapshot::{Answer, Snapshot};
use crate::world::World;

/// Worlds that are looked through for one with everything in it, and their length.
const WORLDS: u64 = 12;
const STEPS: usize = 120;

/// What is changed, and the name under which it has to be found.
type Mutant = (&'static str, fn(&mut Snapshot, &mut Judge), &'static str);

const MUTANTS: [Mutant; 14] = [
    ("a_commitment", |now, _| flip(joint(now).commitment.as_mut()), "signature"),
    ("a_commitment_consented", |now, _| flip(joint(now).commitment.as_mut()), WITHOUT),
    ("a_commitment_gone", |now, _| joint(now).commitment = None, "commitment-missing"),
    ("a_signature", |now, _| flip(joint(now).signature.as_mut()), "signature"),
    ("a_certificate", |now, _| flip(joint(now).certificate.as_mut()), "signature"),
    ("a_phone", |now, _| joint(now).phone = Some("phn_1".to_owned()), "foreign-phone"),
    ("a_method", |now, _| joint(now).method = "pki".to_owned(), "commitment-of-others"),
    ("a_proof_of_another", reused, "approval-used-twice"),
    (
        "no_consent",
        |_, judge| judge.devices.values_mut().for_each(|it| it.consents.clear()),
        WITHOUT,
    ),
    ("consent_to_another", consent_to_another, WITHOUT),
    ("consent_elsewhere", consent_elsewhere, WITHOUT),
    ("a_password_for_two", same_password, "password-used-twice"),
    ("one_try_more", one_try_more, "too-many-tries"),
    ("blame", |now, _| blame(now), "blamed-for-others"),
];

const WITHOUT: &str = "executed-without-consent";

pub(super) fn on_joint_passwords() -> Result<(), Failed> {
    let world = lived()?;
    assert_eq!(judge(&world).look(&world.now), [], "nothing is wrong before it is changed");
    for (what, change, name) in MUTANTS {
        let (mut now, mut judge) = (world.now.clone(), judge(&world));
        change(&mut now, &mut judge);
        let found: Vec<_> = judge.look(&now).into_iter().map(|one| one.name).collect();
        assert!(found.contains(&name), "{what}: {found:?} has no {name}");
    }
    Ok(())
}

fn judge(world: &World) -> Judge {
    world.fresh_judge()
}

fn lived() -> Result<World, Failed> {
    for seed in (1..=WORLDS).map(|number| number * CARDS_IN) {
        let lived = block_on(async { live(Place::memory().await, seed, STEPS).await });
        let world = lived.map_err(|failure| failure.to_string())?;
        let is = |outcome| {
            let all = world.now.answers.iter().filter(|one| one.method == "joint");
            all.filter(move |one| one.outcome == outcome)
        };
        let devices: Vec<_> = is("accepted").map(|one| &one.device).collect();
        let twice = devices.iter().any(|one| devices.iter().filter(|it| *it == one).count() > 1);
        if twice && is("refused").count() > 0 {
            return Ok(world);
        }
    }
    Err("no world has everything".into())
}

/// An approval by a signing card.
fn joint(now: &mut Snapshot) -> &mut Answer {
    approval(now, "joint")
}

/// Two approvals by the same card.
fn two(now: &Snapshot) -> (usize, usize) {
    let all = now.answers.iter().enumerate();
    let all: Vec<_> =
        all.filter(|(_, one)| one.outcome == "accepted" && one.method == "joint").collect();
    let pairs = all.iter().flat_map(|first| all.iter().map(move |second| (first, second)));
    let mut pairs = pairs.filter(|(one, two)| one.0 < two.0 && one.1.device == two.1.device);
    let (one, two) = pairs.next().unwrap();
    (one.0, two.0)
}

fn reused(now: &mut Snapshot, _: &mut Judge) {
    let (one, other) = two(now);
    let (payment, id) = (now.answers[other].payment.clone(), now.answers[other].id.clone());
    now.answers[other] = Answer { payment, id, ..now.answers[one].clone() };
}

/// The holder agreed to another amount.
fn consent_to_another(now: &mut Snapshot, judge: &mut Judge) {
    let device = joint(now).device.clone().unwrap();
    for consent in &mut judge.devices.get_mut(&device).unwrap().consents {
        consent.transaction =
            crate::forge::with(&consent.transaction, "amount", crate::forge::AMOUNT);
    }
}

/// It was another card whose holder agreed.
fn consent_elsewhere(now: &mut Snapshot, judge: &mut Judge) {
    let device = joint(now).device.clone().unwrap();
    let consents = std::mem::take(&mut judge.devices.get_mut(&device).unwrap().consents);
    let (_, other) = judge.devices.iter_mut().find(|(id, _)| **id != device).unwrap();
    other.consents.extend(consents);
}

fn same_password(now: &mut Snapshot, judge: &mut Judge) {
    let device = now.answers[two(now).0].device.clone().unwrap();
    for consent in &mut judge.devices.get_mut(&device).unwrap().consents {
        consent.password = "000000010".to_owned();
    }
}

fn one_try_more(now: &mut Snapshot, _: &mut Judge) {
    let is = |one: &&Answer| one.method == "joint" && one.outcome == "refused";
    let refused = now.answers.iter().find(is).unwrap().clone();
    let again = |at| Answer { id: format!("again {at}"), ..refused.clone() };
    now.answers.extend((0..3).map(again));
}

/// A card is to blame though nothing was brought under its own signature.
fn blame(now: &mut Snapshot) {
    let device = joint(now).device.clone().unwrap();
    now.devices.get_mut(&device).unwrap().failures = 1;
    for answer in &mut now.answers {
        answer.failed_check = answer.failed_check.as_ref().map(|_| "answer-signature".to_owned());
    }
}
