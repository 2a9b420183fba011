//! Reading: C1, C2, C4, C6, C7, C9, C12.

use countersign_channel::Mode;
use countersign_device::{DeviceDir, ReadError, Reader, Source, Traffic};
use countersign_emulator::CardHandle;
use countersign_idcard::reader::ReadOptions;
use countersign_idcard::record::DocumentType;
use countersign_server::ambient;
use serde_json::Value;
use tokio::time::Instant;

use super::cards::DemoCard;
use super::stage::Stage;
use super::{OTHER_SERIAL, SERIAL, SERVER_ID, card_failure};
use crate::demo::steps::{Flow, expect};
use crate::device::emulated_field;
use crate::emulator::SAM_SERIAL;
use crate::failure::Failure;

pub(super) async fn appear(
    flow: &mut Flow,
    reader: &mut Reader,
    field: &CardHandle,
    cards: &[DemoCard],
) -> Result<(), Failure> {
    let card = &cards[0].image;
    field.insert(card.clone());
    let started = Instant::now();
    reader.poll().await.map_err(card_failure)?;
    let took = started.elapsed();
    let cached = reader.present_configuration() == Some(card.configuration())
        && reader.knows(card.configuration());
    let checked = expect("the cached configuration", &cached, &true)
        .and_then(|()| expect("the traffic", &reader.traffic(), &Traffic::default()));
    let what = "card appears: configuration read and cached before any read command";
    flow.step("C6", what, checked, took);
    Ok(())
}

pub(super) async fn first_read(
    flow: &mut Flow,
    stage: &Stage,
    reader: &mut Reader,
    card: &DemoCard,
) -> Result<(), Failure> {
    let stranger = expect("the proven server before", &reader.proven_server(), &None);
    let outcome = reader.read(card.options()).await?;
    let traffic = reader.traffic();
    let row = stage.newest_read().await?;
    // Each side says whom the other proved to be: the reader by its channel, the server by its row.
    let reader_id = stage.reader_id(SERIAL).await?;
    let checked = stranger
        .and_then(|()| expect("connections", &traffic.connections, &1))
        .and_then(|()| expect("the source", &outcome.source, &Source::Server))
        .and_then(|()| expect("the proven server", &reader.proven_server(), &Some(SERVER_ID)))
        .and_then(|()| expect("an enrolled reader", &reader_id.is_some(), &true))
        .and_then(|()| {
            expect("the row's reader", &row["readerId"].as_str(), &reader_id.as_deref())
        });
    let what = "read command: handshake, server proven to the reader and reader to the server";
    flow.step("C1", what, checked, outcome.handshake);

    // 32 bytes of configuration and all encrypted files went over the wire.
    let files = countersign_idcard::ENCRYPTED_BASE_LEN as u64;
    let wanted = files + countersign_idcard::CONFIGURATION_LEN as u64;
    let checked = if traffic.sent > wanted {
        Ok(())
    } else {
        Err(format!("{} bytes sent, but the card has {wanted}", traffic.sent))
    };
    let rest = outcome.total.saturating_sub(outcome.handshake);
    let what = format!(
        "configuration and packets, each sealed in turn ({} bytes sent, {} received)",
        traffic.sent, traffic.received
    );
    flow.step("C9", &what, checked, rest);

    let serial = format!("{SAM_SERIAL:010}");
    let sam = row["samId"].as_str().unwrap_or_default().contains(&serial);
    let checked = expect("the read's state", &row["state"], &Value::from("done"))
        .and_then(|()| expect("the emulated SAM's id in the read's row", &sam, &true))
        .and_then(|()| card.compare(&outcome));
    let what = "SAM decrypts; record, id checksum and photo compared with the card's";
    flow.step("C12", what, checked, outcome.total);
    Ok(())
}

/// C2: the same reader begins the other handshake.
pub(super) async fn server_first(
    flow: &mut Flow,
    stage: &Stage,
    device: &DeviceDir,
    card: &DemoCard,
) -> Result<(), Failure> {
    let (link, field) = emulated_field();
    field.insert(card.image.clone());
    let mut reader = stage.reader_by(Mode::C2, device, link)?;
    let outcome = reader.read(card.options()).await?;
    let mode = outcome.spoken.map(|spoken| spoken.mode);
    let checked = expect("the handshake", &mode, &Some(Mode::C2))
        .and_then(|()| expect("the proven server", &reader.proven_server(), &Some(SERVER_ID)))
        .and_then(|()| expect("the source", &outcome.source, &Source::Server))
        .and_then(|()| card.compare(&outcome));
    let what = "the other handshake: the server shows its certificate first; the same card read";
    flow.step("C2", what, checked, outcome.handshake);
    Ok(())
}

pub(super) async fn read_again(
    flow: &mut Flow,
    reader: &mut Reader,
    field: &CardHandle,
    card: &DemoCard,
) -> Result<(), Failure> {
    let apdus = field.apdus();
    let outcome = reader.read(card.options()).await?;
    let checked = expect("the source", &outcome.source, &Source::ServerFromCache)
        .and_then(|()| expect("APDUs sent to the card", &field.apdus(), &apdus))
        .and_then(|()| card.compare(&outcome));
    let what = "read again: encrypted data from the reader's cache, the card is not asked";
    flow.step("C7", what, checked, outcome.total);
    Ok(())
}

pub(super) async fn other_documents(
    flow: &mut Flow,
    reader: &mut Reader,
    field: &CardHandle,
    cards: &[DemoCard],
) -> Result<(), Failure> {
    for card in &cards[1..] {
        field.remove();
        reader.poll().await.map_err(card_failure)?;
        field.insert(card.image.clone());
        let outcome = reader.read(card.options()).await?;
        let checked = expect("the source", &outcome.source, &Source::Server)
            .and_then(|()| card.compare(&outcome));
        let finger = if card.fingerprint.is_some() { ", fingerprint" } else { "" };
        let what =
            format!("another card: {}, every field, photo{finger} compared", card.document.name());
        flow.step("C12", &what, checked, outcome.total);
    }
    Ok(())
}

/// C4: signed id and sent id are of different kinds; a pair that does not match is refused.
pub(super) async fn mismatched_ids(
    flow: &mut Flow,
    stage: &Stage,
    device: &DeviceDir,
) -> Result<(), Failure> {
    stage.enroll(OTHER_SERIAL).await?;
    let ambient = ambient();
    let mut config = device.reader_config(&device.provider(), ambient.clock.now())?;
    config.serial = OTHER_SERIAL.to_owned();
    let (link, field) = emulated_field();
    field.insert(DemoCard::of(DocumentType::Citizen)?.image);
    let gateway = stage.server.gateway().to_string();
    let rng = Box::new(move || (ambient.rng)());
    let mut liar = Reader::new(config, gateway, Box::new(link), ambient.clock, rng);
    let before = stage.reads().await?;
    let started = Instant::now();
    let refused = liar.read(ReadOptions::default()).await;
    let took = started.elapsed();
    let check = refused.as_ref().err().map(ReadError::check);
    let checked = expect("the refused check", &check, &Some("reader-id-mismatch"));
    let after = stage.reads().await?;
    let checked = checked.and_then(|()| expect("reads stored", &after, &before));
    let what = "serial and certificate number mapped; another reader's serial is refused";
    flow.step("C4", what, checked, took);
    Ok(())
}
