//! A session with the manager, from login to its end: a task that has the channel, and the handle
//! that asks it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use countersign_channel::{Event, Heartbeat, Mode, Policy, Protection};
use countersign_crypto::{Secret, Suite};
use countersign_wallet::flow::{FlowError, Output, SleeveEvent, SleeveFlow};
use countersign_wallet::message::{
    CardId, CardLine, Limits, LoginOutcome, LoginResult, Taken, Times,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::SleeveError;
use super::card::RelayedCard;
use super::wire::{Arrived, STALLED, Wire, lost};

/// Requests that wait for the one before them.
const WAITING_MAX: usize = 16;
/// What happened and was not looked at; what is more is dropped, but not the session's end.
const HAPPENINGS_MAX: usize = 64;

/// What happens to a session by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SleeveHappening {
    /// The card is gone: its lease ended, or it was pulled at home.
    CardLost {
        /// Why.
        check: String,
    },
    /// The terminal measured, or could have measured, that the card is not where it seems to be.
    /// Its answer went on unaltered.
    DistanceCheckFails {
        /// How long the exchange took here.
        measured: Duration,
        /// The longest that the card says it takes.
        allowed: Duration,
    },
    /// The session is over, its keys are wiped, and its card is gone. The last happening.
    Lost {
        /// Why.
        check: String,
        /// Where the manager's owner finds more.
        incident: Option<String>,
    },
}

/// A card that a session has taken.
#[derive(Debug, Clone)]
pub struct TakenCard {
    /// The lease.
    pub lease: u64,
    /// What the card is called.
    pub label: String,
    /// The real card's answer to reset.
    pub atr: Vec<u8>,
    /// How long the lease lasts unless the card is used.
    pub lasts: Duration,
    /// What the card may be used for.
    pub limits: Limits,
    pub(super) gone: Arc<AtomicBool>,
}

/// What a session is asked for.
pub(super) enum Wish {
    Login(Secret),
    List,
    Take(CardId),
    Transmit(Zeroizing<Vec<u8>>),
    Reset,
    Release,
    Probe,
    Sleep(Heartbeat),
    Wake,
}

/// What it says to that.
pub(super) enum Answer {
    Login(LoginResult),
    Cards(Vec<CardLine>),
    Taken(TakenCard),
    Response(Zeroizing<Vec<u8>>),
    WasReset(Vec<u8>),
    Probed(Duration),
    Done,
}

type Reply = oneshot::Sender<Result<Answer, SleeveError>>;

/// A session with a manager: a handle, and the session ends when the last one is dropped.
///
/// Requests are answered one after the other. Once the session has ended, each fails with
/// [`SleeveError::Ended`]; a new session begins with [`Sleeve::connect`](super::Sleeve::connect).
#[derive(Clone)]
pub struct SleeveSession {
    wishes: mpsc::Sender<(Wish, Reply)>,
    closing: Arc<watch::Sender<bool>>,
    facts: Arc<Facts>,
}

/// What stays the same, and how it ended.
struct Facts {
    manager: String,
    mode: Mode,
    suite: Suite,
    policy: Policy,
    ended: OnceLock<(String, Option<String>)>,
    /// Set when the card is gone; the card that is taken, if one is.
    card: Mutex<Option<Arc<AtomicBool>>>,
}

impl SleeveSession {
    /// Begins on a confirmed channel.
    pub(super) fn start(
        mut wire: Wire,
        manager: String,
    ) -> (Self, mpsc::Receiver<SleeveHappening>) {
        let channel = wire.channel();
        let policy = channel.policy().unwrap_or_default();
        let facts = Arc::new(Facts {
            manager,
            mode: channel.mode(),
            suite: channel.suite().unwrap_or(Suite::X25519_P256_AES128GCM_SHA256),
            policy,
            ended: OnceLock::new(),
            card: Mutex::new(None),
        });
        let (wishes, wished) = mpsc::channel(WAITING_MAX);
        let (closing, closed) = watch::channel(false);
        let (happenings, happened) = mpsc::channel(HAPPENINGS_MAX);
        let readable = policy.protection == Protection::Mac;
        let task = Task {
            wire,
            flow: SleeveFlow::new(readable),
            wishes: wished,
            closing: closed,
            happenings: happenings.clone(),
            facts: facts.clone(),
            asked: None,
            begun: Instant::now(),
        };
        tokio::spawn(task.run(happenings));
        (Self { wishes, closing: Arc::new(closing), facts }, happened)
    }

    /// The manager's certified id.
    #[must_use]
    pub fn manager(&self) -> &str {
        &self.facts.manager
    }

