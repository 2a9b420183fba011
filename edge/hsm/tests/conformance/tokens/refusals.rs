//! What a token refuses, and how it comes back.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use countersign_crypto::Secret;
use countersign_hsm::{Pkcs11Config, Pkcs11Vault, RsaUse, TokenName, Vault};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use tr34::{Rsa, RsaError};

use super::{LABEL, Step};
use crate::stage::refused;

/// Names of trials and their steps, each a process.
pub(super) const SOFTHSM: &[(&str, &[&str])] = &[
    ("a wrong PIN", &["wrong-pin"]),
    ("no such token, no such module", &["absent"]),
    ("two tokens of one name", &["ambiguous"]),
    ("a token taken away", &["taken-away"]),
    ("lost sessions are opened again", &["sessions-lost"]),
    ("keys that could leave are refused", &["exposed"]),
    ("other objects of the token are left alone", &["foreign"]),
    ("two keys of one label are refused", &["duplicates"]),
    ("of two that make a key at once one has made it", &["raced"]),
    ("another key in the place of a known one", &["exchanged"]),
];

pub(super) fn run(step: &Step) {
    match step.name.as_str() {
        "wrong-pin" => wrong_pin(step),
        "pin-changed" => pin_changed(step),
        "pin-locked" => pin_locked(step),
        "pin-not-set" => assert_eq!(refused(step.open()), "pin-not-set"),
        "foreign" => foreign(step),
        "absent" => absent(step),
        "ambiguous" => ambiguous(step),
        "taken-away" => taken_away(step),
        "sessions-lost" => sessions_lost(step),
        "exposed" => exposed(step),
        "duplicates" => duplicates(step),
        "raced" => raced(step),
        "exchanged" => exchanged(step),
        "without-mechanisms" => without_mechanisms(step),
        other => panic!("no step {other}"),
    }
}

