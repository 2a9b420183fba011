//! The data directory: its files, how it is made and how it is opened.
//!
//! ```text
//! DIR/            0700
//!   COUNTERSIGN   marker with the format's version and the suite
//!   config.toml   settings
//!   risk.toml     rules over readers
//!   ca/           certificates, PEM
//!   tls/          the HTTPS tree, PEM, and its names
//!   keys/         private keys, sealed, and how the sealing key is derived
//!   keys/vault/   keys of injection, sealed, unless they live in a PKCS#11 token
//!   audit/        signed checkpoints of the audit, outside the store
//!   store.sqlite  unless PostgreSQL is used
//!   passphrase    0600, only if nobody gave one
//! ```

mod encryption;
mod files;
mod new;
mod vault;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign_crypto::{CryptoRng, Provider, Secret, SecureElement, Suite, UnixTime, aws_lc};
use countersign_hsm::{HsmError, Vault};
use countersign_pki::{PkiError, TlsName, certified_point};
use countersign_service::{Authority, RiskRules, STORAGE_KEY_LABEL, Webhooks};
use pem::Pem;
use thiserror::Error;

use self::encryption::ENCRYPTION;
use self::files::{io_error, read_bytes, read_text, replace};
pub use self::new::{Init, NewDataDir};
use crate::ca::{Maker, TLS_RENEW_BEFORE, https_provider};
use crate::config::Config;
use crate::risk_file::{INITIAL_RULES, parse_rules};
use crate::seal::{Derivation, SealError, Sealer};
use crate::webhook_client::HttpWebhooks;

const MARKER: &str = "COUNTERSIGN";
const FORMAT: &str = "countersign data directory, format 1\n";
const KDF: &str = "keys/derivation.toml";
const TLS_NAMES: &str = "tls/names";
/// The rules over readers.
const RISK: &str = "risk.toml";
/// Mode bits that let others than its owner into the directory.
const OTHERS: u32 = 0o077;

/// Why a data directory could not be made or opened.
#[derive(Debug, Error)]
pub enum DataError {
    /// There is none.
    #[error("{0} is not there: run `countersign init --data {0}` first")]
    Absent(PathBuf),
    /// `init` was asked to overwrite something.
    #[error("{0} exists and is not empty: init makes a new data directory only")]
    NotEmpty(PathBuf),
    /// The directory belongs to something else.
    #[error("{0} is not a Countersign data directory (it has no {MARKER} file): left untouched")]
    NotOurs(PathBuf),
    /// Made by another version of the program.
    #[error("{dir} has a format this program does not know: {found:?}")]
    UnknownFormat {
        /// The directory.
        dir: PathBuf,
        /// What its marker says.
        found: String,
    },
    /// Made by an earlier version of the program, or restored without this file; the next start
    /// of the server completes it.
    #[error("{0} is not there: start the server once, `countersign serve`, which makes it")]
    Outdated(PathBuf),
    /// Others than its owner may look into the directory.
    #[error("{dir} is open to others (mode {mode:03o}): run `chmod 700 {dir}`")]
    Exposed {
        /// The directory.
        dir: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The directory is another user's.
    #[error("{dir} belongs to the user with id {owner}: run this as that user")]
    OtherOwner {
        /// The directory.
        dir: PathBuf,
        /// The owner's user id.
        owner: u32,
    },
    /// `config.toml` does not parse.
    #[error("{path}: {detail}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Line and field.
        detail: String,
    },
    /// `risk.toml` holds no rules that fit.
    #[error("{path}: {detail}")]
    Rules {
        /// The file.
        path: PathBuf,
        /// Line, rule and field.
        detail: String,
    },
    /// The keys cannot be opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A certificate or key of the directory is damaged.
    #[error("{path}: {detail}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The vault that `[keys]` names cannot be opened.
    #[error("the vault: {0}")]
    Vault(#[from] HsmError),
    /// Making certificates failed.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DataError {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            Self::Absent(_) => "data-absent",
            Self::NotEmpty(_) => "data-not-empty",
            Self::NotOurs(_) => "data-not-ours",
            Self::UnknownFormat { .. } => "data-format",
            Self::Outdated(_) => "data-outdated",
            Self::Exposed { .. } => "data-permissions",
            Self::OtherOwner { .. } => "data-owner",
            Self::Config { .. } => "config",
            Self::Rules { .. } => "risk-rules",
            Self::Seal(_) => "passphrase",
            Self::Damaged { .. } => "data-damaged",
            Self::Vault(error) => error.check(),
            Self::Pki(error) => error.check(),
            Self::Io { .. } => "io",
        }
    }

    /// Whether the environment is to blame, rather than what the caller gave.
    #[must_use]
    pub const fn is_environment(&self) -> bool {
        match self {
            Self::Io { .. } => true,
            Self::Vault(error) => error.is_environment(),
            _ => false,
        }
    }
}

