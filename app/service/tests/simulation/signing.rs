//! The signing cards of a world, as the cards that they are: their application behind a link that
//! fails between any two APDUs, holders who agree, decline, mistype and forget, and somebody who
//! watches what the card shows, takes and gives.

mod bites;
mod chip;
mod link;
mod witness;

use std::sync::Arc;
use std::time::Duration;

use countersign_crypto::{CryptoRng, Provider, Secret, SecureElement, Suite, UnixTime};
use countersign_iso7816::CardMachine;
use countersign_payment::ConfirmationRequest;
use countersign_payment::card::{CardError, ChipError};
use countersign_payment::joint::card::{
    ConfirmError, Interface, JointCard, JointClient, JointInfo, Signed, View,
};
use countersign_payment::joint::{Form, JointPassword, Language, Picture};
use testkit::rng::{ChaCha20Rng, seeded};

pub(crate) use bites::the_judge_bites;
pub(crate) use chip::Draw;
use chip::{PIN, SoftChip, WRONG_PIN};
use link::{TROUBLES, Torn};
use witness::{Deed, Witness};

use crate::judge::{Consent, Violation};
use crate::plan::{Carry, Holder, Twist};
use crate::saboteurs::Sabotage;

/// How often a terminal begins again before it gives up.
const ATTEMPTS: usize = 8;
/// The same for reading the joint password without contact.
const TAPS: usize = 3;
const GET_DATA_ODD: u8 = 0xcb;
const PUT_DATA: u8 = 0xda;
const SIGN: u8 = 0x2a;
const CHAIN: u8 = 0x10;

/// What came of something that was done with a card.
#[derive(Default)]
pub(crate) struct Visit {
    pub(crate) happened: Vec<&'static str>,
    pub(crate) found: Vec<Violation>,
}

impl Visit {
    fn found(&mut self, name: &'static str, detail: impl Into<String>) {
        self.found.push(Violation { name, detail: detail.into() });
    }
}

/// A signing card, and who watches it.
pub(crate) struct SigningCard {
    machine: CardMachine<JointCard<SoftChip>>,
    witness: Witness,
    now: UnixTime,
    /// The reader in which it is.
    place: Option<Interface>,
    /// What is wrong with it on purpose.
    pub(crate) sabotage: Sabotage,
    found: Vec<Violation>,
}

/// What a card is made of.
pub(crate) struct Blank<'a> {
    pub(crate) provider: Provider,
    pub(crate) serial: &'a str,
    pub(crate) account: &'a str,
    pub(crate) certificate: Vec<u8>,
    pub(crate) element: Arc<dyn SecureElement>,
    pub(crate) server_point: Vec<u8>,
    pub(crate) shared: Secret,
}

impl SigningCard {
    pub(crate) fn new(blank: Blank<'_>, now: UnixTime) -> Self {
        let info = JointInfo {
            serial: blank.serial.to_owned(),
            forms: Form::ALL.to_vec(),
            suite: Suite::X25519_P256_AES128GCM_SHA256,
            server_id: "srv-test".to_owned(),
            account: blank.account.to_owned(),
        };
        let chip = SoftChip {
            provider: blank.provider,
            info,
            certificate: blank.certificate,
            element: blank.element,
            server_point: blank.server_point,
            shared: blank.shared,
            pin_left: chip::PIN_TRIES,
            takes_any: false,
            draws: Vec::new(),
        };
        let mut card = Self {
            machine: CardMachine::new(JointCard::new(chip)),
            witness: Witness::default(),
            now,
            place: None,
            sabotage: Sabotage::None,
            found: Vec::new(),
        };
        card.tick(now);
        card
    }

    fn chip(&self) -> &SoftChip {
        self.machine.application().chip()
    }

    /// Everything that it ever signed.
    pub(crate) fn draws(&self) -> &[Draw] {
        &self.chip().draws
    }

    /// What its holder agreed to, in the right way.
    pub(crate) fn consents(&self) -> &[Consent] {
        &self.witness.consents
    }

    pub(crate) fn tick(&mut self, now: UnixTime) {
        self.now = self.now.max(now);
        self.machine.application_mut().tick(self.now);
        self.observe();
    }

    /// Its own clock goes on, and waits for the world's then.
    pub(crate) fn runs_ahead(&mut self, time: Duration) {
        self.tick(self.now.plus(time));
    }

    fn see(&mut self, deed: Deed) {
        let wrong = self.witness.see(deed, self.now);
        self.found.extend(wrong);
    }

