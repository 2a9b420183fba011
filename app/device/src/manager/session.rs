//! One paired sleeve's session (A4–A6, A8): what its flow asks for is done here.
//!
//! Everything that takes long (hashes, cards) goes on beside the channel, which is listened to all
//! the while: who goes, is revoked or falls silent is gone at once. What was sent to a card is
//! written to the audit also if nobody is left to hear the answer; it is never sent again.

mod work;

use std::sync::Arc;
use std::time::Duration;

use countersign_channel::{
    Error, Heartbeat, ManagerChannel, ManagerEvent as ChannelEvent, Protection,
};
use countersign_crypto::UnixTime;
use countersign_net::{Connection, NetError, Next, Transport};
use countersign_wallet::audit::Entry;
use countersign_wallet::flow::{CONSENT_PATIENCE, ManagerEvent, ManagerFlow, Output, Terms};
use countersign_wallet::login::Access;
use countersign_wallet::message::{CheckName, ManagerMessage, Times};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::contact::check_of;
use super::{Consent, ManagerError, ManagerHappening, Route, SESSIONS_MAX, Shared, There};
use work::{Done, Holding};

/// Words to a session that wait.
const CONTROLS_LEN: usize = 8;
/// How long a sleeve that was told of the end may take to go: what it is told is not lost to a
/// connection that is torn down.
const LINGER: Duration = Duration::from_secs(1);

/// What others tell a session.
#[derive(Debug)]
pub(super) enum Control {
    /// The owner's word.
    Consent(bool),
    /// The owner wants the card of this lease back.
    Recall(u64),
}

/// A session.
pub(super) struct Session<T> {
    shared: Arc<Shared>,
    link: Connection<ManagerChannel, T>,
    flow: ManagerFlow,
    number: u32,
    sleeve: String,
    way: Route,
    controls: mpsc::Receiver<Control>,
    end: watch::Receiver<Option<&'static str>>,
    work: Option<JoinHandle<Done>>,
    /// Once logged in.
    access: Option<Access>,
    /// An answer to a login is on its way out.
    answers_login: bool,
    asks_consent: bool,
    card: Option<Holding>,
    asleep: bool,
    idle_at: UnixTime,
}

/// Why a session is over; the sleeve knows it, or is gone.
type Over = String;

impl There {
    /// Ends it, for the first reason that is given.
    pub(super) fn end(&self, check: &'static str) {
        self.end.send_if_modified(|end| end.replace(end.unwrap_or(check)).is_none());
    }
}

impl super::Sessions {
    pub(super) const fn next_number(&mut self) -> u32 {
        self.number = self.number.wrapping_add(1);
        self.number
    }

    pub(super) fn end_all_of(&self, sleeve: &str, check: &'static str) {
        let of_sleeve = self.there.values().filter(|there| there.sleeve == sleeve);
        of_sleeve.for_each(|there| there.end(check));
    }
}

impl<T: Transport> Session<T> {
    /// Lets a sleeve in that has proven itself. A session that it had before is over: its link was
    /// lost, or will be.
    ///
    /// # Errors
    /// The link, where there are as many sessions as there may be.
    pub(super) fn enter(
        shared: Arc<Shared>,
        mut link: Connection<ManagerChannel, T>,
        (number, sleeve): (u32, String),
        way: Route,
    ) -> Result<Self, Box<Connection<ManagerChannel, T>>> {
        let (control, controls) = mpsc::channel(CONTROLS_LEN);
        let (end, ended) = watch::channel(None);
        let there = There { sleeve: sleeve.clone(), control, end };
        {
            let mut sessions = shared.sessions();
            sessions.end_all_of(&sleeve, "session-replaced");
            if sessions.there.len() >= SESSIONS_MAX {
                return Err(Box::new(link));
            }
            sessions.there.insert(number, there);
        }
        // Whoever revokes it from here on finds it there.
        let revoked = shared.read_dir(|dir| dir.pairs.find(&sleeve).is_err());
        if let Some(there) = shared.sessions().there.get(&number) {
            if revoked {
                there.end("sleeve-revoked");
            } else if *shared.stopping.borrow() {
                there.end("manager-stopped");
            }
        }
        let now = shared.now();
        let protection = link.machine().policy().map(|policy| policy.protection);
        let terms = Terms {
            readable: !matches!(protection, Some(Protection::EncryptAndMac | Protection::Encrypt)),
            ask_consent: shared.settings.consent == Consent::Ask,
        };
        let idle_at = now.plus(shared.settings.idle());
        Ok(Self {
            flow: ManagerFlow::new(terms, now),
            shared,
            link,
            number,
            sleeve,
            way,
            controls,
            end: ended,
            work: None,
            access: None,
            answers_login: false,
            asks_consent: false,
            card: None,
            asleep: false,
            idle_at,
        })
    }

    /// Serves it to its end.
    pub(super) async fn serve(mut self) {
        let over = match self.begin().await {
            Ok(()) => self.run().await,
            Err(over) => over,
        };
        self.finish(over).await;
    }

