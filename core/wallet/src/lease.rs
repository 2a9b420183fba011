//! Who has which card: one sleeve a card, until it gives it back or does not use it (A8).

use core::time::Duration;
use std::collections::BTreeMap;

use countersign_crypto::UnixTime;
use thiserror::Error;

use crate::message::CARDS_MAX;

/// The longest lease.
pub const LEASE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A card is not lent, or a lease not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// Another sleeve has the card.
    #[error("another sleeve has the card")]
    Lent,
    /// No such lease: it ended.
    #[error("the lease has ended")]
    Ended,
    /// A length of zero or beyond [`LEASE_MAX`], or more cards than [`CARDS_MAX`].
    #[error("no such lease can be")]
    Bounds,
}

impl LeaseError {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(self) -> &'static str {
        match self {
            Self::Lent => "card-lent",
            Self::Ended => "lease-expired",
            Self::Bounds => "lease-bounds",
        }
    }
}

/// One card's lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its number, never given twice by one table.
    pub id: u64,
    /// Which card.
    pub card: String,
    /// Who has it.
    pub sleeve: String,
    /// When it ends unless it is used before.
    pub expires: UnixTime,
    length: Duration,
}

/// All leases of a manager.
#[derive(Debug, Default)]
pub struct Leases {
    /// By card: a card has one or none.
    leases: BTreeMap<String, Lease>,
    given: u64,
}

impl Leases {
    /// Lends a card. A sleeve that has it already, from a connection that broke, gets a new lease;
    /// the old one is over.
    ///
    /// # Errors
    /// [`LeaseError::Lent`] or [`LeaseError::Bounds`].
    pub fn take(
        &mut self,
        now: UnixTime,
        card: &str,
        sleeve: &str,
        length: Duration,
    ) -> Result<&Lease, LeaseError> {
        let held = self.leases.get(card).filter(|lease| now < lease.expires);
        if held.is_some_and(|lease| lease.sleeve != sleeve) {
            return Err(LeaseError::Lent);
        }
        let full = self.leases.len() >= CARDS_MAX && !self.leases.contains_key(card);
        if length.is_zero() || length > LEASE_MAX || full {
            return Err(LeaseError::Bounds);
        }
        self.given += 1;
        let lease = Lease {
            id: self.given,
            card: card.to_owned(),
            sleeve: sleeve.to_owned(),
            expires: now.plus(length),
            length,
        };
        self.leases.insert(card.to_owned(), lease);
        self.leases.get(card).ok_or(LeaseError::Ended)
    }

    /// The card is used: its lease lasts its whole length again.
    ///
    /// # Errors
    /// [`LeaseError::Ended`] if it ended: given back, revoked, replaced or expired.
    pub fn renew(&mut self, now: UnixTime, id: u64) -> Result<(), LeaseError> {
        let lease = self.leases.values_mut().find(|lease| lease.id == id);
        let lease = lease.filter(|lease| now < lease.expires).ok_or(LeaseError::Ended)?;
        lease.expires = now.plus(lease.length);
        Ok(())
    }

    /// Ends a lease; `None` if it had ended.
    pub fn release(&mut self, id: u64) -> Option<Lease> {
        self.end(|lease| lease.id == id).pop()
    }

    /// Ends all leases of a sleeve: it is revoked, or its session is over.
    pub fn revoke_sleeve(&mut self, sleeve: &str) -> Vec<Lease> {
        self.end(|lease| lease.sleeve == sleeve)
    }

    /// Ends a card's lease: it was removed, or its owner wants it back.
    pub fn revoke_card(&mut self, card: &str) -> Option<Lease> {
        self.leases.remove(card)
    }

    /// Ends what has expired.
    pub fn expire(&mut self, now: UnixTime) -> Vec<Lease> {
        self.end(|lease| lease.expires <= now)
    }

