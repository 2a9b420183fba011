//! Loaded modules. A module has one state per process, whoever uses it: it is initialised once,
//! and to start it again everyone has to be out of it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};

use crate::HsmError;

/// What this process has loaded. The standard makes a module's state the process's own, so this is
/// no more global than that.
static LOADED: Mutex<Vec<(PathBuf, Arc<Module>)>> = Mutex::new(Vec::new());

pub(super) struct Module {
    library: Pkcs11,
    /// Counts starts. Who uses the module holds it for reading; sessions of another start are dead.
    starts: RwLock<u64>,
}

/// The module in use; it is not started again meanwhile.
pub(super) type InUse<'a> = RwLockReadGuard<'a, u64>;

impl Module {
    /// Loads the module, if it is not, and initialises it. True if this process had it already.
    ///
    /// # Errors
    /// [`HsmError::Module`].
    pub(super) fn load(path: &Path) -> Result<(Arc<Self>, bool), HsmError> {
        // The same file by another name is the same module.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, module)) = loaded.iter().find(|(known, _)| *known == path) {
            return Ok((Arc::clone(module), true));
        }
        let library = Pkcs11::new(&path).map_err(|error| HsmError::Module(error.to_string()))?;
        initialize(&library)?;
        let module = Arc::new(Self { library, starts: RwLock::new(0) });
        loaded.push((path, Arc::clone(&module)));
        Ok((module, false))
    }

    pub(super) fn library(&self) -> &Pkcs11 {
        &self.library
    }

    pub(super) fn enter(&self) -> InUse<'_> {
        self.starts.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the module and starts it, unless another did since `seen`. Some modules see a token
    /// that came back, or a server that they reach again, only so. Waits until all are out of it.
    ///
    /// # Errors
    /// [`HsmError::Module`].
    pub(super) fn restart(&self, seen: u64) -> Result<(), HsmError> {
        let mut starts = self.starts.write().unwrap_or_else(PoisonError::into_inner);
        if *starts != seen {
            return Ok(());
        }
        // It may have been ended by others; starting it says what is wrong.
        let _ended = self.library.clone().finalize();
        *starts += 1;
        initialize(&self.library)
    }
}

/// Threads lock with the system's means.
fn initialize(library: &Pkcs11) -> Result<(), HsmError> {
    match library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
        Err(error) => Err(HsmError::Module(error.to_string())),
    }
}
