//! Signing cards: commitments to joint passwords, and what is typed as one.

use std::sync::{Arc, OnceLock};

use countersign_crypto::{
    CryptoRng, DecryptionKey, Provider, Secret, Suite, VerifyingKey, provider_of,
};
use countersign_payment::PaymentError;
use countersign_payment::joint::{
    self, COMMITMENT_MAX, Commitment, DIGITS, Form, JointPassword, Opener, PASSWORD_TEXT_MAX,
    Picture, RANDOM_DIGITS, SHARED_LEN, SealTo, check_digit,
};
use testkit::rng::seeded;

use crate::payment::request;
use crate::script::Script;

const SERIAL: &str = "SC-1";

/// A server, and a card that signed once in each form.
struct Genuine {
    provider: Provider,
    public: Arc<dyn VerifyingKey>,
    server: Arc<dyn DecryptionKey>,
    shared: Secret,
    transaction: Vec<u8>,
    signings: Vec<Signing>,
}

struct Signing {
    password: JointPassword,
    commitment: Commitment,
    signature: Vec<u8>,
}

/// Everything that the server looks at.
struct Claim<'a> {
    serial: &'a str,
    transaction: &'a [u8],
    commitment: &'a Commitment,
    signature: &'a [u8],
    password: &'a JointPassword,
}

impl Genuine {
    fn make(suite: Suite) -> Self {
        let provider = provider_of(suite).expect("known");
        let rng: &mut dyn CryptoRng = &mut seeded(3);
        let card = provider.signature.generate(rng).expect("a key").key;
        let public = provider.signature.public_key(card.public_key()).expect("a key");
        let server = provider.sealing.generate(rng).expect("a key").key;
        let shared = Secret::new(vec![7; SHARED_LEN]);
        let transaction = request().to_bytes().expect("good texts");
        let signings = Form::ALL.map(|form| {
            let password = JointPassword::random(rng).expect("a password");
            let to = SealTo { server_point: server.public_key(), shared: &shared };
            let made = joint::commit(&provider, rng, form, SERIAL, &transaction, &password, &to);
            let commitment = made.expect("it commits");
            let signed = joint::sign(&*card, rng, &*provider.hash, &transaction, &commitment);
            Signing { password, commitment, signature: signed.expect("it signs") }
        });
        Self { provider, public, server, shared, transaction, signings: signings.into() }
    }

    fn opener(&self, form: Form) -> Opener<'_> {
        match form {
            Form::Sealed | Form::SealedRandom => Opener::Server(&*self.server),
            Form::Digest => Opener::Shared(&self.shared),
        }
    }

    fn opens(&self, claim: &Claim<'_>) -> bool {
        let Claim { serial, transaction, commitment, password, .. } = *claim;
        let opener = self.opener(commitment.form());
        let provider = &self.provider;
        let found =
            joint::verify_password(provider, opener, serial, transaction, commitment, password);
        let wrong = [PaymentError::JointPassword, PaymentError::JointSealed];
        assert!(found.is_ok() || wrong.map(Err).contains(&found), "one of two errors");
        found.is_ok()
    }

    fn signed(&self, claim: &Claim<'_>) -> bool {
        let Claim { transaction, commitment, signature, .. } = *claim;
        let hash = &*self.provider.hash;
        let found =
            joint::verify_signature(&*self.public, hash, transaction, commitment, signature);
        assert!(matches!(found, Ok(()) | Err(PaymentError::Signature)), "one error");
        found.is_ok()
    }
}

fn genuine(sm2: bool) -> &'static Genuine {
    static P256: OnceLock<Genuine> = OnceLock::new();
    static SM2: OnceLock<Genuine> = OnceLock::new();
    let (made, suite) = match sm2 {
        false => (&P256, Suite::X25519_P256_AES128GCM_SHA256),
        true => (&SM2, Suite::SM2_SM4GCM_SM3),
    };
    made.get_or_init(|| Genuine::make(suite))
}

/// The genuine commitment of a form; also what seeds begin with.
pub(crate) fn commitment(sm2: bool, form: Form) -> &'static [u8] {
    let signings = &genuine(sm2).signings;
    let found = signings.iter().find(|signing| signing.commitment.form() == form);
    found.expect("one of each form").commitment.as_bytes()
}

