//! Payload, check values, and protection keys held elsewhere.

use countersign_crypto::Secret;
use tr31::aws_lc::AwsLc;
use tr31::{
    BlockCipher, CipherError, Ciphers, CmacKey, Header, Kbpk, Kcv, KcvMethod, Leniency,
    OptionalBlock, OptionalId, Padding, Tr31Error, Version, kcv, unwrap, wrap,
};

use super::{departs, header, kbpk, opened, tdes, wrapped};

/// A key that only computes CMACs.
struct Held(BlockCipher, Secret);

impl CmacKey for Held {
    fn cipher(&self) -> BlockCipher {
        self.0
    }

    fn key_len(&self) -> usize {
        self.1.len()
    }

    fn cmac(&self, data: &[u8]) -> Result<Secret, CipherError> {
        AwsLc.cmac(self.0, &self.1, data)
    }
}

#[test]
fn a_held_key_protects_b_d_and_e_as_one_in_the_clear_does() {
    for version in Version::ALL {
        let held = Held(version.cipher(), kbpk());
        let mut header = header(version);
        header.optional.push(OptionalBlock::new(OptionalId::KP, ""));
        let mut rng = testkit::rng::seeded(5);
        let padding = Padding::Random(&mut rng);
        let block = wrap(&AwsLc, Kbpk::Held(&held), &header, &tdes(), padding, Leniency::NONE);
        if matches!(version, Version::A | Version::C) {
            assert_eq!(block.unwrap_err(), Tr31Error::KbpkHeld);
            continue;
        }
        let block = block.unwrap();
        assert!(opened(&block, Leniency::NONE).unwrap().key.ct_eq(tdes().expose()));
        let in_the_clear = wrapped(&header, &tdes(), Leniency::NONE).unwrap();
        let again =
            unwrap(&AwsLc, Kbpk::Held(&held), in_the_clear.as_bytes(), Leniency::NONE).unwrap();
        assert!(again.key.ct_eq(tdes().expose()));

        let other = match version.cipher() {
            BlockCipher::Tdes => Held(BlockCipher::Aes, kbpk()),
            BlockCipher::Aes => Held(BlockCipher::Tdes, kbpk()),
        };
        let refused = unwrap(&AwsLc, Kbpk::Held(&other), block.as_bytes(), Leniency::all());
        assert_eq!(refused.unwrap_err(), Tr31Error::KbpkCipher);
        let short = Held(version.cipher(), Secret::new(vec![1; 8]));
        let refused = unwrap(&AwsLc, Kbpk::Held(&short), block.as_bytes(), Leniency::all());
        assert_eq!(refused.unwrap_err(), Tr31Error::KbpkLength);
    }
}

#[test]
fn the_length_of_a_key_is_hidden() {
    for version in Version::ALL {
        let short = wrapped(&header(version), &tdes(), Leniency::NONE).unwrap();
        let long = wrapped(&header(version), &kbpk(), Leniency::NONE).unwrap();
        assert_eq!(short.len(), long.len(), "{version}");
        let error = Tr31Error::LengthObfuscation;
        let bare = wrapped(&header(version), &tdes(), Leniency::NO_LENGTH_OBFUSCATION).unwrap();
        if version == Version::D {
            // Blocks of 16 bytes hide it as they are.
            assert_eq!(bare.len(), short.len());
            continue;
        }
        assert!(bare.len() < short.len());
        assert_eq!(opened(&bare, Leniency::NONE).unwrap_err(), error);
        let read = opened(&bare, Leniency::NO_LENGTH_OBFUSCATION).unwrap();
        assert_eq!(read.used, Leniency::NO_LENGTH_OBFUSCATION);
    }
}

