//! Where servers run: a database that outlives them, a CA, a vault, and processes that can die.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use countersign_crypto::{Provider, SecureElement, UnixTime, aws_lc, rust_crypto};
use countersign_hsm::{FileVault, MemoryStorage};
use countersign_net::Clock;
use countersign_payment::joint::Form;
use countersign_pki::{
    CertificateNumber, Identity, Issuer, Role, TrustStore, Validity, parse_request, request,
    self_signed,
};
use countersign_service::{Ambient, Authority, PaymentPolicy, Policy, SamPool, Service};
use countersign_store::{Fault, Store, TxStats};
use testkit::pki::encryption;
use testkit::rng::{ChaCha20Rng, seeded};
use tokio::runtime::{Builder, Runtime};

use crate::plan::Trouble;

/// When every world begins.
pub(crate) const START: UnixTime = UnixTime::from_secs(1_800_000_000);
/// No end.
pub(crate) const FOREVER: UnixTime = UnixTime::from_millis(u64::MAX);
const DAY: Duration = Duration::from_secs(86_400);
/// How often it is looked whether a dead server still has something at the database.
const GONE_LOOKS: u32 = 2000;
const GONE_AFTER: Duration = Duration::from_secs(5);
const GONE_PAUSE: Duration = Duration::from_millis(1);

/// The time, which only moves when it is told to.
pub(crate) struct WorldClock(AtomicU64);

impl Clock for WorldClock {
    fn now(&self) -> UnixTime {
        UnixTime::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Which database.
pub(crate) enum Place {
    /// In memory: it outlives its servers with this handle only.
    Memory(Store),
    /// A SQLite file.
    File { path: PathBuf, _dir: tempfile::TempDir },
    /// A PostgreSQL database.
    Postgres(String),
}

impl Place {
    pub(crate) async fn memory() -> Self {
        Self::Memory(Store::in_memory().await.unwrap())
    }

    pub(crate) fn file() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::File { path: dir.path().join("countersign.db"), _dir: dir }
    }

    pub(crate) async fn open(&self) -> Store {
        match self {
            Self::Memory(store) => store.clone(),
            Self::File { path, .. } => Store::sqlite(path).await.unwrap(),
            Self::Postgres(url) => Store::postgres(url).await.unwrap(),
        }
    }
}

/// What the database is to do wrong next, and how often it did.
#[derive(Default)]
pub(crate) struct Troubles {
    /// The trouble, and how many transactions go well before it.
    armed: Mutex<Option<(Trouble, u8)>>,
    fired: AtomicU64,
}

impl Troubles {
    pub(crate) fn arm(&self, trouble: Option<(Trouble, u8)>) {
        *self.armed.lock().unwrap() = trouble;
    }

    /// How often there was trouble.
    pub(crate) fn fired(&self) -> u64 {
        self.fired.load(Ordering::SeqCst)
    }

    /// What happens to the transaction that is about to commit.
    fn next(&self) -> Option<Fault> {
        let mut armed = self.armed.lock().unwrap();
        let (trouble, skip) = armed.take()?;
        if let Some(skip) = skip.checked_sub(1) {
            *armed = Some((trouble, skip));
            return None;
        }
        self.fired.fetch_add(1, Ordering::SeqCst);
        Some(match trouble {
            Trouble::Before => Fault::Undone,
            Trouble::Lost => Fault::LostBefore,
            Trouble::Unheard => Fault::LostAfter,
        })
    }
}

/// A server's process: what it works on ends with it.
pub(crate) struct Server {
    pub(crate) service: Arc<Service>,
    store: Store,
    runtime: Option<Runtime>,
}

impl Server {
    /// Runs in the server.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.runtime.as_ref().expect("it has not died").spawn(work)
    }

    /// Ends it at once; whatever it has begun is dropped where it waits.
    pub(crate) fn die(mut self) -> Ghost {
        let runtime = self.runtime.take().expect("it dies once");
        let end = std::thread::spawn(move || runtime.shutdown_timeout(GONE_AFTER));
        Ghost { store: self.store.clone(), end }
    }
}

/// A server that died: what it had sent to the database.
pub(crate) struct Ghost {
    store: Store,
    end: JoinHandle<()>,
}

