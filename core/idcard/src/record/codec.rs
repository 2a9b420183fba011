use alloc::string::String;
use core::mem;

use zeroize::Zeroizing;

use super::date::LONG_TERM;
use super::layout::{FLAG, Field, citizen, foreigner_2017, foreigner_2023, permit};
use super::{
    Citizen, Date, DocumentType, Foreigner2017, Foreigner2023, ID_NUMBER_LEN, IdRecord, Nation,
    Problem, RecordError, ResidencePermit, Sex, ValidUntil, id_number_is_valid,
};
use crate::TEXT_LEN;

/// What numbers of `J` begin with: Hong Kong, Macau, Taiwan.
const PERMIT_REGIONS: [&str; 3] = ["810000", "820000", "830000"];
const FOREIGNER_2017_NUMBER_LEN: usize = 15;

pub(super) fn decode(text: &[u8; TEXT_LEN]) -> Result<IdRecord, RecordError> {
    let reader = Reader(text);
    match DocumentType::of(text).ok_or(wrong(FLAG, Problem::Code))? {
        DocumentType::Citizen => reader.citizen().map(IdRecord::Citizen),
        DocumentType::ResidencePermit => reader.permit().map(IdRecord::ResidencePermit),
        DocumentType::Foreigner2017 => reader.foreigner_2017().map(IdRecord::Foreigner2017),
        DocumentType::Foreigner2023 => reader.foreigner_2023().map(IdRecord::Foreigner2023),
    }
}

pub(super) fn encode(record: &IdRecord) -> Result<Zeroizing<[u8; TEXT_LEN]>, RecordError> {
    let mut writer = Writer(Zeroizing::new([0; TEXT_LEN]));
    for unit in writer.0.chunks_exact_mut(2) {
        unit.copy_from_slice(&0x0020_u16.to_le_bytes());
    }
    writer.text(FLAG, record.document_type().flag())?;
    match record {
        IdRecord::Citizen(card) => writer.citizen(card)?,
        IdRecord::ResidencePermit(card) => writer.permit(card)?,
        IdRecord::Foreigner2017(card) => writer.foreigner_2017(card)?,
        IdRecord::Foreigner2023(card) => writer.foreigner_2023(card)?,
    }
    // The decoder's checks are the only ones: what it would refuse or change is not written.
    match decode(&writer.0) {
        Ok(again) if again == *record => Ok(writer.0),
        Ok(_) => Err(RecordError { field: "record", problem: Problem::Form }),
        Err(error) => Err(error),
    }
}

const fn wrong(field: Field, problem: Problem) -> RecordError {
    RecordError { field: field.name, problem }
}

struct Reader<'a>(&'a [u8; TEXT_LEN]);

