//! OCRA (RFC 6287): answers to a challenge with a shared key, for security devices that have no
//! certificate (D4, "dynamic password"). Complete: every suite of §6, with every data input.
//!
//! Payments use [`PAYMENT_SUITE`]; its question is the hash of what is confirmed, so the digits are
//! bound to amount, payee and everything else that a signature would be bound to. A device with
//! such a key must show the request, as one with a certificate does.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use countersign_crypto::{Secret, UnixTime};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{PaymentError, request_hash};

/// The suite of payments: eight digits over SHA-256 of what is confirmed.
pub const PAYMENT_SUITE: &str = "OCRA-1:HOTP-SHA256-8:QH64";
/// Digits of an answer in [`PAYMENT_SUITE`].
pub const PAYMENT_DIGITS: usize = 8;
/// Length in bytes of the keys made for [`PAYMENT_SUITE`] (RFC 6287 §7.1: at least 128 bits; as
/// long as the hash).
pub const PAYMENT_KEY_LEN: usize = 32;

/// Longest suite, in bytes.
const SUITE_MAX: usize = 64;
/// The question's field, in bytes (§6.2).
const QUESTION_LEN: usize = 128;
/// Longest session information (§6.3: three digits, but the registered ones go to 512).
const SESSION_MAX: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sha {
    Sha1,
    Sha256,
    Sha512,
}

impl Sha {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "SHA1" => Some(Self::Sha1),
            "SHA256" => Some(Self::Sha256),
            "SHA512" => Some(Self::Sha512),
            _ => None,
        }
    }

    fn hash(self, data: &[u8]) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(match self {
            Self::Sha1 => Sha1::digest(data).to_vec(),
            Self::Sha256 => Sha256::digest(data).to_vec(),
            Self::Sha512 => Sha512::digest(data).to_vec(),
        })
    }

    fn mac(self, key: &Secret, message: &[u8]) -> Zeroizing<Vec<u8>> {
        fn of<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> Vec<u8> {
            let mut mac =
                <M as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
            mac.update(message);
            mac.finalize().into_bytes().to_vec()
        }
        Zeroizing::new(match self {
            Self::Sha1 => of::<Hmac<Sha1>>(key.expose(), message),
            Self::Sha256 => of::<Hmac<Sha256>>(key.expose(), message),
            Self::Sha512 => of::<Hmac<Sha512>>(key.expose(), message),
        })
    }
}

/// How a question is written (§6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Alphanumeric,
    Numeric,
    Hexadecimal,
}

/// A suite (§6): the function, and which data go into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suite {
    name: String,
    sha: Sha,
    digits: u32,
    counter: bool,
    format: Format,
    question_max: usize,
    pin: Option<Sha>,
    session: Option<usize>,
    step_secs: Option<u64>,
}

/// The data that go into an answer; exactly those that the suite names (§5.1).
#[derive(Debug, Clone, Copy, Default)]
pub struct Data<'a> {
    /// C: the counter.
    pub counter: Option<u64>,
    /// Q: the question; in mutual mode two of them, the other party's first (§7.2).
    pub question: &'a [&'a str],
    /// P: the PIN or password, not its hash.
    pub pin: Option<&'a Secret>,
    /// S: session information.
    pub session: Option<&'a [u8]>,
    /// T: the time.
    pub time: Option<UnixTime>,
}

impl Suite {
    /// Takes a suite's name apart.
    ///
    /// # Errors
    /// [`PaymentError::OcraSuite`].
    pub fn parse(name: &str) -> Result<Self, PaymentError> {
        Self::read(name).ok_or(PaymentError::OcraSuite)
    }

