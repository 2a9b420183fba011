use std::time::Duration;

use countersign_crypto::{Secret, UnixTime};
use tr31::{Header, OptionalBlock, OptionalId, Version};

use super::fixture::{
    DAY, Holder, KRD_3072, KRD_4096, NOW, WORLD, aes_header, aes_key, asked, krd, policy, prepared,
    receiver, receiver_of, rng, sender, tdes_header, tdes_key,
};
use crate::kdh::{self, KeyOrder};
use crate::krd::{Policy, Receiver, State};
use crate::token::{ContentCipher, CtKrd, Freshness, KtKdh, RtKrd};
use crate::{AttributeOrder, Dialect, Error, Leniency, aws_lc::AwsLc};

fn deliver(receiver: &Receiver<'_>, holder: &Holder, terms: (ContentCipher, &Header, &Secret)) {
    let (state, freshness) = asked(receiver);
    let (cipher, header, key) = terms;
    let order = KeyOrder { krd: &krd(holder), freshness: &freshness, cipher, header, key };
    let sender = sender(receiver.policy.dialect);
    let token = sender.key_token(&mut rng(5), &order).unwrap().sign(&WORLD.kdh.key).unwrap();
    let verified = receiver.receive(&state, &token, NOW).unwrap();
    assert_eq!(verified.header().usage, header.usage);
    let installed = verified.install();
    assert!(installed.key.ct_eq(key.expose()));
    assert!(installed.kcv.is_some());
    assert_eq!(installed.state.outstanding(), None);
    let again = receiver.receive(&installed.state, &token, NOW).unwrap_err();
    assert_eq!((again.error, again.state), (Error::NonceAbsent, None), "single use");
}

#[test]
fn every_dialect_carries_tdes_and_aes_in_both_content_ciphers() {
    for (name, dialect) in Dialect::NAMED {
        let policy = policy(dialect);
        let tdes = (&tdes_header(), &tdes_key());
        for cipher in [ContentCipher::Tdes, ContentCipher::Aes128] {
            println!("{name} {}", cipher.name());
            deliver(&receiver(policy), &WORLD.krd, (cipher, tdes.0, tdes.1));
        }
        let aes = (ContentCipher::Aes128, &aes_header(), &aes_key());
        deliver(&receiver_of(&KRD_3072, policy), &KRD_3072, aes);
    }
    let aes = (ContentCipher::Aes128, &aes_header(), &aes_key());
    deliver(&receiver_of(&KRD_4096, Policy::STRICT), &KRD_4096, aes);
}

#[test]
fn switches_are_separate() {
    let own = Dialect { attributes: AttributeOrder::Sorted, ..Dialect::ERRATA_2019 };
    let terms = (ContentCipher::Aes128, &tdes_header(), &tdes_key());
    deliver(&receiver(policy(own)), &WORLD.krd, terms);
    let (state, freshness) = asked(&receiver(policy(own)));
    let token = prepared(own, &freshness).sign(&WORLD.kdh.key).unwrap();
    let refused = receiver(policy(Dialect::ERRATA_2019)).receive(&state, &token, NOW).unwrap_err();
    assert_eq!(refused.error.check(), "dialect-attribute-order");
}

#[test]
fn each_dialect_is_refused_by_a_reader_that_was_told_another() {
    for (written, writing) in Dialect::NAMED {
        for (told, reading) in Dialect::NAMED {
            let (_, freshness) = asked(&receiver(policy(writing)));
            let token = prepared(writing, &freshness).sign(&WORLD.kdh.key).unwrap();
            let (state, _) = asked(&receiver(policy(reading)));
            let read = receiver(policy(reading)).receive(&state, &token, NOW);
            if writing == reading {
                read.unwrap();
                continue;
            }
            let refused = read.unwrap_err().error;
            assert!(matches!(refused, Error::Dialect(_)), "{written} read as {told}: {refused}");
            assert!(refused.check().starts_with("dialect-"));
        }
    }
}

#[test]
fn what_fits_a_token_is_told() {
    for (name, dialect) in Dialect::NAMED {
        let (_, freshness) = asked(&receiver(policy(dialect)));
        let token = prepared(dialect, &freshness).sign(&WORLD.kdh.key).unwrap();
        let (_, observed) = KtKdh::parse(&token).unwrap().enveloped().unwrap();
        assert_eq!(observed.fits(), [name]);
    }
}

