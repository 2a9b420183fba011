//! OpenSSL's word on our tokens, and ours on its own. It is one of the CI's packages; without it
//! these tests fail.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::fixture::{
    CIPHERS, CRL, Holder, NOW, WORLD, asked, policy, prepared, receiver, sender, tdes_key,
};
use crate::krd::{Policy, Receiver, State};
use crate::reader::{Walker, tag, tlv};
use crate::token::algorithm::ID_ENVELOPED_DATA;
use crate::token::{ContentCipher, CtKrd, Enveloped, KeyBlock};
use crate::{Dialect, Leniency, Observed, SignatureName, aws_lc::AwsLc, kdh};

/// A folder with the hierarchy in it, and OpenSSL.
struct Stage(TempDir);

impl Stage {
    fn new() -> Self {
        let stage = Self(tempfile::tempdir().unwrap());
        for (name, holder) in [
            ("root", &WORLD.root),
            ("ca-kdh", &WORLD.ca_kdh),
            ("ca-krd", &WORLD.ca_krd),
            ("kdh", &WORLD.kdh),
            ("krd", &WORLD.krd),
        ] {
            stage.holder(name, holder);
        }
        stage.pem("crl.pem", "X509 CRL", &CRL);
        let trusted = ["root.pem", "ca-kdh.pem", "ca-krd.pem"].map(|name| stage.read(name));
        stage.write("trusted.pem", &trusted.concat());
        stage
    }

    fn holder(&self, name: &str, holder: &Holder) {
        self.pem(&format!("{name}.pem"), "CERTIFICATE", holder.certificate.raw());
        let key = holder.key.to_pkcs8();
        self.pem(&format!("{name}.key"), "PRIVATE KEY", key.expose());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    fn pem(&self, name: &str, label: &str, der: &[u8]) {
        self.write(name, pem::encode(&pem::Pem::new(label, der)).as_bytes());
    }

    /// Runs `openssl` with these words, separated by blanks; whether it was content.
    fn run(&self, words: &str) -> (bool, String) {
        let output = Command::new("openssl")
            .args(words.split_whitespace())
            .current_dir(self.0.path())
            .output()
            .expect("openssl is needed (apt-get install openssl)");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    fn openssl(&self, words: &str) -> String {
        let (content, said) = self.run(words);
        assert!(content, "openssl {words}: {said}");
        said
    }

    /// What OpenSSL says to a token of the KDH: its signature, digest and chain.
    fn verify(&self, token: &[u8]) -> (bool, String) {
        self.write("token.der", token);
        self.run(&format!(
            "cms -verify -binary -inform DER -in token.der -out content.der -certfile kdh.pem \
             -CAfile trusted.pem -attime {} -purpose any",
            NOW.as_secs()
        ))
    }
}

/// Opens `envelope.der` into `block.der`.
const DECRYPT: &str = "cms -decrypt -binary -inform DER -in envelope.der -recip krd.pem \
                       -inkey krd.key -out block.der";

/// A ContentInfo of this type.
fn info(content_type: &[u8], content: &[u8]) -> Vec<u8> {
    tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[content_type]), &tlv(0xa0, &[content])])
}

#[test]
fn openssl_verifies_and_opens_a_strict_key_token() {
    let stage = Stage::new();
    let (state, freshness) = asked(&receiver(Policy::STRICT));
    let token = prepared(Dialect::STRICT, &freshness).sign(&WORLD.kdh.key).unwrap();
    receiver(Policy::STRICT).receive(&state, &token, NOW).unwrap();
    let (content, said) = stage.verify(&token);
    assert!(content && said.contains("CMS Verification successful"), "{said}");

    let printed = stage.openssl("cms -cmsout -print -noout -inform DER -in token.der");
    for wanted in [
        "contentType: pkcs7-signedData",
        "version: 3",
        "eContentType: pkcs7-envelopedData",
        "object: contentType (1.2.840.113549.1.9.3)",
        "object: messageDigest (1.2.840.113549.1.9.4)",
        "object: undefined (1.2.840.113549.1.9.25.3)",
        "object: pkcs7-data (1.2.840.113549.1.7.1)",
        "algorithm: sha256WithRSAEncryption",
        "d.crl",
    ] {
        assert!(printed.contains(wanted), "{wanted} is missing in\n{printed}");
    }

    // What was signed is an EnvelopedData that OpenSSL opens with the terminal's key.
    stage.write("envelope.der", &info(ID_ENVELOPED_DATA, &stage.read("content.der")));
    let printed = stage.openssl("cms -cmsout -print -noout -inform DER -in envelope.der");
    for wanted in ["d.ktri", "rsaesOaep", "des-ede3-cbc"] {
        assert!(printed.contains(wanted), "{wanted} is missing in\n{printed}");
    }
    stage.openssl(DECRYPT);
    let text = countersign_crypto::Secret::new(stage.read("block.der"));
    let block = KeyBlock::parse(&text, &mut Observed::default()).unwrap();
    assert!(block.key.ct_eq(tdes_key().expose()));
    let structure = stage.openssl("asn1parse -inform DER -in block.der");
    assert!(structure.contains("INTEGER           :00"), "{structure}");
}

