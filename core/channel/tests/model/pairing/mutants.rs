//! Each property can fail: what it is about is broken on purpose, and the checker finds the way.

use std::sync::Arc;

use countersign_channel::Mode;
use stateright::{Checker, Model};
use testkit::toy::Broken;

use super::CONNECTS;
use super::cases;
use super::model::{Memory, Pairings};
use super::properties::*;
use super::scenario::{Limits, Scenario};
use super::world::{Mutant, People};
use crate::world::Gate;

/// The longest way that is looked for.
const LONGEST: usize = 16;

/// Finds a shortest way to a state in which `property` does not hold.
fn must_fail(property: &'static str, scenario: Scenario) {
    let (scenario, memory) = (Arc::new(scenario), Arc::<Memory>::default());
    for depth in 2..=LONGEST {
        let mut properties = always();
        properties.retain(|one| one.name == property);
        assert_eq!(properties.len(), 1, "{property}");
        let model = Pairings {
            scenario: scenario.clone(),
            properties,
            forgetful: false,
            memory: memory.clone(),
        };
        // A state at the depth itself is not looked at any more.
        let checker = model.checker().target_max_depth(depth + 1).spawn_bfs().join();
        if let Some(path) = checker.discovery(property) {
            let end = path.last_state().clone();
            let way = path.into_actions().into_iter().map(|one| scenario.describe(one, &end));
            println!("{property}, {}: fails", scenario.name);
            way.for_each(|action| println!("    {action}"));
            return;
        }
    }
    panic!("{property} holds although {:?}", scenario.world.mutant);
}

fn broken(broken: Broken) -> Mutant {
    Mutant { broken, ..Mutant::default() }
}

fn people(people: People) -> Mutant {
    Mutant { people, ..Mutant::default() }
}

fn gate(gate: Gate) -> Mutant {
    Mutant { gate, ..Mutant::default() }
}

/// An attacker who loses, reorders and mixes, but repeats nothing.
fn calm(mut scenario: Scenario) -> Scenario {
    let data = scenario.limits.data;
    scenario.limits = Limits { data, ..Limits::default() };
    scenario
}

/// Any signature and any confirmation will do: a manager connects with a sleeve that has said
/// something else.
#[test]
fn g2_managers_need_signature_and_confirmation() {
    let mutant = broken(Broken { signature: true, mac: true, ..Broken::default() });
    must_fail(MANAGER_AGREES, calm(cases::two_pairings(mutant)));
    for mode in CONNECTS {
        must_fail(MANAGER_AGREES, calm(cases::two_connects(mode, mutant)));
    }
}

#[test]
fn g2_sleeves_need_signature_and_confirmation() {
    let mutant = broken(Broken { signature: true, mac: true, ..Broken::default() });
    must_fail(SLEEVE_AGREES, cases::pair_alone(mutant));
    for mode in CONNECTS {
        must_fail(SLEEVE_AGREES, cases::connect_alone(mode, mutant));
    }
}

/// A manager that takes any proof stores a sleeve whose user has not said yes to it.
#[test]
fn a1_managers_store_only_what_was_signed_and_confirmed() {
    let mutant = broken(Broken { signature: true, mac: true, ..Broken::default() });
    must_fail(MANAGER_STORES, calm(cases::two_managers(mutant)));
}

#[test]
fn a1_the_user_must_look_at_the_id() {
    must_fail(SLEEVE_STORES, calm(cases::two_managers(people(People::AlwaysYes))));
}

#[test]
fn a1_the_acknowledgement_says_stored() {
    must_fail(SLEEVE_SETTLED, calm(cases::pair_alone(people(People::Forgets))));
}

#[test]
fn a1_the_window_closes_after_a_pairing() {
    must_fail(ONE_A_WINDOW, calm(cases::two_pairings(people(People::NeverCloses))));
}

/// Who draws the same numbers has the same session, and the same factor.
#[test]
fn g6_sessions_need_randomness() {
    let mutant = Mutant { same_randomness: true, ..Mutant::default() };
    for mode in CONNECTS {
        must_fail(UNIQUE_KEYS, calm(cases::two_connects(mode, mutant)));
    }
}

#[test]
fn g6_challenges_must_be_burnt() {
    for mode in CONNECTS {
        must_fail(ONE_ANSWER, calm(cases::two_connects(mode, gate(Gate::NeverBurns))));
    }
}

#[test]
fn g7_nobody_may_read_ahead() {
    must_fail(CONFIRMED_FIRST, calm(cases::first_data(Mode::A2, people(People::Peeks))));
}

#[test]
fn g7_data_need_their_mac() {
    let mutant = broken(Broken { mac: true, ..Broken::default() });
    must_fail(SENT_BY_PEER, changed(cases::first_data(Mode::A2, mutant)));
}

fn changed(mut scenario: Scenario) -> Scenario {
    scenario.limits.changes = true;
    scenario
}

/// One key for both directions: a record comes back to its sender.
#[test]
fn g9_directions_need_keys_of_their_own() {
    let mutant = broken(Broken { purpose: true, ..Broken::default() });
    must_fail(NO_REFLECTION, cases::first_data(Mode::A3, mutant));
}

#[test]
fn g13_the_factor_must_not_be_sent() {
    must_fail(NO_FACTOR, calm(cases::first_data(Mode::A2, people(People::SendsFactor))));
}
