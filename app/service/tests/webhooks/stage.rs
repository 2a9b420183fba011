//! A service with webhooks, a clock that is told the time, and receivers that do as they are told.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_crypto::{UnixTime, aws_lc};
use countersign_hsm::{FileVault, MemoryStorage};
use countersign_net::Clock;
use countersign_service::{
    Actor, Ambient, Authority, Policy, RegisteredWebhook, SamPool, Service, WebhookClient,
    WebhookFailure, WebhookFuture, WebhookPolicy, WebhookRequest, Webhooks,
};
use countersign_store::{AuditRow, Delivery, DeliveryState, Event, IdKind, Role, Store, new_id};
use testkit::pki::uncertified_encryption;
use testkit::rng::seeded;

pub(crate) const START: UnixTime = UnixTime::from_secs(1_800_000_000);
/// On the public internet, as far as anyone here knows.
pub(crate) const OUTSIDE: &str = "8.8.8.8:443";

struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> UnixTime {
        UnixTime::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// What a receiver does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Does {
    Answers(u16),
    Fails(WebhookFailure),
    Hangs,
}

/// All receivers, and the names they have.
pub(crate) struct World {
    /// What the next resolutions give; the last one stays.
    names: Mutex<VecDeque<Vec<SocketAddr>>>,
    does: Mutex<Does>,
    pub(crate) resolved: AtomicU64,
    posted: Mutex<Vec<(WebhookRequest, SocketAddr)>>,
}

impl World {
    pub(crate) fn does(&self, does: Does) {
        *self.does.lock().unwrap() = does;
    }

    pub(crate) fn resolves_to(&self, turns: &[&[&str]]) {
        let addresses = |turn: &&[&str]| turn.iter().map(|a| a.parse().unwrap()).collect();
        *self.names.lock().unwrap() = turns.iter().map(addresses).collect();
    }

    pub(crate) fn posted(&self) -> Vec<(WebhookRequest, SocketAddr)> {
        self.posted.lock().unwrap().clone()
    }
}

impl WebhookClient for World {
    fn resolve<'a>(
        &'a self,
        host: &'a str,
        _port: u16,
    ) -> WebhookFuture<'a, io::Result<Vec<SocketAddr>>> {
        self.resolved.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            if host == "slow.example" {
                std::future::pending::<()>().await;
            }
            if host == "absent.example" {
                return Err(io::Error::other("no such name"));
            }
            let mut names = self.names.lock().unwrap();
            let first = names.pop_front().unwrap();
            if names.is_empty() {
                names.push_back(first.clone());
            }
            Ok(first)
        })
    }

    fn post<'a>(
        &'a self,
        request: &'a WebhookRequest,
        address: SocketAddr,
    ) -> WebhookFuture<'a, Result<u16, WebhookFailure>> {
        self.posted.lock().unwrap().push((request.clone(), address));
        let does = *self.does.lock().unwrap();
        Box::pin(async move {
            match does {
                Does::Answers(status) => Ok(status),
                Does::Fails(failure) => Err(failure),
                Does::Hangs => std::future::pending().await,
            }
        })
    }
}

pub(crate) struct Stage {
    pub(crate) service: Arc<Service>,
    pub(crate) world: Arc<World>,
    clock: Arc<TestClock>,
    vault: Arc<FileVault>,
    pub(crate) admin: Actor,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let world = Arc::new(World {
            names: Mutex::default(),
            does: Mutex::new(Does::Answers(204)),
            resolved: AtomicU64::new(0),
            posted: Mutex::default(),
        });
        world.resolves_to(&[&[OUTSIDE]]);
        let clock = Arc::new(TestClock(AtomicU64::new(START.as_millis())));
        let vault = Arc::new(FileVault::new(Arc::new(MemoryStorage::new()), seeded(99)));
        let store = Store::in_memory().await.unwrap();
        let policy = WebhookPolicy::default();
        let service = server(store, &clock, &vault, &world, policy);
        let admin = operator(&service, "admin", Role::Admin).await;
        Self { service, world, clock, vault, admin }
    }

    /// Another server on the same database and vault.
    pub(crate) fn another(&self, policy: WebhookPolicy) -> Arc<Service> {
        server(self.service.store().clone(), &self.clock, &self.vault, &self.world, policy)
    }

    pub(crate) async fn operator(&self, name: &str, role: Role) -> Actor {
        operator(&self.service, name, role).await
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.clock.0.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    pub(crate) async fn register(&self, url: &str) -> RegisteredWebhook {
        self.service.register_webhook(&self.admin, url, &[]).await.unwrap()
    }

    /// A payment is executed. Returns the event's id.
    pub(crate) async fn happens(&self, owner: Option<&str>) -> String {
        let now = self.service.now();
        let event = Event {
            id: new_id(IdKind::Event, now, &mut *self.service.rng()),
            kind: "payment.executed".to_owned(),
            subject: "pay_1".to_owned(),
            data: "{\"status\":\"executed\"}".to_owned(),
            owner: owner.map(str::to_owned),
            at: now,
        };
        let id = event.id.clone();
        let insert = move |tx: &mut countersign_store::Tx<'_>| {
            tx.insert_events(std::slice::from_ref(&event))
        };
        self.service.store().run_tx("event", insert).await.unwrap();
        id
    }

    /// What a server does in one turn. Returns how the attempts ended.
    pub(crate) async fn turn(&self) -> Vec<DeliveryState> {
        turn(&self.service).await
    }

    /// The deliveries to a webhook, newest first.
    pub(crate) async fn deliveries(&self, webhook: &str) -> Vec<Delivery> {
        self.service.deliveries(&self.admin, webhook, None, 100).await.unwrap().items
    }

    pub(crate) async fn audit(&self) -> Vec<AuditRow> {
        self.service.audit_page(None, 200).await.unwrap().items
    }
}

pub(crate) async fn turn(service: &Service) -> Vec<DeliveryState> {
    service.spread_events().await.unwrap();
    let mut ended = Vec::new();
    for due in service.claim_deliveries(64).await.unwrap() {
        ended.push(service.attempt_delivery(due).await.unwrap());
    }
    ended
}

async fn operator(service: &Service, name: &str, role: Role) -> Actor {
    Actor::Operator(service.add_operator(&Actor::Console, name, &[role]).await.unwrap().0)
}

fn server(
    store: Store,
    clock: &Arc<TestClock>,
    vault: &Arc<FileVault>,
    world: &Arc<World>,
    policy: WebhookPolicy,
) -> Arc<Service> {
    static SEED: AtomicU64 = AtomicU64::new(1);
    let rng = || seeded(SEED.fetch_add(1, Ordering::SeqCst));
    let ambient = Ambient { clock: clock.clone(), rng: Arc::new(move || Box::new(rng())) };
    let sams = SamPool::start(Vec::new(), Default::default(), &ambient);
    let provider = aws_lc::provider();
    let mac = provider.mac.clone();
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
    let service = Service::new(store, authority, sams, Policy::default(), ambient)
        .with_vault(vault.clone(), Arc::new(tr34::aws_lc::AwsLc))
        .with_ciphers(Arc::new(tr31::aws_lc::AwsLc))
        .with_webhooks(Webhooks { policy, client: world.clone(), mac });
    Arc::new(service)
}
