//! Another implementation's word on our certificates and requests, and ours on its own: OpenSSL,
//! for both suites. It is one of the CI's packages; without it these tests fail.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use countersign_crypto::{Provider, SoftwareKey, Suite, UnixTime, provider_of};
use countersign_pki::{
    CertificateNumber, Identity, Issuer, PkiError, Prepared, Role, TrustStore, Usage, Validity,
    encryption_request, not_after, parse_request, request, self_signed,
};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(86_400);
/// When our certificates are made; OpenSSL is told to verify them then.
const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
/// The distinguishing id of documents.
const ID: &str = "1234567812345678";

/// A suite, a folder, and OpenSSL in it.
struct Stage {
    provider: Provider,
    rng: ChaCha20Rng,
    dir: TempDir,
    /// What names the signature's digest, when OpenSSL signs.
    digest: &'static str,
    /// Whether signatures have a distinguishing id.
    has_id: bool,
}

impl Stage {
    fn all() -> Vec<Self> {
        let suites =
            [(Suite::X25519_P256_AES128GCM_SHA256, "-sha256"), (Suite::SM2_SM4GCM_SM3, "-sm3")];
        let stage = |(suite, digest)| Self {
            provider: provider_of(suite).unwrap(),
            rng: ChaCha20Rng::seed_from_u64(40),
            dir: tempfile::tempdir().unwrap(),
            digest,
            has_id: suite == Suite::SM2_SM4GCM_SM3,
        };
        suites.map(stage).into()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The option for the distinguishing id, where there is one.
    fn id(&self, option: &str, id: &str) -> String {
        if self.has_id { format!("{option} distid:{id}") } else { String::new() }
    }

    /// Runs `openssl` with these words, separated by blanks; whether it was content.
    fn try_openssl(&self, words: &str) -> (bool, String) {
        let output = Command::new("openssl")
            .args(words.split_whitespace())
            .current_dir(self.dir.path())
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

    fn key(&mut self) -> SoftwareKey {
        self.provider.signature.generate(&mut self.rng).unwrap()
    }

    fn number(&mut self) -> CertificateNumber {
        CertificateNumber::random(&mut self.rng)
    }

    fn sign(&mut self, prepared: Prepared, key: &SoftwareKey) -> Vec<u8> {
        prepared.sign(&*key.key, &mut self.rng).unwrap()
    }

    /// Writes a certificate as PEM.
    fn write(&self, name: &str, der: &[u8]) {
        fs::write(self.path("in.der"), der).unwrap();
        self.openssl(&format!("x509 -inform DER -in in.der -out {name}"));
    }

    /// Writes the root and the issuing certificate; gives both, and the latter's key.
    fn tree(&mut self) -> (Vec<u8>, Vec<u8>, SoftwareKey) {
        let (root_key, issuer_key) = (self.key(), self.key());
        let validity = Validity::from(NOW, 30 * DAY);
        let (number, point) = (self.number(), root_key.key.public_key());
        let root = self_signed(&self.provider, "Root", point, number, validity).unwrap();
        let root = self.sign(root, &root_key);
        let (number, point) = (self.number(), issuer_key.key.public_key());
        let prepared = Issuer::from_certificate(&self.provider, &root)
            .unwrap()
            .prepare_intermediate("Devices", point, number, validity)
            .unwrap();
        let issuer = self.sign(prepared, &root_key);
        self.write("root.pem", &root);
        self.write("issuer.pem", &issuer);
        (root, issuer, issuer_key)
    }

    /// Prepares and signs a leaf of a request's own usage.
    fn leaf(&mut self, csr: &[u8], issuer: &[u8], issuer_key: &SoftwareKey) -> Vec<u8> {
        let requested = parse_request(&self.provider, csr).unwrap();
        let issuer = Issuer::from_certificate(&self.provider, issuer).unwrap();
        let validity = Validity::from(NOW, DAY);
        let number = self.number();
        let prepared = match requested.usage() {
            Usage::Signing => issuer.prepare(&requested, Role::Reader, number, validity),
            Usage::Encryption => {
                issuer.prepare_encryption(&requested, Role::Reader, number, validity)
            }
        };
        self.sign(prepared.unwrap(), issuer_key)
    }

    /// Whether OpenSSL takes the chain from root to leaf, under this distinguishing id.
    ///
    /// OpenSSL 3.0 gives `-vfyopt`'s id to the one certificate on its command line, and none to the
    /// others of the chain: where there is an id it is asked about one link after the other.
    fn chain_verifies(&self, id: &str, leaf: &str) -> bool {
        let links = if self.has_id {
            vec![
                "-CAfile root.pem issuer.pem".to_owned(),
                format!("-partial_chain -CAfile issuer.pem {leaf}"),
            ]
        } else {
            vec![format!("-CAfile root.pem -untrusted issuer.pem {leaf}")]
        };
        let (id, at) = (self.id("-vfyopt", id), NOW.as_secs());
        let options = format!("-x509_strict -no-CApath -no-CAstore -attime {at} {id}");
        links.into_iter().all(|link| self.try_openssl(&format!("verify {options} {link}")).0)
    }

    /// Whether OpenSSL takes `request.der`. It says so in words; 3.0 ends with 0 all the same.
    fn request_verifies(&self, id: &str) -> bool {
        let id = self.id("-vfyopt", id);
        let words = "req -verify -noout -inform DER -in request.der";
        self.try_openssl(&format!("{words} {id}")).1.contains("verify OK")
    }
}

fn identity() -> Identity {
    Identity::new(Role::Reader, "RD-1").unwrap()
}

#[test]
fn openssl_verifies_our_chain_from_root_to_leaf() {
    for mut stage in Stage::all() {
        let (_, issuer, issuer_key) = stage.tree();
        let key = stage.key();
        let csr = request(&stage.provider, &identity(), &*key.key, &mut stage.rng).unwrap();
        let leaf = stage.leaf(&csr, &issuer, &issuer_key);
        stage.write("leaf.pem", &leaf);
        assert!(stage.chain_verifies(ID, "leaf.pem"));
        if stage.has_id {
            assert!(!stage.chain_verifies("another", "leaf.pem"));
        }
        let mut torn = leaf;
        *torn.last_mut().unwrap() ^= 1;
        stage.write("torn.pem", &torn);
        assert!(!stage.chain_verifies(ID, "torn.pem"), "another signature");
        let text = stage.openssl("x509 -in leaf.pem -noout -text");
        for wanted in ["URI:countersign://reader/RD-1", "CA:FALSE", "Digital Signature\n"] {
            assert!(text.contains(wanted), "{wanted} is missing in\n{text}");
        }
        let mut torn = issuer;
        *torn.last_mut().unwrap() ^= 1;
        stage.write("issuer.pem", &torn);
        assert!(!stage.chain_verifies(ID, "leaf.pem"), "another signature of the root");
    }
}

#[test]
fn openssl_verifies_our_encryption_certificate() {
    for mut stage in Stage::all() {
        let (root, issuer, issuer_key) = stage.tree();
        let key = stage.key();
        let csr = encryption_request(&stage.provider, &identity(), &*key.key, &mut stage.rng);
        let leaf = stage.leaf(&csr.unwrap(), &issuer, &issuer_key);
        stage.write("leaf.pem", &leaf);
        assert!(stage.chain_verifies(ID, "leaf.pem"));
        let text = stage.openssl("x509 -in leaf.pem -noout -text");
        let usage = "Key Encipherment, Data Encipherment, Key Agreement\n";
        assert!(text.contains(usage), "{text}");
        let mut trust = TrustStore::new(stage.provider.clone());
        trust.trust(&root, &issuer, Role::Reader, NOW).unwrap();
        let ours = trust.verify_encryption(&leaf, Role::Reader, NOW, None).unwrap();
        let opener = stage.provider.sealing.load_pkcs8(&key.pkcs8).unwrap();
        assert_eq!(opener.public_key(), ours.point());
        // What OpenSSL encrypts to the certificate, its key opens; its tool encrypts to no P-256
        // key (HPKE with AWS-LC: core/crypto/tests/suites/hpke.rs).
        if stage.provider.encryption.is_none() {
            continue;
        }
        fs::write(stage.path("text"), b"contribution").unwrap();
        stage.openssl("x509 -in leaf.pem -noout -pubkey -out public.pem");
        stage.openssl("pkeyutl -encrypt -pubin -inkey public.pem -in text -out sealed");
        let text = opener.decrypt(&fs::read(stage.path("sealed")).unwrap()).unwrap();
        assert_eq!(text.expose(), b"contribution");
    }
}

#[test]
fn openssl_verifies_our_requests() {
    for mut stage in Stage::all() {
        let key = stage.key();
        let Stage { provider, rng, .. } = &mut stage;
        let requests = [
            request(provider, &identity(), &*key.key, rng).unwrap(),
            encryption_request(provider, &identity(), &*key.key, rng).unwrap(),
        ];
        for csr in requests {
            fs::write(stage.path("request.der"), &csr).unwrap();
            assert!(stage.request_verifies(ID));
            if stage.has_id {
                assert!(!stage.request_verifies("another"));
            }
            let mut torn = csr;
            *torn.last_mut().unwrap() ^= 1;
            fs::write(stage.path("request.der"), &torn).unwrap();
            assert!(!stage.request_verifies(ID), "another signature");
        }
    }
}

/// The extensions that OpenSSL is to write.
const EXTENSIONS: &str = "
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[request]
subjectAltName = URI:countersign://reader/RD-1
keyUsage = digitalSignature
[encryption_request]
subjectAltName = URI:countersign://reader/RD-1
keyUsage = keyEncipherment,dataEncipherment,keyAgreement
[leaf]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = URI:countersign://reader/RD-1
[encryption_leaf]
basicConstraints = critical,CA:FALSE
keyUsage = critical,keyEncipherment,dataEncipherment,keyAgreement
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = URI:countersign://reader/RD-1
";

impl Stage {
    /// OpenSSL makes a key, and a request with the extensions of a section.
    fn their_request(&self, name: &str, subject: &str, section: &str) -> Vec<u8> {
        fs::write(self.path("openssl.cnf"), EXTENSIONS).unwrap();
        let curve = if self.has_id { "SM2" } else { "EC -pkeyopt ec_paramgen_curve:P-256" };
        self.openssl(&format!("genpkey -algorithm {curve} -out {name}.key"));
        let (digest, id) = (self.digest, self.id("-sigopt", ID));
        self.openssl(&format!(
            "req -new -config openssl.cnf -key {name}.key {digest} {id} -subj {subject}
             -reqexts {section} -outform DER -out {name}.csr"
        ));
        fs::read(self.path(&format!("{name}.csr"))).unwrap()
    }

    /// OpenSSL makes a certificate of its own request; `signer` says with which key.
    fn their_certificate(&self, name: &str, section: &str, signer: &str) -> Vec<u8> {
        let (digest, sign, vfy) = (self.digest, self.id("-sigopt", ID), self.id("-vfyopt", ID));
        self.openssl(&format!(
            "x509 -req -inform DER -in {name}.csr {digest} {sign} {vfy} {signer} -days 1
             -extfile openssl.cnf -extensions {section} -out {name}.pem"
        ));
        self.openssl(&format!("x509 -in {name}.pem -outform DER -out {name}.der"));
        fs::read(self.path(&format!("{name}.der"))).unwrap()
    }
}

#[test]
fn we_verify_the_requests_of_openssl() {
    for mut stage in Stage::all() {
        let (_, issuer, issuer_key) = stage.tree();
        let usages = [("request", Usage::Signing), ("encryption_request", Usage::Encryption)];
        for (section, usage) in usages {
            let csr = stage.their_request("leaf", "/CN=RD-1", section);
            let requested = parse_request(&stage.provider, &csr).unwrap();
            assert_eq!((requested.identity(), requested.usage()), (&identity(), usage));
            let leaf = stage.leaf(&csr, &issuer, &issuer_key);
            stage.write("leaf.pem", &leaf);
            assert!(stage.chain_verifies(ID, "leaf.pem"));
            let mut torn = csr;
            *torn.last_mut().unwrap() ^= 1;
            let error = parse_request(&stage.provider, &torn).err();
            assert_eq!(error, Some(PkiError::BadProofOfPossession));
        }
    }
}

#[test]
fn we_verify_the_certificates_of_openssl() {
    for stage in Stage::all() {
        for name in ["root", "issuer"] {
            stage.their_request(name, &format!("/CN={name}"), "ca");
        }
        let root = stage.their_certificate("root", "ca", "-signkey root.key");
        let by_root = "-CA root.pem -CAkey root.key -CAcreateserial";
        let issuer = stage.their_certificate("issuer", "ca", by_root);
        let now = not_after(&root).unwrap().minus(DAY / 2);
        let mut trust = TrustStore::new(stage.provider.clone());
        trust.trust(&root, &issuer, Role::Reader, now).unwrap();
        let by_issuer = "-CA issuer.pem -CAkey issuer.key -CAcreateserial";
        stage.their_request("leaf", "/CN=RD-1", "request");
        let leaf = stage.their_certificate("leaf", "leaf", by_issuer);
        let verified = trust.verify(&leaf, Role::Reader, now, None).unwrap();
        assert_eq!(verified.identity(), &identity());
        let mut torn = leaf;
        *torn.last_mut().unwrap() ^= 1;
        let error = trust.verify(&torn, Role::Reader, now, None).err();
        assert_eq!(error, Some(PkiError::BadSignature));
        let encryption = stage.their_certificate("leaf", "encryption_leaf", by_issuer);
        let error = trust.verify(&encryption, Role::Reader, now, None).err();
        assert_eq!(error, Some(PkiError::WrongUsage));
        let verified = trust.verify_encryption(&encryption, Role::Reader, now, None);
        assert_eq!(verified.unwrap().identity(), &identity());
    }
}
