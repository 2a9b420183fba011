//! Refusals in the audit: always wanted, never faster than a bound, so that whoever is refused
//! cannot fill the disk.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_channel::Error;
use countersign_crypto::UnixTime;
use countersign_store::{AuditEntry, AuditOutcome, IdKind, RiskEvent, RiskKind};

use crate::{Actor, Service, ServiceError, done, risk};

/// Refusals that one kind of party may have written at once, per process.
const BURST: u32 = 20;
/// After that, one more each time this passes. What is above is counted.
const REFILL: Duration = Duration::from_secs(1);

/// Who is refused: each kind has a bound of its own, so that noise from one does not take the
/// incident ids of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Party {
    /// Whoever reaches the gateway and has proven nothing.
    Stranger,
    /// A reader after its handshake.
    Reader,
    /// An operator with a live token, or the console.
    Operator,
}

/// The bounds' state.
#[derive(Default)]
pub(crate) struct Refusals {
    strangers: Mutex<Bucket>,
    readers: Mutex<Bucket>,
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
    /// Whether a row may be written now; if so, how many were left out since the last one.
    fn admit(&mut self, now: UnixTime) -> Option<u64> {
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
        if self.left == 0 {
            self.suppressed += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl Refusals {
    fn bucket(&self, party: Party) -> MutexGuard<'_, Bucket> {
        let bucket = match party {
            Party::Stranger => &self.strangers,
            Party::Reader => &self.readers,
            Party::Operator => &self.operators,
        };
        bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, party: Party, now: UnixTime) -> Option<u64> {
        self.bucket(party).admit(now)
    }

    /// A row that was admitted could not be written: it and what it counted are counted again.
    fn take_back(&self, party: Party, suppressed: u64) {
        self.bucket(party).suppressed += suppressed + 1;
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
    /// The reader, if it is proven who was refused: a claim counts against nobody.
    pub(crate) reader: Option<&'a str>,
}

impl Service {
    /// Audits a handshake or session that failed, and returns the incident id for the peer, empty
    /// if the bound on such rows is reached. `peer` is an address. `reader` is the id of the reader
    /// that has done its handshake: only then it is known who was refused.
    pub async fn refused_contact(&self, peer: &str, reader: Option<&str>, error: &Error) -> String {
        let actor = reader.map_or_else(|| peer.to_owned(), |id| format!("{id} at {peer}"));
        self.audit_refusal(Refusal {
            party: if reader.is_some() { Party::Reader } else { Party::Stranger },
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
        let Some(suppressed) = self.refusals.admit(refusal.party, now) else {
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
        let evaluation = refusal.reader.map(|id| self.evaluation(id, now, &[event.kind]));
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
                self.refusals.take_back(refusal.party, suppressed);
                tracing::warn!(%error, "a refusal could not be audited");
                String::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1000);

    fn exhausted(refusals: &Refusals, party: Party) {
        for _ in 0..BURST {
            assert_eq!(refusals.admit(party, NOW), Some(0));
        }
        assert_eq!(refusals.admit(party, NOW), None);
    }

    #[test]
    fn after_a_burst_one_row_a_second_and_the_rest_is_counted() {
        let refusals = Refusals::default();
        exhausted(&refusals, Party::Stranger);
        assert_eq!(refusals.admit(Party::Stranger, NOW), None);
        let mut at = NOW.plus(REFILL);
        assert_eq!(refusals.admit(Party::Stranger, at), Some(2));
        assert_eq!(refusals.admit(Party::Stranger, at), None, "no new burst each second");
        at = at.plus(REFILL * 5 / 2);
        assert_eq!(refusals.admit(Party::Stranger, at), Some(1));
        assert_eq!(refusals.admit(Party::Stranger, at), Some(0));
        assert_eq!(refusals.admit(Party::Stranger, at), None);
        at = at.plus(REFILL / 2);
        assert_eq!(refusals.admit(Party::Stranger, at), Some(1), "halves are not lost");
    }

    #[test]
    fn a_row_that_could_not_be_written_is_counted_again() {
        let refusals = Refusals::default();
        exhausted(&refusals, Party::Stranger);
        let at = NOW.plus(REFILL);
        assert_eq!(refusals.admit(Party::Stranger, at), Some(1));
        refusals.take_back(Party::Stranger, 1);
        assert_eq!(refusals.admit(Party::Stranger, at.plus(REFILL)), Some(2));
    }

    #[test]
    fn noise_from_strangers_takes_nothing_from_readers_and_operators() {
        let refusals = Refusals::default();
        exhausted(&refusals, Party::Stranger);
        exhausted(&refusals, Party::Reader);
        exhausted(&refusals, Party::Operator);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_stop_the_refill() {
        let refusals = Refusals::default();
        exhausted(&refusals, Party::Reader);
        let back = UnixTime::from_secs(10);
        assert_eq!(refusals.admit(Party::Reader, back), None);
        assert_eq!(refusals.admit(Party::Reader, back.plus(REFILL)), Some(2));
    }
}
