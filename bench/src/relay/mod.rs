//! The relay (A9) and what goes through it: time added to an APDU, idle sleeves, and whether the
//! time of a login tells which password it was (A5).

mod apdu;
mod crowd;
mod home;
mod link;
mod login;
mod part;
mod percentile;
mod process;
#[cfg(feature = "pcsc")]
mod readers;
mod stage;

use std::time::Duration;

use crate::Fallible;
use crate::report::{Report, Row, Section};

pub(crate) use part::{Part, run as run_part};

/// What is measured, and how much of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// APDUs per way and link.
    pub(crate) rounds: usize,
    /// Logins of each of the three kinds.
    pub(crate) logins: usize,
    /// Idle sleeves.
    pub(crate) sleeves: usize,
    /// How often each of them sends a heartbeat.
    pub(crate) every: Duration,
}

const NOTES: [&str; 6] = [
    "An APDU is a SELECT of an application, wall time, medians of interleaved rounds. The same \
     emulated card is asked directly in this process, through a manager on the LAN, and through a \
     server's relay; server, manager and sleeve share the machine's cores. A link is a proxy that \
     holds what comes back for half its round trip in each direction; what a bare TCP echo of as \
     many bytes takes through the same proxy is the link's round trip. Added is what is left after \
     the card's own time and the link's.",
    "With PC/SC: the manager's cards are in virtual readers of one pcscd, a terminal's program \
     asks the sleeve's card in a virtual reader of another, and the direct exchange is the same \
     program's with the same card in a virtual reader of a third. So what is added includes the \
     second pcscd and reader on the way.",
    "An idle sleeve has a channel with the server, a meeting with its manager through it, and \
     sends heartbeats of a sleep mode's size (A6) that the manager answers; 64 have one manager. \
     Its memory is the growth of the server process's anonymous memory, buffers of sockets, which \
     are the kernel's, left out, its share of the manager's own connection included.",
    "Servers and crowds are processes of their own, each server on a loopback address and a data \
     directory of its own with SQLite, no more sleeves to a process than it may have open files. \
     All of them share the machine's cores, so an answer's time is also the crowd's own.",
    "Logins: one new session each, way and mode the same, the three kinds in an order drawn anew \
     for every three. Both passwords' hashes are computed each time with the least cost that is \
     accepted (Argon2id, 19 MiB, 2 passes), for thousands of samples in minutes. Welch's t as in \
     dudect, of all samples and of those below the 90th and 50th percentile of all; the largest of \
     the three. A larger t than 4.5 says that the times differ.",
    "A wrong password's answer differs, so its time gives nothing away that the answer does not; \
     its rows are there to show that no work is left out.",
];

#[cfg(feature = "pcsc")]
async fn through_readers(rounds: usize) -> Fallible<Vec<Row>> {
    readers::rows(rounds).await
}

#[cfg(not(feature = "pcsc"))]
async fn through_readers(_rounds: usize) -> Fallible<Vec<Row>> {
    eprintln!("bench: built without --features pcsc, nothing is measured through PC/SC");
    Ok(Vec::new())
}

/// Measures and compares.
pub(crate) fn report(plan: Plan) -> Fallible<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let sections = runtime.block_on(async {
        Fallible::Ok(vec![
            Section {
                title: "One APDU through manager and sleeve, wall time",
                rows: apdu::rows(plan.rounds).await?,
            },
            Section {
                title: "The same with a PC/SC service at each end (--features pcsc)",
                rows: through_readers(plan.rounds).await?,
            },
            Section {
                title: "Idle sleeves at the server's relay",
                rows: crowd::rows(plan.sleeves, plan.every).await?,
            },
            Section {
                title: "Logins: normal, alarm, wrong; wall time",
                rows: login::rows(plan.logins).await?,
            },
        ])
    })?;
    Ok(Report { bench: "relay", sections, notes: NOTES.map(String::from).to_vec() })
}
