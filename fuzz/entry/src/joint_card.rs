//! The signing card, and what happens to it.

use std::time::Duration;

use countersign_crypto::{CryptoRng, Hash, Provider, Secret, UnixTime, rust_crypto};
use countersign_iso7816::{CHAIN_MAX, CardMachine, Command, Response, Status, tlv};
use countersign_payment::ConfirmationRequest;
use countersign_payment::card::{ChipError, Tries};
use countersign_payment::joint::card::{
    AID, Interface, JointCard, JointChip, JointInfo, Phase, View,
};
use countersign_payment::joint::{Commitment, Form, JointPassword, release_hash};
use testkit::pki::NOW;
use testkit::rng::{ChaCha20Rng, seeded};

use crate::payment::request;
use crate::script::Script;

const PIN: &[u8] = b"135790";
const WRONG_PIN: &[u8] = b"246801";
const PIN_TRIES: u8 = 3;
/// Most things that happen to one card.
const STEPS_MAX: usize = 64;

/// What a chip signed, and with which joint password.
struct Signed {
    transaction: Vec<u8>,
    commitment: Commitment,
    password: String,
    is_consented: bool,
    is_given: bool,
}

/// A chip whose signature is the transaction, and which remembers.
struct SayingChip {
    provider: Provider,
    tries: Tries,
    signed: Vec<Signed>,
}

impl JointChip for SayingChip {
    fn info(&self) -> JointInfo {
        JointInfo {
            serial: "SC-1".into(),
            forms: vec![Form::SealedRandom, Form::Digest],
            suite: self.provider.suite,
            server_id: "server-1".into(),
            account: "6222021234567890123".into(),
        }
    }

    fn certificate(&self) -> Option<Vec<u8>> {
        Some(vec![0x30; 700])
    }

    fn tries(&self) -> Result<Tries, ChipError> {
        Ok(self.tries)
    }

    fn hash(&self) -> &dyn Hash {
        &*self.provider.hash
    }

    fn commit_and_sign(
        &mut self,
        rng: &mut dyn CryptoRng,
        form: Form,
        transaction: &[u8],
        password: &JointPassword,
    ) -> Result<(Commitment, Vec<u8>), ChipError> {
        assert!(self.info().forms.contains(&form), "a form that it does not have");
        assert!(self.tries.pin > 0, "nobody could consent");
        assert!(ConfirmationRequest::parse(transaction).is_ok(), "what cannot be shown");
        let len = if form == Form::Digest { 48 } else { 130 };
        let mut bytes = vec![form.code(); len + 1];
        rng.fill_bytes(&mut bytes[1..]);
        let commitment = Commitment::parse(&bytes)?;
        assert!(self.signed.iter().all(|old| old.password != password.digits()), "not fresh");
        self.signed.push(Signed {
            transaction: transaction.to_vec(),
            commitment: commitment.clone(),
            password: password.digits().into(),
            is_consented: false,
            is_given: false,
        });
        Ok((commitment, transaction.to_vec()))
    }

    fn check_pin(&mut self, pin: &Secret) -> Result<(), ChipError> {
        self.tries.pin = self.tries.pin.checked_sub(1).ok_or(ChipError::PinBlocked)?;
        if !pin.ct_eq(PIN) {
            return Err(ChipError::PinWrong { left: self.tries.pin });
        }
        self.tries.pin = PIN_TRIES;
        Ok(())
    }
}

struct Rig {
    machine: CardMachine<JointCard<SayingChip>>,
    rng: ChaCha20Rng,
    now: UnixTime,
    place: Option<Interface>,
    loads: usize,
}

impl Rig {
    fn new() -> Self {
        let tries = Tries { pin: PIN_TRIES, puk: 10 };
        let chip = SayingChip { provider: rust_crypto::provider(), tries, signed: Vec::new() };
        let machine = CardMachine::new(JointCard::new(chip));
        Self { machine, rng: seeded(1), now: NOW, place: None, loads: 0 }
    }

    fn card(&mut self) -> &mut JointCard<SayingChip> {
        let now = self.now;
        let card = self.machine.application_mut();
        card.tick(now);
        card
    }

    fn last(&mut self) -> Option<&mut Signed> {
        self.machine.application_mut().chip_mut().signed.last_mut()
    }

    fn signed(&self) -> usize {
        self.machine.application().chip().signed.len()
    }

