use countersign_idcard::TEXT_LEN;
use countersign_idcard::record::layout::{
    FLAG, Field, citizen, foreigner_2017, foreigner_2023, permit,
};
use countersign_idcard::record::{
    Citizen, Date, DocumentType, Foreigner2017, Foreigner2023, IdRecord, Nation, Photo, Problem,
    RecordError, ResidencePermit, Sex, ValidUntil, id_check_digit, id_number_is_valid,
};
use proptest::prelude::*;

fn date(year: u16, month: u8, day: u8) -> Date {
    Date::new(year, month, day).expect("a real date")
}

fn citizen_card() -> Citizen {
    Citizen {
        name: "样本甲".into(),
        sex: Sex::Male,
        nation: Nation::from_code(56).expect("known"),
        birth: date(1949, 12, 31),
        address: "虚构省样本市不存在路1号".into(),
        id_number: "11010519491231002X".into(),
        issuer: "虚构市公安局".into(),
        valid_from: date(2020, 2, 29),
        valid_until: ValidUntil::LongTerm,
    }
}

fn all() -> [IdRecord; 4] {
    let card = citizen_card();
    [
        IdRecord::Citizen(card.clone()),
        IdRecord::ResidencePermit(ResidencePermit {
            name: card.name.clone(),
            sex: Sex::Unstated,
            birth: card.birth,
            address: card.address.clone(),
            id_number: numbered("83000019491231002"),
            issuer: card.issuer.clone(),
            valid_from: card.valid_from,
            valid_until: ValidUntil::Date(date(2025, 2, 28)),
            pass_number: "00000000".into(),
            issue_count: 99,
        }),
        IdRecord::Foreigner2017(Foreigner2017 {
            english_name: "A".repeat(60),
            sex: Sex::Female,
            number: "UTO000000000001".into(),
            country: "UTO".into(),
            chinese_name: String::new(),
            valid_from: card.valid_from,
            valid_until: date(2030, 2, 28),
            birth: card.birth,
            version: "01".into(),
            authority: "1500".into(),
        }),
        IdRecord::Foreigner2023(Foreigner2023 {
            chinese_name: String::new(),
            // A space stands exactly at the cut after 35 characters.
            english_name: format!("{} {}", "B".repeat(34), "C".repeat(11)),
            sex: Sex::Unknown,
            renewal_count: 0,
            birth: card.birth,
            id_number: numbered("90000019491231002"),
            country: "UTO".into(),
            valid_from: card.valid_from,
            valid_until: date(2030, 2, 28),
            old_number_link: "001".into(),
        }),
    ]
}

fn numbered(digits: &str) -> String {
    format!("{digits}{}", id_check_digit(digits).expect("17 digits"))
}

fn encoded(record: &IdRecord) -> [u8; TEXT_LEN] {
    *record.encode().expect("valid")
}

/// Overwrites a field with `text`, padded.
fn put(bytes: &mut [u8; TEXT_LEN], field: Field, text: &str) {
    let units = text.encode_utf16().chain(std::iter::repeat(0x20)).take(field.len / 2);
    for (at, unit) in units.enumerate() {
        let at = field.offset + at * 2;
        bytes[at..at + 2].copy_from_slice(&unit.to_le_bytes());
    }
}

fn problem(record: &IdRecord, field: Field, text: &str) -> Option<Problem> {
    let mut bytes = encoded(record);
    put(&mut bytes, field, text);
    match IdRecord::decode(&bytes) {
        Ok(_) => None,
        Err(RecordError { field: name, problem }) => {
            assert_eq!(name, field.name);
            Some(problem)
        }
    }
}

#[test]
fn all_four_documents_round_trip() {
    let types = [
        DocumentType::Citizen,
        DocumentType::ResidencePermit,
        DocumentType::Foreigner2017,
        DocumentType::Foreigner2023,
    ];
    for (record, document_type) in all().into_iter().zip(types) {
        let bytes = encoded(&record);
        assert_eq!(DocumentType::of(&bytes), Some(document_type));
        assert_eq!(record.document_type(), document_type);
        assert!(IdRecord::decode(&bytes) == Ok(record));
    }
}

/// Written out by hand from the layout table, not by our encoder.
#[test]
fn a_citizen_record_lies_where_the_table_says() {
    let text = [
        ("样本甲", 15),
        ("1", 1),
        ("56", 2),
        ("19491231", 8),
        ("虚构省样本市不存在路1号", 35),
        ("11010519491231002X", 18),
        ("虚构市公安局", 15),
        ("20200229", 8),
        ("长期", 8),
        ("", 18),
    ];
    let mut units: Vec<u16> = Vec::new();
    for (text, len) in text {
        units.extend(text.encode_utf16().chain(std::iter::repeat(0x20)).take(len));
    }
    let bytes: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    let bytes: [u8; TEXT_LEN] = bytes.try_into().expect("the table sums to 256");
    assert!(IdRecord::decode(&bytes) == Ok(IdRecord::Citizen(citizen_card())));
    assert_eq!(encoded(&IdRecord::Citizen(citizen_card())), bytes);
}

