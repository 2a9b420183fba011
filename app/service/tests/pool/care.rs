//! Modules that fall silent, flap, are held too long, or are taken out of service.

use std::collections::BTreeSet;
use std::time::Duration;

use countersign_emulator::Fault;
use countersign_idcard::sam::SamError;
use countersign_service::{
    FLAPS_MAX, HEALTH_EVERY, LEASE_MAX, QUARANTINE_FIRST, READY_WAIT, SamState, SamUnavailable,
};
use tokio::time::{Instant, sleep};

use crate::bank::{Bank, READER, RESET, SHOW_CARD};
use crate::{begin, begun, settle};

const STATUS: [u8; 2] = [0x11, 0xFF];

fn state(bank: &Bank, index: usize) -> SamState {
    bank.pool.health()[index].state
}

#[tokio::test(start_paused = true)]
async fn a_lease_held_too_long_is_taken_back_and_given_on() {
    let bank = Bank::start(1).await;
    let mut late = bank.lease().await;
    begun(&mut late).await;
    bank.commands(0).clear();
    let nearly = HEALTH_EVERY / 2;
    sleep(LEASE_MAX - nearly).await;
    assert!(bank.commands(0).is_empty(), "a module in use is not disturbed");
    let before = Instant::now();
    let mut next = bank.pool.lease("rdr_2").await.unwrap();
    assert!(before.elapsed() <= nearly + Duration::from_secs(1), "{:?}", before.elapsed());
    assert_eq!(*bank.commands(0), [RESET], "it forgot the card first");
    begun(&mut next).await;
    bank.commands(0).clear();
    assert_eq!(late.operate(begin()).await.err(), Some(SamError::Gone));
    drop(late);
    settle().await;
    assert!(bank.commands(0).is_empty(), "the late holder touches nothing");
    assert_eq!(state(&bank, 0), SamState::Leased);
    drop(next);
    drop(bank.lease().await);
}

#[tokio::test(start_paused = true)]
async fn a_silent_module_shows_before_a_reader_meets_it() {
    let bank = Bank::start(2).await;
    bank.commands(0).clear();
    sleep(HEALTH_EVERY + Duration::from_secs(1)).await;
    assert_eq!(*bank.commands(0), [STATUS]);
    assert_eq!(state(&bank, 0), SamState::Ready);

    bank.refuse_to_open(0);
    bank.faults(0).inject(Fault::SilentAfter(STATUS));
    sleep(HEALTH_EVERY + Duration::from_secs(2)).await;
    assert_eq!(state(&bank, 0), SamState::Failed);
    let health = &bank.pool.health()[0];
    assert!(health.failure.is_some() && health.failures == 1, "{health:?}");
    // No read ever waited for it.
    let before = Instant::now();
    for _ in 0..3 {
        begun(&mut bank.lease().await).await;
    }
    assert!(before.elapsed() < Duration::from_millis(50));
}

#[tokio::test(start_paused = true)]
async fn a_flapping_module_is_put_aside_and_comes_back_on_probation() {
    let bank = Bank::start(2).await;
    for flap in 1..=FLAPS_MAX {
        bank.unplug(0);
        bank.wait_until_ready(0, false).await;
        if flap < FLAPS_MAX {
            assert_eq!(state(&bank, 0), SamState::Failed);
            bank.wait_until_ready(0, true).await;
        }
    }
    assert_eq!(state(&bank, 0), SamState::Quarantined);
    assert_eq!(bank.pool.health()[0].failures, FLAPS_MAX as u64);
    sleep(QUARANTINE_FIRST - Duration::from_secs(1)).await;
    assert_eq!(state(&bank, 0), SamState::Quarantined, "though the port would open");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(state(&bank, 0), SamState::Ready);

    // A good read, and another failure: back at once, and for longer.
    let leases = [bank.lease().await, bank.lease().await];
    for mut lease in leases {
        begun(&mut lease).await;
    }
    settle().await;
    bank.unplug(0);
    bank.wait_until_ready(0, false).await;
    sleep(QUARANTINE_FIRST + Duration::from_secs(2)).await;
    assert_eq!(state(&bank, 0), SamState::Quarantined);
    sleep(QUARANTINE_FIRST).await;
    assert_eq!(state(&bank, 0), SamState::Ready);
    assert_eq!(state(&bank, 1), SamState::Ready, "the other one served all the time");
}

