use alloc::vec::Vec;

use countersign_crypto::{Digest, Hash, Provider};

use crate::wire::Mode;

/// What every signature and derivation starts with.
pub(crate) const CONTEXT: &[u8] = b"Countersign v1";

/// Who signs or confirms: a label in every signature and every MAC (G9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Role {
    Reader = 1,
    Server = 2,
}

/// `th_n`: a running hash over all raw bytes sent and received, each part framed by its length.
#[derive(Clone)]
pub(crate) struct Transcript {
    mode: Mode,
    hash: Digest,
}

impl Transcript {
    pub(crate) fn new(provider: &Provider, mode: Mode) -> Self {
        let hash = provider.hash.hash(&[CONTEXT, b" transcript", &[mode as u8]]);
        Self { mode, hash }
    }

    #[must_use]
    pub(crate) fn append(self, hash: &dyn Hash, bytes: &[u8]) -> Self {
        let len = (bytes.len() as u64).to_be_bytes();
        Self { mode: self.mode, hash: hash.hash(&[&self.hash, &len, bytes]) }
    }

    pub(crate) const fn hash(&self) -> &Digest {
        &self.hash
    }

    /// The message a party signs: `context ‖ mode ‖ role ‖ |id| ‖ id ‖ th`.
    pub(crate) fn to_be_signed(&self, role: Role, id: &[u8]) -> Vec<u8> {
        let mut message = Vec::with_capacity(CONTEXT.len() + id.len() + 64);
        message.extend_from_slice(CONTEXT);
        message.extend_from_slice(b" signature");
        message.extend_from_slice(&[self.mode as u8, role as u8]);
        message.extend_from_slice(&(id.len() as u64).to_be_bytes());
        message.extend_from_slice(id);
        message.extend_from_slice(&self.hash);
        message
    }

    /// Domain of a key derivation: `context ‖ mode`, then the caller's label and the hash.
    pub(crate) const fn mode_byte(&self) -> u8 {
        self.mode as u8
    }
}
