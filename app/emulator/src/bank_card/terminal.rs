//! A terminal that pays with an emulated bank card: the steps of EMV Book 3 that such a card takes
//! part in, and its issuer at the other end, who checks both cryptograms.

use std::time::{Duration, Instant};

use countersign_crypto::CryptoRng;
use countersign_iso7816::{CardLink, Command, Response, Status, Terminal, TerminalError};
use thiserror::Error;

use super::cryptogram::{CryptogramInput, Issuer};
use super::objects::{find, object, objects, parse_list};
use super::personalisation::{PPSE, PSE};
use super::{AAC, APPROVED, ARQC, TC, pin_block};

/// Most files that an AFL may name.
const FILES_MAX: usize = 16;
/// Most records of one file that are read.
const RECORDS_MAX: u8 = 16;
/// How often a terminal measures the distance before it says that it fails (EMV C-2).
const DISTANCE_TRIES: u32 = 3;

/// What is to be paid.
#[derive(Debug, Clone)]
pub struct Payment {
    /// In the currency's smallest unit, at most twelve digits.
    pub amount: u64,
    /// ISO 4217, numeric: 156 is CNY.
    pub currency: u16,
    /// YYMMDD as decimal digits, 231231 for the last day of 2023.
    pub date: u32,
    /// The application's identifier; without, the one that the card prefers.
    pub aid: Option<Vec<u8>>,
    /// The holder's PIN, to be checked by the card.
    pub pin: Option<String>,
    /// Whether the distance is measured (EXCHANGE RELAY RESISTANCE DATA).
    pub distance_check: bool,
}

impl Payment {
    /// So much, with the application that the card prefers, without PIN and distance check.
    #[must_use]
    pub const fn of(amount: u64, currency: u16) -> Self {
        Self { amount, currency, date: 261_123, aid: None, pin: None, distance_check: false }
    }
}

/// A cryptogram, and what its issuer says to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cryptogram {
    /// What the card decided (9F27): 80 asks the issuer, 40 approves, 00 declines.
    pub cid: u8,
    /// The card's counter (9F36).
    pub atc: u16,
    /// The cryptogram (9F26).
    pub bytes: Vec<u8>,
    /// Whether it is this card's for this payment, under the published test key.
    pub verifies: bool,
}

/// What measuring the distance showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DistanceCheck {
    /// The shortest round trip measured.
    pub measured: Duration,
    /// The longest that the card allows.
    pub allowed: Duration,
}

impl DistanceCheck {
    /// Whether the card is near enough.
    #[must_use]
    pub fn passes(self) -> bool {
        self.measured <= self.allowed
    }
}

/// A payment that went through all its steps; whether it is approved is another matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The application's name on the card.
    pub label: String,
    /// The application's identifier.
    pub aid: Vec<u8>,
    /// The card's number: its last four digits, the others as asterisks.
    pub number: String,
    /// None if it was not asked for.
    pub distance: Option<DistanceCheck>,
    /// The question to the issuer.
    pub request: Cryptogram,
    /// The card's last word.
    pub outcome: Cryptogram,
    /// APDUs sent, GET RESPONSE included.
    pub exchanges: u32,
}

impl Receipt {
    /// Whether the card approved, and both cryptograms are its own.
    #[must_use]
    pub fn is_approved(&self) -> bool {
        let made = self.request.verifies && self.outcome.verifies;
        made && (self.request.cid, self.outcome.cid) == (ARQC, TC)
    }
}

