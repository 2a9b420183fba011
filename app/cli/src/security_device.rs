//! `security-device`: devices that confirm payments, as the server's operators see them.

use clap::{Args, Subcommand};
use countersign_device::Api;
use serde_json::{Value, json};

use crate::device::Client;
use crate::failure::Failure;
use crate::output::Output;
use crate::reader::{all, encoded, shown};

/// Security devices, which confirm payments. They are enrolled by `countersign device key enroll`,
/// signing cards by `countersign device card enroll`.
#[derive(Subcommand)]
pub(crate) enum SecurityDeviceCommand {
    /// List the security devices.
    ///
    /// Example: countersign security-device list --server https://localhost:8443 --ca ca.pem
    /// --token-file admin.token
    List {
        #[command(flatten)]
        client: Client,
    },
    /// Show a security device: how it signs, its accounts, wrong answers.
    ///
    /// Example: countersign security-device show KEY-1
    Show(Which),
    /// Let a security device confirm payments from further accounts.
    ///
    /// Example: countersign security-device bind KEY-1 --account PAYER0002
    Bind(Bind),
    /// Take an account away from a security device.
    ///
    /// Example: countersign security-device unbind KEY-1 --account PAYER0002
    Unbind(Unbind),
    /// Block a security device: none of its answers is taken until it is unblocked.
    ///
    /// Example: countersign security-device block KEY-1 --reason "reported stolen"
    Block(Reasoned),
    /// Take the answers of a blocked security device again; its wrong ones are forgiven.
    ///
    /// Example: countersign security-device unblock KEY-1
    Unblock(Which),
    /// Revoke a security device's certificate, and erase the key that the server shares with it: it
    /// must enrol again.
    ///
    /// Example: countersign security-device revoke KEY-1 --reason "key lost"
    Revoke(Reasoned),
}

/// Which security device.
#[derive(Args)]
pub(crate) struct Which {
    #[command(flatten)]
    client: Client,
    /// The security device's id (sdv_…) or serial number.
    device: String,
}

/// Which security device, and why.
#[derive(Args)]
pub(crate) struct Reasoned {
    #[command(flatten)]
    which: Which,
    /// Why: 1 to 200 bytes.
    #[arg(long)]
    reason: String,
}

/// Bind accounts.
#[derive(Args)]
pub(crate) struct Bind {
    #[command(flatten)]
    which: Which,
    /// An account: id or number; may be given several times.
    #[arg(long = "account", value_name = "ACCOUNT", required = true)]
    accounts: Vec<String>,
}

/// Take an account away.
#[derive(Args)]
pub(crate) struct Unbind {
    #[command(flatten)]
    which: Which,
    /// The account: id or number.
    #[arg(long)]
    account: String,
}

impl SecurityDeviceCommand {
    pub(crate) async fn run(self) -> Result<Output, Failure> {
        // The API client blocks.
        let working = tokio::task::spawn_blocking(move || self.ask());
        working.await.map_err(|error| Failure::environment("task", error.to_string()))?
    }

    fn ask(self) -> Result<Output, Failure> {
        match self {
            Self::List { client } => {
                let items = all(&client.api()?, "/v1/devices")?;
                let text = items.iter().map(line).collect::<Vec<_>>().join("\n");
                Ok(Output::new(json!({ "items": items, "next": null }), text))
            }
            Self::Show(which) => {
                let (api, path) = which.find()?;
                Ok(whole(api.get(&path)?))
            }
            Self::Bind(Bind { which, accounts }) => {
                which.post("bind", &json!({ "accounts": accounts }))
            }
            Self::Unbind(Unbind { which, account }) => {
                which.post("unbind", &json!({ "account": account }))
            }
            Self::Block(Reasoned { which, reason }) => {
                which.post("block", &json!({ "reason": reason }))
            }
            Self::Unblock(which) => which.post("unblock", &json!({})),
            Self::Revoke(Reasoned { which, reason }) => {
                which.post("revoke", &json!({ "reason": reason }))
            }
        }
    }
}

