//! How many device connections one source may hold, so that one cannot take all places.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What of an IPv6 address names a customer's network: the rest is free to choose.
const IPV6_PREFIX_LEN: usize = 8;

/// Whom connections are counted for: an IPv4 address, or the network of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    V4([u8; 4]),
    V6([u8; IPV6_PREFIX_LEN]),
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(ip) => Self::V4(ip.octets()),
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, g, h, ..] = ip.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// The connections of each source. A source without one takes no memory, so that there are at most
/// as many entries as connections.
pub(crate) struct PerSource {
    most: usize,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts(Mutex<BTreeMap<Source, usize>>);

impl Counts {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Source, usize>> {
        // No method leaves the map half-changed, so a poisoned lock is still sound.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place; dropping it gives the place back.
pub(crate) struct Held {
    counts: Arc<Counts>,
    source: Source,
}

impl PerSource {
    /// Each source may hold `most` connections.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, counts: Arc::default() }
    }

    /// A place for a connection from `address`, if its source has one left.
    pub(crate) fn hold(&self, address: IpAddr) -> Option<Held> {
        let source = Source::from(address);
        let mut counts = self.counts.lock();
        let count = counts.get(&source).copied().unwrap_or_default();
        if count >= self.most {
            return None;
        }
        counts.insert(source, count + 1);
        Some(Held { counts: self.counts.clone(), source })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.counts.lock().entry(self.source) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_holds_so_many_and_no_more_and_others_are_not_touched() {
        let sources = PerSource::new(2);
        let first = sources.hold(ip("192.0.2.1"));
        let second = sources.hold(ip("192.0.2.1"));
        assert!(first.is_some() && second.is_some());
        assert!(sources.hold(ip("192.0.2.1")).is_none());
        assert!(sources.hold(ip("192.0.2.2")).is_some());
        drop(first);
        let third = sources.hold(ip("192.0.2.1"));
        assert!(third.is_some() && sources.hold(ip("192.0.2.1")).is_none());
        drop((second, third));
        assert!(sources.counts.lock().is_empty(), "whoever has gone leaves nothing");
    }

    /// Whoever has an IPv6 network has all its addresses.
    #[test]
    fn an_ipv6_network_is_one_source() {
        let sources = PerSource::new(1);
        let _held = sources.hold(ip("2001:db8:0:1::1"));
        assert!(sources.hold(ip("2001:db8:0:1:ffff::2")).is_none());
        assert!(sources.hold(ip("2001:db8:0:2::1")).is_some());
    }
}
