//! The card is pulled out at each command in turn, before it hears it and after it has done it.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use libtest_mimic::Failed;
use serde_json::json;
use testkit::parts::Pcscd;

use super::behind_readers::{Payer, SELECT, refused};
use crate::host::wait_for;

/// More commands than one confirmation takes.
const COMMANDS_MAX: u32 = 40;
/// Fewest that it can take: SELECT, what the card is, the request, the PIN, the signature.
const COMMANDS_MIN: u32 = 5;

/// When the card is pulled.
#[derive(Clone, Copy)]
pub(crate) struct Cut {
    /// At this command from now, counted from 1.
    pub(crate) at: u32,
    /// The card hears the command and does it; its answer is lost.
    pub(crate) is_heard: bool,
}

/// What stands between a card and its slot.
#[derive(Clone, Default)]
pub(crate) struct Hand(Arc<Mutex<Option<Cut>>>);

impl Hand {
    pub(crate) fn plan(&self, cut: Option<Cut>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = cut;
    }

    pub(crate) fn has_cut(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Counts a command down; what to do with it if this is the one.
    fn command(&self) -> Option<Cut> {
        let mut planned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cut = planned.as_mut()?;
        cut.at = cut.at.saturating_sub(1);
        if cut.at == 0 { planned.take() } else { None }
    }

    /// Where a card of this slot connects instead, and what puts it back each time.
    pub(crate) fn between(&self, slot: String) -> Result<(String, Sender<()>), Failed> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let at = listener.local_addr()?.to_string();
        let (put, puts) = channel();
        let hand = self.clone();
        thread::spawn(move || {
            for (card, ()) in listener.incoming().zip(puts) {
                let _pulled = card.and_then(|card| hand.carry(card, TcpStream::connect(&slot)?));
            }
        });
        Ok((at, put))
    }

    /// Carries messages between a card and its reader until it pulls the card.
    fn carry(&self, mut card: TcpStream, mut reader: TcpStream) -> io::Result<()> {
        card.set_nodelay(true)?;
        reader.set_nodelay(true)?;
        loop {
            let message = receive(&mut reader)?;
            let is_command = message.len() > 1;
            let cut = if is_command { self.command() } else { None };
            if cut.is_some_and(|cut| !cut.is_heard) {
                return Ok(());
            }
            send(&mut card, &message)?;
            if is_command || message == [4] {
                let answer = receive(&mut card)?;
                if cut.is_some() {
                    return Ok(());
                }
                send(&mut reader, &answer)?;
            }
        }
    }
}

fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut payload = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut payload)?;
    Ok(payload)
}

fn send(stream: &mut TcpStream, payload: &[u8]) -> io::Result<()> {
    let length = u16::try_from(payload.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&length.to_be_bytes(), payload].concat())
}

/// Whenever the card goes, the phone says so, the payment waits, and in the end it executes once.
pub(super) fn at_any_command(pcscd: Pcscd) -> Result<(), Failed> {
    let mut payer = Payer::new(pcscd, "p256")?;
    payer.key("KEY-1", "pki")?;
    let hand = Hand::default();
    let (at, put) = hand.between(payer.pcscd.slot(0))?;
    put.send(())?;
    let _card = payer.insert_at("KEY-1", &at, &[])?;
    let id = payer.bank.pending("12.34")?;
    let mut commands = 0;
    'all: for at in 1..COMMANDS_MAX {
        for is_heard in [false, true] {
            hand.plan(Some(Cut { at, is_heard }));
            // The reader has to notice a card that is put back.
            let ended = wait_for("a card in the reader", || {
                let ended = payer.approve(&id, &["--pin-file", "pin"])?;
                let absent = ended.stdout.contains("\"card-absent\"");
                Ok((!absent).then_some(ended))
            })?;
            if !hand.has_cut() {
                assert_eq!(ended.ok()?.json()?["status"], "executed");
                break 'all;
            }
            refused(ended, "card-removed").map_err(|failed| {
                format!("command {at}, heard: {is_heard}: {:?}", failed.message())
            })?;
            assert_eq!(payer.bank.payment(&id)?["status"], "pending", "{at} {is_heard}");
            put.send(())?;
        }
        commands = at;
    }
    assert!((COMMANDS_MIN..COMMANDS_MAX - 1).contains(&commands), "{commands} commands");
    hand.plan(None);
    assert_eq!(payer.bank.balance("SHOP0001")?, "12.34", "once, though it signed twice");
    let shown = payer.bank.done(&["security-device", "show", "KEY-1"])?;
    assert_eq!((&shown["failures"], &shown["status"]), (&json!(0), &json!("enrolled")));
    // The right PIN was given many times, and each counted as right.
    assert_eq!(payer.script(&[SELECT, "00 CA DF 03 00"])?[1], "030A9000");
    payer.bank.books_hold()
}
