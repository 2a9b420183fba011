//! A key at rest, sealed twice: under the PIN, and under the PUK that unblocks it. Argon2id over
//! either gives the key under which AES-256-GCM seals. Wrong ones are counted in a file for each,
//! which is written before one is tried.

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

/// The key, sealed under the PIN.
pub(super) const FILE: &str = "key.sealed";
/// Argon2id's cost for new keys, of a PIN: 64 MiB, 3 passes (RFC 9106 §4, second choice).
const PIN_COST: Cost = Cost { memory_kib: 64 * 1024, passes: 3 };
/// Of a PUK, which is used once in a device's life: 256 MiB, 4 passes.
const PUK_COST: Cost = Cost { memory_kib: 256 * 1024, passes: 4 };
/// What a stored cost may be at most: a tampered file must not exhaust the machine.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
const PASSES_MAX: u32 = 16;
const SALT_LEN: usize = 16;
const KEY_LEN: usize = 32;

/// What one try costs.
#[derive(Debug, Clone, Copy)]
struct Cost {
    memory_kib: u32,
    passes: u32,
}

/// A PIN has [`PIN_MIN`] to [`PIN_MAX`] decimal digits.
pub(super) fn check_pin(pin: &Secret) -> Result<(), KeyError> {
    Under::Pin.check(pin)
}

/// What a key is sealed under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Under {
    /// What its holder types each time.
    Pin,
    /// What its holder keeps for the day when the PIN is blocked.
    Puk,
}

impl Under {
    /// The sealed key.
    pub(super) const fn file(self) -> &'static str {
        match self {
            Self::Pin => FILE,
            Self::Puk => "puk.sealed",
        }
    }

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

    const fn cost(self) -> Cost {
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

/// A PUK for a new key. Of 2^64 values each PUK has as many, but for one part in 10^11.
pub(super) fn random_puk(rng: &mut dyn CryptoRng) -> Secret {
    let puk = rng.next_u64() % 10_u64.pow(8);
    Secret::new(format!("{puk:0PUK_DIGITS$}").into_bytes())
}

/// How many wrong ones may still be tried.
pub(super) fn tries_left(under: Under, files: &Files) -> Result<u32, KeyError> {
    let file = under.tries_file();
    let left = files.text(file)?.trim().parse().ok().filter(|left| *left <= under.tries());
    left.ok_or_else(|| files.damaged(file, "not a number of tries".to_owned()))
}

/// The file of a sealed key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sealed {
    memory_kib: u32,
    passes: u32,
    /// Hexadecimal, as what follows.
    salt: String,
    /// `nonce ‖ ciphertext ‖ tag`.
    sealed: String,
}

impl Sealed {
    /// Seals a key under a new PIN or PUK. `bound` is whose key it is.
    pub(super) fn seal(
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

    pub(super) fn load(under: Under, files: &Files) -> Result<Self, KeyError> {
        let file = under.file();
        if under == Under::Puk && !files.has(file) {
            return Err(KeyError::PukAbsent);
        }
        toml::from_str(&files.text(file)?).map_err(|error| files.damaged(file, error.to_string()))
    }

    /// Stores the key, with all tries.
    pub(super) fn store(&self, under: Under, files: &Files) -> Result<(), KeyError> {
        let text = toml::to_string(self).expect("numbers and short strings");
        // The tries first: a key whose tries were lost would be blocked.
        write_tries(under, files, under.tries())?;
        files.write(under.file(), text.as_bytes())
    }

    /// The key. The try is taken off before the PIN is looked at, so that no crash gives it back.
    pub(super) fn open(
        &self,
        under: Under,
        files: &Files,
        bound: &str,
        secret: &Secret,
    ) -> Result<Secret, KeyError> {
        under.check(secret)?;
        let left = tries_left(under, files)?.checked_sub(1).ok_or(under.wrong(0))?;
        let file = under.file();
        let sealed = HEXLOWER.decode(self.sealed.as_bytes());
        let sealed = sealed.map_err(|error| files.damaged(file, error.to_string()))?;
        let damaged = || files.damaged(file, "the seal's parameters are damaged".to_owned());
        let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(damaged)?;
        write_tries(under, files, left)?;
        let sealer = self.sealer(secret).ok_or_else(damaged)?;
        let mut body = Zeroizing::new(body.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        match sealer.open_in_place(nonce, aad(under, bound), &mut body) {
            Ok(key) => {
                let key = Secret::copied_from(key);
                write_tries(under, files, under.tries())?;
                Ok(key)
            }
            Err(_) => Err(under.wrong(left)),
        }
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

fn write_tries(under: Under, files: &Files, left: u32) -> Result<(), KeyError> {
    files.write(under.tries_file(), format!("{left}\n").as_bytes())
}
