//! `countersign tr34`: tokens by hand, from files as people have them.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_net::{Clock, SystemClock, SystemRng};
use libtest_mimic::Failed;
use serde_json::Value;
use tr34::aws_lc::{AwsLc, SoftwareRsaKey};
use tr34::{
    Certificate, CrlTerms, Issuer, Party, Revocation, Role, RsaKey, Validity, parse_request,
    prepare_root, request,
};

use crate::Alone;
use crate::host::{Ended, Host, command};

pub(crate) const TRIALS: [(&str, Alone); 5] = [
    ("tr34_makes_verifies_and_unwraps", makes_verifies_and_unwraps),
    ("tr34_tells_what_a_token_is", tells_what_a_token_is),
    ("tr34_names_each_refusal", names_each_refusal),
    ("tr34_unbinds_and_rebinds", unbinds_and_rebinds),
    ("tr34_reads_every_form_and_names_wrong_words", reads_every_form_and_names_wrong_words),
];

const DAY: Duration = Duration::from_secs(86_400);
const NONCE: &str = "00112233445566778899AABBCCDDEEFF";
const KEY: &str = "0123456789ABCDEFFEDCBA98765432101032547698BADCFE";
const HEADER: &str = "B0016K0TB00S0000";

/// A hierarchy in files: root, ca-kdh, ca-krd, kdh, kdh-2, krd, krd-2, with keys, and crl.pem.
struct Files(Host);

struct Holder {
    certificate: Certificate,
    key: SoftwareRsaKey,
}

impl Files {
    fn new() -> Result<Self, Failed> {
        let files = Self(Host::new()?);
        let now = SystemClock::default().now();
        let key = SoftwareRsaKey::generate(2048)?;
        let validity = Validity::from(now, DAY * 30);
        let rng = &mut SystemRng::default();
        let der =
            prepare_root(&AwsLc, "Test", key.public_key(), rng, validity)?.sign(&AwsLc, &key)?;
        let root = Holder { certificate: Certificate::parse(&der)?, key };
        let ca_kdh = files.issue(&root, "ca-kdh", Role::CaKdh, now)?;
        let ca_krd = files.issue(&root, "ca-krd", Role::CaKrd, now)?;
        let kdh = files.issue(&ca_kdh, "kdh", Role::Kdh, now)?;
        files.issue(&ca_kdh, "kdh-2", Role::Kdh, now)?;
        files.issue(&ca_krd, "krd", Role::Krd, now)?;
        files.issue(&ca_krd, "krd-2", Role::Krd, now)?;
        files.list("crl.pem", &ca_kdh, now, &[])?;
        files.list("revoked.pem", &ca_kdh, now, &[&kdh.certificate])?;
        files.list("other.pem", &ca_krd, now, &[])?;
        std::fs::write(files.0.path("key.hex"), KEY)?;
        Ok(files)
    }

    fn issue(
        &self,
        above: &Holder,
        name: &str,
        role: Role,
        now: UnixTime,
    ) -> Result<Holder, Failed> {
        let key = SoftwareRsaKey::generate(2048)?;
        let requested = parse_request(&AwsLc, &request(&key, &Party::new(role, name)?)?)?;
        let validity = Validity::from(now, DAY * 20).within(&above.certificate);
        let rng = &mut SystemRng::default();
        let issuer = Issuer::new(above.certificate.clone())?;
        let prepared = issuer.prepare(&AwsLc, &requested, role, rng, validity)?;
        let der = prepared.sign(&AwsLc, &above.key)?;
        let certificate = Certificate::parse(&der)?;
        self.pem(&format!("{name}.pem"), "CERTIFICATE", &der)?;
        self.pem(&format!("{name}.key"), "PRIVATE KEY", key.to_pkcs8().expose())?;
        Ok(Holder { certificate, key })
    }