    /// What its display says now, to who looks at it.
    fn observe(&mut self) {
        let deed = match self.machine.application().view() {
            View::Consent { lines, .. } => Deed::Asked(lines.to_vec()),
            View::Password { password, .. } => Deed::Shown(password.digits().to_owned()),
            _ => return,
        };
        self.see(deed);
    }

    /// Whether it has signed, and there is no consent.
    fn waits(&self) -> bool {
        let view = self.machine.application().view();
        matches!(view, View::TakeOut { .. } | View::Consent { .. })
    }

    fn handle(&mut self, rng: &mut dyn CryptoRng, command: &[u8]) -> Vec<u8> {
        let signed = self.draws().len();
        let instruction = command.get(1).copied().unwrap_or_default();
        let response = match (self.sabotage, instruction) {
            (Sabotage::CardReleasesEarly, GET_DATA_ODD) if self.waits() => {
                let digits = self.draws()[signed - 1].password.as_bytes();
                [digits, &[0x90, 0x00]].concat()
            }
            (Sabotage::CardRepeatsPassword, SIGN) => self.machine.handle(&mut seeded(7), command),
            _ => self.machine.handle(rng, command),
        };
        let whole = command.first().is_some_and(|class| class & CHAIN == 0);
        if let Some(data) = response.strip_suffix(&[0x90, 0x00]) {
            match instruction {
                PUT_DATA if whole => self.see(Deed::Replaced),
                GET_DATA_ODD => self.see(Deed::Given(String::from_utf8_lossy(data).into_owned())),
                _ => {}
            }
        }
        let fresh = self.draws()[signed..].to_vec();
        for draw in fresh {
            self.see(Deed::Signed(Box::new(draw)));
        }
        self.observe();
        response
    }

    fn reset(&mut self) {
        self.machine.reset();
        self.observe();
    }

    /// Taken out of whatever reader it is in.
    pub(crate) fn take_out(&mut self) {
        self.place = None;
        self.machine.reset();
        self.machine.application_mut().removed();
        self.see(Deed::TakenOut);
        self.observe();
    }

    fn insert(&mut self, interface: Interface) {
        if self.place.is_some_and(|place| place != interface) {
            self.take_out();
        }
        self.place = Some(interface);
        if interface == Interface::Contact {
            self.see(Deed::PutBack);
        }
        self.machine.application_mut().set_interface(interface);
        self.machine.power();
        self.observe();
    }

    /// Its battery is empty, wherever it is; it gets another one.
    fn battery(&mut self) {
        self.machine.application_mut().power_lost();
        self.take_out();
        self.see(Deed::Dead);
        self.observe();
    }

    /// In a terminal, with this to sign, until it has signed or the terminal gives up.
    pub(crate) fn sign(
        &mut self,
        transaction: &[u8],
        (form, twist): (Form, Twist),
        chance: &mut ChaCha20Rng,
        rng: &mut dyn CryptoRng,
    ) -> (Option<Signed>, Visit) {
        let mut visit = Visit::default();
        if self.chip().pin_left == 0 {
            self.machine.application_mut().chip_mut().unblock();
            visit.happened.push("joint PINs unblocked");
        }
        self.machine.application_mut().chip_mut().takes_any =
            self.sabotage == Sabotage::CardTakesAnyPin;
        let mut signed = None;
        for _ in 0..ATTEMPTS {
            match self.attempt(transaction, (form, twist), chance, rng, &mut visit) {
                Ok(done) => {
                    signed = Some(done);
                    break;
                }
                Err(error) => self.check_error(&error, &mut visit),
            }
        }
        visit.found.append(&mut self.found);
        (signed, visit)
    }

    /// One way through the protocol, as a terminal goes it.
    fn attempt(
        &mut self,
        transaction: &[u8],
        (form, twist): (Form, Twist),
        chance: &mut ChaCha20Rng,
        rng: &mut dyn CryptoRng,
        visit: &mut Visit,
    ) -> Result<Signed, CardError> {
        self.insert(Interface::Contact);
        let hash = self.chip().provider.hash.clone();
        let own = (self.chip().info.clone(), self.chip().certificate.clone());
        let happened = &mut visit.happened;
        let mut client = JointClient::new(Torn { card: self, rng, chance, happened });
        client.select()?;
        let told = (client.info()?, client.certificate()?);
        if told != (own.0, Some(own.1)) {
            visit.found.push(Violation { name: "card-data", detail: format!("{:?}", told.0) });
        }
        if twist == Twist::Peeks {
            // Nothing that cannot be shown is taken, and nothing is signed that was not put.
            refused(client.put_transaction(b"{\"amount\":\"1.00\"}"), &mut visit.found)?;
            refused(client.sign(form).map(|_| ()), &mut visit.found)?;
        }
        client.put_transaction(transaction)?;
        let signed = client.sign(form)?;
        if twist == Twist::Peeks {
            refused(client.sign(form).map(|_| ()), &mut visit.found)?;
            refused(client.release(&*hash, &signed).map(|_| ()), &mut visit.found)?;
            client.link_mut().happened.push("peeked");
        }
        let draw = self.draws().last();
        let right = draw.is_some_and(|draw| {
            draw.commitment == signed.commitment.as_bytes() && draw.signature == signed.signature
        });
        if !right {
            visit.found("card-answer", format!("{draw:?}"));
        }
        Ok(signed)
    }

