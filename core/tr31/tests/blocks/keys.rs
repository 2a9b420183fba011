//! Which keys are let in.

use countersign_crypto::Secret;
use tr31::aws_lc::AwsLc;
use tr31::{
    BlockCipher, Header, Kbpk, KeyFault, Leniency, Padding, Tr31Error, Version, policy, unwrap,
    wrap,
};

use super::{TDES, departs, header, tdes, wrapped};

fn key(parts: &[[u8; 8]]) -> Secret {
    Secret::new(parts.concat())
}

const ONE: [u8; 8] = [0x5D, 0xB5, 0x0B, 0x45, 0x4F, 0x83, 0x89, 0xAD];
const TWO: [u8; 8] = [0xCE, 0x57, 0x3B, 0xE5, 0x08, 0x61, 0xF2, 0xBF];
const SEMI_WEAK: [u8; 8] = [0x01, 0xFE, 0x01, 0xFE, 0x01, 0xFE, 0x01, 0xFE];

#[test]
fn unfit_des_keys_are_refused_in_every_version() {
    let mut equal_but_for_parity = ONE;
    equal_but_for_parity[3] ^= 1;
    for (bad, fault) in [
        (key(&[SEMI_WEAK, ONE]), KeyFault::Weak),
        (key(&[ONE, [0; 8]]), KeyFault::Weak),
        (key(&[ONE, TWO, [0xFE; 8]]), KeyFault::Weak),
        (key(&[ONE, ONE]), KeyFault::EqualHalves),
        (key(&[ONE, equal_but_for_parity]), KeyFault::EqualHalves),
        (key(&[ONE, ONE, TWO]), KeyFault::EqualHalves),
        (key(&[ONE, TWO, TWO]), KeyFault::EqualHalves),
        (Secret::copied_from(&TDES[..15]), KeyFault::Length),
        (Secret::copied_from(&[0x5D; 32]), KeyFault::Length),
        (Secret::new(Vec::new()), KeyFault::Length),
    ] {
        for version in Version::ALL {
            let refused = wrapped(&header(version), &bad, Leniency::all()).unwrap_err();
            assert_eq!(refused, Tr31Error::Key(fault), "{version}");
        }
        assert_eq!(policy::check_key(&header(Version::D), &bad), Err(Tr31Error::Key(fault)));
    }
    let mut even = TDES;
    even[9] ^= 1;
    let even = Secret::copied_from(&even);
    for version in Version::ALL {
        let error = Tr31Error::Key(KeyFault::Parity);
        departs(&header(version), &even, Leniency::DES_PARITY, error);
        let error = Tr31Error::Key(KeyFault::SingleDes);
        departs(&header(version), &key(&[ONE]), Leniency::SINGLE_DES, error);
    }
    // Two-key TDES written as three keys is one more way to write it.
    let block = wrapped(&header(Version::D), &key(&[ONE, TWO, ONE]), Leniency::NONE);
    assert!(block.is_ok());
}

#[test]
fn aes_keys_have_their_lengths() {
    let header = Header::new(Version::D, *b"D0", b'A', b'N', b'E');
    for length in [16, 24] {
        assert!(wrapped(&header, &Secret::new(vec![0; length]), Leniency::NONE).is_ok());
    }
    for length in [0, 8, 15, 17, 33, 64] {
        let refused = wrapped(&header, &Secret::new(vec![0; length]), Leniency::all());
        assert_eq!(refused.unwrap_err(), Tr31Error::Key(KeyFault::Length), "{length}");
    }
}

