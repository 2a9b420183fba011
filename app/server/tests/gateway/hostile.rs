//! Readers and strangers that must be refused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use countersign_channel::{AlertCode, Error, ReaderChannel};
use countersign_device::ReadError;
use countersign_idcard::reader::ReadOptions;
use countersign_net::SystemRng;
use countersign_service::Actor;
use countersign_store::DeviceKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::stage::{Stage, now};

fn alert(error: &ReadError) -> (AlertCode, bool) {
    match error {
        ReadError::Channel(Error::Alert { code, incident }) => (*code, !incident.is_empty()),
        other => panic!("not an alert: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_truncation_and_huge_lengths_are_refused_and_the_server_lives() {
    let stage = Stage::new().await;
    let mut long = *b"CS\x01\x01\x01\xff\xff\xff";
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &long, &[0xff; 4096]] {
        let mut stream = TcpStream::connect(stage.gateway()).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let mut answer = Vec::new();
        let _reset_or_end = stream.read_to_end(&mut answer).await;
        if !answer.is_empty() {
            assert_eq!(&answer[..5], b"CS\x01\x01\x0f", "an alert");
            assert_eq!(answer[8..10], AlertCode::Decode.code().to_be_bytes());
        }
    }
    // Half a header and gone: no incident.
    long[4] = 1;
    let mut stream = TcpStream::connect(stage.gateway()).await.unwrap();
    stream.write_all(&long[..3]).await.unwrap();
    drop(stream);

    assert_eq!(stage.reads().await, []);
    let refusals = stage.refusals().await;
    assert_eq!(refusals, vec!["message-format"; 4]);
    let reader = stage.enroll("RD-1").await;
    stage.reader(reader.config).0.read(ReadOptions::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_expired_revoked_blocked_and_unknown_readers_are_refused_by_name() {
    let stage = Stage::new().await;
    let elsewhere = Stage::new().await;
    let service = stage.server.service();

    // Foreign: enrolled elsewhere. Its serial is known here, its certificate is not ours.
    let mut foreign = elsewhere.enroll("RD-1").await.config;
    let known = stage.enroll("RD-1").await;
    foreign.credentials[0].trust = known.config.credentials[0].trust.clone();
    let error = stage.reader(foreign).0.read(ReadOptions::default()).await.unwrap_err();
    assert_eq!(alert(&error), (AlertCode::Certificate, true));

    let unknown = stage.unlisted("RD-7");
    let error = stage.reader(unknown).0.read(ReadOptions::default()).await.unwrap_err();
    assert_eq!(alert(&error), (AlertCode::UnknownReader, true));

    let expired = stage.enroll_expired("RD-2").await;
    let error = stage.reader(expired.config).0.read(ReadOptions::default()).await.unwrap_err();
    assert_eq!(alert(&error), (AlertCode::CertificateTime, true));

    let revoked = stage.enroll("RD-3").await;
    let console = Actor::Console;
    service.revoke_device(DeviceKind::Reader, &console, &revoked.id, "lost").await.unwrap();
    let error = stage.reader(revoked.config).0.read(ReadOptions::default()).await.unwrap_err();
    assert_eq!(alert(&error), (AlertCode::CertificateRevoked, true));

    let blocked = stage.enroll("RD-4").await;
    service.block_device(DeviceKind::Reader, &console, &blocked.id, "stolen").await.unwrap();
    let (mut reader, _field) = stage.reader(blocked.config);
    let error = reader.read(ReadOptions::default()).await.unwrap_err();
    assert_eq!(alert(&error), (AlertCode::ReaderBlocked, true));
    service.unblock_device(DeviceKind::Reader, &console, &blocked.id).await.unwrap();
    reader.read(ReadOptions::default()).await.unwrap();

    assert_eq!(stage.reads().await, [("done".to_owned(), None)]);
    let refusals = stage.refusals().await;
    assert_eq!(
        refusals,
        [
            "reader-blocked",
            "certificate-revoked",
            "certificate-expired",
            "reader-unknown",
            "certificate-issuer"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serial_that_does_not_match_its_certificate_number_is_refused() {
    let stage = Stage::new().await;
    stage.enroll("RD-2").await;
    let mut liar = stage.enroll("RD-1").await.config;
    liar.serial = "RD-2".into();
    let error = stage.reader(liar).0.read(ReadOptions::default()).await.unwrap_err();
    assert_eq!(alert(&error), (AlertCode::ReaderIdMismatch, true));
    let incident = error.incident().unwrap().to_owned();
    let rows = stage.server.service().incident(&incident).await.unwrap();
    assert_eq!(rows[0].entry.check.as_deref(), Some("reader-id-mismatch"));
    assert_eq!(stage.reads().await, []);
}

/// A flight M0, M2 recorded from a true reader, replayed on a connection of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_m2_is_refused() {
    let stage = Stage::new().await;
    let config = Arc::new(stage.enroll("RD-1").await.config);
    let mut rng = SystemRng::default();
    let mut reader = ReaderChannel::new(config, now(), &mut rng).unwrap();
    let mut stream = TcpStream::connect(stage.gateway()).await.unwrap();
    let m0 = reader.poll_transmit().unwrap();
    stream.write_all(&m0).await.unwrap();
    let m1 = read_frame(&mut stream).await;
    reader.handle(now(), &mut rng, &m1).unwrap();
    let m2 = reader.poll_transmit().unwrap();
    stream.write_all(&m2).await.unwrap();
    assert_eq!(read_frame(&mut stream).await[4], 4, "M3");

    let mut replay = TcpStream::connect(stage.gateway()).await.unwrap();
    replay.write_all(&m0).await.unwrap();
    read_frame(&mut replay).await;
    replay.write_all(&m2).await.unwrap();
    let alert = read_frame(&mut replay).await;
    assert_eq!(alert[4], 15);
    assert_eq!(alert[8..10], AlertCode::ChallengeReplayed.code().to_be_bytes());
    assert_eq!(stage.refusals().await, ["challenge-replayed"]);
}

pub(crate) async fn read_frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 8];
    stream.read_exact(&mut head).await.unwrap();
    let len = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await.unwrap();
    [&head[..], &body].concat()
}

/// A proxy that flips one bit of the reader's `n`-th frame of a connection, the first time only.
async fn flipping_proxy(to: SocketAddr, n: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        loop {
            let (reader, _) = listener.accept().await.unwrap();
            let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
            let server = TcpStream::connect(to).await.unwrap();
            tokio::spawn(async move {
                let (mut from_reader, mut to_reader) = reader.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                tokio::spawn(async move {
                    let _end = tokio::io::copy(&mut from_server, &mut to_reader).await;
                });
                for frame in 0.. {
                    let mut head = [0; 8];
                    if from_reader.read_exact(&mut head).await.is_err() {
                        return;
                    }
                    let len = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
                    let mut body = vec![0; len];
                    if from_reader.read_exact(&mut body).await.is_err() {
                        return;
                    }
                    if first && frame == n {
                        body[len / 2] ^= 1;
                    }
                    if to_server.write_all(&[&head[..], &body].concat()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, connections)
}

/// Frames of a first read: M0, M2, M4, ReadBegin, CardAnswer, packets. A packet altered in flight
/// ends the connection; the reader is told nothing but "authentication", and its read is failed.
#[tokio::test(flavor = "multi_thread")]
async fn a_packet_altered_in_flight_ends_the_connection() {
    let stage = Stage::new().await;
    let config = stage.enroll("RD-1").await.config;
    let (proxy, _connections) = flipping_proxy(stage.gateway(), 5).await;
    let (mut reader, _field) = stage.reader_through(config, proxy);
    let error = reader.read(ReadOptions::default()).await.unwrap_err();
    assert_eq!(alert(&error), (AlertCode::Authentication, true));
    let incident = error.incident().unwrap().to_owned();
    let rows = stage.server.service().incident(&incident).await.unwrap();
    assert_eq!(rows[0].entry.check.as_deref(), Some("record"));
    let failed = Some("reader_aborted".replace('_', "-"));
    assert_eq!(stage.reads().await, [("failed".to_owned(), failed)]);
    // The same reader reads again: from what it had already got from the card.
    let outcome = reader.read(ReadOptions::default()).await.unwrap();
    assert_eq!(outcome.source, countersign_device::Source::ServerFromCache);
}

/// An altered handshake message is refused, and an honest second try works.
#[tokio::test(flavor = "multi_thread")]
async fn an_altered_handshake_is_refused() {
    let stage = Stage::new().await;
    let config = stage.enroll("RD-1").await.config;
    let (proxy, _connections) = flipping_proxy(stage.gateway(), 1).await;
    let (mut reader, _field) = stage.reader_through(config, proxy);
    let error = reader.read(ReadOptions::default()).await.unwrap_err();
    let (code, _) = alert(&error);
    assert!(
        matches!(code, AlertCode::Certificate | AlertCode::Authentication | AlertCode::Decode),
        "{code:?}"
    );
    assert_eq!(stage.reads().await, []);
    reader.read(ReadOptions::default()).await.unwrap();
}
