use countersign_crypto::{Secret, rust_crypto};
use countersign_idcard::cache::{CARDS_MAX, CacheHit, CacheMode, ReaderCache};
use countersign_idcard::{Configuration, ENCRYPTED_BASE_LEN, EncryptedData, PlainData};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

fn cache(mode: CacheMode) -> ReaderCache {
    ReaderCache::new(mode, rust_crypto::provider())
}

fn card(number: usize) -> Configuration {
    Configuration::new([number as u8; 32])
}

fn encrypted() -> EncryptedData {
    EncryptedData::new(vec![1; ENCRYPTED_BASE_LEN].into()).expect("a possible length")
}

fn plain(byte: u8) -> PlainData {
    let secret = |len| Secret::new(vec![byte; len]);
    PlainData::new(secret(256), secret(1024), Some(secret(512))).expect("lengths fit")
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(1)
}

#[test]
fn a_configuration_is_stored_once() {
    let mut cache = cache(CacheMode::MultiCard);
    assert!(cache.card_appeared(&card(1)));
    assert!(!cache.card_appeared(&card(1)));
    assert!(cache.knows(&card(1)) && !cache.knows(&card(2)));
    assert!(matches!(cache.lookup(&card(1), false), CacheHit::Nothing));
}

#[test]
fn the_card_used_longest_ago_makes_room() {
    let mut cache = cache(CacheMode::MultiCard);
    for number in 0..CARDS_MAX {
        cache.card_appeared(&card(number));
    }
    cache.lookup(&card(0), false);
    cache.card_appeared(&card(100));
    assert_eq!(cache.len(), CARDS_MAX);
    assert!(cache.knows(&card(0)) && cache.knows(&card(100)) && !cache.knows(&card(1)));
}

#[test]
fn single_card_mode_knows_one_card() {
    let mut cache = cache(CacheMode::SingleCard);
    cache.store_encrypted(&card(1), &encrypted(), false);
    assert!(matches!(cache.lookup(&card(1), false), CacheHit::Packets(_)));
    cache.card_appeared(&card(2));
    assert_eq!(cache.len(), 1);
    cache.card_appeared(&card(1));
    assert!(matches!(cache.lookup(&card(1), false), CacheHit::Nothing));
}

#[test]
fn packets_and_plaintext_belong_to_their_card_and_choice() {
    let mut cache = cache(CacheMode::MultiCard);
    cache.store_encrypted(&card(1), &encrypted(), false);
    cache.card_appeared(&card(2));
    let CacheHit::Packets(packets) = cache.lookup(&card(1), false) else { panic!("no packets") };
    assert_eq!(packets, encrypted().packets());
    assert!(matches!(cache.lookup(&card(2), false), CacheHit::Nothing));
    assert!(matches!(cache.lookup(&card(1), true), CacheHit::Nothing));

    cache.store_plaintext(&mut rng(), &card(1), &plain(7)).expect("seals");
    let CacheHit::Plaintext(again) = cache.lookup(&card(1), false) else { panic!("none") };
    assert_eq!(again.text(), plain(7).text());
    assert_eq!(again.photo(), plain(7).photo());
    assert_eq!(again.fingerprint(), plain(7).fingerprint());
    assert!(matches!(cache.lookup(&card(1), true), CacheHit::Nothing));
}

#[test]
fn a_new_read_replaces_what_was_kept() {
    let mut cache = cache(CacheMode::MultiCard);
    let mut rng = rng();
    cache.store_encrypted(&card(1), &encrypted(), false);
    cache.store_plaintext(&mut rng, &card(1), &plain(7)).expect("seals");
    cache.store_plaintext(&mut rng, &card(1), &plain(8)).expect("seals");
    let CacheHit::Plaintext(again) = cache.lookup(&card(1), false) else { panic!("none") };
    assert_eq!(again.text(), plain(8).text());
    cache.store_encrypted(&card(1), &encrypted(), false);
    assert!(matches!(cache.lookup(&card(1), false), CacheHit::Packets(_)));
}

#[test]
fn forgetting_and_wiping_leave_nothing_to_answer_with() {
    let mut cache = cache(CacheMode::MultiCard);
    cache.store_encrypted(&card(1), &encrypted(), false);
    cache.store_plaintext(&mut rng(), &card(1), &plain(7)).expect("seals");
    cache.forget_data(&card(1));
    assert!(cache.knows(&card(1)));
    assert!(matches!(cache.lookup(&card(1), false), CacheHit::Nothing));
    cache.store_encrypted(&card(1), &encrypted(), false);
    cache.wipe();
    assert!(cache.is_empty() && !cache.knows(&card(1)));
    assert!(matches!(cache.lookup(&card(1), false), CacheHit::Nothing));
    assert_eq!(format!("{cache:?}"), "ReaderCache(MultiCard, 0 cards)");
}
