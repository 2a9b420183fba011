//! A module that fails in mid-read, and a SAM host that stands alone: C12.

use std::net::IpAddr;
use std::time::Duration;

use countersign_device::DeviceDir;
use countersign_emulator::{Fault, Faults, SamPty};
use countersign_net::serial::BAUD;
use countersign_server::{Sam, SamHost, SamHostAt, SamHostOptions, ambient};
use tokio::time::{Instant, sleep};

use super::cards::DemoCard;
use super::stage::Stage;
use super::{SAM_HOST_SERIAL, blocking};
use crate::demo::steps::{Flow, expect};
use crate::device::emulated_field;
use crate::emulator::{SAM_SERIAL, start_sam};
use crate::failure::Failure;

/// The serial number in the id of the host's module.
const HOSTS_SERIAL: u32 = SAM_SERIAL + 1;
/// The read command: at it the server's own module is unplugged.
const READ: [u8; 2] = [0x30, 0x01];
/// The module that is idle longest works: of two, one of two reads meets the one that fails.
const READS_MAX: u32 = 4;
/// How long the server may take to reach the host, and how often it is asked.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A SAM host with one module.
pub(super) struct Host {
    host: SamHost,
    sam: SamPty,
}

impl Host {
    /// Enrols it at the server and starts it.
    pub(super) async fn start(stage: &Stage) -> Result<Self, Failure> {
        let dir = stage.enroll_sam_host(SAM_HOST_SERIAL).await?;
        let sam = start_sam(HOSTS_SERIAL, Faults::none(), Duration::ZERO)?;
        let options = SamHostOptions {
            listen: IpAddr::from([127, 0, 0, 1]),
            port: 0,
            sams: vec![Sam { port: sam.path().display().to_string(), baud: BAUD }],
            id: dir.settings.serial.clone(),
            credential: dir.sam_host_credential(&dir.provider(), ambient().clock.now())?,
            servers: dir.settings.servers.clone(),
        };
        Ok(Self { host: SamHost::start(options).await?, sam })
    }

    /// Where the server finds it.
    pub(super) fn at(&self) -> SamHostAt {
        let (host, id) = (self.host.address().to_string(), SAM_HOST_SERIAL.to_owned());
        SamHostAt { host, id, modules: 1 }
    }

    pub(super) async fn stop(self) {
        self.host.stop().await;
        self.sam.stop();
    }
}

/// The server's module is unplugged in mid-read; the read goes on at the SAM host's, in the same
/// attempt.
pub(super) async fn failover(
    flow: &mut Flow,
    stage: &Stage,
    device: &DeviceDir,
    card: &DemoCard,
) -> Result<(), Failure> {
    let started = Instant::now();
    while stage.modules_ready().await? < 2 && started.elapsed() < PATIENCE {
        sleep(LOOK_AGAIN).await;
    }
    stage.faults.inject(Fault::UnplugAt(READ));
    let (mut checked, mut took, mut reads) = (Ok(()), Duration::ZERO, 0);
    while stage.sam.is_running() && reads < READS_MAX {
        let (link, field) = emulated_field();
        let mut reader = stage.reader(device, link)?;
        field.insert(card.image.clone());
        let outcome = reader.read(card.options()).await?;
        took = outcome.total;
        checked = checked
            .and_then(|()| card.compare(&outcome))
            .and_then(|()| expect("the reader's attempts", &outcome.attempts, &1));
        reads += 1;
    }
    let row = stage.newest_read().await?;
    let serial = format!("{HOSTS_SERIAL:010}");
    let hosts = row["samId"].as_str().unwrap_or_default().contains(&serial);
    let checked = checked
        .and_then(|()| expect("the server's own module running", &stage.sam.is_running(), &false))
        .and_then(|()| expect("the SAM host's module in the read's row", &hosts, &true));
    let what = "module unplugged in mid-read: a SAM host's module goes on, in the same attempt";
    flow.step("C12", what, checked, took);
    Ok(())
}

impl Stage {
    /// How many modules the server says are ready.
    async fn modules_ready(&self) -> Result<usize, Failure> {
        let api = self.api().await?;
        let health: serde_json::Value = blocking(move || Ok(api.get("/v1/health")?)).await?;
        let modules = health["sams"].as_array().map_or(&[][..], Vec::as_slice);
        Ok(modules.iter().filter(|module| module["state"] == "ready").count())
    }
}
