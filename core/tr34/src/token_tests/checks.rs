//! One refusal for each check of the receiver: a sound token with one fault, signed as it is.

mod envelope;

use std::time::Duration;

use countersign_crypto::{Secret, UnixTime};
use tr31::{BlockCipher, Ciphers};

use super::fixture::{
    CIPHERS, CRL, DAY, Holder, KRD_3072, NOW, WORLD, asked, crl, krd, policy, prepared, receiver,
    rng, sender, tdes_header, tdes_key,
};
use crate::dialect::OaepForm;
use crate::kdh::KeyOrder;
use crate::krd::{CLOCK_SKEW_MAX, Policy, Receiver, State};
use crate::reader::{tag, tlv};
use crate::token::algorithm::{ID_DATA, ID_ENVELOPED_DATA, oaep, sha256};
use crate::token::attributes::{
    CONTENT_TYPE, MESSAGE_DIGEST, RANDOM_NONCE, SIGNING_TIME, attribute,
};
use crate::token::{
    ContentCipher, Enveloped, Freshness, KeyBlock, Nonce, Sealing, Signing, TOKEN_MAX,
};
use crate::{Dialect, IssuerAndSerial, Observed, Rsa, RsaKey, aws_lc::AwsLc};

const STRICT: Dialect = Dialect::STRICT;

/// A request, and a sound answer to it before it is signed.
struct Sound {
    receiver: Receiver<'static>,
    state: State,
    freshness: Freshness,
}

impl Sound {
    fn new() -> Self {
        let receiver = receiver(Policy::STRICT);
        let (state, freshness) = asked(&receiver);
        Self { receiver, state, freshness }
    }

    fn signing(&self) -> Signing {
        prepared(STRICT, &self.freshness).signing
    }

    fn nonce(&self) -> &Nonce {
        match &self.freshness {
            Freshness::TwoPass(nonce) => nonce,
            Freshness::OnePass(_) => panic!("two passes"),
        }
    }

    fn token(&self) -> Vec<u8> {
        signed(&self.signing(), &WORLD.kdh.key)
    }

    /// The token with another envelope.
    fn with_content(&self, content: Vec<u8>) -> Vec<u8> {
        self.with_header(content, b"B0016K0TB00S0000")
    }

    fn with_header(&self, content: Vec<u8>, header: &[u8]) -> Vec<u8> {
        let attributes = self.attributes(ID_ENVELOPED_DATA, &content, header);
        let signing = Signing { content, ..self.signing() };
        signed(&with_attributes(signing, attributes), &WORLD.kdh.key)
    }

    /// The attributes of a sound token around this content.
    fn attributes(&self, content_type: &[u8], content: &[u8], header: &[u8]) -> Vec<Vec<u8>> {
        let digest = AwsLc.sha256(content);
        vec![
            attribute(CONTENT_TYPE, &tlv(tag::OID, &[content_type])),
            attribute(RANDOM_NONCE, &tlv(tag::OCTET_STRING, &[self.nonce().as_bytes()])),
            attribute(ID_DATA, &tlv(tag::OCTET_STRING, &[header])),
            attribute(MESSAGE_DIGEST, &tlv(tag::OCTET_STRING, &[&digest])),
        ]
    }

