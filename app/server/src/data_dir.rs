//! The data directory: its files, how it is made and how it is opened.
//!
//! ```text
//! DIR/            0700
//!   COUNTERSIGN   marker with the format's version
//!   config.toml   settings
//!   ca/           certificates, PEM
//!   tls/          the HTTPS tree, PEM, and its names
//!   keys/         private keys, sealed, and how the sealing key is derived
//!   audit/        signed checkpoints of the audit, outside the store
//!   store.sqlite  unless PostgreSQL is used
//!   passphrase    0600, only if nobody gave one
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign_crypto::{CryptoRng, Provider, Secret, SecureElement, UnixTime};
use countersign_pki::{PkiError, TlsName};
use countersign_service::Authority;
use pem::Pem;
use thiserror::Error;

use crate::ca::{Made, Maker, TLS_RENEW_BEFORE, Trees};
use crate::config::Config;
use crate::seal::{Derivation, SealError, Sealer};

const MARKER: &str = "COUNTERSIGN";
const FORMAT: &str = "countersign data directory, format 1\n";
const KDF: &str = "keys/derivation.toml";
const TLS_NAMES: &str = "tls/names";
/// Largest file of the directory that is read whole, in bytes.
const FILE_MAX: u64 = 1024 * 1024;

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
    /// `config.toml` does not parse.
    #[error("{path}: {detail}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Line and field.
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
            Self::Config { .. } => "config",
            Self::Seal(_) => "passphrase",
            Self::Damaged { .. } => "data-damaged",
            Self::Pki(error) => error.check(),
            Self::Io { .. } => "io",
        }
    }

    /// Whether the environment is to blame, rather than what the caller gave.
    #[must_use]
    pub const fn is_environment(&self) -> bool {
        matches!(self, Self::Io { .. })
    }
}

/// A data directory that is being made beside its final place; [`Self::publish`] puts it there at
/// once, so that a crash leaves either nothing or everything.
pub struct NewDataDir {
    building: PathBuf,
    target: PathBuf,
}

/// What a new data directory holds.
pub struct Init<'a> {
    /// Opens the keys.
    pub passphrase: &'a Secret,
    /// The passphrase was made up: leave it in the directory.
    pub keep_passphrase: bool,
    /// The id in the server's certificate, which readers are set up for.
    pub server_id: &'a str,
    /// Names in the HTTPS certificate.
    pub tls_names: &'a [TlsName],
    /// First settings.
    pub config: &'a Config,
}

impl NewDataDir {
    /// Makes everything but the store.
    ///
    /// # Errors
    /// [`DataError::NotEmpty`] and what making files may meet.
    pub fn build(
        target: &Path,
        init: &Init<'_>,
        provider: &Provider,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, DataError> {
        if is_occupied(target)? {
            return Err(DataError::NotEmpty(target.to_owned()));
        }
        let mut random = [0; 8];
        rng.fill_bytes(&mut random);
        let suffix = data_encoding::HEXLOWER.encode(&random);
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let building = target.with_file_name(format!(".{name}.init-{suffix}"));
        let new = Self { building, target: target.to_owned() };
        new.fill(init, provider, now, rng)?;
        Ok(new)
    }

    fn fill(
        &self,
        init: &Init<'_>,
        provider: &Provider,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), DataError> {
        make_dir(&self.building)?;
        for dir in ["ca", "tls", "keys", "audit"] {
            make_dir(&self.building.join(dir))?;
        }
        let trees = Maker { provider, rng, now }.trees(init.server_id, init.tls_names)?;
        let derivation = Derivation::fresh(rng);
        let sealer = derivation.derive(init.passphrase)?;
        let text = toml::to_string(&derivation).expect("numbers and short strings");
        self.write(KDF, text.as_bytes())?;
        self.write_trees(&trees, &sealer, rng)?;
        self.write(TLS_NAMES, names_to_text(init.tls_names).as_bytes())?;
        self.write("config.toml", init.config.initial().as_bytes())?;
        if init.keep_passphrase {
            self.write("passphrase", init.passphrase.expose())?;
        }
        self.write(MARKER, FORMAT.as_bytes())
    }

    fn write_trees(
        &self,
        trees: &Trees,
        sealer: &Sealer,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), DataError> {
        let made: [(&str, &str, &Made); 6] = [
            ("ca/root.pem", "root", &trees.root),
            ("ca/devices.pem", "devices", &trees.devices),
            ("ca/servers.pem", "servers", &trees.servers),
            ("ca/server.pem", "server", &trees.server),
            ("tls/root.pem", "tls-root", &trees.tls_root),
            ("tls/server.pem", "tls", &trees.tls),
        ];
        for (path, name, made) in made {
            self.write(path, to_pem(&made.certificate).as_bytes())?;
            self.write(&key_path(name), &sealer.seal(name, &made.key.pkcs8, rng)?)?;
        }
        self.write(&key_path("audit"), &sealer.seal("audit", &trees.audit.pkcs8, rng)?)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), DataError> {
        write_new(&self.building.join(name), bytes)
    }

    /// Where the store is to be made before [`Self::publish`].
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.building
    }

