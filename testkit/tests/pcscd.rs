//! The smart-card service as a part: it has its readers to itself and cleans up.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed};
use testkit::parts::{Pcscd, require};

/// Pause between two looks at a service that ends, and how many looks: 10 s.
const POLL: Duration = Duration::from_millis(20);
const POLLS: u32 = 500;
/// Argument by which this program starts itself as the process that dies.
const START_AND_ABORT: &str = "--start-and-abort";

fn main() {
    if std::env::args().any(|argument| argument == START_AND_ABORT) {
        start_and_abort();
    }
    let pcscd = require(Pcscd::start());
    let trials = vec![
        pcscd.trial("another program lists both slots and no other reader", both_slots),
        pcscd.trial("two services do not meet", two_do_not_meet),
        pcscd.trial("a killed service is gone, then restarts", |_| kill_and_restart()),
        pcscd.trial("dropping removes service and files", |_| dropping_cleans_up()),
        pcscd.trial("it outlives the thread that started it", |_| outlives_its_thread()),
        pcscd.trial("it dies with its process", |_| dies_with_its_process()),
    ];
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    drop(pcscd);
    conclusion.exit();
}

/// What OpenSC's program says of the readers.
fn listed(pcscd: &Pcscd) -> Result<String, Failed> {
    let (name, value) = pcscd.environment();
    let output = Command::new("opensc-tool").env(name, value).arg("--list-readers").output()?;
    Ok(String::from_utf8(output.stdout)?)
}

fn both_slots(pcscd: &Pcscd) -> Result<(), Failed> {
    let said = listed(pcscd)?;
    assert!(said.contains(&pcscd.reader(0)) && said.contains(&pcscd.reader(1)), "{said}");
    assert_eq!(said.lines().filter(|line| line.contains(" No ")).count(), 2, "{said}");
    Ok(())
}

fn two_do_not_meet(one: &Pcscd) -> Result<(), Failed> {
    let other = Pcscd::start()?;
    assert_ne!(one.reader(0), other.reader(0));
    assert_ne!(one.environment(), other.environment());
    assert!(!listed(one)?.contains(&other.reader(0)));
    assert!(listed(&other)?.contains(&other.reader(0)));
    Ok(())
}

fn kill_and_restart() -> Result<(), Failed> {
    let mut pcscd = Pcscd::start()?;
    let name = pcscd.reader(0);
    pcscd.kill()?;
    pcscd.kill()?; // a second time is nothing to do
    assert!(!listed(&pcscd)?.contains(&name) && TcpStream::connect(pcscd.slot(0)).is_err());
    pcscd.restart()?;
    assert!(listed(&pcscd)?.contains(&name));
    Ok(())
}

fn dropping_cleans_up() -> Result<(), Failed> {
    let pcscd = Pcscd::start()?;
    let (socket, slot) = (pcscd.environment().1, pcscd.slot(0));
    assert!(socket.exists());
    drop(pcscd);
    assert!(!socket.exists() && TcpStream::connect(slot).is_err());
    Ok(())
}

fn outlives_its_thread() -> Result<(), Failed> {
    let started = std::thread::spawn(Pcscd::start).join();
    let pcscd = started.map_err(|_| "the thread panicked")??;
    assert!(listed(&pcscd)?.contains(&pcscd.reader(0)));
    Ok(())
}

/// Prints where a card connects and the socket, then ends without a destructor.
fn start_and_abort() -> ! {
    let pcscd = Pcscd::start().expect("pcscd");
    println!("{} {}", pcscd.slot(0), pcscd.environment().1.display());
    std::process::abort();
}

fn dies_with_its_process() -> Result<(), Failed> {
    let output = Command::new(std::env::current_exe()?).arg(START_AND_ABORT).output()?;
    let printed = String::from_utf8(output.stdout)?;
    let (slot, socket) = printed.trim().split_once(' ').ok_or("it printed nothing")?;
    let gone = (0..POLLS).any(|_| {
        std::thread::sleep(POLL);
        TcpStream::connect(slot).is_err()
    });
    assert!(gone, "the service outlives its process");
    assert!(Path::new(socket).exists(), "it was not killed at once");
    drop(Pcscd::start()?);
    assert!(!Path::new(socket).exists(), "the next start leaves the dead one's files");
    Ok(())
}
