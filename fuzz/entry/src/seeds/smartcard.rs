use countersign_payment::card::AID;

use super::Named;
use crate::payment::request;
use crate::smartcard::offline_text;

fn of(mode: u8, rest: &[u8]) -> Vec<u8> {
    [&[mode], rest].concat()
}

fn select() -> Vec<u8> {
    [&[0, 0xa4, 4, 0, 12][..], &AID, &[0]].concat()
}

pub(super) fn apdu() -> Named {
    let verify = [0, 0x20, 0, 0x81, 8, 0x24, 0x12, 0x34, 0xff, 0xff, 0xff, 0xff, 0xff];
    let inner = [&[0x84, 12][..], &AID, &[0xa5, 13, 0x50, 11], b"Countersign"].concat();
    let long = [&[0, 0xda, 0xdf, 0x10, 0, 1, 44][..], &[7; 300]].concat();
    let info = b"\x80\x01\x01\x81\x03pki\x82\x04p256\x83\x04host\x84\x08server-1";
    vec![
        ("case-1", of(0, &[0, 0x20, 0, 0x81])),
        ("case-2", of(0, &[0, 0xca, 0xdf, 1, 0])),
        ("case-3", of(0, &verify)),
        ("case-4", of(0, &select())),
        ("case-2-extended", of(0, &[0, 0xca, 0xdf, 5, 0, 0, 0])),
        ("case-3-extended", of(0, &long)),
        ("case-4-extended", of(0, &[&long[..], &[0, 0]].concat())),
        ("extended-for-nothing", of(0, &[0, 0xca, 0xdf, 1, 0, 0, 9])),
        ("too-short", of(0, &[0, 0x20, 0, 0x81, 8, 1])),
        ("control-information", of(1, &[&[0x6f, 29][..], &inner].concat())),
        ("information", of(1, info)),
        ("long-value", of(1, &[&[0x5f, 0x2d, 0x81, 0x80][..], &[1; 128]].concat())),
        ("long-form", of(1, &[0x84, 0x81, 1, 1])),
        ("pin-block", of(2, &verify[5..])),
        ("pin-block-longest", of(2, &[0x2c, 0x12, 0x34, 0x56, 0x78, 0x90, 0x12, 0xff])),
    ]
}

pub(super) fn device_card() -> Named {
    let short = |bytes: &[u8]| of(u8::try_from(bytes.len()).expect("short"), bytes);
    let bytes = request().to_bytes().expect("good texts");
    let mut chained = vec![0, 0];
    for part in bytes.chunks(255) {
        chained.push(9);
        chained.extend(short(part));
    }
    chained.push(10);
    chained.extend(short(&[0, 0xda, 0xdf, 0x10]));
    chained.extend([3, 5, 2]);
    let raw = |apdu: &[u8]| of(10, &short(apdu));
    vec![
        ("host", vec![0, 0, 1, 3, 5, 2]),
        ("keypad", vec![1, 0, 1, 5, 2]),
        ("keypad-declined", vec![1, 0, 1, 5, 0, 5, 2]),
        ("twice", vec![0, 0, 1, 3, 5, 2, 5, 2]),
        ("no-pin", vec![0, 0, 1, 5, 2, 3, 1, 5, 2]),
        ("blocked", vec![0, 0, 1, 4, 4, 4, 3, 7, 3, 5, 2]),
        ("keypad-blocked", vec![1, 0, 1, 5, 1, 5, 1, 5, 1, 5, 2]),
        ("reset", vec![0, 0, 1, 3, 6, 0, 5, 2]),
        ("changed-pin", vec![0, 0, 1, 3, 8, 5, 2, 3, 5, 2]),
        ("altered", [&[0, 0, 2, 5, 0, 1, 0, 35, 1][..], &[3, 5, 2]].concat()),
        ("chained", chained),
        ("public", [&[0][..], &raw(&select()), &raw(&[0, 0xca, 0xdf, 5, 0])].concat()),
        (
            "get-response",
            [&[0, 0][..], &raw(&[0, 0xca, 0xdf, 5, 9]), &raw(&[0, 0xc0, 0, 0, 0])].concat(),
        ),
        ("not-selected", [&[0][..], &raw(&[0, 0x2a, 0x9e, 0x9a, 0])].concat()),
    ]
}

pub(super) fn offline_request() -> Named {
    let text = offline_text();
    let edit = |operation: u8, at: u16, argument: u8| {
        [&[2, operation][..], &at.to_be_bytes(), &[argument]].concat()
    };
    vec![
        ("genuine", of(0, text.as_bytes())),
        ("genuine-sm2", vec![3]),
        ("lower", of(0, text.to_lowercase().as_bytes())),
        ("prefix", of(0, b"CS1:")),
        ("short", of(0, b"CS1:AEBAGBAF")),
        ("flipped", edit(1, 300, 0)),
        ("flipped-number", edit(1, 10, 1)),
        ("cut", edit(4, 400, 0)),
        ("padded", [&edit(6, 0, 1)[..], b"="].concat()),
        ("letter", edit(0, 200, b'A')),
    ]
}