    fn list(
        &self,
        name: &str,
        ca: &Holder,
        now: UnixTime,
        revoked: &[&Certificate],
    ) -> Result<(), Failed> {
        let terms = CrlTerms { number: 1, this_update: now, next_update: now.plus(DAY) };
        let entry =
            |it: &&Certificate| Revocation { serial: it.identity().serial().to_vec(), at: now };
        let revoked: Vec<Revocation> = revoked.iter().map(entry).collect();
        let issuer = Issuer::new(ca.certificate.clone())?;
        self.pem(name, "X509 CRL", &issuer.prepare_crl(terms, &revoked)?.sign(&AwsLc, &ca.key)?)
    }

    fn pem(&self, name: &str, label: &str, der: &[u8]) -> Result<(), Failed> {
        Ok(std::fs::write(self.0.path(name), pem::encode(&pem::Pem::new(label, der)))?)
    }

    /// Runs `countersign tr34`, words separated by blanks.
    fn run(&self, words: &str) -> Result<Ended, Failed> {
        let words: Vec<&str> = ["--json", "tr34"].into_iter().chain(words.split(' ')).collect();
        self.0.run(&words)
    }

    fn json(&self, words: &str) -> Result<Value, Failed> {
        let ended = self.run(words)?;
        let said = format!("{words}: {} {}", ended.stdout, ended.stderr);
        assert_eq!(ended.code, 0, "{said}");
        ended.json()
    }

    fn refused(&self, words: &str, code: i32, check: &str) -> Result<(), Failed> {
        let ended = self.run(words)?;
        let said = format!("{words}: {} {} {}", ended.code, ended.stdout, ended.stderr);
        assert_eq!(ended.code, code, "{said}");
        assert_eq!(ended.json()?["error"]["check"], check, "{said}");
        assert!(!ended.stdout.contains(&KEY[..16]), "{said}");
        Ok(())
    }

    /// A key token in this dialect, `kt.pem`.
    fn key_token(&self, more: &str) -> Result<Value, Failed> {
        self.json(&format!(
            "make kt --kdh kdh.pem --kdh-key kdh.key --krd krd.pem --krd-ca ca-krd.pem \
             --header {HEADER} --key @key.hex --out kt.pem {more}"
        ))
    }
}

const WHO: &str = "--kdh kdh.pem --ca ca-kdh.pem --krd krd.pem";

fn makes_verifies_and_unwraps() -> Result<(), Failed> {
    let files = Files::new()?;
    for dialect in ["strict", "errata-2019", "printed-2019", "2012"] {
        for content in ["tdes", "aes128"] {
            files.key_token(&format!(
                "--crl crl.pem --nonce {NONCE} --dialect {dialect} --content {content}"
            ))?;
            let told = format!("--token kt.pem {WHO} --dialect {dialect} --nonce {NONCE}");
            let verified = files.json(&format!("verify {told}"))?;
            assert_eq!(verified["verified"], true);
            assert_eq!(verified["nonceCompared"], true);
            let opened = files.json(&format!("unwrap {told} --krd-key krd.key"))?;
            assert_eq!(opened.get("key"), None, "shown only when asked for");
            assert_eq!(opened["keyLength"], 24);
            let opened = files.json(&format!("unwrap {told} --krd-key krd.key --show-key"))?;
            assert_eq!(opened["key"], KEY);
            assert_eq!(opened["kcv"].as_str().map(str::len), Some(6));
            assert_eq!(opened["header"]["usage"], "K0");
            let other = if dialect == "strict" { "2012" } else { "strict" };
            let told = told.replace(&format!("--dialect {dialect}"), &format!("--dialect {other}"));
            let refused = files.run(&format!("verify {told}"))?;
            let check = refused.json()?["error"]["check"].as_str().unwrap_or("").to_owned();
            assert!(refused.code == 1 && check.starts_with("dialect-"), "{check}");
        }
    }
    // One pass; and the credentials of both.
    files.key_token("--crl crl.pem --signing-time 2026-01-15T08:00:00Z")?;
    let opened =
        files.json(&format!("unwrap --token kt.pem {WHO} --krd-key krd.key --show-key"))?;
    assert_eq!(opened["key"], KEY);
    files.json("make ct-krd --krd krd.pem --out ct-krd.pem")?;
    let krd = files.json("verify --token ct-krd.pem --krd-ca ca-krd.pem --own-profile")?;
    assert_eq!(krd["deviceId"], "krd");
    files.json("make ct-kdh --kdh kdh.pem --crl crl.pem --out ct-kdh.pem")?;
    let kdh = files.json("verify --token ct-kdh.pem --ca ca-kdh.pem")?;
    assert!(kdh["boundKdh"]["serial"].is_string());
    // A list beside the token, as products do it that send none.
    files.key_token(&format!("--nonce {NONCE}"))?;
    files.json(&format!("verify --token kt.pem {WHO} --crl crl.pem"))?;
    files.json(&format!("verify --token kt.pem {WHO} --without-crl"))?;
    files.refused(&format!("verify --token kt.pem {WHO}"), 1, "crl-absent")?;
    let beside = format!("verify --token kt.pem {WHO} --crl");
    files.refused(&format!("{beside} revoked.pem"), 1, "certificate-revoked")?;
    files.refused(&format!("{beside} other.pem"), 1, "crl-issuer")
}

