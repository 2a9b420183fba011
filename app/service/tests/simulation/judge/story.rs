//! Time: states only move along the machine, the past does not change, promises are kept, and
//! nothing happens without its records.

use super::{Judge, Promise, Violation, find};
use crate::snapshot::{Change, Payment, Snapshot};

/// Where a payment may go from each state.
const MOVES: [(&str, &[&str]); 5] = [
    ("", &["created"]),
    ("created", &["pending", "rejected", "expired", "failed", "cancelled"]),
    ("pending", &["approved", "rejected", "expired", "failed", "cancelled"]),
    ("approved", &["executing"]),
    ("executing", &["executed", "execution_failed"]),
];

/// States that are passed through within one transaction: nobody ever sees a payment rest there.
const FLEETING: [&str; 2] = ["approved", "executing"];

impl Judge {
    pub(super) fn check_stories(&mut self, now: &Snapshot, found: &mut Vec<Violation>) {
        let none = Vec::new();
        for (id, payment) in &now.payments {
            let timeline = now.timelines.get(id).unwrap_or(&none);
            walk(id, payment, timeline, found);
            if let Some((was, before)) = self.before.get(id) {
                let kept = timeline.starts_with(before) && is_same(was, payment);
                find(found, !kept, "history-changed", id);
                let moved = was != payment;
                let numbered = payment.version >= was.version + i64::from(moved);
                find(found, !numbered, "version", format!("{id}: {}", payment.version));
            }
        }
        for id in self.before.keys() {
            find(found, !now.payments.contains_key(id), "history-changed", format!("{id} is gone"));
        }
        self.check_postings(now, found);
        check_records(now, found);
        for promise in &self.promises {
            find(found, !is_kept(promise, now), "acknowledged-lost", format!("{promise:?}"));
        }
        let keep = |(id, payment): (&String, &Payment)| {
            let timeline = now.timelines.get(id).cloned().unwrap_or_default();
            (id.clone(), (payment.clone(), timeline))
        };
        self.before = now.payments.iter().map(keep).collect();
    }

    /// Postings only grow in number.
    fn check_postings(&mut self, now: &Snapshot, found: &mut Vec<Violation>) {
        for posting in &now.postings {
            let row = format!("{posting:?}");
            if let Some(before) = self.postings.get(&posting.id) {
                find(found, *before != row, "history-changed", &posting.id);
            }
            self.postings.insert(posting.id.clone(), row);
        }
        let gone = now.postings.len() < self.postings.len();
        find(found, gone, "history-changed", "a posting is gone");
    }
}

/// Whoever must be told is told in the transaction in which it happens: phones (D2), webhooks, the
/// audit.
fn check_records(now: &Snapshot, found: &mut Vec<Violation>) {
    for (id, payment) in &now.payments {
        let told = |action: &str| {
            now.audit.get(&(action.to_owned(), id.clone())).copied().unwrap_or_default()
        };
        find(found, !now.pushes.contains_key(id), "no-push", id);
        find(found, told("payment.create") != 1, "audit-differs", format!("{id}: create"));
        let ended = payment.state != "pending" && payment.state != "created";
        let event = (format!("payment.{}", payment.state), id.clone());
        find(found, ended && !now.events.contains(&event), "no-event", id);
        let ended = |state: &str| i64::from(payment.state == state);
        let executions = ended("executed") + ended("execution_failed");
        for (action, count) in [
            ("payment.execute", executions),
            ("payment.cancel", ended("cancelled")),
            ("payment.reject", ended("rejected")),
            ("payment.fail", ended("failed")),
            ("payment.expire", ended("expired")),
        ] {
            find(found, told(action) != count, "audit-differs", format!("{id}: {action}"));
        }
    }
    // Only a payer's word raises this event; it comes with the audit's row.
    for (_, id) in now.events.iter().filter(|(kind, _)| kind == "account.frozen") {
        let told = now.audit.contains_key(&("account.freeze".to_owned(), id.clone()));
        find(found, !told, "audit-differs", format!("{id}: freeze"));
    }
    for answer in now.answers.iter().filter(|answer| answer.outcome == "refused") {
        let known = answer.incident.as_ref().is_some_and(|it| now.incidents.contains(it));
        find(found, !known, "no-incident", &answer.id);
    }
}

fn walk(id: &str, payment: &Payment, timeline: &[Change], found: &mut Vec<Violation>) {
    let mut state = "";
    let (mut at, mut number) = (None, 0);
    for change in timeline {
        let may = MOVES.iter().find(|(from, _)| *from == state).map_or(&[][..], |(_, to)| to);
        let allowed = may.contains(&change.state.as_str());
        find(found, !allowed, "state-step", format!("{id}: {state} to {}", change.state));
        find(found, change.number <= number, "timeline-numbers", id);
        find(found, at > Some(change.at), "timeline-times", id);
        (state, at, number) = (&change.state, Some(change.at), change.number);
    }
    find(found, number > payment.version, "timeline-numbers", id);
    find(found, state != payment.state, "timeline-end", format!("{id}: {}", payment.state));
    find(found, FLEETING.contains(&state), "half-way", format!("{id}: {state}"));
}

/// Whether all of it that is decided once is as it was.
fn is_same(was: &Payment, is: &Payment) -> bool {
    let free = |payment: &Payment| Payment {
        state: String::new(),
        refunded: 0,
        wrong_answers: 0,
        version: 0,
        ..payment.clone()
    };
    free(was) == free(is) && was.refunded <= is.refunded && was.wrong_answers <= is.wrong_answers
}

fn is_kept(promise: &Promise, now: &Snapshot) -> bool {
    match promise {
        Promise::Made(id) => now.payments.contains_key(id),
        Promise::Ended(id, state) => now.payments.get(id).is_some_and(|one| one.state == *state),
        Promise::Posted(reference) => {
            now.postings.iter().any(|one| one.kind == "manual" && one.reference == *reference)
        }
        Promise::Frozen(id) => now.audit.contains_key(&("account.freeze".to_owned(), id.clone())),
        Promise::Refunded(id, amount) => {
            now.payments.get(id).is_some_and(|one| one.refunded >= *amount)
        }
    }
}
