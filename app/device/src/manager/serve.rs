//! Serving: where contacts come from, how many there may be, and what the owner orders.

use std::collections::BTreeMap;
use std::future::pending;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_wallet::audit::Entry;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::contact::Contact;
use super::session::Control;
use super::{
    CONTACTS_MAX, CONTACTS_PER_SOURCE_MAX, Manager, ManagerError, ManagerHappening, ManagerOrder,
    Route, Shared, WINDOW_MAX_SECONDS, alarms, on_disk,
};
use crate::{LinkStatus, RelayError, RelayLink};

/// Contacts that have come and were not looked at yet.
const ENTRANCE_LEN: usize = 16;
/// Sleeves that the relay has brought and nobody has taken yet.
const INCOMING_LEN: usize = 8;
/// Alarms on their way from the files to the relay.
const ALARMS_LEN: usize = 8;
/// How long sessions have to end when the manager stops.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How long after a line, or the first of some, the audit's end is signed anew.
const SIGN_AFTER: Duration = Duration::from_millis(50);
/// A listener that failed is asked again after this: too many open files pass.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Octets of an IPv6 address that one network has to itself.
const IPV6_NETWORK: usize = 8;

/// Where a contact comes from: what its challenge is tied to, and whom it is counted with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// This address of the network.
    Address(IpAddr),
    /// The server's relay, which has authenticated a sleeve with this serial number.
    Relay {
        /// The serial number.
        sleeve: String,
    },
}

impl Origin {
    const fn way(&self) -> Route {
        match self {
            Self::Address(_) => Route::Direct,
            Self::Relay { .. } => Route::Relay,
        }
    }

    /// The bytes that tell it apart: with its mark, a serial number is longer than any address.
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Address(IpAddr::V4(ip)) => ip.octets().to_vec(),
            Self::Address(IpAddr::V6(ip)) => ip.octets().to_vec(),
            Self::Relay { sleeve } => [&b"sleeve at the relay: "[..], sleeve.as_bytes()].concat(),
        }
    }

    /// Whom it is counted with.
    fn source(&self) -> Vec<u8> {
        let mut source = self.bytes();
        if let Self::Address(IpAddr::V6(_)) = self {
            source.truncate(IPV6_NETWORK);
        }
        source
    }
}

/// A byte stream to a sleeve.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A contact that has come.
struct Came {
    stream: Box<dyn Stream>,
    origin: Origin,
}

/// The door of a manager; cheap to clone.
#[derive(Debug, Clone)]
pub struct Entrance(mpsc::Sender<Came>);

impl Entrance {
    /// Brings a sleeve's stream in; whether the manager still serves. Waits while others are let
    /// in. What the sleeve is told it is told over the stream.
    pub async fn enter(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        origin: Origin,
    ) -> bool {
        self.0.send(Came { stream: Box::new(stream), origin }).await.is_ok()
    }
}

/// A contact that may try.
#[derive(Debug)]
pub(super) struct Admitted {
    /// What its challenge is tied to.
    pub(super) address: Vec<u8>,
    /// Its number, a session's later.
    pub(super) number: u32,
    pub(super) way: Route,
    /// Who it is, as the server's relay says.
    pub(super) relayed: Option<String>,
}

/// Contacts that have not proven themselves yet, by their source.
type Sources = Arc<Mutex<BTreeMap<Vec<u8>, usize>>>;

/// The place of a contact that has not proven itself yet, until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    source: Vec<u8>,
    sources: Sources,
    _place: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = sources.get_mut(&self.source) {
            *there -= 1;
            if *there == 0 {
                sources.remove(&self.source);
            }
        }
    }
}

/// What comes through the [`Entrance`], and how much of it at once.
pub(super) struct Contacts {
    coming: mpsc::Receiver<Came>,
    places: Arc<Semaphore>,
    sources: Sources,
}

