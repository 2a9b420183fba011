//! A reader whose server is reached through its host (C16): reader, serial line, host, UDP, server.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_device::{
    Host, HostError, HostEvent, HostOptions, Key, Reader, Resident, ResidentEvent,
};
use countersign_emulator::{CardHandle, LineEnd, LineFault, LineFaults, SerialLine, sample};
use countersign_idcard::record::{DocumentType, IdRecord};
use countersign_net::SystemRng;
use countersign_net::serial::BAUD;
use countersign_service::Actor;
use countersign_store::DeviceKind;
use testkit::loss::{Direction, Rates};
use testkit::parts::lossy_line;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::stage::{Enrolled, Stage};

type Told<T> = Arc<Mutex<Vec<T>>>;

/// What a resident reader told, as far as a test asks.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Shown(IdRecord),
    Failed(String),
    Served(String),
    NotServed(String),
    Busy,
}

struct Chain {
    host: Host,
    host_told: Told<HostEvent>,
    keys: mpsc::Sender<Key>,
    reader_told: Told<Seen>,
    resident: JoinHandle<Reader>,
    faults: LineFaults,
    field: CardHandle,
    _line: Option<SerialLine>,
}

fn seen(event: ResidentEvent) -> Option<Seen> {
    Some(match event {
        ResidentEvent::Card { .. } => return None,
        ResidentEvent::Read(read) => Seen::Shown(IdRecord::decode(read.0.data.text()).unwrap()),
        ResidentEvent::Failed(error) => Seen::Failed(error.check().to_owned()),
        ResidentEvent::Served(summary) => Seen::Served(summary.source),
        ResidentEvent::NotServed(failure) => Seen::NotServed(failure.check),
        ResidentEvent::Busy => Seen::Busy,
    })
}

impl Chain {
    fn new(stage: &Stage, reader: Enrolled) -> Self {
        let faults = LineFaults::none();
        let line = SerialLine::start(faults.clone()).unwrap();
        let ends = [LineEnd::A, LineEnd::B].map(|end| line.path(end).to_owned());
        Self { faults, _line: Some(line), ..Self::between(stage, reader, [&ends[0], &ends[1]]) }
    }

    /// On a line of the test's own.
    fn between(stage: &Stage, reader: Enrolled, [end, host_end]: [&Path; 2]) -> Self {
        let (mut reader, field) = stage.reader(reader.config);
        reader.set_gateway(format!("serial:{}", end.display()));
        let (keys, pressed) = mpsc::channel(4);
        let reader_told = Told::default();
        let told = reader_told.clone();
        let resident = tokio::spawn(Resident::new(reader, pressed).run(move |event| {
            told.lock().unwrap().extend(seen(event));
        }));
        let options = HostOptions {
            port: host_end.display().to_string(),
            baud: BAUD,
            gateway: stage.gateway().to_string(),
        };
        let host_told = Told::default();
        let told = host_told.clone();
        let host = Host::start(options, Box::new(SystemRng::default()), move |event| {
            told.lock().unwrap().push(event);
        });
        let faults = LineFaults::none();
        Self { host, host_told, keys, reader_told, resident, faults, field, _line: None }
    }

