//! A terminal against a KDH of the test's own: what is refused, what is kept over a restart.

use std::path::Path;

use countersign_crypto::{Secret, UnixTime, aws_lc as suites};
use countersign_injection::message::{Binding, KeyToken};
use countersign_injection::terminal::TerminalWork;
use countersign_injection::{Bounded, Name};
use testkit::rng::seeded;
use tr31::aws_lc::AwsLc as Ciphers;
use tr34::aws_lc::{AwsLc, SoftwareRsaKey};
use tr34::kdh::{KeyOrder, Sender};
use tr34::token::{ContentCipher, Freshness, RtKrd};
use tr34::{
    Certificate, CrlTerms, Dialect, Issuer, Krd, Party, Role, Validity, parse_request,
    prepare_root, request,
};

use super::kept::Hex;
use super::*;

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

/// The server's side.
struct House {
    root: Certificate,
    ca_krd: Certificate,
    ca_krd_key: SoftwareRsaKey,
    ca_kdh: Certificate,
    kdh: Certificate,
    kdh_key: SoftwareRsaKey,
    crl: Vec<u8>,
}

impl House {
    fn new() -> Self {
        let mut rng = seeded(1);
        let validity = Validity::from(NOW, DAY * 900);
        let [root_key, ca_krd_key, ca_kdh_key, kdh_key] =
            std::array::from_fn(|_| SoftwareRsaKey::generate(2048).unwrap());
        let root = prepare_root(&AwsLc, "root", root_key.public_key(), &mut rng, validity).unwrap();
        let root = Certificate::parse(&root.sign(&AwsLc, &root_key).unwrap()).unwrap();
        let mut issue = |ca: &Certificate, ca_key, key: &SoftwareRsaKey, role, id| {
            let requested = request(key, &Party::new(role, id).unwrap()).unwrap();
            let requested = parse_request(&AwsLc, &requested).unwrap();
            let issuer = Issuer::new(ca.clone()).unwrap();
            let validity = validity.within(ca);
            let prepared = issuer.prepare(&AwsLc, &requested, role, &mut rng, validity).unwrap();
            Certificate::parse(&prepared.sign(&AwsLc, ca_key).unwrap()).unwrap()
        };
        let ca_krd = issue(&root, &root_key, &ca_krd_key, Role::CaKrd, "ca-krd");
        let ca_kdh = issue(&root, &root_key, &ca_kdh_key, Role::CaKdh, "ca-kdh");
        let kdh = issue(&ca_kdh, &ca_kdh_key, &kdh_key, Role::Kdh, "kdh-1");
        let terms = CrlTerms { number: 1, this_update: NOW, next_update: NOW.plus(DAY * 7) };
        let crl = Issuer::new(ca_kdh.clone()).unwrap().prepare_crl(terms, &[]).unwrap();
        let crl = crl.sign(&AwsLc, &ca_kdh_key).unwrap();
        Self { root, ca_krd, ca_krd_key, ca_kdh, kdh, kdh_key, crl }
    }

    fn sender(&self) -> Sender<'_> {
        Sender {
            rsa: &AwsLc,
            ciphers: &Ciphers,
            certificate: &self.kdh,
            crl: Some(&self.crl),
            dialect: Dialect::STRICT,
            weaker_wrapping: false,
        }
    }

    fn binding(&self) -> Binding {
        let token = Bounded::new(&self.sender().credential()).unwrap();
        Binding { token, ca_kdh: Bounded::new(self.ca_kdh.raw()).unwrap() }
    }

    /// A certificate for the terminal's key.
    fn certify(&self, key: &dyn RsaKey) -> Certificate {
        let requested = request(key, &Party::new(Role::Krd, "POS-1").unwrap()).unwrap();
        let requested = parse_request(&AwsLc, &requested).unwrap();
        let validity = Validity::from(NOW, DAY * 900).within(&self.ca_krd);
        let issuer = Issuer::new(self.ca_krd.clone()).unwrap();
        let rng = &mut seeded(2);
        let prepared = issuer.prepare(&AwsLc, &requested, Role::Krd, rng, validity).unwrap();
        let signed = prepared.sign(&AwsLc, &self.ca_krd_key).unwrap();
        Certificate::parse(&signed).unwrap()
    }

    /// `KT_KDH` for slot 3, in answer to this `RT_KRD`.
    fn key(&self, pos: &Pos, rt_krd: &[u8], injection: &str, fill: u8) -> KeyToken {
        let header = Header::new(tr31::Version::D, *b"K0", b'A', b'D', b'N');
        self.key_of(pos, rt_krd, (injection, fill), &header)
    }

    fn key_of(
        &self,
        pos: &Pos,
        rt_krd: &[u8],
        (injection, fill): (&str, u8),
        header: &Header,
    ) -> KeyToken {
        let krd = Krd::verify(&AwsLc, pos.certificate.clone(), &self.ca_krd, NOW).unwrap();
        let order = KeyOrder {
            krd: &krd,
            freshness: &Freshness::TwoPass(RtKrd::parse(rt_krd).unwrap().nonce),
            cipher: ContentCipher::Aes128,
            header,
            key: &Secret::copied_from(&[fill; 16]),
        };
        let token = self.sender().key_token(&mut seeded(3), &order).unwrap();
        let token = Bounded::new(&token.sign(&self.kdh_key).unwrap()).unwrap();
        KeyToken { injection: Name::clipped(injection), slot: 3, token }
    }
}