impl Reader<'_> {
    fn citizen(&self) -> Result<Citizen, RecordError> {
        Ok(Citizen {
            name: self.filled(citizen::NAME)?,
            sex: self.sex(citizen::SEX)?,
            nation: self.nation(citizen::NATION)?,
            birth: self.date(citizen::BIRTH)?,
            address: self.filled(citizen::ADDRESS)?,
            id_number: self.id_number(citizen::ID_NUMBER, |_| true)?,
            issuer: self.filled(citizen::ISSUER)?,
            valid_from: self.date(citizen::VALID_FROM)?,
            valid_until: self.valid_until(citizen::VALID_UNTIL)?,
        })
    }

    fn permit(&self) -> Result<ResidencePermit, RecordError> {
        let region = |number: &str| PERMIT_REGIONS.iter().any(|region| number.starts_with(region));
        Ok(ResidencePermit {
            name: self.filled(citizen::NAME)?,
            sex: self.sex(citizen::SEX)?,
            birth: self.date(citizen::BIRTH)?,
            address: self.filled(citizen::ADDRESS)?,
            id_number: self.id_number(citizen::ID_NUMBER, region)?,
            issuer: self.filled(citizen::ISSUER)?,
            valid_from: self.date(citizen::VALID_FROM)?,
            valid_until: self.valid_until(citizen::VALID_UNTIL)?,
            pass_number: self.matching(permit::PASS_NUMBER, |text| {
                text.bytes().all(|byte| byte.is_ascii_alphanumeric())
            })?,
            issue_count: self.count(permit::ISSUE_COUNT)?,
        })
    }

    fn foreigner_2017(&self) -> Result<Foreigner2017, RecordError> {
        let number = |text: &str| {
            text.len() == FOREIGNER_2017_NUMBER_LEN
                && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
        };
        Ok(Foreigner2017 {
            english_name: self.filled(foreigner_2017::ENGLISH_NAME)?,
            sex: self.sex(foreigner_2017::SEX)?,
            number: self.matching(foreigner_2017::NUMBER, number)?,
            country: self.country(foreigner_2017::COUNTRY)?,
            chinese_name: self.text(foreigner_2017::CHINESE_NAME)?,
            valid_from: self.date(foreigner_2017::VALID_FROM)?,
            valid_until: self.date(foreigner_2017::VALID_UNTIL)?,
            birth: self.date(foreigner_2017::BIRTH)?,
            version: self.text(foreigner_2017::VERSION)?,
            authority: self.text(foreigner_2017::AUTHORITY)?,
        })
    }

    fn foreigner_2023(&self) -> Result<Foreigner2023, RecordError> {
        // The two parts are one text cut at a fixed place, so a space may stand at the cut.
        let (first, second) =
            (self.raw(foreigner_2023::ENGLISH_NAME_1)?, self.raw(foreigner_2023::ENGLISH_NAME_2)?);
        let mut english_name = Zeroizing::new(String::with_capacity(first.len() + second.len()));
        english_name.push_str(&first);
        english_name.push_str(&second);
        if english_name.trim_matches(' ').is_empty() {
            return Err(wrong(foreigner_2023::ENGLISH_NAME_1, Problem::Blank));
        }
        Ok(Foreigner2023 {
            chinese_name: self.text(foreigner_2023::CHINESE_NAME)?,
            english_name: english_name.trim_end_matches(' ').into(),
            sex: self.sex(citizen::SEX)?,
            renewal_count: self.count(foreigner_2023::RENEWAL_COUNT)?,
            birth: self.date(citizen::BIRTH)?,
            id_number: self.id_number(citizen::ID_NUMBER, |number| number.starts_with('9'))?,
            country: self.country(foreigner_2023::COUNTRY)?,
            valid_from: self.date(citizen::VALID_FROM)?,
            valid_until: self.date(citizen::VALID_UNTIL)?,
            old_number_link: self.text(foreigner_2023::OLD_NUMBER_LINK)?,
        })
    }

    /// The field with its padding.
    fn raw(&self, field: Field) -> Result<Zeroizing<String>, RecordError> {
        let bytes = &self.0[field.offset..field.offset + field.len];
        let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
        // One unit is at most three bytes of UTF-8; no growing, which would leave copies.
        let mut text = Zeroizing::new(String::with_capacity(field.len / 2 * 3));
        for character in char::decode_utf16(units) {
            match character {
                Ok(character) if !character.is_control() => text.push(character),
                _ => return Err(wrong(field, Problem::Encoding)),
            }
        }
        Ok(text)
    }

    /// The field without its padding; may be blank.
    fn trimmed(&self, field: Field) -> Result<Zeroizing<String>, RecordError> {
        let mut text = self.raw(field)?;
        let len = text.trim_end_matches(' ').len();
        text.truncate(len);
        Ok(text)
    }

    /// A field that must satisfy `fits`, else it has this problem.
    fn checked(
        &self,
        field: Field,
        problem: Problem,
        fits: impl Fn(&str) -> bool,
    ) -> Result<String, RecordError> {
        let mut text = self.trimmed(field)?;
        if fits(&text) { Ok(mem::take(&mut *text)) } else { Err(wrong(field, problem)) }
    }

    fn text(&self, field: Field) -> Result<String, RecordError> {
        self.checked(field, Problem::Form, |_| true)
    }

    fn filled(&self, field: Field) -> Result<String, RecordError> {
        self.checked(field, Problem::Blank, |text| !text.trim().is_empty())
    }

    fn matching(&self, field: Field, fits: impl Fn(&str) -> bool) -> Result<String, RecordError> {
        self.checked(field, Problem::Form, fits)
    }

    fn country(&self, field: Field) -> Result<String, RecordError> {
        self.matching(field, |text| {
            text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase())
        })
    }

    /// GB 11643. Whether the date inside is the holder's birth date is not compared: it is the
    /// issuer's affair, and rare cards differ.
    fn id_number(&self, field: Field, fits: impl Fn(&str) -> bool) -> Result<String, RecordError> {
        let has_form = |number: &str| match number.as_bytes() {
            [digits @ .., b'0'..=b'9' | b'X'] => {
                digits.len() + 1 == ID_NUMBER_LEN
                    && digits.iter().all(u8::is_ascii_digit)
                    && fits(number)
            }
            _ => false,
        };
        let mut number = self.trimmed(field)?;
        if !has_form(&number) {
            Err(wrong(field, Problem::Form))
        } else if !id_number_is_valid(&number) {
            Err(wrong(field, Problem::CheckDigit))
        } else {
            Ok(mem::take(&mut *number))
        }
    }

    fn sex(&self, field: Field) -> Result<Sex, RecordError> {
        match self.trimmed(field)?.as_str() {
            "0" => Ok(Sex::Unknown),
            "1" => Ok(Sex::Male),
            "2" => Ok(Sex::Female),
            "9" => Ok(Sex::Unstated),
            _ => Err(wrong(field, Problem::Code)),
        }
    }

    fn nation(&self, field: Field) -> Result<Nation, RecordError> {
        self.two_digits(field)
            .and_then(|code| Nation::from_code(code).ok_or(wrong(field, Problem::Code)))
    }

    fn count(&self, field: Field) -> Result<u8, RecordError> {
        self.two_digits(field)
    }

    fn two_digits(&self, field: Field) -> Result<u8, RecordError> {
        let text = self.trimmed(field)?;
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| digits).ok_or(wrong(field, Problem::Code))
    }

    fn date(&self, field: Field) -> Result<Date, RecordError> {
        Date::from_digits(&self.trimmed(field)?).ok_or(wrong(field, Problem::Date))
    }

    fn valid_until(&self, field: Field) -> Result<ValidUntil, RecordError> {
        if *self.trimmed(field)? == LONG_TERM {
            Ok(ValidUntil::LongTerm)
        } else {
            self.date(field).map(ValidUntil::Date)
        }
    }
}

