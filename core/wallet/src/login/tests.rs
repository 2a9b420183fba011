use core::cell::{Cell, RefCell};
use core::time::Duration;

use countersign_crypto::UnixTime;
use proptest::prelude::*;
use testkit::rng::seeded;

use super::*;

fn secret(text: &str) -> Secret {
    Secret::copied_from(text.as_bytes())
}

fn padded(text: &str) -> PaddedPassword {
    PaddedPassword::new(&secret(text)).unwrap()
}

fn both() -> Passwords {
    let alarm = secret("help me please");
    Passwords::new(&secret("open sesame"), Some(&alarm), Cost::LEAST, &mut seeded(1)).unwrap()
}

/// Which of the three a verdict is.
fn word(passwords: &Passwords, text: &str) -> String {
    passwords.verify(&padded(text)).unwrap().word().as_str().to_owned()
}

/// Argon2id that writes down what it was asked to do.
#[derive(Default)]
struct Counting {
    calls: RefCell<Vec<(Cost, usize, usize)>>,
    fails_at: Cell<Option<usize>>,
}

impl PasswordHashing for Counting {
    fn hash(
        &self,
        cost: Cost,
        password: &[u8; PASSWORD_LEN],
        salt: &[u8],
    ) -> Result<Zeroizing<[u8; PASSWORD_HASH_LEN]>, PasswordError> {
        self.calls.borrow_mut().push((cost, password.len(), salt.len()));
        if self.fails_at.get() == Some(self.calls.borrow().len()) {
            return Err(PasswordError::Failed);
        }
        Argon2id.hash(cost, password, salt)
    }
}

#[test]
fn a4_each_password_is_told_from_the_other_and_from_a_wrong_one() {
    let passwords = both();
    for (typed, is) in [
        ("open sesame", "usual"),
        ("help me please", "alarm"),
        ("open sesamf", "wrong"),
        ("open sesame ", "wrong"),
        ("help", "wrong"),
    ] {
        assert_eq!(word(&passwords, typed), is, "{typed}");
    }
    let verdict = |text| passwords.verify(&padded(text)).unwrap();
    assert!(verdict("open sesame").is_right() && !verdict("open sesame").access().is_alarm());
    assert!(verdict("help me please").is_right() && verdict("help me please").access().is_alarm());
    assert!(!verdict("neither").is_right() && !verdict("neither").access().is_alarm());
}

#[test]
fn a5_login_alarm_and_wrong_cost_the_same_operations() {
    let passwords = both();
    let plain = Passwords::new(&secret("open sesame"), None, Cost::LEAST, &mut seeded(2)).unwrap();
    let two = vec![(Cost::LEAST, PASSWORD_LEN, SALT_LEN); 2];
    let long = "x".repeat(PASSWORD_LEN);
    for (passwords, typed) in [
        (&passwords, "open sesame"),
        (&passwords, "help me please"),
        (&passwords, "neither"),
        (&passwords, "abcd"),
        (&passwords, &long),
        // Without an alarm password there is one more hash all the same.
        (&plain, "open sesame"),
        (&plain, "help me please"),
    ] {
        let counting = Counting::default();
        passwords.verify_by(&counting, &padded(typed)).unwrap();
        assert_eq!(*counting.calls.borrow(), two, "{typed}");
    }
}

#[test]
fn a5_both_hashes_are_computed_even_if_the_first_fails() {
    let counting = Counting::default();
    counting.fails_at.set(Some(1));
    let failed = both().verify_by(&counting, &padded("open sesame")).unwrap_err();
    assert_eq!(failed, PasswordError::Failed);
    assert_eq!(counting.calls.borrow().len(), 2);
}

#[test]
fn a5_what_is_written_of_an_attempt_has_one_length_and_prints_nothing() {
    for verdict in [Verdict::login(), Verdict::alarm(), Verdict::wrong()] {
        assert_eq!(verdict.word().as_str().len(), 5);
        assert_eq!(format!("{verdict:?} {:?}", verdict.access()), "Verdict(..) Access(..)");
    }
    let words = [Verdict::login(), Verdict::alarm(), Verdict::wrong()].map(Verdict::word);
    assert_eq!(words.map(|word| word.as_str().to_owned()), ["usual", "alarm", "wrong"]);
}

