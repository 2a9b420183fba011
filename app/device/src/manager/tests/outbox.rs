//! A5: an alarm waits on the disk until the server has it.

use super::*;

async fn raised(world: &mut World) -> RaisedAlarm {
    timeout(Duration::from_secs(120), world.run().alarms.recv()).await.unwrap().unwrap()
}

async fn alarm(world: &mut World) {
    let mut hand = world.connect(SLEEVE).await.unwrap();
    hand.login(ALARM).await.unwrap();
}

/// Nobody raises anything for so long.
async fn is_quiet(world: &mut World) {
    let none = timeout(Duration::from_secs(300), world.run().alarms.recv()).await;
    assert!(none.is_err(), "{:?}", none.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a5_an_alarm_is_raised_until_it_is_taken_and_then_no_more() {
    let mut world = World::paired().await;
    is_quiet(&mut world).await;
    world.inside(SLEEVE).await;
    is_quiet(&mut world).await;
    alarm(&mut world).await;
    let first = raised(&mut world).await;
    assert_eq!(first.alarm.sleeve.as_str(), SLEEVE);
    let id = first.alarm.id.clone();
    // The link goes, and nobody has taken it: it comes again, the same.
    drop(first.taken);
    let again = raised(&mut world).await;
    assert_eq!((&again.alarm.id, again.alarm.at), (&id, first.alarm.at));
    again.taken.send(()).unwrap();
    is_quiet(&mut world).await;
    world.restart().await;
    is_quiet(&mut world).await;
}

#[tokio::test(start_paused = true)]
async fn a5_an_alarm_outlives_a_crash() {
    let mut world = World::paired().await;
    alarm(&mut world).await;
    world.crash().await;
    world.start().await;
    let first = raised(&mut world).await;
    // Once more: the server may have it, and the file does not say so.
    world.crash().await;
    world.start().await;
    let again = raised(&mut world).await;
    assert_eq!(again.alarm.id, first.alarm.id);
    again.taken.send(()).unwrap();
    is_quiet(&mut world).await;
    world.crash().await;
    world.start().await;
    is_quiet(&mut world).await;
}

#[tokio::test(start_paused = true)]
async fn a5_further_attempts_do_not_take_the_place_of_an_alarm() {
    let mut world = World::paired().await;
    alarm(&mut world).await;
    let first = raised(&mut world).await;
    world.inside(SLEEVE).await;
    let mut hand = world.connect(SLEEVE).await.unwrap();
    hand.login("wrong horse").await.unwrap_err();
    alarm(&mut world).await;
    let second = raised(&mut world).await;
    assert_ne!(first.alarm.id, second.alarm.id);
    world.crash().await;
    world.start().await;
    let ids = [raised(&mut world).await, raised(&mut world).await].map(|one| {
        let id = one.alarm.id.clone();
        one.taken.send(()).unwrap();
        id
    });
    assert_eq!(ids, [first.alarm.id, second.alarm.id], "the oldest first");
    is_quiet(&mut world).await;
    // A sleeve that is forgotten leaves its alarm behind.
    alarm(&mut world).await;
    world.crash().await;
    let mut dir = world.opened().await;
    assert!(dir.forget(SLEEVE, world.clock.now(), &mut *make_rng()()).unwrap());
    drop(dir);
    world.start().await;
    assert_eq!(raised(&mut world).await.alarm.sleeve.as_str(), SLEEVE);
}

#[tokio::test(start_paused = true)]
async fn a5_an_alarm_whose_sleeve_is_gone_before_the_answer_is_raised() {
    let mut world = World::paired().await;
    let mut hand = world.connect(SLEEVE).await.unwrap();
    let (now, session) = (hand.now(), hand.session);
    hand.flow.login(now, &password(ALARM)).unwrap();
    hand.send().await;
    drop(hand);
    let first = raised(&mut world).await;
    assert_eq!(first.alarm.session, u64::from(session));
    world.ended(session).await;
    assert_eq!(world.audited("\"outcome\":\"alarm\""), 1, "{}", world.audit());
}
