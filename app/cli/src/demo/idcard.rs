//! Flow C: a reader without a SAM reads ID cards through the server.

use std::path::Path;
use std::time::Duration;

use countersign_crypto::Secret;
use countersign_device::{Api, DeviceDir, Outcome, ReadError, Reader, Source, Traffic, enroll};
use countersign_emulator::{CardHandle, CardImage, EmulatedCard, SamPty, Scheme, sample};
use countersign_idcard::reader::ReadOptions;
use countersign_idcard::record::DocumentType;
use countersign_net::serial::BAUD;
use countersign_server::{Config, DataDir, Readers, Sam, ServeOptions, Server, ambient};
use serde_json::Value;
use tokio::time::Instant;

use super::steps::{Flow, expect};
use crate::device::{DOCUMENTS, emulated_card, emulated_field};
use crate::emulator::{SAM_SERIAL, start_sam};
use crate::failure::Failure;
use crate::init;

const SERIAL: &str = "RD-DEMO-1";
const OTHER_SERIAL: &str = "RD-DEMO-2";

/// Everything the flow runs on.
struct Stage {
    dir: tempfile::TempDir,
    passphrase: Secret,
    token: String,
    sam: SamPty,
    server: Server,
}

impl Stage {
    async fn set_up() -> Result<Self, Failure> {
        let dir = tempfile::tempdir()
            .map_err(|error| Failure::environment("temp-dir", error.to_string()))?;
        let passphrase = init::random_passphrase();
        let data = dir.path().join("data");
        let config = Config::default();
        let made =
            init::make(&data, Some("srv-demo".into()), &[], &config, &passphrase, false).await?;
        let token = made.token.secret.to_string();
        let sam = start_sam()?;
        let server = start(&data, &passphrase, &sam, false).await?;
        Ok(Self { dir, passphrase, token, sam, server })
    }

    fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    async fn api(&self) -> Result<Api, Failure> {
        let ca = DataDir::open(&self.data())?.certificate_pem("tls/root.pem")?;
        Ok(Api::new(&self.server.url(), &ca, &self.token)?)
    }

    async fn enroll(&self, serial: &'static str) -> Result<DeviceDir, Failure> {
        let api = self.api().await?;
        let dir = self.dir.path().join(serial);
        blocking(move || {
            let ambient = ambient();
            let provider = countersign_crypto::aws_lc::provider();
            let now = ambient.clock.now();
            Ok(enroll(&dir, serial, &api, &provider, now, &mut *(ambient.rng)())?)
        })
        .await
    }

    /// The newest read as the API tells it.
    async fn newest_read(&self) -> Result<Value, Failure> {
        let api = self.api().await?;
        let page: Value = blocking(move || Ok(api.get("/v1/reads?limit=1")?)).await?;
        Ok(page["items"][0].clone())
    }

    async fn reads(&self) -> Result<usize, Failure> {
        let api = self.api().await?;
        let page: Value = blocking(move || Ok(api.get("/v1/reads?limit=200")?)).await?;
        Ok(page["items"].as_array().map_or(0, Vec::len))
    }

    fn reader(&self, dir: &DeviceDir, link: EmulatedCard) -> Result<Reader, Failure> {
        let ambient = ambient();
        let provider = countersign_crypto::aws_lc::provider();
        let config = dir.reader_config(&provider, ambient.clock.now())?;
        let gateway = self.server.gateway().to_string();
        let rng = Box::new(move || (ambient.rng)());
        Ok(Reader::new(config, gateway, Box::new(link), ambient.clock, rng))
    }

    /// Stops the server and starts it with the plaintext cache allowed.
    async fn restart_with_plaintext_cache(self) -> Result<Self, Failure> {
        let Self { dir, passphrase, token, sam, server } = self;
        server.stop().await;
        let server = start(&dir.path().join("data"), &passphrase, &sam, true).await?;
        Ok(Self { dir, passphrase, token, sam, server })
    }
}

