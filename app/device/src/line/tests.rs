//! The reader's end of the line, with a host's hand on the other one.

use std::io::{Read, Write};
use std::os::unix::fs::symlink;

use countersign_crypto::Secret;
use countersign_idcard::{PHOTO_LEN, PlainData, TEXT_LEN};
use countersign_net::serial::BAUD;
use testkit::parts::pty;

use super::*;

fn result(number: u64) -> LineMessage {
    let summary = ReadSummary {
        source: "server".into(),
        handshake: None,
        suite: None,
        policy: None,
        attempts: 1,
        ms: 1.0,
        bytes_sent: 0,
        bytes_received: 0,
    };
    let secret = |len| Secret::copied_from(&vec![7; len]);
    let data = PlainData::new(secret(TEXT_LEN), secret(PHOTO_LEN), None).unwrap();
    LineMessage::Result { number, result: Box::new(LineResult { summary, data }) }
}

/// A host that is unplugged while the reader answers it is not the one that is plugged in next.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_does_not_wait_in_the_line_for_another_host() {
    let (pair, dir) = (pty().unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().join("port");
    let line = Line::open(&path.display().to_string(), BAUD, "RD-1", true);
    line.sender().say(&result(1)); // nobody is there
    symlink(pair.path(), &path).unwrap();
    let mut host = pair.master.try_clone().unwrap();
    let heard = tokio::task::spawn_blocking(move || {
        let (mut decoder, mut heard, mut asked) = (FrameDecoder::default(), Vec::new(), false);
        // The greeting, and the answer to a question after it.
        while heard.iter().filter(|name| **name == "hello").count() < 2 {
            let mut bytes = [0; CHUNK];
            let read = host.read(&mut bytes).unwrap();
            for frame in decoder.push(&bytes[..read]) {
                heard.push(LineMessage::decode(frame).unwrap().name());
            }
            if !asked && !heard.is_empty() {
                host.write_all(&LineMessage::Who.encode()).unwrap();
                asked = true;
            }
        }
        heard
    });
    assert_eq!(heard.await.unwrap(), ["hello", "hello"]);
    line.sender().say(&result(2)); // somebody is
    let mut host = pair.master.try_clone().unwrap();
    let heard = tokio::task::spawn_blocking(move || {
        let mut decoder = FrameDecoder::default();
        loop {
            let mut bytes = [0; CHUNK];
            let read = host.read(&mut bytes).unwrap();
            if let Some(frame) = decoder.push(&bytes[..read]).pop() {
                return LineMessage::decode(frame).unwrap().name();
            }
        }
    });
    assert_eq!(heard.await.unwrap(), "result");
}
