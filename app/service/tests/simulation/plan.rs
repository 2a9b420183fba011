//! What happens in a world: drawn from a seed before anything runs, so that it repeats.
//!
//! An action names things by how far back or at which place they are, not by id: the same plan can
//! be carried out whatever the outcome of what went before.

mod turns;

use rand_core::Rng;
use testkit::rng::{ChaCha20Rng, seeded};
pub(crate) use turns::{Carry, Holder, Stage, Turn, Twist};

/// How an answer to a payment is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// As it should be, by a device of the payer's.
    Right,
    /// By another device's key under this device's name.
    WrongKey,
    /// Over a request with another amount.
    OtherAmount,
    /// Over a request with another payee.
    OtherPayee,
    /// Over another payment's request.
    OtherPayment,
    /// Nothing of the kind.
    Garbage,
    /// Rightly made by a device of another payer.
    ForeignDevice,
    /// Rightly made, and sent by another payer's phone.
    ForeignPhone,
    /// In the name of a device that does not exist.
    UnknownDevice,
    /// The payer does not want it.
    Reject,
    /// The payer did not start it.
    NotMine,
}

/// What a database does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nothing of the transaction is stored, and the caller is told so.
    Before,
    /// Nothing of it is stored, and the caller cannot know.
    Lost,
    /// All of it is stored, and the caller cannot know.
    Unheard,
}

/// One thing that happens. `back` counts from the newest, `pick` from the first, both modulo what
/// there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// A terminal asks for a payment.
    Create {
        payer: u8,
        payee: u8,
        amount: u32,
        hurry: bool,
    },
    /// The same request again, word for word.
    CreateAgain {
        back: u8,
    },
    /// Another request under the same key.
    CreateOther {
        back: u8,
    },
    /// A device answers, and the answer is delivered if `now`, otherwise it lies around.
    Answer {
        back: u8,
        how: How,
        device: u8,
        phone: u8,
        now: bool,
        /// What goes wrong between phone and card.
        torn: u32,
    },
    /// A card signs at a terminal.
    Turn(Turn),
    /// An answer that was made before is delivered, for the first time or again.
    Deliver {
        back: u8,
    },
    /// The terminal no longer wants it.
    Cancel {
        back: u8,
    },
    /// A part of an executed payment goes back: so many hundredths of it.
    Refund {
        back: u8,
        part: u8,
    },
    /// The same request for a refund again.
    RefundAgain {
        back: u8,
    },
    /// All of an executed payment goes back.
    Reverse {
        back: u8,
    },
    /// Money comes from outside.
    Post {
        pick: u8,
        amount: u32,
    },
    /// Overdue payments are looked for.
    Sweep,
    /// The clock moves while other things happen.
    Tick,
    /// Somebody looks.
    Look {
        back: u8,
    },
    /// Time passes.
    Wait {
        seconds: u16,
    },
    /// An account is frozen or released.
    Freeze {
        pick: u8,
    },
    Unfreeze {
        pick: u8,
    },
    /// A device is blocked or released.
    Block {
        pick: u8,
    },
    Unblock {
        pick: u8,
    },
    /// A device is revoked, and its holder gets another.
    Revoke {
        pick: u8,
    },
    /// A device is taken from its account.
    Unbind {
        pick: u8,
    },
    /// A phone is revoked, and its holder gets another.
    RevokePhone {
        pick: u8,
    },
    /// Several things at once, at several servers.
    Join(Vec<Action>),
    /// A server dies while these are under way, so many microseconds after they began.
    Crash {
        during: Vec<Action>,
        after: u16,
    },
    /// The database fails one of the next transactions.
    Fault {
        trouble: Trouble,
        skip: u8,
    },
}

/// Of so many seeds one draws mostly what happens to cards that sign at terminals.
pub(crate) const CARDS_IN: u64 = 3;

