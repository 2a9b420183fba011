//! A bank card for tests: EMV's commands and data objects, with real cryptograms under a published
//! test key ([`TEST_ISSUER_KEY`]). No scheme's card, no bank's: its applications have identifiers
//! that nobody registers, and it does no offline data authentication (no RSA).

mod cryptogram;
mod objects;
mod personalisation;
mod terminal;
mod transfer;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_crypto::{CryptoRng, Secret};
use countersign_iso7816::{CardLink, Command, LinkError, Response, Status};
use countersign_smartcard::vpcd::SlotCard;

pub use cryptogram::{CRYPTOGRAM_LEN, CryptogramInput, Issuer, TEST_ISSUER_KEY};
use objects::{object, template};
pub use personalisation::{AID_CREDIT, AID_DEBIT, PPSE, PSE};
use personalisation::{
    AIP, Application, CDOL1, Printed, RESPONSE_CODE, SEQUENCE, directory_information,
    directory_record,
};
pub use terminal::{Cryptogram, DistanceCheck, PayError, Payment, Receipt, pay, pay_timed};
use transfer::Transfer;

/// Wrong PINs that block it.
pub const PIN_TRIES: u8 = 3;
/// The number of the emulated card unless told otherwise; no issuer has it.
pub const TEST_PAN: &str = "9999990000000014";
/// The PIN of the emulated card unless told otherwise.
pub const TEST_PIN: &str = "1234";
/// How long the card says that its answer to EXCHANGE RELAY RESISTANCE DATA may take, unless told
/// otherwise: 10 ms, in units of 100 µs.
pub const DISTANCE_MAX: u16 = 100;
/// EXCHANGE RELAY RESISTANCE DATA in one transaction (EMV C-2).
const DISTANCE_CHECKS_MAX: u8 = 3;
/// The tag of the test object: what PUT DATA brought, GET DATA gives back. Lets long APDUs through.
pub const TEST_OBJECT: u16 = 0xDF50;

const SELECT: u8 = 0xA4;
const VERIFY: u8 = 0x20;
const READ_RECORD: u8 = 0xB2;
const GET_CHALLENGE: u8 = 0x84;
const OPTIONS: u8 = 0xA8;
const GENERATE_AC: u8 = 0xAE;
const GET_DATA: u8 = 0xCA;
const PUT_DATA: u8 = 0xDA;
const DISTANCE: u8 = 0xEA;

/// Of which kind a cryptogram is (CID's upper bits): AAC declines, TC approves, ARQC asks the
/// issuer.
const AAC: u8 = 0x00;
const TC: u8 = 0x40;
const ARQC: u8 = 0x80;
/// The response code (8A) with which an issuer approves.
const APPROVED: &[u8] = b"00";

/// What an emulated bank card is made with.
#[derive(Debug, Clone)]
pub struct BankCardSettings {
    pan: [u8; 8],
    pin: Vec<u8>,
    distance_max: u16,
    answer_after: Duration,
}

impl Default for BankCardSettings {
    fn default() -> Self {
        Self::new(TEST_PAN, TEST_PIN).expect("the defaults are digits")
    }
}

impl BankCardSettings {
    /// A card with this number (16 digits) and PIN (4 to 12 digits); `None` for others.
    #[must_use]
    pub fn new(pan: &str, pin: &str) -> Option<Self> {
        let pan = packed(pan)?.try_into().ok()?;
        let is_pin = (4..=12).contains(&pin.len()) && pin.bytes().all(|b| b.is_ascii_digit());
        is_pin.then(|| Self {
            pan,
            pin: pin.as_bytes().to_vec(),
            distance_max: DISTANCE_MAX,
            answer_after: Duration::ZERO,
        })
    }

    /// The same with another bound on how long an answer to EXCHANGE RELAY RESISTANCE DATA may
    /// take, in units of 100 µs, from [`DISTANCE_MAX`].
    #[must_use]
    pub fn with_distance_max(self, distance_max: u16) -> Self {
        Self { distance_max, ..self }
    }

    /// The same, taking so long for each command, as a real card does.
    #[must_use]
    pub fn answering_after(self, answer_after: Duration) -> Self {
        Self { answer_after, ..self }
    }
}

/// Digits, two a byte; `None` for an odd number of them or anything else.
fn packed(digits: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        digits.chars().map(|c| c.to_digit(10)?.try_into().ok()).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(|p| p[0] << 4 | p[1]).collect())
}

