//! A card swapped for another while it is read (C6, C7): nothing is kept under the wrong one.

use countersign_emulator::EmulatedCard;
use countersign_idcard::Check;
use countersign_idcard::cache::CacheHit;
use countersign_idcard::card::{CardError, CardLink, read_configuration};
use countersign_idcard::record::DocumentType;

use crate::world::{World, card, rng, scheme};

#[test]
fn a_card_swapped_at_any_apdu_fails_the_read_and_nothing_is_kept() {
    let mine = card(DocumentType::Citizen, 1, false);
    let other = card(DocumentType::Foreigner2017, 2, false);
    let mut world = World::new();
    world.card.insert(mine.clone());
    let before = world.card.apdus();
    world.read().record();
    let apdus = world.card.apdus() - before;
    let mut told = [0, 0];
    // The first two APDUs read the configuration, before the read command.
    for after in 2..apdus {
        let mut world = World::new();
        world.policy.cache_plaintext = true;
        world.card.insert(mine.clone());
        world.card.swap_after(after, other.clone());
        let outcome = world.read();
        match outcome.check() {
            "card-swapped" => told[0] += 1,
            // Swapped before it answered: the SAM finds that card and configuration differ.
            "authentication" => told[1] += 1,
            check => panic!("after {after}: {check}"),
        }
        assert!(outcome.server.is_some_and(|ended| ended.is_err()), "after {after}");
        for image in [&mine, &other] {
            let hit = world.cache.lookup(image.configuration(), false);
            assert!(matches!(hit, CacheHit::Nothing), "after {after}");
        }
        // The other card is then read for what it is.
        assert_eq!(world.read().record().document_type(), DocumentType::Foreigner2017);
    }
    assert!(told[0] > 10 && told[1] > 0, "{told:?}");
}

#[test]
fn after_the_last_file_only_the_second_look_tells() {
    let mine = card(DocumentType::Citizen, 1, false);
    let mut world = World::new();
    world.card.insert(mine.clone());
    let before = world.card.apdus();
    world.read().record();
    let apdus = world.card.apdus() - before;
    // Swapped between the last encrypted byte and the configuration's second reading.
    let mut world = World::new();
    world.card.insert(mine);
    world.card.swap_after(apdus - 2, card(DocumentType::Foreigner2017, 2, false));
    let outcome = world.read();
    assert_eq!(outcome.check(), "card-swapped");
    assert_eq!(outcome.server, Some(Err(Check::CardSwapped)));
    assert_eq!(outcome.names.last(), Some(&"abort"));
    assert!(world.host.is_idle(), "the SAM is free again");
}

#[test]
fn an_overlooked_card_is_there_and_a_counterfeit_has_the_uid_it_likes() {
    let (mut link, field) = EmulatedCard::new(scheme(), Box::new(rng(1)));
    field.insert(card(DocumentType::Citizen, 1, false));
    let mine = link.poll().expect("no fault").expect("a card");
    field.overlook(2);
    assert_eq!(link.poll(), Ok(None));
    assert!(read_configuration(&mut link).is_ok(), "it answers all the same");
    assert_eq!(link.poll(), Ok(None));
    assert_eq!(link.poll(), Ok(Some(mine.clone())));
    field.set_uid(Some(mine.uid));
    let first = read_configuration(&mut link).expect("readable");
    field.swap_after(0, card(DocumentType::Foreigner2017, 2, false));
    let second = read_configuration(&mut link).expect("readable");
    assert_eq!(link.poll(), Ok(Some(mine)));
    assert_ne!(first, second);
    field.remove();
    assert_eq!(read_configuration(&mut link), Err(CardError::Removed));
}
