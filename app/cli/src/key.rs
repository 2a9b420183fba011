//! `key`: the keys that are injected, and the key-encrypting keys under which they come.

mod kek;

use clap::{Args, Subcommand};
use countersign_device::Api;
use serde_json::{Value, json};

use crate::approval::{Approval, gated};
use crate::device::Client;
use crate::failure::Failure;
use crate::output::Output;
use crate::reader::{all, encoded, shown};
use crate::secret_arg;

/// Keys for injection.
#[derive(Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key, in the token where there is one.
    ///
    /// Example: countersign key generate tmk --scope per-terminal --usage K0 --algorithm A
    /// --mode D --length 16
    Generate(Generate),
    /// Take a key in, as a TR-31 block under a key-encrypting key.
    ///
    /// Example: countersign key import bdk --kek zone-1 --block @bdk.tr31 --scope dukpt
    /// --ksn-base FFFF987654
    Import(Import),
    /// List the keys.
    ///
    /// Example: countersign key list
    List {
        #[command(flatten)]
        client: Client,
    },
    /// Show one key. Never its value.
    ///
    /// Example: countersign key show bdk
    Show(Which),
    /// Erase a key, and what was made of it for terminals. What terminals have, they keep.
    ///
    /// Example: countersign key retire bdk
    Retire {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        approval: Approval,
    },
    /// Print a key as a TR-31 block under a key-encrypting key, unless its exportability is N.
    ///
    /// Example: countersign key export zone-pin --kek zone-1
    #[command(disable_version_flag = true)]
    Export(Export),
    /// Key-encrypting keys, entered as components by different operators.
    #[command(subcommand)]
    Kek(kek::KekCommand),
}

/// Which key.
#[derive(Args)]
pub(crate) struct Which {
    #[command(flatten)]
    client: Client,
    /// The key's id (key_…) or name.
    key: String,
}

/// The serial numbers of a DUKPT key.
#[derive(Args)]
pub(crate) struct Ksn {
    /// What its serial numbers begin with: key set identifier (TDES, 10 hex digits) or identifier
    /// of the base derivation key (AES, 8 hex digits).
    #[arg(long = "ksn-base", value_name = "HEX")]
    base: Option<String>,
    /// The first device number.
    #[arg(long = "ksn-first", value_name = "N", requires = "base")]
    first: Option<u32>,
    /// The last device number.
    #[arg(long = "ksn-last", value_name = "N", requires = "base")]
    last: Option<u32>,
}

impl Ksn {
    fn json(&self) -> Value {
        self.base.as_ref().map_or(
            Value::Null,
            |base| json!({"base": base, "first": self.first.unwrap_or(0), "last": self.last}),
        )
    }
}

/// A key to make.
#[derive(Args)]
pub(crate) struct Generate {
    #[command(flatten)]
    client: Client,
    /// Unique name.
    name: String,
    /// What terminals get: shared (all the same), per-terminal (each a fresh one), dukpt (each an
    /// initial key derived from this one).
    #[arg(long)]
    scope: String,
    /// Key usage (TR-31), for instance K0, P0, D0; B0 for dukpt.
    #[arg(long)]
    usage: String,
    /// A (AES) or T (TDES).
    #[arg(long)]
    algorithm: String,
    /// Mode of use (TR-31), for instance E, D, B, X.
    #[arg(long)]
    mode: String,
    /// N (never leaves but to terminals), E or S.
    #[arg(long, default_value = "N")]
    exportability: String,
    /// Length in bytes.
    #[arg(long, value_name = "BYTES")]
    length: u32,
    #[command(flatten)]
    ksn: Ksn,
    #[command(flatten)]
    approval: Approval,
}

/// A key to take in.
#[derive(Args)]
pub(crate) struct Import {
    #[command(flatten)]
    client: Client,
    /// Unique name.
    name: String,
    /// The key-encrypting key: its id (kek_…) or name.
    #[arg(long)]
    kek: String,
    /// The TR-31 block, @FILE or - for stdin.
    #[arg(long, value_name = "BLOCK")]
    block: String,
    /// shared or dukpt.
    #[arg(long)]
    scope: String,
    /// Departures from X9.143 to forgive, joined by commas.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    lenient: Vec<String>,
    #[command(flatten)]
    ksn: Ksn,
    #[command(flatten)]
    approval: Approval,
}

