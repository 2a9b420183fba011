//! OpenSSL's word on our certificates, requests and lists, and ours on its own. It is one of the
//! CI's packages; without it these tests fail.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use countersign_crypto::{Secret, UnixTime};
use tempfile::TempDir;
use tr34::aws_lc::{AwsLc, SoftwareRsaKey};
use tr34::{
    Certificate, CertificateError, Crl, CrlError, Kdh, Krd, Leniency, RequestError, Role,
    parse_foreign_request, parse_request, request,
};

use crate::world::{Holder, NOW, WORLD, crl, party};

/// A folder, and OpenSSL in it.
struct Stage(TempDir);

impl Stage {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).unwrap();
    }

    fn write_pem(&self, name: &str, label: &str, der: &[u8]) {
        self.write(name, pem::encode(&pem::Pem::new(label, der)).as_bytes());
    }

    fn read_pem(&self, name: &str) -> Vec<u8> {
        pem::parse(fs::read(self.path(name)).unwrap()).unwrap().into_contents()
    }

    /// Runs `openssl` with these words, separated by blanks; whether it was content.
    fn try_openssl(&self, words: &str) -> (bool, String) {
        let output = Command::new("openssl")
            .args(words.split_whitespace())
            .current_dir(self.0.path())
            .output()
            .expect("openssl is needed (apt-get install openssl)");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    fn openssl(&self, words: &str) -> String {
        let (content, said) = self.try_openssl(words);
        assert!(content, "openssl {words}: {said}");
        said
    }

    fn refused(&self, words: &str, reason: &str) {
        let (content, said) = self.try_openssl(words);
        assert!(!content && said.contains(reason), "openssl {words}: {said}");
    }

    fn certificate(&self, name: &str, holder: &Holder) {
        self.write_pem(name, "CERTIFICATE", holder.certificate.raw());
    }
}

#[test]
fn openssl_verifies_our_chain_with_its_lists() {
    let stage = Stage::new();
    stage.certificate("root.pem", &WORLD.root);
    stage.certificate("ca.pem", &WORLD.ca_kdh);
    stage.certificate("kdh.pem", &WORLD.kdh);
    stage.certificate("krd-ca.pem", &WORLD.ca_krd);
    stage.certificate("krd.pem", &WORLD.krd);
    let lists = |revoked: &[&Certificate]| {
        let pem = |list: &Crl| pem::encode(&pem::Pem::new("X509 CRL", list.raw()));
        let of_root = crl(&WORLD.root, 1, &[]);
        let of_ca = crl(&WORLD.ca_kdh, 2, revoked);
        stage.write("lists.pem", [pem(&of_root), pem(&of_ca)].concat().as_bytes());
    };
    let at = format!("-attime {} -x509_strict -CAfile root.pem", NOW.as_secs());
    let verify = format!("verify {at} -crl_check_all -CRLfile lists.pem -untrusted ca.pem kdh.pem");
    lists(&[]);
    stage.openssl(&verify);
    lists(&[&WORLD.kdh.certificate]);
    stage.refused(&verify, "certificate revoked");
    stage.openssl(&format!("verify {at} -untrusted krd-ca.pem krd.pem"));
    stage.refused(&format!("verify {at} -untrusted ca.pem krd.pem"), "unable to get local issuer");
}

