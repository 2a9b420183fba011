//! The reader as a program that stays: it looks for cards all the time (C6) and reads when its own
//! keys or its host say so (C16).

use std::time::Duration;

use countersign_idcard::reader::ReadOptions;
use countersign_net::{mode_name, policy_name};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval};
use zeroize::Zeroizing;

use crate::line::{
    Command, LineFailure, LineMessage, LineResult, Progress, ReadSummary, Step, busy,
};
use crate::{Outcome, ReadError, Reader, Traffic};

/// How long a result waits for its host to say that it has arrived.
const RESULT_KEPT_FOR: Duration = Duration::from_secs(10);
/// How often a reader that is reading tells so.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// How long the reader looks for a card before it looks at its commands again.
const ATTEND: Duration = Duration::from_millis(50);

/// A key of the reader's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Read the card.
    Read {
        /// Its fingerprint as well.
        fingerprint: bool,
    },
    /// End the program.
    Quit,
}

/// What a resident reader tells its owner.
#[derive(Debug)]
pub enum ResidentEvent {
    /// A card came, or went.
    Card {
        /// Whether it is there.
        present: bool,
    },
    /// A read that the reader's own keys asked for: shown here and nowhere else.
    Read(Box<(Outcome, Traffic)>),
    /// It failed.
    Failed(ReadError),
    /// A read that the host asked for succeeded; the record went to the host alone.
    Served(ReadSummary),
    /// It failed; the host was told.
    NotServed(LineFailure),
    /// A command came while a read was under way.
    Busy,
}

/// A reader that waits for commands.
pub struct Resident {
    reader: Reader,
    keys: mpsc::Receiver<Key>,
    commands: Option<mpsc::Receiver<Command>>,
    kept: Kept,
    was_present: bool,
}

/// What the last read for the host came to.
#[derive(Default)]
struct Kept {
    number: Option<u64>,
    /// As it goes onto the line, since when.
    answer: Option<(Zeroizing<Vec<u8>>, Instant)>,
}

enum Wanted {
    Key(Key),
    Host(Command),
    Nothing,
}

impl Resident {
    /// Lets `reader` wait for `keys`, and, if it reaches its server through a host, for the host's
    /// commands. Must be called on a runtime.
    #[must_use]
    pub fn new(mut reader: Reader, keys: mpsc::Receiver<Key>) -> Self {
        let commands = reader.listen();
        Self { reader, keys, commands, kept: Kept::default(), was_present: false }
    }

    /// Serves until a key says to end, or the owner closes the keys; then wipes what is kept and
    /// gives the reader back.
    pub async fn run(mut self, mut tell: impl FnMut(ResidentEvent)) -> Reader {
        loop {
            match self.wait(&mut tell).await {
                Wanted::Key(Key::Quit) => break,
                Wanted::Key(Key::Read { fingerprint }) => {
                    let before = self.reader.traffic();
                    let result = self.read(fingerprint, None, &mut tell).await;
                    let used = since(before, self.reader.traffic());
                    tell(match result {
                        Ok(outcome) => ResidentEvent::Read(Box::new((outcome, used))),
                        Err(error) => ResidentEvent::Failed(error),
                    });
                }
                Wanted::Host(Command::Received { number }) => self.kept.received(number),
                Wanted::Host(Command::Read { number, fingerprint }) => {
                    if let Some(answer) = self.kept.answer_to(number) {
                        self.send(answer);
                    } else {
                        self.serve(number, fingerprint, &mut tell).await;
                    }
                }
                Wanted::Nothing => {}
            }
        }
        self.reader.power_off();
        self.reader
    }

    /// Looks at the card until there is something to do.
    async fn wait(&mut self, tell: &mut impl FnMut(ResidentEvent)) -> Wanted {
        self.kept.expire(Instant::now());
        // A look at the card is not broken off: its link may be in the middle of a command.
        self.reader.attend(ATTEND).await;
        let present = self.reader.card_is_present();
        if present != self.was_present {
            self.was_present = present;
            tell(ResidentEvent::Card { present });
        }
        match self.keys.try_recv() {
            Ok(key) => return Wanted::Key(key),
            Err(mpsc::error::TryRecvError::Disconnected) => return Wanted::Key(Key::Quit),
            Err(mpsc::error::TryRecvError::Empty) => {}
        }
        match self.commands.as_mut().map(mpsc::Receiver::try_recv) {
            Some(Ok(command)) => Wanted::Host(command),
            _ => Wanted::Nothing,
        }
    }

    /// A read for the host: what comes of it goes there and is not shown here.
    async fn serve(
        &mut self,
        number: u64,
        fingerprint: bool,
        tell: &mut impl FnMut(ResidentEvent),
    ) {
        let before = self.reader.traffic();
        let result = self.read(fingerprint, Some(number), tell).await;
        let used = since(before, self.reader.traffic());
        let (message, event) = match result {
            Ok(outcome) => {
                let summary = summary(&outcome, used);
                let result = LineResult { summary: summary.clone(), data: outcome.data };
                let message = LineMessage::Result { number, result: Box::new(result) };
                (message, ResidentEvent::Served(summary))
            }
            Err(error) => {
                let failure = failure(&error);
                let message = LineMessage::Failed { number, failure: failure.clone() };
                (message, ResidentEvent::NotServed(failure))
            }
        };
        let answer = self.kept.keep(number, &message);
        self.send(answer);
        tell(event);
    }

