//! A hierarchy, made once: one KDH with its successors, terminals of each key length.

use std::sync::LazyLock;
use std::time::Duration;

use countersign_crypto::{Secret, UnixTime};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use tr31::{Header, Version};

use crate::aws_lc::{AwsLc, SoftwareRsaKey};
use crate::kdh::{KeyOrder, PreparedToken, Sender};
use crate::krd::{Policy, Receiver, State};
use crate::token::{ContentCipher, Freshness, RtKrd};
use crate::{
    Certificate, CrlTerms, Dialect, Issuer, Kdh, Krd, Party, Revocation, Role, RsaKey, Validity,
    parse_request, prepare_root, request,
};

pub(super) const DAY: Duration = Duration::from_secs(86_400);
/// When everything here is made and looked at: 2027-01-15.
pub(super) const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
pub(super) const CIPHERS: tr31::aws_lc::AwsLc = tr31::aws_lc::AwsLc;

/// A certificate and its key.
pub(super) struct Holder {
    pub(super) certificate: Certificate,
    pub(super) key: SoftwareRsaKey,
}

pub(super) struct World {
    pub(super) root: Holder,
    pub(super) ca_kdh: Holder,
    pub(super) ca_krd: Holder,
    pub(super) kdh: Holder,
    /// Of the same certification authority.
    pub(super) next_kdh: Holder,
    pub(super) krd: Holder,
    pub(super) other_krd: Holder,
}

pub(super) static WORLD: LazyLock<World> = LazyLock::new(World::new);
pub(super) static KRD_3072: LazyLock<Holder> =
    LazyLock::new(|| holder(&WORLD.ca_krd, Role::Krd, "POS-3072", 3072));
pub(super) static KRD_4096: LazyLock<Holder> =
    LazyLock::new(|| holder(&WORLD.ca_krd, Role::Krd, "POS-4096", 4096));
/// A later certification authority of KDHs, and its KDH.
pub(super) static LATER: LazyLock<(Holder, Holder)> = LazyLock::new(|| {
    let ca = holder(&WORLD.root, Role::CaKdh, "kdh-g2", 2048);
    let kdh = holder(&ca, Role::Kdh, "kdh-3", 2048);
    (ca, kdh)
});

pub(super) fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn holder(above: &Holder, role: Role, id: &str, bits: u32) -> Holder {
    let key = SoftwareRsaKey::generate(bits).unwrap();
    let party = Party::new(role, id).unwrap();
    let requested = parse_request(&AwsLc, &request(&key, &party).unwrap()).unwrap();
    let issuer = Issuer::new(above.certificate.clone()).unwrap();
    let years = if role.is_ca() { 10 } else { 2 };
    let validity = Validity::from(NOW, DAY * 365 * years).within(&above.certificate);
    let seed = id.bytes().fold(0_u64, |seed, octet| seed * 31 + u64::from(octet));
    let mut rng = rng(seed);
    let prepared = issuer.prepare(&AwsLc, &requested, role, &mut rng, validity).unwrap();
    let der = prepared.sign(&AwsLc, &above.key).unwrap();
    Holder { certificate: Certificate::parse(&der).unwrap(), key }
}

impl World {
    fn new() -> Self {
        let key = SoftwareRsaKey::generate(2048).unwrap();
        let validity = Validity::from(NOW, DAY * 365 * 20);
        let prepared =
            prepare_root(&AwsLc, "Test Root", key.public_key(), &mut rng(1), validity).unwrap();
        let der = prepared.sign(&AwsLc, &key).unwrap();
        let root = Holder { certificate: Certificate::parse(&der).unwrap(), key };
        let ca_kdh = holder(&root, Role::CaKdh, "kdh-g1", 2048);
        let ca_krd = holder(&root, Role::CaKrd, "krd-g1", 2048);
        let kdh = holder(&ca_kdh, Role::Kdh, "kdh-1", 2048);
        let next_kdh = holder(&ca_kdh, Role::Kdh, "kdh-2", 2048);
        let krd = holder(&ca_krd, Role::Krd, "POS-1", 2048);
        let other_krd = holder(&ca_krd, Role::Krd, "POS-2", 2048);
        Self { root, ca_kdh, ca_krd, kdh, next_kdh, krd, other_krd }
    }
}

