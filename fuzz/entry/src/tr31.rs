//! Key blocks: what opens was wrapped under that key, and what is read is written again.

use std::sync::OnceLock;

use countersign_crypto::Secret;
use tr31::aws_lc::AwsLc;
use tr31::{
    Header, Kbpk, Leniency, OptionalBlock, OptionalId, Padding, Version, inspect, unwrap, wrap,
};

/// Random bytes of padding where nothing is random.
const PADDING: [u8; 14] = [0x31; 14];

/// Three-key TDES with odd parity, and an AES-192 key: for every version.
fn kbpk() -> Secret {
    Secret::copied_from(&[
        0x26, 0x08, 0x92, 0x19, 0x20, 0x61, 0xC8, 0x76, 0x0B, 0xDF, 0x23, 0x5E, 0x16, 0x19, 0xB0,
        0x57, 0xB3, 0x34, 0xFE, 0xD0, 0xEF, 0xA7, 0x4F, 0x32,
    ])
}

/// A two-key TDES key fit for use.
fn key() -> Secret {
    Secret::copied_from(&[
        0x5D, 0xB5, 0x0B, 0x45, 0x4F, 0x83, 0x89, 0xAD, 0xCE, 0x57, 0x3B, 0xE5, 0x08, 0x61, 0xF2,
        0xBF,
    ])
}

/// A block of each version, with and without optional blocks: all that opens under [`kbpk`].
pub(crate) fn genuine() -> &'static [String] {
    static GENUINE: OnceLock<Vec<String>> = OnceLock::new();
    GENUINE.get_or_init(|| {
        let blocks = vec![
            OptionalBlock::new(OptionalId::KC, ""),
            OptionalBlock::new(OptionalId::KP, ""),
            OptionalBlock::new(OptionalId::KS, "FFFF9876543210E00000"),
            OptionalBlock::new(OptionalId::LB, "label ".repeat(45)),
            OptionalBlock::new(OptionalId::TS, "20260818221218Z"),
        ];
        let headers = Version::ALL.into_iter().flat_map(|version| {
            let plain = Header::new(version, *b"B1", b'T', b'X', b'N');
            [plain.clone(), Header { optional: blocks.clone(), ..plain }]
        });
        headers.map(|header| wrapped(&header).expect("a genuine block")).collect()
    })
}

fn wrapped(header: &Header) -> Result<String, tr31::Tr31Error> {
    let kbpk = kbpk();
    wrap(&AwsLc, Kbpk::Clear(&kbpk), header, &key(), Padding::Exact(&PADDING), Leniency::all())
}

/// The bytes as a key block.
///
/// - Reading strictly accepts nothing that reading leniently refuses, and reports no departure.
/// - A header that was read is written, and read again, to the same.
/// - A key that can be wrapped under a header that was read comes out again.
/// - Nothing opens but what was wrapped, digits of payload and MAC in either case.
///
/// # Panics
/// If one of these does not hold.
pub fn key_block(bytes: &[u8]) {
    let lenient = inspect(bytes, Leniency::all());
    if let Ok(strict) = inspect(bytes, Leniency::NONE) {
        assert!(strict.used.is_empty());
        assert_eq!(lenient.as_ref(), Ok(&strict));
    }
    if let Ok(seen) = &lenient {
        let parsed = Header::parse_prefix(bytes, Leniency::all()).expect("it was read before");
        assert_eq!(parsed.header, seen.header);
        let encoded = seen.header.encode().expect("what was read can be written");
        assert_eq!(Header::parse(&encoded, Leniency::all()).as_ref(), Ok(&seen.header));
        if let Ok(block) = wrapped(&seen.header) {
            let kbpk = kbpk();
            let opened = unwrap(&AwsLc, Kbpk::Clear(&kbpk), block.as_bytes(), Leniency::all());
            assert!(opened.expect("what was wrapped opens").key.ct_eq(key().expose()));
        }
    }
    let kbpk = kbpk();
    if unwrap(&AwsLc, Kbpk::Clear(&kbpk), bytes, Leniency::all()).is_ok() {
        let len = Header::parse_prefix(bytes, Leniency::all()).expect("it opened").len;
        let (head, body) = bytes.split_at(len);
        let upper = [head, &body.to_ascii_uppercase()].concat();
        assert!(genuine().iter().any(|block| block.as_bytes() == upper), "a forgery");
    }
}
