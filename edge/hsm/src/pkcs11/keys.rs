//! Keys of a token in use.

use std::sync::{Arc, Mutex, PoisonError};

use countersign_crypto::Secret;
use cryptoki::context::Function;
use cryptoki::error::Error;
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::ObjectHandle;
use tr31::{BlockCipher, CipherError, CmacKey};
use tr34::{PublicKey, RsaError, RsaKey};

use super::failure::{Failure, is_lost};
use super::objects;
use super::token::{Lease, Token};
use crate::{HsmError, RsaUse};

/// What a CMAC key is known by again: the check value of AES keys, the start of the CMAC of a zero
/// block. No secret.
const KNOWN: [u8; 16] = [0; 16];
const CHECK_VALUE_LEN: usize = 5;

/// A handle and the generation of sessions in which it is good.
type Handle = Mutex<Option<(u64, ObjectHandle)>>;

fn cached(handle: &Handle, lease: &Lease<'_>) -> Option<ObjectHandle> {
    let cached = *handle.lock().unwrap_or_else(PoisonError::into_inner);
    cached.filter(|(generation, _)| *generation == lease.generation).map(|(_, handle)| handle)
}

fn cache(cell: &Handle, lease: &Lease<'_>, handle: ObjectHandle) {
    *cell.lock().unwrap_or_else(PoisonError::into_inner) = Some((lease.generation, handle));
}

/// An RSA key that stays in its token.
pub(super) struct TokenRsa {
    token: Arc<Token>,
    label: String,
    usage: RsaUse,
    public_key: Vec<u8>,
    /// The modulus' length, in bytes.
    ciphertext_len: usize,
    handle: Handle,
}

impl TokenRsa {
    /// The private key that `handle` is in this session.
    pub(super) fn of(
        token: &Arc<Token>,
        lease: &Lease<'_>,
        label: &str,
        usage: RsaUse,
        handle: ObjectHandle,
    ) -> Result<Self, Failure> {
        let public_key = objects::public_key(&lease.session, handle, label)?;
        let parsed = PublicKey::parse(&public_key);
        let parsed = parsed.map_err(|_| HsmError::KeyInconsistent(label.to_owned()))?;
        let ciphertext_len = parsed.modulus.len();
        let handle = Mutex::new(Some((lease.generation, handle)));
        let (token, label) = (Arc::clone(token), label.to_owned());
        Ok(Self { token, label, usage, public_key, ciphertext_len, handle })
    }

    pub(super) fn usage(&self) -> RsaUse {
        self.usage
    }

    /// The object, looked up again after the token was away: the same key, or none.
    fn find(&self, lease: &Lease<'_>) -> Result<ObjectHandle, Failure> {
        if let Some(handle) = cached(&self.handle, lease) {
            return Ok(handle);
        }
        let handle = objects::the_key(&lease.session, &self.label)?.handle;
        if objects::public_key(&lease.session, handle, &self.label)? != self.public_key {
            return Err(HsmError::KeyInconsistent(self.label.clone()).into());
        }
        cache(&self.handle, lease, handle);
        Ok(handle)
    }

    pub(super) fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        self.token.run(|lease| {
            let key = self.find(lease)?;
            Ok(lease.session.sign(&Mechanism::Sha256RsaPkcs, key, message)?)
        })
    }

    pub(super) fn try_decrypt(&self, ciphertext: &[u8]) -> Result<Secret, Failure> {
        let oaep = Mechanism::RsaPkcsOaep(PkcsOaepParams::new(
            MechanismType::SHA256,
            PkcsMgfType::MGF1_SHA256,
            PkcsOaepSource::empty(),
        ));
        self.token.run(|lease| {
            let key = self.find(lease)?;
            Ok(Secret::new(lease.session.decrypt(&oaep, key, ciphertext)?))
        })
    }
}

impl RsaKey for TokenRsa {
    fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, RsaError> {
        self.try_sign(message).map_err(|_| RsaError::Failed)
    }

    fn decrypt(&self, ciphertext: &[u8]) -> Result<Secret, RsaError> {
        if self.usage != RsaUse::SignAndDecrypt {
            return Err(RsaError::Failed);
        }
        // Some tokens take the same number in fewer bytes.
        if ciphertext.len() != self.ciphertext_len {
            return Err(RsaError::BadCiphertext);
        }
        self.try_decrypt(ciphertext).map_err(|failure| match failure {
            // The token took the mechanism and the key, and refused the text: it names as many
            // reasons as there are tokens, and none of them leaves here.
            Failure::Token(error @ Error::Pkcs11(_, Function::Decrypt)) if !is_lost(&error) => {
                RsaError::BadCiphertext
            }
            _ => RsaError::Failed,
        })
    }
}

/// An AES key that stays in its token and computes CMACs.
pub(super) struct TokenCmac {
    token: Arc<Token>,
    label: String,
    key_len: usize,
    check_value: Vec<u8>,
    handle: Handle,
}

impl TokenCmac {
    /// The key under `label`, known by what it computes now.
    pub(super) fn open(token: Arc<Token>, label: &str) -> Result<Self, Failure> {
        let (handle, generation, key_len, check_value) = token.run(|lease| {
            let handle = objects::the_cmac(&lease.session, label)?;
            let key_len = objects::value_len(&lease.session, handle, label)?;
            let check_value = check_value(lease, handle)?;
            Ok((handle, lease.generation, key_len, check_value))
        })?;
        let handle = Mutex::new(Some((generation, handle)));
        Ok(Self { token, label: label.to_owned(), key_len, check_value, handle })
    }

    fn find(&self, lease: &Lease<'_>) -> Result<ObjectHandle, Failure> {
        if let Some(handle) = cached(&self.handle, lease) {
            return Ok(handle);
        }
        let handle = objects::the_cmac(&lease.session, &self.label)?;
        if check_value(lease, handle)? != self.check_value {
            return Err(HsmError::KeyInconsistent(self.label.clone()).into());
        }
        cache(&self.handle, lease, handle);
        Ok(handle)
    }
}

fn check_value(lease: &Lease<'_>, handle: ObjectHandle) -> Result<Vec<u8>, Failure> {
    let mut value = lease.session.sign(&Mechanism::AesCMac, handle, &KNOWN)?;
    value.truncate(CHECK_VALUE_LEN);
    Ok(value)
}

impl CmacKey for TokenCmac {
    fn cipher(&self) -> BlockCipher {
        BlockCipher::Aes
    }

    fn key_len(&self) -> usize {
        self.key_len
    }

    fn cmac(&self, data: &[u8]) -> Result<Secret, CipherError> {
        let computed = self.token.run(|lease| {
            let key = self.find(lease)?;
            Ok(Secret::new(lease.session.sign(&Mechanism::AesCMac, key, data)?))
        });
        let computed = computed.map_err(|_| CipherError)?;
        if computed.len() == BlockCipher::Aes.block_len() { Ok(computed) } else { Err(CipherError) }
    }
}
