use std::sync::{Arc, Mutex, PoisonError};

use countersign_crypto::{CryptoRng, Secret};
use tr31::aws_lc::AwsLc;
use tr31::{BlockCipher, CipherError, Ciphers, CmacKey};
use tr34::aws_lc::SoftwareRsaKey;
use tr34::{RsaError, RsaKey};

use crate::vault::{check_bits, check_cmac_len, check_random_len, wrong_kind};
use crate::{
    Description, HeldKey, HsmError, KeyKind, LABELS_MAX, RsaUse, STORAGE_KEY_LEN, StorageError,
    Vault, VaultStorage, check_label,
};

/// What a stored key starts with: the format and its version.
const FORMAT: &[u8] = b"CSK1";

/// Keys in memory, kept by their owner's storage (the embedded default).
pub struct FileVault {
    storage: Box<dyn VaultStorage>,
    rng: Mutex<Box<dyn CryptoRng + Send>>,
}

impl FileVault {
    /// A vault over `storage`. `rng` makes symmetric keys and what [`Vault::random`] gives; RSA
    /// keys come from AWS-LC's own generator.
    #[must_use]
    pub fn new(storage: impl VaultStorage + 'static, rng: impl CryptoRng + Send + 'static) -> Self {
        Self { storage: Box::new(storage), rng: Mutex::new(Box::new(rng)) }
    }

    fn load(&self, label: &str) -> Result<(KeyKind, Secret), HsmError> {
        check_label(label)?;
        let stored = self.storage.load(label).map_err(of_storage(label))?;
        let stored = stored.ok_or_else(|| HsmError::LabelUnknown(label.to_owned()))?;
        decode(&stored).ok_or_else(|| HsmError::Damaged(label.to_owned()))
    }

    fn create(&self, label: &str, kind: KeyKind, key: &Secret) -> Result<(), HsmError> {
        if self.storage.names().map_err(of_storage(label))?.len() >= LABELS_MAX {
            return Err(HsmError::Full);
        }
        self.storage.create(label, &encode(kind, key)).map_err(of_storage(label))
    }

    /// Refuses a bad or taken label before work is done for it; [`VaultStorage::create`] decides.
    fn check_free(&self, label: &str) -> Result<(), HsmError> {
        match self.load(label) {
            Err(HsmError::LabelUnknown(_)) => Ok(()),
            Err(HsmError::Damaged(_)) | Ok(_) => Err(HsmError::LabelTaken(label.to_owned())),
            Err(error) => Err(error),
        }
    }

    fn load_rsa(&self, label: &str) -> Result<(RsaUse, Secret), HsmError> {
        match self.load(label)? {
            (KeyKind::Rsa(usage), key) => Ok((usage, key)),
            (other, _) => Err(wrong_kind(label, other)),
        }
    }

    fn load_cmac(&self, label: &str) -> Result<SoftwareCmac, HsmError> {
        match self.load(label)? {
            (KeyKind::Cmac(cipher), key) => Ok(SoftwareCmac { cipher, key }),
            (other, _) => Err(wrong_kind(label, other)),
        }
    }

    fn delete(&self, label: &str) -> Result<(), HsmError> {
        self.storage.delete(label).map_err(of_storage(label))
    }
}

impl Vault for FileVault {
    fn describe(&self) -> Result<Description, HsmError> {
        Ok(Description::File)
    }

    fn labels(&self) -> Result<Vec<HeldKey>, HsmError> {
        let mut names = self.storage.names().map_err(HsmError::Storage)?;
        names.sort_unstable();
        let held = |label: String| {
            let (kind, _) = self.load(&label)?;
            Ok(HeldKey { label, kind })
        };
        names.into_iter().map(held).collect()
    }

    fn random(&self, len: usize) -> Result<Secret, HsmError> {
        check_random_len(len)?;
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        Secret::try_filled(len, |out| {
            rng.fill_bytes(out);
            Ok(())
        })
    }

    fn rsa_generate(
        &self,
        label: &str,
        usage: RsaUse,
        bits: u32,
    ) -> Result<Arc<dyn RsaKey>, HsmError> {
        check_bits(bits)?;
        self.check_free(label)?;
        let key = SoftwareRsaKey::generate(bits).map_err(|_| HsmError::Crypto)?;
        let pkcs8 = key.to_pkcs8();
        self.create(label, KeyKind::Rsa(usage), &pkcs8)?;
        Ok(Arc::new(SoftwareRsa { key, usage }))
    }

    fn rsa_open(&self, label: &str) -> Result<Arc<dyn RsaKey>, HsmError> {
        let (usage, pkcs8) = self.load_rsa(label)?;
        let key = SoftwareRsaKey::from_pkcs8(&pkcs8);
        let key = key.map_err(|_| HsmError::Damaged(label.to_owned()))?;
        Ok(Arc::new(SoftwareRsa { key, usage }))
    }

