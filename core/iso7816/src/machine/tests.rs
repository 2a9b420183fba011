use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;
use testkit::rng::seeded;

use super::*;
use crate::{InProcess, Terminal};

/// Echoes data to ECHO, gives `P1-P2` bytes to LONG, and counts.
#[derive(Default)]
struct Toy {
    handled: u32,
    resets: u32,
    delivered: u32,
    last: Vec<u8>,
}

const TOY: &[u8] = b"\xf0Toy.1";
const ECHO: u8 = 0xe0;
const LONG: u8 = 0xe2;

impl Application for Toy {
    fn aid(&self) -> &[u8] {
        TOY
    }

    fn selected(&mut self) -> Vec<u8> {
        self.last.clear();
        vec![0x6f, 0]
    }

    fn reset(&mut self) {
        self.resets += 1;
        self.last.clear();
    }

    fn handle(&mut self, command: &Command, _: &mut dyn CryptoRng) -> Response {
        self.handled += 1;
        self.last = command.data().to_vec();
        match command.ins {
            ECHO => Response::ok(command.data().to_vec()),
            LONG => Response::ok(vec![7; usize::from(command.parameters())]),
            _ => Status::INSTRUCTION.into(),
        }
    }

    fn delivered(&mut self) {
        self.delivered += 1;
    }
}

/// A card, and how it answers.
struct Card(CardMachine<Toy>);

impl Card {
    fn fresh() -> Self {
        Self(CardMachine::new(Toy::default()))
    }

    fn selected() -> Self {
        let mut card = Self::fresh();
        assert_eq!(card.send(&select(TOY, 0, &[0])), [0x6f, 0, 0x90, 0]);
        card
    }

    fn send(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.0.handle(&mut seeded(1), bytes)
    }

    fn status(&mut self, bytes: &[u8]) -> Status {
        let response = Response::parse(&self.send(bytes)).unwrap();
        assert!(response.data.is_empty(), "data with {}", response.status);
        response.status
    }
}

fn select(aid: &[u8], p2: u8, le: &[u8]) -> Vec<u8> {
    let lc = u8::try_from(aid.len()).unwrap();
    [&[0, SELECT, BY_NAME, p2, lc][..], aid, le].concat()
}

/// A part of a chain, or its end.
fn part(cla: u8, p2: u8, data: &[u8]) -> Vec<u8> {
    [&[cla, ECHO, 0, p2, u8::try_from(data.len()).unwrap()][..], data].concat()
}

#[test]
fn the_answer_to_reset_is_well_formed() {
    let atr = Card::fresh().0.power();
    assert_eq!(atr[..4], [0x3b, 0x8f, 0x80, 0x01]);
    let historical = usize::from(atr[1] & 0xf);
    assert_eq!(atr.len(), 4 + historical + 1);
    // Category 80 holds COMPACT-TLV objects: tag and length in one byte each.
    assert_eq!(atr[4], 0x80);
    let mut objects = &atr[5..4 + historical];
    let mut found = Vec::new();
    while let Some((head, rest)) = objects.split_first() {
        let (value, rest) = rest.split_at(usize::from(head & 0xf));
        found.push((head >> 4, value));
        objects = rest;
    }
    assert_eq!(found, [(7, &[0x80][..]), (5, b"Countersign")]);
    assert_eq!(atr[1..].iter().fold(0, |check, byte| check ^ byte), 0, "TCK");
    assert_eq!(atr.last(), Some(&0x63), "as the documentation says");
}