    fn read(name: &str) -> Option<Self> {
        let mut parts = (name.len() <= SUITE_MAX).then(|| name.split(':'))?;
        let (algorithm, function, data) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || algorithm != "OCRA-1" {
            return None;
        }
        let (sha, digits) = function.strip_prefix("HOTP-")?.split_once('-')?;
        let digits = number(digits, 1, 2).filter(|digits| matches!(digits, 0 | 4..=10))?;
        let mut suite = Self {
            name: name.into(),
            sha: Sha::parse(sha)?,
            digits: u32::try_from(digits).ok()?,
            counter: false,
            format: Format::Numeric,
            question_max: 0,
            pin: None,
            session: None,
            step_secs: None,
        };
        let mut data = data.split('-').peekable();
        suite.counter = data.next_if(|input| *input == "C").is_some();
        let question = data.next()?.strip_prefix('Q')?;
        suite.format = match question.as_bytes().first()? {
            b'A' => Format::Alphanumeric,
            b'N' => Format::Numeric,
            b'H' => Format::Hexadecimal,
            _ => return None,
        };
        suite.question_max = number(&question[1..], 2, 2).filter(|max| (4..=64).contains(max))?;
        if let Some(pin) = data.next_if(|input| input.starts_with('P')) {
            suite.pin = Some(Sha::parse(&pin[1..])?);
        }
        if let Some(session) = data.next_if(|input| input.starts_with('S')) {
            let len = match &session[1..] {
                "" => 64,
                len => number(len, 3, 3).filter(|len| (1..=SESSION_MAX).contains(len))?,
            };
            suite.session = Some(len);
        }
        if let Some(step) = data.next_if(|input| input.starts_with('T')) {
            suite.step_secs = Some(step_secs(&step[1..])?);
        }
        data.next().is_none().then_some(suite)
    }

    /// The suite's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The answer to `data` under `key`: decimal digits, or the whole MAC in hexadecimal where the
    /// suite asks for no digits.
    ///
    /// # Errors
    /// [`PaymentError::OcraInput`] if an input is missing, is not of this suite, or does not fit.
    pub fn answer(&self, key: &Secret, data: &Data<'_>) -> Result<String, PaymentError> {
        let message = self.message(data).ok_or(PaymentError::OcraInput)?;
        let mac = self.sha.mac(key, &message);
        if self.digits == 0 {
            return Ok(data_encoding::HEXLOWER.encode(&mac));
        }
        Ok(truncated(&mac, self.digits))
    }

    /// Whether `answer` is the answer, compared in constant time.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub fn verify(
        &self,
        key: &Secret,
        data: &Data<'_>,
        answer: &str,
    ) -> Result<bool, PaymentError> {
        let wanted = Zeroizing::new(self.answer(key, data)?);
        Ok(wanted.as_bytes().ct_eq(answer.as_bytes()).into())
    }

    /// `OCRASuite ‖ 00 ‖ C ‖ Q ‖ P ‖ S ‖ T` (§5.1).
    fn message(&self, data: &Data<'_>) -> Option<Zeroizing<Vec<u8>>> {
        let same = |named: bool, given: bool| (named == given).then_some(());
        same(self.counter, data.counter.is_some())?;
        same(self.pin.is_some(), data.pin.is_some())?;
        same(self.session.is_some(), data.session.is_some())?;
        same(self.step_secs.is_some(), data.time.is_some())?;
        let mut message = Zeroizing::new(Vec::with_capacity(1024));
        message.extend_from_slice(self.name.as_bytes());
        message.push(0);
        if let Some(counter) = data.counter {
            message.extend_from_slice(&counter.to_be_bytes());
        }
        message.extend_from_slice(&self.question(data.question)?);
        if let (Some(sha), Some(pin)) = (self.pin, data.pin) {
            message.extend_from_slice(&sha.hash(pin.expose()));
        }
        if let (Some(len), Some(session)) = (self.session, data.session) {
            let zeros = len.checked_sub(session.len())?;
            message.extend(core::iter::repeat_n(0, zeros));
            message.extend_from_slice(session);
        }
        if let (Some(step), Some(time)) = (self.step_secs, data.time) {
            message.extend_from_slice(&(time.as_secs() / step).to_be_bytes());
        }
        Some(message)
    }

    /// The question in its field: as it is written, hexadecimal digits as half-bytes, and a number
    /// in hexadecimal, each from the left (§5.1 and the reference implementation).
    fn question(&self, questions: &[&str]) -> Option<Vec<u8>> {
        if questions.is_empty() || questions.len() > 2 {
            return None;
        }
        let fits = |question: &&str| {
            !question.is_empty()
                && question.len() <= self.question_max
                && question.bytes().all(|c| match self.format {
                    Format::Alphanumeric => c.is_ascii_alphanumeric(),
                    Format::Numeric => c.is_ascii_digit(),
                    Format::Hexadecimal => c.is_ascii_hexdigit(),
                })
        };
        if !questions.iter().all(fits) {
            return None;
        }
        let text = questions.concat();
        let mut field = match self.format {
            Format::Alphanumeric => text.into_bytes(),
            Format::Numeric => pack(&to_base_16(text.bytes().map(|c| c - b'0'))),
            Format::Hexadecimal => {
                let half = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
                pack(&text.bytes().filter_map(half).collect::<Vec<_>>())
            }
        };
        field.resize(QUESTION_LEN, 0);
        Some(field)
    }
}

