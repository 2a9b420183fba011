//! What comes back from servers: whether it is what had to come, and what it promises.

use countersign_payment::State;
use countersign_service::{Actor, Answered, ServiceError};
use countersign_store::{AccountStatus, PaymentRecord};

use crate::calls::{Call, Heard, Reply};
use crate::house::FOREVER;
use crate::judge::{Promise, Violation};
use crate::till::{Reason, Wrong};
use crate::world::{Envelope, Way, What, Words, World};

/// Checks that say that a payment has ended or is not to be answered.
const CLOSED: [&str; 5] = [
    "payment-expired",
    "payment-cancelled",
    "payment-rejected",
    "payment-failed",
    "payment-settled",
];
/// Checks that refuse a request for a payment or a refund.
const REFUSED: [&str; 7] = [
    "account-frozen",
    "account-closed",
    "insufficient-funds",
    "refund-too-much",
    "payment-not-executed",
    "payment-reversed",
    "payment-refunded",
];

/// What must come of a call that nothing races with and no trouble meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Foreseen {
    /// It is done.
    Done,
    /// The payment ends so, by an answer that is taken.
    Ended(&'static str),
    /// The answer is refused, and which check did it is not told.
    Refused,
    /// It is refused by a rule that is named.
    Named,
    /// Whoever sends it is not known any more.
    Stranger,
    /// What was answered before.
    Again,
    /// Whatever the invariants allow: it is not known what became of one like it.
    Open,
    /// The same, because something races with it.
    Racing,
}

impl Foreseen {
    fn is_open(&self) -> bool {
        matches!(self, Self::Open | Self::Racing)
    }
}

fn violation(name: &'static str, detail: impl Into<String>) -> Violation {
    Violation { name, detail: detail.into() }
}

impl World {
    /// What must come of this call now.
    pub(crate) fn foresee(&self, call: &Call) -> Foreseen {
        match call {
            Call::Ask(at) => self.foresee_request(*at),
            Call::AskOther(_) => Foreseen::Named,
            Call::Deliver(at) => self.foresee_answer(*at),
            Call::Cancel(id) => match self.now.payments.get(id) {
                Some(payment) if payment.state == "cancelled" => Foreseen::Done,
                Some(payment) if self.is_live(payment) => Foreseen::Done,
                Some(_) => Foreseen::Named,
                None => Foreseen::Open,
            },
            Call::Terms(id, terminal) => match self.now.payments.get(id) {
                _ if self.creators.get(id) != Some(terminal) => Foreseen::Stranger,
                Some(payment) if self.is_live(payment) => Foreseen::Done,
                Some(_) => Foreseen::Named,
                None => Foreseen::Open,
            },
            Call::Sweep | Call::Look(_) | Call::Freeze(_) | Call::Block(_) | Call::Tick => {
                Foreseen::Done
            }
        }
    }

    /// Whether the payment waits for an answer that would come in time.
    fn is_live(&self, payment: &crate::snapshot::Payment) -> bool {
        payment.state == "pending" && self.house.now() <= payment.expires_at
    }

    fn is_open(&self, account: &str) -> bool {
        self.now.accounts.get(account).is_some_and(|account| account.status == "open")
    }

    fn can_pay(&self, account: &str, amount: i64) -> bool {
        self.now.accounts.get(account).is_some_and(|account| {
            account.overdraft.is_none_or(|overdraft| account.balance + overdraft >= amount)
        })
    }

    fn foresee_request(&self, at: usize) -> Foreseen {
        let asked = &self.asked[at];
        if asked.answered.is_some() {
            return Foreseen::Again;
        }
        if asked.sent {
            return Foreseen::Open;
        }
        let done = match &asked.what {
            What::Payment(new) => {
                let open = |number: &str| {
                    let mut accounts = self.now.accounts.values();
                    accounts.any(|one| one.number == number && one.status == "open")
                };
                open(&new.payer) && open(&new.payee)
            }
            What::Posting(new) => self.is_open(&new.credit),
            What::Refund { payment, amount } => {
                let Some(payment) = self.now.payments.get(payment) else { return Foreseen::Open };
                let minor = amount.replace('.', "").parse::<i64>().unwrap();
                payment.refunded + minor <= payment.amount && self.can_go_back(payment, minor)
            }
            What::Reversal { payment } => {
                let Some(payment) = self.now.payments.get(payment) else { return Foreseen::Open };
                payment.refunded == 0 && self.can_go_back(payment, payment.amount)
            }
        };
        if done { Foreseen::Done } else { Foreseen::Named }
    }

