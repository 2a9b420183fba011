use core::time::Duration;

use countersign_crypto::{Secret, UnixTime};
use countersign_iso7816::LinkError;

use super::*;
use crate::login::{Access, Locked, PaddedPassword, Verdict};
use crate::message::{
    Atr, CardId, CardLine, DistanceCheckFails, Label, LoginOutcome, ManagerMessage, Piece,
    SleeveMessage, Take, Taken, Times,
};
use crate::policy::{CardLimits, Policy, Rules, Usage};

mod alarm;
mod hostile;
mod pair;

use pair::Pair;

const NOW: UnixTime = UnixTime::from_secs(1_760_000_000);
const USUAL: Terms = Terms { readable: false, ask_consent: false };
const LEASE: u64 = 7;
const READ: [u8; 5] = [0, 0xb0, 0, 0, 0];
const OK: [u8; 2] = [0x90, 0];
/// A distance check, and a response that says 5 ms.
const CHECK: [u8; 10] = [0x80, 0xea, 0, 0, 4, 1, 2, 3, 4, 0];
const CHECK_ANSWER: [u8; 14] = [0x80, 10, 1, 2, 3, 4, 0, 20, 0, 50, 0, 9, 0x90, 0];

fn after(millis: u64) -> UnixTime {
    NOW.plus(Duration::from_millis(millis))
}

fn secret(text: &str) -> Secret {
    Secret::copied_from(text.as_bytes())
}

fn card() -> CardId {
    CardId::new("visa").unwrap()
}

fn lines() -> Vec<CardLine> {
    vec![CardLine::new(card(), Label::new("blue").unwrap(), true, false)]
}

fn atr() -> Atr {
    Atr::new(&[0x3b, 0x80, 1]).unwrap()
}

fn policy(rules: Rules) -> Policy {
    Policy::new(rules, &CardLimits::default(), Access::usual(), Usage::default()).unwrap()
}

fn given(rules: Rules) -> CardTaken {
    let label = Label::new("blue").unwrap();
    CardTaken { lease: LEASE, seconds: 60, atr: atr(), label, policy: policy(rules) }
}

#[test]
fn a8_from_the_login_to_the_release() {
    let mut pair = Pair::new(USUAL);
    assert!(!pair.sleeve.is_busy());
    pair.sleeve.login(NOW, &secret("open sesame")).unwrap();
    assert!(pair.sleeve.is_busy());
    assert_eq!(pair.run(), ["manager verify"]);
    pair.manager.verified(NOW, Verdict::login(), None).unwrap();
    assert_eq!(pair.run(), ["sleeve logged-in", "manager logged-in"]);

    pair.sleeve.list(NOW).unwrap();
    assert_eq!(pair.run(), ["manager list"]);
    pair.manager.listed(lines()).unwrap();
    assert_eq!(pair.run(), ["sleeve cards visa"]);

    pair.sleeve.take(NOW, &card()).unwrap();
    assert_eq!(pair.run(), ["manager take visa"]);
    pair.manager.taken(NOW, Ok(given(Rules::any()))).unwrap();
    assert_eq!(pair.run(), ["sleeve taken 7 for 60 s"]);
    assert_eq!(pair.sleeve.lease(), Some(LEASE));

    pair.sleeve.transmit(NOW, &READ).unwrap();
    assert_eq!(pair.run(), ["manager transmit 7 00B0000000"]);
    pair.manager.answered(LEASE, Ok(&[1, 2, 0x90, 0])).unwrap();
    // It is written down before its answer leaves.
    assert_eq!(pair.run(), ["manager exchanged 7 9000 -", "sleeve answer 01029000"]);

    pair.sleeve.reset(NOW).unwrap();
    assert_eq!(pair.run(), ["manager reset 7"]);
    pair.manager.was_reset(LEASE, Ok(atr())).unwrap();
    assert_eq!(pair.run(), ["sleeve was-reset"]);

    pair.sleeve.probe(NOW).unwrap();
    pair.now = after(21);
    assert_eq!(pair.run(), ["sleeve probed 21 ms"]);

    pair.sleeve.release(NOW).unwrap();
    assert_eq!(pair.run(), ["manager released 7", "sleeve released"]);
    assert_eq!(pair.sleeve.lease(), None);
    // Without a card there is nothing to release, which is no fault; another may be taken.
    pair.sleeve.release(NOW).unwrap();
    assert_eq!(pair.run(), ["sleeve released"]);
    pair.take(Rules::any());
    assert!(!pair.sleeve.is_busy());

    pair.manager.end("manager-stopped");
    assert_eq!(pair.run(), ["sleeve ended manager-stopped", "manager ended manager-stopped"]);
    pair.manager.end("again");
    assert_eq!(pair.run(), [""; 0]);
}