    /// The token with other attributes around the sound content.
    fn with(&self, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<u8> {
        let signing = self.signing();
        let mut attributes =
            self.attributes(ID_ENVELOPED_DATA, &signing.content, b"B0016K0TB00S0000");
        change(&mut attributes);
        signed(&with_attributes(signing, attributes), &WORLD.kdh.key)
    }

    fn refusal(&self, token: &[u8]) -> (&'static str, Option<State>) {
        self.refusal_at(token, NOW)
    }

    fn refusal_at(&self, token: &[u8], now: UnixTime) -> (&'static str, Option<State>) {
        let refused = self.receiver.receive(&self.state, token, now).unwrap_err();
        assert_eq!(refused.error.outside().check(), "authentication");
        match self.receiver.check(&self.state, token, now) {
            Ok(state) => assert_eq!(Some(state), refused.state.as_deref().cloned()),
            Err(earlier) => assert_eq!(earlier, refused),
        }
        (refused.error.check(), refused.state.map(|state| *state))
    }

    /// Refused before the random number counts: nothing changes.
    fn unchanged(&self, token: &[u8], check: &str) {
        assert_eq!(self.refusal(token), (check, None));
    }

    /// Refused after it: the random number is used up, and nothing else changes.
    fn spent(&self, token: &[u8], check: &str) {
        let (found, state) = self.refusal(token);
        assert_eq!(found, check);
        let state = state.unwrap();
        assert_eq!(state.outstanding(), None, "{check}");
        assert_eq!(state.kdh(), self.state.kdh(), "{check}");
        let again = self.receiver.receive(&state, &self.token(), NOW).unwrap_err();
        assert_eq!(again.error.check(), "nonce-absent", "{check}");
    }
}

fn signed(signing: &Signing, key: &dyn RsaKey) -> Vec<u8> {
    signing.token(&key.sign(signing.message()).unwrap())
}

fn with_attributes(signing: Signing, mut list: Vec<Vec<u8>>) -> Signing {
    list.sort_unstable();
    let parts: Vec<&[u8]> = list.iter().map(Vec::as_slice).collect();
    Signing { attributes: Some(tlv(tag::SET, &parts)), ..signing }
}

/// Replaces one run of octets, which must be there once.
fn replaced(token: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at: Vec<usize> =
        (0..=token.len() - from.len()).filter(|at| token[*at..].starts_with(from)).collect();
    assert_eq!(at.len(), 1, "it is there once");
    let mut token = token.to_vec();
    token[at[0]..at[0] + to.len()].copy_from_slice(to);
    token
}

#[test]
fn the_sound_token_is_taken() {
    let sound = Sound::new();
    sound.receiver.receive(&sound.state, &sound.token(), NOW).unwrap();
    let again = sound.with(|_| {});
    sound.receiver.receive(&sound.state, &again, NOW).unwrap();
}

/// A SignedData from its parts.
fn assembled(parts: &[&[u8]]) -> Vec<u8> {
    let signed_data: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
    let explicit = tlv(0xa0, &[&tlv(tag::SEQUENCE, parts)]);
    tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[signed_data]), &explicit])
}

#[test]
fn structure() {
    let sound = Sound::new();
    let token = sound.token();
    sound.unchanged(&vec![0x30; TOKEN_MAX + 1], "token-too-long");
    sound.unchanged(&[], "token-malformed");
    sound.unchanged(&token[..token.len() - 1], "token-malformed");
    sound.unchanged(&[&token[..], &[0]].concat(), "token-trailing");

    // The parts of the sound token: version, digests, content, lists, signers.
    let mut inside =
        crate::reader::Walker::single(&token, tag::SEQUENCE).unwrap().inside().unwrap();
    inside.any().unwrap();
    let explicit = inside.any().unwrap().inside().unwrap().any().unwrap();
    let mut walker = explicit.inside().unwrap();
    let parts: Vec<&[u8]> = (0..5).map(|_| walker.any().unwrap().whole).collect();
    let [version, digests, content, lists, signers] = parts[..] else { panic!("five parts") };
    assert_eq!(assembled(&parts), token);
    let mut info = crate::reader::Walker::single(&token, tag::SEQUENCE).unwrap().inside().unwrap();
    let oid = info.any().unwrap().whole;
    let longer = tlv(tag::SEQUENCE, &[oid, &tlv(0xa0, &[explicit.whole]), &[5, 0]]);
    sound.unchanged(&longer, "token-trailing");
    let longer = tlv(tag::SEQUENCE, &[oid, &tlv(0xa0, &[explicit.whole, &[5, 0]])]);
    sound.unchanged(&longer, "token-trailing");
    let signer = &signers[4..];
    let refused = |parts: &[&[u8]], check: &str| sound.unchanged(&assembled(parts), check);
    let twice = tlv(tag::SET, &[signer, signer]);
    refused(&[version, digests, content, lists, &twice], "token-signers");
    refused(&[version, digests, content, lists, &[tag::SET, 0]], "token-signers");
    let certificate = tlv(0xa0, &[WORLD.kdh.certificate.raw()]);
    refused(&[version, digests, content, &certificate, lists, signers], "token-certificates");
    let two = tlv(0xa0, &[WORLD.kdh.certificate.raw(), WORLD.kdh.certificate.raw()]);
    refused(&[version, digests, content, &two, lists, signers], "token-certificates");
    let two = tlv(0xa1, &[&CRL, &CRL]);
    refused(&[version, digests, content, &two, signers], "token-crls");
    refused(&[version, digests, content, lists, signers, lists], "token-crls");
    refused(&[version, digests, content, signers, lists], "token-malformed");
    refused(&[version, digests, content, signers], "crl-absent");
    refused(&[&[2, 1, 2], digests, content, lists, signers], "token-malformed");
    refused(&[&[2, 1, 1], digests, content, lists, signers], "dialect-version");
    refused(&[version, digests, content, lists, signers, &[5, 0]], "token-trailing");
    let five = tlv(tag::SET, &[&sha256().repeat(5)]);
    refused(&[version, &five, content, lists, signers], "token-too-many");
    let sha1: &[u8] = &[0x30, 7, 6, 5, 0x2b, 0x0e, 3, 2, 0x1a];
    refused(&[version, &tlv(tag::SET, &[sha1]), content, lists, signers], "token-algorithm");
    let data = tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[ID_DATA])]);
    refused(&[&[2, 1, 1], digests, &data, lists, signers], "token-content-type");
    let empty = tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[ID_ENVELOPED_DATA])]);
    refused(&[version, digests, &empty, lists, signers], "token-malformed");

    // In the signer: its version, an unsigned attribute.
    let inside = crate::reader::Walker::single(signer, tag::SEQUENCE).unwrap().content;
    let of = |inside: &[u8]| tlv(tag::SET, &[&tlv(tag::SEQUENCE, &[inside])]);
    let unsigned = of(&[inside, &[0xa1, 0]].concat());
    refused(&[version, digests, content, lists, &unsigned], "token-trailing");
    let set = tlv(tag::SET, &[&tlv(tag::SET, &[inside])]);
    refused(&[version, digests, content, lists, &set], "token-malformed");
    let third = of(&[&[2, 1, 3], &inside[3..]].concat());
    refused(&[version, digests, content, lists, &third], "token-malformed");
}

