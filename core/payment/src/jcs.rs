//! Canonical JSON (RFC 8785), as far as statements here need it: objects, lists, texts, small
//! numbers, truth values. No fractions: amounts are texts.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

/// A JSON value that has a canonical form here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number that every JSON reader holds exactly.
    Number(u32),
    /// A text.
    Text(String),
    /// A list, in its order.
    List(Vec<Value>),
    /// Members; they are written in the order of their names, whatever theirs is here.
    Object(Vec<(String, Value)>),
}

/// Appends the canonical form of `value`.
pub fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => {
            write!(out, "{number}").expect("a String takes what is written to it");
        }
        Value::Text(text) => write_text(text, out),
        Value::List(values) => {
            out.push('[');
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(value, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            // RFC 8785 §3.2.3: in the order of UTF-16 code units.
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (at, (name, value)) in sorted.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_text(name, out);
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
    }
}

/// Appends a text in quotes, escaped as RFC 8785 §3.2.2.2 says.
pub fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            c if c < ' ' => {
                write!(out, "\\u{:04x}", u32::from(c))
                    .expect("a String takes what is written to it");
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(value: &Value) -> String {
        let mut out = String::new();
        write(value, &mut out);
        out
    }

    fn to_serde(value: &Value) -> serde_json::Value {
        match value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(truth) => (*truth).into(),
            Value::Number(number) => (*number).into(),
            Value::Text(text) => text.as_str().into(),
            Value::List(values) => values.iter().map(to_serde).collect(),
            Value::Object(members) => {
                members.iter().map(|(name, value)| (name.clone(), to_serde(value))).collect()
            }
        }
    }

    /// RFC 8785 §3.2.3: the example of sorting.
    #[test]
    fn the_rfc_sorts_so() {
        let names = ["\u{20ac}", "\r", "\u{fb33}", "1", "\u{1f600}", "\u{80}", "\u{f6}"];
        let members = names.iter().map(|name| ((*name).into(), Value::Null)).collect();
        let sorted = "{\"\\r\":null,\"1\":null,\"\u{80}\":null,\"\u{f6}\":null,\"\u{20ac}\":null,\
                      \"\u{1f600}\":null,\"\u{fb33}\":null}";
        assert_eq!(written(&Value::Object(members)), sorted);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<u32>().prop_map(Value::Number),
            any::<String>().prop_map(Value::Text),
            "[\\x00-\\x1f\"\\\\/\u{7f}\u{2028}a]{0,12}".prop_map(Value::Text),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            let name = prop_oneof![any::<String>(), "[a-z\u{e9}\u{fb33}\u{1f600}]{0,3}"];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
                prop::collection::btree_map(name, inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().rev().collect())),
            ]
        })
    }

    proptest! {
        /// Another implementation of RFC 8785 writes the same bytes.
        #[test]
        fn as_another_implementation_writes_it(value in any_value()) {
            let other = serde_json_canonicalizer::to_string(&to_serde(&value)).unwrap();
            prop_assert_eq!(written(&value), other);
        }
    }
}
