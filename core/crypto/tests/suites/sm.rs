//! Known answers of the SM suite, from the standards' own examples: SM3 (GB/T 32905), SM4-GCM
//! (RFC 8998), SM2 on its recommended curve (GB/T 32918.5).

use countersign_crypto::{Domain, Secret, Suite, provider_of, sm};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::support::{Example, bytes};

/// Appendix A: "abc", and "abcd" sixteen times.
#[test]
fn sm3_of_gb_t_32905() {
    let hash = sm::provider().hash;
    let wanted = "66c7f0f4 62eeedd9 d1f2d46b dc10e4e2 4167c487 5cf2f7a2 297da02b 8f4ba8e0";
    assert_eq!(hash.hash(&[b"a", b"", b"bc"]).to_vec(), bytes(wanted));
    let wanted = "debe9ff9 2275b8a1 38604889 c18e5a4d 6fdb70e5 387e5765 293dcba3 9c0c5732";
    assert_eq!(hash.hash(&[&b"abcd".repeat(16)]).to_vec(), bytes(wanted));
}

/// The inputs of RFC 4231, test case 2; the tag is OpenSSL's.
#[test]
fn hmac_sm3() {
    let mac = sm::provider().mac;
    let tag = "2e87f1d16862e6d964b50a5200bf2b10b764faa9680a296a2405f24bec39f882";
    let parts: [&[u8]; 2] = [b"what do ya want ", b"for nothing?"];
    assert_eq!(mac.mac(b"Jefe", &parts).to_vec(), bytes(tag));
    assert_eq!(mac.verify(b"Jefe", &parts, &bytes(tag)), Ok(()));
    assert!(mac.verify(b"jefe", &parts, &bytes(tag)).is_err());
    assert!(mac.verify(b"Jefe", &parts, &bytes(tag)[..31]).is_err());
}

/// Appendix A.1.
#[test]
fn sm4_gcm_of_rfc_8998() {
    let key = Secret::new(bytes("0123456789ABCDEFFEDCBA9876543210"));
    let nonce = bytes("00001234567800000000ABCD").try_into().unwrap();
    let aad = bytes("FEEDFACEDEADBEEFFEEDFACEDEADBEEFABADDAD2");
    let text = bytes(
        "AAAAAAAAAAAAAAAABBBBBBBBBBBBBBBBCCCCCCCCCCCCCCCCDDDDDDDDDDDDDDDD
         EEEEEEEEEEEEEEEEFFFFFFFFFFFFFFFFEEEEEEEEEEEEEEEEAAAAAAAAAAAAAAAA",
    );
    let sealed = bytes(
        "17F399F08C67D5EE19D0DC9969C4BB7D5FD46FD3756489069157B282BB200735
         D82710CA5C22F0CCFA7CBF93D496AC15A56834CBCF98C397B4024A2691233B8D
         83DE3541E4C2B58177E065A9BF7B62EC",
    );
    let aead = sm::provider().aead.key(&key).unwrap();
    let mut data = text.clone();
    aead.seal(&nonce, &aad, &mut data).unwrap();
    assert_eq!(data, sealed);
    aead.open(&nonce, &aad, &mut data).unwrap();
    assert_eq!(data, text);
}

/// The key of appendices A and C.
const PRIVATE: &str = "3945208F 7B2144B1 3F36E38A C6D39F95 88939369 2860B51A 42FB81EF 4DF7C5B8";
const POINT: &str = "04
    09F9DF31 1E5421A1 50DD7D16 1E4BC5C6 72179FAD 1833FC07 6BB08FF3 56F35020
    CCEA490C E26775A5 2DC6EA71 8CC1AA60 0AED05FB F35E084A 6632F607 2DA9AD13";

/// Appendix A.2: the public key, and a signature on "message digest" under the usual id.
#[test]
fn sm2_signature_of_gb_t_32918() {
    let scheme = sm::provider().signature;
    let made = scheme.generate(&mut Example::new(&bytes(PRIVATE))).unwrap();
    assert_eq!(made.key.public_key(), bytes(POINT));
    let key = scheme.public_key(&bytes(POINT)).unwrap();
    let signature = bytes(
        "3046
         022100 F5A03B06 48D2C463 0EEAC513 E1BB81A1 5944DA38 27D5B741 43AC7EAC EEE720B3
         022100 B1B6AA29 DF212FD8 763182BC 0D421CA1 BB9038FD 1F7F42D4 840B69C4 85BBC1AA",
    );
    assert_eq!(key.verify(b"message digest", &signature), Ok(()));
    assert!(key.verify(b"message Digest", &signature).is_err());
    assert!(key.verify_in(Domain::Handshake, b"message digest", &signature).is_err());
}

