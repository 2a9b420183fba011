mod crash;
mod in_process;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use countersign_crypto::{rust_crypto, sm};
use countersign_payment::card::ChipError;
use countersign_payment::joint::card::JointChip;
use countersign_payment::joint::{Form, JointPassword};
use serde_json::json;
use tempfile::TempDir;
use testkit::pki::{LEAF_VALIDITY, NOW, TestPki};
use testkit::rng::seeded;

use super::*;
use crate::bank::{Alter, Bank, PAYER, SERVER_ID, transaction};
use crate::key::sealed::cheap;
use crate::{PIN_TRIES, PUK_DIGITS, PUK_TRIES};

const PIN: &[u8] = b"2580";
const NEW: &[u8] = b"135790";
const SERIAL: &str = "CARD-1";

fn secret(text: &[u8]) -> Secret {
    Secret::copied_from(text)
}

fn enrolment(serial: &str, pin: &[u8]) -> CardEnrolment {
    CardEnrolment {
        serial: serial.to_owned(),
        label: "a card".to_owned(),
        accounts: vec![PAYER.to_owned()],
        pin: secret(pin),
    }
}

fn enrol_with(bank: &Bank, path: &Path, serial: &str, pin: &[u8]) -> Result<CardDir, KeyError> {
    let (api, mut rng) = (bank.api(), seeded(5));
    CardDir::enroll(path, &enrolment(serial, pin), &api, &bank.provider, NOW, &mut rng)
}

fn enrol(bank: &Bank, path: &Path) -> Result<CardDir, KeyError> {
    enrol_with(bank, path, SERIAL, PIN)
}

/// A bank, and a card that it has enrolled.
fn enrolled(dir: &TempDir) -> (Bank, CardDir, Secret) {
    let bank = Bank::open(rust_crypto::provider());
    let mut card = enrol(&bank, &dir.path().join("card")).unwrap();
    let puk = card.take_puk().unwrap();
    (bank, card, puk)
}

/// Whether the bank would execute a payment on what this card signs, in this form.
fn pays(bank: &Bank, chip: &mut CardChipDir, form: Form) -> bool {
    let (mut rng, bytes) = (seeded(9), transaction("pay_1"));
    let password = JointPassword::random(&mut rng).unwrap();
    let (commitment, signature) = chip.commit_and_sign(&mut rng, form, &bytes, &password).unwrap();
    let other = loop {
        let other = JointPassword::random(&mut rng).unwrap();
        if !other.ct_eq(&password) {
            break other;
        }
    };
    let serial = chip.info().serial;
    let judge = |bytes: &[u8], password| {
        bank.judge(&serial, bytes, (&commitment, &signature), password).map_err(|e| e.check())
    };
    assert_eq!(judge(&transaction("pay_2"), &password), Err("answer-signature"));
    let right = judge(&bytes, &password);
    // What the server cannot open is nothing of the password.
    let closed = Err("joint-sealed");
    let wrong = if right == closed { closed } else { Err("joint-password") };
    assert_eq!(judge(&bytes, &other), wrong);
    right.is_ok()
}

fn wrong_pin(chip: &mut CardChipDir) -> ChipError {
    chip.check_pin(&secret(b"0000")).unwrap_err()
}

#[test]
fn an_enrolled_card_signs_what_the_server_executes_in_both_suites() {
    let dir = tempfile::tempdir().unwrap();
    for provider in [rust_crypto::provider(), sm::provider()] {
        let suite = provider.suite;
        let bank = Bank::open(provider);
        let path = dir.path().join(suite.name().unwrap());
        let mut card = enrol(&bank, &path).unwrap();
        assert_eq!(card.take_puk().unwrap().len(), PUK_DIGITS);
        assert!(card.take_puk().is_none(), "told once");
        let wanted = CardSettings {
            serial: SERIAL.to_owned(),
            suite,
            server_id: SERVER_ID.to_owned(),
            account: PAYER.to_owned(),
        };
        assert_eq!((card.settings(), card.is_enrolled()), (&wanted, true));
        let number = card.certificate_number().unwrap().unwrap();
        let held = bank.state().cards[SERIAL].certificate.clone();
        assert_eq!(number, countersign_pki::number(&held).unwrap().to_string());
        assert_eq!((card.tries_left().unwrap(), card.puk_tries_left().unwrap()), (3, Some(10)));
        drop(card);

        let mut chip = CardChipDir::new(CardDir::open(&path).unwrap(), NOW).unwrap();
        let info = chip.info();
        assert_eq!((info.serial.as_str(), info.suite), (SERIAL, suite));
        assert_eq!((info.server_id.as_str(), info.account.as_str()), (SERVER_ID, PAYER));
        let mut forms = info.forms;
        forms.sort();
        assert_eq!(forms, Form::ALL, "all of them");
        assert_eq!(chip.certificate(), Some(held));
        for form in Form::ALL {
            assert!(pays(&bank, &mut chip, form), "{suite}, {}", form.name());
        }
    }
}

