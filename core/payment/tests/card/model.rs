//! Commands in any order, against a model of a few lines.

use countersign_iso7816::Status;
use countersign_payment::card::AID;
use proptest::prelude::*;

use crate::chip::{PIN, PIN_TRIES, PUK, Rig, SIGN, request, with_blocks};

#[derive(Debug, Clone)]
enum Step {
    Select,
    SelectOther,
    Reset,
    Load(u32),
    LoadBad,
    HalfALoad,
    Verify(bool),
    VerifyBadBlock,
    Ask,
    Sign,
    SignOtherMethod,
    Change,
    Unblock(bool),
    Garbage(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Select),
        1 => Just(Step::SelectOther),
        1 => Just(Step::Reset),
        4 => (1..4_u32).prop_map(Step::Load),
        1 => Just(Step::LoadBad),
        1 => Just(Step::HalfALoad),
        5 => any::<bool>().prop_map(Step::Verify),
        1 => Just(Step::VerifyBadBlock),
        1 => Just(Step::Ask),
        5 => Just(Step::Sign),
        1 => Just(Step::SignOtherMethod),
        1 => Just(Step::Change),
        2 => any::<bool>().prop_map(Step::Unblock),
        1 => prop::collection::vec(any::<u8>(), 0..4).prop_map(Step::Garbage),
    ]
}

/// What a card knows.
#[derive(Debug)]
struct Model {
    is_selected: bool,
    loaded: Option<u32>,
    is_verified: bool,
    tries: u8,
    puk_tries: u8,
    in_chain: bool,
    signed: u32,
}

impl Model {
    const fn fresh() -> Self {
        let (tries, puk_tries) = (PIN_TRIES, 10);
        Self {
            is_selected: false,
            loaded: None,
            is_verified: false,
            tries,
            puk_tries,
            in_chain: false,
            signed: 0,
        }
    }

    fn forget(&mut self) {
        (self.loaded, self.is_verified) = (None, false);
    }

    fn pin(&mut self, is_right: bool) -> Status {
        self.is_verified = false;
        match (self.tries, is_right) {
            (0, _) => Status::BLOCKED,
            (_, true) => {
                self.tries = PIN_TRIES;
                Status::OK
            }
            (_, false) => {
                self.tries -= 1;
                Status::tries(self.tries)
            }
        }
    }

    fn puk(&mut self, is_right: bool) -> Status {
        if self.tries > 0 {
            return Status::CONDITIONS;
        }
        self.is_verified = false;
        match (self.puk_tries, is_right) {
            (0, _) => Status::BLOCKED,
            (_, true) => {
                (self.tries, self.puk_tries) = (PIN_TRIES, 10);
                Status::OK
            }
            (_, false) => {
                self.puk_tries -= 1;
                Status::tries(self.puk_tries)
            }
        }
    }

    /// The status word that a step has, of a whole command.
    fn expect(&mut self, step: &Step) -> Status {
        if matches!(step, Step::Garbage(_)) {
            return Status::WRONG_LENGTH;
        }
        // A chain is gone with whatever follows it but its own end.
        if std::mem::take(&mut self.in_chain) && !matches!(step, Step::HalfALoad) {
            return Status::CHAIN_BROKEN;
        }
        match step {
            Step::Select => {
                self.is_selected = true;
                self.forget();
                return Status::OK;
            }
            Step::SelectOther => {
                self.forget();
                return Status::NOT_FOUND;
            }
            Step::HalfALoad => {
                self.in_chain = true;
                return Status::OK;
            }
            _ if !self.is_selected => return Status::CONDITIONS,
            _ => {}
        }
        match step {
            Step::Load(yuan) => {
                self.forget();
                self.loaded = Some(*yuan);
                Status::OK
            }
            Step::LoadBad => {
                self.forget();
                Status::WRONG_DATA
            }
            Step::Verify(_) | Step::VerifyBadBlock if self.loaded.is_none() => Status::CONDITIONS,
            Step::Verify(is_right) => {
                let status = self.pin(*is_right);
                self.is_verified = status == Status::OK;
                status
            }
            Step::VerifyBadBlock => Status::WRONG_DATA,
            Step::Ask if self.is_verified => Status::OK,
            Step::Ask if self.tries == 0 => Status::BLOCKED,
            Step::Ask => Status::tries(self.tries),
            Step::Change => self.pin(true),
            Step::Unblock(is_right) => self.puk(*is_right),
            Step::SignOtherMethod => Status::UNSUPPORTED,
            Step::Sign if self.loaded.is_none() => Status::CONDITIONS,
            Step::Sign if !self.is_verified => Status::SECURITY,
            Step::Sign => {
                self.forget();
                self.signed += 1;
                Status::OK
            }
            other => unreachable!("{other:?}"),
        }
    }
}

/// One APDU of a chained load, of an own P1-P2, so that every other command breaks it.
const HALF: &[u8] = &[0x10, 0xda, 0xdf, 0x11, 1, b'{'];

fn apdu(step: &Step) -> Vec<u8> {
    let extended = |data: &[u8]| {
        let len = u16::try_from(data.len()).unwrap().to_be_bytes();
        [&[0, 0xda, 0xdf, 0x10, 0][..], &len, data].concat()
    };
    match step {
        Step::Select => [&[0, 0xa4, 4, 0x0c, 12][..], &AID].concat(),
        Step::SelectOther => vec![0, 0xa4, 4, 0, 5, 0xa0, 0, 0, 0, 3],
        Step::Load(yuan) => extended(&request(*yuan)),
        Step::LoadBad => extended(b"{}"),
        Step::HalfALoad => HALF.to_vec(),
        Step::Verify(is_right) => with_blocks(0x20, &[if *is_right { PIN } else { "0000" }]),
        Step::VerifyBadBlock => vec![0, 0x20, 0, 0x81, 8, 0, 0, 0, 0, 0, 0, 0, 0],
        Step::Ask => vec![0, 0x20, 0, 0x81],
        Step::Sign => SIGN.to_vec(),
        Step::SignOtherMethod => vec![0, 0x88, 0, 0, 0],
        Step::Change => with_blocks(0x24, &[PIN, PIN]),
        Step::Unblock(is_right) => {
            with_blocks(0x2c, &[if *is_right { PUK } else { "00000000" }, PIN])
        }
        Step::Garbage(bytes) => bytes[..bytes.len().min(3)].to_vec(),
        Step::Reset => unreachable!("no command"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Each status word is the model's, and each signature is of what was loaded last, for a PIN
    /// that came after it.
    #[test]
    fn commands_in_any_order_do_what_the_model_says(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut rig = Rig::host();
        let mut model = Model::fresh();
        for step in steps {
            if matches!(step, Step::Reset) {
                rig.machine.reset();
                model.forget();
                (model.is_selected, model.in_chain) = (false, false);
                continue;
            }
            let loaded = model.loaded;
            let expected = model.expect(&step);
            let response = rig.raw(&apdu(&step));
            prop_assert_eq!(response.status, expected, "{:?} {:?}", step, model);
            match (step, loaded) {
                (Step::Sign, Some(yuan)) if expected == Status::OK => {
                    prop_assert!(rig.is_answer(&request(yuan), &response.data));
                }
                _ => prop_assert!(response.data.is_empty()),
            }
            prop_assert_eq!(rig.chip().signed, model.signed);
        }
    }
}
