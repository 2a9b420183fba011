//! The security devices of a world, as the cards that they are: their application behind a link
//! that fails between any two commands, when the seed says so. What is judged here is what the
//! application lets its chip do, whatever happens to the link.

use countersign_crypto::{CryptoRng, Secret, Suite};
use countersign_iso7816::{CardLink, CardMachine, LinkError};
use countersign_payment::card::{
    CardClient, CardError, CardInfo, Chip, ChipError, Method, PinEntry, Screen, SecurityDeviceCard,
    Tries,
};
use countersign_payment::{AccountNumber, Amount, ConfirmationRequest, Line, ocra};
use libtest_mimic::Failed;
use rand_core::Rng;
use testkit::rng::{ChaCha20Rng, seeded};

use crate::judge::Violation;
use crate::world::{Key, Words};

const PIN: &[u8] = b"2580";
const WRONG_PIN: &[u8] = b"0852";
const PUK: &[u8] = b"73519468";
const PIN_TRIES: u8 = 3;
const PUK_TRIES: u8 = 10;
/// How often a phone begins again before its holder gives up.
const ATTEMPTS: usize = 12;
/// Of so many holders about one does not know the PIN.
const FORGETS_IN: u32 = 16;
/// Of so many commands about one meets each kind of trouble.
const TROUBLE_IN: u32 = 60;

/// What a chip, a display and a keypad were had to do.
#[derive(Debug, Clone, PartialEq)]
enum Deed {
    /// The card lost what it did not keep: its power, or somebody else began anew.
    Reset,
    /// Shown, of a card without a keypad; or shown and the PIN asked for.
    Shown(Vec<Line>),
    Unlocked,
    Signed(Vec<u8>, Vec<u8>),
}

/// What the holder does at the keypad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Typed {
    Right,
    Wrong,
    No,
}

pub(crate) struct SoftChip {
    serial: String,
    key: Key,
    certificate: Option<Vec<u8>>,
    pin_entry: PinEntry,
    pin_left: u8,
    puk_left: u8,
    is_unlocked: bool,
    deeds: Vec<Deed>,
}

pub(crate) struct Display {
    typed: Typed,
    shown: Vec<Vec<Line>>,
}

impl Chip for SoftChip {
    fn info(&self) -> CardInfo {
        CardInfo {
            serial: self.serial.clone(),
            method: match self.key {
                Key::Pki(_) => Method::Pki,
                Key::Ocra(_) => Method::Ocra,
            },
            suite: Suite::X25519_P256_AES128GCM_SHA256,
            pin_entry: self.pin_entry,
            server_id: "srv-test".to_owned(),
        }
    }

    fn certificate(&self) -> Option<Vec<u8>> {
        self.certificate.clone()
    }

    fn tries(&self) -> Result<Tries, ChipError> {
        Ok(Tries { pin: self.pin_left, puk: self.puk_left })
    }

    fn unlock(&mut self, pin: &Secret) -> Result<(), ChipError> {
        self.is_unlocked = false;
        self.pin_left = self.pin_left.checked_sub(1).ok_or(ChipError::PinBlocked)?;
        if !pin.ct_eq(PIN) {
            return Err(ChipError::PinWrong { left: self.pin_left });
        }
        self.pin_left = PIN_TRIES;
        self.is_unlocked = true;
        self.deeds.push(Deed::Unlocked);
        Ok(())
    }

    fn lock(&mut self) {
        self.is_unlocked = false;
    }

    fn sign(&mut self, request: &[u8], rng: &mut dyn CryptoRng) -> Result<Vec<u8>, ChipError> {
        if !std::mem::take(&mut self.is_unlocked) {
            return Err(ChipError::Locked);
        }
        let answer = match &self.key {
            Key::Pki(element) => countersign_payment::sign(&**element, rng, request)?,
            Key::Ocra(key) => ocra::respond(&Secret::copied_from(key), request)?.into_bytes(),
        };
        self.deeds.push(Deed::Signed(request.to_vec(), answer.clone()));
        Ok(answer)
    }

    fn change_pin(
        &mut self,
        _old: &Secret,
        _new: &Secret,
        _rng: &mut dyn CryptoRng,
    ) -> Result<(), ChipError> {
        unreachable!("no holder of a world changes a PIN")
    }

    fn unblock(
        &mut self,
        puk: &Secret,
        new: &Secret,
        _rng: &mut dyn CryptoRng,
    ) -> Result<(), ChipError> {
        self.puk_left = self.puk_left.checked_sub(1).ok_or(ChipError::PukBlocked)?;
        if !puk.ct_eq(PUK) || !new.ct_eq(PIN) {
            return Err(ChipError::PukWrong { left: self.puk_left });
        }
        (self.pin_left, self.puk_left) = (PIN_TRIES, PUK_TRIES);
        Ok(())
    }
}

