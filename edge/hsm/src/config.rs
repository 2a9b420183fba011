use std::path::PathBuf;
use std::sync::Arc;

use countersign_crypto::{CryptoRng, Secret};

use crate::{HsmError, Vault};

/// Which token of a module's slots.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TokenName {
    /// The one with this label.
    Label(String),
    /// The one with this serial number.
    Serial(String),
}

impl std::fmt::Display for TokenName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Label(label) => write!(f, "labelled {label}"),
            Self::Serial(serial) => write!(f, "with the serial number {serial}"),
        }
    }
}

/// How a token is reached. `Debug` shows no PIN.
#[derive(Debug)]
pub struct Pkcs11Config {
    /// The module: a shared library. It is loaded into this process with all that this means.
    pub module: PathBuf,
    /// The token.
    pub token: TokenName,
    /// The PIN of its user.
    pub pin: Secret,
}

/// Opens a token as `Pkcs11Vault::open` does. It is there without the feature `pkcs11` too, so that
/// callers need not tell builds apart.
///
/// # Errors
/// [`HsmError::NotBuilt`] without the feature; else as `Pkcs11Vault::open`.
#[cfg_attr(not(feature = "pkcs11"), expect(unused_variables, reason = "nothing to open it with"))]
pub fn open_token(
    config: Pkcs11Config,
    rng: impl CryptoRng + Send + 'static,
) -> Result<Arc<dyn Vault>, HsmError> {
    #[cfg(feature = "pkcs11")]
    return Ok(Arc::new(crate::Pkcs11Vault::open(config, rng)?));
    #[cfg(not(feature = "pkcs11"))]
    Err(HsmError::NotBuilt)
}

#[cfg(all(test, not(feature = "pkcs11")))]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_pkcs11_says_so() {
        let config = Pkcs11Config {
            module: PathBuf::from("module.so"),
            token: TokenName::Label("hsm".into()),
            pin: Secret::copied_from(b"1234"),
        };
        let error = open_token(config, testkit::rng::seeded(1)).err().unwrap();
        assert_eq!(error.check(), "pkcs11-not-built");
        assert!(error.to_string().contains("pkcs11"), "{error}");
    }
}
