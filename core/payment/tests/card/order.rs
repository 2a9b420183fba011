//! D3, D4: what is shown is what is signed, once, for a PIN that was given for it.

use countersign_crypto::Suite;
use countersign_iso7816::Status;
use countersign_payment::card::{AID, CardInfo, Method, PinEntry, Tries};

use crate::chip::{ANSWER, PIN, Rig, SIGN, lines, request, secret};

const P256: Suite = Suite::X25519_P256_AES128GCM_SHA256;
const SM2: Suite = Suite::SM2_SM4GCM_SM3;

#[test]
fn a_card_signs_what_it_shows_for_its_pin() {
    for (method, suite) in [(Method::Pki, P256), (Method::Pki, SM2), (Method::Ocra, P256)] {
        for entry in [PinEntry::Host, PinEntry::Keypad] {
            let mut rig = Rig::new(method, suite, entry);
            rig.panel().typed.push_back(Some(PIN));
            let wanted = request(1299);
            let mut client = rig.client();
            client.select().unwrap();
            client.load(&wanted).unwrap();
            if entry == PinEntry::Host {
                client.verify(&secret(PIN)).unwrap();
            }
            let answer = client.sign().unwrap();
            assert!(rig.is_answer(&wanted, &answer), "{method:?} {suite} {entry:?}");
            assert!(!rig.is_answer(&request(1300), &answer));
            assert_eq!(method == Method::Ocra, answer.len() == 8 && answer.is_ascii());
            let (shown, asked) = match entry {
                PinEntry::Host => (vec![lines(&wanted)], vec![]),
                PinEntry::Keypad => (vec![], vec![lines(&wanted)]),
            };
            let panel = rig.panel();
            assert_eq!((&panel.shown, &panel.asked), (&shown, &asked));
            assert_eq!(rig.chip().signed, 1);
        }
    }
}

#[test]
fn anyone_may_read_what_a_card_says_of_itself() {
    for (method, suite, pin_entry) in
        [(Method::Pki, SM2, PinEntry::Keypad), (Method::Ocra, P256, PinEntry::Host)]
    {
        let mut rig = Rig::new(method, suite, pin_entry);
        let certificate = countersign_payment::card::Chip::certificate(rig.chip());
        assert_eq!(certificate.is_some(), method == Method::Pki);
        let mut client = rig.client();
        client.select().unwrap();
        let (serial, server_id) = ("SD-1".into(), "server-1".into());
        let info = CardInfo { serial, method, suite, pin_entry, server_id };
        assert_eq!(client.info().unwrap(), info);
        assert_eq!(client.tries().unwrap(), Tries { pin: 3, puk: 10 });
        assert_eq!(client.certificate().unwrap(), certificate);
    }
}

#[test]
fn the_bytes_of_what_anyone_may_read() {
    let mut rig = Rig::host();
    let select = [&[0, 0xa4, 4, 0, 12][..], &AID, &[0]].concat();
    let inner = [&[0x84, 12][..], &AID, &[0xa5, 13, 0x50, 11], b"Countersign"].concat();
    assert_eq!(*rig.raw(&select).data, [&[0x6f, 29][..], &inner].concat());
    assert_eq!(*rig.raw(&[0, 0xca, 0xdf, 1, 0]).data, *b"SD-1");
    let info = b"\x80\x01\x01\x81\x03pki\x82\x04p256\x83\x04host\x84\x08server-1";
    assert_eq!(*rig.raw(&[0, 0xca, 0xdf, 2, 0]).data, *info);
    assert_eq!(*rig.raw(&[0, 0xca, 0xdf, 3, 0]).data, [3, 10]);
    let certificate = rig.raw(&[0, 0xca, 0xdf, 5, 0, 0, 0]).data;
    assert_eq!(certificate[0], 0x30, "DER as it is");
    assert_eq!(rig.status(&[0, 0xca, 0xdf, 4, 0]), Status::NO_DATA_OBJECT);
    let mut ocra = Rig::new(Method::Ocra, P256, PinEntry::Host);
    ocra.select();
    assert_eq!(ocra.status(&[0, 0xca, 0xdf, 5, 0]), Status::NO_DATA_OBJECT);
}

#[test]
fn a_request_that_cannot_be_shown_is_not_loaded() {
    let good = request(1);
    let text = String::from_utf8(good.clone()).unwrap();
    let mut rig = Rig::host();
    rig.select();
    for wrong in [
        b"{}".to_vec(),
        text.replace(':', ": ").into_bytes(),
        text.replace("shop", "sh\u{202e}op").into_bytes(),
        good[..good.len() - 1].to_vec(),
        vec![b' '; 4097],
        vec![b'x'; 4608],
    ] {
        assert_eq!(rig.load(&good), Status::OK);
        assert_eq!(rig.verify(PIN), Status::OK);
        assert_eq!(rig.load(&wrong), Status::WRONG_DATA);
        assert_eq!(rig.status(SIGN), Status::CONDITIONS, "not even the one before");
    }
    assert_eq!(rig.panel().shown.len(), 6, "only the good one was shown");
    assert_eq!(rig.chip().signed, 0);
}

