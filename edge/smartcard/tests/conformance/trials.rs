//! Finding the card, talking to it, losing it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

use libtest_mimic::Failed;
use testkit::parts::Pcscd;

use crate::client::{Client, hex};
use crate::toy::{ATR, BOUND, HOLD, InSlot, RECALL, REMEMBER};

type Breaking = JoinHandle<std::io::Result<()>>;
pub(crate) type Test = fn(Pcscd) -> Result<(), Failed>;

pub(crate) const TRIALS: [(&str, Test); 12] = [
    ("readers_are_listed_with_their_cards", readers_are_listed_with_their_cards),
    ("the_only_card_needs_no_name", the_only_card_needs_no_name),
    ("a_card_is_waited_for", a_card_is_waited_for),
    ("commands_of_every_length_pass", commands_of_every_length_pass),
    ("a_card_is_ours_alone_and_reset_after_us", a_card_is_ours_alone_and_reset_after_us),
    ("what_another_program_began_is_gone", what_another_program_began_is_gone),
    ("a_card_removed_in_mid_command_is_named", a_card_removed_in_mid_command_is_named),
    ("a_card_that_was_away_knows_nothing", a_card_that_was_away_knows_nothing),
    ("a_card_removed_between_commands_is_named", a_card_removed_between_commands_is_named),
    ("a_card_that_does_not_start_is_mute", a_card_that_does_not_start_is_mute),
    ("another_makers_program_talks_to_the_card", another_makers_program_talks_to_the_card),
    ("a_command_may_wait_for_its_holder", a_command_may_wait_for_its_holder),
];

/// What a client answers that connected to this reader.
pub(crate) fn connected(pcscd: &Pcscd, slot: u16) -> String {
    format!("{}={}", pcscd.reader(slot), hex(&ATR))
}

fn readers_are_listed_with_their_cards(pcscd: Pcscd) -> Result<(), Failed> {
    let mut client = Client::start(&pcscd)?;
    let (first, second) = (pcscd.reader(0), pcscd.reader(1));
    client.gets("readers", &format!("{first}=-|{second}=-"))?;
    let _card = InSlot::put(&pcscd, 1)?;
    client.gets("wait", &connected(&pcscd, 1))?;
    client.gets("readers", &format!("{first}=-|{second}={}*", hex(&ATR)))?;
    client.gets("drop", "dropped")?;
    client.gets("readers", &format!("{first}=-|{second}={}", hex(&ATR)))
}

fn the_only_card_needs_no_name(pcscd: Pcscd) -> Result<(), Failed> {
    let mut client = Client::start(&pcscd)?;
    let (first, second) = (pcscd.reader(0), pcscd.reader(1));
    client.gets("connect", "card-absent")?;
    client.gets(&format!("connect {first}"), "card-absent")?;
    client.gets("connect of another name", "reader-unknown")?;
    let _one = InSlot::put(&pcscd, 0)?;
    client.gets("wait", &connected(&pcscd, 0))?;
    client.gets(&format!("connect {second}"), "card-absent")?;
    let _other = InSlot::put(&pcscd, 1)?;
    client.gets(&format!("wait {second}"), &connected(&pcscd, 1))?;
    client.gets("connect", "card-ambiguous")?;
    client.gets(&format!("connect {first}"), &connected(&pcscd, 0))?;
    client.gets("connect countersign", "reader-ambiguous")?;
    let part = second.split_once('-').ok_or("no part")?.1;
    client.gets(&format!("connect {part}"), &connected(&pcscd, 1))
}

fn a_card_is_waited_for(pcscd: Pcscd) -> Result<(), Failed> {
    let mut client = Client::start(&pcscd)?;
    client.order("wait")?;
    let card = InSlot::put(&pcscd, 0)?;
    assert_eq!(client.answer()?, connected(&pcscd, 0));
    drop(card);
    // Put back, it is a card that knows nothing of us.
    client.gets("send 80EE000000", "card-removed")?;
    client.order("wait")?;
    let _card = InSlot::put(&pcscd, 0)?;
    assert_eq!(client.answer()?, connected(&pcscd, 0));
    client.gets("send 80EE000000", "9000")
}

