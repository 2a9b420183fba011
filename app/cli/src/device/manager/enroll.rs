//! Enrolment of a manager.

use clap::Args;
use countersign_device::DeviceKind;

use super::Which;
use crate::device::Client;
use crate::device::wallet::enrolled;
use crate::failure::Failure;
use crate::output::Output;

/// Make a manager.
#[derive(Args)]
pub(crate) struct Enroll {
    #[command(flatten)]
    which: Which,
    /// Its serial number, which sleeves show when they pair with it.
    #[arg(long)]
    serial: String,
    #[command(flatten)]
    client: Client,
}

impl Enroll {
    pub(super) fn run(self) -> Result<Output, Failure> {
        enrolled(DeviceKind::Manager, &self.which.manager, &self.serial, &self.client)
    }
}
