use countersign_crypto::CryptoRng;
use countersign_idcard::sam::frame::{Decoder, Item};
use countersign_idcard::sam::{CARD_NUMBER_LEN, CHUNK_MAX, Command, Response, SamId, Status, Sw3};
use countersign_idcard::{CHALLENGE_LEN, Challenge, Configuration, ENCRYPTED_LEN_MAX, PlainData};
use zeroize::Zeroizing;

use crate::{Fault, Faults, Scheme};

/// What comes out of the module. An answer may hold a card's plaintext, so `Debug` prints its
/// length only.
#[derive(Clone, PartialEq, Eq)]
pub enum Reply {
    /// Bytes for the host.
    Bytes(Zeroizing<Vec<u8>>),
    /// The module was unplugged (injected fault); it does nothing any more.
    Unplugged,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Unplugged => f.write_str("Unplugged"),
        }
    }
}

/// How far the module is with its card. The standard order is find, select, read, and every read
/// needs a new find and select.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Nothing,
    Found,
    Selected,
}

/// The card on the remote reader (extension `E0 01`).
struct RemoteCard {
    configuration: Configuration,
    challenge: Challenge,
    data: Zeroizing<Vec<u8>>,
    chunks: u8,
    /// Set by the first chunk.
    total: Option<u8>,
}

/// What the module gave last, and whose it was.
struct LastRead {
    plain: PlainData,
    number: [u8; CARD_NUMBER_LEN],
}

/// IIN and SN of emulated cards; the DN is the configuration's.
fn card_number(configuration: &Configuration) -> [u8; CARD_NUMBER_LEN] {
    let mut number = [0; CARD_NUMBER_LEN];
    let (head, dn) = number.split_at_mut(CARD_NUMBER_LEN - configuration.dn().len());
    head.copy_from_slice(b"EMULATEDCARD");
    dn.copy_from_slice(configuration.dn());
    number
}

/// An emulated SAM module: bytes in, bytes out, no clock, no port.
///
/// Its frames, commands and status codes are the real protocol's; the commands `E0 xx` and the
/// card cryptography behind them are the emulator's own (see the crate's docs). It decrypts a
/// card's data without a fresh authentication of that card, because data from a reader's cache
/// come without the card (C7).
pub struct EmulatedSam {
    scheme: Scheme,
    id: SamId,
    faults: Faults,
    decoder: Decoder,
    progress: Progress,
    card: Option<RemoteCard>,
    /// Until the next read; [`Fault::AnotherCardsData`] gives it once more.
    last: Option<LastRead>,
    /// The number of the card that was read, until the next card or a reset.
    number: Option<[u8; CARD_NUMBER_LEN]>,
    silent: bool,
    unplugged: bool,
}

impl std::fmt::Debug for EmulatedSam {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmulatedSam").field("progress", &self.progress).finish_non_exhaustive()
    }
}

impl EmulatedSam {
    /// A module. `serial` is the last number of its id; `faults` may be kept to inject later.
    #[must_use]
    pub fn new(scheme: Scheme, serial: u32, faults: Faults) -> Self {
        let mut id = [0; 16];
        id[0] = 0x05;
        id[2] = 0x03;
        id[4..8].copy_from_slice(&20_260_101_u32.to_le_bytes());
        id[12..].copy_from_slice(&serial.to_le_bytes());
        Self {
            scheme,
            id: SamId::new(id),
            faults,
            decoder: Decoder::new(),
            progress: Progress::Nothing,
            card: None,
            last: None,
            number: None,
            silent: false,
            unplugged: false,
        }
    }

    /// The module's id.
    #[must_use]
    pub const fn id(&self) -> SamId {
        self.id
    }

    /// Takes bytes from the host and gives the answers to whatever commands they complete.
    pub fn handle(&mut self, rng: &mut dyn CryptoRng, bytes: &[u8]) -> Vec<Reply> {
        let mut replies = Vec::new();
        let mut input = bytes;
        while !self.unplugged {
            let Some(item) = self.decoder.next(&mut input) else {
                break;
            };
            let body = match &item {
                Item::Frame(body) => Some(body.as_slice()),
                Item::Damaged => None,
            };
            replies.extend(self.answer(rng, body));
        }
        replies
    }

