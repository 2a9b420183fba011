//! What the server makes of its SAM modules, beside what the modules could do by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use countersign_emulator::CardImage;
use countersign_idcard::card::{CardDone, CardWork};
use countersign_idcard::reader::ReadOptions;
use countersign_idcard::sam::{SamConfig, SamEvent, SamHost, SamOperation, SamResult};
use countersign_net::serial::{self, BAUD};
use countersign_net::{Connection, Next};
use countersign_server::ambient;
use countersign_service::SamPort;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::stage::{self, Stage};
use crate::Fallible;
use crate::measure::micros;
use crate::report::Row;

/// What an emulated module takes for each command. A real one takes 2 to 3 s for its read command
/// alone, so this one asks ten times as much of the server.
const ANSWER_AFTER: Duration = Duration::from_millis(20);
/// How many modules a pool has.
const MODULES: [u32; 3] = [1, 4, 16];
/// Of each so many rounds one read per module, for the throughput.
const ROUNDS_A_READ: usize = 5;

/// A module's host on its port.
type Host = Connection<SamHost, Box<dyn SamPort>>;

/// Throughput and latency.
pub(super) fn rows(rounds: usize) -> Fallible<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(rounds))
}

async fn measure(rounds: usize) -> Fallible<Vec<Row>> {
    let card = stage::card()?;
    let (own, totals) = latencies(&card, rounds.max(2)).await?;
    let alone = micros(own.iter().sum::<Duration>()) / own.len() as f64;
    let mut rows = vec![Row::new("one module alone, read after read", 1e6 / alone, "1/s")];
    for modules in MODULES {
        let each = (rounds / ROUNDS_A_READ).max(2);
        let rate = throughput(modules, each).await?;
        let capacity = 1e6 / alone * f64::from(modules);
        let name = format!("reads per second, modules: {modules}");
        let row = Row::new(name, rate, "1/s").against("what the modules can do", capacity);
        rows.push(row.at_least(0.95));
    }
    for (name, part) in [("p50", 0.5), ("p99", 0.99)] {
        let (total, own) = (micros(quantile(&totals, part)), micros(quantile(&own, part)));
        let name = format!("latency beside the module's own time, {name}");
        rows.push(Row::new(name, total - own, "us").against("the module's own time", own));
    }
    Ok(rows)
}

/// The smallest sample that is not below this part of all; zero of none.
fn quantile(samples: &[Duration], part: f64) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let at = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or_default()
}

/// How long a read takes on one module with nothing but its host in front, and on a server that has
/// nothing else to do: in turns, on two modules, so that what disturbs one disturbs the other.
async fn latencies(
    card: &Arc<CardImage>,
    reads: usize,
) -> Fallible<(Vec<Duration>, Vec<Duration>)> {
    let sam = stage::start_sam(1, ANSWER_AFTER)?;
    let port: Box<dyn SamPort> = Box::new(serial::open(&sam.path().display().to_string(), BAUD)?);
    let ambient = ambient();
    let host = SamHost::new(SamConfig::default());
    let mut host = Connection::new(host, port, ambient.clock.clone(), (ambient.rng)());
    let (machine, now, _) = host.parts();
    machine.start(now)?;
    let SamEvent::Ready(_) = event(&mut host).await? else {
        return Err("the module is not ready".into());
    };
    let stage = Stage::set_up(1, 1, ANSWER_AFTER).await?;
    let (mut own, mut totals) = (Vec::new(), Vec::new());
    for at in 0..=reads {
        let started = Instant::now();
        read_alone(&mut host, card).await?;
        let alone = started.elapsed();
        let mut reader = stage.fresh_reader()?;
        reader.poll().await?;
        let outcome = reader.read(ReadOptions::default()).await?;
        stage.check(&outcome)?;
        if at > 0 {
            own.push(alone); // the first ones find everything cold
            totals.push(outcome.total);
        }
    }
    stage.stop().await;
    sam.stop();
    Ok((own, totals))
}

async fn event(host: &mut Host) -> Fallible<SamEvent> {
    match host.next(None).await? {
        Next::Event(event) => Ok(event),
        _ => Err("the module's port ended".into()),
    }
}

async fn operate(host: &mut Host, operation: SamOperation) -> Fallible<SamResult> {
    let (machine, now, _) = host.parts();
    machine.operate(now, operation)?;
    match event(host).await? {
        SamEvent::Done(result) => Ok(result),
        other => Err(format!("the module answered {other:?}").into()),
    }
}

