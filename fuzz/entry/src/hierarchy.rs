//! The RSA hierarchy of key injection: what is accepted of certificates, lists of revoked ones and
//! requests was made by whom it names, byte by byte.

use std::sync::OnceLock;
use std::time::Duration;

use countersign_crypto::{Secret, UnixTime};
use testkit::rng::seeded;
use tr34::aws_lc::{AwsLc, SoftwareRsaKey};
use tr34::reader::{Walker, tag, tlv};
use tr34::{
    Certificate, Crl, CrlError, CrlSeen, CrlTerms, Issuer, IssuingCa, Kdh, Krd, Leniency, Party,
    Requested, Revocation, Role, RsaKey, Validity, parse_foreign_request, parse_request,
    prepare_root, request,
};

use crate::script::Script;

/// When everything is made and looked at.
pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
const DAY: Duration = Duration::from_secs(86_400);

/// A certificate and its key.
pub(crate) struct Holder {
    pub(crate) certificate: Certificate,
    pub(crate) key: SoftwareRsaKey,
}

/// A root, the two CAs, a KDH and a terminal; a list with the terminal's serial number on it.
pub(crate) struct Tree {
    pub(crate) root: Holder,
    pub(crate) ca_kdh: Holder,
    pub(crate) ca_krd: Holder,
    pub(crate) kdh: Holder,
    pub(crate) krd: Holder,
    /// The list of `CA_KDH`, nobody on it.
    pub(crate) crl: Vec<u8>,
    /// The list of `Sub_CA_KRD`, the terminal on it.
    pub(crate) krd_crl: Vec<u8>,
    /// The terminal's request.
    pub(crate) request: Vec<u8>,
}

/// AWS-LC makes no keys from a seed, so these are kept. They protect nothing.
fn key(pkcs8: &[u8]) -> SoftwareRsaKey {
    SoftwareRsaKey::from_pkcs8(&Secret::copied_from(pkcs8)).expect("a key of ours")
}

pub(crate) fn tree() -> &'static Tree {
    static TREE: OnceLock<Tree> = OnceLock::new();
    TREE.get_or_init(Tree::new)
}

impl Tree {
    fn new() -> Self {
        let root_key = key(include_bytes!("../keys/root.pk8"));
        let validity = Validity::from(NOW, DAY * 7300);
        let root = prepare_root(&AwsLc, "Root", root_key.public_key(), &mut seeded(1), validity)
            .and_then(|prepared| prepared.sign(&AwsLc, &root_key))
            .expect("root");
        let certificate = Certificate::parse(&root).expect("root");
        let root = Holder { certificate, key: root_key };
        let certified = |above: &Holder, role, id: &str, key: SoftwareRsaKey| {
            let party = Party::new(role, id).expect("id");
            let requested = parse_request(&AwsLc, &request(&key, &party).expect("request"));
            let der = grant(above, &requested.expect("ours"));
            Holder { certificate: Certificate::parse(&der).expect("issued"), key }
        };
        let ca_kdh_key = key(include_bytes!("../keys/ca-kdh.pk8"));
        let ca_krd_key = key(include_bytes!("../keys/ca-krd.pk8"));
        let ca_kdh = certified(&root, Role::CaKdh, "kdh-g1", ca_kdh_key);
        let ca_krd = certified(&root, Role::CaKrd, "krd-g1", ca_krd_key);
        let kdh = certified(&ca_kdh, Role::Kdh, "kdh-1", key(include_bytes!("../keys/kdh.pk8")));
        let krd = certified(&ca_krd, Role::Krd, "POS-1", key(include_bytes!("../keys/krd.pk8")));
        let crl = list(&ca_kdh, &[]);
        let krd_crl = list(&ca_krd, &[&krd.certificate]);
        let party = krd.certificate.party().expect("a party");
        let request = request(&krd.key, party).expect("request");
        Self { root, ca_kdh, ca_krd, kdh, krd, crl, krd_crl, request }
    }

    fn holders(&self) -> [&Holder; 5] {
        [&self.root, &self.ca_kdh, &self.ca_krd, &self.kdh, &self.krd]
    }
}

