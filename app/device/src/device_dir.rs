//! A device's own directory: key, certificates, settings.
//!
//! On a real reader the key lives in its security chip. Here it is a file that only its owner may
//! read: a software stand-in for the chip, good for emulation and tests.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign_channel::{Credential, IdKind, Mode, Policy, ReaderConfig};
use countersign_crypto::{CryptoRng, Provider, Secret, SecureElement, UnixTime};
use countersign_pki::{CertificateNumber, Identity, PkiError, Role, TrustStore};
use pem::Pem;
use serde::{Deserialize, Serialize};
use thiserror::Error;

const MARKER: &str = "COUNTERSIGN-DEVICE";
const FORMAT: &str = "countersign device directory, format 1\n";
const KEY: &str = "key.p8";
const SETTINGS: &str = "device.toml";
const FILE_MAX: u64 = 64 * 1024;

/// Why a device directory is of no use.
#[derive(Debug, Error)]
pub enum DeviceDirError {
    /// Not there, or not one of ours.
    #[error("{0} is not a Countersign device directory: run `countersign device enroll` first")]
    NotOurs(PathBuf),
    /// It holds another device.
    #[error("{dir} belongs to the device {found}, not {wanted}")]
    OtherDevice {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: String,
        /// Who was asked for.
        wanted: String,
    },
    /// Enrolment has not finished.
    #[error("{0} has no certificate yet: run `countersign device enroll` again")]
    NotEnrolled(PathBuf),
    /// A file does not parse.
    #[error("{path}: {detail}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A certificate does not verify.
    #[error("the device's certificates: {0}")]
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

impl DeviceDirError {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            Self::NotOurs(_) => "device-not-ours",
            Self::OtherDevice { .. } => "device-other",
            Self::NotEnrolled(_) => "device-not-enrolled",
            Self::Damaged { .. } => "device-damaged",
            Self::Pki(error) => error.check(),
            Self::Io { .. } => "io",
        }
    }
}

/// What a device knows beside its key and certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Serial number.
    pub serial: String,
    /// The server it was enrolled with; empty until then.
    #[serde(default)]
    pub server_id: String,
}

/// The certificates a device is given at enrolment, PEM.
pub(crate) struct Certificates<'a> {
    pub(crate) own: &'a str,
    pub(crate) device_issuer: &'a str,
    pub(crate) server_issuer: &'a str,
    pub(crate) root: &'a str,
}

/// A device's directory.
pub struct DeviceDir {
    path: PathBuf,
    /// Its settings.
    pub settings: Settings,
}

