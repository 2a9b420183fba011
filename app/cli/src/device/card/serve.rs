//! A signing card in a virtual reader: its display is this program's output, its keypad its stdin.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};
use countersign_crypto::Secret;
use countersign_device::{CardChipDir, CardDir, Rendering};
use countersign_iso7816::CardMachine;
use countersign_payment::joint::Language;
use countersign_payment::joint::card::{Interface, JointCard};
use countersign_server::ambient;
use countersign_smartcard::vpcd::{SlotEvent, VirtualReader};
use serde_json::json;

use super::Which;
use super::display::{Picture, Shown};
use super::hand::{Body, Hand, Readers, Shared};
use super::keypad::{HELP, Key, read_keys};
use crate::device::virtual_reader::{listening, permitted, slot_event, tell};
use crate::failure::Failure;
use crate::output::Output;
use crate::serve::stopped;

/// How often the card looks at the clock, and for the end.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Most that waits to be told; what is more is told by the next look at the display.
const TELL_MAX: usize = 64;

/// What a reader may be given; never the PIN.
const GOES_THERE: &str = "joint password";

/// Be a signing card in a virtual reader.
#[derive(Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    which: Which,
    /// Where the virtual reader (vpcd) of the terminal listens; without a value, at port 35963 of
    /// this machine.
    #[arg(long, value_name = "[HOST:]PORT", num_args = 0..=1, required = true)]
    virtual_reader: Option<Option<VirtualReader>>,
    /// Where the terminal's contactless reader listens, to which the card can be held.
    #[arg(long, value_name = "[HOST:]PORT")]
    contactless_reader: Option<VirtualReader>,
    /// Let the readers be on another machine. What goes there is not encrypted.
    #[arg(long)]
    remote_reader: bool,
    /// Where a joint password is shown as a picture too, in the file display.png, as long as the
    /// card displays it; made if it is not there.
    #[arg(long, value_name = "DIR")]
    display_dir: Option<PathBuf>,
    /// The language in which its pictures are called.
    #[arg(long, value_enum, default_value = "en")]
    language: LanguageName,
}

/// The languages that pictures have names in.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LanguageName {
    /// English.
    En,
    /// Chinese.
    Zh,
}

impl From<LanguageName> for Language {
    fn from(name: LanguageName) -> Self {
        match name {
            LanguageName::En => Self::En,
            LanguageName::Zh => Self::Zh,
        }
    }
}

/// What the program's loop is told.
pub(super) enum Happening {
    /// Something was typed.
    Key(Key),
    /// Something happened in a reader.
    Slot(Interface, SlotEvent),
    /// A reader has said something to the card.
    Touched,
}