    fn can_go_back(&self, payment: &crate::snapshot::Payment, minor: i64) -> bool {
        payment.state == "executed"
            && self.is_open(&payment.payer)
            && self.is_open(&payment.payee)
            && self.can_pay(&payment.payee, minor)
    }

    fn foresee_answer(&self, at: usize) -> Foreseen {
        let envelope = &self.mail[at];
        if let Way::Phone(at) = envelope.way
            && self.phones[at].revoked
        {
            return Foreseen::Stranger;
        }
        if self.joint_wrong(envelope, true) == Some(Wrong::Form) {
            return Foreseen::Named;
        }
        if envelope.answered.is_some() {
            return Foreseen::Again;
        }
        let rejects = matches!(envelope.words, Words::Rejection { .. });
        let same = |other: &&Envelope| {
            other.sent
                && other.payment == envelope.payment
                && other.words == envelope.words
                && (rejects || other.serial == envelope.serial)
        };
        // The very same answer was given by another hand, or this one's fate is not known.
        if self.mail.iter().filter(same).count() > 0 {
            return Foreseen::Open;
        }
        let Some(payment) = self.now.payments.get(&envelope.payment) else {
            return Foreseen::Open;
        };
        let serves = match envelope.way {
            Way::Checkout => true,
            Way::Phone(at) => self.payers[self.phones[at].payer].account == payment.payer,
            Way::Terminal(at) => self.creators.get(&envelope.payment) == Some(&at),
        };
        if !self.is_live(payment) {
            return if serves { Foreseen::Named } else { Foreseen::Open };
        }
        if !serves {
            return Foreseen::Refused;
        }
        if rejects {
            return Foreseen::Ended("rejected");
        }
        let device = &self.devices[envelope.device];
        let row = self.now.devices.get(&device.id);
        let usable = !device.gone && row.is_some_and(|row| row.status == "enrolled");
        if !envelope.genuine || !usable {
            return Foreseen::Refused;
        }
        let funds = self.can_pay(&payment.payer, payment.amount);
        let open = self.is_open(&payment.payer) && self.is_open(&payment.payee);
        Foreseen::Ended(if funds && open { "executed" } else { "execution_failed" })
    }

    /// Takes in what came back; gives what was wrong with it.
    pub(crate) fn hear(
        &mut self,
        call: &Call,
        heard: Heard,
        foreseen: &Foreseen,
    ) -> Vec<Violation> {
        let mut found = Vec::new();
        match call {
            Call::Ask(at) => self.asked[*at].sent = true,
            Call::Deliver(at) => self.mail[*at].sent = true,
            _ => {}
        }
        match (heard, call) {
            (Heard::Nothing, _) => self.tally.add("calls without an answer"),
            (Heard::Settled(Ok(reply)), Call::Ask(at)) => {
                self.hear_reply(*at, reply, foreseen, &mut found);
            }
            (Heard::Settled(Ok(_)), _) => {
                found.push(violation("key-for-two-requests", format!("{call:?}")));
            }
            (Heard::Answered(answered), Call::Deliver(at)) => {
                match *answered {
                    Ok(answered) => self.hear_answered(*at, &answered, foreseen, &mut found),
                    Err(error) => self.hear_refused_answer(*at, &error, foreseen, &mut found),
                }
                // Whichever was heard first: the same answer is answered alike, also at once.
                let envelope = &self.mail[*at];
                if envelope.closed && envelope.answered.is_some() {
                    let detail = format!("answer {at}: taken, and told that it is too late");
                    found.push(violation("answer-answered-otherwise", detail));
                }
            }
            (Heard::Record(record), _) => match *record {
                Ok(record) => self.hear_record(call, &record, foreseen, &mut found),
                Err(error) => self.hear_error(call, &error, foreseen, &mut found),
            },
            (Heard::Done(Ok(())), _) => self.hear_done(call),
            (Heard::Settled(Err(error)) | Heard::Done(Err(error)), _) => {
                self.hear_error(call, &error, foreseen, &mut found);
            }
            (Heard::Terms(Ok(terms)), Call::Terms(id, _)) => {
                self.tally.add("terms told");
                let same = |payment: &crate::snapshot::Payment| {
                    payment.request == terms.transaction && payment.expires_at == terms.expires_at
                };
                let right = self.now.payments.get(id).is_some_and(same);
                if !right || terms.forms != self.house.forms {
                    found.push(violation("terms-differ", format!("{call:?}: {terms:?}")));
                }
                if !foreseen.is_open() && *foreseen != Foreseen::Done {
                    found.push(violation("unforeseen", format!("{call:?} where {foreseen:?}")));
                }
            }
            (Heard::Terms(Err(error)), _) => self.hear_error(call, &error, foreseen, &mut found),
            (Heard::Answered(_) | Heard::Terms(_), _) => {
                unreachable!("only what asks so is answered so")
            }
        }
        found
    }

