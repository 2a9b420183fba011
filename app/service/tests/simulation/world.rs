//! A world: servers on one database, initiating terminals, payers with phones and security devices,
//! and those who would like to be them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use countersign_crypto::SecureElement;
use countersign_service::{Actor, Money, NewPayment, NewPosting, Once, ServiceError, Settled};
use countersign_store::{AccountKind, Role, Store};

use crate::browser::{self, BrowserKey};
use crate::card::Card;
use crate::cast;
use crate::house::{Ghost, House, Place, Server};
use crate::judge::{Judge, Violation};
use crate::saboteurs::Sabotage;
use crate::signing::SigningCard;
use crate::snapshot::Snapshot;
use crate::till::{Kept, Reason};

/// Servers on the one database.
pub(crate) const SERVERS: usize = 2;
/// How often a database that is away is asked again.
const SEEN_TRIES: u32 = 200;
const SEEN_PAUSE: Duration = Duration::from_millis(50);
/// What each payer has at the beginning, in minor units.
pub(crate) const FUNDS: i64 = 2_000_000;
/// How far below zero the second payer may go, in minor units.
pub(crate) const OVERDRAFT: i64 = 150_000;
pub(crate) const CURRENCY: &str = "CNY";

/// A payer's account, and who serves it.
pub(crate) struct Payer {
    pub(crate) account: String,
    pub(crate) number: String,
    /// Those that answer phones.
    pub(crate) devices: Vec<usize>,
    /// Cards that sign at terminals.
    pub(crate) cards: Vec<usize>,
    pub(crate) phones: Vec<usize>,
}

/// A payee's account.
pub(crate) struct Payee {
    pub(crate) account: String,
    pub(crate) number: String,
}

/// What a security device signs with.
#[derive(Clone)]
pub(crate) enum Key {
    Pki(Arc<dyn SecureElement>),
    Ocra(Vec<u8>),
}

/// Kinds of security devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Pki,
    Ocra,
    Joint,
}

/// What a payer has in hand.
pub(crate) enum Hand {
    /// It answers a phone, with this key.
    Answers { key: Key, card: Box<Card> },
    /// It signs at terminals.
    Signs(Box<SigningCard>),
}

/// A security device.
pub(crate) struct Device {
    pub(crate) id: String,
    pub(crate) serial: String,
    pub(crate) hand: Hand,
    /// The payer whose it is.
    pub(crate) payer: usize,
    /// Revoked, or taken from its account.
    pub(crate) gone: bool,
}

/// A payer's phone.
pub(crate) struct Phone {
    pub(crate) id: String,
    pub(crate) token: String,
    /// Of a browser: its token counts beside a proof of this key only.
    pub(crate) key: Option<BrowserKey>,
    pub(crate) payer: usize,
    pub(crate) revoked: bool,
}

/// A request that happens once, and what was answered to it.
pub(crate) struct Asked {
    pub(crate) key: String,
    pub(crate) actor: Actor,
    pub(crate) what: What,
    /// Status and body, if an answer ever came.
    pub(crate) answered: Option<(u16, Vec<u8>)>,
    /// Whether it was ever sent.
    pub(crate) sent: bool,
    /// Whether an answer ever said that it was done just then.
    pub(crate) fresh: bool,
}

/// What is asked for.
#[derive(Clone)]
pub(crate) enum What {
    Payment(NewPayment),
    Posting(NewPosting),
    Refund { payment: String, amount: String },
    Reversal { payment: String },
}

/// What a terminal brings of a signing card (B7).
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Joint {
    pub(crate) transaction: Vec<u8>,
    pub(crate) commitment: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    pub(crate) password: String,
}

/// What an answer says.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Words {
    Signature(Vec<u8>),
    Digits(String),
    /// The payer says no; whether the payment is none of the payer's own.
    Rejection {
        not_mine: bool,
    },
    Joint(Box<Joint>),
}

/// Who brings an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The phone at this place.
    Phone(usize),
    /// The page of the payment's checkout.
    Checkout,
    /// The terminal at this place.
    Terminal(usize),
}

/// An answer on its way: it may come late, twice, or never.
#[derive(Clone)]
pub(crate) struct Envelope {
    pub(crate) payment: String,
    /// The device in whose name it is.
    pub(crate) device: usize,
    /// The serial number in it.
    pub(crate) serial: String,
    pub(crate) words: Words,
    pub(crate) way: Way,
    /// Whether it is one that executes the payment if nothing else is in the way.
    pub(crate) genuine: bool,
    /// What was answered to it: the id of the authorisation, or the incident.
    pub(crate) answered: Option<Result<String, String>>,
    /// Whether it was ever delivered.
    pub(crate) sent: bool,
    /// Whether it was ever told that the payment takes no answer any more.
    pub(crate) closed: bool,
}

/// How often things happened, for what a run is worth.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tally(pub(crate) BTreeMap<&'static str, u64>);

impl Tally {
    pub(crate) fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub(crate) fn add_all(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }
}

