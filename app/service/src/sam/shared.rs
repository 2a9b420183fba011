//! What the pool and its modules' tasks share: who is idle, who waits, who may not be used.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_idcard::Check;
use countersign_idcard::sam::{SamError, SamResult};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use super::health::{SamFailure, SamHealth, SamModule, SamState};
use super::queue::FairQueue;
use super::record::{Flaps, SamTally, Tallies};
use super::{LEASE_MAX, PER_READER_MAX, QUEUE_MAX, SamUnavailable};

/// What the pool knows of one module, or of one connection to a SAM host.
pub(super) struct Slot {
    port: String,
    /// At another host: which module is leased there is settled with each lease.
    pub(super) remote: bool,
    sam_id: Option<String>,
    pub(super) ready: bool,
    failure: Option<SamFailure>,
    /// Counts how often the module became ready or was taken back: a lease holds for one of these
    /// only.
    pub(super) generation: u64,
    /// Since when somebody holds it.
    held_since: Option<Instant>,
    drained: bool,
    /// The connection is old: it is given to nobody any more, and made anew.
    retiring: bool,
    quarantined_until: Option<Instant>,
    flaps: Flaps,
    failures: u64,
    tallies: Tallies,
    /// The modules that a SAM host reports.
    reported: Vec<SamModule>,
}

impl Slot {
    pub(super) fn new(port: String, remote: bool) -> Self {
        Self {
            port,
            remote,
            sam_id: None,
            ready: false,
            failure: None,
            generation: 0,
            held_since: None,
            drained: false,
            retiring: false,
            quarantined_until: None,
            flaps: Flaps::default(),
            failures: 0,
            tallies: Tallies::default(),
            reported: Vec::new(),
        }
    }

    /// Whether a read may be given it as soon as nobody holds it, and its connection is made anew
    /// if it is old.
    const fn serves(&self) -> bool {
        self.ready && !self.drained
    }

    fn state(&self, now: Instant) -> SamState {
        let held = self.held_since.is_some();
        match (self.ready, self.drained) {
            (true, true) if held => SamState::Draining,
            (_, true) => SamState::Drained,
            (true, false) if held => SamState::Leased,
            (true, false) => SamState::Ready,
            (false, false) if self.quarantined_until.is_some_and(|until| now < until) => {
                SamState::Quarantined
            }
            (false, false) if self.failure.is_some() => SamState::Failed,
            (false, false) => SamState::Starting,
        }
    }

    fn health(&self, now: Instant) -> SamHealth {
        SamHealth {
            port: self.port.clone(),
            sam_id: self.sam_id.clone(),
            ready: self.ready,
            state: self.state(now),
            failure: self.failure.clone(),
            failures: self.failures,
            reads: self.tallies.reads(),
            tallies: self.tallies.all().to_vec(),
        }
    }

    /// What this module did at this port, or through this connection.
    fn tally_of(&self, sam_id: Option<&String>) -> SamTally {
        let found = self.tallies.all().iter().find(|(id, _)| Some(id) == sam_id);
        found.map(|(_, tally)| tally.clone()).unwrap_or_default()
    }

    fn released(&mut self, now: Instant) {
        if let Some(since) = self.held_since.take()
            && let Some(sam_id) = &self.sam_id
        {
            self.tallies.of(sam_id).busy += now.duration_since(since);
        }
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) slots: Vec<Slot>,
    /// Indices of modules that serve and that nobody holds, longest idle first. Empty while a live
    /// waiter is queued.
    idle: VecDeque<usize>,
    waiters: FairQueue<oneshot::Sender<Place>>,
    /// When a module that was ready was lost last.
    lost_at: Option<Instant>,
    /// The program is ending: nothing new begins.
    closed: bool,
}

/// The pool's state, and the ids of the modules that an operator has taken out of service.
pub(super) struct Shared {
    state: Mutex<State>,
    drained: watch::Sender<Arc<BTreeSet<String>>>,
    /// Told whenever a lease ends.
    freed: Notify,
}

/// Whether a read joins the queue or got nothing for its turn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    New,
    Again,
}

