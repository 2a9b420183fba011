//! PostgreSQL as a part: it starts, isolates, survives a crash and cleans up.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed};
use testkit::parts::{Postgres, require};

/// Pause between two looks at a server that stops, and how many looks: 20 s.
const POLL: Duration = Duration::from_millis(100);
const POLLS: u32 = 200;
/// Argument by which this program starts itself as the process that dies.
const START_AND_ABORT: &str = "--start-and-abort";

fn main() {
    if std::env::args().any(|argument| argument == START_AND_ABORT) {
        start_and_abort();
    }
    let postgres = require(Postgres::start());
    let trials = vec![
        postgres.trial("databases are fresh and apart", databases_are_apart),
        postgres.trial("fsync is on", fsync_is_on),
        postgres.trial("committed rows survive a crash", |_| committed_rows_survive_a_crash()),
        postgres.trial("a stopped server refuses, then restarts", |_| stop_and_restart()),
        postgres.trial("dropping removes server and files", |_| dropping_cleans_up()),
        postgres.trial("it outlives the thread that started it", |_| outlives_its_thread()),
        postgres.trial("it dies with its process", |_| dies_with_its_process()),
    ];
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    drop(postgres);
    conclusion.exit();
}

/// The newest installed `psql`; installed with the server, found as the server is.
fn psql() -> Result<PathBuf, Failed> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")?;
    let newest = versions
        .flatten()
        .filter_map(|v| Some((v.file_name().to_str()?.parse::<u32>().ok()?, v.path())))
        .max()
        .ok_or("no version of PostgreSQL")?;
    Ok(newest.1.join("bin/psql"))
}

/// Runs one statement; its rows as text, or what the server said.
fn query(url: &str, sql: &str) -> Result<String, Failed> {
    let output = Command::new(psql()?).args(["-XAtq", "-c", sql, url]).output()?;
    if output.status.success() {
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned().into())
    }
}

fn expect(got: &str, wanted: &str) -> Result<(), Failed> {
    if got == wanted { Ok(()) } else { Err(format!("got {got:?}, wanted {wanted:?}").into()) }
}

fn databases_are_apart(postgres: &Postgres) -> Result<(), Failed> {
    let (one, two) = (postgres.fresh_database()?, postgres.fresh_database()?);
    query(&one, "create table t as select 1")?;
    expect(&query(&one, "select count(*) from t")?, "1")?;
    match query(&two, "select count(*) from t") {
        Ok(_) => Err("the second database sees the first one's table".into()),
        Err(refused) if refused.message().is_some_and(|m| m.contains("does not exist")) => Ok(()),
        Err(other) => Err(other),
    }
}

fn fsync_is_on(postgres: &Postgres) -> Result<(), Failed> {
    expect(&query(postgres.url(), "show fsync")?, "on")?;
    expect(&query(postgres.url(), "show synchronous_commit")?, "on")
}

fn committed_rows_survive_a_crash() -> Result<(), Failed> {
    let mut postgres = Postgres::start()?;
    query(postgres.url(), "create table t as select 7 as n")?;
    postgres.kill()?;
    if query(postgres.url(), "select n from t").is_ok() {
        return Err("a killed server answers".into());
    }
    postgres.restart()?;
    expect(&query(postgres.url(), "select n from t")?, "7")
}

fn stop_and_restart() -> Result<(), Failed> {
    let mut postgres = Postgres::start()?;
    let url = postgres.fresh_database()?;
    postgres.stop()?;
    postgres.stop()?; // a second time is nothing to do
    if postgres.fresh_database().is_ok() {
        return Err("a stopped server makes a database".into());
    }
    postgres.restart()?;
    expect(&query(&url, "select 1")?, "1")
}

fn dropping_cleans_up() -> Result<(), Failed> {
    let postgres = Postgres::start()?;
    let folder = query(postgres.url(), "show data_directory")?;
    let url = postgres.url().to_owned();
    if !Path::new(&folder).exists() {
        return Err("the data folder is elsewhere".into());
    }
    drop(postgres);
    if Path::new(&folder).exists() || query(&url, "select 1").is_ok() {
        return Err("files or server stayed".into());
    }
    Ok(())
}

fn outlives_its_thread() -> Result<(), Failed> {
    let started = std::thread::spawn(Postgres::start).join();
    let postgres = started.map_err(|_| "the thread panicked")??;
    expect(&query(postgres.url(), "select 1")?, "1")
}

/// Prints the server's URL and folder, then ends without a destructor.
fn start_and_abort() -> ! {
    let postgres = Postgres::start().expect("PostgreSQL");
    let folder = query(postgres.url(), "show data_directory").map_err(|failed| {
        eprintln!("{:?}", failed.message());
    });
    println!("{} {}", postgres.url(), folder.expect("a folder"));
    std::process::abort();
}

fn dies_with_its_process() -> Result<(), Failed> {
    let output = Command::new(std::env::current_exe()?).arg(START_AND_ABORT).output()?;
    let printed = String::from_utf8(output.stdout)?;
    let (url, folder) = printed.trim().split_once(' ').ok_or("it printed nothing")?;
    let folder = Path::new(folder);
    // It is told at once and takes its time to stop.
    let gone = (0..POLLS).any(|_| {
        std::thread::sleep(POLL);
        query(url, "select 1").is_err() && !folder.join("postmaster.pid").exists()
    });
    if !gone {
        return Err("the server outlives its process".into());
    }
    drop(Postgres::start()?);
    if folder.exists() {
        return Err("the next start leaves the dead one's files".into());
    }
    Ok(())
}
