//! Known answers and known refusals of the P-256 suite, for both its providers: NIST, RFC 4231,
//! 5869, 6979, 7748.

use countersign_crypto::{CryptoError, Provider, Secret, rust_crypto};

use crate::support::{bytes, rng};

fn providers() -> Vec<Provider> {
    vec![
        rust_crypto::provider(),
        #[cfg(feature = "aws-lc")]
        countersign_crypto::aws_lc::provider(),
    ]
}

#[test]
fn sha_256_of_fips_180() {
    let wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    for provider in providers() {
        assert_eq!(provider.hash.hash(&[b"a", b"", b"bc"]).to_vec(), bytes(wanted));
    }
}

/// RFC 4231, test case 2.
#[test]
fn hmac_of_rfc_4231() {
    let tag = bytes("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    for provider in providers() {
        let parts: [&[u8]; 2] = [b"what do ya want ", b"for nothing?"];
        assert_eq!(provider.mac.mac(b"Jefe", &parts).to_vec(), tag);
        assert_eq!(provider.mac.verify(b"Jefe", &parts, &tag), Ok(()));
        let refused = Err(CryptoError::BadAuthentication);
        assert_eq!(provider.mac.verify(b"Jefe", &parts, &tag[..31]), refused);
        assert_eq!(provider.mac.verify(b"Jefe", &parts, &[]), refused);
        assert_eq!(provider.mac.verify(b"jefe", &parts, &tag), refused);
    }
}

/// RFC 5869, appendix A.1.
#[test]
fn hkdf_of_rfc_5869() {
    for provider in providers() {
        let prk = provider.kdf.extract(&bytes("000102030405060708090a0b0c"), &[0x0b; 22]);
        let wanted = "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5";
        assert_eq!(prk.expose(), bytes(wanted));
        let info: [&[u8]; 2] = [&bytes("f0f1f2f3"), &bytes("f4f5f6f7f8f9")];
        let okm = provider.kdf.expand(&prk, &info, 42).unwrap();
        let wanted = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf
                      34007208d5b887185865";
        assert_eq!(okm.expose(), bytes(wanted));
        assert!(provider.kdf.expand(&prk, &[], 255 * 32).is_ok());
        let long = provider.kdf.expand(&prk, &[], 255 * 32 + 1).err();
        assert_eq!(long, Some(CryptoError::TooLong));
        for len in [0, 31, 33, 65] {
            let wrong = Secret::copied_from(&vec![1; len]);
            assert_eq!(provider.kdf.expand(&wrong, &[], 32).err(), Some(CryptoError::TooLong));
        }
    }
}

/// McGrew and Viega, "The Galois/Counter Mode of Operation", test case 4.
#[test]
fn aes_gcm_of_its_authors() {
    let key = Secret::new(bytes("feffe9928665731c6d6a8f9467308308"));
    let nonce = bytes("cafebabefacedbaddecaf888").try_into().unwrap();
    let aad = bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let text = bytes(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
         1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
    );
    let sealed = bytes(
        "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e
         21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091
         5bc94fbc3221a5db94fae95ae7121a47",
    );
    for provider in providers() {
        let aead = provider.aead.key(&key).unwrap();
        let mut data = text.clone();
        aead.seal(&nonce, &aad, &mut data).unwrap();
        assert_eq!(data, sealed);
        aead.open(&nonce, &aad, &mut data).unwrap();
        assert_eq!(data, text);
        let refused = Err(CryptoError::BadAuthentication);
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 0x80;
            assert_eq!(aead.open(&nonce, &aad, &mut bad), refused, "byte {at}");
        }
        for len in [0, 1, 15, 16, sealed.len() - 1] {
            assert_eq!(aead.open(&nonce, &aad, &mut sealed[..len].to_vec()), refused);
        }
        assert_eq!(aead.open(&nonce, &aad[1..], &mut sealed.clone()), refused);
        assert_eq!(aead.open(&[0; 12], &aad, &mut sealed.clone()), refused);
        for len in [0, 15, 17, 32] {
            let wrong = Secret::copied_from(&vec![1; len]);
            assert_eq!(provider.aead.key(&wrong).err(), Some(CryptoError::InvalidKey));
        }
    }
}

