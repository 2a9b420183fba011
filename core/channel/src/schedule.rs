//! The key schedule: HKDF, one key per purpose and direction.

use alloc::boxed::Box;

use countersign_crypto::{
    AEAD_KEY_LEN, AEAD_NONCE_LEN, AeadKey, CryptoError, HASH_LEN, Provider, Secret,
};

use zeroize::Zeroizing;

use crate::Error;
use crate::record::DirectionKeys;
use crate::transcript::{CONTEXT, Role, Transcript};

/// Derives `len` bytes under `label`, bound to mode and transcript.
fn expand(
    provider: &Provider,
    prk: &Secret,
    transcript: &Transcript,
    label: &[u8],
    len: usize,
) -> Result<Secret, Error> {
    let label_len = [u8::try_from(label.len()).expect("labels are short literals")];
    let info: [&[u8]; 5] =
        [CONTEXT, &[transcript.mode_byte()], &label_len, label, transcript.hash()];
    provider.kdf.expand(prk, &info, len).map_err(Error::Local)
}

/// The key under which M3 seals `R3` to the reader's signed ephemeral share: the channel's
/// realisation of the patent's `E_reader(R3)`.
pub(crate) fn sealing_key(
    provider: &Provider,
    transcript: &Transcript,
    shared: &Secret,
) -> Result<Box<dyn AeadKey>, Error> {
    let prk = provider.kdf.extract(transcript.hash(), shared.expose());
    let key = expand(provider, &prk, transcript, b"seal R3", AEAD_KEY_LEN)?;
    provider.aead.key(&key).map_err(Error::Local)
}

/// `R3 = f(R1, R2)` (S106 of the patent).
pub(crate) fn r3(provider: &Provider, r1: &[u8], r2: &Secret) -> Result<Secret, Error> {
    let prk = provider.kdf.extract(r1, r2.expose());
    provider.kdf.expand(&prk, &[CONTEXT, b" R3"], HASH_LEN).map_err(Error::Local)
}

/// All keys of one session; the two parties derive the same.
pub(crate) struct SessionKeys {
    finished_reader: Secret,
    finished_server: Secret,
    pub(crate) to_server: DirectionKeys,
    pub(crate) to_reader: DirectionKeys,
    exporter: Secret,
}

impl SessionKeys {
    /// From `R3 ‖ ECDH` and the transcript through the server's signature. `R3` has a fixed length,
    /// so the concatenation is unambiguous.
    pub(crate) fn derive(
        provider: &Provider,
        transcript: &Transcript,
        r3: &Secret,
        shared: &Secret,
    ) -> Result<Self, Error> {
        let len = r3.len() + shared.len();
        let input = Secret::try_filled(len, |out| {
            let (first, second) = out.split_at_mut(r3.len());
            first.copy_from_slice(r3.expose());
            second.copy_from_slice(shared.expose());
            Ok::<_, CryptoError>(())
        })
        .map_err(Error::Local)?;
        let prk = provider.kdf.extract(transcript.hash(), input.expose());
        let key = |label: &[u8], len| expand(provider, &prk, transcript, label, len);
        let direction = |key_label: &[u8], iv_label: &[u8]| -> Result<DirectionKeys, Error> {
            let aead = provider.aead.key(&key(key_label, AEAD_KEY_LEN)?).map_err(Error::Local)?;
            let derived = key(iv_label, AEAD_NONCE_LEN)?;
            let mut iv = Zeroizing::new([0; AEAD_NONCE_LEN]);
            iv.copy_from_slice(derived.expose());
            Ok(DirectionKeys::new(aead, iv))
        };
        Ok(Self {
            finished_reader: key(b"finished reader", HASH_LEN)?,
            finished_server: key(b"finished server", HASH_LEN)?,
            to_server: direction(b"key reader to server", b"iv reader to server")?,
            to_reader: direction(b"key server to reader", b"iv server to reader")?,
            exporter: key(b"exporter", HASH_LEN)?,
        })
    }

    fn finished_key(&self, role: Role) -> &Secret {
        match role {
            Role::Reader => &self.finished_reader,
            Role::Server => &self.finished_server,
        }
    }

    /// `Fin`: key confirmation by `role`.
    pub(crate) fn finished(
        &self,
        provider: &Provider,
        role: Role,
        transcript: &Transcript,
    ) -> [u8; HASH_LEN] {
        let key = self.finished_key(role).expose();
        provider.mac.mac(key, &[CONTEXT, b" finished", &[role as u8], transcript.hash()])
    }

    pub(crate) fn verify_finished(
        &self,
        provider: &Provider,
        role: Role,
        transcript: &Transcript,
        tag: &[u8],
    ) -> Result<(), Error> {
        let key = self.finished_key(role).expose();
        let parts: [&[u8]; 4] = [CONTEXT, b" finished", &[role as u8], transcript.hash()];
        provider.mac.verify(key, &parts, tag).map_err(|_| Error::Authentication("finished"))
    }

    pub(crate) fn into_parts(
        self,
        provider: &Provider,
    ) -> (DirectionKeys, DirectionKeys, Exporter) {
        let exporter = Exporter { provider: provider.clone(), secret: self.exporter };
        (self.to_server, self.to_reader, exporter)
    }
}

