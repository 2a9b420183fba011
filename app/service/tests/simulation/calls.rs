//! Requests to servers: what an action comes to in this world, and how it is sent.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use countersign_service::{
    Actor, Answered, JointTerms, NewPayment, NewPosting, Once, PaymentAnswer, Refunded,
    RejectReason, Service, ServiceError, Settled,
};
use countersign_store::{PaymentRecord, Posting};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::browser;
use crate::forge;
use crate::house::Server;
use crate::plan::{Action, How};
use crate::world::{Asked, Envelope, Hand, Way, What, Words, World, money};

/// A request that is ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    /// Of the requests that happen once, the one at this place.
    Ask(usize),
    /// Another request under its key.
    AskOther(usize),
    /// The answer at this place of the mail.
    Deliver(usize),
    Cancel(String),
    Sweep,
    Look(String),
    Freeze(String),
    /// The device at this place.
    Block(usize),
    /// The clock moves.
    Tick,
    /// What a card is to sign for this payment, asked by the terminal at this place.
    Terms(String, usize),
}

/// What came back.
pub(crate) enum Heard {
    /// Of a request that happens once: whether it was done now, status, body; and what of it.
    Settled(Result<Reply, ServiceError>),
    Answered(Box<Result<Answered, ServiceError>>),
    Record(Box<Result<PaymentRecord, ServiceError>>),
    Done(Result<(), ServiceError>),
    Terms(Result<JointTerms, ServiceError>),
    /// The server died.
    Nothing,
}

impl Heard {
    /// Nothing, in place of an internal error.
    pub(crate) fn unless_internal(self) -> Self {
        let error = match &self {
            Self::Settled(Err(error)) | Self::Done(Err(error)) => Some(error),
            Self::Answered(answered) => answered.as_ref().as_ref().err(),
            Self::Terms(terms) => terms.as_ref().err(),
            Self::Record(record) => record.as_ref().as_ref().err(),
            _ => None,
        };
        if matches!(error, Some(ServiceError::Internal { .. })) { Self::Nothing } else { self }
    }
}

/// An answer to a request that happens once.
pub(crate) struct Reply {
    pub(crate) fresh: bool,
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// How much of the payment has gone back, if that was asked for.
    pub(crate) refunded: Option<i64>,
}

/// How far the clock moves while other things happen: past the end of those who hurry.
const TICK: Duration = Duration::from_secs(31);

/// The place `back` from the end of `count`, if there is one.
pub(crate) fn from_end(count: usize, back: u8) -> Option<usize> {
    (count > 0).then(|| count - 1 - usize::from(back) % count)
}

impl World {
    /// What an action comes to now; none if there is nothing that it could be done to.
    pub(crate) fn resolve(&mut self, action: &Action) -> Option<Call> {
        match action {
            Action::Create { payer, payee, amount, hurry } => {
                Some(self.ask_for_payment(*payer, *payee, *amount, *hurry))
            }
            Action::CreateAgain { back } => self.asked_before(*back, true).map(Call::Ask),
            Action::CreateOther { back } => {
                let at = self.asked_before(*back, true)?;
                self.asked[at].answered.is_some().then_some(Call::AskOther(at))
            }
            Action::RefundAgain { back } => self.asked_before(*back, false).map(Call::Ask),
            Action::Answer { back, how, device, phone, now, torn } => {
                let at = self.answer((*back, *how), *device, *phone, *torn)?;
                now.then_some(Call::Deliver(at))
            }
            Action::Deliver { back } => from_end(self.mail.len(), *back).map(Call::Deliver),
            Action::Cancel { back } => self.payment(*back).map(Call::Cancel),
            Action::Look { back } => self.payment(*back).map(Call::Look),
            Action::Sweep => Some(Call::Sweep),
            Action::Refund { back, part } => {
                let payment = self.payment(*back)?;
                let amount = self.now.payments.get(&payment)?.amount;
                let part = (amount * i64::from(*part % 120) / 100).max(1);
                Some(self.ask_back(What::Refund { payment, amount: money(part).amount }))
            }
            Action::Reverse { back } => {
                let payment = self.payment(*back)?;
                Some(self.ask_back(What::Reversal { payment }))
            }
            Action::Post { pick, amount } => Some(self.ask_to_post(*pick, *amount)),
            Action::Freeze { pick } => {
                let id = self.account(*pick);
                let open = self.now.accounts.get(&id).is_some_and(|one| one.status == "open");
                open.then_some(Call::Freeze(id))
            }
            Action::Block { pick } => {
                let at = usize::from(*pick) % self.devices.len();
                let row = self.now.devices.get(&self.devices[at].id);
                let live = row.is_some_and(|row| row.status == "enrolled");
                (live && !self.devices[at].gone).then_some(Call::Block(at))
            }
            Action::Tick => Some(Call::Tick),
            Action::Turn(turn) => self.turn(turn),
            _ => None,
        }
    }

