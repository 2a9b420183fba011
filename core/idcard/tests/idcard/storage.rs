//! The cache over a storage that fails, is tampered with, or dies (C7, C8, C11, C13, C15).

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};

use countersign_crypto::{Secret, rust_crypto};
use countersign_idcard::cache::{
    CARDS_MAX, CacheHit, CacheMode, CacheNote, CacheStorage, Kind, NOTES_MAX, ReaderCache,
    SEALED_LEN_MAX, Slot, StorageError,
};
use countersign_idcard::{Configuration, ENCRYPTED_LEN_MAX, EncryptedData, PlainData};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

/// What the storage does at each operation from a certain one on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Failing {
    /// It says so.
    Error,
    /// The process dies there.
    Death,
}

#[derive(Default)]
struct Chip {
    blobs: [Option<Vec<u8>>; Slot::COUNT],
    operations: Vec<(&'static str, usize)>,
    /// From the operation with this number on, counted from 0.
    failing: Option<(usize, Failing)>,
    erase_fails: bool,
}

impl Chip {
    fn begin(&mut self, what: &'static str, slot: Slot) -> Result<(), StorageError> {
        let number = self.operations.len();
        self.operations.push((what, slot.index()));
        match self.failing {
            Some((from, Failing::Death)) if number >= from => panic!("power cut"),
            Some((from, Failing::Error)) if number >= from => Err(StorageError("full".into())),
            _ => Ok(()),
        }
    }
}

#[derive(Clone, Default)]
struct Flash(Arc<Mutex<Chip>>);

impl Flash {
    fn chip(&self) -> MutexGuard<'_, Chip> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn blobs(&self) -> Vec<Vec<u8>> {
        self.chip().blobs.iter().flatten().cloned().collect()
    }

    fn blob(&self, kind: Kind) -> Vec<u8> {
        let chip = self.chip();
        let slots: Vec<_> = Slot::all().filter(|slot| slot.kind() == kind).collect();
        slots.iter().find_map(|slot| chip.blobs[slot.index()].clone()).expect("a blob is kept")
    }

    fn set_blobs(&self, change: impl Fn(Slot, Vec<u8>) -> Vec<u8>) {
        let mut chip = self.chip();
        for slot in Slot::all() {
            let blob = chip.blobs[slot.index()].take();
            chip.blobs[slot.index()] = blob.map(|blob| change(slot, blob));
        }
    }
}

impl CacheStorage for Flash {
    fn write(&mut self, slot: Slot, sealed: &[u8]) -> Result<(), StorageError> {
        assert!(sealed.len() <= SEALED_LEN_MAX);
        let mut chip = self.chip();
        chip.begin("write", slot)?;
        chip.blobs[slot.index()] = Some(sealed.to_vec());
        Ok(())
    }

    fn read(&mut self, slot: Slot) -> Result<Option<Vec<u8>>, StorageError> {
        let mut chip = self.chip();
        chip.begin("read", slot)?;
        Ok(chip.blobs[slot.index()].clone())
    }

    fn erase(&mut self, slot: Slot) -> Result<(), StorageError> {
        let mut chip = self.chip();
        chip.begin("erase", slot)?;
        if chip.erase_fails {
            return Err(StorageError("worn out".into()));
        }
        chip.blobs[slot.index()] = None;
        Ok(())
    }
}

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn cache(mode: CacheMode, flash: &Flash) -> ReaderCache {
    let storage = Box::new(flash.clone());
    ReaderCache::with_storage(mode, rust_crypto::provider(), storage, Box::new(rng(9)))
}

fn card(number: u8) -> Configuration {
    Configuration::new([number; 32])
}

/// Told apart from noise by its pattern.
fn encrypted(card: u8) -> EncryptedData {
    let bytes: Vec<u8> = (0..ENCRYPTED_LEN_MAX).map(|at| (at as u8) ^ card).collect();
    EncryptedData::new(bytes.into()).expect("a possible length")
}

