//! The manager (A): at home, with the real cards, for the sleeves that are paired with it.
//!
//! [`ManagerDir`] keeps its key, its pairing list, its passwords and its audit. [`Manager`] serves:
//! it pairs (A1) while its owner's window is open, lets paired sleeves in (A2, A3), takes their
//! password (A4, A5), lends them a card each and passes on what its policy allows (A8), for as long
//! as their heartbeats come (A6); directly or through the server's relay (A9). What happens goes
//! out as [`ManagerHappening`], what its owner wants comes in as [`ManagerOrder`].
//!
//! | file | holds | written |
//! |-|-|-|
//! | `device.toml`, `key.p8`, `certificate.pem`, … | as of any device | at enrolment |
//! | `manager.toml` | [`ManagerSettings`] | by the owner |
//! | `passwords.json` | both hashes, Argon2id | when one is set |
//! | `sleeves/ID.json` | certificate and binding factor, or that it is revoked | before M4 |
//! | `logins/ID.json` | lock-out, last attempt, alarms not taken | before look and answer |
//! | `usage/CARD.json` | uses and sum of the period | before the card is used |
//! | `audit.jsonl` | the audit | before the answer that it tells of |
//! | `audit-head.json` | the signature over its end | soon after |

mod alarms;
mod audit;
mod contact;
mod desk;
mod dir;
mod error;
mod files;
mod happening;
mod logins;
mod pairs;
mod serve;
mod session;
mod settings;
mod source;
mod window;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use countersign_channel::ManagerConfig;
use countersign_crypto::{CryptoRng, UnixTime};
use countersign_net::Clock;
use countersign_wallet::audit::Entry;
use countersign_wallet::login::Passwords;
use tokio::sync::{Notify, Semaphore, mpsc, watch};

pub use audit::AUDIT_MAX;
pub use dir::{AuditReport, ManagerDir};
pub use error::ManagerError;
pub use happening::{ManagerHappening, ManagerOrder, Route};
pub use pairs::{PairedSleeve, SLEEVES_MAX};
pub use serve::{Entrance, Origin};
pub use settings::{
    AlarmCards, AlarmSettings, CardSettings, Consent, LEASE_SECONDS_MIN, ManagerSettings,
};
pub use source::{CardSource, HeldCards, OpenCard, ResetCard, card_source};
pub use window::WINDOW_MAX_SECONDS;

use crate::{MakeRng, RaisedAlarm};
use audit::AuditLog;
use desk::Desk;
use logins::Logins;
use session::Control;
use window::PairingWindow;

/// Sessions at once, at most.
pub const SESSIONS_MAX: usize = 64;
/// Contacts that have not proven themselves yet, at once, at most.
pub const CONTACTS_MAX: usize = 32;
/// Contacts of one source among them, at most.
pub const CONTACTS_PER_SOURCE_MAX: usize = 8;
/// Passwords that are looked at at once: each takes the memory of its hash.
const HASHES_AT_ONCE: usize = 2;

/// A manager that is about to serve.
pub struct Manager {
    shared: Arc<Shared>,
    contacts: serve::Contacts,
    alarms: Option<mpsc::Sender<RaisedAlarm>>,
}

impl Manager {
    /// A manager of this directory, with the cards that `cards` finds.
    ///
    /// # Errors
    /// [`ManagerError::NoPassword`]; [`ManagerError::Audit`] for an audit that was altered;
    /// [`ManagerError::Dir`] without a certificate that holds; those of files.
    pub fn new(
        dir: ManagerDir,
        cards: Arc<dyn CardSource>,
        clock: Arc<dyn Clock>,
        rng: MakeRng,
    ) -> Result<Self, ManagerError> {
        let passwords = dir.passwords.clone().ok_or(ManagerError::NoPassword)?;
        for card in dir.settings().useless_after_alarm() {
            tracing::warn!(card, "its limits and the alarm's are in different currencies");
        }
        let config = Arc::new(dir.config(clock.now(), &mut *rng())?);
        let desk = Desk::open(&dir.path().join(dir::USAGE), dir.settings(), cards)?;
        let audit = Mutex::new(dir.audit(clock.now(), &mut *rng())?);
        let (settings, logins) = (Arc::new(dir.settings().clone()), dir.logins.clone());
        let (contacts, entrance) = serve::Contacts::new();
        let shared = Arc::new(Shared {
            dir: RwLock::new(dir),
            settings,
            logins,
            passwords,
            config,
            desk: Arc::new(desk),
            audit,
            clock,
            rng,
            window: Mutex::default(),
            sessions: Mutex::default(),
            events: Mutex::new(None),
            entrance,
            hashes: Semaphore::new(HASHES_AT_ONCE),
            alarms: Notify::new(),
            signs: Notify::new(),
            signing: Mutex::default(),
            window_changed: Notify::new(),
            stopping: watch::Sender::new(false),
        });
        Ok(Self { shared, contacts, alarms: None })
    }

