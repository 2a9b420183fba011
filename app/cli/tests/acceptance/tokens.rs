//! Keys of injection in a PKCS#11 token, through the command.

use std::fs;

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use crate::host::{Database, Ended, Host};

pub(crate) fn trials() -> Vec<Trial> {
    #[cfg(feature = "pkcs11")]
    return in_tokens::trials();
    #[cfg(not(feature = "pkcs11"))]
    vec![Trial::test("a_build_without_tokens_says_so", a_build_without_tokens_says_so)]
}

/// A server's directory whose keys are to live in this token.
fn host_with(module: &str, token: &str, pin: &str) -> Result<Host, Failed> {
    let host = Host::new()?;
    host.init(&Database::Sqlite)?;
    fs::write(host.path("pin"), pin)?;
    let path = host.data().join("config.toml");
    let pin_file = host.path("pin");
    let keys = format!(
        "vault = \"pkcs11\"\nmodule = \"{module}\"\ntoken = \"{token}\"\npin-file = \"{}\"\n",
        pin_file.display()
    );
    let config = fs::read_to_string(&path)?;
    let changed = config.replacen("vault = \"file\"\n", &keys, 1);
    if changed == config {
        return Err("the configuration names no vault to replace".into());
    }
    fs::write(path, changed)?;
    Ok(host)
}

fn expect_refused(ended: &Ended, code: i32, check: &str) -> Result<(), Failed> {
    let answer: Value = ended.json()?;
    if ended.code == code && answer["error"]["check"] == check {
        return Ok(());
    }
    Err(format!("wanted {check} ({code}): {} {answer}", ended.code).into())
}

#[cfg(not(feature = "pkcs11"))]
fn a_build_without_tokens_says_so() -> Result<(), Failed> {
    let host = host_with("module.so", "hsm", "1234")?;
    let ended = host.run(&["--json", "rki", "init", "--data", "data"])?;
    expect_refused(&ended, 1, "pkcs11-not-built")
}

#[cfg(feature = "pkcs11")]
mod in_tokens {
    use std::process::{Command, Stdio};

    use serde_json::json;
    use testkit::parts::{Kryoptic, Pkcs11Token, SoftHsm, require};

    use super::*;
    use crate::host::{Ports, Process, command, exists};
    use crate::shop::Shop;

    const LABEL: &str = "countersign";
    /// Of the terminal's token.
    const CHIP: &str = "POS 1";
    const INIT: [&str; 7] = ["--json", "rki", "init", "--data", "data", "--bits", "2048"];

    pub(super) fn trials() -> Vec<Trial> {
        let softhsm = require(SoftHsm::find());
        let both = SoftHsm::find().and_then(|softhsm| Ok((softhsm, Kryoptic::find()?)));
        let both = require(both);
        let single = softhsm.trial("a_hierarchy_lives_in_a_token", |softhsm| {
            a_hierarchy_lives_in_a_token(&softhsm.token(LABEL)?)
        });
        let pair = both.trial("keys_come_from_a_token_into_a_token", |(softhsm, kryoptic)| {
            keys_come_from_a_token_into_a_token(softhsm, &kryoptic.token(CHIP)?)
        });
        vec![single, pair]
    }

    /// How many keys lie in the file vault, beside the storage key that `init` made for one and
    /// that is not used with a token.
    fn keys_in_files(data: &std::path::Path) -> Result<usize, Failed> {
        let names = fs::read_dir(data.join("keys/vault"))?.map(|file| Ok(file?.file_name()));
        let names = names.collect::<Result<Vec<_>, std::io::Error>>()?;
        Ok(names.iter().filter(|name| *name != "storage.sealed").count())
    }

    fn run(host: &Host, token: &Pkcs11Token, words: &[&str]) -> Result<Ended, Failed> {
        let (name, value) = token.environment();
        host.run_with(words, &[(name, &value.to_string_lossy())])
    }

