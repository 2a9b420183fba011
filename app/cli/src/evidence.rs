//! `evidence`: what proves how a payment came about, checked without any server.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use countersign_payment::evidence::{self, Check, Report};
use countersign_payment::{ConfirmationRequest, State};
use serde_json::{Value, json};

use crate::device::read_file;
use crate::failure::Failure;
use crate::output::Output;

/// Largest evidence that is read, in bytes.
const EVIDENCE_MAX: u64 = 4 * 1024 * 1024;

/// Evidence of payments.
#[derive(Subcommand)]
pub(crate) enum EvidenceCommand {
    /// Check a payment's evidence offline: the bytes that were signed, the signature, the device's
    /// certificate up to the root, the states, the postings, the receipt.
    ///
    /// Example: countersign evidence verify evidence.json --root root.pem
    Verify(Verify),
}

/// Check evidence.
#[derive(Args)]
pub(crate) struct Verify {
    /// The file that `countersign payment evidence --out` wrote.
    file: PathBuf,
    /// The root that is trusted, PEM (countersign ca export root): not one out of the evidence.
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
}

impl EvidenceCommand {
    pub(crate) fn run(self) -> Result<Output, Failure> {
        match self {
            Self::Verify(verify) => verify.run(),
        }
    }
}

impl Verify {
    fn run(self) -> Result<Output, Failure> {
        let root = root_der(&self.root)?;
        let bundle = bounded(&self.file)?;
        Ok(told(&evidence::verify(&bundle, &root)))
    }
}

/// The one certificate in a PEM file.
fn root_der(path: &Path) -> Result<Vec<u8>, Failure> {
    let text = read_file(path)?;
    let refused = || {
        let detail = format!("{} is not one certificate in PEM", path.display());
        Failure::usage("root-file", detail)
    };
    let certificate = pem::parse(text).map_err(|_| refused())?;
    if certificate.tag() != "CERTIFICATE" {
        return Err(refused());
    }
    Ok(certificate.into_contents())
}

fn bounded(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = File::open(path)
        .and_then(|file| file.take(EVIDENCE_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::file(path, &error))?;
    if read as u64 > EVIDENCE_MAX {
        let detail = format!("{} is longer than {EVIDENCE_MAX} bytes", path.display());
        return Err(Failure::check("evidence-too-long", detail));
    }
    Ok(bytes)
}

fn told(report: &Report) -> Output {
    let mut lines: Vec<String> = report.checks.iter().map(line).collect();
    let shown = report.request.iter().flat_map(ConfirmationRequest::lines);
    lines.extend(shown.map(|line| format!("  {:<8}  {}", line.label, line.text)));
    if let Some(state) = report.state {
        lines.push(format!("  State     {}", state.name()));
    }
    if report.rests_on_server {
        let why = "  The answer can be checked by the server alone: OCRA, or a joint password";
        lines.push(why.to_owned());
    }
    let bad = report.checks.iter().find(|check| !check.ok);
    lines.push(match bad {
        None if report.is_good() => "ok: the evidence holds".to_owned(),
        None => "BAD: nothing was checked".to_owned(),
        Some(bad) => format!("BAD: {}: {}", bad.name, bad.detail),
    });
    let checks: Vec<Value> = report
        .checks
        .iter()
        .map(|check| json!({ "name": check.name, "ok": check.ok, "detail": check.detail }))
        .collect();
    let confirmed: Vec<Value> = report
        .request
        .iter()
        .flat_map(ConfirmationRequest::lines)
        .map(|line| json!({ "label": line.label, "text": line.text }))
        .collect();
    let json = json!({
        "ok": report.is_good(),
        "failed": report.failed().collect::<Vec<_>>(),
        "state": report.state.map(State::name),
        "confirmed": confirmed,
        "serverId": report.server_id,
        "restsOnServer": report.rests_on_server,
        "checks": checks,
    });
    Output { refused: !report.is_good(), ..Output::new(json, lines.join("\n")) }
}

fn line(check: &Check) -> String {
    let state = if check.ok { "ok " } else { "BAD" };
    format!("  {state}  {:<24}  {}", check.name, check.detail)
}