/// The PIN block of VERIFY (EMV Book 3, 6.5.12.2).
fn pin_block(pin: &[u8]) -> Secret {
    let mut block = vec![0xFF; 8];
    block[0] = 0x20 | u8::try_from(pin.len()).unwrap_or(0);
    for (at, digit) in pin.iter().enumerate() {
        let nibble = digit & 0x0F;
        let byte = &mut block[1 + at / 2];
        *byte = if at % 2 == 0 { nibble << 4 | 0x0F } else { (*byte & 0xF0) | nibble };
    }
    Secret::new(block)
}

/// An emulated bank card: a handle, so that a test can pull the card while its reader talks to it.
///
/// As a [`CardLink`] it is the card behind a reader; as a [`SlotCard`] the card in a virtual one.
#[derive(Clone)]
pub struct BankCard(Arc<Mutex<Body>>);

impl std::fmt::Debug for BankCard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BankCard(..)")
    }
}

/// How a card lets time pass.
type Wait = Arc<dyn Fn(Duration) + Send + Sync>;

/// What outlasts a reset, and what does not.
struct Body {
    issuer: Issuer,
    printed: Printed,
    pin: Secret,
    distance_max: u16,
    answer_after: Duration,
    wait: Wait,
    rng: Box<dyn CryptoRng + Send>,
    is_present: bool,
    tries: u8,
    atc: u16,
    last_online: u16,
    kept: Vec<u8>,
    counts: Counts,
    transfer: Transfer,
    selected: Selected,
}

/// How often a card was told something: a relay must not repeat what spends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// All APDUs.
    pub commands: u64,
    /// GENERATE AC.
    pub cryptograms: u64,
    /// VERIFY.
    pub pins: u64,
    /// Resets and losses of power.
    pub resets: u64,
}

/// What was selected, and what has been said since.
enum Selected {
    Nothing,
    Directory,
    Application(Application, Progress),
}

/// A transaction's way.
enum Progress {
    /// GET PROCESSING OPTIONS is awaited.
    Selected,
    /// The first GENERATE AC is awaited.
    Started {
        distance_checks: u8,
    },
    /// The card asked the issuer: the second one is awaited.
    Online,
    Done,
}

impl BankCard {
    /// A card in its reader.
    #[must_use]
    pub fn new(settings: &BankCardSettings, rng: Box<dyn CryptoRng + Send>) -> Self {
        Self(Arc::new(Mutex::new(Body {
            issuer: Issuer::default(),
            printed: Printed {
                pan: settings.pan,
                expires: [0x49, 0x12, 0x31],
                holder: "TEST/CARD NOT VALID".to_owned(),
            },
            pin: pin_block(&settings.pin),
            distance_max: settings.distance_max,
            answer_after: settings.answer_after,
            wait: Arc::new(std::thread::sleep),
            rng,
            is_present: true,
            tries: PIN_TRIES,
            atc: 0,
            last_online: 0,
            kept: Vec::new(),
            counts: Counts::default(),
            transfer: Transfer::default(),
            selected: Selected::Nothing,
        })))
    }

    /// The same, letting time pass in this way for as long as a command takes it, instead of by
    /// sleeping: for tests, whose time is their own.
    #[must_use]
    pub fn waiting_by(self, wait: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        self.lock().wait = Arc::new(wait);
        self
    }

    /// Pulls it out of its reader: who talks to it is told [`LinkError::Removed`].
    pub fn remove(&self) {
        let mut body = self.lock();
        body.is_present = false;
        body.fresh();
    }

    /// Puts it back.
    pub fn insert(&self) {
        self.lock().is_present = true;
    }

    /// What it was told so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Wrong PINs that it still takes.
    #[must_use]
    pub fn tries_left(&self) -> u8 {
        self.lock().tries
    }

    /// Its answer to reset: direct convention, T=0 and T=1, a name in the historical bytes.
    #[must_use]
    pub fn answer_to_reset(&self) -> Vec<u8> {
        let checked = *b"\x8E\x80\x01\x80\x5CCS BANK TEST";
        let check = checked.iter().fold(0, |check, byte| check ^ byte);
        [&[0x3B], &checked[..], &[check]].concat()
    }

    /// Someone resets it: it forgets the conversation.
    pub fn restart(&self) {
        self.lock().fresh();
    }

