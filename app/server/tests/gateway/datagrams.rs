//! Readers over UDP: reads on good and bad links, and strangers who must cost nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use countersign_channel::{
    AMPLIFICATION_MAX, AlertCode, Delivery, Error, Mode, OPENING_DATAGRAM_LEN, ReaderChannel,
    ReaderConfig, ReaderEvent,
};
use countersign_device::{ReadError, Source};
use countersign_emulator::sample;
use countersign_idcard::reader::ReadOptions;
use countersign_idcard::record::{DocumentType, IdRecord};
use countersign_net::SystemRng;
use countersign_net::datagram::{DATAGRAM_MAX, checked, with_checksum};
use countersign_server::http::metrics;
use countersign_server::{Config, Gateway};
use countersign_service::Actor;
use countersign_store::DeviceKind;
use testkit::loss::{Direction, Rates, UdpProxy};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::stage::{Stage, now};

/// How long an answer that must not come is waited for.
const QUIET: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(20);

fn counted(line_start: &str) -> u64 {
    let text = metrics::install().render();
    let values = text.lines().filter(|line| line.starts_with(line_start));
    values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

/// A UDP client that says what the test wants.
struct Client {
    socket: UdpSocket,
    channel: ReaderChannel,
    sent: usize,
    received: usize,
}

impl Client {
    async fn new(stage: &Stage, config: &ReaderConfig, source: [u8; 4]) -> Self {
        let mut config = config.clone();
        config.policies[0].delivery = Delivery::Datagrams;
        let channel =
            ReaderChannel::new(Arc::new(config), now(), &mut SystemRng::default()).unwrap();
        let socket = UdpSocket::bind(SocketAddr::from((source, 0))).await.unwrap();
        socket.connect(stage.gateway()).await.unwrap();
        Self { socket, channel, sent: 0, received: 0 }
    }

    async fn send(&mut self, datagram: &[u8]) {
        let datagram = with_checksum(datagram);
        self.sent += datagram.len();
        self.socket.send(&datagram).await.unwrap();
    }

    async fn receive(&mut self, wait: Duration) -> Option<Vec<u8>> {
        let mut bytes = vec![0; DATAGRAM_MAX + 8];
        let len = timeout(wait, self.socket.recv(&mut bytes)).await.ok()?.unwrap();
        self.received += len;
        Some(checked(&bytes[..len]).expect("the server's checksum").to_vec())
    }

    fn next_message(&mut self) -> Vec<u8> {
        self.channel.poll_transmit().expect("a message")
    }

    /// Sends the next message and lets the machine take the answer.
    async fn exchange(&mut self) -> Vec<u8> {
        let message = self.next_message();
        self.send(&message).await;
        let answer = self.receive(PATIENCE).await.expect("an answer");
        self.channel.handle(now(), &mut SystemRng::default(), &answer).unwrap();
        message
    }

    /// Up to the confirmed channel.
    async fn connect(&mut self) {
        self.exchange().await;
        self.exchange().await;
        assert!(matches!(self.channel.poll_event(), Some(ReaderEvent::Connected)));
        let m4 = self.next_message();
        self.send(&m4).await;
    }
}

fn udp(stage: &Stage) -> String {
    format!("udp:{}", stage.gateway())
}

async fn wait_for(what: &str, done: impl Fn() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} never happened");
}