fn plain(card: u8) -> PlainData {
    let secret = |len: usize| Secret::new((0..len).map(|at| (at as u8) ^ card).collect());
    PlainData::new(secret(256), secret(1024), Some(secret(1024))).expect("lengths fit")
}

fn keep(cache: &mut ReaderCache, number: u8) {
    cache.store_encrypted(&card(number), &encrypted(number), true);
    cache.store_plaintext(&mut rng(number.into()), &card(number), &plain(number)).expect("seals");
}

fn has_plaintext(cache: &mut ReaderCache, number: u8) -> bool {
    match cache.lookup(&card(number), true) {
        CacheHit::Plaintext(found) => {
            assert_eq!(found.text(), plain(number).text());
            assert_eq!(found.fingerprint(), plain(number).fingerprint());
            true
        }
        _ => false,
    }
}

fn has_packets(cache: &mut ReaderCache, number: u8) -> bool {
    match cache.lookup(&card(number), true) {
        CacheHit::Packets(packets) => {
            assert_eq!(packets, encrypted(number).packets());
            true
        }
        _ => false,
    }
}

fn has_nothing(cache: &mut ReaderCache, number: u8) -> bool {
    matches!(cache.lookup(&card(number), true), CacheHit::Nothing)
}

fn notes(cache: &mut ReaderCache) -> Vec<CacheNote> {
    std::iter::from_fn(|| cache.poll_note()).collect()
}

/// No blob shows anything of any card.
fn expect_ciphertext_only(flash: &Flash) {
    let blobs = flash.blobs();
    for number in 0..=CARDS_MAX as u8 {
        for pattern in [encrypted(number).as_bytes(), &plain(number).text()[..]] {
            let shows = |blob: &Vec<u8>| blob.windows(8).any(|window| window == &pattern[..8]);
            assert!(!blobs.iter().any(shows), "card {number} shows in the storage");
        }
    }
}

#[test]
fn what_is_kept_lies_sealed_in_the_storage_and_comes_back() {
    let flash = Flash::default();
    let mut cache = cache(CacheMode::MultiCard, &flash);
    for number in 0..CARDS_MAX as u8 {
        keep(&mut cache, number);
    }
    assert_eq!(flash.blobs().len(), Slot::COUNT);
    assert!(flash.blobs().iter().all(|blob| blob.len() <= SEALED_LEN_MAX));
    expect_ciphertext_only(&flash);
    assert!((0..CARDS_MAX as u8).all(|number| has_plaintext(&mut cache, number)));
    assert_eq!(notes(&mut cache), []);
    // The card used longest ago makes room, in the storage too.
    cache.card_appeared(&card(200));
    assert_eq!(flash.blobs().len(), Slot::COUNT - 2);
    assert!(has_nothing(&mut cache, 0) && has_plaintext(&mut cache, 1));
    drop(cache);
    assert_eq!(flash.blobs(), Vec::<Vec<u8>>::new(), "power-off erases");
}

#[test]
fn a_bit_changed_anywhere_is_tampering_and_the_packets_then_the_card_answer() {
    let flash = Flash::default();
    let mut cache = cache(CacheMode::MultiCard, &flash);
    let flips: [fn(&mut Vec<u8>); 5] = [
        |blob| blob[0] ^= 1,
        |blob| *blob.last_mut().expect("not empty") ^= 0x80,
        |blob| blob.truncate(blob.len() - 1),
        |blob| blob.push(0),
        Vec::clear,
    ];
    for flip in flips {
        keep(&mut cache, 1);
        let change = |wanted: Kind| {
            flash.set_blobs(|slot, mut blob| {
                if slot.kind() == wanted {
                    flip(&mut blob);
                }
                blob
            });
        };
        change(Kind::Plaintext);
        assert!(has_packets(&mut cache, 1));
        assert_eq!(notes(&mut cache), [CacheNote::Tampered(Kind::Plaintext)]);
        change(Kind::Encrypted);
        assert!(has_nothing(&mut cache, 1));
        assert_eq!(notes(&mut cache), [CacheNote::Tampered(Kind::Encrypted)]);
        assert_eq!(flash.blobs(), Vec::<Vec<u8>>::new(), "what was tampered with is erased");
        assert!(has_nothing(&mut cache, 1) && notes(&mut cache).is_empty(), "told once");
    }
    // A blob that is not there any more.
    keep(&mut cache, 1);
    flash.chip().blobs = Default::default();
    assert!(has_nothing(&mut cache, 1));
    let gone = [Kind::Plaintext, Kind::Encrypted].map(CacheNote::Tampered);
    assert_eq!(notes(&mut cache), gone);
}

