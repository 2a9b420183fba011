//! Cards with a display and a keypad of their own.

use countersign_iso7816::{CardLink, LinkError, Status};
use countersign_payment::card::{CardClient, CardError, Chip, Tries};

use crate::chip::{PIN, PIN_TRIES, PUK, PUK_TRIES, Rig, SIGN, lines, request, secret, with_blocks};

#[test]
fn a_card_with_a_keypad_takes_no_pin_from_the_phone() {
    let mut rig = Rig::keypad();
    rig.select();
    assert_eq!(rig.verify(PIN), Status::UNSUPPORTED);
    assert_eq!(rig.load(&request(1)), Status::OK);
    assert_eq!(rig.verify(PIN), Status::UNSUPPORTED);
    assert_eq!(rig.verify("111111"), Status::UNSUPPORTED);
    assert_eq!(rig.status(&[0, 0x20, 0, 0x81]), Status::tries(3), "nor counts one");
}

/// Nobody but who is at its keypad finds a PIN out, or uses its tries or the PUK's up.
#[test]
fn a_card_with_a_keypad_has_its_pin_changed_there_only() {
    let mut rig = Rig::keypad();
    rig.select();
    for pin_tries in [PIN_TRIES, 0] {
        rig.chip().tries.pin = pin_tries;
        for blocks in [[PIN, "2468"], ["111111", "2468"], [PUK, "2468"], ["00000000", "2468"]] {
            for _ in 0..=PUK_TRIES {
                for instruction in [0x24, 0x2c] {
                    let status = rig.status(&with_blocks(instruction, &blocks));
                    assert_eq!(status, Status::UNSUPPORTED, "{instruction:02x} {blocks:?}");
                }
            }
        }
        assert_eq!(*rig.raw(&[0, 0xca, 0xdf, 3, 0]).data, [pin_tries, PUK_TRIES]);
    }
    for no_blocks in [&[][..], &[1, 1]] {
        let apdu = [&[0, 0x24, 0, 0x81][..], no_blocks].concat();
        assert_eq!(rig.status(&apdu), Status::UNSUPPORTED);
    }
    rig.chip().tries.pin = PIN_TRIES;
    rig.panel().typed.push_back(Some(PIN));
    assert_eq!(rig.load(&request(1)), Status::OK);
    assert!(rig.raw(SIGN).status.is_ok(), "it is the PIN it was");
}

/// Remembers what was sent.
struct Tapped<L>(L, Vec<Vec<u8>>);

impl<L: CardLink> CardLink for Tapped<L> {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
        self.1.push(command.to_vec());
        self.0.transmit(command)
    }
}

#[test]
fn a_client_sends_no_pin_to_a_card_with_a_keypad() {
    let mut rig = Rig::keypad();
    let mut client = CardClient::new(Tapped(rig.client().into_link(), Vec::new()));
    client.select().unwrap();
    client.load(&request(1)).unwrap();
    for refused in [
        client.verify(&secret(PIN)),
        client.change_pin(&secret(PIN), &secret("2468")),
        client.unblock(&secret(PUK), &secret("2468")),
    ] {
        assert_eq!(refused, Err(CardError::Keypad));
    }
    assert_eq!(CardError::Keypad.check(), "card-keypad");
    assert_eq!(client.tries(), Ok(Tries { pin: PIN_TRIES, puk: PUK_TRIES }));
    let sent = client.into_link().1;
    assert!(sent.iter().all(|apdu| !matches!(apdu[1], 0x20 | 0x24 | 0x2c)), "{sent:02x?}");
}

#[test]
fn each_signature_is_asked_for_at_the_keypad() {
    let mut rig = Rig::keypad();
    rig.panel().typed.extend([Some("111111"), Some(PIN), Some(PIN)]);
    let mut client = rig.client();
    client.select().unwrap();
    client.load(&request(1)).unwrap();
    assert_eq!(client.sign(), Err(CardError::PinWrong { left: 2 }));
    // Asked again, for the same request.
    let answer = client.sign().unwrap();
    assert_eq!(client.sign(), Err(CardError::OutOfOrder), "once");
    client.load(&request(2)).unwrap();
    let second = client.sign().unwrap();
    assert!(rig.is_answer(&request(1), &answer) && rig.is_answer(&request(2), &second));
    let asked = [lines(&request(1)), lines(&request(1)), lines(&request(2))];
    assert_eq!(rig.panel().asked, asked);
    assert_eq!(rig.chip().signed, 2);
}

#[test]
fn a_holder_who_says_no_is_not_asked_again_for_the_same() {
    let mut rig = Rig::keypad();
    rig.panel().typed.push_back(None);
    let mut client = rig.client();
    client.select().unwrap();
    client.load(&request(1)).unwrap();
    assert_eq!(client.sign(), Err(CardError::Declined));
    assert_eq!(client.sign(), Err(CardError::OutOfOrder));
    assert_eq!(rig.chip().signed, 0);
    assert_eq!(rig.panel().asked.len(), 1);
}

#[test]
fn a_blocked_card_does_not_ask() {
    let mut rig = Rig::keypad();
    rig.panel().typed.extend([Some("1111"); 3]);
    rig.select();
    assert_eq!(rig.load(&request(1)), Status::OK);
    for left in [2, 1, 0] {
        assert_eq!(rig.status(SIGN), Status::tries(left));
    }
    assert_eq!(rig.status(SIGN), Status::BLOCKED);
    assert_eq!(rig.panel().asked.len(), 3);
    // Its holder unblocks it there, and the request is still loaded.
    rig.panel().typed.extend([Some("2468")]);
    let mut rng = testkit::rng::seeded(8);
    rig.chip().unblock(&secret(PUK), &secret("2468"), &mut rng).unwrap();
    assert!(rig.client().sign().is_ok());
}

#[test]
fn a_pin_of_another_form_at_the_keypad_signs_nothing() {
    let mut rig = Rig::keypad();
    rig.panel().typed.extend([Some(""), Some(PIN)]);
    let mut client = rig.client();
    client.select().unwrap();
    client.load(&request(1)).unwrap();
    assert!(client.sign().is_err());
    assert!(client.sign().is_ok());
    assert_eq!(rig.chip().signed, 1);
    // A chip that says so itself: it is about what was typed.
    rig.chip().wants_form = true;
    rig.panel().typed.push_back(Some("12"));
    let mut client = rig.client();
    client.load(&request(1)).unwrap();
    assert_eq!(client.sign(), Err(CardError::PinForm));
}
