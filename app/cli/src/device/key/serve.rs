//! A security device as a card in a virtual reader.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use countersign_crypto::{CryptoRng, Secret};
use countersign_device::{Holder, KeyChip, KeyDir};
use countersign_iso7816::CardMachine;
use countersign_payment::Line;
use countersign_payment::card::{PinEntry, Screen, SecurityDeviceCard};
use countersign_server::ambient;
use countersign_smartcard::vpcd::{SlotCard, SlotEvent, VirtualReader};
use serde_json::json;
use tokio::sync::oneshot;

use super::{AtTerminal, PinFile, Which, display_json, display_text};
use crate::device::virtual_reader::{listening, permitted, slot_event, tell};
use crate::failure::Failure;
use crate::output::{Output, print_error};
use crate::serve::stopped;

/// How long a card that answers has to be left alone before the program ends all the same.
const GRACE: Duration = Duration::from_secs(1);

/// Be a card in a virtual reader.
#[derive(Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    which: Which,
    /// Where the virtual reader (vpcd) of PC/SC listens; without a value, at port 35963 of this
    /// machine.
    #[arg(long, value_name = "[HOST:]PORT", num_args = 0..=1, required = true)]
    virtual_reader: Option<Option<VirtualReader>>,
    /// Let the reader be on another machine. What goes there is not encrypted, nor is the PIN.
    #[arg(long)]
    remote_reader: bool,
    /// The card has a keypad: what it shows and its PIN are this terminal's. Without, it only
    /// shows, and the PIN comes from whoever talks to it.
    #[arg(long)]
    keypad: bool,
    /// File with the PIN for --keypad: nobody is asked, the card signs whatever it is given. For
    /// tests only.
    #[arg(long, value_name = "FILE")]
    pin_file: Option<PathBuf>,
}

impl Serve {
    pub(crate) async fn run(self, json: bool) -> Result<Output, Failure> {
        if self.pin_file.is_some() && !self.keypad {
            let detail = "without --keypad the PIN comes from whoever talks to the card";
            return Err(Failure::usage("pin-file", detail));
        }
        let reader = self.virtual_reader.flatten().unwrap_or_default();
        let reader = permitted(reader, self.remote_reader, "PIN")?;
        let entry = if self.keypad { PinEntry::Keypad } else { PinEntry::Host };
        let chip = KeyChip::new(KeyDir::open(&self.which.key)?, entry)?;
        let settings = chip.directory().settings().clone();
        let unattended = self.pin_file.is_some();
        if unattended {
            print_error(
                "Nobody is asked here: the card signs whatever it is given. For tests only.",
            );
        }
        let pin = PinFile { pin_file: self.pin_file };
        let screen = Terminal { serial: settings.serial.clone(), pin, json };
        let mut card = Served {
            machine: CardMachine::new(SecurityDeviceCard::new(chip, screen)),
            rng: (ambient().rng)(),
        };
        let text = format!("Card {} for a virtual reader", settings.serial);
        let (serial, method) = (&settings.serial, settings.method.name());
        let ready = json!({
            "event": "ready", "serial": serial, "method": method, "pinEntry": entry.name(),
            "unattended": unattended,
        });
        // Listened to before anybody is told that it runs.
        let mut stopping = pin!(stopped());
        if let Some(stopped) = listening(stopping.as_mut()).await {
            return stopped.map(|()| Output::none());
        }
        tell(json, &ready, &text);
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, mut end) = oneshot::channel();
        let told_to_stop = stop.clone();
        // A thread that nobody waits for: its card may be asking someone who has gone.
        std::thread::spawn(move || {
            reader.run(&mut card, &told_to_stop, &mut |event| happened(json, event));
            let _waiting = ended.send(());
        });
        tokio::select! {
            stopped = &mut stopping => stopped.map_err(Failure::late)?,
            _ = &mut end => {
                let detail = "the card's work ended".to_owned();
                return Err(Failure::environment("virtual-reader", detail).late());
            }
        }
        stop.store(true, Ordering::SeqCst);
        let _answering = tokio::time::timeout(GRACE, end).await;
        Ok(Output::none())
    }
}

fn happened(json: bool, event: &SlotEvent) {
    let (event, text) = slot_event(event, "reader");
    tell(json, &event, &text);
}

/// The card as its reader has it.
struct Served {
    machine: CardMachine<SecurityDeviceCard<KeyChip, Terminal>>,
    rng: Box<dyn CryptoRng + Send>,
}

impl SlotCard for Served {
    fn atr(&self) -> Vec<u8> {
        self.machine.atr()
    }

    fn power_on(&mut self) {
        self.machine.power();
    }

    fn power_off(&mut self) {
        self.machine.reset();
    }

    fn reset(&mut self) {
        self.machine.reset();
    }

    fn transmit(&mut self, command: &[u8]) -> Vec<u8> {
        self.machine.handle(&mut *self.rng, command)
    }
}

/// This terminal as the card's display, and with --keypad as its keypad.
struct Terminal {
    serial: String,
    pin: PinFile,
    json: bool,
}

impl Screen for Terminal {
    fn shown(&mut self, lines: &[Line]) {
        let text = format!("The card shows:\n{}", display_text(lines));
        tell(self.json, &json!({ "event": "shown", "display": display_json(lines) }), &text);
    }

    fn asked(&mut self, lines: &[Line]) -> Option<Secret> {
        if self.json {
            tell(true, &json!({ "event": "asked", "display": display_json(lines) }), "");
        }
        AtTerminal::of(&self.serial, &self.pin).asked(lines).unwrap_or_else(|error| {
            print_error(&error.to_string());
            None
        })
    }
}