/// An opened data directory.
pub struct DataDir {
    path: PathBuf,
    suite: Suite,
    /// Its settings.
    pub config: Config,
}

/// What opening the keys gives.
pub struct Keys {
    /// The CA, the server's identity and the audit key.
    pub authority: Authority,
    /// The HTTPS certificate, DER, and its key, PKCS#8.
    pub tls: (Vec<u8>, Secret),
    sealer: Arc<Sealer>,
}

impl DataDir {
    /// Checks the marker, that the directory is its owner's alone, and reads the settings. Keys
    /// stay closed.
    ///
    /// # Errors
    /// [`DataError`].
    pub fn open(path: &Path) -> Result<Self, DataError> {
        if !path.exists() {
            return Err(DataError::Absent(path.to_owned()));
        }
        let found = match read_text(&path.join(MARKER)) {
            Ok(found) => found,
            Err(DataError::Io { source, .. })
                if matches!(
                    source.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(DataError::NotOurs(path.to_owned()));
            }
            Err(error) => return Err(error),
        };
        let Some(suite) = Suite::known().find(|suite| found == marker(*suite)) else {
            return Err(DataError::UnknownFormat { dir: path.to_owned(), found });
        };
        let dir = fs::metadata(path).map_err(io_error(path))?;
        check_access(path, dir.mode(), dir.uid(), rustix::process::geteuid().as_raw())?;
        let config_path = path.join("config.toml");
        let config = Config::parse(&read_text(&config_path)?)
            .and_then(|config| config.check(suite).map(|()| config))
            .map_err(|detail| DataError::Config { path: config_path, detail })?;
        Ok(Self { path: path.to_owned(), suite, config })
    }

