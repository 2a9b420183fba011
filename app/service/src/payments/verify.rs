use std::sync::{Arc, OnceLock};

use countersign_crypto::UnixTime;
use countersign_payment::joint::{self, Commitment};
use countersign_pki::{BoundedLeafCache, Leaf, PkiError, Role, TrustStore};

use crate::Authority;

/// Verifies what security devices sign, outside of any lock. What it says holds as long as the
/// certificate is the device's live one: that is looked at again under the lock.
pub(super) struct Verifier {
    authority: Authority,
    trust: OnceLock<Arc<TrustStore>>,
    leaves: BoundedLeafCache,
}

impl Verifier {
    pub(super) fn new(authority: Authority) -> Self {
        Self { authority, trust: OnceLock::new(), leaves: BoundedLeafCache::default() }
    }

    /// The issuing certificate is verified once; its validity is looked at with every leaf.
    fn trust(&self, now: UnixTime) -> Result<Arc<TrustStore>, PkiError> {
        if let Some(trust) = self.trust.get() {
            return Ok(trust.clone());
        }
        let trust = Arc::new(self.authority.trust_in_security_devices(now)?);
        Ok(self.trust.get_or_init(|| trust).clone())
    }

    /// Whether `certificate` is one of the security device `serial`, holds at `now`, and verifies
    /// `signature` over the stored `request` (D5).
    ///
    /// # Errors
    /// The name of the first check that fails, for the audit.
    pub(super) fn signature(
        &self,
        serial: &str,
        certificate: &[u8],
        request: &[u8],
        signature: &[u8],
        now: UnixTime,
    ) -> Result<(), &'static str> {
        let leaf = self.leaf(serial, certificate, now)?;
        countersign_payment::verify(leaf.key(), request, signature).map_err(|error| error.check())
    }

    /// The same for what a signing card signs: the stored `request` and its commitment (B8).
    ///
    /// # Errors
    /// As [`Self::signature`].
    pub(super) fn joint_signature(
        &self,
        (serial, certificate): (&str, &[u8]),
        request: &[u8],
        commitment: &Commitment,
        signature: &[u8],
        now: UnixTime,
    ) -> Result<(), &'static str> {
        let leaf = self.leaf(serial, certificate, now)?;
        let hash = &*self.authority.provider.hash;
        joint::verify_signature(leaf.key(), hash, request, commitment, signature)
            .map_err(|error| error.check())
    }

    /// The live certificate's holder, if it is this security device.
    fn leaf(
        &self,
        serial: &str,
        certificate: &[u8],
        now: UnixTime,
    ) -> Result<Arc<Leaf>, &'static str> {
        let trust = self.trust(now).map_err(|error| error.check())?;
        let leaf = trust
            .verify(certificate, Role::SecurityDevice, now, Some(&self.leaves))
            .map_err(|error| error.check())?;
        if leaf.identity().id() != serial {
            return Err("certificate-identity");
        }
        Ok(leaf)
    }
}
