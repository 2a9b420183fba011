//! `terminal`: the allow-list of POS terminals, and what operators do with each.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use countersign_device::Api;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::approval::Approval;
use crate::device::{Client, read_file};
use crate::failure::Failure;
use crate::output::Output;
use crate::reader::{all, encoded, shown};
use crate::rki::gated;

/// Most terminals of one inventory file.
const INVENTORY_MAX: usize = 1000;

/// POS terminals, as the server's operators see them.
#[derive(Subcommand)]
pub(crate) enum TerminalCommand {
    /// Let a terminal enrol, or all of an inventory file; prints their one-time codes.
    ///
    /// Example: countersign terminal allow --serial POS-1 --model M2 --owner "Shop 7"
    Allow(Allow),
    /// Give a terminal another one-time code; the one before is void.
    ///
    /// Example: countersign terminal code POS-1
    Code(Which),
    /// List the terminals.
    ///
    /// Example: countersign terminal list --server https://localhost:8443 --ca ca.pem
    /// --token-file admin.token
    List {
        #[command(flatten)]
        client: Client,
    },
    /// Show a terminal: state, certificates, bound KDH.
    ///
    /// Example: countersign terminal show POS-1
    Show(Which),
    /// Block a terminal: it is refused until it is unblocked.
    ///
    /// Example: countersign terminal block POS-1 --reason "reported stolen"
    Block(Reasoned),
    /// Let a blocked terminal in again.
    ///
    /// Example: countersign terminal unblock POS-1
    Unblock(Which),
    /// Revoke a terminal's certificates: it must enrol again, with a new code.
    ///
    /// Example: countersign terminal revoke POS-1 --reason "key lost"
    Revoke(Reasoned),
    /// Unbind a terminal from its KDH at its next contact; others must agree first.
    ///
    /// Example: countersign terminal unbind POS-1
    Unbind(Unbind),
}

/// Let terminals enrol.
#[derive(Args)]
pub(crate) struct Allow {
    #[command(flatten)]
    client: Client,
    /// The terminal's serial number.
    #[arg(long, required_unless_present = "file", conflicts_with = "file")]
    serial: Option<String>,
    /// Its model.
    #[arg(long, default_value = "")]
    model: String,
    /// Whose it is.
    #[arg(long, default_value = "")]
    owner: String,
    /// CSV file with a column serial and, if wanted, model and owner; at most 1000 terminals.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Which terminal.
#[derive(Args)]
pub(crate) struct Which {
    #[command(flatten)]
    client: Client,
    /// The terminal's id (trm_…) or serial number.
    terminal: String,
}

/// Which terminal, and why.
#[derive(Args)]
pub(crate) struct Reasoned {
    #[command(flatten)]
    which: Which,
    /// Why: 1 to 200 bytes.
    #[arg(long)]
    reason: String,
}

/// Unbind a terminal.
#[derive(Args)]
pub(crate) struct Unbind {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    approval: Approval,
}

/// A line of an inventory.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Inventoried {
    serial: String,
    #[serde(default)]
    model: String,
    #[serde(default)]
    owner: String,
}

impl TerminalCommand {
    pub(crate) async fn run(self) -> Result<Output, Failure> {
        // The API client blocks.
        let working = tokio::task::spawn_blocking(move || self.ask());
        working.await.map_err(|error| Failure::environment("task", error.to_string()))?
    }

    fn ask(self) -> Result<Output, Failure> {
        match self {
            Self::Allow(allow) => allow.ask(),
            Self::Code(which) => Ok(allowed(which.post("code", &json!({}))?)),
            Self::List { client } => {
                let items = all(&client.api()?, "/v1/terminals")?;
                let text = items.iter().map(line).collect::<Vec<_>>().join("\n");
                Ok(Output::new(json!({ "items": items, "next": null }), text))
            }
            Self::Show(which) => {
                let (api, path) = which.find()?;
                let terminal: Value = api.get(&path)?;
                let text = whole(&terminal);
                Ok(Output::new(terminal, text))
            }
            Self::Block(Reasoned { which, reason }) => {
                Ok(changed(which.post("block", &json!({ "reason": reason }))?))
            }
            Self::Unblock(which) => Ok(changed(which.post("unblock", &json!({}))?)),
            Self::Revoke(Reasoned { which, reason }) => {
                Ok(changed(which.post("revoke", &json!({ "reason": reason }))?))
            }
            Self::Unbind(Unbind { which, approval }) => {
                let (api, path) = which.find()?;
                gated(&api, &format!("{path}/unbind"), json!({}), &approval, line)
            }
        }
    }
}

impl Which {
    /// The API, and the terminal's path in it.
    fn find(&self) -> Result<(Api, String), Failure> {
        let api = self.client.api()?;
        let id = terminal_id(&api, &self.terminal)?;
        Ok((api, format!("/v1/terminals/{id}")))
    }

