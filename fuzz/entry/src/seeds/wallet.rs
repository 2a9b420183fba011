use countersign_crypto::Secret;
use countersign_wallet::login::PaddedPassword;
use countersign_wallet::message::{
    Atr, CardId, CardLine, Cards, CheckName, DistanceCheckFails, Label, LeaseEnded, Limits,
    LoginOutcome, LoginResult, ManagerMessage, Refused, ResetDone, SleeveMessage, Take, Taken,
    Times,
};
use countersign_wallet::relay::message::{Closed, Met};
use countersign_wallet::relay::{
    Address, Alarm, AlarmId, CloseReason, Credited, DeviceMessage, Piece, RelayMessage, Serial,
    WINDOW,
};

use super::Named;
use crate::wallet::AID;

/// A piece of an APDU, whole: type, number, bytes of all, bytes before, data.
fn piece(kind: u8, data: &[u8]) -> Vec<u8> {
    let len = u8::try_from(data.len()).expect("short");
    [&[kind, 0, 0, 0, 3, 0, 0, 0, len, 0, 0, 0, 0, 0, len], data].concat()
}

pub(super) fn wallet_messages() -> Named {
    let card = || CardId::new("visa").expect("a name");
    let label = || Label::new("my card").expect("short");
    let check = |name| CheckName::new(name).expect("short");
    let atr = || Atr::new(&[0x3B, 0x80, 0x01]).expect("short");
    let password = PaddedPassword::new(&Secret::copied_from(b"open sesame")).expect("a password");
    let to_manager = |message: SleeveMessage| message.encode().to_vec();
    let to_sleeve = |message: ManagerMessage| message.encode().to_vec();
    let line = CardLine::new(card(), label(), true, false);
    let cards = Cards::new(1, vec![line.clone(), line]).expect("few");
    let taken = Taken::new(2, 9, 60, (atr(), label()), Limits::NONE);
    vec![
        ("login", to_manager(SleeveMessage::Login(password))),
        ("list", to_manager(SleeveMessage::List(1))),
        ("take", to_manager(SleeveMessage::Take(Take { number: 2, card: card() }))),
        ("apdu", piece(4, &[0, 0xA4, 4, 0, 0])),
        ("apdu-beyond", [&[4, 0, 0, 0, 3, 0, 1, 0, 0], &piece(4, &[0; 5])[9..]].concat()),
        ("release", to_manager(SleeveMessage::Release(4))),
        ("sleep", to_manager(SleeveMessage::Sleep(Times { every: 30_000, within: 5_000 }))),
        ("awake", to_manager(SleeveMessage::Awake)),
        ("reset", to_manager(SleeveMessage::Reset(6))),
        (
            "distance",
            to_manager(SleeveMessage::Distance(DistanceCheckFails { measured: 400, maximum: 50 })),
        ),
        (
            "login-result",
            to_sleeve(ManagerMessage::LoginResult(LoginResult {
                outcome: LoginOutcome::Locked,
                seconds: 60,
            })),
        ),
        ("cards", to_sleeve(ManagerMessage::Cards(cards))),
        ("taken", to_sleeve(ManagerMessage::Taken(taken))),
        ("apdu-result", piece(0x84, &[0x90, 0])),
        ("probe-result", to_sleeve(ManagerMessage::ProbeResult(5))),
        (
            "refused",
            to_sleeve(ManagerMessage::Refused(Refused { number: 6, check: check("policy-aid") })),
        ),
        (
            "lease-ended",
            to_sleeve(ManagerMessage::LeaseEnded(LeaseEnded {
                lease: 9,
                check: check("lease-expired"),
            })),
        ),
        ("ended", to_sleeve(ManagerMessage::Ended(check("sleeve-revoked")))),
        ("reset-done", to_sleeve(ManagerMessage::ResetDone(ResetDone { number: 7, atr: atr() }))),
    ]
}

