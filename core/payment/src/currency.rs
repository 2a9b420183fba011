use core::fmt;
use core::str;

use crate::PaymentError;

/// Currencies in use that have two decimals (ISO 4217 list one), without funds, metals and tests.
const TWO: &str = "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP \
    BYN BZD CAD CDF CHF CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS \
    GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD \
    LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN \
    PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL \
    THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG";
/// Those without decimals.
const ZERO: &str = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF";
/// Those with three.
const THREE: &str = "BHD IQD JOD KWD LYD OMR TND";

/// A currency in use: its alphabetic code and its exponent (ISO 4217).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency {
    code: [u8; 3],
    exponent: u8,
}

impl Currency {
    /// The currency with this alphabetic code, in capitals.
    ///
    /// # Errors
    /// [`PaymentError::UnknownCurrency`].
    pub fn parse(code: &str) -> Result<Self, PaymentError> {
        let bytes: [u8; 3] =
            code.as_bytes().try_into().map_err(|_| PaymentError::UnknownCurrency)?;
        let listed = |list: &str| list.split_ascii_whitespace().any(|one| one == code);
        let exponent = [(TWO, 2), (ZERO, 0), (THREE, 3)].into_iter().find(|(l, _)| listed(l));
        let (_, exponent) = exponent.ok_or(PaymentError::UnknownCurrency)?;
        Ok(Self { code: bytes, exponent })
    }

    /// The alphabetic code, `CNY`.
    #[must_use]
    pub fn code(&self) -> &str {
        str::from_utf8(&self.code).expect("only codes of the lists are held, and they are ASCII")
    }

    /// How many decimals an amount has: 0, 2 or 3.
    #[must_use]
    pub const fn exponent(self) -> u8 {
        self.exponent
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_exponents() {
        let all = [(TWO, 2), (ZERO, 0), (THREE, 3)];
        let mut seen = std::collections::BTreeSet::new();
        for (list, exponent) in all {
            for code in list.split_ascii_whitespace() {
                let currency = Currency::parse(code).unwrap();
                assert_eq!((currency.code(), currency.exponent()), (code, exponent));
                assert!(seen.insert(code), "{code} is listed twice");
            }
        }
        let known = [("CNY", 2), ("EUR", 2), ("USD", 2), ("JPY", 0), ("ISK", 0), ("KWD", 3)];
        for (code, exponent) in known {
            assert_eq!(Currency::parse(code).unwrap().exponent(), exponent, "{code}");
        }
    }

    #[test]
    fn what_is_no_code_is_refused() {
        for wrong in ["", "cny", "CN", "CNYX", " CNY", "C Y", "XAU", "XTS", "DEM", "BGN", "¥¥", "€"]
        {
            assert_eq!(Currency::parse(wrong), Err(PaymentError::UnknownCurrency), "{wrong}");
        }
    }
}