#[test]
fn blobs_swapped_between_cards_are_found() {
    let flash = Flash::default();
    let mut cache = cache(CacheMode::MultiCard, &flash);
    keep(&mut cache, 1);
    keep(&mut cache, 2);
    let places: Vec<_> = Slot::all().filter(|slot| slot.kind() == Kind::Plaintext).collect();
    flash.chip().blobs.swap(places[0].index(), places[1].index());
    assert!(has_packets(&mut cache, 1) && has_packets(&mut cache, 2));
    assert_eq!(notes(&mut cache), vec![CacheNote::Tampered(Kind::Plaintext); 2]);
}

#[test]
fn an_older_blob_of_the_same_card_is_found() {
    let flash = Flash::default();
    let mut cache = cache(CacheMode::MultiCard, &flash);
    keep(&mut cache, 1);
    let old = flash.blob(Kind::Encrypted);
    cache.store_encrypted(&card(1), &encrypted(1), true);
    assert_ne!(flash.blob(Kind::Encrypted), old, "the same data are never sealed alike");
    flash.set_blobs(|_, _| old.clone());
    assert!(has_nothing(&mut cache, 1));
    assert_eq!(notes(&mut cache), [CacheNote::Tampered(Kind::Encrypted)]);
}

#[test]
fn a_full_storage_only_keeps_nothing() {
    let flash = Flash::default();
    let mut cache = cache(CacheMode::MultiCard, &flash);
    let from = flash.chip().operations.len();
    flash.chip().failing = Some((from, Failing::Error));
    keep(&mut cache, 1);
    assert!(has_nothing(&mut cache, 1) && cache.knows(&card(1)));
    let told = notes(&mut cache);
    let not_kept = |kind| CacheNote::NotKept { kind, reason: StorageError("full".into()) };
    assert!(told.contains(&not_kept(Kind::Encrypted)) && told.contains(&not_kept(Kind::Plaintext)));
    // Room again: it keeps again.
    flash.chip().failing = None;
    keep(&mut cache, 1);
    assert!(has_plaintext(&mut cache, 1));
    assert_eq!(notes(&mut cache), []);
    // Reading fails: as if it were not there.
    let from = flash.chip().operations.len();
    flash.chip().failing = Some((from, Failing::Error));
    assert!(has_nothing(&mut cache, 1));
    let unreadable = |note: &CacheNote| matches!(note, CacheNote::Unreadable { .. });
    assert_eq!(notes(&mut cache).iter().filter(|note| unreadable(note)).count(), 2);
    // Notes that nobody takes do not pile up.
    for _ in 0..NOTES_MAX {
        keep(&mut cache, 1);
    }
    assert_eq!(notes(&mut cache).len(), NOTES_MAX);
}