impl Contacts {
    pub(super) fn new() -> (Self, Entrance) {
        let (entrance, coming) = mpsc::channel(ENTRANCE_LEN);
        let places = Arc::new(Semaphore::new(CONTACTS_MAX));
        (Self { coming, places, sources: Sources::default() }, Entrance(entrance))
    }

    /// A place for one more, if there is one.
    fn place(&self, origin: &Origin) -> Option<Place> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        let source = origin.source();
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let there = sources.entry(source.clone()).or_default();
        if *there >= CONTACTS_PER_SOURCE_MAX {
            return None;
        }
        *there += 1;
        Some(Place { source, sources: self.sources.clone(), _place: place })
    }
}

impl Manager {
    /// Serves until its owner orders [`ManagerOrder::Stop`], or nobody can order anything any more.
    /// What happens is told, not waited for: what `happenings` has no room for is lost.
    ///
    /// # Errors
    /// [`ManagerError::Listen`]; [`ManagerError::Relay`] if the relay is the only way in and is
    /// closed for good (blocked, revoked, not enrolled); those of the audit and of files.
    pub async fn serve(
        self,
        mut orders: mpsc::Receiver<ManagerOrder>,
        happenings: mpsc::Sender<ManagerHappening>,
    ) -> Result<(), ManagerError> {
        let Self { shared, mut contacts, alarms } = self;
        *shared.events.lock().unwrap_or_else(PoisonError::into_inner) = Some(happenings);
        let mut ways = Ways::open(&shared, alarms).await?;
        let mut guests = JoinSet::new();
        let served = loop {
            tokio::select! {
                order = orders.recv() => match order {
                    None | Some(ManagerOrder::Stop) => break Ok(()),
                    Some(order) => shared.obey(order).await,
                },
                Some(came) = contacts.coming.recv() => {
                    if let Some((contact, place)) = shared.admit(&contacts, came) {
                        guests.spawn(contact.serve(place));
                    }
                }
                Some(_gone) = guests.join_next() => {}
                () = shared.window_is_over() => {}
                closed = ways.closed() => {
                    if let Err(error) = closed {
                        break Err(error);
                    }
                }
            }
        };
        ways.tasks.shutdown().await;
        shared.stopping.send_replace(true);
        shared.sessions().there.values().for_each(|there| there.end("manager-stopped"));
        let leave = async { while guests.join_next().await.is_some() {} };
        if timeout(STOP_PATIENCE, leave).await.is_err() {
            guests.shutdown().await;
        }
        let signing = shared.clone();
        let signed = on_disk(move || signing.sign_audit()).await;
        *shared.events.lock().unwrap_or_else(PoisonError::into_inner) = None;
        served.and(signed)
    }
}

/// What goes on beside the contacts, and whether anybody can still come.
struct Ways {
    /// Each ends only where it cannot go on.
    tasks: JoinSet<Option<RelayError>>,
    listens: bool,
}

impl Ways {
    async fn open(
        shared: &Arc<Shared>,
        alarms: Option<mpsc::Sender<crate::RaisedAlarm>>,
    ) -> Result<Self, ManagerError> {
        let mut tasks = JoinSet::new();
        let settings = &shared.settings;
        if let Some(at) = &settings.listen {
            let failed = |source| ManagerError::Listen { at: at.clone(), source };
            let listener = TcpListener::bind(at).await.map_err(failed)?;
            let at = listener.local_addr().map_err(failed)?;
            shared.tell(ManagerHappening::Listening { at });
            tasks.spawn(listen(shared.clone(), listener));
        }
        let (raise, raised) = mpsc::channel(ALARMS_LEN);
        let mut raise = Some(raise).filter(|_| settings.gateway.is_some());
        raise = alarms.or(raise);
        if let Some(gateway) = &settings.gateway {
            let (clock, rng) = (shared.clock.clone(), shared.rng.clone());
            let link = shared.read_dir(|dir| RelayLink::new(dir.device(), gateway, clock, rng))?;
            tasks.spawn(through_relay(shared.clone(), link, raised));
        }
        if let Some(raise) = raise {
            let raising = shared.clone();
            tasks.spawn(async move {
                alarms::raise(raising, raise).await;
                None
            });
        }
        tasks.spawn(sign(shared.clone()));
        Ok(Self { tasks, listens: settings.listen.is_some() })
    }

