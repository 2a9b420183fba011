//! Who has which card (A8): leases, the places of the cards, and how much of each was used.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_iso7816::{CardLink, LinkError};
use countersign_wallet::flow::CardTaken;
use countersign_wallet::lease::{LeaseError, Leases};
use countersign_wallet::login::Access;
use countersign_wallet::message::{Atr, CardId, CardLine, Label};
use countersign_wallet::policy::{CardLimits, Policy, Usage};
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::files::Shelf;
use super::source::OpenCard;
use super::{CardSettings, CardSource, ManagerError, ManagerSettings};

/// How long a card that was just given back may take to be let go of.
const HANDOVER: Duration = Duration::from_secs(5);

/// A card in the hands of one session: nobody else reaches it until this is dropped, also if its
/// lease is over and it has not answered yet.
#[derive(Debug)]
pub(super) struct HeldCard {
    open: OpenCard,
    _place: OwnedMutexGuard<()>,
}

impl HeldCard {
    /// One command, once. Blocking.
    pub(super) fn transmit(&mut self, command: &[u8]) -> Result<Zeroizing<Vec<u8>>, LinkError> {
        self.open.transmit(command).map(Zeroizing::new)
    }

    /// Blocking.
    pub(super) fn reset(&mut self) -> Result<Atr, LinkError> {
        self.open.reset()?;
        atr_of(&self.open).ok_or_else(|| LinkError::Failed("no answer to reset".to_owned()))
    }
}

/// A card that a session was given.
#[derive(Debug)]
pub(super) struct Lent {
    pub(super) card: String,
    pub(super) label: String,
    pub(super) lease: u64,
    pub(super) seconds: u32,
    pub(super) held: HeldCard,
    pub(super) taken: CardTaken,
}

/// The cards of a manager.
pub(super) struct Desk {
    cards: Vec<CardSettings>,
    alarm: CardLimits,
    source: Arc<dyn CardSource>,
    leases: Mutex<Leases>,
    places: BTreeMap<String, Arc<tokio::sync::Mutex<()>>>,
    shelf: Shelf,
    usage: Mutex<BTreeMap<String, Usage>>,
}

impl Desk {
    pub(super) fn open(
        dir: &Path,
        settings: &ManagerSettings,
        source: Arc<dyn CardSource>,
    ) -> Result<Self, ManagerError> {
        let shelf = Shelf::open(dir)?;
        let mut usage = BTreeMap::new();
        for id in shelf.ids()? {
            usage.extend(shelf.load(&id)?.map(|used: Usage| (id, used)));
        }
        let places = settings.cards.iter().map(|card| (card.id.clone(), Arc::default())).collect();
        Ok(Self {
            cards: settings.cards.clone(),
            alarm: settings.alarm.limits(),
            source,
            leases: Mutex::default(),
            places,
            shelf,
            usage: Mutex::new(usage),
        })
    }

    /// The cards that a session has, as this sleeve sees them. Blocking.
    pub(super) fn list(
        &self,
        now: UnixTime,
        sleeve: &str,
        shows: impl Fn(&CardSettings) -> bool,
    ) -> Vec<CardLine> {
        let shown = self.cards.iter().filter(|card| shows(card));
        let lines = shown.filter_map(|card| {
            let (id, label) = (CardId::new(&card.id)?, Label::new(&card.label)?);
            let holder = self.leases().of_card(now, &card.id).map(|lease| lease.sleeve.clone());
            let lent = holder.as_ref().is_some_and(|holder| holder != sleeve);
            // A card in use is there, and nobody looks into its reader meanwhile.
            let place = self.places.get(&card.id).map(|place| place.try_lock());
            let in_use = holder.is_some() || matches!(place, Some(Err(_)));
            let present = in_use || self.source.is_present(card);
            Some(CardLine::new(id, label, present, lent))
        });
        lines.collect()
    }

    /// Lends a card to a sleeve, or says which check refuses it.
    pub(super) async fn take(
        self: Arc<Self>,
        now: UnixTime,
        (card, sleeve): (String, String),
        access: Access,
        shows: impl Fn(&CardSettings) -> bool + Send,
    ) -> Result<Lent, String> {
        // What this session does not have is unknown to it: no different from what nobody has.
        let found = self.cards.iter().find(|one| one.id == card && shows(one)).cloned();
        let card = found.ok_or_else(|| "card-unknown".to_owned())?;
        let refused = |error: LeaseError| error.check().to_owned();
        let lease = {
            let mut leases = self.leases();
            leases.take(now, &card.id, &sleeve, card.lease()).map(|lease| lease.id)
        };
        let lease = lease.map_err(refused)?;
        let lent = self.clone().power(now, &card, lease, access).await;
        if lent.is_err() {
            self.leases().release(lease);
        }
        lent
    }

    async fn power(
        self: Arc<Self>,
        now: UnixTime,
        card: &CardSettings,
        lease: u64,
        access: Access,
    ) -> Result<Lent, String> {
        let place = self.places.get(&card.id).cloned().ok_or_else(|| "card-unknown".to_owned())?;
        let place = timeout(HANDOVER, place.lock_owned()).await;
        let place = place.map_err(|_elapsed| "card-busy".to_owned())?;
        let (desk, settings) = (self.clone(), card.clone());
        let opened = tokio::task::spawn_blocking(move || desk.source.open(&settings)).await;
        let opened = opened.map_err(|_| "internal".to_owned())?;
        let open = opened.map_err(|error| error.check().to_owned())?;
        let atr = atr_of(&open).ok_or_else(|| "card-atr".to_owned())?;
        let label = Label::new(&card.label).ok_or_else(|| "internal".to_owned())?;
        let usage = self.usage().get(&card.id).copied().unwrap_or_default().at(now);
        let policy = Policy::new(card.rules(), &self.alarm, access, usage);
        let policy = policy.map_err(|error| error.check().to_owned())?;
        let seconds = card.lease_seconds;
        Ok(Lent {
            card: card.id.clone(),
            label: card.label.clone(),
            lease,
            seconds,
            held: HeldCard { open, _place: place },
            taken: CardTaken { lease, seconds, atr, label, policy },
        })
    }

    /// The card is used.
    pub(super) fn renew(&self, now: UnixTime, lease: u64) -> Result<(), LeaseError> {
        self.leases().renew(now, lease)
    }

    /// A lease is over.
    pub(super) fn release(&self, lease: u64) {
        self.leases().release(lease);
    }

    /// When a lease ends unless its card is used before; none if it has ended.
    pub(super) fn expires(&self, lease: u64) -> Option<UnixTime> {
        self.leases().expires(lease)
    }

    /// Ends a card's lease: its owner wants it back. Which one it was.
    pub(super) fn recall(&self, card: &str) -> Option<u64> {
        self.leases().revoke_card(card).map(|lease| lease.id)
    }

    /// Ends all leases of a sleeve that is revoked.
    pub(super) fn revoke_sleeve(&self, sleeve: &str) {
        self.leases().revoke_sleeve(sleeve);
    }

    /// Stores what was used of a card. Blocking.
    pub(super) fn store_usage(&self, card: &str, used: Usage) -> Result<(), ManagerError> {
        self.shelf.save(card, &used)?;
        self.usage().insert(card.to_owned(), used);
        Ok(())
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn usage(&self) -> MutexGuard<'_, BTreeMap<String, Usage>> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn atr_of(open: &OpenCard) -> Option<Atr> {
    Some(open.answer_to_reset()).filter(|atr| !atr.is_empty()).and_then(Atr::new)
}