#[test]
fn algorithms_of_the_signer() {
    let sound = Sound::new();
    let token = sound.token();
    let sha256_with_rsa: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11, 5, 0, 4, 0x82];
    let mut other = sha256_with_rsa.to_vec();
    other[8] = 10; // PSS
    sound.unchanged(&replaced(&token, sha256_with_rsa, &other), "token-algorithm");
    other[8] = 1; // rsaEncryption, of another dialect
    sound.unchanged(&replaced(&token, sha256_with_rsa, &other), "dialect-signature");
}

#[test]
fn revocation_list() {
    let sound = Sound::new();
    let with =
        |list: Option<Vec<u8>>| signed(&Signing { crl: list, ..sound.signing() }, &WORLD.kdh.key);
    sound.unchanged(&with(None), "crl-absent");
    sound.unchanged(&with(Some(crl(&WORLD.ca_krd, 7, NOW, &[]))), "crl-issuer");
    let mut altered = CRL.clone();
    let last = altered.len() - 1;
    altered[last] ^= 1;
    sound.unchanged(&with(Some(altered)), "crl-signature");
    let revoked = crl(&WORLD.ca_kdh, 8, NOW, &[&WORLD.kdh.certificate]);
    let (check, state) = sound.refusal(&with(Some(revoked)));
    assert_eq!(check, "certificate-revoked");
    // That list is remembered: the one before it does not bring the KDH back.
    let knowing = state.unwrap();
    assert_eq!(
        (knowing.kdh(), knowing.outstanding()),
        (sound.state.kdh(), sound.state.outstanding())
    );
    let refused = sound.receiver.receive(&knowing, &sound.token(), NOW).unwrap_err();
    assert_eq!(refused.error.check(), "crl-older");
    // The list is not under the KDH's signature: an older one, still valid, could be put there.
    let older = crl(&WORLD.ca_kdh, 6, NOW.minus(DAY / 1000), &[]);
    sound.unchanged(&with(Some(older)), "crl-older");
    let future = crl(&WORLD.ca_kdh, 8, NOW.plus(DAY), &[]);
    sound.unchanged(&with(Some(future)), "crl-not-yet-valid");
    let late = sound.refusal_at(&sound.token(), NOW.plus(DAY * 8));
    assert_eq!(late, ("crl-expired", None));
    sound.unchanged(&with(Some(vec![0x30, 0])), "crl-malformed");
    // A newer one is taken, and the older refused from then on.
    let newer = with(Some(crl(&WORLD.ca_kdh, 8, NOW, &[])));
    let state = sound.receiver.receive(&sound.state, &newer, NOW).unwrap().install().state;
    let (_, state) = sound.receiver.request(&state, &mut rng(3), NOW).unwrap();
    let refused = sound.receiver.receive(&state, &sound.token(), NOW).unwrap_err();
    assert_eq!(refused.error.check(), "crl-older");
}

