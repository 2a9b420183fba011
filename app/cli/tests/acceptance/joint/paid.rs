//! Payments that execute: all forms, all renderings, all ways to the terminal (B1–B8).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use data_encoding::BASE64;
use libtest_mimic::Failed;
use serde_json::{Value, json};
use testkit::parts::{Pcscd, in_ci};

use super::stage::{DISPLAY, Holder, PIN, Shop};
use crate::host::{Database, wait_for};
use crate::papers::{OpenSsl, text};

/// What another maker's decoder reads in a picture.
fn decoded(shop: &Shop, picture: &str) -> Result<Option<String>, Failed> {
    let mut zbarimg = Command::new("zbarimg");
    zbarimg.args(["--quiet", "--raw"]).arg(shop.bank.host.path(picture));
    match zbarimg.output() {
        Ok(output) => Ok(Some(String::from_utf8(output.stdout)?.trim().to_owned())),
        Err(error) if !in_ci() => {
            println!("skipped: zbarimg ({error}); run: apt-get install -y zbar-tools");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// The holder consents, and has the card show a code: what `kept` holds of it is what was shown.
fn shows(shop: &Shop, holder: &mut Holder, amount: &str, way: &str) -> Result<(), Failed> {
    let digits: String = holder.consents(amount)?.split(' ').collect();
    holder.press(&format!("show {way}"))?;
    while holder.sees("password")?["rendering"] != way {}
    let display = shop.bank.host.path(&format!("{DISPLAY}/display.png"));
    let mode = |path| Ok::<_, Failed>(fs::metadata(path)?.permissions().mode() & 0o777);
    assert_eq!(mode(display.clone())?, 0o600, "its holder's only");
    assert_eq!(mode(shop.bank.host.path(DISPLAY))?, 0o700, "made by the card");
    // As a camera takes it; the terminal waits for the file.
    fs::copy(&display, shop.bank.host.path("half"))?;
    if let Some(read) = decoded(shop, "half")? {
        assert_eq!(read, digits, "{way}");
    }
    fs::rename(shop.bank.host.path("half"), shop.bank.host.path("camera.png"))?;
    Ok(())
}

/// What the server keeps of a payment's answer.
fn kept(shop: &Shop, paid: &Value) -> Result<Value, Failed> {
    let id = paid["id"].as_str().ok_or("no id")?;
    let answers = shop.bank.done(&["payment", "answers", id])?;
    assert_eq!(answers["items"][0]["method"], "joint", "{answers}");
    Ok(answers["items"][0].clone())
}

/// Six payments of one card: typed as digits and as pictures, scanned as both codes, without
/// contact; in all three forms.
pub(super) fn in_every_way(pcscd: Pcscd, database: &Database) -> Result<(), Failed> {
    let mut shop = Shop::new(pcscd, "p256", database)?;
    let made = shop.card("CARD-1", "PAYER0001")?;
    assert_eq!((&made["account"], &made["pinTriesLeft"]), (&json!("PAYER0001"), &json!(3)));
    let mut holder = shop.insert("CARD-1")?;
    // The form that the server likes best, and the account that the card names.
    let paid = shop.pays(&mut holder, "1.00")?;
    assert_eq!(kept(&shop, &paid)?["outcome"], "accepted");

    for (form, way, amount) in [("sealed", "qr", "2.00"), ("digest", "code128", "3.00")] {
        let _gone = fs::remove_file(shop.bank.host.path("camera.png"));
        let terminal = shop.terminal(amount, &["--form", form, "--scan", "camera.png"])?;
        shows(&shop, &mut holder, amount, way)?;
        terminal.executed()?;
        // Into the terminal for the next one: nothing is displayed any more when that is loaded.
        holder.press("show digits")?;
        holder.press("in")?;
        holder.event("inserted")?;
    }

    // Typed as what the pictures are called, a wrong digit before: that costs nothing.
    let mut terminal = shop.terminal("4.00", &["--form", "sealed-random"])?;
    let digits: String = holder.consents("4.00")?.split(' ').collect();
    holder.press("show pictures")?;
    let shown = loop {
        let shown = holder.sees("password")?;
        if shown["rendering"] == "pictures" {
            break shown;
        }
    };
    let last = if digits.ends_with('0') { "1" } else { "0" };
    terminal.types(&format!("{}{last}", &digits[..8]))?;
    let names = shown["pictures"].as_array().ok_or("no names")?;
    let names: Vec<_> = names.iter().filter_map(Value::as_str).collect();
    assert_eq!(names.len(), 9, "{shown}");
    terminal.types(&names.join(", "))?;
    terminal.executed()?;
    holder.press("show digits")?;
    holder.press("in")?;
    holder.event("inserted")?;

    // The card gives it itself, once; then it has nothing to show.
    let reader = shop.pcscd.reader(1);
    let terminal = shop.terminal("5.00", &["--form", "digest", "--contactless", &reader])?;
    holder.sees("take-out")?;
    holder.press("out")?;
    holder.sees("consent")?;
    holder.press("tap")?;
    while holder.event("inserted")?["interface"] != "contactless" {}
    // It is asked, and gives nothing before the PIN.
    holder.press(PIN)?;
    holder.press("ok")?;
    holder.sees("password")?;
    terminal.executed()?;
    holder.sees("idle")?;
    wait_for("the picture's end", || {
        let there = shop.bank.host.path(&format!("{DISPLAY}/display.png")).exists();
        Ok((!there).then_some(()))
    })?;

    assert_eq!(shop.bank.balance("SHOP0001")?, "15.00");
    let shown = shop.bank.done(&["security-device", "show", "CARD-1"])?;
    assert_eq!((&shown["method"], &shown["failures"]), (&json!("joint"), &json!(0)), "{shown}");
    holder.quit()?;
    evidence_holds(&shop, "p256", &paid)?;
    shop.bank.books_hold()
}

/// The evidence of a payment says whose word the joint password is; the card's signature is over
/// transaction and commitment as the page says, and none of our programs is needed to see it.
fn evidence_holds(shop: &Shop, suite: &str, paid: &Value) -> Result<(), Failed> {
    let (id, host) = (paid["id"].as_str().ok_or("no id")?, &shop.bank.host);
    shop.bank.run("till", &["payment", "evidence", id, "--out", "evidence.json"])?.ok()?;
    let openssl = OpenSsl { host, suite };
    let root = host.run(&["ca", "export", "--data", "data", "root"])?.ok()?;
    openssl.write("root.pem", root.stdout.as_bytes())?;
    let words = ["--json", "evidence", "verify", "evidence.json", "--root", "root.pem"];
    let verified = host.run(&words)?.ok()?.json()?;
    assert_eq!(verified["restsOnServer"], true, "{verified}");
    assert!(verified.to_string().contains("answer-joint-password"), "{verified}");

    let bundle: Value = serde_json::from_str(&fs::read_to_string(host.path("evidence.json"))?)?;
    let answer = bundle.pointer("/evidence/answers/0").ok_or("no answer")?;
    openssl.certificate("issuer.pem", text(answer, "/issuer")?)?;
    openssl.certificate("device.pem", text(answer, "/certificate")?)?;
    openssl.leads_to_root("issuer.pem", "device.pem")?;
    let transaction = text(&bundle, "/evidence/request")?.as_bytes();
    let commitment = BASE64.decode(text(answer, "/commitment")?.as_bytes())?;
    let signature = BASE64.decode(text(answer, "/signature")?.as_bytes())?;
    let statement = |transaction: &[u8], commitment: &[u8]| {
        openssl.write("hashed", &[b"countersign.joint.transaction.v1\0", transaction].concat())?;
        let digest = if suite == "sm2" { "-sm3" } else { "-sha256" };
        let hash = openssl.done(&["dgst", digest, "-binary", "hashed"])?;
        Ok::<_, Failed>([b"countersign.payment.joint.v1\0", &*hash, commitment].concat())
    };
    let good = statement(transaction, &commitment)?;
    assert!(openssl.verifies("device.pem", &good, &signature)?, "{answer}");
    let mut other = commitment.clone();
    *other.last_mut().ok_or("an empty commitment")? ^= 1;
    let other = statement(transaction, &other)?;
    assert!(!openssl.verifies("device.pem", &other, &signature)?, "another commitment");
    let altered = String::from_utf8(transaction.to_vec())?.replace("1.00", "9.00");
    assert_ne!(altered.as_bytes(), transaction);
    let altered = statement(altered.as_bytes(), &commitment)?;
    assert!(!openssl.verifies("device.pem", &altered, &signature)?, "another amount");
    Ok(())
}

pub(super) fn under_sm2(pcscd: Pcscd) -> Result<(), Failed> {
    let mut shop = Shop::new(pcscd, "sm2", &Database::Sqlite)?;
    assert_eq!(shop.card("CARD-1", "PAYER0001")?["suite"], "sm2");
    let mut holder = shop.insert("CARD-1")?;
    let reader = shop.pcscd.reader(0);
    let shown = ["--json", "device", "card", "show", "--reader", &reader];
    let shown = shop.bank.host.run(&shown)?.ok()?.json()?;
    assert_eq!((&shown["serial"], &shown["suite"]), (&json!("CARD-1"), &json!("sm2")), "{shown}");
    for form in ["sealed", "sealed-random", "digest"] {
        let mut terminal = shop.terminal("1.00", &["--form", form])?;
        let shown = match holder.consents("1.00") {
            Ok(shown) => shown,
            Err(failed) => return Err(shop.beside(&failed, terminal)),
        };
        terminal.types(&shown)?;
        let paid = terminal.executed()?;
        evidence_holds(&shop, "sm2", &paid)?;
        fs::remove_file(shop.bank.host.path("evidence.json"))?;
        holder.press("in")?;
        holder.event("inserted")?;
    }
    assert_eq!(shop.bank.balance("SHOP0001")?, "3.00");
    shop.bank.books_hold()
}
