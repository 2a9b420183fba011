use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_crypto::{CryptoRng, Secret};
use countersign_idcard::card::{
    CardError, CardLink, CardPresent, FILE_CONFIGURATION, FILE_FINGERPRINT, FILE_HEADER,
    FILE_PHOTO, FILE_TEXT, READ_CHUNK_MAX, SW_FILE_NOT_FOUND, SW_OK,
};
use countersign_idcard::record::IdRecord;
use countersign_idcard::{
    CHALLENGE_LEN, CONFIGURATION_LEN, Challenge, Configuration, ENCRYPTED_BASE_LEN, EncryptedData,
    FILE_HEADER_LEN, FILE_TEXT_LEN, PHOTO_LEN, PlainData,
};
use zeroize::Zeroizing;

use crate::{EmulatorError, Scheme};

const SW_WRONG_LENGTH: u16 = 0x6700;
const SW_NOT_PERMITTED: u16 = 0x6982;
const SW_WRONG_PROOF: u16 = 0x6300;
const SW_WRONG_OFFSET: u16 = 0x6B00;
const SW_UNKNOWN_INSTRUCTION: u16 = 0x6D00;

/// An emulated card's content: what a card maker would have written into it.
#[derive(Debug)]
pub struct CardImage {
    configuration: Configuration,
    encrypted: EncryptedData,
}

impl CardImage {
    /// Personalises a card. `serial` makes its configuration; the photo is made up unless given.
    ///
    /// # Errors
    /// [`EmulatorError`] for a document with a bad field or a fingerprint of wrong length.
    pub fn new(
        scheme: &Scheme,
        rng: &mut dyn CryptoRng,
        serial: u64,
        record: &IdRecord,
        photo: Option<&[u8; PHOTO_LEN]>,
        fingerprint: Option<&[u8]>,
    ) -> Result<Self, EmulatorError> {
        let configuration = configuration(serial);
        let text = Secret::copied_from(record.encode()?.as_slice());
        let photo = photo.map_or_else(placeholder_photo, |photo| Secret::copied_from(photo));
        let plain = PlainData::new(text, photo, fingerprint.map(Secret::copied_from))?;
        let encrypted = scheme.encrypt(rng, &configuration, &plain)?;
        Ok(Self { configuration, encrypted })
    }

    /// The card's plaintext configuration.
    #[must_use]
    pub const fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    fn file(&self, id: u16) -> Option<&[u8]> {
        let data = self.encrypted.as_bytes();
        let text = FILE_HEADER_LEN;
        let photo = FILE_HEADER_LEN + FILE_TEXT_LEN;
        match id {
            FILE_CONFIGURATION => Some(self.configuration.as_bytes()),
            FILE_HEADER => Some(&data[..text]),
            FILE_TEXT => Some(&data[text..photo]),
            FILE_PHOTO => Some(&data[photo..ENCRYPTED_BASE_LEN]),
            FILE_FINGERPRINT if self.encrypted.has_fingerprint() => {
                Some(&data[ENCRYPTED_BASE_LEN..])
            }
            _ => None,
        }
    }
}

/// DN, application data and protocol parameters, all made up.
fn configuration(serial: u64) -> Configuration {
    let mut bytes = [0; CONFIGURATION_LEN];
    bytes[..8].copy_from_slice(b"EMULATED");
    bytes[8..16].copy_from_slice(&serial.to_be_bytes());
    bytes[16..20].copy_from_slice(b"APPL");
    bytes[24..28].copy_from_slice(b"TYPB");
    Configuration::new(bytes)
}

/// Not a WLT photo, and it says so.
fn placeholder_photo() -> Secret {
    let text = b"EMULATED PHOTO, NOT WLT. ";
    Secret::new(text.iter().copied().cycle().take(PHOTO_LEN).collect())
}

