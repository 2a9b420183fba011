//! The chip of a signing card, in software: it counts the PIN's tries, and remembers what it signed
//! and what it was drawn for.

use std::sync::Arc;

use countersign_crypto::{CryptoRng, Hash, Provider, Secret, SecureElement};
use countersign_payment::card::{ChipError, Tries};
use countersign_payment::joint::card::{JointChip, JointInfo, Signed};
use countersign_payment::joint::{self, Commitment, Form, JointPassword, SealTo};

pub(crate) const PIN: &[u8] = b"2580";
pub(crate) const WRONG_PIN: &[u8] = b"0852";
pub(super) const PIN_TRIES: u8 = 3;
const PUK_TRIES: u8 = 10;

/// What a card drew and signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Draw {
    pub(crate) form: Form,
    pub(crate) transaction: Vec<u8>,
    pub(crate) commitment: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    /// The nine digits of the joint password.
    pub(crate) password: String,
}

impl Draw {
    /// The same, as who has the card's answer has it.
    pub(crate) fn signed(&self) -> Signed {
        let commitment = Commitment::parse(&self.commitment).unwrap();
        Signed { commitment, signature: self.signature.clone() }
    }
}

pub(crate) struct SoftChip {
    pub(super) provider: Provider,
    pub(super) info: JointInfo,
    pub(super) certificate: Vec<u8>,
    pub(super) element: Arc<dyn SecureElement>,
    pub(super) server_point: Vec<u8>,
    pub(super) shared: Secret,
    pub(super) pin_left: u8,
    /// Whether any PIN will do: a card that is broken on purpose.
    pub(super) takes_any: bool,
    pub(super) draws: Vec<Draw>,
}

impl SoftChip {
    /// The holder has typed the PUK.
    pub(super) fn unblock(&mut self) {
        self.pin_left = PIN_TRIES;
    }
}

impl JointChip for SoftChip {
    fn info(&self) -> JointInfo {
        self.info.clone()
    }

    fn certificate(&self) -> Option<Vec<u8>> {
        Some(self.certificate.clone())
    }

    fn tries(&self) -> Result<Tries, ChipError> {
        Ok(Tries { pin: self.pin_left, puk: PUK_TRIES })
    }

    fn hash(&self) -> &dyn Hash {
        &*self.provider.hash
    }

    fn commit_and_sign(
        &mut self,
        rng: &mut dyn CryptoRng,
        form: Form,
        transaction: &[u8],
        password: &JointPassword,
    ) -> Result<(Commitment, Vec<u8>), ChipError> {
        let (provider, serial) = (&self.provider, &self.info.serial);
        let to = SealTo { server_point: &self.server_point, shared: &self.shared };
        let commitment = joint::commit(provider, rng, form, serial, transaction, password, &to)?;
        let hash = &*provider.hash;
        let signature = joint::sign(&*self.element, rng, hash, transaction, &commitment)?;
        self.draws.push(Draw {
            form,
            transaction: transaction.to_vec(),
            commitment: commitment.as_bytes().to_vec(),
            signature: signature.clone(),
            password: password.digits().to_owned(),
        });
        Ok((commitment, signature))
    }

    fn check_pin(&mut self, pin: &Secret) -> Result<(), ChipError> {
        self.pin_left = self.pin_left.checked_sub(1).ok_or(ChipError::PinBlocked)?;
        if !pin.ct_eq(PIN) && !self.takes_any {
            return Err(ChipError::PinWrong { left: self.pin_left });
        }
        self.pin_left = PIN_TRIES;
        Ok(())
    }
}