fn tells_what_a_token_is() -> Result<(), Failed> {
    let files = Files::new()?;
    files.key_token(&format!("--crl crl.pem --nonce {NONCE} --dialect 2012 --content tdes"))?;
    let seen = files.json("inspect --token kt.pem")?;
    assert_eq!(seen["token"], "KT_KDH");
    assert_eq!(seen["dialects"], serde_json::json!(["2012"]));
    assert_eq!(seen["passes"], 2);
    assert_eq!(seen["nonce"], NONCE);
    assert_eq!(seen["header"]["text"], HEADER);
    assert_eq!(seen["contentCipher"], "des-ede3-cbc");
    assert_eq!(seen["encryptedKeyLength"], 256);
    assert_eq!(seen["crl"]["entries"], 0);
    files.json("inspect --token kt.pem --dialect 2012")?;
    files.refused("inspect --token kt.pem --dialect strict", 1, "dialect-version")?;
    let text = files.0.run(&["tr34", "inspect", "--token", "kt.pem"])?.ok()?.stdout;
    assert!(text.contains("header.usage: K0\n") && text.contains("dialects: 2012\n"), "{text}");
    let openssl = ["cms", "-cmsout", "-noout", "-print", "-in", "kt.pem", "-inform", "PEM"];
    let openssl = Command::new("openssl").args(openssl).current_dir(files.0.path(".")).output()?;
    assert!(openssl.status.success(), "{}", String::from_utf8_lossy(&openssl.stderr));
    let made = files.json(&format!("make rt --nonce {NONCE}"))?;
    std::fs::write(files.0.path("rt.hex"), made["token"].as_str().unwrap_or(""))?;
    let seen = files.json("inspect --token rt.hex")?;
    assert_eq!((&seen["token"], &seen["nonce"]), (&"RT_KRD".into(), &NONCE.into()));
    let other = files.json("make rt")?;
    assert_eq!(other["nonce"].as_str().map(str::len), Some(32));
    files.refused("inspect --token krd.pem", 1, "token-malformed")?;
    files.refused("inspect --token krd.key", 1, "token-malformed")?;
    files.refused("inspect --token absent.pem", 3, "file")
}

