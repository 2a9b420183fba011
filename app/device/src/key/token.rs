//! A PKCS#11 token as the security device (D3): its key makes the signatures, its PIN is the
//! token's own.
//!
//! A token has no display: what is signed is parsed and shown by this program, at this program's
//! terminal. Who cannot trust the machine needs a device that shows it itself.

use std::path::PathBuf;
use std::sync::Arc;

use countersign_crypto::{CryptoRng, Provider, Secret, SecureElement, Suite, UnixTime, aws_lc};
use countersign_hsm::{HsmError, Pkcs11Config, SigningToken, TokenName};
use countersign_payment::ConfirmationRequest;
use countersign_pki::{Identity, Role};

use super::enrolment::certify;
use super::server::certificate;
use super::{DeviceAnswer, Holder, KeyEnrolment, KeyError, SecurityDevice, ShownBy, SignWith};
use crate::Api;

/// The label of the key, and of the certificate beside it.
pub const TOKEN_KEY_LABEL: &str = "countersign-payments";

/// The suite in which tokens sign here.
const SUITE: Suite = Suite::X25519_P256_AES128GCM_SHA256;

/// Where a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPlace {
    /// The module: a shared library. It is loaded into this process with all that this means.
    pub module: PathBuf,
    /// Which token of it.
    pub token: TokenName,
}

/// A token with a key and a certificate of ours. It is logged in to for each signature, and not
/// between two.
pub struct TokenKey {
    place: TokenPlace,
    serial: String,
    certificate: Vec<u8>,
    provider: Provider,
}

impl TokenPlace {
    /// Has the token try the PIN.
    fn log_in(&self, pin: &Secret, provider: &Provider) -> Result<SigningToken, KeyError> {
        let pin = Secret::copied_from(pin.expose());
        let Self { module, token } = self.clone();
        SigningToken::open(Pkcs11Config { module, token, pin }, provider).map_err(KeyError::Token)
    }

    fn certificate(&self) -> Result<Option<Vec<u8>>, KeyError> {
        let found = SigningToken::certificate(&self.module, &self.token, TOKEN_KEY_LABEL);
        found.map_err(KeyError::Token)
    }
}

impl TokenKey {
    /// Finds the token and reads its certificate, which is public: no PIN is asked for.
    ///
    /// # Errors
    /// [`KeyError::Token`]; [`KeyError::TokenNotEnrolled`]; [`KeyError::Pki`] for a certificate
    /// that is not one of ours.
    pub fn open(place: TokenPlace) -> Result<Self, KeyError> {
        let certificate = place.certificate()?.ok_or(KeyError::TokenNotEnrolled)?;
        let identity = countersign_pki::identity(&certificate).map_err(KeyError::Pki)?;
        if identity.role() != Role::SecurityDevice {
            return Err(KeyError::TokenOther(identity.to_uri()));
        }
        let serial = identity.id().to_owned();
        Ok(Self { place, serial, certificate, provider: aws_lc::provider() })
    }

    /// Makes the token's key, or finds it, and has the server certify it, over a client with an
    /// operator's token; the certificate is put beside the key. Repeated, it finds the same key
    /// and gets the same certificate. Blocking.
    ///
    /// # Errors
    /// [`KeyError::TokenMethod`] if it is not to sign with a private key in the suite p256;
    /// [`KeyError::TokenOther`] if it is another device already; [`KeyError`].
    pub fn enroll(
        place: TokenPlace,
        enrolment: &KeyEnrolment,
        api: &Api,
        provider: &Provider,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, KeyError> {
        if enrolment.method != SignWith::Pki || provider.suite != SUITE {
            return Err(KeyError::TokenMethod);
        }
        let identity = Identity::new(Role::SecurityDevice, &enrolment.serial);
        let identity = identity.map_err(KeyError::Serial)?;
        if let Some(held) = place.certificate()? {
            let held = countersign_pki::identity(&held).map_err(KeyError::Pki)?;
            if held != identity {
                return Err(KeyError::TokenOther(held.to_uri()));
            }
        }
        let token = place.log_in(&enrolment.pin, provider)?;
        let key = find_or_make(&token).map_err(KeyError::Token)?;
        let answer = certify(enrolment, api, provider, &identity, &*key, now, rng)?;
        let der = certificate(&answer.certificate)?;
        token.store_certificate(TOKEN_KEY_LABEL, &der).map_err(KeyError::Token)?;
        // The login ends with these.
        drop((key, token));
        Self::open(place)
    }

    /// The number of its certificate.
    ///
    /// # Errors
    /// [`KeyError::Pki`].
    pub fn certificate_number(&self) -> Result<String, KeyError> {
        let number = countersign_pki::number(&self.certificate).map_err(KeyError::Pki)?;
        Ok(number.to_string())
    }

    /// Its certificate (DER).
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Logs in and signs. The login ends before this does.
    fn sign(
        &self,
        pin: &Secret,
        request: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, KeyError> {
        let token = self.place.log_in(pin, &self.provider)?;
        let key = token.key(TOKEN_KEY_LABEL).map_err(KeyError::Token)?;
        let certified = countersign_pki::certified_point(&self.provider, &self.certificate);
        if certified.map_err(KeyError::Pki)? != key.public_key() {
            return Err(KeyError::Foreign);
        }
        countersign_payment::sign(&*key, rng, request).map_err(KeyError::Request)
    }
}

fn find_or_make(token: &SigningToken) -> Result<Arc<dyn SecureElement>, HsmError> {
    match token.key(TOKEN_KEY_LABEL) {
        Err(HsmError::LabelUnknown(_)) => token.generate(TOKEN_KEY_LABEL),
        found => found,
    }
}

impl SecurityDevice for TokenKey {
    fn serial(&self) -> &str {
        &self.serial
    }

    fn shown_by(&self) -> ShownBy {
        ShownBy::Host
    }

    fn confirm(
        &mut self,
        request: &[u8],
        holder: &mut dyn Holder,
        rng: &mut dyn CryptoRng,
    ) -> Result<DeviceAnswer, KeyError> {
        // Parsed here, from the bytes that are signed below: whoever carried them adds nothing.
        let parsed = ConfirmationRequest::parse(request).map_err(KeyError::Request)?;
        let pin = holder.asked(&parsed.lines())?.ok_or(KeyError::Declined)?;
        let signature = self.sign(&pin, request, rng)?;
        Ok(DeviceAnswer::Pki { serial: self.serial.clone(), signature })
    }
}
