//! `inject` and `run`: which keys go into which terminals, and what came of it (E5–E8).

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::approval::Approval;
use crate::device::{Client, read_file};
use crate::failure::Failure;
use crate::key::found;
use crate::output::Output;
use crate::reader::{all, all_where, encoded, shown};
use crate::rki::gated;
use crate::terminal::terminal_id;

/// Injections of keys into terminals.
#[derive(Subcommand)]
pub(crate) enum InjectCommand {
    /// Assign a key to a slot of terminals, or of a run's inventory; others must agree first.
    ///
    /// Example: countersign inject assign --key tmk --slot 0 --terminal POS-1 --terminal POS-2
    Assign(Assign),
    /// List injections, newest first.
    ///
    /// Example: countersign inject list --terminal POS-1
    List(List),
    /// Take back an injection that is not installed yet.
    ///
    /// Example: countersign inject cancel inj_01890000-0000-7000-8000-000000000000
    Cancel(Cancel),
    /// List the keys of a terminal as the server knows them.
    ///
    /// Example: countersign inject keys POS-1
    Keys(Keys),
}

/// Assign a key.
#[derive(Args)]
pub(crate) struct Assign {
    #[command(flatten)]
    client: Client,
    /// The key's id (key_…) or name.
    #[arg(long)]
    key: String,
    /// The slot, 0 to 31.
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=31))]
    slot: u8,
    /// A terminal's id (trm_…) or serial number; may be given several times.
    #[arg(long = "terminal", value_name = "TERMINAL", required_unless_present = "run")]
    terminals: Vec<String>,
    /// A run (run_…), in the place of terminals.
    #[arg(long, value_name = "ID", conflicts_with = "terminals")]
    run: Option<String>,
    #[command(flatten)]
    approval: Approval,
}

/// List injections.
#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    client: Client,
    /// Only those into this terminal: its id or serial number.
    #[arg(long)]
    terminal: Option<String>,
    /// Only those of this key: its id or name.
    #[arg(long)]
    key: Option<String>,
    /// Only those of this run.
    #[arg(long)]
    run: Option<String>,
    /// Only those in this state.
    #[arg(long)]
    state: Option<String>,
}

/// Take an injection back.
#[derive(Args)]
pub(crate) struct Cancel {
    #[command(flatten)]
    client: Client,
    /// The injection, inj_….
    injection: String,
}

/// The keys of a terminal.
#[derive(Args)]
pub(crate) struct Keys {
    #[command(flatten)]
    client: Client,
    /// The terminal's id (trm_…) or serial number.
    terminal: String,
}

impl InjectCommand {
    pub(crate) async fn run(self) -> Result<Output, Failure> {
        // The API client blocks.
        let working = tokio::task::spawn_blocking(move || self.ask());
        working.await.map_err(|error| Failure::environment("task", error.to_string()))?
    }

    fn ask(self) -> Result<Output, Failure> {
        match self {
            Self::Assign(assign) => assign.ask(),
            Self::List(list) => list.ask(),
            Self::Cancel(Cancel { client, injection }) => {
                let path = format!("/v1/injections/{}/cancel", encoded(&injection));
                let cancelled: Value = client.api()?.post(&path, &json!({}))?;
                let text = line(&cancelled);
                Ok(Output::new(cancelled, text))
            }
            Self::Keys(Keys { client, terminal }) => {
                let api = client.api()?;
                let id = terminal_id(&api, &terminal)?;
                let keys: Value = api.get(&format!("/v1/terminals/{id}/keys"))?;
                let text = lines(keys["items"].as_array().map_or(&[][..], Vec::as_slice));
                Ok(Output::new(keys, text))
            }
        }
    }
}

impl Assign {
    fn ask(self) -> Result<Output, Failure> {
        let api = self.client.api()?;
        let mut body = json!({ "keyId": found(&api, "key", &self.key)?, "slot": self.slot });
        match &self.run {
            Some(run) => body["run"] = json!(run),
            None => body["terminals"] = json!(self.terminals),
        }
        gated(&api, "/v1/injections", body, &self.approval, |assigned| {
            format!("Assigned; the key waits for {} terminal(s)", assigned["terminals"])
        })
    }
}

impl List {
    fn ask(self) -> Result<Output, Failure> {
        let api = self.client.api()?;
        let mut query = String::new();
        if let Some(terminal) = &self.terminal {
            query += &format!("&terminalId={}", terminal_id(&api, terminal)?);
        }
        if let Some(key) = &self.key {
            query += &format!("&keyId={}", encoded(&found(&api, "key", key)?));
        }
        for (name, value) in [("runId", &self.run), ("state", &self.state)] {
            if let Some(value) = value {
                query += &format!("&{name}={}", encoded(value));
            }
        }
        let items = all_where(&api, "/v1/injections", &query)?;
        let text = lines(&items);
        Ok(Output::new(json!({ "items": items, "next": null }), text))
    }
}

