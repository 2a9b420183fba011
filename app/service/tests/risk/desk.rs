//! A service over a store in memory, with a clock that is a number, and readers without hardware.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use countersign_channel::ReaderId;
use countersign_crypto::{UnixTime, aws_lc};
use countersign_idcard::message::{AbortReason, ReadBegin, ReaderMessage, ServerMessage, Source};
use countersign_idcard::{Configuration, Delivery};
use countersign_net::Clock;
use countersign_pki::{CertificateNumber, Identity, Role};
use countersign_service::{
    Actor, Ambient, Authority, KnownDevice, Policy, ReadSession, RiskRules, Rule, RuleAction,
    SamPool, Service, Told,
};
use countersign_store::{
    CertificateIntent, Device, DeviceKind, DeviceStatus, IdKind, RiskDecision, RiskKind, Store,
    StoreError, new_id,
};
use testkit::pki::uncertified_encryption;
use testkit::rng::seeded;

/// When every test begins.
pub(crate) const START: UnixTime = UnixTime::from_secs(1_800_000_000);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);
/// How long a test's certificates hold.
const YEARS: Duration = Duration::from_secs(20 * 366 * 86_400);

struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> UnixTime {
        UnixTime::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// A rule that blocks for good when three errors come within ten minutes.
pub(crate) fn rule() -> Rule {
    Rule {
        name: "test".to_owned(),
        count: RiskKind::Errors,
        check: None,
        at_least: 3,
        within: 10 * MINUTE,
        action: RuleAction::Block,
        lasts: None,
    }
}

/// A refusal as the reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) check: String,
    pub(crate) retry: bool,
}

pub(crate) fn refused(check: &str, retry: bool) -> Result<(), Refusal> {
    Err(Refusal { check: check.to_owned(), retry })
}

pub(crate) struct Desk {
    pub(crate) service: Arc<Service>,
    clock: Arc<TestClock>,
}

impl Desk {
    pub(crate) async fn new(rules: Vec<Rule>) -> Self {
        let rules = RiskRules::new(rules).unwrap();
        Self::with(Policy { risk: rules, ..Policy::default() }).await
    }

    pub(crate) async fn with(policy: Policy) -> Self {
        Self::on(Store::in_memory().await.unwrap(), policy).await
    }

    /// A server on this store.
    pub(crate) async fn on(store: Store, policy: Policy) -> Self {
        static SEED: AtomicU64 = AtomicU64::new(1);
        let clock = Arc::new(TestClock(AtomicU64::new(START.as_millis())));
        let rng = || seeded(SEED.fetch_add(1, Ordering::SeqCst));
        let ambient = Ambient { clock: clock.clone(), rng: Arc::new(move || Box::new(rng())) };
        let sams = SamPool::start(Vec::new(), Default::default(), &ambient);
        let provider = aws_lc::provider();
        let key = provider.signature.generate(&mut seeded(1)).unwrap().key;
        // Nothing here issues or proves: the certificates are never looked at.
        let authority = Authority {
            server_encryption: uncertified_encryption(&provider),
            provider,
            root: Vec::new(),
            device_issuer: Vec::new(),
            device_issuer_key: key.clone(),
            server_issuer: Vec::new(),
            server: Vec::new(),
            server_key: key.clone(),
            server_id: "srv-test".to_owned(),
            audit_key: key,
        };
        let service = Arc::new(Service::new(store, authority, sams, policy, ambient));
        Self { service, clock }
    }

    pub(crate) fn now(&self) -> UnixTime {
        self.clock.now()
    }

    pub(crate) fn set(&self, time: UnixTime) {
        self.clock.0.store(time.as_millis(), Ordering::SeqCst);
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.set(self.now().plus(by));
    }

