//! The record of one reader: what people and back offices tell of it, and all of it for them to
//! see.

use std::time::Duration;

use countersign_store::{
    AuditEntry, CLOCKS_DIFFER, Certificate, DecisionEnd, DeviceKind, DeviceRecord, Factory, IdKind,
    Page, ReaderCount, Report, RiskDecision, RiskEvent, RiskKind, RiskRow, StoreError, Transaction,
    Tx,
};

use super::{WINDOW_MAX, log};
use crate::devices::check_reason;
use crate::{Actor, Scope, Service, ServiceError, done};

/// Longest text of the factory data, in bytes.
pub const FACTORY_TEXT_MAX: usize = 100;
/// Longest text of a report, in bytes.
pub const REPORT_TEXT_MAX: usize = 2000;
/// Longest reference, in bytes.
pub const REFERENCE_MAX: usize = 64;
/// Longest kind of a report and outcome of a transaction, in bytes.
pub const CODE_MAX: usize = 40;
/// Longest amount, in characters.
pub const AMOUNT_MAX: usize = 24;
/// Digits that an amount may have after the point.
const DECIMALS_MAX: usize = 4;
/// Certificates that a record shows.
const CERTIFICATES_SHOWN: u32 = 50;
/// Decisions without an end that a record shows: more than there can be rules.
const OPEN_SHOWN: u32 = 64;
/// What "recent" means in a record.
const RECENT: Duration = Duration::from_secs(86_400);
/// Rows that one turn of the clean-up touches, so that it holds no lock for long.
const CLEAN_UP_ROWS: u32 = 1000;
/// Turns of one clean-up; what is left waits for the next.
const CLEAN_UP_TURNS: u32 = 50;

/// What is said of how a reader was made. Every text may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewFactory {
    /// Who made it.
    pub maker: String,
    /// The model.
    pub model: String,
    /// Version of its hardware.
    pub hardware: String,
    /// Version of its firmware.
    pub firmware: String,
    /// The batch it is from.
    pub batch: String,
    /// The day it was made on, `YYYY-MM-DD`.
    pub made_on: String,
    /// Anything else.
    pub note: String,
}

/// A report against a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewReport {
    /// What kind: lower-case letters, digits, hyphens.
    pub kind: String,
    /// What happened.
    pub text: String,
    /// Its name at whoever reports; the same again is the same report.
    pub reference: String,
}

/// A transaction at a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTransaction {
    /// Its name at the back office; the same again is the same transaction.
    pub reference: String,
    /// A decimal number, `12.34`.
    pub amount: String,
    /// Three capital letters (ISO 4217).
    pub currency: String,
    /// How it ended: lower-case letters, digits, hyphens.
    pub outcome: String,
}

/// Something told under a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told<T> {
    /// As it is stored.
    pub stored: T,
    /// Whether it is stored since now; false if it was told before.
    pub created: bool,
}

/// All that is known of a reader, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderRecord {
    /// The reader and its live certificate.
    pub reader: DeviceRecord,
    /// Its certificates, the newest first: the history of the mapping (C4).
    pub certificates: Vec<Certificate>,
    /// How it was made, if anybody said so.
    pub factory: Option<Factory>,
    /// What it came to since it was enrolled.
    pub totals: Vec<ReaderCount>,
    /// What it came to within a day.
    pub recent: Vec<ReaderCount>,
    /// Reads of that day that were done.
    pub recent_done: i64,
    /// When it began a read last.
    pub last_read_at: Option<countersign_crypto::UnixTime>,
    /// The decisions that hold now.
    pub standing: Vec<RiskDecision>,
}

fn refuse<T>(check: &'static str, detail: String) -> Result<T, ServiceError> {
    Err(ServiceError::refused(check, detail))
}

fn check_text(what: &str, text: &str, max: usize, lines: bool) -> Result<(), ServiceError> {
    let bad = |c: char| c.is_control() && !(lines && c == '\n');
    if text.len() > max || text.contains(bad) {
        let detail = format!("{what} has at most {max} bytes and no control characters");
        return refuse("text-length", detail);
    }
    Ok(())
}

fn check_code(what: &str, code: &str) -> Result<(), ServiceError> {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    if !(1..=CODE_MAX).contains(&code.len()) || !code.bytes().all(plain) {
        return refuse("code-format", format!("{what} has 1 to {CODE_MAX} of a-z 0-9 and -"));
    }
    Ok(())
}

fn check_reference(reference: &str) -> Result<(), ServiceError> {
    let visible = |c: u8| c.is_ascii_graphic();
    if !(1..=REFERENCE_MAX).contains(&reference.len()) || !reference.bytes().all(visible) {
        let detail = format!("a reference has 1 to {REFERENCE_MAX} visible ASCII characters");
        return refuse("reference-format", detail);
    }
    Ok(())
}

