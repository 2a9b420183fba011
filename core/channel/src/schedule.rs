//! The key schedule: HKDF, one key per purpose and direction.

use alloc::boxed::Box;

use countersign_crypto::{
    AEAD_KEY_LEN, AEAD_NONCE_LEN, AeadKey, CryptoError, HASH_LEN, Provider, Secret,
};

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
            let iv = key(iv_label, AEAD_NONCE_LEN)?;
            let iv = iv.expose().try_into().map_err(|_| Error::Local(CryptoError::Failed))?;
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