async fn start(
    data: &Path,
    passphrase: &Secret,
    sam: &SamPty,
    plaintext_cache: bool,
) -> Result<Server, Failure> {
    let mut data = DataDir::open(data)?;
    data.config.readers = Readers { plaintext_cache };
    let sam = Sam { port: sam.path().display().to_string(), baud: BAUD };
    let options =
        ServeOptions { https_port: 0, gateway_port: 0, sams: vec![sam], ..ServeOptions::default() };
    Ok(Server::start(&data, passphrase, &options).await?)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let worked = tokio::task::spawn_blocking(work).await;
    worked.map_err(|error| Failure::environment("task", error.to_string()))?
}

pub(super) async fn run(quiet: bool) -> Result<Flow, Failure> {
    let mut flow = Flow::new("C", quiet);
    flow.say("Flow C: a reader without a SAM reads ID cards through the server");
    flow.say(
        "  The SAM module and the cards are emulated, with a card scheme of the emulator's own.",
    );
    let stage = Stage::set_up().await?;
    let device = stage.enroll(SERIAL).await?;
    let (link, field) = emulated_field();
    let mut reader = stage.reader(&device, link)?;
    let cards = cards()?;

    appear(&mut flow, &mut reader, &field, &cards).await?;
    first_read(&mut flow, &stage, &mut reader).await?;
    mismatched_ids(&mut flow, &stage, &device).await?;
    read_again(&mut flow, &mut reader, &field).await?;
    other_documents(&mut flow, &mut reader, &field, &cards).await?;

    flow.say("  The demo's policy now turns the plaintext cache on (it is off by default).");
    let stage = stage.restart_with_plaintext_cache().await?;
    reader.set_gateway(stage.server.gateway().to_string());
    field.remove();
    reader.poll().await.map_err(card_failure)?;
    field.insert(cards[0].clone());
    keep_plaintext(&mut flow, &mut reader).await?;
    second_read(&mut flow, &stage, &mut reader).await?;
    stage.server.stop().await;
    stage.sam.stop();
    Ok(flow)
}

fn cards() -> Result<Vec<std::sync::Arc<CardImage>>, Failure> {
    let scheme = Scheme::with_demo_key(countersign_crypto::aws_lc::provider());
    let card = |document: DocumentType| emulated_card(&scheme, document.name()).map(Into::into);
    DOCUMENTS.into_iter().map(card).collect()
}

fn card_failure(error: countersign_idcard::card::CardError) -> Failure {
    Failure::check("card", error.to_string())
}

/// Fields and photo as the card's maker wrote them.
fn same_record(outcome: &Outcome, document: DocumentType) -> Result<(), String> {
    let record = countersign_idcard::record::IdRecord::decode(outcome.data.text())
        .map_err(|error| error.to_string())?;
    if record != sample(document) {
        return Err("the record's fields differ from the card's".into());
    }
    let blank = outcome.data.photo().iter().all(|byte| *byte == 0);
    if blank { Err("the photo is blank".into()) } else { Ok(()) }
}

async fn appear(
    flow: &mut Flow,
    reader: &mut Reader,
    field: &CardHandle,
    cards: &[std::sync::Arc<CardImage>],
) -> Result<(), Failure> {
    field.insert(cards[0].clone());
    let started = Instant::now();
    reader.poll().await.map_err(card_failure)?;
    let took = started.elapsed();
    let cached = reader.present_configuration().is_some_and(|seen| {
        seen == cards[0].configuration() && reader.knows(cards[0].configuration())
    });
    let checked = expect("the cached configuration", &cached, &true)
        .and_then(|()| expect("the traffic", &reader.traffic(), &Traffic::default()));
    let what = "card appears: configuration read and cached before any read command";
    flow.step("C6", what, checked, took);
    Ok(())
}