#[test]
fn signer() {
    let mut sound = Sound::new();
    let token = sound.token();
    // Another KDH of the same authority, and the bound one's serial number under another issuer.
    let other =
        Signing { signer: WORLD.next_kdh.certificate.identity().clone(), ..sound.signing() };
    sound.unchanged(&signed(&other, &WORLD.next_kdh.key), "token-signer");
    let serial = tlv(tag::INTEGER, &[WORLD.kdh.certificate.identity().serial()]);
    let twin = IssuerAndSerial::of(WORLD.ca_krd.certificate.subject(), &serial).unwrap();
    sound.unchanged(
        &signed(&Signing { signer: twin, ..sound.signing() }, &WORLD.kdh.key),
        "token-signer",
    );
    sound.unchanged(&signed(&sound.signing(), &WORLD.next_kdh.key), "token-signature");

    let unbound = sound.receiver.receive(&State::default(), &token, NOW).unwrap_err();
    assert_eq!(unbound.error.check(), "not-bound");
    // Bound long ago: the certificate has expired, or its authority is not pinned any more.
    let later = NOW.plus(DAY * 365 * 3);
    let list = crl(&WORLD.ca_kdh, 9, later, &[]);
    let late = signed(&Signing { crl: Some(list), ..sound.signing() }, &WORLD.kdh.key);
    assert_eq!(sound.refusal_at(&late, later), ("certificate-expired", None));
    sound.receiver = Receiver { kdh_cas: &[], ..sound.receiver };
    sound.unchanged(&token, "crl-issuer");
    let policy = Policy { without_crl: true, ..Policy::STRICT };
    sound.receiver = Receiver { policy, ..sound.receiver };
    let bare = signed(&Signing { crl: None, ..sound.signing() }, &WORLD.kdh.key);
    sound.unchanged(&bare, "certificate-issuer");
}

#[test]
fn attributes() {
    let sound = Sound::new();
    for position in 0..4 {
        sound.unchanged(&sound.with(|list| drop(list.remove(position))), "attribute-missing");
        let twice = sound.with(|list| list.push(list[position].clone()));
        sound.unchanged(&twice, "attribute-repeated");
    }
    let two = tlv(tag::SET, &[&[4, 8, 1, 1, 1, 1, 1, 1, 1, 1].repeat(2)]);
    let of = |values: &[u8]| tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[RANDOM_NONCE]), values]);
    sound.unchanged(&sound.with(|list| list[1] = of(&two)), "attribute-values");
    sound.unchanged(&sound.with(|list| list[1] = of(&[tag::SET, 0])), "attribute-values");
    let unknown = attribute(&[0x2a, 3], &[5, 0]);
    sound.unchanged(&sound.with(|list| list.push(unknown)), "attribute-unexpected");
    let time = attribute(SIGNING_TIME, &tlv(tag::UTC_TIME, &[b"270115080000Z"]));
    let both = sound.with(|list| list.push(time.clone()));
    sound.unchanged(&both, "attribute-unexpected");
    sound.unchanged(&sound.with(|list| list[1] = time), "token-one-pass");
    let bad = attribute(SIGNING_TIME, &tlv(tag::UTC_TIME, &[b"271315080000Z"]));
    sound.unchanged(&sound.with(|list| list[1] = bad), "token-malformed");
    for length in [7, 17] {
        let nonce = attribute(RANDOM_NONCE, &tlv(tag::OCTET_STRING, &[&vec![1; length]]));
        sound.unchanged(&sound.with(|list| list[1] = nonce), "token-malformed");
    }
    let many = sound.with(|list| {
        list.extend((0..8).map(|number| attribute(&[0x2a, number], &[5, 0])));
    });
    sound.unchanged(&many, "attribute-unexpected");
    let none = signed(&Signing { attributes: None, ..sound.signing() }, &WORLD.kdh.key);
    sound.unchanged(&none, "attribute-missing");
    let unordered = sound.with(|_| {});
    let (_, listed) = asked(&receiver(policy(Dialect::ERRATA_2019)));
    let mut signing = prepared(Dialect::ERRATA_2019, &listed).signing;
    signing.dialect = STRICT;
    assert_ne!(unordered, signed(&signing, &WORLD.kdh.key));
    sound.unchanged(&signed(&signing, &WORLD.kdh.key), "dialect-attribute-order");

    let other = attribute(CONTENT_TYPE, &tlv(tag::OID, &[ID_DATA]));
    sound.unchanged(&sound.with(|list| list[0] = other), "attribute-content-type");
    let digest = attribute(MESSAGE_DIGEST, &tlv(tag::OCTET_STRING, &[&[7; 32]]));
    sound.unchanged(&sound.with(|list| list[3] = digest), "token-digest");
    let short = attribute(MESSAGE_DIGEST, &tlv(tag::OCTET_STRING, &[&[7; 20]]));
    sound.unchanged(&sound.with(|list| list[3] = short), "token-malformed");
}

