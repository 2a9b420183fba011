//! `device key`: a security device in software, as a directory and as a card.

mod enroll;
mod offline;
pub(super) mod pins;
pub(super) mod puk_file;
mod serve;
mod show;
mod sign;

use std::fs::File;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use countersign_crypto::Secret;
use countersign_device::{Holder, KeyError, SecurityDevice, ShownBy};
use countersign_payment::Line;
use rustix::termios::{QueueSelector, tcflush};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{read_file, which_device::WhichDevice};
use crate::failure::Failure;
use crate::output::{Output, print_error};

/// A security device in software: it shows what it signs, and signs for its PIN.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true
)]
pub(crate) struct Key {
    #[command(subcommand)]
    command: Option<KeyCommand>,
    #[command(flatten)]
    serve: serve::Serve,
}

/// What a security device is asked to do.
#[derive(Subcommand)]
enum KeyCommand {
    /// Be a card in the virtual reader of PC/SC (vpcd), until it is stopped.
    ///
    /// Without the word `serve` it is the same: device key --virtual-reader 35963.
    ///
    /// Example: countersign device key serve --key ./key --virtual-reader 35963
    Serve(serve::Serve),
    /// Make a security device and have the server enrol it for some accounts.
    ///
    /// It tells its PUK, which unblocks it after three wrong PINs, once: keep it.
    ///
    /// Example: countersign device key enroll --key ./key --serial KEY-1 --label "Li Lei"
    /// --account PAYER0001 --pin-file pin --puk-file puk --server https://localhost:8443
    /// --ca ca.pem --token-file admin.token
    Enroll(enroll::Enroll),
    /// Show what the device is; needs no PIN.
    ///
    /// Example: countersign device key show --key ./key
    Show {
        #[command(flatten)]
        which: WhichDevice,
    },
    /// Show a confirmation request and sign it, for its PIN.
    ///
    /// Example: countersign device key sign --key ./key --request request.bin --pin-file pin
    Sign(sign::Sign),
    /// Change the PIN; the PUK stays.
    ///
    /// Example: countersign device key pin --key ./key --pin-file old --new-pin-file new
    Pin(pins::Pin),
    /// Set a new PIN for the PUK, also when wrong PINs have blocked the device.
    ///
    /// Example: countersign device key unblock --key ./key --puk-file puk --new-pin-file new
    Unblock(pins::Unblock),
    /// Make a new PUK, for the PIN.
    ///
    /// For a device whose PUK was lost, or that has none. The old one ends.
    ///
    /// Example: countersign device key puk --key ./key --pin-file pin --puk-file puk
    Puk(pins::Puk),
    /// Answer a payment that came as a QR code.
    ///
    /// The device checks that the code is its server's, shows the payment, and gives digits to type
    /// where the code is shown. For devices that make dynamic passwords.
    ///
    /// Example: countersign device key offline --key ./key --qr @code.txt --pin-file pin
    Offline(offline::Offline),
    /// Take the server's present certificate.
    ///
    /// QR codes are checked with it. The root that was pinned at enrolment has to vouch for it.
    ///
    /// Example: countersign device key refresh --key ./key --server https://localhost:8443
    /// --ca ca.pem --token-file admin.token
    Refresh(enroll::Refresh),
}

/// Which directory.
#[derive(Args)]
pub(crate) struct Which {
    /// The security device's own directory.
    #[arg(long, value_name = "DIR", default_value = "./countersign-key", alias = "device")]
    key: PathBuf,
}

/// Where its PIN comes from.
#[derive(Args)]
pub(crate) struct PinFile {
    /// File with the PIN, 4 to 12 digits; without, it is asked for.
    #[arg(long, value_name = "FILE")]
    pin_file: Option<PathBuf>,
}

impl Key {
    pub(crate) async fn run(self, json: bool) -> Result<Output, Failure> {
        match self.command {
            Some(command) => command.run(json).await,
            None => self.serve.run(json).await,
        }
    }
}

