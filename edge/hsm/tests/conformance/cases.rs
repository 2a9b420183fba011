//! What every vault does.

use std::thread;

use countersign_crypto::Secret;
use countersign_hsm::{KeyKind, RANDOM_MAX, RsaUse};
use tr31::{BlockCipher, Ciphers, Header, Kbpk, Leniency, Padding, Version};
use tr34::{Rsa, RsaError, RsaKey};

use crate::stage::{Able, Stage, refused};

const RSA: tr34::aws_lc::AwsLc = tr34::aws_lc::AwsLc;
const CIPHERS: tr31::aws_lc::AwsLc = tr31::aws_lc::AwsLc;
const BITS: u32 = 2048;
/// The threads that use a vault at once, more than it has sessions, and what each does.
const THREADS: u8 = 12;
const ROUNDS: u8 = 4;

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) steps: &'static [fn(&Stage)],
}

pub(crate) const CASES: &[Case] = &[
    Case { name: "RSA keys sign, stay and go", steps: &[rsa_signs, rsa_stays, rsa_goes] },
    Case { name: "RSA keys decrypt OAEP with SHA-256", steps: &[rsa_decrypts, rsa_still_decrypts] },
    Case { name: "the sizes of TR-34", steps: &[rsa_sizes] },
    Case { name: "a storage key wraps and stays", steps: &[storage_key, storage_key_stays] },
    Case { name: "an imported KEK computes as in memory", steps: &[kek_imported, kek_stays] },
    Case { name: "a TDES KEK", steps: &[tdes_kek] },
    Case { name: "labels are one namespace", steps: &[labels_are_unique] },
    Case { name: "a key is of one kind", steps: &[kinds_are_apart] },
    Case { name: "bad input is refused", steps: &[bad_input] },
    Case { name: "random bytes", steps: &[random_bytes] },
    Case { name: "threads share it", steps: &[threads_share] },
];

fn verifies(key: &dyn RsaKey, message: &[u8]) {
    let signature = key.sign(message).unwrap();
    RSA.verify(key.public_key(), message, &signature).unwrap();
    let other = RSA.verify(key.public_key(), b"another message", &signature);
    assert_eq!(other, Err(RsaError::BadSignature));
}

fn rsa_signs(stage: &Stage) {
    let key = stage.vault.rsa_generate("kdh.1", RsaUse::Sign, BITS).unwrap();
    assert_eq!(RSA.bits(key.public_key()), Ok(BITS));
    verifies(&*key, b"");
    verifies(&*key, &[7; 5000]);
    assert_eq!(key.decrypt(&[1; 256]).err(), Some(RsaError::Failed), "it may not");
    stage.note("public", key.public_key());
    let held = stage.vault.labels().unwrap();
    let kind = KeyKind::Rsa(RsaUse::Sign);
    assert!(held.len() == 1 && held[0].label == "kdh.1" && held[0].kind == kind, "{held:?}");
}

fn rsa_stays(stage: &Stage) {
    let key = stage.vault.rsa_open("kdh.1").unwrap();
    assert_eq!(key.public_key(), stage.noted("public"));
    verifies(&*key, b"after a restart");
    assert_eq!(key.decrypt(&[1; 256]).err(), Some(RsaError::Failed), "it still may not");
    let again = stage.vault.rsa_generate("kdh.1", RsaUse::Sign, BITS);
    assert_eq!(refused(again), "label-taken");
    assert_eq!(stage.vault.rsa_open("kdh.1").unwrap().public_key(), stage.noted("public"));
    let other = stage.vault.rsa_generate("kdh.2", RsaUse::Sign, BITS).unwrap();
    assert_ne!(other.public_key(), key.public_key());
    assert_eq!(stage.labels(), ["kdh.1", "kdh.2"]);
}

fn rsa_goes(stage: &Stage) {
    stage.vault.rsa_delete("kdh.1").unwrap();
    assert_eq!(refused(stage.vault.rsa_open("kdh.1")), "label-unknown");
    assert_eq!(refused(stage.vault.rsa_delete("kdh.1")), "label-unknown");
    assert_eq!(stage.labels(), ["kdh.2"]);
    verifies(&*stage.vault.rsa_open("kdh.2").unwrap(), b"the other one stays");
    // The label is free again, for another key.
    let new = stage.vault.rsa_generate("kdh.1", RsaUse::Sign, BITS).unwrap();
    assert_ne!(new.public_key(), stage.noted("public"));
}

