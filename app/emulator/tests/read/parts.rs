//! The emulated parts on their own: samples, card files, and a module fed with noise.

use countersign_emulator::{CardFileError, CardImage, EmulatedSam, Faults, Reply, load_card};
use countersign_emulator::{parse_card, samples};
use countersign_idcard::record::IdRecord;
use countersign_idcard::sam::frame::{Decoder, Item};
use countersign_idcard::sam::{Command, Response, Status, Sw3};
use countersign_idcard::{Configuration, ENCRYPTED_BASE_LEN};
use proptest::prelude::*;

use crate::world::{rng, scheme};

fn file(alter: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let mut json = serde_json::json!({ "serial": 77, "document": samples()[0] });
    alter(&mut json);
    serde_json::to_vec(&json).expect("serialises")
}

fn parse(json: &[u8]) -> Result<CardImage, CardFileError> {
    parse_card(&scheme(), &mut rng(1), json)
}

#[test]
fn samples_are_valid_and_invented() {
    for record in samples() {
        assert!(record.encode().is_ok(), "{record:?}");
        assert!(record.name().contains("样本"));
        let number = record.id_number();
        // Region 000000 and country UTO do not exist; sequence numbers start with 00.
        assert!(number.contains("000000") || number.contains("0000"), "{number}");
    }
}

#[test]
fn a_card_file_makes_a_card() {
    let card = parse(&file(|_| {})).expect("valid");
    assert_eq!(card.configuration().as_bytes()[8..16], 77_u64.to_be_bytes());
    let with_photo = |json: &mut serde_json::Value| {
        json["photo"] = "aB".repeat(1024).into();
        json["fingerprint"] = "00".repeat(512).into();
    };
    parse(&file(with_photo)).expect("valid");

    // The example that users start from.
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cards/citizen.json");
    load_card(&scheme(), &mut rng(1), &example).expect("the example is valid");

    let path = std::env::temp_dir().join(format!("countersign-card-{}.json", std::process::id()));
    std::fs::write(&path, file(|_| {})).expect("writes");
    let loaded = load_card(&scheme(), &mut rng(1), &path);
    std::fs::remove_file(&path).expect("removes");
    assert_eq!(loaded.expect("valid").configuration(), card.configuration());
    let missing = load_card(&scheme(), &mut rng(1), &path);
    assert!(matches!(missing, Err(CardFileError::Io(_))));
}

#[test]
fn bad_card_files_are_refused_with_the_reason() {
    type Alter = fn(&mut serde_json::Value);
    let json: [Alter; 4] = [
        |json| json["surprise"] = 1.into(),
        |json| json["serial"] = "x".into(),
        |json| json["document"]["birth"] = "2001-02-29".into(),
        |json| json["document"]["documentType"] = "passport".into(),
    ];
    for alter in json {
        assert!(matches!(parse(&file(alter)), Err(CardFileError::Json(_))));
    }
    let hex: [(Alter, &str); 3] = [
        (|json| json["photo"] = "00".into(), "photo"),
        (|json| json["photo"] = "0".repeat(2047).into(), "photo"),
        (|json| json["fingerprint"] = "zz".repeat(512).into(), "fingerprint"),
    ];
    for (alter, field) in hex {
        assert!(matches!(parse(&file(alter)), Err(CardFileError::Hex(name)) if name == field));
    }
    let card: [(Alter, &str); 3] = [
        (
            |json| json["document"]["idNumber"] = "000000200002290021".into(),
            "the document's id number has a wrong check digit",
        ),
        (|json| json["document"]["name"] = "".into(), "the document's name is blank"),
        (|json| json["fingerprint"] = "00".into(), "the card's fingerprint has 1 bytes"),
    ];
    for (alter, message) in card {
        let error = parse(&file(alter)).expect_err("refused");
        assert_eq!(error.to_string(), message);
    }
    assert!(matches!(parse(b"not json"), Err(CardFileError::Json(_))));
}

/// Sends one command and takes the answer's status.
fn ask(sam: &mut EmulatedSam, command: &Command) -> Status {
    let replies = sam.handle(&mut rng(1), &command.to_frame());
    let [Reply::Bytes(frame)] = replies.as_slice() else { panic!("{replies:?}") };
    let Some(Item::Frame(body)) = Decoder::new().next(&mut frame.as_slice()) else {
        panic!("no frame");
    };
    Response::parse(&body).expect("a response").status
}