/// A key to print under another.
#[derive(Args)]
pub(crate) struct Export {
    #[command(flatten)]
    which: Which,
    /// The key-encrypting key: its id (kek_…) or name.
    #[arg(long)]
    kek: String,
    /// The block's version: D or E under an AES key, A, B or C under a TDES key.
    #[arg(long)]
    version: Option<String>,
    /// The value that this injection (inj_…) sends, instead of the key itself.
    #[arg(long, value_name = "ID")]
    injection: Option<String>,
    #[command(flatten)]
    approval: Approval,
}

impl KeyCommand {
    pub(crate) async fn run(self) -> Result<Output, Failure> {
        // The API client blocks.
        let working = tokio::task::spawn_blocking(move || self.ask());
        working.await.map_err(|error| Failure::environment("task", error.to_string()))?
    }

    fn ask(self) -> Result<Output, Failure> {
        match self {
            Self::Generate(generate) => generate.run(),
            Self::Import(import) => import.run(),
            Self::List { client } => {
                let items = all(&client.api()?, "/v1/keys")?;
                let text = items.iter().map(key_line).collect::<Vec<_>>().join("\n");
                Ok(Output::new(json!({"items": items, "next": null}), text))
            }
            Self::Show(which) => {
                let (api, path) = which.find()?;
                let key: Value = api.get(&path)?;
                Ok(Output::new(key.clone(), key_text(&key)))
            }
            Self::Retire { which, approval } => {
                let (api, path) = which.find()?;
                let body = json!({"approvalId": approval.id});
                Ok(gated(api.post(&format!("{path}/retire"), &body)?, key_line))
            }
            Self::Export(export) => export.run(),
            Self::Kek(kek) => kek.ask(),
        }
    }
}

impl Generate {
    fn run(self) -> Result<Output, Failure> {
        let body = json!({
            "name": self.name,
            "scope": self.scope,
            "usage": self.usage,
            "algorithm": self.algorithm,
            "mode": self.mode,
            "exportability": self.exportability,
            "length": self.length,
            "ksn": self.ksn.json(),
            "approvalId": self.approval.id,
        });
        Ok(gated(self.client.api()?.post("/v1/keys", &body)?, key_text))
    }
}

impl Import {
    fn run(self) -> Result<Output, Failure> {
        let api = self.client.api()?;
        let block = secret_arg::text(&self.block)?;
        let body = json!({
            "name": self.name,
            "kekId": found(&api, "kek", &self.kek)?,
            "block": *block,
            "scope": self.scope,
            "ksn": self.ksn.json(),
            "lenient": self.lenient,
            "approvalId": self.approval.id,
        });
        Ok(gated(api.post("/v1/keys/import", &body)?, key_text))
    }
}

impl Export {
    fn run(self) -> Result<Output, Failure> {
        let (api, path) = self.which.find()?;
        let body = json!({
            "kekId": found(&api, "kek", &self.kek)?,
            "version": self.version,
            "injectionId": self.injection,
            "approvalId": self.approval.id,
        });
        let answer = api.post(&format!("{path}/export"), &body)?;
        Ok(gated(answer, |exported| shown(exported, "block").to_owned()))
    }
}

impl Which {
    /// The API, and the key's path in it.
    fn find(&self) -> Result<(Api, String), Failure> {
        let api = self.client.api()?;
        let id = found(&api, "key", &self.key)?;
        Ok((api, format!("/v1/keys/{}", encoded(&id))))
    }
}

/// The id of a `key` or `kek`, given as such or by its name.
pub(crate) fn found(api: &Api, kind: &str, word: &str) -> Result<String, Failure> {
    if word.starts_with(&format!("{kind}_")) {
        return Ok(word.to_owned());
    }
    let items = all(api, &format!("/v1/{kind}s"))?;
    let named = items.iter().find(|item| shown(item, "name") == word);
    let absent = || Failure::check("not-found", format!("there is no {kind} with this name"));
    Ok(shown(named.ok_or_else(absent)?, "id").to_owned())
}

fn key_line(key: &Value) -> String {
    let fields = ["id", "name", "state", "scope", "usage", "algorithm", "mode", "exportability"];
    format!("{}  KCV {}", fields.map(|field| shown(key, field)).join("  "), shown(key, "kcv"))
}

fn key_text(key: &Value) -> String {
    let mut text = key_line(key);
    text += &format!("\n  {:<14} {} bytes, {}", "length", key["length"], shown(key, "origin"));
    let ksn = &key["ksn"];
    if ksn.is_object() {
        let (base, left) = (shown(ksn, "base"), &ksn["left"]);
        let range = format!("{} to {}", ksn["first"], ksn["last"]);
        text += &format!("\n  {:<14} {base}, devices {range}, {left} left", "serial numbers");
    }
    text += &format!("\n  {:<14} {}", "terminals", key["terminals"]);
    text
}