fn seal(public_key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut rng = testkit::rng::seeded(1);
    RSA.encrypt(&mut rng, public_key, &Secret::copied_from(text)).unwrap()
}

fn rsa_decrypts(stage: &Stage) {
    let made = stage.vault.rsa_generate("krd", RsaUse::SignAndDecrypt, BITS);
    if stage.able == Able::NoTdesNoOaepSha256 {
        assert_eq!(refused(made), "oaep-sha256-unsupported");
        assert!(stage.labels().is_empty(), "what cannot do its work is not left behind");
        return;
    }
    let key = made.unwrap();
    verifies(&*key, b"a certificate request");
    decrypts(&*key);
    stage.note("public", key.public_key());
}

fn decrypts(key: &dyn RsaKey) {
    let text = [0x5a; 24];
    let sealed = seal(key.public_key(), &text);
    assert!(key.decrypt(&sealed).unwrap().ct_eq(&text));
    let mut altered = sealed.clone();
    altered[100] ^= 1;
    let bad = Some(RsaError::BadCiphertext);
    assert_eq!(key.decrypt(&altered).err(), bad);
    assert_eq!(key.decrypt(&sealed[1..]).err(), bad);
    // The same number in fewer bytes is not the same text (RFC 8017, 7.1.2).
    let mut texts = (0..10_000).map(|_| seal(key.public_key(), &text));
    let leading_zero = texts.find(|sealed| sealed[0] == 0).unwrap();
    assert!(key.decrypt(&leading_zero).unwrap().ct_eq(&text));
    assert_eq!(key.decrypt(&leading_zero[1..]).err(), bad);
    assert_eq!(key.decrypt(&[&[0], &leading_zero[..]].concat()).err(), bad);
    assert_eq!(key.decrypt(&[]).err(), bad);
    assert!(key.decrypt(&sealed).unwrap().ct_eq(&text), "a bad text changes nothing");
    // For another key.
    let other = tr34::aws_lc::SoftwareRsaKey::generate(BITS).unwrap();
    assert_eq!(key.decrypt(&seal(other.public_key(), &text)).err(), bad);
}

fn rsa_still_decrypts(stage: &Stage) {
    if stage.able == Able::NoTdesNoOaepSha256 {
        return;
    }
    let key = stage.vault.rsa_open("krd").unwrap();
    assert_eq!(key.public_key(), stage.noted("public"));
    decrypts(&*key);
}

fn rsa_sizes(stage: &Stage) {
    let key = stage.vault.rsa_generate("r3072", RsaUse::Sign, 3072).unwrap();
    assert_eq!(RSA.bits(key.public_key()), Ok(3072));
    assert_eq!(key.sign(b"x").unwrap().len(), 384);
    for bits in [0, 1024, 2047, 8192] {
        let made = stage.vault.rsa_generate("odd", RsaUse::Sign, bits);
        assert_eq!(refused(made), "key-size", "{bits}");
    }
    assert_eq!(stage.labels(), ["r3072"]);
}

fn wrap(kbpk: Kbpk<'_>, key: &Secret) -> String {
    let header = Header::new(Version::D, *b"P0", b'A', b'E', b'N');
    let mut rng = testkit::rng::seeded(2);
    let padding = Padding::Random(&mut rng);
    tr31::wrap(&CIPHERS, kbpk, &header, key, padding, Leniency::NONE).unwrap()
}

fn unwraps(kbpk: Kbpk<'_>, block: &[u8], key: &[u8]) {
    let opened = tr31::unwrap(&CIPHERS, kbpk, block, Leniency::NONE).unwrap();
    assert!(opened.key.ct_eq(key));
}

fn storage_key(stage: &Stage) {
    let held = stage.vault.storage_key("storage").unwrap();
    assert_eq!((held.cipher(), held.key_len()), (BlockCipher::Aes, 32));
    let block = wrap(Kbpk::Held(&*held), &Secret::copied_from(&[0x33; 32]));
    unwraps(Kbpk::Held(&*held), block.as_bytes(), &[0x33; 32]);
    stage.note("block", block.as_bytes());
    let again = stage.vault.storage_key("storage").unwrap();
    unwraps(Kbpk::Held(&*again), block.as_bytes(), &[0x33; 32]);
    assert_eq!(stage.labels(), ["storage"]);
}

