use alloc::string::String;
use core::fmt;

use countersign_crypto::{CryptoRng, Secret};
use zeroize::Zeroizing;

use super::Picture;
use crate::PaymentError;

#[cfg(test)]
mod tests;

/// Digits that are drawn at random.
pub const RANDOM_DIGITS: usize = 8;
/// Digits of a joint password: those that are drawn, and the check digit.
pub const DIGITS: usize = RANDOM_DIGITS + 1;
/// Longest text that is read as a joint password, in bytes: a separator between any two digits.
pub const PASSWORD_TEXT_MAX: usize = 2 * DIGITS - 1;

/// How many passwords there are: 10 to the [`RANDOM_DIGITS`].
const PASSWORDS: u32 = 100_000_000;
/// The largest multiple of [`PASSWORDS`] that 32 bits hold: what is drawn from there on is drawn
/// again, so that the remainder has no bias.
const FAIR_BELOW: u32 = (u32::MAX / PASSWORDS) * PASSWORDS;
/// Most draws. One in 46 is drawn again, so a sound generator never comes near.
const DRAWS_MAX: usize = 64;

/// The joint password of one transaction (B2): eight digits drawn at random and a check digit
/// (ISO/IEC 7064 MOD 11,10). Wiped on drop, never copied, silent in `Debug`.
pub struct JointPassword(Secret);

impl JointPassword {
    /// Draws one; every one of the 10^8 with the same probability.
    ///
    /// # Errors
    /// [`PaymentError::Signing`] if all of 64 draws are among the one in 46 that would have a bias:
    /// nothing must be signed then. That a generator is stuck shows only if it is stuck at one of
    /// those; the signing card finds the others before it draws.
    pub fn random(rng: &mut dyn CryptoRng) -> Result<Self, PaymentError> {
        let mut bytes = Zeroizing::new([0; 4]);
        for _ in 0..DRAWS_MAX {
            rng.fill_bytes(&mut *bytes);
            let drawn = u32::from_le_bytes(*bytes);
            if drawn < FAIR_BELOW {
                return Ok(Self::numbered(drawn % PASSWORDS));
            }
        }
        Err(PaymentError::Signing)
    }

    /// The password of a number below [`PASSWORDS`].
    fn numbered(mut number: u32) -> Self {
        Self::filled(|random| {
            for digit in random.iter_mut().rev() {
                *digit = b'0' + u8::try_from(number % 10).expect("below ten");
                number /= 10;
            }
        })
    }

    /// The password whose [`RANDOM_DIGITS`] `fill` writes.
    fn filled(fill: impl FnOnce(&mut [u8])) -> Self {
        let made = Secret::try_filled(DIGITS, |digits| -> Result<(), PaymentError> {
            let (random, check) = digits.split_at_mut(RANDOM_DIGITS);
            fill(random);
            check[0] = b'0' + check_digit(random);
            Ok(())
        });
        Self(made.expect("nothing refuses"))
    }

    /// Reads what a person typed or a camera read: the nine digits, where a space or a hyphen may
    /// stand between two of them.
    ///
    /// # Errors
    /// [`PaymentError::JointPasswordForm`] for anything else and for a wrong check digit: that is
    /// told without a secret, so it is no try.
    pub fn parse(text: &str) -> Result<Self, PaymentError> {
        let refused = PaymentError::JointPasswordForm;
        if text.len() > PASSWORD_TEXT_MAX {
            return Err(refused);
        }
        let read = Secret::try_filled(DIGITS, |digits| {
            let (mut len, mut separated) = (0, true);
            for byte in text.bytes() {
                match byte {
                    b'0'..=b'9' => {
                        *digits.get_mut(len).ok_or(refused)? = byte;
                        (len, separated) = (len + 1, false);
                    }
                    b' ' | b'-' if !separated => separated = true,
                    _ => return Err(refused),
                }
            }
            if len == DIGITS && !separated { Ok(()) } else { Err(refused) }
        })?;
        Self::checked(read)
    }

    fn checked(digits: Secret) -> Result<Self, PaymentError> {
        let (random, check) = digits.expose().split_at(RANDOM_DIGITS);
        if b'0' + check_digit(random) == check[0] {
            Ok(Self(digits))
        } else {
            Err(PaymentError::JointPasswordForm)
        }
    }

    /// The nine digits; what a QR code and a bar code hold.
    #[must_use]
    pub fn digits(&self) -> &str {
        core::str::from_utf8(self.0.expose()).expect("ASCII digits")
    }

    /// The digits in groups of 4, 4 and 1, for reading: `1234 5678 9`.
    #[must_use]
    pub fn grouped(&self) -> Zeroizing<String> {
        // At its final size: growing would leave a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(DIGITS + 2));
        let (first, rest) = self.digits().split_at(4);
        let (second, check) = rest.split_at(4);
        for part in [first, " ", second, " ", check] {
            text.push_str(part);
        }
        text
    }

    /// Whether both are the same, in constant time.
    #[must_use]
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.0.ct_eq(other.0.expose())
    }

    /// The digits as pictures, which can be named aloud.
    #[must_use]
    pub fn pictures(&self) -> [Picture; DIGITS] {
        let digits = self.0.expose();
        core::array::from_fn(|at| {
            Picture::of_digit(digits[at] - b'0').expect("a digit has a picture")
        })
    }

    /// The password that these pictures show.
    ///
    /// # Errors
    /// [`PaymentError::JointPasswordForm`] unless there are nine and the check digit fits.
    pub fn from_pictures(pictures: &[Picture]) -> Result<Self, PaymentError> {
        let read = Secret::try_filled(DIGITS, |digits| {
            if pictures.len() != DIGITS {
                return Err(PaymentError::JointPasswordForm);
            }
            for (digit, picture) in digits.iter_mut().zip(pictures) {
                *digit = b'0' + picture.digit();
            }
            Ok(())
        })?;
        Self::checked(read)
    }

    /// The digits as bytes, for what is committed to.
    pub(super) fn expose(&self) -> &[u8] {
        self.0.expose()
    }
}

impl fmt::Debug for JointPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JointPassword(..)")
    }
}

/// The check digit (0 to 9) of ASCII digits, by ISO/IEC 7064 MOD 11,10. It notices every single
/// wrong digit, and of the swaps of two different neighbours all but one in 45.
#[must_use]
pub fn check_digit(digits: &[u8]) -> u8 {
    let product = digits.iter().fold(10, |product: u16, digit| {
        let sum = (product + u16::from(digit.wrapping_sub(b'0') % 10)) % 10;
        (if sum == 0 { 10 } else { sum }) * 2 % 11
    });
    u8::try_from((11 - product) % 10).expect("below ten")
}