    /// When [`Self::expire`] is next due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<UnixTime> {
        self.leases.values().map(|lease| lease.expires).min()
    }

    /// When a lease ends unless its card is used before; `None` if it was given back, revoked,
    /// replaced or swept.
    #[must_use]
    pub fn expires(&self, id: u64) -> Option<UnixTime> {
        self.leases.values().find(|lease| lease.id == id).map(|lease| lease.expires)
    }

    /// The lease of a card, if someone has it.
    #[must_use]
    pub fn of_card(&self, now: UnixTime, card: &str) -> Option<&Lease> {
        self.leases.get(card).filter(|lease| now < lease.expires)
    }

    fn end(&mut self, is_over: impl Fn(&Lease) -> bool) -> Vec<Lease> {
        self.leases.extract_if(.., |_, lease| is_over(lease)).map(|(_, lease)| lease).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> UnixTime {
        UnixTime::from_secs(1_000 + seconds)
    }

    #[test]
    fn a8_one_sleeve_a_card() {
        let mut leases = Leases::default();
        let first = leases.take(at(0), "visa", "SLV-1", MINUTE).unwrap().id;
        let refused = leases.take(at(1), "visa", "SLV-2", MINUTE).unwrap_err();
        assert_eq!((refused, refused.check()), (LeaseError::Lent, "card-lent"));
        // Another card is another matter.
        leases.take(at(1), "key", "SLV-2", MINUTE).unwrap();
        assert_eq!(leases.of_card(at(1), "visa").map(|lease| lease.id), Some(first));
        leases.release(first).unwrap();
        leases.take(at(2), "visa", "SLV-2", MINUTE).unwrap();
    }

    #[test]
    fn a8_a_lease_expires_unless_its_card_is_used() {
        let mut leases = Leases::default();
        let id = leases.take(at(0), "visa", "SLV-1", MINUTE).unwrap().id;
        assert_eq!(leases.poll_timeout(), Some(at(60)));
        leases.renew(at(59), id).unwrap();
        assert!(leases.expire(at(118)).is_empty());
        assert_eq!(leases.renew(at(119), id), Err(LeaseError::Ended));
        // Expired is free, also before anyone has swept.
        assert_eq!(leases.of_card(at(119), "visa"), None);
        leases.take(at(119), "visa", "SLV-2", MINUTE).unwrap();
        let ended = leases.expire(at(200));
        assert_eq!(ended.len(), 1);
        assert_eq!((ended[0].card.as_str(), ended[0].sleeve.as_str()), ("visa", "SLV-2"));
        assert_eq!(leases.poll_timeout(), None);
    }

    #[test]
    fn a8_a_sleeve_that_comes_again_replaces_its_lease() {
        let mut leases = Leases::default();
        let old = leases.take(at(0), "visa", "SLV-1", MINUTE).unwrap().id;
        let new = leases.take(at(1), "visa", "SLV-1", MINUTE).unwrap().id;
        assert_ne!(old, new);
        assert_eq!(leases.renew(at(2), old), Err(LeaseError::Ended));
        leases.renew(at(2), new).unwrap();
        assert_eq!(leases.release(old), None);
    }

    #[test]
    fn a8_revoking_a_sleeve_or_a_card_ends_its_leases_at_once() {
        let mut leases = Leases::default();
        let first = leases.take(at(0), "visa", "SLV-1", MINUTE).unwrap().id;
        leases.take(at(0), "key", "SLV-1", MINUTE).unwrap();
        leases.take(at(0), "bus", "SLV-2", MINUTE).unwrap();
        assert_eq!(leases.revoke_sleeve("SLV-1").len(), 2);
        assert_eq!(leases.renew(at(1), first), Err(LeaseError::Ended));
        assert!(leases.of_card(at(1), "bus").is_some());
        assert!(leases.revoke_card("bus").is_some());
        assert!(leases.of_card(at(1), "bus").is_none());
    }

    #[test]
    fn a_lease_has_bounds() {
        let mut leases = Leases::default();
        for wrong in [Duration::ZERO, LEASE_MAX + Duration::from_millis(1)] {
            let refused = leases.take(at(0), "visa", "SLV-1", wrong).unwrap_err();
            assert_eq!((refused, refused.check()), (LeaseError::Bounds, "lease-bounds"));
        }
        for card in 0..CARDS_MAX {
            leases.take(at(0), &card.to_string(), "SLV-1", MINUTE).unwrap();
        }
        assert_eq!(leases.take(at(0), "more", "SLV-1", MINUTE).err(), Some(LeaseError::Bounds));
        leases.take(at(0), "0", "SLV-1", MINUTE).unwrap();
    }

    proptest! {
        /// Whatever is done in whatever order: a card is used by one sleeve at a time.
        #[test]
        fn a_valid_lease_is_the_only_one_of_its_card(
            steps in prop::collection::vec((0..5_u8, 0..3_u8, 0..3_u8, 0..40_u64), 1..80),
        ) {
            let mut leases = Leases::default();
            let mut given: Vec<(u64, String, String)> = Vec::new();
            let mut now = at(0);
            for (what, card, sleeve, pause) in steps {
                now = now.plus(Duration::from_secs(pause));
                let (card, sleeve) = (format!("c{card}"), format!("s{sleeve}"));
                match what {
                    0 | 1 => {
                        if let Ok(lease) = leases.take(now, &card, &sleeve, MINUTE) {
                            prop_assert!(given.iter().all(|(id, ..)| *id < lease.id));
                            given.push((lease.id, card, sleeve));
                        }
                    }
                    2 => drop(leases.revoke_sleeve(&sleeve)),
                    3 => drop(leases.revoke_card(&card)),
                    _ => drop(leases.expire(now)),
                }
                let mut used: Vec<&String> = Vec::new();
                for (id, card, sleeve) in &given {
                    if leases.renew(now, *id).is_ok() {
                        prop_assert!(!used.contains(&card), "{} used twice", card);
                        prop_assert_eq!(&leases.of_card(now, card).unwrap().sleeve, sleeve);
                        used.push(card);
                    }
                }
            }
        }
    }
}
