//! What the flow runs on: a server, a manager with two cards, and a sleeve.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use countersign_channel::Policy;
use countersign_crypto::Secret;
use countersign_device::{
    Api, DeviceDir, DeviceKind, Sleeve, SleeveDir, Way, enroll_as, server_suite,
};
use countersign_server::{DataDir, ServeOptions, Server, ambient};
use serde_json::Value;

use super::home::Home;
use super::{MANAGER, SERVER_ID, SLEEVE};
use crate::demo::{blocking, make_data_dir};
use crate::device::provider_of;
use crate::failure::Failure;
use crate::init;

/// Everything the flow runs on.
pub(super) struct Stage {
    pub(super) home: Home,
    /// Always there; taken out only to be given another policy.
    sleeve: Sleeve,
    pub(super) office: Arc<Api>,
    server: Server,
    /// Gone with it: the directories of all three.
    _dir: tempfile::TempDir,
}

impl Stage {
    pub(super) async fn set_up() -> Result<Self, Failure> {
        let dir = tempfile::tempdir()
            .map_err(|error| Failure::environment("temp-dir", error.to_string()))?;
        let passphrase = init::random_passphrase();
        let path = dir.path().join("data");
        let token = make_data_dir(&path, SERVER_ID, &passphrase).await?;
        let data = DataDir::open(&path)?;
        let options = ServeOptions { https_port: 0, gateway_port: 0, ..ServeOptions::default() };
        let server = Server::start(&data, &passphrase, &options).await?;
        let ca = data.certificate_pem("tls/root.pem")?;
        let office = Arc::new(Api::new(&server.url(), &ca, &token)?);
        let manager = dir.path().join("manager");
        enrolled(&office, manager.clone(), DeviceKind::Manager, MANAGER).await?;
        let home = Home::open(manager, &server.gateway().to_string()).await?;
        let path = dir.path().join("sleeve");
        enrolled(&office, path.clone(), DeviceKind::Sleeve, SLEEVE).await?;
        let ambient = ambient();
        let sleeve = Sleeve::new(SleeveDir::open(&path)?, ambient.clock, ambient.rng);
        Ok(Self { home, sleeve, office, server, _dir: dir })
    }

    pub(super) fn sleeve(&self) -> &Sleeve {
        &self.sleeve
    }

    /// From now on the sleeve wants this protection.
    pub(super) fn speak(&mut self, policy: Policy) {
        self.sleeve.set_policies(vec![policy]);
    }

    /// The way through the server.
    pub(super) fn relayed(&self) -> Way {
        Way::Relay(self.server.gateway().to_string())
    }

    /// The alarms that the server has on record.
    pub(super) async fn alarms(&self) -> Result<Vec<Value>, Failure> {
        let api = self.office.clone();
        let page: Value = blocking(move || Ok(api.get("/v1/sleeves/alarms")?)).await?;
        Ok(page["items"].as_array().cloned().unwrap_or_default())
    }

    pub(super) async fn stop(self) -> Result<(), Failure> {
        self.home.stop().await?;
        self.server.stop().await;
        Ok(())
    }
}

/// A device's directory, with a key and the server's certificate for it.
async fn enrolled(
    office: &Arc<Api>,
    path: PathBuf,
    kind: DeviceKind,
    serial: &'static str,
) -> Result<DeviceDir, Failure> {
    let office = office.clone();
    blocking(move || {
        let ambient = ambient();
        let provider = provider_of(server_suite(&office)?)?;
        let (now, mut rng) = (ambient.clock.now(), (ambient.rng)());
        Ok(enroll_as(kind, &path, serial, &office, &provider, now, &mut *rng)?)
    })
    .await
}

/// A password as it is typed.
pub(super) fn typed(password: &str) -> Secret {
    Secret::copied_from(password.as_bytes())
}

/// How long anything here may take to be told.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
