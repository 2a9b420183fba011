//! Worlds for a long time: `cargo xtask soak payments`.

use std::time::Duration;

use libtest_mimic::Failed;
use testkit::parts::Postgres;
use tokio::time::Instant;

use crate::house::Place;
use crate::run::live;
use crate::world::Tally;
use crate::{block_on, postgres_place};

/// For how long, in seconds, and from which seed on: set by `cargo xtask soak payments`.
const SECONDS: &str = "COUNTERSIGN_SOAK_SECONDS";
const SEED: &str = "COUNTERSIGN_SOAK_SEED";
/// How many actions a world has.
const STEPS: usize = 400;

/// What a long run is told.
pub(crate) struct Plan {
    time: Duration,
    seed: u64,
}

impl Plan {
    /// None unless a long run is asked for.
    pub(crate) fn from_environment() -> Option<Self> {
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        Some(Self { time: Duration::from_secs(number(SECONDS)?), seed: number(SEED)? })
    }
}

/// Lives one world after the other, in turn in memory, in a file and in PostgreSQL if it is there.
pub(crate) fn run(plan: &Plan, postgres: Option<&Postgres>) -> Result<(), Failed> {
    let started = Instant::now();
    let (mut tally, mut failures, mut worlds) = (Tally::default(), Vec::new(), 0);
    for seed in plan.seed.. {
        if started.elapsed() >= plan.time {
            break;
        }
        let place = match (seed % 4, postgres) {
            (0, _) => Place::file(),
            (1, Some(postgres)) => postgres_place(postgres)?,
            _ => block_on(Place::memory()),
        };
        worlds += 1;
        match block_on(live(place, seed, STEPS)) {
            Ok(world) => tally.add_all(&world.tally),
            Err(failure) => {
                eprintln!("{failure}");
                failures.push(failure.to_string());
            }
        }
    }
    println!("{worlds} worlds from seed {}: {:?}", plan.seed, tally.0);
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n").into()) }
}
