//! What must be refused, for every provider, in the manner of Wycheproof: each case differs from
//! something good in one point.

use countersign_crypto::{CryptoError, Domain, ENCRYPTED_TEXT_MAX, Provider, Secret, Suite, sm};

use crate::support::{bytes, providers, rng};

const REFUSED: CryptoError = CryptoError::BadAuthentication;

/// A DER element with a short length.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag, u8::try_from(content.len()).unwrap()], content].concat()
}

/// A DER INTEGER, not negative, in its shortest form.
fn integer(magnitude: &[u8]) -> Vec<u8> {
    let digits = &magnitude[magnitude.iter().take_while(|byte| **byte == 0).count()..];
    match digits.first() {
        Some(first) if *first < 0x80 => element(2, digits),
        _ => element(2, &[&[0], digits].concat()), // zero too has one octet
    }
}

/// The two numbers of a signature, 32 bytes each.
fn numbers(signature: &[u8]) -> [Vec<u8>; 2] {
    let first = 4 + usize::from(signature[3]);
    [&signature[4..first], &signature[first + 2..]].map(|content| {
        let digits = &content[usize::from(content[0] == 0)..];
        [&vec![0; 32 - digits.len()][..], digits].concat()
    })
}

/// `a + b` of 32 bytes each, with the carry in front.
fn sum(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut carry = 0;
    let mut digits: Vec<u8> = a
        .iter()
        .zip(b)
        .rev()
        .map(|(a, b)| {
            let digit = u16::from(*a) + u16::from(*b) + carry;
            carry = digit >> 8;
            digit as u8
        })
        .collect();
    digits.push(carry as u8);
    digits.reverse();
    digits
}

fn order(suite: Suite) -> Vec<u8> {
    bytes(match suite {
        Suite::SM2_SM4GCM_SM3 => "fffffffeffffffffffffffffffffffff7203df6b21c6052b53bbf40939d54123",
        _ => "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
    })
}

/// What is no signature, though made of the numbers of one.
fn not_signatures(good: &[u8], order: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let [r, s] = numbers(good);
    let sequence = |content: &[&[u8]]| element(0x30, &content.concat());
    let of = |r: &[u8], s: &[u8]| sequence(&[&integer(r), &integer(s)]);
    let (der_r, der_s) = (integer(&r), integer(&s));
    let (zero, one) = ([0; 32], [&[0; 31][..], &[1]].concat());
    let content = &good[2..];
    let padded = |number: &[u8]| element(2, &[&[0, 0], number].concat());
    let negative = |number: &[u8]| element(2, &[&[number[0] | 0x80], &number[1..]].concat());
    assert_eq!(of(&r, &s), good, "the numbers are those of the signature");
    vec![
        ("nothing", Vec::new()),
        ("one byte", vec![0x30]),
        ("an empty sequence", sequence(&[])),
        ("r zero", of(&zero, &s)),
        ("s zero", of(&r, &zero)),
        ("both zero", of(&zero, &zero)),
        ("both one", of(&one, &one)),
        ("r = n", of(order, &s)),
        ("s = n", of(&r, order)),
        ("both n", of(order, order)),
        ("r = n + 1", of(&sum(order, &one), &s)),
        ("s = n + 1", of(&r, &sum(order, &one))),
        ("r + n", of(&sum(&r, order), &s)),
        ("s + n", of(&r, &sum(&s, order))),
        ("r of 33 bytes", of(&[&[1], &r[..]].concat(), &s)),
        ("s of 33 bytes", of(&r, &[&[1], &s[..]].concat())),
        ("r = -1", sequence(&[&element(2, &[0xff]), &der_s])),
        ("s = -1", sequence(&[&der_r, &element(2, &[0xff])])),
        ("r negative", sequence(&[&negative(&r), &der_s])),
        ("s negative", sequence(&[&der_r, &negative(&s)])),
        ("r with more zeros", sequence(&[&padded(&r), &der_s])),
        ("s with more zeros", sequence(&[&der_r, &padded(&s)])),
        ("r without content", sequence(&[&element(2, &[]), &der_s])),
        ("s without content", sequence(&[&der_r, &element(2, &[])])),
        ("only r", sequence(&[&der_r])),
        ("three numbers", sequence(&[&der_r, &der_s, &der_s])),
        ("a null within", sequence(&[&der_r, &der_s, &[5, 0]])),
        ("a null behind", [good, &[5, 0]].concat()),
        ("a zero behind", [good, &[0]].concat()),
        ("cut", good[..good.len() - 1].to_vec()),
        ("exchanged", of(&s, &r)),
        ("a set", element(0x31, content)),
        ("an octet string", element(4, content)),
        ("a context tag", element(0xa0, content)),
        ("a bit string as r", sequence(&[&element(3, &der_r[2..]), &der_s])),
        ("an octet string as s", sequence(&[&der_r, &element(4, &der_s[2..])])),
        ("a long length", [&[0x30, 0x81, good[1]], content].concat()),
        ("a longer length", [&[0x30, 0x82, 0, good[1]], content].concat()),
        ("an indefinite length", [&[0x30, 0x80], content, &[0, 0]].concat()),
        ("a huge length", [&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], content].concat()),
        ("a long length of r", sequence(&[&[2, 0x81], &der_r[1..], &der_s])),
        ("raw", [&r[..], &s[..]].concat()),
        ("a sequence in a sequence", element(0x30, good)),
    ]
}

