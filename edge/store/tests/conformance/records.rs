//! What is told of a reader: factory data, reports, transactions (C5).

use countersign_store::{CertificateIntent, Factory, IdKind, Report, StoreError, Transaction};

use crate::fixture::{Db, at, id};

fn factory(maker: &str, millis: u64) -> Factory {
    Factory {
        maker: maker.to_owned(),
        model: "R2".to_owned(),
        hardware: "1.0".to_owned(),
        firmware: "3.1".to_owned(),
        batch: "42".to_owned(),
        made_on: "2026-01-31".to_owned(),
        note: "Ünïcode".to_owned(),
        set_by: "opr_1".to_owned(),
        set_at: at(millis),
    }
}

fn report(reader: &str, reference: &str, text: &str) -> Report {
    Report {
        id: id(IdKind::Report, &format!("{reader}{reference}{text}")),
        device_id: reader.to_owned(),
        reference: reference.to_owned(),
        kind: "broken-seal".to_owned(),
        text: text.to_owned(),
        told_by: "opr_1".to_owned(),
        at: at(5),
    }
}

fn transaction(reader: &str, reference: &str, amount: &str) -> Transaction {
    Transaction {
        id: id(IdKind::Transaction, &format!("{reader}{reference}{amount}")),
        device_id: reader.to_owned(),
        reference: reference.to_owned(),
        amount: amount.to_owned(),
        currency: "CNY".to_owned(),
        outcome: "paid".to_owned(),
        told_by: "opr_1".to_owned(),
        at: at(5),
    }
}

pub(crate) async fn factory_data_are_the_latest_word(db: Db) {
    let reader = db.reader("S1").await;
    let key = reader.clone();
    assert_eq!(db.tx(move |tx| tx.factory(&key)).await, None);
    for (maker, millis) in [("First", 1), ("Second", 2)] {
        let key = reader.clone();
        db.tx(move |tx| tx.set_factory(&key, &factory(maker, millis))).await;
    }
    assert_eq!(db.tx(move |tx| tx.factory(&reader)).await, Some(factory("Second", 2)));
    let nobody = db.refused(|tx| tx.set_factory("rdr_nobody", &factory("x", 1))).await;
    assert_eq!(nobody, StoreError::NotFound { what: "referenced row" });
    let long = factory(&"x".repeat(257), 1);
    let refused = db.refused(move |tx| tx.set_factory("rdr_nobody", &long)).await;
    assert_eq!(refused, StoreError::Refused { check: "text-too-long" });
}

pub(crate) async fn a_reference_names_one_thing_per_reader(db: Db) {
    let (one, two) = (db.reader("S1").await, db.reader("S2").await);
    let first = report(&one, "T-1", "seal");
    let tell = async |report: Report| db.tx(move |tx| tx.insert_report(&report)).await;
    assert_eq!(tell(first.clone()).await, Ok(()));
    assert_eq!(tell(report(&one, "T-1", "other")).await, Err(first.clone()));
    assert_eq!(tell(report(&two, "T-1", "seal")).await, Ok(()), "another reader's");
    let long = report(&one, "T-2", &"字".repeat(600));
    assert_eq!(tell(long.clone()).await, Ok(()));
    let key = one.clone();
    let page = db.tx(move |tx| tx.reports_page(&key, None, 10)).await;
    assert_eq!((page.items.len(), page.next), (2, None));
    assert!(page.items.contains(&first) && page.items.contains(&long));

    let paid = transaction(&one, "P-1", "12.34");
    let tell = async |new: Transaction| db.tx(move |tx| tx.insert_transaction(&new)).await;
    assert_eq!(tell(paid.clone()).await, Ok(()));
    assert_eq!(tell(transaction(&one, "P-1", "99")).await, Err(paid.clone()));
    assert_eq!(tell(transaction(&two, "P-1", "99")).await, Ok(()));
    let page = db.tx(move |tx| tx.transactions_page(&one, None, 10)).await;
    assert_eq!(page.items, [paid]);
    let nobody = report("rdr_nobody", "T-1", "seal");
    let refused = db.refused(move |tx| tx.insert_report(&nobody)).await;
    assert_eq!(refused, StoreError::NotFound { what: "referenced row" });
}

pub(crate) async fn pages_of_a_record_walk_newest_first(db: Db) {
    let reader = db.reader("S1").await;
    let mut wanted = Vec::new();
    for number in 0..5 {
        let report = report(&reader, &format!("T-{number}"), "x");
        wanted.push(report.id.clone());
        db.tx(move |tx| tx.insert_report(&report)).await.unwrap();
    }
    wanted.sort();
    wanted.reverse();
    let (mut seen, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let (key, from) = (reader.clone(), cursor.clone());
        let page = db.tx(move |tx| tx.reports_page(&key, from.as_deref(), 2)).await;
        seen.extend(page.items.into_iter().map(|report| report.id));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, wanted);
    let refused = db.refused(|tx| tx.transactions_page("x", Some(""), 2)).await;
    assert_eq!(refused, StoreError::Refused { check: "page-cursor" });
}

pub(crate) async fn the_history_of_certificates_is_kept(db: Db) {
    let reader = db.reader("S1").await;
    for (number, millis) in [("0a", 1), ("0b", 2)] {
        let intent = CertificateIntent {
            number: number.to_owned(),
            device_id: reader.clone(),
            public_key: [9; 32],
            not_after: at(1_000_000),
            at: at(millis),
        };
        db.tx(move |tx| tx.intend_certificate(&intent)).await;
        if number == "0a" {
            db.tx(move |tx| tx.revoke_certificate(number, "lost", at(2))).await;
        }
    }
    let found = db.tx(move |tx| tx.certificates_of_device(&reader, 10)).await;
    let numbers: Vec<_> = found.iter().map(|certificate| &*certificate.number).collect();
    assert_eq!(numbers, ["0b", "0a"]);
    assert_eq!(found[1].revoke_reason.as_deref(), Some("lost"));
}
