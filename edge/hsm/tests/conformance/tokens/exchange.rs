//! A whole injection between two tokens: the hierarchy and the database's key in SoftHSM2, the
//! terminal's keys in kryoptic.

use std::sync::Arc;
use std::time::Duration;

use countersign_crypto::{Secret, UnixTime};
use countersign_hsm::{Pkcs11Config, RsaUse, Vault};
use tr31::{Header, Kbpk, Leniency, Padding, Version};
use tr34::token::{ContentCipher, CtKrd, Freshness, RtKrd};
use tr34::{
    Certificate, CrlTerms, Dialect, Issuer, Krd, Party, Role, RsaKey, Validity, kdh, krd,
    parse_request, prepare_root, request,
};

use super::Step;

const RSA: tr34::aws_lc::AwsLc = tr34::aws_lc::AwsLc;
const CIPHERS: tr31::aws_lc::AwsLc = tr31::aws_lc::AwsLc;
/// 2027-01-15.
const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
/// The note in which the terminal's key block stays.
const SLOT: &str = "slot";
const KCV: &str = "kcv";

struct Holder {
    certificate: Certificate,
    key: Arc<dyn RsaKey>,
}

/// Issues a certificate for a key of a token, which proves its possession.
fn issue(above: &Holder, key: Arc<dyn RsaKey>, role: Role, id: &str) -> Holder {
    let asked = request(&*key, &Party::new(role, id).unwrap()).unwrap();
    let requested = parse_request(&RSA, &asked).unwrap();
    let issuer = Issuer::new(above.certificate.clone()).unwrap();
    let mut rng = testkit::rng::seeded(id.len() as u64);
    let validity = Validity::from(NOW, YEAR).within(&above.certificate);
    let prepared = issuer.prepare(&RSA, &requested, role, &mut rng, validity).unwrap();
    let certificate = prepared.sign(&RSA, &*above.key).unwrap();
    Holder { certificate: Certificate::parse(&certificate).unwrap(), key }
}

struct Server {
    ca_kdh: Holder,
    ca_krd: Holder,
    kdh: Holder,
    crl: Vec<u8>,
}

/// The hierarchy, every key of it in the token (`rki init`).
fn hierarchy(vault: &dyn Vault) -> Server {
    let key = |label| vault.rsa_generate(label, RsaUse::Sign, 2048).unwrap();
    let root = key("root");
    let mut rng = testkit::rng::seeded(1);
    let validity = Validity::from(NOW, YEAR * 10);
    let prepared = prepare_root(&RSA, "Test", root.public_key(), &mut rng, validity).unwrap();
    let certificate = Certificate::parse(&prepared.sign(&RSA, &*root).unwrap()).unwrap();
    let root = Holder { certificate, key: root };
    let ca_kdh = issue(&root, key("ca-kdh"), Role::CaKdh, "kdh-g1");
    let ca_krd = issue(&root, key("ca-krd"), Role::CaKrd, "krd-g1");
    let kdh = issue(&ca_kdh, key("kdh"), Role::Kdh, "kdh-1");
    let terms = CrlTerms { number: 1, this_update: NOW, next_update: NOW.plus(YEAR) };
    let prepared = Issuer::new(ca_kdh.certificate.clone()).unwrap().prepare_crl(terms, &[]);
    let crl = prepared.unwrap().sign(&RSA, &*ca_kdh.key).unwrap();
    Server { ca_kdh, ca_krd, kdh, crl }
}

