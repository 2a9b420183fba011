//! That who watches cards sees what is there to see: a card's own story is told otherwise.

use std::time::Duration;

use countersign_payment::joint::Form;
use countersign_payment::{ConfirmationRequest, Line};
use libtest_mimic::Failed;

use super::chip::Draw;
use super::witness::{Deed, Witness};
use crate::card::example;
use crate::house::START;

/// A part of a card's story; each takes a second.
#[derive(Clone)]
enum Part {
    Does(Deed),
    Waits(u64),
}
use Part::{Does, Waits};

const FIRST: &str = "123456788";
const SECOND: &str = "000000010";

fn draw(order: &str, password: &str) -> Draw {
    let request = ConfirmationRequest { order: order.to_owned(), ..example() };
    Draw {
        form: Form::Digest,
        transaction: request.to_bytes().unwrap(),
        commitment: password.as_bytes().to_vec(),
        signature: order.as_bytes().to_vec(),
        password: password.to_owned(),
    }
}

fn lines(draw: &Draw) -> Vec<Line> {
    ConfirmationRequest::parse(&draw.transaction).unwrap().lines()
}

fn signed(draw: &Draw) -> Part {
    Does(Deed::Signed(Box::new(draw.clone())))
}

fn told(deeds: &[Part]) -> (Option<&'static str>, usize) {
    let (mut witness, mut now, mut first) = (Witness::default(), START, None);
    for part in deeds {
        match part {
            Waits(seconds) => now = now.plus(Duration::from_secs(*seconds)),
            Does(deed) => {
                now = now.plus(Duration::from_secs(1));
                let wrong = witness.see(deed.clone(), now).map(|wrong| wrong.name);
                first = first.or(wrong);
            }
        }
    }
    (first, witness.consents.len())
}

pub(crate) fn the_judge_bites() -> Result<(), Failed> {
    let (one, other) = (draw("Order 17", FIRST), draw("Order 18", SECOND));
    let put = || Does(Deed::Replaced);
    let out = || Does(Deed::TakenOut);
    let asked = |draw: &Draw| Does(Deed::Asked(lines(draw)));
    let pin = |right| Does(Deed::Typed(right));
    let agreed = || Does(Deed::Agreed);
    let shown = |digits: &str| Does(Deed::Shown(digits.to_owned()));
    let given = |digits: &str| Does(Deed::Given(digits.to_owned()));
    let begins = |draw: &Draw| vec![put(), signed(draw), out(), asked(draw)];
    let consents = |draw: &Draw| [begins(draw), vec![pin(true), agreed()]].concat();
    let good = [consents(&one), vec![shown(FIRST), given(FIRST)]].concat();
    let after = |story: Vec<Part>, more: Vec<Part>| [story, more].concat();
    let stories = [
        ("as it should be", good.clone(), None),
        ("twice", after(good.clone(), after(consents(&other), vec![given(SECOND)])), None),
        ("a second PIN", after(begins(&one), vec![pin(false), pin(true), agreed()]), None),
        ("without a PIN", after(begins(&one), vec![agreed()]), Some("consent-without-pin")),
        (
            "a wrong PIN",
            after(begins(&one), vec![pin(false), agreed()]),
            Some("consent-without-pin"),
        ),
        (
            "the PIN of before",
            after(
                begins(&one),
                vec![pin(true), put(), signed(&other), out(), asked(&other), agreed()],
            ),
            Some("consent-without-pin"),
        ),
        ("another shown", vec![put(), signed(&one), out(), asked(&other)], Some("shows-another")),
        (
            "nothing shown",
            vec![put(), signed(&one), out(), pin(true), agreed()],
            Some("consent-unseen"),
        ),
        (
            "in the terminal",
            vec![put(), signed(&one), pin(true), agreed()],
            Some("consent-in-terminal"),
        ),
        (
            "put back",
            after(begins(&one), vec![Does(Deed::PutBack), pin(true), agreed()]),
            Some("consent-in-terminal"),
        ),
        ("asked in it", vec![put(), signed(&one), asked(&one)], Some("asks-too-late")),
        (
            "too late",
            after(begins(&one), vec![Waits(120), pin(true), agreed()]),
            Some("consent-too-late"),
        ),
        (
            "asked too late",
            after(begins(&one), vec![Waits(120), asked(&one)]),
            Some("asks-too-late"),
        ),
        (
            "shown too late",
            after(consents(&one), vec![Waits(60), shown(FIRST)]),
            Some("password-too-late"),
        ),
        (
            "before consent",
            after(begins(&one), vec![given(FIRST)]),
            Some("password-without-consent"),
        ),
        ("shown before", after(begins(&one), vec![shown(FIRST)]), Some("password-without-consent")),
        ("another's", after(consents(&one), vec![shown(SECOND)]), Some("password-differs")),
        ("given twice", after(good.clone(), vec![given(FIRST)]), Some("password-twice")),
        ("shown once given", after(good.clone(), vec![shown(FIRST)]), Some("password-twice")),
        (
            "declined",
            after(begins(&one), vec![Does(Deed::Declined), pin(true), agreed()]),
            Some("consent-to-nothing"),
        ),
        (
            "dead",
            after(consents(&one), vec![Does(Deed::Dead), shown(FIRST)]),
            Some("password-of-nothing"),
        ),
        ("replaced", after(consents(&one), vec![put(), given(FIRST)]), Some("password-of-nothing")),
        ("asks for nothing", vec![put(), asked(&one)], Some("asks-for-nothing")),
        ("signed twice", vec![put(), signed(&one), signed(&other)], Some("signed-twice")),
        ("agreed twice", after(consents(&one), vec![pin(true), agreed()]), Some("consent-twice")),
        (
            "the same password",
            after(good, vec![put(), signed(&draw("Order 18", FIRST))]),
            Some("password-again"),
        ),
    ];
    for (what, story, name) in stories {
        let (found, consents) = told(&story);
        assert_eq!(found, name, "{what}");
        if name.is_some_and(|name| name.starts_with("consent") && name != "consent-twice") {
            assert_eq!(consents, 0, "{what}");
        }
    }
    Ok(())
}
