//! Readers over UDP: datagrams sorted by their sender.
//!
//! A stranger's datagram goes to a machine of its own, which is gone when it has answered: M2
//! brings all there is to know. Only an M2 whose challenge is good, and was therefore received at
//! that address, makes an entry. Until then nobody is answered with more than
//! [`AMPLIFICATION_MAX`] times the bytes he sent. A challenge proves an IP address and neither port
//! nor reader: a session that is open at the same port goes on until the new handshake is done.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use countersign_channel::{AMPLIFICATION_MAX, ServerChannel, opens_handshake};
use countersign_crypto::CryptoRng;
use countersign_net::Transport;
use countersign_net::datagram::{CHECKSUM_LEN, DATAGRAM_MAX, checked, with_checksum};
use tokio::net::UdpSocket;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::contact::{Carrier, Contact};
use super::{Gateway, octets};
use crate::http::metrics::{DATAGRAMS_DROPPED, TURNED_AWAY};

/// Datagrams of one reader that wait for its contact; a read sends three at once.
const QUEUE_MAX: usize = 16;
/// The pause after the socket failed.
const FAILED_PAUSE: Duration = Duration::from_millis(100);

/// The contacts by their peer's address, each with its number.
struct Table {
    peers: HashMap<SocketAddr, Peers>,
    contacts: JoinSet<(SocketAddr, u64)>,
    hasher: RandomState,
    next: u64,
}

/// The contacts of one address.
struct Peers {
    /// Whoever came last.
    newest: Peer,
    /// A reader's, while the newest has not proven itself: who sends from the address of another
    /// must not end his session.
    proven: Option<Peer>,
}

struct Peer {
    number: u64,
    /// Which M2 made this entry: when it comes again, the contact repeats its answer.
    opening: u64,
    queue: mpsc::Sender<Vec<u8>>,
    /// Set by the contact as soon as its handshake is done.
    connected: Arc<AtomicBool>,
}

impl Peer {
    fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }
}

impl Peers {
    fn admit(&mut self, peer: Peer) {
        let before = std::mem::replace(&mut self.newest, peer);
        if before.is_connected() {
            self.proven = Some(before);
        }
    }

    /// Takes the contact with this number out; false if it was the last one.
    fn remove(&mut self, number: u64) -> bool {
        if self.newest.number == number {
            let Some(proven) = self.proven.take() else { return false };
            self.newest = proven;
        }
        self.proven.take_if(|proven| proven.number == number);
        true
    }
}

impl Table {
    fn new() -> Self {
        let (peers, contacts) = (HashMap::new(), JoinSet::new());
        Self { peers, contacts, hasher: RandomState::new(), next: 0 }
    }

    /// Gives the datagram to the contact it is for; false for a stranger's, and for one that begins
    /// anew. Of two contacts each drops what is the other's.
    fn forward(&mut self, peer: SocketAddr, datagram: &[u8]) -> bool {
        let Some(Peers { newest, proven }) = self.peers.get_mut(&peer) else { return false };
        proven.take_if(|_| newest.is_connected()); // it is replaced, and ends
        let opening = opens_handshake(datagram).then(|| self.hasher.hash_one(datagram));
        let is_its_own = |peer: &&Peer| opening.is_none_or(|opening| opening == peer.opening);
        let mut forwarded = false;
        for peer in [Some(&*newest), proven.as_ref()].into_iter().flatten().filter(is_its_own) {
            forward(peer, datagram);
            forwarded = true;
        }
        forwarded
    }

    fn ended(&mut self, contact: Result<(SocketAddr, u64), tokio::task::JoinError>) {
        match contact {
            Ok((peer, number)) => {
                if self.peers.get_mut(&peer).is_some_and(|found| !found.remove(number)) {
                    self.peers.remove(&peer);
                }
            }
            Err(error) => {
                tracing::error!(%error, "a contact failed");
                self.peers.retain(|_, peers| {
                    peers.proven.take_if(|proven| proven.queue.is_closed());
                    !peers.newest.queue.is_closed() || peers.remove(peers.newest.number)
                });
            }
        }
    }
}

impl Gateway {
    /// Serves until `stop` turns true; contacts under way end then.
    pub(crate) async fn serve_datagrams(
        self: Arc<Self>,
        socket: UdpSocket,
        mut stop: watch::Receiver<bool>,
    ) {
        let socket = Arc::new(socket);
        let mut rng = self.service.rng();
        let mut table = Table::new();
        let mut bytes = vec![0; DATAGRAM_MAX + CHECKSUM_LEN + 1];
        loop {
            let arrived = tokio::select! {
                arrived = socket.recv_from(&mut bytes) => arrived,
                Some(contact) = table.contacts.join_next() => {
                    table.ended(contact);
                    continue;
                }
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match arrived {
                Ok((len, peer)) => {
                    let from = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    match checked(&bytes[..len]) {
                        None => count_dropped("damaged"),
                        Some(datagram) if table.forward(from, datagram) => {}
                        Some(datagram) => {
                            let link = (&socket, peer);
                            self.stranger(&mut table, link, from, datagram, &mut *rng).await;
                        }
                    }
                }
                // A peer that is gone may show here as an error of the socket's.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => {
                    tracing::warn!(%error, "receiving datagrams failed");
                    tokio::time::sleep(FAILED_PAUSE).await;
                }
            }
        }
        table.contacts.detach_all(); // each sees the end of its queue and ends in good order
    }

