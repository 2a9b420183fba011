//! The task that owns the port and the socket.

use std::io;

use countersign_net::datagram::{CHECKSUM_LEN, DATAGRAM_MAX};
use countersign_net::framing::{FrameDecoder, LineDamage};
use countersign_net::{UdpLink, serial};
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_serial::SerialStream;
use zeroize::Zeroizing;

use super::{ASK_AGAIN, HostError, HostEvent, HostOptions, READ_MAX, READER_SILENT};
use crate::line::{CHUNK, LineMessage, LineResult, REOPEN_AFTER, write};

/// A read that the owner asks for.
pub(super) struct Ask {
    pub(super) number: u64,
    pub(super) fingerprint: bool,
    pub(super) answer: oneshot::Sender<Result<LineResult, HostError>>,
}

/// The read under way.
struct Pending {
    ask: Ask,
    ask_again: Instant,
    silent_at: Instant,
    give_up: Instant,
    /// What the line had damaged when the read was asked for.
    damage: LineDamage,
}

pub(super) struct Pump {
    options: HostOptions,
    asks: mpsc::Receiver<Ask>,
    tell: Box<dyn FnMut(HostEvent) + Send>,
    port: Port,
    server: Option<UdpLink>,
    /// Whether the owner was told that the server is there, or is not.
    told_of_server: Option<bool>,
    pending: Option<Pending>,
}

enum Port {
    Open { stream: SerialStream, decoder: FrameDecoder },
    Absent { detail: String, retry_at: Instant },
}

/// What happened next.
enum Happened {
    Read(io::Result<usize>),
    Reopen,
    Arrived(io::Result<usize>),
    Asked(Option<Ask>),
    Due,
}

impl Pump {
    pub(super) fn new(
        options: HostOptions,
        asks: mpsc::Receiver<Ask>,
        tell: Box<dyn FnMut(HostEvent) + Send>,
    ) -> Self {
        let port = Port::Absent { detail: String::new(), retry_at: Instant::now() };
        Self { options, asks, tell, port, server: None, told_of_server: None, pending: None }
    }

    /// Until nobody can ask any more.
    pub(super) async fn run(mut self) {
        let mut bytes = Zeroizing::new(vec![0; CHUNK]);
        let mut datagram = vec![0; DATAGRAM_MAX + CHECKSUM_LEN + 1];
        loop {
            match self.wait(&mut bytes, &mut datagram).await {
                Happened::Reopen => self.open().await,
                Happened::Read(Ok(0)) => self.lost(&io::ErrorKind::UnexpectedEof.into()),
                Happened::Read(Ok(read)) => self.take(&bytes[..read]).await,
                Happened::Read(Err(error)) => self.lost(&error),
                Happened::Arrived(Ok(len)) => {
                    self.found_server();
                    let message = LineMessage::Datagram(Zeroizing::new(datagram[..len].to_vec()));
                    self.say(&message).await;
                }
                Happened::Arrived(Err(error)) => self.no_server(&error).await,
                Happened::Asked(None) => return,
                Happened::Asked(Some(ask)) => self.begin(ask).await,
                Happened::Due => self.due().await,
            }
        }
    }

