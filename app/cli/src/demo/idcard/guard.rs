//! Who is kept out: C3, C5.

use std::net::SocketAddr;
use std::time::Duration;

use countersign_channel::{AlertCode, Mode};
use countersign_device::{DeviceDir, ReadError};
use countersign_idcard::record::DocumentType;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use super::OTHER_SERIAL;
use super::cards::DemoCard;
use super::stage::{Stage, blocking};
use crate::demo::steps::{Flow, expect};
use crate::device::emulated_field;
use crate::failure::Failure;

/// How many errors trip the demo's rule.
const ERRORS: usize = 3;
/// How long the relay and the replay may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Header of a frame: magic, version, mode, type, length. The alert's type, and where its code is.
const ALERT: u8 = 15;
const TYPE_AT: usize = 4;
const CODE_AT: std::ops::Range<usize> = 8..10;

/// C5: errors of a reader trip a rule; an operator reverses the decision.
pub(super) async fn blocked_by_a_rule(flow: &mut Flow, stage: &Stage) -> Result<(), Failure> {
    let device = stage.enroll(OTHER_SERIAL).await?;
    let card = DemoCard::of(DocumentType::Citizen)?;
    let (link, field) = emulated_field();
    field.insert(card.image.clone());
    let mut reader = stage.reader(&device, link)?;
    field.set_wrong_answers(true);
    let mut failed = Vec::new();
    for _ in 0..ERRORS {
        failed
            .extend(reader.read(card.options()).await.err().map(|error| error.check().to_owned()));
    }
    field.set_wrong_answers(false);
    let started = Instant::now();
    let refused = reader.read(card.options()).await;
    let took = started.elapsed();
    let refused = refused.as_ref().err().map(ReadError::check);
    let checked = expect("the errors", &failed, &vec!["authentication".to_owned(); ERRORS])
        .and_then(|()| expect("the refused check", &refused, &Some("reader-blocked")));
    let what = "three cards without the right key: a rule of risk.toml blocks the reader";
    flow.step("C5", what, checked, took);

    let id = stage.reader_id(OTHER_SERIAL).await?.unwrap_or_default();
    let api = stage.api().await?;
    let (decision, record): (Value, Value) = blocking(move || {
        let reader = format!("/v1/readers/{id}");
        let record: Value = api.get(&format!("{reader}/record"))?;
        let decision = record["standing"][0].clone();
        let path = format!("{reader}/decisions/{}/reverse", decision["id"].as_str().unwrap_or(""));
        api.post::<Value>(&path, &json!({ "reason": "the demo's cards were meant to fail" }))?;
        Ok((decision, record))
    })
    .await?;
    let outcome = reader.read(card.options()).await?;
    let errors = &record["totals"]["errors"]["authentication"];
    let checked = expect("the rule", &decision["rule"].as_str(), &Some("bad-cards"))
        .and_then(|()| expect("errors in the reader's record", &errors.as_u64(), &Some(3)))
        .and_then(|()| card.compare(&outcome));
    let what = "the record tells why; an operator reverses the decision, and the reader reads";
    flow.step("C5", what, checked, outcome.total);
    Ok(())
}

/// C3: what a reader said to prove itself, overheard and said again. The challenge in it is used
/// up, so the server does not even look at the signature.
pub(super) async fn replayed(
    flow: &mut Flow,
    stage: &Stage,
    device: &DeviceDir,
    card: &DemoCard,
) -> Result<(), Failure> {
    let gateway = stage.server.gateway();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
    let relay = listener.local_addr().map_err(failed)?;
    let overheard = tokio::spawn(overhear(listener, gateway));
    let (link, field) = emulated_field();
    field.insert(card.image.clone());
    let mut reader = stage.reader_by(Mode::C1, device, link)?;
    reader.set_gateway(relay.to_string());
    let outcome = reader.read(card.options()).await?;
    drop(reader);
    let said = timeout(PATIENCE, overheard).await.map_err(|_| failed("the relay hangs"))?;
    let said = said.map_err(failed)?.map_err(failed)?;

    let before = stage.reads().await?;
    let started = Instant::now();
    let answer = timeout(PATIENCE, say(gateway, &said)).await.map_err(failed)?.map_err(failed)?;
    let took = started.elapsed();
    let after = stage.reads().await?;
    let used_up = AlertCode::ChallengeReplayed.code().to_be_bytes();
    let checked = card
        .compare(&outcome)
        .and_then(|()| {
            expect("the last answer's type", &last_frame(&answer).get(TYPE_AT), &Some(&ALERT))
        })
        .and_then(|()| {
            expect("the alert's code", &last_frame(&answer).get(CODE_AT), &Some(&used_up[..]))
        })
        .and_then(|()| expect("reads stored", &after, &before));
    let what = "a reader's proof, overheard and said again: refused by its used-up challenge";
    flow.step("C3", what, checked, took);
    Ok(())
}

fn failed(detail: impl ToString) -> Failure {
    Failure::environment("relay", detail.to_string())
}

/// Relays one connection and gives what the reader said.
async fn overhear(listener: TcpListener, gateway: SocketAddr) -> std::io::Result<Vec<u8>> {
    let (reader, _) = listener.accept().await?;
    let server = TcpStream::connect(gateway).await?;
    let (mut from_reader, mut to_reader) = reader.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_reader).await });
    let mut said = Vec::new();
    let mut chunk = [0; 4096];
    // Either end may leave without waiting for the other's last word.
    while let Ok(read @ 1..) = from_reader.read(&mut chunk).await {
        said.extend_from_slice(&chunk[..read]);
        if to_server.write_all(&chunk[..read]).await.is_err() {
            break;
        }
    }
    let _gone = to_server.shutdown().await;
    let _ended = back.await;
    Ok(said)
}

/// Says it all at once and takes the answer to its end.
async fn say(gateway: SocketAddr, said: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(gateway).await?;
    stream.write_all(said).await?;
    let mut answer = Vec::new();
    // The server may close while bytes of ours lie unread: what it said has come before.
    let _reset_or_end = stream.read_to_end(&mut answer).await;
    Ok(answer)
}

/// The last whole frame.
fn last_frame(mut bytes: &[u8]) -> &[u8] {
    let mut last = &bytes[..0];
    while let Some(&[_, _, _, _, _, high, middle, low]) = bytes.first_chunk::<8>() {
        let len = 8 + u32::from_be_bytes([0, high, middle, low]) as usize;
        let Some((frame, rest)) = bytes.split_at_checked(len) else { break };
        (last, bytes) = (frame, rest);
    }
    last
}
