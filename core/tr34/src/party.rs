//! What a certificate of this hierarchy says its holder is: a role and an id, in the one URI of its
//! subjectAltName, as certificates of other devices have it.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use core::fmt;

use thiserror::Error;

/// Longest id, in characters.
pub const ID_MAX: usize = 64;

const SCHEME: &str = "countersign://";

/// What the holder of a certificate may act as in key injection (E).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Role {
    /// A key distribution host: sends keys, signs tokens.
    Kdh,
    /// A key receiving device: a terminal, receives keys.
    Krd,
    /// The CA above KDHs, `CA_KDH`.
    CaKdh,
    /// The CA above terminals, `Sub_CA_KRD`. Where so set up it is above KDHs too (E2).
    CaKrd,
}

impl Role {
    const ALL: [Self; 4] = [Self::Kdh, Self::Krd, Self::CaKdh, Self::CaKrd];

    /// The name used in certificates.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kdh => "kdh",
            Self::Krd => "krd",
            Self::CaKdh => "ca-kdh",
            Self::CaKrd => "ca-krd",
        }
    }

    /// True for the two CAs.
    #[must_use]
    pub const fn is_ca(self) -> bool {
        matches!(self, Self::CaKdh | Self::CaKrd)
    }

    /// True if a CA with this role may certify a holder with role `leaf`. A terminal's CA may
    /// certify a KDH (E2 allows one parent key for both); a KDH's CA never certifies a terminal.
    #[must_use]
    pub const fn may_certify(self, leaf: Self) -> bool {
        matches!((self, leaf), (Self::CaKdh | Self::CaKrd, Self::Kdh) | (Self::CaKrd, Self::Krd))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A role and the id within it: a terminal's device id, a KDH's or CA's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Party {
    role: Role,
    id: String,
}

/// The text is not a role and an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an id has 1 to 64 characters of A-Z a-z 0-9 . _ -")]
pub struct BadParty;

impl BadParty {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(self) -> &'static str {
        "device-id-format"
    }
}

impl Party {
    /// Checks the id: 1 to [`ID_MAX`] characters of `A-Z a-z 0-9 . _ -`.
    ///
    /// # Errors
    /// [`BadParty`].
    pub fn new(role: Role, id: &str) -> Result<Self, BadParty> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        if id.is_empty() || id.len() > ID_MAX || !id.bytes().all(allowed) {
            return Err(BadParty);
        }
        Ok(Self { role, id: id.to_owned() })
    }

    /// The role.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The id within the role.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The URI in the subjectAltName: `countersign://krd/POS-1`.
    #[must_use]
    pub fn to_uri(&self) -> String {
        format!("{SCHEME}{}/{}", self.role.as_str(), self.id)
    }

    /// Parses such a URI.
    ///
    /// # Errors
    /// [`BadParty`] for anything but the exact form that [`Self::to_uri`] writes.
    pub fn from_uri(uri: &str) -> Result<Self, BadParty> {
        let rest = uri.strip_prefix(SCHEME).ok_or(BadParty)?;
        let (name, id) = rest.split_once('/').ok_or(BadParty)?;
        let role = Role::ALL.into_iter().find(|role| role.as_str() == name).ok_or(BadParty)?;
        Self::new(role, id)
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.role, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_has_one_form() {
        for role in Role::ALL {
            let party = Party::new(role, "POS-1.a_B").unwrap();
            assert_eq!(Party::from_uri(&party.to_uri()), Ok(party));
        }
        for bad in [
            "countersign://krd/",
            "countersign://krd",
            "countersign://KRD/a",
            "countersign://reader/a",
            "countersign://krd/a/b",
            "countersign://krd/a b",
            "Countersign://krd/a",
            "krd/a",
            "",
        ] {
            assert_eq!(Party::from_uri(bad), Err(BadParty), "{bad}");
        }
        assert_eq!(Party::new(Role::Krd, &"a".repeat(65)), Err(BadParty));
        assert!(Party::new(Role::Krd, &"a".repeat(64)).is_ok());
    }

    #[test]
    fn who_may_certify_whom() {
        use Role::{CaKdh, CaKrd, Kdh, Krd};
        let allowed = [(CaKdh, Kdh), (CaKrd, Kdh), (CaKrd, Krd)];
        for ca in Role::ALL {
            for leaf in Role::ALL {
                assert_eq!(ca.may_certify(leaf), allowed.contains(&(ca, leaf)), "{ca} {leaf}");
            }
        }
    }
}
