//! `sam`: SAM modules as operators see them, and SAM hosts, which stand alone.

mod hosts;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use countersign_device::{Api, DeviceDir, DeviceKind, enroll_as, server_suite};
use countersign_net::serial::BAUD;
use countersign_server::{SAM_HOST_PORT, Sam, SamHost, SamHostOptions, ambient, parse_sam_ports};
use serde_json::{Value, json};

use crate::device::{Client, provider_of, read_file};
use crate::failure::Failure;
use crate::output::{self, Output};
use crate::serve::stopped;
use hosts::{Reasoned, Which};

/// SAM modules and their hosts.
#[derive(Subcommand)]
pub(crate) enum SamCommand {
    /// List the modules that a server has or reaches, and what they are doing.
    ///
    /// Example: countersign sam list --server https://localhost:8443 --ca ca.pem
    /// --token-file admin.token
    List(List),
    /// Take a module out of service, on every server: what is under way finishes.
    ///
    /// Example: countersign sam drain 05.03-20260101-0000000001-0000000001 --reason "moved"
    /// --server https://localhost:8443 --ca ca.pem --token-file admin.token
    Drain(Drain),
    /// Put a module back into service.
    ///
    /// Example: countersign sam resume 05.03-20260101-0000000001-0000000001
    /// --server https://localhost:8443 --ca ca.pem --token-file admin.token
    Resume(Resume),
    /// List the SAM hosts that are enrolled.
    ///
    /// Example: countersign sam hosts --server https://localhost:8443 --ca ca.pem
    /// --token-file admin.token
    Hosts(List),
    /// Block a SAM host: no server uses it until it is unblocked.
    ///
    /// Example: countersign sam block --serial SAMHOST-1 --reason "reported stolen"
    Block(Reasoned),
    /// Let servers use a blocked SAM host again.
    ///
    /// Example: countersign sam unblock --serial SAMHOST-1
    Unblock(Which),
    /// Revoke a SAM host's certificate: it must enrol again.
    ///
    /// Example: countersign sam revoke --serial SAMHOST-1 --reason "key lost"
    Revoke(Reasoned),
    /// Make a SAM host's key and have the server certify it.
    ///
    /// Example: countersign sam enroll --serial SAMHOST-1 --server https://localhost:8443
    /// --ca ca.pem --token-file admin.token
    Enroll(Enroll),
    /// Run a SAM host: serve the modules of this machine to servers.
    ///
    /// Example: countersign sam serve --device ./countersign-sam-host --sam /dev/ttyUSB0
    Serve(Serve),
}

/// List modules.
#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    client: Client,
}

/// Take a module out of service.
#[derive(Args)]
pub(crate) struct Drain {
    /// The module's id, as `sam list` shows it.
    sam: String,
    /// Why.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    client: Client,
}

/// Put a module back into service.
#[derive(Args)]
pub(crate) struct Resume {
    /// The module's id, as `sam list` shows it.
    sam: String,
    #[command(flatten)]
    client: Client,
}

/// Make a SAM host's key and have the server certify it.
#[derive(Args)]
pub(crate) struct Enroll {
    /// The host's own directory; made if it is not there.
    #[arg(long, value_name = "DIR", default_value = "./countersign-sam-host")]
    device: PathBuf,
    /// The host's serial number, which is its id.
    #[arg(long)]
    serial: String,
    #[command(flatten)]
    client: Client,
}

/// Run a SAM host.
#[derive(Args)]
pub(crate) struct Serve {
    /// The host's own directory.
    #[arg(long, value_name = "DIR", default_value = "./countersign-sam-host")]
    device: PathBuf,
    /// Address to listen on; anything but loopback is reachable by others.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    listen: IpAddr,
    /// Port; 0 picks one.
    #[arg(long, value_name = "PORT", default_value_t = SAM_HOST_PORT)]
    port: u16,
    /// Serial port of a SAM module; may be given several times.
    #[arg(long, value_name = "PATH", required_unless_present = "config")]
    sam: Vec<String>,
    /// File with more modules, TOML: for each a `[[sam]]` section with port = "/dev/ttyUSB0" and,
    /// if its speed is not 115200, baud = 9600. What else stands there is refused.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl SamCommand {
    pub(crate) async fn run(self, json: bool) -> Result<Output, Failure> {
        match self {
            Self::List(list) => list.client.with(|api| api.get("/v1/sams")).await.map(listed),
            Self::Drain(Drain { sam, reason, client }) => {
                let body = json!({ "reason": reason });
                let path = format!("/v1/sams/{sam}/drain");
                check_path(&sam)?;
                client.with(move |api| api.post(&path, &body)).await.map(one)
            }
            Self::Resume(Resume { sam, client }) => {
                let path = format!("/v1/sams/{sam}/resume");
                check_path(&sam)?;
                client.with(move |api| api.post(&path, &json!({}))).await.map(one)
            }
            Self::Hosts(list) => hosts::list(list.client).await,
            Self::Block(reasoned) => reasoned.run("block").await,
            Self::Unblock(which) => which.unblock().await,
            Self::Revoke(reasoned) => reasoned.run("revoke").await,
            Self::Enroll(enroll) => enroll.run().await,
            Self::Serve(serve) => serve.run(json).await,
        }
    }
}

