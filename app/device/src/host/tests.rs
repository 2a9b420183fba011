//! A host with a hand on the other end of its line.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use countersign_crypto::Secret;
use countersign_idcard::{PHOTO_LEN, PlainData, TEXT_LEN};
use countersign_net::SystemRng;
use countersign_net::framing::FrameDecoder;
use countersign_net::serial::BAUD;
use testkit::parts::pty;

use super::*;
use crate::line::{LINE_VERSION, LineMessage, ReadSummary, Step};

fn start(port: &Path) -> (Host, Receiver<HostEvent>) {
    let (told, events) = channel();
    let options = HostOptions {
        port: port.display().to_string(),
        baud: BAUD,
        gateway: "127.0.0.1:9".into(), // nobody is there
    };
    let rng = Box::new(SystemRng::default());
    let host = Host::start(options, rng, move |event| {
        let _test_is_over = told.send(event);
    });
    (host, events)
}

/// The reader's end of the line, as a test plays it.
struct Hand {
    line: File,
    decoder: FrameDecoder,
    heard: std::collections::VecDeque<LineMessage>,
}

impl Hand {
    fn new(line: &File) -> Self {
        let line = line.try_clone().unwrap();
        Self { line, decoder: FrameDecoder::default(), heard: Default::default() }
    }

    fn say(&mut self, message: &LineMessage) {
        self.line.write_all(&message.encode()).unwrap();
    }

    /// The next message of the host; blocks.
    fn hear(&mut self) -> LineMessage {
        loop {
            if let Some(message) = self.heard.pop_front() {
                return message;
            }
            let mut bytes = [0; 4096];
            let read = self.line.read(&mut bytes).unwrap();
            let frames = self.decoder.push(&bytes[..read]);
            self.heard.extend(frames.into_iter().map(|frame| LineMessage::decode(frame).unwrap()));
        }
    }

    fn hear_command(&mut self) -> (u64, bool) {
        loop {
            if let LineMessage::Read { number, fingerprint } = self.hear() {
                return (number, fingerprint);
            }
        }
    }
}

fn result(number: u64, fill: u8) -> LineMessage {
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
    let secret = |len| Secret::copied_from(&vec![fill; len]);
    let data = PlainData::new(secret(TEXT_LEN), secret(PHOTO_LEN), None).unwrap();
    LineMessage::Result { number, result: Box::new(LineResult { summary, data }) }
}

/// Starts to play the reader, beside what the test awaits.
fn play<T: Send + 'static>(hand: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    tokio::task::spawn_blocking(hand)
}

fn checks(events: &Receiver<HostEvent>) -> Vec<&'static str> {
    let check = |event| match event {
        HostEvent::Unexpected { check, .. } => Some(check),
        _ => None,
    };
    events.try_iter().filter_map(check).collect()
}

/// What was not asked for is named and not taken; what was asked for is, once, and acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_result_that_was_asked_for_is_taken() {
    let pair = pty().unwrap();
    let (mut host, events) = start(pair.path());
    let mut hand = Hand::new(&pair.master);
    let played = play(move || {
        hand.say(&result(1, 9)); // before anything was asked
        let (number, fingerprint) = hand.hear_command();
        assert!(fingerprint);
        hand.say(&result(number.wrapping_add(1), 8)); // somebody else's
        hand.say(&LineMessage::Who); // a host's word
        hand.line.write_all(b"boot: ok\r\n").unwrap();
        hand.line.write_all(&[&[0], &[0x55; 9000][..], &[0]].concat()).unwrap();
        let odd = countersign_net::framing::encode(0x82, b"short").unwrap();
        hand.line.write_all(&odd).unwrap();
        let progress = Progress { step: Step::Reading, ms: 5 };
        hand.say(&LineMessage::Progress { number, progress });
        hand.say(&result(number, 7));
        hand.say(&result(number, 6)); // once too often
        loop {
            if let LineMessage::Received { number: received } = hand.hear() {
                assert_eq!(received, number);
                return hand;
            }
        }
    });
    let taken = host.read(true).await.unwrap();
    assert_eq!(taken.data.text(), &[7; TEXT_LEN]);
    drop(played.await.unwrap());
    host.stop().await;
    let checks = checks(&events);
    for check in ["line-damaged", "line-oversized", "line-malformed", "line-unexpected"] {
        assert!(checks.contains(&check), "{check}: {checks:?}");
    }
    let unexpected = checks.iter().filter(|check| **check == "line-unexpected").count();
    assert!(unexpected >= 3, "{checks:?}");
}

/// A result that the line lost is asked for again, under the same number.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_command_or_result_is_asked_for_again() {
    let pair = pty().unwrap();
    let (mut host, _events) = start(pair.path());
    let mut hand = Hand::new(&pair.master);
    let played = play(move || {
        let (first, _) = hand.hear_command(); // as if it had not been heard
        let (second, _) = hand.hear_command();
        assert_eq!(first, second);
        let frame = result(second, 1).encode();
        hand.line.write_all(&frame[..frame.len() / 2]).unwrap(); // cut on its way
        let (third, _) = hand.hear_command();
        assert_eq!(third, second);
        hand.say(&result(third, 5));
        hand
    });
    let taken = host.read(false).await.unwrap();
    assert_eq!(taken.data.text(), &[5; TEXT_LEN]);
    drop(played.await.unwrap());
}

