//! PIN and PUK: change the one, unblock with the other, make another.

use std::path::PathBuf;

use clap::Args;
use countersign_crypto::Secret;
use countersign_device::KeyDir;
use countersign_server::ambient;
use serde_json::json;

use super::puk_file::PukFile;
use super::{PinFile, Which, pin_in, typed};
use crate::device::which_device::{Kept, WhichDevice};
use crate::failure::Failure;
use crate::output::Output;

/// Change the PIN.
#[derive(Args)]
pub(crate) struct Pin {
    #[command(flatten)]
    which: WhichDevice,
    #[command(flatten)]
    pin: PinFile,
    #[command(flatten)]
    new: NewPin,
}

/// Set a new PIN for the PUK.
#[derive(Args)]
pub(crate) struct Unblock {
    #[command(flatten)]
    which: WhichDevice,
    /// File with the PUK, 8 digits; without, it is asked for.
    #[arg(long, value_name = "FILE")]
    puk_file: Option<PathBuf>,
    #[command(flatten)]
    new: NewPin,
}

/// Make a new PUK.
#[derive(Args)]
pub(crate) struct Puk {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    pin: PinFile,
    #[command(flatten)]
    puk: PukFile,
}

/// Where the new PIN comes from.
#[derive(Args)]
pub(in crate::device) struct NewPin {
    /// File with the new PIN; without, it is asked for twice.
    #[arg(long, value_name = "FILE")]
    new_pin_file: Option<PathBuf>,
}

impl NewPin {
    pub(in crate::device) fn pin(&self) -> Result<Secret, Failure> {
        if let Some(path) = &self.new_pin_file {
            return pin_in(path);
        }
        let new = typed("The new PIN: ")?;
        if !new.ct_eq(typed("The new PIN again: ")?.expose()) {
            return Err(Failure::usage("pin-differs", "the two entries differ"));
        }
        Ok(new)
    }
}

/// Opens what has a PIN and a PUK, before anybody is asked for them in vain.
fn keep(which: &WhichDevice) -> Result<Kept, Failure> {
    let kept = which.keep()?;
    if let Kept::Card(card, ..) = &kept {
        card.check_host_entry()?;
    }
    Ok(kept)
}

impl Pin {
    pub(super) fn run(self) -> Result<Output, Failure> {
        let kept = keep(&self.which)?;
        let (old, new) = (self.pin.pin("The PIN so far: ")?, self.new.pin()?);
        match kept {
            Kept::Directory(mut dir) => dir.change_pin(&old, &new, &mut *(ambient().rng)())?,
            Kept::Card(mut card, _) => card.change_pin(&old, &new)?,
        }
        Ok(Output::new(json!({ "changed": true }), "The PIN is changed."))
    }
}

impl Unblock {
    pub(super) fn run(self) -> Result<Output, Failure> {
        let kept = keep(&self.which)?;
        let puk = match &self.puk_file {
            Some(path) => pin_in(path)?,
            None => typed("The PUK: ")?,
        };
        let new = self.new.pin()?;
        match kept {
            Kept::Directory(mut dir) => dir.unblock(&puk, &new, &mut *(ambient().rng)())?,
            Kept::Card(mut card, _) => card.unblock(&puk, &new)?,
        }
        let text = "The security device is unblocked and has its new PIN.";
        Ok(Output::new(json!({ "unblocked": true }), text))
    }
}

impl Puk {
    pub(super) fn run(self) -> Result<Output, Failure> {
        let mut dir = KeyDir::open(&self.which.key)?;
        let mut kept = self.puk.create()?;
        let pin = self.pin.pin("The PIN: ")?;
        let puk = dir.renew_puk(&pin, &mut *(ambient().rng)())?;
        let mut output =
            Output::new(json!({ "renewed": true }), "The security device has a new PUK.");
        kept.keep(&puk, &mut output)?;
        Ok(output)
    }
}
