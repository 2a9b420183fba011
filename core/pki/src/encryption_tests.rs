//! Encryption certificates: what they give, and that neither usage passes for the other.

use countersign_crypto::{Provider, Secret, aws_lc, rust_crypto, sm};
use x509_cert::ext::pkix::{KeyUsage, KeyUsages};

use super::profile_tests::{good, replace, signed};
use super::tests::{OneLeaf, World, now, reader, refused};
use super::*;

const DAY: core::time::Duration = core::time::Duration::from_secs(86_400);

/// Every suite has encryption certificates, whether its handshakes encrypt or not.
fn providers() -> [Provider; 3] {
    [rust_crypto::provider(), aws_lc::provider(), sm::provider()]
}

/// A reader's encryption key as PKCS#8, and the request for its certificate.
fn requested(world: &mut World) -> (Secret, Vec<u8>) {
    let scheme = world.provider.sealing.clone();
    let made = scheme.generate(&mut world.rng).unwrap();
    let key = world.provider.signature.load_pkcs8(&made.pkcs8).unwrap();
    let identity = Identity::new(Role::Reader, "RD-1").unwrap();
    let csr = encryption_request(&world.provider, &identity, &*key, &mut world.rng).unwrap();
    (made.pkcs8, csr)
}

fn issue(world: &mut World, csr: &[u8]) -> Vec<u8> {
    let request = parse_request(&world.provider, csr).unwrap();
    assert_eq!(request.usage(), Usage::Encryption);
    let number = CertificateNumber::random(&mut world.rng);
    let validity = Validity::from(now(), DAY);
    let prepared =
        world.issuer().prepare_encryption(&request, Role::Reader, number, validity).unwrap();
    world.sign(prepared)
}

fn refused_as_encryption(result: Result<EncryptionLeaf, PkiError>) -> PkiError {
    result.err().expect("must be refused")
}

#[test]
fn what_is_encrypted_to_the_certified_point_is_opened_with_its_key() {
    for provider in providers() {
        let mut world = World::new(provider, 30);
        let (pkcs8, csr) = requested(&mut world);
        let der = issue(&mut world, &csr);
        let leaf = world.trust().verify_encryption(&der, Role::Reader, now(), None).unwrap();
        assert_eq!(leaf.identity().to_uri(), "countersign://reader/RD-1");
        assert_eq!(leaf.number(), &number(&der).unwrap());
        assert_eq!(leaf.point(), certified_point(&world.provider, &der).unwrap());
        assert_eq!(leaf.hash(), &world.provider.hash.hash(&[&der]));
        let scheme = world.provider.sealing.clone();
        let sealed = scheme.encrypt(&mut world.rng, leaf.point(), b"contribution").unwrap();
        let key = scheme.load_pkcs8(&pkcs8).unwrap();
        assert_eq!(key.decrypt(&sealed).unwrap().expose(), b"contribution");
    }
}

#[test]
fn neither_usage_passes_for_the_other() {
    for provider in providers() {
        let mut world = World::new(provider, 31);
        let (_, csr) = requested(&mut world);
        let encryption = issue(&mut world, &csr);
        let signing = reader(&mut world);
        let trust = world.trust();
        let wrong = PkiError::WrongUsage;
        assert_eq!(refused(trust.verify(&encryption, Role::Reader, now(), None)), wrong);
        let result = trust.verify_encryption(&signing, Role::Reader, now(), None);
        assert_eq!(refused_as_encryption(result), wrong);
        // Nor through a cache that knows the certificate for what it is.
        let cache = OneLeaf::default();
        trust.verify_encryption(&encryption, Role::Reader, now(), Some(&cache)).unwrap();
        assert_eq!(refused(trust.verify(&encryption, Role::Reader, now(), Some(&cache))), wrong);
        trust.verify(&signing, Role::Reader, now(), Some(&cache)).unwrap();
        let result = trust.verify_encryption(&signing, Role::Reader, now(), Some(&cache));
        assert_eq!(refused_as_encryption(result), wrong);
    }
}

#[test]
fn encryption_leaves_are_checked_as_signing_ones() {
    for provider in providers() {
        let mut world = World::new(provider, 32);
        let (_, csr) = requested(&mut world);
        let der = issue(&mut world, &csr);
        let mut trust = world.trust();
        let check = |trust: &TrustStore, der: &[u8], role, now| {
            trust.verify_encryption(der, role, now, None).err()
        };
        assert_eq!(check(&trust, &der, Role::Reader, now()), None);
        assert_eq!(check(&trust, &der, Role::Server, now()), Some(PkiError::WrongRole));
        let (early, late) = (now().minus(DAY), now().plus(2 * DAY));
        assert_eq!(check(&trust, &der, Role::Reader, early), Some(PkiError::NotYetValid));
        assert_eq!(check(&trust, &der, Role::Reader, late), Some(PkiError::Expired));
        for at in 0..der.len() {
            let mut bad = der.clone();
            bad[at] ^= 1;
            assert!(check(&trust, &bad, Role::Reader, now()).is_some(), "byte {at}");
        }
        let other = World::new(world.provider.clone(), 33).trust();
        assert_eq!(check(&other, &der, Role::Reader, now()), Some(PkiError::UnknownIssuer));
        trust.revoke(number(&der).unwrap());
        assert_eq!(check(&trust, &der, Role::Reader, now()), Some(PkiError::Revoked));
    }
}

