//! Enrolment of a signing card by an operator's program: a certificate for the key made here, and
//! a key that the server draws.

use std::path::Path;

use countersign_crypto::{CryptoRng, Provider, Secret, UnixTime};
use countersign_pki::{Identity, Role};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{
    CERTIFICATE, CONSENT, CardDir, CardSettings, FORMAT, KEY, MARKER, SETTINGS, SHARED, server,
    shared_key,
};
use crate::key::enrolment::ToCertify;
use crate::key::files::Files;
use crate::key::sealed;
use crate::{Api, KeyError};

const PATH: &str = "/v1/devices/joint";
const DEVICE_ISSUER: &str = "device-issuer.pem";
/// Length in bytes of what is sealed under the PIN.
const CONSENT_LEN: usize = 32;

/// What a signing card enrols with.
#[derive(Debug)]
pub struct CardEnrolment {
    /// Its serial number.
    pub serial: String,
    /// For people: 1 to 64 characters.
    pub label: String,
    /// The accounts that it pays from: ids or numbers. Terminals are told the first one.
    pub accounts: Vec<String>,
    /// Its PIN; of a card that has a key already, the PIN that it has.
    pub pin: Secret,
}

/// What the server sends. Not flattened: that would copy the key.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    device: Device,
    certificate: String,
    device_issuer: String,
    server_issuer: String,
    root: String,
    server_encryption_certificate: String,
    server_id: String,
    shared_key: String,
}

#[derive(Deserialize)]
struct Device {
    accounts: Vec<Account>,
}

#[derive(Deserialize)]
struct Account {
    id: String,
    identification: String,
}

impl Device {
    /// The number of the account that was named first, by its id or its number. The server gives
    /// them in an order of its own.
    fn number_of(self, named: &[String]) -> Option<String> {
        let first = named.first()?;
        let mut accounts = self.accounts.into_iter();
        let found = accounts.find(|one| &one.id == first || &one.identification == first);
        found.map(|account| account.identification)
    }
}

impl CardDir {
    /// Makes (or finds) the card in `path` and has the server enrol it, over a client with an
    /// operator's token. `provider` is of the [`device_suite`](crate::device_suite). Blocking.
    ///
    /// Repeated, it finds the same key pair and gets the same certificate and a new shared key.
    /// Of a card that is enrolled already, a break-off in here leaves one that has to be enrolled
    /// again, and works as before then, under the PIN and the PUK that it had.
    ///
    /// A PUK is made with a new card. If [`Self::take_puk`] has none then, its holder has it, or an
    /// enrolment was cut off at its very end, before it was told: [`Self::renew_puk`] makes one.
    ///
    /// # Errors
    /// [`KeyError::PinForm`]; [`KeyError::Serial`]; [`KeyError::Other`] for the directory of
    /// another card; those of the PIN; [`KeyError::Api`]; [`KeyError::Pki`] or
    /// [`KeyError::Foreign`] for an answer that is not for this card; [`KeyError::Damaged`],
    /// [`KeyError::Io`].
    pub fn enroll(
        path: &Path,
        enrolment: &CardEnrolment,
        api: &Api,
        provider: &Provider,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, KeyError> {
        sealed::check_pin(&enrolment.pin)?;
        let identity = Identity::new(Role::SecurityDevice, &enrolment.serial);
        let identity = identity.map_err(KeyError::Serial)?;
        let mut dir = Self::open_or_make(path, &enrolment.serial, provider)?;
        dir.make_keys(&enrolment.pin, provider, rng)?;
        dir.certify(enrolment, api, provider, &identity, now, rng)?;
        Ok(dir)
    }

    fn open_or_make(path: &Path, serial: &str, provider: &Provider) -> Result<Self, KeyError> {
        let files = Files::new(path);
        // Without the marker, what was cut off before it is begun again.
        if files.has(MARKER) || files.occupied(&[SETTINGS, MARKER]) {
            let dir = Self::open(path)?;
            let found = &dir.settings;
            if (found.serial.as_str(), found.suite) == (serial, provider.suite) {
                return Ok(dir);
            }
            let detail = format!("{}, joint, {}", found.serial, found.suite);
            return Err(KeyError::Other { dir: path.to_owned(), detail });
        }
        files.make_dir()?;
        let lock = files.lock()?;
        let settings = CardSettings {
            serial: serial.to_owned(),
            suite: provider.suite,
            server_id: String::new(),
            account: String::new(),
        };
        let dir = Self { files, settings, puk: None, _lock: lock };
        dir.write_settings()?;
        dir.files.write(MARKER, FORMAT.as_bytes())?;
        Ok(dir)
    }

    /// Makes what is not there yet; of what is there, the PIN has to be right.
    fn make_keys(
        &mut self,
        pin: &Secret,
        provider: &Provider,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), KeyError> {
        if self.files.has(CONSENT) {
            let consent = self.seals().unlock(pin)?;
            let puk_left = self.seals().puk_tries_left()?;
            if !self.files.has(CERTIFICATE) && puk_left != Some(0) {
                // An enrolment that was cut off before the server's answer has told nobody its
                // PUK. Once there is a certificate its holder may have it; and no enrolment gives
                // a PUK its tries back that were used up.
                self.puk = Some(self.seals().seal_under_new_puk(&consent, rng)?);
            }
        } else {
            let mut consent = Zeroizing::new([0; CONSENT_LEN]);
            rng.fill_bytes(&mut *consent);
            let consent = Secret::copied_from(&*consent);
            self.puk = Some(self.seals().store_new(&consent, pin, rng)?);
        }
        if !self.files.has(KEY) {
            let made = provider.signature.generate(rng);
            let made = made.map_err(|error| self.files.damaged(KEY, error.to_string()))?;
            self.files.write(KEY, made.pkcs8.expose())?;
        }
        Ok(())
    }

    fn certify(
        &mut self,
        enrolment: &CardEnrolment,
        api: &Api,
        provider: &Provider,
        identity: &Identity,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), KeyError> {
        let element = self.element()?;
        let CardEnrolment { label, accounts, .. } = enrolment;
        let asks = ToCertify { provider, identity, element: &*element, label, accounts };
        let mut answer: Answer = api.post(PATH, &asks.body(rng)?)?;
        let hex = Zeroizing::new(std::mem::take(&mut answer.shared_key));
        let Answer { certificate, device_issuer, server_issuer, root, server_id, .. } = &answer;
        shared_key(&hex).ok_or(KeyError::Foreign)?;
        asks.check([certificate, device_issuer, root], now)?;
        // Not enrolled until all is of this answer: the key that was shared before is void.
        self.settings.server_id.clear();
        self.write_settings()?;
        let chain = [&**root, server_issuer, &answer.server_encryption_certificate];
        server::pin(&self.files, provider.clone(), chain, server_id, now)?;
        self.files.write(DEVICE_ISSUER, device_issuer.as_bytes())?;
        self.files.write(CERTIFICATE, certificate.as_bytes())?;
        self.files.write(SHARED, hex.as_bytes())?;
        self.settings.account = answer.device.number_of(accounts).unwrap_or_default();
        self.settings.server_id = answer.server_id;
        self.write_settings() // last: it says "done"
    }
}
