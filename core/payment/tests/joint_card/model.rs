//! Commands, and what its holder does, in any order, against a model of the card.

use std::collections::BTreeSet;

use countersign_iso7816::{Status, tlv};
use countersign_payment::joint::Commitment;
use countersign_payment::joint::card::{Interface, Phase, Signed};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{TestCaseError, TestRunner};

use crate::rig::{
    PIN, PIN_TRIES, Rig, SIGN, STATE, WRONG_PIN, choose, put, release_expecting, select,
    transaction,
};

#[derive(Debug, Clone)]
enum Step {
    // Commands.
    Select,
    SelectOther,
    Put(u32),
    PutBad,
    HalfAPut,
    Choose(u8),
    Sign,
    /// Ten bytes of the answer only.
    SignShort,
    Rest,
    Release(bool),
    /// So many bytes of the answer only; none at all without Le.
    ReleaseShort(u8),
    State,
    Tries,
    Verify,
    Garbage(Vec<u8>),
    // What happens to the card.
    Insert,
    TakeOut,
    Tap,
    /// A contactless reader sees it, wherever it is.
    Near,
    Reset,
    PowerLost,
    Confirm(bool),
    Decline,
    Wait(u64),
    /// The PUK, at the keypad.
    Unblock,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let command = prop_oneof![
        4 => Just(Step::Select),
        1 => Just(Step::SelectOther),
        4 => (1..4_u32).prop_map(Step::Put),
        1 => Just(Step::PutBad),
        1 => Just(Step::HalfAPut),
        6 => (0..5_u8).prop_map(Step::Choose),
        5 => Just(Step::Sign),
        2 => Just(Step::SignShort),
        2 => Just(Step::Rest),
        6 => any::<bool>().prop_map(Step::Release),
        2 => (0..9_u8).prop_map(Step::ReleaseShort),
        2 => Just(Step::State),
        3 => Just(Step::Tries),
        1 => Just(Step::Verify),
        1 => prop::collection::vec(any::<u8>(), 0..4).prop_map(Step::Garbage),
    ];
    let event = prop_oneof![
        3 => Just(Step::Insert),
        5 => Just(Step::TakeOut),
        4 => Just(Step::Tap),
        2 => Just(Step::Near),
        1 => Just(Step::Reset),
        1 => Just(Step::PowerLost),
        6 => any::<bool>().prop_map(Step::Confirm),
        1 => Just(Step::Decline),
        2 => (0..70_u64).prop_map(Step::Wait),
        1 => Just(Step::Unblock),
    ];
    // A few whole beginnings, so that what comes late is reached often.
    let sign = prop_oneof![
        6 => Just(vec![Step::Sign]),
        2 => Just(vec![Step::SignShort]),
        1 => Just(vec![Step::SignShort, Step::Rest]),
    ];
    let signing = (1..4_u32, 1..4_u8, sign).prop_map(|(yuan, form, sign)| {
        let load = vec![Step::Insert, Step::Select, Step::Put(yuan), Step::Choose(form)];
        [load, sign].concat()
    });
    let releasing = (0..4_usize).prop_map(|wrong| {
        let consent = vec![Step::TakeOut, Step::Confirm(true), Step::Tap, Step::Select];
        let short = vec![Step::ReleaseShort(1), Step::Rest];
        [consent, vec![Step::Release(false); wrong], short].concat()
    });
    let after = |what: Vec<Step>| {
        let [tap, ask] = [Step::Tap, Step::Release(true)];
        [vec![Step::TakeOut], what, vec![tap, Step::Select, ask]].concat()
    };
    let blocking = Just(after(vec![Step::Confirm(false); 3]));
    let late = (55..65_u64).prop_map(move |wait| after(vec![Step::Wait(wait); 2]));
    let wrong = Just(vec![Step::TakeOut, Step::Confirm(false), Step::Insert, Step::Select]);
    let counted = wrong.prop_map(|steps| [steps, vec![Step::Tries]].concat());
    let some = prop_oneof![
        12 => command.prop_map(|step| vec![step]),
        8 => event.prop_map(|step| vec![step]),
        3 => signing,
        2 => releasing,
        1 => blocking,
        1 => late,
        1 => counted,
    ];
    prop::collection::vec(some, 1..40).prop_map(|steps| steps.concat())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Hand,
    Contact,
    Contactless,
}

/// What a card knows.
#[derive(Debug)]
struct Model {
    place: Place,
    is_selected: bool,
    in_chain: bool,
    /// Part of an answer waits for GET RESPONSE.
    waits: bool,
    phase: Phase,
    form: Option<u8>,
    /// What is there, or how it ended, is of a signing whose whole answer was fetched.
    has_signed: bool,
    is_delivered: bool,
    /// Seconds since the phase began.
    age: u64,
    tries: u8,
    signed: usize,
}

