use alloc::vec::Vec;
use core::fmt;

use countersign_crypto::{Digest, HASH_LEN};
use data_encoding::HEXLOWER;

use super::Form;
use crate::PaymentError;

/// Length in bytes of the salt of a [`Form::Digest`].
pub const SALT_LEN: usize = 16;
/// Longest commitment, in bytes.
pub const COMMITMENT_MAX: usize = 256;
/// Shortest encrypted password: a point, a tag and the digits, in whichever suite.
const SEALED_MIN: usize = 64 + 32 + super::DIGITS;

/// What a card commits to its joint password with. It is public: it goes to the terminal with the
/// signature, which is over it too, and to the server.
///
/// Its bytes: the form's code, then for [`Form::Sealed`] and [`Form::SealedRandom`] the encrypted
/// password, for [`Form::Digest`] `salt(16) ‖ digest(32)`.
#[derive(Clone, PartialEq, Eq)]
pub struct Commitment {
    form: Form,
    bytes: Vec<u8>,
}

impl Commitment {
    /// Reads one. Whether anything opens it shows only when it is opened.
    ///
    /// # Errors
    /// [`PaymentError::JointForm`] for an unknown form, or a length that its form does not have.
    pub fn parse(bytes: &[u8]) -> Result<Self, PaymentError> {
        let (&code, rest) = bytes.split_first().ok_or(PaymentError::JointForm)?;
        let form = Form::from_code(code).ok_or(PaymentError::JointForm)?;
        let fits = match form {
            Form::Sealed | Form::SealedRandom => {
                rest.len() >= SEALED_MIN && bytes.len() <= COMMITMENT_MAX
            }
            Form::Digest => rest.len() == SALT_LEN + HASH_LEN,
        };
        if fits { Ok(Self { form, bytes: bytes.to_vec() }) } else { Err(PaymentError::JointForm) }
    }

    pub(super) fn sealed(form: Form, sealed: &[u8]) -> Result<Self, PaymentError> {
        Self::parse(&[&[form.code()], sealed].concat())
    }

    pub(super) fn digest(salt: &[u8; SALT_LEN], digest: &Digest) -> Self {
        let form = Form::Digest;
        Self { form, bytes: [&[form.code()], &salt[..], digest].concat() }
    }

    /// Its form.
    #[must_use]
    pub fn form(&self) -> Form {
        self.form
    }

    /// Its bytes: what is signed, sent and stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What follows the code.
    pub(super) fn body(&self) -> &[u8] {
        &self.bytes[1..]
    }
}

impl fmt::Debug for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Commitment({}: {})", self.form.name(), HEXLOWER.encode(self.body()))
    }
}