pub(crate) struct World {
    pub(crate) house: House,
    /// Sees the database all the time, and never changes it.
    eye: Store,
    pub(crate) servers: Vec<Server>,
    pub(crate) judge: Judge,
    /// Everything as it was after the last action.
    pub(crate) now: Snapshot,
    pub(crate) payers: Vec<Payer>,
    pub(crate) payees: Vec<Payee>,
    /// Where money comes from.
    pub(crate) outside: String,
    pub(crate) terminals: Vec<Actor>,
    pub(crate) devices: Vec<Device>,
    pub(crate) phones: Vec<Phone>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) mail: Vec<Envelope>,
    /// What cards signed, in terminals' hands.
    pub(crate) kept: Vec<Kept>,
    /// Why answers of terminals had to be refused, until it is looked whether they were.
    pub(crate) reasons: Vec<Reason>,
    /// The terminal that asked for each payment.
    pub(crate) creators: BTreeMap<String, usize>,
    /// What is wrong with this world on purpose.
    pub(crate) sabotage: Sabotage,
    /// Payments that were answered for, oldest first.
    pub(crate) payments: Vec<String>,
    /// Whether the database may fail, or may have failed in the last action.
    pub(crate) faulty: bool,
    pub(crate) tally: Tally,
    /// What was wrong with cards since it was last looked.
    pub(crate) found: Vec<Violation>,
    /// Numbers the bodies of answers: one that is written anew is another one.
    pub(crate) bodies: Arc<AtomicU64>,
    pub(crate) turns: usize,
    /// Servers that died, of which something may still come.
    pub(crate) ghosts: Vec<Ghost>,
}

impl Device {
    /// The key of one that answers phones.
    pub(crate) fn key(&self) -> &Key {
        match &self.hand {
            Hand::Answers { key, .. } => key,
            Hand::Signs(_) => unreachable!("no phone holds such a card"),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match &self.hand {
            Hand::Answers { key: Key::Pki(_), .. } => Kind::Pki,
            Hand::Answers { key: Key::Ocra(_), .. } => Kind::Ocra,
            Hand::Signs(_) => Kind::Joint,
        }
    }

    pub(crate) fn signing(&self) -> Option<&SigningCard> {
        match &self.hand {
            Hand::Signs(card) => Some(card),
            Hand::Answers { .. } => None,
        }
    }

    pub(crate) fn signing_mut(&mut self) -> Option<&mut SigningCard> {
        match &mut self.hand {
            Hand::Signs(card) => Some(card),
            Hand::Answers { .. } => None,
        }
    }
}

impl World {
    /// Opens accounts, hands out devices and phones, and pays money in.
    pub(crate) async fn new(
        place: Place,
        seed: u64,
        sabotage: Sabotage,
    ) -> Result<Self, ServiceError> {
        let house = House::new(place, seed);
        let eye = house.place.open().await;
        let mut servers = Vec::new();
        for _ in 0..SERVERS {
            servers.push(house.serve(house.place.open().await));
        }
        let judge = Judge::new(house.trust(), house.wrong_max);
        let mut world = Self {
            house,
            eye,
            servers,
            judge,
            now: Snapshot::default(),
            payers: Vec::new(),
            payees: Vec::new(),
            outside: String::new(),
            terminals: Vec::new(),
            devices: Vec::new(),
            phones: Vec::new(),
            asked: Vec::new(),
            mail: Vec::new(),
            kept: Vec::new(),
            reasons: Vec::new(),
            creators: BTreeMap::new(),
            sabotage,
            payments: Vec::new(),
            faulty: false,
            tally: Tally::default(),
            found: Vec::new(),
            bodies: Arc::default(),
            turns: 0,
            ghosts: Vec::new(),
        };
        world.furnish().await?;
        Ok(world)
    }

    async fn furnish(&mut self) -> Result<(), ServiceError> {
        let service = self.servers[0].service.clone();
        for name in ["till-1", "till-2"] {
            let added = service.add_operator(&Actor::Console, name, &[Role::Integrator]).await?;
            self.terminals.push(Actor::Operator(added.0));
        }
        let world = AccountKind::External;
        let outside = cast::open_account(&service, "OUTSIDE0001", world, None).await?;
        self.outside.clone_from(&outside);
        for (number, overdraft) in
            [("PAYER0001", None), ("PAYER0002", Some(OVERDRAFT)), ("PAYER0003", None)]
        {
            let customer = AccountKind::Customer;
            let account = cast::open_account(&service, number, customer, overdraft).await?;
            let new = NewPosting {
                reference: format!("FUND-{number}"),
                debit: outside.clone(),
                credit: account.clone(),
                amount: money(FUNDS),
            };
            let once = Once {
                key: new.reference.clone(),
                request_hash: [1; 32],
                render: Arc::new(|_| (201, b"{}".to_vec())),
            };
            let settled = service.post(&Actor::Console, &new, once).await?;
            assert!(matches!(settled, Settled::Fresh { .. }), "the first of its key");
            let number = number.to_owned();
            let (devices, cards, phones) = (Vec::new(), Vec::new(), Vec::new());
            self.payers.push(Payer { account, number, devices, cards, phones });
        }
        for number in ["PAYEE0001", "PAYEE0002"] {
            let customer = AccountKind::Customer;
            let account = cast::open_account(&service, number, customer, None).await?;
            self.payees.push(Payee { account, number: number.to_owned() });
        }
        for payer in 0..self.payers.len() {
            for kind in [Kind::Pki, Kind::Ocra, Kind::Joint] {
                self.give_device(payer, kind).await?;
            }
            self.give_phone(payer).await?;
            self.give_phone(payer).await?;
        }
        Ok(())
    }