    fn hear_done(&mut self, call: &Call) {
        match call {
            Call::Freeze(_) => self.tally.add("accounts frozen"),
            Call::Block(at) => {
                let (id, from) = (self.devices[*at].id.clone(), self.house.now());
                self.judge.devices.entry(id).or_default().barred.push((from, FOREVER));
                self.tally.add("devices blocked");
            }
            Call::Tick => self.tally.add("clocks moved meanwhile"),
            _ => {}
        }
    }

    fn hear_reply(
        &mut self,
        at: usize,
        reply: Reply,
        foreseen: &Foreseen,
        found: &mut Vec<Violation>,
    ) {
        if *foreseen == Foreseen::Named {
            found.push(violation("done-against-a-rule", format!("request {at}")));
        }
        let id = match serde_json::from_slice::<serde_json::Value>(&reply.body) {
            Ok(body) => body["id"].as_str().map(str::to_owned),
            Err(error) => {
                found.push(violation("body-damaged", format!("request {at}: {error}")));
                None
            }
        };
        let asked = &mut self.asked[at];
        let now = (reply.status, reply.body);
        let was_fresh = asked.fresh;
        asked.fresh |= reply.fresh;
        match &asked.answered {
            Some(before) if *before != now => {
                found.push(violation("retry-answered-otherwise", format!("request {at}")));
            }
            Some(_) if reply.fresh && was_fresh => {
                found.push(violation("done-twice", format!("request {at}")));
            }
            Some(_) => self.tally.add("identical retries"),
            None => {
                asked.answered = Some(now);
                self.tally.add(if reply.fresh { "requests done" } else { "answers recovered" });
                self.payments.extend(id.clone());
                let asks = |one: &Actor| one.id() == asked.actor.id();
                if let (What::Payment(_), Some(id)) = (&asked.what, &id) {
                    let creator = self.terminals.iter().position(asks);
                    self.creators.extend(creator.map(|at| (id.clone(), at)));
                }
            }
        }
        self.judge_promises(at, id, reply.refunded);
    }

    fn judge_promises(&mut self, at: usize, id: Option<String>, refunded: Option<i64>) {
        if let Some(id) = id {
            self.judge.promised(Promise::Made(id));
        }
        if let What::Posting(new) = &self.asked[at].what {
            self.judge.promised(Promise::Posted(new.reference.clone()));
        }
        if let (What::Refund { payment, .. } | What::Reversal { payment }, Some(refunded)) =
            (&self.asked[at].what, refunded)
        {
            self.judge.promised(Promise::Refunded(payment.clone(), refunded));
            self.tally.add("refunds");
        }
    }

