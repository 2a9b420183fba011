//! The words between a server and a SAM host.

use core::time::Duration;

use countersign_crypto::Secret;
use countersign_idcard::message::MessageError;
use countersign_idcard::sam::remote::{
    DRAINED_MAX, FromHost, HOST_MODULES_MAX, ModuleHealth, ModuleState, NoLease, REMOTE_LEN_MAX,
    REMOTE_TEXT_MAX, RemoteText, ToHost, VERSIONS_MAX,
};
use countersign_idcard::sam::{SamError, SamOperation, SamResult, Status, Sw3};
use countersign_idcard::{
    Configuration, ENCRYPTED_BASE_LEN, ENCRYPTED_LEN_MAX, EncryptedData, PlainData,
};
use proptest::prelude::*;

fn text(text: &str) -> RemoteText {
    RemoteText::new(text).expect("short")
}

fn plain(fingerprint: Option<usize>) -> PlainData {
    let secret = |len| Secret::new(vec![6; len]);
    PlainData::new(secret(256), secret(1024), fingerprint.map(secret)).expect("lengths fit")
}

fn encrypted(len: usize) -> SamOperation {
    SamOperation::Decrypt(EncryptedData::new(vec![7; len].into()).expect("a possible length"))
}

fn to_host() -> Vec<ToHost> {
    let longest = "x".repeat(REMOTE_TEXT_MAX);
    vec![
        ToHost::Hello(vec![1]),
        ToHost::Hello(vec![1; VERSIONS_MAX]),
        ToHost::Lease(Duration::from_millis(250)),
        ToHost::Operate(SamOperation::Begin { configuration: Configuration::new([2; 32]) }),
        ToHost::Operate(SamOperation::Answer { answer: [3; 8], random: [4; 8] }),
        ToHost::Operate(encrypted(ENCRYPTED_BASE_LEN)),
        ToHost::Operate(encrypted(ENCRYPTED_LEN_MAX)),
        ToHost::Operate(SamOperation::Cancel),
        ToHost::Operate(SamOperation::Status),
        ToHost::Release,
        ToHost::Ping(7),
        ToHost::Drained(vec![]),
        ToHost::Drained(vec![text(&longest); DRAINED_MAX]),
    ]
}

fn module(state: ModuleState) -> ModuleHealth {
    let longest = "x".repeat(REMOTE_TEXT_MAX);
    ModuleHealth { sam_id: text(&longest), port: text(&longest), state, failures: u32::MAX }
}

fn from_host() -> Vec<FromHost> {
    let done = |result| FromHost::Done(result);
    let plaintext = |finger, card_checked| {
        FromHost::Done(SamResult::Plaintext { data: plain(finger), card_checked })
    };
    let states = [
        ModuleState::Starting,
        ModuleState::Ready,
        ModuleState::Leased,
        ModuleState::Draining,
        ModuleState::Drained,
        ModuleState::Quarantined,
        ModuleState::Failed,
    ];
    vec![
        FromHost::Hello { version: 1, host: text("SAMHOST-1"), modules: 2 },
        FromHost::Leased(text("05.03-20260101-0000000001-0000000001")),
        FromHost::Unavailable(NoLease::NoneReady),
        FromHost::Unavailable(NoLease::Busy),
        done(SamResult::Challenge([1; 8])),
        done(SamResult::Proof([9; 8])),
        plaintext(None, false),
        plaintext(Some(1024), true),
        done(SamResult::Cancelled),
        done(SamResult::Healthy),
        FromHost::Failed(SamError::Gone),
        FromHost::Pong { number: 3, modules: states.map(module).to_vec() },
        FromHost::Pong { number: 3, modules: vec![module(ModuleState::Ready); HOST_MODULES_MAX] },
    ]
}

