//! The three ways to commit to a joint password.
//!
//! Everything is bound to a *scope*, the hash of the form, the card's serial number and the
//! transaction's hash, so that a commitment is good for one card, one transaction and one form:
//!
//! - sealed: `E` = public-key encryption of `label ‖ scope ‖ password` to the server's key;
//! - sealed-random: the same with 16 random bytes behind the password;
//! - digest: `salt` is random, `prk = HKDF-Extract(salt, shared)`, key and nonce are
//!   `HKDF-Expand(prk, label ‖ scope)` with a label each,
//!   `E = AEAD(key, nonce, aad = label ‖ scope, password)`, and the commitment is
//!   `salt ‖ H(label ‖ E)`. The salt makes the key one of this signing alone, so a nonce never
//!   comes twice under a key, and the password cannot be tried without `shared`.

use alloc::vec::Vec;

use countersign_crypto::{
    AEAD_KEY_LEN, AEAD_NONCE_LEN, AEAD_TAG_LEN, CryptoRng, DecryptionKey, Digest, Provider, Secret,
};
use countersign_pki::ID_MAX;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::commitment::{Commitment, SALT_LEN};
use super::{DIGITS, Form, JointPassword, transaction_hash};
use crate::PaymentError;

/// Length in bytes of the key that card and server share for [`Form::Digest`].
pub const SHARED_LEN: usize = 32;
/// Random bytes behind the password of a [`Form::SealedRandom`].
const RANDOM_LEN: usize = 16;

const SCOPE: &[u8] = b"countersign.joint.scope.v1\0";
const SEALED: &[u8] = b"countersign.joint.sealed.v1\0";
const KEY: &[u8] = b"countersign.joint.key.v1\0";
const NONCE: &[u8] = b"countersign.joint.nonce.v1\0";
const AAD: &[u8] = b"countersign.joint.aad.v1\0";
const DIGEST: &[u8] = b"countersign.joint.digest.v1\0";

/// To whom a card commits: the server that will check the password.
#[derive(Debug, Clone, Copy)]
pub struct SealTo<'a> {
    /// The point of the server's encryption certificate, SEC1 uncompressed, 65 bytes.
    pub server_point: &'a [u8],
    /// The key that card and server share, [`SHARED_LEN`] bytes.
    pub shared: &'a Secret,
}