/// A terminal of this house in `path`, as its enrolment leaves it.
fn enrolled(house: &House, path: &Path) -> Pos {
    let provider = suites::provider();
    let kind = DeviceKind::Terminal;
    let mut rng = seeded(4);
    let dir = DeviceDir::open_or_make_of(kind, path, "POS-1", &provider, &mut rng).unwrap();
    let vault = Element::File.open(path).unwrap();
    let key = krd_key(&*vault, 3072).unwrap();
    let storage = vault.storage_key(STORAGE_LABEL).unwrap();
    let hex = |certificate: &Certificate| Hex(certificate.raw().to_vec());
    let kept = Kept {
        krd: hex(&house.certify(&*key)),
        ca_krd: hex(&house.ca_krd),
        root: hex(&house.root),
        ca_kdh: hex(&house.ca_kdh),
        receiver: Hex(krd::State::default().to_bytes()),
        slots: Default::default(),
    };
    let files = StateFiles::new(path);
    files.store(&*storage, &kept).unwrap();
    let lock = files.lock().unwrap();
    Pos::with(dir, files, vault, lock).unwrap()
}

fn asked(pos: &mut Pos, seed: u64) -> Vec<u8> {
    match pos.request(NOW, &mut seeded(seed)).unwrap() {
        TerminalWork::Requested { request, .. } => request.as_slice().to_vec(),
        other => panic!("{other:?}"),
    }
}

fn states(pos: &Pos) -> Vec<(KeyState, String)> {
    pos.keys().unwrap().into_iter().map(|key| (key.state, key.injection)).collect()
}

fn refused(check: &str) -> TerminalWork {
    TerminalWork::Refused(Name::clipped(check))
}

#[test]
fn a_key_waits_over_a_restart_and_its_token_is_used_once() {
    let house = House::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pos");
    let mut pos = enrolled(&house, &path);
    let standing = pos.standing().unwrap();
    assert!(standing.bound.is_none() && standing.pending.is_empty());
    let bound = pos.bind(&house.binding(), NOW).unwrap();
    assert!(matches!(bound, TerminalWork::Bound(_)));

    let request = asked(&mut pos, 10);
    let first = house.key(&pos, &request, "inj_1", 0x11);
    // The nonce is outstanding after a restart, too: the program may die while it waits.
    drop(pos);
    let mut pos = Pos::open(&path).unwrap();
    let work = pos.install(&first, NOW, &mut seeded(11)).unwrap();
    let TerminalWork::Installed(kcv) = work else { panic!("{work:?}") };
    assert_eq!(states(&pos), [(KeyState::Pending, "inj_1".to_owned())]);
    drop(pos);
    let mut pos = Pos::open(&path).unwrap();
    let pending = pos.standing().unwrap().pending;
    assert_eq!((pending[0].injection.as_str(), &pending[0].kcv), ("inj_1", &kcv));
    // The same token once more, after the restart.
    assert_eq!(pos.install(&first, NOW, &mut seeded(12)).unwrap(), refused("nonce-absent"));

    assert_eq!(pos.activate(&Name::clipped("inj_1")).unwrap(), Some(3));
    let request = asked(&mut pos, 13);
    assert_eq!(pos.install(&first, NOW, &mut seeded(14)).unwrap(), refused("nonce-mismatch"));
    let second = house.key(&pos, &request, "inj_2", 0x22);
    pos.install(&second, NOW, &mut seeded(15)).unwrap();
    let both = [(KeyState::Active, "inj_1".to_owned()), (KeyState::Pending, "inj_2".to_owned())];
    assert_eq!(states(&pos), both, "the old key stays");
    pos.discard(&Name::clipped("inj_2")).unwrap();
    assert_eq!(states(&pos), both[..1]);
    let request = asked(&mut pos, 16);
    let third = house.key(&pos, &request, "inj_3", 0x33);
    pos.install(&third, NOW, &mut seeded(17)).unwrap();
    pos.activate(&Name::clipped("inj_3")).unwrap();
    let after = [(KeyState::Active, "inj_3".to_owned()), (KeyState::Previous, "inj_1".to_owned())];
    drop(pos);
    assert_eq!(states(&Pos::open(&path).unwrap()), after);
}

