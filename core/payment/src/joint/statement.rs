use alloc::vec::Vec;

use countersign_crypto::{CryptoRng, Digest, Hash, SecureElement, VerifyingKey};

use super::Commitment;
use crate::{ConfirmationRequest, PaymentError};

/// What every signed statement begins with, so that no signature made for anything else is one.
pub const DOMAIN: &[u8] = b"countersign.payment.joint.v1\0";
/// Longest signature, in bytes: DER of two numbers of 32 bytes.
pub const SIGNATURE_MAX: usize = 80;

const TRANSACTION: &[u8] = b"countersign.joint.transaction.v1\0";
const RELEASE: &[u8] = b"countersign.joint.release.v1\0";

/// The hash of a transaction message, the bytes of a confirmation request, by the suite's hash.
#[must_use]
pub fn transaction_hash(hash: &dyn Hash, transaction: &[u8]) -> Digest {
    hash.hash(&[TRANSACTION, transaction])
}

/// What is signed (B3–B5): [`DOMAIN`], [`transaction_hash`], the commitment's bytes. All before the
/// commitment has a fixed length, so it reads one way only.
#[must_use]
pub fn statement(hash: &dyn Hash, transaction: &[u8], commitment: &Commitment) -> Vec<u8> {
    [DOMAIN, &transaction_hash(hash, transaction), commitment.as_bytes()].concat()
}

/// Signs a transaction and the commitment to its joint password with the card's key. It must be a
/// confirmation request: a card signs nothing that it could not show.
///
/// # Errors
/// As [`ConfirmationRequest::parse`]; [`PaymentError::Signing`] if the element does not sign.
pub fn sign(
    key: &dyn SecureElement,
    rng: &mut dyn CryptoRng,
    hash: &dyn Hash,
    transaction: &[u8],
    commitment: &Commitment,
) -> Result<Vec<u8>, PaymentError> {
    ConfirmationRequest::parse(transaction)?;
    let statement = statement(hash, transaction, commitment);
    key.sign(rng, &statement).map_err(|_| PaymentError::Signing)
}

/// Verifies a card's signature over the bytes of a transaction as the server holds them, and over
/// the commitment (B8). It says that the card was asked, not that its holder consented: that is the
/// joint password's part.
///
/// # Errors
/// [`PaymentError::Signature`], whatever the reason.
pub fn verify_signature(
    key: &dyn VerifyingKey,
    hash: &dyn Hash,
    transaction: &[u8],
    commitment: &Commitment,
    signature: &[u8],
) -> Result<(), PaymentError> {
    if signature.len() > SIGNATURE_MAX {
        return Err(PaymentError::Signature);
    }
    let statement = statement(hash, transaction, commitment);
    key.verify(&statement, signature).map_err(|_| PaymentError::Signature)
}

/// What a terminal shows a card to be given the joint password without contact (B7): it proves to
/// be the one that has the card's answer. Both parts are public to that terminal, and to no other.
#[must_use]
pub fn release_hash(hash: &dyn Hash, commitment: &Commitment, signature: &[u8]) -> Digest {
    let commitment = commitment.as_bytes();
    // At most COMMITMENT_MAX, so two bytes say its length.
    let len = u16::try_from(commitment.len()).expect("a bounded commitment").to_be_bytes();
    hash.hash(&[RELEASE, &len, commitment, signature])
}
