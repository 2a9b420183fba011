//! What the record and the decisions look like in JSON.

use std::collections::BTreeMap;

use countersign_crypto::UnixTime;
use countersign_idcard::Check;
use countersign_service::{ReaderRecord, duration_text};
use countersign_store as store;
use countersign_store::{CertificateState, ReaderCount, RiskAction, RiskKind};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::json::timestamp;
use super::super::readers::Reader;

/// All that is known of a reader, at one moment.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct Record {
    /// The reader and its live certificate.
    reader: Reader,
    /// Its certificates, the newest first, at most 50.
    certificates: Vec<CertificateHistory>,
    /// How it was made; null if nobody said so.
    #[schema(required)]
    factory: Option<Factory>,
    /// What it came to since it was enrolled.
    totals: Counts,
    /// What it came to in the last 24 hours.
    last_day: Counts,
    /// When it began a read last; null if it never did.
    #[schema(required, format = DateTime)]
    last_read_at: Option<String>,
    /// The decisions that hold now.
    standing: Vec<Decision>,
}

/// A certificate that a reader has or had.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct CertificateHistory {
    /// Its serial number, lower-case hexadecimal.
    number: String,
    /// `intended` (never signed so far), `issued` or `revoked`.
    state: &'static str,
    /// When it was decided.
    #[schema(format = DateTime)]
    intended_at: String,
    /// Until when it holds or held.
    #[schema(format = DateTime)]
    not_after: String,
    /// When it was revoked; null if it was not.
    #[schema(required, format = DateTime)]
    revoked_at: Option<String>,
    /// Why.
    #[schema(required)]
    revoke_reason: Option<String>,
}

/// How a reader was made.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct Factory {
    #[serde(flatten)]
    said: FactoryData,
    /// Who said so.
    set_by: String,
    /// When.
    #[schema(format = DateTime)]
    set_at: String,
}

/// What is said of how a reader was made. Texts have at most 100 bytes and may be left out.
#[derive(Serialize, Deserialize, ToSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(in crate::http) struct FactoryData {
    /// Who made it.
    #[schema(max_length = 100)]
    pub(super) maker: String,
    /// The model.
    #[schema(max_length = 100)]
    pub(super) model: String,
    /// Version of its hardware.
    #[schema(max_length = 100)]
    pub(super) hardware: String,
    /// Version of its firmware.
    #[schema(max_length = 100)]
    pub(super) firmware: String,
    /// The batch it is from.
    #[schema(max_length = 100)]
    pub(super) batch: String,
    /// The day it was made on, `YYYY-MM-DD`, or empty.
    #[schema(example = "2026-01-31")]
    pub(super) made_on: String,
    /// Anything else.
    #[schema(max_length = 100)]
    pub(super) note: String,
}

/// How many of each.
#[derive(Serialize, ToSchema, Default)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct Counts {
    /// Reads begun, each attempt.
    reads: i64,
    /// Reads whose record was handed out.
    done: i64,
    /// Reads that failed on the reader's side, by check.
    errors: BTreeMap<String, i64>,
    /// Reads and proven connections that were refused, by check.
    refusals: BTreeMap<String, i64>,
    /// Reports against it, by kind.
    reports: BTreeMap<String, i64>,
    /// Transactions at it, by outcome.
    transactions: BTreeMap<String, i64>,
    /// Packets that had to be asked for again.
    resent: i64,
    /// Signs that two devices present its certificate, by sign.
    concurrent: BTreeMap<String, i64>,
}

impl Counts {
    fn of(counts: Vec<ReaderCount>) -> Self {
        let mut all = Self::default();
        for count in counts {
            let map = match RiskKind::from_name(&count.kind) {
                Some(RiskKind::Reads) => {
                    all.reads += count.total;
                    continue;
                }
                Some(RiskKind::Resent) => {
                    all.resent += count.total;
                    continue;
                }
                Some(RiskKind::Errors) => &mut all.errors,
                Some(RiskKind::Refusals) => &mut all.refusals,
                Some(RiskKind::Reports) => &mut all.reports,
                Some(RiskKind::Transactions) => &mut all.transactions,
                Some(RiskKind::Concurrent) => &mut all.concurrent,
                _ => {
                    all.done += count.total; // the one kind that no rule counts
                    continue;
                }
            };
            // What depends on a secret has one name outside; the audit has the detail.
            *map.entry(Check::publish(&count.label).to_owned()).or_default() += count.total;
        }
        all
    }
}

/// A decision of a rule.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RiskDecision)]
pub(in crate::http) struct Decision {
    /// `dec_…`.
    id: String,
    /// The reader.
    reader_id: String,
    /// The rule's name.
    rule: String,
    /// The rule as it was.
    #[schema(value_type = Object)]
    terms: serde_json::Value,
    /// What was counted when it tripped.
    counted: u32,
    /// What is done.
    action: Action,
    /// The least time between two reads, of a throttle.
    #[schema(required, example = "5s")]
    pause: Option<String>,
    /// Why, in one sentence.
    reason: String,
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// Until when; null until an operator reverses it.
    #[schema(required, format = DateTime)]
    until: Option<String>,
    /// Whether it holds now.
    stands: bool,
    /// How it ended; null if nobody noted its end.
    #[schema(required)]
    end: Option<DecisionEnd>,
}

/// What a rule does.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RiskAction)]
enum Action {
    /// It is written down, for people to look at.
    Warn,
    /// The reader must pause between reads.
    Throttle,
    /// The reader is refused.
    Block,
}

/// How a decision ended.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct DecisionEnd {
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// `system` if its time was over, else the operator's id.
    by: String,
    /// Why.
    reason: String,
}