async fn first_read(flow: &mut Flow, stage: &Stage, reader: &mut Reader) -> Result<(), Failure> {
    let outcome = reader.read(ReadOptions::default()).await?;
    let traffic = reader.traffic();
    let row = stage.newest_read().await?;
    let one_connection = expect("connections", &traffic.connections, &1);
    let checked = one_connection
        .and_then(|()| expect("the source", &outcome.source, &Source::Server))
        .and_then(|()| expect("handshake time", &(outcome.handshake > Duration::ZERO), &true));
    flow.step(
        "C1",
        "read command: handshake, keys confirmed both ways",
        checked,
        outcome.handshake,
    );

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
        .and_then(|()| same_record(&outcome, DocumentType::Citizen));
    let what = "SAM decrypts; record, id checksum and photo compared with the card's";
    flow.step("C12", what, checked, outcome.total);
    Ok(())
}

/// C4: signed id and sent id are of different kinds; a pair that does not match is refused.
async fn mismatched_ids(flow: &mut Flow, stage: &Stage, device: &DeviceDir) -> Result<(), Failure> {
    stage.enroll(OTHER_SERIAL).await?;
    let ambient = ambient();
    let provider = countersign_crypto::aws_lc::provider();
    let mut config = device.reader_config(&provider, ambient.clock.now())?;
    config.serial = OTHER_SERIAL.to_owned();
    let (link, field) = emulated_field();
    let scheme = Scheme::with_demo_key(provider);
    field.insert(emulated_card(&scheme, DocumentType::Citizen.name())?.into());
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

async fn read_again(
    flow: &mut Flow,
    reader: &mut Reader,
    field: &CardHandle,
) -> Result<(), Failure> {
    let apdus = field.apdus();
    let outcome = reader.read(ReadOptions::default()).await?;
    let checked = expect("the source", &outcome.source, &Source::ServerFromCache)
        .and_then(|()| expect("APDUs sent to the card", &field.apdus(), &apdus))
        .and_then(|()| same_record(&outcome, DocumentType::Citizen));
    let what = "read again: encrypted data from the reader's cache, the card is not asked";
    flow.step("C7", what, checked, outcome.total);
    Ok(())
}

async fn other_documents(
    flow: &mut Flow,
    reader: &mut Reader,
    field: &CardHandle,
    cards: &[std::sync::Arc<CardImage>],
) -> Result<(), Failure> {
    for (document, card) in DOCUMENTS.into_iter().zip(cards).skip(1) {
        field.remove();
        reader.poll().await.map_err(card_failure)?;
        field.insert(card.clone());
        let outcome = reader.read(ReadOptions::default()).await?;
        let checked = expect("the source", &outcome.source, &Source::Server)
            .and_then(|()| same_record(&outcome, document));
        let what = format!("another card: {}, every field compared", document.name());
        flow.step("C12", &what, checked, outcome.total);
    }
    Ok(())
}

async fn keep_plaintext(flow: &mut Flow, reader: &mut Reader) -> Result<(), Failure> {
    let outcome = reader.read(ReadOptions::default()).await?;
    let checked = expect("the source", &outcome.source, &Source::ServerFromCache)
        .and_then(|()| same_record(&outcome, DocumentType::Citizen));
    let what = "policy on: plaintext kept under a random key of the reader's own";
    flow.step("C13", what, checked, outcome.total);
    Ok(())
}

async fn second_read(flow: &mut Flow, stage: &Stage, reader: &mut Reader) -> Result<(), Failure> {
    let (traffic, reads) = (reader.traffic(), stage.reads().await?);
    let outcome = reader.read(ReadOptions::default()).await?;
    let checked = expect("the source", &outcome.source, &Source::Cache)
        .and_then(|()| expect("the traffic", &reader.traffic(), &traffic))
        .and_then(|()| same_record(&outcome, DocumentType::Citizen));
    let after = stage.reads().await?;
    let checked = checked.and_then(|()| expect("reads at the server", &after, &reads));
    let what = "second read: answered by the reader alone, no byte sent, no SAM";
    flow.step("C14", what, checked, outcome.total);
    Ok(())
}
