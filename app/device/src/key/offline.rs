//! A request that came as a QR code: nothing but the server's signature speaks for it.

use std::fmt;

use countersign_crypto::UnixTime;
use countersign_payment::ocra;
use countersign_payment::offline::OfflineRequest;

use super::{Holder, KeyDir, KeyError, SignWith};

/// The digits that a holder types where the QR code is shown. Printed, it shows all but them.
#[derive(Clone, PartialEq, Eq)]
pub struct OfflineAnswer {
    /// The payment that they are for.
    pub payment: String,
    /// The device's serial number.
    pub serial: String,
    /// Decimal digits.
    pub digits: String,
}

impl fmt::Debug for OfflineAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("OfflineAnswer");
        shown.field("payment", &self.payment).field("serial", &self.serial);
        shown.finish_non_exhaustive()
    }
}

impl KeyDir {
    /// Verifies the text of a QR code against the server that enrolled this device, shows what it
    /// asks for, and for the PIN gives the digits that confirm it.
    ///
    /// # Errors
    /// [`KeyError::NotEnrolled`], [`KeyError::NoDigits`], [`KeyError::ServerUnpinned`],
    /// [`KeyError::Pki`] if the server's certificate has expired; [`KeyError::Request`] for a text
    /// that is not of this server, not signed by it, or too late: nothing is shown then;
    /// [`KeyError::Declined`]; those of the PIN.
    pub fn answer_offline(
        &mut self,
        text: &str,
        now: UnixTime,
        holder: &mut dyn Holder,
    ) -> Result<OfflineAnswer, KeyError> {
        if self.settings.server_id.is_empty() {
            return Err(KeyError::NotEnrolled(self.path()));
        }
        if self.settings.method != SignWith::Ocra {
            return Err(KeyError::NoDigits);
        }
        let offline = OfflineRequest::parse(text).map_err(KeyError::Request)?;
        let server = self.server(now)?;
        let request = offline.verify(&self.provider()?, &server, now).map_err(KeyError::Request)?;
        if self.tries_left()? == 0 {
            return Err(KeyError::PinBlocked);
        }
        let pin = holder.asked(&request.lines())?.ok_or(KeyError::Declined)?;
        let key = self.unlock(&pin)?;
        let digits = ocra::respond(&key, offline.request()).map_err(KeyError::Request)?;
        Ok(OfflineAnswer { payment: request.payment, serial: self.settings.serial.clone(), digits })
    }
}
