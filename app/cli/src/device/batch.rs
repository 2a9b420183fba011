//! Reads one after the other: counted, kept if asked for, and shown as they go.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use countersign_device::{Outcome, ReadJournal, Reader, Source};
use countersign_idcard::PlainData;
use countersign_idcard::reader::ReadOptions;
use countersign_idcard::record::IdRecord;
use countersign_net::{mode_name, policy_name};
use countersign_server::ambient;
use countersign_service::Ambient;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::cards::Cards;
use super::millis;
use crate::failure::Failure;
use crate::local::write_private;
use crate::output::{Output, error_json, print, print_error};

/// Most reads one command does; of those without an end, most that are told one by one.
pub(super) const READS_MAX: u32 = 10_000;
/// The shortest pause after a failed read that is gone on after.
const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// What a batch is to do.
pub(super) struct Plan {
    /// How many reads; none: until it is stopped.
    pub(super) reads: Option<u32>,
    pub(super) options: ReadOptions,
    /// How long to wait between two reads, looking for cards.
    pub(super) pause: Duration,
    /// A failed read is counted, and the next one begun.
    pub(super) keep_going: bool,
    /// Where reads are kept.
    pub(super) journal: Option<ReadJournal>,
    /// New file for the last read's photo.
    pub(super) photo: Option<PathBuf>,
    /// Say nothing but the one JSON value.
    pub(super) json: bool,
}

/// How many reads were answered from where.
#[derive(Default)]
struct Answered {
    card: u32,
    /// The card's encrypted data were kept, the server was asked.
    packets: u32,
    /// By the reader alone.
    cache: u32,
}

impl Answered {
    const fn count(&mut self, source: Source) {
        let count = match source {
            Source::Server => &mut self.card,
            Source::ServerFromCache => &mut self.packets,
            Source::Cache => &mut self.cache,
        };
        *count = count.saturating_add(1);
    }

    const fn all(&self) -> u32 {
        self.card.saturating_add(self.packets).saturating_add(self.cache)
    }

    fn text(&self) -> String {
        let Self { card, packets, cache } = self;
        format!("{card} from the card, {packets} from kept packets, {cache} from the cache alone")
    }
}

/// A batch, and what came of it so far.
pub(super) struct Batch {
    plan: Plan,
    ambient: Ambient,
    bar: ProgressBar,
    begun: u32,
    /// Reads done, by where their answer came from.
    from: Answered,
    failed: u32,
    reads: VecDeque<Value>,
    failures: VecDeque<Value>,
}

impl Batch {
    pub(super) fn new(plan: Plan) -> Self {
        let bar = match plan.reads {
            Some(1) => ProgressBar::hidden(),
            // Hidden by itself where stderr is no terminal.
            Some(reads) => {
                ProgressBar::with_draw_target(Some(reads.into()), ProgressDrawTarget::stderr())
            }
            None => ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()),
        };
        let style = if plan.reads.is_some() {
            "{bar:30} {pos}/{len} {msg} {elapsed}"
        } else {
            "{spinner} {pos} {msg} {elapsed}"
        };
        bar.set_style(ProgressStyle::with_template(style).expect("a constant template, tested"));
        Self {
            plan,
            ambient: ambient(),
            bar,
            begun: 0,
            from: Answered::default(),
            failed: 0,
            reads: VecDeque::new(),
            failures: VecDeque::new(),
        }
    }

    /// Reads until the plan is fulfilled, or a read fails that is not to be gone on after.
    pub(super) async fn run(
        &mut self,
        reader: &mut Reader,
        cards: &mut Cards,
    ) -> Result<(), Failure> {
        while self.plan.reads.is_none_or(|reads| self.begun < reads) {
            if self.begun > 0 {
                reader.attend(self.plan.pause).await;
            }
            self.begun = self.begun.saturating_add(1);
            cards.present_next(reader).await;
            if let Err(failure) = self.one(reader).await {
                self.failed = self.failed.saturating_add(1);
                // What can not be kept is not to be read: going on would lose it.
                if !self.plan.keep_going || failure.check.starts_with("reads-") {
                    return Err(failure);
                }
                self.told(&failure);
                reader.attend(AFTER_FAILURE).await;
            }
            self.show();
        }
        Ok(())
    }

    async fn one(&mut self, reader: &mut Reader) -> Result<(), Failure> {
        let before = reader.traffic();
        let outcome = reader.read(self.plan.options).await?;
        let after = reader.traffic();
        let bytes = (after.sent - before.sent, after.received - before.received);
        let record = decode(&outcome.data)?;
        let kept = self.keep(&outcome)?;
        if let Some(path) = self.plan.photo.as_ref().filter(|_| self.plan.reads == Some(self.begun))
        {
            write_private(path, outcome.data.photo())?;
        }
        self.from.count(outcome.source);
        if self.plan.json {
            let mut read = read_json(&outcome, bytes, &record);
            if let Some(entry) = kept {
                read["kept"] = entry.into();
            }
            listed(&mut self.reads, read);
        } else {
            let mut text = read_text(self.begun, &outcome, bytes, &record);
            if let Some(entry) = kept {
                text += &format!("\n  {:<14} {entry}", "kept as");
            }
            self.bar.suspend(|| print(&text));
        }
        Ok(())
    }

    /// On the disk before it is reported; under which number.
    fn keep(&self, outcome: &Outcome) -> Result<Option<u64>, Failure> {
        let Some(journal) = &self.plan.journal else { return Ok(None) };
        let (now, mut rng) = (self.ambient.clock.now(), (self.ambient.rng)());
        let kept = journal.append(&mut *rng, now, outcome.source, &outcome.data)?;
        if kept.dropped_torn {
            tracing::warn!(
                "a kept read that a crash had cut off was dropped; it had not been reported"
            );
        }
        Ok(Some(kept.number))
    }

    fn told(&mut self, failure: &Failure) {
        let text = format!("read {}: {} [{}]", self.begun, failure.detail, failure.check);
        self.bar.suspend(|| print_error(&text));
        let failure = json!({ "number": self.begun, "error": error_json(failure) });
        listed(&mut self.failures, failure);
    }

    fn show(&self) {
        self.bar.set_position(self.begun.into());
        self.bar.set_message(format!("{}, {} failed", self.from.text(), self.failed));
    }

    /// What came of it.
    pub(super) fn finish(self, ended: Result<(), Failure>) -> Result<Output, Failure> {
        self.bar.finish_and_clear();
        let json = json!({
            "reads": self.reads,
            "done": self.from.all(),
            "fromCard": self.from.card,
            "fromPackets": self.from.packets,
            "fromCache": self.from.cache,
            "failed": self.failed,
            "failures": self.failures,
        });
        ended.map_err(|failure| failure.after(json.clone()))?;
        let text = if self.begun > 1 {
            format!("{} reads done: {}; {} failed", self.from.all(), self.from.text(), self.failed)
        } else {
            String::new()
        };
        Ok(Output { refused: self.failed > 0, ..Output::new(json, text) })
    }
}

