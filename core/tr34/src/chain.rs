//! Root → `CA_KDH` or `Sub_CA_KRD` → KDH or KRD. A value of these types is proof that its
//! certificate was verified; revocation is for [`Crl`](crate::Crl) to say.

use countersign_crypto::UnixTime;

use crate::Rsa;
use crate::certificate::{Certificate, CertificateError};
use crate::extensions::usage;
use crate::party::{Party, Role};

/// A CA's certificate that was verified under a root (E2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuingCa(Certificate);

impl IssuingCa {
    /// Verifies that `root` is one, issued `certificate`, and that this is a CA for `role`
    /// ([`Role::CaKdh`], [`Role::CaKrd`]).
    ///
    /// # Errors
    /// [`CertificateError`]: those of [`Certificate::verify_root`] and
    /// [`Certificate::verified_by`], [`CertificateError::IssuerNotCa`], and the role's.
    pub fn verify(
        rsa: &dyn Rsa,
        certificate: Certificate,
        root: &Certificate,
        role: Role,
        now: UnixTime,
    ) -> Result<Self, CertificateError> {
        root.verify_root(rsa, now)?;
        certificate.verified_by(rsa, root, now)?;
        if !certificate.may_certify() {
            return Err(CertificateError::IssuerNotCa);
        }
        check_role(&certificate, role)?;
        Ok(Self(certificate))
    }

    /// The certificate.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.0
    }

    /// The certificate.
    #[must_use]
    pub fn into_certificate(self) -> Certificate {
        self.0
    }
}

/// A KDH's certificate, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kdh(Certificate);

/// A terminal's certificate, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Krd(Certificate);

impl Kdh {
    /// Verifies that `ca`, which the caller trusts, issued `certificate` to a KDH: by signature,
    /// role, the CA's role, usage of the key, and time.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn verify(
        rsa: &dyn Rsa,
        certificate: Certificate,
        ca: &Certificate,
        now: UnixTime,
    ) -> Result<Self, CertificateError> {
        check_leaf(rsa, &certificate, ca, Role::Kdh, now)?;
        if !certificate.allows(usage::DIGITAL_SIGNATURE) {
            return Err(CertificateError::Usage);
        }
        Ok(Self(certificate))
    }

    /// The certificate.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.0
    }

    /// The KDH's name; none in a foreign certificate.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.0.party().map(Party::id)
    }
}

impl Krd {
    /// Verifies that `ca`, which the caller trusts, issued `certificate` to a terminal.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn verify(
        rsa: &dyn Rsa,
        certificate: Certificate,
        ca: &Certificate,
        now: UnixTime,
    ) -> Result<Self, CertificateError> {
        check_leaf(rsa, &certificate, ca, Role::Krd, now)?;
        let signs =
            certificate.leniency().krd_signs && certificate.allows(usage::DIGITAL_SIGNATURE);
        if !certificate.allows(usage::KEY_ENCIPHERMENT) && !signs {
            return Err(CertificateError::Usage);
        }
        Ok(Self(certificate))
    }

    /// The certificate.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.0
    }

    /// The device id; none in a foreign certificate.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.0.party().map(Party::id)
    }
}

fn check_leaf(
    rsa: &dyn Rsa,
    certificate: &Certificate,
    ca: &Certificate,
    role: Role,
    now: UnixTime,
) -> Result<(), CertificateError> {
    certificate.verified_by(rsa, ca, now)?;
    if certificate.is_ca() || certificate.says(usage::KEY_CERT_SIGN) {
        return Err(CertificateError::LeafIsCa);
    }
    match ca.party() {
        Some(party) if !party.role().may_certify(role) => {
            return Err(CertificateError::IssuerRole);
        }
        None if !ca.leniency().without_role => return Err(CertificateError::IssuerRole),
        _ => {}
    }
    check_role(certificate, role)
}

fn check_role(certificate: &Certificate, role: Role) -> Result<(), CertificateError> {
    match certificate.party() {
        Some(party) if party.role() == role => Ok(()),
        Some(_) => Err(CertificateError::Role),
        None if certificate.leniency().without_role => Ok(()),
        None => Err(CertificateError::WithoutRole),
    }
}