#[test]
fn the_module_insists_on_the_order_of_its_commands() {
    let mut sam = EmulatedSam::new(scheme(), 1, Faults::none());
    let remote = Command::RemoteCard(Configuration::new([1; 32]));
    let chunk =
        |index, total, len| Command::EncryptedData { index, total, chunk: vec![0; len].into() };
    let status = |sam: &mut EmulatedSam, command: &Command| match ask(sam, command) {
        Status::Known(status) => status,
        status => panic!("{status:?}"),
    };
    assert_eq!(status(&mut sam, &Command::Find), Sw3::NoCard);
    assert_eq!(status(&mut sam, &Command::Select), Sw3::SelectFailed);
    assert_eq!(status(&mut sam, &Command::ReadTextPhoto), Sw3::NotPermitted);
    assert_eq!(status(&mut sam, &remote), Sw3::Ok);
    assert_eq!(status(&mut sam, &Command::Select), Sw3::SelectFailed);
    assert_eq!(status(&mut sam, &Command::Find), Sw3::CardFound);
    assert_eq!(status(&mut sam, &chunk(0, 2, 1024)), Sw3::NotPermitted);
    assert_eq!(status(&mut sam, &Command::Select), Sw3::Ok);
    assert_eq!(status(&mut sam, &Command::ReadTextPhoto), Sw3::ReadFailed);
    assert_eq!(status(&mut sam, &chunk(1, 2, 470)), Sw3::ReadFailed);
    assert_eq!(status(&mut sam, &chunk(255, 255, 470)), Sw3::ReadFailed);
    assert_eq!(status(&mut sam, &remote), Sw3::Ok);
    assert_eq!(status(&mut sam, &Command::Find), Sw3::CardFound);
    assert_eq!(status(&mut sam, &Command::Select), Sw3::Ok);
    assert_eq!(status(&mut sam, &chunk(0, 2, 10)), Sw3::ReadFailed);
    assert_eq!(status(&mut sam, &Command::Reset), Sw3::Ok);
    assert_eq!(status(&mut sam, &Command::Find), Sw3::NoCard);
}

#[test]
fn a_read_forgets_the_card() {
    let card = parse(&file(|_| {})).expect("valid");
    let plain = countersign_idcard::PlainData::new(
        countersign_crypto::Secret::copied_from(samples()[0].encode().expect("valid").as_slice()),
        countersign_crypto::Secret::new(vec![0; 1024]),
        None,
    )
    .expect("lengths fit");
    let data = scheme().encrypt(&mut rng(2), card.configuration(), &plain).expect("encrypts");
    let mut sam = EmulatedSam::new(scheme(), 1, Faults::none());
    let begin = Command::RemoteCard(card.configuration().clone());
    for command in [begin, Command::Find, Command::Select] {
        ask(&mut sam, &command);
    }
    let (first, second) = data.as_bytes().split_at(1024);
    for (index, chunk) in [(0, first), (1, second)] {
        let command = Command::EncryptedData { index, total: 2, chunk: chunk.to_vec().into() };
        // Twice: our answer to the first may have been damaged.
        assert_eq!(ask(&mut sam, &command), Sw3::Ok.into());
        assert_eq!(ask(&mut sam, &command), Sw3::Ok.into());
    }
    assert_eq!(data.as_bytes().len(), ENCRYPTED_BASE_LEN);
    assert_eq!(ask(&mut sam, &Command::ReadTextPhoto), Sw3::Ok.into());
    assert_eq!(ask(&mut sam, &Command::ReadTextPhoto), Sw3::NotPermitted.into());
    assert_eq!(ask(&mut sam, &Command::Find), Sw3::NoCard.into());
    assert!(IdRecord::decode(plain.text()).is_ok());
}

proptest! {
    #[test]
    fn the_module_never_panics_and_answers_only_frames(
        bodies in prop::collection::vec(
            (
                prop_oneof![Just([0xE0, 1]), Just([0xE0, 2]), Just([0xE0, 3]), Just([0x20, 1]),
                    Just([0x20, 2]), Just([0x30, 1]), any::<[u8; 2]>()],
                prop::collection::vec(any::<u8>(), 0..40),
            ),
            0..20,
        ),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut sam = EmulatedSam::new(scheme(), 1, Faults::none());
        let mut replies = sam.handle(&mut rng(1), &noise);
        for (code, data) in bodies {
            let frame = countersign_idcard::sam::frame::encode(&[&code, &data]).expect("fits");
            replies.extend(sam.handle(&mut rng(1), &frame));
        }
        for reply in replies {
            let Reply::Bytes(frame) = reply else { panic!("no fault was injected") };
            let item = Decoder::new().next(&mut frame.as_slice());
            prop_assert!(matches!(item, Some(Item::Frame(_))));
        }
    }
}