#[test]
fn a_request_runs_out_and_a_refused_token_leaves_all_as_it_was() {
    let house = House::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pos");
    let mut pos = enrolled(&house, &path);
    pos.bind(&house.binding(), NOW).unwrap();
    let request = asked(&mut pos, 20);
    let key = house.key(&pos, &request, "inj_1", 0x11);
    let late = NOW.plus(krd::NONCE_LIFETIME).plus(std::time::Duration::from_millis(1));
    assert_eq!(pos.install(&key, late, &mut seeded(21)).unwrap(), refused("nonce-expired"));
    let expired = pos.install(&key, NOW.plus(DAY * 8), &mut seeded(22)).unwrap();
    assert_eq!(expired, refused("crl-expired"));
    let mut altered = key.token.as_slice().to_vec();
    *altered.last_mut().unwrap() ^= 1;
    let altered = KeyToken { token: Bounded::new(&altered).unwrap(), ..key.clone() };
    assert_eq!(pos.install(&altered, NOW, &mut seeded(23)).unwrap(), refused("token-signature"));
    assert_eq!(states(&pos), []);
    // None of this used the request up.
    assert!(matches!(pos.install(&key, NOW, &mut seeded(24)).unwrap(), TerminalWork::Installed(_)));
}

/// The check value of a protection key says nothing where the key is under another one.
#[test]
fn a_key_from_a_foreign_block_is_stored_without_that_blocks_check_value() {
    let house = House::new();
    let dir = tempfile::tempdir().unwrap();
    let mut pos = enrolled(&house, &dir.path().join("pos"));
    pos.bind(&house.binding(), NOW).unwrap();
    let request = asked(&mut pos, 30);
    let mut header = Header::new(tr31::Version::D, *b"K0", b'A', b'D', b'N');
    header.optional.push(tr31::OptionalBlock::new(tr31::OptionalId::KP, "010011223344"));
    let key = house.key_of(&pos, &request, ("inj_1", 0x11), &header);
    let work = pos.install(&key, NOW, &mut seeded(31)).unwrap();
    assert!(matches!(work, TerminalWork::Installed(_)), "{work:?}");
    assert_eq!(states(&pos), [(KeyState::Pending, "inj_1".to_owned())]);
}

#[test]
fn only_a_ca_kdh_of_the_pinned_root_is_taken() {
    let (house, elsewhere) = (House::new(), House::new());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pos");
    let mut pos = enrolled(&house, &path);
    for (binding, check) in [
        (elsewhere.binding(), "certificate-issuer"),
        // The other CA of our own root does not certify KDHs.
        (
            Binding { ca_kdh: Bounded::new(house.ca_krd.raw()).unwrap(), ..house.binding() },
            "certificate-role",
        ),
    ] {
        let TerminalWork::Refused(told) = pos.bind(&binding, NOW).unwrap() else {
            panic!("{check}")
        };
        assert_eq!(told.as_str(), check);
        assert!(pos.standing().unwrap().bound.is_none());
    }
    pos.bind(&house.binding(), NOW).unwrap();
    assert!(Pos::open(&path).is_err(), "one program at a time");
}

/// Whoever enrols again and names another element by mistake still has the terminal that was there.
#[test]
fn enrolling_with_another_element_changes_nothing() {
    let house = House::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pos");
    drop(enrolled(&house, &path));
    // The element that it has is a token, which a file vault stands for.
    let files = StateFiles::new(&path);
    let (pin_file, token) = ("pin".into(), "POS 1".to_owned());
    let token = Element::Pkcs11 { module: "module.so".into(), token, pin_file };
    files.store_element(&token).unwrap();
    std::fs::rename(path.join("element"), path.join("token")).unwrap();
    let before = std::fs::read(path.join("terminal-state")).unwrap();

    let ca = pem::encode(&pem::Pem::new("CERTIFICATE", house.root.raw()));
    let api = crate::Api::new("https://localhost:1", &ca, "").unwrap();
    let (serial, code) = ("POS-1".to_owned(), "AAAA".to_owned());
    let enrolment = Enrolment { serial, code, element: Element::File, bits: 2048 };
    let provider = suites::provider();
    let again = Pos::enroll(&path, &enrolment, &api, &provider, NOW, &mut seeded(30));
    assert_eq!(again.err().unwrap().check(), "terminal-state");
    assert_eq!(files.element().unwrap(), token, "it is not forgotten");
    assert_eq!(std::fs::read(path.join("terminal-state")).unwrap(), before);
}

/// What could not be stored did not happen: the terminal does not report it later.
#[test]
fn a_key_that_was_not_stored_is_not_reported() {
    let house = House::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pos");
    let mut pos = enrolled(&house, &path);
    pos.bind(&house.binding(), NOW).unwrap();
    let request = asked(&mut pos, 40);
    let key = house.key(&pos, &request, "inj_1", 0x11);
    let in_the_way = path.join("terminal-state.new");
    std::fs::create_dir(&in_the_way).unwrap();
    let stored = pos.install(&key, NOW, &mut seeded(41));
    assert!(matches!(stored, Err(PosError::Io { .. })), "the disk is full, or the like");
    assert!(pos.standing().unwrap().pending.is_empty(), "nothing waits");
    assert_eq!(states(&pos), []);
    std::fs::remove_dir(&in_the_way).unwrap();
    // The request is still outstanding, as on the disk.
    assert!(matches!(pos.install(&key, NOW, &mut seeded(42)).unwrap(), TerminalWork::Installed(_)));
    assert_eq!(states(&pos), [(KeyState::Pending, "inj_1".to_owned())]);
}
