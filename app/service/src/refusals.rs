//! Refusals in the audit: always wanted, never faster than a bound, so that whoever is refused
//! cannot fill the disk.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use countersign_channel::Error;
use countersign_crypto::UnixTime;
use countersign_store::{AuditEntry, AuditOutcome, IdKind, RiskEvent, RiskKind};

use crate::{Actor, Service, ServiceError, done, risk};

/// Refusals that one party may have written at once, per process.
const BURST: u32 = 20;
/// After that, one more each time this passes. What is above is counted.
const REFILL: Duration = Duration::from_secs(1);
/// Readers with a bound of their own at a time; more share one.
const READERS_MAX: usize = 4096;
/// In place of the id of a reader that has no bound of its own.
const SHARED: &str = "";

/// Who is refused: each kind, and each reader, has a bound of its own, so that noise from one
/// takes neither the incident ids of another nor what the rules count of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Party {
    /// Whoever reaches the gateway and has proven nothing.
    Stranger,
    /// A reader after its handshake.
    Reader,
    /// A terminal after its handshake. No risk rules stand over it.
    Terminal,
    /// A sleeve or a manager after its handshake. No risk rules stand over it.
    Wallet,
    /// A payer's phone with a live token. No risk rules stand over it.
    Phone,
    /// An operator with a live token, or the console.
    Operator,
}

/// The bounds' state.
#[derive(Default)]
pub(crate) struct Refusals {
    strangers: Mutex<Bucket>,
    /// By the reader's id, or [`SHARED`].
    readers: Mutex<HashMap<String, Bucket>>,
    operators: Mutex<Bucket>,
}

/// A token bucket, full at first.
struct Bucket {
    left: u32,
    /// Up to when `left` was refilled.
    filled: UnixTime,
    suppressed: u64,
}

impl Default for Bucket {
    fn default() -> Self {
        Self { left: BURST, filled: UnixTime::default(), suppressed: 0 }
    }
}

impl Bucket {
    /// Whether it is as if it had never been used, but for what it has counted.
    fn is_full(&mut self, now: UnixTime) -> bool {
        self.refill(now);
        self.left == BURST
    }

    fn refill(&mut self, now: UnixTime) {
        let periods = now.since(self.filled).as_millis() / REFILL.as_millis();
        let missing = BURST - self.left;
        match u32::try_from(periods) {
            Ok(periods) if periods < missing => {
                self.left += periods;
                self.filled = self.filled.plus(REFILL * periods);
            }
            _ => (self.left, self.filled) = (BURST, now),
        }
        if now < self.filled {
            self.filled = now; // the clock was set back
        }
    }

