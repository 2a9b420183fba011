use x509_cert::ext::pkix::{KeyUsage, KeyUsages};

/// What a certified key is for. One certificate per key, one usage per certificate:
/// dual-certificate deployments (GB/T 38636) give each party one of either kind, under the same
/// identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Usage {
    /// Signs: handshakes, requests, documents.
    Signing,
    /// Opens what others encrypted to it.
    Encryption,
}

impl Usage {
    /// The keyUsage of its certificates.
    pub(crate) fn key_usage(self) -> KeyUsage {
        KeyUsage(match self {
            Self::Signing => KeyUsages::DigitalSignature.into(),
            Self::Encryption => {
                KeyUsages::KeyEncipherment | KeyUsages::DataEncipherment | KeyUsages::KeyAgreement
            }
        })
    }

    /// The one usage a leaf's keyUsage stands for; None for neither, or for a mixture.
    pub(crate) fn of(usage: &KeyUsage) -> Option<Self> {
        let encrypts =
            usage.key_encipherment() || usage.data_encipherment() || usage.key_agreement();
        let signs = usage.digital_signature() || usage.non_repudiation();
        match (signs, encrypts) {
            (true, false) if usage.digital_signature() => Some(Self::Signing),
            (false, true) if usage.key_encipherment() => Some(Self::Encryption),
            _ => None,
        }
    }
}