struct Writer(Zeroizing<[u8; TEXT_LEN]>);

impl Writer {
    fn citizen(&mut self, card: &Citizen) -> Result<(), RecordError> {
        self.text(citizen::NAME, &card.name)?;
        self.sex(citizen::SEX, card.sex)?;
        self.text(citizen::NATION, &card.nation.to_digits())?;
        self.date(citizen::BIRTH, card.birth)?;
        self.text(citizen::ADDRESS, &card.address)?;
        self.text(citizen::ID_NUMBER, &card.id_number)?;
        self.text(citizen::ISSUER, &card.issuer)?;
        self.date(citizen::VALID_FROM, card.valid_from)?;
        self.valid_until(citizen::VALID_UNTIL, card.valid_until)
    }

    fn permit(&mut self, card: &ResidencePermit) -> Result<(), RecordError> {
        self.text(citizen::NAME, &card.name)?;
        self.sex(citizen::SEX, card.sex)?;
        self.date(citizen::BIRTH, card.birth)?;
        self.text(citizen::ADDRESS, &card.address)?;
        self.text(citizen::ID_NUMBER, &card.id_number)?;
        self.text(citizen::ISSUER, &card.issuer)?;
        self.date(citizen::VALID_FROM, card.valid_from)?;
        self.valid_until(citizen::VALID_UNTIL, card.valid_until)?;
        self.text(permit::PASS_NUMBER, &card.pass_number)?;
        self.count(permit::ISSUE_COUNT, card.issue_count)
    }

