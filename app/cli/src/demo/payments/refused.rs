//! Answers that are refused, and payments that end without being executed (D5, D7).

use countersign_device::{AnswerTaken, ApiError, DeviceAnswer, PhoneError, RejectBecause};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::payer;
use super::stage::Stage;
use crate::demo::bank::{PAYER, see};
use crate::demo::blocking;
use crate::demo::steps::{Flow, expect};
use crate::failure::Failure;

/// What a phone is told about any answer that does not hold, whatever was wrong with it.
const REFUSED: &str = "authorisation-refused";

fn check(sent: &Result<AnswerTaken, PhoneError>) -> Option<String> {
    match sent {
        Err(PhoneError::Api(ApiError::Refused { check, .. })) => Some(check.clone()),
        Err(other) => Some(other.check().to_owned()),
        Ok(_) => None,
    }
}

/// D5: a good signature, but over another payment's bytes.
pub(super) async fn foreign_signature(
    flow: &mut Flow,
    stage: &Stage,
    answer: &DeviceAnswer,
) -> Result<(), Failure> {
    let other = stage.ask("99.00", "Order 66: not what was signed").await?;
    let id = other["id"].as_str().unwrap_or_default();
    let started = Instant::now();
    let sent = payer::send(&stage.phone, id, answer).await?;
    let took = started.elapsed();
    let seen = stage.seen_by_shop(&format!("/v1/payments/{id}")).await?;
    let checked = expect("the refusal", &check(&sent).as_deref(), &Some(REFUSED))
        .and_then(|()| expect("its state", &seen["status"], &json!("pending")));
    flow.step("D5", "a signature for another payment is refused", checked, took);
    let (api, path) = (stage.bank.shop.clone(), format!("/v1/payments/{id}/cancel"));
    let cancelled: Value = blocking(move || Ok(api.post(&path, &json!({}))?)).await?;
    let checked = expect("its state", &cancelled["status"], &json!("cancelled"));
    flow.step("D7", "the terminal withdraws a payment that nobody confirmed", checked, took);
    Ok(())
}

/// D7: wrong answers up to the limit end the payment, and the terminal is told.
pub(super) async fn terminated(flow: &mut Flow, stage: &Stage) -> Result<(), Failure> {
    let before = stage.bank.balance(PAYER).await?;
    let payment = stage.ask("5.00", "Order 9: a cup").await?;
    let id = payment["id"].as_str().unwrap_or_default();
    let bytes = payer::request(&stage.phone, id).await?;
    let started = Instant::now();
    let path = format!("/v1/payments/{id}?wait=20&version={}", payment["version"]);
    let mut refusals = Vec::new();
    for altered in ["6.00", "7.00", "8.00"] {
        // A phone that has the payer sign another amount than the server's.
        let text = String::from_utf8_lossy(&bytes).replace("\"5.00\"", &format!("\"{altered}\""));
        let (display, answer) = payer::confirm(&stage.key, text.into_bytes()).await?;
        let shown = display.iter().any(|line| line.text.contains(altered));
        refusals.push((shown, check(&payer::send(&stage.phone, id, &answer).await?)));
    }
    let told = stage.seen_by_shop(&path).await?;
    let took = started.elapsed();
    let wanted = vec![(true, Some(REFUSED.to_owned())); 3];
    let reason = json!("too-many-wrong-answers");
    let checked = expect("the refusals", &refusals, &wanted)
        .and_then(|()| expect("what the terminal is told", &told["status"], &json!("failed")))
        .and_then(|()| expect("the reason", &told["statusReason"], &reason))
        .and_then(|()| expect("pain.002's code", &told["transactionStatus"], &json!("RJCT")));
    let what = "signatures over another amount: the payment is terminated, the terminal is told";
    flow.step("D7", what, checked, took);

    let ended = payer::request(&stage.phone, id).await.is_err();
    let after = stage.bank.balance(PAYER).await?;
    let checked = expect("that it has ended", &ended, &true)
        .and_then(|()| expect("the payer's balance", &after, &before));
    flow.step("D7", "it can be answered no more, and no money has moved", checked, took);
    Ok(())
}

/// D7: the payer says no.
pub(super) async fn rejected(flow: &mut Flow, stage: &Stage) -> Result<(), Failure> {
    let payment = stage.ask("3.00", "Order 10: what nobody ordered").await?;
    let id = payment["id"].as_str().unwrap_or_default().to_owned();
    let started = Instant::now();
    let (phone, asked) = (stage.phone.clone(), id.clone());
    let taken = blocking(move || Ok(phone.reject(&asked, RejectBecause::NotMine)?)).await?;
    let told = stage.seen_by_shop(&format!("/v1/payments/{id}")).await?;
    let checked = expect("the answer to the phone", &&*taken.status, &"rejected")
        .and_then(|()| expect("what the terminal is told", &told["status"], &json!("rejected")));
    flow.step(
        "D7",
        "the payer rejects a payment that they did not begin",
        checked,
        started.elapsed(),
    );

    let started = Instant::now();
    let path = format!("/v1/accounts?identification={PAYER}");
    let frozen = see(&stage.bank.office, &path).await?;
    let account = frozen["items"][0]["id"].as_str().unwrap_or_default();
    let (api, path) = (stage.bank.office.clone(), format!("/v1/accounts/{account}/unfreeze"));
    let open: Value = blocking(move || Ok(api.post(&path, &json!({}))?)).await?;
    let checked = expect("the account", &frozen["items"][0]["status"], &json!("frozen"))
        .and_then(|()| expect("the account, unfrozen", &open["status"], &json!("open")));
    let what = "which freezes the account until an operator has looked";
    flow.step("D7", what, checked, started.elapsed());
    Ok(())
}
