//! How many device connections one source may hold, so that one cannot take all places.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many times as many connections an IPv6 site (/48) may have as one of its networks (/64):
/// with all of its 65 536 networks it still leaves most places to others.
const PER_SITE: usize = 4;

/// Whom connections are counted for: an IPv4 address, or the network of an IPv6 address (its rest
/// is free to choose) and the site it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    V4([u8; 4]),
    V6Network([u8; 8]),
    V6Site([u8; 6]),
}

impl Source {
    fn of(address: IpAddr) -> [Option<Self>; 2] {
        match address {
            IpAddr::V4(ip) => [Some(Self::V4(ip.octets())), None],
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, g, h, ..] = ip.octets();
                let network = Self::V6Network([a, b, c, d, e, f, g, h]);
                [Some(network), Some(Self::V6Site([a, b, c, d, e, f]))]
            }
        }
    }
}

/// The connections of each source. A source without one takes no memory, so that there are at most
/// as many entries as connections, two for each IPv6 one.
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
    sources: [Option<Source>; 2],
}

impl PerSource {
    /// Each source may hold `most` connections.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, counts: Arc::default() }
    }

    /// A place for a connection from `address`, if its source has one left.
    pub(crate) fn hold(&self, address: IpAddr) -> Option<Held> {
        let sources = Source::of(address);
        let mut counts = self.counts.lock();
        let is_full = |source: &Source| {
            let most = match source {
                Source::V6Site(_) => self.most * PER_SITE,
                Source::V4(_) | Source::V6Network(_) => self.most,
            };
            counts.get(source).is_some_and(|count| *count >= most)
        };
        if sources.iter().flatten().any(is_full) {
            return None;
        }
        for source in sources.into_iter().flatten() {
            *counts.entry(source).or_default() += 1;
        }
        Some(Held { counts: self.counts.clone(), sources })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        for source in self.sources.into_iter().flatten() {
            if let Entry::Occupied(mut entry) = counts.entry(source) {
                *entry.get_mut() -= 1;
                if *entry.get() == 0 {
                    entry.remove();
                }
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
        let held = sources.hold(ip("2001:db8:0:1::1"));
        assert!(sources.hold(ip("2001:db8:0:1:ffff::2")).is_none());
        let more: Vec<_> = (2..=9)
            .filter_map(|network| sources.hold(ip(&format!("2001:db8:0:{network}::1"))))
            .collect();
        assert_eq!(more.len(), PER_SITE - 1, "and whoever has a site, all its networks");
        assert!(sources.hold(ip("2001:db8:1:2::1")).is_some(), "another site");
        drop((held, more));
        assert!(sources.counts.lock().is_empty());
    }
}
