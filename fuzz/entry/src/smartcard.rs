//! APDUs, the security device as a card, and the text that a camera takes to it.

use std::sync::OnceLock;
use std::time::Duration;

use countersign_crypto::{CryptoRng, Provider, Secret, Suite, provider_of};
use countersign_iso7816::{CHAIN_MAX, CardMachine, Command, Response, Status, tlv};
use countersign_payment::card::{
    AID, CardInfo, Chip, ChipError, Method, PinEntry, Screen, SecurityDeviceCard, Tries, pin_block,
};
use countersign_payment::offline::{self, OfflineRequest};
use countersign_payment::{ConfirmationRequest, Line};
use countersign_pki::Role;
use testkit::pki::{NOW, TestPki};
use testkit::rng::seeded;

use crate::payment::request;
use crate::script::Script;

/// The first byte says what the others are: a command APDU, data objects, a PIN block. What is read
/// is written again, and has no other form.
pub fn apdu(data: &[u8]) {
    let mut script = Script::new(data);
    match script.byte() % 3 {
        0 => one_command(script.rest()),
        1 => data_objects(script.rest()),
        _ => {
            let block = script.array();
            if let Some(pin) = pin_block::decode(&block) {
                assert_eq!(pin_block::encode(&pin).as_deref(), Some(&block));
            }
        }
    }
}

fn one_command(bytes: &[u8]) {
    let Ok(command) = Command::parse(bytes) else { return };
    let written = command.encode();
    assert_eq!(Command::parse(&written).as_ref(), Ok(&command));
    // An extended APDU may say what a short one can; otherwise there is one form.
    assert!(*written == bytes || (bytes[4] == 0 && written.len() < bytes.len()), "{command:?}");
    assert!(command.data().len() + 4 <= bytes.len());
}

fn data_objects(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok((object, after)) = tlv::read(rest) {
        let mut written = Vec::new();
        tlv::write(&mut written, object.tag, object.value).expect("it was read");
        written.extend_from_slice(after);
        assert_eq!(written, rest, "one form");
        rest = after;
    }
}

const PIN: &[u8] = b"135790";
const WRONG_PIN: &[u8] = b"246801";
const PUK: &[u8] = b"87654321";
const PIN_TRIES: u8 = 3;
/// Most things that happen to one card.
const STEPS_MAX: usize = 64;

/// A chip that says what it signs.
struct SayingChip {
    pin_entry: PinEntry,
    tries: Tries,
    is_unlocked: bool,
    signed: usize,
}

impl Chip for SayingChip {
    fn info(&self) -> CardInfo {
        CardInfo {
            serial: "SD-1".into(),
            method: Method::Pki,
            suite: Suite::X25519_P256_AES128GCM_SHA256,
            pin_entry: self.pin_entry,
            server_id: "server-1".into(),
        }
    }

    fn certificate(&self) -> Option<Vec<u8>> {
        Some(vec![0x30; 700])
    }

    fn tries(&self) -> Result<Tries, ChipError> {
        Ok(self.tries)
    }

    fn unlock(&mut self, pin: &Secret) -> Result<(), ChipError> {
        assert!(!self.is_unlocked, "a PIN for what was unlocked already");
        self.tries.pin = self.tries.pin.checked_sub(1).ok_or(ChipError::PinBlocked)?;
        if !pin.ct_eq(PIN) {
            return Err(ChipError::PinWrong { left: self.tries.pin });
        }
        self.tries.pin = PIN_TRIES;
        self.is_unlocked = true;
        Ok(())
    }

    fn lock(&mut self) {
        self.is_unlocked = false;
    }

    fn sign(&mut self, request: &[u8], _: &mut dyn CryptoRng) -> Result<Vec<u8>, ChipError> {
        assert!(std::mem::take(&mut self.is_unlocked), "a signature without a PIN");
        assert!(ConfirmationRequest::parse(request).is_ok(), "what cannot be shown");
        self.signed += 1;
        Ok(request.to_vec())
    }

    fn change_pin(
        &mut self,
        old: &Secret,
        _: &Secret,
        _: &mut dyn CryptoRng,
    ) -> Result<(), ChipError> {
        assert!(self.pin_entry == PinEntry::Host, "a PIN that its holder was not asked for");
        self.unlock(old)?;
        self.is_unlocked = false;
        Ok(())
    }

