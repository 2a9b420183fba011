//! Flow B: a signing card whose joint password says that its holder has agreed.

mod forms;
mod refused;
mod stage;

use super::steps::Flow;
use crate::failure::Failure;
use stage::Stage;

const SERVER_ID: &str = "srv-demo-joint";
const CARD: &str = "CARD-DEMO-1";
/// Another one of the same payer.
const OTHER: &str = "CARD-DEMO-2";
/// Both cards' PIN.
const PIN: &str = "2580";

pub(super) async fn run(quiet: bool) -> Result<Flow, Failure> {
    let mut flow = Flow::new("B", quiet);
    flow.say("Flow B: a signing card whose joint password says that its holder has agreed");
    flow.say(
        "  The cards are in this process, spoken to in APDUs; they have a keypad, a display and",
    );
    flow.say("  two ways to reach them: the terminal's contacts, and a reader without contact.");
    let stage = Stage::set_up().await?;
    forms::typed(&mut flow, &stage).await?;
    forms::scanned(&mut flow, &stage).await?;
    let taken = forms::without_contact(&mut flow, &stage).await?;
    refused::unlike(&mut flow, &stage).await?;
    refused::altered(&mut flow, &stage).await?;
    refused::declined(&mut flow, &stage).await?;
    forms::proven(&mut flow, &stage, &taken).await?;
    stage.bank.server.stop().await;
    Ok(flow)
}
