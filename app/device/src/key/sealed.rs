//! A key at rest: Argon2id over the PIN gives the key under which AES-256-GCM seals it. Wrong PINs
//! are counted in a file of its own, which is written before a PIN is tried.

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

/// The sealed key.
pub(super) const FILE: &str = "key.sealed";
/// Tries that are left.
const TRIES: &str = "pin-tries";
/// Argon2id's cost for new keys: 64 MiB, 3 passes (RFC 9106 §4, second choice).
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
/// What a stored cost may be at most: a tampered file must not exhaust the machine.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
const PASSES_MAX: u32 = 16;
const SALT_LEN: usize = 16;
const KEY_LEN: usize = 32;
const LABEL: &[u8] = b"countersign security device key v1\0";

/// A PIN has [`PIN_MIN`] to [`PIN_MAX`] decimal digits.
pub(super) fn check_pin(pin: &Secret) -> Result<(), KeyError> {
    let digits = pin.expose().iter().all(u8::is_ascii_digit);
    if digits && (PIN_MIN..=PIN_MAX).contains(&pin.len()) { Ok(()) } else { Err(KeyError::PinForm) }
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
    /// Seals a key under a new PIN. `bound` is whose key it is.
    pub(super) fn seal(
        bound: &str,
        key: &Secret,
        pin: &Secret,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, KeyError> {
        check_pin(pin)?;
        let (mut salt, mut nonce) = ([0; SALT_LEN], [0; NONCE_LEN]);
        rng.fill_bytes(&mut salt);
        rng.fill_bytes(&mut nonce);
        let mut new = Self {
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            salt: HEXLOWER.encode(&salt),
            sealed: String::new(),
        };
        let failed = || KeyError::Keypad("the PIN could not be used".to_owned());
        let sealer = new.sealer(pin).ok_or_else(failed)?;
        let mut body = Vec::with_capacity(key.len() + AES_256_GCM.tag_len());
        body.extend_from_slice(key.expose());
        let (nonce_of, aad) = (Nonce::assume_unique_for_key(nonce), aad(bound));
        sealer.seal_in_place_append_tag(nonce_of, aad, &mut body).map_err(|_| failed())?;
        new.sealed = HEXLOWER.encode(&[&nonce[..], &body].concat());
        Ok(new)
    }

    pub(super) fn load(files: &Files) -> Result<Self, KeyError> {
        let text = files.text(FILE)?;
        toml::from_str(&text).map_err(|error| files.damaged(FILE, error.to_string()))
    }

    /// Stores the key, with all tries.
    pub(super) fn store(&self, files: &Files) -> Result<(), KeyError> {
        let text = toml::to_string(self).expect("numbers and short strings");
        // The tries first: a key whose tries were lost would be blocked.
        write_tries(files, PIN_TRIES)?;
        files.write(FILE, text.as_bytes())
    }

    #[expect(clippy::unused_self, reason = "the tries are this key's")]
    pub(super) fn tries_left(&self, files: &Files) -> Result<u32, KeyError> {
        let text = files.text(TRIES)?;
        let left = text.trim().parse().ok().filter(|left| *left <= PIN_TRIES);
        left.ok_or_else(|| files.damaged(TRIES, "not a number of tries".to_owned()))
    }

    /// The key. The try is taken off before the PIN is looked at, so that no crash gives it back.
    pub(super) fn open(
        &self,
        files: &Files,
        bound: &str,
        pin: &Secret,
    ) -> Result<Secret, KeyError> {
        check_pin(pin)?;
        let left = self.tries_left(files)?;
        let Some(left) = left.checked_sub(1) else { return Err(KeyError::PinBlocked) };
        let sealed = HEXLOWER.decode(self.sealed.as_bytes());
        let sealed = sealed.map_err(|error| files.damaged(FILE, error.to_string()))?;
        let damaged = || files.damaged(FILE, "the seal's parameters are damaged".to_owned());
        let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(damaged)?;
        write_tries(files, left)?;
        let sealer = self.sealer(pin).ok_or_else(damaged)?;
        let mut body = Zeroizing::new(body.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        match sealer.open_in_place(nonce, aad(bound), &mut body) {
            Ok(key) => {
                let key = Secret::copied_from(key);
                write_tries(files, PIN_TRIES)?;
                Ok(key)
            }
            Err(_) if left == 0 => Err(KeyError::PinBlocked),
            Err(_) => Err(KeyError::PinWrong { left }),
        }
    }

    /// The sealing key of a PIN; `None` if the parameters are out of bounds.
    fn sealer(&self, pin: &Secret) -> Option<LessSafeKey> {
        let salt = HEXLOWER.decode(self.salt.as_bytes()).ok()?;
        let bounded = self.memory_kib <= MEMORY_KIB_MAX && self.passes <= PASSES_MAX;
        if !bounded || salt.len() != SALT_LEN {
            return None;
        }
        let params = Params::new(self.memory_kib, self.passes, 1, Some(KEY_LEN)).ok()?;
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let key = Secret::try_filled(KEY_LEN, |out| {
            argon.hash_password_into(pin.expose(), &salt, out).map_err(|_| ())
        });
        Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.ok()?.expose()).ok()?))
    }
}

fn aad(bound: &str) -> Aad<Vec<u8>> {
    Aad::from([LABEL, bound.as_bytes()].concat())
}

fn write_tries(files: &Files, left: u32) -> Result<(), KeyError> {
    files.write(TRIES, format!("{left}\n").as_bytes())
}