    /// A datagram of somebody who has no contact, or wants a new one.
    async fn stranger(
        self: &Arc<Self>,
        table: &mut Table,
        (socket, peer): (&Arc<UdpSocket>, SocketAddr),
        from: SocketAddr,
        datagram: &[u8],
        rng: &mut (dyn CryptoRng + Send),
    ) {
        let now = self.service.now();
        let mut channel = ServerChannel::new(self.datagrams.clone(), &octets(from.ip()), now);
        // What a machine cannot accept in its first state is dropped by it, not an error.
        let Ok(()) = channel.handle(now, rng, datagram) else { return };
        if channel.is_asking() {
            return self.admit(table, channel, (socket, peer), from, datagram);
        }
        let mut most = AMPLIFICATION_MAX * (datagram.len() + CHECKSUM_LEN);
        while let Some(answer) = channel.poll_transmit() {
            let answer = with_checksum(&answer);
            if answer.len() > most {
                count_dropped("amplification");
                continue;
            }
            most -= answer.len();
            if let Err(error) = socket.send_to(&answer, peer).await {
                tracing::debug!(%peer, %error, "an answer could not be sent");
            }
        }
        if channel.discarded() > 0 {
            count_dropped("unexpected");
        }
    }

    /// Makes an entry for a channel that has seen M2 with a good challenge. It takes the place of
    /// an older one of the same address: at once, or once it has proven itself, if the older one
    /// has.
    fn admit(
        self: &Arc<Self>,
        table: &mut Table,
        channel: ServerChannel,
        (socket, peer): (&Arc<UdpSocket>, SocketAddr),
        from: SocketAddr,
        opening: &[u8],
    ) {
        let place = self.places.clone().try_acquire_owned();
        let (Ok(place), Some(held)) = (place, self.sources.hold(from.ip())) else {
            metrics::counter!(TURNED_AWAY).increment(1); // a log line were a flood
            return;
        };
        let number = table.next;
        table.next += 1;
        let (queue, inbox) = mpsc::channel(QUEUE_MAX);
        let opening = table.hasher.hash_one(opening);
        let connected = Arc::<AtomicBool>::default();
        let newest = Peer { number, opening, queue, connected: connected.clone() };
        match table.peers.entry(from) {
            Entry::Occupied(mut peers) => peers.get_mut().admit(newest),
            Entry::Vacant(empty) => drop(empty.insert(Peers { newest, proven: None })),
        }
        let link = PeerLink { inbox, socket: socket.clone(), peer };
        let gateway = self.clone();
        table.contacts.spawn(async move {
            let contact = Contact::new(&gateway, channel, link, Carrier::Udp, from, connected);
            Box::new(contact).serve().await;
            drop((held, place));
            (from, number)
        });
    }
}

fn forward(peer: &Peer, datagram: &[u8]) {
    match peer.queue.try_send(datagram.to_vec()) {
        Ok(()) => {}
        Err(TrySendError::Full(_)) => count_dropped("queue-full"),
        Err(TrySendError::Closed(_)) => count_dropped("ended"),
    }
}

fn count_dropped(reason: &'static str) {
    metrics::counter!(DATAGRAMS_DROPPED, "reason" => reason).increment(1);
}

/// One peer's side of the socket.
struct PeerLink {
    inbox: mpsc::Receiver<Vec<u8>>,
    socket: Arc<UdpSocket>,
    peer: SocketAddr,
}

impl Transport for PeerLink {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<Option<usize>>> {
        let arrived = ready!(self.inbox.poll_recv(cx));
        Poll::Ready(Ok(arrived.map(|datagram| {
            let len = datagram.len().min(into.len());
            into[..len].copy_from_slice(&datagram[..len]);
            len
        })))
    }

    async fn send<P: AsRef<[u8]> + Sync>(&mut self, parts: &[P]) -> io::Result<()> {
        for part in parts {
            let datagram = with_checksum(part.as_ref());
            if let Err(error) = self.socket.send_to(&datagram, self.peer).await {
                // As good as lost on the way: what matters is repeated.
                tracing::debug!(peer = %self.peer, %error, "a datagram could not be sent");
            }
        }
        Ok(())
    }
}
