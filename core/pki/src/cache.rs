use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_crypto::Digest;

use crate::{Leaf, LeafCache};

/// Certificates a [`BoundedLeafCache`] remembers at most.
pub const LEAVES_MAX: usize = 8192;

/// A cache for servers: the oldest entry makes room for a new one.
#[derive(Default)]
pub struct BoundedLeafCache(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    by_hash: HashMap<Digest, Arc<Leaf>>,
    oldest_first: VecDeque<Digest>,
}

impl BoundedLeafCache {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Entries are independent of each other, so a poisoned lock holds nothing half-done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LeafCache for BoundedLeafCache {
    fn find(&self, hash: &Digest) -> Option<Arc<Leaf>> {
        self.lock().by_hash.get(hash).cloned()
    }

    fn put(&self, leaf: &Arc<Leaf>) {
        let mut entries = self.lock();
        if entries.by_hash.insert(*leaf.hash(), leaf.clone()).is_some() {
            return;
        }
        entries.oldest_first.push_back(*leaf.hash());
        if entries.oldest_first.len() > LEAVES_MAX
            && let Some(oldest) = entries.oldest_first.pop_front()
        {
            entries.by_hash.remove(&oldest);
        }
    }
}