    /// The account of a payer or a payee.
    pub(crate) fn account(&self, pick: u8) -> String {
        let pick = usize::from(pick) % (self.payers.len() + self.payees.len());
        match self.payers.get(pick) {
            Some(payer) => payer.account.clone(),
            None => self.payees[pick - self.payers.len()].account.clone(),
        }
    }

    fn ask_to_post(&mut self, pick: u8, amount: u32) -> Call {
        let (debit, credit) = (self.outside.clone(), self.account(pick));
        let reference = format!("POST-{}", self.asked.len());
        let amount = money(i64::from(amount));
        self.ask(Actor::Console, What::Posting(NewPosting { reference, debit, credit, amount }))
    }

    pub(crate) fn payment(&self, back: u8) -> Option<String> {
        from_end(self.payments.len(), back).map(|at| self.payments[at].clone())
    }

    /// Mostly one that waits for an answer.
    pub(crate) fn payment_to_answer(&self, back: u8, draw: u8) -> Option<String> {
        let waits = |id: &&String| {
            self.now.payments.get(*id).is_some_and(|payment| payment.state == "pending")
        };
        let waiting: Vec<_> = self.payments.iter().filter(waits).collect();
        match from_end(waiting.len(), back) {
            Some(at) if !draw.is_multiple_of(5) => Some(waiting[at].clone()),
            _ => self.payment(back),
        }
    }

    fn asked_before(&self, back: u8, payment: bool) -> Option<usize> {
        let is = |asked: &Asked| matches!(asked.what, What::Payment(_)) == payment;
        let all: Vec<_> = (0..self.asked.len()).filter(|at| is(&self.asked[*at])).collect();
        from_end(all.len(), back).map(|at| all[at])
    }

    fn ask(&mut self, actor: Actor, what: What) -> Call {
        let key = format!("key-{}", self.asked.len());
        self.asked.push(Asked { key, actor, what, answered: None, sent: false, fresh: false });
        Call::Ask(self.asked.len() - 1)
    }

    fn ask_for_payment(&mut self, payer: u8, payee: u8, amount: u32, hurry: bool) -> Call {
        let number = self.asked.len();
        let new = NewPayment {
            end_to_end_id: format!("E2E-{number}"),
            amount: money(i64::from(amount)),
            payer: self.payers[usize::from(payer) % self.payers.len()].number.clone(),
            payee: self.payees[usize::from(payee) % self.payees.len()].number.clone(),
            payee_name: "Tea Shop".to_owned(),
            order: format!("Order {number}: 茶 & <b>cups</b>"),
            initiating_party: "Web shop".to_owned(),
            expires_in: hurry.then_some(Duration::from_secs(30)),
        };
        let actor = self.terminals[number % self.terminals.len()].clone();
        self.ask(actor, What::Payment(new))
    }

    fn ask_back(&mut self, what: What) -> Call {
        self.ask(Actor::Console, what)
    }

    /// Has an answer made, which lies in the mail then.
    fn answer(
        &mut self,
        (back, how): (u8, How),
        device: u8,
        phone: u8,
        torn: u32,
    ) -> Option<usize> {
        let payment = self.payment_to_answer(back, device)?;
        let row = self.now.payments.get(&payment)?;
        let own = self.payers.iter().position(|payer| payer.account == row.payer)?;
        let other = (own + 1) % self.payers.len();
        let whose = if how == How::ForeignDevice { other } else { own };
        let devices = &self.payers[whose].devices;
        let device = devices[usize::from(device) % devices.len()];
        let sender = if how == How::ForeignPhone { other } else { own };
        let phones = &self.payers[sender].phones;
        let phone = phones[usize::from(phone) % phones.len()];
        let signer = match how {
            How::WrongKey => *self.payers[other].devices.first()?,
            _ => device,
        };
        let request = match how {
            How::OtherAmount => forge::with(&row.request, "amount", forge::AMOUNT),
            How::OtherPayee => forge::with(&row.request, "payeeAccount", "THIEF0001"),
            How::OtherPayment => {
                let mut others = self.now.payments.iter().filter(|(id, _)| **id != payment);
                others.next_back()?.1.request.clone()
            }
            _ => row.request.clone(),
        };
        let mut unheard = Vec::new();
        let words = match how {
            How::Reject => Words::Rejection { not_mine: false },
            How::NotMine => Words::Rejection { not_mine: true },
            How::Garbage => forge::garbage(self.devices[device].key()),
            _ => self.present(signer, &request, torn, &mut unheard)?,
        };
        let serial = match how {
            How::UnknownDevice => "KEY-0".to_owned(),
            _ => self.devices[device].serial.clone(),
        };
        let genuine = how == How::Right;
        // What the card signed and the phone did not hear, somebody may bring who did.
        let unheard = unheard.into_iter().filter(|_| genuine);
        // Digits are sometimes typed in at the checkout; whose phone it is does not matter there.
        let typed = torn.is_multiple_of(3) && how != How::ForeignPhone;
        for words in unheard.chain([words]) {
            let offline = typed && matches!(words, Words::Digits(_));
            let way = if offline { Way::Checkout } else { Way::Phone(phone) };
            self.mail.push(Envelope {
                payment: payment.clone(),
                device,
                serial: serial.clone(),
                words,
                way,
                genuine,
                answered: None,
                sent: false,
                closed: false,
            });
        }
        Some(self.mail.len() - 1)
    }

