//! The three forms in both suites, and everything that must not pass for another thing.

mod known;

use std::string::String;
use std::sync::Arc;
use std::vec::Vec;

use countersign_crypto::{
    AEAD_TAG_LEN, DecryptionKey, HASH_LEN, Provider, Secret, SecureElement, Suite, VerifyingKey,
    provider_of,
};
use proptest::prelude::*;
use testkit::rng::{ChaCha20Rng, seeded};

use super::*;
use crate::PaymentError;
use crate::request::tests::{example, example_bytes};

const SERIAL: &str = "SC-0001";

/// A card and its server.
struct Case {
    provider: Provider,
    rng: ChaCha20Rng,
    card: Arc<dyn SecureElement>,
    public: Arc<dyn VerifyingKey>,
    server: Arc<dyn DecryptionKey>,
    shared: Secret,
}

impl Case {
    fn new(suite: Suite, seed: u64) -> Self {
        let provider = provider_of(suite).unwrap();
        let mut rng = seeded(seed);
        let card = provider.signature.generate(&mut rng).unwrap().key;
        let public = provider.signature.public_key(card.public_key()).unwrap();
        let server = provider.sealing.generate(&mut rng).unwrap().key;
        let mut shared = vec![0; SHARED_LEN];
        rng.fill_bytes(&mut shared);
        Self { provider, rng, card, public, server, shared: Secret::new(shared) }
    }

    /// One for each suite.
    fn all(seed: u64) -> impl Iterator<Item = Self> {
        Suite::known().map(move |suite| Self::new(suite, seed))
    }

    fn password(&mut self) -> JointPassword {
        JointPassword::random(&mut self.rng).unwrap()
    }

    fn commit(&mut self, form: Form, password: &JointPassword) -> Commitment {
        self.commit_to(form, SERIAL, &example_bytes(), password).unwrap()
    }

    fn commit_to(
        &mut self,
        form: Form,
        serial: &str,
        transaction: &[u8],
        password: &JointPassword,
    ) -> Result<Commitment, PaymentError> {
        let to = SealTo { server_point: self.server.public_key(), shared: &self.shared };
        commit(&self.provider, &mut self.rng, form, serial, transaction, password, &to)
    }

    fn opener(&self, form: Form) -> Opener<'_> {
        match form {
            Form::Sealed | Form::SealedRandom => Opener::Server(&*self.server),
            Form::Digest => Opener::Shared(&self.shared),
        }
    }

    fn opens(&self, commitment: &Commitment, password: &JointPassword) -> bool {
        self.opens_for(SERIAL, &example_bytes(), commitment, password)
    }

    fn opens_for(
        &self,
        serial: &str,
        transaction: &[u8],
        commitment: &Commitment,
        password: &JointPassword,
    ) -> bool {
        self.verified(serial, transaction, commitment, password).is_ok()
    }

    fn verified(
        &self,
        serial: &str,
        transaction: &[u8],
        commitment: &Commitment,
        password: &JointPassword,
    ) -> Result<(), PaymentError> {
        let opener = self.opener(commitment.form());
        let verified =
            verify_password(&self.provider, opener, serial, transaction, commitment, password);
        let wrong = [PaymentError::JointPassword, PaymentError::JointSealed];
        assert!(verified.is_ok() || wrong.map(Err).contains(&verified), "one of two errors");
        verified
    }

    fn sign(&mut self, commitment: &Commitment) -> Vec<u8> {
        let hash = &*self.provider.hash;
        sign(&*self.card, &mut self.rng, hash, &example_bytes(), commitment).unwrap()
    }

    fn signed(&self, transaction: &[u8], commitment: &Commitment, signature: &[u8]) -> bool {
        let hash = &*self.provider.hash;
        let verified = verify_signature(&*self.public, hash, transaction, commitment, signature);
        assert!(matches!(verified, Ok(()) | Err(PaymentError::Signature)), "one error");
        verified.is_ok()
    }
}

fn parsed(bytes: &[u8]) -> Result<Commitment, PaymentError> {
    Commitment::parse(bytes)
}

#[test]
fn each_form_in_each_suite_is_signed_and_opened() {
    assert_eq!(Case::all(1).count(), 2);
    for mut case in Case::all(1) {
        for form in Form::ALL {
            let password = case.password();
            let commitment = case.commit(form, &password);
            let signature = case.sign(&commitment);
            assert_eq!(commitment.form(), form);
            assert_eq!(parsed(commitment.as_bytes()), Ok(commitment.clone()));
            assert!(case.signed(&example_bytes(), &commitment, &signature));
            assert!(case.opens(&commitment, &password));
        }
    }
}

