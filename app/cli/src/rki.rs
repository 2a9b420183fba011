//! `rki`: the RSA hierarchy of key injection and its CRLs, as operators make and keep it.

use std::path::Path;

use clap::{Args, Subcommand, ValueEnum};
use countersign_device::Api;
use countersign_server::open_service_with_vault;
use countersign_service::{Actor, RkiStatus};
use serde_json::{Value, json};

use crate::approval::{self, Approval};
use crate::device::Client;
use crate::failure::Failure;
use crate::local::Local;
use crate::output::Output;
use crate::reader::{all, encoded, shown};

/// The injection hierarchy: root, Sub_CA_KRD, CA_KDH, KDHs, CRLs.
#[derive(Subcommand)]
pub(crate) enum RkiCommand {
    /// Make the hierarchy in a data directory and its vault. May be run again: it goes on where it
    /// broke off, and leaves what is there.
    ///
    /// Example: countersign rki init --data ./countersign-data
    Init(Init),
    /// Show every generation of the hierarchy.
    ///
    /// Example: countersign rki status --server https://localhost:8443 --ca ca.pem
    /// --token-file admin.token
    Status {
        #[command(flatten)]
        client: Client,
    },
    /// Print a certificate or CRL as PEM.
    ///
    /// Example: countersign rki export root > rki-root.pem
    Export {
        #[command(flatten)]
        client: Client,
        /// Which: of each role the one in use.
        what: What,
    },
    /// Make the next generation and put it into use; others must agree first.
    ///
    /// Example: countersign rki roll kdh
    Roll(Roll),
    /// Revoke a KDH: it stands on the CRL at once; others must agree first.
    ///
    /// Example: countersign rki revoke rka_0193… --reason "token lost"
    Revoke(Revoke),
    /// Print the CRL that is in force, made anew if it has to be.
    ///
    /// Example: countersign rki crl ca-kdh > ca-kdh.crl
    Crl {
        #[command(flatten)]
        client: Client,
        /// Whose.
        #[arg(default_value = "ca-kdh")]
        issuer: CrlIssuer,
    },
    /// Bind terminals of older KDHs to the one in use, at their next contact.
    #[command(subcommand)]
    Rebind(Rebind),
}

/// Make the hierarchy.
#[derive(Args)]
pub(crate) struct Init {
    #[command(flatten)]
    local: Local,
    /// Length of the hierarchy's RSA keys: 2048, 3072 or 4096. Which keys a terminal can take
    /// depends on its own key (`device pos enroll --bits`).
    #[arg(long, value_name = "BITS", default_value_t = 3072)]
    bits: u32,
}

/// What can be exported.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum What {
    /// The root.
    Root,
    /// The Sub_CA_KRD, which certifies terminals.
    CaKrd,
    /// The CA_KDH, which certifies KDHs.
    CaKdh,
    /// The KDH, which signs key tokens.
    Kdh,
    /// The CA_KDH's CRL.
    CrlKdh,
    /// The Sub_CA_KRD's CRL.
    CrlKrd,
}

/// Who makes CRLs.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum CrlIssuer {
    /// The CA of KDHs: its CRL goes to terminals.
    CaKdh,
    /// The CA of terminals.
    CaKrd,
}

/// What is rolled over.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Rolled {
    /// The KDH.
    Kdh,
    /// The CA_KDH, with a KDH under it.
    CaKdh,
    /// The Sub_CA_KRD.
    CaKrd,
}

/// Make the next generation.
#[derive(Args)]
pub(crate) struct Roll {
    #[command(flatten)]
    client: Client,
    /// Of what.
    role: Rolled,
    /// Length of the new RSA key: 2048, 3072 or 4096 [default: as before]
    #[arg(long, value_name = "BITS")]
    bits: Option<u32>,
    #[command(flatten)]
    approval: Approval,
}

/// Revoke a KDH.
#[derive(Args)]
pub(crate) struct Revoke {
    #[command(flatten)]
    client: Client,
    /// The KDH (rka_…), as `rki status` shows it.
    kdh: String,
    /// Why: 1 to 200 bytes.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    approval: Approval,
}

