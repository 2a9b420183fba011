//! Being a card: the client of vpcd, pcscd's driver for a virtual reader.
//!
//! vpcd listens on a TCP port; whoever connects is the card in its slot. Both ways a message is
//! `length (2, big-endian) ‖ payload`. A payload of one byte is the reader's: 00 power off, 01
//! power on, 02 reset, 04 give your ATR; only the last is answered. A longer one is a command APDU
//! and answered by a response APDU. The driver asks for the ATR about every 0.4 s to see whether
//! the card is there; a closed connection is a removed card.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use thiserror::Error;
use zeroize::Zeroizing;

/// The port of vpcd as Debian configures it.
pub const PORT: u16 = 35963;
/// How often a waiting card looks whether it shall stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Looks between two attempts to connect: 0.25 s.
const LOOKS_BETWEEN_ATTEMPTS: u32 = 5;
/// Longest wait for the reader to accept a connection, or our bytes.
const PATIENCE: Duration = Duration::from_secs(2);
/// Looks without a word from a reader that accepted us before its silence is told: 3 s.
const LOOKS_BEFORE_SILENCE: u32 = 60;
/// Looks without a word from a reader that has spoken before it is taken for gone: 10 s. It asks
/// every 0.4 s whether the card is there, and a reader that lost its power says no farewell.
const LOOKS_BEFORE_LOSS: u32 = 200;
/// Bytes read at once.
const CHUNK: usize = 4096;
/// Longest payload: what two bytes of length can say.
const PAYLOAD_MAX: usize = u16::MAX as usize;
/// What the reader gets when the card has no response that fits: "no precise diagnosis".
const NO_DIAGNOSIS: [u8; 2] = [0x6F, 0x00];

/// Why another machine's reader is not connected to.
const REMOTE: &str = "it is on another machine, and the PIN would go there in clear";

const POWER_OFF: u8 = 0x00;
const POWER_ON: u8 = 0x01;
const RESET: u8 = 0x02;
const GIVE_ATR: u8 = 0x04;

/// A card in the slot of a virtual reader: what a reader does to the contacts of a real one.
pub trait SlotCard {
    /// The answer to reset. An empty one is taken for an absent card.
    fn atr(&self) -> Vec<u8>;
    /// Power comes: the card starts afresh.
    fn power_on(&mut self);
    /// Power goes, also when the connection to the reader is lost.
    fn power_off(&mut self);
    /// The reset contact: the card starts afresh.
    fn reset(&mut self);
    /// Answers a command APDU; may take as long as the holder needs. The answer is wiped once it
    /// is sent.
    fn transmit(&mut self, command: &[u8]) -> Vec<u8>;
}

/// What happens to a card in a virtual slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotEvent {
    /// The reader speaks to the card.
    Inserted,
    /// The connection to the reader is lost; the card tries again.
    Removed {
        /// What the system said.
        reason: String,
    },
    /// No reader accepts the card; told once, the card tries again.
    NoReader {
        /// What the system said.
        reason: String,
    },
    /// The reader accepted the card and says nothing: another card is in its slot.
    Silent,
}

/// A virtual reader that is not named as `[HOST:]PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a virtual reader is [HOST:]PORT, as 35963 or 127.0.0.1:35963")]
pub struct BadAddress;

/// Where vpcd listens: on this machine, unless [`VirtualReader::allow_remote`] was said. What goes
/// between it and a card is in clear, PINs too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualReader {
    host: String,
    port: u16,
    may_be_remote: bool,
}

impl Default for VirtualReader {
    fn default() -> Self {
        Self { host: "127.0.0.1".to_owned(), port: PORT, may_be_remote: false }
    }
}

impl FromStr for VirtualReader {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let (host, port) = text.rsplit_once(':').unwrap_or(("127.0.0.1", text));
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(BadAddress)?;
        if host.is_empty() {
            return Err(BadAddress);
        }
        Ok(Self { host: host.to_owned(), port, may_be_remote: false })
    }
}

impl VirtualReader {
    /// True if every address of its host is a loopback address; false if it has none.
    #[must_use]
    pub fn is_on_this_machine(&self) -> bool {
        let Ok(addresses) = (self.host.as_str(), self.port).to_socket_addrs() else {
            return false;
        };
        let mut addresses = addresses.peekable();
        addresses.peek().is_some() && addresses.all(|address| address.ip().is_loopback())
    }

    /// The same where the reader may be on another machine: whoever is on the way reads the PIN.
    #[must_use]
    pub fn allow_remote(self) -> Self {
        Self { may_be_remote: true, ..self }
    }

