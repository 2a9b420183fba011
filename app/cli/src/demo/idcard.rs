//! Flow C: a reader without a SAM reads ID cards through the server.

use std::path::Path;
use std::sync::Arc;

use countersign_channel::Mode;
use countersign_crypto::{Secret, Suite};
use countersign_device::{
    Api, DeviceDir, Outcome, ReadError, Reader, Source, Traffic, enroll, server_suite,
};
use countersign_emulator::{CardHandle, CardImage, EmulatedCard, SamPty, Scheme, sample};
use countersign_idcard::PHOTO_LEN;
use countersign_idcard::reader::ReadOptions;
use countersign_idcard::record::DocumentType;
use countersign_net::serial::BAUD;
use countersign_server::{Config, DataDir, Readers, Sam, ServeOptions, Server, ambient};
use serde_json::Value;
use tokio::time::Instant;

use super::steps::{Flow, expect};
use crate::device::{DOCUMENTS, emulated_field, provider_of};
use crate::emulator::{SAM_SERIAL, start_sam};
use crate::failure::Failure;
use crate::init;

const SERIAL: &str = "RD-DEMO-1";
const OTHER_SERIAL: &str = "RD-DEMO-2";
const SERVER_ID: &str = "srv-demo";
/// Bytes of the emulated fingerprint: one finger.
const FINGERPRINT_LEN: usize = 512;
/// Which of the cards has a fingerprint, and its read asks for it.
const WITH_FINGERPRINT: DocumentType = DocumentType::Foreigner2023;

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
        let plan = init::Plan {
            suite: Suite::X25519_P256_AES128GCM_SHA256,
            server_id: Some(SERVER_ID.into()),
            tls_names: &[],
            config: &config,
            passphrase: &passphrase,
            keep_passphrase: false,
        };
        let made = init::make(&data, plan, None).await?;
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
            let suite = server_suite(&api)?;
            let provider = provider_of(suite)?;
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

    /// The id that the API has for the reader with this serial number.
    async fn reader_id(&self, serial: &str) -> Result<Option<String>, Failure> {
        let api = self.api().await?;
        let page: Value = blocking(move || Ok(api.get("/v1/readers?limit=200")?)).await?;
        let readers = page["items"].as_array().map_or(&[][..], Vec::as_slice);
        let found = readers.iter().find(|reader| reader["serial"] == serial);
        Ok(found.and_then(|reader| reader["id"].as_str()).map(str::to_owned))
    }

    async fn reads(&self) -> Result<usize, Failure> {
        let api = self.api().await?;
        let page: Value = blocking(move || Ok(api.get("/v1/reads?limit=200")?)).await?;
        Ok(page["items"].as_array().map_or(0, Vec::len))
    }

    fn reader(&self, dir: &DeviceDir, link: EmulatedCard) -> Result<Reader, Failure> {
        self.reader_by(Mode::C1, dir, link)
    }

    /// A reader that begins this handshake.
    fn reader_by(
        &self,
        mode: Mode,
        dir: &DeviceDir,
        link: EmulatedCard,
    ) -> Result<Reader, Failure> {
        let ambient = ambient();
        let mut config = dir.reader_config(&dir.provider(), ambient.clock.now())?;
        config.mode = mode;
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
    let cards = DemoCard::all()?;

    appear(&mut flow, &mut reader, &field, &cards).await?;
    first_read(&mut flow, &stage, &mut reader, &cards[0]).await?;
    mismatched_ids(&mut flow, &stage, &device).await?;
    server_first(&mut flow, &stage, &device, &cards[0]).await?;
    read_again(&mut flow, &mut reader, &field, &cards[0]).await?;
    other_documents(&mut flow, &mut reader, &field, &cards).await?;

    flow.say("  The demo's policy now turns the plaintext cache on (it is off by default).");
    let stage = stage.restart_with_plaintext_cache().await?;
    reader.set_gateway(stage.server.gateway().to_string());
    field.remove();
    reader.poll().await.map_err(card_failure)?;
    field.insert(cards[0].image.clone());
    keep_plaintext(&mut flow, &mut reader, &cards[0]).await?;
    second_read(&mut flow, &stage, &mut reader, &cards[0]).await?;
    stage.server.stop().await;
    stage.sam.stop();
    Ok(flow)
}

/// An emulated card and all that was written on it, to compare reads with.
struct DemoCard {
    image: Arc<CardImage>,
    document: DocumentType,
    photo: [u8; PHOTO_LEN],
    fingerprint: Option<Vec<u8>>,
}

impl DemoCard {
    /// One card of each document type, each with photo bytes of its own.
    fn all() -> Result<Vec<Self>, Failure> {
        let scheme = Scheme::with_demo_key(countersign_crypto::aws_lc::provider());
        DOCUMENTS.into_iter().map(|document| Self::make(&scheme, document)).collect()
    }

    fn make(scheme: &Scheme, document: DocumentType) -> Result<Self, Failure> {
        let mut rng = (ambient().rng)();
        let mut photo = [0; PHOTO_LEN];
        rng.fill_bytes(&mut photo);
        let fingerprint = (document == WITH_FINGERPRINT).then(|| {
            let mut bytes = vec![0; FINGERPRINT_LEN];
            rng.fill_bytes(&mut bytes);
            bytes
        });
        let (serial, record) = (document as u64 + 1, sample(document));
        let finger = fingerprint.as_deref();
        let image = CardImage::new(scheme, &mut *rng, serial, &record, Some(&photo), finger)
            .map_err(|error| Failure::check("card", error.to_string()))?;
        Ok(Self { image: Arc::new(image), document, photo, fingerprint })
    }

