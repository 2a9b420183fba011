use std::fmt;
use std::str::FromStr;

use countersign_crypto::{
    CryptoError, CryptoRng, Digest, HASH_LEN, SecureElement, UnixTime, VerifyingKey,
};
use data_encoding::{BASE64, HEXLOWER};
use thiserror::Error;

/// Longest line of a checkpoint file, in bytes, without the newline.
pub const MAX_CHECKPOINT_LINE: usize = 256;

/// Longest signature of a checkpoint, in bytes; a DER P-256 or SM2 signature has at most 72.
const MAX_SIGNATURE_LEN: usize = 96;

const DOMAIN: &[u8] = b"countersign audit checkpoint v1";

/// A signed statement: at `at`, the chain had at `position` the hash `hash`.
///
/// Written to the store and, as one line of text, to a file outside it, so that a cut tail
/// shows. As text: position, hash in lower-case hexadecimal, milliseconds since the epoch,
/// signature in base64, with single spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Position in the chain, from 1.
    pub position: u64,
    /// The chain's hash at that position.
    pub hash: Digest,
    /// When it was signed.
    pub at: UnixTime,
    /// DER signature by the audit key.
    pub signature: Vec<u8>,
}

/// Why a line is no checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CheckpointError {
    /// Longer than [`MAX_CHECKPOINT_LINE`].
    #[error("checkpoint line too long")]
    TooLong,
    /// Not four fields.
    #[error("a checkpoint line has four fields: position, hash, milliseconds, signature")]
    Fields,
    /// The position or the time is no decimal number in its canonical form.
    #[error("malformed number in a checkpoint line")]
    Number,
    /// The hash is not 64 lower-case hexadecimal digits.
    #[error("malformed hash in a checkpoint line")]
    Hash,
    /// The signature is not base64, or of no possible length.
    #[error("malformed signature in a checkpoint line")]
    Signature,
}

impl Checkpoint {
    /// Signs the chain's hash at a position.
    ///
    /// # Errors
    /// What the key answers.
    pub(super) fn sign(
        position: u64,
        hash: Digest,
        at: UnixTime,
        signer: &dyn SecureElement,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, CryptoError> {
        let signature = signer.sign(rng, &message(position, &hash, at))?;
        Ok(Self { position, hash, at, signature })
    }

    /// Checks the signature.
    ///
    /// # Errors
    /// [`CryptoError::BadAuthentication`].
    pub fn verify(&self, key: &dyn VerifyingKey) -> Result<(), CryptoError> {
        key.verify(&message(self.position, &self.hash, self.at), &self.signature)
    }
}

/// Every part has a fixed length, so the concatenation is unambiguous.
fn message(position: u64, hash: &Digest, at: UnixTime) -> Vec<u8> {
    [DOMAIN, &position.to_be_bytes(), hash, &at.as_millis().to_be_bytes()].concat()
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = HEXLOWER.encode(&self.hash);
        let signature = BASE64.encode(&self.signature);
        write!(f, "{} {hash} {} {signature}", self.position, self.at.as_millis())
    }
}

impl FromStr for Checkpoint {
    type Err = CheckpointError;

    fn from_str(line: &str) -> Result<Self, CheckpointError> {
        if line.len() > MAX_CHECKPOINT_LINE {
            return Err(CheckpointError::TooLong);
        }
        let mut fields = line.split(' ');
        let mut field = || fields.next().ok_or(CheckpointError::Fields);
        let (position, hash, at, signature) = (field()?, field()?, field()?, field()?);
        if fields.next().is_some() {
            return Err(CheckpointError::Fields);
        }
        let position = number(position)?;
        if position == 0 {
            return Err(CheckpointError::Number);
        }
        let hash = HEXLOWER.decode(hash.as_bytes()).map_err(|_| CheckpointError::Hash)?;
        let hash: [u8; HASH_LEN] = hash.try_into().map_err(|_| CheckpointError::Hash)?;
        let at = UnixTime::from_millis(number(at)?);
        let signature =
            BASE64.decode(signature.as_bytes()).map_err(|_| CheckpointError::Signature)?;
        if signature.is_empty() || signature.len() > MAX_SIGNATURE_LEN {
            return Err(CheckpointError::Signature);
        }
        Ok(Self { position, hash, at, signature })
    }
}

fn number(text: &str) -> Result<u64, CheckpointError> {
    let number: u64 = text.parse().map_err(|_| CheckpointError::Number)?;
    // Also refuses "+1" and "007": one checkpoint has one text.
    if number.to_string() == text { Ok(number) } else { Err(CheckpointError::Number) }
}

#[cfg(test)]
mod tests {
    use countersign_crypto::rust_crypto;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn text_round_trips_and_bad_text_is_refused_by_name() {
        let checkpoint = Checkpoint {
            position: 7,
            hash: [0xab; HASH_LEN],
            at: UnixTime::from_millis(1234),
            signature: vec![1, 2, 3],
        };
        let line = checkpoint.to_string();
        assert_eq!(line, format!("7 {} 1234 AQID", "ab".repeat(32)));
        assert_eq!(line.parse(), Ok(checkpoint));
        let bad = |line: &str| line.parse::<Checkpoint>().unwrap_err();
        let hash = "ab".repeat(32);
        assert_eq!(bad(""), CheckpointError::Fields);
        assert_eq!(bad(&format!("{line} x")), CheckpointError::Fields);
        assert_eq!(bad(&format!("0 {hash} 1 AQID")), CheckpointError::Number);
        assert_eq!(bad(&format!("+7 {hash} 1 AQID")), CheckpointError::Number);
        assert_eq!(bad(&format!("7 {hash} 01 AQID")), CheckpointError::Number);
        assert_eq!(bad(&format!("7 {} 1 AQID", "AB".repeat(32))), CheckpointError::Hash);
        assert_eq!(bad("7 abab 1 AQID"), CheckpointError::Hash);
        assert_eq!(bad(&format!("7 {hash} 1 AQI")), CheckpointError::Signature);
        assert_eq!(bad(&format!("7 {hash} 1 ")), CheckpointError::Signature);
        assert_eq!(bad(&"1".repeat(MAX_CHECKPOINT_LINE + 1)), CheckpointError::TooLong);
    }

    #[test]
    fn the_signature_covers_every_field() {
        let provider = rust_crypto::provider();
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let signer = provider.signature.generate(&mut rng).unwrap().key;
        let key = provider.signature.public_key(signer.public_key()).unwrap();
        let at = UnixTime::from_millis(5);
        let good = Checkpoint::sign(3, [1; HASH_LEN], at, signer.as_ref(), &mut rng).unwrap();
        assert_eq!(good.verify(key.as_ref()), Ok(()));
        assert!(good.to_string().len() <= MAX_CHECKPOINT_LINE);
        let bad = [
            Checkpoint { position: 4, ..good.clone() },
            Checkpoint { hash: [2; HASH_LEN], ..good.clone() },
            Checkpoint { at: UnixTime::from_millis(6), ..good.clone() },
        ];
        for checkpoint in bad {
            assert!(checkpoint.verify(key.as_ref()).is_err());
        }
    }
}
