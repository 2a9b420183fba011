//! The host against hand-written module answers. Against the emulated module: `app/emulator`.

use countersign_crypto::UnixTime;
use countersign_idcard::sam::{
    BridgeOutcome, BridgeWork, CHECKSUM_RETRIES, CardNumberCheck, CardSide, Command, Response,
    SamConfig, SamError, SamEvent, SamHost, SamOperation, SamResult, Status, Sw3,
};
use countersign_idcard::{Configuration, ENCRYPTED_BASE_LEN, EncryptedData, PlainData};
use proptest::prelude::*;

const NOW: UnixTime = UnixTime::from_secs(1);

fn ok(data: &[u8]) -> Vec<u8> {
    Response::frame(Sw3::Ok.into(), data).expect("fits").to_vec()
}

fn status(status: impl Into<Status>) -> Vec<u8> {
    Response::frame(status.into(), &[]).expect("fits").to_vec()
}

/// What the host sends next, as a command.
fn sent(host: &mut SamHost) -> Command {
    let frame = host.poll_transmit().expect("something to send");
    assert!(host.poll_transmit().is_none(), "one command at a time");
    Command::parse(&frame[7..frame.len() - 1]).expect("a command")
}

fn ready(config: SamConfig) -> SamHost {
    let mut host = SamHost::new(config);
    host.start(NOW).expect("new");
    for (command, data) in
        [(Command::Reset, vec![]), (Command::Status, vec![]), (Command::SamId, vec![0; 16])]
    {
        assert_eq!(sent(&mut host), command);
        assert!(host.poll_event().is_none());
        host.handle(NOW, &ok(&data));
    }
    assert!(matches!(host.poll_event(), Some(SamEvent::Ready(_))));
    assert!(host.is_idle());
    host
}

fn begin() -> SamOperation {
    SamOperation::Begin { configuration: Configuration::new([1; 32]) }
}

fn encrypted() -> EncryptedData {
    EncryptedData::new(vec![1; ENCRYPTED_BASE_LEN].into()).expect("a possible length")
}

/// A host that has selected the card and told the challenge.
fn selected() -> SamHost {
    let mut host = ready(SamConfig::default());
    host.operate(NOW, begin()).expect("idle");
    assert_eq!(sent(&mut host), Command::RemoteCard(Configuration::new([1; 32])));
    host.handle(NOW, &ok(&[9; 8]));
    assert_eq!(sent(&mut host), Command::Find);
    let found = Response::frame(Sw3::CardFound.into(), &[0; 4]).expect("fits");
    host.handle(NOW, &found);
    assert_eq!(sent(&mut host), Command::Select);
    host.handle(NOW, &ok(&[0; 8]));
    let event = host.poll_event();
    assert!(matches!(event, Some(SamEvent::Done(SamResult::Challenge(c))) if c == [9; 8]));
    host
}

/// The card management number of a card whose configuration begins with this byte.
fn card_number(dn: u8) -> Vec<u8> {
    ok(&[&[0xEE; 12][..], &[dn; 16]].concat())
}

/// A host that has read the card of [`begin`] and asks for its number.
fn numbering(config: SamConfig) -> SamHost {
    let mut host = ready(config);
    host.operate(NOW, begin()).expect("idle");
    let found = Response::frame(Sw3::CardFound.into(), &[0; 4]).expect("fits").to_vec();
    for answer in [ok(&[9; 8]), found, ok(&[0; 8])] {
        let _command = sent(&mut host);
        host.handle(NOW, &answer);
    }
    assert!(matches!(host.poll_event(), Some(SamEvent::Done(SamResult::Challenge(_)))));
    host.operate(NOW, SamOperation::Decrypt(encrypted())).expect("selected");
    for answer in [ok(&[]), ok(&[]), read_answer()] {
        let _command = sent(&mut host);
        host.handle(NOW, &answer);
    }
    assert_eq!(sent(&mut host), Command::CardNumber);
    assert!(host.poll_event().is_none());
    host
}

fn failure(host: &mut SamHost) -> SamError {
    match host.poll_event() {
        Some(SamEvent::Failed(error)) => error,
        event => panic!("{event:?}"),
    }
}

