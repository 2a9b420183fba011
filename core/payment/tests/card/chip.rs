//! A chip in memory, a display that remembers, and requests.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use countersign_crypto::{CryptoRng, Secret, SecureElement, Suite, VerifyingKey, provider_of};
use countersign_iso7816::{CardMachine, InProcess, Response, Status};
use countersign_payment::card::{
    AID, CardClient, CardInfo, Chip, ChipError, Method, PinEntry, Screen, SecurityDeviceCard, Tries,
};
use countersign_payment::{AccountNumber, Amount, ConfirmationRequest, Line, ocra, sign, verify};
use countersign_pki::Role;
use testkit::pki::{NOW, TestPki};
use testkit::rng::{ChaCha20Rng, seeded};

pub(crate) const PIN: &str = "135790";
pub(crate) const PUK: &str = "87654321";
pub(crate) const PIN_TRIES: u8 = 3;
pub(crate) const PUK_TRIES: u8 = 10;

pub(crate) fn secret(digits: &str) -> Secret {
    Secret::copied_from(digits.as_bytes())
}

/// Bytes of a request for so many yuan.
pub(crate) fn request(yuan: u32) -> Vec<u8> {
    let account = |number| AccountNumber::parse(number).unwrap();
    let request = ConfirmationRequest {
        server: "Bank of Example".into(),
        payment: format!("pay_{yuan}"),
        payer_account: account("6222021234567890123"),
        payee_account: account("DE89370400440532013000"),
        payee_name: "Müller & Söhne GmbH".into(),
        order: "订单 2026-117".into(),
        amount: Amount::parse(&format!("{yuan}.00"), "CNY").unwrap(),
        expires: NOW.plus(Duration::from_secs(300)),
        initiator: "shop.example".into(),
        alerts: vec!["new-payee".into()],
    };
    request.to_bytes().unwrap()
}

pub(crate) fn lines(request: &[u8]) -> Vec<Line> {
    ConfirmationRequest::parse(request).unwrap().lines()
}

/// What a chip signs with.
enum Key {
    Pki(Arc<dyn SecureElement>),
    Ocra(Secret),
}

pub(crate) struct SoftChip {
    key: Key,
    info: CardInfo,
    certificate: Option<Vec<u8>>,
    pin: Secret,
    puk: Option<Secret>,
    pub(crate) tries: Tries,
    is_unlocked: bool,
    /// How often it signed.
    pub(crate) signed: u32,
    /// It fails at the next signature.
    pub(crate) is_broken: bool,
    /// A PIN of another length than its own costs no try.
    pub(crate) wants_form: bool,
}

impl Chip for SoftChip {
    fn info(&self) -> CardInfo {
        self.info.clone()
    }

    fn certificate(&self) -> Option<Vec<u8>> {
        self.certificate.clone()
    }

    fn tries(&self) -> Result<Tries, ChipError> {
        Ok(self.tries)
    }

    fn unlock(&mut self, pin: &Secret) -> Result<(), ChipError> {
        if self.wants_form && pin.len() != self.pin.len() {
            return Err(ChipError::PinForm);
        }
        self.tries.pin = self.tries.pin.checked_sub(1).ok_or(ChipError::PinBlocked)?;
        if !self.pin.ct_eq(pin.expose()) {
            return Err(ChipError::PinWrong { left: self.tries.pin });
        }
        self.tries.pin = PIN_TRIES;
        self.is_unlocked = true;
        Ok(())
    }

    fn lock(&mut self) {
        self.is_unlocked = false;
    }

    fn sign(&mut self, request: &[u8], rng: &mut dyn CryptoRng) -> Result<Vec<u8>, ChipError> {
        if !std::mem::take(&mut self.is_unlocked) {
            return Err(ChipError::Locked);
        }
        if self.is_broken {
            return Err(ChipError::Failed("worn out".into()));
        }
        self.signed += 1;
        Ok(match &self.key {
            Key::Pki(key) => sign(&**key, rng, request)?,
            Key::Ocra(key) => ocra::respond(key, request)?.into_bytes(),
        })
    }

    fn change_pin(
        &mut self,
        old: &Secret,
        new: &Secret,
        _: &mut dyn CryptoRng,
    ) -> Result<(), ChipError> {
        self.unlock(old)?;
        self.is_unlocked = false;
        self.pin = Secret::copied_from(new.expose());
        Ok(())
    }

    fn unblock(
        &mut self,
        puk: &Secret,
        new: &Secret,
        _: &mut dyn CryptoRng,
    ) -> Result<(), ChipError> {
        let wanted = self.puk.as_ref().ok_or(ChipError::PukAbsent)?;
        self.tries.puk = self.tries.puk.checked_sub(1).ok_or(ChipError::PukBlocked)?;
        if !wanted.ct_eq(puk.expose()) {
            return Err(ChipError::PukWrong { left: self.tries.puk });
        }
        self.tries = Tries { pin: PIN_TRIES, puk: PUK_TRIES };
        self.pin = Secret::copied_from(new.expose());
        Ok(())
    }
}

/// A display that remembers what it showed, and a keypad at which these PINs are typed.
#[derive(Default)]
pub(crate) struct Panel {
    pub(crate) shown: Vec<Vec<Line>>,
    pub(crate) asked: Vec<Vec<Line>>,
    pub(crate) typed: VecDeque<Option<&'static str>>,
}

impl Screen for Panel {
    fn shown(&mut self, lines: &[Line]) {
        self.shown.push(lines.to_vec());
    }

