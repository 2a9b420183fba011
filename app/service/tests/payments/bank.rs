//! A bank for one test: servers on one database, accounts, a shop, payers with phones and devices.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use countersign_crypto::{Provider, Secret, SecureElement, UnixTime, aws_lc, sm};
use countersign_hsm::{FileVault, MemoryStorage, Vault};
use countersign_net::Clock;
use countersign_payment::{ocra, sign};
use countersign_pki::{
    CertificateNumber, Identity, Issuer, Role, Validity, parse_request, request, self_signed,
};
use countersign_service::{
    Actor, Ambient, Answered, Authority, Money, NewAccount, NewPayment, NewPosting, Once,
    PaymentAnswer, PhoneActor, Policy, Refunded, SamPool, Service, ServiceError, Settled,
    SignerToEnrol,
};
use countersign_store::{
    Account, AccountKind, AuditRow, PaymentRecord, Role as OperatorRole, Store, StoreError, Tx,
};
use testkit::pki::encryption;
use testkit::rng::{ChaCha20Rng, seeded};

/// When every test begins.
pub(crate) const START: UnixTime = UnixTime::from_secs(1_800_000_000);
const DAY: Duration = Duration::from_secs(86_400);

/// Where the database is.
#[derive(Clone)]
pub(crate) enum Place {
    Memory,
    Postgres(String),
}

pub(crate) struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> UnixTime {
        UnixTime::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// One suite's CA, and a server's key.
pub(crate) struct House {
    pub(crate) authority: Authority,
    rng: ChaCha20Rng,
}

pub(crate) struct Bank {
    place: Place,
    store: Store,
    pub(crate) service: Arc<Service>,
    clock: Arc<TestClock>,
    authority: Authority,
    vault: Arc<MemoryStorage>,
    policy: Policy,
    pub(crate) admin: Actor,
    pub(crate) shop: Actor,
    pub(crate) payer: Account,
    pub(crate) payee: Account,
    pub(crate) phone: PhoneActor,
    pub(crate) device: Device,
}

/// A security device that signs, as the bank's customers have.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) id: String,
    pub(crate) serial: String,
    pub(crate) key: Arc<dyn SecureElement>,
}

/// One that makes dynamic passwords.
pub(crate) struct Token {
    pub(crate) id: String,
    pub(crate) serial: String,
    pub(crate) key: Secret,
}

static SEED: AtomicU64 = AtomicU64::new(1);

pub(crate) fn rng() -> ChaCha20Rng {
    seeded(SEED.fetch_add(1, Ordering::SeqCst))
}

impl Device {
    pub(crate) fn answer(&self, record: &PaymentRecord) -> PaymentAnswer {
        self.answer_to(&record.payment.request)
    }

    /// Signs these bytes.
    pub(crate) fn answer_to(&self, request: &[u8]) -> PaymentAnswer {
        let signature = sign(&*self.key, &mut rng(), request).unwrap();
        PaymentAnswer::Pki { device_serial: self.serial.clone(), signature }
    }
}

impl Token {
    pub(crate) fn answer(&self, record: &PaymentRecord) -> PaymentAnswer {
        let digits = ocra::respond(&self.key, &record.payment.request).unwrap();
        PaymentAnswer::Ocra { device_serial: self.serial.clone(), digits }
    }
}

/// Once, with an answer that shows all of what was done.
pub(crate) fn once<T: std::fmt::Debug>(key: &str, request: &str) -> Once<T> {
    let mut request_hash = [0; 32];
    request_hash[..request.len().min(32)]
        .copy_from_slice(&request.as_bytes()[..request.len().min(32)]);
    let render = Arc::new(|value: &T| (201, format!("{value:?}").into_bytes()));
    Once { key: key.to_owned(), request_hash, render }
}

/// A key that nobody has used.
pub(crate) fn fresh<T: std::fmt::Debug>() -> Once<T> {
    let number = SEED.fetch_add(1, Ordering::SeqCst);
    once(&format!("key-{number}"), "")
}

pub(crate) fn value<T>(settled: Settled<T>) -> T {
    match settled {
        Settled::Fresh { value, .. } => value,
        Settled::Replay { .. } => panic!("it was done before"),
    }
}

#[track_caller]
pub(crate) fn check<T>(result: Result<T, ServiceError>) -> &'static str {
    match result {
        Ok(_) => panic!("it was not refused"),
        Err(error) => error.check(),
    }
}

pub(crate) fn money(amount: &str, currency: &str) -> Money {
    Money { amount: amount.to_owned(), currency: currency.to_owned() }
}

impl Bank {
    /// The payer has 1000.00, the payee nothing.
    pub(crate) async fn new(place: Place) -> Self {
        Self::with(place, aws_lc::provider(), Policy::default()).await
    }