    /// Answers one command; `None` for the body if its checksum was wrong.
    fn answer(&mut self, rng: &mut dyn CryptoRng, body: Option<&[u8]>) -> Option<Reply> {
        let code = body.and_then(|body| body.first_chunk::<2>()).copied().unwrap_or_default();
        let fault = self.faults.take_for(code);
        match fault {
            Some(Fault::UnplugAt(_)) => {
                self.unplugged = true;
                return Some(Reply::Unplugged);
            }
            Some(Fault::SilentAfter(_)) => self.silent = true,
            _ => {}
        }
        if self.silent {
            return None;
        }
        let (status, data) = match (fault, body) {
            (Some(Fault::ReportChecksumTimes(_)), _) | (_, None) => {
                (Sw3::BadChecksum.into(), Zeroizing::default())
            }
            (Some(Fault::RejectCard), _) => (Sw3::SamRejectedCard.into(), Zeroizing::default()),
            (Some(Fault::CardNotFound), _) => (Sw3::NoCard.into(), Zeroizing::default()),
            (Some(Fault::VendorTimeout), _) => (Status::VendorTimeout, Zeroizing::default()),
            (Some(Fault::Unknown(_)), _) => (Sw3::UnknownCommand.into(), Zeroizing::default()),
            (Some(Fault::UnknownStatus), _) => {
                (Status::Unknown([0, 0, 0xEE]), Zeroizing::default())
            }
            (_, Some(body)) => {
                let confused = fault == Some(Fault::AnotherCardsData);
                let command = Command::parse(body);
                match command.and_then(|command| self.run(rng, command, confused)) {
                    Ok((status, data)) => (status.into(), data),
                    Err(status) => (status.into(), Zeroizing::default()),
                }
            }
        };
        let mut frame = Response::frame(status, &data)?;
        match fault {
            Some(Fault::BadChecksumTimes(_) | Fault::DamageAnswerTo(_)) => {
                if let Some(sum) = frame.last_mut() {
                    *sum ^= 0x55;
                }
            }
            Some(Fault::GarbageBeforeAnswer) => {
                // With false starts of the preamble in it.
                let garbage = [0x00, 0xAA, 0xAA, 0x96, 0xAA, 0xAA, 0xAA, 0x96, 0x00];
                frame.splice(0..0, garbage);
            }
            Some(Fault::TruncatedAnswer) => {
                let half = frame.len() / 2;
                frame.truncate(half);
            }
            _ => {}
        }
        Some(Reply::Bytes(frame))
    }

    /// Runs a well-formed command: status and data, or the status of a refusal.
    fn run(
        &mut self,
        rng: &mut dyn CryptoRng,
        command: Command,
        confused: bool,
    ) -> Result<(Sw3, Zeroizing<Vec<u8>>), Sw3> {
        let ok = |data: &[u8]| Ok((Sw3::Ok, Zeroizing::new(data.to_vec())));
        match command {
            Command::Reset => {
                self.forget_card();
                self.number = None;
                ok(&[])
            }
            Command::Status => ok(&[]),
            Command::SamId => ok(self.id.as_bytes()),
            Command::Find => {
                self.card.as_ref().ok_or(Sw3::NoCard)?;
                self.progress = Progress::Found;
                Ok((Sw3::CardFound, Zeroizing::new(vec![0; 4])))
            }
            Command::Select => match (self.progress, &self.card) {
                // Again when our answer to the first one was damaged.
                (Progress::Found | Progress::Selected, Some(card)) => {
                    self.progress = Progress::Selected;
                    ok(&card.configuration.dn()[..8])
                }
                _ => Err(Sw3::SelectFailed),
            },
            Command::ReadTextPhoto => self.read(false, confused),
            Command::ReadTextPhotoFingerprint => self.read(true, confused),
            Command::CardNumber => ok(&self.number.ok_or(Sw3::ItemEmpty)?),
            Command::RemoteCard(configuration) => {
                self.number = None;
                let mut challenge = [0; CHALLENGE_LEN];
                rng.fill_bytes(&mut challenge);
                self.progress = Progress::Nothing;
                self.card = Some(RemoteCard {
                    configuration,
                    challenge,
                    data: Zeroizing::new(Vec::with_capacity(ENCRYPTED_LEN_MAX)),
                    chunks: 0,
                    total: None,
                });
                ok(&challenge)
            }
            Command::CardAnswer { answer, random } => self.card_answer(&answer, &random),
            Command::EncryptedData { index, total, chunk } => {
                self.load(index, total, &chunk)?;
                ok(&[])
            }
            _ => Err(Sw3::UnknownCommand),
        }
    }

