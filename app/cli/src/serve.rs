use std::net::IpAddr;
use std::sync::OnceLock;

use clap::Args;
use countersign_net::serial::BAUD;
use countersign_server::{GATEWAY_PORT, HTTPS_PORT, Sam, ServeOptions, Server};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;
use crate::local::Local;
use crate::output::{self, Output};

/// Run the server.
#[derive(Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    local: Local,
    /// Address to listen on; anything but loopback is reachable by others.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    listen: IpAddr,
    /// HTTPS port; 0 picks one.
    #[arg(long, value_name = "PORT", default_value_t = HTTPS_PORT)]
    https_port: u16,
    /// Device gateway's port; 0 picks one.
    #[arg(long, value_name = "PORT", default_value_t = GATEWAY_PORT)]
    gateway_port: u16,
    /// Serve plain HTTP instead of HTTPS; on loopback only.
    #[arg(long)]
    plain_http: bool,
    /// Serial port of a SAM module, beside those in config.toml; may be given several times.
    #[arg(long, value_name = "PATH")]
    sam: Vec<String>,
}

impl Serve {
    pub(crate) async fn run(self, json: bool) -> Result<Output, Failure> {
        let data = self.local.open()?;
        let passphrase = self.local.passphrase(&data)?;
        let options = ServeOptions {
            listen: self.listen,
            https_port: self.https_port,
            gateway_port: self.gateway_port,
            plain_http: self.plain_http,
            database: self.local.database,
            sams: self.sam.into_iter().map(|port| Sam { port, baud: BAUD }).collect(),
        };
        let server = Server::start(&data, &passphrase, &options).await?;
        let (url, gateway) = (server.url(), server.gateway().to_string());
        // Whoever starts a server learns where it listens, also under port 0.
        let datagrams = server.takes_datagrams();
        if json {
            let told = json!({"api": url, "gateway": gateway, "datagrams": datagrams});
            output::print(&told.to_string());
        } else {
            let carriers = if datagrams { "TCP and UDP" } else { "TCP" };
            output::print(&format!(
                "API             {url}\nDevice gateway  {gateway} ({carriers})"
            ));
        }
        stopped().await.map_err(Failure::late)?;
        server.stop().await;
        Ok(Output::none())
    }
}

/// Waits for SIGINT or SIGTERM; or for SIGHUP, of a terminal that was closed, unless whoever
/// started this program has it ignored (`nohup`).
pub(crate) async fn stopped() -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::environment("signals", error.to_string());
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    // Before this program listens to it, for then it is ignored no more.
    let is_ignored = HANGUP_IGNORED.get_or_init(|| {
        std::fs::read_to_string(OWN_STATUS).is_ok_and(|status| ignores_hangup(&status))
    });
    if *is_ignored {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        return Ok(());
    }
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

/// Whether this program was started with SIGHUP ignored.
static HANGUP_IGNORED: OnceLock<bool> = OnceLock::new();
/// Where Linux tells which signals a process ignores (proc(5)).
const OWN_STATUS: &str = "/proc/self/status";

/// Whether SIGHUP, the lowest bit, is among the signals that a process ignores.
fn ignores_hangup(status: &str) -> bool {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hangup_that_is_ignored_is_told_by_its_bit() {
        let status = |mask: &str| format!("Name:\tx\nSigBlk:\t01\nSigIgn:\t{mask}\nSigCgt:\t01\n");
        for (mask, is_ignored) in
            [("0000000000000001", true), ("0000000000001001", true), ("0000000000001000", false)]
        {
            assert_eq!(ignores_hangup(&status(mask)), is_ignored, "{mask}");
        }
        for other in ["", "SigIgn:", "SigIgn:\tx", "SigCgt:\t1"] {
            assert!(!ignores_hangup(other), "{other:?}");
        }
    }
}