/// E1 to E7, without the channel. `step.files` is the server's module.
pub(super) fn inject(step: &Step) {
    let server_module = Pkcs11Config { module: step.files.clone(), ..step.config() };
    let (safe, element) = (step.open_with(server_module).unwrap(), step.open().unwrap());
    let server = hierarchy(&safe);
    let krd_key = element.rsa_generate("krd", RsaUse::SignAndDecrypt, 3072).unwrap();
    let terminal = issue(&server.ca_krd, krd_key, Role::Krd, "POS-1");

    // E4: the server's key is in its database as a block under the token's storage key.
    let storage = safe.storage_key("storage").unwrap();
    let mut header = Header::new(Version::D, *b"K1", b'A', b'D', b'N');
    let key = safe.random(16).unwrap();
    let mut rng = testkit::rng::seeded(2);
    let kept = wrap(&*storage, &header, &key);
    let opened = tr31::unwrap(&CIPHERS, Kbpk::Held(&*storage), kept.as_bytes(), Leniency::NONE);
    let key = opened.unwrap().key;

    // E2, E3: binding and request.
    let receiver = krd::Receiver {
        rsa: &RSA,
        ciphers: &CIPHERS,
        key: &*terminal.key,
        certificate: &terminal.certificate,
        kdh_cas: std::slice::from_ref(&server.ca_kdh.certificate),
        krd_ca: &server.ca_krd.certificate,
        policy: krd::Policy::STRICT,
    };
    let sender = kdh::Sender {
        rsa: &RSA,
        ciphers: &CIPHERS,
        certificate: &server.kdh.certificate,
        crl: Some(&server.crl),
        dialect: Dialect::STRICT,
        weaker_wrapping: false,
    };
    let ct_krd = CtKrd { certificate: terminal.certificate.raw() }.encode();
    let state = receiver.bind(&krd::State::default(), &sender.credential(), NOW).unwrap();
    let (rt_krd, state) = receiver.request(&state, &mut rng, NOW).unwrap();

    // E5: the token, signed in SoftHSM2.
    let ca = &server.ca_krd.certificate;
    let krd: Krd = kdh::receiver(&RSA, &ct_krd, ca, None, tr34::Leniency::STRICT, NOW).unwrap();
    let order = kdh::KeyOrder {
        krd: &krd,
        freshness: &Freshness::TwoPass(RtKrd::parse(&rt_krd).unwrap().nonce),
        cipher: ContentCipher::Aes128,
        header: &header,
        key: &key,
    };
    let kt_kdh = sender.key_token(&mut rng, &order).unwrap().sign(&*server.kdh.key).unwrap();

    // E6, E7: opened in kryoptic, installed under the terminal's own storage key.
    let mut altered = kt_kdh.clone();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    assert!(receiver.receive(&state, &altered, NOW).is_err());
    let installed = receiver.receive(&state, &kt_kdh, NOW).unwrap().install();
    assert!(installed.key.ct_eq(key.expose()));
    header = installed.header;
    header.version = Version::D;
    let own = element.storage_key("storage").unwrap();
    std::fs::write(step.folder.join(SLOT), wrap(&*own, &header, &installed.key)).unwrap();
    let kcv = installed.kcv.unwrap().to_string();
    std::fs::write(step.folder.join(KCV), &kcv).unwrap();
}

fn wrap(storage: &dyn tr31::CmacKey, header: &Header, key: &Secret) -> String {
    let mut rng = testkit::rng::seeded(3);
    let padding = Padding::Random(&mut rng);
    tr31::wrap(&CIPHERS, Kbpk::Held(storage), header, key, padding, Leniency::NONE).unwrap()
}

/// The terminal after a restart: its key is there, under the same storage key only.
pub(super) fn after_restart(step: &Step) {
    let element = step.open().unwrap();
    let block = std::fs::read(step.folder.join(SLOT)).unwrap();
    let own = element.storage_key("storage").unwrap();
    let opened = tr31::unwrap(&CIPHERS, Kbpk::Held(&*own), &block, Leniency::NONE).unwrap();
    assert_eq!(opened.key.len(), 16);
    let server_module = Pkcs11Config { module: step.files.clone(), ..step.config() };
    let theirs = step.open_with(server_module).unwrap().storage_key("storage").unwrap();
    let stolen = tr31::unwrap(&CIPHERS, Kbpk::Held(&*theirs), &block, Leniency::NONE);
    assert_eq!(stolen.err().map(|error| error.check()), Some("mac"));
    element.rsa_open("krd").unwrap();
}
