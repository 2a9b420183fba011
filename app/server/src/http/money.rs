//! Amounts in bodies: a decimal string and a currency, never a float.

use countersign_payment::Currency;
use countersign_service::Money as Asked;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An amount.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Money {
    /// A decimal number with at most as many decimals as the currency has; a string, so that no
    /// reader makes a float of it.
    #[schema(example = "12.34")]
    pub(super) amount: String,
    /// ISO 4217's alphabetic code.
    #[schema(example = "CNY")]
    pub(super) currency: String,
}

impl Money {
    /// An amount in minor units, which may be below zero.
    pub(super) fn of(minor: i64, currency: &str) -> Self {
        Self { amount: decimal(minor.into(), currency), currency: currency.to_owned() }
    }
}

impl From<Money> for Asked {
    fn from(money: Money) -> Self {
        Self { amount: money.amount, currency: money.currency }
    }
}

/// Minor units as a decimal number with all of the currency's decimals. A currency that is not
/// known has none: nothing is invented.
pub(super) fn decimal(minor: i128, currency: &str) -> String {
    let exponent = Currency::parse(currency).map_or(0, |currency| u32::from(currency.exponent()));
    let sign = if minor < 0 { "-" } else { "" };
    let digits = minor.unsigned_abs();
    let Some(unit) = 10_u128.checked_pow(exponent).filter(|_| exponent > 0) else {
        return format!("{sign}{digits}");
    };
    let width = exponent as usize;
    format!("{sign}{}.{:0width$}", digits / unit, digits % unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_units_are_shown_with_the_currencys_decimals() {
        for (minor, currency, shown) in [
            (1234, "CNY", "12.34"),
            (5, "CNY", "0.05"),
            (-5, "CNY", "-0.05"),
            (0, "CNY", "0.00"),
            (-100, "EUR", "-1.00"),
            (1234, "JPY", "1234"),
            (-1, "JPY", "-1"),
            (1, "BHD", "0.001"),
            (i64::MIN.into(), "CNY", "-92233720368547758.08"),
            (7, "no currency", "7"),
        ] {
            assert_eq!(decimal(minor, currency), shown);
        }
    }

    #[test]
    fn an_amount_is_a_string() {
        let read = |text: &str| serde_json::from_str::<Money>(text).is_ok();
        assert!(read(r#"{"amount":"12.34","currency":"CNY"}"#));
        for bad in [
            r#"{"amount":12.34,"currency":"CNY"}"#,
            r#"{"amount":12,"currency":"CNY"}"#,
            r#"{"amount":"12.34"}"#,
            r#"{"amount":"1","amount":"2","currency":"CNY"}"#,
            r#"{"amount":"1","currency":"CNY","scale":2}"#,
            r#"{"amount":null,"currency":"CNY"}"#,
        ] {
            assert!(!read(bad), "{bad}");
        }
    }
}
