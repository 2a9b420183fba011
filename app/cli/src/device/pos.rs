//! `device pos`: the POS terminal that keys are injected into (E1–E8).

use std::path::PathBuf;

use clap::{Args, Subcommand};
use countersign_device::{Api, Element, Enrolment, Pos, PosError, RSA_BITS, SlotKey, Updated};
use countersign_server::ambient;
use data_encoding::HEXUPPER;
use serde_json::{Value, json};

use countersign_crypto::UnixTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{provider_of, read_file};
use crate::failure::Failure;
use crate::output::Output;
use crate::secret_arg;

/// A POS terminal.
#[derive(Subcommand)]
pub(crate) enum PosCommand {
    /// Make a terminal's keys and have the server certify them, with its one-time code.
    ///
    /// Example: countersign device pos enroll --serial POS-1 --code ABCD-EFGH-IJKL-MNOP-QRST-UVWX
    /// --server https://localhost:8443 --ca ca.pem
    Enroll(Enroll),
    /// Take the keys that wait at the server: bind if needed, ask, check, store, report, use.
    ///
    /// Example: countersign device pos update --gateway localhost:8444
    Update(Update),
    /// List the terminal's keys: slot, usage, check value, state. Never a value.
    ///
    /// Example: countersign device pos keys --device ./countersign-pos
    Keys(Which),
    /// Show the terminal: element, certificate, the KDH it is bound to.
    ///
    /// Example: countersign device pos status --device ./countersign-pos
    Status(Which),
}

/// Which terminal.
#[derive(Args)]
pub(crate) struct Which {
    /// The terminal's own directory; made if it is not there.
    #[arg(long, value_name = "DIR", default_value = "./countersign-pos")]
    device: PathBuf,
}

/// Make a terminal's keys and have the server certify them.
#[derive(Args)]
pub(crate) struct Enroll {
    #[command(flatten)]
    which: Which,
    /// The terminal's serial number, which is on the server's list.
    #[arg(long)]
    serial: String,
    /// The one-time code that goes with it, @FILE, or - for stdin.
    #[arg(long, value_name = "CODE")]
    code: String,
    /// The server's API, for instance https://localhost:8443; no proxy is used.
    #[arg(long, value_name = "URL", env = "COUNTERSIGN_SERVER")]
    server: String,
    /// The root of its HTTPS certificate, PEM (countersign ca export tls-root).
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_CA")]
    ca: PathBuf,
    /// Size of the RSA key that keys come to: 2048, 3072 or 4096. AES keys need 3072 at least.
    #[arg(long, default_value_t = RSA_BITS)]
    bits: u32,
    /// Keep the keys in a PKCS#11 token, not in sealed files: the module's library.
    #[arg(long, value_name = "FILE", requires = "token", requires = "pin_file")]
    pkcs11_module: Option<PathBuf>,
    /// The token's label.
    #[arg(long, value_name = "LABEL", requires = "pkcs11_module")]
    token: Option<String>,
    /// File with the token's user PIN. It stays where it is and is read at each use.
    #[arg(long, value_name = "FILE", requires = "pkcs11_module")]
    pin_file: Option<PathBuf>,
}

/// Take the keys that wait.
#[derive(Args)]
pub(crate) struct Update {
    #[command(flatten)]
    which: Which,
    /// The server's gateway, HOST:PORT.
    #[arg(long, value_name = "HOST:PORT")]
    gateway: String,
}

impl PosCommand {
    pub(crate) async fn run(self) -> Result<Output, Failure> {
        match self {
            Self::Enroll(enroll) => blocking(move || enroll.run()).await,
            Self::Update(update) => update.run().await,
            Self::Keys(which) => blocking(move || keys(&which)).await,
            Self::Status(which) => blocking(move || status(&which)).await,
        }
    }
}

/// Keys, files and the API client block.
async fn blocking(
    work: impl FnOnce() -> Result<Output, Failure> + Send + 'static,
) -> Result<Output, Failure> {
    let worked = tokio::task::spawn_blocking(work);
    worked.await.map_err(|error| Failure::environment("task", error.to_string()))?
}

impl Enroll {
    fn run(self) -> Result<Output, Failure> {
        let api = Api::new(&self.server, &read_file(&self.ca)?, "")?;
        let element = match (self.pkcs11_module, self.token, self.pin_file) {
            (Some(module), Some(token), Some(pin_file)) => {
                Element::Pkcs11 { module, token, pin_file: absolute(pin_file)? }
            }
            _ => Element::File,
        };
        let enrolment = Enrolment {
            serial: self.serial,
            code: secret_arg::text(&self.code)?.to_string(),
            element,
            bits: self.bits,
        };
        let ambient = ambient();
        let provider = provider_of(Pos::server_suite(&api)?)?;
        let (now, mut rng) = (ambient.clock.now(), (ambient.rng)());
        let dir = &self.which.device;
        let pos = Pos::enroll(dir, &enrolment, &api, &provider, now, &mut *rng)?;
        let status = pos.status()?;
        let text = format!(
            "Enrolled   {} at {}\nElement    {}\nRSA key    {}\nDirectory  {}\n\
             Next       countersign device pos update --gateway HOST:PORT",
            status.serial,
            status.server_id,
            status.element,
            status.krd,
            dir.display()
        );
        Ok(Output::new(status_json(&status, dir), text))
    }
}

