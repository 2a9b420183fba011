use alloc::vec::Vec;

use countersign_crypto::{CryptoRng, HASH_LEN, Secret, UnixTime};
use countersign_iso7816::tlv::{self, TlvError};
use countersign_iso7816::{Application, Command, Response, Status};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::state::{Ended, Ending, Kept, State};
use super::{
    AID, ConfirmError, Interface, JointChip, JointInfo, LABEL, Phase, VERSION, View, instruction,
    parameter, tag,
};
use crate::ConfirmationRequest;
use crate::card::ChipError;
use crate::card::application::control_information;
use crate::card::{instruction as basic, parameter as object};
use crate::joint::{DIGITS, Form, JointPassword, release_hash};

/// Bytes of each of the two blocks that show whether the generator is stuck.
const STUCK_LEN: usize = 16;

/// The application of a signing card (B1 to B7): it signs first, in the terminal, and asks
/// afterwards, in its holder's hand.
///
/// It has a battery: that a reader resets it or takes its power away harms a transaction which is
/// not signed yet, and nothing else. Whoever drives it calls [`tick`](Self::tick) before anything
/// else, each time. When it leaves a reader, whoever drives it calls [`removed`](Self::removed) and
/// resets the [`CardMachine`](countersign_iso7816::CardMachine) around it, both before
/// [`set_interface`](Self::set_interface) says where it is next: a card that was in a terminal is
/// in that terminal until then.
pub struct JointCard<C> {
    chip: C,
    state: State,
    /// The reader in which it is, if any.
    place: Option<Interface>,
    /// How long it has been awake: goes forward only, whatever the clock does.
    awake: UnixTime,
    /// What the clock said last.
    seen: Option<UnixTime>,
}

impl<C: JointChip> JointCard<C> {
    /// The application on this chip, in its holder's hand, with nothing to show.
    #[must_use]
    pub const fn new(chip: C) -> Self {
        let (state, awake) = (State::Idle(None), UnixTime::from_millis(0));
        Self { chip, state, place: None, awake, seen: None }
    }

    /// The chip.
    #[must_use]
    pub const fn chip(&self) -> &C {
        &self.chip
    }

    /// The chip, to change it.
    pub const fn chip_mut(&mut self) -> &mut C {
        &mut self.chip
    }

    /// It is so late. What waited too long is destroyed: [`TAKE_OUT_TIME`](super::TAKE_OUT_TIME),
    /// [`CONSENT_TIME`](super::CONSENT_TIME), [`SHOW_TIME`](super::SHOW_TIME). A clock that goes
    /// back counts as one that stands still.
    pub fn tick(&mut self, now: UnixTime) {
        let before = self.seen.replace(now).unwrap_or(now);
        self.awake = self.awake.plus(now.since(before));
        if self.state.is_late(self.awake) {
            self.end(Ending::TimedOut);
        }
    }

    /// It is put into a reader, or held to one. Out of a terminal's it comes by
    /// [`removed`](Self::removed) only: that a contactless reader is there too is no reason to ask
    /// its holder, and to give the joint password, while the terminal has the card.
    pub const fn set_interface(&mut self, interface: Interface) {
        if !matches!(self.place, Some(Interface::Contact)) {
            self.place = Some(interface);
        }
    }

    /// It is taken out of its reader, or away from it. Out of a terminal's, it asks its holder
    /// about what it signed; where the terminal does not have the whole signature, it forgets it.
    pub fn removed(&mut self) {
        if self.place.take() != Some(Interface::Contact) {
            return;
        }
        self.state = match core::mem::replace(&mut self.state, State::Idle(None)) {
            State::Signed { kept, is_delivered: true } => {
                State::Asking(Kept { since: self.awake, ..kept })
            }
            State::Loaded { .. } | State::Signed { .. } => State::Idle(None),
            other => other,
        };
    }

