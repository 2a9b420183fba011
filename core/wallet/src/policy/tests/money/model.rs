//! A card with a mind of its own, a terminal that says anything, and the policy between them: what
//! the terminal gets to see keeps within the limits, by the card's own reading.

use countersign_iso7816::Command;

use super::*;

/// Amount, currency, other amount; the second time the other way round.
const FIRST: [u8; 9] = [0x9f, 2, 6, 0x5f, 0x2a, 2, 0x9f, 3, 6];
const SECOND: [u8; 9] = [0x9f, 3, 6, 0x5f, 0x2a, 2, 0x9f, 2, 6];
const MOST: u64 = 50;
const TOTAL: u64 = 200;
const USES: u32 = 6;

/// A cryptogram that the card made.
struct Made {
    bytes: [u8; 8],
    transaction: u32,
    amount: u64,
}

/// Where the card's transaction is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Nothing,
    Selected,
    First,
    Second,
    Done,
}

struct ModelCard {
    /// It gives its data to GET RESPONSE only (T=0).
    in_parts: bool,
    /// It pays with the processing options, without contact.
    taps: bool,
    stage: Stage,
    transaction: u32,
    rest: Vec<u8>,
    made: Vec<Made>,
}

impl ModelCard {
    fn transmit(&mut self, command: &[u8]) -> Vec<u8> {
        let Ok(command) = Command::parse(command) else { return vec![0x67, 0] };
        if command.ins == 0xc0 {
            return self.rest(command.ne() as usize);
        }
        self.rest.clear();
        match self.run(&command) {
            Ok(data) if self.in_parts && !data.is_empty() => {
                self.rest = data;
                vec![0x61, self.rest.len() as u8]
            }
            Ok(data) => [&data[..], &[0x90, 0]].concat(),
            Err(status) => status.to_be_bytes().to_vec(),
        }
    }

    fn rest(&mut self, ne: usize) -> Vec<u8> {
        let len = self.rest.len();
        if len == 0 {
            return vec![0x69, 0x85];
        }
        if ne != 256 && ne > len {
            return vec![0x6c, len as u8];
        }
        let mut out: Vec<u8> = self.rest.drain(..ne.min(len)).collect();
        let left = self.rest.len() as u8;
        out.extend(if left == 0 { [0x90, 0] } else { [0x61, left] });
        out
    }

    fn run(&mut self, command: &Command) -> Result<Vec<u8>, u16> {
        match command.ins {
            0xa4 if command.data() == hex(UNIONPAY) => {
                self.stage = Stage::Selected;
                let mut proprietary = Vec::new();
                if self.taps {
                    tlv(&mut proprietary, 0x9f38, &PDOL);
                }
                let fci = fci(&hex(UNIONPAY), &proprietary);
                // Without data, if the terminal wants none.
                Ok(if command.p2 == 0x0c { Vec::new() } else { fci[..fci.len() - 2].to_vec() })
            }
            0xa4 => Err(0x6a82),
            0xa8 => self.options(command.data()),
            0xb2 => {
                let lists = match (command.p2 >> 3, command.p1) {
                    (1, 1) => record(&[(0x8c, &FIRST), (0x8d, &SECOND)]),
                    // Of no transaction, and wrong.
                    (2, 1) => record(&[(0x8c, &SECOND), (0x8d, &FIRST)]),
                    _ => return Err(0x6a83),
                };
                Ok(lists[..lists.len() - 2].to_vec())
            }
            0xae => self.generate(command),
            _ => Err(0x6d00),
        }
    }

    fn options(&mut self, data: &[u8]) -> Result<Vec<u8>, u16> {
        if self.stage != Stage::Selected {
            return Err(0x6985);
        }
        if data.len() != if self.taps { 10 } else { 2 } {
            return Err(0x6700);
        }
        self.transaction += 1;
        if !self.taps {
            self.stage = Stage::First;
            return Ok(OPTIONS_ANSWER[..8].to_vec());
        }
        self.stage = Stage::Done;
        let cryptogram = self.cryptogram(&data[2..8]);
        let mut out = Vec::new();
        tlv(&mut out, 0x77, &[&[0x82, 2, 0, 0, 0x9f, 0x26, 8][..], &cryptogram].concat());
        Ok(out)
    }

