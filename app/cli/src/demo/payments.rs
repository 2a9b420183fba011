//! Flow D: payments are confirmed on an external security device, through the payer's phone.

mod confirmed;
mod offline;
mod payer;
mod refused;
mod stage;

use super::steps::Flow;
use crate::failure::Failure;
use stage::Stage;

const SERVER_ID: &str = "srv-demo-payments";
const KEY: &str = "KEY-DEMO-1";
const OCRA: &str = "OTP-DEMO-1";
const OFFLINE: &str = "OTP-DEMO-2";
/// All devices' PIN.
const PIN: &str = "2580";

pub(super) async fn run(quiet: bool) -> Result<Flow, Failure> {
    let mut flow = Flow::new("D", quiet);
    flow.say("Flow D: payments are confirmed on a security device, through the payer's phone");
    flow.say("  The devices are cards in this process, spoken to in APDUs; their keys are sealed");
    flow.say("  files. The terminal, as any browser, speaks HTTPS only.");
    let stage = Stage::set_up().await?;
    let (payment, started) = confirmed::taken(&mut flow, &stage).await?;
    confirmed::pushed(&mut flow, &stage, &payment).await?;
    let answer = confirmed::shown_and_signed(&mut flow, &stage, &payment).await?;
    refused::foreign_signature(&mut flow, &stage, &answer).await?;
    confirmed::executed(&mut flow, &stage, &payment, &answer, started).await?;
    confirmed::by_dynamic_password(&mut flow, &stage).await?;
    offline::by_qr_code(&mut flow, &stage).await?;
    refused::terminated(&mut flow, &stage).await?;
    refused::rejected(&mut flow, &stage).await?;
    confirmed::proven(&mut flow, &stage, &payment).await?;
    stage.bank.server.stop().await;
    Ok(flow)
}
