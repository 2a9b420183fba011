//! A secret at rest, sealed twice: under the PIN, and under the PUK that unblocks it. Argon2id over
//! either gives the key under which AES-256-GCM seals. Wrong ones are counted in a file for each,
//! which is written before one is tried. [`Seals`] are both of one directory: of a
//! [`KeyDir`](super::KeyDir), or of a signing card.

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use countersign_crypto::{CryptoRng, Secret};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::KeyError;
use super::files::Files;

/// Wrong PINs in a row after which the device is blocked.
pub const PIN_TRIES: u32 = 3;
/// Fewest digits of a PIN (ISO 9564-1, 8.1).
pub const PIN_MIN: usize = 4;
/// Most digits of a PIN (ISO 9564-1, 8.1).
pub const PIN_MAX: usize = 12;

/// Digits of a PUK.
pub const PUK_DIGITS: usize = 8;
/// Wrong PUKs in a row after which no PUK unblocks the device any more.
pub const PUK_TRIES: u32 = 10;

/// A security device's key, sealed under the PIN.
pub(super) const FILE: &str = "key.sealed";
/// Argon2id's cost for new keys, of a PIN: 64 MiB, 3 passes (RFC 9106 §4, second choice).
const PIN_COST: Cost = Cost { memory_kib: 64 * 1024, passes: 3 };
/// Of a PUK, which is used once in a device's life: 256 MiB, 4 passes.
const PUK_COST: Cost = Cost { memory_kib: 256 * 1024, passes: 4 };
/// What a stored cost may be at most: a tampered file must not exhaust the machine.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
const PASSES_MAX: u32 = 16;
const DAMAGED: &str = "the seal's parameters are damaged";
const SALT_LEN: usize = 16;
const KEY_LEN: usize = 32;

/// What one try costs.
#[derive(Debug, Clone, Copy)]
struct Cost {
    memory_kib: u32,
    passes: u32,
}

/// A PIN has [`PIN_MIN`] to [`PIN_MAX`] decimal digits.
pub(crate) fn check_pin(pin: &Secret) -> Result<(), KeyError> {
    Under::Pin.check(pin)
}

/// What a secret is sealed under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Under {
    /// What its holder types each time.
    Pin,
    /// What its holder keeps for the day when the PIN is blocked.
    Puk,
}

impl Under {
    /// Tries that are left.
    const fn tries_file(self) -> &'static str {
        match self {
            Self::Pin => "pin-tries",
            Self::Puk => "puk-tries",
        }
    }

    /// Tries that there are.
    const fn tries(self) -> u32 {
        match self {
            Self::Pin => PIN_TRIES,
            Self::Puk => PUK_TRIES,
        }
    }

    fn cost(self) -> Cost {
        #[cfg(test)]
        if cheap::is_on() {
            return Cost { memory_kib: 64, passes: 1 };
        }
        match self {
            Self::Pin => PIN_COST,
            Self::Puk => PUK_COST,
        }
    }

    /// One seal cannot be put in the other's place.
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Pin => b"countersign security device key v1\0",
            Self::Puk => b"countersign security device key under its puk v1\0",
        }
    }

    fn check(self, secret: &Secret) -> Result<(), KeyError> {
        let digits = secret.expose().iter().all(u8::is_ascii_digit);
        match self {
            Self::Pin if digits && (PIN_MIN..=PIN_MAX).contains(&secret.len()) => Ok(()),
            Self::Puk if digits && secret.len() == PUK_DIGITS => Ok(()),
            Self::Pin => Err(KeyError::PinForm),
            Self::Puk => Err(KeyError::PukForm),
        }
    }

    const fn wrong(self, left: u32) -> KeyError {
        match (self, left) {
            (Self::Pin, 0) => KeyError::PinBlocked,
            (Self::Pin, left) => KeyError::PinWrong { left },
            (Self::Puk, 0) => KeyError::PukBlocked,
            (Self::Puk, left) => KeyError::PukWrong { left },
        }
    }
}

/// A PUK for a new secret. Of 2^64 values each PUK has as many, but for one part in 10^11.
fn random_puk(rng: &mut dyn CryptoRng) -> Secret {
    let puk = rng.next_u64() % 10_u64.pow(8);
    Secret::new(format!("{puk:0PUK_DIGITS$}").into_bytes())
}