#[test]
fn a8_apdus_up_to_64_kib_go_both_ways() {
    let mut pair = Pair::holding(Rules::any());
    let mut longest = vec![0, 0xdb, 0x3f, 0xff, 0, 0xff, 0xff];
    longest.extend((0..65_535_u32).map(|at| at as u8));
    longest.extend([0, 0]);
    pair.sleeve.transmit(NOW, &longest).unwrap();
    pair.run();
    assert_eq!(pair.transmitted, [longest]);
    let response: Vec<u8> = (0..65_536_u32).map(|at| (at >> 3) as u8).chain(OK).collect();
    pair.manager.answered(LEASE, Ok(&response)).unwrap();
    pair.run();
    assert_eq!(pair.answers, [response]);
    assert!(pair.sent.iter().all(|(_, bytes)| bytes.len() <= crate::message::MESSAGE_LEN_MAX));
    for wrong in [&[][..], &vec![0; crate::message::APDU_MAX + 1]] {
        assert_eq!(pair.sleeve.transmit(NOW, wrong), Err(FlowError::Misuse));
    }
    pair.exchange(&READ, &OK);
}

#[test]
fn a8_a_response_without_a_status_word_does_not_leave() {
    let too_long = vec![0; crate::message::APDU_MAX + 1];
    for wrong in [&[][..], &[0x90], &too_long] {
        let mut pair = Pair::holding(Rules::any());
        pair.sleeve.transmit(NOW, &READ).unwrap();
        pair.run();
        pair.manager.answered(LEASE, Ok(wrong)).unwrap();
        let refused = ["manager exchanged 7 - card-response", "sleeve refused card-response"];
        assert_eq!(pair.run(), refused);
        pair.exchange(&READ, &OK);
    }
}

#[test]
fn a8_what_the_policy_forbids_is_written_down_and_never_sent() {
    let mut pair = Pair::holding(Rules::emv(vec!["A000000333010101".parse().unwrap()]));
    let other = [0, 0xa4, 4, 0, 5, 0xa0, 0, 0, 0, 4];
    pair.sleeve.transmit(NOW, &other).unwrap();
    let refused = ["manager exchanged 7 - policy-aid", "sleeve refused policy-aid"];
    assert_eq!(pair.run(), refused);
    assert!(pair.transmitted.is_empty());
    // The card is there still.
    pair.sleeve.transmit(NOW, &[0, 0xc0, 0, 0, 0]).unwrap();
    assert_eq!(pair.run(), ["manager transmit 7 00C0000000"]);
}

#[test]
fn a8_a_refused_card_is_not_taken() {
    let mut pair = Pair::open();
    pair.sleeve.take(NOW, &card()).unwrap();
    pair.run();
    pair.manager.taken(NOW, Err("card-lent")).unwrap();
    assert_eq!(pair.run(), ["sleeve refused card-lent"]);
    assert_eq!(pair.sleeve.lease(), None);
    assert_eq!(pair.sleeve.transmit(NOW, &READ), Err(FlowError::Misuse));
    assert_eq!(pair.sleeve.reset(NOW), Err(FlowError::Misuse));
    pair.take(Rules::any());
    assert_eq!(pair.sleeve.take(NOW, &card()), Err(FlowError::Misuse), "one at a time");
    let nameless = CardId::new("").unwrap();
    assert_eq!(Pair::open().sleeve.take(NOW, &nameless), Err(FlowError::Misuse));
}

