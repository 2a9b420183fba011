//! The reader and its card, with a clock that is a number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_crypto::{UnixTime, aws_lc};
use countersign_emulator::{CardHandle, CardImage, EmulatedCard, Scheme, sample};
use countersign_idcard::EncryptedData;
use countersign_idcard::cache::{CacheHit, CacheMode};
use countersign_idcard::presence::{QUIET, WIPE_AFTER};
use countersign_idcard::reader::ReadOptions;
use countersign_idcard::record::DocumentType;
use countersign_net::Clock;
use countersign_pki::Role;
use testkit::pair::reader_config;
use testkit::pki::TestPki;

use super::*;

const LOOK: Duration = Duration::from_millis(250);
/// APDUs by which a configuration is read: one selects, one reads.
const CONFIGURATION_APDUS: u64 = 2;

#[derive(Default)]
struct HandClock(AtomicU64);

impl Clock for HandClock {
    fn now(&self) -> UnixTime {
        UnixTime::from_millis(self.0.load(Ordering::SeqCst))
    }
}

struct Desk {
    reader: Reader,
    field: CardHandle,
    clock: Arc<HandClock>,
}

fn card(document: DocumentType) -> Arc<CardImage> {
    let scheme = Scheme::with_demo_key(aws_lc::provider());
    let (mut rng, serial) = (testkit::rng::seeded(1), document as u64 + 1);
    Arc::new(CardImage::new(&scheme, &mut rng, serial, &sample(document), None, None).unwrap())
}

fn citizen() -> Arc<CardImage> {
    card(DocumentType::Citizen)
}

impl Desk {
    fn new(mode: CacheMode) -> Self {
        let provider = aws_lc::provider();
        let mut pki = TestPki::new(provider.clone(), 1);
        let party = pki.party(Role::Reader, "RD-1");
        let config = reader_config(&pki, &party, provider.clone());
        let scheme = Scheme::with_demo_key(provider);
        let (link, field) = EmulatedCard::new(scheme, Box::new(testkit::rng::seeded(2)));
        let clock = Arc::new(HandClock(AtomicU64::new(1_800_000_000_000)));
        let rng = Box::new(|| Box::new(testkit::rng::seeded(3)) as _);
        let gateway = "127.0.0.1:9".to_owned(); // nobody is there, and nobody is asked
        let mut reader = Reader::new(config, gateway, Box::new(link), clock.clone(), rng);
        reader.set_cache(mode, None);
        Self { reader, field, clock }
    }