/// The field in front of the reader's antenna.
#[derive(Debug, Default)]
struct Field {
    card: Option<Arc<CardImage>>,
    /// Counts insertions, so that a card taken out and put back starts afresh.
    insertions: u64,
    /// Every APDU ever sent, also those that met no card.
    apdus: u64,
    remove_after: Option<u64>,
    swap_after: Option<(u64, Arc<CardImage>)>,
    silent: bool,
    wrong_answers: bool,
    /// So many looks to come find none, though the card is there.
    overlooked: u32,
    /// The UID of every card, in place of its own.
    uid: Option<[u8; 8]>,
}

impl Field {
    fn put(&mut self, card: Arc<CardImage>) {
        self.card = Some(card);
        self.insertions += 1;
    }

    /// Does what was to be done after so many APDUs.
    fn count_apdu(&mut self) {
        self.apdus += 1;
        match &mut self.remove_after {
            Some(0) => (self.card, self.remove_after) = (None, None),
            Some(left) => *left -= 1,
            None => {}
        }
        match self.swap_after.take() {
            Some((0, card)) => self.put(card),
            Some((left, card)) => self.swap_after = Some((left - 1, card)),
            None => {}
        }
    }
}

/// Puts cards in front of the emulated reader and takes them away; counts APDUs. Clones share the
/// field.
#[derive(Debug, Clone, Default)]
pub struct CardHandle(Arc<Mutex<Field>>);

impl CardHandle {
    /// Puts a card into the field (in place of any other).
    pub fn insert(&self, card: Arc<CardImage>) {
        let mut field = self.lock();
        field.put(card);
        field.remove_after = None;
        field.swap_after = None;
    }

    /// Takes the card away.
    pub fn remove(&self) {
        self.lock().card = None;
    }

    /// How many APDUs were sent so far.
    #[must_use]
    pub fn apdus(&self) -> u64 {
        self.lock().apdus
    }

    /// Fault: the card leaves the field after `apdus` more APDUs.
    pub fn remove_after(&self, apdus: u64) {
        self.lock().remove_after = Some(apdus);
    }

    /// Fault: after `apdus` more APDUs another card lies there, as if it always had.
    pub fn swap_after(&self, apdus: u64, card: Arc<CardImage>) {
        self.lock().swap_after = Some((apdus, card));
    }

    /// Fault: the next `looks` find no card, though it is there, as cards that were read do.
    pub fn overlook(&self, looks: u32) {
        self.lock().overlooked = looks;
    }

    /// Fault: every card has this UID, as a counterfeit may have; `None`: its own.
    pub fn set_uid(&self, uid: Option<[u8; 8]>) {
        self.lock().uid = uid;
    }

    /// Fault: the card stops answering (or answers again).
    pub fn set_silent(&self, silent: bool) {
        self.lock().silent = silent;
    }

    /// Fault: the card answers challenges wrongly, as one without the key would.
    pub fn set_wrong_answers(&self, wrong: bool) {
        self.lock().wrong_answers = wrong;
    }

    fn lock(&self) -> MutexGuard<'_, Field> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the card remembers while it lies in the field.
#[derive(Default)]
struct Session {
    insertion: u64,
    selected: u16,
    challenge: Option<Challenge>,
    random: Option<Challenge>,
    authenticated: bool,
}

/// An emulated reader front end with an emulated card in it: a [`CardLink`].
///
/// The card's files and APDUs are those that public accounts give; its cryptography is the
/// emulator's own (see the crate's docs).
pub struct EmulatedCard {
    scheme: Scheme,
    rng: Box<dyn CryptoRng + Send>,
    field: CardHandle,
    session: Session,
}

impl std::fmt::Debug for EmulatedCard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EmulatedCard(..)")
    }
}

impl EmulatedCard {
    /// An empty field, and the handle that puts cards into it.
    #[must_use]
    pub fn new(scheme: Scheme, rng: Box<dyn CryptoRng + Send>) -> (Self, CardHandle) {
        let field = CardHandle::default();
        let handle = field.clone();
        (Self { scheme, rng, field, session: Session::default() }, handle)
    }