/// A program of another vendor that works on the token.
pub(super) fn pkcs11_tool(step: &Step, arguments: &[&str]) {
    let mut tool = Command::new("pkcs11-tool");
    tool.arg("--module").arg(&step.module).args(["--token-label", LABEL, "--login"]);
    let output = tool.args(["--pin", &step.pin]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn wrong_pin(step: &Step) {
    let secret = "000000000042";
    let config = || Pkcs11Config { pin: Secret::copied_from(secret.as_bytes()), ..step.config() };
    let error = step.open_with(config()).err().unwrap();
    assert_eq!(error.check(), "pin-wrong");
    assert!(!format!("{error} {error:?} {:?}", config()).contains(secret));
    assert!(step.open().is_ok(), "the right one still opens");
}

/// Somebody tries PINs; the token locks after ten.
fn pin_locked(step: &Step) {
    let guess = || Pkcs11Config { pin: Secret::copied_from(b"000000000042"), ..step.config() };
    let answers: Vec<_> = (0..12).map(|_| refused(step.open_with(guess()))).collect();
    assert_eq!(answers[0], "pin-wrong");
    assert_eq!(answers[11], "pin-locked");
    assert_eq!(refused(step.open()), "pin-locked", "the right one too");
}

/// Somebody changes the PIN while a vault is open and has to log in again.
fn pin_changed(step: &Step) {
    let new_pin = "975318642013";
    let vault = step.open().unwrap();
    let key = vault.rsa_generate("kdh", RsaUse::Sign, 2048).unwrap();
    pkcs11_tool(step, &["--change-pin", "--new-pin", new_pin]);
    same_module(step).finalize().unwrap();
    // The token locks after ten wrong PINs.
    for _ in 0..20 {
        assert_eq!(key.sign(b"x").err(), Some(RsaError::Failed));
        assert_eq!(refused(vault.rsa_open("kdh")), "pin-wrong");
    }
    drop(vault);
    let pin = Secret::copied_from(new_pin.as_bytes());
    let vault = step.open_with(Pkcs11Config { pin, ..step.config() }).unwrap();
    vault.rsa_open("kdh").unwrap();
}

fn absent(step: &Step) {
    let named = |token| refused(step.open_with(Pkcs11Config { token, ..step.config() }));
    assert_eq!(named(TokenName::Label("another".into())), "token-absent");
    assert_eq!(named(TokenName::Serial("0".into())), "token-absent");
    let module = |path: &str| {
        refused(step.open_with(Pkcs11Config { module: PathBuf::from(path), ..step.config() }))
    };
    assert_eq!(module("/nonexistent.so"), "pkcs11-module");
    assert_eq!(module("libm.so.6"), "pkcs11-module", "a library of another kind");
    // By its serial number it is found.
    let described = step.open().unwrap().describe().unwrap();
    let countersign_hsm::Description::Token { serial, label, .. } = described else {
        panic!("a token")
    };
    assert_eq!(label, LABEL);
    assert!(
        step.open_with(Pkcs11Config { token: TokenName::Serial(serial), ..step.config() }).is_ok()
    );
}

fn ambiguous(step: &Step) {
    let mut init = Command::new("softhsm2-util");
    init.args(["--init-token", "--free", "--label", LABEL]);
    let output = init.args(["--so-pin", "97531864", "--pin", &step.pin]).output().unwrap();
    assert!(output.status.success());
    assert_eq!(refused(step.open()), "token-ambiguous");
}

fn taken_away(step: &Step) {
    let vault = step.open().unwrap();
    let key = vault.rsa_generate("kdh", RsaUse::Sign, 2048).unwrap();
    let held = vault.storage_key("storage").unwrap();
    let before = held.cmac(b"x").unwrap();
    let token = fs::read_dir(&step.files).unwrap().next().unwrap().unwrap().path();
    // Only the token, then everything that the module knows.
    for files in [&token, &step.files] {
        let away = step.folder.join("away");
        fs::rename(files, &away).unwrap();
        // First, because the module itself says of a token that is gone that it is empty.
        let labels = refused(vault.labels());
        assert_eq!(key.sign(b"x").err(), Some(RsaError::Failed));
        assert!(held.cmac(b"x").is_err());
        for gone in [
            labels,
            refused(vault.describe()),
            refused(vault.rsa_open("kdh")),
            refused(vault.storage_key("storage")),
            refused(vault.storage_key("another")),
            refused(vault.rsa_generate("another", RsaUse::Sign, 2048)),
            refused(vault.random(1)),
        ] {
            assert!(["token-absent", "token-lost"].contains(&gone), "{gone}");
        }
        fs::rename(&away, files).unwrap();
        let signature = key.sign(b"back").unwrap();
        tr34::aws_lc::AwsLc.verify(key.public_key(), b"back", &signature).unwrap();
        assert!(held.cmac(b"x").unwrap().ct_eq(before.expose()));
        assert_eq!(vault.labels().unwrap().len(), 2, "nothing was made meanwhile");
    }
}

/// The module again, as another user of it in the same process.
fn same_module(step: &Step) -> Pkcs11 {
    let module = Pkcs11::new(&step.module).unwrap();
    let _already = module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
    module
}

fn sessions_lost(step: &Step) {
    let vault = step.open().unwrap();
    let key = vault.rsa_generate("kdh", RsaUse::Sign, 2048).unwrap();
    let held = vault.storage_key("storage").unwrap();
    let before = held.cmac(b"x").unwrap();
    let other = same_module(step);
    for _ in 0..3 {
        // The login is one for all sessions of a process: this ends everybody's.
        for slot in other.get_slots_with_initialized_token().unwrap() {
            other.open_rw_session(slot).unwrap().logout().unwrap();
        }
        let signature = key.sign(b"again").unwrap();
        tr34::aws_lc::AwsLc.verify(key.public_key(), b"again", &signature).unwrap();
        assert!(held.cmac(b"x").unwrap().ct_eq(before.expose()));
    }
    // Somebody ends the module altogether.
    other.finalize().unwrap();
    assert!(held.cmac(b"x").unwrap().ct_eq(before.expose()));
    assert_eq!(vault.labels().unwrap().len(), 2);
}

fn exposed(step: &Step) {
    let vault = step.open().unwrap();
    let aes = ["--keygen", "--key-type", "AES:32", "--label", "aes", "--extractable"];
    pkcs11_tool(step, &aes);
    let rsa = ["--keypairgen", "--key-type", "rsa:2048", "--label", "rsa", "--extractable"];
    pkcs11_tool(step, &rsa);
    assert_eq!(refused(vault.rsa_open("rsa")), "key-exposed");
    assert_eq!(refused(vault.storage_key("aes")), "key-exposed");
    assert_eq!(refused(vault.cmac_open("aes")), "key-exposed");
    assert_eq!(refused(vault.rsa_generate("rsa", RsaUse::Sign, 2048)), "label-taken");
}

fn foreign(step: &Step) {
    let vault = step.open().unwrap();
    pkcs11_tool(step, &["--keypairgen", "--key-type", "EC:prime256v1", "--label", "ec"]);
    pkcs11_tool(step, &["--keypairgen", "--key-type", "rsa:2048", "--label", "a label of others"]);
    vault.storage_key("ours").unwrap();
    let labels: Vec<_> = vault.labels().unwrap().into_iter().map(|key| key.label).collect();
    assert_eq!(labels, ["ours"]);
    assert_eq!(refused(vault.rsa_open("ec")), "key-kind");
    assert_eq!(refused(vault.rsa_delete("ec")), "key-kind");
    assert_eq!(refused(vault.cmac_delete("ec")), "key-kind");
    assert_eq!(refused(vault.storage_key("ec")), "key-kind");
    assert_eq!(refused(vault.rsa_generate("ec", RsaUse::Sign, 2048)), "label-taken");
}

fn duplicates(step: &Step) {
    let vault = step.open().unwrap();
    vault.rsa_generate("kdh", RsaUse::Sign, 2048).unwrap();
    pkcs11_tool(step, &["--keypairgen", "--key-type", "rsa:2048", "--label", "kdh"]);
    assert_eq!(refused(vault.rsa_open("kdh")), "label-ambiguous");
    assert_eq!(refused(vault.rsa_delete("kdh")), "label-ambiguous");
}

/// Two vaults know nothing of each other, as if in two processes.
fn raced(step: &Step) {
    let vaults = [step.open().unwrap(), step.open().unwrap()];
    for label in ["one", "two", "three"] {
        let made = std::thread::scope(|scope| {
            let make = |vault| move || Pkcs11Vault::rsa_generate(vault, label, RsaUse::Sign, 2048);
            let threads = [scope.spawn(make(&vaults[0])), scope.spawn(make(&vaults[1]))];
            threads.map(|thread| thread.join().unwrap())
        });
        let keys: Vec<_> = made.iter().flatten().collect();
        // If each sees the other's, both are taken back.
        assert!(keys.len() <= 1, "{label}");
        for refusal in made.iter().filter_map(|made| made.as_ref().err()) {
            assert_eq!(refusal.check(), "label-taken");
        }
        match keys.first() {
            Some(key) => {
                let opened = vaults[0].rsa_open(label).unwrap();
                assert_eq!(opened.public_key(), key.public_key());
            }
            None => assert_eq!(refused(vaults[0].rsa_open(label)), "label-unknown"),
        }
    }
}

/// While a vault holds a key its object is replaced by another key of the same label.
fn exchanged(step: &Step) {
    let vault = step.open().unwrap();
    let key = vault.rsa_generate("kdh", RsaUse::Sign, 2048).unwrap();
    let held = vault.storage_key("storage").unwrap();
    pkcs11_tool(step, &["--delete-object", "--type", "privkey", "--label", "kdh"]);
    pkcs11_tool(step, &["--delete-object", "--type", "pubkey", "--label", "kdh"]);
    pkcs11_tool(step, &["--delete-object", "--type", "secrkey", "--label", "storage"]);
    assert_eq!(key.sign(b"x").err(), Some(RsaError::Failed), "it is gone");
    let second = step.open().unwrap();
    let other = second.rsa_generate("kdh", RsaUse::Sign, 2048).unwrap();
    second.storage_key("storage").unwrap();
    assert_ne!(other.public_key(), key.public_key());
    assert_eq!(key.sign(b"x").err(), Some(RsaError::Failed), "another key does not stand in");
    assert!(held.cmac(b"x").is_err());
    assert!(other.sign(b"x").is_ok());
}

fn without_mechanisms(step: &Step) {
    let vault = step.open().unwrap();
    let error = vault.storage_key("storage").err().unwrap();
    assert_eq!(error.check(), "mechanism-unsupported");
    assert!(error.to_string().contains("CKM_AES_CMAC"), "{error}");
    let error = vault.rsa_generate("kdh", RsaUse::Sign, 2048).err().unwrap();
    assert_eq!(error.check(), "mechanism-unsupported");
    assert!(error.to_string().contains("CKM_SHA256_RSA_PKCS"), "{error}");
    assert!(vault.labels().unwrap().is_empty());
}
