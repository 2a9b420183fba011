//! Enrolment of a security device by an operator's program: a certificate for the key made here,
//! or a key for dynamic passwords from the server.

use std::path::Path;

use countersign_crypto::{CryptoRng, Provider, Secret, SecureElement, Suite, UnixTime};
use countersign_payment::ocra::{PAYMENT_KEY_LEN, PAYMENT_SUITE};
use countersign_pki::{Identity, Role, TrustStore, certified_point, request};
use data_encoding::HEXLOWER;
use pem::Pem;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::files::Files;
use super::sealed;
use super::server::{ServerChain, certificate};
use super::{CERTIFICATE, FORMAT, KeyDir, KeyError, KeySettings, MARKER, SETTINGS, SignWith};
use crate::{Api, EnrollError};

const PATH: &str = "/v1/devices";

/// What a security device enrols with.
#[derive(Debug)]
pub struct KeyEnrolment {
    /// Its serial number.
    pub serial: String,
    /// For people.
    pub label: String,
    /// The accounts that it is to confirm payments from: ids or numbers.
    pub accounts: Vec<String>,
    /// How it is to sign.
    pub method: SignWith,
    /// Its PIN; of a device that has a key already, the PIN that it has.
    pub pin: Secret,
}

/// In which suite the server certifies security devices. Blocking.
///
/// # Errors
/// [`EnrollError::Api`] or [`EnrollError::UnknownSuite`].
pub fn device_suite(api: &Api) -> Result<Suite, EnrollError> {
    #[derive(Deserialize)]
    struct Terms {
        suite: String,
    }

    let Terms { suite } = api.get("/v1/devices/terms")?;
    Suite::from_name(&suite).ok_or(EnrollError::UnknownSuite(suite))
}

/// A device's certificate request, as it is posted.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PkiBody<'a> {
    request: String,
    label: &'a str,
    accounts: &'a [String],
}

/// What the server sends for a certificate request.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PkiAnswer {
    /// In PEM.
    pub(super) certificate: String,
    device_issuer: String,
    pub(super) server_id: String,
    #[serde(flatten)]
    chain: ServerChain,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OcraBody<'a> {
    serial: &'a str,
    label: &'a str,
    accounts: &'a [String],
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OcraAnswer {
    suite: String,
    key: String,
    server_id: String,
    // These three not flattened: that would copy the key. Servers before there were offline
    // requests do not give them.
    root: Option<String>,
    server_issuer: Option<String>,
    server_certificate: Option<String>,
}

/// A device that asks the server to certify its key.
pub(crate) struct ToCertify<'a> {
    /// The algorithms of the server's suite.
    pub(crate) provider: &'a Provider,
    /// Who it is.
    pub(crate) identity: &'a Identity,
    /// Its key.
    pub(crate) element: &'a dyn SecureElement,
    /// For people.
    pub(crate) label: &'a str,
    /// The accounts that it is for: ids or numbers.
    pub(crate) accounts: &'a [String],
}

impl ToCertify<'_> {
    /// Its certificate request, as it is posted.
    pub(crate) fn body(&self, rng: &mut dyn CryptoRng) -> Result<PkiBody<'_>, KeyError> {
        let der = request(self.provider, self.identity, self.element, rng);
        let der = der.map_err(KeyError::Pki)?;
        let request = pem::encode(&Pem::new("CERTIFICATE REQUEST", der));
        Ok(PkiBody { request, label: self.label, accounts: self.accounts })
    }

    /// Looks at what the server sends (PEM): a device with a certificate that is not its own would
    /// sign what nobody can verify.
    pub(crate) fn check(
        &self,
        [own, issuer, root]: [&str; 3],
        now: UnixTime,
    ) -> Result<(), KeyError> {
        let (own, issuer, root) = (certificate(own)?, certificate(issuer)?, certificate(root)?);
        let mut trust = TrustStore::new(self.provider.clone());
        trust.trust(&root, &issuer, Role::SecurityDevice, now).map_err(KeyError::Pki)?;
        let leaf = trust.verify(&own, Role::SecurityDevice, now, None).map_err(KeyError::Pki)?;
        let certified = certified_point(self.provider, &own).map_err(KeyError::Pki)?;
        if leaf.identity() != self.identity || certified != self.element.public_key() {
            return Err(KeyError::Foreign);
        }
        Ok(())
    }
}

/// Has the server certify a device's key.
pub(super) fn certify(
    enrolment: &KeyEnrolment,
    api: &Api,
    provider: &Provider,
    identity: &Identity,
    element: &dyn SecureElement,
    now: UnixTime,
    rng: &mut dyn CryptoRng,
) -> Result<PkiAnswer, KeyError> {
    let KeyEnrolment { label, accounts, .. } = enrolment;
    let asks = ToCertify { provider, identity, element, label, accounts };
    let answer: PkiAnswer = api.post(PATH, &asks.body(rng)?)?;
    asks.check([&answer.certificate, &answer.device_issuer, &answer.chain.root], now)?;
    Ok(answer)
}

