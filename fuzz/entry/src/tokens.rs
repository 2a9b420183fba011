//! Key tokens of TR-34: what a receiver takes was made for it by its KDH, byte by byte.

use std::sync::OnceLock;

use countersign_crypto::Secret;
use testkit::rng::seeded;
use tr31::{Header, Version};
use tr34::aws_lc::AwsLc;
use tr34::kdh::{Authority, KeyOrder, Sender};
use tr34::krd::{Policy, Receiver, State};
use tr34::reader::{Walker, tag, tlv};
use tr34::token::{
    ContentCipher, CtKdh, CtKrd, Freshness, KtKdh, Rebind, RtKrd, SignedData, Unbind,
};
use tr34::{Certificate, Dialect, Kdh, Krd, Leniency, Rsa, RsaKey};

use crate::hierarchy::{NOW, Tree, tree};
use crate::script::Script;

/// How many kinds of tokens there are.
pub(crate) const KINDS: usize = 8;

/// A receiver that waits for an answer, in one dialect, and a token of each kind for it. The
/// envelope is not the same in each process, since AWS-LC draws what it pads with.
struct Scene {
    dialect: Dialect,
    state: State,
    tokens: [Vec<u8>; KINDS],
}

fn scenes() -> &'static [Scene; 4] {
    static SCENES: OnceLock<[Scene; 4]> = OnceLock::new();
    SCENES.get_or_init(|| Dialect::NAMED.map(|(_, dialect)| Scene::new(tree(), dialect)))
}

