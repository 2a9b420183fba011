//! A1: the window, the user's word, the list.

use countersign_channel::Mode;
use countersign_pki::Role;
use testkit::wallet::sleeve_config;

use super::*;

fn failed(told: &[ManagerHappening]) -> Option<(Option<String>, String)> {
    told.iter().find_map(|told| match told {
        ManagerHappening::PairingFailed { sleeve, check } => Some((sleeve.clone(), check.clone())),
        _ => None,
    })
}

fn is_failed(told: &ManagerHappening) -> bool {
    matches!(told, ManagerHappening::PairingFailed { .. })
}

#[tokio::test(start_paused = true)]
async fn a1_one_sleeve_pairs_through_an_open_window() {
    let mut world = World::new().await;
    world.open_window(60).await;
    world.pair(SLEEVE, true).await.unwrap();
    let told = world.until(|told| matches!(told, ManagerHappening::WindowClosed { .. })).await;
    let asked = ManagerHappening::PairingAsked { sleeve: SLEEVE.to_owned() };
    assert_eq!(told[0], asked);
    assert!(matches!(&told[1], ManagerHappening::Paired { sleeve, .. } if sleeve == SLEEVE));
    assert_eq!(told[2], ManagerHappening::WindowClosed { because: "paired" });
    // For one.
    assert_eq!(world.pair(OTHER, true).await, Err("pairing-closed".to_owned()));
    world.stop().await.unwrap();
    let sleeves = world.opened().await.sleeves();
    let ids: Vec<_> = sleeves.iter().map(|one| (one.id.as_str(), one.revoked_at)).collect();
    assert_eq!(ids, [(SLEEVE, None)]);
    assert_eq!(world.audited("\"pair\""), 1);
}

#[tokio::test(start_paused = true)]
async fn a1_nobody_pairs_through_a_closed_window() {
    let mut world = World::new().await;
    assert_eq!(world.pair(SLEEVE, true).await, Err("pairing-closed".to_owned()));
    let told = world.until(is_failed).await;
    assert_eq!(failed(&told), Some((None, "pairing-closed".to_owned())));
    // It closes by itself, too.
    world.open_window(60).await;
    let told = world.told();
    assert_eq!(told.await, ManagerHappening::WindowClosed { because: "time" });
    assert_eq!(world.pair(SLEEVE, true).await, Err("pairing-closed".to_owned()));
    // And for its owner.
    world.open_window(60).await;
    world.order(ManagerOrder::CloseWindow).await;
    let closed = ManagerHappening::WindowClosed { because: "closed" };
    world.until(|told| *told == closed).await;
    assert_eq!(world.pair(SLEEVE, true).await, Err("pairing-closed".to_owned()));
    world.stop().await.unwrap();
    assert_eq!(world.opened().await.sleeves(), []);
    assert_eq!(world.audited("\"pair\""), 0);
}