/// Rebind campaigns.
#[derive(Subcommand)]
pub(crate) enum Rebind {
    /// Begin a campaign; others must agree first.
    ///
    /// Example: countersign rki rebind begin
    Begin {
        #[command(flatten)]
        client: Client,
        #[command(flatten)]
        approval: Approval,
    },
    /// List campaigns, the newest first.
    ///
    /// Example: countersign rki rebind list
    List {
        #[command(flatten)]
        client: Client,
    },
    /// Show a campaign and how far each terminal is.
    ///
    /// Example: countersign rki rebind show reb_0193…
    Show(Campaign),
    /// End an open campaign; terminals that were rebound stay so.
    ///
    /// Example: countersign rki rebind cancel reb_0193…
    Cancel(Campaign),
}

/// Which campaign.
#[derive(Args)]
pub(crate) struct Campaign {
    #[command(flatten)]
    client: Client,
    /// Its id (reb_…).
    campaign: String,
}

impl RkiCommand {
    pub(crate) async fn run(self) -> Result<Output, Failure> {
        if let Self::Init(init) = self {
            return init.run().await;
        }
        // The API client blocks.
        let working = tokio::task::spawn_blocking(move || self.ask());
        working.await.map_err(|error| Failure::environment("task", error.to_string()))?
    }

    fn ask(self) -> Result<Output, Failure> {
        match self {
            Self::Init(_) => Err(Failure::environment("task", "init needs no server")),
            Self::Status { client } => {
                let rki: Value = client.api()?.get("/v1/rki")?;
                let text = status(&rki);
                Ok(Output::new(rki, text))
            }
            Self::Export { client, what } => export(&client.api()?, what),
            Self::Roll(Roll { client, role, bits, approval }) => {
                let role = match role {
                    Rolled::Kdh => "kdh",
                    Rolled::CaKdh => "ca-kdh",
                    Rolled::CaKrd => "ca-krd",
                };
                let mut body = json!({ "role": role });
                if let Some(bits) = bits {
                    body["bits"] = bits.into();
                }
                gated(&client.api()?, "/v1/rki/roll", body, &approval, status)
            }
            Self::Revoke(Revoke { client, kdh, reason, approval }) => {
                let path = format!("/v1/rki/authorities/{}/revoke", encoded(&kdh));
                gated(&client.api()?, &path, json!({ "reason": reason }), &approval, status)
            }
            Self::Crl { client, issuer } => crl(&client.api()?, issuer),
            Self::Rebind(rebind) => rebind.ask(),
        }
    }
}

impl Init {
    async fn run(self) -> Result<Output, Failure> {
        let data = self.local.open()?;
        let passphrase = self.local.passphrase(&data)?;
        let database = self.local.database.as_deref();
        let service = open_service_with_vault(&data, &passphrase, database).await?;
        let made = service.init_rki(&Actor::Console, self.bits).await?;
        Ok(made_output(&made, data.path()))
    }
}

fn made_output(made: &RkiStatus, data: &Path) -> Output {
    let authorities: Vec<Value> = made
        .authorities
        .iter()
        .map(|one| {
            json!({
                "id": one.authority.id,
                "role": one.authority.role.name(),
                "generation": one.authority.generation,
                "state": one.authority.state.name(),
                "bits": one.authority.bits,
                "serial": one.authority.serial,
            })
        })
        .collect();
    let mut text = table(&authorities);
    text += &format!("Vault  {}\nNext   countersign serve --data {}", made.vault, data.display());
    Output::new(json!({ "vault": made.vault, "authorities": authorities }), text)
}

/// A POST that others may have to agree to first.
pub(crate) fn gated(
    api: &Api,
    path: &str,
    mut body: Value,
    approval: &Approval,
    done: impl FnOnce(&Value) -> String,
) -> Result<Output, Failure> {
    if let Some(id) = &approval.id {
        body["approvalId"] = id.as_str().into();
    }
    Ok(approval::gated(api.post(path, &body)?, done))
}

fn status(rki: &Value) -> String {
    let items = rki["authorities"].as_array().map_or(&[][..], Vec::as_slice);
    format!("{}Vault  {}", table(items), shown(rki, "vault"))
}

