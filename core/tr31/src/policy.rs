//! What may be in a key block: which usage goes with which algorithm and mode, which keys are fit
//! for use, and which key may wrap which.
//!
//! X9.143 6.3.1 to 6.3.5 define the values one by one. The combinations here are the ones the field
//! uses; "N" (no restriction beyond the usage) goes with every usage. `tr34` applies the same
//! functions to the headers and keys in its tokens.

use countersign_crypto::Secret;
use subtle::{Choice, ConstantTimeEq};

use crate::leniency::Tolerance;
use crate::{BlockCipher, Header, KeyFault, Leniency, Tr31Error};

/// One row: usages, the algorithms and the modes they go with.
struct Rule {
    usages: &'static [&'static [u8; 2]],
    algorithms: &'static [u8],
    modes: &'static [u8],
}

/// X9.143 table 2, grouped by what goes together.
const RULES: [Rule; 17] = [
    Rule { usages: &[b"B0", b"B1", b"B2"], algorithms: b"AT", modes: b"XYN" },
    Rule { usages: &[b"B3"], algorithms: b"AHT", modes: b"XN" },
    Rule { usages: &[b"C0"], algorithms: b"ADT", modes: b"CGVN" },
    Rule { usages: &[b"D0", b"D2", b"D3"], algorithms: b"ADT", modes: b"BDEN" },
    Rule { usages: &[b"D1", b"E7"], algorithms: b"ER", modes: b"BDEN" },
    Rule { usages: &[b"E0", b"E3", b"E4"], algorithms: b"ADT", modes: b"XCGVN" },
    Rule { usages: &[b"E1"], algorithms: b"ADT", modes: b"XBDEN" },
    Rule { usages: &[b"E2", b"E5", b"E6"], algorithms: b"ADT", modes: b"XBCDEGVYN" },
    Rule { usages: &[b"I0"], algorithms: b"ADT", modes: b"N" },
    Rule { usages: &[b"K0", b"K1"], algorithms: b"ADT", modes: b"BDEXN" },
    Rule { usages: &[b"K4"], algorithms: b"A", modes: b"BDEXN" },
    Rule { usages: &[b"K2", b"K3"], algorithms: b"ER", modes: b"BDEXSTN" },
    Rule { usages: &[b"M0", b"M3", b"M5"], algorithms: b"DT", modes: b"CGVN" },
    Rule { usages: &[b"M1", b"M2", b"M4", b"M6", b"M8"], algorithms: b"ADT", modes: b"CGVN" },
    Rule { usages: &[b"M7"], algorithms: b"H", modes: b"CGVN" },
    Rule { usages: &[b"S0", b"S1", b"S2"], algorithms: b"ERS", modes: b"CDEGSTVN" },
    Rule {
        usages: &[b"V0", b"V1", b"V2", b"V3", b"V4", b"V5", b"P1"],
        algorithms: b"ADT",
        modes: b"CGVN",
    },
];

/// PIN encryption stands alone: never single DES.
const PIN_ENCRYPTION: Rule = Rule { usages: &[b"P0"], algorithms: b"AT", modes: b"BDEN" };

/// Strengths are compared up to here: nothing wraps with more.
const STRENGTH_MAX: u32 = 256;

fn rule(usage: [u8; 2]) -> Option<&'static Rule> {
    core::iter::once(&PIN_ENCRYPTION).chain(&RULES).find(|rule| rule.usages.contains(&&usage))
}

/// True for a key usage that X9.143 defines.
#[must_use]
pub fn is_usage(usage: [u8; 2]) -> bool {
    rule(usage).is_some()
}

/// True for an algorithm that X9.143 defines.
#[must_use]
pub const fn is_algorithm(algorithm: u8) -> bool {
    matches!(algorithm, b'A' | b'D' | b'E' | b'H' | b'R' | b'S' | b'T')
}

/// True for a mode of use that X9.143 defines.
#[must_use]
pub const fn is_mode(mode: u8) -> bool {
    matches!(mode, b'B' | b'C' | b'D' | b'E' | b'G' | b'N' | b'S' | b'T' | b'V' | b'X' | b'Y')
}

/// The block cipher of a key of this algorithm, if it is one.
#[must_use]
pub const fn cipher_of(algorithm: u8) -> Option<BlockCipher> {
    match algorithm {
        b'A' => Some(BlockCipher::Aes),
        b'D' | b'T' => Some(BlockCipher::Tdes),
        _ => None,
    }
}

