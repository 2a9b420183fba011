//! OpenSSL as an independent peer, both ways. It is one of the CI's packages; without it these
//! tests fail.

use std::fs;
use std::path::Path;
use std::process::Command;

use countersign_crypto::{Domain, HASH_LEN, Provider, Secret, rust_crypto, sm};
use tempfile::TempDir;

use crate::support::rng;

/// Runs `openssl` with these words, separated by blanks, in `dir`. Gives what it printed, and
/// whether it was content.
fn try_openssl(dir: &Path, words: &str) -> (bool, String) {
    let output = Command::new("openssl")
        .args(words.split_whitespace())
        .current_dir(dir)
        .output()
        .expect("openssl is needed (apt-get install openssl)");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn openssl(dir: &Path, words: &str) -> String {
    let (content, said) = try_openssl(dir, words);
    assert!(content, "openssl {words}: {said}");
    said
}

/// The domains, and their ids on OpenSSL's command line, in hexadecimal: one has blanks.
fn domains() -> [(Domain, String); 2] {
    [
        (Domain::Document, hex::encode("1234567812345678")),
        (Domain::Handshake, hex::encode("Countersign v1 handshake")),
    ]
}

/// A folder with a key made by us or by OpenSSL, as `key.der` and `public.der`; its PKCS#8.
fn with_key(ours: bool) -> (TempDir, Secret) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.der");
    if ours {
        let made = sm::provider().signature.generate(&mut rng()).unwrap();
        fs::write(&path, made.pkcs8.expose()).unwrap();
    } else {
        openssl(dir.path(), "genpkey -algorithm SM2 -out key.pem");
        openssl(dir.path(), "pkcs8 -topk8 -nocrypt -in key.pem -outform DER -out key.der");
    }
    openssl(dir.path(), "pkey -inform DER -in key.der -pubout -outform DER -out public.der");
    let pkcs8 = Secret::new(fs::read(&path).unwrap());
    (dir, pkcs8)
}

#[test]
fn sm2_signatures_both_ways() {
    for ours in [true, false] {
        let (dir, pkcs8) = with_key(ours);
        let dir = dir.path();
        let scheme = sm::provider().signature;
        let key = scheme.load_pkcs8(&pkcs8).unwrap();
        let public = fs::read(dir.join("public.der")).unwrap();
        assert!(public.ends_with(key.public_key()));
        let verifier = scheme.public_key(key.public_key()).unwrap();
        fs::write(dir.join("message"), b"message").unwrap();
        let verify = |id: &str| {
            let words = "pkeyutl -verify -pubin -keyform DER -inkey public.der -rawin -digest sm3
                         -in message -sigfile signature -pkeyopt hexdistid:";
            try_openssl(dir, &format!("{words}{id}")).0
        };
        for (domain, id) in domains() {
            let signature = key.sign_in(&mut rng(), domain, b"message").unwrap();
            fs::write(dir.join("signature"), &signature).unwrap();
            for (other, other_id) in domains() {
                assert_eq!(verify(&other_id), other == domain, "{domain:?} as {other:?}");
            }
            let words = "pkeyutl -sign -keyform DER -inkey key.der -rawin -digest sm3
                         -in message -out signature -pkeyopt hexdistid:";
            openssl(dir, &format!("{words}{id}"));
            let theirs = fs::read(dir.join("signature")).unwrap();
            assert_eq!(verifier.verify_in(domain, b"message", &theirs), Ok(()));
            assert!(verifier.verify_in(domain, b"massage", &theirs).is_err());
        }
    }
}

#[test]
fn sm2_encryption_both_ways() {
    for ours in [true, false] {
        let (dir, pkcs8) = with_key(ours);
        let dir = dir.path();
        let scheme = sm::provider().encryption.unwrap();
        let key = scheme.load_pkcs8(&pkcs8).unwrap();
        for len in [1, 32, 200] {
            let text = vec![0x5a; len];
            let sealed = scheme.encrypt(&mut rng(), key.public_key(), &text).unwrap();
            fs::write(dir.join("sealed"), &sealed).unwrap();
            let words = "pkeyutl -decrypt -keyform DER -inkey key.der -in sealed -out text";
            openssl(dir, words);
            assert_eq!(fs::read(dir.join("text")).unwrap(), text, "{len}");
            let words =
                "pkeyutl -encrypt -pubin -keyform DER -inkey public.der -in text -out sealed";
            openssl(dir, words);
            let theirs = fs::read(dir.join("sealed")).unwrap();
            assert_eq!(key.decrypt(&theirs).unwrap().expose(), text, "{len}");
        }
    }
}

/// Both hashes below HMAC and HKDF: with short keys, and with keys longer than a block.
#[test]
fn hmac_and_hkdf_agree() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let digests: [(Provider, &str); 2] =
        [(rust_crypto::provider(), "SHA256"), (sm::provider(), "SM3")];
    for (provider, digest) in digests {
        for (key, salt, info, len) in [
            (&b"key"[..], &b"salt"[..], &b"info"[..], HASH_LEN),
            (&[0x0b; 22], &[7; 13], &[0xf0; 10], 42),
            (&[0xaa; 131], &[9; 80], &[1; 90], 255 * HASH_LEN),
        ] {
            let of = |bytes: &[u8]| hex::encode(bytes);
            fs::write(dir.join("data"), info).unwrap();
            let words = format!("mac -digest {digest} -macopt hexkey:{} -in data HMAC", of(key));
            let said = openssl(dir, &words);
            assert_eq!(said.trim().to_lowercase(), of(&provider.mac.mac(key, &[info])), "{digest}");
            let (key_hex, salt_hex, info_hex) = (of(key), of(salt), of(info));
            let said = openssl(
                dir,
                &format!(
                    "kdf -keylen {len} -kdfopt digest:{digest} -kdfopt hexkey:{key_hex}
                     -kdfopt hexsalt:{salt_hex} -kdfopt hexinfo:{info_hex} HKDF"
                ),
            );
            let prk = provider.kdf.extract(salt, key);
            let okm = provider.kdf.expand(&prk, &[&info[..1], &info[1..]], len).unwrap();
            let theirs = said.trim().replace(':', "").to_lowercase();
            assert_eq!(theirs, of(okm.expose()), "{digest}, {len}");
        }
    }
}

/// OpenSSL 3.0 has no SM4-GCM, but GCM encrypts as CTR does, from a counter of 2.
#[test]
fn sm4_gcm_encrypts_as_sm4_ctr() {
    let dir = tempfile::tempdir().unwrap();
    let (key, nonce, text) = ([3; 16], [5; 12], vec![0x77; 1000]);
    fs::write(dir.path().join("text"), &text).unwrap();
    let (key_hex, nonce_hex) = (hex::encode(key), hex::encode(nonce));
    openssl(
        dir.path(),
        &format!("enc -sm4-ctr -K {key_hex} -iv {nonce_hex}00000002 -in text -out sealed"),
    );
    let aead = sm::provider().aead.key(&Secret::copied_from(&key)).unwrap();
    let mut data = text;
    aead.seal_in_place(&nonce, b"", &mut data).unwrap();
    assert_eq!(fs::read(dir.path().join("sealed")).unwrap(), data);
}