fn names_each_refusal() -> Result<(), Failed> {
    let files = Files::new()?;
    files.key_token(&format!("--crl crl.pem --nonce {NONCE}"))?;
    let unwrap = |who: &str, more: &str| {
        format!("unwrap --token kt.pem {who} --krd-key krd.key --show-key {more}").trim().to_owned()
    };
    files.json(&unwrap(WHO, ""))?;
    let other_nonce = format!("--nonce {}", "11".repeat(16));
    files.refused(&unwrap(WHO, &other_nonce), 1, "nonce-mismatch")?;
    files.refused(&unwrap(WHO, "--at 2099-01-01T00:00:00Z"), 1, "crl-issuer-time")?;
    let who = WHO.replace("kdh.pem --ca", "kdh-2.pem --ca");
    files.refused(&unwrap(&who, ""), 1, "token-signer")?;
    let who = WHO.replace("ca-kdh.pem", "ca-krd.pem");
    files.refused(&unwrap(&who, ""), 1, "crl-issuer")?;
    let who = WHO.replace("krd.pem", "krd-2.pem");
    files.refused(&format!("verify --token kt.pem {who}"), 1, "token-recipient")?;
    files.refused(&unwrap(&who, ""), 1, "key-mismatch")?;
    files.key_token(&format!("--crl revoked.pem --nonce {NONCE}"))?;
    files.refused(&unwrap(WHO, ""), 1, "certificate-revoked")?;
    files.key_token(&format!("--crl other.pem --nonce {NONCE}"))?;
    files.refused(&unwrap(WHO, ""), 1, "crl-issuer")?;
    // A sender is refused as well.
    let make = |key: &str, header: &str, krd: &str| {
        format!(
            "make kt --kdh kdh.pem --kdh-key kdh.key --krd {krd} --krd-ca ca-krd.pem --crl crl.pem \
             --nonce {NONCE} --header {header} --key {key}"
        )
    };
    let aes = "00112233445566778899AABBCCDDEEFF";
    let aes_header = "D0016K0AB00S0000";
    files.refused(&make(aes, aes_header, "krd.pem"), 1, "wrapping-key-weaker")?;
    files.json(&format!("{} --weaker-wrapping", make(aes, aes_header, "krd.pem")))?;
    files.refused(&make(&"31".repeat(16), HEADER, "krd.pem"), 1, "des-equal-halves")?;
    files.refused(&make(KEY, "B0016M7TB00S0000", "krd.pem"), 1, "usage-algorithm")?;
    files.refused(&make(KEY, HEADER, "kdh.pem"), 1, "certificate-issuer")?;
    let swapped = make(KEY, HEADER, "krd.pem").replace("kdh.key", "kdh-2.key");
    files.refused(&swapped, 1, "key-mismatch")?;
    // One octet.
    let token = std::fs::read(files.0.path("kt.pem"))?;
    let mut der = pem::parse(token)?.into_contents();
    let last = der.len() - 1;
    der[last] ^= 1;
    std::fs::write(files.0.path("altered.der"), &der)?;
    let altered = format!("verify --token altered.der {WHO}");
    files.refused(&altered, 1, "crl-issuer")?;
    files.key_token(&format!("--crl crl.pem --nonce {NONCE}"))?;
    let mut der = pem::parse(std::fs::read(files.0.path("kt.pem"))?)?.into_contents();
    let last = der.len() - 1;
    der[last] ^= 1;
    std::fs::write(files.0.path("altered.der"), &der)?;
    files.refused(&altered, 1, "token-signature")?;
    der.push(0);
    std::fs::write(files.0.path("altered.der"), &der)?;
    files.refused(&altered, 1, "token-trailing")
}