fn storage_key_stays(stage: &Stage) {
    let held = stage.vault.storage_key("storage").unwrap();
    let block = stage.noted("block");
    unwraps(Kbpk::Held(&*held), &block, &[0x33; 32]);
    unwraps(Kbpk::Held(&*stage.vault.cmac_open("storage").unwrap()), &block, &[0x33; 32]);
    let other = stage.vault.storage_key("other").unwrap();
    let opened = tr31::unwrap(&CIPHERS, Kbpk::Held(&*other), &block, Leniency::NONE);
    assert_eq!(opened.err().map(|error| error.check()), Some("mac"));
    stage.vault.cmac_delete("storage").unwrap();
    assert_eq!(refused(stage.vault.cmac_open("storage")), "label-unknown");
    assert_eq!(refused(stage.vault.cmac_delete("storage")), "label-unknown");
    // Made anew it is another key.
    let new = stage.vault.storage_key("storage").unwrap();
    assert!(tr31::unwrap(&CIPHERS, Kbpk::Held(&*new), &block, Leniency::NONE).is_err());
}

fn computes_like(held: &dyn tr31::CmacKey, key: &Secret) {
    let cipher = held.cipher();
    assert_eq!(held.key_len(), key.len());
    for length in [0, 1, 15, 16, 17, 32, 100, 4000] {
        let data = vec![0xc3; length];
        let wanted = CIPHERS.cmac(cipher, key, &data).unwrap();
        assert!(held.cmac(&data).unwrap().ct_eq(wanted.expose()), "{length}");
    }
}

fn kek(length: usize) -> Secret {
    Secret::new((1..).take(length).collect())
}

fn kek_imported(stage: &Stage) {
    for length in [16, 24, 32] {
        let label = format!("kek-{length}");
        let held = stage.vault.cmac_import(&label, BlockCipher::Aes, kek(length)).unwrap();
        computes_like(&*held, &kek(length));
    }
    let held = stage.vault.cmac_open("kek-32").unwrap();
    let clear = kek(32);
    let block = wrap(Kbpk::Clear(&clear), &Secret::copied_from(&[0x44; 16]));
    unwraps(Kbpk::Held(&*held), block.as_bytes(), &[0x44; 16]);
    let block = wrap(Kbpk::Held(&*held), &Secret::copied_from(&[0x45; 16]));
    unwraps(Kbpk::Clear(&clear), block.as_bytes(), &[0x45; 16]);
}

fn kek_stays(stage: &Stage) {
    assert_eq!(stage.labels(), ["kek-16", "kek-24", "kek-32"]);
    computes_like(&*stage.vault.cmac_open("kek-24").unwrap(), &kek(24));
    let again = stage.vault.cmac_import("kek-16", BlockCipher::Aes, kek(32));
    assert_eq!(refused(again), "label-taken");
    computes_like(&*stage.vault.cmac_open("kek-16").unwrap(), &kek(16));
    // A KEK of 128 bits does not become what protects a database.
    assert_eq!(refused(stage.vault.storage_key("kek-16")), "key-kind");
}

fn tdes_kek(stage: &Stage) {
    let import = |length| stage.vault.cmac_import("tdes", BlockCipher::Tdes, kek(length));
    if stage.able != Able::All {
        assert_eq!(refused(import(24)), "mechanism-unsupported");
        assert!(stage.labels().is_empty());
        return;
    }
    // What a key block refuses of a KEK in the clear, no vault takes in: it cannot tell any more.
    let unfit = |key: &[u8]| {
        refused(stage.vault.cmac_import("tdes", BlockCipher::Tdes, Secret::copied_from(key)))
    };
    let fit = tr31::policy::with_odd_parity(&kek(24));
    let part = &fit.expose()[..8];
    assert_eq!(refused(import(24)), "kbpk-des-parity");
    assert_eq!(unfit(&[part, part].concat()), "kbpk-des-equal-halves");
    assert_eq!(unfit(&[part, &[1; 8]].concat()), "kbpk-des-weak-key");
    assert!(stage.labels().is_empty());
    let import = |key| stage.vault.cmac_import("tdes", BlockCipher::Tdes, key);
    computes_like(&*import(Secret::copied_from(fit.expose())).unwrap(), &fit);
    computes_like(&*stage.vault.cmac_open("tdes").unwrap(), &fit);
    assert_eq!(refused(stage.vault.storage_key("tdes")), "key-kind");
}

