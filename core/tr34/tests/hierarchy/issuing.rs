//! What an issuer refuses to prepare or to sign.

use std::time::Duration;

use countersign_crypto::{Secret, UnixTime};
use tr34::aws_lc::{AwsLc, SoftwareRsaKey};
use tr34::{
    CRL_ENTRIES_MAX, Certificate, Crl, CrlTerms, IssueError, Issuer, Prepared, Requested,
    Revocation, Role, RsaError, RsaKey, Validity, parse_request, prepare_root, request,
};

use crate::world::{DAY, Holder, NOW, WORLD, party, rng, years};

fn requested(key: &SoftwareRsaKey, role: Role) -> Requested {
    parse_request(&AwsLc, &request(key, &party(role, "X-1")).unwrap()).unwrap()
}

fn issuer(above: &Holder) -> Issuer {
    Issuer::new(above.certificate.clone()).unwrap()
}

fn prepare(above: &Holder, asked: Role, role: Role) -> Result<Prepared, IssueError> {
    let requested = requested(&WORLD.stranger, asked);
    issuer(above).prepare(&AwsLc, &requested, role, &mut rng(9), years(1))
}

#[test]
fn each_ca_certifies_its_own() {
    let world = &*WORLD;
    for (above, role) in [
        (&world.root, Role::CaKdh),
        (&world.root, Role::CaKrd),
        (&world.ca_kdh, Role::Kdh),
        (&world.ca_krd, Role::Kdh),
        (&world.ca_krd, Role::Krd),
    ] {
        let prepared = prepare(above, role, role).unwrap();
        let identity = prepared.identity().clone();
        let der = prepared.sign(&AwsLc, &above.key).unwrap();
        let certificate = Certificate::parse(&der).unwrap();
        certificate.verified_by(&AwsLc, &above.certificate, NOW).unwrap();
        assert_eq!(*certificate.identity(), identity, "the intent names what was issued");
        assert_eq!(certificate.party(), Some(&party(role, "X-1")));
    }
    for (above, role) in [
        (&world.root, Role::Kdh),
        (&world.root, Role::Krd),
        (&world.ca_kdh, Role::Krd),
        (&world.ca_kdh, Role::CaKdh),
        (&world.ca_krd, Role::CaKrd),
    ] {
        assert_eq!(prepare(above, role, role).err(), Some(IssueError::IssuerRole), "{role}");
    }
    assert_eq!(prepare(&world.ca_krd, Role::Krd, Role::Kdh).err(), Some(IssueError::Role));
    assert_eq!(Issuer::new(world.kdh.certificate.clone()).err(), Some(IssueError::IssuerUsage));
}

#[test]
fn keys_of_every_length_are_certified() {
    for bits in [3072, 4096] {
        let key = SoftwareRsaKey::generate(bits).unwrap();
        let asked = requested(&key, Role::CaKrd);
        let prepared = issuer(&WORLD.root)
            .prepare(&AwsLc, &asked, Role::CaKrd, &mut rng(8), years(2))
            .unwrap();
        let der = prepared.sign(&AwsLc, &WORLD.root.key).unwrap();
        let ca = Holder { certificate: Certificate::parse(&der).unwrap(), key };
        let prepared = prepare(&ca, Role::Krd, Role::Krd).unwrap();
        let leaf = Certificate::parse(&prepared.sign(&AwsLc, &ca.key).unwrap()).unwrap();
        assert_eq!(tr34::Rsa::bits(&AwsLc, ca.certificate.public_key()), Ok(bits));
        tr34::Krd::verify(&AwsLc, leaf, &ca.certificate, NOW).unwrap();
    }
}

#[test]
fn serial_numbers_are_random_and_positive() {
    let mut rng = rng(3);
    let mut serials = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let asked = requested(&WORLD.stranger, Role::Krd);
        let issuer = issuer(&WORLD.ca_krd);
        let prepared = issuer.prepare(&AwsLc, &asked, Role::Krd, &mut rng, years(1)).unwrap();
        let serial = prepared.identity().serial().to_vec();
        assert!(serial.len() == 16 && serial[0] < 0x80 && serial[0] > 0);
        serials.insert(serial);
    }
    assert_eq!(serials.len(), 20);
}

