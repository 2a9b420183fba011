//! A8, A9: what the way costs. Time passes only on the way here, so that each wait is a flight.

use std::sync::atomic::Ordering;

use countersign_channel::Heartbeat;
use countersign_emulator::{
    BankCardSettings, DistanceCheck, PPSE, Payment, Receipt, TEST_OBJECT, TEST_PIN, pay_timed,
};
use countersign_iso7816::Command;

use super::*;

/// There, and back.
const THERE: Duration = Duration::from_millis(20);
const ROUND: Duration = Duration::from_millis(40);

/// How long something takes, and how many flights.
async fn costs<T>(world: &World, work: impl Future<Output = T>) -> (T, Duration, usize) {
    let (begun, before) = (Instant::now(), world.home.network.flights());
    let done = work.await;
    (done, begun.elapsed(), world.home.network.flights() - before)
}

/// Pays at a terminal whose stopwatch shows the tests' time.
async fn paid(session: &SleeveSession, payment: Payment) -> Receipt {
    let taken = session.take("bank").await.unwrap();
    let mut card = session.card(&taken);
    let paying = tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        let stopwatch = || begun.elapsed();
        pay_timed(&mut card, &payment, &mut testkit::rng::seeded(4), &stopwatch).unwrap()
    });
    let receipt = paying.await.unwrap();
    session.release().await.unwrap();
    receipt
}

fn select() -> Vec<u8> {
    let command = Command::new(0, 0xA4, 4, 0).with_data(PPSE).unwrap().expecting(256);
    command.encode().to_vec()
}

#[tokio::test(start_paused = true)]
async fn a8_one_apdu_is_one_round_trip_whatever_its_length() {
    let world = World::paired().await;
    let (session, _happenings) = world.inside().await;
    world.home.network.takes(THERE);
    let (_, took, flights) = costs(&world, session.list()).await;
    assert_eq!((took, flights), (ROUND, 2));
    let (_, took, flights) = costs(&world, session.take("bank")).await;
    assert_eq!((took, flights), (ROUND, 2));
    let (probed, took, flights) = costs(&world, session.probe()).await;
    assert_eq!((probed.unwrap(), took, flights), (ROUND, ROUND, 2));
    for _ in 0..3 {
        let (answer, took, flights) = costs(&world, session.transmit(&select())).await;
        assert_eq!((took, flights), (ROUND, 2));
        assert_eq!(answer.unwrap()[0], 0x6F);
    }
    let [upper, lower] = TEST_OBJECT.to_be_bytes();
    let long = vec![0x5A; 65_526];
    let put = Command::new(0x80, 0xDA, upper, lower).with_data(&long).unwrap().encode();
    let (answer, took, flights) = costs(&world, session.transmit(&put)).await;
    assert_eq!((&**answer.unwrap(), took, flights), (&[0x90, 0][..], ROUND, 2));
    let get = Command::new(0x80, 0xCA, upper, lower).expecting(65_526).encode();
    let (answer, took, flights) = costs(&world, session.transmit(&get)).await;
    assert_eq!((answer.unwrap().len(), took, flights), (65_528, ROUND, 2));
    let (_, took, flights) = costs(&world, session.reset()).await;
    assert_eq!((took, flights), (ROUND, 2));
    let (_, took, flights) = costs(&world, session.release()).await;
    assert_eq!((took, flights), (ROUND, 2));
}

#[tokio::test(start_paused = true)]
async fn a8_asleep_an_apdu_costs_no_more() {
    let world = World::paired().await;
    let (session, _happenings) = world.inside().await;
    session.take("bank").await.unwrap();
    let times = Heartbeat { every: Duration::from_secs(60), within: Duration::from_secs(10) };
    session.sleep(times).await.unwrap();
    until("it sleeps", || world.home.shared.asleep.load(Ordering::SeqCst) == 1).await;
    world.home.network.takes(THERE);
    let (answer, took, flights) = costs(&world, session.transmit(&select())).await;
    assert_eq!((answer.unwrap()[0], took, flights), (0x6F, ROUND, 2));
}

#[tokio::test(start_paused = true)]
async fn a8_a_payment_costs_a_round_trip_for_each_of_its_apdus() {
    let world = World::paired().await;
    let (session, _happenings) = world.inside().await;
    world.home.network.takes(THERE);
    let payment = Payment { pin: Some(TEST_PIN.to_owned()), ..Payment::of(12_50, 156) };
    let (receipt, took, flights) = costs(&world, paid(&session, payment)).await;
    assert!(receipt.is_approved());
    // Two more: the card was taken, and given back.
    let rounds = receipt.exchanges + 2;
    assert_eq!((took, flights), (ROUND * rounds, 2 * usize::try_from(rounds).unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a8_a_distance_check_that_fails_is_told_on_both_sides_and_not_worked_around() {
    let mut world = World::paired().await;
    // Two milliseconds, in units of 100 µs.
    world.home.put(&BankCardSettings::default().with_distance_max(20), |_| {});
    let (session, mut happenings) = world.inside().await;
    let payment = Payment { distance_check: true, ..Payment::of(100, 156) };
    let allowed = Duration::from_millis(2);
    let said = || world.home.shared.distances.load(Ordering::SeqCst);
    // As near as it says: nothing is told.
    world.home.network.takes(Duration::from_millis(1));
    let near = paid(&session, payment.clone()).await;
    assert_eq!(near.distance, Some(DistanceCheck { measured: allowed, allowed }));
    assert!(near.distance.unwrap().passes() && happenings.try_recv().is_err());
    // Farther: the terminal measures it, three times, and each time it is told. What the sleeve
    // tells the manager of it is on its way at the same time, and time passes for that too.
    world.home.network.takes(THERE);
    let far = paid(&session, payment).await.distance.unwrap();
    assert!(far.measured >= ROUND && !far.passes() && far.allowed == allowed, "{far:?}");
    for at in 0..3 {
        let happened = next(&mut happenings).await;
        let SleeveHappening::DistanceCheckFails { measured, allowed: told } = happened else {
            panic!("{happened:?}")
        };
        assert!(measured == ROUND || at > 0 && measured > ROUND, "{at} {measured:?}");
        assert_eq!(told, allowed);
    }
    until("the manager has heard it", || said() == 3).await;
    assert!(happenings.try_recv().is_err() && session.ended().is_none());
}
