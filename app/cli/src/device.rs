mod batch;
mod card;
mod cards;
mod key;
mod manager;
mod phone;
mod phone_helper;
mod pos;
mod reader;
mod resident;
mod sleeve;
mod terminal;
mod token;
mod typed_line;
pub(crate) mod virtual_reader;
mod wallet;
pub(crate) mod which_device;

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use countersign_crypto::{Provider, Suite, aws_lc};
use countersign_device::{Api, enroll, server_suite};
use countersign_server::ambient;
use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;
pub(crate) use cards::{DOCUMENTS, emulated_field};
use reader::ReaderCommand;

/// Largest token or CA file, in bytes.
const FILE_MAX: u64 = 64 * 1024;

/// Device programs.
#[derive(Subcommand)]
pub(crate) enum Device {
    /// Make a device's key and have the server certify it, in the server's suite.
    ///
    /// Example: countersign device enroll --serial RD-1 --server https://localhost:8443
    /// --ca ca.pem --token-file admin.token
    Enroll(Enroll),
    /// Read ID cards without a SAM, through the server's gateway, directly or through a host.
    ///
    /// Example: countersign device reader --gateway localhost:8444 --card emulated:citizen --reads
    /// 2
    Reader(ReaderCommand),
    /// The POS terminal that keys are injected into.
    #[command(subcommand)]
    Pos(pos::PosCommand),
    /// A security device in software, which shows and signs payments.
    Key(key::Key),
    /// A signing card in software, which has a joint password for each payment.
    Card(card::Card),
    /// Ask for a payment, have the payer's signing card sign it, and bring the server the joint
    /// password that the card shows its holder.
    ///
    /// Example: countersign device terminal --reader --to SHOP0001 --payee "Tea Shop"
    /// --amount 12.34 --currency CNY --order "2 teas" --server https://localhost:8443 --ca ca.pem
    /// --token-file till.token
    Terminal(terminal::TerminalCommand),
    /// A payer's phone.
    #[command(subcommand)]
    Phone(phone::PhoneCommand),
    /// The cards at home, for paired sleeves that are elsewhere.
    #[command(subcommand)]
    Manager(manager::ManagerCommand),
    /// A card that is every card at home.
    #[command(subcommand)]
    Sleeve(sleeve::SleeveCommand),
}

/// The server's API and who asks it.
#[derive(Args)]
pub(crate) struct Client {
    /// The server's API, for instance https://localhost:8443; no proxy is used.
    #[arg(long, value_name = "URL", env = "COUNTERSIGN_SERVER")]
    pub(crate) server: String,
    /// The root of its HTTPS certificate, PEM (countersign ca export tls-root).
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_CA")]
    pub(crate) ca: PathBuf,
    /// File with an operator's token.
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_TOKEN_FILE")]
    pub(crate) token_file: PathBuf,
}

impl Client {
    pub(crate) fn api(&self) -> Result<Api, Failure> {
        let token = zeroize::Zeroizing::new(read_file(&self.token_file)?);
        Ok(Api::new(&self.server, &read_file(&self.ca)?, &token)?)
    }
}

pub(crate) fn read_file(path: &Path) -> Result<String, Failure> {
    let read = || {
        if fs::metadata(path)?.len() > FILE_MAX {
            return Err(std::io::Error::other("the file is too large"));
        }
        fs::read_to_string(path)
    };
    read().map_err(|error| Failure::file(path, &error))
}

/// Make a device's key and have the server certify it.
#[derive(Args)]
pub(crate) struct Enroll {
    /// The device's own directory; made if it is not there.
    #[arg(long, value_name = "DIR", default_value = "./countersign-device")]
    device: PathBuf,
    /// The device's serial number.
    #[arg(long)]
    serial: String,
    #[command(flatten)]
    client: Client,
}

impl Device {
    pub(crate) async fn run(self, json: bool) -> Result<Output, Failure> {
        match self {
            Self::Enroll(enroll) => enroll.run().await,
            Self::Reader(reader) => reader.run(json).await,
            Self::Pos(pos) => pos.run().await,
            Self::Key(key) => key.run(json).await,
            Self::Card(card) => card.run(json).await,
            Self::Terminal(terminal) => terminal.run().await,
            Self::Phone(phone) => phone.run(json).await,
            Self::Manager(manager) => manager.run(json).await,
            Self::Sleeve(sleeve) => sleeve.run(json).await,
        }
    }
}

impl Enroll {
    async fn run(self) -> Result<Output, Failure> {
        let api = self.client.api()?;
        let enrolled = tokio::task::spawn_blocking(move || {
            let ambient = ambient();
            let suite = server_suite(&api)?;
            let provider = provider_of(suite)?;
            let now = ambient.clock.now();
            let mut rng = (ambient.rng)();
            let dir = enroll(&self.device, &self.serial, &api, &provider, now, &mut *rng)?;
            let number = dir.certificate_number()?;
            Ok::<_, Failure>((self.device, dir.settings, number))
        });
        let (device, settings, number) =
            enrolled.await.map_err(|error| Failure::environment("task", error.to_string()))??;
        let text = format!(
            "Enrolled   {} at {}\nSuite      {}\nCertificate {number}\nDirectory  {}",
            settings.serial,
            settings.server_id,
            settings.suite,
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

/// The algorithms of a suite.
pub(crate) fn provider_of(suite: Suite) -> Result<Provider, Failure> {
    let absent = || format!("this program does not have the suite {suite}");
    aws_lc::provider_of(suite).ok_or_else(|| Failure::check("device-suite", absent()))
}

pub(crate) fn millis(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
