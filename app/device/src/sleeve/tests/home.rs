//! A home of the core machines: a manager's channel and flow, a pairing list in memory, and one
//! bank card. What it does wrong, its test tells it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_channel::{
    Event, Heartbeat, LookupRefusal, ManagerChannel, ManagerConfig, ManagerQuestion, Pairing,
    Policy as ChannelPolicy, Protection,
};
use countersign_emulator::{AID_DEBIT, BankCard, BankCardSettings};
use countersign_iso7816::CardLink;
use countersign_net::{Clock, Connection, Next, SystemRng};
use countersign_pki::Role;
use countersign_wallet::flow::{CardTaken, ManagerEvent, ManagerFlow, Output, Terms};
use countersign_wallet::login::{Access, Cost, Locked, Passwords};
use countersign_wallet::message::{Atr, CardId, CardLine, Label};
use countersign_wallet::policy::{CardLimits, Policy, Rules, Usage};
use testkit::pki::TestPki;
use testkit::wallet::manager_config;
use tokio::io::DuplexStream;
use tokio::sync::{Notify, mpsc};

use super::super::wire::Dial;
use super::network::Network;
use super::{PASSWORD, clock, password};

/// What a home does wrong.
#[derive(Default)]
pub(super) struct Faults {
    /// The pairing window is closed.
    pub(super) closed: AtomicBool,
    /// The pairing list cannot be written.
    pub(super) full: AtomicBool,
    /// The connection goes before the pairing is stored.
    pub(super) gone_before_storing: AtomicBool,
    /// The acknowledgement gets lost: the connection goes after the pairing was stored.
    pub(super) acknowledgement_lost: AtomicBool,
    /// The connection goes when a sleeve asks to connect.
    pub(super) gone_at_connect: AtomicBool,
    /// No password is looked at.
    pub(super) locked: AtomicBool,
    /// Its owner does not consent.
    pub(super) declines: AtomicBool,
}

/// How long it says that nobody may try.
pub(super) const LOCKED_FOR: u32 = 300;

pub(super) struct Home {
    pub(super) network: Arc<Network>,
    pub(super) card: BankCard,
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    config: Mutex<Arc<ManagerConfig>>,
    pub(super) pairings: Mutex<HashMap<String, Arc<Pairing>>>,
    pub(super) faults: Faults,
    /// Ends the sessions that there are, without a word.
    pub(super) cut: Notify,
    /// From then on nothing that comes is heard, and nobody is told.
    pub(super) fall_silent: Notify,
    /// Sessions that ended where they may.
    pub(super) closed: AtomicUsize,
    /// What the other sessions ended by.
    pub(super) ended: Mutex<Vec<String>>,
    /// Connections that there are, each with its channel and its keys.
    pub(super) held: Arc<AtomicUsize>,
    /// The pairing whose proof is still on its way.
    withheld: Mutex<Option<Pairing>>,
    /// What sleeves said of distance checks.
    pub(super) distances: AtomicUsize,
    /// Sleeves that are asleep.
    pub(super) asleep: AtomicUsize,
    pub(super) rules: Mutex<Rules>,
    passwords: Passwords,
    pub(super) clock: Arc<dyn Clock>,
    card: Mutex<BankCard>,
}

impl Home {
    pub(super) fn start(pki: &mut TestPki, id: &str) -> Self {
        let party = pki.party(Role::Manager, id);
        let config = manager_config(pki, &party, pki.provider.clone());
        let card = bank_card(&BankCardSettings::default());
        let mut rng = testkit::rng::seeded(3);
        let passwords = Passwords::new(&password(PASSWORD), None, Cost::LEAST, &mut rng).unwrap();
        let shared = Arc::new(Shared {
            config: Mutex::new(Arc::new(config)),
            pairings: Mutex::default(),
            faults: Faults::default(),
            cut: Notify::new(),
            fall_silent: Notify::new(),
            closed: AtomicUsize::new(0),
            ended: Mutex::default(),
            held: Arc::default(),
            withheld: Mutex::default(),
            distances: AtomicUsize::new(0),
            asleep: AtomicUsize::new(0),
            rules: Mutex::new(Rules::any()),
            passwords,
            clock: clock(),
            card: Mutex::new(card.clone()),
        });
        Self { network: Arc::default(), card, shared }
    }

    /// The way here.
    pub(super) fn dial(&self) -> Dial {
        let shared = self.shared.clone();
        self.network.dial(Arc::new(move |stream| {
            tokio::spawn(shared.clone().serve(stream));
        }))
    }

    pub(super) fn fault(&self, which: impl FnOnce(&Faults) -> &AtomicBool, on: bool) {
        which(&self.shared.faults).store(on, Ordering::SeqCst);
    }

