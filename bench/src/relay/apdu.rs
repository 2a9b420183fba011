//! What manager, sleeve and relay add to one exchange with a card.

use std::time::Duration;

use countersign_channel::Mode;
use countersign_device::{SleeveSession, Way};
use countersign_emulator::{AID_DEBIT, BankCard};
use countersign_iso7816::CardLink;
use tokio::time::Instant;

use super::home::{Home, MANAGER, PASSWORD, card, typed};
use super::link::{Echo, Link};
use super::stage::Stage;
use crate::Fallible;
use crate::measure::{WARM_UP, median, micros};
use crate::report::Row;

/// The links' round trips, in milliseconds.
const LINKS: [u64; 3] = [0, 20, 100];
/// Long links are measured less often: what is added does not depend on them.
const LONG_LINK_SHARE: usize = 4;
/// What is allowed beyond the link's round trip, in microseconds.
const ALLOWED: f64 = 1000.0;
/// Bytes that an exchange puts on the wire each way, about.
const ECHOED: usize = 150;
/// One card for each way, so that nobody waits for another's lease.
const CARDS: [&str; 2] = ["lan", "relay"];

/// SELECT of the card's application.
fn command() -> Vec<u8> {
    let len = u8::try_from(AID_DEBIT.len()).unwrap_or_default();
    [&[0x00, 0xa4, 0x04, 0x00, len][..], AID_DEBIT, &[0x00]].concat()
}

fn check(response: &[u8]) -> Fallible<()> {
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
struct Times {
    card: Vec<f64>,
    link: Vec<f64>,
    ways: [Vec<f64>; 2],
}

/// Measures and compares.
pub(super) async fn rows(rounds: usize) -> Fallible<Vec<Row>> {
    let dir = tempfile::tempdir()?;
    let stage = Stage::set_up(&dir.path().join("data"), [127, 0, 0, 1].into(), 64).await?;
    let gateway = stage.server.gateway();
    let cards = vec![(CARDS[0], card()?), (CARDS[1], card()?)];
    let mut home = Home::open(&stage, dir.path(), cards, Some(gateway), None).await?;
    let sleeves = [
        home.paired(&stage, dir.path(), "SLV-LAN").await?,
        home.paired(&stage, dir.path(), "SLV-RELAY").await?,
    ];
    let command = command();
    let mut rows = Vec::new();
    for millis in LINKS {
        let round_trip = Duration::from_millis(millis);
        let near = Way::Direct(Link::to(home.at, round_trip)?.address.to_string());
        let far = Way::Relay(Link::to(gateway, round_trip)?.address.to_string());
        let mut sessions = Vec::new();
        for ((sleeve, way), card) in sleeves.iter().zip([near, far]).zip(CARDS) {
            let (session, happenings) = sleeve.connect(&way, Mode::A2, Some(MANAGER)).await?;
            session.login(typed(PASSWORD)).await?;
            session.take(card).await?;
            sessions.push((session, happenings));
        }
        let mut echo = Echo::over(round_trip)?;
        let mut alone = card()?;
        let mut times = Times::default();
        let rounds = if millis == 0 { rounds } else { (rounds / LONG_LINK_SHARE).max(2) };
        for round in 0..WARM_UP + rounds {
            let card = direct(&mut alone, &command)?;
            let link = tokio::task::block_in_place(|| echo.round_trip(ECHOED))?;
            let mut ways = [0.0; 2];
            for (took, (session, _)) in ways.iter_mut().zip(&sessions) {
                *took = relayed(session, &command).await?;
            }
            if round >= WARM_UP {
                times.card.push(card);
                times.link.push(micros(link));
                times.ways.iter_mut().zip(ways).for_each(|(all, took)| all.push(took));
            }
        }
        rows.extend(of_link(millis, &times));
        for (session, _) in sessions {
            session.close().await;
        }
        home.forget();
    }
    home.stop().await?;
    stage.server.stop().await;
    Ok(rows)
}

fn of_link(millis: u64, times: &Times) -> Vec<Row> {
    let (card, link) = (median(&times.card), median(&times.link));
    let ways = ["on the LAN", "through the relay"].into_iter().zip(&times.ways);
    let rows = ways.flat_map(|(way, all)| {
        let whole = median(all);
        let name = format!("an APDU {way}, link of {millis} ms");
        let added = format!("added to an APDU {way}, link of {millis} ms");
        [
            Row::new(name, whole, "us").against("the card and the link alone", card + link),
            Row::new(added, whole - card - link, "us").against("1 ms", ALLOWED).at_most(1.0),
        ]
    });
    rows.collect()
}
