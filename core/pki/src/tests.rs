use std::sync::Mutex;
use std::time::Duration;

use countersign_crypto::{Digest, Provider, SoftwareKey, UnixTime, aws_lc, rust_crypto, sm};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn now() -> UnixTime {
    UnixTime::from_secs(1_800_000_000)
}

pub(crate) struct World {
    pub(crate) provider: Provider,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) root: Vec<u8>,
    pub(crate) devices_key: SoftwareKey,
    pub(crate) devices: Vec<u8>,
    pub(crate) servers: Vec<u8>,
}

impl World {
    pub(crate) fn new(provider: Provider, seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let root_key = provider.signature.generate(&mut rng).unwrap();
        let validity = Validity::from(now(), 3650 * DAY);
        let number = CertificateNumber::random(&mut rng);
        let root = self_signed(&provider, "Root", root_key.key.public_key(), number, validity)
            .unwrap()
            .sign(&*root_key.key, &mut rng)
            .unwrap();
        let issuer = Issuer::from_certificate(&provider, &root).unwrap();
        let mut intermediate = |name: &str| {
            let key = provider.signature.generate(&mut rng).unwrap();
            let number = CertificateNumber::random(&mut rng);
            let der = issuer
                .prepare_intermediate(name, key.key.public_key(), number, validity)
                .unwrap()
                .sign(&*root_key.key, &mut rng)
                .unwrap();
            (key, der)
        };
        let (devices_key, devices) = intermediate("Devices");
        let (_, servers) = intermediate("Servers");
        Self { provider, rng, root, devices_key, devices, servers }
    }

    pub(crate) fn trust(&self) -> TrustStore {
        let mut trust = TrustStore::new(self.provider.clone());
        trust.trust(&self.root, &self.devices, Role::Reader, now()).unwrap();
        trust.trust(&self.root, &self.servers, Role::Server, now()).unwrap();
        trust
    }

    fn leaf(&mut self, role: Role, id: &str, validity: Validity) -> Vec<u8> {
        let identity = Identity::new(role, id).unwrap();
        let key = self.provider.signature.generate(&mut self.rng).unwrap();
        let csr = request(&self.provider, &identity, &*key.key, &mut self.rng).unwrap();
        let requested = parse_request(&self.provider, &csr).unwrap();
        let number = CertificateNumber::random(&mut self.rng);
        let prepared = self.issuer().prepare(&requested, role, number, validity).unwrap();
        self.sign(prepared)
    }

    pub(crate) fn issuer(&self) -> Issuer {
        Issuer::from_certificate(&self.provider, &self.devices).unwrap()
    }

    pub(crate) fn sign(&mut self, prepared: Prepared) -> Vec<u8> {
        prepared.sign(&*self.devices_key.key, &mut self.rng).unwrap()
    }
}

pub(crate) fn reader(world: &mut World) -> Vec<u8> {
    world.leaf(Role::Reader, "RD-1", Validity::from(now(), 30 * DAY))
}

pub(crate) fn refused(result: Result<std::sync::Arc<Leaf>, PkiError>) -> PkiError {
    result.err().expect("must be refused")
}

#[test]
fn issued_leaf_verifies_under_every_provider() {
    for provider in [rust_crypto::provider(), aws_lc::provider(), sm::provider()] {
        let mut world = World::new(provider, 1);
        let der = reader(&mut world);
        let leaf = world.trust().verify(&der, Role::Reader, now(), None).unwrap();
        assert_eq!(leaf.identity().to_uri(), "countersign://reader/RD-1");
        assert_eq!(leaf.number().to_string().len(), 32);
        assert_eq!(&identity(&der).unwrap(), leaf.identity());
        assert!(identity(&der[1..]).is_err());
    }
}

#[test]
fn time_role_issuer_and_revocation_are_checked() {
    let mut world = World::new(rust_crypto::provider(), 2);
    let der = reader(&mut world);
    let mut trust = world.trust();
    let early = now().minus(DAY);
    // A device whose clock is behind by minutes takes a certificate that was just issued.
    let behind = now().minus(Duration::from_secs(600));
    assert!(trust.verify(&der, Role::Reader, behind, None).is_ok());
    let late = now().plus(31 * DAY);
    assert_eq!(refused(trust.verify(&der, Role::Reader, early, None)), PkiError::NotYetValid);
    assert_eq!(refused(trust.verify(&der, Role::Reader, late, None)), PkiError::Expired);
    assert_eq!(refused(trust.verify(&der, Role::Server, now(), None)), PkiError::WrongRole);

    // The device CA certifies a server: its issuer is trusted for readers only.
    let rogue = world.leaf(Role::Server, "srv", Validity::from(now(), DAY));
    assert_eq!(refused(trust.verify(&rogue, Role::Server, now(), None)), PkiError::WrongRole);

    let foreign = reader(&mut World::new(rust_crypto::provider(), 3));
    let error = refused(trust.verify(&foreign, Role::Reader, now(), None));
    assert_eq!(error, PkiError::UnknownIssuer);

    let number = trust.verify(&der, Role::Reader, now(), None).unwrap().number().clone();
    trust.revoke(number);
    assert_eq!(refused(trust.verify(&der, Role::Reader, now(), None)), PkiError::Revoked);
}