    /// Keeps `card` in this reader's slot until `stop` is true. A lost connection is made again.
    ///
    /// `stop` is seen at once between commands; a command that waits for the card's holder is
    /// the card's to end.
    pub fn run(
        &self,
        card: &mut dyn SlotCard,
        stop: &AtomicBool,
        told: &mut dyn FnMut(&SlotEvent),
    ) {
        let mut absent = false;
        while !stop.load(Ordering::SeqCst) {
            match self.connect() {
                Ok(stream) => {
                    absent = false;
                    let ended = Slot::new(stream, stop).serve(card, told);
                    card.power_off();
                    if let Err(error) = ended {
                        tracing::debug!(%error, "the virtual reader is gone");
                        told(&SlotEvent::Removed { reason: error.to_string() });
                    }
                }
                Err(error) if !absent => {
                    absent = true;
                    told(&SlotEvent::NoReader { reason: error.to_string() });
                }
                Err(_) => {}
            }
            for _ in 0..LOOKS_BETWEEN_ATTEMPTS {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                thread::sleep(LOOK_EVERY);
            }
        }
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::from(ErrorKind::NotFound);
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            if !self.may_be_remote && !address.ip().is_loopback() {
                last = io::Error::new(ErrorKind::PermissionDenied, REMOTE);
                continue;
            }
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(LOOK_EVERY))?;
                    stream.set_write_timeout(Some(PATIENCE))?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// One connection.
struct Slot<'a> {
    stream: TcpStream,
    /// What has come of the next messages; never more than one whole message and a chunk. PINs
    /// come by here.
    received: Zeroizing<Vec<u8>>,
    stop: &'a AtomicBool,
}

impl<'a> Slot<'a> {
    fn new(stream: TcpStream, stop: &'a AtomicBool) -> Self {
        Self { stream, received: Zeroizing::new(Vec::with_capacity(CHUNK)), stop }
    }

    /// Serves the reader; `Ok` when told to stop.
    fn serve(
        &mut self,
        card: &mut dyn SlotCard,
        told: &mut dyn FnMut(&SlotEvent),
    ) -> io::Result<()> {
        let mut inserted = false;
        loop {
            let message = if inserted {
                self.next(LOOKS_BEFORE_LOSS, &mut || Err(ErrorKind::TimedOut.into()))?
            } else {
                let mut silent = || {
                    told(&SlotEvent::Silent);
                    Ok(())
                };
                self.next(LOOKS_BEFORE_SILENCE, &mut silent)?
            };
            let Some(message) = message else { return Ok(()) };
            if !inserted {
                inserted = true;
                told(&SlotEvent::Inserted);
            }
            if let Some(answer) = answer(card, &message)? {
                self.send(&answer)?;
            }
        }
    }

    /// The next message; `None` when told to stop. Calls `silent` once after so many quiet looks.
    fn next(
        &mut self,
        looks: u32,
        silent: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let mut quiet = 0_u32;
        let mut chunk = Zeroizing::new([0; CHUNK]);
        loop {
            if let Some(message) = first_message(&mut self.received) {
                return Ok(Some(message));
            }
            if self.stop.load(Ordering::SeqCst) {
                return Ok(None);
            }
            match self.stream.read(&mut chunk[..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    acknowledge(&self.stream)?;
                    self.received.extend_from_slice(&chunk[..count]);
                }
                Err(error) if is_a_pause(&error) => {
                    quiet = quiet.saturating_add(1);
                    if quiet == looks {
                        silent()?;
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        let length = u16::try_from(payload.len()).map_err(|_| ErrorKind::InvalidData)?;
        self.stream.write_all(&Zeroizing::new([&length.to_be_bytes(), payload].concat()))
    }
}

/// Takes the first whole message out of what was received, and leaves no copy of it.
fn first_message(received: &mut Zeroizing<Vec<u8>>) -> Option<Zeroizing<Vec<u8>>> {
    let (length, rest) = received.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    let message = Zeroizing::new(rest.get(..length)?.to_vec());
    let mut left = Zeroizing::new(Vec::with_capacity(CHUNK));
    left.extend_from_slice(&rest[length..]);
    *received = left;
    Some(message)
}

/// What the card says to a message; an error if no reader says such a thing. Wiped once it is sent:
/// a joint password comes by here.
fn answer(card: &mut dyn SlotCard, message: &[u8]) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    match message {
        [] => return Err(invalid("an empty message")),
        [POWER_OFF] => card.power_off(),
        [POWER_ON] => card.power_on(),
        [RESET] => card.reset(),
        [GIVE_ATR] => return Ok(Some(card.atr().into())),
        [_] => return Err(invalid("an unknown order of the reader")),
        command => {
            let response = Zeroizing::new(card.transmit(command));
            let fits = (2..=PAYLOAD_MAX).contains(&response.len());
            return Ok(Some(if fits { response } else { NO_DIAGNOSIS.to_vec().into() }));
        }
    }
    Ok(None)
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// vpcd writes a length and its payload apart, and its kernel holds the second back until we
/// acknowledge the first: 40 ms for every command if our kernel waits as it likes to.
#[cfg(target_os = "linux")]
fn acknowledge(stream: &TcpStream) -> io::Result<()> {
    use std::os::linux::net::TcpStreamExt;
    stream.set_quickack(true)
}

#[cfg(not(target_os = "linux"))]
fn acknowledge(_: &TcpStream) -> io::Result<()> {
    Ok(())
}

fn is_a_pause(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
