//! `risk.toml` in the data directory: the rules over readers (C5).

use std::collections::BTreeMap;

use countersign_service::{RiskRules, Rule, RuleAction, RuleError, parse_duration};
use countersign_store::{RiskAction, RiskKind};
use toml::{Spanned, Value};

/// What `init` writes, and what holds where there is no file.
pub const INITIAL_RULES: &str = r#"# Rules over readers.
#
# `serve` reads this file when it starts; `countersign reader rules` checks it. Each [[rule]]
# counts events of one reader over a window that slides with the time:
#
#   name      its name in decisions, reasons and the audit
#   count     reads         reads begun, each attempt
#             errors        reads that failed on the reader's side (the server's modules do not
#                           count against it)
#             refusals      reads and proven connections that were refused
#             reports       reports against it
#             transactions  transactions that a back office told
#             resent        packets that had to be asked for again
#             concurrent    signs that two devices present its certificate
#   check     only those with this check (errors, refusals), kind (reports), outcome
#             (transactions) or sign (concurrent); optional
#   at_least  from how many on, 1 to 1000
#   within    the window, "1s" to "31d"
#   action    "warn", "throttle" (then also pause = "5s" between two reads) or "block"
#   for       how long; without it until an operator reverses the decision
#
# While its decision stands, a rule does not decide again; after it, it counts anew.

[[rule]]
name = "flood"
count = "reads"
at_least = 600
within = "1m"
action = "throttle"
pause = "1s"
for = "10m"

[[rule]]
name = "many-errors"
count = "errors"
at_least = 20
within = "10m"
action = "warn"
for = "1h"

[[rule]]
name = "many-refusals"
count = "refusals"
at_least = 20
within = "10m"
action = "warn"
for = "1h"

[[rule]]
name = "reported"
count = "reports"
at_least = 1
within = "1d"
action = "warn"
for = "1d"

[[rule]]
name = "bad-line"
count = "resent"
at_least = 200
within = "10m"
action = "warn"
for = "1h"

[[rule]]
name = "two-devices"
count = "concurrent"
at_least = 3
within = "10m"
action = "warn"
for = "1h"

# Reads that one reader may begin in any minute, whatever the rules say, 1 to 120000; it stands
# before the first [[rule]]:
# reads_per_minute = 6000

# Examples that are off. Block a reader after five reports of one kind within a week:
# [[rule]]
# name = "broken-seals"
# count = "reports"
# check = "broken-seal"
# at_least = 5
# within = "7d"
# action = "block"
"#;

/// One `[[rule]]`, each word with its place in the text.
type Table = BTreeMap<Spanned<String>, Spanned<Value>>;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, rename = "rule")]
    rules: Vec<Spanned<Table>>,
    reads_per_minute: Option<Spanned<u32>>,
}

/// Parses the file's text.
///
/// # Errors
/// A sentence that names line, rule and field.
pub fn parse_rules(text: &str) -> Result<RiskRules, String> {
    let line = |at: usize| text.get(..at).map_or(0, |before| before.matches('\n').count()) + 1;
    let file: File = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        format!("line {}: {}", line(at), error.message().replace('\n', " "))
    })?;
    let mut rules = Vec::with_capacity(file.rules.len());
    for table in &file.rules {
        let fields = Fields { table: table.get_ref(), start: table.span().start };
        rules.push(fields.rule().map_err(|wrong| {
            let name = fields.shown_name();
            format!("line {}: rule {name}: {}: {}", line(wrong.at), wrong.field, wrong.detail)
        })?);
    }
    let at = |index: usize, field: &str| {
        let table = &file.rules[index];
        Fields { table: table.get_ref(), start: table.span().start }.place(field)
    };
    let names: Vec<_> = rules.iter().map(|rule| rule.name.clone()).collect();
    let rules = RiskRules::new(rules).map_err(|(index, RuleError { field, detail })| {
        format!("line {}: rule {:?}: {field}: {detail}", line(at(index, field)), names[index])
    })?;
    match file.reads_per_minute {
        None => Ok(rules),
        Some(number) => rules
            .with_reads_per_minute(*number.get_ref())
            .map_err(|error| format!("line {}: {error}", line(number.span().start))),
    }
}

