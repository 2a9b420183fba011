//! A service with a vault, and operators who work with it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_crypto::{Secret, UnixTime, aws_lc};
use countersign_hsm::{
    Description, FileVault, HeldKey, HsmError, MemoryStorage, RsaUse, StorageError, Vault,
};
use countersign_net::Clock;
use countersign_service::{
    Actor, Ambient, Authority, Gated, KekRecord, KeyToMake, NewKek, NewKsn, Policy, SamPool,
    Service, ServiceError,
};
use countersign_store::{
    Approval, AuditRow, Device, DeviceKind, DeviceStatus, IdKind, KeyRecord, KeyScope, Role, Store,
    StoreError, Tx, Vote, new_id,
};
use data_encoding::HEXUPPER;
use testkit::pki::uncertified_encryption;
use testkit::rng::seeded;
use tr31::aws_lc::AwsLc;
use tr31::{BlockCipher, CmacKey};
use tr34::RsaKey;

/// When every test begins.
pub(crate) const START: UnixTime = UnixTime::from_secs(1_800_000_000);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// The time, and what happens when the service asks for random numbers next.
struct TestClock(AtomicU64, Mutex<Option<Work>>);

type Work = Box<dyn FnOnce() + Send>;

impl Clock for TestClock {
    fn now(&self) -> UnixTime {
        UnixTime::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// A vault that may say it is a token, and be away.
pub(crate) struct TestVault {
    inner: FileVault,
    token: bool,
    pub(crate) away: AtomicBool,
}

impl TestVault {
    fn there(&self) -> Result<(), HsmError> {
        if self.away.load(Ordering::SeqCst) {
            let away = std::io::Error::other("the vault is away");
            return Err(HsmError::Storage(StorageError::Io(away)));
        }
        Ok(())
    }
}

impl Vault for TestVault {
    fn describe(&self) -> Result<Description, HsmError> {
        let text = || "test".to_owned();
        Ok(if self.token {
            Description::Token {
                label: text(),
                manufacturer: text(),
                model: text(),
                serial: text(),
                firmware: text(),
                library: text(),
            }
        } else {
            Description::File
        })
    }

    fn labels(&self) -> Result<Vec<HeldKey>, HsmError> {
        self.inner.labels()
    }

    fn random(&self, len: usize) -> Result<Secret, HsmError> {
        self.there()?;
        self.inner.random(len)
    }

    fn rsa_generate(
        &self,
        label: &str,
        usage: RsaUse,
        bits: u32,
    ) -> Result<Arc<dyn RsaKey>, HsmError> {
        self.inner.rsa_generate(label, usage, bits)
    }

    fn rsa_open(&self, label: &str) -> Result<Arc<dyn RsaKey>, HsmError> {
        self.inner.rsa_open(label)
    }

    fn rsa_delete(&self, label: &str) -> Result<(), HsmError> {
        self.inner.rsa_delete(label)
    }

    fn storage_key(&self, label: &str) -> Result<Arc<dyn CmacKey>, HsmError> {
        self.inner.storage_key(label)
    }

    fn cmac_import(
        &self,
        label: &str,
        cipher: BlockCipher,
        key: Secret,
    ) -> Result<Arc<dyn CmacKey>, HsmError> {
        self.there()?;
        self.inner.cmac_import(label, cipher, key)
    }

    fn cmac_open(&self, label: &str) -> Result<Arc<dyn CmacKey>, HsmError> {
        self.inner.cmac_open(label)
    }

    fn cmac_delete(&self, label: &str) -> Result<(), HsmError> {
        self.there()?;
        self.inner.cmac_delete(label)
    }
}

/// One server, and the operators of the house.
pub(crate) struct Office {
    pub(crate) service: Arc<Service>,
    pub(crate) vault: Arc<TestVault>,
    clock: Arc<TestClock>,
    pub(crate) ann: Actor,
    pub(crate) bob: Actor,
    pub(crate) cyd: Actor,
}

impl Office {
    pub(crate) async fn new() -> Self {
        Self::with(Policy::default(), false).await
    }

    /// With a vault that says it is a token.
    pub(crate) async fn with_token() -> Self {
        Self::with(Policy::default(), true).await
    }

    pub(crate) async fn with(policy: Policy, token: bool) -> Self {
        let storage = Arc::new(MemoryStorage::new());
        let inner = FileVault::new(storage, seeded(99));
        let vault = Arc::new(TestVault { inner, token, away: AtomicBool::new(false) });
        let clock = Arc::new(TestClock(AtomicU64::new(START.as_millis()), Mutex::default()));
        let store = Store::in_memory().await.unwrap();
        let service = server(store, policy, &clock, &vault);
        let mut actors = Vec::new();
        for name in ["ann", "bob", "cyd"] {
            let added = service.add_operator(&Actor::Console, name, &[Role::Custodian]).await;
            actors.push(Actor::Operator(added.unwrap().0));
        }
        let [ann, bob, cyd] = actors.try_into().unwrap();
        Self { service, vault, clock, ann, bob, cyd }
    }

    /// Another server on the same database and vault.
    pub(crate) fn another(&self) -> Arc<Service> {
        let store = self.service.store().clone();
        server(store, Policy::default(), &self.clock, &self.vault)
    }

    /// Changes the database when the service next asks for random numbers, in the middle of its
    /// work, as an operator at another server does.
    pub(crate) fn meanwhile(
        &self,
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
        *self.clock.1.lock().unwrap() = Some(Box::new(work));
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.clock.0.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Bob agrees to what Ann has asked for.
    pub(crate) async fn agreed<T>(&self, gated: Result<Gated<T>, ServiceError>) -> String {
        let approval = pending(gated);
        self.service.vote(&self.bob, &approval.id, Vote::Approve).await.unwrap();
        approval.id
    }

    /// Ann makes a key, and Bob agrees.
    pub(crate) async fn key(&self, new: &KeyToMake) -> KeyRecord {
        let id = self.agreed(self.service.generate_key(&self.ann, new, None).await).await;
        done(self.service.generate_key(&self.ann, new, Some(&id)).await)
    }

    /// Ann begins a key-encrypting key, and Bob agrees.
    pub(crate) async fn kek(&self, new: &NewKek) -> KekRecord {
        let id = self.agreed(self.service.begin_kek(&self.ann, new, None).await).await;
        done(self.service.begin_kek(&self.ann, new, Some(&id)).await)
    }

    /// A key-encrypting key with this value, entered by Ann and Bob.
    pub(crate) async fn kek_of(&self, name: &str, algorithm: &str, value: &[u8]) -> KekRecord {
        let length = u32::try_from(value.len()).unwrap();
        let new = NewKek { components: 2, ..new_kek(name, algorithm, length) };
        let kek = self.kek(&new).await.kek;
        // Odd parity, for the sum of two odd ones is even and set odd again.
        let one: Vec<u8> =
            (0..value.len()).map(|at| odd((at as u8).wrapping_mul(37).wrapping_add(11))).collect();
        let other: Vec<u8> =
            one.iter().zip(value).map(|(one, value)| odd_if(algorithm, one ^ value)).collect();
        for (actor, number, part) in [(&self.ann, 1, &one), (&self.bob, 2, &other)] {
            let kcv = kcv(algorithm, part);
            let part = secret(part);
            self.service.enter_component(actor, &kek.id, number, &part, &kcv).await.unwrap();
        }
        self.service.kek(&kek.id).await.unwrap()
    }

    /// A terminal that keys can go to.
    pub(crate) async fn terminal(&self, serial: &str) -> String {
        let device = Device {
            id: new_id(IdKind::Terminal, START, &mut *self.service.rng()),
            kind: DeviceKind::Terminal,
            serial: serial.to_owned(),
            status: DeviceStatus::Enrolled,
            block_reason: None,
            created_at: START,
            updated_at: START,
        };
        let id = device.id.clone();
        self.service.store().run_tx("terminal", move |tx| tx.insert_device(&device)).await.unwrap();
        id
    }

    /// The audit's rows, oldest first.
    pub(crate) async fn audit(&self) -> Vec<AuditRow> {
        let mut rows = self.service.audit_page(None, 200).await.unwrap().items;
        rows.reverse();
        rows
    }

    /// The audit's actions with their checks, oldest first, from the first with this action on.
    pub(crate) async fn actions(&self, from: &str) -> Vec<String> {
        let rows = self.audit().await;
        let named = rows.iter().map(|row| match &row.entry.check {
            Some(check) => format!("{} {check}", row.entry.action),
            None => row.entry.action.clone(),
        });
        named.skip_while(|action| action != from).collect()
    }
}

fn server(
    store: Store,
    policy: Policy,
    clock: &Arc<TestClock>,
    vault: &Arc<TestVault>,
) -> Arc<Service> {
    static SEED: AtomicU64 = AtomicU64::new(1);
    let hooked = clock.clone();
    let rng = move || {
        let work = hooked.1.lock().unwrap().take();
        work.into_iter().for_each(|work| work());
        seeded(SEED.fetch_add(1, Ordering::SeqCst))
    };
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
    let service = Service::new(store, authority, sams, policy, ambient);
    let service = service.with_vault(vault.clone(), Arc::new(tr34::aws_lc::AwsLc));
    Arc::new(service.with_ciphers(Arc::new(AwsLc)))
}

pub(crate) fn pending<T>(gated: Result<Gated<T>, ServiceError>) -> Approval {
    match gated {
        Ok(Gated::Pending(approval)) => approval,
        Ok(Gated::Done(_)) => panic!("it was done without approval"),
        Err(error) => panic!("refused: {} ({error})", error.check()),
    }
}

pub(crate) fn done<T>(gated: Result<Gated<T>, ServiceError>) -> T {
    match gated {
        Ok(Gated::Done(done)) => done,
        Ok(Gated::Pending(_)) => panic!("it awaits approval"),
        Err(error) => panic!("refused: {} ({error})", error.check()),
    }
}

#[track_caller]
pub(crate) fn check<T>(result: Result<T, ServiceError>) -> &'static str {
    match result {
        Ok(_) => panic!("it was not refused"),
        Err(error) => error.check(),
    }
}

pub(crate) fn new_key(name: &str, scope: KeyScope) -> KeyToMake {
    let dukpt = scope == KeyScope::Dukpt;
    KeyToMake {
        name: name.to_owned(),
        scope,
        usage: if dukpt { "B0" } else { "K0" }.to_owned(),
        algorithm: "A".to_owned(),
        mode: if dukpt { "X" } else { "D" }.to_owned(),
        exportability: "N".to_owned(),
        length: 16,
        ksn: dukpt.then(|| NewKsn { base: vec![1, 2, 3, 4], first: 7, last: Some(9) }),
    }
}

pub(crate) fn new_kek(name: &str, algorithm: &str, length: u32) -> NewKek {
    NewKek {
        name: name.to_owned(),
        algorithm: algorithm.to_owned(),
        length,
        components: 3,
        kcv: None,
    }
}

pub(crate) fn secret(bytes: &[u8]) -> Secret {
    Secret::copied_from(bytes)
}

/// The check value of a key, by the ciphers and not by the service.
pub(crate) fn kcv(algorithm: &str, key: &[u8]) -> String {
    let kcv = tr31::kcv::kcv(&AwsLc, algorithm.as_bytes()[0], &secret(key)).unwrap();
    HEXUPPER.encode(kcv.as_bytes())
}

/// Sets odd parity.
pub(crate) fn odd(byte: u8) -> u8 {
    let upper = byte & 0xFE;
    upper | u8::from(upper.count_ones().is_multiple_of(2))
}

fn odd_if(algorithm: &str, byte: u8) -> u8 {
    if algorithm == "T" { odd(byte) } else { byte }
}