#[test]
fn an_application_is_selected_by_its_whole_name() {
    let mut card = Card::fresh();
    for (wrong, status) in [
        (select(b"\xf0Toy.2", 0, &[0]), Status::NOT_FOUND),
        (select(&TOY[..5], 0, &[0]), Status::NOT_FOUND),
        (select(b"\xf0Toy.1x", 0, &[0]), Status::NOT_FOUND),
        (vec![0, SELECT, BY_NAME, 0, 0], Status::NOT_FOUND),
        (select(TOY, 2, &[0]), Status::WRONG_PARAMETERS),
        (vec![0, SELECT, 0, 0, 2, 0x3f, 0, 0], Status::WRONG_PARAMETERS),
        // Nothing was selected so far.
        (vec![0, ECHO, 0, 0, 0], Status::CONDITIONS),
        (vec![0, 0xff, 0, 0, 0], Status::CONDITIONS),
        (vec![0, 0x61, 0, 0, 0], Status::INSTRUCTION),
    ] {
        assert_eq!(card.status(&wrong), status, "{wrong:02x?}");
    }
    assert_eq!(card.0.application().handled, 0);
    assert_eq!(card.status(&select(TOY, 0x0c, &[])), Status::OK);
    assert_eq!(card.status(&[0, 0xff, 0, 0]), Status::INSTRUCTION, "now it is the application's");
    // Another one is not there; this one stays selected.
    assert_eq!(card.status(&select(b"\xa0\0\0\0\x03", 0, &[0])), Status::NOT_FOUND);
    assert_eq!(card.status(&[0, ECHO, 0, 0]), Status::OK);
    let resets = card.0.application().resets;
    card.0.reset();
    assert_eq!(card.status(&[0, ECHO, 0, 0]), Status::CONDITIONS);
    assert_eq!(card.0.application().resets, resets + 1);
}

#[test]
fn whoever_selects_by_name_begins_anew() {
    for (other, status) in [
        (select(b"\xa0\0\0\0\x03", 0, &[0]), Status::NOT_FOUND),
        (select(&TOY[..4], 0x0c, &[]), Status::NOT_FOUND),
        (vec![0, SELECT, BY_NAME, 0], Status::NOT_FOUND),
        (select(TOY, 0x02, &[0]), Status::WRONG_PARAMETERS),
        (select(TOY, 0x0c, &[]), Status::OK),
    ] {
        let mut card = Card::selected();
        assert_eq!(card.status(&part(0, 0, b"kept")), Status::more(4));
        assert_eq!(card.status(&other), status, "{other:02x?}");
        assert_eq!(card.0.application().last, b"", "{other:02x?}");
        assert_eq!(card.status(&[0, GET_RESPONSE, 0, 0, 0]), Status::CONDITIONS, "{other:02x?}");
    }
    // Files that the card does not have, and what is not run, begin nothing.
    for other in [&[0, SELECT, 0, 0, 2, 0x3f, 0][..], &[1, SELECT, BY_NAME, 0, 1, 0xa0]] {
        let mut card = Card::selected();
        assert_eq!(card.status(&part(0, 0, b"kept")), Status::more(4));
        assert!(!card.status(other).is_ok());
        assert_eq!(card.0.application().last, b"kept", "{other:02x?}");
    }
}

#[test]
fn a_terminal_without_le_is_told_what_waits() {
    let mut card = Card::fresh();
    assert_eq!(card.status(&select(TOY, 0, &[])), Status::more(2));
    assert_eq!(card.send(&[0, GET_RESPONSE, 0, 0, 2]), [0x6f, 0, 0x90, 0]);
    assert_eq!(card.status(&[0, GET_RESPONSE, 0, 0, 2]), Status::CONDITIONS, "it had it all");
}

#[test]
fn classes_that_the_card_has_not_change_nothing() {
    let mut card = Card::selected();
    assert_eq!(card.status(&part(0x10, 0, b"ab")), Status::OK);
    for (classes, status) in [
        (vec![0x01, 0x02, 0x03, 0x11, 0x0d, 0x40, 0x60, 0x7f], Status::CHANNEL),
        (vec![0x04, 0x08, 0x0c, 0x1c], Status::SECURE_MESSAGING),
        (vec![0x20, 0x3f, 0x80, 0x90, 0xa0, 0xfe, 0xff], Status::CLASS),
    ] {
        for cla in classes {
            assert_eq!(card.status(&[cla, ECHO, 0, 0]), status, "{cla:02x}");
        }
    }
    assert_eq!(card.0.application().handled, 0);
    assert_eq!(card.send(&[0, ECHO, 0, 0, 1, b'c', 0]), b"abc\x90\0", "the chain goes on");
}

#[test]
fn what_is_no_apdu_loses_nothing() {
    let malformed = [&[][..], &[0], &[0, ECHO, 0], &[0, ECHO, 0, 0, 5, 1], &[0, ECHO, 0, 0, 0, 1]];
    let mut card = Card::selected();
    assert_eq!(card.status(&part(0x10, 0, b"ab")), Status::OK);
    for wrong in malformed {
        assert_eq!(card.status(wrong), Status::WRONG_LENGTH, "{wrong:02x?}");
    }
    assert_eq!(card.send(&[0, ECHO, 0, 0, 1, b'c', 1]), b"a\x61\x02");
    for wrong in malformed {
        assert_eq!(card.status(wrong), Status::WRONG_LENGTH, "{wrong:02x?}");
    }
    assert_eq!(card.send(&[0, GET_RESPONSE, 0, 0, 0]), b"bc\x90\0", "it still waits");
}

