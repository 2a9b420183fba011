//! Confirmed payments in a second: the service, from a phone's answer to the executed payment,
//! beside pgbench, which sends the same rows to the same PostgreSQL; and group commit on SQLite
//! beside one commit for each payment.

mod ours;
mod pgbench;
mod seed;
mod slice;
mod stage;

use std::sync::Arc;
use std::time::Duration;

use countersign_store::{Store, StoreError};
use testkit::parts::Postgres;

use self::pgbench::{Manner, Pgbench};
use self::slice::Slice;
use self::stage::House;
use crate::Fallible;
use crate::report::{Report, Row, Section};

/// Clients at the same time on PostgreSQL.
const CLIENTS: [u64; 2] = [8, 32];
/// Clients at the same time on SQLite, beside a single one.
const GROUP: u64 = 64;
/// At least this share of pgbench's rate.
const SHARE_WANTED: f64 = 0.5;
/// At least so many times the rate of one commit for each payment, and of row locks.
const GROUP_WANTED: f64 = 10.0;
const HOT_WANTED: f64 = 5.0;
/// Bounds of a slice's payments for each client.
const EACH_MIN: u64 = 4;
const EACH_MAX: u64 = 20_000;
/// What the first slice of each side takes for granted; it only finds the rate.
const FIRST_RATE: f64 = 500.0;

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// How many pairs of slices each comparison has.
    pub(crate) rounds: usize,
    /// How long a slice is to be.
    pub(crate) slice: Duration,
    /// The only database to measure, if not both.
    pub(crate) only: Option<Database>,
}

/// A database under the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Database {
    /// Beside pgbench.
    Postgresql,
    /// Group commit beside one commit for each payment.
    Sqlite,
}

/// Measures and compares.
pub(crate) fn report(plan: Plan) -> Fallible<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(plan))
}

async fn measure(plan: Plan) -> Fallible<Report> {
    let dir = tempfile::tempdir()?;
    let (mut sections, mut notes) = (Vec::new(), Vec::new());
    let wanted = |database| plan.only.is_none_or(|only| only == database);
    if wanted(Database::Postgresql) {
        let postgres = Postgres::start()?;
        let url = postgres.url().to_owned();
        let pgbench = Pgbench::new(&postgres, &url)?;
        let house = House::new(&dir.path().join("postgresql"), Some(&url)).await?;
        notes.push(settings(house.service.store()).await?);
        let mut turns = Turns { plan, next: slice::PAYERS };
        let (mut own, mut hot) = (Vec::new(), Vec::new());
        for clients in CLIENTS {
            let against = Against { house: &house, pgbench: &pgbench, clients };
            own.extend(turns.beside_pgbench(&against, false, SHARE_WANTED).await?);
            hot.extend(turns.beside_pgbench(&against, true, HOT_WANTED).await?);
        }
        house.check().await?;
        let title = "PostgreSQL, payments between different accounts";
        sections.push(Section { title, rows: own });
        sections.push(Section { title: "PostgreSQL, all payments to one account", rows: hot });
    }
    if wanted(Database::Sqlite) {
        let house = House::new(&dir.path().join("sqlite"), None).await?;
        notes.push(settings(house.service.store()).await?);
        let rows = Turns { plan, next: slice::PAYERS }.grouped(&house).await?;
        house.check().await?;
        sections.push(Section { title: "SQLite", rows });
    }
    notes.extend(NOTES.map(String::from));
    Ok(Report { bench: "payments", sections, notes })
}

const NOTES: [&str; 4] = [
    "A confirmed payment of ours: `Service::answer_payment` with a P-256 signature of the payer's \
     device, so signature, certificate, device, phone, binding, state, expiry and balances are \
     checked, and it returns when the executed payment is committed. HTTP is left out. Server, \
     database and clients share this machine's cores.",
    "pgbench sends, for each payment, one transaction that writes the same rows to the same \
     tables (lock, authorisation, two balances, posting, three rows of the timeline, audit, \
     event, state), as prepared statements over TCP, and checks no signature, device, certificate \
     or phone. `statements`: it awaits each answer, as a program does. `pipeline`: it sends all \
     of a transaction's statements at once.",
    "Sides take turns in slices on one database, and who begins changes. A slice counts while all \
     its clients work, each without its first five payments. The ratio is the median of the \
     rounds' ratios, with the lowest and the highest; the rates are medians, and of this machine \
     at this time only.",
    "After the last slice every payment of every slice was executed and posted once, and the \
     ledger's own check held.",
];