    /// Has a reader in the directory, past the enrolment, and looks it up as a handshake does.
    pub(crate) async fn reader(&self, serial: &str) -> KnownDevice {
        Identity::new(Role::Reader, serial).unwrap();
        let mut rng = self.service.rng();
        let (id, number) =
            (new_id(IdKind::Reader, START, &mut *rng), CertificateNumber::random(&mut *rng));
        let device = Device {
            id: id.clone(),
            kind: DeviceKind::Reader,
            serial: serial.to_owned(),
            status: DeviceStatus::Enrolled,
            block_reason: None,
            created_at: START,
            updated_at: START,
        };
        let intent = CertificateIntent {
            number: number.to_string(),
            device_id: id,
            public_key: [7; 32],
            not_after: START.plus(YEARS),
            at: START,
        };
        let enrol = self.service.store().run_tx("test_enrol", move |tx| {
            tx.insert_device(&device)?;
            tx.intend_certificate(&intent)?;
            tx.record_issued_certificate(&intent.number, b"der", START)
        });
        enrol.await.map_err(|error: StoreError| error.to_string()).unwrap();
        self.look_up(serial).await.unwrap()
    }

    pub(crate) async fn look_up(&self, serial: &str) -> Option<KnownDevice> {
        let id = ReaderId::Serial(serial.to_owned());
        self.service.look_up(&id).await.ok()
    }

    /// A connection of the reader from this address.
    pub(crate) fn connect(&self, reader: &KnownDevice, peer: &str) -> Connection {
        let session = ReadSession::new(self.service.clone(), reader.clone(), Delivery::Stream);
        Connection { session: session.from_peer(peer.parse::<IpAddr>().unwrap()) }
    }

    /// One connection with one read that the reader gives up.
    pub(crate) async fn err(
        &self,
        reader: &KnownDevice,
        read: u8,
        reason: AbortReason,
    ) -> Result<(), Refusal> {
        let mut connection = self.connect(reader, "192.0.2.1");
        connection.begin(read).await?;
        connection.say(ReaderMessage::Abort(reason)).await;
        Ok(())
    }

    pub(crate) async fn decisions(&self, reader: &KnownDevice) -> Vec<RiskDecision> {
        self.service.decisions(&reader.id, None, 200).await.unwrap().items
    }

    pub(crate) async fn reverse(&self, decision: &RiskDecision) {
        let (reader, id) = (&decision.device_id, &decision.id);
        let reversed = self.service.reverse_decision(&Actor::Console, reader, id, "looked at it");
        assert!(!reversed.await.unwrap().stands(self.now()));
    }

    pub(crate) async fn audited(&self, action: &str) -> usize {
        let rows = self.service.audit_page(None, 200).await.unwrap().items;
        rows.iter().filter(|row| row.entry.action == action).count()
    }
}

/// One of a reader's connections.
pub(crate) struct Connection {
    session: ReadSession,
}

impl Connection {
    /// Begins a read of this number. The data are said to be in the reader's cache, so that no
    /// SAM is asked before they come.
    pub(crate) async fn begin(&mut self, read: u8) -> Result<(), Refusal> {
        let begin = ReadBegin {
            read_id: [read; 16],
            configuration: Configuration::new([1; 32]),
            source: Source::Cache,
        };
        match self.say(ReaderMessage::ReadBegin(begin)).await.as_slice() {
            [ServerMessage::SendPackets] => Ok(()),
            [ServerMessage::Refused(refused)] => {
                Err(Refusal { check: refused.check.as_str().to_owned(), retry: refused.retry() })
            }
            other => panic!("neither begun nor refused: {other:?}"),
        }
    }

    pub(crate) async fn say(&mut self, message: ReaderMessage) -> Vec<ServerMessage> {
        let (answer, _) = self.session.handle(&message.encode()).await;
        answer.messages.iter().map(|message| ServerMessage::decode(message).unwrap()).collect()
    }
}

/// Whether something was told for the first time.
pub(crate) fn is_new<T>(told: &Told<T>) -> bool {
    told.created
}
