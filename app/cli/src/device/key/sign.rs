//! A request that was saved to a file, signed.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use countersign_device::DeviceAnswer;
use countersign_payment::REQUEST_MAX;
use countersign_server::ambient;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::PinFile;
use crate::device::which_device::WhichDevice;
use crate::failure::Failure;
use crate::output::Output;

/// Sign a confirmation request.
#[derive(Args)]
pub(crate) struct Sign {
    #[command(flatten)]
    which: WhichDevice,
    /// File with the request's bytes, as the server made them.
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    #[command(flatten)]
    pin: PinFile,
}

impl Sign {
    pub(super) fn run(self) -> Result<Output, Failure> {
        let request = request_in(&self.request)?;
        let mut device = self.which.open()?;
        let mut rng = (ambient().rng)();
        let answer = device.confirm(&request, &self.pin, &mut *rng)?;
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
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(REQUEST_MAX as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| Failure::file(path, &error))?;
    Ok(bytes)
}