/// RFC 7748 §6.1 and Wycheproof: shares of low order, in every encoding, and of wrong length.
#[test]
fn x25519_agrees_across_providers_and_refuses_low_order_shares() {
    let all = providers();
    for ours in &all {
        for theirs in &all {
            let a = ours.key_exchange.generate(&mut rng()).unwrap();
            let b = theirs.key_exchange.generate(&mut rng()).unwrap();
            let (share_a, share_b) = (a.share().to_vec(), b.share().to_vec());
            assert_eq!(share_a.len(), 32);
            let (one, two) = (a.agree(&share_b).unwrap(), b.agree(&share_a).unwrap());
            assert!(one.ct_eq(two.expose()));
        }
    }
    let low_order = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    for provider in all {
        let refused = |share: &[u8]| {
            let key = provider.key_exchange.generate(&mut rng()).unwrap();
            key.agree(share).err() == Some(CryptoError::InvalidKey)
        };
        for share in low_order {
            assert!(refused(&bytes(share)), "{share}");
            // The top bit is ignored (RFC 7748 §5), so this is the same point.
            let mut masked = bytes(share);
            masked[31] |= 0x80;
            assert!(refused(&masked), "{share} with the top bit");
        }
        assert!(refused(&[]) && refused(&[9; 31]) && refused(&[9; 33]));
    }
}

const POINT: &str = "04
    60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6
    7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299";
const R: &str = "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716";
const S: &str = "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8";
const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";

/// RFC 6979, appendix A.2.5, message "sample" with SHA-256.
#[test]
fn ecdsa_verifies_rfc_6979_and_refuses_what_is_not_a_signature() {
    let der = |r: &str, s: &str| bytes(&format!("3046022100{r}022100{s}"));
    let good = der(R, S);
    let zero = "00".repeat(32);
    let not_a_signature = [
        der(S, R),
        der(ORDER, S),
        der(R, ORDER),
        bytes(&format!("30060201000201 00{}", "")),
        bytes(&format!("3026020100022100{S}")),        // r = 0
        bytes(&format!("3026022100{R}020100")),        // s = 0
        der(&zero, S),                                 // not minimal
        bytes(&format!("3045 0220{R} 022100{S}")),     // r negative
        bytes(&format!("308146 022100{R} 022100{S}")), // BER length
        [&good[..], &[0]].concat(),
        good[..good.len() - 1].to_vec(),
        bytes(&format!("{R}{S}")), // raw, not DER
        Vec::new(),
    ];
    for provider in providers() {
        let key = provider.signature.public_key(&bytes(POINT)).unwrap();
        assert_eq!(key.verify(b"sample", &good), Ok(()));
        let refused = Err(CryptoError::BadAuthentication);
        assert_eq!(key.verify(b"Sample", &good), refused);
        assert_eq!(key.verify(b"", &good), refused);
        for (number, bad) in not_a_signature.iter().enumerate() {
            assert_eq!(key.verify(b"sample", bad), refused, "signature {number}");
        }
    }
}

#[test]
fn public_keys_have_one_encoding_and_lie_on_the_curve() {
    let good = bytes(POINT);
    let mut off_curve = good.clone();
    off_curve[64] ^= 1;
    let mut compressed = vec![3];
    compressed.extend_from_slice(&good[1..33]);
    let mut hybrid = good.clone();
    hybrid[0] = 7;
    let bad = [off_curve, compressed, hybrid, vec![0], good[..64].to_vec(), Vec::new()];
    for provider in providers() {
        for point in &bad {
            let error = provider.signature.public_key(point).err();
            assert_eq!(error, Some(CryptoError::InvalidKey), "{}", hex::encode(point));
        }
    }
}

#[test]
fn keys_travel_between_providers_and_sign_what_the_other_verifies() {
    let all = providers();
    for maker in &all {
        let made = maker.signature.generate(&mut rng()).unwrap();
        for user in &all {
            let key = user.signature.load_pkcs8(&made.pkcs8).unwrap();
            assert_eq!(key.public_key(), made.key.public_key());
            let signature = key.sign(&mut rng(), b"message").unwrap();
            let verifier = maker.signature.public_key(key.public_key()).unwrap();
            assert_eq!(verifier.verify(b"message", &signature), Ok(()));
            let cut = Secret::copied_from(&made.pkcs8.expose()[1..]);
            assert_eq!(user.signature.load_pkcs8(&cut).err(), Some(CryptoError::InvalidKey));
        }
    }
}

#[test]
fn secrets_say_nothing_in_debug() {
    assert_eq!(format!("{:?}", Secret::copied_from(b"hunter2")), "Secret(..)");
}