#[test]
fn exact_padding_fills_whole_blocks_and_hides_the_length() {
    let try_wrap = |version, padding: &[u8], leniency| {
        let kbpk = kbpk();
        let padding = Padding::Exact(padding);
        wrap(&AwsLc, Kbpk::Clear(&kbpk), &header(version), &tdes(), padding, leniency)
    };
    assert!(try_wrap(Version::B, &[0; 14], Leniency::NONE).is_ok());
    assert_eq!(try_wrap(Version::B, &[0; 13], Leniency::all()).unwrap_err(), Tr31Error::Padding);
    let short = try_wrap(Version::B, &[0; 6], Leniency::NONE).unwrap_err();
    assert_eq!(short, Tr31Error::LengthObfuscation);
    assert!(try_wrap(Version::B, &[0; 6], Leniency::NO_LENGTH_OBFUSCATION).is_ok());
    // Counter mode fills no blocks.
    assert!(try_wrap(Version::E, &[0; 8], Leniency::NONE).is_ok());
}

#[test]
fn check_values_are_filled_in_and_compared() {
    for version in Version::ALL {
        let mut header = header(version);
        header.optional =
            vec![OptionalBlock::new(OptionalId::KC, ""), OptionalBlock::new(OptionalId::KP, "")];
        let block = wrapped(&header, &tdes(), Leniency::NONE).unwrap();
        let read = opened(&block, Leniency::NONE).unwrap().header;
        assert_eq!(read.block(OptionalId::KC).unwrap().data, b"005C9405");
        let method = match version.cipher() {
            BlockCipher::Tdes => KcvMethod::Legacy,
            BlockCipher::Aes => KcvMethod::Cmac,
        };
        let value = kcv::kcv_by(&AwsLc, version.cipher(), &kbpk(), method).unwrap();
        assert_eq!(read.block(OptionalId::KP).unwrap().data, value.to_optional_data());

        for (id, error) in [(0, Tr31Error::Kcv), (1, Tr31Error::KbpkKcv)] {
            let mut wrong = header.clone();
            wrong.optional[id].data = b"00000001".to_vec();
            assert_eq!(wrapped(&wrong, &tdes(), Leniency::all()).unwrap_err(), error);
        }
        // A shorter value that is the start of the right one is right.
        let mut shorter = header.clone();
        shorter.optional[0].data = b"005C94".to_vec();
        assert!(wrapped(&shorter, &tdes(), Leniency::NONE).is_ok());
    }
}

/// Ciphers of a writer that gets check values wrong.
struct Miscounting;

impl Ciphers for Miscounting {
    fn cbc_encrypt(
        &self,
        cipher: BlockCipher,
        key: &Secret,
        iv: &[u8],
        data: &mut [u8],
    ) -> Result<(), CipherError> {
        let is_check_value = data == [0; 8];
        AwsLc.cbc_encrypt(cipher, key, iv, data)?;
        data[0] ^= u8::from(is_check_value);
        Ok(())
    }

    fn cbc_decrypt(
        &self,
        cipher: BlockCipher,
        key: &Secret,
        iv: &[u8],
        data: &mut [u8],
    ) -> Result<(), CipherError> {
        AwsLc.cbc_decrypt(cipher, key, iv, data)
    }

    fn aes_ctr(&self, key: &Secret, iv: &[u8; 16], data: &mut [u8]) -> Result<(), CipherError> {
        AwsLc.aes_ctr(key, iv, data)
    }

    fn cmac(&self, cipher: BlockCipher, key: &Secret, data: &[u8]) -> Result<Secret, CipherError> {
        AwsLc.cmac(cipher, key, data)
    }
}

#[test]
fn wrong_check_values_under_a_right_mac_are_refused() {
    for (id, error) in [(OptionalId::KC, Tr31Error::Kcv), (OptionalId::KP, Tr31Error::KbpkKcv)] {
        let mut header = header(Version::B);
        header.optional.push(OptionalBlock::new(id, ""));
        let (kbpk, padding) = (kbpk(), Padding::Exact(&[0; 14]));
        let kbpk = Kbpk::Clear(&kbpk);
        let block = wrap(&Miscounting, kbpk, &header, &tdes(), padding, Leniency::NONE).unwrap();
        assert!(unwrap(&Miscounting, kbpk, block.as_bytes(), Leniency::NONE).is_ok());
        assert_eq!(opened(&block, Leniency::all()).unwrap_err(), error);
    }
}

