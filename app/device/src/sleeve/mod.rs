//! The sleeve (A): a card that shows one of the real cards at home to a terminal.
//!
//! [`SleeveDir`] keeps its key and its pairings. [`Sleeve`] pairs (A1) and connects (A2, A3),
//! directly or through the server's relay (A9), and a [`SleeveSession`] logs in (A4), lists the
//! cards, takes one and is it (A8): [`RelayedCard`] is a card of PC/SC's virtual reader. The link
//! lost is the card removed.

mod card;
mod dir;
mod error;
mod kept;
mod session;
mod wire;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_channel::{
    Error, Event, Mode, Pairing, Policy, SleeveChannel, SleeveConfig, SleeveQuestion,
};
use countersign_net::Clock;
use countersign_pki::CertificateNumber;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

pub use card::RelayedCard;
pub use dir::SleeveDir;
pub use error::SleeveError;
pub use kept::{MANAGERS_MAX, PairedManager};
pub use session::{SleeveHappening, SleeveSession, TakenCard};

use crate::{MakeRng, RelayLink};
use kept::KeptPairing;
use wire::{Arrived, Dial, Stream, Wire, cut, direct, tcp};

/// How long connecting in the same network may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before connecting again, at first and at most.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How a sleeve reaches its manager (A9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// In the same network: `HOST:PORT` of the manager.
    Direct(String),
    /// Through the relay of the server whose gateway is at `HOST:PORT`. It forwards sealed records
    /// and sees neither what they hold nor which card is used.
    Relay(String),
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(address) => f.write_str(address),
            Self::Relay(gateway) => write!(f, "relay:{gateway}"),
        }
    }
}

/// What a sleeve shows to its user in a pairing, to be compared with the manager's label (A1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The manager's certified id.
    pub manager: String,
    /// The number of its certificate.
    pub number: CertificateNumber,
}

/// The sleeve's program.
pub struct Sleeve {
    dir: Mutex<SleeveDir>,
    policies: Vec<Policy>,
    clock: Arc<dyn Clock>,
    rng: MakeRng,
    dial: Dial,
    /// One handshake at a time: what one of them confirms, another may have begun.
    shaking: tokio::sync::Mutex<()>,
}

impl Sleeve {
    /// A sleeve of this directory.
    #[must_use]
    pub fn new(dir: SleeveDir, clock: Arc<dyn Clock>, rng: MakeRng) -> Self {
        let policies = vec![Policy::default()];
        let (dir, shaking) = (Mutex::new(dir), tokio::sync::Mutex::default());
        Self { dir, policies, clock, rng, dial: tcp(), shaking }
    }

    /// From now on its channels have one of these protection policies, the preferred one first
    /// (A7). Under a MAC-only policy there is no login (A4).
    pub fn set_policies(&mut self, policies: Vec<Policy>) {
        self.policies = policies;
    }

    /// The same in another network.
    #[cfg(test)]
    fn dialling(self, dial: Dial) -> Self {
        Self { dial, ..self }
    }

