//! A relay on loopback that notes how many bytes and how long records pass through it.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::wire::{From, Lengths, Message};

/// What passed, in the order in which it passed.
#[derive(Default)]
pub(super) struct Heard {
    /// Bytes of both directions, whatever they are.
    pub(super) bytes: usize,
    /// The records among them.
    pub(super) messages: Vec<Message>,
}

/// Serves one connection.
pub(super) struct Tap {
    pub(super) address: SocketAddr,
    heard: Arc<Mutex<Heard>>,
    relay: JoinHandle<io::Result<()>>,
}

impl Tap {
    /// Listens on a port of its own and relays to `gateway`.
    pub(super) async fn start(gateway: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let heard = Arc::<Mutex<Heard>>::default();
        let relay = tokio::spawn(relay(listener, gateway, heard.clone()));
        Ok(Self { address, heard, relay })
    }

    /// Waits for the connection's end.
    pub(super) async fn heard(self) -> io::Result<Heard> {
        self.relay.await.map_err(io::Error::other)??;
        Ok(std::mem::take(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

async fn relay(
    listener: TcpListener,
    gateway: SocketAddr,
    heard: Arc<Mutex<Heard>>,
) -> io::Result<()> {
    let (reader, _) = listener.accept().await?;
    let server = TcpStream::connect(gateway).await?;
    let (from_reader, to_reader) = reader.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(
        carry(from_reader, to_server, Lengths::new(From::Reader), &heard),
        carry(from_server, to_reader, Lengths::new(From::Server), &heard),
    );
    Ok(())
}

/// Until either end is gone: the reader leaves without waiting for the server's close record, which
/// counts all the same.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut lengths: Lengths,
    heard: &Mutex<Heard>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let messages = lengths.push(&buffer[..read]);
        {
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.bytes += read;
            heard.messages.extend(messages);
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    let _gone = to.shutdown().await;
}
