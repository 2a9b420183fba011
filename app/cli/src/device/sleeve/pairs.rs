//! The managers that a sleeve is paired with.

use clap::Args;
use countersign_device::{PairedManager, SleeveDir};
use serde_json::{Value, json};

use super::Which;
use crate::device::wallet::time;
use crate::failure::Failure;
use crate::output::Output;

/// Forget a manager.
#[derive(Args)]
pub(crate) struct Forget {
    #[command(flatten)]
    which: Which,
    /// Its serial number.
    manager: String,
}

/// What the sleeve is.
pub(super) fn show(which: &Which) -> Result<Output, Failure> {
    let dir = SleeveDir::open(&which.sleeve)?;
    let number = dir.certificate_number()?;
    let managers = dir.managers()?.len();
    let text = format!(
        "Sleeve      {}\nCertificate {number}\nManagers    {managers}\nDirectory   {}",
        dir.serial(),
        dir.path().display()
    );
    let json = json!({
        "serial": dir.serial(),
        "certificateNumber": number.to_string(),
        "managers": managers,
        "sleeve": dir.path(),
    });
    Ok(Output::new(json, text))
}

/// The managers.
pub(super) fn managers(which: &Which) -> Result<Output, Failure> {
    let dir = SleeveDir::open(&which.sleeve)?;
    let managers = dir.managers()?;
    let json = json!({ "managers": managers.iter().map(manager).collect::<Vec<_>>() });
    let line = |paired: &PairedManager| {
        let pending = if paired.pending { ", not confirmed yet" } else { "" };
        let (id, number, since) = (&paired.id, &paired.number, time(paired.paired_at));
        format!("{id}  certificate {number}, since {since}{pending}")
    };
    let lines: Vec<_> = managers.iter().map(line).collect();
    let text = if lines.is_empty() { "Paired with nobody.".to_owned() } else { lines.join("\n") };
    Ok(Output::new(json, text))
}

fn manager(paired: &PairedManager) -> Value {
    json!({
        "serial": paired.id,
        "certificateNumber": paired.number.to_string(),
        "suite": paired.suite.name(),
        "pairedAt": time(paired.paired_at),
        "pending": paired.pending,
    })
}

impl Forget {
    pub(super) fn run(self) -> Result<Output, Failure> {
        let mut dir = SleeveDir::open(&self.which.sleeve)?;
        if !dir.forget(&self.manager)? {
            let detail = format!("the sleeve is not paired with {}", self.manager);
            return Err(Failure::check("manager-unknown", detail));
        }
        let text = format!("The sleeve does not know the manager {} any more.", self.manager);
        Ok(Output::new(json!({ "forgotten": self.manager }), text))
    }
}
