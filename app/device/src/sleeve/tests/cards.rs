//! A8: being a card.

use std::sync::atomic::Ordering;

use countersign_emulator::{AID_CREDIT, PPSE, PayError, Payment, Receipt, TEST_PIN, pay};
use countersign_iso7816::{CardLink, Command, LinkError, Response, Status, TerminalError};
use countersign_smartcard::vpcd::SlotCard;

use super::super::RelayedCard;
use super::home::debit_only;
use super::*;

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

async fn paid(card: &RelayedCard, payment: Payment) -> Result<Receipt, PayError> {
    let mut card = card.clone();
    blocking(move || pay(&mut card, &payment, &mut testkit::rng::seeded(4))).await
}

async fn say(card: &RelayedCard, command: Vec<u8>) -> Result<Vec<u8>, LinkError> {
    let mut card = card.clone();
    blocking(move || CardLink::transmit(&mut card, &command)).await
}

async fn slot<T: Send + 'static>(
    card: &RelayedCard,
    work: impl FnOnce(&mut RelayedCard) -> T + Send + 'static,
) -> T {
    let mut card = card.clone();
    blocking(move || work(&mut card)).await
}

fn select(aid: &[u8]) -> Vec<u8> {
    let command = Command::new(0, 0xA4, 4, 0).with_data(aid).unwrap().expecting(256);
    command.encode().to_vec()
}

#[tokio::test(start_paused = true)]
async fn a8_a_terminal_pays_with_the_card_at_home_and_its_cryptograms_verify() {
    let world = World::paired().await;
    let (session, mut happenings) = world.inside().await;
    assert_eq!(session.take("none").await.unwrap_err().check(), "card-unknown");
    let taken = session.take("bank").await.unwrap();
    assert_eq!(taken.atr, world.home.card.answer_to_reset());
    let card = session.card(&taken);
    let payment = Payment { pin: Some(TEST_PIN.to_owned()), ..Payment::of(12_50, 156) };
    for aid in [None, Some(AID_CREDIT.to_vec())] {
        let payment = Payment { aid, ..payment.clone() };
        assert!(paid(&card, payment).await.unwrap().is_approved());
    }
    // Each command once: nothing was made up, dropped or said twice.
    assert_eq!((world.home.card.counts().cryptograms, world.home.card.counts().pins), (4, 2));
    session.release().await.unwrap();
    assert!(slot(&card, |card| card.atr()).await.is_empty());
    assert_eq!(say(&card, select(PPSE)).await, Err(LinkError::Removed));
    // And again.
    let taken = session.take("bank").await.unwrap();
    assert!(paid(&session.card(&taken), payment).await.unwrap().is_approved());
    let closed = || world.home.shared.closed.load(Ordering::SeqCst);
    let before = closed();
    session.close().await;
    let lost = SleeveHappening::Lost { check: "closed".into(), incident: None };
    assert_eq!(next(&mut happenings).await, lost);
    until("the manager saw it close", || closed() == before + 1).await;
}