    fn a_hierarchy_lives_in_a_token(token: &Pkcs11Token) -> Result<(), Failed> {
        let host = host_with(&token.module().to_string_lossy(), LABEL, token.pin())?;
        let made = run(&host, token, &INIT)?.ok()?;
        let described = made.json()?["vault"].to_string();
        if !described.contains("SoftHSM") || !described.contains(LABEL) {
            return Err(format!("it does not say where the keys are: {described}").into());
        }
        if !made.stderr.is_empty() {
            return Err(format!("words beside the answer: {}", made.stderr).into());
        }
        if keys_in_files(&host.data())? != 0 {
            return Err("there are keys in files".into());
        }
        keys_stay_inside(token, (4, 1, 5))?;
        failures_are_named(&host, token)?;
        let again = run(&host, token, &INIT)?.ok()?;
        if again.json()? != made.json()? {
            return Err("a second init made something new".into());
        }
        openssl_accepts_what_the_token_signed(&host, token)
    }

    /// As a program of another maker sees the token: so many private keys and secret keys, and so
    /// many that were made inside and never leave it.
    fn keys_stay_inside(token: &Pkcs11Token, wanted: (usize, usize, usize)) -> Result<(), Failed> {
        let (name, value) = token.environment();
        let mut tool = Command::new("pkcs11-tool");
        tool.arg("--module").arg(token.module()).env(name, value);
        let label = token.label();
        tool.args(["--token-label", label, "--login", "--pin", token.pin(), "--list-objects"]);
        let listing = String::from_utf8(tool.output()?.stdout)?;
        let secret = |kind: &str| listing.matches(&format!("{kind} Key Object")).count();
        let inside = "sensitive, always sensitive, never extractable, local";
        let counts = (secret("Private"), secret("Secret"), listing.matches(inside).count());
        if counts == wanted { Ok(()) } else { Err(format!("{counts:?}: {listing}").into()) }
    }

    fn failures_are_named(host: &Host, token: &Pkcs11Token) -> Result<(), Failed> {
        let wrong = "000000000042";
        fs::write(host.path("pin"), wrong)?;
        let ended = run(host, token, &INIT)?;
        expect_refused(&ended, 1, "pin-wrong")?;
        if ended.stdout.contains(wrong) || ended.stderr.contains(wrong) {
            return Err("the PIN was printed".into());
        }
        fs::write(host.path("pin"), token.pin())?;
        let (files, away) = (token.files(), host.path("away"));
        fs::rename(&files, &away)?;
        fs::create_dir(&files)?;
        let ended = run(host, token, &INIT)?;
        fs::remove_dir(&files)?;
        fs::rename(&away, &files)?;
        expect_refused(&ended, 3, "token-absent")
    }

