//! `tr34`: key tokens by hand, for people who want the formats only.

mod input;
mod inspect;
mod make;
mod open;
mod verify;

use clap::{Args, Subcommand};
use countersign_crypto::UnixTime;
use countersign_net::{Clock, SystemClock};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tr34::{Dialect, IssuerAndSerial, Leniency, name_text};

use crate::failure::Failure;
use crate::output::Output;

/// X9 TR-34 key tokens.
#[derive(Subcommand)]
pub(crate) enum Tr34 {
    /// Show what a token of any kind says, and the dialects that it fits. Nothing is verified.
    ///
    /// Example: countersign tr34 inspect --token kt.pem
    Inspect(inspect::Inspect),
    /// Verify a token of any kind as its receiver would, without the receiver's private key.
    ///
    /// Example: countersign tr34 verify --token kt.pem --kdh kdh.pem --ca ca-kdh.pem --krd krd.pem
    /// --nonce HEX
    Verify(verify::Verify),
    /// Verify a key token and open it.
    ///
    /// Example: countersign tr34 unwrap --token kt.pem --kdh kdh.pem --ca ca-kdh.pem --krd krd.pem
    /// --krd-key krd.key --nonce HEX --show-key
    Unwrap(open::Unwrap),
    /// Make a token.
    #[command(subcommand)]
    Make(make::Make),
}

impl Tr34 {
    pub(crate) fn run(&self) -> Result<Output, Failure> {
        match self {
            Self::Inspect(inspect) => inspect.run(),
            Self::Verify(verify) => verify.run(),
            Self::Unwrap(unwrap) => unwrap.run(),
            Self::Make(make) => make.run(),
        }
    }
}

impl From<tr34::Error> for Failure {
    fn from(error: tr34::Error) -> Self {
        Self::check(error.check(), error.to_string())
    }
}

impl From<tr34::CertificateError> for Failure {
    fn from(error: tr34::CertificateError) -> Self {
        Self::check(error.check(), error.to_string())
    }
}

impl From<tr34::CrlError> for Failure {
    fn from(error: tr34::CrlError) -> Self {
        Self::check(error.check(), error.to_string())
    }
}

/// What every check of tokens is told.
#[derive(Args)]
struct Terms {
    /// The token's dialect: strict, errata-2019, printed-2019 or 2012.
    #[arg(long, value_name = "NAME", default_value = "strict")]
    dialect: String,
    /// The moment at which certificates and lists have to be valid, RFC 3339. Now, unless given.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Take certificates of this platform's own profile only, with the role in them. Otherwise the
    /// certification authority that you name decides what its certificates are.
    #[arg(long)]
    own_profile: bool,
}

impl Terms {
    fn dialect(&self) -> Result<Dialect, Failure> {
        dialect(&self.dialect)
    }

    fn now(&self) -> Result<UnixTime, Failure> {
        self.at.as_deref().map_or_else(|| Ok(SystemClock::default().now()), time)
    }

    const fn leniency(&self) -> Leniency {
        if self.own_profile { Leniency::STRICT } else { Leniency::FOREIGN }
    }
}

fn dialect(name: &str) -> Result<Dialect, Failure> {
    Dialect::named(name).ok_or_else(|| {
        let known = Dialect::NAMED.map(|(name, _)| name).join(", ");
        Failure::usage("dialect", format!("--dialect knows {known}"))
    })
}

fn time(text: &str) -> Result<UnixTime, Failure> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339).ok();
    parsed
        .and_then(|at| u64::try_from(at.unix_timestamp()).ok())
        .map(UnixTime::from_secs)
        .ok_or_else(|| {
            Failure::usage("time", "a time looks like 2027-01-15T08:00:00Z, from 1970 on")
        })
}

fn shown_time(at: UnixTime) -> Value {
    let at = i64::try_from(at.as_secs()).ok();
    at.and_then(|secs| OffsetDateTime::from_unix_timestamp(secs).ok())
        .and_then(|at| at.format(&Rfc3339).ok())
        .into()
}

fn shown_identity(identity: &IssuerAndSerial) -> Value {
    let serial = data_encoding::HEXUPPER.encode(identity.serial());
    serde_json::json!({ "issuer": name_text(identity.issuer()), "serial": serial })
}

/// As JSON, and as a line for each member.
fn told(members: Map<String, Value>) -> Output {
    let mut text = String::new();
    lines(&mut text, "", &members);
    Output::new(Value::Object(members), text)
}

fn lines(text: &mut String, prefix: &str, members: &Map<String, Value>) {
    for (name, value) in members {
        let name = format!("{prefix}{name}");
        match value {
            Value::Null => {}
            Value::Object(inside) => lines(text, &format!("{name}."), inside),
            Value::Array(values) => {
                let shown = values.iter().map(|value| match value {
                    Value::String(value) => value.clone(),
                    other => other.to_string(),
                });
                *text += &format!("{name}: {}\n", shown.collect::<Vec<_>>().join(" "));
            }
            Value::String(value) => *text += &format!("{name}: {value}\n"),
            other => *text += &format!("{name}: {other}\n"),
        }
    }
}