    fn run(&mut self, card: &CardImage, apdu: &[u8], wrong: bool) -> Result<Vec<u8>, u16> {
        match *apdu {
            [0x00, 0xA4, 0x00, 0x00, 0x02, high, low] => {
                let id = u16::from_be_bytes([high, low]);
                card.file(id).ok_or(SW_FILE_NOT_FOUND)?;
                self.session.selected = id;
                Ok(Vec::new())
            }
            [0x80, 0xB0, high, low, len] => {
                let file = card.file(self.session.selected).ok_or(SW_FILE_NOT_FOUND)?;
                if self.session.selected != FILE_CONFIGURATION && !self.session.authenticated {
                    return Err(SW_NOT_PERMITTED);
                }
                if usize::from(len) > READ_CHUNK_MAX {
                    return Err(SW_WRONG_LENGTH);
                }
                let offset = usize::from(u16::from_be_bytes([high, low]));
                let part = file.get(offset..offset + usize::from(len));
                part.map(<[u8]>::to_vec).ok_or(SW_WRONG_OFFSET)
            }
            [0x00, 0x88, 0x00, 0x00, 0x08, ref challenge @ ..] => {
                let challenge = challenge.try_into().map_err(|_| SW_WRONG_LENGTH)?;
                self.session.challenge = Some(challenge);
                let answer = self.scheme.card_answer(&card.configuration, &challenge);
                let mut answer = answer.map_err(|_| SW_NOT_PERMITTED)?;
                if wrong {
                    answer[0] ^= 1;
                }
                Ok(answer.to_vec())
            }
            [0x00, 0x84, 0x00, 0x00, 0x08] => {
                let mut random = [0; CHALLENGE_LEN];
                self.rng.fill_bytes(&mut random);
                self.session.random = Some(random);
                Ok(random.to_vec())
            }
            [0x00, 0x82, 0x00, 0x00, 0x08, ref proof @ ..] => self.verify(card, proof),
            _ => Err(SW_UNKNOWN_INSTRUCTION),
        }
    }

    /// The SAM's proof: looked at once.
    fn verify(&mut self, card: &CardImage, proof: &[u8]) -> Result<Vec<u8>, u16> {
        let (Some(challenge), Some(random)) =
            (self.session.challenge.take(), self.session.random.take())
        else {
            return Err(SW_NOT_PERMITTED);
        };
        let expected = self.scheme.sam_proof(&card.configuration, &challenge, &random);
        let expected = expected.map_err(|_| SW_NOT_PERMITTED)?;
        if Secret::copied_from(&expected).ct_eq(proof) {
            self.session.authenticated = true;
            Ok(Vec::new())
        } else {
            Err(SW_WRONG_PROOF)
        }
    }
}

impl CardLink for EmulatedCard {
    fn poll(&mut self) -> Result<Option<CardPresent>, CardError> {
        let mut field = self.field.lock();
        if let Some(left) = field.overlooked.checked_sub(1) {
            field.overlooked = left;
            return Ok(None);
        }
        Ok(field.card.as_ref().map(|card| {
            // A real UID is not the configuration; here it may as well be its serial.
            let mut uid = [0; 8];
            uid.copy_from_slice(&card.configuration.as_bytes()[8..16]);
            CardPresent { uid: field.uid.unwrap_or(uid) }
        }))
    }

    fn transceive(&mut self, apdu: &[u8]) -> Result<Zeroizing<Vec<u8>>, CardError> {
        let (card, insertion, wrong) = {
            let mut field = self.field.lock();
            field.count_apdu();
            let card = field.card.clone().ok_or(CardError::Removed)?;
            if field.silent {
                return Err(CardError::Timeout);
            }
            (card, field.insertions, field.wrong_answers)
        };
        if self.session.insertion != insertion {
            self.session = Session { insertion, ..Session::default() };
        }
        let (data, status) = match self.run(&card, apdu, wrong) {
            Ok(data) => (data, SW_OK),
            Err(status) => (Vec::new(), status),
        };
        let mut response = Zeroizing::new(Vec::with_capacity(data.len() + 2));
        response.extend_from_slice(&data);
        response.extend_from_slice(&status.to_be_bytes());
        Ok(response)
    }
}
