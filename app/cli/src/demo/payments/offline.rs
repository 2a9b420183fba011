//! A payment that is confirmed by a device which nothing reaches but its camera (D3, D4, D8).

use countersign_device::Api;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::payer;
use super::stage::Stage;
use crate::demo::bank::{PAYER, see};
use crate::demo::blocking;
use crate::demo::steps::{Flow, expect};
use crate::failure::Failure;

/// The checkout page shows a QR code that the server signed; the payer types the device's digits
/// into that page. A code that was tampered with is not even shown.
pub(super) async fn by_qr_code(flow: &mut Flow, stage: &Stage) -> Result<(), Failure> {
    let payment = stage.ask("7.00", "Order 11: a sieve").await?;
    let id = payment["id"].as_str().unwrap_or_default();
    let started = Instant::now();
    let checkout = see(&stage.bank.shop, &format!("/v1/payments/{id}/checkout")).await?;
    let text = checkout["offline"].as_str().unwrap_or_default().to_owned();
    let (page, key) = checkout["url"]
        .as_str()
        .and_then(|url| url.split_once('#'))
        .map(|(page, key)| (page.to_owned(), key.to_owned()))
        .unwrap_or_default();

    // Another letter somewhere in the request that was signed.
    let other = if text.ends_with('A') { "B" } else { "A" };
    let altered = format!("{}{other}", text.get(..text.len().saturating_sub(1)).unwrap_or(""));
    let refused = payer::answer_offline(&stage.offline, altered).await?;
    let refused = refused.map(|answer| answer.digits).map_err(|error| error.check().to_owned());
    let answer = payer::answer_offline(&stage.offline, text).await??;
    let checked = expect("that the altered code is refused", &refused.is_err(), &true)
        .and_then(|()| expect("the payment", &&*answer.payment, &id))
        .and_then(|()| expect("the digits", &answer.digits.len(), &8));
    let what = "without any link: a QR code that the server signed, answered with eight digits";
    flow.step("D3", what, checked, started.elapsed());

    let started = Instant::now();
    let (server, ca) = (stage.bank.server.url(), stage.bank.ca.clone());
    let (path, seen_at) = (format!("/v1/checkout/{id}/answers"), format!("/v1/checkout/{id}"));
    let body = json!({ "deviceSerial": answer.serial, "digits": answer.digits });
    let seen: Value = blocking(move || {
        let page = Api::checkout(&server, &ca, &key)?;
        let _taken: Value = page.post(&path, &body)?;
        Ok(page.get(&seen_at)?)
    })
    .await?;
    let paid = stage.bank.balance(PAYER).await?;
    let checked = expect("the page", &page.ends_with(&format!("/checkout/{id}")), &true)
        .and_then(|()| expect("what the page is told", &seen["status"], &json!("executed")))
        .and_then(|()| expect("the payer's balance", &&*paid, &"60.66"));
    let what = "typed into the checkout page, which needs no token and no driver: executed";
    flow.step("D8", what, checked, started.elapsed());
    Ok(())
}
