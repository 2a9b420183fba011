//! The reader's end of the serial line to its host (C16).

mod message;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use countersign_net::framing::FrameDecoder;
use countersign_net::{Transport, serial};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_serial::SerialStream;
use zeroize::Zeroizing;

pub(crate) use message::LineMessage;
pub use message::{Hello, LINE_VERSION, LineFailure, LineResult, Progress, ReadSummary, Step};

/// How long a port that cannot be opened, or was unplugged, is left alone.
pub(crate) const REOPEN_AFTER: Duration = Duration::from_millis(300);
/// How long the other end may refuse to take what is sent.
pub(crate) const LINE_WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages that wait to be sent, or to be taken.
const QUEUE_MAX: usize = 16;
/// Bytes read at once.
pub(crate) const CHUNK: usize = 4096;

/// A serial port that the host listens on; opened again whenever it comes back.
pub(crate) struct Line {
    outgoing: LineSender,
    shared: Arc<Shared>,
    commands: Option<mpsc::Receiver<Command>>,
    task: JoinHandle<()>,
}

/// What a host may ask of a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Read { number: u64, fingerprint: bool },
    Received { number: u64 },
}

struct Shared {
    hello: Hello,
    /// Where the sealed datagrams of the channel under way go.
    channel: Mutex<Option<mpsc::Sender<Arrived>>>,
    state: watch::Sender<Port>,
}

enum Arrived {
    Datagram(Zeroizing<Vec<u8>>),
    NoServer(String),
}

