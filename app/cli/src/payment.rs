//! `payment`: payments as a server's operators and initiating terminals see them (D6, D7).

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use countersign_device::Api;
use serde_json::{Value, json};

use crate::account::posting_line;
use crate::device::Client;
use crate::failure::Failure;
use crate::once::Once;
use crate::output::Output;
use crate::pay;
use crate::reader::{all_where, encoded, shown};

/// The states that nothing follows.
const FINAL: [&str; 6] =
    ["executed", "rejected", "expired", "failed", "cancelled", "execution_failed"];

/// Payments.
#[derive(Subcommand)]
pub(crate) enum PaymentCommand {
    /// List payments, the newest first.
    ///
    /// Example: countersign payment list --status pending
    List(List),
    /// Show a payment.
    ///
    /// Example: countersign payment show pay_01890000-0000-7000-8000-000000000000 --wait
    Show {
        #[command(flatten)]
        which: Which,
        /// Wait for its end; the exit code is 1 if that is another than executed.
        #[arg(long)]
        wait: bool,
    },
    /// Take back a payment that is not confirmed yet.
    ///
    /// Example: countersign payment cancel pay_01890000-0000-7000-8000-000000000000
    Cancel(Which),
    /// Give a part of an executed payment back.
    ///
    /// Example: countersign payment refund pay_01890000-0000-7000-8000-000000000000 --amount 1.50
    Refund {
        #[command(flatten)]
        which: Which,
        /// How much, in the payment's currency.
        #[arg(long)]
        amount: String,
        #[command(flatten)]
        once: Once,
    },
    /// Give all of an executed payment back that was not given back before.
    ///
    /// Example: countersign payment reverse pay_01890000-0000-7000-8000-000000000000
    Reverse {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        once: Once,
    },
    /// List the states that a payment went through.
    ///
    /// Example: countersign payment timeline pay_01890000-0000-7000-8000-000000000000
    Timeline(Which),
    /// List the answers that payers' devices gave to a payment.
    ///
    /// Example: countersign payment answers pay_01890000-0000-7000-8000-000000000000
    Answers(Which),
    /// Print or keep the signed receipt of an executed payment.
    ///
    /// Example: countersign payment receipt pay_01890000-0000-7000-8000-000000000000 --out r.jws
    Receipt {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        out: Out,
    },
    /// Print or keep a payment's evidence, for `countersign evidence verify`.
    ///
    /// Example: countersign payment evidence pay_01890000-0000-7000-8000-000000000000 --out e.json
    Evidence {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        out: Out,
    },
}

/// List payments.
#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    client: Client,
    /// Only those in this state: created, pending, approved, executing, executed, rejected,
    /// expired, failed, cancelled or execution_failed.
    #[arg(long)]
    status: Option<String>,
    /// Only those that this account pays.
    #[arg(long, value_name = "ACCOUNT")]
    from: Option<String>,
}

/// Which payment.
#[derive(Args)]
pub(crate) struct Which {
    #[command(flatten)]
    client: Client,
    /// The payment, pay_….
    payment: String,
}

/// Where a document goes.
#[derive(Args)]
pub(crate) struct Out {
    /// A new file; stdout if it is not given.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl PaymentCommand {
    pub(crate) async fn run(self) -> Result<Output, Failure> {
        // The API client blocks.
        let working = tokio::task::spawn_blocking(move || self.ask());
        working.await.map_err(|error| Failure::environment("task", error.to_string()))?
    }

    fn ask(self) -> Result<Output, Failure> {
        match self {
            Self::List(list) => list.ask(),
            Self::Show { which, wait } => {
                let (api, path) = which.find()?;
                let payment: Value = api.get(&path)?;
                if wait {
                    return pay::ended(pay::wait(&api, payment)?);
                }
                let text = whole(&payment);
                Ok(Output::new(payment, text))
            }
            Self::Cancel(which) => {
                let (api, path) = which.find()?;
                let payment: Value = api.post(&format!("{path}/cancel"), &json!({}))?;
                let text = line(&payment);
                Ok(Output::new(payment, text))
            }
            Self::Refund { which, amount, once } => {
                let (api, path) = which.find()?;
                let payment: Value = api.get(&path)?;
                let currency = &payment["instructedAmount"]["currency"];
                let body =
                    json!({ "instructedAmount": { "amount": amount, "currency": currency } });
                posted(once.post(&api, &format!("{path}/refunds"), &body)?)
            }
            Self::Reverse { which, once } => {
                let (api, path) = which.find()?;
                posted(once.post(&api, &format!("{path}/reversal"), &json!({}))?)
            }
            Self::Timeline(which) => which.items("timeline", timeline_line),
            Self::Answers(which) => which.items("authorisations", answer_line),
            Self::Receipt { which, out } => {
                let (api, path) = which.find()?;
                let answer: Value = api.get(&format!("{path}/receipt"))?;
                let receipt = shown(&answer, "receipt").to_owned();
                out.put(answer, &receipt)
            }
            Self::Evidence { which, out } => {
                let (api, path) = which.find()?;
                // The bytes as the server made them: that is what its signature covers.
                let bundle = api.get_text(&format!("{path}/evidence"))?;
                let json = serde_json::from_str(&bundle).map_err(|_| {
                    Failure::environment("server-answer", "the evidence is not JSON")
                })?;
                out.put(json, &bundle)
            }
        }
    }
}