    /// The proof that was on its way arrives after all.
    pub(super) fn proof_arrives(&self) {
        let pairing = self.shared.withheld.lock().unwrap().take().unwrap();
        let mut pairings = self.shared.pairings.lock().unwrap();
        pairings.insert(pairing.peer.clone(), Arc::new(pairing));
    }

    pub(super) fn knows(&self, sleeve: &str) -> bool {
        self.shared.pairings.lock().unwrap().contains_key(sleeve)
    }

    /// Another card, from now on; for each command it lets time pass in this way.
    pub(super) fn put(
        &mut self,
        settings: &BankCardSettings,
        wait: impl Fn(Duration) + Send + Sync + 'static,
    ) {
        self.card = bank_card(settings).waiting_by(wait);
        *self.shared.card.lock().unwrap() = self.card.clone();
    }

    /// A card that stops amid each command, until it is told to go on.
    pub(super) fn put_gated(&mut self) -> Gate {
        let (asks, asked) = mpsc::unbounded_channel();
        let (go, goes) = std::sync::mpsc::channel();
        let goes = Mutex::new(goes);
        let settings = BankCardSettings::default().answering_after(Duration::from_millis(1));
        self.put(&settings, move |_| {
            let _nobody_looks = asks.send(());
            let _gate_is_gone = goes.lock().unwrap().recv();
        });
        Gate { asked, go }
    }

    /// Connections that the home holds, each with its channel and its keys.
    pub(super) fn held(&self) -> usize {
        self.shared.held.load(Ordering::SeqCst)
    }

    pub(super) fn under(&self, policy: ChannelPolicy) {
        Arc::make_mut(&mut *self.shared.config.lock().unwrap()).policies = vec![policy];
    }
}

fn bank_card(settings: &BankCardSettings) -> BankCard {
    BankCard::new(settings, Box::new(testkit::rng::seeded(9)))
}

/// Stands between a test and its card.
pub(super) struct Gate {
    asked: mpsc::UnboundedReceiver<()>,
    go: std::sync::mpsc::Sender<()>,
}

impl Gate {
    /// Waits until the card is amid a command.
    pub(super) async fn asked(&mut self) {
        self.asked.recv().await.unwrap();
    }

    /// Lets it finish that.
    pub(super) fn go(&self) {
        self.go.send(()).unwrap();
    }
}

type Line = Connection<ManagerChannel, DuplexStream>;

/// Counts a connection for as long as it is there.
struct Held(Arc<AtomicUsize>);

