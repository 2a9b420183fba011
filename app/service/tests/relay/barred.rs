//! Devices that may not be served any more are sent away, and nobody else.

use countersign_service::{Actor, KnownDevice, Service};
use countersign_store::DeviceKind;

use crate::stage::{Contact, Stage};

enum Barred {
    Block,
    Revoke,
}

async fn bar(service: &Service, device: &KnownDevice, how: &Barred) {
    let (kind, console) = (device.kind, Actor::Console);
    match how {
        Barred::Block => service.block_device(kind, &console, &device.id, "lost").await.unwrap(),
        Barred::Revoke => service.revoke_device(kind, &console, &device.id, "lost").await.unwrap(),
    };
}

#[tokio::test]
async fn a_blocked_or_revoked_device_is_sent_away_on_every_server() {
    for (of_manager, how, check) in [
        (false, Barred::Block, "device-blocked"),
        (false, Barred::Revoke, "certificate-revoked"),
        (true, Barred::Block, "device-blocked"),
        (true, Barred::Revoke, "certificate-revoked"),
    ] {
        let stage = Stage::new().await;
        let (service, other) = (stage.server(None), stage.server(None));
        let (at_home, away) = (stage.manager().await, stage.sleeve().await);
        let mut manager = Contact::registered(&service, &at_home).await;
        let mut sleeve = Contact::new(&service, &away);
        sleeve.met("MGR-1").await;
        let innocent = stage.enrolled(DeviceKind::Sleeve, "SLV-2").await;
        let mut innocent = Contact::new(&service, &innocent);
        innocent.met("MGR-1").await;
        manager.told();
        service.keep_relay().await.unwrap();
        assert!(!sleeve.0.is_dismissed() && !manager.0.is_dismissed());

        // Barred through another server.
        bar(&other, if of_manager { &at_home } else { &away }, &how).await;
        assert!(!sleeve.0.is_dismissed() && !manager.0.is_dismissed(), "not looked at yet");
        service.keep_relay().await.unwrap();
        let (barred, peer) =
            if of_manager { (&mut manager, &mut sleeve) } else { (&mut sleeve, &mut manager) };
        assert!(barred.0.is_dismissed() && !peer.0.is_dismissed());
        barred.0.changed().await;
        assert_eq!(barred.checks().first().map(String::as_str), Some(check));
        assert_eq!(peer.checks(), ["peer-dismissed"]);
        assert!(!innocent.0.is_dismissed());
        assert_eq!(innocent.checks().is_empty(), !of_manager, "its own meeting goes on");
    }
}

/// A device that was let in again meanwhile, and one with a newer certificate.
#[tokio::test]
async fn who_was_let_in_again_stays() {
    let stage = Stage::new().await;
    let service = stage.server(None);
    let away = stage.sleeve().await;
    let sleeve = Contact::new(&service, &away);
    let (kind, console) = (DeviceKind::Sleeve, Actor::Console);
    service.block_device(kind, &console, &away.id, "lost").await.unwrap();
    service.unblock_device(kind, &console, &away.id).await.unwrap();
    service.keep_relay().await.unwrap();
    assert!(!sleeve.0.is_dismissed());
}
