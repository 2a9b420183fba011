//! Wrapping and unwrapping.

use alloc::string::String;
use alloc::vec::Vec;

use countersign_crypto::{CryptoRng, Secret};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::kbpk::BlockKeys;
use crate::kcv::{self, Kcv, KcvMethod};
use crate::leniency::Tolerance;
use crate::optional::is_printable;
use crate::{BLOCK_MAX, Ciphers, Header, Kbpk, Leniency, OptionalId, Tr31Error, Version, policy};

/// The length of a key in front of it, in bits.
const LENGTH_LEN: usize = 2;

/// Where the padding of a payload comes from.
pub enum Padding<'a> {
    /// As much as is needed, drawn here.
    Random(&'a mut dyn CryptoRng),
    /// These bytes, which must fill up whole cipher blocks: for blocks that have to come out byte
    /// by byte.
    Exact(&'a [u8]),
}

/// What an unwrapped key block holds.
#[derive(Debug)]
pub struct Unwrapped {
    /// The header, authenticated.
    pub header: Header,
    /// The key.
    pub key: Secret,
    /// The departures that were met and allowed.
    pub used: Leniency,
}

/// Wraps `key` under `kbpk`: the key block. [`Header::length`] is set, a PB is added where the
/// optional blocks need one, and blocks KC and KP with an empty value get the check values.
///
/// The key's length is hidden by padding to the longest key of its algorithm (X9.143), unless
/// [`Leniency::NO_LENGTH_OBFUSCATION`] is given. Departures from the standard are written only
/// where `leniency` names them.
///
/// # Errors
/// The failed check.
pub fn wrap(
    ciphers: &dyn Ciphers,
    kbpk: Kbpk<'_>,
    header: &Header,
    key: &Secret,
    padding: Padding<'_>,
    leniency: Leniency,
) -> Result<String, Tr31Error> {
    let mut tolerance = Tolerance::new(leniency);
    let mut header = header.clone();
    kbpk.check(header.version, &mut tolerance)?;
    policy::wrapped_key(&header, key, &mut tolerance)?;
    let strength = policy::strength_bits(header.algorithm, key.expose());
    policy::wrapping(kbpk.strength(header.version)?, strength, &mut tolerance)?;
    fill_check_values(ciphers, kbpk, &mut header, key)?;
    header.check_values(&mut tolerance)?;
    header.check_order()?;
    for block in &header.optional {
        block.check(&mut tolerance)?;
    }
    policy::combination(&header, &mut tolerance)?;
    check_values(ciphers, kbpk, &header, key)?;
    header.pad_optional()?;

    let mut payload = payload(&header, key, padding, &mut tolerance)?;
    let version = header.version;
    let head_len = header.encode_as(leniency)?.len();
    let total = head_len + 2 * (payload.len() + version.mac_len());
    if total > BLOCK_MAX {
        return Err(Tr31Error::TooLong);
    }
    header.length = u16::try_from(total).map_err(|_| Tr31Error::TooLong)?;
    let head = header.encode_as(leniency)?;
    let keys = kbpk.block_keys(ciphers, version)?;
    let mac = seal(ciphers, version, &keys, &head, &mut payload)?;

    let mut block = String::with_capacity(total);
    block.extend(head.iter().map(|&byte| char::from(byte)));
    for byte in payload.iter().chain(&mac) {
        for digit in [byte >> 4, byte & 0xF] {
            block.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
        }
    }
    Ok(block)
}

/// Unwraps a key block. The MAC is checked over the received header and the payload before
/// anything of the payload is looked at.
///
/// # Errors
/// The failed check.
pub fn unwrap(
    ciphers: &dyn Ciphers,
    kbpk: Kbpk<'_>,
    block: &[u8],
    leniency: Leniency,
) -> Result<Unwrapped, Tr31Error> {
    let mut tolerance = Tolerance::new(leniency);
    let Received { header, head, mut payload, mac } = Received::read(block, &mut tolerance)?;
    let version = header.version;
    kbpk.check(version, &mut tolerance)?;
    let keys = kbpk.block_keys(ciphers, version)?;
    open(ciphers, version, &keys, head, &mut payload, &mac)?;

    let key = key_inside(&header, &payload, &mut tolerance)?;
    policy::combination(&header, &mut tolerance)?;
    policy::wrapped_key(&header, &key, &mut tolerance)?;
    let strength = policy::strength_bits(header.algorithm, key.expose());
    policy::wrapping(kbpk.strength(version)?, strength, &mut tolerance)?;
    check_values(ciphers, kbpk, &header, &key)?;
    Ok(Unwrapped { header, key, used: tolerance.used })
}

/// What a key block says without its protection key. Nothing of it is authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// The header.
    pub header: Header,
    /// Bytes of the encrypted payload.
    pub payload_len: usize,
    /// The departures that the header and the encoding show.
    pub used: Leniency,
}

