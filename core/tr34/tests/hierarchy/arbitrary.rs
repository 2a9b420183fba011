//! Parsers take any bytes without a panic, and what they accept they give back.

use proptest::prelude::*;
use tr34::aws_lc::AwsLc;
use tr34::{Certificate, Crl, CrlSeen, IssuerAndSerial, Leniency, PublicKey, parse_request};

use crate::world::{WORLD, crl};

fn all(der: &[u8]) {
    if let Ok(certificate) = Certificate::parse_with(der, Leniency::FOREIGN) {
        assert_eq!(certificate.raw(), der);
    }
    if let Ok(crl) = Crl::parse(der) {
        assert_eq!(crl.raw(), der);
    }
    let _ = (parse_request(&AwsLc, der), PublicKey::parse(der), CrlSeen::from_bytes(der));
    let _ = IssuerAndSerial::parse(der).map(|identity| identity.to_string());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes(der in prop::collection::vec(any::<u8>(), 0..400)) {
        all(&der);
    }

    #[test]
    fn damaged_ones(
        which in 0..2_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let list = crl_der();
        let mut der = [WORLD.kdh.certificate.raw(), &list][which].to_vec();
        for (position, value) in changes {
            let position = position.index(der.len());
            der[position] = value;
        }
        all(&der);
        all(&der[..cut.index(der.len())]);
    }
}

fn crl_der() -> Vec<u8> {
    static LIST: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
        crl(&WORLD.ca_kdh, 1, &[&WORLD.kdh.certificate]).raw().to_vec()
    });
    LIST.clone()
}
