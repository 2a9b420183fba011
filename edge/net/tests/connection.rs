//! The driver over in-memory streams: both channel roles, slow peers, deadlines, broken streams.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use countersign_channel::{
    Error, HANDSHAKE_TIMEOUT, ReaderChannel, ReaderEvent, ServerChannel, ServerEvent,
};
use countersign_crypto::{UnixTime, aws_lc};
use countersign_net::{Clock, Connection, NetError, Next, WRITE_TIMEOUT};
use testkit::pair::{ADDRESS, World};
use testkit::pki::NOW;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

/// A clock that a test winds.
#[derive(Default)]
struct Wound(AtomicU64);

impl Clock for Wound {
    fn now(&self) -> UnixTime {
        NOW.plus(Duration::from_millis(self.0.load(Ordering::SeqCst)))
    }
}

impl Wound {
    fn wind(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

fn world() -> World {
    World::new(aws_lc::provider(), aws_lc::provider(), aws_lc::provider(), 1)
}

type Reader = Connection<ReaderChannel, DuplexStream>;
type Server = Connection<ServerChannel, DuplexStream>;

fn ends(world: &World, clock: &Arc<Wound>, buffer: usize) -> (Reader, Server) {
    let (left, right) = duplex(buffer);
    let rng = |seed| Box::new(testkit::rng::seeded(seed));
    let reader = ReaderChannel::new(world.reader.clone(), clock.now(), &mut *rng(2)).unwrap();
    let server = ServerChannel::new(world.server.clone(), &ADDRESS, clock.now());
    (
        Connection::new(reader, left, clock.clone(), rng(3)),
        Connection::new(server, right, clock.clone(), rng(4)),
    )
}

/// Answers look-ups until the reader is connected.
async fn accept(server: &mut Server, world: &World) -> Result<(), NetError<Error>> {
    loop {
        match server.next(None).await? {
            Next::Event(ServerEvent::Ask(_)) => {
                let (channel, now, rng) = server.parts();
                channel
                    .reader_found(now, rng, world.directory.clone())
                    .map_err(NetError::Machine)?;
            }
            Next::Event(ServerEvent::Connected) => return Ok(()),
            _ => panic!("unexpected event"),
        }
    }
}

#[tokio::test]
async fn both_roles_connect_talk_and_close() {
    let (world, clock) = (world(), Arc::new(Wound::default()));
    // A buffer smaller than any message: every read and write is partial.
    let (mut reader, mut server) = ends(&world, &clock, 7);
    let serving = async {
        accept(&mut server, &world).await.unwrap();
        let Next::Event(ServerEvent::Data(data)) = server.next(None).await.unwrap() else {
            panic!("data")
        };
        server.machine().send(&data).unwrap();
        assert!(matches!(server.next(None).await.unwrap(), Next::Event(ServerEvent::Closed)));
        server.machine().close().unwrap();
        server.flush().await.unwrap();
    };
    let reading = async {
        assert!(matches!(reader.next(None).await.unwrap(), Next::Event(ReaderEvent::Connected)));
        reader.machine().send(&[5; 1000]).unwrap();
        let Next::Event(ReaderEvent::Data(data)) = reader.next(None).await.unwrap() else {
            panic!("data")
        };
        assert_eq!(*data, [5; 1000]);
        reader.machine().close().unwrap();
        assert!(matches!(reader.next(None).await.unwrap(), Next::Event(ReaderEvent::Closed)));
    };
    tokio::join!(serving, reading);
    drop(server);
    assert!(matches!(reader.next(None).await.unwrap(), Next::Ended));
}

#[tokio::test]
async fn a_stream_that_ends_early_is_cut() {
    let (world, clock) = (world(), Arc::new(Wound::default()));
    let (mut reader, server) = ends(&world, &clock, 4096);
    drop(server);
    let error = reader.next(None).await.unwrap_err();
    assert!(matches!(error, NetError::Io(_) | NetError::Machine(Error::Truncated)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_meets_the_machines_timeout() {
    let (world, clock) = (world(), Arc::new(Wound::default()));
    let (_reader, mut server) = ends(&world, &clock, 4096);
    clock.wind(HANDSHAKE_TIMEOUT);
    let error = server.next(None).await.unwrap_err();
    assert!(matches!(error, NetError::Machine(Error::Timeout)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_callers_deadline_comes_back_to_it() {
    let (world, clock) = (world(), Arc::new(Wound::default()));
    let (_reader, mut server) = ends(&world, &clock, 4096);
    let deadline = clock.now().plus(Duration::from_secs(1));
    clock.wind(Duration::from_secs(1));
    assert!(matches!(server.next(Some(deadline)).await.unwrap(), Next::Deadline));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_given_up() {
    let (world, clock) = (world(), Arc::new(Wound::default()));
    let (mut reader, _server) = ends(&world, &clock, 1);
    let started = tokio::time::Instant::now();
    let error = reader.next(None).await.unwrap_err();
    assert!(matches!(error, NetError::WriteTimeout), "{error}");
    assert_eq!(started.elapsed(), WRITE_TIMEOUT);
}

#[tokio::test]
async fn garbage_kills_the_machine_and_the_alert_still_goes_out() {
    let (world, clock) = (world(), Arc::new(Wound::default()));
    let (mut stranger, right) = duplex(4096);
    let channel = ServerChannel::new(world.server.clone(), &ADDRESS, clock.now());
    let rng = Box::new(testkit::rng::seeded(5));
    let mut server = Connection::new(channel, right, clock.clone(), rng);
    stranger.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let Err(NetError::Machine(error)) = server.next(None).await else { panic!("an error") };
    assert_eq!(error.check(), "message-format");
    server.machine().refuse(&error, "inc-1");
    server.flush().await.unwrap();
    let mut alert = [0; 8];
    stranger.read_exact(&mut alert).await.unwrap();
    assert_eq!((&alert[..2], alert[4]), (&b"CS"[..], 15));
}
