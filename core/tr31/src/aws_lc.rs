//! [`Ciphers`] on AWS-LC.
//!
//! AWS-LC refuses to run weak and semi-weak DES keys and TDES keys with equal parts. Whether a key
//! is fit for use is decided in [`crate::policy`]; here every key runs, since a fit protection key
//! can have a weak variant (published samples of versions A and C have one). What AWS-LC refuses,
//! the crate `des` runs. Parity bits are not looked at.
#![expect(deprecated, reason = "key blocks A to C and TDES DUKPT are defined on DES")]

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm, DES_EDE_FOR_LEGACY_USE_ONLY,
    DES_EDE3_FOR_LEGACY_USE_ONLY, DES_FOR_LEGACY_USE_ONLY, DecryptingKey, DecryptionContext,
    EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::cmac;
use aws_lc_rs::iv::FixedLength;
use countersign_crypto::Secret;
use des::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use zeroize::Zeroizing;

use crate::{BlockCipher, CipherError, Ciphers};

/// Block ciphers of AWS-LC. Stateless.
#[derive(Debug, Clone, Copy, Default)]
pub struct AwsLc;

impl Ciphers for AwsLc {
    fn cbc_encrypt(
        &self,
        cipher: BlockCipher,
        key: &Secret,
        iv: &[u8],
        data: &mut [u8],
    ) -> Result<(), CipherError> {
        let unbound = cbc_key(cipher, key, iv, data)?;
        let context = match cipher {
            BlockCipher::Tdes => EncryptionContext::Iv64(fixed(iv)?),
            BlockCipher::Aes => EncryptionContext::Iv128(fixed(iv)?),
        };
        match EncryptingKey::cbc(unbound) {
            Ok(key) => key.less_safe_encrypt(data, context).map(drop).map_err(|_| CipherError),
            Err(_) if cipher == BlockCipher::Tdes => refused::encrypt(key, iv, data),
            Err(_) => Err(CipherError),
        }
    }

    fn cbc_decrypt(
        &self,
        cipher: BlockCipher,
        key: &Secret,
        iv: &[u8],
        data: &mut [u8],
    ) -> Result<(), CipherError> {
        let unbound = cbc_key(cipher, key, iv, data)?;
        let context = match cipher {
            BlockCipher::Tdes => DecryptionContext::Iv64(fixed(iv)?),
            BlockCipher::Aes => DecryptionContext::Iv128(fixed(iv)?),
        };
        match DecryptingKey::cbc(unbound) {
            Ok(key) => key.decrypt(data, context).map(drop).map_err(|_| CipherError),
            Err(_) if cipher == BlockCipher::Tdes => refused::decrypt(key, iv, data),
            Err(_) => Err(CipherError),
        }
    }

    fn aes_ctr(&self, key: &Secret, iv: &[u8; 16], data: &mut [u8]) -> Result<(), CipherError> {
        let key = unbound(aes(key.len())?, key.expose())?;
        let key = EncryptingKey::ctr(key).map_err(|_| CipherError)?;
        let context = EncryptionContext::Iv128(FixedLength::from(iv));
        key.less_safe_encrypt(data, context).map_err(|_| CipherError)?;
        Ok(())
    }

    fn cmac(&self, cipher: BlockCipher, key: &Secret, data: &[u8]) -> Result<Secret, CipherError> {
        let algorithm = match (cipher, key.len()) {
            (BlockCipher::Tdes, 16 | 24) => cmac::DES_EDE3_FOR_LEGACY_USE_ONLY,
            (BlockCipher::Aes, 16) => cmac::AES_128,
            (BlockCipher::Aes, 24) => cmac::AES_192,
            (BlockCipher::Aes, 32) => cmac::AES_256,
            _ => return Err(CipherError),
        };
        let key = match (cipher, key.len()) {
            // Two-key TDES is three-key TDES with K3 = K1.
            (BlockCipher::Tdes, 16) => {
                let expanded = Secret::new([key.expose(), &key.expose()[..8]].concat());
                cmac::Key::new(algorithm, expanded.expose())
            }
            _ => cmac::Key::new(algorithm, key.expose()),
        }
        .map_err(|_| CipherError)?;
        let tag = cmac::sign(&key, data).map_err(|_| CipherError)?;
        Ok(Secret::copied_from(tag.as_ref()))
    }
}

/// The key for CBC, once the data are known to be whole blocks and `iv` one.
fn cbc_key(
    cipher: BlockCipher,
    key: &Secret,
    iv: &[u8],
    data: &[u8],
) -> Result<UnboundCipherKey, CipherError> {
    let block_len = cipher.block_len();
    if iv.len() != block_len || !data.len().is_multiple_of(block_len) {
        return Err(CipherError);
    }
    let bytes = key.expose();
    match (cipher, bytes.len()) {
        (BlockCipher::Tdes, 8) => unbound(&DES_FOR_LEGACY_USE_ONLY, bytes),
        (BlockCipher::Tdes, 16) => unbound(&DES_EDE_FOR_LEGACY_USE_ONLY, bytes),
        (BlockCipher::Tdes, 24) => unbound(&DES_EDE3_FOR_LEGACY_USE_ONLY, bytes),
        (BlockCipher::Tdes, _) => Err(CipherError),
        (BlockCipher::Aes, length) => unbound(aes(length)?, bytes),
    }
}

