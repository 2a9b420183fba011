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
use super::sealed::{self, Under};
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

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PkiBody<'a> {
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

/// Has the server certify a device's key, and looks at what it sends: a device with a certificate
/// that is not its own would sign what nobody can verify.
pub(super) fn certify(
    enrolment: &KeyEnrolment,
    api: &Api,
    provider: &Provider,
    identity: &Identity,
    element: &dyn SecureElement,
    now: UnixTime,
    rng: &mut dyn CryptoRng,
) -> Result<PkiAnswer, KeyError> {
    let der = request(provider, identity, element, rng).map_err(KeyError::Pki)?;
    let body = PkiBody {
        request: pem::encode(&Pem::new("CERTIFICATE REQUEST", der)),
        label: &enrolment.label,
        accounts: &enrolment.accounts,
    };
    let answer: PkiAnswer = api.post(PATH, &body)?;
    let own = certificate(&answer.certificate)?;
    let (issuer, root) = (certificate(&answer.device_issuer)?, answer.chain.root()?);
    let mut trust = TrustStore::new(provider.clone());
    trust.trust(&root, &issuer, Role::SecurityDevice, now).map_err(KeyError::Pki)?;
    let leaf = trust.verify(&own, Role::SecurityDevice, now, None).map_err(KeyError::Pki)?;
    let certified = certified_point(provider, &own).map_err(KeyError::Pki)?;
    if leaf.identity() != identity || certified != element.public_key() {
        return Err(KeyError::Foreign);
    }
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

    /// Stores a new key: under a PUK of its own first, so that a device with a key has a PUK.
    pub(super) fn store_key(
        &mut self,
        key: &Secret,
        pin: &Secret,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), KeyError> {
        self.puk = Some(self.seal_under_new_puk(key, rng)?);
        self.seal(Under::Pin, key, pin, rng)
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
        if self.puk.is_none() && self.settings.server_id.is_empty() {
            // An enrolment that was cut off has told nobody its PUK.
            self.puk = Some(self.seal_under_new_puk(&key, rng)?);
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
            let chain = ServerChain::new(root, server_issuer, answer.server_certificate);
            self.pin_server(&chain, &answer.server_id, now)?;
        }
        // Not enrolled until both seals are of the new key.
        self.settings.server_id.clear();
        self.write_settings()?;
        self.store_key(&key, pin, rng)?;
        Ok(answer.server_id)
    }
}
