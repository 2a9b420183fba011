//! What a step of a case gets.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign_hsm::{FileVault, HsmError, MemoryStorage, Vault};

/// What a vault can do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Able {
    /// Everything.
    All,
    /// No TDES: a token.
    #[cfg_attr(not(feature = "pkcs11"), expect(dead_code, reason = "tokens only"))]
    NoTdes,
    /// No TDES, and OAEP with SHA-1 only: SoftHSM2 2.6.
    NoTdesNoOaepSha256,
}

pub(crate) struct Stage {
    pub(crate) vault: Arc<dyn Vault>,
    pub(crate) able: Able,
    folder: PathBuf,
}

pub(crate) fn storage() -> Arc<MemoryStorage> {
    Arc::new(MemoryStorage::new())
}

impl Stage {
    pub(crate) fn over_files(storage: &Arc<MemoryStorage>, folder: &Path, seed: usize) -> Self {
        let rng = testkit::rng::seeded(seed as u64);
        let vault = Arc::new(FileVault::new(Arc::clone(storage), rng));
        Self { vault, able: Able::All, folder: folder.to_owned() }
    }

    #[cfg(feature = "pkcs11")]
    pub(crate) fn over_token(vault: Arc<dyn Vault>, able: Able, folder: &Path) -> Self {
        Self { vault, able, folder: folder.to_owned() }
    }

    /// Leaves something for the next step.
    pub(crate) fn note(&self, name: &str, bytes: &[u8]) {
        fs::write(self.folder.join(name), bytes).unwrap();
    }

    /// What an earlier step left.
    pub(crate) fn noted(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.join(name)).unwrap()
    }

    pub(crate) fn labels(&self) -> Vec<String> {
        self.vault.labels().unwrap().into_iter().map(|key| key.label).collect()
    }
}

/// The name of the check that refused.
pub(crate) fn refused<T>(result: Result<T, HsmError>) -> &'static str {
    match result {
        Ok(_) => "nothing: it succeeded",
        Err(error) => error.check(),
    }
}
