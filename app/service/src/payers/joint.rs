//! Signing cards with joint passwords (B1–B8): enrolled as devices that sign, and given a key that
//! the server keeps too.

use countersign_crypto::Secret;
use countersign_payment::joint::SHARED_LEN;
use countersign_store::{SignMethod, SignerRecord};

use super::signers::SignerToEnrol;
use crate::{Actor, Enrolled, Service, ServiceError};

/// A signing card with joint passwords.
pub struct EnrolledJoint {
    /// The card.
    pub record: SignerRecord,
    /// Its certificate and whether it is new.
    pub enrolled: Enrolled,
    /// The key that it shares with the server, [`SHARED_LEN`] bytes, told this once.
    pub key: Secret,
}

impl Service {
    /// Enrols a signing card from its PKCS#10 request: its certificate as [`Self::enrol_signer`]
    /// does, and the key that it shares with the server, drawn here. Repeating it with the same
    /// key pair gives the same certificate and another shared key, of which the card must use the
    /// last: so an answer that was lost is asked for again. Revoking the card erases the key.
    ///
    /// # Errors
    /// As [`Self::enrol_signer`]; `signer-method` for the serial number of a device that signs
    /// otherwise; [`ServiceError::Unavailable`] without a vault.
    pub async fn enrol_joint(
        &self,
        actor: &Actor,
        request: &[u8],
        new: &SignerToEnrol,
    ) -> Result<EnrolledJoint, ServiceError> {
        let mut key = vec![0; SHARED_LEN];
        self.rng().fill_bytes(&mut key);
        let key = Secret::new(key);
        let enrolled = self.enrol_certified(actor, request, new, SignMethod::Joint, Some(&key));
        let enrolled = enrolled.await?;
        Ok(EnrolledJoint { record: enrolled.record, enrolled: enrolled.enrolled, key })
    }
}
