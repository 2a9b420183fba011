//! B6: taken out, asked, and only then shown; rejecting, waiting and losing power destroy.

use std::time::Duration;

use countersign_iso7816::Status;
use countersign_payment::card::ChipError;
use countersign_payment::joint::Form;
use countersign_payment::joint::card::{
    CONSENT_TIME, ConfirmError, Interface, Phase, SHOW_TIME, TAKE_OUT_TIME, View,
};

use crate::rig::{PIN, PIN_TRIES, Rig, SIGN, WRONG_PIN, secret, transaction};

const FORM: Form = Form::Digest;

#[test]
fn nothing_is_confirmed_that_is_not_asked() {
    let mut rig = Rig::p256();
    let refused = |rig: &mut Rig, what| {
        let error = rig.confirm(PIN).unwrap_err();
        assert_eq!(error, ConfirmError::NothingAsked, "{what}");
        assert_eq!(error.check(), "card-nothing-asked");
        assert_eq!(rig.shown(), None, "{what}");
    };
    refused(&mut rig, "nothing loaded");
    rig.select();
    rig.put(&transaction(1));
    refused(&mut rig, "nothing signed");
    rig.choose(FORM);
    assert!(rig.raw(SIGN).status.is_ok());
    refused(&mut rig, "still in the terminal");
    assert_eq!(rig.chip().tries.pin, PIN_TRIES, "no try was counted");
    rig.take_out();
    rig.confirm(PIN).unwrap();
    assert_eq!(rig.confirm(PIN), Err(ConfirmError::NothingAsked), "shown already");
    assert!(rig.shown().is_some());
}

#[test]
fn a_card_that_is_put_back_asks_nothing_until_it_is_out_again() {
    let (mut rig, signed) = Rig::asking(FORM, 1);
    rig.insert();
    assert!(matches!(rig.card().view(), View::TakeOut { .. }));
    let error = rig.confirm(PIN).unwrap_err();
    assert_eq!((&error, error.check()), (&ConfirmError::InTerminal, "card-in-terminal"));
    assert_eq!(rig.chip().tries.pin, PIN_TRIES);
    rig.take_out();
    assert!(matches!(rig.card().view(), View::Consent { .. }));
    rig.confirm(PIN).unwrap();
    let shown = rig.shown().unwrap();
    assert!(rig.is_taken(1, &signed, &shown));
}

#[test]
fn three_wrong_pins_destroy_the_joint_password_and_block_the_card() {
    let (mut rig, signed) = Rig::asking(FORM, 1);
    for left in [2, 1, 0] {
        assert_eq!(rig.phase(), Phase::Asking);
        let wrong = rig.confirm(WRONG_PIN).unwrap_err();
        assert_eq!(wrong, ConfirmError::Chip(ChipError::PinWrong { left }));
        assert_eq!(wrong.check(), "pin-wrong");
        assert_eq!(rig.shown(), None);
    }
    assert!(matches!(rig.card().view(), View::Blocked));
    assert_eq!(rig.confirm(PIN), Err(ConfirmError::NothingAsked), "even the right one");
    rig.tap();
    rig.select();
    assert_eq!(rig.release(&signed).status.word(), 0x6983);
    // It signs nothing that its holder could not confirm; what is loaded waits for the PUK.
    rig.insert();
    rig.select();
    rig.put(&transaction(2));
    rig.choose(FORM);
    assert_eq!(rig.status(SIGN).word(), 0x6983);
    assert_eq!(rig.chip().passwords.len(), 1);
    rig.chip().tries.pin = PIN_TRIES;
    assert!(rig.raw(SIGN).status.is_ok());
    rig.assert_works(3);
}

#[test]
fn a_wrong_pin_and_then_the_right_one() {
    let (mut rig, signed) = Rig::asking(FORM, 1);
    assert!(rig.confirm(WRONG_PIN).is_err());
    let View::Consent { tries_left, .. } = rig.card().view() else { panic!("asks") };
    assert_eq!(tries_left, Some(2));
    let form = rig.confirm("12").unwrap_err();
    assert_eq!((&form, form.check()), (&ConfirmError::Chip(ChipError::PinForm), "pin-form"));
    assert_eq!(rig.chip().tries.pin, 2, "what is no PIN costs no try");
    rig.confirm(PIN).unwrap();
    let shown = rig.shown().unwrap();
    assert!(rig.is_taken(1, &signed, &shown));
    assert_eq!(rig.chip().tries.pin, PIN_TRIES);
}