#[test]
fn every_message_has_one_encoding_and_no_prefix_of_it_is_a_message() {
    for message in to_host() {
        let bytes = message.encode();
        assert_eq!(ToHost::decode(&bytes), Ok(message));
        assert!(FromHost::decode(&bytes).is_err(), "of the other side");
        for len in 0..bytes.len() {
            assert!(ToHost::decode(&bytes[..len]).is_err(), "{len} of {}", bytes.len());
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(ToHost::decode(&longer).is_err(), "bytes follow");
    }
    for message in from_host() {
        let bytes = message.encode();
        let decoded = FromHost::decode(&bytes).expect("what was encoded");
        assert_eq!((decoded.name(), decoded.encode()), (message.name(), bytes.clone()));
        assert!(ToHost::decode(&bytes).is_err(), "of the other side");
        for len in 0..bytes.len() {
            assert!(FromHost::decode(&bytes[..len]).is_err(), "{len} of {}", bytes.len());
        }
        assert!(FromHost::decode(&[&bytes[..], &[0]].concat()).is_err(), "bytes follow");
    }
}

#[test]
fn impossible_fields_are_refused() {
    let too_many_ids = [&[0x0A, DRAINED_MAX as u8 + 1][..], &[0; DRAINED_MAX + 1]].concat();
    let long_text = [&[0x82, REMOTE_TEXT_MAX as u8 + 1][..], &[b'x'; REMOTE_TEXT_MAX + 1]].concat();
    let one_block = [&[0x05, 0, 16][..], &[0; 16]].concat();
    for (bytes, error) in [
        (&[0x0B][..], MessageError::UnknownType(0x0B)),
        (&[0x81][..], MessageError::UnknownType(0x81)),
        (&too_many_ids, MessageError::Malformed),
        (&one_block, MessageError::Malformed),
        (&vec![0x08; REMOTE_LEN_MAX + 1], MessageError::TooLong(REMOTE_LEN_MAX + 1)),
    ] {
        assert_eq!(ToHost::decode(bytes), Err(error));
    }
    for (bytes, error) in [
        (&[0x08][..], MessageError::UnknownType(0x08)),
        (&[0x83, 3][..], MessageError::UnknownType(3)),
        (&[0x81, 0, 1, 1, b'h', HOST_MODULES_MAX as u8 + 1], MessageError::Malformed),
        (&[0x82, 1, 0x07], MessageError::Malformed),
        (&long_text, MessageError::Malformed),
        (&[0x89, 10, 0, 0, 0, 0], MessageError::UnknownType(10)),
        (&[0x89, 1, 0xFF, 0, 0, 0], MessageError::Malformed),
        (&[0x89, 3, 1, 0xEE, 0, 0], MessageError::Malformed),
        (&[0x89, 6, 0, 1, 0, 0], MessageError::Malformed),
        (&[0x8A, 0, 0, 0, 1, HOST_MODULES_MAX as u8 + 1], MessageError::Malformed),
    ] {
        assert_eq!(FromHost::decode(bytes).err(), Some(error), "{bytes:?}");
    }
}

#[test]
fn every_failure_of_a_module_arrives_as_it_was() {
    let during = "read text, photo and fingerprint";
    let errors = [
        SamError::Timeout { during },
        SamError::Damaged { during: "card side", attempts: 300 },
        SamError::Card { during: "find", status: Sw3::NoCard },
        SamError::Unexpected { during: "reset", status: Status::Unknown([1, 2, 3]) },
        SamError::Unexpected { during: "sam id", status: Status::Known(Sw3::SamUnauthorised) },
        SamError::Malformed { during: "card number" },
        SamError::OtherCard,
        SamError::Gone,
        SamError::NotReady,
        SamError::Dead,
    ];
    for error in errors {
        let decoded = FromHost::decode(&FromHost::Failed(error).encode());
        assert!(matches!(decoded, Ok(FromHost::Failed(same)) if same == error), "{error:?}");
    }
    // A command that this version has no number for keeps its kind.
    let odd = SamError::Timeout { during: "something new" };
    let decoded = FromHost::decode(&FromHost::Failed(odd).encode());
    let expected = SamError::Timeout { during: "a command" };
    assert!(matches!(decoded, Ok(FromHost::Failed(error)) if error == expected));
}

#[test]
fn messages_print_no_card() {
    let printed = format!("{:?} {:?}", to_host(), from_host());
    assert!(!printed.contains("6, 6") && !printed.contains("7, 7") && !printed.contains("2, 2"));
}

proptest! {
    #[test]
    fn whatever_is_decoded_encodes_to_the_same(bytes in prop::collection::vec(any::<u8>(), 0..99)) {
        if let Ok(message) = ToHost::decode(&bytes) {
            prop_assert_eq!(&*message.encode(), &bytes);
        }
        if let Ok(message) = FromHost::decode(&bytes) {
            prop_assert_eq!(&*message.encode(), &bytes);
        }
    }
}