#[test]
fn nothing_outlives_its_issuer() {
    let asked = requested(&WORLD.stranger, Role::Krd);
    let issuer = issuer(&WORLD.ca_krd);
    let with = |validity| {
        issuer.prepare(&AwsLc, &asked, Role::Krd, &mut rng(4), validity).map(|it| it.validity())
    };
    assert_eq!(with(years(12)), Err(IssueError::Validity));
    let cut = years(12).within(&WORLD.ca_krd.certificate);
    assert_eq!(cut.not_after, WORLD.ca_krd.certificate.not_after());
    assert_eq!(with(cut), Ok(cut));
    let backwards = Validity { not_before: NOW.plus(DAY), not_after: NOW };
    assert_eq!(with(backwards), Err(IssueError::Validity));
    let key = WORLD.root.key.public_key();
    let root = |name, key, validity| {
        prepare_root(&AwsLc, name, key, &mut rng(5), validity).map(drop).unwrap_err()
    };
    let endless = Validity { not_before: NOW, not_after: UnixTime::from_millis(u64::MAX) };
    assert_eq!(root("R", key, endless), IssueError::Validity);
    assert_eq!(root("R", &[1, 2], years(1)), IssueError::Malformed);
    for name in ["=,=", "A,CN=B", "", "a\nb", &"x".repeat(65)] {
        assert_eq!(root(name, key, years(1)), IssueError::Malformed, "{name}");
    }
}

/// A holder whose signatures are wrong, as those of a faulty token.
struct Faulty(Vec<u8>);

impl RsaKey for Faulty {
    fn public_key(&self) -> &[u8] {
        &self.0
    }

    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, RsaError> {
        Ok(vec![7; 256])
    }

    fn decrypt(&self, _: &[u8]) -> Result<Secret, RsaError> {
        Err(RsaError::Failed)
    }
}

#[test]
fn only_the_issuers_key_signs() {
    let prepared = || prepare(&WORLD.ca_krd, Role::Krd, Role::Krd).unwrap();
    assert_eq!(prepared().sign(&AwsLc, &WORLD.stranger), Err(IssueError::WrongKey));
    let faulty = Faulty(WORLD.ca_krd.key.public_key().to_vec());
    assert_eq!(prepared().sign(&AwsLc, &faulty), Err(IssueError::SigningFailed));
    let list = issuer(&WORLD.ca_krd).prepare_crl(terms(), &[]).unwrap();
    assert_eq!(list.sign(&AwsLc, &WORLD.ca_kdh.key), Err(IssueError::WrongKey));
}

fn terms() -> CrlTerms {
    CrlTerms { number: 300, this_update: NOW, next_update: NOW.plus(DAY) }
}

#[test]
fn lists_are_checked_before_they_are_signed() {
    let issuer = issuer(&WORLD.ca_kdh);
    let entry = |serial: &[u8], secs| Revocation {
        serial: serial.to_vec(),
        at: NOW.minus(Duration::from_secs(secs)),
    };
    let backwards = CrlTerms { next_update: NOW.minus(DAY), ..terms() };
    assert_eq!(issuer.prepare_crl(backwards, &[]).err(), Some(IssueError::Validity));
    let bad = issuer.prepare_crl(terms(), &[entry(&[0, 1], 0)]);
    assert_eq!(bad.err(), Some(IssueError::Malformed));
    let many = vec![entry(&[1], 0); CRL_ENTRIES_MAX + 1];
    assert_eq!(issuer.prepare_crl(terms(), &many).err(), Some(IssueError::TooManyEntries));

    let twice = [entry(&[2], 5), entry(&[1], 9), entry(&[2], 50)];
    let prepared = issuer.prepare_crl(terms(), &twice).unwrap();
    assert_eq!(prepared.terms(), terms());
    let list = Crl::parse(&prepared.sign(&AwsLc, &WORLD.ca_kdh.key).unwrap()).unwrap();
    assert_eq!((list.len(), list.number()), (2, Some(300.into())));
    assert_eq!((list.this_update(), list.next_update()), (NOW, Some(NOW.plus(DAY))));
}
