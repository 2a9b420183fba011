use alloc::vec::Vec;

use countersign_crypto::{Digest, Hash, Provider, Suite};

use crate::Mode;

/// What every signature and derivation starts with.
pub(crate) const CONTEXT: &[u8] = b"Countersign v1";

/// Who signs or confirms: a label in every signature and every MAC (G9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Role {
    Reader = 1,
    Server = 2,
    Sleeve = 3,
    Manager = 4,
}

impl Role {
    /// Who begins and who answers in a mode.
    pub(crate) const fn of(mode: Mode) -> [Self; 2] {
        match mode {
            Mode::C1 | Mode::C2 => [Self::Reader, Self::Server],
            Mode::A1 | Mode::A2 | Mode::A3 => [Self::Sleeve, Self::Manager],
        }
    }
}

/// `th_n`: a running hash over the bytes sent and received, as they were, each part framed by its
/// length: M0 and M1 whole, M2 and M3 without their headers, which say no more than the mode. In A1
/// the first message is M1.
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

    /// Goes on from a hash that a challenge's MAC has vouched for.
    pub(crate) const fn resume(mode: Mode, hash: Digest) -> Self {
        Self { mode, hash }
    }

    #[must_use]
    pub(crate) fn append(self, hash: &dyn Hash, bytes: &[u8]) -> Self {
        let len = (bytes.len() as u64).to_be_bytes();
        Self { mode: self.mode, hash: hash.hash(&[&self.hash, &len, bytes]) }
    }

    /// A2, A3: goes on with the two certificates that are not sent, the sleeve's first: two sides
    /// that pinned different ones do not agree.
    #[must_use]
    pub(crate) fn pinned(self, hash: &dyn Hash, [sleeve, manager]: [&[u8]; 2]) -> Self {
        self.append(hash, sleeve).append(hash, manager)
    }

    pub(crate) const fn hash(&self) -> &Digest {
        &self.hash
    }

    /// What one side of a pair signs: as [`Self::to_be_signed`], its id being those of both.
    pub(crate) fn to_be_signed_by_pair(
        &self,
        role: Role,
        sleeve: &[u8],
        manager: &[u8],
    ) -> Vec<u8> {
        let mut ids = Vec::with_capacity(sleeve.len() + manager.len() + 16);
        for id in [sleeve, manager] {
            ids.extend_from_slice(&(id.len() as u64).to_be_bytes());
            ids.extend_from_slice(id);
        }
        self.to_be_signed(role, &ids)
    }

    /// The message a party signs: `context ‖ " signature" ‖ mode ‖ role ‖ |id| ‖ id ‖ th`.
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

    pub(crate) const fn mode(&self) -> Mode {
        self.mode
    }
}

/// The message that the one who answers signs once per epoch and suite:
/// `context ‖ " epoch share" ‖ mode ‖ role ‖ suite ‖ epoch ‖ share`. Its second part differs from
/// every handshake signature's.
pub(crate) fn epoch_share_to_be_signed(
    mode: Mode,
    suite: Suite,
    epoch: u32,
    share: &[u8],
) -> Vec<u8> {
    let mut message = Vec::with_capacity(CONTEXT.len() + share.len() + 24);
    message.extend_from_slice(CONTEXT);
    message.extend_from_slice(b" epoch share");
    let [_, responder] = Role::of(mode);
    message.extend_from_slice(&[mode as u8, responder as u8]);
    message.extend_from_slice(&suite.code().to_be_bytes());
    message.extend_from_slice(&epoch.to_be_bytes());
    message.extend_from_slice(share);
    message
}
