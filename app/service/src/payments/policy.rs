use std::time::Duration;

use countersign_payment::joint::Form;

/// Wrong answers after which a payment fails, unless said otherwise.
const WRONG_ANSWERS_MAX: u32 = 3;

/// How payments go: `[payments]` in `config.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentPolicy {
    /// The server's name in what devices show and sign; by default the id in its certificate.
    pub server_name: Option<String>,
    /// Wrong answers with which a payment fails, 1 to [`Self::WRONG_ANSWERS_LIMIT`] (D7).
    pub wrong_answers_max: u32,
    /// How long a payment can be confirmed, unless its initiator says otherwise.
    pub expiry: Duration,
    /// The shortest that an initiator may say.
    pub expiry_min: Duration,
    /// The longest that an initiator may say.
    pub expiry_max: Duration,
    /// The forms in which a signing card's joint password may be committed to, best first (B3–B5):
    /// at least one, and none twice.
    pub joint_forms: Vec<Form>,
}

impl PaymentPolicy {
    /// Most wrong answers that a policy may allow: five in a row, as for payment cards.
    pub const WRONG_ANSWERS_LIMIT: u32 = 5;
    /// The shortest time in which people can answer.
    pub const EXPIRY_SHORTEST: Duration = Duration::from_secs(30);
    /// The longest time for which a payment may wait.
    pub const EXPIRY_LONGEST: Duration = Duration::from_secs(24 * 3600);
}

impl Default for PaymentPolicy {
    fn default() -> Self {
        Self {
            server_name: None,
            wrong_answers_max: WRONG_ANSWERS_MAX,
            expiry: Duration::from_secs(300),
            expiry_min: Self::EXPIRY_SHORTEST,
            expiry_max: Self::EXPIRY_LONGEST,
            joint_forms: vec![Form::SealedRandom, Form::Sealed, Form::Digest],
        }
    }
}
