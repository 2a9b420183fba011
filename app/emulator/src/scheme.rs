use countersign_crypto::{
    AEAD_KEY_LEN, AEAD_NONCE_LEN, AEAD_TAG_LEN, AeadKey, CryptoError, CryptoRng, HASH_LEN,
    Provider, Secret,
};
use countersign_idcard::record::RecordError;
use countersign_idcard::{
    CHALLENGE_LEN, Challenge, Configuration, DataError, ENCRYPTED_BASE_LEN, ENCRYPTED_LEN_MAX,
    EncryptedData, FILE_FINGERPRINT_LEN, FILE_HEADER_LEN, FILE_PHOTO_LEN, FILE_TEXT_LEN, PHOTO_LEN,
    PlainData, Proof, TEXT_LEN,
};
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of the master key that emulated cards and SAM modules share.
pub const MASTER_KEY_LEN: usize = 32;

/// What the header file begins with, so that nobody takes it for a real card's.
const MARK: &[u8; 8] = b"EMULATED";
const LABEL: &[u8] = b"Countersign emulator, not a real card scheme, v1";

// Text and photo keep their lengths; nonces and tags live in the header file.
const _: () = assert!(FILE_TEXT_LEN == TEXT_LEN && FILE_PHOTO_LEN == PHOTO_LEN);
const _: () = assert!(MARK.len() + 2 * (AEAD_NONCE_LEN + AEAD_TAG_LEN) + 2 <= FILE_HEADER_LEN);