#[test]
fn nothing_is_signed_out_of_order() {
    let mut rig = Rig::host();
    assert_eq!(rig.status(SIGN), Status::CONDITIONS, "not selected");
    rig.select();
    assert_eq!(rig.status(SIGN), Status::CONDITIONS, "nothing loaded");
    assert_eq!(rig.verify(PIN), Status::CONDITIONS, "a PIN for nothing");
    assert_eq!(rig.load(&request(1)), Status::OK);
    assert_eq!(rig.status(SIGN), Status::SECURITY, "no PIN");
    assert_eq!(rig.status(ANSWER), Status::UNSUPPORTED, "another method");
    assert_eq!(rig.verify("000000"), Status::tries(2));
    assert_eq!(rig.status(SIGN), Status::SECURITY, "a wrong PIN is none");
    assert_eq!(rig.verify(PIN), Status::OK);
    assert_eq!(rig.verify("000000"), Status::tries(2));
    assert_eq!(rig.status(SIGN), Status::SECURITY, "a wrong PIN undoes a right one");
    assert_eq!(rig.verify(PIN), Status::OK);
    let answer = rig.raw(SIGN);
    assert!(rig.is_answer(&request(1), &answer.data));
    assert_eq!(rig.status(SIGN), Status::CONDITIONS, "once");
    assert_eq!(rig.verify(PIN), Status::CONDITIONS);
    let mut ocra = Rig::new(Method::Ocra, P256, PinEntry::Host);
    ocra.select();
    assert_eq!(ocra.load(&request(1)), Status::OK);
    assert_eq!(ocra.verify(PIN), Status::OK);
    assert_eq!(ocra.status(SIGN), Status::UNSUPPORTED, "another method");
    assert_eq!(ocra.raw(ANSWER).data.len(), 8, "and nothing was lost");
}

#[test]
fn a_pin_counts_for_what_was_loaded_before_it() {
    let mut rig = Rig::host();
    rig.select();
    assert_eq!(rig.load(&request(1)), Status::OK);
    assert_eq!(rig.verify(PIN), Status::OK);
    assert_eq!(rig.load(&request(1_000_000)), Status::OK);
    assert_eq!(rig.status(SIGN), Status::SECURITY, "it was for another request");
    assert_eq!(rig.verify(PIN), Status::OK);
    let answer = rig.raw(SIGN).data;
    assert!(rig.is_answer(&request(1_000_000), &answer));
    assert!(!rig.is_answer(&request(1), &answer));
}

#[test]
fn select_and_reset_forget_request_and_pin() {
    let select = |rig: &mut Rig| rig.select();
    let reset = |rig: &mut Rig| {
        rig.machine.reset();
        rig.select();
    };
    // Another program at the same reader looks for its own application.
    let select_other = |rig: &mut Rig| {
        assert_eq!(rig.status(&[0, 0xa4, 4, 0, 5, 0xa0, 0, 0, 0, 3]), Status::NOT_FOUND);
    };
    for forget in [&select as &dyn Fn(&mut Rig), &reset, &select_other] {
        let mut rig = Rig::host();
        rig.select();
        assert_eq!(rig.load(&request(1)), Status::OK);
        assert_eq!(rig.verify(PIN), Status::OK);
        forget(&mut rig);
        assert_eq!(rig.status(SIGN), Status::CONDITIONS);
        assert_eq!(rig.verify(PIN), Status::CONDITIONS);
        assert_eq!(rig.status(&[0, 0x20, 0, 0x81]), Status::tries(3), "no PIN counts");
        assert_eq!(rig.load(&request(1)), Status::OK);
        assert_eq!(rig.status(SIGN), Status::SECURITY);
        assert_eq!(rig.chip().signed, 0);
    }
}

#[test]
fn a_chip_that_fails_has_used_the_request_up() {
    let mut rig = Rig::host();
    rig.select();
    assert_eq!(rig.load(&request(1)), Status::OK);
    assert_eq!(rig.verify(PIN), Status::OK);
    rig.chip().is_broken = true;
    assert_eq!(rig.status(SIGN), Status::FAILED);
    rig.chip().is_broken = false;
    assert_eq!(rig.status(SIGN), Status::CONDITIONS);
    assert_eq!(rig.chip().signed, 0);
}
