//! One server: who meets whom, and what is refused.

use std::time::Duration;

use countersign_service::Service;
use countersign_store::{DeviceKind, StoreError, Tx, WalletAlarm};
use countersign_wallet::relay::message::Closed;
use countersign_wallet::relay::{
    Alarm, AlarmId, CloseReason, Counts, DeviceMessage, RelayMessage, Serial,
};

use crate::stage::{Contact, START, Stage, closed, data};

fn alarm(name: &str) -> DeviceMessage {
    DeviceMessage::Alarm(Alarm {
        id: AlarmId::new(name).unwrap(),
        sleeve: Serial::new("SLV-1").unwrap(),
        session: 7,
        at: START.as_millis(),
    })
}

async fn alarms(service: &Service) -> Vec<WalletAlarm> {
    let page = |tx: &mut Tx<'_>| tx.wallet_alarms_page(None, 10);
    service.store().read::<_, StoreError, _>("alarms", page).await.unwrap().items
}

#[tokio::test]
async fn a_sleeve_meets_a_manager_and_bytes_pass() {
    let stage = Stage::new().await;
    let service = stage.server(None);
    let (at_home, away) = (stage.manager().await, stage.sleeve().await);
    let mut sleeve = Contact::new(&service, &away);
    assert_eq!(sleeve.meets("MGR-1").await, RelayMessage::refused("manager-absent", 5));
    let mut manager = Contact::registered(&service, &at_home).await;
    assert_eq!(sleeve.meets("MGR-2").await, RelayMessage::refused("manager-absent", 5));
    let meeting = sleeve.met("MGR-1").await;
    // The manager is woken, and learns who it is from the certificate, not from the sleeve.
    manager.0.changed().await;
    let told = manager.told();
    let [RelayMessage::Met(met)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((met.meeting, met.peer.as_str()), (meeting, "SLV-1"));

    assert_eq!(sleeve.says(&data(meeting, b"sealed")).await, []);
    assert_eq!(service.relay().queued(), 6);
    manager.0.changed().await;
    let told = manager.told();
    let [RelayMessage::Data(piece)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(piece.bytes.as_slice(), b"sealed");
    assert_eq!(service.relay().queued(), 0);
    assert_eq!(service.relay().counts(), Counts { seats: 2, managers: 1, meetings: 1 });

    let end = DeviceMessage::Close(Closed { meeting, reason: CloseReason::Done });
    manager.says(&end).await;
    assert_eq!(sleeve.told(), [closed(meeting, CloseReason::Done)]);
    drop((sleeve, manager));
    assert_eq!(service.relay().counts(), Counts::default());
}

#[tokio::test]
async fn a_device_that_goes_ends_its_meetings_at_once() {
    let stage = Stage::new().await;
    let service = stage.server(None);
    let (at_home, away) = (stage.manager().await, stage.sleeve().await);
    let mut manager = Contact::registered(&service, &at_home).await;
    let mut sleeve = Contact::new(&service, &away);
    let meeting = sleeve.met("MGR-1").await;
    manager.told();
    drop(sleeve);
    manager.0.changed().await;
    assert_eq!(manager.told(), [closed(meeting, CloseReason::PeerGone)]);
}

#[tokio::test]
async fn what_breaks_the_protocol_is_named() {
    let stage = Stage::new().await;
    let service = stage.server(None);
    let (at_home, away) = (stage.manager().await, stage.sleeve().await);
    let mut manager = Contact::registered(&service, &at_home).await;
    let mut sleeve = Contact::new(&service, &away);
    let meeting = sleeve.met("MGR-1").await;
    let meet = DeviceMessage::Meet(Serial::new("MGR-1").unwrap()).encode();
    let credit = countersign_wallet::relay::Credited { meeting, bytes: 1 };
    let credit = DeviceMessage::Credit(credit).encode();
    for (of_manager, message, check) in [
        (false, DeviceMessage::Register.encode(), "message-role"),
        (false, alarm("1").encode(), "message-role"),
        (true, meet, "message-role"),
        (false, credit, "window-exceeded"),
        (false, b"nonsense".to_vec(), "message-format"),
        (false, vec![3; 10_000], "message-format"),
    ] {
        let contact = if of_manager { &mut manager } else { &mut sleeve };
        assert_eq!(contact.0.handle(&message).await.unwrap_err().check(), check);
    }
    assert_eq!(alarms(&service).await, [], "a sleeve raises none");
}

#[tokio::test]
async fn a_connection_asks_to_meet_so_often_and_no_more() {
    let stage = Stage::new().await;
    let service = stage.server(None);
    let mut sleeve = Contact::new(&service, &stage.sleeve().await);
    for _ in 0..30 {
        let absent = RelayMessage::refused("manager-absent", 5);
        assert_eq!(sleeve.meets("MGR-1").await, absent);
    }
    assert_eq!(sleeve.meets("MGR-1").await, RelayMessage::refused("meeting-rate", 61));
    stage.advance(Duration::from_secs(61));
    assert_eq!(sleeve.meets("MGR-1").await, RelayMessage::refused("manager-absent", 5));
}

/// An alarm is stored beside the meetings, told again until it is on record, and stored once.
#[tokio::test]
async fn an_alarm_is_taken_once_however_often_it_is_told() {
    let stage = Stage::new().await;
    let service = stage.server(None);
    let at_home = stage.manager().await;
    stage.enrolled(DeviceKind::Sleeve, "SLV-1").await;
    let mut manager = Contact::registered(&service, &at_home).await;
    for _ in 0..2 {
        assert_eq!(manager.says(&alarm("a-1")).await, [], "nobody waits for it");
        manager.0.changed().await;
        let taken = RelayMessage::AlarmTaken(AlarmId::new("a-1").unwrap());
        assert_eq!(manager.told(), [taken]);
    }
    let stored = alarms(&service).await;
    let [stored] = &stored[..] else { panic!("{stored:?}") };
    assert_eq!((stored.manager_id.as_str(), stored.sleeve.as_str()), (&*at_home.id, "SLV-1"));
    assert!(stored.sleeve_id.is_some());
    let rows = service.audit_page(None, 100).await.unwrap().items;
    assert_eq!(rows.iter().filter(|row| row.entry.action == "sleeve.alarm").count(), 1);
}