fn commands_of_every_length_pass(pcscd: Pcscd) -> Result<(), Failed> {
    let mut client = Client::start(&pcscd)?;
    let _card = InSlot::put(&pcscd, 0)?;
    client.gets("wait", &connected(&pcscd, 0))?;
    client.gets("send 80EE0000", "9000")?;
    client.gets("send 80EE00000512345678ABFF", "12345678AB9000")?;
    client.gets("send 80510000", "6D00")?;
    for length in [1, 255, 256, 1_500, 4_096, 65_000] {
        client.gets(&format!("echo {length}"), "the same")?;
    }
    Ok(())
}

fn a_card_is_ours_alone_and_reset_after_us(pcscd: Pcscd) -> Result<(), Failed> {
    let (mut first, mut second) = (Client::start(&pcscd)?, Client::start(&pcscd)?);
    let card = InSlot::put(&pcscd, 0)?;
    first.gets("wait", &connected(&pcscd, 0))?;
    first.gets(&format!("send {REMEMBER}"), "9000")?;
    first.gets(&format!("send {RECALL}"), "9000")?;
    second.gets("connect", "card-busy")?;
    first.gets(&format!("send {RECALL}"), "9000")?;
    let resets = card.resets();
    // Whoever waits gets the card, but not what the card was told in confidence.
    second.order("connect")?;
    first.gets("drop", "dropped")?;
    assert_eq!(second.answer()?, connected(&pcscd, 0));
    assert!(card.resets() > resets, "{resets}");
    second.gets(&format!("send {RECALL}"), "6985")?;
    // Nor does one that was killed leave it behind.
    second.gets(&format!("send {REMEMBER}"), "9000")?;
    drop(second);
    first.gets("wait", &connected(&pcscd, 0))?;
    first.gets(&format!("send {RECALL}"), "6985")
}

/// This program does not reset the card when it leaves.
fn what_another_program_began_is_gone(pcscd: Pcscd) -> Result<(), Failed> {
    let mut client = Client::start(&pcscd)?;
    let card = InSlot::put(&pcscd, 0)?;
    client.gets("wait", &connected(&pcscd, 0))?;
    client.gets("drop", "dropped")?;
    let resets = card.resets();
    let (name, value) = pcscd.environment();
    let mut scriptor = Command::new("scriptor");
    scriptor.env(name, value).args(["-r", &pcscd.reader(0), "-p", "T=1"]);
    let pipes = scriptor.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut scriptor = pipes.stderr(Stdio::null()).spawn()?;
    let mut stdin = scriptor.stdin.take().ok_or("no stdin")?;
    stdin.write_all(b"80 20 00 00\n80 30 00 00\n")?;
    drop(stdin);
    let said = String::from_utf8(scriptor.wait_with_output()?.stdout)?;
    assert_eq!(said.matches("< 90 00").count(), 2, "{said}");
    assert_eq!(card.resets(), resets, "the card still remembers");
    client.gets("wait", &connected(&pcscd, 0))?;
    client.gets(&format!("send {RECALL}"), "6985")
}

/// A card that takes every command and breaks off at [`HOLD`]: no answer, no farewell.
fn breaks_off(pcscd: &Pcscd) -> Result<(Breaking, Receiver<()>), Failed> {
    let mut wire = TcpStream::connect(pcscd.slot(0))?;
    wire.set_read_timeout(Some(BOUND))?;
    let (tell, held) = channel();
    let card = thread::spawn(move || {
        loop {
            let mut length = [0; 2];
            wire.read_exact(&mut length)?;
            let mut payload = vec![0; u16::from_be_bytes(length).into()];
            wire.read_exact(&mut payload)?;
            match payload[..] {
                [4] => wire.write_all(&[&[0, 5], &ATR[..]].concat())?,
                [_] => {}
                [_, 0x40, ..] => {
                    let _ = tell.send(());
                    return Ok(());
                }
                _ => wire.write_all(&[0, 2, 0x90, 0x00])?,
            }
        }
    });
    Ok((card, held))
}

