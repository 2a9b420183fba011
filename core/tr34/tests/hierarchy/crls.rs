//! Lists of revoked certificates: every check, and the order of lists.

use std::time::Duration;

use countersign_crypto::UnixTime;
use tr34::aws_lc::AwsLc;
use tr34::reader::{DerError, tag, tlv};
use tr34::{CRL_ENTRIES_MAX, Certificate, Crl, CrlError, CrlNumber, CrlSeen, Leniency};

use crate::forge::{
    Forged, ForgedCrl, KEY_CERT_SIGN, SHA1_WITH_RSA, algorithm, authority_key_id, extension,
    generalized, key_usage,
};
use crate::world::{Holder, NOW, WORLD, crl};

fn ca() -> &'static Holder {
    &WORLD.ca_kdh
}

fn verify(crl: &Crl, last_seen: Option<&CrlSeen>) -> Result<CrlSeen, CrlError> {
    crl.verify(&AwsLc, &ca().certificate, NOW, last_seen)
}

fn refusal(forged: &ForgedCrl) -> CrlError {
    forged.check(ca()).unwrap_err()
}

#[test]
fn a_list_names_who_is_revoked_by_issuer_and_serial() {
    let list = crl(ca(), 7, &[&WORLD.kdh.certificate]);
    let seen = verify(&list, None).unwrap();
    assert_eq!((seen.number(), seen.this_update()), (Some(CrlNumber::from(7)), NOW));
    let revoked = WORLD.kdh.certificate.identity();
    assert!(list.lists(revoked));
    assert_eq!(list.admits(revoked), Err(CrlError::Revoked));

    let empty = crl(ca(), 8, &[]);
    verify(&empty, None).unwrap();
    assert!(empty.is_empty() && !empty.lists(revoked));
    assert_eq!(empty.admits(revoked), Ok(()));
    // The same serial number under another issuer is somebody else.
    let mut other = Forged::leaf(&WORLD.ca_krd, &WORLD.krd, 0x20, "countersign://krd/POS-1");
    other.serial = tlv(tag::INTEGER, &[revoked.serial()]);
    let other = other.parse(&WORLD.ca_krd).unwrap();
    assert_eq!(other.identity().serial(), revoked.serial());
    assert!(!list.lists(other.identity()));
    assert_eq!(list.admits(other.identity()), Err(CrlError::NotTheIssuer), "and is not admitted");
}

#[test]
fn lists_of_both_versions_are_read() {
    ForgedCrl::of(ca()).check(ca()).unwrap();
    let one = ForgedCrl::entry(&[5], &[]);
    let list = ForgedCrl::of(ca()).entries(std::slice::from_ref(&one)).parse(ca()).unwrap();
    assert_eq!((list.len(), list.number()), (1, None));
    let reason = extension(&[0x55, 0x1d, 21], false, &[0x0a, 1, 1]);
    let with_reason = ForgedCrl::entry(&[5], &[reason]);
    let forged = ForgedCrl::of(ca()).version_2().entries(&[with_reason]);
    forged.check(ca()).unwrap();

    let mut forged = ForgedCrl::of(ca()).number(&[1]);
    forged.version = Vec::new();
    assert_eq!(refusal(&forged), CrlError::Version, "extensions in a list of version 1");
    forged.version = vec![2, 1, 2];
    assert_eq!(refusal(&forged), CrlError::Version);
    let reason = extension(&[0x55, 0x1d, 21], false, &[0x0a, 1, 1]);
    let forged = ForgedCrl::of(ca()).entries(&[ForgedCrl::entry(&[5], &[reason])]);
    assert_eq!(refusal(&forged), CrlError::Version);
}