    /// An error is one that trouble can bring about.
    fn check_error(&self, error: &CardError, visit: &mut Visit) {
        let fair = match error {
            CardError::Link(_)
            | CardError::OutOfOrder
            | CardError::NotOurs
            | CardError::Malformed
            | CardError::Status(_) => visit.happened.iter().any(|what| TROUBLES.contains(what)),
            // A part of it that came twice makes other bytes.
            CardError::RequestRefused => visit.happened.contains(&"joint commands twice"),
            _ => false,
        };
        if !fair {
            visit.found("card-error", format!("{}: {error:?}", self.chip().info.serial));
        }
    }

    /// Its holder decides, with what was agreed on in mind. Whether there is consent now.
    pub(crate) fn decide(&mut self, holder: Holder, agreed: &[u8]) -> (bool, Visit) {
        let mut visit = Visit::default();
        if holder == Holder::Leaves {
            self.insert(Interface::Contact);
            let taken = self.type_pin(PIN);
            if taken.is_ok() {
                visit.found("consent-in-terminal", self.chip().info.serial.clone());
            }
            visit.happened.push("left in the terminal");
        } else {
            self.decide_outside(holder, agreed, &mut visit);
        }
        visit.found.append(&mut self.found);
        (self.shown().is_some(), visit)
    }

    fn decide_outside(&mut self, holder: Holder, agreed: &[u8], visit: &mut Visit) {
        self.take_out();
        let lines = match self.machine.application().view() {
            View::Consent { lines, .. } => lines.to_vec(),
            View::TimedOut => return visit.happened.push("consent timed out"),
            _ => return visit.happened.push("nothing to consent to"),
        };
        let wanted = ConfirmationRequest::parse(agreed).is_ok_and(|it| it.lines() == lines);
        match holder {
            Holder::Compares if !wanted => {
                visit.happened.push("declined by comparing");
                self.decline(visit);
            }
            Holder::Declines => self.decline(visit),
            Holder::Mistypes => {
                self.mistype(visit);
                self.agree(visit);
            }
            Holder::Forgets => {
                while self.chip().pin_left > 0 && self.mistype(visit) {}
                if self.chip().pin_left == 0 {
                    visit.happened.push("joint PINs blocked");
                    let blocked = matches!(self.machine.application().view(), View::Blocked);
                    if !blocked || self.type_pin(PIN).is_ok() {
                        visit.found("taken-while-blocked", self.chip().info.serial.clone());
                    }
                }
            }
            Holder::BatteryBefore => {
                self.battery();
                visit.happened.push("batteries dead before consent");
                self.nothing_left(visit);
            }
            Holder::BatteryAfter => {
                self.agree(visit);
                self.battery();
                visit.happened.push("batteries dead after consent");
                self.nothing_left(visit);
            }
            _ => self.agree(visit),
        }
    }

    fn type_pin(&mut self, pin: &[u8]) -> Result<(), ConfirmError> {
        self.see(Deed::Typed(pin == PIN));
        let taken = self.machine.application_mut().confirm(&Secret::copied_from(pin));
        if taken.is_ok() {
            self.see(Deed::Agreed);
        }
        self.observe();
        taken
    }

    fn agree(&mut self, visit: &mut Visit) {
        match self.type_pin(PIN) {
            Ok(()) => visit.happened.push("consented"),
            Err(error) => visit.found("right-pin-refused", error.to_string()),
        }
    }

    /// A wrong PIN; whether there may be another.
    fn mistype(&mut self, visit: &mut Visit) -> bool {
        let left = self.chip().pin_left;
        visit.happened.push("joint PINs wrong");
        match self.type_pin(WRONG_PIN) {
            Err(ConfirmError::Chip(ChipError::PinWrong { left: told })) if told + 1 == left => true,
            Err(ConfirmError::Chip(ChipError::PinBlocked)) => false,
            other => {
                visit.found("wrong-pin-taken", format!("{other:?} with {left} left"));
                false
            }
        }
    }