impl Model {
    const fn fresh() -> Self {
        Self {
            place: Place::Contact,
            is_selected: false,
            in_chain: false,
            waits: false,
            phase: Phase::Idle,
            form: None,
            has_signed: false,
            is_delivered: false,
            age: 0,
            tries: PIN_TRIES,
            signed: 0,
        }
    }

    fn turn(&mut self, phase: Phase) {
        (self.phase, self.age) = (phase, 0);
    }

    fn forget_undelivered(&mut self) {
        if self.phase == Phase::Signed && !self.is_delivered {
            self.turn(Phase::Idle);
        }
    }

    fn forget_conversation(&mut self) {
        self.forget_undelivered();
        if self.phase == Phase::Loaded {
            self.turn(Phase::Idle);
        }
    }

    fn reset(&mut self) {
        (self.is_selected, self.in_chain, self.waits) = (false, false, false);
        self.forget_conversation();
    }

    fn leave(&mut self) {
        self.reset();
        if self.place == Place::Contact && self.phase == Phase::Signed {
            self.turn(Phase::Asking);
        }
        self.place = Place::Hand;
    }

    /// What is no command; whether the holder was right where it says so.
    fn happen(&mut self, step: &Step) -> Option<bool> {
        match step {
            Step::Insert | Step::Tap => {
                let place =
                    if matches!(step, Step::Tap) { Place::Contactless } else { Place::Contact };
                if self.place != place {
                    self.leave();
                }
                self.place = place;
                self.reset();
            }
            Step::TakeOut => self.leave(),
            Step::Near if self.place == Place::Contact => {}
            Step::Near => self.place = Place::Contactless,
            Step::Reset => self.reset(),
            Step::PowerLost => {
                self.reset();
                self.turn(Phase::Idle);
            }
            Step::Unblock => self.tries = PIN_TRIES,
            Step::Decline => {
                let has = [Phase::Loaded, Phase::Signed, Phase::Asking, Phase::Released];
                if has.contains(&self.phase) {
                    self.turn(Phase::Declined);
                }
            }
            Step::Wait(seconds) => {
                self.age += seconds;
                let allowed = match self.phase {
                    Phase::Signed | Phase::Asking => 120,
                    Phase::Released => 60,
                    _ => u64::MAX,
                };
                if self.age >= allowed {
                    self.turn(Phase::TimedOut);
                }
            }
            Step::Confirm(is_right) => return Some(self.confirm(*is_right)),
            _ => unreachable!("{step:?} is a command"),
        }
        None
    }

    fn confirm(&mut self, is_right: bool) -> bool {
        if self.phase != Phase::Asking || self.place == Place::Contact {
            return false;
        }
        if is_right {
            self.tries = PIN_TRIES;
            self.turn(Phase::Released);
            return true;
        }
        self.tries -= 1;
        if self.tries == 0 {
            self.turn(Phase::Blocked);
        }
        false
    }

    /// The status word of a command.
    fn expect(&mut self, step: &Step) -> Status {
        if matches!(step, Step::Garbage(_)) {
            return Status::WRONG_LENGTH;
        }
        // A chain is gone with whatever follows it but its own end.
        if std::mem::take(&mut self.in_chain) && !matches!(step, Step::HalfAPut) {
            return Status::CHAIN_BROKEN;
        }
        if matches!(step, Step::Rest) {
            if !std::mem::take(&mut self.waits) {
                return Status::CONDITIONS;
            }
            self.is_delivered = true;
            self.has_signed |= self.phase == Phase::Signed;
            return Status::OK;
        }
        self.waits = false;
        match step {
            Step::Select => {
                self.is_selected = true;
                self.forget_conversation();
                return Status::OK;
            }
            Step::SelectOther => {
                self.forget_conversation();
                return Status::NOT_FOUND;
            }
            Step::HalfAPut => {
                self.in_chain = true;
                return Status::OK;
            }
            _ if !self.is_selected => return Status::CONDITIONS,
            _ => self.forget_undelivered(),
        }
        let in_terminal = self.place == Place::Contact;
        match step {
            Step::State => Status::OK,
            Step::Verify => Status::UNSUPPORTED,
            Step::Release(is_right) => self.release(*is_right),
            Step::ReleaseShort(_) if self.place != Place::Contactless => Status::CONDITIONS,
            Step::ReleaseShort(_) => Status::WRONG_LENGTH,
            _ if !in_terminal => Status::CONDITIONS,
            Step::Tries if self.tries == 0 => Status::BLOCKED,
            Step::Tries => Status::tries(self.tries),
            Step::Put(_) => {
                self.turn(Phase::Loaded);
                self.form = None;
                self.has_signed = false;
                Status::OK
            }
            Step::PutBad => {
                self.turn(Phase::Idle);
                Status::WRONG_DATA
            }
            Step::Choose(_) if self.phase != Phase::Loaded => Status::CONDITIONS,
            Step::Choose(code @ 1..=3) => {
                self.form = Some(*code);
                Status::OK
            }
            Step::Choose(_) => Status::WRONG_DATA,
            Step::Sign | Step::SignShort => self.sign(matches!(step, Step::Sign)),
            other => unreachable!("{other:?}"),
        }
    }

