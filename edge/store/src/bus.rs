//! Who waits for something is woken when it may have happened, also on another server.
//!
//! A notice is a topic and an id, nothing else: who is woken asks the store, which is the truth.
//! In one process notices go by memory; servers on one PostgreSQL pass them on by `NOTIFY` (see
//! `relay`). A notice may be lost with a connection, and may come for nothing: waiters also look
//! from time to time.

mod relay;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::{mpsc, watch};

use crate::MAX_ID_LEN;
use crate::names::stored_as_text;

/// Notices that may wait for the connection to PostgreSQL; one more is not passed on.
pub const NOTICES_MAX: usize = 4096;

/// What a notice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Topic {
    /// A payment changed: the id is the payment's.
    Payment,
    /// Something waits for a phone: the id is the phone's.
    Phone,
    /// Events wait to be spread to webhooks: see [`Notice::events`].
    Event,
}

stored_as_text!(Topic, "topic", {
    Payment => "payment",
    Phone => "phone",
    Event => "event",
});

/// That something may have changed, without what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Notice {
    topic: Topic,
    id: String,
}

impl Notice {
    /// A notice about what has this id.
    #[must_use]
    pub fn new(topic: Topic, id: impl Into<String>) -> Self {
        Self { topic, id: id.into() }
    }

    /// That events were stored.
    #[must_use]
    pub fn events() -> Self {
        Self::new(Topic::Event, "all")
    }

    /// Whether it may leave the process: only what looks like an id does.
    fn may_travel(&self) -> bool {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"_-".contains(&c);
        !self.id.is_empty() && self.id.len() <= MAX_ID_LEN && self.id.bytes().all(allowed)
    }
}

/// Whether notices of other servers arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusState {
    /// There are no other servers: the database is SQLite.
    Local,
    /// They arrive.
    Connected,
    /// The connection for them is not there (yet, or at the moment): waiters look by themselves.
    Apart,
}

/// A cheap handle: clone it freely.
#[derive(Clone)]
pub struct Bus(Arc<Inner>);

struct Inner {
    registry: Arc<Registry>,
    remote: Option<Remote>,
}

struct Remote {
    config: tokio_postgres::Config,
    outbox: OnceLock<mpsc::Sender<Notice>>,
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl Bus {
    pub(crate) fn local() -> Self {
        Self(Arc::new(Inner { registry: Arc::default(), remote: None }))
    }

    /// Connects when it is first used.
    pub(crate) fn postgres(config: tokio_postgres::Config) -> Self {
        let remote = Some(Remote { config, outbox: OnceLock::new() });
        Self(Arc::new(Inner { registry: Arc::default(), remote }))
    }

    /// Wakes who waits for these, here and on other servers. Call it after the commit. It never
    /// waits; where [`NOTICES_MAX`] notices wait already, other servers are not told.
    pub fn publish(&self, notices: &[Notice]) {
        for notice in notices {
            self.0.registry.wake(notice);
        }
        let Some(outbox) = self.outbox() else { return };
        for notice in notices.iter().filter(|notice| notice.may_travel()) {
            // Full: the others look by themselves a little later.
            let _told = outbox.try_send(notice.clone());
        }
    }

    /// Waits for notices from now on. Listen first, then look in the store, then wait: so nothing
    /// falls in between.
    #[must_use]
    pub fn listen(&self, topic: Topic, id: impl Into<String>) -> Listener {
        let _started = self.outbox();
        let notice = Notice::new(topic, id);
        let woken = match self.0.registry.lock().entry(notice.clone()) {
            Entry::Occupied(waiting) => waiting.get().subscribe(),
            Entry::Vacant(place) => place.insert(watch::Sender::new(())).subscribe(),
        };
        Listener { woken: Some(woken), notice, registry: self.0.registry.clone() }
    }

    /// Whether notices of other servers arrive.
    #[must_use]
    pub fn state(&self) -> BusState {
        match (&self.0.remote, self.0.registry.connected.load(Ordering::Relaxed)) {
            (None, _) => BusState::Local,
            (Some(_), true) => BusState::Connected,
            (Some(_), false) => BusState::Apart,
        }
    }

    fn outbox(&self) -> Option<&mpsc::Sender<Notice>> {
        let remote = self.0.remote.as_ref()?;
        Some(remote.outbox.get_or_init(|| {
            let (outbox, inbox) = mpsc::channel(NOTICES_MAX);
            relay::start(remote.config.clone(), inbox, self.0.registry.clone());
            outbox
        }))
    }
}

/// Waits for notices about one thing.
pub struct Listener {
    /// Always there until the listener is dropped.
    woken: Option<watch::Receiver<()>>,
    notice: Notice,
    registry: Arc<Registry>,
}

impl Listener {
    /// Waits until there was a notice since the listener was made, or since this last returned.
    /// Notices that came together wake once. Dropping the future loses nothing.
    pub async fn changed(&mut self) {
        let Some(woken) = &mut self.woken else { return };
        if woken.changed().await.is_err() {
            // The sender is kept while a listener is: this cannot be.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.woken = None;
        let mut waiting = self.registry.lock();
        if waiting.get(&self.notice).is_some_and(|waiting| waiting.receiver_count() == 0) {
            waiting.remove(&self.notice);
        }
    }
}

/// Who waits for what.
#[derive(Default)]
struct Registry {
    waiting: Mutex<HashMap<Notice, watch::Sender<()>>>,
    connected: AtomicBool,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<Notice, watch::Sender<()>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, notice: &Notice) {
        if let Some(waiting) = self.lock().get(notice) {
            waiting.send_replace(());
        }
    }

    /// Notices may have been lost.
    fn wake_all(&self) {
        for waiting in self.lock().values() {
            waiting.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    const NEVER: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn who_listens_is_woken_and_nobody_else() {
        let bus = Bus::local();
        let mut mine = bus.listen(Topic::Payment, "pay_1");
        let mut also = bus.listen(Topic::Payment, "pay_1");
        let mut other = bus.listen(Topic::Payment, "pay_2");
        let mut topic = bus.listen(Topic::Phone, "pay_1");
        let notice = Notice::new(Topic::Payment, "pay_1");
        bus.publish(&[notice.clone(), notice]);
        timeout(SOON, mine.changed()).await.unwrap();
        timeout(SOON, also.changed()).await.unwrap();
        for quiet in [&mut mine, &mut other, &mut topic] {
            assert!(timeout(NEVER, quiet.changed()).await.is_err());
        }
        assert_eq!(bus.state(), BusState::Local);
    }

    #[tokio::test]
    async fn what_came_before_is_not_waited_for_and_nothing_is_kept() {
        let bus = Bus::local();
        bus.publish(&[Notice::new(Topic::Payment, "pay_1")]);
        let mut late = bus.listen(Topic::Payment, "pay_1");
        assert!(timeout(NEVER, late.changed()).await.is_err());
        let other = bus.listen(Topic::Payment, "pay_1");
        drop(late);
        assert_eq!(bus.0.registry.lock().len(), 1);
        drop(other);
        assert!(bus.0.registry.lock().is_empty());
    }

    #[test]
    fn only_ids_travel() {
        for id in ["pay_01997c3e-0000-7000-8000-000000000000", "all"] {
            assert!(Notice::new(Topic::Payment, id).may_travel(), "{id}");
        }
        for other in ["", "622202 1234", "Ms Li", "a,b", "a:b", &"x".repeat(MAX_ID_LEN + 1)] {
            assert!(!Notice::new(Topic::Payment, other).may_travel(), "{other}");
        }
    }
}
