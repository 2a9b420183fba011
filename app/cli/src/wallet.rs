//! `sleeve` and `manager`: sleeves and managers as the server's operators see them, and the alarms
//! that managers have raised (A).

use clap::{Args, Subcommand};
use countersign_device::Api;
use serde_json::{Value, json};

use crate::device::Client;
use crate::failure::Failure;
use crate::output::Output;
use crate::reader::{all, encoded, shown};

/// Sleeves as the server sees them.
#[derive(Subcommand)]
pub(crate) enum SleeveCommand {
    /// List the sleeves.
    ///
    /// Example: countersign sleeve list --server https://localhost:8443 --ca ca.pem
    /// --token-file admin.token
    List {
        #[command(flatten)]
        client: Client,
    },
    /// Show a sleeve: whether it is blocked, its certificate.
    ///
    /// Example: countersign sleeve show SLV-1
    Show(Which),
    /// Block a sleeve: the relay refuses it until it is unblocked, and ends its meetings.
    ///
    /// Its managers have to be told too, if it is to be refused where it comes without a server:
    /// countersign device manager revoke.
    ///
    /// Example: countersign sleeve block SLV-1 --reason "reported stolen"
    Block(Reasoned),
    /// Let a blocked sleeve in again.
    ///
    /// Example: countersign sleeve unblock SLV-1
    Unblock(Which),
    /// Revoke a sleeve's certificate: it must enrol again.
    ///
    /// Example: countersign sleeve revoke SLV-1 --reason "lost"
    Revoke(Reasoned),
    /// List the alarms that managers have raised, the newest first.
    ///
    /// Example: countersign sleeve alarms --server https://localhost:8443 --ca ca.pem
    /// --token-file admin.token
    Alarms {
        #[command(flatten)]
        client: Client,
    },
}

/// Managers as the server sees them.
#[derive(Subcommand)]
pub(crate) enum ManagerCommand {
    /// List the managers.
    ///
    /// Example: countersign manager list --server https://localhost:8443 --ca ca.pem
    /// --token-file admin.token
    List {
        #[command(flatten)]
        client: Client,
    },
    /// Show a manager: whether it is blocked, its certificate.
    ///
    /// Example: countersign manager show MGR-1
    Show(Which),
    /// Block a manager: the relay refuses it until it is unblocked, and ends its meetings.
    ///
    /// Example: countersign manager block MGR-1 --reason "reported stolen"
    Block(Reasoned),
    /// Let a blocked manager in again.
    ///
    /// Example: countersign manager unblock MGR-1
    Unblock(Which),
    /// Revoke a manager's certificate: it must enrol again.
    ///
    /// Example: countersign manager revoke MGR-1 --reason "key lost"
    Revoke(Reasoned),
}

/// Which device.
#[derive(Args)]
pub(crate) struct Which {
    #[command(flatten)]
    client: Client,
    /// Its id (slv_… or mgr_…) or serial number.
    device: String,
}

/// Which device, and why.
#[derive(Args)]
pub(crate) struct Reasoned {
    #[command(flatten)]
    which: Which,
    /// Why: 1 to 200 bytes.
    #[arg(long)]
    reason: String,
}

/// One of the two kinds of devices.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    path: &'static str,
    /// What its ids begin with.
    prefix: &'static str,
}

const SLEEVE: Kind = Kind { name: "sleeve", path: "/v1/sleeves", prefix: "slv_" };
const MANAGER: Kind = Kind { name: "manager", path: "/v1/managers", prefix: "mgr_" };

impl SleeveCommand {
    pub(crate) async fn run(self) -> Result<Output, Failure> {
        match self {
            Self::List { client } => SLEEVE.list(client).await,
            Self::Show(which) => SLEEVE.show(which).await,
            Self::Block(reasoned) => SLEEVE.because("block", reasoned).await,
            Self::Unblock(which) => SLEEVE.change("unblock", which, json!({})).await,
            Self::Revoke(reasoned) => SLEEVE.because("revoke", reasoned).await,
            Self::Alarms { client } => alarms(client).await,
        }
    }
}

