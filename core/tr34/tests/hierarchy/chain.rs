//! Who is a KDH, who is a terminal, and whose word counts for it (E2).

use tr34::aws_lc::AwsLc;
use tr34::{Certificate, CertificateError, IssuingCa, Kdh, Krd, Leniency, Role};

use crate::forge::{DIGITAL_SIGNATURE, Forged, KEY_CERT_SIGN, KEY_ENCIPHERMENT, key_usage};
use crate::world::{NOW, WORLD, issue, party};

fn kdh(certificate: &Certificate, ca: &Certificate) -> Result<Kdh, CertificateError> {
    Kdh::verify(&AwsLc, certificate.clone(), ca, NOW)
}

fn krd(certificate: &Certificate, ca: &Certificate) -> Result<Krd, CertificateError> {
    Krd::verify(&AwsLc, certificate.clone(), ca, NOW)
}

fn forged_kdh(role_uri: &str) -> Forged {
    Forged::leaf(&WORLD.ca_kdh, &WORLD.kdh, DIGITAL_SIGNATURE, role_uri)
}

#[test]
fn the_chain_holds_from_root_to_leaf() {
    let (root, world) = (&WORLD.root.certificate, &*WORLD);
    let verify =
        |holder: &Certificate, role| IssuingCa::verify(&AwsLc, holder.clone(), root, role, NOW);
    let ca_kdh = verify(&world.ca_kdh.certificate, Role::CaKdh).unwrap();
    let ca_krd = verify(&world.ca_krd.certificate, Role::CaKrd).unwrap();
    assert_eq!(kdh(&world.kdh.certificate, ca_kdh.certificate()).unwrap().id(), Some("kdh-1"));
    assert_eq!(krd(&world.krd.certificate, ca_krd.certificate()).unwrap().id(), Some("POS-1"));

    assert_eq!(verify(&world.ca_krd.certificate, Role::CaKdh), Err(CertificateError::Role));
    assert_eq!(verify(&world.kdh.certificate, Role::CaKdh), Err(CertificateError::Issuer));
    let leaf = Forged::leaf(&world.root, &world.kdh, DIGITAL_SIGNATURE, "countersign://kdh/k");
    let leaf = leaf.parse(&world.root).unwrap();
    assert_eq!(verify(&leaf, Role::CaKdh), Err(CertificateError::IssuerNotCa));
    let beside = &world.ca_kdh.certificate;
    let verified = IssuingCa::verify(&AwsLc, beside.clone(), beside, Role::CaKdh, NOW);
    assert_eq!(verified, Err(CertificateError::NotARoot));
}

#[test]
fn a_terminal_is_no_kdh_though_the_root_is_the_same() {
    let terminal = &WORLD.krd.certificate;
    assert_eq!(kdh(terminal, &WORLD.ca_kdh.certificate), Err(CertificateError::Issuer));
    assert_eq!(kdh(terminal, &WORLD.ca_krd.certificate), Err(CertificateError::Role));
    assert_eq!(
        krd(&WORLD.kdh.certificate, &WORLD.ca_krd.certificate),
        Err(CertificateError::Issuer)
    );
    // A KDH's CA that certifies a terminal oversteps.
    let forged =
        Forged::leaf(&WORLD.ca_kdh, &WORLD.krd, KEY_ENCIPHERMENT, "countersign://krd/POS-1");
    let forged = forged.parse(&WORLD.ca_kdh).unwrap();
    assert_eq!(krd(&forged, &WORLD.ca_kdh.certificate), Err(CertificateError::IssuerRole));
}

#[test]
fn one_ca_for_both_still_tells_them_apart() {
    // E2 allows one parent key, Sub_CA_KRD, above terminals and KDHs.
    let der = issue(&WORLD.ca_krd, &WORLD.kdh.key, &party(Role::Kdh, "kdh-2"), 2);
    let host = Certificate::parse(&der).unwrap();
    let ca = &WORLD.ca_krd.certificate;
    kdh(&host, ca).unwrap();
    assert_eq!(krd(&host, ca), Err(CertificateError::Role));
    assert_eq!(kdh(&WORLD.krd.certificate, ca), Err(CertificateError::Role));
}

