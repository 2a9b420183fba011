//! Sleep mode and its heartbeat (A6), in virtual time.

use countersign_channel::Heartbeat;
use countersign_crypto::UnixTime;

use super::*;

const T1: Duration = Duration::from_secs(20);
const T2: Duration = Duration::from_secs(5);
const TIMES: Heartbeat = Heartbeat { every: T1, within: T2 };

/// A connected pair whose reader sleeps and whose server watches.
fn asleep(world: &mut World) -> Pair {
    let mut pair = connected(world);
    pair.reader.sleep(pair.now, TIMES).unwrap();
    pair.server.watch(pair.now, TIMES).unwrap();
    pair
}

/// Winds both machines' clock to `now`.
fn tick(pair: &mut Pair, now: UnixTime) -> (Result<(), Error>, Result<(), Error>) {
    pair.now = now;
    (pair.reader.handle_timeout(now), pair.server.handle_timeout(now))
}

#[test]
fn a6_a_sleeper_probes_every_t1_and_stays_connected() {
    for (_, mut world) in worlds(60) {
        let mut pair = asleep(&mut world);
        let start = pair.now;
        for beat in 1..=100 {
            let due = start.plus(T1 * beat);
            assert_eq!(pair.reader.poll_timeout(), Some(due));
            let early = due.minus(Duration::from_millis(1));
            assert_eq!(tick(&mut pair, early), (Ok(()), Ok(())));
            pair.collect();
            assert!(pair.to_server.is_empty(), "no probe before its time");
            assert_eq!(tick(&mut pair, due), (Ok(()), Ok(())));
            pair.collect();
            assert_eq!(pair.to_server.len(), 1);
            assert_eq!(pair.reader.poll_timeout(), Some(due.plus(T2)), "the answer's deadline");
            pair.drive().unwrap();
            assert!(pair.server_events.is_empty(), "probes are not the application's business");
        }
        // It wakes up, and works as before; no timer is left.
        pair.reader.wake().unwrap();
        pair.server.wake().unwrap();
        assert_eq!((pair.reader.poll_timeout(), pair.server.poll_timeout()), (None, None));
        pair.reader.send(b"awake").unwrap();
        pair.drive().unwrap();
        assert_eq!(server_data(&mut pair), [b"awake".to_vec()]);
    }
}

/// No answer within t2: the sleeper drops the connection, and its keys are gone.
#[test]
fn a6_a_sleeper_gives_a_silent_peer_up_and_wipes_its_keys() {
    let mut world = world(61);
    let mut pair = asleep(&mut world);
    let probe_at = pair.now.plus(T1);
    assert_eq!(tick(&mut pair, probe_at), (Ok(()), Ok(())));
    pair.collect();
    pair.to_server.clear(); // the probe is lost
    let last = probe_at.plus(T2).minus(Duration::from_millis(1));
    assert_eq!(pair.reader.handle_timeout(last), Ok(()));
    assert_eq!(pair.reader.handle_timeout(probe_at.plus(T2)), Err(Error::Silent));
    assert_eq!(pair.reader.poll_timeout(), None);
    assert!(pair.reader.exporter().is_none() && pair.reader.peer().is_none());
    assert_eq!(pair.reader.send(b"x"), Err(Error::Dead));
    // A late answer finds nobody.
    pair.server.send(b"late").unwrap();
    pair.collect();
    let late = pair.to_reader.pop_front().unwrap();
    assert_eq!(pair.deliver_to_reader(&late), Err(Error::Dead));
}

/// The side that watches drops a sleeper whose probes stop, after t1 + t2; traffic counts as life.
#[test]
fn a6_a_watcher_drops_a_sleeper_whose_probes_stop() {
    let mut world = world(62);
    let mut pair = asleep(&mut world);
    pair.now = pair.now.plus(T1);
    pair.reader.send(b"not asleep after all").unwrap();
    pair.drive().unwrap();
    let deadline = pair.now.plus(T1 + T2);
    assert_eq!(pair.server.poll_timeout(), Some(deadline));
    let before = deadline.minus(Duration::from_millis(1));
    assert_eq!(pair.server.handle_timeout(before), Ok(()));
    assert_eq!(pair.server.handle_timeout(deadline), Err(Error::Silent));
    assert_eq!(pair.server.send(b"x"), Err(Error::Dead));
    // Forged bytes are no sign of life: they end the session before any timer does.
    let mut pair = asleep(&mut world);
    let forged = [b"CS\x01\x01\x10\x00\x00\x20", &[0; 32][..]].concat();
    assert_eq!(pair.deliver_to_server(&forged), Err(Error::Authentication("record")));
}

/// Answers cannot be made to pile up, whatever a peer sends before this side has sent anything.
#[test]
fn a6_probes_are_answered_once_per_flight() {
    let mut world = world(63);
    let mut pair = connected(&mut world);
    let often = Heartbeat { every: Duration::from_secs(1), within: Duration::from_secs(10) };
    pair.reader.sleep(pair.now, often).unwrap();
    let mut probes = Vec::new();
    for beat in 1..=5 {
        pair.reader.handle_timeout(pair.now.plus(often.every * beat)).unwrap();
        pair.collect();
        probes.extend(pair.to_server.drain(..));
    }
    assert_eq!(probes.len(), 5);
    let probes = probes.concat();
    pair.deliver_to_server(&probes).unwrap();
    pair.collect();
    assert_eq!(pair.to_reader.len(), 1);
}

#[test]
fn a6_times_of_zero_and_unopened_sessions_are_misuse() {
    let mut world = world(64);
    let mut pair = connected(&mut world);
    let zero = Heartbeat { every: Duration::ZERO, within: T2 };
    assert!(matches!(pair.reader.sleep(pair.now, zero), Err(Error::Misuse(_))));
    let mut early = world.connect();
    assert!(matches!(early.reader.sleep(early.now, TIMES), Err(Error::Misuse(_))));
    assert!(matches!(early.server.watch(early.now, TIMES), Err(Error::Misuse(_))));
    // A late timer: the probe is overdue and so is the answer; silence wins over another probe.
    pair.reader.sleep(pair.now, TIMES).unwrap();
    let due = pair.now.plus(T1);
    pair.reader.handle_timeout(due).unwrap();
    assert_eq!(pair.reader.handle_timeout(due.plus(T1 * 10)), Err(Error::Silent));
}
