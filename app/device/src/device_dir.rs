//! A device's own directory: key, certificates, settings.
//!
//! On a real reader the key lives in its security chip. Here it is a file that only its owner may
//! read: a software stand-in for the chip, good for emulation and tests.

mod error;
mod settings;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign_channel::{Credential, EncryptionCredential, IdKind, Mode, Policy, ReaderConfig};
use countersign_crypto::{
    CryptoError, CryptoRng, DecryptionKey, Provider, Secret, SecureElement, UnixTime, aws_lc,
};
use countersign_pki::{CertificateNumber, Identity, Role, TrustStore, certified_point};
use pem::Pem;

pub use self::error::DeviceDirError;
pub(crate) use self::settings::suite_name;
pub use self::settings::{DeviceKind, Settings};
use crate::private_file;

const MARKER: &str = "COUNTERSIGN-DEVICE";
const FORMAT: &str = "countersign device directory, format 1\n";
const KEY: &str = "key.p8";
const CERTIFICATE: &str = "certificate.pem";
/// The second key and certificate, in suites that have such.
const ENCRYPTION_KEY: &str = "encryption.p8";
const ENCRYPTION_CERTIFICATE: &str = "encryption-certificate.pem";
/// Of a sleeve or a manager: who certified the devices that it meets.
const DEVICE_ISSUER: &str = "device-issuer.pem";
const SETTINGS: &str = "device.toml";
const FILE_MAX: u64 = 64 * 1024;

