//! The rules: thresholds over windows, and what follows.

use std::fmt::Write;
use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_store::{CLOCKS_DIFFER, RiskAction, RiskEvent, RiskKind, RiskWatch};
use thiserror::Error;

use super::{READS_PER_MINUTE, READS_PER_MINUTE_MAX};

/// Most rules at once.
pub const RULES_MAX: usize = 32;
/// Longest name of a rule, in bytes.
pub const RULE_NAME_MAX: usize = 40;
/// Longest name of a check, kind or outcome that a rule may ask for, in bytes.
pub const RULE_CHECK_MAX: usize = 48;
/// Highest threshold: so many events at most are looked at when one more comes.
pub const AT_LEAST_MAX: u32 = 1000;
/// Longest window; older events are removed.
pub const WINDOW_MAX: Duration = Duration::from_secs(31 * DAY);
/// Shortest window, and shortest time that a decision can hold.
pub const WINDOW_MIN: Duration = Duration::from_secs(1);
/// Longest pause between two reads of a throttled reader.
pub const PAUSE_MAX: Duration = Duration::from_secs(3600);
/// Shortest such pause.
pub const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest time for which a rule may decide; without a time it decides until it is reversed.
pub const LASTS_MAX: Duration = Duration::from_secs(366 * DAY);

const DAY: u64 = 86_400;
/// Units of durations, the largest first: name and milliseconds.
const UNITS: [(&str, u64); 5] =
    [("d", DAY * 1000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
/// What the checks begin with that blame a SAM module of the server, never the reader.
const SERVERS_OWN: &str = "sam-";

/// What a rule does when its threshold is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleAction {
    /// Writes a decision for people to look at.
    Warn,
    /// Makes the reader pause between the beginnings of two reads.
    Throttle {
        /// At least so long.
        pause: Duration,
    },
    /// Refuses the reader.
    Block,
}

/// A rule over one reader's events (C5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Unique among the rules: lower-case letters, digits and hyphens.
    pub name: String,
    /// What is counted.
    pub count: RiskKind,
    /// Only those with this check (errors, refusals), kind (reports), outcome (transactions) or
    /// sign (concurrent).
    pub check: Option<String>,
    /// From how many on the rule decides.
    pub at_least: u32,
    /// The window that slides with the time.
    pub within: Duration,
    /// What it does.
    pub action: RuleAction,
    /// For how long; `None` until an operator reverses it.
    pub lasts: Option<Duration>,
}

/// What is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {detail}")]
pub struct RuleError {
    /// The field, as the rules' file calls it.
    pub field: &'static str,
    /// One sentence.
    pub detail: String,
}

impl Rule {
    /// Checks the bounds.
    ///
    /// # Errors
    /// [`RuleError`] with the field's name.
    pub fn check(&self) -> Result<(), RuleError> {
        let refuse = |field, detail: String| Err(RuleError { field, detail });
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if !(1..=RULE_NAME_MAX).contains(&self.name.len()) || !self.name.bytes().all(plain) {
            let detail = format!("1 to {RULE_NAME_MAX} characters of a-z 0-9 and -");
            return refuse("name", detail);
        }
        if let Some(check) = &self.check {
            if matches!(self.count, RiskKind::Reads | RiskKind::Resent) {
                return refuse("check", format!("{} have no check", self.count));
            }
            if !(1..=RULE_CHECK_MAX).contains(&check.len()) || !check.bytes().all(plain) {
                let detail = format!("1 to {RULE_CHECK_MAX} characters of a-z 0-9 and -");
                return refuse("check", detail);
            }
            if self.count == RiskKind::Errors && !blames_reader(check) {
                let detail = format!("{check} is the server's fault and never counts");
                return refuse("check", detail);
            }
        }
        if !(1..=AT_LEAST_MAX).contains(&self.at_least) {
            return refuse("at_least", format!("a number from 1 to {AT_LEAST_MAX}"));
        }
        between("within", self.within, WINDOW_MIN, WINDOW_MAX)?;
        if let RuleAction::Throttle { pause } = self.action {
            between("pause", pause, PAUSE_MIN, PAUSE_MAX)?;
        }
        self.lasts.map_or(Ok(()), |lasts| between("for", lasts, WINDOW_MIN, LASTS_MAX))
    }

