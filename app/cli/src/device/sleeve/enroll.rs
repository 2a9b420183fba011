//! Enrolment of a sleeve.

use clap::Args;
use countersign_device::DeviceKind;

use super::Which;
use crate::device::Client;
use crate::device::wallet::enrolled;
use crate::failure::Failure;
use crate::output::Output;

/// Make a sleeve.
#[derive(Args)]
pub(crate) struct Enroll {
    #[command(flatten)]
    which: Which,
    /// Its serial number.
    #[arg(long)]
    serial: String,
    #[command(flatten)]
    client: Client,
}

impl Enroll {
    pub(super) fn run(self) -> Result<Output, Failure> {
        enrolled(DeviceKind::Sleeve, &self.which.sleeve, &self.serial, &self.client)
    }
}
