//! A service with a vault, two operators, and terminals that enrol.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_crypto::{Secret, SecureElement, UnixTime, aws_lc};
use countersign_hsm::{FileVault, MemoryStorage, VaultStorage};
use countersign_net::Clock;
use countersign_pki::{
    CertificateNumber, Identity, Issuer, Role as PkiRole, Validity, request, self_signed,
};
use countersign_service::{
    Actor, Ambient, Authority, EnrolledTerminal, Gated, Policy, SamPool, Service, ServiceError,
    TerminalRequest,
};
use countersign_store::{AuditOutcome, AuditRow, MAX_PAGE, Role, Store, StoreError, Tx, Vote};
use testkit::pki::uncertified_encryption;
use testkit::rng::seeded;
use tr34::RsaKey;
use tr34::aws_lc::{AwsLc, SoftwareRsaKey};

pub(crate) const START: UnixTime = UnixTime::from_secs(1_800_000_000);
pub(crate) const BITS: u32 = 2048;
pub(crate) const PEER: &str = "192.0.2.7";
const YEARS: Duration = Duration::from_secs(15 * 366 * 86_400);

/// A clock that counts how often it is asked, and may have something happen then.
#[derive(Default)]
pub(crate) struct TestClock {
    millis: AtomicU64,
    asked: AtomicU64,
    meanwhile: Mutex<Option<(u64, Work)>>,
}

type Work = Box<dyn FnOnce() + Send>;

impl Clock for TestClock {
    fn now(&self) -> UnixTime {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let due = self.meanwhile.lock().unwrap().take_if(|(at, _)| *at == asked);
        due.into_iter().for_each(|(_, work)| work());
        UnixTime::from_millis(self.millis.load(Ordering::SeqCst))
    }
}

/// One server; several may share a store and a vault's storage.
pub(crate) struct Desk {
    pub(crate) service: Arc<Service>,
    pub(crate) asker: Actor,
    voter: Actor,
    clock: Arc<TestClock>,
}

fn authority() -> Authority {
    let provider = aws_lc::provider();
    let mut rng = seeded(1);
    let validity = Validity::from(START, YEARS);
    let mut key = || provider.signature.generate(&mut rng).unwrap().key;
    let (root_key, issuer_key, server_key): (Arc<dyn SecureElement>, _, _) = (key(), key(), key());
    let number = CertificateNumber::random(&mut rng);
    let root = self_signed(&provider, "Root", root_key.public_key(), number, validity)
        .and_then(|prepared| prepared.sign(&*root_key, &mut rng))
        .unwrap();
    let number = CertificateNumber::random(&mut rng);
    let issuer = Issuer::from_certificate(&provider, &root).unwrap();
    let device_issuer = issuer
        .prepare_intermediate("Devices", issuer_key.public_key(), number, validity)
        .and_then(|prepared| prepared.sign(&*root_key, &mut rng))
        .unwrap();
    Authority {
        server_encryption: uncertified_encryption(&provider),
        provider,
        root,
        device_issuer,
        device_issuer_key: issuer_key,
        server_issuer: Vec::new(),
        server: Vec::new(),
        server_key: server_key.clone(),
        server_id: "srv-test".to_owned(),
        audit_key: server_key,
    }
}

impl Desk {
    /// With an empty store and vault, and no hierarchy.
    pub(crate) async fn bare() -> Self {
        Self::over(Store::in_memory().await.unwrap(), Arc::new(MemoryStorage::new()), 0).await
    }

    /// With a hierarchy.
    pub(crate) async fn new() -> Self {
        let desk = Self::bare().await;
        desk.service.init_rki(&Actor::Console, BITS).await.unwrap();
        desk
    }

