//! The same for sleeves and managers: pairing (A1) and connecting (A2, A3), over streams. Records
//! are those of every mode and are explored with readers and servers.
//!
//! The attacker is in the middle of everything; people and programs answer when he lets time pass,
//! and may say no.

mod cases;
mod model;
mod mutants;
mod properties;
mod run;
mod scenario;
mod state;
mod world;

use std::sync::Arc;

use countersign_channel::Mode;
use stateright::{Checker, Model};

use model::{Memory, Pairings};
use properties::*;
use scenario::Scenario;
use world::Mutant;

const CONNECTS: [Mode; 2] = [Mode::A2, Mode::A3];

/// Explores all of a scenario: nothing that must hold fails, all that must be possible is, and
/// there are at least `states`, so that the model cannot become empty unseen.
fn holds(mut scenario: Scenario, possible: &[&'static str], states: usize) {
    scenario.limits.faults += crate::further();
    let scenario = Arc::new(scenario);
    let mut properties = always();
    properties.extend(possible.iter().map(|name| sometimes(name)));
    let memory = Arc::<Memory>::default();
    let model = Pairings { scenario: scenario.clone(), properties, forgetful: false, memory };
    let checker = model.checker().spawn_bfs().join();
    let (name, mode) = (scenario.name, scenario.mode_of(scenario.sleeves.len() - 1));
    println!(
        "{name} ({mode:?}): {} states, {} transitions, depth {}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
    );
    let found = checker.discoveries();
    for property in always() {
        if let Some(path) = found.get(property.name) {
            let end = path.last_state();
            let way = path.clone().into_actions().into_iter();
            let way: Vec<_> = way.map(|action| scenario.describe(action, end)).collect();
            panic!("{name} ({mode:?}): {} fails after {way:#?}", property.name);
        }
    }
    for name in possible {
        assert!(found.contains_key(name), "never: {name}");
    }
    assert!(checker.unique_state_count() >= states, "fewer states than {states}");
}

#[test]
fn a_pairing() {
    holds(cases::pair_alone(Mutant::default()), &[ALL_CONNECT, NOBODY_PAIRS, PENDING], 100);
}

#[test]
fn two_concurrent_pairings() {
    holds(cases::two_pairings(Mutant::default()), &[ONE_CONNECTS], 1000);
}

#[test]
fn two_managers_one_corrupt() {
    holds(cases::two_managers(Mutant::default()), &[ONE_CONNECTS], 1000);
}

#[test]
fn a_lost_acknowledgement_is_settled_by_the_next_connect() {
    for mode in CONNECTS {
        let scenario = cases::pair_then_connect(mode, Mutant::default());
        holds(scenario, &[PENDING, SETTLED_LATER], 100);
    }
}

#[test]
fn a_connect() {
    for mode in CONNECTS {
        holds(cases::connect_alone(mode, Mutant::default()), &[ALL_CONNECT], 100);
    }
}

/// Where two connects mix, A2 and A3 have the same states: each is explored once, and both in one
/// scenario below.
#[test]
fn two_concurrent_connects_of_one_sleeve() {
    holds(cases::two_connects(Mode::A2, Mutant::default()), &[ALL_CONNECT], 5000);
}

#[test]
fn two_sleeves_at_once() {
    holds(cases::two_sleeves(Mode::A3, Mutant::default()), &[ALL_CONNECT], 5000);
}

#[test]
fn a2_and_a3_at_once() {
    holds(cases::both_modes(Mutant::default()), &[ALL_CONNECT], 1000);
}

#[test]
fn a_connect_and_its_first_data() {
    for mode in CONNECTS {
        holds(cases::first_data(mode, Mutant::default()), &[ALL_HEARD], 50);
    }
}

/// What is remembered of a machine's step is what it does: here each is taken every time.
#[test]
fn memory_is_right() {
    for (scenario, depth) in [
        (cases::pair_alone(Mutant::default()), 7),
        (cases::two_pairings(Mutant::default()), 6),
        (cases::pair_then_connect(Mode::A2, Mutant::default()), 12),
        (cases::two_connects(Mode::A3, Mutant::default()), 6),
    ] {
        let scenario = Arc::new(scenario);
        let memory = Arc::<Memory>::default();
        let model = Pairings { scenario, properties: always(), forgetful: true, memory };
        let checker = model.checker().target_max_depth(depth).spawn_bfs().join();
        assert!(checker.unique_state_count() > 50);
    }
}
