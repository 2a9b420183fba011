//! [`Ciphers`] on AWS-LC.
//!
//! AWS-LC refuses weak and semi-weak DES keys, `K1 = K2`, and three-key TDES that is a two-key one
//! in disguise (`K1 = K3`); the last is legitimate, so it is run as the two-key cipher it is.

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm, DecryptingKey, DecryptionContext, EncryptingKey,
    EncryptionContext, UnboundCipherKey,
};
#[expect(deprecated, reason = "TR-31 A to C and TDES DUKPT are defined on DES")]
use aws_lc_rs::cipher::{
    DES_EDE_FOR_LEGACY_USE_ONLY, DES_EDE3_FOR_LEGACY_USE_ONLY, DES_FOR_LEGACY_USE_ONLY,
};
use aws_lc_rs::cmac;
use aws_lc_rs::iv::FixedLength;
use countersign_crypto::Secret;

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
        whole_blocks(cipher, data)?;
        let (algorithm, key) = unbound(cipher, key)?;
        let context = EncryptionContext::from_iv(cipher, iv)?;
        let _ = algorithm;
        let key = EncryptingKey::cbc(key).map_err(|_| CipherError)?;
        key.less_safe_encrypt(data, context).map_err(|_| CipherError)?;
        Ok(())
    }

    fn cbc_decrypt(
        &self,
        cipher: BlockCipher,
        key: &Secret,
        iv: &[u8],
        data: &mut [u8],
    ) -> Result<(), CipherError> {
        Err(CipherError)
    }
}
