//! Places for what lasts (streams, waits): bounded in all, and for each who asks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A number of places.
#[derive(Clone)]
pub(super) struct Places {
    taken: Arc<Mutex<Taken>>,
    max: usize,
    per_owner: usize,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_owner: HashMap<String, usize>,
}

impl Places {
    /// `max` places, of which one owner may have `per_owner`.
    pub(super) fn new(max: usize, per_owner: usize) -> Self {
        Self { taken: Arc::default(), max, per_owner }
    }

    /// A place for `owner`, the id of an operator or a phone; none if all are taken.
    pub(super) fn take(&self, owner: &str) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.by_owner.get(owner).copied().unwrap_or_default();
        if taken.all >= self.max || own >= self.per_owner {
            return None;
        }
        taken.all += 1;
        taken.by_owner.insert(owner.to_owned(), own + 1);
        Some(Place { taken: self.taken.clone(), owner: owner.to_owned() })
    }
}

/// A place; it is free again when this is dropped.
pub(super) struct Place {
    taken: Arc<Mutex<Taken>>,
    owner: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        if let Some(own) = taken.by_owner.get_mut(&self.owner) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.by_owner.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_in_all_and_by_owner_and_come_back() {
        let places = Places::new(3, 2);
        let first = places.take("opr_1").unwrap();
        let _second = places.take("opr_1").unwrap();
        assert!(places.take("opr_1").is_none(), "two of one owner");
        let _third = places.take("opr_2").unwrap();
        assert!(places.take("opr_3").is_none(), "three in all");
        drop(first);
        let _again = places.take("opr_3").unwrap();
        drop((_second, _third, _again));
        assert!(places.taken.lock().unwrap().by_owner.is_empty());
        assert_eq!(places.taken.lock().unwrap().all, 0);
    }
}
