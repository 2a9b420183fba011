//! Pairing (A1): the holder compares what the sleeve shows, and says yes or no.

use std::io::{self, BufRead};

use clap::Args;
use countersign_device::Shown;
use serde_json::json;

use super::way::WayArgs;
use super::{Which, opened};
use crate::failure::Failure;
use crate::output::{Output, print_error};

/// Pair with a manager.
#[derive(Args)]
pub(crate) struct Pair {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    way: WayArgs,
    /// The manager's serial number; it can be left out in its own network.
    #[arg(long, value_name = "SERIAL", required_unless_present = "direct")]
    manager: Option<String>,
}

impl Pair {
    pub(super) async fn run(self) -> Result<Output, Failure> {
        let sleeve = opened(&self.which)?;
        let paired = sleeve.pair(&self.way.way(), self.manager.as_deref(), asked).await?;
        let text = format!("Paired with the manager {} (certificate {})", paired.id, paired.number);
        let json = json!({
            "manager": paired.id,
            "certificateNumber": paired.number.to_string(),
            "suite": paired.suite.name(),
            "pending": paired.pending,
        });
        Ok(Output::new(json, text))
    }
}

/// Asks the holder; who says nothing says no.
fn asked(shown: Shown) -> bool {
    print_error(&format!(
        "The manager shows that it is {}, certificate {}.\nCompare this with its own screen, or \
         its label. Is it the same, and do you pair with it? (yes/no)",
        shown.manager, shown.number
    ));
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.is_ok() && matches!(line.trim(), "yes" | "y")
}