fn unbinds_and_rebinds() -> Result<(), Failed> {
    let files = Files::new()?;
    files.json(&format!("make rt --nonce {NONCE} --out rt.pem"))?;
    let signer = "--kdh kdh.pem --kdh-key kdh.key --crl crl.pem --krd krd.pem --rt rt.pem";
    files.json(&format!("make ubt {signer} --out ubt.pem"))?;
    let unbound = files.json(&format!("verify --token ubt.pem {WHO} --nonce {NONCE}"))?;
    assert_eq!((&unbound["token"], &unbound["boundKdh"]), (&"UBT_KDH".into(), &Value::Null));
    files.json(&format!("make rbt {signer} --new kdh-2.pem --new-ca ca-kdh.pem --out rbt.pem"))?;
    let rebound = files.json(&format!("verify --token rbt.pem {WHO} --nonce {NONCE}"))?;
    let serial = |name: &str| -> Result<String, Failed> {
        let der = pem::parse(std::fs::read(files.0.path(name))?)?.into_contents();
        let certificate = Certificate::parse(&der)?;
        Ok(data_encoding::HEXUPPER.encode(certificate.identity().serial()))
    };
    assert_eq!(rebound["boundKdh"]["serial"], serial("kdh-2.pem")?);
    let ca = "--krd-ca ca-krd.pem --krd-ca-key ca-krd.key --krd krd.pem --kdh kdh.pem";
    files.json(&format!("make ubt-ca {ca} --out ubt-ca.pem"))?;
    let told = format!("{WHO} --krd-ca ca-krd.pem");
    let unbound = files.json(&format!("verify --token ubt-ca.pem {told} --without-crl"))?;
    assert_eq!((&unbound["token"], &unbound["boundKdh"]), (&"UBT_CA".into(), &Value::Null));
    let new = "--new kdh-2.pem --new-ca ca-kdh.pem --crl crl.pem";
    files.json(&format!("make rbt-ca {ca} {new} --out rbt-ca.pem"))?;
    let rebound = files.json(&format!("verify --token rbt-ca.pem {told}"))?;
    assert_eq!(rebound["token"], "RBT_CA");
    assert_eq!(rebound["boundKdh"]["serial"], serial("kdh-2.pem")?);
    for (token, kind) in [("ubt.pem", "UBT_KDH"), ("rbt-ca.pem", "RBT_CA"), ("rbt.pem", "RBT_KDH")]
    {
        assert_eq!(files.json(&format!("inspect --token {token}"))?["token"], kind);
    }
    let wrong_ca = format!("{WHO} --krd-ca ca-kdh.pem");
    files.refused(&format!("verify --token rbt-ca.pem {wrong_ca}"), 1, "token-signer-ca")?;
    let same = format!("make rbt {signer} --new kdh.pem --new-ca ca-kdh.pem");
    files.refused(&same, 1, "rebind-same")?;
    let terminal = format!("make rbt {signer} --new krd-2.pem --new-ca ca-krd.pem");
    files.refused(&terminal, 1, "certificate-role")
}

fn reads_every_form_and_names_wrong_words() -> Result<(), Failed> {
    let files = Files::new()?;
    files.key_token(&format!("--crl crl.pem --nonce {NONCE}"))?;
    let der = pem::parse(std::fs::read(files.0.path("kt.pem"))?)?.into_contents();
    std::fs::write(files.0.path("kt.der"), &der)?;
    std::fs::write(files.0.path("kt.hex"), data_encoding::HEXLOWER.encode(&der) + "\n")?;
    for token in ["kt.der", "kt.hex", "@kt.pem"] {
        files.json(&format!("verify --token {token} {WHO} --nonce {NONCE}"))?;
    }
    let mut child = command();
    child.args(["--json", "tr34", "inspect", "--token", "-"]).current_dir(files.0.path("."));
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().ok_or("no stdin")?.write_all(&std::fs::read(files.0.path("kt.pem"))?)?;
    let output = child.wait_with_output()?;
    assert!(output.status.success());
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout)?["token"], "KT_KDH");

    files.refused(&format!("verify --token kt.pem {WHO} --dialect 2019"), 2, "dialect")?;
    files.refused(&format!("verify --token kt.pem {WHO} --at tomorrow"), 2, "time")?;
    files.refused(&format!("verify --token kt.pem {WHO} --nonce 1234"), 2, "nonce")?;
    files.refused("verify --token kt.pem --kdh kdh.pem --ca ca-kdh.pem", 2, "krd")?;
    files.refused("verify --token kt.pem --kdh kdh.pem --krd krd.pem", 2, "ca")?;
    files.refused("verify --token - --kdh - --krd krd.pem --ca ca-kdh.pem", 2, "stdin")?;
    files.refused("make ubt --kdh kdh.pem --kdh-key kdh.key --krd krd.pem", 2, "usage")?;
    files.refused("make kt --out kt.pem", 2, "usage")?;
    std::fs::write(files.0.path("empty"), "")?;
    files.refused(&format!("verify --token empty {WHO}"), 1, "token")?;
    let wrong = format!("unwrap --token kt.pem {WHO} --krd-key kdh.pem");
    files.refused(&wrong, 1, "private-key")?;
    std::fs::write(files.0.path("long"), vec![b'0'; 8 << 20])?;
    files.refused(&format!("verify --token long {WHO}"), 1, "token-too-long")?;
    Ok(())
}
