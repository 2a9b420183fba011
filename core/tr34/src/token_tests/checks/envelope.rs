//! From the recipient inwards: what is sealed, and whether the key is fit.

use super::*;

/// How to seal what a sender would not.
fn sealing(recipient: &'static Holder) -> Sealing<'static> {
    Sealing {
        rsa: &AwsLc,
        ciphers: &CIPHERS,
        recipient: recipient.certificate.identity(),
        public_key: recipient.certificate.public_key(),
        cipher: ContentCipher::Tdes,
        dialect: &STRICT,
    }
}

fn block(kdh: &Holder, key: &Secret, header: &[u8], dialect: &Dialect) -> Vec<u8> {
    KeyBlock::encode(kdh.certificate.identity(), key, header, dialect).to_vec()
}

/// An envelope under this content encryption key, padded by the caller.
fn sealed_under(content_key: &Secret, padded: &[u8]) -> Vec<u8> {
    let mut text = padded.to_vec();
    CIPHERS.cbc_encrypt(BlockCipher::Tdes, content_key, &[0; 8], &mut text).unwrap();
    let public_key = WORLD.krd.certificate.public_key();
    let encrypted = AwsLc.encrypt(&mut rng(8), public_key, content_key).unwrap();
    sealing(&WORLD.krd).encode(&encrypted, &[0; 8], &text)
}

#[test]
fn recipient() {
    let sound = Sound::new();
    let good = block(&WORLD.kdh, &tdes_key(), b"B0016K0TB00S0000", &STRICT);
    let other = sealing(&WORLD.other_krd).seal(&mut rng(8), &good).unwrap();
    sound.spent(&sound.with_content(other), "token-recipient");
    // Encrypted to another, but addressed to this one.
    let wrong =
        Sealing { public_key: WORLD.other_krd.certificate.public_key(), ..sealing(&WORLD.krd) };
    let wrong = wrong.seal(&mut rng(8), &good).unwrap();
    sound.spent(&sound.with_content(wrong), "token-decryption");
    let good = sealing(&WORLD.krd).seal(&mut rng(8), &good).unwrap();
    sound.receiver.receive(&sound.state, &sound.with_content(good), NOW).unwrap();
}

#[test]
fn envelope() {
    let sound = Sound::new();
    let good = block(&WORLD.kdh, &tdes_key(), b"B0016K0TB00S0000", &STRICT);
    let content = sealing(&WORLD.krd).seal(&mut rng(8), &good).unwrap();
    let des_ede3: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 3, 7];
    let des: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 3, 6];
    let replaced_cipher = replaced(&content, des_ede3, des);
    sound.spent(&sound.with_content(replaced_cipher), "token-algorithm");
    // RSA with PKCS#1 padding, another mask, another hash outside and inside the mask, a label.
    let parameters = oaep(OaepForm::Tagged);
    let rsaes_oaep: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 7];
    let mgf: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8];
    let hash: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
    let ends = |octets: &[u8]| -> Vec<usize> {
        let starts = 0..=parameters.len() - octets.len();
        starts
            .filter(|at| parameters[*at..].starts_with(octets))
            .map(|at| at + octets.len() - 1)
            .collect()
    };
    let changed = [ends(rsaes_oaep), ends(mgf), ends(hash)].concat();
    assert_eq!(changed.len(), 4, "both hashes");
    for last in changed {
        let mut other = parameters.clone();
        other[last] ^= 3;
        let content = replaced(&content, &parameters, &other);
        sound.spent(&sound.with_content(content), "token-algorithm");
    }

    let mut inside =
        crate::reader::Walker::single(&content, tag::SEQUENCE).unwrap().inside().unwrap();
    let parts: Vec<&[u8]> = (0..3).map(|_| inside.any().unwrap().whole).collect();
    let recipient = &parts[1][4..];
    let two = tlv(tag::SET, &[recipient, recipient]);
    let two = tlv(tag::SEQUENCE, &[parts[0], &two, parts[2]]);
    sound.spent(&sound.with_content(two), "token-too-many");
    let bare = parts.concat();
    sound.spent(&sound.with_content(bare), "dialect-content");
    let longer = tlv(tag::SEQUENCE, &[parts[0], parts[1], parts[2], &[5, 0]]);
    sound.spent(&sound.with_content(longer), "token-trailing");
    let second = tlv(tag::SEQUENCE, &[&[2, 1, 2], parts[1], parts[2]]);
    sound.spent(&sound.with_content(second), "token-malformed");
    for (dialect, check) in [
        (Dialect { oaep: OaepForm::Untagged, ..STRICT }, "dialect-oaep"),
        (
            Dialect { encrypted_content: Dialect::TR34_2012.encrypted_content, ..STRICT },
            "dialect-encrypted-content",
        ),
    ] {
        let other = Sealing { dialect: &dialect, ..sealing(&WORLD.krd) };
        let token = sound.with_content(other.seal(&mut rng(8), &good).unwrap());
        sound.spent(&token, check);
        // Without the private key as well.
        let refused = sound.receiver.check(&sound.state, &token, NOW).unwrap_err();
        assert_eq!(refused.error.check(), check);
    }
}

