//! A4, A5: passwords, the lock, consent; and that an alarm looks like a login.

use countersign_emulator::Payment;
use countersign_wallet::flow::SleeveEvent;
use countersign_wallet::message::LoginOutcome;

use super::*;

#[tokio::test(start_paused = true)]
async fn a4_the_login_password_lets_in_and_a_wrong_one_does_not() {
    let mut world = World::paired().await;
    let mut hand = world.connect(SLEEVE).await.unwrap();
    assert_eq!(hand.login("wrong horse").await, Err((LoginOutcome::Refused, 0)));
    let failed = ManagerHappening::LoginFailed { session: hand.session, locked_seconds: 0 };
    assert_eq!(world.told().await, failed);
    hand.login(PASSWORD).await.unwrap();
    assert_eq!(world.told().await, ManagerHappening::LoggedIn { session: hand.session });
    assert_eq!(hand.names().await, [CARD]);
    assert_eq!(world.audited("\"outcome\":\"wrong\""), 1);
    assert_eq!(world.audited("\"outcome\":\"usual\""), 1);
}

#[tokio::test(start_paused = true)]
async fn a4_the_lock_grows_and_outlives_the_program() {
    let mut world = World::paired().await;
    let mut hand = world.connect(SLEEVE).await.unwrap();
    let mut waits = Vec::new();
    for _ in 0..3 {
        let (outcome, seconds) = hand.login("wrong horse").await.unwrap_err();
        assert_eq!(outcome, LoginOutcome::Refused);
        waits.push(seconds);
    }
    assert_eq!(waits, [0, 0, 30]);
    assert_eq!(hand.end().await, "login-attempts");
    // Neither another connection nor another start of the program helps, nor the right password.
    for restarts in [false, true] {
        if restarts {
            world.crash().await;
            world.start().await;
        }
        let mut hand = world.connect(SLEEVE).await.unwrap();
        let (outcome, seconds) = hand.login(PASSWORD).await.unwrap_err();
        assert_eq!(outcome, LoginOutcome::Locked);
        assert!((1..=30).contains(&seconds), "{seconds}");
    }
    // Another sleeve is another matter.
    world.inside(OTHER).await;
    tokio::time::sleep(Duration::from_secs(31)).await;
    let mut hand = world.connect(SLEEVE).await.unwrap();
    assert_eq!(hand.login("wrong horse").await, Err((LoginOutcome::Refused, 60)));
    tokio::time::sleep(Duration::from_secs(61)).await;
    hand.login(PASSWORD).await.unwrap();
    assert!(world.audited("login-locked") >= 2);
}

/// All that a session shows on the wire and on the screen, whatever the password: bytes that went
/// each way after each step, and happenings without its number.
async fn shown(world: &mut World, text: &str, card: &str) -> (Vec<(usize, usize)>, Vec<String>) {
    let mut hand = world.connect(SLEEVE).await.unwrap();
    let mut bytes = Vec::new();
    // Signatures of the handshake have no fixed length.
    let before = *hand.bytes.lock().unwrap();
    let count = |hand: &Hand| {
        let (sent, received) = *hand.bytes.lock().unwrap();
        (sent - before.0, received - before.1)
    };
    hand.login(text).await.unwrap();
    bytes.push(count(&hand));
    assert_eq!(hand.names().await, [card]);
    bytes.push(count(&hand));
    hand.take(card).await.unwrap();
    bytes.push(count(&hand));
    assert!(hand.pay(Payment::of(1_250, 156)).await.unwrap());
    bytes.push(count(&hand));
    hand.release().await;
    bytes.push(count(&hand));
    let session = hand.session;
    hand.close().await;
    let told = world.until(|told| matches!(told, ManagerHappening::Ended { .. })).await;
    let plain = |told: &ManagerHappening| {
        let told = format!("{told:?}").replace(&format!("session: {session}"), "session: N");
        told.replace("Debit card", "CARD").replace("Other card", "CARD").replace(card, "CARD")
    };
    (bytes, told.iter().map(plain).collect())
}

#[tokio::test(start_paused = true)]
async fn a5_an_alarm_is_the_same_on_the_wire_and_on_the_screen() {
    let mut world = World::paired().await;
    let usual = shown(&mut world, PASSWORD, CARD).await;
    let lines_before = world.audit().lines().count();
    let alarm = shown(&mut world, ALARM, DECOY).await;
    assert_eq!(usual.0, alarm.0, "bytes each way, after each step");
    assert_eq!(usual.1, alarm.1, "happenings");
    assert!(!alarm.1.join(" ").to_lowercase().contains("alarm"));
    // The files that an attempt writes are as long.
    let lines: Vec<String> = world.audit().lines().skip(lines_before).map(str::to_owned).collect();
    assert!(lines.iter().any(|line| line.contains("\"outcome\":\"alarm\"")));
    let raised = timeout(PATIENCE, world.run().alarms.recv()).await.unwrap().unwrap();
    assert_eq!(raised.alarm.sleeve.as_str(), SLEEVE);
}

#[tokio::test(start_paused = true)]
async fn a5_the_attempts_file_is_as_long_for_each_password() {
    let mut lens = Vec::new();
    for text in [PASSWORD, ALARM, "wrong horse"] {
        let mut world = World::paired().await;
        let mut hand = world.connect(SLEEVE).await.unwrap();
        let _refused = hand.login(text).await;
        let file = world.home().join("logins/SLV-1.json");
        lens.push(std::fs::read(file).unwrap().len());
    }
    // A wrong one counts a failure, in a digit that stands there anyhow.
    assert_eq!(lens, [lens[0]; 3]);
}