#[test]
fn what_is_not_a_list_is_refused() {
    let der = ForgedCrl::of(ca()).der(&ca().key);
    let cut = Crl::parse(&der[..der.len() - 1]).unwrap_err();
    assert_eq!(cut, CrlError::Malformed(DerError::Truncated));
    let longer = Crl::parse(&[&der[..], &[0]].concat()).unwrap_err();
    assert_eq!(
        (longer, longer.check()),
        (CrlError::Malformed(DerError::Trailing), "crl-malformed")
    );
    assert_eq!(Crl::parse(&vec![0x30; (1 << 20) + 1]).unwrap_err(), CrlError::TooLong);

    let entry = ForgedCrl::entry(&[5], &[]);
    let many = vec![entry; CRL_ENTRIES_MAX + 1];
    assert_eq!(refusal(&ForgedCrl::of(ca()).entries(&many)), CrlError::TooLong);
    ForgedCrl::of(ca()).entries(&many[1..]).check(ca()).unwrap();
    let padded = ForgedCrl::of(ca()).entries(&[ForgedCrl::entry(&[0, 5], &[])]);
    assert_eq!(refusal(&padded), CrlError::Malformed(DerError::Value));
    let mut long_name = ForgedCrl::of(ca());
    long_name.issuer = tlv(tag::SEQUENCE, &[&[0; 1100]]);
    assert_eq!(refusal(&long_name), CrlError::TooLong);
    let long_number = ForgedCrl::of(ca()).number(&[1; 21]);
    assert_eq!(refusal(&long_number), CrlError::Malformed(DerError::Value));
}

#[test]
fn algorithms_and_extensions_are_known() {
    let mut forged = ForgedCrl::of(ca());
    forged.outer = algorithm(&SHA1_WITH_RSA);
    assert_eq!(refusal(&forged), CrlError::Algorithm);
    let mut forged = ForgedCrl::of(ca());
    forged.inner = algorithm(&SHA1_WITH_RSA);
    assert_eq!(refusal(&forged), CrlError::Algorithm);
    assert_eq!(
        refusal(&ForgedCrl::of(ca()).number(&[1]).number(&[2])),
        CrlError::RepeatedExtension
    );
    // A delta list, a list of one distribution point, an unknown one: each is partial.
    for oid in [&[0x55, 0x1d, 27][..], &[0x55, 0x1d, 28], &[0x2b, 6, 1]] {
        let mut forged = ForgedCrl::of(ca()).version_2();
        forged.extensions.push(extension(oid, true, &[2, 1, 1]));
        assert_eq!(refusal(&forged), CrlError::CriticalExtension, "{oid:?}");
    }
    // certificateIssuer: the entry is another CA's.
    let indirect = extension(&[0x55, 0x1d, 29], true, &[0x30, 0]);
    let forged = ForgedCrl::of(ca()).version_2().entries(&[ForgedCrl::entry(&[5], &[indirect])]);
    assert_eq!(refusal(&forged), CrlError::CriticalExtension);
}

#[test]
fn only_the_ca_signs_its_list() {
    let list = ForgedCrl::of(ca()).parse(ca()).unwrap();
    let under =
        |certificate: &Certificate| list.verify(&AwsLc, certificate, NOW, None).unwrap_err();
    assert_eq!(under(&WORLD.ca_krd.certificate), CrlError::Issuer);
    let mut forged = ForgedCrl::of(ca()).version_2();
    forged.extensions.push(authority_key_id(&[1; 20]));
    assert_eq!(refusal(&forged), CrlError::Issuer);
    let stolen = Crl::parse(&ForgedCrl::of(ca()).der(&WORLD.kdh.key)).unwrap();
    assert_eq!(verify(&stolen, None), Err(CrlError::Signature));

    // A CA whose keyUsage does not say cRLSign.
    let mut narrow = Forged::ca(&WORLD.root, ca(), "countersign://ca-kdh/kdh-g1");
    narrow.extensions[1] = key_usage(KEY_CERT_SIGN);
    assert_eq!(under(&narrow.parse(&WORLD.root).unwrap()), CrlError::IssuerUsage);
    let lenient = Leniency { crl_sign_unsaid: true, ..Leniency::STRICT };
    let lenient = narrow.parse_with(&WORLD.root, lenient).unwrap();
    list.verify(&AwsLc, &lenient, NOW, None).unwrap();
    // A leaf that carries the CA's name.
    let mut leaf = Forged::leaf(&WORLD.root, ca(), 0x80, "countersign://kdh/k");
    leaf.subject = ca().certificate.subject().to_vec();
    assert_eq!(under(&leaf.parse(&WORLD.root).unwrap()), CrlError::IssuerUsage);
    let mut ended = Forged::ca(&WORLD.root, ca(), "countersign://ca-kdh/kdh-g1");
    ended.validity[1] = generalized("20270114000000Z");
    assert_eq!(under(&ended.parse(&WORLD.root).unwrap()), CrlError::IssuerTime);
}