#[tokio::test(start_paused = true)]
async fn a1_a_window_has_bounds() {
    let mut world = World::new().await;
    for seconds in [0, super::super::WINDOW_MAX_SECONDS + 1] {
        world.order(ManagerOrder::OpenWindow { seconds }).await;
        let told = world.told().await;
        let ManagerHappening::Refused { check, .. } = told else { panic!("{told:?}") };
        assert_eq!(check, "window-seconds");
    }
    assert_eq!(world.pair(SLEEVE, true).await, Err("pairing-closed".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a1_the_sleeves_user_says_no() {
    let mut world = World::new().await;
    world.open_window(60).await;
    assert_eq!(world.pair(SLEEVE, false).await, Err("pairing-refused".to_owned()));
    let told = world.until(is_failed).await;
    assert_eq!(failed(&told), Some((Some(SLEEVE.to_owned()), "pairing-refused".to_owned())));
    // The window is open still: the right one may come.
    world.pair(SLEEVE, true).await.unwrap();
    world.stop().await.unwrap();
    assert_eq!(world.opened().await.sleeves().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a1_a_window_that_closes_meanwhile_stores_nothing() {
    let mut world = World::new().await;
    world.open_window(60).await;
    let closes = async |world: &mut World| {
        world.order(ManagerOrder::CloseWindow).await;
        world.until(|told| matches!(told, ManagerHappening::WindowClosed { .. })).await;
    };
    assert!(world.pair_after(SLEEVE, true, closes).await.is_err());
    let told = world.until(is_failed).await;
    assert_eq!(failed(&told), Some((Some(SLEEVE.to_owned()), "pairing-closed".to_owned())));
    world.stop().await.unwrap();
    assert_eq!(world.opened().await.sleeves(), []);
    assert_eq!(world.audited("\"pair\""), 0);
}

#[tokio::test(start_paused = true)]
async fn a1_a_second_sleeve_does_not_come_between() {
    let mut world = World::new().await;
    world.open_window(60).await;
    let second = async |world: &mut World| {
        // The same id: another device that claims it, or the same one twice.
        assert_eq!(world.pair(SLEEVE, true).await, Err("pairing-closed".to_owned()));
        let told = world.until(is_failed).await;
        assert_eq!(failed(&told), Some((None, "pairing-closed".to_owned())));
    };
    world.pair_after(SLEEVE, true, second).await.unwrap();
    // The first one was not harmed.
    world.connect(SLEEVE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a1_an_id_is_worth_nothing_without_the_factor() {
    let mut world = World::paired().await;
    // A second device with a certificate of the same id, which was never paired.
    let party = world.pki.party(Role::Sleeve, SLEEVE);
    let twin = sleeve_config(&world.pki, &party, world.provider.clone());
    world.sleeves.insert(SLEEVE, Arc::new(twin));
    let mut pairing = testkit::wallet::copied(&world.pairings[SLEEVE]);
    pairing.factor = Secret::new(vec![7; 32]);
    for mode in [Mode::A2, Mode::A3] {
        let pipe = world.pipe().await;
        let pairing = Arc::new(testkit::wallet::copied(&pairing));
        let refused = world.connect_over(SLEEVE, mode, pairing, pipe).await.err();
        assert_eq!(refused.as_deref(), Some("authentication"), "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a1_pairs_survive_the_program() {
    let mut world = World::paired().await;
    world.restart().await;
    world.inside(SLEEVE).await;
    world.crash().await;
    world.start().await;
    world.inside(OTHER).await;
}

#[tokio::test(start_paused = true)]
async fn a4_a_revoked_sleeve_is_out_until_it_is_forgotten() {
    let mut world = World::paired().await;
    let mut hand = world.inside(SLEEVE).await;
    hand.take(CARD).await.unwrap();
    world.order(ManagerOrder::Revoke { sleeve: SLEEVE.to_owned() }).await;
    assert_eq!(hand.end().await, "sleeve-revoked");
    let told = world.until(|told| matches!(told, ManagerHappening::Ended { .. })).await;
    let revoked = ManagerHappening::Revoked { sleeve: SLEEVE.to_owned() };
    assert!(told.contains(&revoked), "{told:?}");
    for mode in [Mode::A2, Mode::A3] {
        let refused = world.connect_by(SLEEVE, mode).await.err();
        assert_eq!(refused.as_deref(), Some("certificate-revoked"));
    }
    // Not through a window that is open for another, either, nor after a restart.
    world.restart().await;
    world.open_window(60).await;
    assert_eq!(world.pair(SLEEVE, true).await, Err("pairing-closed".to_owned()));
    assert!(world.connect(SLEEVE).await.is_err());
    // Its card is free.
    let mut other = world.inside(OTHER).await;
    other.take(CARD).await.unwrap();
    world.stop().await.unwrap();
    let factor = std::fs::read_to_string(world.home().join("sleeves/SLV-1.json")).unwrap();
    assert!(factor.contains("\"factor\":\"\""), "the factor is wiped: {factor}");

    let mut dir = world.opened().await;
    assert!(dir.forget(SLEEVE, world.clock.now(), &mut *make_rng()()).unwrap());
    assert!(!dir.forget(SLEEVE, world.clock.now(), &mut *make_rng()()).unwrap());
    let unknown = dir.revoke(SLEEVE, world.clock.now(), &mut *make_rng()()).unwrap_err();
    assert_eq!(unknown.check(), "sleeve-unknown");
    drop(dir);
    world.start().await;
    world.open_window(60).await;
    world.pair(SLEEVE, true).await.unwrap();
    world.order(ManagerOrder::Revoke { sleeve: "SLV-9".to_owned() }).await;
    let refused =
        world.until(|told| matches!(told, ManagerHappening::Refused { .. })).await.pop().unwrap();
    let ManagerHappening::Refused { check, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(check, "sleeve-unknown");
}

/// Who is revoked while it is inside the window does not come back by it.
#[tokio::test(start_paused = true)]
async fn a1_a_sleeve_that_is_revoked_meanwhile_is_not_stored() {
    let mut world = World::new().await;
    world.open_window(60).await;
    world.pair(SLEEVE, true).await.unwrap();
    world.open_window(60).await;
    let revokes = async |world: &mut World| {
        world.order(ManagerOrder::Revoke { sleeve: SLEEVE.to_owned() }).await;
        world.until(|told| matches!(told, ManagerHappening::Revoked { .. })).await;
    };
    assert!(world.pair_after(SLEEVE, true, revokes).await.is_err());
    let told = world.until(is_failed).await;
    assert_eq!(failed(&told), Some((Some(SLEEVE.to_owned()), "pairing-closed".to_owned())));
    world.stop().await.unwrap();
    assert!(world.opened().await.sleeves()[0].revoked_at.is_some());
}

/// Through the relay a sleeve pairs as itself: a copy of another's certificate shows nobody another
/// id, and takes no place in the window.
#[tokio::test(start_paused = true)]
async fn a1_through_the_relay_a_sleeve_asks_under_its_own_id_only() {
    let mut world = World::new().await;
    world.open_window(60).await;
    let other = Origin::Relay { sleeve: OTHER.to_owned() };
    let pipe = world.pipe_from(other).await;
    assert_eq!(world.pair_over(pipe, SLEEVE).await, Err("pairing-closed".to_owned()));
    let own = Origin::Relay { sleeve: SLEEVE.to_owned() };
    let pipe = world.pipe_from(own).await;
    world.pair_over(pipe, SLEEVE).await.unwrap();
}

/// A contact that never asked to pair is no pairing that failed.
#[tokio::test(start_paused = true)]
async fn a1_strangers_who_come_and_go_are_not_told_of() {
    let mut world = World::new().await;
    world.open_window(60).await;
    for _ in 0..3 {
        drop(world.pipe().await);
    }
    world.pair(SLEEVE, true).await.unwrap();
    let told = world.until(|told| matches!(told, ManagerHappening::WindowClosed { .. })).await;
    assert_eq!(failed(&told), None);
}
