//! What manager, sleeve and relay add to one exchange with a card.

use std::net::SocketAddr;
use std::time::Duration;

use countersign_channel::Mode;
use countersign_device::{Sleeve, SleeveHappening, SleeveSession, TakenCard, Way};
use countersign_emulator::{AID_DEBIT, BankCard};
use countersign_iso7816::CardLink;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::home::{Cards, Home, MANAGER, PASSWORD, card, typed};
use super::link::{Echo, Link};
use super::stage::Stage;
use crate::Fallible;
use crate::measure::{WARM_UP, median, micros};
use crate::report::Row;

/// The links' round trips, in milliseconds.
pub(super) const LINKS: [u64; 3] = [0, 20, 100];
/// Long links are measured less often: what is added does not depend on them.
const LONG_LINK_SHARE: usize = 4;
/// What is allowed beyond the link's round trip, in microseconds.
const ALLOWED: f64 = 1000.0;
/// Bytes that an exchange puts on the wire each way, about.
pub(super) const ECHOED: usize = 150;
/// One card for each way, so that nobody waits for another's lease.
pub(super) const CARDS: [&str; 2] = ["lan", "relay"];

/// SELECT of the card's application.
pub(super) fn command() -> Vec<u8> {
    let len = u8::try_from(AID_DEBIT.len()).unwrap_or_default();
    [&[0x00, 0xa4, 0x04, 0x00, len][..], AID_DEBIT, &[0x00]].concat()
}

pub(super) fn check(response: &[u8]) -> Fallible<()> {
    match response {
        [.., 0x90, 0x00] => Ok(()),
        other => Err(format!("the card answered {other:02x?}").into()),
    }
}

/// Asks the card without anything in between.
fn direct(card: &mut BankCard, command: &[u8]) -> Fallible<f64> {
    let begun = Instant::now();
    let response = card.transmit(command)?;
    let took = begun.elapsed();
    check(&response)?;
    Ok(micros(took))
}

async fn relayed(session: &SleeveSession, command: &[u8]) -> Fallible<f64> {
    let begun = Instant::now();
    let response = session.transmit(command).await?;
    let took = begun.elapsed();
    check(&response)?;
    Ok(micros(took))
}

/// What one link's rounds gave, in microseconds.
#[derive(Default)]
pub(super) struct Times {
    /// Of the card without anything in between.
    pub(super) card: Vec<f64>,
    pub(super) link: Vec<f64>,
    pub(super) ways: [Vec<f64>; 2],
}

/// What the rows of a setting are called.
pub(super) struct Names {
    pub(super) whole: &'static str,
    pub(super) added: &'static str,
    pub(super) alone: &'static str,
}

const NAMES: Names =
    Names { whole: "an APDU", added: "added to an APDU", alone: "the card and the link alone" };

/// How often it is measured over a link of so many milliseconds.
pub(super) fn rounds_of(millis: u64, rounds: usize) -> usize {
    if millis == 0 { rounds } else { (rounds / LONG_LINK_SHARE).max(2) }
}

/// The sleeves' sessions, each over a link of this round trip, each with its card taken.
pub(super) async fn sessions(
    sleeves: &[Sleeve; 2],
    places: [SocketAddr; 2],
    round_trip: Duration,
) -> Fallible<Vec<(SleeveSession, TakenCard, mpsc::Receiver<SleeveHappening>)>> {
    let near = Way::Direct(Link::to(places[0], round_trip)?.address.to_string());
    let far = Way::Relay(Link::to(places[1], round_trip)?.address.to_string());
    let mut sessions = Vec::new();
    for ((sleeve, way), card) in sleeves.iter().zip([near, far]).zip(CARDS) {
        let (session, happenings) = sleeve.connect(&way, Mode::A2, Some(MANAGER)).await?;
        session.login(typed(PASSWORD)).await?;
        let taken = session.take(card).await?;
        sessions.push((session, taken, happenings));
    }
    Ok(sessions)
}

/// Measures and compares.
pub(super) async fn rows(rounds: usize) -> Fallible<Vec<Row>> {
    let dir = tempfile::tempdir()?;
    let stage = Stage::set_up(&dir.path().join("data"), [127, 0, 0, 1].into(), 64).await?;
    let gateway = stage.server.gateway();
    let cards = Cards::emulated(vec![(CARDS[0], card()?), (CARDS[1], card()?)]);
    let mut home = Home::open(&stage, dir.path(), cards, Some(gateway), None).await?;
    let sleeves = [
        home.paired(&stage, dir.path(), "SLV-LAN").await?,
        home.paired(&stage, dir.path(), "SLV-RELAY").await?,
    ];
    let command = command();
    let mut rows = Vec::new();
    for millis in LINKS {
        let round_trip = Duration::from_millis(millis);
        let sessions = sessions(&sleeves, [home.at, gateway], round_trip).await?;
        let mut echo = Echo::over(round_trip)?;
        let mut alone = card()?;
        let mut times = Times::default();
        for round in 0..WARM_UP + rounds_of(millis, rounds) {
            let card = direct(&mut alone, &command)?;
            let link = tokio::task::block_in_place(|| echo.round_trip(ECHOED))?;
            let mut ways = [0.0; 2];
            for (took, (session, ..)) in ways.iter_mut().zip(&sessions) {
                *took = relayed(session, &command).await?;
            }
            if round >= WARM_UP {
                times.card.push(card);
                times.link.push(micros(link));
                times.ways.iter_mut().zip(ways).for_each(|(all, took)| all.push(took));
            }
        }
        rows.extend(of_link(millis, &times, &NAMES));
        for (session, ..) in sessions {
            session.close().await;
        }
        home.forget();
    }
    home.stop().await?;
    stage.server.stop().await;
    Ok(rows)
}

pub(super) fn of_link(millis: u64, times: &Times, names: &Names) -> Vec<Row> {
    let (card, link) = (median(&times.card), median(&times.link));
    let ways = ["on the LAN", "through the relay"].into_iter().zip(&times.ways);
    let rows = ways.flat_map(|(way, all)| {
        let whole = median(all);
        let name = format!("{} {way}, link of {millis} ms", names.whole);
        let added = format!("{} {way}, link of {millis} ms", names.added);
        [
            Row::new(name, whole, "us").against(names.alone, card + link),
            Row::new(added, whole - card - link, "us").against("1 ms", ALLOWED).at_most(1.0),
        ]
    });
    rows.collect()
}
