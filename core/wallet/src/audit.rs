//! What happened at a manager, written so that changes show (A8).
//!
//! One JSON object a line. Each line holds the hash of the line before; a [`Head`] is the manager's
//! signature over the number and the hash of the last one, replaced with every line. So an altered,
//! inserted, removed or swapped line breaks the chain, and a cut tail shows against any head that
//! was kept from later. No line holds a command's data: no PIN, no cryptogram, no card number.

use core::fmt;

use countersign_crypto::{
    CryptoRng, Digest, HASH_LEN, Provider, SecureElement, UnixTime, VerifyingKey,
};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::policy::Exchange;

#[cfg(test)]
mod tests;

/// Most bytes of a line.
pub const LINE_MAX: usize = 2048;
/// What every signature of a head begins with.
const LABEL: &[u8] = b"Countersign v1 wallet audit head\0";

/// Why an audit does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AuditError {
    /// A line is none that [`Trail::append`] writes.
    #[error("not a line of an audit")]
    Line,
    /// A line's number does not follow.
    #[error("a line is missing, or stands elsewhere")]
    Number,
    /// A line does not hold the hash of the line before it.
    #[error("the line before was altered")]
    Chain,
    /// The trail ends before its head: its end was cut off.
    #[error("lines are missing at the end")]
    Cut,
    /// The line that the head signs is another.
    #[error("the head signs another line")]
    Head,
    /// The head's signature is not the manager's.
    #[error("the head's signature is wrong")]
    Signature,
    /// An entry whose line would be longer than [`LINE_MAX`].
    #[error("the entry is too long")]
    TooLong,
    /// The key did not sign.
    #[error("the key did not sign")]
    Signing,
}

impl AuditError {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(self) -> &'static str {
        match self {
            Self::Line => "audit-line",
            Self::Number => "audit-number",
            Self::Chain => "audit-chain",
            Self::Cut => "audit-cut",
            Self::Head => "audit-head",
            Self::Signature => "audit-signature",
            Self::TooLong => "audit-too-long",
            Self::Signing => "internal",
        }
    }
}

/// Where and why an audit does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("line {line}: {error}")]
pub struct Broken {
    /// The line, from 1; one past the last for a cut tail, 0 for the head alone.
    pub line: u64,
    /// What is wrong.
    pub error: AuditError,
}

/// What happened. Absent members are not written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Entry {
    /// What kind of thing: `login`, `take`, `exchange`, `release`, `revoke`, …
    pub event: String,
    /// Which sleeve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sleeve: Option<String>,
    /// Which session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Which card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card: Option<String>,
    /// The application, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aid: Option<String>,
    /// Class and instruction, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ins: Option<String>,
    /// In minor units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<u64>,
    /// ISO 4217's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<u16>,
    /// The card's status word, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sw: Option<String>,
    /// What came of it, in one word: `usual`, `alarm`, `wrong` of a login, which are one length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// The check that refused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
}

impl Entry {
    /// An entry of this kind.
    #[must_use]
    pub fn new(event: &str) -> Self {
        Self { event: event.to_owned(), ..Self::default() }
    }

    /// An exchange with a card, without its data.
    #[must_use]
    pub fn of_exchange(exchange: &Exchange) -> Self {
        let hex = |bytes: &[u8]| HEXLOWER.encode(bytes).to_uppercase();
        Self {
            aid: exchange.aid.as_ref().map(ToString::to_string),
            ins: exchange.instruction.map(|bytes| hex(&bytes)),
            amount: exchange.money.map(|money| money.amount),
            currency: exchange.money.map(|money| money.currency),
            sw: exchange.status.map(|status| hex(&status.to_be_bytes())),
            check: exchange.check.map(str::to_owned),
            ..Self::new("exchange")
        }
    }
}

/// A line as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Line {
    number: u64,
    /// Milliseconds since the epoch.
    at: u64,
    entry: Entry,
    /// Hash of the line before, without its end of line; zeros for the first.
    before: String,
}

/// The end of an audit, to which the next line is chained.
#[derive(Clone)]
pub struct Trail {
    provider: Provider,
    manager: String,
    number: u64,
    last: Digest,
}

impl fmt::Debug for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trail({}, {} lines)", self.manager, self.number)
    }
}

impl Trail {
    /// An empty one of this manager.
    #[must_use]
    pub fn new(provider: &Provider, manager: &str) -> Self {
        let (provider, manager) = (provider.clone(), manager.to_owned());
        Self { provider, manager, number: 0, last: [0; HASH_LEN] }
    }