fn labels_are_unique(stage: &Stage) {
    let vault = &stage.vault;
    vault.rsa_generate("one", RsaUse::Sign, BITS).unwrap();
    vault.storage_key("two").unwrap();
    assert_eq!(refused(vault.cmac_import("one", BlockCipher::Aes, kek(16))), "label-taken");
    assert_eq!(refused(vault.cmac_import("two", BlockCipher::Aes, kek(16))), "label-taken");
    assert_eq!(refused(vault.rsa_generate("two", RsaUse::Sign, BITS)), "label-taken");
    for label in ["", ".x", "a b", "../x", "ключ"] {
        assert_eq!(refused(vault.rsa_generate(label, RsaUse::Sign, BITS)), "label-format");
        assert_eq!(refused(vault.rsa_open(label)), "label-format");
        assert_eq!(refused(vault.rsa_delete(label)), "label-format");
        assert_eq!(refused(vault.storage_key(label)), "label-format");
        assert_eq!(refused(vault.cmac_open(label)), "label-format");
        assert_eq!(refused(vault.cmac_delete(label)), "label-format");
        let imported = vault.cmac_import(label, BlockCipher::Aes, kek(16));
        assert_eq!(refused(imported), "label-format");
    }
    assert_eq!(stage.labels(), ["one", "two"]);
}

fn kinds_are_apart(stage: &Stage) {
    let vault = &stage.vault;
    vault.rsa_generate("rsa", RsaUse::Sign, BITS).unwrap();
    vault.storage_key("aes").unwrap();
    assert_eq!(refused(vault.rsa_open("aes")), "key-kind");
    assert_eq!(refused(vault.rsa_delete("aes")), "key-kind");
    assert_eq!(refused(vault.cmac_open("rsa")), "key-kind");
    assert_eq!(refused(vault.cmac_delete("rsa")), "key-kind");
    assert_eq!(refused(vault.storage_key("rsa")), "key-kind");
    assert_eq!(stage.labels(), ["aes", "rsa"]);
}

fn bad_input(stage: &Stage) {
    let vault = &stage.vault;
    assert_eq!(refused(vault.rsa_open("absent")), "label-unknown");
    assert_eq!(refused(vault.cmac_open("absent")), "label-unknown");
    for length in [0, 8, 15, 33] {
        for cipher in [BlockCipher::Aes, BlockCipher::Tdes] {
            assert_eq!(refused(vault.cmac_import("bad", cipher, kek(length))), "key-length");
        }
    }
    let tdes = vault.cmac_import("bad", BlockCipher::Tdes, kek(32));
    assert_eq!(refused(tdes), "key-length");
    assert!(stage.labels().is_empty());
}

fn random_bytes(stage: &Stage) {
    let one = stage.vault.random(32).unwrap();
    assert_eq!(one.len(), 32);
    assert!(!one.ct_eq(stage.vault.random(32).unwrap().expose()));
    assert_eq!(stage.vault.random(RANDOM_MAX).unwrap().len(), RANDOM_MAX);
    assert_eq!(refused(stage.vault.random(0)), "random-length");
    assert_eq!(refused(stage.vault.random(RANDOM_MAX + 1)), "random-length");
    assert!(!stage.vault.describe().unwrap().to_string().is_empty());
}

fn threads_share(stage: &Stage) {
    let signing = stage.vault.rsa_generate("kdh", RsaUse::Sign, BITS).unwrap();
    let held = stage.vault.cmac_import("kek", BlockCipher::Aes, kek(32)).unwrap();
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (signing, held, vault) = (&signing, &held, &stage.vault);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let message = [number, round];
                    verifies(&**signing, &message);
                    computes_like(&**held, &kek(32));
                    vault.random(16).unwrap();
                    let storage = vault.storage_key("storage").unwrap();
                    let block = wrap(Kbpk::Held(&*storage), &Secret::copied_from(&[number; 16]));
                    unwraps(Kbpk::Held(&*storage), block.as_bytes(), &[number; 16]);
                }
            });
        }
    });
    assert_eq!(stage.labels(), ["kdh", "kek", "storage"], "one storage key, whoever came first");
}