    /// The holder consents, with this PIN, while the card is not in a terminal. For the right one
    /// it shows the joint password; the last wrong one destroys it.
    ///
    /// # Errors
    /// [`ConfirmError`].
    pub fn confirm(&mut self, pin: &Secret) -> Result<(), ConfirmError> {
        if self.state.phase() != Phase::Asking {
            return Err(ConfirmError::NothingAsked);
        }
        if self.place == Some(Interface::Contact) {
            return Err(ConfirmError::InTerminal);
        }
        if let Err(error) = self.chip.check_pin(pin) {
            let is_last = self.chip.tries().is_ok_and(|tries| tries.pin == 0);
            if is_last || error == ChipError::PinBlocked {
                self.end(Ending::Blocked);
            }
            return Err(error.into());
        }
        self.state = match core::mem::replace(&mut self.state, State::Idle(None)) {
            State::Asking(kept) => State::Released(Kept { since: self.awake, ..kept }),
            other => other,
        };
        Ok(())
    }

    /// The holder says no, at any time: whatever the card has of a transaction is destroyed.
    pub fn decline(&mut self) {
        if !matches!(self.state, State::Idle(_)) {
            self.end(Ending::Declined);
        }
    }

    /// Its battery is gone too: of keys and tries nothing is lost, of a transaction everything.
    pub fn power_lost(&mut self) {
        self.state = State::Idle(None);
    }

