//! Bad input: each has its status word, and loses nothing; and commands out of their order.

use countersign_iso7816::Status;
use countersign_payment::joint::Form;
use countersign_payment::joint::card::Phase;

use crate::rig::{
    PIN, Rig, SIGN, STATE, Stuck, choose, put, release, release_expecting, transaction,
};

/// A card that would sign now.
fn ready() -> Rig {
    let mut rig = Rig::p256();
    rig.select();
    assert_eq!(rig.put(&transaction(1)), Status::OK);
    assert_eq!(rig.choose(Form::Digest), Status::OK);
    rig
}

fn assert_ready(rig: &mut Rig, after: &[u8]) {
    assert!(rig.raw(SIGN).status.is_ok(), "lost by {after:02x?}");
    rig.take_out();
    rig.confirm(PIN).unwrap();
    assert_eq!(rig.shown().as_ref(), rig.chip().passwords.last());
}

const PIN_BLOCK: [u8; 8] = [0x26, 0x13, 0x57, 0x90, 0xff, 0xff, 0xff, 0xff];

#[test]
fn bad_commands_have_their_status_words_and_lose_nothing() {
    let with_pin = |instruction, blocks: usize| {
        let len = u8::try_from(8 * blocks).unwrap();
        [&[0, instruction, 0, 0x81, len][..], &PIN_BLOCK.repeat(blocks)].concat()
    };
    let (verify, change, unblock) = (with_pin(0x20, 1), with_pin(0x24, 2), with_pin(0x2c, 2));
    let early = release(&[1; 32]);
    let short = release_expecting(&[1; 32], &[1]);
    let cases: &[(&[u8], u16)] = &[
        // No APDU.
        (&[], 0x6700),
        (&[0, 0x2a, 0x9e], 0x6700),
        (&[0, 0xda, 0xdf, 0x10, 9, 1], 0x6700),
        (&[0, 0xda, 0xdf, 0x10, 0, 0, 9, 1], 0x6700),
        // Classes.
        (&[0x80, 0x2a, 0x9e, 0x9a, 0], 0x6e00),
        (&[0x01, 0x2a, 0x9e, 0x9a, 0], 0x6881),
        (&[0x0c, 0x2a, 0x9e, 0x9a, 0], 0x6882),
        // Instructions.
        (&[0, 0x00, 0, 0], 0x6d00),
        (&[0, 0x88, 0, 0, 0], 0x6d00),
        (&[0, 0xb0, 0, 0, 0], 0x6d00),
        (&[0, 0x84, 0, 0, 8], 0x6d00),
        // No PIN, no PUK.
        (&verify, 0x6a81),
        (&[0, 0x20, 0, 0x81, 1, 1], 0x6a81),
        (&change, 0x6a81),
        (&[0, 0x24, 0, 0x81], 0x6a81),
        (&unblock, 0x6a81),
        // Parameters.
        (&[0, 0x20, 0, 0x80], 0x6a86),
        (&[0, 0x2a, 0x9e, 0x9b, 0], 0x6a86),
        (&[0, 0x2a, 0x80, 0x86, 0], 0x6a86),
        (&[0, 0x22, 0xf3, 0, 0], 0x6a86),
        (&[0, 0x22, 0x41, 0xb8, 3, 0x80, 1, 1], 0x6a86),
        (&[0, 0xda, 0xdf, 0x11, 1, 1], 0x6a86),
        (&[0, 0xcb, 0x3f, 0xff, 1, 1, 0], 0x6a86),
        (&[0, 0xa4, 0, 0, 2, 0x3f, 0], 0x6a86),
        (&[0, 0xca, 0, 0, 0], 0x6a88),
        (&[0, 0xca, 0xdf, 4, 0], 0x6a88),
        (&[0, 0xca, 0xdf, 0x10, 0], 0x6a88),
        (&[0, 0xca, 0xdf, 0x20, 0], 0x6a88),
        // Lengths of data.
        (&[0, 0x2a, 0x9e, 0x9a, 1, 1, 0], 0x6700),
        (&[0, 0xca, 0xdf, 6, 1, 1, 0], 0x6700),
        // Forms that are none.
        (&[0, 0x22, 0x41, 0xb6], 0x6a80),
        (&[0, 0x22, 0x41, 0xb6, 1, 1], 0x6a80),
        (&[0, 0x22, 0x41, 0xb6, 2, 0x80, 0], 0x6a80),
        (&[0, 0x22, 0x41, 0xb6, 4, 0x80, 2, 1, 1], 0x6a80),
        (&[0, 0x22, 0x41, 0xb6, 3, 0x84, 1, 1], 0x6a80),
        (&[0, 0x22, 0x41, 0xb6, 4, 0x80, 1, 1, 0], 0x6a80),
        (&[0, 0x22, 0x41, 0xb6, 3, 0x80, 1, 0], 0x6a80),
        (&[0, 0x22, 0x41, 0xb6, 3, 0x80, 1, 4], 0x6a80),
        (&[0, 0x22, 0x41, 0xb6, 3, 0x80, 1, 0xff], 0x6a80),
        // Out of order.
        (&[0, 0xc0, 0, 0, 0], 0x6985),
        (&early, 0x6985),
        (&short, 0x6985),
        // Chains.
        (&[0x10, 0xda, 0xdf, 0x10], 0x6700),
        (&[0x10, 0xa4, 4, 0, 1, 1], 0x6884),
    ];
    for (bad, word) in cases {
        let mut rig = ready();
        assert_eq!(rig.status(bad), Status::new(*word), "{bad:02x?}");
        assert_eq!(rig.chip().tries.pin, 3, "{bad:02x?}");
        assert_ready(&mut rig, bad);
    }
}

