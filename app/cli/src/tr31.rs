//! `tr31`: key blocks by hand, for people who want the format only.

use clap::{Args, Subcommand};
use countersign_net::SystemRng;
use data_encoding::HEXUPPER;
use serde_json::{Map, Value, json};
use tr31::aws_lc::AwsLc;
use tr31::{
    Header, Kbpk, Leniency, OptionalBlock, OptionalId, Padding, Tr31Error, Version, kcv, names,
};

use crate::failure::Failure;
use crate::output::Output;
use crate::secret_arg;

/// X9.143 / TR-31 key blocks.
#[derive(Subcommand)]
pub(crate) enum Tr31 {
    /// Wrap a key into a key block.
    ///
    /// Example: countersign tr31 wrap --version D --kbpk @kbpk.hex --usage P0 --algorithm A
    /// --mode E --exportability N --key @key.hex --opt KC
    Wrap(Wrap),
    /// Check a key block and open it. Departures from X9.143 that published samples have are let
    /// through and named; --strict refuses them.
    ///
    /// Example: countersign tr31 unwrap --kbpk @kbpk.hex --block @block.txt --show-key
    Unwrap(Unwrap),
    /// Show what a key block says without its protection key. Nothing of that is authenticated.
    ///
    /// Example: countersign tr31 inspect --block @block.txt
    Inspect(Inspect),
}

#[derive(Args)]
#[command(disable_version_flag = true)]
pub(crate) struct Wrap {
    /// Key block version: A, B or C under TDES, D or E under AES.
    #[arg(long, value_name = "A-E")]
    version: String,
    /// Key block protection key: HEX, @FILE or - for stdin.
    #[arg(long, value_name = "HEX")]
    kbpk: String,
    /// Key usage, two characters: P0, K0, B1, …
    #[arg(long)]
    usage: String,
    /// Algorithm of the key: A, T, H, R, E, …
    #[arg(long)]
    algorithm: String,
    /// Mode of use: E, D, B, N, X, …
    #[arg(long)]
    mode: String,
    /// Key version number, two characters; 00 for none.
    #[arg(long, default_value = "00")]
    key_version: String,
    /// Exportability: E, N or S.
    #[arg(long)]
    exportability: String,
    /// Key context: 0 as the protection key's, 1 storage, 2 exchange.
    #[arg(long, default_value = "0")]
    key_context: String,
    /// The key: HEX, @FILE or - for stdin.
    #[arg(long, value_name = "HEX")]
    key: String,
    /// An optional block. KC and KP without data get the check values; PB is added where needed.
    #[arg(long = "opt", value_name = "ID=DATA")]
    optional: Vec<String>,
    /// Departures from X9.143 to write all the same.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    lenient: Vec<String>,
}

#[derive(Args)]
pub(crate) struct Unwrap {
    /// Key block protection key: HEX, @FILE or - for stdin.
    #[arg(long, value_name = "HEX")]
    kbpk: String,
    /// The key block: itself, @FILE or - for stdin.
    #[arg(long, value_name = "STR")]
    block: String,
    /// Print the key.
    #[arg(long)]
    show_key: bool,
    /// Further departures from X9.143 to let through.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    lenient: Vec<String>,
    /// Let nothing through but what --lenient names.
    #[arg(long)]
    strict: bool,
}

#[derive(Args)]
pub(crate) struct Inspect {
    /// The key block: itself, @FILE or - for stdin.
    #[arg(long, value_name = "STR")]
    block: String,
}

impl Tr31 {
    pub(crate) fn run(&self) -> Result<Output, Failure> {
        match self {
            Self::Wrap(wrap) => wrap.run(),
            Self::Unwrap(unwrap) => unwrap.run(),
            Self::Inspect(inspect) => inspect.run(),
        }
    }
}

impl From<Tr31Error> for Failure {
    fn from(error: Tr31Error) -> Self {
        Self::check(error.check(), error.to_string())
    }
}

impl Wrap {
    fn run(&self) -> Result<Output, Failure> {
        secret_arg::at_most_one_stdin(&[&self.kbpk, &self.key])?;
        let [version] = exactly("version", &self.version)?;
        let version = Version::from_letter(version).ok_or(Tr31Error::Version)?;
        let [algorithm] = exactly("algorithm", &self.algorithm)?;
        let [mode] = exactly("mode", &self.mode)?;
        let [exportability] = exactly("exportability", &self.exportability)?;
        let usage = exactly("usage", &self.usage)?;
        let mut header = Header::new(version, usage, algorithm, mode, exportability);
        header.key_version = exactly("key-version", &self.key_version)?;
        [header.context] = exactly("key-context", &self.key_context)?;
        header.optional =
            self.optional.iter().map(|word| optional(word)).collect::<Result<_, _>>()?;
        let leniency = leniency(&self.lenient)?;
        let kbpk = secret_arg::secret("kbpk", &self.kbpk)?;
        let key = secret_arg::secret("key", &self.key)?;
        let mut rng = SystemRng::default();
        let padding = Padding::Random(&mut rng);
        let block = tr31::wrap(&AwsLc, Kbpk::Clear(&kbpk), &header, &key, padding, leniency)?;
        Ok(Output::new(json!({ "block": block }), block))
    }
}

