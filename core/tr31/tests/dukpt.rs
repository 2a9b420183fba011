//! DUKPT beyond the published vectors, which cover TDES and AES-128: the longer keys, the counters
//! and the strengths.
#![cfg(feature = "aws-lc")]
#![expect(clippy::unwrap_used, reason = "a key that is not derived fails its test")]

use std::collections::HashSet;

use countersign_crypto::Secret;
use tr31::aws_lc::AwsLc;
use tr31::dukpt::{AesKeyType, AesKeyUsage, AesKsn, InitialKeyId, TdesKsn, TdesUse};
use tr31::{KeyFault, Tr31Error};

const ID: InitialKeyId = InitialKeyId::from_bytes([0x12, 0x34, 0x56, 0x78, 0x90, 0x12, 0x34, 0x56]);

fn key(len: usize) -> Secret {
    Secret::new((1..=u8::try_from(len).unwrap()).collect())
}

#[test]
fn aes_keys_of_every_length_are_derived_and_differ() {
    let mut seen = HashSet::new();
    for length in [16, 24, 32] {
        let initial = ID.initial_key(&AwsLc, &key(length)).unwrap();
        assert_eq!(initial.len(), length);
        for counter in [1, 2, 3, 0x8000_0000, 0xFFFF_0000] {
            let ksn = ID.transaction(counter);
            assert_eq!(AesKsn::from_bytes(ksn.to_bytes()), ksn);
            assert_eq!(ksn.derivation_key(&AwsLc, &initial).unwrap().len(), length);
            for usage in [
                AesKeyUsage::KeyEncryption,
                AesKeyUsage::PinEncryption,
                AesKeyUsage::MacGeneration,
                AesKeyUsage::MacVerification,
                AesKeyUsage::MacBothWays,
                AesKeyUsage::DataEncrypt,
                AesKeyUsage::DataDecrypt,
                AesKeyUsage::DataBothWays,
            ] {
                let key = ksn.working_key(&AwsLc, &initial, usage, AesKeyType::Aes128).unwrap();
                assert!(seen.insert(key.expose().to_vec()), "{length} {counter:X} {usage:?}");
            }
        }
    }
}

#[test]
fn no_derived_key_is_stronger_than_its_source() {
    let ksn = ID.transaction(1);
    for (length, types) in [
        (
            16,
            vec![AesKeyType::Aes192, AesKeyType::Aes256, AesKeyType::Hmac192, AesKeyType::Hmac256],
        ),
        (24, vec![AesKeyType::Aes256, AesKeyType::Hmac256]),
        (32, vec![]),
    ] {
        let initial = ID.initial_key(&AwsLc, &key(length)).unwrap();
        for key_type in types {
            let key = ksn.working_key(&AwsLc, &initial, AesKeyUsage::DataEncrypt, key_type);
            assert_eq!(key.unwrap_err(), Tr31Error::DerivedStronger, "{key_type:?}");
        }
        for key_type in [AesKeyType::Tdes2, AesKeyType::Tdes3, AesKeyType::Hmac128] {
            let key = ksn.working_key(&AwsLc, &initial, AesKeyUsage::MacBothWays, key_type);
            assert_eq!(key.unwrap().len(), key_type.key_len());
        }
    }
    for length in [0, 8, 17] {
        let refused = ID.initial_key(&AwsLc, &key(length)).unwrap_err();
        assert_eq!(refused, Tr31Error::Key(KeyFault::Length));
    }
}

#[test]
fn counters_that_are_not_used_are_refused() {
    let initial = ID.initial_key(&AwsLc, &key(16)).unwrap();
    for counter in [0, 0x0001_FFFF, u32::MAX] {
        let refused = ID.transaction(counter).derivation_key(&AwsLc, &initial).unwrap_err();
        assert_eq!(refused, Tr31Error::KsnCounter, "{counter:X}");
    }
    let ksn = TdesKsn::initial([0xFF; 5], 7).unwrap();
    for counter in [0, 0x7FF, 0x1F_FFFF] {
        let ksn = ksn.with_counter(counter).unwrap();
        assert_eq!(ksn.counter(), counter);
        assert_eq!(ksn.transaction_key(&AwsLc, &key(16)).unwrap_err(), Tr31Error::KsnCounter);
    }
    assert_eq!(ksn.with_counter(0x20_0000).unwrap_err(), Tr31Error::KsnCounter);
    assert!(ksn.with_counter(0x3FF).unwrap().transaction_key(&AwsLc, &key(16)).is_ok());
    assert_eq!(ksn.initial_key(&AwsLc, &key(24)).unwrap_err(), Tr31Error::Key(KeyFault::Length));
}

