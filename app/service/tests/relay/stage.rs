//! Servers on one database, a clock that is told the time, sleeves and managers that are enrolled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use countersign_channel::DirectoryEntry;
use countersign_crypto::{UnixTime, aws_lc};
use countersign_injection::Bounded;
use countersign_net::Clock;
use countersign_pki::CertificateNumber;
use countersign_service::{
    Ambient, Authority, KnownDevice, Policy, RelaySession, SamPool, Service,
};
use countersign_store::{
    CertificateIntent, Device, DeviceKind, DeviceStatus, IdKind, Store, new_id,
};
use countersign_wallet::relay::{
    CloseReason, DeviceMessage, MeetingId, Piece, RelayMessage, Serial,
};
use testkit::pki::uncertified_encryption;
use testkit::rng::seeded;

pub(crate) const START: UnixTime = UnixTime::from_secs(1_800_000_000);
pub(crate) const ONE: &str = "one.example:8444";
pub(crate) const TWO: &str = "two.example:8444";

struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> UnixTime {
        UnixTime::from_millis(self.0.load(Ordering::SeqCst))
    }
}

pub(crate) struct Stage {
    store: Store,
    clock: Arc<TestClock>,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let clock = Arc::new(TestClock(AtomicU64::new(START.as_millis())));
        Self { store: Store::in_memory().await.unwrap(), clock }
    }

    /// A server on the database; told to others under `address`.
    pub(crate) fn server(&self, address: Option<&str>) -> Arc<Service> {
        let service = server(self.store.clone(), self.clock.clone());
        if let Some(address) = address {
            assert!(service.relay().advertise(address));
        }
        service
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.clock.0.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    pub(crate) async fn manager(&self) -> KnownDevice {
        self.enrolled(DeviceKind::Manager, "MGR-1").await
    }

    pub(crate) async fn sleeve(&self) -> KnownDevice {
        self.enrolled(DeviceKind::Sleeve, "SLV-1").await
    }

    /// A device with a live certificate.
    pub(crate) async fn enrolled(&self, kind: DeviceKind, serial: &str) -> KnownDevice {
        static SEED: AtomicU64 = AtomicU64::new(1000);
        let mut rng = seeded(SEED.fetch_add(1, Ordering::SeqCst));
        let of = if kind == DeviceKind::Sleeve { IdKind::Sleeve } else { IdKind::Manager };
        let device = Device {
            id: new_id(of, START, &mut rng),
            kind,
            serial: serial.to_owned(),
            status: DeviceStatus::Enrolled,
            block_reason: None,
            created_at: START,
            updated_at: START,
        };
        let certificate_number = CertificateNumber::random(&mut rng);
        let mut public_key = [0; 32];
        rand_core::Rng::fill_bytes(&mut rng, &mut public_key);
        let intent = CertificateIntent {
            number: certificate_number.to_string(),
            device_id: device.id.clone(),
            public_key,
            not_after: START.plus(Duration::from_secs(86_400)),
            at: START,
        };
        let entry = DirectoryEntry { serial: serial.to_owned(), certificate_number };
        let known = KnownDevice { id: device.id.clone(), kind, entry };
        let insert = move |tx: &mut countersign_store::Tx<'_>| {
            tx.insert_device(&device)?;
            tx.intend_certificate(&intent)?;
            tx.record_issued_certificate(&intent.number, b"der", START)
        };
        self.store.run_tx("enrolled", insert).await.unwrap();
        known
    }
}

fn server(store: Store, clock: Arc<TestClock>) -> Arc<Service> {
    static SEED: AtomicU64 = AtomicU64::new(1);
    let rng = || seeded(SEED.fetch_add(1, Ordering::SeqCst));
    let ambient = Ambient { clock, rng: Arc::new(move || Box::new(rng())) };
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
    Arc::new(Service::new(store, authority, sams, Policy::default(), ambient))
}

/// A device's connection with a server.
pub(crate) struct Contact(pub(crate) RelaySession);

impl Contact {
    pub(crate) fn new(service: &Arc<Service>, device: &KnownDevice) -> Self {
        Self(RelaySession::new(service.clone(), device.clone()).unwrap())
    }

    /// A manager that can be met.
    pub(crate) async fn registered(service: &Arc<Service>, device: &KnownDevice) -> Self {
        let mut contact = Self::new(service, device);
        let told = contact.says(&DeviceMessage::Register).await;
        assert!(matches!(told[..], [RelayMessage::Registered(_)]), "{told:?}");
        contact
    }

    pub(crate) async fn says(&mut self, message: &DeviceMessage) -> Vec<RelayMessage> {
        self.0.handle(&message.encode()).await.unwrap();
        self.told()
    }

    pub(crate) fn told(&mut self) -> Vec<RelayMessage> {
        std::iter::from_fn(|| self.0.poll_transmit())
            .map(|message| RelayMessage::decode(&message).unwrap())
            .collect()
    }

    pub(crate) async fn meets(&mut self, manager: &str) -> RelayMessage {
        let mut told = self.says(&DeviceMessage::Meet(Serial::new(manager).unwrap())).await;
        assert_eq!(told.len(), 1, "{told:?}");
        told.remove(0)
    }

    pub(crate) async fn met(&mut self, manager: &str) -> MeetingId {
        match self.meets(manager).await {
            RelayMessage::Met(met) if met.peer.as_str() == manager => met.meeting,
            other => panic!("{other:?}"),
        }
    }

    /// The names of the refusals and reasons among what it is told.
    pub(crate) fn checks(&mut self) -> Vec<String> {
        let named = |message: RelayMessage| match message {
            RelayMessage::Refused(refusal) => Some(refusal.check.as_str().to_owned()),
            RelayMessage::Close(closed) => Some(closed.reason.name().to_owned()),
            _ => None,
        };
        self.told().into_iter().filter_map(named).collect()
    }
}

pub(crate) fn data(meeting: MeetingId, bytes: &[u8]) -> DeviceMessage {
    DeviceMessage::Data(Piece { meeting, bytes: Bounded::new(bytes).unwrap() })
}

pub(crate) fn closed(meeting: MeetingId, reason: CloseReason) -> RelayMessage {
    RelayMessage::Close(countersign_wallet::relay::message::Closed { meeting, reason })
}
