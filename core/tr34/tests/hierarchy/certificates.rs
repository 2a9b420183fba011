//! Reading one certificate, and verifying it under the one above.

use countersign_crypto::UnixTime;
use tr34::aws_lc::AwsLc;
use tr34::reader::{DerError, tag, tlv, unsigned};
use tr34::{Certificate, CertificateError, Leniency, PublicKey, Role, RsaKey};

use crate::forge::{
    CRL_SIGN, DIGITAL_SIGNATURE, Forged, KEY_ENCIPHERMENT, SHA1_WITH_RSA, algorithm,
    authority_key_id, basic_constraints, extension, generalized, key_usage, uri,
};
use crate::world::{NOW, WORLD};

fn good() -> Forged {
    Forged::leaf(&WORLD.ca_kdh, &WORLD.kdh, DIGITAL_SIGNATURE, "countersign://kdh/kdh-1")
}

fn refusal(forged: &Forged) -> CertificateError {
    forged.parse(&WORLD.ca_kdh).unwrap_err()
}

fn verify(forged: &Forged) -> Result<(), CertificateError> {
    forged.parse(&WORLD.ca_kdh)?.verified_by(&AwsLc, &WORLD.ca_kdh.certificate, NOW)
}

#[test]
fn what_was_issued_reads_back() {
    let certificate = &WORLD.krd.certificate;
    certificate.verified_by(&AwsLc, &WORLD.ca_krd.certificate, NOW).unwrap();
    let party = certificate.party().unwrap();
    assert_eq!((party.role(), party.id()), (Role::Krd, "POS-1"));
    assert!(!certificate.is_ca() && WORLD.ca_krd.certificate.is_ca());
    assert_eq!(certificate.public_key(), WORLD.krd.key.public_key());
    assert_eq!(certificate.identity().issuer(), WORLD.ca_krd.certificate.subject());
    assert_eq!(certificate.identity().serial().len(), 16);
    assert_eq!(tr34::name_text(certificate.subject()), "CN=POS-1,OU=krd,O=Countersign");
    assert_eq!(certificate, &Certificate::parse(certificate.raw()).unwrap());
    verify(&good()).unwrap();
}

#[test]
fn what_is_not_a_certificate_is_refused() {
    let der = good().der(&WORLD.ca_kdh.key);
    let malformed = |der: &[u8]| match Certificate::parse(der).unwrap_err() {
        CertificateError::Malformed(error) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(malformed(&[]), DerError::Truncated);
    assert_eq!(malformed(&der[..der.len() - 1]), DerError::Truncated);
    assert_eq!(malformed(&[&der[..], &[0]].concat()), DerError::Trailing);
    assert_eq!(Certificate::parse(&[0x30; 4097]).unwrap_err().check(), "certificate-length");

    let mut long = good();
    long.subject = tlv(tag::SEQUENCE, &[&[0; 1100]]);
    assert_eq!(refusal(&long), CertificateError::TooLong);
    let mut serial = good();
    serial.serial = tlv(tag::INTEGER, &[&[1; 22]]);
    assert_eq!(refusal(&serial).check(), "certificate-malformed");
    let mut time = good();
    time.validity[1] = tlv(tag::UTC_TIME, &[b"2801010000Z"]);
    assert_eq!(refusal(&time).check(), "certificate-malformed");
    time.validity[1] = generalized("20281301000000Z");
    assert_eq!(refusal(&time), CertificateError::Malformed(DerError::Value));
}

#[test]
fn version_algorithm_and_key_are_of_the_profile() {
    let mut forged = good();
    for version in [Vec::new(), tlv(tag::context_constructed(0), &[&[2, 1, 1]])] {
        forged.version = version;
        assert_eq!(refusal(&forged), CertificateError::Version);
    }
    let mut forged = good();
    forged.outer = algorithm(&SHA1_WITH_RSA);
    assert_eq!(refusal(&forged), CertificateError::Algorithm);
    let mut forged = good();
    forged.inner = algorithm(&SHA1_WITH_RSA);
    assert_eq!(refusal(&forged), CertificateError::Algorithm);

    let sound = PublicKey::parse(WORLD.kdh.key.public_key()).unwrap();
    for (modulus, exponent) in [(&sound.modulus[1..], &[1, 0, 1][..]), (sound.modulus, &[3])] {
        let key = tlv(tag::SEQUENCE, &[&unsigned(modulus), &unsigned(exponent)]);
        let mut forged = good();
        forged.public_key = tlv(
            tag::SEQUENCE,
            &[
                &algorithm(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1]),
                &tlv(tag::BIT_STRING, &[&[0], &key]),
            ],
        );
        assert_eq!(refusal(&forged), CertificateError::Key);
    }
}