    /// Whether a row may be written now; if so, how many were left out since the last one.
    fn admit(&mut self, now: UnixTime) -> Option<u64> {
        self.refill(now);
        if self.left == 0 {
            self.suppressed += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl Refusals {
    /// Does something with the party's bucket; a reader's is by its id.
    fn with<T>(
        &self,
        party: Party,
        reader: &str,
        now: UnixTime,
        work: impl FnOnce(&mut Bucket) -> T,
    ) -> T {
        let one = match party {
            Party::Stranger => &self.strangers,
            Party::Operator => &self.operators,
            Party::Reader | Party::Terminal | Party::Wallet | Party::Phone => {
                let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
                let new = !readers.contains_key(reader);
                if new && readers.len() >= READERS_MAX {
                    make_room(&mut readers, now);
                }
                let name = if new && readers.len() >= READERS_MAX { SHARED } else { reader };
                return work(readers.entry(name.to_owned()).or_default());
            }
        };
        work(&mut one.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn admit(&self, party: Party, reader: &str, now: UnixTime) -> Option<u64> {
        self.with(party, reader, now, |bucket| bucket.admit(now))
    }

    /// A row that was admitted could not be written: it and what it counted are counted again.
    fn take_back(&self, party: Party, reader: &str, now: UnixTime, suppressed: u64) {
        self.with(party, reader, now, |bucket| bucket.suppressed += suppressed + 1);
    }
}

/// Drops the buckets of those who were quiet for long; what they counted is not lost.
fn make_room(readers: &mut HashMap<String, Bucket>, now: UnixTime) {
    let mut suppressed = 0;
    readers.retain(|_, bucket| {
        let quiet = bucket.is_full(now);
        suppressed += if quiet { bucket.suppressed } else { 0 };
        !quiet
    });
    if suppressed > 0 {
        readers.entry(SHARED.to_owned()).or_default().suppressed += suppressed;
    }
}

/// What was refused.
pub(crate) struct Refusal<'a> {
    pub(crate) party: Party,
    /// The actor in the row.
    pub(crate) actor: &'a str,
    pub(crate) action: &'a str,
    pub(crate) subject: &'a str,
    pub(crate) check: &'a str,
    /// For an operator to read.
    pub(crate) reason: String,
    /// The device, if it is proven who was refused: a claim counts against nobody.
    pub(crate) reader: Option<&'a str>,
}

impl Service {
    /// Audits a handshake or session that failed, and returns the incident id for the peer, empty
    /// if the bound on such rows is reached. `peer` is an address. `reader` is the id of the reader
    /// that has done its handshake: only then it is known who was refused.
    pub async fn refused_contact(&self, peer: &str, reader: Option<&str>, error: &Error) -> String {
        let actor = reader.map_or_else(|| peer.to_owned(), |id| format!("{id} at {peer}"));
        let party = match reader {
            None => Party::Stranger,
            Some(id) if is_wallet(id) => Party::Wallet,
            Some(_) => Party::Reader,
        };
        self.audit_refusal(Refusal {
            party,
            actor: &actor,
            reader,
            action: "channel.refuse",
            subject: &self.authority.server_id,
            check: error.check(),
            reason: error.to_string(),
        })
        .await
    }

    /// Audits that an operator, or the console, was refused; a fault or an absent token is none.
    pub(crate) async fn refused_operator(
        &self,
        actor: &Actor,
        action: &str,
        subject: &str,
        error: &ServiceError,
    ) {
        if !error.is_refusal() {
            return;
        }
        let (party, actor) = (Party::Operator, actor.id());
        let (check, reason) = (error.check(), error.to_string());
        let refusal = Refusal { party, actor, action, subject, check, reason, reader: None };
        self.audit_refusal(refusal).await;
    }

    /// Writes a row about a refusal if the bound allows it. The incident id, or an empty text.
    pub(crate) async fn audit_refusal(&self, refusal: Refusal<'_>) -> String {
        let now = self.now();
        let whose = refusal.reader.unwrap_or_default();
        let Some(suppressed) = self.refusals.admit(refusal.party, whose, now) else {
            return String::new();
        };
        let incident = self.new_id(IdKind::Incident);
        let detail = serde_json::json!({ "error": refusal.reason, "suppressed": suppressed });
        let entry = AuditEntry {
            actor: refusal.actor.to_owned(),
            outcome: AuditOutcome::Refused,
            check: Some(refusal.check.to_owned()),
            incident: Some(incident.clone()),
            detail: detail.to_string(),
            ..done(now, &Actor::System, refusal.action, refusal.subject)
        };
        let event = RiskEvent::one(RiskKind::Refusals, refusal.check);
        let watched = refusal.reader.filter(|_| refusal.party == Party::Reader);
        let evaluation = watched.map(|id| self.evaluation(id, now, &[event.kind]));
        let written = self
            .store
            .run_snapshot("audit_refusal", move |tx| {
                tx.append_audit(&entry)?;
                match &evaluation {
                    None => Ok::<_, ServiceError>(Vec::new()),
                    Some(evaluation) => Ok(evaluation.note(tx, std::slice::from_ref(&event))?),
                }
            })
            .await;
        match written {
            Ok(decisions) => {
                risk::log(&decisions);
                incident
            }
            Err(error) => {
                self.refusals.take_back(refusal.party, whose, now, suppressed);
                tracing::warn!(%error, "a refusal could not be audited");
                String::new()
            }
        }
    }
}

/// Whether an id is a sleeve's or a manager's.
fn is_wallet(id: &str) -> bool {
    let prefix = id.split_once('_').map_or(id, |(prefix, _)| prefix);
    [IdKind::Sleeve, IdKind::Manager].iter().any(|kind| kind.prefix() == prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1000);

    fn exhausted(refusals: &Refusals, party: Party) {
        for _ in 0..BURST {
            assert_eq!(refusals.admit(party, "rdr_1", NOW), Some(0));
        }
        assert_eq!(refusals.admit(party, "rdr_1", NOW), None);
    }

    #[test]
    fn after_a_burst_one_row_a_second_and_the_rest_is_counted() {
        let refusals = Refusals::default();
        exhausted(&refusals, Party::Stranger);
        assert_eq!(refusals.admit(Party::Stranger, "rdr_1", NOW), None);
        let mut at = NOW.plus(REFILL);
        assert_eq!(refusals.admit(Party::Stranger, "rdr_1", at), Some(2));
        assert_eq!(refusals.admit(Party::Stranger, "rdr_1", at), None, "no new burst each second");
        at = at.plus(REFILL * 5 / 2);
        assert_eq!(refusals.admit(Party::Stranger, "rdr_1", at), Some(1));
        assert_eq!(refusals.admit(Party::Stranger, "rdr_1", at), Some(0));
        assert_eq!(refusals.admit(Party::Stranger, "rdr_1", at), None);
        at = at.plus(REFILL / 2);
        assert_eq!(refusals.admit(Party::Stranger, "rdr_1", at), Some(1), "halves are not lost");
    }

    #[test]
    fn a_row_that_could_not_be_written_is_counted_again() {
        let refusals = Refusals::default();
        exhausted(&refusals, Party::Stranger);
        let at = NOW.plus(REFILL);
        assert_eq!(refusals.admit(Party::Stranger, "rdr_1", at), Some(1));
        refusals.take_back(Party::Stranger, "", at, 1);
        assert_eq!(refusals.admit(Party::Stranger, "rdr_1", at.plus(REFILL)), Some(2));
    }

    #[test]
    fn noise_from_strangers_takes_nothing_from_readers_and_operators() {
        let refusals = Refusals::default();
        exhausted(&refusals, Party::Stranger);
        exhausted(&refusals, Party::Reader);
        exhausted(&refusals, Party::Operator);
    }

    #[test]
    fn noise_from_one_reader_takes_nothing_from_another_and_memory_is_bounded() {
        let refusals = Refusals::default();
        exhausted(&refusals, Party::Reader);
        assert_eq!(refusals.admit(Party::Reader, "rdr_2", NOW), Some(0));
        let held = || refusals.readers.lock().unwrap().len();
        for number in 3..2 * READERS_MAX {
            let _bounded = refusals.admit(Party::Reader, &format!("rdr_{number}"), NOW);
        }
        assert_eq!(held(), READERS_MAX + 1, "and the shared one");
        assert_eq!(refusals.admit(Party::Reader, "rdr_9", NOW), Some(0), "it has its own");
        assert_eq!(refusals.admit(Party::Reader, "rdr_new", NOW), None, "it has none");
        // Those that were quiet for long make room; what was left out is told.
        let at = NOW.plus(REFILL * BURST);
        assert_eq!(refusals.admit(Party::Reader, "rdr_new", at), Some(0));
        assert_eq!(held(), 2, "the new one and the shared one");
        let left_out = refusals.readers.lock().unwrap()[SHARED].suppressed;
        assert!(left_out > u64::from(BURST), "{left_out}");
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_stop_the_refill() {
        let refusals = Refusals::default();
        exhausted(&refusals, Party::Reader);
        let back = UnixTime::from_secs(10);
        assert_eq!(refusals.admit(Party::Reader, "rdr_1", back), None);
        assert_eq!(refusals.admit(Party::Reader, "rdr_1", back.plus(REFILL)), Some(2));
    }
}
