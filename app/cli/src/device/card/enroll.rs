//! Enrolment of a signing card, and what it keeps of its server.

use clap::Args;
use countersign_device::{CardDir, CardEnrolment, device_suite};
use countersign_server::ambient;
use serde_json::json;

use super::{Which, show};
use crate::device::key::PinFile;
use crate::device::key::puk_file::PukFile;
use crate::device::{Client, provider_of};
use crate::failure::Failure;
use crate::output::Output;

/// Make a signing card.
#[derive(Args)]
pub(crate) struct Enroll {
    #[command(flatten)]
    which: Which,
    /// Its serial number.
    #[arg(long)]
    serial: String,
    /// A name for people, 1 to 64 characters.
    #[arg(long)]
    label: String,
    /// An account that it is to pay from: id or number; may be given several times. Terminals are
    /// told the first.
    #[arg(long = "account", value_name = "ACCOUNT", required = true)]
    accounts: Vec<String>,
    #[command(flatten)]
    pin: PinFile,
    #[command(flatten)]
    puk: PukFile,
    #[command(flatten)]
    client: Client,
}

/// Renew what the card knows of its server.
#[derive(Args)]
pub(crate) struct Refresh {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    client: Client,
}

impl Enroll {
    pub(super) fn run(self) -> Result<Output, Failure> {
        let api = self.client.api()?;
        let enrolment = CardEnrolment {
            serial: self.serial,
            label: self.label,
            accounts: self.accounts,
            pin: self.pin.pin("The signing card's PIN (4 to 12 digits): ")?,
        };
        let ambient = ambient();
        let provider = provider_of(device_suite(&api)?)?;
        let mut kept = self.puk.create()?;
        let (now, mut rng) = (ambient.clock.now(), (ambient.rng)());
        let path = &self.which.card;
        let mut dir = CardDir::enroll(path, &enrolment, &api, &provider, now, &mut *rng)?;
        let puk = dir.take_puk();
        let mut output = show::directory(&dir)?;
        match puk {
            Some(puk) => kept.keep(&puk, &mut output)?,
            None => kept.keep_none(&mut output),
        }
        Ok(output)
    }
}

impl Refresh {
    pub(super) fn run(self) -> Result<Output, Failure> {
        let dir = CardDir::open(&self.which.card)?;
        dir.refresh(&self.client.api()?, ambient().clock.now())?;
        let server = &dir.settings().server_id;
        let text = format!("The signing card knows the present certificates of {server}.");
        Ok(Output::new(json!({ "refreshed": true, "serverId": server }), text))
    }
}