#[test]
fn a_long_response_is_fetched_in_parts_or_at_once() {
    let mut card = Card::selected();
    let first = card.send(&[0, LONG, 0x02, 0x10, 0]);
    assert_eq!((first.len(), &first[256..]), (258, &[0x61, 0][..]), "272 more");
    let second = card.send(&[0, GET_RESPONSE, 0, 0, 16]);
    assert_eq!(second[16..], [0x61, 0], "256 more");
    for (wrong, status) in [
        (&[0, GET_RESPONSE, 0, 1, 0][..], Status::WRONG_PARAMETERS),
        (&[0, GET_RESPONSE, 0, 0], Status::WRONG_LENGTH),
        (&[0, GET_RESPONSE, 0, 0, 1, 1, 0], Status::WRONG_LENGTH),
    ] {
        assert_eq!(card.status(wrong), status, "{wrong:02x?}");
    }
    assert_eq!(card.send(&[0, GET_RESPONSE, 0, 0, 255])[255..], [0x61, 1]);
    assert_eq!(card.send(&[0, GET_RESPONSE, 0, 0, 255]), [7, 0x90, 0]);
    // Extended Le: no need.
    assert_eq!(card.send(&[0, LONG, 0x02, 0x10, 0, 0x02, 0x10]).len(), 0x210 + 2);
    assert_eq!(card.send(&[0, LONG, 0x02, 0x10, 0, 0, 0]).len(), 0x210 + 2);
    // Another command, and it is gone.
    assert_eq!(card.send(&[0, LONG, 0, 9, 1]), [7, 0x61, 8]);
    assert_eq!(card.status(&[0, ECHO, 0, 0]), Status::OK);
    assert_eq!(card.status(&[0, GET_RESPONSE, 0, 0, 0]), Status::CONDITIONS);
    // And with a reset.
    assert_eq!(card.send(&[0, LONG, 0, 9, 1]), [7, 0x61, 8]);
    card.0.reset();
    assert_eq!(card.status(&[0, GET_RESPONSE, 0, 0, 0]), Status::CONDITIONS);
}

#[test]
fn a_chain_is_one_command() {
    let mut card = Card::selected();
    assert_eq!(card.status(&part(0x10, 0, b"ab")), Status::OK);
    assert_eq!(card.status(&part(0x10, 0, b"cd")), Status::OK);
    assert_eq!(card.0.application().handled, 0, "not before it is whole");
    assert_eq!(card.send(&[0, ECHO, 0, 0, 2, b'e', b'f', 0]), b"abcdef\x90\0");
    assert_eq!(card.0.application().handled, 1);
    assert_eq!(card.send(&[0, ECHO, 0, 0, 1, b'x', 0]), b"x\x90\0", "the next is another");
}

#[test]
fn a_broken_chain_is_dropped() {
    // The application would forget what it had: nothing of a broken chain reaches it.
    for other in [
        &part(0, 1, b"ef")[..],
        &part(0x10, 1, b"ef"),
        &[0, LONG, 0, 0],
        &[0, GET_RESPONSE, 0, 0, 0],
        &select(TOY, 0, &[0]),
    ] {
        let mut card = Card::selected();
        assert_eq!(card.status(&part(0, 0, b"kept")), Status::more(4));
        assert_eq!(card.status(&part(0x10, 0, b"ab")), Status::OK);
        assert_eq!(card.status(other), Status::CHAIN_BROKEN, "{other:02x?}");
        assert_eq!(card.0.application().last, b"kept");
        assert_eq!(card.send(&[0, ECHO, 0, 0, 1, b'c', 0]), b"c\x90\0", "nothing is left of it");
    }
}

