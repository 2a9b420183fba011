//! Requests: what is asked for, and the proof that the key is there.

use tr34::aws_lc::{AwsLc, SoftwareRsaKey};
use tr34::reader::{DerError, tag, tlv};
use tr34::{RequestError, Role, RsaError, RsaKey, parse_foreign_request, parse_request, request};

use crate::forge::{SHA1_WITH_RSA, SHA256_WITH_RSA, algorithm, signed, uri};
use crate::world::{WORLD, party};

const EXTENSION_REQUEST: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 14];

/// A request to be, with these common names and wanted extensions.
fn info(names: &[&str], extensions: &[Vec<u8>], public_key: &[u8]) -> Vec<u8> {
    let common_name = |name: &&str| {
        let value = tlv(tag::UTF8_STRING, &[name.as_bytes()]);
        let pair = tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[&[0x55, 4, 3]]), &value]);
        tlv(tag::SET, &[&pair])
    };
    let names: Vec<Vec<u8>> = names.iter().map(common_name).collect();
    let wanted = tlv(tag::SEQUENCE, &[&extensions.concat()]);
    let oid = tlv(tag::OID, &[&EXTENSION_REQUEST]);
    let attribute = tlv(tag::SEQUENCE, &[&oid, &tlv(tag::SET, &[&wanted])]);
    let attributes = if extensions.is_empty() { Vec::new() } else { attribute };
    let parts = [
        &[2, 1, 0][..],
        &tlv(tag::SEQUENCE, &[&names.concat()]),
        public_key,
        &tlv(tag::context_constructed(0), &[&attributes]),
    ];
    tlv(tag::SEQUENCE, &parts)
}

fn forged(names: &[&str], extensions: &[Vec<u8>]) -> Vec<u8> {
    let key = &WORLD.krd.key;
    signed(&info(names, extensions, key.public_key()), &algorithm(&SHA256_WITH_RSA), key)
}

fn refusal(der: &[u8]) -> RequestError {
    parse_request(&AwsLc, der).unwrap_err()
}

#[test]
fn a_request_says_who_asks_and_proves_the_key() {
    let wanted = party(Role::Krd, "POS-1");
    let der = request(&WORLD.krd.key, &wanted).unwrap();
    let requested = parse_request(&AwsLc, &der).unwrap();
    assert_eq!(requested.party(), &wanted);
    assert_eq!(requested.public_key(), WORLD.krd.key.public_key());
    for position in 0..der.len() {
        let mut changed = der.clone();
        changed[position] ^= 0x01;
        assert!(parse_request(&AwsLc, &changed).is_err(), "byte {position}");
    }
}

#[test]
fn possession_of_another_key_proves_nothing() {
    let info = info(&["POS-1"], &[uri("countersign://krd/POS-1")], WORLD.krd.key.public_key());
    let der = signed(&info, &algorithm(&SHA256_WITH_RSA), &WORLD.stranger);
    assert_eq!(refusal(&der), RequestError::ProofOfPossession);
    assert_eq!(refusal(&der).check(), "request-proof");
    let der = signed(&info, &algorithm(&SHA1_WITH_RSA), &WORLD.krd.key);
    assert_eq!(refusal(&der), RequestError::Algorithm);
}

#[test]
fn keys_and_forms_are_of_the_profile() {
    let uri = [uri("countersign://krd/POS-1")];
    let info_of =
        |key: &[u8]| signed(&info(&["x"], &uri, key), &algorithm(&SHA256_WITH_RSA), &WORLD.krd.key);
    let no_key = tlv(tag::SEQUENCE, &[&algorithm(&SHA256_WITH_RSA), &[3, 2, 0, 0]]);
    assert_eq!(refusal(&info_of(&no_key)), RequestError::Key);

    let der = forged(&["POS-1"], &uri);
    assert_eq!(refusal(&der[..der.len() - 1]), RequestError::Malformed(DerError::Truncated));
    let longer = [&der[..], &[0]].concat();
    assert_eq!(refusal(&longer), RequestError::Malformed(DerError::Trailing));
    assert_eq!(refusal(&[0x30; 4097]), RequestError::TooLong);
    let mut second = info(&["x"], &uri, WORLD.krd.key.public_key());
    let version = second.windows(3).position(|bytes| bytes == [2, 1, 0]).unwrap();
    second[version + 2] = 1;
    let second = signed(&second, &algorithm(&SHA256_WITH_RSA), &WORLD.krd.key);
    assert_eq!(refusal(&second).check(), "request-malformed");
}

#[test]
fn a_request_names_one_party() {
    let one = uri("countersign://krd/POS-1");
    assert_eq!(refusal(&forged(&["POS-1"], &[])), RequestError::WithoutParty);
    assert_eq!(
        refusal(&forged(&["POS-1"], &[one.clone(), one.clone()])),
        RequestError::WithoutParty
    );
    let bad = uri("countersign://krd/no blanks");
    assert_eq!(refusal(&forged(&["x"], &[bad])).check(), "request-malformed");
}

#[test]
fn a_foreign_request_is_named_by_its_common_name() {
    let parse = |der: &[u8]| parse_foreign_request(&AwsLc, der, Role::Krd);
    let requested = parse(&forged(&["POS-7"], &[])).unwrap();
    assert_eq!(requested.party(), &party(Role::Krd, "POS-7"));
    let ours = forged(&["ignored"], &[uri("countersign://krd/POS-1")]);
    assert_eq!(parse(&ours).unwrap().party(), &party(Role::Krd, "POS-1"));
    let kdh = forged(&["POS-7"], &[uri("countersign://kdh/kdh-1")]);
    assert_eq!(parse(&kdh), Err(RequestError::WithoutParty), "a role that is named counts");
    for names in [&[][..], &["a", "b"]] {
        assert_eq!(parse(&forged(names, &[])), Err(RequestError::WithoutParty));
    }
    assert_eq!(parse(&forged(&["no blanks"], &[])).unwrap_err().check(), "device-id-format");
}

/// A holder that cannot sign, or does not have an acceptable key.
struct Broken(Vec<u8>);

impl RsaKey for Broken {
    fn public_key(&self) -> &[u8] {
        &self.0
    }

    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, RsaError> {
        Err(RsaError::Failed)
    }

    fn decrypt(&self, _: &[u8]) -> Result<countersign_crypto::Secret, RsaError> {
        Err(RsaError::Failed)
    }
}

#[test]
fn a_holder_that_fails_is_named() {
    let wanted = party(Role::Krd, "POS-1");
    let of = |key: &dyn RsaKey| request(key, &wanted).unwrap_err();
    assert_eq!(of(&Broken(WORLD.krd.key.public_key().to_vec())), RequestError::SigningFailed);
    assert_eq!(of(&Broken(vec![1, 2, 3])), RequestError::Key);
    let longest = SoftwareRsaKey::generate(3072).unwrap();
    let der = request(&longest, &party(Role::Krd, &"x".repeat(64))).unwrap();
    parse_request(&AwsLc, &der).unwrap();
}
