//! The messages of A1. M4 is a bare confirmation.

use alloc::format; // the codec derives name it
use alloc::vec::Vec;

use tls_codec::{TlsByteVecU8, TlsByteVecU16};
use tls_codec::{TlsDeserializeBytes, TlsSerializeBytes, TlsSize};

/// M1, sleeve to manager: `R3`, who it claims to be, and for each suite that it speaks a fresh
/// share and the certificate.
#[derive(TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub(crate) struct PairRequest {
    pub(crate) versions: Vec<u16>,
    pub(crate) policies: Vec<u8>,
    pub(crate) r3: [u8; 32],
    pub(crate) sleeve_id: TlsByteVecU8,
    pub(crate) offers: Vec<PairOffer>,
}

/// One suite of M1.
#[derive(TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub(crate) struct PairOffer {
    pub(crate) suite: u16,
    pub(crate) share: TlsByteVecU8,
    pub(crate) certificate: TlsByteVecU16,
}

/// M2 up to the signature, manager to sleeve: the selection, `E_sleeve(R3 ‖ R4)`, who it is.
#[derive(TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub(crate) struct PairAnswer {
    pub(crate) version: u16,
    pub(crate) suite: u16,
    pub(crate) policy: u8,
    pub(crate) share: TlsByteVecU8,
    pub(crate) sealed: TlsByteVecU8,
    pub(crate) manager_id: TlsByteVecU8,
    pub(crate) certificate: TlsByteVecU16,
}
