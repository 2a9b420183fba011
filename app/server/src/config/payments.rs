//! `[payments]`: how payments are confirmed.

use std::time::Duration;

use countersign_payment::joint::Form;
use countersign_payment::text;
use countersign_service::PaymentPolicy;
use serde::Deserialize;

use super::quoted;

/// Longest name that a server shows, in characters.
const SERVER_NAME_MAX: usize = 64;

/// How payments are confirmed: `[payments]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "PaymentsSection")]
pub struct Payments(PaymentPolicy);

impl Payments {
    pub(super) fn section(&self) -> String {
        let PaymentPolicy {
            server_name,
            wrong_answers_max,
            expiry,
            expiry_min,
            expiry_max,
            joint_forms,
        } = &self.0;
        let forms: Vec<String> = joint_forms.iter().map(|form| quoted(form.name())).collect();
        let name = match server_name {
            Some(name) => format!("server-name = {}\n", quoted(name)),
            None => "# server-name = \"Example Bank\"  # else the id in the server's certificate\n"
                .to_owned(),
        };
        format!(
            "[payments]\n\
             # The name of this server in what security devices show and sign.\n\
             {name}\
             # With how many wrong answers a payment fails, 1 to 5; of a signing card at most 3.\n\
             # A security device is blocked with five in a row.\n\
             wrong-answers = {wrong_answers_max}\n\
             # For how many seconds a payment can be confirmed, unless its initiator says so, and\n\
             # between which bounds it may say so: at least 30, at most 86400.\n\
             expires-seconds = {}\n\
             expires-seconds-min = {}\n\
             expires-seconds-max = {}\n\
             # In which forms signing cards may sign, the best first: \"sealed-random\",\n\
             # \"sealed\", \"digest\".\n\
             joint-forms = [{}]\n\n",
            expiry.as_secs(),
            expiry_min.as_secs(),
            expiry_max.as_secs(),
            forms.join(", ")
        )
    }

    /// As the use cases take it.
    #[must_use]
    pub fn policy(&self) -> PaymentPolicy {
        self.0.clone()
    }
}

/// A `[payments]` section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct PaymentsSection {
    server_name: Option<String>,
    wrong_answers: Option<u32>,
    expires_seconds: Option<u32>,
    expires_seconds_min: Option<u32>,
    expires_seconds_max: Option<u32>,
    joint_forms: Option<Vec<String>>,
}

/// The forms of signing cards, by name.
fn forms(names: &[String]) -> Result<Vec<Form>, String> {
    let refused = "joint-forms has at least one of sealed-random, sealed and digest, none twice";
    let mut forms = Vec::new();
    for name in names {
        match Form::from_name(name) {
            Some(form) if !forms.contains(&form) => forms.push(form),
            _ => return Err(refused.to_owned()),
        }
    }
    if forms.is_empty() { Err(refused.to_owned()) } else { Ok(forms) }
}

impl TryFrom<PaymentsSection> for Payments {
    type Error = String;

    fn try_from(section: PaymentsSection) -> Result<Self, String> {
        const LIMIT: u32 = PaymentPolicy::WRONG_ANSWERS_LIMIT;
        let usual = PaymentPolicy::default();
        if let Some(name) = &section.server_name {
            text::check("server-name", name, SERVER_NAME_MAX)
                .map_err(|error| format!("server-name: {error}"))?;
        }
        let wrong_answers_max = section.wrong_answers.unwrap_or(usual.wrong_answers_max);
        if !(1..=LIMIT).contains(&wrong_answers_max) {
            return Err(format!("wrong-answers is a number from 1 to {LIMIT}"));
        }
        let seconds = |said: Option<u32>, usual: Duration| {
            said.map_or(usual, |seconds| Duration::from_secs(seconds.into()))
        };
        let expiry_min = seconds(section.expires_seconds_min, usual.expiry_min);
        let expiry_max = seconds(section.expires_seconds_max, usual.expiry_max);
        let expiry = seconds(
            section.expires_seconds,
            usual.expiry.clamp(expiry_min, expiry_max.max(expiry_min)),
        );
        let rising = [
            PaymentPolicy::EXPIRY_SHORTEST,
            expiry_min,
            expiry,
            expiry_max,
            PaymentPolicy::EXPIRY_LONGEST,
        ];
        if !rising.is_sorted() {
            return Err("expires-seconds lies between its min and max, and these between 30 and \
                        86400"
                .to_owned());
        }
        let joint_forms = match &section.joint_forms {
            Some(names) => forms(names)?,
            None => usual.joint_forms,
        };
        Ok(Self(PaymentPolicy {
            server_name: section.server_name,
            wrong_answers_max,
            expiry,
            expiry_min,
            expiry_max,
            joint_forms,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn payments(text: &str) -> Result<Payments, String> {
        Config::parse(&format!("[payments]\n{text}\n")).map(|config| config.payments)
    }

    #[test]
    fn payments_are_bounded() {
        assert_eq!(payments("").unwrap(), Payments::default());
        let all = "server-name = \"Example \\\"Bank\\\"\"\nwrong-answers = 5\n\
                   expires-seconds = 60\nexpires-seconds-min = 45\nexpires-seconds-max = 86400\n\
                   joint-forms = [\"digest\", \"sealed\"]";
        let all = payments(all).unwrap();
        let policy = all.policy();
        assert_eq!(policy.server_name.as_deref(), Some("Example \"Bank\""));
        assert_eq!((policy.wrong_answers_max, policy.expiry.as_secs()), (5, 60));
        assert_eq!(policy.joint_forms, [Form::Digest, Form::Sealed]);
        let config = Config { payments: all, ..Config::default() };
        assert_eq!(Config::parse(&config.initial()).unwrap(), config);
        let short = payments("expires-seconds-max = 120").unwrap().policy();
        assert_eq!(short.expiry.as_secs(), 120, "the usual time is within the bounds");
        for (bad, words) in [
            ("wrong-answers = 0", "from 1 to 5"),
            ("wrong-answers = 6", "from 1 to 5"),
            ("expires-seconds = 29", "between its min and max"),
            ("expires-seconds-min = 29", "between its min and max"),
            ("expires-seconds-max = 86401", "between its min and max"),
            ("expires-seconds-min = 200\nexpires-seconds-max = 100", "between its min and max"),
            ("server-name = \"\"", "server-name"),
            ("server-name = \"a\\u202eb\"", "server-name"),
            ("joint-forms = []", "joint-forms has at least one"),
            ("joint-forms = [\"sealed\", \"sealed\"]", "none twice"),
            ("joint-forms = [\"plain\"]", "joint-forms has at least one"),
            ("joint-forms = [\"sealed\", \"plain\", \"digest\"]", "none twice"),
            ("joint-forms = \"sealed\"", "expected a sequence"),
            ("rail = \"sepa\"", "unknown field"),
        ] {
            let error = payments(bad).unwrap_err();
            assert!(error.contains(words), "{bad}: {error}");
        }
    }
}