impl Screen for Display {
    fn shown(&mut self, lines: &[Line]) {
        self.shown.push(lines.to_vec());
    }

    fn asked(&mut self, lines: &[Line]) -> Option<Secret> {
        self.shown.push(lines.to_vec());
        match self.typed {
            Typed::Right => Some(Secret::copied_from(PIN)),
            Typed::Wrong => Some(Secret::copied_from(WRONG_PIN)),
            Typed::No => None,
        }
    }
}

/// What came of presenting a card to a phone.
#[derive(Default)]
pub(crate) struct Presented {
    /// What the phone got, if it did not give up.
    pub(crate) answer: Option<Words>,
    /// What the card signed as well, and the phone did not hear: somebody else may have.
    pub(crate) unheard: Vec<Words>,
    /// The card does not show such a thing, and so does not sign it.
    pub(crate) refused: bool,
    pub(crate) happened: Vec<&'static str>,
    pub(crate) found: Vec<Violation>,
}

/// A security device.
pub(crate) struct Card(CardMachine<SecurityDeviceCard<SoftChip, Display>>);

/// The way to a card. Whatever fails, fails between two commands or within one.
struct Torn<'a> {
    card: &'a mut Card,
    rng: &'a mut dyn CryptoRng,
    chance: &'a mut ChaCha20Rng,
    happened: &'a mut Vec<&'static str>,
}

impl CardLink for Torn<'_> {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
        match self.chance.next_u32() % TROUBLE_IN {
            0 => {
                self.happened.push("cards removed");
                self.card.reset();
                Err(LinkError::Removed)
            }
            1 => {
                // The command was there in time; what came of it is not heard.
                self.happened.push("cards removed");
                self.card.handle(self.rng, command);
                self.card.reset();
                Err(LinkError::Removed)
            }
            2 => {
                self.happened.push("cards reset");
                self.card.reset();
                Err(LinkError::Reset)
            }
            3 => {
                // Nobody says that it was reset.
                self.happened.push("cards reset");
                self.card.reset();
                Ok(self.card.handle(self.rng, command))
            }
            4 => {
                // The response is lost, and the card goes on.
                self.happened.push("responses lost");
                self.card.handle(self.rng, command);
                Err(LinkError::Timeout)
            }
            5 => {
                // The command comes twice.
                self.happened.push("commands twice");
                self.card.handle(self.rng, command);
                Ok(self.card.handle(self.rng, command))
            }
            _ => Ok(self.card.handle(self.rng, command)),
        }
    }
}

fn violation(name: &'static str, detail: impl Into<String>) -> Violation {
    Violation { name, detail: detail.into() }
}

impl Card {
    pub(crate) fn new(serial: &str, key: Key, certificate: Option<Vec<u8>>, keypad: bool) -> Self {
        let chip = SoftChip {
            serial: serial.to_owned(),
            key,
            certificate,
            pin_entry: if keypad { PinEntry::Keypad } else { PinEntry::Host },
            pin_left: PIN_TRIES,
            puk_left: PUK_TRIES,
            is_unlocked: false,
            deeds: Vec::new(),
        };
        let display = Display { typed: Typed::Right, shown: Vec::new() };
        Self(CardMachine::new(SecurityDeviceCard::new(chip, display)))
    }

    fn reset(&mut self) {
        self.0.reset();
        self.0.application_mut().chip_mut().deeds.push(Deed::Reset);
    }

    fn handle(&mut self, rng: &mut dyn CryptoRng, command: &[u8]) -> Vec<u8> {
        let before = self.0.application().chip().deeds.len();
        let response = self.0.handle(rng, command);
        // What was shown came before what was done for it, within one command too.
        let shown = std::mem::take(&mut self.0.application_mut().screen_mut().shown);
        let deeds = &mut self.0.application_mut().chip_mut().deeds;
        deeds.splice(before..before, shown.into_iter().map(Deed::Shown));
        response
    }

