//! Key check values (X9.24-1 annex A).

use alloc::vec::Vec;
use core::fmt;

use countersign_crypto::Secret;
use subtle::ConstantTimeEq;

use crate::{BlockCipher, Ciphers, Header, Kbpk, OptionalId, Tr31Error, policy};

/// Bytes of a legacy check value.
pub const LEGACY_LEN: usize = 3;
/// Bytes of a CMAC check value, as KC and KP hold it.
pub const CMAC_LEN: usize = 5;

/// How a check value is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KcvMethod {
    /// A block of zeros, encrypted.
    Legacy,
    /// The CMAC of a block of zeros.
    Cmac,
}

/// A key check value: shows which key it is, not what it is.
#[derive(Debug, Clone, Copy)]
pub struct Kcv {
    method: KcvMethod,
    bytes: [u8; CMAC_LEN],
    len: usize,
}

impl Kcv {
    /// A check value as it was received or stored, of one to three (legacy) or five (CMAC) bytes.
    #[must_use]
    pub fn new(method: KcvMethod, value: &[u8]) -> Option<Self> {
        let longest = match method {
            KcvMethod::Legacy => LEGACY_LEN,
            KcvMethod::Cmac => CMAC_LEN,
        };
        if value.is_empty() || value.len() > longest {
            return None;
        }
        let mut bytes = [0; CMAC_LEN];
        bytes[..value.len()].copy_from_slice(value);
        Some(Self { method, bytes, len: value.len() })
    }

    /// How it was made.
    #[must_use]
    pub const fn method(&self) -> KcvMethod {
        self.method
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The three bytes (or fewer) that are shown to people.
    #[must_use]
    pub fn shown(&self) -> Self {
        Self { len: self.len.min(LEGACY_LEN), ..*self }
    }

    /// True if this is the same value, or a longer form of it, made the same way. In constant time.
    #[must_use]
    pub fn starts_with(&self, shorter: &Self) -> bool {
        self.method == shorter.method
            && shorter.len <= self.len
            && self.bytes[..shorter.len].ct_eq(shorter.as_bytes()).into()
    }

    /// As the value of an optional block KC or KP: method and value in hex digits.
    #[must_use]
    pub fn to_optional_data(&self) -> Vec<u8> {
        let method: &[u8] = match self.method {
            KcvMethod::Legacy => b"00",
            KcvMethod::Cmac => b"01",
        };
        let mut data = method.to_vec();
        for byte in self.as_bytes() {
            data.push(b"0123456789ABCDEF"[usize::from(byte >> 4)]);
            data.push(b"0123456789ABCDEF"[usize::from(byte & 0xF)]);
        }
        data
    }

    /// From the value of an optional block KC, KP or PK. None if it is in another format.
    #[must_use]
    pub fn from_optional(data: &[u8]) -> Option<Self> {
        let (method, digits) = data.split_at_checked(2)?;
        let method = match method {
            b"00" => KcvMethod::Legacy,
            b"01" => KcvMethod::Cmac,
            _ => return None,
        };
        if digits.len() > 2 * CMAC_LEN || !digits.len().is_multiple_of(2) {
            return None;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let bytes = digits
            .chunks_exact(2)
            .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
            .collect::<Option<Vec<u8>>>()?;
        Self::new(method, &bytes)
    }
}

/// In constant time.
impl PartialEq for Kcv {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.starts_with(other)
    }
}

impl Eq for Kcv {}

impl fmt::Display for Kcv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.as_bytes() {
            write!(f, "{byte:02X}")?;
        }
        Ok(())
    }
}

/// The check value that goes with the algorithm: legacy for TDES and DES, CMAC for AES.
///
/// # Errors
/// [`Tr31Error::KcvMethod`] for other algorithms; [`Tr31Error::Cipher`].
pub fn kcv(ciphers: &dyn Ciphers, algorithm: u8, key: &Secret) -> Result<Kcv, Tr31Error> {
    match policy::cipher_of(algorithm) {
        Some(BlockCipher::Tdes) => kcv_by(ciphers, BlockCipher::Tdes, key, KcvMethod::Legacy),
        Some(BlockCipher::Aes) => kcv_by(ciphers, BlockCipher::Aes, key, KcvMethod::Cmac),
        None => Err(Tr31Error::KcvMethod),
    }
}

/// The check value by this method.
///
/// # Errors
/// [`Tr31Error::KcvMethod`] for CMAC under single DES; [`Tr31Error::Cipher`].
pub fn kcv_by(
    ciphers: &dyn Ciphers,
    cipher: BlockCipher,
    key: &Secret,
    method: KcvMethod,
) -> Result<Kcv, Tr31Error> {
    let zeros = [0; 16];
    let zeros = &zeros[..cipher.block_len()];
    match method {
        KcvMethod::Legacy => {
            let mut block = zeros.to_vec();
            ciphers.cbc_encrypt(cipher, key, zeros, &mut block)?;
            Kcv::new(method, &block[..LEGACY_LEN])
        }
        KcvMethod::Cmac if key.len() == 8 => None,
        KcvMethod::Cmac => {
            Kcv::new(method, &ciphers.cmac(cipher, key, zeros)?.expose()[..CMAC_LEN])
        }
    }
    .ok_or(Tr31Error::KcvMethod)
}

/// Whether the header's block KC, where there is one, is the check value of `key`.
///
/// # Errors
/// [`Tr31Error::Kcv`] if it is another key's; [`Tr31Error::KcvMethod`]; [`Tr31Error::Cipher`].
pub fn check_kc(ciphers: &dyn Ciphers, header: &Header, key: &Secret) -> Result<(), Tr31Error> {
    let given = header.block(OptionalId::KC).and_then(|block| Kcv::from_optional(&block.data));
    let (Some(given), Some(cipher)) = (given, policy::cipher_of(header.algorithm)) else {
        return Ok(());
    };
    let computed = kcv_by(ciphers, cipher, key, given.method())?;
    if computed.starts_with(&given) { Ok(()) } else { Err(Tr31Error::Kcv) }
}

/// The check value of a block protection key: legacy for a TDES key in the clear, else by CMAC.
pub(crate) fn kbpk_kcv(
    ciphers: &dyn Ciphers,
    kbpk: Kbpk<'_>,
    cipher: BlockCipher,
) -> Result<Kcv, Tr31Error> {
    match (kbpk, cipher) {
        (Kbpk::Clear(key), BlockCipher::Tdes) => kcv_by(ciphers, cipher, key, KcvMethod::Legacy),
        _ => {
            let mac = kbpk.cmac(ciphers, cipher, &[0; 16][..cipher.block_len()])?;
            let value = mac.expose().get(..CMAC_LEN).ok_or(Tr31Error::KcvMethod)?;
            Kcv::new(KcvMethod::Cmac, value).ok_or(Tr31Error::KcvMethod)
        }
    }
}
