//! A long run of reads with trouble on every side: nothing may be lost, mixed up, or grow.
//!
//! The server is a process of its own, as in production, and so is a SAM host. In the first part of
//! the time the server is killed and started again every so often; in the rest it lives, so that
//! its memory can be watched. All the time modules are unplugged and garble, the SAM host is
//! killed, cards are taken away in mid-read, and every other reader speaks over a link that drops,
//! damages, doubles and swaps datagrams. Everything is drawn from one seed.

mod cards;
mod program;
mod reader;
mod trouble;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use countersign_device::Api;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::Fallible;
use program::Machine;
use reader::Tally;

/// Of the whole time, the part in which the server is killed now and then.
const KILLS_UNTIL: f64 = 0.4;
/// How often the server's memory is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How much larger its memory may be at the end than when it had settled: a part of it, and a
/// number of bytes for caches that fill slowly.
const GROWTH_PART: f64 = 0.05;
const GROWTH_BYTES: f64 = 4.0 * 1024.0 * 1024.0;

/// What a run is told.
pub(crate) struct Plan {
    /// The `countersign` program.
    pub(crate) program: PathBuf,
    /// For how long readers read.
    pub(crate) time: Duration,
    /// What everything is drawn from.
    pub(crate) seed: u64,
    /// How many readers there are.
    pub(crate) readers: u32,
}

/// Runs, and tells what was seen; the flag says whether all of it was right.
pub(crate) fn run(plan: &Plan) -> Fallible<(bool, Value)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(soak(plan))
}