impl Shared {
    pub(super) fn new(slots: Vec<Slot>) -> Self {
        let state = Mutex::new(State { slots, ..State::default() });
        Self { state, drained: watch::Sender::new(Arc::default()), freed: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment or push, so a poisoned lock holds nothing half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn health(&self) -> Vec<SamHealth> {
        let now = Instant::now();
        self.lock().slots.iter().map(|slot| slot.health(now)).collect()
    }

    /// Every module, those at other hosts as these report them, each once.
    pub(super) fn modules(&self) -> Vec<SamModule> {
        let now = Instant::now();
        let state = self.lock();
        let mut modules: Vec<SamModule> = Vec::new();
        for slot in &state.slots {
            if !slot.remote {
                let health = slot.health(now);
                let tally = slot.tally_of(health.sam_id.as_ref());
                modules.push(SamModule {
                    reads: tally.reads,
                    port: health.port,
                    state: health.state,
                    failures: health.sam_id.as_ref().map_or(health.failures, |_| tally.lost),
                    failed: tally.failures,
                    sam_id: health.sam_id,
                });
                continue;
            }
            for reported in &slot.reported {
                let known = modules.iter_mut().find(|known| known.sam_id == reported.sam_id);
                let SamTally { reads, failures: failed, .. } =
                    slot.tally_of(reported.sam_id.as_ref());
                match known {
                    Some(known) => {
                        known.reads += reads;
                        for (check, count) in failed {
                            *known.failed.entry(check).or_default() += count;
                        }
                    }
                    None => modules.push(SamModule { reads, failed, ..reported.clone() }),
                }
            }
        }
        modules
    }

    /// Whether a place is at a SAM host, and the module's id if that is settled already.
    pub(super) fn given(&self, index: usize) -> (bool, Option<String>) {
        let state = self.lock();
        let slot = &state.slots[index];
        (slot.remote, slot.sam_id.clone().filter(|_| !slot.remote))
    }

    pub(super) fn waiting(&self) -> usize {
        self.lock().waiters.len()
    }

    /// The ids that are out of service, now and whenever they change.
    pub(super) fn drained(&self) -> watch::Receiver<Arc<BTreeSet<String>>> {
        self.drained.subscribe()
    }

    /// From now on exactly these modules are out of service.
    pub(super) fn drain(self: &Arc<Self>, ids: BTreeSet<String>) {
        let changed = self.drained.send_if_modified(|known| {
            let changed = **known != ids;
            if changed {
                *known = Arc::new(ids);
            }
            changed
        });
        if !changed {
            return;
        }
        let count = self.lock().slots.len();
        for index in 0..count {
            {
                let mut state = self.lock();
                let slot = &mut state.slots[index];
                // What holds now: somebody else may have said something newer meanwhile.
                let drained = is_drained(slot, &self.drained.borrow());
                if drained == slot.drained {
                    continue;
                }
                slot.drained = drained;
                if drained {
                    state.idle.retain(|idle| *idle != index);
                    continue;
                }
            }
            self.offer(index);
        }
    }

    /// The module answers: from now on leases of an earlier generation are stale.
    pub(super) fn ready(self: &Arc<Self>, index: usize, sam_id: Option<String>) -> u64 {
        let generation = {
            let mut state = self.lock();
            let slot = &mut state.slots[index];
            slot.released(Instant::now());
            slot.generation += 1;
            slot.sam_id = sam_id;
            slot.ready = true;
            slot.failure = None;
            slot.drained = is_drained(slot, &self.drained.borrow());
            slot.generation
        };
        self.offer(index);
        generation
    }

    /// The module does not answer. Nobody is given it until it is ready again.
    pub(super) fn lost(&self, index: usize, failure: SamFailure) {
        let now = Instant::now();
        let mut state = self.lock();
        state.idle.retain(|idle| *idle != index);
        let slot = &mut state.slots[index];
        slot.failure = Some(failure);
        if !std::mem::take(&mut slot.ready) {
            return;
        }
        slot.released(now);
        slot.failures += 1;
        // What is lost with a connection to a SAM host is not the module that it leased last.
        if let Some(sam_id) = slot.sam_id.clone().filter(|_| !slot.remote) {
            slot.tallies.of(&sam_id).lost += 1;
        }
        let aside = slot.flaps.failed(now).map(|time| now + time);
        // The only one is better than none.
        let others = state.slots.iter().enumerate().any(|(at, slot)| at != index && slot.serves());
        state.slots[index].quarantined_until = aside.filter(|_| others);
        state.lost_at = Some(now);
    }

    /// For how long the module is put aside from now on; zero if it is not.
    pub(super) fn quarantine(&self, index: usize) -> Duration {
        let until = self.lock().slots[index].quarantined_until;
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// The connection to a SAM host is there; nobody is given it until a module there serves.
    pub(super) fn opened(&self, index: usize) -> u64 {
        let mut state = self.lock();
        let slot = &mut state.slots[index];
        slot.released(Instant::now());
        slot.generation += 1;
        slot.retiring = false;
        let generation = slot.generation;
        if std::mem::take(&mut slot.ready) {
            state.lost_at = Some(Instant::now());
        }
        generation
    }

    /// The connection to a SAM host is old: nobody is given it any more. Whether nobody holds it,
    /// so that it may be closed; until the next one is there it counts as one that serves.
    pub(super) fn retire(&self, index: usize) -> bool {
        let mut state = self.lock();
        state.idle.retain(|idle| *idle != index);
        let slot = &mut state.slots[index];
        slot.retiring = true;
        slot.held_since.is_none()
    }

    /// The module at this host is nobody's to give for now, or may be given again; the connection
    /// to the host holds.
    pub(super) fn set_open(self: &Arc<Self>, index: usize, open: Result<(), SamFailure>) {
        {
            let mut state = self.lock();
            let slot = &mut state.slots[index];
            let was = std::mem::replace(&mut slot.ready, open.is_ok());
            slot.failure = open.err();
            if was == slot.ready {
                return;
            }
            if was {
                state.idle.retain(|idle| *idle != index);
                state.lost_at = Some(Instant::now());
                return;
            }
        }
        self.offer(index);
    }

    /// What a SAM host says of its modules.
    pub(super) fn report(&self, index: usize, modules: Vec<SamModule>) {
        self.lock().slots[index].reported = modules;
    }

    /// Which module at the host is leased through this connection.
    pub(super) fn leased_there(&self, index: usize, sam_id: String) {
        self.lock().slots[index].sam_id = Some(sam_id);
    }

    /// Counts the end of an operation.
    pub(super) fn count(&self, index: usize, result: &Result<SamResult, SamError>) {
        let mut state = self.lock();
        let slot = &mut state.slots[index];
        let Some(sam_id) = slot.sam_id.clone() else { return };
        let tally = slot.tallies.of(&sam_id);
        match result {
            Ok(SamResult::Plaintext { .. }) => tally.reads += 1,
            Ok(_) | Err(SamError::NotReady) => {}
            Err(error) => *tally.failures.entry(Check::from(error).name()).or_default() += 1,
        }
    }

    /// Until when the lease lasts that the module is under.
    pub(super) fn lease_until(&self, index: usize) -> Option<Instant> {
        self.lock().slots[index].held_since.map(|since| since + LEASE_MAX)
    }

    /// Ends a lease that has lasted too long; the generation from then on.
    pub(super) fn take_back(&self, index: usize) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.lock();
        let slot = &mut state.slots[index];
        slot.held_since.filter(|since| now >= *since + LEASE_MAX)?;
        slot.generation += 1;
        let generation = slot.generation;
        // Still held, by the task that resets it, as the new generation.
        slot.released(now);
        slot.held_since = Some(now);
        Some(generation)
    }

    /// Takes a module that is idle out of the queue, to look after it.
    pub(super) fn take_idle(self: &Arc<Self>, index: usize) -> Option<Place> {
        let mut state = self.lock();
        let at = state.idle.iter().position(|idle| *idle == index)?;
        state.idle.remove(at);
        Some(self.place(&mut state, index))
    }

    fn place(self: &Arc<Self>, state: &mut State, index: usize) -> Place {
        let slot = &mut state.slots[index];
        slot.held_since = Some(Instant::now());
        Place { shared: self.clone(), index, generation: slot.generation, held: true }
    }

    /// Nobody holds the module any more. What belongs to an earlier generation is over already.
    pub(super) fn free(self: &Arc<Self>, index: usize, generation: u64) {
        {
            let mut state = self.lock();
            let slot = &mut state.slots[index];
            if slot.generation != generation {
                return;
            }
            slot.released(Instant::now());
        }
        self.freed.notify_waiters();
        self.offer(index);
    }

    /// Begins nothing new and waits until no lease is under way.
    pub(super) async fn close(&self, within: Duration) {
        let until = Instant::now() + within;
        {
            let mut state = self.lock();
            state.closed = true;
            state.waiters = FairQueue::default(); // whoever waits is told so
        }
        loop {
            let freed = self.freed.notified();
            if self.lock().slots.iter().all(|slot| slot.held_since.is_none()) {
                return;
            }
            if timeout_at(until, freed).await.is_err() {
                return tracing::warn!("SAM leases under way did not end in time");
            }
        }
    }

    /// Gives the module to whose turn it is, or notes that it is idle, if it serves at all and
    /// nobody holds it.
    fn offer(self: &Arc<Self>, index: usize) {
        loop {
            let (waiter, place) = {
                let mut state = self.lock();
                let slot = &state.slots[index];
                let taken = slot.held_since.is_some() || state.idle.contains(&index);
                if !slot.serves() || slot.retiring || taken {
                    return;
                }
                state.waiters.retain(|waiter| !waiter.is_closed());
                match state.waiters.pop() {
                    Some(waiter) => (waiter, self.place(&mut state, index)),
                    None => return state.idle.push_back(index),
                }
            };
            let Err(mut refused) = waiter.send(place) else { return };
            // Whoever waited has gone: to the next one.
            refused.held = false;
            let slot = &mut self.lock().slots[index];
            if slot.generation == refused.generation {
                slot.held_since = None;
            }
        }
    }

    /// An idle module, or a place in the queue.
    pub(super) fn take_or_queue(
        self: &Arc<Self>,
        reader: &str,
        turn: Turn,
    ) -> Result<Result<Place, oneshot::Receiver<Place>>, SamUnavailable> {
        let mut state = self.lock();
        if state.closed {
            return Err(SamUnavailable::NoneReady);
        }
        if let Some(index) = state.idle.pop_front() {
            return Ok(Ok(self.place(&mut state, index)));
        }
        let full = |state: &State| {
            state.waiters.len() >= QUEUE_MAX || state.waiters.len_of(reader) >= PER_READER_MAX
        };
        if full(&state) {
            state.waiters.retain(|waiter| !waiter.is_closed());
        }
        if turn == Turn::New && full(&state) {
            return Err(SamUnavailable::Busy);
        }
        let (waiter, given) = oneshot::channel();
        match turn {
            Turn::New => state.waiters.push(reader, waiter),
            Turn::Again => state.waiters.push_front(reader, waiter),
        }
        Ok(Err(given))
    }

    /// For how long no module has served; zero while one does.
    pub(super) fn dark_for(&self, otherwise: Duration) -> Duration {
        let state = self.lock();
        if state.slots.iter().any(Slot::serves) {
            return Duration::ZERO;
        }
        state.lost_at.map_or(otherwise, |at| Instant::now().duration_since(at))
    }
}

fn is_drained(slot: &Slot, ids: &BTreeSet<String>) -> bool {
    !slot.remote && slot.sam_id.as_ref().is_some_and(|id| ids.contains(id))
}

/// The right to use one module, for one of its generations. Its drop gives the module on.
pub(super) struct Place {
    pub(super) shared: Arc<Shared>,
    pub(super) index: usize,
    pub(super) generation: u64,
    held: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.held {
            self.shared.free(self.index, self.generation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Servers, operators and modules that start say different things at the same moment: what was
    /// said last holds for every module, whoever was fastest.
    #[test]
    fn what_is_out_of_service_is_the_same_everywhere() {
        const MODULES: usize = 8;
        let id = |index| format!("sam-{index}");
        let slots = (0..MODULES).map(|_| Slot::new(String::new(), false)).collect();
        let shared = Arc::new(Shared::new(slots));
        let some = |from: usize| (from..MODULES).map(id).collect::<BTreeSet<_>>();
        for _round in 0..500 {
            std::thread::scope(|scope| {
                for from in [0, 3, MODULES] {
                    let (shared, some) = (&shared, &some);
                    scope.spawn(move || shared.drain(some(from)));
                }
                scope.spawn(|| {
                    for index in 0..MODULES {
                        shared.ready(index, Some(id(index)));
                    }
                });
            });
            let said = shared.drained.borrow().clone();
            for slot in &shared.lock().slots {
                assert_eq!(slot.drained, is_drained(slot, &said), "{said:?} {:?}", slot.sam_id);
            }
        }
    }
}
