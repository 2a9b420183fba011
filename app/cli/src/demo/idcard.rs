//! Flow C: a reader without a SAM reads ID cards through the server.

mod cards;
mod guard;
mod kept;
mod links;
mod pool;
mod reads;
mod stage;

use super::steps::Flow;
use crate::device::emulated_field;
use crate::failure::Failure;
use cards::DemoCard;
use stage::{Stage, blocking};

const SERIAL: &str = "RD-DEMO-1";
const OTHER_SERIAL: &str = "RD-DEMO-2";
const SAM_HOST_SERIAL: &str = "SAMHOST-DEMO-1";
const SERVER_ID: &str = "srv-demo";

pub(super) async fn run(quiet: bool) -> Result<Flow, Failure> {
    let mut flow = Flow::new("C", quiet);
    flow.say("Flow C: a reader without a SAM reads ID cards through the server");
    flow.say(
        "  The SAM module and the cards are emulated, with a card scheme of the emulator's own.",
    );
    let stage = Stage::set_up().await?;
    let device = stage.enroll(SERIAL).await?;
    let (link, field) = emulated_field();
    let mut reader = stage.reader(&device, link)?;
    let cards = DemoCard::all()?;

    reads::appear(&mut flow, &mut reader, &field, &cards).await?;
    reads::first_read(&mut flow, &stage, &mut reader, &cards[0]).await?;
    reads::mismatched_ids(&mut flow, &stage, &device).await?;
    guard::blocked_by_a_rule(&mut flow, &stage).await?;
    guard::replayed(&mut flow, &stage, &device, &cards[0]).await?;
    reads::server_first(&mut flow, &stage, &device, &cards[0]).await?;
    reads::read_again(&mut flow, &mut reader, &field, &cards[0]).await?;
    reads::other_documents(&mut flow, &mut reader, &field, &cards).await?;

    links::through_a_host(&mut flow, &stage, &device, &cards).await?;
    kept::single_card(&mut flow, &stage, &device, &cards).await?;
    kept::wiped_when_the_card_is_gone(&mut flow, &stage, &device, &cards[0]).await?;

    flow.say("  The demo's policy now turns the plaintext cache on (it is off by default), and a");
    flow.say("  SAM host that stands alone joins the server's pool.");
    let host = pool::Host::start(&stage).await?;
    let stage = stage.restart_with(host.at()).await?;
    reader.set_gateway(stage.server.gateway().to_string());
    field.remove();
    reader.poll().await.map_err(card_failure)?;
    field.insert(cards[0].image.clone());
    kept::keep_plaintext(&mut flow, &mut reader, &cards[0]).await?;
    kept::second_read(&mut flow, &stage, &mut reader, &cards[0]).await?;
    kept::wiped_at_power_off(&mut flow, &mut reader, &cards[0]).await?;
    pool::failover(&mut flow, &stage, &device, &cards[0]).await?;
    stage.server.stop().await;
    host.stop().await;
    stage.sam.stop();
    Ok(flow)
}

fn card_failure(error: countersign_idcard::card::CardError) -> Failure {
    Failure::check("card", error.to_string())
}