    /// A server on this store and vault; `number` tells servers apart.
    pub(crate) async fn over(store: Store, keys: Arc<dyn VaultStorage>, number: u64) -> Self {
        let seed = AtomicU64::new(number * 1_000_000 + 1);
        let clock = Arc::new(TestClock::default());
        clock.millis.store(START.as_millis(), Ordering::SeqCst);
        let rng = move || seeded(seed.fetch_add(1, Ordering::SeqCst));
        let ambient = Ambient { clock: clock.clone(), rng: Arc::new(move || Box::new(rng())) };
        let sams = SamPool::start(Vec::new(), Default::default(), &ambient);
        let vault = Arc::new(FileVault::new(keys, seeded(number + 77)));
        let service = Service::new(store, authority(), sams, Policy::default(), ambient)
            .with_vault(vault, Arc::new(AwsLc));
        let mut operators = Vec::new();
        for name in ["asker", "voter"] {
            let name = format!("{name}-{number}");
            let made = service.add_operator(&Actor::Console, &name, &[Role::Admin]).await.unwrap();
            operators.push(Actor::Operator(made.0));
        }
        let [asker, voter] = operators.try_into().ok().unwrap();
        Self { service: Arc::new(service), asker, voter, clock }
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.clock.millis.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// How often the service has asked for the time.
    pub(crate) fn asked(&self) -> u64 {
        self.clock.asked.load(Ordering::SeqCst)
    }

    /// Changes the database when the service asks for the time for the n-th time from now on, as an
    /// operator at another server does.
    pub(crate) fn meanwhile(
        &self,
        nth: u64,
        change: impl Fn(&mut Tx<'_>) -> Result<(), StoreError> + Send + 'static,
    ) {
        let store = self.service.store().clone();
        let work = move || {
            let elsewhere = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(store.run_tx("meanwhile", change)).unwrap();
            });
            elsewhere.join().unwrap();
        };
        *self.clock.meanwhile.lock().unwrap() = Some((self.asked() + nth, Box::new(work)));
    }

    /// The id of an approval that was asked for, once the other operator has agreed.
    pub(crate) async fn agreed<T>(&self, asked: Result<Gated<T>, ServiceError>) -> String {
        let Ok(Gated::Pending(approval)) = asked else { panic!("it must need approval") };
        self.service.vote(&self.voter, &approval.id, Vote::Approve).await.unwrap();
        approval.id
    }

    /// A code for a new terminal.
    pub(crate) async fn code(&self, serial: &str) -> String {
        let allowed = self.service.allow_terminal(&self.asker, serial, "M2", "Shop").await;
        allowed.unwrap().code.expose().to_owned()
    }

    /// A terminal that is allowed and has enrolled; its id and RSA certificate.
    pub(crate) async fn enrolled(&self, serial: &str) -> (String, Vec<u8>) {
        let code = self.code(serial).await;
        let done = self.enrol(&Pos::new(serial, 1), &code).await.unwrap();
        (done.record.device.device.id, done.krd)
    }

    pub(crate) async fn enrol(
        &self,
        pos: &Pos,
        code: &str,
    ) -> Result<EnrolledTerminal, ServiceError> {
        self.service.enrol_terminal(PEER, pos.request(code)).await
    }

    /// What was refused so far: action, check and reason.
    pub(crate) async fn refusals(&self) -> Vec<(String, String, String)> {
        let mut rows: Vec<AuditRow> = self.service.audit_page(None, MAX_PAGE).await.unwrap().items;
        rows.retain(|row| row.entry.outcome == AuditOutcome::Refused);
        rows.reverse();
        let told = |row: AuditRow| {
            let check = row.entry.check.unwrap_or_default();
            (row.entry.action, check, row.entry.detail)
        };
        rows.into_iter().map(told).collect()
    }

    /// The actions that were done, oldest first.
    pub(crate) async fn done(&self) -> Vec<String> {
        let mut rows = self.service.audit_page(None, MAX_PAGE).await.unwrap().items;
        rows.retain(|row| row.entry.outcome == AuditOutcome::Done);
        rows.reverse();
        rows.into_iter().map(|row| row.entry.action).collect()
    }
}

/// A terminal's two keys.
pub(crate) struct Pos {
    serial: String,
    channel: Arc<dyn SecureElement>,
    pub(crate) rsa: SoftwareRsaKey,
}

impl Pos {
    pub(crate) fn new(serial: &str, seed: u64) -> Self {
        let channel = aws_lc::provider().signature.generate(&mut seeded(seed)).unwrap().key;
        let rsa = SoftwareRsaKey::generate(BITS).unwrap();
        Self { serial: serial.to_owned(), channel, rsa }
    }

    pub(crate) fn request(&self, code: &str) -> TerminalRequest {
        let identity = Identity::new(PkiRole::Terminal, &self.serial).unwrap();
        let channel =
            request(&aws_lc::provider(), &identity, &*self.channel, &mut seeded(2)).unwrap();
        let party = tr34::Party::new(tr34::Role::Krd, &self.serial).unwrap();
        TerminalRequest {
            serial: self.serial.clone(),
            code: Secret::copied_from(code.as_bytes()),
            channel,
            krd: tr34::request(&self.rsa as &dyn RsaKey, &party).unwrap(),
        }
    }
}

/// The check that refused.
pub(crate) fn check<T>(result: Result<T, ServiceError>) -> &'static str {
    result.err().expect("it must be refused").check()
}