#[test]
fn a_wrong_or_an_old_password_does_not_open() {
    for mut case in Case::all(2) {
        for form in Form::ALL {
            let (old, password) = (case.password(), case.password());
            let before = case.commit(form, &old);
            let commitment = case.commit(form, &password);
            assert!(!case.opens(&commitment, &old) && !case.opens(&before, &password));
            // Every password that differs in one drawn digit.
            for at in 0..RANDOM_DIGITS {
                for digit in '0'..='9' {
                    let mut digits = String::from(&password.digits()[..RANDOM_DIGITS]);
                    digits.replace_range(at..=at, digit.encode_utf8(&mut [0; 4]));
                    let check = char::from(b'0' + check_digit(digits.as_bytes()));
                    digits.push(check);
                    let other = JointPassword::parse(&digits).unwrap();
                    let same = other.ct_eq(&password);
                    assert_eq!(case.opens(&commitment, &other), same, "{form:?}");
                }
            }
        }
    }
}

#[test]
fn a_commitment_is_for_one_card_one_transaction_one_server() {
    for mut case in Case::all(3) {
        let foreign = Case::new(case.provider.suite, 4);
        for form in Form::ALL {
            let password = case.password();
            let commitment = case.commit(form, &password);
            for serial in ["SC-0002", "SC-000", "SC-00011", "sc-0001", "", &"S".repeat(65)] {
                assert!(!case.opens_for(serial, &example_bytes(), &commitment, &password));
            }
            let mut next = example();
            next.payment = "pay_other".into();
            for transaction in [&next.to_bytes().unwrap()[..], &[]] {
                assert!(!case.opens_for(SERIAL, transaction, &commitment, &password));
            }
            assert!(!foreign.opens(&commitment, &password), "another server's key");
            assert!(case.opens(&commitment, &password));
        }
    }
}

/// A commitment that does not open says so of every password, also of the right one: a card is not
/// to blame for what its owner typed then. Of one that opens, a wrong password is wrong.
#[test]
fn whether_a_commitment_opens_is_nothing_of_the_password() {
    for mut case in Case::all(16) {
        let renewed = Case::new(case.provider.suite, 17);
        let mut next = example();
        next.payment = "pay_other".into();
        let (transaction, next) = (example_bytes(), next.to_bytes().unwrap());
        for form in Form::ALL {
            let (right, other) = (case.password(), case.password());
            let commitment = case.commit(form, &right);
            let verified = |by: &Case, serial, transaction: &[u8]| {
                [&right, &other].map(|one| by.verified(serial, transaction, &commitment, one))
            };
            let wrong = Err(PaymentError::JointPassword);
            assert_eq!(verified(&case, SERIAL, &transaction), [Ok(()), wrong], "{form:?}");
            // Of a digest it cannot be told.
            let closed = match form {
                Form::Sealed | Form::SealedRandom => [Err(PaymentError::JointSealed); 2],
                Form::Digest => [wrong; 2],
            };
            assert_eq!(verified(&renewed, SERIAL, &transaction), closed, "another server's key");
            assert_eq!(verified(&case, "SC-0002", &transaction), closed, "another card");
            assert_eq!(verified(&case, SERIAL, &next), closed, "another transaction");
            assert_eq!(verified(&case, "", &transaction), [Err(PaymentError::JointSealed); 2]);
            let short = Secret::new(vec![7; SHARED_LEN - 1]);
            for opener in [Opener::Server(&*case.server), Opener::Shared(&short)] {
                if matches!(opener, Opener::Server(_)) == (form != Form::Digest) {
                    continue;
                }
                for password in [&right, &other] {
                    let (provider, commitment) = (&case.provider, &commitment);
                    let found = verify_password(
                        provider,
                        opener,
                        SERIAL,
                        &transaction,
                        commitment,
                        password,
                    );
                    assert_eq!(found, Err(PaymentError::JointSealed), "{form:?}");
                }
            }
        }
    }
}

/// What follows the code of one form does not pass for another form, with any key.
#[test]
fn forms_are_not_interchangeable() {
    for mut case in Case::all(5) {
        for form in Form::ALL {
            let password = case.password();
            let commitment = case.commit(form, &password);
            for other in Form::ALL {
                let relabelled = [&[other.code()], &commitment.as_bytes()[1..]].concat();
                let Ok(relabelled) = parsed(&relabelled) else { continue };
                assert_eq!(case.opens(&relabelled, &password), form == other);
            }
            for opener in [Opener::Server(&*case.server), Opener::Shared(&case.shared)] {
                let fits = matches!(opener, Opener::Shared(_)) == (form == Form::Digest);
                let transaction = &example_bytes();
                let opened = verify_password(
                    &case.provider,
                    opener,
                    SERIAL,
                    transaction,
                    &commitment,
                    &password,
                );
                assert_eq!(opened.is_ok(), fits, "{form:?}");
            }
        }
    }
}

