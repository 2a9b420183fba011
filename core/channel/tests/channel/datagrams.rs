//! Links that lose, double, swap and damage: handshake and records over datagrams (C10, G12).

use countersign_channel::{
    AlertCode, Challenges, Delivery, Heartbeat, Policy, Protection, REPLAY_WINDOW, SharedChallenges,
};
use rand_chacha::ChaCha20Rng;
use rand_core::Rng;

use super::*;

fn lossy(mode: Mode, seed: u64) -> World {
    world(seed).speaking(mode).under(Policy { delivery: Delivery::Datagrams, ..Policy::default() })
}

/// What happens to one datagram, by chance: how many copies arrive, and whether swapped.
fn weather(rng: &mut ChaCha20Rng, percent: u32) -> (usize, bool) {
    let lost = rng.next_u32() % 100 < percent;
    let doubled = rng.next_u32() % 100 < percent;
    (usize::from(!lost) * (1 + usize::from(doubled)), rng.next_u32() % 100 < percent)
}

/// Runs both machines over a bad link until both are connected or time is up.
fn struggle(pair: &mut Pair, rng: &mut ChaCha20Rng, percent: u32) -> bool {
    let start = pair.now;
    let mut under_way: Vec<(bool, Vec<u8>)> = Vec::new();
    loop {
        pair.collect();
        let sent = pair.to_server.drain(..).map(|frame| (true, frame));
        let sent: Vec<_> =
            sent.chain(pair.to_reader.drain(..).map(|frame| (false, frame))).collect();
        for datagram in sent {
            let (copies, swapped) = weather(rng, percent);
            for _ in 0..copies {
                let at = if swapped { 0 } else { under_way.len() };
                under_way.insert(at, datagram.clone());
            }
        }
        if under_way.is_empty() {
            if pair.reader.policy().is_some() && pair.server.policy().is_some() {
                return true;
            }
            // Nothing moves until a timer does.
            let due = [pair.reader.poll_timeout(), pair.server.poll_timeout()];
            let Some(due) = due.into_iter().flatten().min() else { return false };
            pair.now = pair.now.max(due);
            if pair.reader.handle_timeout(due).and(pair.server.handle_timeout(due)).is_err() {
                assert!(pair.now >= start.plus(countersign_channel::HANDSHAKE_TIMEOUT));
                return false;
            }
            continue;
        }
        let (to_server, frame) = under_way.remove(0);
        let delivered =
            if to_server { pair.deliver_to_server(&frame) } else { pair.deliver_to_reader(&frame) };
        // Loss, doubling and swapping are no reason to end anything.
        assert_eq!(delivered, Ok(()));
    }
}

/// Handshakes get through a link that loses, doubles and swaps a third of all datagrams: each
/// message is repeated until its answer comes. One challenge connects once.
#[test]
fn handshakes_survive_loss_doubling_and_swapping() {
    for mode in MODES {
        let mut connected = 0;
        for seed in 0..60 {
            let mut world = lossy(mode, 80);
            let mut rng = testkit::rng::seeded(seed);
            let mut pair = world.connect();
            if struggle(&mut pair, &mut rng, 33) {
                connected += 1;
                let times =
                    pair.server_events.iter().filter(|e| matches!(e, ServerEvent::Connected));
                assert_eq!(times.count(), 1);
            }
        }
        assert!(connected >= 50, "{mode:?}: {connected} of 60 within the handshake's deadline");
    }
    let mut world = lossy(Mode::C1, 80);
    let mut pair = world.connect();
    assert!(struggle(&mut pair, &mut testkit::rng::seeded(1), 0));
    assert_eq!((pair.reader.discarded(), pair.server.discarded()), (0, 0));
}

/// A server that was restarted between M1 and M2 says so, and keeps nothing: the reader need not
/// wait for an M3. Of anything else that is wrong in M2 a stranger is told nothing.
#[test]
fn a_stale_challenge_is_told_and_other_wrong_proofs_are_not() {
    for mode in MODES {
        let mut world = lossy(mode, 86);
        let mut pair = world.connect();
        let m2 = pair.take_reader_frame(1);
        world.change_server(|config| {
            let fresh = Challenges::new(aws_lc::provider());
            config.challenges = std::sync::Arc::new(SharedChallenges::new(fresh));
        });
        let mut other = world.connect();
        other.deliver_to_server(&m2).unwrap();
        let alert = other.server.poll_transmit().expect("an alert");
        assert!(alert.len() * 4 < m2.len(), "{} for {}", alert.len(), m2.len());
        assert_eq!(other.server.poll_transmit(), None);
        assert!(!other.server.is_asking());
        let told = pair.deliver_to_reader(&alert).unwrap_err();
        assert!(
            matches!(told, Error::Alert { code: AlertCode::ChallengeStale, .. }),
            "{mode:?}: {told}"
        );
        // It serves whoever comes next as if nothing had been.
        other.drive().unwrap();
        assert!(matches!(other.server_events[0], ServerEvent::Connected));

        let mut pair = world.connect();
        let m2 = pair.take_reader_frame(1);
        let mut forged = m2.clone();
        forged[8 + 20] ^= 1; // inside the challenge's MAC
        pair.deliver_to_server(&forged).unwrap();
        pair.deliver_to_server(&m2[..m2.len() - 1]).unwrap();
        assert_eq!(pair.server.poll_transmit(), None, "{mode:?}");
        pair.deliver_to_server(&m2).unwrap();
        pair.drive().unwrap();
        let mut late = world.connect();
        late.deliver_to_server(&m2).unwrap();
        assert_eq!(late.server.poll_transmit(), None, "{mode:?}: used before");
    }
}