/// The PIN's file is read again by later commands, from wherever they are run.
fn absolute(path: PathBuf) -> Result<PathBuf, Failure> {
    std::path::absolute(&path).map_err(|error| Failure::file(&path, &error))
}

impl Update {
    async fn run(self) -> Result<Output, Failure> {
        let device = self.which.device;
        let opened = tokio::task::spawn_blocking(move || Pos::open(&device));
        let opened = opened.await.map_err(|error| Failure::environment("task", error.to_string()));
        let mut pos = opened??;
        let ambient = ambient();
        let rng = ambient.rng.clone();
        let Updated { bound, unbound, keys, discarded, failure } =
            pos.update(&self.gateway, ambient.clock.clone(), move || rng()).await;
        let installed: Vec<Value> = keys
            .iter()
            .map(|key| {
                json!({
                    "slot": key.slot,
                    "kcv": shown(&key.kcv),
                    "injectionId": key.injection,
                })
            })
            .collect();
        let erased: Vec<Value> = discarded
            .iter()
            .map(|one| json!({ "injectionId": one.injection, "check": one.check }))
            .collect();
        let done = json!({
            "bound": bound,
            "unbound": unbound,
            "keys": installed,
            "discarded": erased,
        });
        if let Some(error) = failure {
            return Err(Failure::from(error).after(done));
        }
        let mut lines = Vec::new();
        if bound {
            lines.push("Bound to the server's key distribution host".to_owned());
        }
        if unbound {
            lines.push("Unbound; the keys stay".to_owned());
        }
        for key in &keys {
            lines.push(format!("Slot {:<2}  KCV {}  in use", key.slot, shown(&key.kcv)));
        }
        for one in &discarded {
            lines.push(format!("Erased   {} ({})", one.injection, one.check));
        }
        if lines.is_empty() {
            lines.push("Nothing waits".to_owned());
        }
        Ok(Output::new(done, lines.join("\n")))
    }
}

fn keys(which: &Which) -> Result<Output, Failure> {
    let keys = Pos::open(&which.device)?.keys()?;
    let items: Vec<Value> = keys.iter().map(key_json).collect();
    let text: Vec<String> = keys.iter().map(key_line).collect();
    Ok(Output::new(json!({ "items": items, "next": null }), text.join("\n")))
}

fn key_json(key: &SlotKey) -> Value {
    json!({
        "slot": key.slot,
        "state": key.state.name(),
        "usage": key.usage,
        "algorithm": key.algorithm.to_string(),
        "mode": key.mode.to_string(),
        "exportability": key.exportability.to_string(),
        "kcv": shown(&key.kcv),
        "injectionId": key.injection,
        "at": rfc3339(key.at),
    })
}

fn key_line(key: &SlotKey) -> String {
    format!(
        "Slot {:<2}  {}{}{}{}  KCV {}  {}",
        key.slot,
        key.usage,
        key.algorithm,
        key.mode,
        key.exportability,
        shown(&key.kcv),
        key.state.name()
    )
}

fn status(which: &Which) -> Result<Output, Failure> {
    let pos = Pos::open(&which.device)?;
    let status = pos.status()?;
    let none = || "none".to_owned();
    let text = format!(
        "Terminal  {} of {}\nElement   {}\nRSA key   {}, until {}\nBound to  {}\nCRL seen  {}",
        status.serial,
        status.server_id,
        status.element,
        status.krd,
        rfc3339(status.krd_not_after),
        status.kdh.clone().unwrap_or_else(none),
        status.crl_seen.clone().unwrap_or_else(none),
    );
    Ok(Output::new(status_json(&status, &which.device), text))
}

fn status_json(status: &countersign_device::Status, dir: &std::path::Path) -> Value {
    json!({
        "serial": status.serial,
        "serverId": status.server_id,
        "element": status.element,
        "krdCertificate": status.krd,
        "krdNotAfter": rfc3339(status.krd_not_after),
        "kdhCertificate": status.kdh,
        "kdhId": status.kdh_id,
        "crlSeen": status.crl_seen,
        "outstanding": status.outstanding,
        "device": dir,
    })
}

fn rfc3339(at: UnixTime) -> String {
    let seconds = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

/// What people compare of a check value: three bytes.
fn shown(kcv: &[u8]) -> String {
    HEXUPPER.encode(&kcv[..kcv.len().min(3)])
}

impl From<PosError> for Failure {
    fn from(error: PosError) -> Self {
        let detail = error.to_string();
        let mut failure = match &error {
            _ if error.is_environment() => Self::environment(error.check(), detail),
            _ if matches!(error.check(), "server-url" | "ca-file") => {
                Self::usage(error.check(), detail)
            }
            _ => Self::check(error.check(), detail),
        };
        failure.incident = error.incident().map(str::to_owned);
        failure
    }
}