#[test]
fn its_files_are_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (_bank, card, _puk) = enrolled(&dir);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&card.path()), 0o700);
    let mut count = 0;
    for entry in fs::read_dir(card.path()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        count += 1;
    }
    // As the table of this module has them, and the lock.
    assert_eq!(count, 14);
}

#[test]
fn enrolled_again_it_has_the_same_certificate_and_another_shared_key() {
    let dir = tempfile::tempdir().unwrap();
    let (bank, card, _puk) = enrolled(&dir);
    let (path, number) = (card.path(), card.certificate_number().unwrap());
    let shared = card.shared().unwrap();
    drop(card);
    assert_eq!(enrol_with(&bank, &path, SERIAL, b"0000").err().unwrap().check(), "pin-wrong");
    let mut again = enrol(&bank, &path).unwrap();
    assert_eq!(again.certificate_number().unwrap(), number);
    assert!(again.take_puk().is_none(), "its holder has the PUK");
    assert!(!again.shared().unwrap().ct_eq(shared.expose()));
    let mut chip = CardChipDir::new(again, NOW).unwrap();
    assert!(pays(&bank, &mut chip, Form::Digest));
}

/// The server gives the accounts in an order of its own.
#[test]
fn terminals_are_told_the_account_that_was_named_first() {
    cheap::on();
    let dir = tempfile::tempdir().unwrap();
    let bank = Bank::open(rust_crypto::provider());
    bank.state().accounts = vec![["acc_1", "SAVINGS01"], ["acc_2", PAYER], ["acc_3", "THIRD0001"]];
    for (accounts, told) in [
        (&[PAYER, "SAVINGS01"][..], PAYER),
        (&["acc_2", "acc_1"], PAYER),
        (&["acc_2", "SAVINGS01"], PAYER),
        (&["SAVINGS01", PAYER], "SAVINGS01"),
        (&["acc_3", "acc_1", "acc_2"], "THIRD0001"),
        (&["SAVINGS01"], "SAVINGS01"),
        (&[], ""),
    ] {
        let path = dir.path().join(format!("card {}", accounts.join("-")));
        let accounts = accounts.iter().map(|&account| account.to_owned()).collect();
        let enrolment = CardEnrolment { accounts, ..enrolment(SERIAL, PIN) };
        let (api, mut rng) = (bank.api(), seeded(5));
        let made = CardDir::enroll(&path, &enrolment, &api, &bank.provider, NOW, &mut rng).unwrap();
        assert_eq!(made.settings().account, told);
        drop(made);
        let chip = CardChipDir::new(CardDir::open(&path).unwrap(), NOW).unwrap();
        assert_eq!(chip.info().account, told);
    }
}

/// Whose PUK was told keeps it, however often a second enrolment breaks off.
#[test]
fn a_second_enrolment_that_breaks_off_leaves_the_puk_that_was_told() {
    cheap::on();
    let dir = tempfile::tempdir().unwrap();
    let (bank, card, puk) = enrolled(&dir);
    let path = card.path();
    drop(card);
    // What comes back is not for this card, so that its server is taken out of its settings.
    bank.state().alter = Some(("/joint", |answer| {
        answer["serverEncryptionCertificate"] = answer["certificate"].clone();
    }));
    for _ in 0..2 {
        assert!(enrol(&bank, &path).is_err());
        assert!(!CardDir::open(&path).unwrap().is_enrolled());
    }
    bank.state().alter = None;
    let mut again = enrol(&bank, &path).unwrap();
    assert!(again.take_puk().is_none(), "its holder has one");
    again.unblock(&puk, &secret(NEW), &mut seeded(1)).unwrap();
    let mut chip = CardChipDir::new(again, NOW).unwrap();
    chip.check_pin(&secret(NEW)).unwrap();
    assert!(pays(&bank, &mut chip, Form::Digest));
}