    fn options(&self) -> ReadOptions {
        ReadOptions { fingerprint: self.fingerprint.is_some(), ..ReadOptions::default() }
    }

    /// Every field, and photo and fingerprint byte by byte, as they were written on this card.
    fn compare(&self, outcome: &Outcome) -> Result<(), String> {
        let record = countersign_idcard::record::IdRecord::decode(outcome.data.text())
            .map_err(|error| error.to_string())?;
        if record != sample(self.document) {
            return Err("the record's fields differ from the card's".into());
        }
        if *outcome.data.photo() != self.photo {
            return Err("the photo's bytes differ from the card's".into());
        }
        if outcome.data.fingerprint() != self.fingerprint.as_deref() {
            return Err("the fingerprint's bytes differ from the card's".into());
        }
        Ok(())
    }
}

fn card_failure(error: countersign_idcard::card::CardError) -> Failure {
    Failure::check("card", error.to_string())
}

async fn appear(
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

async fn first_read(
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

/// C4: signed id and sent id are of different kinds; a pair that does not match is refused.
async fn mismatched_ids(flow: &mut Flow, stage: &Stage, device: &DeviceDir) -> Result<(), Failure> {
    stage.enroll(OTHER_SERIAL).await?;
    let ambient = ambient();
    let mut config = device.reader_config(&device.provider(), ambient.clock.now())?;
    config.serial = OTHER_SERIAL.to_owned();
    let (link, field) = emulated_field();
    let scheme = Scheme::with_demo_key(countersign_crypto::aws_lc::provider());
    field.insert(DemoCard::make(&scheme, DocumentType::Citizen)?.image);
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

/// C2: the same reader begins the other handshake.
async fn server_first(
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

async fn read_again(
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

async fn other_documents(
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

/// C13: before the policy allowed it nothing was kept, though this card was read twice; now it is.
async fn keep_plaintext(
    flow: &mut Flow,
    reader: &mut Reader,
    card: &DemoCard,
) -> Result<(), Failure> {
    let configuration = card.image.configuration();
    let kept_before = reader.answers_alone(configuration, card.options());
    let outcome = reader.read(card.options()).await?;
    let kept = reader.answers_alone(configuration, card.options());
    let checked = expect("a plaintext kept while the policy was off", &kept_before, &false)
        .and_then(|()| expect("the source", &outcome.source, &Source::ServerFromCache))
        .and_then(|()| expect("a plaintext kept with the policy on", &kept, &true))
        .and_then(|()| card.compare(&outcome));
    let what = "policy on: plaintext kept under a random key of the reader's own; off: not kept";
    flow.step("C13", what, checked, outcome.total);
    Ok(())
}

async fn second_read(
    flow: &mut Flow,
    stage: &Stage,
    reader: &mut Reader,
    card: &DemoCard,
) -> Result<(), Failure> {
    let (traffic, reads) = (reader.traffic(), stage.reads().await?);
    let outcome = reader.read(card.options()).await?;
    let checked = expect("the source", &outcome.source, &Source::Cache)
        .and_then(|()| expect("the traffic", &reader.traffic(), &traffic))
        .and_then(|()| card.compare(&outcome));
    let after = stage.reads().await?;
    let checked = checked.and_then(|()| expect("reads at the server", &after, &reads));
    let what = "second read: answered by the reader alone, no byte sent, no SAM";
    flow.step("C14", what, checked, outcome.total);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use countersign_idcard::PlainData;

    use super::*;

    fn outcome(document: DocumentType, photo: &[u8], fingerprint: Option<&[u8]>) -> Outcome {
        let text = Secret::copied_from(sample(document).encode().unwrap().as_slice());
        let fingerprint = fingerprint.map(Secret::copied_from);
        Outcome {
            data: PlainData::new(text, Secret::copied_from(photo), fingerprint).unwrap(),
            source: Source::Server,
            attempts: 1,
            handshake: Duration::ZERO,
            spoken: None,
            total: Duration::ZERO,
        }
    }

    #[test]
    fn every_byte_of_a_card_is_compared() {
        let cards = DemoCard::all().unwrap();
        assert_eq!(cards.iter().filter(|card| card.fingerprint.is_some()).count(), 1);
        for card in &cards {
            let (document, finger) = (card.document, card.fingerprint.as_deref());
            let compare = |outcome: &Outcome| card.compare(outcome);
            assert_eq!(compare(&outcome(document, &card.photo, finger)), Ok(()));
            for at in [0, PHOTO_LEN / 2, PHOTO_LEN - 1] {
                let mut photo = card.photo;
                photo[at] ^= 1;
                assert!(compare(&outcome(document, &photo, finger)).is_err(), "{document:?} {at}");
            }
            let other = [7; FINGERPRINT_LEN];
            assert!(compare(&outcome(document, &card.photo, Some(&other))).is_err());
            assert_eq!(compare(&outcome(document, &card.photo, None)).is_err(), finger.is_some());
        }
        let other = outcome(DocumentType::ResidencePermit, &cards[0].photo, None);
        assert!(cards[0].compare(&other).is_err());
    }
}