/// A field that is not as it must be.
struct Wrong {
    field: String,
    at: usize,
    detail: String,
}

struct Fields<'a> {
    table: &'a Table,
    start: usize,
}

const FIELDS: [&str; 8] =
    ["name", "count", "check", "at_least", "within", "action", "pause", "for"];

impl Fields<'_> {
    fn find(&self, field: &str) -> Option<(&Spanned<String>, &Spanned<Value>)> {
        self.table.iter().find(|(name, _)| name.get_ref() == field)
    }

    /// Where a field stands, or the rule if it has none such.
    fn place(&self, field: &str) -> usize {
        self.find(field).map_or(self.start, |(name, _)| name.span().start)
    }

    fn shown_name(&self) -> String {
        let name = self.find("name").and_then(|(_, value)| value.get_ref().as_str());
        name.map_or_else(|| "without a name".to_owned(), |name| format!("{name:?}"))
    }

    fn wrong(&self, field: &str, detail: impl Into<String>) -> Wrong {
        Wrong { field: field.to_owned(), at: self.place(field), detail: detail.into() }
    }

    fn text(&self, field: &str) -> Result<Option<&str>, Wrong> {
        let Some((_, value)) = self.find(field) else { return Ok(None) };
        let text = value.get_ref().as_str();
        text.map(Some).ok_or_else(|| self.wrong(field, "a text in quotes"))
    }

    fn needed(&self, field: &str) -> Result<&str, Wrong> {
        self.text(field)?.ok_or_else(|| self.wrong(field, "it is missing"))
    }

    fn duration(&self, field: &str) -> Result<Option<std::time::Duration>, Wrong> {
        let text = self.text(field)?;
        text.map(|text| parse_duration(text).map_err(|detail| self.wrong(field, detail)))
            .transpose()
    }

    fn rule(&self) -> Result<Rule, Wrong> {
        let unknown = self.table.keys().find(|name| !FIELDS.contains(&name.get_ref().as_str()));
        if let Some(name) = unknown {
            let detail = format!("no such field; there are {}", FIELDS.join(", "));
            return Err(self.wrong(name.get_ref(), detail));
        }
        let count = RiskKind::from_name(self.needed("count")?).ok_or_else(|| {
            let names: Vec<_> = RiskKind::ALL.iter().map(|kind| kind.name()).collect();
            self.wrong("count", format!("one of {}", names.join(", ")))
        })?;
        let at_least = match self.find("at_least") {
            None => return Err(self.wrong("at_least", "it is missing")),
            Some((_, value)) => value.get_ref().as_integer().and_then(|n| u32::try_from(n).ok()),
        };
        let at_least = at_least.ok_or_else(|| self.wrong("at_least", "a whole number"))?;
        let within = self.duration("within")?;
        let rule = Rule {
            name: self.needed("name")?.to_owned(),
            count,
            check: self.text("check")?.map(str::to_owned),
            at_least,
            within: within.ok_or_else(|| self.wrong("within", "it is missing"))?,
            action: self.action()?,
            lasts: self.duration("for")?,
        };
        rule.check().map_err(|RuleError { field, detail }| self.wrong(field, detail))?;
        Ok(rule)
    }

    fn action(&self) -> Result<RuleAction, Wrong> {
        let pause = self.duration("pause")?;
        let action = match RiskAction::from_name(self.needed("action")?) {
            Some(RiskAction::Warn) => RuleAction::Warn,
            Some(RiskAction::Block) => RuleAction::Block,
            Some(RiskAction::Throttle) => {
                let pause = pause.ok_or_else(|| self.wrong("pause", "a throttle needs one"))?;
                return Ok(RuleAction::Throttle { pause });
            }
            None => return Err(self.wrong("action", "one of warn, throttle, block")),
        };
        match pause {
            None => Ok(action),
            Some(_) => Err(self.wrong("pause", "only a throttle has one")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RULE: &str = "[[rule]]\nname = \"bad\"\ncount = \"errors\"\nat_least = 5\n\
                        within = \"10m\"\naction = \"block\"\n";

    #[test]
    fn what_init_writes_is_on_and_sensible() {
        let rules = parse_rules(INITIAL_RULES).unwrap();
        let names: Vec<_> = rules.iter().map(|rule| &*rule.name).collect();
        assert!(names.contains(&"flood") && names.contains(&"two-devices"), "{names:?}");
        assert!(rules.iter().all(|rule| rule.action != RuleAction::Block), "none locks out");
        let example = INITIAL_RULES.split("# Examples").nth(1).unwrap();
        let example = example.split_once('\n').unwrap().1.replace("# ", "");
        assert_eq!(parse_rules(&example).unwrap().iter().count(), 1, "the example is right");
        assert_eq!(parse_rules("").unwrap(), RiskRules::default());
        let bound = parse_rules("reads_per_minute = 100").unwrap();
        assert_eq!((bound.iter().count(), bound.reads_per_minute()), (0, 100));
    }

    #[test]
    fn a_rule_is_read_as_it_stands() {
        let text = format!("{RULE}check = \"packets\"\nfor = \"1h\"\n");
        let rules = parse_rules(&text).unwrap();
        let expected = Rule {
            name: "bad".to_owned(),
            count: RiskKind::Errors,
            check: Some("packets".to_owned()),
            at_least: 5,
            within: Duration::from_secs(600),
            action: RuleAction::Block,
            lasts: Some(Duration::from_secs(3600)),
        };
        assert_eq!(rules.iter().collect::<Vec<_>>(), [&expected]);
    }

    #[test]
    fn every_error_names_line_rule_and_field() {
        let changed = |from: &str, to: &str| RULE.replace(from, to);
        for (text, line, words) in [
            (changed("\"10m\"", "\"10 minutes\""), 5, ["\"bad\"", "within", "10m"]),
            (changed("\"10m\"", "600"), 5, ["\"bad\"", "within", "text"]),
            (changed("\"10m\"", "\"32d\""), 5, ["\"bad\"", "within", "31d"]),
            (changed("within = \"10m\"\n", ""), 1, ["\"bad\"", "within", "missing"]),
            (changed("\"errors\"", "\"mistakes\""), 3, ["\"bad\"", "count", "concurrent"]),
            (changed("= 5", "= 0"), 4, ["\"bad\"", "at_least", "1000"]),
            (changed("= 5", "= -1"), 4, ["\"bad\"", "at_least", "number"]),
            (changed("= 5", "= \"5\""), 4, ["\"bad\"", "at_least", "number"]),
            (changed("at_least", "atleast"), 4, ["\"bad\"", "atleast", "no such field"]),
            (changed("\"block\"", "\"burn\""), 6, ["\"bad\"", "action", "throttle"]),
            (changed("\"block\"", "\"throttle\""), 1, ["\"bad\"", "pause", "needs"]),
            (changed("\"bad\"", "\"Bad\""), 2, ["\"Bad\"", "name", "a-z"]),
            (changed("name = \"bad\"\n", ""), 1, ["without a name", "name", "missing"]),
            (format!("{RULE}pause = \"1s\"\n"), 7, ["\"bad\"", "pause", "throttle"]),
            (format!("{RULE}for = \"0s\"\n"), 7, ["\"bad\"", "for", "366d"]),
            (format!("{RULE}check = \"sam-gone\"\n"), 7, ["\"bad\"", "check", "server's fault"]),
            (format!("{RULE}\n{RULE}"), 9, ["\"bad\"", "name", "another"]),
            (format!("{RULE}[[rules]]\n"), 7, ["rules", "unknown", "rule"]),
            (format!("{RULE}name = \"x\"\n"), 7, ["duplicate", "key", ""]),
            ("[[rule]\n".to_owned(), 1, ["", "", ""]),
            (format!("\nreads_per_minute = 0\n{RULE}"), 2, ["reads_per_minute", "120000", ""]),
            (format!("reads_per_minute = 999999\n{RULE}"), 1, ["reads_per_minute", "120000", ""]),
            (format!("reads_per_minute = \"x\"\n{RULE}"), 1, ["string", "", ""]),
            ("rule = 5\n".to_owned(), 1, ["", "", "sequence"]),
        ] {
            let error = parse_rules(&text).unwrap_err();
            assert!(error.starts_with(&format!("line {line}: ")), "{text}\n{error}");
            for word in words {
                assert!(error.contains(word), "{word:?} is missing: {error}");
            }
            assert!(!error.contains('\n'), "{error:?}");
        }
    }
}
