//! Cards that are not ours, or do not behave.

use countersign_crypto::{Suite, provider_of};
use countersign_iso7816::{CardLink, LinkError};
use countersign_payment::card::CardError;
use countersign_payment::joint::card::{AID, JointClient, LABEL, Phase, Signed};
use countersign_payment::joint::{Commitment, Form};

use crate::rig::{P256, transaction};

/// Answers like this, by INS and P2, with a status word at its end.
struct Scripted(fn(u8, u8) -> Vec<u8>);

impl CardLink for Scripted {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
        Ok((self.0)(command[1], command[3]))
    }
}

/// Always answers this.
struct Always(Vec<u8>);

impl CardLink for Always {
    fn transmit(&mut self, _: &[u8]) -> Result<Vec<u8>, LinkError> {
        Ok(self.0.clone())
    }
}

fn always(answer: &[u8]) -> JointClient<Always> {
    JointClient::new(Always(answer.to_vec()))
}

fn information() -> Vec<u8> {
    let inner = [&[0x84, 16][..], &AID, &[0xa5, 18, 0x50, 16], LABEL.as_bytes()].concat();
    [&[0x6f, 38][..], &inner, &[0x90, 0]].concat()
}

fn some_signed() -> Signed {
    let commitment = Commitment::parse(&[&[3][..], &[7; 48]].concat()).unwrap();
    Signed { commitment, signature: vec![0x30; 70] }
}

#[test]
fn a_foreign_card_is_not_ours() {
    let good = information();
    assert_eq!(always(&good).select(), Ok(()));
    let altered = |at: usize| {
        let mut altered = good.clone();
        altered[at] ^= 0x20;
        altered
    };
    let device = b"\x6f\x1d\x84\x0c\xf0Countersign\xa5\x0d\x50\x0bCountersign\x90\0";
    for foreign in [
        &[0x6a, 0x82][..],
        &[0x6d, 0],
        &[0x90, 0],
        &[0x6f, 0, 0x90, 0],
        &altered(6),
        &altered(30),
        device,
        &[&good[..good.len() - 2], &[0, 0x90, 0]].concat(),
    ] {
        assert_eq!(always(foreign).select(), Err(CardError::NotOurs), "{foreign:02x?}");
    }
    for malformed in [&[][..], &[0x90]] {
        assert_eq!(always(malformed).select(), Err(CardError::Malformed));
    }
}

/// Gives this serial number, and this as its information.
struct Says(&'static str, Vec<u8>);

impl CardLink for Says {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
        let data = if command[3] == 1 { self.0.as_bytes() } else { &self.1 };
        Ok([data, &[0x90, 0]].concat())
    }
}

const INFO: &[u8] =
    b"\x80\x01\x01\x81\x03\x02\x01\x03\x82\x04p256\x83\x08server-1\x84\x09ACCOUNT01";

#[test]
fn what_a_card_says_of_itself_is_read_strictly() {
    let said = |serial, info: &[u8]| JointClient::new(Says(serial, info.to_vec())).info();
    let good = said("SC-1", INFO).unwrap();
    assert_eq!(good.forms, [Form::SealedRandom, Form::Sealed, Form::Digest]);
    assert_eq!((good.suite, good.server_id.as_str()), (P256, "server-1"));
    assert_eq!(good.account, "ACCOUNT01");
    let replaced = |at: usize, byte: u8| {
        let mut altered = INFO.to_vec();
        altered[at] = byte;
        altered
    };
    for wrong in [
        replaced(2, 2),      // a later version
        replaced(5, 3),      // a form twice
        replaced(5, 0),      // a form that is none
        replaced(5, 9),      // nor is this
        replaced(10, b'q'),  // suite
        replaced(16, b'\n'), // server
        replaced(26, b'a'),  // account
        replaced(26, 0xff),  // no UTF-8
        replaced(24, 0x85),  // another tag
        replaced(25, 8),     // something behind
        replaced(25, 10),    // cut off
        [INFO, &[0x85, 0]].concat(),
        INFO[..24].to_vec(),
        b"\x80\x01\x01\x81\0\x82\x04p256\x83\0\x84\0".to_vec(), // no form at all
        vec![],
    ] {
        assert_eq!(said("SC-1", &wrong), Err(CardError::Malformed), "{wrong:02x?}");
    }
    for serial in ["", "SC 1", "SC\u{202e}1", "SC/1"] {
        assert_eq!(said(serial, INFO), Err(CardError::Malformed), "{serial:?}");
    }
    for wrong in [&[0x90, 0][..], &[3, 0x90, 0], &[3, 3, 3, 0x90, 0]] {
        assert_eq!(always(wrong).tries(), Err(CardError::Malformed));
    }
    for wrong in [&[0x90, 0][..], &[8, 0x90, 0], &[0, 0, 0x90, 0]] {
        assert_eq!(always(wrong).state(), Err(CardError::Malformed));
    }
    assert_eq!(always(&[0x90, 0]).certificate(), Err(CardError::Malformed));
    assert_eq!(always(&[0x6a, 0x88]).certificate(), Ok(None));
}

