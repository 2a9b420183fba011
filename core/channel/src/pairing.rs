//! What a sleeve and a manager keep of each other.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use countersign_crypto::{HASH_LEN, Secret, Suite, UnixTime};
use countersign_pki::{Leaf, LeafCache, Role};

use crate::credential::Credential;
use crate::{Error, Refusal};

/// How long a pairing may take from the manager's answer (M2) on, on both sides: the sleeve's user
/// compares ids and says yes or no, and both lists are written (A1).
pub const PAIRING_TIMEOUT: Duration = Duration::from_secs(120);

/// What each side of a pair keeps of the other (A1). The factor is made on both sides alike and
/// never travels, not even sealed (G13). There is no `Clone`: one holder, who wipes it.
pub struct Pairing {
    /// The other side's certified id.
    pub peer: String,
    /// The other side's certificate, DER: it is not sent again, so A2 and A3 take this one.
    pub certificate: Vec<u8>,
    /// The binding factor, 32 bytes.
    pub factor: Secret,
    /// The suite that the pair speaks.
    pub suite: Suite,
}

impl fmt::Debug for Pairing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pairing").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Pairing {
    /// What a pairing that was read from a disk may lack.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.factor.len() != HASH_LEN {
            return Err(Error::Misuse("a binding factor has 32 bytes"));
        }
        Ok(())
    }

    /// The pinned certificate as it stands today: validity and revocation are looked at anew, and
    /// it must be of the one the pairing is with.
    pub(crate) fn verify(
        &self,
        credential: &Credential,
        role: Role,
        now: UnixTime,
        cache: Option<&dyn LeafCache>,
    ) -> Result<Arc<Leaf>, Error> {
        let leaf = credential.trust.verify(&self.certificate, role, now, cache)?;
        if leaf.identity().id() != self.peer {
            return Err(Refusal::PeerIdMismatch.into());
        }
        Ok(leaf)
    }
}