/// Ten wrong PUKs end it for good: no enrolment gives another, whatever became of the first one.
#[test]
fn a_blocked_puk_stays_blocked_when_it_is_enrolled_again() {
    cheap::on();
    let wrong_puks = |card: &mut CardDir, puk: &Secret| {
        let wrong = secret(if puk.ct_eq(b"00000000") { b"00000001" } else { b"00000000" });
        for _ in 0..PUK_TRIES {
            card.unblock(&wrong, &secret(NEW), &mut seeded(1)).unwrap_err();
        }
        assert_eq!(card.puk_tries_left().unwrap(), Some(0));
    };
    let dir = tempfile::tempdir().unwrap();
    let bank = Bank::open(rust_crypto::provider());
    // Cut off before it had a certificate, and after.
    for (at, cut_off) in ["before", "after"].into_iter().enumerate() {
        let path = dir.path().join(cut_off);
        let mut card = match at {
            0 => {
                bank.state().lose = 1;
                assert!(enrol(&bank, &path).is_err());
                CardDir::open(&path).unwrap()
            }
            _ => enrol(&bank, &path).unwrap(),
        };
        let puk = card.take_puk().unwrap_or_else(|| secret(b"12345678"));
        wrong_puks(&mut card, &puk);
        drop(card);
        if at == 1 {
            bank.state().alter = Some(("/joint", |answer| {
                answer["serverEncryptionCertificate"] = answer["certificate"].clone();
            }));
            assert!(enrol(&bank, &path).is_err());
            bank.state().alter = None;
        }
        let mut again = enrol(&bank, &path).unwrap();
        assert!(again.take_puk().is_none(), "{cut_off}");
        assert_eq!(again.puk_tries_left().unwrap(), Some(0), "{cut_off}");
        let refused = again.renew_puk(&secret(PIN), &mut seeded(1)).err().unwrap();
        assert_eq!(refused.check(), "puk-blocked");
        let mut chip = CardChipDir::new(again, NOW).unwrap();
        chip.check_pin(&secret(PIN)).unwrap();
    }
}

/// What it says goes on with a card, not with the other kind of device.
#[test]
fn what_it_says_names_its_own_commands() {
    cheap::on();
    let dir = tempfile::tempdir().unwrap();
    let (bank, mut card, puk) = enrolled(&dir);
    let path = card.path();
    for file in ["puk.sealed", "puk-tries"] {
        fs::remove_file(path.join(file)).unwrap();
    }
    let absent = card.unblock(&puk, &secret(NEW), &mut seeded(1)).unwrap_err();
    assert_eq!(absent.check(), "puk-absent");
    let made = card.renew_puk(&secret(PIN), &mut seeded(2)).unwrap();
    card.unblock(&made, &secret(PIN), &mut seeded(3)).unwrap();
    drop(card);
    bank.state().lose = 1;
    let cut_off = dir.path().join("cut off");
    assert!(enrol(&bank, &cut_off).is_err());
    let not_enrolled = CardDir::open(&cut_off).unwrap().refresh(&bank.api(), NOW).unwrap_err();
    let unusable = CardChipDir::new(CardDir::open(&cut_off).unwrap(), NOW).err().unwrap();
    let not_ours = CardDir::open(dir.path()).err().unwrap();
    for (error, command) in
        [(absent, "puk"), (not_enrolled, "enroll"), (unusable, "enroll"), (not_ours, "enroll")]
    {
        let text = error.to_string();
        assert!(text.contains(&format!("countersign device card {command}")), "{text}");
    }
}

#[test]
fn an_answer_that_got_lost_is_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let bank = Bank::open(rust_crypto::provider());
    let path = dir.path().join("card");
    bank.state().lose = 1;
    assert!(matches!(enrol(&bank, &path), Err(KeyError::Api(_))));
    let cut_off = CardDir::open(&path).unwrap();
    assert!(!cut_off.is_enrolled());
    let error = cut_off.refresh(&bank.api(), NOW).unwrap_err();
    assert!(matches!(error, KeyError::CardNotEnrolled(_)), "{error}");
    let error = CardChipDir::new(cut_off, NOW).err().unwrap();
    assert_eq!(error.check(), "device-not-enrolled");
    let mut card = enrol(&bank, &path).unwrap();
    let puk = card.take_puk().unwrap();
    card.unblock(&puk, &secret(NEW), &mut seeded(1)).unwrap();
    let mut chip = CardChipDir::new(card, NOW).unwrap();
    assert!(pays(&bank, &mut chip, Form::Digest));
}

