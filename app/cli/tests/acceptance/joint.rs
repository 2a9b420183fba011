//! The signing card with a joint password (B1–B8): the real command, behind a real PC/SC service.

#[cfg(feature = "pcsc")]
mod commands;
#[cfg(feature = "pcsc")]
mod crash;
#[cfg(feature = "pcsc")]
mod cut;
#[cfg(feature = "pcsc")]
mod ended;
#[cfg(feature = "pcsc")]
mod paid;
#[cfg(feature = "pcsc")]
mod rogue;
#[cfg(feature = "pcsc")]
mod stage;
#[cfg(feature = "pcsc")]
mod wrong;

use libtest_mimic::Trial;
use testkit::parts::{Postgres, Required};

#[cfg(feature = "pcsc")]
pub(crate) fn trials(postgres: &Required<Postgres>) -> Vec<Trial> {
    use libtest_mimic::Failed;
    use testkit::parts::{Pcscd, require};

    use crate::host::Database;

    type Check = fn(Pcscd) -> Result<(), Failed>;
    let trials: [(&str, Check); 11] = [
        ("a_signing_card_pays_in_every_way::sqlite", |pcscd| {
            paid::in_every_way(pcscd, &Database::Sqlite)
        }),
        ("a_signing_card_pays_under_sm2", paid::under_sm2),
        ("a_holder_keeps_or_loses_the_joint_password", wrong::holder_keeps_or_loses_it),
        ("wrong_pins_block_a_signing_card_and_its_puk_frees_it", wrong::pins_and_the_puk),
        ("a_rogue_terminal_executes_nothing", rogue::executes_nothing),
        ("a_server_wants_each_joint_password_once", rogue::each_counts_once),
        ("a_signing_card_refuses_what_is_out_of_order", commands::out_of_order),
        ("a_signing_card_removed_at_any_command_costs_nothing", cut::at_any_command),
        ("a_terminal_tells_how_its_payment_ended", ended::as_it_did),
        ("a_terminal_waits_for_the_card_that_signed", ended::by_the_right_card),
        ("a_killed_server_executes_a_joint_password_once", crash::executes_once),
    ];
    let part = require(Pcscd::start());
    let trial = |(name, run): (&str, Check)| {
        part.trial(format!("{name}::pcsc"), move |_| run(Pcscd::start()?))
    };
    let mut trials: Vec<_> = trials.into_iter().map(trial).collect();
    // Both parts, and each alone says what is missing.
    let with_reader = part.clone();
    let name = "a_signing_card_pays_in_every_way::postgres::pcsc";
    if part.part().is_some() {
        trials.push(postgres.trial(name, |postgres: &Postgres| {
            let database = Database::Postgres(postgres.fresh_database()?);
            paid::in_every_way(Pcscd::start()?, &database)
        }));
    } else {
        trials.push(with_reader.trial(name, |_| Ok(())));
    }
    trials
}

#[cfg(not(feature = "pcsc"))]
pub(crate) fn trials(_: &Required<Postgres>) -> Vec<Trial> {
    vec![Trial::test("a_terminal_without_readers_says_so", a_terminal_without_readers_says_so)]
}

#[cfg(not(feature = "pcsc"))]
fn a_terminal_without_readers_says_so() -> Result<(), libtest_mimic::Failed> {
    let mut bank = crate::bank::Bank::new(&crate::host::Database::Sqlite)?;
    let words = ["device", "terminal", "--to", "SHOP0001", "--payee", "Tea Shop"];
    let order = ["--amount", "12.34", "--currency", "CNY", "--order", "2 teas", "--reader"];
    bank.refused("till", &[&words[..], &order].concat(), "pcsc-not-built")?;
    bank.books_hold()
}