    fn post(&self, step: &str, body: &Value) -> Result<Value, Failure> {
        let (api, path) = self.find()?;
        Ok(api.post(&format!("{path}/{step}"), body)?)
    }
}

/// The id of a terminal that is named by id or serial number.
pub(crate) fn terminal_id(api: &Api, named: &str) -> Result<String, Failure> {
    if named.starts_with("trm_") {
        return Ok(encoded(named));
    }
    let found: Value = api.get(&format!("/v1/terminals?serial={}", encoded(named)))?;
    let id = found["items"][0]["id"].as_str();
    let absent = || Failure::check("not-found", "there is no terminal with this serial");
    Ok(id.ok_or_else(absent)?.to_owned())
}

impl Allow {
    fn ask(self) -> Result<Output, Failure> {
        let api = self.client.api()?;
        if let Some(serial) = self.serial {
            let body = json!({ "serial": serial, "model": self.model, "owner": self.owner });
            return Ok(allowed(api.post("/v1/terminals", &body)?));
        }
        let file = self.file.unwrap_or_default();
        let inventory = inventory(&file)?;
        let mut done: Vec<Value> = Vec::with_capacity(inventory.len());
        for one in &inventory {
            let body = json!({ "serial": one.serial, "model": one.model, "owner": one.owner });
            match api.post::<Value>("/v1/terminals", &body) {
                Ok(answer) => done.push(answer),
                // Codes that were given out must not be lost with the failure.
                Err(error) => {
                    let mut failure = Failure::from(error);
                    failure.detail = format!("{}: {}", one.serial, failure.detail);
                    return Err(failure.after(json!({ "items": done })));
                }
            }
        }
        let text = done.iter().map(allowed_line).collect::<Vec<_>>().join("\n");
        Ok(Output::new(json!({ "items": done, "next": null }), text))
    }
}

/// The whole file is read and checked before the first terminal of it is allowed.
fn inventory(path: &Path) -> Result<Vec<Inventoried>, Failure> {
    let text = read_file(path)?;
    let refused =
        |detail: String| Failure::check("inventory", format!("{}: {detail}", path.display()));
    let mut rows = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let rows: Vec<Inventoried> = rows
        .deserialize()
        .take(INVENTORY_MAX + 1)
        .collect::<Result<_, _>>()
        .map_err(|error| refused(error.to_string()))?;
    if rows.is_empty() || rows.len() > INVENTORY_MAX {
        return Err(refused(format!("there are 1 to {INVENTORY_MAX} terminals in a file")));
    }
    let mut serials: Vec<&str> = rows.iter().map(|row| row.serial.as_str()).collect();
    serials.sort_unstable();
    if let Some([twice, _]) = serials.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(refused(format!("{twice} stands there twice")));
    }
    Ok(rows)
}

fn allowed(answer: Value) -> Output {
    let text = format!("{}\n  (shown once: keep it safe)", allowed_line(&answer));
    Output::new(answer, text)
}

fn allowed_line(answer: &Value) -> String {
    format!(
        "{}  {}  code {}  until {}",
        shown(&answer["terminal"], "id"),
        shown(&answer["terminal"], "serial"),
        shown(answer, "enrolmentCode"),
        shown(answer, "expiresAt")
    )
}

fn changed(terminal: Value) -> Output {
    let text = line(&terminal);
    Output::new(terminal, text)
}

fn line(terminal: &Value) -> String {
    let mut line = ["id", "serial", "state"].map(|field| shown(terminal, field)).join("  ");
    for field in ["model", "owner"] {
        if !shown(terminal, field).is_empty() {
            line += &format!("  {}", shown(terminal, field));
        }
    }
    if terminal["unbindAsked"] == true {
        line += "  to be unbound";
    }
    if let Some(reason) = terminal["blockReason"].as_str() {
        line += &format!("  ({reason})");
    }
    line
}

fn whole(terminal: &Value) -> String {
    let krd = &terminal["krdCertificate"];
    format!(
        "{}\n  channel certificate  {}\n  KRD certificate      {}  until {}\n  \
         bound to             {}",
        line(terminal),
        shown(terminal, "certificateNumber"),
        shown(krd, "serial"),
        shown(krd, "notAfter"),
        shown(terminal, "boundKdh")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inventory_is_taken_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("inventory.csv");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("written");
            inventory(&path)
        };
        let rows = read("serial, model ,owner\nP-1, M2 ,Shop\nP-2,,\n").expect("an inventory");
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].model.as_str(), rows[0].owner.as_str()), ("M2", "Shop"));
        assert_eq!(read("serial\nP-1\n").expect("serials alone").len(), 1);
        for bad in ["", "serial\n", "serial\nP-1\nP-1\n", "serie\nP-1\n", "serial,x\nP-1,2\n"] {
            let failure = read(bad).err().expect(bad);
            assert_eq!(failure.check, "inventory", "{bad}");
        }
    }
}