impl ManagerCommand {
    pub(crate) async fn run(self) -> Result<Output, Failure> {
        match self {
            Self::List { client } => MANAGER.list(client).await,
            Self::Show(which) => MANAGER.show(which).await,
            Self::Block(reasoned) => MANAGER.because("block", reasoned).await,
            Self::Unblock(which) => MANAGER.change("unblock", which, json!({})).await,
            Self::Revoke(reasoned) => MANAGER.because("revoke", reasoned).await,
        }
    }
}

impl Kind {
    async fn list(self, client: Client) -> Result<Output, Failure> {
        let items = client.with(move |api| all(api, self.path)).await?;
        Ok(listed(items, line))
    }

    async fn show(self, Which { client, device }: Which) -> Result<Output, Failure> {
        let shown = client.with(move |api| {
            let path = self.path_of(api, &device)?;
            Ok::<Value, Failure>(api.get(&path)?)
        });
        let device = shown.await?;
        let text = whole(&device);
        Ok(Output::new(device, text))
    }

    async fn because(self, step: &'static str, reasoned: Reasoned) -> Result<Output, Failure> {
        let Reasoned { which, reason } = reasoned;
        self.change(step, which, json!({ "reason": reason })).await
    }

    async fn change(
        self,
        step: &'static str,
        Which { client, device }: Which,
        body: Value,
    ) -> Result<Output, Failure> {
        let changed = client.with(move |api| {
            let path = self.path_of(api, &device)?;
            Ok::<Value, Failure>(api.post(&format!("{path}/{step}"), &body)?)
        });
        let device = changed.await?;
        let text = line(&device);
        Ok(Output::new(device, text))
    }

    /// The path of a device that is named by id or serial number.
    fn path_of(self, api: &Api, named: &str) -> Result<String, Failure> {
        let Self { name, path, prefix } = self;
        if named.starts_with(prefix) {
            return Ok(format!("{path}/{}", encoded(named)));
        }
        let found: Value = api.get(&format!("{path}?serial={}", encoded(named)))?;
        let id = found["items"][0]["id"].as_str();
        let absent = || Failure::check("not-found", format!("there is no such {name}"));
        Ok(format!("{path}/{}", id.ok_or_else(absent)?))
    }
}

async fn alarms(client: Client) -> Result<Output, Failure> {
    let items = client.with(|api| all(api, "/v1/sleeves/alarms")).await?;
    Ok(listed(items, alarm_line))
}

fn listed(items: Vec<Value>, line: fn(&Value) -> String) -> Output {
    let text = items.iter().map(line).collect::<Vec<_>>().join("\n");
    Output::new(json!({ "items": items, "next": null }), text)
}

fn line(device: &Value) -> String {
    let state = if device["blocked"] == true { "blocked" } else { "enrolled" };
    let mut line = format!("{}  {}  {state}", shown(device, "id"), shown(device, "serial"));
    if device["certificate"].is_null() {
        line += "  no certificate";
    }
    if let Some(reason) = device["blockReason"].as_str() {
        line += &format!("  ({reason})");
    }
    line
}

fn whole(device: &Value) -> String {
    let certificate = &device["certificate"];
    format!(
        "{}\n  enrolled     {}\n  certificate  {}  until {}",
        line(device),
        shown(device, "createdAt"),
        shown(certificate, "number"),
        shown(certificate, "notAfter")
    )
}

fn alarm_line(alarm: &Value) -> String {
    format!(
        "{}  at {}  sleeve {}  manager {}  session {}",
        shown(alarm, "id"),
        shown(alarm, "raisedAt"),
        shown(alarm, "sleeve"),
        shown(alarm, "managerId"),
        shown(alarm, "session")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_shown_with_what_is_wrong_with_it() {
        let mut device = json!({
            "id": "slv_1", "serial": "SLV-1", "blocked": false, "blockReason": null,
            "createdAt": "2027-01-15T08:00:00.000Z",
            "certificate": { "number": "0a", "notAfter": "2028-01-15T08:00:00.000Z" },
        });
        assert_eq!(line(&device), "slv_1  SLV-1  enrolled");
        assert!(whole(&device).ends_with("certificate  0a  until 2028-01-15T08:00:00.000Z"));
        device["blocked"] = true.into();
        device["blockReason"] = "lost".into();
        device["certificate"] = Value::Null;
        assert_eq!(line(&device), "slv_1  SLV-1  blocked  no certificate  (lost)");
        assert!(whole(&device).ends_with("certificate  -  until -"));
    }
}