    fn unblock(
        &mut self,
        puk: &Secret,
        _: &Secret,
        _: &mut dyn CryptoRng,
    ) -> Result<(), ChipError> {
        assert!(self.pin_entry == PinEntry::Host, "a PUK that its holder was not asked for");
        assert!(self.tries.pin == 0, "a PUK for a PIN that is not blocked");
        self.tries.puk = self.tries.puk.checked_sub(1).ok_or(ChipError::PukBlocked)?;
        if !puk.ct_eq(PUK) {
            return Err(ChipError::PukWrong { left: self.tries.puk });
        }
        self.tries = Tries { pin: PIN_TRIES, puk: 10 };
        Ok(())
    }
}

/// Remembers what it shows, and types what it is told to.
#[derive(Default)]
struct Panel {
    last: Vec<Line>,
    typed: u8,
}

impl Screen for Panel {
    fn shown(&mut self, lines: &[Line]) {
        self.last = lines.to_vec();
    }

    fn asked(&mut self, lines: &[Line]) -> Option<Secret> {
        self.last = lines.to_vec();
        match self.typed % 4 {
            0 => None,
            1 => Some(Secret::copied_from(WRONG_PIN)),
            _ => Some(Secret::copied_from(PIN)),
        }
    }
}

struct Card {
    machine: CardMachine<SecurityDeviceCard<SayingChip, Panel>>,
    loads: usize,
}

impl Card {
    fn new(pin_entry: PinEntry) -> Self {
        let tries = Tries { pin: PIN_TRIES, puk: 10 };
        let chip = SayingChip { pin_entry, tries, is_unlocked: false, signed: 0 };
        let card = SecurityDeviceCard::new(chip, Panel::default());
        Self { machine: CardMachine::new(card), loads: 0 }
    }

    fn signed(&self) -> usize {
        self.machine.application().chip().signed
    }

    /// Sends an APDU; whatever it is, there is an answer, and what is signed was shown.
    fn send(&mut self, apdu: &[u8]) -> Response {
        let before = self.signed();
        let answer = self.machine.handle(&mut seeded(1), apdu);
        let response = Response::parse(&answer).expect("a status word");
        assert!(response.data.is_empty() || response.status.is_ok());
        if let Ok(command) = Command::parse(apdu) {
            assert!(response.data.len() as u64 <= u64::from(command.ne()), "more than asked for");
            // What loads is a whole PUT DATA that succeeds, alone or at the end of a chain.
            let is_load = (command.cla, command.ins, command.parameters()) == (0, 0xda, 0xdf10);
            self.loads += usize::from(is_load && response.status == Status::OK);
        } else {
            assert_eq!(response, Status::WRONG_LENGTH.into());
        }
        assert!(self.signed() - before <= 1 && self.signed() <= self.loads, "signed twice");
        if self.signed() > before && response.status == Status::OK {
            let request = ConfirmationRequest::parse(&response.data).expect("what was signed");
            let shown = &self.machine.application_mut().screen_mut().last;
            assert_eq!(&request.lines(), shown, "what is shown is what is signed");
        }
        response
    }

    fn with_block(&mut self, instruction: u8, digits: &[&[u8]]) -> Response {
        let blocks: Vec<u8> = digits
            .iter()
            .flat_map(|digits| *pin_block::encode(&Secret::copied_from(digits)).expect("digits"))
            .collect();
        let len = u8::try_from(blocks.len()).expect("two blocks");
        self.send(&[&[0, instruction, 0, 0x81, len][..], &blocks].concat())
    }

    fn load(&mut self, request: &[u8]) -> Response {
        let command = Command::new(0, 0xda, 0xdf, 0x10).with_data(request).expect("short");
        self.send(&command.encode())
    }

    fn select(&mut self) -> Response {
        self.send(&[&[0, 0xa4, 4, 0x0c, 12][..], &AID].concat())
    }

    /// Le of 64 KiB, so that a signature comes whole.
    fn sign(&mut self) -> Response {
        self.send(&[0, 0x2a, 0x9e, 0x9a, 0, 0, 0])
    }
}