#[test]
fn repeated_extensions_need_their_leniency() {
    let lenient = Leniency { repeated_extensions: true, ..Leniency::STRICT };
    let parse = |forged: &Forged| forged.parse_with(&WORLD.ca_kdh, lenient);
    // As the KDH 1 of the standard's samples.
    let mut twice = good();
    twice.extensions.push(key_usage(DIGITAL_SIGNATURE));
    twice.extensions.push(basic_constraints(false, None));
    assert_eq!(refusal(&twice), CertificateError::RepeatedExtension);
    let certificate = parse(&twice).unwrap();
    tr34::Kdh::verify(&AwsLc, certificate, &WORLD.ca_kdh.certificate, NOW).unwrap();

    let mut contradicting = good();
    contradicting.extensions.push(basic_constraints(true, None));
    assert_eq!(parse(&contradicting).unwrap_err(), CertificateError::RepeatedExtension);
    let mut two_names = good();
    two_names.extensions.push(uri("countersign://kdh/kdh-2"));
    assert_eq!(parse(&two_names).unwrap_err(), CertificateError::RepeatedExtension);
    let mut narrowed = good();
    narrowed.extensions.push(key_usage(KEY_ENCIPHERMENT));
    let narrowed = parse(&narrowed).unwrap();
    let verified = tr34::Kdh::verify(&AwsLc, narrowed, &WORLD.ca_kdh.certificate, NOW);
    assert_eq!(verified.unwrap_err(), CertificateError::Usage);
}

#[test]
fn critical_extensions_are_understood_or_refused() {
    for oid in [&[0x55, 0x1d, 30][..], &[0x55, 0x1d, 37], &[0x2b, 6, 1, 4, 1, 1]] {
        let mut forged = good();
        forged.extensions.push(extension(oid, true, &[5, 0]));
        assert_eq!(refusal(&forged), CertificateError::CriticalExtension, "{oid:?}");
        forged.extensions.pop();
        forged.extensions.push(extension(oid, false, &[5, 0]));
        verify(&forged).unwrap();
    }
}

#[test]
fn a_name_of_ours_stands_alone_and_in_its_form() {
    for bad in ["countersign://kdh/", "countersign://reader/R-1", "countersign:kdh"] {
        let mut forged = good();
        forged.extensions[2] = uri(bad);
        assert_eq!(refusal(&forged).check(), "certificate-malformed", "{bad}");
    }
    let names = |names: &[&[u8]]| {
        let list: Vec<Vec<u8>> = names.iter().map(|name| tlv(tag::context(6), &[name])).collect();
        extension(&[0x55, 0x1d, 17], false, &tlv(tag::SEQUENCE, &[&list.concat()]))
    };
    let mut forged = good();
    forged.extensions[2] = names(&[b"countersign://kdh/kdh-1", b"https://example.org"]);
    assert_eq!(refusal(&forged).check(), "certificate-malformed");
    forged.extensions[2] = names(&[b"https://example.org", b"urn:x:y"]);
    assert!(forged.parse(&WORLD.ca_kdh).unwrap().party().is_none());
}

#[test]
fn only_the_ca_above_vouches() {
    let certificate = WORLD.kdh.certificate.clone();
    let under = |ca: &Certificate| certificate.verified_by(&AwsLc, ca, NOW).unwrap_err();
    assert_eq!(under(&WORLD.ca_krd.certificate), CertificateError::Issuer);
    assert_eq!(under(&WORLD.root.certificate), CertificateError::Issuer);

    // The CA's name under another key, which the key identifier tells; and without one.
    let mut impostor = Forged::ca(&WORLD.root, &WORLD.ca_kdh, "countersign://ca-kdh/kdh-g1");
    impostor.public_key = WORLD.stranger.public_key().to_vec();
    let without_id = impostor.parse(&WORLD.root).unwrap();
    assert_eq!(under(&without_id), CertificateError::Signature);
    let own_id = extension(&[0x55, 0x1d, 14], false, &tlv(tag::OCTET_STRING, &[&[7; 20]]));
    impostor.extensions.push(own_id);
    assert_eq!(under(&impostor.parse(&WORLD.root).unwrap()), CertificateError::Issuer);

    let mut forged = good();
    forged.extensions.push(authority_key_id(&[1; 20]));
    assert_eq!(verify(&forged), Err(CertificateError::Issuer));
    let stolen = Certificate::parse(&good().der(&WORLD.stranger)).unwrap();
    let verified = stolen.verified_by(&AwsLc, &WORLD.ca_kdh.certificate, NOW);
    assert_eq!(verified, Err(CertificateError::Signature));
}

#[test]
fn every_changed_byte_is_noticed() {
    let der = WORLD.kdh.certificate.raw();
    for position in 0..der.len() {
        let mut changed = der.to_vec();
        changed[position] ^= 0x01;
        let accepted = Certificate::parse_with(&changed, Leniency::FOREIGN)
            .and_then(|it| it.verified_by(&AwsLc, &WORLD.ca_kdh.certificate, NOW));
        assert!(accepted.is_err(), "byte {position}");
    }
}