#[tokio::test(start_paused = true)]
async fn a8_a_reset_at_the_terminal_resets_the_card_at_home() {
    let world = World::paired().await;
    let (session, _happenings) = world.inside().await;
    let taken = session.take("bank").await.unwrap();
    let mut card = session.card(&taken);
    let home = world.home.card.clone();
    blocking(move || {
        // It is fresh: nothing to do.
        card.power_on();
        assert_eq!(home.counts().resets, 0);
        assert_eq!(SlotCard::transmit(&mut card, &select(PPSE))[..1], [0x6F]);
        card.reset();
        assert_eq!(home.counts().resets, 1);
        // Nothing is selected any more.
        assert_eq!(SlotCard::transmit(&mut card, &[0, 0xB2, 1, 0x0C, 0]), [0x69, 0x85]);
        card.power_off();
        card.power_on();
        assert_eq!(home.counts().resets, 2);
        assert_eq!(card.atr(), home.answer_to_reset());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a8_what_the_policy_forbids_does_not_reach_the_card_which_stays() {
    let world = World::paired().await;
    *world.home.shared.rules.lock().unwrap() = debit_only();
    let (session, _happenings) = world.inside().await;
    let taken = session.take("bank").await.unwrap();
    let card = session.card(&taken);
    let before = world.home.card.counts().commands;
    assert_eq!(say(&card, select(AID_CREDIT)).await.unwrap(), [0x6A, 0x82]);
    // PUT DATA is none of EMV's commands.
    assert_eq!(say(&card, vec![0x80, 0xDA, 0xDF, 0x50, 1, 7]).await.unwrap(), [0x69, 0x85]);
    assert_eq!(world.home.card.counts().commands, before);
    let status = Status::NOT_FOUND;
    let payment = Payment { aid: Some(AID_CREDIT.to_vec()), ..Payment::of(100, 156) };
    assert_eq!(paid(&card, payment).await, Err(PayError::Refused { step: "SELECT", status }));
    assert!(paid(&card, Payment::of(100, 156)).await.unwrap().is_approved());
}

#[tokio::test(start_paused = true)]
async fn a8_apdus_up_to_64_kib_pass() {
    let world = World::paired().await;
    let (session, _happenings) = world.inside().await;
    let taken = session.take("bank").await.unwrap();
    let card = session.card(&taken);
    let long: Vec<u8> = (0..65_526_u32).map(|at| at.to_le_bytes()[0] ^ 0x5A).collect();
    let put = Command::new(0x80, 0xDA, 0xDF, 0x50).with_data(&long).unwrap();
    assert_eq!(say(&card, put.encode().to_vec()).await.unwrap(), [0x90, 0]);
    let get = Command::new(0x80, 0xCA, 0xDF, 0x50).expecting(65_526);
    let answer = say(&card, get.encode().to_vec()).await.unwrap();
    let response = Response::parse(&answer).unwrap();
    assert!(*response.data == long && response.status == Status::OK);
}

#[tokio::test(start_paused = true)]
async fn a8_a_card_pulled_amid_a_command_is_gone_here_and_the_session_goes_on() {
    let mut world = World::paired().await;
    let mut gate = world.home.put_gated();
    let (session, mut happenings) = world.inside().await;
    let taken = session.take("bank").await.unwrap();
    let card = session.card(&taken);
    let (waiting, home) = (card.clone(), world.home.card.clone());
    let asked = tokio::spawn(async move { say(&waiting, select(PPSE)).await });
    gate.asked().await;
    home.remove();
    gate.go();
    assert_eq!(asked.await.unwrap(), Err(LinkError::Removed));
    let happened = next(&mut happenings).await;
    assert!(matches!(happened, SleeveHappening::CardLost { .. }), "{happened:?}");
    assert!(slot(&card, |card| card.atr()).await.is_empty());
    assert!(slot(&card, |card| SlotCard::transmit(card, &select(PPSE))).await.is_empty());
    home.insert();
    gate.go();
    // The card that is taken anew is another one.
    let taken = session.take("bank").await.unwrap();
    assert_eq!(say(&session.card(&taken), select(PPSE)).await.unwrap()[..1], [0x6F]);
    assert_eq!(say(&card, select(PPSE)).await, Err(LinkError::Removed));
}

#[tokio::test(start_paused = true)]
async fn a8_a_lost_link_is_a_removed_card_and_no_command_is_said_twice() {
    let mut world = World::paired().await;
    let mut gate = world.home.put_gated();
    let home = world.home.card.clone();
    let (session, mut happenings) = world.inside().await;
    let taken = session.take("bank").await.unwrap();
    let card = session.card(&taken);
    let paying = card.clone();
    let asked = tokio::spawn(async move { paid(&paying, Payment::of(100, 156)).await });
    // PPSE, SELECT, GET PROCESSING OPTIONS and three records; the seventh is GENERATE AC.
    for _ in 0..6 {
        gate.asked().await;
        gate.go();
    }
    gate.asked().await;
    assert_eq!(home.counts().cryptograms, 0);
    world.home.shared.cut.notify_waiters();
    let failed = asked.await.unwrap().unwrap_err();
    assert_eq!(failed, PayError::Terminal(TerminalError::Link(LinkError::Removed)));
    // The card, at home, finishes what it was told. Nobody tells it again.
    gate.go();
    let happened = next(&mut happenings).await;
    let SleeveHappening::Lost { check, .. } = happened else { panic!("{happened:?}") };
    assert!(["connection-cut", "link-lost"].contains(&&*check), "{check}");
    let over = session.list().await.unwrap_err();
    assert!(over.is_environment() && over.may_pass() && over.check() == check);
    assert!(slot(&card, |card| card.atr()).await.is_empty());
    drop(gate); // it stops nobody any more
    // The pair stays: a new session has the card again.
    let (session, _happenings) = world.inside().await;
    let taken = session.take("bank").await.unwrap();
    assert_eq!(say(&session.card(&taken), select(PPSE)).await.unwrap()[..1], [0x6F]);
    assert_eq!((home.counts().commands, home.counts().cryptograms), (8, 1));
    assert!(paid(&session.card(&taken), Payment::of(100, 156)).await.unwrap().is_approved());
    assert_eq!(home.counts().cryptograms, 3);
    assert_eq!(say(&card, select(PPSE)).await, Err(LinkError::Removed));
    assert_eq!(session.transmit(&[]).await.unwrap_err().check(), "misuse");
}

#[tokio::test(start_paused = true)]
async fn a8_who_asks_and_goes_away_leaves_the_session_in_order() {
    let mut world = World::paired().await;
    let mut gate = world.home.put_gated();
    let (session, _happenings) = world.inside().await;
    session.take("bank").await.unwrap();
    let asking = session.clone();
    let asked = tokio::spawn(async move { asking.transmit(&select(PPSE)).await.map(|_| ()) });
    gate.asked().await;
    asked.abort();
    let _aborted = asked.await;
    // The next request waits for the answer that nobody wants, and gets its own.
    let listing = session.clone();
    let listed = tokio::spawn(async move { listing.list().await });
    gate.go();
    assert_eq!(listed.await.unwrap().unwrap().len(), 1);
    assert_eq!(world.home.card.counts().commands, 1);
}
