use thiserror::Error;

/// Why a certificate or request was refused. [`PkiError::check`] gives the stable name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PkiError {
    /// Not DER, too long, or not the structure the profile asks for.
    #[error("the certificate is malformed or outside its profile")]
    Malformed,
    /// Signature or key algorithm is not the suite's.
    #[error("the certificate uses an algorithm this suite does not have")]
    WrongAlgorithm,
    /// No provisioned issuing certificate has this issuer's name and key identifier.
    #[error("the certificate was issued by a CA that is not trusted here")]
    UnknownIssuer,
    /// The issuer's signature does not verify.
    #[error("the certificate's signature does not verify")]
    BadSignature,
    /// `notBefore` lies in the future.
    #[error("the certificate is not valid yet")]
    NotYetValid,
    /// `notAfter` has passed (the leaf's or its issuer's).
    #[error("the certificate has expired")]
    Expired,
    /// The certificate names another role than the one wanted here.
    #[error("the certificate is for another role")]
    WrongRole,
    /// The certificate or request is for another usage of its key: signing, encryption.
    #[error("the certificate is for another usage of its key")]
    WrongUsage,
    /// On the list of revoked certificates.
    #[error("the certificate has been revoked")]
    Revoked,
    /// An identity with characters or a length that the profile does not allow.
    #[error("a serial number has 1 to 64 characters of A-Z a-z 0-9 . _ -")]
    BadIdentity,
    /// The request's self-signature does not verify: possession of the key is not proven.
    #[error("the request does not prove possession of its key")]
    BadProofOfPossession,
    /// The trust store holds as many issuing certificates as it may.
    #[error("the trust store is full")]
    TooManyIssuers,
    /// The signing key failed, or is not the issuer's key.
    #[error("the issuing key could not sign")]
    SigningFailed,
}

impl PkiError {
    /// Stable name of the failed check, as errors and the audit log give it.
    #[must_use]
    pub const fn check(self) -> &'static str {
        match self {
            Self::Malformed => "certificate-malformed",
            Self::WrongAlgorithm => "certificate-algorithm",
            Self::UnknownIssuer => "certificate-issuer",
            Self::BadSignature => "certificate-signature",
            Self::NotYetValid => "certificate-not-yet-valid",
            Self::Expired => "certificate-expired",
            Self::WrongRole => "certificate-role",
            Self::WrongUsage => "certificate-usage",
            Self::Revoked => "certificate-revoked",
            Self::BadIdentity => "serial-format",
            Self::BadProofOfPossession => "request-proof",
            Self::TooManyIssuers => "trust-store-full",
            Self::SigningFailed => "signing",
        }
    }
}

impl From<der::Error> for PkiError {
    fn from(_: der::Error) -> Self {
        Self::Malformed
    }
}