fn check_amount(amount: &str) -> Result<(), ServiceError> {
    let number = amount.strip_prefix('-').unwrap_or(amount);
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let canonical = whole == "0" || !whole.starts_with('0');
    if amount.len() > AMOUNT_MAX
        || !digits(whole)
        || !canonical
        || !digits(decimals)
        || decimals.len() > DECIMALS_MAX
    {
        let detail = format!(
            "amount is a decimal number like 12.34, at most {AMOUNT_MAX} characters, \
             {DECIMALS_MAX} of them after the point"
        );
        return refuse("amount-format", detail);
    }
    Ok(())
}

fn check_currency(currency: &str) -> Result<(), ServiceError> {
    if currency.len() == 3 && currency.bytes().all(|c| c.is_ascii_uppercase()) {
        return Ok(());
    }
    refuse("currency-format", "currency is three capital letters".to_owned())
}

/// `YYYY-MM-DD` with a month and a day that can be, or nothing.
fn check_day(day: &str) -> Result<(), ServiceError> {
    let shape = day.len() == 10
        && day.bytes().enumerate().all(|(index, c)| match index {
            4 | 7 => c == b'-',
            _ => c.is_ascii_digit(),
        });
    let within = |range: std::ops::Range<usize>, max: u8| {
        let part = day.get(range).and_then(|part| part.parse::<u8>().ok());
        part.is_some_and(|part| (1..=max).contains(&part))
    };
    if day.is_empty() || (shape && within(5..7, 12) && within(8..10, 31)) {
        return Ok(());
    }
    refuse("day-format", "madeOn is a day, YYYY-MM-DD, or empty".to_owned())
}

/// What was told under a reference before must be the same.
fn settle<T>(
    stored: Result<(), T>,
    new: &T,
    same: impl Fn(&T, &T) -> bool,
) -> Result<Told<T>, ServiceError>
where
    T: Clone,
{
    match stored {
        Ok(()) => Ok(Told { stored: new.clone(), created: true }),
        Err(old) if same(&old, new) => Ok(Told { stored: old, created: false }),
        Err(_) => {
            let detail = "this reference was told before, with another content";
            Err(ServiceError::refused("reference-taken", detail))
        }
    }
}

fn existing(tx: &mut Tx<'_>, id: &str) -> Result<DeviceRecord, ServiceError> {
    tx.device_by_id(id)?
        .filter(|record| record.device.kind == DeviceKind::Reader)
        .ok_or(ServiceError::NotFound { what: "reader" })
}

impl Service {
    /// Sets how a reader was made; the latest word counts.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`]; `text-length`, `day-format`.
    pub async fn set_factory(
        &self,
        actor: &Actor,
        id: &str,
        new: NewFactory,
    ) -> Result<Factory, ServiceError> {
        actor.require(Scope::ReadersReport)?;
        let texts = [&new.maker, &new.model, &new.hardware, &new.firmware, &new.batch, &new.note];
        for text in texts {
            check_text("each text", text, FACTORY_TEXT_MAX, false)?;
        }
        check_day(&new.made_on)?;
        let now = self.now();
        let NewFactory { maker, model, hardware, firmware, batch, made_on, note } = new;
        let set_by = actor.id().to_owned();
        let factory =
            Factory { maker, model, hardware, firmware, batch, made_on, note, set_by, set_at: now };
        let (entry, id, stored) =
            (done(now, actor, "reader.factory", id), id.to_owned(), factory.clone());
        self.store
            .run_tx("set_factory", move |tx| {
                existing(tx, &id)?;
                tx.set_factory(&id, &stored)?;
                tx.append_audit(&entry)?;
                Ok::<_, ServiceError>(())
            })
            .await?;
        Ok(factory)
    }

