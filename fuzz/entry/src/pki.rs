//! Certificates and requests: what a trust store accepts was issued by the CA it trusts for that
//! role, and nothing else.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use countersign_crypto::{Digest, Provider, SecureElement, UnixTime, rust_crypto, sm};
use countersign_pki::{
    CertificateNumber, Identity, Issuer, Leaf, LeafCache, PkiError, Role, TrustStore, Usage,
    Validity, certified_point, encryption_request, not_after, number, parse_request, self_signed,
};
use testkit::pki::{LEAF_VALIDITY, NOW};
use testkit::rng::{ChaCha20Rng, seeded};

use crate::script::Script;

const SECOND: Duration = Duration::from_secs(1);
const CA_VALIDITY: Duration = Duration::from_secs(365 * 86_400);
const ROLES: [Role; 2] = [Role::Reader, Role::Server];
const USAGES: [Usage; 2] = [Usage::Signing, Usage::Encryption];
/// DER tags.
const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// What a CA issued.
pub(crate) struct Issue {
    usage: Usage,
    key: Arc<dyn SecureElement>,
    identity: Identity,
    number: CertificateNumber,
    pub(crate) certificate: Vec<u8>,
    /// The request from which it was made.
    pub(crate) request: Vec<u8>,
}

/// A CA and the leaves of one party: for signing and, where the suite has it, for encryption.
pub(crate) struct Branch {
    role: Role,
    key: Arc<dyn SecureElement>,
    pub(crate) certificate: Vec<u8>,
    pub(crate) issues: Vec<Issue>,
}

/// A root, a CA for readers and one for servers, a party of each. Unlike testkit's tree it signs
/// what no CA would.
pub(crate) struct Tree {
    provider: Provider,
    pub(crate) root: Vec<u8>,
    root_key: Arc<dyn SecureElement>,
    pub(crate) branches: [Branch; 2],
    trust: TrustStore,
    /// The same trust, with every leaf revoked.
    revoking: TrustStore,
}

/// A tree for each suite.
pub(crate) fn trees() -> &'static [Tree; 2] {
    static TREES: OnceLock<[Tree; 2]> = OnceLock::new();
    TREES.get_or_init(|| [rust_crypto::provider(), sm::provider()].map(Tree::new))
}

impl Tree {
    fn new(provider: Provider) -> Self {
        let mut rng = seeded(0xC0DE);
        let validity = Validity::from(NOW, CA_VALIDITY);
        let root_key = provider.signature.generate(&mut rng).expect("root key").key;
        let number = CertificateNumber::random(&mut rng);
        let root = self_signed(&provider, "Root", root_key.public_key(), number, validity)
            .and_then(|prepared| prepared.sign(&*root_key, &mut rng))
            .expect("root");
        let branches = [("Readers", Role::Reader, "RD-1"), ("Servers", Role::Server, "srv-1")].map(
            |(name, role, id)| {
                let key = provider.signature.generate(&mut rng).expect("CA key").key;
                let serial = CertificateNumber::random(&mut rng);
                let certificate = Issuer::from_certificate(&provider, &root)
                    .and_then(|issuer| {
                        issuer.prepare_intermediate(name, key.public_key(), serial, validity)
                    })
                    .and_then(|prepared| prepared.sign(&*root_key, &mut rng))
                    .expect("CA");
                let identity = Identity::new(role, id).expect("id");
                let issue = |&usage| {
                    Issue::new(&provider, (&certificate, &*key), &identity, usage, &mut rng)
                };
                let issues = USAGES.iter().map(issue).collect();
                Branch { role, key, certificate, issues }
            },
        );
        let trust = || {
            let mut trust = TrustStore::new(provider.clone());
            for branch in &branches {
                trust.trust(&root, &branch.certificate, branch.role, NOW).expect("trust");
            }
            trust
        };
        let (trust, mut revoking) = (trust(), trust());
        for issue in branches.iter().flat_map(|branch| &branch.issues) {
            revoking.revoke(issue.number.clone());
        }
        Self { provider, root, root_key, branches, trust, revoking }
    }

