//! What goes wrong, when, drawn from the seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use countersign_emulator::Fault;
use rand_core::Rng;
use serde_json::{Value, json};
use testkit::rng::seeded;
use tokio::time::{Instant, sleep};

use super::program::Machine;
use crate::Fallible;

/// Between two troubles, at most. Faster, and every module would be put aside for flapping.
const PAUSE_MAX_MS: u32 = 5000;
/// How long a module stays unplugged.
const AWAY: Duration = Duration::from_millis(700);

/// How often each kind of trouble was made.
#[derive(Debug, Default)]
pub(super) struct Troubles(BTreeMap<&'static str, u64>);

impl Troubles {
    fn count(&mut self, kind: &'static str) {
        *self.0.entry(kind).or_default() += 1;
    }

    pub(super) fn to_json(&self) -> Value {
        json!(self.0)
    }
}

/// Makes trouble until told to stop; kills the server only until `kills_until`.
pub(super) async fn make(
    machine: Arc<Machine>,
    seed: u64,
    kills_until: Instant,
    stop: Arc<AtomicBool>,
) -> Fallible<Troubles> {
    let mut draw = seeded(seed ^ 0x7461_6e67);
    let mut troubles = Troubles::default();
    while !stop.load(Ordering::Relaxed) {
        let pause = draw.next_u32() % PAUSE_MAX_MS;
        sleep(Duration::from_millis(u64::from(pause))).await;
        // One module at a time: the others go on, and so must every read.
        let module = draw.next_u32() as usize % Machine::modules();
        let faults = machine.faults(module);
        match draw.next_u32() % 9 {
            0 => {
                machine.unplug(module);
                sleep(AWAY).await;
                machine.plug_in(module)?;
                troubles.count("unplugged");
            }
            1 => {
                faults.inject(Fault::UnplugAt([0x30, 0x01]));
                sleep(AWAY).await;
                machine.plug_in(module)?;
                troubles.count("unpluggedAtRead");
            }
            2 => {
                faults.inject(Fault::BadChecksumTimes(draw.next_u32() % 3 + 1));
                troubles.count("damagedAnswers");
            }
            3 => {
                faults.inject(Fault::ReportChecksumTimes(draw.next_u32() % 3 + 1));
                troubles.count("damagedCommands");
            }
            4 => {
                faults.inject(Fault::GarbageBeforeAnswer);
                troubles.count("garbage");
            }
            5 => {
                faults.inject(Fault::TruncatedAnswer);
                troubles.count("truncatedAnswers");
            }
            6 => {
                faults.inject(Fault::VendorTimeout);
                troubles.count("vendorTimeouts");
            }
            7 if draw.next_u32().is_multiple_of(3) => {
                let machine = machine.clone();
                let killed = move || machine.kill_and_restart_sam_host();
                tokio::task::spawn_blocking(killed).await??;
                troubles.count("samHostKilled");
            }
            _ if Instant::now() < kills_until && draw.next_u32().is_multiple_of(3) => {
                let machine = machine.clone();
                tokio::task::spawn_blocking(move || machine.kill_and_restart()).await??;
                troubles.count("serverKilled");
            }
            _ => {}
        }
    }
    Ok(troubles)
}