    /// A new security device for this payer.
    pub(crate) async fn give_device(
        &mut self,
        payer: usize,
        kind: Kind,
    ) -> Result<(), ServiceError> {
        let service = self.servers[0].service.clone();
        let serial = format!("KEY-{}", self.devices.len() + 1);
        let account = self.payers[payer].account.clone();
        let rng = self.house.rng();
        let (id, hand) = match kind {
            Kind::Joint => {
                let number = &self.payers[payer].number;
                let (id, mut card) =
                    cast::enrol_card(&service, &self.house, &serial, (&account, number)).await?;
                card.sabotage = self.sabotage;
                self.payers[payer].cards.push(self.devices.len());
                (id, Hand::Signs(Box::new(card)))
            }
            Kind::Pki | Kind::Ocra => {
                let (id, key, certificate) = if kind == Kind::Ocra {
                    cast::enrol_ocra(&service, &serial, &account).await?
                } else {
                    let provider = self.house.provider();
                    cast::enrol_pki(&service, provider, &serial, &account, rng).await?
                };
                // Every second one has a keypad of its own.
                let keypad = self.payers[payer].devices.len() % 4 < 2;
                let card = Box::new(Card::new(&serial, key.clone(), certificate, keypad));
                self.payers[payer].devices.push(self.devices.len());
                (id, Hand::Answers { key, card })
            }
        };
        let signer = self.judge.devices.entry(id.clone()).or_default();
        signer.accounts.insert(account);
        if let Hand::Answers { key: Key::Ocra(key), .. } = &hand {
            signer.ocra_key = Some(key.clone());
        }
        self.devices.push(Device { id, serial, hand, payer, gone: false });
        Ok(())
    }

    /// A new phone for this payer.
    pub(crate) async fn give_phone(&mut self, payer: usize) -> Result<(), ServiceError> {
        let service = self.servers[0].service.clone();
        let account = self.payers[payer].account.clone();
        let source = format!("192.0.2.{}", self.phones.len() + 1);
        // Every second phone is a browser.
        let browser = self.phones.len() % 2 == 1;
        let made = browser.then(|| browser::new_key(&mut self.house.rng()));
        let (key, session) = made.unzip();
        let (id, token) = cast::enrol_phone(&service, &source, &account, session).await?;
        self.judge.phones.entry(id.clone()).or_default().accounts.insert(account);
        self.payers[payer].phones.push(self.phones.len());
        self.phones.push(Phone { id, token, key, payer, revoked: false });
        Ok(())
    }

    /// Looks at everything, and has it judged.
    pub(crate) async fn look(&mut self) -> Vec<Violation> {
        self.now = self.see().await;
        let mut found = std::mem::take(&mut self.found);
        self.gather_consents();
        found.extend(self.judge.look(&self.now));
        found.extend(self.check_reasons());
        found
    }

    /// Everything as it is. A database that was killed may take a moment.
    pub(crate) async fn see(&self) -> Snapshot {
        let mut seen = Snapshot::take(&self.eye).await;
        for _ in 0..SEEN_TRIES {
            if seen.is_ok() {
                break;
            }
            tokio::time::sleep(SEEN_PAUSE).await;
            seen = Snapshot::take(&self.eye).await;
        }
        seen.unwrap()
    }

    /// The server whose turn it is.
    pub(crate) fn next_server(&mut self) -> usize {
        self.turns += 1;
        self.turns % SERVERS
    }

    /// A server dies, and another one starts in its place. What the dead one had sent to the
    /// database may still come to be, for a while.
    pub(crate) async fn replace(&mut self, at: usize) {
        let fresh = self.house.serve(self.house.place.open().await);
        let dead = std::mem::replace(&mut self.servers[at], fresh);
        self.ghosts.push(dead.die());
    }

    /// Waits until nothing more comes of servers that died.
    pub(crate) async fn bury(&mut self) {
        for ghost in std::mem::take(&mut self.ghosts) {
            ghost.gone().await;
        }
    }

    /// A judge who knows the same signers, and has seen nothing yet.
    pub(crate) fn fresh_judge(&self) -> Judge {
        let mut judge = Judge::new(self.house.trust(), self.house.wrong_max);
        judge.devices = self.judge.devices.clone();
        judge.phones = self.judge.phones.clone();
        judge
    }

    /// A second look at the database, for those who want to change it behind everyone's back.
    pub(crate) fn eye(&self) -> &Store {
        &self.eye
    }
}

/// So much, in minor units.
pub(crate) fn money(minor: i64) -> Money {
    Money { amount: crate::judge::decimal(minor, CURRENCY), currency: CURRENCY.to_owned() }
}