/// Whether the header's values are defined and go together. Strict.
///
/// # Errors
/// The failed check.
pub fn check_header(header: &Header) -> Result<(), Tr31Error> {
    let mut strict = Tolerance::default();
    header.check_values(&mut strict)?;
    header.check_order()?;
    for block in &header.optional {
        block.check(&mut strict)?;
    }
    combination(header, &mut strict)
}

/// Whether usage, algorithm, mode and optional blocks go together.
pub(crate) fn combination(header: &Header, tolerance: &mut Tolerance) -> Result<(), Tr31Error> {
    let departure = Leniency::HEADER_COMBINATION;
    // Values outside the standard were let in by name before; nothing is known of them.
    if let Some(rule) = rule(header.usage) {
        if is_algorithm(header.algorithm) {
            let fits = rule.algorithms.contains(&header.algorithm);
            tolerance.require(fits, departure, Tr31Error::UsageAlgorithm)?;
        }
        if is_mode(header.mode) {
            let fits = rule.modes.contains(&header.mode);
            tolerance.require(fits, departure, Tr31Error::UsageMode)?;
        }
    }
    for block in &header.optional {
        let fits = match (&block.id.0, header.algorithm) {
            (b"AL" | b"CT", algorithm) => matches!(algorithm, b'E' | b'R' | b'S'),
            (b"HM", algorithm) => algorithm == b'H',
            (b"IK", algorithm) => algorithm == b'A',
            (b"KS", algorithm) => matches!(algorithm, b'D' | b'T'),
            (b"BI", b'T' | b'D') => block.data.starts_with(b"00"),
            (b"BI", b'A') => block.data.starts_with(b"01"),
            (b"BI", _) => false,
            _ => true,
        };
        tolerance.require(fits, departure, Tr31Error::OptionalMisplaced(block.id))?;
    }
    Ok(())
}

/// Whether the header is a whole key's (X9.143 6.3.4). A component may travel in a key block, but
/// in use it would be a key that one custodian knows.
///
/// # Errors
/// [`Tr31Error::Component`].
pub const fn check_whole(header: &Header) -> Result<(), Tr31Error> {
    if header.key_version[0] == b'c' { Err(Tr31Error::Component) } else { Ok(()) }
}

/// Whether the key is fit for what the header says: length, and for DES parity, weak keys and
/// equal halves. Strict.
///
/// # Errors
/// [`Tr31Error::Key`].
pub fn check_key(header: &Header, key: &Secret) -> Result<(), Tr31Error> {
    wrapped_key(header, key, &mut Tolerance::default())
}

pub(crate) fn wrapped_key(
    header: &Header,
    key: &Secret,
    tolerance: &mut Tolerance,
) -> Result<(), Tr31Error> {
    // X9.24-1 computes initial keys byte by byte: they have no parity, and none may be set.
    let parity = if header.usage == *b"B1" { Parity::Any } else { Parity::Odd };
    match header.algorithm {
        b'A' if matches!(key.len(), 16 | 24 | 32) => Ok(()),
        b'T' | b'D' => des(key.expose(), parity, tolerance).map_err(Tr31Error::Key),
        b'A' => Err(Tr31Error::Key(KeyFault::Length)),
        _ if key.is_empty() => Err(Tr31Error::Key(KeyFault::Length)),
        _ => Ok(()),
    }
}

/// Whether a key is fit to protect key blocks. Strict.
///
/// # Errors
/// [`Tr31Error::KbpkLength`], [`Tr31Error::Kbpk`].
pub fn check_kbpk(cipher: BlockCipher, key: &Secret) -> Result<(), Tr31Error> {
    kbpk(cipher, key, &mut Tolerance::default())
}

pub(crate) fn kbpk(
    cipher: BlockCipher,
    key: &Secret,
    tolerance: &mut Tolerance,
) -> Result<(), Tr31Error> {
    match (cipher, key.len()) {
        (BlockCipher::Tdes, 16 | 24) => {
            des(key.expose(), Parity::Odd, tolerance).map_err(Tr31Error::Kbpk)
        }
        (BlockCipher::Aes, 16 | 24 | 32) => Ok(()),
        _ => Err(Tr31Error::KbpkLength),
    }
}

