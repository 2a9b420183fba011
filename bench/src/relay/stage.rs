//! A server in this process, and directories of devices that it has certified.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use countersign_crypto::Secret;
use countersign_device::{Api, DeviceDir, DeviceKind, enroll_as};
use countersign_server::{
    Config, DataDir, Gateway, Init, NewDataDir, ServeOptions, Server, ambient, open_service,
    parse_tls_name,
};
use countersign_service::Actor;
use countersign_store::Role;

use crate::Fallible;

/// A server, and an operator of it.
pub(super) struct Stage {
    pub(super) server: Server,
    pub(super) ca: String,
    pub(super) token: String,
}

impl Stage {
    /// On ports of its own at `listen`, with its data in `path`, and places for so many devices.
    pub(super) async fn set_up(path: &Path, listen: IpAddr, connections: usize) -> Fallible<Self> {
        let gateway = Gateway { connections, per_source: connections, ..Gateway::default() };
        let config = Config { gateway, ..Config::default() };
        let passphrase = Secret::copied_from(b"of a bench");
        let tls_names = ["localhost".to_owned(), listen.to_string()];
        let tls_names = tls_names.map(|name| parse_tls_name(&name));
        let init = Init {
            passphrase: &passphrase,
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
        let (service, _keys) = open_service(&data, &passphrase, None, &[]).await?;
        let added = service.add_operator(&Actor::Console, "admin", &[Role::Admin]).await;
        drop(Arc::into_inner(service)); // committed rows are on the disk
        let (_operator, token) = added?;
        new.publish()?;
        let data = DataDir::open(path)?;
        let options =
            ServeOptions { listen, https_port: 0, gateway_port: 0, ..ServeOptions::default() };
        let server = Server::start(&data, &passphrase, &options).await?;
        let ca = data.certificate_pem("tls/root.pem")?;
        Ok(Self { server, ca, token: token.secret.to_string() })
    }

    /// A device's directory, enrolled.
    pub(super) async fn enrolled(
        &self,
        kind: DeviceKind,
        dir: &Path,
        serial: &str,
    ) -> Fallible<DeviceDir> {
        let api = Api::new(&self.server.url(), &self.ca, &self.token)?;
        let (path, serial) = (dir.join(serial), serial.to_owned());
        tokio::task::spawn_blocking(move || enrolled(&api, kind, &path, &serial)).await?
    }
}

/// The same where the server is elsewhere. Blocking.
pub(super) fn enrolled(
    api: &Api,
    kind: DeviceKind,
    path: &Path,
    serial: &str,
) -> Fallible<DeviceDir> {
    let ambient = ambient();
    let provider = countersign_crypto::aws_lc::provider();
    let (now, mut rng) = (ambient.clock.now(), (ambient.rng)());
    Ok(enroll_as(kind, path, serial, api, &provider, now, &mut *rng)?)
}
