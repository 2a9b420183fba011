//! A person's signing key in a token.

use std::process::Command;

use countersign_crypto::{Provider, Secret, SecureElement, aws_lc};
use countersign_hsm::{HsmError, Pkcs11Config, RsaUse, SigningToken, TokenName, Vault};
use testkit::pki::TestPki;

use super::refusals::pkcs11_tool;
use super::{LABEL, Step};
use crate::stage::refused;

const KEY: &str = "payments";
const POINT: &str = "point";
const CERTIFICATE: &str = "certificate";

/// Names of trials and their steps, each a process, for every token.
pub(super) const TRIALS: &[(&str, &[&str])] = &[
    ("a signing key signs, stays and goes", &["key-signs", "key-stays", "key-goes"]),
    ("each signing asks for the PIN", &["pin-each-time"]),
    ("a certificate lies beside its key", &["certificate-kept", "certificate-stays"]),
    ("other keys sign no payments", &["other-keys"]),
];

/// The same for a token whose files a process does not hold open.
pub(super) const SOFTHSM: &[(&str, &[&str])] =
    &[("a token may come when it is asked for", &["comes-when-asked"])];

pub(super) fn run(step: &Step) -> bool {
    match step.name.as_str() {
        "key-signs" => key_signs(step),
        "key-stays" => key_stays(step),
        "key-goes" => key_goes(step),
        "pin-each-time" => pin_each_time(step),
        "certificate-kept" => certificate_kept(step),
        "certificate-stays" => certificate_stays(step),
        "other-keys" => other_keys(step),
        "comes-when-asked" => comes_when_asked(step),
        _ => return false,
    }
    true
}

fn provider() -> Provider {
    aws_lc::provider()
}

impl Step {
    fn sign_in(&self) -> Result<SigningToken, HsmError> {
        SigningToken::open(self.config(), &provider())
    }

    fn certificate(&self) -> Option<Vec<u8>> {
        SigningToken::certificate(&self.module, &TokenName::Label(LABEL.into()), KEY).unwrap()
    }
}

fn verifies(key: &dyn SecureElement, message: &[u8]) {
    let mut rng = testkit::rng::seeded(1);
    let signature = key.sign(&mut rng, message).unwrap();
    let public = provider().signature.public_key(key.public_key()).unwrap();
    public.verify(message, &signature).unwrap();
    assert!(public.verify(b"another message", &signature).is_err());
}

fn key_signs(step: &Step) {
    let token = step.sign_in().unwrap();
    assert_eq!(refused(token.key(KEY)), "label-unknown");
    let key = token.generate(KEY).unwrap();
    // Often enough for numbers that begin with zeros, or with a high bit.
    for message in 0..=255_u8 {
        verifies(&*key, &[message]);
    }
    verifies(&*key, b"");
    verifies(&*key, &[7; 5000]);
    assert_eq!(refused(token.generate(KEY)), "label-taken");
    assert_eq!(refused(token.generate("no label")), "label-format");
    let other = token.generate("another").unwrap();
    assert_ne!(other.public_key(), key.public_key());
    std::fs::write(step.folder.join(POINT), key.public_key()).unwrap();
}

fn key_stays(step: &Step) {
    let key = step.sign_in().unwrap().key(KEY).unwrap();
    assert_eq!(key.public_key(), std::fs::read(step.folder.join(POINT)).unwrap());
    verifies(&*key, b"after a restart, and after what opened it is gone");
    // The keys of injection are another kind, under the same labels' one namespace.
    drop(key);
    let vault = step.open().unwrap();
    assert!(vault.labels().unwrap().is_empty());
    assert_eq!(refused(vault.rsa_open(KEY)), "key-kind");
    assert_eq!(refused(vault.rsa_generate(KEY, RsaUse::Sign, 2048)), "label-taken");
    assert_eq!(refused(vault.rsa_delete(KEY)), "key-kind");
}

fn key_goes(step: &Step) {
    let token = step.sign_in().unwrap();
    let certificate = TestPki::new(provider(), 1).root().to_vec();
    token.store_certificate(KEY, &certificate).unwrap();
    token.delete(KEY).unwrap();
    assert_eq!(refused(token.delete(KEY)), "label-unknown");
    assert_eq!(refused(token.key(KEY)), "label-unknown");
    token.key("another").unwrap();
    drop(token);
    assert_eq!(step.certificate(), None);
    let key = step.sign_in().unwrap().generate(KEY).unwrap();
    assert_ne!(key.public_key(), std::fs::read(step.folder.join(POINT)).unwrap());
}