#[test]
fn what_is_not_for_this_card_is_not_taken() {
    cheap::on();
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&str, &str, Alter); 10] = [
        ("no key", "device-foreign", |answer| answer["sharedKey"] = json!("")),
        ("a short key", "device-foreign", |answer| answer["sharedKey"] = json!("00".repeat(31))),
        ("no hex", "device-foreign", |answer| answer["sharedKey"] = json!("zz".repeat(32))),
        ("no certificate", "device-foreign", |answer| answer["certificate"] = json!("hello")),
        ("a key instead", "device-foreign", |answer| {
            let text = answer["certificate"].as_str().unwrap();
            answer["certificate"] = json!(text.replace("CERTIFICATE", "PRIVATE KEY"));
        }),
        ("an issuer as certificate", "certificate-role", |answer| {
            answer["certificate"] = answer["deviceIssuer"].clone();
        }),
        ("the server's issuer for devices", "certificate-issuer", |answer| {
            answer["deviceIssuer"] = answer["serverIssuer"].clone();
        }),
        ("its own certificate to encrypt to", "certificate-usage", |answer| {
            answer["serverEncryptionCertificate"] = answer["certificate"].clone();
        }),
        ("another server's certificate", "device-foreign", |answer| {
            answer["serverId"] = json!("other.example");
        }),
        ("nothing to encrypt to", "enrolment", |answer| {
            answer.as_object_mut().unwrap().remove("serverEncryptionCertificate");
        }),
    ];
    for (at, (what, check, alter)) in cases.into_iter().enumerate() {
        let bank = Bank::open(rust_crypto::provider());
        bank.state().alter = Some(("/joint", alter));
        let path = dir.path().join(at.to_string());
        let error = enrol(&bank, &path).err().unwrap();
        assert_eq!(error.check(), check, "{what}: {error}");
        assert!(!CardDir::open(&path).unwrap().is_enrolled(), "{what}");
        bank.state().alter = None;
        enrol(&bank, &path).unwrap();
    }
}

#[test]
fn one_program_at_a_time_and_one_card_per_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (bank, card, _puk) = enrolled(&dir);
    let path = card.path();
    assert_eq!(CardDir::open(&path).err().unwrap().check(), "device-busy");
    drop(card);
    let error = enrol_with(&bank, &path, "CARD-2", PIN).err().unwrap();
    assert_eq!(error.check(), "device-other");
    for bad in [&b"123"[..], b"1234567890123", b"12345a", b""] {
        assert_eq!(enrol_with(&bank, &path, SERIAL, bad).err().unwrap().check(), "pin-form");
    }
    let error = enrol_with(&bank, &path, "CARD/1", PIN).err().unwrap();
    assert!(matches!(error, KeyError::Serial(_)), "{error}");
    // Nor somebody else's files, nor a card's without its marker.
    for file in ["notes.txt", KEY] {
        let path = dir.path().join(format!("with {file}"));
        fs::create_dir(&path).unwrap();
        fs::write(path.join(file), "mine").unwrap();
        assert_eq!(enrol(&bank, &path).err().unwrap().check(), "device-not-ours");
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "nothing was added");
    }
}

#[test]
fn files_of_two_cards_cannot_be_exchanged() {
    let dir = tempfile::tempdir().unwrap();
    let (bank, one, _puk) = enrolled(&dir);
    let two = enrol_with(&bank, &dir.path().join("two"), "CARD-2", b"1111").unwrap();
    fs::copy(two.path().join(CONSENT), one.path().join(CONSENT)).unwrap();
    let mut chip = CardChipDir::new(one, NOW).unwrap();
    assert_eq!(chip.check_pin(&secret(b"1111")), Err(ChipError::PinWrong { left: 2 }));
    // Another card's shared key commits to what the server does not take from this one.
    let path = chip.directory().path();
    drop(chip);
    fs::copy(two.path().join(SHARED), path.join(SHARED)).unwrap();
    let mut chip = CardChipDir::new(CardDir::open(&path).unwrap(), NOW).unwrap();
    assert!(!pays(&bank, &mut chip, Form::Digest));
    assert!(pays(&bank, &mut chip, Form::Sealed));
    fs::write(path.join(SHARED), "00").unwrap();
    drop(chip);
    let error = CardChipDir::new(CardDir::open(&path).unwrap(), NOW).err().unwrap();
    assert_eq!(error.check(), "device-damaged");
}

