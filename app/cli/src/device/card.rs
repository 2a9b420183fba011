//! `device card`: a signing card with a joint password in software (B), as a directory and as a
//! card.

mod display;
mod enroll;
mod hand;
mod keypad;
mod serve;
mod show;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use countersign_device::CardDir;
use countersign_server::ambient;
use serde_json::json;

use super::key::pins::NewPin;
use super::key::puk_file::PukFile;
use super::key::{PinFile, pin_in, typed};
use crate::failure::Failure;
use crate::output::Output;

/// A signing card in software: it signs what the terminal gives it, and shows its holder a joint
/// password without which the signature is worth nothing.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true
)]
pub(crate) struct Card {
    #[command(subcommand)]
    command: Option<CardCommand>,
    #[command(flatten)]
    serve: serve::Serve,
}

/// What a signing card is asked to do.
#[derive(Subcommand)]
enum CardCommand {
    /// Be a card in the virtual reader of PC/SC (vpcd): this program is its display and its
    /// keypad.
    ///
    /// Type `help` for its keys. Without the word `serve` it is the same: device card
    /// --virtual-reader 35963.
    ///
    /// Example: countersign device card serve --card ./card --virtual-reader 35963
    /// --contactless-reader 35964
    Serve(serve::Serve),
    /// Make a signing card and have the server enrol it for some accounts.
    ///
    /// It tells its PUK, which unblocks it after three wrong PINs, once: keep it.
    ///
    /// Example: countersign device card enroll --card ./card --serial CARD-1 --label "Li Lei"
    /// --account PAYER0001 --pin-file pin --puk-file puk --server https://localhost:8443
    /// --ca ca.pem --token-file admin.token
    Enroll(enroll::Enroll),
    /// Show what the card is; needs no PIN.
    ///
    /// Example: countersign device card show --card ./card
    Show(show::Show),
    /// Change the PIN; the PUK stays.
    ///
    /// Example: countersign device card pin --card ./card --pin-file old --new-pin-file new
    Pin {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        pin: PinFile,
        #[command(flatten)]
        new: NewPin,
    },
    /// Set a new PIN for the PUK, also when wrong PINs have blocked the card.
    ///
    /// Example: countersign device card unblock --card ./card --puk-file puk --new-pin-file new
    Unblock {
        #[command(flatten)]
        which: Which,
        /// File with the PUK, 8 digits; without, it is asked for.
        #[arg(long, value_name = "FILE")]
        puk_file: Option<PathBuf>,
        #[command(flatten)]
        new: NewPin,
    },
    /// Make a new PUK, for the PIN. The old one ends.
    ///
    /// Example: countersign device card puk --card ./card --pin-file pin --puk-file puk
    Puk {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        pin: PinFile,
        #[command(flatten)]
        puk: PukFile,
    },
    /// Take the server's present certificates.
    ///
    /// Joint passwords are encrypted to the one of them. The root that was pinned at enrolment has
    /// to vouch for it.
    ///
    /// Example: countersign device card refresh --card ./card --server https://localhost:8443
    /// --ca ca.pem --token-file admin.token
    Refresh(enroll::Refresh),
}

/// Which directory.
#[derive(Args)]
pub(crate) struct Which {
    /// The signing card's own directory.
    #[arg(long, value_name = "DIR", default_value = "./countersign-card")]
    card: PathBuf,
}

impl Card {
    pub(crate) async fn run(self, json: bool) -> Result<Output, Failure> {
        match self.command {
            Some(command) => command.run(json).await,
            None => self.serve.run(json).await,
        }
    }
}

impl CardCommand {
    async fn run(self, json: bool) -> Result<Output, Failure> {
        // Files, keys and the API client block.
        let work: Box<dyn FnOnce() -> Result<Output, Failure> + Send> = match self {
            Self::Serve(serve) => return serve.run(json).await,
            Self::Enroll(enroll) => Box::new(|| enroll.run()),
            Self::Show(show) => Box::new(move || show.run()),
            Self::Pin { which, pin, new } => Box::new(move || change_pin(&which, &pin, &new)),
            Self::Unblock { which, puk_file, new } => {
                Box::new(move || unblock(&which, puk_file, &new))
            }
            Self::Puk { which, pin, puk } => Box::new(move || renew_puk(&which, &pin, &puk)),
            Self::Refresh(refresh) => Box::new(|| refresh.run()),
        };
        let working = tokio::task::spawn_blocking(work);
        working.await.map_err(|error| Failure::environment("task", error.to_string()))?
    }
}

fn change_pin(which: &Which, pin: &PinFile, new: &NewPin) -> Result<Output, Failure> {
    let mut card = CardDir::open(&which.card)?;
    let (old, new) = (pin.pin("The PIN so far: ")?, new.pin()?);
    card.change_pin(&old, &new, &mut *(ambient().rng)())?;
    Ok(Output::new(json!({ "changed": true }), "The PIN is changed."))
}

fn unblock(which: &Which, puk_file: Option<PathBuf>, new: &NewPin) -> Result<Output, Failure> {
    let mut card = CardDir::open(&which.card)?;
    let puk = match &puk_file {
        Some(path) => pin_in(path)?,
        None => typed("The PUK: ")?,
    };
    card.unblock(&puk, &new.pin()?, &mut *(ambient().rng)())?;
    let text = "The signing card is unblocked and has its new PIN.";
    Ok(Output::new(json!({ "unblocked": true }), text))
}

fn renew_puk(which: &Which, pin: &PinFile, puk: &PukFile) -> Result<Output, Failure> {
    let mut card = CardDir::open(&which.card)?;
    let mut kept = puk.create()?;
    let puk = card.renew_puk(&pin.pin("The PIN: ")?, &mut *(ambient().rng)())?;
    let mut output = Output::new(json!({ "renewed": true }), "The signing card has a new PUK.");
    kept.keep(&puk, &mut output)?;
    Ok(output)
}
