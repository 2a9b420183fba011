//! A payment that is confirmed, from the terminal's request to the evidence (D1 to D6, D8).

use countersign_device::{DeviceAnswer, InProcessCard};
use countersign_payment::{ConfirmationRequest, evidence};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::payer;
use super::stage::Stage;
use crate::demo::bank::{CURRENCY, PAYER, SHOP, once};
use crate::demo::blocking;
use crate::demo::steps::{Flow, expect};
use crate::failure::Failure;

const AMOUNT: &str = "12.34";
const ORDER: &str = "Order 7: two pots of tea";

/// D1: the server takes the transaction and extracts what is to be confirmed. The same request
/// again makes no second payment. Returns the payment's id.
pub(super) async fn taken(flow: &mut Flow, stage: &Stage) -> Result<(String, Instant), Failure> {
    let started = Instant::now();
    let payment = stage.ask(AMOUNT, ORDER).await?;
    let took = started.elapsed();
    let id = payment["id"].as_str().unwrap_or_default().to_owned();
    let bytes = payer::request(&stage.phone, &id).await?;
    let request = ConfirmationRequest::parse(&bytes)
        .map_err(|error| Failure::check(error.check(), error.to_string()))?;
    let checked = expect("its state", &payment["status"], &json!("pending"))
        .and_then(|()| expect("the payer account", &request.payer_account.as_str(), &PAYER))
        .and_then(|()| expect("the payee account", &request.payee_account.as_str(), &SHOP))
        .and_then(|()| expect("the order", &&*request.order, &ORDER))
        .and_then(|()| expect("the amount", &&*request.amount.decimal(), &AMOUNT))
        .and_then(|()| expect("the currency", &request.amount.currency().code(), &CURRENCY));
    let what = "the terminal's request is taken: payer, order and payee are put into the bytes to \
                be signed";
    flow.step("D1", what, checked, took);

    let started_again = Instant::now();
    let body = stage.request(AMOUNT, ORDER);
    let again = once(&stage.bank.shop, "/v1/payments", "demo-0".to_owned(), body).await?;
    let checked = expect("the answer", &again, &payment);
    let what = "the same request again, as after a lost answer, makes no second payment";
    flow.step("D1", what, checked, started_again.elapsed());
    Ok((id, started))
}

/// D2: the phone was away when the payment was made; the push has waited for it.
pub(super) async fn pushed(flow: &mut Flow, stage: &Stage, id: &str) -> Result<(), Failure> {
    let started = Instant::now();
    let push = payer::next_push(&stage.phone).await?;
    let took = started.elapsed();
    let (phone, asked) = (stage.phone.clone(), push.clone());
    let told = blocking(move || Ok(phone.payment(&asked)?)).await?;
    let checked = expect("its kind", &push.split('_').next(), &Some("psh"))
        .and_then(|()| expect("its payment", &&*told.id, &id));
    let what = "a push had waited for the phone, which was away; it is an opaque id and no more";
    flow.step("D2", what, checked, took);
    Ok(())
}

/// D3 and D4: the device shows what it parsed from the bytes that it signs.
pub(super) async fn shown_and_signed(
    flow: &mut Flow,
    stage: &Stage,
    id: &str,
) -> Result<DeviceAnswer, Failure> {
    let bytes = payer::request(&stage.phone, id).await?;
    let started = Instant::now();
    let gone = payer::try_confirm(&stage.key, bytes.clone(), InProcessCard::remove).await?;
    let gone = gone.map(|_| ()).map_err(|error| error.check().to_owned());
    let checked = expect("what the phone says", &gone, &Err("card-removed".to_owned()));
    flow.step("D3", "a card that is taken away signs nothing", checked, started.elapsed());

    let started = Instant::now();
    let answer = payer::try_confirm(&stage.key, bytes.clone(), InProcessCard::insert).await??;
    let display = stage.key.face.lines();
    let took = started.elapsed();
    let shows = |text: &str| display.iter().any(|line| line.text.contains(text));
    let checked = expect("the amount on the display", &shows(AMOUNT), &true)
        .and_then(|()| expect("the order on the display", &shows(ORDER), &true));
    flow.step(
        "D3",
        "put back, it is handed the bytes in APDUs, shows what is in them and asks for the PIN",
        checked,
        took,
    );

    let started = Instant::now();
    let (_, again) = payer::confirm(&stage.otp, bytes).await?;
    let signed = matches!(&answer, DeviceAnswer::Pki { signature, .. } if signature.len() > 64);
    let digits = match &again {
        DeviceAnswer::Ocra { digits, .. } => digits.len(),
        DeviceAnswer::Pki { .. } => 0,
    };
    let checked = expect("a signature", &signed, &true)
        .and_then(|()| expect("the other device's digits", &digits, &8));
    let what = "one card answers with a signature, the other with a dynamic password (OCRA)";
    flow.step("D4", what, checked, started.elapsed());
    Ok(answer)
}