impl Ghost {
    /// Waits until all of it is there or never will be.
    pub(crate) async fn gone(self) {
        let working = || {
            let ended = |one: &TxStats| one.retries + one.commits + one.rollbacks + one.failures;
            self.store.stats().values().any(|one| one.attempts > ended(one))
        };
        for _ in 0..GONE_LOOKS {
            let ended = self.end.is_finished();
            // Whatever waits in the queue is before this.
            self.store.run_tx("flush", |tx| tx.query("SELECT 1", &[])).await.unwrap();
            if ended && !working() {
                return;
            }
            tokio::time::sleep(GONE_PAUSE).await;
        }
        panic!("a dead server goes on");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// All that servers have in common.
pub(crate) struct House {
    pub(crate) place: Place,
    clock: Arc<WorldClock>,
    authority: Authority,
    vault: Arc<MemoryStorage>,
    /// Every generator has another seed.
    seeds: Arc<AtomicU64>,
    pub(crate) troubles: Arc<Troubles>,
    /// The forms of joint signatures that servers announce.
    pub(crate) forms: Vec<Form>,
    /// Wrong answers with which a payment fails.
    pub(crate) wrong_max: u32,
}

impl House {
    pub(crate) fn new(place: Place, seed: u64) -> Self {
        let all = PaymentPolicy::default();
        Self {
            forms: match seed % 4 {
                1 => vec![Form::SealedRandom, Form::Digest],
                2 => vec![Form::Sealed],
                _ => all.joint_forms,
            },
            wrong_max: if seed % 4 == 3 { 5 } else { all.wrong_answers_max },
            place,
            clock: Arc::new(WorldClock(AtomicU64::new(START.as_millis()))),
            authority: authority(aws_lc::provider(), &mut seeded(seed)),
            vault: Arc::new(MemoryStorage::new()),
            seeds: Arc::new(AtomicU64::new(seed << 32)),
            troubles: Arc::default(),
        }
    }

    pub(crate) fn provider(&self) -> &Provider {
        &self.authority.provider
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(crate) fn now(&self) -> UnixTime {
        self.clock.now()
    }

    /// Lets time pass.
    pub(crate) fn pass(&self, time: Duration) {
        self.clock.0.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// The same at a moment of its own.
    pub(crate) fn passing(&self, time: Duration) -> impl FnOnce() + Send + use<> {
        let (clock, time) = (self.clock.clone(), u64::try_from(time.as_millis()).unwrap());
        move || {
            clock.0.fetch_add(time, Ordering::SeqCst);
        }
    }

    pub(crate) fn rng(&self) -> ChaCha20Rng {
        seeded(self.seeds.fetch_add(1, Ordering::SeqCst))
    }

    /// Trust in the security devices of this house, made with the pure-Rust provider.
    pub(crate) fn trust(&self) -> TrustStore {
        let mut trust = TrustStore::new(rust_crypto::provider());
        let Authority { root, device_issuer, .. } = &self.authority;
        trust.trust(root, device_issuer, Role::SecurityDevice, START).unwrap();
        trust
    }

    /// Starts a server on `store`.
    pub(crate) fn serve(&self, store: Store) -> Server {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let seeds = self.seeds.clone();
        let rng = move || Box::new(seeded(seeds.fetch_add(1, Ordering::SeqCst))) as _;
        let ambient = Ambient { clock: self.clock.clone(), rng: Arc::new(rng) };
        // The pool and the lanes have tasks of their own, which die with the server.
        let entered = runtime.enter();
        let sams = SamPool::start(Vec::new(), Default::default(), &ambient);
        let vault = FileVault::new(self.vault.clone(), self.rng());
        let troubles = self.troubles.clone();
        let kept = store.clone();
        let store = store.with_faults(move |_name| troubles.next());
        let mut policy = Policy::default();
        policy.payments.joint_forms = self.forms.clone();
        policy.payments.wrong_answers_max = self.wrong_max;
        let service = Service::new(store, self.authority.clone(), sams, policy, ambient)
            .with_vault(Arc::new(vault), Arc::new(tr34::aws_lc::AwsLc))
            .with_ciphers(Arc::new(tr31::aws_lc::AwsLc));
        drop(entered);
        Server { service: Arc::new(service), store: kept, runtime: Some(runtime) }
    }
}

/// A root, an issuing CA for devices and one for servers, and a server's certificate.
fn authority(provider: Provider, rng: &mut ChaCha20Rng) -> Authority {
    let validity = Validity::from(START, 3650 * DAY);
    let make = |rng: &mut ChaCha20Rng| provider.signature.generate(rng).unwrap().key;
    let root_key = make(rng);
    let number = CertificateNumber::random(rng);
    let root = self_signed(&provider, "Root", root_key.public_key(), number, validity)
        .and_then(|prepared| prepared.sign(&*root_key, rng))
        .unwrap();
    let mut intermediate = |name: &str| {
        let key: Arc<dyn SecureElement> = make(rng);
        let number = CertificateNumber::random(rng);
        let certificate = Issuer::from_certificate(&provider, &root)
            .and_then(|root| root.prepare_intermediate(name, key.public_key(), number, validity))
            .and_then(|prepared| prepared.sign(&*root_key, rng))
            .unwrap();
        (certificate, key)
    };
    let (device_issuer, device_issuer_key) = intermediate("Devices");
    let (server_issuer, server_issuer_key) = intermediate("Servers");
    let (server_key, audit_key) = (make(rng), make(rng));
    let identity = Identity::new(Role::Server, "srv-test").unwrap();
    let csr = request(&provider, &identity, &*server_key, rng).unwrap();
    let requested = parse_request(&provider, &csr).unwrap();
    let number = CertificateNumber::random(rng);
    let server = Issuer::from_certificate(&provider, &server_issuer)
        .and_then(|issuer| issuer.prepare(&requested, Role::Server, number, validity))
        .and_then(|prepared| prepared.sign(&*server_issuer_key, rng))
        .unwrap();
    let issuer = (server_issuer.as_slice(), &*server_issuer_key);
    let server_encryption = encryption(&provider, issuer, &identity, validity, rng);
    Authority {
        provider,
        root,
        device_issuer,
        device_issuer_key,
        server_issuer,
        server,
        server_key,
        server_encryption,
        server_id: "srv-test".to_owned(),
        audit_key,
    }
}