    fn rsa_delete(&self, label: &str) -> Result<(), HsmError> {
        self.load_rsa(label)?;
        self.delete(label)
    }

    fn storage_key(&self, label: &str) -> Result<Arc<dyn CmacKey>, HsmError> {
        match self.load_cmac(label) {
            Err(HsmError::LabelUnknown(_)) => {}
            found => return Ok(Arc::new(storage_strength(label, found?)?)),
        }
        let key = self.random(STORAGE_KEY_LEN)?;
        match self.create(label, KeyKind::Cmac(BlockCipher::Aes), &key) {
            Ok(()) => Ok(Arc::new(SoftwareCmac { cipher: BlockCipher::Aes, key })),
            // Another was faster: its key is the one.
            Err(HsmError::LabelTaken(_)) => {
                Ok(Arc::new(storage_strength(label, self.load_cmac(label)?)?))
            }
            Err(error) => Err(error),
        }
    }

    fn cmac_import(
        &self,
        label: &str,
        cipher: BlockCipher,
        key: Secret,
    ) -> Result<Arc<dyn CmacKey>, HsmError> {
        check_cmac_len(cipher, key.len())?;
        tr31::policy::check_kbpk(cipher, &key).map_err(HsmError::KeyUnfit)?;
        self.check_free(label)?;
        self.create(label, KeyKind::Cmac(cipher), &key)?;
        Ok(Arc::new(SoftwareCmac { cipher, key }))
    }

    fn cmac_open(&self, label: &str) -> Result<Arc<dyn CmacKey>, HsmError> {
        Ok(Arc::new(self.load_cmac(label)?))
    }

    fn cmac_delete(&self, label: &str) -> Result<(), HsmError> {
        self.load_cmac(label)?;
        self.delete(label)
    }
}

/// An imported KEK under the label of a storage key may be a weaker one; it does not become one.
fn storage_strength(label: &str, key: SoftwareCmac) -> Result<SoftwareCmac, HsmError> {
    if key.cipher == BlockCipher::Aes && key.key.len() == STORAGE_KEY_LEN {
        return Ok(key);
    }
    Err(wrong_kind(label, KeyKind::Cmac(key.cipher)))
}

fn of_storage(label: &str) -> impl FnOnce(StorageError) -> HsmError + '_ {
    |error| match error {
        StorageError::Taken => HsmError::LabelTaken(label.to_owned()),
        StorageError::Damaged => HsmError::Damaged(label.to_owned()),
        other => HsmError::Storage(other),
    }
}

const KINDS: [(u8, KeyKind); 4] = [
    (1, KeyKind::Rsa(RsaUse::Sign)),
    (2, KeyKind::Rsa(RsaUse::SignAndDecrypt)),
    (3, KeyKind::Cmac(BlockCipher::Aes)),
    (4, KeyKind::Cmac(BlockCipher::Tdes)),
];

/// `CSK1`, one byte for the kind, the key: PKCS#8 or the bytes of a symmetric key.
fn encode(kind: KeyKind, key: &Secret) -> Secret {
    let code = KINDS.iter().find(|(_, known)| *known == kind).map_or(0, |(code, _)| *code);
    // Its final size at once: growing would leave copies of the key behind.
    let mut bytes = Vec::with_capacity(FORMAT.len() + 1 + key.len());
    bytes.extend_from_slice(FORMAT);
    bytes.push(code);
    bytes.extend_from_slice(key.expose());
    Secret::new(bytes)
}

fn decode(stored: &Secret) -> Option<(KeyKind, Secret)> {
    let (code, key) = stored.expose().strip_prefix(FORMAT)?.split_first()?;
    let (_, kind) = KINDS.into_iter().find(|(known, _)| known == code)?;
    if let KeyKind::Cmac(cipher) = kind {
        check_cmac_len(cipher, key.len()).ok()?;
    }
    Some((kind, Secret::copied_from(key)))
}

struct SoftwareRsa {
    key: SoftwareRsaKey,
    usage: RsaUse,
}

impl RsaKey for SoftwareRsa {
    fn public_key(&self) -> &[u8] {
        self.key.public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, RsaError> {
        self.key.sign(message)
    }

    fn decrypt(&self, ciphertext: &[u8]) -> Result<Secret, RsaError> {
        match self.usage {
            RsaUse::Sign => Err(RsaError::Failed),
            RsaUse::SignAndDecrypt => self.key.decrypt(ciphertext),
        }
    }
}

struct SoftwareCmac {
    cipher: BlockCipher,
    key: Secret,
}

impl CmacKey for SoftwareCmac {
    fn cipher(&self) -> BlockCipher {
        self.cipher
    }