#[test]
fn a5_a_file_does_not_say_whether_there_is_an_alarm_password() {
    let with = serde_json::to_string(&both()).unwrap();
    let none = Passwords::new(&secret("open sesame"), None, Cost::LEAST, &mut seeded(3)).unwrap();
    let without = serde_json::to_string(&none).unwrap();
    assert_eq!(with.len(), without.len());
    let phc = "$argon2id$v=19$m=19456,t=2,p=1$";
    for text in [&with, &without] {
        assert_eq!(text.matches(phc).count(), 2, "{text}");
        assert!(!text.contains("sesame"));
    }
    assert_eq!(word(&none, "open sesame"), "usual");
    for wrong in ["help me please", "none", "    "] {
        assert_eq!(word(&none, wrong), "wrong");
    }
}

#[test]
fn a4_hashes_are_salted_and_survive_storing() {
    let passwords = both();
    let text = serde_json::to_string(&passwords).unwrap();
    let again: Passwords = serde_json::from_str(&text).unwrap();
    assert_eq!(word(&again, "open sesame"), "usual");
    assert_eq!(word(&again, "help me please"), "alarm");
    let alarm = secret("help me please");
    let other =
        Passwords::new(&secret("open sesame"), Some(&alarm), Cost::LEAST, &mut seeded(9)).unwrap();
    assert_ne!(serde_json::to_string(&other).unwrap(), text);
}

#[test]
fn a4_a_hash_that_costs_too_little_or_too_much_is_refused() {
    let text = serde_json::to_string(&both()).unwrap();
    let parse = |text: &str| serde_json::from_str::<Passwords>(text);
    parse(&text).unwrap();
    for (from, to) in [
        ("m=19456", "m=19455"),
        ("m=19456", "m=4194304"),
        ("t=2", "t=1"),
        ("t=2", "t=17"),
        ("p=1", "p=9"),
        ("$argon2id$", "$argon2d$"),
        ("$v=19$", "$v=16$"),
        ("$v=19$", "$"),
        ("$argon2id$", "argon2id$"),
        ("\"login\"", "\"logon\""),
    ] {
        let wrong = text.replacen(from, to, 1);
        assert_ne!(wrong, text, "{from}");
        assert!(parse(&wrong).is_err(), "{to}");
    }
    let weak = Cost { passes: 1, ..Cost::LEAST };
    let refused = Passwords::new(&secret("open sesame"), None, weak, &mut seeded(1));
    assert_eq!(refused.unwrap_err(), PasswordError::Hash);
    Cost::USUAL.params().unwrap();
    Cost::MOST.params().unwrap();
}

#[test]
fn a4_what_can_be_a_password() {
    for right in ["abcd", "密码", "x".repeat(128).as_str(), "with space"] {
        PaddedPassword::new(&secret(right)).unwrap();
    }
    let newline = "open\nsesame";
    for wrong in ["", "abc", "密", "x".repeat(129).as_str(), newline, "nul\0nul", "abcd\0"] {
        let refused = PaddedPassword::new(&secret(wrong)).unwrap_err();
        assert_eq!(refused, PasswordError::Form, "{wrong:?}");
    }
    let refused = PaddedPassword::new(&Secret::copied_from(&[0xff; 8])).unwrap_err();
    assert_eq!((refused, refused.check()), (PasswordError::Form, "password-form"));
}

#[test]
fn a5_equal_passwords_are_refused() {
    let same = secret("open sesame");
    let refused = Passwords::new(&same, Some(&same), Cost::LEAST, &mut seeded(1)).unwrap_err();
    assert_eq!((refused, refused.check()), (PasswordError::Equal, "password-equal"));
    let mut passwords = both();
    let rng = &mut seeded(5);
    for (which, other) in [(Which::Login, "help me please"), (Which::Alarm, "open sesame")] {
        let refused = passwords.reset(which, Some(&secret(other)), Cost::LEAST, rng);
        assert_eq!(refused, Err(PasswordError::Equal));
    }
    assert_eq!(word(&passwords, "open sesame"), "usual");
    assert_eq!(word(&passwords, "help me please"), "alarm");
}