async fn read_alone(host: &mut Host, card: &Arc<CardImage>) -> Fallible<()> {
    let mut link = stage::presented(card);
    let configuration = card.configuration().clone();
    let begun = operate(host, SamOperation::Begin { configuration }).await?;
    let SamResult::Challenge(challenge) = begun else { return Err("no challenge".into()) };
    let work = CardWork::Authenticate { challenge };
    let CardDone::Answer(answer) = work.perform(&mut link)? else { return Err("no answer".into()) };
    let (answer, random) = (answer.answer, answer.random);
    let proven = operate(host, SamOperation::Answer { answer, random }).await?;
    let SamResult::Proof(proof) = proven else { return Err("no proof".into()) };
    let configuration = card.configuration().clone();
    let work = CardWork::ReadEncrypted { proof, fingerprint: false, configuration };
    let CardDone::Encrypted(data) = work.perform(&mut link)? else { return Err("no data".into()) };
    match operate(host, SamOperation::Decrypt(data)).await? {
        SamResult::Plaintext { .. } => Ok(()),
        _ => Err("no plaintext".into()),
    }
}

/// Reads per second of a server with so many modules, always enough readers waiting, from the
/// first to the last of `each` reads per module.
async fn throughput(modules: u32, each: usize) -> Fallible<f64> {
    // Always more than are served, each a device of its own: the queue is fair among devices.
    let waiting = 2 * modules as usize + 2;
    let stage = Arc::new(Stage::set_up(modules, waiting, ANSWER_AFTER).await?);
    let modules = modules as usize;
    let reads = Arc::new(AtomicUsize::new(0));
    // The first reads of all find everything cold: twice as many as there are modules.
    let (cold, wanted) = (2 * modules, modules * (each + 2));
    let mut readers = JoinSet::new();
    for number in 0..waiting {
        let (stage, reads) = (stage.clone(), reads.clone());
        readers.spawn(async move {
            let mut ends = Vec::new();
            while reads.fetch_add(1, Ordering::Relaxed) < wanted {
                let outcome =
                    stage.fresh_reader_of(number, None)?.read(ReadOptions::default()).await?;
                stage.check(&outcome)?;
                ends.push(Instant::now());
            }
            Fallible::Ok(ends)
        });
    }
    let mut ends = Vec::new();
    while let Some(reader) = readers.join_next().await {
        ends.extend(reader??);
    }
    ends.sort_unstable();
    let rate = slope(&ends[cold..]).ok_or("too few reads")?;
    Arc::into_inner(stage).ok_or("a reader is left")?.stop().await;
    Ok(rate)
}

/// Ends per second, by least squares: modules that end in step, many at once, would make a mere
/// count between two ends too large.
fn slope(ends: &[Instant]) -> Option<f64> {
    let first = ends.first()?;
    let points: Vec<_> =
        (0..).map(f64::from).zip(ends.iter().map(|end| (*end - *first).as_secs_f64())).collect();
    let mean =
        |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
    let (mean_count, mean_time) = (mean(|point| point.0), mean(|point| point.1));
    let [mut up, mut down] = [0.0; 2];
    for (count, time) in points {
        up += (count - mean_count) * (time - mean_time);
        down += (time - mean_time) * (time - mean_time);
    }
    (down > 0.0).then_some(up / down)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_is_the_rate_also_of_ends_in_step() {
        let start = Instant::now();
        let steps = |in_step: u64| -> Vec<_> {
            (0..160).map(|at| start + Duration::from_millis(at / in_step * in_step * 10)).collect()
        };
        assert!((slope(&steps(1)).unwrap() - 100.0).abs() < 0.01);
        assert!((slope(&steps(16)).unwrap() - 100.0).abs() < 2.0);
        assert_eq!(slope(&[start]), None);
    }

    #[test]
    fn quantiles_are_samples() {
        let samples: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(quantile(&samples, 0.5), Duration::from_millis(50));
        assert_eq!(quantile(&samples, 0.99), Duration::from_millis(99));
        assert_eq!(quantile(&samples[..1], 0.5), Duration::from_millis(100));
        assert_eq!(quantile(&[], 0.5), Duration::ZERO);
    }
}
