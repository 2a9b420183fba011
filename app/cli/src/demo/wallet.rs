//! Flow A: a sleeve uses cards that are kept at home.

mod cards;
mod home;
mod pairing;
mod sessions;
mod stage;

use super::steps::Flow;
use crate::failure::Failure;
use stage::Stage;

const SERVER_ID: &str = "srv-demo-wallet";
const MANAGER: &str = "MANAGER-DEMO-1";
const SLEEVE: &str = "SLEEVE-DEMO-1";
/// The card that is used, and the one that an alarm session sees.
const CARD: &str = "debit";
const DECOY: &str = "prepaid";
const PASSWORD: &str = "correct horse";
const ALARM: &str = "incorrect horse";

pub(super) async fn run(quiet: bool) -> Result<Flow, Failure> {
    let mut flow = Flow::new("A", quiet);
    flow.say("Flow A: a sleeve uses cards that are kept at home");
    flow.say("  The cards are EMV-like ones of the emulator, under its own test keys; they are in");
    flow.say("  this process, at the manager. The sleeve comes through the server, or directly.");
    let mut stage = Stage::set_up().await?;
    pairing::closed(&mut flow, &mut stage).await?;
    pairing::declined(&mut flow, &mut stage).await?;
    pairing::paired(&mut flow, &mut stage).await?;
    let session = sessions::by_factor(&mut flow, &mut stage).await?;
    sessions::logged_in(&mut flow, &mut stage, &session).await?;
    cards::paid(&mut flow, &mut stage, &session).await?;
    cards::forbidden(&mut flow, &session).await?;
    session.close().await;
    sessions::by_list(&mut flow, &mut stage).await?;
    sessions::asleep(&mut flow, &mut stage).await?;
    sessions::alarm(&mut flow, &mut stage).await?;
    sessions::revoked(&mut flow, &mut stage).await?;
    stage.stop().await?;
    Ok(flow)
}