fn aes(key_len: usize) -> Result<&'static Algorithm, CipherError> {
    match key_len {
        16 => Ok(&AES_128),
        24 => Ok(&AES_192),
        32 => Ok(&AES_256),
        _ => Err(CipherError),
    }
}

fn unbound(algorithm: &'static Algorithm, key: &[u8]) -> Result<UnboundCipherKey, CipherError> {
    UnboundCipherKey::new(algorithm, key).map_err(|_| CipherError)
}

fn fixed<const N: usize>(iv: &[u8]) -> Result<FixedLength<N>, CipherError> {
    FixedLength::try_from(iv).map_err(|_| CipherError)
}

/// CBC under the TDES keys that AWS-LC refuses.
mod refused {
    use super::{
        Array, BlockCipherDecrypt, BlockCipherEncrypt, CipherError, KeyInit, Secret, Zeroizing,
    };

    pub(super) fn encrypt(key: &Secret, iv: &[u8], data: &mut [u8]) -> Result<(), CipherError> {
        let cipher = cipher(key)?;
        let mut before = Array::<u8, _>::try_from(iv).map_err(|_| CipherError)?;
        for block in data.chunks_exact_mut(8) {
            block.iter_mut().zip(&before).for_each(|(byte, before)| *byte ^= before);
            before = Array::try_from(&*block).map_err(|_| CipherError)?;
            cipher.encrypt_block(&mut before);
            block.copy_from_slice(&before);
        }
        Ok(())
    }

    pub(super) fn decrypt(key: &Secret, iv: &[u8], data: &mut [u8]) -> Result<(), CipherError> {
        let cipher = cipher(key)?;
        let mut before = Array::<u8, _>::try_from(iv).map_err(|_| CipherError)?;
        for block in data.chunks_exact_mut(8) {
            let received = Array::try_from(&*block).map_err(|_| CipherError)?;
            let mut plain = received;
            cipher.decrypt_block(&mut plain);
            for ((byte, plain), before) in block.iter_mut().zip(&plain).zip(&before) {
                *byte = plain ^ before;
            }
            before = received;
        }
        Ok(())
    }

    /// DES is TDES with three equal keys, two-key TDES one with K3 = K1.
    fn cipher(key: &Secret) -> Result<des::TdesEde3, CipherError> {
        let bytes = key.expose();
        let mut three = Zeroizing::new([0; 24]);
        for (at, byte) in three.iter_mut().enumerate() {
            *byte = *bytes.get(at % bytes.len().max(1)).ok_or(CipherError)?;
        }
        des::TdesEde3::new_from_slice(three.as_slice()).map_err(|_| CipherError)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn key(bytes: impl IntoIterator<Item = u8>) -> Secret {
        Secret::new(bytes.into_iter().collect::<Vec<_>>())
    }

    #[test]
    fn both_implementations_agree() {
        for length in [8, 16, 24] {
            let key = key((0..length).map(|at| at * 7 + 1));
            let (iv, plain) = ([0x5A; 8], [0xC3; 40]);
            let (mut one, mut other) = (plain, plain);
            AwsLc.cbc_encrypt(BlockCipher::Tdes, &key, &iv, &mut one).unwrap();
            refused::encrypt(&key, &iv, &mut other).unwrap();
            assert_eq!(one, other);
            AwsLc.cbc_decrypt(BlockCipher::Tdes, &key, &iv, &mut one).unwrap();
            refused::decrypt(&key, &iv, &mut other).unwrap();
            assert_eq!((one, other), (plain, plain));
        }
    }

    #[test]
    fn keys_that_aws_lc_refuses_run_too() {
        // DES under the key of zeros, its parity aside: FIPS 81's table of weak keys.
        let mut block = [0; 8];
        AwsLc.cbc_encrypt(BlockCipher::Tdes, &key([1; 8]), &[0; 8], &mut block).unwrap();
        assert_eq!(block, [0x8C, 0xA6, 0x4D, 0xE9, 0xC1, 0xB1, 0x23, 0xA7]);
        let two: Vec<u8> = (1..17).collect();
        let three = key(two.iter().chain(&two[..8]).copied());
        let (mut one, mut other) = ([9; 16], [9; 16]);
        AwsLc.cbc_encrypt(BlockCipher::Tdes, &key(two), &[0; 8], &mut one).unwrap();
        AwsLc.cbc_encrypt(BlockCipher::Tdes, &three, &[0; 8], &mut other).unwrap();
        assert_eq!(one, other);
        AwsLc.cbc_decrypt(BlockCipher::Tdes, &three, &[0; 8], &mut other).unwrap();
        assert_eq!(other, [9; 16]);
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let mut data = [0; 16];
        for (cipher, key_len) in
            [(BlockCipher::Tdes, 0), (BlockCipher::Tdes, 32), (BlockCipher::Aes, 8)]
        {
            let key = key((0..key_len).map(|_| 3));
            let iv = [0; 16];
            let iv = &iv[..cipher.block_len()];
            assert!(AwsLc.cbc_encrypt(cipher, &key, iv, &mut data).is_err());
            assert!(AwsLc.cmac(cipher, &key, &data).is_err());
        }
        let key = key([7; 16]);
        assert!(AwsLc.cbc_encrypt(BlockCipher::Aes, &key, &[0; 8], &mut data).is_err());
        assert!(AwsLc.cbc_encrypt(BlockCipher::Aes, &key, &[0; 16], &mut data[1..]).is_err());
        assert!(AwsLc.aes_ctr(&Secret::new(Vec::new()), &[0; 16], &mut data).is_err());
    }
}