    fn hear_answered(
        &mut self,
        at: usize,
        answered: &Answered,
        foreseen: &Foreseen,
        found: &mut Vec<Violation>,
    ) {
        let envelope = &mut self.mail[at];
        let rejects = matches!(envelope.words, Words::Rejection { .. });
        let forged = !envelope.genuine && !rejects;
        if forged {
            found.push(violation("forgery-accepted", format!("answer {at}")));
        }
        let state = answered.record.payment.state;
        let id = &answered.authorisation.id;
        match &envelope.answered {
            Some(Ok(before)) if before == id => {
                self.tally.add("identical answers");
                if matches!(envelope.way, Way::Terminal(_)) {
                    self.tally.add("identical answers of terminals");
                }
            }
            Some(before) => {
                let detail = format!("answer {at}: {id}, before {before:?}");
                found.push(violation("answer-answered-otherwise", detail));
            }
            None => {
                envelope.answered = Some(Ok(id.clone()));
                if !answered.replayed {
                    self.tally.add(state_word(state));
                    match envelope.way {
                        Way::Phone(at) if self.phones[at].key.is_some() => {
                            self.tally.add("browsers proven");
                        }
                        Way::Phone(_) => {}
                        Way::Checkout => self.tally.add("typed in at the checkout"),
                        Way::Terminal(_) => self.tally.add(joint_word(envelope, state)),
                    }
                    if envelope.words == (Words::Rejection { not_mine: true }) {
                        self.tally.add("frozen by the payer");
                        let payer = &answered.record.payer;
                        if payer.status == AccountStatus::Open {
                            found.push(violation("not-frozen", payer.id.clone()));
                        }
                        self.judge.promised(Promise::Frozen(payer.id.clone()));
                    }
                }
            }
        }
        let wrong = match foreseen {
            Foreseen::Ended(name) => state.name() != *name,
            Foreseen::Again | Foreseen::Open | Foreseen::Racing => false,
            Foreseen::Done | Foreseen::Refused | Foreseen::Named | Foreseen::Stranger => true,
        };
        if wrong {
            let detail = format!("answer {at}: {} where {foreseen:?}", state.name());
            found.push(violation("unforeseen", detail));
        }
        self.promise_state(&answered.record);
    }

    fn hear_refused_answer(
        &mut self,
        at: usize,
        error: &ServiceError,
        foreseen: &Foreseen,
        found: &mut Vec<Violation>,
    ) {
        let call = Call::Deliver(at);
        self.mail[at].closed |= CLOSED.contains(&error.check());
        let ServiceError::AuthorisationRefused { incident } = error else {
            let fair = match (error, foreseen) {
                (ServiceError::Unauthenticated, _) => {
                    // The clock moved while the proof was on its way.
                    matches!(self.mail[at].way, Way::Phone(at) if self.phones[at].revoked
                        || (self.phones[at].key.is_some() && *foreseen == Foreseen::Racing))
                }
                (ServiceError::Unavailable { .. } | ServiceError::Internal { .. }, _) => true,
                // The same answer is answered the same way, whatever became of the payment.
                _ => *foreseen != Foreseen::Again,
            };
            if !fair {
                let detail = format!("answer {at}: {}", error.check());
                found.push(violation("answer-answered-otherwise", detail));
            }
            return self.hear_error(&call, error, foreseen, found);
        };
        self.tally.add("answers refused");
        let before = &mut self.mail[at].answered;
        match before {
            Some(Err(before)) if before == incident => {
                self.tally.add("identical refusals");
                if matches!(self.mail[at].way, Way::Terminal(_)) {
                    self.tally.add("identical refusals of terminals");
                }
            }
            Some(before) => {
                let detail = format!("answer {at}: {incident}, before {before:?}");
                found.push(violation("answer-answered-otherwise", detail));
            }
            None => *before = Some(Err(incident.clone())),
        }
        if *foreseen == Foreseen::Refused
            && let Some(checks) = self.reason(&self.mail[at])
        {
            self.reasons.push(Reason { incident: incident.clone(), checks });
        }
        if matches!(foreseen, Foreseen::Ended(_) | Foreseen::Stranger | Foreseen::Named) {
            let detail = format!("answer {at} is refused where {foreseen:?}");
            found.push(violation("unforeseen", detail));
        }
    }