/// Why there is no receipt.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PayError {
    /// The card, or the way to it, failed.
    #[error(transparent)]
    Terminal(#[from] TerminalError),
    /// The card refused a step.
    #[error("the card refused {step}: {status}")]
    Refused {
        /// The command's name.
        step: &'static str,
        /// The card's status word.
        status: Status,
    },
    /// An answer lacks what it must have.
    #[error("the card's answer to {0} is not what EMV says")]
    Malformed(&'static str),
    /// The amount has more than twelve digits, or the date more than six.
    #[error("the amount, the currency or the date has too many digits")]
    Digits,
}

impl PayError {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            Self::Terminal(TerminalError::Link(error)) => error.check(),
            Self::Terminal(_) | Self::Malformed(_) => "card-answer",
            Self::Refused { .. } => "card-refused",
            Self::Digits => "payment-digits",
        }
    }
}

/// Pays with the card behind `link`. Nothing is sent twice, whatever fails. Blocking.
///
/// # Errors
/// [`PayError`].
pub fn pay(
    link: &mut dyn CardLink,
    payment: &Payment,
    rng: &mut dyn CryptoRng,
) -> Result<Receipt, PayError> {
    let started = now();
    pay_timed(link, payment, rng, &|| started.elapsed())
}

/// As [`pay`], with the stopwatch that measures the distance: it tells how long it has been
/// running.
///
/// # Errors
/// [`PayError`].
pub fn pay_timed(
    link: &mut dyn CardLink,
    payment: &Payment,
    rng: &mut dyn CryptoRng,
    stopwatch: &dyn Fn() -> Duration,
) -> Result<Receipt, PayError> {
    let mut random = [0; 4];
    rng.fill_bytes(&mut random);
    let said = Said::new(payment, random)?;
    let mut till = Till { terminal: Terminal::new(Counted { link, sent: 0 }), said };
    let aid = match &payment.aid {
        Some(aid) => aid.clone(),
        None => till.preferred()?,
    };
    let information = till.select(&aid)?;
    let options = till.options(&information)?;
    let records = till.records(&options.files)?;
    let record = |tag| find(&records, &[tag]).ok_or(PayError::Malformed("READ RECORD"));
    let (pan, sequence) = (record(0x5A)?, *record(0x5F34)?.first().unwrap_or(&0));
    let lists = [record(0x8C)?, record(0x8D)?].map(parse_list);
    let [Some(first), Some(second)] = lists else {
        return Err(PayError::Malformed("READ RECORD"));
    };
    let distance = payment.distance_check.then(|| till.distance(rng, stopwatch)).transpose()?;
    if let Some(pin) = &payment.pin {
        let block = pin_block(pin.as_bytes());
        till.ask("VERIFY", Command::new(0x00, 0x20, 0x00, 0x80), block.expose(), 0)?;
    }
    let issuer = Issuer::default();
    let mut cryptogram = |asked: u8, wanted: &[(u16, u8)], code: &[u8]| {
        let terminal = till.said.values(wanted, code);
        let answer = till.ask("GENERATE AC", Command::new(0x80, 0xAE, asked, 0), &terminal, 256)?;
        let (cid, atc, bytes) =
            read_cryptogram(&answer.data).ok_or(PayError::Malformed("GENERATE AC"))?;
        // The issuer's part: it is told the amount by the terminal, not by the card.
        let terminal = till.said.values(&first, &[]);
        let input = CryptogramInput { terminal, aip: options.aip, atc, cid };
        let verifies = issuer.verifies(pan, sequence, &input, &bytes);
        Ok::<_, PayError>(Cryptogram { cid, atc, bytes, verifies })
    };
    let request = cryptogram(ARQC, &first, &[])?;
    let outcome = if request.cid == ARQC {
        // The issuer approves what is the card's own, and nothing else.
        let (asked, code) = if request.verifies { (TC, APPROVED) } else { (AAC, &b"05"[..]) };
        cryptogram(asked, &second, code)?
    } else {
        request.clone()
    };
    let exchanges = till.terminal.into_link().sent;
    let label = find(&information, &[0x6F, 0xA5, 0x50]).unwrap_or_default();
    let label = String::from_utf8_lossy(label).into_owned();
    Ok(Receipt { label, aid, number: masked(pan), distance, request, outcome, exchanges })
}

