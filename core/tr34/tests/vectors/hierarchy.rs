//! Clover's sample PKI: a root, a CA of KDHs and one of terminals, two KDHs, one terminal.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use countersign_crypto::{Secret, UnixTime};
use libtest_mimic::Failed;
use tr34::aws_lc::{AwsLc, SoftwareRsaKey};
use tr34::{
    Certificate, CertificateError, Crl, CrlError, CrlTerms, Issuer, IssuingCa, Kdh, Krd, Leniency,
    Revocation, Role, RsaKey,
};

use crate::Check;

pub(crate) const CHECKS: [(&str, Check); 4] = [
    ("the_sample_chain_verifies", the_sample_chain_verifies),
    ("the_sample_terminal_is_no_kdh", the_sample_terminal_is_no_kdh),
    ("the_sample_keys_are_the_certified", the_sample_keys_are_the_certified),
    ("a_sample_ca_signs_a_list_under_its_leniency", a_sample_ca_signs_a_list_under_its_leniency),
];

/// All the samples are valid then: 2025-01-01.
pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_735_689_600);
const NAMES: [&str; 6] = ["root", "kdh_ca", "krd_ca", "kdh_1", "kdh_2", "krd_1"];

pub(crate) fn contents(folder: &Path, name: &str) -> Vec<u8> {
    let text = fs::read(folder.join("clover").join(name)).unwrap();
    pem::parse(text).unwrap().into_contents()
}

fn certificate(folder: &Path, name: &str, leniency: Leniency) -> Certificate {
    Certificate::parse_with(&contents(folder, &format!("{name}.cert.pem")), leniency).unwrap()
}

pub(crate) fn foreign(folder: &Path, name: &str) -> Certificate {
    certificate(folder, name, Leniency::FOREIGN)
}

pub(crate) fn key(folder: &Path, name: &str) -> SoftwareRsaKey {
    let pkcs1 = Secret::new(contents(folder, &format!("{name}.key.pem")));
    SoftwareRsaKey::from_pkcs1(&pkcs1).unwrap()
}

fn the_sample_chain_verifies(folder: &Path) -> Result<(), Failed> {
    let root = foreign(folder, "root");
    let ca = |name, role| IssuingCa::verify(&AwsLc, foreign(folder, name), &root, role, NOW);
    let kdh_ca = ca("kdh_ca", Role::CaKdh)?;
    let krd_ca = ca("krd_ca", Role::CaKrd)?;
    for name in ["kdh_1", "kdh_2"] {
        Kdh::verify(&AwsLc, foreign(folder, name), kdh_ca.certificate(), NOW)?;
    }
    let terminal = foreign(folder, "krd_1");
    Krd::verify(&AwsLc, terminal.clone(), krd_ca.certificate(), NOW)?;
    let late = terminal.not_after().plus(std::time::Duration::from_secs(1));
    let verified = Krd::verify(&AwsLc, terminal, krd_ca.certificate(), late);
    assert_eq!(verified, Err(CertificateError::Expired), "the samples expire in 2038");
    Ok(())
}

fn the_sample_terminal_is_no_kdh(folder: &Path) -> Result<(), Failed> {
    let (kdh_ca, krd_ca) = (foreign(folder, "kdh_ca"), foreign(folder, "krd_ca"));
    let as_kdh = Kdh::verify(&AwsLc, foreign(folder, "krd_1"), &kdh_ca, NOW);
    assert_eq!(as_kdh, Err(CertificateError::Issuer), "the same root does not suffice");
    let as_krd = Krd::verify(&AwsLc, foreign(folder, "kdh_1"), &krd_ca, NOW);
    assert_eq!(as_krd, Err(CertificateError::Issuer));
    // Its certificates have no role, and its terminals sign: both need their names.
    let strict = certificate(folder, "krd_1", Leniency::STRICT);
    let refused = Krd::verify(&AwsLc, strict, &krd_ca, NOW).unwrap_err();
    assert_eq!(refused, CertificateError::WithoutRole);
    let only_role = Leniency { without_role: true, ..Leniency::STRICT };
    let refused = Krd::verify(&AwsLc, certificate(folder, "krd_1", only_role), &krd_ca, NOW);
    assert_eq!(refused, Err(CertificateError::Usage));
    // Issuer and serial tell them apart, whatever the serial numbers are.
    let identities: BTreeSet<_> =
        NAMES.iter().map(|name| foreign(folder, name).identity().clone()).collect();
    assert_eq!(identities.len(), NAMES.len());
    Ok(())
}

fn the_sample_keys_are_the_certified(folder: &Path) -> Result<(), Failed> {
    for name in NAMES {
        let key = key(folder, name);
        assert_eq!(key.public_key(), foreign(folder, name).public_key(), "{name}");
        let again = SoftwareRsaKey::from_pkcs8(&key.to_pkcs8())?;
        let signature = again.sign(name.as_bytes())?;
        tr34::Rsa::verify(&AwsLc, key.public_key(), name.as_bytes(), &signature)?;
    }
    Ok(())
}

fn a_sample_ca_signs_a_list_under_its_leniency(folder: &Path) -> Result<(), Failed> {
    // Its keyUsage has keyCertSign only.
    let strict = certificate(folder, "kdh_ca", Leniency::STRICT);
    let lenient = foreign(folder, "kdh_ca");
    let next_update = NOW.plus(std::time::Duration::from_secs(86_400));
    let terms = CrlTerms { number: 1, this_update: NOW, next_update };
    assert!(Issuer::new(strict.clone())?.prepare_crl(terms, &[]).is_err());
    let revoked = foreign(folder, "kdh_1");
    let entry = Revocation { serial: revoked.identity().serial().to_vec(), at: NOW };
    let prepared = Issuer::new(lenient.clone())?.prepare_crl(terms, &[entry])?;
    let list = Crl::parse(&prepared.sign(&AwsLc, &key(folder, "kdh_ca"))?)?;
    list.verify(&AwsLc, &lenient, NOW, None)?;
    assert_eq!(list.verify(&AwsLc, &strict, NOW, None), Err(CrlError::IssuerUsage));
    assert_eq!(list.admits(revoked.identity()), Err(CrlError::Revoked));
    assert_eq!(list.admits(foreign(folder, "kdh_2").identity()), Ok(()));
    assert_eq!(list.admits(foreign(folder, "krd_1").identity()), Err(CrlError::NotTheIssuer));
    Ok(())
}