async fn soak(plan: &Plan) -> Fallible<(bool, Value)> {
    let machine = Arc::new(Machine::set_up(plan).await?);
    let stop = Arc::new(AtomicBool::new(false));
    let started = Instant::now();
    let mut readers = Vec::new();
    for number in 0..plan.readers {
        let reader = reader::Seat::take(&machine, plan.seed, number).await?;
        readers.push(tokio::spawn(reader.read_on(stop.clone())));
    }
    let trouble = tokio::spawn(trouble::make(
        machine.clone(),
        plan.seed,
        started + plan.time.mul_f64(KILLS_UNTIL),
        stop.clone(),
    ));
    let mut memory = Vec::new();
    while started.elapsed() < plan.time {
        sleep(LOOK_EVERY).await;
        if started.elapsed() > plan.time.mul_f64(KILLS_UNTIL) {
            memory.extend(machine.server_memory());
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut tally = Tally::default();
    for reader in readers {
        tally.add(&reader.await??);
    }
    let troubles = trouble.await??;
    let stored = stored(&machine).await?;
    let link = machine.link_tally();
    machine.stop();
    let growth = Growth::of(&memory);
    let findings = findings(&tally, &stored, growth.as_ref());
    let report = json!({
        "soak": "read",
        "ok": findings.is_empty(),
        "findings": findings,
        "seed": plan.seed,
        "seconds": started.elapsed().as_secs(),
        "reads": tally.to_json(),
        "stored": { "done": stored.done, "failed": stored.failed, "started": stored.started },
        "trouble": troubles.to_json(),
        "link": {
            "datagrams": link.sent,
            "dropped": link.dropped,
            "damaged": link.damaged,
            "duplicated": link.duplicated,
            "reordered": link.reordered,
        },
        "serverMemory": growth.map(|growth| growth.to_json()),
    });
    Ok((findings.is_empty(), report))
}

/// What was wrong; empty if nothing.
fn findings(tally: &Tally, stored: &Stored, growth: Option<&Growth>) -> Vec<String> {
    let mut findings = Vec::new();
    let mut find = |wrong: bool, what: String| {
        if wrong {
            findings.push(what);
        }
    };
    find(tally.right == 0, "no read succeeded at all".into());
    find(tally.wrong > 0, format!("{} reads gave a wrong record", tally.wrong));
    for (check, count) in tally.unexpected() {
        find(true, format!("{count} reads failed with {check}, which no trouble here explains"));
    }
    // Each read that a reader was given is a row that is done. A row may be done whose reader got
    // no answer and gave up.
    let given = tally.from_server;
    let most = given + tally.failed();
    let (done, wanted) = (stored.done, given..=most);
    find(!wanted.contains(&done), format!("{done} reads are stored as done, not {wanted:?}"));
    match growth {
        None => find(true, "the server's memory was never seen".into()),
        Some(growth) => find(growth.is_too_much(), growth.sentence()),
    }
    findings
}

/// The server's rows.
#[derive(Default)]
struct Stored {
    done: u64,
    failed: u64,
    /// Their reader gave up, and the server was killed, or the word got lost on a bad link.
    started: u64,
}

async fn stored(machine: &Arc<Machine>) -> Fallible<Stored> {
    let api = machine.api()?;
    let counted = tokio::task::spawn_blocking(move || count_rows(&api));
    counted.await?
}

fn count_rows(api: &Api) -> Fallible<Stored> {
    let mut stored = Stored::default();
    let mut cursor = String::new();
    loop {
        let page: Value = api.get(&format!("/v1/reads?limit=200{cursor}"))?;
        for read in page["items"].as_array().ok_or("no items")? {
            match read["state"].as_str() {
                Some("done") => stored.done += 1,
                Some("failed") => stored.failed += 1,
                _ => stored.started += 1,
            }
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(stored),
        }
    }
}

/// The server's memory when it had settled and at the end: medians, in bytes.
struct Growth {
    settled: f64,
    end: f64,
}

impl Growth {
    /// Of samples in the order in which they were taken: the second and the last fifth.
    fn of(samples: &[u64]) -> Option<Self> {
        let fifth = samples.len() / 5;
        if fifth == 0 {
            return None;
        }
        let middle = |samples: &[u64]| {
            let figures: Vec<_> = samples.iter().map(|bytes| *bytes as f64).collect();
            crate::measure::median(&figures)
        };
        let end = middle(&samples[samples.len() - fifth..]);
        Some(Self { settled: middle(&samples[fifth..2 * fifth]), end })
    }

    fn is_too_much(&self) -> bool {
        self.end > self.settled * (1.0 + GROWTH_PART) + GROWTH_BYTES
    }

    fn sentence(&self) -> String {
        format!("the server's memory grew from {} to {} bytes", self.settled, self.end)
    }

    fn to_json(&self) -> Value {
        json!({ "settledBytes": self.settled, "endBytes": self.end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_memory_is_no_growth_and_a_leak_is() {
        let steady: Vec<u64> = (0..100).map(|at| 50_000_000 + (at % 7) * 100_000).collect();
        assert!(!Growth::of(&steady).unwrap().is_too_much());
        let leak: Vec<u64> = (0..100).map(|at| 50_000_000 + at * 200_000).collect();
        assert!(Growth::of(&leak).unwrap().is_too_much());
        assert!(Growth::of(&steady[..4]).is_none());
    }

    fn seen(done: u64) -> Vec<String> {
        let tally = Tally { right: 10, from_server: 8, ..Tally::default() };
        let stored = Stored { done, ..Stored::default() };
        findings(&tally, &stored, Some(&Growth { settled: 1.0, end: 1.0 }))
    }

    #[test]
    fn a_lost_row_and_a_row_too_many_are_found() {
        assert_eq!(seen(8), Vec::<String>::new());
        assert_eq!(seen(7).len(), 1);
        assert_eq!(seen(9).len(), 1);
    }

    #[test]
    fn a_wrong_record_and_a_failure_without_cause_are_found() {
        let mut tally = Tally { right: 1, wrong: 1, ..Tally::default() };
        tally.failures.insert("packets".into(), 2);
        let growth = Growth { settled: 1.0, end: 1.0 };
        assert_eq!(findings(&tally, &Stored::default(), Some(&growth)).len(), 2);
    }
}
