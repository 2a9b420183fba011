//! A9: over real sockets, with the sleeve's own program. No virtual time here: nothing waits.

use countersign_channel::Mode;
use countersign_iso7816::Status;
use countersign_wallet::message::LoginOutcome;
use tokio::net::TcpListener;

use super::*;
use crate::{Sleeve, SleeveDir, Way};

async fn listening(world: &mut World) -> Way {
    let told = world.until(|told| matches!(told, ManagerHappening::Listening { .. })).await;
    let Some(ManagerHappening::Listening { at }) = told.last() else { panic!("{told:?}") };
    Way::Direct(at.to_string())
}

#[tokio::test]
async fn a9_a_sleeve_of_this_network_pairs_connects_and_uses_a_card() {
    let listen = Some("127.0.0.1:0".to_owned());
    let mut world = World::of(ManagerSettings { listen, ..settings() }).await;
    let way = listening(&mut world).await;
    let path = world.dir.path().join("sleeve");
    enrolled(&mut world.pki, &path, DeviceKind::Sleeve, "SLV-77");
    let dir = SleeveDir::open(&path).unwrap();
    let sleeve = Sleeve::new(dir, world.clock.clone(), make_rng());

    let refused = sleeve.pair(&way, None, |_| true).await.unwrap_err();
    assert_eq!(refused.check(), "pairing-closed");
    world.open_window(60).await;
    let paired = sleeve.pair(&way, None, |shown| shown.manager == MANAGER).await.unwrap();
    assert_eq!((paired.id.as_str(), paired.pending), (MANAGER, false));
    for mode in [Mode::A2, Mode::A3] {
        let (session, _told) = sleeve.connect(&way, mode, None).await.unwrap();
        let login = session.login(password(PASSWORD)).await.unwrap();
        assert_eq!(login.outcome, LoginOutcome::Ok);
        let taken = session.take(CARD).await.unwrap();
        assert_eq!(taken.atr.to_vec(), world.card.answer_to_reset());
        let answer = session.transmit(&select(AID_DEBIT)).await.unwrap();
        assert!(answer.ends_with(&Status::OK.word().to_be_bytes()), "{answer:?}");
        session.release().await.unwrap();
        session.close().await;
        let told = world.until(|told| matches!(told, ManagerHappening::Ended { .. })).await;
        let Some(ManagerHappening::Ended { sleeve, check, .. }) = told.last() else {
            panic!("{told:?}")
        };
        assert_eq!((sleeve.as_str(), check.as_str()), ("SLV-77", "closed"));
    }
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a9_a_manager_whose_server_is_away_serves_its_network() {
    let listen = Some("127.0.0.1:0".to_owned());
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Some(gone.local_addr().unwrap().to_string());
    drop(gone);
    let mut world = World::of(ManagerSettings { listen, gateway, ..settings() }).await;
    let lost =
        ManagerHappening::Relay { connected: false, check: Some("server-unreachable".to_owned()) };
    world.until(|told| *told == lost).await;
    world.pair_both().await;
    world.inside(SLEEVE).await;
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a9_a_place_that_is_taken_is_not_listened_at() {
    let mut world = World::new().await;
    world.stop().await.unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = Some(taken.local_addr().unwrap().to_string());
    let mut dir = world.opened().await;
    dir.set_settings(ManagerSettings { listen, ..settings() }).unwrap();
    drop(dir);
    world.start().await;
    let running = world.running.take().unwrap();
    let refused = running.serving.await.unwrap().unwrap_err();
    assert_eq!(refused.check(), "listen");
    assert!(refused.is_environment());
}