    /// Waits until a task cannot go on; an error if nobody can come any more.
    async fn closed(&mut self) -> Result<(), ManagerError> {
        match self.tasks.join_next().await {
            None => pending().await,
            Some(Ok(Some(error))) if !self.listens => Err(error.into()),
            Some(Ok(_)) => Ok(()),
            Some(Err(_panicked)) => Err(ManagerError::Task),
        }
    }
}

/// Lets sleeves of this network in.
async fn listen(shared: Arc<Shared>, listener: TcpListener) -> Option<RelayError> {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let _slower = stream.set_nodelay(true);
                let origin = Origin::Address(peer.ip().to_canonical());
                if !shared.entrance.enter(stream, origin).await {
                    return None;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a sleeve could not be let in");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// Lets sleeves in that come through the server, and alarms out.
async fn through_relay(
    shared: Arc<Shared>,
    link: RelayLink,
    alarms: mpsc::Receiver<crate::RaisedAlarm>,
) -> Option<RelayError> {
    let (bring, mut coming) = mpsc::channel(INCOMING_LEN);
    let (tell, mut status) = watch::channel(LinkStatus::Connecting);
    let mut serving = pin!(link.serve(bring, alarms, tell));
    loop {
        tokio::select! {
            ended = &mut serving => {
                let error = ended.err()?;
                shared.tell(lost(error.check()));
                return Some(error);
            }
            Some(came) = coming.recv() => {
                let origin = Origin::Relay { sleeve: came.sleeve };
                if !shared.entrance.enter(came.meeting, origin).await {
                    return None;
                }
            }
            Ok(()) = status.changed() => match &*status.borrow_and_update() {
                LinkStatus::Connecting => {}
                LinkStatus::Registered => {
                    shared.tell(ManagerHappening::Relay { connected: true, check: None });
                }
                LinkStatus::Lost { check, .. } => shared.tell(lost(check)),
            },
        }
    }
}

fn lost(check: &str) -> ManagerHappening {
    ManagerHappening::Relay { connected: false, check: Some(check.to_owned()) }
}

/// Signs the audit's end after a line, or some; nobody waits for it.
async fn sign(shared: Arc<Shared>) -> Option<RelayError> {
    loop {
        shared.signs.notified().await;
        // By then an answer has left, and what comes next finds the disk at rest.
        sleep(SIGN_AFTER).await;
        let signing = shared.clone();
        if let Err(error) = on_disk(move || signing.sign_audit()).await {
            tracing::warn!(%error, "the audit's end is not signed");
        }
    }
}

impl Shared {
    /// Lets a contact try, if there is a place for it. Nothing answers one that there is none for.
    fn admit(
        self: &Arc<Self>,
        contacts: &Contacts,
        came: Came,
    ) -> Option<(Contact<Box<dyn Stream>>, Place)> {
        let Came { stream, origin } = came;
        let Some(place) = contacts.place(&origin) else {
            tracing::info!(?origin, "too many contacts at once");
            return None;
        };
        let number = self.sessions().next_number();
        let (address, way) = (origin.bytes(), origin.way());
        let relayed = match origin {
            Origin::Relay { sleeve } => Some(sleeve),
            Origin::Address(_) => None,
        };
        let admitted = Admitted { address, number, way, relayed };
        Some((Contact::new(self.clone(), stream, admitted), place))
    }

    /// Waits until the pairing window runs out of time, and tells it; for ever while none is open.
    async fn window_is_over(&self) {
        loop {
            let due = self.window().poll_timeout();
            let now = self.now();
            let wait = match due {
                None => Duration::MAX,
                // Rounded up, so that the wait does not end a moment too early and spin.
                Some(due) => due.since(now) + Duration::from_millis(1),
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = self.window_changed.notified() => {}
            }
            if self.window().expire(self.now()) {
                return self.tell(ManagerHappening::WindowClosed { because: "time" });
            }
        }
    }

    /// Signs the audit's end, if it is another. Blocking.
    fn sign_audit(&self) -> Result<(), ManagerError> {
        let _one_at_a_time = self.signing.lock().unwrap_or_else(PoisonError::into_inner);
        let audit = || self.audit.lock().unwrap_or_else(PoisonError::into_inner);
        let unsigned = audit().unsigned();
        if let Some(unsigned) = unsigned {
            if let Err(error) = unsigned.sync() {
                audit().fail();
                return Err(error);
            }
            let lines = unsigned.store_head(&mut *self.rng())?;
            audit().is_signed(lines);
        }
        Ok(())
    }

    /// Does what the owner wants, or tells why not.
    async fn obey(self: &Arc<Self>, order: ManagerOrder) {
        if let Err((check, detail)) = self.try_obey(order).await {
            self.tell(ManagerHappening::Refused { check, detail });
        }
    }

    async fn try_obey(self: &Arc<Self>, order: ManagerOrder) -> Result<(), (String, String)> {
        match order {
            ManagerOrder::OpenWindow { seconds } => {
                if !(1..=WINDOW_MAX_SECONDS).contains(&seconds) {
                    let detail = format!("a pairing window lasts 1 to {WINDOW_MAX_SECONDS} s");
                    return Err(("window-seconds".to_owned(), detail));
                }
                self.window().open(self.now(), seconds);
                self.window_changed.notify_one();
                self.tell(ManagerHappening::WindowOpened { seconds });
            }
            ManagerOrder::CloseWindow => {
                if self.window().close() {
                    self.window_changed.notify_one();
                    self.tell(ManagerHappening::WindowClosed { because: "closed" });
                }
            }
            ManagerOrder::Consent { session, yes } => self.say(session, Control::Consent(yes))?,
            ManagerOrder::End { session } => {
                let sessions = self.sessions();
                let there = sessions.there.get(&session).ok_or_else(|| no_session(session))?;
                there.end("ended-by-owner");
            }
            ManagerOrder::Recall { card } => {
                let lease = self.desk.recall(&card).ok_or_else(|| {
                    ("card-not-lent".to_owned(), format!("nobody has the card {card}"))
                })?;
                // Whoever does not hear it now finds its lease ended at its next command.
                let sessions = self.sessions();
                for there in sessions.there.values() {
                    let _busy = there.control.try_send(Control::Recall(lease));
                }
            }
            ManagerOrder::Revoke { sleeve } => {
                let revoking = (self.clone(), sleeve.clone());
                let revoked = on_disk(move || {
                    let (shared, sleeve) = revoking;
                    shared.change_dir(|dir| dir.pairs.revoke(&sleeve, shared.now()))?;
                    shared.note_now(Entry { sleeve: Some(sleeve), ..Entry::new("revoke") })
                });
                let revoked = revoked.await;
                // Also where only the audit failed: the sleeve is off the list then.
                if self.read_dir(|dir| dir.pairs.is_revoked(&sleeve)) {
                    self.sessions().end_all_of(&sleeve, "sleeve-revoked");
                    self.desk.revoke_sleeve(&sleeve);
                }
                revoked.map_err(|error| (error.check().to_owned(), error.to_string()))?;
                self.tell(ManagerHappening::Revoked { sleeve });
            }
            ManagerOrder::Stop => {}
        }
        Ok(())
    }

    fn say(&self, session: u32, control: Control) -> Result<(), (String, String)> {
        let sessions = self.sessions();
        let there = sessions.there.get(&session).ok_or_else(|| no_session(session))?;
        let busy = |_| ("session-busy".to_owned(), format!("session {session} is busy"));
        there.control.try_send(control).map_err(busy)
    }
}

fn no_session(session: u32) -> (String, String) {
    ("session-unknown".to_owned(), format!("there is no session {session}"))
}