#[test]
fn operations_out_of_turn_are_refused_and_change_nothing() {
    let mut host = SamHost::new(SamConfig::default());
    assert_eq!(host.operate(NOW, begin()), Err(SamError::NotReady));
    let mut host = ready(SamConfig::default());
    assert_eq!(host.start(NOW), Err(SamError::NotReady));
    assert_eq!(host.operate(NOW, SamOperation::Decrypt(encrypted())), Err(SamError::NotReady));
    let answer = || SamOperation::Answer { answer: [0; 8], random: [0; 8] };
    assert_eq!(host.operate(NOW, answer()), Err(SamError::NotReady));
    assert!(host.is_idle());
    let mut host = selected();
    assert_eq!(host.operate(NOW, begin()), Err(SamError::NotReady));
    host.operate(NOW, answer()).expect("selected");
    assert_eq!(host.operate(NOW, answer()), Err(SamError::NotReady));
    assert_eq!(host.bridge_done(NOW, BridgeOutcome::Accepted), Err(SamError::NotReady));
}

#[test]
fn a_dead_host_says_so_once_and_takes_nothing_more() {
    let mut host = ready(SamConfig::default());
    host.gone();
    assert_eq!(failure(&mut host), SamError::Gone);
    host.gone();
    host.handle_timeout(UnixTime::from_secs(100));
    host.handle(NOW, &ok(&[]));
    assert!(host.poll_event().is_none() && host.poll_transmit().is_none());
    assert!(host.is_dead() && !host.is_idle());
    assert_eq!(host.poll_timeout(), None);
    assert_eq!(host.operate(NOW, begin()), Err(SamError::Dead));
    assert_eq!(host.operate(NOW, SamOperation::Cancel), Err(SamError::Dead));
    assert_eq!(host.start(NOW), Err(SamError::Dead));
}

#[test]
fn a_timeout_comes_exactly_at_its_time() {
    let mut host = ready(SamConfig::default());
    assert_eq!(host.poll_timeout(), None);
    host.operate(NOW, begin()).expect("idle");
    let deadline = host.poll_timeout().expect("waits");
    assert_eq!(deadline, NOW.plus(SamConfig::default().timeouts.card_side));
    host.handle_timeout(UnixTime::from_millis(deadline.as_millis() - 1));
    assert!(!host.is_dead());
    host.handle_timeout(deadline);
    assert_eq!(failure(&mut host), SamError::Timeout { during: "remote card" });
}

#[test]
fn damaged_answers_are_asked_for_again_a_bounded_number_of_times() {
    let mut host = ready(SamConfig::default());
    host.operate(NOW, begin()).expect("idle");
    let mut damaged = ok(&[9; 8]);
    damaged[10] ^= 1;
    for attempt in 0..=CHECKSUM_RETRIES {
        assert!(matches!(sent(&mut host), Command::RemoteCard(_)), "{attempt}");
        // Our command damaged, or the module's answer: alike.
        let answer = if attempt % 2 == 0 { damaged.clone() } else { status(Sw3::BadChecksum) };
        host.handle(NOW, &answer);
    }
    let attempts = u16::from(CHECKSUM_RETRIES) + 1;
    assert_eq!(failure(&mut host), SamError::Damaged { during: "remote card", attempts });
    let mut never = ready(SamConfig { checksum_retries: 0, ..SamConfig::default() });
    never.operate(NOW, begin()).expect("idle");
    never.handle(NOW, &damaged);
    assert!(never.is_dead());
}

#[test]
fn answers_of_wrong_length_or_status_are_fatal_and_typed() {
    let cases: [(Vec<u8>, SamError); 5] = [
        (ok(&[9; 7]), SamError::Malformed { during: "remote card" }),
        (ok(&[9; 9]), SamError::Malformed { during: "remote card" }),
        (
            status(Sw3::CardFound),
            SamError::Unexpected { during: "remote card", status: Sw3::CardFound.into() },
        ),
        (
            status(Sw3::SamUnauthorised),
            SamError::Unexpected { during: "remote card", status: Sw3::SamUnauthorised.into() },
        ),
        (status(Status::VendorTimeout), SamError::Timeout { during: "remote card" }),
    ];
    for (answer, error) in cases {
        let mut host = ready(SamConfig::default());
        host.operate(NOW, begin()).expect("idle");
        host.handle(NOW, &answer);
        assert_eq!(failure(&mut host), error);
        assert!(host.is_dead() && error.is_fatal());
    }
}

