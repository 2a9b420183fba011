//! The sleeve is a card (A8).

use countersign_device::SleeveSession;
use countersign_emulator::{AID_CREDIT, Payment, pay};
use countersign_iso7816::{CardLink, Response, Status};
use countersign_server::ambient;
use tokio::time::Instant;

use super::CARD;
use super::stage::Stage;
use crate::demo::blocking;
use crate::demo::steps::{Flow, expect};
use crate::failure::Failure;

/// A terminal takes a payment from the sleeve; the card at home makes the cryptograms.
pub(super) async fn paid(
    flow: &mut Flow,
    stage: &mut Stage,
    session: &SleeveSession,
) -> Result<(), Failure> {
    let taken = session.take(CARD).await?;
    let (atr, wanted) = (taken.atr.clone(), stage.home.card.answer_to_reset());
    let (mut card, started) = (session.card(&taken), Instant::now());
    let receipt = blocking(move || {
        let payment = Payment::of(1250, 156);
        pay(&mut card, &payment, &mut *(ambient().rng)())
            .map_err(|error| Failure::check("payment", error.to_string()))
    })
    .await?;
    let made = stage.home.card.counts().cryptograms;
    let checked = expect("the answer to reset", &atr.to_vec(), &wanted)
        .and_then(|()| expect("both cryptograms verify", &receipt.is_approved(), &true))
        .and_then(|()| expect("cryptograms made at home", &made, &2));
    let what = "a terminal pays 12.50 with the sleeve: ARQC and TC come from the card at home, \
                through the server, and verify";
    flow.step("A8", what, checked, started.elapsed());
    session.release().await?;
    Ok(())
}

/// A terminal that asks for an application the card's rules do not name, and for too much.
pub(super) async fn forbidden(flow: &mut Flow, session: &SleeveSession) -> Result<(), Failure> {
    let taken = session.take(CARD).await?;
    let (mut card, started) = (session.card(&taken), Instant::now());
    let (select, dear) = blocking(move || {
        let select = [&[0x00, 0xa4, 0x04, 0x00, 9][..], AID_CREDIT, &[0x00]].concat();
        let answer = card.transmit(&select).ok().and_then(|answer| Response::parse(&answer));
        let payment = Payment::of(50_001, 156);
        let dear = pay(&mut card, &payment, &mut *(ambient().rng)());
        Ok((answer.map(|answer| answer.status), dear.map(|receipt| receipt.is_approved())))
    })
    .await?;
    let checked = expect("the answer", &select, &Some(Status::NOT_FOUND))
        .and_then(|()| expect("a payment above the limit", &dear.unwrap_or(false), &false));
    let what = "an application that the card's rules do not name, and an amount above them: \
                refused at home, the card never hears of it";
    flow.step("A8", what, checked, started.elapsed());
    session.release().await?;
    Ok(())
}