pub(super) fn relay_messages() -> Named {
    let serial = |text| Serial::new(text).expect("short");
    let alarm_id = || AlarmId::new("alarm_0123456789").expect("short");
    let piece = |meeting| Piece {
        meeting,
        bytes: countersign_wallet::Bounded::new(&[1, 2, 3]).expect("short"),
    };
    let alarm = Alarm { id: alarm_id(), sleeve: serial("SLV-1"), session: 7, at: 1_760_000_000 };
    let close = |reason| Closed { meeting: 1, reason };
    let address = Address::new("gateway.example:4443").expect("short");
    vec![
        ("register", DeviceMessage::Register.encode()),
        ("meet", DeviceMessage::Meet(serial("MGR-1")).encode()),
        ("data-up", DeviceMessage::Data(piece(1)).encode()),
        ("credit-up", DeviceMessage::Credit(Credited { meeting: 1, bytes: 3 }).encode()),
        ("credit-none", vec![4, 0, 0, 0, 1, 0, 0, 0, 0]),
        ("close-up", DeviceMessage::Close(close(CloseReason::Done)).encode()),
        ("alarm", DeviceMessage::Alarm(alarm).encode()),
        ("registered", RelayMessage::Registered(WINDOW).encode()),
        ("met", RelayMessage::Met(Met { meeting: 1, peer: serial("SLV-1") }).encode()),
        ("data-down", RelayMessage::Data(piece(1)).encode()),
        ("data-empty", vec![0x83, 0, 0, 0, 1, 0, 0]),
        ("credit-down", RelayMessage::Credit(Credited { meeting: 1, bytes: WINDOW }).encode()),
        ("close-down", RelayMessage::Close(close(CloseReason::Busy)).encode()),
        ("elsewhere", RelayMessage::Elsewhere(address).encode()),
        ("refused", RelayMessage::refused("relay-unknown", 30).encode()),
        ("alarm-taken", RelayMessage::AlarmTaken(alarm_id()).encode()),
    ]
}