    /// Where it stands.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.state.phase()
    }

    /// What its display shows.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        match &self.state {
            State::Idle(None) => View::Idle,
            State::Idle(Some(Ended { why: Ending::Declined, .. })) => View::Declined,
            State::Idle(Some(Ended { why: Ending::TimedOut, .. })) => View::TimedOut,
            State::Idle(Some(Ended { why: Ending::Blocked, .. })) => View::Blocked,
            // Who takes it out before the terminal has all of the signature has signed in vain.
            State::Loaded { .. } | State::Signed { is_delivered: false, .. } => View::Loaded,
            State::Signed { kept, .. } => View::TakeOut { lines: &kept.lines },
            State::Asking(kept) if self.place == Some(Interface::Contact) => {
                View::TakeOut { lines: &kept.lines }
            }
            State::Asking(kept) => {
                let tries_left = self.chip.tries().ok().map(|tries| tries.pin);
                View::Consent { lines: &kept.lines, tries_left }
            }
            State::Released(kept) => {
                View::Password { lines: &kept.lines, password: &kept.password }
            }
        }
    }

    fn end(&mut self, why: Ending) {
        let release = self.state.release().copied();
        self.state = State::Idle(Some(Ended { why, release }));
    }

    /// A conversation ends: a transaction that is not signed is gone, and a signature that the
    /// terminal has not wholly fetched can be fetched no more.
    fn forget_conversation(&mut self) {
        if matches!(self.state, State::Loaded { .. }) {
            self.state = State::Idle(None);
        }
        self.forget_undelivered();
    }

    fn forget_undelivered(&mut self) {
        if matches!(self.state, State::Signed { is_delivered: false, .. }) {
            self.state = State::Idle(None);
        }
    }

    fn run(&mut self, command: &Command, rng: &mut dyn CryptoRng) -> Result<Vec<u8>, Status> {
        let takes = |parameters| {
            if command.parameters() == parameters { Ok(()) } else { Err(Status::WRONG_PARAMETERS) }
        };
        match command.ins {
            basic::GET_DATA => self.data_object(command),
            basic::PUT_DATA => {
                takes(object::REQUEST)?;
                self.check_contact()?;
                self.load(command.data())
            }
            instruction::MANAGE_SECURITY_ENVIRONMENT => {
                takes(parameter::SIGNATURE_TEMPLATE)?;
                self.check_contact()?;
                self.choose_form(command.data())
            }
            basic::PERFORM_SECURITY_OPERATION => {
                takes(object::SIGNATURE)?;
                self.check_contact()?;
                self.sign(command.data(), rng)
            }
            instruction::GET_DATA_ODD => {
                takes(parameter::RELEASE)?;
                self.release(command)
            }
            basic::VERIFY => {
                takes(object::PIN)?;
                self.tell_tries(command.data())
            }
            // At the keypad only: nobody else finds a PIN out, or uses its tries up.
            basic::CHANGE_REFERENCE_DATA | basic::RESET_RETRY_COUNTER => Err(Status::UNSUPPORTED),
            _ => Err(Status::INSTRUCTION),
        }
    }

    /// What only a terminal's contact reader may do: a card in a pocket signs nothing, and tells
    /// nobody whose it is.
    fn check_contact(&self) -> Result<(), Status> {
        if self.place == Some(Interface::Contact) { Ok(()) } else { Err(Status::CONDITIONS) }
    }

    /// GET DATA: the value of a data object, without its tag and length.
    fn data_object(&self, command: &Command) -> Result<Vec<u8>, Status> {
        if !command.data().is_empty() {
            return Err(Status::WRONG_LENGTH);
        }
        let wanted = command.parameters();
        if wanted == parameter::STATE {
            return Ok([self.state.phase().code()].into());
        }
        if !matches!(wanted, object::SERIAL | object::INFO | object::TRIES | object::CERTIFICATE) {
            return Err(Status::NO_DATA_OBJECT);
        }
        self.check_contact()?;
        match wanted {
            object::SERIAL => Ok(self.chip.info().serial.into_bytes()),
            object::INFO => info(&self.chip.info()).map_err(|_| Status::FAILED),
            object::TRIES => {
                let tries = self.chip.tries().map_err(|error| error.status())?;
                Ok([tries.pin, tries.puk].into())
            }
            _ => self.chip.certificate().ok_or(Status::NO_DATA_OBJECT),
        }
    }

    /// PUT TRANSACTION. What the card had before is gone, whatever comes of it.
    fn load(&mut self, transaction: &[u8]) -> Result<Vec<u8>, Status> {
        self.state = State::Idle(None);
        let parsed = ConfirmationRequest::parse(transaction).map_err(|_| Status::WRONG_DATA)?;
        let (transaction, lines) = (transaction.to_vec(), parsed.lines());
        self.state = State::Loaded { transaction, lines, form: None };
        Ok(Vec::new())
    }

    /// MSE SET: the form of the signature.
    fn choose_form(&mut self, data: &[u8]) -> Result<Vec<u8>, Status> {
        let State::Loaded { form, .. } = &mut self.state else { return Err(Status::CONDITIONS) };
        let [code] = *tlv::only(data, tag::ALGORITHM).map_err(|_| Status::WRONG_DATA)? else {
            return Err(Status::WRONG_DATA);
        };
        let wanted = Form::from_code(code).filter(|form| self.chip.info().forms.contains(form));
        *form = Some(wanted.ok_or(Status::WRONG_DATA)?);
        Ok(Vec::new())
    }

    /// SIGN, once: with a joint password that is drawn for this transaction, and does not leave.
    fn sign(&mut self, data: &[u8], rng: &mut dyn CryptoRng) -> Result<Vec<u8>, Status> {
        if !data.is_empty() {
            return Err(Status::WRONG_LENGTH);
        }
        let State::Loaded { form: Some(_), .. } = self.state else {
            return Err(Status::CONDITIONS);
        };
        if self.chip.tries().map_err(|error| error.status())?.pin == 0 {
            return Err(Status::BLOCKED);
        }
        // Gone before it is signed: nothing is signed twice.
        let State::Loaded { transaction, lines, form: Some(form) } =
            core::mem::replace(&mut self.state, State::Idle(None))
        else {
            return Err(Status::CONDITIONS);
        };
        if is_stuck(rng) {
            return Err(Status::FAILED);
        }
        let password = JointPassword::random(rng).map_err(|_| Status::FAILED)?;
        let signed = self.chip.commit_and_sign(rng, form, &transaction, &password);
        let (commitment, signature) = signed.map_err(|error| error.status())?;
        let mut answer = Vec::new();
        tlv::write(&mut answer, tag::COMMITMENT, commitment.as_bytes())
            .and_then(|()| tlv::write(&mut answer, tag::SIGNATURE, &signature))
            .map_err(|_| Status::FAILED)?;
        let release = release_hash(self.chip.hash(), &commitment, &signature);
        let kept = Kept { lines, password, release, since: self.awake };
        self.state = State::Signed { kept, is_delivered: false };
        Ok(answer)
    }

    /// RELEASE: the joint password, once, without contact, after its holder's consent, to whoever
    /// has the signature. Whole or not at all: what waited for GET RESPONSE would be kept outside
    /// of the state, where nothing that ends the state destroys it.
    fn release(&mut self, command: &Command) -> Result<Vec<u8>, Status> {
        if self.place != Some(Interface::Contactless) {
            return Err(Status::CONDITIONS);
        }
        let takes_all = usize::try_from(command.ne()).is_ok_and(|ne| ne >= DIGITS);
        if command.data().len() != HASH_LEN || !takes_all {
            return Err(Status::WRONG_LENGTH);
        }
        // To who has another signing's signature the card says nothing of this one. Not counted:
        // nobody finds such a hash by trying, and whoever's reader is near would destroy a joint
        // password with a few wrong ones.
        let release = self.state.release().ok_or(Status::CONDITIONS)?;
        if !bool::from(release.ct_eq(command.data())) {
            return Err(Status::WRONG_DATA);
        }
        let kept = match &self.state {
            State::Released(kept) => kept,
            State::Idle(Some(Ended { why: Ending::Declined | Ending::TimedOut, .. })) => {
                return Err(Status::NOT_ALLOWED);
            }
            State::Idle(Some(Ended { why: Ending::Blocked, .. })) => return Err(Status::BLOCKED),
            _ => return Err(Status::SECURITY),
        };
        let digits = kept.password.digits().as_bytes().to_vec();
        // Gone before it is given: nobody is given it twice.
        self.state = State::Idle(None);
        Ok(digits)
    }

    /// VERIFY takes no PIN here; without data it says how many tries are left.
    fn tell_tries(&self, data: &[u8]) -> Result<Vec<u8>, Status> {
        if !data.is_empty() {
            return Err(Status::UNSUPPORTED);
        }
        self.check_contact()?;
        match self.chip.tries().map_err(|error| error.status())?.pin {
            0 => Err(Status::BLOCKED),
            left => Err(Status::tries(left)),
        }
    }
}

