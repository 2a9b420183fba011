use countersign_payment::joint::card::AID;

use super::Named;
use crate::payment::request;

const INSERT: u8 = 5;
const TAP: u8 = 6;
const OUT: u8 = 7;
const PIN: u8 = 8;
const WRONG_PIN: u8 = 9;
const NO: u8 = 10;
const RESET: u8 = 11;
const BATTERY: u8 = 12;
const WAIT: u8 = 13;
const RELEASE: [u8; 2] = [14, 0];
const OTHER_RELEASE: [u8; 2] = [14, 1];
/// With Le of one byte.
const SHORT_RELEASE: [u8; 2] = [14, 2];
/// A contactless reader sees the card.
const NEAR: u8 = 17;
/// Select, load, the digest form, sign.
const SIGN: [u8; 6] = [INSERT, 0, 1, 3, 3, 4];
/// Out, and with its PIN to a contactless reader.
const CONSENT: [u8; 4] = [OUT, PIN, TAP, 0];

pub(super) fn joint_card() -> Named {
    let short = |bytes: &[u8]| [&[u8::try_from(bytes.len()).expect("short")], bytes].concat();
    let raw = |apdu: &[u8]| [&[16][..], &short(apdu)].concat();
    let with = |steps: &[&[u8]]| steps.concat();
    let bytes = request().to_bytes().expect("good texts");
    let mut chained = vec![INSERT, 0];
    for part in bytes.chunks(255) {
        chained.push(15);
        chained.extend(short(part));
    }
    chained.extend(raw(&[0, 0xda, 0xdf, 0x10]));
    chained.extend([3, 2, 4, OUT, PIN]);
    let near = with(&[&SIGN, &[NEAR, 0, PIN]]);
    let other = with(&[&OTHER_RELEASE, &SHORT_RELEASE]);
    let parts = |le: u8| raw(&[0, 0x2a, 0x9e, 0x9a, le]);
    let rest = raw(&[0, 0xc0, 0, 0, 0, 0, 0]);
    let select = raw(&[&[0, 0xa4, 4, 0, 16][..], &AID, &[0]].concat());
    let verify = raw(&[0, 0x20, 0, 0x81, 8, 0x26, 0x13, 0x57, 0x90, 0xff, 0xff, 0xff, 0xff]);
    let read = |object: u8| raw(&[0, 0xca, 0xdf, object, 0]);
    vec![
        ("released", with(&[&SIGN, &CONSENT, &RELEASE, &RELEASE])),
        ("sealed", with(&[&[INSERT, 0, 1, 3, 1, 3, 2, 4], &CONSENT, &RELEASE])),
        ("early-release", with(&[&SIGN, &RELEASE, &[TAP, 0], &RELEASE, &[PIN], &RELEASE])),
        ("contact-release", with(&[&near, &RELEASE, &[OUT, PIN, INSERT, NEAR, 0], &RELEASE])),
        ("other-release", with(&[&SIGN, &CONSENT, &other.repeat(3), &[NO], &rest])),
        ("declined", with(&[&SIGN, &[OUT, NO, TAP, 0], &RELEASE])),
        ("blocked", with(&[&SIGN, &[OUT, WRONG_PIN, WRONG_PIN, WRONG_PIN, PIN], &SIGN])),
        ("late", with(&[&SIGN, &[OUT, WAIT, 119, 0, WAIT, 1, 0, PIN]])),
        ("shown-too-long", with(&[&SIGN, &CONSENT, &[WAIT, 60, 0], &RELEASE])),
        ("clock-back", with(&[&SIGN, &[OUT, WAIT, 200, 1, WAIT, 119, 0, PIN]])),
        ("put-back", with(&[&SIGN, &[OUT, INSERT, PIN, OUT, PIN]])),
        ("battery", with(&[&SIGN, &CONSENT, &[BATTERY], &RELEASE])),
        ("reset", with(&[&SIGN, &[RESET, 0, OUT, RESET, PIN, RESET, TAP, 0], &RELEASE])),
        ("again", with(&[&SIGN, &SIGN, &[OUT, PIN], &SIGN, &CONSENT, &RELEASE])),
        ("chained", chained),
        ("in-parts", with(&[&SIGN[..5], &parts(9), &rest, &CONSENT, &RELEASE])),
        ("half-fetched", with(&[&SIGN[..5], &parts(9), &[OUT, PIN]])),
        ("altered", with(&[&[INSERT, 0, 2, 5, 0, 1, 0, 35, 1], &SIGN[3..]])),
        ("public", with(&[&[INSERT], &select, &read(2), &read(5), &read(6), &verify])),
        ("no-contact", with(&[&[TAP, 0, 1, 3, 3, 4], &read(1), &read(6)])),
    ]
}