#[test]
fn signature_and_content() {
    let sound = Sound::new();
    let mut token = sound.token();
    let last = token.len() - 1;
    token[last] ^= 1;
    sound.unchanged(&token, "token-signature");
    let mut signing = sound.signing();
    let last = signing.content.len() - 1;
    signing.content[last] ^= 1;
    sound.unchanged(&signed(&signing, &WORLD.kdh.key), "token-digest");
    // Attributes of another order under a sound signature for the first order.
    let sound_signature = WORLD.kdh.key.sign(sound.signing().message()).unwrap();
    let mut swapped = sound.signing();
    let header = swapped.attributes.as_mut().unwrap();
    let at = header.len() - 1;
    header[at] ^= 1;
    sound.unchanged(&swapped.token(&sound_signature), "token-digest");
}

#[test]
fn random_number() {
    let sound = Sound::new();
    let token = sound.token();
    let (_, other) = sound.receiver.request(&sound.state, &mut rng(99), NOW).unwrap();
    let refusal = |state: &State, now: UnixTime| {
        let refused = sound.receiver.receive(state, &token, now).unwrap_err();
        assert_eq!(refused.state, None);
        refused.error.check()
    };
    assert_eq!(refusal(&other, NOW), "nonce-mismatch");
    let lifetime = sound.receiver.policy.nonce_lifetime;
    sound.receiver.receive(&sound.state, &token, NOW.plus(lifetime)).unwrap();
    let after = UnixTime::from_millis(NOW.plus(lifetime).as_millis() + 1);
    assert_eq!(refusal(&sound.state, after), "nonce-expired");
    // A clock that is set back does not lengthen the life of a request, but for what clocks differ.
    let list = Some(crl(&WORLD.ca_kdh, 7, NOW.minus(DAY / 48), &[]));
    let token = signed(&Signing { crl: list, ..sound.signing() }, &WORLD.kdh.key);
    let at = |now: UnixTime| sound.receiver.receive(&sound.state, &token, now);
    at(NOW.minus(CLOCK_SKEW_MAX)).unwrap();
    let refused = at(NOW.minus(CLOCK_SKEW_MAX + Duration::from_secs(1))).unwrap_err();
    assert_eq!((refused.error.check(), refused.state), ("nonce-expired", None));
    let used = sound.receiver.receive(&sound.state, &token, NOW).unwrap().install().state;
    assert_eq!(refusal(&used, NOW), "nonce-absent");
}

#[test]
fn another_terminals_token() {
    let sound = Sound::new();
    let order = KeyOrder {
        krd: &krd(&KRD_3072),
        freshness: &sound.freshness,
        cipher: ContentCipher::Tdes,
        header: &tdes_header(),
        key: &tdes_key(),
    };
    let token = sender(STRICT).key_token(&mut rng(4), &order).unwrap();
    sound.spent(&token.sign(&WORLD.kdh.key).unwrap(), "token-recipient");
}

#[test]
fn any_other_byte_is_refused() {
    let sound = Sound::new();
    let token = sound.token();
    for position in 0..token.len() {
        let mut altered = token.clone();
        altered[position] ^= 1 << (position % 8);
        let refused = sound.receiver.receive(&sound.state, &altered, NOW);
        let Err(refused) = refused else { panic!("taken with octet {position} altered") };
        assert_eq!(refused.state, None, "{position}: {}", refused.error);
    }
}
