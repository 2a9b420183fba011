//! `reader`: readers as the server's operators see them, their records and the risk rules.

use clap::{Args, Subcommand};
use countersign_device::Api;
use countersign_server::DataDir;
use countersign_service::Rule;
use serde_json::{Value, json};

use crate::device::Client;
use crate::failure::Failure;
use crate::output::Output;

/// Pages that one list command asks for at most, of 200 items each.
const PAGES_MAX: u32 = 500;

/// Readers, their records, and the rules over them.
#[derive(Subcommand)]
pub(crate) enum ReaderCommand {
    /// List the readers.
    ///
    /// Example: countersign reader list --server https://localhost:8443 --ca ca.pem
    /// --token-file admin.token
    List {
        #[command(flatten)]
        client: Client,
    },
    /// Show all that is known of a reader: certificates, factory data, counts, decisions.
    ///
    /// Example: countersign reader show RD-1
    Show {
        #[command(flatten)]
        which: Which,
    },
    /// Say how a reader was made; what is not given is emptied.
    ///
    /// Example: countersign reader factory RD-1 --maker Acme --model R2 --batch 42
    Factory(Factory),
    /// Report something against a reader.
    ///
    /// Example: countersign reader report RD-1 --kind broken-seal --text "torn" --reference T-7
    Report(Report),
    /// Tell a transaction that was made at a reader.
    ///
    /// Example: countersign reader transaction RD-1 --reference P-9 --amount 12.34 --currency CNY
    /// --outcome paid
    Transaction(Transaction),
    /// Block a reader: it is refused until it is unblocked.
    ///
    /// Example: countersign reader block RD-1 --reason "reported stolen"
    Block(Reasoned),
    /// Lift an operator's block. A rule's block is lifted by `reverse`.
    ///
    /// Example: countersign reader unblock RD-1
    Unblock {
        #[command(flatten)]
        which: Which,
    },
    /// Revoke a reader's certificate: it must enrol again.
    ///
    /// Example: countersign reader revoke RD-1 --reason "key lost"
    Revoke(Reasoned),
    /// List the decisions of the rules over a reader, the newest first.
    ///
    /// Example: countersign reader decisions RD-1
    Decisions {
        #[command(flatten)]
        which: Which,
    },
    /// Reverse a decision: a block or throttle is lifted at once, and its rule counts anew.
    ///
    /// Example: countersign reader reverse RD-1 dec_0193… --reason "looked at the reader"
    Reverse {
        #[command(flatten)]
        reasoned: Reasoned,
        /// The decision (dec_…).
        decision: String,
    },
    /// Check risk.toml in a data directory and print its rules.
    ///
    /// Example: countersign reader rules --data ./countersign-data
    Rules {
        /// The data directory.
        #[arg(long, value_name = "DIR", default_value = "./countersign-data")]
        data: std::path::PathBuf,
    },
}

/// Which reader.
#[derive(Args)]
pub(crate) struct Which {
    #[command(flatten)]
    client: Client,
    /// The reader's id (rdr_…) or serial number.
    reader: String,
}

/// Which reader, and why.
#[derive(Args)]
pub(crate) struct Reasoned {
    #[command(flatten)]
    which: Which,
    /// Why: 1 to 200 bytes.
    #[arg(long)]
    reason: String,
}

/// How a reader was made.
#[derive(Args)]
pub(crate) struct Factory {
    #[command(flatten)]
    which: Which,
    /// Who made it.
    #[arg(long, default_value = "")]
    maker: String,
    /// The model.
    #[arg(long, default_value = "")]
    model: String,
    /// Version of its hardware.
    #[arg(long, default_value = "")]
    hardware: String,
    /// Version of its firmware.
    #[arg(long, default_value = "")]
    firmware: String,
    /// The batch it is from.
    #[arg(long, default_value = "")]
    batch: String,
    /// The day it was made on, YYYY-MM-DD.
    #[arg(long, value_name = "DAY", default_value = "")]
    made_on: String,
    /// Anything else.
    #[arg(long, default_value = "")]
    note: String,
}

/// A report against a reader.
#[derive(Args)]
pub(crate) struct Report {
    #[command(flatten)]
    which: Which,
    /// What kind, for instance broken-seal: a-z 0-9 and -.
    #[arg(long)]
    kind: String,
    /// What happened.
    #[arg(long)]
    text: String,
    /// Your name for it; the same again is the same report.
    #[arg(long)]
    reference: String,
}