fn receiver(tree: &'static Tree, dialect: Dialect) -> Receiver<'static> {
    static CAS: OnceLock<[Certificate; 1]> = OnceLock::new();
    Receiver {
        rsa: &AwsLc,
        ciphers: &tr31::aws_lc::AwsLc,
        key: &tree.krd.key,
        certificate: &tree.krd.certificate,
        kdh_cas: CAS.get_or_init(|| [tree.ca_kdh.certificate.clone()]),
        krd_ca: &tree.ca_krd.certificate,
        policy: Policy { dialect, one_pass: true, ca_unbind: true, ..Policy::STRICT },
    }
}

impl Scene {
    fn new(tree: &'static Tree, dialect: Dialect) -> Self {
        let sender = Sender {
            rsa: &AwsLc,
            ciphers: &tr31::aws_lc::AwsLc,
            certificate: &tree.kdh.certificate,
            crl: Some(&tree.crl),
            dialect,
            weaker_wrapping: false,
        };
        let receiver = receiver(tree, dialect);
        let ct_kdh = sender.credential();
        let bound = receiver.bind(&State::default(), &ct_kdh, NOW).expect("bound");
        let mut rng = seeded(7);
        let (request, state) = receiver.request(&bound, &mut rng, NOW).expect("asked");
        let nonce = RtKrd::parse(&request).expect("ours").nonce;
        let ca = &tree.ca_krd.certificate;
        let krd = Krd::verify(&AwsLc, tree.krd.certificate.clone(), ca, NOW).expect("a terminal");
        let ca = &tree.ca_kdh.certificate;
        let kdh = Kdh::verify(&AwsLc, tree.kdh.certificate.clone(), ca, NOW).expect("a KDH");
        let mut key_token = |freshness: &Freshness, cipher| {
            let order = KeyOrder {
                krd: &krd,
                freshness,
                cipher,
                header: &Header::new(Version::B, *b"K0", b'T', b'B', b'S'),
                key: &key(),
            };
            let prepared = sender.key_token(&mut rng, &order).expect("prepared");
            prepared.sign(&tree.kdh.key).expect("signed")
        };
        let two = key_token(&Freshness::TwoPass(nonce.clone()), ContentCipher::Tdes);
        let one = key_token(&Freshness::OnePass(NOW), ContentCipher::Aes128);
        let (own, old) = (tree.krd.certificate.identity(), tree.kdh.certificate.identity());
        let unbind = sender.unbind(own, &nonce).expect("prepared").sign(&tree.kdh.key);
        let authority = Authority { rsa: &AwsLc, certificate: &tree.ca_krd.certificate, dialect };
        let unbind_ca = authority.unbind(own, old).sign(&tree.ca_krd.key);
        // There is but one KDH here, so this one names another as the old one, and is refused late.
        let other = tree.krd.certificate.identity();
        let rebind_ca = authority.rebind(own, other, &kdh, Some(&tree.crl), NOW);
        let rebind_ca = rebind_ca.expect("prepared").sign(&tree.ca_krd.key);
        let ct_krd = CtKrd { certificate: tree.krd.certificate.raw() }.encode();
        let tokens = [
            two,
            one,
            ct_kdh,
            ct_krd,
            request,
            unbind.expect("signed"),
            unbind_ca.expect("signed"),
            rebind_ca.expect("signed"),
        ];
        Self { dialect, state, tokens }
    }
}

fn key() -> Secret {
    tr31::policy::with_odd_parity(&Secret::copied_from(b"0123456789abcdefghijklmn"))
}

/// A token: altered, raw, or with altered content that the KDH signs. Script: `kind (3 bits) and
/// dialect, how, edits or bytes`.
pub fn tokens(data: &[u8]) {
    let mut script = Script::new(data);
    let which = usize::from(script.byte());
    let scene = &scenes()[which >> 3 & 3];
    let genuine = &scene.tokens[which % KINDS];
    let mut token = genuine.clone();
    let mut by_kdh = false;
    match script.byte() & 3 {
        0 | 1 => drop(script.edit(&mut token)),
        2 => token = script.rest().to_vec(),
        _ => {
            if let Some(signed) = with_content(genuine, &mut script) {
                by_kdh = true;
                token = signed;
            }
        }
    }
    parse_as_everything(&token);
    deliver(scene, &token, by_kdh);
    for other in scenes().iter().filter(|other| other.dialect != scene.dialect) {
        deliver(other, &token, by_kdh);
    }
}

/// Each parser ends, and what it has read of a request or a credential it writes again.
fn parse_as_everything(token: &[u8]) {
    if let Ok(request) = RtKrd::parse(token) {
        assert_eq!(request.encode(), token);
    }
    if let Ok(credential) = CtKrd::parse(token) {
        assert_eq!(CtKrd::parse(&credential.encode()), Ok(credential));
    }
    if let Ok(credential) = CtKdh::parse(token) {
        for (_, dialect) in Dialect::NAMED {
            let again = CtKdh::encode(credential.certificate, credential.crl, &dialect);
            let again = CtKdh::parse(&again).expect("it was written");
            assert_eq!((again.certificate, again.crl), (credential.certificate, credential.crl));
            assert!(again.crl.is_none() || again.observed.differs_from(&dialect).is_none());
        }
    }
    if let Ok(key) = KtKdh::parse(token)
        && let Ok((_, observed)) = key.enveloped()
    {
        assert!(observed.fits().len() <= 1, "a key token of two dialects");
    }
    if let Ok(signed) = SignedData::parse(token) {
        let kinds = [
            KtKdh::parse(token).is_ok(),
            Unbind::parse(token).is_ok(),
            Rebind::parse(token).is_ok(),
            CtKdh::parse(token).is_ok(),
        ];
        let kinds = kinds.iter().filter(|kind| **kind).count();
        assert!(kinds <= 1, "a token of two kinds");
        assert!(signed.signer.is_some() || kinds == 0 || signed.content.is_none());
    }
}

/// What the receiver takes is what was made for it; what it refuses changes nothing but that a
/// random number is used up.
fn deliver(scene: &Scene, token: &[u8], by_kdh: bool) {
    let receiver = receiver(tree(), scene.dialect);
    let genuine = scenes().iter().flat_map(|scene| &scene.tokens).any(|genuine| genuine == token);
    match receiver.receive(&scene.state, token, NOW) {
        Ok(verified) => {
            assert!(genuine || by_kdh, "nobody made the key token that was taken");
            let installed = verified.install();
            assert!(by_kdh || installed.key.ct_eq(key().expose()));
            assert_ne!(installed.state, scene.state);
            let again = receiver.receive(&installed.state, token, NOW);
            assert!(again.is_err(), "taken twice");
        }
        Err(refused) => check_spent(scene, refused.state.as_deref(), genuine || by_kdh),
    }
    let checked = receiver.check(&scene.state, token, NOW);
    assert!(checked.is_err() || genuine || by_kdh);
    match receiver.unbind(&scene.state, token, NOW) {
        Ok(state) => assert!((genuine || by_kdh) && state.kdh().is_none()),
        Err(refused) => check_spent(scene, refused.state.as_deref(), genuine || by_kdh),
    }
    if let Ok(state) = receiver.unbind_by_ca(&scene.state, token, NOW) {
        assert!(genuine && state.kdh().is_none());
    }
    assert!(receiver.rebind(&scene.state, token, NOW).is_err(), "there is no other KDH");
    assert!(receiver.rebind_by_ca(&scene.state, token, NOW).is_err(), "there is no other KDH");
    if let Ok(state) = receiver.bind(&State::default(), token, NOW) {
        let kdh = state.kdh().map(Certificate::raw);
        assert_eq!(kdh, Some(tree().kdh.certificate.raw()));
        let bytes = state.to_bytes();
        assert_eq!(State::from_bytes(&bytes, Leniency::STRICT).as_ref(), Ok(&state));
    }
}

fn check_spent(scene: &Scene, spent: Option<&State>, signed: bool) {
    let Some(state) = spent else { return };
    assert!(signed, "a stranger used up the random number");
    assert_eq!(state.kdh(), scene.state.kdh());
    assert_ne!(state, &scene.state);
}

/// A signed token with its content altered, the digest after it, signed by the KDH.
fn with_content(token: &[u8], script: &mut Script<'_>) -> Option<Vec<u8>> {
    let signed = SignedData::parse(token).ok()?;
    let content = signed.content?;
    let old = AwsLc.sha256(content);
    let mut altered = content.to_vec();
    script.edit(&mut altered);
    let new = AwsLc.sha256(&altered);
    // The structure around the content and the signer is copied element by element.
    let mut info = Walker::single(token, tag::SEQUENCE).ok()?.inside().ok()?;
    let content_type = info.any().ok()?.whole;
    let mut inside = info.any().ok()?.inside().ok()?.any().ok()?.inside().ok()?;
    let mut parts = Vec::new();
    while let Ok(element) = inside.any() {
        parts.push(element);
    }
    let signers = parts.iter().position(|part| part.tag == tag::SET && part.content.len() > 64)?;
    let signer = signer(parts[signers].content, (&old, &new))?;
    let mut encapsulated = parts.get(2)?.inside().ok()?;
    let inner_type = encapsulated.any().ok()?.whole;
    let octets = tlv(0xa0, &[&tlv(tag::OCTET_STRING, &[&altered])]);
    let encapsulated = tlv(tag::SEQUENCE, &[inner_type, &octets]);
    let mut out: Vec<&[u8]> = parts.iter().map(|part| part.whole).collect();
    out[2] = &encapsulated;
    out[signers] = &signer;
    let explicit = tlv(0xa0, &[&tlv(tag::SEQUENCE, &out)]);
    Some(tlv(tag::SEQUENCE, &[content_type, &explicit]))
}

/// The SET of the one signer, with the new digest in its attributes, signed again.
fn signer(set: &[u8], (old, new): (&[u8; 32], &[u8; 32])) -> Option<Vec<u8>> {
    let mut inside = Walker::single(set, tag::SEQUENCE).ok()?.inside().ok()?;
    let mut parts = Vec::new();
    while let Ok(element) = inside.any() {
        parts.push(element.whole.to_vec());
    }
    let attributes = parts.iter().position(|part| part.first() == Some(&0xa0))?;
    let at = parts[attributes].windows(32).position(|octets| octets == old)?;
    parts[attributes][at..at + 32].copy_from_slice(new);
    let mut message = parts[attributes].clone();
    message[0] = tag::SET;
    let signature = tree().kdh.key.sign(&message).ok()?;
    *parts.last_mut()? = tlv(tag::OCTET_STRING, &[&signature]);
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    Some(tlv(tag::SET, &[&tlv(tag::SEQUENCE, &parts)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else the target would reach nothing behind the signature.
    #[test]
    fn a_token_signed_again_is_taken() {
        for scene in scenes() {
            let again = with_content(&scene.tokens[0], &mut Script::new(&[])).unwrap();
            let receiver = receiver(tree(), scene.dialect);
            assert!(receiver.receive(&scene.state, &again, NOW).is_ok());
            let mut edits = Script::new(&[1, 0, 40, 3]);
            let edited = with_content(&scene.tokens[0], &mut edits).unwrap();
            let refused = receiver.receive(&scene.state, &edited, NOW).unwrap_err();
            assert!(refused.state.is_some(), "{refused}");
        }
    }
}