#[test]
fn a4_the_owner_changes_and_resets_both() {
    let mut passwords = both();
    let rng = &mut seeded(6);
    let (old, new) = (secret("open sesame"), secret("second word"));
    passwords.change(Which::Login, &old, &new, Cost::LEAST, rng).unwrap();
    assert_eq!(word(&passwords, "second word"), "usual");
    assert_eq!(word(&passwords, "open sesame"), "wrong");
    let (old, new) = (secret("help me please"), secret("mayday mayday"));
    passwords.change(Which::Alarm, &old, &new, Cost::LEAST, rng).unwrap();
    assert_eq!(word(&passwords, "mayday mayday"), "alarm");
    assert_eq!(word(&passwords, "help me please"), "wrong");

    passwords.reset(Which::Login, Some(&secret("third word")), Cost::LEAST, rng).unwrap();
    assert_eq!(word(&passwords, "third word"), "usual");
    passwords.reset(Which::Alarm, None, Cost::LEAST, rng).unwrap();
    assert_eq!(word(&passwords, "mayday mayday"), "wrong");
    let refused = passwords.reset(Which::Login, None, Cost::LEAST, rng);
    assert_eq!(refused, Err(PasswordError::Form));
    assert_eq!(word(&passwords, "third word"), "usual");
}

#[test]
fn a4_changing_needs_the_password_that_is_changed() {
    let mut passwords = both();
    let rng = &mut seeded(7);
    let new = secret("second word");
    for (which, old) in [
        (Which::Login, "help me please"),
        (Which::Alarm, "open sesame"),
        (Which::Login, "neither"),
        (Which::Alarm, "neither"),
        (Which::Login, "abc"),
    ] {
        let refused = passwords.change(which, &secret(old), &new, Cost::LEAST, rng);
        assert_eq!(refused, Err(PasswordError::Wrong), "{which:?} {old}");
    }
    assert_eq!(word(&passwords, "second word"), "wrong");
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::from_secs(1_000_000 + seconds)
}

/// Attempts with a wrong password as soon as each may be made; the waits before them.
fn waits(lockout: &mut Lockout, attempts: usize) -> Vec<u32> {
    waits_from(&mut at(0), lockout, attempts)
}

fn waits_from(now: &mut UnixTime, lockout: &mut Lockout, attempts: usize) -> Vec<u32> {
    let mut waits = Vec::new();
    for _ in 0..attempts {
        let wait = lockout.waits(*now).unwrap_or(0);
        *now = now.plus(Duration::from_secs(wait.into()));
        waits.push(wait);
        lockout.before(*now).unwrap();
        lockout.after(Verdict::wrong());
    }
    waits
}

#[test]
fn a4_brute_force_meets_a_wait_that_doubles() {
    let (mut now, mut lockout) = (at(0), Lockout::default());
    let expected = [0, 0, 0, 30, 60, 120, 240, 480, 960, 1920, 3840, 7680, 15360, 30720, 61440];
    assert_eq!(waits_from(&mut now, &mut lockout, 15), expected);
    // Never more than a day, however often.
    let day = u32::try_from(LOCK_MAX.as_secs()).unwrap();
    assert_eq!(waits_from(&mut now, &mut lockout, 60), [day; 60]);
    assert_eq!(lockout.failures(), 75);
}

#[test]
fn a4_while_locked_nothing_is_counted_or_looked_at() {
    let mut lockout = Lockout::default();
    waits(&mut lockout, 3);
    let before = lockout;
    let locked = lockout.before(at(1)).unwrap_err();
    assert_eq!((locked.seconds, locked.check()), (29, "login-locked"));
    assert_eq!(lockout, before);
    lockout.before(at(30)).unwrap();
}