/// Draws actions one after the other; the first `n` do not depend on how many follow.
pub(crate) struct Plan {
    rng: ChaCha20Rng,
    /// Mostly of cards that sign at terminals.
    of_cards: bool,
    /// Cards that were put into terminals.
    turns: usize,
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let of_cards = seed.is_multiple_of(CARDS_IN);
        // Each begins elsewhere among the twists.
        let turns = seed as usize * 7;
        Self { rng: seeded(seed ^ 0x51_4D_55_4C_41_54_45_00), of_cards, turns }
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.rng.next_u32() % bound
    }

    fn byte(&mut self) -> u8 {
        self.rng.next_u32() as u8
    }

    /// Mostly the newest, sometimes any.
    fn back(&mut self) -> u8 {
        match self.below(4) {
            0 => self.byte(),
            1 => self.below(8) as u8,
            _ => self.below(3) as u8,
        }
    }

    /// The next action.
    pub(crate) fn draw(&mut self) -> Action {
        match self.below(100) {
            0..10 => self.join(),
            10..13 => self.crash(),
            13..17 => Action::Fault { trouble: self.trouble(), skip: self.below(3) as u8 },
            _ => self.single(),
        }
    }

    fn trouble(&mut self) -> Trouble {
        match self.below(3) {
            0 => Trouble::Before,
            1 => Trouble::Lost,
            _ => Trouble::Unheard,
        }
    }

    fn single(&mut self) -> Action {
        if self.of_cards && self.below(8) < 7 {
            return match self.below(10) {
                0..3 => self.create(),
                _ => Action::Turn(self.turn()),
            };
        }
        match self.below(100) {
            0..16 => self.create(),
            16..20 => Action::CreateAgain { back: self.back() },
            20..22 => Action::CreateOther { back: self.back() },
            22..53 => self.answer(),
            53..58 => Action::Turn(self.turn()),
            58..65 => Action::Deliver { back: self.back() },
            65..68 => Action::Cancel { back: self.back() },
            68..73 => Action::Refund { back: self.back(), part: self.byte() },
            73..75 => Action::RefundAgain { back: self.back() },
            75..77 => Action::Reverse { back: self.back() },
            77 => Action::Sweep,
            78..80 => Action::Post { pick: self.byte(), amount: 1 + self.below(90_000) },
            80 => Action::Look { back: self.back() },
            81..84 => self.wait(),
            84 => Action::Freeze { pick: self.byte() },
            85..89 => Action::Unfreeze { pick: self.byte() },
            89..91 => Action::Block { pick: self.byte() },
            91..94 => Action::Unblock { pick: self.byte() },
            94..96 => Action::Revoke { pick: self.byte() },
            96..98 => Action::Unbind { pick: self.byte() },
            _ => Action::RevokePhone { pick: self.byte() },
        }
    }

    fn create(&mut self) -> Action {
        // Small sums, sums that use an account up, and some that no account has.
        let amount = match self.below(10) {
            0 => 1,
            1 => 900_000 + self.below(200_000),
            2 => 20_000_000,
            _ => 1 + self.below(60_000),
        };
        let (payer, payee) = (self.byte(), self.byte());
        Action::Create { payer, payee, amount, hurry: self.below(4) == 0 }
    }

    fn answer(&mut self) -> Action {
        let how = match self.below(43) {
            0..24 => How::Right,
            24 => How::WrongKey,
            25 | 26 => How::OtherAmount,
            27 => How::OtherPayee,
            28..30 => How::OtherPayment,
            30 => How::Garbage,
            31..33 => How::ForeignDevice,
            33..35 => How::ForeignPhone,
            35 => How::UnknownDevice,
            36..39 => How::Reject,
            _ => How::NotMine,
        };
        let (back, now) = (self.back(), self.below(5) > 0);
        let (device, phone, torn) = (self.byte(), self.byte(), self.rng.next_u32());
        Action::Answer { back, how, device, phone, now, torn }
    }

    fn wait(&mut self) -> Action {
        let seconds = match self.below(20) {
            0 => 301,
            1 | 2 => 31,
            3 => 3600,
            _ => 1 + self.below(20),
        };
        Action::Wait { seconds: seconds as u16 }
    }

    /// Things that race for the same payments.
    pub(crate) fn join(&mut self) -> Action {
        let count = match self.below(8) {
            0 => 24 + self.below(24),
            _ => 2 + self.below(5),
        };
        let back = self.back();
        let racing = |plan: &mut Self| match plan.below(12) {
            0..4 => Action::Answer {
                back,
                how: How::Right,
                device: plan.byte(),
                phone: plan.byte(),
                now: true,
                torn: plan.rng.next_u32(),
            },
            4 => Action::Deliver { back: plan.below(3) as u8 },
            5 => match plan.below(2) {
                0 => Action::Cancel { back },
                _ => Action::Turn(Turn { stage: Stage::All, back, now: true, ..plan.turn() }),
            },
            6 => Action::Sweep,
            7 => Action::CreateAgain { back: plan.below(2) as u8 },
            8 => Action::Refund { back, part: plan.byte() },
            9 => Action::Reverse { back },
            _ => match plan.below(32) {
                0..10 => plan.answer(),
                10..20 => plan.create(),
                20 => Action::Freeze { pick: plan.byte() },
                21 => Action::Block { pick: plan.byte() },
                22..26 => Action::Tick,
                _ => Action::Look { back },
            },
        };
        Action::Join((0..count).map(|_| racing(self)).collect())
    }

    fn crash(&mut self) -> Action {
        let count = self.below(5);
        let mut during = Vec::new();
        while during.len() < count as usize {
            let action = self.single();
            // What only moves the clock or sets the stage is nothing that a crash cuts off.
            if is_call(&action) {
                during.push(action);
            }
        }
        Action::Crash { during, after: self.below(4000) as u16 }
    }
}

/// Whether it is a request to a server, of the kind that may run beside others.
fn is_call(action: &Action) -> bool {
    matches!(
        action,
        Action::Create { .. }
            | Action::CreateAgain { .. }
            | Action::Answer { now: true, .. }
            | Action::Turn(Turn { now: true, .. })
            | Action::Deliver { .. }
            | Action::Cancel { .. }
            | Action::Refund { .. }
            | Action::RefundAgain { .. }
            | Action::Reverse { .. }
            | Action::Post { .. }
            | Action::Sweep
            | Action::Look { .. }
    )
}