#[test]
fn an_encryption_certificate_may_encipher_keys_and_nothing_else() {
    for provider in providers() {
        let mut world = World::new(provider, 34);
        let good = good(&mut world);
        let trust = world.trust();
        let encipher = KeyUsages::KeyEncipherment;
        let cases = [
            ("the profile", encipher | KeyUsages::DataEncipherment | KeyUsages::KeyAgreement, None),
            ("keys only", encipher.into(), None),
            ("data only", KeyUsages::DataEncipherment.into(), Some(PkiError::WrongUsage)),
            ("agreement only", KeyUsages::KeyAgreement.into(), Some(PkiError::WrongUsage)),
            ("signs too", encipher | KeyUsages::DigitalSignature, Some(PkiError::WrongUsage)),
            ("commits too", encipher | KeyUsages::NonRepudiation, Some(PkiError::WrongUsage)),
            ("certifies too", encipher | KeyUsages::KeyCertSign, Some(PkiError::WrongRole)),
        ];
        for (what, usage, wanted) in cases {
            let der = signed(&mut world, replace(&good, KeyUsage(usage)));
            let error = trust.verify_encryption(&der, Role::Reader, now(), None).err();
            assert_eq!(error, wanted, "{what}");
        }
    }
}

/// The usage is part of what the key's own signature covers, and each way of preparing takes its
/// own.
#[test]
fn requests_are_for_one_usage() {
    for provider in providers() {
        let mut world = World::new(provider, 35);
        let (_, csr) = requested(&mut world);
        let encryption = parse_request(&world.provider, &csr).unwrap();
        let identity = Identity::new(Role::Reader, "RD-1").unwrap();
        let key = world.provider.signature.generate(&mut world.rng).unwrap();
        let signing = request(&world.provider, &identity, &*key.key, &mut world.rng).unwrap();
        let signing = parse_request(&world.provider, &signing).unwrap();
        assert_eq!(signing.usage(), Usage::Signing);
        let number = CertificateNumber::random(&mut world.rng);
        let validity = Validity::from(now(), DAY);
        let issuer = world.issuer();
        let error = issuer.prepare(&encryption, Role::Reader, number.clone(), validity).err();
        assert_eq!(error, Some(PkiError::WrongUsage));
        let error =
            issuer.prepare_encryption(&signing, Role::Reader, number.clone(), validity).err();
        assert_eq!(error, Some(PkiError::WrongUsage));
        let error = issuer.prepare_encryption(&encryption, Role::Server, number, validity).err();
        assert_eq!(error, Some(PkiError::WrongRole));
        for at in 0..csr.len() {
            let mut bad = csr.clone();
            bad[at] ^= 1;
            assert!(parse_request(&world.provider, &bad).is_err(), "byte {at}");
        }
    }
}

/// A suite's certificates are nothing to another suite.
#[test]
fn suites_do_not_mix() {
    let mut sm_world = World::new(sm::provider(), 36);
    let mut p256_world = World::new(rust_crypto::provider(), 36);
    let wrong = PkiError::WrongAlgorithm;
    let (sm_leaf, p256_leaf) = (reader(&mut sm_world), reader(&mut p256_world));
    let (sm_trust, p256_trust) = (sm_world.trust(), p256_world.trust());
    assert_eq!(refused(sm_trust.verify(&p256_leaf, Role::Reader, now(), None)), wrong);
    assert_eq!(refused(p256_trust.verify(&sm_leaf, Role::Reader, now(), None)), wrong);
    assert_eq!(certified_point(&sm::provider(), &p256_leaf), Err(wrong));
    assert_eq!(Issuer::from_certificate(&aws_lc::provider(), &sm_world.devices).err(), Some(wrong));
    let (_, sm_csr) = requested(&mut sm_world);
    assert_eq!(parse_request(&p256_world.provider, &sm_csr).err(), Some(wrong));
    let (_, p256_csr) = requested(&mut p256_world);
    let (sm_leaf, p256_leaf) = (issue(&mut sm_world, &sm_csr), issue(&mut p256_world, &p256_csr));
    for (trust, theirs) in [(sm_trust, p256_leaf), (p256_trust, sm_leaf)] {
        let result = trust.verify_encryption(&theirs, Role::Reader, now(), None);
        assert_eq!(refused_as_encryption(result), wrong);
    }
    let mut trust = TrustStore::new(sm::provider());
    let error = trust.trust(&p256_world.root, &p256_world.devices, Role::Reader, now());
    assert_eq!(error, Err(wrong));
}
