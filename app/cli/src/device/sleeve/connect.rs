//! A connected sleeve: it is driven by lines, and is the card that its holder takes.

use std::io;
use std::pin::{Pin, pin};
use std::thread;
use std::time::Duration;

use clap::Args;
use countersign_channel::Heartbeat;
use countersign_crypto::Secret;
use countersign_device::{SleeveError, SleeveHappening, SleeveSession};
use countersign_smartcard::vpcd::{SlotEvent, VirtualReader};
use data_encoding::HEXUPPER;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::connection::{Connected, Connection, cards_json, cards_text, log_in};
use super::keys::{HELP, Key};
use super::slot::VirtualSlot;
use crate::device::reader::seconds;
use crate::device::typed_line::read_lines;
use crate::device::virtual_reader::{listening, permitted, slot_event, tell};
use crate::failure::{Blame, Failure};
use crate::output::Output;
use crate::serve::stopped;

/// Keys that wait.
const KEYS_MAX: usize = 16;
/// Pauses between two attempts to connect again: the first, and the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// What goes to a reader.
const GOES_THERE: &str = "card's PIN";

/// Be a card at home in a virtual reader.
#[derive(Args)]
pub(crate) struct Connect {
    #[command(flatten)]
    connection: Connection,
    /// Take this card at once, and whenever the way home was lost and is there again.
    #[arg(long, value_name = "ID")]
    card: Option<String>,
    /// Where the virtual reader (vpcd) of the terminal listens; without, at port 35963 of this
    /// machine.
    #[arg(long, value_name = "[HOST:]PORT")]
    virtual_reader: Option<VirtualReader>,
    /// Let the reader be on another machine. What goes there is not encrypted.
    #[arg(long)]
    remote_reader: bool,
    /// Asleep, send a heartbeat every so many seconds.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    sleep_every: Duration,
    /// Asleep, take the way home for lost when a heartbeat has no answer within so many seconds.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    sleep_within: Duration,
    /// Connect again for so long when the way home is lost. It takes a password file: a password
    /// that was typed is not kept.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    retry_for: Duration,
}

/// Why the program's loop ended.
enum Over {
    /// Its holder wants no more.
    Quit,
    /// The way home is lost.
    Lost(Failure),
}

