//! A8: leases, the policy, the card; what is begun is told once and written down.

use std::sync::mpsc as std_mpsc;

use countersign_emulator::{Payment, TEST_OBJECT};
use countersign_wallet::flow::{SleeveEvent, SleeveFlow};
use countersign_wallet::policy::{Aids, CardLimits, Commands};

use super::*;

/// A card that waits for a word before it answers; and the words.
fn slow_card() -> (BankCard, std_mpsc::Receiver<()>, std_mpsc::Sender<()>) {
    let (begun, begins) = std_mpsc::channel();
    let (go, goes) = std_mpsc::channel::<()>();
    let (begun, goes) = (std::sync::Mutex::new(begun), std::sync::Mutex::new(goes));
    let settings = BankCardSettings::default().answering_after(Duration::from_millis(1));
    let card = BankCard::new(&settings, Box::<SystemRng>::default());
    let card = card.waiting_by(move |_| {
        let _gone = begun.lock().unwrap().send(());
        let _gone = goes.lock().unwrap().recv();
    });
    (card, begins, go)
}

/// That a card is given back for this reason.
fn released(why: &str) -> impl Fn(&ManagerHappening) -> bool {
    move |told| matches!(told, ManagerHappening::Released { because, .. } if because == why)
}

/// Waits on a thread that may.
async fn begins(begun: std_mpsc::Receiver<()>) {
    tokio::task::spawn_blocking(move || begun.recv().unwrap()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a8_a_payment_is_made_by_the_card_at_home() {
    let mut world = World::paired().await;
    let mut hand = world.inside(SLEEVE).await;
    let taken = hand.take(CARD).await.unwrap();
    assert_eq!(taken.atr.as_slice(), world.card.answer_to_reset());
    let told = world.until(|told| matches!(told, ManagerHappening::Taken { .. })).await;
    let told_taken = ManagerHappening::Taken {
        session: hand.session,
        card: CARD.to_owned(),
        label: "Debit card".to_owned(),
        seconds: 120,
    };
    assert_eq!(told.last(), Some(&told_taken));
    assert!(hand.pay(Payment::of(1_250, 156)).await.unwrap());
    assert_eq!(world.card.counts().cryptograms, 2);
    assert_eq!(world.audited("\"amount\":1250"), 2, "{}", world.audit());
    // Too much: the card does not hear of it.
    assert!(hand.pay(Payment::of(50_001, 156)).await.is_err());
    assert_eq!(world.card.counts().cryptograms, 2);
    assert!(world.audited("policy-amount") > 0);
    hand.release().await;
    world.until(released("released")).await;
}

#[tokio::test(start_paused = true)]
async fn a8_what_the_policy_refuses_does_not_reach_the_card() {
    let mut world = World::paired().await;
    let mut hand = world.inside(SLEEVE).await;
    hand.take(CARD).await.unwrap();
    for (command, check) in [
        (select(AID_CREDIT), "policy-aid"),
        (vec![0x00, 0xb2, 0x01, 0x0c, 0x00], "policy-not-selected"),
        (vec![0x00], "apdu-malformed"),
    ] {
        assert_eq!(hand.transmit(&command).await.unwrap_err(), check);
        let told = world.until(|told| matches!(told, ManagerHappening::CardRefused { .. })).await;
        let refused = ManagerHappening::CardRefused {
            session: hand.session,
            card: Some(CARD.to_owned()),
            check: check.to_owned(),
        };
        assert_eq!(told.last(), Some(&refused));
        assert_eq!(world.audited(check), 1);
    }
    assert_eq!(world.card.counts().commands, 0);
    // It is still there.
    assert!(hand.transmit(&select(AID_DEBIT)).await.is_ok());
    assert_eq!(world.card.counts().commands, 1);
}

#[tokio::test(start_paused = true)]
async fn a8_one_sleeve_a_card() {
    let mut world = World::paired().await;
    let mut first = world.inside(SLEEVE).await;
    let mut second = world.inside(OTHER).await;
    first.take(CARD).await.unwrap();
    let lent = |lines: Vec<countersign_wallet::message::CardLine>| {
        (lines[0].is_present(), lines[0].is_lent())
    };
    assert_eq!(lent(first.list().await), (true, false));
    assert_eq!(lent(second.list().await), (true, true));
    assert_eq!(second.take(CARD).await.unwrap_err(), "card-lent");
    first.release().await;
    second.take(CARD).await.unwrap();
    assert_eq!(first.take(CARD).await.unwrap_err(), "card-lent");
    // Its end frees it.
    let session = second.session;
    second.close().await;
    assert_eq!(world.ended(session).await, "closed");
    first.take(CARD).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a8_a_lease_expires_unless_the_card_is_used() {
    let mut world = World::paired().await;
    let mut hand = world.inside(SLEEVE).await;
    let lease = hand.take(CARD).await.unwrap().lease;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(100)).await;
        hand.transmit(&select(AID_DEBIT)).await.unwrap();
    }
    let event = hand.event().await;
    let SleeveEvent::CardLost { check } = event else { panic!("{event:?}") };
    assert_eq!((check.as_str(), lease), ("lease-expired", 1));
    world.until(released("lease-expired")).await;
    let mut other = world.inside(OTHER).await;
    other.take(CARD).await.unwrap();
    // The session goes on, without the card.
    assert_eq!(hand.take(CARD).await.unwrap_err(), "card-lent");
}

#[tokio::test(start_paused = true)]
async fn a8_the_owner_takes_a_card_back() {
    let mut world = World::paired().await;
    let mut hand = world.inside(SLEEVE).await;
    world.order(ManagerOrder::Recall { card: CARD.to_owned() }).await;
    let refused = |told: &ManagerHappening| matches!(told, ManagerHappening::Refused { .. });
    world.until(refused).await;
    hand.take(CARD).await.unwrap();
    world.order(ManagerOrder::Recall { card: CARD.to_owned() }).await;
    let event = hand.event().await;
    let SleeveEvent::CardLost { check } = event else { panic!("{event:?}") };
    assert_eq!(check, "card-recalled");
    hand.take(CARD).await.unwrap();
    // And a session, whatever it has.
    let session = hand.session;
    world.order(ManagerOrder::End { session }).await;
    assert_eq!(hand.end().await, "ended-by-owner");
    assert_eq!(world.ended(session).await, "ended-by-owner");
    world.order(ManagerOrder::End { session }).await;
    world.until(refused).await;
}

#[tokio::test(start_paused = true)]
async fn a8_a_card_that_is_not_there_is_not_lent() {
    let mut world = World::paired().await;
    let mut hand = world.inside(SLEEVE).await;
    world.card.remove();
    // The reader says so at the first word.
    hand.take(CARD).await.unwrap();
    assert_eq!(hand.transmit(&select(AID_DEBIT)).await.unwrap_err(), "card-removed");
    world.until(released("card-removed")).await;
    world.card.insert();
    // The answer to what was orphaned comes before the next one.
    hand.take(CARD).await.unwrap();
    hand.transmit(&select(AID_DEBIT)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a8_a_card_pulled_in_mid_command_is_told_once() {
    let (card, begun, go) = slow_card();
    let mut world = World::with(settings(), card.clone(), bank_card()).await;
    world.pair_both().await;
    let mut hand = world.inside(SLEEVE).await;
    hand.take(CARD).await.unwrap();
    hand.begin(&select(AID_DEBIT)).await;
    begins(begun).await;
    card.remove();
    go.send(()).unwrap();
    let event = hand.event().await;
    let SleeveEvent::CardLost { check } = event else { panic!("{event:?}") };
    assert_eq!(check, "card-removed");
    assert_eq!(card.counts().commands, 0, "and not again");
    world.until(|told| matches!(told, ManagerHappening::Released { .. })).await;
    assert!(world.audit().contains("\"check\":\"card-removed\""), "{}", world.audit());
    card.insert();
    hand.take(CARD).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a8_a_link_lost_in_mid_command_leaves_it_told_once_and_written_down() {
    let (card, begun, go) = slow_card();
    let mut world = World::with(settings(), card.clone(), bank_card()).await;
    world.pair_both().await;
    let mut hand = world.inside(SLEEVE).await;
    hand.take(CARD).await.unwrap();
    hand.begin(&select(AID_DEBIT)).await;
    begins(begun).await;
    let session = hand.session;
    drop(hand);
    for _ in 0..100 {
        tokio::task::yield_now().await; // time stands still while the card works
    }
    go.send(()).unwrap();
    drop(go); // the card answers at once from here on
    assert_eq!(world.ended(session).await, "connection-cut");
    assert_eq!(card.counts().commands, 1);
    assert_eq!(world.audited("\"exchange\""), 1, "{}", world.audit());
    assert!(world.audit().contains("\"sw\":\"9000\""), "{}", world.audit());
    let mut hand = world.inside(SLEEVE).await;
    hand.take(CARD).await.unwrap();
    hand.transmit(&select(AID_DEBIT)).await.unwrap();
    assert_eq!(card.counts().commands, 2);
}

#[tokio::test(start_paused = true)]
async fn a8_revoking_does_not_wait_for_the_card() {
    let (card, begun, go) = slow_card();
    let mut world = World::with(settings(), card.clone(), bank_card()).await;
    world.pair_both().await;
    let mut hand = world.inside(SLEEVE).await;
    hand.take(CARD).await.unwrap();
    hand.begin(&select(AID_DEBIT)).await;
    begins(begun).await;
    world.order(ManagerOrder::Revoke { sleeve: SLEEVE.to_owned() }).await;
    assert_eq!(hand.end().await, "sleeve-revoked", "before the card has answered");
    let session = hand.session;
    drop(go);
    assert_eq!(world.ended(session).await, "sleeve-revoked");
    assert_eq!(card.counts().commands, 1);
    assert_eq!(world.audited("\"exchange\""), 1, "{}", world.audit());
}

#[tokio::test(start_paused = true)]
async fn a8_a_reset_resets_the_card() {
    let mut world = World::paired().await;
    let mut hand = world.inside(SLEEVE).await;
    hand.take(CARD).await.unwrap();
    hand.transmit(&select(AID_DEBIT)).await.unwrap();
    let event = hand.ask(SleeveFlow::reset).await;
    let SleeveEvent::WasReset(atr) = event else { panic!("{event:?}") };
    assert_eq!(atr.as_slice(), world.card.answer_to_reset());
    // Nothing is selected any more.
    let refused = hand.transmit(&[0x00, 0xb2, 0x01, 0x0c, 0x00]).await.unwrap_err();
    assert_eq!(refused, "policy-not-selected");
}

#[tokio::test(start_paused = true)]
async fn a8_uses_are_counted_over_restarts() {
    let mut settings = settings();
    settings.cards[0].limits.max_uses = Some(1);
    let mut world = World::paired_of(settings).await;
    let mut hand = world.inside(SLEEVE).await;
    assert_eq!(hand.take(CARD).await.unwrap().limits.uses, 1);
    assert!(hand.pay(Payment::of(100, 156)).await.unwrap());
    assert!(hand.pay(Payment::of(100, 156)).await.is_err());
    world.crash().await;
    world.start().await;
    let mut hand = world.inside(SLEEVE).await;
    assert_eq!(hand.take(CARD).await.unwrap().limits.uses, 0);
    assert!(hand.pay(Payment::of(100, 156)).await.is_err());
    assert_eq!(world.card.counts().cryptograms, 2);
    assert!(world.audited("policy-uses") > 0);
}

#[test]
fn a8_no_pin_is_written_anywhere() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = World::paired().await;
        let mut hand = world.inside(SLEEVE).await;
        hand.take(CARD).await.unwrap();
        let pin = Some("1234".to_owned());
        assert!(hand.pay(Payment { pin, ..Payment::of(100, 156) }).await.unwrap());
        assert_eq!(world.card.counts().pins, 1);
        world.stop().await.unwrap();
        let mut files = vec![world.home()];
        while let Some(path) = files.pop() {
            if path.is_dir() {
                files.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).to_uppercase();
                assert!(!text.contains("241234FF"), "{}", path.display());
            }
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a8_the_longest_commands_go_through() {
    let mut settings = settings();
    settings.cards[0].aids = Aids::Any;
    settings.cards[0].commands = Commands::Any;
    settings.cards[0].limits = CardLimits::default();
    let mut world = World::paired_of(settings).await;
    let mut hand = world.inside(SLEEVE).await;
    hand.take(CARD).await.unwrap();
    let [p1, p2] = TEST_OBJECT.to_be_bytes();
    let data: Vec<u8> = (0..65_535_u32).map(|at| (at % 251) as u8).collect();
    let put = [&[0x80, 0xda, p1, p2, 0x00, 0xff, 0xff][..], &data].concat();
    assert_eq!(hand.transmit(&put).await.unwrap()[..], [0x90, 0x00]);
    let get = [0x80, 0xca, p1, p2, 0x00, 0x00, 0x00];
    let answer = hand.transmit(&get).await.unwrap();
    assert_eq!(answer[..], [&data[..], &[0x90, 0x00]].concat());
}