#[test]
fn a5_either_right_password_leaves_the_same_counters_behind() {
    for tries in [0, 1, 2, 5] {
        let mut wrong = Lockout::default();
        waits(&mut wrong, tries);
        let now = at(100_000);
        let after = [Verdict::login(), Verdict::alarm()].map(|verdict| {
            let mut lockout = wrong;
            lockout.before(now).unwrap();
            lockout.after(verdict);
            serde_json::to_string(&lockout).unwrap()
        });
        assert_eq!(after[0], after[1]);
        assert_eq!(after[0], serde_json::to_string(&Lockout::default()).unwrap());
    }
}

#[test]
fn a4_an_attempt_counts_before_its_password_is_looked_at() {
    // The power is cut after `before` was stored: what is read back has counted it.
    let mut lockout = Lockout::default();
    for _ in 0..FREE_TRIES {
        lockout.before(at(0)).unwrap();
        lockout = serde_json::from_str(&serde_json::to_string(&lockout).unwrap()).unwrap();
    }
    assert_eq!(lockout.before(at(0)), Err(Locked { seconds: 30 }));
}

#[test]
fn a4_restarts_change_nothing_in_the_waits() {
    let again = |lockout: &Lockout| -> Lockout {
        serde_json::from_str(&serde_json::to_string(lockout).unwrap()).unwrap()
    };
    let (mut now, mut stored) = (at(0), Lockout::default());
    let mut waited = Vec::new();
    for _ in 0..9 {
        let wait = again(&stored).waits(now).unwrap_or(0);
        if let Some(early) = wait.checked_sub(1).filter(|_| wait > 0) {
            // A restart just before the end is as early as any.
            let early = now.plus(Duration::from_secs(early.into()));
            assert_eq!(again(&stored).before(early), Err(Locked { seconds: 1 }));
        }
        now = now.plus(Duration::from_secs(wait.into()));
        waited.push(wait);
        let mut lockout = again(&stored);
        lockout.before(now).unwrap();
        stored = again(&lockout);
        // Half of them lose their power before what came of it is stored.
        if waited.len() % 2 == 0 {
            lockout.after(Verdict::wrong());
            stored = again(&lockout);
        }
    }
    assert_eq!(waited, [0, 0, 0, 30, 60, 120, 240, 480, 960]);
    // What is no lock-out is not read as none.
    for wrong in ["{}", "{\"failures\":0}", "{\"failures\":-1,\"locked-until\":0}", "null"] {
        assert!(serde_json::from_str::<Lockout>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a4_a_clock_that_goes_back_locks_for_a_day_at_most() {
    let mut lockout = Lockout::default();
    waits(&mut lockout, 20);
    let day = u32::try_from(LOCK_MAX.as_secs()).unwrap();
    let back = UnixTime::from_secs(5);
    assert_eq!(lockout.before(back), Err(Locked { seconds: day }));
    assert_eq!(lockout.waits(back), Some(day));
    lockout.before(back.plus(LOCK_MAX)).unwrap();
}

proptest! {
    #[test]
    fn no_order_of_attempts_shortens_the_wait(
        attempts in prop::collection::vec((0..200_u64, 0..3_u8), 1..60),
    ) {
        let (mut lockout, mut now, mut wrong) = (Lockout::default(), at(0), 0_u32);
        for (pause, verdict) in attempts {
            now = now.plus(Duration::from_secs(pause));
            let waits = lockout.waits(now);
            let tried = lockout.before(now);
            prop_assert_eq!(tried.err().map(|locked| locked.seconds), waits);
            if waits.is_some() {
                prop_assert!(wrong >= FREE_TRIES);
                continue;
            }
            let verdict = [Verdict::wrong(), Verdict::login(), Verdict::alarm()]
                [usize::from(verdict)];
            lockout.after(verdict);
            wrong = if verdict.is_right() { 0 } else { wrong + 1 };
            prop_assert_eq!(lockout.failures(), wrong);
            prop_assert_eq!(lockout.waits(now).is_some(), wrong >= FREE_TRIES);
        }
    }
}