    fn card_answer(
        &self,
        answer: &Challenge,
        random: &Challenge,
    ) -> Result<(Sw3, Zeroizing<Vec<u8>>), Sw3> {
        let card = self.selected()?;
        let (configuration, challenge) = (&card.configuration, &card.challenge);
        let expected =
            self.scheme.card_answer(configuration, challenge).map_err(|_| Sw3::RandomFailed)?;
        if !countersign_crypto::Secret::copied_from(&expected).ct_eq(answer) {
            return Err(Sw3::SamRejectedCard);
        }
        let proof = self
            .scheme
            .sam_proof(configuration, challenge, random)
            .map_err(|_| Sw3::VerificationFailed)?;
        Ok((Sw3::Ok, Zeroizing::new(proof.to_vec())))
    }

    /// Takes a chunk. A repeat of the last one is taken as the same, because the host sends a
    /// command again when our answer to it was damaged.
    fn load(&mut self, index: u8, total: u8, chunk: &[u8]) -> Result<(), Sw3> {
        self.selected()?;
        let card = self.card.as_mut().ok_or(Sw3::NotPermitted)?;
        let known = *card.total.get_or_insert(total);
        let last = index.checked_add(1) == Some(total);
        if total != known || index >= total || (!last && chunk.len() != CHUNK_MAX) {
            return Err(Sw3::ReadFailed);
        }
        if index.checked_add(1) == Some(card.chunks) && card.data.ends_with(chunk) {
            return Ok(());
        }
        if index != card.chunks || card.data.len() + chunk.len() > ENCRYPTED_LEN_MAX {
            return Err(Sw3::ReadFailed);
        }
        card.data.extend_from_slice(chunk);
        card.chunks += 1;
        Ok(())
    }

    /// Reads the selected card. As with a real module, the next read needs a new find and select;
    /// unlike one, the remote card is forgotten too, so that no later read can touch it. Only its
    /// number can still be asked for.
    fn read(
        &mut self,
        fingerprint: bool,
        confused: bool,
    ) -> Result<(Sw3, Zeroizing<Vec<u8>>), Sw3> {
        let card = self.selected()?;
        if card.total != Some(card.chunks) {
            return Err(Sw3::ReadFailed);
        }
        let plain = self.scheme.decrypt(&card.configuration, &card.data);
        let number = card_number(&card.configuration);
        self.forget_card();
        let plain = plain.map_err(|_| Sw3::ReadFailed)?;
        let given = match self.last.take() {
            Some(before) if confused => before,
            _ => LastRead { plain, number },
        };
        self.number = Some(given.number);
        let data = given.plain.to_sam(fingerprint);
        self.last = Some(given);
        Ok((Sw3::Ok, data))
    }

    fn selected(&self) -> Result<&RemoteCard, Sw3> {
        match (self.progress, &self.card) {
            (Progress::Selected, Some(card)) => Ok(card),
            _ => Err(Sw3::NotPermitted),
        }
    }

    fn forget_card(&mut self) {
        self.card = None;
        self.progress = Progress::Nothing;
    }
}