impl Serve {
    pub(crate) async fn run(self, json: bool) -> Result<Output, Failure> {
        let remote = self.remote_reader;
        let contact = self.virtual_reader.flatten().unwrap_or_default();
        let contact = permitted(contact, remote, GOES_THERE)?;
        let contactless =
            self.contactless_reader.map(|reader| permitted(reader, remote, GOES_THERE));
        let readers = Readers { contact, contactless: contactless.transpose()? };
        let picture = self.display_dir.as_deref().map(Picture::in_dir).transpose()?;
        let ambient = ambient();
        let chip = CardChipDir::new(CardDir::open(&self.which.card)?, ambient.clock.now())?;
        let serial = chip.directory().settings().serial.clone();
        let card = Shared::new(Body {
            machine: CardMachine::new(JointCard::new(chip)),
            rng: (ambient.rng)(),
            clock: ambient.clock,
        });
        // Listened to before anybody is told that it runs.
        let mut stopping = pin!(stopped());
        if let Some(stopped) = listening(stopping.as_mut()).await {
            return stopped.map(|()| Output::none());
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (tell_loop, happenings) = sync_channel(TELL_MAX);
        let program = Program {
            json,
            hand: Hand::new(card.clone(), readers, tell_loop.clone()),
            card,
            picture,
            typed: None,
            rendering: Rendering::Digits,
            language: self.language.into(),
            displayed: None,
        };
        let ready = json!({ "event": "ready", "serial": serial });
        let text = format!("Signing card {serial}; `help` tells the keys");
        tell(json, &ready, &text);
        let told = stop.clone();
        let mut working = tokio::task::spawn_blocking(move || {
            listen_to_keys(tell_loop);
            program.run(&happenings, &told)
        });
        let ended = tokio::select! {
            stopped = &mut stopping => {
                stop.store(true, Ordering::SeqCst);
                stopped.map_err(Failure::late)?;
                working.await
            }
            ended = &mut working => ended,
        };
        let ended = ended.map_err(|error| Failure::environment("task", error.to_string()).late());
        ended?.map_err(Failure::late)?;
        Ok(Output::none())
    }
}

/// A thread that nobody waits for: it may be asking someone who has gone.
fn listen_to_keys(tell: SyncSender<Happening>) {
    thread::spawn(move || read_keys(|key| tell.send(Happening::Key(key)).is_ok()));
}

/// The card's display and keypad.
struct Program {
    json: bool,
    card: Shared<CardChipDir>,
    hand: Hand<CardChipDir>,
    picture: Option<Picture>,
    /// A PIN that was typed and not confirmed yet.
    typed: Option<Secret>,
    rendering: Rendering,
    language: Language,
    /// What was displayed last.
    displayed: Option<Shown>,
}

impl Program {
    fn run(mut self, happenings: &Receiver<Happening>, stop: &AtomicBool) -> Result<(), Failure> {
        self.hand.put(Interface::Contact);
        self.display()?;
        while !stop.load(Ordering::SeqCst) {
            match happenings.recv_timeout(LOOK_EVERY) {
                Ok(Happening::Key(Key::Quit)) => return Ok(()),
                Ok(Happening::Key(key)) => self.press(key),
                Ok(Happening::Slot(at, event)) => self.happened(at, &event),
                Ok(Happening::Touched) | Err(RecvTimeoutError::Timeout) => {}
                // Its own hand holds a sender.
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            self.display()?;
        }
        Ok(())
    }

    fn happened(&self, at: Interface, event: &SlotEvent) {
        let (name, reader) = match at {
            Interface::Contact => ("contact", "terminal's reader"),
            Interface::Contactless => ("contactless", "contactless reader"),
        };
        let (mut event, text) = slot_event(event, reader);
        event["interface"] = json!(name);
        tell(self.json, &event, &text);
    }

    fn press(&mut self, key: Key) {
        match key {
            Key::Pin(pin) => {
                self.typed = Some(pin);
                self.say("typed", "The PIN is typed: ok, or no");
            }
            Key::Confirm => self.confirm(),
            Key::Decline => {
                self.typed = None;
                self.card.lock().card().decline();
            }
            Key::Show(rendering) => self.rendering = rendering,
            Key::Out => {
                self.typed = None;
                if self.hand.take() {
                    self.say("out", "The card is in your hand");
                } else {
                    self.refuse("card-place", "the card is in no reader");
                }
            }
            Key::Into(at) if self.hand.place() == Some(at) => {
                self.refuse("card-place", "the card is there already");
            }
            Key::Into(Interface::Contactless) if self.hand.place().is_some() => {
                self.refuse("card-place", "the card is in the terminal's reader: take it out");
            }
            Key::Into(at) => {
                if !self.hand.put(at) {
                    self.refuse("card-place", "there is none: say --contactless-reader");
                }
            }
            Key::PowerLost => {
                self.typed = None;
                let mut body = self.card.lock();
                body.card().power_lost();
                body.machine.reset();
                drop(body);
                self.say("power-lost", "The card was without power");
            }
            Key::Look => self.displayed = None,
            Key::Help => self.say("help", HELP),
            Key::Unknown => self.refuse("key", "no such key; `help` tells them"),
            Key::Quit => {}
        }
    }

    fn confirm(&mut self) {
        let Some(pin) = self.typed.take() else {
            return self.refuse("pin-absent", "type the PIN first (pin)");
        };
        let confirmed = self.card.lock().card().confirm(&pin);
        if let Err(error) = confirmed {
            self.refuse(error.check(), &error.to_string());
        }
    }

    fn say(&self, event: &str, text: &str) {
        tell(self.json, &json!({ "event": event }), text);
    }

    fn refuse(&self, check: &str, detail: &str) {
        let event = json!({ "event": "refused", "check": check, "detail": detail });
        tell(self.json, &event, &format!("No: {detail}"));
    }

    /// Tells what is displayed, if it is not what was told last.
    fn display(&mut self) -> Result<(), Failure> {
        let shown = Shown::of(&self.card.lock().card().view(), self.rendering, self.language);
        if self.displayed.as_ref() == Some(&shown) {
            return Ok(());
        }
        // The picture first: who is told to look finds it.
        if let Some(picture) = &self.picture {
            picture.show(&shown)?;
        }
        tell(self.json, &shown.json(), &shown.text());
        self.displayed = Some(shown);
        Ok(())
    }
}