impl Which {
    /// The API, and the device's path in it.
    fn find(&self) -> Result<(Api, String), Failure> {
        let api = self.client.api()?;
        if self.device.starts_with("sdv_") {
            let path = format!("/v1/devices/{}", encoded(&self.device));
            return Ok((api, path));
        }
        let found: Value = api.get(&format!("/v1/devices?serial={}", encoded(&self.device)))?;
        let absent = || Failure::check("not-found", "there is no security device with this serial");
        let id = found["items"][0]["id"].as_str().ok_or_else(absent)?;
        let path = format!("/v1/devices/{id}");
        Ok((api, path))
    }

    fn post(&self, step: &str, body: &Value) -> Result<Output, Failure> {
        let (api, path) = self.find()?;
        Ok(whole(api.post(&format!("{path}/{step}"), body)?))
    }
}

fn line(device: &Value) -> String {
    let fields = ["id", "serial", "method", "status", "label"];
    let mut line = fields.map(|field| shown(device, field)).join("  ");
    if let Some(reason) = device["blockReason"].as_str() {
        line += &format!("  ({reason})");
    }
    line
}

fn whole(device: Value) -> Output {
    let text = text_of(&device);
    Output::new(device, text)
}

fn text_of(device: &Value) -> String {
    let trusted = if device["method"] == "ocra" {
        ("OCRA suite", shown(device, "ocraSuite").to_owned())
    } else {
        let (number, end) = (shown(device, "certificateNumber"), shown(device, "notAfter"));
        ("certificate", format!("{number}  until {end}"))
    };
    let told = [
        ("confirms by", confirms_by(device).to_owned()),
        ("accounts", accounts_text(device)),
        trusted,
        ("wrong answers", device["failures"].to_string()),
    ];
    let lines = told.map(|(name, value)| format!("\n  {name:<15}{value}"));
    line(device) + &lines.concat()
}

/// How people recognise the method.
fn confirms_by(device: &Value) -> &'static str {
    match device["method"].as_str() {
        Some("pki") => "a signature, over the payer's phone",
        Some("ocra") => "digits that it shows (OCRA)",
        Some("joint") => "a signing card at a terminal: signature and joint password",
        _ => "-",
    }
}

/// The numbers of the accounts that a security device or a phone is bound to.
pub(crate) fn accounts_text(bound: &Value) -> String {
    let accounts = bound["accounts"].as_array().into_iter().flatten();
    let text = accounts.map(|account| shown(account, "identification"));
    text.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_shown_with_what_its_method_has() {
        let device = |method: &str| {
            json!({ "id": "sdv_1", "serial": "SD-1", "method": method, "status": "enrolled",
                "label": "Li Lei", "accounts": [{ "id": "acc_1", "identification": "PAYER0001" }],
                "failures": 2, "certificateNumber": (method != "ocra").then_some("0a1b"),
                "notAfter": "2027-01-15T08:00:00.000Z",
                "ocraSuite": (method == "ocra").then_some("OCRA-1:HOTP-SHA256-8:QH64") })
        };
        let joint = text_of(&device("joint"));
        let expected = "sdv_1  SD-1  joint  enrolled  Li Lei\n  \
             confirms by    a signing card at a terminal: signature and joint password\n  \
             accounts       PAYER0001\n  \
             certificate    0a1b  until 2027-01-15T08:00:00.000Z\n  \
             wrong answers  2";
        assert_eq!(joint, expected);
        let ocra = text_of(&device("ocra"));
        assert!(ocra.contains("OCRA suite     OCRA-1:HOTP-SHA256-8:QH64"), "{ocra}");
        assert!(!ocra.contains("certificate"), "{ocra}");
        assert!(text_of(&device("pki")).contains("a signature, over the payer's phone"));
    }
}