    /// Goes on where these lines end, after checking their chain.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn resume<'a>(
        provider: &Provider,
        manager: &str,
        lines: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, Broken> {
        let mut trail = Self::new(provider, manager);
        for line in lines {
            trail.follow(line).map_err(|error| Broken { line: trail.number + 1, error })?;
        }
        Ok(trail)
    }

    /// Lines so far.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Writes the next line, its end of line included. The owner stores it before what it tells of
    /// has an effect outside; where that fails, the trail is to be made anew from what is stored.
    ///
    /// # Errors
    /// [`AuditError::TooLong`]; nothing is changed then.
    pub fn append(&mut self, now: UnixTime, entry: Entry) -> Result<String, AuditError> {
        let before = HEXLOWER.encode(&self.last);
        let line = Line { number: self.number + 1, at: now.as_millis(), entry, before };
        let mut text = serde_json::to_string(&line).map_err(|_| AuditError::TooLong)?;
        if text.len() > LINE_MAX {
            return Err(AuditError::TooLong);
        }
        self.last = self.provider.hash.hash(&[text.as_bytes()]);
        self.number += 1;
        text.push('\n');
        Ok(text)
    }

    /// Signs the end as it is now. The owner stores it in place of the one before.
    ///
    /// # Errors
    /// [`AuditError::Signing`].
    pub fn head(
        &self,
        key: &dyn SecureElement,
        rng: &mut dyn CryptoRng,
    ) -> Result<Head, AuditError> {
        let signed = signed_bytes(&self.manager, self.number, &self.last);
        let signature = key.sign(rng, &signed).map_err(|_| AuditError::Signing)?;
        Ok(Head {
            manager: self.manager.clone(),
            number: self.number,
            last: HEXLOWER.encode(&self.last),
            signature: HEXLOWER.encode(&signature),
        })
    }

    fn follow(&mut self, text: &str) -> Result<(), AuditError> {
        if text.len() > LINE_MAX {
            return Err(AuditError::Line);
        }
        let line: Line = serde_json::from_str(text).map_err(|_| AuditError::Line)?;
        if line.number != self.number + 1 {
            return Err(AuditError::Number);
        }
        if line.before != HEXLOWER.encode(&self.last) {
            return Err(AuditError::Chain);
        }
        self.last = self.provider.hash.hash(&[text.as_bytes()]);
        self.number = line.number;
        Ok(())
    }
}

/// A manager's signature over the end of its audit, as JSON in a file of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Head {
    /// Which manager.
    pub manager: String,
    /// The last line's number.
    pub number: u64,
    /// Its hash, in hexadecimal digits.
    pub last: String,
    /// The signature (DER), in hexadecimal digits.
    pub signature: String,
}

/// An audit that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Lines that the head covers.
    pub covered: u64,
    /// Lines after it, chained but not signed: the manager stopped between a line and its head.
    pub uncovered: u64,
}

/// Verifies an audit against a head: the newest, or one that was kept elsewhere.
///
/// # Errors
/// [`Broken`]: the first line that does not hold, and why.
pub fn verify<'a>(
    provider: &Provider,
    lines: impl IntoIterator<Item = &'a str>,
    head: &Head,
    key: &dyn VerifyingKey,
) -> Result<Verified, Broken> {
    let head_broken = |error| Broken { line: 0, error };
    let hex = |text: &str| HEXLOWER.decode(text.as_bytes());
    let last = hex(&head.last).map_err(|_| head_broken(AuditError::Head))?;
    let signature = hex(&head.signature).map_err(|_| head_broken(AuditError::Signature))?;
    let signed = signed_bytes(&head.manager, head.number, &last);
    key.verify(&signed, &signature).map_err(|_| head_broken(AuditError::Signature))?;
    let mut trail = Trail::new(provider, &head.manager);
    let mut found = (head.number == 0).then_some(trail.last);
    for line in lines {
        trail.follow(line).map_err(|error| Broken { line: trail.number + 1, error })?;
        if trail.number == head.number {
            found = Some(trail.last);
        }
    }
    match found {
        None => Err(Broken { line: trail.number + 1, error: AuditError::Cut }),
        Some(found) if found[..] != last[..] => {
            Err(Broken { line: head.number, error: AuditError::Head })
        }
        Some(_) => Ok(Verified { covered: head.number, uncovered: trail.number - head.number }),
    }
}

/// What a head's signature is over: label, manager, number, hash; each framed.
fn signed_bytes(manager: &str, number: u64, last: &[u8]) -> Vec<u8> {
    let len = u32::try_from(manager.len()).unwrap_or(u32::MAX).to_be_bytes();
    [LABEL, &len, manager.as_bytes(), &number.to_be_bytes(), last].concat()
}
