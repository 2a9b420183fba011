//! The manager's program towards its owner: a screen on a terminal, lines or JSON elsewhere.

use std::io::{self, IsTerminal};
use std::pin::Pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use countersign_device::{ManagerHappening, ManagerOrder};
use countersign_net::Clock;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::happening::{self, way_name};
use super::keys::{HELP, Key};
use super::screen::Screen;
use super::view::{Relay, Session, View};
use crate::device::typed_line::read_lines;
use crate::device::virtual_reader::tell;
use crate::failure::Failure;
use crate::output::print;

/// Keys that wait.
const KEYS_MAX: usize = 16;
/// How often the screen's clocks move.
const TICK: Duration = Duration::from_millis(250);
/// How often the thread that waits for keys looks whether anybody wants them.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// True if this program can draw on the terminal that it runs in, and is typed at there.
pub(super) fn is_on_a_terminal() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// The program, and what it knows.
pub(super) struct Program {
    pub(super) view: View,
    pub(super) clock: Arc<dyn Clock>,
    /// What happens; its end is the program's.
    pub(super) happenings: mpsc::Receiver<ManagerHappening>,
    /// What the manager is to do.
    pub(super) orders: mpsc::Sender<ManagerOrder>,
    /// Something was told: stdout has had its first line.
    pub(super) has_told: bool,
}

impl Program {
    /// Tells lines, and takes them from stdin, until `quit`, the manager's end or `stopping`.
    pub(super) async fn lines(
        &mut self,
        json: bool,
        mut stopping: Pin<&mut impl Future<Output = Result<(), Failure>>>,
    ) -> Result<(), Failure> {
        let mut keys = typed_keys();
        let mut listening = true;
        if !json {
            let View { serial, certificate_number, .. } = &self.view;
            let text = "`help` tells what can be typed";
            print(&format!("Manager {serial} (certificate {certificate_number}); {text}"));
        }
        loop {
            tokio::select! {
                stopped = &mut stopping => return stopped,
                happened = self.happenings.recv() => match happened {
                    Some(happening) => {
                        self.view.take(&happening, self.clock.now());
                        tell(json, &happening::json(&happening), &happening::text(&happening));
                        self.has_told = true;
                    }
                    None => return Ok(()),
                },
                key = keys.recv(), if listening => match key {
                    Some(Key::Quit) => return Ok(()),
                    Some(Key::Look) => {
                        let (state, text) = self.state();
                        tell(json, &state, &text);
                    }
                    Some(Key::Help) => tell(json, &json!({ "event": "help" }), HELP),
                    Some(key) => match order_of(key) {
                        // Once the manager has ended, its last happening is on its way.
                        Ok(order) => drop(self.orders.send(order).await),
                        Err(no) => tell(json, &happening::json(&no), &happening::text(&no)),
                    },
                    // Nobody types any more; the manager goes on.
                    None => listening = false,
                },
            }
        }
    }

    /// Draws on the terminal until `q`, the manager's end or `stopping`.
    pub(super) async fn screen(
        &mut self,
        mut stopping: Pin<&mut impl Future<Output = Result<(), Failure>>>,
    ) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::environment("screen", error.to_string());
        let mut drawn = Drawn::start().map_err(failed)?;
        let mut screen = Screen::default();
        let mut pressed = pressed_keys();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = self.clock.now();
            drawn.0.draw(|frame| screen.draw(frame, &self.view, now)).map_err(failed)?;
            tokio::select! {
                stopped = &mut stopping => return stopped,
                happened = self.happenings.recv() => match happened {
                    Some(happening) => self.view.take(&happening, self.clock.now()),
                    None => return Ok(()),
                },
                event = pressed.recv() => {
                    let Some(event) = event else { return Ok(()) };
                    match screen.press(&self.view, &event).map(order_of) {
                        Some(Ok(order)) => drop(self.orders.send(order).await),
                        // The only key that orders nothing is the one that ends it.
                        Some(Err(_)) => return Ok(()),
                        None => {}
                    }
                }
                _ = ticks.tick() => {}
            }
        }
    }

    /// What is going on, for programs and for people.
    fn state(&self) -> (Value, String) {
        let (view, now) = (&self.view, self.clock.now());
        let row = |(number, session): (&u32, &Session)| {
            json!({
                "session": number,
                "sleeve": session.sleeve,
                "way": way_name(session.way),
                "state": session.state(),
                "card": session.card.as_ref().map(|lent| &lent.label),
                "leaseSeconds": session.card.as_ref().map(|lent| lent.seconds),
            })
        };
        let state = json!({
            "event": "state",
            "serial": view.serial,
            "certificateNumber": view.certificate_number,
            "listening": view.listening,
            "relay": view.relay == Relay::Connected,
            "pairingSeconds": view.window_left(now),
            "sessions": view.sessions.iter().map(row).collect::<Vec<_>>(),
        });
        let pairing = match view.window_left(now) {
            Some(left) => format!("one sleeve may pair within {left} s"),
            None => "no sleeve may pair".to_owned(),
        };
        let sessions = view.sessions.iter().map(|(number, session)| {
            let card = session.card.as_ref().map_or("no card", |lent| lent.label.as_str());
            format!("\n  {number}: {}, {}, {card}", session.sleeve, session.state())
        });
        let text = format!(
            "Manager {} (certificate {}): {pairing}; sessions: {}{}",
            view.serial,
            view.certificate_number,
            view.sessions.len(),
            sessions.collect::<String>()
        );
        (state, text)
    }
}

/// What a key orders of the manager.
fn order_of(key: Key) -> Result<ManagerOrder, ManagerHappening> {
    Ok(match key {
        Key::Pair(seconds) => ManagerOrder::OpenWindow { seconds },
        Key::Close => ManagerOrder::CloseWindow,
        Key::Consent(session, yes) => ManagerOrder::Consent { session, yes },
        Key::End(session) => ManagerOrder::End { session },
        Key::Recall(card) => ManagerOrder::Recall { card },
        Key::Revoke(sleeve) => ManagerOrder::Revoke { sleeve },
        Key::Look | Key::Help | Key::Quit | Key::Unknown => {
            let detail = "no such word; `help` tells them".to_owned();
            return Err(ManagerHappening::Refused { check: "key".to_owned(), detail });
        }
    })
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

/// Keys that are pressed on the terminal.
fn pressed_keys() -> mpsc::Receiver<event::Event> {
    let (press, pressed) = mpsc::channel(KEYS_MAX);
    thread::spawn(move || {
        while !press.is_closed() {
            match event::poll(LOOK_EVERY) {
                Ok(false) => {}
                Ok(true) => {
                    let Ok(event) = event::read() else { return };
                    if press.blocking_send(event).is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    });
    pressed
}

/// A terminal that is drawn on; it is as it was when this goes.
struct Drawn(DefaultTerminal);

impl Drawn {
    fn start() -> io::Result<Self> {
        Ok(Self(ratatui::try_init()?))
    }
}

impl Drop for Drawn {
    fn drop(&mut self) {
        ratatui::restore();
    }
}