#[test]
fn a_ca_is_no_leaf_and_a_root_no_ca_of_leaves() {
    let root = &WORLD.root.certificate;
    assert_eq!(kdh(&WORLD.ca_kdh.certificate, root), Err(CertificateError::LeafIsCa));
    let mut forged = forged_kdh("countersign://kdh/kdh-1");
    forged.extensions[1] = key_usage(DIGITAL_SIGNATURE | KEY_CERT_SIGN);
    let forged = forged.parse(&WORLD.ca_kdh).unwrap();
    assert_eq!(kdh(&forged, &WORLD.ca_kdh.certificate), Err(CertificateError::LeafIsCa));

    let below_root =
        Forged::leaf(&WORLD.root, &WORLD.kdh, DIGITAL_SIGNATURE, "countersign://kdh/kdh-1");
    let below_root = below_root.parse(&WORLD.root).unwrap();
    assert_eq!(kdh(&below_root, root), Err(CertificateError::IssuerRole));
    // A reader of foreign hierarchies takes a CA without role at its word.
    let lenient = Certificate::parse_with(root.raw(), Leniency::FOREIGN).unwrap();
    kdh(&below_root, &lenient).unwrap();
}

#[test]
fn a_key_has_the_usage_of_its_role() {
    let mut forged = forged_kdh("countersign://kdh/kdh-1");
    forged.extensions[1] = key_usage(KEY_ENCIPHERMENT);
    let signs_nothing = forged.parse(&WORLD.ca_kdh).unwrap();
    assert_eq!(kdh(&signs_nothing, &WORLD.ca_kdh.certificate), Err(CertificateError::Usage));

    let signs =
        Forged::leaf(&WORLD.ca_krd, &WORLD.krd, DIGITAL_SIGNATURE, "countersign://krd/POS-1");
    let ca = &WORLD.ca_krd.certificate;
    assert_eq!(krd(&signs.parse(&WORLD.ca_krd).unwrap(), ca), Err(CertificateError::Usage));
    let lenient = Leniency { krd_signs: true, ..Leniency::STRICT };
    krd(&signs.parse_with(&WORLD.ca_krd, lenient).unwrap(), ca).unwrap();

    let mut unsaid = forged_kdh("countersign://kdh/kdh-1");
    unsaid.extensions.remove(1);
    let ca = &WORLD.ca_kdh.certificate;
    assert_eq!(kdh(&unsaid.parse(&WORLD.ca_kdh).unwrap(), ca), Err(CertificateError::Usage));
    let lenient = Leniency { without_key_usage: true, ..Leniency::STRICT };
    kdh(&unsaid.parse_with(&WORLD.ca_kdh, lenient).unwrap(), ca).unwrap();
}

#[test]
fn without_a_role_the_issuing_ca_decides_under_its_leniency_only() {
    let mut forged = forged_kdh("countersign://kdh/kdh-1");
    forged.extensions.remove(2);
    let ca = &WORLD.ca_kdh.certificate;
    let strict = forged.parse(&WORLD.ca_kdh).unwrap();
    assert_eq!(kdh(&strict, ca), Err(CertificateError::WithoutRole));
    let lenient = Leniency { without_role: true, ..Leniency::STRICT };
    let foreign = forged.parse_with(&WORLD.ca_kdh, lenient).unwrap();
    assert_eq!(kdh(&foreign, ca).unwrap().id(), None);
    assert_eq!(krd(&foreign, ca), Err(CertificateError::IssuerRole), "the CA has a role");
    // A role that is named counts under any leniency.
    let terminal = Certificate::parse_with(WORLD.krd.certificate.raw(), Leniency::FOREIGN).unwrap();
    assert_eq!(kdh(&terminal, &WORLD.ca_krd.certificate), Err(CertificateError::Role));
}

#[test]
fn leniencies_have_names() {
    let all = Leniency::NAMES.iter().try_fold(Leniency::STRICT, |sum, name| sum.and(name));
    assert_eq!(all, Some(Leniency::FOREIGN));
    assert_eq!(Leniency::STRICT.and("everything"), None);
    let one = Leniency::STRICT.and("without-role").unwrap();
    assert_eq!(one, Leniency { without_role: true, ..Leniency::STRICT });
}