impl Which {
    /// The API, and the payment's path in it.
    fn find(&self) -> Result<(Api, String), Failure> {
        Ok((self.client.api()?, format!("/v1/payments/{}", encoded(&self.payment))))
    }

    fn items(&self, what: &str, line: fn(&Value) -> String) -> Result<Output, Failure> {
        let (api, path) = self.find()?;
        let list: Value = api.get(&format!("{path}/{what}"))?;
        let lines: Vec<_> = list["items"].as_array().into_iter().flatten().map(line).collect();
        let text = lines.join("\n");
        Ok(Output::new(list, text))
    }
}

impl List {
    fn ask(self) -> Result<Output, Failure> {
        let mut query = String::new();
        for (name, value) in [("status", &self.status), ("debtorAccount", &self.from)] {
            if let Some(value) = value {
                query += &format!("&{name}={}", encoded(value));
            }
        }
        let items = all_where(&self.client.api()?, "/v1/payments", &query)?;
        let text = items.iter().map(line).collect::<Vec<_>>().join("\n");
        Ok(Output::new(json!({ "items": items, "next": null }), text))
    }
}

impl Out {
    /// Into a new file, or to stdout.
    fn put(&self, json: Value, text: &str) -> Result<Output, Failure> {
        let Some(path) = &self.out else { return Ok(Output::new(json, text)) };
        keep(path, text).map_err(|error| Failure::file(path, &error))?;
        let said = format!("{}  {} bytes", path.display(), text.len());
        Ok(Output::new(json!({ "file": path, "bytes": text.len() }), said))
    }
}

/// Nothing that stands there is written over.
fn keep(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::File::create_new(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn posted(posting: Value) -> Result<Output, Failure> {
    let text = posting_line(&posting);
    Ok(Output::new(posting, text))
}

/// Whether nothing follows this state.
pub(crate) fn is_final(payment: &Value) -> bool {
    FINAL.contains(&shown(payment, "status"))
}

/// `12.34 CNY`.
pub(crate) fn money(amount: &Value) -> String {
    format!("{} {}", shown(amount, "amount"), shown(amount, "currency"))
}

/// A payment on one line.
pub(crate) fn line(payment: &Value) -> String {
    let mut line = format!(
        "{}  {}  {}  {} -> {}",
        shown(payment, "id"),
        shown(payment, "status"),
        money(&payment["instructedAmount"]),
        shown(&payment["debtorAccount"], "identification"),
        shown(&payment["creditorAccount"], "identification"),
    );
    if let Some(reason) = payment["statusReason"].as_str() {
        line += &format!("  ({reason})");
    }
    line
}

/// A payment on several lines.
pub(crate) fn whole(payment: &Value) -> String {
    let mut text = line(payment);
    let mut row = |name: &str, value: &str| text += &format!("\n  {name:<12}{value}");
    row("payee", shown(&payment["creditor"], "name"));
    row("order", shown(payment, "remittanceInformation"));
    row("reference", shown(payment, "endToEndIdentification"));
    row("asked by", shown(&payment["initiatingParty"], "name"));
    row("pain.002", shown(payment, "transactionStatus"));
    row("expires", shown(payment, "expiresAt"));
    for alert in payment["alerts"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        row("alert", alert);
    }
    if let Some(incident) = payment["incident"].as_str() {
        row("incident", incident);
    }
    if payment["status"] == "executed" {
        row("given back", &money(&payment["refundedAmount"]));
    }
    text
}

fn timeline_line(row: &Value) -> String {
    let mut line = format!(
        "{}  {:<16}  {}  {}",
        shown(row, "at"),
        shown(row, "status"),
        shown(row, "transactionStatus"),
        shown(row, "actor"),
    );
    if let Some(reason) = row["reason"].as_str() {
        line += &format!("  ({reason})");
    }
    line
}

fn answer_line(answer: &Value) -> String {
    let mut line = ["authorisationId", "at", "method", "outcome", "scaStatus", "deviceId"]
        .map(|field| shown(answer, field))
        .join("  ");
    if let Some(incident) = answer["incident"].as_str() {
        line += &format!("  ({incident})");
    }
    line
}
