//! `tr34 unwrap`.

use clap::Args;
use data_encoding::HEXUPPER;
use serde_json::{Map, Value};
use tr34::RsaKey;
use tr34::token::{Freshness, KtKdh};

use super::inspect::shown_header;
use super::verify::Parties;
use super::{input, told};
use crate::failure::Failure;
use crate::output::Output;

#[derive(Args)]
pub(crate) struct Unwrap {
    #[command(flatten)]
    parties: Parties,
    /// The receiver's private key: PKCS#8 or PKCS#1, not encrypted.
    #[arg(long, value_name = "FILE")]
    krd_key: String,
    /// Print the key.
    #[arg(long)]
    show_key: bool,
}

impl Unwrap {
    pub(super) fn run(&self) -> Result<Output, Failure> {
        self.parties.check_stdin(&[Some(&self.krd_key)])?;
        let octets = input::octets("token", &self.parties.token)?;
        let token = KtKdh::parse(&octets)?;
        let known = self.parties.known(token.signed().crl)?;
        let answer = match &token.freshness {
            Freshness::TwoPass(nonce) => Some(nonce),
            Freshness::OnePass(_) => None,
        };
        let state = self.parties.state(&known, answer)?;
        let key = input::key("krd-key", &self.krd_key)?;
        if key.public_key() != known.krd.public_key() {
            return Err(tr34::Error::KeyMismatch.into());
        }
        let receiver = known.receiver(&key, &known.krd);
        let verified =
            receiver.receive(&state, &octets, known.now).map_err(|refused| refused.error)?;
        let installed = verified.install();
        let mut members = Map::new();
        members.insert("header".into(), shown_header(token.header));
        members.insert("keyLength".into(), installed.key.len().into());
        if self.show_key {
            members.insert("key".into(), HEXUPPER.encode(installed.key.expose()).into());
        }
        let kcv = installed.kcv.map_or(Value::Null, |kcv| kcv.to_string().into());
        members.insert("kcv".into(), kcv);
        Ok(told(members))
    }
}