    fn lock(&self) -> MutexGuard<'_, Body> {
        // What a panic elsewhere left is a card in one of its states all the same.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CardLink for BankCard {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
        let (pause, wait) = {
            let body = self.lock();
            (body.answer_after, body.wait.clone())
        };
        if !pause.is_zero() {
            // Not under the lock: whoever pulls the card does so in the middle of a command.
            wait(pause);
        }
        let mut body = self.lock();
        if !body.is_present {
            return Err(LinkError::Removed);
        }
        Ok(body.answer(command).encode())
    }
}

impl SlotCard for BankCard {
    fn atr(&self) -> Vec<u8> {
        if self.lock().is_present { self.answer_to_reset() } else { Vec::new() }
    }

    fn power_on(&mut self) {
        self.restart();
    }

    fn power_off(&mut self) {
        self.restart();
    }

    fn reset(&mut self) {
        self.restart();
    }

    fn transmit(&mut self, command: &[u8]) -> Vec<u8> {
        CardLink::transmit(self, command).unwrap_or_default()
    }
}

impl Body {
    fn fresh(&mut self) {
        self.counts.resets += 1;
        self.transfer = Transfer::default();
        self.selected = Selected::Nothing;
    }

    fn answer(&mut self, bytes: &[u8]) -> Response {
        self.counts.commands += 1;
        let Ok(command) = Command::parse(bytes) else { return Status::WRONG_LENGTH.into() };
        if let Some(rest) = self.transfer.rest(&command) {
            return rest;
        }
        let response = self.run(&command).map_or_else(Response::from, Response::ok);
        self.transfer.deliver(&command, response)
    }

    fn run(&mut self, command: &Command) -> Result<Vec<u8>, Status> {
        match (command.cla, command.ins) {
            (0x00, SELECT) => self.select(command),
            (0x00, VERIFY) => self.verify(command),
            (0x00, READ_RECORD) => self.record(command),
            (0x00, GET_CHALLENGE) => {
                let mut random = vec![0; 8];
                self.rng.fill_bytes(&mut random);
                Ok(random)
            }
            (0x80, OPTIONS) => self.options(command),
            (0x80, GENERATE_AC) => self.generate(command),
            (0x80, GET_DATA) => self.data_object(command),
            (0x80, PUT_DATA) if command.parameters() == TEST_OBJECT => {
                self.kept = command.data().to_vec();
                Ok(Vec::new())
            }
            (0x80, DISTANCE) => self.distance(command),
            (0x00 | 0x80, _) => Err(Status::INSTRUCTION),
            _ => Err(Status::CLASS),
        }
    }

    fn select(&mut self, command: &Command) -> Result<Vec<u8>, Status> {
        if command.parameters() & 0xFFFD != 0x0400 {
            return Err(Status::WRONG_PARAMETERS);
        }
        let name = command.data();
        if name == PSE || name == PPSE {
            self.selected = Selected::Directory;
            return Ok(directory_information(name));
        }
        // An identifier may be cut short: the first that begins so (EMV Book 1, 12.3.5).
        let mut all = Application::ALL.into_iter().filter(|one| one.aid().starts_with(name));
        let is_next = command.p2 == 0x02;
        let found = if name.len() < 5 { None } else { all.nth(usize::from(is_next)) };
        let found = found.ok_or(Status::NOT_FOUND)?;
        self.selected = Selected::Application(found, Progress::Selected);
        Ok(found.information())
    }

    fn options(&mut self, command: &Command) -> Result<Vec<u8>, Status> {
        let Selected::Application(application, progress @ Progress::Selected) = &mut self.selected
        else {
            return Err(Status::CONDITIONS);
        };
        let wanted = total(application.pdol());
        match objects::read(command.data()) {
            Some((0x83, value, [])) if value.len() == wanted => {}
            _ => return Err(Status::WRONG_DATA),
        }
        // A card whose counter is used up makes no cryptogram any more (EMV Book 3, 6.5.8).
        self.atc = self.atc.checked_add(1).ok_or(Status::CONDITIONS)?;
        *progress = Progress::Started { distance_checks: 0 };
        Ok(application.options())
    }

    fn record(&self, command: &Command) -> Result<Vec<u8>, Status> {
        let (file, number) = (command.p2 >> 3, command.p1);
        if command.p2 & 0x07 != 0x04 {
            return Err(Status::WRONG_PARAMETERS);
        }
        let found = match &self.selected {
            Selected::Nothing => return Err(Status::CONDITIONS),
            Selected::Directory => ((file, number) == (1, 1)).then(directory_record),
            Selected::Application(application, _) => {
                application.record(file, number, &self.printed)
            }
        };
        found.ok_or(Status::new(0x6A83))
    }

