//! A confirmation request for a device that nothing but a camera reaches: a text in a QR code,
//! signed by the server, which the device answers with the digits of [`ocra`](crate::ocra).
//!
//! The text is `CS1:` and, in base32 without padding (RFC 4648 §6; a QR code's alphanumeric mode),
//! `01 ‖ len, certificate number ‖ len, signature ‖ request`. The number says which certificate of
//! the server the signature is under; the signature is over [`LABEL`] and the request's bytes.

use alloc::string::String;
use alloc::vec::Vec;

use countersign_crypto::{CryptoRng, Provider, SecureElement, UnixTime};
use countersign_pki::{CertificateNumber, certified_point, not_after, number};
use data_encoding::BASE32_NOPAD;

use crate::{ConfirmationRequest, PaymentError, REQUEST_MAX};

/// What the server's signature begins with, so that none that it makes for anything else is one,
/// and none of a device ([`DOMAIN`](crate::DOMAIN)) either.
pub const LABEL: &[u8] = b"countersign.payment.offline.v1\0";
/// What a text begins with: its version.
pub const PREFIX: &str = "CS1:";
/// Longest text, in characters: what the largest QR code holds in alphanumeric mode (version 40-L).
pub const TEXT_MAX: usize = 4296;
/// Longest signature, in bytes.
const SIGNATURE_MAX: usize = 80;
const VERSION: u8 = 1;

/// An offline request as it was read; nothing of it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfflineRequest {
    number: CertificateNumber,
    signature: Vec<u8>,
    request: Vec<u8>,
}

/// Makes the text of a request, with the server's key; `number` is of the certificate that devices
/// know the key by.
///
/// # Errors
/// As [`ConfirmationRequest::parse`]; [`PaymentError::Signing`]; [`PaymentError::OfflineTooLong`]
/// for a request that no QR code holds.
pub fn sign(
    key: &dyn SecureElement,
    rng: &mut dyn CryptoRng,
    number: &CertificateNumber,
    request: &[u8],
) -> Result<String, PaymentError> {
    ConfirmationRequest::parse(request)?;
    let signature = key.sign(rng, &input(request)).map_err(|_| PaymentError::Signing)?;
    if signature.is_empty() || signature.len() > SIGNATURE_MAX {
        return Err(PaymentError::Signing);
    }
    let mut bytes = [VERSION].to_vec();
    for part in [number.as_bytes(), &signature] {
        bytes.push(u8::try_from(part.len()).expect("at most 80"));
        bytes.extend_from_slice(part);
    }
    bytes.extend_from_slice(request);
    let text = [PREFIX, &BASE32_NOPAD.encode(&bytes)].concat();
    if text.len() <= TEXT_MAX { Ok(text) } else { Err(PaymentError::OfflineTooLong) }
}

impl OfflineRequest {
    /// Reads the text of a QR code: one form only, upper case and without anything around it.
    ///
    /// # Errors
    /// [`PaymentError::OfflineTooLong`], [`PaymentError::OfflineForm`].
    pub fn parse(text: &str) -> Result<Self, PaymentError> {
        if text.len() > TEXT_MAX {
            return Err(PaymentError::OfflineTooLong);
        }
        Self::read(text).ok_or(PaymentError::OfflineForm)
    }

    fn read(text: &str) -> Option<Self> {
        let bytes = BASE32_NOPAD.decode(text.strip_prefix(PREFIX)?.as_bytes()).ok()?;
        let (&version, rest) = bytes.split_first()?;
        let (number, rest) = short(rest)?;
        let (signature, request) = short(rest)?;
        let fits = version == VERSION
            && (1..=SIGNATURE_MAX).contains(&signature.len())
            && (1..=REQUEST_MAX).contains(&request.len());
        let number = CertificateNumber::from_bytes(number).ok()?;
        fits.then(|| Self { number, signature: signature.to_vec(), request: request.to_vec() })
    }

    /// The number of the server's certificate that it says it was signed under.
    #[must_use]
    pub const fn certificate_number(&self) -> &CertificateNumber {
        &self.number
    }

    /// The bytes of the confirmation request, which a device's digits are over. Not to be shown to
    /// anyone, nor answered, before [`Self::verify`].
    #[must_use]
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// Verifies it against the server's certificate (DER) that the device holds, and gives what is
    /// to be shown. That the certificate is the server's was verified when it came to the device.
    ///
    /// # Errors
    /// [`PaymentError::OfflineServer`] if it was signed under another certificate, or this one has
    /// expired; [`PaymentError::OfflineSignature`]; then as [`ConfirmationRequest::parse`];
    /// [`PaymentError::OfflineExpired`] if an answer would not count any more.
    pub fn verify(
        &self,
        provider: &Provider,
        server: &[u8],
        now: UnixTime,
    ) -> Result<ConfirmationRequest, PaymentError> {
        let foreign = PaymentError::OfflineServer;
        if number(server).map_err(|_| foreign)? != self.number
            || now > not_after(server).map_err(|_| foreign)?
        {
            return Err(foreign);
        }
        let point = certified_point(provider, server).map_err(|_| foreign)?;
        let key = provider.signature.public_key(&point).map_err(|_| foreign)?;
        key.verify(&input(&self.request), &self.signature)
            .map_err(|_| PaymentError::OfflineSignature)?;
        let request = ConfirmationRequest::parse(&self.request)?;
        if now < request.expires { Ok(request) } else { Err(PaymentError::OfflineExpired) }
    }
}

fn input(request: &[u8]) -> Vec<u8> {
    [LABEL, request].concat()
}

/// A length of one byte, and as many bytes.
fn short(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&len, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(len))
}

#[cfg(test)]
mod tests;
