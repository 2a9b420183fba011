//! The manager at work: lets sleeves pair and use the cards, and shows its owner what happens.

use std::pin::pin;

use clap::Args;
use countersign_device::{
    HeldCards, Manager, ManagerDir, ManagerHappening, ManagerOrder, ManagerSettings, OpenCard,
    card_source,
};
use countersign_emulator::{BankCard, BankCardSettings, TEST_PAN, TEST_PIN};
use countersign_server::ambient;
use tokio::sync::mpsc;

use super::Which;
use super::program::{Program, is_on_a_terminal};
use super::view::View;
use crate::device::virtual_reader::listening;
use crate::failure::Failure;
use crate::output::{Output, print_error};
use crate::serve::stopped;

/// What happened and was not shown yet.
const HAPPENINGS_MAX: usize = 256;
/// Orders that were not obeyed yet.
const ORDERS_MAX: usize = 16;

/// Let sleeves use the cards.
#[derive(Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    which: Which,
    /// Tell lines, and take them from stdin, also on a terminal.
    #[arg(long)]
    lines: bool,
    /// The settings' card of this id has no reader: be a test card of the emulator in its place, of
    /// this number. Its key is published, and no issuer takes it. May be given several times.
    #[arg(long, value_name = "CARD[:NUMBER]")]
    emulated: Vec<String>,
}

impl Serve {
    pub(super) async fn run(self, json: bool) -> Result<Output, Failure> {
        let on_screen = !json && !self.lines && is_on_a_terminal();
        let Self { which, emulated, .. } = self;
        let opening = tokio::task::spawn_blocking(move || opened(&which, &emulated));
        let opened = opening.await;
        let (manager, view) =
            opened.map_err(|error| Failure::environment("task", error.to_string()))??;
        // Listened to before anybody is told that it runs.
        let mut stopping = pin!(stopped());
        if let Some(stopped) = listening(stopping.as_mut()).await {
            return stopped.map(|()| Output::none());
        }
        let (tell, happenings) = mpsc::channel::<ManagerHappening>(HAPPENINGS_MAX);
        let (orders, ordered) = mpsc::channel(ORDERS_MAX);
        let serving = tokio::spawn(manager.serve(ordered, tell));
        let (clock, order) = (ambient().clock, orders.clone());
        let mut program = Program { view, clock, happenings, orders, has_told: on_screen };
        let shown = if on_screen {
            program.screen(stopping.as_mut()).await
        } else {
            program.lines(json, stopping.as_mut()).await
        };
        // One that has ended by itself hears it no more.
        let _ended = order.send(ManagerOrder::Stop).await;
        let has_told = program.has_told;
        drop(program);
        let late = |failure: Failure| if has_told { failure.late() } else { failure };
        let served = serving.await;
        let served =
            served.map_err(|error| late(Failure::environment("task", error.to_string())))?;
        served.map_err(|error| late(error.into()))?;
        shown.map_err(late)?;
        Ok(Output::none())
    }
}

/// The manager of this directory, and what is seen of it before anything happens. Blocking.
fn opened(which: &Which, emulated: &[String]) -> Result<(Manager, View), Failure> {
    let ambient = ambient();
    let dir = ManagerDir::open(&which.manager)?;
    let cards = card_source(dir.settings(), test_cards(dir.settings(), emulated)?)?;
    let view = View {
        serial: dir.serial().to_owned(),
        certificate_number: dir.certificate_number()?.to_string(),
        ..View::default()
    };
    if dir.settings().listen.is_none() && dir.settings().gateway.is_none() {
        let detail = "the settings have neither `listen` nor `gateway`: no sleeve can come";
        return Err(Failure::check("manager-settings", detail));
    }
    Ok((Manager::new(dir, cards, ambient.clock, ambient.rng)?, view))
}

/// The emulator's cards that were asked for. Nothing becomes one without being asked for.
fn test_cards(settings: &ManagerSettings, emulated: &[String]) -> Result<HeldCards, Failure> {
    let mut held = HeldCards::default();
    for word in emulated {
        let (id, number) = word.split_once(':').unwrap_or((word, TEST_PAN));
        let found = settings.cards.iter().find(|card| card.id == id);
        let reader = found.map(|card| &card.reader);
        if reader != Some(&None) {
            let detail = match reader {
                None => format!("the settings have no card {id}"),
                Some(_) => format!("the settings have the card {id} in a reader"),
            };
            return Err(Failure::usage("emulated", detail));
        }
        let card = BankCardSettings::new(number, TEST_PIN).ok_or_else(|| {
            Failure::usage("emulated", "a card's number has 16 digits, and ends as it must")
        })?;
        let card = BankCard::new(&card, (ambient().rng)());
        held = held.with(id, move || {
            let (atr, again) = (card.answer_to_reset(), card.clone());
            let reset = move || {
                again.restart();
                Ok(again.answer_to_reset())
            };
            Ok(OpenCard::new(Box::new(card.clone()), atr, Box::new(reset)))
        });
        print_error(&format!("The card {id} is the emulator's test card {number}: no issuer's."));
    }
    Ok(held)
}