/// A list of `ca`, made at `made` and valid for a week.
pub(super) fn crl(ca: &Holder, number: u64, made: UnixTime, revoked: &[&Certificate]) -> Vec<u8> {
    let terms = CrlTerms { number, this_update: made, next_update: made.plus(DAY * 7) };
    let entry = |certificate: &&Certificate| Revocation {
        serial: certificate.identity().serial().to_vec(),
        at: made,
    };
    let revoked: Vec<Revocation> = revoked.iter().map(entry).collect();
    let issuer = Issuer::new(ca.certificate.clone()).unwrap();
    issuer.prepare_crl(terms, &revoked).unwrap().sign(&AwsLc, &ca.key).unwrap()
}

/// The list that tokens here carry.
pub(super) static CRL: LazyLock<Vec<u8>> = LazyLock::new(|| crl(&WORLD.ca_kdh, 7, NOW, &[]));
static KDH_CAS: LazyLock<Vec<Certificate>> =
    LazyLock::new(|| vec![WORLD.ca_kdh.certificate.clone()]);

/// A TDES key of three parts that is fit for use.
pub(super) fn tdes_key() -> Secret {
    let key = Secret::copied_from(b"0123456789abcdefghijklmn");
    tr31::policy::with_odd_parity(&key)
}

pub(super) fn aes_key() -> Secret {
    Secret::copied_from(b"an AES key of 16")
}

pub(super) fn tdes_header() -> Header {
    Header::new(Version::B, *b"K0", b'T', b'B', b'S')
}

pub(super) fn aes_header() -> Header {
    Header::new(Version::D, *b"K0", b'A', b'B', b'S')
}

pub(super) fn sender(dialect: Dialect) -> Sender<'static> {
    Sender {
        rsa: &AwsLc,
        ciphers: &CIPHERS,
        certificate: &WORLD.kdh.certificate,
        crl: Some(&CRL),
        dialect,
        weaker_wrapping: false,
    }
}

pub(super) fn policy(dialect: Dialect) -> Policy {
    Policy { dialect, ..Policy::STRICT }
}

pub(super) fn receiver_of(krd: &'static Holder, policy: Policy) -> Receiver<'static> {
    Receiver {
        rsa: &AwsLc,
        ciphers: &CIPHERS,
        key: &krd.key,
        certificate: &krd.certificate,
        kdh_cas: &KDH_CAS,
        krd_ca: &WORLD.ca_krd.certificate,
        policy,
    }
}

pub(super) fn receiver(policy: Policy) -> Receiver<'static> {
    receiver_of(&WORLD.krd, policy)
}

/// The verified certificate of a terminal.
pub(super) fn krd(holder: &Holder) -> Krd {
    Krd::verify(&AwsLc, holder.certificate.clone(), &WORLD.ca_krd.certificate, NOW).unwrap()
}

/// The verified certificate of a KDH.
pub(super) fn kdh(holder: &Holder, ca: &Holder) -> Kdh {
    Kdh::verify(&AwsLc, holder.certificate.clone(), &ca.certificate, NOW).unwrap()
}

/// Bound and waiting: the state and what was asked.
pub(super) fn asked(receiver: &Receiver<'_>) -> (State, Freshness) {
    let ct_kdh = sender(receiver.policy.dialect).credential();
    let bound = receiver.bind(&State::default(), &ct_kdh, NOW).unwrap();
    let (token, state) = receiver.request(&bound, &mut rng(3), NOW).unwrap();
    (state, Freshness::TwoPass(RtKrd::parse(&token).unwrap().nonce))
}

/// A TDES key for the terminal, prepared.
pub(super) fn prepared(dialect: Dialect, freshness: &Freshness) -> PreparedToken {
    let order = KeyOrder {
        krd: &krd(&WORLD.krd),
        freshness,
        cipher: ContentCipher::Tdes,
        header: &tdes_header(),
        key: &tdes_key(),
    };
    sender(dialect).key_token(&mut rng(4), &order).unwrap()
}