/// C8: everything of the previous card is erased before anything of the new one is stored, and
/// wherever the power goes, no card's data can be opened afterwards.
#[test]
fn single_card_mode_erases_first_wherever_it_fails() {
    let flash = Flash::default();
    let mut one = cache(CacheMode::SingleCard, &flash);
    keep(&mut one, 1);
    flash.chip().operations.clear();
    one.card_appeared(&card(2));
    assert!(flash.chip().operations.iter().all(|(what, _)| *what == "erase"));
    assert_eq!(flash.blobs(), Vec::<Vec<u8>>::new());
    keep(&mut one, 2);
    let steps = flash.chip().operations.len();
    assert!(one.len() == 1 && !one.knows(&card(1)) && has_plaintext(&mut one, 2));
    drop(one);

    for failing in [Failing::Error, Failing::Death] {
        for step in 0..steps {
            let flash = Flash::default();
            let mut one = cache(CacheMode::SingleCard, &flash);
            keep(&mut one, 1);
            flash.chip().operations.clear();
            flash.chip().failing = Some((step, failing));
            let ended = catch_unwind(AssertUnwindSafe(|| keep(&mut one, 2)));
            assert_eq!(ended.is_err(), failing == Failing::Death);
            flash.chip().failing = None;
            // Of the first card nothing is left that answers, whatever the storage still holds.
            assert!(!one.knows(&card(1)) && has_nothing(&mut one, 1), "step {step}");
            expect_ciphertext_only(&flash);
            // A start after the power came back finds nothing that opens, and erases it.
            std::mem::forget(one); // no wipe: the power was cut
            let mut next = cache(CacheMode::SingleCard, &flash);
            assert!(next.is_empty() && has_nothing(&mut next, 1) && has_nothing(&mut next, 2));
            assert_eq!(flash.blobs(), Vec::<Vec<u8>>::new());
        }
    }
}

/// C11 (configuration and encrypted data) and C15 (plaintext), in both modes: the keys go first.
/// Each storage here keeps what it should erase, and still nothing opens.
#[test]
fn a_wipe_takes_the_keys_first() {
    for mode in [CacheMode::SingleCard, CacheMode::MultiCard] {
        for plaintext in [false, true] {
            for failing in [Failing::Error, Failing::Death] {
                let flash = Flash::default();
                let mut cache = cache(mode, &flash);
                cache.store_encrypted(&card(1), &encrypted(1), true);
                if plaintext {
                    cache.store_plaintext(&mut rng(3), &card(1), &plain(1)).expect("seals");
                    assert!(has_plaintext(&mut cache, 1));
                } else {
                    assert!(has_packets(&mut cache, 1));
                }
                let kept = flash.blobs();
                let at_erase = flash.chip().operations.len();
                flash.chip().failing = Some((at_erase, failing));
                let ended = catch_unwind(AssertUnwindSafe(|| cache.wipe()));
                assert_eq!(ended.is_err(), failing == Failing::Death);
                let first = flash.chip().operations[at_erase].0;
                assert_eq!(first, "erase", "no other operation is needed");
                assert_eq!(flash.blobs(), kept, "the storage still holds all of it");
                // The very cache that sealed them has no key for them any more.
                flash.chip().failing = None;
                assert!(cache.is_empty() && has_nothing(&mut cache, 1));
                cache.card_appeared(&card(1));
                assert!(has_nothing(&mut cache, 1));
                // The next wipe erases what this one could not.
                cache.wipe();
                assert_eq!(flash.blobs(), Vec::<Vec<u8>>::new());
            }
        }
    }
}

#[test]
fn an_erase_that_fails_is_told() {
    let flash = Flash::default();
    let mut cache = cache(CacheMode::MultiCard, &flash);
    keep(&mut cache, 1);
    flash.chip().erase_fails = true;
    cache.wipe();
    let worn = CacheNote::NotErased(StorageError("worn out".into()));
    assert_eq!(notes(&mut cache), [worn.clone(), worn]);
    assert_eq!(flash.blobs().len(), 2);
    assert!(has_nothing(&mut cache, 1));
}