/// Reads a key block without opening it.
///
/// # Errors
/// The failed check.
pub fn inspect(block: &[u8], leniency: Leniency) -> Result<Inspected, Tr31Error> {
    let mut tolerance = Tolerance::new(leniency);
    let Received { header, payload, .. } = Received::read(block, &mut tolerance)?;
    policy::combination(&header, &mut tolerance)?;
    Ok(Inspected { header, payload_len: payload.len(), used: tolerance.used })
}

/// The parts of a key block as they arrived.
struct Received<'a> {
    header: Header,
    head: &'a [u8],
    payload: Zeroizing<Vec<u8>>,
    mac: Vec<u8>,
}

impl<'a> Received<'a> {
    fn read(block: &'a [u8], tolerance: &mut Tolerance) -> Result<Self, Tr31Error> {
        if block.len() > BLOCK_MAX {
            return Err(Tr31Error::TooLong);
        }
        if !block.iter().all(is_printable) {
            return Err(Tr31Error::Character);
        }
        let (header, head_len) = Header::read(block, tolerance)?;
        if usize::from(header.length) != block.len() {
            return Err(Tr31Error::BlockLength);
        }
        let version = header.version;
        let (head, body) = block.split_at(head_len);
        let mac_at = body.len().checked_sub(2 * version.mac_len()).ok_or(Tr31Error::BlockLength)?;
        let (payload, mac) = body.split_at(mac_at);
        let payload = Zeroizing::new(hex(payload, tolerance)?);
        if payload.len() < LENGTH_LEN || !payload.len().is_multiple_of(version.payload_unit()) {
            return Err(Tr31Error::PayloadLength);
        }
        Ok(Self { header, head, payload, mac: hex(mac, tolerance)? })
    }
}

/// The payload in the clear: length in bits, key, padding.
fn payload(
    header: &Header,
    key: &Secret,
    padding: Padding<'_>,
    tolerance: &mut Tolerance,
) -> Result<Zeroizing<Vec<u8>>, Tr31Error> {
    let bits = u16::try_from(key.len() * 8).map_err(|_| Tr31Error::TooLong)?;
    let unit = header.version.payload_unit();
    let hidden = (LENGTH_LEN + hidden_len(header.algorithm, key.len())).next_multiple_of(unit);
    let bare = (LENGTH_LEN + key.len()).next_multiple_of(unit);
    let total = match &padding {
        Padding::Random(_) if tolerance.allows(Leniency::NO_LENGTH_OBFUSCATION) => bare,
        Padding::Random(_) => hidden,
        Padding::Exact(padding) => LENGTH_LEN + key.len() + padding.len(),
    };
    if !total.is_multiple_of(unit) {
        return Err(Tr31Error::Padding);
    }
    tolerance.require(
        total >= hidden,
        Leniency::NO_LENGTH_OBFUSCATION,
        Tr31Error::LengthObfuscation,
    )?;
    let mut payload = Zeroizing::new(Vec::with_capacity(total));
    payload.extend_from_slice(&bits.to_be_bytes());
    payload.extend_from_slice(key.expose());
    match padding {
        Padding::Random(rng) => {
            let filled = payload.len();
            payload.resize(total, 0);
            rng.fill_bytes(&mut payload[filled..]);
        }
        Padding::Exact(padding) => payload.extend_from_slice(padding),
    }
    Ok(payload)
}