    /// Stores a report against a reader. The same again changes nothing.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`]; `code-format`, `text-length`,
    /// `reference-format`; `reference-taken` if the reference was used for another report.
    pub async fn report_reader(
        &self,
        actor: &Actor,
        id: &str,
        new: NewReport,
    ) -> Result<Told<Report>, ServiceError> {
        actor.require(Scope::ReadersReport)?;
        check_code("kind", &new.kind)?;
        check_text("text", &new.text, REPORT_TEXT_MAX, true)?;
        check_reference(&new.reference)?;
        let report = Report {
            id: self.new_id(IdKind::Report),
            device_id: id.to_owned(),
            reference: new.reference,
            kind: new.kind,
            text: new.text,
            told_by: actor.id().to_owned(),
            at: self.now(),
        };
        let event = RiskEvent::one(RiskKind::Reports, &report.kind);
        let same = |old: &Report, new: &Report| (&old.kind, &old.text) == (&new.kind, &new.text);
        let detail = serde_json::json!({ "report": report.id, "kind": report.kind });
        let store = move |tx: &mut Tx<'_>| {
            let told = settle(tx.insert_report(&report)?, &report, same)?;
            Ok((told.created, told))
        };
        self.tell(actor, id, ("reader.report", detail), event, store).await
    }

    /// Stores a transaction at a reader, as a back office tells it. The same again changes nothing.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`]; `reference-format`,
    /// `amount-format`, `currency-format`, `code-format`; `reference-taken` if the reference was
    /// used for another transaction at this reader.
    pub async fn tell_transaction(
        &self,
        actor: &Actor,
        id: &str,
        new: NewTransaction,
    ) -> Result<Told<Transaction>, ServiceError> {
        actor.require(Scope::ReadersReport)?;
        check_reference(&new.reference)?;
        check_amount(&new.amount)?;
        check_currency(&new.currency)?;
        check_code("outcome", &new.outcome)?;
        let transaction = Transaction {
            id: self.new_id(IdKind::Transaction),
            device_id: id.to_owned(),
            reference: new.reference,
            amount: new.amount,
            currency: new.currency,
            outcome: new.outcome,
            told_by: actor.id().to_owned(),
            at: self.now(),
        };
        let event = RiskEvent::one(RiskKind::Transactions, &transaction.outcome);
        let same = |old: &Transaction, new: &Transaction| {
            let content =
                |t: &Transaction| (t.amount.clone(), t.currency.clone(), t.outcome.clone());
            content(old) == content(new)
        };
        let detail =
            serde_json::json!({ "transaction": transaction.id, "outcome": transaction.outcome });
        let store = move |tx: &mut Tx<'_>| {
            let told = settle(tx.insert_transaction(&transaction)?, &transaction, same)?;
            Ok((told.created, told))
        };
        self.tell(actor, id, ("reader.transaction", detail), event, store).await
    }

    /// Stores what was told; if it is new, it is audited and the rules look at it.
    async fn tell<T: Send + 'static>(
        &self,
        actor: &Actor,
        id: &str,
        (action, detail): (&str, serde_json::Value),
        event: RiskEvent,
        store: impl Fn(&mut Tx<'_>) -> Result<(bool, T), ServiceError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let now = self.now();
        let evaluation = self.evaluation(id, now, &[event.kind]);
        let entry = AuditEntry { detail: detail.to_string(), ..done(now, actor, action, id) };
        let id = id.to_owned();
        let (told, decisions) = self
            .store
            .run_tx("tell_reader", move |tx| {
                existing(tx, &id)?;
                let (created, told) = store(tx)?;
                let mut decisions = Vec::new();
                if created {
                    tx.append_audit(&entry)?;
                    decisions = evaluation.note(tx, std::slice::from_ref(&event))?;
                }
                Ok::<_, ServiceError>((told, decisions))
            })
            .await?;
        log(&decisions);
        Ok(told)
    }

    /// All that is known of a reader.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub async fn reader_record(&self, id: &str) -> Result<ReaderRecord, ServiceError> {
        let (id, now) = (id.to_owned(), self.now());
        self.store
            .read("reader_record", move |tx| {
                let reader = existing(tx, &id)?;
                let since = now.minus(RECENT);
                let totals = tx.reader_counts(&id)?;
                let last = |count: &&ReaderCount| count.kind == RiskKind::Reads.name();
                let mut standing = tx.open_decisions(&id, OPEN_SHOWN)?;
                standing.retain(|decision| decision.stands(now));
                Ok(ReaderRecord {
                    reader,
                    certificates: tx.certificates_of_device(&id, CERTIFICATES_SHOWN)?,
                    factory: tx.factory(&id)?,
                    last_read_at: totals.iter().find(last).map(|count| count.last_at),
                    totals,
                    recent: tx.recent_counts(&id, since)?,
                    recent_done: tx.reads_done_since(&id, since)?,
                    standing,
                })
            })
            .await
    }

    /// Reports against a reader, newest first.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`]; `page-limit`, `page-cursor`.
    pub async fn reports(
        &self,
        id: &str,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<Report>, ServiceError> {
        self.page(id, move |tx, id| tx.reports_page(id, cursor.as_deref(), limit)).await
    }

    /// Transactions at a reader, newest first.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`]; `page-limit`, `page-cursor`.
    pub async fn transactions(
        &self,
        id: &str,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<Transaction>, ServiceError> {
        self.page(id, move |tx, id| tx.transactions_page(id, cursor.as_deref(), limit)).await
    }

    /// Decisions over a reader, newest first.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`]; `page-limit`, `page-cursor`.
    pub async fn decisions(
        &self,
        id: &str,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<RiskDecision>, ServiceError> {
        self.page(id, move |tx, id| tx.decisions_page(id, cursor.as_deref(), limit)).await
    }

    /// What the rules count of a reader, newest first, as far back as the longest window.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`]; `page-limit`, `page-cursor`.
    pub async fn risk_events(
        &self,
        id: &str,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<RiskRow>, ServiceError> {
        self.page(id, move |tx, id| tx.risk_events_page(id, cursor.as_deref(), limit)).await
    }

    async fn page<T: Send + 'static>(
        &self,
        id: &str,
        page: impl Fn(&mut Tx<'_>, &str) -> Result<Page<T>, StoreError> + Send + 'static,
    ) -> Result<Page<T>, ServiceError> {
        let id = id.to_owned();
        self.store
            .read("reader_page", move |tx| {
                existing(tx, &id)?;
                Ok(page(tx, &id)?)
            })
            .await
    }

    /// Ends a decision over a reader: a block or throttle is lifted on all servers at once, and the
    /// rule counts anew. An operator's own block stays.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`]; `reason-length`; `decision-ended`.
    pub async fn reverse_decision(
        &self,
        actor: &Actor,
        id: &str,
        decision_id: &str,
        reason: &str,
    ) -> Result<RiskDecision, ServiceError> {
        actor.require(Scope::ReadersBlock)?;
        let reason = check_reason(reason)?;
        let now = self.now();
        let detail = serde_json::json!({ "decision": decision_id, "reason": reason });
        let entry =
            AuditEntry { detail: detail.to_string(), ..done(now, actor, "risk.reverse", id) };
        let end = DecisionEnd { at: now, by: actor.id().to_owned(), reason };
        let (id, decision_id) = (id.to_owned(), decision_id.to_owned());
        self.store
            .run_tx("reverse_decision", move |tx| {
                existing(tx, &id)?;
                let decision = tx.reverse_decision(&id, &decision_id, &end)?;
                tx.append_audit(&entry)?;
                Ok::<_, ServiceError>(decision)
            })
            .await
    }

    /// Removes events that no window reaches any more and notes the end of decisions whose time is
    /// over, in bounded turns. Returns how many events and decisions.
    ///
    /// # Errors
    /// The store's.
    pub async fn clean_up_risk(&self) -> Result<(u64, u64), ServiceError> {
        let now = self.now();
        let (before, after) = (now.minus(WINDOW_MAX + CLOCKS_DIFFER), now.plus(WINDOW_MAX));
        let (mut events, mut decisions) = (0, 0);
        for _ in 0..CLEAN_UP_TURNS {
            let (removed, ended) = self
                .store
                .run_snapshot("clean_up_risk", move |tx| {
                    let removed = tx.remove_risk_events(before, after, CLEAN_UP_ROWS)?;
                    Ok::<_, ServiceError>((removed, tx.end_decisions(now, CLEAN_UP_ROWS)?))
                })
                .await?;
            (events, decisions) = (events + removed, decisions + ended);
            if removed.max(ended) < u64::from(CLEAN_UP_ROWS) {
                break;
            }
        }
        Ok((events, decisions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_decimal_numbers_in_one_form() {
        for good in ["0", "12", "12.34", "-0.5", "0.0001", "99999999999999999.9999"] {
            assert_eq!(check_amount(good), Ok(()), "{good}");
        }
        for bad in ["", "-", ".5", "5.", "01", "1e3", "1,5", "+1", " 1", "0.00001", "--1"] {
            assert_eq!(check_amount(bad).unwrap_err().check(), "amount-format", "{bad}");
        }
        assert!(check_amount(&"9".repeat(AMOUNT_MAX + 1)).is_err());
    }

    #[test]
    fn days_references_and_codes_have_one_form() {
        for good in ["", "2026-02-28"] {
            assert_eq!(check_day(good), Ok(()));
        }
        for bad in ["2026", "2026-13-01", "2026-00-01", "2026-01-32", "26-01-01", "2026-01-0é"] {
            assert_eq!(check_day(bad).unwrap_err().check(), "day-format", "{bad}");
        }
        assert!(check_reference("A/1:2").is_ok() && check_reference("a b").is_err());
        assert!(check_reference("").is_err() && check_reference(&"x".repeat(65)).is_err());
        assert!(check_code("kind", "swapped-cards").is_ok() && check_code("kind", "A").is_err());
        assert!(check_currency("CNY").is_ok() && check_currency("cny").is_err());
    }
}
