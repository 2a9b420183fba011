//! Enrolment of a security device, and what it keeps of its server.

use clap::{Args, ValueEnum};
use countersign_device::{KeyDir, KeyEnrolment, SignWith, device_suite};
use countersign_server::ambient;
use serde_json::json;

use super::puk_file::PukFile;
use super::{PinFile, Which, show};
use crate::device::which_device::WhichDevice;
use crate::device::{Client, provider_of};
use crate::failure::Failure;
use crate::output::Output;

/// How a security device signs.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Method {
    /// With a private key, under a certificate in the server's suite.
    Pki,
    /// With a dynamic password (OCRA, RFC 6287).
    Ocra,
}

/// Make a security device.
#[derive(Args)]
pub(crate) struct Enroll {
    #[command(flatten)]
    which: WhichDevice,
    /// Its serial number.
    #[arg(long)]
    serial: String,
    /// A name for people, 1 to 64 characters.
    #[arg(long)]
    label: String,
    /// An account that it is to confirm payments from: id or number; may be given several times.
    #[arg(long = "account", value_name = "ACCOUNT", required = true)]
    accounts: Vec<String>,
    /// How it is to sign.
    #[arg(long, value_enum, default_value = "pki")]
    method: Method,
    #[command(flatten)]
    pin: PinFile,
    #[command(flatten)]
    puk: PukFile,
    #[command(flatten)]
    client: Client,
}

/// Renew what the device knows of its server.
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
        let enrolment = KeyEnrolment {
            serial: self.serial,
            label: self.label,
            accounts: self.accounts,
            method: match self.method {
                Method::Pki => SignWith::Pki,
                Method::Ocra => SignWith::Ocra,
            },
            pin: self.pin.pin("The security device's PIN (4 to 12 digits): ")?,
        };
        let ambient = ambient();
        let provider = provider_of(device_suite(&api)?)?;
        if let Some(token) = self.which.token() {
            return token.enroll(&enrolment, &api, &provider);
        }
        let path = self.which.directory()?;
        let mut kept = self.puk.create()?;
        let (now, mut rng) = (ambient.clock.now(), (ambient.rng)());
        let mut dir = KeyDir::enroll(path, &enrolment, &api, &provider, now, &mut *rng)?;
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
        let dir = KeyDir::open(&self.which.key)?;
        dir.refresh(&self.client.api()?, ambient().clock.now())?;
        let server = &dir.settings().server_id;
        let text = format!("The security device knows the present certificate of {server}.");
        Ok(Output::new(json!({ "refreshed": true, "serverId": server }), text))
    }
}
