//! A whole read: card, reader, server, SAM module behind a pty, and back.

mod pool;
mod resend;
mod stage;
mod tap;
mod wire;

use std::time::Duration;

use countersign_device::{Source, Traffic};
use countersign_idcard::reader::ReadOptions;
use countersign_idcard::{CONFIGURATION_LEN, ENCRYPTED_BASE_LEN, PHOTO_LEN, TEXT_LEN};

use crate::Fallible;
use crate::measure::{median, micros};
use crate::party::tree::Tree;
use crate::report::{Report, Row, Section};
use stage::Stage;
pub(crate) use stage::{NO_RULES, make_data_dir};

/// What the reads showed: medians of latencies, and the bytes of one read.
struct Seen {
    /// Microseconds from the read command to the plaintext.
    first: f64,
    /// Of it, until the channel stood.
    handshake: f64,
    second: f64,
    /// Bytes on the wire, both directions.
    first_bytes: f64,
    /// The most that any second read sent or received.
    second_bytes: u64,
    /// The same messages in the same order over rustls.
    tls_bytes: f64,
}

const NOTES: [&str; 2] = [
    "Latency is wall time on loopback with an emulated SAM module behind a pty; no peer reads such \
     cards, so there is none. A first read waits for durable commits: what else writes to the disk \
     can move it tenfold, so compare latencies of a quiet machine only.",
    "What the channel costs by itself, side by side with its peers: `bench channel`.",
];

/// Measures and compares.
pub(crate) fn report(rounds: usize) -> Fallible<Report> {
    let rows = rows(&Tree::new()?, rounds)?;
    let sections = vec![
        Section { title: "The ID-card read", rows },
        Section { title: "A link that damages packets (C10)", rows: resend::rows(rounds)? },
        Section { title: "The SAM pool (C12)", rows: pool::rows(rounds)? },
    ];
    Ok(Report { bench: "read", sections, notes: NOTES.map(String::from).to_vec() })
}

fn rows(tree: &Tree, rounds: usize) -> Fallible<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let seen = runtime.block_on(read_cards(tree, rounds))?;
    let content = CONFIGURATION_LEN + ENCRYPTED_BASE_LEN + TEXT_LEN + PHOTO_LEN;
    Ok(vec![
        Row::new("first read, latency", seen.first, "us"),
        Row::new("first read, its handshake", seen.handshake, "us")
            .against("the whole first read", seen.first),
        Row::new("second read, latency (C14)", seen.second, "us")
            .against("the first read", seen.first),
        Row::new("first read, bytes on the wire", seen.first_bytes, "bytes")
            .against("configuration, encrypted files and plaintext alone", content as f64),
        Row::new("first read, bytes on the wire", seen.first_bytes, "bytes")
            .against("the same messages over rustls mutual TLS 1.3", seen.tls_bytes),
        // C14: answered by the reader alone.
        Row::new("second read, bytes on the wire (C14)", seen.second_bytes as f64, "bytes")
            .against("the first read", seen.first_bytes)
            .at_most(0.0),
    ])
}

async fn read_cards(tree: &Tree, reads: usize) -> Fallible<Seen> {
    let stage = Stage::set_up(1, 1, Duration::ZERO).await?;
    let (mut firsts, mut handshakes, mut seconds) = (Vec::new(), Vec::new(), Vec::new());
    let mut second_bytes = 0;
    // One more than counted: the first one of all finds everything cold.
    for at in 0..=reads {
        let mut reader = stage.fresh_reader()?;
        reader.poll().await?;
        let first = reader.read(ReadOptions::default()).await?;
        let after_first = reader.traffic();
        let second = reader.read(ReadOptions::default()).await?;
        let after_second = reader.traffic();
        if (first.source, second.source) != (Source::Server, Source::Cache) {
            return Err("the reads were not answered from where they should".into());
        }
        stage.check(&first)?;
        stage.check(&second)?;
        let sum = |traffic: Traffic| traffic.sent + traffic.received;
        second_bytes = second_bytes.max(sum(after_second) - sum(after_first));
        if at == 0 {
            continue;
        }
        firsts.push(micros(first.total));
        handshakes.push(micros(first.handshake));
        seconds.push(micros(second.total));
    }
    let heard = stage.overhear().await?;
    stage.stop().await;
    Ok(Seen {
        first: median(&firsts),
        handshake: median(&handshakes),
        second: median(&seconds),
        first_bytes: heard.bytes as f64,
        second_bytes,
        tls_bytes: wire::over_tls(tree, &heard.messages)? as f64,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_read_is_run_whole_and_the_second_sends_nothing() {
        let rows = rows(&Tree::new().unwrap(), 1).unwrap();
        let sections = vec![Section { title: "", rows }];
        let report = Report { bench: "read", sections, notes: Vec::new() }.to_json();
        let rows = report["rows"].as_array().unwrap();
        let row = |name: &str, peer: &str| {
            let is = |row: &&Value| {
                row["name"] == name && row["peer"].as_str().is_some_and(|p| p.contains(peer))
            };
            rows.iter().find(is).unwrap_or_else(|| panic!("{name}: {rows:?}"))
        };
        let second = row("second read, bytes on the wire (C14)", "first read");
        assert_eq!((&second["ours"], &second["met"]), (&Value::from(0.0), &Value::from(true)));
        let overhead = row("first read, bytes on the wire", "alone")["ratio"].as_f64().unwrap();
        assert!(overhead > 1.0, "everything on the card went over the wire: {overhead}");
        let tls = row("first read, bytes on the wire", "rustls");
        assert!(tls["theirs"].as_f64().unwrap() > 2806.0, "{tls}");
    }
}
