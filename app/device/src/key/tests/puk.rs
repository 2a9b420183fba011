use std::path::Path;

use testkit::pki::NOW;

use super::*;
use crate::bank::Bank;
use crate::key::sealed::cheap;

const NEW: &[u8] = b"135790";

/// A device with its PUK.
fn with_puk(dir: &TempDir) -> (KeyDir, Secret) {
    let mut device = pki(dir, "KEY-1");
    let puk = device.take_puk().unwrap();
    assert!(device.take_puk().is_none(), "told once");
    assert_eq!(puk.len(), PUK_DIGITS);
    (device, puk)
}

/// A PUK that is not this one.
fn wrong(puk: &Secret) -> Secret {
    let mut other = puk.expose().to_vec();
    other[0] = if other[0] == b'0' { b'1' } else { b'0' };
    Secret::new(other)
}

fn block(device: &mut KeyDir) {
    for check in ["pin-wrong", "pin-wrong", "pin-blocked"] {
        assert_eq!(refused(device, &bytes(), &mut Types::pin(b"0000")).check(), check);
    }
}

fn confirms(device: &mut KeyDir, pin: &[u8]) {
    device.confirm(&bytes(), &mut Types::pin(pin), &mut seeded(9)).unwrap();
}

fn tries(device: &KeyDir) -> (u32, Option<u32>) {
    (device.tries_left().unwrap(), device.puk_tries_left().unwrap())
}

#[test]
fn a_puk_unblocks_it_and_gives_all_tries_back() {
    let dir = tempfile::tempdir().unwrap();
    let (mut device, puk) = with_puk(&dir);
    block(&mut device);
    let mut unblock = |puk: &Secret, new: &[u8]| device.unblock(puk, &secret(new), &mut seeded(9));
    assert_eq!(unblock(&wrong(&puk), NEW).unwrap_err().check(), "puk-wrong");
    assert_eq!(unblock(&wrong(&puk), NEW).unwrap_err().check(), "puk-wrong");
    // Of no form that a PUK or a PIN has: no try is lost.
    assert_eq!(unblock(&secret(b"1234567"), NEW).unwrap_err().check(), "puk-form");
    assert_eq!(unblock(&puk, b"12").unwrap_err().check(), "pin-form");
    assert_eq!(tries(&device), (0, Some(PUK_TRIES - 2)));
    device.unblock(&puk, &secret(NEW), &mut seeded(9)).unwrap();
    assert_eq!(tries(&device), (PIN_TRIES, Some(PUK_TRIES)));
    assert_eq!(refused(&mut device, &bytes(), &mut Types::pin(PIN)).check(), "pin-wrong");
    confirms(&mut device, NEW);
}

#[test]
fn ten_wrong_puks_end_it_for_good_and_leave_the_pin() {
    let dir = tempfile::tempdir().unwrap();
    let (mut device, puk) = with_puk(&dir);
    for left in (1..PUK_TRIES).rev() {
        let error = device.unblock(&wrong(&puk), &secret(NEW), &mut seeded(9)).unwrap_err();
        assert!(matches!(error, KeyError::PukWrong { left: told } if told == left), "{error}");
        // What was counted stays so when the program is started again.
        let path = device.path();
        drop(device);
        device = KeyDir::open(&path).unwrap();
    }
    for puk in [wrong(&puk), puk] {
        let error = device.unblock(&puk, &secret(NEW), &mut seeded(9)).unwrap_err();
        assert_eq!(error.check(), "puk-blocked");
    }
    assert_eq!(tries(&device), (PIN_TRIES, Some(0)));
    confirms(&mut device, PIN);
    // Nor does the right PIN give it another PUK.
    let error = device.renew_puk(&secret(PIN), &mut seeded(9)).err().unwrap();
    assert_eq!(error.check(), "puk-blocked");
}

#[test]
fn a_changed_pin_leaves_the_puk_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (mut device, puk) = with_puk(&dir);
    device.change_pin(&secret(PIN), &secret(NEW), &mut seeded(9)).unwrap();
    block(&mut device);
    device.unblock(&puk, &secret(PIN), &mut seeded(10)).unwrap();
    confirms(&mut device, PIN);
}