#[test]
fn a8_a_lost_card_is_gone_and_its_command_is_never_sent_again() {
    for (error, check) in [
        (LinkError::Removed, "card-removed"),
        (LinkError::Timeout, "card-timeout"),
        (LinkError::Reset, "card-reset"),
    ] {
        let mut pair = Pair::holding(Rules::any());
        pair.sleeve.transmit(NOW, &READ).unwrap();
        pair.run();
        pair.manager.answered(LEASE, Err(&error)).unwrap();
        // One end for the command and the card; a refusal of its own would be a second.
        let lost = [format!("manager exchanged 7 - {check}"), format!("sleeve card-lost {check}")];
        assert_eq!(pair.run(), lost);
        assert_eq!((pair.transmitted.len(), pair.sleeve.lease()), (1, None));
        assert!(!pair.sleeve.is_busy());
        // The session goes on; the command is nowhere.
        pair.take(Rules::any());
        pair.exchange(&[0, 0x84, 0, 0, 8], &OK);
        assert_eq!(pair.transmitted.len(), 2);
    }
    let mut pair = Pair::holding(Rules::any());
    pair.sleeve.reset(NOW).unwrap();
    pair.run();
    pair.manager.was_reset(LEASE, Err(&LinkError::Removed)).unwrap();
    assert_eq!(pair.run(), ["sleeve card-lost card-removed"]);
}

#[test]
fn a8_a_lease_that_ends_amid_a_command_ends_both() {
    let mut pair = Pair::holding(Rules::any());
    pair.sleeve.transmit(NOW, &READ).unwrap();
    pair.run();
    pair.manager.lease_ended(LEASE, "lease-expired");
    // The terminal's next question waits until the manager has refused the one before.
    let told = pair.manager.poll_transmit().unwrap();
    pair.sleeve.handle(NOW, &told).unwrap();
    assert!(!pair.sleeve.is_busy(), "a gone card's command holds nobody up");
    pair.sleeve.list(NOW).unwrap();
    assert!(pair.sleeve.is_busy());
    assert_eq!(pair.sleeve.list(NOW), Err(FlowError::Misuse));
    assert!(pair.sleeve.poll_transmit().is_none());
    assert_eq!(pair.run(), ["sleeve card-lost lease-expired", "manager list"]);
    // What the card said meanwhile is for nobody.
    pair.manager.answered(LEASE, Ok(&OK)).unwrap();
    pair.manager.was_reset(LEASE, Ok(atr())).unwrap();
    assert_eq!(pair.run(), [""; 0]);
    pair.manager.listed(lines()).unwrap();
    assert_eq!(pair.run(), ["sleeve cards visa"]);
    assert!(pair.answers.is_empty());
}

#[test]
fn a8_a_lease_that_ends_between_commands_or_in_the_middle_of_one_coming() {
    let mut pair = Pair::holding(Rules::any());
    pair.manager.lease_ended(LEASE + 1, "lease-expired");
    assert_eq!(pair.run(), [""; 0], "another's");
    pair.manager.lease_ended(LEASE, "sleeve-revoked");
    assert_eq!(pair.run(), ["sleeve card-lost sleeve-revoked"]);
    pair.manager.lease_ended(LEASE, "again");
    assert_eq!(pair.run(), [""; 0]);

    // The command and the news cross on their way; so do a release and the news.
    let mut pair = Pair::holding(Rules::any());
    pair.sleeve.transmit(NOW, &vec![7; 20_000]).unwrap();
    let first = pair.sleeve.poll_transmit().unwrap();
    pair.manager.handle(NOW, &first).unwrap();
    pair.manager.lease_ended(LEASE, "lease-expired");
    assert_eq!(pair.run(), ["sleeve card-lost lease-expired"]);
    assert!(pair.transmitted.is_empty());
    assert!(!pair.sleeve.is_busy());

    let mut pair = Pair::holding(Rules::any());
    pair.manager.lease_ended(LEASE, "lease-expired");
    pair.sleeve.release(NOW).unwrap();
    assert_eq!(pair.run(), ["sleeve card-lost lease-expired", "sleeve released"]);
    pair.take(Rules::any());
}

