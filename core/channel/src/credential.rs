use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use countersign_crypto::{DecryptionKey, Provider, SecureElement, Suite, UnixTime};
use countersign_pki::{CERTIFICATE_MAX, CertificateNumber, Identity, Leaf, TrustStore};

use crate::message::OFFER_MAX;
use crate::{Delivery, Error, Mode, Policy, Refusal};

/// What a party proves itself with, in one suite.
#[derive(Clone)]
pub struct Credential {
    /// The suite's algorithms.
    pub provider: Provider,
    /// The security chip that holds the private key.
    pub key: Arc<dyn SecureElement>,
    /// Its certificate, DER, at most [`CERTIFICATE_MAX`] bytes.
    pub certificate: Vec<u8>,
    /// Whom the party trusts to certify its peers in this suite.
    pub trust: Arc<TrustStore>,
    /// The second certificate of dual-certificate deployments, for [`Policy::certificate_sealed`].
    pub encryption: Option<EncryptionCredential>,
}

/// An encryption certificate and its private key.
#[derive(Clone)]
pub struct EncryptionCredential {
    /// What holds the private key.
    pub key: Arc<dyn DecryptionKey>,
    /// The certificate, DER, at most [`CERTIFICATE_MAX`] bytes.
    pub certificate: Vec<u8>,
}

impl Credential {
    pub(crate) const fn suite(&self) -> Suite {
        self.provider.suite
    }

    pub(crate) fn number(&self) -> Result<CertificateNumber, Error> {
        let misuse = Error::Misuse("configuration outside its bounds");
        if self.certificate.len() > CERTIFICATE_MAX {
            return Err(misuse);
        }
        countersign_pki::number(&self.certificate).map_err(|_| misuse)
    }

    /// Whether this credential can do what the policy asks of its side. The contribution is sealed
    /// to the reader in C1, to the server in C2.
    pub(crate) fn serves(&self, policy: Policy, receives_contribution: bool) -> bool {
        !policy.certificate_sealed
            || (self.provider.encryption.is_some()
                && (!receives_contribution || self.encryption.is_some()))
    }
}

/// The credential of a suite.
pub(crate) fn of_suite(credentials: &[Credential], suite: u16) -> Option<&Credential> {
    credentials.iter().find(|credential| credential.suite().code() == suite)
}

/// What no configuration may be without, on either side.
pub(crate) fn check_offers(
    credentials: &[Credential],
    modes: &[Mode],
    policies: &[Policy],
) -> Result<(), Error> {
    let [first, ..] = policies else { return Err(Error::Misuse("no protection policy")) };
    if credentials.is_empty() || modes.is_empty() {
        return Err(Error::Misuse("no credential or no mode"));
    }
    if policies.iter().any(|policy| policy.delivery != first.delivery) {
        return Err(Error::Misuse("policies for streams and datagrams in one configuration"));
    }
    Ok(())
}

/// What a sleeve or a manager cannot be without: streams only, no second certificates, and
/// certificates that name it.
pub(crate) fn check_pairing_party(
    credentials: &[Credential],
    modes: &[Mode],
    policies: &[Policy],
    own: &Identity,
) -> Result<(), Error> {
    check_offers(credentials, modes, policies)?;
    if credentials.len() > OFFER_MAX || policies.len() > OFFER_MAX {
        return Err(Error::Misuse("more offers than a message holds"));
    }
    if modes.iter().any(|mode| mode.is_of_readers()) {
        return Err(Error::Misuse("a mode of readers and servers"));
    }
    let plain = |policy: &Policy| policy.delivery == Delivery::Stream && !policy.certificate_sealed;
    if !policies.iter().all(plain) {
        return Err(Error::Misuse("sleeves and managers speak over streams, with one certificate"));
    }
    for credential in credentials {
        credential.number()?;
        if countersign_pki::identity(&credential.certificate).ok().as_ref() != Some(own) {
            return Err(Error::Misuse("a certificate of another party"));
        }
    }
    Ok(())
}

/// An id as it stands in a configuration; "" = any.
pub(crate) fn check_id(id: Option<&String>) -> Result<&[u8], Error> {
    let id = id.map(String::as_bytes).unwrap_or_default();
    if id.len() > countersign_pki::ID_MAX {
        return Err(Error::Misuse("configuration outside its bounds"));
    }
    Ok(id)
}

/// The point that the peer's encryption certificate certifies, where the policy seals to it: of the
/// same party as its signing certificate. Elsewhere there must be no such certificate.
pub(crate) fn certified_point(
    credential: &Credential,
    policy: Policy,
    encryption_certificate: &[u8],
    peer: &Leaf,
    now: UnixTime,
) -> Result<Option<Vec<u8>>, Error> {
    if !policy.certificate_sealed {
        return if encryption_certificate.is_empty() {
            Ok(None)
        } else {
            Err(Error::Malformed("an encryption certificate that nobody asked for"))
        };
    }
    let leaf = credential.trust.verify_encryption(
        encryption_certificate,
        peer.identity().role(),
        now,
        None,
    )?;
    if leaf.identity() != peer.identity() {
        return Err(Refusal::EncryptionIdMismatch.into());
    }
    Ok(Some(leaf.point().to_vec()))
}
