//! Payments that are executed: the three forms of a signature, and the three ways in which the
//! terminal gets the joint password (B1 to B8).

use std::sync::Arc;

use countersign_device::{CardSigned, Rendering, scan};
use countersign_payment::evidence;
use countersign_payment::joint::Form;
use countersign_payment::joint::card::Interface;
use serde_json::json;
use tokio::time::Instant;

use super::PIN;
use super::stage::{Stage, asked, check, consent, digits};
use crate::demo::bank::{PAYER, see};
use crate::demo::blocking;
use crate::demo::steps::{Flow, expect};
use crate::failure::Failure;

/// B1 to B3, B6 to B8: `E(jp)` randomised; the payer types what the card shows.
pub(super) async fn typed(flow: &mut Flow, stage: &Stage) -> Result<(), Failure> {
    let card = &stage.card;
    let announced = stage.ask("12.34", "Order 7: two pots of tea").await?;
    let started = Instant::now();
    let first = stage.sign(card, &announced, Form::Sealed).await?;
    let took = started.elapsed();
    let checked =
        expect("the bytes that were signed", &first.transaction(), &announced.transaction())
            .and_then(|()| expect("what the card shows of a joint password", &digits(card), &None));
    let what = "the card takes the transaction message from the terminal in APDUs, and signs it";
    flow.step("B1", what, checked, took);

    let started = Instant::now();
    let second = Arc::new(stage.sign(card, &announced, Form::Sealed).await?);
    let same = first.commitment().as_bytes() == second.commitment().as_bytes();
    let checked = expect("that E(jp) is the same", &same, &false)
        .and_then(|()| expect("the form", &second.commitment().form(), &Form::Sealed));
    let what = "the same transaction again: another joint password, another E(jp)";
    flow.step("B2", what, checked, started.elapsed());

    let started = Instant::now();
    let inside = card.confirm(&countersign_crypto::Secret::copied_from(PIN.as_bytes())).is_err();
    let wrong = consent(card, "0000").await?;
    let shown = asked(card).iter().any(|line| line.text.contains("12.34"));
    let password = consent(card, PIN).await?.unwrap_or_default();
    let checked = expect("that it refuses the PIN inside the terminal", &inside, &true)
        .and_then(|()| expect("what a wrong PIN shows", &wrong, &None))
        .and_then(|()| expect("that it shows the amount", &shown, &true))
        .and_then(|()| expect("the digits on its display", &password.len(), &9));
    let what = "taken out it shows the transaction, and for its PIN alone the joint password";
    flow.step("B6", what, checked, started.elapsed());

    let started = Instant::now();
    let taken = check(stage.submit(&second, &password).await?);
    let paid = stage.bank.balance(PAYER).await?;
    let checked = expect("the answer", &taken, &Ok("executed".to_owned()))
        .and_then(|()| expect("the payer's balance", &&*paid, &"87.66"));
    flow.step(
        "B3",
        "S(H(txn) ‖ E(jp)), jp typed at the terminal: executed",
        checked,
        started.elapsed(),
    );

    let started = Instant::now();
    let again = check(stage.submit(&second, &password).await?);
    let paid = stage.bank.balance(PAYER).await?;
    let checked = expect("the answer again", &again, &Ok("executed".to_owned()))
        .and_then(|()| expect("the payer's balance", &&*paid, &"87.66"));
    let what = "the same submission again is answered the same, and nothing is paid twice";
    flow.step("B8", what, checked, started.elapsed());
    Ok(())
}