fn table(items: &[Value]) -> String {
    let line = |one: &Value| {
        let mut line = format!(
            "{}  {:<6}  {:>3}  {:<8}  RSA-{}",
            shown(one, "id"),
            shown(one, "role"),
            one["generation"],
            shown(one, "state"),
            one["bits"],
        );
        if let Some(end) = one["notAfter"].as_str() {
            line += &format!("  until {end}");
        }
        if one["role"] == "kdh" && one["bound"].as_u64().is_some() {
            line += &format!("  {} bound", one["bound"]);
        }
        if let Some(next) = one["crl"]["nextUpdate"].as_str() {
            line += &format!("  CRL {} until {next}", one["crl"]["number"]);
        }
        if let Some(reason) = one["endReason"].as_str() {
            line += &format!("  ({reason})");
        }
        line + "\n"
    };
    items.iter().map(line).collect()
}

/// The one of a role that is in use.
fn active(api: &Api, role: &str) -> Result<Value, Failure> {
    let rki: Value = api.get("/v1/rki")?;
    let mut items = rki["authorities"].as_array().into_iter().flatten();
    let found = items.find(|one| one["role"] == role && one["state"] == "active");
    found.cloned().ok_or_else(|| {
        Failure::check("rki-not-initialised", format!("there is no {role} in use: see rki status"))
    })
}

fn export(api: &Api, what: What) -> Result<Output, Failure> {
    let role = match what {
        What::CrlKdh => return crl(api, CrlIssuer::CaKdh),
        What::CrlKrd => return crl(api, CrlIssuer::CaKrd),
        What::Root => "root",
        What::CaKrd => "ca-krd",
        What::CaKdh => "ca-kdh",
        What::Kdh => "kdh",
    };
    let pem = shown(&active(api, role)?, "certificate").to_owned();
    Ok(Output::new(json!({ "pem": pem }), pem))
}

fn crl(api: &Api, issuer: CrlIssuer) -> Result<Output, Failure> {
    let role = match issuer {
        CrlIssuer::CaKdh => "ca-kdh",
        CrlIssuer::CaKrd => "ca-krd",
    };
    let id = shown(&active(api, role)?, "id").to_owned();
    let crl: Value = api.get(&format!("/v1/rki/authorities/{id}/crl"))?;
    let pem = shown(&crl, "crl").to_owned();
    let json = json!({
        "pem": pem,
        "number": crl["number"],
        "listed": crl["listed"],
        "thisUpdate": crl["thisUpdate"],
        "nextUpdate": crl["nextUpdate"],
    });
    Ok(Output::new(json, pem))
}

impl Rebind {
    fn ask(self) -> Result<Output, Failure> {
        match self {
            Self::Begin { client, approval } => {
                gated(&client.api()?, "/v1/rebinds", json!({}), &approval, campaign_line)
            }
            Self::List { client } => {
                let items = all(&client.api()?, "/v1/rebinds")?;
                let text = items.iter().map(campaign_line).collect::<Vec<_>>().join("\n");
                Ok(Output::new(json!({ "items": items, "next": null }), text))
            }
            Self::Show(Campaign { client, campaign }) => {
                let (api, path) = (client.api()?, format!("/v1/rebinds/{}", encoded(&campaign)));
                let mut found: Value = api.get(&path)?;
                let terminals = all(&api, &format!("{path}/terminals"))?;
                let mut text = campaign_line(&found);
                for one in &terminals {
                    let check = one["check"].as_str().map(|check| format!("  ({check})"));
                    text += &format!(
                        "\n  {}  {}  {}{}",
                        shown(one, "terminalId"),
                        shown(one, "serial"),
                        shown(one, "state"),
                        check.unwrap_or_default()
                    );
                }
                found["terminals"] = terminals.into();
                Ok(Output::new(found, text))
            }
            Self::Cancel(Campaign { client, campaign }) => {
                let path = format!("/v1/rebinds/{}/cancel", encoded(&campaign));
                let ended: Value = client.api()?.post(&path, &json!({}))?;
                let text = campaign_line(&ended);
                Ok(Output::new(ended, text))
            }
        }
    }
}

fn campaign_line(campaign: &Value) -> String {
    format!(
        "{}  {}  to {}: {} done, {} open, {} failed",
        shown(campaign, "id"),
        shown(campaign, "state"),
        shown(campaign, "toKdh"),
        campaign["done"],
        campaign["open"],
        campaign["failed"]
    )
}
