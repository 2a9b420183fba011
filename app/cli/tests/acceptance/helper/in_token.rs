//! A PKCS#11 token is the device.

use std::process::Stdio;

use testkit::parts::{Kryoptic, Pkcs11Token, SoftHsm, require};

use super::*;

const LABEL: &str = "Li Lei";

pub(super) fn trials() -> Vec<Trial> {
    let softhsm = require(SoftHsm::find());
    let kryoptic = require(Kryoptic::find());
    vec![
        softhsm.trial("a_token_confirms_payments::softhsm2", |softhsm| {
            a_token_confirms_payments(&softhsm.token(LABEL)?, true)
        }),
        kryoptic.trial("a_token_confirms_payments::kryoptic", |kryoptic| {
            a_token_confirms_payments(&kryoptic.token(LABEL)?, false)
        }),
    ]
}

fn run(program: &str, bank: &Bank, words: &[&str]) -> Result<String, Failed> {
    let mut command = Command::new(program);
    command.args(words).envs(bank.host.environment()).current_dir(bank.host.path("."));
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(said) } else { Err(format!("{program}: {said}").into()) }
}

/// Enrolled, verified by OpenSSL, asked by the phone and by the helper; its PIN each time. It
/// may come and go, where a token's files are not held open.
fn a_token_confirms_payments(token: &Pkcs11Token, comes_and_goes: bool) -> Result<(), Failed> {
    let host = Host::new()?;
    host.init(&Database::Sqlite)?;
    let mut bank = Bank::on(host.with_env(token.environment()), false)?;
    bank.phone("phone")?;
    fs::write(bank.host.path("token-pin"), token.pin())?;
    let module = token.module().to_string_lossy().into_owned();
    let device = ["--token", LABEL, "--pkcs11-module", &module];
    let with_pin = [&device[..], &["--pin-file", "token-pin"]].concat();
    let enroll = |serial: &str, more: &[&str]| {
        let words = ["device", "key", "enroll", "--serial", serial, "--label", "a token"];
        let words = [&words[..], &["--account", "PAYER0001"], &with_pin, more].concat();
        bank.run("admin", &words)
    };
    let refused = |ended: Ended, check: &str| -> Result<(), Failed> {
        let error = ended.json()?["error"].clone();
        assert_eq!((ended.code, &error["check"]), (1, &json!(check)), "{error}");
        Ok(())
    };
    let show = || bank.host.run(&[&["--json", "device", "key", "show"], &device[..]].concat());
    refused(show()?, "device-not-enrolled")?;
    refused(enroll("TOKEN-1", &["--method", "ocra"])?, "device-method")?;
    let made = enroll("TOKEN-1", &[])?.ok()?.json()?;
    assert_eq!((&made["serial"], &made["method"]), (&json!("TOKEN-1"), &json!("pki")));
    assert_eq!(enroll("TOKEN-1", &[])?.ok()?.json()?, made, "the same key, and certificate");
    refused(enroll("TOKEN-2", &[])?, "device-other")?;
    assert_eq!(show()?.ok()?.json()?, made);
    openssl_verifies(&bank, &module, token.pin())?;

    // Through the phone as a program.
    let id = bank.pending("12.34")?;
    let approve = |id: &str, pin: &str| {
        let words = ["--json", "device", "phone", "approve", id, "--phone", "phone"];
        let words = [&words[..], &device, &["--pin-file", pin]].concat();
        bank.host.run(&words)
    };
    fs::write(bank.host.path("wrong-pin"), "000000000042")?;
    refused(approve(&id, "wrong-pin")?, "pin-wrong")?;
    let approved = approve(&id, "token-pin")?.ok()?;
    assert!(approved.stderr.contains("12.34 CNY"), "{}", approved.stderr);
    assert_eq!(approved.json()?["status"], "executed");
    assert_eq!(bank.balance("SHOP0001")?, "12.34");

    // Through a page and the helper: a right PIN before does not stand for a wrong one after.
    fs::write(bank.host.path("typed"), token.pin())?;
    let typed = [&device[..], &["--pin-file", "typed"]].concat();
    let mut helper = Helper::start(&bank, &typed)?;
    let (id, request) = bank.request("5.00")?;
    let said = helper.ask(&request)?;
    assert_eq!(said.body["answer"]["deviceSerial"], "TOKEN-1", "{said:?}");
    assert_eq!(bank.answer(&id, &said)?, "executed");
    let (id, request) = bank.request("6.00")?;
    fs::write(bank.host.path("typed"), "000000000042")?;
    helper.ask(&request)?.is(403, "pin-wrong");
    fs::write(bank.host.path("typed"), "")?;
    helper.ask(&request)?.is(403, "declined");
    fs::write(bank.host.path("typed"), token.pin())?;
    if comes_and_goes {
        fs::rename(token.files(), bank.host.path("away"))?;
        let said = helper.ask(&request)?;
        assert_eq!(said.status, 503, "{said:?}");
        fs::rename(bank.host.path("away"), token.files())?;
    }
    let said = helper.ask(&request)?;
    assert_eq!(bank.answer(&id, &said)?, "executed");
    assert_eq!(bank.balance("SHOP0001")?, "23.34");
    bank.books_hold()
}

