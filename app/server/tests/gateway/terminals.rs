//! POS terminals at the gateway: over streams only, with a protocol of their own (E2–E8).

use std::sync::Arc;
use std::time::Duration;

use countersign_channel::{AlertCode, Error, IdKind, ReaderChannel, ReaderConfig, ReaderEvent};
use countersign_crypto::{Secret, aws_lc};
use countersign_device::ReadError;
use countersign_idcard::reader::ReadOptions;
use countersign_injection::Bounded;
use countersign_injection::message::{Installed, ServerMessage, TerminalMessage, TokenRequest};
use countersign_net::{Connection, Next, SystemClock, SystemRng};
use countersign_pki::{Identity, Role, request};
use countersign_service::{Actor, AssignKey, AssignTo, Gated, KeyToMake, TerminalRequest};
use countersign_store::{InjectionState, KeyScope, Role as Operators, Vote};
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

/// An injection that waits for this terminal, as two operators want it.
async fn assigned(stage: &Stage, serial: &str) -> String {
    let service = stage.server.service();
    let mut operators = Vec::new();
    for name in ["asker", "voter"] {
        let made = service.add_operator(&Actor::Console, name, &[Operators::Admin]).await.unwrap();
        operators.push(Actor::Operator(made.0));
    }
    let (asker, voter) = (&operators[0], &operators[1]);
    let new = KeyToMake {
        name: "tmk".to_owned(),
        scope: KeyScope::PerTerminal,
        usage: "K0".to_owned(),
        algorithm: "T".to_owned(),
        mode: "D".to_owned(),
        exportability: "N".to_owned(),
        length: 16,
        ksn: None,
    };
    let Gated::Pending(asked) = service.generate_key(asker, &new, None).await.unwrap() else {
        panic!("others must agree");
    };
    service.vote(voter, &asked.id, Vote::Approve).await.unwrap();
    let made = service.generate_key(asker, &new, Some(&asked.id)).await.unwrap();
    let Gated::Done(key) = made else { panic!("they have agreed") };
    let to = AssignTo::Terminals(vec![serial.to_owned()]);
    let wanted = AssignKey { key_id: key.key.id, slot: 0, to };
    let Gated::Pending(asked) = service.assign_key(asker, &wanted, None).await.unwrap() else {
        panic!("others must agree");
    };
    service.vote(voter, &asked.id, Vote::Approve).await.unwrap();
    match service.assign_key(asker, &wanted, Some(&asked.id)).await.unwrap() {
        Gated::Done(assigned) => assigned.injections[0].id.clone(),
        Gated::Pending(_) => panic!("they have agreed"),
    }
}

/// `RT_KRD` with this nonce, of a terminal that is bound to the KDH in use.
async fn request_with(stage: &Stage, nonce: u8) -> Vec<u8> {
    let hierarchy = stage.server.service().hierarchy().await.unwrap();
    let nonce = tr34::token::Nonce::new(&[nonce; 16]).unwrap();
    let asked = TokenRequest {
        request: Bounded::new(&tr34::token::RtKrd { nonce }.encode()).unwrap(),
        bound: tr34::Rsa::sha256(&tr34::aws_lc::AwsLc, hierarchy.kdh.raw()),
        crl_seen: Bounded::new(&[]).unwrap(),
    };
    TerminalMessage::TokenRequest(asked).encode()
}

/// The answer is a refusal, told so; the newest row of the audit with a failed check names it.
async fn refused(stage: &Stage, said: Option<ServerMessage>, told: &str, audited: (&str, &str)) {
    let Some(ServerMessage::Refused(refusal)) = said else { panic!("{told}: {said:?}") };
    assert_eq!(refusal.check.as_str(), told);
    let rows = stage.server.service().audit_page(None, 100).await.unwrap().items;
    let newest = rows.into_iter().find(|row| row.entry.check.is_some()).unwrap().entry;
    assert_eq!((newest.action.as_str(), newest.check.as_deref()), (audited.0, Some(audited.1)));
    assert_eq!(newest.incident.as_deref(), Some(refusal.incident.as_str()), "under its incident");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_terminal_may_not_do_is_refused_by_name_and_audited() {
    let stage = Stage::new().await;
    let (config, ct_krd) = terminal(&stage, "POS-1").await;
    let (_, others) = terminal(&stage, "POS-2").await;
    let injection = assigned(&stage, "POS-1").await;
    let now = async || stage.server.service().injection(&injection).await.unwrap();
    let first = request_with(&stage, 1).await;
    let line = async || connect(&stage, config.clone()).await;

    // Not bound; with another terminal's certificate.
    let said = say(&mut line().await, &first).await;
    refused(&stage, said, "terminal-not-bound", ("token.request", "terminal-not-bound")).await;
    let bind = |ct_krd: &[u8]| TerminalMessage::Bind(Bounded::new(ct_krd).unwrap()).encode();
    let said = say(&mut line().await, &bind(&others)).await;
    refused(&stage, said, "krd-not-own", ("terminal.bind", "krd-not-own")).await;
    assert_eq!((now().await.state, now().await.attempts), (InjectionState::Assigned, 0));
    let said = say(&mut line().await, &bind(&ct_krd)).await;
    assert!(matches!(said, Some(ServerMessage::Bound(_))), "{said:?}");

    // A nonce for a second token.
    let said = say(&mut line().await, &first).await;
    assert!(matches!(said, Some(ServerMessage::KeyToken(_))), "{said:?}");
    let said = say(&mut line().await, &first).await;
    refused(&stage, said, "nonce-reused", ("token.request", "nonce-reused")).await;
    assert_eq!((now().await.state, now().await.attempts), (InjectionState::Issued, 1));

    // A check value that is not the key's: it does not count, and people are told no more.
    let mut line = line().await;
    let said = say(&mut line, &request_with(&stage, 2).await).await;
    let Some(ServerMessage::KeyToken(key)) = said else { panic!("{said:?}") };
    let mut kcv = now().await.kcv.unwrap();
    kcv[0] ^= 1;
    let kcv = Bounded::new(&kcv).unwrap();
    let installed = Installed { injection: key.injection, slot: key.slot, kcv };
    let said = say(&mut line, &TerminalMessage::Installed(installed).encode()).await;
    refused(&stage, said, "token-refused", ("injection.fail", "kcv-mismatch")).await;
    let ended = now().await;
    assert_eq!(ended.state, InjectionState::Failed);
    assert_eq!(ended.failed_check.as_deref(), Some("kcv-mismatch"));
}
