//! Handshake C1 and its records, by the goals of `docs/protocols/channel.md`.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod identity;
mod replay;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use countersign_channel::{Error, ReaderConfig, ReaderEvent, ReaderId, ServerConfig, ServerEvent};
use countersign_crypto::{Provider, aws_lc, rust_crypto};
use testkit::pair::{Pair, World};

fn world_with(provider: &Provider, seed: u64) -> World {
    World::new(provider.clone(), provider.clone(), provider.clone(), seed)
}

fn world(seed: u64) -> World {
    world_with(&aws_lc::provider(), seed)
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
    for (reader, server) in [
        (rust_crypto::provider(), aws_lc::provider()),
        (aws_lc::provider(), rust_crypto::provider()),
    ] {
        let mut world = World::new(rust_crypto::provider(), reader, server, 1);
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
    let mut world = world(2);
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

#[test]
fn bytes_may_arrive_one_at_a_time() {
    let mut world = world(3);
    let mut pair = world.connect();
    for _ in 0..3 {
        pair.collect();
        for frame in pair.to_server.drain(..).collect::<Vec<_>>() {
            for byte in frame {
                pair.deliver_to_server(&[byte]).unwrap();
            }
        }
        pair.collect();
        for frame in pair.to_reader.drain(..).collect::<Vec<_>>() {
            for byte in frame {
                pair.deliver_to_reader(&[byte]).unwrap();
            }
        }
    }
    assert!(matches!(pair.server_events[0], ServerEvent::Connected));
}

fn with_reader(world: &mut World, change: impl FnOnce(&mut ReaderConfig)) {
    change(Arc::get_mut(&mut world.reader).expect("not shared yet"));
}

fn with_server(world: &mut World, change: impl FnOnce(&mut ServerConfig)) {
    change(Arc::get_mut(&mut world.server).expect("not shared yet"));
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
    let frames = || {
        let mut world = world_with(&rust_crypto::provider(), 19);
        (0..5).map(|message| frame_of(&mut world.connect(), message)).collect::<Vec<_>>()
    };
    assert_eq!(frames(), frames());
    let mut world = world_with(&rust_crypto::provider(), 20);
    assert_ne!(world.connect().take_server_frame(1), world.connect().take_server_frame(1));
}