    fn decline(&mut self, visit: &mut Visit) {
        if self.sabotage != Sabotage::CardForgetsNothing {
            self.machine.application_mut().decline();
        }
        self.see(Deed::Declined);
        visit.happened.push("declined at the card");
        self.nothing_left(visit);
    }

    /// Who has declined, or lost the power, cannot agree any more.
    fn nothing_left(&mut self, visit: &mut Visit) {
        if self.type_pin(PIN).is_ok() {
            visit.found("consent-to-nothing", self.chip().info.serial.clone());
        }
    }

    /// The joint password on its display, if there is one.
    fn shown(&self) -> Option<String> {
        match self.machine.application().view() {
            View::Password { password, .. } => Some(password.grouped().to_string()),
            _ => None,
        }
    }

    /// The joint password on its way to the terminal; or to who listens to the terminal's reader.
    pub(crate) fn fetch(
        &mut self,
        carry: Carry,
        (signed, twist): (&Signed, Twist),
        chance: &mut ChaCha20Rng,
        rng: &mut dyn CryptoRng,
    ) -> (Option<String>, Visit) {
        let mut visit = Visit::default();
        let fetched = match carry {
            Carry::Typed => self.shown().inspect(|_| visit.happened.push("typed")),
            Carry::Pictures => self.told_pictures(&mut visit),
            Carry::Contactless => self.tap((signed, twist), chance, rng, &mut visit),
        };
        // What was not read can still be typed, if it is still there.
        let fetched = fetched.or_else(|| self.shown());
        visit.found.append(&mut self.found);
        (fetched, visit)
    }

    /// The holder says the pictures, and somebody finds them again.
    fn told_pictures(&self, visit: &mut Visit) -> Option<String> {
        let shown = JointPassword::parse(&self.shown()?).unwrap();
        let said = shown.pictures().map(|one| one.name(Language::Zh));
        let found: Vec<_> = said.iter().map(|name| Picture::from_name(name).unwrap()).collect();
        visit.happened.push("told in pictures");
        Some(JointPassword::from_pictures(&found).unwrap().digits().to_owned())
    }

    fn tap(
        &mut self,
        (signed, twist): (&Signed, Twist),
        chance: &mut ChaCha20Rng,
        rng: &mut dyn CryptoRng,
        visit: &mut Visit,
    ) -> Option<String> {
        let hash = self.chip().provider.hash.clone();
        let current = self.draws().last().is_some_and(|draw| draw.signature == signed.signature);
        for _ in 0..TAPS {
            let ready = self.shown().is_some();
            let earlier = self.draws().iter().rev().find(|draw| draw.signature != signed.signature);
            let earlier = earlier.map(Draw::signed);
            self.insert(Interface::Contactless);
            let happened = &mut visit.happened;
            let link = Torn { card: &mut *self, rng: &mut *rng, chance: &mut *chance, happened };
            let mut client = JointClient::new(link);
            let given = client.select().and_then(|()| {
                if twist == Twist::WrongHash {
                    let mut other = signed.clone();
                    other.signature.push(0);
                    if client.release(&*hash, &other).is_ok() {
                        client.link_mut().happened.push("released to a wrong hash");
                    }
                    client.link_mut().happened.push("asked with a wrong hash");
                    if let Some(earlier) = &earlier {
                        refused(client.release(&*hash, earlier).map(|_| ()), &mut visit.found)?;
                        client.link_mut().happened.push("asked for another's");
                    }
                }
                client.release(&*hash, signed)
            });
            match given {
                Ok(password) => {
                    visit.happened.push("read without contact");
                    return Some(password.digits().to_owned());
                }
                Err(_) if !ready => visit.happened.push("tapped for nothing"),
                Err(CardError::OtherSignature) if !current => {
                    visit.happened.push("asked for another's");
                }
                Err(error) => self.check_tap(&error, visit),
            }
            self.take_out();
        }
        None
    }

    fn check_tap(&self, error: &CardError, visit: &mut Visit) {
        let troubled = visit.happened.iter().any(|what| TROUBLES.contains(what));
        if !troubled {
            visit.found("card-error", format!("{}: {error:?}", self.chip().info.serial));
        }
    }
}

/// What must not be done: an error of the link is passed on, any other refusal is right.
fn refused(done: Result<(), CardError>, found: &mut Vec<Violation>) -> Result<(), CardError> {
    match done {
        Err(error @ CardError::Link(_)) => Err(error),
        Err(_) => Ok(()),
        Ok(()) => {
            let detail = "a terminal went too far".to_owned();
            found.push(Violation { name: "card-took", detail });
            Ok(())
        }
    }
}