#[test]
fn off_keeps_the_configuration_of_the_card_that_is_there_and_no_data() {
    let flash = Flash::default();
    let mut cache = cache(CacheMode::Off, &flash);
    keep(&mut cache, 1);
    assert!(cache.knows(&card(1)) && has_nothing(&mut cache, 1));
    cache.card_appeared(&card(2));
    assert!(!cache.knows(&card(1)) && cache.knows(&card(2)));
    assert!(flash.chip().operations.iter().all(|(what, _)| *what == "erase"), "nothing written");
}

/// One thing done to a cache, or to its storage behind its back.
#[derive(Debug, Clone)]
enum Step {
    Appear(u8),
    Read(u8, bool),
    Forget(u8),
    Wipe,
    Look(u8),
    Flip(usize, usize),
    Swap(usize, usize),
    /// What once lay in one slot is put into another.
    PutBack(usize, usize),
    Fail(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let (card, slot) = (0..12_u8, 0..Slot::COUNT);
    prop_oneof![
        2 => card.clone().prop_map(Step::Appear),
        6 => (card.clone(), any::<bool>()).prop_map(|(card, plain)| Step::Read(card, plain)),
        1 => card.clone().prop_map(Step::Forget),
        1 => Just(Step::Wipe),
        6 => card.prop_map(Step::Look),
        1 => (slot.clone(), any::<usize>()).prop_map(|(slot, at)| Step::Flip(slot, at)),
        1 => (slot.clone(), slot.clone()).prop_map(|(one, two)| Step::Swap(one, two)),
        2 => (any::<usize>(), slot).prop_map(|(old, slot)| Step::PutBack(old, slot)),
        1 => any::<bool>().prop_map(Step::Fail),
    ]
}

proptest! {
    /// Whatever the storage does: a card is answered with its own data or not at all, the mode's
    /// bound holds, and what was wiped does not come back.
    #[test]
    fn a_card_is_answered_with_its_own_data_or_not_at_all(
        single in any::<bool>(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let flash = Flash::default();
        let (mode, most) = match single {
            true => (CacheMode::SingleCard, 1),
            false => (CacheMode::MultiCard, CARDS_MAX),
        };
        let mut cache = cache(mode, &flash);
        let (mut kept, mut old) = (BTreeSet::new(), Vec::new());
        for step in steps {
            old.extend(flash.blobs());
            match step {
                Step::Appear(number) => drop(cache.card_appeared(&card(number))),
                Step::Read(number, plaintext) => {
                    cache.store_encrypted(&card(number), &encrypted(number), true);
                    if plaintext {
                        let data = plain(number);
                        cache.store_plaintext(&mut rng(1), &card(number), &data).expect("seals");
                    }
                    kept.insert(number);
                }
                Step::Forget(number) => {
                    cache.forget_data(&card(number));
                    kept.remove(&number);
                }
                Step::Wipe => {
                    cache.wipe();
                    kept.clear();
                    prop_assert!(cache.is_empty());
                }
                Step::Look(number) => {
                    // The two compare what they find with the card's own data.
                    let found =
                        has_plaintext(&mut cache, number) || has_packets(&mut cache, number);
                    prop_assert!(!found || kept.contains(&number));
                }
                Step::Flip(slot, at) => {
                    if let Some(blob) = &mut flash.chip().blobs[slot]
                        && !blob.is_empty()
                    {
                        let at = at % blob.len();
                        blob[at] ^= 1;
                    }
                }
                Step::Swap(one, two) => flash.chip().blobs.swap(one, two),
                Step::PutBack(from, slot) => {
                    if let Some(blob) = old.get(from % old.len().max(1)) {
                        flash.chip().blobs[slot] = Some(blob.clone());
                    }
                }
                Step::Fail(fails) => {
                    let from = flash.chip().operations.len();
                    flash.chip().failing = fails.then_some((from, Failing::Error));
                }
            }
            prop_assert!(cache.len() <= most);
            prop_assert!(notes(&mut cache).len() <= NOTES_MAX);
        }
        expect_ciphertext_only(&flash);
    }
}
