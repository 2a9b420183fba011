//! PIN and PUK: counted, blocked, changed, set anew.

use countersign_iso7816::Status;
use countersign_payment::card::{CardError, Tries};

use crate::chip::{PIN, PUK, PUK_TRIES, Rig, SIGN, request, secret, with_blocks};

const CHANGE: u8 = 0x24;
const UNBLOCK: u8 = 0x2c;

fn loaded() -> Rig {
    let mut rig = Rig::host();
    rig.select();
    assert_eq!(rig.load(&request(1)), Status::OK);
    rig
}

fn blocked() -> Rig {
    let mut rig = loaded();
    for left in [2, 1, 0] {
        assert_eq!(rig.verify("111111"), Status::tries(left));
    }
    rig
}

#[test]
fn three_wrong_pins_block_until_the_puk_is_given() {
    let mut rig = blocked();
    assert_eq!(rig.verify(PIN), Status::BLOCKED, "even the right one");
    assert_eq!(rig.status(&[0, 0x20, 0, 0x81]), Status::BLOCKED);
    assert_eq!(rig.status(&with_blocks(CHANGE, &[PIN, "2468"])), Status::BLOCKED);
    assert_eq!(rig.status(SIGN), Status::SECURITY);
    rig.machine.reset();
    rig.select();
    assert_eq!(rig.load(&request(1)), Status::OK);
    assert_eq!(rig.verify(PIN), Status::BLOCKED, "a reset gives no tries");
    assert_eq!(rig.status(&with_blocks(UNBLOCK, &[PUK, "2468"])), Status::OK);
    assert_eq!(rig.status(SIGN), Status::SECURITY, "a PUK is no PIN");
    assert_eq!(rig.verify(PIN), Status::tries(2), "the old one");
    assert_eq!(rig.verify("2468"), Status::OK);
    assert!(rig.raw(SIGN).status.is_ok());
}

#[test]
fn wrong_puks_block_for_good() {
    let mut rig = blocked();
    for left in (0..PUK_TRIES).rev() {
        let status = rig.status(&with_blocks(UNBLOCK, &["00000000", "2468"]));
        assert_eq!(status, Status::tries(left));
    }
    assert_eq!(rig.status(&with_blocks(UNBLOCK, &[PUK, "2468"])), Status::BLOCKED);
    assert_eq!(rig.verify(PIN), Status::BLOCKED, "nor any PIN");
    let mut none = blocked().without_puk();
    assert_eq!(none.status(&with_blocks(UNBLOCK, &[PUK, "2468"])), Status::NO_DATA_OBJECT);
}

#[test]
fn no_puk_is_taken_while_the_pin_is_not_blocked() {
    let mut rig = loaded();
    assert_eq!(rig.verify("111111"), Status::tries(2));
    assert_eq!(rig.verify(PIN), Status::OK);
    for puk in ["00000000", PUK] {
        for _ in 0..=PUK_TRIES {
            let status = rig.status(&with_blocks(UNBLOCK, &[puk, "2468"]));
            assert_eq!(status, Status::CONDITIONS, "{puk}");
        }
    }
    assert_eq!(*rig.raw(&[0, 0xca, 0xdf, 3, 0]).data, [3, 10], "no try was counted");
    assert!(rig.raw(SIGN).status.is_ok(), "nor is the PIN forgotten, or another one");
    let mut client = rig.client();
    let error = client.unblock(&secret(PUK), &secret("2468")).unwrap_err();
    assert_eq!((&error, error.check()), (&CardError::PinNotBlocked, "pin-not-blocked"));
}

#[test]
fn a_pin_is_changed_for_the_old_one() {
    let mut rig = loaded();
    assert_eq!(rig.verify(PIN), Status::OK);
    assert_eq!(rig.status(&with_blocks(CHANGE, &["111111", "2468"])), Status::tries(2));
    assert_eq!(rig.status(SIGN), Status::SECURITY, "what was verified counts no more");
    assert_eq!(rig.status(&with_blocks(CHANGE, &[PIN, "2468"])), Status::OK);
    assert_eq!(rig.status(SIGN), Status::SECURITY, "changing it is no consent");
    assert_eq!(rig.verify(PIN), Status::tries(2));
    assert_eq!(rig.verify("2468"), Status::OK);
    assert!(rig.raw(SIGN).status.is_ok(), "the request was still loaded");
}