#[test]
fn a4_who_is_at_the_manager_consents_or_not() {
    let asks = Terms { ask_consent: true, ..USUAL };
    let mut pair = Pair::new(asks);
    pair.sleeve.login(NOW, &secret("open sesame")).unwrap();
    pair.run();
    pair.manager.verified(NOW, Verdict::login(), None).unwrap();
    assert_eq!(pair.run(), ["manager consent"]);
    assert_eq!(pair.manager.poll_timeout(), Some(NOW.plus(CONSENT_PATIENCE)));
    pair.manager.consented(after(59_999), true).unwrap();
    assert_eq!(pair.run(), ["sleeve logged-in", "manager logged-in"]);
    // A second word is for nobody.
    pair.manager.consented(after(60_000), false).unwrap();
    assert_eq!(pair.run(), [""; 0]);

    let consenting = || {
        let mut pair = Pair::new(asks);
        pair.sleeve.login(NOW, &secret("open sesame")).unwrap();
        pair.run();
        pair.manager.verified(NOW, Verdict::login(), None).unwrap();
        pair.run();
        pair
    };
    let declined = ["sleeve login-refused declined 0"];
    let mut no = consenting();
    no.manager.consented(NOW, false).unwrap();
    assert_eq!(no.run(), declined);
    let mut nobody = consenting();
    nobody.manager.handle_timeout(after(59_999)).unwrap();
    assert_eq!(nobody.run(), [""; 0]);
    nobody.manager.handle_timeout(after(60_000)).unwrap();
    assert_eq!(nobody.run(), declined);
    let mut late = consenting();
    late.manager.consented(after(60_000), true).unwrap();
    assert_eq!(late.run(), declined);
    // The sleeve waits longer than that.
    assert!(ANSWER_PATIENCE > CONSENT_PATIENCE);
    // A wrong password disturbs nobody.
    let mut wrong = Pair::new(asks);
    wrong.sleeve.login(NOW, &secret("neither")).unwrap();
    wrong.run();
    wrong.manager.verified(NOW, Verdict::wrong(), None).unwrap();
    assert_eq!(wrong.run(), ["sleeve login-refused refused 0"]);
    // Nor is one consent enough for all.
    let mut pair = consenting();
    pair.manager.consented(NOW, false).unwrap();
    pair.run();
    pair.sleeve.login(NOW, &secret("open sesame")).unwrap();
    pair.run();
    pair.manager.verified(NOW, Verdict::login(), None).unwrap();
    assert_eq!(pair.run(), ["manager consent"]);
}

#[test]
fn a4_a_connection_has_three_tries() {
    let mut pair = Pair::new(USUAL);
    for outcome in ["refused 0", "locked 30", "refused 60"] {
        pair.sleeve.login(NOW, &secret("neither")).unwrap();
        assert_eq!(pair.run(), ["manager verify"]);
        match outcome {
            "locked 30" => pair.manager.locked(NOW, Locked { seconds: 30 }).unwrap(),
            "refused 60" => {
                let wait = Some(Locked { seconds: 60 });
                pair.manager.verified(NOW, Verdict::wrong(), wait).unwrap();
            }
            _ => pair.manager.verified(NOW, Verdict::wrong(), None).unwrap(),
        }
        let mut expected = vec![format!("sleeve login-refused {outcome}")];
        if outcome == "refused 60" {
            expected.push("sleeve ended login-attempts".to_owned());
            expected.push("manager ended login-attempts".to_owned());
        }
        assert_eq!(pair.run(), expected);
    }
    assert_eq!(pair.sleeve.login(NOW, &secret("open sesame")), Err(FlowError::Misuse));
    let login = SleeveMessage::Login(PaddedPassword::new(&secret("open sesame")).unwrap());
    assert_eq!(pair.manager.handle(NOW, &login.encode()), Err(FlowError::Dead));
    assert_eq!(pair.run(), [""; 0], "no password is looked at any more");
}

#[test]
fn a4_no_password_goes_over_a_channel_that_can_be_read() {
    let readable = Terms { readable: true, ..USUAL };
    let mut sleeve = SleeveFlow::new(true);
    let refused = sleeve.login(NOW, &secret("open sesame")).unwrap_err();
    assert_eq!((refused, refused.check()), (FlowError::Readable, "login-readable"));
    assert!(sleeve.poll().is_none(), "nothing was sent");
    // A sleeve that sends it all the same is not told whether it was right.
    let mut pair = Pair::new(readable);
    pair.sleeve.login(NOW, &secret("open sesame")).unwrap();
    assert_eq!(pair.run(), ["sleeve ended login-readable", "manager ended login-readable"]);
}

#[test]
fn a6_sleep_and_awake_are_told() {
    let times = Times { every: 30_000, within: 5_000 };
    let mut pair = Pair::open();
    pair.sleeve.sleep(times).unwrap();
    assert_eq!(pair.run(), ["manager sleep 30000 5000"]);
    // It may still ask; while it does, it does not fall asleep.
    pair.sleeve.list(NOW).unwrap();
    assert_eq!(pair.sleeve.sleep(times), Err(FlowError::Misuse));
    assert_eq!(pair.sleeve.wake(), Err(FlowError::Misuse));
    pair.run();
    pair.manager.listed(lines()).unwrap();
    pair.run();
    pair.sleeve.wake().unwrap();
    assert_eq!(pair.run(), ["manager awake"]);
    for wrong in [Times { every: 0, within: 1 }, Times { every: 1, within: 0 }] {
        assert_eq!(pair.sleeve.sleep(wrong), Err(FlowError::Misuse));
    }
    assert_eq!(Pair::new(USUAL).sleeve.sleep(times), Err(FlowError::Misuse), "before the login");
}

