//! What the flow runs on: a server of its own, its module, its devices.

use std::path::Path;
use std::time::Duration;

use countersign_channel::Mode;
use countersign_crypto::Secret;
use countersign_device::{Api, DeviceDir, DeviceKind, Reader, enroll, enroll_as, server_suite};
use countersign_emulator::{EmulatedCard, Faults, SamPty};
use countersign_net::serial::BAUD;
use countersign_server::{DataDir, Readers, Sam, SamAt, SamHostAt, ServeOptions, Server, ambient};
use serde_json::Value;

use super::SERVER_ID;
pub(super) use crate::demo::blocking;
use crate::demo::make_data_dir;
use crate::device::provider_of;
use crate::emulator::{SAM_SERIAL, start_sam};
use crate::failure::Failure;
use crate::init;

/// The demo's rule: three errors of a reader block it until an operator says otherwise.
const RULES: &str = r#"
[[rule]]
name = "bad-cards"
count = "errors"
at_least = 3
within = "10m"
action = "block"
"#;

/// Everything the flow runs on.
pub(super) struct Stage {
    pub(super) dir: tempfile::TempDir,
    pub(super) passphrase: Secret,
    pub(super) token: String,
    pub(super) sam: SamPty,
    /// What is to go wrong at the module.
    pub(super) faults: Faults,
    pub(super) server: Server,
}

impl Stage {
    pub(super) async fn set_up() -> Result<Self, Failure> {
        let dir = tempfile::tempdir()
            .map_err(|error| Failure::environment("temp-dir", error.to_string()))?;
        let passphrase = init::random_passphrase();
        let data = dir.path().join("data");
        let token = make_data_dir(&data, SERVER_ID, &passphrase).await?;
        std::fs::write(data.join("risk.toml"), RULES)
            .map_err(|error| Failure::file(&data.join("risk.toml"), &error))?;
        let faults = Faults::none();
        let sam = start_sam(SAM_SERIAL, faults.clone(), Duration::ZERO)?;
        let server = start(&data, &passphrase, &sam, None).await?;
        Ok(Self { dir, passphrase, token, sam, faults, server })
    }

    pub(super) fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    pub(super) async fn api(&self) -> Result<Api, Failure> {
        let ca = DataDir::open(&self.data())?.certificate_pem("tls/root.pem")?;
        Ok(Api::new(&self.server.url(), &ca, &self.token)?)
    }

    pub(super) async fn enroll(&self, serial: &'static str) -> Result<DeviceDir, Failure> {
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
    pub(super) async fn newest_read(&self) -> Result<Value, Failure> {
        let api = self.api().await?;
        let page: Value = blocking(move || Ok(api.get("/v1/reads?limit=1")?)).await?;
        Ok(page["items"][0].clone())
    }

    /// The id that the API has for the reader with this serial number.
    pub(super) async fn reader_id(&self, serial: &str) -> Result<Option<String>, Failure> {
        let api = self.api().await?;
        let page: Value = blocking(move || Ok(api.get("/v1/readers?limit=200")?)).await?;
        let readers = page["items"].as_array().map_or(&[][..], Vec::as_slice);
        let found = readers.iter().find(|reader| reader["serial"] == serial);
        Ok(found.and_then(|reader| reader["id"].as_str()).map(str::to_owned))
    }

    pub(super) async fn reads(&self) -> Result<usize, Failure> {
        let api = self.api().await?;
        let page: Value = blocking(move || Ok(api.get("/v1/reads?limit=200")?)).await?;
        Ok(page["items"].as_array().map_or(0, Vec::len))
    }

    pub(super) fn reader(&self, dir: &DeviceDir, link: EmulatedCard) -> Result<Reader, Failure> {
        self.reader_by(Mode::C1, dir, link)
    }

    /// A reader that begins this handshake.
    pub(super) fn reader_by(
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

    /// A SAM host's directory, enrolled.
    pub(super) async fn enroll_sam_host(&self, serial: &'static str) -> Result<DeviceDir, Failure> {
        let api = self.api().await?;
        let dir = self.dir.path().join(serial);
        blocking(move || {
            let ambient = ambient();
            let provider = provider_of(server_suite(&api)?)?;
            let (now, kind) = (ambient.clock.now(), DeviceKind::SamHost);
            Ok(enroll_as(kind, &dir, serial, &api, &provider, now, &mut *(ambient.rng)())?)
        })
        .await
    }

    /// Stops the server and starts it with the plaintext cache allowed and with another host's
    /// modules.
    pub(super) async fn restart_with(self, host: SamHostAt) -> Result<Self, Failure> {
        let Self { dir, passphrase, token, sam, faults, server } = self;
        server.stop().await;
        let server = start(&dir.path().join("data"), &passphrase, &sam, Some(host)).await?;
        Ok(Self { dir, passphrase, token, sam, faults, server })
    }
}

/// With its own module only; or with another host's as well, and the plaintext cache allowed.
async fn start(
    data: &Path,
    passphrase: &Secret,
    sam: &SamPty,
    host: Option<SamHostAt>,
) -> Result<Server, Failure> {
    let mut data = DataDir::open(data)?;
    data.config.readers = Readers { plaintext_cache: host.is_some() };
    data.config.sams = host.into_iter().map(SamAt::Host).collect();
    let sam = Sam { port: sam.path().display().to_string(), baud: BAUD };
    let options =
        ServeOptions { https_port: 0, gateway_port: 0, sams: vec![sam], ..ServeOptions::default() };
    Ok(Server::start(&data, passphrase, &options).await?)
}
