//! Who watches a signing card, and knows nothing of its states: what it showed, took and gave, in
//! the order in which it happened, must be what its holder has agreed to.

use std::collections::BTreeSet;
use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_payment::{ConfirmationRequest, Line};

use super::chip::Draw;
use crate::judge::{Consent, Violation};

/// How long a card waits in the terminal, how long for a PIN after that, and how long it shows the
/// joint password (`docs/protocols/joint-password.md`).
const WAITS: Duration = Duration::from_secs(120);
const SHOWS: Duration = Duration::from_secs(60);

/// Something that was seen of a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Deed {
    /// It has signed this.
    Signed(Box<Draw>),
    /// A whole new transaction was put into it.
    Replaced,
    TakenOut,
    PutBack,
    /// It asked its holder whether this is wanted.
    Asked(Vec<Line>),
    /// A PIN was typed: whether it is the right one.
    Typed(bool),
    /// It took the PIN for consent.
    Agreed,
    Declined,
    /// Its battery was taken out.
    Dead,
    /// It shows this joint password.
    Shown(String),
    /// It gave this joint password without contact.
    Given(String),
}

/// What the last signature has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Open {
    draw: Draw,
    signed: UnixTime,
    taken_out: Option<UnixTime>,
    /// It was shown, in full, since it was taken out.
    seen: bool,
    /// The last PIN that was typed since then was right.
    pin: bool,
    agreed: Option<UnixTime>,
}

/// The witness.
#[derive(Debug, Default)]
pub(super) struct Witness {
    open: Option<Open>,
    is_out: bool,
    /// Joint passwords that were drawn. By chance two of one card's are the same in about one world
    /// of a hundred thousand.
    drawn: BTreeSet<String>,
    given: bool,
    pub(super) consents: Vec<Consent>,
}

impl Witness {
    /// Sees something, at this time; says what is wrong with it.
    pub(super) fn see(&mut self, deed: Deed, now: UnixTime) -> Option<Violation> {
        let wrong = self.judge(&deed, now);
        wrong.map(|name| Violation { name, detail: format!("{deed:?}") })
    }

    fn judge(&mut self, deed: &Deed, now: UnixTime) -> Option<&'static str> {
        match deed {
            Deed::Signed(draw) => {
                let again = !self.drawn.insert(draw.password.clone());
                let twice = self.open.is_some() && !self.given;
                self.given = false;
                let draw = (**draw).clone();
                self.open = Some(Open {
                    draw,
                    signed: now,
                    taken_out: None,
                    seen: false,
                    pin: false,
                    agreed: None,
                });
                match (again, twice) {
                    (true, _) => Some("password-again"),
                    // Nothing was put into it in between.
                    (_, true) => Some("signed-twice"),
                    _ => None,
                }
            }
            Deed::Replaced | Deed::Declined | Deed::Dead => {
                self.open = None;
                None
            }
            Deed::TakenOut => {
                self.is_out = true;
                if let Some(open) = &mut self.open {
                    open.taken_out.get_or_insert(now);
                }
                None
            }
            Deed::PutBack => {
                self.is_out = false;
                None
            }
            Deed::Asked(lines) => self.asked(lines, now),
            Deed::Typed(right) => {
                if let Some(open) = &mut self.open {
                    open.pin = *right;
                }
                None
            }
            Deed::Agreed => self.agreed(now),
            Deed::Shown(digits) => self.told(digits, now),
            Deed::Given(digits) => {
                let wrong = self.told(digits, now);
                let twice = std::mem::replace(&mut self.given, true);
                wrong.or(twice.then_some("password-twice"))
            }
        }
    }

    fn asked(&mut self, lines: &[Line], now: UnixTime) -> Option<&'static str> {
        let Some(open) = &mut self.open else { return Some("asks-for-nothing") };
        let own = ConfirmationRequest::parse(&open.draw.transaction).ok().map(|it| it.lines());
        open.seen = own.as_deref() == Some(lines);
        let late = open.taken_out.is_none_or(|at| now.since(at) > WAITS);
        match (open.seen, late || now.since(open.signed) > WAITS * 2) {
            (false, _) => Some("shows-another"),
            (_, true) => Some("asks-too-late"),
            _ => None,
        }
    }

    fn agreed(&mut self, now: UnixTime) -> Option<&'static str> {
        let Some(open) = &mut self.open else { return Some("consent-to-nothing") };
        let at = open.taken_out.unwrap_or(now);
        let wrong = match open {
            _ if !self.is_out || open.taken_out.is_none() => Some("consent-in-terminal"),
            _ if now.since(at) > WAITS => Some("consent-too-late"),
            Open { seen: false, .. } => Some("consent-unseen"),
            Open { pin: false, .. } => Some("consent-without-pin"),
            Open { agreed: Some(_), .. } => Some("consent-twice"),
            _ => None,
        };
        if wrong.is_none() {
            open.agreed = Some(now);
            let Draw { transaction, commitment, signature, password, .. } = open.draw.clone();
            self.consents.push(Consent { transaction, commitment, signature, password });
        }
        open.pin = false;
        wrong
    }

    fn told(&self, digits: &str, now: UnixTime) -> Option<&'static str> {
        let Some(open) = &self.open else { return Some("password-of-nothing") };
        match open.agreed {
            None => Some("password-without-consent"),
            Some(at) if now.since(at) > SHOWS => Some("password-too-late"),
            _ if self.given => Some("password-twice"),
            _ if open.draw.password != digits => Some("password-differs"),
            Some(_) => None,
        }
    }
}