    /// Where sleeves come in that did not come over the network: through a pipe in this process.
    #[must_use]
    pub fn entrance(&self) -> Entrance {
        self.shared.entrance.clone()
    }

    /// Alarms go there, and not through the server's relay.
    pub fn alarms_to(&mut self, alarms: mpsc::Sender<RaisedAlarm>) {
        self.alarms = Some(alarms);
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").finish_non_exhaustive()
    }
}

/// What all contacts of a manager share.
struct Shared {
    dir: RwLock<ManagerDir>,
    settings: Arc<ManagerSettings>,
    logins: Arc<Logins>,
    passwords: Passwords,
    config: Arc<ManagerConfig>,
    desk: Arc<Desk>,
    audit: Mutex<AuditLog>,
    clock: Arc<dyn Clock>,
    rng: MakeRng,
    window: Mutex<PairingWindow>,
    sessions: Mutex<Sessions>,
    events: Mutex<Option<mpsc::Sender<ManagerHappening>>>,
    entrance: Entrance,
    hashes: Semaphore,
    /// A login was answered: there may be an alarm.
    alarms: Notify,
    /// The audit has a new line.
    signs: Notify,
    /// Held while its end is signed.
    signing: Mutex<()>,
    /// The window's end is another.
    window_changed: Notify,
    /// Nobody is let in any more.
    stopping: watch::Sender<bool>,
}

/// Who is there.
#[derive(Default)]
struct Sessions {
    /// The last number that was given, to contacts too.
    number: u32,
    there: BTreeMap<u32, There>,
}

/// A session, as the others know it.
struct There {
    sleeve: String,
    control: mpsc::Sender<Control>,
    /// Why it is to end, once it is.
    end: watch::Sender<Option<&'static str>>,
}

impl Shared {
    fn now(&self) -> UnixTime {
        self.clock.now()
    }

    fn rng(&self) -> Box<dyn CryptoRng + Send> {
        (self.rng)()
    }

    /// Tells the owner. Never waits: a screen that is not looked at holds up no session.
    fn tell(&self, happening: ManagerHappening) {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(events) = &*events
            && let Err(mpsc::error::TrySendError::Full(lost)) = events.try_send(happening)
        {
            tracing::warn!(?lost, "nobody reads what happens at this manager");
        }
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn window(&self) -> MutexGuard<'_, PairingWindow> {
        // A deadline and a number: any value of it is whole.
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an entry to the audit; it is on the disk when this returns.
    async fn note(self: &Arc<Self>, entry: Entry) -> Result<(), ManagerError> {
        let shared = self.clone();
        on_disk(move || shared.note_now(entry)).await
    }

    /// Writes an entry that may be lost with the power: in place, as that is no work for a disk,
    /// unless somebody else is at the audit.
    async fn note_soon(self: &Arc<Self>, entry: Entry) -> Result<(), ManagerError> {
        if let Ok(mut audit) = self.audit.try_lock() {
            audit.write(self.now(), entry)?;
        } else {
            let shared = self.clone();
            let written = on_disk(move || {
                let mut audit = shared.audit.lock().unwrap_or_else(PoisonError::into_inner);
                audit.write(shared.now(), entry)
            });
            written.await?;
        }
        self.signs.notify_one();
        Ok(())
    }

    /// The same as [`Self::note`] on a thread that may block.
    fn note_now(&self, entry: Entry) -> Result<(), ManagerError> {
        let mut audit = self.audit.lock().unwrap_or_else(PoisonError::into_inner);
        audit.append(self.now(), entry)?;
        self.signs.notify_one();
        Ok(())
    }

    /// Reads the directory's lists. Its writers hold it for one small file's time.
    fn read_dir<T>(&self, read: impl FnOnce(&ManagerDir) -> T) -> T {
        read(&self.dir.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes them. Blocking.
    fn change_dir<T>(&self, change: impl FnOnce(&mut ManagerDir) -> T) -> T {
        change(&mut self.dir.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Does what blocks on a thread that may.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ManagerError> + Send + 'static,
) -> Result<T, ManagerError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(ManagerError::Task))
}
