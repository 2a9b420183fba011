use std::fmt;
use std::fs::File;
use std::path::Path;

use countersign_channel::{Pairing, Policy, SleeveConfig};
use countersign_crypto::UnixTime;
use countersign_pki::CertificateNumber;

use super::SleeveError;
use super::kept::{KeptPairing, PairedManager, Pairings};
use crate::{DeviceDir, DeviceKind};

/// A sleeve's own directory: its key and certificates, and the managers that it is paired with. One
/// program at a time has it.
///
/// The binding factors lie there as files that only their owner may read. A real sleeve keeps them
/// in its security chip, as it does its key.
pub struct SleeveDir {
    dir: DeviceDir,
    pairings: Pairings,
    _lock: File,
}

impl SleeveDir {
    /// Opens a sleeve's directory.
    ///
    /// # Errors
    /// [`SleeveError::Dir`], [`SleeveError::Busy`].
    pub fn open(path: &Path) -> Result<Self, SleeveError> {
        let dir = DeviceDir::open(path)?;
        dir.check_kind(DeviceKind::Sleeve)?;
        let lock = Pairings::lock(path)?;
        let pairings = Pairings::of(path);
        pairings.sweep()?;
        Ok(Self { dir, pairings, _lock: lock })
    }

    /// Its serial number, which is the id in its certificate.
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
    /// [`SleeveError::Dir`].
    pub fn certificate_number(&self) -> Result<CertificateNumber, SleeveError> {
        Ok(self.dir.certificate_number()?)
    }

    /// The managers that it is paired with, by their ids.
    ///
    /// # Errors
    /// [`SleeveError::Damaged`], [`SleeveError::Io`].
    pub fn managers(&self) -> Result<Vec<PairedManager>, SleeveError> {
        self.pairings.managers()
    }

    /// Forgets a manager; whether there was one. The manager still has this sleeve on its list.
    ///
    /// # Errors
    /// [`SleeveError::Io`].
    pub fn forget(&mut self, manager: &str) -> Result<bool, SleeveError> {
        self.pairings.forget(manager)
    }

    pub(super) const fn device(&self) -> &DeviceDir {
        &self.dir
    }

    /// The manager that is meant.
    pub(super) fn which(&self, named: Option<&str>) -> Result<String, SleeveError> {
        let managers = self.managers()?;
        match (named, &managers[..]) {
            (None, [only]) => Ok(only.id.clone()),
            (None, others) => Err(SleeveError::WhichManager(others.len())),
            (Some(named), managers) if managers.iter().any(|one| one.id == named) => {
                Ok(named.to_owned())
            }
            (Some(named), _) => Err(SleeveError::UnknownManager(named.to_owned())),
        }
    }

    pub(super) fn pairings(&self, manager: &str) -> Result<Vec<KeptPairing>, SleeveError> {
        self.pairings.find(manager)
    }

    pub(super) fn keep_pending(
        &self,
        pairing: &Pairing,
        now: UnixTime,
    ) -> Result<u32, SleeveError> {
        self.pairings.keep_pending(pairing, now)
    }

    pub(super) fn confirm(
        &self,
        manager: &str,
        number: u32,
        now: UnixTime,
    ) -> Result<(), SleeveError> {
        self.pairings.confirm(manager, number, now)
    }

    pub(super) fn config(
        &self,
        policies: Vec<Policy>,
        now: UnixTime,
    ) -> Result<SleeveConfig, SleeveError> {
        let credential = self.dir.wallet_credential(&self.dir.provider(), now)?;
        let sleeve_id = self.serial().to_owned();
        Ok(SleeveConfig { credentials: vec![credential], policies, sleeve_id })
    }
}

impl fmt::Debug for SleeveDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SleeveDir").field("serial", &self.serial()).finish_non_exhaustive()
    }
}
