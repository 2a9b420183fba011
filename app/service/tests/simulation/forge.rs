//! What devices sign, and what forgers would like them to have signed.

use std::collections::BTreeMap;

use countersign_crypto::rust_crypto;
use rand_core::CryptoRng;
use serde_json::Value;

use crate::judge::{digits, signing_input};
use crate::world::{Key, Words};

/// An amount that no plan draws.
pub(crate) const AMOUNT: &str = "99999.99";

/// A request with another text in one of its fields, canonical all the same.
pub(crate) fn with(request: &[u8], field: &str, text: &str) -> Vec<u8> {
    let mut fields: BTreeMap<String, Value> = serde_json::from_slice(request).unwrap();
    let before = fields.insert(field.to_owned(), Value::String(text.to_owned()));
    assert!(before.is_some(), "a request has a field {field}");
    serde_json::to_vec(&fields).unwrap()
}

/// What a device with this key answers to a request.
pub(crate) fn sign(key: &Key, request: &[u8], rng: &mut dyn CryptoRng) -> Words {
    match key {
        Key::Pki(element) => Words::Signature(element.sign(rng, &signing_input(request)).unwrap()),
        Key::Ocra(key) => {
            let digits = digits(&rust_crypto::provider(), key, request);
            Words::Digits(String::from_utf8(digits).unwrap())
        }
    }
}

/// Something that only looks like an answer.
pub(crate) fn garbage(key: &Key) -> Words {
    match key {
        Key::Pki(_) => Words::Signature(vec![0x30, 6, 2, 1, 1, 2, 1, 1]),
        Key::Ocra(_) => Words::Digits("00000000".to_owned()),
    }
}
