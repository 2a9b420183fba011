//! A1, and what A2 and A3 do about it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

use countersign_channel::{Error, HANDSHAKE_TIMEOUT, PAIRING_TIMEOUT, Pairing};
use tokio::time::advance;

use super::super::MANAGERS_MAX;
use super::*;

fn only(world: &World) -> (String, bool) {
    let managers = world.sleeve.dir().managers().unwrap();
    assert_eq!(managers.len(), 1);
    (managers[0].id.clone(), managers[0].pending)
}

fn none(world: &World) -> bool {
    world.sleeve.dir().managers().unwrap().is_empty()
}

#[tokio::test(start_paused = true)]
async fn a1_a_pair_connects_either_way_in_both_suites_also_after_a_restart() {
    for suite in Suite::known() {
        let world = World::of(suite);
        let asked = Arc::new(AtomicBool::new(false));
        let seen = asked.clone();
        let paired = world
            .sleeve
            .pair(&way(), Some(MANAGER), move |Shown { manager, .. }| {
                seen.store(manager == MANAGER, Ordering::SeqCst);
                true
            })
            .await
            .unwrap();
        assert!(asked.load(Ordering::SeqCst));
        assert_eq!((&*paired.id, paired.suite, paired.pending), (MANAGER, suite, false));
        assert!(world.home.knows(SLEEVE));
        let world = world.restart();
        assert_eq!(only(&world), (MANAGER.to_owned(), false));
        for mode in [Mode::A2, Mode::A3] {
            let (session, _) = world.connect(mode).await.unwrap();
            assert_eq!((session.manager(), session.mode()), (MANAGER, mode));
            assert_eq!(session.suite(), suite);
            session.close().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a1_a_no_a_closed_window_another_manager_and_silence_leave_both_lists_unchanged() {
    let world = World::new();
    let refused = world.sleeve.pair(&way(), None, |_| false).await.unwrap_err();
    assert_eq!(refused.check(), "pairing-refused");
    let other = world.sleeve.pair(&way(), Some("MGR-2"), |_| panic!("asked")).await;
    assert_eq!(other.unwrap_err().check(), "other-manager");
    world.home.fault(|faults| &faults.closed, true);
    assert_eq!(world.pair().await.unwrap_err().check(), "pairing-closed");
    world.home.fault(|faults| &faults.closed, false);
    // A user who cannot be asked has not said yes.
    let error = world.sleeve.pair(&way(), None, |_| panic!("no screen")).await;
    assert_eq!(error.unwrap_err().check(), "pairing-refused");
    assert!(none(&world) && !world.home.knows(SLEEVE));
    // Nor has one who says nothing: the time is over.
    let (never, says) = std::sync::mpsc::channel::<()>();
    let (asks, asked) = tokio::sync::oneshot::channel();
    let way = way();
    let pairing = world.sleeve.pair(&way, None, move |_| {
        asks.send(()).unwrap();
        says.recv().is_ok()
    });
    let waiting = async {
        asked.await.unwrap();
        advance(PAIRING_TIMEOUT + Duration::from_secs(1)).await;
    };
    let (error, ()) = tokio::join!(pairing, waiting);
    drop(never);
    assert_eq!(error.unwrap_err().check(), "handshake-timeout");
    assert!(none(&world) && !world.home.knows(SLEEVE));
}

#[tokio::test(start_paused = true)]
async fn a1_a_refusal_after_the_yes_leaves_it_pending_for_it_may_be_forged() {
    let world = World::new();
    world.home.fault(|faults| &faults.full, true);
    let error = world.pair().await.unwrap_err();
    assert!(matches!(error, SleeveError::Channel(Error::Alert { .. })), "{error:?}");
    assert!(!world.home.knows(SLEEVE));
    assert_eq!(only(&world), (MANAGER.to_owned(), true));
    for mode in [Mode::A2, Mode::A3] {
        assert_eq!(world.connect(mode).await.unwrap_err().check(), "sleeve-unknown");
        assert_eq!(only(&world), (MANAGER.to_owned(), true));
    }
    world.home.fault(|faults| &faults.full, false);
    world.pair().await.unwrap();
    assert_eq!(only(&world), (MANAGER.to_owned(), false));
    world.connect(Mode::A2).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a1_a_lost_acknowledgement_is_settled_by_the_next_connect() {
    for mode in [Mode::A2, Mode::A3] {
        let world = World::new();
        world.home.fault(|faults| &faults.acknowledgement_lost, true);
        let error = world.pair().await.unwrap_err();
        assert_eq!((error.check(), error.is_environment()), ("pairing-unconfirmed", true));
        let world = world.restart();
        assert_eq!(only(&world), (MANAGER.to_owned(), true));
        let (session, _) = world.connect(mode).await.unwrap();
        session.close().await;
        assert_eq!(only(&world), (MANAGER.to_owned(), false));
    }
}

#[tokio::test(start_paused = true)]
async fn a1_pairing_again_never_bricks_a_pair() {
    let world = World::paired().await;
    // The manager has not stored the new pairing: the former one goes on.
    world.home.fault(|faults| &faults.gone_before_storing, true);
    assert_eq!(world.pair().await.unwrap_err().check(), "pairing-unconfirmed");
    let (session, _) = world.connect(Mode::A2).await.unwrap();
    session.close().await;
    // It has stored it, and nobody was told.
    world.home.fault(|faults| &faults.gone_before_storing, false);
    world.home.fault(|faults| &faults.acknowledgement_lost, true);
    assert_eq!(world.pair().await.unwrap_err().check(), "pairing-unconfirmed");
    for mode in [Mode::A3, Mode::A2] {
        let (session, _) = world.connect(mode).await.unwrap();
        session.close().await;
    }
    assert_eq!(only(&world), (MANAGER.to_owned(), false));
}

#[tokio::test(start_paused = true)]
async fn a1_lost_messages_one_after_the_other_never_brick_a_pair() {
    let world = World::paired().await;
    // The manager has the second pairing; the third is lost.
    world.home.fault(|faults| &faults.acknowledgement_lost, true);
    assert_eq!(world.pair().await.unwrap_err().check(), "pairing-unconfirmed");
    world.home.fault(|faults| &faults.acknowledgement_lost, false);
    world.home.fault(|faults| &faults.gone_before_storing, true);
    assert_eq!(world.pair().await.unwrap_err().check(), "pairing-unconfirmed");
    let world = world.restart();
    for mode in [Mode::A2, Mode::A3] {
        world.connect(mode).await.unwrap();
    }
    // More of them than are kept: nothing is dropped for another one.
    for _ in 1..4 {
        assert_eq!(world.pair().await.unwrap_err().check(), "pairing-unconfirmed");
    }
    assert_eq!(world.pair().await.unwrap_err().check(), "too-many-pending");
    world.connect(Mode::A2).await.unwrap();
    // In time that settles them.
    tokio::time::sleep(PAIRING_TIMEOUT).await;
    world.connect(Mode::A2).await.unwrap();
    assert_eq!(world.sleeve.dir().pairings(MANAGER).unwrap().len(), 1);
    world.home.fault(|faults| &faults.gone_before_storing, false);
    world.pair().await.unwrap();
    world.connect(Mode::A3).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a1_a_proof_that_arrives_late_bricks_no_pair() {
    let world = World::paired().await;
    world.home.fault(|faults| &faults.gone_before_storing, true);
    assert_eq!(world.pair().await.unwrap_err().check(), "pairing-unconfirmed");
    // Somebody holds the proof back, and the former pairing connects meanwhile.
    world.connect(Mode::A2).await.unwrap();
    assert_eq!(world.sleeve.dir().pairings(MANAGER).unwrap().len(), 2);
    world.home.proof_arrives();
    world.connect(Mode::A2).await.unwrap();
    assert_eq!(world.sleeve.dir().pairings(MANAGER).unwrap().len(), 1);
    assert_eq!(only(&world), (MANAGER.to_owned(), false));
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_knows_no_such_sleeve_refuses_it_and_the_pairing_stays() {
    let world = World::new();
    let unnamed = world.connect(Mode::A2).await.unwrap_err();
    assert_eq!(unnamed.check(), "manager-unnamed");
    let unknown = world.sleeve.connect(&way(), Mode::A2, Some(MANAGER)).await.unwrap_err();
    assert_eq!(unknown.check(), "manager-unknown");
    world.pair().await.unwrap();
    world.home.shared.pairings.lock().unwrap().clear();
    for mode in [Mode::A2, Mode::A3] {
        let refused = world.connect(mode).await.unwrap_err();
        assert_eq!((refused.check(), refused.may_pass()), ("sleeve-unknown", false));
    }
    assert_eq!(only(&world), (MANAGER.to_owned(), false));
    assert!(world.sleeve.dir().forget(MANAGER).unwrap());
    assert!(!world.sleeve.dir().forget(MANAGER).unwrap());
    assert!(none(&world));
    // A1 is no way to connect.
    world.pair().await.unwrap();
    assert_eq!(world.connect(Mode::A1).await.unwrap_err().check(), "misuse");
}

#[tokio::test(start_paused = true)]
async fn nobody_at_home_is_told_as_such_and_tried_again_after_growing_pauses() {
    let world = World::paired().await;
    let network = &world.home.network;
    let nowhere = Way::Direct("127.0.0.1:1".to_owned());
    let error = world.sleeve.connect(&nowhere, Mode::A2, None).await.unwrap_err();
    assert_eq!((error.check(), error.is_environment()), ("manager-unreachable", true));
    world.home.network.away.store(true, Ordering::SeqCst);
    network.tried.lock().unwrap().clear();
    let within = Duration::from_secs(12);
    let begun = Instant::now();
    let error = world.sleeve.connect_within(&way(), Mode::A2, None, within).await.unwrap_err();
    assert_eq!(error.check(), "manager-unreachable");
    let tried = || {
        let tried = network.tried.lock().unwrap();
        tried.iter().map(|at| (*at - begun).as_millis()).collect::<Vec<_>>()
    };
    // The pause doubles up to five seconds.
    assert_eq!(tried(), [0, 200, 600, 1400, 3000, 6200, 11_200]);
    assert!(begun.elapsed() < within);
    let unnamed = world.sleeve.pair(&Way::Relay("127.0.0.1:1".into()), None, |_| true).await;
    assert_eq!(unnamed.unwrap_err().check(), "manager-unnamed");
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_comes_back_is_met_and_one_that_refuses_is_not_tried_again() {
    let world = World::paired().await;
    let network = &world.home.network;
    network.away.store(true, Ordering::SeqCst);
    network.tried.lock().unwrap().clear();
    let within = Duration::from_secs(60);
    let coming = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        // It is there, and at first its answers get lost.
        network.away.store(false, Ordering::SeqCst);
        world.home.fault(|faults| &faults.gone_at_connect, true);
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.home.fault(|faults| &faults.gone_at_connect, false);
    };
    let way = way();
    let connecting = world.sleeve.connect_within(&way, Mode::A3, None, within);
    let (connected, ()) = tokio::join!(connecting, coming);
    connected.unwrap();
    assert_eq!(network.tried.lock().unwrap().len(), 5); // 0, 0.2, 0.6, 1.4 and 3 s
    world.home.shared.pairings.lock().unwrap().clear();
    network.tried.lock().unwrap().clear();
    let refused = world.sleeve.connect_within(&way, Mode::A3, None, within).await.unwrap_err();
    assert_eq!(refused.check(), "sleeve-unknown");
    assert_eq!(network.tried.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_says_nothing_is_given_up_in_time() {
    let world = World::paired().await;
    world.home.network.dead.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    let error = world.connect(Mode::A2).await.unwrap_err();
    assert_eq!((error.check(), error.may_pass()), ("handshake-timeout", true));
    let took = begun.elapsed();
    assert!(took >= HANDSHAKE_TIMEOUT && took < HANDSHAKE_TIMEOUT + GRACE, "{took:?}");
    assert_eq!(world.home.network.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_directory_is_one_programs_and_its_factors_are_private() {
    let world = World::paired().await;
    let path = world.dir.path().join("sleeve");
    assert_eq!(SleeveDir::open(&path).unwrap_err().check(), "device-busy");
    let pairings = path.join("pairings");
    let files: Vec<_> = fs::read_dir(&pairings).unwrap().map(|file| file.unwrap()).collect();
    assert_eq!(files.len(), 1);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&pairings), mode(&files[0].path())), (0o700, 0o600));
    // What a crash left half written is nobody's pairing, and goes; what is damaged is told.
    let half = files[0].path().with_extension("new");
    fs::write(&half, "{").unwrap();
    assert_eq!(only(&world), (MANAGER.to_owned(), false));
    let world = world.restart();
    assert_eq!((half.exists(), only(&world)), (false, (MANAGER.to_owned(), false)));
    let whole = fs::read_to_string(files[0].path()).unwrap();
    for damaged in [
        whole.replace(MANAGER, "MGR-2"),
        whole.replace("\"factor\":\"", "\"factor\":\"x"),
        whole[..whole.len() - 1].to_owned(),
        " ".repeat(40 * 1024),
    ] {
        assert_ne!(damaged, whole);
        fs::write(files[0].path(), damaged).unwrap();
        let error = world.sleeve.dir().managers().unwrap_err();
        assert_eq!(error.check(), "device-damaged");
        assert!(!error.to_string().contains("factor\":"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn other_devices_directories_are_no_sleeves() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("reader");
    let mut rng = testkit::rng::seeded(1);
    DeviceDir::open_or_make(&path, "RD-1", &aws_lc::provider(), &mut rng).unwrap();
    assert_eq!(SleeveDir::open(&path).unwrap_err().check(), "device-kind");
    assert_eq!(SleeveDir::open(dir.path()).unwrap_err().check(), "device-not-ours");
}

#[tokio::test(start_paused = true)]
async fn a_sleeve_keeps_no_more_managers_than_it_may() {
    let world = World::paired().await;
    let kept = world.sleeve.dir().pairings(MANAGER).unwrap().remove(0).pairing;
    let keep = |peer: String| {
        let factor = Secret::copied_from(kept.factor.expose());
        let pairing =
            Pairing { peer, certificate: kept.certificate.clone(), factor, suite: kept.suite };
        world.sleeve.dir().keep_pending(&pairing, NOW)
    };
    for at in 1..MANAGERS_MAX {
        keep(format!("OTHER-{at}")).unwrap();
    }
    assert_eq!(keep("ANOTHER".to_owned()).unwrap_err().check(), "too-many-managers");
    assert_eq!(world.sleeve.dir().managers().unwrap().len(), MANAGERS_MAX);
    // One that it has already may be paired with anew.
    world.pair().await.unwrap();
    assert!(world.sleeve.dir().forget(MANAGER).unwrap());
    world.pair().await.unwrap();
    // One more: it is forgotten at home, and here nothing changes.
    assert!(world.sleeve.dir().forget(MANAGER).unwrap());
    world.home.shared.pairings.lock().unwrap().clear();
    keep("ANOTHER".to_owned()).unwrap();
    assert_eq!(world.pair().await.unwrap_err().check(), "too-many-managers");
    assert!(!world.home.knows(SLEEVE));
    assert_eq!(world.sleeve.dir().managers().unwrap().len(), MANAGERS_MAX);
}
