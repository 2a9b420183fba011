//! The channel, side by side with mutual TLS and Noise: what the server, or the manager (A1 to A3),
//! spends on accepting and on refusing, bytes, round trips, memory, records.

mod contact;
mod handshake;
mod memory;
mod records;
mod refusal;
mod wire;
mod worlds;

use crate::Fallible;
use crate::measure::Subjects;
use crate::party::tree::Tree;
use crate::report::{Report, Section};
use handshake::Handshakes;
pub(crate) use memory::anonymous;
use refusal::{Attackers, Refusals};
use worlds::Worlds;

/// Handshakes in step with each other per sample: reading the clock vanishes among them.
const BATCH: usize = 16;
/// The same for handshakes in pure Rust, which take several times as long.
const SLOW_BATCH: usize = 4;

/// Most rounds of one run.
pub(crate) const ROUNDS_MAX: u64 = 1000;

const NOTES: [&str; 6] = [
    "CPU is the server's thread time, medians of interleaved rounds in one process; P-256 keys, \
     depth of certificates and AWS-LC are the same on both sides of rustls' rows, without \
     resumption. Our directory look-up is in memory: no database is in these rows.",
    "Each contact comes from an address of its own, so that the limit per source is paid for and \
     not reached.",
    "A refused challenge is judged against the narrower reading of what rustls spends before a \
     client is authenticated: making the connection and answering its ClientHello, before the \
     client has proven anything. The wider one, until the client's signature is refused, stands \
     beside without a verdict. A server keeps nothing of M0, so an attacker needs no M0: the \
     contact that is judged is M2 alone, machine and alert included.",
    "Of C1 and C2 it is the server's, of A1, A2 and A3 the manager's; the sleeve's user says yes \
     at once, and list and disk are in memory. Who connects by A2 or A3 shows no certificate: both \
     have the other's since A1. Refusing A1 outside the window is refusing M1.",
    "Each of our handshakes costs one round trip more than TLS 1.3.",
    "Memory is the growth of the process's anonymous pages over many servers' ends, what AWS-LC \
     allocates in C included.",
];

/// Measures and compares.
pub(crate) fn report(rounds: usize) -> Fallible<Report> {
    let tree = Tree::new()?;
    // First: it needs a heap that nothing has worn yet.
    let memory = memory::rows(&tree, rounds)?;
    let worlds = Worlds::new(&tree)?;
    let attackers = Attackers::new(&tree, &worlds)?;
    let mut subjects = Subjects::default();
    let handshakes = Handshakes::new(&worlds, &mut subjects);
    let refusals = Refusals::new(&worlds, &attackers, &mut subjects);
    let samples = subjects.run(rounds)?;
    let section = |title, rows| Section { title, rows };
    Ok(Report {
        bench: "channel",
        sections: vec![
            section("Accepting, CPU of the server", handshakes.rows(&samples)),
            section("Refusing, CPU of the server", refusals.rows(&samples, &handshakes)),
            section("The SM2 suite, CPU of the server", handshakes.suite_rows(&samples)),
            section("Handshakes per core", handshakes.throughput_rows(&samples)),
            section("On the wire", wire::rows(&worlds)?),
            section("Memory of the server", memory),
            section("Records, CPU of both ends", records::rows(&tree, rounds)?),
        ],
        notes: NOTES.map(String::from).to_vec(),
    })
}