impl Decision {
    pub(super) fn at(now: UnixTime, decision: store::RiskDecision) -> Self {
        Self {
            stands: decision.stands(now),
            id: decision.id,
            reader_id: decision.device_id,
            rule: decision.rule,
            terms: serde_json::from_str(&decision.terms).unwrap_or_default(),
            counted: decision.counted,
            action: match decision.action {
                RiskAction::Warn => Action::Warn,
                RiskAction::Throttle => Action::Throttle,
                RiskAction::Block => Action::Block,
            },
            pause: decision.pause.map(duration_text),
            reason: decision.reason,
            at: timestamp(decision.at),
            until: decision.until.map(timestamp),
            end: decision.end.map(|end| DecisionEnd {
                at: timestamp(end.at),
                by: end.by,
                reason: end.reason,
            }),
        }
    }
}

impl From<store::Certificate> for CertificateHistory {
    fn from(certificate: store::Certificate) -> Self {
        Self {
            number: certificate.number,
            state: match certificate.state {
                CertificateState::Intended => "intended",
                CertificateState::Issued => "issued",
                CertificateState::Revoked => "revoked",
            },
            intended_at: timestamp(certificate.intended_at),
            not_after: timestamp(certificate.not_after),
            revoked_at: certificate.revoked_at.map(timestamp),
            revoke_reason: certificate.revoke_reason,
        }
    }
}

impl From<store::Factory> for Factory {
    fn from(factory: store::Factory) -> Self {
        let store::Factory { maker, model, hardware, firmware, batch, made_on, note, .. } = factory;
        Self {
            said: FactoryData { maker, model, hardware, firmware, batch, made_on, note },
            set_by: factory.set_by,
            set_at: timestamp(factory.set_at),
        }
    }
}

impl Record {
    pub(super) fn at(now: UnixTime, record: ReaderRecord) -> Self {
        let mut last_day = Counts::of(record.recent);
        last_day.done = record.recent_done;
        let standing = record.standing.into_iter().map(|decision| Decision::at(now, decision));
        Self {
            reader: Reader::at(now, record.reader),
            certificates: record.certificates.into_iter().map(Into::into).collect(),
            factory: record.factory.map(Into::into),
            totals: Counts::of(record.totals),
            last_day,
            last_read_at: record.last_read_at.map(timestamp),
            standing: standing.collect(),
        }
    }
}

/// A report against a reader.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct Report {
    /// `rpt_…`.
    id: String,
    /// The reader.
    reader_id: String,
    /// Its name at whoever reported.
    reference: String,
    /// What kind.
    kind: String,
    /// What happened.
    text: String,
    /// The operator who brought it in.
    told_by: String,
    /// When.
    #[schema(format = DateTime)]
    at: String,
}

impl From<store::Report> for Report {
    fn from(report: store::Report) -> Self {
        let store::Report { id, device_id, reference, kind, text, told_by, at } = report;
        Self { id, reader_id: device_id, reference, kind, text, told_by, at: timestamp(at) }
    }
}

/// A report to be stored.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::http) struct NewReport {
    /// What kind: 1 to 40 of `a-z 0-9 -`; rules may count one kind.
    #[schema(example = "broken-seal", min_length = 1, max_length = 40)]
    pub(super) kind: String,
    /// What happened, at most 2000 bytes.
    #[schema(max_length = 2000)]
    pub(super) text: String,
    /// Its name at whoever reports, 1 to 64 visible ASCII characters.
    #[schema(min_length = 1, max_length = 64)]
    pub(super) reference: String,
}

/// A transaction at a reader.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct Transaction {
    /// `txn_…`.
    id: String,
    /// The reader.
    reader_id: String,
    /// Its name at the back office.
    reference: String,
    /// A decimal number.
    amount: String,
    /// Three capital letters (ISO 4217).
    currency: String,
    /// How it ended.
    outcome: String,
    /// The operator who told it.
    told_by: String,
    /// When.
    #[schema(format = DateTime)]
    at: String,
}

impl From<store::Transaction> for Transaction {
    fn from(told: store::Transaction) -> Self {
        let store::Transaction { id, device_id, reference, amount, currency, .. } = told;
        let (outcome, told_by, at) = (told.outcome, told.told_by, timestamp(told.at));
        Self { id, reader_id: device_id, reference, amount, currency, outcome, told_by, at }
    }
}

/// A transaction to be stored.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::http) struct NewTransaction {
    /// Its name at the back office, 1 to 64 visible ASCII characters.
    #[schema(min_length = 1, max_length = 64)]
    pub(super) reference: String,
    /// A decimal number, at most 4 digits after the point.
    #[schema(example = "12.34")]
    pub(super) amount: String,
    /// Three capital letters (ISO 4217).
    #[schema(example = "CNY")]
    pub(super) currency: String,
    /// How it ended: 1 to 40 of `a-z 0-9 -`; rules may count one outcome.
    #[schema(example = "paid", min_length = 1, max_length = 40)]
    pub(super) outcome: String,
}

/// Something that the rules count.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct Event {
    /// Rises with every event.
    id: i64,
    /// `reads`, `errors`, `refusals`, `reports`, `transactions`, `resent` or `concurrent`.
    kind: &'static str,
    /// The check, kind, outcome or sign; empty where there is none. `authentication` for all
    /// checks that depend on a secret.
    label: String,
    /// How many.
    amount: u32,
    /// When.
    #[schema(format = DateTime)]
    at: String,
}

impl From<store::RiskRow> for Event {
    fn from(row: store::RiskRow) -> Self {
        Self {
            id: row.id,
            kind: row.event.kind.name(),
            label: Check::publish(&row.event.label).to_owned(),
            amount: row.event.amount,
            at: timestamp(row.at),
        }
    }
}