#[test]
fn dates_are_calendar_dates() {
    let [citizen, permit, foreigner, _] = all();
    for good in ["20000229", "20240229", "99991231", "00010101"] {
        assert_eq!(problem(&citizen, citizen::BIRTH, good), None, "{good}");
    }
    for bad in [
        "19000229", "20230229", "20240431", "20241301", "20240100", "00000101", "2024010", "",
        "+2240101", "长期",
    ] {
        assert_eq!(problem(&citizen, citizen::BIRTH, bad), Some(Problem::Date), "{bad}");
    }
    assert_eq!(problem(&citizen, citizen::VALID_UNTIL, "长期"), None);
    assert_eq!(problem(&permit, citizen::VALID_UNTIL, "长期"), None);
    assert_eq!(problem(&citizen, citizen::VALID_FROM, "长期"), Some(Problem::Date));
    let until = foreigner_2017::VALID_UNTIL;
    assert_eq!(problem(&foreigner, until, "长期"), Some(Problem::Date));
}

#[test]
fn the_check_digit_is_verified() {
    assert!(id_number_is_valid("11010519491231002X"));
    assert!(!id_number_is_valid("110105194912310021"));
    assert!(!id_number_is_valid("11010519491231002x"));
    assert_eq!(id_check_digit("1101051949123100"), None);
    let [citizen, permit, _, foreigner] = all();
    let number = citizen::ID_NUMBER;
    // Any single digit changed, and any two different neighbours swapped, is noticed.
    let good = "11010519491231002X";
    for at in 0..17 {
        let mut digits = good.as_bytes().to_vec();
        digits[at] = if digits[at] == b'9' { b'0' } else { digits[at] + 1 };
        let bad = String::from_utf8(digits).expect("ascii");
        assert_eq!(problem(&citizen, number, &bad), Some(Problem::CheckDigit), "{bad}");
        let mut digits = good.as_bytes().to_vec();
        if at < 16 && digits[at] != digits[at + 1] {
            digits.swap(at, at + 1);
            let bad = String::from_utf8(digits).expect("ascii");
            assert_eq!(problem(&citizen, number, &bad), Some(Problem::CheckDigit), "{bad}");
        }
    }
    for bad in
        ["", "1101051949123100", "11010519491231002Y", "1101051949123100X2", "一1010519491231002X"]
    {
        assert_eq!(problem(&citizen, number, bad), Some(Problem::Form), "{bad}");
    }
    // The documents' own beginnings.
    assert_eq!(problem(&permit, number, good), Some(Problem::Form));
    assert_eq!(problem(&foreigner, number, good), Some(Problem::Form));
    for region in ["810000", "820000", "830000"] {
        let number_there = numbered(&format!("{region}19491231002"));
        assert_eq!(problem(&permit, number, &number_there), None);
    }
}

#[test]
fn codes_outside_their_tables_are_refused() {
    let [citizen, permit, foreigner, foreigner_new] = all();
    for code in ["0", "1", "2", "9"] {
        assert_eq!(problem(&citizen, citizen::SEX, code), None);
    }
    for code in ["3", "8", "", "男"] {
        assert_eq!(problem(&citizen, citizen::SEX, code), Some(Problem::Code));
    }
    for code in ["01", "56", "97", "98"] {
        assert_eq!(problem(&citizen, citizen::NATION, code), None);
    }
    for code in ["00", "57", "96", "99", "1", "汉", "+1"] {
        assert_eq!(problem(&citizen, citizen::NATION, code), Some(Problem::Code), "{code}");
    }
    for code in ["K", "i", "中", "\u{0}"] {
        assert_eq!(problem(&citizen, FLAG, code), Some(Problem::Code));
    }
    assert_eq!(problem(&permit, permit::ISSUE_COUNT, "x1"), Some(Problem::Code));
    assert_eq!(problem(&permit, permit::PASS_NUMBER, "H-1"), Some(Problem::Form));
    assert_eq!(problem(&foreigner_new, foreigner_2023::COUNTRY, "xx"), Some(Problem::Form));
    // 15 characters, no check digit that anybody published.
    let number = foreigner_2017::NUMBER;
    assert_eq!(problem(&foreigner, number, "ABC123456789012"), None);
    for bad in ["ABC12345678901", "abc123456789012", "ABC 23456789012", ""] {
        assert_eq!(problem(&foreigner, number, bad), Some(Problem::Form), "{bad}");
    }
}

