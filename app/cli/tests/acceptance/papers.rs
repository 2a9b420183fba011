//! What a payment leaves behind, as the OpenSSL command sees it: signature, certificates, receipt.

use std::fs;
use std::process::{Command, Output};

use data_encoding::{BASE64, BASE64URL_NOPAD};
use libtest_mimic::Failed;
use serde_json::Value;

use crate::Alone;
use crate::bank::{Bank, PRICE};
use crate::host::{Database, Host};

pub(crate) const TRIALS: [(&str, Alone); 2] = [
    ("openssl_accepts_signature_and_receipt::p256", || openssl_accepts("p256")),
    ("openssl_accepts_signature_and_receipt::sm2", || openssl_accepts("sm2")),
];

/// What is put before the bytes that a device signs.
const PREFIX: &[u8] = b"countersign.payment.confirmation.v1\0";
/// The identity that GB/T 32918 gives who has none of their own.
const SM2_IDENTITY: &str = "distid:1234567812345678";

/// The OpenSSL command, for a suite's algorithms.
pub(crate) struct OpenSsl<'a> {
    pub(crate) host: &'a Host,
    pub(crate) suite: &'a str,
}

impl OpenSsl<'_> {
    fn run(&self, words: &[&str]) -> Result<Output, Failed> {
        Ok(Command::new("openssl").args(words).current_dir(self.host.path(".")).output()?)
    }

    pub(crate) fn done(&self, words: &[&str]) -> Result<Vec<u8>, Failed> {
        let output = self.run(words)?;
        let told = || format!("{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(output.stdout) } else { Err(told().into()) }
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Failed> {
        Ok(fs::write(self.host.path(name), bytes)?)
    }

    /// Stores a certificate in base64 as PEM, and its public key beside it.
    pub(crate) fn certificate(&self, name: &str, base64: &str) -> Result<(), Failed> {
        self.write("der", &BASE64.decode(base64.as_bytes())?)?;
        self.done(&["x509", "-inform", "DER", "-in", "der", "-out", name])?;
        let key = self.done(&["x509", "-in", name, "-noout", "-pubkey"])?;
        self.write(&format!("{name}.key"), &key)
    }

    /// `leaf` leads over `issuer` to the root. Link by link: so OpenSSL takes SM2's identity.
    pub(crate) fn leads_to_root(&self, issuer: &str, leaf: &str) -> Result<(), Failed> {
        for (above, below) in [("root.pem", issuer), (issuer, leaf)] {
            let words = ["verify", "-x509_strict", "-partial_chain", "-CAfile", above];
            let identity: &[&str] = match self.suite {
                "sm2" => &["-vfyopt", SM2_IDENTITY],
                _ => &[],
            };
            self.done(&[&words[..], identity, &[below]].concat())?;
        }
        Ok(())
    }

    /// Whether `signature` (DER) over `message` verifies under a stored certificate's key.
    pub(crate) fn verifies(
        &self,
        name: &str,
        message: &[u8],
        signature: &[u8],
    ) -> Result<bool, Failed> {
        self.write("message", message)?;
        self.write("signature", signature)?;
        let key = format!("{name}.key");
        let verify = ["pkeyutl", "-verify", "-pubin", "-inkey", &key, "-rawin"];
        let files = ["-in", "message", "-sigfile", "signature"];
        let how: &[&str] = match self.suite {
            "sm2" => &["-digest", "sm3", "-pkeyopt", SM2_IDENTITY],
            _ => &["-digest", "sha256"],
        };
        Ok(self.run(&[&verify[..], &files, how].concat())?.status.success())
    }
}

/// `r` and `s` of equal length as the DER that OpenSSL reads.
fn der(pair: &[u8]) -> Result<Vec<u8>, Failed> {
    let (r, s) = pair.split_at(pair.len() / 2);
    let mut integers = Vec::new();
    for number in [r, s] {
        let first = number.iter().position(|&byte| byte != 0).unwrap_or(number.len() - 1);
        let sign = usize::from(number[first] >= 0x80);
        let length = number.len() - first + sign;
        integers.extend([2, u8::try_from(length)?]);
        integers.extend(&[0][..sign]);
        integers.extend(&number[first..]);
    }
    Ok([&[0x30, u8::try_from(integers.len())?], &integers[..]].concat())
}

pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str, Failed> {
    value.pointer(pointer).and_then(Value::as_str).ok_or_else(|| format!("no {pointer}").into())
}

/// The device's signature is over the bytes in the evidence, under a certificate below the root;
/// the receipt is a JWS of the server about the same bytes. None of it needs a program of ours.
fn openssl_accepts(suite: &str) -> Result<(), Failed> {
    let host = Host::new()?;
    host.init_with(&["--suite", suite], &Database::Sqlite)?;
    let mut bank = Bank::on(host, false)?;
    bank.payer("KEY-1", "phone")?;
    let id = bank.pending(PRICE)?;
    bank.approve("phone", "KEY-1", &id)?.ok()?;
    bank.run("till", &["payment", "evidence", &id, "--out", "evidence.json"])?.ok()?;
    let receipt = bank.run("till", &["payment", "receipt", &id])?.ok()?.json()?;
    bank.books_hold()?;
    let root = bank.host.run(&["ca", "export", "--data", "data", "root"])?.ok()?.stdout;
    let openssl = OpenSsl { host: &bank.host, suite };
    openssl.write("root.pem", root.as_bytes())?;
    let bundle = fs::read_to_string(bank.host.path("evidence.json"))?;
    let bundle: Value = serde_json::from_str(&bundle)?;

    // The device's answer.
    let answer = bundle.pointer("/evidence/answers/0").ok_or("no answer")?;
    openssl.certificate("issuer.pem", text(answer, "/issuer")?)?;
    openssl.certificate("device.pem", text(answer, "/certificate")?)?;
    openssl.leads_to_root("issuer.pem", "device.pem")?;
    let request = text(&bundle, "/evidence/request")?;
    let signed = [PREFIX, request.as_bytes()].concat();
    let signature = BASE64.decode(text(answer, "/signature")?.as_bytes())?;
    assert!(openssl.verifies("device.pem", &signed, &signature)?, "signature over {request}");
    let altered = request.replace(PRICE, "92.34");
    assert_ne!(altered, request, "the amount is among the signed bytes");
    let altered = [PREFIX, altered.as_bytes()].concat();
    assert!(!openssl.verifies("device.pem", &altered, &signature)?, "another amount");
    assert!(!openssl.verifies("device.pem", request.as_bytes(), &signature)?, "no prefix");

    // The receipt.
    let jws = text(&receipt, "/receipt")?;
    let (input, signature) = jws.rsplit_once('.').ok_or("no signature")?;
    let (head, payload) = input.split_once('.').ok_or("no payload")?;
    let head: Value = serde_json::from_slice(&BASE64URL_NOPAD.decode(head.as_bytes())?)?;
    openssl.certificate("server.pem", text(&head, "/x5c/0")?)?;
    openssl.certificate("server-issuer.pem", text(&head, "/x5c/1")?)?;
    openssl.leads_to_root("server-issuer.pem", "server.pem")?;
    let signature = der(&BASE64URL_NOPAD.decode(signature.as_bytes())?)?;
    assert!(openssl.verifies("server.pem", input.as_bytes(), &signature)?, "{jws}");
    let payload = BASE64URL_NOPAD.decode(payload.as_bytes())?;
    let told: Value = serde_json::from_slice(&payload)?;
    assert_eq!(text(&told, "/receipt/amount/amount")?, PRICE);
    let another = String::from_utf8(payload)?.replace(PRICE, "92.34");
    let another = BASE64URL_NOPAD.encode(another.as_bytes());
    let (head, _) = input.split_once('.').ok_or("no payload")?;
    let another = format!("{head}.{another}");
    assert!(!openssl.verifies("server.pem", another.as_bytes(), &signature)?, "another amount");
    openssl.write("message", &signed)?;
    let hash = openssl.done(&["dgst", "-sha256", "-r", "message"])?;
    let hash = String::from_utf8(hash)?;
    assert_eq!(hash.split(' ').next(), Some(text(&told, "/receipt/requestHash")?));
    Ok(())
}
