//! A vault that counts what its storage key is asked, and lets a test do something meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_crypto::Secret;
use countersign_hsm::{Description, FileVault, HeldKey, HsmError, RsaUse, Vault};
use tr31::{BlockCipher, CipherError, CmacKey};
use tr34::RsaKey;

/// See the module.
pub(crate) struct CountedVault {
    pub(crate) inner: FileVault,
    pub(crate) cmacs: Arc<AtomicU64>,
    /// Happens each time before the storage key answers.
    pub(crate) meanwhile: Arc<dyn Fn() + Send + Sync>,
}

struct CountedKey {
    inner: Arc<dyn CmacKey>,
    cmacs: Arc<AtomicU64>,
    meanwhile: Arc<dyn Fn() + Send + Sync>,
}

impl CmacKey for CountedKey {
    fn cipher(&self) -> BlockCipher {
        self.inner.cipher()
    }

    fn key_len(&self) -> usize {
        self.inner.key_len()
    }

    fn cmac(&self, data: &[u8]) -> Result<Secret, CipherError> {
        self.cmacs.fetch_add(1, Ordering::SeqCst);
        (self.meanwhile)();
        self.inner.cmac(data)
    }
}

impl Vault for CountedVault {
    fn describe(&self) -> Result<Description, HsmError> {
        self.inner.describe()
    }

    fn labels(&self) -> Result<Vec<HeldKey>, HsmError> {
        self.inner.labels()
    }

    fn random(&self, len: usize) -> Result<Secret, HsmError> {
        self.inner.random(len)
    }

    fn rsa_generate(
        &self,
        label: &str,
        usage: RsaUse,
        bits: u32,
    ) -> Result<Arc<dyn RsaKey>, HsmError> {
        self.inner.rsa_generate(label, usage, bits)
    }

    fn rsa_open(&self, label: &str) -> Result<Arc<dyn RsaKey>, HsmError> {
        self.inner.rsa_open(label)
    }

    fn rsa_delete(&self, label: &str) -> Result<(), HsmError> {
        self.inner.rsa_delete(label)
    }

    fn storage_key(&self, label: &str) -> Result<Arc<dyn CmacKey>, HsmError> {
        let (inner, cmacs) = (self.inner.storage_key(label)?, self.cmacs.clone());
        Ok(Arc::new(CountedKey { inner, cmacs, meanwhile: self.meanwhile.clone() }))
    }

    fn cmac_import(
        &self,
        label: &str,
        cipher: BlockCipher,
        key: Secret,
    ) -> Result<Arc<dyn CmacKey>, HsmError> {
        self.inner.cmac_import(label, cipher, key)
    }

    fn cmac_open(&self, label: &str) -> Result<Arc<dyn CmacKey>, HsmError> {
        self.inner.cmac_open(label)
    }

    fn cmac_delete(&self, label: &str) -> Result<(), HsmError> {
        self.inner.cmac_delete(label)
    }
}