/// D5 and D6: the server verifies and executes, and the terminal, which has waited, has the result.
pub(super) async fn executed(
    flow: &mut Flow,
    stage: &Stage,
    id: &str,
    answer: &DeviceAnswer,
    asked_at: Instant,
) -> Result<(), Failure> {
    let seen = stage.seen_by_shop(&format!("/v1/payments/{id}")).await?;
    let path = format!("/v1/payments/{id}?wait=20&version={}", seen["version"]);
    let started = Instant::now();
    let (waited, sent) =
        tokio::join!(stage.seen_by_shop(&path), payer::send(&stage.phone, id, answer),);
    let took = started.elapsed();
    let (waited, sent) = (waited?, sent?);
    let status = sent.map(|taken| taken.status).map_err(|error| error.to_string());
    let checked = expect("the answer to the phone", &status, &Ok("executed".to_owned()));
    let what = "the signature verifies over the stored bytes, under the device's certificate";
    flow.step("D5", what, checked, took);

    let paid = (stage.bank.balance(PAYER).await?, stage.bank.balance(SHOP).await?);
    let checked = expect("the terminal's answer", &waited["status"], &json!("executed"))
        .and_then(|()| expect("pain.002's code", &waited["transactionStatus"], &json!("ACSC")))
        .and_then(|()| expect("the balances", &paid, &("87.66".to_owned(), AMOUNT.to_owned())));
    let what = "the payment is executed in the ledger, and the waiting terminal has the result";
    flow.step("D6", what, checked, started.elapsed());

    let again = payer::send(&stage.phone, id, answer).await?;
    let status = again.map(|taken| taken.status).map_err(|error| error.to_string());
    let paid = stage.bank.balance(PAYER).await?;
    let checked = expect("the answer again", &status, &Ok("executed".to_owned()))
        .and_then(|()| expect("the payer's balance", &&*paid, &"87.66"));
    let what = "the same answer again is answered the same, and nothing is paid twice";
    flow.step("D6", what, checked, started.elapsed());
    let what = "from asking to result over HTTPS alone: the terminal has no driver for any device";
    let path = format!("/v1/payments/{id}/timeline");
    let story = stage.seen_by_shop(&path).await?;
    let states: Vec<_> =
        story["items"].as_array().into_iter().flatten().map(|one| one["status"].clone()).collect();
    let wanted = ["created", "pending", "approved", "executing", "executed"].map(Value::from);
    flow.step("D8", what, expect("the timeline", &states, &wanted.to_vec()), asked_at.elapsed());
    Ok(())
}

/// D4 and D6 by a dynamic password. The phone is there this time when the push comes.
pub(super) async fn by_dynamic_password(flow: &mut Flow, stage: &Stage) -> Result<(), Failure> {
    let started = Instant::now();
    let (push, payment) =
        tokio::join!(payer::next_push(&stage.phone), stage.ask("20.00", "Order 8: a tea service"),);
    let (push, payment) = (push?, payment?);
    let bytes = payer::request(&stage.phone, &push).await?;
    let (_, answer) = payer::confirm(&stage.otp, bytes).await?;
    let id = payment["id"].as_str().unwrap_or_default();
    let taken = payer::send(&stage.phone, id, &answer).await?;
    let status = taken.map(|taken| taken.status).map_err(|error| error.to_string());
    let paid = stage.bank.balance(PAYER).await?;
    let checked = expect("the answer to the phone", &status, &Ok("executed".to_owned()))
        .and_then(|()| expect("the payer's balance", &&*paid, &"67.66"));
    let what = "pushed to a phone that listens, and confirmed by eight digits over the same bytes";
    flow.step("D4", what, checked, started.elapsed());
    Ok(())
}

/// D6: what is left for a dispute is checked without the server; an altered copy is refused.
pub(super) async fn proven(flow: &mut Flow, stage: &Stage, id: &str) -> Result<(), Failure> {
    let started = Instant::now();
    let (api, path) = (stage.bank.shop.clone(), format!("/v1/payments/{id}/evidence"));
    let bundle = blocking(move || Ok(api.get_text(&path)?)).await?;
    let report = evidence::verify(bundle.as_bytes(), &stage.bank.root);
    let failed: Vec<_> = report.failed().collect();
    let altered = bundle.replacen(PAYER, "DEMOPAYER002", 1);
    let altered = evidence::verify(altered.as_bytes(), &stage.bank.root);
    let checked = expect("checks that failed", &failed, &Vec::new())
        .and_then(|()| expect("good", &report.is_good(), &true))
        .and_then(|()| expect("an altered copy is good", &altered.is_good(), &false));
    let what = "the evidence of the payment holds offline under the root; an altered copy does not";
    flow.step("D6", what, checked, started.elapsed());
    Ok(())
}
