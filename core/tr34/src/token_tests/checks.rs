//! One refusal for each check of the receiver: a sound token with one fault, signed as it is.

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