#[tokio::test(flavor = "multi_thread")]
async fn cards_are_read_over_datagrams_by_both_handshakes() {
    let stage = Stage::new().await;
    let config = stage.enroll("RD-1").await.config;
    for (mode, name) in [(Mode::C1, "c1"), (Mode::C2, "c2")] {
        let counter = format!(
            "countersign_handshakes_total{{outcome=\"accepted\",handshake=\"{name}\",\
             suite=\"p256\",transport=\"udp\"}}"
        );
        let before = counted(&counter);
        let (mut reader, _field) = stage.reader(ReaderConfig { mode, ..config.clone() });
        reader.set_gateway(udp(&stage));
        for source in [Source::Server, Source::ServerFromCache] {
            let outcome = reader.read(ReadOptions::default()).await.unwrap();
            assert_eq!((outcome.source, outcome.attempts), (source, 1), "{name}");
            assert_eq!(
                IdRecord::decode(outcome.data.text()).unwrap(),
                sample(DocumentType::Citizen)
            );
        }
        assert!(counted(&counter) >= before + 2, "{name}");
    }
    assert_eq!(stage.reads().await, vec![("done".to_owned(), None); 4]);
    assert_eq!(stage.refusals().await, [""; 0]);
}

/// Drop, damage, duplicates and reordering, a fifth each: every read gives the record.
#[tokio::test(flavor = "multi_thread")]
async fn reads_get_through_a_link_that_loses_a_fifth() {
    let stage = Stage::new().await;
    let config = stage.enroll("RD-1").await.config;
    let before = counted("countersign_packets_resent_total{transport=\"udp\"}");
    let proxy = UdpProxy::start(stage.gateway(), Rates::all(20), 20).unwrap();
    let (mut reader, _field) = stage.reader(config);
    reader.set_gateway(format!("udp:{}", proxy.address()));
    reader.set_retry_for(Duration::from_secs(120));
    let mut texts = Vec::new();
    for _ in 0..4 {
        let outcome = reader.read(ReadOptions::default()).await.unwrap();
        texts.push(*outcome.data.text());
    }
    assert!(texts.windows(2).all(|two| two[0] == two[1]), "always the same record");
    let (forth, back) = (proxy.tally(Direction::Forth), proxy.tally(Direction::Back));
    assert!(forth.dropped > 0 && back.dropped > 0 && forth.damaged > 0, "{forth:?} {back:?}");
    let resent = counted("countersign_packets_resent_total{transport=\"udp\"}") - before;
    assert!(resent > 0, "the server tells how many packets it asked for again");
    let done = stage.reads().await;
    assert_eq!(done.iter().filter(|(state, _)| state == "done").count(), 4, "{done:?}");
}

/// 2000 contacts from 200 addresses send M0: each is answered, none is kept. An entry is made by
/// M2, and goes with its contact.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_openings_leaves_nothing_behind() {
    let stage = Stage::new().await;
    let config = stage.enroll("RD-1").await.config;
    let (mut held, before) = (Vec::new(), stage.server.contacts());
    for contact in 0..2000_u16 {
        let source = [127, 0, 1, u8::try_from(contact % 200).unwrap() + 1];
        let mut client = Client::new(&stage, &config, source).await;
        let m0 = client.next_message();
        client.send(&m0).await;
        assert_eq!(client.receive(PATIENCE).await.expect("M1")[4], 2);
        if contact % 500 == 0 {
            client = Client::new(&stage, &config, source).await;
            client.exchange().await;
            held.push(client);
        }
    }
    assert_eq!(stage.server.contacts(), before, "no entry for any");
    assert_eq!(stage.refusals().await, [""; 0]);
    // Whoever comes back with M2 is served although nothing was kept of him.
    let came_back = held.len();
    for client in &mut held {
        client.exchange().await;
        assert!(matches!(client.channel.poll_event(), Some(ReaderEvent::Connected)));
    }
    assert_eq!(stage.server.contacts(), before + came_back);
    for client in &mut held {
        let m4 = client.next_message();
        client.send(&m4).await;
        client.channel.close().unwrap();
        let close = client.next_message();
        client.send(&close).await;
    }
    wait_for("the end of the contacts", || stage.server.contacts() == before).await;
}

