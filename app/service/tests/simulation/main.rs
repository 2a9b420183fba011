//! Payments in worlds drawn from seeds: initiating terminals, phones, security devices, signing
//! cards, operators and forgers at servers that crash, on databases that fail. After every action
//! the invariants of [`judge`] are worked out from what is stored.
//!
//! A seed gives the same actions each time; what runs at once may still end in another order.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod browser;
mod calls;
mod card;
mod cast;
mod forge;
mod hear;
mod house;
mod judge;
mod mutants;
mod plan;
mod reproductions;
mod run;
mod saboteurs;
mod signing;
mod snapshot;
mod soak;
mod till;
mod world;

use libtest_mimic::{Arguments, Failed, Trial};
use testkit::parts::{self, Postgres};

use crate::house::Place;
use crate::reproductions::{REPRODUCTIONS, Reproduction};
use crate::run::{live, outlive};
use crate::world::{Tally, World};

/// How many actions a world has.
const STEPS: usize = 150;
/// The seeds of the worlds on each database. In memory there is time for more; what has to happen
/// at all happens there some ten times over, however races end.
const MEMORY_SEEDS: [u64; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 18, 21, 24, 27, 33];
const FILE_SEEDS: std::ops::Range<u64> = 101..104;
const POSTGRES_SEEDS: std::ops::Range<u64> = 201..204;
const DYING_SEED: u64 = 301;

/// What has to happen in the worlds of a run at least once: otherwise they prove nothing.
const EXPECTED: [&str; 39] = [
    "PINs blocked",
    "PINs unblocked",
    "PINs wrong",
    "accounts frozen",
    "answers recovered",
    "answers refused",
    "browsers proven",
    "calls that the database failed",
    "calls without an answer",
    "cancelled",
    "cards removed",
    "cards reset",
    "clocks moved meanwhile",
    "commands twice",
    "crashes",
    "database faults",
    "declined at the keypad",
    "devices blocked",
    "devices revoked",
    "devices unbound",
    "devices unblocked",
    "executed",
    "execution failed",
    "expired",
    "failed",
    "frozen by the payer",
    "identical answers",
    "identical refusals",
    "identical retries",
    "joint actions",
    "phones revoked",
    "refunds",
    "rejected",
    "requests done",
    "requests refused by name",
    "responses lost",
    "signed unheard",
    "steps",
    "typed in at the checkout",
];

/// The same of cards that sign at terminals.
const EXPECTED_OF_CARDS: [&str; 77] = [
    "answers without a form",
    "asked for another's",
    "asked with a wrong hash",
    "batteries dead after consent",
    "batteries dead before consent",
    "brought too late",
    "brought: a commitment turned",
    "brought: a device's name",
    "brought: a foreign card's",
    "brought: a signature turned",
    "brought: after a wrong hash",
    "brought: after peeking",
    "brought: altered after signing",
    "brought: an old password",
    "brought: another amount signed",
    "brought: another card's name",
    "brought: another commitment",
    "brought: another form",
    "brought: another payee signed",
    "brought: another payment signed",
    "brought: another proof",
    "brought: another signature",
    "brought: as a phone's",
    "brought: as it is",
    "brought: by another terminal",
    "brought: guessed",
    "brought: mistyped",
    "brought: nobody's name",
    "brought: signed twice",
    "brought: to another payment",
    "brought: without consent",
    "cancelled by the terminal",
    "consent timed out",
    "consented",
    "declined at the card",
    "declined by comparing",
    "executed as digest",
    "executed as sealed",
    "executed as sealed-random",
    "failed by a terminal's answers",
    "identical answers of terminals",
    "identical refusals of terminals",
    "joint PINs blocked",
    "joint PINs unblocked",
    "joint PINs wrong",
    "joint batteries dead",
    "joint cards removed",
    "joint cards reset",
    "joint cards reset untold",
    "joint commands twice",
    "joint passwords guessed",
    "joint responses lost",
    "joint signed",
    "joint signed unheard",
    "left in the terminal",
    "not found",
    "nothing to consent to",
    "peeked",
    "read without contact",
    "refused by answer-signature",
    "refused by device-not-bound",
    "refused by device-unknown",
    "refused by joint-form",
    "refused by joint-password",
    "refused by joint-transaction",
    "refused by method",
    "tapped for nothing",
    "terms told",
    "told in pictures",
    "torn at GET DATA",
    "torn at GET RESPONSE",
    "torn at MSE SET",
    "torn at PUT TRANSACTION",
    "torn at RELEASE",
    "torn at SELECT",
    "torn at SIGN",
    "typed",
];

