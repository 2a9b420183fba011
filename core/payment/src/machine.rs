//! What an answer, a cancellation or the clock does to a payment (D5–D7). Pure decisions over what
//! a transaction has locked: the owner stores the steps and gives out the refusal.

use alloc::vec;
use alloc::vec::Vec;

use countersign_crypto::UnixTime;
use thiserror::Error;

use crate::State;
use crate::ledger::LedgerError;

/// Fewest and most wrong answers that a policy may allow (PSD2 RTS article 4: at most five).
pub const WRONG_ANSWERS_LEAST: u32 = 1;
/// See [`WRONG_ANSWERS_LEAST`].
pub const WRONG_ANSWERS_MOST: u32 = 5;

/// The reason of a payment that failed by wrong answers.
pub const REASON_WRONG_ANSWERS: &str = "too-many-wrong-answers";
/// The reason of one that nobody answered in time.
pub const REASON_EXPIRED: &str = "no-answer-in-time";

/// A payment as its locked row shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaymentView {
    /// Its state.
    pub state: State,
    /// Until when an answer counts: at this moment it no longer does.
    pub expires_at: UnixTime,
    /// Wrong answers so far.
    pub wrong_answers: u32,
}

/// One change of state, for the payment's row and its timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The new state.
    pub state: State,
    /// Why, as a stable name, where it ended otherwise than executed.
    pub reason: Option<&'static str>,
}

impl Step {
    const fn to(state: State) -> Self {
        Self { state, reason: None }
    }

    const fn because(state: State, reason: &'static str) -> Self {
        Self { state, reason: Some(reason) }
    }
}

/// What is to be stored and what is to be said. Both may be there: who answers too late is refused,
/// and the payment expires by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Changes of state, in order; none if nothing changes.
    pub steps: Vec<Step>,
    /// Wrong answers from now on.
    pub wrong_answers: u32,
    /// What whoever asked is told instead of success.
    pub refusal: Option<Refusal>,
}

impl Decision {
    /// The state after the steps.
    #[must_use]
    pub fn state(&self, before: State) -> State {
        self.steps.last().map_or(before, |step| step.state)
    }
}

/// Why a payment takes nothing any more. [`Refusal::check`] gives the stable name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It was not yet offered to anybody.
    #[error("the payment does not wait for an answer yet")]
    NotPending,
    /// Its time is over.
    #[error("the payment has expired")]
    Expired,
    /// The initiating terminal has taken it back.
    #[error("the payment was cancelled")]
    Cancelled,
    /// The payer has said no.
    #[error("the payment was rejected")]
    Rejected,
    /// It ended by too many wrong answers.
    #[error("the payment failed: too many wrong answers")]
    Failed,
    /// It was approved; it is executed, or the ledger refused it.
    #[error("the payment was already approved")]
    Settled,
    /// Its time is not over: the sweeper came too early.
    #[error("the payment has not expired")]
    NotDue,
}

impl Refusal {
    /// Stable name of the refusal.
    #[must_use]
    pub const fn check(self) -> &'static str {
        match self {
            Self::NotPending => "payment-not-pending",
            Self::Expired => "payment-expired",
            Self::Cancelled => "payment-cancelled",
            Self::Rejected => "payment-rejected",
            Self::Failed => "payment-failed",
            Self::Settled => "payment-settled",
            Self::NotDue => "payment-not-due",
        }
    }
}

/// Why a payer says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectReason {
    /// "I did not start this."
    NotMine,
    /// "The details are wrong."
    WrongDetails,
    /// "I changed my mind."
    ChangedMind,
}

impl RejectReason {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::NotMine, Self::WrongDetails, Self::ChangedMind];

    /// The name in the API, and the payment's reason.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotMine => "not-mine",
            Self::WrongDetails => "wrong-details",
            Self::ChangedMind => "changed-mind",
        }
    }

    /// The reason with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// The first steps of every payment: taken, and offered.
#[must_use]
pub fn open() -> Vec<Step> {
    vec![Step::to(State::Created), Step::to(State::Pending)]
}

/// A good answer, whose posting the ledger has tried on the locked balances: approved, executing,
/// and what came of it (D6).
#[must_use]
pub fn approve(payment: &PaymentView, now: UnixTime, posted: Result<(), LedgerError>) -> Decision {
    answered(payment, now, || {
        let end = match posted {
            Ok(()) => Step::to(State::Executed),
            Err(error) => Step::because(State::ExecutionFailed, error.check()),
        };
        vec![Step::to(State::Approved), Step::to(State::Executing), end]
    })
}

