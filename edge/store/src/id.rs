use countersign_crypto::{CryptoRng, UnixTime};

/// What an id names; gives its prefix (interfaces.md, JSON).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IdKind {
    /// A reader: `rdr_`.
    Reader,
    /// An operator: `opr_`.
    Operator,
    /// An operator's token: `tok_`.
    Token,
    /// A certificate: `crt_`.
    Certificate,
    /// A read of a card: `read_`.
    Read,
    /// An approval: `apr_`.
    Approval,
    /// An incident, by which an operator finds the failed check in the audit: `inc_`.
    Incident,
}

/// Longest id in bytes: the longest prefix, `_`, and a hyphenated UUID.
pub const MAX_ID_LEN: usize = 41;

impl IdKind {
    /// The prefix without the underscore.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Reader => "rdr",
            Self::Operator => "opr",
            Self::Token => "tok",
            Self::Certificate => "crt",
            Self::Read => "read",
            Self::Approval => "apr",
            Self::Incident => "inc",
        }
    }
}

/// A new id: prefix and UUIDv7 (RFC 9562), so that ids of one kind sort by time as text.
#[must_use]
pub fn new_id(kind: IdKind, now: UnixTime, rng: &mut dyn CryptoRng) -> String {
    let mut random = [0; 10];
    rng.fill_bytes(&mut random);
    let uuid = uuid::Builder::from_unix_timestamp_millis(now.as_millis(), &random).into_uuid();
    format!("{}_{}", kind.prefix(), uuid.as_hyphenated())
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn ids_carry_kind_and_time_and_differ() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let early = new_id(IdKind::Read, UnixTime::from_secs(1_000_000), &mut rng);
        let late = new_id(IdKind::Read, UnixTime::from_secs(2_000_000), &mut rng);
        assert!(early.starts_with("read_") && early.len() == MAX_ID_LEN);
        assert!(early < late);
        assert_eq!(&early[19..20], "7");
        let again = new_id(IdKind::Read, UnixTime::from_secs(1_000_000), &mut rng);
        assert_ne!(early, again);
    }
}
