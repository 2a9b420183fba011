//! A model of the channel that is the channel: `stateright` drives the **real** machines through
//! all that an attacker on the network can do with their messages.
//!
//! A state is a list of actions; it is reached by giving fresh machines these actions, always with
//! the same bytes (`run.rs`). Two lists after which the machines look the same and were given the
//! same are one state (`state.rs`). From each state every action is tried (`model.rs`): any frame
//! that was sent some time goes to any machine, in any order, again, back, to another session, with
//! a byte of one field changed, or never; streams end; time passes; the directory answers;
//! applications send, close and change keys.
//!
//! Cryptography is `testkit::toy`, which binds but keeps nothing secret: the attacker here moves
//! messages and computes nothing. What he could compute is the matter of the symbolic models.
//!
//! In every state every property of `properties.rs` is checked; `mutants.rs` shows that each can
//! fail. Each exploration is exhaustive within its limits (`cases.rs`), no further.
//!
//! `COUNTERSIGN_MODEL_DEPTH=n` goes further: n more faults in each run, and n more ticks where time
//! passes. With 1 the handshakes over datagrams alone take many minutes.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod attack;
mod cases;
mod model;
mod mutants;
mod pairing;
mod properties;
mod run;
mod scenario;
mod state;
mod world;

use std::sync::Arc;

use countersign_channel::{Delivery, Mode};
use stateright::{Checker, Model};
use testkit::pair::MODES;

use model::{Channel, Memory};
use properties::*;
use scenario::Scenario;
use world::Mutant;

const SOUND: Mutant = Mutant::SOUND;

/// How much further than by default.
fn further() -> u8 {
    let depth = std::env::var("COUNTERSIGN_MODEL_DEPTH");
    depth.map_or(0, |depth| depth.parse().expect("COUNTERSIGN_MODEL_DEPTH is a small number"))
}

/// Explores all of a scenario: nothing that must hold fails, all that must be possible is, and
/// there are at least `states`, so that the model cannot become empty unseen.
fn holds(mut scenario: Scenario, possible: &[&'static str], states: usize) {
    scenario.limits.faults += further();
    if scenario.limits.ticks > 0 {
        scenario.limits.ticks += further();
    }
    let (scenario, memory) = (Arc::new(scenario), Arc::<Memory>::default());
    let mut properties = always();
    properties.extend(possible.iter().map(|name| sometimes(name)));
    let model = Channel::new(scenario.clone(), properties, memory.clone());
    let checker = model.checker().spawn_bfs().join();
    let (name, mode) = (scenario.name, scenario.readers[0].mode);
    println!(
        "{name} ({mode:?}, {:?}): {} states, {} transitions, {} steps of machines, depth {}",
        scenario.delivery(),
        checker.unique_state_count(),
        checker.state_count(),
        memory.taken(),
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
fn a_handshake_over_a_stream() {
    for mode in MODES {
        holds(cases::alone(mode, Delivery::Stream, SOUND), &[ALL_CONNECT], 250);
    }
}

#[test]
fn a_handshake_over_datagrams() {
    for mode in MODES {
        holds(cases::alone(mode, Delivery::Datagrams, SOUND), &[ALL_CONNECT], 2000);
    }
}

#[test]
fn two_sessions_of_one_reader_c1() {
    holds(cases::mixed(Mode::C1, SOUND), &[ALL_CONNECT], 25_000);
}

#[test]
fn two_sessions_of_one_reader_c2() {
    holds(cases::mixed(Mode::C2, SOUND), &[ALL_CONNECT], 25_000);
}

#[test]
fn two_readers_and_one_server() {
    for mode in MODES {
        holds(cases::two_readers(mode, SOUND), &[ALL_CONNECT], 6000);
    }
}

#[test]
fn one_reader_and_two_servers() {
    for mode in MODES {
        for wanted in [None, Some("srv-1")] {
            holds(cases::two_servers(mode, wanted, SOUND), &[TWO_CONNECT], 1500);
        }
    }
}

#[test]
fn both_modes_at_once() {
    holds(cases::both_modes(SOUND), &[ALL_CONNECT], 12_000);
}

#[test]
fn two_suites_and_two_policies() {
    for mode in MODES {
        holds(cases::offers(mode, SOUND), &[ALL_CONNECT], 450);
    }
}

#[test]
fn a_handshake_and_its_first_data() {
    for mode in MODES {
        holds(cases::first_data(mode, SOUND), &[ALL_RECEIVED], 60);
    }
}

#[test]
fn records_over_a_stream() {
    holds(cases::stream_records(Mode::C1, SOUND), &[ALL_RECEIVED], 1000);
    holds(cases::readable_records(Mode::C2, SOUND), &[ALL_RECEIVED], 1000);
}

#[test]
fn records_over_datagrams() {
    holds(cases::datagram_records(Mode::C1, SOUND), &[ALL_RECEIVED], 20_000);
}

#[test]
fn records_of_two_sessions() {
    holds(cases::mixed_records(Mode::C2, SOUND), &[ALL_RECEIVED], 3000);
}

#[test]
fn a_heartbeat() {
    for delivery in [Delivery::Stream, Delivery::Datagrams] {
        holds(cases::heartbeat(delivery, SOUND), &[ALL_STILL_OPEN, ALL_GIVEN_UP], 50);
    }
}

/// What is remembered of a machine's step is what it does: here each is taken every time.
#[test]
fn memory_is_right() {
    for (scenario, depth) in [
        (cases::alone(Mode::C1, Delivery::Stream, SOUND), 9),
        (cases::alone(Mode::C2, Delivery::Datagrams, SOUND), 6),
        (cases::mixed(Mode::C1, SOUND), 6),
        (cases::two_servers(Mode::C2, None, SOUND), 6),
        (cases::mixed_records(Mode::C2, SOUND), 4),
    ] {
        let mut model = Channel::new(Arc::new(scenario), Vec::new(), Arc::default());
        model.forgetful = true;
        model.properties = always();
        let checker = model.checker().target_max_depth(depth).spawn_bfs().join();
        assert!(checker.unique_state_count() > 100);
    }
}