/// Issues what a request asks for.
fn grant(above: &Holder, requested: &Requested) -> Vec<u8> {
    let issuer = Issuer::new(above.certificate.clone()).expect("a CA");
    let validity = Validity::from(NOW, DAY * 365).within(&above.certificate);
    let role = requested.party().role();
    let mut rng = seeded(requested.party().id().bytes().map(u64::from).sum());
    issuer
        .prepare(&AwsLc, requested, role, &mut rng, validity)
        .and_then(|prepared| prepared.sign(&AwsLc, &above.key))
        .expect("a request that was accepted can be granted")
}

fn list(above: &Holder, revoked: &[&Certificate]) -> Vec<u8> {
    let terms = CrlTerms { number: 5, this_update: NOW, next_update: NOW.plus(DAY * 7) };
    let entry = |certificate: &&Certificate| Revocation {
        serial: certificate.identity().serial().to_vec(),
        at: NOW,
    };
    let revoked: Vec<Revocation> = revoked.iter().map(entry).collect();
    let issuer = Issuer::new(above.certificate.clone()).expect("a CA");
    let prepared = issuer.prepare_crl(terms, &revoked).expect("a list");
    prepared.sign(&AwsLc, &above.key).expect("a list")
}

/// Certificates, lists and requests: raw, altered, or altered and signed by somebody, perhaps the
/// right one. Script: `what and which, signed how, bytes or edits`.
pub fn hierarchy(data: &[u8]) {
    let tree = tree();
    let mut script = Script::new(data);
    let what = script.byte();
    let which = usize::from(what >> 2);
    let genuine = match what & 3 {
        0 | 1 => tree.holders()[which % 5].certificate.raw(),
        2 => [&tree.crl[..], &tree.krd_crl][which % 2],
        _ => &tree.request,
    };
    let how = script.byte();
    let (der, signer) = match how & 3 {
        0 => {
            let mut der = genuine.to_vec();
            script.edit(&mut der);
            (der, None)
        }
        1 => (script.rest().to_vec(), None),
        signed_how => {
            let mut signed = first_element(genuine).to_vec();
            if signed_how == 2 {
                script.edit(&mut signed);
            } else {
                signed = script.rest().to_vec();
            }
            let signer = tree.holders()[usize::from(how >> 2) % 5];
            (resigned(genuine, &signed, signer), Some(signer))
        }
    };
    check_certificate(tree, &der, signer);
    check_list(tree, &der, signer);
    check_request(tree, &der, signer);
}

fn first_element(der: &[u8]) -> &[u8] {
    let outer = Walker::single(der, tag::SEQUENCE).expect("genuine");
    outer.inside().and_then(|mut inside| inside.any()).expect("genuine").whole
}

/// `signed` in the place of what was signed, under the signature of `signer`.
fn resigned(genuine: &[u8], signed: &[u8], signer: &Holder) -> Vec<u8> {
    let outer = Walker::single(genuine, tag::SEQUENCE).expect("genuine");
    let mut inside = outer.inside().expect("genuine");
    inside.any().expect("genuine");
    let algorithm = inside.any().expect("genuine").whole;
    let signature = signer.key.sign(signed).expect("software keys sign");
    let bits = tlv(tag::BIT_STRING, &[&[0], &signature]);
    tlv(tag::SEQUENCE, &[signed, algorithm, &bits])
}