/// A link that counts.
struct Counted<'a> {
    link: &'a mut dyn CardLink,
    sent: u32,
}

impl CardLink for Counted<'_> {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, countersign_iso7816::LinkError> {
        self.sent += 1;
        self.link.transmit(command)
    }
}

/// What the terminal can tell a card.
struct Said(Vec<(u16, Vec<u8>)>);

impl Said {
    fn new(payment: &Payment, random: [u8; 4]) -> Result<Self, PayError> {
        let decimal = |value: u64, len: usize| {
            let text = format!("{value:0width$}", width = 2 * len);
            super::packed(&text).filter(|bytes| bytes.len() == len).ok_or(PayError::Digits)
        };
        Ok(Self(vec![
            (0x9F02, decimal(payment.amount, 6)?),
            (0x5F2A, decimal(payment.currency.into(), 2)?),
            (0x9A, decimal(payment.date.into(), 3)?),
            (0x9F1A, vec![0x01, 0x56]),
            (0x9F37, random.to_vec()),
        ]))
    }

    /// The values that a list asks for, one after the other; zeros for what is not known.
    fn values(&self, wanted: &[(u16, u8)], code: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for (tag, len) in wanted {
            let known = self.0.iter().find(|(known, _)| known == tag);
            let value = if *tag == 0x8A { Some(code) } else { known.map(|(_, v)| &v[..]) };
            let mut value = value.unwrap_or_default().to_vec();
            value.resize(usize::from(*len), 0);
            out.extend_from_slice(&value);
        }
        out
    }
}

/// What GET PROCESSING OPTIONS answered.
struct Options {
    aip: [u8; 2],
    files: Vec<u8>,
}

struct Till<'a> {
    terminal: Terminal<Counted<'a>>,
    said: Said,
}

