use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use countersign_channel::{
    Challenges, ManagerConfig, Mode, SharedChallenges, SharedSources, SourceLimits,
};
use countersign_crypto::{CryptoRng, Provider, Secret, SecureElement, UnixTime};
use countersign_pki::{BoundedLeafCache, CertificateNumber};
use countersign_wallet::audit::Entry;
use countersign_wallet::login::{Cost, Passwords, Which};

use super::audit::{self, AuditLog};
use super::files;
use super::logins::Logins;
use super::pairs::{PairedSleeve, Pairs};
use super::{ManagerError, ManagerSettings};
use crate::key::files::Files;
use crate::{DeviceDir, DeviceKind};

const LOCK: &str = "manager-lock";
const SETTINGS: &str = "manager.toml";
const PASSWORDS: &str = "passwords.json";
const SLEEVES: &str = "sleeves";
const LOGINS: &str = "logins";
pub(super) const USAGE: &str = "usage";

/// What an audit's verification found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditReport {
    /// Lines that the signed head covers.
    pub covered: u64,
    /// Lines after it: chained, and not signed yet.
    pub uncovered: u64,
}

/// A manager's own directory: its key and certificates, the sleeves on its pairing list, passwords,
/// settings, audit. One program at a time has it.
///
/// Binding factors lie there as files that only their owner may read, passwords as Argon2id hashes.
pub struct ManagerDir {
    dir: DeviceDir,
    settings: ManagerSettings,
    pub(super) passwords: Option<Passwords>,
    pub(super) pairs: Pairs,
    pub(super) logins: Arc<Logins>,
    _lock: File,
}

impl ManagerDir {
    /// Opens a manager's directory, which its enrolment has made.
    ///
    /// # Errors
    /// [`ManagerError::Dir`], [`ManagerError::Busy`], [`ManagerError::Settings`],
    /// [`ManagerError::Damaged`], [`ManagerError::Io`].
    pub fn open(path: &Path) -> Result<Self, ManagerError> {
        let dir = DeviceDir::open(path)?;
        dir.check_kind(DeviceKind::Manager)?;
        let lock = locked(path)?;
        let files = Files::new(path);
        let settings = if files.has(SETTINGS) {
            ManagerSettings::parse(&files.text(SETTINGS)?)?
        } else {
            ManagerSettings::default()
        };
        let passwords = match files.has(PASSWORDS) {
            true => Some(files::read(&files, PASSWORDS)?),
            false => None,
        };
        let pairs = Pairs::open(&path.join(SLEEVES))?;
        let logins = Arc::new(Logins::open(&path.join(LOGINS))?);
        Ok(Self { dir, settings, passwords, pairs, logins, _lock: lock })
    }

    /// Its serial number, which is the id in its certificate and stands on its label.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.dir.settings.serial
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The number of its certificate.
    ///
    /// # Errors
    /// [`ManagerError::Dir`].
    pub fn certificate_number(&self) -> Result<CertificateNumber, ManagerError> {
        Ok(self.dir.certificate_number()?)
    }

    /// What its owner wants.
    #[must_use]
    pub const fn settings(&self) -> &ManagerSettings {
        &self.settings
    }

    /// Checks settings and writes them.
    ///
    /// # Errors
    /// [`ManagerError::Settings`], [`ManagerError::Io`]; the old ones stay then.
    pub fn set_settings(&mut self, settings: ManagerSettings) -> Result<(), ManagerError> {
        settings.check()?;
        let text = toml::to_string(&settings);
        let text = text.map_err(|error| ManagerError::Settings(error.to_string()))?;
        self.files().write(SETTINGS, text.as_bytes())?;
        self.settings = settings;
        Ok(())
    }

    /// The sleeves on its list, by their ids; revoked ones too.
    #[must_use]
    pub fn sleeves(&self) -> Vec<PairedSleeve> {
        self.pairs.sleeves()
    }

    /// Ends a pairing: of a lost sleeve (A4). A manager that serves does it by
    /// [`ManagerOrder::Revoke`](super::ManagerOrder::Revoke).
    ///
    /// # Errors
    /// [`ManagerError::UnknownSleeve`]; those of the audit and of files.
    pub fn revoke(
        &mut self,
        sleeve: &str,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), ManagerError> {
        self.pairs.revoke(sleeve, now)?;
        self.note(now, rng, Entry { sleeve: Some(sleeve.to_owned()), ..Entry::new("revoke") })
    }