#[test]
fn what_is_no_pin_block_costs_no_try() {
    let mut rig = loaded();
    let wrong_data = [
        "1413579FFFFFFFFF", // another format
        "23135FFFFFFFFFFF", // three digits
        "2D1357913579135F", // thirteen
        "26135790FFFFFFF0", // not filled
        "2613579AFFFFFFFF", // no digit
        "FFFFFFFFFFFFFFFF",
    ];
    for hex in wrong_data {
        let block = data_encoding::HEXUPPER.decode(hex.as_bytes()).unwrap();
        let apdu = |instruction, blocks: &[u8]| {
            let len = u8::try_from(blocks.len()).unwrap();
            [&[0, instruction, 0, 0x81, len][..], blocks].concat()
        };
        assert_eq!(rig.status(&apdu(0x20, &block)), Status::WRONG_DATA, "{hex}");
        for instruction in [CHANGE, UNBLOCK] {
            let good = &with_blocks(0x20, &[PUK])[5..];
            for blocks in [[&block, good].concat(), [good, &block].concat()] {
                assert_eq!(rig.status(&apdu(instruction, &blocks)), Status::WRONG_DATA, "{hex}");
            }
        }
        for length in [1, 7, 9, 16] {
            assert_eq!(rig.status(&apdu(0x20, &vec![0x22; length])), Status::WRONG_LENGTH);
        }
        for length in [0, 8, 15, 17] {
            assert_eq!(rig.status(&apdu(CHANGE, &vec![0x22; length])), Status::WRONG_LENGTH);
            assert_eq!(rig.status(&apdu(UNBLOCK, &vec![0x22; length])), Status::WRONG_LENGTH);
        }
    }
    // A PUK has eight digits.
    assert_eq!(rig.status(&with_blocks(UNBLOCK, &["876543210", "2468"])), Status::WRONG_DATA);
    let mut client = rig.client();
    client.select().unwrap();
    assert_eq!(client.tries(), Ok(Tries { pin: 3, puk: 10 }));
}

#[test]
fn the_client_says_what_is_wrong_with_a_pin() {
    let mut rig = Rig::host();
    let mut client = rig.client();
    client.select().unwrap();
    client.load(&request(1)).unwrap();
    for form in ["", "123", "1234567890123", "12345x"] {
        assert_eq!(client.verify(&secret(form)), Err(CardError::PinForm), "{form}");
        assert_eq!(client.change_pin(&secret(PIN), &secret(form)), Err(CardError::PinForm));
        assert_eq!(client.unblock(&secret(PUK), &secret(form)), Err(CardError::PinForm));
    }
    assert_eq!(client.unblock(&secret(PIN), &secret(PIN)), Err(CardError::PinForm), "no PUK");
    assert_eq!(client.verify(&secret("111111")), Err(CardError::PinWrong { left: 2 }));
    let changed = client.change_pin(&secret("111111"), &secret("2468"));
    assert_eq!(changed, Err(CardError::PinWrong { left: 1 }));
    assert_eq!(client.verify(&secret("111111")), Err(CardError::PinBlocked), "it was the last");
    assert_eq!(client.verify(&secret(PIN)), Err(CardError::PinBlocked));
    let wrong = client.unblock(&secret("00000000"), &secret("2468"));
    assert_eq!(wrong, Err(CardError::PukWrong { left: 9 }));
    client.unblock(&secret(PUK), &secret("2468")).unwrap();
    client.change_pin(&secret("2468"), &secret("9753")).unwrap();
    client.verify(&secret("9753")).unwrap();
    let answer = client.sign().unwrap();
    client.load(&request(1)).unwrap();
    for _ in 0..3 {
        client.verify(&secret("111111")).unwrap_err();
    }
    for _ in 0..9 {
        client.unblock(&secret("00000000"), &secret("2468")).unwrap_err();
    }
    let last = client.unblock(&secret("00000000"), &secret("2468"));
    assert_eq!(last, Err(CardError::PukBlocked));
    assert_eq!(client.unblock(&secret(PUK), &secret("2468")), Err(CardError::PukBlocked));
    assert!(rig.is_answer(&request(1), &answer));
    let mut none = blocked().without_puk();
    let mut client = none.client();
    client.select().unwrap();
    assert_eq!(client.unblock(&secret(PUK), &secret("2468")), Err(CardError::PukAbsent));
}
