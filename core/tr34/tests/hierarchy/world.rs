//! One small hierarchy, made once.

use std::sync::LazyLock;
use std::time::Duration;

use countersign_crypto::UnixTime;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use tr34::aws_lc::{AwsLc, SoftwareRsaKey};
use tr34::{
    Certificate, Crl, CrlTerms, Issuer, Party, Revocation, Role, RsaKey, Validity, parse_request,
    prepare_root, request,
};

pub(crate) const DAY: Duration = Duration::from_secs(86_400);
/// When everything here is made and looked at: 2027-01-15.
pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

/// A certificate and its key.
pub(crate) struct Holder {
    pub(crate) certificate: Certificate,
    pub(crate) key: SoftwareRsaKey,
}

pub(crate) struct World {
    pub(crate) root: Holder,
    pub(crate) ca_kdh: Holder,
    pub(crate) ca_krd: Holder,
    pub(crate) kdh: Holder,
    pub(crate) krd: Holder,
    /// A key that nothing certifies.
    pub(crate) stranger: SoftwareRsaKey,
}

pub(crate) static WORLD: LazyLock<World> = LazyLock::new(World::new);

pub(crate) fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

pub(crate) fn years(count: u32) -> Validity {
    Validity::from(NOW, DAY * 365 * count)
}

pub(crate) fn party(role: Role, id: &str) -> Party {
    Party::new(role, id).unwrap()
}

/// Issues a certificate for a key that asks for it.
pub(crate) fn issue(above: &Holder, key: &SoftwareRsaKey, party: &Party, years_: u32) -> Vec<u8> {
    let requested = parse_request(&AwsLc, &request(key, party).unwrap()).unwrap();
    let mut rng = rng(u64::from(years_) + party.to_uri().len() as u64);
    let issuer = Issuer::new(above.certificate.clone()).unwrap();
    let validity = years(years_).within(&above.certificate);
    let prepared = issuer.prepare(&AwsLc, &requested, party.role(), &mut rng, validity).unwrap();
    prepared.sign(&AwsLc, &above.key).unwrap()
}

fn holder(above: &Holder, role: Role, id: &str, years_: u32) -> Holder {
    let key = SoftwareRsaKey::generate(2048).unwrap();
    let der = issue(above, &key, &party(role, id), years_);
    Holder { certificate: Certificate::parse(&der).unwrap(), key }
}

/// A list of `above` with these certificates on it, made `NOW` and valid for a week.
pub(crate) fn crl(above: &Holder, number: u64, revoked: &[&Certificate]) -> Crl {
    let terms = CrlTerms { number, this_update: NOW, next_update: NOW.plus(DAY * 7) };
    let entry = |certificate: &&Certificate| Revocation {
        serial: certificate.identity().serial().to_vec(),
        at: NOW,
    };
    let revoked: Vec<Revocation> = revoked.iter().map(entry).collect();
    let prepared =
        Issuer::new(above.certificate.clone()).unwrap().prepare_crl(terms, &revoked).unwrap();
    Crl::parse(&prepared.sign(&AwsLc, &above.key).unwrap()).unwrap()
}

impl World {
    fn new() -> Self {
        let key = SoftwareRsaKey::generate(3072).unwrap();
        let prepared =
            prepare_root(&AwsLc, "Test Root", key.public_key(), &mut rng(1), years(20)).unwrap();
        let der = prepared.sign(&AwsLc, &key).unwrap();
        let root = Holder { certificate: Certificate::parse(&der).unwrap(), key };
        let ca_kdh = holder(&root, Role::CaKdh, "kdh-g1", 10);
        let ca_krd = holder(&root, Role::CaKrd, "krd-g1", 11);
        let kdh = holder(&ca_kdh, Role::Kdh, "kdh-1", 2);
        let krd = holder(&ca_krd, Role::Krd, "POS-1", 3);
        let stranger = SoftwareRsaKey::generate(2048).unwrap();
        Self { root, ca_kdh, ca_krd, kdh, krd, stranger }
    }
}
