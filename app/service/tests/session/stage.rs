//! A service over a store in memory and modules behind in-memory ports, and a reader on it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_channel::DirectoryEntry;
use countersign_crypto::{Provider, UnixTime, aws_lc};
use countersign_emulator::{
    CardHandle, CardImage, EmulatedCard, EmulatedSam, Faults, Reply, Scheme, sample,
};
use countersign_idcard::cache::{CacheMode, ReaderCache};
use countersign_idcard::card::read_configuration;
use countersign_idcard::message::ReaderMessage;
use countersign_idcard::reader::{ReadFailure, ReadOptions, ReadStart, ReaderEvent, ReaderFlow};
use countersign_idcard::record::DocumentType;
use countersign_idcard::{Delivery, PlainData, TEXT_LEN};
use countersign_net::{Clock, SystemClock};
use countersign_pki::{CertificateNumber, Role};
use countersign_service::{
    Ambient, Authority, KnownDevice, Policy, ReadEnded, ReadSession, SamConnector, SamLease,
    SamPool, SamPort, Service,
};
use countersign_store::{CertificateIntent, Device, DeviceKind, DeviceStatus, Read as Row, Store};
use testkit::pki::{TestPki, uncertified_encryption};
use testkit::rng::seeded;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use zeroize::Zeroizing;

const READER: &str = "rdr_1";

/// The system's clock, and what the test adds to it.
#[derive(Default)]
struct Shifted {
    real: SystemClock,
    millis: AtomicU64,
}

impl Clock for Shifted {
    fn now(&self) -> UnixTime {
        let shift = Duration::from_millis(self.millis.load(Ordering::SeqCst));
        self.real.now().plus(shift)
    }
}

struct Plug {
    serial: u32,
    faults: Faults,
    barred: AtomicBool,
    opened: AtomicBool,
    commands: Arc<AtomicU64>,
}

impl SamConnector for Plug {
    fn name(&self) -> &str {
        "plug"
    }