    /// Has a card confirm a request: what its phone hears, and what it does not. None if the holder
    /// gives up.
    fn present(
        &mut self,
        at: usize,
        request: &[u8],
        torn: u32,
        unheard: &mut Vec<Words>,
    ) -> Option<Words> {
        let mut rng = self.house.rng();
        let Hand::Answers { key, card } = &mut self.devices[at].hand else { return None };
        let presented = card.confirm(request, torn.into(), &mut rng);
        for what in presented.happened {
            self.tally.add(what);
        }
        self.found.extend(presented.found);
        *unheard = presented.unheard;
        if presented.refused {
            // A device of the forger's own would not refuse it.
            return Some(forge::sign(key, request, &mut rng));
        }
        if presented.answer.is_none() {
            self.tally.add("cards given up");
        }
        presented.answer
    }

    /// Sends a request to a server.
    pub(crate) fn send(&self, call: &Call, server: usize) -> JoinHandle<Heard> {
        let server = &self.servers[server];
        let service = server.service.clone();
        match call {
            Call::Ask(at) => server.spawn(self.asking(service, &self.asked[*at], None)),
            Call::AskOther(at) => server.spawn(self.asking(service, &self.asked[*at], Some(2))),
            Call::Deliver(at) => self.deliver(server, &self.mail[*at]),
            Call::Cancel(id) => {
                let id = id.clone();
                server.spawn(async move {
                    Heard::Record(Box::new(service.cancel_payment(&Actor::Console, &id).await))
                })
            }
            Call::Look(id) => {
                let id = id.clone();
                server.spawn(async move {
                    Heard::Record(Box::new(service.payment(&Actor::Console, &id).await))
                })
            }
            Call::Freeze(id) => {
                let id = id.clone();
                server.spawn(async move {
                    let done = service.freeze_account(&Actor::Console, &id, "a court order").await;
                    Heard::Done(done.map(|_| ()))
                })
            }
            Call::Block(at) => {
                let id = self.devices[*at].id.clone();
                server.spawn(async move {
                    let done = service.block_signer(&Actor::Console, &id, "reported stolen").await;
                    Heard::Done(done.map(|_| ()))
                })
            }
            Call::Tick => {
                let pass = self.house.passing(TICK);
                server.spawn(async move {
                    pass();
                    Heard::Done(Ok(()))
                })
            }
            Call::Terms(id, terminal) => {
                let (id, actor) = (id.clone(), self.terminals[*terminal].clone());
                server.spawn(async move { Heard::Terms(service.joint_terms(&actor, &id).await) })
            }
            Call::Sweep => server
                .spawn(async move { Heard::Done(service.expire_payments().await.map(|_| ())) }),
        }
    }

    /// Brings an answer: by its phone, at the checkout, or from a terminal.
    fn deliver(&self, server: &Server, envelope: &Envelope) -> JoinHandle<Heard> {
        let (service, payment) = (server.service.clone(), envelope.payment.clone());
        let phone = match (envelope.way, &envelope.words) {
            (Way::Terminal(at), Words::Joint(joint)) => {
                let (actor, answer) =
                    (self.terminals[at].clone(), self.to_joint_answer(envelope, joint));
                return server.spawn(async move {
                    let answered = service.answer_joint(&actor, &payment, answer).await;
                    Heard::Answered(Box::new(answered))
                });
            }
            (Way::Terminal(_), _) => unreachable!("terminals bring what cards sign"),
            (Way::Checkout, _) => {
                let (terminals, answer) = (self.terminals.clone(), envelope.to_answer());
                return server.spawn(typed_in(service, terminals, payment, answer));
            }
            (Way::Phone(at), _) => &self.phones[at],
        };
        let (token, key, answer) = (phone.token.clone(), phone.key.as_ref(), envelope.to_answer());
        let now = self.house.now().as_secs();
        let mut rng = self.house.rng();
        let jwt = key.map(|key| browser::prove(key, &token, now, &mut rng));
        server.spawn(async move {
            let sent = async {
                let phone = browser::authorise(&service, &token, jwt.as_deref()).await?;
                // The payer reads the number at the terminal.
                let code = match jwt {
                    Some(_) => Some(service.match_code(&payment).await?),
                    None => None,
                };
                service.answer_payment(&phone, &payment, answer, code).await
            };
            Heard::Answered(Box::new(sent.await))
        })
    }

