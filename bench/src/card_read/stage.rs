//! Server, emulated SAM module on a pty, emulated cards, and readers enrolled at the server.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use countersign_crypto::Secret;
use countersign_device::{Api, DeviceDir, Outcome, Reader, enroll};
use countersign_emulator::{CardImage, EmulatedCard, EmulatedSam, Faults, SamPty, Scheme, sample};
use countersign_idcard::reader::ReadOptions;
use countersign_idcard::record::{DocumentType, IdRecord};
use countersign_net::serial::BAUD;
use countersign_server::{
    Config, DataDir, Init, NewDataDir, Readers, Sam, ServeOptions, Server, ambient, open_service,
    parse_tls_name,
};
use countersign_service::Actor;
use countersign_store::Role;

use super::tap::{Heard, Tap};
use crate::Fallible;

const SERIAL: &str = "RD-BENCH-1";
/// The serial number in the emulated module's id.
const SAM_SERIAL: u32 = 1;
const CARD_SERIAL: u64 = 1;
const DOCUMENT: DocumentType = DocumentType::Citizen;

/// Everything a read runs on.
pub(super) struct Stage {
    dir: tempfile::TempDir,
    device: DeviceDir,
    card: Arc<CardImage>,
    sam: SamPty,
    server: Server,
}

fn scheme() -> Scheme {
    Scheme::with_demo_key(countersign_crypto::aws_lc::provider())
}

impl Stage {
    /// A server on loopback ports of its own, in a temporary directory, with the plaintext cache
    /// allowed: without it there is no second read to measure (C14).
    pub(super) async fn set_up() -> Fallible<Self> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("data");
        let mut random = [0; 24];
        (ambient().rng)().fill_bytes(&mut random);
        let passphrase = Secret::copied_from(&random);
        let token = make_data_dir(&path, &passphrase).await?;
        let module = EmulatedSam::new(scheme(), SAM_SERIAL, Faults::none());
        let sam = SamPty::start(module, (ambient().rng)())?;
        let data = DataDir::open(&path)?;
        let port = sam.path().display().to_string();
        let options = ServeOptions {
            https_port: 0,
            gateway_port: 0,
            sams: vec![Sam { port, baud: BAUD }],
            ..ServeOptions::default()
        };
        let server = Server::start(&data, &passphrase, &options).await?;
        let api = Api::new(&server.url(), &data.certificate_pem("tls/root.pem")?, &token)?;
        let device_path = dir.path().join("reader");
        let enrolled = tokio::task::spawn_blocking(move || {
            let ambient = ambient();
            let provider = countersign_crypto::aws_lc::provider();
            let now = ambient.clock.now();
            enroll(&device_path, SERIAL, &api, &provider, now, &mut *(ambient.rng)())
        });
        let device = enrolled.await??;
        let record = sample(DOCUMENT);
        let mut rng = (ambient().rng)();
        let card = CardImage::new(&scheme(), &mut *rng, CARD_SERIAL, &record, None, None)?;
        Ok(Self { dir, device, card: Arc::new(card), sam, server })
    }

    /// A reader that remembers nothing, with the card on it; through `gateway` if given.
    pub(super) fn fresh_reader(&self, gateway: Option<SocketAddr>) -> Fallible<Reader> {
        let ambient = ambient();
        let provider = countersign_crypto::aws_lc::provider();
        let config = self.device.reader_config(&provider, ambient.clock.now())?;
        let gateway = gateway.unwrap_or_else(|| self.server.gateway()).to_string();
        let (link, field) = EmulatedCard::new(scheme(), (ambient.rng)());
        field.insert(self.card.clone());
        let rng = Box::new(move || (ambient.rng)());
        Ok(Reader::new(config, gateway, Box::new(link), ambient.clock, rng))
    }

    /// A read counts only if it gave what is on the card.
    pub(super) fn check(&self, outcome: &Outcome) -> Fallible<()> {
        if IdRecord::decode(outcome.data.text())? != sample(DOCUMENT) {
            return Err("the record's fields differ from the card's".into());
        }
        Ok(())
    }

    /// What one first read puts on the wire, both ends' close records included.
    pub(super) async fn overhear(&self) -> Fallible<Heard> {
        let tap = Tap::start(self.server.gateway()).await?;
        let mut reader = self.fresh_reader(Some(tap.address))?;
        self.check(&reader.read(ReadOptions::default()).await?)?;
        drop(reader);
        Ok(tap.heard().await?)
    }

    pub(super) async fn stop(self) {
        self.server.stop().await;
        self.sam.stop();
        drop(self.dir);
    }
}

/// Makes a data directory; returns its administrator's token.
async fn make_data_dir(path: &Path, passphrase: &Secret) -> Fallible<String> {
    let config = Config { readers: Readers { plaintext_cache: true }, ..Config::default() };
    let tls_names = ["localhost", "127.0.0.1"].map(parse_tls_name);
    let init = Init {
        passphrase,
        keep_passphrase: false,
        server_id: "srv-bench",
        tls_names: &tls_names,
        config: &config,
    };
    let ambient = ambient();
    let provider = countersign_crypto::aws_lc::provider();
    let now = ambient.clock.now();
    let new = NewDataDir::build(path, &init, &provider, now, &mut *(ambient.rng)())?;
    let data = DataDir::open(new.path())?;
    let (service, _keys) = open_service(&data, passphrase, None, &[]).await?;
    let added = service.add_operator(&Actor::Console, "admin", &[Role::Admin]).await;
    // Committed rows are on the disk; the directory may be renamed while files close.
    drop(Arc::into_inner(service));
    let (_operator, token) = added?;
    new.publish()?;
    Ok(token.secret.to_string())
}