#[test]
fn phases_lead_back() {
    let mut found = Vec::new();
    for code in 0..=255 {
        let read = always(&[code, 0x90, 0]).state();
        assert_eq!(read.is_ok(), code < 8);
        if let Ok(phase) = read {
            assert_eq!(Phase::from_code(phase.code()), Some(phase));
            assert!(!found.contains(&phase.name()));
            found.push(phase.name());
        }
    }
}

#[test]
fn an_answer_that_is_no_signature_is_malformed() {
    let signs = |answer: fn() -> Vec<u8>| {
        // A function pointer takes nothing along, so the answers are written out.
        struct Signs(fn() -> Vec<u8>);
        impl CardLink for Signs {
            fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
                let data = if command[1] == 0x2a { (self.0)() } else { Vec::new() };
                Ok([&data[..], &[0x90, 0]].concat())
            }
        }
        JointClient::new(Signs(answer)).sign(Form::Digest)
    };
    fn answer(form: u8, commitment: usize, signature: usize) -> Vec<u8> {
        let length = |len: usize| u8::try_from(len).unwrap();
        let body = vec![7; commitment - 1];
        let mut out = [&[0x80, length(commitment), form][..], &body].concat();
        out.extend([0x81, length(signature)]);
        out.extend(vec![0x30; signature]);
        out
    }
    let good = signs(|| answer(3, 49, 70)).unwrap();
    assert_eq!(good, some_signed());
    let wrong: [fn() -> Vec<u8>; 9] = [
        Vec::new,
        || answer(1, 120, 70), // another form than was asked for
        || answer(4, 49, 70),
        || answer(3, 48, 70),
        || answer(3, 50, 70),
        || answer(3, 49, 0),
        || answer(3, 49, 81),
        || [answer(3, 49, 70), vec![0]].concat(),
        || answer(3, 49, 70)[..100].to_vec(),
    ];
    for wrong in wrong {
        assert_eq!(signs(wrong), Err(CardError::Malformed), "{:02x?}", wrong());
    }
}

#[test]
fn status_words_are_told() {
    let provider = provider_of(Suite::X25519_P256_AES128GCM_SHA256).unwrap();
    let (hash, signed) = (&*provider.hash, some_signed());
    let put = |answer: &[u8]| always(answer).put_transaction(&transaction(1)).unwrap_err();
    let sign = |answer: &[u8]| always(answer).sign(Form::Sealed).unwrap_err();
    let release = |answer: &[u8]| always(answer).release(hash, &signed).unwrap_err();
    assert_eq!(put(&[0x6a, 0x80]), CardError::RequestRefused);
    assert_eq!(put(&[0x69, 0x85]), CardError::OutOfOrder);
    assert_eq!(put(&[0x68, 0x83]), CardError::OutOfOrder);
    assert_eq!(put(&[0x6f, 0]), CardError::Status(0x6f00));
    for none in [&b""[..], &[b'x'; 4097]] {
        let unsent = always(&[0x90, 0]).put_transaction(none);
        assert_eq!(unsent, Err(CardError::RequestRefused), "nothing is sent");
    }
    assert_eq!(sign(&[0x6a, 0x80]), CardError::FormRefused);
    assert_eq!(sign(&[0x6a, 0x80]).check(), "card-form");
    assert_eq!(sign(&[0x69, 0x85]), CardError::OutOfOrder);
    let refuses = |word: fn(u8, u8) -> Vec<u8>| {
        JointClient::new(Scripted(word)).sign(Form::Sealed).unwrap_err()
    };
    assert_eq!(
        refuses(|ins, _| if ins == 0x2a { vec![0x69, 0x83] } else { vec![0x90, 0] }),
        CardError::PinBlocked
    );
    assert_eq!(
        refuses(|ins, _| if ins == 0x2a { vec![0x6a, 0x80] } else { vec![0x90, 0] }),
        CardError::RequestRefused
    );
    assert_eq!(release(&[0x69, 0x82]), CardError::ConsentPending);
    assert_eq!(release(&[0x69, 0x86]), CardError::Declined);
    assert_eq!(release(&[0x69, 0x83]), CardError::PinBlocked);
    assert_eq!(release(&[0x69, 0x85]), CardError::NothingReleased);
    assert_eq!(release(&[0x6a, 0x80]), CardError::OtherSignature);
    assert_eq!(release(&[0x6d, 0]), CardError::Status(0x6d00));
}

#[test]
fn what_is_no_joint_password_is_malformed() {
    let provider = provider_of(P256).unwrap();
    let release = |digits: &[u8]| {
        let answer = [digits, &[0x90, 0]].concat();
        always(&answer)
            .release(&*provider.hash, &some_signed())
            .map(|given| given.grouped().to_string())
    };
    let good = (0..10).map(|check| format!("12345678{check}"));
    let taken: Vec<_> = good.filter(|digits| release(digits.as_bytes()).is_ok()).collect();
    assert_eq!(taken.len(), 1, "one check digit is right");
    let good = taken[0].as_bytes();
    let grouped = [&good[..4], b" ", &good[4..8], b" ", &good[8..]].concat();
    for wrong in [&b""[..], &good[..8], &[good, b"0"].concat(), &grouped, &[0xff; 9], b"12345678x"]
    {
        assert_eq!(release(wrong), Err(CardError::Malformed), "{wrong:02x?}");
    }
}
