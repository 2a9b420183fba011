//! What follows from events: counted and decided in the transaction that notes them.

use countersign_crypto::UnixTime;
use countersign_store::{
    AuditEntry, IdKind, RiskDecision, RiskEvent, RiskKind, RiskNoted, RiskWatch, StoreError, Tx,
};

use super::Rule;
use crate::{Actor, Service, done};

/// The rules that events of one reader may trip, made before the transaction: what it does must be
/// the same when it runs again.
#[derive(Clone)]
pub(crate) struct Evaluation {
    device_id: String,
    now: UnixTime,
    candidates: Vec<Candidate>,
}

#[derive(Clone)]
struct Candidate {
    rule: Rule,
    /// The decision's, if it comes to one.
    decision_id: String,
}

/// What is to be counted for some events, and for which rules.
pub(crate) struct Watching<'a> {
    candidates: Vec<&'a Candidate>,
    pub(crate) watches: Vec<RiskWatch>,
}

impl Evaluation {
    /// The rules that these events may trip, and no others: an event costs what it changes.
    pub(crate) fn watch(&self, events: &[RiskEvent]) -> Watching<'_> {
        let counts =
            |candidate: &&Candidate| events.iter().any(|event| candidate.rule.counts(event));
        let candidates: Vec<_> = self.candidates.iter().filter(counts).collect();
        let watches = candidates.iter().map(|candidate| candidate.rule.watch(self.now)).collect();
        Watching { candidates, watches }
    }

    /// Stores the decisions that follow, each with its audit row. A rule whose decision stands
    /// decides nothing.
    pub(crate) fn decide(
        &self,
        tx: &mut Tx<'_>,
        watching: &Watching<'_>,
        noted: &RiskNoted,
    ) -> Result<Vec<RiskDecision>, StoreError> {
        let mut decisions = Vec::new();
        for (candidate, counted) in watching.candidates.iter().zip(&noted.counts) {
            if *counted < candidate.rule.at_least {
                continue;
            }
            let decision = self.decision(candidate, *counted, noted.last_event);
            if tx.open_decision(&decision)? {
                tx.append_audit(&self.entry(&decision))?;
                decisions.push(decision);
            }
        }
        Ok(decisions)
    }

    /// Notes events and decides what follows from them.
    pub(crate) fn note(
        &self,
        tx: &mut Tx<'_>,
        events: &[RiskEvent],
    ) -> Result<Vec<RiskDecision>, StoreError> {
        let watching = self.watch(events);
        let noted = tx.note_risk(&self.device_id, self.now, events, &watching.watches)?;
        self.decide(tx, &watching, &noted)
    }

    fn decision(&self, candidate: &Candidate, counted: u32, last_event: i64) -> RiskDecision {
        let rule = &candidate.rule;
        let (action, pause) = rule.stored_action();
        RiskDecision {
            id: candidate.decision_id.clone(),
            device_id: self.device_id.clone(),
            rule: rule.name.clone(),
            terms: rule.terms().to_string(),
            counted,
            action,
            pause,
            reason: rule.reason(counted),
            at: self.now,
            until: rule.lasts.map(|lasts| self.now.plus(lasts)),
            up_to_event: last_event,
            end: None,
        }
    }

    fn entry(&self, decision: &RiskDecision) -> AuditEntry {
        let detail = serde_json::json!({
            "decision": decision.id,
            "rule": decision.rule,
            "action": decision.action.name(),
            "reason": decision.reason,
            "until": decision.until.map(|until| until.to_string()),
        });
        AuditEntry {
            detail: detail.to_string(),
            ..done(self.now, &Actor::System, "risk.decide", &self.device_id)
        }
    }
}

impl Service {
    /// What events of these kinds may trip.
    pub(crate) fn evaluation(
        &self,
        device_id: &str,
        now: UnixTime,
        kinds: &[RiskKind],
    ) -> Evaluation {
        let rules = self.policy.risk.iter().filter(|rule| kinds.contains(&rule.count));
        let candidates = rules.map(|rule| Candidate {
            rule: rule.clone(),
            decision_id: self.new_id(IdKind::Decision),
        });
        let device_id = device_id.to_owned();
        Evaluation { device_id, now, candidates: candidates.collect() }
    }
}

/// Has decisions in the log too, once they are stored.
pub(crate) fn log(decisions: &[RiskDecision]) {
    for decision in decisions {
        let (reader, action) = (&decision.device_id, decision.action.name());
        tracing::warn!(reader, action, reason = decision.reason, "a risk rule decided");
    }
}