    async fn wait(&mut self, bytes: &mut [u8], datagram: &mut [u8]) -> Happened {
        let due = self.pending.as_ref().map(|one| one.ask_again.min(one.silent_at));
        let due = due.zip(self.pending.as_ref()).map(|(due, one)| due.min(one.give_up));
        let port = async {
            match &mut self.port {
                Port::Open { stream, .. } => Happened::Read(stream.read(bytes).await),
                Port::Absent { retry_at, .. } => {
                    sleep_until(*retry_at).await;
                    Happened::Reopen
                }
            }
        };
        let server = async {
            match &self.server {
                Some(server) => server.receive_one(datagram).await,
                None => std::future::pending().await,
            }
        };
        let timer = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            happened = port => happened,
            arrived = server => Happened::Arrived(arrived),
            asked = self.asks.recv() => Happened::Asked(asked),
            () = timer => Happened::Due,
        }
    }

    async fn open(&mut self) {
        match serial::open(&self.options.port, self.options.baud) {
            Ok(stream) => {
                self.port = Port::Open { stream, decoder: FrameDecoder::default() };
                if let Some(pending) = &mut self.pending {
                    pending.damage = LineDamage::default(); // a new decoder counts from the start
                }
                (self.tell)(HostEvent::PortOpened);
                self.say(&LineMessage::Who).await;
                self.ask().await; // what was asked before, if it was
            }
            Err(error) => self.lost(&error),
        }
    }

    /// The port failed; it is tried again after a while.
    fn lost(&mut self, error: &io::Error) {
        let detail = error.to_string();
        let retry_at = Instant::now() + REOPEN_AFTER;
        let known = matches!(&self.port, Port::Absent { detail: before, .. } if *before == detail);
        self.port = Port::Absent { detail: detail.clone(), retry_at };
        if !known {
            (self.tell)(HostEvent::PortAbsent { detail });
        }
    }

    async fn say(&mut self, message: &LineMessage) {
        let Port::Open { stream, .. } = &mut self.port else { return };
        if let Err(error) = write(stream, &message.encode()).await {
            self.lost(&error);
        }
    }

    async fn take(&mut self, bytes: &[u8]) {
        let Port::Open { decoder, .. } = &mut self.port else { return };
        let before = decoder.damage();
        let frames = decoder.push(bytes);
        let after = decoder.damage();
        if after.damaged > before.damaged {
            let detail = "a piece that is no frame came off the line".into();
            (self.tell)(HostEvent::Unexpected { check: "line-damaged", detail });
        }
        if after.oversized > before.oversized {
            let detail = "a piece longer than any frame came off the line".into();
            (self.tell)(HostEvent::Unexpected { check: "line-oversized", detail });
        }
        for frame in frames {
            match LineMessage::decode(frame) {
                Ok(message) => self.heard(message).await,
                Err(error) => {
                    let detail = error.to_string();
                    (self.tell)(HostEvent::Unexpected { check: "line-malformed", detail });
                }
            }
        }
    }

    async fn heard(&mut self, message: LineMessage) {
        match message {
            LineMessage::Datagram(datagram) => self.forward(&datagram).await,
            LineMessage::Hello(hello) => (self.tell)(HostEvent::Hello(hello)),
            LineMessage::Progress { number, progress } if self.is_pending(number) => {
                self.alive();
                (self.tell)(HostEvent::Progress(progress));
            }
            LineMessage::Result { number, result } if self.is_pending(number) => {
                self.say(&LineMessage::Received { number }).await;
                self.end(Ok(*result));
            }
            LineMessage::Failed { number, failure } if self.is_pending(number) => {
                self.say(&LineMessage::Received { number }).await;
                self.end(Err(HostError::Reader(failure)));
            }
            other => {
                let detail = format!("the reader sent '{}', which was not asked for", other.name());
                (self.tell)(HostEvent::Unexpected { check: "line-unexpected", detail });
            }
        }
    }

    /// From the reader to the server.
    async fn forward(&mut self, datagram: &[u8]) {
        if self.server.is_none() {
            match UdpLink::connect(&self.options.gateway).await {
                Ok(server) => self.server = Some(server),
                Err(error) => return self.no_server(&error).await,
            }
        }
        let Some(server) = &self.server else { return };
        if let Err(error) = server.send_one(datagram).await {
            self.no_server(&error).await;
        }
    }

    fn found_server(&mut self) {
        if self.told_of_server.replace(true) != Some(true) {
            (self.tell)(HostEvent::ServerFound);
        }
    }

    /// The reader is told as well, so that it need not wait in vain; the name is looked up anew for
    /// its next datagram.
    async fn no_server(&mut self, error: &io::Error) {
        self.server = None;
        let detail = format!("{}: {error}", self.options.gateway);
        self.say(&LineMessage::NoServer { detail: detail.clone() }).await;
        if self.told_of_server.replace(false) != Some(false) {
            (self.tell)(HostEvent::NoServer { detail });
        }
    }

    async fn begin(&mut self, ask: Ask) {
        self.end(Err(HostError::Ended)); // whoever asked before does not wait any more
        let now = Instant::now();
        let damage = match &self.port {
            Port::Open { decoder, .. } => decoder.damage(),
            Port::Absent { .. } => LineDamage::default(),
        };
        let (silent_at, give_up) = (now + READER_SILENT, now + READ_MAX);
        self.pending = Some(Pending { ask, ask_again: now, silent_at, give_up, damage });
        self.ask().await;
    }

    /// Sends the read command, again if it was sent before: the reader knows it by its number.
    async fn ask(&mut self) {
        let Some(pending) = &mut self.pending else { return };
        pending.ask_again = Instant::now() + ASK_AGAIN;
        let Ask { number, fingerprint, .. } = pending.ask;
        self.say(&LineMessage::Read { number, fingerprint }).await;
    }

    async fn due(&mut self) {
        let now = Instant::now();
        let Some(pending) = &self.pending else { return };
        if now >= pending.give_up {
            self.end(Err(HostError::TooLong));
        } else if now >= pending.silent_at {
            let why = self.why_silent(pending);
            self.end(Err(why));
        } else {
            self.ask().await;
        }
    }

    fn why_silent(&self, pending: &Pending) -> HostError {
        let port = self.options.port.clone();
        match &self.port {
            Port::Absent { detail, .. } => HostError::Port { port, detail: detail.clone() },
            Port::Open { decoder, .. } => {
                let (before, after) = (pending.damage, decoder.damage());
                let count = |damage: LineDamage| damage.damaged + damage.oversized;
                let unended = decoder.is_within_piece();
                let pieces = count(after) - count(before) + u64::from(unended);
                if pieces > 0 {
                    HostError::Garbage { port, pieces }
                } else {
                    HostError::Silent { port }
                }
            }
        }
    }

    fn is_pending(&self, number: u64) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.ask.number == number)
    }

    /// The reader has given a sign of life about the read.
    fn alive(&mut self) {
        if let Some(pending) = &mut self.pending {
            let now = Instant::now();
            pending.ask_again = now + 2 * ASK_AGAIN;
            pending.silent_at = now + READER_SILENT;
        }
    }

    fn end(&mut self, result: Result<LineResult, HostError>) {
        if let Some(pending) = self.pending.take() {
            let _nobody_waits = pending.ask.answer.send(result);
        }
    }
}