#[test]
fn a_ca_is_not_a_leaf_and_a_leaf_is_not_a_ca() {
    let mut world = World::new(rust_crypto::provider(), 4);
    let der = reader(&mut world);
    let mut trust = world.trust();
    let devices = world.devices.clone();
    assert_eq!(refused(trust.verify(&devices, Role::Reader, now(), None)), PkiError::WrongRole);
    assert_eq!(trust.trust(&world.root, &der, Role::Reader, now()), Err(PkiError::WrongRole));
    let other = World::new(rust_crypto::provider(), 5);
    let error = trust.trust(&other.root, &world.devices, Role::Reader, now());
    // Same names, another key: the name matches, the signature cannot.
    assert_eq!(error, Err(PkiError::BadSignature));
}

#[test]
fn every_flipped_byte_is_refused() {
    for provider in [aws_lc::provider(), sm::provider()] {
        let mut world = World::new(provider, 6);
        let der = reader(&mut world);
        let trust = world.trust();
        for at in 0..der.len() {
            let mut bad = der.clone();
            bad[at] ^= 1;
            assert!(trust.verify(&bad, Role::Reader, now(), None).is_err(), "byte {at}");
        }
        let mut long = der;
        long.push(0);
        assert_eq!(refused(trust.verify(&long, Role::Reader, now(), None)), PkiError::Malformed);
    }
}

#[derive(Default)]
pub(crate) struct OneLeaf(Mutex<Option<std::sync::Arc<Leaf>>>);

impl LeafCache for OneLeaf {
    fn find(&self, hash: &Digest) -> Option<std::sync::Arc<Leaf>> {
        self.0.lock().unwrap().clone().filter(|leaf| leaf.hash() == hash)
    }

    fn put(&self, leaf: &std::sync::Arc<Leaf>) {
        *self.0.lock().unwrap() = Some(leaf.clone());
    }
}

#[test]
fn the_cache_does_not_remember_time_role_or_revocation() {
    let mut world = World::new(rust_crypto::provider(), 7);
    let der = reader(&mut world);
    let mut trust = world.trust();
    let cache = OneLeaf::default();
    let first = trust.verify(&der, Role::Reader, now(), Some(&cache)).unwrap();
    let again = trust.verify(&der, Role::Reader, now(), Some(&cache)).unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &again));
    let late = now().plus(31 * DAY);
    assert_eq!(refused(trust.verify(&der, Role::Reader, late, Some(&cache))), PkiError::Expired);
    let error = refused(trust.verify(&der, Role::Server, now(), Some(&cache)));
    assert_eq!(error, PkiError::WrongRole);
    trust.revoke(first.number().clone());
    assert_eq!(refused(trust.verify(&der, Role::Reader, now(), Some(&cache))), PkiError::Revoked);
}

#[test]
fn a_request_must_prove_possession() {
    let mut world = World::new(rust_crypto::provider(), 8);
    let identity = Identity::new(Role::Reader, "RD-9").unwrap();
    let key = world.provider.signature.generate(&mut world.rng).unwrap();
    let csr = request(&world.provider, &identity, &*key.key, &mut world.rng).unwrap();
    assert_eq!(parse_request(&world.provider, &csr).unwrap().identity(), &identity);
    let mut renamed = csr.clone();
    let at = renamed.windows(4).rposition(|w| w == b"RD-9").unwrap();
    renamed[at + 3] = b'8';
    let error = parse_request(&world.provider, &renamed).err();
    assert_eq!(error, Some(PkiError::BadProofOfPossession));
    let error = parse_request(&world.provider, &csr[..csr.len() - 1]).err();
    assert_eq!(error, Some(PkiError::Malformed));
}

#[test]
fn signing_needs_the_issuers_key() {
    let mut world = World::new(rust_crypto::provider(), 9);
    let key = world.provider.signature.generate(&mut world.rng).unwrap();
    let number = CertificateNumber::random(&mut world.rng);
    let prepared = Issuer::from_certificate(&world.provider, &world.devices)
        .unwrap()
        .prepare_intermediate("X", key.key.public_key(), number, Validity::from(now(), DAY))
        .unwrap();
    assert_eq!(prepared.sign(&*key.key, &mut world.rng), Err(PkiError::SigningFailed));
}