impl KeyCommand {
    async fn run(self, json: bool) -> Result<Output, Failure> {
        // Files, keys, cards and the API client block.
        let work: Box<dyn FnOnce() -> Result<Output, Failure> + Send> = match self {
            Self::Serve(serve) => return serve.run(json).await,
            Self::Enroll(enroll) => Box::new(|| enroll.run()),
            Self::Show { which } => Box::new(move || show::show(&which)),
            Self::Sign(sign) => Box::new(|| sign.run()),
            Self::Pin(pin) => Box::new(|| pin.run()),
            Self::Unblock(unblock) => Box::new(|| unblock.run()),
            Self::Puk(puk) => Box::new(|| puk.run()),
            Self::Offline(offline) => Box::new(|| offline.run()),
            Self::Refresh(refresh) => Box::new(|| refresh.run()),
        };
        let working = tokio::task::spawn_blocking(work);
        working.await.map_err(|error| Failure::environment("task", error.to_string()))?
    }
}

impl PinFile {
    /// The PIN.
    pub(in crate::device) fn pin(&self, question: &str) -> Result<Secret, Failure> {
        match &self.pin_file {
            Some(path) => pin_in(path),
            None => typed(question),
        }
    }
}

pub(super) fn pin_in(path: &Path) -> Result<Secret, Failure> {
    let text = Zeroizing::new(read_file(path)?);
    Ok(Secret::copied_from(text.trim().as_bytes()))
}

pub(super) fn typed(question: &str) -> Result<Secret, Failure> {
    let typed = rpassword::prompt_password(question).map_err(|error| {
        let detail = format!("there is no terminal to type it at ({error}): give it in a file");
        Failure::environment("prompt", detail)
    })?;
    Ok(Secret::new(typed.into_bytes()))
}

/// Whoever sits at this terminal: reads on stderr what is to be signed, types the device's PIN.
pub(super) struct AtTerminal<'a> {
    pin: &'a PinFile,
    /// The device and where it is, for its holder.
    device: String,
    shown_by: ShownBy,
}

impl<'a> AtTerminal<'a> {
    /// At a device, which is this program.
    pub(super) fn of(serial: &str, pin: &'a PinFile) -> Self {
        Self { pin, device: serial.to_owned(), shown_by: ShownBy::Device }
    }

    /// At the machine of a device that is somewhere.
    pub(super) fn beside(device: &dyn SecurityDevice, place: &str, pin: &'a PinFile) -> Self {
        let named = format!("{} {place}", device.serial());
        Self { pin, device: named, shown_by: device.shown_by() }
    }
}

impl Holder for AtTerminal<'_> {
    fn asked(&mut self, display: &[Line]) -> Result<Option<Secret>, KeyError> {
        let device = &self.device;
        print_error(&match self.shown_by {
            ShownBy::Device => format!("The security device {device} shows:"),
            ShownBy::Host => format!(
                "This computer, not the device, shows what the security device {device} is to sign:"
            ),
        });
        print_error(&display_text(display));
        if self.pin.pin_file.is_none() {
            // What was typed before it could be read is no answer to it.
            forget_typed();
        }
        let pin = self.pin.pin("PIN to confirm this (empty: do not): ");
        let pin = pin.map_err(|failure| KeyError::Keypad(failure.detail))?;
        Ok((!pin.is_empty()).then_some(pin))
    }

    fn sent_to_device(&mut self) {
        let device = &self.device;
        print_error(&format!("Read and confirm it at the security device {device}, with its PIN."));
    }
}

/// Has the terminal forget what was typed and not read yet. Without a terminal nothing was.
fn forget_typed() {
    if let Ok(terminal) = File::open("/dev/tty") {
        let _none = tcflush(terminal, QueueSelector::IFlush);
    }
}

/// The display's lines, one below the other.
pub(super) fn display_text(display: &[Line]) -> String {
    let line = |line: &Line| format!("  {:<9} {}", line.label, line.text);
    display.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The display's lines for programs.
pub(super) fn display_json(display: &[Line]) -> Value {
    display.iter().map(|line| json!({ "label": line.label, "text": line.text })).collect()
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Enroll(error) => error.into(),
            KeyError::Api(error) => error.into(),
            other if other.is_environment() => Self::environment(other.check(), other.to_string()),
            other => Self::check(other.check(), other.to_string()),
        }
    }
}
