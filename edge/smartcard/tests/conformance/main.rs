//! Both sides of a card through a real pcscd and its virtual reader.
//!
//! The library of PC/SC finds its service by a variable, which is set on child processes only: this
//! program starts itself as a client that does what it is told line by line.

mod client;
mod service;
mod toy;
mod trials;

use libtest_mimic::Arguments;
use testkit::parts::{Pcscd, require};

fn main() {
    if std::env::args().nth(1).is_some_and(|argument| argument == client::AS_CLIENT) {
        client::run();
        return;
    }
    let part = require(Pcscd::start());
    let trials = trials::TRIALS.into_iter().chain(service::TRIALS);
    let trials = trials.map(|(name, run)| part.trial(name, move |_| run(Pcscd::start()?)));
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials.collect());
    drop(part);
    conclusion.exit();
}
