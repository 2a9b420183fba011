//! What one source may take of the gateway, and that others are served meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use countersign_channel::{
    AlertCode, HANDSHAKE_TIMEOUT, Mode, ReaderChannel, ReaderConfig, SOURCE_BURST,
};
use countersign_idcard::reader::ReadOptions;
use countersign_net::SystemRng;
use countersign_server::PER_SOURCE_MAX;
use countersign_server::http::metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use super::hostile::read_frame;
use super::stage::{Stage, now};

/// The honest readers of these tests come from 127.0.0.1.
const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];

async fn connect_from(source: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((source, 0))).unwrap();
    socket.connect(to).await.unwrap()
}

/// How long one more audit row of a flood may take: the bound lets one through each second.
const PATIENCE: Duration = Duration::from_secs(30);

/// A counter's value, all its labels together.
fn counted(name: &str) -> u64 {
    let text = metrics::install().render();
    let values = text.lines().filter(|line| line.starts_with(name));
    values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_handshakes_are_counted_by_mode_and_suite() {
    let stage = Stage::new().await;
    let config = stage.enroll("RD-1").await.config;
    for (mode, name) in [(Mode::C1, "c1"), (Mode::C2, "c2")] {
        let labels = format!(
            "{{outcome=\"accepted\",handshake=\"{name}\",suite=\"p256\",transport=\"tcp\"}}"
        );
        let name = format!("countersign_handshakes_total{labels}");
        let before = counted(&name);
        let config = ReaderConfig { mode, ..config.clone() };
        stage.reader(config).0.read(ReadOptions::default()).await.unwrap();
        assert!(counted(&name) > before, "{name}");
    }
}

/// A true reader's contact from elsewhere with a signature that is none; what it is told.
async fn bad_proof(stage: &Stage, config: &Arc<ReaderConfig>) -> u16 {
    let mut rng = SystemRng::default();
    let mut reader = ReaderChannel::new(config.clone(), now(), &mut rng).unwrap();
    let mut stream = connect_from(ELSEWHERE, stage.gateway()).await;
    stream.write_all(&reader.poll_transmit().unwrap()).await.unwrap();
    let m1 = read_frame(&mut stream).await;
    reader.handle(now(), &mut rng, &m1).unwrap();
    let mut m2 = reader.poll_transmit().unwrap();
    *m2.last_mut().unwrap() ^= 1;
    stream.write_all(&m2).await.unwrap();
    let alert = read_frame(&mut stream).await;
    assert_eq!(alert[4], 15, "an alert");
    u16::from_be_bytes([alert[8], alert[9]])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_of_bad_proofs_is_limited_and_others_are_served() {
    let stage = Stage::new().await;
    let honest = stage.enroll("RD-1").await.config;
    let config = Arc::new(honest.clone());
    let mut verified = 0;
    while bad_proof(&stage, &config).await != AlertCode::SourceLimited.code() {
        verified += 1;
        assert!(verified < 100 * SOURCE_BURST, "it was never limited");
    }
    assert!(verified >= SOURCE_BURST, "{verified}");
    let outcome = stage.reader(honest).0.read(ReadOptions::default()).await.unwrap();
    assert_eq!(outcome.attempts, 1, "another address is not touched");

    // Its refusals show like any other: counted all, audited as often as the bound allows.
    assert!(counted("countersign_handshakes_total{outcome=\"source-limited\"") > 0);
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        for _ in 0..20 {
            bad_proof(&stage, &config).await;
        }
        if stage.refusals().await.iter().any(|check| check == "source-limited") {
            return;
        }
    }
    panic!("never audited: {:?}", stage.refusals().await);
}

/// Contacts at once from one address; each is half-open when it has its challenge.
const CONTACTS: usize = 2000;

#[tokio::test(flavor = "multi_thread")]
async fn half_open_contacts_of_one_source_leave_places_for_others() {
    let stage = Stage::new().await;
    let honest = stage.enroll("RD-1").await.config;
    let mut rng = SystemRng::default();
    let config = Arc::new(stage.unlisted("RD-9"));
    let m0 = ReaderChannel::new(config, now(), &mut rng).unwrap().poll_transmit().unwrap();
    let contact = async || {
        let mut stream = connect_from(ELSEWHERE, stage.gateway()).await;
        let _may_be_closed = stream.write_all(&m0).await;
        let mut head = [0; 8];
        stream.read_exact(&mut head).await.map(|_| stream)
    };
    let (started, before) = (Instant::now(), counted("countersign_connections_turned_away_total"));
    let mut open = Vec::new();
    for _ in 0..CONTACTS {
        open.extend(contact().await);
    }
    // A contact that is not finished in time gives its place to the next.
    let rounds = 1 + started.elapsed().as_secs() / HANDSHAKE_TIMEOUT.as_secs();
    let most = PER_SOURCE_MAX * usize::try_from(rounds).unwrap();
    assert!((PER_SOURCE_MAX..=most).contains(&open.len()), "{} of {most}", open.len());
    let turned_away = counted("countersign_connections_turned_away_total") - before;
    assert!(turned_away >= u64::try_from(CONTACTS - open.len()).unwrap(), "{turned_away}");

    let outcome = stage.reader(honest).0.read(ReadOptions::default()).await.unwrap();
    assert_eq!(outcome.attempts, 1);

    // Who goes makes room.
    drop(open);
    for _ in 0..1000 {
        if contact().await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no place ever came back");
}
