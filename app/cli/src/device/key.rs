//! `device key`: a security device in software.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use countersign_crypto::Secret;
use countersign_device::{
    DeviceAnswer, Holder, KeyDir, KeyEnrolment, KeyError, SecurityDevice, SignWith, device_suite,
};
use countersign_payment::{Line, REQUEST_MAX};
use countersign_server::ambient;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Client, provider_of, read_file};
use crate::failure::Failure;
use crate::output::{Output, print_error};

/// A security device in software: it shows what it signs, and signs for its PIN.
#[derive(Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a security device and have the server enrol it for some accounts.
    ///
    /// Example: countersign device key enroll --key ./key --serial KEY-1 --label "Li Lei"
    /// --account PAYER0001 --pin-file pin --server https://localhost:8443 --ca ca.pem
    /// --token-file admin.token
    Enroll(Enroll),
    /// Show what the device is; needs no PIN.
    ///
    /// Example: countersign device key show --key ./key
    Show {
        #[command(flatten)]
        which: Which,
    },
    /// Show a confirmation request and sign it, for its PIN.
    ///
    /// Example: countersign device key sign --key ./key --request request.bin --pin-file pin
    Sign(Sign),
    /// Change the PIN.
    ///
    /// Example: countersign device key pin --key ./key --pin-file old --new-pin-file new
    Pin(Pin),
}

/// Which security device.
#[derive(Args)]
pub(crate) struct Which {
    /// The security device's own directory.
    #[arg(long, value_name = "DIR", default_value = "./countersign-key", alias = "device")]
    pub(super) key: PathBuf,
}

/// Where its PIN comes from.
#[derive(Args)]
pub(crate) struct PinFile {
    /// File with the PIN, 4 to 12 digits; without, it is asked for.
    #[arg(long, value_name = "FILE")]
    pin_file: Option<PathBuf>,
}

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
    which: Which,
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
    client: Client,
}

/// Sign a confirmation request.
#[derive(Args)]
pub(crate) struct Sign {
    #[command(flatten)]
    which: Which,
    /// File with the request's bytes, as the server made them.
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    #[command(flatten)]
    pin: PinFile,
}

/// Change the PIN.
#[derive(Args)]
pub(crate) struct Pin {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    pin: PinFile,
    /// File with the new PIN; without, it is asked for twice.
    #[arg(long, value_name = "FILE")]
    new_pin_file: Option<PathBuf>,
}

impl KeyCommand {
    pub(crate) async fn run(self) -> Result<Output, Failure> {
        // Files, keys and the API client block.
        let working = tokio::task::spawn_blocking(move || match self {
            Self::Enroll(enroll) => enroll.run(),
            Self::Show { which } => show(&KeyDir::open(&which.key)?),
            Self::Sign(sign) => sign.run(),
            Self::Pin(pin) => pin.run(),
        });
        working.await.map_err(|error| Failure::environment("task", error.to_string()))?
    }
}

impl PinFile {
    /// The PIN.
    pub(super) fn pin(&self, question: &str) -> Result<Secret, Failure> {
        match &self.pin_file {
            Some(path) => pin_in(path),
            None => typed(question),
        }
    }
}

fn pin_in(path: &Path) -> Result<Secret, Failure> {
    let text = Zeroizing::new(read_file(path)?);
    Ok(Secret::copied_from(text.trim().as_bytes()))
}

fn typed(question: &str) -> Result<Secret, Failure> {
    let typed = rpassword::prompt_password(question).map_err(|error| {
        let detail = format!("there is no terminal to type it at ({error}): give it in a file");
        Failure::environment("prompt", detail)
    })?;
    Ok(Secret::new(typed.into_bytes()))
}

/// Whoever sits at this terminal: reads the device's display on stderr, types its PIN.
pub(super) struct AtTerminal<'a>(pub(super) &'a PinFile);

impl Holder for AtTerminal<'_> {
    fn asked(&mut self, display: &[Line]) -> Result<Option<Secret>, KeyError> {
        print_error("The security device shows:");
        print_error(&display_text(display));
        let pin = self.0.pin("PIN to confirm this (empty: do not): ");
        let pin = pin.map_err(|failure| KeyError::Keypad(failure.detail))?;
        Ok((!pin.is_empty()).then_some(pin))
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

impl Enroll {
    fn run(self) -> Result<Output, Failure> {
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
        let (now, mut rng) = (ambient.clock.now(), (ambient.rng)());
        let dir = KeyDir::enroll(&self.which.key, &enrolment, &api, &provider, now, &mut *rng)?;
        show(&dir)
    }
}

fn show(dir: &KeyDir) -> Result<Output, Failure> {
    let settings = dir.settings();
    let number = dir.certificate_number()?;
    let tries = dir.tries_left()?;
    let text = format!(
        "Security device {} ({}) at {}\nSuite       {}\nCertificate {}\nPIN tries   {tries}\n\
         Directory   {}",
        settings.serial,
        settings.method.name(),
        settings.server_id,
        settings.suite,
        number.as_deref().unwrap_or("-"),
        dir.path().display(),
    );
    let json = json!({
        "serial": settings.serial,
        "method": settings.method.name(),
        "suite": settings.suite.name(),
        "serverId": settings.server_id,
        "certificateNumber": number,
        "pinTriesLeft": tries,
        "key": dir.path(),
    });
    Ok(Output::new(json, text))
}

impl Sign {
    fn run(self) -> Result<Output, Failure> {
        let request = request_in(&self.request)?;
        let mut dir = KeyDir::open(&self.which.key)?;
        let mut rng = (ambient().rng)();
        let answer = dir.confirm(&request, &mut AtTerminal(&self.pin), &mut *rng)?;
        let json = answer_json(&answer);
        let text = match &answer {
            DeviceAnswer::Pki { signature, .. } => BASE64URL_NOPAD.encode(signature),
            DeviceAnswer::Ocra { digits, .. } => digits.clone(),
        };
        Ok(Output::new(json, text))
    }
}

/// An answer as the API takes it.
fn answer_json(answer: &DeviceAnswer) -> Value {
    match answer {
        DeviceAnswer::Pki { serial, signature } => json!({
            "method": "pki",
            "deviceSerial": serial,
            "signature": BASE64URL_NOPAD.encode(signature),
        }),
        DeviceAnswer::Ocra { serial, digits } => {
            json!({ "method": "ocra", "deviceSerial": serial, "digits": digits })
        }
    }
}

fn request_in(path: &Path) -> Result<Vec<u8>, Failure> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(REQUEST_MAX as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| Failure::file(path, &error))?;
    Ok(bytes)
}

impl Pin {
    fn run(self) -> Result<Output, Failure> {
        let mut dir = KeyDir::open(&self.which.key)?;
        let old = self.pin.pin("The PIN so far: ")?;
        let new = match &self.new_pin_file {
            Some(path) => pin_in(path)?,
            None => {
                let new = typed("The new PIN: ")?;
                if !new.ct_eq(typed("The new PIN again: ")?.expose()) {
                    return Err(Failure::usage("pin-differs", "the two entries differ"));
                }
                new
            }
        };
        dir.change_pin(&old, &new, &mut *(ambient().rng)())?;
        Ok(Output::new(json!({ "changed": true }), "The PIN is changed."))
    }
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