#[test]
fn text_must_be_valid_utf16_and_not_blank() {
    let [citizen, ..] = all();
    assert_eq!(problem(&citizen, citizen::NAME, ""), Some(Problem::Blank));
    assert_eq!(problem(&citizen, citizen::NAME, "\u{0}"), Some(Problem::Encoding));
    // A surrogate pair is a character (rare names have them); half of one is not.
    assert_eq!(problem(&citizen, citizen::NAME, "\u{20BB7}"), None);
    for lone in [0xD842_u16, 0xDFB7] {
        let mut bytes = encoded(&citizen);
        bytes[..2].copy_from_slice(&lone.to_le_bytes());
        let expected = RecordError { field: "name", problem: Problem::Encoding };
        assert_eq!(IdRecord::decode(&bytes).err(), Some(expected));
    }
}

#[test]
fn the_encoder_refuses_what_does_not_fit() {
    let mut card = citizen_card();
    card.name = "甲".repeat(16);
    let error = IdRecord::Citizen(card).encode().err();
    assert_eq!(error, Some(RecordError { field: "name", problem: Problem::TooLong }));
    let mut card = citizen_card();
    card.id_number = "110105194912310021".into();
    let error = IdRecord::Citizen(card).encode().err();
    assert_eq!(error, Some(RecordError { field: "id number", problem: Problem::CheckDigit }));
    // Trailing spaces would be lost.
    let mut card = citizen_card();
    card.name.push(' ');
    assert!(IdRecord::Citizen(card).encode().is_err());
}

#[test]
fn nothing_personal_is_printed() {
    for record in all() {
        let mut printed = format!("{record:?}");
        match &record {
            IdRecord::Citizen(card) => printed += &format!("{card:?} {:?}", card.nation),
            IdRecord::ResidencePermit(card) => printed += &format!("{card:?} {:?}", card.birth),
            IdRecord::Foreigner2017(card) => printed += &format!("{card:?}"),
            IdRecord::Foreigner2023(card) => printed += &format!("{card:?}"),
        }
        for personal in [record.name(), record.id_number(), "1949"] {
            assert!(!printed.contains(personal), "{printed}");
        }
    }
    let error = RecordError { field: "id number", problem: Problem::CheckDigit };
    assert_eq!(error.to_string(), "id number has a wrong check digit");
}

#[test]
fn a_photo_has_its_size() {
    assert!(Photo::new(vec![0; 38_556]).is_some());
    assert!(Photo::new(vec![0; 38_555]).is_none());
}

#[cfg(feature = "serde")]
#[test]
fn json_is_camel_case_and_round_trips() {
    for record in all() {
        let json = serde_json::to_value(&record).expect("serialises");
        assert_eq!(json["documentType"], record.document_type().name());
        let again: IdRecord = serde_json::from_value(json).expect("reads back");
        assert!(again == record);
    }
    let json = serde_json::to_value(IdRecord::Citizen(citizen_card())).expect("serialises");
    assert_eq!(json["idNumber"], "11010519491231002X");
    assert_eq!(json["birth"], "1949-12-31");
    assert_eq!(json["sex"], "male");
    assert_eq!(json["nation"], serde_json::json!({"code": "56", "name": "基诺"}));
    assert_eq!(json["validUntil"], "longTerm");
    for (field, bad) in [
        ("birth", "1949-02-30"),
        ("birth", "194912-31-"),
        ("sex", "man"),
        ("validUntil", "forever"),
    ] {
        let mut altered = json.clone();
        altered[field] = bad.into();
        assert!(serde_json::from_value::<IdRecord>(altered).is_err(), "{bad}");
    }
    let mut altered = json.clone();
    altered["nation"]["name"] = "汉".into();
    assert!(serde_json::from_value::<IdRecord>(altered).is_err());
    let mut altered = json;
    altered["surprise"] = 1.into();
    assert!(serde_json::from_value::<IdRecord>(altered).is_err());
}

fn flags() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0x20_u16), Just(0x49), Just(0x59), Just(0x4A), any::<u16>()]
}

proptest! {
    /// Arbitrary bytes never panic, and what decodes, encodes to something that decodes alike.
    #[test]
    fn decoding_is_total(bytes in prop::collection::vec(any::<u8>(), TEXT_LEN), flag in flags()) {
        let mut bytes: [u8; TEXT_LEN] = bytes.try_into().expect("the length is fixed");
        bytes[248..250].copy_from_slice(&flag.to_le_bytes());
        let _either = IdRecord::decode(&bytes);
    }

    /// A valid record with a few units altered: an error or a record that round-trips.
    #[test]
    fn altered_records_are_refused_or_round_trip(
        which in 0_usize..4,
        alterations in prop::collection::vec((0_usize..128, 0x20_u16..0x60), 1..4),
    ) {
        let mut bytes = encoded(&all()[which]);
        for (unit, value) in alterations {
            bytes[unit * 2..unit * 2 + 2].copy_from_slice(&value.to_le_bytes());
        }
        if let Ok(record) = IdRecord::decode(&bytes) {
            prop_assert!(IdRecord::decode(&encoded(&record)) == Ok(record));
        }
    }
}