/// Without a key only what was issued is accepted, and byte by byte: RSA signatures of this form
/// have no second one. With a key, only its holder's word counts.
fn check_certificate(tree: &Tree, der: &[u8], signer: Option<&Holder>) {
    let strict = Certificate::parse(der);
    let Ok(certificate) = Certificate::parse_with(der, Leniency::FOREIGN) else {
        assert!(strict.is_err(), "strict takes what lenient refuses");
        return;
    };
    assert_eq!(certificate.raw(), der);
    let _ = (certificate.identity().to_string(), tr34::name_text(certificate.subject()));
    let issued = tree.holders().iter().any(|holder| holder.certificate.raw() == der);
    for ca in [&tree.root, &tree.ca_kdh, &tree.ca_krd] {
        let vouched = certificate.verified_by(&AwsLc, &ca.certificate, NOW).is_ok();
        let by_ca = signer.is_some_and(|it| it.key.public_key() == ca.key.public_key());
        assert!(!vouched || issued || by_ca, "nobody issued what was accepted");
    }
    let Ok(certificate) = strict else { return };
    let at = |now| {
        let kdh = |ca: &Holder| Kdh::verify(&AwsLc, certificate.clone(), &ca.certificate, now);
        let krd = |ca: &Holder| Krd::verify(&AwsLc, certificate.clone(), &ca.certificate, now);
        let ca = |role| {
            let root = &tree.root.certificate;
            IssuingCa::verify(&AwsLc, certificate.clone(), root, role, now).is_ok()
        };
        let purposes = [
            kdh(&tree.ca_kdh).is_ok() || kdh(&tree.ca_krd).is_ok(),
            krd(&tree.ca_kdh).is_ok() || krd(&tree.ca_krd).is_ok(),
            ca(Role::CaKdh),
            ca(Role::CaKrd),
        ];
        purposes.into_iter().filter(|accepted| *accepted).count()
    };
    let accepted = at(NOW);
    assert!(accepted <= 1, "one certificate for two roles");
    assert!(accepted == 0 || certificate.party().is_some(), "accepted without a role");
    let end = certificate.not_after().plus(Duration::from_secs(1));
    assert_eq!(at(end), 0, "accepted after its end");
    assert!(!issued || accepted == 1 || der == tree.root.certificate.raw(), "genuine, refused");
}

fn check_list(tree: &Tree, der: &[u8], signer: Option<&Holder>) {
    let Ok(list) = Crl::parse(der) else { return };
    assert_eq!(list.raw(), der);
    for ca in [&tree.root, &tree.ca_kdh, &tree.ca_krd] {
        let Ok(seen) = list.verify(&AwsLc, &ca.certificate, NOW, None) else { continue };
        let genuine = [&tree.crl, &tree.krd_crl].iter().any(|genuine| *genuine == der);
        let by_ca = signer.is_some_and(|it| it.key.public_key() == ca.key.public_key());
        assert!(genuine || by_ca, "nobody made the list that was accepted");
        assert_eq!(CrlSeen::from_bytes(&seen.to_bytes()).as_ref(), Some(&seen));
        let again = list.verify(&AwsLc, &ca.certificate, NOW, Some(&seen));
        assert_eq!(again.as_ref(), Ok(&seen), "older than itself");
        let end = list.next_update().expect("it was accepted").plus(Duration::from_secs(1));
        assert!(list.verify(&AwsLc, &ca.certificate, end, None).is_err(), "after its end");
        for holder in tree.holders() {
            let identity = holder.certificate.identity();
            let admitted = list.admits(identity);
            assert_eq!(list.lists(identity), admitted == Err(CrlError::Revoked));
            let of_ca = identity.issuer() == ca.certificate.subject();
            assert!(of_ca || admitted == Err(CrlError::NotTheIssuer));
        }
    }
}

fn check_request(tree: &Tree, der: &[u8], signer: Option<&Holder>) {
    let strict = parse_request(&AwsLc, der);
    let requested = match (&strict, parse_foreign_request(&AwsLc, der, Role::Krd)) {
        (Ok(requested), _) => requested.clone(),
        (Err(_), Ok(foreign)) => foreign,
        (Err(_), Err(_)) => return,
    };
    let party = requested.party();
    assert_eq!(Party::from_uri(&party.to_uri()).as_ref(), Ok(party));
    let owned = signer.is_some_and(|signer| signer.key.public_key() == requested.public_key());
    assert!(owned || der == tree.request, "possession of no key was proven");
    let above = if party.role().is_ca() { &tree.root } else { &tree.ca_krd };
    let issued = Certificate::parse(&grant(above, &requested)).expect("issued");
    issued.verified_by(&AwsLc, &above.certificate, NOW).expect("issued");
    assert_eq!(issued.party(), Some(party));
    assert_eq!(issued.public_key(), requested.public_key());
}
