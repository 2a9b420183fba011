//! Sealing to a P-256 key: HPKE against AWS-LC's (through rustls) as an independent peer, and what
//! must not open.

use countersign_crypto::{CryptoError, EncryptionScheme, Provider, Secret, Suite, rust_crypto};
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_P256_HKDF_SHA256_AES_128 as PEER;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey};

use crate::support::{Example, bytes, providers, rng};

const INFO: &[u8] = b"countersign.sealing.v1";
const POINT_LEN: usize = 65;
const TAG_LEN: usize = 16;
const REFUSED: CryptoError = CryptoError::BadAuthentication;

fn p256() -> Vec<Provider> {
    providers().into_iter().filter(|p| p.suite == Suite::X25519_P256_AES128GCM_SHA256).collect()
}

/// PKCS#8 of a P-256 key, without the optional public key.
fn pkcs8(private: &[u8]) -> Secret {
    let head = "3041 020100 3013 0607 2a8648ce3d0201 0608 2a8648ce3d030107 0427 3025 020101 0420";
    Secret::new([bytes(head), private.to_vec()].concat())
}

/// The 32 bytes of the private key in our PKCS#8.
fn scalar(pkcs8: &Secret) -> Vec<u8> {
    let der = pkcs8.expose();
    let at = der.windows(5).position(|part| part == [2, 1, 1, 4, 32]).unwrap() + 5;
    der[at..at + 32].to_vec()
}

#[test]
fn what_we_seal_aws_lc_opens() {
    for provider in p256() {
        let made = provider.sealing.generate(&mut rng()).unwrap();
        let private = HpkePrivateKey::from(scalar(&made.pkcs8));
        for len in [1, 33, 256] {
            let text = vec![0x5a; len];
            let point = made.key.public_key();
            let sealed = provider.sealing.encrypt(&mut rng(), point, &text).unwrap();
            assert_eq!(sealed.len(), POINT_LEN + len + TAG_LEN);
            let (enc, rest) = sealed.split_at(POINT_LEN);
            let enc = || EncapsulatedSecret(enc.to_vec());
            assert_eq!(PEER.open(&enc(), INFO, b"", rest, &private).unwrap(), text, "{len}");
            // The label and the empty associated data are part of it.
            assert!(PEER.open(&enc(), b"countersign.sealing.v2", b"", rest, &private).is_err());
            assert!(PEER.open(&enc(), INFO, b"\0", rest, &private).is_err());
        }
    }
}

#[test]
fn what_aws_lc_seals_we_open() {
    for provider in p256() {
        for _ in 0..8 {
            let (HpkePublicKey(point), private) = PEER.generate_key_pair().unwrap();
            let key = provider.sealing.load_pkcs8(&pkcs8(private.secret_bytes())).unwrap();
            assert_eq!(key.public_key(), point);
            let sealed = |info: &[u8], aad: &[u8]| {
                let to = HpkePublicKey(point.clone());
                let (enc, cipher) = PEER.seal(info, aad, b"joint password", &to).unwrap();
                [enc.0, cipher].concat()
            };
            assert_eq!(key.decrypt(&sealed(INFO, b"")).unwrap().expose(), b"joint password");
            assert_eq!(key.decrypt(&sealed(b"another label", b"")).err(), Some(REFUSED));
            assert_eq!(key.decrypt(&sealed(INFO, b"aad")).err(), Some(REFUSED));
        }
    }
}

/// Its two providers open each other's, and a key signs requests in both.
#[test]
fn keys_serve_every_provider_of_the_suite() {
    for one in p256() {
        let made = one.sealing.generate(&mut rng()).unwrap();
        for other in p256() {
            let key = other.sealing.load_pkcs8(&made.pkcs8).unwrap();
            assert_eq!(key.public_key(), made.key.public_key());
            let signer = other.signature.load_pkcs8(&made.pkcs8).unwrap();
            assert_eq!(signer.public_key(), made.key.public_key());
            let point = key.public_key();
            let sealed = one.sealing.encrypt(&mut rng(), point, b"text").unwrap();
            assert_eq!(key.decrypt(&sealed).unwrap().expose(), b"text");
        }
    }
}