/// With nothing else that serves, a module that flaps is better than none.
#[tokio::test(start_paused = true)]
async fn the_only_module_is_not_put_aside() {
    let bank = Bank::start(1).await;
    for _ in 0..2 * FLAPS_MAX {
        bank.unplug(0);
        bank.wait_until_ready(0, false).await;
        assert_eq!(state(&bank, 0), SamState::Failed);
        bank.wait_until_ready(0, true).await;
    }
    begun(&mut bank.lease().await).await;
}

fn ids(bank: &Bank, indices: &[usize]) -> BTreeSet<String> {
    let health = bank.pool.health();
    indices.iter().map(|index| health[*index].sam_id.clone().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_drained_module_finishes_and_begins_nothing() {
    let bank = Bank::start(2).await;
    let mut under_way = bank.lease().await;
    begun(&mut under_way).await;
    bank.pool.set_drained(ids(&bank, &[0]));
    assert_eq!((state(&bank, 0), state(&bank, 1)), (SamState::Draining, SamState::Ready));
    let answer = countersign_idcard::sam::SamOperation::Cancel;
    under_way.operate(answer).await.unwrap();
    drop(under_way);
    settle().await;
    assert_eq!(state(&bank, 0), SamState::Drained);
    bank.commands(0).clear();
    for _ in 0..5 {
        begun(&mut bank.lease().await).await;
    }
    assert!(bank.commands(0).is_empty());

    // It stays out of service when it is plugged in again.
    bank.unplug(0);
    bank.wait_until_ready(0, false).await;
    bank.wait_until_ready(0, true).await;
    assert_eq!(state(&bank, 0), SamState::Drained);
    assert!(!bank.commands(0).contains(&SHOW_CARD));

    // All out of service: a read is told so soon; one that waits when one is put back gets it.
    bank.pool.set_drained(ids(&bank, &[0, 1]));
    let before = Instant::now();
    assert_eq!(bank.pool.lease(READER).await.err(), Some(SamUnavailable::NoneReady));
    assert!(before.elapsed() <= 2 * READY_WAIT);
    let waiting = bank.queue();
    settle().await;
    bank.pool.set_drained(ids(&bank, &[1]));
    begun(&mut waiting.await.unwrap().unwrap()).await;
    assert!(bank.commands(0).contains(&SHOW_CARD));
}

#[tokio::test(start_paused = true)]
async fn a_closed_pool_lets_finish_and_begins_nothing() {
    let bank = Bank::start(1).await;
    let held = bank.lease().await;
    let waiting = bank.queue();
    settle().await;
    let pool = bank.pool.clone();
    let closing = tokio::spawn(async move { pool.close(Duration::from_secs(5)).await });
    settle().await;
    assert_eq!(waiting.await.unwrap().err(), Some(SamUnavailable::NoneReady));
    assert_eq!(bank.pool.lease(READER).await.err(), Some(SamUnavailable::NoneReady));
    assert!(!closing.is_finished());
    drop(held);
    settle().await;
    assert!(closing.is_finished(), "as soon as nothing is under way");

    let bank = Bank::start(1).await;
    let _held = bank.lease().await;
    let before = Instant::now();
    bank.pool.close(Duration::from_secs(5)).await;
    assert_eq!(before.elapsed().as_secs(), 5, "and no longer than it may");
}

#[tokio::test(start_paused = true)]
async fn what_a_module_did_is_counted() {
    let bank = Bank::start(1).await;
    bank.faults(0).inject(Fault::CardNotFound);
    assert!(bank.lease().await.operate(begin()).await.is_err());
    bank.faults(0).inject(Fault::UnplugAt(SHOW_CARD));
    let mut lease = bank.lease().await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(lease.operate(begin()).await.err(), Some(SamError::Gone));
    drop(lease);
    let health = &bank.pool.health()[0];
    let (id, tally) = &health.tallies[0];
    assert_eq!(Some(id), health.sam_id.as_ref());
    let failures: Vec<_> = tally.failures.iter().map(|(check, count)| (*check, *count)).collect();
    assert_eq!(failures, [("card-not-found", 1), ("sam-gone", 1)]);
    assert!(tally.busy >= Duration::from_secs(1) && tally.reads == 0, "{tally:?}");
    assert_eq!(tally.lost, 1);
    // So the module's own list has it, which names ids and not ports.
    let module = &bank.pool.modules()[0];
    assert_eq!((&module.failed, module.failures), (&tally.failures, 1));
}
