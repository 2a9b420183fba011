//! A6, lost lines, and the card in a virtual reader.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use countersign_channel::Heartbeat;
use countersign_net::WRITE_TIMEOUT;
use countersign_smartcard::vpcd::{SlotEvent, VirtualReader};
use countersign_wallet::flow::ANSWER_PATIENCE;

use super::*;

const TIMES: Heartbeat =
    Heartbeat { every: Duration::from_secs(60), within: Duration::from_secs(10) };

#[tokio::test(start_paused = true)]
async fn a6_a_sleeve_sleeps_with_heartbeats_and_wakes() {
    let world = World::paired().await;
    let (session, _happenings) = world.inside().await;
    let before = world.home.network.quiet().await;
    session.sleep(TIMES).await.unwrap();
    let asleep = || world.home.shared.asleep.load(Ordering::SeqCst);
    until("the manager watches", || asleep() == 1).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    // A word that it sleeps, and then a probe and its answer each minute: no more, and no fewer.
    let flights = world.home.network.flights() - before;
    assert!((1 + 2 * 59..=1 + 2 * 60).contains(&flights), "{flights}");
    assert_eq!(session.list().await.unwrap().len(), 1);
    session.wake().await.unwrap();
    until("the manager watches no more", || asleep() == 0).await;
    let before = world.home.network.quiet().await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(world.home.network.quiet().await, before);
    assert_eq!(session.list().await.unwrap().len(), 1);
    let none = Heartbeat { every: Duration::ZERO, ..TIMES };
    assert_eq!(session.sleep(none).await.unwrap_err().check(), "misuse");
}

#[tokio::test(start_paused = true)]
async fn a6_on_a_dead_line_both_sides_give_up_in_time_and_wipe_their_keys() {
    let world = World::paired().await;
    let (session, mut happenings) = world.inside().await;
    let taken = session.take("bank").await.unwrap();
    let card = session.card(&taken);
    session.sleep(TIMES).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!((world.home.network.held(), world.home.held()), (1, 1));
    assert!(session.ended().is_none() && !card.gone().load(Ordering::SeqCst));
    world.home.network.dead.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    let lost = SleeveHappening::Lost { check: "heartbeat".into(), incident: None };
    assert_eq!(next(&mut happenings).await, lost);
    assert!(card.gone().load(Ordering::SeqCst));
    let longest = TIMES.every + TIMES.within + GRACE;
    assert!(begun.elapsed() <= longest, "{:?}", begun.elapsed());
    // Its channel is gone, and its keys with it; the handle has none.
    assert_eq!(world.home.network.held(), 0);
    until("the manager has let go, too", || world.home.held() == 0).await;
    assert!(begun.elapsed() <= longest, "{:?}", begun.elapsed());
    assert_eq!(*world.home.shared.ended.lock().unwrap(), ["heartbeat"]);
    let over = session.ended().unwrap();
    assert!(over.check() == "heartbeat" && over.may_pass());
    assert_eq!(session.list().await.unwrap_err().check(), "heartbeat");
    // And again, once the line is there.
    world.home.network.dead.store(false, Ordering::SeqCst);
    world.inside().await;
}

