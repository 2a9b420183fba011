//! What a manager's owner wants: `manager.toml`.

use std::collections::BTreeSet;
use std::time::Duration;

use countersign_channel::Policy;
use countersign_net::policy_of;
use countersign_wallet::lease::LEASE_MAX;
use countersign_wallet::message::{CARD_ID_MAX, CARDS_MAX, CardId, Label};
use countersign_wallet::policy::{Aids, CardLimits, Commands, Rules};
use serde::{Deserialize, Serialize};

use super::ManagerError;

/// Shortest lease of a card, in seconds: a payment with a PIN fits in.
pub const LEASE_SECONDS_MIN: u32 = 10;
/// Lease of a card unless set otherwise, in seconds from its last use.
const LEASE_SECONDS: u32 = 120;
/// How long a session that is awake may say nothing unless set otherwise, in seconds.
const IDLE_SECONDS: u32 = 900;
/// Most of *t1* + *t2* that a sleeping sleeve may ask for unless set otherwise, in seconds (A6).
const SILENCE_MAX_SECONDS: u32 = 600;
/// Longest of these times: a day, in seconds.
const SECONDS_MAX: u32 = 86_400;

/// A manager's settings; everything has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ManagerSettings {
    /// Where sleeves of this network find it: `HOST:PORT`, or nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// The gateway of the server through whose relay sleeves find it (A9): `HOST:PORT`, or none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// The protection policies of its channels by name, the preferred one first (A7).
    pub policies: Vec<String>,
    /// Whether its owner is asked after each right password.
    pub consent: Consent,
    /// How long a session that is awake may say nothing, in seconds; then it ends.
    pub idle_seconds: u32,
    /// Most of *t1* + *t2* that a sleeping sleeve may ask for, in seconds (A6).
    pub silence_max_seconds: u32,
    /// What a session after the alarm password may do (A5).
    pub alarm: AlarmSettings,
    /// The cards.
    #[serde(rename = "card", skip_serializing_if = "Vec::is_empty")]
    pub cards: Vec<CardSettings>,
}

impl Default for ManagerSettings {
    fn default() -> Self {
        Self {
            listen: None,
            gateway: None,
            policies: vec!["encrypt+mac".to_owned()],
            consent: Consent::Ask,
            idle_seconds: IDLE_SECONDS,
            silence_max_seconds: SILENCE_MAX_SECONDS,
            alarm: AlarmSettings::default(),
            cards: Vec::new(),
        }
    }
}

/// Whether the manager's owner is asked for each session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consent {
    /// After each right password; no answer is a no.
    Ask,
    /// The password is enough.
    Never,
}

/// Which cards a session after the alarm password has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlarmCards {
    /// Those marked as decoys, which no other session has.
    Decoys,
    /// Those of any other session.
    All,
    /// None.
    None,
}

/// What a session after the alarm password may do (A5): these cards, within these limits as well as
/// each card's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct AlarmSettings {
    /// Which cards.
    pub cards: AlarmCards,
    /// The currency of the amounts, ISO 4217's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<u16>,
    /// Most of one payment, in minor units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_amount: Option<u64>,
    /// Most of all payments of a day, in minor units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_total: Option<u64>,
    /// Most payments of a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_uses: Option<u32>,
}

impl Default for AlarmSettings {
    fn default() -> Self {
        Self {
            cards: AlarmCards::Decoys,
            currency: None,
            max_amount: None,
            max_total: None,
            max_uses: None,
        }
    }
}

impl AlarmSettings {
    /// The limits alone.
    #[must_use]
    pub const fn limits(&self) -> CardLimits {
        let Self { currency, max_amount, max_total, max_uses, .. } = *self;
        CardLimits { currency, max_amount, max_total, max_uses }
    }
}

/// A real card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CardSettings {
    /// Its id: 1 to 40 characters of `A-Z a-z 0-9 . _ -`.
    pub id: String,
    /// What it is called.
    pub label: String,
    /// The name of its PC/SC reader, or a part that only one has; none for a card in this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader: Option<String>,
    /// It is there to be shown after an alarm, and at no other time (A5).
    #[serde(default)]
    pub decoy: bool,
    /// How long a sleeve has it without using it, in seconds.
    #[serde(default = "lease_seconds")]
    pub lease_seconds: u32,
    /// Which applications may be selected.
    pub aids: Aids,
    /// Which commands may be sent.
    #[serde(default = "emv")]
    pub commands: Commands,
    /// How much, and how often.
    #[serde(default)]
    pub limits: CardLimits,
}

