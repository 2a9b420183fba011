//! A reader on a serial line whose server is reached through its host: C10, C16.

use std::time::Duration;

use countersign_device::{DeviceDir, Host, HostOptions, Key, Outcome, Resident, ResidentEvent};
use countersign_emulator::{LineEnd, LineFault, LineFaults, SerialLine};
use countersign_net::serial::BAUD;
use countersign_server::ambient;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::cards::DemoCard;
use super::stage::Stage;
use super::{SERIAL, blocking};
use crate::demo::steps::{Flow, expect};
use crate::device::emulated_field;
use crate::failure::Failure;

/// How long a read by the reader's own keys may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Only a packet is so long that it has this byte.
const IN_A_PACKET: usize = 1000;

/// Reader, serial line, host, datagrams, server.
pub(super) async fn through_a_host(
    flow: &mut Flow,
    stage: &Stage,
    device: &DeviceDir,
    cards: &[DemoCard],
) -> Result<(), Failure> {
    let [first, second, ..] = cards else {
        return Err(Failure::check("card", "the demo has too few cards"));
    };
    let faults = LineFaults::none();
    let line = SerialLine::start(faults.clone()).map_err(|error| failed(&error))?;
    let (link, field) = emulated_field();
    let mut reader = stage.reader(device, link)?;
    reader.set_gateway(format!("serial:{}", line.path(LineEnd::A).display()));
    let (keys, pressed) = mpsc::channel(1);
    let (shown, mut seen) = mpsc::unbounded_channel();
    let resident = tokio::spawn(Resident::new(reader, pressed).run(move |event| {
        let _nobody_looks = shown.send(event);
    }));
    let options = HostOptions {
        port: line.path(LineEnd::B).display().to_string(),
        baud: BAUD,
        gateway: stage.server.gateway().to_string(),
    };
    let mut host = Host::start(options, (ambient().rng)(), |_| {});

    field.insert(first.image.clone());
    let started = Instant::now();
    let asked = host.read(false).await.map_err(|error| failed(&error))?;
    let took = started.elapsed();
    keys.send(Key::Read { fingerprint: false }).await.map_err(|error| failed(&error))?;
    let pressed =
        timeout(PATIENCE, shown_read(&mut seen)).await.map_err(|error| failed(&error))??;
    let checked = first.compare_data(&asked.data, false).and_then(|()| first.compare(&pressed));
    let what = "read command from the host on a serial line, and from the reader's own keys";
    flow.step("C16", what, checked, took);

    let before = resent(stage).await?;
    field.insert(second.image.clone());
    faults.inject(LineEnd::A, 0, LineFault::FlipBitOfLong { byte: IN_A_PACKET, bit: 0 });
    let started = Instant::now();
    let again = host.read(second.has_fingerprint()).await.map_err(|error| failed(&error))?;
    let took = started.elapsed();
    let packets = resent(stage).await?.saturating_sub(before);
    let checked = second
        .compare_data(&again.data, second.has_fingerprint())
        .and_then(|()| expect("faults still in waiting", &faults.waiting(), &0))
        .and_then(|()| expect("packets sent again", &packets, &1));
    let what = "one packet damaged on the line: the server names it, only it is sent again";
    flow.step("C10", what, checked, took);

    keys.send(Key::Quit).await.map_err(|error| failed(&error))?;
    resident.await.map_err(|error| failed(&error))?;
    host.stop().await;
    line.stop();
    Ok(())
}

fn failed(error: &impl ToString) -> Failure {
    Failure::environment("host", error.to_string())
}

/// The next read that the reader shows by itself.
async fn shown_read(seen: &mut mpsc::UnboundedReceiver<ResidentEvent>) -> Result<Outcome, Failure> {
    while let Some(event) = seen.recv().await {
        match event {
            ResidentEvent::Read(read) => return Ok(read.0),
            ResidentEvent::Failed(error) => return Err(error.into()),
            _ => {}
        }
    }
    Err(Failure::environment("host", "the reader ended"))
}

/// How many packets the server has had the reader send again.
async fn resent(stage: &Stage) -> Result<u64, Failure> {
    let id = stage.reader_id(SERIAL).await?.unwrap_or_default();
    let api = stage.api().await?;
    let record: Value = blocking(move || Ok(api.get(&format!("/v1/readers/{id}/record"))?)).await?;
    record["totals"]["resent"]
        .as_u64()
        .ok_or_else(|| Failure::check("record", format!("no count of packets in {record}")))
}