/// Out and in again, perhaps faster than the reader looks: whatever the link says, what was told to
/// the card that left is not known to the one that came.
fn a_card_that_was_away_knows_nothing(pcscd: Pcscd) -> Result<(), Failed> {
    let mut client = Client::start(&pcscd)?;
    let (card, held) = breaks_off(&pcscd)?;
    client.gets("wait", &connected(&pcscd, 0))?;
    client.gets(&format!("send {REMEMBER}"), "9000")?;
    client.gets(&format!("send {RECALL}"), "9000")?;
    client.order(&format!("send {HOLD}"))?;
    held.recv_timeout(BOUND)?;
    card.join().map_err(|_| "the card panicked")??;
    let _card = InSlot::put(&pcscd, 0)?;
    let check = client.answer()?;
    assert!(check == "card-removed" || check == "card-link", "{check}");
    client.order(&format!("send {RECALL}"))?;
    let answer = client.answer()?;
    assert_ne!(answer, "9000");
    client.gets("wait", &connected(&pcscd, 0))?;
    client.gets(&format!("send {RECALL}"), "6985")
}

fn a_card_removed_in_mid_command_is_named(pcscd: Pcscd) -> Result<(), Failed> {
    let mut client = Client::start(&pcscd)?;
    let (card, held) = breaks_off(&pcscd)?;
    client.gets("wait", &connected(&pcscd, 0))?;
    client.order(&format!("send {HOLD}"))?;
    held.recv_timeout(BOUND)?;
    card.join().map_err(|_| "the card panicked")??;
    assert_eq!(client.answer()?, "card-removed");
    client.gets(&format!("send {RECALL}"), "card-removed")?;
    client.gets("connect", "card-absent")?;
    let _card = InSlot::put(&pcscd, 0)?;
    client.gets("wait", &connected(&pcscd, 0))?;
    client.gets("echo 20", "the same")
}

fn a_card_removed_between_commands_is_named(pcscd: Pcscd) -> Result<(), Failed> {
    let mut client = Client::start(&pcscd)?;
    let card = InSlot::put(&pcscd, 0)?;
    client.gets("wait", &connected(&pcscd, 0))?;
    client.gets(&format!("send {REMEMBER}"), "9000")?;
    drop(card);
    client.gets(&format!("send {RECALL}"), "card-removed")?;
    // A card is there again, but it is not the one that was connected.
    let _card = InSlot::put(&pcscd, 0)?;
    let mut other = Client::start(&pcscd)?;
    client.gets(&format!("send {RECALL}"), "card-removed")?;
    client.gets("drop", "dropped")?;
    other.gets("wait", &connected(&pcscd, 0))?;
    other.gets(&format!("send {RECALL}"), "6985")
}

fn a_card_that_does_not_start_is_mute(pcscd: Pcscd) -> Result<(), Failed> {
    let mut client = Client::start(&pcscd)?;
    let _upside_down = InSlot::put_with(&pcscd, 0, &[0xFF])?;
    client.gets("wait", "card-mute")
}

/// OpenSC's program finds the same reader and card, and gets the same answers.
fn another_makers_program_talks_to_the_card(pcscd: Pcscd) -> Result<(), Failed> {
    let mut client = Client::start(&pcscd)?;
    let _card = InSlot::put(&pcscd, 0)?;
    client.gets("wait", &connected(&pcscd, 0))?;
    client.gets("drop", "dropped")?;
    let (name, value) = pcscd.environment();
    let mut tool = Command::new("opensc-tool");
    tool.env(name, value).args(["--reader", &pcscd.reader(0), "--card-driver", "default"]);
    let output = tool.args(["--atr", "--send-apdu", "80EE0000031122AA"]).output()?;
    let said = String::from_utf8_lossy(&output.stdout).to_lowercase();
    let fine = output.status.success() && said.contains("3b:80:80:01:01");
    assert!(fine && said.contains("sw1=0x90, sw2=0x00"), "{said} {output:?}");
    assert!(said.contains("11 22 aa"), "{said}");
    Ok(())
}

fn a_command_may_wait_for_its_holder(pcscd: Pcscd) -> Result<(), Failed> {
    let mut client = Client::start(&pcscd)?;
    let card = InSlot::put(&pcscd, 0)?;
    client.gets("wait", &connected(&pcscd, 0))?;
    client.order(&format!("send {HOLD}"))?;
    card.holds()?;
    // The service looks at the other slot meanwhile: it goes on, and the card is not lost.
    let _other = InSlot::put(&pcscd, 1)?;
    let mut other = Client::start(&pcscd)?;
    other.gets(&format!("wait {}", pcscd.reader(1)), &connected(&pcscd, 1))?;
    other.gets("echo 300", "the same")?;
    card.let_go();
    assert_eq!(client.answer()?, "9000");
    client.gets("echo 300", "the same")
}