/// A sealed password without its random bytes is no sealed-random one, and the other way round,
/// even for one who can encrypt to the server: the form is in what is encrypted.
#[test]
fn what_is_sealed_has_exactly_the_text_of_its_form() {
    for mut case in Case::all(6) {
        let password = case.password();
        for (form, random) in [(Form::Sealed, 0), (Form::SealedRandom, 16)] {
            let commitment = case.commit(form, &password);
            let text = case.server.decrypt(&commitment.as_bytes()[1..]).unwrap();
            let label = b"countersign.joint.sealed.v1\0";
            assert_eq!(text.len(), label.len() + HASH_LEN + DIGITS + random);
            assert!(text.expose().starts_with(label));
            let end = text.len() - random;
            assert_eq!(&text.expose()[end - DIGITS..end], password.digits().as_bytes());
            let longer = [text.expose(), &[0]].concat();
            for wrong in [&text.expose()[..text.len() - 1], &longer] {
                let point = case.server.public_key().to_vec();
                let sealed = case.provider.sealing.encrypt(&mut case.rng, &point, wrong).unwrap();
                let wrong = parsed(&[&[form.code()], &sealed[..]].concat()).unwrap();
                let found = case.verified(SERIAL, &example_bytes(), &wrong, &password);
                assert_eq!(found, Err(PaymentError::JointSealed), "{form:?}");
            }
        }
    }
}

/// The same password and the same transaction again: nothing of the two commitments is the same, so
/// that neither tells of the other, and no guess can be compared.
#[test]
fn the_same_password_is_never_committed_to_alike() {
    for mut case in Case::all(7) {
        for form in Form::ALL {
            let password = case.password();
            let [one, other] = [(); 2].map(|()| case.commit(form, &password));
            let differ = one.as_bytes().iter().zip(other.as_bytes()).filter(|(a, b)| a != b);
            assert!(differ.count() > 40, "{form:?}");
            if form == Form::Digest {
                let (salt, digest) = (1..1 + SALT_LEN, 1 + SALT_LEN..);
                assert_ne!(one.as_bytes()[salt.clone()], other.as_bytes()[salt]);
                assert_ne!(one.as_bytes()[digest.clone()], other.as_bytes()[digest]);
            }
            assert!(case.opens(&one, &password) && case.opens(&other, &password));
        }
    }
}

/// Over every bit of every commitment: neither the signature verifies nor does the password open.
#[test]
fn every_flipped_bit_of_a_commitment_is_noticed() {
    for mut case in Case::all(8) {
        for form in Form::ALL {
            let password = case.password();
            let commitment = case.commit(form, &password);
            let signature = case.sign(&commitment);
            for bit in 0..commitment.as_bytes().len() * 8 {
                let mut bytes = commitment.as_bytes().to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let Ok(flipped) = parsed(&bytes) else { continue };
                assert!(!case.opens(&flipped, &password), "{form:?}, bit {bit}");
                // A verification is dear: one bit of each byte, another in each.
                if bit % 8 == bit / 8 % 8 {
                    assert!(!case.signed(&example_bytes(), &flipped, &signature));
                }
            }
        }
    }
}

#[test]
fn every_flipped_bit_of_a_signature_or_a_transaction_is_noticed() {
    for mut case in Case::all(9) {
        let password = case.password();
        let commitment = case.commit(Form::SealedRandom, &password);
        let signature = case.sign(&commitment);
        for bit in 0..signature.len() * 8 {
            let mut flipped = signature.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!case.signed(&example_bytes(), &commitment, &flipped), "bit {bit}");
        }
        // Of a transaction every flip gives another statement; some of these are verified.
        let hash = &*case.provider.hash;
        let genuine = statement(hash, &example_bytes(), &commitment);
        for bit in 0..example_bytes().len() * 8 {
            let mut flipped = example_bytes();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(statement(hash, &flipped, &commitment), genuine, "bit {bit}");
            if bit % 29 == 0 {
                assert!(!case.signed(&flipped, &commitment, &signature), "bit {bit}");
                assert!(!case.opens_for(SERIAL, &flipped, &commitment, &password));
            }
        }
    }
}

#[test]
fn signatures_and_commitments_do_not_change_partners() {
    for mut case in Case::all(10) {
        let other_card = Case::new(case.provider.suite, 11);
        for form in Form::ALL {
            let [one, other] = [(); 2].map(|()| case.password());
            let (first, second) = (case.commit(form, &one), case.commit(form, &other));
            let (by_first, by_second) = (case.sign(&first), case.sign(&second));
            assert!(!case.signed(&example_bytes(), &first, &by_second));
            assert!(!case.signed(&example_bytes(), &second, &by_first));
            assert!(!other_card.signed(&example_bytes(), &first, &by_first), "another card's");
        }
    }
}

