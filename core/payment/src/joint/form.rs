/// How a card commits to its joint password: the patent's three ways, of which a server announces
/// those that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// The password encrypted to the server's key (B3, claim 2).
    Sealed,
    /// The password and 16 random bytes encrypted to the server's key (B4, claim 3).
    SealedRandom,
    /// The digest of the password encrypted under a key that card and server share (B5, claims 5
    /// and 6). What it is the digest of never travels.
    Digest,
}

impl Form {
    /// Every form, by code.
    pub const ALL: [Self; 3] = [Self::Sealed, Self::SealedRandom, Self::Digest];

    /// The code in APDUs and in commitments.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Sealed => 1,
            Self::SealedRandom => 2,
            Self::Digest => 3,
        }
    }

    /// The form of a code, if there is one.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.code() == code)
    }

    /// The name in configurations and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::SealedRandom => "sealed-random",
            Self::Digest => "digest",
        }
    }

    /// The form of a name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_lead_back_and_are_distinct() {
        for form in Form::ALL {
            assert_eq!(Form::from_code(form.code()), Some(form));
            assert_eq!(Form::from_name(form.name()), Some(form));
        }
        for code in [0, 4, 0xff] {
            assert_eq!(Form::from_code(code), None);
        }
        for name in ["", "Sealed", "sealed ", "plain"] {
            assert_eq!(Form::from_name(name), None);
        }
    }
}
