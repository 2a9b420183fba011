//! Bad input: each has its status word, and loses nothing that was loaded.

use countersign_iso7816::Status;
use countersign_payment::card::AID;

use crate::chip::{PIN, Rig, SIGN, request};

/// A card that would sign now.
fn ready() -> Rig {
    let mut rig = Rig::host();
    rig.select();
    assert_eq!(rig.load(&request(1)), Status::OK);
    assert_eq!(rig.verify(PIN), Status::OK);
    rig
}

fn assert_ready(rig: &mut Rig, after: &[u8]) {
    let answer = rig.raw(SIGN);
    assert!(rig.is_answer(&request(1), &answer.data), "lost by {after:02x?}: {}", answer.status);
}

#[test]
fn bad_commands_have_their_status_words_and_lose_nothing() {
    let cases: &[(&[u8], u16)] = &[
        // No APDU.
        (&[], 0x6700),
        (&[0], 0x6700),
        (&[0, 0x20, 0], 0x6700),
        (&[0, 0xda, 0xdf, 0x10, 9, 1], 0x6700),
        (&[0, 0xda, 0xdf, 0x10, 0, 0, 9, 1], 0x6700),
        // Classes.
        (&[0x80, 0x2a, 0x9e, 0x9a, 0], 0x6e00),
        (&[0x01, 0x2a, 0x9e, 0x9a, 0], 0x6881),
        (&[0x0c, 0x2a, 0x9e, 0x9a, 0], 0x6882),
        // Instructions.
        (&[0, 0x00, 0, 0], 0x6d00),
        (&[0, 0xb0, 0, 0, 0], 0x6d00),
        (&[0, 0x84, 0, 0, 8], 0x6d00),
        (&[0, 0x61, 0, 0], 0x6d00),
        // Parameters.
        (&[0, 0x20, 0, 0x80], 0x6a86),
        (&[0, 0x20, 1, 0x81], 0x6a86),
        (&[0, 0x2a, 0x9e, 0x9b, 0], 0x6a86),
        (&[0, 0x2a, 0x80, 0x86, 0], 0x6a86),
        (&[0, 0x88, 0, 1, 0], 0x6a86),
        (&[0, 0x24, 1, 0x81], 0x6a86),
        (&[0, 0x2c, 0, 0], 0x6a86),
        (&[0, 0xda, 0xdf, 0x01, 1, 1], 0x6a86),
        (&[0, 0xca, 0, 0, 0], 0x6a88),
        (&[0, 0xca, 0xdf, 0x10, 0], 0x6a88),
        (&[0, 0xa4, 0, 0, 2, 0x3f, 0], 0x6a86),
        // Lengths of data.
        (&[0, 0x2a, 0x9e, 0x9a, 1, 1, 0], 0x6700),
        (&[0, 0xca, 0xdf, 1, 1, 1, 0], 0x6700),
        (&[0, 0x24, 0, 0x81], 0x6700),
        (&[0, 0x2c, 0, 0x81], 0x6700),
        // Out of order.
        (&[0, 0xc0, 0, 0, 0], 0x6985),
        (&[0, 0x88, 0, 0, 0], 0x6a81),
        // Chains.
        (&[0x10, 0xda, 0xdf, 0x10], 0x6700),
        (&[0x10, 0xa4, 4, 0, 1, 1], 0x6884),
    ];
    for (bad, word) in cases {
        let mut rig = ready();
        assert_eq!(rig.status(bad), Status::new(*word), "{bad:02x?}");
        assert_ready(&mut rig, bad);
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
fn a_request_may_come_in_one_extended_apdu() {
    let mut rig = Rig::host();
    let select = [&[0, 0xa4, 4, 0x0c, 12][..], &AID].concat();
    assert_eq!(rig.status(&select), Status::OK);
    let bytes = request(1);
    let len = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    let apdu = [&[0, 0xda, 0xdf, 0x10, 0][..], &len, &bytes].concat();
    assert_eq!(rig.status(&apdu), Status::OK);
    assert_eq!(rig.verify(PIN), Status::OK);
    assert_ready(&mut rig, &[]);
}

#[test]
fn a_signature_may_be_fetched_in_parts() {
    let mut rig = ready();
    let first = rig.raw(&[0, 0x2a, 0x9e, 0x9a, 10]);
    assert_eq!(first.data.len(), 10);
    let more = u8::try_from(first.status.more_available().unwrap()).unwrap();
    let rest = rig.raw(&[0, 0xc0, 0, 0, more]);
    assert!(rig.is_answer(&request(1), &[&first.data[..], &rest.data].concat()));
    // One that was not fetched is gone, and not made again.
    let mut rig = ready();
    assert!(rig.status(&[0, 0x2a, 0x9e, 0x9a]).more_available().is_some());
    rig.select();
    assert_eq!(rig.status(&[0, 0xc0, 0, 0, 0]), Status::CONDITIONS);
    assert_eq!(rig.status(SIGN), Status::CONDITIONS);
    assert_eq!(rig.chip().signed, 1);
}
