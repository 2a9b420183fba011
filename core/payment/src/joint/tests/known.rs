//! What is hashed and derived, by its known answers.

use countersign_crypto::{CryptoRng, Secret, Suite, provider_of};
use data_encoding::HEXLOWER;

use super::*;

/// A generator that gives the salt of the known answers.
struct Salt;

impl rand_core::TryRng for Salt {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(0)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(0)
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Self::Error> {
        to.iter_mut().zip(0x80..).for_each(|(byte, value)| *byte = value);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Salt {}

/// Made from the description in `sealing.rs` with Python's `cryptography`, which shares no code
/// with this: HKDF by HMAC, AES-128-GCM and SM4-GCM.
#[test]
fn digest_form_and_hashes_have_their_known_answers() {
    let known = [
        (
            Suite::X25519_P256_AES128GCM_SHA256,
            "04d00ba6e1728f2ca4f91513dce74643c0df62fc22c23dfb5e818f217ccae30f",
            "de1c8074a44b956276f2cef98c5369ac35737fd437d149d9ecd7f523a694ce8e",
            "34e7d8185bbf8a4aae165e2c081283b791183d7ca456f10a7800578443b4f16d",
        ),
        (
            Suite::SM2_SM4GCM_SM3,
            "86f16f78b83e383c6fb6520f33afade6853c6cc336c06b6f9660ac005ec1c1d5",
            "463c96e85a34401e62798b8a692b4dfbf79d94b525121e9ff9ccf15c64654feb",
            "dc16a013deaf146be763645eb658e1267c7ff66d68b5a0ed620f2632e639f1ea",
        ),
    ];
    for (suite, transaction, digest, release) in known {
        let provider = provider_of(suite).unwrap();
        let password = JointPassword::parse("123456788").unwrap();
        let shared = Secret::new((0..32).collect());
        let to = SealTo { server_point: &[], shared: &shared };
        let text = b"a transaction";
        let rng: &mut dyn CryptoRng = &mut Salt;
        let made = commit(&provider, rng, Form::Digest, SERIAL, text, &password, &to).unwrap();
        let body = ["03808182838485868788898a8b8c8d8e8f", digest].concat();
        assert_eq!(HEXLOWER.encode(made.as_bytes()), body);
        let signed = statement(&*provider.hash, text, &made);
        let domain = HEXLOWER.encode(b"countersign.payment.joint.v1\0");
        assert_eq!(HEXLOWER.encode(&signed), [&domain, transaction, &body].concat());
        let shown = release_hash(&*provider.hash, &made, b"signature");
        assert_eq!(HEXLOWER.encode(&shown), release);
    }
}

#[test]
fn the_hash_for_the_release_is_of_this_signing_only() {
    for mut case in Case::all(16) {
        let password = case.password();
        let [one, other] = [(); 2].map(|()| case.commit(Form::Sealed, &password));
        let hash = &*case.provider.hash;
        let shown = release_hash(hash, &one, b"signature");
        assert_ne!(release_hash(hash, &other, b"signature"), shown);
        assert_ne!(release_hash(hash, &one, b"signaturf"), shown);
        assert_ne!(release_hash(hash, &one, b""), shown);
    }
}
