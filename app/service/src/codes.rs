//! One-time codes by which terminals (E1) and phones (D2) enrol, and the bound on wrong ones.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_crypto::{Secret, UnixTime};
use data_encoding::BASE32_NOPAD;
use zeroize::Zeroizing;

use crate::Service;

/// How long wrong codes count.
pub const WRONG_WINDOW: Duration = Duration::from_secs(3600);
/// Wrong codes, and requests that fail before theirs is looked at, from one source within
/// [`WRONG_WINDOW`], for whatever terminals and phones, at one server.
pub const WRONG_FROM_SOURCE_MAX: u32 = 50;
/// Sources that are remembered; with more, the one that began first is forgotten.
const SOURCES_MAX: usize = 4096;
/// Random bytes of an enrolment code: 120 bits, 24 characters.
const CODE_BYTES: usize = 15;
/// Characters of a code, and in each of the groups that it is shown in.
const CODE_LEN: usize = CODE_BYTES * 8 / 5;
const CODE_GROUP: usize = 4;

/// Whose a code is: one for a phone is none for a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CodeOf {
    /// A terminal.
    Terminal,
    /// A payer's phone.
    Phone,
}

impl CodeOf {
    /// What a code's hash begins with, so that it is the hash of nothing else.
    const fn domain(self) -> &'static [u8] {
        match self {
            Self::Terminal => b"countersign enrolment code v1",
            Self::Phone => b"countersign phone code v1",
        }
    }
}

/// A one-time enrolment code, as it is shown once.
pub struct EnrolmentCode(Zeroizing<String>);

impl EnrolmentCode {
    /// The code in groups: `ABCD-EFGH-…`.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EnrolmentCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnrolmentCode(..)")
    }
}

impl Service {
    /// A new code and its hash.
    pub(crate) fn fresh_code(&self, whose: CodeOf) -> (EnrolmentCode, [u8; 32]) {
        let mut bytes = Zeroizing::new([0; CODE_BYTES]);
        self.rng().fill_bytes(&mut *bytes);
        let plain = Zeroizing::new(BASE32_NOPAD.encode(&*bytes));
        let mut shown = Zeroizing::new(String::with_capacity(CODE_LEN + CODE_LEN / CODE_GROUP));
        for (index, c) in plain.chars().enumerate() {
            if index > 0 && index % CODE_GROUP == 0 {
                shown.push('-');
            }
            shown.push(c);
        }
        (EnrolmentCode(shown), self.code_hash(whose, &plain))
    }

    fn code_hash(&self, whose: CodeOf, plain: &str) -> [u8; 32] {
        self.authority.provider.hash.hash(&[whose.domain(), plain.as_bytes()])
    }

    /// The hash of a code as somebody typed it; `None` if no code looks like this.
    pub(crate) fn typed_code_hash(&self, whose: CodeOf, typed: &Secret) -> Option<[u8; 32]> {
        let typed = std::str::from_utf8(typed.expose()).ok()?;
        let mut plain = Zeroizing::new(String::with_capacity(CODE_LEN));
        for c in typed.chars().filter(|c| !matches!(c, '-' | ' ')) {
            if plain.len() == CODE_LEN || !c.is_ascii_alphanumeric() {
                return None;
            }
            plain.push(c.to_ascii_uppercase());
        }
        (plain.len() == CODE_LEN).then(|| self.code_hash(whose, &plain))
    }
}

/// Wrong codes by source: how many, and since when.
#[derive(Default)]
pub(crate) struct WrongCodes(Mutex<HashMap<String, (u32, UnixTime)>>);

impl WrongCodes {
    fn held(&self) -> MutexGuard<'_, HashMap<String, (u32, UnixTime)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a source has had its number of wrong ones.
    pub(crate) fn too_many(&self, source: &str, now: UnixTime) -> bool {
        let held = self.held();
        let counted = held.get(source).filter(|(_, since)| now.since(*since) < WRONG_WINDOW);
        counted.is_some_and(|(wrong, _)| *wrong >= WRONG_FROM_SOURCE_MAX)
    }

    /// One more wrong code from a source.
    pub(crate) fn count(&self, source: &str, now: UnixTime) {
        let mut held = self.held();
        if !held.contains_key(source) && held.len() >= SOURCES_MAX {
            held.retain(|_, (_, since)| now.since(*since) < WRONG_WINDOW);
        }
        if !held.contains_key(source) && held.len() >= SOURCES_MAX {
            let first = held.iter().min_by_key(|(_, (_, since))| *since);
            if let Some(first) = first.map(|(source, _)| source.clone()) {
                held.remove(&first);
            }
        }
        let (wrong, since) = held.entry(source.to_owned()).or_insert((0, now));
        if now.since(*since) >= WRONG_WINDOW {
            (*wrong, *since) = (0, now);
        }
        *wrong += 1;
    }
}
