//! Server, emulated SAM module on a pty, emulated cards, and readers enrolled at the server.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

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

/// No rule throttles a bench, and the bound without rules is as wide as it can be.
pub(crate) const NO_RULES: &str = "reads_per_minute = 120000\n";
const CARD_SERIAL: u64 = 1;
const DOCUMENT: DocumentType = DocumentType::Citizen;

/// Everything a read runs on.
pub(super) struct Stage {
    dir: tempfile::TempDir,
    devices: Vec<DeviceDir>,
    card: Arc<CardImage>,
    sams: Vec<SamPty>,
    server: Server,
}

fn scheme() -> Scheme {
    Scheme::with_demo_key(countersign_crypto::aws_lc::provider())
}

/// An emulated module behind a pty that takes `answer_after` for each command.
pub(super) fn start_sam(serial: u32, answer_after: Duration) -> Fallible<SamPty> {
    let module = EmulatedSam::new(scheme(), serial, Faults::none());
    Ok(SamPty::start_paced(module, (ambient().rng)(), answer_after)?)
}

/// The card of all reads.
pub(super) fn card() -> Fallible<Arc<CardImage>> {
    let mut rng = (ambient().rng)();
    let record = sample(DOCUMENT);
    Ok(Arc::new(CardImage::new(&scheme(), &mut *rng, CARD_SERIAL, &record, None, None)?))
}

/// The card in front of an emulated reader.
pub(super) fn presented(card: &Arc<CardImage>) -> EmulatedCard {
    let (link, field) = EmulatedCard::new(scheme(), (ambient().rng)());
    field.insert(card.clone());
    link
}

impl Stage {
    /// A server on loopback ports of its own, in a temporary directory, with `sams` modules that
    /// take `answer_after` for each command, with so many readers enrolled, and with the plaintext
    /// cache allowed: without it there is no second read to measure (C14).
    pub(super) async fn set_up(
        sams: u32,
        readers: usize,
        answer_after: Duration,
    ) -> Fallible<Self> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("data");
        let mut random = [0; 24];
        (ambient().rng)().fill_bytes(&mut random);
        let passphrase = Secret::copied_from(&random);
        let token = make_data_dir(&path, &passphrase).await?;
        let sams = (1..=sams).map(|serial| start_sam(serial, answer_after));
        let sams = sams.collect::<Fallible<Vec<_>>>()?;
        let data = DataDir::open(&path)?;
        let options = ServeOptions {
            https_port: 0,
            gateway_port: 0,
            sams: sams.iter().map(serial_sam).collect(),
            ..ServeOptions::default()
        };
        let server = Server::start(&data, &passphrase, &options).await?;
        let api = Api::new(&server.url(), &data.certificate_pem("tls/root.pem")?, &token)?;
        let paths: Vec<_> =
            (0..readers).map(|number| dir.path().join(format!("RD-BENCH-{number}"))).collect();
        let enrolled = tokio::task::spawn_blocking(move || {
            let ambient = ambient();
            let provider = countersign_crypto::aws_lc::provider();
            let one = |(number, path): (usize, &std::path::PathBuf)| {
                let (now, serial) = (ambient.clock.now(), format!("RD-BENCH-{number}"));
                enroll(path, &serial, &api, &provider, now, &mut *(ambient.rng)())
            };
            paths.iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()
        });
        let devices = enrolled.await??;
        Ok(Self { dir, devices, card: card()?, sams, server })
    }

    /// The first reader, remembering nothing, with the card on it.
    pub(super) fn fresh_reader(&self) -> Fallible<Reader> {
        self.fresh_reader_of(0, None)
    }

    /// The same of any reader; through `gateway` if given.
    pub(super) fn fresh_reader_of(
        &self,
        number: usize,
        gateway: Option<SocketAddr>,
    ) -> Fallible<Reader> {
        let ambient = ambient();
        let provider = countersign_crypto::aws_lc::provider();
        let config = self.devices[number].reader_config(&provider, ambient.clock.now())?;
        let gateway = gateway.unwrap_or_else(|| self.server.gateway()).to_string();
        let link = Box::new(presented(&self.card));
        let rng = Box::new(move || (ambient.rng)());
        Ok(Reader::new(config, gateway, link, ambient.clock, rng))
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
        let mut reader = self.fresh_reader_of(0, Some(tap.address))?;
        self.check(&reader.read(ReadOptions::default()).await?)?;
        drop(reader);
        Ok(tap.heard().await?)
    }

    pub(super) async fn stop(self) {
        self.server.stop().await;
        self.sams.into_iter().for_each(SamPty::stop);
        drop(self.dir);
    }
}

fn serial_sam(sam: &SamPty) -> Sam {
    Sam { port: sam.path().display().to_string(), baud: BAUD }
}

/// Makes a data directory; returns its administrator's token.
pub(crate) async fn make_data_dir(path: &Path, passphrase: &Secret) -> Fallible<String> {
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
    std::fs::write(path.join("risk.toml"), NO_RULES)?;
    Ok(token.secret.to_string())
}