#[test]
fn a_device_from_before_has_no_puk_until_its_pin_makes_one() {
    let dir = tempfile::tempdir().unwrap();
    let (mut device, puk) = with_puk(&dir);
    for file in ["puk.sealed", "puk-tries"] {
        fs::remove_file(device.path().join(file)).unwrap();
    }
    assert_eq!(device.puk_tries_left().unwrap(), None);
    let error = device.unblock(&puk, &secret(NEW), &mut seeded(9)).unwrap_err();
    assert_eq!(error.check(), "puk-absent");
    let error = device.renew_puk(&secret(b"0000"), &mut seeded(11)).err().unwrap();
    assert_eq!((error.check(), device.puk_tries_left().unwrap()), ("pin-wrong", None));
    let made = device.renew_puk(&secret(PIN), &mut seeded(11)).unwrap();
    assert!(!made.ct_eq(puk.expose()));
    block(&mut device);
    device.unblock(&made, &secret(NEW), &mut seeded(9)).unwrap();
    // The next one ends this one.
    let next = device.renew_puk(&secret(NEW), &mut seeded(12)).unwrap();
    assert_eq!(
        device.unblock(&made, &secret(PIN), &mut seeded(9)).unwrap_err().check(),
        "puk-wrong"
    );
    device.unblock(&next, &secret(PIN), &mut seeded(9)).unwrap();
    confirms(&mut device, PIN);
}

#[test]
fn what_the_puk_seals_does_not_stand_in_for_what_the_pin_seals() {
    let dir = tempfile::tempdir().unwrap();
    let (mut device, puk) = with_puk(&dir);
    fs::copy(device.path().join("puk.sealed"), device.path().join(sealed::FILE)).unwrap();
    // Eight digits, which a PIN may have.
    let mut types = Types::pin(puk.expose());
    assert_eq!(refused(&mut device, &bytes(), &mut types).check(), "pin-wrong");
}

/// A disk that refuses one of the writes, one after the other, stands for the crash before it.
#[test]
fn what_breaks_off_leaves_the_pin_or_the_puk() {
    for file in ["key", "pin-tries", "puk-tries"] {
        let dir = tempfile::tempdir().unwrap();
        let (mut device, puk) = with_puk(&dir);
        let obstacle = device.path().join(file).with_extension("new");
        fs::create_dir(&obstacle).unwrap();
        let error = device.unblock(&puk, &secret(NEW), &mut seeded(9)).unwrap_err();
        assert_eq!(error.check(), "io", "{file}");
        let error = device.change_pin(&secret(PIN), &secret(NEW), &mut seeded(9)).err();
        assert_eq!(error.map(|error| error.check()), (file != "puk-tries").then_some("io"));
        fs::remove_dir(&obstacle).unwrap();
        // Whatever was written, both seals open what they are for.
        let pin = if file == "puk-tries" { NEW } else { PIN };
        confirms(&mut device, pin);
        device.unblock(&puk, &secret(NEW), &mut seeded(9)).unwrap();
        confirms(&mut device, NEW);
    }
}

/// No enrolment gives a PUK its tries back, and none ends one that its holder may have.
#[test]
fn an_enrolment_that_goes_on_leaves_a_told_and_a_blocked_puk() {
    cheap::on();
    let dir = tempfile::tempdir().unwrap();
    let bank = Bank::open(rust_crypto::provider());
    let enroll = |path: &Path| {
        let enrolment = KeyEnrolment {
            serial: "KEY-1".to_owned(),
            label: "a key".to_owned(),
            accounts: Vec::new(),
            method: SignWith::Pki,
            pin: secret(PIN),
        };
        // That server certifies signing cards only: this breaks off there.
        let (api, mut rng) = (bank.api(), seeded(5));
        let made = KeyDir::enroll(path, &enrolment, &api, &bank.provider, NOW, &mut rng);
        assert!(matches!(made, Err(KeyError::Api(_))));
    };
    // Nobody was told the PUK of this one: each try makes another, until its tries are used up.
    let path = dir.path().join("cut off");
    enroll(&path);
    let sealed = || fs::read(path.join("puk.sealed")).unwrap();
    let first = sealed();
    enroll(&path);
    assert_ne!(sealed(), first);
    let mut device = KeyDir::open(&path).unwrap();
    for _ in 0..PUK_TRIES {
        // A right one would give the tries back, which shows below.
        let _wrong = device.unblock(&secret(b"00000000"), &secret(PIN), &mut seeded(1));
    }
    assert_eq!(tries(&device), (PIN_TRIES, Some(0)));
    drop(device);
    enroll(&path);
    assert_eq!(tries(&KeyDir::open(&path).unwrap()), (PIN_TRIES, Some(0)));
    // Cut off at the very end of its enrolment: its holder has the PUK.
    let (mut device, puk) = with_puk(&dir);
    device.settings.server_id.clear();
    device.write_settings().unwrap();
    let path = device.path();
    drop(device);
    enroll(&path);
    let mut device = KeyDir::open(&path).unwrap();
    device.unblock(&puk, &secret(NEW), &mut seeded(1)).unwrap();
}