    /// Waits until the reader has told something for which this holds.
    async fn wait_until_seen(&self, wanted: impl Fn(&Seen) -> bool) {
        for _ in 0..1500 {
            if self.reader_told.lock().unwrap().iter().any(&wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never seen: {:?}", self.reader_told.lock().unwrap());
    }

    async fn end(self) {
        self.keys.send(Key::Quit).await.unwrap();
        self.resident.await.unwrap();
        self.host.stop().await;
    }
}

fn citizen() -> IdRecord {
    sample(DocumentType::Citizen)
}

fn record(data: &countersign_idcard::PlainData) -> IdRecord {
    IdRecord::decode(data.text()).unwrap()
}

/// The host that asked gets the record, and the reader does not show it; what the reader's own keys
/// asked for is shown there, and the host learns nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn the_record_goes_to_whoever_asked() {
    let stage = Stage::new().await;
    let mut chain = Chain::new(&stage, stage.enroll("RD-1").await);
    let result = chain.host.read(false).await.unwrap();
    assert_eq!(record(&result.data), citizen());
    // On a busy machine a module's half second may pass, and the reader then tries again, with the
    // packets that it has: how often, and from where, is not what this is about.
    let source = result.summary.source;
    chain.wait_until_seen(|seen| *seen == Seen::Served(source.clone())).await;
    assert!(!chain.reader_told.lock().unwrap().iter().any(|seen| matches!(seen, Seen::Shown(_))));

    chain.keys.send(Key::Read { fingerprint: false }).await.unwrap();
    chain.wait_until_seen(|seen| *seen == Seen::Shown(citizen())).await;
    let told = chain.host_told.lock().unwrap().split_off(0);
    assert!(told.iter().any(|event| matches!(event, HostEvent::Hello(hello) if hello.resident)));
    let strange = |event: &&HostEvent| matches!(event, HostEvent::Unexpected { .. });
    assert_eq!(told.iter().find(strange), None, "{told:?}");
    assert_eq!(stage.reads().await.len(), 2);
    chain.end().await;
}

/// Frames damaged, cut, lost and preceded by noise, in both directions and at every step: each read
/// gives the record all the same.
#[tokio::test(flavor = "multi_thread")]
async fn damage_on_the_line_costs_time_and_nothing_else() {
    let stage = Stage::new().await;
    let mut chain = Chain::new(&stage, stage.enroll("RD-1").await);
    assert_eq!(record(&chain.host.read(false).await.unwrap().data), citizen());
    for (end, after, fault) in [
        (LineEnd::B, 0, LineFault::DropFrame), // the command
        (LineEnd::A, 2, LineFault::FlipBit { byte: 30, bit: 3 }), // M2
        (LineEnd::B, 2, LineFault::CutAfter(40)), // M3
        (LineEnd::A, 5, LineFault::FlipBit { byte: 700, bit: 0 }), // a packet
        (LineEnd::A, 6, LineFault::DropFrame),
        (LineEnd::B, 4, LineFault::Noise(b"\x01\x02login:".to_vec())),
        (LineEnd::A, 9, LineFault::DropFrame), // what ends the read, or the result
    ] {
        chain.faults.inject(end, after, fault.clone());
        let result = chain.host.read(false).await;
        let result = result.unwrap_or_else(|error| panic!("{end:?} {after} {fault:?}: {error}"));
        assert_eq!(record(&result.data), citizen(), "{end:?} {after} {fault:?}");
    }
    assert!(chain.faults.waiting() <= 1, "they struck: {}", chain.faults.waiting());
    let done = stage.reads().await;
    assert_eq!(done.len(), 8, "each command was carried out once: {done:?}");
    chain.end().await;
}

/// A twelfth of all frames dropped, damaged, doubled and swapped each: every command is carried out
/// once and gives the record.
#[tokio::test(flavor = "multi_thread")]
async fn reads_get_through_a_line_that_loses_frames() {
    let stage = Stage::new().await;
    let line = lossy_line(Rates::all(8), 8).unwrap();
    let mut chain = Chain::between(&stage, stage.enroll("RD-1").await, line.paths());
    for _ in 0..4 {
        assert_eq!(record(&chain.host.read(false).await.unwrap().data), citizen());
    }
    let (forth, back) = (line.tally(Direction::Forth), line.tally(Direction::Back));
    assert!(forth.dropped + back.dropped > 0 && forth.damaged + back.damaged > 0);
    let done = stage.reads().await;
    assert_eq!(done, vec![("done".to_owned(), None); 4], "each command was carried out once");
    chain.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_reads_is_busy_and_refusals_reach_the_host() {
    let stage = Stage::new().await;
    let enrolled = stage.enroll("RD-1").await;
    let id = enrolled.id.clone();
    let mut chain = Chain::new(&stage, enrolled);
    chain.field.remove(); // the read waits for a card
    let pressed = chain.keys.clone();
    let (result, ()) = tokio::join!(chain.host.read(false), async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        pressed.send(Key::Read { fingerprint: false }).await.unwrap();
    });
    let error = result.err().expect("no card");
    assert!(matches!(&error, HostError::Reader(failure) if failure.check == "no-card"), "{error}");
    chain.wait_until_seen(|seen| *seen == Seen::Busy).await;
    chain.wait_until_seen(|seen| *seen == Seen::NotServed("no-card".into())).await;

    chain.keys.send(Key::Read { fingerprint: false }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let error = chain.host.read(false).await.err().expect("busy");
    assert_eq!(error.check(), "busy");
    chain.wait_until_seen(|seen| *seen == Seen::Failed("no-card".into())).await;

    chain.field.insert(Arc::new(super::stage::card(DocumentType::Citizen)));
    stage
        .server
        .service()
        .block_device(DeviceKind::Reader, &Actor::Console, &id, "stolen")
        .await
        .unwrap();
    let error = chain.host.read(false).await.err().expect("blocked");
    assert_eq!(error.check(), "reader-blocked");
    assert!(error.incident().is_some() && !error.is_environment());
    chain.end().await;
}