    fn hear_record(
        &mut self,
        call: &Call,
        record: &PaymentRecord,
        foreseen: &Foreseen,
        found: &mut Vec<Violation>,
    ) {
        let state = record.payment.state;
        if matches!(call, Call::Cancel(_)) {
            self.tally.add(state_word(state));
            if state != State::Cancelled || *foreseen == Foreseen::Named {
                found.push(violation("unforeseen", format!("{call:?}: {}", state.name())));
            }
        }
        self.promise_state(record);
    }

    fn promise_state(&mut self, record: &PaymentRecord) {
        let payment = &record.payment;
        self.judge.promised(Promise::Made(payment.id.clone()));
        if payment.state.is_terminal() {
            let state = payment.state.name().to_owned();
            self.judge.promised(Promise::Ended(payment.id.clone(), state));
        }
    }

    fn hear_error(
        &mut self,
        call: &Call,
        error: &ServiceError,
        foreseen: &Foreseen,
        found: &mut Vec<Violation>,
    ) {
        let detail = || format!("{call:?}: {} ({error}) where {foreseen:?}", error.check());
        let fair = match error {
            ServiceError::Unavailable { .. } => {
                self.tally.add("calls that the database failed");
                self.faulty || *foreseen == Foreseen::Racing
            }
            ServiceError::Unauthenticated => foreseen.is_open() || *foreseen == Foreseen::Stranger,
            ServiceError::NotFound { .. } => {
                let foreign = matches!(call, Call::Deliver(at) if self.is_foreign(*at));
                let stranger = matches!(call, Call::Terms(id, at)
                    if self.creators.get(id) != Some(at));
                if foreign || stranger {
                    self.tally.add("not found");
                }
                foreign || stranger
            }
            ServiceError::Refused { check, .. } => {
                self.tally.add("requests refused by name");
                let known = match call {
                    Call::AskOther(_) => *check == "idempotency-mismatch",
                    Call::Ask(_) if *check == "idempotency-in-flight" => {
                        *foreseen == Foreseen::Racing
                    }
                    Call::Ask(_) => REFUSED.contains(check) || CLOSED.contains(check),
                    Call::Deliver(at) if *check == "answer-format" => {
                        self.tally.add("answers without a form");
                        self.joint_wrong(&self.mail[*at], true) == Some(Wrong::Form)
                    }
                    Call::Deliver(_) | Call::Cancel(_) | Call::Terms(..) => CLOSED.contains(check),
                    // Another one was faster.
                    Call::Freeze(_) | Call::Block(_) => *foreseen == Foreseen::Racing,
                    Call::Sweep | Call::Look(_) | Call::Tick => false,
                };
                known && (foreseen.is_open() || *foreseen == Foreseen::Named)
            }
            _ => false,
        };
        if !fair {
            found.push(violation("unforeseen-error", detail()));
        }
    }

    /// Whether the answer at this place comes from a phone that does not serve the payer.
    fn is_foreign(&self, at: usize) -> bool {
        let envelope = &self.mail[at];
        let phone = match envelope.way {
            Way::Checkout => return false,
            Way::Terminal(at) => return self.creators.get(&envelope.payment) != Some(&at),
            Way::Phone(at) => &self.phones[at],
        };
        let account = &self.payers[phone.payer].account;
        let payment = self.now.payments.get(&envelope.payment);
        payment.is_none_or(|payment| payment.payer != *account)
    }
}

/// What executed by a signing card: by the form of what it signed, its first byte.
fn joint_word(envelope: &Envelope, state: State) -> &'static str {
    let form = match &envelope.words {
        Words::Joint(joint) => joint.commitment.first(),
        _ => None,
    };
    match (state, form) {
        (State::Executed, Some(1)) => "executed as sealed",
        (State::Executed, Some(2)) => "executed as sealed-random",
        (State::Executed, Some(3)) => "executed as digest",
        _ => "confirmed by a card and not executed",
    }
}

const fn state_word(state: State) -> &'static str {
    match state {
        State::Executed => "executed",
        State::ExecutionFailed => "execution failed",
        State::Rejected => "rejected",
        State::Cancelled => "cancelled",
        _ => "other ends",
    }
}