#[test]
fn what_is_no_signature_does_not_verify() {
    for provider in providers() {
        let suite = provider.suite;
        let mut rng = rng();
        let key = provider.signature.generate(&mut rng).unwrap().key;
        let verifier = provider.signature.public_key(key.public_key()).unwrap();
        let good = key.sign(&mut rng, b"message").unwrap();
        assert_eq!(verifier.verify(b"message", &good), Ok(()), "{suite}");
        for (what, bad) in not_signatures(&good, &order(suite)) {
            assert_eq!(verifier.verify(b"message", &bad), Err(REFUSED), "{what}, {suite}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            assert_eq!(verifier.verify(b"message", &bad), Err(REFUSED), "byte {at}, {suite}");
            assert_eq!(verifier.verify(b"message", &good[..at]), Err(REFUSED), "cut {at}");
        }
        for message in [&b""[..], b"messagf", b"message\0", b"messag"] {
            assert_eq!(verifier.verify(message, &good), Err(REFUSED), "{message:?}, {suite}");
        }
        let other = provider.signature.generate(&mut rng).unwrap().key;
        let other = provider.signature.public_key(other.public_key()).unwrap();
        assert_eq!(other.verify(b"message", &good), Err(REFUSED), "another key, {suite}");
    }
}

/// SM2 signs under an id per domain. ECDSA has none: there the signed bytes name their domain.
#[test]
fn sm2_signatures_hold_in_their_domain() {
    let provider = sm::provider();
    let key = provider.signature.generate(&mut rng()).unwrap().key;
    let verifier = provider.signature.public_key(key.public_key()).unwrap();
    let domains = [Domain::Document, Domain::Handshake];
    for signed in domains {
        let signature = key.sign_in(&mut rng(), signed, b"message").unwrap();
        for verified in domains {
            let wanted = if signed == verified { Ok(()) } else { Err(REFUSED) };
            assert_eq!(verifier.verify_in(verified, b"message", &signature), wanted);
        }
    }
}

#[test]
fn what_was_sealed_otherwise_does_not_open() {
    let (nonce, aad) = (*b"twelve bytes", b"who and what");
    for provider in providers() {
        let suite = provider.suite;
        let aead = provider.aead.key(&Secret::copied_from(&[7; 16])).unwrap();
        for text in [&b""[..], b"x", &[0xa5; 47]] {
            let mut sealed = text.to_vec();
            aead.seal(&nonce, aad, &mut sealed).unwrap();
            let open =
                |nonce: &[u8; 12], aad: &[u8], mut data: Vec<u8>| aead.open(nonce, aad, &mut data);
            assert_eq!(open(&nonce, aad, sealed.clone()), Ok(()));
            for at in 0..sealed.len() {
                let mut bad = sealed.clone();
                bad[at] ^= 1 << (at % 8);
                assert_eq!(open(&nonce, aad, bad), Err(REFUSED), "byte {at}, {suite}");
                assert_eq!(open(&nonce, aad, sealed[..at].to_vec()), Err(REFUSED), "cut {at}");
            }
            for at in 0..nonce.len() {
                let mut other = nonce;
                other[at] ^= 1;
                assert_eq!(open(&other, aad, sealed.clone()), Err(REFUSED), "nonce {at}");
            }
            for other in [&b""[..], b"who and wha", b"who and whbt", b"who and what\0"] {
                assert_eq!(open(&nonce, other, sealed.clone()), Err(REFUSED), "{other:?}");
            }
            assert_eq!(open(&nonce, aad, [&sealed[..], &[0]].concat()), Err(REFUSED));
            let other = provider.aead.key(&Secret::copied_from(&[8; 16])).unwrap();
            assert_eq!(other.open(&nonce, aad, &mut sealed.clone()), Err(REFUSED), "key");
            // A refusal leaves the key as it was.
            assert_eq!(open(&nonce, aad, sealed), Ok(()));
        }
        for len in [0, 15, 17, 32] {
            let error = provider.aead.key(&Secret::new(vec![1; len])).err();
            assert_eq!(error, Some(CryptoError::InvalidKey), "{len}, {suite}");
        }
    }
}

/// The four elements of an SM2 ciphertext (GM/T 0009 §7.2).
fn parts(sealed: &[u8]) -> [&[u8]; 4] {
    let mut rest = &sealed[if sealed[1] < 0x80 { 2 } else { 3 }..];
    [(); 4].map(|()| {
        let (first, tail) = rest.split_at(2 + usize::from(rest[1]));
        rest = tail;
        first
    })
}

fn sm2_sealed(provider: &Provider) -> (Vec<u8>, impl Fn(&[u8]) -> Option<CryptoError> + use<>) {
    let scheme = provider.encryption.as_ref().unwrap();
    let key = scheme.generate(&mut rng()).unwrap().key;
    let sealed = scheme.encrypt(&mut rng(), key.public_key(), b"sixteen bytes ok").unwrap();
    (sealed, move |data| key.decrypt(data).err())
}

#[test]
fn what_was_not_encrypted_to_a_key_does_not_decrypt() {
    let provider = sm::provider();
    let (sealed, decrypt) = sm2_sealed(&provider);
    assert_eq!(decrypt(&sealed), None);
    for at in 0..sealed.len() {
        for bit in 0..8 {
            let mut bad = sealed.clone();
            bad[at] ^= 1 << bit;
            assert_eq!(decrypt(&bad), Some(REFUSED), "byte {at}, bit {bit}");
        }
        assert_eq!(decrypt(&sealed[..at]), Some(REFUSED), "cut {at}");
    }
    let [x, y, c3, c2] = parts(&sealed);
    let whole = |parts: &[&[u8]]| element(0x30, &parts.concat());
    assert_eq!(whole(&[x, y, c3, c2]), sealed);
    let zero = element(2, &[0]);
    let bad = [
        ("exchanged coordinates", whole(&[y, x, c3, c2])),
        ("C1 C2 C3", whole(&[x, y, c2, c3])),
        ("the point (0, 0)", whole(&[&zero, &zero, c3, c2])),
        ("x alone", whole(&[x, c3, c2])),
        ("no text", whole(&[x, y, c3, &element(4, &[])])),
        ("a short C3", whole(&[x, y, &element(4, &c3[2..33]), c2])),
        ("a long C3", whole(&[x, y, &element(4, &[&c3[2..], &[0]].concat()), c2])),
        ("one byte less", whole(&[x, y, c3, &element(4, &c2[2..c2.len() - 1])])),
        ("one byte more", whole(&[x, y, c3, &element(4, &[&c2[2..], &[0]].concat())])),
        ("something within", whole(&[x, y, c3, c2, &[5, 0]])),
        ("something behind", [&sealed[..], &[0]].concat()),
        ("x with more zeros", whole(&[&element(2, &[&[0, 0], &x[2..]].concat()), y, c3, c2])),
        ("a set", element(0x31, &[x, y, c3, c2].concat())),
        ("a long length", [&[0x30, 0x81], &sealed[1..]].concat()),
        ("raw", [&[4], &x[x.len() - 32..], &y[y.len() - 32..], &c3[2..], &c2[2..]].concat()),
        ("nothing", Vec::new()),
    ];
    for (what, bad) in bad {
        assert_eq!(decrypt(&bad), Some(REFUSED), "{what}");
    }
    let scheme = provider.encryption.unwrap();
    let other = scheme.generate(&mut crate::support::Example::new(&[1; 32])).unwrap().key;
    assert_eq!(other.decrypt(&sealed).err(), Some(REFUSED), "another key");
}

#[test]
fn encrypted_texts_have_their_lengths() {
    let scheme = sm::provider().encryption.unwrap();
    let mut rng = rng();
    let made = scheme.generate(&mut rng).unwrap();
    let key = scheme.load_pkcs8(&made.pkcs8).unwrap();
    for len in [1, 31, 32, 33, ENCRYPTED_TEXT_MAX] {
        let text = vec![0xc3; len];
        let sealed = scheme.encrypt(&mut rng, made.key.public_key(), &text).unwrap();
        assert_eq!(key.decrypt(&sealed).unwrap().expose(), text, "{len}");
    }
    for len in [0, ENCRYPTED_TEXT_MAX + 1] {
        let error = scheme.encrypt(&mut rng, key.public_key(), &vec![1; len]).err();
        assert_eq!(error, Some(CryptoError::TooLong), "{len}");
    }
}