/// The latest [`READS_MAX`]: a batch without an end does not grow without one.
fn listed(list: &mut VecDeque<Value>, value: Value) {
    if list.len() >= READS_MAX as usize {
        list.pop_front();
    }
    list.push_back(value);
}

pub(super) fn decode(data: &PlainData) -> Result<IdRecord, Failure> {
    IdRecord::decode(data.text())
        .map_err(|error| Failure::check("record", format!("the record: {error}")))
}

pub(super) fn read_json(
    outcome: &Outcome,
    (sent, received): (u64, u64),
    record: &IdRecord,
) -> Value {
    json!({
        "record": record,
        "photoBytes": outcome.data.photo().len(),
        "fingerprintBytes": outcome.data.fingerprint().map(<[u8]>::len),
        "source": outcome.source.name(),
        "handshake": outcome.spoken.map(|spoken| mode_name(spoken.mode)),
        "suite": outcome.spoken.and_then(|spoken| spoken.suite.name()),
        "policy": outcome.spoken.map(|spoken| policy_name(spoken.policy)),
        "attempts": outcome.attempts,
        "ms": millis(outcome.total),
        "bytesSent": sent,
        "bytesReceived": received,
    })
}

pub(super) fn read_text(
    number: u32,
    outcome: &Outcome,
    (sent, received): (u64, u64),
    record: &IdRecord,
) -> String {
    let fields = serde_json::to_value(record).unwrap_or_default();
    let mut text = format!(
        "Read {number}: {} ms from {}, {sent} bytes sent, {received} received\n",
        millis(outcome.total),
        outcome.source.name()
    );
    for (name, value) in fields.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text += &format!("  {name:<14} {value}\n");
    }
    text + &format!("  {:<14} {} bytes, raw", "photo", outcome.data.photo().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_of_any_length_show_themselves() {
        for reads in [None, Some(1), Some(2)] {
            let (options, pause) = (ReadOptions::default(), Duration::ZERO);
            let (journal, photo) = (None, None);
            let json = true;
            let plan = Plan { reads, options, pause, keep_going: false, journal, photo, json };
            let batch = Batch::new(plan);
            batch.show();
            let output = batch.finish(Ok(())).unwrap();
            assert_eq!((&output.json["done"], output.refused), (&json!(0), false));
        }
    }

    #[test]
    fn a_list_without_an_end_keeps_the_latest() {
        let mut list = VecDeque::new();
        (0..=READS_MAX).for_each(|number| listed(&mut list, number.into()));
        assert_eq!(list.len(), READS_MAX as usize);
        assert_eq!((list.front(), list.back()), (Some(&json!(1)), Some(&json!(READS_MAX))));
    }
}
