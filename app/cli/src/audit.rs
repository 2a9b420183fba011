use clap::Subcommand;
use countersign_server::read_checkpoints;
use countersign_store::AuditRow;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::failure::Failure;
use crate::local::Local;
use crate::output::Output;

/// The audit.
#[derive(Subcommand)]
pub(crate) enum Audit {
    /// Check every row, link and checkpoint; name the first bad row.
    ///
    /// Example: countersign audit verify --data ./countersign-data
    Verify {
        #[command(flatten)]
        local: Local,
    },
    /// Show what an incident id (inc_…) stands for.
    ///
    /// Example: countersign audit show inc_0193…
    Show {
        #[command(flatten)]
        local: Local,
        /// The incident id that the peer was given.
        id: String,
    },
}

impl Audit {
    pub(crate) async fn run(self) -> Result<Output, Failure> {
        match self {
            Self::Verify { local } => verify(&local).await,
            Self::Show { local, id } => show(&local, &id).await,
        }
    }
}

async fn verify(local: &Local) -> Result<Output, Failure> {
    let (data, service) = local.service().await?;
    let path = data.checkpoints_path();
    // The file first: the chain may grow meanwhile.
    let file = match read_checkpoints(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            let detail = format!("{}: {error}", path.display());
            return Err(Failure::check("audit-checkpoints", detail));
        }
        Err(error) => return Err(Failure::file(&path, &error)),
    };
    let report = service.verify_audit(&file).await?;
    let counts = format!(
        "{} rows chained and verified, {} rows at the end not chained yet, {} checkpoints in the \
         store, {} in the file",
        report.chained,
        report.unchained,
        report.checkpoints,
        file.len()
    );
    let mut json = json!({
        "ok": report.first_bad.is_none(),
        "chained": report.chained,
        "unchained": report.unchained,
        "checkpoints": report.checkpoints,
        "fileCheckpoints": file.len(),
        "firstBad": null,
    });
    let Some(bad) = report.first_bad else {
        return Ok(Output::new(json, format!("ok: {counts}")));
    };
    json["firstBad"] = json!({
        "position": bad.position,
        "row": bad.row_id,
        "fault": bad.fault.to_string(),
    });
    let row = bad.row_id.map_or_else(String::new, |id| format!(" (row {id})"));
    let text = format!("BAD at position {}{row}: {}\n{counts}", bad.position, bad.fault);
    Ok(Output { refused: true, ..Output::new(json, text) })
}

async fn show(local: &Local, id: &str) -> Result<Output, Failure> {
    let (_data, service) = local.service().await?;
    let rows = service.incident(id).await?;
    if rows.is_empty() {
        return Err(Failure::check("not-found", format!("there is no incident {id}")));
    }
    let text = rows.iter().map(row_text).collect::<Vec<_>>().join("\n");
    let items: Vec<Value> = rows.iter().map(row_json).collect();
    Ok(Output::new(json!({"items": items, "next": null}), text))
}

fn time_text(row: &AuditRow) -> String {
    let nanos = i128::from(row.entry.at.as_millis()) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_else(|| row.entry.at.to_string())
}

fn row_text(row: &AuditRow) -> String {
    let entry = &row.entry;
    let check = entry.check.as_deref().unwrap_or("-");
    format!(
        "row {}  {}  {} by {} on {}\n  {}: {check}\n  {}",
        row.id,
        time_text(row),
        entry.action,
        entry.actor,
        entry.subject,
        entry.outcome.name(),
        entry.detail
    )
}

fn row_json(row: &AuditRow) -> Value {
    let entry = &row.entry;
    let detail: Value = serde_json::from_str(&entry.detail).unwrap_or_else(|_| json!(entry.detail));
    json!({
        "row": row.id,
        "position": row.position,
        "at": time_text(row),
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "outcome": entry.outcome.name(),
        "check": entry.check,
        "incident": entry.incident,
        "detail": detail,
    })
}
