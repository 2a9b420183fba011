//! `key kek`: key-encrypting keys under dual control.

use clap::{Args, Subcommand};
use data_encoding::HEXUPPER;
use serde::Serialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::found;
use crate::approval::{Approval, gated};
use crate::device::Client;
use crate::failure::Failure;
use crate::local::prompt;
use crate::output::Output;
use crate::reader::{all, encoded, shown};
use crate::secret_arg;

/// Key-encrypting keys.
#[derive(Subcommand)]
pub(crate) enum KekCommand {
    /// Begin a key-encrypting key, which then awaits its components.
    ///
    /// Example: countersign key kek begin zone-1 --algorithm A --length 32 --components 3
    Begin(Begin),
    /// Enter one component, each from another operator. It is asked for on the terminal, or read
    /// from a file or stdin; never from the command line, where others see it.
    ///
    /// Example: countersign key kek component zone-1 --number 1 --kcv A1B2C3
    Component(Component),
    /// List the key-encrypting keys.
    ///
    /// Example: countersign key kek list
    List {
        #[command(flatten)]
        client: Client,
    },
    /// Show one, and who has entered which component.
    ///
    /// Example: countersign key kek show zone-1
    Show(Which),
    /// Erase a key-encrypting key, or give up one that awaits components. Keys that came under it
    /// stay.
    ///
    /// Example: countersign key kek retire zone-1
    Retire {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        approval: Approval,
    },
}

/// Which key-encrypting key.
#[derive(Args)]
pub(crate) struct Which {
    #[command(flatten)]
    client: Client,
    /// Its id (kek_…) or name.
    kek: String,
}

/// A key-encrypting key to begin.
#[derive(Args)]
pub(crate) struct Begin {
    #[command(flatten)]
    client: Client,
    /// Unique name.
    name: String,
    /// A (AES) or T (TDES).
    #[arg(long)]
    algorithm: String,
    /// Length in bytes.
    #[arg(long, value_name = "BYTES")]
    length: u32,
    /// How many components make it: 2 or 3.
    #[arg(long, value_name = "N", default_value_t = 2)]
    components: u32,
    /// The check value of the whole key, if its sender told it.
    #[arg(long, value_name = "HEX")]
    kcv: Option<String>,
    #[command(flatten)]
    approval: Approval,
}

/// A component to enter.
#[derive(Args)]
pub(crate) struct Component {
    #[command(flatten)]
    which: Which,
    /// Its number, from 1.
    #[arg(long, value_name = "N")]
    number: u32,
    /// Its own check value, as it stands on its paper.
    #[arg(long, value_name = "HEX")]
    kcv: String,
    /// Where it is: @FILE, or - for stdin; without it the terminal asks.
    #[arg(long, value_name = "@FILE|-")]
    component: Option<String>,
}

/// The body of an entry.
#[derive(Serialize)]
struct Entry<'a> {
    number: u32,
    component: &'a str,
    kcv: &'a str,
}

impl KekCommand {
    pub(super) fn ask(self) -> Result<Output, Failure> {
        match self {
            Self::Begin(begin) => {
                let body = json!({
                    "name": begin.name,
                    "algorithm": begin.algorithm,
                    "length": begin.length,
                    "components": begin.components,
                    "kcv": begin.kcv,
                    "approvalId": begin.approval.id,
                });
                Ok(gated(begin.client.api()?.post("/v1/keks", &body)?, kek_text))
            }
            Self::Component(component) => component.run(),
            Self::List { client } => {
                let items = all(&client.api()?, "/v1/keks")?;
                let text = items.iter().map(kek_line).collect::<Vec<_>>().join("\n");
                Ok(Output::new(json!({"items": items, "next": null}), text))
            }
            Self::Show(which) => {
                let (api, path) = which.find()?;
                let kek: Value = api.get(&path)?;
                Ok(Output::new(kek.clone(), kek_text(&kek)))
            }
            Self::Retire { which, approval } => {
                let (api, path) = which.find()?;
                let body = json!({"approvalId": approval.id});
                Ok(gated(api.post(&format!("{path}/retire"), &body)?, kek_line))
            }
        }
    }
}

impl Which {
    fn find(&self) -> Result<(countersign_device::Api, String), Failure> {
        let api = self.client.api()?;
        let id = found(&api, "kek", &self.kek)?;
        Ok((api, format!("/v1/keks/{}", encoded(&id))))
    }
}

impl Component {
    fn run(self) -> Result<Output, Failure> {
        let digits = match self.component.as_deref() {
            Some(word) if word == "-" || word.starts_with('@') => secret_arg::text(word)?,
            Some(_) => {
                // What was given is not repeated.
                let detail = "a component is not given on the command line, where others see it: \
                              use @FILE, - for stdin, or the prompt";
                return Err(Failure::usage("component-on-command-line", detail));
            }
            None => {
                let typed = prompt(&format!("Component {} (hex): ", self.number))?;
                let text = std::str::from_utf8(typed.expose()).unwrap_or_default();
                Zeroizing::new(text.to_owned())
            }
        };
        let secret = secret_arg::digits("component", &digits)?;
        let hex = Zeroizing::new(HEXUPPER.encode(secret.expose()));
        let (api, path) = self.which.find()?;
        let entry = Entry { number: self.number, component: &hex, kcv: &self.kcv };
        let kek: Value = api.post(&format!("{path}/components"), &entry)?;
        Ok(Output::new(kek.clone(), kek_text(&kek)))
    }
}

fn kek_line(kek: &Value) -> String {
    let fields = ["id", "name", "state", "algorithm"].map(|field| shown(kek, field)).join("  ");
    format!("{fields}  {} bytes  KCV {}", kek["length"], shown(kek, "kcv"))
}

fn kek_text(kek: &Value) -> String {
    let mut text = kek_line(kek);
    let entered = kek["entered"].as_array().map_or(0, Vec::len);
    text += &format!("\n  {entered} of {} components entered", kek["components"]);
    for one in kek["entered"].as_array().into_iter().flatten() {
        let (kcv, who, at) = (shown(one, "kcv"), shown(one, "operatorId"), shown(one, "at"));
        text += &format!("\n  component {}  KCV {kcv}  {who} at {at}", one["number"]);
    }
    text
}
