use countersign_crypto::{CryptoRng, UnixTime};

/// What an id names; gives its prefix (interfaces.md, JSON).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IdKind {
    /// A reader: `rdr_`.
    Reader,
    /// A host of SAM modules: `smh_`.
    SamHost,
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
    /// A report against a reader: `rpt_`.
    Report,
    /// A transaction at a reader, told by a back office: `txn_`.
    Transaction,
    /// A decision of a risk rule: `dec_`.
    Decision,
    /// A POS terminal: `trm_`.
    Terminal,
    /// An authority of the injection hierarchy, or a KDH: `rka_`.
    KeyAuthority,
    /// A key that is injected: `key_`.
    Key,
    /// A key-encrypting key under which keys are taken in: `kek_`.
    Kek,
    /// The injection of one key into one terminal: `inj_`.
    Injection,
    /// An injection run over an inventory: `run_`.
    InjectionRun,
    /// A campaign that binds terminals to another KDH: `reb_`.
    Rebind,
    /// A payment: `pay_`.
    Payment,
    /// An account of the ledger: `acc_`.
    Account,
    /// A posting in the ledger: `pst_`.
    Posting,
    /// An answer to a payment: a signature or a rejection: `aut_`.
    Authorisation,
    /// An external security device: `sdv_`.
    SecurityDevice,
    /// A payer's phone: `phn_`.
    Phone,
    /// A push to a phone: `psh_`.
    Push,
    /// An event that webhooks are told: `evt_`.
    Event,
    /// A webhook: `whk_`.
    Webhook,
    /// The delivery of an event to a webhook: `dlv_`.
    Delivery,
    /// A card sleeve: `slv_`.
    Sleeve,
    /// A manager of real cards: `mgr_`.
    Manager,
    /// An alarm that a manager raised: `alm_`.
    Alarm,
}

/// Longest id in bytes: the longest prefix, `_`, and a hyphenated UUID.
pub const MAX_ID_LEN: usize = 41;

impl IdKind {
    /// The prefix without the underscore.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Reader => "rdr",
            Self::SamHost => "smh",
            Self::Operator => "opr",
            Self::Token => "tok",
            Self::Certificate => "crt",
            Self::Read => "read",
            Self::Approval => "apr",
            Self::Incident => "inc",
            Self::Report => "rpt",
            Self::Transaction => "txn",
            Self::Decision => "dec",
            Self::Terminal => "trm",
            Self::KeyAuthority => "rka",
            Self::Key => "key",
            Self::Kek => "kek",
            Self::Injection => "inj",
            Self::InjectionRun => "run",
            Self::Rebind => "reb",
            Self::Payment => "pay",
            Self::Account => "acc",
            Self::Posting => "pst",
            Self::Authorisation => "aut",
            Self::SecurityDevice => "sdv",
            Self::Phone => "phn",
            Self::Push => "psh",
            Self::Event => "evt",
            Self::Webhook => "whk",
            Self::Delivery => "dlv",
            Self::Sleeve => "slv",
            Self::Manager => "mgr",
            Self::Alarm => "alm",
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

/// What every id of a kind that was made at `time` or later comes after, as text.
pub(crate) fn ids_from(kind: IdKind, time: UnixTime) -> String {
    let uuid = uuid::Builder::from_unix_timestamp_millis(time.as_millis(), &[0; 10]).into_uuid();
    let text = uuid.as_hyphenated().to_string();
    // The version's digit follows the time.
    format!("{}_{}", kind.prefix(), &text[..14])
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
        let at = |secs| ids_from(IdKind::Read, UnixTime::from_secs(secs));
        assert!(at(1_000_000) <= early && at(1_000_001) > early && at(2_000_000) <= late);
    }
}
