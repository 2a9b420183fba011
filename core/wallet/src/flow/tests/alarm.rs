//! A5: what a login by either password, and by a wrong one, looks like.

use core::cell::Cell;

use testkit::rng::seeded;
use zeroize::Zeroizing;

use super::*;
use crate::login::{
    Argon2id, Cost, Lockout, PASSWORD_HASH_LEN, PASSWORD_LEN, PasswordError, PasswordHashing,
    Passwords,
};

/// Argon2id that counts.
#[derive(Default)]
struct Counting(Cell<u32>);

impl PasswordHashing for Counting {
    fn hash(
        &self,
        cost: Cost,
        password: &[u8; PASSWORD_LEN],
        salt: &[u8],
    ) -> Result<Zeroizing<[u8; PASSWORD_HASH_LEN]>, PasswordError> {
        self.0.set(self.0.get() + 1);
        Argon2id.hash(cost, password, salt)
    }
}

/// What can be seen of a login, from outside and beside the manager.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    /// Events of both, in order.
    events: Vec<String>,
    /// Who sent how many bytes, in order.
    lengths: Vec<(&'static str, usize)>,
    /// The manager's bytes.
    answers: Vec<Vec<u8>>,
    /// What was stored of the lock-out: before the password was looked at, and after.
    stored: [String; 2],
    /// Evaluations of Argon2.
    hashes: u32,
}

fn passwords() -> Passwords {
    let alarm = secret("help me please");
    Passwords::new(&secret("open sesame"), Some(&alarm), Cost::LEAST, &mut seeded(1)).unwrap()
}

/// A login with this password after some wrong ones.
fn login(terms: Terms, passwords: &Passwords, typed: &str, wrong: u32) -> (Pair, Seen) {
    let (mut pair, counting) = (Pair::new(terms), Counting::default());
    let mut lockout = Lockout::default();
    for _ in 0..wrong {
        lockout.before(NOW).unwrap();
        lockout.after(Verdict::wrong());
    }
    pair.sleeve.login(NOW, &secret(typed)).unwrap();
    let Some(Output::Send(bytes)) = pair.sleeve.poll() else { panic!("nothing was sent") };
    pair.sent.push(("sleeve", bytes.to_vec()));
    pair.manager.handle(NOW, &bytes).unwrap();
    let Some(Output::Event(ManagerEvent::Verify(password))) = pair.manager.poll() else {
        panic!("no password to verify")
    };
    let mut events = vec!["manager verify".to_owned()];
    lockout.before(NOW).unwrap();
    let before = serde_json::to_string(&lockout).unwrap();
    let verdict = passwords.verify_by(&counting, &password).unwrap();
    lockout.after(verdict);
    let after = serde_json::to_string(&lockout).unwrap();
    pair.manager.verified(NOW, verdict, None).unwrap();
    events.extend(pair.run());
    if terms.ask_consent {
        pair.manager.consented(NOW, true).unwrap();
        events.extend(pair.run());
    }
    let lengths = pair.sent.iter().map(|(who, bytes)| (*who, bytes.len())).collect();
    let of_manager = pair.sent.iter().filter(|(who, _)| *who == "manager");
    let answers = of_manager.map(|(_, bytes)| bytes.clone()).collect();
    let (stored, hashes) = ([before, after], counting.0.get());
    (pair, Seen { events, lengths, answers, stored, hashes })
}

#[test]
fn a5_login_and_alarm_are_the_same_bytes_events_counters_and_operations() {
    let passwords = passwords();
    let asks = Terms { ask_consent: true, ..USUAL };
    for (terms, wrong) in [(USUAL, 0), (USUAL, 2), (asks, 0)] {
        let (_, usual) = login(terms, &passwords, "open sesame", wrong);
        let (_, alarm) = login(terms, &passwords, "help me please", wrong);
        assert_eq!(usual, alarm);
        assert_eq!(usual.hashes, 2);
        assert_eq!(usual.lengths, [("sleeve", 129), ("manager", 6)]);
        assert_eq!(usual.answers, [[0x81, 1, 0, 0, 0, 0]]);
        // Nothing but the password is sent before the answer, and nothing after it by itself.
        let consent = if terms.ask_consent { 1 } else { 0 };
        assert_eq!(usual.events.len(), 3 + consent);
    }
}

#[test]
fn a5_a_wrong_password_costs_the_same_and_differs_in_its_answer_only() {
    let passwords = passwords();
    let (_, right) = login(USUAL, &passwords, "open sesame", 0);
    let (_, wrong) = login(USUAL, &passwords, "neither", 0);
    assert_eq!(wrong.hashes, right.hashes);
    assert_eq!(wrong.lengths, right.lengths);
    assert_eq!(wrong.stored[0], right.stored[0]);
    assert_eq!(wrong.stored[1].len(), right.stored[1].len());
    assert_eq!(wrong.events[..1], right.events[..1], "up to the answer");
    assert_eq!(wrong.answers, [[0x81, 2, 0, 0, 0, 0]]);
    assert_eq!(wrong.events[1], "sleeve login-refused refused 0");
}