#[test]
fn an_initial_key_comes_with_its_serial_number() {
    let ksn = OptionalBlock::new(OptionalId::KS, "FFFF9876543210E00000");
    let mut header = Header::new(Version::B, *b"B1", b'T', b'X', b'N');
    header.optional.push(ksn);
    for (_, dialect) in Dialect::NAMED {
        let terms = (ContentCipher::Tdes, &header, &tdes_key());
        deliver(&receiver(policy(dialect)), &WORLD.krd, terms);
    }
}

#[test]
fn a_token_from_before_the_binding_is_old() {
    let receiver = receiver(Policy { one_pass: true, ..Policy::STRICT });
    let (state, _) = asked(&receiver);
    for (age, taken) in [(Duration::from_mins(6), false), (Duration::from_mins(4), true)] {
        let freshness = Freshness::OnePass(NOW.minus(age));
        let token = prepared(Dialect::STRICT, &freshness).sign(&WORLD.kdh.key).unwrap();
        assert_eq!(receiver.receive(&state, &token, NOW).is_ok(), taken, "{age:?}");
    }
}

#[test]
fn one_pass_wants_a_later_time_each_time() {
    let receiver = receiver(Policy { one_pass: true, ..Policy::STRICT });
    let (mut state, _) = asked(&receiver);
    let token_at = |at: UnixTime| {
        prepared(Dialect::STRICT, &Freshness::OnePass(at)).sign(&WORLD.kdh.key).unwrap()
    };
    let first = token_at(NOW);
    state = receiver.receive(&state, &first, NOW).unwrap().install().state;
    assert!(state.outstanding().is_some(), "another request still waits");
    let refusal = |state: &State, token: &[u8], now: UnixTime| {
        let refused = receiver.receive(state, token, now).unwrap_err();
        assert_eq!(refused.state, None);
        refused.error.check()
    };
    assert_eq!(refusal(&state, &first, NOW), "signing-time-old");
    let earlier = token_at(NOW.minus(DAY));
    assert_eq!(refusal(&state, &earlier, NOW), "signing-time-old");
    assert_eq!(refusal(&state, &token_at(NOW.plus(DAY)), NOW), "signing-time-future");
    let second = token_at(UnixTime::from_secs(NOW.as_secs() + 1));
    let state = receiver.receive(&state, &second, NOW).unwrap().install().state;
    // Unbinding and binding again does not bring an old token back.
    let bytes = state.to_bytes();
    let state = State::from_bytes(&bytes, Leniency::STRICT).unwrap();
    assert_eq!(refusal(&state, &second, NOW), "signing-time-old");
    let strict = super::fixture::receiver(Policy::STRICT);
    let refused = strict.receive(&state, &second, NOW).unwrap_err();
    assert_eq!(refused.error.check(), "token-one-pass");
}

#[test]
fn a_receiver_is_known_by_its_credential() {
    let token = CtKrd { certificate: WORLD.krd.certificate.raw() }.encode();
    let of = |token: &[u8], ca: &Holder, crl: Option<&crate::Crl>, now: UnixTime| {
        kdh::receiver(&AwsLc, token, &ca.certificate, crl, Leniency::STRICT, now)
    };
    let known = of(&token, &WORLD.ca_krd, None, NOW).unwrap();
    assert_eq!(known.id(), Some("POS-1"));
    let check = |result: Result<crate::Krd, Error>| result.unwrap_err().check();
    assert_eq!(check(of(&token, &WORLD.ca_kdh, None, NOW)), "certificate-issuer");
    let late = NOW.plus(DAY * 365 * 3);
    assert_eq!(check(of(&token, &WORLD.ca_krd, None, late)), "certificate-expired");
    let kdh = CtKrd { certificate: WORLD.kdh.certificate.raw() }.encode();
    assert_eq!(check(of(&kdh, &WORLD.ca_kdh, None, NOW)), "certificate-issuer-role");
    let listed = super::fixture::crl(&WORLD.ca_krd, 1, NOW, &[&WORLD.krd.certificate]);
    let listed = crate::Crl::parse(&listed).unwrap();
    assert_eq!(check(of(&token, &WORLD.ca_krd, Some(&listed), NOW)), "certificate-revoked");
    let with_crl = sender(Dialect::STRICT).credential();
    assert_eq!(check(of(&with_crl, &WORLD.ca_krd, None, NOW)), "token-crls");
    let longer = [&token[..], &[0]].concat();
    assert_eq!(check(of(&longer, &WORLD.ca_krd, None, NOW)), "token-trailing");
}