#[test]
fn nothing_altered_opens() {
    let scheme = rust_crypto::provider().sealing;
    let key = scheme.generate(&mut rng()).unwrap().key;
    let sealed = scheme.encrypt(&mut rng(), key.public_key(), b"sixteen bytes ok").unwrap();
    assert_eq!(key.decrypt(&sealed).unwrap().expose(), b"sixteen bytes ok");
    for at in 0..sealed.len() {
        for bit in 0..8 {
            let mut bad = sealed.clone();
            bad[at] ^= 1 << bit;
            assert_eq!(key.decrypt(&bad).err(), Some(REFUSED), "byte {at}, bit {bit}");
        }
        assert_eq!(key.decrypt(&sealed[..at]).err(), Some(REFUSED), "cut {at}");
    }
    let (enc, rest) = sealed.split_at(POINT_LEN);
    // The prime of the field minus y: the same x, so the same x of the shared point.
    let negated = {
        let prime = bytes("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff");
        let mut borrow = 0;
        let mut y = [0; 32];
        for at in (0..32).rev() {
            let digit = i16::from(prime[at]) - i16::from(enc[33 + at]) - borrow;
            borrow = i16::from(digit < 0);
            y[at] = u8::try_from(digit.rem_euclid(256)).unwrap();
        }
        [&enc[..33], &y].concat()
    };
    let parity = 2 + (enc[64] & 1);
    let bad = [
        ("something behind", [&sealed[..], &[0]].concat()),
        ("the other root", [&negated, rest].concat()),
        ("a compressed point", [&[parity], &enc[1..33], rest].concat()),
        ("a hybrid point", [&[parity + 4], &enc[1..], rest].concat()),
        ("the point at infinity", [&[0; POINT_LEN][..], rest].concat()),
        ("the key itself as the ephemeral one", [key.public_key(), rest].concat()),
        ("no text", [enc, &rest[rest.len() - TAG_LEN..]].concat()),
        ("too long a text", [enc, &[0; 257 + TAG_LEN]].concat()),
        ("nothing", Vec::new()),
    ];
    for (what, bad) in bad {
        assert_eq!(key.decrypt(&bad).err(), Some(REFUSED), "{what}");
    }
    let other = scheme.generate(&mut Example::new(&[1; 32])).unwrap().key;
    assert_eq!(other.decrypt(&sealed).err(), Some(REFUSED), "another key");
}

/// Both suites: the same text twice gives nothing alike, and lengths are bounded.
#[test]
fn sealing_is_randomised_and_bounded_in_every_suite() {
    for provider in providers() {
        let (scheme, suite) = (&provider.sealing, provider.suite);
        let mut rng = rng();
        let made = scheme.generate(&mut rng).unwrap();
        let key = scheme.load_pkcs8(&made.pkcs8).unwrap();
        let point = key.public_key();
        let [one, two] = [(); 2].map(|()| scheme.encrypt(&mut rng, point, b"text").unwrap());
        assert_ne!(one[..40], two[..40], "{suite}");
        assert_ne!(one[one.len() - 16..], two[two.len() - 16..], "{suite}");
        for len in [1, 32, 256] {
            let text = vec![0xc3; len];
            let sealed = scheme.encrypt(&mut rng, point, &text).unwrap();
            assert_eq!(key.decrypt(&sealed).unwrap().expose(), text, "{len}, {suite}");
        }
        for len in [0, 257] {
            let error = scheme.encrypt(&mut rng, point, &vec![1; len]).err();
            assert_eq!(error, Some(CryptoError::TooLong), "{len}, {suite}");
        }
    }
}

#[test]
fn p256_private_keys_have_their_range() {
    let load = |scheme: &dyn EncryptionScheme, hex: &str| {
        scheme.load_pkcs8(&pkcs8(&bytes(hex))).map(|key| key.public_key().to_vec())
    };
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc6325";
    for provider in p256() {
        let scheme = &*provider.sealing;
        assert!(load(scheme, &format!("{}01", "00".repeat(31))).is_ok());
        assert!(load(scheme, &format!("{order}50")).is_ok(), "n-1");
        for bad in [format!("{order}51"), "00".repeat(32), "ff".repeat(32)] {
            assert_eq!(load(scheme, &bad), Err(CryptoError::InvalidKey), "{bad}");
        }
        let sm2 = countersign_crypto::sm::provider().sealing.generate(&mut rng()).unwrap();
        assert!(scheme.load_pkcs8(&sm2.pkcs8).is_err(), "of another curve");
    }
}