    fn data_object(&self, command: &Command) -> Result<Vec<u8>, Status> {
        match command.parameters() {
            0x9F36 => Ok(object(0x9F36, &self.atc.to_be_bytes())),
            0x9F13 => Ok(object(0x9F13, &self.last_online.to_be_bytes())),
            0x9F17 => Ok(object(0x9F17, &[self.tries])),
            // As much as was asked for: whoever tests long responses says how long.
            TEST_OBJECT => {
                let asked = usize::try_from(command.ne()).unwrap_or(usize::MAX);
                Ok(self.kept[..self.kept.len().min(asked)].to_vec())
            }
            _ => Err(Status::NO_DATA_OBJECT),
        }
    }

    fn verify(&mut self, command: &Command) -> Result<Vec<u8>, Status> {
        self.counts.pins += 1;
        if !matches!(self.selected, Selected::Application(..)) {
            return Err(Status::CONDITIONS);
        }
        if command.parameters() != 0x0080 {
            return Err(Status::WRONG_PARAMETERS);
        }
        // The try is spent before the PIN is looked at.
        self.tries = self.tries.checked_sub(1).ok_or(Status::BLOCKED)?;
        if !self.pin.ct_eq(command.data()) {
            return Err(Status::tries(self.tries));
        }
        self.tries = PIN_TRIES;
        Ok(Vec::new())
    }

    /// EXCHANGE RELAY RESISTANCE DATA (EMV C-2): entropy, least and most time, time on the air.
    fn distance(&mut self, command: &Command) -> Result<Vec<u8>, Status> {
        if command.parameters() != 0 || command.data().len() != 4 {
            return Err(Status::WRONG_DATA);
        }
        match &mut self.selected {
            Selected::Application(_, Progress::Started { distance_checks: done })
                if *done < DISTANCE_CHECKS_MAX =>
            {
                *done += 1;
            }
            _ => return Err(Status::CONDITIONS),
        }
        let mut value = vec![0; 10];
        self.rng.fill_bytes(&mut value[..4]);
        value[4..6].copy_from_slice(&0_u16.to_be_bytes());
        value[6..8].copy_from_slice(&self.distance_max.to_be_bytes());
        value[8..10].copy_from_slice(&10_u16.to_be_bytes());
        Ok(object(0x80, &value))
    }

    fn generate(&mut self, command: &Command) -> Result<Vec<u8>, Status> {
        self.counts.cryptograms += 1;
        let Selected::Application(application, progress) = &mut self.selected else {
            return Err(Status::CONDITIONS);
        };
        if command.p2 != 0 || command.p1 & !0xC0 != 0 || command.p1 == 0xC0 {
            return Err(Status::WRONG_PARAMETERS);
        }
        let (data, asked) = (command.data(), command.p1);
        let first = total(&CDOL1);
        let (terminal, decided) = match progress {
            Progress::Started { .. } if data.len() == first => {
                // The card always asks its issuer, unless the terminal declines.
                (data, if asked == AAC { AAC } else { ARQC })
            }
            Progress::Online if data.len() == first + usize::from(RESPONSE_CODE.1) => {
                let (code, data) = data.split_at(usize::from(RESPONSE_CODE.1));
                (data, if asked == TC && code == APPROVED { TC } else { AAC })
            }
            Progress::Started { .. } | Progress::Online => return Err(Status::WRONG_LENGTH),
            Progress::Selected | Progress::Done => return Err(Status::CONDITIONS),
        };
        let is_online = decided == ARQC;
        *progress = if is_online { Progress::Online } else { Progress::Done };
        let input =
            CryptogramInput { terminal: terminal.to_vec(), aip: AIP, atc: self.atc, cid: decided };
        let made = self.issuer.cryptogram(&self.printed.pan, SEQUENCE, &input);
        let made = made.map_err(|_| Status::FAILED)?;
        if is_online {
            self.last_online = self.atc;
        }
        let atc = self.atc.to_be_bytes();
        // Format 2 and format 1 of the answer (EMV Book 3, 6.5.5.4).
        Ok(match application {
            Application::Debit => template(
                0x77,
                &[object(0x9F27, &[decided]), object(0x9F36, &atc), object(0x9F26, &made)],
            ),
            Application::Credit => object(0x80, &[&[decided], &atc[..], &made].concat()),
        })
    }
}

/// Bytes that a list asks for.
fn total(wanted: &[(u16, u8)]) -> usize {
    wanted.iter().map(|(_, len)| usize::from(*len)).sum()
}
