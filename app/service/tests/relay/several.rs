//! Several servers on one database behave as one: a sleeve finds its manager wherever that is.

use std::time::Duration;

use countersign_service::{RELAY_KEEP_EVERY, RELAY_PLACE_TIME};
use countersign_wallet::relay::{Address, CloseReason, RelayMessage};

use crate::stage::{Contact, ONE, Stage, TWO, closed};

fn absent() -> RelayMessage {
    RelayMessage::refused("manager-absent", 5)
}

fn at(address: &str) -> RelayMessage {
    RelayMessage::Elsewhere(Address::new(address).unwrap())
}

#[tokio::test]
async fn a_sleeve_is_sent_to_where_its_manager_is() {
    let stage = Stage::new().await;
    let (one, two) = (stage.server(Some(ONE)), stage.server(Some(TWO)));
    let (at_home, away) = (stage.manager().await, stage.sleeve().await);
    let manager = Contact::registered(&one, &at_home).await;
    let mut sleeve = Contact::new(&two, &away);
    assert_eq!(sleeve.meets("MGR-1").await, at(ONE));
    Contact::new(&one, &away).met("MGR-1").await;

    // While it is there it is believed to be there.
    for _ in 0..20 {
        stage.advance(RELAY_KEEP_EVERY);
        one.keep_relay().await.unwrap();
        two.keep_relay().await.unwrap();
        assert_eq!(sleeve.meets("MGR-1").await, at(ONE));
    }
    drop(manager);
    one.keep_relay().await.unwrap();
    stage.advance(RELAY_PLACE_TIME + Duration::from_millis(1));
    assert_eq!(sleeve.meets("MGR-1").await, absent(), "forgotten by itself");
}

#[tokio::test]
async fn a_manager_that_has_come_to_another_server_is_there_and_not_here() {
    let stage = Stage::new().await;
    let (one, two) = (stage.server(Some(ONE)), stage.server(Some(TWO)));
    let (at_home, away) = (stage.manager().await, stage.sleeve().await);
    let mut older = Contact::registered(&one, &at_home).await;
    let mut sleeve = Contact::new(&one, &away);
    let meeting = sleeve.met("MGR-1").await;
    older.told();
    let newer = Contact::registered(&two, &at_home).await;
    one.keep_relay().await.unwrap();
    two.keep_relay().await.unwrap();
    assert!(older.0.is_dismissed() && !newer.0.is_dismissed());
    assert_eq!(older.checks()[0], "manager-elsewhere");
    assert_eq!(sleeve.told(), [closed(meeting, CloseReason::PeerGone)]);
    assert_eq!(sleeve.meets("MGR-1").await, at(TWO));
    // What the older one leaves behind is not the newer one's place.
    drop(older);
    one.keep_relay().await.unwrap();
    assert_eq!(sleeve.meets("MGR-1").await, at(TWO));
}

#[tokio::test]
async fn a_server_that_stops_gives_its_managers_up_and_one_that_fell_is_forgotten() {
    let stage = Stage::new().await;
    let (one, two) = (stage.server(Some(ONE)), stage.server(Some(TWO)));
    let (at_home, away) = (stage.manager().await, stage.sleeve().await);
    let mut sleeve = Contact::new(&two, &away);
    let manager = Contact::registered(&one, &at_home).await;
    one.release_relay().await.unwrap();
    assert_eq!(sleeve.meets("MGR-1").await, absent());
    drop(manager);

    // It fell and was started again: nobody is sent from it to itself.
    let fell = stage.server(Some(ONE));
    std::mem::forget(Contact::registered(&fell, &at_home).await);
    let again = stage.server(Some(ONE));
    assert_eq!(Contact::new(&again, &away).meets("MGR-1").await, absent());
    assert_eq!(sleeve.meets("MGR-1").await, at(ONE), "the others do not know yet");
    let manager = Contact::registered(&again, &at_home).await;
    Contact::new(&again, &away).met("MGR-1").await;
    again.keep_relay().await.unwrap();
    assert!(!manager.0.is_dismissed());
}

#[tokio::test]
async fn a_server_that_tells_no_address_keeps_its_managers_to_itself() {
    let stage = Stage::new().await;
    let (one, two) = (stage.server(None), stage.server(Some(TWO)));
    let (at_home, away) = (stage.manager().await, stage.sleeve().await);
    let _manager = Contact::registered(&one, &at_home).await;
    assert_eq!(Contact::new(&two, &away).meets("MGR-1").await, absent());
    Contact::new(&one, &away).met("MGR-1").await;
    for impossible in ["", "a host:1", &"x".repeat(300)] {
        assert!(!one.relay().advertise(impossible));
    }
    assert!(one.relay().advertise(ONE) && !one.relay().advertise(TWO), "once");
}
