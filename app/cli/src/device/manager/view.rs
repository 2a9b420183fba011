//! What the manager's owner sees, as a value: the screen draws it, and nothing else is known there.
//!
//! An alarm (A5) is not part of it: whoever stands beside the owner learns nothing here.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_device::{ManagerHappening as Happening, Route};

use super::happening;

/// Lines of what happened that are kept.
const LOG_MAX: usize = 200;

/// The whole of it.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The manager's serial number, which sleeves show when they pair.
    pub(super) serial: String,
    /// The number of its certificate.
    pub(super) certificate_number: String,
    /// Where sleeves of this network find it.
    pub(super) listening: Option<String>,
    /// The way through the server.
    pub(super) relay: Relay,
    /// Until when sleeves may pair.
    pub(super) window: Option<UnixTime>,
    /// The certified serial number of the sleeve that pairs now, or paired last.
    pub(super) pairing: Option<Pairing>,
    /// Who is connected, by the session's number.
    pub(super) sessions: BTreeMap<u32, Session>,
    /// What happened, the last line last.
    pub(super) log: VecDeque<String>,
}

/// The way through the server's relay.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Relay {
    /// None is configured, or nothing was heard of it yet.
    #[default]
    None,
    /// Sleeves can come this way.
    Connected,
    /// They cannot; it is tried again.
    Lost(String),
}

/// A sleeve that wants to be paired.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pairing {
    /// Its certified serial number.
    pub(super) sleeve: String,
    /// The number of its certificate, once it is paired.
    pub(super) paired: Option<String>,
}

/// A sleeve's session.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) sleeve: String,
    pub(super) way: Route,
    pub(super) stage: Stage,
    /// The card that it has, if it has one.
    pub(super) card: Option<Lent>,
    pub(super) asleep: bool,
}

/// How far a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The channel is open, the password is to come.
    Connected,
    /// The owner is asked whether it may use cards.
    Consent,
    /// It is logged in.
    LoggedIn,
}

/// A card that a session has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lent {
    pub(super) label: String,
    /// For how long from its last use, in seconds.
    pub(super) seconds: u32,
}

impl Session {
    /// Its state in a word. One that is limited (A5) has none of its own.
    pub(super) const fn state(&self) -> &'static str {
        match (self.stage, self.asleep) {
            (Stage::Connected, _) => "connected",
            (Stage::Consent, _) => "asks",
            (Stage::LoggedIn, false) => "logged in",
            (Stage::LoggedIn, true) => "sleeps",
        }
    }
}

impl View {
    /// Takes in what happened.
    pub(super) fn take(&mut self, happening: &Happening, now: UnixTime) {
        match happening {
            Happening::Listening { at } => self.listening = Some(at.to_string()),
            Happening::Relay { connected: true, .. } => self.relay = Relay::Connected,
            Happening::Relay { connected: false, check } => {
                self.relay = Relay::Lost(check.clone().unwrap_or_default());
            }
            Happening::WindowOpened { seconds } => {
                self.window = Some(now.plus(Duration::from_secs((*seconds).into())));
                self.pairing = None;
            }
            Happening::WindowClosed { .. } => self.window = None,
            Happening::PairingAsked { sleeve } => {
                self.pairing = Some(Pairing { sleeve: sleeve.clone(), paired: None });
            }
            Happening::Paired { sleeve, number } => {
                let paired = Some(number.to_string());
                self.pairing = Some(Pairing { sleeve: sleeve.clone(), paired });
            }
            // Only of the one that is shown: strangers may fail at any time.
            Happening::PairingFailed { sleeve, .. } => {
                let failed = |shown: &mut Pairing| {
                    shown.paired.is_none() && Some(&shown.sleeve) == sleeve.as_ref()
                };
                self.pairing.take_if(failed);
            }
            Happening::Connected { session, sleeve, way, .. } => {
                let (sleeve, stage) = (sleeve.clone(), Stage::Connected);
                let began = Session { sleeve, way: *way, stage, card: None, asleep: false };
                self.sessions.insert(*session, began);
            }
            Happening::ConsentAsked { session, .. } => self.stage(*session, Stage::Consent),
            Happening::Declined { session } => self.stage(*session, Stage::Connected),
            Happening::LoggedIn { session } => self.stage(*session, Stage::LoggedIn),
            Happening::Taken { session, label, seconds, .. } => {
                self.card(*session, Some(Lent { label: label.clone(), seconds: *seconds }));
            }
            Happening::Released { session, .. } => self.card(*session, None),
            Happening::Asleep { session } => self.asleep(*session, true),
            Happening::Awake { session } => self.asleep(*session, false),
            Happening::Ended { session, .. } => {
                self.sessions.remove(session);
            }
            Happening::LoginFailed { .. }
            | Happening::CardRefused { .. }
            | Happening::DistanceCheckFails { .. }
            | Happening::Revoked { .. }
            | Happening::Refused { .. } => {}
        }
        self.note(happening::text(happening));
    }

    fn asleep(&mut self, session: u32, asleep: bool) {
        if let Some(found) = self.sessions.get_mut(&session) {
            found.asleep = asleep;
        }
    }

    fn stage(&mut self, session: u32, stage: Stage) {
        if let Some(found) = self.sessions.get_mut(&session) {
            found.stage = stage;
        }
    }

    fn card(&mut self, session: u32, card: Option<Lent>) {
        if let Some(found) = self.sessions.get_mut(&session) {
            found.card = card;
        }
    }

    /// A line for its owner.
    pub(super) fn note(&mut self, line: String) {
        if self.log.len() == LOG_MAX {
            self.log.pop_front();
        }
        self.log.push_back(line);
    }

    /// The session that waits for the owner's word longest.
    pub(super) fn asks(&self) -> Option<(u32, &Session)> {
        let mut asking = self.sessions.iter().filter(|(_, one)| one.stage == Stage::Consent);
        asking.next().map(|(number, session)| (*number, session))
    }

    /// Seconds for which sleeves may still pair.
    pub(super) fn window_left(&self, now: UnixTime) -> Option<u64> {
        self.window.map(|end| end.since(now).as_millis().div_ceil(1000) as u64)
    }
}
