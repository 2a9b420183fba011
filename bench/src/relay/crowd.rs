//! Idle sleeves: what one costs the server, and how soon the heartbeats of many are answered.

use std::fs;
use std::path::Path;
use std::time::Duration;

use countersign_device::{Api, DeviceKind};
use serde_json::Value;

use super::part::PER_MANAGER;
use super::percentile::percentile;
use super::process::Process;
use super::stage::enrolled;
use crate::Fallible;
use crate::report::Row;

/// Most sleeves of one server and one crowd: of 20 000 open files, their managers' and the rest
/// must have some too.
const PER_PROCESS: usize = 17_000;
/// What an idle sleeve may cost the server, in bytes.
const ALLOWED: f64 = 8192.0;
/// Heartbeats of a crowd of [`PER_MANAGER`] alone: so often, for so long.
const ALONE: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(5)];
/// What is still under way after a crowd has come, settles in this time.
const SETTLING: Duration = Duration::from_secs(2);

pub(super) fn manager_serial(number: usize) -> String {
    format!("MGR-{number}")
}

pub(super) fn sleeve_serial(number: usize) -> String {
    format!("SLV-{number}")
}

/// One server and its crowd.
struct Place {
    server: Process,
    crowd: Process,
    sleeves: usize,
}

impl Place {
    fn set_up(dir: &Path, number: usize, sleeves: usize) -> Fallible<Self> {
        let managers = sleeves.div_ceil(PER_MANAGER);
        let data = dir.join(format!("data-{number}")).display().to_string();
        let listen = format!("127.0.0.{}", number + 1);
        let connections = (sleeves + managers + 100).to_string();
        let mut server = Process::start(&["server", &data, &listen, &connections], None)?;
        let said = server.hear()?;
        let text = |name: &str| Fallible::Ok(said[name].as_str().ok_or("not told")?.to_owned());
        let api = Api::new(&text("api")?, &text("ca")?, &text("token")?)?;
        let devices = dir.join(format!("devices-{number}"));
        fs::create_dir(&devices)?;
        let enroll = |kind, serial: String| enrolled(&api, kind, &devices.join(&serial), &serial);
        for manager in 0..managers {
            enroll(DeviceKind::Manager, manager_serial(manager))?;
        }
        for sleeve in 0..PER_MANAGER.min(sleeves) {
            enroll(DeviceKind::Sleeve, sleeve_serial(sleeve))?;
        }
        let (devices, gateway) = (devices.display().to_string(), text("gateway")?);
        let managers = managers.to_string();
        let mut crowd = Process::start(&["crowd", &devices, &gateway, &managers], None)?;
        crowd.hear()?;
        Ok(Self { server, crowd, sleeves })
    }
}

/// All places do this at once; what each of them says.
fn all(places: &mut [Place], line: impl Fn(&Place) -> String) -> Fallible<Vec<Value>> {
    for place in &mut *places {
        let line = line(place);
        place.crowd.tell(&line)?;
    }
    places.iter_mut().map(|place| place.crowd.hear()).collect()
}

/// Heartbeats for a while: their times in milliseconds, and how many were lost so far.
fn beats(places: &mut [Place], every: Duration, lasting: Duration) -> Fallible<(Vec<f64>, u64)> {
    let (every, lasting) = (every.as_millis(), lasting.as_millis());
    let said = all(places, |_| format!("beat {every} {lasting}"))?;
    let mut times = Vec::new();
    for micros in said.iter().filter_map(|said| said["micros"].as_array()) {
        times.extend(micros.iter().filter_map(Value::as_f64).map(|micros| micros / 1000.0));
    }
    if times.is_empty() {
        return Err("no heartbeat was answered".into());
    }
    Ok((times, said.iter().filter_map(|said| said["lost"].as_u64()).sum()))
}

fn connect(places: &mut [Place], part: impl Fn(usize) -> usize, every: Duration) -> Fallible<()> {
    let every = every.as_millis();
    all(places, |place| format!("connect {} {every}", part(place.sleeves)))?;
    std::thread::sleep(SETTLING);
    Ok(())
}

fn memory(places: &[Place]) -> Fallible<u64> {
    places.iter().map(|place| place.server.memory()).sum()
}

/// Measures and compares.
pub(super) async fn rows(sleeves: usize, every: Duration) -> Fallible<Vec<Row>> {
    tokio::task::spawn_blocking(move || measured(sleeves, every)).await?
}

fn measured(sleeves: usize, every: Duration) -> Fallible<Vec<Row>> {
    let dir = tempfile::tempdir()?;
    let count = sleeves.div_ceil(PER_PROCESS);
    let mut places = Vec::new();
    for number in 0..count {
        let share = sleeves / count + usize::from(number < sleeves % count);
        places.push(Place::set_up(dir.path(), number, share)?);
    }
    // A few alone, then a quarter for what the first ones leave behind, then the rest.
    let few = |sleeves: usize| PER_MANAGER.min(sleeves / 4);
    connect(&mut places, few, ALONE[0])?;
    let (alone, _) = beats(&mut places, ALONE[0], ALONE[1])?;
    connect(&mut places, |sleeves| sleeves / 4 - few(sleeves), every)?;
    let before = memory(&places)?;
    connect(&mut places, |sleeves| sleeves - sleeves / 4, every)?;
    let grown = memory(&places)?.saturating_sub(before);
    let (times, lost) = beats(&mut places, every, every * 2)?;
    let mut there = 0;
    for place in &mut places {
        place.server.tell("count")?;
        there += place.server.hear()?["meetings"].as_u64().unwrap_or_default();
    }
    let came = places.iter().map(|place| place.sleeves - place.sleeves / 4).sum::<usize>();
    let each = grown as f64 / came as f64;
    let of = |what: &str| format!("{what}, idle sleeves: {sleeves}");
    let alone_of = format!("sleeves: {}", places.iter().map(|it| few(it.sleeves)).sum::<usize>());
    let answered = |percent: f64| (percentile(&times, percent), percentile(&alone, percent));
    let row = |name: &str, (ours, alone): (f64, f64)| {
        Row::new(of(name), ours, "ms").against(alone_of.clone(), alone)
    };
    Ok(vec![
        Row::new(of("memory of one at the server"), each, "bytes")
            .against("8 KiB", ALLOWED)
            .at_most(1.0),
        Row::new(of("meetings at the end"), there as f64, "")
            .against("sleeves", sleeves as f64)
            .at_least(1.0),
        Row::new(of("heartbeats lost"), lost as f64, ""),
        Row::new(
            of("heartbeats answered per second"),
            times.len() as f64 / (every * 2).as_secs_f64(),
            "1/s",
        ),
        row("heartbeat answered after, median", answered(50.0)),
        row("heartbeat answered after, p99", answered(99.0)),
        row("heartbeat answered after, longest", answered(100.0)),
    ])
}