/// The length that a key of this algorithm is padded to, in bytes.
fn hidden_len(algorithm: u8, key_len: usize) -> usize {
    match algorithm {
        b'D' | b'T' => key_len.max(24),
        b'A' => key_len.max(32),
        // X9.143 names no longest key for the others.
        _ => key_len,
    }
}

/// The key out of an authenticated payload.
fn key_inside(
    header: &Header,
    payload: &[u8],
    tolerance: &mut Tolerance,
) -> Result<Secret, Tr31Error> {
    let (length, rest) =
        payload.split_first_chunk::<LENGTH_LEN>().ok_or(Tr31Error::PayloadLength)?;
    let bits = usize::from(u16::from_be_bytes(*length));
    if !bits.is_multiple_of(8) {
        return Err(Tr31Error::EncodedKeyLength);
    }
    let key = rest.get(..bits / 8).ok_or(Tr31Error::EncodedKeyLength)?;
    tolerance.require(
        rest.len() >= hidden_len(header.algorithm, key.len()),
        Leniency::NO_LENGTH_OBFUSCATION,
        Tr31Error::LengthObfuscation,
    )?;
    Ok(Secret::copied_from(key))
}

/// Encrypts the payload in place and returns the MAC.
fn seal(
    ciphers: &dyn Ciphers,
    version: Version,
    keys: &BlockKeys,
    head: &[u8],
    payload: &mut [u8],
) -> Result<Vec<u8>, Tr31Error> {
    let cipher = version.cipher();
    if matches!(version, Version::A | Version::C) {
        ciphers.cbc_encrypt(cipher, &keys.encryption, &head[..8], payload)?;
        return cbc_mac(ciphers, version, keys, head, payload);
    }
    let mac = derived_mac(ciphers, version, keys, head, payload)?;
    crypt(ciphers, version, keys, &mac, payload, Direction::Encrypt)?;
    Ok(mac)
}