/// Appendix C: the ephemeral key, what it agrees on, and the whole ciphertext, both ways.
const EPHEMERAL: &str = "59276E27 D506861A 16680F3A D9C02DCC EF3CC1FA 3CDBE4CE 6D54B80D EAC1BC21";
const C1_X: &str = "04EBFC71 8E8D1798 62043226 8E77FEB6 415E2EDE 0E073C0F 4F640ECD 2E149A73";
const C1_Y: &str = "E858F9D8 1E5430A5 7B36DAAB 8F950A3C 64E6EE6A 63094D99 283AFF76 7E124DF0";
const C3: &str = "59983C18 F809E262 923C53AE C295D303 83B54E39 D609D160 AFCB1908 D0BD8766";
const C2: &str = "21886C A989CA9C 7D580873 07CA9309 2D651EFA";
const X2: &str = "335E18D7 51E51F04 0E27D468 138B7AB1 DC86AD7F 981D7D41 6222FD6A B3ED230D";
const Y2: &str = "AB743EBC FB22D64F 7B6AB791 F70658F2 5B48FA93 E54064FD BFBED3F0 BD847AC9";

#[test]
fn sm2_encryption_of_gb_t_32918() {
    let scheme = sm::provider().encryption.unwrap();
    let made = scheme.generate(&mut Example::new(&bytes(PRIVATE))).unwrap();
    assert_eq!(made.key.public_key(), bytes(POINT));
    let sealed = bytes(&format!("307C 0220 {C1_X} 022100 {C1_Y} 0420 {C3} 0413 {C2}"));
    assert_eq!(made.key.decrypt(&sealed).unwrap().expose(), b"encryption standard");
    let mut example = Example::new(&bytes(EPHEMERAL));
    let ours = scheme.encrypt(&mut example, &bytes(POINT), b"encryption standard").unwrap();
    assert_eq!(ours, sealed);
}

/// A text of no bytes has a key stream of no bytes, which is all zeros: refused, though its C3 is
/// right.
#[test]
fn an_empty_ciphertext_is_refused() {
    let provider = sm::provider();
    let scheme = provider.encryption.unwrap();
    let key = scheme.generate(&mut Example::new(&bytes(PRIVATE))).unwrap().key;
    let sealed = |c3: &[u8], c2: &str| {
        let c3 = hex::encode(c3);
        bytes(&format!("30 {:02x} 0220 {C1_X} 022100 {C1_Y} 0420 {c3} {c2}", 0x67 + c2.len() / 2))
    };
    let empty = sealed(&provider.hash.hash(&[&bytes(X2), &bytes(Y2)]), "0400");
    assert!(key.decrypt(&empty).is_err());
    // The same construction is taken with one byte: the key stream begins with 44.
    let one = provider.hash.hash(&[&bytes(X2), b"e", &bytes(Y2)]);
    assert_eq!(key.decrypt(&sealed(&one, "040121")).unwrap().expose(), b"e");
}

/// GB/T 32918.4 §7.1, B4: a key stream of zeros is refused, though C3 is right: it would show the
/// text. Under the private key 1 the stream comes from C1 itself, so that anyone can make one.
#[test]
fn a_key_stream_of_zeros_is_refused() {
    let provider = sm::provider();
    let scheme = provider.encryption.unwrap();
    let scalar = |number: u16| [&[0; 30][..], &number.to_be_bytes()].concat();
    let key = scheme.generate(&mut Example::new(&scalar(1))).unwrap().key;
    let exchange = provider.key_exchange;
    let mut zeros = 0;
    for ephemeral in [1, 2, 351] {
        let mut example = Example::new(&scalar(ephemeral));
        let c1 = exchange.generate(&mut example).unwrap().share().to_vec();
        let stream = provider.hash.hash(&[&c1[1..], &[0, 0, 0, 1]])[0];
        let c3 = provider.hash.hash(&[&c1[1..33], b"e", &c1[33..]]);
        let number = |digits: &[u8]| {
            let sign = if digits[0] < 0x80 { "" } else { "00" };
            format!("02 {:02x} {sign} {}", 32 + sign.len() / 2, hex::encode(digits))
        };
        let (x, y, c3) = (number(&c1[1..33]), number(&c1[33..]), hex::encode(c3));
        let content = bytes(&format!("{x} {y} 0420 {c3} 0401 {:02x}", stream ^ b'e'));
        let sealed = [&[0x30, u8::try_from(content.len()).unwrap()], &content[..]].concat();
        assert_eq!(key.decrypt(&sealed).is_err(), stream == 0, "{ephemeral}");
        zeros += usize::from(stream == 0);
    }
    assert_eq!(zeros, 1);
}

