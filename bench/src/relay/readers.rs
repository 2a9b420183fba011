//! The same exchange as programs have it: through a real PC/SC service at each end.
//!
//! A program finds its PC/SC service by its environment, so who talks to one is a process: the
//! manager beside the service at home, and each of the terminals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use countersign_emulator::BankCard;
use countersign_iso7816::CardLink;
use countersign_smartcard::pcsc::PcscLink;
use countersign_smartcard::vpcd::{SlotCard, VirtualReader};
use serde_json::{Value, json};
use testkit::parts::Pcscd;
use tokio::task::block_in_place;
use tokio::time::Instant;

use super::apdu::{
    CARDS, ECHOED, LINKS, Names, Times, check, command, of_link, rounds_of, sessions,
};
use super::home::{Cards, Home, card};
use super::link::Echo;
use super::part::{input, say};
use super::process::Process;
use super::stage::Stage;
use crate::Fallible;
use crate::measure::{WARM_UP, micros};
use crate::report::Row;

/// A card is in its reader in this time.
const PATIENCE: Duration = Duration::from_secs(30);
const NAMES: Names = Names {
    whole: "PC/SC to PC/SC",
    added: "added to a PC/SC exchange",
    alone: "one PC/SC exchange and the link alone",
};

/// Measures and compares.
pub(super) async fn rows(rounds: usize) -> Fallible<Vec<Row>> {
    tokio::task::spawn_blocking(move || measured(rounds)).await?
}

/// The service at home, and a process that sees it.
fn measured(rounds: usize) -> Fallible<Vec<Row>> {
    let service = Pcscd::start()?;
    let mut words = vec!["home".to_owned(), rounds.to_string()];
    for slot in [0, 1] {
        words.extend([service.reader(slot), service.slot(slot)]);
    }
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let mut home = Process::start(&words, Some(service.environment()))?;
    let mut rows = Vec::new();
    for millis in LINKS {
        let said = home.hear()?;
        let [near, far] = ["near", "far"].map(|way| numbers(&said[way]));
        let (card, link) = (numbers(&said["card"])?, numbers(&said["link"])?);
        rows.extend(of_link(millis, &Times { card, link, ways: [near?, far?] }, &NAMES));
    }
    Ok(rows)
}

fn numbers(said: &Value) -> Fallible<Vec<f64>> {
    let all = said.as_array().map(|all| all.iter().filter_map(Value::as_f64).collect::<Vec<_>>());
    all.filter(|all| !all.is_empty()).ok_or_else(|| "no times were told".into())
}

/// A card in a slot of a virtual reader until this is dropped.
struct Inserted(Arc<AtomicBool>);

impl Inserted {
    fn put(
        mut card: impl SlotCard + Send + 'static,
        slot: &str,
        out: Arc<AtomicBool>,
    ) -> Fallible<Self> {
        let reader: VirtualReader = slot.parse()?;
        let told = out.clone();
        thread::spawn(move || reader.run(&mut card, &told, &mut |_| {}));
        Ok(Self(out))
    }

    fn emulated(card: BankCard, slot: &str) -> Fallible<Self> {
        Self::put(card, slot, Arc::default())
    }
}

impl Drop for Inserted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A process that holds the card of one reader and asks it when told.
struct Terminal(Process);

impl Terminal {
    fn at(service: &Pcscd, slot: u16) -> Fallible<Self> {
        let reader = service.reader(slot);
        let mut process = Process::start(&["terminal", &reader], Some(service.environment()))?;
        process.hear()?;
        Ok(Self(process))
    }

    /// One exchange, in microseconds.
    fn ask(&mut self) -> Fallible<f64> {
        self.0.tell("ask")?;
        self.0.hear()?.as_f64().ok_or_else(|| "no time was told".into())
    }
}

/// The process of [`Terminal`].
pub(super) fn terminal(reader: &str) -> Fallible<()> {
    let mut card = PcscLink::connect_within(Some(reader), PATIENCE)?;
    say(&json!({ "reader": card.reader() }))?;
    let command = command();
    for _asked in input() {
        let begun = Instant::now();
        let response = card.transmit(&command)?;
        let took = begun.elapsed();
        check(&response)?;
        say(&json!(micros(took)))?;
    }
    Ok(())
}

/// The process beside the service at home: its cards, the manager, sleeves and server, and two more
/// services: the sleeves', and one where a card is asked directly. A line of times for each link.
pub(super) async fn home(rounds: usize, readers: &[(String, String)]) -> Fallible<()> {
    let [(near, near_slot), (far, far_slot)] = readers else {
        return Err("a home has two readers".into());
    };
    let dir = tempfile::tempdir()?;
    let stage = Stage::set_up(&dir.path().join("data"), [127, 0, 0, 1].into(), 64).await?;
    let gateway = stage.server.gateway();
    let _at_home =
        [Inserted::emulated(card()?, near_slot)?, Inserted::emulated(card()?, far_slot)?];
    let cards = Cards::in_readers(&[(CARDS[0], near), (CARDS[1], far)]);
    let mut home = Home::open(&stage, dir.path(), cards, Some(gateway), None).await?;
    let sleeves = [
        home.paired(&stage, dir.path(), "SLV-LAN").await?,
        home.paired(&stage, dir.path(), "SLV-RELAY").await?,
    ];
    let (elsewhere, alone) = block_in_place(|| Fallible::Ok((Pcscd::start()?, Pcscd::start()?)))?;
    let _alone = Inserted::emulated(card()?, &alone.slot(0))?;
    let mut direct = block_in_place(|| Terminal::at(&alone, 0))?;
    for millis in LINKS {
        let round_trip = Duration::from_millis(millis);
        let sessions = sessions(&sleeves, [home.at, gateway], round_trip).await?;
        let slots = [elsewhere.slot(0), elsewhere.slot(1)];
        let relayed = sessions.iter().zip(&slots).map(|((session, taken, _), slot)| {
            let card = session.card(taken);
            let gone = card.gone();
            Inserted::put(card, slot, gone)
        });
        let relayed = relayed.collect::<Fallible<Vec<_>>>()?;
        let times = block_in_place(|| {
            let mut terminals = [Terminal::at(&elsewhere, 0)?, Terminal::at(&elsewhere, 1)?];
            let mut echo = Echo::over(round_trip)?;
            let mut times = Times::default();
            for round in 0..WARM_UP + rounds_of(millis, rounds) {
                let card = direct.ask()?;
                let link = micros(echo.round_trip(ECHOED)?);
                let [near, far] = &mut terminals;
                let ways = [near.ask()?, far.ask()?];
                if round >= WARM_UP {
                    times.card.push(card);
                    times.link.push(link);
                    times.ways.iter_mut().zip(ways).for_each(|(all, took)| all.push(took));
                }
            }
            Fallible::Ok(times)
        })?;
        let [near, far] = &times.ways;
        say(&json!({ "card": times.card, "link": times.link, "near": near, "far": far }))?;
        for (session, ..) in sessions {
            session.close().await;
        }
        drop(relayed);
        home.forget();
    }
    home.stop().await?;
    stage.server.stop().await;
    Ok(())
}

/// Where the cards at home are: names of readers and places of slots, by turns.
pub(super) fn pairs(words: Vec<String>) -> Vec<(String, String)> {
    let mut words = words.into_iter();
    std::iter::from_fn(|| Some((words.next()?, words.next()?))).collect()
}