    /// The handshake: A2 or A3.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.facts.mode
    }

    /// The suite agreed on.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.facts.suite
    }

    /// The protection agreed on (A7).
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.facts.policy
    }

    /// How the session ended, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<SleeveError> {
        let (check, incident) = self.facts.ended.get()?.clone();
        Some(SleeveError::Ended { check, incident })
    }

    /// Logs in (A4). Whether the password is the alarm password shows nowhere (A5).
    ///
    /// # Errors
    /// [`SleeveError::Ended`]; [`SleeveError::Misuse`] after a login that succeeded, for what can
    /// be no password, and, as `login-readable`, under a MAC-only policy.
    pub async fn login(&self, password: Secret) -> Result<LoginResult, SleeveError> {
        self.ask(Wish::Login(password), |answer| match answer {
            Answer::Login(result) => Some(result),
            _ => None,
        })
        .await
    }

    /// The cards that this session may take.
    ///
    /// # Errors
    /// [`SleeveError`].
    pub async fn list(&self) -> Result<Vec<CardLine>, SleeveError> {
        self.ask(Wish::List, |answer| match answer {
            Answer::Cards(cards) => Some(cards),
            _ => None,
        })
        .await
    }

    /// Takes a card: from here on it is this sleeve's alone, until it is released or its lease or
    /// the session ends.
    ///
    /// # Errors
    /// [`SleeveError::Refused`] with the manager's reason; else as [`Self::list`].
    pub async fn take(&self, card: &str) -> Result<TakenCard, SleeveError> {
        let id = CardId::new(card).filter(|id| !id.is_empty());
        let id = id.ok_or(SleeveError::Misuse("no card has such an id"))?;
        self.ask(Wish::Take(id), |answer| match answer {
            Answer::Taken(taken) => Some(taken),
            _ => None,
        })
        .await
    }

    /// Gives the card back.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub async fn release(&self) -> Result<(), SleeveError> {
        self.ask(Wish::Release, done).await
    }

    /// Measures how long a question to the manager and its answer take.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub async fn probe(&self) -> Result<Duration, SleeveError> {
        self.ask(Wish::Probe, |answer| match answer {
            Answer::Probed(time) => Some(time),
            _ => None,
        })
        .await
    }

    /// Begins sleep mode (A6): a probe every *t1*; without an answer within *t2* the session ends
    /// and its keys are wiped.
    ///
    /// # Errors
    /// As [`Self::list`]; [`SleeveError::Misuse`] for times that are none.
    pub async fn sleep(&self, times: Heartbeat) -> Result<(), SleeveError> {
        self.ask(Wish::Sleep(times), done).await
    }

    /// Ends sleep mode.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub async fn wake(&self) -> Result<(), SleeveError> {
        self.ask(Wish::Wake, done).await
    }

    /// Sends one command to the card and gives its response, once and never again.
    ///
    /// # Errors
    /// [`SleeveError::Refused`] if the manager's policy refused it: it did not reach the card,
    /// which is still there. Else the card is gone, and what became of the command is not known.
    pub async fn transmit(&self, command: &[u8]) -> Result<Zeroizing<Vec<u8>>, SleeveError> {
        let wish = Wish::Transmit(Zeroizing::new(command.to_vec()));
        self.ask(wish, response).await
    }

    /// Resets the card; gives its answer to reset.
    ///
    /// # Errors
    /// As [`Self::transmit`].
    pub async fn reset(&self) -> Result<Vec<u8>, SleeveError> {
        self.ask(Wish::Reset, was_reset).await
    }

    /// The card, for a reader.
    #[must_use]
    pub fn card(&self, taken: &TakenCard) -> RelayedCard {
        RelayedCard::new(self.clone(), taken)
    }

    /// Ends the session, and returns when it has ended.
    pub async fn close(&self) {
        let _ended = self.closing.send(true);
        self.wishes.closed().await;
    }

    async fn ask<T>(
        &self,
        wish: Wish,
        pick: impl FnOnce(Answer) -> Option<T>,
    ) -> Result<T, SleeveError> {
        let (reply, replied) = oneshot::channel();
        let sent = self.wishes.send((wish, reply)).await;
        let answer = match sent {
            Ok(()) => replied.await.unwrap_or_else(|_| Err(self.over())),
            Err(_) => Err(self.over()),
        };
        pick(answer?).ok_or(SleeveError::Protocol)
    }

    /// The same for a thread that may block.
    pub(super) fn ask_blocking<T>(
        &self,
        wish: Wish,
        pick: impl FnOnce(Answer) -> Option<T>,
    ) -> Result<T, SleeveError> {
        let (reply, replied) = oneshot::channel();
        let answer = match self.wishes.blocking_send((wish, reply)) {
            Ok(()) => replied.blocking_recv().unwrap_or_else(|_| Err(self.over())),
            Err(_) => Err(self.over()),
        };
        pick(answer?).ok_or(SleeveError::Protocol)
    }

    fn over(&self) -> SleeveError {
        self.ended().unwrap_or_else(|| lost("closed"))
    }
}