    /// Whether this event counts for the rule.
    pub(crate) fn counts(&self, event: &RiskEvent) -> bool {
        self.count == event.kind && self.check.as_ref().is_none_or(|check| *check == event.label)
    }

    pub(crate) fn watch(&self, now: UnixTime) -> RiskWatch {
        RiskWatch {
            rule: self.name.clone(),
            kind: self.count,
            label: self.check.clone(),
            since: now.minus(self.within),
            horizon: now.plus(CLOCKS_DIFFER),
            at_least: self.at_least,
        }
    }

    pub(crate) const fn stored_action(&self) -> (RiskAction, Option<Duration>) {
        match self.action {
            RuleAction::Warn => (RiskAction::Warn, None),
            RuleAction::Throttle { pause } => (RiskAction::Throttle, Some(pause)),
            RuleAction::Block => (RiskAction::Block, None),
        }
    }

    /// The rule as it is kept with each of its decisions.
    #[must_use]
    pub fn terms(&self) -> serde_json::Value {
        let (action, pause) = self.stored_action();
        serde_json::json!({
            "name": self.name,
            "count": self.count.name(),
            "check": self.check,
            "atLeast": self.at_least,
            "within": duration_text(self.within),
            "action": action.name(),
            "pause": pause.map(duration_text),
            "for": self.lasts.map(duration_text),
        })
    }

    /// Why the rule decided, in one sentence.
    pub(crate) fn reason(&self, counted: u32) -> String {
        let what = match self.count {
            RiskKind::Reads => "reads begun",
            RiskKind::Resent => "packets sent again",
            RiskKind::Concurrent => "signs of a second device with its certificate",
            RiskKind::Reports => "reports against it",
            other => other.name(),
        };
        let mut text = format!("rule {}: {counted} {what}", self.name);
        if let Some(check) = &self.check {
            let _infallible = write!(text, " ({check})");
        }
        let _infallible = write!(text, " within {}", duration_text(self.within));
        text
    }
}

fn between(
    field: &'static str,
    value: Duration,
    min: Duration,
    max: Duration,
) -> Result<(), RuleError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let detail = format!("from {} to {}", duration_text(min), duration_text(max));
    Err(RuleError { field, detail })
}

/// Whether a failed read with this check counts against the reader: the server's own modules and
/// database do not.
pub(crate) fn blames_reader(check: &str) -> bool {
    !check.starts_with(SERVERS_OWN) && check != "unavailable" && check != "internal"
}

/// `"10m"`: a number and one of `ms`, `s`, `m`, `h`, `d`.
///
/// # Errors
/// A sentence.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let refused = || "a number and one of ms, s, m, h, d, for instance \"10m\"".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| refused())?;
    let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refused)?;
    number.checked_mul(*millis).map(Duration::from_millis).ok_or_else(refused)
}

/// What [`parse_duration`] reads, in the largest unit that leaves no rest.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let whole = |(_, unit): &&(&str, u64)| millis != 0 && millis.is_multiple_of(*unit);
    let (name, unit) = UNITS.iter().find(whole).unwrap_or(&("ms", 1));
    format!("{}{name}", millis / unit)
}

/// The rules of a server, in the order of their file, and the bound that needs none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RiskRules {
    rules: Vec<Rule>,
    reads_per_minute: u32,
}

impl Default for RiskRules {
    fn default() -> Self {
        Self { rules: Vec::new(), reads_per_minute: READS_PER_MINUTE }
    }
}

impl RiskRules {
    /// Takes rules that fit together.
    ///
    /// # Errors
    /// The number of the rule in the list, from 0, and what is wrong with it.
    pub fn new(rules: Vec<Rule>) -> Result<Self, (usize, RuleError)> {
        for (index, rule) in rules.iter().enumerate() {
            rule.check().map_err(|error| (index, error))?;
            if rules[..index].iter().any(|other| other.name == rule.name) {
                let detail = "another rule has this name".to_owned();
                return Err((index, RuleError { field: "name", detail }));
            }
            if index == RULES_MAX {
                let detail = format!("there are more than {RULES_MAX} rules");
                return Err((index, RuleError { field: "rule", detail }));
            }
        }
        Ok(Self { rules, ..Self::default() })
    }