#[test]
fn tdes_working_keys_are_variants_of_the_transaction_key() {
    let ksn = TdesKsn::from_bytes([0xFF, 0xFF, 0x98, 0x76, 0x54, 0x32, 0x10, 0xE0, 0x00, 0x01]);
    let initial = Secret::new(hex::decode("6AC292FAA1315B4D858AB3A3D7D5933A").unwrap());
    let transaction = ksn.transaction_key(&AwsLc, &initial).unwrap();
    let working = |purpose| ksn.working_key(&AwsLc, &initial, purpose).unwrap();
    for (purpose, byte) in [(TdesUse::Pin, 7), (TdesUse::MacRequest, 6), (TdesUse::MacResponse, 4)]
    {
        let mut expected = transaction.expose().to_vec();
        expected[byte] ^= 0xFF;
        expected[byte + 8] ^= 0xFF;
        assert!(working(purpose).ct_eq(&expected), "{purpose:?}");
    }
    // X9.24-1:2009 A.4: the PIN and the data encryption keys of the first transaction.
    assert!(working(TdesUse::Pin).ct_eq(&hex::decode("042666B49184CF5C68DE9628D0397B36").unwrap()));
    let data = hex::decode("448D3F076D8304036A55A3D7E0055A78").unwrap();
    assert!(working(TdesUse::DataRequest).ct_eq(&data));
    assert!(!working(TdesUse::DataResponse).ct_eq(&data));
    assert_eq!(ksn.to_string(), "FFFF9876543210E00001");
    assert_eq!(
        ksn.with_counter(0).unwrap(),
        TdesKsn::initial([0xFF, 0xFF, 0x98, 0x76, 0x54], 0x19087).unwrap()
    );
}

/// Test vectors of the supplement to X9.24-3:2017 for a base key of 256 bits.
#[test]
fn aes_256_derives_the_published_keys() {
    let secret = |digits: &str| Secret::new(hex::decode(digits).unwrap());
    let same = |key: &Secret, digits: &str| assert!(key.ct_eq(&hex::decode(digits).unwrap()));
    let base = secret("FEDCBA9876543210F1F1F1F1F1F1F1F1FEDCBA9876543210F1F1F1F1F1F1F1F1");
    let initial = ID.initial_key(&AwsLc, &base).unwrap();
    same(&initial, "CE9CE0C101D1138F97FB6CAD4DF045A7083D4EAE2D35A31789D01CCF0949550F");
    for (counter, digits) in [
        (1, "54AC2B32B145EA4A554CB8BC44B17467063A799856B1CCC2A138D36E8DBF78B3"),
        (2, "5DD5A0253842BBBE1D7C0DA27021412C6F1FAB53FB928DEAE56DA06090A9DE97"),
        (3, "8EEEF7C464AE415BB1D73FAED21993CD669F7999092A579EC6DD3CC680C65171"),
        (0xFFFE_4000, "FF20E1BB575539ACCB44E3111BE8757F83AE8549A2DD71B441A4A424F7FFD4B1"),
        (0xFFFE_8000, "630535C9C53E1EC6524016930B56F6728909C45403536B419AEBCB25B7351C07"),
    ] {
        same(&ID.transaction(counter).derivation_key(&AwsLc, &initial).unwrap(), digits);
    }
    let update = |key_type| ID.update_key(&AwsLc, &initial, key_type).unwrap();
    same(&update(AesKeyType::Aes128), "90E54E4A70160C7E085C09D2B241D343");
    let digits = "AEFB210C136278A1279F7C8815F446DB8EBE2AA910B157AA4E6484D8DE9C4807";
    same(&update(AesKeyType::Aes256), digits);
}