    /// The same with SM2.
    pub(crate) async fn of_sm2(place: Place) -> Self {
        Self::with(place, sm::provider(), Policy::default()).await
    }

    pub(crate) async fn with(place: Place, provider: Provider, policy: Policy) -> Self {
        let store = match &place {
            Place::Memory => Store::in_memory().await.unwrap(),
            Place::Postgres(url) => Store::postgres(url).await.unwrap(),
        };
        let authority = House::new(provider, 7).authority;
        let clock = Arc::new(TestClock(AtomicU64::new(START.as_millis())));
        let vault = Arc::new(MemoryStorage::new());
        let service = serve(store.clone(), &authority, &clock, file(&vault), &policy);
        let operator = async |name: &str, role| {
            let added = service.add_operator(&Actor::Console, name, &[role]).await;
            Actor::Operator(added.unwrap().0)
        };
        let admin = operator("ada", OperatorRole::Admin).await;
        let shop = operator("shop", OperatorRole::Integrator).await;
        let open = async |number: &str, holder: &str, kind| {
            let (number, holder) = (number.to_owned(), holder.to_owned());
            let new = NewAccount { number, holder, currency: "CNY".into(), kind, overdraft: None };
            service.open_account(&admin, &new).await.unwrap()
        };
        let payer = open("PAYER1", "Li Lei", AccountKind::Customer).await;
        let payee = open("PAYEE1", "Corner Bakery", AccountKind::Customer).await;
        open("OUTSIDE", "Rest of the world", AccountKind::External).await;
        let phone = phone(&service, &admin, &["PAYER1"]).await;
        let device = device(&service, &admin, &authority.provider, "SD-1", &["PAYER1"]).await;
        let bank = Self {
            place,
            store,
            service,
            clock,
            authority,
            vault,
            policy,
            admin,
            shop,
            payer,
            payee,
            phone,
            device,
        };
        bank.fund("PAYER1", "1000.00").await;
        bank
    }

    /// Money from outside.
    pub(crate) async fn fund(&self, number: &str, amount: &str) {
        let reference = format!("fund-{}", SEED.fetch_add(1, Ordering::SeqCst));
        let (debit, credit) = ("OUTSIDE".to_owned(), number.to_owned());
        let new = NewPosting { reference, debit, credit, amount: money(amount, "CNY") };
        self.service.post(&self.admin, &new, fresh()).await.unwrap();
    }

    /// Another server on the same database.
    pub(crate) async fn another(&self) -> Arc<Service> {
        let store = match &self.place {
            Place::Memory => self.store.clone(),
            Place::Postgres(url) => Store::postgres(url).await.unwrap(),
        };
        self.serve_on(store)
    }

    /// A server on this handle of the database.
    pub(crate) fn serve_on(&self, store: Store) -> Arc<Service> {
        serve(store, &self.authority, &self.clock, file(&self.vault), &self.policy)
    }

    /// A server on this database with another key to encrypt to.
    pub(crate) fn with_another_key(&self) -> Arc<Service> {
        let mut authority = self.authority.clone();
        let made = authority.provider.sealing.generate(&mut seeded(4711)).unwrap();
        authority.server_encryption.key = made.key;
        serve(self.store.clone(), &authority, &self.clock, file(&self.vault), &self.policy)
    }

