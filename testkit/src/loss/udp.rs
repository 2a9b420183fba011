//! The model between real UDP sockets.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Direction, LossyLink, Rates, Tally};

/// Clients that one proxy serves.
const CLIENTS_MAX: usize = 64;
/// How often a thread looks whether it shall end.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const DATAGRAM_MAX: usize = 65_536;

/// A UDP proxy on loopback that treats every datagram as its link does. Each client has a link of
/// its own, seeded in the order in which they come.
pub struct UdpProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    target: SocketAddr,
    rates: Rates,
    seed: u64,
    front: UdpSocket,
    started: Instant,
    stop: AtomicBool,
    clients: Mutex<Clients>,
    changed: Condvar,
}

#[derive(Default)]
struct Clients {
    now: HashMap<SocketAddr, Client>,
    /// How many there ever were.
    ever: u64,
    /// What was done to those that made room.
    gone: [Tally; 2],
}

struct Client {
    /// When it sent something last.
    heard: Duration,
    link: LossyLink,
    back: Arc<UdpSocket>,
    thread: Option<JoinHandle<()>>,
}

impl UdpProxy {
    /// Listens on a free port of loopback and forwards to `target`.
    ///
    /// # Errors
    /// The system's.
    pub fn start(target: SocketAddr, rates: Rates, seed: u64) -> io::Result<Self> {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        front.set_read_timeout(Some(LOOK_EVERY))?;
        let address = front.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            rates,
            seed,
            front,
            started: now(),
            stop: AtomicBool::new(false),
            clients: Mutex::default(),
            changed: Condvar::new(),
        });
        let (taking, delivering) = (shared.clone(), shared.clone());
        let threads = vec![
            std::thread::spawn(move || taking.take()),
            std::thread::spawn(move || delivering.deliver()),
        ];
        Ok(Self { address, shared, threads })
    }

    /// Where clients send to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was done to datagrams of this way, all clients together.
    #[must_use]
    pub fn tally(&self, direction: Direction) -> Tally {
        let clients = self.shared.lock();
        let all = clients.now.values().map(|client| client.link.tally(direction));
        all.fold(clients.gone[direction as usize], Tally::plus)
    }
}

impl Drop for UdpProxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
        let clients = std::mem::take(&mut self.shared.lock().now);
        for thread in clients.into_values().filter_map(|client| client.thread) {
            let _panicked = thread.join();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "real sockets live in real time")]
fn now() -> Instant {
    Instant::now()
}

impl Clients {
    /// Lets the one go that was silent longest, if there are too many. Its thread notices.
    fn make_room(&mut self) {
        if self.now.len() < CLIENTS_MAX {
            return;
        }
        let silent = self.now.iter().min_by_key(|(_, client)| client.heard);
        let Some(address) = silent.map(|(address, _)| *address) else { return };
        let Some(client) = self.now.remove(&address) else { return };
        for direction in [Direction::Forth, Direction::Back] {
            let gone = &mut self.gone[direction as usize];
            *gone = gone.plus(client.link.tally(direction));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn time(&self) -> Duration {
        now().duration_since(self.started)
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Takes what clients send.
    fn take(self: Arc<Self>) {
        let mut bytes = vec![0; DATAGRAM_MAX];
        while !self.is_over() {
            // A time-out, or a client that is gone: neither ends the proxy.
            let Ok((len, from)) = self.front.recv_from(&mut bytes) else { continue };
            let mut clients = self.lock();
            let time = self.time();
            if !clients.now.contains_key(&from) {
                let Ok(client) = self.clone().client(from, clients.ever) else { continue };
                clients.ever += 1;
                clients.make_room();
                clients.now.insert(from, client);
            }
            if let Some(client) = clients.now.get_mut(&from) {
                client.heard = time;
                client.link.push(time, Direction::Forth, &bytes[..len]);
                self.changed.notify_all();
            }
        }
    }

    fn client(self: Arc<Self>, from: SocketAddr, number: u64) -> io::Result<Client> {
        let back = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
        back.connect(self.target)?;
        back.set_read_timeout(Some(LOOK_EVERY))?;
        let link = LossyLink::new(self.rates, self.seed.wrapping_add(number));
        let (shared, socket) = (self, back.clone());
        let thread = std::thread::spawn(move || shared.take_back(&socket, from));
        Ok(Client { heard: Duration::ZERO, link, back, thread: Some(thread) })
    }

    /// Takes what the target sends to one client.
    fn take_back(&self, back: &Arc<UdpSocket>, client: SocketAddr) {
        let mut bytes = vec![0; DATAGRAM_MAX];
        while !self.is_over() {
            let received = back.recv(&mut bytes);
            // Another one may be at this address now, with a socket of its own.
            let mut clients = self.lock();
            let ours = |client: &&mut Client| Arc::ptr_eq(&client.back, back);
            let Some(client) = clients.now.get_mut(&client).filter(ours) else { return };
            if let Ok(len) = received {
                client.link.push(self.time(), Direction::Back, &bytes[..len]);
                self.changed.notify_all();
            }
        }
    }

    /// Delivers what has arrived, and sleeps until the next.
    fn deliver(&self) {
        let mut clients = self.lock();
        while !self.is_over() {
            let time = self.time();
            for (address, client) in &mut clients.now {
                while let Some((direction, bytes)) = client.link.pop_due(time) {
                    // As any network: what cannot be delivered is lost.
                    let _lost = match direction {
                        Direction::Forth => client.back.send(&bytes),
                        Direction::Back => self.front.send_to(&bytes, address),
                    };
                }
            }
            let due = clients.now.values().filter_map(|client| client.link.next_due()).min();
            let wait = due.map_or(LOOK_EVERY, |due| due.saturating_sub(time).min(LOOK_EVERY));
            let waited = self.changed.wait_timeout(clients, wait);
            clients = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_pass_both_ways_and_the_counts_tell_the_losses() {
        let target = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        target.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let rates = Rates { drop: 300, ..Rates::PERFECT };
        let proxy = UdpProxy::start(target.local_addr().unwrap(), rates, 5).unwrap();
        for number in 0..200_u8 {
            client.send_to(&[number], proxy.address()).unwrap();
        }
        let mut bytes = [0; 8];
        let mut arrived = 0;
        while let Ok((1, _)) = target.recv_from(&mut bytes) {
            arrived += 1;
        }
        let tally = proxy.tally(Direction::Forth);
        assert_eq!(tally.sent, 200);
        assert_eq!(tally.sent - tally.dropped, arrived);
        assert!((20..=110).contains(&tally.dropped), "{tally:?}");
        for _ in 0..2 * CLIENTS_MAX {
            let other = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            other.send_to(b"x", proxy.address()).unwrap();
        }
        let (all, mut looks) = (200 + 2 * CLIENTS_MAX as u64, 0);
        while proxy.tally(Direction::Forth).sent < all && looks < 200 {
            std::thread::sleep(LOOK_EVERY);
            looks += 1;
        }
        assert_eq!(proxy.tally(Direction::Forth).sent, all, "those that made room count");
        // The first one has made room, and comes again.
        for _ in 0..20 {
            client.send_to(b"again", proxy.address()).unwrap();
        }
        let from = loop {
            let (len, sender) = target.recv_from(&mut bytes).unwrap();
            if len == 5 {
                break sender;
            }
        };
        for _ in 0..50 {
            target.send_to(b"back", from).unwrap();
        }
        assert_eq!(client.recv(&mut bytes).unwrap(), 4);
    }
}