    async fn begin(&mut self) -> Result<(), Over> {
        self.note(Entry::new("connect")).await?;
        let mode = self.link.machine().mode();
        let (session, sleeve, way) = (self.number, self.sleeve.clone(), self.way);
        self.shared.tell(ManagerHappening::Connected { session, sleeve, way, mode });
        Ok(())
    }

    async fn run(&mut self) -> Over {
        loop {
            if let Err(over) = self.step().await {
                return over;
            }
        }
    }

    /// Sends and does what the flow wants, then waits for what comes next.
    async fn step(&mut self) -> Result<(), Over> {
        while let Some(output) = self.flow.poll() {
            match output {
                Output::Send(bytes) => self.send(&bytes)?,
                Output::Event(event) => self.event(event).await?,
            }
        }
        self.flush().await?;
        self.look_at_lease().await?;
        let due = self.due();
        let Self { link, controls, end, work, .. } = self;
        tokio::select! {
            next = link.next(due) => self.heard(next).await,
            Some(control) = controls.recv() => self.control(control).await,
            check = told(end) => Err(self.tell_end(check)),
            done = finished(work) => {
                self.work = None;
                match done {
                    Some(done) => self.done(done).await,
                    None => Err(self.tell_end("internal")),
                }
            }
        }
    }

    /// When to look at the clock.
    fn due(&self) -> Option<UnixTime> {
        let idle = Some(self.idle_at).filter(|_| !self.asleep && self.work.is_none());
        let lease = self.card.as_ref().filter(|_| self.work.is_none());
        let lease = lease.and_then(|card| self.shared.desk.expires(card.lease));
        [self.flow.poll_timeout(), idle, lease].into_iter().flatten().min()
    }

    async fn heard(
        &mut self,
        next: Result<Next<ChannelEvent>, NetError<Error>>,
    ) -> Result<(), Over> {
        let now = self.shared.now();
        match next {
            Ok(Next::Event(ChannelEvent::Data(bytes))) => {
                self.idle_at = now.plus(self.shared.settings.idle());
                // What is wrong with it, the flow tells as its end.
                let _ended = self.flow.handle(now, &bytes);
                Ok(())
            }
            Ok(Next::Event(ChannelEvent::Closed) | Next::Ended) => Err("closed".to_owned()),
            Ok(Next::Event(_)) => Ok(()),
            Ok(Next::Deadline) => self.late(now).await,
            Err(error) => Err(check_of(&error).to_owned()),
        }
    }

    async fn late(&mut self, now: UnixTime) -> Result<(), Over> {
        if !self.asleep && self.work.is_none() && now >= self.idle_at {
            return Err(self.tell_end("idle"));
        }
        let flow_is_due = self.flow.poll_timeout().is_some_and(|due| now >= due);
        if flow_is_due && self.asks_consent {
            return self.consented(false).await;
        }
        let _ended = self.flow.handle_timeout(now);
        Ok(())
    }

    async fn control(&mut self, control: Control) -> Result<(), Over> {
        match control {
            Control::Consent(yes) if self.asks_consent => self.consented(yes).await,
            Control::Consent(_) => {
                let check = "consent-not-asked".to_owned();
                let detail = format!("session {} does not ask", self.number);
                self.shared.tell(ManagerHappening::Refused { check, detail });
                Ok(())
            }
            Control::Recall(lease) => {
                if let Some(card) = self.card.as_mut().filter(|card| card.lease == lease) {
                    card.over = Some("card-recalled");
                }
                Ok(())
            }
        }
    }

    async fn consented(&mut self, yes: bool) -> Result<(), Over> {
        self.asks_consent = false;
        let now = self.shared.now();
        // As the flow sees it: a word that comes too late is a no.
        let yes = yes && self.flow.poll_timeout().is_some_and(|due| now < due);
        let outcome = Some(if yes { "yes" } else { "no" }.to_owned());
        self.note(Entry { outcome, ..Entry::new("consent") }).await?;
        let _never = self.flow.consented(now, yes);
        if !yes {
            self.shared.tell(ManagerHappening::Declined { session: self.number });
        }
        Ok(())
    }

