//! Key blocks of every version: round trips, every altered character, and each check with a block
//! that it refuses.
#![expect(clippy::unwrap_used, reason = "a block that is not made fails its test")]

mod header;
mod keys;
mod roundtrip;
mod wrapping;

use countersign_crypto::Secret;
use tr31::aws_lc::AwsLc;
use tr31::{Header, Kbpk, Leniency, Padding, Tr31Error, Version, unwrap, wrap};

/// A two-key TDES key fit for use.
const TDES: [u8; 16] = [
    0x5D, 0xB5, 0x0B, 0x45, 0x4F, 0x83, 0x89, 0xAD, 0xCE, 0x57, 0x3B, 0xE5, 0x08, 0x61, 0xF2, 0xBF,
];

/// A protection key fit for every version: three-key TDES with odd parity, and AES-192.
fn kbpk() -> Secret {
    Secret::copied_from(&[
        0x26, 0x08, 0x92, 0x19, 0x20, 0x61, 0xC8, 0x76, 0x0B, 0xDF, 0x23, 0x5E, 0x16, 0x19, 0xB0,
        0x57, 0xB3, 0x34, 0xFE, 0xD0, 0xEF, 0xA7, 0x4F, 0x32,
    ])
}

fn tdes() -> Secret {
    Secret::copied_from(&TDES)
}

/// A PIN encryption key's header.
fn header(version: Version) -> Header {
    Header::new(version, *b"P0", b'T', b'E', b'N')
}

fn wrapped(header: &Header, key: &Secret, leniency: Leniency) -> Result<String, Tr31Error> {
    let mut rng = testkit::rng::seeded(5);
    wrap(&AwsLc, Kbpk::Clear(&kbpk()), header, key, Padding::Random(&mut rng), leniency)
}

fn opened(block: &str, leniency: Leniency) -> Result<tr31::Unwrapped, Tr31Error> {
    unwrap(&AwsLc, Kbpk::Clear(&kbpk()), block.as_bytes(), leniency)
}

/// Refused as it is, and, if a departure is named, accepted with that alone and reporting it.
fn departs(header: &Header, key: &Secret, departure: Leniency, error: Tr31Error) {
    assert_eq!(wrapped(header, key, Leniency::NONE).unwrap_err(), error, "writing");
    let block = wrapped(header, key, departure).unwrap();
    assert_eq!(opened(&block, Leniency::NONE).unwrap_err(), error, "reading {block}");
    assert_eq!(opened(&block, departure).unwrap().used, departure, "{block}");
}
