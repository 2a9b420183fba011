//! The pairing list (A1–A3): one file a sleeve, with its certificate and the binding factor.
//!
//! A revoked sleeve stays on the list without its factor, so that the same device cannot slip in
//! again through a window that was opened for another, until its owner has the manager forget it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use countersign_channel::{LookupRefusal, Pairing};
use countersign_crypto::{Secret, Suite, UnixTime};
use countersign_pki::{CertificateNumber, Identity, Role};
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::ManagerError;
use super::files::Shelf;
use crate::device_dir::suite_name;

/// Sleeves on a list, revoked ones among them, at most.
pub const SLEEVES_MAX: usize = 256;

/// A sleeve on the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairedSleeve {
    /// The id in its certificate.
    pub id: String,
    /// The number of that certificate.
    pub number: CertificateNumber,
    /// The suite that the pair speaks.
    pub suite: Suite,
    /// When it was paired.
    pub paired_at: UnixTime,
    /// When its owner ended that.
    pub revoked_at: Option<UnixTime>,
}

/// A sleeve's file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kept {
    sleeve: String,
    #[serde(with = "suite_name")]
    suite: Suite,
    /// DER in base64.
    certificate: String,
    /// Empty once it is revoked.
    #[serde(with = "crate::hex_secret")]
    factor: Secret,
    /// Milliseconds since the epoch, as the next.
    paired_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked_at: Option<u64>,
}

struct Place {
    shown: PairedSleeve,
    /// None once it is revoked.
    pairing: Option<Arc<Pairing>>,
    certificate: Vec<u8>,
}

/// The list, in memory as on the disk.
pub(super) struct Pairs {
    shelf: Shelf,
    places: BTreeMap<String, Place>,
}

impl Pairs {
    pub(super) fn open(dir: &Path) -> Result<Self, ManagerError> {
        let shelf = Shelf::open(dir)?;
        let mut places = BTreeMap::new();
        for id in shelf.ids()? {
            // Serde borrows the factor's digits: from a buffer that is wiped.
            let kept = shelf.load_with(&id, |bytes| serde_json::from_slice::<Kept>(bytes))?;
            let place = Place::of(kept).map_err(|detail| shelf.damaged(&id, &detail))?;
            if place.shown.id != id {
                return Err(shelf.damaged(&id, "it is of another sleeve"));
            }
            places.insert(id, place);
        }
        Ok(Self { shelf, places })
    }

    pub(super) fn sleeves(&self) -> Vec<PairedSleeve> {
        self.places.values().map(|place| place.shown.clone()).collect()
    }

    /// What A2 and A3 ask.
    pub(super) fn find(&self, id: &str) -> Result<Arc<Pairing>, LookupRefusal> {
        let place = self.places.get(id).ok_or(LookupRefusal::Unknown)?;
        place.pairing.clone().ok_or(LookupRefusal::Revoked)
    }

    /// Whether this sleeve was revoked, and not forgotten.
    pub(super) fn is_revoked(&self, id: &str) -> bool {
        self.places.get(id).is_some_and(|place| place.pairing.is_none())
    }

    /// Puts a sleeve on the list, in place of a former pairing with it; on disk when this returns.
    pub(super) fn keep(&mut self, pairing: Pairing, now: UnixTime) -> Result<(), ManagerError> {
        let id = pairing.peer.clone();
        if !self.places.contains_key(&id) && self.places.len() >= SLEEVES_MAX {
            return Err(ManagerError::TooManySleeves);
        }
        let kept = Kept {
            sleeve: id.clone(),
            suite: pairing.suite,
            certificate: BASE64.encode(&pairing.certificate),
            factor: Secret::copied_from(pairing.factor.expose()),
            paired_at: now.as_millis(),
            revoked_at: None,
        };
        self.shelf.save(&id, &kept)?;
        let place = Place::of(kept).map_err(|detail| self.shelf.damaged(&id, &detail))?;
        self.places.insert(id, place);
        Ok(())
    }

    /// Ends a pairing: the factor is gone, from the disk too. Again is no error.
    pub(super) fn revoke(&mut self, id: &str, now: UnixTime) -> Result<(), ManagerError> {
        let unknown = || ManagerError::UnknownSleeve(id.to_owned());
        let place = self.places.get_mut(id).ok_or_else(unknown)?;
        if place.pairing.is_none() {
            return Ok(());
        }
        let kept = Kept {
            sleeve: id.to_owned(),
            suite: place.shown.suite,
            certificate: BASE64.encode(&place.certificate),
            factor: Secret::new(Vec::new()),
            paired_at: place.shown.paired_at.as_millis(),
            revoked_at: Some(now.as_millis()),
        };
        self.shelf.save(id, &kept)?;
        place.pairing = None;
        place.shown.revoked_at = Some(now);
        Ok(())
    }

    /// Takes a sleeve off the list; whether it was there.
    pub(super) fn forget(&mut self, id: &str) -> Result<bool, ManagerError> {
        if !self.places.contains_key(id) {
            return Ok(false);
        }
        self.shelf.remove(id)?;
        Ok(self.places.remove(id).is_some())
    }
}

impl Place {
    fn of(kept: Kept) -> Result<Self, String> {
        let Kept { sleeve, suite, certificate, factor, paired_at, revoked_at } = kept;
        Identity::new(Role::Sleeve, &sleeve).map_err(|error| error.to_string())?;
        let certificate =
            BASE64.decode(certificate.as_bytes()).map_err(|error| error.to_string())?;
        let number = countersign_pki::number(&certificate).map_err(|error| error.to_string())?;
        if factor.is_empty() != revoked_at.is_some() {
            return Err("a pairing has a factor, and a revoked one has none".to_owned());
        }
        let shown = PairedSleeve {
            id: sleeve.clone(),
            number,
            suite,
            paired_at: UnixTime::from_millis(paired_at),
            revoked_at: revoked_at.map(UnixTime::from_millis),
        };
        let pairing = (!factor.is_empty()).then(|| {
            Arc::new(Pairing { peer: sleeve, certificate: certificate.clone(), factor, suite })
        });
        Ok(Self { shown, pairing, certificate })
    }
}
