//! `pay`: an initiating terminal (D1, D6, D7).

use std::time::Duration;

use clap::Args;
use countersign_device::{Api, PaymentOrder};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::device::Client;
use crate::failure::Failure;
use crate::once::Once;
use crate::output::{self, Output};
use crate::payment::{checkout, checkout_lines, is_final, line, whole};
use crate::reader::{encoded, shown};

/// How long the server is asked to hold one answer back, in seconds: below the client's limit.
const WAIT_STEP: u64 = 20;
/// How long a server that does not answer is asked again before it is given up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The pause before it is asked again.
const PAUSE: Duration = Duration::from_millis(500);

/// Who asks for payments by this command.
const INITIATOR: &str = "countersign pay";

/// Ask for a payment, wait until its payer has confirmed it, and tell how it ended.
#[derive(Args)]
pub(crate) struct Pay {
    #[command(flatten)]
    client: Client,
    /// The account that pays.
    #[arg(long, value_name = "ACCOUNT")]
    from: String,
    #[command(flatten)]
    asked: Asked,
    /// Do not wait for its end.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    once: Once,
}

/// What is asked of a payer.
#[derive(Args)]
pub(crate) struct Asked {
    /// The account that is paid.
    #[arg(long, value_name = "ACCOUNT")]
    to: String,
    /// The payee's name, as the payer is to see it.
    #[arg(long, value_name = "NAME")]
    payee: String,
    /// A decimal number, for instance 12.34.
    #[arg(long, allow_hyphen_values = true)]
    amount: String,
    /// Three capital letters (ISO 4217).
    #[arg(long)]
    currency: String,
    /// What is paid for, as the payer is to see it.
    #[arg(long, value_name = "TEXT")]
    order: String,
    /// Your reference for it (`endToEndIdentification`); the idempotency key if it is not given.
    #[arg(long, value_name = "TEXT")]
    reference: Option<String>,
    /// Who asks, as the payer is to see it; the command's name if it is not given.
    #[arg(long, value_name = "NAME")]
    initiator: Option<String>,
    /// Until when it can be confirmed, in seconds; the server has its own default.
    #[arg(long, value_name = "SECONDS")]
    expires_in: Option<u64>,
}

impl Asked {
    /// What this command asks for: a payment from this account, under this idempotency key.
    pub(crate) fn order(&self, from: &str, key: &str, command: &str) -> PaymentOrder {
        PaymentOrder {
            from: from.to_owned(),
            to: self.to.clone(),
            payee: self.payee.clone(),
            amount: self.amount.clone(),
            currency: self.currency.clone(),
            order: self.order.clone(),
            reference: self.reference.as_deref().unwrap_or(key).to_owned(),
            initiator: self.initiator.as_deref().unwrap_or(command).to_owned(),
            expires_in: self.expires_in,
        }
    }
}

impl Pay {
    pub(crate) async fn run(self) -> Result<Output, Failure> {
        // The API client blocks.
        let working = tokio::task::spawn_blocking(move || self.ask());
        working.await.map_err(|error| Failure::environment("task", error.to_string()))?
    }

    fn ask(self) -> Result<Output, Failure> {
        let api = self.client.api()?;
        let once = self.once.fixed();
        let body = self.asked.order(&self.from, once.key(), INITIATOR).body();
        let mut payment = once.post(&api, "/v1/payments", &body)?;
        // For the payer's eyes; the payment goes on without it.
        let shown_to_payer = checkout(&api, shown(&payment, "id"));
        if self.no_wait {
            let mut text = line(&payment);
            if let Ok(checkout) = shown_to_payer {
                text = format!("{text}\n{}", checkout_lines(&checkout));
                // Without what is signed anew each time: a repeated request is answered the same.
                let (url, number) = (&checkout["url"], &checkout["matchCode"]);
                payment["checkout"] = json!({ "url": url, "matchCode": number });
            }
            return Ok(Output::new(payment, text));
        }
        let said = format!(
            "{} waits for its payer until {}",
            shown(&payment, "id"),
            shown(&payment, "expiresAt")
        );
        output::print_error(&said);
        match shown_to_payer {
            Ok(checkout) => output::print_error(&checkout_lines(&checkout)),
            Err(error) => output::print_error(&format!("there is no page for it: {error}")),
        }
        ended(wait(&api, payment)?)
    }
}

/// Asks until the payment is final. An answer that got lost is asked for again.
pub(crate) fn wait(api: &Api, mut payment: Value) -> Result<Value, Failure> {
    let path = format!("/v1/payments/{}", encoded(shown(&payment, "id")));
    let mut heard = Instant::now();
    while !is_final(&payment) {
        let version = payment["version"].as_u64().unwrap_or_default();
        match api.get(&format!("{path}?wait={WAIT_STEP}&version={version}")) {
            Ok(answer) => {
                payment = answer;
                heard = Instant::now();
            }
            Err(error) if error.is_lost() && heard.elapsed() < PATIENCE => {
                std::thread::sleep(PAUSE);
            }
            Err(error) => return Err(Failure::from(error).after(json!({ "payment": payment }))),
        }
    }
    Ok(payment)
}

/// How a payment ended: refused is all but executed.
pub(crate) fn ended(payment: Value) -> Result<Output, Failure> {
    let refused = payment["status"] != "executed";
    let text = whole(&payment);
    Ok(Output { refused, ..Output::new(payment, text) })
}