impl fmt::Debug for SleeveSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SleeveSession")
            .field("manager", &self.facts.manager)
            .finish_non_exhaustive()
    }
}

fn done(answer: Answer) -> Option<()> {
    matches!(answer, Answer::Done).then_some(())
}

pub(super) fn response(answer: Answer) -> Option<Zeroizing<Vec<u8>>> {
    match answer {
        Answer::Response(response) => Some(response),
        _ => None,
    }
}

pub(super) fn was_reset(answer: Answer) -> Option<Vec<u8>> {
    match answer {
        Answer::WasReset(atr) => Some(atr),
        _ => None,
    }
}

impl Facts {
    /// The card is gone: readers and terminals see it on their next look.
    fn lose_card(&self) {
        let mut card = self.card.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gone) = card.take() {
            gone.store(true, Ordering::SeqCst);
        }
    }

    fn has_card(&self, gone: &Arc<AtomicBool>) {
        self.lose_card();
        *self.card.lock().unwrap_or_else(PoisonError::into_inner) = Some(gone.clone());
    }
}

/// The task that has the channel.
struct Task {
    wire: Wire,
    flow: SleeveFlow,
    wishes: mpsc::Receiver<(Wish, Reply)>,
    closing: watch::Receiver<bool>,
    happenings: mpsc::Sender<SleeveHappening>,
    facts: Arc<Facts>,
    /// Who waits for the answer to the request under way.
    asked: Option<Reply>,
    begun: Instant,
}

/// What a turn of the loop led to.
enum Turn {
    Goes,
    Over(SleeveError),
}

/// What the task waited for.
enum Next {
    Close,
    Wish((Wish, Reply)),
    Arrived(Arrived),
}

impl Task {
    async fn run(mut self, last: mpsc::Sender<SleeveHappening>) {
        let ended = loop {
            match self.turn().await {
                Ok(Turn::Goes) => {}
                Ok(Turn::Over(error)) => break error.ended(),
                Err(error) => break error.ended(),
            }
        };
        // The card first: whoever is told that the session is over finds it gone.
        self.facts.lose_card();
        let told = (ended.check().to_owned(), ended.incident().map(str::to_owned));
        let _once = self.facts.ended.set(told.clone());
        let (check, incident) = told;
        if let Some(reply) = self.asked.take() {
            let _gone = reply.send(Err(ended));
        }
        if check != STALLED {
            self.wire.close().await;
        }
        drop(self); // and with it the channel's keys
        // Nobody may be looking: that is no reason to wait for room.
        let _full = last.try_send(SleeveHappening::Lost { check, incident });
    }

    async fn turn(&mut self) -> Result<Turn, SleeveError> {
        while let Some(output) = self.flow.poll() {
            match output {
                Output::Send(message) => {
                    self.wire.channel().send(&message).map_err(SleeveError::Channel)?;
                }
                Output::Event(event) => {
                    if let Some(error) = self.happened(event) {
                        return Ok(Turn::Over(error));
                    }
                }
            }
        }
        self.wire.flush().await?;
        if let Some(event) = self.wire.channel().poll_event() {
            let now = self.wire.now();
            return match event {
                // What the flow refuses, it also tells, as its end.
                Event::Data(data) => {
                    let _dead = self.flow.handle(now, &data);
                    Ok(Turn::Goes)
                }
                Event::Closed => Ok(Turn::Over(lost("closed"))),
                Event::Ask(_) | Event::Connected => Err(SleeveError::Protocol),
            };
        }
        let idle = self.asked.is_none();
        let due = self.flow.poll_timeout();
        let next = tokio::select! {
            biased;
            _closing = self.closing.wait_for(|closing| *closing) => Next::Close,
            wish = self.wishes.recv(), if idle => wish.map_or(Next::Close, Next::Wish),
            arrived = self.wire.arrive(due) => Next::Arrived(arrived?),
        };
        match next {
            Next::Close => return Ok(Turn::Over(lost("closed"))),
            Next::Wish((wish, reply)) => self.begin(wish, reply),
            Next::Arrived(Arrived::Something) => {}
            Next::Arrived(Arrived::Deadline) => {
                // What the flow refuses, it also tells, as its end.
                let _dead = self.flow.handle_timeout(self.wire.now());
            }
            Next::Arrived(Arrived::End) => return Ok(Turn::Over(lost("connection-cut"))),
        }
        Ok(Turn::Goes)
    }

