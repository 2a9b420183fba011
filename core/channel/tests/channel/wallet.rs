//! A1, A2 and A3: sleeve and manager, by the same goals.

mod bytes;
mod connect;
mod cost;
mod exposure;
mod identity;
mod layout;
mod mixed;
mod negotiation;
mod pairing;
mod secrecy;

use countersign_channel::{Error, ManagerEvent, Mode, SleeveEvent};
use countersign_crypto::{Provider, aws_lc};
use testkit::wallet::{CONNECTS, MODES, Pair, World};

fn world_with(provider: &Provider, seed: u64) -> World {
    World::new(provider.clone(), provider.clone(), provider.clone(), seed)
}

fn world(seed: u64) -> World {
    world_with(&aws_lc::provider(), seed)
}

/// Each mode with a world in which it can begin.
fn worlds(seed: u64) -> impl Iterator<Item = (Mode, World)> {
    MODES.into_iter().map(move |mode| (mode, world_for(mode, seed)))
}

fn world_for(mode: Mode, seed: u64) -> World {
    if mode == Mode::A1 { world(seed) } else { world(seed).paired() }
}

/// How many messages a mode has.
fn messages(mode: Mode) -> usize {
    if mode == Mode::A1 { 4 } else { 5 }
}

fn connected(world: &mut World, mode: Mode) -> Pair {
    let mut pair = world.contact(mode);
    pair.drive().unwrap();
    assert!(matches!(pair.sleeve_events.remove(0), SleeveEvent::Connected));
    assert!(matches!(pair.manager_events.remove(0), ManagerEvent::Connected));
    pair
}

/// Both lists stay as they were and nobody is open.
fn refused(world: &mut World, mode: Mode) -> Error {
    let mut pair = world.contact(mode);
    let error = pair.drive().expect_err("must be refused");
    assert!(pair.manager_events.is_empty() && pair.sleeve_events.is_empty());
    if mode == Mode::A1 {
        assert!(pair.of_sleeve.is_none(), "the manager stored nothing");
    }
    error
}

fn manager_open(pair: &Pair) -> bool {
    pair.manager_events.iter().any(|event| matches!(event, ManagerEvent::Connected))
}

fn sleeve_open(pair: &Pair) -> bool {
    pair.sleeve_events.iter().any(|event| matches!(event, SleeveEvent::Connected))
}

fn manager_data(pair: &mut Pair) -> Vec<Vec<u8>> {
    let data = |event| match event {
        ManagerEvent::Data(data) => data.to_vec(),
        _ => panic!("only data"),
    };
    pair.manager_events.drain(..).map(data).collect()
}