/// What the database says of its durability.
async fn settings(store: &Store) -> Fallible<String> {
    let backend = store.backend_name();
    let names: &[&str] = match backend {
        "postgresql" => &["server_version", "synchronous_commit", "fsync", "full_page_writes"],
        _ => &["journal_mode", "synchronous"],
    };
    let ask = if backend == "postgresql" { "SHOW" } else { "PRAGMA" };
    let mut told = Vec::new();
    for name in names {
        let sql = format!("{ask} {name}");
        let asked = move |tx: &mut countersign_store::Tx<'_>| {
            let row = tx.query_one(&sql, &[])?.ok_or(StoreError::NotFound { what: "setting" })?;
            row.text(0).map(str::to_owned).or_else(|_| Ok(row.int(0)?.to_string()))
        };
        // As a transaction that may write, so on a connection that writes.
        let value: Result<String, StoreError> = store.run_tx("bench_settings", asked).await;
        let value = value?;
        told.push(format!("{name}={value}"));
    }
    let told = told.join(", ").replace("synchronous=2", "synchronous=2 (FULL)");
    Ok(format!("{backend}: {told}."))
}

/// Who is compared on PostgreSQL.
struct Against<'a> {
    house: &'a Arc<House>,
    pgbench: &'a Pgbench,
    clients: u64,
}

/// Who takes a slice.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Side {
    Ours(u64),
    Peer(Manner, u64),
}

impl Side {
    const fn clients(self) -> u64 {
        match self {
            Self::Ours(clients) | Self::Peer(_, clients) => clients,
        }
    }
}

/// Slices, one after the other, on fresh payments each.
struct Turns {
    plan: Plan,
    /// The next payment's number.
    next: u64,
}

impl Turns {
    async fn beside_pgbench(
        &mut self,
        against: &Against<'_>,
        hot: bool,
        wanted: f64,
    ) -> Fallible<Vec<Row>> {
        let clients = against.clients;
        let sides = [
            Side::Ours(clients),
            Side::Peer(Manner::Statements, clients),
            Side::Peer(Manner::Pipeline, clients),
        ];
        let rates = self.rates(against.house, Some(against.pgbench), &sides, hot).await?;
        let what = if hot { "payments to one account per second" } else { "payments per second" };
        let row = |other: usize, peer: &str| {
            let pairs: Vec<_> = rates.iter().map(|rates| (rates[0], rates[other])).collect();
            Row::in_pairs(format!("{what}, clients: {clients}"), "1/s", peer, &pairs)
        };
        Ok(vec![row(1, "pgbench, statements").at_least(wanted), row(2, "pgbench, pipeline")])
    }

    async fn grouped(&mut self, house: &Arc<House>) -> Fallible<Vec<Row>> {
        let sides = [Side::Ours(GROUP), Side::Ours(1)];
        let rates = self.rates(house, None, &sides, false).await?;
        let pairs: Vec<_> = rates.iter().map(|rates| (rates[0], rates[1])).collect();
        let name = format!("payments per second, clients: {GROUP}");
        let peer = "one client, so one commit for each payment";
        Ok(vec![Row::in_pairs(name, "1/s", peer, &pairs).at_least(GROUP_WANTED)])
    }

    /// The rates of all sides, round by round. The first round finds how many payments a slice
    /// takes, and does not count.
    async fn rates(
        &mut self,
        house: &Arc<House>,
        pgbench: Option<&Pgbench>,
        sides: &[Side],
        hot: bool,
    ) -> Fallible<Vec<Vec<f64>>> {
        let mut rounds = vec![vec![FIRST_RATE; sides.len()]];
        for round in 0..=self.plan.rounds {
            let mut rates = rounds[round].clone();
            for turn in 0..sides.len() {
                let at = (round + turn) % sides.len();
                let slice = self.slice(sides[at].clients(), rates[at], hot);
                rates[at] = self.take(house, pgbench, sides[at], slice).await?;
            }
            rounds.push(rates);
        }
        Ok(rounds.split_off(2))
    }

    fn slice(&mut self, clients: u64, rate: f64, hot: bool) -> Slice {
        let payments = rate * self.plan.slice.as_secs_f64();
        let each = (payments / clients as f64).ceil() as u64;
        let slice = Slice { first: self.next, clients, each: each.clamp(EACH_MIN, EACH_MAX), hot };
        self.next += slice.payments();
        slice
    }

    async fn take(
        &self,
        house: &Arc<House>,
        pgbench: Option<&Pgbench>,
        side: Side,
        slice: Slice,
    ) -> Fallible<f64> {
        let manner = match side {
            Side::Ours(_) => return ours::run(house, slice).await,
            Side::Peer(manner, _) => manner,
        };
        let pgbench = pgbench.ok_or("no pgbench for this database")?;
        seed::payments(&house.service, slice).await?;
        let rate = tokio::task::block_in_place(|| pgbench.run(manner, slice))?;
        let executed = seed::executed(&house.service, slice).await?;
        if executed != slice.payments() {
            return Err(format!("pgbench executed {executed} of {}", slice.payments()).into());
        }
        Ok(rate)
    }
}
