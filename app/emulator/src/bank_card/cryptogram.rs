//! The application cryptogram, as EMV Book 2 makes it with AES: card key (A1.4.3, option C),
//! session key (A1.3.1), CMAC (A1.2.2), over the objects that 8.1.1 recommends.

use countersign_crypto::Secret;
use tr31::aws_lc::AwsLc;
use tr31::{BlockCipher, CipherError, Ciphers};

/// The issuer's master key for application cryptograms of all emulated bank cards. **A published
/// test key**, no scheme's and no bank's: whoever has it can make cryptograms of these cards.
pub const TEST_ISSUER_KEY: &[u8; 16] = b"CS-TEST-ISSUER-1";

/// Bytes of a cryptogram.
pub const CRYPTOGRAM_LEN: usize = 8;
/// What a cipher of 16-byte blocks does to one block.
const BLOCK: usize = 16;

/// What a cryptogram is made over: what the terminal said, in the order of CDOL1, and what the card
/// knows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CryptogramInput {
    /// Amounts, country, TVR, currency, date, type and unpredictable number, as CDOL1 asks.
    pub terminal: Vec<u8>,
    /// AIP (82).
    pub aip: [u8; 2],
    /// ATC (9F36).
    pub atc: u16,
    /// What the card decided (9F27): a cryptogram of one kind is none of another.
    pub cid: u8,
}

/// Who issued the emulated bank cards: it makes and checks cryptograms.
#[derive(Debug)]
pub struct Issuer {
    key: Secret,
}

impl Default for Issuer {
    fn default() -> Self {
        Self { key: Secret::copied_from(TEST_ISSUER_KEY) }
    }
}

impl Issuer {
    /// The cryptogram of the card with this number and sequence number.
    ///
    /// # Errors
    /// [`CipherError`] from the cipher; never for keys of this length.
    pub fn cryptogram(
        &self,
        pan: &[u8],
        sequence: u8,
        input: &CryptogramInput,
    ) -> Result<[u8; CRYPTOGRAM_LEN], CipherError> {
        let card = self.card_key(pan, sequence)?;
        let [upper, lower] = input.atc.to_be_bytes();
        let mut diversifier = [0; BLOCK];
        diversifier[..2].copy_from_slice(&[upper, lower]);
        let session = one_block(&card, diversifier)?;
        let text =
            [&input.terminal[..], &input.aip, &input.atc.to_be_bytes(), &[input.cid]].concat();
        let mac = AwsLc.cmac(BlockCipher::Aes, &session, &text)?;
        mac.expose().first_chunk().copied().ok_or(CipherError)
    }

    /// Whether a cryptogram is this card's. Compared in constant time.
    #[must_use]
    pub fn verifies(
        &self,
        pan: &[u8],
        sequence: u8,
        input: &CryptogramInput,
        cryptogram: &[u8],
    ) -> bool {
        let expected = self.cryptogram(pan, sequence, input);
        expected.is_ok_and(|expected| Secret::copied_from(&expected).ct_eq(cryptogram))
    }

    /// Option C: the number and the sequence number, right-justified in a block.
    fn card_key(&self, pan: &[u8], sequence: u8) -> Result<Secret, CipherError> {
        let mut block = [0; BLOCK];
        let digits = [pan, &[sequence]].concat();
        let start = BLOCK.checked_sub(digits.len()).ok_or(CipherError)?;
        block[start..].copy_from_slice(&digits);
        one_block(&self.key, block)
    }
}

fn one_block(key: &Secret, mut block: [u8; BLOCK]) -> Result<Secret, CipherError> {
    AwsLc.cbc_encrypt(BlockCipher::Aes, key, &[0; BLOCK], &mut block)?;
    Ok(Secret::copied_from(&block))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAN: [u8; 8] = [0x99, 0x99, 0x99, 0, 0, 0, 0, 0x10];

    #[test]
    fn each_part_of_what_was_paid_is_in_the_cryptogram() {
        let issuer = Issuer::default();
        let input = CryptogramInput { terminal: vec![1; 29], aip: [0x19, 1], atc: 7, cid: 0x80 };
        let made = issuer.cryptogram(&PAN, 1, &input).unwrap();
        assert!(issuer.verifies(&PAN, 1, &input, &made));
        let mut amount = input.clone();
        amount.terminal[5] ^= 1;
        let others = [
            amount,
            CryptogramInput { atc: 8, ..input.clone() },
            CryptogramInput { cid: 0x40, ..input.clone() },
            CryptogramInput { aip: [0x19, 0], ..input.clone() },
        ];
        for other in &others {
            assert!(!issuer.verifies(&PAN, 1, other, &made), "{other:?}");
        }
        assert!(!issuer.verifies(&PAN, 2, &input, &made));
        assert!(!issuer.verifies(&[0x98; 8], 1, &input, &made));
        assert!(!issuer.verifies(&PAN, 1, &input, &made[..7]));
        assert!(issuer.cryptogram(&[0; 16], 1, &input).is_err());
    }
}