#[test]
fn unfit_protection_keys_are_refused() {
    let padding = [0x11; 6];
    let try_wrap = |version: Version, kbpk: &Secret, leniency| {
        let kbpk = Kbpk::Clear(kbpk);
        let leniency = leniency | Leniency::NO_LENGTH_OBFUSCATION;
        wrap(&AwsLc, kbpk, &header(version), &tdes(), Padding::Exact(&padding), leniency)
    };
    for version in [Version::A, Version::B, Version::C] {
        for (bad, error) in [
            (key(&[SEMI_WEAK, ONE]), Tr31Error::Kbpk(KeyFault::Weak)),
            (key(&[TWO, TWO]), Tr31Error::Kbpk(KeyFault::EqualHalves)),
            (key(&[TWO]), Tr31Error::KbpkLength),
            (Secret::new(vec![7; 32]), Tr31Error::KbpkLength),
        ] {
            assert_eq!(try_wrap(version, &bad, Leniency::all()).unwrap_err(), error);
            let block = "A0072K0TN00N0000F40D5672C6D0EC86F860BA88D44D00F0CA9A8CE8CD2F640287A9A9EB";
            let block = block.replacen('A', &version.to_string(), 1);
            let opened = unwrap(&AwsLc, Kbpk::Clear(&bad), block.as_bytes(), Leniency::all());
            let length = if version == Version::B { Tr31Error::PayloadLength } else { error };
            assert_eq!(opened.unwrap_err(), length);
        }
        let mut even = TWO;
        even[0] ^= 1;
        let even = key(&[even, ONE]);
        let error = Tr31Error::Kbpk(KeyFault::Parity);
        assert_eq!(try_wrap(version, &even, Leniency::NONE).unwrap_err(), error);
        assert!(try_wrap(version, &even, Leniency::DES_PARITY).is_ok());
    }
    for length in [0, 8, 15, 33] {
        let bad = Secret::new(vec![9; length]);
        assert_eq!(try_wrap(Version::D, &bad, Leniency::all()).unwrap_err(), Tr31Error::KbpkLength);
        assert_eq!(policy::check_kbpk(BlockCipher::Aes, &bad), Err(Tr31Error::KbpkLength));
    }
}

#[test]
fn a_weaker_key_wraps_no_stronger_one() {
    let error = Tr31Error::WeakerWrappingKey;
    let aes = |len| Secret::new(vec![0xA5; len]);
    let data = |version| Header::new(version, *b"D0", b'A', b'N', b'E');
    let hmac = |version| Header::new(version, *b"M7", b'H', b'C', b'E');
    for (kbpk, header, key) in [
        (tdes(), header(Version::B), super::kbpk()),
        (super::kbpk(), data(Version::B), aes(16)),
        (aes(16), data(Version::D), aes(24)),
        (aes(24), data(Version::E), aes(32)),
        (aes(16), hmac(Version::D), aes(17)),
    ] {
        let wrap = |leniency| {
            let mut rng = testkit::rng::seeded(1);
            wrap(&AwsLc, Kbpk::Clear(&kbpk), &header, &key, Padding::Random(&mut rng), leniency)
        };
        assert_eq!(wrap(Leniency::NONE).unwrap_err(), error);
        let block = wrap(Leniency::WEAKER_WRAPPING_KEY).unwrap();
        let open = |leniency| unwrap(&AwsLc, Kbpk::Clear(&kbpk), block.as_bytes(), leniency);
        assert_eq!(open(Leniency::NONE).unwrap_err(), error);
        let opened = open(Leniency::WEAKER_WRAPPING_KEY).unwrap();
        assert_eq!(opened.used, Leniency::WEAKER_WRAPPING_KEY);
    }
    // As strong: AES-256 under AES-256, a long HMAC key under AES-256.
    let kbpk = aes(32);
    for (header, key) in [(data(Version::D), aes(32)), (hmac(Version::D), aes(64))] {
        let mut rng = testkit::rng::seeded(1);
        let padding = Padding::Random(&mut rng);
        let block = wrap(&AwsLc, Kbpk::Clear(&kbpk), &header, &key, padding, Leniency::NONE);
        assert!(block.is_ok());
    }
    assert_eq!(policy::check_wrapping(112, Some(128)), Err(error));
    assert_eq!(policy::check_wrapping(128, Some(128)), Ok(()));
    assert_eq!(policy::check_wrapping(80, None), Ok(()));
}