    fn generate(&mut self, command: &Command) -> Result<Vec<u8>, u16> {
        let (amount, next) = match self.stage {
            Stage::First => (0..6, Stage::Second),
            Stage::Second => (8..14, Stage::Done),
            _ => return Err(0x6985),
        };
        if command.data().len() != 14 {
            return Err(0x6700);
        }
        let amount = &command.data()[amount];
        // It declines what ends in 7.
        let kind = if amount[5] & 0xf == 7 { AAC } else { command.p1 & 0xc0 };
        self.stage = if kind == AAC { Stage::Done } else { next };
        let bytes = if kind == AAC { [0; 8] } else { self.cryptogram(amount) };
        let mut out = Vec::new();
        tlv(&mut out, 0x80, &[&[kind, 0, 7][..], &bytes].concat());
        Ok(out)
    }

    fn cryptogram(&mut self, amount: &[u8]) -> [u8; 8] {
        let digits = data_encoding::HEXLOWER.encode(amount);
        let mut bytes = [0xee; 8];
        bytes[4..].copy_from_slice(&(self.made.len() as u32).to_be_bytes());
        let (amount, transaction) = (digits.parse().unwrap(), self.transaction);
        self.made.push(Made { bytes, transaction, amount });
        bytes
    }
}

/// What the terminal says.
#[derive(Debug, Clone)]
enum Say {
    Select(bool),
    SelectMissing,
    SelectForbidden,
    Options(u64),
    Read(u8),
    Generate(u8, u64, u64),
    Rest(u8),
    Forbidden,
    Reset,
    /// A whole payment, as it should be.
    Pay(u64),
}

fn said() -> impl Strategy<Value = Vec<Say>> {
    let amount = prop_oneof![0..80_u64, Just(999_999_u64)];
    let say = prop_oneof![
        1 => any::<bool>().prop_map(Say::Select),
        1 => Just(Say::SelectMissing),
        1 => Just(Say::SelectForbidden),
        2 => amount.clone().prop_map(Say::Options),
        2 => (1..4_u8).prop_map(Say::Read),
        5 => (0..3_u8, amount.clone(), amount).prop_map(|(kind, one, two)| {
            Say::Generate([AAC, TC, ARQC][usize::from(kind)], one, two)
        }),
        3 => prop_oneof![Just(0_u8), 1..40_u8].prop_map(Say::Rest),
        1 => Just(Say::Forbidden),
        1 => Just(Say::Reset),
        4 => (0..60_u64).prop_map(Say::Pay),
    ];
    prop::collection::vec(say, 1..50)
}

/// The policy between terminal and card, and what the terminal has seen.
struct Between {
    policy: Policy,
    card: ModelCard,
    seen: Vec<u8>,
}

impl Between {
    /// The status, if the terminal got one.
    fn send(&mut self, command: &[u8]) -> Option<[u8; 2]> {
        self.policy.check(NOW, command).ok()?;
        let response = self.card.transmit(command);
        self.policy.answered(&response).ok()?;
        let (data, status) = response.split_last_chunk().unwrap();
        self.seen.extend_from_slice(data);
        Some(*status)
    }

    /// And the rest, as terminals do.
    fn ask(&mut self, command: &[u8]) {
        let mut status = self.send(command);
        while let Some([0x61, more]) = status {
            status = self.send(&[0, 0xc0, 0, 0, more]);
        }
    }

    fn options(&self, amount: u64) -> Vec<u8> {
        if !self.card.taps {
            return OPTIONS.to_vec();
        }
        let data = [&[0x83, 8][..], &bcd::<6>(amount), &bcd::<2>(CNY.into())].concat();
        with_data([0x80, 0xa8, 0, 0], &data)
    }