#[test]
fn a_signature_for_anything_else_is_none() {
    for mut case in Case::all(12) {
        let password = case.password();
        let commitment = case.commit(Form::Digest, &password);
        // As a confirmation of the other kind of device, and over the statement without its domain.
        let confirmation = crate::sign(&*case.card, &mut case.rng, &example_bytes()).unwrap();
        let hash = &*case.provider.hash;
        let bare = statement(hash, &example_bytes(), &commitment)[DOMAIN.len()..].to_vec();
        let bare = case.card.sign(&mut case.rng, &bare).unwrap();
        let long = vec![0x30; SIGNATURE_MAX + 1];
        for wrong in [&confirmation[..], &bare, &[], &[0x30], &[0; 72], &[0xff; 4096], &long] {
            assert!(!case.signed(&example_bytes(), &commitment, wrong));
        }
        let signature = case.sign(&commitment);
        assert!(crate::verify(&*case.public, &example_bytes(), &signature).is_err());
    }
}

#[test]
fn what_cannot_be_shown_is_not_signed() {
    for mut case in Case::all(13) {
        let password = case.password();
        let commitment = case.commit(Form::Sealed, &password);
        let hash = case.provider.hash.clone();
        for wrong in [&b""[..], b"{}", &[b' '; 5000]] {
            assert!(sign(&*case.card, &mut case.rng, &*hash, wrong, &commitment).is_err());
        }
    }
}

#[test]
fn nothing_is_committed_to_with_wrong_keys() {
    for mut case in Case::all(14) {
        let password = case.password();
        let transaction = example_bytes();
        let good = case.server.public_key().to_vec();
        let mut off_curve = good.clone();
        off_curve[64] ^= 1;
        let shared = |len| Secret::new(vec![7; len]);
        for (form, point, shared) in [
            (Form::Sealed, &[][..], shared(SHARED_LEN)),
            (Form::Sealed, &off_curve, shared(SHARED_LEN)),
            (Form::SealedRandom, &good[..64], shared(SHARED_LEN)),
            (Form::Digest, &good, shared(SHARED_LEN - 1)),
            (Form::Digest, &good, shared(SHARED_LEN + 1)),
            (Form::Digest, &good, shared(0)),
        ] {
            let to = SealTo { server_point: point, shared: &shared };
            let (provider, rng) = (&case.provider, &mut case.rng);
            let made = commit(provider, rng, form, SERIAL, &transaction, &password, &to);
            assert_eq!(made, Err(PaymentError::Signing), "{form:?}");
        }
        for serial in ["", &"S".repeat(65)] {
            let made = case.commit_to(Form::Digest, serial, &transaction, &password);
            assert_eq!(made, Err(PaymentError::Signing));
        }
    }
}

#[test]
fn lengths_of_commitments_are_bounded() {
    for form in Form::ALL {
        let with = |len: usize| parsed(&[&[form.code()][..], &vec![0x55; len]].concat()).is_ok();
        let accepted: Vec<usize> = (0..COMMITMENT_MAX + 10).filter(|&len| with(len)).collect();
        let wanted: Vec<usize> = match form {
            Form::Digest => vec![SALT_LEN + HASH_LEN],
            Form::Sealed | Form::SealedRandom => (105..COMMITMENT_MAX).collect(),
        };
        assert_eq!(accepted, wanted, "{form:?}");
    }
    for bad in [&[][..], &[0], &[4], &[0; 49], &[4; 49], &[0xff; 1 << 20]] {
        assert_eq!(parsed(bad), Err(PaymentError::JointForm));
    }
    // What is made fits, with room to spare.
    for mut case in Case::all(15) {
        for form in Form::ALL {
            let password = case.password();
            let made = case.commit(form, &password);
            assert!(made.as_bytes().len() <= COMMITMENT_MAX - 32, "{form:?}");
            assert!(form == Form::Digest || made.as_bytes().len() > 65 + AEAD_TAG_LEN + DIGITS);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn what_is_parsed_is_kept_and_any_bytes_are_survived(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..300), code in 0..5_u8,
        number in any::<u64>(),
    ) {
        if let Some(first) = bytes.first_mut() {
            *first = code;
        }
        let Ok(read) = parsed(&bytes) else { return Ok(()) };
        prop_assert_eq!(read.as_bytes(), &bytes[..]);
        let mut case = Case::new(Suite::X25519_P256_AES128GCM_SHA256, number);
        let password = case.password();
        prop_assert!(!case.opens(&read, &password));
    }
}