#[test]
fn a_sender_makes_no_token_for_an_unfit_key_or_with_a_weak_wrapping() {
    let nonce = RtKrd::parse(
        &asked(&receiver(Policy::STRICT))
            .0
            .outstanding()
            .map_or_else(Vec::new, |it| RtKrd { nonce: it.nonce.clone() }.encode()),
    );
    let freshness = Freshness::TwoPass(nonce.unwrap().nonce);
    let refusal = |holder: &Holder, cipher, header: &Header, key: &Secret| {
        let order = KeyOrder { krd: &krd(holder), freshness: &freshness, cipher, header, key };
        let made = sender(Dialect::STRICT).key_token(&mut rng(6), &order);
        made.map(|_| ()).map_err(|error| error.check())
    };
    let (tdes, aes) = (ContentCipher::Tdes, ContentCipher::Aes128);
    let weak = Err("wrapping-key-weaker");
    assert_eq!(refusal(&WORLD.krd, aes, &aes_header(), &aes_key()), weak, "RSA-2048");
    assert_eq!(refusal(&KRD_3072, tdes, &aes_header(), &aes_key()), weak, "TDES");
    assert_eq!(refusal(&KRD_3072, aes, &aes_header(), &aes_key()), Ok(()));
    let long = Secret::copied_from(&[5; 32]);
    assert_eq!(refusal(&KRD_4096, aes, &aes_header(), &long), weak, "AES-256");
    assert_eq!(refusal(&WORLD.krd, tdes, &aes_header(), &tdes_key()), weak, "AES-192");
    let equal = Secret::copied_from(&[0x31; 16]);
    assert_eq!(refusal(&WORLD.krd, tdes, &tdes_header(), &equal), Err("des-equal-halves"));
    let mut other = tdes_header();
    other.optional.push(OptionalBlock::new(OptionalId::KC, "00000000"));
    assert_eq!(refusal(&WORLD.krd, tdes, &other, &tdes_key()), Err("kcv"), "another key's");
    let part = Header { key_version: *b"c1", ..tdes_header() };
    assert_eq!(refusal(&WORLD.krd, tdes, &part, &tdes_key()), Err("key-component"));
    let wrong = Header { usage: *b"M7", ..tdes_header() };
    assert_eq!(refusal(&WORLD.krd, tdes, &wrong, &tdes_key()), Err("usage-algorithm"));
}

#[test]
fn old_fleets_may_be_served_by_name_only() {
    let freshness = asked(&receiver(Policy::STRICT)).1;
    let order = KeyOrder {
        krd: &krd(&WORLD.krd),
        freshness: &freshness,
        cipher: ContentCipher::Aes128,
        header: &aes_header(),
        key: &aes_key(),
    };
    let sender = kdh::Sender { weaker_wrapping: true, ..sender(Dialect::STRICT) };
    let token = sender.key_token(&mut rng(7), &order).unwrap().sign(&WORLD.kdh.key).unwrap();
    let strict = receiver(Policy::STRICT);
    let (state, _) = asked(&strict);
    let refused = strict.receive(&state, &token, NOW).unwrap_err();
    assert_eq!(refused.error.check(), "wrapping-key-weaker");
    let old = receiver(Policy { weaker_wrapping: true, ..Policy::STRICT });
    assert!(old.receive(&state, &token, NOW).unwrap().install().key.ct_eq(aes_key().expose()));
}

#[test]
fn only_the_right_key_signs_and_only_once() {
    let freshness = asked(&receiver(Policy::STRICT)).1;
    let token = prepared(Dialect::STRICT, &freshness);
    assert_eq!(token.signer(), WORLD.kdh.certificate.identity());
    assert_eq!(token.sign(&WORLD.krd.key).unwrap_err(), Error::KeyMismatch);
}

#[test]
fn the_header_carries_its_own_length() {
    let freshness = asked(&receiver(Policy::STRICT)).1;
    let token = prepared(Dialect::STRICT, &freshness).sign(&WORLD.kdh.key).unwrap();
    assert_eq!(KtKdh::parse(&token).unwrap().header, b"B0016K0TB00S0000");
}