#[test]
fn a_form_that_the_card_does_not_have_is_refused() {
    let mut rig = ready();
    rig.chip().info.forms = vec![Form::Digest];
    for form in [Form::Sealed, Form::SealedRandom] {
        assert_eq!(rig.choose(form), Status::WRONG_DATA);
    }
    assert_eq!(rig.choose(Form::Digest), Status::OK);
    assert_ready(&mut rig, &[]);
}

#[test]
fn the_form_chosen_last_is_signed_in() {
    let mut rig = ready();
    for form in [Form::Sealed, Form::SealedRandom, Form::Sealed] {
        assert_eq!(rig.choose(form), Status::OK);
    }
    let answer = rig.raw(SIGN).data;
    // 80 len 01: the commitment's first byte is the form.
    let at = if answer[1] == 0x81 { 3 } else { 2 };
    assert_eq!((answer[0], answer[at]), (0x80, Form::Sealed.code()));
}

#[test]
fn commands_out_of_order_are_refused() {
    let mut rig = Rig::p256();
    for early in [SIGN, &choose(1), &put(&transaction(1)), STATE, &release(&[0; 32])] {
        assert_eq!(rig.status(early), Status::CONDITIONS, "not selected");
    }
    rig.select();
    assert_eq!(rig.status(SIGN), Status::CONDITIONS, "nothing loaded");
    assert_eq!(rig.choose(Form::Sealed), Status::CONDITIONS, "for nothing");
    assert_eq!(rig.put(&transaction(1)), Status::OK);
    assert_eq!(rig.status(SIGN), Status::CONDITIONS, "in which form?");
    assert_eq!(rig.choose(Form::Digest), Status::OK);
    assert_eq!(rig.put(&transaction(2)), Status::OK);
    assert_eq!(rig.status(SIGN), Status::CONDITIONS, "the form was for another one");
    assert_eq!(rig.choose(Form::Digest), Status::OK);
    assert!(rig.raw(SIGN).status.is_ok());
    assert_eq!(rig.status(SIGN), Status::CONDITIONS, "once");
    assert_eq!(rig.choose(Form::Digest), Status::CONDITIONS);
    assert_eq!(rig.status(SIGN), Status::CONDITIONS);
    assert_eq!(rig.chip().passwords.len(), 1);
    assert_eq!(rig.phase(), Phase::Signed, "and what was signed waits");
}

