//! A full disk: reads are refused, the server stays, and goes on when there is room.

use countersign_idcard::message::{AbortReason, ReaderMessage, ServerMessage};
use countersign_service::{KnownDevice, Service};
use countersign_store::StoreError;

use crate::desk::{Desk, refused};

/// How many pages SQLite may use; it keeps what it has.
async fn pages(service: &Service, most: u32) {
    let sql = format!("PRAGMA max_page_count = {most}");
    let set = service.store().run_tx("test_pages", move |tx| tx.query(&sql, &[]).map(|_| ()));
    set.await.map_err(|error: StoreError| error.to_string()).unwrap();
}

/// Reads until the last page is full. How many reads were acknowledged.
async fn fill(desk: &Desk, reader: &KnownDevice) -> u32 {
    let mut acknowledged = 0;
    for read in 0..u8::MAX {
        match desk.err(reader, read, AbortReason::CardRemoved).await {
            Ok(()) => acknowledged += 1,
            Err(error) => {
                assert_eq!(Err(error), refused("unavailable", true));
                return acknowledged;
            }
        }
    }
    panic!("the disk never filled");
}

#[tokio::test]
async fn reads_are_refused_while_the_disk_is_full_and_nothing_is_lost() {
    let desk = Desk::new(Vec::new()).await;
    let reader = desk.reader("RD-1").await;
    let mut open = desk.connect(&reader, "192.0.2.1");
    pages(&desk.service, 1).await;
    let acknowledged = fill(&desk, &reader).await;
    for read in 200..210 {
        assert_eq!(open.begin(read).await, refused("unavailable", true), "again and again");
    }
    assert_eq!(desk.service.store().ping().await, Ok(()), "it answers");
    let listed = desk.service.reads(Some(reader.id.clone()), None, 200).await.unwrap().items;
    assert!(listed.len() >= acknowledged as usize, "what was acknowledged is there");

    pages(&desk.service, 100_000).await;
    assert_eq!(open.begin(220).await, Ok(()), "on the same connection");
    let left = open.say(ReaderMessage::Abort(AbortReason::CardRemoved)).await;
    assert!(!left.iter().any(|message| matches!(message, ServerMessage::SendPackets)));
}
