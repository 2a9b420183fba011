//! What a manager's owner wants: `manager.toml`.

use std::path::PathBuf;

use clap::Args;
use countersign_device::{ManagerDir, ManagerSettings};
use serde_json::to_value;

use super::Which;
use crate::device::read_file;
use crate::failure::Failure;
use crate::output::Output;

/// Show the settings, or put others in their place.
#[derive(Args)]
pub(crate) struct ShowSettings {
    #[command(flatten)]
    which: Which,
    /// Check the settings in this file, and take them; TOML. A manager that serves takes them when
    /// it is started again.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

impl ShowSettings {
    pub(super) fn run(self) -> Result<Output, Failure> {
        let mut dir = ManagerDir::open(&self.which.manager)?;
        if let Some(from) = &self.from {
            dir.set_settings(ManagerSettings::parse(&read_file(from)?)?)?;
        }
        let failed = |detail: String| Failure::check("manager-settings", detail);
        let settings = dir.settings();
        let json = to_value(settings).map_err(|error| failed(error.to_string()))?;
        let text = toml::to_string(settings).map_err(|error| failed(error.to_string()))?;
        Ok(Output::new(json, text.trim_end()))
    }
}