impl Held {
    fn by(held: &Arc<AtomicUsize>) -> Self {
        held.fetch_add(1, Ordering::SeqCst);
        Self(held.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shared {
    fn has(&self, which: impl FnOnce(&Faults) -> &AtomicBool) -> bool {
        which(&self.faults).load(Ordering::SeqCst)
    }

    async fn serve(self: Arc<Self>, stream: DuplexStream) {
        let _held = Held::by(&self.held); // until the line is gone
        let config = self.config.lock().unwrap().clone();
        let channel = ManagerChannel::new(config, &[127, 0, 0, 1], self.clock.now());
        let rng = Box::<SystemRng>::default();
        let mut line = Connection::new(channel, stream, self.clock.clone(), rng);
        if self.shake_hands(&mut line).await.is_some() {
            tokio::select! {
                () = self.session(&mut line) => {}
                () = self.cut.notified() => {}
                () = self.fall_silent.notified() => std::future::pending().await,
            }
        }
    }

    /// Until the channel is confirmed; `None` if it never is.
    async fn shake_hands(&self, line: &mut Line) -> Option<()> {
        loop {
            let question = match line.next(None).await {
                Ok(Next::Event(Event::Ask(question))) => question,
                Ok(Next::Event(Event::Connected)) => return Some(()),
                Err(countersign_net::NetError::Machine(error)) => {
                    line.machine().refuse(&error, "");
                    let _gone = line.flush().await;
                    return None;
                }
                _ => return None,
            };
            let (channel, now, rng) = line.parts();
            let answered = match question {
                ManagerQuestion::Window { .. } => {
                    channel.window(now, rng, !self.has(|faults| &faults.closed))
                }
                ManagerQuestion::Store(pairing)
                    if self.has(|faults| &faults.gone_before_storing) =>
                {
                    *self.withheld.lock().unwrap() = Some(pairing);
                    return None;
                }
                ManagerQuestion::Store(_) if self.has(|faults| &faults.full) => {
                    channel.stored(now, rng, false)
                }
                ManagerQuestion::Store(pairing) => {
                    let mut pairings = self.pairings.lock().unwrap();
                    pairings.insert(pairing.peer.clone(), Arc::new(pairing));
                    if self.has(|faults| &faults.acknowledgement_lost) {
                        return None;
                    }
                    channel.stored(now, rng, true)
                }
                ManagerQuestion::Sleeve { .. } if self.has(|faults| &faults.gone_at_connect) => {
                    return None;
                }
                ManagerQuestion::Sleeve { id } => {
                    let found = self.pairings.lock().unwrap().get(&id).cloned();
                    channel.sleeve_found(now, rng, found.ok_or(LookupRefusal::Unknown))
                }
            };
            if let Err(error) = answered {
                line.machine().refuse(&error, "");
                let _gone = line.flush().await;
                return None;
            }
        }
    }

    async fn session(&self, line: &mut Line) {
        let policy = line.machine().policy().unwrap();
        let readable = policy.protection == Protection::Mac;
        let terms = Terms { readable, ask_consent: self.has(|faults| &faults.declines) };
        let mut flow = ManagerFlow::new(terms, line.now());
        let mut access = Access::usual();
        loop {
            while let Some(output) = flow.poll() {
                match output {
                    Output::Send(message) => {
                        line.machine().send(&message).unwrap();
                        if line.flush().await.is_err() {
                            return;
                        }
                    }
                    Output::Event(ManagerEvent::LoggedIn(granted)) => access = granted,
                    Output::Event(ManagerEvent::Ended { .. }) => {
                        let _dead = line.machine().close();
                        let _gone = line.flush().await;
                        return;
                    }
                    Output::Event(event) => self.happened(&mut flow, line, event, access).await,
                }
            }
            match line.next(flow.poll_timeout()).await {
                Ok(Next::Event(Event::Data(data))) => {
                    let _dead = flow.handle(line.now(), &data);
                }
                Ok(Next::Event(Event::Closed)) => {
                    self.closed.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                Ok(Next::Deadline) => {
                    let _dead = flow.handle_timeout(line.now());
                }
                Err(countersign_net::NetError::Machine(error)) => {
                    self.ended.lock().unwrap().push(error.check().to_owned());
                    return;
                }
                _ => return,
            }
        }
    }

    async fn happened(
        &self,
        flow: &mut ManagerFlow,
        line: &mut Line,
        event: ManagerEvent,
        access: Access,
    ) {
        let now = line.now();
        let card = self.card.lock().unwrap().clone();
        let atr = || Atr::new(&card.answer_to_reset()).unwrap();
        let done = match event {
            ManagerEvent::Verify(_) if self.has(|faults| &faults.locked) => {
                flow.locked(now, Locked { seconds: LOCKED_FOR })
            }
            ManagerEvent::Consent => flow.consented(now, false),
            ManagerEvent::DistanceCheckFails(_) => {
                self.distances.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
            ManagerEvent::Verify(password) => {
                let verdict = self.passwords.verify(&password).unwrap();
                flow.verified(now, verdict, None)
            }
            ManagerEvent::List => {
                let label = Label::new("Test card").unwrap();
                flow.listed(vec![CardLine::new(CardId::new("bank").unwrap(), label, true, false)])
            }
            ManagerEvent::Take { card: wanted } if wanted == "bank" => {
                let rules = self.rules.lock().unwrap().clone();
                let policy =
                    Policy::new(rules, &CardLimits::default(), access, Usage::default()).unwrap();
                let label = Label::new("Test card").unwrap();
                flow.taken(now, Ok(CardTaken { lease: 5, seconds: 60, atr: atr(), label, policy }))
            }
            ManagerEvent::Take { .. } => flow.taken(now, Err("card-unknown")),
            ManagerEvent::Transmit { lease, command, .. } => {
                let mut card = card.clone();
                let working = tokio::task::spawn_blocking(move || card.transmit(&command));
                let answer = working.await.unwrap();
                flow.answered(lease, answer.as_deref())
            }
            ManagerEvent::Reset { lease } => {
                card.restart();
                flow.was_reset(lease, Ok(atr()))
            }
            ManagerEvent::Released { .. } => {
                card.restart();
                Ok(())
            }
            ManagerEvent::Sleep(times) => {
                let millis = |time: u32| Duration::from_millis(time.into());
                let times = Heartbeat { every: millis(times.every), within: millis(times.within) };
                line.machine().watch(now, times).unwrap();
                self.asleep.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
            ManagerEvent::Awake => {
                line.machine().wake().unwrap();
                self.asleep.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
            _ => Ok(()),
        };
        done.unwrap();
    }
}

/// Only the first application of the card.
pub(super) fn debit_only() -> Rules {
    let aid: String = AID_DEBIT.iter().map(|byte| format!("{byte:02X}")).collect();
    Rules::emv(vec![aid.parse().unwrap()])
}