/// The same secret under a PIN and under a PUK, in files of one directory.
#[derive(Debug)]
pub(crate) struct Seals<'a> {
    /// The directory.
    pub(crate) files: &'a Files,
    /// Whose secret it is, so that files of two devices cannot be exchanged.
    pub(crate) bound: String,
    /// The file of what is sealed under the PIN.
    pub(crate) pin_file: &'static str,
}

impl Seals<'_> {
    /// PINs that may still be tried.
    pub(crate) fn tries_left(&self) -> Result<u32, KeyError> {
        self.left(Under::Pin)
    }

    /// PUKs that may still be tried; `None` if there is no PUK.
    pub(crate) fn puk_tries_left(&self) -> Result<Option<u32>, KeyError> {
        let has = self.files.has(self.file(Under::Puk));
        has.then(|| self.left(Under::Puk)).transpose()
    }

    /// The secret, for its PIN. Each try is counted before it is made.
    pub(crate) fn unlock(&self, pin: &Secret) -> Result<Secret, KeyError> {
        self.open(Under::Pin, pin)
    }

    /// Changes the PIN.
    pub(crate) fn change_pin(
        &self,
        old: &Secret,
        new: &Secret,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), KeyError> {
        check_pin(new)?;
        let key = self.unlock(old)?;
        self.seal(Under::Pin, &key, new, rng)
    }

    /// Sets a new PIN for the PUK, and gives both all their tries back.
    pub(crate) fn unblock(
        &self,
        puk: &Secret,
        new: &Secret,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), KeyError> {
        check_pin(new)?;
        let key = self.open(Under::Puk, puk)?;
        // A crash in here leaves the old PIN with all its tries, or the new one.
        self.seal(Under::Pin, &key, new, rng)
    }

    /// Makes a new PUK, for the PIN; not where its tries are used up.
    pub(crate) fn renew_puk(
        &self,
        pin: &Secret,
        rng: &mut dyn CryptoRng,
    ) -> Result<Secret, KeyError> {
        if self.puk_tries_left()? == Some(0) {
            return Err(KeyError::PukBlocked);
        }
        let key = self.unlock(pin)?;
        self.seal_under_new_puk(&key, rng)
    }

    /// Stores a new secret and gives its PUK. Under the PUK first, so that a device with a secret
    /// has a PUK.
    pub(crate) fn store_new(
        &self,
        key: &Secret,
        pin: &Secret,
        rng: &mut dyn CryptoRng,
    ) -> Result<Secret, KeyError> {
        let puk = self.seal_under_new_puk(key, rng)?;
        self.seal(Under::Pin, key, pin, rng)?;
        Ok(puk)
    }

    /// Seals a secret that was unlocked under a PUK of its own, in the place of the one before.
    pub(crate) fn seal_under_new_puk(
        &self,
        key: &Secret,
        rng: &mut dyn CryptoRng,
    ) -> Result<Secret, KeyError> {
        let puk = random_puk(rng);
        self.seal(Under::Puk, key, &puk, rng)?;
        Ok(puk)
    }

    const fn file(&self, under: Under) -> &'static str {
        match under {
            Under::Pin => self.pin_file,
            Under::Puk => "puk.sealed",
        }
    }

    fn left(&self, under: Under) -> Result<u32, KeyError> {
        let file = under.tries_file();
        let left = self.files.text(file)?.trim().parse().ok();
        left.filter(|left| *left <= under.tries())
            .ok_or_else(|| self.files.damaged(file, "not a number of tries".to_owned()))
    }

    fn write_tries(&self, under: Under, left: u32) -> Result<(), KeyError> {
        self.files.write(under.tries_file(), format!("{left}\n").as_bytes())
    }

    /// Stores a secret under a new PIN or PUK, with all tries.
    fn seal(
        &self,
        under: Under,
        key: &Secret,
        secret: &Secret,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), KeyError> {
        let sealed = Sealed::seal(under, &self.bound, key, secret, rng)?;
        let text = toml::to_string(&sealed).expect("numbers and short strings");
        // The tries first: a secret whose tries were lost would be blocked.
        self.write_tries(under, under.tries())?;
        self.files.write(self.file(under), text.as_bytes())
    }

    /// The try is taken off before the PIN or PUK is looked at, so that no crash gives it back.
    fn open(&self, under: Under, secret: &Secret) -> Result<Secret, KeyError> {
        let file = self.file(under);
        if under == Under::Puk && !self.files.has(file) {
            return Err(KeyError::PukAbsent);
        }
        let damaged = |detail: String| self.files.damaged(file, detail);
        let sealed: Sealed =
            toml::from_str(&self.files.text(file)?).map_err(|error| damaged(error.to_string()))?;
        under.check(secret)?;
        let left = self.left(under)?.checked_sub(1).ok_or(under.wrong(0))?;
        let body = sealed.body().map_err(&damaged)?;
        self.write_tries(under, left)?;
        let opened = sealed.open(under, &self.bound, body, secret).map_err(damaged)?;
        let key = opened.ok_or(under.wrong(left))?;
        self.write_tries(under, under.tries())?;
        Ok(key)
    }
}

