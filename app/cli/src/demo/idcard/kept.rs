//! What the reader keeps, and when it forgets: C8, C11, C13, C14, C15.

use std::time::Duration;

use countersign_device::{DeviceDir, Reader, Source};
use countersign_idcard::cache::CacheMode;
use tokio::time::Instant;

use super::card_failure;
use super::cards::DemoCard;
use super::stage::Stage;
use crate::demo::steps::{Flow, expect};
use crate::device::emulated_field;
use crate::failure::Failure;

/// How long no card must be seen before everything is wiped; a real reader waits longer.
const WIPE_AFTER: Duration = Duration::from_millis(600);
/// How much later the wipe may come, and how long the reader looks for a card at a time.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// C13: before the policy allowed it nothing was kept, though this card was read twice; now it is.
pub(super) async fn keep_plaintext(
    flow: &mut Flow,
    reader: &mut Reader,
    card: &DemoCard,
) -> Result<(), Failure> {
    let configuration = card.image.configuration();
    let kept_before = reader.answers_alone(configuration, card.options());
    let outcome = reader.read(card.options()).await?;
    let kept = reader.answers_alone(configuration, card.options());
    let checked = expect("a plaintext kept while the policy was off", &kept_before, &false)
        .and_then(|()| expect("the source", &outcome.source, &Source::ServerFromCache))
        .and_then(|()| expect("a plaintext kept with the policy on", &kept, &true))
        .and_then(|()| card.compare(&outcome));
    let what = "policy on: plaintext kept under a random key of the reader's own; off: not kept";
    flow.step("C13", what, checked, outcome.total);
    Ok(())
}

pub(super) async fn second_read(
    flow: &mut Flow,
    stage: &Stage,
    reader: &mut Reader,
    card: &DemoCard,
) -> Result<(), Failure> {
    let (traffic, reads) = (reader.traffic(), stage.reads().await?);
    let outcome = reader.read(card.options()).await?;
    let checked = expect("the source", &outcome.source, &Source::Cache)
        .and_then(|()| expect("the traffic", &reader.traffic(), &traffic))
        .and_then(|()| card.compare(&outcome));
    let after = stage.reads().await?;
    let checked = checked.and_then(|()| expect("reads at the server", &after, &reads));
    let what = "second read: answered by the reader alone, no byte sent, no SAM";
    flow.step("C14", what, checked, outcome.total);
    Ok(())
}

/// C8: with one card's memory, the next card first erases what was kept of the one before.
pub(super) async fn single_card(
    flow: &mut Flow,
    stage: &Stage,
    device: &DeviceDir,
    cards: &[DemoCard],
) -> Result<(), Failure> {
    let (link, field) = emulated_field();
    let mut reader = stage.reader(device, link)?;
    reader.set_cache(CacheMode::SingleCard, None);
    let [first, second, ..] = cards else {
        return Err(Failure::check("card", "the demo has too few cards"));
    };
    field.insert(first.image.clone());
    let outcome = reader.read(first.options()).await?;
    let kept = reader.knows(first.image.configuration());
    let started = Instant::now();
    field.insert(second.image.clone());
    reader.poll().await.map_err(card_failure)?;
    let took = started.elapsed();
    let checked = first
        .compare(&outcome)
        .and_then(|()| expect("the first card kept", &kept, &true))
        .and_then(|()| expect("cards known then", &reader.cards_known(), &1))
        .and_then(|()| {
            expect("the second one known", &reader.knows(second.image.configuration()), &true)
        });
    let what = "one card's memory: another card's configuration first erases the former card's";
    flow.step("C8", what, checked, took);
    Ok(())
}

/// C11: what was sent is wiped when no card was seen for the preset time.
pub(super) async fn wiped_when_the_card_is_gone(
    flow: &mut Flow,
    stage: &Stage,
    device: &DeviceDir,
    card: &DemoCard,
) -> Result<(), Failure> {
    let (link, field) = emulated_field();
    let mut reader = stage.reader(device, link)?;
    reader.set_wipe_after(WIPE_AFTER);
    field.insert(card.image.clone());
    let first = reader.read(card.options()).await?;
    // The card is seen for the last time at some moment of this read.
    let reading = Instant::now();
    let kept = reader.read(card.options()).await?.source;
    field.remove();
    let started = Instant::now();
    while reader.cards_known() > 0 && started.elapsed() < WIPE_AFTER + PATIENCE {
        reader.attend(LOOK_AGAIN).await;
    }
    let (took, gone) = (started.elapsed(), reading.elapsed());
    let known = reader.cards_known();
    field.insert(card.image.clone());
    let again = reader.read(card.options()).await?;
    let checked = card
        .compare(&first)
        .and_then(|()| expect("the source while it lay there", &kept, &Source::ServerFromCache))
        .and_then(|()| expect("cards known after it was gone", &known, &0))
        .and_then(|()| expect("the preset time was waited for", &(gone >= WIPE_AFTER), &true))
        .and_then(|()| expect("the source when it came back", &again.source, &Source::Server));
    let what = "card gone for the preset time: configuration and encrypted data wiped";
    flow.step("C11", what, checked, took);
    Ok(())
}

/// C15: at power-off the random key goes first; what then lies in the files opens for nobody.
pub(super) async fn wiped_at_power_off(
    flow: &mut Flow,
    reader: &mut Reader,
    card: &DemoCard,
) -> Result<(), Failure> {
    let configuration = card.image.configuration();
    let before = reader.answers_alone(configuration, card.options());
    let started = Instant::now();
    reader.power_off();
    let took = started.elapsed();
    let after = reader.answers_alone(configuration, card.options());
    let outcome = reader.read(card.options()).await?;
    let checked = expect("a plaintext kept before", &before, &true)
        .and_then(|()| expect("a plaintext kept after", &after, &false))
        .and_then(|()| expect("the next read's source", &outcome.source, &Source::Server))
        .and_then(|()| card.compare(&outcome));
    let what = "power off: random key deleted first, then everything; the card is read anew";
    flow.step("C15", what, checked, took);
    Ok(())
}