/// A server killed in mid-read leaves answers in the port's buffer.
#[test]
fn answers_left_behind_by_an_earlier_owner_do_not_disturb_the_start() {
    let mut cut = read_answer().split_off(600);
    cut.extend(ok(&[]));
    let found = Response::frame(Sw3::CardFound.into(), &[0; 4]).expect("fits").to_vec();
    let mut broken = ok(&[9; 8]);
    broken[9] ^= 1;
    for stale in [ok(&[]), ok(&[9; 8]), read_answer(), status(Sw3::NoCard), found, cut, broken] {
        let mut host = SamHost::new(SamConfig::default());
        host.start(NOW).expect("new");
        host.handle(NOW, &stale);
        // The module answers whatever it is asked, in order.
        while let Some(frame) = host.poll_transmit() {
            let command = Command::parse(&frame[7..frame.len() - 1]).expect("a command");
            let id = [0; 16];
            host.handle(NOW, &ok(if command == Command::SamId { &id } else { &[] }));
        }
        assert!(matches!(host.poll_event(), Some(SamEvent::Ready(_))), "{stale:02x?}");
        assert!(host.is_idle() && host.poll_event().is_none());
    }
    // A module that reports its own failure is believed.
    let mut host = SamHost::new(SamConfig::default());
    host.start(NOW).expect("new");
    host.handle(NOW, &ok(&[]));
    host.handle(NOW, &status(Sw3::SelfTestFailed));
    let status = Sw3::SelfTestFailed.into();
    assert_eq!(failure(&mut host), SamError::Unexpected { during: "status", status });
}

#[test]
fn every_ok_answer_has_its_own_length() {
    let mut host = ready(SamConfig::default());
    host.operate(NOW, begin()).expect("idle");
    host.handle(NOW, &ok(&[9; 8]));
    host.handle(NOW, &Response::frame(Sw3::CardFound.into(), &[0; 5]).expect("fits"));
    assert_eq!(failure(&mut host), SamError::Malformed { during: "find" });
    let mut host = selected();
    host.operate(NOW, SamOperation::Decrypt(encrypted())).expect("selected");
    host.handle(NOW, &ok(&[0]));
    assert_eq!(failure(&mut host), SamError::Malformed { during: "encrypted data" });
    let mut host = selected();
    host.operate(NOW, SamOperation::Decrypt(encrypted())).expect("selected");
    host.handle(NOW, &ok(&[]));
    host.handle(NOW, &ok(&[]));
    host.handle(NOW, &ok(&[0; 100]));
    assert_eq!(failure(&mut host), SamError::Malformed { during: "read text and photo" });
}

/// Else a module that answers so to the clearing reset would be reset for ever.
#[test]
fn a_status_that_blames_a_card_where_there_is_none_is_fatal() {
    let unexpected = SamError::Unexpected { during: "reset", status: Sw3::NoCard.into() };
    let mut host = selected();
    host.operate(NOW, SamOperation::Cancel).expect("any time");
    host.handle(NOW, &status(Sw3::NoCard));
    assert_eq!(failure(&mut host), unexpected);
    assert!(host.is_dead());
}

#[test]
fn a_refused_card_is_cleared_before_it_is_told() {
    let mut host = selected();
    host.operate(NOW, SamOperation::Answer { answer: [0; 8], random: [0; 8] }).expect("selected");
    let _answer = sent(&mut host);
    host.handle(NOW, &status(Sw3::SamRejectedCard));
    assert!(host.poll_event().is_none());
    assert_eq!(sent(&mut host), Command::Reset);
    host.handle(NOW, &ok(&[]));
    let error = failure(&mut host);
    assert_eq!(error, SamError::Card { during: "card answer", status: Sw3::SamRejectedCard });
    assert!(!error.is_fatal() && host.is_idle());
}

#[test]
fn cancelling_waits_for_the_open_command_and_resets() {
    let mut host = selected();
    host.operate(NOW, SamOperation::Cancel).expect("any time");
    assert_eq!(sent(&mut host), Command::Reset);
    host.handle(NOW, &ok(&[]));
    assert!(matches!(host.poll_event(), Some(SamEvent::Done(SamResult::Cancelled))));

    let mut host = ready(SamConfig::default());
    host.operate(NOW, begin()).expect("idle");
    let _remote = sent(&mut host);
    host.operate(NOW, SamOperation::Cancel).expect("any time");
    assert!(host.poll_transmit().is_none());
    host.handle(NOW, &ok(&[9; 8]));
    assert_eq!(sent(&mut host), Command::Reset);
    host.handle(NOW, &ok(&[]));
    assert!(matches!(host.poll_event(), Some(SamEvent::Done(SamResult::Cancelled))));
    assert!(host.poll_event().is_none() && host.is_idle());
    host.operate(NOW, SamOperation::Cancel).expect("any time");
    assert!(matches!(host.poll_event(), Some(SamEvent::Done(SamResult::Cancelled))));
}

#[test]
fn stray_bytes_between_commands_do_no_harm() {
    let mut host = ready(SamConfig::default());
    host.handle(NOW, &ok(&[1; 8]));
    host.handle(NOW, &[0xAA; 5000]);
    host.operate(NOW, begin()).expect("idle");
    let _remote = sent(&mut host);
    // Two answers at once: the second belongs to nobody.
    host.handle(NOW, &[ok(&[9; 8]), ok(&[])].concat());
    assert!(matches!(failure(&mut host), SamError::Unexpected { during: "find", .. }));
}

