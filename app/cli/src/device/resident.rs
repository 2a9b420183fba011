//! `device reader --resident`: the reader as a program that stays.

use std::io::Read as _;

use countersign_device::{Key, Reader, Resident, ResidentEvent};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::batch::{decode, read_json, read_text};
use super::cards::Cards;
use crate::failure::Failure;
use crate::output::{self, Output};
use crate::serve::stopped;

/// Keys that wait while the reader reads.
const KEYS_MAX: usize = 16;
/// Most reads whose records the one JSON value at the end has.
const SHOWN_MAX: usize = 10_000;

/// What a resident reader did, for the one JSON value at its end.
#[derive(Default)]
struct Done {
    reads: Vec<Value>,
    number: u32,
    served: u64,
    not_served: u64,
    busy: u64,
}

/// Serves until `q`, the end of the keys, or a signal.
pub(super) async fn run(
    reader: Reader,
    mut cards: Cards,
    with_keys: bool,
    json: bool,
) -> Result<Output, Failure> {
    cards.lay_next();
    let (pressed, keys) = mpsc::channel(KEYS_MAX);
    let quit = pressed.clone();
    tokio::spawn(async move {
        let _signal = stopped().await;
        let _over = quit.send(Key::Quit).await;
    });
    if with_keys {
        let press = move || watch_keys(&pressed, cards);
        std::thread::Builder::new()
            .name("keys".into())
            .spawn(press)
            .map_err(|error| Failure::environment("keys", error.to_string()))?;
        if !json {
            output::print("Keys: r read, f read with fingerprint, p take or put the card, q quit");
        }
    } else if !json {
        output::print("Waiting for the host's commands");
    }
    let mut done = Done::default();
    Resident::new(reader, keys).run(|event| done.take(event, json)).await;
    Ok(Output::new(
        json!({
            "reads": done.reads,
            "served": done.served,
            "notServed": done.not_served,
            "busy": done.busy,
        }),
        "",
    ))
}

/// Takes keys from stdin until it ends.
fn watch_keys(pressed: &mpsc::Sender<Key>, mut cards: Cards) {
    let mut there = true;
    for byte in std::io::stdin().lock().bytes() {
        let key = match byte {
            Ok(b'r') => Key::Read { fingerprint: false },
            Ok(b'f') => Key::Read { fingerprint: true },
            Ok(b'p') => {
                if there {
                    cards.take();
                } else {
                    cards.lay_next();
                }
                there = !there;
                continue;
            }
            Ok(b'q') | Err(_) => break,
            Ok(byte) => {
                if !byte.is_ascii_whitespace() {
                    eprintln!("no such key: the keys are r, f, p and q");
                }
                continue;
            }
        };
        if pressed.blocking_send(key).is_err() {
            return;
        }
    }
    let _over = pressed.blocking_send(Key::Quit);
}

impl Done {
    fn take(&mut self, event: ResidentEvent, json: bool) {
        let text = match event {
            ResidentEvent::Card { present: true } => "A card is there".to_owned(),
            ResidentEvent::Card { present: false } => "The card is gone".to_owned(),
            ResidentEvent::Read(read) => {
                let (outcome, used) = *read;
                let bytes = (used.sent, used.received);
                self.number += 1;
                match decode(&outcome.data) {
                    Ok(record) => {
                        self.keep(read_json(&outcome, bytes, &record));
                        read_text(self.number, &outcome, bytes, &record)
                    }
                    Err(failure) => self.failed(&failure),
                }
            }
            ResidentEvent::Failed(error) => self.failed(&error.into()),
            ResidentEvent::Served(summary) => {
                self.served += 1;
                format!("Read for the host: {} ms from {}", summary.ms, summary.source)
            }
            ResidentEvent::NotServed(failure) => {
                self.not_served += 1;
                format!("Not read for the host: {} [{}]", failure.detail, failure.check)
            }
            ResidentEvent::Busy => {
                self.busy += 1;
                "Busy: a read is under way".to_owned()
            }
        };
        if !json {
            output::print(&text);
        }
    }

    fn failed(&mut self, failure: &Failure) -> String {
        self.keep(output::failure_json(failure));
        format!("Not read: {} [{}]", failure.detail, failure.check)
    }

    fn keep(&mut self, read: Value) {
        if self.reads.len() < SHOWN_MAX {
            self.reads.push(read);
        }
    }
}