    fn issues(&self) -> impl Iterator<Item = &Issue> {
        self.branches.iter().flat_map(|branch| &branch.issues)
    }

    fn branch(&self, role: Role) -> &Branch {
        self.branches.iter().find(|branch| branch.role == role).expect("one of two roles")
    }
}

impl Issue {
    fn new(
        provider: &Provider,
        ca: (&[u8], &dyn SecureElement),
        identity: &Identity,
        usage: Usage,
        rng: &mut ChaCha20Rng,
    ) -> Self {
        let key = provider.signature.generate(rng).expect("key").key;
        let request = match usage {
            Usage::Signing => countersign_pki::request(provider, identity, &*key, rng),
            Usage::Encryption => encryption_request(provider, identity, &*key, rng),
        };
        let request = request.expect("request");
        let (number, certificate) = grant(provider, ca, &request, rng).expect("leaf");
        Self { usage, key, identity: identity.clone(), number, certificate, request }
    }
}

/// Issues what a request asks for.
fn grant(
    provider: &Provider,
    (ca, key): (&[u8], &dyn SecureElement),
    request: &[u8],
    rng: &mut ChaCha20Rng,
) -> Result<(CertificateNumber, Vec<u8>), PkiError> {
    let requested = parse_request(provider, request)?;
    let role = requested.identity().role();
    let number = CertificateNumber::random(rng);
    let validity = Validity::from(NOW, LEAF_VALIDITY);
    let issuer = Issuer::from_certificate(provider, ca)?;
    let prepared = match requested.usage() {
        Usage::Signing => issuer.prepare(&requested, role, number.clone(), validity),
        Usage::Encryption => issuer.prepare_encryption(&requested, role, number.clone(), validity),
    };
    Ok((number, prepared?.sign(key, rng)?))
}

/// Remembers what it is given, and says so.
#[derive(Default)]
struct Seen(Mutex<Vec<Arc<Leaf>>>);