/// A transaction at a reader.
#[derive(Args)]
pub(crate) struct Transaction {
    #[command(flatten)]
    which: Which,
    /// Your name for it; the same again is the same transaction.
    #[arg(long)]
    reference: String,
    /// A decimal number, for instance 12.34.
    #[arg(long, allow_hyphen_values = true)]
    amount: String,
    /// Three capital letters (ISO 4217).
    #[arg(long)]
    currency: String,
    /// How it ended, for instance paid: a-z 0-9 and -.
    #[arg(long)]
    outcome: String,
}

impl ReaderCommand {
    pub(crate) async fn run(self) -> Result<Output, Failure> {
        if let Self::Rules { data } = &self {
            return rules(&DataDir::open(data)?);
        }
        // The API client blocks.
        let working = tokio::task::spawn_blocking(move || self.ask());
        working.await.map_err(|error| Failure::environment("task", error.to_string()))?
    }

    fn ask(self) -> Result<Output, Failure> {
        match self {
            Self::List { client } => {
                let items = all(&client.api()?, "/v1/readers")?;
                let text = lines(&items, reader_line);
                Ok(Output::new(json!({"items": items, "next": null}), text))
            }
            Self::Show { which } => {
                let (api, path) = which.find()?;
                let record: Value = api.get(&format!("{path}/record"))?;
                let text = record_text(&record);
                Ok(Output::new(record, text))
            }
            Self::Factory(factory) => factory.set(),
            Self::Report(Report { which, kind, text, reference }) => {
                let body = json!({"kind": kind, "text": text, "reference": reference});
                let stored = which.post("reports", &body)?;
                let line = format!("Report  {}  {}", shown(&stored, "id"), shown(&stored, "kind"));
                Ok(Output::new(stored, line))
            }
            Self::Transaction(Transaction { which, reference, amount, currency, outcome }) => {
                let body = json!({
                    "reference": reference,
                    "amount": amount,
                    "currency": currency,
                    "outcome": outcome,
                });
                let stored = which.post("transactions", &body)?;
                let line =
                    format!("Transaction  {}  {}", shown(&stored, "id"), shown(&stored, "outcome"));
                Ok(Output::new(stored, line))
            }
            Self::Block(Reasoned { which, reason }) => {
                changed(which.post("block", &json!({"reason": reason}))?)
            }
            Self::Unblock { which } => changed(which.post("unblock", &json!({}))?),
            Self::Revoke(Reasoned { which, reason }) => {
                changed(which.post("revoke", &json!({"reason": reason}))?)
            }
            Self::Decisions { which } => {
                let (api, path) = which.find()?;
                let items = all(&api, &format!("{path}/decisions"))?;
                let text = lines(&items, decision_line);
                Ok(Output::new(json!({"items": items, "next": null}), text))
            }
            Self::Reverse { reasoned: Reasoned { which, reason }, decision } => {
                let step = format!("decisions/{}/reverse", encoded(&decision));
                let reversed = which.post(&step, &json!({"reason": reason}))?;
                let line = decision_line(&reversed);
                Ok(Output::new(reversed, line))
            }
            Self::Rules { data } => rules(&DataDir::open(&data)?),
        }
    }
}

impl Which {
    /// The API, and the reader's path in it.
    fn find(&self) -> Result<(Api, String), Failure> {
        let api = self.client.api()?;
        let id = if self.reader.starts_with("rdr_") {
            encoded(&self.reader)
        } else {
            let path = format!("/v1/readers?serial={}", encoded(&self.reader));
            let found: Value = api.get(&path)?;
            let id = found["items"][0]["id"].as_str();
            let absent = || Failure::check("not-found", "there is no reader with this serial");
            id.ok_or_else(absent)?.to_owned()
        };
        Ok((api, format!("/v1/readers/{id}")))
    }

    fn post(&self, step: &str, body: &Value) -> Result<Value, Failure> {
        let (api, path) = self.find()?;
        Ok(api.post(&format!("{path}/{step}"), body)?)
    }
}

impl Factory {
    fn set(self) -> Result<Output, Failure> {
        let (api, path) = self.which.find()?;
        let body = json!({
            "maker": self.maker,
            "model": self.model,
            "hardware": self.hardware,
            "firmware": self.firmware,
            "batch": self.batch,
            "madeOn": self.made_on,
            "note": self.note,
        });
        let stored: Value = api.put(&format!("{path}/factory"), &body)?;
        let text = fields_text(&stored, "");
        Ok(Output::new(stored, text))
    }
}

/// All items of a list, page by page.
pub(crate) fn all(api: &Api, path: &str) -> Result<Vec<Value>, Failure> {
    all_where(api, path, "")
}