const fn lease_seconds() -> u32 {
    LEASE_SECONDS
}

const fn emv() -> Commands {
    Commands::Emv
}

impl CardSettings {
    /// What may reach it.
    #[must_use]
    pub fn rules(&self) -> Rules {
        let Self { aids, commands, limits, .. } = self;
        Rules { aids: aids.clone(), commands: commands.clone(), limits: *limits }
    }

    pub(super) fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds.into())
    }

    fn check(&self) -> Result<(), String> {
        let named = |what: &str| format!("the card {:?}: {what}", self.id);
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        if CardId::new(&self.id).is_none_or(|id| id.is_empty()) || !self.id.bytes().all(allowed) {
            return Err(named(&format!("an id has 1 to {CARD_ID_MAX} of A-Z a-z 0-9 . _ -")));
        }
        if Label::new(&self.label).is_none() {
            return Err(named("the label is too long, or has control characters"));
        }
        if self.lease_seconds < LEASE_SECONDS_MIN || self.lease() > LEASE_MAX {
            return Err(named(&format!("lease-seconds is {LEASE_SECONDS_MIN} to {SECONDS_MAX}")));
        }
        self.rules().check().map_err(|error| named(&error.to_string()))
    }
}

impl ManagerSettings {
    /// Reads settings as `manager.toml` has them, and checks them.
    ///
    /// # Errors
    /// [`ManagerError::Settings`].
    pub fn parse(text: &str) -> Result<Self, ManagerError> {
        let parsed = toml::from_str::<Self>(text);
        let settings = parsed.map_err(|error| ManagerError::Settings(error.to_string()))?;
        settings.check()?;
        Ok(settings)
    }

    pub(super) const fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_seconds as u64)
    }

    pub(super) const fn silence_max(&self) -> Duration {
        Duration::from_secs(self.silence_max_seconds as u64)
    }

    /// Checks what the types do not.
    ///
    /// # Errors
    /// [`ManagerError::Settings`].
    pub fn check(&self) -> Result<(), ManagerError> {
        self.check_inner().map_err(ManagerError::Settings)
    }

    fn check_inner(&self) -> Result<(), String> {
        self.channel_policies()?;
        for (name, seconds) in
            [("idle-seconds", self.idle_seconds), ("silence-max-seconds", self.silence_max_seconds)]
        {
            if !(1..=SECONDS_MAX).contains(&seconds) {
                return Err(format!("{name} is 1 to {SECONDS_MAX}"));
            }
        }
        self.alarm.limits().check().map_err(|error| format!("alarm: {error}"))?;
        if self.cards.len() > CARDS_MAX {
            return Err(format!("there are more than {CARDS_MAX} cards"));
        }
        let mut ids = BTreeSet::new();
        for card in &self.cards {
            card.check()?;
            if !ids.insert(&card.id) {
                return Err(format!("two cards have the id {}", card.id));
            }
        }
        Ok(())
    }

    /// The cards that a session after an alarm is shown and cannot pay with: their own limits are
    /// in another currency than the alarm's. Their owner should know.
    #[must_use]
    pub fn useless_after_alarm(&self) -> Vec<&str> {
        let useless = |card: &&CardSettings| {
            let currencies = (card.limits.currency, self.alarm.currency);
            let differ = matches!(currencies, (Some(own), Some(alarm)) if own != alarm);
            differ && self.shows(card, true)
        };
        self.cards.iter().filter(useless).map(|card| card.id.as_str()).collect()
    }

    /// The policies of its channels.
    pub(super) fn channel_policies(&self) -> Result<Vec<Policy>, String> {
        let policies: Result<Vec<_>, _> =
            self.policies.iter().map(|name| policy_of(name)).collect();
        let policies = policies.map_err(|error| error.to_string())?;
        if policies.is_empty() || policies.iter().any(|policy| policy.certificate_sealed) {
            return Err("policies: encrypt+mac, mac or encrypt, at least one".to_owned());
        }
        Ok(policies)
    }

    /// Whether sessions of this kind have a card. A decoy is shown after an alarm alone: in any
    /// other list it would tell its owner's enemies what it is for.
    pub(super) const fn shows(&self, card: &CardSettings, after_alarm: bool) -> bool {
        match (after_alarm, self.alarm.cards) {
            (false, _) | (true, AlarmCards::All) => !card.decoy,
            (true, AlarmCards::Decoys) => card.decoy,
            (true, AlarmCards::None) => false,
        }
    }
}