impl Seen {
    fn leaves(&self) -> Vec<Arc<Leaf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl LeafCache for Seen {
    fn find(&self, hash: &Digest) -> Option<Arc<Leaf>> {
        self.leaves().into_iter().find(|leaf| leaf.hash() == hash)
    }

    fn put(&self, leaf: &Arc<Leaf>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(leaf.clone());
    }
}

/// Arbitrary bytes as a certificate: accepted only if they are one that was issued.
pub fn certificate(data: &[u8]) {
    for tree in trees() {
        check_altered(tree, data, true);
        // As a CA: only what the root signed, in whatever role it is trusted.
        if Issuer::from_certificate(&tree.provider, data).is_ok() {
            let mut trust = TrustStore::new(tree.provider.clone());
            if trust.trust(&tree.root, data, Role::Reader, NOW).is_ok() {
                let made = |der: &[u8]| contains(data, first_element(der));
                let ca = tree.branches.iter().any(|branch| made(&branch.certificate));
                assert!(ca || made(&tree.root), "a CA that the root did not sign");
            }
        }
    }
}

/// A real certificate, altered; or altered and then signed by somebody, perhaps the right CA.
/// Script: `which, signed how, edits`.
pub fn certificate_edits(data: &[u8]) {
    let mut script = Script::new(data);
    let which = script.byte();
    let tree = &trees()[usize::from(which & 1)];
    let branch = &tree.branches[usize::from(which >> 1 & 1)];
    let issue = &branch.issues[usize::from(which >> 2 & 1) % branch.issues.len()];
    let is_ca = which & 8 != 0;
    let mut der = if is_ca { branch.certificate.clone() } else { issue.certificate.clone() };
    let signed_by = script.byte();
    if signed_by & 1 == 0 {
        let altered = script.edit(&mut der);
        check_altered(tree, &der, altered);
        return;
    }
    let tail = after_first_element(&der).to_vec();
    let mut tbs = first_element(&der).to_vec();
    if signed_by & 2 == 0 {
        script.edit(&mut tbs);
    } else {
        tbs = script.rest().to_vec();
    }
    let [readers, servers] = &tree.branches;
    let signer = match signed_by >> 4 & 3 {
        0 => &branch.key,
        1 => &tree.root_key,
        2 => &issue.key,
        _ if branch.role == Role::Reader => &servers.key,
        _ => &readers.key,
    };
    let der = signed(tbs, &tail, &**signer);
    check_signed(tree, &der, &**signer);
}

/// Without a key nothing new is accepted; what was not altered is.
fn check_altered(tree: &Tree, der: &[u8], altered: bool) {
    parse(tree, der);
    let mut times_accepted = 0;
    for (role, usage) in each_purpose() {
        match judge(tree, der, role, usage) {
            Some(leaf) => {
                times_accepted += 1;
                assert_issued(tree, der, usage, &leaf);
            }
            None => {
                let same = |issue: &Issue| issue.usage == usage && issue.certificate == der;
                let genuine = tree.branch(role).issues.iter().any(same);
                assert!(altered || !genuine, "a genuine certificate is refused");
            }
        }
    }
    assert!(times_accepted <= 1, "one certificate for two purposes");
}

/// With a key: only the CA of a role vouches for it, and only for what the profile allows.
fn check_signed(tree: &Tree, der: &[u8], signer: &dyn SecureElement) {
    parse(tree, der);
    let mut times_accepted = 0;
    for (role, usage) in each_purpose() {
        let Some(leaf) = judge(tree, der, role, usage) else { continue };
        times_accepted += 1;
        assert_eq!(tree.branch(role).key.public_key(), signer.public_key(), "another key's");
        let end = not_after(der).expect("it was accepted");
        assert!(end >= NOW, "accepted after its end");
        let ca_end = NOW.plus(CA_VALIDITY).plus(SECOND);
        assert!(verify(&tree.trust, usage, der, role, ca_end, None).is_err(), "outlives its CA");
        assert_eq!(Identity::from_uri(&leaf.identity.to_uri()).as_ref(), Ok(&leaf.identity));
        assert_eq!(number(der), Ok(leaf.number));
    }
    assert!(times_accepted <= 1, "one certificate for two purposes");
}

fn each_purpose() -> impl Iterator<Item = (Role, Usage)> {
    ROLES.into_iter().flat_map(|role| USAGES.map(|usage| (role, usage)))
}

/// A request: raw, altered, or altered and signed by the device.
/// Script: `which, signed how, bytes or edits`.
pub fn request(data: &[u8]) {
    let mut script = Script::new(data);
    let which = script.byte();
    let tree = &trees()[usize::from(which & 1)];
    let branch = &tree.branches[usize::from(which >> 1 & 1)];
    let issue = &branch.issues[usize::from(which >> 2 & 1) % branch.issues.len()];
    let signed_by = script.byte();
    let owned = signed_by & 1 != 0;
    let der = if owned {
        let mut info = first_element(&issue.request).to_vec();
        script.edit(&mut info);
        signed(info, after_first_element(&issue.request), &*issue.key)
    } else if signed_by & 2 != 0 {
        script.rest().to_vec()
    } else {
        let mut der = issue.request.clone();
        script.edit(&mut der);
        der
    };
    let Ok(requested) = parse_request(&tree.provider, &der) else { return };
    let identity = requested.identity();
    assert_eq!(Identity::from_uri(&identity.to_uri()).as_ref(), Ok(identity));
    if !owned {
        let known = |issue: &Issue| contains(&der, first_element(&issue.request));
        assert!(tree.issues().any(known), "possession of no key was proven");
        return;
    }
    assert_eq!(requested.point(), issue.key.public_key(), "another key than the signer's");
    let (role, usage) = (identity.role(), requested.usage());
    let ca = tree.branch(role);
    let (_, leaf) = grant(&tree.provider, (&ca.certificate, &*ca.key), &der, &mut seeded(1))
        .expect("a request that was accepted can be granted");
    match verify(&tree.trust, usage, &leaf, role, NOW, None) {
        Ok(leaf) => assert_eq!(&leaf.identity, identity),
        Err(error) => panic!("{error} on what we issued"),
    }
}

/// What reads our own certificates: total on anything.
fn parse(tree: &Tree, der: &[u8]) {
    let end = not_after(der);
    let number = number(der);
    if let Ok(number) = &number {
        assert_eq!(CertificateNumber::from_bytes(number.as_bytes()).as_ref(), Ok(number));
        assert!(end.is_ok(), "one part parses and another does not");
    }
    let point = certified_point(&tree.provider, der);
    let issuer = Issuer::from_certificate(&tree.provider, der);
    assert_eq!(point.is_ok(), issuer.is_ok());
}

/// What a trust store says of a certificate, for either usage.
#[derive(Debug, PartialEq, Eq)]
struct Accepted {
    identity: Identity,
    number: CertificateNumber,
    hash: Digest,
}

fn verify(
    trust: &TrustStore,
    usage: Usage,
    der: &[u8],
    role: Role,
    now: UnixTime,
    cache: Option<&dyn LeafCache>,
) -> Result<Accepted, PkiError> {
    Ok(match usage {
        Usage::Signing => {
            let leaf = trust.verify(der, role, now, cache)?;
            let (identity, number) = (leaf.identity().clone(), leaf.number().clone());
            Accepted { identity, number, hash: *leaf.hash() }
        }
        Usage::Encryption => {
            let leaf = trust.verify_encryption(der, role, now, cache)?;
            let (identity, number) = (leaf.identity().clone(), leaf.number().clone());
            Accepted { identity, number, hash: *leaf.hash() }
        }
    })
}

/// Verifies for `role` and `usage`. What is accepted must be refused out of its time, for another
/// purpose and once it is revoked, remembered or not; what is refused is not remembered.
fn judge(tree: &Tree, der: &[u8], role: Role, usage: Usage) -> Option<Accepted> {
    let seen = Seen::default();
    let Ok(leaf) = verify(&tree.trust, usage, der, role, NOW, Some(&seen)) else {
        assert!(seen.leaves().is_empty(), "refused and yet remembered");
        return None;
    };
    let again = |trust, usage, role, now| verify(trust, usage, der, role, now, Some(&seen));
    assert_eq!(seen.leaves().len(), 1, "verified and not remembered");
    assert_eq!(leaf.identity.role(), role);
    assert_eq!(again(&tree.trust, usage, role, NOW).as_ref(), Ok(&leaf), "not when remembered");
    for other in each_purpose().filter(|purpose| *purpose != (role, usage)) {
        assert!(again(&tree.trust, other.1, other.0, NOW).is_err(), "also for {other:?}");
    }
    let end = not_after(der).expect("it was accepted").plus(SECOND);
    assert_eq!(again(&tree.trust, usage, role, end), Err(PkiError::Expired));
    let before = NOW.minus(CA_VALIDITY);
    let early = again(&tree.trust, usage, role, before);
    assert_eq!(early, Err(PkiError::NotYetValid), "older than its CA");
    if tree.issues().any(|issue| issue.number == leaf.number) {
        let revoked = again(&tree.revoking, usage, role, NOW);
        assert_eq!(revoked, Err(PkiError::Revoked));
    }
    Some(leaf)
}

/// The signed part is one that was issued. The signature's own bytes may differ: ECDSA has a second
/// form of each.
fn assert_issued(tree: &Tree, der: &[u8], usage: Usage, leaf: &Accepted) {
    let same = |issue: &&Issue| contains(der, first_element(&issue.certificate));
    let issue = tree.issues().find(same).expect("nobody issued what was accepted");
    assert_eq!((&leaf.identity, usage), (&issue.identity, issue.usage));
    assert_eq!(leaf.number, issue.number);
    let point = certified_point(&tree.provider, der);
    assert_eq!(point.as_deref(), Ok(issue.key.public_key()));
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Puts `first` (a whole element) before the algorithm in `tail`, and signs it.
fn signed(first: Vec<u8>, tail: &[u8], key: &dyn SecureElement) -> Vec<u8> {
    let algorithm = element(tail).0;
    let mut signature = vec![0]; // no unused bits
    signature.extend(key.sign(&mut seeded(1), &first).expect("software keys sign"));
    let mut body = first;
    body.extend_from_slice(algorithm);
    body.extend(wrapped(BIT_STRING, &signature));
    wrapped(SEQUENCE, &body)
}

fn wrapped(tag: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).expect("scripts are short").to_be_bytes();
    let mut der = match body.len() {
        0..=0x7F => vec![tag, len[1]],
        0x80..=0xFF => vec![tag, 0x81, len[1]],
        _ => vec![tag, 0x82, len[0], len[1]],
    };
    der.extend_from_slice(body);
    der
}

/// The first element inside the outer one, of genuine DER.
fn first_element(der: &[u8]) -> &[u8] {
    element(&der[header_len(der)..]).0
}

fn after_first_element(der: &[u8]) -> &[u8] {
    element(&der[header_len(der)..]).1
}

/// The first element, whole, and what follows it.
fn element(der: &[u8]) -> (&[u8], &[u8]) {
    let header = header_len(der);
    let len = match header {
        2 => usize::from(der[1]),
        3 => usize::from(der[2]),
        _ => usize::from(u16::from_be_bytes([der[2], der[3]])),
    };
    der.split_at(header + len)
}

fn header_len(der: &[u8]) -> usize {
    match der[1] {
        0x81 => 3,
        0x82 => 4,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The helpers that sign make what is accepted, so that the targets reach behind the signature.
    #[test]
    fn what_is_signed_here_is_accepted() {
        for tree in trees() {
            for (branch, issue) in
                tree.branches.iter().flat_map(|b| b.issues.iter().map(move |issue| (b, issue)))
            {
                let (tbs, tail) =
                    (first_element(&issue.certificate), after_first_element(&issue.certificate));
                let again = signed(tbs.to_vec(), tail, &*branch.key);
                assert!(judge(tree, &again, branch.role, issue.usage).is_some());
                let foreign = signed(tbs.to_vec(), tail, &*tree.root_key);
                assert!(judge(tree, &foreign, branch.role, issue.usage).is_none());
                let info = first_element(&issue.request).to_vec();
                let again = signed(info, after_first_element(&issue.request), &*issue.key);
                assert!(parse_request(&tree.provider, &again).is_ok());
            }
        }
    }

    #[test]
    #[should_panic(expected = "another key's")]
    fn a_leaf_from_the_wrong_key_would_be_noticed() {
        let [tree, _] = trees();
        let [readers, servers] = &tree.branches;
        check_signed(tree, &readers.issues[0].certificate, &*servers.key);
    }

    #[test]
    #[should_panic(expected = "nobody issued")]
    fn a_leaf_that_nobody_issued_would_be_noticed() {
        let [tree, _] = trees();
        let branch = &tree.branches[0];
        let genuine = &branch.issues[0].certificate;
        let mut tbs = first_element(genuine).to_vec();
        let at = tbs.windows(4).position(|window| window == b"RD-1").expect("the id");
        tbs[at + 3] = b'9';
        check_altered(tree, &signed(tbs, after_first_element(genuine), &*branch.key), true);
    }
}
