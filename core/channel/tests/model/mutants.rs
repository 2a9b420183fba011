//! Each property can fail: what it is about is broken on purpose, and the checker finds the way.

use std::sync::Arc;

use countersign_channel::{Delivery, Mode};
use stateright::{Checker, Model};
use testkit::toy::Broken;

use crate::cases;
use crate::model::{Channel, Memory};
use crate::properties::*;
use crate::scenario::{Limits, Scenario};
use crate::world::{Gate, Mutant, Owner};

/// The longest way that is looked for.
const LONGEST: usize = 14;

/// Finds a shortest way to a state in which `property` does not hold.
fn must_fail(property: &'static str, scenario: Scenario) {
    let (scenario, memory) = (Arc::new(scenario), Arc::<Memory>::default());
    for depth in 2..=LONGEST {
        let mut properties = always();
        properties.retain(|one| one.name == property);
        assert_eq!(properties.len(), 1, "{property}");
        let model = Channel::new(scenario.clone(), properties, memory.clone());
        // A state at the depth itself is not looked at any more.
        let checker = model.checker().target_max_depth(depth + 1).spawn_bfs().join();
        if let Some(path) = checker.discovery(property) {
            let end = path.last_state().clone();
            let way = path.into_actions().into_iter().map(|one| scenario.describe(one, &end));
            println!("{property}, {}, {:?}: fails", scenario.name, scenario.readers[0].mode);
            way.for_each(|action| println!("    {action}"));
            return;
        }
    }
    panic!("{property} holds although {:?}", scenario.world.mutant);
}

/// Two sessions of one reader, and an attacker who loses, reorders and mixes, but repeats nothing.
fn mixed(mode: Mode, mutant: Mutant) -> Scenario {
    cases::mixed(mode, mutant).within(Limits::default())
}

fn broken(broken: Broken) -> Mutant {
    Mutant { broken, ..Mutant::default() }
}

fn gate(gate: Gate) -> Mutant {
    Mutant { gate, ..Mutant::default() }
}

fn owner(owner: Owner) -> Mutant {
    Mutant { owner, ..Mutant::default() }
}

/// Any confirmation will do: a server connects with a reader that knows nothing of it.
#[test]
fn g2_servers_need_the_confirmation() {
    let mutant = broken(Broken { mac: true, ..Broken::default() });
    for mode in [Mode::C1, Mode::C2] {
        must_fail(SERVER_AGREES, mixed(mode, mutant));
    }
}

/// Any signature and any confirmation will do: a reader takes what no server has sent.
#[test]
fn g2_readers_need_signature_and_confirmation() {
    let mutant = broken(Broken { signature: true, mac: true, ..Broken::default() });
    for mode in [Mode::C1, Mode::C2] {
        must_fail(READER_AGREES, cases::alone(mode, Delivery::Stream, mutant));
    }
}

/// Neither signatures nor transcripts: a corrupt server passes its answer off as the other's.
#[test]
fn g5_readers_need_signature_and_transcript() {
    let mutant = broken(Broken { signature: true, hash: true, ..Broken::default() });
    let scenario = cases::two_servers(Mode::C2, None, mutant);
    must_fail(READER_AGREES, scenario.within(Limits::default()));
}

/// Who draws the same numbers has the same session.
#[test]
fn g2_g6_sessions_need_randomness() {
    let mutant = Mutant { same_randomness: true, ..Mutant::default() };
    for mode in [Mode::C1, Mode::C2] {
        must_fail(ONE_TO_ONE, mixed(mode, mutant));
        must_fail(UNIQUE_KEYS, mixed(mode, mutant));
    }
}

/// Where nothing of the server's gets into the keys, one M2 makes two sessions with one key.
#[test]
fn g6_keys_need_something_of_both_sides() {
    let nothing = Broken { hash: true, exchange: true, ..Broken::default() };
    let mutant = Mutant { broken: nothing, ..gate(Gate::NeverBurns) };
    must_fail(UNIQUE_KEYS, mixed(Mode::C2, mutant));
}

#[test]
fn g6_challenges_must_be_burnt() {
    for mode in [Mode::C1, Mode::C2] {
        must_fail(ONE_ANSWER, mixed(mode, gate(Gate::NeverBurns)));
    }
}

#[test]
fn g7_data_must_wait_for_the_confirmation() {
    must_fail(CONFIRMED_FIRST, cases::first_data(Mode::C1, owner(Owner::Peeks)));
}

#[test]
fn g7_records_need_their_tag() {
    let mutant = broken(Broken { tag: true, ..Broken::default() });
    must_fail(SENT_BY_SOMEONE, cases::stream_records(Mode::C1, mutant));
    must_fail(SENT_BY_SOMEONE, cases::datagram_records(Mode::C1, mutant));
    let mutant = broken(Broken { mac: true, ..Broken::default() });
    must_fail(SENT_BY_SOMEONE, cases::readable_records(Mode::C1, mutant));
}

/// A challenge that is not tied to M0 lets the attacker take the best offers away.
#[test]
fn g8_challenges_must_be_tied_to_the_offers() {
    for mode in [Mode::C1, Mode::C2] {
        must_fail(BEST_COMMON, cases::offers(mode, gate(Gate::Unbound)));
    }
}

/// One key for all purposes and directions: a record comes back to its sender.
#[test]
fn g9_directions_need_keys_of_their_own() {
    let mutant = broken(Broken { purpose: true, ..Broken::default() });
    must_fail(NO_REFLECTION, cases::stream_records(Mode::C1, mutant));
    must_fail(NO_REFLECTION, cases::datagram_records(Mode::C2, mutant));
}

/// A seal that takes no account of a record's number.
#[test]
fn g12_records_need_their_number() {
    let mutant = broken(Broken { place: true, ..Broken::default() });
    must_fail(IN_ORDER, cases::stream_records(Mode::C1, mutant));
    must_fail(IN_ORDER, cases::datagram_records(Mode::C1, mutant));
    must_fail(CLOSE_IS_LAST, cases::stream_records(Mode::C1, mutant));
    must_fail(IN_ORDER, cases::stream_records(Mode::C1, owner(Owner::ReadsTwice)));
}

#[test]
fn g12_cuts_must_be_told_from_ends() {
    must_fail(CLOSE_IS_LAST, cases::stream_records(Mode::C1, owner(Owner::IgnoresCuts)));
}

/// An old probe under a new number looks like life.
#[test]
fn a6_signs_of_life_must_be_new() {
    let mutant = broken(Broken { place: true, ..Broken::default() });
    must_fail(SILENCE_ENDS, cases::heartbeat(Delivery::Datagrams, mutant));
}