/// A decimal number of `least` to `most` digits.
fn number(text: &str, least: usize, most: usize) -> Option<usize> {
    let canonical = text.len() >= least && text.len() <= most;
    let canonical = canonical && (least > 1 || text.len() == 1 || !text.starts_with('0'));
    (canonical && text.bytes().all(|c| c.is_ascii_digit())).then(|| text.parse().ok())?
}

/// The time step (§6.3, erratum 3729): 1 to 59 seconds or minutes, 1 to 48 hours; by default a
/// minute.
fn step_secs(step: &str) -> Option<u64> {
    if step.is_empty() {
        return Some(60);
    }
    let unit = step.len().checked_sub(1)?;
    let count = u64::try_from(number(step.get(..unit)?, 1, 2)?).ok()?;
    match (&step[unit..], count) {
        ("S", 1..=59) => Some(count),
        ("M", 1..=59) => Some(count * 60),
        ("H", 1..=48) => Some(count * 3600),
        _ => None,
    }
}

/// A number, most significant decimal digit first, in hexadecimal digits, as many as it needs.
fn to_base_16(decimal: impl Iterator<Item = u8>) -> Vec<u8> {
    let mut digits: Vec<u8> = vec![0]; // least significant first
    for next in decimal {
        let mut carry = u16::from(next);
        for digit in &mut digits {
            let value = u16::from(*digit) * 10 + carry;
            *digit = u8::try_from(value & 0xf).expect("four bits");
            carry = value >> 4;
        }
        while carry > 0 {
            digits.push(u8::try_from(carry & 0xf).expect("four bits"));
            carry >>= 4;
        }
    }
    digits.reverse();
    digits
}

/// Half-bytes from the left; an odd one at the end is the upper half.
fn pack(halves: &[u8]) -> Vec<u8> {
    halves.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or(0)).collect()
}

/// Dynamic truncation to decimal digits (RFC 4226 §5.3).
fn truncated(mac: &[u8], digits: u32) -> String {
    let offset = usize::from(mac[mac.len() - 1] & 0xf);
    let four: [u8; 4] = mac[offset..offset + 4].try_into().expect("a slice of four");
    let number = u64::from(u32::from_be_bytes(four) & 0x7fff_ffff) % 10_u64.pow(digits);
    alloc::format!("{number:0width$}", width = digits as usize)
}

/// The question that a confirmation request is: the hash of what would be signed, in hexadecimal.
#[must_use]
pub fn question(request: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&request_hash(request))
}

/// A device's answer to the bytes of a confirmation request. They must be one: a device answers
/// nothing that it could not show.
///
/// # Errors
/// As [`ConfirmationRequest::parse`](crate::ConfirmationRequest::parse).
pub fn respond(key: &Secret, request: &[u8]) -> Result<String, PaymentError> {
    crate::ConfirmationRequest::parse(request)?;
    digits(key, request)
}

/// Whether `answer` is the answer to the bytes of a confirmation request as the server holds them,
/// compared in constant time (D5).
#[must_use]
pub fn verify(key: &Secret, request: &[u8], answer: &str) -> bool {
    digits(key, request).is_ok_and(|wanted| wanted.as_bytes().ct_eq(answer.as_bytes()).into())
}

fn digits(key: &Secret, request: &[u8]) -> Result<String, PaymentError> {
    let question = question(request);
    let data = Data { question: &[&question], ..Data::default() };
    Suite::parse(PAYMENT_SUITE)?.answer(key, &data)
}

#[cfg(test)]
mod tests;