/// The same point multiplication as an exchange: the x coordinate is what both sides get.
#[test]
fn sm2_exchange_agrees_on_the_x_coordinate() {
    let exchange = sm::provider().key_exchange;
    let ephemeral = exchange.generate(&mut Example::new(&bytes(EPHEMERAL))).unwrap();
    assert_eq!(ephemeral.share(), bytes(&format!("04 {C1_X} {C1_Y}")));
    assert_eq!(ephemeral.agree(&bytes(POINT)).unwrap().expose(), bytes(X2));
    let fixed = exchange.generate(&mut Example::new(&bytes(PRIVATE))).unwrap();
    assert_eq!(fixed.agree(ephemeral.share()).unwrap().expose(), bytes(X2));
    // An epoch's key serves more than one contact.
    assert_eq!(fixed.agree(ephemeral.share()).unwrap().expose(), bytes(X2));
}

/// The `k` of a signature, for who knows the private key: `s(1+d) + rd` (GB/T 32918.2 §6.1).
fn nonce(signature: &[u8], private: &[u8]) -> Vec<u8> {
    let signature = sm2::dsa::Signature::from_der(signature).unwrap();
    let d = *sm2::NonZeroScalar::try_from(private).unwrap();
    let k = *signature.s() * (d + sm2::Scalar::ONE) + *signature.r() * d;
    k.to_bytes().to_vec()
}

/// The same generator, the same bytes; but a generator that repeats repeats no nonce, which would
/// give the private key away.
#[test]
fn signatures_repeat_under_a_seed_and_share_no_nonce() {
    let private = bytes(PRIVATE);
    let key = sm::provider().signature.generate(&mut Example::new(&private)).unwrap().key;
    let nonces = [
        (1, Domain::Document, "one"),
        (1, Domain::Document, "two"),
        (1, Domain::Handshake, "one"),
        (2, Domain::Document, "one"),
    ]
    .map(|(seed, domain, message)| {
        let sign = || {
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            key.sign_in(&mut rng, domain, message.as_bytes()).unwrap()
        };
        assert_eq!(sign(), sign());
        nonce(&sign(), &private)
    });
    for (at, nonce) in nonces.iter().enumerate() {
        assert!(!nonces[..at].contains(nonce), "nonce {at}");
    }
}

/// GB/T 32918.1 §6.1: a private key is 1 to n-2; 0 and n are none, and n-1 cannot sign.
#[test]
fn private_keys_have_their_range() {
    let provider = sm::provider();
    let encryption = provider.encryption.unwrap();
    // PKCS#8 without the optional public key; the curve's identifier ends with its last byte.
    let pkcs8 = |curve: &str, private: &str| {
        let head = "3041 020100 3013 0607 2a8648ce3d0201 0608 2a811ccf550182";
        Secret::new(bytes(&format!("{head} {curve} 0427 3025 020101 0420 {private}")))
    };
    let order = "fffffffeffffffffffffffffffffffff7203df6b21c6052b53bbf40939d541";
    let last = |byte: &str| format!("{order}{byte}");
    let (zero, one) = ("00".repeat(32), "00".repeat(31) + "01");
    let cases = [
        ("the example's", "2d", PRIVATE.to_owned(), true, true),
        ("one", "2d", one, true, true),
        ("n-2", "2d", last("21"), true, true),
        ("n-1", "2d", last("22"), false, true),
        ("n", "2d", last("23"), false, false),
        ("n+1", "2d", last("24"), false, false),
        ("all ones", "2d", "ff".repeat(32), false, false),
        ("zero", "2d", zero, false, false),
        ("of another curve", "2e", PRIVATE.to_owned(), false, false),
    ];
    for (what, curve, private, signs, decrypts) in cases {
        let der = pkcs8(curve, &private);
        assert_eq!(provider.signature.load_pkcs8(&der).is_ok(), signs, "{what} signs");
        assert_eq!(encryption.load_pkcs8(&der).is_ok(), decrypts, "{what} decrypts");
    }
    let key = provider.signature.load_pkcs8(&pkcs8("2d", PRIVATE)).unwrap();
    assert_eq!(key.public_key(), bytes(POINT));
    let other = provider.signature.generate(&mut Example::new(&[1; 32])).unwrap().pkcs8;
    let mut torn = other.expose().to_vec();
    *torn.last_mut().unwrap() ^= 1;
    assert!(provider.signature.load_pkcs8(&other).is_ok());
    assert!(provider.signature.load_pkcs8(&Secret::new(torn)).is_err(), "another public key");
}

#[test]
fn every_known_suite_has_its_provider() {
    for suite in Suite::known() {
        assert_eq!(provider_of(suite).unwrap().suite, suite);
        #[cfg(feature = "aws-lc")]
        assert_eq!(countersign_crypto::aws_lc::provider_of(suite).unwrap().suite, suite);
    }
    assert!(provider_of(Suite::from_code(3)).is_none());
    assert!(provider_of(Suite::X25519_P256_AES128GCM_SHA256).unwrap().encryption.is_none());
}
