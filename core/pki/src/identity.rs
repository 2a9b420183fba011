use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

use crate::PkiError;

/// Longest serial number or server id, in characters.
pub const ID_MAX: usize = 64;

const SCHEME: &str = "countersign://";

/// What the holder of a certificate may act as. A certificate has exactly one role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Role {
    /// An ID-card reader without a SAM (C).
    Reader,
    /// The server that devices connect to.
    Server,
    /// A host of SAM modules that serves them to servers (C12).
    SamHost,
    /// A POS terminal that keys are injected into (E).
    Terminal,
    /// An external security device that confirms payments (D).
    SecurityDevice,
    /// A card sleeve that stands for cards kept at home (A).
    Sleeve,
    /// A manager, which keeps real cards at home (A).
    Manager,
}

impl Role {
    /// All of them.
    const ALL: [Self; 7] = [
        Self::Reader,
        Self::Server,
        Self::SamHost,
        Self::Terminal,
        Self::SecurityDevice,
        Self::Sleeve,
        Self::Manager,
    ];

    /// The name used in certificates and URIs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Server => "server",
            Self::SamHost => "sam-host",
            Self::Terminal => "terminal",
            Self::SecurityDevice => "security-device",
            Self::Sleeve => "sleeve",
            Self::Manager => "manager",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// Who a leaf certificate speaks for: a role and the serial number (or server id) within it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    role: Role,
    id: String,
}

impl Identity {
    /// Checks the id: 1 to [`ID_MAX`] characters of `A-Z a-z 0-9 . _ -`.
    ///
    /// # Errors
    /// [`PkiError::BadIdentity`].
    pub fn new(role: Role, id: &str) -> Result<Self, PkiError> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        if id.is_empty() || id.len() > ID_MAX || !id.bytes().all(allowed) {
            return Err(PkiError::BadIdentity);
        }
        Ok(Self { role, id: id.to_string() })
    }

    /// The role.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The serial number of a device, or the id of a server.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The URI in the subjectAltName: `countersign://reader/RD-1`.
    #[must_use]
    pub fn to_uri(&self) -> String {
        format!("{SCHEME}{}/{}", self.role.as_str(), self.id)
    }

    /// Parses the URI of a subjectAltName.
    ///
    /// # Errors
    /// [`PkiError::BadIdentity`] for anything but the exact form [`Self::to_uri`] writes.
    pub fn from_uri(uri: &str) -> Result<Self, PkiError> {
        let rest = uri.strip_prefix(SCHEME).ok_or(PkiError::BadIdentity)?;
        let (role, id) = rest.split_once('/').ok_or(PkiError::BadIdentity)?;
        Self::new(Role::parse(role).ok_or(PkiError::BadIdentity)?, id)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.role.as_str(), self.id)
    }
}