/// A wrong answer: counted, and the last one that `max` allows ends the payment (D7). `max` is
/// brought between [`WRONG_ANSWERS_LEAST`] and [`WRONG_ANSWERS_MOST`].
#[must_use]
pub fn refuse_answer(payment: &PaymentView, now: UnixTime, max: u32) -> Decision {
    let wrong_answers = payment.wrong_answers.saturating_add(1);
    let is_last = wrong_answers >= max.clamp(WRONG_ANSWERS_LEAST, WRONG_ANSWERS_MOST);
    let mut decision = answered(payment, now, || match is_last {
        true => vec![Step::because(State::Failed, REASON_WRONG_ANSWERS)],
        false => Vec::new(),
    });
    if decision.refusal.is_none() {
        decision.wrong_answers = wrong_answers;
    }
    decision
}

/// The payer says no.
#[must_use]
pub fn reject(payment: &PaymentView, now: UnixTime, reason: RejectReason) -> Decision {
    answered(payment, now, || vec![Step::because(State::Rejected, reason.name())])
}

/// The initiating terminal takes it back; also before it was offered.
#[must_use]
pub fn cancel(payment: &PaymentView, now: UnixTime, reason: &'static str) -> Decision {
    while_open(payment, now, || vec![Step::because(State::Cancelled, reason)])
}

/// The clock: ends an open payment whose time is over, else changes nothing and says so.
#[must_use]
pub fn expire(payment: &PaymentView, now: UnixTime) -> Decision {
    let mut decision = while_open(payment, now, Vec::new);
    decision.refusal = match decision.refusal {
        None => Some(Refusal::NotDue),
        Some(Refusal::Expired) if !decision.steps.is_empty() => None,
        other => other,
    };
    decision
}

fn answered(payment: &PaymentView, now: UnixTime, steps: impl FnOnce() -> Vec<Step>) -> Decision {
    let mut decision = while_open(payment, now, steps);
    if payment.state == State::Created && decision.refusal.is_none() {
        decision.steps.clear();
        decision.refusal = Some(Refusal::NotPending);
    }
    decision
}

