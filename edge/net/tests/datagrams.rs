//! The driver over datagrams: a lossy link in memory and in virtual time, and real UDP sockets.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use countersign_channel::{
    Delivery, HANDSHAKE_TIMEOUT, Policy, ReaderChannel, ReaderEvent, ServerChannel, ServerEvent,
};
use countersign_crypto::{UnixTime, aws_lc};
use countersign_net::datagram::{DATAGRAM_MAX, checked, with_checksum};
use countersign_net::{Clock, Connection, NetError, Next, Transport, UdpLink};
use testkit::loss::{Direction, LossyLink, Rates, Tally};
use testkit::pair::{ADDRESS, World};
use testkit::pki::NOW;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

/// The test's paused time.
struct Virtual(Instant);

impl Clock for Virtual {
    fn now(&self) -> UnixTime {
        NOW.plus(self.0.elapsed())
    }
}

/// One end of a link in memory.
struct End {
    outbox: mpsc::UnboundedSender<(Direction, Vec<u8>)>,
    inbox: mpsc::UnboundedReceiver<Vec<u8>>,
    direction: Direction,
}

impl Transport for End {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<Option<usize>>> {
        loop {
            let Some(arrived) = ready!(self.inbox.poll_recv(cx)) else {
                return Poll::Ready(Ok(None));
            };
            if let Some(datagram) = checked(&arrived) {
                into[..datagram.len()].copy_from_slice(datagram);
                return Poll::Ready(Ok(Some(datagram.len())));
            }
        }
    }

    async fn send<P: AsRef<[u8]> + Sync>(&mut self, parts: &[P]) -> io::Result<()> {
        for part in parts {
            let _gone = self.outbox.send((self.direction, with_checksum(part.as_ref()).to_vec()));
        }
        Ok(())
    }
}

type Link = Arc<Mutex<LossyLink>>;

