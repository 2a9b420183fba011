//! What is not executed (B6, B8).

use std::sync::Arc;

use countersign_device::ApiError;
use countersign_payment::joint::card::{Interface, View};
use countersign_payment::joint::{Form, check_digit};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::PIN;
use super::stage::{Stage, check, consent};
use crate::demo::bank::{PAYER, see};
use crate::demo::blocking;
use crate::demo::steps::{Flow, expect};
use crate::failure::Failure;

/// What a terminal is told about all that does not hold, whatever it was.
const REFUSED: &str = "authorisation-refused";

/// B8: joint passwords of another signature, another card, and a guess; the third ends it.
pub(super) async fn unlike(flow: &mut Flow, stage: &Stage) -> Result<(), Failure> {
    let before = stage.bank.balance(PAYER).await?;
    let announced = stage.ask("5.00", "Order 10: a cup").await?;
    let old = Arc::new(stage.sign(&stage.card, &announced, Form::SealedRandom).await?);
    let started = Instant::now();
    let signed = Arc::new(stage.sign(&stage.card, &announced, Form::SealedRandom).await?);
    let password = consent(&stage.card, PIN).await?.unwrap_or_default();
    let _others = stage.sign(&stage.other, &announced, Form::SealedRandom).await?;
    let foreign = consent(&stage.other, PIN).await?.unwrap_or_default();
    let tried = [
        check(stage.submit(&old, &password).await?),
        check(stage.submit(&signed, &foreign).await?),
        check(stage.submit(&signed, &guess()).await?),
    ];
    let seen = see(&stage.bank.shop, &format!("/v1/payments/{}", announced.payment())).await?;
    let took = started.elapsed();
    let right = check(stage.submit(&signed, &password).await?);
    let after = stage.bank.balance(PAYER).await?;
    let wanted = [REFUSED, REFUSED, REFUSED].map(|check| Err(check.to_owned()));
    let checked = expect("what the terminal is told", &tried, &wanted)
        .and_then(|()| expect("the payment", &seen["status"], &json!("failed")))
        .and_then(|()| expect("the right one, too late", &right.is_err(), &true))
        .and_then(|()| expect("the payer's balance", &after, &before));
    let what = "a joint password of an older signature, of another card, and a guess: refused \
                alike, and the third ends the payment";
    flow.step("B8", what, checked, took);
    Ok(())
}

/// A joint password as good as any, but for what the card drew.
fn guess() -> String {
    let digits = "12345678";
    format!("{digits}{}", check_digit(digits.as_bytes()))
}

/// B8: a terminal that has the card sign another amount than the server's.
pub(super) async fn altered(flow: &mut Flow, stage: &Stage) -> Result<(), Failure> {
    let before = stage.bank.balance(PAYER).await?;
    let announced = stage.ask("1.00", "Order 11: a biscuit").await?;
    let other = stage.ask("50.00", "Order 12: what the payer sees").await?;
    let started = Instant::now();
    let signed = stage.sign(&stage.card, &other, Form::Digest).await?;
    let password = consent(&stage.card, PIN).await?.unwrap_or_default();
    // As the terminal would write it: the cheap payment's path, the dear one's signature.
    let body = |transaction: &[u8]| {
        let text = |bytes: &[u8]| data_encoding::BASE64URL_NOPAD.encode(bytes);
        json!({
            "transaction": text(transaction),
            "deviceSerial": signed.serial(),
            "commitment": text(signed.commitment().as_bytes()),
            "signature": text(signed.signature()),
            "jointPassword": password,
        })
    };
    let mut told: Vec<Result<Value, String>> = Vec::new();
    for transaction in [signed.transaction(), announced.transaction()] {
        let (api, body) = (stage.bank.shop.clone(), body(transaction));
        let path = format!("/v1/payments/{}/joint", announced.payment());
        let sent = blocking(move || Ok(api.post::<Value>(&path, &body))).await?;
        told.push(sent.map_err(|error| match error {
            ApiError::Refused { check, .. } => check,
            other => other.to_string(),
        }));
    }
    let after = stage.bank.balance(PAYER).await?;
    let wanted = vec![Err(REFUSED.to_owned()), Err(REFUSED.to_owned())];
    let checked = expect("what the terminal is told", &told, &wanted)
        .and_then(|()| expect("the payer's balance", &after, &before));
    let what = "a transaction that is not the one the card signed: nothing is executed";
    flow.step("B8", what, checked, started.elapsed());
    Ok(())
}

/// B6: the holder says no.
pub(super) async fn declined(flow: &mut Flow, stage: &Stage) -> Result<(), Failure> {
    let announced = stage.ask("3.00", "Order 13: what nobody ordered").await?;
    let signed = stage.sign(&stage.card, &announced, Form::SealedRandom).await?;
    let started = Instant::now();
    let card = stage.card.clone();
    let fetched = blocking(move || {
        card.remove();
        card.decline();
        let declined = card.view(|view| matches!(view, View::Declined));
        card.insert(Interface::Contactless);
        let fetched = signed.fetch_password(card.clone());
        card.remove();
        Ok((declined, fetched.map(|_| ()).map_err(|error| error.check().to_owned())))
    })
    .await?;
    let (api, id) = (stage.bank.shop.clone(), announced.payment().to_owned());
    let path = format!("/v1/payments/{id}/cancel");
    let ended: Value = blocking(move || Ok(api.post(&path, &json!({}))?)).await?;
    let checked = expect("the card", &fetched, &(true, Err("declined".to_owned())))
        .and_then(|()| expect("the payment", &ended["status"], &json!("cancelled")));
    let what = "a no at the card destroys the joint password; the terminal takes the payment back";
    flow.step("B6", what, checked, started.elapsed());
    Ok(())
}