/// The steps, if the payment is open and its time not over; else why not.
fn while_open(payment: &PaymentView, now: UnixTime, steps: impl FnOnce() -> Vec<Step>) -> Decision {
    let wrong_answers = payment.wrong_answers;
    let refused = |refusal, steps| Decision { steps, wrong_answers, refusal: Some(refusal) };
    match payment.state {
        State::Created | State::Pending if now >= payment.expires_at => {
            refused(Refusal::Expired, vec![Step::because(State::Expired, REASON_EXPIRED)])
        }
        State::Created | State::Pending => {
            Decision { steps: steps(), wrong_answers, refusal: None }
        }
        State::Approved | State::Executing | State::Executed | State::ExecutionFailed => {
            refused(Refusal::Settled, Vec::new())
        }
        State::Expired => refused(Refusal::Expired, Vec::new()),
        State::Cancelled => refused(Refusal::Cancelled, Vec::new()),
        State::Rejected => refused(Refusal::Rejected, Vec::new()),
        State::Failed => refused(Refusal::Failed, Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRES: UnixTime = UnixTime::from_secs(1000);
    const BEFORE: UnixTime = UnixTime::from_millis(999_999);

    fn view(state: State, wrong_answers: u32) -> PaymentView {
        PaymentView { state, expires_at: EXPIRES, wrong_answers }
    }

    fn states(decision: &Decision) -> Vec<State> {
        decision.steps.iter().map(|step| step.state).collect()
    }

    /// Everything that can happen to a payment.
    fn all(payment: &PaymentView, now: UnixTime) -> Vec<(&'static str, Decision)> {
        let broke = Err(LedgerError::InsufficientFunds);
        let mut all = vec![
            ("approve", approve(payment, now, Ok(()))),
            ("approve-refused", approve(payment, now, broke)),
            ("cancel", cancel(payment, now, "by-initiator")),
            ("expire", expire(payment, now)),
        ];
        all.extend((0..8).map(|max| ("refuse", refuse_answer(payment, now, max))));
        let reasons = RejectReason::ALL.into_iter();
        all.extend(reasons.map(|reason| ("reject", reject(payment, now, reason))));
        all
    }

    #[test]
    fn a_payment_opens_and_an_approval_executes_it() {
        let mut state = State::Created;
        for step in &open()[1..] {
            assert!(state.may_become(step.state));
            state = step.state;
        }
        assert_eq!((open()[0].state, state), (State::Created, State::Pending));
        let done = approve(&view(State::Pending, 2), BEFORE, Ok(()));
        assert_eq!(states(&done), [State::Approved, State::Executing, State::Executed]);
        assert_eq!((done.refusal, done.wrong_answers), (None, 2));
        assert_eq!(done.state(State::Pending), State::Executed);
    }

    #[test]
    fn what_the_ledger_refuses_has_its_reason() {
        let broke = Err(LedgerError::InsufficientFunds);
        let failed = approve(&view(State::Pending, 0), BEFORE, broke);
        assert_eq!(states(&failed), [State::Approved, State::Executing, State::ExecutionFailed]);
        assert_eq!(failed.steps[2].reason, Some("insufficient-funds"));
    }

    #[test]
    fn wrong_answers_count_up_to_the_policy_and_never_beyond_five() {
        for (max, allowed) in [(0, 1), (1, 1), (3, 3), (5, 5), (6, 5), (u32::MAX, 5)] {
            for wrong in 0..8 {
                let decision = refuse_answer(&view(State::Pending, wrong), BEFORE, max);
                assert_eq!((decision.wrong_answers, decision.refusal), (wrong + 1, None));
                let failed = wrong + 1 >= allowed;
                assert_eq!(states(&decision), if failed { vec![State::Failed] } else { vec![] });
                if failed {
                    assert_eq!(decision.steps[0].reason, Some(REASON_WRONG_ANSWERS));
                }
            }
        }
        let full = refuse_answer(&view(State::Pending, u32::MAX), BEFORE, 3);
        assert_eq!(full.wrong_answers, u32::MAX, "no overflow");
    }

    #[test]
    fn terminal_states_never_leave_whatever_happens() {
        for state in State::ALL.into_iter().filter(|state| !state.is_open()) {
            for now in [UnixTime::default(), BEFORE, EXPIRES, UnixTime::from_secs(1_000_000)] {
                for (what, decision) in all(&view(state, 1), now) {
                    assert_eq!(states(&decision), [], "{what} of {state}");
                    assert!(decision.refusal.is_some(), "{what} of {state}");
                    assert_eq!(decision.wrong_answers, 1);
                }
            }
        }
    }

    #[test]
    fn every_step_is_one_that_the_states_allow() {
        for state in State::ALL {
            for now in [BEFORE, EXPIRES] {
                for (what, decision) in all(&view(state, 0), now) {
                    let mut at = state;
                    for step in &decision.steps {
                        assert!(at.may_become(step.state), "{what}: {at} to {}", step.state);
                        at = step.state;
                    }
                    assert_eq!(decision.state(state), at);
                }
            }
        }
    }

    #[test]
    fn at_its_time_an_open_payment_expires_by_whatever_comes_and_nothing_else() {
        for state in [State::Created, State::Pending] {
            for now in [EXPIRES, EXPIRES.plus(core::time::Duration::from_secs(86_400))] {
                for (what, decision) in all(&view(state, 1), now) {
                    assert_eq!(states(&decision), [State::Expired], "{what}");
                    assert_eq!(decision.steps[0].reason, Some(REASON_EXPIRED));
                    assert_eq!(decision.wrong_answers, 1, "{what}: too late to count");
                    let told = (what != "expire").then_some(Refusal::Expired);
                    assert_eq!(decision.refusal, told, "{what}");
                }
            }
            assert_eq!(expire(&view(state, 0), BEFORE).refusal, Some(Refusal::NotDue));
        }
    }

    #[test]
    fn before_it_is_offered_nobody_answers_but_it_can_be_taken_back() {
        for (what, decision) in all(&view(State::Created, 0), BEFORE) {
            match what {
                "cancel" => assert_eq!(states(&decision), [State::Cancelled]),
                "expire" => assert_eq!(decision.refusal, Some(Refusal::NotDue)),
                _ => {
                    assert_eq!(decision.refusal, Some(Refusal::NotPending), "{what}");
                    assert_eq!((states(&decision).len(), decision.wrong_answers), (0, 0));
                }
            }
        }
    }

    #[test]
    fn refusals_tell_what_became_of_it() {
        for (state, check) in [
            (State::Approved, "payment-settled"),
            (State::Executing, "payment-settled"),
            (State::Executed, "payment-settled"),
            (State::ExecutionFailed, "payment-settled"),
            (State::Expired, "payment-expired"),
            (State::Cancelled, "payment-cancelled"),
            (State::Rejected, "payment-rejected"),
            (State::Failed, "payment-failed"),
        ] {
            for (what, decision) in all(&view(state, 0), BEFORE) {
                assert_eq!(decision.refusal.unwrap().check(), check, "{what}");
            }
        }
    }

    #[test]
    fn reasons_are_read_back() {
        for reason in RejectReason::ALL {
            assert_eq!(RejectReason::from_name(reason.name()), Some(reason));
        }
        assert_eq!(RejectReason::from_name("not mine"), None);
        let no = reject(&view(State::Pending, 0), BEFORE, RejectReason::NotMine);
        assert_eq!(no.steps, [Step { state: State::Rejected, reason: Some("not-mine") }]);
    }
}