    fn openssl_accepts_what_the_token_signed(
        host: &Host,
        token: &Pkcs11Token,
    ) -> Result<(), Failed> {
        let ports = Ports::pick()?;
        let (https, gateway) = (ports.https.to_string(), ports.gateway.to_string());
        let (name, value) = token.environment();
        let mut serve = command();
        serve.args(["--json", "serve", "--data", "data", "--https-port", &https]);
        serve.args(["--gateway-port", &gateway]).env(name, value).current_dir(host.path("."));
        serve.stderr(Stdio::null());
        let mut server = Process::start(serve)?;
        server.first_json()?;
        for what in ["root", "ca-kdh", "kdh", "crl-kdh"] {
            let api = ports.api();
            let client = ["--server", &api, "--ca", "ca.pem", "--token-file", "admin.token"];
            let export = host.run(&[&["rki", "export", what][..], &client].concat())?.ok()?;
            fs::write(host.path(&format!("{what}.pem")), export.stdout)?;
        }
        server.kill()?;
        let mut openssl = Command::new("openssl");
        openssl.args(["verify", "-crl_check", "-CAfile", "root.pem", "-untrusted", "ca-kdh.pem"]);
        openssl.args(["-CRLfile", "crl-kdh.pem", "kdh.pem"]).current_dir(host.path("."));
        let output = openssl.output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned().into())
    }
    /// The whole way (E1–E8): the server's keys live in one maker's token, the terminal's in
    /// another's. A token that cannot open what is sent to it is found out before it enrols.
    fn keys_come_from_a_token_into_a_token(
        softhsm: &SoftHsm,
        chip: &Pkcs11Token,
    ) -> Result<(), Failed> {
        let token = softhsm.token(LABEL)?;
        let host = host_with(&token.module().to_string_lossy(), LABEL, token.pin())?;
        let host = host.with_env(token.environment()).with_env(chip.environment());
        let mut shop = Shop::on(host, &["--bits", "2048"])?;
        shop.tmk()?;
        let code = shop.code("POS-1")?;
        refused_without_sha256(&shop, &softhsm.token("dull")?, &code)?;

        fs::write(shop.host.path("chip-pin"), chip.pin())?;
        let module = chip.module().to_string_lossy();
        let element = ["--pkcs11-module", &module, "--token", CHIP, "--pin-file", "chip-pin"];
        shop.try_enroll_with("POS-1", "POS-1", &code, &element, &[])?.ok()?;
        let status = shop.host.run(&["--json", "device", "pos", "status", "--device", "POS-1"])?;
        let described = status.ok()?.json()?["element"].to_string();
        assert!(described.contains(CHIP), "where its keys are: {described}");
        let injection = shop.assign("tmk", "0", "POS-1")?;
        let told = shop.updated("POS-1")?;
        assert_eq!(
            (&told["bound"], told["keys"].as_array().map(Vec::len)),
            (&json!(true), Some(1))
        );
        let first = shop.held("POS-1")?;
        let installed = ("installed".to_owned(), first[0].2.clone(), Value::Null);
        assert_eq!(shop.injection(&injection)?, installed, "the check value is the same");

        // In the field (E8); a wrong PIN or an absent token costs nothing but the try.
        let injection = shop.assign("tmk", "0", "POS-1")?;
        fs::write(shop.host.path("chip-pin"), "000000000042")?;
        shop.refused("POS-1", 1, "pin-wrong")?;
        fs::write(shop.host.path("chip-pin"), chip.pin())?;
        assert_eq!(shop.held("POS-1")?, first);
        shop.updated("POS-1")?;
        let held = shop.held("POS-1")?;
        assert_eq!(shop.injection(&injection)?.1, held[0].2);
        assert_eq!((held[1].1.as_str(), &held[1].2), ("previous", &first[0].2));

        keys_stay_inside(&token, (4, 1, 5))?;
        keys_stay_inside(chip, (1, 1, 2))?;
        assert_eq!(keys_in_files(&shop.host.data())?, 0, "there are keys in files");
        assert!(!exists(&shop.host.path("POS-1/element/krd.key")), "there is a key in a file");
        shop.audit_holds()
    }

    /// SoftHSM2's OAEP has SHA-1 only: nothing is enrolled, the code is not used up, and no RSA key
    /// stays in the token.
    fn refused_without_sha256(shop: &Shop, dull: &Pkcs11Token, code: &str) -> Result<(), Failed> {
        let (name, value) = dull.environment();
        let value = value.to_string_lossy();
        let module = dull.module().to_string_lossy();
        fs::write(shop.host.path("dull-pin"), dull.pin())?;
        let element = ["--pkcs11-module", &module, "--token", "dull", "--pin-file", "dull-pin"];
        let ended = shop.try_enroll_with("POS-1", "POS-1", code, &element, &[(name, &value)])?;
        expect_refused(&ended, 1, "oaep-sha256-unsupported")?;
        let terminal = shop.done(&["terminal", "show", "POS-1"])?;
        assert_eq!(terminal["state"], "allowed", "{terminal}");
        shop.refused("POS-1", 1, "device-not-enrolled")?;
        keys_stay_inside(dull, (0, 1, 1))
    }
}
