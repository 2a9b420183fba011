//! The bodies of the handshake messages, named as in `docs/protocols/channel.md`.

pub(crate) mod connect;
pub(crate) mod pair;

use alloc::format; // the codec derives name it
use alloc::string::String;
use alloc::vec::Vec;

use countersign_crypto::Digest;
use countersign_pki::{CertificateNumber, Identity, Role};
use tls_codec::{DeserializeBytes, SerializeBytes, TlsByteVecU8, TlsByteVecU16};
use tls_codec::{TlsDeserializeBytes, TlsSerializeBytes, TlsSize};

use crate::Error;

/// Version 1 of the handshakes, as offered in M0.
pub(crate) const HANDSHAKE_V1: u16 = 1;
/// Most entries of an offered list.
pub(crate) const OFFER_MAX: usize = 16;

pub(crate) fn encode(message: &impl SerializeBytes) -> Result<Vec<u8>, Error> {
    message.tls_serialize_bytes().map_err(|_| Error::Misuse("a field exceeds its length prefix"))
}

/// Takes one message off the beginning of `bytes`; gives it, the bytes it was, and the rest.
pub(crate) fn decode<'a, M: DeserializeBytes>(
    bytes: &'a [u8],
    name: &'static str,
) -> Result<(M, &'a [u8], &'a [u8]), Error> {
    let (message, rest) = M::tls_deserialize_bytes(bytes).map_err(|_| Error::Malformed(name))?;
    Ok((message, &bytes[..bytes.len() - rest.len()], rest))
}

/// Decodes a message that ends where the bytes do.
pub(crate) fn decode_whole<M: DeserializeBytes>(
    bytes: &[u8],
    name: &'static str,
) -> Result<M, Error> {
    M::tls_deserialize_exact_bytes(bytes).map_err(|_| Error::Malformed(name))
}

/// M0, reader to server: what the reader can do, and which server it wants ("" = any).
#[derive(TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub(crate) struct Request {
    pub(crate) versions: Vec<u16>,
    pub(crate) suites: Vec<u16>,
    pub(crate) policies: Vec<u8>,
    pub(crate) server_id: TlsByteVecU8,
}

/// M1, server to reader: the selection and `R1 = epoch ‖ counter ‖ mac`. M2 echoes it whole.
#[derive(Clone, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub(crate) struct Challenge {
    pub(crate) version: u16,
    pub(crate) suite: u16,
    pub(crate) policy: u8,
    pub(crate) epoch: u32,
    pub(crate) counter: u64,
    pub(crate) mac: [u8; 32],
}

impl Challenge {
    pub(crate) fn r1(&self) -> Vec<u8> {
        let mut r1 = Vec::with_capacity(44);
        r1.extend_from_slice(&self.epoch.to_be_bytes());
        r1.extend_from_slice(&self.counter.to_be_bytes());
        r1.extend_from_slice(&self.mac);
        r1
    }
}

/// What M1 has besides in C2: the server's certificate and the epoch's share, signed once per
/// epoch.
#[derive(TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub(crate) struct EpochProof {
    pub(crate) certificate: TlsByteVecU16,
    pub(crate) share: TlsByteVecU8,
    pub(crate) signature: TlsByteVecU8,
    /// Only where the policy seals to certificates.
    pub(crate) encryption_certificate: TlsByteVecU16,
}

/// How M2 begins: all that it takes to refuse a forged or replayed one.
#[derive(TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub(crate) struct ProofHead {
    pub(crate) challenge: Challenge,
    /// The transcript hash after M0: the server keeps nothing of the contact, not even that.
    pub(crate) after_m0: Digest,
}

/// M2 up to the signature, reader to server.
#[derive(TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub(crate) struct Proof {
    pub(crate) head: ProofHead,
    pub(crate) share: TlsByteVecU8,
    pub(crate) sent_id: WireId,
    pub(crate) signed_kind: u8,
    pub(crate) certificate: TlsByteVecU16,
    /// Only in C1, where the policy seals to certificates.
    pub(crate) encryption_certificate: TlsByteVecU16,
}

/// What M2 has besides in C2, before the signature: which server it answers, and `E_server(R2)`.
#[derive(TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub(crate) struct Contribution {
    pub(crate) server_id: TlsByteVecU8,
    pub(crate) sealed_r2: TlsByteVecU8,
}

/// M3 up to the signature, server to reader, in C1.
#[derive(TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub(crate) struct ServerProof {
    pub(crate) share: TlsByteVecU8,
    pub(crate) sealed_r3: TlsByteVecU8,
    pub(crate) certificate: TlsByteVecU16,
}

/// M3 up to the signature, server to reader, in C2: certificate and contribution were before.
#[derive(TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub(crate) struct ServerShare {
    pub(crate) share: TlsByteVecU8,
}

#[derive(TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub(crate) struct WireId {
    pub(crate) kind: u8,
    pub(crate) value: TlsByteVecU8,
}

/// Which of its two ids a reader means (C4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdKind {
    /// The serial number.
    Serial,
    /// The certificate number.
    CertificateNumber,
}

impl IdKind {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Serial => 1,
            Self::CertificateNumber => 2,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Result<Self, Error> {
        match code {
            1 => Ok(Self::Serial),
            2 => Ok(Self::CertificateNumber),
            _ => Err(Error::Malformed("kind of reader id")),
        }
    }
}

/// A reader's id: the signed id and the sent id may be of different kinds (C4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReaderId {
    /// Serial number, 1 to 64 characters.
    Serial(String),
    /// Certificate number.
    CertificateNumber(CertificateNumber),
}

impl ReaderId {
    pub(crate) fn of(kind: IdKind, serial: &str, number: &CertificateNumber) -> Self {
        match kind {
            IdKind::Serial => Self::Serial(serial.into()),
            IdKind::CertificateNumber => Self::CertificateNumber(number.clone()),
        }
    }

    pub(crate) const fn kind(&self) -> IdKind {
        match self {
            Self::Serial(_) => IdKind::Serial,
            Self::CertificateNumber(_) => IdKind::CertificateNumber,
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Serial(serial) => serial.as_bytes(),
            Self::CertificateNumber(number) => number.as_bytes(),
        }
    }

    pub(crate) fn to_wire(&self) -> WireId {
        WireId { kind: self.kind().code(), value: self.as_bytes().to_vec().into() }
    }

    pub(crate) fn from_wire(wire: &WireId) -> Result<Self, Error> {
        let malformed = Error::Malformed("reader id");
        let value = wire.value.as_slice();
        match IdKind::from_code(wire.kind)? {
            // The same alphabet as in certificates: nothing else ever reaches a directory.
            IdKind::Serial => match core::str::from_utf8(value) {
                Ok(text) if Identity::new(Role::Reader, text).is_ok() => {
                    Ok(Self::Serial(text.into()))
                }
                _ => Err(malformed),
            },
            IdKind::CertificateNumber => CertificateNumber::from_bytes(value)
                .map(Self::CertificateNumber)
                .map_err(|_| malformed),
        }
    }
}
