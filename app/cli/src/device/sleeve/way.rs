//! How a sleeve reaches its manager (A9).

use clap::Args;
use countersign_device::Way;

/// Over the same network, or through the server.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct WayArgs {
    /// The manager is in the same network, and listens here.
    #[arg(long, value_name = "HOST:PORT")]
    direct: Option<String>,
    /// Through the relay of the server, whose device gateway is here. It forwards what it cannot
    /// read.
    #[arg(long, value_name = "HOST:PORT")]
    relay: Option<String>,
}

impl WayArgs {
    /// The way that was given.
    pub(super) fn way(&self) -> Way {
        match (&self.direct, &self.relay) {
            (Some(at), _) => Way::Direct(at.clone()),
            // One of them is there: clap's group wants it.
            (None, relay) => Way::Relay(relay.clone().unwrap_or_default()),
        }
    }

    /// Its name for programs.
    pub(super) const fn name(&self) -> &'static str {
        if self.direct.is_some() { "direct" } else { "relay" }
    }
}
