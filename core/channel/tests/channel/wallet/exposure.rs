//! What signatures are made over (G10), what never travels (G13), what an eavesdropper sees (G16).

use std::sync::Arc;

use countersign_crypto::Domain;

use super::*;
use crate::exposure::{Recording, Signed, shows};

fn recorded(mode: Mode, seed: u64) -> (World, Signed, Signed) {
    let mut world = world_for(mode, seed);
    let (sleeve, manager) = (Signed::default(), Signed::default());
    world.change_sleeve(|config| {
        let key = &mut config.credentials[0].key;
        *key = Arc::new(Recording { inner: key.clone(), signed: sleeve.clone() });
    });
    world.change_manager(|config| {
        let key = &mut config.credentials[0].key;
        *key = Arc::new(Recording { inner: key.clone(), signed: manager.clone() });
    });
    (world, sleeve, manager)
}

/// G10: whatever the peer sends, a party signs context, purpose, mode, role, both ids and a hash
/// that its own fresh share went into, in the handshakes' domain: never bytes that somebody chose.
#[test]
fn g10_nobody_chooses_what_a_party_signs() {
    for mode in MODES {
        let (mut world, sleeve, manager) = recorded(mode, 280);
        for _ in 0..3 {
            connected(&mut world, mode);
        }
        let (sleeve, manager) = (sleeve.lock().unwrap(), manager.lock().unwrap());
        let epochs = usize::from(mode != Mode::A1); // one share was signed, first
        assert_eq!((sleeve.len(), manager.len()), (3, 3 + epochs), "{mode:?}");
        if mode != Mode::A1 {
            let start = [&b"Countersign v1 epoch share"[..], &[mode as u8, 4]].concat();
            assert!(manager[0].1.starts_with(&start), "role and mode are in it");
        }
        let mut hashes = Vec::new();
        for (role, (domain, message)) in
            sleeve.iter().map(|one| (3, one)).chain(manager[epochs..].iter().map(|one| (4, one)))
        {
            assert_eq!(*domain, Domain::Handshake);
            let rest = message.strip_prefix(b"Countersign v1 signature").unwrap();
            assert_eq!(rest[..2], [mode as u8, role]);
            let five = 5_u64.to_be_bytes();
            let ids = [&26_u64.to_be_bytes()[..], &five, b"SLV-1", &five, b"MGR-1"].concat();
            let hash = rest[2..].strip_prefix(&ids[..]).unwrap();
            assert_eq!(hash.len(), 32);
            hashes.push(hash.to_vec());
        }
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 6, "no hash is signed twice");
    }
}

/// All frames of one contact, and of a few records after it.
fn overheard(world: &mut World, mode: Mode) -> (Pair, Vec<Vec<u8>>) {
    let mut pair = world.contact(mode);
    let mut frames = Vec::new();
    for n in 0..messages(mode) {
        pair.collect();
        let wire = if n % 2 == 0 { &mut pair.to_manager } else { &mut pair.to_sleeve };
        let frame = wire.pop_front().unwrap();
        pair.deliver_message(n, &frame).unwrap();
        frames.push(frame);
    }
    pair.sleeve.send(b"SLV-1 at MGR-1").unwrap();
    pair.manager.send(b"MGR-1 to SLV-1").unwrap();
    pair.collect();
    frames.extend(pair.to_manager.drain(..).chain(pair.to_sleeve.drain(..)));
    (pair, frames)
}

/// G13: the factor is in no frame, nor is any part of it, and nothing that travels twice is made of
/// it: two binders of one pair differ.
#[test]
fn g13_the_binding_factor_never_travels() {
    for (mode, mut world) in worlds(281) {
        let (pair, frames) = overheard(&mut world, mode);
        let (_, again) = overheard(&mut world, mode);
        let factor = pair.of_sleeve.as_ref().unwrap().factor.expose().to_vec();
        for part in factor.chunks(8) {
            assert!(shows(&frames, part).is_empty(), "{mode:?}");
        }
        if mode != Mode::A1 {
            let binder = |frame: &[u8]| {
                let sealed = if mode == Mode::A2 { 48 } else { 92 };
                let head = 8 + 49 + 32;
                let request = usize::from(u16::from_be_bytes([frame[head], frame[head + 1]]));
                let at = head + 2 + request;
                assert_eq!(usize::from(frame[at]), sealed);
                frame[at + 1 + sealed..at + 1 + sealed + 32].to_vec()
            };
            let (first, second) = (binder(&frames[2]), binder(&again[2]));
            assert_ne!(first, second, "{mode:?}");
            assert_ne!(first, factor);
        }
    }
}

/// G16: exactly what `docs/protocols/channel.md` states, message by message.
#[test]
fn g16_an_eavesdropper_sees_the_stated_identities_and_no_others() {
    for (mode, mut world) in worlds(282) {
        let (_, frames) = overheard(&mut world, mode);
        assert_eq!(frames.len(), messages(mode) + 2);
        let certificates =
            [&world.sleeve.credentials[0].certificate, &world.manager.credentials[0].certificate];
        let shown = certificates.map(|certificate| shows(&frames, certificate));
        let (sleeve, manager) = (shows(&frames, b"SLV-1"), shows(&frames, b"MGR-1"));
        match mode {
            Mode::A1 => {
                assert_eq!(shown, [vec![0], vec![1]]);
                assert_eq!((sleeve, manager), (vec![0], vec![1]));
            }
            Mode::A2 => {
                assert!(shown.concat().is_empty(), "no certificate travels");
                assert_eq!(
                    (sleeve, manager),
                    (vec![0, 2], Vec::new()),
                    "nothing names the manager"
                );
            }
            _ => {
                assert!(shown.concat().is_empty(), "no certificate travels");
                assert_eq!((sleeve, manager), (vec![0, 2], vec![1]));
            }
        }
    }
}

/// Same seed, same bytes: a pure-Rust handshake replays.
#[test]
fn handshakes_replay_under_a_seed() {
    for provider in
        [countersign_crypto::rust_crypto::provider(), countersign_crypto::sm::provider()]
    {
        for mode in MODES {
            let frames = || {
                let mut world = world_with(&provider, 283);
                if mode != Mode::A1 {
                    world = world.paired();
                }
                overheard(&mut world, mode).1
            };
            assert_eq!(frames(), frames());
        }
    }
}
