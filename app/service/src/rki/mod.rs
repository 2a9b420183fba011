//! Remote key injection, the operator's part (E1, E2): the vault, the RSA hierarchy and its CRLs,
//! terminals, rebind campaigns.

mod binding;
mod crl;
mod enrolment;
mod hierarchy;
mod making;
mod operate;
mod rebind;
mod terminals;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_hsm::{HsmError, RsaUse, Vault};
use tokio::sync::{OnceCell, Semaphore};
use tr31::CmacKey;
use tr34::{Rsa, RsaKey};

use crate::{Service, ServiceError};

pub use binding::{BoundAnswer, Rebind};
pub use crl::CrlHealth;
pub use enrolment::{EnrolledTerminal, TerminalRequest, WRONG_CODES_MAX};
pub use hierarchy::{Hierarchy, OlderKdh};
pub use operate::{AuthorityStatus, RkiStatus};
pub use terminals::{AllowedTerminal, Terminal};

/// The label of the key under which everything symmetric lies in the database.
pub const STORAGE_KEY_LABEL: &str = "storage";
/// What the storage key's check value is computed over.
const STORAGE_KEY_CHECK: &[u8] = b"countersign storage key v1";
/// Bytes of the check value that the database keeps.
const CHECK_VALUE_LEN: usize = 8;
/// Operations of the vault, or on RSA keys, that run at once; more wait.
const BLOCKING_MAX: usize = 16;

/// How long what key injection hands out holds.
#[derive(Debug, Clone)]
pub struct RkiPolicy {
    /// A CRL, from its making to its end. It is made anew when half of this is over.
    pub crl_validity: Duration,
    /// A KDH's certificate.
    pub kdh_validity: Duration,
    /// A terminal's RSA certificate.
    pub krd_validity: Duration,
    /// A terminal's enrolment code.
    pub code_validity: Duration,
}

impl Default for RkiPolicy {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Self {
            crl_validity: DAY * 7,
            kdh_validity: DAY * 3 * 365,
            krd_validity: DAY * 5 * 365,
            code_validity: DAY * 3,
        }
    }
}

/// What the service holds for key injection.
#[derive(Default)]
pub(crate) struct Rki {
    custody: Option<Custody>,
    storage_key: OnceCell<Arc<dyn CmacKey>>,
    /// Private keys that were opened, by label.
    keys: Mutex<HashMap<String, Arc<dyn RsaKey>>>,
    hierarchy: Mutex<Option<Arc<Hierarchy>>>,
    /// How the CRLs were when they were last looked at.
    crls: Mutex<Option<CrlHealth>>,
    slots: Slots,
}

/// No hierarchy was made.
pub(crate) fn not_initialised() -> ServiceError {
    let detail = "there is no injection hierarchy: run `countersign rki init` first";
    ServiceError::refused("rki-not-initialised", detail)
}

/// Where private keys live, and RSA for public ones.
struct Custody {
    vault: Arc<dyn Vault>,
    rsa: Arc<dyn Rsa>,
}

/// How much blocking work runs at once.
struct Slots(Arc<Semaphore>);

impl Default for Slots {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BLOCKING_MAX)))
    }
}

impl From<HsmError> for ServiceError {
    fn from(error: HsmError) -> Self {
        if error.is_environment() {
            return Self::Unavailable { detail: error.to_string() };
        }
        Self::refused(error.check(), error.to_string())
    }
}

impl Service {
    /// The same with a vault, and with RSA for the public keys. Without these, key injection is
    /// not available.
    #[must_use]
    pub fn with_vault(mut self, vault: Arc<dyn Vault>, rsa: Arc<dyn Rsa>) -> Self {
        self.rki.custody = Some(Custody { vault, rsa });
        self
    }

