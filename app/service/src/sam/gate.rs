//! How many modules one reader may hold, whatever others do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::{PER_READER_MAX, SamUnavailable};

/// Modules that one reader may hold at once: it has one card at a time, and may be trying again
/// while an earlier attempt of it is being given up. A reader that begins reads and stalls holds no
/// more than these.
pub const PER_READER_HELD_MAX: usize = 2;

/// Reads of one reader that may wait here; those that passed may wait in the queue of all.
const WAITING_MAX: usize = PER_READER_MAX - PER_READER_HELD_MAX;

/// Lets so many reads of each reader through; the others wait here, in their order, and take no
/// place in the queue of all readers.
#[derive(Default)]
pub(super) struct Gate(Mutex<HashMap<String, Arc<Reader>>>);

struct Reader {
    places: Arc<Semaphore>,
    /// Counts those that wait, each with a clone.
    waiting: Arc<()>,
}

impl Default for Reader {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(PER_READER_HELD_MAX)), waiting: Arc::default() }
    }
}

impl Reader {
    fn is_idle(&self) -> bool {
        self.places.available_permits() == PER_READER_HELD_MAX
            && Arc::strong_count(&self.waiting) == 1
    }
}

impl Gate {
    /// How many wait here.
    pub(super) fn waiting(&self) -> usize {
        let readers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        readers.values().map(|reader| Arc::strong_count(&reader.waiting) - 1).sum()
    }

    /// Waits for one of the reader's places, which lasts until it is dropped.
    pub(super) async fn pass(
        &self,
        reader: &str,
        until: Instant,
    ) -> Result<OwnedSemaphorePermit, SamUnavailable> {
        let (places, _waits) = {
            let mut readers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            readers.retain(|name, known| name == reader || !known.is_idle());
            let known = readers.entry(reader.to_owned()).or_default();
            if Arc::strong_count(&known.waiting) > WAITING_MAX {
                return Err(SamUnavailable::Busy);
            }
            (known.places.clone(), known.waiting.clone())
        };
        match timeout_at(until, places.acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            // The places are never closed.
            Ok(Err(_)) => Err(SamUnavailable::NoneReady),
            Err(_elapsed) => Err(SamUnavailable::Busy),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_has_so_many_places_and_no_more() {
        let gate = Gate::default();
        let soon = || Instant::now() + Duration::from_secs(1);
        let mut held = Vec::new();
        for _ in 0..PER_READER_HELD_MAX {
            held.push(gate.pass("a", soon()).await.unwrap());
        }
        assert_eq!(gate.pass("a", soon()).await.unwrap_err(), SamUnavailable::Busy);
        let _others = gate.pass("b", soon()).await.unwrap();
        held.pop();
        held.push(gate.pass("a", soon()).await.unwrap());
        drop(held);
        let _again = gate.pass("a", soon()).await.unwrap();
        drop(gate.pass("c", soon()).await.unwrap());
        let _d = gate.pass("d", soon()).await.unwrap();
        assert_eq!(gate.0.lock().unwrap().len(), 3, "who holds and waits for nothing is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_wait_and_one_more_is_refused_at_once() {
        let gate = Arc::new(Gate::default());
        let held = gate.pass("a", Instant::now()).await.unwrap();
        let _second = gate.pass("a", Instant::now()).await.unwrap();
        let until = Instant::now() + Duration::from_secs(5);
        let waiting: Vec<_> = (0..WAITING_MAX)
            .map(|_| {
                let gate = gate.clone();
                tokio::spawn(async move { gate.pass("a", until).await.map(drop) })
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(gate.waiting(), WAITING_MAX);
        let before = Instant::now();
        assert_eq!(gate.pass("a", until).await.unwrap_err(), SamUnavailable::Busy);
        assert_eq!(Instant::now(), before);
        drop(held);
        for waited in waiting {
            waited.await.unwrap().unwrap();
        }
    }
}
