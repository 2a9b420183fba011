//! POS terminals at the gateway: over streams only, with a protocol of their own (E2–E8).

use std::sync::Arc;
use std::time::Duration;

use countersign_channel::{AlertCode, Error, IdKind, ReaderChannel, ReaderConfig, ReaderEvent};
use countersign_crypto::{Secret, aws_lc};
use countersign_device::ReadError;
use countersign_idcard::reader::ReadOptions;
use countersign_injection::Bounded;
use countersign_injection::message::{ServerMessage, TerminalMessage};
use countersign_net::{Connection, Next, SystemClock, SystemRng};
use countersign_pki::{Identity, Role, request};
use countersign_service::{Actor, TerminalRequest};
use tokio::net::TcpStream;
use tr34::RsaKey;
use tr34::aws_lc::SoftwareRsaKey;
use tr34::token::CtKrd;

use super::stage::{Stage, now};

/// A terminal that has enrolled: what its channel is made of, and `CT_KRD`.
async fn terminal(stage: &Stage, serial: &str) -> (ReaderConfig, Vec<u8>) {
    let service = stage.server.service();
    service.init_rki(&Actor::Console, 2048).await.unwrap();
    let allowed = service.allow_terminal(&Actor::Console, serial, "", "").await.unwrap();
    let (provider, mut rng) = (aws_lc::provider(), SystemRng::default());
    let key = provider.signature.generate(&mut rng).unwrap().key;
    let identity = Identity::new(Role::Terminal, serial).unwrap();
    let rsa = SoftwareRsaKey::generate(2048).unwrap();
    let party = tr34::Party::new(tr34::Role::Krd, serial).unwrap();
    let request = TerminalRequest {
        serial: serial.to_owned(),
        code: Secret::copied_from(allowed.code.expose().as_bytes()),
        channel: request(&provider, &identity, &*key, &mut rng).unwrap(),
        krd: tr34::request(&rsa as &dyn RsaKey, &party).unwrap(),
    };
    let enrolled = service.enrol_terminal("192.0.2.7", request).await.unwrap();
    let config = stage.config(serial, key, enrolled.certificate);
    let ct_krd = CtKrd { certificate: &enrolled.krd }.encode();
    (ReaderConfig { sent_id: IdKind::CertificateNumber, ..config }, ct_krd)
}

type Line = Connection<ReaderChannel, TcpStream>;

async fn connect(stage: &Stage, config: ReaderConfig) -> Line {
    let mut rng = SystemRng::default();
    let channel = ReaderChannel::new(Arc::new(config), now(), &mut rng).unwrap();
    let stream = TcpStream::connect(stage.gateway()).await.unwrap();
    let clock = Arc::new(SystemClock::default());
    let mut line = Connection::new(channel, stream, clock, Box::new(rng));
    assert!(matches!(line.next(None).await.unwrap(), Next::Event(ReaderEvent::Connected)));
    line
}

async fn say(line: &mut Line, message: &[u8]) -> Option<ServerMessage> {
    line.machine().send(message).unwrap();
    line.flush().await.unwrap();
    match line.next(None).await {
        Ok(Next::Event(ReaderEvent::Data(said))) => Some(ServerMessage::decode(&said).unwrap()),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_served_over_a_stream() {
    let stage = Stage::new().await;
    let (config, ct_krd) = terminal(&stage, "POS-1").await;
    let mut line = connect(&stage, config.clone()).await;
    let bind = TerminalMessage::Bind(Bounded::new(&ct_krd).unwrap()).encode();
    let said = say(&mut line, &bind).await;
    assert!(matches!(said, Some(ServerMessage::Bound(_))), "{said:?}");
    // What breaks the protocol ends the connection, and nothing else: the next one is served.
    assert_eq!(say(&mut line, b"nonsense").await, None);
    let mut line = connect(&stage, config).await;
    let said = say(&mut line, &bind).await;
    assert!(matches!(said, Some(ServerMessage::Bound(_))), "{said:?}");
}

/// The reader's words mean nothing in a terminal's session, nor may a terminal come as a reader.
#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_reads_no_cards_and_sends_no_datagrams() {
    let stage = Stage::new().await;
    let (config, _) = terminal(&stage, "POS-1").await;
    let (mut reader, _field) = stage.reader(config.clone());
    reader.set_retry_for(Duration::ZERO); // a server may come back: not this one
    let error = reader.read(ReadOptions::default()).await.unwrap_err();
    assert!(matches!(error, ReadError::Channel(Error::Truncated)), "{error:?}");

    let (mut reader, _field) = stage.reader(config.clone());
    reader.set_gateway(format!("udp:{}", stage.gateway()));
    let error = reader.read(ReadOptions::default()).await.unwrap_err();
    let unknown = |error: &ReadError| {
        let code = AlertCode::UnknownReader;
        matches!(error, ReadError::Channel(Error::Alert { code: told, .. }) if *told == code)
    };
    assert!(unknown(&error), "{error:?}");

    // By its serial number a device is looked for among the readers.
    let by_serial = ReaderConfig { sent_id: IdKind::Serial, ..config };
    let (mut reader, _field) = stage.reader(by_serial);
    let error = reader.read(ReadOptions::default()).await.unwrap_err();
    assert!(unknown(&error), "{error:?}");
    assert_eq!(stage.reads().await, []);
}
