//! Certificates that our own CA signed and that must be refused all the same: each breaks one rule
//! of the profile, so that no rule can be removed unnoticed.

use der::asn1::{Ia5String, OctetString};
use der::oid::AssociatedOid;
use der::{Decode, Encode};
use proptest::prelude::*;
use x509_cert::certificate::Certificate;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, KeyUsage, KeyUsages, SubjectAltName,
};

use super::parsed::first_element;
use super::tests::{World, now, reader, refused};
use super::*;
use countersign_crypto::{UnixTime, aws_lc};

const DAY: core::time::Duration = core::time::Duration::from_secs(86_400);

/// The extensions of a good reader certificate.
pub(crate) fn good(world: &mut World) -> Vec<Extension> {
    let der = reader(world);
    Certificate::from_der(&der).unwrap().tbs_certificate().extensions().unwrap().clone()
}

fn value(extension: impl Encode) -> OctetString {
    OctetString::new(extension.to_der().unwrap()).unwrap()
}

pub(crate) fn replace<T: Encode + AssociatedOid>(
    extensions: &[Extension],
    with: T,
) -> Vec<Extension> {
    let mut changed = extensions.to_vec();
    let found = changed.iter_mut().find(|extension| extension.extn_id == T::OID).unwrap();
    found.extn_value = value(with);
    changed
}

fn without<T: AssociatedOid>(extensions: &[Extension]) -> Vec<Extension> {
    extensions.iter().filter(|extension| extension.extn_id != T::OID).cloned().collect()
}

fn twice<T: AssociatedOid>(extensions: &[Extension]) -> Vec<Extension> {
    let again = extensions.iter().find(|extension| extension.extn_id == T::OID).unwrap().clone();
    [extensions, &[again]].concat()
}

fn uri(text: &str) -> GeneralName {
    GeneralName::UniformResourceIdentifier(Ia5String::new(text).unwrap())
}

/// Signs a certificate with these extensions by the CA that is trusted for readers.
pub(crate) fn signed(world: &mut World, extensions: Vec<Extension>) -> Vec<u8> {
    let key = world.provider.signature.generate(&mut world.rng).unwrap().key;
    let number = CertificateNumber::random(&mut world.rng);
    let validity = Validity::from(now(), DAY);
    Issuer::from_certificate(&world.provider, &world.devices)
        .unwrap()
        .prepare_raw(extensions, key.public_key(), number, validity)
        .unwrap()
        .sign(&*world.devices_key.key, &mut world.rng)
        .unwrap()
}

#[test]
fn every_rule_of_the_profile_refuses_on_its_own() {
    let mut world = World::new(aws_lc::provider(), 20);
    let good = good(&mut world);
    let trust = world.trust();
    let names = |names: &[GeneralName]| replace(&good, SubjectAltName(names.to_vec()));
    let usage = |usages: KeyUsages| replace(&good, KeyUsage(usages.into()));
    let ca = BasicConstraints { ca: true, path_len_constraint: None };
    let unknown = |critical| {
        let extn_id = der::asn1::ObjectIdentifier::new_unwrap("1.2.3.4");
        let extn_value = OctetString::new([5, 0]).unwrap();
        [&good[..], &[Extension { extn_id, critical, extn_value }]].concat()
    };
    let own = uri("countersign://reader/RD-1");
    let other_key = AuthorityKeyIdentifier {
        key_identifier: Some(OctetString::new([1; 20]).unwrap()),
        ..AuthorityKeyIdentifier::default()
    };
    let anonymous = AuthorityKeyIdentifier::default();

    let refusals = [
        ("no constraints", without::<BasicConstraints>(&good), PkiError::Malformed),
        ("no usage", without::<KeyUsage>(&good), PkiError::Malformed),
        ("no name", without::<SubjectAltName>(&good), PkiError::Malformed),
        ("no authority", without::<AuthorityKeyIdentifier>(&good), PkiError::Malformed),
        ("constraints twice", twice::<BasicConstraints>(&good), PkiError::Malformed),
        ("usage twice", twice::<KeyUsage>(&good), PkiError::Malformed),
        ("name twice", twice::<SubjectAltName>(&good), PkiError::Malformed),
        ("authority twice", twice::<AuthorityKeyIdentifier>(&good), PkiError::Malformed),
        ("a CA", replace(&good, ca), PkiError::WrongRole),
        ("may sign certificates", usage(KeyUsages::KeyCertSign), PkiError::WrongRole),
        (
            "may sign certificates too",
            replace(&good, KeyUsage(KeyUsages::DigitalSignature | KeyUsages::KeyCertSign)),
            PkiError::WrongRole,
        ),
        ("may nothing", usage(KeyUsages::EncipherOnly), PkiError::WrongUsage),
        ("may not sign", usage(KeyUsages::KeyAgreement), PkiError::WrongUsage),
        ("may not sign, but decrypt", usage(KeyUsages::KeyEncipherment), PkiError::WrongUsage),
        (
            "may sign and decrypt",
            replace(&good, KeyUsage(KeyUsages::DigitalSignature | KeyUsages::DataEncipherment)),
            PkiError::WrongUsage,
        ),
        ("may only not deny", usage(KeyUsages::NonRepudiation), PkiError::WrongUsage),
        ("unknown and critical", unknown(true), PkiError::Malformed),
        ("two URIs", names(&[own.clone(), own.clone()]), PkiError::Malformed),
        (
            "a DNS name",
            names(&[GeneralName::DnsName(Ia5String::new("a").unwrap())]),
            PkiError::Malformed,
        ),
        ("no names in it", names(&[]), PkiError::Malformed),
        ("another scheme", names(&[uri("https://reader/RD-1")]), PkiError::BadIdentity),
        ("another role", names(&[uri("countersign://server/RD-1")]), PkiError::WrongRole),
        ("a strange serial", names(&[uri("countersign://reader/RD%201")]), PkiError::BadIdentity),
        ("another issuer's key", replace(&good, other_key), PkiError::UnknownIssuer),
        ("an issuer without key id", replace(&good, anonymous), PkiError::Malformed),
    ];
    for (what, extensions, error) in refusals {
        let der = signed(&mut world, extensions);
        assert_eq!(refused(trust.verify(&der, Role::Reader, now(), None)), error, "{what}");
    }
    // What is not refused: the good one, and an unknown extension that is not critical.
    for extensions in [good.clone(), unknown(false)] {
        let der = signed(&mut world, extensions);
        assert!(trust.verify(&der, Role::Reader, now(), None).is_ok());
    }
}

