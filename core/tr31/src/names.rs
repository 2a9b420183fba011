//! What the values of a header are called (X9.143 6.3.1 to 6.3.5), for people.

/// The name of a key usage.
#[must_use]
pub const fn usage(usage: [u8; 2]) -> Option<&'static str> {
    Some(match &usage {
        b"B0" => "base derivation key",
        b"B1" => "initial DUKPT key",
        b"B2" => "base key variant",
        b"B3" => "key derivation key",
        b"C0" => "card verification",
        b"D0" => "data encryption",
        b"D1" => "data encryption, asymmetric",
        b"D2" => "decimalization table encryption",
        b"D3" => "sensitive data encryption",
        b"E0" => "EMV issuer master key: application cryptograms",
        b"E1" => "EMV issuer master key: secure messaging, confidentiality",
        b"E2" => "EMV issuer master key: secure messaging, integrity",
        b"E3" => "EMV issuer master key: data authentication code",
        b"E4" => "EMV issuer master key: dynamic numbers",
        b"E5" => "EMV issuer master key: card personalization",
        b"E6" => "EMV issuer master key: other",
        b"E7" => "EMV asymmetric key pair for PIN encryption",
        b"I0" => "initialization vector",
        b"K0" => "key encryption",
        b"K1" => "X9.143 key block protection key",
        b"K2" => "TR-34 asymmetric key pair",
        b"K3" => "asymmetric key pair for key wrapping or agreement",
        b"K4" => "ISO 20038 key block protection key",
        b"M0" => "ISO 16609 MAC algorithm 1",
        b"M1" => "ISO 9797-1 MAC algorithm 1",
        b"M2" => "ISO 9797-1 MAC algorithm 2",
        b"M3" => "ISO 9797-1 MAC algorithm 3",
        b"M4" => "ISO 9797-1 MAC algorithm 4",
        b"M5" => "ISO 9797-1:1999 MAC algorithm 5",
        b"M6" => "ISO 9797-1:2011 MAC algorithm 5 (CMAC)",
        b"M7" => "HMAC",
        b"M8" => "ISO 9797-1 MAC algorithm 6",
        b"P0" => "PIN encryption",
        b"P1" => "PIN generation",
        b"S0" => "digital signature",
        b"S1" => "digital signature of a CA",
        b"S2" => "asymmetric key pair, other",
        b"V0" => "PIN verification",
        b"V1" => "PIN verification, IBM 3624",
        b"V2" => "PIN verification, Visa PVV",
        b"V3" => "PIN verification, X9.132 algorithm 1",
        b"V4" => "PIN verification, X9.132 algorithm 2",
        b"V5" => "PIN verification, X9.132 algorithm 3",
        _ => return None,
    })
}

/// The name of an algorithm.
#[must_use]
pub const fn algorithm(algorithm: u8) -> Option<&'static str> {
    Some(match algorithm {
        b'A' => "AES",
        b'D' => "DES",
        b'E' => "elliptic curve",
        b'H' => "HMAC",
        b'R' => "RSA",
        b'S' => "DSA",
        b'T' => "TDES",
        _ => return None,
    })
}

/// The name of a mode of use.
#[must_use]
pub const fn mode(mode: u8) -> Option<&'static str> {
    Some(match mode {
        b'B' => "encrypt and decrypt",
        b'C' => "generate and verify",
        b'D' => "decrypt only",
        b'E' => "encrypt only",
        b'G' => "generate only",
        b'N' => "no restriction beyond the usage",
        b'S' => "sign only",
        b'T' => "sign and decrypt",
        b'V' => "verify only",
        b'X' => "derive keys",
        b'Y' => "make key variants",
        _ => return None,
    })
}

/// The name of an exportability.
#[must_use]
pub const fn exportability(exportability: u8) -> Option<&'static str> {
    Some(match exportability {
        b'E' => "under a trusted key",
        b'N' => "not",
        b'S' => "sensitive: under any key",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy;

    #[test]
    fn every_value_that_is_known_has_a_name_and_no_other() {
        for one in b'!'..=b'~' {
            assert_eq!(algorithm(one).is_some(), policy::is_algorithm(one));
            assert_eq!(mode(one).is_some(), policy::is_mode(one));
            for other in b'!'..=b'~' {
                let value = [one, other];
                assert_eq!(usage(value).is_some(), policy::is_usage(value), "{value:?}");
            }
        }
    }
}