#[test]
fn identities_are_strict() {
    for bad in ["", "a b", "a/b", "ä", &"x".repeat(65)] {
        assert_eq!(Identity::new(Role::Reader, bad), Err(PkiError::BadIdentity), "{bad:?}");
    }
    for bad in ["countersign://reader", "countersign://king/1", "http://reader/1"] {
        assert_eq!(Identity::from_uri(bad), Err(PkiError::BadIdentity), "{bad}");
    }
}

proptest! {
    #[test]
    fn parsers_are_total(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let provider = sm::provider();
        prop_assert!(parse_request(&provider, &bytes).is_err());
        let trust = TrustStore::new(provider);
        prop_assert!(trust.verify(&bytes, Role::Reader, now(), None).is_err());
        prop_assert!(trust.verify_encryption(&bytes, Role::Reader, now(), None).is_err());
    }
}

#[test]
fn the_servers_cache_is_bounded_and_forgets_the_oldest() {
    let mut world = World::new(aws_lc::provider(), 10);
    let trust = world.trust();
    let cache = BoundedLeafCache::default();
    let first = reader(&mut world);
    let leaf = trust.verify(&first, Role::Reader, now(), Some(&cache)).unwrap();
    assert!(cache.find(leaf.hash()).is_some());
    cache.put(&leaf); // putting it again takes no second place
    for number in 0..LEAVES_MAX - 1 {
        cache.put(&std::sync::Arc::new(leaf.with_hash(number)));
    }
    assert!(cache.find(leaf.hash()).is_some(), "exactly full");
    cache.put(&std::sync::Arc::new(leaf.with_hash(LEAVES_MAX)));
    assert!(cache.find(leaf.hash()).is_none(), "the oldest made room");
}

/// A cache that outlived the trust under which it was filled vouches for nobody.
#[test]
fn a_cached_leaf_needs_its_issuer_to_be_trusted_still() {
    let mut world = World::new(aws_lc::provider(), 11);
    let der = reader(&mut world);
    let cache = OneLeaf::default();
    world.trust().verify(&der, Role::Reader, now(), Some(&cache)).unwrap();
    let mut others = TrustStore::new(world.provider.clone());
    let error = refused(others.verify(&der, Role::Reader, now(), Some(&cache)));
    assert_eq!(error, PkiError::UnknownIssuer);
    // The same certificate, trusted for servers only.
    others.trust(&world.root, &world.devices, Role::Server, now()).unwrap();
    let error = refused(others.verify(&der, Role::Reader, now(), Some(&cache)));
    assert_eq!(error, PkiError::WrongRole);
    others.trust(&world.root, &world.devices, Role::Reader, now()).unwrap();
    assert!(others.verify(&der, Role::Reader, now(), Some(&cache)).is_ok());
}

#[test]
fn certificate_numbers_are_positive_and_have_one_form() {
    for good in [&[1][..], &[0x7f], &[0, 0x80], &[0x40; 20]] {
        assert!(CertificateNumber::from_bytes(good).is_ok(), "{good:?}");
    }
    for bad in [&[][..], &[0], &[0x80], &[0, 1], &[0, 0], &[1; 21]] {
        assert_eq!(CertificateNumber::from_bytes(bad), Err(PkiError::Malformed), "{bad:?}");
    }
}

#[test]
fn a_trust_store_is_bounded() {
    let world = World::new(rust_crypto::provider(), 12);
    let mut trust = world.trust();
    let add =
        |trust: &mut TrustStore| trust.trust(&world.root, &world.devices, Role::Reader, now());
    (0..6).for_each(|_| add(&mut trust).unwrap());
    assert_eq!(add(&mut trust), Err(PkiError::TooManyIssuers));
}

#[test]
fn an_issuer_prepares_for_the_role_it_was_asked_for() {
    let mut world = World::new(rust_crypto::provider(), 13);
    let identity = Identity::new(Role::Reader, "RD-1").unwrap();
    let key = world.provider.signature.generate(&mut world.rng).unwrap();
    let csr = request(&world.provider, &identity, &*key.key, &mut world.rng).unwrap();
    let requested = parse_request(&world.provider, &csr).unwrap();
    let issuer = Issuer::from_certificate(&world.provider, &world.devices).unwrap();
    let number = CertificateNumber::random(&mut world.rng);
    let validity = Validity::from(now(), DAY);
    let error = issuer.prepare(&requested, Role::Server, number, validity).err();
    assert_eq!(error, Some(PkiError::WrongRole));
}