/// Nobody whose address is not proven is answered with more than three times his bytes.
#[tokio::test(flavor = "multi_thread")]
async fn answers_to_unproven_addresses_are_bounded() {
    let stage = Stage::new().await;
    let config = stage.enroll("RD-1").await.config;
    for mode in [Mode::C1, Mode::C2] {
        let config = ReaderConfig { mode, ..config.clone() };
        let mut client = Client::new(&stage, &config, [127, 0, 0, 1]).await;
        let m0 = client.next_message();
        assert_eq!(m0.len(), OPENING_DATAGRAM_LEN, "filled up");
        let len = 8 + usize::from(m0[7]);
        assert!(m0[len..].iter().all(|byte| *byte == 0));
        for sent in [len, len + 1, 100, 200, OPENING_DATAGRAM_LEN] {
            let mut client = Client::new(&stage, &config, [127, 0, 0, 1]).await;
            client.send(&m0[..sent.max(len)]).await;
            let answer = client.receive(QUIET).await;
            assert!(
                client.received <= AMPLIFICATION_MAX * client.sent,
                "{mode:?}: {} bytes for {}",
                client.received,
                client.sent
            );
            if sent == OPENING_DATAGRAM_LEN {
                assert!(answer.is_some(), "{mode:?}: a whole opening is answered");
            }
            if mode == Mode::C2 && sent == len {
                assert!(answer.is_none(), "C2's certificate goes to nobody for 30 bytes");
            }
        }
        // One byte too many, or filled up with anything else: no opening at all.
        let mut noisy = m0.clone();
        noisy[OPENING_DATAGRAM_LEN - 1] = 1;
        for bad in [[&m0[..], &[0]].concat(), noisy] {
            let mut client = Client::new(&stage, &config, [127, 0, 0, 1]).await;
            client.send(&bad).await;
            assert_eq!(client.receive(QUIET).await, None, "{mode:?}");
        }
    }
    assert!(counted("countersign_datagrams_dropped_total{reason=\"amplification\"}") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_is_dropped_without_a_word() {
    let stage = Stage::new().await;
    let config = stage.enroll("RD-1").await.config;
    let damaged = || counted("countersign_datagrams_dropped_total{reason=\"damaged\"}");
    let unexpected = || counted("countersign_datagrams_dropped_total{reason=\"unexpected\"}");
    let (damaged_before, unexpected_before) = (damaged(), unexpected());
    let mut client = Client::new(&stage, &config, [127, 0, 0, 1]).await;
    for junk in [&b""[..], b"x", &[0; 4], &[0xff; 9000], b"GET / HTTP/1.1\r\n\r\n"] {
        client.socket.send(junk).await.unwrap();
    }
    // Whole datagrams of the protocol that nobody here awaits: records, M3, M4, alerts.
    for kind in [0, 2, 4, 5, 15, 16, 17, 99] {
        client.send(&[b'C', b'S', 1, 1, kind, 0, 0, 4, 1, 2, 3, 4]).await;
    }
    for head in [*b"CS\x02\x01\x01", *b"CS\x01\x03\x01", *b"SC\x01\x01\x01"] {
        client.send(&[&head[..], &[0, 0, 0]].concat()).await;
    }
    assert_eq!(client.receive(QUIET).await, None);
    wait_for("the count of what was damaged", || damaged() >= damaged_before + 5).await;
    wait_for("the count of the rest", || unexpected() >= unexpected_before + 11).await;
    assert_eq!(stage.refusals().await, [""; 0]);
    assert_eq!(stage.reads().await, []);
    client.connect().await; // the same address, afterwards
}

/// Replayed M2: from elsewhere, after it was used, it makes no entry and gets no answer; while its
/// contact lives, it is answered again, because M3 may have been lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_m2_makes_no_contact() {
    let stage = Stage::new().await;
    let config = stage.enroll("RD-1").await.config;
    let mut client = Client::new(&stage, &config, [127, 0, 0, 1]).await;
    client.exchange().await;
    let m2 = client.exchange().await;

    client.send(&m2).await;
    assert_eq!(client.receive(PATIENCE).await.expect("M3 again")[4], 4);
    let m4 = client.next_message();
    client.send(&m4).await;

    for source in [[127, 0, 0, 1], [127, 0, 0, 3]] {
        let mut replay = Client::new(&stage, &config, source).await;
        replay.send(&m2).await;
        assert_eq!(replay.receive(QUIET).await, None, "{source:?}");
    }
    let page = stage.server.service().audit_page(None, 200).await.unwrap();
    assert!(page.items.iter().all(|row| row.entry.check.is_none()), "no contact, no incident");
}

/// The server was restarted between M0 and M2: it says so, in far fewer bytes than came, keeps
/// nothing, and the reader begins anew at once instead of repeating M2 for ten seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_challenge_is_told_at_once_and_costs_nothing() {
    let stage = Stage::new().await;
    let config = stage.enroll("RD-1").await.config;
    for mode in [Mode::C1, Mode::C2] {
        let config = ReaderConfig { mode, ..config.clone() };
        let mut client = Client::new(&stage, &config, [127, 0, 0, 1]).await;
        client.exchange().await;
        let mut stale = client.next_message();
        stale[8 + 5] ^= 1; // the epoch: one that this server never had
        let before = stage.server.contacts();
        (client.sent, client.received) = (0, 0);
        client.send(&stale).await;
        let alert = client.receive(PATIENCE).await.expect("an alert");
        assert!(client.received * 4 < client.sent, "{} for {}", client.received, client.sent);
        let told = client.channel.handle(now(), &mut SystemRng::default(), &alert).unwrap_err();
        assert!(matches!(told, Error::Alert { code: AlertCode::ChallengeStale, .. }), "{told}");
        assert_eq!(client.receive(QUIET).await, None, "once");
        assert_eq!(stage.server.contacts(), before, "{mode:?}: nothing is kept");
        // Of a forged challenge nobody is told anything.
        let mut client = Client::new(&stage, &config, [127, 0, 0, 1]).await;
        client.exchange().await;
        let mut forged = client.next_message();
        forged[8 + 20] ^= 1; // its MAC
        client.send(&forged).await;
        assert_eq!(client.receive(QUIET).await, None, "{mode:?}");
    }
    assert_eq!(stage.refusals().await, [""; 0], "no incident for whoever sends such things");
}

