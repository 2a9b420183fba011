//! Either machine behind one face, with what it has sent, heard and said.

use std::time::Duration;

use countersign_channel::{
    Delivery, DirectoryEntry, Error, Event, HANDSHAKE_FRAME_MAX, Heartbeat, KEYS_AHEAD_MAX,
    LookupRefusal, Mode, Policy, RECORD_MAX, ReaderChannel, ReaderId, ServerChannel,
};
use countersign_crypto::{Suite, UnixTime};
use testkit::rng::ChaCha20Rng;

use super::setting::{READER_ID, SERVER_ID};

/// Bytes of a frame's header: magic, version, mode, type, length.
pub(super) const HEADER_LEN: usize = 8;
/// The place of the type in it.
pub(super) const KIND_AT: usize = 4;
/// Most bytes of a record around its data, frame and number included.
const RECORD_AROUND: usize = 64;
/// What every message said here begins with, to be looked for on the wire.
pub(super) const MARK: &[u8; 16] = b"the secret mark:";

enum Machine {
    Reader(Box<ReaderChannel>),
    Server(Box<ServerChannel>),
}

macro_rules! of_either {
    ($machine:expr, $channel:ident => $do:expr) => {
        match $machine {
            Machine::Reader($channel) => $do,
            Machine::Server($channel) => $do,
        }
    };
}

/// What a machine reports, and what its owner keeps of it.
enum Told {
    Ask(ReaderId),
    Connected,
    Data(Vec<u8>),
    Closed,
}

fn told<Q>(event: Event<Q>, ask: impl FnOnce(Q) -> Told) -> Told {
    match event {
        Event::Ask(question) => ask(question),
        Event::Connected => Told::Connected,
        Event::Data(data) => Told::Data(data.to_vec()),
        Event::Closed => Told::Closed,
    }
}

/// One party of a script.
pub(super) struct Node {
    machine: Machine,
    /// Whole frames, in order.
    pub(super) sent: Vec<Vec<u8>>,
    /// Pieces of a stream, or datagrams.
    pub(super) delivered: Vec<Vec<u8>>,
    /// Data given to the machine, and data that came out.
    pub(super) said: Vec<Vec<u8>>,
    pub(super) heard: Vec<Vec<u8>>,
    /// The server waits for its directory.
    pub(super) asking: bool,
    pub(super) connected: bool,
    /// Names the session: the same on both sides, and on no other. Unknown if the bytes that
    /// connected it killed it, too.
    pub(super) session: Option<Vec<u8>>,
    /// It has closed; it was told that its peer has.
    pub(super) closing: bool,
    pub(super) closed: bool,
    pub(super) dead: bool,
    /// How often it was to change its key.
    rekeyed: u64,
}

impl Node {
    pub(super) fn reader(channel: ReaderChannel) -> Self {
        Self::new(Machine::Reader(Box::new(channel)))
    }

    pub(super) fn server(channel: ServerChannel) -> Self {
        Self::new(Machine::Server(Box::new(channel)))
    }

    const fn new(machine: Machine) -> Self {
        Self {
            machine,
            sent: Vec::new(),
            delivered: Vec::new(),
            said: Vec::new(),
            heard: Vec::new(),
            asking: false,
            connected: false,
            session: None,
            closing: false,
            closed: false,
            dead: false,
            rekeyed: 0,
        }
    }

    pub(super) const fn is_reader(&self) -> bool {
        matches!(self.machine, Machine::Reader(_))
    }

    /// Takes bytes; true if that connected it.
    pub(super) fn deliver(&mut self, now: UnixTime, rng: &mut ChaCha20Rng, bytes: &[u8]) -> bool {
        self.delivered.push(bytes.to_vec());
        let result = of_either!(&mut self.machine, it => it.handle(now, rng, bytes));
        self.outcome(result);
        self.pump()
    }

    /// Answers the server's question; true if that connected it.
    pub(super) fn answer(
        &mut self,
        now: UnixTime,
        rng: &mut ChaCha20Rng,
        found: Result<DirectoryEntry, LookupRefusal>,
    ) -> bool {
        let Machine::Server(server) = &mut self.machine else { return false };
        let result = server.reader_found(now, rng, found);
        if self.asking {
            self.asking = false;
            self.outcome(result);
        } else {
            // The owner's own mistake: nothing happens to the session.
            assert!(matches!(result, Err(Error::Misuse(_) | Error::Dead | Error::Timeout)));
            self.dead |= result == Err(Error::Timeout);
        }
        self.pump()
    }

    /// A call's result: after an error the machine is dead, and says so.
    pub(super) fn outcome(&mut self, result: Result<(), Error>) {
        if self.dead {
            assert_eq!(result, Err(Error::Dead), "alive after its end");
            return;
        }
        let Err(error) = result else { return };
        if let Error::Alert { incident, .. } = &error {
            assert!(self.is_reader(), "a server takes no alerts");
            assert!(incident.bytes().all(|byte| byte.is_ascii_graphic()));
        }
        assert!(!matches!(error, Error::Misuse(_) | Error::Local(_)), "not the peer's: {error}");
        self.dead = true;
        if let Machine::Server(server) = &mut self.machine {
            server.refuse(&error, "inc-1");
        }
    }

