//! Payments that a signing smart card confirms with a *joint password* (B1–B8):
//! `docs/protocols/joint-password.md`.
//!
//! The card signs a transaction while it is still in the terminal, together with a [`Commitment`]
//! to a password that it has just drawn. It gives the password away only after its holder has
//! consented on its own keypad. So the signature alone proves nothing: a payment is executed on the
//! signature *and* the password, and the server checks both.
//!
//! Card: [`JointPassword::random`], [`commit`], [`sign`]. Server: [`verify_signature`], then
//! [`verify_password`]. Whoever stands between them sees neither the password nor anything to try
//! guesses on.

pub mod card;
mod commitment;
mod form;
mod password;
mod picture;
mod sealing;
mod statement;
#[cfg(test)]
mod tests;

pub use commitment::{COMMITMENT_MAX, Commitment, SALT_LEN};
pub use form::Form;
pub use password::{DIGITS, JointPassword, PASSWORD_TEXT_MAX, RANDOM_DIGITS, check_digit};
pub use picture::{Language, PICTURE_SIDE, Picture};
pub use sealing::{Opener, SHARED_LEN, SealTo, commit, verify_password};
pub use statement::{
    DOMAIN, SIGNATURE_MAX, release_hash, sign, statement, transaction_hash, verify_signature,
};

/// Most wrong joint passwords of one payment, whatever the policy allows otherwise.
pub const TRIES_MAX: u32 = 3;
