//! The handshakes and their records, by the goals of `docs/protocols/channel.md`: in both modes
//! where it matters.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod datagrams;
mod exposure;
mod heartbeat;
mod identity;
mod negotiation;
mod replay;
mod roles;
mod sealing;
mod secrecy;
mod stateless;
mod wallet;
mod wire;

use std::time::Duration;

use countersign_channel::{Error, Mode, ReaderEvent, ReaderId, ServerEvent};
use countersign_crypto::{Provider, aws_lc, rust_crypto, sm};
use testkit::pair::{MODES, Pair, World};

fn world_with(provider: &Provider, seed: u64) -> World {
    World::new(provider.clone(), provider.clone(), provider.clone(), seed)
}

fn world(seed: u64) -> World {
    world_with(&aws_lc::provider(), seed)
}

/// The same world in either mode.
fn worlds(seed: u64) -> impl Iterator<Item = (Mode, World)> {
    MODES.into_iter().map(move |mode| (mode, world(seed).speaking(mode)))
}

fn connected(world: &mut World) -> Pair {
    let mut pair = world.connect();
    pair.drive().unwrap();
    assert!(matches!(pair.reader_events.remove(0), ReaderEvent::Connected));
    assert!(matches!(pair.server_events.remove(0), ServerEvent::Connected));
    pair
}

fn server_data(pair: &mut Pair) -> Vec<Vec<u8>> {
    let data = |event| match event {
        ServerEvent::Data(data) => data.to_vec(),
        _ => panic!("only data"),
    };
    pair.server_events.drain(..).map(data).collect()
}

#[test]
fn both_providers_agree_and_data_flows_both_ways() {
    let (plain, fast) = (rust_crypto::provider(), aws_lc::provider());
    for (mode, reader, server) in [
        (Mode::C1, plain.clone(), fast.clone()),
        (Mode::C1, fast.clone(), plain.clone()),
        (Mode::C2, plain.clone(), fast.clone()),
        (Mode::C2, fast, plain),
        (Mode::C1, sm::provider(), sm::provider()),
        (Mode::C2, sm::provider(), sm::provider()),
    ] {
        let suite = reader.suite;
        let pki = countersign_crypto::provider_of(suite).unwrap();
        let mut world = World::new(pki, reader, server, 1).speaking(mode);
        let mut pair = connected(&mut world);
        assert_eq!(pair.looked_up, [ReaderId::Serial("RD-1".into())]);
        pair.reader.send(b"configuration").unwrap();
        pair.reader.send(&[7; 16 * 1024]).unwrap();
        pair.server.send(b"plaintext").unwrap();
        pair.drive().unwrap();
        assert_eq!(server_data(&mut pair), [b"configuration".to_vec(), vec![7; 16 * 1024]]);
        let Some(ReaderEvent::Data(data)) = pair.reader_events.pop() else { panic!("data") };
        assert_eq!(*data, b"plaintext");
        assert_eq!(pair.reader.peer().unwrap().identity().id(), "srv-1");
        assert_eq!(pair.server.peer().unwrap().identity().id(), "RD-1");
        assert_eq!((pair.reader.mode(), pair.server.mode()), (mode, mode));
        assert_eq!((pair.reader.suite(), pair.server.suite()), (Some(suite), Some(suite)));
        let export = |e: &countersign_channel::Exporter, label| {
            e.export(label, b"context", 32).unwrap().expose().to_vec()
        };
        let (ours, theirs) = (pair.reader.exporter().unwrap(), pair.server.exporter().unwrap());
        assert_eq!(export(ours, "binding"), export(theirs, "binding"));
        assert_ne!(export(ours, "binding"), export(theirs, "other"));
    }
}

#[test]
fn the_first_data_travel_with_m4() {
    for (_, mut world) in worlds(2) {
        let mut pair = world.connect();
        let m3 = pair.take_server_frame(1);
        pair.deliver_to_reader(&m3).unwrap();
        pair.reader.send(b"configuration").unwrap();
        pair.collect();
        let flight = pair.to_server.drain(..).collect::<Vec<_>>().concat();
        pair.deliver_to_server(&flight).unwrap();
        assert!(matches!(pair.server_events.remove(0), ServerEvent::Connected));
        assert_eq!(server_data(&mut pair), [b"configuration".to_vec()]);
    }
}

#[test]
fn bytes_may_arrive_one_at_a_time() {
    for (_, mut world) in worlds(3) {
        let mut pair = world.connect();
        for _ in 0..3 {
            pair.collect();
            for byte in pair.to_server.drain(..).flatten().collect::<Vec<_>>() {
                pair.deliver_to_server(&[byte]).unwrap();
            }
            pair.collect();
            for byte in pair.to_reader.drain(..).flatten().collect::<Vec<_>>() {
                pair.deliver_to_reader(&[byte]).unwrap();
            }
        }
        assert!(matches!(pair.server_events[0], ServerEvent::Connected));
    }
}

fn refused(world: &mut World) -> Error {
    let mut pair = world.connect();
    let error = pair.drive().expect_err("must be refused");
    assert!(pair.server_events.is_empty() && pair.reader_events.is_empty());
    error
}

fn frame_of(pair: &mut Pair, message: usize) -> Vec<u8> {
    match message {
        0 | 2 | 4 => pair.take_reader_frame(message / 2),
        _ => pair.take_server_frame(message / 2),
    }
}

#[test]
fn handshakes_time_out() {
    let mut world = world(18);
    let mut pair = world.connect();
    let deadline = pair.server.poll_timeout().unwrap();
    assert_eq!(deadline, world.now.plus(countersign_channel::HANDSHAKE_TIMEOUT));
    let before = deadline.minus(Duration::from_millis(1));
    assert_eq!(pair.server.handle_timeout(before), Ok(()));
    assert_eq!(pair.server.handle_timeout(deadline), Err(Error::Timeout));
    assert_eq!(pair.reader.handle_timeout(deadline), Err(Error::Timeout));
    let connected = connected(&mut world);
    assert_eq!((connected.server.poll_timeout(), connected.reader.poll_timeout()), (None, None));
}

/// Same seed, same bytes: the pure-Rust provider replays.
#[test]
fn handshakes_replay_under_a_seed() {
    for provider in [rust_crypto::provider(), sm::provider()] {
        for mode in MODES {
            let frames = || {
                let mut world = world_with(&provider, 19).speaking(mode);
                (0..5).map(|message| frame_of(&mut world.connect(), message)).collect::<Vec<_>>()
            };
            assert_eq!(frames(), frames());
        }
    }
    let mut world = world_with(&rust_crypto::provider(), 20);
    assert_ne!(world.connect().take_server_frame(1), world.connect().take_server_frame(1));
}