/// What the server checks a password with; it must fit the commitment's form.
#[derive(Clone, Copy)]
pub enum Opener<'a> {
    /// The private key of the server's encryption certificate, for [`Form::Sealed`] and
    /// [`Form::SealedRandom`].
    Server(&'a dyn DecryptionKey),
    /// The key that card and server share, for [`Form::Digest`].
    Shared(&'a Secret),
}

/// Commits to the joint password of a transaction. `serial` is the card's serial number, the id in
/// its certificate.
///
/// # Errors
/// [`PaymentError::Signing`] for a serial number that no certificate has, a shared key of another
/// length, or a point that is none: nothing must be signed then.
pub fn commit(
    provider: &Provider,
    rng: &mut dyn CryptoRng,
    form: Form,
    serial: &str,
    transaction: &[u8],
    password: &JointPassword,
    to: &SealTo<'_>,
) -> Result<Commitment, PaymentError> {
    let scope = scope(provider, form, serial, transaction).ok_or(PaymentError::Signing)?;
    match form {
        Form::Sealed | Form::SealedRandom => {
            let text = sealed_text(rng, form, &scope, password);
            let sealed = provider.sealing.encrypt(rng, to.server_point, text.expose());
            Commitment::sealed(form, &sealed.map_err(|_| PaymentError::Signing)?)
        }
        Form::Digest => {
            let mut salt = [0; SALT_LEN];
            rng.fill_bytes(&mut salt);
            let digest = digest(provider, to.shared, &salt, &scope, password);
            Ok(Commitment::digest(&salt, &digest.ok_or(PaymentError::Signing)?))
        }
    }
}

/// Checks that `password` is the one that the card committed to, for this transaction as the server
/// holds it (B8). Passwords are compared in constant time. Call it only for a commitment under a
/// signature that verified, and count every failure.
///
/// # Errors
/// [`PaymentError::JointSealed`] if no password can be right: the commitment does not open, its
/// text is not that of its form, card and transaction, or what is to open it does not fit.
/// Whether it is this error depends on what was signed, never on `password`.
/// [`PaymentError::JointPassword`] for another password. A digest cannot be opened: under another
/// shared key than the card's it is this one.
pub fn verify_password(
    provider: &Provider,
    opener: Opener<'_>,
    serial: &str,
    transaction: &[u8],
    commitment: &Commitment,
    password: &JointPassword,
) -> Result<(), PaymentError> {
    let right = is_right(provider, opener, serial, transaction, commitment, password);
    let right = right.ok_or(PaymentError::JointSealed)?;
    right.then_some(()).ok_or(PaymentError::JointPassword)
}

/// None if no password can be right.
fn is_right(
    provider: &Provider,
    opener: Opener<'_>,
    serial: &str,
    transaction: &[u8],
    commitment: &Commitment,
    password: &JointPassword,
) -> Option<bool> {
    let form = commitment.form();
    let scope = scope(provider, form, serial, transaction)?;
    match (form, opener) {
        (Form::Sealed | Form::SealedRandom, Opener::Server(key)) => {
            let opened = key.decrypt(commitment.body()).ok()?;
            // Lengths, label and scope are no secret: they follow from form and transaction.
            let rest = opened.expose().strip_prefix(SEALED)?.strip_prefix(&scope)?;
            let (committed, random) = rest.split_first_chunk::<DIGITS>()?;
            let fits = random.len() == random_len(form);
            fits.then(|| password.expose().ct_eq(committed).into())
        }
        (Form::Digest, Opener::Shared(shared)) => {
            let (salt, committed) = commitment.body().split_first_chunk()?;
            let digest = digest(provider, shared, salt, &scope, password)?;
            Some(digest.as_slice().ct_eq(committed).into())
        }
        _ => None,
    }
}

const fn random_len(form: Form) -> usize {
    match form {
        Form::SealedRandom => RANDOM_LEN,
        Form::Sealed | Form::Digest => 0,
    }
}

/// None for a serial number of a length that no certificate has.
fn scope(provider: &Provider, form: Form, serial: &str, transaction: &[u8]) -> Option<Digest> {
    if serial.is_empty() || serial.len() > ID_MAX {
        return None;
    }
    let len = u8::try_from(serial.len()).ok()?;
    let transaction = transaction_hash(&*provider.hash, transaction);
    Some(provider.hash.hash(&[SCOPE, &[form.code(), len], serial.as_bytes(), &transaction]))
}

fn sealed_text(
    rng: &mut dyn CryptoRng,
    form: Form,
    scope: &Digest,
    password: &JointPassword,
) -> Secret {
    let mut random = Zeroizing::new([0; RANDOM_LEN]);
    let random = &mut random[..random_len(form)];
    rng.fill_bytes(random);
    Secret::new([SEALED, scope, password.expose(), random].concat())
}

/// The digest of the password encrypted under the key of this signing.
fn digest(
    provider: &Provider,
    shared: &Secret,
    salt: &[u8; SALT_LEN],
    scope: &Digest,
    password: &JointPassword,
) -> Option<Digest> {
    if shared.len() != SHARED_LEN {
        return None;
    }
    let prk = provider.kdf.extract(salt, shared.expose());
    let key = provider.kdf.expand(&prk, &[KEY, scope], AEAD_KEY_LEN).ok()?;
    let nonce = provider.kdf.expand(&prk, &[NONCE, scope], AEAD_NONCE_LEN).ok()?;
    let nonce = nonce.expose().try_into().ok()?;
    let aad = [AAD, scope].concat();
    // At its final size, so that the password leaves no copy behind.
    let mut sealed = Vec::with_capacity(DIGITS + AEAD_TAG_LEN);
    sealed.extend_from_slice(password.expose());
    let sealed = {
        let mut sealed = Zeroizing::new(sealed);
        provider.aead.key(&key).ok()?.seal(nonce, &aad, &mut sealed).ok()?;
        sealed
    };
    Some(provider.hash.hash(&[DIGEST, &sealed]))
}
