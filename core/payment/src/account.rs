use alloc::string::{String, ToString};
use core::fmt;

use crate::PaymentError;

/// Shortest account number, in characters.
pub const ACCOUNT_MIN: usize = 4;
/// Longest account number, in characters: that of an IBAN (ISO 13616).
pub const ACCOUNT_MAX: usize = 34;
/// Shortest IBAN: Norway's.
const IBAN_MIN: usize = 15;

/// An account number: [`ACCOUNT_MIN`] to [`ACCOUNT_MAX`] of `A-Z 0-9`. One that begins as an IBAN
/// does, two letters and two digits, has the check digits of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountNumber(String);

impl AccountNumber {
    /// Checks the number. Spaces are refused: what is signed has one form.
    ///
    /// # Errors
    /// [`PaymentError::AccountForm`] or [`PaymentError::IbanCheck`].
    pub fn parse(text: &str) -> Result<Self, PaymentError> {
        let allowed = |c: u8| c.is_ascii_uppercase() || c.is_ascii_digit();
        let fits = (ACCOUNT_MIN..=ACCOUNT_MAX).contains(&text.len());
        if !fits || !text.bytes().all(allowed) {
            return Err(PaymentError::AccountForm);
        }
        if is_iban_like(text) && remainder_97(text) != 1 {
            return Err(PaymentError::IbanCheck);
        }
        Ok(Self(text.to_string()))
    }

    /// The number, without spaces.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number in groups of four, as people compare it.
    #[must_use]
    pub fn grouped(&self) -> String {
        let mut grouped = String::with_capacity(self.0.len() + self.0.len() / 4);
        for (at, c) in self.0.chars().enumerate() {
            if at > 0 && at % 4 == 0 {
                grouped.push(' ');
            }
            grouped.push(c);
        }
        grouped
    }
}

/// Two letters, two digits, and as long as an IBAN is.
fn is_iban_like(text: &str) -> bool {
    let head = text.as_bytes();
    text.len() >= IBAN_MIN
        && head[..2].iter().all(u8::is_ascii_uppercase)
        && head[2..4].iter().all(u8::is_ascii_digit)
}

/// ISO 7064 MOD 97-10 over the number with its first four characters moved to the end.
fn remainder_97(text: &str) -> u32 {
    let (head, rest) = text.as_bytes().split_at(4);
    rest.iter().chain(head).fold(0, |sum, &c| match c {
        b'0'..=b'9' => (sum * 10 + u32::from(c - b'0')) % 97,
        _ => (sum * 100 + u32::from(c - b'A') + 10) % 97,
    })
}

impl fmt::Display for AccountNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ibans_are_taken_and_grouped() {
        for (text, grouped) in [
            ("6222021234567890123", "6222 0212 3456 7890 123"),
            ("ACC1", "ACC1"),
            ("DE89370400440532013000", "DE89 3704 0044 0532 0130 00"),
            ("GB82WEST12345698765432", "GB82 WEST 1234 5698 7654 32"),
            ("NO9386011117947", "NO93 8601 1117 947"),
            ("MT84MALT011000012345MTLCAST001S", "MT84 MALT 0110 0001 2345 MTLC AST0 01S"),
            // Too short for an IBAN, so a bank's own number.
            ("CN12ABC", "CN12 ABC"),
        ] {
            let number = AccountNumber::parse(text).unwrap();
            assert_eq!((number.as_str(), number.grouped().as_str()), (text, grouped));
        }
    }

    #[test]
    fn wrong_forms_are_refused() {
        let long = "1".repeat(ACCOUNT_MAX + 1);
        for wrong in [
            "",
            "123",
            long.as_str(),
            "acc1",
            "AC C1",
            "ACC-1",
            "ＡＣＣ１",
            "АСС1",
            "ACC1\n",
            "١٢٣٤",
        ] {
            assert_eq!(AccountNumber::parse(wrong), Err(PaymentError::AccountForm), "{wrong}");
        }
    }

    #[test]
    fn each_altered_digit_of_an_iban_is_noticed() {
        let iban = "DE89370400440532013000";
        for at in 2..iban.len() {
            let mut altered = iban.as_bytes().to_vec();
            altered[at] = if altered[at] == b'9' { b'0' } else { altered[at] + 1 };
            let altered = core::str::from_utf8(&altered).unwrap();
            assert_eq!(AccountNumber::parse(altered), Err(PaymentError::IbanCheck), "{altered}");
        }
        // Two digits swapped, the commonest slip.
        let swapped = "DE89370400440532010300";
        assert_eq!(AccountNumber::parse(swapped), Err(PaymentError::IbanCheck));
    }
}