impl Till<'_> {
    fn ask(
        &mut self,
        step: &'static str,
        command: Command,
        data: &[u8],
        ne: u32,
    ) -> Result<Response, PayError> {
        let command = command.with_data(data).map_err(|_| PayError::Malformed(step))?;
        let response = self.terminal.send(&command.expecting(ne))?;
        match response.status {
            Status::OK => Ok(response),
            status => Err(PayError::Refused { step, status }),
        }
    }

    fn select(&mut self, name: &[u8]) -> Result<Vec<u8>, PayError> {
        let command = Command::new(0x00, 0xA4, 0x04, 0x00);
        Ok(self.ask("SELECT", command, name, 256)?.data.to_vec())
    }

    /// The application that one of the card's directories names first.
    fn preferred(&mut self) -> Result<Vec<u8>, PayError> {
        let first = |entries: &[u8]| find(entries, &[0x61, 0x4F]).map(<[u8]>::to_vec);
        match self.select(PPSE) {
            Ok(information) => find(&information, &[0x6F, 0xA5, 0xBF0C]).and_then(first),
            Err(PayError::Refused { status: Status::NOT_FOUND, .. }) => {
                self.select(PSE)?;
                let record = self.record(1, 1)?;
                find(&record, &[0x70]).and_then(first)
            }
            Err(error) => return Err(error),
        }
        .ok_or(PayError::Malformed("SELECT"))
    }

    fn options(&mut self, information: &[u8]) -> Result<Options, PayError> {
        let malformed = || PayError::Malformed("GET PROCESSING OPTIONS");
        let wanted = match find(information, &[0x6F, 0xA5, 0x9F38]) {
            Some(list) => parse_list(list).ok_or_else(malformed)?,
            None => Vec::new(),
        };
        let data = object(0x83, &self.said.values(&wanted, &[]));
        let command = Command::new(0x80, 0xA8, 0, 0);
        let answer = self.ask("GET PROCESSING OPTIONS", command, &data, 256)?.data;
        let (aip, files) = if let Some(value) = find(&answer, &[0x80]) {
            value.split_first_chunk::<2>().ok_or_else(malformed)?
        } else {
            let aip = find(&answer, &[0x77, 0x82]).and_then(|aip| aip.first_chunk());
            (aip.ok_or_else(malformed)?, find(&answer, &[0x77, 0x94]).ok_or_else(malformed)?)
        };
        Ok(Options { aip: *aip, files: files.to_vec() })
    }

    /// All records that the AFL names, one after the other.
    fn records(&mut self, files: &[u8]) -> Result<Vec<u8>, PayError> {
        let mut all = Vec::new();
        for file in files.chunks_exact(4).take(FILES_MAX) {
            let (first, last) = (file[1], file[2].min(file[1].saturating_add(RECORDS_MAX)));
            for number in first..=last {
                let record = self.record(file[0] >> 3, number)?;
                let inside = find(&record, &[0x70]).ok_or(PayError::Malformed("READ RECORD"))?;
                all.extend_from_slice(inside);
            }
        }
        Ok(all)
    }

    fn record(&mut self, file: u8, number: u8) -> Result<Vec<u8>, PayError> {
        let command = Command::new(0x00, 0xB2, number, file << 3 | 4);
        Ok(self.ask("READ RECORD", command, &[], 256)?.data.to_vec())
    }

    /// Measures how long the card takes to say something that nobody can know before.
    fn distance(
        &mut self,
        rng: &mut dyn CryptoRng,
        stopwatch: &dyn Fn() -> Duration,
    ) -> Result<DistanceCheck, PayError> {
        const STEP: &str = "EXCHANGE RELAY RESISTANCE DATA";
        let mut best: Option<DistanceCheck> = None;
        for _ in 0..DISTANCE_TRIES {
            let mut entropy = [0; 4];
            rng.fill_bytes(&mut entropy);
            let started = stopwatch();
            let answer = self.ask(STEP, Command::new(0x80, 0xEA, 0, 0), &entropy, 256)?;
            let measured = stopwatch().saturating_sub(started);
            let value = find(&answer.data, &[0x80]).filter(|value| value.len() == 10);
            let value = value.ok_or(PayError::Malformed(STEP))?;
            let units = u16::from_be_bytes([value[6], value[7]]);
            let allowed = Duration::from_micros(u64::from(units) * 100);
            let measured = best.map_or(measured, |best| best.measured.min(measured));
            let check = DistanceCheck { measured, allowed };
            best = Some(check);
            if check.passes() {
                break;
            }
        }
        best.ok_or(PayError::Malformed(STEP))
    }
}

/// CID, ATC and cryptogram, of either format.
fn read_cryptogram(answer: &[u8]) -> Option<(u8, u16, Vec<u8>)> {
    if let Some([cid, upper, lower, rest @ ..]) = find(answer, &[0x80]) {
        let bytes = rest.get(..super::CRYPTOGRAM_LEN)?.to_vec();
        return Some((*cid, u16::from_be_bytes([*upper, *lower]), bytes));
    }
    let inside = find(answer, &[0x77])?;
    let value = |tag| objects(inside).find(|(found, _)| *found == tag).map(|(_, value)| value);
    let atc = value(0x9F36)?.first_chunk().copied().map(u16::from_be_bytes)?;
    Some((*value(0x9F27)?.first()?, atc, value(0x9F26)?.to_vec()))
}

/// A packed number with all but its last four digits hidden.
fn masked(pan: &[u8]) -> String {
    let digits: String = pan.iter().map(|byte| format!("{byte:02X}")).collect();
    let digits = digits.trim_end_matches('F');
    let hidden = digits.len().saturating_sub(4);
    format!("{}{}", "*".repeat(hidden), &digits[hidden..])
}

/// A terminal's own stopwatch.
#[expect(clippy::disallowed_methods, reason = "it measures a round trip, and tells no time of day")]
fn now() -> Instant {
    Instant::now()
}
