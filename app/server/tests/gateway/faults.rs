//! SAM modules and cards that fail in mid-read.

use std::sync::Arc;
use std::time::Duration;

use countersign_device::{ReadError, Source};
use countersign_emulator::Fault;
use countersign_idcard::reader::ReadOptions;
use countersign_idcard::record::{DocumentType, IdRecord};

use super::stage::{Stage, card};

fn refused(error: &ReadError) -> &str {
    match error {
        ReadError::Refused(failure) => &failure.check,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_four_documents_are_read_and_decoded() {
    let stage = Stage::new().await;
    let (mut reader, field) = stage.reader(stage.enroll("RD-1").await.config);
    for document in [
        DocumentType::Citizen,
        DocumentType::Foreigner2017,
        DocumentType::Foreigner2023,
        DocumentType::ResidencePermit,
    ] {
        field.remove();
        assert!(!reader.poll().await.unwrap());
        field.insert(Arc::new(card(document)));
        let outcome = reader.read(ReadOptions::default()).await.unwrap();
        let record = IdRecord::decode(outcome.data.text()).unwrap();
        assert_eq!(record, countersign_emulator::sample(document));
    }
    assert_eq!(stage.reads().await, vec![("done".to_owned(), None); 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn checksum_errors_are_retried_a_bounded_number_of_times() {
    let stage = Stage::new().await;
    let (mut reader, _field) = stage.reader(stage.enroll("RD-1").await.config);
    stage.faults.inject(Fault::BadChecksumTimes(2));
    stage.faults.inject(Fault::ReportChecksumTimes(1));
    let outcome = reader.read(ReadOptions::default()).await.unwrap();
    assert_eq!((outcome.source, outcome.attempts), (Source::Server, 1));

    // More than the bound: the SAM is given up and reopened, and the read goes on (C12).
    stage.faults.inject(Fault::BadChecksumTimes(4));
    let outcome = reader.read(ReadOptions::default()).await.unwrap();
    assert_eq!(outcome.attempts, 1, "{outcome:?}");
    assert_eq!(stage.reads().await, vec![("done".to_owned(), None); 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sam_that_times_out_recovers_within_the_read() {
    let stage = Stage::new().await;
    let (mut reader, _field) = stage.reader(stage.enroll("RD-1").await.config);
    stage.faults.inject(Fault::VendorTimeout);
    let outcome = reader.read(ReadOptions::default()).await.unwrap();
    assert_eq!(outcome.attempts, 1);
    assert_eq!(stage.reads().await, [("done".to_owned(), None)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sam_unplugged_in_mid_read_fails_the_read_by_name() {
    let stage = Stage::new().await;
    let (mut reader, _field) = stage.reader(stage.enroll("RD-1").await.config);
    reader.set_retry_for(Duration::from_secs(1));
    stage.faults.inject(Fault::UnplugAt([0xE0, 0x03])); // while it gets the packets
    let error = reader.read(ReadOptions::default()).await.unwrap_err();
    assert_eq!(refused(&error), "sam-none-ready", "{error}");
    assert!(!stage.sam.is_running());
    let reads = stage.reads().await;
    assert_eq!(reads.len(), 1, "retries of one read are one row");
    assert_eq!(reads[0].0, "failed");
    assert!(stage.refusals().await.contains(&"sam-none-ready".to_owned()));
    let health = stage.server.service().sams().health();
    assert!(!health[0].ready && health[0].failure.is_some(), "{health:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_removed_in_mid_read_is_named_and_the_next_read_works() {
    let stage = Stage::new().await;
    let (mut reader, field) = stage.reader(stage.enroll("RD-1").await.config);
    reader.poll().await.unwrap();
    field.remove_after(4); // in the middle of the encrypted files
    let error = reader.read(ReadOptions::default()).await.unwrap_err();
    assert!(matches!(error, ReadError::NoCard) || refused(&error) == "card-removed", "{error}");
    // The server was busy with its module when the reader gave up, and says what it met there.
    let reads = stage.reads().await;
    assert!(matches!(&reads[..], [(state, Some(_))] if state == "failed"), "{reads:?}");
    field.insert(Arc::new(card(DocumentType::Citizen)));
    let outcome = reader.read(ReadOptions::default()).await.unwrap();
    assert_eq!(outcome.source, Source::Server);
}

/// A card taken for another's configuration: between two looks at it, in the middle of its files,
/// at the last moment. Over TCP and UDP the read is refused by name, at the server too; neither
/// card is in the cache, and each is then read for what it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_card_swapped_after_its_configuration_was_read_is_named() {
    let stage = Stage::new().await;
    let (mine, other) = (card(DocumentType::Citizen), card(DocumentType::Foreigner2017));
    let (mine, other) = (Arc::new(mine), Arc::new(other));
    let config = stage.enroll("RD-1").await.config;
    let gateway = stage.gateway();
    let document = |outcome: &countersign_device::Outcome| {
        IdRecord::decode(outcome.data.text()).unwrap().document_type()
    };
    let mut expected = Vec::new();
    for gateway in [gateway.to_string(), format!("udp:{gateway}")] {
        let (mut reader, field) = stage.reader(config.clone());
        reader.set_gateway(gateway.clone());
        reader.poll().await.unwrap();
        let before = field.apdus();
        reader.read(ReadOptions::default()).await.unwrap();
        let apdus = field.apdus() - before;
        expected.push(("done".to_owned(), None));
        for after in [2, apdus / 2, apdus - 2] {
            let (mut reader, field) = stage.reader(config.clone());
            reader.set_gateway(gateway.clone());
            field.insert(mine.clone());
            reader.poll().await.unwrap();
            field.swap_after(after, other.clone());
            let error = reader.read(ReadOptions::default()).await.unwrap_err();
            assert_eq!(error.check(), "card-swapped", "{gateway} {after}: {error}");
            expected.push(("failed".to_owned(), Some("card-swapped".to_owned())));
            for (card, is) in
                [(&other, DocumentType::Foreigner2017), (&mine, DocumentType::Citizen)]
            {
                field.remove();
                assert!(!reader.poll().await.unwrap());
                field.insert(card.clone());
                let outcome = reader.read(ReadOptions::default()).await.unwrap();
                assert_eq!(outcome.source, Source::Server, "{gateway} {after}: nothing was kept");
                assert_eq!(document(&outcome), is, "{gateway} {after}");
                expected.push(("done".to_owned(), None));
            }
        }
    }
    expected.reverse();
    assert_eq!(stage.reads().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_answers_wrongly_is_refused_with_an_incident_only() {
    let stage = Stage::new().await;
    let (mut reader, field) = stage.reader(stage.enroll("RD-1").await.config);
    field.set_wrong_answers(true);
    let error = reader.read(ReadOptions::default()).await.unwrap_err();
    assert_eq!(refused(&error), "authentication");
    let incident = error.incident().unwrap().to_owned();
    let rows = stage.server.service().incident(&incident).await.unwrap();
    assert_eq!(rows[0].entry.check.as_deref(), Some("card-authentication"));
}

/// C8-like care: a busy or broken server is no reason to forget what the card gave.
#[tokio::test(flavor = "multi_thread")]
async fn encrypted_data_survive_a_failed_read_in_the_cache() {
    let stage = Stage::new().await;
    let (mut reader, field) = stage.reader(stage.enroll("RD-1").await.config);
    reader.read(ReadOptions::default()).await.unwrap();
    let apdus = field.apdus();
    stage.faults.inject(Fault::CardNotFound);
    let outcome = reader.read(ReadOptions::default()).await.unwrap();
    assert_eq!(outcome.source, Source::ServerFromCache);
    assert!(outcome.attempts > 1);
    assert_eq!(field.apdus(), apdus, "the card was not asked again");
}

/// A card whose data do not decrypt is refused without saying more than "authentication".
#[tokio::test(flavor = "multi_thread")]
async fn a_sam_that_rejects_the_card_is_named_to_the_operator_only() {
    let stage = Stage::new().await;
    let (mut reader, _field) = stage.reader(stage.enroll("RD-1").await.config);
    stage.faults.inject(Fault::RejectCard);
    let error = reader.read(ReadOptions::default()).await.unwrap_err();
    assert_eq!(refused(&error), "authentication");
    assert!(error.incident().is_some());
}

/// The card is looked for while the server waits for a module, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_leaves_while_the_server_is_awaited_ends_the_read() {
    let stage = Stage::new().await;
    let (mut reader, field) = stage.reader(stage.enroll("RD-1").await.config);
    stage.faults.inject(Fault::SilentAfter([0xE0, 0x01]));
    let leaves = tokio::spawn({
        let field = field.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            field.remove();
        }
    });
    reader.set_retry_for(Duration::ZERO);
    let error = reader.read(ReadOptions::default()).await.unwrap_err();
    leaves.await.unwrap();
    assert_eq!(refused(&error), "card-removed");
    // The server was busy with its module when the reader gave up, and says what it met there.
    let reads = stage.reads().await;
    assert!(matches!(&reads[..], [(state, Some(_))] if state == "failed"), "{reads:?}");
}