/// Another implementation on the certificate in the token, and on the key beside it.
fn openssl_verifies(bank: &Bank, module: &str, pin: &str) -> Result<(), Failed> {
    let root = bank.host.run(&["ca", "export", "--data", "data", "root"])?.ok()?.stdout;
    fs::write(bank.host.path("root.pem"), root)?;
    let token = ["--module", module, "--token-label", LABEL];
    let of_key = ["--label", "countersign-payments"];
    let read = ["--read-object", "--type", "cert", "--output-file", "token.der"];
    run("pkcs11-tool", bank, &[&token[..], &of_key, &read].concat())?;
    let to_pem = ["x509", "-inform", "DER", "-in", "token.der", "-out", "token.pem", "-text"];
    run("openssl", bank, &to_pem)?;
    let text = fs::read_to_string(bank.host.path("token.pem"))?;
    for wanted in ["security-device/TOKEN-1", "CA:FALSE", "Digital Signature", "prime256v1"] {
        assert!(text.contains(wanted), "{wanted} is missing in\n{text}");
    }
    let strict = ["verify", "-x509_strict", "-CAfile", "root.pem", "-untrusted"];
    let verify = [&strict[..], &["data/ca/devices.pem", "token.pem"]].concat();
    run("openssl", bank, &verify)?;
    // The certified key is the one that signs.
    fs::write(bank.host.path("text"), "signed by another program")?;
    let sign = ["--sign", "--mechanism", "ECDSA-SHA256", "--signature-format", "openssl"];
    let files = ["--input-file", "text", "--output-file", "signature", "--login", "--pin", pin];
    if run("pkcs11-tool", bank, &[&token[..], &of_key, &sign, &files].concat()).is_err() {
        // SoftHSM2 2.6 signs hashes only.
        run("openssl", bank, &["dgst", "-sha256", "-binary", "-out", "hash", "text"])?;
        let sign = ["--sign", "--mechanism", "ECDSA", "--signature-format", "openssl"];
        let files = ["--input-file", "hash", "--output-file", "signature", "--login", "--pin", pin];
        run("pkcs11-tool", bank, &[&token[..], &of_key, &sign, &files].concat())?;
    }
    let public = ["x509", "-in", "token.pem", "-noout", "-pubkey"];
    fs::write(bank.host.path("public.pem"), run("openssl", bank, &public)?)?;
    let verify = ["dgst", "-sha256", "-verify", "public.pem", "-signature", "signature"];
    run("openssl", bank, &[&verify[..], &["text"]].concat())?;
    // What never leaves.
    let list = ["--list-objects", "--login", "--pin", pin];
    let listed = run("pkcs11-tool", bank, &[&token[..], &list].concat())?;
    assert!(listed.contains("never extractable"), "{listed}");
    Ok(())
}
