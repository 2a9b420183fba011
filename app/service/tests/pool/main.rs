//! The SAM pool (C12) over emulated modules and in-memory ports, in virtual time.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod bank;
mod care;
mod fair;
mod remote;

use std::time::Duration;

use countersign_emulator::Fault;
use countersign_idcard::Configuration;
use countersign_idcard::sam::{SamError, SamOperation, SamResult};
use countersign_service::{LEASE_WAIT, QUEUE_MAX, READY_WAIT, SamLease, SamUnavailable};
use tokio::time::{Instant, sleep};

use bank::{Bank, READER, RESET, SHOW_CARD};

fn begin() -> SamOperation {
    SamOperation::Begin { configuration: Configuration::new([1; 32]) }
}

async fn begun(lease: &mut SamLease) {
    assert!(matches!(lease.operate(begin()).await, Ok(SamResult::Challenge(_))));
}

/// Lets everything happen that takes no time.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn two_modules_serve_two_reads_and_a_third_waits_its_turn() {
    let bank = Bank::start(2).await;
    let (mut first, mut second) = (bank.lease().await, bank.lease().await);
    assert_ne!(first.sam_id(), second.sam_id());
    begun(&mut first).await;
    begun(&mut second).await;
    let third = bank.queue();
    settle().await;
    assert!(!third.is_finished());
    let freed = first.sam_id();
    drop(first);
    let third = third.await.unwrap().unwrap();
    assert_eq!(third.sam_id(), freed);
    assert_ne!(third.sam_id(), second.sam_id());
}