    fn open(&self) -> io::Result<Box<dyn SamPort>> {
        let again = self.opened.swap(true, Ordering::SeqCst);
        if again && self.barred.load(Ordering::SeqCst) {
            return Err(io::Error::other("barred"));
        }
        let (host, mut module) = duplex(8192);
        let mut sam = EmulatedSam::new(scheme(), self.serial, self.faults.clone());
        let commands = self.commands.clone();
        tokio::spawn(async move {
            let (mut rng, mut bytes) = (seeded(7), [0; 4096]);
            while let Ok(count @ 1..) = module.read(&mut bytes).await {
                commands.fetch_add(1, Ordering::SeqCst);
                for reply in sam.handle(&mut rng, &bytes[..count]) {
                    let Reply::Bytes(frame) = reply else { return };
                    if module.write_all(&frame).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Box::new(host))
    }
}

fn provider() -> Provider {
    aws_lc::provider()
}

fn scheme() -> Scheme {
    Scheme::with_demo_key(provider())
}

fn card(document: DocumentType, serial: u64) -> Arc<CardImage> {
    let image =
        CardImage::new(&scheme(), &mut seeded(serial), serial, &sample(document), None, None);
    Arc::new(image.unwrap())
}

pub(crate) struct Stage {
    service: Arc<Service>,
    known: KnownDevice,
    clock: Arc<Shifted>,
    plugs: Vec<Arc<Plug>>,
    link: Arc<Mutex<EmulatedCard>>,
    field: CardHandle,
    document: Mutex<DocumentType>,
}

impl Stage {
    /// With `count` modules, all ready.
    pub(crate) async fn new(count: u32) -> Self {
        let plug = |serial| {
            Arc::new(Plug {
                serial,
                faults: Faults::none(),
                barred: AtomicBool::new(false),
                opened: AtomicBool::new(false),
                commands: Arc::default(),
            })
        };
        let plugs: Vec<_> = (1..=count).map(plug).collect();
        let clock = Arc::new(Shifted::default());
        let rng = Arc::new(|| Box::new(seeded(rand_seed())) as _);
        let ambient = Ambient { clock: clock.clone(), rng };
        let connectors = plugs.iter().map(|plug| plug.clone() as _).collect();
        let sams = SamPool::start(connectors, Default::default(), &ambient);
        let store = Store::in_memory().await.unwrap();
        let known = enrolled(&store, clock.now()).await;
        let service = Service::new(store, authority(), sams, Policy::default(), ambient);
        let (link, field) = EmulatedCard::new(scheme(), Box::new(seeded(2)));
        field.insert(card(DocumentType::Citizen, 1));
        let stage = Self {
            service: Arc::new(service),
            known,
            clock,
            plugs,
            link: Arc::new(Mutex::new(link)),
            field,
            document: Mutex::new(DocumentType::Citizen),
        };
        for _ in 0..1000 {
            if stage.service.sams().health().iter().all(|health| health.ready) {
                return stage;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("{:?}", stage.service.sams().health());
    }

    pub(crate) async fn lease(&self) -> SamLease {
        self.service.sams().lease(READER).await.unwrap()
    }

    /// The ids of the module that the next read will get, and of another one, if there is one.
    pub(crate) async fn next_and_other(&self) -> (String, String) {
        // Each lease sends its module to the end of the queue.
        let mut ids = Vec::new();
        for _ in &self.plugs {
            ids.push(self.lease().await.sam_id().unwrap());
        }
        (ids[0].clone(), ids[ids.len() - 1].clone())
    }

    fn plug(&self, sam_id: &str) -> &Plug {
        let is = |plug: &&Arc<Plug>| sam_id.ends_with(&format!("{:010}", plug.serial));
        self.plugs.iter().find(is).unwrap()
    }

    pub(crate) fn faults(&self, sam_id: &str) -> &Faults {
        &self.plug(sam_id).faults
    }

    /// The module cannot be opened again.
    pub(crate) fn bar(&self, sam_id: &str) {
        self.plug(sam_id).barred.store(true, Ordering::SeqCst);
    }

    /// Commands that reached any module.
    pub(crate) fn uses(&self) -> u64 {
        self.plugs.iter().map(|plug| plug.commands.load(Ordering::SeqCst)).sum()
    }

    pub(crate) fn insert_another_card(&self) {
        self.field.insert(card(DocumentType::Foreigner2017, 2));
        *self.document.lock().unwrap() = DocumentType::Foreigner2017;
    }

    /// The text of the card in the field.
    pub(crate) fn text(&self) -> [u8; TEXT_LEN] {
        *sample(*self.document.lock().unwrap()).encode().unwrap()
    }

    pub(crate) fn now(&self) -> UnixTime {
        self.clock.now()
    }

    /// Lets time pass.
    pub(crate) fn pass(&self, time: Duration) {
        self.clock.millis.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    pub(crate) async fn reads(&self) -> Vec<Row> {
        self.service.reads(None, None, 100).await.unwrap().items
    }

    /// What the newest audit row says.
    pub(crate) async fn last_audit(&self) -> String {
        let page = self.service.audit_page(None, 1).await.unwrap();
        page.items[0].entry.detail.clone()
    }

    pub(crate) async fn only_read(&self) -> Row {
        let mut reads = self.reads().await;
        assert_eq!(reads.len(), 1);
        reads.remove(0)
    }

    pub(crate) fn session(&self, delivery: Delivery) -> Session<'_> {
        Session {
            session: ReadSession::new(self.service.clone(), self.known.clone(), delivery),
            stage: self,
            delivery,
            cache: ReaderCache::new(CacheMode::MultiCard, provider()),
            lose: None,
            lost: false,
        }
    }
}

/// A different seed for each generator, so that ids differ.
fn rand_seed() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::SeqCst)
}

fn authority() -> Authority {
    let mut pki = TestPki::new(provider(), 1);
    let server = pki.party(Role::Server, "srv-test");
    // A read touches none of the certificates.
    Authority {
        provider: provider(),
        root: Vec::new(),
        device_issuer: Vec::new(),
        device_issuer_key: server.key.clone(),
        server_issuer: Vec::new(),
        server: server.certificate,
        server_key: server.key.clone(),
        server_encryption: uncertified_encryption(&provider()),
        server_id: server.id,
        audit_key: server.key,
    }
}

async fn enrolled(store: &Store, now: UnixTime) -> KnownDevice {
    let device = Device {
        id: READER.to_owned(),
        kind: DeviceKind::Reader,
        serial: "RD-1".to_owned(),
        status: DeviceStatus::Enrolled,
        block_reason: None,
        created_at: now,
        updated_at: now,
    };
    let certificate_number = CertificateNumber::random(&mut seeded(3));
    let intent = CertificateIntent {
        number: certificate_number.to_string(),
        device_id: device.id.clone(),
        public_key: [0; 32],
        not_after: now.plus(Duration::from_secs(86_400)),
        at: now,
    };
    store
        .run_tx("test", move |tx| {
            tx.insert_device(&device)?;
            tx.intend_certificate(&intent)?;
            tx.record_issued_certificate(&intent.number, &[1], now)
        })
        .await
        .unwrap();
    let entry = DirectoryEntry { serial: "RD-1".to_owned(), certificate_number };
    KnownDevice { id: READER.to_owned(), kind: DeviceKind::Reader, entry }
}

/// One connection of a reader.
pub(crate) struct Session<'a> {
    pub(crate) session: ReadSession,
    stage: &'a Stage,
    delivery: Delivery,
    cache: ReaderCache,
    /// A packet of this index does not arrive, once.
    lose: Option<u8>,
    lost: bool,
}

/// What became of a read.
pub(crate) struct Read {
    pub(crate) result: Result<PlainData, ReadFailure>,
    pub(crate) ended: Option<ReadEnded>,
    /// What the reader said.
    pub(crate) said: Vec<Zeroizing<Vec<u8>>>,
    /// What the server said.
    pub(crate) answers: Vec<Zeroizing<Vec<u8>>>,
}

impl Session<'_> {
    pub(crate) fn lose_packet(&mut self, index: u8) {
        self.lose = Some(index);
    }

    /// One read, from the reader's cache or from the card, as `cached` says.
    pub(crate) async fn read(&mut self, cached: bool) -> Read {
        self.drive(cached, true).await
    }

    /// The same, but the reader does not say that it has the result.
    pub(crate) async fn read_to_the_result(&mut self) -> Read {
        self.drive(false, false).await
    }

    fn begin(&mut self, cached: bool) -> ReaderFlow {
        let configuration = read_configuration(&mut *self.stage.link.lock().unwrap()).unwrap();
        let options = ReadOptions { delivery: self.delivery, ..ReadOptions::default() };
        let mut id = [0; 16];
        id[..8].copy_from_slice(&rand_seed().to_be_bytes());
        let now = self.stage.now();
        match ReaderFlow::begin(now, &mut self.cache, &configuration, id, options) {
            ReadStart::Started(flow) => {
                let from_cache = flow.source() == countersign_idcard::message::Source::Cache;
                assert_eq!(from_cache, cached);
                flow
            }
            ReadStart::Answered(_) => panic!("the policy allows no plaintext cache"),
        }
    }

    async fn drive(&mut self, cached: bool, receive: bool) -> Read {
        let mut flow = self.begin(cached);
        let (mut result, mut ended) = (None, None);
        let (mut said, mut answers) = (Vec::new(), Vec::new());
        for _turn in 0..1000 {
            let mut heard = Vec::new();
            while let Some(message) = flow.poll_transmit() {
                if !receive && ReaderMessage::decode(&message) == Ok(ReaderMessage::Received) {
                    continue;
                }
                said.push(message.clone());
                if self.is_lost(&message) {
                    continue;
                }
                let (answer, handled) = self.session.handle(&message).await;
                handled.unwrap();
                ended = ended.or(answer.ended);
                heard.extend(answer.messages);
            }
            let now = self.stage.now();
            for message in heard {
                let _over = flow.handle(now, &mut seeded(4), &mut self.cache, &message);
                answers.push(message);
            }
            while let Some(event) = flow.poll_event() {
                match event {
                    ReaderEvent::Card(work) => {
                        let done = work.perform(&mut *self.stage.link.lock().unwrap());
                        flow.card_done(now, &mut self.cache, done).unwrap();
                    }
                    ReaderEvent::Plaintext(data) => result = Some(Ok(data)),
                    ReaderEvent::Failed(failure) => result = Some(Err(failure)),
                }
            }
            if let Some(result) = result.take_if(|_| flow.is_over()) {
                while let Some(message) = flow.poll_transmit() {
                    if receive {
                        let (_, handled) = self.session.handle(&message).await;
                        handled.unwrap();
                        said.push(message);
                    }
                }
                return Read { result, ended, said, answers };
            }
            self.wait(&mut flow, &mut answers).await;
        }
        panic!("a read without end");
    }

    /// If both sides wait for a message that was lost, time passes to the server's next timer.
    async fn wait(&mut self, flow: &mut ReaderFlow, answers: &mut Vec<Zeroizing<Vec<u8>>>) {
        let Some(due) = self.session.poll_timeout().filter(|_| self.lost) else { return };
        self.stage.pass(due.since(self.stage.now()));
        let answer = self.session.handle_timeout().await;
        for message in answer.messages {
            let now = self.stage.now();
            let _over = flow.handle(now, &mut seeded(4), &mut self.cache, &message);
            answers.push(message);
        }
    }

    fn is_lost(&mut self, message: &[u8]) -> bool {
        let Ok(ReaderMessage::Packet(packet)) = ReaderMessage::decode(message) else {
            return false;
        };
        let lost = self.lose.take_if(|index| *index == packet.index).is_some();
        self.lost |= lost;
        lost
    }
}