/// The certificates a device is given at enrolment, PEM.
pub(crate) struct Certificates<'a> {
    pub(crate) own: &'a str,
    pub(crate) encryption: Option<&'a str>,
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
    /// [`DeviceDirError::OtherDevice`], [`DeviceDirError::OtherSuite`];
    /// [`DeviceDirError::NotOurs`] for a directory with other files.
    pub fn open_or_make(
        path: &Path,
        serial: &str,
        provider: &Provider,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, DeviceDirError> {
        Self::open_or_make_of(DeviceKind::Reader, path, serial, provider, rng)
    }

    /// The same for a device of any kind, not only a reader.
    ///
    /// # Errors
    /// As [`Self::open_or_make`]; [`DeviceDirError::OtherKind`].
    pub fn open_or_make_of(
        kind: DeviceKind,
        path: &Path,
        serial: &str,
        provider: &Provider,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, DeviceDirError> {
        Identity::new(kind.role(), serial)?;
        let occupied = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
        if !occupied {
            return Self::make(path, kind, serial, provider, rng);
        }
        let dir = Self::open(path)?;
        dir.check_kind(kind)?;
        if dir.settings.serial != serial {
            return Err(DeviceDirError::OtherDevice {
                dir: path.to_owned(),
                found: dir.settings.serial,
                wanted: serial.to_owned(),
            });
        }
        dir.check_suite(provider)?;
        Ok(dir)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses the directory of another kind of device.
    pub(crate) fn check_kind(&self, wanted: DeviceKind) -> Result<(), DeviceDirError> {
        let found = self.settings.kind;
        if found == wanted {
            return Ok(());
        }
        Err(DeviceDirError::OtherKind { dir: self.path.clone(), found, wanted })
    }

    fn check_suite(&self, provider: &Provider) -> Result<(), DeviceDirError> {
        let (found, wanted) = (self.settings.suite, provider.suite);
        if found == wanted {
            return Ok(());
        }
        Err(DeviceDirError::OtherSuite { dir: self.path.clone(), found, wanted })
    }

    /// The algorithms of the device's suite.
    ///
    /// # Panics
    /// Never: a directory of a suite that this program does not have is not opened.
    #[must_use]
    pub fn provider(&self) -> Provider {
        aws_lc::provider_of(self.settings.suite).expect("a known suite has a provider")
    }

    fn make(
        path: &Path,
        kind: DeviceKind,
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
        let made = Self::fill(&building, kind, serial, provider, rng).and_then(|mut dir| {
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
        kind: DeviceKind,
        serial: &str,
        provider: &Provider,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, DeviceDirError> {
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700).create(building).map_err(io_error(building))?;
        let dir = Self {
            path: building.to_owned(),
            settings: Settings {
                serial: serial.to_owned(),
                suite: provider.suite,
                server_id: String::new(),
                kind,
                servers: Vec::new(),
            },
        };
        let key = provider.signature.generate(rng).map_err(key_error(building.join(KEY)))?;
        dir.write(MARKER, FORMAT.as_bytes())?;
        dir.write(KEY, key.pkcs8.expose())?;
        if let Some(scheme) = &provider.encryption {
            let failed = key_error(building.join(ENCRYPTION_KEY));
            dir.write(ENCRYPTION_KEY, scheme.generate(rng).map_err(failed)?.pkcs8.expose())?;
        }
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
        self.signing_key(KEY, provider)
    }

    /// A key of the directory as one that signs.
    fn signing_key(
        &self,
        name: &str,
        provider: &Provider,
    ) -> Result<Arc<dyn SecureElement>, DeviceDirError> {
        let path = self.path.join(name);
        let der = Secret::new(read_bytes(&path)?);
        provider.signature.load_pkcs8(&der).map_err(key_error(path))
    }

    /// The encryption key, for the one signature on its request; none where the suite has no such
    /// keys.
    pub(crate) fn encryption_signer(
        &self,
        provider: &Provider,
    ) -> Result<Option<Arc<dyn SecureElement>>, DeviceDirError> {
        let has = provider.encryption.is_some();
        has.then(|| self.signing_key(ENCRYPTION_KEY, provider)).transpose()
    }

    /// The encryption key as one that decrypts.
    fn decryption_key(
        &self,
        provider: &Provider,
    ) -> Result<Option<Arc<dyn DecryptionKey>>, DeviceDirError> {
        let Some(scheme) = &provider.encryption else { return Ok(None) };
        let path = self.path.join(ENCRYPTION_KEY);
        let der = Secret::new(read_bytes(&path)?);
        scheme.load_pkcs8(&der).map(Some).map_err(key_error(path))
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
        let role = self.settings.kind.role();
        trust.trust(&root, &issuer, role, now)?;
        trust.trust(&root, &server_issuer, Role::Server, now)?;
        let leaf = trust.verify(&own, role, now, None)?;
        let key = self.key(provider)?;
        let certified = certified_point(provider, &own)?;
        if leaf.identity().id() != self.settings.serial || certified != key.public_key() {
            return Err(foreign("certificate"));
        }
        if let Some(encryption) = certificates.encryption {
            let name = "encryptionCertificate";
            let encryption = parse_pem(Path::new(name), encryption)?;
            let second = trust.verify_encryption(&encryption, role, now, None)?;
            let key = self.decryption_key(provider)?.ok_or_else(|| foreign(name))?;
            if second.identity() != leaf.identity() || second.point() != key.public_key() {
                return Err(foreign(name));
            }
        }
        server_id.clone_into(&mut self.settings.server_id);
        if self.settings.kind == DeviceKind::SamHost
            && !self.settings.servers.iter().any(|known| known == server_id)
        {
            self.settings.servers.push(server_id.to_owned());
        }
        self.write_settings()?;
        self.write("root.pem", certificates.root.as_bytes())?;
        self.write("server-issuer.pem", certificates.server_issuer.as_bytes())?;
        if self.settings.kind.meets().is_some() {
            self.write(DEVICE_ISSUER, certificates.device_issuer.as_bytes())?;
        }
        match certificates.encryption {
            Some(encryption) => self.write(ENCRYPTION_CERTIFICATE, encryption.as_bytes())?,
            None => self.remove(ENCRYPTION_CERTIFICATE)?, // a former server's
        }
        self.write(CERTIFICATE, certificates.own.as_bytes()) // last: its presence says "done"
    }

    /// What the reader's channel is made of, for handshake C1 under the default policy; the caller
    /// may choose others. It signs its certificate number and sends its serial
    /// number, two kinds of id that the server maps to each other (C4).
    ///
    /// # Errors
    /// [`DeviceDirError::NotEnrolled`]; [`DeviceDirError::OtherSuite`] for a provider of another
    /// suite; what is wrong with a certificate at `now`.
    pub fn reader_config(
        &self,
        provider: &Provider,
        now: UnixTime,
    ) -> Result<ReaderConfig, DeviceDirError> {
        self.check_kind(DeviceKind::Reader)?;
        self.channel_config(provider, now)
    }

    /// The same for a terminal. Both ids that it tells are its certificate number: the directory
    /// finds terminals by that.
    ///
    /// # Errors
    /// [`DeviceDirError::OtherKind`] for another device's directory; else as
    /// [`Self::reader_config`].
    pub fn terminal_config(
        &self,
        provider: &Provider,
        now: UnixTime,
    ) -> Result<ReaderConfig, DeviceDirError> {
        self.check_kind(DeviceKind::Terminal)?;
        let config = self.channel_config(provider, now)?;
        Ok(ReaderConfig { sent_id: IdKind::CertificateNumber, ..config })
    }

    /// The same for a sleeve or a manager, which reach their server's relay with it (A9). Both ids
    /// that they tell are the certificate number.
    ///
    /// # Errors
    /// [`DeviceDirError::OtherKind`] for another device's directory; else as
    /// [`Self::reader_config`].
    pub fn relay_config(
        &self,
        provider: &Provider,
        now: UnixTime,
    ) -> Result<ReaderConfig, DeviceDirError> {
        self.meets()?;
        let config = self.channel_config(provider, now)?;
        Ok(ReaderConfig { sent_id: IdKind::CertificateNumber, ..config })
    }

    /// What a sleeve proves itself with to a manager, and a manager to a sleeve (A1–A3), and whom
    /// it trusts to certify the other.
    ///
    /// # Errors
    /// [`DeviceDirError::OtherKind`] for another device's directory; else as
    /// [`Self::reader_config`].
    pub fn wallet_credential(
        &self,
        provider: &Provider,
        now: UnixTime,
    ) -> Result<Credential, DeviceDirError> {
        let peer = self.meets()?;
        let credential = self.credential(provider, now)?;
        let mut trust = TrustStore::new(provider.clone());
        let (root, issuer) = (self.certificate("root.pem")?, self.certificate(DEVICE_ISSUER)?);
        trust.trust(&root, &issuer, peer, now)?;
        Ok(Credential { trust: Arc::new(trust), ..credential })
    }

    /// The role of the devices that this one meets.
    fn meets(&self) -> Result<Role, DeviceDirError> {
        let found = self.settings.kind;
        let other = || DeviceDirError::OtherKind {
            dir: self.path.clone(),
            found,
            wanted: DeviceKind::Sleeve,
        };
        found.meets().ok_or_else(other)
    }

    fn channel_config(
        &self,
        provider: &Provider,
        now: UnixTime,
    ) -> Result<ReaderConfig, DeviceDirError> {
        Ok(ReaderConfig {
            credentials: vec![self.credential(provider, now)?],
            mode: Mode::C1,
            policies: vec![Policy::default()],
            serial: self.settings.serial.clone(),
            signed_id: IdKind::CertificateNumber,
            sent_id: IdKind::Serial,
            server_id: Some(self.settings.server_id.clone()),
            peer_role: Role::Server,
        })
    }

    /// What a SAM host proves itself with, and whom it trusts to certify servers.
    ///
    /// # Errors
    /// [`DeviceDirError::OtherKind`] for another device's directory; else as
    /// [`Self::reader_config`].
    pub fn sam_host_credential(
        &self,
        provider: &Provider,
        now: UnixTime,
    ) -> Result<Credential, DeviceDirError> {
        self.check_kind(DeviceKind::SamHost)?;
        self.credential(provider, now)
    }

    fn credential(&self, provider: &Provider, now: UnixTime) -> Result<Credential, DeviceDirError> {
        self.check_suite(provider)?;
        if !self.path.join(CERTIFICATE).exists() {
            return Err(DeviceDirError::NotEnrolled(self.path.clone()));
        }
        let certificate = self.certificate(CERTIFICATE)?;
        let mut trust = TrustStore::new(provider.clone());
        let (root, issuer) =
            (self.certificate("root.pem")?, self.certificate("server-issuer.pem")?);
        trust.trust(&root, &issuer, Role::Server, now)?;
        Ok(Credential {
            provider: provider.clone(),
            key: self.key(provider)?,
            certificate,
            trust: Arc::new(trust),
            encryption: self.encryption(provider)?,
        })
    }

    /// The encryption certificate and its key, if it was given one.
    fn encryption(
        &self,
        provider: &Provider,
    ) -> Result<Option<EncryptionCredential>, DeviceDirError> {
        if !self.path.join(ENCRYPTION_CERTIFICATE).exists() {
            return Ok(None);
        }
        let certificate = self.certificate(ENCRYPTION_CERTIFICATE)?;
        let key = self.decryption_key(provider)?;
        Ok(key.map(|key| EncryptionCredential { key, certificate }))
    }

    /// The number of the device's certificate.
    ///
    /// # Errors
    /// [`DeviceDirError::NotEnrolled`] or what is wrong with the certificate.
    pub fn certificate_number(&self) -> Result<CertificateNumber, DeviceDirError> {
        if !self.path.join(CERTIFICATE).exists() {
            return Err(DeviceDirError::NotEnrolled(self.path.clone()));
        }
        Ok(countersign_pki::number(&self.certificate(CERTIFICATE)?)?)
    }

    fn certificate(&self, name: &str) -> Result<Vec<u8>, DeviceDirError> {
        let path = self.path.join(name);
        parse_pem(&path, &read_text(&path)?)
    }

    fn write_settings(&self) -> Result<(), DeviceDirError> {
        let text = toml::to_string(&self.settings).expect("short strings");
        self.write(SETTINGS, text.as_bytes())
    }

    fn remove(&self, name: &str) -> Result<(), DeviceDirError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(DeviceDirError::Io { path, source })
            }
            _ => Ok(()),
        }
    }

    /// Replaces a file at once: a crash leaves the old one or the new one. Follows no link.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), DeviceDirError> {
        let path = self.path.join(name);
        private_file::replace(&path, bytes).map_err(io_error(&path))
    }
}

/// Certified is not this device, or not its key.
fn foreign(name: &str) -> DeviceDirError {
    DeviceDirError::Damaged {
        path: PathBuf::from(name),
        detail: "the certificate is for another device or key".into(),
    }
}

fn key_error(path: PathBuf) -> impl FnOnce(CryptoError) -> DeviceDirError {
    |error| DeviceDirError::Damaged { path, detail: error.to_string() }
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
mod tests;