    fn asked(&mut self, lines: &[Line]) -> Option<Secret> {
        self.asked.push(lines.to_vec());
        self.typed.pop_front().expect("nobody is at the keypad").map(secret)
    }
}

pub(crate) type Machine = CardMachine<SecurityDeviceCard<SoftChip, Panel>>;

/// A card in its holder's hand.
pub(crate) struct Rig {
    pub(crate) machine: Machine,
    pub(crate) rng: ChaCha20Rng,
    public: Option<Arc<dyn VerifyingKey>>,
}

impl Rig {
    pub(crate) fn new(method: Method, suite: Suite, pin_entry: PinEntry) -> Self {
        let provider = provider_of(suite).unwrap();
        let mut pki = TestPki::new(provider.clone(), 5);
        let party = pki.party(Role::SecurityDevice, "SD-1");
        let point = party.key.public_key().to_vec();
        let is_pki = method == Method::Pki;
        let chip = SoftChip {
            key: match method {
                Method::Pki => Key::Pki(party.key),
                Method::Ocra => Key::Ocra(Secret::new(vec![7; ocra::PAYMENT_KEY_LEN])),
            },
            info: CardInfo {
                serial: "SD-1".into(),
                method,
                suite,
                pin_entry,
                server_id: "server-1".into(),
            },
            certificate: is_pki.then_some(party.certificate),
            pin: secret(PIN),
            puk: Some(secret(PUK)),
            tries: Tries { pin: PIN_TRIES, puk: PUK_TRIES },
            is_unlocked: false,
            signed: 0,
            is_broken: false,
            wants_form: false,
        };
        let card = SecurityDeviceCard::new(chip, Panel::default());
        let public = is_pki.then(|| provider.signature.public_key(&point).unwrap());
        Self { machine: CardMachine::new(card), rng: seeded(6), public }
    }

    /// The usual card: it signs with P-256, and its PIN comes from the phone.
    pub(crate) fn host() -> Self {
        Self::new(Method::Pki, Suite::X25519_P256_AES128GCM_SHA256, PinEntry::Host)
    }

    pub(crate) fn keypad() -> Self {
        Self::new(Method::Pki, Suite::X25519_P256_AES128GCM_SHA256, PinEntry::Keypad)
    }

    pub(crate) fn without_puk(mut self) -> Self {
        self.chip().puk = None;
        self
    }

    pub(crate) fn client(
        &mut self,
    ) -> CardClient<InProcess<'_, SecurityDeviceCard<SoftChip, Panel>>> {
        CardClient::new(InProcess::new(&mut self.machine, &mut self.rng))
    }

    pub(crate) fn chip(&mut self) -> &mut SoftChip {
        self.machine.application_mut().chip_mut()
    }

    pub(crate) fn panel(&mut self) -> &mut Panel {
        self.machine.application_mut().screen_mut()
    }

    pub(crate) fn raw(&mut self, apdu: &[u8]) -> Response {
        Response::parse(&self.machine.handle(&mut self.rng, apdu)).unwrap()
    }

    /// The status word of an answer without data.
    pub(crate) fn status(&mut self, apdu: &[u8]) -> Status {
        let response = self.raw(apdu);
        assert!(response.data.is_empty(), "data with {}", response.status);
        response.status
    }

    pub(crate) fn select(&mut self) {
        let aid = [&[0, 0xa4, 4, 0x0c, 12][..], &AID].concat();
        assert_eq!(self.status(&aid), Status::OK);
    }

    /// Loads by a chain; the status word of its end.
    pub(crate) fn load(&mut self, request: &[u8]) -> Status {
        let last = (request.len() - 1) / 255;
        for (part, number) in request.chunks(255).zip(0..) {
            let cla = if number == last { 0 } else { 0x10 };
            let len = u8::try_from(part.len()).unwrap();
            let status = self.status(&[&[cla, 0xda, 0xdf, 0x10, len][..], part].concat());
            if number == last {
                return status;
            }
            assert_eq!(status, Status::OK);
        }
        unreachable!("the last part has returned")
    }

    pub(crate) fn verify(&mut self, pin: &str) -> Status {
        self.status(&with_blocks(0x20, &[pin]))
    }

    pub(crate) fn is_answer(&self, request: &[u8], answer: &[u8]) -> bool {
        match &self.public {
            Some(key) => verify(&**key, request, answer).is_ok(),
            None => {
                let key = Secret::new(vec![7; ocra::PAYMENT_KEY_LEN]);
                ocra::verify(&key, request, std::str::from_utf8(answer).unwrap())
            }
        }
    }
}

pub(crate) const SIGN: &[u8] = &[0, 0x2a, 0x9e, 0x9a, 0];
pub(crate) const ANSWER: &[u8] = &[0, 0x88, 0, 0, 0];

/// A command about the PIN, with the PIN blocks of these digits.
pub(crate) fn with_blocks(instruction: u8, pins: &[&str]) -> Vec<u8> {
    let block = |pin: &&str| {
        let mut hex = format!("2{:X}{pin}", pin.len());
        hex.extend(std::iter::repeat_n('F', 16 - hex.len()));
        data_encoding::HEXUPPER.decode(hex.as_bytes()).unwrap()
    };
    let blocks: Vec<u8> = pins.iter().flat_map(block).collect();
    let len = u8::try_from(blocks.len()).unwrap();
    [&[0, instruction, 0, 0x81, len][..], &blocks].concat()
}
