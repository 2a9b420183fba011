use thiserror::Error;

use crate::reader::DerError;

/// Why a list, or a certificate by a list, was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CrlError {
    /// Longer than [`CRL_MAX`](crate::CRL_MAX), or more than
    /// [`CRL_ENTRIES_MAX`](crate::CRL_ENTRIES_MAX) entries.
    #[error("the revocation list is too long")]
    TooLong,
    /// Not DER, or not the structure of a list.
    #[error("the revocation list is malformed: {0}")]
    Malformed(#[from] DerError),
    /// A version that is not known, or extensions in a list of version 1.
    #[error("the revocation list has a version that is not known")]
    Version,
    /// Signed otherwise than with RSASSA-PKCS1-v1_5 and SHA-256.
    #[error("the revocation list is not signed with RSA and SHA-256")]
    Algorithm,
    /// An extension stands twice.
    #[error("the revocation list repeats an extension")]
    RepeatedExtension,
    /// A critical extension that is not known: the list may be partial or another's.
    #[error("the revocation list has a critical extension that is not known")]
    CriticalExtension,
    /// The issuer is not the CA that was asked for.
    #[error("the revocation list was issued by another CA")]
    Issuer,
    /// The CA's certificate does not let it sign lists.
    #[error("the issuer may not sign revocation lists")]
    IssuerUsage,
    /// The CA's certificate is not valid at this time.
    #[error("the issuer's certificate is not valid at this time")]
    IssuerTime,
    /// The signature does not verify under the CA's key.
    #[error("the revocation list's signature does not verify")]
    Signature,
    /// `thisUpdate` lies in the future.
    #[error("the revocation list is not valid yet")]
    NotYetValid,
    /// There is no `nextUpdate`: such a list would never end.
    #[error("the revocation list does not say until when it is valid")]
    WithoutNextUpdate,
    /// `nextUpdate` has passed.
    #[error("the revocation list has expired")]
    Expired,
    /// Older than the list that was seen last.
    #[error("the revocation list is older than one seen before")]
    Older,
    /// What was seen last is of another CA.
    #[error("the list seen last was of another CA")]
    LastSeenIssuer,
    /// The certificate in question is not of this list's CA.
    #[error("the revocation list is not of the certificate's issuer")]
    NotTheIssuer,
    /// The certificate is on the list.
    #[error("the certificate has been revoked")]
    Revoked,
}

impl CrlError {
    /// Stable name of the failed check, as errors and the audit log give it.
    #[must_use]
    pub const fn check(self) -> &'static str {
        match self {
            Self::TooLong => "crl-length",
            Self::Malformed(_) => "crl-malformed",
            Self::Version => "crl-version",
            Self::Algorithm => "crl-algorithm",
            Self::RepeatedExtension => "crl-repeated-extension",
            Self::CriticalExtension => "crl-critical-extension",
            Self::Issuer => "crl-issuer",
            Self::IssuerUsage => "crl-issuer-usage",
            Self::IssuerTime => "crl-issuer-time",
            Self::Signature => "crl-signature",
            Self::NotYetValid => "crl-not-yet-valid",
            Self::WithoutNextUpdate => "crl-without-next-update",
            Self::Expired => "crl-expired",
            Self::Older => "crl-older",
            Self::LastSeenIssuer => "crl-last-seen-issuer",
            Self::NotTheIssuer => "crl-not-the-issuer",
            Self::Revoked => "certificate-revoked",
        }
    }
}
