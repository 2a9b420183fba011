//! Key injection: key tokens and key blocks, side by side with what the library's bare operations
//! cost, and whole injections.

mod blocks;
mod parties;
mod tokens;
mod whole;

use crate::Fallible;
use crate::report::{Report, Section};

const NOTES: [&str; 4] = [
    "CPU is thread time, medians of interleaved rounds in one process. Tokens and bare operations \
     use the same keys and the same build of AWS-LC.",
    "A token is made from a request that was parsed and a terminal's certificate that was \
     verified: header and key checked, an ephemeral key made, the key block sealed, RSA-OAEP to \
     the terminal, signed by the KDH, the CA's list of revoked certificates included. A terminal \
     verifies list and signature, opens the token, checks the key and computes its check value.",
    "A key block stands beside exactly the cipher calls that making or opening it takes, recorded \
     and run again without anything around them.",
    "A whole injection is wall time: service with SQLite on the disk, durable commits, audit, and \
     the terminals too, which verify and open each token with an RSA key of their own in the same \
     process. The channel between them is left out (`bench channel`), so is a terminal's storage.",
];

/// Measures and compares.
pub(crate) fn report(rounds: usize) -> Fallible<Report> {
    let sections = vec![
        Section { title: "Key tokens (TR-34), CPU", rows: tokens::rows(rounds)? },
        Section { title: "Key blocks (TR-31), CPU", rows: blocks::rows(rounds)? },
        Section { title: "Whole injections, SQLite", rows: whole::rows(rounds)? },
    ];
    Ok(Report { bench: "inject", sections, notes: NOTES.map(String::from).to_vec() })
}
