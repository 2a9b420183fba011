//! Flow E: keys are injected into POS terminals over the network.

mod keys;
mod office;
mod stage;
mod terminals;

use super::steps::Flow;
use crate::failure::Failure;
use stage::Stage;

const SERIAL: &str = "POS-DEMO-1";
const OTHER_SERIAL: &str = "POS-DEMO-2";
const SERVER_ID: &str = "srv-demo-keys";
/// Where the demo puts a master key, and where a key that came from elsewhere.
const MASTER_SLOT: u8 = 0;
const ZONE_SLOT: u8 = 1;

pub(super) async fn run(quiet: bool) -> Result<Flow, Failure> {
    let mut flow = Flow::new("E", quiet);
    flow.say("Flow E: keys are injected into POS terminals over the network (TR-34, TR-31)");
    flow.say("  The terminals' secure elements are encrypted files; the hierarchy is RSA-3072.");
    let stage = Stage::set_up().await?;
    let mut pos = terminals::enrolled(&mut flow, &stage, SERIAL).await?;
    terminals::bound(&mut flow, &stage, &mut pos).await?;
    let master = keys::generated(&mut flow, &stage).await?;
    let zone = keys::taken_in(&mut flow, &stage).await?;
    keys::requested_and_installed(&mut flow, &stage, &mut pos, &master).await?;
    keys::value_is_right(&mut flow, &stage, &mut pos, &zone).await?;
    keys::updated(&mut flow, &stage, &mut pos, &master).await?;
    terminals::rebound_and_revoked(&mut flow, &stage, &mut pos, &master).await?;
    stage.server.stop().await;
    Ok(flow)
}
