//! The keys that are injected (E3, E4): made here or taken in under a key-encrypting key that came
//! as components, handed to one injection each, exported, retired.
//!
//! In the database a symmetric key is a TR-31 block of version D under the vault's storage key. Its
//! header, which is under the block's MAC, has the key's policy and the id of the row it belongs
//! to: blocks that were exchanged or altered in the database do not open.

mod components;
mod exchange;
mod hmac;
mod issue;
mod keks;
mod lifecycle;

use std::sync::Arc;

use countersign_crypto::{CryptoRng, Secret};
use countersign_store::StoreError;
use tr31::{
    Ciphers, CmacKey, Header, Kbpk, Kcv, KcvMethod, Leniency, OptionalBlock, OptionalId, Padding,
    Tr31Error, Version, policy,
};

use crate::{Service, ServiceError};

pub use exchange::{ExportKey, Exported, ImportKey};
pub use issue::{KeyToSend, Ksn};
pub use keks::{KekRecord, NewKek};
pub use lifecycle::{KeyToMake, NewKsn};

/// Longest name of a key, in characters.
const NAME_MAX: usize = 64;
/// How often a value that chance made unfit is drawn anew.
const DRAWS_MAX: usize = 8;

impl From<Tr31Error> for ServiceError {
    fn from(error: Tr31Error) -> Self {
        match error {
            Tr31Error::Cipher(_) => Self::Internal { detail: error.to_string() },
            _ => Self::refused(error.check(), error.to_string()),
        }
    }
}

/// A name has 1 to 64 printable characters.
fn check_name(name: &str) -> Result<(), ServiceError> {
    let fits = !name.is_empty() && name.chars().count() <= NAME_MAX;
    if fits && !name.chars().any(char::is_control) && name.trim() == name {
        return Ok(());
    }
    let detail = format!("a name has 1 to {NAME_MAX} printable characters, no space at its ends");
    Err(ServiceError::refused("name-format", detail))
}

/// Which uniqueness rule the database named, in words.
fn refuse_taken(error: StoreError) -> ServiceError {
    let taken = |check, detail| ServiceError::refused(check, detail);
    match &error {
        StoreError::Conflict { constraint } => match constraint.as_str() {
            "keys_name_key" => taken("key-name-taken", "a key with this name exists"),
            "keks_name_key" => {
                taken("kek-name-taken", "a key-encrypting key with this name exists")
            }
            "keys_ksn_base_key" => {
                taken("ksn-base-taken", "another key gives out serial numbers of this base")
            }
            "kek_components_kek_id_operator_id_key" => {
                taken("component-operator", "this operator has entered another component")
            }
            "kek_components_kek_id_number_key" => {
                taken("component-taken", "this component was entered")
            }
            _ => error.into(),
        },
        _ => error.into(),
    }
}

/// A check value in hex: at least three bytes, whole or shortened.
fn parse_kcv(check: &'static str, algorithm: u8, hex: &str) -> Result<Kcv, ServiceError> {
    let method = if algorithm == b'A' { KcvMethod::Cmac } else { KcvMethod::Legacy };
    let refused = || {
        let longest = if algorithm == b'A' { "3 to 5 bytes (CMAC)" } else { "3 bytes" };
        ServiceError::refused(check, format!("a check value is {longest} in hex"))
    };
    if hex.len() < 6 {
        return Err(refused());
    }
    let bytes = data_encoding::HEXUPPER_PERMISSIVE.decode(hex.as_bytes()).map_err(|_| refused())?;
    Kcv::new(method, &bytes).ok_or_else(refused)
}

/// A check value as the database has it.
fn stored_kcv(algorithm: u8, hex: &str) -> Result<Kcv, ServiceError> {
    parse_kcv("internal", algorithm, hex)
        .map_err(|_| ServiceError::Internal { detail: "a stored check value is damaged".into() })
}

/// What seals keys for the database and opens them. Its work may block, for the storage key may be
/// in a token.
#[derive(Clone)]
struct Strongbox {
    ciphers: Arc<dyn Ciphers>,
    storage: Arc<dyn CmacKey>,
}

impl Strongbox {
    /// The block of a key of `row`: `header` gives usage, algorithm, mode, exportability and the
    /// optional blocks that go with the key.
    fn seal(
        &self,
        rng: &mut dyn CryptoRng,
        row: &str,
        header: &Header,
        key: &Secret,
    ) -> Result<String, ServiceError> {
        let mut header = Header { version: Version::D, length: 0, ..header.clone() };
        header.optional.retain(|block| ![OptionalId::LB, OptionalId::PB].contains(&block.id));
        header.optional.push(OptionalBlock::new(OptionalId::LB, row));
        let (kbpk, padding) = (Kbpk::Held(&*self.storage), Padding::Random(rng));
        Ok(tr31::wrap(&*self.ciphers, kbpk, &header, key, padding, Leniency::NONE)?)
    }