    fn release(&mut self, is_right: bool) -> Status {
        if self.place != Place::Contactless {
            return Status::CONDITIONS;
        }
        match self.phase {
            Phase::Idle | Phase::Loaded => Status::CONDITIONS,
            _ if !self.has_signed => Status::CONDITIONS,
            _ if !is_right => Status::WRONG_DATA,
            Phase::Declined | Phase::TimedOut => Status::NOT_ALLOWED,
            Phase::Blocked => Status::BLOCKED,
            Phase::Signed | Phase::Asking => Status::SECURITY,
            Phase::Released => {
                self.turn(Phase::Idle);
                Status::OK
            }
        }
    }

    fn sign(&mut self, is_whole: bool) -> Status {
        if self.phase != Phase::Loaded || self.form.is_none() {
            return Status::CONDITIONS;
        }
        if self.tries == 0 {
            return Status::BLOCKED;
        }
        self.turn(Phase::Signed);
        (self.is_delivered, self.waits) = (is_whole, !is_whole);
        self.has_signed = is_whole;
        self.signed += 1;
        Status::OK
    }
}

/// One APDU of a chained load, of an own P1-P2, so that every other command breaks it.
const HALF: &[u8] = &[0x10, 0xda, 0xdf, 0x11, 1, b'{'];
const SIGN_SHORT: &[u8] = &[0, 0x2a, 0x9e, 0x9a, 10];

/// What the last signature was of.
struct Last {
    yuan: u32,
    answer: Vec<u8>,
}

struct Driver {
    rig: Rig,
    model: Model,
    loaded: u32,
    last: Option<Last>,
}

impl Driver {
    fn apdu(&self, step: &Step) -> Vec<u8> {
        match step {
            Step::Select => select(),
            Step::SelectOther => vec![0, 0xa4, 4, 0, 5, 0xa0, 0, 0, 0, 3],
            Step::Put(yuan) => put(&transaction(*yuan)),
            Step::PutBad => put(b"{}"),
            Step::HalfAPut => HALF.to_vec(),
            Step::Choose(code) => choose(*code),
            Step::Sign => SIGN.to_vec(),
            Step::SignShort => SIGN_SHORT.to_vec(),
            Step::Rest => vec![0, 0xc0, 0, 0, 0, 0, 0],
            Step::Release(is_right) => self.release(*is_right, &[0]),
            Step::ReleaseShort(0) => self.release(true, &[]),
            Step::ReleaseShort(le) => self.release(true, &[*le]),
            Step::State => STATE.to_vec(),
            Step::Tries => vec![0, 0x20, 0, 0x81],
            Step::Verify => vec![0, 0x20, 0, 0x81, 1, 1],
            Step::Garbage(bytes) => bytes[..bytes.len().min(3)].to_vec(),
            other => unreachable!("{other:?} is no command"),
        }
    }

    fn release(&self, is_right: bool, le: &[u8]) -> Vec<u8> {
        let known = self.last.as_ref().and_then(|last| signed(&last.answer));
        let mut hash = known.map_or([9; 32], |signed| self.rig.hash_of(&signed));
        if !is_right {
            hash[0] ^= 1;
        }
        release_expecting(&hash, le)
    }

    fn command(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let apdu = self.apdu(step);
        let password = self.rig.shown();
        let before = format!("{:?}", self.model);
        let expected = self.model.expect(step);
        let response = self.rig.raw(&apdu);
        let status = match response.status.more_available() {
            Some(_) => Status::OK,
            None => response.status,
        };
        prop_assert_eq!(status, expected, "{:?} {}", step, before);
        match step {
            _ if expected != Status::OK => prop_assert!(response.data.is_empty()),
            Step::Put(yuan) => self.loaded = *yuan,
            Step::Sign | Step::SignShort => {
                let answer = response.data.to_vec();
                self.last = Some(Last { yuan: self.loaded, answer });
            }
            Step::Rest => {
                if let Some(last) = &mut self.last {
                    last.answer.extend_from_slice(&response.data);
                }
            }
            Step::Release(_) => {
                let digits = String::from_utf8(response.data.to_vec()).unwrap();
                prop_assert_eq!(Some(&digits), password.as_ref(), "what was shown");
            }
            Step::State => prop_assert_eq!(&*response.data, &[self.model.phase.code()]),
            _ => prop_assert!(response.data.is_empty()),
        }
        Ok(())
    }

