//! Readers take turns.

use std::time::Duration;

use countersign_service::{PER_READER_HELD_MAX, PER_READER_MAX, SamUnavailable};
use tokio::time::{Instant, sleep};

use crate::bank::{Bank, RESET};
use crate::{begun, settle};

/// How long the reads of these tests hold their module.
const READ: Duration = Duration::from_millis(100);

/// A reader that always has as many reads waiting as it may, beside one that has one at a time.
#[tokio::test(start_paused = true)]
async fn a_flooding_reader_pushes_another_back_by_one_turn_at_most() {
    let bank = Bank::start(1).await;
    let mut flood = Vec::new();
    for _ in 0..PER_READER_MAX {
        let pool = bank.pool.clone();
        flood.push(tokio::spawn(async move {
            loop {
                let lease = pool.lease("rdr_flood").await;
                sleep(READ).await;
                drop(lease);
            }
        }));
    }
    settle().await;
    let mut waits = Vec::new();
    for _ in 0..20 {
        let asked = Instant::now();
        let lease = bank.pool.lease("rdr_modest").await.unwrap();
        waits.push(asked.elapsed());
        sleep(READ).await;
        drop(lease);
    }
    let longest = waits.iter().max().unwrap();
    // What is under way, and one turn of the flood.
    assert!(*longest <= 2 * READ + Duration::from_millis(5), "{waits:?}");
    flood.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn several_readers_get_the_module_in_turn() {
    let bank = Bank::start(1).await;
    let held = bank.lease().await;
    let order = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut waiting = Vec::new();
    for name in ["a1", "a2", "a3", "b1", "b2", "c1"] {
        let (pool, order) = (bank.pool.clone(), order.clone());
        waiting.push(tokio::spawn(async move {
            let lease = pool.lease(&name[..1]).await.unwrap();
            order.lock().unwrap().push(name);
            sleep(READ).await;
            drop(lease);
        }));
        settle().await;
    }
    drop(held);
    for task in waiting {
        task.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), ["a1", "b1", "c1", "a2", "b2", "a3"]);
}

#[tokio::test(start_paused = true)]
async fn one_reader_may_wait_with_so_many_reads_and_others_are_not_touched() {
    let bank = Bank::start(1).await;
    let held = bank.lease().await;
    let mut waiting: Vec<_> = (0..PER_READER_MAX).map(|_| bank.queue_as("rdr_a")).collect();
    settle().await;
    assert_eq!(bank.pool.waiting(), PER_READER_MAX);
    let before = Instant::now();
    assert_eq!(bank.pool.lease("rdr_a").await.err(), Some(SamUnavailable::Busy));
    assert_eq!(before.elapsed(), Duration::ZERO, "refused at once");
    let other = bank.queue_as("rdr_b");
    settle().await;
    assert!(!other.is_finished(), "another reader waits as it may");
    drop(held);
    drop(waiting.remove(0).await.unwrap().unwrap());
    drop(other.await.unwrap().unwrap());
    for task in waiting {
        assert!(task.await.unwrap().is_ok());
    }
}

/// Who begins reads and stalls holds so many modules and no more; the others go on.
#[tokio::test(start_paused = true)]
async fn one_reader_holds_only_so_many_modules() {
    let bank = Bank::start(4).await;
    let stalling: Vec<_> = (0..PER_READER_HELD_MAX + 3).map(|_| bank.queue_as("rdr_a")).collect();
    settle().await;
    assert_eq!(stalling.iter().filter(|task| task.is_finished()).count(), PER_READER_HELD_MAX);
    let before = Instant::now();
    let (one, two) = (bank.pool.lease("rdr_b").await, bank.pool.lease("rdr_c").await);
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(before.elapsed(), Duration::ZERO, "at once");
    drop((one, two));
    let mut stalling = stalling.into_iter();
    for _ in 0..PER_READER_HELD_MAX + 3 {
        drop(stalling.next().unwrap().await.unwrap().unwrap()); // each gives the next its place
    }
}

/// With every number of modules the pool loses no time between reads.
#[tokio::test(start_paused = true)]
async fn a_freed_module_goes_on_at_once() {
    for count in [1_u32, 4, 16] {
        let bank = Bank::start(count).await;
        let reads = 25;
        let started = Instant::now();
        let readers: Vec<_> = (0..2 * count)
            .map(|number| {
                let pool = bank.pool.clone();
                tokio::spawn(async move {
                    for _ in 0..reads {
                        let mut lease = pool.lease(&format!("rdr_{number}")).await.unwrap();
                        begun(&mut lease).await;
                        sleep(READ).await;
                        let cancel = countersign_idcard::sam::SamOperation::Cancel;
                        lease.operate(cancel).await.unwrap();
                    }
                })
            })
            .collect();
        for reader in readers {
            reader.await.unwrap();
        }
        let ideal = READ * (2 * reads);
        let took = started.elapsed();
        assert!(took.as_secs_f64() <= ideal.as_secs_f64() / 0.95, "{count}: {took:?}");
        let health = bank.pool.health();
        let busy: Duration = health.iter().flat_map(|one| &one.tallies).map(|(_, t)| t.busy).sum();
        assert!(busy >= ideal * count, "{busy:?}");
        for index in 0..count as usize {
            let resets = bank.commands(index).iter().filter(|code| **code == RESET).count();
            assert!(resets <= 1 + 2 * reads as usize, "the start's, and one for each cancel");
        }
    }
}