/// Why an emulated card cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EmulatorError {
    /// The document has a bad field.
    #[error("the document's {0}")]
    Record(#[from] RecordError),
    /// A part has a wrong length.
    #[error("the card's {0}")]
    Data(#[from] DataError),
    /// The crypto provider failed.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

/// The emulator's own card scheme (labelled so, see the crate's docs).
///
/// Per card, HKDF makes an authentication key and a data key from the master key and the card's
/// configuration. Answers and proofs are truncated HMACs over the challenge; text with photo, and
/// the fingerprint, are each sealed with AES-GCM, with the configuration as associated data.
pub struct Scheme {
    provider: Provider,
    prk: Secret,
}

impl Scheme {
    /// The scheme under `master` ([`MASTER_KEY_LEN`] bytes).
    #[must_use]
    pub fn new(provider: Provider, master: &[u8; MASTER_KEY_LEN]) -> Self {
        let prk = provider.kdf.extract(LABEL, master);
        Self { provider, prk }
    }

    /// The scheme under the well-known key of demo and samples. Not a secret.
    #[must_use]
    pub fn with_demo_key(provider: Provider) -> Self {
        Self::new(provider, b"countersign emulator demo key 01")
    }

    /// The card's answer to the SAM's challenge.
    ///
    /// # Errors
    /// [`CryptoError`] from the provider.
    pub fn card_answer(
        &self,
        configuration: &Configuration,
        challenge: &Challenge,
    ) -> Result<Challenge, CryptoError> {
        self.tag(configuration, &[b"card answer", challenge])
    }

    /// The SAM's proof for the card's random number.
    ///
    /// # Errors
    /// [`CryptoError`] from the provider.
    pub fn sam_proof(
        &self,
        configuration: &Configuration,
        challenge: &Challenge,
        random: &Challenge,
    ) -> Result<Proof, CryptoError> {
        self.tag(configuration, &[b"sam proof", challenge, random])
    }

    /// The card's encrypted files.
    ///
    /// # Errors
    /// [`CryptoError`] from the provider.
    pub fn encrypt(
        &self,
        rng: &mut dyn CryptoRng,
        configuration: &Configuration,
        plain: &PlainData,
    ) -> Result<EncryptedData, EmulatorError> {
        let key = self.data_key(configuration)?;
        let finger = plain.fingerprint();
        let mut base = Zeroizing::new(Vec::with_capacity(TEXT_LEN + PHOTO_LEN + AEAD_TAG_LEN));
        base.extend_from_slice(plain.text());
        base.extend_from_slice(plain.photo());
        let (base_nonce, base_tag) = seal(&*key, rng, &aad(configuration, b'B'), &mut base)?;

        let mut header = Vec::with_capacity(FILE_HEADER_LEN);
        header.extend_from_slice(MARK);
        header.extend_from_slice(&base_nonce);
        header.extend_from_slice(&base_tag);
        let mut finger_file = None;
        if let Some(finger) = finger {
            let mut file = Zeroizing::new(finger.to_vec());
            let (nonce, tag) = seal(&*key, rng, &aad(configuration, b'F'), &mut file)?;
            header.extend_from_slice(&nonce);
            header.extend_from_slice(&tag);
            let len = u16::try_from(finger.len()).map_err(|_| CryptoError::TooLong)?;
            header.extend_from_slice(&len.to_be_bytes());
            file.resize(FILE_FINGERPRINT_LEN, 0);
            finger_file = Some(file);
        }
        header.resize(FILE_HEADER_LEN, 0);

        let mut all = Zeroizing::new(Vec::with_capacity(ENCRYPTED_LEN_MAX));
        all.extend_from_slice(&header);
        all.extend_from_slice(&base);
        all.extend_from_slice(finger_file.as_deref().map_or(&[][..], Vec::as_slice));
        Ok(EncryptedData::new(all)?)
    }

    /// What the SAM makes of the card's encrypted files.
    ///
    /// # Errors
    /// [`CryptoError::BadAuthentication`] if they are not this card's, or altered.
    pub fn decrypt(
        &self,
        configuration: &Configuration,
        data: &[u8],
    ) -> Result<PlainData, CryptoError> {
        const BASE: usize = MARK.len();
        const FINGER: usize = BASE + AEAD_NONCE_LEN + AEAD_TAG_LEN;
        const FINGER_LEN: usize = FINGER + AEAD_NONCE_LEN + AEAD_TAG_LEN;
        let bad = CryptoError::BadAuthentication;
        if !matches!(data.len(), ENCRYPTED_BASE_LEN | ENCRYPTED_LEN_MAX) || !data.starts_with(MARK)
        {
            return Err(bad);
        }
        let key = self.data_key(configuration)?;
        let (header, files) = data.split_at(FILE_HEADER_LEN);
        let (base, finger) = files.split_at(TEXT_LEN + PHOTO_LEN);
        let base = open(&*key, &header[BASE..FINGER], &aad(configuration, b'B'), base)?;
        let len = usize::from(u16::from_be_bytes([header[FINGER_LEN], header[FINGER_LEN + 1]]));
        let finger = match finger.get(..len) {
            Some(file) if len > 0 => {
                let proof = &header[FINGER..FINGER_LEN];
                let opened = open(&*key, proof, &aad(configuration, b'F'), file)?;
                Some(Secret::copied_from(&opened))
            }
            _ => None,
        };
        let text = Secret::copied_from(&base[..TEXT_LEN]);
        PlainData::new(text, Secret::copied_from(&base[TEXT_LEN..]), finger).map_err(|_| bad)
    }

    fn tag(
        &self,
        configuration: &Configuration,
        parts: &[&[u8]],
    ) -> Result<[u8; CHALLENGE_LEN], CryptoError> {
        let info = [b"authentication".as_slice(), configuration.as_bytes()];
        let key = self.provider.kdf.expand(&self.prk, &info, HASH_LEN)?;
        let mac = self.provider.mac.mac(key.expose(), parts);
        let mut tag = [0; CHALLENGE_LEN];
        tag.copy_from_slice(&mac[..CHALLENGE_LEN]);
        Ok(tag)
    }

    fn data_key(&self, configuration: &Configuration) -> Result<Box<dyn AeadKey>, CryptoError> {
        let info = [b"data".as_slice(), configuration.as_bytes()];
        let key = self.provider.kdf.expand(&self.prk, &info, AEAD_KEY_LEN)?;
        self.provider.aead.key(&key)
    }
}

impl std::fmt::Debug for Scheme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scheme(..)")
    }
}

fn aad(configuration: &Configuration, part: u8) -> Vec<u8> {
    let mut aad = configuration.as_bytes().to_vec();
    aad.push(part);
    aad
}

type NonceAndTag = ([u8; AEAD_NONCE_LEN], [u8; AEAD_TAG_LEN]);

/// Encrypts in place; the tag goes elsewhere, because the files keep their lengths.
fn seal(
    key: &dyn AeadKey,
    rng: &mut dyn CryptoRng,
    aad: &[u8],
    data: &mut Vec<u8>,
) -> Result<NonceAndTag, CryptoError> {
    let mut nonce = [0; AEAD_NONCE_LEN];
    rng.fill_bytes(&mut nonce);
    key.seal(&nonce, aad, data)?;
    let body = data.len() - AEAD_TAG_LEN;
    let tag = data[body..].try_into().map_err(|_| CryptoError::Failed)?;
    data.truncate(body);
    Ok((nonce, tag))
}

fn open(
    key: &dyn AeadKey,
    nonce_and_tag: &[u8],
    aad: &[u8],
    file: &[u8],
) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let (nonce, tag) = nonce_and_tag.split_first_chunk().ok_or(CryptoError::Failed)?;
    let mut data = Zeroizing::new(Vec::with_capacity(file.len() + tag.len()));
    data.extend_from_slice(file);
    data.extend_from_slice(tag);
    key.open(nonce, aad, &mut data)?;
    Ok(data)
}