    fn asking(
        &self,
        service: Arc<Service>,
        asked: &Asked,
        other: Option<u8>,
    ) -> impl Future<Output = Heard> + Send + use<> {
        let (key, actor, what) = (asked.key.clone(), asked.actor.clone(), asked.what.clone());
        let request_hash = [other.unwrap_or(1); 32];
        let bodies = self.bodies.clone();
        let number = move || bodies.fetch_add(1, Ordering::SeqCst);
        async move {
            let heard = match what {
                What::Payment(new) => {
                    let render = Arc::new(move |record: &PaymentRecord| {
                        let body = json!({ "id": record.payment.id, "number": number() });
                        (201, body.to_string().into_bytes())
                    });
                    let once = Once { key, request_hash, render };
                    let made = service.create_payment(&actor, &new, once).await;
                    made.map(|settled| heard(settled, |_| None))
                }
                What::Posting(new) => {
                    let render = Arc::new(move |posting: &Posting| {
                        let body = json!({ "posting": posting.id, "number": number() });
                        (201, body.to_string().into_bytes())
                    });
                    let once = Once { key, request_hash, render };
                    let made = service.post(&actor, &new, once).await;
                    made.map(|settled| heard(settled, |_| None))
                }
                What::Refund { .. } | What::Reversal { .. } => {
                    let render = Arc::new(move |refunded: &Refunded| {
                        let refunded = refunded.record.payment.refunded;
                        let body = json!({ "refunded": refunded, "number": number() });
                        (201, body.to_string().into_bytes())
                    });
                    let once = Once { key, request_hash, render };
                    let made = match what {
                        What::Refund { payment, amount } => {
                            service.refund_payment(&actor, &payment, &amount, once).await
                        }
                        What::Reversal { payment } => {
                            service.reverse_payment(&actor, &payment, once).await
                        }
                        _ => unreachable!("these are told apart"),
                    };
                    made.map(|settled| heard(settled, |one| Some(one.record.payment.refunded)))
                }
            };
            Heard::Settled(heard)
        }
    }
}

/// Digits that are typed in at the page of the payment's checkout.
async fn typed_in(
    service: Arc<Service>,
    terminals: Vec<Actor>,
    payment: String,
    answer: PaymentAnswer,
) -> Heard {
    let PaymentAnswer::Ocra { device_serial, digits } = answer else {
        unreachable!("only digits are typed in")
    };
    let sent = async {
        let mut checkout = service.checkout(&terminals[0], &payment).await;
        for terminal in &terminals[1..] {
            if matches!(checkout, Err(ServiceError::NotFound { .. })) {
                checkout = service.checkout(terminal, &payment).await;
            }
        }
        let key = checkout?.key;
        service.answer_offline(&payment, &key, &device_serial, &digits).await
    };
    Heard::Answered(Box::new(sent.await))
}

fn heard<T>(settled: Settled<T>, refunded: impl Fn(&T) -> Option<i64>) -> Reply {
    match settled {
        Settled::Fresh { value, status, body } => {
            Reply { fresh: true, status, body, refunded: refunded(&value) }
        }
        Settled::Replay { status, body } => Reply { fresh: false, status, body, refunded: None },
    }
}

impl Envelope {
    fn to_answer(&self) -> PaymentAnswer {
        let device_serial = self.serial.clone();
        match &self.words {
            Words::Signature(signature) => {
                PaymentAnswer::Pki { device_serial, signature: signature.clone() }
            }
            Words::Digits(digits) => PaymentAnswer::Ocra { device_serial, digits: digits.clone() },
            Words::Rejection { not_mine: false } => {
                PaymentAnswer::Reject { reason: RejectReason::ChangedMind }
            }
            Words::Rejection { not_mine: true } => {
                PaymentAnswer::Reject { reason: RejectReason::NotMine }
            }
            Words::Joint(_) => unreachable!("terminals bring what cards sign"),
        }
    }
}