#[test]
fn check_values_are_compared_by_method_and_length() {
    let legacy = Kcv::new(KcvMethod::Legacy, &[1, 2, 3]).unwrap();
    let cmac = Kcv::new(KcvMethod::Cmac, &[1, 2, 3, 4, 5]).unwrap();
    assert_eq!(cmac.to_string(), "0102030405");
    assert_eq!(cmac.shown().to_string(), "010203");
    assert!(cmac.starts_with(&cmac.shown()) && !cmac.shown().starts_with(&cmac));
    assert!(!cmac.starts_with(&legacy) && !legacy.starts_with(&cmac.shown()));
    assert_eq!(Kcv::new(KcvMethod::Legacy, &[1, 2, 3, 4]), None);
    assert_eq!(Kcv::new(KcvMethod::Cmac, &[]), None);
    for value in [legacy, cmac] {
        assert_eq!(Kcv::from_optional(&value.to_optional_data()), Some(value));
    }
    for bad in ["", "00", "02AABB", "00AAB", "00GG", "00AABBCCDD"] {
        assert_eq!(Kcv::from_optional(bad.as_bytes()), None, "{bad}");
    }
    let single = Secret::copied_from(&tdes().expose()[..8]);
    let refused = kcv::kcv_by(&AwsLc, BlockCipher::Tdes, &single, KcvMethod::Cmac);
    assert_eq!(refused.unwrap_err(), Tr31Error::KcvMethod);
    assert_eq!(kcv::kcv(&AwsLc, b'R', &single).unwrap_err(), Tr31Error::KcvMethod);
    assert!(kcv::kcv_by(&AwsLc, BlockCipher::Aes, &tdes(), KcvMethod::Legacy).is_ok());
}

#[test]
fn digits_in_lower_case_and_other_letters() {
    let block = wrapped(&header(Version::C), &tdes(), Leniency::NONE).unwrap();
    let (head, body) = block.split_at(16);
    let lower = format!("{head}{}", body.to_ascii_lowercase());
    assert_eq!(opened(&lower, Leniency::NONE).unwrap_err(), Tr31Error::Hex);
    assert_eq!(opened(&lower, Leniency::all()).unwrap().used, Leniency::LOWER_CASE_HEX);
    let other = format!("{}G", &block[..block.len() - 1]);
    assert_eq!(opened(&other, Leniency::all()).unwrap_err(), Tr31Error::Hex);
    let letters = format!("{}é", &block[..block.len() - 2]);
    assert_eq!(opened(&letters, Leniency::all()).unwrap_err(), Tr31Error::Character);
}

#[test]
fn payloads_of_a_length_that_no_version_has_are_refused() {
    for (block, check) in [
        ("B0048P0TE00N000000000000000000000000000000000000", "mac"),
        ("B0034P0TE00N0000000000000000000000", "payload-length"),
        ("B0032P0TE00N00000000000000000000", "payload-length"),
        ("B0030P0TE00N000000000000000000", "block-length"),
        ("B0052P0TE00N0000000000000000000000000000000000000000", "payload-length"),
        ("B0049P0TE00N0000000000000000000000000000000000000", "block-length"),
        ("D0050P0TE00N00000000000000000000000000000000000000", "payload-length"),
    ] {
        assert_eq!(opened(block, Leniency::all()).unwrap_err().check(), check, "{block}");
    }
}

#[test]
fn headers_with_proprietary_values_are_let_in_by_name() {
    let header = Header::new(Version::D, *b"17", b'T', b'E', b'N');
    departs(&header, &tdes(), Leniency::UNKNOWN_VALUES, Tr31Error::Usage);
    let header = Header::new(Version::D, *b"P0", b'7', b'E', b'N');
    departs(&header, &tdes(), Leniency::UNKNOWN_VALUES, Tr31Error::Algorithm);
}
