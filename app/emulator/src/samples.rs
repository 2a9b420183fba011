use countersign_idcard::record::{
    Citizen, Date, DocumentType, Foreigner2017, Foreigner2023, IdRecord, Nation, ResidencePermit,
    Sex, ValidUntil, id_check_digit,
};

/// The four sample documents, one of each type. The persons are invented: region 000000 does not
/// exist, and the names say what they are.
#[must_use]
pub fn samples() -> [IdRecord; 4] {
    [
        sample(DocumentType::Citizen),
        sample(DocumentType::Foreigner2017),
        sample(DocumentType::Foreigner2023),
        sample(DocumentType::ResidencePermit),
    ]
}

/// The sample document of a type.
#[must_use]
pub fn sample(document_type: DocumentType) -> IdRecord {
    match document_type {
        DocumentType::Citizen => IdRecord::Citizen(Citizen {
            name: "样本甲".into(),
            sex: Sex::Female,
            nation: Nation::HAN,
            birth: date(2000, 2, 29),
            address: "虚构省样本市不存在路1号".into(),
            id_number: numbered("00000020000229002"),
            issuer: "虚构市公安局样本分局".into(),
            valid_from: date(2020, 1, 1),
            valid_until: ValidUntil::LongTerm,
        }),
        DocumentType::Foreigner2017 => IdRecord::Foreigner2017(Foreigner2017 {
            english_name: "SAMPLE, BERTA FICTIONAL".into(),
            sex: Sex::Female,
            number: "UTO000000010101".into(),
            country: "UTO".into(),
            chinese_name: "样本乙".into(),
            valid_from: date(2018, 6, 1),
            valid_until: date(2028, 5, 31),
            birth: date(2000, 1, 1),
            version: "01".into(),
            authority: "0000".into(),
        }),
        DocumentType::Foreigner2023 => IdRecord::Foreigner2023(Foreigner2023 {
            chinese_name: "样本丙".into(),
            // Longer than 35 characters: it continues in the second part.
            english_name: "SAMPLE, CAESAR FICTIONAL NOT A PERSON REALLY".into(),
            sex: Sex::Male,
            renewal_count: 1,
            birth: date(1999, 12, 31),
            id_number: numbered("90000019991231001"),
            country: "UTO".into(),
            valid_from: date(2024, 1, 1),
            valid_until: date(2033, 12, 31),
            old_number_link: String::new(),
        }),
        DocumentType::ResidencePermit => IdRecord::ResidencePermit(ResidencePermit {
            name: "样本丁".into(),
            sex: Sex::Male,
            birth: date(1980, 10, 1),
            address: "虚构省样本市不存在路2号".into(),
            id_number: numbered("81000019801001001"),
            issuer: "虚构市公安局样本分局".into(),
            valid_from: date(2022, 3, 1),
            valid_until: ValidUntil::Date(date(2027, 2, 28)),
            pass_number: "H00000000".into(),
            issue_count: 2,
        }),
    }
}

fn date(year: u16, month: u8, day: u8) -> Date {
    Date::new(year, month, day).expect("a constant, tested")
}

/// 17 digits and their check digit.
fn numbered(digits: &str) -> String {
    let check = id_check_digit(digits).expect("a constant, tested");
    format!("{digits}{check}")
}