#[test]
fn what_does_not_open_has_one_name() {
    let sound = Sound::new();
    let refused = |content: Vec<u8>| sound.spent(&sound.with_content(content), "token-decryption");
    let good = block(&WORLD.kdh, &tdes_key(), b"B0016K0TB00S0000", &STRICT);
    let padded = |text: &[u8], count: u8| [text, &vec![count; usize::from(count)]].concat();
    let count = u8::try_from(8 - good.len() % 8).unwrap();
    let content = sealed_under(&tdes_key(), &padded(&good, count));
    sound.receiver.receive(&sound.state, &sound.with_content(content.clone()), NOW).unwrap();

    let mut wrong = padded(&good, count);
    *wrong.last_mut().unwrap() = 0;
    refused(sealed_under(&tdes_key(), &wrong));
    *wrong.last_mut().unwrap() = 9;
    refused(sealed_under(&tdes_key(), &wrong));
    refused(sealed_under(&tdes_key(), &[8; 8]));
    refused(sealed_under(&tdes_key(), &padded(b"not a key block", 1)));
    let mut longer = good.clone();
    longer.extend_from_slice(&[5, 0]);
    let count = u8::try_from(8 - longer.len() % 8).unwrap();
    refused(sealed_under(&tdes_key(), &padded(&longer, count)));
    // A content key of another length, and a ciphertext that RSA does not open.
    let public_key = WORLD.krd.certificate.public_key();
    let short = AwsLc.encrypt(&mut rng(8), public_key, &Secret::copied_from(&[7; 16])).unwrap();
    refused(sealing(&WORLD.krd).encode(&short, &[0; 8], &[0; 16]));
    refused(sealing(&WORLD.krd).encode(&[7; 256], &[0; 8], &[0; 16]));
    refused(sealing(&WORLD.krd).encode(&[7; 16], &[0; 8], &[0; 16]));
    // Altered ciphertext, and an IV that turns the first octets into others.
    let (enveloped, at) = (Enveloped::parse(&content, &mut Observed::default()).unwrap(), 9);
    let mut altered = enveloped.ciphertext.to_vec();
    altered[at] ^= 1;
    refused(sealing(&WORLD.krd).encode(enveloped.encrypted_key, enveloped.iv, &altered));
    refused(sealing(&WORLD.krd).encode(enveloped.encrypted_key, &[1; 8], enveloped.ciphertext));
}

#[test]
fn key_block() {
    let sound = Sound::new();
    let header = b"B0016K0TB00S0000";
    let sealed = |text: &[u8]| sealing(&WORLD.krd).seal(&mut rng(8), text).unwrap();
    let of = |kdh: &Holder, dialect: &Dialect| {
        sound.with_content(sealed(&block(kdh, &tdes_key(), header, dialect)))
    };
    sound.spent(&of(&WORLD.next_kdh, &STRICT), "key-block-identity");
    let version = Dialect { key_block_version: Dialect::TR34_2012.key_block_version, ..STRICT };
    sound.spent(&of(&WORLD.kdh, &version), "dialect-key-block-version");
    let form = Dialect { header: Dialect::TR34_2012.header, ..STRICT };
    sound.spent(&of(&WORLD.kdh, &form), "dialect-header");
    let inner = sealed(&block(&WORLD.kdh, &tdes_key(), b"B0016K0TB00E0000", &STRICT));
    sound.spent(&sound.with_content(inner), "key-block-header");
}