#[test]
fn a_bridge_takes_the_place_of_the_extension_commands() {
    let mut host = ready(SamConfig { card_side: CardSide::Bridge, ..SamConfig::default() });
    host.operate(NOW, begin()).expect("idle");
    assert!(host.poll_transmit().is_none());
    let event = host.poll_event();
    assert!(matches!(event, Some(SamEvent::Bridge(BridgeWork::RemoteCard(_)))));
    assert!(host.poll_timeout().is_some());
    host.bridge_done(NOW, BridgeOutcome::Challenge([9; 8])).expect("open");
    assert_eq!(sent(&mut host), Command::Find);
    host.handle(NOW, &Response::frame(Sw3::CardFound.into(), &[0; 4]).expect("fits"));
    assert_eq!(sent(&mut host), Command::Select);
    host.handle(NOW, &ok(&[0; 8]));
    assert!(matches!(host.poll_event(), Some(SamEvent::Done(SamResult::Challenge(_)))));
    host.operate(NOW, SamOperation::Answer { answer: [1; 8], random: [2; 8] }).expect("fits");
    let event = host.poll_event();
    assert!(matches!(event, Some(SamEvent::Bridge(BridgeWork::CardAnswer { .. }))));
    host.bridge_done(NOW, BridgeOutcome::Proof([3; 8])).expect("open");
    assert!(matches!(host.poll_event(), Some(SamEvent::Done(SamResult::Proof(_)))));
    host.operate(NOW, SamOperation::Decrypt(encrypted())).expect("fits");
    let event = host.poll_event();
    assert!(matches!(event, Some(SamEvent::Bridge(BridgeWork::EncryptedData(_)))));
    host.bridge_done(NOW, BridgeOutcome::Accepted).expect("open");
    assert_eq!(sent(&mut host), Command::ReadTextPhoto);
    // Damaged: a real module wants a new find and select before it reads again.
    let mut answer = read_answer();
    answer[20] ^= 1;
    host.handle(NOW, &answer);
    assert_eq!(sent(&mut host), Command::Find);
    host.handle(NOW, &Response::frame(Sw3::CardFound.into(), &[0; 4]).expect("fits"));
    assert_eq!(sent(&mut host), Command::Select);
    host.handle(NOW, &ok(&[0; 8]));
    assert_eq!(sent(&mut host), Command::ReadTextPhoto);
    host.handle(NOW, &read_answer());
    assert!(host.poll_event().is_none(), "nobody has said yet whose data these are");
    assert_eq!(sent(&mut host), Command::CardNumber);
    host.handle(NOW, &card_number(1));
    assert!(matches!(host.poll_event(), Some(SamEvent::Done(SamResult::Plaintext { .. }))));
    assert!(host.is_idle());
}

#[test]
fn a_bridge_may_refuse_or_fall_silent() {
    let bridge = || {
        let mut host = ready(SamConfig { card_side: CardSide::Bridge, ..SamConfig::default() });
        host.operate(NOW, begin()).expect("idle");
        assert!(host.poll_event().is_some());
        host
    };
    let mut host = bridge();
    host.bridge_done(NOW, BridgeOutcome::Refused(Sw3::UnknownCardType)).expect("open");
    assert_eq!(sent(&mut host), Command::Reset);
    host.handle(NOW, &ok(&[]));
    assert!(!failure(&mut host).is_fatal());
    let mut host = bridge();
    host.handle_timeout(host.poll_timeout().expect("waits"));
    assert_eq!(failure(&mut host), SamError::Timeout { during: "card side" });
    let mut host = bridge();
    host.bridge_done(NOW, BridgeOutcome::Proof([0; 8])).expect("open");
    assert_eq!(failure(&mut host), SamError::Malformed { during: "card side" });
}

