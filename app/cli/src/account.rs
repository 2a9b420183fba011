//! `account`: the ledger's accounts and postings (D6).

use clap::{Args, Subcommand, ValueEnum};
use countersign_device::Api;
use serde_json::{Value, json};

use crate::device::Client;
use crate::failure::Failure;
use crate::once::Once;
use crate::output::Output;
use crate::payment::money;
use crate::reader::{all, encoded, shown};

/// Accounts of the ledger.
#[derive(Subcommand)]
pub(crate) enum AccountCommand {
    /// Open an account.
    ///
    /// Example: countersign account open PAYER0001 --holder "Li Lei" --currency CNY
    Open(Open),
    /// List the accounts.
    ///
    /// Example: countersign account list --server https://localhost:8443 --ca ca.pem
    /// --token-file admin.token
    List {
        #[command(flatten)]
        client: Client,
    },
    /// Show an account.
    ///
    /// Example: countersign account show PAYER0001
    Show(Which),
    /// List an account's entries, the newest first.
    ///
    /// Example: countersign account entries PAYER0001
    Entries(Which),
    /// Freeze an account: nothing is posted to it until it is unfrozen.
    ///
    /// Example: countersign account freeze PAYER0001 --reason "under investigation"
    Freeze(Reasoned),
    /// Unfreeze an account.
    ///
    /// Example: countersign account unfreeze PAYER0001
    Unfreeze(Which),
    /// Set how far below zero the balance may go.
    ///
    /// Example: countersign account overdraft PAYER0001 100.00
    Overdraft(Overdraft),
    /// Close an account for ever; its balance must be zero.
    ///
    /// Example: countersign account close PAYER0001 --reason "the customer left"
    Close(Reasoned),
    /// Post an amount from one account to another, by hand.
    ///
    /// Example: countersign account post --from OUTSIDE01 --to PAYER0001 --amount 100.00
    /// --currency CNY --reference cash-1
    Post(Post),
    /// Show the trial balance: the sums of all accounts, by currency; they are zero.
    ///
    /// Example: countersign account ledger --server https://localhost:8443 --ca ca.pem
    /// --token-file admin.token
    Ledger {
        #[command(flatten)]
        client: Client,
    },
}

/// Open an account.
#[derive(Args)]
pub(crate) struct Open {
    #[command(flatten)]
    client: Client,
    /// Its number: 4 to 34 of A-Z 0-9; an IBAN's check digits are checked.
    account: String,
    /// Whose it is.
    #[arg(long)]
    holder: String,
    /// Three capital letters (ISO 4217).
    #[arg(long)]
    currency: String,
    /// A customer's, or one that stands for the outside world.
    #[arg(long, value_enum, default_value = "customer")]
    kind: Kind,
    /// How far below zero a customer's balance may go, a decimal number.
    #[arg(long, value_name = "AMOUNT")]
    overdraft: Option<String>,
}

/// What an account is.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Kind {
    Customer,
    External,
}

/// Which account.
#[derive(Args)]
pub(crate) struct Which {
    #[command(flatten)]
    client: Client,
    /// The account's number, or its id (acc_…).
    account: String,
}

/// Which account, and why.
#[derive(Args)]
pub(crate) struct Reasoned {
    #[command(flatten)]
    which: Which,
    /// Why: 1 to 200 bytes.
    #[arg(long)]
    reason: String,
}

/// Which account, and its bound.
#[derive(Args)]
pub(crate) struct Overdraft {
    #[command(flatten)]
    which: Which,
    /// A decimal number, zero or more, for instance 100.00.
    #[arg(value_name = "AMOUNT")]
    overdraft: String,
}

/// A posting by hand.
#[derive(Args)]
pub(crate) struct Post {
    #[command(flatten)]
    client: Client,
    /// The account that loses the amount.
    #[arg(long, value_name = "ACCOUNT")]
    from: String,
    /// The account that gets it.
    #[arg(long, value_name = "ACCOUNT")]
    to: String,
    /// A decimal number, for instance 12.34.
    #[arg(long, allow_hyphen_values = true)]
    amount: String,
    /// Three capital letters (ISO 4217).
    #[arg(long)]
    currency: String,
    /// Your name for it: it is posted once.
    #[arg(long, value_name = "TEXT")]
    reference: String,
    #[command(flatten)]
    once: Once,
}

impl AccountCommand {
    pub(crate) async fn run(self) -> Result<Output, Failure> {
        // The API client blocks.
        let working = tokio::task::spawn_blocking(move || self.ask());
        working.await.map_err(|error| Failure::environment("task", error.to_string()))?
    }

