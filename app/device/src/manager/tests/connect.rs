//! A2, A3: who comes, how many, from where.

use countersign_channel::{Mode, Protection};
use countersign_pki::Role;
use countersign_wallet::flow::SleeveFlow;

use super::super::{CONTACTS_PER_SOURCE_MAX, Route};
use super::*;

#[tokio::test(start_paused = true)]
async fn a2_and_a3_let_a_paired_sleeve_in() {
    let mut world = World::paired().await;
    for (mode, origin, way) in [
        (Mode::A2, Origin::Address(IpAddr::V4(Ipv4Addr::LOCALHOST)), Route::Direct),
        (Mode::A3, Origin::Relay { sleeve: SLEEVE.to_owned() }, Route::Relay),
    ] {
        let pipe = world.pipe_from(origin).await;
        let pairing = world.pairings[SLEEVE].clone();
        let config = world.sleeves[SLEEVE].clone();
        let rng = &mut *make_rng()();
        let now = world.clock.now();
        let channel =
            countersign_channel::SleeveChannel::connect(config, mode, pairing, now, rng).unwrap();
        let clock = world.clock.clone();
        let mut link = countersign_net::Connection::new(channel, pipe, clock, make_rng()());
        link.next(None).await.unwrap();
        link.flush().await.unwrap();
        let told = world.until(|told| matches!(told, ManagerHappening::Connected { .. })).await;
        let Some(ManagerHappening::Connected { sleeve, way: by, mode: in_mode, .. }) = told.last()
        else {
            panic!("{told:?}")
        };
        assert_eq!((sleeve.as_str(), *by, *in_mode), (SLEEVE, way, mode));
    }
    assert_eq!(world.audited("\"connect\""), 2);
}

#[tokio::test(start_paused = true)]
async fn a2_a_sleeve_that_is_not_paired_stays_out() {
    let mut world = World::paired().await;
    let party = world.pki.party(Role::Sleeve, "SLV-3");
    let config = sleeve_config(&world.pki, &party, world.provider.clone());
    world.sleeves.insert("SLV-3", Arc::new(config));
    world.pairings.insert("SLV-3", world.pairings[SLEEVE].clone());
    for mode in [Mode::A2, Mode::A3] {
        let refused = world.connect_by("SLV-3", mode).await.err();
        assert_eq!(refused.as_deref(), Some("sleeve-unknown"), "{mode:?}");
    }
    assert_eq!(world.audited("\"connect\""), 0);
}

#[tokio::test(start_paused = true)]
async fn a_sleeve_that_comes_again_replaces_its_session() {
    let mut world = World::paired().await;
    let mut first = world.inside(SLEEVE).await;
    first.take(CARD).await.unwrap();
    let mut second = world.inside(SLEEVE).await;
    assert_eq!(first.end().await, "session-replaced");
    // With the card that the first one had.
    second.take(CARD).await.unwrap();
    assert_eq!(second.transmit(&select(AID_DEBIT)).await.unwrap()[..1], [0x6f]);
}

#[tokio::test(start_paused = true)]
async fn one_source_does_not_take_all_places() {
    let mut world = World::paired().await;
    let mut silent = Vec::new();
    for _ in 0..CONTACTS_PER_SOURCE_MAX {
        silent.push(world.pipe().await);
    }
    assert!(world.connect(SLEEVE).await.is_err(), "one more from there");
    let pipe = world.pipe_from(Origin::Relay { sleeve: SLEEVE.to_owned() }).await;
    let pairing = world.pairings[SLEEVE].clone();
    world.connect_over(SLEEVE, Mode::A2, pairing, pipe).await.unwrap();
    // Who says nothing loses its place.
    tokio::time::sleep(Duration::from_secs(60)).await;
    world.connect(SLEEVE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn garbage_is_refused_and_harms_nobody() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut world = World::paired().await;
    for garbage in [vec![0; 64], vec![0xff; 4096], b"GET / HTTP/1.1\r\n\r\n".to_vec()] {
        let mut pipe = world.pipe().await;
        pipe.write_all(&garbage).await.unwrap();
        let mut answer = Vec::new();
        let read = timeout(PATIENCE, pipe.read_to_end(&mut answer)).await;
        assert!(read.unwrap().is_ok(), "the contact is closed");
    }
    world.inside(SLEEVE).await;
}

#[tokio::test(start_paused = true)]
async fn a7_no_password_goes_over_a_channel_that_can_be_read() {
    let mac = Policy { protection: Protection::Mac, ..Policy::default() };
    let policies = vec!["encrypt+mac".to_owned(), "mac".to_owned()];
    let mut world = World::paired_of(ManagerSettings { policies, ..settings() }).await;
    let mut config = (*world.sleeves[SLEEVE]).clone();
    config.policies = vec![mac];
    world.sleeves.insert(SLEEVE, Arc::new(config));
    let mut hand = world.connect(SLEEVE).await.unwrap();
    assert_eq!(hand.channel().policy(), Some(mac));
    // A sleeve that sends it all the same.
    hand.flow = SleeveFlow::new(false);
    let now = hand.now();
    hand.flow.login(now, &password(PASSWORD)).unwrap();
    assert_eq!(hand.end().await, "login-readable");
    assert_eq!(world.audited("\"login\""), 0, "not looked at");
}

#[tokio::test(start_paused = true)]
async fn stopping_tells_the_sleeves() {
    let mut world = World::paired().await;
    let mut hand = world.inside(SLEEVE).await;
    hand.take(CARD).await.unwrap();
    let resets = world.card.counts().resets;
    let stopped = async { world.stop().await };
    let (stopped, told) = tokio::join!(stopped, hand.end());
    stopped.unwrap();
    assert_eq!(told, "manager-stopped");
    assert!(world.card.counts().resets > resets, "the card was let go of");
    assert!(world.opened().await.verify_audit(None).unwrap().covered > 0);
}