/// Whether the wrapping key is at least as strong as the wrapped. A strength that is not known
/// (an asymmetric key in an encoding not known here) is not compared. Strict.
///
/// # Errors
/// [`Tr31Error::WeakerWrappingKey`].
pub fn check_wrapping(wrapping_bits: u32, wrapped: Option<u32>) -> Result<(), Tr31Error> {
    wrapping(wrapping_bits, wrapped, &mut Tolerance::default())
}

pub(crate) fn wrapping(
    wrapping_bits: u32,
    wrapped: Option<u32>,
    tolerance: &mut Tolerance,
) -> Result<(), Tr31Error> {
    let fits = wrapped.is_none_or(|wrapped| wrapped.min(STRENGTH_MAX) <= wrapping_bits);
    tolerance.require(fits, Leniency::WEAKER_WRAPPING_KEY, Tr31Error::WeakerWrappingKey)
}

/// The security strength of a key in bits (NIST SP 800-57 part 1, table 2): two-key TDES 80,
/// three-key 112, TDES with equal neighbours 56 as single DES; AES its length; HMAC its length; RSA
/// by its modulus and EC by its private scalar, from a PKCS#1, SEC 1 or PKCS#8 encoding. None where
/// it cannot be told.
#[must_use]
pub fn strength_bits(algorithm: u8, key: &[u8]) -> Option<u32> {
    match algorithm {
        b'T' | b'D' => {
            block_cipher_strength(BlockCipher::Tdes, key.len())?;
            block_cipher_strength(BlockCipher::Tdes, distinct_des_len(key))
        }
        b'A' => block_cipher_strength(BlockCipher::Aes, key.len()),
        b'H' => u32::try_from(key.len()).ok()?.checked_mul(8),
        b'R' | b'E' => private_key(key, true).map(|len| match len {
            AsymmetricLen::Modulus(len) => rsa_strength_bits(len * 8),
            AsymmetricLen::Scalar(len) => len * 4,
        }),
        _ => None,
    }
}

/// The strength of a block cipher's key by its length in bytes, if it has such keys.
#[must_use]
pub const fn block_cipher_strength(cipher: BlockCipher, key_len: usize) -> Option<u32> {
    match (cipher, key_len) {
        (BlockCipher::Tdes, 8) => Some(56),
        (BlockCipher::Tdes, 16) => Some(80),
        (BlockCipher::Tdes, 24) => Some(112),
        (BlockCipher::Aes, 16) => Some(128),
        (BlockCipher::Aes, 24) => Some(192),
        (BlockCipher::Aes, 32) => Some(256),
        _ => None,
    }
}

/// The strength of an RSA key by the bits of its modulus (NIST SP 800-57 part 1, table 2).
#[must_use]
pub const fn rsa_strength_bits(modulus_bits: u32) -> u32 {
    match modulus_bits {
        0..1024 => 0,
        1024..2048 => 80,
        2048..3072 => 112,
        3072..7680 => 128,
        7680..15360 => 192,
        _ => 256,
    }
}

/// Sets the parity of every byte odd, as DES keys have it.
#[must_use]
pub fn with_odd_parity(key: &Secret) -> Secret {
    let mut bytes = alloc::vec::Vec::with_capacity(key.len());
    bytes.extend(key.expose().iter().map(|byte| {
        let upper = byte & 0xFE;
        upper | u8::from(upper.count_ones().is_multiple_of(2))
    }));
    Secret::new(bytes)
}

/// What is asked of the parity of a DES key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parity {
    Odd,
    Any,
}

/// Lengths, single DES, weak keys, equal halves and parity of a DES or TDES key. All bytes are
/// looked at whatever they are.
fn des(key: &[u8], parity: Parity, tolerance: &mut Tolerance) -> Result<(), KeyFault> {
    let fault = |fault: KeyFault| move |_: Tr31Error| fault;
    match key.len() {
        8 => tolerance
            .allow(Leniency::SINGLE_DES, Tr31Error::Key(KeyFault::SingleDes))
            .map_err(fault(KeyFault::SingleDes))?,
        16 | 24 => {}
        _ => return Err(KeyFault::Length),
    }
    let mut weak = Choice::from(0);
    let mut equal = Choice::from(0);
    let mut before: Option<&[u8]> = None;
    for part in key.chunks_exact(8) {
        for known in WEAK {
            weak |= same_des_key(part, &known);
        }
        if let Some(before) = before {
            equal |= same_des_key(part, before);
        }
        before = Some(part);
    }
    if weak.into() {
        return Err(KeyFault::Weak);
    }
    if equal.into() {
        return Err(KeyFault::EqualHalves);
    }
    if parity == Parity::Any {
        return Ok(());
    }
    let even = key.iter().fold(0, |even, byte| even | ((byte.count_ones() + 1) % 2));
    tolerance
        .require(even == 0, Leniency::DES_PARITY, Tr31Error::Key(KeyFault::Parity))
        .map_err(fault(KeyFault::Parity))
}

