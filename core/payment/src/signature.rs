use alloc::vec::Vec;

use countersign_crypto::{CryptoRng, HASH_LEN, SecureElement, VerifyingKey};
use sha2::{Digest as _, Sha256};

use crate::{ConfirmationRequest, PaymentError};

/// What every signed confirmation begins with, so that no signature made for anything else is one.
pub const DOMAIN: &[u8] = b"countersign.payment.confirmation.v1\0";

/// What is signed (D4): [`DOMAIN`], then the bytes of the confirmation request as they were sent.
#[must_use]
pub fn signing_input(request: &[u8]) -> Vec<u8> {
    [DOMAIN, request].concat()
}

/// SHA-256 of [`signing_input`]: the question of an OCRA answer, and how receipts name a request.
#[must_use]
pub fn request_hash(request: &[u8]) -> [u8; HASH_LEN] {
    Sha256::new().chain_update(DOMAIN).chain_update(request).finalize().into()
}

/// Signs the bytes of a confirmation request with a device's key. It must be one: a device signs
/// nothing that it could not show.
///
/// # Errors
/// As [`ConfirmationRequest::parse`]; [`PaymentError::Signing`] if the element does not sign.
pub fn sign(
    key: &dyn SecureElement,
    rng: &mut dyn CryptoRng,
    request: &[u8],
) -> Result<Vec<u8>, PaymentError> {
    ConfirmationRequest::parse(request)?;
    key.sign(rng, &signing_input(request)).map_err(|_| PaymentError::Signing)
}

/// Verifies a device's signature over the bytes of a confirmation request as the server holds them
/// (D5). `key` comes from the device's certificate, so its suite says which algorithm.
///
/// # Errors
/// [`PaymentError::Signature`], whatever the reason.
pub fn verify(
    key: &dyn VerifyingKey,
    request: &[u8],
    signature: &[u8],
) -> Result<(), PaymentError> {
    key.verify(&signing_input(request), signature).map_err(|_| PaymentError::Signature)
}

#[cfg(test)]
mod tests {
    use countersign_crypto::{Provider, Suite, provider_of};
    use proptest::prelude::*;
    use testkit::rng::seeded;

    use super::*;
    use crate::request::tests::{example, example_bytes};

    fn providers() -> impl Iterator<Item = Provider> {
        Suite::known().filter_map(provider_of)
    }

    fn signed(provider: &Provider) -> (std::sync::Arc<dyn VerifyingKey>, Vec<u8>) {
        let mut rng = seeded(1);
        let key = provider.signature.generate(&mut rng).unwrap().key;
        let signature = sign(&*key, &mut rng, &example_bytes()).unwrap();
        (provider.signature.public_key(key.public_key()).unwrap(), signature)
    }

    #[test]
    fn both_suites_sign_and_verify() {
        assert_eq!(providers().count(), 2);
        for provider in providers() {
            let (key, signature) = signed(&provider);
            assert_eq!(verify(&*key, &example_bytes(), &signature), Ok(()));
            let mut rng = seeded(2);
            let other = provider.signature.generate(&mut rng).unwrap().key;
            let other = provider.signature.public_key(other.public_key()).unwrap();
            assert_eq!(verify(&*other, &example_bytes(), &signature), Err(PaymentError::Signature));
        }
    }

    #[test]
    fn a_signature_for_anything_else_is_none() {
        for provider in providers() {
            let mut rng = seeded(3);
            let key = provider.signature.generate(&mut rng).unwrap().key;
            let public = provider.signature.public_key(key.public_key()).unwrap();
            // Over the same bytes, but not as a confirmation: as a document of another kind.
            let bare = key.sign(&mut rng, &example_bytes()).unwrap();
            assert_eq!(verify(&*public, &example_bytes(), &bare), Err(PaymentError::Signature));
            let mut next = example();
            next.payment = "pay_other".into();
            let other = sign(&*key, &mut rng, &next.to_bytes().unwrap()).unwrap();
            assert_eq!(verify(&*public, &example_bytes(), &other), Err(PaymentError::Signature));
            for garbage in [&[][..], &[0x30], &[0; 72], &[0xff; 4096]] {
                assert_eq!(
                    verify(&*public, &example_bytes(), garbage),
                    Err(PaymentError::Signature)
                );
            }
        }
    }

    #[test]
    fn what_cannot_be_shown_is_not_signed() {
        let provider = provider_of(Suite::X25519_P256_AES128GCM_SHA256).unwrap();
        let mut rng = seeded(4);
        let key = provider.signature.generate(&mut rng).unwrap().key;
        for wrong in [&b""[..], b"{}", &[b' '; 5000]] {
            assert!(sign(&*key, &mut rng, wrong).is_err());
        }
    }

    #[test]
    fn the_hash_is_over_what_is_signed() {
        let hash: [u8; 32] = Sha256::digest(signing_input(&example_bytes())).into();
        assert_eq!(request_hash(&example_bytes()), hash);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn each_flipped_bit_of_the_request_or_the_signature_is_noticed(
            at in any::<prop::sample::Index>(), bit in 0..8_u32, of_signature in any::<bool>(),
        ) {
            for provider in providers() {
                let (key, mut signature) = signed(&provider);
                let mut request = example_bytes();
                let flipped = if of_signature { &mut signature } else { &mut request };
                let at = at.index(flipped.len());
                flipped[at] ^= 1 << bit;
                prop_assert_eq!(verify(&*key, &request, &signature), Err(PaymentError::Signature));
            }
        }
    }
}