/// The same as a reader sees it: M2 reaches a server that was restarted.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_does_not_wait_for_a_server_that_was_restarted() {
    let stage = Stage::new().await;
    let config = stage.enroll("RD-1").await.config;
    let relay = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (mut reader, _field) = stage.reader(config);
    reader.set_gateway(format!("udp:{}", relay.local_addr().unwrap()));
    let gateway = stage.gateway();
    let aged = tokio::spawn(async move {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (mut peer, mut proofs) = (None, 0);
        let (mut from_reader, mut from_server) = (vec![0; 70_000], vec![0; 70_000]);
        loop {
            tokio::select! {
                Ok((len, from)) = relay.recv_from(&mut from_reader) => {
                    peer = Some(from);
                    let mut datagram = checked(&from_reader[..len]).unwrap().to_vec();
                    if datagram[4] == 3 {
                        proofs += 1;
                        if proofs == 1 {
                            datagram[8 + 5] ^= 1; // as if of another server's life
                        }
                    }
                    server.send_to(&with_checksum(&datagram), gateway).await.unwrap();
                }
                Ok((len, _)) = server.recv_from(&mut from_server) => {
                    relay.send_to(&from_server[..len], peer.unwrap()).await.unwrap();
                }
            }
        }
    });
    let outcome = reader.read(ReadOptions::default()).await.unwrap();
    // Not told, it would have repeated M2, which then arrives as it was, in the first attempt.
    assert!(outcome.attempts > 1, "{outcome:?}");
    assert_eq!(stage.reads().await, [("done".to_owned(), None)]);
    aged.abort();
}

