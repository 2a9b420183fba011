//! `sam hosts`, `sam block`, `sam unblock`, `sam revoke`: SAM hosts as operators see them.

use clap::Args;
use countersign_device::Api;
use serde_json::{Value, json};

use crate::device::Client;
use crate::failure::Failure;
use crate::output::Output;
use crate::reader::{all, shown};

/// Which SAM host.
#[derive(Args)]
pub(crate) struct Which {
    /// The host's serial number.
    #[arg(long)]
    serial: String,
    #[command(flatten)]
    client: Client,
}

/// Which SAM host, and why.
#[derive(Args)]
pub(crate) struct Reasoned {
    #[command(flatten)]
    which: Which,
    /// Why: 1 to 200 bytes.
    #[arg(long)]
    reason: String,
}

pub(super) async fn list(client: Client) -> Result<Output, Failure> {
    let items = client.with(|api| all(api, "/v1/sam-hosts")).await?;
    let text = items.iter().map(line).collect::<Vec<_>>().join("\n");
    Ok(Output::new(json!({"items": items, "next": null}), text))
}

impl Which {
    pub(super) async fn unblock(self) -> Result<Output, Failure> {
        self.change("unblock", json!({})).await
    }

    async fn change(self, step: &'static str, body: Value) -> Result<Output, Failure> {
        let Self { serial, client } = self;
        let changed = client.with(move |api| {
            let id = id_of(api, &serial)?;
            Ok::<Value, Failure>(api.post(&format!("/v1/sam-hosts/{id}/{step}"), &body)?)
        });
        let host = changed.await?;
        let text = line(&host);
        Ok(Output::new(host, text))
    }
}

impl Reasoned {
    pub(super) async fn run(self, step: &'static str) -> Result<Output, Failure> {
        let body = json!({ "reason": self.reason });
        self.which.change(step, body).await
    }
}

/// Hosts are few: the list is searched.
fn id_of(api: &Api, serial: &str) -> Result<String, Failure> {
    let hosts = all(api, "/v1/sam-hosts")?;
    let found = hosts.iter().find(|host| host["serial"] == serial);
    let id = found.and_then(|host| host["id"].as_str()).map(str::to_owned);
    id.ok_or_else(|| Failure::check("not-found", "there is no SAM host with this serial"))
}

fn line(host: &Value) -> String {
    let state = if host["blocked"] == true { "blocked" } else { "enrolled" };
    let certificate = host["certificateNumber"].as_str().unwrap_or("revoked");
    let reason = host["blockReason"].as_str().map(|reason| format!("  ({reason})"));
    format!(
        "{}  {}  {state}  certificate {certificate}{}",
        shown(host, "id"),
        shown(host, "serial"),
        reason.unwrap_or_default()
    )
}