#[test]
fn data_are_given_on_only_if_they_are_the_cards_that_was_shown() {
    let mut host = numbering(SamConfig::default());
    host.handle(NOW, &card_number(1));
    let event = host.poll_event();
    assert!(matches!(event, Some(SamEvent::Done(SamResult::Plaintext { card_checked: true, .. }))));
    assert!(host.is_idle());

    // One bit of the DN, at either end.
    for at in [12, 27] {
        let mut number = [&[0xEE; 12][..], &[1; 16]].concat();
        number[at] ^= 1;
        let mut host = numbering(SamConfig::default());
        host.handle(NOW, &ok(&number));
        let error = failure(&mut host);
        assert_eq!((error, error.is_fatal()), (SamError::OtherCard, true));
        assert!(host.is_dead() && host.poll_event().is_none());
    }
    // IIN and SN are not the configuration's to say.
    let mut host = numbering(SamConfig::default());
    host.handle(NOW, &ok(&[&[0; 12][..], &[1; 16]].concat()));
    assert!(matches!(host.poll_event(), Some(SamEvent::Done(_))));

    let mut host = numbering(SamConfig::default());
    host.handle(NOW, &ok(&[1; 27]));
    assert_eq!(failure(&mut host), SamError::Malformed { during: "card number" });
    let mut host = numbering(SamConfig::default());
    host.handle_timeout(host.poll_timeout().expect("waits"));
    assert_eq!(failure(&mut host), SamError::Timeout { during: "card number" });
}

#[test]
fn a_module_that_cannot_tell_is_believed_or_not_as_configured() {
    let cannot_tell =
        [Sw3::BadCommand, Sw3::NotPermitted, Sw3::UnknownCommand, Sw3::ItemEmpty, Sw3::NoCard];
    for answer in cannot_tell {
        let mut host = numbering(SamConfig::default());
        host.handle(NOW, &status(answer));
        let event = host.poll_event();
        let unchecked = SamEvent::Done(SamResult::Plaintext { data: plain(), card_checked: false });
        assert_eq!(format!("{event:?}"), format!("{:?}", Some(unchecked)), "{answer:?}");
        assert!(host.is_idle());

        let required = SamConfig { card_number: CardNumberCheck::Required, ..SamConfig::default() };
        let mut host = numbering(required);
        host.handle(NOW, &status(answer));
        if answer.blames_card() {
            assert_eq!(sent(&mut host), Command::Reset);
            host.handle(NOW, &ok(&[]));
            let error = failure(&mut host);
            assert_eq!(error, SamError::Card { during: "card number", status: answer });
        } else {
            let status = answer.into();
            let error = failure(&mut host);
            assert_eq!(error, SamError::Unexpected { during: "card number", status });
        }
    }
    // A module that failed did not say that it cannot tell.
    let mut host = numbering(SamConfig::default());
    host.handle(NOW, &status(Sw3::SelfTestFailed));
    assert!(failure(&mut host).is_fatal());
}

#[test]
fn a_read_cancelled_while_its_card_is_checked_gives_no_data() {
    for answer in [card_number(1), card_number(2), status(Sw3::ItemEmpty)] {
        let mut host = numbering(SamConfig::default());
        host.operate(NOW, SamOperation::Cancel).expect("any time");
        host.handle(NOW, &answer);
        assert_eq!(sent(&mut host), Command::Reset);
        host.handle(NOW, &ok(&[]));
        assert!(matches!(host.poll_event(), Some(SamEvent::Done(SamResult::Cancelled))));
        assert!(host.poll_event().is_none() && host.is_idle());
    }
}

fn plain() -> PlainData {
    let secret = |len| countersign_crypto::Secret::new(vec![7; len]);
    PlainData::new(secret(256), secret(1024), None).expect("lengths fit")
}

fn read_answer() -> Vec<u8> {
    ok(&plain().to_sam(false))
}

proptest! {
    /// Whatever a module sends, at whatever stage: no panic, and at most one failure.
    #[test]
    fn any_bytes_at_any_stage_never_panic(
        answers in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                prop::collection::vec(any::<u8>(), 0..20).prop_map(|data| ok(&data)),
                Just(ok(&[0; 8])),
                Just(ok(&[])),
                Just(ok(&[0; 16])),
                Just(read_answer()),
                any::<u8>().prop_map(|sw3| status(Status::from_bytes([0, 0, sw3]))),
            ],
            0..30,
        ),
        operations in prop::collection::vec(0_u8..5, 30),
    ) {
        let mut host = ready(SamConfig::default());
        let mut failures = 0;
        for (answer, operation) in answers.iter().zip(operations) {
            let operation = match operation {
                0 | 1 => begin(),
                2 => SamOperation::Answer { answer: [0; 8], random: [0; 8] },
                3 => SamOperation::Decrypt(encrypted()),
                _ => SamOperation::Cancel,
            };
            let _either = host.operate(NOW, operation);
            while host.poll_transmit().is_some() {}
            host.handle(NOW, answer);
            while let Some(event) = host.poll_event() {
                failures += u32::from(matches!(event, SamEvent::Failed(error) if error.is_fatal()));
            }
        }
        prop_assert!(failures <= 1);
        prop_assert_eq!(failures == 1, host.is_dead());
    }
}