/// A reader that begins anew from the same address and port takes its old session's place.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_handshake_from_the_same_address_replaces_the_session() {
    let stage = Stage::new().await;
    let config = stage.enroll("RD-1").await.config;
    let mut client = Client::new(&stage, &config, [127, 0, 0, 1]).await;
    client.connect().await;
    let mut again = Client::new(&stage, &config, [127, 0, 0, 1]).await;
    std::mem::swap(&mut client.channel, &mut again.channel);
    client.connect().await;
    // The session that is open is the new one's: it closes in good order.
    client.channel.close().unwrap();
    let close = client.next_message();
    client.send(&close).await;
    while let Some(answer) = client.receive(PATIENCE).await {
        client.channel.handle(now(), &mut SystemRng::default(), &answer).unwrap();
        if matches!(client.channel.poll_event(), Some(ReaderEvent::Closed)) {
            return;
        }
    }
    panic!("the new session was never closed");
}

/// A challenge is tied to an IP address, not to a port and not to a reader: whoever has one, and
/// sends from the address and port of an open session, must not end that session.
#[tokio::test(flavor = "multi_thread")]
async fn an_unproven_handshake_from_the_same_address_ends_no_session() {
    let stage = Stage::new().await;
    let config = stage.enroll("RD-1").await.config;
    let mut victim = Client::new(&stage, &config, [127, 0, 0, 1]).await;
    victim.connect().await;
    let before = stage.server.contacts();

    // Nobody whom the directory knows; he gets his challenge at a port of his own.
    let mut attacker = Client::new(&stage, &stage.unlisted("RD-9"), [127, 0, 0, 1]).await;
    attacker.exchange().await;
    let forged = attacker.next_message();
    victim.send(&forged).await;
    assert_eq!(victim.receive(PATIENCE).await.expect("the attacker's alert")[4], 15);
    wait_for("the end of the attacker's contact", || stage.server.contacts() == before).await;

    // The same with a handshake that is never finished, of a reader's own.
    let mut unfinished = Client::new(&stage, &config, [127, 0, 0, 1]).await;
    unfinished.exchange().await;
    let m2 = unfinished.next_message();
    victim.send(&m2).await;
    assert_eq!(victim.receive(PATIENCE).await.expect("the other one's M3")[4], 4);

    victim.channel.close().unwrap();
    let close = victim.next_message();
    victim.send(&close).await;
    while let Some(answer) = victim.receive(PATIENCE).await {
        victim.channel.handle(now(), &mut SystemRng::default(), &answer).unwrap();
        if matches!(victim.channel.poll_event(), Some(ReaderEvent::Closed)) {
            return;
        }
    }
    panic!("the victim's session was ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_readers_are_told_why_over_datagrams_too() {
    let stage = Stage::new().await;
    let blocked = stage.enroll("RD-4").await;
    let service = stage.server.service();
    service.block_device(DeviceKind::Reader, &Actor::Console, &blocked.id, "stolen").await.unwrap();
    let (mut reader, _field) = stage.reader(blocked.config);
    reader.set_gateway(udp(&stage));
    let error = reader.read(ReadOptions::default()).await.unwrap_err();
    assert_eq!(error.check(), "reader-blocked");
    assert!(error.incident().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_datagrams_answers_none() {
    let gateway = Gateway { datagrams: false, ..Gateway::default() };
    let stage = Stage::with(&Config { gateway, ..Config::default() }).await;
    assert!(!stage.server.takes_datagrams());
    let config = stage.enroll("RD-1").await.config;
    let (mut reader, _field) = stage.reader(config);
    let gateway = stage.gateway();
    reader.set_gateway(udp(&stage));
    reader.set_retry_for(Duration::ZERO);
    let error = reader.read(ReadOptions::default()).await.unwrap_err();
    assert!(matches!(error, ReadError::Unreachable { .. }), "{error}");
    assert!(error.is_environment());
    reader.set_gateway(gateway);
    reader.read(ReadOptions::default()).await.unwrap();
}