#[derive(Clone)]
enum Port {
    Open,
    Absent(String),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is replaced whole, so a poisoned one is still sound.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line {
    /// Begins to open the port, for a reader that takes commands or one that does not.
    pub(crate) fn open(path: &str, baud: u32, serial: &str, resident: bool) -> Self {
        let hello = Hello {
            line: LINE_VERSION,
            serial: serial.to_owned(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            resident,
        };
        let (outgoing, to_send) = mpsc::channel(QUEUE_MAX);
        let (commanded, commands) = mpsc::channel(QUEUE_MAX);
        let (state, _) = watch::channel(Port::Absent("not opened yet".into()));
        let shared = Arc::new(Shared { hello, channel: Mutex::default(), state });
        let end = End { path: path.to_owned(), baud, shared: shared.clone(), to_send, commanded };
        let task = tokio::spawn(end.run());
        let outgoing = LineSender(outgoing);
        Self { outgoing, shared, commands: Some(commands), task }
    }

    /// What hosts ask for.
    pub(crate) fn take_commands(&mut self) -> Option<mpsc::Receiver<Command>> {
        self.commands.take()
    }

    pub(crate) fn sender(&self) -> LineSender {
        self.outgoing.clone()
    }

    /// A link for one channel's datagrams; the one before gets none any more.
    ///
    /// # Errors
    /// The port's, if it is not open within `wait`.
    pub(crate) async fn link(&self, wait: Duration) -> io::Result<LineLink> {
        let mut state = self.shared.state.subscribe();
        let open = state.wait_for(|port| matches!(port, Port::Open));
        if tokio::time::timeout(wait, open).await.is_err() {
            let detail = match &*self.shared.state.borrow() {
                Port::Absent(detail) => detail.clone(),
                Port::Open => "not opened in time".into(),
            };
            return Err(io::Error::new(io::ErrorKind::NotConnected, detail));
        }
        let (arriving, arrived) = mpsc::channel(QUEUE_MAX);
        *lock(&self.shared.channel) = Some(arriving);
        Ok(LineLink { outgoing: self.outgoing.0.clone(), arrived })
    }
}

/// Where messages to the host go; one for which there is no room is as good as lost on the line.
#[derive(Clone)]
pub(crate) struct LineSender(mpsc::Sender<Zeroizing<Vec<u8>>>);

impl LineSender {
    pub(crate) fn say(&self, message: &LineMessage) {
        self.send(message.encode());
    }

    /// An encoded message.
    pub(crate) fn send(&self, frame: Zeroizing<Vec<u8>>) {
        if self.0.try_send(frame).is_err() {
            tracing::debug!("a message to the host was dropped");
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One channel's datagrams through the host.
pub(crate) struct LineLink {
    outgoing: mpsc::Sender<Zeroizing<Vec<u8>>>,
    arrived: mpsc::Receiver<Arrived>,
}

impl Transport for LineLink {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<Option<usize>>> {
        Poll::Ready(match ready!(self.arrived.poll_recv(cx)) {
            None => Ok(None),
            Some(Arrived::NoServer(detail)) => {
                Err(io::Error::new(io::ErrorKind::HostUnreachable, format!("the host: {detail}")))
            }
            Some(Arrived::Datagram(datagram)) => {
                let len = datagram.len().min(into.len());
                into[..len].copy_from_slice(&datagram[..len]);
                Ok(Some(len))
            }
        })
    }

    async fn send<P: AsRef<[u8]> + Sync>(&mut self, parts: &[P]) -> io::Result<()> {
        for part in parts {
            let datagram = LineMessage::Datagram(Zeroizing::new(part.as_ref().to_vec()));
            let sent = self.outgoing.send(datagram.encode()).await;
            sent.map_err(|_| io::Error::from(io::ErrorKind::NotConnected))?;
        }
        Ok(())
    }
}

/// The task that owns the port.
struct End {
    path: String,
    baud: u32,
    shared: Arc<Shared>,
    to_send: mpsc::Receiver<Zeroizing<Vec<u8>>>,
    commanded: mpsc::Sender<Command>,
}

impl End {
    async fn run(mut self) {
        loop {
            let opened = serial::open(&self.path, self.baud);
            // What was said while nobody was there is for nobody: another host may be there now.
            while self.to_send.try_recv().is_ok() {}
            let failed = match opened {
                Ok(port) => {
                    self.shared.state.send_replace(Port::Open);
                    tracing::info!(port = self.path, "the line to the host is open");
                    self.serve(port).await
                }
                Err(error) => error,
            };
            let detail = format!("{}: {failed}", self.path);
            let was = self.shared.state.send_replace(Port::Absent(detail));
            if matches!(was, Port::Open) {
                tracing::warn!(port = self.path, error = %failed, "the line to the host is gone");
            }
            tokio::time::sleep(REOPEN_AFTER).await;
        }
    }

    /// Moves messages until the port fails.
    async fn serve(&mut self, mut port: SerialStream) -> io::Error {
        let mut decoder = FrameDecoder::default();
        let mut bytes = Zeroizing::new(vec![0; CHUNK]);
        if let Err(error) = self.greet(&mut port).await {
            return error;
        }
        loop {
            tokio::select! {
                read = port.read(&mut bytes) => {
                    let read = match read {
                        Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
                        Ok(read) => read,
                        Err(error) => return error,
                    };
                    for frame in decoder.push(&bytes[..read]) {
                        let taken = match LineMessage::decode(frame) {
                            Ok(message) => self.take(&mut port, message).await,
                            Err(error) => {
                                tracing::warn!(%error, "the host sent what is no message");
                                Ok(())
                            }
                        };
                        if let Err(error) = taken {
                            return error;
                        }
                    }
                }
                Some(frame) = self.to_send.recv() => {
                    if let Err(error) = write(&mut port, &frame).await {
                        return error;
                    }
                }
            }
        }
    }

    async fn greet(&self, port: &mut SerialStream) -> io::Result<()> {
        let hello = self.shared.hello.clone();
        write(port, &LineMessage::Hello(hello).encode()).await
    }

    async fn take(&mut self, port: &mut SerialStream, message: LineMessage) -> io::Result<()> {
        match message {
            LineMessage::Datagram(datagram) => self.arrived(Arrived::Datagram(datagram)),
            LineMessage::NoServer { detail } => self.arrived(Arrived::NoServer(detail)),
            LineMessage::Who => self.greet(port).await?,
            LineMessage::Read { number, fingerprint } => {
                let command = Command::Read { number, fingerprint };
                if !self.shared.hello.resident || self.commanded.try_send(command).is_err() {
                    let failure = busy();
                    write(port, &LineMessage::Failed { number, failure }.encode()).await?;
                }
            }
            LineMessage::Received { number } => {
                let _nobody_keeps_it = self.commanded.try_send(Command::Received { number });
            }
            other => tracing::warn!(message = other.name(), "the host said what only readers say"),
        }
        Ok(())
    }

    fn arrived(&self, what: Arrived) {
        // Nobody waits, or too slowly: as good as lost on the line.
        if let Some(channel) = &*lock(&self.shared.channel) {
            let _lost = channel.try_send(what);
        }
    }
}

/// The answer to a command for which there is no time.
pub(crate) fn busy() -> LineFailure {
    LineFailure {
        check: "busy".into(),
        detail: "the reader is reading already".into(),
        incident: None,
        environment: true,
    }
}

/// Sends one encoded message.
pub(crate) async fn write(port: &mut SerialStream, frame: &[u8]) -> io::Result<()> {
    let write = async {
        port.write_all(frame).await?;
        port.flush().await
    };
    let timeout = || io::Error::new(io::ErrorKind::TimedOut, "the other end does not read");
    tokio::time::timeout(LINE_WRITE_TIMEOUT, write).await.map_err(|_| timeout())?
}

#[cfg(test)]
mod tests;