/// Changes the signed part and signs it again with the CA's key.
fn resigned(world: &mut World, der: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut tbs = first_element(der).unwrap().to_vec();
    change(&mut tbs);
    let signature = world.devices_key.key.sign(&mut world.rng, &tbs).unwrap();
    let algorithm = [0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
    let signature = der::asn1::BitString::from_bytes(&signature).unwrap().to_der().unwrap();
    let body = [&tbs[..], &algorithm, &signature].concat();
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&[0x30, 0x82, len[0], len[1]], &body[..]].concat()
}

fn flip(tbs: &mut [u8], pattern: &[u8], at: usize, to: u8) {
    let start = tbs.windows(pattern.len()).position(|window| window == pattern).unwrap();
    tbs[start + at] = to;
}

#[test]
fn versions_and_algorithms_are_exact() {
    let mut world = World::new(aws_lc::provider(), 21);
    let der = reader(&mut world);
    let trust = world.trust();
    let same = resigned(&mut world, &der, |_| {});
    assert!(trust.verify(&same, Role::Reader, now(), None).is_ok());
    let version_2 = resigned(&mut world, &der, |tbs| flip(tbs, &[0xa0, 3, 2, 1, 2], 4, 1));
    let error = refused(trust.verify(&version_2, Role::Reader, now(), None));
    assert_eq!(error, PkiError::Malformed);
    // ecdsa-with-SHA384 inside, ecdsa-with-SHA256 outside.
    let oid = [6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
    let sha384 = resigned(&mut world, &der, |tbs| flip(tbs, &oid, 9, 3));
    let error = refused(trust.verify(&sha384, Role::Reader, now(), None));
    assert_eq!(error, PkiError::WrongAlgorithm);
    // Another curve.
    let p256 = [6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    let curve = resigned(&mut world, &der, |tbs| flip(tbs, &p256, 9, 6));
    let error = refused(trust.verify(&curve, Role::Reader, now(), None));
    assert_eq!(error, PkiError::WrongAlgorithm);
}

#[test]
fn a_root_that_allows_nothing_below_it_has_nothing_below_it() {
    let mut world = World::new(aws_lc::provider(), 22);
    let root_key = world.provider.signature.generate(&mut world.rng).unwrap();
    let own = Certificate::from_der(&world.root).unwrap();
    let extensions = own.tbs_certificate().extensions().unwrap().clone();
    let leafy = BasicConstraints { ca: true, path_len_constraint: Some(0) };
    let extensions = replace(&extensions, leafy);
    // Signed by itself through an issuer of its own name.
    let point = root_key.key.public_key();
    let validity = Validity { not_before: UnixTime::default(), not_after: now().plus(DAY) };
    let number = CertificateNumber::random(&mut world.rng);
    let first = self_signed(&world.provider, "Raw", point, number.clone(), validity)
        .unwrap()
        .sign(&*root_key.key, &mut world.rng)
        .unwrap();
    let root = Issuer::from_certificate(&world.provider, &first)
        .unwrap()
        .prepare_raw(extensions, point, number, validity)
        .unwrap()
        .sign(&*root_key.key, &mut world.rng)
        .unwrap();
    let mut trust = TrustStore::new(world.provider.clone());
    let error = trust.trust(&root, &world.devices, Role::Reader, now());
    assert_eq!(error, Err(PkiError::WrongRole));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever our own CA is made to sign, the verifier ends with an answer.
    #[test]
    fn the_verifier_is_total_on_signed_nonsense(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut world = World::new(aws_lc::provider(), 23);
        let der = reader(&mut world);
        let bad = resigned(&mut world, &der, |tbs| {
            for (at, to) in &changes {
                let at = at.index(tbs.len());
                tbs[at] = *to;
            }
        });
        let _either = world.trust().verify(&bad, Role::Reader, now(), None);
    }
}