/// What OpenSSL 3.0 accepts of each dialect: every signature, since it too takes attributes as they
/// arrived; of the envelopes it reads those that are CMS and opens the strict one.
#[test]
fn openssl_takes_of_the_dialects_what_is_cms() {
    let stage = Stage::new();
    for (name, dialect) in Dialect::NAMED {
        let (_, freshness) = asked(&receiver(policy(dialect)));
        let token = prepared(dialect, &freshness).sign(&WORLD.kdh.key).unwrap();
        let (content, said) = stage.verify(&token);
        assert!(content, "{name}: {said}");
        stage.openssl("asn1parse -inform DER -in token.der");
        stage.write("envelope.der", &info(ID_ENVELOPED_DATA, &stage.read("content.der")));
        let (read, _) = stage.run("cms -cmsout -print -noout -inform DER -in envelope.der");
        let cms = matches!(dialect, Dialect::STRICT | Dialect::ERRATA_2019);
        assert_eq!(read, cms, "{name}");
        stage.write("block.der", &[]);
        stage.run(DECRYPT);
        let block = stage.read("block.der");
        let opened = block.windows(24).any(|octets| octets == tdes_key().expose());
        // Untagged parameters are none to it: then it opens with SHA-1, to nothing.
        assert_eq!(opened, dialect == Dialect::STRICT, "{name}");
    }
}

#[test]
fn openssl_refuses_our_token_with_one_octet_changed() {
    let stage = Stage::new();
    let (_, freshness) = asked(&receiver(Policy::STRICT));
    let token = prepared(Dialect::STRICT, &freshness).sign(&WORLD.kdh.key).unwrap();
    for (from_end, reason) in [(1, "signature"), (300, "")] {
        let mut altered = token.clone();
        let at = altered.len() - from_end;
        altered[at] ^= 1;
        let (content, said) = stage.verify(&altered);
        assert!(!content && said.contains(reason), "{from_end}: {said}");
    }
}

#[test]
fn openssl_reads_credentials_and_we_read_its() {
    let stage = Stage::new();
    stage.write("token.der", &sender(Dialect::STRICT).credential());
    let printed = stage.openssl("pkcs7 -inform DER -in token.der -print_certs");
    assert!(printed.contains("BEGIN CERTIFICATE") && printed.contains("BEGIN X509 CRL"));
    stage.openssl("crl2pkcs7 -in crl.pem -certfile kdh.pem -outform DER -out ct-kdh.der");
    let token = stage.read("ct-kdh.der");
    let bound = receiver(Policy::STRICT).bind(&State::default(), &token, NOW).unwrap();
    assert_eq!(bound.kdh(), Some(&WORLD.kdh.certificate));
    stage.openssl("crl2pkcs7 -nocrl -certfile krd.pem -outform DER -out ct-krd.der");
    let token = stage.read("ct-krd.der");
    let ca = &WORLD.ca_krd.certificate;
    let krd = kdh::receiver(&AwsLc, &token, ca, None, Leniency::STRICT, NOW).unwrap();
    assert_eq!(krd.id(), Some("POS-1"));
    assert_eq!(CtKrd::parse(&token).unwrap().certificate, WORLD.krd.certificate.raw());
}

/// `UBT_CA` is the one signed token that OpenSSL's program can make: it has no attributes.
#[test]
fn we_take_an_unbind_token_that_openssl_signed() {
    let stage = Stage::new();
    let identity = |holder: &Holder| holder.certificate.identity().as_der().to_vec();
    stage.write("content", &[identity(&WORLD.krd), identity(&WORLD.kdh)].concat());
    stage.openssl(
        "cms -sign -binary -nodetach -noattr -nocerts -md sha256 -signer ca-krd.pem \
         -inkey ca-krd.key -in content -outform DER -out ubt.der",
    );
    // It names the algorithm as the samples do.
    let dialect = Dialect { signature: SignatureName::RsaEncryption, ..Dialect::STRICT };
    let policy = Policy { ca_unbind: true, ..policy(dialect) };
    let receiver = Receiver { policy, ..receiver(policy) };
    let (state, _) = asked(&receiver);
    let mut token = stage.read("ubt.der");
    assert_eq!(receiver.unbind_by_ca(&state, &token, NOW).unwrap().kdh(), None);
    let last = token.len() - 1;
    token[last] ^= 1;
    let refused = receiver.unbind_by_ca(&state, &token, NOW).unwrap_err();
    assert_eq!(refused.check(), "token-signature");
}

#[test]
fn we_open_an_envelope_that_openssl_made() {
    let stage = Stage::new();
    let kdh = WORLD.kdh.certificate.identity();
    let block = KeyBlock::encode(kdh, &tdes_key(), b"B0016K0TB00S0000", &Dialect::STRICT);
    stage.write("block.der", &block);
    for (name, cipher) in [("des3", ContentCipher::Tdes), ("aes128", ContentCipher::Aes128)] {
        stage.openssl(&format!(
            "cms -encrypt -binary -{name} -in block.der -outform DER -out envelope.der \
             -recip krd.pem -keyopt rsa_padding_mode:oaep -keyopt rsa_oaep_md:sha256 \
             -keyopt rsa_mgf1_md:sha256",
        ));
        let der = stage.read("envelope.der");
        let mut inside = Walker::single(&der, tag::SEQUENCE).unwrap().inside().unwrap();
        assert_eq!(inside.any().unwrap().content, ID_ENVELOPED_DATA);
        let mut observed = Observed::default();
        let enveloped = Enveloped::parse(inside.any().unwrap().content, &mut observed).unwrap();
        assert_eq!(enveloped.cipher, cipher);
        assert_eq!(enveloped.recipient, *WORLD.krd.certificate.identity());
        assert_eq!(observed.fits(), ["strict"]);
        let opened = enveloped.open(&WORLD.krd.key, &CIPHERS).unwrap();
        assert_eq!(opened.text.expose(), &block[..]);
    }
}
