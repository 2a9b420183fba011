//! `phone`: payers' phones, as the server's operators see them.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::device::Client;
use crate::failure::Failure;
use crate::output::Output;
use crate::reader::{all, encoded, shown};
use crate::security_device::accounts_text;

/// Payers' phones.
#[derive(Subcommand)]
pub(crate) enum PhoneCommand {
    /// Let a phone enrol for some accounts; prints its one-time code.
    ///
    /// Example: countersign phone allow --label "Li Lei" --account PAYER0001
    Allow(Allow),
    /// Give a phone another one-time code; using it makes the phone's token void.
    ///
    /// Example: countersign phone code phn_0193…
    Code(Which),
    /// List the phones.
    ///
    /// Example: countersign phone list --server https://localhost:8443 --ca ca.pem
    /// --token-file admin.token
    List {
        #[command(flatten)]
        client: Client,
    },
    /// Show a phone.
    ///
    /// Example: countersign phone show phn_0193…
    Show(Which),
    /// Have a phone told of the payments of further accounts.
    ///
    /// Example: countersign phone bind phn_0193… --account PAYER0002
    Bind(Bind),
    /// Take an account away from a phone.
    ///
    /// Example: countersign phone unbind phn_0193… --account PAYER0002
    Unbind(Unbind),
    /// Revoke a phone for good: it is refused at once.
    ///
    /// Example: countersign phone revoke phn_0193… --reason "lost"
    Revoke(Revoke),
}

/// Let a phone enrol.
#[derive(Args)]
pub(crate) struct Allow {
    #[command(flatten)]
    client: Client,
    /// A name for people, 1 to 64 characters.
    #[arg(long)]
    label: String,
    /// An account whose payments it is told of: id or number; may be given several times.
    #[arg(long = "account", value_name = "ACCOUNT", required = true)]
    accounts: Vec<String>,
}

/// Which phone.
#[derive(Args)]
pub(crate) struct Which {
    #[command(flatten)]
    client: Client,
    /// The phone's id (phn_…).
    id: String,
}

/// Bind accounts.
#[derive(Args)]
pub(crate) struct Bind {
    #[command(flatten)]
    which: Which,
    /// An account: id or number; may be given several times.
    #[arg(long = "account", value_name = "ACCOUNT", required = true)]
    accounts: Vec<String>,
}

/// Take an account away.
#[derive(Args)]
pub(crate) struct Unbind {
    #[command(flatten)]
    which: Which,
    /// The account: id or number.
    #[arg(long)]
    account: String,
}

/// Revoke a phone.
#[derive(Args)]
pub(crate) struct Revoke {
    #[command(flatten)]
    which: Which,
    /// Why: 1 to 200 bytes.
    #[arg(long)]
    reason: String,
}

impl PhoneCommand {
    pub(crate) async fn run(self) -> Result<Output, Failure> {
        // The API client blocks.
        let working = tokio::task::spawn_blocking(move || self.ask());
        working.await.map_err(|error| Failure::environment("task", error.to_string()))?
    }

    fn ask(self) -> Result<Output, Failure> {
        match self {
            Self::Allow(Allow { client, label, accounts }) => {
                let body = json!({ "label": label, "accounts": accounts });
                Ok(allowed(client.api()?.post("/v1/phones", &body)?))
            }
            Self::Code(which) => Ok(allowed(which.post("code", &json!({}))?)),
            Self::List { client } => {
                let items = all(&client.api()?, "/v1/phones")?;
                let text = items.iter().map(line).collect::<Vec<_>>().join("\n");
                Ok(Output::new(json!({ "items": items, "next": null }), text))
            }
            Self::Show(which) => Ok(changed(which.client.api()?.get(&which.path())?)),
            Self::Bind(Bind { which, accounts }) => {
                Ok(changed(which.post("bind", &json!({ "accounts": accounts }))?))
            }
            Self::Unbind(Unbind { which, account }) => {
                Ok(changed(which.post("unbind", &json!({ "account": account }))?))
            }
            Self::Revoke(Revoke { which, reason }) => {
                Ok(changed(which.post("revoke", &json!({ "reason": reason }))?))
            }
        }
    }
}

impl Which {
    fn path(&self) -> String {
        format!("/v1/phones/{}", encoded(&self.id))
    }

    fn post(&self, step: &str, body: &Value) -> Result<Value, Failure> {
        Ok(self.client.api()?.post(&format!("{}/{step}", self.path()), body)?)
    }
}

fn allowed(answer: Value) -> Output {
    let text = format!(
        "{}\n  code {}  until {}\n  (shown once: keep it safe)",
        line(&answer["phone"]),
        shown(&answer, "enrolmentCode"),
        shown(&answer, "expiresAt")
    );
    Output::new(answer, text)
}

fn changed(phone: Value) -> Output {
    let text = line(&phone);
    Output::new(phone, text)
}

fn line(phone: &Value) -> String {
    let mut line = ["id", "label", "state"].map(|field| shown(phone, field)).join("  ");
    line += &format!("  {}", accounts_text(phone));
    if let Some(reason) = phone["revokeReason"].as_str() {
        line += &format!("  ({reason})");
    }
    line
}