impl<C: JointChip> Application for JointCard<C> {
    fn aid(&self) -> &[u8] {
        &AID
    }

    fn selected(&mut self) -> Vec<u8> {
        self.forget_conversation();
        control_information(&AID, LABEL).unwrap_or_default()
    }

    fn reset(&mut self) {
        self.forget_conversation();
    }

    fn handle(&mut self, command: &Command, rng: &mut dyn CryptoRng) -> Response {
        // Another command takes the place of what waited for GET RESPONSE.
        self.forget_undelivered();
        match self.run(command, rng) {
            Ok(data) => Response::ok(data),
            Err(status) => status.into(),
        }
    }

    fn delivered(&mut self) {
        if let State::Signed { is_delivered, .. } = &mut self.state {
            *is_delivered = true;
        }
    }
}

/// Whether the generator gives the same block twice: the continuous test of FIPS 140-2, 4.9.2.
/// It finds one that is stuck, also at zero, whose joint passwords and keys anybody would know; it
/// does not find one that can be foretold. A sound one fails it once in 2^128 signatures.
fn is_stuck(rng: &mut dyn CryptoRng) -> bool {
    let mut blocks = Zeroizing::new([[0; STUCK_LEN]; 2]);
    for block in &mut *blocks {
        rng.fill_bytes(block);
    }
    blocks[0].ct_eq(&blocks[1]).into()
}

fn info(info: &JointInfo) -> Result<Vec<u8>, TlvError> {
    let suite = info.suite.name().ok_or(TlvError)?;
    let forms: Vec<u8> = info.forms.iter().map(|form| form.code()).collect();
    let mut out = Vec::new();
    tlv::write(&mut out, tag::VERSION, &[VERSION])?;
    tlv::write(&mut out, tag::FORMS, &forms)?;
    tlv::write(&mut out, tag::SUITE, suite.as_bytes())?;
    tlv::write(&mut out, tag::SERVER, info.server_id.as_bytes())?;
    tlv::write(&mut out, tag::ACCOUNT, info.account.as_bytes())?;
    Ok(out)
}