#[test]
fn nothing_is_signed_without_contact() {
    for place in [Rig::tap as fn(&mut Rig), Rig::take_out] {
        let mut rig = Rig::p256();
        place(&mut rig);
        rig.select();
        assert_eq!(rig.put(&transaction(1)), Status::CONDITIONS);
        assert_eq!(rig.choose(Form::Digest), Status::CONDITIONS);
        assert_eq!(rig.status(SIGN), Status::CONDITIONS);
        assert_eq!(rig.phase(), Phase::Idle);
    }
    // Nor does a passer-by destroy what waits for consent.
    let (mut rig, signed) = Rig::asking(Form::Digest, 1);
    rig.tap();
    rig.select();
    assert_eq!(rig.put(&transaction(2)), Status::CONDITIONS);
    assert_eq!(rig.put(b"{}"), Status::CONDITIONS);
    assert_eq!(rig.status(SIGN), Status::CONDITIONS);
    rig.confirm(PIN).unwrap();
    assert_eq!(rig.release(&signed).data.len(), 9);
}

#[test]
fn what_is_no_transaction_is_refused_and_destroys_what_was_there() {
    let good = String::from_utf8(transaction(1)).unwrap();
    let wrong = [
        String::new(),
        "{}".into(),
        good[1..].into(),
        good[..good.len() - 1].into(),
        format!("{good} "),
        good.replace("1.00", "1.0"),
        good.replace("1.00", "-1.00"),
        good.replace("CNY", "CNX"),
        good.replace("countersign.payment", "countersign.other"),
        good.replace("till 4", "till\\u202e4"),
        good.replace("\"version\":1", "\"version\":2"),
        "x".repeat(4096),
        "x".repeat(4097),
    ];
    for bytes in wrong {
        let mut rig = ready();
        // Empty data make an APDU without Lc.
        let status = if bytes.is_empty() {
            rig.status(&[0, 0xda, 0xdf, 0x10])
        } else {
            rig.put(bytes.as_bytes())
        };
        assert_eq!(status, Status::WRONG_DATA, "{bytes}");
        assert_eq!(rig.phase(), Phase::Idle);
        assert_eq!(rig.status(SIGN), Status::CONDITIONS);
    }
}

#[test]
fn a_chain_that_is_broken_or_too_long_loses_nothing() {
    let part = [&[0x10, 0xda, 0xdf, 0x10, 255][..], &[b'x'; 255]].concat();
    let mut rig = ready();
    assert_eq!(rig.status(&part), Status::OK);
    assert_eq!(rig.status(SIGN), Status::CHAIN_BROKEN);
    assert_ready(&mut rig, &part);
    let mut rig = ready();
    let mut sent = 0;
    let last = loop {
        match rig.status(&part) {
            Status::OK => sent += 255,
            other => break other,
        }
    };
    assert_eq!(last, Status::NO_MEMORY);
    assert!((4096..=4608).contains(&sent), "{sent}");
    assert_ready(&mut rig, &part);
    let mut rig = ready();
    let oversized = [&[0, 0xda, 0xdf, 0x10, 0, 0xff, 0xff][..], &[b'x'; 0xffff]].concat();
    assert_eq!(rig.status(&oversized), Status::NO_MEMORY);
    assert_ready(&mut rig, &oversized[..8]);
}