/// The file of a sealed secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    memory_kib: u32,
    passes: u32,
    /// Hexadecimal, as what follows.
    salt: String,
    /// `nonce ‖ ciphertext ‖ tag`.
    sealed: String,
}

impl Sealed {
    /// Seals a secret under a new PIN or PUK. `bound` is whose secret it is.
    fn seal(
        under: Under,
        bound: &str,
        key: &Secret,
        secret: &Secret,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, KeyError> {
        under.check(secret)?;
        let (mut salt, mut nonce) = ([0; SALT_LEN], [0; NONCE_LEN]);
        rng.fill_bytes(&mut salt);
        rng.fill_bytes(&mut nonce);
        let Cost { memory_kib, passes } = under.cost();
        let mut new =
            Self { memory_kib, passes, salt: HEXLOWER.encode(&salt), sealed: String::new() };
        let failed = || KeyError::Keypad("the PIN could not be used".to_owned());
        let sealer = new.sealer(secret).ok_or_else(failed)?;
        let mut body = Vec::with_capacity(key.len() + AES_256_GCM.tag_len());
        body.extend_from_slice(key.expose());
        let (nonce_of, aad) = (Nonce::assume_unique_for_key(nonce), aad(under, bound));
        sealer.seal_in_place_append_tag(nonce_of, aad, &mut body).map_err(|_| failed())?;
        new.sealed = HEXLOWER.encode(&[&nonce[..], &body].concat());
        Ok(new)
    }

    /// The nonce, and the ciphertext with its tag.
    fn body(&self) -> Result<([u8; NONCE_LEN], Vec<u8>), String> {
        let sealed = HEXLOWER.decode(self.sealed.as_bytes()).map_err(|error| error.to_string())?;
        let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(DAMAGED)?;
        Ok((*nonce, body.to_vec()))
    }

    /// The secret; `None` for a wrong PIN or PUK.
    fn open(
        &self,
        under: Under,
        bound: &str,
        (nonce, body): ([u8; NONCE_LEN], Vec<u8>),
        secret: &Secret,
    ) -> Result<Option<Secret>, String> {
        let sealer = self.sealer(secret).ok_or(DAMAGED)?;
        let mut body = Zeroizing::new(body);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = sealer.open_in_place(nonce, aad(under, bound), &mut body);
        Ok(opened.ok().map(|key| Secret::copied_from(key)))
    }

    /// The sealing key of a PIN or PUK; `None` if the parameters are out of bounds.
    fn sealer(&self, secret: &Secret) -> Option<LessSafeKey> {
        let salt = HEXLOWER.decode(self.salt.as_bytes()).ok()?;
        let bounded = self.memory_kib <= MEMORY_KIB_MAX && self.passes <= PASSES_MAX;
        if !bounded || salt.len() != SALT_LEN {
            return None;
        }
        let params = Params::new(self.memory_kib, self.passes, 1, Some(KEY_LEN)).ok()?;
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let key = Secret::try_filled(KEY_LEN, |out| {
            argon.hash_password_into(secret.expose(), &salt, out).map_err(|_| ())
        });
        Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.ok()?.expose()).ok()?))
    }
}

fn aad(under: Under, bound: &str) -> Aad<Vec<u8>> {
    Aad::from([under.label(), bound.as_bytes()].concat())
}

/// Of tests that seal a hundred times, and not to see how that is done.
#[cfg(test)]
pub(crate) mod cheap {
    use std::cell::Cell;

    thread_local!(static ON: Cell<bool> = const { Cell::new(false) });

    /// What this thread seals from now on costs next to nothing.
    pub(crate) fn on() {
        ON.set(true);
    }

    pub(super) fn is_on() -> bool {
        ON.get()
    }
}