#[test]
fn every_changed_byte_is_noticed() {
    let list = crl(ca(), 7, &[&WORLD.kdh.certificate]);
    for position in 0..list.raw().len() {
        let mut changed = list.raw().to_vec();
        changed[position] ^= 0x01;
        let accepted = Crl::parse(&changed).and_then(|list| verify(&list, None));
        assert!(accepted.is_err(), "byte {position}");
    }
}

#[test]
fn the_window_counts_with_its_ends() {
    let list = ForgedCrl::of(ca());
    let update = UnixTime::from_secs(1_800_000_000 - 1000);
    let window = |this: &str, next: &str, now: UnixTime| {
        let mut list = list.clone();
        list.this_update = generalized(this);
        list.next_update = generalized(next);
        list.check_at(ca(), now)
    };
    let (this, next) = ("20270115080000Z", "20270115090000Z");
    let begins = NOW;
    let ends = NOW.plus(Duration::from_secs(3600));
    let second = Duration::from_secs(1);
    assert_eq!(window(this, next, begins.minus(second)), Err(CrlError::NotYetValid));
    assert_eq!(window(this, next, begins), Ok(()));
    assert_eq!(window(this, next, ends), Ok(()));
    assert_eq!(window(this, next, ends.plus(second)), Err(CrlError::Expired));
    let mut endless = list;
    endless.next_update = Vec::new();
    assert_eq!(endless.check_at(ca(), update), Err(CrlError::WithoutNextUpdate));
}

#[test]
fn an_older_list_is_not_taken_after_a_newer_one() {
    let numbered = |number: &[u8], this_update: &str| {
        let mut forged = ForgedCrl::of(ca()).number(number);
        forged.this_update = generalized(this_update);
        forged.parse(ca()).unwrap()
    };
    let newer = numbered(&[1, 0], "20270102000000Z");
    let seen = verify(&newer, None).unwrap();
    assert_eq!(verify(&newer, Some(&seen)), Ok(seen.clone()), "the same one again is not older");
    let older = numbered(&[0xff], "20270103000000Z");
    assert_eq!(verify(&older, Some(&seen)), Err(CrlError::Older), "the number decides");
    verify(&numbered(&[1, 1], "20270101000000Z"), Some(&seen)).unwrap();

    // Where one has no number, the time decides.
    let unnumbered = |this_update: &str| {
        let mut forged = ForgedCrl::of(ca());
        forged.this_update = generalized(this_update);
        forged.parse(ca()).unwrap()
    };
    assert_eq!(verify(&unnumbered("20270101235959Z"), Some(&seen)), Err(CrlError::Older));
    let without = verify(&unnumbered("20270102000000Z"), Some(&seen)).unwrap();
    assert_eq!(without.number(), None);
    let older = numbered(&[9, 9], "20270101000000Z");
    assert_eq!(verify(&older, Some(&without)), Err(CrlError::Older));

    let elsewhere = crl(&WORLD.ca_krd, 1, &[]);
    let of_other = elsewhere.verify(&AwsLc, &WORLD.ca_krd.certificate, NOW, None).unwrap();
    assert_eq!(verify(&newer, Some(&of_other)), Err(CrlError::LastSeenIssuer));
}

#[test]
fn what_was_seen_survives_storage() {
    let with_number = verify(&crl(ca(), u64::MAX, &[]), None).unwrap();
    let without = verify(&ForgedCrl::of(ca()).parse(ca()).unwrap(), None).unwrap();
    for seen in [with_number, without] {
        let bytes = seen.to_bytes();
        assert_eq!(CrlSeen::from_bytes(&bytes), Some(seen));
        for length in 0..bytes.len() {
            assert_eq!(CrlSeen::from_bytes(&bytes[..length]), None, "{length}");
        }
        let mut flagged = bytes.clone();
        flagged[0] = 2;
        assert_eq!(CrlSeen::from_bytes(&flagged), None);
    }
    assert_eq!(CrlNumber::from(0x01ff).to_string(), "0x01ff");
}