/// The first byte's lowest bit is a keypad; the others say what happens to a card: APDUs as they
/// are, requests (edited ones too) that are loaded, PINs, resets. Whatever it was, nothing is
/// signed but what was shown, for a PIN, once for each load; and when it is over, the card works.
pub fn device_card(data: &[u8]) {
    let mut script = Script::new(data);
    let pin_entry = if script.byte() & 1 == 1 { PinEntry::Keypad } else { PinEntry::Host };
    let mut card = Card::new(pin_entry);
    let genuine = request().to_bytes().expect("good texts");
    for _ in 0..STEPS_MAX {
        if script.is_empty() {
            break;
        }
        match script.byte() % 12 {
            0 => drop(card.select()),
            1 => drop(card.load(&genuine)),
            2 => {
                let mut altered = genuine.clone();
                let mut edits = Script::new(script.short());
                edits.edit(&mut altered);
                altered.truncate(CHAIN_MAX);
                card.load(&altered);
            }
            3 => drop(card.with_block(0x20, &[PIN])),
            4 => drop(card.with_block(0x20, &[WRONG_PIN])),
            5 => {
                card.machine.application_mut().screen_mut().typed = script.byte();
                card.sign();
            }
            6 => card.machine.reset(),
            7 => drop(card.with_block(0x2c, &[PUK, PIN])),
            8 => drop(card.with_block(0x24, &[PIN, PIN])),
            9 => {
                // A part of a chain.
                let part = script.short();
                let len = u8::try_from(part.len()).expect("a short part");
                card.send(&[&[0x10, 0xda, 0xdf, 0x10, len][..], part].concat());
            }
            _ => drop(card.send(script.short())),
        }
    }
    works(&mut card, &genuine);
}

fn works(card: &mut Card, genuine: &[u8]) {
    card.machine.power();
    assert_eq!(card.select(), Status::OK.into());
    let tries = card.send(&[0, 0xca, 0xdf, 3, 2]).data;
    let pin_entry = card.machine.application().chip().pin_entry;
    let unblocked = card.with_block(0x2c, &[PUK, PIN]);
    match (pin_entry, tries[0], tries[1]) {
        (PinEntry::Keypad, pin, puk) => {
            assert_eq!((unblocked, puk), (Status::UNSUPPORTED.into(), 10), "only at the keypad");
            if pin == 0 {
                card.machine.application_mut().chip_mut().tries.pin = PIN_TRIES;
            }
        }
        (PinEntry::Host, 0, 0) => return assert_eq!(unblocked, Status::BLOCKED.into()),
        (PinEntry::Host, 0, _) => assert_eq!(unblocked, Status::OK.into()),
        (PinEntry::Host, ..) => assert_eq!(unblocked, Status::CONDITIONS.into()),
    }
    assert_eq!(card.load(genuine), Status::OK.into());
    card.machine.application_mut().screen_mut().typed = 2;
    if pin_entry == PinEntry::Host {
        assert_eq!(card.sign(), Status::SECURITY.into(), "no PIN yet");
        assert_eq!(card.with_block(0x20, &[PIN]), Status::OK.into());
    }
    assert_eq!(*card.sign().data, *genuine);
    assert_eq!(card.sign(), Status::CONDITIONS.into(), "once");
}

struct Genuine {
    provider: Provider,
    certificate: Vec<u8>,
    text: String,
}

fn genuine(sm2: bool) -> &'static Genuine {
    static P256: OnceLock<Genuine> = OnceLock::new();
    static SM2: OnceLock<Genuine> = OnceLock::new();
    let (made, suite) = match sm2 {
        false => (&P256, Suite::X25519_P256_AES128GCM_SHA256),
        true => (&SM2, Suite::SM2_SM4GCM_SM3),
    };
    made.get_or_init(|| {
        let provider = provider_of(suite).expect("known");
        let mut pki = TestPki::new(provider.clone(), 2);
        let server = pki.party(Role::Server, "server-1");
        let bytes = request().to_bytes().expect("good texts");
        let text = offline::sign(&*server.key, &mut pki.rng, &server.number, &bytes);
        Genuine { provider, certificate: server.certificate, text: text.expect("it fits") }
    })
}

/// The genuine text; also what the seeds begin with.
pub(crate) fn offline_text() -> &'static str {
    &genuine(false).text
}

/// The first byte says what the others are: bit 0 SM2; bit 1 a whole text, or edits of a genuine
/// one. One text is accepted, in one form.
pub fn offline_request(data: &[u8]) {
    let mut script = Script::new(data);
    let setting = script.byte();
    let genuine = genuine(setting & 1 == 1);
    let text = if setting & 2 == 0 {
        script.rest().to_vec()
    } else {
        let mut altered = genuine.text.clone().into_bytes();
        script.edit(&mut altered);
        altered
    };
    let text = String::from_utf8_lossy(&text);
    let read = OfflineRequest::parse(&text);
    let verify = |now| match &read {
        Ok(read) => read.verify(&genuine.provider, &genuine.certificate, now),
        Err(error) => Err(*error),
    };
    assert!(read.is_err() || text.len() <= offline::TEXT_MAX);
    assert_eq!(verify(NOW).is_ok(), text == genuine.text, "altered, and accepted");
    assert!(verify(NOW.plus(Duration::from_secs(300))).is_err(), "expired");
}
