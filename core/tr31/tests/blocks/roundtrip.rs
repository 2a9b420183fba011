//! What is wrapped comes out again, and nothing else.

use countersign_crypto::Secret;
use proptest::prelude::*;
use tr31::aws_lc::AwsLc;
use tr31::{
    BlockCipher, Header, Kbpk, Leniency, OptionalBlock, OptionalId, Padding, Tr31Error, Version,
    inspect, policy, unwrap, wrap,
};

use super::{header, kbpk, opened, tdes, wrapped};

fn version() -> impl Strategy<Value = Version> {
    prop::sample::select(Version::ALL.to_vec())
}

fn bytes(len: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), len)
}

fn fit(cipher: BlockCipher, bytes: Vec<u8>) -> Secret {
    let key = Secret::new(bytes);
    if cipher == BlockCipher::Tdes { policy::with_odd_parity(&key) } else { key }
}

/// Usage, algorithm, mode and length of the key, each allowed.
fn kind() -> impl Strategy<Value = ([u8; 2], u8, u8, usize)> {
    prop::sample::select(vec![
        (*b"P0", b'T', b'E', 16),
        (*b"K0", b'T', b'B', 24),
        (*b"B1", b'T', b'X', 16),
        (*b"D0", b'A', b'D', 16),
        (*b"K1", b'A', b'N', 24),
        (*b"B0", b'A', b'X', 32),
        (*b"M7", b'H', b'C', 20),
        (*b"S0", b'R', b'S', 77),
        (*b"K3", b'E', b'X', 33),
    ])
}

fn blocks() -> impl Strategy<Value = Vec<OptionalBlock>> {
    let one = prop_oneof![
        "[ -~]{1,300}".prop_map(|text| OptionalBlock::new(OptionalId::LB, text)),
        "[ -~]{4}".prop_map(|text| OptionalBlock::new(OptionalId::KV, text)),
        Just(OptionalBlock::new(OptionalId::TC, "2026-07-08T09:10:11.12Z")),
        Just(OptionalBlock::new(OptionalId::KP, "")),
        "0[0-3]".prop_map(|digits| OptionalBlock::new(OptionalId::WP, format!("0{digits}"))),
        "(B0AXN){1,9}".prop_map(|text| OptionalBlock::new(OptionalId::DA, format!("01{text}"))),
    ];
    prop::collection::vec(one, 0..4).prop_map(|mut blocks| {
        let mut seen = Vec::new();
        blocks.retain(|block| {
            !seen.contains(&block.id) && {
                seen.push(block.id);
                true
            }
        });
        blocks
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn everything_comes_out_again(
        version in version(),
        (usage, algorithm, mode, len) in kind(),
        kbpk in bytes(24),
        key in bytes(96),
        blocks in blocks(),
        hidden in any::<bool>(),
    ) {
        let kbpk = fit(version.cipher(), kbpk);
        let cipher = policy::cipher_of(algorithm).unwrap_or(BlockCipher::Aes);
        let key = fit(cipher, key[..len].to_vec());
        let mut header = Header::new(version, usage, algorithm, mode, b'E');
        header.optional = blocks;
        let mut leniency = Leniency::WEAKER_WRAPPING_KEY;
        if !hidden {
            leniency = leniency | Leniency::NO_LENGTH_OBFUSCATION;
        }
        let mut rng = testkit::rng::seeded(len as u64);
        let padding = Padding::Random(&mut rng);
        let block = wrap(&AwsLc, Kbpk::Clear(&kbpk), &header, &key, padding, leniency).unwrap();
        let opened = unwrap(&AwsLc, Kbpk::Clear(&kbpk), block.as_bytes(), leniency).unwrap();
        prop_assert!(opened.key.ct_eq(key.expose()));
        prop_assert_eq!(usize::from(opened.header.length), block.len());
        prop_assert_eq!(opened.header.usage, usage);
        prop_assert_eq!((opened.header.algorithm, opened.header.mode), (algorithm, mode));
        // Only a PB was added, and a KP filled.
        for (given, read) in header.optional.iter().zip(&opened.header.optional) {
            prop_assert_eq!(given.id, read.id);
            prop_assert!(given.data == read.data || given.data.is_empty());
        }
        for added in &opened.header.optional[header.optional.len()..] {
            prop_assert_eq!(added.id, OptionalId::PB);
        }
        let seen = inspect(block.as_bytes(), Leniency::NONE).unwrap();
        prop_assert_eq!(&seen.header, &opened.header);
        // Its own header is written back to the same characters.
        let encoded = opened.header.encode().unwrap();
        prop_assert!(block.as_bytes().starts_with(&encoded));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _refused = unwrap(&AwsLc, Kbpk::Clear(&kbpk()), &bytes, Leniency::all());
        let _refused = inspect(&bytes, Leniency::all());
        let _refused = Header::parse(&bytes, Leniency::all());
    }

    #[test]
    fn near_misses_are_read_or_refused(
        head in "[A-E][0-9]{4}[A-Z0-9]{2}[A-Z][A-Z][0-9]{2}[ENS]0[0-3]00",
        rest in "[0-9A-F]{0,300}",
    ) {
        let text = format!("{head}{rest}");
        let _refused = inspect(text.as_bytes(), Leniency::all());
        let _refused = Header::parse_prefix(text.as_bytes(), Leniency::all());
    }
}

#[test]
fn every_altered_character_of_every_version_is_refused() {
    for version in Version::ALL {
        let mut header = header(version);
        header.optional.push(OptionalBlock::new(OptionalId::LB, "a label"));
        let block = wrapped(&header, &tdes(), Leniency::NONE).unwrap();
        for at in 0..block.len() {
            for other in b' '..=b'~' {
                let mut altered = block.clone().into_bytes();
                // A digit in lower case is the same digit, by leniency only.
                if altered[at].eq_ignore_ascii_case(&other) {
                    continue;
                }
                altered[at] = other;
                let altered = String::from_utf8(altered).unwrap();
                assert!(opened(&altered, Leniency::all()).is_err(), "{version} {at}: {altered}");
            }
        }
        for cut in 0..block.len() {
            assert!(opened(&block[..cut], Leniency::all()).is_err(), "{version} cut at {cut}");
        }
        for more in ["0", "00", "0000000000000000", " "] {
            let longer = format!("{block}{more}");
            assert_eq!(opened(&longer, Leniency::all()).unwrap_err().check(), "block-length");
        }
    }
}

#[test]
fn another_key_and_another_version_do_not_open() {
    for version in Version::ALL {
        let block = wrapped(&header(version), &tdes(), Leniency::NONE).unwrap();
        let mut other = kbpk().expose().to_vec();
        other[5] ^= 6;
        let other = Secret::new(other);
        let opened = unwrap(&AwsLc, Kbpk::Clear(&other), block.as_bytes(), Leniency::NONE);
        assert_eq!(opened.unwrap_err(), Tr31Error::Mac);
        // Two blocks of one key share nothing but the header: the padding is random.
        let mut rng = testkit::rng::seeded(6);
        let padding = Padding::Random(&mut rng);
        let kbpk = kbpk();
        let kbpk = Kbpk::Clear(&kbpk);
        let again = wrap(&AwsLc, kbpk, &header(version), &tdes(), padding, Leniency::NONE).unwrap();
        assert_ne!(again, block);
    }
    let as_a = wrapped(&header(Version::A), &tdes(), Leniency::NONE).unwrap();
    let as_c = as_a.replacen('A', "C", 1);
    assert_eq!(opened(&as_c, Leniency::NONE).unwrap_err(), Tr31Error::Mac);
}