/// All items of a list for which a condition holds: `&name=value`, or nothing.
pub(crate) fn all_where(api: &Api, path: &str, query: &str) -> Result<Vec<Value>, Failure> {
    let (mut items, mut next) = (Vec::new(), String::new());
    for _ in 0..PAGES_MAX {
        let page: Value = api.get(&format!("{path}?limit=200{query}{next}"))?;
        items.extend(page["items"].as_array().into_iter().flatten().cloned());
        match page["next"].as_str() {
            Some(cursor) => next = format!("&cursor={}", encoded(cursor)),
            None => return Ok(items),
        }
    }
    let detail = format!("there are more than {} items", PAGES_MAX * 200);
    Err(Failure::environment("list-too-long", detail))
}

/// A part of a URL: what is not plain is written as %XX.
pub(crate) fn encoded(text: &str) -> String {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_' | b'~');
    let one = |c: u8| if plain(c) { char::from(c).to_string() } else { format!("%{c:02X}") };
    text.bytes().map(one).collect()
}

pub(crate) fn shown<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or("-")
}

fn lines(items: &[Value], line: impl Fn(&Value) -> String) -> String {
    items.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn changed(reader: Value) -> Result<Output, Failure> {
    let line = reader_line(&reader);
    Ok(Output::new(reader, line))
}

fn reader_line(reader: &Value) -> String {
    let mut line = ["id", "serial", "status"].map(|field| shown(reader, field)).join("  ");
    if let Some(reason) = reader["blockReason"].as_str() {
        line += &format!("  ({reason})");
    }
    line
}

fn decision_line(decision: &Value) -> String {
    let state = if decision["stands"] == true { "stands" } else { "ended" };
    let until = decision["until"].as_str().unwrap_or("it is reversed");
    format!(
        "{}  {}  {}  {state}  at {} until {until}  {}",
        shown(decision, "id"),
        shown(decision, "rule"),
        shown(decision, "action"),
        shown(decision, "at"),
        shown(decision, "reason"),
    )
}

/// The members of an object, one per line; what is null or empty is left out.
fn fields_text(object: &Value, indent: &str) -> String {
    let mut text = String::new();
    for (name, value) in object.as_object().into_iter().flatten() {
        let shown = match value {
            Value::String(value) if !value.is_empty() => value.clone(),
            Value::Number(value) => value.to_string(),
            Value::Object(map) if !map.is_empty() => {
                let each = map.iter().map(|(label, count)| format!("{label} {count}"));
                each.collect::<Vec<_>>().join(", ")
            }
            _ => continue,
        };
        text += &format!("{indent}{name:<14}{shown}\n");
    }
    text
}

fn record_text(record: &Value) -> String {
    let mut text = format!("{}\n", reader_line(&record["reader"]));
    for certificate in record["certificates"].as_array().into_iter().flatten() {
        let end =
            certificate["revokeReason"].as_str().unwrap_or_else(|| shown(certificate, "notAfter"));
        text += &format!(
            "  certificate {}  {}  {end}\n",
            shown(certificate, "number"),
            shown(certificate, "state")
        );
    }
    for (title, part) in [("factory", "factory"), ("in all", "totals"), ("24 hours", "lastDay")] {
        let part = fields_text(&record[part], "  ");
        if !part.is_empty() {
            text += &format!("{title}\n{part}");
        }
    }
    for decision in record["standing"].as_array().into_iter().flatten() {
        text += &format!("{}\n", decision_line(decision));
    }
    text
}

fn rules(data: &DataDir) -> Result<Output, Failure> {
    let rules = data.risk_rules()?;
    let terms: Vec<Value> = rules.iter().map(Rule::terms).collect();
    let line = |rule: &Value| {
        let check = rule["check"].as_str().map(|check| format!(" ({check})")).unwrap_or_default();
        let pause = rule["pause"].as_str().map(|pause| format!(" to {pause}")).unwrap_or_default();
        let lasts = rule["for"].as_str().map(|lasts| format!("for {lasts}"));
        format!(
            "{}: {} {}{check} within {}: {}{pause} {}",
            shown(rule, "name"),
            rule["atLeast"],
            shown(rule, "count"),
            shown(rule, "within"),
            shown(rule, "action"),
            lasts.as_deref().unwrap_or("until it is reversed"),
        )
    };
    let per_minute = rules.reads_per_minute();
    let bound = format!("at most {per_minute} reads of one reader in any minute");
    let text = [lines(&terms, line), bound].join("\n");
    Ok(Output::new(json!({ "rules": terms, "readsPerMinute": per_minute }), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_stays_in_its_place_of_the_url() {
        assert_eq!(encoded("RD-1.a_b~"), "RD-1.a_b~");
        assert_eq!(encoded("a/b?c=1&d é"), "a%2Fb%3Fc%3D1%26d%20%C3%A9");
    }
}
