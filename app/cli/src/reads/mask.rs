//! What an export shows of a person unless it is asked to show all.

use serde_json::{Map, Value};

/// Shown as they are: they name no one.
const PLAIN: [&str; 11] = [
    "documentType",
    "sex",
    "nation",
    "issuer",
    "validFrom",
    "validUntil",
    "country",
    "renewalCount",
    "issueCount",
    "version",
    "authority",
];
/// Characters of an address that stay: as a rule province and city.
const ADDRESS_SHOWN: usize = 6;

/// Masks a record's fields: of numbers the first and last character stay, of a birth date the
/// year, of an address the first six characters (half, if it is shorter), of names and of any
/// field that is not known the first character.
pub(super) fn mask(record: &mut Map<String, Value>) {
    for (name, value) in record {
        if PLAIN.contains(&name.as_str()) {
            continue;
        }
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        *value = match name.as_str() {
            "idNumber" | "number" | "passNumber" => number(&text),
            "birth" => text.chars().take(4).collect::<String>() + "-**-**",
            "address" => {
                let shown = ADDRESS_SHOWN.min(text.chars().count() / 2);
                starred(&text, shown)
            }
            _ => starred(&text, 1),
        }
        .into();
    }
}

/// First and last character, and a star for each between.
fn number(text: &str) -> String {
    let count = text.chars().count();
    let star = |(at, character)| if at == 0 || at + 1 == count { character } else { '*' };
    match count {
        0..4 => "*".repeat(count),
        _ => text.chars().enumerate().map(star).collect(),
    }
}

/// The first characters; two stars stand for the rest, however long it is.
fn starred(text: &str, shown: usize) -> String {
    if text.is_empty() {
        return String::new();
    }
    text.chars().take(shown).collect::<String>() + "**"
}

#[cfg(test)]
mod tests {
    use countersign_emulator::samples;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_field_is_masked_as_its_kind() {
        let mut record = json!({
            "documentType": "citizen", "name": "样本甲", "sex": "female", "birth": "2000-02-29",
            "address": "虚构省样本市不存在路1号", "idNumber": "11010519491231002X",
            "number": "UTO000000010101", "passNumber": "H00000000", "oldNumberLink": "123",
            "englishName": "SAMPLE, BERTA", "chineseName": "", "somethingNew": "secret",
        });
        mask(record.as_object_mut().unwrap());
        let expected = json!({
            "documentType": "citizen", "name": "样**", "sex": "female", "birth": "2000-**-**",
            "address": "虚构省样本市**", "idNumber": "1****************X",
            "number": "U*************1", "passNumber": "H*******0", "oldNumberLink": "1**",
            "englishName": "S**", "chineseName": "", "somethingNew": "s**",
        });
        assert_eq!(record, expected);
        let mut short = json!({"address": "虚构省样", "idNumber": "123", "number": ""});
        mask(short.as_object_mut().unwrap());
        assert_eq!(short, json!({"address": "虚构**", "idNumber": "***", "number": ""}));
    }

    /// The four kinds of documents have no field that would be shown whole by oversight.
    #[test]
    fn of_the_samples_nothing_that_names_a_person_is_left() {
        for sample in samples() {
            let whole = serde_json::to_value(&sample).unwrap();
            let mut masked = whole.clone();
            mask(masked.as_object_mut().unwrap());
            for (name, value) in whole.as_object().unwrap() {
                let same = masked[name] == *value && value.as_str() != Some("");
                assert_eq!(same, PLAIN.contains(&name.as_str()), "{name}");
            }
        }
    }
}