/// B4, B7: `E(jp ‖ random)`; the terminal's camera reads the card's display.
pub(super) async fn scanned(flow: &mut Flow, stage: &Stage) -> Result<(), Failure> {
    let card = &stage.card;
    let announced = stage.ask("20.00", "Order 8: a tea service").await?;
    let signed = Arc::new(stage.sign(card, &announced, Form::SealedRandom).await?);
    let password = consent(card, PIN).await?.unwrap_or_default();
    let started = Instant::now();
    let mut read = Vec::new();
    for rendering in [Rendering::Qr, Rendering::Code128] {
        let display = card.view(|view| match view {
            countersign_payment::joint::card::View::Password { password, .. } => {
                rendering.image(password).png().to_vec()
            }
            _ => Vec::new(),
        });
        let scanned = scan(&display).map_err(|error| error.check().to_owned());
        read.push(scanned.map(|password| password.digits().to_owned()));
    }
    let checked = expect("what was scanned", &read, &vec![Ok(password.clone()), Ok(password)]);
    let what =
        "the terminal scans a picture of the display: the QR code, and the Code 128 bar code";
    flow.step("B7", what, checked, started.elapsed());

    let started = Instant::now();
    let digits = read.pop().and_then(Result::ok).unwrap_or_default();
    let taken = check(stage.submit(&signed, &digits).await?);
    let paid = stage.bank.balance(PAYER).await?;
    let checked = expect("the form", &signed.commitment().form(), &Form::SealedRandom)
        .and_then(|()| expect("the answer", &taken, &Ok("executed".to_owned())))
        .and_then(|()| expect("the payer's balance", &&*paid, &"67.66"));
    flow.step("B4", "S(H(txn) ‖ E(jp ‖ random)), jp scanned: executed", checked, started.elapsed());
    Ok(())
}

/// B5, B7: digests; the card gives the joint password without contact. Returns the payment's id.
pub(super) async fn without_contact(flow: &mut Flow, stage: &Stage) -> Result<String, Failure> {
    let card = &stage.card;
    let announced = stage.ask("7.00", "Order 9: a sieve").await?;
    let signed = Arc::new(stage.sign(card, &announced, Form::Digest).await?);
    let started = Instant::now();
    card.remove();
    let early = held_to_reader(stage, &signed).await?;
    card.remove();
    consent(card, PIN).await?;
    let password = held_to_reader(stage, &signed).await?;
    let twice = held_to_reader(stage, &signed).await?;
    let checked = expect("before the PIN", &early, &Err("card-consent".to_owned()))
        .and_then(|()| expect("that it is given after it", &password.is_ok(), &true))
        .and_then(|()| expect("that it is given again", &twice.is_ok(), &false));
    let what = "held to a reader without contact, after the PIN and not before: given, once";
    flow.step("B7", what, checked, started.elapsed());

    let started = Instant::now();
    let taken = check(stage.submit(&signed, &password.unwrap_or_default()).await?);
    let paid = stage.bank.balance(PAYER).await?;
    let checked = expect("the form", &signed.commitment().form(), &Form::Digest)
        .and_then(|()| expect("the answer", &taken, &Ok("executed".to_owned())))
        .and_then(|()| expect("the payer's balance", &&*paid, &"60.66"));
    let what = "S(H(txn) ‖ H(E(jp))): the server makes E(jp) again from jp, and executes";
    flow.step("B5", what, checked, started.elapsed());
    Ok(announced.payment().to_owned())
}

/// Holds the card to the terminal's contactless reader.
async fn held_to_reader(
    stage: &Stage,
    signed: &Arc<CardSigned>,
) -> Result<Result<String, String>, Failure> {
    let (card, signed) = (stage.card.clone(), signed.clone());
    blocking(move || {
        card.insert(Interface::Contactless);
        let fetched = signed.fetch_password(card);
        let digits = fetched.map(|password| password.digits().to_owned());
        Ok(digits.map_err(|error| error.check().to_owned()))
    })
    .await
}

/// B8: what is left for a dispute is checked without the server.
pub(super) async fn proven(flow: &mut Flow, stage: &Stage, id: &str) -> Result<(), Failure> {
    let started = Instant::now();
    let (api, path) = (stage.bank.shop.clone(), format!("/v1/payments/{id}/evidence"));
    let bundle = blocking(move || Ok(api.get_text(&path)?)).await?;
    let took = started.elapsed();
    let report = evidence::verify(bundle.as_bytes(), &stage.bank.root);
    let failed: Vec<_> = report.failed().collect();
    let timeline = see(&stage.bank.shop, &format!("/v1/payments/{id}/timeline")).await?;
    let last = timeline["items"].as_array().and_then(|items| items.last().cloned());
    let last = last.unwrap_or_default();
    let checked = expect("checks that failed", &failed, &Vec::new())
        .and_then(|()| expect("good", &report.is_good(), &true))
        .and_then(|()| expect("what rests on the server's word", &report.rests_on_server, &true))
        .and_then(|()| expect("the last state", &last["status"], &json!("executed")));
    let what = "the evidence holds offline; that jp was right is the server's word, and it says so";
    flow.step("B8", what, checked, took);
    Ok(())
}