    /// Another server, on what is made of its vault.
    pub(crate) fn serve_with(
        &self,
        wrap: impl FnOnce(FileVault) -> Arc<dyn Vault>,
    ) -> Arc<Service> {
        let vault = wrap(FileVault::new(self.vault.clone(), rng()));
        serve(self.store.clone(), &self.authority, &self.clock, vault, &self.policy)
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn provider(&self) -> &Provider {
        &self.authority.provider
    }

    /// The bank's own CA.
    pub(crate) fn house(&self) -> House {
        House { authority: self.authority.clone(), rng: rng() }
    }

    pub(crate) fn root(&self) -> &[u8] {
        &self.authority.root
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.clock.0.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    pub(crate) fn set_clock(&self, at: UnixTime) {
        self.clock.0.store(at.as_millis(), Ordering::SeqCst);
    }

    pub(crate) async fn another_phone(&self, accounts: &[&str]) -> PhoneActor {
        phone(&self.service, &self.admin, accounts).await
    }

    pub(crate) async fn another_device(&self, serial: &str, accounts: &[&str]) -> Device {
        device(&self.service, &self.admin, self.provider(), serial, accounts).await
    }

    pub(crate) async fn token(&self, serial: &str, accounts: &[&str]) -> Token {
        let new = to_enrol(accounts);
        let made = self.service.enrol_ocra(&self.admin, serial, &new).await.unwrap();
        let id = made.record.signer.device_id;
        Token { id, serial: serial.to_owned(), key: made.key }
    }

    /// What the shop asks for: from PAYER1 to PAYEE1.
    pub(crate) fn order(&self, amount: &str) -> NewPayment {
        NewPayment {
            end_to_end_id: "E2E-1".into(),
            amount: money(amount, "CNY"),
            payer: "PAYER1".into(),
            payee: "PAYEE1".into(),
            payee_name: "Corner Bakery".into(),
            order: "Order 17: two loaves".into(),
            initiating_party: "Web shop".into(),
            expires_in: None,
        }
    }

    /// A payment that waits for its answer.
    pub(crate) async fn pending(&self, amount: &str) -> PaymentRecord {
        let order = self.order(amount);
        value(self.service.create_payment(&self.shop, &order, fresh()).await.unwrap())
    }

    /// The payer's phone brings an answer.
    pub(crate) async fn answer(
        &self,
        record: &PaymentRecord,
        answer: PaymentAnswer,
    ) -> Result<Answered, ServiceError> {
        self.service.answer_payment(&self.phone, &record.payment.id, answer, None).await
    }

    /// A payment that was executed.
    pub(crate) async fn executed(&self, amount: &str) -> PaymentRecord {
        let record = self.pending(amount).await;
        let answered = self.answer(&record, self.device.answer(&record)).await.unwrap();
        assert_eq!(answered.record.payment.state.name(), "executed");
        answered.record
    }

    pub(crate) async fn payment(&self, id: &str) -> PaymentRecord {
        self.service.payment(&self.admin, id).await.unwrap()
    }

    pub(crate) async fn balance(&self, number: &str) -> i64 {
        self.service.account_by_number(&self.admin, number).await.unwrap().balance
    }

    pub(crate) async fn refund(
        &self,
        id: &str,
        amount: &str,
    ) -> Result<Settled<Refunded>, ServiceError> {
        self.service.refund_payment(&self.admin, id, amount, fresh()).await
    }

    /// The states that a payment went through.
    pub(crate) async fn states(&self, id: &str) -> Vec<&'static str> {
        let timeline = self.service.payment_timeline(&self.admin, id).await.unwrap();
        timeline.iter().map(|row| row.state.name()).collect()
    }

    /// The audit's rows about this subject, oldest first.
    pub(crate) async fn audit_of(&self, subject: &str) -> Vec<AuditRow> {
        let mut rows = Vec::new();
        let mut cursor = None;
        loop {
            let page = self.service.audit_page(cursor, 200).await.unwrap();
            rows.extend(page.items.into_iter().filter(|row| row.entry.subject == subject));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        rows.reverse();
        rows
    }

    /// The subjects of the events of this kind.
    pub(crate) async fn events_of(&self, kind: &'static str) -> Vec<String> {
        let sql = "SELECT subject FROM events WHERE type = ?1 ORDER BY id LIMIT 100";
        let rows = self.store.run_tx("test", move |tx| tx.query(sql, &[kind.into()])).await;
        let rows: Vec<countersign_store::Row> =
            rows.unwrap_or_else(|error: StoreError| panic!("{error}"));
        rows.iter().map(|row| row.text(0).unwrap().to_owned()).collect()
    }

    /// The check that an incident stands for.
    pub(crate) async fn incident(&self, error: &ServiceError) -> String {
        let ServiceError::AuthorisationRefused { incident } = error else {
            panic!("not a refused answer: {error:?}")
        };
        let rows = self.service.incident(incident).await.unwrap();
        let mut checks = rows.iter().filter_map(|row| row.entry.check.clone());
        checks.next().expect("the incident is in the audit")
    }

    /// Changes rows as an operator at another server, or a fault, does.
    pub(crate) async fn tx(
        &self,
        change: impl Fn(&mut Tx<'_>) -> Result<(), StoreError> + Send + 'static,
    ) {
        self.store.run_tx("test", change).await.unwrap();
    }

    /// The ledger and the payments fit together.
    pub(crate) async fn in_order(&self) {
        let found: Result<_, ServiceError> =
            self.store.read("ledger_check", |tx| Ok(tx.ledger_check()?)).await;
        assert_eq!(found.unwrap(), Vec::new());
    }
}

fn file(storage: &Arc<MemoryStorage>) -> Arc<dyn Vault> {
    Arc::new(FileVault::new(storage.clone(), rng()))
}

fn serve(
    store: Store,
    authority: &Authority,
    clock: &Arc<TestClock>,
    vault: Arc<dyn Vault>,
    policy: &Policy,
) -> Arc<Service> {
    let ambient = Ambient { clock: clock.clone(), rng: Arc::new(|| Box::new(rng())) };
    let sams = SamPool::start(Vec::new(), Default::default(), &ambient);
    let service = Service::new(store, authority.clone(), sams, policy.clone(), ambient)
        .with_vault(vault, Arc::new(tr34::aws_lc::AwsLc))
        .with_ciphers(Arc::new(tr31::aws_lc::AwsLc));
    Arc::new(service)
}

pub(crate) fn to_enrol(accounts: &[&str]) -> SignerToEnrol {
    let accounts = accounts.iter().map(|number| (*number).to_owned()).collect();
    SignerToEnrol { label: "key".to_owned(), accounts }
}

async fn phone(service: &Service, admin: &Actor, accounts: &[&str]) -> PhoneActor {
    let accounts: Vec<String> = accounts.iter().map(|number| (*number).to_owned()).collect();
    let allowed = service.allow_phone(admin, "handset", &accounts).await.unwrap();
    let code = Secret::copied_from(allowed.code.expose().as_bytes());
    let enrolled = service.enrol_phone("127.0.0.1", &code, None).await.unwrap();
    service.authorise_phone(&enrolled.token).await.unwrap()
}

async fn device(
    service: &Service,
    admin: &Actor,
    provider: &Provider,
    serial: &str,
    accounts: &[&str],
) -> Device {
    let key = provider.signature.generate(&mut rng()).unwrap().key;
    let identity = Identity::new(Role::SecurityDevice, serial).unwrap();
    let csr = request(provider, &identity, &*key, &mut rng()).unwrap();
    let enrolled = service.enrol_signer(admin, &csr, &to_enrol(accounts)).await.unwrap();
    Device { id: enrolled.enrolled.device.id, serial: serial.to_owned(), key }
}

impl House {
    pub(crate) fn new(provider: Provider, seed: u64) -> Self {
        let mut rng = seeded(seed);
        let validity = Validity::from(START, 3650 * DAY);
        let root_key = provider.signature.generate(&mut rng).unwrap().key;
        let number = CertificateNumber::random(&mut rng);
        let root = self_signed(&provider, "Root", root_key.public_key(), number, validity)
            .and_then(|prepared| prepared.sign(&*root_key, &mut rng))
            .unwrap();
        let mut ca = |name: &str| {
            let key = provider.signature.generate(&mut rng).unwrap().key;
            let number = CertificateNumber::random(&mut rng);
            let certificate = Issuer::from_certificate(&provider, &root)
                .and_then(|it| it.prepare_intermediate(name, key.public_key(), number, validity))
                .and_then(|prepared| prepared.sign(&*root_key, &mut rng))
                .unwrap();
            (certificate, key)
        };
        let (device_issuer, device_issuer_key) = ca("Devices");
        let (server_issuer, server_issuer_key) = ca("Servers");
        let server_key = provider.signature.generate(&mut rng).unwrap().key;
        let audit_key = provider.signature.generate(&mut rng).unwrap().key;
        let identity = Identity::new(Role::Server, "srv-test").unwrap();
        let issuer = (server_issuer.as_slice(), &*server_issuer_key);
        let server_encryption = encryption(&provider, issuer, &identity, validity, &mut rng);
        let mut house = Self {
            authority: Authority {
                provider,
                root,
                device_issuer,
                device_issuer_key,
                server_issuer: server_issuer.clone(),
                server: Vec::new(),
                server_key: server_key.clone(),
                server_encryption,
                server_id: "srv-test".to_owned(),
                audit_key,
            },
            rng,
        };
        let issuer = (server_issuer.as_slice(), &*server_issuer_key);
        let (server, _) = house.leaf(issuer, Role::Server, "srv-test", &*server_key, 3650 * DAY);
        house.authority.server = server;
        house
    }

    /// A certificate of this role by the device CA, and its number.
    pub(crate) fn certify(
        &mut self,
        role: Role,
        serial: &str,
        key: &dyn SecureElement,
        validity: Duration,
    ) -> (Vec<u8>, CertificateNumber) {
        let Authority { device_issuer, device_issuer_key, .. } = &self.authority;
        let (issuer, issuer_key) = (device_issuer.clone(), device_issuer_key.clone());
        self.leaf((&issuer, &*issuer_key), role, serial, key, validity)
    }

    fn leaf(
        &mut self,
        (issuer, issuer_key): (&[u8], &dyn SecureElement),
        role: Role,
        id: &str,
        key: &dyn SecureElement,
        validity: Duration,
    ) -> (Vec<u8>, CertificateNumber) {
        let (provider, rng) = (&self.authority.provider, &mut self.rng);
        let csr = request(provider, &Identity::new(role, id).unwrap(), key, rng).unwrap();
        let requested = parse_request(provider, &csr).unwrap();
        let number = CertificateNumber::random(rng);
        let validity = Validity::from(START, validity);
        let certificate = Issuer::from_certificate(provider, issuer)
            .and_then(|issuer| issuer.prepare(&requested, role, number.clone(), validity))
            .and_then(|prepared| prepared.sign(issuer_key, rng))
            .unwrap();
        (certificate, number)
    }
}