/// Derives further keys from a finished session, the same on both sides.
pub struct Exporter {
    provider: Provider,
    secret: Secret,
}

impl Exporter {
    /// `len` bytes for `label` and `context`; both are framed.
    ///
    /// # Errors
    /// [`Error::Local`] if `len` exceeds what HKDF gives (8160 bytes).
    pub fn export(&self, label: &str, context: &[u8], len: usize) -> Result<Secret, Error> {
        let label_len = (label.len() as u64).to_be_bytes();
        let info: [&[u8]; 5] = [CONTEXT, b" export", &label_len, label.as_bytes(), context];
        self.provider.kdf.expand(&self.secret, &info, len).map_err(Error::Local)
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use countersign_crypto::rust_crypto;

    use super::*;
    use crate::wire::{Kind, Mode};

    fn transcript(bytes: &[u8]) -> Transcript {
        let provider = rust_crypto::provider();
        Transcript::new(&provider, Mode::C1).append(&*provider.hash, bytes)
    }

    fn keys(transcript: &Transcript, r3: &[u8], shared: &[u8]) -> SessionKeys {
        let secret = Secret::copied_from;
        SessionKeys::derive(&rust_crypto::provider(), transcript, &secret(r3), &secret(shared))
            .expect("keys")
    }

    /// What two parties with these inputs would put on the wire.
    fn outputs(transcript: &Transcript, r3: &[u8], shared: &[u8]) -> Vec<Vec<u8>> {
        let provider = rust_crypto::provider();
        let keys = keys(transcript, r3, shared);
        let mut outputs = vec![
            keys.finished(&provider, Role::Reader, transcript).to_vec(),
            keys.finished(&provider, Role::Server, transcript).to_vec(),
        ];
        let (mut to_server, mut to_reader, exporter) = keys.into_parts(&provider);
        outputs.push(to_server.seal_data(Mode::C1, b"data").expect("sealed"));
        outputs.push(to_reader.seal_data(Mode::C1, b"data").expect("sealed"));
        outputs.push(exporter.export("x", b"", 32).expect("exported").expose().to_vec());
        outputs
    }

    /// Every purpose, role and direction has a key of its own (G9).
    #[test]
    fn purposes_roles_and_directions_differ() {
        let outputs = outputs(&transcript(b"t"), &[1; 32], &[2; 32]);
        for (at, one) in outputs.iter().enumerate() {
            assert!(outputs[at + 1..].iter().all(|other| other != one), "output {at}");
        }
    }

    /// Every input reaches every output (G2, G3, G6): transcript, R3, exchange.
    #[test]
    fn every_input_changes_every_output() {
        let base = outputs(&transcript(b"t"), &[1; 32], &[2; 32]);
        for changed in [
            outputs(&transcript(b"u"), &[1; 32], &[2; 32]),
            outputs(&transcript(b"t"), &[3; 32], &[2; 32]),
            outputs(&transcript(b"t"), &[1; 32], &[4; 32]),
        ] {
            for (at, (one, other)) in base.iter().zip(&changed).enumerate() {
                assert_ne!(one, other, "output {at}");
            }
        }
    }

    /// A server's confirmation is not a reader's, whatever the key (reflection, G9).
    #[test]
    fn the_finished_mac_has_its_role_in_it() {
        let provider = rust_crypto::provider();
        let transcript = transcript(b"t");
        let mut keys = keys(&transcript, &[1; 32], &[2; 32]);
        keys.finished_reader = Secret::copied_from(keys.finished_server.expose());
        let fin = keys.finished(&provider, Role::Server, &transcript);
        let same = keys.verify_finished(&provider, Role::Server, &transcript, &fin);
        assert_eq!(same, Ok(()));
        let reflected = keys.verify_finished(&provider, Role::Reader, &transcript, &fin);
        assert_eq!(reflected, Err(Error::Authentication("finished")));
    }

    /// Signatures name role and signed id; parts of a transcript cannot be moved across borders.
    #[test]
    fn signatures_and_transcripts_are_unambiguous() {
        let one = transcript(b"t");
        assert_ne!(one.to_be_signed(Role::Reader, b""), one.to_be_signed(Role::Server, b""));
        assert_ne!(one.to_be_signed(Role::Reader, b"a"), one.to_be_signed(Role::Reader, b"b"));
        assert!(one.to_be_signed(Role::Reader, b"a").starts_with(b"Countersign v1 signature"));
        let provider = rust_crypto::provider();
        let hash = &*provider.hash;
        let split = |first: &[u8], second: &[u8]| {
            let fresh = Transcript::new(&provider, Mode::C1);
            *fresh.append(hash, first).append(hash, second).hash()
        };
        assert_ne!(split(b"ab", b"c"), split(b"a", b"bc"));
        assert_ne!(split(b"", b"abc"), split(b"abc", b""));
        // The mode is the first thing in the transcript, and in every frame.
        let plain = provider.hash.hash(&[CONTEXT, b" transcript", &[2]]);
        assert_ne!(*Transcript::new(&provider, Mode::C1).hash(), plain);
        assert_eq!(crate::wire::header(Mode::C1, Kind::Record, 1)[3], 1);
    }
}