    fn generate(kind: u8, first: u64, second: u64) -> Vec<u8> {
        let currency = bcd::<2>(CNY.into());
        let data = [&bcd::<6>(first)[..], &currency, &bcd::<6>(second)].concat();
        with_data([0x80, 0xae, kind, 0], &data)
    }

    fn say(&mut self, say: &Say) {
        match *say {
            Say::Select(whole) => {
                let mut command = select(&hex(UNIONPAY));
                command[3] = if whole { 0 } else { 0x0c };
                self.send(&command);
            }
            Say::SelectMissing => drop(self.send(&select(&hex("A00000033301010109")))),
            Say::SelectForbidden => drop(self.send(&select(&hex("A0000000041010")))),
            Say::Options(amount) => drop(self.send(&self.options(amount))),
            Say::Read(which) => drop(self.send(&[0, 0xb2, 1, which << 3 | 4, 0])),
            Say::Generate(kind, one, two) => drop(self.send(&Self::generate(kind, one, two))),
            Say::Rest(len) => drop(self.send(&[0, 0xc0, 0, 0, len])),
            Say::Forbidden => drop(self.send(&hex("00 DA 9F 36 01 00"))),
            Say::Reset => {
                self.policy.reset();
                (self.card.stage, self.card.rest) = (Stage::Nothing, Vec::new());
            }
            Say::Pay(amount) => {
                self.ask(&select(&hex(UNIONPAY)));
                self.ask(&self.options(amount));
                self.ask(&[0, 0xb2, 1, 0x0c, 0]);
                self.ask(&Self::generate(ARQC, amount, 0));
                self.ask(&Self::generate(TC, 0, amount));
            }
        }
    }

    /// Number, sum and largest of the payments whose cryptogram the terminal has.
    fn paid(&self) -> (u32, u64, u64) {
        let mut paid = std::collections::BTreeMap::<u32, u64>::new();
        for made in &self.card.made {
            if self.seen.windows(8).any(|bytes| bytes == made.bytes) {
                let amount = paid.entry(made.transaction).or_default();
                *amount = made.amount.max(*amount);
            }
        }
        let most = paid.values().max().copied().unwrap_or_default();
        (paid.len() as u32, paid.values().sum(), most)
    }
}

fn between(limits: CardLimits, in_parts: bool, taps: bool) -> Between {
    let policy = policy(Rules { limits, ..rules() });
    let stage = Stage::Nothing;
    let (rest, made) = (Vec::new(), Vec::new());
    let card = ModelCard { in_parts, taps, stage, transaction: 0, rest, made };
    Between { policy, card, seen: Vec::new() }
}

#[test]
fn a8_the_model_pays_within_its_limits_and_would_pay_beyond() {
    for (in_parts, taps) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut limited = between(limits(Some(MOST), Some(TOTAL), Some(USES)), in_parts, taps);
        let mut free = between(CardLimits::default(), in_parts, taps);
        for amount in [51, 50, 50, 49, 50, 1, 0, 0, 0] {
            limited.say(&Say::Pay(amount));
            free.say(&Say::Pay(amount));
        }
        assert_eq!(limited.paid(), (6, 200, 50), "{in_parts} {taps}");
        assert_eq!(free.paid(), (9, 251, 51), "{in_parts} {taps}");
    }
}

proptest! {
    #[test]
    fn no_conversation_makes_the_card_pay_beyond_its_limits(
        said in said(), in_parts in any::<bool>(), taps in any::<bool>(),
    ) {
        let mut between = between(limits(Some(MOST), Some(TOTAL), Some(USES)), in_parts, taps);
        for say in &said {
            between.say(say);
            let (uses, spent, most) = between.paid();
            prop_assert!(uses <= USES && spent <= TOTAL && most <= MOST,
                "{} payments of {}, one of {}, after {:?}", uses, spent, most, say);
            let left = between.policy.limits(NOW);
            prop_assert!(left.uses <= USES - uses && left.payment <= TOTAL - spent);
        }
    }
}