fn main() {
    let arguments = Arguments::from_args();
    let postgres = parts::require(Postgres::start());
    let mut trials = Vec::new();
    if let Some(plan) = soak::Plan::from_environment() {
        let part = postgres.part().cloned();
        trials.push(Trial::test("soak", move || soak::run(&plan, part.as_deref())));
    } else {
        for reproduction in REPRODUCTIONS {
            let Reproduction { seed, steps, .. } = reproduction;
            let name = format!("reproduction_{seed}_{steps}");
            trials.push(Trial::test(format!("{name}::sqlite"), || again(reproduction, &memory)));
            let on_postgres = move |part: &Postgres| again(reproduction, &|| postgres_place(part));
            trials.push(postgres.trial(format!("{name}::postgres"), on_postgres));
        }
        // What takes longest comes first, so that nothing waits for it alone.
        trials.push(Trial::test("worlds_hold::sqlite_memory", || {
            let tally = worlds(MEMORY_SEEDS, &memory)?;
            is_worth_it(&tally)
        }));
        trials.push(Trial::test("worlds_hold::sqlite_file", || {
            worlds(FILE_SEEDS, &|| Ok(Place::file())).map(|_| ())
        }));
        trials.push(postgres.trial("worlds_hold::postgres", |part: &Postgres| {
            worlds(POSTGRES_SEEDS, &|| postgres_place(part)).map(|_| ())
        }));
        trials.push(postgres.trial("worlds_hold::postgres_that_dies", |_: &Postgres| {
            let own = Postgres::start()?;
            let place = postgres_place(&own)?;
            let lived = block_on(outlive(place, own, DYING_SEED));
            lived.map(|_| ()).map_err(|failure| failure.to_string().into())
        }));
        trials.extend(mutants::trials());
        trials.extend(saboteurs::trials());
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(postgres);
    conclusion.exit();
}

fn memory() -> Result<Place, Failed> {
    Ok(block_on(Place::memory()))
}

fn postgres_place(part: &Postgres) -> Result<Place, Failed> {
    Ok(Place::Postgres(part.fresh_database()?))
}

/// Runs something of a world's on this thread.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(work)
}

/// Lives one world.
fn world(place: Place, seed: u64, steps: usize) -> Result<World, Failed> {
    block_on(live(place, seed, steps)).map_err(|failure| failure.to_string().into())
}

/// Lives the worlds of these seeds; all of them, so that every failing seed is told.
fn worlds(
    seeds: impl IntoIterator<Item = u64>,
    place: &dyn Fn() -> Result<Place, Failed>,
) -> Result<Tally, Failed> {
    let mut tally = Tally::default();
    let mut failures = Vec::new();
    for seed in seeds {
        match block_on(live(place()?, seed, STEPS)) {
            Ok(world) => tally.add_all(&world.tally),
            Err(failure) => failures.push(failure.to_string()),
        }
    }
    if failures.is_empty() { Ok(tally) } else { Err(failures.join("\n").into()) }
}

/// A world that once went wrong, several times: what runs at once may end in another order.
fn again(
    reproduction: &Reproduction,
    place: &dyn Fn() -> Result<Place, Failed>,
) -> Result<(), Failed> {
    for _ in 0..3 {
        world(place()?, reproduction.seed, reproduction.steps)
            .map_err(|failed| format!("again: {}\n{failed:?}", reproduction.what))?;
    }
    Ok(())
}

/// Whether enough happened for the worlds to say anything.
fn is_worth_it(tally: &Tally) -> Result<(), Failed> {
    let expected = EXPECTED.iter().chain(&EXPECTED_OF_CARDS);
    let missing: Vec<_> =
        expected.filter(|what| tally.0.get(*what).is_none_or(|count| *count == 0)).collect();
    if missing.is_empty() {
        println!("{:?}", tally.0);
        Ok(())
    } else {
        Err(format!("this never happened: {missing:?}, but {:?}", tally.0).into())
    }
}
