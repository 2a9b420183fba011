//! What signing cards, their holders and the terminals do.

use rand_core::Rng;

use super::Plan;

/// How far a signing card and its terminal come in one action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The card signs, its holder decides, the terminal brings what it has.
    All,
    /// The card signs.
    Sign,
    /// The holder decides over what was signed last.
    Decide,
    /// The terminal brings what it has of an earlier time.
    Bring,
    /// A terminal asks what is to be signed, and how.
    Terms,
}

/// What a terminal does to what is to be signed, or what was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Twist {
    Nothing,
    /// Gives the card a request with another amount.
    OtherAmount,
    /// Gives the card a request with another payee.
    OtherPayee,
    /// Gives the card another payment's request.
    OtherPayment,
    /// Has another payer's card sign.
    ForeignCard,
    /// Asks for the joint password before there is consent.
    Peeks,
    /// Asks for the joint password of something else that was signed.
    WrongHash,
    /// Has the same signed again, and brings the first with the password of the second.
    SignsTwice,
    /// Brings something without waiting for consent.
    SkipsConsent,
    /// Brings a guessed joint password instead of the right one.
    Guesses,
    /// Mistypes one digit.
    Mistypes,
    /// Brings the joint password of an earlier time.
    OldPassword,
    /// Changes the transaction after the card signed.
    AltersAfter,
    /// Brings another signature, commitment or both.
    SwapsSignature,
    SwapsCommitment,
    SwapsBoth,
    /// Turns a bit.
    FlipsSignature,
    FlipsCommitment,
    /// Says that another form was signed.
    OtherForm,
    /// Names another card, or a device of another kind, or none that there is.
    OtherCard,
    OtherDevice,
    UnknownDevice,
    /// Another terminal brings it.
    OtherTerminal,
    /// It is brought to another payment.
    OtherTarget,
    /// A phone brings the signature as if it were its device's.
    AsAPhone,
}

/// What the holder of a card does that is out of the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// Agrees to whatever the card shows.
    Agrees,
    /// Agrees if it is what was agreed on.
    Compares,
    /// Gives a wrong PIN first.
    Mistypes,
    /// Does not know the PIN.
    Forgets,
    Declines,
    /// Thinks about it for too long.
    Dawdles,
    /// Agrees, and brings the joint password too late.
    Forgetful,
    /// The battery is empty, before or after the consent.
    BatteryBefore,
    BatteryAfter,
    /// Leaves the card in the terminal, and knows the PIN.
    Leaves,
}

/// How the joint password comes from the card to the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carry {
    Typed,
    Pictures,
    Contactless,
}

/// A signing card at a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) stage: Stage,
    pub(crate) back: u8,
    pub(crate) card: u8,
    pub(crate) form: u8,
    pub(crate) twist: Twist,
    pub(crate) holder: Holder,
    pub(crate) carry: Carry,
    /// Whether what the terminal has is brought at once.
    pub(crate) now: bool,
    /// What goes wrong between terminal and card, and what else is drawn.
    pub(crate) torn: u32,
}

/// Each, and the name under which it is counted when something comes of it.
pub(crate) const TWISTS: [(Twist, &str); 24] = [
    (Twist::OtherAmount, "brought: another amount signed"),
    (Twist::OtherPayee, "brought: another payee signed"),
    (Twist::OtherPayment, "brought: another payment signed"),
    (Twist::ForeignCard, "brought: a foreign card's"),
    (Twist::Peeks, "brought: after peeking"),
    (Twist::WrongHash, "brought: after a wrong hash"),
    (Twist::SignsTwice, "brought: signed twice"),
    (Twist::SkipsConsent, "brought: without consent"),
    (Twist::Guesses, "brought: guessed"),
    (Twist::Mistypes, "brought: mistyped"),
    (Twist::OldPassword, "brought: an old password"),
    (Twist::AltersAfter, "brought: altered after signing"),
    (Twist::SwapsSignature, "brought: another signature"),
    (Twist::SwapsCommitment, "brought: another commitment"),
    (Twist::SwapsBoth, "brought: another proof"),
    (Twist::FlipsSignature, "brought: a signature turned"),
    (Twist::FlipsCommitment, "brought: a commitment turned"),
    (Twist::OtherForm, "brought: another form"),
    (Twist::OtherCard, "brought: another card's name"),
    (Twist::OtherDevice, "brought: a device's name"),
    (Twist::UnknownDevice, "brought: nobody's name"),
    (Twist::OtherTerminal, "brought: by another terminal"),
    (Twist::OtherTarget, "brought: to another payment"),
    (Twist::AsAPhone, "brought: as a phone's"),
];

/// Those of which often nothing comes: a holder compares, or a card has nothing else signed yet.
const RARE: [Twist; 12] = [
    Twist::OtherAmount,
    Twist::OtherPayee,
    Twist::OtherPayment,
    Twist::OldPassword,
    Twist::AltersAfter,
    Twist::SwapsSignature,
    Twist::OtherForm,
    Twist::OtherDevice,
    Twist::UnknownDevice,
    Twist::UnknownDevice,
    Twist::ForeignCard,
    Twist::OtherTarget,
];

impl Twist {
    pub(crate) fn name(self) -> &'static str {
        TWISTS.iter().find(|one| one.0 == self).map_or("brought: as it is", |one| one.1)
    }
}

impl Plan {
    pub(super) fn turn(&mut self) -> Turn {
        // One after the other, so that a few worlds have them all: three turns of five. Those of
        // which often nothing comes are there twice.
        self.turns += 1;
        let round = TWISTS.len() + RARE.len();
        let twist = match self.turns % 5 {
            0 | 2 | 4 => match self.turns * 3 / 5 % round {
                at if at < TWISTS.len() => TWISTS[at].0,
                at => RARE[at - TWISTS.len()],
            },
            _ => Twist::Nothing,
        };
        let twisted = twist != Twist::Nothing;
        let stage = match self.below(20) {
            _ if twisted => Stage::All,
            0..11 => Stage::All,
            11..13 => Stage::Sign,
            13..16 => Stage::Decide,
            16..18 => Stage::Bring,
            _ => Stage::Terms,
        };
        let alters = [Twist::OtherAmount, Twist::OtherPayee, Twist::OtherPayment];
        let holder = match self.below(22) {
            0..8 if alters.contains(&twist) => Holder::Compares,
            0..8 => Holder::Agrees,
            _ if twisted && self.below(2) == 0 => Holder::Agrees,
            8..11 => Holder::Compares,
            11 => Holder::Mistypes,
            12 => Holder::Forgets,
            13 | 14 => Holder::Declines,
            15 => Holder::Dawdles,
            16 => Holder::BatteryBefore,
            17 => Holder::BatteryAfter,
            18 => Holder::Leaves,
            19 => Holder::Forgetful,
            20 => Holder::Forgets,
            _ => Holder::BatteryAfter,
        };
        let carry = match self.below(5) {
            _ if twist == Twist::WrongHash => Carry::Contactless,
            0 | 1 => Carry::Typed,
            2 => Carry::Pictures,
            _ => Carry::Contactless,
        };
        let (back, now) = (self.back(), self.below(5) > 0);
        let (card, form, torn) = (self.byte(), self.byte(), self.rng.next_u32());
        Turn { stage, back, card, form, twist, holder, carry, now, torn }
    }
}