    /// Where private and symmetric keys of injection live. Its operations block: see
    /// [`Self::in_vault`].
    ///
    /// # Errors
    /// [`ServiceError::Unavailable`] in a service without one.
    pub fn vault(&self) -> Result<&Arc<dyn Vault>, ServiceError> {
        self.custody().map(|custody| &custody.vault)
    }

    /// RSA with public keys.
    ///
    /// # Errors
    /// As [`Self::vault`].
    pub fn rsa(&self) -> Result<&Arc<dyn Rsa>, ServiceError> {
        self.custody().map(|custody| &custody.rsa)
    }

    fn custody(&self) -> Result<&Custody, ServiceError> {
        let absent = || ServiceError::Unavailable { detail: "this server has no vault".into() };
        self.rki.custody.as_ref().ok_or_else(absent)
    }

    /// Works with the vault on a thread that may block.
    ///
    /// # Errors
    /// The vault's.
    pub async fn in_vault<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Vault) -> Result<T, HsmError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let vault = self.vault()?.clone();
        self.blocking(move || Ok(work(&*vault)?)).await
    }

    /// Does what takes long, such as RSA with a private key, on a thread that may block; a bounded
    /// number at once.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let internal = |detail: String| ServiceError::Internal { detail };
        let slots = self.rki.slots.0.clone();
        let slot = slots.acquire_owned().await.map_err(|error| internal(error.to_string()))?;
        let worked = tokio::task::spawn_blocking(move || {
            let _slot = slot; // given back when the work is done, also if nobody waits for it
            work()
        });
        worked.await.map_err(|error| internal(error.to_string()))?
    }

    /// The key under which every symmetric key lies in the database, as a TR-31 block of version D:
    /// AES-256, made in the vault when it is first asked for. The database knows its check value.
    ///
    /// # Errors
    /// `storage-key-differs` if this vault's key is not the one that the database was begun with.
    pub async fn storage_key(&self) -> Result<Arc<dyn CmacKey>, ServiceError> {
        self.rki.storage_key.get_or_try_init(|| self.open_storage_key()).await.cloned()
    }

    async fn open_storage_key(&self) -> Result<Arc<dyn CmacKey>, ServiceError> {
        let vault = self.vault()?.clone();
        let (key, check) = self
            .blocking(move || {
                let key = vault.storage_key(STORAGE_KEY_LABEL)?;
                let failed = |_| ServiceError::Internal { detail: "the storage key fails".into() };
                let whole = key.cmac(STORAGE_KEY_CHECK).map_err(failed)?;
                Ok((key, whole.expose()[..CHECK_VALUE_LEN].to_vec()))
            })
            .await?;
        let (now, value) = (self.now(), check.clone());
        let kept = self
            .store
            .run_tx("keep_storage_key", move |tx| {
                Ok::<_, ServiceError>(tx.keep_storage_key(STORAGE_KEY_LABEL, &value, now)?)
            })
            .await?;
        if kept != check {
            let detail = "the vault's storage key is not the one that this database was begun with";
            return Err(ServiceError::refused("storage-key-differs", detail));
        }
        Ok(key)
    }

    /// An RSA key of the vault by its label, opened once. With `bits` it is made if it is not
    /// there.
    pub(crate) async fn rsa_key(
        &self,
        label: &str,
        bits: Option<u32>,
    ) -> Result<Arc<dyn RsaKey>, ServiceError> {
        let held = || self.rki.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = held().get(label) {
            return Ok(key.clone());
        }
        let name = label.to_owned();
        let key = self
            .in_vault(move |vault| match (vault.rsa_open(&name), bits) {
                (Err(HsmError::LabelUnknown(_)), Some(bits)) => {
                    match vault.rsa_generate(&name, RsaUse::Sign, bits) {
                        // Another server makes the same one at this moment.
                        Err(HsmError::LabelTaken(_)) => vault.rsa_open(&name),
                        made => made,
                    }
                }
                (opened, _) => opened,
            })
            .await?;
        held().insert(label.to_owned(), key.clone());
        Ok(key)
    }
}