#[tokio::test(start_paused = true)]
async fn a6_a_manager_that_falls_silent_ends_the_session_within_its_times() {
    let world = World::paired().await;
    let (session, mut happenings) = world.inside().await;
    session.sleep(TIMES).await.unwrap();
    world.home.shared.fall_silent.notify_waiters();
    let begun = Instant::now();
    let lost = SleeveHappening::Lost { check: "heartbeat".into(), incident: None };
    assert_eq!(next(&mut happenings).await, lost);
    let took = begun.elapsed();
    assert!(took <= TIMES.every + TIMES.within + GRACE, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn without_heartbeats_a_dead_line_is_noticed_by_the_next_request() {
    let world = World::paired().await;
    let (session, mut happenings) = world.inside().await;
    world.home.network.dead.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(session.ended().is_none());
    let begun = Instant::now();
    let error = session.list().await.unwrap_err();
    assert_eq!((error.check(), error.may_pass()), ("peer-timeout", true));
    assert!(error.is_environment());
    let took = begun.elapsed();
    assert!(took >= ANSWER_PATIENCE && took <= ANSWER_PATIENCE + GRACE, "{took:?}");
    let lost = SleeveHappening::Lost { check: "peer-timeout".into(), incident: None };
    assert_eq!(next(&mut happenings).await, lost);
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_takes_nothing_any_more_ends_the_session_in_time() {
    let world = World::paired().await;
    world.home.network.narrow.store(true, Ordering::SeqCst);
    let (session, mut happenings) = world.inside().await;
    let taken = session.take("bank").await.unwrap();
    let card = session.card(&taken);
    world.home.network.clogged.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    let long = [&[0x80, 0xDA, 0xDF, 0x50, 0, 0x40, 0][..], &[0x5A; 0x4000]].concat();
    let error = session.transmit(&long).await.unwrap_err();
    assert_eq!((error.check(), error.may_pass()), ("peer-stalled", true));
    let took = begun.elapsed();
    assert!(took >= WRITE_TIMEOUT && took <= WRITE_TIMEOUT + GRACE, "{took:?}");
    let lost = SleeveHappening::Lost { check: "peer-stalled".into(), incident: None };
    assert_eq!(next(&mut happenings).await, lost);
    assert!(card.gone().load(Ordering::SeqCst));
    assert_eq!((world.home.network.held(), world.home.card.counts().commands), (0, 0));
}

/// What vpcd does: whoever connects is the card.
struct Vpcd(std::net::TcpStream);

impl Vpcd {
    fn say(&mut self, message: &[u8]) {
        let length = u16::try_from(message.len()).unwrap().to_be_bytes();
        self.0.write_all(&[&length[..], message].concat()).unwrap();
    }

    fn heard(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 2];
        self.0.read_exact(&mut length).ok()?;
        let mut message = vec![0; u16::from_be_bytes(length).into()];
        self.0.read_exact(&mut message).ok()?;
        Some(message)
    }
}

#[tokio::test(start_paused = true)]
async fn a8_the_lost_link_takes_the_card_out_of_the_virtual_reader() {
    let world = World::paired().await;
    let (session, mut happenings) = world.inside().await;
    let taken = session.take("bank").await.unwrap();
    let mut card = session.card(&taken);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let reader: VirtualReader = port.to_string().parse().unwrap();
    let inserted = Arc::new(AtomicBool::new(false));
    let seen = inserted.clone();
    let slot = thread::spawn(move || {
        let gone = card.gone();
        reader.run(&mut card, &gone, &mut |event| {
            seen.fetch_or(*event == SlotEvent::Inserted, Ordering::SeqCst);
        });
    });
    let atr = taken.atr.clone();
    let mut vpcd = tokio::task::spawn_blocking(move || {
        let mut vpcd = Vpcd(listener.accept().unwrap().0);
        vpcd.0.set_read_timeout(Some(PATIENCE)).unwrap();
        vpcd.say(&[4]);
        assert_eq!(vpcd.heard().unwrap(), atr);
        vpcd.say(&[1]);
        vpcd.say(&[0, 0xA4, 4, 0, 0]);
        assert_eq!(vpcd.heard().unwrap(), [0x6A, 0x82]);
        vpcd
    })
    .await
    .unwrap();
    assert!(inserted.load(Ordering::SeqCst));
    world.home.shared.cut.notify_waiters();
    assert!(matches!(next(&mut happenings).await, SleeveHappening::Lost { .. }));
    // The socket closes: to PC/SC the card was pulled.
    let heard = tokio::task::spawn_blocking(move || vpcd.heard()).await.unwrap();
    assert_eq!(heard, None);
    tokio::task::spawn_blocking(move || slot.join().unwrap()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_when_nobody_holds_it() {
    let world = World::paired().await;
    let (session, mut happenings) = world.inside().await;
    let taken = session.take("bank").await.unwrap();
    let card = session.card(&taken);
    let gone = card.gone();
    let closed = || world.home.shared.closed.load(Ordering::SeqCst);
    let before = closed();
    drop(session);
    assert!(!gone.load(Ordering::SeqCst), "its card holds it");
    drop(card);
    let lost = SleeveHappening::Lost { check: "closed".into(), incident: None };
    assert_eq!(next(&mut happenings).await, lost);
    assert!(gone.load(Ordering::SeqCst));
    until("the manager saw it close", || closed() == before + 1).await;
}