    fn ask(self) -> Result<Output, Failure> {
        match self {
            Self::Open(open) => open.ask(),
            Self::List { client } => {
                let items = all(&client.api()?, "/v1/accounts")?;
                let text = items.iter().map(line).collect::<Vec<_>>().join("\n");
                Ok(Output::new(json!({ "items": items, "next": null }), text))
            }
            Self::Show(which) => {
                let (api, path) = which.find()?;
                changed(api.get(&path)?)
            }
            Self::Entries(which) => {
                let (api, path) = which.find()?;
                let items = all(&api, &format!("{path}/entries"))?;
                let text = items.iter().map(entry_line).collect::<Vec<_>>().join("\n");
                Ok(Output::new(json!({ "items": items, "next": null }), text))
            }
            Self::Freeze(Reasoned { which, reason }) => {
                which.post("freeze", &json!({ "reason": reason }))
            }
            Self::Unfreeze(which) => which.post("unfreeze", &json!({})),
            Self::Overdraft(Overdraft { which, overdraft }) => {
                which.post("overdraft", &json!({ "overdraft": overdraft }))
            }
            Self::Close(Reasoned { which, reason }) => {
                which.post("close", &json!({ "reason": reason }))
            }
            Self::Post(post) => post.ask(),
            Self::Ledger { client } => {
                let ledger: Value = client.api()?.get("/v1/ledger")?;
                let text = ledger_text(&ledger);
                let refused = ledger["balanced"] != true;
                Ok(Output { refused, ..Output::new(ledger, text) })
            }
        }
    }
}

impl Open {
    fn ask(self) -> Result<Output, Failure> {
        let mut body = json!({
            "identification": self.account,
            "holder": self.holder,
            "currency": self.currency,
            "kind": match self.kind {
                Kind::Customer => "customer",
                Kind::External => "external",
            },
        });
        if let Some(overdraft) = self.overdraft {
            body["overdraft"] = json!(overdraft);
        }
        changed(self.client.api()?.post("/v1/accounts", &body)?)
    }
}

impl Which {
    /// The API, and the account's path in it.
    fn find(&self) -> Result<(Api, String), Failure> {
        let api = self.client.api()?;
        let id = account_id(&api, &self.account)?;
        Ok((api, format!("/v1/accounts/{id}")))
    }

    fn post(&self, step: &str, body: &Value) -> Result<Output, Failure> {
        let (api, path) = self.find()?;
        changed(api.post(&format!("{path}/{step}"), body)?)
    }
}

/// The id of an account that is named by id or number.
pub(crate) fn account_id(api: &Api, named: &str) -> Result<String, Failure> {
    if named.starts_with("acc_") {
        return Ok(encoded(named));
    }
    let found: Value = api.get(&format!("/v1/accounts?identification={}", encoded(named)))?;
    let id = found["items"][0]["id"].as_str();
    let absent = || Failure::check("not-found", "there is no account with this number");
    Ok(id.ok_or_else(absent)?.to_owned())
}

impl Post {
    fn ask(self) -> Result<Output, Failure> {
        let body = json!({
            "reference": self.reference,
            "debtorAccount": { "identification": self.from },
            "creditorAccount": { "identification": self.to },
            "amount": { "amount": self.amount, "currency": self.currency },
        });
        let posting = self.once.post(&self.client.api()?, "/v1/postings", &body)?;
        let text = posting_line(&posting);
        Ok(Output::new(posting, text))
    }
}

fn changed(account: Value) -> Result<Output, Failure> {
    let text = line(&account);
    Ok(Output::new(account, text))
}

fn line(account: &Value) -> String {
    let mut line = format!(
        "{}  {}  {}  {}  {}",
        shown(account, "id"),
        shown(account, "identification"),
        shown(account, "status"),
        money(&account["balance"]),
        shown(account, "holder"),
    );
    if let Some(reason) = account["statusReason"].as_str() {
        line += &format!("  ({reason})");
    }
    line
}

fn entry_line(entry: &Value) -> String {
    format!(
        "{:>6}  {}  {:>16}  {:>16}  {:<8}  {}  {}",
        entry["number"].to_string(),
        shown(entry, "at"),
        money(&entry["amount"]),
        money(&entry["balance"]),
        shown(entry, "kind"),
        shown(&entry["otherAccount"], "identification"),
        shown(entry, "reference"),
    )
}

/// A posting on one line.
pub(crate) fn posting_line(posting: &Value) -> String {
    format!(
        "{}  {}  {}  {} -> {}",
        shown(posting, "id"),
        shown(posting, "kind"),
        money(&posting["amount"]),
        shown(posting, "debitAccountId"),
        shown(posting, "creditAccountId"),
    )
}

fn ledger_text(ledger: &Value) -> String {
    let state = if ledger["balanced"] == true { "balanced" } else { "NOT BALANCED" };
    let mut lines = vec![state.to_owned()];
    for row in ledger["currencies"].as_array().into_iter().flatten() {
        lines.push(format!(
            "  {}  {} accounts  debit {}  credit {}",
            shown(row, "currency"),
            row["accounts"],
            shown(row, "debit"),
            shown(row, "credit"),
        ));
    }
    lines.join("\n")
}