#[test]
fn select_and_reset_forget_what_was_not_signed() {
    let select_other = |rig: &mut Rig| {
        assert_eq!(rig.status(&[0, 0xa4, 4, 0, 5, 0xa0, 0, 0, 0, 3]), Status::NOT_FOUND);
    };
    let reset = |rig: &mut Rig| {
        rig.machine.reset();
        rig.select();
    };
    for forget in [&Rig::select as &dyn Fn(&mut Rig), &reset, &select_other] {
        let mut rig = ready();
        forget(&mut rig);
        assert_eq!(rig.phase(), Phase::Idle);
        assert_eq!(rig.status(SIGN), Status::CONDITIONS);
        // But not what was.
        let mut rig = ready();
        assert!(rig.raw(SIGN).status.is_ok());
        forget(&mut rig);
        assert_eq!(rig.phase(), Phase::Signed);
    }
}

/// What happens to a card, and its name.
type Happening = (&'static str, fn(&mut Rig));

#[test]
fn a_signature_may_be_fetched_in_parts_and_counts_once_it_is_whole() {
    let mut rig = ready();
    let first = rig.raw(&[0, 0x2a, 0x9e, 0x9a, 10]);
    assert_eq!(first.data.len(), 10);
    let more = u8::try_from(first.status.more_available().unwrap()).unwrap();
    let second = rig.raw(&[0, 0xc0, 0, 0, more - 1]);
    assert_eq!(second.status.more_available(), Some(1));
    assert_eq!(rig.raw(&[0, 0xc0, 0, 0, 1]).status, Status::OK);
    rig.take_out();
    assert_eq!(rig.phase(), Phase::Asking);
    // Whatever comes between makes the rest unreachable, so there is nothing to ask about.
    let gone: [Happening; 5] = [
        ("taken out", |_| {}),
        ("reset", |rig| rig.machine.reset()),
        ("selected", Rig::select),
        ("another command", |rig| assert_eq!(rig.raw(STATE).data[..], [0])),
        ("a chain", |rig| assert_eq!(rig.status(&[0x10, 0xda, 0xdf, 0x10, 1, 1]), Status::OK)),
    ];
    for (what, between) in gone {
        let mut rig = ready();
        assert!(rig.raw(&[0, 0x2a, 0x9e, 0x9a]).status.more_available().is_some());
        between(&mut rig);
        rig.take_out();
        assert_eq!(rig.phase(), Phase::Idle, "{what}");
        rig.assert_works(2);
    }
}

#[test]
fn a_chip_that_fails_has_used_the_transaction_up() {
    let mut rig = ready();
    rig.chip().is_broken = true;
    assert_eq!(rig.status(SIGN), Status::FAILED);
    rig.chip().is_broken = false;
    assert_eq!(rig.status(SIGN), Status::CONDITIONS);
    assert_eq!(rig.phase(), Phase::Idle);
    rig.assert_works(2);
}

/// A generator that gives one byte for ever. Most such bytes make a joint password that looks like
/// any other.
#[test]
fn a_card_whose_generator_is_stuck_signs_nothing() {
    for byte in 0..=u8::MAX {
        let mut rig = ready();
        let answer = rig.machine.handle(&mut Stuck(byte), SIGN);
        assert_eq!(answer, Status::FAILED.word().to_be_bytes(), "{byte:02x}");
        assert_eq!(rig.chip().passwords.len(), 0, "{byte:02x}: nothing was committed to");
        assert_eq!(rig.phase(), Phase::Idle);
    }
    let mut rig = ready();
    rig.machine.handle(&mut Stuck(0), SIGN);
    assert_eq!(rig.status(SIGN), Status::CONDITIONS, "the transaction is used up");
    rig.assert_works(2);
}

#[test]
fn tries_are_told_and_a_blocked_pin_too() {
    let mut rig = Rig::p256();
    rig.select();
    assert_eq!(rig.status(&[0, 0x20, 0, 0x81]), Status::tries(3));
    assert_eq!(*rig.raw(&[0, 0xca, 0xdf, 3, 0]).data, [3, 10]);
    rig.chip().tries.pin = 0;
    assert_eq!(rig.status(&[0, 0x20, 0, 0x81]), Status::BLOCKED);
}
