//! The invariants, over a [`Snapshot`] and what the judge remembers of earlier ones.
//!
//! Nothing here calls what it judges: sums, signatures, dynamic passwords and the order of states
//! are worked out again, with the pure-Rust provider where the service uses the fast one.

mod joint;
mod ledger;
mod proof;
mod story;

use std::collections::{BTreeMap, BTreeSet};

use countersign_crypto::{Digest, Provider, UnixTime, rust_crypto};
use countersign_pki::TrustStore;
pub(crate) use proof::{decimal, digits, signing_input};

use crate::snapshot::{Change, Payment, Snapshot};

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Its stable name.
    pub(crate) name: &'static str,
    /// Where.
    pub(crate) detail: String,
}

/// Something that a caller was told, and that holds from then on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Promise {
    /// The payment exists.
    Made(String),
    /// The payment has ended so.
    Ended(String, String),
    /// A posting by hand is there, under this reference.
    Posted(String),
    /// The account was frozen by its payer's word, or was closed to payments already.
    Frozen(String),
    /// So much of the payment has gone back.
    Refunded(String, i64),
}

/// What the world knows of a signer, and the store has no say in.
#[derive(Debug, Default, Clone)]
pub(crate) struct Signer {
    /// The OCRA key, if it is a device of that kind.
    pub(crate) ocra_key: Option<Vec<u8>>,
    /// The accounts that it was ever bound to.
    pub(crate) accounts: BTreeSet<String>,
    /// The times, ends excluded, in which nothing of it may be accepted.
    pub(crate) barred: Vec<(UnixTime, UnixTime)>,
    /// What was consented to at a card that signs at terminals, as the world saw it.
    pub(crate) consents: Vec<Consent>,
}

/// The holder of a card took it out, saw a transaction, and gave the right PIN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Consent {
    pub(crate) transaction: Vec<u8>,
    pub(crate) commitment: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    /// The joint password that the card showed for it, and for nothing before.
    pub(crate) password: String,
}

/// Who judges.
pub(crate) struct Judge {
    pure: Provider,
    trust: TrustStore,
    /// By the device's id in the store.
    pub(crate) devices: BTreeMap<String, Signer>,
    /// Phones, by id. They have no key.
    pub(crate) phones: BTreeMap<String, Signer>,
    promises: Vec<Promise>,
    /// Each payment when it was last looked at.
    before: BTreeMap<String, (Payment, Vec<Change>)>,
    /// Postings that were seen: nothing of them changes.
    postings: BTreeMap<String, String>,
    /// Hashes of what was verified, so that each signature is verified once only.
    verified: BTreeSet<Digest>,
    /// Wrong answers with which a payment fails, as the policy has it.
    wrong_max: i64,
}

impl Judge {
    /// Trusting who `trust` trusts, a store made with the pure-Rust provider.
    pub(crate) fn new(trust: TrustStore, wrong_max: u32) -> Self {
        Self {
            pure: rust_crypto::provider(),
            trust,
            devices: BTreeMap::new(),
            phones: BTreeMap::new(),
            promises: Vec::new(),
            before: BTreeMap::new(),
            postings: BTreeMap::new(),
            verified: BTreeSet::new(),
            wrong_max: wrong_max.into(),
        }
    }

    /// Holds the service to what it said.
    pub(crate) fn promised(&mut self, promise: Promise) {
        if !self.promises.contains(&promise) {
            self.promises.push(promise);
        }
    }

    /// Everything that is wrong; empty if nothing is.
    pub(crate) fn look(&mut self, now: &Snapshot) -> Vec<Violation> {
        let mut found = Vec::new();
        ledger::check(now, &mut found);
        self.check_proofs(now, &mut found);
        self.check_joint(now, &mut found);
        self.check_stories(now, &mut found);
        found
    }
}

/// Adds a violation if something is wrong.
fn find(found: &mut Vec<Violation>, wrong: bool, name: &'static str, detail: impl Into<String>) {
    if wrong {
        found.push(Violation { name, detail: detail.into() });
    }
}