    /// Sends an APDU; whatever it is, there is an answer.
    fn send(&mut self, apdu: &[u8]) -> Response {
        let (before, phase) = (self.signed(), self.card().phase());
        let answer = self.machine.handle(&mut self.rng, apdu);
        let response = Response::parse(&answer).expect("a status word");
        assert!(response.data.is_empty() || response.status.is_ok());
        let command = Command::parse(apdu);
        if let Ok(command) = &command {
            assert!(response.data.len() as u64 <= u64::from(command.ne()), "more than asked for");
            // What loads is a whole PUT DATA that succeeds, alone or at the end of a chain.
            let is_load = (command.cla, command.ins, command.parameters()) == (0, 0xda, 0xdf10);
            self.loads += usize::from(is_load && response.status == Status::OK);
        } else {
            assert_eq!(response, Status::WRONG_LENGTH.into());
        }
        assert!(self.signed() - before <= 1 && self.signed() <= self.loads, "signed twice");
        if self.signed() > before {
            assert_eq!(self.place, Some(Interface::Contact), "signed without contact");
        }
        let is_release = command.is_ok_and(|command| (command.cla, command.ins) == (0, 0xcb));
        let consented = phase == Phase::Released && self.place == Some(Interface::Contactless);
        if is_release && response.status.is_ok() {
            assert!(consented, "given without consent");
            let last = self.last().expect("something was signed");
            assert!(last.is_consented && !last.is_given, "given twice");
            last.is_given = true;
            assert_eq!(response.status, Status::OK, "a part of it");
            assert_eq!(last.password.as_bytes(), &response.data[..], "of something else");
            assert_ne!(self.card().phase(), Phase::Released, "and kept");
        } else {
            // Nor in anything else that leaves it.
            for old in &self.machine.application().chip().signed {
                let digits = old.password.as_bytes();
                let holds = response.data.windows(digits.len()).any(|part| part == digits);
                assert!(!holds, "a joint password that leaks");
            }
        }
        self.check();
        response
    }

    /// What is displayed is what was signed last, and the joint password only after consent.
    fn check(&mut self) {
        let mut shown = None;
        match self.card().view() {
            View::Password { lines, password } => {
                shown = Some((lines.to_vec(), Some(password.digits().to_owned())));
            }
            View::TakeOut { lines } | View::Consent { lines, .. } => {
                shown = Some((lines.to_vec(), None));
            }
            View::Idle | View::Loaded | View::Declined | View::TimedOut | View::Blocked => {}
        }
        let Some((lines, password)) = shown else { return };
        let last = self.last().expect("something was signed");
        let wanted = ConfirmationRequest::parse(&last.transaction).expect("it was signed").lines();
        assert_eq!(lines, wanted, "what is shown is what was signed");
        if let Some(password) = password {
            assert!(last.is_consented && !last.is_given, "shown without consent");
            assert_eq!(password, last.password);
        }
    }

    fn confirm(&mut self, pin: &[u8]) -> bool {
        let phase = self.card().phase();
        let confirmed = self.card().confirm(&Secret::copied_from(pin)).is_ok();
        if confirmed {
            assert_eq!(pin, PIN);
            assert_eq!(phase, Phase::Asking);
            assert_ne!(self.place, Some(Interface::Contact), "consent in the terminal");
            self.last().expect("something was signed").is_consented = true;
        }
        confirmed
    }

    fn put_into(&mut self, interface: Interface) {
        if self.place != Some(interface) {
            self.take_out();
        }
        self.card().set_interface(interface);
        self.place = Some(interface);
        self.machine.power();
    }

    /// A contactless reader sees it, wherever it is.
    fn is_near(&mut self) {
        self.card().set_interface(Interface::Contactless);
        self.place = self.place.or(Some(Interface::Contactless));
    }

    fn take_out(&mut self) {
        self.machine.reset();
        self.card().removed();
        self.place = None;
    }

    fn select(&mut self) -> Response {
        self.send(&[&[0, 0xa4, 4, 0x0c, 16][..], &AID].concat())
    }

    fn load(&mut self, transaction: &[u8]) -> Response {
        let command = Command::new(0, 0xda, 0xdf, 0x10).with_data(transaction).expect("short");
        self.send(&command.encode())
    }

    fn choose(&mut self, code: u8) -> Response {
        self.send(&[0, 0x22, 0x41, 0xb6, 3, 0x80, 1, code])
    }

    /// Le of 64 KiB, so that a signature comes whole.
    fn sign(&mut self) -> Response {
        self.send(&[0, 0x2a, 0x9e, 0x9a, 0, 0, 0])
    }