#[test]
fn who_is_no_ca_certifies_nobody() {
    let below_kdh =
        Forged::leaf(&WORLD.kdh, &WORLD.krd, KEY_ENCIPHERMENT, "countersign://krd/POS-1");
    let certificate = below_kdh.parse(&WORLD.kdh).unwrap();
    let verified = certificate.verified_by(&AwsLc, &WORLD.kdh.certificate, NOW);
    assert_eq!(verified, Err(CertificateError::IssuerNotCa));

    let mut ca = Forged::ca(&WORLD.root, &WORLD.ca_kdh, "countersign://ca-kdh/kdh-g1");
    ca.extensions[1] = key_usage(CRL_SIGN);
    let ca = ca.parse(&WORLD.root).unwrap();
    let verified = WORLD.kdh.certificate.verified_by(&AwsLc, &ca, NOW);
    assert_eq!(verified, Err(CertificateError::IssuerNotCa));

    // Without any keyUsage it takes the leniency of that name.
    let mut unsaid = Forged::ca(&WORLD.root, &WORLD.ca_kdh, "countersign://ca-kdh/kdh-g1");
    unsaid.extensions.remove(1);
    let strict = unsaid.parse(&WORLD.root).unwrap();
    let verified = WORLD.kdh.certificate.verified_by(&AwsLc, &strict, NOW);
    assert_eq!(verified, Err(CertificateError::IssuerNotCa));
    let lenient = Leniency { without_key_usage: true, ..Leniency::STRICT };
    let lenient = unsaid.parse_with(&WORLD.root, lenient).unwrap();
    WORLD.kdh.certificate.verified_by(&AwsLc, &lenient, NOW).unwrap();
}

#[test]
fn a_ca_of_leaves_certifies_no_ca() {
    let ca = Forged::ca(&WORLD.ca_kdh, &WORLD.kdh, "countersign://ca-kdh/deeper");
    let ca = ca.parse(&WORLD.ca_kdh).unwrap();
    let verified = ca.verified_by(&AwsLc, &WORLD.ca_kdh.certificate, NOW);
    assert_eq!(verified, Err(CertificateError::PathLength));
}

#[test]
fn both_windows_count_with_their_ends() {
    let certificate = good().parse(&WORLD.ca_kdh).unwrap();
    let at = |secs| {
        let now = UnixTime::from_secs(secs);
        certificate.verified_by(&AwsLc, &WORLD.ca_kdh.certificate, now)
    };
    let issuer_begins = WORLD.ca_kdh.certificate.not_before().as_secs();
    let (begins, ends) = (certificate.not_before().as_secs(), certificate.not_after().as_secs());
    assert_eq!(at(issuer_begins - 1), Err(CertificateError::IssuerTime));
    at(issuer_begins).unwrap();
    at(ends).unwrap();
    assert_eq!(at(ends + 1), Err(CertificateError::Expired));
    assert_eq!(
        certificate.check_window(UnixTime::from_secs(begins - 1)),
        Err(CertificateError::NotYetValid)
    );

    let mut later = good();
    later.validity[0] = generalized("20270301000000Z");
    assert_eq!(verify(&later), Err(CertificateError::NotYetValid));
    let mut expired = good();
    expired.validity[1] = generalized("20261231235959Z");
    assert_eq!(verify(&expired), Err(CertificateError::Expired));
    let issuer_ended = WORLD.ca_kdh.certificate.not_after().as_secs() + 1;
    assert_eq!(at(issuer_ended), Err(CertificateError::IssuerTime));
}

#[test]
fn a_root_vouches_for_itself() {
    let root = &WORLD.root.certificate;
    root.verify_root(&AwsLc, NOW).unwrap();
    let not_a_root = |certificate: &Certificate| {
        assert_eq!(certificate.verify_root(&AwsLc, NOW), Err(CertificateError::NotARoot));
    };
    not_a_root(&WORLD.ca_kdh.certificate);
    // Names itself, but another key signed, or it is no CA.
    let mut forged = Forged::ca(&WORLD.root, &WORLD.root, "countersign://ca-kdh/x");
    not_a_root(&Certificate::parse(&forged.der(&WORLD.stranger)).unwrap());
    forged.parse(&WORLD.root).unwrap().verify_root(&AwsLc, NOW).unwrap();
    forged.extensions[0] = basic_constraints(false, None);
    not_a_root(&forged.parse(&WORLD.root).unwrap());
    let late = root.not_after().plus(std::time::Duration::from_secs(1));
    assert_eq!(root.verify_root(&AwsLc, late), Err(CertificateError::Expired));
}
