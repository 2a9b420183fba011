use countersign_store::{
    CertificateIntent, CertificateState, DeviceKind, DeviceStatus, MAX_PAGE, StoreError,
};

use crate::fixture::{Db, at};

fn intent(number: &str, device_id: &str) -> CertificateIntent {
    CertificateIntent {
        number: number.to_owned(),
        device_id: device_id.to_owned(),
        public_key: [9; 32],
        not_after: at(1_000_000),
        at: at(1),
    }
}

async fn intend(db: &Db, number: &str, device_id: &str) -> Result<(), StoreError> {
    let intent = intent(number, device_id);
    db.store.run_tx("intend", move |tx| tx.intend_certificate(&intent)).await
}

pub(crate) async fn serial_and_number_are_mapped_both_ways(db: Db) {
    let (one, two) = (db.reader("S1").await, db.reader("S2").await);
    intend(&db, "0a", &one).await.unwrap();
    db.tx(|tx| tx.record_issued_certificate("0a", b"der", at(2))).await;

    let by_serial = db.tx(|tx| tx.device_by_serial(DeviceKind::Reader, "S1")).await.unwrap();
    let by_number = db.tx(|tx| tx.device_by_certificate_number("0a")).await.unwrap();
    assert_eq!(by_serial, by_number);
    assert_eq!(by_serial.device.id, one);
    assert_eq!(by_serial.certificate.unwrap().number, "0a");
    let bare = db.tx(|tx| tx.device_by_serial(DeviceKind::Reader, "S2")).await.unwrap();
    assert_eq!((bare.device.id, bare.certificate), (two, None));
    assert_eq!(db.tx(|tx| tx.device_by_serial(DeviceKind::Reader, "S3")).await, None);
    assert_eq!(db.tx(|tx| tx.device_by_certificate_number("0b")).await, None);

    // A replaced certificate still leads to its device, whose live certificate is another.
    let id = one.clone();
    db.tx(move |tx| {
        tx.revoke_certificate("0a", "replaced", at(3))?;
        tx.intend_certificate(&intent("0b", &id))
    })
    .await;
    let old = db.tx(|tx| tx.device_by_certificate_number("0a")).await.unwrap();
    assert_eq!(old.certificate.unwrap().number, "0b");
    let revoked = db.tx(|tx| tx.certificate_by_number("0a")).await.unwrap();
    assert_eq!(revoked.state, CertificateState::Revoked);
    assert_eq!(revoked.revoke_reason.as_deref(), Some("replaced"));

    let id = one.clone();
    db.tx(move |tx| tx.block_device(&id, "reported lost", at(4))).await;
    let blocked = db.tx(|tx| tx.device_by_serial(DeviceKind::Reader, "S1")).await.unwrap().device;
    assert_eq!(blocked.status, DeviceStatus::Blocked);
    assert_eq!(blocked.block_reason.as_deref(), Some("reported lost"));
    let id = one.clone();
    db.tx(move |tx| tx.unblock_device(&id, at(5))).await;
    let free = db.tx(move |tx| tx.device_by_id(&one)).await.unwrap().device;
    assert_eq!((free.status, free.block_reason), (DeviceStatus::Enrolled, None));
    assert_eq!(free.updated_at, at(5));
    let error = db.refused(|tx| tx.block_device("rdr_nobody", "x", at(4))).await;
    assert_eq!(error, StoreError::NotFound { what: "device" });
}

pub(crate) async fn certificates_are_intended_then_issued(db: Db) {
    let one = db.reader("S1").await;
    intend(&db, "0a", &one).await.unwrap();
    let unfinished = db.tx(|tx| tx.unfinished_certificates(at(2), 10)).await;
    assert_eq!(unfinished.len(), 1);
    assert_eq!((unfinished[0].state, &unfinished[0].der), (CertificateState::Intended, &None));
    assert!(db.tx(|tx| tx.unfinished_certificates(at(1), 10)).await.is_empty(), "too young");

    db.tx(|tx| tx.record_issued_certificate("0a", b"der", at(2))).await;
    db.tx(|tx| tx.record_issued_certificate("0a", b"der", at(3))).await;
    let issued = db.tx(|tx| tx.certificate_by_number("0a")).await.unwrap();
    assert_eq!((issued.state, issued.issued_at), (CertificateState::Issued, Some(at(2))));
    assert_eq!(issued.der.as_deref(), Some(&b"der"[..]));
    assert!(db.tx(|tx| tx.unfinished_certificates(at(9), 10)).await.is_empty());

    let not_intended = StoreError::Refused { check: "certificate-not-intended" };
    let other = db.refused(|tx| tx.record_issued_certificate("0a", b"other", at(3))).await;
    assert_eq!(other, not_intended);
    let unknown = db.refused(|tx| tx.record_issued_certificate("0b", b"der", at(3))).await;
    assert_eq!(unknown, StoreError::NotFound { what: "certificate" });
    db.tx(|tx| tx.revoke_certificate("0a", "lost", at(4))).await;
    let again = db.refused(|tx| tx.revoke_certificate("0a", "lost", at(4))).await;
    assert_eq!(again, StoreError::NotFound { what: "live certificate" });
    let dead = db.refused(|tx| tx.record_issued_certificate("0a", b"der", at(5))).await;
    assert_eq!(dead, not_intended);
}

pub(crate) async fn one_live_certificate_per_device(db: Db) {
    let (one, two) = (db.reader("S1").await, db.reader("S2").await);
    let conflict = |name: &str| Err(StoreError::Conflict { constraint: name.to_owned() });
    intend(&db, "0a", &one).await.unwrap();
    assert_eq!(intend(&db, "0b", &one).await, conflict("certificates_device_id_key"));
    assert_eq!(intend(&db, "0a", &two).await, conflict("certificates_number_key"));
    db.tx(|tx| tx.record_issued_certificate("0a", b"der", at(2))).await;
    assert_eq!(intend(&db, "0b", &one).await, conflict("certificates_device_id_key"));
    db.tx(|tx| tx.revoke_certificate("0a", "lost", at(3))).await;
    assert_eq!(intend(&db, "0b", &one).await, Ok(()));
    let nobody = intend(&db, "0c", "rdr_nobody").await;
    assert_eq!(nobody, Err(StoreError::NotFound { what: "referenced row" }));
}

pub(crate) async fn pages_walk_all_devices_once(db: Db) {
    let mut wanted = Vec::new();
    for number in 0..7 {
        wanted.push(db.reader(&format!("S{number}")).await);
    }
    wanted.sort();
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = db.tx(move |tx| tx.devices_page(DeviceKind::Reader, cursor.as_deref(), 3)).await;
        assert!(page.items.len() <= 3);
        seen.extend(page.items.into_iter().map(|record| record.device.id));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, wanted);
    let long = crate::fixture::device(&"S".repeat(countersign_store::MAX_TEXT_LEN + 1));
    let error = db.refused(move |tx| tx.insert_device(&long)).await;
    assert_eq!(error, StoreError::Refused { check: "text-too-long" });
    let too_many = db.refused(|tx| tx.devices_page(DeviceKind::Reader, None, MAX_PAGE + 1)).await;
    assert_eq!(too_many, StoreError::Refused { check: "page-limit" });
    let long = "x".repeat(1000);
    let bad = db.refused(move |tx| tx.devices_page(DeviceKind::Reader, Some(&long), 3)).await;
    assert_eq!(bad, StoreError::Refused { check: "page-cursor" });
}
