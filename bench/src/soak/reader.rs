//! Readers that read on and on, with cards that come, go and change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use countersign_device::{Reader, Source};
use countersign_emulator::{CardHandle, EmulatedCard};
use countersign_idcard::reader::ReadOptions;
use countersign_server::ambient;
use rand_core::Rng;
use serde_json::{Value, json};
use testkit::rng::{ChaCha20Rng, seeded};
use tokio::time::sleep;

use super::cards::{Card, scheme};
use super::program::Machine;
use crate::Fallible;

/// Cards of each reader.
const CARDS: u64 = 12;
/// How a read may fail that met a card which was taken away. Everything else is a finding: server
/// and modules are never away for longer than a reader tries.
const EXPLAINED: [&str; 5] = ["card-removed", "card-timeout", "card-swapped", "no-card", "card"];
/// What became of the reads.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Gave what is on the card.
    pub(super) right: u64,
    /// Of these, answered by the server.
    pub(super) from_server: u64,
    /// Gave something else.
    pub(super) wrong: u64,
    /// Attempts beyond the first of a read.
    pub(super) retries: u64,
    /// Failed, by check.
    pub(super) failures: BTreeMap<String, u64>,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        self.right += other.right;
        self.from_server += other.from_server;
        self.wrong += other.wrong;
        self.retries += other.retries;
        for (check, count) in &other.failures {
            *self.failures.entry(check.clone()).or_default() += count;
        }
    }

    pub(super) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Failures that nothing here explains.
    pub(super) fn unexpected(&self) -> impl Iterator<Item = (&str, u64)> {
        let failures = self.failures.iter().map(|(check, count)| (check.as_str(), *count));
        failures.filter(|(check, _)| !EXPLAINED.contains(check))
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "right": self.right,
            "fromServer": self.from_server,
            "wrong": self.wrong,
            "retries": self.retries,
            "failures": self.failures,
        })
    }
}

/// One reader with its cards.
pub(super) struct Seat {
    reader: Reader,
    field: CardHandle,
    cards: Vec<Card>,
    draw: ChaCha20Rng,
}

impl Seat {
    pub(super) async fn take(machine: &Arc<Machine>, seed: u64, number: u32) -> Fallible<Self> {
        let device = machine.enroll(format!("RD-SOAK-{number}")).await?;
        let ambient = ambient();
        let provider = countersign_crypto::aws_lc::provider();
        let config = device.reader_config(&provider, ambient.clock.now())?;
        let (link, field) = EmulatedCard::new(scheme(), (ambient.rng)());
        let rng = Box::new(move || (ambient.rng)());
        let reader =
            Reader::new(config, machine.uplink(number), Box::new(link), ambient.clock, rng);
        let first = u64::from(number) * CARDS;
        let cards = (first..first + CARDS).map(Card::make).collect::<Fallible<_>>()?;
        Ok(Self { reader, field, cards, draw: seeded(seed ^ (u64::from(number) << 32)) })
    }

    fn chance(&mut self, of: u32) -> bool {
        self.draw.next_u32().is_multiple_of(of)
    }

    pub(super) async fn read_on(mut self, stop: Arc<AtomicBool>) -> Fallible<Tally> {
        let mut tally = Tally::default();
        while !stop.load(Ordering::Relaxed) {
            self.read_one(&mut tally).await;
            let pause = u64::from(self.draw.next_u32() % 20);
            sleep(Duration::from_millis(pause)).await;
        }
        Ok(tally)
    }

    async fn read_one(&mut self, tally: &mut Tally) {
        let at = self.draw.next_u32() as usize % self.cards.len();
        // Mostly another card; now and then the same once more, for the cache.
        let again = self.chance(3);
        if !again {
            self.field.remove();
            let _seen = self.reader.poll().await;
            self.field.insert(self.cards[at].image.clone());
        }
        if self.chance(20) {
            self.field.remove_after(u64::from(self.draw.next_u32() % 30));
        }
        let fingerprint = self.draw.next_u32().is_multiple_of(2);
        let options = ReadOptions { fingerprint, ..ReadOptions::default() };
        match self.reader.read(options).await {
            Ok(outcome) => {
                tally.retries += u64::from(outcome.attempts.saturating_sub(1));
                tally.from_server += u64::from(outcome.source != Source::Cache);
                let right = self.cards.iter().any(|card| {
                    Some(card.image.configuration()) == self.reader.present_configuration()
                        && card.is_what_was_read(&outcome, fingerprint)
                });
                *(if right { &mut tally.right } else { &mut tally.wrong }) += 1;
            }
            Err(error) => *tally.failures.entry(error.check().to_owned()).or_default() += 1,
        }
    }
}