    fn pump(&mut self) -> bool {
        let mut connected = false;
        loop {
            let event = match &mut self.machine {
                Machine::Reader(reader) => reader.poll_event().map(|it| told(it, |no| match no {})),
                Machine::Server(server) => server.poll_event().map(|it| told(it, Told::Ask)),
            };
            match event {
                None => return connected,
                Some(Told::Ask(id)) => {
                    assert!(!self.connected && !self.asking, "asked twice");
                    if let ReaderId::Serial(serial) = &id {
                        let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
                        assert!((1..=64).contains(&serial.len()) && serial.chars().all(allowed));
                    }
                    self.asking = true;
                }
                Some(Told::Connected) => {
                    assert!(!self.connected, "connected twice");
                    self.connected = true;
                    self.session = self.export();
                    connected = true;
                }
                Some(Told::Data(data)) => {
                    assert!(self.connected && !self.closed, "data out of turn");
                    assert!(data.len() <= RECORD_MAX);
                    self.heard.push(data);
                }
                Some(Told::Closed) => {
                    assert!(self.connected && !self.closed, "closed out of turn");
                    self.closed = true;
                }
            }
        }
    }

    /// What it wants to send, at most `max` frames.
    pub(super) fn collect(&mut self, max: usize) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some(frame) = of_either!(&mut self.machine, it => it.poll_transmit()) {
            let bound = if self.connected {
                RECORD_MAX + RECORD_AROUND
            } else {
                HEADER_LEN + HANDSHAKE_FRAME_MAX
            };
            assert!((HEADER_LEN..=bound).contains(&frame.len()), "{} bytes", frame.len());
            frames.push(frame);
        }
        assert!(frames.len() <= max, "{} frames where {max} are due", frames.len());
        self.sent.extend_from_slice(&frames);
        frames
    }

    pub(super) fn tick(&mut self, now: UnixTime) {
        if self.dead {
            return;
        }
        let result = of_either!(&mut self.machine, it => it.handle_timeout(now));
        assert!(matches!(result, Ok(()) | Err(Error::Timeout | Error::Silent)), "{result:?}");
        self.outcome(result);
        if !self.dead {
            let next = of_either!(&self.machine, it => it.poll_timeout());
            assert!(next.is_none_or(|next| next > now), "it would be called again at once");
            assert!(self.connected || next.is_some(), "a handshake without an end");
        }
    }

    /// Says something of its own; gives whether it could.
    pub(super) fn say(&mut self, text: &[u8]) -> bool {
        let text = [MARK, text].concat();
        let result = of_either!(&mut self.machine, it => it.send(&text));
        let able = self.connected && !self.dead && !self.closing;
        assert_eq!(result.is_ok(), able, "{result:?}");
        if able {
            self.said.push(text);
        }
        able
    }

    pub(super) fn close(&mut self) {
        let result = of_either!(&mut self.machine, it => it.close());
        assert_eq!(result.is_ok(), self.connected && !self.dead);
        self.closing |= result.is_ok();
    }

    /// Over datagrams it may not run ahead of a peer that it does not hear.
    pub(super) fn rekey(&mut self) {
        let result = of_either!(&mut self.machine, it => it.rekey());
        let able = self.connected && !self.dead && !self.closing;
        let datagrams = self.policy().is_some_and(|it| it.delivery == Delivery::Datagrams);
        let ahead = datagrams && self.rekeyed >= KEYS_AHEAD_MAX;
        match result {
            Ok(()) => assert!(able, "a new key for nobody"),
            Err(error) => assert!(!able || ahead, "{error}"),
        }
        self.rekeyed += u64::from(able);
    }

    /// Sleep mode: sleeps, watches or wakes.
    pub(super) fn pulse(&mut self, now: UnixTime, choice: u8) {
        let seconds = Duration::from_secs(u64::from(choice >> 2));
        let times = Heartbeat { every: seconds, within: seconds / 2 };
        let result = match choice & 3 {
            0 | 1 => of_either!(&mut self.machine, it => it.sleep(now, times)),
            2 => of_either!(&mut self.machine, it => it.watch(now, times)),
            _ => of_either!(&mut self.machine, it => it.wake()),
        };
        let zero = choice & 3 != 3 && seconds.is_zero();
        assert_eq!(result.is_ok(), self.connected && !self.dead && !zero);
    }

    /// The stream has ended.
    pub(super) fn end(&mut self) {
        let result = of_either!(&mut self.machine, it => it.handle_end());
        if self.dead {
            assert_eq!(result, Err(Error::Dead));
        } else {
            assert_eq!(result.is_ok(), self.closed, "a cut taken for an end, or the reverse");
        }
        self.dead = true;
    }

    fn export(&self) -> Option<Vec<u8>> {
        let exporter = of_either!(&self.machine, it => it.exporter())?;
        Some(exporter.export("fuzz", b"", 32).expect("a short key").expose().to_vec())
    }

    pub(super) fn policy(&self) -> Option<Policy> {
        of_either!(&self.machine, it => it.policy())
    }

    /// Suite and mode.
    pub(super) fn agreed(&self) -> (Option<Suite>, Mode) {
        of_either!(&self.machine, it => (it.suite(), it.mode()))
    }

    /// The peer is who it must be.
    pub(super) fn assert_peer(&self) {
        let wanted = if self.is_reader() { SERVER_ID } else { READER_ID };
        let peer = of_either!(&self.machine, it => it.peer()).expect("connected");
        assert_eq!(peer.identity().id(), wanted);
    }
}