    /// The rules.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// The same with another bound.
    ///
    /// # Errors
    /// [`RuleError`] unless it is from 1 to [`READS_PER_MINUTE_MAX`].
    pub fn with_reads_per_minute(self, reads_per_minute: u32) -> Result<Self, RuleError> {
        if (1..=READS_PER_MINUTE_MAX).contains(&reads_per_minute) {
            return Ok(Self { reads_per_minute, ..self });
        }
        let detail = format!("a number from 1 to {READS_PER_MINUTE_MAX}");
        Err(RuleError { field: "reads_per_minute", detail })
    }

    /// Reads that one reader may begin in any minute, whatever the rules say.
    #[must_use]
    pub const fn reads_per_minute(&self) -> u32 {
        self.reads_per_minute
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str) -> Rule {
        Rule {
            name: name.to_owned(),
            count: RiskKind::Errors,
            check: None,
            at_least: 5,
            within: Duration::from_secs(600),
            action: RuleAction::Block,
            lasts: None,
        }
    }

    #[test]
    fn durations_are_read_and_written_the_same() {
        for (text, millis) in
            [("1ms", 1), ("90s", 90_000), ("10m", 600_000), ("31d", 2_678_400_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)));
            assert_eq!(duration_text(Duration::from_millis(millis)), text);
        }
        assert_eq!(duration_text(Duration::from_secs(3600)), "1h");
        assert_eq!(duration_text(Duration::ZERO), "0ms");
        for bad in ["", "10", "m", "-1m", "1 m", "1M", "1h30m", "99999999999999999999s", "1.5h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert!(parse_duration(&format!("{}d", u64::MAX)).is_err());
    }

    #[test]
    fn each_bound_names_its_field() {
        let with = |change: fn(&mut Rule)| {
            let mut rule = rule("bad-cards");
            change(&mut rule);
            rule.check().map_err(|error| error.field)
        };
        assert_eq!(with(|_| ()), Ok(()));
        assert_eq!(with(|rule| rule.name.clear()), Err("name"));
        assert_eq!(with(|rule| rule.name = "x".repeat(RULE_NAME_MAX + 1)), Err("name"));
        assert_eq!(with(|rule| rule.name = "Bad cards".into()), Err("name"));
        assert_eq!(with(|rule| rule.check = Some("Card".into())), Err("check"));
        assert_eq!(with(|rule| rule.check = Some("sam-gone".into())), Err("check"));
        assert_eq!(with(|rule| rule.check = Some("decryption".into())), Ok(()));
        assert_eq!(with(|rule| rule.at_least = 0), Err("at_least"));
        assert_eq!(with(|rule| rule.at_least = AT_LEAST_MAX + 1), Err("at_least"));
        assert_eq!(with(|rule| rule.within = Duration::ZERO), Err("within"));
        assert_eq!(with(|rule| rule.within = WINDOW_MAX + WINDOW_MIN), Err("within"));
        assert_eq!(with(|rule| rule.lasts = Some(Duration::ZERO)), Err("for"));
        assert_eq!(with(|rule| rule.lasts = Some(LASTS_MAX)), Ok(()));
        let long = |rule: &mut Rule| rule.action = RuleAction::Throttle { pause: PAUSE_MAX * 2 };
        assert_eq!(with(long), Err("pause"));
        assert_eq!(
            with(|rule| (rule.count, rule.check) = (RiskKind::Reads, Some("a".into()))),
            Err("check")
        );
    }

    #[test]
    fn rules_have_names_of_their_own_and_are_bounded() {
        let error = RiskRules::new(vec![rule("a"), rule("b"), rule("a")]).unwrap_err();
        assert_eq!((error.0, error.1.field), (2, "name"));
        let many = (0..=RULES_MAX).map(|number| rule(&format!("r{number}"))).collect();
        assert_eq!(RiskRules::new(many).unwrap_err().1.field, "rule");
        assert_eq!(RiskRules::new(vec![rule("a"), rule("b")]).unwrap().iter().count(), 2);
    }

    #[test]
    fn a_reason_says_what_was_counted() {
        let mut rule = rule("bad-cards");
        assert_eq!(rule.reason(5), "rule bad-cards: 5 errors within 10m");
        rule.check = Some("card-refused".into());
        assert_eq!(rule.reason(6), "rule bad-cards: 6 errors (card-refused) within 10m");
    }
}