    fn key_len(&self) -> usize {
        self.key.len()
    }

    fn cmac(&self, data: &[u8]) -> Result<Secret, CipherError> {
        AwsLc.cmac(self.cipher, &self.key, data)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::MemoryStorage;

    fn vault(storage: impl VaultStorage + 'static) -> FileVault {
        FileVault::new(storage, testkit::rng::seeded(1))
    }

    fn refused<T>(result: Result<T, HsmError>) -> &'static str {
        result.err().map_or("nothing: it succeeded", |error| error.check())
    }

    fn stored(name: &str, bytes: &[u8]) -> MemoryStorage {
        let storage = MemoryStorage::new();
        storage.create(name, &Secret::copied_from(bytes)).unwrap();
        storage
    }

    #[test]
    fn a_damaged_key_is_named_and_not_replaced() {
        for bytes in [
            &b""[..],
            b"CSK1",
            b"CSK2\x030123456789abcdef",
            b"CSK1\x000123456789abcdef",
            b"CSK1\x050123456789abcdef",
            b"CSK1\x03too short",
            b"CSK1\x01no PKCS#8",
        ] {
            let vault = vault(stored("key", bytes));
            let opened = [refused(vault.rsa_open("key")), refused(vault.cmac_open("key"))];
            assert!(opened.contains(&"key-damaged"), "{bytes:?}: {opened:?}");
            assert_ne!(refused(vault.storage_key("key")), "nothing: it succeeded");
            let generated = vault.rsa_generate("key", RsaUse::Sign, 2048);
            assert_eq!(refused(generated), "label-taken");
            assert_eq!(vault.storage.load("key").unwrap().unwrap().expose(), bytes);
        }
    }

    /// A storage in which another program is always faster, or whose disk fails.
    struct Faulty {
        inner: MemoryStorage,
        faster: Option<Secret>,
    }

    impl VaultStorage for Faulty {
        fn names(&self) -> Result<Vec<String>, StorageError> {
            self.inner.names()
        }

        fn load(&self, name: &str) -> Result<Option<Secret>, StorageError> {
            self.inner.load(name)
        }

        fn create(&self, name: &str, _: &Secret) -> Result<(), StorageError> {
            let Some(faster) = &self.faster else {
                return Err(io::Error::from(io::ErrorKind::StorageFull).into());
            };
            self.inner.create(name, faster)?;
            Err(StorageError::Taken)
        }

        fn delete(&self, _: &str) -> Result<(), StorageError> {
            Err(io::Error::from(io::ErrorKind::PermissionDenied).into())
        }
    }

    #[test]
    fn a_failing_storage_gives_no_key() {
        let faulty = vault(Faulty { inner: MemoryStorage::new(), faster: None });
        assert_eq!(refused(faulty.rsa_generate("key", RsaUse::Sign, 2048)), "key-storage");
        assert_eq!(refused(faulty.storage_key("key")), "key-storage");
        let import = faulty.cmac_import("key", BlockCipher::Aes, Secret::new(vec![1; 16]));
        assert_eq!(refused(import), "key-storage");
        assert_eq!(refused(faulty.rsa_open("key")), "label-unknown");
        let kept = encode(KeyKind::Cmac(BlockCipher::Aes), &Secret::new(vec![2; 32]));
        let faulty = vault(Faulty { inner: stored("kek", kept.expose()), faster: None });
        assert_eq!(refused(faulty.cmac_delete("kek")), "key-storage");
        assert!(faulty.cmac_open("kek").is_ok(), "what was not deleted is there");
    }

    #[test]
    fn of_two_that_make_a_key_the_first_has_made_it() {
        let theirs = Secret::new(vec![3; 32]);
        let faster = || Some(encode(KeyKind::Cmac(BlockCipher::Aes), &theirs));
        let raced = vault(Faulty { inner: MemoryStorage::new(), faster: faster() });
        assert_eq!(refused(raced.rsa_generate("key", RsaUse::Sign, 2048)), "label-taken");
        let raced = vault(Faulty { inner: MemoryStorage::new(), faster: faster() });
        let held = raced.storage_key("key").unwrap();
        let wanted = AwsLc.cmac(BlockCipher::Aes, &theirs, b"x").unwrap();
        assert!(held.cmac(b"x").unwrap().ct_eq(wanted.expose()));
    }

    #[test]
    fn it_holds_so_many_and_no_more() {
        let storage = MemoryStorage::new();
        for number in 0..LABELS_MAX {
            storage.create(&number.to_string(), &Secret::new(Vec::new())).unwrap();
        }
        let vault = vault(storage);
        assert_eq!(refused(vault.storage_key("more")), "vault-full");
        vault.storage.delete("0").unwrap();
        assert!(vault.storage_key("more").is_ok());
    }
}