#[test]
fn strengths_are_those_of_nist() {
    let strength = policy::strength_bits;
    assert_eq!(strength(b'T', &TDES), Some(80));
    assert_eq!(strength(b'T', &[TWO, ONE, TWO].concat()), Some(80));
    assert_eq!(strength(b'T', super::kbpk().expose()), Some(112));
    // Encrypting and decrypting with one key cancel out: single DES is left, parity aside.
    let mut even = ONE;
    even[7] ^= 1;
    for parts in [&[ONE, ONE][..], &[ONE, even, TWO], &[TWO, ONE, ONE], &[ONE, ONE, ONE]] {
        assert_eq!(strength(b'T', &parts.concat()), Some(56), "{parts:?}");
    }
    assert_eq!(strength(b'T', &ONE), Some(56));
    assert_eq!(strength(b'T', &[ONE, ONE, TWO, TWO].concat()), None);
    assert_eq!(strength(b'A', &[0; 32]), Some(256));
    assert_eq!(strength(b'A', &[0; 17]), None);
    assert_eq!(strength(b'H', &[0; 20]), Some(160));
    for (bits, expected) in
        [(1023, 0), (1024, 80), (2047, 80), (2048, 112), (3072, 128), (4096, 128), (15360, 256)]
    {
        assert_eq!(policy::rsa_strength_bits(bits), expected, "{bits}");
    }
    // PKCS#1: version, modulus of 256 bytes behind a zero.
    let mut rsa = vec![0x30, 0x82, 0x01, 0x08, 0x02, 0x01, 0x00, 0x02, 0x82, 0x01, 0x01, 0x00];
    rsa.extend([0xC3; 256]);
    assert_eq!(strength(b'R', &rsa), Some(112));
    // SEC 1, alone and in PKCS#8.
    let mut ec = vec![0x30, 0x25, 0x02, 0x01, 0x01, 0x04, 0x20];
    ec.extend([7; 32]);
    assert_eq!(strength(b'E', &ec), Some(128));
    let mut inner = vec![0x30, 0x30, 0x02, 0x01, 0x00, 0x30, 0x02, 0x05, 0x00, 0x04, 0x27];
    inner.extend(&ec);
    assert_eq!(strength(b'E', &inner), Some(128));
    inner[1] += 1;
    assert_eq!(strength(b'E', &inner), None, "a length that reaches too far");
    for cut in 0..rsa.len() {
        assert_eq!(strength(b'R', &rsa[..cut]), None);
    }
    assert_eq!(strength(b'S', &rsa), None);
}

#[test]
fn a_component_travels_and_is_no_whole_key() {
    let mut header = header(Version::B);
    header.key_version = *b"c2";
    let block = wrapped(&header, &tdes(), Leniency::NONE).unwrap();
    let read = super::opened(&block, Leniency::NONE).unwrap().header;
    assert_eq!(policy::check_whole(&read), Err(Tr31Error::Component));
    for version in [*b"00", *b"12", *b"C1"] {
        header.key_version = version;
        assert_eq!(policy::check_whole(&header), Ok(()));
    }
}

#[test]
fn parity_is_set_in_the_lowest_bit() {
    let bytes: Vec<u8> = (0..=255).collect();
    let adjusted = policy::with_odd_parity(&Secret::copied_from(&bytes));
    for (before, after) in bytes.iter().zip(adjusted.expose()) {
        assert_eq!(after.count_ones() % 2, 1);
        assert_eq!(before & 0xFE, after & 0xFE);
    }
}

/// X9.24-1 computes an initial key byte by byte, so it has no parity; a working key has.
#[test]
fn initial_keys_have_no_parity() {
    let even = Secret::copied_from(&[
        0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x91, 0xA2, 0xB3, 0xC4, 0xD5, 0xE6, 0xF7, 1,
    ]);
    let header = |usage: [u8; 2], mode| Header::new(Version::B, usage, b'T', mode, b'N');
    assert_eq!(policy::check_key(&header(*b"B1", b'X'), &even), Ok(()));
    let refused = policy::check_key(&header(*b"P0", b'E'), &even);
    assert_eq!(refused, Err(Tr31Error::Key(KeyFault::Parity)));
    let equal = Secret::copied_from(&[0x10; 16]);
    let refused = policy::check_key(&header(*b"B1", b'X'), &equal);
    assert_eq!(refused, Err(Tr31Error::Key(KeyFault::EqualHalves)), "the rest holds for them too");
}