    /// Presents the card, with these bytes to confirm, until it has answered or its holder gives
    /// up. `seed` says what goes wrong.
    pub(crate) fn confirm(
        &mut self,
        request: &[u8],
        seed: u64,
        rng: &mut dyn CryptoRng,
    ) -> Presented {
        let mut out = Presented::default();
        let mut chance = seeded(seed);
        // A holder who puts it there gives it power.
        self.0.power();
        self.0.application_mut().chip_mut().deeds.clear();
        let forgets = chance.next_u32().is_multiple_of(FORGETS_IN);
        for _ in 0..ATTEMPTS {
            // Who does not know the PIN finds the paper with the PUK when the card is blocked.
            let lost = forgets && !out.happened.contains(&"PINs unblocked");
            let tried = self.attempt((request, lost), &mut chance, rng, &mut out);
            match tried {
                Ok(answer) => {
                    self.check_handed_out(request, &answer, &mut out.found);
                    out.answer = Some(words(&self.0.application().chip().key, answer));
                    break;
                }
                // A command that came twice makes other bytes of the request.
                Err(CardError::RequestRefused) if out.happened.contains(&"commands twice") => {}
                Err(CardError::RequestRefused) => {
                    out.refused = true;
                    break;
                }
                Err(error) => self.check_error(&error, &mut out),
            }
        }
        self.check_deeds(&mut out);
        out
    }

    /// One way through the protocol, as a phone goes it.
    fn attempt(
        &mut self,
        (request, lost): (&[u8], bool),
        chance: &mut ChaCha20Rng,
        rng: &mut dyn CryptoRng,
        out: &mut Presented,
    ) -> Result<Vec<u8>, CardError> {
        let mut one_in = |bound: u32| chance.next_u32().is_multiple_of(bound);
        let (mistypes, declines, teases) = (one_in(6) || lost, one_in(12), one_in(6));
        let typed = match (mistypes, declines) {
            (true, _) => Typed::Wrong,
            (_, true) => Typed::No,
            _ => Typed::Right,
        };
        self.0.application_mut().screen_mut().typed = typed;
        let happened = &mut out.happened;
        let mut client = CardClient::new(Torn { card: self, rng, chance, happened });
        client.select()?;
        let info = client.info()?;
        let certificate = client.certificate()?;
        let chip = client.link_mut().card.0.application().chip();
        if (&info.serial, &certificate) != (&chip.serial, &chip.certificate) {
            out.found.push(violation("card-data", format!("{info:?}")));
        }
        if client.tries()?.pin == 0 {
            let (puk, new) = (Secret::copied_from(PUK), Secret::copied_from(PIN));
            if info.pin_entry == PinEntry::Host {
                client.unblock(&puk, &new)?;
            } else {
                // A PUK is typed where the PIN is.
                let Torn { card, rng, .. } = client.link_mut();
                card.0.application_mut().chip_mut().unblock(&puk, &new, *rng).unwrap();
            }
            client.link_mut().happened.push("PINs unblocked");
        }
        if teases {
            // What cannot be shown is not even taken.
            match client.load(b"{\"amount\":\"1.00\"}") {
                Err(CardError::RequestRefused) => {}
                Err(error @ CardError::Link(_)) => return Err(error),
                Err(CardError::OutOfOrder | CardError::Status(_)) => {
                    return Err(CardError::OutOfOrder);
                }
                other => out.found.push(violation("card-showed", format!("{other:?}"))),
            }
        }
        client.load(request)?;
        if info.pin_entry == PinEntry::Host {
            let pin = if mistypes { WRONG_PIN } else { PIN };
            client.verify(&Secret::copied_from(pin))?;
            if mistypes {
                out.found.push(violation("wrong-pin-taken", info.serial));
            }
        }
        client.sign()
    }

    /// An error is one that trouble, or the holder, can bring about.
    fn check_error(&self, error: &CardError, out: &mut Presented) {
        let chip = self.0.application().chip();
        match error {
            CardError::PinWrong { left } => {
                out.happened.push("PINs wrong");
                if *left != chip.pin_left {
                    let detail = format!("{}: {left} told, {}", chip.serial, chip.pin_left);
                    out.found.push(violation("tries-differ", detail));
                }
            }
            CardError::PinBlocked => {
                out.happened.push("PINs blocked");
                if chip.pin_left != 0 {
                    out.found.push(violation("tries-differ", chip.serial.clone()));
                }
            }
            CardError::Declined => out.happened.push("declined at the keypad"),
            // After a reset that nobody told of, and a command that came twice.
            CardError::Link(_)
            | CardError::OutOfOrder
            | CardError::NotOurs
            | CardError::Malformed
            | CardError::Status(_) => {
                if !out.happened.iter().any(|what| TROUBLES.contains(what)) {
                    out.found.push(violation("card-error", format!("{error:?}")));
                }
            }
            other => out.found.push(violation("card-error", format!("{other:?}"))),
        }
    }

    /// What a phone is given is what was signed last, over these bytes.
    fn check_handed_out(&self, request: &[u8], answer: &[u8], found: &mut Vec<Violation>) {
        let signed = self.0.application().chip().deeds.iter().rev().find_map(|deed| match deed {
            Deed::Signed(bytes, answer) => Some((bytes, answer)),
            _ => None,
        });
        let right = signed.is_some_and(|(bytes, made)| bytes == request && made == answer);
        if !right {
            found.push(violation("card-answer", format!("{signed:?}")));
        }
    }

