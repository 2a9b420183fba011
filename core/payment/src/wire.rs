//! How statements are written in JSON: every value that is no name of ours is a text.

use countersign_crypto::{HASH_LEN, UnixTime};
use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::jcs::{self, Value};
use crate::{AccountNumber, Amount, PaymentError, State, from_rfc3339, to_rfc3339};

/// A value that is written as one text and read back from that text only.
pub(crate) trait Text: Sized {
    fn to_text(&self) -> String;
    fn from_text(text: &str) -> Option<Self>;
}

impl Text for UnixTime {
    fn to_text(&self) -> String {
        to_rfc3339(*self)
    }

    fn from_text(text: &str) -> Option<Self> {
        from_rfc3339(text).ok()
    }
}

impl Text for State {
    fn to_text(&self) -> String {
        self.name().to_string()
    }

    fn from_text(text: &str) -> Option<Self> {
        Self::from_name(text)
    }
}

impl Text for AccountNumber {
    fn to_text(&self) -> String {
        self.as_str().to_string()
    }

    fn from_text(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }
}

/// Bytes: base64 (RFC 4648 §4), as `x5c` has it.
impl Text for Vec<u8> {
    fn to_text(&self) -> String {
        BASE64.encode(self)
    }

    fn from_text(text: &str) -> Option<Self> {
        BASE64.decode(text.as_bytes()).ok()
    }
}

/// A hash: lower-case hexadecimal.
impl Text for [u8; HASH_LEN] {
    fn to_text(&self) -> String {
        HEXLOWER.encode(self)
    }

    fn from_text(text: &str) -> Option<Self> {
        HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
    }
}

/// For `#[serde(with)]`: a [`Text`].
pub(crate) mod text {
    use super::{Deserialize, Deserializer, Serialize, Serializer, Text};

    pub(crate) fn serialize<T: Text, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        value.to_text().serialize(to)
    }

    pub(crate) fn deserialize<'de, T: Text, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        let text = String::deserialize(from)?;
        T::from_text(&text).ok_or_else(|| serde::de::Error::custom("not in its form"))
    }
}

/// For `#[serde(with)]`: a [`Text`], or `null`.
pub(crate) mod maybe {
    use super::{Deserialize, Deserializer, Serialize, Serializer, Text};

    pub(crate) fn serialize<T: Text, S: Serializer>(
        value: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(Text::to_text).serialize(to)
    }

    pub(crate) fn deserialize<'de, T: Text, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<T>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
        let value = T::from_text(&text);
        value.map(Some).ok_or_else(|| serde::de::Error::custom("not in its form"))
    }
}

/// For `#[serde(deserialize_with)]` of a member that may be left out, but is never `null`.
pub(crate) fn present<'de, T: Text, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    text::deserialize(from).map(Some)
}

/// For `#[serde(with)]`: an amount, as pain.001 has it.
pub(crate) mod money {
    use super::{Amount, Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Money {
        amount: String,
        currency: String,
    }

    pub(crate) fn serialize<S: Serializer>(value: &Amount, to: S) -> Result<S::Ok, S::Error> {
        let currency = value.currency().code().to_string();
        Money { amount: value.decimal(), currency }.serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Amount, D::Error> {
        let money = Money::deserialize(from)?;
        let amount = Amount::parse(&money.amount, &money.currency);
        amount
            .ok()
            .filter(|amount| amount.decimal() == money.amount)
            .ok_or_else(|| serde::de::Error::custom("not an amount"))
    }
}

/// The canonical JSON (RFC 8785) of a statement.
pub(crate) fn canonical<T: Serialize>(statement: &T) -> Result<String, PaymentError> {
    let value = serde_json::to_value(statement).map_err(|_| PaymentError::StatementForm)?;
    let mut out = String::new();
    jcs::write(&to_jcs(value)?, &mut out);
    Ok(out)
}

/// A statement has no fractions and no large numbers, so every value has a canonical form here.
fn to_jcs(value: serde_json::Value) -> Result<Value, PaymentError> {
    Ok(match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(truth) => Value::Bool(truth),
        serde_json::Value::Number(number) => Value::Number(
            number
                .as_u64()
                .and_then(|number| u32::try_from(number).ok())
                .ok_or(PaymentError::StatementForm)?,
        ),
        serde_json::Value::String(text) => Value::Text(text),
        serde_json::Value::Array(values) => {
            Value::List(values.into_iter().map(to_jcs).collect::<Result<_, _>>()?)
        }
        serde_json::Value::Object(members) => Value::Object(
            members
                .into_iter()
                .map(|(name, value)| Ok((name, to_jcs(value)?)))
                .collect::<Result<_, PaymentError>>()?,
        ),
    })
}
