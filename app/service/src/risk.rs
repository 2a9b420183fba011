//! What is known of a reader, and the rules over it (C5, [0060], [0061]).
//!
//! Events of a reader — reads, errors, refusals, reports, transactions, packets sent again, signs
//! of a second device — are stored in the transaction that they belong to, and the rules that they
//! may trip are counted there. A decision is stored with its reason, audited, and holds on all
//! servers at once, since they all ask the store.

mod evaluate;
mod meter;
mod record;
mod rules;

pub(crate) use evaluate::log;
pub use meter::{ALTERNATING_WITHIN, READS_PER_MINUTE, READS_PER_MINUTE_MAX};
pub(crate) use meter::{TooSoon, begin};
pub use record::{
    AMOUNT_MAX, CODE_MAX, FACTORY_TEXT_MAX, NewFactory, NewReport, NewTransaction, REFERENCE_MAX,
    REPORT_TEXT_MAX, ReaderRecord, Told,
};
pub(crate) use rules::blames_reader;
pub use rules::{
    AT_LEAST_MAX, LASTS_MAX, PAUSE_MAX, PAUSE_MIN, RULE_CHECK_MAX, RULE_NAME_MAX, RULES_MAX,
    RiskRules, Rule, RuleAction, RuleError, WINDOW_MAX, WINDOW_MIN, duration_text, parse_duration,
};