    /// RELEASE, with the hash of what was signed last, or another one, for so many bytes.
    fn release(&mut self, is_right: bool, le: u8) -> Response {
        let hash = self.machine.application().chip().provider.hash.clone();
        let right = self
            .last()
            .map_or([0; 32], |last| release_hash(&*hash, &last.commitment, &last.transaction));
        let sent = if is_right { right } else { right.map(|byte| byte ^ 1) };
        self.send(&[&[0, 0xcb, 0xdf, 0x20, 32][..], &sent, &[le]].concat())
    }
}

/// The bytes say what happens to a signing card: APDUs as they are, transactions (edited ones too),
/// what its holder does, readers, power and time. Whatever it was, the joint password leaves it for
/// its PIN, without contact or on its display, for what was signed last, once; and when it is over,
/// the card works.
pub fn joint_card(data: &[u8]) {
    let mut script = Script::new(data);
    let mut rig = Rig::new();
    let genuine = request().to_bytes().expect("good texts");
    for _ in 0..STEPS_MAX {
        if script.is_empty() {
            break;
        }
        step(&mut script, &mut rig, &genuine);
        rig.check();
    }
    works(&mut rig, &genuine);
}

fn step(script: &mut Script<'_>, rig: &mut Rig, genuine: &[u8]) {
    match script.byte() % 18 {
        0 => drop(rig.select()),
        1 => drop(rig.load(genuine)),
        2 => {
            let mut altered = genuine.to_vec();
            Script::new(script.short()).edit(&mut altered);
            altered.truncate(CHAIN_MAX);
            rig.load(&altered);
        }
        3 => drop(rig.choose(script.byte())),
        4 => drop(rig.sign()),
        5 => rig.put_into(Interface::Contact),
        6 => rig.put_into(Interface::Contactless),
        7 => rig.take_out(),
        8 => drop(rig.confirm(PIN)),
        9 => drop(rig.confirm(WRONG_PIN)),
        10 => rig.card().decline(),
        11 => rig.machine.reset(),
        12 => {
            rig.machine.reset();
            rig.card().power_lost();
        }
        13 => {
            let seconds = Duration::from_secs(u64::from(script.byte()));
            rig.now =
                if script.byte() & 1 == 1 { rig.now.minus(seconds) } else { rig.now.plus(seconds) };
        }
        14 => {
            let how = script.byte();
            rig.release(how & 1 == 0, how >> 1);
        }
        15 => {
            // A part of a chain.
            let part = script.short();
            let len = u8::try_from(part.len()).expect("a short part");
            rig.send(&[&[0x10, 0xda, 0xdf, 0x10, len][..], part].concat());
        }
        16 => drop(rig.send(script.short())),
        _ => rig.is_near(),
    }
}

fn works(rig: &mut Rig, genuine: &[u8]) {
    rig.take_out();
    rig.machine.application_mut().chip_mut().tries.pin = PIN_TRIES;
    rig.put_into(Interface::Contact);
    assert_eq!(rig.select(), Status::OK.into());
    assert_eq!(rig.load(genuine), Status::OK.into());
    assert_eq!(rig.sign(), Status::CONDITIONS.into(), "no form yet");
    assert_eq!(rig.choose(Form::Sealed.code()), Status::WRONG_DATA.into());
    assert_eq!(rig.choose(Form::Digest.code()), Status::OK.into());
    let answer = rig.sign();
    let [_, signature] = tlv::exactly(&answer.data, [0x80, 0x81]).expect("two objects");
    assert_eq!(signature, genuine);
    assert_eq!(rig.sign(), Status::CONDITIONS.into(), "once");
    assert!(!rig.confirm(PIN), "it is still in the terminal");
    rig.is_near();
    assert!(!rig.confirm(PIN), "it is there until it is taken out");
    rig.put_into(Interface::Contactless);
    assert_eq!(rig.select(), Status::OK.into());
    assert_eq!(rig.release(true, 0), Status::SECURITY.into(), "no consent yet");
    assert!(rig.confirm(PIN));
    assert_eq!(rig.release(false, 0), Status::WRONG_DATA.into());
    assert_eq!(rig.release(true, 8), Status::WRONG_LENGTH.into());
    assert_eq!(rig.release(true, 9).data.len(), 9);
    assert_eq!(rig.release(true, 0), Status::CONDITIONS.into(), "once");
}