impl Unwrap {
    fn run(&self) -> Result<Output, Failure> {
        secret_arg::at_most_one_stdin(&[&self.kbpk, &self.block])?;
        let base = if self.strict { Leniency::NONE } else { Leniency::PUBLISHED_SAMPLES };
        let allowed = base | leniency(&self.lenient)?;
        let block = secret_arg::text(&self.block)?;
        let kbpk = secret_arg::secret("kbpk", &self.kbpk)?;
        let opened = tr31::unwrap(&AwsLc, Kbpk::Clear(&kbpk), block.as_bytes(), allowed)?;
        let mut members = header_json(&opened.header, opened.used);
        members.insert("keyLength".into(), opened.key.len().into());
        if self.show_key {
            members.insert("key".into(), HEXUPPER.encode(opened.key.expose()).into());
        }
        let check_value = match kcv::kcv(&AwsLc, opened.header.algorithm, &opened.key) {
            Ok(value) => Value::from(value.to_string()),
            // Keys of other algorithms have none.
            Err(Tr31Error::KcvMethod) => Value::Null,
            Err(error) => return Err(error.into()),
        };
        members.insert("kcv".into(), check_value);
        Ok(told(&opened.header, members))
    }
}

impl Inspect {
    fn run(&self) -> Result<Output, Failure> {
        let block = secret_arg::text(&self.block)?;
        let seen = tr31::inspect(block.as_bytes(), Leniency::all())?;
        let mut members = header_json(&seen.header, seen.used);
        members.insert("payloadLength".into(), seen.payload_len.into());
        members.insert("macLength".into(), seen.header.version.mac_len().into());
        Ok(told(&seen.header, members))
    }
}

/// A field of so many characters.
fn exactly<const N: usize>(name: &str, word: &str) -> Result<[u8; N], Failure> {
    word.as_bytes().try_into().map_err(|_| {
        let characters = if N == 1 { "one character" } else { "two characters" };
        Failure::usage(name, format!("--{name} takes {characters}"))
    })
}

/// `ID=DATA`, or `ID` for a block without data.
fn optional(word: &str) -> Result<OptionalBlock, Failure> {
    let (id, data) = word.split_once('=').unwrap_or((word, ""));
    let id = id.as_bytes().try_into().map_err(|_| {
        Failure::usage("opt", "--opt takes ID=DATA, the identifier in two characters")
    })?;
    Ok(OptionalBlock::new(OptionalId(id), data))
}

fn leniency(names: &[String]) -> Result<Leniency, Failure> {
    names.iter().try_fold(Leniency::NONE, |all, name| match Leniency::from_name(name) {
        Some(one) => Ok(all | one),
        None => {
            let known: Vec<_> = Leniency::all().names().collect();
            let detail = format!("--lenient knows {}", known.join(", "));
            Err(Failure::usage("lenient", detail))
        }
    })
}

fn header_json(header: &Header, used: Leniency) -> Map<String, Value> {
    let text = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes).into_owned());
    let blocks = header
        .optional
        .iter()
        .map(|block| json!({ "id": block.id.to_string(), "data": text(&block.data) }));
    let members = [
        ("version", header.version.to_string().into()),
        ("length", header.length.into()),
        ("usage", text(&header.usage)),
        ("algorithm", text(&[header.algorithm])),
        ("mode", text(&[header.mode])),
        ("keyVersion", text(&header.key_version)),
        ("exportability", text(&[header.exportability])),
        ("keyContext", text(&[header.context])),
        ("optionalBlocks", blocks.collect()),
        ("leniencies", used.names().collect()),
    ];
    members.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
}

/// As JSON, and as a line for each member, with what its value is called.
fn told(header: &Header, members: Map<String, Value>) -> Output {
    let called = |name: &str| match name {
        "usage" => names::usage(header.usage),
        "algorithm" => names::algorithm(header.algorithm),
        "mode" => names::mode(header.mode),
        "exportability" => names::exportability(header.exportability),
        _ => None,
    };
    let line = |(name, value): (&String, &Value)| match value {
        Value::String(value) => match called(name) {
            Some(called) => format!("{name}: {value} ({called})\n"),
            None => format!("{name}: {value}\n"),
        },
        Value::Array(values) if values.is_empty() => String::new(),
        Value::Array(values) => {
            let shown = values.iter().map(|value| match value {
                Value::Object(block) => {
                    let part = |name: &str| block[name].as_str().unwrap_or_default().to_owned();
                    format!("{}={}", part("id"), part("data"))
                }
                other => other.as_str().unwrap_or_default().to_owned(),
            });
            format!("{name}: {}\n", shown.collect::<Vec<_>>().join(" "))
        }
        Value::Null => String::new(),
        other => format!("{name}: {other}\n"),
    };
    let text: String = members.iter().map(line).collect();
    Output::new(Value::Object(members), text)
}