/// What would be another path in a URL is no module's id.
fn check_path(sam: &str) -> Result<(), Failure> {
    if sam.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-')) {
        return Ok(());
    }
    let detail = "a module's id is written like 05.03-20260101-0000000001-0000000001";
    Err(Failure::check("sam-id", detail))
}

fn line(sam: &Value) -> String {
    let text = |name: &str| sam[name].as_str().unwrap_or("-").to_owned();
    let reason = sam["drain"]["reason"].as_str().map(|reason| format!("  ({reason})"));
    format!(
        "{}  {}  {}  {} reads, {} failures{}",
        text("samId"),
        text("port"),
        text("state"),
        sam["reads"],
        sam["failures"],
        reason.unwrap_or_default()
    )
}

fn one(sam: Value) -> Output {
    let text = line(&sam);
    Output::new(sam, text)
}

fn listed(page: Value) -> Output {
    let items = page["items"].as_array().map_or(&[][..], Vec::as_slice);
    let text = items.iter().map(line).collect::<Vec<_>>().join("\n");
    Output::new(page, text)
}

impl Client {
    /// Calls the server beside the runtime: the client blocks.
    pub(crate) async fn with<T: Send + 'static, E: Into<Failure> + Send + 'static>(
        self,
        call: impl FnOnce(&Api) -> Result<T, E> + Send + 'static,
    ) -> Result<T, Failure> {
        let api = self.api()?;
        let called = tokio::task::spawn_blocking(move || call(&api).map_err(Into::into)).await;
        called.map_err(|error| Failure::environment("task", error.to_string()))?
    }
}

impl Enroll {
    async fn run(self) -> Result<Output, Failure> {
        let Self { device, serial, client } = self;
        let path = device.clone();
        let dir = client
            .with(move |api| {
                let ambient = ambient();
                let provider = provider_of(server_suite(api)?)?;
                let (now, mut rng) = (ambient.clock.now(), (ambient.rng)());
                let kind = DeviceKind::SamHost;
                Ok::<_, Failure>(enroll_as(kind, &path, &serial, api, &provider, now, &mut *rng)?)
            })
            .await?;
        let number = dir.certificate_number()?;
        let settings = &dir.settings;
        let text = format!(
            "Enrolled   {} at {}\nCertificate {number}\nDirectory  {}",
            settings.serial,
            settings.server_id,
            device.display()
        );
        let json = json!({
            "serial": settings.serial,
            "serverId": settings.server_id,
            "suite": settings.suite.name(),
            "certificateNumber": number.to_string(),
            "device": device,
        });
        Ok(Output::new(json, text))
    }
}

/// The modules of a SAM host's file.
fn configured(path: &Path) -> Result<Vec<Sam>, Failure> {
    let wrong = |detail| Failure::check("sam-config", format!("{}: {detail}", path.display()));
    parse_sam_ports(&read_file(path)?).map_err(wrong)
}

impl Serve {
    async fn run(self, json: bool) -> Result<Output, Failure> {
        let mut sams = self.config.as_deref().map(configured).transpose()?.unwrap_or_default();
        sams.extend(self.sam.into_iter().map(|port| Sam { port, baud: BAUD }));
        let dir = DeviceDir::open(&self.device)?;
        let now = ambient().clock.now();
        let credential = dir.sam_host_credential(&dir.provider(), now)?;
        let host = SamHost::start(SamHostOptions {
            listen: self.listen,
            port: self.port,
            sams,
            id: dir.settings.serial.clone(),
            credential,
            servers: dir.settings.servers.clone(),
        })
        .await?;
        let address = host.address().to_string();
        // Whoever starts a host learns where it listens, also under port 0.
        if json {
            output::print(&json!({"samHost": address, "id": dir.settings.serial}).to_string());
        } else {
            output::print(&format!("SAM host {}  {address}", dir.settings.serial));
        }
        stopped().await.map_err(Failure::late)?;
        host.stop().await;
        Ok(Output::none())
    }
}