pub(super) fn wallet_rules() -> Named {
    let text = |which: u8, text: &str| [&[which], text.as_bytes()].concat();
    let limits = r#"{"currency":156,"max-amount":5000,"max-total":9000,"max-uses":3}"#;
    let listed = format!(
        r#"{{"aids":["A000000333010101"],"commands":["00 A4 04 *","80 CA"],"limits":{limits}}}"#
    );
    vec![
        ("emv", text(0, r#"{"aids":["A000000333"],"commands":"emv"}"#)),
        ("any", text(0, r#"{"aids":"any","commands":"any"}"#)),
        ("listed", text(0, &listed)),
        ("no-currency", text(0, r#"{"aids":[],"commands":[],"limits":{"max-amount":1}}"#)),
        ("choice", text(0, r#"{"aids":"some","commands":"emv"}"#)),
        ("pattern", text(1, "00 A4 04 *")),
        ("pattern-short", text(1, "80 CA")),
        ("pattern-long", text(1, "80 CA 9F 36 00")),
        ("pattern-lower", text(1, "* ae")),
        ("aid", text(2, "A000000333010101")),
        ("aid-short", text(2, "A0000003")),
        ("aid-odd", text(2, "A00000033")),
    ]
}

/// Objects, one in the other.
fn tlv(tag: u16, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    countersign_iso7816::tlv::write(&mut out, tag, value).expect("short");
    out
}

/// A command and the response to it.
fn exchange(command: &[u8], response: &[u8]) -> Vec<u8> {
    let framed = |kind: u8, bytes: &[u8]| {
        let len = u8::try_from(bytes.len()).expect("short");
        [&[kind, len], bytes].concat()
    };
    [framed(0, command), framed(2, response)].concat()
}

fn with_data(header: [u8; 4], data: &[u8]) -> Vec<u8> {
    let len = u8::try_from(data.len()).expect("short");
    [&header[..], &[len], data, &[0]].concat()
}

/// The application is selected; its PDOL asks for what `pdol` says.
fn select(pdol: &[u8]) -> Vec<u8> {
    let proprietary = if pdol.is_empty() { Vec::new() } else { tlv(0x9F38, pdol) };
    let inner = [tlv(0x84, AID), tlv(0xA5, &proprietary)].concat();
    let response = [&tlv(0x6F, &inner)[..], &[0x90, 0]].concat();
    exchange(&with_data([0, 0xA4, 4, 0], AID), &response)
}

const AMOUNT_AND_CURRENCY: [u8; 6] = [0x9F, 2, 6, 0x5F, 0x2A, 2];
/// 12.34 CNY.
const PRICE: [u8; 8] = [0, 0, 0, 0, 0x12, 0x34, 1, 0x56];

/// A payment: options, the record with the lists, two GENERATE ACs.
fn pay(first: u8, price: &[u8]) -> Vec<u8> {
    let lists = [tlv(0x8C, &AMOUNT_AND_CURRENCY), tlv(0x8D, &[0x8A, 2])].concat();
    let record = [&tlv(0x70, &lists)[..], &[0x90, 0]].concat();
    let cryptogram =
        |kind: u8| [&tlv(0x80, &[&[kind, 0, 7][..], &[9; 8]].concat())[..], &[0x90, 0]].concat();
    [
        exchange(&[0x80, 0xA8, 0, 0, 2, 0x83, 0, 0], &[0x80, 6, 0, 0, 8, 1, 1, 0, 0x90, 0]),
        exchange(&[0, 0xB2, 1, 0x0C, 0], &record),
        exchange(&with_data([0x80, 0xAE, first, 0], price), &cryptogram(first)),
        exchange(&with_data([0x80, 0xAE, 0x40, 0], b"00"), &cryptogram(0x40)),
    ]
    .concat()
}

pub(super) fn wallet_policy() -> Named {
    const ARQC: u8 = 0x80;
    let script = |setting: [u8; 4], steps: &[&[u8]]| [&setting[..], &steps.concat()].concat();
    let dollars = [&PRICE[..6], &[8, 0x40]].concat();
    let without_contact = exchange(
        &with_data([0x80, 0xA8, 0, 0], &tlv(0x83, &PRICE)),
        &[&tlv(0x77, &tlv(0x9F26, &[9; 8]))[..], &[0x90, 0]].concat(),
    );
    let in_parts = [
        exchange(&with_data([0, 0xA4, 4, 0], AID), &[0x61, 4]),
        exchange(&[0, 0xC0, 0, 0, 4], &[0x6F, 0, 0x90, 0]),
    ];
    let select_asking = select(&AMOUNT_AND_CURRENCY);
    let (select, paid) = (select(&[]), pay(ARQC, &PRICE));
    vec![
        ("pays", script([0x38, 20, 40, 3], &[&select, &paid, &paid, &paid, &paid])),
        ("no-limits", script([0, 0, 0, 0], &[&select, &paid])),
        ("too-much", script([0x08, 12, 0, 0], &[&select, &paid])),
        ("other-currency", script([0x08, 20, 0, 0], &[&select, &pay(ARQC, &dollars)])),
        ("declined", script([0x38, 20, 40, 1], &[&select, &pay(0, &PRICE), &paid])),
        ("alarm", script([0xFC, 20, 40, 4], &[&select, &paid, &paid])),
        ("any-command", script([0x23, 0, 0, 1], &[&exchange(&[0, 0x88, 0, 0], &[0x90, 0])])),
        ("days", script([0x20, 0, 0, 1], &[&select, &paid, &[4; 25], &paid])),
        ("sessions", script([0x20, 0, 0, 2], &[&select, &paid, &[3], &paid, &select, &paid])),
        ("reset", script([0, 0, 0, 0], &[&select, &[5], &paid])),
        ("not-selected", script([0, 0, 0, 0], &[&paid])),
        ("in-parts", script([0, 0, 0, 0], &[&in_parts.concat(), &paid])),
        ("without-contact", script([0x18, 20, 40, 0], &[&select_asking, &without_contact])),
        ("malformed", script([0, 0, 0, 0], &[&exchange(&[0, 0xA4, 4], &[0x90])])),
    ]
}

/// Setting (2), noes, turns before, how, edits.
pub(super) fn side() -> Named {
    let flip = |mode: u8, turn: u8, at: u16| {
        [&[mode, 0, 0, turn, 1, 1][..], &at.to_be_bytes(), &[3]].concat()
    };
    vec![
        ("a1-m1", vec![0, 0, 0, 0, 1]),
        ("a1-m2", vec![0, 0, 0, 1, 1]),
        ("a1-m3", vec![0, 0, 0, 2, 1]),
        ("a1-m4", vec![0, 0, 0, 3, 1]),
        ("a1-m2-flipped", flip(0, 1, 120)),
        ("a1-m3-flipped", flip(0, 2, 60)),
        ("a1-both-suites-sm2", vec![0x0C, 0x80, 0, 1, 1]),
        ("a1-user-says-no", vec![0, 0, 2, 1, 1]),
        ("a2-m0", vec![1, 0, 0, 0, 1]),
        ("a2-m1-flipped", flip(1, 1, 80)),
        ("a2-m2", vec![1, 0, 0, 2, 1]),
        ("a2-m2-flipped", flip(1, 2, 200)),
        ("a2-m3-in-pieces", vec![1, 0, 0, 3, 0x23]),
        ("a2-unknown", vec![1, 0, 16, 2, 1]),
        ("a3-m1", vec![2, 0, 0, 1, 1]),
        ("a3-m2-flipped-sm2", flip(6, 2, 240)),
        ("a3-m4", vec![2, 1, 0, 4, 1]),
        ("a3-record", vec![2, 1, 0, 5, 1]),
        ("raw-alert", [&[1, 0, 0, 1, 0][..], b"CS\x01\x04\x0f\0\0\x03\0\x14\0"].concat()),
        ("raw-noise", [&[0, 0, 0, 0, 0][..], b"GET / HTTP/1.1\r\n"].concat()),
    ]
}