/// The bytes of a DES or TDES key that count: equal neighbours cancel each other out and leave
/// single DES, and a third part equal to the first is two-key TDES.
fn distinct_des_len(key: &[u8]) -> usize {
    let same = |one: usize, other: usize| {
        let part = |number: usize| key.get(number * 8..number * 8 + 8);
        part(one).zip(part(other)).map_or(Choice::from(0), |(one, other)| same_des_key(one, other))
    };
    if (same(0, 1) | same(1, 2)).into() {
        8
    } else if same(0, 2).into() {
        16
    } else {
        key.len()
    }
}

/// Equality of two single DES keys, parity aside.
fn same_des_key(one: &[u8], other: &[u8]) -> Choice {
    let differs = one.iter().zip(other).fold(0, |all, (one, other)| all | ((one ^ other) & 0xFE));
    differs.ct_eq(&0)
}

/// The weak and the semi-weak keys of DES (NIST SP 800-67).
const WEAK: [[u8; 8]; 16] = [
    [0x01; 8],
    [0xFE; 8],
    [0xE0, 0xE0, 0xE0, 0xE0, 0xF1, 0xF1, 0xF1, 0xF1],
    [0x1F, 0x1F, 0x1F, 0x1F, 0x0E, 0x0E, 0x0E, 0x0E],
    [0x01, 0xFE, 0x01, 0xFE, 0x01, 0xFE, 0x01, 0xFE],
    [0xFE, 0x01, 0xFE, 0x01, 0xFE, 0x01, 0xFE, 0x01],
    [0x1F, 0xE0, 0x1F, 0xE0, 0x0E, 0xF1, 0x0E, 0xF1],
    [0xE0, 0x1F, 0xE0, 0x1F, 0xF1, 0x0E, 0xF1, 0x0E],
    [0x01, 0xE0, 0x01, 0xE0, 0x01, 0xF1, 0x01, 0xF1],
    [0xE0, 0x01, 0xE0, 0x01, 0xF1, 0x01, 0xF1, 0x01],
    [0x1F, 0xFE, 0x1F, 0xFE, 0x0E, 0xFE, 0x0E, 0xFE],
    [0xFE, 0x1F, 0xFE, 0x1F, 0xFE, 0x0E, 0xFE, 0x0E],
    [0x01, 0x1F, 0x01, 0x1F, 0x01, 0x0E, 0x01, 0x0E],
    [0x1F, 0x01, 0x1F, 0x01, 0x0E, 0x01, 0x0E, 0x01],
    [0xE0, 0xFE, 0xE0, 0xFE, 0xF1, 0xFE, 0xF1, 0xFE],
    [0xFE, 0xE0, 0xFE, 0xE0, 0xFE, 0xF1, 0xFE, 0xF1],
];

/// The length of an RSA modulus (PKCS#1) or of an EC private scalar (SEC 1), from the start of a
/// DER private key; through PKCS#8 where it is wrapped in that, once.
fn private_key(der: &[u8], may_be_wrapped: bool) -> Option<AsymmetricLen> {
    let (0x30, body, _) = element(der)? else { return None };
    let (0x02, _, body) = element(body)? else { return None };
    match element(body)? {
        (0x02, modulus, _) => {
            let significant = modulus.iter().skip_while(|&&byte| byte == 0).count();
            Some(AsymmetricLen::Modulus(u32::try_from(significant).ok()?))
        }
        (0x04, scalar, _) => Some(AsymmetricLen::Scalar(u32::try_from(scalar.len()).ok()?)),
        (0x30, _, rest) if may_be_wrapped => match element(rest)? {
            (0x04, inner, _) => private_key(inner, false),
            _ => None,
        },
        _ => None,
    }
}

/// What an asymmetric key's strength follows from, in bytes.
enum AsymmetricLen {
    Modulus(u32),
    Scalar(u32),
}

/// One DER element at the start: tag, content, what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        0x81 => {
            let (&[length], rest) = rest.split_first_chunk::<1>()?;
            (usize::from(length), rest)
        }
        0x82 => {
            let (&length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(length)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}