#[test]
fn a9_a_distance_check_that_must_fail_is_told_to_both_and_passes_untouched() {
    let mut pair = Pair::holding(Rules::any());
    pair.sleeve.transmit(NOW, &CHECK).unwrap();
    pair.run();
    assert_eq!(pair.transmitted, [CHECK.to_vec()]);
    pair.manager.answered(LEASE, Ok(&CHECK_ANSWER)).unwrap();
    pair.now = after(6);
    let told = [
        "manager exchanged 7 9000 -",
        "sleeve distance 60 50",
        "sleeve answer 800A01020304001400320009".to_owned().as_str(),
        "manager distance 60 50",
    ]
    .map(|word| word.replace("0009", "00099000"));
    assert_eq!(pair.run(), told);
    // One that is near enough is nobody's business.
    pair.now = NOW;
    pair.sleeve.transmit(NOW, &CHECK).unwrap();
    pair.run();
    pair.manager.answered(LEASE, Ok(&CHECK_ANSWER)).unwrap();
    pair.now = after(5);
    assert_eq!(pair.run().len(), 2);
}

#[test]
fn the_silent_are_given_up() {
    let mut manager = ManagerFlow::new(USUAL, NOW);
    assert_eq!(manager.poll_timeout(), Some(NOW.plus(PATIENCE)));
    manager.handle_timeout(after(119_999)).unwrap();
    assert_eq!(manager.handle_timeout(after(120_000)), Err(FlowError::Timeout));
    assert!(matches!(
        manager.poll_event(),
        Some(ManagerEvent::Ended { check }) if check == "peer-timeout"
    ));
    assert_eq!(manager.poll_timeout(), None);

    // Each try begins it anew; whoever is logged in may think as long as the lease lasts.
    let mut pair = Pair::new(USUAL);
    pair.sleeve.login(NOW, &secret("neither")).unwrap();
    pair.run();
    assert_eq!(pair.manager.poll_timeout(), None, "the manager's own turn");
    pair.manager.verified(after(100_000), Verdict::wrong(), None).unwrap();
    assert_eq!(pair.manager.poll_timeout(), Some(after(220_000)));
    assert_eq!(Pair::open().manager.poll_timeout(), None);

    // Half a command.
    let mut pair = Pair::holding(Rules::any());
    pair.sleeve.transmit(NOW, &vec![7; 20_000]).unwrap();
    let first = pair.sleeve.poll_transmit().unwrap();
    pair.manager.handle(NOW, &first).unwrap();
    assert_eq!(pair.manager.poll_timeout(), Some(NOW.plus(PATIENCE)));
    let second = pair.sleeve.poll_transmit().unwrap();
    assert_eq!(pair.manager.handle(after(120_000), &second), Err(FlowError::Timeout));

    // A manager that does not answer: to the login, to a request.
    let mut pair = Pair::new(USUAL);
    assert_eq!(pair.sleeve.poll_timeout(), None);
    pair.sleeve.login(NOW, &secret("open sesame")).unwrap();
    assert_eq!(pair.sleeve.poll_timeout(), Some(NOW.plus(ANSWER_PATIENCE)));
    let mut pair = Pair::holding(Rules::any());
    pair.sleeve.transmit(NOW, &READ).unwrap();
    pair.run();
    pair.sleeve.handle_timeout(after(89_999)).unwrap();
    assert_eq!(pair.sleeve.handle_timeout(after(90_000)), Err(FlowError::Timeout));
    // The card is gone with the session, and an answer that comes now is none.
    assert_eq!(pair.sleeve.lease(), None);
    let answer = ManagerMessage::ApduResult(Piece::cut(2, &OK).remove(0));
    assert_eq!(pair.sleeve.handle(NOW, &answer.encode()), Err(FlowError::Dead));
    assert_eq!(pair.run(), ["sleeve ended peer-timeout"]);
}