impl KeyDir {
    /// Makes (or finds) the device in `path` and has the server enrol it, over a client with an
    /// operator's token. `provider` is of the [`device_suite`]. Blocking.
    ///
    /// A device that signs finds the same key when it is repeated, and gets the same certificate. A
    /// device for dynamic passwords whose answer was lost has to be revoked first.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn enroll(
        path: &Path,
        enrolment: &KeyEnrolment,
        api: &Api,
        provider: &Provider,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, KeyError> {
        sealed::check_pin(&enrolment.pin)?;
        let identity = Identity::new(Role::SecurityDevice, &enrolment.serial);
        let identity = identity.map_err(KeyError::Serial)?;
        let mut dir = Self::open_or_make(path, enrolment, provider)?;
        let server_id = match enrolment.method {
            SignWith::Pki => dir.enroll_pki(enrolment, api, provider, &identity, now, rng)?,
            SignWith::Ocra => dir.enroll_ocra(enrolment, api, now, rng)?,
        };
        dir.settings.server_id = server_id;
        dir.write_settings()?; // last: it says "done"
        Ok(dir)
    }

    pub(super) fn open_or_make(
        path: &Path,
        enrolment: &KeyEnrolment,
        provider: &Provider,
    ) -> Result<Self, KeyError> {
        let wanted = KeySettings {
            serial: enrolment.serial.clone(),
            method: enrolment.method,
            suite: provider.suite,
            server_id: String::new(),
        };
        let files = Files::new(path);
        // Without the marker, what was cut off before it is begun again.
        if files.has(MARKER) || files.occupied(&[SETTINGS, MARKER]) {
            let dir = Self::open(path)?;
            let found = &dir.settings;
            if (&found.serial, found.method, found.suite)
                == (&wanted.serial, wanted.method, wanted.suite)
            {
                return Ok(dir);
            }
            let (serial, method) = (&found.serial, found.method.name());
            let detail = format!("{serial}, {method}, {}", found.suite);
            return Err(KeyError::Other { dir: path.to_owned(), detail });
        }
        files.make_dir()?;
        let lock = files.lock()?;
        let dir = Self { files, settings: wanted, puk: None, _lock: lock };
        dir.write_settings()?;
        dir.files.write(MARKER, FORMAT.as_bytes())?;
        Ok(dir)
    }

    pub(super) fn write_settings(&self) -> Result<(), KeyError> {
        let text = toml::to_string(&self.settings).expect("short strings");
        self.files.write(SETTINGS, text.as_bytes())
    }

    /// Stores a new key, and keeps its PUK until it is told.
    pub(super) fn store_key(
        &mut self,
        key: &Secret,
        pin: &Secret,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), KeyError> {
        self.puk = Some(self.seals().store_new(key, pin, rng)?);
        Ok(())
    }

    fn enroll_pki(
        &mut self,
        enrolment: &KeyEnrolment,
        api: &Api,
        provider: &Provider,
        identity: &Identity,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<String, KeyError> {
        if !self.files.has(sealed::FILE) {
            let made = provider.signature.generate(rng);
            let made = made.map_err(|error| self.files.damaged(sealed::FILE, error.to_string()))?;
            self.store_key(&made.pkcs8, &enrolment.pin, rng)?;
        }
        let key = self.unlock(&enrolment.pin)?;
        let puk_left = self.seals().puk_tries_left()?;
        if self.puk.is_none() && !self.files.has(CERTIFICATE) && puk_left != Some(0) {
            // An enrolment that was cut off before the server's answer has told nobody its PUK.
            // Once there is a certificate its holder may have it; and no enrolment gives a PUK its
            // tries back that were used up.
            self.puk = Some(self.seals().seal_under_new_puk(&key, rng)?);
        }
        let element = self.element(&key)?;
        let answer = certify(enrolment, api, provider, identity, &*element, now, rng)?;
        self.pin_server(&answer.chain, &answer.server_id, now)?;
        self.files.write("device-issuer.pem", answer.device_issuer.as_bytes())?;
        self.files.write(CERTIFICATE, answer.certificate.as_bytes())?;
        Ok(answer.server_id)
    }

    fn enroll_ocra(
        &mut self,
        enrolment: &KeyEnrolment,
        api: &Api,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<String, KeyError> {
        let KeyEnrolment { serial, label, accounts, pin, .. } = enrolment;
        if self.files.has(sealed::FILE) && !self.settings.server_id.is_empty() {
            // Whoever replaces the key of an enrolled device has its PIN.
            self.unlock(pin)?;
        }
        let answer: OcraAnswer =
            api.post("/v1/devices/ocra", &OcraBody { serial, label, accounts })?;
        let mut key = vec![0; PAYMENT_KEY_LEN];
        let hex = Zeroizing::new(answer.key);
        let hex = hex.as_bytes();
        let fits = HEXLOWER.decode_len(hex.len()) == Ok(PAYMENT_KEY_LEN)
            && HEXLOWER.decode_mut(hex, &mut key).is_ok();
        let key = Secret::new(key);
        if !fits || answer.suite != PAYMENT_SUITE {
            return Err(KeyError::Foreign);
        }
        if let (Some(root), Some(server_issuer)) = (answer.root, answer.server_issuer) {
            let chain = ServerChain {
                root,
                server_issuer,
                server_certificate: answer.server_certificate,
                server_encryption_certificate: None,
            };
            self.pin_server(&chain, &answer.server_id, now)?;
        }
        // Not enrolled until both seals are of the new key.
        self.settings.server_id.clear();
        self.write_settings()?;
        self.store_key(&key, pin, rng)?;
        Ok(answer.server_id)
    }
}
