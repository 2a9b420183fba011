//! `device reader`.

use std::path::{Path, PathBuf};

use clap::Args;
use countersign_channel::{Credential, Mode, Policy};
use countersign_crypto::aws_lc;
use countersign_device::{DeviceDir, Outcome, Reader};
use countersign_emulator::{CardHandle, CardImage, EmulatedCard, Scheme, load_card, sample};
use countersign_idcard::PlainData;
use countersign_idcard::reader::ReadOptions;
use countersign_idcard::record::{DocumentType, IdRecord};
use countersign_net::{mode_name, mode_of, policy_name, policy_of};
use countersign_server::ambient;
use serde_json::{Value, json};

use super::millis;
use crate::failure::Failure;
use crate::local::write_private;
use crate::output::Output;

/// Most reads one command does.
const READS_MAX: u32 = 10_000;

/// Read ID cards.
#[derive(Args)]
pub(crate) struct ReaderCommand {
    /// The device's own directory.
    #[arg(long, value_name = "DIR", default_value = "./countersign-device")]
    device: PathBuf,
    /// The server's device gateway.
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:8444")]
    gateway: String,
    /// The handshake to begin: c1 (the reader proves itself first) or c2 (the server shows its
    /// certificate first).
    #[arg(long, value_name = "NAME", default_value = "c1", value_parser = mode_of)]
    handshake: Mode,
    /// The protection to ask for: encrypt+mac, encrypt, mac, or certificate-sealed (suite sm2).
    #[arg(long, value_name = "NAME", default_value = "encrypt+mac", value_parser = policy_of)]
    policy: Policy,
    /// The card on the reader: emulated:citizen, emulated:foreigner2017, emulated:foreigner2023,
    /// emulated:residencePermit, or emulated:FILE with a card of your own as JSON.
    #[arg(long, value_name = "CARD")]
    card: String,
    /// How often to read the card.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(READS_MAX)))]
    reads: u32,
    /// Also read the fingerprint, if the card has one.
    #[arg(long)]
    fingerprint: bool,
    /// Write the raw photo (WLT, 1024 bytes) of the last read to this new file.
    #[arg(long, value_name = "FILE")]
    photo: Option<PathBuf>,
}

/// An emulated card of this name: one of the four samples, or a JSON file.
fn emulated_card(scheme: &Scheme, name: &str) -> Result<CardImage, Failure> {
    let mut rng = (ambient().rng)();
    let refused = |detail: String| Failure::usage("card", detail);
    let document = DOCUMENTS.into_iter().find(|document| document.name() == name);
    match document {
        Some(document) => {
            let serial = document as u64 + 1;
            CardImage::new(scheme, &mut *rng, serial, &sample(document), None, None)
                .map_err(|error| refused(error.to_string()))
        }
        None => load_card(scheme, &mut *rng, Path::new(name))
            .map_err(|error| refused(format!("{name}: {error}"))),
    }
}

/// The four document types, in the order of the samples.
pub(crate) const DOCUMENTS: [DocumentType; 4] = [
    DocumentType::Citizen,
    DocumentType::Foreigner2017,
    DocumentType::Foreigner2023,
    DocumentType::ResidencePermit,
];

/// An emulated reader front end with nothing on it, and the hand that puts cards there.
pub(crate) fn emulated_field() -> (EmulatedCard, CardHandle) {
    EmulatedCard::new(Scheme::with_demo_key(aws_lc::provider()), (ambient().rng)())
}

impl ReaderCommand {
    pub(super) async fn run(self, json: bool) -> Result<Output, Failure> {
        let Some(name) = self.card.strip_prefix("emulated:") else {
            let detail = "no real card interface is built in: use --card emulated:…";
            return Err(Failure::usage("card", detail));
        };
        let ambient = ambient();
        let dir = DeviceDir::open(&self.device)?;
        let mut config = dir.reader_config(&dir.provider(), ambient.clock.now())?;
        // The contribution is sealed to the reader in C1, to the server in C2.
        let receives = self.handshake == Mode::C1;
        let lacks = |credential: &Credential| {
            credential.provider.encryption.is_none()
                || (receives && credential.encryption.is_none())
        };
        if self.policy.certificate_sealed && config.credentials.iter().all(lacks) {
            let suite = dir.settings.suite.name().unwrap_or("unknown");
            let detail = format!(
                "{} needs an encryption certificate (suite sm2); this device, of the suite \
                 {suite}, has none",
                policy_name(self.policy)
            );
            return Err(Failure::usage("policy", detail));
        }
        (config.mode, config.policies) = (self.handshake, vec![self.policy]);
        let (link, field) = emulated_field();
        let scheme = Scheme::with_demo_key(aws_lc::provider());
        field.insert(emulated_card(&scheme, name)?.into());
        let rng = Box::new(move || (ambient.rng)());
        let mut reader =
            Reader::new(config, self.gateway.clone(), Box::new(link), ambient.clock, rng);
        let options = ReadOptions { fingerprint: self.fingerprint, ..ReadOptions::default() };
        let mut reads = Vec::new();
        for number in 1..=self.reads {
            let before = reader.traffic();
            let outcome = reader.read(options).await?;
            let after = reader.traffic();
            let bytes = (after.sent - before.sent, after.received - before.received);
            let record = decode(&outcome.data)?;
            if !json {
                crate::output::print(&read_text(number, &outcome, bytes, &record));
            }
            reads.push(read_json(&outcome, bytes, &record));
            if let Some(path) = self.photo.as_ref().filter(|_| number == self.reads) {
                write_private(path, outcome.data.photo())?;
            }
        }
        Ok(Output::new(json!({ "reads": reads }), ""))
    }
}

fn decode(data: &PlainData) -> Result<IdRecord, Failure> {
    IdRecord::decode(data.text())
        .map_err(|error| Failure::check("record", format!("the record: {error}")))
}

fn read_json(outcome: &Outcome, (sent, received): (u64, u64), record: &IdRecord) -> Value {
    json!({
        "record": record,
        "photoBytes": outcome.data.photo().len(),
        "fingerprintBytes": outcome.data.fingerprint().map(<[u8]>::len),
        "source": outcome.source.name(),
        "handshake": outcome.spoken.map(|spoken| mode_name(spoken.mode)),
        "suite": outcome.spoken.and_then(|spoken| spoken.suite.name()),
        "policy": outcome.spoken.map(|spoken| policy_name(spoken.policy)),
        "attempts": outcome.attempts,
        "ms": millis(outcome.total),
        "bytesSent": sent,
        "bytesReceived": received,
    })
}

fn read_text(
    number: u32,
    outcome: &Outcome,
    (sent, received): (u64, u64),
    record: &IdRecord,
) -> String {
    let fields = serde_json::to_value(record).unwrap_or_default();
    let mut text = format!(
        "Read {number}: {} ms from {}, {sent} bytes sent, {received} received\n",
        millis(outcome.total),
        outcome.source.name()
    );
    for (name, value) in fields.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text += &format!("  {name:<14} {value}\n");
    }
    text + &format!("  {:<14} {} bytes, raw", "photo", outcome.data.photo().len())
}
