//! A4: logging in.

use countersign_channel::{Policy, Protection};
use countersign_wallet::flow::{LOGINS_PER_SESSION, PATIENCE as LOGIN_PATIENCE};
use countersign_wallet::message::LoginResult;

use super::home::LOCKED_FOR;
use super::*;

async fn tried(session: &SleeveSession, text: &str) -> LoginResult {
    session.login(password(text)).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a4_a_wrong_password_is_refused_and_the_right_one_lets_in() {
    let world = World::paired().await;
    let (session, _) = world.connect(Mode::A2).await.unwrap();
    assert_eq!(tried(&session, "wrong horse").await.outcome, LoginOutcome::Refused);
    assert_eq!(session.list().await.unwrap_err().check(), "misuse");
    assert_eq!(session.take("bank").await.unwrap_err().check(), "misuse");
    assert_eq!(session.transmit(&[0, 0xA4, 4, 0]).await.unwrap_err().check(), "misuse");
    assert_eq!(tried(&session, PASSWORD).await.outcome, LoginOutcome::Ok);
    assert_eq!(session.login(password(PASSWORD)).await.unwrap_err().check(), "misuse");
    let cards = session.list().await.unwrap();
    assert_eq!(cards.iter().map(|one| one.card.as_str()).collect::<Vec<_>>(), ["bank"]);
    session.close().await;
    assert_eq!(session.list().await.unwrap_err().check(), "closed");
}

#[tokio::test(start_paused = true)]
async fn a4_no_password_goes_over_a_channel_that_can_be_read() {
    let mut world = World::paired().await;
    let mac = Policy { protection: Protection::Mac, ..Policy::default() };
    world.home.under(mac);
    let refused = world.connect(Mode::A3).await.unwrap_err();
    assert_eq!(refused.check(), "incompatible");
    world.sleeve.set_policies(vec![mac]);
    let (session, _) = world.connect(Mode::A3).await.unwrap();
    assert_eq!(session.policy(), mac);
    let before = world.home.network.quiet().await;
    assert_eq!(session.login(password(PASSWORD)).await.unwrap_err().check(), "login-readable");
    assert_eq!(world.home.network.quiet().await, before, "nothing was sent");
}

#[tokio::test(start_paused = true)]
async fn a4_a_lockout_and_an_owner_who_declines_are_told() {
    let world = World::paired().await;
    world.home.fault(|faults| &faults.locked, true);
    let (session, _) = world.connect(Mode::A2).await.unwrap();
    let locked = LoginResult { outcome: LoginOutcome::Locked, seconds: LOCKED_FOR };
    assert_eq!(tried(&session, PASSWORD).await, locked);
    assert_eq!(session.list().await.unwrap_err().check(), "misuse");
    world.home.fault(|faults| &faults.locked, false);
    assert_eq!(tried(&session, PASSWORD).await.outcome, LoginOutcome::Ok);
    world.home.fault(|faults| &faults.declines, true);
    let (session, _) = world.connect(Mode::A3).await.unwrap();
    assert_eq!(tried(&session, PASSWORD).await.outcome, LoginOutcome::Declined);
    assert_eq!(session.list().await.unwrap_err().check(), "misuse");
}

#[tokio::test(start_paused = true)]
async fn a4_after_its_attempts_a_connection_ends() {
    let world = World::paired().await;
    let (session, mut happenings) = world.connect(Mode::A2).await.unwrap();
    for _ in 0..LOGINS_PER_SESSION {
        assert_eq!(tried(&session, "wrong horse").await.outcome, LoginOutcome::Refused);
    }
    let lost = SleeveHappening::Lost { check: "login-attempts".into(), incident: None };
    assert_eq!(next(&mut happenings).await, lost);
    let over = session.login(password(PASSWORD)).await.unwrap_err();
    assert_eq!((over.check(), over.may_pass()), ("login-attempts", false));
}

#[tokio::test(start_paused = true)]
async fn a4_who_does_not_log_in_is_not_waited_for() {
    let world = World::paired().await;
    let (session, mut happenings) = world.connect(Mode::A2).await.unwrap();
    let begun = Instant::now();
    let lost = SleeveHappening::Lost { check: "closed".into(), incident: None };
    assert_eq!(next(&mut happenings).await, lost);
    let took = begun.elapsed();
    assert!(took >= LOGIN_PATIENCE && took <= LOGIN_PATIENCE + GRACE, "{took:?}");
    assert!(session.ended().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_can_be_no_password_is_not_sent() {
    let world = World::paired().await;
    let (session, _) = world.connect(Mode::A2).await.unwrap();
    let before = world.home.network.quiet().await;
    for none in [String::new(), "x".repeat(1000)] {
        assert_eq!(session.login(password(&none)).await.unwrap_err().check(), "misuse");
    }
    assert_eq!(world.home.network.quiet().await, before);
    assert_eq!(tried(&session, PASSWORD).await.outcome, LoginOutcome::Ok);
}
