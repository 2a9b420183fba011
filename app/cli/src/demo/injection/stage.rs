//! What the flow runs on: a server of its own with a hierarchy, and its operators.

use std::path::PathBuf;
use std::sync::Arc;

use countersign_device::Api;
use countersign_device::{Element, Enrolment, Pos, RSA_BITS, Updated};
use countersign_server::{DataDir, ServeOptions, Server, ambient, open_service_with_vault};
use countersign_service::Actor;
use countersign_store::Role;
use serde_json::{Value, json};

use super::SERVER_ID;
use super::office::Office;
use crate::demo::{blocking, make_data_dir};
use crate::device::provider_of;
use crate::failure::Failure;
use crate::init;

/// Everything the flow runs on.
pub(super) struct Stage {
    dir: tempfile::TempDir,
    pub(super) server: Server,
    /// The operators.
    pub(super) office: Office,
}

impl Stage {
    pub(super) async fn set_up() -> Result<Self, Failure> {
        let dir = tempfile::tempdir()
            .map_err(|error| Failure::environment("temp-dir", error.to_string()))?;
        let passphrase = init::random_passphrase();
        let path = dir.path().join("data");
        let token = make_data_dir(&path, SERVER_ID, &passphrase).await?;
        let data = DataDir::open(&path)?;
        let service = open_service_with_vault(&data, &passphrase, None).await?;
        service.init_rki(&Actor::Console, RSA_BITS).await?;
        let mut tokens = vec![token];
        for (name, role) in [("approver", Role::Approver), ("custodian", Role::Custodian)] {
            let (_, token) = service.add_operator(&Actor::Console, name, &[role]).await?;
            tokens.push(token.secret.to_string());
        }
        drop(service);
        let options = ServeOptions { https_port: 0, gateway_port: 0, ..ServeOptions::default() };
        let server = Server::start(&data, &passphrase, &options).await?;
        let ca = data.certificate_pem("tls/root.pem")?;
        let api = |token: &String| Api::new(&server.url(), &ca, token).map(Arc::new);
        let office = Office {
            keeper: api(&tokens[0])?,
            approver: api(&tokens[1])?,
            custodian: api(&tokens[2])?,
        };
        Ok(Self { dir, server, office })
    }

    /// Puts a terminal on the list and returns its one-time code.
    pub(super) async fn allow(&self, serial: &'static str) -> Result<String, Failure> {
        let body = json!({ "serial": serial, "model": "Demo 1", "owner": "The demo" });
        let allowed = self.office.done("/v1/terminals", body).await?;
        let code = allowed["enrolmentCode"].as_str().unwrap_or_default();
        Ok(code.to_owned())
    }

    /// Enrols a terminal with a code, in a directory of this name.
    pub(super) async fn enroll(
        &self,
        serial: &'static str,
        code: &str,
        directory: &str,
    ) -> Result<Pos, Failure> {
        let path = self.path(directory);
        let api = self.office.keeper.clone();
        let code = code.to_owned();
        blocking(move || {
            let ambient = ambient();
            let provider = provider_of(Pos::server_suite(&api)?)?;
            let element = Element::default();
            let enrolment = Enrolment { serial: serial.to_owned(), code, element, bits: RSA_BITS };
            let now = ambient.clock.now();
            Ok(Pos::enroll(&path, &enrolment, &api, &provider, now, &mut *(ambient.rng)())?)
        })
        .await
    }

    /// The one button.
    pub(super) async fn update(&self, pos: &mut Pos) -> Updated {
        let ambient = ambient();
        let rng = ambient.rng.clone();
        pos.update(&self.server.gateway().to_string(), ambient.clock, move || rng()).await
    }

    /// What the API knows of a terminal.
    pub(super) async fn terminal(&self, serial: &str) -> Result<Value, Failure> {
        let page = self.office.see(&format!("/v1/terminals?serial={serial}")).await?;
        Ok(page["items"][0].clone())
    }

    fn path(&self, directory: &str) -> PathBuf {
        self.dir.path().join(directory)
    }
}
