//! The messages of A2 and A3. M4 is a bare confirmation.

use alloc::format; // the codec derives name it
use alloc::vec::Vec;

use tls_codec::{TlsByteVecU8, TlsByteVecU16};
use tls_codec::{TlsDeserializeBytes, TlsSerializeBytes, TlsSize};

use super::ProofHead;

/// M0, sleeve to manager: the login request. The suite is the pair's, so none is negotiated.
#[derive(TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub(crate) struct ConnectRequest {
    pub(crate) versions: Vec<u16>,
    pub(crate) suite: u16,
    pub(crate) policies: Vec<u8>,
    pub(crate) sleeve_id: TlsByteVecU8,
    pub(crate) share: TlsByteVecU8,
}

/// What M1 has behind the challenge: the epoch's share, signed once per epoch. In A3 the manager's
/// id comes first, in a field of its own.
#[derive(TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub(crate) struct EpochOffer {
    pub(crate) share: TlsByteVecU8,
    pub(crate) signature: TlsByteVecU8,
}

/// How M2 begins, sleeve to manager. It brings M0's body back: the manager keeps nothing of it.
#[derive(TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub(crate) struct ConnectHead {
    pub(crate) head: ProofHead,
    pub(crate) request: TlsByteVecU16,
}

/// M3 up to the signature, manager to sleeve. A2: `E_sleeve(R5 ‖ R6)`; A3: nothing is sealed.
#[derive(TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub(crate) struct ConnectAnswer {
    pub(crate) share: TlsByteVecU8,
    pub(crate) sealed: TlsByteVecU8,
}
