//! Listing reads.

use std::time::Duration;

use axum::http::StatusCode;
use countersign_store::{IdKind, ReadEnd, ReadStart, StoreError, new_id};
use serde_json::{Value, json};

use crate::world::World;

/// Stores a read; its id.
async fn read(world: &World, reader: &str, client: u8, end: Option<ReadEnd>) -> String {
    let now = world.service.now();
    let start = ReadStart {
        id: new_id(IdKind::Read, now, &mut *world.service.rng()),
        device_id: reader.to_owned(),
        client_read_id: [client; 16],
        at: now,
        session_id: "test".to_owned(),
    };
    world.advance(Duration::from_millis(250));
    let (id, ended) = (start.id.clone(), world.service.now());
    let store = world.service.store();
    let work = store.run_tx("test_read", move |tx| {
        let begun = tx.begin_read(&start)?;
        if let Some(end) = &end {
            tx.finish_read(&begun.id, begun.attempt, end, ended)?;
        }
        Ok::<_, StoreError>(())
    });
    work.await.unwrap();
    id
}

#[tokio::test]
async fn a_read_shows_how_it_ended_and_nothing_of_the_card() {
    let world = World::new().await;
    let reader = world.reader("RD-1", 1).await;
    let done = ReadEnd::Done { sam_id: "05.02-1".into(), document_type: "resident".into() };
    let failed = ReadEnd::Failed { check: "sam-timeout".into(), sam_id: None };
    let ids = [
        read(&world, &reader, 1, None).await,
        read(&world, &reader, 2, Some(done)).await,
        read(&world, &reader, 3, Some(failed)).await,
    ];
    let expected = |index: usize, state: &str, ended: Value| {
        json!({
            "id": ids[index],
            "readerId": reader,
            "clientReadId": format!("0{}", index + 1).repeat(16),
            "state": state,
            "failedCheck": if state == "failed" { json!("sam-timeout") } else { Value::Null },
            "samId": if state == "done" { json!("05.02-1") } else { Value::Null },
            "documentType": if state == "done" { json!("resident") } else { Value::Null },
            "attempts": 1,
            "startedAt": format!("2027-01-15T08:00:00.{:03}Z", index * 250),
            "finishedAt": ended,
        })
    };
    let rows = [
        expected(0, "started", Value::Null),
        expected(1, "done", json!("2027-01-15T08:00:00.500Z")),
        expected(2, "failed", json!("2027-01-15T08:00:00.750Z")),
    ];
    for (id, row) in ids.iter().zip(&rows) {
        assert_eq!(world.get(&format!("/v1/reads/{id}")).await.json(), *row);
    }
    let newest_first: Vec<_> = rows.iter().rev().collect();
    let list = world.get("/v1/reads").await.json();
    assert_eq!(list, json!({ "items": newest_first, "next": null }));
}

/// Which secret-dependent check it was is for the audit only.
#[tokio::test]
async fn checks_that_depend_on_a_secret_show_as_one() {
    let world = World::new().await;
    let reader = world.reader("RD-1", 1).await;
    let shown = [
        ("card-authentication", "authentication"),
        ("decryption", "authentication"),
        ("card-removed", "card-removed"),
    ];
    for (client, (stored, public)) in (1..).zip(shown) {
        let end = ReadEnd::Failed { check: stored.into(), sam_id: None };
        let id = read(&world, &reader, client, Some(end)).await;
        let one = world.get(&format!("/v1/reads/{id}")).await.json();
        assert_eq!(one["failedCheck"], public);
        assert_eq!(world.get("/v1/reads").await.json()["items"][0]["failedCheck"], public);
    }
}

#[tokio::test]
async fn the_list_is_paged_and_filtered_by_reader() {
    let world = World::new().await;
    let readers = [world.reader("RD-1", 1).await, world.reader("RD-2", 2).await];
    let mut mine = Vec::new();
    for client in 0..6 {
        let reader = &readers[usize::from(client % 2)];
        let id = read(&world, reader, client, None).await;
        if client % 2 == 0 {
            mine.insert(0, id);
        }
    }
    let base = format!("/v1/reads?readerId={}&limit=2", readers[0]);
    let first = world.get(&base).await.json();
    let next = first["next"].as_str().unwrap();
    let second = world.get(&format!("{base}&cursor={next}")).await.json();
    assert_eq!(second["next"], Value::Null);
    let items = [&first, &second].map(|page| page["items"].as_array().unwrap().clone()).concat();
    let ids: Vec<_> = items.iter().map(|item| item["id"].as_str().unwrap()).collect();
    assert_eq!(ids, mine);
    let unknown = world.get("/v1/reads?readerId=rdr_unknown").await.json();
    assert_eq!(unknown, json!({ "items": [], "next": null }));
}

#[tokio::test]
async fn a_bad_query_or_id_is_refused() {
    let world = World::new().await;
    for id in ["", "RDR", "%00", &"a".repeat(42)] {
        let answer = world.get(&format!("/v1/reads?readerId={id}")).await;
        let detail = "readerId is the id of a reader";
        answer.assert_problem(400, "reader-id", "The request is malformed", detail);
    }
    world.get("/v1/reads?limit=201").await.assert_check(400, "page-limit");
    world.get("/v1/reads?cursor=A").await.assert_check(400, "page-cursor");
    world.get("/v1/reads?reader_id=a").await.assert_check(400, "query");
    for id in ["read_unknown", "x", "%00"] {
        let answer = world.get(&format!("/v1/reads/{id}")).await;
        answer.assert_problem(404, "not-found", "Not found", "there is no such read");
    }
    assert_eq!(world.get("/v1/reads").await.status, StatusCode::OK);
}
