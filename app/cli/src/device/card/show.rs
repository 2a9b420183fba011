//! What a signing card is.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use countersign_device::{CardDir, TerminalCard};
use data_encoding::BASE64;
use serde_json::json;

use crate::device::which_device::link;
use crate::failure::Failure;
use crate::output::Output;

/// Show a signing card.
#[derive(Args)]
pub(crate) struct Show {
    /// The signing card's own directory.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "./countersign-card",
        conflicts_with = "reader"
    )]
    card: PathBuf,
    /// The card behind the PC/SC reader of this name, or of a name with this part; without a name,
    /// behind the only reader that has a card (then the last word, or before another option).
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
    reader: Option<String>,
}

impl Show {
    pub(super) fn run(self) -> Result<Output, Failure> {
        match &self.reader {
            Some(name) => behind(Some(&**name).filter(|name| !name.is_empty())),
            None => directory(&CardDir::open(&self.card)?),
        }
    }
}

/// Shows a card in a reader: what anyone may read of it.
fn behind(reader: Option<&str>) -> Result<Output, Failure> {
    let (link, place) = link(reader, Duration::ZERO)?;
    let mut card = TerminalCard::new(link)?;
    let tries = card.tries()?;
    let (info, certificate) = (card.info(), card.certificate());
    let number = countersign_pki::number(certificate);
    let number = number.map_err(|error| Failure::check(error.check(), error.to_string()))?;
    let forms: Vec<_> = info.forms.iter().map(|form| form.name()).collect();
    let text = format!(
        "Signing card {} at {}, {place}\nSuite       {}\nForms       {}\nAccount     {}\n\
         Certificate {number}\nPIN tries   {}\nPUK tries   {}",
        info.serial,
        info.server_id,
        info.suite,
        forms.join(", "),
        info.account,
        tries.pin,
        tries.puk,
    );
    let json = json!({
        "serial": info.serial,
        "suite": info.suite.name(),
        "serverId": info.server_id,
        "forms": forms,
        "account": info.account,
        "certificateNumber": number.to_string(),
        "certificate": BASE64.encode(certificate),
        "pinTriesLeft": tries.pin,
        "pukTriesLeft": tries.puk,
    });
    Ok(Output::new(json, text))
}

/// Shows a directory.
pub(super) fn directory(dir: &CardDir) -> Result<Output, Failure> {
    let settings = dir.settings();
    let number = dir.certificate_number()?;
    let (tries, puk) = (dir.tries_left()?, dir.puk_tries_left()?);
    let text = format!(
        "Signing card {} at {}\nSuite       {}\nAccount     {}\nCertificate {}\n\
         PIN tries   {tries}\nPUK tries   {}\nDirectory   {}",
        settings.serial,
        settings.server_id,
        settings.suite,
        settings.account,
        number.as_deref().unwrap_or("-"),
        puk.map_or_else(|| "- (there is no PUK)".to_owned(), |left| left.to_string()),
        dir.path().display(),
    );
    let json = json!({
        "serial": settings.serial,
        "suite": settings.suite.name(),
        "serverId": settings.server_id,
        "account": settings.account,
        "certificateNumber": number,
        "pinTriesLeft": tries,
        "pukTriesLeft": puk,
        "card": dir.path(),
    });
    Ok(Output::new(json, text))
}