/// A login is a process's: what was signed before, and what is open meanwhile, opens nothing.
fn pin_each_time(step: &Step) {
    let wrong = || Pkcs11Config { pin: Secret::copied_from(b"000000000042"), ..step.config() };
    let open_wrong = || refused(SigningToken::open(wrong(), &provider()));
    assert_eq!(open_wrong(), "pin-wrong");
    let token = step.sign_in().unwrap();
    let key = token.generate(KEY).unwrap();
    assert_eq!(open_wrong(), "token-busy", "the token would not have looked at it");
    assert_eq!(refused(step.sign_in()), "token-busy");
    drop(token);
    assert_eq!(open_wrong(), "token-busy", "the key holds the login");
    verifies(&*key, b"while the key is held");
    drop(key);
    assert_eq!(open_wrong(), "pin-wrong");
    verifies(&*step.sign_in().unwrap().key(KEY).unwrap(), b"with the right one");
    assert_eq!(open_wrong(), "pin-wrong");
    assert_eq!(step.certificate(), None, "public, and no login");
    assert_eq!(open_wrong(), "pin-wrong");
}

fn certificate_kept(step: &Step) {
    let token = step.sign_in().unwrap();
    let [first, second] = [1, 2].map(|seed| TestPki::new(provider(), seed).root().to_vec());
    assert_eq!(refused(token.store_certificate(KEY, &first)), "label-unknown");
    token.generate(KEY).unwrap();
    for bad in [&b""[..], b"no certificate", &first[1..]] {
        assert_eq!(refused(token.store_certificate(KEY, bad)), "certificate");
    }
    assert_eq!(step.certificate(), None);
    token.store_certificate(KEY, &first).unwrap();
    assert_eq!(step.certificate(), Some(first));
    token.store_certificate(KEY, &second).unwrap();
    assert_eq!(step.certificate().as_ref(), Some(&second), "in the place of the other");
    std::fs::write(step.folder.join(CERTIFICATE), second).unwrap();
}

/// Read by a program of another maker, which knows no PIN.
fn certificate_stays(step: &Step) {
    let wanted = std::fs::read(step.folder.join(CERTIFICATE)).unwrap();
    assert_eq!(step.certificate(), Some(wanted.clone()));
    let file = step.folder.join("read.der");
    let mut tool = Command::new("pkcs11-tool");
    tool.arg("--module").arg(&step.module).args(["--token-label", LABEL, "--read-object"]);
    tool.args(["--type", "cert", "--label", KEY, "--output-file"]).arg(&file);
    let output = tool.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read(file).unwrap(), wanted);
    let absent = TokenName::Label("another".into());
    assert_eq!(refused(SigningToken::certificate(&step.module, &absent, KEY)), "token-absent");
}

fn other_keys(step: &Step) {
    let made = |label: &str, kind: &str, more: &[&str]| {
        let words = ["--keypairgen", "--key-type", kind, "--usage-sign", "--label", label];
        pkcs11_tool(step, &[&words[..], more].concat());
    };
    made("p384", "EC:secp384r1", &["--sensitive"]);
    made("rsa", "rsa:2048", &["--sensitive"]);
    made("exposed", "EC:prime256v1", &["--extractable"]);
    let token = step.sign_in().unwrap();
    for (label, check) in [("p384", "key-kind"), ("rsa", "key-kind"), ("exposed", "key-exposed")] {
        assert_eq!(refused(token.key(label)), check, "{label}");
        assert_eq!(refused(token.generate(label)), "label-taken", "{label}");
        assert_eq!(refused(token.delete(label)), check, "{label}: it is not ours to destroy");
    }
    // A good key made elsewhere is as good as one made here.
    drop(token);
    made("elsewhere", "EC:prime256v1", &["--sensitive"]);
    verifies(&*step.sign_in().unwrap().key("elsewhere").unwrap(), b"made by another program");
}

fn comes_when_asked(step: &Step) {
    let away = step.folder.join("away");
    let (take_away, put_back) =
        (|| std::fs::rename(&step.files, &away), || std::fs::rename(&away, &step.files));
    step.sign_in().unwrap().generate(KEY).unwrap();
    for _ in 0..2 {
        take_away().unwrap();
        let gone = refused(step.sign_in());
        assert!(["token-absent", "token-lost"].contains(&gone), "{gone}");
        put_back().unwrap();
        verifies(&*step.sign_in().unwrap().key(KEY).unwrap(), b"it came back");
    }
    // A vault that is open meanwhile goes on.
    let vault = step.open().unwrap();
    vault.rsa_generate("rsa", RsaUse::Sign, 2048).unwrap();
    assert_eq!(refused(step.sign_in()), "token-busy");
    let absent = TokenName::Label("another".into());
    assert_eq!(refused(SigningToken::certificate(&step.module, &absent, KEY)), "token-absent");
    vault.rsa_open("rsa").unwrap().sign(b"x").unwrap();
}