    fn begin(&mut self, wish: Wish, reply: Reply) {
        let now = self.wire.now();
        self.begun = Instant::now();
        let begun = match wish {
            Wish::Login(password) => self.flow.login(now, &password),
            Wish::List => self.flow.list(now),
            Wish::Take(card) => self.flow.take(now, &card),
            Wish::Transmit(command) => self.flow.transmit(now, &command),
            Wish::Reset => self.flow.reset(now),
            Wish::Release => self.flow.release(now),
            Wish::Probe => self.flow.probe(now),
            Wish::Sleep(times) => {
                let _gone = reply.send(self.sleep(times).map(|()| Answer::Done));
                return;
            }
            Wish::Wake => {
                let woken = self.flow.wake().map_err(refused);
                let woken =
                    woken.and_then(|()| self.wire.channel().wake().map_err(SleeveError::Channel));
                let _gone = reply.send(woken.map(|()| Answer::Done));
                return;
            }
        };
        match begun {
            Ok(()) => self.asked = Some(reply),
            Err(error) => {
                let _gone = reply.send(Err(refused(error)));
            }
        }
    }

    /// The manager is told first, and so watches by the time the first probe is late.
    fn sleep(&mut self, times: Heartbeat) -> Result<(), SleeveError> {
        let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let (every, within) = (millis(times.every), millis(times.within));
        self.flow.sleep(Times { every, within }).map_err(refused)?;
        while let Some(message) = self.flow.poll_transmit() {
            self.wire.channel().send(&message).map_err(SleeveError::Channel)?;
        }
        let (channel, now, _) = self.wire.parts();
        channel.sleep(now, times).map_err(SleeveError::Channel)
    }

    /// Does what the flow tells; an error is the session's end.
    fn happened(&mut self, event: SleeveEvent) -> Option<SleeveError> {
        match event {
            SleeveEvent::LoggedIn => {
                let result = LoginResult { outcome: LoginOutcome::Ok, seconds: 0 };
                self.answer(Answer::Login(result));
            }
            SleeveEvent::LoginRefused { outcome, seconds } => {
                self.answer(Answer::Login(LoginResult { outcome, seconds }));
            }
            SleeveEvent::Cards(cards) => self.answer(Answer::Cards(cards)),
            SleeveEvent::Taken(taken) => self.taken(&taken),
            SleeveEvent::Answer(response) => self.answer(Answer::Response(response)),
            SleeveEvent::WasReset(atr) => self.answer(Answer::WasReset(atr.as_slice().to_vec())),
            SleeveEvent::Refused { check } => self.reply(Err(SleeveError::Refused(check))),
            SleeveEvent::Released => {
                self.facts.lose_card();
                self.answer(Answer::Done);
            }
            // By our own stopwatch, which is finer than the clock.
            SleeveEvent::Probed(_) => self.answer(Answer::Probed(self.begun.elapsed())),
            SleeveEvent::CardLost { check } => {
                self.facts.lose_card();
                // A request that is still under way is one for another matter.
                if !self.flow.is_busy() {
                    self.reply(Err(SleeveError::Refused(check.clone())));
                }
                self.tell(SleeveHappening::CardLost { check });
            }
            SleeveEvent::DistanceCheckFails(fails) => {
                let tenths = |units: u64| Duration::from_micros(units.saturating_mul(100));
                self.tell(SleeveHappening::DistanceCheckFails {
                    measured: tenths(fails.measured.into()),
                    allowed: tenths(fails.maximum.into()),
                });
            }
            SleeveEvent::Ended { check } => return Some(lost(&check)),
        }
        None
    }

    fn taken(&mut self, taken: &Taken) {
        let gone = Arc::new(AtomicBool::new(false));
        self.facts.has_card(&gone);
        self.answer(Answer::Taken(TakenCard {
            lease: taken.lease,
            label: taken.label.as_str().to_owned(),
            atr: taken.atr.as_slice().to_vec(),
            lasts: Duration::from_secs(taken.seconds.into()),
            limits: taken.limits,
            gone,
        }));
    }

    fn answer(&mut self, answer: Answer) {
        self.reply(Ok(answer));
    }

    fn reply(&mut self, answer: Result<Answer, SleeveError>) {
        if let Some(reply) = self.asked.take() {
            // Who asked may have gone.
            let _gone = reply.send(answer);
        }
    }

    fn tell(&self, happening: SleeveHappening) {
        let _full = self.happenings.try_send(happening);
    }
}

/// The flow did not begin what was asked.
fn refused(error: FlowError) -> SleeveError {
    match error {
        FlowError::Readable => SleeveError::Refused(error.check().to_owned()),
        FlowError::Dead => lost("closed"),
        _ => SleeveError::Misuse("not now: no login, no card, or not what it takes"),
    }
}
