//! A manager's audit (A8).

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use countersign_crypto::UnixTime;
use countersign_device::{AUDIT_MAX, DeviceDir, DeviceKind, ManagerDir};
use serde_json::{Value, json};

use super::Which;
use crate::device::wallet::time;
use crate::failure::Failure;
use crate::output::Output;
use crate::reader::shown;

/// Rows that are shown if nobody says.
const SHOWN: usize = 50;
/// Where the rows are.
const FILE: &str = "audit.jsonl";

/// A manager's audit.
#[derive(Subcommand)]
pub(crate) enum Audit {
    /// Show the last rows of the audit, also of a manager that serves.
    ///
    /// It tells alarms from other logins: not with strangers beside you.
    ///
    /// Example: countersign device manager audit show --manager ./manager --last 20
    Show(Show),
    /// Check every row, and the manager's signature over the last one; name the first bad row.
    ///
    /// Example: countersign device manager audit verify --manager ./manager
    Verify(Verify),
}

/// Show rows.
#[derive(Args)]
pub(crate) struct Show {
    #[command(flatten)]
    which: Which,
    /// So many of the last rows.
    #[arg(long, value_name = "N", default_value_t = SHOWN)]
    last: usize,
}

/// Check rows.
#[derive(Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    which: Which,
    /// A copy of audit-head.json that was kept elsewhere: who cut off the end of the audit, and had
    /// the key to sign what is left, shows against it.
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,
}

impl Show {
    pub(super) fn run(self) -> Result<Output, Failure> {
        let dir = DeviceDir::open(&self.which.manager)?;
        if dir.settings.kind != DeviceKind::Manager {
            let detail = format!("{} is another device's", self.which.manager.display());
            return Err(Failure::check("device-kind", detail));
        }
        let path = self.which.manager.join(FILE);
        let mut text = String::new();
        // A row may begin below the bound and end above it.
        let read =
            File::open(&path).and_then(|file| file.take(2 * AUDIT_MAX).read_to_string(&mut text));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::file(&path, &error)),
            Ok(_) => {}
        }
        // A row that is being written has no end yet.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let all: Vec<_> = whole.lines().collect();
        let mut rows = Vec::new();
        for row in &all[all.len().saturating_sub(self.last)..] {
            let parsed: Value = serde_json::from_str(row).map_err(|_| {
                let detail = "a row does not parse: countersign device manager audit verify";
                Failure::check("audit-line", detail)
            })?;
            rows.push(parsed);
        }
        let text = rows.iter().map(line).collect::<Vec<_>>().join("\n");
        Ok(Output::new(json!({ "items": rows, "rows": all.len() }), text))
    }
}

impl Verify {
    pub(super) fn run(self) -> Result<Output, Failure> {
        let dir = ManagerDir::open(&self.which.manager)?;
        let report = dir.verify_audit(self.head.as_deref())?;
        let text = format!(
            "ok: {} rows signed and verified, {} rows at the end not signed yet",
            report.covered, report.uncovered
        );
        let json = json!({ "ok": true, "covered": report.covered, "uncovered": report.uncovered });
        Ok(Output::new(json, text))
    }
}

/// A row for people: number, time, event, and what else there is to it.
fn line(row: &Value) -> String {
    let (entry, number) = (&row["entry"], row["number"].as_u64().unwrap_or_default());
    let at = row["at"].as_u64().map(|at| time(UnixTime::from_millis(at))).unwrap_or_default();
    let mut line = format!("{number:>5}  {at}  {}", shown(entry, "event"));
    for name in ["sleeve", "session", "card", "aid", "ins", "amount", "currency", "sw", "outcome"] {
        match &entry[name] {
            Value::Null => {}
            Value::String(value) => line += &format!("  {name} {value}"),
            value => line += &format!("  {name} {value}"),
        }
    }
    if let Some(check) = entry["check"].as_str() {
        line += &format!("  [{check}]");
    }
    line
}