    /// A read; commands that come meanwhile are answered `busy`, and the asking host is told that
    /// it goes on.
    async fn read(
        &mut self,
        fingerprint: bool,
        number: Option<u64>,
        tell: &mut impl FnMut(ResidentEvent),
    ) -> Result<Outcome, ReadError> {
        let started = Instant::now();
        let present = self.reader.card_is_present();
        let mut step = if present { Step::Reading } else { Step::WaitingForCard };
        let line = self.reader.line().map(|line| line.sender());
        let say = |message: &LineMessage| line.iter().for_each(|line| line.say(message));
        let progress = |number, step| {
            let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            LineMessage::Progress { number, progress: Progress { step, ms } }
        };
        let options = ReadOptions { fingerprint, ..ReadOptions::default() };
        let mut reading = std::pin::pin!(self.reader.read(options));
        let mut ticks = interval(PROGRESS_EVERY);
        loop {
            tokio::select! {
                result = &mut reading => return result,
                _ = ticks.tick() => {
                    self.kept.expire(Instant::now());
                    if let Some(number) = number {
                        say(&progress(number, step));
                    }
                    step = Step::Reading;
                }
                Some(key) = self.keys.recv() => match key {
                    Key::Quit => {
                        self.keys.close(); // once the read is over
                    }
                    Key::Read { .. } => tell(ResidentEvent::Busy),
                },
                Some(command) = command_of(&mut self.commands) => match command {
                    Command::Read { number: again, .. } if Some(again) == number => {
                        say(&progress(again, step));
                    }
                    Command::Read { number: other, .. } => {
                        say(&LineMessage::Failed { number: other, failure: busy() });
                        tell(ResidentEvent::Busy);
                    }
                    Command::Received { number } => self.kept.received(number),
                },
            }
        }
    }

    fn send(&mut self, frame: Zeroizing<Vec<u8>>) {
        if let Some(line) = self.reader.line() {
            line.sender().send(frame);
        }
    }
}

/// Waits for ever where there is no host.
async fn command_of(commands: &mut Option<mpsc::Receiver<Command>>) -> Option<Command> {
    match commands {
        Some(commands) => commands.recv().await,
        None => std::future::pending().await,
    }
}

impl Kept {
    /// Keeps the answer until it has arrived, and gives it to be sent.
    fn keep(&mut self, number: u64, answer: &LineMessage) -> Zeroizing<Vec<u8>> {
        let frame = answer.encode();
        *self = Self { number: Some(number), answer: Some((frame.clone(), Instant::now())) };
        frame
    }

    /// The answer to a command that was carried out already: the host has not heard it, or asked
    /// once too often.
    fn answer_to(&self, number: u64) -> Option<Zeroizing<Vec<u8>>> {
        if self.number != Some(number) {
            return None;
        }
        let kept = self.answer.as_ref().map(|(frame, _)| frame.clone());
        Some(kept.unwrap_or_else(|| LineMessage::Failed { number, failure: answered() }.encode()))
    }

    fn received(&mut self, number: u64) {
        if self.number == Some(number) {
            self.answer = None;
        }
    }

    fn expire(&mut self, now: Instant) {
        self.answer.take_if(|(_, since)| now.duration_since(*since) >= RESULT_KEPT_FOR);
    }
}

fn answered() -> LineFailure {
    LineFailure {
        check: "read-answered".into(),
        detail: "this command was carried out and its result is not kept any more".into(),
        incident: None,
        environment: false,
    }
}

fn failure(error: &ReadError) -> LineFailure {
    LineFailure {
        check: error.check().to_owned(),
        detail: error.to_string(),
        incident: error.incident().map(str::to_owned),
        environment: error.is_environment(),
    }
}

fn since(before: Traffic, after: Traffic) -> Traffic {
    Traffic {
        connections: after.connections - before.connections,
        sent: after.sent - before.sent,
        received: after.received - before.received,
    }
}

fn summary(outcome: &Outcome, used: Traffic) -> ReadSummary {
    let spoken = outcome.spoken;
    ReadSummary {
        source: outcome.source.name().to_owned(),
        handshake: spoken.map(|spoken| mode_name(spoken.mode).to_owned()),
        suite: spoken.and_then(|spoken| spoken.suite.name()).map(str::to_owned),
        policy: spoken.map(|spoken| policy_name(spoken.policy).to_owned()),
        attempts: outcome.attempts,
        ms: (outcome.total.as_secs_f64() * 1e6).round() / 1e3,
        bytes_sent: used.sent,
        bytes_received: used.received,
    }
}

const _: () = assert!(ATTEND.as_millis() < PROGRESS_EVERY.as_millis());
