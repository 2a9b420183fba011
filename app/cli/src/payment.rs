//! `payment`: payments as a server's operators and initiating terminals see them (D6, D7).

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use countersign_device::{Api, ApiError};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
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
    /// Print what the payer is to be shown: the number to match, the page's URL, and what a
    /// security device without a network scans.
    ///
    /// Whoever has the URL sees the payment: it is for its payer.
    ///
    /// Example: countersign payment checkout pay_01890000-0000-7000-8000-000000000000 --qr device
    Checkout {
        #[command(flatten)]
        which: Which,
        /// Draw a QR code: for the payer's browser, or for a device without a network (only
        /// without --json).
        #[arg(long, value_name = "FOR")]
        qr: Option<QrFor>,
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

/// Who is to scan it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum QrFor {
    /// The payer's browser: the page's URL.
    Page,
    /// A security device without a network: the signed confirmation request.
    Device,
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
            Self::Checkout { which, qr } => {
                let checkout = checkout(&which.client.api()?, &which.payment)?;
                let text = checkout_text(&checkout, qr)?;
                Ok(Output::new(checkout, text))
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

/// What the payer of a payment is to be shown.
pub(crate) fn checkout(api: &Api, payment: &str) -> Result<Value, ApiError> {
    api.get(&format!("/v1/payments/{}/checkout", encoded(payment)))
}

/// What the payer is to be shown, for people.
pub(crate) fn checkout_lines(checkout: &Value) -> String {
    let row = |name: &str, field: &str| format!("  {name:<12}{}", shown(checkout, field));
    format!("{}\n{}", row("number", "matchCode"), row("page", "url"))
}

/// All that there is to show, and a QR code if one is wanted.
fn checkout_text(checkout: &Value, qr: Option<QrFor>) -> Result<String, Failure> {
    let offline = shown(checkout, "offline");
    let text = format!("{}\n  {:<12}{offline}", checkout_lines(checkout), "for a device");
    let code = match qr {
        None => return Ok(text),
        Some(QrFor::Page) => shown(checkout, "url"),
        Some(QrFor::Device) if checkout["offline"].is_null() => {
            return Err(Failure::check("qr-code", "no QR code can hold this payment's request"));
        }
        Some(QrFor::Device) => offline,
    };
    Ok(format!("{text}\n{}", drawn(code)?))
}

/// A QR code in half blocks, dark modules as the terminal's ground, which is dark for most; with
/// the quiet zone that the standard asks for.
fn drawn(text: &str) -> Result<String, Failure> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L)
        .map_err(|error| Failure::environment("qr-code", error.to_string()))?;
    let (dark, light) = (Dense1x2::Light, Dense1x2::Dark);
    Ok(code.render::<Dense1x2>().dark_color(dark).light_color(light).build())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Modules as they are seen on a dark ground: true is light.
    fn seen(drawn: &str) -> Vec<Vec<bool>> {
        let halves = |c| match c {
            '█' => (true, true),
            '▀' => (true, false),
            '▄' => (false, true),
            ' ' => (false, false),
            other => panic!("{other:?} is no half block"),
        };
        let rows = drawn.lines().flat_map(|line| {
            let (upper, lower): (Vec<_>, Vec<_>) = line.chars().map(halves).unzip();
            [upper, lower]
        });
        rows.collect()
    }

    #[test]
    fn a_drawn_code_has_its_modules_and_a_quiet_zone() {
        const QUIET: usize = 4;
        let text = "CS1:ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let rows = seen(&drawn(text).unwrap());
        let code = QrCode::with_error_correction_level(text, EcLevel::L).unwrap();
        let width = code.width();
        for (y, row) in rows.iter().enumerate() {
            assert_eq!(row.len(), width + 2 * QUIET);
            for (x, light) in row.iter().enumerate() {
                let inside =
                    (QUIET..QUIET + width).contains(&x) && (QUIET..QUIET + width).contains(&y);
                let dark = inside && code[(x - QUIET, y - QUIET)] == qrcode::types::Color::Dark;
                // The last half row may be below the code.
                let below = y >= width + 2 * QUIET;
                assert!(below || *light != dark, "{x} {y}");
            }
        }
        assert!(rows.len() >= width + 2 * QUIET);
        assert_eq!(
            drawn(&"x".repeat(8000)).err().map(|failure| failure.check),
            Some("qr-code".to_owned())
        );
    }
}
