//! The service itself: absent, killed, back again; and what it costs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use countersign_smartcard::vpcd::SlotEvent;
use libtest_mimic::Failed;
use testkit::parts::Pcscd;

use crate::client::Client;
use crate::toy::{ATR, HOLD, InSlot};
use crate::trials::{Test, connected};

pub(crate) const TRIALS: [(&str, Test); 4] = [
    ("a_service_that_comes_back_is_used_again", a_service_that_comes_back_is_used_again),
    ("a_service_killed_in_mid_command_is_an_error", a_service_killed_in_mid_command_is_an_error),
    ("a_service_that_hangs_hangs_nobody", a_service_that_hangs_hangs_nobody),
    ("round_trips_are_measured", round_trips_are_measured),
];

/// The same process finds the service again, and the card finds its reader again.
fn a_service_that_comes_back_is_used_again(mut pcscd: Pcscd) -> Result<(), Failed> {
    let mut client = Client::start(&pcscd)?;
    let card = InSlot::put(&pcscd, 0)?;
    client.gets("wait", &connected(&pcscd, 0))?;
    pcscd.kill()?;
    card.is_told(|event| matches!(event, SlotEvent::Removed { .. }))?;
    card.is_told(|event| matches!(event, SlotEvent::NoReader { .. }))?;
    client.order("send 80EE0000")?;
    let check = client.answer()?;
    assert!(check == "card-link" || check == "card-removed", "{check}");
    client.gets("connect", "pcsc-service")?;
    client.gets("readers", "pcsc-service")?;
    pcscd.restart()?;
    card.is_told(|event| *event == SlotEvent::Inserted)?;
    client.gets("wait", &connected(&pcscd, 0))?;
    client.gets("echo 20", "the same")
}

fn a_service_killed_in_mid_command_is_an_error(mut pcscd: Pcscd) -> Result<(), Failed> {
    let mut client = Client::start(&pcscd)?;
    let card = InSlot::put(&pcscd, 0)?;
    client.gets("wait", &connected(&pcscd, 0))?;
    client.order(&format!("send {HOLD}"))?;
    card.holds()?;
    pcscd.kill()?;
    assert_eq!(client.answer()?, "card-link");
    card.let_go();
    client.gets("connect", "pcsc-service")
}

/// Neither listing nor connecting nor letting go of a card waits for ever.
fn a_service_that_hangs_hangs_nobody(mut pcscd: Pcscd) -> Result<(), Failed> {
    let (mut holder, mut other) = (Client::start(&pcscd)?, Client::start(&pcscd)?);
    let card = InSlot::put(&pcscd, 0)?;
    holder.gets("wait", &connected(&pcscd, 0))?;
    pcscd.pause()?;
    other.order("readers")?;
    holder.gets("drop", "dropped")?;
    assert_eq!(other.answer()?, "card-timeout");
    other.gets("connect", "card-timeout")?;
    // Once someone has started it again, the same program goes on.
    pcscd.restart()?;
    card.is_told(|event| *event == SlotEvent::Inserted)?;
    other.gets("wait", &connected(&pcscd, 0))?;
    other.gets("echo 20", "the same")
}

/// Prints what a command costs, with acknowledgements at once and with the kernel's own.
fn round_trips_are_measured(pcscd: Pcscd) -> Result<(), Failed> {
    let median = |client: &mut Client, slot: u16| -> Result<u32, Failed> {
        client.gets(&format!("wait {}", pcscd.reader(slot)), &connected(&pcscd, slot))?;
        client.order("time 50")?;
        Ok(client.answer()?.parse()?)
    };
    let _card = InSlot::put(&pcscd, 0)?;
    let mut wire = TcpStream::connect(pcscd.slot(1))?;
    wire.set_nodelay(true)?;
    thread::spawn(move || -> std::io::Result<()> {
        loop {
            let mut length = [0; 2];
            wire.read_exact(&mut length)?;
            let mut payload = vec![0; u16::from_be_bytes(length).into()];
            wire.read_exact(&mut payload)?;
            match payload[..] {
                [4] => wire.write_all(&[&[0, 5], &ATR[..]].concat())?,
                [_] => {}
                _ => wire.write_all(&[0, 6, 1, 2, 3, 4, 0x90, 0])?,
            }
        }
    });
    let mut client = Client::start(&pcscd)?;
    let ours = median(&mut client, 0)?;
    let plain = median(&mut client, 1)?;
    println!("a round trip takes {ours} µs; without quick acknowledgements {plain} µs");
    Ok(())
}