#[test]
fn openssl_reads_what_we_write() {
    let stage = Stage::new();
    stage.certificate("krd.pem", &WORLD.krd);
    let text = stage.openssl("x509 -in krd.pem -noout -text");
    for words in [
        "Version: 3",
        "Key Encipherment",
        "CA:FALSE",
        "URI:countersign://krd/POS-1",
        "Subject: O = Countersign, OU = krd, CN = POS-1",
        "sha256WithRSAEncryption",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    stage.certificate("ca.pem", &WORLD.ca_krd);
    let text = stage.openssl("x509 -in ca.pem -noout -text");
    assert!(text.contains("CA:TRUE, pathlen:0") && text.contains("Certificate Sign, CRL Sign"));

    let der = request(&WORLD.krd.key, &party(Role::Krd, "POS-1")).unwrap();
    stage.write_pem("krd.csr", "CERTIFICATE REQUEST", &der);
    let text = stage.openssl("req -in krd.csr -noout -verify -text");
    assert!(text.contains("verify OK") && text.contains("URI:countersign://krd/POS-1"), "{text}");

    let list = crl(&WORLD.ca_krd, 258, &[&WORLD.krd.certificate]);
    stage.write_pem("list.pem", "X509 CRL", list.raw());
    let text = stage.openssl("crl -in list.pem -noout -text -CAfile ca.pem -verify");
    let serial: String =
        WORLD.krd.certificate.identity().serial().iter().map(|it| format!("{it:02X}")).collect();
    for words in ["verify OK", "Version 2", "X509v3 CRL Number", "258", serial.as_str()] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

const EXTENSIONS: &str = "
[ca]
basicConstraints=critical,CA:TRUE,pathlen:0
keyUsage=critical,keyCertSign,cRLSign
subjectKeyIdentifier=hash
subjectAltName=URI:countersign://ca-kdh/foreign
[kdh]
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
authorityKeyIdentifier=keyid
subjectAltName=URI:countersign://kdh/kdh-9
[plain]
basicConstraints=CA:FALSE
keyUsage=digitalSignature
[constrained]
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
nameConstraints=critical,permitted;DNS:example.org
";

/// A hierarchy that OpenSSL made: a root that is a CA of KDHs, and its folder.
struct Foreign {
    stage: Stage,
    ca: Certificate,
}

impl Foreign {
    fn new() -> Self {
        let stage = Stage::new();
        stage.write("ext.cnf", EXTENSIONS.as_bytes());
        stage
            .openssl("req -newkey rsa:2048 -nodes -keyout ca.key -subj /O=Other/CN=CA -out ca.csr");
        stage.openssl(
            "x509 -req -in ca.csr -signkey ca.key -days 30 -sha256 -extfile ext.cnf \
             -extensions ca -out ca.pem",
        );
        stage.openssl("req -newkey rsa:2048 -nodes -keyout k.key -subj /O=Other/CN=K-9 -out k.csr");
        let ca = Certificate::parse(&stage.read_pem("ca.pem")).unwrap();
        Self { stage, ca }
    }

    /// A leaf for the key of `k.csr`; `words` say how.
    fn issue(&self, words: &str) -> Vec<u8> {
        self.stage.openssl(&format!(
            "x509 -req -in k.csr -CA ca.pem -CAkey ca.key -set_serial 0x1234 -days 30 -out k.pem \
             {words}"
        ));
        self.stage.read_pem("k.pem")
    }

    fn kdh(&self, words: &str, leniency: Leniency) -> Result<Kdh, CertificateError> {
        let certificate = Certificate::parse_with(&self.issue(words), leniency)?;
        let now = certificate.not_before();
        Kdh::verify(&AwsLc, certificate, &self.ca, now)
    }
}

#[test]
fn certificates_that_openssl_made() {
    let foreign = Foreign::new();
    let now = foreign.ca.not_before();
    foreign.ca.verify_root(&AwsLc, now).unwrap();
    let strict = Leniency::STRICT;
    let kdh = foreign.kdh("-sha256 -extfile ext.cnf -extensions kdh", strict).unwrap();
    assert_eq!(kdh.id(), Some("kdh-9"));
    assert_eq!(kdh.certificate().identity().to_string(), "CN=CA,O=Other, serial 1234");
    let made = kdh.certificate().not_before();
    let wrong = Krd::verify(&AwsLc, kdh.certificate().clone(), &foreign.ca, made);
    assert_eq!(wrong, Err(CertificateError::IssuerRole));
    // The key that OpenSSL made is one of ours too: PKCS#8 from its file.
    let key = Secret::new(foreign.stage.read_pem("k.key"));
    let key = SoftwareRsaKey::from_pkcs8(&key).unwrap();
    assert_eq!(tr34::RsaKey::public_key(&key), kdh.certificate().public_key());

    let plain = "-sha256 -extfile ext.cnf -extensions plain";
    assert_eq!(foreign.kdh(plain, strict), Err(CertificateError::WithoutRole));
    assert_eq!(foreign.kdh(plain, Leniency::FOREIGN).unwrap().id(), None);
    let constrained = "-sha256 -extfile ext.cnf -extensions constrained";
    assert_eq!(foreign.kdh(constrained, strict), Err(CertificateError::CriticalExtension));
    let sha512 = "-sha512 -extfile ext.cnf -extensions kdh";
    assert_eq!(foreign.kdh(sha512, strict), Err(CertificateError::Algorithm));
    let pss = "-sigopt rsa_padding_mode:pss -sha256 -extfile ext.cnf -extensions kdh";
    assert_eq!(foreign.kdh(pss, strict), Err(CertificateError::Algorithm));
    assert_eq!(foreign.kdh("-sha256", Leniency::FOREIGN), Err(CertificateError::Version));
    foreign.stage.openssl("ecparam -name prime256v1 -genkey -noout -out ec.key");
    foreign.stage.openssl("req -new -key ec.key -subj /CN=EC -out k.csr");
    let curve = foreign.kdh("-sha256 -extfile ext.cnf -extensions kdh", strict);
    assert_eq!(curve, Err(CertificateError::Key));
}

#[test]
fn requests_that_openssl_made() {
    let stage = Stage::new();
    let make = |key: &str, words: &str| {
        stage.openssl(&format!(
            "req -new {key} -nodes -keyout r.key -out r.csr -subj /O=Other/CN=POS-9 {words}"
        ));
        stage.read_pem("r.csr")
    };
    let parse = |der: &[u8]| parse_foreign_request(&AwsLc, der, Role::Krd);
    let plain = make("-newkey rsa:2048", "-sha256");
    assert_eq!(parse(&plain).unwrap().party(), &party(Role::Krd, "POS-9"));
    assert_eq!(parse_request(&AwsLc, &plain), Err(RequestError::WithoutParty));
    let named = make("-newkey rsa:3072", "-addext subjectAltName=URI:countersign://krd/POS-10");
    assert_eq!(parse_request(&AwsLc, &named).unwrap().party(), &party(Role::Krd, "POS-10"));

    assert_eq!(parse(&make("-newkey rsa:2048", "-sha1")), Err(RequestError::Algorithm));
    assert_eq!(parse(&make("-newkey rsa:1024", "-sha256")), Err(RequestError::Key));
    let mut changed = plain;
    let last = changed.len() - 1;
    changed[last] ^= 1;
    assert_eq!(parse(&changed), Err(RequestError::ProofOfPossession));
}

const CA_SECTION: &str = "
[ca]
default_ca=here
[here]
database=index.txt
crlnumber=number
default_md=sha256
private_key=ca.key
certificate=ca.pem
[exts]
authorityKeyIdentifier=keyid
[partial]
issuingDistributionPoint=critical,@point
[point]
fullname=URI:http://example.org/list
onlyuser=TRUE
";

#[test]
fn lists_that_openssl_made() {
    let foreign = Foreign::new();
    let stage = &foreign.stage;
    let leaf = Certificate::parse(&foreign.issue("-sha256 -extfile ext.cnf -extensions kdh"));
    let leaf = leaf.unwrap();
    let base = CA_SECTION.replace("crlnumber=number\n", "");
    stage.write("plain.cnf", base.as_bytes());
    stage.write("numbered.cnf", CA_SECTION.as_bytes());
    stage.write("number", b"10\n");
    stage.write("index.txt", b"");
    let now = foreign.ca.not_before();
    let make = |words: &str| {
        stage.openssl(&format!("ca -gencrl -crldays 7 -out list.pem {words}"));
        Crl::parse(&stage.read_pem("list.pem"))
    };
    // The list is made a moment after the CA.
    let soon = |list: &Crl| now.max(list.this_update());
    let verify = |list: &Crl, at: UnixTime| list.verify(&AwsLc, &foreign.ca, at, None);

    let of_version_1 = make("-config plain.cnf").unwrap();
    verify(&of_version_1, soon(&of_version_1)).unwrap();
    assert_eq!(of_version_1.number(), None);
    of_version_1.admits(leaf.identity()).unwrap();
    stage.openssl("ca -config plain.cnf -revoke k.pem -crl_reason keyCompromise");
    let list = make("-config numbered.cnf -crlexts exts").unwrap();
    let seen = verify(&list, soon(&list)).unwrap();
    assert_eq!(seen.number(), Some(0x10.into()));
    assert_eq!(list.admits(leaf.identity()), Err(CrlError::Revoked));
    let next_update = list.next_update().unwrap();
    verify(&list, next_update).unwrap();
    let late = next_update.plus(std::time::Duration::from_secs(1));
    assert_eq!(verify(&list, late), Err(CrlError::Expired));
    let early = list.this_update().minus(std::time::Duration::from_secs(1));
    // A second before it the CA may not be valid either.
    assert!(matches!(verify(&list, early), Err(CrlError::NotYetValid | CrlError::IssuerTime)));
    assert_eq!(list.verify(&AwsLc, &WORLD.ca_kdh.certificate, NOW, None), Err(CrlError::Issuer));

    assert_eq!(make("-config plain.cnf -md sha384"), Err(CrlError::Algorithm));
    let partial = make("-config numbered.cnf -crlexts partial");
    assert_eq!(partial, Err(CrlError::CriticalExtension));
    let mut changed = list.raw().to_vec();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    let changed = Crl::parse(&changed).unwrap();
    assert_eq!(verify(&changed, soon(&list)), Err(CrlError::Signature));
}