    /// The suite of the devices' certificates and handshakes, as `init` chose it.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// The suite's algorithms.
    ///
    /// # Panics
    /// Never: a directory of a suite that this program does not have is not opened.
    #[must_use]
    pub fn provider(&self) -> Provider {
        aws_lc::provider_of(self.suite).expect("a known suite has a provider")
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The SQLite file.
    #[must_use]
    pub fn store_path(&self) -> PathBuf {
        self.path.join("store.sqlite")
    }

    /// The file of signed audit checkpoints.
    #[must_use]
    pub fn checkpoints_path(&self) -> PathBuf {
        self.path.join("audit/checkpoints")
    }

    /// The rules over readers. A directory from before there were such has the initial ones.
    ///
    /// # Errors
    /// [`DataError::Rules`] with line, rule and field.
    pub fn risk_rules(&self) -> Result<RiskRules, DataError> {
        let path = self.path.join(RISK);
        let text = match read_text(&path) {
            Err(DataError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                INITIAL_RULES.to_owned()
            }
            read => read?,
        };
        parse_rules(&text).map_err(|detail| DataError::Rules { path, detail })
    }

    /// What webhooks need: the policy, the client with its roots.
    ///
    /// # Errors
    /// [`DataError::Config`] if the file of roots cannot be read or holds none.
    pub fn webhooks(&self) -> Result<Webhooks, DataError> {
        let config = &self.config.webhooks;
        let roots = config.roots.as_ref().map(|roots| self.path.join(roots));
        let client = Arc::new(HttpWebhooks::new(roots.as_deref())?);
        Ok(Webhooks { policy: config.policy(), client, mac: aws_lc::provider().mac })
    }

    /// The passphrase that `init` made up, if it did.
    ///
    /// # Errors
    /// The system's, other than that there is none.
    pub fn kept_passphrase(&self) -> Result<Option<Secret>, DataError> {
        match read_bytes(&self.path.join("passphrase")) {
            Ok(bytes) => Ok(Some(Secret::new(bytes))),
            Err(DataError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A certificate of the directory as PEM, by its name in `ca/` or `tls/`.
    ///
    /// # Errors
    /// The system's; [`DataError::Outdated`] for the server's encryption certificate where a start
    /// of the server makes it, [`DataError::Damaged`] where its key is lost too.
    pub fn certificate_pem(&self, name: &str) -> Result<String, DataError> {
        let path = self.path.join(name);
        match read_text(&path) {
            Err(DataError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound
                    && name == certificate_path(ENCRYPTION) =>
            {
                Err(self.lacks_encryption())
            }
            read => read,
        }
    }

    /// Opens the keys and checks that they are those of the certificates.
    ///
    /// With `renew`, which is the randomness for it, replaces an HTTPS certificate that is about to
    /// expire or is not that of the HTTPS key, and certifies the server's encryption key anew if
    /// its certificate is lost; without, writes nothing.
    ///
    /// # Errors
    /// [`SealError::WrongPassphrase`]; [`DataError::Damaged`]; [`DataError::Outdated`], with
    /// `renew` only where `make_encryption_key` is to make the key.
    pub fn open_keys(
        &self,
        passphrase: &Secret,
        now: UnixTime,
        mut renew: Option<&mut dyn CryptoRng>,
    ) -> Result<Keys, DataError> {
        let (provider, sealer) = (&self.provider(), self.sealer(passphrase)?);
        let root = self.certificate("ca/root.pem")?;
        let server = self.certificate("ca/server.pem")?;
        self.secret(&sealer, "server")?; // a wrong passphrase is told first
        let maker = renew.as_deref_mut().map(|rng| Maker { provider, rng, now });
        self.complete_encryption(&sealer, &server, maker)?;
        let server_id = self.server_id(&server, &root, provider, now)?;
        let device_issuer = self.certificate("ca/devices.pem")?;
        let authority = Authority {
            device_issuer_key: self.certified_key(&sealer, "devices", &device_issuer, provider)?,
            device_issuer,
            server_issuer: self.certificate("ca/servers.pem")?,
            server_key: self.certified_key(&sealer, "server", &server, provider)?,
            server_encryption: self.server_encryption(&sealer, provider)?,
            audit_key: self.key(&sealer, "audit", provider)?,
            provider: provider.clone(),
            root,
            server,
            server_id,
        };
        let tls = match renew {
            Some(rng) => {
                self.live_tls(&sealer, &mut Maker { provider: &https_provider(), rng, now })?
            }
            None => self.stored_tls(&sealer)?,
        };
        Ok(Keys { authority, tls, sealer: Arc::new(sealer) })
    }

    /// The vault that holds the keys of injection, as `[keys]` says.
    ///
    /// # Errors
    /// [`DataError::Vault`]: the token's; [`DataError::Io`] for the file with its PIN.
    pub fn open_vault(&self, keys: &Keys) -> Result<Arc<dyn Vault>, DataError> {
        vault::open(&self.path, &self.config.keys, keys.sealer.clone())
    }

    /// Makes the key under which the database's symmetric keys will lie, unless it is there.
    ///
    /// # Errors
    /// As [`DataDir::open_vault`].
    pub fn make_storage_key(&self, keys: &Keys) -> Result<(), DataError> {
        self.open_vault(keys)?.storage_key(STORAGE_KEY_LABEL)?;
        Ok(())
    }

    fn sealer(&self, passphrase: &Secret) -> Result<Sealer, DataError> {
        let path = self.path.join(KDF);
        let derivation: Derivation = toml::from_str(&read_text(&path)?)
            .map_err(|error| DataError::Damaged { path, detail: error.to_string() })?;
        Ok(derivation.derive(passphrase)?)
    }

    fn server_id(
        &self,
        server: &[u8],
        root: &[u8],
        provider: &Provider,
        now: UnixTime,
    ) -> Result<String, DataError> {
        let mut trust = countersign_pki::TrustStore::new(provider.clone());
        let issuer = self.certificate("ca/servers.pem")?;
        let role = countersign_pki::Role::Server;
        trust.trust(root, &issuer, role, now)?;
        let leaf = trust.verify(server, role, now, None)?;
        let certificate = self.certificate(&certificate_path(ENCRYPTION))?;
        let second = trust.verify_encryption(&certificate, role, now, None)?;
        if second.identity() != leaf.identity() {
            return Err(self.foreign_key(ENCRYPTION));
        }
        Ok(leaf.identity().id().to_owned())
    }

    fn stored_tls(&self, sealer: &Sealer) -> Result<(Vec<u8>, Secret), DataError> {
        Ok((self.certificate("tls/server.pem")?, self.secret(sealer, "tls")?))
    }

    /// The HTTPS certificate and key, made anew if they are of no use.
    fn live_tls(
        &self,
        sealer: &Sealer,
        maker: &mut Maker<'_>,
    ) -> Result<(Vec<u8>, Secret), DataError> {
        let (certificate, secret) = self.stored_tls(sealer)?;
        let not_after = countersign_pki::not_after(&certificate)?;
        let key = self.load(&secret, "tls", maker.provider)?;
        let matches = certified_point(maker.provider, &certificate)? == key.public_key();
        if matches && not_after > maker.now.plus(TLS_RENEW_BEFORE) {
            return Ok((certificate, secret));
        }
        let names = names_from_text(&self.certificate_pem(TLS_NAMES)?);
        let root_key = self.key(sealer, "tls-root", maker.provider)?;
        let made = maker.tls(&self.certificate("tls/root.pem")?, &*root_key, &names)?;
        let sealed = sealer.seal("tls", &made.key.pkcs8, maker.rng)?;
        // Two files: a crash in between leaves a key that is not the certificate's, which the next
        // start sees above and renews again.
        replace(&self.path.join(key_path("tls")), &sealed)?;
        replace(&self.path.join("tls/server.pem"), to_pem(&made.certificate).as_bytes())?;
        Ok((made.certificate, made.key.pkcs8))
    }

    fn certificate(&self, name: &str) -> Result<Vec<u8>, DataError> {
        let path = self.path.join(name);
        let text = read_text(&path)?;
        let damaged = |detail: String| DataError::Damaged { path: path.clone(), detail };
        let pem = pem::parse(&text).map_err(|error| damaged(error.to_string()))?;
        if pem.tag() != "CERTIFICATE" {
            return Err(damaged("not a certificate".into()));
        }
        Ok(pem.into_contents())
    }

    fn secret(&self, sealer: &Sealer, name: &str) -> Result<Secret, DataError> {
        Ok(sealer.open(name, &read_bytes(&self.path.join(key_path(name)))?)?)
    }

    fn key(
        &self,
        sealer: &Sealer,
        name: &str,
        provider: &Provider,
    ) -> Result<Arc<dyn SecureElement>, DataError> {
        self.load(&self.secret(sealer, name)?, name, provider)
    }

    fn load(
        &self,
        secret: &Secret,
        name: &str,
        provider: &Provider,
    ) -> Result<Arc<dyn SecureElement>, DataError> {
        provider
            .signature
            .load_pkcs8(secret)
            .map_err(|error| self.damaged_key(name, error.to_string()))
    }

    /// The key that `certificate` certifies.
    fn certified_key(
        &self,
        sealer: &Sealer,
        name: &str,
        certificate: &[u8],
        provider: &Provider,
    ) -> Result<Arc<dyn SecureElement>, DataError> {
        let key = self.key(sealer, name, provider)?;
        if certified_point(provider, certificate)? == key.public_key() {
            Ok(key)
        } else {
            Err(self.foreign_key(name))
        }
    }

    fn foreign_key(&self, name: &str) -> DataError {
        self.damaged_key(name, format!("this is not the key of ca/{name}.pem"))
    }

    fn damaged_key(&self, name: &str, detail: String) -> DataError {
        DataError::Damaged { path: self.path.join(key_path(name)), detail }
    }
}

/// The directory must be its owner's alone, and the owner the one who runs this: files that
/// another user makes in it (root, say) could shut its owner out.
fn check_access(path: &Path, mode: u32, owner: u32, user: u32) -> Result<(), DataError> {
    if owner != user {
        return Err(DataError::OtherOwner { dir: path.to_owned(), owner });
    }
    let mode = mode & 0o777;
    if mode & OTHERS != 0 {
        return Err(DataError::Exposed { dir: path.to_owned(), mode });
    }
    Ok(())
}

/// What the marker says. It has said no suite since before there was a second one: a program of
/// that time takes no directory whose keys it could not use.
fn marker(suite: Suite) -> String {
    match suite {
        Suite::X25519_P256_AES128GCM_SHA256 => FORMAT.to_owned(),
        other => format!("{FORMAT}suite {}\n", other.name().unwrap_or("unknown")),
    }
}

fn certificate_path(name: &str) -> String {
    format!("ca/{name}.pem")
}

fn key_path(name: &str) -> String {
    format!("keys/{name}.sealed")
}

fn to_pem(der: &[u8]) -> String {
    pem::encode(&Pem::new("CERTIFICATE", der))
}

fn names_to_text(names: &[TlsName]) -> String {
    names.iter().map(|name| format!("{name}\n")).collect()
}

fn names_from_text(text: &str) -> Vec<TlsName> {
    text.lines().filter(|line| !line.is_empty()).map(parse_tls_name).collect()
}

/// An address if it parses as one, else a DNS name.
#[must_use]
pub fn parse_tls_name(text: &str) -> TlsName {
    text.parse().map_or_else(|_| TlsName::Dns(text.to_owned()), TlsName::Ip)
}

#[cfg(test)]
mod tests;