/// Records: whatever arrives, in whatever order, is delivered once; the rest is dropped silently.
#[test]
fn g12_datagrams_are_delivered_once_whatever_the_link_does() {
    for protection in [Protection::EncryptAndMac, Protection::Mac, Protection::Encrypt] {
        let policy =
            Policy { protection, delivery: Delivery::Datagrams, certificate_sealed: false };
        let mut world = world(81).under(policy);
        let mut pair = connected(&mut world);
        let mut rng = testkit::rng::seeded(82);
        let mut wire: Vec<Vec<u8>> = Vec::new();
        for number in 0..500_u32 {
            if number == 250 {
                pair.reader.rekey().unwrap();
            }
            pair.reader.send(&number.to_be_bytes()).unwrap();
            pair.collect();
            for frame in pair.to_server.drain(..) {
                let (copies, _) = weather(&mut rng, 20);
                (0..copies).for_each(|_| wire.push(frame.clone()));
                if rng.next_u32().is_multiple_of(5) {
                    let mut damaged = frame.clone();
                    let at = rng.next_u32() as usize % damaged.len();
                    damaged[at] ^= 1 << (rng.next_u32() % 8);
                    wire.push(damaged);
                }
            }
        }
        // Swapped within a stretch shorter than the window; the key's change stays where it was.
        for stretch in wire.chunks_mut(40) {
            for at in (1..stretch.len()).rev() {
                stretch.swap(at, rng.next_u32() as usize % (at + 1));
            }
        }
        let first_copies =
            |frames: &[Vec<u8>]| frames.iter().collect::<std::collections::BTreeSet<_>>().len();
        let offered = first_copies(&wire);
        for frame in &wire {
            pair.deliver_to_server(frame).unwrap();
        }
        let mut numbers: Vec<_> = server_data(&mut pair);
        let delivered = numbers.len();
        numbers.sort();
        numbers.dedup();
        assert_eq!(numbers.len(), delivered, "{protection:?}: nothing twice");
        assert!(delivered > 350 && delivered < offered, "{protection:?}: {delivered}");
        assert_eq!(pair.server.discarded(), (wire.len() - delivered) as u64);
        // Replaying everything brings nothing.
        wire.iter().for_each(|frame| pair.deliver_to_server(frame).unwrap());
        assert!(pair.server_events.is_empty());
    }
}

/// A forged number, far ahead or far behind, neither moves the window nor the key.
#[test]
fn g12_forged_numbers_change_nothing() {
    let mut world = lossy(Mode::C1, 83);
    let mut pair = connected(&mut world);
    let mut records = Vec::new();
    for number in 0..=REPLAY_WINDOW {
        pair.reader.send(&number.to_be_bytes()).unwrap();
        pair.collect();
        records.push(pair.to_server.pop_front().unwrap());
    }
    for forged in [u64::MAX, 1 << 40, 1 << 24, 2000, 1] {
        let mut bytes = records[0].clone();
        bytes[8..16].copy_from_slice(&forged.to_be_bytes());
        pair.deliver_to_server(&bytes).unwrap();
    }
    assert!(pair.server_events.is_empty());
    // The newest first: the oldest is just outside the window, the second still inside.
    let newest = records.last().unwrap().clone();
    for (record, taken) in [(&newest, true), (&records[0], false), (&records[1], true)] {
        pair.deliver_to_server(record).unwrap();
        assert_eq!(server_data(&mut pair).len(), usize::from(taken));
    }
    // Stream records and handshake messages say nothing in such a session.
    let discarded = pair.server.discarded();
    pair.deliver_to_server(b"CS\x01\x01\x10\x00\x00\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").unwrap();
    pair.deliver_to_server(b"noise").unwrap();
    assert_eq!(pair.server.discarded(), discarded + 2);
}

/// The heartbeat works over datagrams; an answer that is lost costs the session, so t2 must allow
/// for what the link loses.
#[test]
fn a6_probes_cross_datagrams_and_close_is_final() {
    let mut world = lossy(Mode::C2, 84);
    let mut pair = connected(&mut world);
    let times = Heartbeat { every: Duration::from_secs(1), within: Duration::from_secs(10) };
    pair.reader.sleep(pair.now, times).unwrap();
    pair.server.watch(pair.now, times).unwrap();
    for beat in 1..=30 {
        pair.now = pair.now.plus(times.every);
        pair.reader.handle_timeout(pair.now).unwrap();
        pair.server.handle_timeout(pair.now).unwrap();
        pair.collect();
        if beat % 3 != 0 {
            pair.to_server.clear(); // two of three probes are lost
        }
        pair.drive().unwrap();
    }
    pair.reader.send(b"late").unwrap();
    pair.reader.close().unwrap();
    pair.collect();
    let late = pair.to_server.pop_front().unwrap();
    pair.drive().unwrap();
    assert!(matches!(pair.server_events.pop(), Some(ServerEvent::Closed)));
    pair.deliver_to_server(&late).unwrap();
    assert!(pair.server_events.is_empty(), "nothing after the close");
    assert_eq!(pair.server.handle_end(), Ok(()));
}