#[tokio::test(start_paused = true)]
async fn a5_after_an_alarm_there_are_decoys_and_a_cap() {
    let mut world = World::paired().await;
    let mut hand = world.connect(SLEEVE).await.unwrap();
    hand.login(ALARM).await.unwrap();
    assert_eq!(hand.names().await, [DECOY]);
    assert_eq!(hand.take(CARD).await.unwrap_err(), "card-unknown");
    assert_eq!(hand.take("no-card").await.unwrap_err(), "card-unknown");
    let taken = hand.take(DECOY).await.unwrap();
    assert_eq!((taken.limits.payment, taken.limits.currency), (5_000, 156));
    assert!(hand.pay(Payment::of(5_001, 156)).await.is_err(), "above the cap");
    assert!(hand.pay(Payment::of(5_000, 156)).await.unwrap());
    assert_eq!(world.card.counts().commands, 0, "the usual card was not touched");
    // And a usual session has no decoy.
    hand.close().await;
    let mut hand = world.inside(SLEEVE).await;
    assert_eq!(hand.take(DECOY).await.unwrap_err(), "card-unknown");
}

fn asks() -> ManagerSettings {
    ManagerSettings { consent: Consent::Ask, ..settings() }
}

async fn asked(world: &mut World) -> u32 {
    let told = world.until(|told| matches!(told, ManagerHappening::ConsentAsked { .. })).await;
    let Some(ManagerHappening::ConsentAsked { session, seconds: 60 }) = told.last() else {
        panic!("{told:?}")
    };
    *session
}

#[tokio::test(start_paused = true)]
async fn a4_the_owner_consents_or_does_not() {
    let mut world = World::paired_of(asks()).await;
    for (word, outcome) in [(Some(true), None), (Some(false), Some(())), (None, Some(()))] {
        let mut hand = world.connect(SLEEVE).await.unwrap();
        let now = hand.now();
        hand.flow.login(now, &password(PASSWORD)).unwrap();
        hand.send().await;
        let session = asked(&mut world).await;
        assert_eq!(session, hand.session);
        if let Some(yes) = word {
            world.order(ManagerOrder::Consent { session, yes }).await;
        }
        let event = hand.event().await;
        match outcome {
            None => assert!(matches!(event, SleeveEvent::LoggedIn), "{event:?}"),
            Some(()) => {
                let declined = matches!(
                    event,
                    SleeveEvent::LoginRefused { outcome: LoginOutcome::Declined, seconds: 0 }
                );
                assert!(declined, "{event:?}");
                let told = world.told().await;
                assert_eq!(told, ManagerHappening::Declined { session });
            }
        }
        if word.is_none() {
            // The patience of the owner's side, and no more.
            assert_eq!(hand.now().since(now).as_secs(), 60);
        }
        hand.close().await;
        world.ended(session).await;
        // A word that is too late, or to nobody.
        world.order(ManagerOrder::Consent { session, yes: true }).await;
        let told = world.told().await;
        let ManagerHappening::Refused { check, .. } = told else { panic!("{told:?}") };
        assert_eq!(check, "session-unknown");
    }
    assert_eq!((world.audited("\"yes\""), world.audited("\"no\"")), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a5_the_owner_is_asked_after_an_alarm_too_and_a_no_takes_no_alarm_away() {
    let mut world = World::paired_of(asks()).await;
    let mut hand = world.connect(SLEEVE).await.unwrap();
    let now = hand.now();
    hand.flow.login(now, &password(ALARM)).unwrap();
    hand.send().await;
    let session = asked(&mut world).await;
    world.order(ManagerOrder::Consent { session, yes: false }).await;
    assert!(matches!(hand.event().await, SleeveEvent::LoginRefused { .. }));
    let raised = timeout(PATIENCE, world.run().alarms.recv()).await.unwrap().unwrap();
    assert_eq!(raised.alarm.session, u64::from(session));
}

#[tokio::test(start_paused = true)]
async fn a4_a_clock_that_is_set_back_locks_for_a_day_and_no_longer() {
    let mut world = World::paired().await;
    let mut hand = world.connect(SLEEVE).await.unwrap();
    for _ in 0..3 {
        hand.login("wrong horse").await.unwrap_err();
    }
    // As if the lock had been set while the clock was years ahead.
    world.crash().await;
    let path = world.home().join("logins/SLV-1.json");
    drop(world.opened().await);
    let mut kept: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    kept["lockout"]["locked-until"] = serde_json::json!(u64::MAX);
    std::fs::write(&path, kept.to_string()).unwrap();
    world.start().await;
    let day = 24 * 3600;
    for waited in [0, 1_000] {
        tokio::time::sleep(Duration::from_secs(waited)).await;
        let mut hand = world.connect(SLEEVE).await.unwrap();
        let (outcome, seconds) = hand.login(PASSWORD).await.unwrap_err();
        assert_eq!(outcome, LoginOutcome::Locked);
        assert!((day - 1_001..=day - waited as u32).contains(&seconds), "{seconds}");
        world.crash().await;
        world.start().await;
    }
}
