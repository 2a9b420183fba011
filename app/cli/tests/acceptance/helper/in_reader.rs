//! A card behind a reader of a real PC/SC service is the device.

use testkit::parts::{Pcscd, require};

use super::*;

pub(super) fn trial() -> Trial {
    let part = require(Pcscd::start());
    part.trial("a_card_behind_a_reader_answers_a_page::pcsc", |_| answers_a_page(Pcscd::start()?))
}

/// The device becomes a card in the first slot.
fn insert(bank: &Bank, pcscd: &Pcscd) -> Result<Process, Failed> {
    let slot = pcscd.slot(0);
    let words = ["--json", "device", "key", "serve", "--key", "CARD-1", "--virtual-reader", &slot];
    let mut card = bank.host.spawn(&words)?;
    while card.first_json()?["event"] != "inserted" {}
    Ok(card)
}

/// Page, helper, PC/SC, card: the card comes when it is asked for, and goes again.
fn answers_a_page(pcscd: Pcscd) -> Result<(), Failed> {
    let host = Host::new()?.with_env(pcscd.environment());
    host.init(&Database::Sqlite)?;
    let mut bank = Bank::on(host, false)?;
    bank.phone("phone")?;
    bank.key("CARD-1", "pki")?;
    let at_reader = ["--reader", "--pin-file", "pin"];
    let (id, request) = bank.request("12.34")?;
    let mut at_once = Helper::start(&bank, &[&at_reader[..], &["--card-wait", "0"]].concat())?;
    at_once.ask(&request)?.is(503, "card-absent");
    assert_eq!(at_once.end()?, 0);

    let mut helper = Helper::start(&bank, &at_reader)?;
    let page = helper.begin("POST /confirm", &[], &helper.body(&request))?;
    wait_for("the card to be asked for", || {
        let shown = fs::read_to_string(bank.host.path(TERMINAL))?;
        Ok(shown.contains("put the card to the reader").then_some(()))
    })?;
    let card = insert(&bank, &pcscd)?;
    let said = Said::read(page)?;
    helper.token = said.body["next"].as_str().ok_or("no next token")?.to_owned();
    assert_eq!(said.body["answer"]["deviceSerial"], "CARD-1", "{said:?}");
    assert_eq!(bank.answer(&id, &said)?, "executed");
    let shown = fs::read_to_string(bank.host.path(TERMINAL))?;
    assert!(shown.contains("12.34 CNY"), "{shown}");

    let (id, request) = bank.request("1.00")?;
    fs::write(bank.host.path("pin"), "000000")?;
    helper.ask(&request)?.is(403, "pin-wrong");
    fs::write(bank.host.path("pin"), "2580")?;
    card.kill()?;
    let _card = insert(&bank, &pcscd)?;
    let said = helper.ask(&request)?;
    assert_eq!(bank.answer(&id, &said)?, "executed");
    assert_eq!(helper.end()?, 0);
    bank.books_hold()
}
