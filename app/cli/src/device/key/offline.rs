//! A payment that came as a QR code.

use clap::Args;
use countersign_device::{KeyDir, KeyError};
use countersign_payment::PaymentError;
use countersign_server::ambient;
use serde_json::json;

use super::{AtTerminal, PinFile, Which};
use crate::failure::Failure;
use crate::output::Output;
use crate::secret_arg;

/// Answer a QR code.
#[derive(Args)]
pub(crate) struct Offline {
    #[command(flatten)]
    which: Which,
    /// What the QR code says (CS1:…), @FILE or - for stdin.
    #[arg(long, value_name = "TEXT")]
    qr: String,
    #[command(flatten)]
    pin: PinFile,
}

impl Offline {
    pub(super) fn run(self) -> Result<Output, Failure> {
        let text = secret_arg::text(&self.qr)?;
        let mut dir = KeyDir::open(&self.which.key)?;
        let now = ambient().clock.now();
        let serial = dir.settings().serial.clone();
        let answer = dir.answer_offline(&text, now, &mut AtTerminal::of(&serial, &self.pin));
        let answer = answer.map_err(|error| {
            let renewed =
                matches!(error, KeyError::Pki(_) | KeyError::Request(PaymentError::OfflineServer));
            let mut failure = Failure::from(error);
            if renewed {
                failure.detail += "; if the server has a new certificate, `countersign device key \
                                   refresh` gets it";
            }
            failure
        })?;
        let json = json!({
            "method": "ocra",
            "paymentId": answer.payment,
            "deviceSerial": answer.serial,
            "digits": answer.digits,
        });
        let (front, back) = answer.digits.split_at(answer.digits.len() / 2);
        let text = format!("Device  {}\nDigits  {front} {back}", answer.serial);
        Ok(Output::new(json, text))
    }
}
