use thiserror::Error;

use crate::reader::DerError;

/// Why a certificate was refused. [`CertificateError::check`] gives the stable name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Longer than [`CERTIFICATE_MAX`](crate::CERTIFICATE_MAX).
    #[error("the certificate is too long")]
    TooLong,
    /// Not DER, or not the structure of a certificate.
    #[error("the certificate is malformed: {0}")]
    Malformed(#[from] DerError),
    /// Not version 3.
    #[error("the certificate is not of version 3")]
    Version,
    /// Signed otherwise than with RSASSA-PKCS1-v1_5 and SHA-256.
    #[error("the certificate is not signed with RSA and SHA-256")]
    Algorithm,
    /// The certified key is not RSA of 2048, 3072 or 4096 bits with a sound exponent.
    #[error("the certified key is not RSA of 2048, 3072 or 4096 bits")]
    Key,
    /// An extension stands several times, or its copies contradict each other.
    #[error("the certificate repeats an extension")]
    RepeatedExtension,
    /// A critical extension that is not known here.
    #[error("the certificate has a critical extension that is not known")]
    CriticalExtension,
    /// The issuer's name or key identifier is not that of the certificate above.
    #[error("the certificate was issued by another CA")]
    Issuer,
    /// The certificate above may not certify.
    #[error("the issuer is not a CA")]
    IssuerNotCa,
    /// The certificate above may not certify a CA.
    #[error("the issuer may not certify another CA")]
    PathLength,
    /// The certificate above is not valid yet, or no more.
    #[error("the issuer's certificate is not valid at this time")]
    IssuerTime,
    /// `notBefore` lies in the future.
    #[error("the certificate is not valid yet")]
    NotYetValid,
    /// `notAfter` has passed.
    #[error("the certificate has expired")]
    Expired,
    /// The signature does not verify under the issuer's key.
    #[error("the certificate's signature does not verify")]
    Signature,
    /// A CA's certificate where a KDH's or a terminal's belongs.
    #[error("the certificate is a CA's")]
    LeafIsCa,
    /// keyUsage does not allow what the certificate is for.
    #[error("the certificate is for another usage of its key")]
    Usage,
    /// The certificate names no role.
    #[error("the certificate names no role")]
    WithoutRole,
    /// The certificate names another role: a terminal's where a KDH's belongs.
    #[error("the certificate is for another role")]
    Role,
    /// The CA above is not one for this role.
    #[error("the issuer is a CA for another role")]
    IssuerRole,
    /// A root that is not signed by its own key, or is no CA.
    #[error("the root certificate is not self-signed")]
    NotARoot,
}

impl CertificateError {
    /// Stable name of the failed check, as errors and the audit log give it.
    #[must_use]
    pub const fn check(self) -> &'static str {
        match self {
            Self::TooLong => "certificate-length",
            Self::Malformed(_) => "certificate-malformed",
            Self::Version => "certificate-version",
            Self::Algorithm => "certificate-algorithm",
            Self::Key => "certificate-key",
            Self::RepeatedExtension => "certificate-repeated-extension",
            Self::CriticalExtension => "certificate-critical-extension",
            Self::Issuer => "certificate-issuer",
            Self::IssuerNotCa => "certificate-issuer-not-ca",
            Self::PathLength => "certificate-path-length",
            Self::IssuerTime => "certificate-issuer-time",
            Self::NotYetValid => "certificate-not-yet-valid",
            Self::Expired => "certificate-expired",
            Self::Signature => "certificate-signature",
            Self::LeafIsCa => "certificate-is-ca",
            Self::Usage => "certificate-usage",
            Self::WithoutRole => "certificate-without-role",
            Self::Role => "certificate-role",
            Self::IssuerRole => "certificate-issuer-role",
            Self::NotARoot => "certificate-root",
        }
    }
}