#[tokio::test(start_paused = true)]
async fn a_read_waits_for_a_busy_pool_only_so_long() {
    let bank = Bank::start(1).await;
    let _held = bank.lease().await;
    let before = Instant::now();
    assert_eq!(bank.pool.lease(READER).await.err(), Some(SamUnavailable::Busy));
    assert!(before.elapsed() >= LEASE_WAIT && before.elapsed() < 2 * LEASE_WAIT);
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_and_who_gave_up_does_not_count() {
    let bank = Bank::start(1).await;
    let held = bank.lease().await;
    let waiting: Vec<_> = (0..QUEUE_MAX).map(|n| bank.queue_as(&format!("other_{n}"))).collect();
    settle().await;
    let before = Instant::now();
    assert_eq!(bank.pool.lease(READER).await.err(), Some(SamUnavailable::Busy));
    assert_eq!(before.elapsed(), Duration::ZERO, "refused at once");
    waiting[7].abort();
    settle().await;
    let late = bank.queue();
    settle().await;
    assert!(!late.is_finished(), "a place became free");
    drop(held);
    for (index, task) in waiting.into_iter().enumerate() {
        assert_eq!(task.await.is_ok(), index != 7); // each lease is dropped for the next one
    }
    assert!(late.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_came_first_is_served_first_and_newcomers_do_not_overtake() {
    let bank = Bank::start(1).await;
    let held = bank.lease().await;
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(bank.queue());
        settle().await;
    }
    drop(held);
    // Asks at the very moment at which the module becomes free, before anybody else ran.
    let newcomer = bank.queue();
    for (index, task) in waiting.iter_mut().enumerate() {
        let lease = task.await.unwrap().unwrap();
        settle().await;
        assert!(!newcomer.is_finished(), "overtook number {index}");
        drop(lease);
    }
    assert!(newcomer.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_lease_dropped_in_mid_read_makes_the_module_forget_the_card() {
    let bank = Bank::start(1).await;
    let mut lease = bank.lease().await;
    begun(&mut lease).await;
    bank.commands(0).clear();
    drop(lease);
    let mut next = bank.lease().await;
    assert_eq!(*bank.commands(0), [RESET], "before the next read gets it");
    begun(&mut next).await;
    assert_eq!(bank.commands(0)[1], SHOW_CARD);

    // Dropped while the module still works on the operation.
    drop(next);
    let mut next = bank.lease().await;
    bank.commands(0).clear();
    let working = tokio::spawn(async move { next.operate(begin()).await });
    tokio::task::yield_now().await;
    working.abort();
    let next = bank.lease().await;
    let commands = bank.commands(0).clone();
    assert_eq!((commands.first(), commands.last()), (Some(&SHOW_CARD), Some(&RESET)));

    // So it does after an operation out of turn, which the module never saw.
    drop(next);
    let mut next = bank.lease().await;
    begun(&mut next).await;
    assert_eq!(next.operate(begin()).await.err(), Some(SamError::NotReady));
    bank.commands(0).clear();
    drop(next);
    let next = bank.lease().await;
    assert_eq!(*bank.commands(0), [RESET]);

    // A lease that was never used leaves nothing to forget.
    drop(next);
    bank.commands(0).clear();
    drop(bank.lease().await);
    let _unused = bank.lease().await;
    assert!(bank.commands(0).is_empty());
}

/// The heart of it: what is left of a lease from before the module was reopened does nothing to
/// the read that has the module now, and does not give the module away a second time.
#[tokio::test(start_paused = true)]
async fn a_lease_from_before_a_reopening_is_stale() {
    let bank = Bank::start(1).await;
    let mut old = bank.lease().await;
    begun(&mut old).await;
    bank.unplug(0);
    bank.wait_until_ready(0, false).await;
    bank.wait_until_ready(0, true).await;

    let mut new = bank.lease().await;
    begun(&mut new).await;
    bank.commands(0).clear();
    let answer = SamOperation::Answer { answer: [0; 8], random: [0; 8] };
    assert_eq!(old.operate(answer).await.err(), Some(SamError::Gone));
    drop(old);
    settle().await;
    assert!(bank.commands(0).is_empty(), "nothing reached the module");

    let queued = bank.queue();
    settle().await;
    assert!(!queued.is_finished(), "the stale lease freed a module that is in use");
    drop(new);
    let only = queued.await.unwrap().unwrap();
    let second = bank.queue();
    settle().await;
    assert!(!second.is_finished(), "the module is idle once, not twice");
    drop(only);
    assert!(second.await.unwrap().is_ok());
}

/// As above, but the old lease is dropped with a card in the module, so that it would cancel.
#[tokio::test(start_paused = true)]
async fn a_stale_lease_cancels_nothing() {
    let bank = Bank::start(1).await;
    let mut old = bank.lease().await;
    begun(&mut old).await;
    bank.unplug(0);
    bank.wait_until_ready(0, false).await;
    bank.wait_until_ready(0, true).await;
    let mut new = bank.lease().await;
    begun(&mut new).await;
    bank.commands(0).clear();
    drop(old);
    settle().await;
    assert!(bank.commands(0).is_empty());
    let third = bank.queue();
    settle().await;
    assert!(!third.is_finished());
}

#[tokio::test(start_paused = true)]
async fn when_one_module_dies_the_other_serves_on() {
    let bank = Bank::start(2).await;
    let mut first = bank.lease().await;
    bank.refuse_to_open(0);
    bank.faults(0).inject(Fault::UnplugAt(SHOW_CARD));
    assert_eq!(first.operate(begin()).await.err(), Some(SamError::Gone));
    let dead = first.sam_id();
    drop(first);
    for _ in 0..4 {
        let mut lease = bank.lease().await;
        assert_ne!(lease.sam_id(), dead);
        begun(&mut lease).await;
    }
    let health = bank.pool.health();
    assert_eq!((health[0].ready, health[1].ready), (false, true));
    assert!(health[0].failure.is_some());
}

#[tokio::test(start_paused = true)]
async fn without_a_ready_module_a_read_waits_a_moment_and_not_longer() {
    let bank = Bank::start(1).await;
    bank.unplug(0);
    bank.wait_until_ready(0, false).await;
    drop(bank.lease().await); // it is back within the wait

    bank.refuse_to_open(0);
    bank.unplug(0);
    bank.wait_until_ready(0, false).await;
    let before = Instant::now();
    assert_eq!(bank.pool.lease(READER).await.err(), Some(SamUnavailable::NoneReady));
    assert!(before.elapsed() >= READY_WAIT / 2 && before.elapsed() <= 2 * READY_WAIT);
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_of_a_dead_module_is_answered_at_once() {
    let bank = Bank::start(1).await;
    let mut lease = bank.lease().await;
    begun(&mut lease).await;
    bank.refuse_to_open(0);
    bank.unplug(0);
    sleep(Duration::from_secs(60)).await; // long enough for the longest pause between tries
    let before = Instant::now();
    assert_eq!(lease.operate(begin()).await.err(), Some(SamError::Gone));
    assert!(before.elapsed() < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_pool_ends_its_tasks_though_the_port_cannot_be_opened() {
    let bank = Bank::start(2).await;
    bank.refuse_to_open(0);
    bank.unplug(0);
    bank.wait_until_ready(0, false).await;
    let connectors = bank.drop_pool();
    sleep(Duration::from_secs(60)).await;
    for connector in connectors {
        assert_eq!(std::sync::Arc::strong_count(&connector), 1, "its task is gone");
    }
}
