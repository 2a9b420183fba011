//! The whole read in memory: reader flow ↔ server flow ↔ SAM host ↔ emulated SAM, and the
//! emulated card (C6, C7, C8, C9, C13, C14, C15).

use crate::world::{World, card, provider, rng};
use countersign_emulator::{CardImage, sample, samples};
use countersign_idcard::cache::{CacheMode, ReaderCache};
use countersign_idcard::record::{DocumentType, IdRecord};
use countersign_idcard::sam::SamConfig;
use countersign_idcard::{PHOTO_LEN, PlainData};

const TYPES: [DocumentType; 4] = [
    DocumentType::Citizen,
    DocumentType::Foreigner2017,
    DocumentType::Foreigner2023,
    DocumentType::ResidencePermit,
];

#[test]
fn all_four_documents_are_read_from_the_card() {
    let mut world = World::new();
    for (serial, document_type) in (1..).zip(TYPES) {
        world.card.insert(card(document_type, serial, false));
        let outcome = world.read();
        assert_eq!(outcome.record(), sample(document_type));
        assert_eq!(outcome.server, Some(Ok(document_type)));
        let plain = outcome.result.expect("checked");
        assert!(plain.photo().starts_with(b"EMULATED PHOTO"));
        assert_eq!(plain.fingerprint(), None);
    }
    assert_eq!(world.cache.len(), 4);
}

#[test]
fn the_order_of_messages_is_the_protocols() {
    let mut world = World::new();
    world.card.insert(card(DocumentType::Citizen, 1, false));
    let expected = [
        "read begin",
        "card challenge",
        "card answer",
        "sam proof",
        "packet",
        "packet",
        "plaintext",
    ];
    assert_eq!(world.read().names, expected);
    // C7: again, now with the packets kept: no authentication turn.
    let expected = ["read begin", "send packets", "packet", "packet", "plaintext"];
    assert_eq!(world.read().names, expected);
}

#[test]
fn the_second_read_takes_the_packets_from_the_cache_without_asking_the_card() {
    let mut world = World::new();
    world.card.insert(card(DocumentType::Citizen, 1, false));
    let before = world.card.apdus();
    world.read().record();
    let first = world.card.apdus() - before;
    let before = world.card.apdus();
    let outcome = world.read();
    assert_eq!(outcome.record(), sample(DocumentType::Citizen));
    // Only the poll's configuration (C6): one select, one read.
    assert_eq!(world.card.apdus() - before, 2);
    assert!(first > 10);
}

#[test]
fn with_the_plaintext_cache_the_second_read_sends_nothing() {
    let mut world = World::new();
    world.policy.cache_plaintext = true;
    world.card.insert(card(DocumentType::Foreigner2023, 1, false));
    let first = world.read();
    assert!(first.messages > 0);
    world.faults.inject(countersign_emulator::Fault::SilentAfter([0xE0, 0x01]));
    let second = world.read();
    assert_eq!((second.messages, second.server.is_none()), (0, true));
    assert_eq!(second.record(), sample(DocumentType::Foreigner2023));
    let (first, second) = (first.result.expect("read"), second.result.expect("read"));
    assert_eq!(first.photo(), second.photo());
}

#[test]
fn without_the_policy_no_plaintext_is_kept() {
    let mut world = World::new();
    world.card.insert(card(DocumentType::Citizen, 1, false));
    world.read().record();
    assert!(world.read().messages > 0);
}

#[test]
fn a_wiped_cache_reads_the_card_again() {
    let mut world = World::new();
    world.policy.cache_plaintext = true;
    world.card.insert(card(DocumentType::Citizen, 1, false));
    world.read().record();
    world.cache.wipe();
    assert!(world.cache.is_empty());
    assert!(world.read().names.contains(&"card challenge"));
}

#[test]
fn in_single_card_mode_a_new_card_erases_the_previous_one() {
    let mut world = World::with(SamConfig::default(), CacheMode::SingleCard);
    let (first, second) =
        (card(DocumentType::Citizen, 1, false), card(DocumentType::Foreigner2017, 2, false));
    world.card.insert(first.clone());
    world.read().record();
    assert!(world.read().names.contains(&"send packets"));
    world.card.insert(second);
    world.read().record();
    assert_eq!(world.cache.len(), 1);
    assert!(!world.cache.knows(first.configuration()));
    world.card.insert(first);
    assert!(world.read().names.contains(&"card challenge"));
}

#[test]
fn several_cards_keep_their_own_data() {
    let mut world = World::new();
    world.policy.cache_plaintext = true;
    let cards: Vec<_> = (1..).zip(TYPES).map(|(serial, kind)| card(kind, serial, false)).collect();
    for card in &cards {
        world.card.insert(card.clone());
        world.read().record();
    }
    for (card, record) in cards.iter().zip(samples()) {
        world.card.insert(card.clone());
        let again = world.read();
        assert_eq!(again.messages, 0);
        assert_eq!(again.record(), record);
    }
}

#[test]
fn the_fingerprint_comes_only_when_asked_for_and_there() {
    let mut world = World::new();
    world.card.insert(card(DocumentType::Citizen, 1, true));
    assert_eq!(world.read().result.expect("read").fingerprint(), None);
    world.options.fingerprint = true;
    let outcome = world.read();
    assert_eq!(outcome.names.iter().filter(|name| **name == "packet").count(), 3);
    assert_eq!(outcome.result.expect("read").fingerprint(), Some([0xF1; 1024].as_slice()));
    // From the cache, the same.
    assert_eq!(world.read().result.expect("read").fingerprint(), Some([0xF1; 1024].as_slice()));
    // A card without one is read all the same.
    world.card.insert(card(DocumentType::Citizen, 2, false));
    assert_eq!(world.read().result.expect("read").fingerprint(), None);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = || {
        let mut world = World::new();
        world.card.insert(card(DocumentType::Citizen, 1, false));
        let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let log = seen.clone();
        world.tamper = Some(Box::new(move |message| {
            log.borrow_mut().push(message.to_vec());
            vec![message.to_vec()]
        }));
        world.read().record();
        seen.take()
    };
    assert_eq!(run(), run());
}

#[test]
fn a_plaintext_moved_to_another_card_does_not_open() {
    let scheme = crate::world::scheme();
    let one = card(DocumentType::Citizen, 1, false);
    let record: IdRecord = sample(DocumentType::Citizen);
    let plain = PlainData::new(
        countersign_crypto::Secret::copied_from(record.encode().expect("valid").as_slice()),
        countersign_crypto::Secret::new(vec![0; PHOTO_LEN]),
        None,
    )
    .expect("lengths fit");
    let data = scheme.encrypt(&mut rng(9), one.configuration(), &plain).expect("encrypts");
    assert!(scheme.decrypt(one.configuration(), data.as_bytes()).is_ok());
    let other: std::sync::Arc<CardImage> = card(DocumentType::Citizen, 2, false);
    assert!(scheme.decrypt(other.configuration(), data.as_bytes()).is_err());
    let mut altered = data.as_bytes().to_vec();
    altered[700] ^= 1;
    assert!(scheme.decrypt(one.configuration(), &altered).is_err());
    // And the cache does not keep a plaintext for a card that it does not know.
    let mut cache = ReaderCache::new(CacheMode::MultiCard, provider());
    cache.store_plaintext(&mut rng(3), one.configuration(), &plain).expect("nothing to do");
    assert!(cache.is_empty());
}