#[test]
fn a_chip_blocked_meanwhile_destroys_it_too() {
    let (mut rig, _) = Rig::asking(FORM, 1);
    rig.chip().tries.pin = 0;
    let blocked = rig.confirm(PIN).unwrap_err();
    assert_eq!(blocked.check(), "pin-blocked");
    assert_eq!(rig.phase(), Phase::Blocked);
}

#[test]
fn a_no_destroys_it_at_any_time() {
    let taken_out = |rig: &mut Rig| rig.take_out();
    let consented = |rig: &mut Rig| {
        rig.take_out();
        rig.confirm(PIN).unwrap();
    };
    let in_terminal = |_: &mut Rig| {};
    for before in [&taken_out as &dyn Fn(&mut Rig), &consented, &in_terminal] {
        let mut rig = Rig::p256();
        let signed = rig.sign(FORM, 1);
        before(&mut rig);
        rig.card().decline();
        assert!(matches!(rig.card().view(), View::Declined));
        rig.take_out();
        assert_eq!(rig.confirm(PIN), Err(ConfirmError::NothingAsked));
        rig.tap();
        rig.select();
        assert_eq!(rig.release(&signed).status.word(), 0x6986);
        assert_eq!(rig.release(&signed).status.word(), 0x6986, "until the next transaction");
        rig.assert_works(2);
    }
    let mut rig = Rig::p256();
    rig.card().decline();
    assert_eq!(rig.phase(), Phase::Idle, "a no to nothing");
    rig.select();
    rig.put(&transaction(1));
    rig.card().decline();
    assert_eq!(rig.status(SIGN).word(), 0x6985, "a no before it was signed");
}

#[test]
fn each_wait_has_an_end() {
    let step = |from: Phase, allowed: Duration, begin: &dyn Fn() -> Rig| {
        let mut rig = begin();
        assert_eq!(rig.phase(), from);
        rig.wait(allowed.as_secs() - 1);
        assert_eq!(rig.phase(), from, "a second is left");
        rig.wait(1);
        assert_eq!(rig.phase(), Phase::TimedOut, "{from:?}");
        assert!(matches!(rig.card().view(), View::TimedOut));
        assert_eq!(rig.confirm(PIN), Err(ConfirmError::NothingAsked));
        rig.assert_works(9);
    };
    step(Phase::Signed, TAKE_OUT_TIME, &|| {
        let mut rig = Rig::p256();
        rig.sign(FORM, 1);
        rig
    });
    step(Phase::Asking, CONSENT_TIME, &|| {
        let mut rig = Rig::p256();
        rig.sign(FORM, 1);
        // From when it was taken out.
        rig.wait(TAKE_OUT_TIME.as_secs() - 1);
        rig.take_out();
        rig
    });
    step(Phase::Released, SHOW_TIME, &|| {
        let (mut rig, _) = Rig::asking(FORM, 1);
        rig.wait(CONSENT_TIME.as_secs() - 1);
        rig.confirm(PIN).unwrap();
        rig
    });
    assert_eq!([TAKE_OUT_TIME, CONSENT_TIME, SHOW_TIME].map(|time| time.as_secs()), [120, 120, 60]);
}

#[test]
fn putting_it_back_gives_no_more_time() {
    let (mut rig, _) = Rig::asking(FORM, 1);
    for _ in 0..12 {
        rig.wait(9);
        rig.insert();
        rig.take_out();
    }
    assert_eq!(rig.phase(), Phase::Asking);
    rig.wait(12);
    assert_eq!(rig.phase(), Phase::TimedOut);
}

/// A clock that is set back neither prolongs what was measured nor ends it.
#[test]
fn a_clock_that_jumps_back_stands_still() {
    let (mut rig, _) = Rig::asking(FORM, 1);
    rig.wait(100);
    rig.now = rig.now.minus(Duration::from_secs(3600));
    rig.card();
    assert_eq!(rig.phase(), Phase::Asking);
    rig.wait(19);
    assert_eq!(rig.phase(), Phase::Asking);
    rig.wait(1);
    assert_eq!(rig.phase(), Phase::TimedOut);
}