/// Unplugged in the middle of a read and plugged in again: the read goes on.
#[tokio::test(flavor = "multi_thread")]
async fn an_unplugged_port_is_opened_again_and_the_read_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let port = dir.path().join("port");
    let pair = pty().unwrap();
    std::os::unix::fs::symlink(pair.path(), &port).unwrap();
    let (mut host, events) = start(&port);
    let played = play(move || {
        let mut hand = Hand::new(&pair.master);
        let (number, _) = hand.hear_command();
        drop((hand, pair)); // the plug
        std::fs::remove_file(&port).unwrap();
        let pair = pty().unwrap();
        std::os::unix::fs::symlink(pair.path(), &port).unwrap();
        let mut hand = Hand::new(&pair.master);
        let (again, _) = hand.hear_command();
        assert_eq!(again, number, "the same read");
        hand.say(&result(again, 3));
        (hand, pair)
    });
    let taken = host.read(false).await.unwrap();
    assert_eq!(taken.data.text(), &[3; TEXT_LEN]);
    let told: Vec<_> = events.try_iter().collect();
    let opened = told.iter().filter(|event| matches!(event, HostEvent::PortOpened)).count();
    assert_eq!(opened, 2, "{told:?}");
    assert!(told.iter().any(|event| matches!(event, HostEvent::PortAbsent { .. })), "{told:?}");
    drop(played.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_hear_nothing_has_its_name() {
    let (silent, garbage) = (pty().unwrap(), pty().unwrap());
    let (mut nowhere, _events) = start(Path::new("no/such/port"));
    let (mut on_silent, _events) = start(silent.path());
    let (mut on_garbage, _events) = start(garbage.path());
    let mut noise = garbage.master.try_clone().unwrap();
    let noisy = std::thread::spawn(move || {
        for _ in 0..30 {
            let _over = noise.write_all(b"login: \0\xff\xfe\x80garbage\0");
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let (no_port, no_word, junk) =
        tokio::join!(nowhere.read(false), on_silent.read(false), on_garbage.read(false));
    let refused = |result: Result<LineResult, HostError>| result.err().expect("no result");
    let (no_port, no_word, junk) = (refused(no_port), refused(no_word), refused(junk));
    assert!(matches!(&no_port, HostError::Port { port, .. } if port == "no/such/port"));
    assert!(matches!(&no_word, HostError::Silent { .. }), "{no_word}");
    assert!(matches!(&junk, HostError::Garbage { pieces, .. } if *pieces > 10), "{junk}");
    let errors = [no_port, no_word, junk];
    let checks: Vec<_> = errors.iter().map(HostError::check).collect();
    assert_eq!(checks, ["port-unavailable", "reader-silent", "line-damaged"]);
    assert!(errors.iter().all(HostError::is_environment));
    noisy.join().unwrap();
}

/// A reader's refusal keeps its name, its incident and its blame on the way to the host.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_arrives_as_the_reader_gave_it() {
    let pair = pty().unwrap();
    let (mut host, events) = start(pair.path());
    let mut hand = Hand::new(&pair.master);
    let played = play(move || {
        let hello = Hello {
            line: LINE_VERSION,
            serial: "RD-1".into(),
            program: "0".into(),
            resident: true,
        };
        hand.say(&LineMessage::Hello(hello));
        let (number, _) = hand.hear_command();
        let failure = LineFailure {
            check: "reader-blocked".into(),
            detail: "blocked".into(),
            incident: Some("inc_1".into()),
            environment: false,
        };
        hand.say(&LineMessage::Failed { number, failure });
        hand
    });
    let error = host.read(false).await.err().expect("a refusal");
    assert_eq!((error.check(), error.incident()), ("reader-blocked", Some("inc_1")));
    assert!(!error.is_environment());
    let hello = |event| matches!(event, HostEvent::Hello(hello) if hello.serial == "RD-1");
    assert!(events.try_iter().any(hello));
    drop(played.await.unwrap());
}

/// The server is not there: the reader is told at once, so that it need not wait for a time-out.
#[tokio::test(flavor = "multi_thread")]
async fn the_reader_is_told_that_there_is_no_server() {
    let pair = pty().unwrap();
    let (_host, events) = start(pair.path());
    let mut hand = Hand::new(&pair.master);
    let detail = play(move || {
        loop {
            hand.say(&LineMessage::Datagram(zeroize::Zeroizing::new(b"sealed".to_vec())));
            match hand.hear() {
                LineMessage::NoServer { detail } => return detail,
                LineMessage::Who => {}
                other => panic!("{}", other.name()),
            }
        }
    });
    let detail = detail.await.unwrap();
    assert!(detail.contains("127.0.0.1:9"), "{detail}");
    let told = events.recv_timeout(Duration::from_secs(5));
    assert!(told.is_ok(), "the owner is told too");
}