#[test]
fn fitness_of_header_and_key() {
    let sound = Sound::new();
    let sealed = |header: &[u8], key: &Secret| {
        let text = block(&WORLD.kdh, key, header, &STRICT);
        sound.with_header(sealing(&WORLD.krd).seal(&mut rng(8), &text).unwrap(), header)
    };
    let good = tdes_key();
    for (header, check) in [
        (&b"Z0016K0TB00S0000"[..], "version"),
        (b"B00X6K0TB00S0000", "block-length"),
        (b"B0016\xff0TB00S0000", "character"),
        (b"B0016Z9TB00S0000", "key-usage"),
        (b"B0016K0ZB00S0000", "algorithm"),
        (b"B0016K0TZ00S0000", "mode-of-use"),
        (b"B0016K0TB00Z0000", "exportability"),
        (b"B0016K0TB00S0100", "optional-block-length"),
        (b"B0016K0TB00S00000", "block-length"),
        (b"B0016K0TB00S0001", "reserved-field"),
        (b"B0016M7TG00S0000", "usage-algorithm"),
        (b"B0016K0TG00S0000", "usage-mode"),
        (b"B0016K0TBc1S0000", "key-component"),
    ] {
        sound.spent(&sealed(header, &good), check);
    }
    // A check value in the header is that of the key, or the token is not sound.
    let kcv = tr31::kcv::kcv(&CIPHERS, b'T', &good).unwrap();
    let header = |kcv: &str| format!("B0028K0TB00S0100KC0C00{kcv}");
    let right = header(&kcv.to_string());
    sound.receiver.receive(&sound.state, &sealed(right.as_bytes(), &good), NOW).unwrap();
    sound.spent(&sealed(header("000000").as_bytes(), &good), "kcv");
    let header = b"B0016K0TB00S0000";
    let changed = |change: fn(&mut [u8])| {
        let mut bytes = tdes_key().expose().to_vec();
        change(&mut bytes);
        Secret::new(bytes)
    };
    let parity = changed(|key| key[5] ^= 1);
    sound.spent(&sealed(header, &parity), "des-parity");
    let weak = changed(|key| key[..8].copy_from_slice(&[1; 8]));
    sound.spent(&sealed(header, &weak), "des-weak-key");
    let equal = changed(|key| key.copy_within(0..8, 8));
    sound.spent(&sealed(header, &equal), "des-equal-halves");
    let single = Secret::copied_from(&good.expose()[..8]);
    sound.spent(&sealed(header, &single), "single-des");
    let odd = Secret::copied_from(&good.expose()[..20]);
    sound.spent(&sealed(header, &odd), "key-length");
    let aes = Secret::copied_from(&good.expose()[..20]);
    sound.spent(&sealed(b"D0016K0AB00S0000", &aes), "key-length");
}

#[test]
fn strength_of_the_wrapping() {
    let sound = Sound::new();
    // A content key of three parts that are two: 80 bits under a key of 112. With equal
    // neighbours it is single DES, too weak for a key of two parts as well.
    let padded = |key: &Secret| {
        let text = block(&WORLD.kdh, key, b"B0016K0TB00S0000", &STRICT);
        let count = u8::try_from(8 - text.len() % 8).unwrap();
        [&text[..], &vec![count; usize::from(count)]].concat()
    };
    let two_parts = Secret::copied_from(&tdes_key().expose()[..16]);
    for (from, to, key, taken) in [
        (0, 16, &tdes_key(), false),
        (0, 16, &two_parts, true),
        (0, 8, &two_parts, false),
        (8, 16, &two_parts, false),
    ] {
        let mut content_key = tdes_key().expose().to_vec();
        content_key.copy_within(from..from + 8, to);
        let weak = sealed_under(&Secret::new(content_key), &padded(key));
        let token = sound.with_content(weak);
        if taken {
            sound.receiver.receive(&sound.state, &token, NOW).unwrap();
        } else {
            sound.spent(&token, "wrapping-key-weaker");
        }
    }
    // AES-128 under TDES.
    let header = b"D0016K0AB00S0000";
    let text = block(&WORLD.kdh, &Secret::copied_from(&[7; 16]), header, &STRICT);
    let content = sealing(&WORLD.krd).seal(&mut rng(8), &text).unwrap();
    sound.spent(&sound.with_header(content, header), "wrapping-key-weaker");
    // AES-128 under RSA-2048 and under RSA-3072: roundtrip.rs has the second.
    let aes = Sealing { cipher: ContentCipher::Aes128, ..sealing(&WORLD.krd) };
    let content = aes.seal(&mut rng(8), &text).unwrap();
    sound.spent(&sound.with_header(content, header), "wrapping-key-weaker");
}