    fn event(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let expected = self.model.happen(step);
        let rig = &mut self.rig;
        match step {
            Step::Insert => rig.insert(),
            Step::TakeOut => rig.take_out(),
            Step::Tap => rig.tap(),
            Step::Near => rig.card().set_interface(Interface::Contactless),
            Step::Reset => rig.machine.reset(),
            Step::PowerLost => {
                rig.machine.reset();
                rig.card().power_lost();
            }
            Step::Decline => rig.card().decline(),
            Step::Unblock => rig.chip().tries.pin = PIN_TRIES,
            Step::Wait(seconds) => rig.wait(*seconds),
            Step::Confirm(is_right) => {
                let confirmed = rig.confirm(if *is_right { PIN } else { WRONG_PIN });
                prop_assert_eq!(Some(confirmed.is_ok()), expected);
            }
            _ => unreachable!("{step:?} is a command"),
        }
        Ok(())
    }

    /// What holds after every step.
    fn check(&mut self) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.rig.phase(), self.model.phase, "{:?}", self.model);
        prop_assert_eq!(self.rig.chip().tries.pin, self.model.tries);
        prop_assert_eq!(self.rig.chip().passwords.len(), self.model.signed);
        let shown = self.rig.shown();
        prop_assert_eq!(shown.is_some(), self.model.phase == Phase::Released);
        if let (Some(shown), Some(last)) = (shown, &self.last) {
            let signed = signed(&last.answer).unwrap();
            prop_assert!(self.rig.is_taken(last.yuan, &signed, &shown));
        }
        Ok(())
    }
}

/// Reads an answer to SIGN, if it is whole.
fn signed(answer: &[u8]) -> Option<Signed> {
    let [commitment, signature] = tlv::exactly(answer, [0x80, 0x81]).ok()?;
    let commitment = Commitment::parse(commitment).ok()?;
    Some(Signed { commitment, signature: signature.to_vec() })
}

const fn is_event(step: &Step) -> bool {
    matches!(
        step,
        Step::Insert
            | Step::TakeOut
            | Step::Tap
            | Step::Near
            | Step::Reset
            | Step::PowerLost
            | Step::Confirm(_)
            | Step::Decline
            | Step::Wait(_)
            | Step::Unblock
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]

    /// Each status word, each phase and each display are the model's, and each joint password that
    /// is shown or given is the one that fits the last signature.
    #[test]
    fn commands_and_people_in_any_order_do_what_the_model_says(steps in steps()) {
        let model = Model::fresh();
        let mut driver = Driver { rig: Rig::p256(), model, loaded: 0, last: None };
        for step in steps {
            if is_event(&step) {
                driver.event(&step)?;
            } else {
                driver.command(&step)?;
            }
            driver.check()?;
        }
    }
}

/// The steps are such that they come everywhere.
#[test]
fn steps_at_random_reach_every_phase_and_every_answer() {
    let mut runner = TestRunner::deterministic();
    let (mut phases, mut words) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..160 {
        let mut model = Model::fresh();
        for step in steps().new_tree(&mut runner).unwrap().current() {
            let before = model.phase.name();
            if is_event(&step) {
                model.happen(&step);
            } else {
                let word = model.expect(&step).word();
                words.insert(word);
                if matches!(step, Step::Release(_) | Step::ReleaseShort(_)) {
                    phases.insert((before, word));
                }
            }
            phases.insert((model.phase.name(), 0));
        }
    }
    let reached = phases.iter().filter(|(_, word)| *word == 0).count();
    assert_eq!(reached, 8, "{phases:?}");
    for answer in [
        ("asking", 0x6982),
        ("released", 0x9000),
        ("released", 0x6a80),
        ("released", 0x6700),
        ("declined", 0x6986),
        ("timed-out", 0x6986),
        ("blocked", 0x6983),
        ("idle", 0x6985),
    ] {
        assert!(phases.contains(&answer), "{answer:?}: {phases:x?}");
    }
    for word in [0x9000, 0x6985, 0x6a80, 0x6a81, 0x6a82, 0x6700, 0x6883, 0x6983, 0x63c3, 0x63c2] {
        assert!(words.contains(&word), "{word:x}: {words:x?}");
    }
}