impl DeviceDir {
    /// Opens the directory, or makes it with a fresh key, private to its owner. Making it again
    /// finds the same key, so that an enrolment that broke off can be repeated.
    ///
    /// It is made beside its place (which must be writable) and moved there whole: a crash leaves
    /// nothing there, and at most `.NAME.new-…` beside it with a key that nobody has certified.
    ///
    /// # Errors
    /// [`DeviceDirError::OtherDevice`]; [`DeviceDirError::NotOurs`] for a directory with other
    /// files.
    pub fn open_or_make(
        path: &Path,
        serial: &str,
        provider: &Provider,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, DeviceDirError> {
        Identity::new(Role::Reader, serial)?;
        let occupied = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
        if !occupied {
            return Self::make(path, serial, provider, rng);
        }
        let dir = Self::open(path)?;
        if dir.settings.serial != serial {
            return Err(DeviceDirError::OtherDevice {
                dir: path.to_owned(),
                found: dir.settings.serial,
                wanted: serial.to_owned(),
            });
        }
        Ok(dir)
    }

    fn make(
        path: &Path,
        serial: &str,
        provider: &Provider,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, DeviceDirError> {
        // A link to an empty directory stands for that directory.
        let path = &fs::canonicalize(path).unwrap_or_else(|_absent| path.to_owned());
        let name = path.file_name().ok_or_else(|| {
            io_error(path)(io::Error::new(io::ErrorKind::InvalidInput, "names no directory"))
        })?;
        let mut random = [0; 8];
        rng.fill_bytes(&mut random);
        let suffix = u64::from_be_bytes(random);
        let building =
            path.with_file_name(format!(".{}.new-{suffix:016x}", name.to_string_lossy()));
        let made = Self::fill(&building, serial, provider, rng).and_then(|mut dir| {
            // Takes the place of an empty directory too, whatever that one's mode was.
            fs::rename(&building, path).map_err(io_error(path))?;
            sync_dir(parent(path))?;
            path.clone_into(&mut dir.path);
            Ok(dir)
        });
        if made.is_err() {
            let _gone = fs::remove_dir_all(&building);
        }
        made
    }

    fn fill(
        building: &Path,
        serial: &str,
        provider: &Provider,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, DeviceDirError> {
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700).create(building).map_err(io_error(building))?;
        let dir = Self {
            path: building.to_owned(),
            settings: Settings { serial: serial.to_owned(), server_id: String::new() },
        };
        let key = provider.signature.generate(rng).map_err(|error| DeviceDirError::Damaged {
            path: building.join(KEY),
            detail: error.to_string(),
        })?;
        dir.write(MARKER, FORMAT.as_bytes())?;
        dir.write(KEY, key.pkcs8.expose())?;
        dir.write_settings()?;
        Ok(dir)
    }

    /// Opens an existing directory.
    ///
    /// # Errors
    /// [`DeviceDirError`].
    pub fn open(path: &Path) -> Result<Self, DeviceDirError> {
        match read_text(&path.join(MARKER)) {
            Ok(text) if text == FORMAT => {}
            _ => return Err(DeviceDirError::NotOurs(path.to_owned())),
        }
        let settings_path = path.join(SETTINGS);
        let settings = toml::from_str(&read_text(&settings_path)?).map_err(|error| {
            DeviceDirError::Damaged { path: settings_path, detail: error.to_string() }
        })?;
        Ok(Self { path: path.to_owned(), settings })
    }

    /// The device's key.
    ///
    /// # Errors
    /// [`DeviceDirError::Damaged`].
    pub fn key(&self, provider: &Provider) -> Result<Arc<dyn SecureElement>, DeviceDirError> {
        let path = self.path.join(KEY);
        let der = Secret::new(read_bytes(&path)?);
        provider
            .signature
            .load_pkcs8(&der)
            .map_err(|error| DeviceDirError::Damaged { path, detail: error.to_string() })
    }

    /// Checks what enrolment returned and stores it.
    pub(crate) fn store_enrolment(
        &mut self,
        server_id: &str,
        certificates: &Certificates<'_>,
        provider: &Provider,
        now: UnixTime,
    ) -> Result<(), DeviceDirError> {
        // Not stored unless it fits: the reader must be able to prove itself with it.
        let own = parse_pem(Path::new("certificate"), certificates.own)?;
        let issuer = parse_pem(Path::new("deviceIssuer"), certificates.device_issuer)?;
        let root = parse_pem(Path::new("root"), certificates.root)?;
        let server_issuer = parse_pem(Path::new("serverIssuer"), certificates.server_issuer)?;
        let mut trust = TrustStore::new(provider.clone());
        trust.trust(&root, &issuer, Role::Reader, now)?;
        trust.trust(&root, &server_issuer, Role::Server, now)?;
        let leaf = trust.verify(&own, Role::Reader, now, None)?;
        let key = self.key(provider)?;
        let certified = countersign_pki::certified_point(provider, &own)?;
        if leaf.identity().id() != self.settings.serial || certified != key.public_key() {
            return Err(DeviceDirError::Damaged {
                path: PathBuf::from("certificate"),
                detail: "the certificate is for another device or key".into(),
            });
        }
        server_id.clone_into(&mut self.settings.server_id);
        self.write_settings()?;
        self.write("root.pem", certificates.root.as_bytes())?;
        self.write("server-issuer.pem", certificates.server_issuer.as_bytes())?;
        self.write("certificate.pem", certificates.own.as_bytes()) // last: its presence says "done"
    }

    /// What the reader's channel is made of. It signs its certificate number and sends its serial
    /// number, two kinds of id that the server maps to each other (C4).
    ///
    /// # Errors
    /// [`DeviceDirError::NotEnrolled`]; what is wrong with a certificate at `now`.
    pub fn reader_config(
        &self,
        provider: &Provider,
        now: UnixTime,
    ) -> Result<ReaderConfig, DeviceDirError> {
        if !self.path.join("certificate.pem").exists() {
            return Err(DeviceDirError::NotEnrolled(self.path.clone()));
        }
        let certificate = self.certificate("certificate.pem")?;
        let mut trust = TrustStore::new(provider.clone());
        let (root, issuer) =
            (self.certificate("root.pem")?, self.certificate("server-issuer.pem")?);
        trust.trust(&root, &issuer, Role::Server, now)?;
        let credential = Credential {
            provider: provider.clone(),
            key: self.key(provider)?,
            certificate,
            trust: Arc::new(trust),
            encryption: None,
        };
        Ok(ReaderConfig {
            credentials: vec![credential],
            mode: Mode::C1,
            policies: vec![Policy::default()],
            serial: self.settings.serial.clone(),
            signed_id: IdKind::CertificateNumber,
            sent_id: IdKind::Serial,
            server_id: Some(self.settings.server_id.clone()),
        })
    }

    /// The number of the device's certificate.
    ///
    /// # Errors
    /// [`DeviceDirError::NotEnrolled`] or what is wrong with the certificate.
    pub fn certificate_number(&self) -> Result<CertificateNumber, DeviceDirError> {
        if !self.path.join("certificate.pem").exists() {
            return Err(DeviceDirError::NotEnrolled(self.path.clone()));
        }
        Ok(countersign_pki::number(&self.certificate("certificate.pem")?)?)
    }

    fn certificate(&self, name: &str) -> Result<Vec<u8>, DeviceDirError> {
        let path = self.path.join(name);
        parse_pem(&path, &read_text(&path)?)
    }

    fn write_settings(&self) -> Result<(), DeviceDirError> {
        let text = toml::to_string(&self.settings).expect("two short strings");
        self.write(SETTINGS, text.as_bytes())
    }

    /// Replaces a file at once: a crash leaves the old one or the new one. Follows no link.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), DeviceDirError> {
        let path = self.path.join(name);
        let new = path.with_extension("new");
        let write = || {
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().map_err(io_error(&path))?;
        sync_dir(&self.path)
    }
}

/// The directory that a path is in.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Has the names in a directory on the disk.
fn sync_dir(path: &Path) -> Result<(), DeviceDirError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(io_error(path))
}

fn parse_pem(path: &Path, text: &str) -> Result<Vec<u8>, DeviceDirError> {
    let damaged = |detail: String| DeviceDirError::Damaged { path: path.to_owned(), detail };
    let pem: Pem = pem::parse(text).map_err(|error| damaged(error.to_string()))?;
    if pem.tag() != "CERTIFICATE" {
        return Err(damaged("not a certificate".into()));
    }
    Ok(pem.into_contents())
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> DeviceDirError + '_ {
    |source| DeviceDirError::Io { path: path.to_owned(), source }
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, DeviceDirError> {
    let read = || {
        if fs::metadata(path)?.len() > FILE_MAX {
            return Err(io::Error::other("the file is larger than any of ours"));
        }
        fs::read(path)
    };
    read().map_err(io_error(path))
}

fn read_text(path: &Path) -> Result<String, DeviceDirError> {
    String::from_utf8(read_bytes(path)?)
        .map_err(|_| DeviceDirError::Damaged { path: path.to_owned(), detail: "not text".into() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn make(path: &Path, seed: u64) -> Result<DeviceDir, DeviceDirError> {
        let provider = countersign_crypto::aws_lc::provider();
        DeviceDir::open_or_make(path, "RD-1", &provider, &mut testkit::rng::seeded(seed))
    }

    fn names(path: &Path) -> Vec<String> {
        let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_directory_broken_off_at_any_file_can_be_made_again() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("RD-1");
        let provider = countersign_crypto::aws_lc::provider();
        // What a crash just before the move leaves: everything beside, nothing in place.
        let beside = parent.path().join(".RD-1.new-0123456789abcdef");
        DeviceDir::fill(&beside, "RD-1", &provider, &mut testkit::rng::seeded(1)).unwrap();
        assert_eq!(make(&path, 2).unwrap().path, path);
        assert_eq!(names(&path), [MARKER, "device.toml", "key.p8"]);
        assert_eq!(names(parent.path()), [".RD-1.new-0123456789abcdef", "RD-1"]);
        // Again: the same key, not a second one.
        let key = fs::read(path.join(KEY)).unwrap();
        make(&path, 3).unwrap();
        assert_eq!(fs::read(path.join(KEY)).unwrap(), key);
    }

    #[test]
    fn nothing_stays_of_a_directory_that_cannot_be_moved_into_place() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("RD-1");
        fs::write(&path, "mine").unwrap();
        assert_eq!(make(&path, 1).err().unwrap().check(), "io");
        assert_eq!(names(parent.path()), ["RD-1"]);
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }

    #[test]
    fn an_empty_directory_open_to_others_is_closed() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("RD-1");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        make(&path, 1).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join(KEY))), (0o700, 0o600));
    }

    #[test]
    fn a_link_to_an_empty_directory_stands_for_it() {
        let parent = tempfile::tempdir().unwrap();
        let (real, link) = (parent.path().join("real"), parent.path().join("link"));
        fs::create_dir(&real).unwrap();
        symlink(&real, &link).unwrap();
        make(&link, 1).unwrap();
        assert_eq!(names(&real), [MARKER, "device.toml", "key.p8"]);
        assert!(link.symlink_metadata().unwrap().is_symlink());
    }

    #[test]
    fn writing_follows_no_link() {
        let parent = tempfile::tempdir().unwrap();
        let dir = make(&parent.path().join("RD-1"), 1).unwrap();
        let outside = parent.path().join("outside");
        fs::write(&outside, "mine").unwrap();
        symlink(&outside, dir.path.join("device.new")).unwrap();
        dir.write_settings().unwrap();
        assert_eq!(fs::read(&outside).unwrap(), b"mine");
        assert!(fs::symlink_metadata(dir.path.join(SETTINGS)).unwrap().is_file());
        assert!(DeviceDir::open(&dir.path).is_ok());
    }
}