#[test]
fn three_wrong_pins_block_it_until_its_puk_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let (bank, card, puk) = enrolled(&dir);
    let mut chip = CardChipDir::new(card, NOW).unwrap();
    for left in [2, 1] {
        assert_eq!(wrong_pin(&mut chip), ChipError::PinWrong { left });
        // What was counted stays so when the program is started again.
        let path = chip.directory().path();
        drop(chip);
        chip = CardChipDir::new(CardDir::open(&path).unwrap(), NOW).unwrap();
    }
    assert_eq!(chip.check_pin(&secret(b"12ab")), Err(ChipError::PinForm));
    chip.check_pin(&secret(PIN)).unwrap();
    assert_eq!(chip.tries().unwrap().pin, 3, "the right one gives them all back");
    for left in [2, 1] {
        assert_eq!(wrong_pin(&mut chip), ChipError::PinWrong { left });
    }
    assert_eq!(wrong_pin(&mut chip), ChipError::PinBlocked);
    assert_eq!(chip.check_pin(&secret(PIN)), Err(ChipError::PinBlocked));
    let card = chip.directory_mut();
    let mut rng = seeded(3);
    let changed = card.change_pin(&secret(PIN), &secret(NEW), &mut rng);
    assert_eq!(changed.unwrap_err().check(), "pin-blocked");
    let wrong = secret(if puk.ct_eq(b"00000000") { b"00000001" } else { b"00000000" });
    let unblocked = card.unblock(&wrong, &secret(NEW), &mut rng);
    assert_eq!(unblocked.unwrap_err().check(), "puk-wrong");
    assert_eq!(card.puk_tries_left().unwrap(), Some(PUK_TRIES - 1));
    card.unblock(&puk, &secret(NEW), &mut rng).unwrap();
    let left = (card.tries_left().unwrap(), card.puk_tries_left().unwrap());
    assert_eq!(left, (PIN_TRIES, Some(PUK_TRIES)));
    assert_eq!(chip.check_pin(&secret(PIN)), Err(ChipError::PinWrong { left: 2 }));
    chip.check_pin(&secret(NEW)).unwrap();
    assert!(pays(&bank, &mut chip, Form::SealedRandom), "its keys are as they were");
}

#[test]
fn pin_and_puk_can_be_changed() {
    let dir = tempfile::tempdir().unwrap();
    let (_bank, mut card, old) = enrolled(&dir);
    let mut rng = seeded(3);
    let error = card.change_pin(&secret(b"0000"), &secret(NEW), &mut rng).unwrap_err();
    assert_eq!(error.check(), "pin-wrong");
    assert_eq!(
        card.change_pin(&secret(PIN), &secret(b"1"), &mut rng).unwrap_err().check(),
        "pin-form"
    );
    card.change_pin(&secret(PIN), &secret(NEW), &mut rng).unwrap();
    assert_eq!(card.renew_puk(&secret(PIN), &mut rng).err().unwrap().check(), "pin-wrong");
    let puk = card.renew_puk(&secret(NEW), &mut rng).unwrap();
    assert_eq!(card.unblock(&old, &secret(PIN), &mut rng).unwrap_err().check(), "puk-wrong");
    card.unblock(&puk, &secret(PIN), &mut rng).unwrap();
    let mut chip = CardChipDir::new(card, NOW).unwrap();
    chip.check_pin(&secret(PIN)).unwrap();
}

#[test]
fn a_new_key_of_the_server_is_taken_under_the_root_that_was_pinned() {
    let dir = tempfile::tempdir().unwrap();
    let (bank, card, _puk) = enrolled(&dir);
    let path = card.path();
    bank.state().renew_encryption();
    let mut chip = CardChipDir::new(card, NOW).unwrap();
    assert!(!pays(&bank, &mut chip, Form::Sealed), "to a key that the server has no more");
    assert!(pays(&bank, &mut chip, Form::Digest));
    drop(chip);
    let card = CardDir::open(&path).unwrap();
    card.refresh(&bank.api(), NOW).unwrap();
    assert!(pays(&bank, &mut CardChipDir::new(card, NOW).unwrap(), Form::Sealed));

    // Somebody else's server, with the same name or with another, gives nothing that is taken.
    let held = || fs::read(path.join("server-encryption.pem")).unwrap();
    let before = held();
    let card = CardDir::open(&path).unwrap();
    let refused = |bank: &Bank| card.refresh(&bank.api(), NOW).unwrap_err();
    let stranger = Bank::open(rust_crypto::provider());
    stranger.state().pki = TestPki::new(rust_crypto::provider(), 8);
    stranger.state().renew_encryption();
    assert!(matches!(refused(&stranger), KeyError::Pki(_)));
    bank.state().server_id = "other.example".to_owned();
    bank.state().renew_encryption();
    assert!(matches!(refused(&bank), KeyError::Foreign));
    bank.state().alter = Some(("/terms", |answer| {
        answer.as_object_mut().unwrap().remove("serverEncryptionCertificate");
    }));
    assert_eq!(refused(&bank).check(), "server-encryption");
    assert_eq!(held(), before);

    // One that has expired is not encrypted to.
    let late = NOW.plus(2 * LEAF_VALIDITY);
    let error = CardChipDir::new(card, late).err().unwrap();
    assert!(matches!(error, KeyError::Pki(_)), "{error}");
}