/// The first byte says what the others are: a commitment, edits of what a genuine card answered, a
/// text that is typed, names of pictures. What is read is written again, and what was altered in
/// any part is either not signed or not opened.
pub fn joint_commitment(data: &[u8]) {
    let mut script = Script::new(data);
    match script.byte() % 4 {
        0 => one_commitment(script.rest()),
        1 => altered_answer(&mut script),
        2 => typed(script.rest()),
        _ => pictures(&mut script),
    }
}

fn one_commitment(bytes: &[u8]) {
    let Ok(commitment) = Commitment::parse(bytes) else { return };
    assert!(commitment.as_bytes() == bytes && bytes.len() <= COMMITMENT_MAX, "one form");
    assert_eq!(Form::from_code(bytes[0]), Some(commitment.form()));
    for sm2 in [false, true] {
        let genuine = genuine(sm2);
        for signing in &genuine.signings {
            let claim = Claim {
                serial: SERIAL,
                transaction: &genuine.transaction,
                commitment: &commitment,
                signature: &signing.signature,
                password: &signing.password,
            };
            let same = commitment == signing.commitment;
            assert_eq!(genuine.opens(&claim), same, "nobody committed to that");
            assert_eq!(genuine.signed(&claim), same, "nobody signed that");
        }
    }
}

/// `setting`: bit 0 SM2, then the form; `part`: what the edits alter.
fn altered_answer(script: &mut Script<'_>) {
    let setting = usize::from(script.byte());
    let genuine = genuine(setting & 1 == 1);
    let signing = &genuine.signings[(setting >> 1) % genuine.signings.len()];
    let part = script.byte() % 5;
    let original = match part {
        0 => signing.commitment.as_bytes(),
        1 => &signing.signature,
        2 => &genuine.transaction,
        3 => SERIAL.as_bytes(),
        _ => signing.password.digits().as_bytes(),
    };
    let mut altered = original.to_vec();
    let differs = script.edit(&mut altered);
    let mut claim = Claim {
        serial: SERIAL,
        transaction: &genuine.transaction,
        commitment: &signing.commitment,
        signature: &signing.signature,
        password: &signing.password,
    };
    let text = String::from_utf8_lossy(&altered);
    let (commitment, password);
    match part {
        0 => {
            let Ok(read) = Commitment::parse(&altered) else { return };
            commitment = read;
            claim.commitment = &commitment;
        }
        1 => claim.signature = &altered,
        2 => claim.transaction = &altered,
        3 => claim.serial = &text,
        _ => {
            let Ok(read) = JointPassword::parse(&text) else { return };
            password = read;
            claim.password = &password;
        }
    }
    let (signed, opens) = (genuine.signed(&claim), genuine.opens(&claim));
    // What each part is held by: the signature, the password, or both.
    let same_password = claim.password.ct_eq(&signing.password);
    match part {
        0 | 2 => assert_eq!((signed, opens), (!differs, !differs), "altered, and taken"),
        1 => assert_eq!((signed, opens), (!differs, true), "another signature"),
        3 => assert_eq!((signed, opens), (true, text == SERIAL), "another card"),
        _ => assert_eq!((signed, opens), (true, same_password), "another password"),
    }
}

fn typed(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(read) = JointPassword::parse(&text) else { return };
    let digits = read.digits();
    assert!(text.len() <= PASSWORD_TEXT_MAX && digits.len() == DIGITS);
    assert_eq!(text.replace([' ', '-'], ""), digits, "what was typed");
    let (random, check) = digits.as_bytes().split_at(RANDOM_DIGITS);
    assert_eq!(check, [b'0' + check_digit(random)]);
    let again = JointPassword::parse(&read.grouped()).expect("what is shown is read");
    let shown = JointPassword::from_pictures(&read.pictures()).expect("so are the pictures");
    assert!(again.ct_eq(&read) && shown.ct_eq(&read));
}

fn pictures(script: &mut Script<'_>) {
    let mut named = Vec::new();
    while !script.is_empty() && named.len() <= DIGITS {
        let name = String::from_utf8_lossy(script.short());
        named.extend(Picture::from_name(&name));
    }
    match JointPassword::from_pictures(&named) {
        Ok(read) => assert_eq!(read.pictures()[..], named[..]),
        Err(error) => assert_eq!(error, PaymentError::JointPasswordForm),
    }
}