    fn foreigner_2017(&mut self, card: &Foreigner2017) -> Result<(), RecordError> {
        self.text(foreigner_2017::ENGLISH_NAME, &card.english_name)?;
        self.sex(foreigner_2017::SEX, card.sex)?;
        self.text(foreigner_2017::NUMBER, &card.number)?;
        self.text(foreigner_2017::COUNTRY, &card.country)?;
        self.text(foreigner_2017::CHINESE_NAME, &card.chinese_name)?;
        self.date(foreigner_2017::VALID_FROM, card.valid_from)?;
        self.date(foreigner_2017::VALID_UNTIL, card.valid_until)?;
        self.date(foreigner_2017::BIRTH, card.birth)?;
        self.text(foreigner_2017::VERSION, &card.version)?;
        self.text(foreigner_2017::AUTHORITY, &card.authority)
    }

    fn foreigner_2023(&mut self, card: &Foreigner2023) -> Result<(), RecordError> {
        self.text(foreigner_2023::CHINESE_NAME, &card.chinese_name)?;
        let (cut, mut units) = (foreigner_2023::ENGLISH_NAME_1.len / 2, 0);
        let at = card.english_name.char_indices().find(|(_, character)| {
            units += character.len_utf16();
            units > cut
        });
        let at = at.map(|(at, _)| at);
        let (first, second) = card.english_name.split_at(at.unwrap_or(card.english_name.len()));
        self.text(foreigner_2023::ENGLISH_NAME_1, first)?;
        self.text(foreigner_2023::ENGLISH_NAME_2, second)?;
        self.sex(citizen::SEX, card.sex)?;
        self.count(foreigner_2023::RENEWAL_COUNT, card.renewal_count)?;
        self.date(citizen::BIRTH, card.birth)?;
        self.text(citizen::ID_NUMBER, &card.id_number)?;
        self.text(foreigner_2023::COUNTRY, &card.country)?;
        self.date(citizen::VALID_FROM, card.valid_from)?;
        self.date(citizen::VALID_UNTIL, card.valid_until)?;
        self.text(foreigner_2023::OLD_NUMBER_LINK, &card.old_number_link)
    }

    fn text(&mut self, field: Field, text: &str) -> Result<(), RecordError> {
        if text.encode_utf16().count() > field.len / 2 {
            return Err(wrong(field, Problem::TooLong));
        }
        let place = self.0[field.offset..field.offset + field.len].chunks_exact_mut(2);
        for (pair, unit) in place.zip(text.encode_utf16()) {
            pair.copy_from_slice(&unit.to_le_bytes());
        }
        Ok(())
    }

    fn date(&mut self, field: Field, date: Date) -> Result<(), RecordError> {
        self.text(field, &Zeroizing::new(date.to_digits()))
    }

    fn valid_until(&mut self, field: Field, until: ValidUntil) -> Result<(), RecordError> {
        match until {
            ValidUntil::Date(date) => self.date(field, date),
            ValidUntil::LongTerm => self.text(field, LONG_TERM),
        }
    }

    fn sex(&mut self, field: Field, sex: Sex) -> Result<(), RecordError> {
        let code = match sex {
            Sex::Unknown => "0",
            Sex::Male => "1",
            Sex::Female => "2",
            Sex::Unstated => "9",
        };
        self.text(field, code)
    }

    fn count(&mut self, field: Field, count: u8) -> Result<(), RecordError> {
        self.text(field, &alloc::format!("{count:02}"))
    }
}
