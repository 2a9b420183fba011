use countersign_payment::ocra::PAYMENT_SUITE;

use super::Named;
use crate::payment::request;

fn short(parts: &[&str]) -> Vec<u8> {
    let framed = parts
        .iter()
        .map(|part| [&[u8::try_from(part.len()).expect("short")][..], part.as_bytes()].concat());
    framed.collect::<Vec<_>>().concat()
}

fn of(mode: u8, rest: &[u8]) -> Vec<u8> {
    [&[mode], rest].concat()
}

pub(super) fn payment() -> Named {
    let bytes = request().to_bytes().expect("good texts");
    let plain = String::from_utf8(bytes.clone()).expect("JSON");
    let spaced = plain.replace(':', ": ");
    let suite = |suite, question| of(3, &short(&[suite, question, "237653", "ab"]));
    // Edits: operation, place, argument.
    let edit = |at: u16, argument: u8| [&[0, 1][..], &at.to_be_bytes(), &[argument]].concat();
    vec![
        ("request", of(0, &bytes)),
        ("request-spaced", of(0, spaced.as_bytes())),
        ("request-cut", of(0, &bytes[..bytes.len() - 1])),
        ("altered-amount", of(1, &edit(35, 1))),
        ("altered-payee", of(1, &[&[1, 0][..], &[1, 10], b"9"].concat())),
        ("text-mixed", of(2, "Аpple".as_bytes())),
        ("text-good", of(2, "订单 117（含税） Müller, счёт № 15".as_bytes())),
        ("text-bidi", of(2, "100\u{202e}001".as_bytes())),
        ("text-marks", of(2, "x\u{323}\u{30a}\u{302}\u{303}\u{304}".as_bytes())),
        ("ocra", suite("OCRA-1:HOTP-SHA1-6:QN08", "00000000")),
        ("ocra-payment", suite(PAYMENT_SUITE, "00ff")),
        ("ocra-all", suite("OCRA-1:HOTP-SHA512-8:C-QA64-PSHA256-S064-T1M", "SIG10000")),
        ("ocra-no-digits", suite("OCRA-1:HOTP-SHA256-0:QH08-T", "abc")),
        ("walk-approved", of(4, &[1, 2, 1, 2, 1, 0, 1, 4, 1, 5])),
        ("walk-failed", of(4, &[0, 2, 0, 2, 0, 2, 0, 0])),
        ("walk-late", of(4, &[31, 5, 31, 2, 31, 5, 31, 0, 1, 5])),
        ("amount", of(5, &[&short(&["12.34", "CNY"])[..], b"DE89370400440532013000"].concat())),
        ("amount-yen", of(5, &[&short(&["500", "JPY"])[..], b"6222021234567890123"].concat())),
        ("amount-long", of(5, &short(&["99999999999999999999", "KWD"]))),
    ]
}

pub(super) fn evidence() -> Named {
    let flip = |setting: u8, at: u16| [&[setting, 1][..], &at.to_be_bytes(), &[3]].concat();
    let space = |at: u16| [&[0, 2][..], &at.to_be_bytes(), &[1, b' ']].concat();
    vec![
        ("untouched", vec![0]),
        ("untouched-sm2", vec![1]),
        ("flipped", flip(0, 300)),
        ("flipped-sm2", flip(1, 2000)),
        ("flipped-seal", flip(0, 6000)),
        ("joint", vec![8]),
        ("joint-sm2", vec![9]),
        ("joint-flipped", flip(8, 200)),
        ("spaced", space(1)),
        ("cut", vec![0, 4, 1, 0, 0]),
        ("empty-object", b"\x02{}".to_vec()),
        ("raw-nested", [&[2][..], &[b'['; 300]].concat()),
        ("receipt", vec![4]),
        ("receipt-sm2", vec![5]),
        ("receipt-flipped", flip(4, 3000)),
        ("receipt-cut", vec![4, 4, 8, 0, 0]),
        ("raw-receipt", b"\x06e30.e30.e30".to_vec()),
        ("raw-none", b"\x06eyJhbGciOiJub25lIn0.e30.".to_vec()),
    ]
}