    /// The key of `row` from its block, with its header as it was given to [`Self::seal`].
    fn open(&self, row: &str, block: &str) -> Result<(Header, Secret), ServiceError> {
        let damaged =
            |what: &str| ServiceError::Internal { detail: format!("the key of {row}: {what}") };
        let kbpk = Kbpk::Held(&*self.storage);
        let opened = tr31::unwrap(&*self.ciphers, kbpk, block.as_bytes(), Leniency::NONE)
            .map_err(|error| damaged(&error.to_string()))?;
        let mut header = opened.header;
        if header.block(OptionalId::LB).is_none_or(|label| label.data != row.as_bytes()) {
            return Err(damaged("the stored block is another key's"));
        }
        header.optional.retain(|block| ![OptionalId::LB, OptionalId::PB].contains(&block.id));
        Ok((header, opened.key))
    }

    fn kcv(&self, algorithm: u8, key: &Secret) -> Result<Kcv, ServiceError> {
        Ok(tr31::kcv::kcv(&*self.ciphers, algorithm, key)?)
    }
}

/// Random bytes as a key fit for `header`: TDES with odd parity, never weak, never with equal
/// parts.
fn fit(header: &Header, random: &Secret) -> Option<Secret> {
    let key = match header.algorithm {
        b'T' => policy::with_odd_parity(random),
        _ => Secret::copied_from(random.expose()),
    };
    policy::check_key(header, &key).is_ok().then_some(key)
}

impl Service {
    /// The same with the block ciphers of payment keys. Without them, or without a vault, keys for
    /// injection are not available.
    #[must_use]
    pub fn with_ciphers(mut self, ciphers: Arc<dyn Ciphers>) -> Self {
        self.ciphers = Some(ciphers);
        self
    }

    /// The block ciphers of payment keys.
    ///
    /// # Errors
    /// [`ServiceError::Unavailable`] in a service without them.
    pub fn ciphers(&self) -> Result<&Arc<dyn Ciphers>, ServiceError> {
        let absent = || ServiceError::Unavailable { detail: "this server has no ciphers".into() };
        self.ciphers.as_ref().ok_or_else(absent)
    }

    async fn strongbox(&self) -> Result<Strongbox, ServiceError> {
        Ok(Strongbox { ciphers: self.ciphers()?.clone(), storage: self.storage_key().await? })
    }

    /// A random key for `header`, from the vault's generator.
    async fn draw(&self, header: Header, len: usize) -> Result<Secret, ServiceError> {
        let drawn = self
            .in_vault(move |vault| {
                for _ in 0..DRAWS_MAX {
                    if let Some(key) = fit(&header, &vault.random(len)?) {
                        return Ok(Some(key));
                    }
                }
                Ok(None)
            })
            .await?;
        let detail = "the generator gives no fit key".to_owned();
        drawn.ok_or(ServiceError::Internal { detail })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(algorithm: u8) -> Header {
        Header::new(Version::D, *b"K0", algorithm, b'D', b'N')
    }

    #[test]
    fn what_chance_makes_unfit_is_no_key() {
        for weak in [[0x01; 16], [0xFE; 16], [0x55; 16]] {
            assert!(fit(&header(b'T'), &Secret::copied_from(&weak)).is_none(), "{weak:?}");
        }
        let bytes: Vec<u8> = (0..16).collect();
        let key = fit(&header(b'T'), &Secret::copied_from(&bytes)).expect("it is fit");
        assert!(key.expose().iter().all(|byte| byte.count_ones() % 2 == 1));
        let key = fit(&header(b'A'), &Secret::copied_from(&bytes)).expect("it is fit");
        assert!(key.ct_eq(&bytes), "AES keys have no parity");
        assert!(fit(&header(b'A'), &Secret::copied_from(&bytes[1..])).is_none());
    }

    #[test]
    fn check_values_have_their_algorithms_lengths() {
        for (algorithm, good) in [(b'A', "A1B2C3"), (b'A', "a1b2c3d4e5"), (b'T', "A1B2C3")] {
            assert!(parse_kcv("kcv", algorithm, good).is_ok(), "{good}");
        }
        for (algorithm, bad) in
            [(b'A', "A1B2"), (b'A', "A1B2C3D4E5F6"), (b'T', "A1B2C3D4"), (b'T', "A1B2CX")]
        {
            let refused = parse_kcv("component-kcv", algorithm, bad).expect_err(bad);
            assert_eq!(refused.check(), "component-kcv");
        }
    }

    #[test]
    fn names_are_bounded_and_printable() {
        assert!(check_name("Acquirer zone 1").is_ok());
        for bad in ["", " x", "x ", "a\nb", &"x".repeat(65)] {
            assert_eq!(check_name(bad).expect_err(bad).check(), "name-format");
        }
    }
}