    /// Its directory.
    pub fn dir(&self) -> MutexGuard<'_, SleeveDir> {
        // Each change is a file replaced at once: a panic elsewhere left a whole one.
        self.dir.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pairs with a manager whose owner has opened its pairing window (A1). `confirm` is asked on a
    /// thread that may block: it shows the manager's certified id, and true is the user's yes.
    ///
    /// `manager` is whom to pair with: through a relay it must be given, and an answer of another
    /// one is refused before anybody is asked.
    ///
    /// # Errors
    /// [`SleeveError::Declined`] after a no, and what refused the pairing before the yes: nothing
    /// was stored then. After the yes the pairing is pending whatever comes, for the manager may
    /// have stored it: [`SleeveError::Unconfirmed`] if the link was lost, or the manager's refusal,
    /// which anybody on the way could have forged. The next connect settles it.
    pub async fn pair(
        &self,
        way: &Way,
        manager: Option<&str>,
        confirm: impl FnOnce(Shown) -> bool + Send + 'static,
    ) -> Result<PairedManager, SleeveError> {
        let _alone = self.shaking.lock().await;
        let stream = self.reach(way, manager).await?;
        let config = self.config()?;
        let mut rng = (self.rng)();
        let channel = SleeveChannel::pair(config, self.clock.now(), &mut *rng)
            .map_err(SleeveError::Channel)?;
        let wire = Wire::new(channel, stream, self.clock.clone(), rng);
        let mut attempt = Attempt { sleeve: self, wire, wanted: manager, stored: None };
        let paired = attempt.drive(confirm).await;
        // What the channel still wants to say, a no among it.
        attempt.wire.close().await;
        let (id, number) = match (paired, attempt.stored.take()) {
            (Ok(()), Some(stored)) => stored,
            (Ok(()), None) => return Err(SleeveError::Protocol),
            (Err(error), None) => return Err(error),
            (Err(error @ SleeveError::Channel(Error::Alert { .. })), Some(_)) => {
                return Err(error);
            }
            (Err(error), Some(_)) => {
                tracing::info!(%error, "the pairing is pending");
                return Err(SleeveError::Unconfirmed);
            }
        };
        let dir = self.dir();
        dir.confirm(&id, number, self.clock.now())?;
        let managers = dir.managers()?;
        managers.into_iter().find(|one| one.id == id).ok_or(SleeveError::UnknownManager(id))
    }