#[test]
fn a5_without_an_alarm_password_it_costs_the_same() {
    let plain = Passwords::new(&secret("open sesame"), None, Cost::LEAST, &mut seeded(2)).unwrap();
    let (_, with) = login(USUAL, &passwords(), "open sesame", 0);
    let (_, without) = login(USUAL, &plain, "open sesame", 0);
    assert_eq!(with, without);
    let (_, none) = login(USUAL, &plain, "help me please", 0);
    assert_eq!((none.hashes, none.events[1].as_str()), (2, "sleeve login-refused refused 0"));
}

#[test]
fn a5_the_alarm_is_known_to_the_owner_only_once_the_answer_has_left() {
    for (typed, is_alarm) in [("open sesame", false), ("help me please", true)] {
        let passwords = passwords();
        let mut manager = ManagerFlow::new(USUAL, NOW);
        let password = PaddedPassword::new(&secret(typed)).unwrap();
        let verdict = passwords.verify(&password).unwrap();
        manager.handle(NOW, &SleeveMessage::Login(password).encode()).unwrap();
        manager.poll_event().unwrap();
        manager.verified(NOW, verdict, None).unwrap();
        // The event waits behind the answer, and says nothing when it is printed.
        assert!(manager.poll_event().is_none());
        assert_eq!(*manager.poll_transmit().unwrap(), [0x81, 1, 0, 0, 0, 0]);
        let event = manager.poll_event().unwrap();
        assert_eq!(format!("{event:?}"), "LoggedIn(Access(..))");
        let ManagerEvent::LoggedIn(access) = event else { panic!("another event") };
        assert_eq!(access.is_alarm(), is_alarm);
        assert!(!format!("{manager:?}").contains("larm"));
    }
}

#[test]
fn a5_the_session_after_an_alarm_has_the_same_course_and_lengths() {
    let passwords = passwords();
    let course = |typed: &str, cards: &[(&str, &str)]| {
        let (mut pair, _) = login(USUAL, &passwords, typed, 0);
        pair.sent.clear();
        pair.sleeve.list(NOW).unwrap();
        let mut events = pair.run().len();
        let line = |(id, label): &(&str, &str)| {
            CardLine::new(CardId::new(id).unwrap(), Label::new(label).unwrap(), true, false)
        };
        pair.manager.listed(cards.iter().map(line).collect()).unwrap();
        events += pair.run().len();
        let id = CardId::new(cards[0].0).unwrap();
        pair.sleeve.take(NOW, &id).unwrap();
        events += pair.run().len();
        let label = Label::new(cards[0].1).unwrap();
        let taken = CardTaken { label, ..given(Rules::any()) };
        pair.manager.taken(NOW, Ok(taken)).unwrap();
        events += pair.run().len();
        let lengths: Vec<_> = pair.sent.iter().map(|(who, bytes)| (*who, bytes.len())).collect();
        (events, lengths)
    };
    let real = [("card-1", "Visa, blue"), ("card-2", "银联"), ("card-3", "house key")];
    let decoys = [("card-9", "Old card")];
    assert_eq!(course("open sesame", &real), course("help me please", &decoys));
}

#[test]
fn a4_nothing_prints_a_password_or_a_command() {
    let mut pair = Pair::new(USUAL);
    pair.sleeve.login(NOW, &secret("open sesame")).unwrap();
    let mut shown = format!("{:?}", pair.sleeve);
    let bytes = pair.sleeve.poll_transmit().unwrap();
    pair.manager.handle(NOW, &bytes).unwrap();
    shown += &format!("{:?} {:?}", pair.sleeve, pair.manager);
    shown += &format!("{:?}", pair.manager.poll());
    assert!(!shown.contains("sesame") && !shown.contains("111, 112"), "{shown}");

    // A PIN, wherever it is on its way to the card, whole or in pieces; and what the card says.
    let mut verify = vec![0, 0x20, 0, 0x80, 0, 0x40, 0];
    verify.extend([0x97, 0x53].repeat(0x2000));
    let mut pair = Pair::holding(Rules::any());
    pair.sleeve.transmit(NOW, &verify).unwrap();
    let mut shown = format!("{:?}", pair.sleeve);
    while let Some(piece) = pair.sleeve.poll_transmit() {
        pair.manager.handle(NOW, &piece).unwrap();
        shown += &format!("{:?} {:?}", SleeveMessage::decode(&piece).unwrap(), pair.manager);
    }
    shown += &format!("{:?}", pair.manager.poll());
    pair.manager.answered(LEASE, Ok(&[&verify[7..], &[0x61, 0]].concat())).unwrap();
    shown += &format!("{:?}", pair.manager);
    while let Some(output) = pair.manager.poll() {
        let Output::Send(bytes) = output else { continue };
        shown += &format!("{:?}", ManagerMessage::decode(&bytes).unwrap());
        pair.sleeve.handle(NOW, &bytes).unwrap();
        shown += &format!("{:?}", pair.sleeve);
    }
    shown += &format!("{:?}", pair.sleeve.poll());
    assert!(shown.contains("Answer(16386 bytes)"), "{shown}");
    assert!(!shown.contains("151, 83") && !shown.contains("9753"), "{shown}");
}