fn lines(items: &[Value]) -> String {
    items.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn line(injection: &Value) -> String {
    let mut line = format!(
        "{}  {}  slot {:<2}  {}  KCV {}  {}",
        shown(injection, "id"),
        shown(injection, "terminalId"),
        injection["slot"],
        shown(injection, "keyId"),
        shown(injection, "kcv"),
        shown(injection, "state"),
    );
    if let Some(check) = injection["failedCheck"].as_str() {
        line += &format!("  {check} ({})", shown(injection, "incident"));
    }
    line
}

/// Injection runs over an inventory.
#[derive(Subcommand)]
pub(crate) enum RunCommand {
    /// Begin a run over an inventory of terminals, which is fixed from then on.
    ///
    /// Example: countersign run begin "batch 7" --file serials.txt
    Begin(Begin),
    /// Show a run against its inventory: installed, missing, failed, unexpected.
    ///
    /// Example: countersign run show run_01890000-0000-7000-8000-000000000000
    Show(Which),
    /// Close a run; what still waits is cancelled.
    ///
    /// Example: countersign run close run_01890000-0000-7000-8000-000000000000
    Close(Which),
    /// List the runs.
    ///
    /// Example: countersign run list --server https://localhost:8443 --ca ca.pem
    /// --token-file admin.token
    List {
        #[command(flatten)]
        client: Client,
    },
}

/// Begin a run.
#[derive(Args)]
pub(crate) struct Begin {
    #[command(flatten)]
    client: Client,
    /// Its name among people, unique.
    label: String,
    /// A terminal's serial number; may be given several times.
    #[arg(long = "serial", value_name = "SERIAL", required_unless_present = "file")]
    serials: Vec<String>,
    /// File with a serial number on each line, beside those given with --serial.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Which run.
#[derive(Args)]
pub(crate) struct Which {
    #[command(flatten)]
    client: Client,
    /// The run, run_….
    run: String,
}

impl RunCommand {
    pub(crate) async fn run(self) -> Result<Output, Failure> {
        let working = tokio::task::spawn_blocking(move || self.ask());
        working.await.map_err(|error| Failure::environment("task", error.to_string()))?
    }

    fn ask(self) -> Result<Output, Failure> {
        match self {
            Self::Begin(begin) => {
                let mut serials = begin.serials;
                if let Some(file) = &begin.file {
                    let text = read_file(file)?;
                    let named = text.lines().map(str::trim).filter(|line| !line.is_empty());
                    serials.extend(named.map(str::to_owned));
                }
                let body = json!({ "label": begin.label, "serials": serials });
                report(begin.client.api()?.post("/v1/runs", &body)?)
            }
            Self::Show(Which { client, run }) => {
                report(client.api()?.get(&format!("/v1/runs/{}", encoded(&run)))?)
            }
            Self::Close(Which { client, run }) => {
                let path = format!("/v1/runs/{}/close", encoded(&run));
                report(client.api()?.post(&path, &json!({}))?)
            }
            Self::List { client } => {
                let items = all(&client.api()?, "/v1/runs")?;
                let text: Vec<_> = items.iter().map(run_line).collect();
                let text = text.join("\n");
                Ok(Output::new(json!({ "items": items, "next": null }), text))
            }
        }
    }
}

fn run_line(run: &Value) -> String {
    ["id", "state", "begunAt", "label"].map(|field| shown(run, field)).join("  ")
}

fn report(report: Value) -> Result<Output, Failure> {
    let tally = &report["tally"];
    let mut lines = vec![
        run_line(&report["run"]),
        format!(
            "  installed {}  missing {}  failed {}  unexpected {}",
            tally["installed"], tally["missing"], tally["failed"], tally["unexpected"]
        ),
    ];
    for key in report["keys"].as_array().into_iter().flatten() {
        lines.push(format!("  slot {:<2}  {}", key["slot"], shown(key, "keyId")));
    }
    for terminal in report["terminals"].as_array().into_iter().flatten() {
        let mut line = format!("  {}  {}", shown(terminal, "serial"), shown(terminal, "state"));
        if let Some(check) = terminal["failedCheck"].as_str() {
            line += &format!("  ({check})");
        }
        lines.push(line);
    }
    for stranger in report["unexpected"].as_array().into_iter().flatten() {
        let what = stranger["injection"].as_str().unwrap_or("asked for keys");
        lines.push(format!("  {}  UNEXPECTED: {what}", shown(stranger, "serial")));
    }
    Ok(Output::new(report, lines.join("\n")))
}