#[test]
fn chains_have_bounds() {
    let mut card = Card::selected();
    for (wrong, status) in [
        (vec![0x10, ECHO, 0, 0], Status::WRONG_LENGTH),
        (vec![0x10, ECHO, 0, 0, 1, 1, 0], Status::WRONG_LENGTH),
        ([&[0x10][..], &select(TOY, 0, &[])[1..]].concat(), Status::CHAIN_UNSUPPORTED),
        (vec![0x10, GET_RESPONSE, 0, 0, 0], Status::CHAIN_UNSUPPORTED),
    ] {
        assert_eq!(card.status(&wrong), status, "{wrong:02x?}");
    }
    let parts = CHAIN_MAX / 255;
    for _ in 0..parts {
        assert_eq!(card.status(&part(0x10, 0, &[1; 255])), Status::OK);
    }
    let rest = vec![1; CHAIN_MAX % 255 + 1];
    assert_eq!(card.status(&part(0x10, 0, &rest)), Status::NO_MEMORY);
    assert_eq!(card.0.application().handled, 0);
    assert_eq!(card.send(&[0, ECHO, 0, 0, 1, b'x', 0]), b"x\x90\0");
    let extended = |len| Command::new(0, ECHO, 0, 0).with_data(&vec![1; len]).unwrap();
    assert_eq!(card.status(&extended(CHAIN_MAX + 1).encode()), Status::NO_MEMORY);
    assert_eq!(card.send(&extended(CHAIN_MAX).expecting(65_536).encode()).len(), CHAIN_MAX + 2);
}

#[test]
fn a_reset_drops_a_chain() {
    let mut card = Card::selected();
    assert_eq!(card.status(&part(0x10, 0, b"ab")), Status::OK);
    card.0.power();
    assert_eq!(card.status(&select(TOY, 0x0c, &[])), Status::OK);
    assert_eq!(card.send(&[0, ECHO, 0, 0, 1, b'c', 0]), b"c\x90\0");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_terminal_gets_everything_there_and_back(len in 0..=CHAIN_MAX) {
        let mut card = Card::selected();
        let data: Vec<u8> = (0..=u8::MAX).cycle().take(len).collect();
        let mut rng = seeded(1);
        let mut terminal = Terminal::new(InProcess::new(&mut card.0, &mut rng));
        let command = Command::new(0, ECHO, 0, 0).with_data(&data).unwrap().expecting(256);
        let response = terminal.send(&command).unwrap();
        prop_assert_eq!(response.status, Status::OK);
        prop_assert_eq!(&*response.data, &data);
        prop_assert_eq!(card.0.application().handled, 1);
    }

    #[test]
    fn whatever_comes_is_answered(
        apdus in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..24), 1..24),
    ) {
        let mut card = Card::selected();
        for apdu in apdus {
            let answer = card.send(&apdu);
            let response = Response::parse(&answer).unwrap();
            prop_assert!(response.data.is_empty() || response.status.is_ok());
        }
    }
}

#[test]
fn an_application_learns_when_its_answer_was_wholly_handed_out() {
    let mut card = Card::selected();
    let told = |card: &mut Card| core::mem::take(&mut card.0.application_mut().delivered);
    assert_eq!(told(&mut card), 1, "the control information");
    assert_eq!(card.send(&[0, LONG, 0, 9, 4])[4..], [0x61, 5]);
    assert_eq!(told(&mut card), 0, "five bytes wait");
    assert_eq!(card.send(&[0, 0xc0, 0, 0, 2])[2..], [0x61, 3]);
    assert_eq!(told(&mut card), 0);
    assert_eq!(card.send(&[0, 0xc0, 0, 0, 3])[3..], [0x90, 0]);
    assert_eq!(told(&mut card), 1);
    // An answer that something else replaced was not handed out.
    for replaces in [&[0x10, ECHO, 0, 0, 1, 1][..], &[0, 0x61, 0, 0], &[0, 0xa4, 0, 0]] {
        let mut card = Card::selected();
        told(&mut card);
        assert_eq!(card.send(&[0, LONG, 0, 9, 4])[4..], [0x61, 5]);
        card.send(replaces);
        assert_ne!(card.send(&[0, 0xc0, 0, 0, 0])[..], [0x90, 0]);
        assert_eq!(told(&mut card), 0, "{replaces:02x?}");
    }
    card.send(&[0, LONG, 0, 9, 4]);
    card.0.reset();
    card.send(&[0, 0xc0, 0, 0, 0]);
    assert_eq!(told(&mut card), 0);
}
