use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

use crate::{Currency, PaymentError};

/// Most minor units of one amount: far above any payment, far below what a sum may overflow with.
pub const MAX_MINOR: i64 = 1_000_000_000_000_000;

/// A sum of money greater than zero: an integer of minor units, never a float.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Amount {
    minor: i64,
    currency: Currency,
}

impl Amount {
    /// From minor units (cents, fen).
    ///
    /// # Errors
    /// [`PaymentError::AmountRange`] unless 1 to [`MAX_MINOR`].
    pub const fn new(minor: i64, currency: Currency) -> Result<Self, PaymentError> {
        if minor < 1 || minor > MAX_MINOR {
            return Err(PaymentError::AmountRange);
        }
        Ok(Self { minor, currency })
    }

    /// From a decimal number and a code: `12.34`, `CNY`. Fewer decimals than the currency has are
    /// taken, more are not, even if they are zeros.
    ///
    /// # Errors
    /// [`PaymentError::UnknownCurrency`], [`PaymentError::AmountForm`],
    /// [`PaymentError::AmountDecimals`] or [`PaymentError::AmountRange`].
    pub fn parse(decimal: &str, currency: &str) -> Result<Self, PaymentError> {
        let currency = Currency::parse(currency)?;
        let (whole, fraction) = match decimal.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (decimal, None),
        };
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
        let leading_zero = whole.len() > 1 && whole.starts_with('0');
        if !digits(whole) || leading_zero || !fraction.is_none_or(digits) {
            return Err(PaymentError::AmountForm);
        }
        let fraction = fraction.unwrap_or_default();
        let exponent = usize::from(currency.exponent());
        if fraction.len() > exponent {
            return Err(PaymentError::AmountDecimals);
        }
        let zeros = core::iter::repeat_n(b'0', exponent - fraction.len());
        let mut minor: i64 = 0;
        for digit in whole.bytes().chain(fraction.bytes()).chain(zeros) {
            minor = minor
                .checked_mul(10)
                .and_then(|minor| minor.checked_add(i64::from(digit - b'0')))
                .ok_or(PaymentError::AmountRange)?;
        }
        Self::new(minor, currency)
    }

    /// Minor units, 1 to [`MAX_MINOR`].
    #[must_use]
    pub const fn minor(self) -> i64 {
        self.minor
    }

    /// The currency.
    #[must_use]
    pub const fn currency(self) -> Currency {
        self.currency
    }

    /// The decimal number with all decimals of the currency: `12.34`, `500`.
    #[must_use]
    pub fn decimal(self) -> String {
        decimal(self.minor, self.currency)
    }
}

/// A number of minor units, such as a balance, in its decimal form with all decimals: `-0.05`.
#[must_use]
pub fn decimal(minor: i64, currency: Currency) -> String {
    let unit = 10_u64.pow(u32::from(currency.exponent()));
    let sign = if minor < 0 { "-" } else { "" };
    let size = minor.unsigned_abs();
    let (whole, rest) = (size / unit, size % unit);
    match usize::from(currency.exponent()) {
        0 => format!("{sign}{whole}"),
        width => format!("{sign}{whole}.{rest:0width$}"),
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.decimal(), self.currency)
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimals_follow_the_currency() {
        for (text, code, minor, canonical) in [
            ("12.34", "CNY", 1234, "12.34"),
            ("12", "CNY", 1200, "12.00"),
            ("12.3", "CNY", 1230, "12.30"),
            ("0.01", "EUR", 1, "0.01"),
            ("500", "JPY", 500, "500"),
            ("1.234", "KWD", 1234, "1.234"),
            ("0.001", "TND", 1, "0.001"),
            ("10000000000000", "CNY", MAX_MINOR, "10000000000000.00"),
        ] {
            let amount = Amount::parse(text, code).unwrap();
            assert_eq!((amount.minor(), amount.decimal().as_str()), (minor, canonical), "{text}");
            assert_eq!(amount.currency().code(), code);
        }
    }

    #[test]
    fn wrong_forms_decimals_and_ranges_are_refused_by_name() {
        let refused = |text, code| Amount::parse(text, code).unwrap_err();
        for form in [
            "", ".", "1.", ".5", "-1", "+1", "1,5", "1e3", " 1", "1 ", "01", "00.10", "1.2.3",
            "0x1", "１", "١", "NaN", "1_0", "1.-1",
        ] {
            assert_eq!(refused(form, "CNY"), PaymentError::AmountForm, "{form}");
        }
        for (text, code) in [("1.234", "CNY"), ("1.230", "CNY"), ("5.0", "JPY"), ("1.2345", "KWD")]
        {
            assert_eq!(refused(text, code), PaymentError::AmountDecimals, "{text} {code}");
        }
        let long = "9".repeat(4000);
        for text in ["0", "0.00", "10000000000000.01", "92233720368547758.08", long.as_str()] {
            assert_eq!(refused(text, "CNY"), PaymentError::AmountRange, "{text}");
        }
        assert_eq!(refused("1", "XTS"), PaymentError::UnknownCurrency);
        let yen = Currency::parse("JPY").unwrap();
        for minor in [0, -1, i64::MIN, MAX_MINOR + 1, i64::MAX] {
            assert_eq!(Amount::new(minor, yen), Err(PaymentError::AmountRange));
        }
    }

    #[test]
    fn balances_have_a_sign() {
        let of = |minor, code| decimal(minor, Currency::parse(code).unwrap());
        assert_eq!(of(-5, "CNY"), "-0.05");
        assert_eq!(of(0, "KWD"), "0.000");
        assert_eq!(of(-5, "JPY"), "-5");
        assert_eq!(of(i64::MIN, "CNY"), "-92233720368547758.08");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(minor in 1..=MAX_MINOR, which in 0_usize..3) {
            let currency = Currency::parse(["CNY", "JPY", "KWD"][which]).unwrap();
            let amount = Amount::new(minor, currency).unwrap();
            prop_assert_eq!(Amount::parse(&amount.decimal(), currency.code()), Ok(amount));
        }
    }
}