    /// Takes a sleeve off the list, and the memory of its revocation and its attempts with it; an
    /// alarm that the server has not taken stays. Whether it was there.
    ///
    /// # Errors
    /// Those of the audit and of files.
    pub fn forget(
        &mut self,
        sleeve: &str,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<bool, ManagerError> {
        let known = self.pairs.forget(sleeve)?;
        if known {
            self.logins.forget(sleeve)?;
            let entry = Entry { sleeve: Some(sleeve.to_owned()), ..Entry::new("forget") };
            self.note(now, rng, entry)?;
        }
        Ok(known)
    }

    /// Whether a login password is set. Whether there is an alarm password cannot be seen.
    #[must_use]
    pub const fn has_password(&self) -> bool {
        self.passwords.is_some()
    }

    /// Sets a password anew, as the owner may at the manager itself; none takes the alarm password
    /// away. Computes hashes: takes long.
    ///
    /// # Errors
    /// [`ManagerError::Password`]; [`ManagerError::NoPassword`] for an alarm password where there
    /// is no login password; those of the audit and of files. Nothing is changed then.
    pub fn set_password(
        &mut self,
        which: Which,
        new: Option<&Secret>,
        cost: Cost,
        (now, rng): (UnixTime, &mut dyn CryptoRng),
    ) -> Result<(), ManagerError> {
        let passwords = match (self.passwords.clone(), which, new) {
            (Some(mut passwords), ..) => {
                passwords.reset(which, new, cost, rng)?;
                passwords
            }
            (None, Which::Login, Some(login)) => Passwords::new(login, None, cost, rng)?,
            (None, ..) => return Err(ManagerError::NoPassword),
        };
        self.store_passwords(passwords, now, rng)
    }

    /// Changes a password for who knows it; counted, and locked out, as a login is.
    ///
    /// # Errors
    /// [`ManagerError::Password`], [`ManagerError::Locked`], [`ManagerError::NoPassword`]; those of
    /// the audit and of files. Nothing is changed then.
    pub fn change_password(
        &mut self,
        which: Which,
        (old, new): (&Secret, &Secret),
        cost: Cost,
        (now, rng): (UnixTime, &mut dyn CryptoRng),
    ) -> Result<(), ManagerError> {
        let mut passwords = self.passwords.clone().ok_or(ManagerError::NoPassword)?;
        self.logins.change(&mut passwords, which, (old, new), cost, (now, &mut *rng))?;
        self.store_passwords(passwords, now, rng)
    }

    /// The audit does not say which of the passwords it was.
    fn store_passwords(
        &mut self,
        passwords: Passwords,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), ManagerError> {
        self.note(now, rng, Entry::new("password"))?;
        files::write(&self.files(), PASSWORDS, &passwords)?;
        self.passwords = Some(passwords);
        Ok(())
    }

    /// Verifies the audit against its newest head, or one that was kept elsewhere.
    ///
    /// # Errors
    /// [`ManagerError::Audit`]: where it does not hold, and why; [`ManagerError::Io`].
    pub fn verify_audit(&self, head: Option<&Path>) -> Result<AuditReport, ManagerError> {
        let provider = self.dir.provider();
        let key = self.dir.key(&provider)?;
        let verified = audit::verified(self.path(), &provider, &*key, head)?;
        Ok(AuditReport { covered: verified.covered, uncovered: verified.uncovered })
    }

    /// Writes one entry while nothing serves.
    fn note(
        &self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        entry: Entry,
    ) -> Result<(), ManagerError> {
        let mut audit = self.audit(now, rng)?;
        audit.append(now, entry)?;
        match audit.unsigned() {
            Some(unsigned) => unsigned.store_head(rng).map(|_| ()),
            None => Ok(()),
        }
    }

    pub(super) fn audit(
        &self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<AuditLog, ManagerError> {
        let provider = self.dir.provider();
        let key = self.key(&provider)?;
        AuditLog::open(self.path(), &provider, self.serial(), key, (now, rng))
    }

    fn key(&self, provider: &Provider) -> Result<Arc<dyn SecureElement>, ManagerError> {
        Ok(self.dir.key(provider)?)
    }

    pub(super) const fn device(&self) -> &DeviceDir {
        &self.dir
    }

    fn files(&self) -> Files {
        Files::new(self.path())
    }

    /// What its connections share.
    pub(super) fn config(
        &self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<ManagerConfig, ManagerError> {
        let provider = self.dir.provider();
        let credential = self.dir.wallet_credential(&provider, now)?;
        let policies = self.settings.channel_policies().map_err(ManagerError::Settings)?;
        let sources = SourceLimits::new(provider.clone(), rng);
        let config = ManagerConfig {
            credentials: vec![credential],
            policies,
            modes: vec![Mode::A1, Mode::A2, Mode::A3],
            manager_id: self.serial().to_owned(),
            leaf_cache: Arc::new(BoundedLeafCache::default()),
            challenges: Arc::new(SharedChallenges::new(Challenges::new(provider))),
            sources: Arc::new(SharedSources::new(sources)),
        };
        config.check().map_err(ManagerError::Channel)?;
        Ok(config)
    }
}

impl fmt::Debug for ManagerDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagerDir").field("serial", &self.serial()).finish_non_exhaustive()
    }
}

/// Keeps other programs away until it is dropped.
fn locked(dir: &Path) -> Result<File, ManagerError> {
    let path = dir.join(LOCK);
    let io = |source| ManagerError::Io { path: path.clone(), source };
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(ManagerError::Busy),
        Err(fs::TryLockError::Error(error)) => Err(io(error)),
    }
}