/// Checks the MAC and decrypts the payload in place. Where the MAC is over the ciphertext it is
/// checked first; where it is over the plaintext nothing is done with that before.
fn open(
    ciphers: &dyn Ciphers,
    version: Version,
    keys: &BlockKeys,
    head: &[u8],
    payload: &mut [u8],
    mac: &[u8],
) -> Result<(), Tr31Error> {
    let expected = if matches!(version, Version::A | Version::C) {
        cbc_mac(ciphers, version, keys, head, payload)?
    } else {
        crypt(ciphers, version, keys, mac, payload, Direction::Decrypt)?;
        derived_mac(ciphers, version, keys, head, payload)?
    };
    if !bool::from(expected.as_slice().ct_eq(mac)) {
        return Err(Tr31Error::Mac);
    }
    if matches!(version, Version::A | Version::C) {
        ciphers.cbc_decrypt(version.cipher(), &keys.encryption, &head[..8], payload)?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Direction {
    Encrypt,
    Decrypt,
}

/// The payload of versions B, D and E, whose start is the MAC.
fn crypt(
    ciphers: &dyn Ciphers,
    version: Version,
    keys: &BlockKeys,
    mac: &[u8],
    payload: &mut [u8],
    direction: Direction,
) -> Result<(), Tr31Error> {
    let cipher = version.cipher();
    match (version, direction) {
        (Version::E, _) => {
            let counter = mac.first_chunk().ok_or(Tr31Error::Mac)?;
            ciphers.aes_ctr(&keys.encryption, counter, payload)?;
        }
        (_, Direction::Encrypt) => {
            ciphers.cbc_encrypt(cipher, &keys.encryption, mac, payload)?;
        }
        (_, Direction::Decrypt) => {
            ciphers.cbc_decrypt(cipher, &keys.encryption, mac, payload)?;
        }
    }
    Ok(())
}

/// The MAC of versions A and C: the start of the last CBC block of header and ciphertext.
fn cbc_mac(
    ciphers: &dyn Ciphers,
    version: Version,
    keys: &BlockKeys,
    head: &[u8],
    payload: &[u8],
) -> Result<Vec<u8>, Tr31Error> {
    let block_len = version.cipher().block_len();
    let mut data = [head, payload].concat();
    // Only optional blocks that are not whole cipher blocks (by leniency) leave a rest.
    data.resize(data.len().next_multiple_of(block_len), 0);
    ciphers.cbc_encrypt(version.cipher(), &keys.authentication, &[0; 8], &mut data)?;
    let last = data.len() - block_len;
    Ok(data[last..last + version.mac_len()].to_vec())
}

/// The MAC of versions B, D and E: the CMAC of header and plaintext.
fn derived_mac(
    ciphers: &dyn Ciphers,
    version: Version,
    keys: &BlockKeys,
    head: &[u8],
    payload: &[u8],
) -> Result<Vec<u8>, Tr31Error> {
    let data = Zeroizing::new([head, payload].concat());
    let mac = ciphers.cmac(version.cipher(), &keys.authentication, &data)?;
    Ok(mac.expose().to_vec())
}

/// Gives blocks KC and KP without a value the check values they stand for.
fn fill_check_values(
    ciphers: &dyn Ciphers,
    kbpk: Kbpk<'_>,
    header: &mut Header,
    key: &Secret,
) -> Result<(), Tr31Error> {
    let (algorithm, version) = (header.algorithm, header.version);
    for block in header.optional.iter_mut().filter(|block| block.data.is_empty()) {
        let value = match block.id {
            OptionalId::KC => kcv::kcv(ciphers, algorithm, key)?,
            OptionalId::KP => kcv::kbpk_kcv(ciphers, kbpk, version.cipher())?,
            _ => continue,
        };
        block.data = value.to_optional_data();
    }
    Ok(())
}

/// Whether blocks KC and KP hold the check values of the wrapped and the wrapping key. A legacy
/// value of a held key cannot be computed by CMAC and is not compared.
fn check_values(
    ciphers: &dyn Ciphers,
    kbpk: Kbpk<'_>,
    header: &Header,
    key: &Secret,
) -> Result<(), Tr31Error> {
    kcv::check_kc(ciphers, header, key)?;
    let given = header.block(OptionalId::KP).and_then(|block| Kcv::from_optional(&block.data));
    if let Some(given) = given {
        let cipher = header.version.cipher();
        let computed = match (kbpk, given.method()) {
            (Kbpk::Clear(kbpk), method) => kcv::kcv_by(ciphers, cipher, kbpk, method)?,
            (Kbpk::Held(_), KcvMethod::Cmac) => kcv::kbpk_kcv(ciphers, kbpk, cipher)?,
            (Kbpk::Held(_), KcvMethod::Legacy) => return Ok(()),
        };
        if !computed.starts_with(&given) {
            return Err(Tr31Error::KbpkKcv);
        }
    }
    Ok(())
}

fn hex(digits: &[u8], tolerance: &mut Tolerance) -> Result<Vec<u8>, Tr31Error> {
    if !digits.len().is_multiple_of(2) {
        return Err(Tr31Error::BlockLength);
    }
    let digit = |digit: u8, lower_case: &mut bool| match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        b'a'..=b'f' => {
            *lower_case = true;
            Ok(digit - b'a' + 10)
        }
        _ => Err(Tr31Error::Hex),
    };
    let mut lower_case = false;
    let bytes = digits
        .chunks_exact(2)
        .map(|pair| Ok(digit(pair[0], &mut lower_case)? << 4 | digit(pair[1], &mut lower_case)?))
        .collect::<Result<Vec<u8>, Tr31Error>>()?;
    tolerance.require(!lower_case, Leniency::LOWER_CASE_HEX, Tr31Error::Hex)?;
    Ok(bytes)
}
