//! A hierarchy, a KDH and a terminal, with keys of one length.

use std::time::Duration;

use countersign_crypto::UnixTime;
use testkit::rng::seeded;
use tr34::aws_lc::{AwsLc, SoftwareRsaKey};
use tr34::{
    Certificate, CrlTerms, Issuer, IssuingCa, Kdh, Krd, Party, Role, RsaKey, Validity,
    parse_request, prepare_root, request,
};

use crate::Fallible;

/// When everything here is made and looked at.
pub(super) const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
const DAY: Duration = Duration::from_secs(86_400);

/// A certificate and its key.
pub(super) struct Holder {
    pub(super) certificate: Certificate,
    pub(super) key: SoftwareRsaKey,
}

/// Who takes part in an injection.
pub(super) struct Parties {
    pub(super) ca_kdh: Certificate,
    pub(super) ca_krd: Certificate,
    pub(super) kdh: Holder,
    pub(super) krd: Holder,
    /// The terminal's certificate, verified.
    pub(super) verified_krd: Krd,
    /// `CRL_CA_KDH` in DER.
    pub(super) crl: Vec<u8>,
}

impl Parties {
    /// All keys have `bits` bits.
    pub(super) fn new(bits: u32) -> Fallible<Self> {
        let key = SoftwareRsaKey::generate(bits)?;
        let validity = Validity::from(NOW, DAY * 7300);
        let prepared =
            prepare_root(&AwsLc, "Bench Root", key.public_key(), &mut seeded(1), validity)?;
        let certificate = Certificate::parse(&prepared.sign(&AwsLc, &key)?)?;
        let root = Holder { certificate, key };
        let ca_kdh = certified(&root, Role::CaKdh, "kdh-g1", bits)?;
        let ca_krd = certified(&root, Role::CaKrd, "krd-g1", bits)?;
        let kdh = certified(&ca_kdh, Role::Kdh, "kdh-1", bits)?;
        let krd = certified(&ca_krd, Role::Krd, "POS-1", bits)?;
        let terms = CrlTerms { number: 1, this_update: NOW, next_update: NOW.plus(DAY) };
        let list = Issuer::new(ca_kdh.certificate.clone())?.prepare_crl(terms, &[])?;
        let crl = list.sign(&AwsLc, &ca_kdh.key)?;
        let root = root.certificate;
        let verified = |ca: Holder, role| {
            let ca = IssuingCa::verify(&AwsLc, ca.certificate, &root, role, NOW)?;
            Ok::<_, tr34::CertificateError>(ca.into_certificate())
        };
        let (ca_kdh, ca_krd) = (verified(ca_kdh, Role::CaKdh)?, verified(ca_krd, Role::CaKrd)?);
        Kdh::verify(&AwsLc, kdh.certificate.clone(), &ca_kdh, NOW)?;
        let verified_krd = Krd::verify(&AwsLc, krd.certificate.clone(), &ca_krd, NOW)?;
        Ok(Self { ca_kdh, ca_krd, kdh, krd, verified_krd, crl })
    }
}

fn certified(above: &Holder, role: Role, id: &str, bits: u32) -> Fallible<Holder> {
    let key = SoftwareRsaKey::generate(bits)?;
    let requested = parse_request(&AwsLc, &request(&key, &Party::new(role, id)?)?)?;
    let issuer = Issuer::new(above.certificate.clone())?;
    let validity = Validity::from(NOW, DAY * 3650).within(&above.certificate);
    let mut rng = seeded(id.bytes().map(u64::from).sum());
    let prepared = issuer.prepare(&AwsLc, &requested, role, &mut rng, validity)?;
    let certificate = Certificate::parse(&prepared.sign(&AwsLc, &above.key)?)?;
    Ok(Holder { certificate, key })
}