impl Connect {
    pub(super) async fn run(self, json: bool) -> Result<Output, Failure> {
        let reader = self.virtual_reader.clone().unwrap_or_default();
        let reader = permitted(reader, self.remote_reader, GOES_THERE)?;
        let sleeve = self.connection.sleeve()?;
        let mut password = Some(self.connection.password()?);
        // Listened to before anybody is told that it runs.
        let mut stopping = pin!(stopped());
        if let Some(stopped) = listening(stopping.as_mut()).await {
            return stopped.map(|()| Output::none());
        }
        let (slot, slot_events) = VirtualSlot::new(reader);
        let keys = typed_keys();
        let (options, wanted) = (&self, self.card.clone());
        let mut program = Program { json, options, slot, slot_events, keys, typing: true, wanted };
        let mut first = true;
        let mut lost_at = Instant::now();
        let mut pause = PAUSE_FIRST;
        loop {
            let password = match password.take() {
                Some(typed) => typed,
                None => self.connection.password().map_err(Failure::late)?,
            };
            let began = async {
                let connected = self.connection.connect(&sleeve).await?;
                program.logs_in(connected, password, &mut first).await
            };
            let connected = tokio::select! {
                stopped = &mut stopping => return stopped.map(|()| Output::none()),
                connected = began => connected,
            };
            let failure = match connected {
                Ok(connected) => match program.session(connected, stopping.as_mut()).await? {
                    Over::Quit => return Ok(Output::none()),
                    Over::Lost(failure) => {
                        (lost_at, pause) = (Instant::now(), PAUSE_FIRST);
                        failure
                    }
                },
                Err(failure) => failure,
            };
            let may_try = failure.blame == Blame::Environment
                && self.connection.password_file.is_some()
                && lost_at.elapsed() + pause <= self.retry_for;
            if !may_try {
                return Err(if first { failure } else { failure.late() });
            }
            tokio::select! {
                stopped = &mut stopping => return stopped.map(|()| Output::none()),
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// The program while it runs.
struct Program<'a> {
    json: bool,
    options: &'a Connect,
    slot: VirtualSlot,
    slot_events: mpsc::Receiver<SlotEvent>,
    keys: mpsc::Receiver<Key>,
    /// Somebody may still type.
    typing: bool,
    /// The card that its holder wants to be in the slot, by its id.
    wanted: Option<String>,
}

impl Program<'_> {
    /// Tells of a new connection, and logs in there.
    async fn logs_in(
        &self,
        (session, events): Connected,
        password: Secret,
        first: &mut bool,
    ) -> Result<Connected, Failure> {
        let (event, text) = self.options.connection.told(&session);
        if let Err(failure) = log_in(&session, password).await {
            session.close().await;
            return Err(failure);
        }
        *first = false;
        tell(self.json, &event, &text);
        let event = json!({ "event": "logged-in", "manager": session.manager() });
        self.say(&event, "Logged in; `help` tells what can be typed");
        Ok((session, events))
    }

    fn say(&self, event: &Value, text: &str) {
        tell(self.json, event, text);
    }

    fn refuse(&self, failure: &Failure) {
        let (check, detail) = (&failure.check, &failure.detail);
        let event = json!({ "event": "refused", "check": check, "detail": detail });
        self.say(&event, &format!("No: {detail} [{check}]"));
    }

    /// One session, until its holder ends it or it is lost.
    async fn session(
        &mut self,
        (session, mut events): Connected,
        mut stopping: Pin<&mut impl Future<Output = Result<(), Failure>>>,
    ) -> Result<Over, Failure> {
        // The card that it had when the way home was lost.
        if let Some(card) = self.wanted.take() {
            self.take(&session, card).await;
        }
        let over = loop {
            tokio::select! {
                stopped = &mut stopping => {
                    stopped.map_err(Failure::late)?;
                    break Over::Quit;
                }
                key = self.keys.recv(), if self.typing => match key {
                    Some(Key::Quit) => break Over::Quit,
                    Some(key) => self.press(&session, key).await,
                    // Nobody types any more; the card stays where it is.
                    None => self.typing = false,
                },
                Some(event) = self.slot_events.recv() => {
                    let (event, text) = slot_event(&event, "terminal's reader");
                    self.say(&event, &text);
                }
                event = events.recv() => match event {
                    Some(SleeveHappening::Lost { check, incident }) => {
                        break Over::Lost(lost(&check, incident));
                    }
                    Some(event) => self.happened(&event),
                    None => break Over::Lost(lost("closed", None)),
                },
            }
        };
        self.slot.empty();
        match &over {
            Over::Quit => session.close().await,
            Over::Lost(failure) => {
                let (check, incident) = (&failure.check, &failure.incident);
                let (event, text) = match failure.blame {
                    Blame::Environment => ("lost", "The way home is lost"),
                    _ => ("ended", "The manager has ended this"),
                };
                let event = json!({ "event": event, "check": check, "incident": incident });
                self.say(&event, &format!("{text} [{check}]"));
            }
        }
        Ok(over)
    }

    fn happened(&mut self, event: &SleeveHappening) {
        match event {
            SleeveHappening::CardLost { check } => {
                self.slot.empty();
                let card = self.wanted.take();
                let event = json!({ "event": "released", "card": card, "check": check });
                self.say(&event, &format!("The card is out of the reader [{check}]"));
            }
            SleeveHappening::DistanceCheckFails { measured, allowed } => {
                let (measured, allowed) = (micros(*measured), micros(*allowed));
                let event = json!({
                    "event": "distance-check-fails", "measuredMicros": measured,
                    "allowedMicros": allowed,
                });
                let text = format!(
                    "The terminal measures how far the card is: {measured} µs, and {allowed} µs \
                     are allowed. The distance check fails."
                );
                self.say(&event, &text);
            }
            // The session's loop has it.
            SleeveHappening::Lost { .. } => {}
        }
    }

    async fn press(&mut self, session: &SleeveSession, key: Key) {
        let done = match key {
            Key::List => self.list(session).await,
            Key::Take(card) => {
                self.take(session, card).await;
                Ok(())
            }
            Key::Release => self.release(session).await,
            Key::Probe => self.probe(session).await,
            Key::Sleep => self.sleep(session).await,
            Key::Wake => self.wake(session).await,
            Key::Help => {
                self.say(&json!({ "event": "help" }), HELP);
                Ok(())
            }
            Key::Unknown | Key::Quit => {
                Err(Failure::usage("key", "no such word; `help` tells them"))
            }
        };
        if let Err(failure) = done {
            self.refuse(&failure);
        }
    }

    async fn list(&self, session: &SleeveSession) -> Result<(), Failure> {
        let cards = session.list().await?;
        let event = json!({ "event": "cards", "cards": cards_json(&cards) });
        self.say(&event, &cards_text(&cards));
        Ok(())
    }

    /// Is this card from now on, and no other, or says why not.
    async fn take(&mut self, session: &SleeveSession, card: String) {
        let taken = async {
            if self.wanted.is_some() {
                self.release(session).await?;
            }
            Ok::<_, Failure>(session.take(&card).await?)
        };
        let taken = match taken.await {
            Ok(taken) => taken,
            Err(failure) => return self.refuse(&failure),
        };
        let seconds = taken.lasts.as_secs();
        let event = json!({
            "event": "taken", "card": card, "label": taken.label, "seconds": seconds,
            "atr": HEXUPPER.encode(&taken.atr),
        });
        let text = format!("{} is yours for {seconds} s from its last use", taken.label);
        self.say(&event, &text);
        self.slot.put(session.card(&taken)).await;
        self.wanted = Some(card);
    }

    async fn release(&mut self, session: &SleeveSession) -> Result<(), Failure> {
        self.slot.empty();
        session.release().await?;
        let card = self.wanted.take();
        self.say(&json!({ "event": "released", "card": card }), "The card is out of the reader");
        Ok(())
    }

    async fn sleep(&self, session: &SleeveSession) -> Result<(), Failure> {
        let (every, within) = (self.options.sleep_every, self.options.sleep_within);
        session.sleep(Heartbeat { every, within }).await?;
        let text = format!("Asleep: a heartbeat every {} s", every.as_secs_f64());
        self.say(&json!({ "event": "asleep" }), &text);
        Ok(())
    }

    async fn wake(&self, session: &SleeveSession) -> Result<(), Failure> {
        session.wake().await?;
        self.say(&json!({ "event": "awake" }), "Awake");
        Ok(())
    }

    async fn probe(&self, session: &SleeveSession) -> Result<(), Failure> {
        let micros = micros(session.probe().await?);
        let event = json!({ "event": "probed", "roundTripMicros": micros });
        self.say(&event, &format!("Home and back: {micros} µs"));
        Ok(())
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A session that ended by itself.
fn lost(check: &str, incident: Option<String>) -> Failure {
    SleeveError::Ended { check: check.to_owned(), incident }.into()
}

/// Lines from stdin, from a thread that nobody waits for: it may be waiting for someone who has
/// gone.
fn typed_keys() -> mpsc::Receiver<Key> {
    let (press, keys) = mpsc::channel(KEYS_MAX);
    thread::spawn(move || {
        read_lines(&mut io::stdin().lock(), |line| {
            press.blocking_send(line.map_or(Key::Unknown, Key::of)).is_ok()
        });
    });
    keys
}
