use std::net::IpAddr;

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

/// Waits for SIGINT or SIGTERM.
pub(crate) async fn stopped() -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::environment("signals", error.to_string());
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