    /// Puts the directory in its place.
    ///
    /// # Errors
    /// [`DataError::NotEmpty`] if something appeared there meanwhile; the system's.
    pub fn publish(self) -> Result<PathBuf, DataError> {
        sync_dir(&self.building)?;
        fs::rename(&self.building, &self.target).map_err(|source| match source.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {
                DataError::NotEmpty(self.target.clone())
            }
            _ => DataError::Io { path: self.target.clone(), source },
        })?;
        let target = self.target.clone();
        if let Some(parent) = target.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_dir(parent)?;
        }
        Ok(target)
    }
}

impl Drop for NewDataDir {
    fn drop(&mut self) {
        // After publishing there is nothing left under this name.
        let _gone = fs::remove_dir_all(&self.building);
    }
}

/// An opened data directory.
pub struct DataDir {
    path: PathBuf,
    /// Its settings.
    pub config: Config,
}

/// What opening the keys gives.
pub struct Keys {
    /// The CA, the server's identity and the audit key.
    pub authority: Authority,
    /// The HTTPS certificate, DER, and its key, PKCS#8.
    pub tls: (Vec<u8>, Secret),
}

impl DataDir {
    /// Checks the marker and reads the settings. Keys stay closed.
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
        if found != FORMAT {
            return Err(DataError::UnknownFormat { dir: path.to_owned(), found });
        }
        let config_path = path.join("config.toml");
        let config = Config::parse(&read_text(&config_path)?)
            .map_err(|detail| DataError::Config { path: config_path, detail })?;
        Ok(Self { path: path.to_owned(), config })
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
    /// The system's.
    pub fn certificate_pem(&self, name: &str) -> Result<String, DataError> {
        read_text(&self.path.join(name))
    }

    /// Opens the keys. Replaces an HTTPS certificate that is about to expire.
    ///
    /// # Errors
    /// [`SealError::WrongPassphrase`]; [`DataError::Damaged`].
    pub fn open_keys(
        &self,
        passphrase: &Secret,
        provider: &Provider,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Keys, DataError> {
        let kdf_path = self.path.join(KDF);
        let derivation: Derivation = toml::from_str(&read_text(&kdf_path)?)
            .map_err(|error| DataError::Damaged { path: kdf_path, detail: error.to_string() })?;
        let sealer = derivation.derive(passphrase)?;
        let root = self.certificate("ca/root.pem")?;
        let server = self.certificate("ca/server.pem")?;
        let server_id = self.server_id(&server, &root, provider, now)?;
        let authority = Authority {
            device_issuer: self.certificate("ca/devices.pem")?,
            device_issuer_key: self.key(&sealer, "devices", provider)?,
            server_issuer: self.certificate("ca/servers.pem")?,
            server_key: self.key(&sealer, "server", provider)?,
            audit_key: self.key(&sealer, "audit", provider)?,
            provider: provider.clone(),
            root,
            server,
            server_id,
        };
        let tls = self.tls(&sealer, &mut Maker { provider, rng, now })?;
        Ok(Keys { authority, tls })
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
        trust.trust(root, &issuer, countersign_pki::Role::Server, now)?;
        let leaf = trust.verify(server, countersign_pki::Role::Server, now, None)?;
        Ok(leaf.identity().id().to_owned())
    }

    fn tls(&self, sealer: &Sealer, maker: &mut Maker<'_>) -> Result<(Vec<u8>, Secret), DataError> {
        let certificate = self.certificate("tls/server.pem")?;
        let not_after = countersign_pki::not_after(&certificate)?;
        if not_after > maker.now.plus(TLS_RENEW_BEFORE) {
            return Ok((certificate, self.secret(sealer, "tls")?));
        }
        let names = names_from_text(&self.certificate_pem(TLS_NAMES)?);
        let root_key = self.key(sealer, "tls-root", maker.provider)?;
        let made = maker.tls(&self.certificate("tls/root.pem")?, &*root_key, &names)?;
        let sealed = sealer.seal("tls", &made.key.pkcs8, maker.rng)?;
        // Certificate and key are two files: the key goes first, and a crash in between shows at
        // the next start as a key that does not match, which renews again.
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
        let secret = self.secret(sealer, name)?;
        provider.signature.load_pkcs8(&secret).map_err(|error| DataError::Damaged {
            path: self.path.join(key_path(name)),
            detail: error.to_string(),
        })
    }
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

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> DataError + '_ {
    |source| DataError::Io { path: path.to_owned(), source }
}

fn is_occupied(path: &Path) -> Result<bool, DataError> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(true),
        Err(error) => Err(io_error(path)(error)),
    }
}

fn make_dir(path: &Path) -> Result<(), DataError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error(path))
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(io_error(path))
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(&new)(error)),
        _ => {}
    }
    write_new(&new, bytes)?;
    fs::rename(&new, path).map_err(io_error(path))
}

fn sync_dir(path: &Path) -> Result<(), DataError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(io_error(path))
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, DataError> {
    let read = || {
        let len = fs::metadata(path)?.len();
        if len > FILE_MAX {
            return Err(io::Error::other("the file is larger than any of ours"));
        }
        fs::read(path)
    };
    read().map_err(io_error(path))
}

fn read_text(path: &Path) -> Result<String, DataError> {
    String::from_utf8(read_bytes(path)?)
        .map_err(|_| DataError::Damaged { path: path.to_owned(), detail: "not text".into() })
}