/// Both ends of a lossy link, and the task that moves what travels on it.
fn link(rates: Rates, seed: u64) -> (End, End, Link) {
    let (outbox, mut sent) = mpsc::unbounded_channel::<(Direction, Vec<u8>)>();
    let (to_server, server_inbox) = mpsc::unbounded_channel();
    let (to_reader, reader_inbox) = mpsc::unbounded_channel();
    let link = Arc::new(Mutex::new(LossyLink::new(rates, seed)));
    let (moving, start) = (link.clone(), Instant::now());
    tokio::spawn(async move {
        loop {
            let due = moving.lock().unwrap().next_due();
            let arrival = async {
                match due {
                    Some(due) => sleep_until(start + due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                item = sent.recv() => match item {
                    Some((direction, bytes)) => {
                        moving.lock().unwrap().push(start.elapsed(), direction, &bytes);
                    }
                    None => return,
                },
                () = arrival => {}
            }
            while let Some((direction, bytes)) = moving.lock().unwrap().pop_due(start.elapsed()) {
                let _gone = match direction {
                    Direction::Forth => to_server.send(bytes),
                    Direction::Back => to_reader.send(bytes),
                };
            }
        }
    });
    let reader = End { outbox: outbox.clone(), inbox: reader_inbox, direction: Direction::Forth };
    let server = End { outbox, inbox: server_inbox, direction: Direction::Back };
    (reader, server, link)
}

fn world() -> World {
    World::new(aws_lc::provider(), aws_lc::provider(), aws_lc::provider(), 1)
        .under(Policy { delivery: Delivery::Datagrams, ..Policy::default() })
}

/// Whether the handshake got through to its end, and which of 40 records arrived at the server,
/// in order of arrival.
async fn meet(rates: Rates, seed: u64) -> (bool, Vec<u8>, Tally) {
    let world = world();
    let clock: Arc<dyn Clock> = Arc::new(Virtual(Instant::now()));
    let rng = |more| Box::new(testkit::rng::seeded(seed * 10 + more));
    let (reader_end, server_end, link) = link(rates, seed);
    let reader = ReaderChannel::new(world.reader.clone(), clock.now(), &mut *rng(2)).unwrap();
    let mut reader = Connection::new(reader, reader_end, clock.clone(), rng(3));
    let server = ServerChannel::new(world.server.clone(), &ADDRESS, clock.now());
    let mut server = Connection::new(server, server_end, clock.clone(), rng(4));
    let until = clock.now().plus(3 * HANDSHAKE_TIMEOUT);
    let reading = async {
        match reader.next(Some(until)).await {
            Ok(Next::Event(ReaderEvent::Connected)) => {}
            _ => return false,
        }
        for number in 0..40 {
            reader.machine().send(&[number; 200]).unwrap();
            reader.flush().await.unwrap();
            sleep(Duration::from_millis(40)).await;
        }
        // Repeats its last handshake message when the server has not heard it.
        let _deadline = reader.next(Some(clock.now().plus(HANDSHAKE_TIMEOUT))).await;
        true
    };
    let serving = async {
        let (mut connected, mut arrived) = (false, Vec::new());
        loop {
            match server.next(Some(until)).await {
                Ok(Next::Event(ServerEvent::Ask(_))) => {
                    let (channel, now, rng) = server.parts();
                    channel.reader_found(now, rng, world.directory.clone()).unwrap();
                }
                Ok(Next::Event(ServerEvent::Data(data))) => {
                    assert_eq!(*data, [data[0]; 200], "whatever arrives is whole");
                    arrived.push(data[0]);
                }
                Ok(Next::Event(ServerEvent::Connected)) => connected = true,
                Ok(Next::Event(ServerEvent::Closed)) => panic!("nobody closes"),
                Ok(Next::Deadline | Next::Ended) => return (connected, arrived),
                Err(NetError::Machine(error)) => {
                    assert_eq!(error.check(), "handshake-timeout");
                    return (connected, arrived);
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    let (reader_connected, (connected, arrived)) = tokio::join!(reading, serving);
    assert!(reader_connected || !connected, "the server hears the reader's confirmation last");
    let tally = link.lock().unwrap().tally(Direction::Forth);
    (connected, arrived, tally)
}

#[tokio::test(start_paused = true)]
async fn a_perfect_link_delivers_every_record_in_order() {
    let (connected, arrived, tally) = meet(Rates::PERFECT, 1).await;
    assert!(connected);
    assert_eq!(arrived, (0..40).collect::<Vec<_>>());
    assert_eq!(tally.sent, 3 + 40, "M0, M2, M4, and nothing twice");
}

/// Handshakes repeat what was lost; a record arrives once or not at all, and never damaged.
#[tokio::test(start_paused = true)]
async fn a_bad_link_loses_records_and_delivers_none_twice() {
    let mut connections = 0;
    for seed in 0..20 {
        let (connected, arrived, _) = meet(Rates::all(15), seed).await;
        let mut once = arrived.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), arrived.len(), "{seed}: {arrived:?}");
        connections += u32::from(connected);
        assert!(arrived.len() < 40 && (connected || arrived.is_empty()), "{seed}: {arrived:?}");
    }
    assert!(connections >= 18, "{connections} of 20");
}

#[tokio::test(start_paused = true)]
async fn a_dead_link_ends_at_the_handshakes_deadline() {
    let started = Instant::now();
    let (connected, arrived, _) = meet(Rates::dropping(100), 1).await;
    assert!(!connected && arrived.is_empty());
    assert!(started.elapsed() >= HANDSHAKE_TIMEOUT);
}

#[tokio::test]
async fn udp_drops_what_is_damaged_and_tells_of_a_peer_that_is_gone() {
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = peer.local_addr().unwrap();
    let mut link = UdpLink::connect(&address.to_string()).await.unwrap();
    link.send(&[&b"one"[..], b"two"]).await.unwrap();
    let mut bytes = [0; DATAGRAM_MAX];
    let mut from = address;
    for expected in [&b"one"[..], b"two"] {
        let (len, sender) = peer.recv_from(&mut bytes).await.unwrap();
        assert_eq!(checked(&bytes[..len]), Some(expected), "each part is a datagram");
        from = sender;
    }
    for junk in [&b""[..], b"junk", &[0; 40]] {
        peer.send_to(junk, from).await.unwrap();
    }
    peer.send_to(&with_checksum(b"good"), from).await.unwrap();
    assert_eq!(link.receive(&mut bytes).await.unwrap(), Some(4));
    assert_eq!(&bytes[..4], b"good");

    drop(peer);
    link.send(&[b"anybody?"]).await.unwrap();
    let error = link.receive(&mut bytes).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert!(UdpLink::connect("no-port").await.is_err());
}