    async fn event(&mut self, event: ManagerEvent) -> Result<(), Over> {
        match event {
            ManagerEvent::Verify(password) => self.verify(password),
            ManagerEvent::Consent => {
                self.asks_consent = true;
                let seconds = CONSENT_PATIENCE.as_secs() as u32;
                let session = self.number;
                self.shared.tell(ManagerHappening::ConsentAsked { session, seconds });
            }
            ManagerEvent::LoggedIn(access) => {
                // Nothing looks at the access before the answer has left.
                self.flush().await?;
                self.access = Some(access);
                self.shared.tell(ManagerHappening::LoggedIn { session: self.number });
            }
            ManagerEvent::List | ManagerEvent::Take { .. } if self.access.is_none() => {
                return Err(self.tell_end("internal"));
            }
            ManagerEvent::List => self.list(),
            ManagerEvent::Take { card } => self.take(card),
            ManagerEvent::Transmit { lease, command, usage } => {
                self.transmit(lease, command, usage).await?;
            }
            ManagerEvent::Reset { lease } => self.reset(lease).await?,
            ManagerEvent::Exchanged { exchange, usage, .. } => {
                self.exchanged(&exchange, usage).await?;
            }
            ManagerEvent::Released { .. } => self.release("released").await?,
            ManagerEvent::Sleep(times) => self.sleep(times)?,
            ManagerEvent::Awake => {
                self.asleep = false;
                let _not_open = self.link.machine().wake();
                self.shared.tell(ManagerHappening::Awake { session: self.number });
            }
            ManagerEvent::DistanceCheckFails(_) => {
                self.note(self.of_card("distance")).await?;
                if let Some(card) = self.card.as_ref().map(|card| card.card.clone()) {
                    let session = self.number;
                    self.shared.tell(ManagerHappening::DistanceCheckFails { session, card });
                }
            }
            ManagerEvent::Ended { check } => return Err(check),
        }
        Ok(())
    }

    /// A6: from now on the sleeve probes, and silence ends the session.
    fn sleep(&mut self, times: Times) -> Result<(), Over> {
        let ms = |ms: u32| Duration::from_millis(ms.into());
        let times = Heartbeat { every: ms(times.every), within: ms(times.within) };
        let now = self.shared.now();
        let fits = times.every + times.within <= self.shared.settings.silence_max();
        if !fits || self.link.machine().watch(now, times).is_err() {
            return Err(self.tell_end("sleep-times"));
        }
        self.asleep = true;
        self.shared.tell(ManagerHappening::Asleep { session: self.number });
        Ok(())
    }

    /// Nothing is answered any more; what was begun is written down.
    async fn finish(mut self, over: Over) {
        let _dead = self.link.machine().close();
        let _gone = self.link.flush().await;
        if let Some(work) = self.work.take()
            && let Ok(done) = work.await
        {
            self.done_late(done).await;
        }
        let _failed = self.release("session-ended").await;
        let entry = Entry { check: Some(over.clone()), ..Entry::new("end") };
        let _failed = self.note(entry).await;
        self.shared.sessions().there.remove(&self.number);
        let (session, sleeve, check) = (self.number, self.sleeve.clone(), over);
        self.shared.tell(ManagerHappening::Ended { session, sleeve, check });
        let gone = async {
            while let Ok(Next::Event(event)) = self.link.next(None).await {
                if matches!(event, ChannelEvent::Closed) {
                    return;
                }
            }
        };
        let _stays = timeout(LINGER, gone).await;
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Over> {
        // Before the login nothing is sent but its answers, and the end.
        self.answers_login |= self.access.is_none();
        self.link.machine().send(bytes).map_err(|error| error.check().to_owned())
    }

    async fn flush(&mut self) -> Result<(), Over> {
        self.link.flush().await.map_err(|error| check_of(&error).to_owned())?;
        if std::mem::take(&mut self.answers_login) {
            self.shared.alarms.notify_one();
        }
        Ok(())
    }

    /// Tells the sleeve of the end. What is under way with a card comes to its end without it.
    fn tell_end(&mut self, check: &str) -> Over {
        let told = ManagerMessage::Ended(CheckName::clipped(check)).encode();
        let _gone = self.link.machine().send(&told);
        check.to_owned()
    }

    /// This program cannot go on with it.
    fn failed(&mut self, error: &ManagerError) -> Over {
        tracing::warn!(session = self.number, %error, "a session is given up");
        self.tell_end(error.check())
    }

    /// Writes to the audit. Where that fails nothing of the session goes on.
    async fn note(&mut self, entry: Entry) -> Result<(), Over> {
        let noted = self.shared.note(self.of_session(entry)).await;
        noted.map_err(|error| self.failed(&error))
    }

    async fn note_soon(&mut self, entry: Entry) -> Result<(), Over> {
        let noted = self.shared.note_soon(self.of_session(entry)).await;
        noted.map_err(|error| self.failed(&error))
    }

    fn of_session(&self, entry: Entry) -> Entry {
        let (sleeve, session) = (Some(self.sleeve.clone()), Some(self.number.to_string()));
        Entry { sleeve, session, ..entry }
    }

    fn of_card(&self, event: &str) -> Entry {
        Entry { card: self.card_id(), ..Entry::new(event) }
    }

    fn card_id(&self) -> Option<String> {
        self.card.as_ref().map(|card| card.card.clone())
    }

    fn card_name(&self) -> String {
        self.card_id().unwrap_or_default()
    }
}

/// The work's end; never, where there is none.
async fn finished(work: &mut Option<JoinHandle<Done>>) -> Option<Done> {
    match work {
        Some(work) => work.await.ok(),
        None => std::future::pending().await,
    }
}

/// Waits for the word that the session is over.
async fn told(end: &mut watch::Receiver<Option<&'static str>>) -> &'static str {
    let told = end.wait_for(Option::is_some).await;
    told.ok().and_then(|end| *end).unwrap_or("internal")
}