#[test]
fn a_battery_that_dies_leaves_keys_and_tries_only() {
    let begins: [fn() -> Rig; 4] = [
        || {
            let mut rig = Rig::p256();
            rig.select();
            rig.put(&transaction(1));
            rig
        },
        || {
            let mut rig = Rig::p256();
            rig.sign(FORM, 1);
            rig
        },
        || Rig::asking(FORM, 1).0,
        || Rig::released(FORM, 1).0,
    ];
    for begin in begins {
        let mut rig = begin();
        rig.chip().tries.pin = 2;
        rig.machine.reset();
        rig.card().power_lost();
        assert!(matches!(rig.card().view(), View::Idle));
        assert_eq!(rig.chip().tries.pin, 2);
        rig.take_out();
        assert_eq!(rig.confirm(PIN), Err(ConfirmError::NothingAsked));
        rig.assert_works(2);
    }
}

#[test]
fn a_reader_that_resets_it_harms_nothing_that_was_signed() {
    let mut rig = Rig::p256();
    let signed = rig.sign(FORM, 1);
    rig.machine.reset();
    rig.machine.power();
    rig.select();
    assert_eq!(rig.phase(), Phase::Signed);
    rig.take_out();
    rig.tap();
    rig.machine.power();
    rig.select();
    assert_eq!(rig.phase(), Phase::Asking);
    rig.confirm(PIN).unwrap();
    rig.machine.reset();
    rig.select();
    let shown = rig.shown().unwrap();
    assert!(rig.is_taken(1, &signed, &shown));
}

/// A contactless reader within reach of the terminal's, or a driver that forgets `removed`.
#[test]
fn a_card_in_a_terminal_is_there_until_it_is_taken_out() {
    let mut rig = Rig::p256();
    let signed = rig.sign(FORM, 1);
    rig.card().set_interface(Interface::Contactless);
    assert_eq!(rig.phase(), Phase::Signed);
    assert!(matches!(rig.card().view(), View::TakeOut { .. }));
    assert_eq!(rig.card().confirm(&secret(PIN)), Err(ConfirmError::NothingAsked));
    // Nor of what it asked and showed before it was put back.
    let (mut asked, _) = Rig::asking(FORM, 1);
    asked.insert();
    asked.card().set_interface(Interface::Contactless);
    assert_eq!(asked.card().confirm(&secret(PIN)), Err(ConfirmError::InTerminal));
    let (mut shown, other) = Rig::released(FORM, 1);
    shown.insert();
    shown.card().set_interface(Interface::Contactless);
    shown.select();
    assert_eq!(shown.release(&other).status.word(), 0x6985);
    // Out of it, all is as ever.
    rig.tap();
    rig.select();
    assert_eq!(rig.phase(), Phase::Asking);
    rig.card().confirm(&secret(PIN)).unwrap();
    assert_eq!(rig.release(&signed).data.len(), 9);
}

/// Who took it out when half of an answer is fetched would have signed in vain.
#[test]
fn a_card_wants_to_be_taken_out_once_the_terminal_has_all_of_its_signature() {
    let mut rig = Rig::p256();
    rig.insert();
    rig.select();
    assert_eq!(rig.put(&transaction(1)), Status::OK);
    assert_eq!(rig.choose(FORM), Status::OK);
    let first = rig.raw(&[0x00, 0x2a, 0x9e, 0x9a, 0x40]);
    assert_eq!((first.data.len(), rig.phase()), (0x40, Phase::Signed));
    assert!(matches!(rig.card().view(), View::Loaded));
    assert_eq!(rig.raw(&[0x00, 0xc0, 0x00, 0x00, 0x00]).status, Status::OK);
    assert!(matches!(rig.card().view(), View::TakeOut { .. }));
}

#[test]
fn the_next_transaction_destroys_what_was_before_it() {
    for good in [true, false] {
        for released in [false, true] {
            let (mut rig, signed) = Rig::asking(FORM, 1);
            if released {
                rig.confirm(PIN).unwrap();
            }
            rig.insert();
            rig.select();
            let bytes = if good { transaction(2) } else { b"{}".to_vec() };
            assert_eq!(rig.put(&bytes).is_ok(), good);
            assert_eq!(rig.shown(), None);
            rig.take_out();
            assert_eq!(rig.confirm(PIN), Err(ConfirmError::NothingAsked));
            rig.tap();
            rig.select();
            assert_eq!(rig.release(&signed).status.word(), 0x6985);
        }
    }
}