    /// Everything that was signed was shown since the card last had power, in full, and a PIN was
    /// given for it after that and for nothing else.
    fn check_deeds(&self, out: &mut Presented) {
        let chip = self.0.application().chip();
        let (mut shown, mut unlocked) = (None, false);
        for deed in &chip.deeds {
            match deed {
                Deed::Reset => (shown, unlocked) = (None, false),
                Deed::Shown(lines) => (shown, unlocked) = (Some(lines), false),
                Deed::Unlocked => unlocked = true,
                Deed::Signed(request, answer) => {
                    let lines = ConfirmationRequest::parse(request).ok().map(|it| it.lines());
                    if shown != lines.as_ref() || lines.is_none() {
                        out.found.push(violation("signed-unseen", chip.serial.clone()));
                    }
                    if !unlocked {
                        out.found.push(violation("signed-without-pin", chip.serial.clone()));
                    }
                    (shown, unlocked) = (None, false);
                    let words = words(&chip.key, answer.clone());
                    if out.answer.as_ref() != Some(&words) && !out.unheard.contains(&words) {
                        out.happened.push("signed unheard");
                        out.unheard.push(words);
                    }
                }
            }
        }
    }
}

/// What makes errors of the link, and of the order of commands, fair.
const TROUBLES: [&str; 4] = ["cards removed", "cards reset", "responses lost", "commands twice"];

fn words(key: &Key, answer: Vec<u8>) -> Words {
    match key {
        Key::Pki(_) => Words::Signature(answer),
        Key::Ocra(_) => Words::Digits(String::from_utf8(answer).unwrap()),
    }
}

/// That the judge of cards sees what it is there to see: a card's own story is told otherwise.
pub(crate) fn the_judge_bites() -> Result<(), Failed> {
    let request = example();
    let (one, other) = (request.to_bytes().unwrap(), {
        let order = "Order 18".to_owned();
        ConfirmationRequest { order, ..request }.to_bytes().unwrap()
    });
    let shown = |bytes: &[u8]| Deed::Shown(ConfirmationRequest::parse(bytes).unwrap().lines());
    let signed = |bytes: &[u8]| Deed::Signed(bytes.to_vec(), b"12345678".to_vec());
    let good = vec![shown(&one), Deed::Unlocked, signed(&one)];
    let stories = [
        (good.clone(), None),
        ([good.clone(), good.clone()].concat(), None),
        (vec![Deed::Unlocked, shown(&one), signed(&one)], Some("signed-without-pin")),
        (vec![shown(&one), signed(&one)], Some("signed-without-pin")),
        (vec![shown(&one), Deed::Unlocked, Deed::Reset, signed(&one)], Some("signed-unseen")),
        (vec![shown(&other), Deed::Unlocked, signed(&one)], Some("signed-unseen")),
        (vec![Deed::Unlocked, signed(&one)], Some("signed-unseen")),
        ([good, vec![signed(&one)]].concat(), Some("signed-unseen")),
    ];
    for (deeds, name) in stories {
        let mut card = Card::new("KEY-1", Key::Ocra(vec![7; 32]), None, false);
        card.0.application_mut().chip_mut().deeds = deeds.clone();
        let mut out =
            Presented { answer: Some(Words::Digits("12345678".into())), ..Presented::default() };
        card.check_deeds(&mut out);
        let found = out.found.first().map(|one| one.name);
        assert_eq!(found, name, "{deeds:?}");
        // And of what is handed out: the last, over the very bytes.
        let mut found = Vec::new();
        card.check_handed_out(&one, b"12345678", &mut found);
        let last = matches!(deeds.last(), Some(Deed::Signed(bytes, _)) if *bytes == one);
        assert_eq!(found.is_empty(), last);
        card.check_handed_out(&one, b"12345679", &mut found);
        assert!(!found.is_empty(), "another answer than was made");
    }
    Ok(())
}

pub(crate) fn example() -> ConfirmationRequest {
    ConfirmationRequest {
        server: "srv-test".to_owned(),
        payment: "pay_1".to_owned(),
        payer_account: AccountNumber::parse("PAYER0001").unwrap(),
        payee_account: AccountNumber::parse("PAYEE0001").unwrap(),
        payee_name: "Tea Shop".to_owned(),
        order: "Order 17".to_owned(),
        amount: Amount::parse("1.00", "CNY").unwrap(),
        expires: crate::house::START,
        initiator: "Web shop".to_owned(),
        alerts: Vec::new(),
    }
}