    /// Connects to a manager that this sleeve is paired with: by the binding factor (A2) or by the
    /// pairing list (A3). Without a name, to the only one.
    ///
    /// A pairing that is pending is tried first, and confirmed by this; where there are former ones
    /// with the same manager, they are tried next. A refusal removes none: it can be forged.
    ///
    /// # Errors
    /// [`SleeveError`].
    pub async fn connect(
        &self,
        way: &Way,
        mode: Mode,
        manager: Option<&str>,
    ) -> Result<(SleeveSession, mpsc::Receiver<SleeveHappening>), SleeveError> {
        let _alone = self.shaking.lock().await;
        let manager = self.dir().which(manager)?;
        let mut refused = None;
        let pairings = self.dir().pairings(&manager)?;
        for KeptPairing { number, pairing } in pairings {
            match self.connect_by(way, mode, pairing).await {
                Ok(wire) => {
                    self.dir().confirm(&manager, number, self.clock.now())?;
                    return Ok(SleeveSession::start(wire, manager));
                }
                // The manager has another pairing with this sleeve, or none.
                Err(error @ SleeveError::Channel(_)) if !error.may_pass() => {
                    refused = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(refused.unwrap_or(SleeveError::UnknownManager(manager)))
    }

    /// As [`Self::connect`], again and again with a growing pause while that may help, for at most
    /// so long: a link that was lost comes back.
    ///
    /// # Errors
    /// The last [`SleeveError`].
    pub async fn connect_within(
        &self,
        way: &Way,
        mode: Mode,
        manager: Option<&str>,
        within: Duration,
    ) -> Result<(SleeveSession, mpsc::Receiver<SleeveHappening>), SleeveError> {
        let give_up = self.clock.now().plus(within);
        let mut pause = PAUSE_FIRST;
        loop {
            match self.connect(way, mode, manager).await {
                Err(error) if error.may_pass() && self.clock.now().plus(pause) < give_up => {
                    tracing::info!(%error, "the manager is tried again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                ended => return ended,
            }
        }
    }

    async fn connect_by(
        &self,
        way: &Way,
        mode: Mode,
        pairing: Pairing,
    ) -> Result<Wire, SleeveError> {
        let stream = self.reach(way, Some(&pairing.peer)).await?;
        let (config, mut rng) = (self.config()?, (self.rng)());
        let now = self.clock.now();
        let channel = SleeveChannel::connect(config, mode, Arc::new(pairing), now, &mut *rng)
            .map_err(SleeveError::Channel)?;
        let mut wire = Wire::new(channel, stream, self.clock.clone(), rng);
        let connected = async {
            loop {
                wire.flush().await?;
                match wire.channel().poll_event() {
                    Some(Event::Connected) => return Ok(()),
                    Some(Event::Closed) => return Err(cut()),
                    Some(Event::Ask(_) | Event::Data(_)) => return Err(SleeveError::Protocol),
                    None => {}
                }
                if wire.arrive(None).await? == Arrived::End {
                    return Err(cut());
                }
            }
        };
        let connected: Result<(), SleeveError> = connected.await;
        if connected.is_err() {
            wire.close().await;
        }
        connected.map(|()| wire)
    }

    async fn reach(
        &self,
        way: &Way,
        manager: Option<&str>,
    ) -> Result<Box<dyn Stream>, SleeveError> {
        match way {
            Way::Direct(address) => direct(&self.dial, address).await,
            Way::Relay(gateway) => {
                let manager = manager.ok_or(SleeveError::ManagerUnnamed)?;
                let (clock, rng) = (self.clock.clone(), self.rng.clone());
                let link = RelayLink::new(self.dir().device(), gateway, clock, rng)?;
                Ok(Box::new(link.meet(manager).await?))
            }
        }
    }

    fn config(&self) -> Result<Arc<SleeveConfig>, SleeveError> {
        let policies = self.policies.clone();
        self.dir().config(policies, self.clock.now()).map(Arc::new)
    }
}

impl fmt::Debug for Sleeve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleeve").finish_non_exhaustive()
    }
}

/// One pairing.
struct Attempt<'a> {
    sleeve: &'a Sleeve,
    wire: Wire,
    wanted: Option<&'a str>,
    /// Whose pairing is on disk, as pending, and its number there.
    stored: Option<(String, u32)>,
}

impl Attempt<'_> {
    /// Drives the channel to its confirmation.
    async fn drive(
        &mut self,
        confirm: impl FnOnce(Shown) -> bool + Send + 'static,
    ) -> Result<(), SleeveError> {
        let mut confirm = Some(confirm);
        loop {
            self.wire.flush().await?;
            match self.wire.channel().poll_event() {
                Some(Event::Ask(SleeveQuestion::Confirm { manager_id, number })) => {
                    let confirm = confirm.take().ok_or(SleeveError::Protocol)?;
                    self.ask(Shown { manager: manager_id, number }, confirm).await?;
                    continue;
                }
                Some(Event::Ask(SleeveQuestion::Store(pairing))) => {
                    self.store(pairing)?;
                    continue;
                }
                Some(Event::Connected) => return Ok(()),
                Some(Event::Closed) => return Err(cut()),
                Some(Event::Data(_)) => return Err(SleeveError::Protocol),
                None => {}
            }
            if self.wire.arrive(None).await? == Arrived::End {
                return Err(cut());
            }
        }
    }

    /// Asks the user, and goes on listening meanwhile: the manager may go, and time passes.
    async fn ask(
        &mut self,
        shown: Shown,
        confirm: impl FnOnce(Shown) -> bool + Send + 'static,
    ) -> Result<(), SleeveError> {
        let wanted = self.wanted.filter(|wanted| *wanted != shown.manager);
        if let Some(wanted) = wanted {
            let (found, wanted) = (shown.manager, wanted.to_owned());
            let _no = self.confirm(false);
            return Err(SleeveError::OtherManager { found, wanted });
        }
        let mut asked = spawn_blocking(move || confirm(shown));
        let yes = loop {
            tokio::select! {
                // A user who cannot be asked has not said yes.
                yes = &mut asked => break yes.unwrap_or(false),
                arrived = self.wire.arrive(None) => {
                    if arrived? == Arrived::End {
                        return Err(cut());
                    }
                }
            }
            self.wire.flush().await?;
        };
        match self.confirm(yes) {
            Ok(()) => Ok(()),
            Err(_) if !yes => Err(SleeveError::Declined),
            Err(error) => Err(error),
        }
    }

    fn confirm(&mut self, yes: bool) -> Result<(), SleeveError> {
        let (channel, now, rng) = self.wire.parts();
        channel.confirm(now, rng, yes).map_err(SleeveError::Channel)
    }

    /// On disk before the proof leaves.
    fn store(&mut self, pairing: Pairing) -> Result<(), SleeveError> {
        let kept = self.sleeve.dir().keep_pending(&pairing, self.wire.now());
        let (channel, now, rng) = self.wire.parts();
        let told = channel.stored(now, rng, kept.is_ok());
        self.stored = Some((pairing.peer, kept?));
        told.map_err(SleeveError::Channel)
    }
}
