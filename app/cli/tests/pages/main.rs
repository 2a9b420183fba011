//! The pages in a real browser: Chromium, driven by its own driver, against the real command.
//!
//! A program apart from the acceptance tests, so that those run where there is no browser; the
//! machine and the bank are theirs. All tests share one driver; each has browsers of its own.

mod access;
mod attacks;
#[path = "../acceptance/bank.rs"]
#[expect(dead_code, reason = "the acceptance tests need more of it")]
mod bank;
mod browser;
mod checkout;
mod foreign_site;
mod helper;
#[path = "../acceptance/host.rs"]
#[expect(dead_code, reason = "the acceptance tests need more of it")]
mod host;
mod payer;
mod phone;

use libtest_mimic::{Arguments, Failed};
use testkit::parts::{self, Chromium};

/// Tests at once.
const THREADS: usize = 4;

/// A test that needs a browser.
type Check = fn(&Chromium) -> Result<(), Failed>;

fn main() {
    let chromium = parts::require(Chromium::start());
    let trials = phone::TRIALS
        .into_iter()
        .chain(checkout::TRIALS)
        .chain(helper::TRIALS)
        .chain(attacks::TRIALS)
        .chain(access::TRIALS);
    let trials = trials.map(|(name, run)| chromium.trial(name, run)).collect();
    let mut arguments = Arguments::from_args();
    // They wait for pages and servers more than they compute.
    arguments.test_threads = arguments.test_threads.or(Some(THREADS));
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(chromium);
    conclusion.exit();
}