    fn pass(&self, time: Duration) {
        self.clock.0.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    async fn look(&mut self) -> Result<bool, CardError> {
        self.pass(LOOK);
        self.reader.poll().await
    }

    /// Looks for so long; never finds a card.
    async fn see_nothing(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / LOOK.as_millis() {
            assert_eq!(self.look().await, Ok(false));
        }
    }

    fn keep(&mut self, card: &CardImage) {
        let data = EncryptedData::new(vec![7; countersign_idcard::ENCRYPTED_BASE_LEN].into());
        self.reader.cache.store_encrypted(card.configuration(), &data.unwrap(), false);
    }

    fn keeps(&mut self, card: &CardImage) -> bool {
        matches!(self.reader.cache.lookup(card.configuration(), false), CacheHit::Packets(_))
    }
}

#[tokio::test]
async fn a_configuration_is_read_when_its_card_appears_and_not_again() {
    let mut desk = Desk::new(CacheMode::MultiCard);
    assert_eq!(desk.look().await, Ok(false));
    assert_eq!((desk.field.apdus(), desk.reader.cards_known()), (0, 0));
    desk.field.insert(citizen());
    for _ in 0..5 {
        assert_eq!(desk.look().await, Ok(true));
        assert_eq!(desk.field.apdus(), CONFIGURATION_APDUS);
    }
    assert_eq!(desk.reader.present_configuration(), Some(citizen().configuration()));
    assert!(desk.reader.knows(citizen().configuration()));
}

#[tokio::test]
async fn an_overlooked_card_stays_and_is_compared_when_it_is_seen_again() {
    let mut desk = Desk::new(CacheMode::SingleCard);
    desk.field.insert(citizen());
    desk.look().await.unwrap();
    desk.keep(&citizen());
    for looks in [1, 2] {
        desk.field.overlook(looks);
        for _ in 0..looks {
            assert_eq!(desk.look().await, Ok(false));
            assert!(desk.reader.card_is_present());
        }
        let before = desk.field.apdus();
        assert_eq!(desk.look().await, Ok(true));
        assert_eq!(desk.field.apdus() - before, CONFIGURATION_APDUS);
        assert!(desk.keeps(&citizen()));
    }
}

#[tokio::test]
async fn a_counterfeit_with_the_same_uid_is_not_taken_for_the_card() {
    let mut desk = Desk::new(CacheMode::MultiCard);
    desk.field.set_uid(Some([5; 8]));
    desk.field.insert(citizen());
    desk.look().await.unwrap();
    desk.keep(&citizen());
    // Out of sight for one look, and then another card says it is the one.
    desk.field.overlook(1);
    assert_eq!(desk.look().await, Ok(false));
    let other = card(DocumentType::Foreigner2017);
    desk.field.insert(other.clone());
    assert_eq!(desk.look().await, Ok(true));
    assert_eq!(desk.reader.present_configuration(), Some(other.configuration()));
    assert!(!desk.keeps(&other));
    // Nor one that was put there while nobody looked.
    desk.field.insert(citizen());
    desk.pass(Duration::from_secs(3));
    assert_eq!(desk.look().await, Ok(true));
    assert_eq!(desk.reader.present_configuration(), Some(citizen().configuration()));
    assert!(desk.keeps(&citizen()));
}

#[tokio::test]
async fn one_card_gone_wipes_nothing_and_no_card_for_the_time_wipes_all() {
    let mut desk = Desk::new(CacheMode::MultiCard);
    let cards = [citizen(), card(DocumentType::Foreigner2017)];
    for card in &cards {
        desk.field.insert(card.clone());
        desk.look().await.unwrap();
        desk.keep(card);
    }
    // The second lies there for long: the first is kept with it.
    for _ in 0..100 {
        assert_eq!(desk.look().await, Ok(true));
    }
    assert!(desk.keeps(&cards[0]) && desk.keeps(&cards[1]));
    desk.field.remove();
    desk.see_nothing(QUIET + LOOK).await;
    assert!(!desk.reader.card_is_present() && desk.reader.present_configuration().is_none());
    desk.see_nothing(WIPE_AFTER - QUIET - 2 * LOOK).await;
    assert!(desk.keeps(&cards[0]) && desk.keeps(&cards[1]));
    desk.see_nothing(LOOK).await;
    assert_eq!(desk.reader.cards_known(), 0);
    assert!(!desk.keeps(&cards[0]) && !desk.keeps(&cards[1]));
}

#[tokio::test]
async fn a_clock_set_back_does_not_prolong_what_is_kept() {
    let mut desk = Desk::new(CacheMode::MultiCard);
    desk.field.insert(citizen());
    desk.look().await.unwrap();
    desk.keep(&citizen());
    desk.field.remove();
    desk.see_nothing(QUIET + LOOK).await;
    desk.clock.0.fetch_sub(3_600_000, Ordering::SeqCst);
    assert_eq!(desk.reader.poll().await, Ok(false));
    assert_eq!(desk.reader.cards_known(), 0);
}

#[tokio::test]
async fn power_off_and_the_switch() {
    let mut desk = Desk::new(CacheMode::MultiCard);
    desk.field.insert(citizen());
    desk.look().await.unwrap();
    desk.keep(&citizen());
    desk.reader.card_taken();
    assert!(!desk.reader.card_is_present() && desk.keeps(&citizen()));
    desk.look().await.unwrap();
    assert!(desk.reader.card_is_present() && desk.keeps(&citizen()));
    desk.reader.power_off();
    assert_eq!(desk.reader.cards_known(), 0);
    // It may be used again.
    assert_eq!(desk.look().await, Ok(true));
    assert!(desk.reader.knows(citizen().configuration()) && !desk.keeps(&citizen()));
}

#[tokio::test]
async fn a_card_that_cannot_be_read_at_first_is_looked_at_again() {
    let mut desk = Desk::new(CacheMode::MultiCard);
    desk.field.insert(citizen());
    desk.field.set_silent(true);
    for _ in 0..3 {
        assert_eq!(desk.look().await, Err(CardError::Timeout));
        assert!(desk.reader.present_configuration().is_none());
    }
    desk.field.set_silent(false);
    assert_eq!(desk.look().await, Ok(true));
    assert_eq!(desk.reader.present_configuration(), Some(citizen().configuration()));
    // Removed in the middle of it: one look that finds none confirms.
    desk.field.overlook(1);
    desk.look().await.unwrap();
    desk.field.remove_after(0);
    assert_eq!(desk.look().await, Err(CardError::Removed));
    assert!(desk.reader.card_is_present());
    assert_eq!(desk.look().await, Ok(false));
    assert!(!desk.reader.card_is_present());
}

/// A server that does not answer must not keep what a card left behind (C11).
#[tokio::test]
async fn what_is_kept_goes_with_the_card_also_while_a_read_is_tried_again() {
    let mut desk = Desk::new(CacheMode::MultiCard);
    desk.field.insert(citizen());
    assert_eq!(desk.look().await, Ok(true));
    desk.keep(&citizen());
    let Desk { mut reader, field, clock } = desk;
    reader.set_retry_for(WIPE_AFTER * 1000);
    let reading = tokio::spawn(async move {
        let result = reader.read(ReadOptions::default()).await;
        (result.map(|outcome| outcome.source), reader)
    });
    tokio::time::sleep(POLL_EVERY * 2).await;
    field.remove();
    let tick = u64::try_from(WIPE_AFTER.as_millis()).unwrap() / 20;
    for _ in 0..400 {
        if reading.is_finished() {
            break;
        }
        clock.0.fetch_add(tick, Ordering::SeqCst);
        tokio::time::sleep(POLL_EVERY).await;
    }
    assert!(reading.is_finished(), "it would be tried again for hours");
    let (result, reader) = reading.await.unwrap();
    assert_eq!(result.unwrap_err().check(), "server-unreachable");
    assert_eq!(reader.cards_known(), 0);
}
