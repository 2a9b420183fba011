//! Connections to SAM hosts: they do not last for ever, and a read that loses one finds another.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_channel::{
    Challenges, Credential, Error, IdKind, LookupRefusal, Mode, Policy, ReaderConfig, ReaderId,
    ServerChannel, ServerConfig, ServerEvent, SharedChallenges, SharedSources, SourceLimits,
};
use countersign_crypto::{UnixTime, aws_lc};
use countersign_idcard::sam::remote::{
    FromHost, HEARTBEAT_EVERY, HEARTBEAT_WITHIN, ModuleHealth, ModuleState, REMOTE_V1, RemoteText,
    ToHost,
};
use countersign_idcard::sam::{SamError, SamOperation, SamResult};
use countersign_net::{Connection, Next};
use countersign_pki::{BoundedLeafCache, CertificateNumber, Role};
use countersign_service::{
    Ambient, LEASE_MAX, Promise, SAM_HOST_SESSION_MAX, SamHostConnector, SamHostRefused, SamPool,
    SamPort, SamState,
};
use testkit::pki::{Party, TestPki};
use testkit::rng::seeded;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::bank::{READER, VirtualClock};
use crate::{begin, begun, settle};

/// What a test does to the line to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Whole,
    /// The host neither hears nor says anything, and nobody is told.
    Dead,
    /// It is cut, and both ends see it.
    Cut,
}

/// A SAM host in memory, with one module that begins every read.
struct FarHost {
    name: String,
    id: String,
    ours: Arc<ReaderConfig>,
    its: Arc<ServerConfig>,
    ambient: Ambient,
    line: watch::Sender<Line>,
    opened: AtomicUsize,
    told: Arc<Mutex<Vec<&'static str>>>,
}

impl SamHostConnector for FarHost {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self) -> Promise<'_, io::Result<Box<dyn SamPort>>> {
        if *self.line.borrow() == Line::Cut {
            return Box::pin(async { Err(io::Error::other("no way there")) });
        }
        self.opened.fetch_add(1, Ordering::SeqCst);
        let (near, far) = duplex(16_384);
        let channel = ServerChannel::new(self.its.clone(), &[127, 0, 0, 1], self.now());
        let (clock, rng) = (self.ambient.clock.clone(), (self.ambient.rng)());
        let connection = Connection::new(channel, far, clock, rng);
        let end = Far { connection, id: self.id.clone(), leased: false, told: self.told.clone() };
        tokio::spawn(end.serve(self.line.subscribe()));
        Box::pin(async { Ok(Box::new(near) as Box<dyn SamPort>) })
    }

    fn channel(&self, _now: UnixTime) -> Result<Arc<ReaderConfig>, Error> {
        Ok(self.ours.clone())
    }

    fn vouch<'a>(
        &'a self,
        _number: &'a CertificateNumber,
    ) -> Promise<'a, Result<(), SamHostRefused>> {
        Box::pin(async { Ok(()) })
    }
}

impl FarHost {
    fn new(pki: &mut TestPki, number: usize, ambient: &Ambient) -> Self {
        let provider = aws_lc::provider();
        let (server, host) =
            (pki.party(Role::Server, "srv-1"), pki.party(Role::SamHost, &format!("HOST-{number}")));
        let trust = Arc::new(pki.trust(provider.clone()));
        let credential = |party: Party| Credential {
            provider: provider.clone(),
            key: party.key,
            certificate: party.certificate,
            trust: trust.clone(),
            encryption: None,
        };
        let id = host.id.clone();
        let ours = ReaderConfig {
            credentials: vec![credential(server)],
            mode: Mode::C1,
            policies: vec![Policy::default()],
            serial: "srv-1".to_owned(),
            signed_id: IdKind::CertificateNumber,
            sent_id: IdKind::Serial,
            server_id: Some(id.clone()),
            peer_role: Role::SamHost,
        };
        let sources = SourceLimits::new(provider.clone(), &mut seeded(9));
        let its = ServerConfig {
            credentials: vec![credential(host)],
            modes: vec![Mode::C1],
            policies: vec![Policy::default()],
            server_id: id.clone(),
            leaf_cache: Arc::new(BoundedLeafCache::default()),
            challenges: Arc::new(SharedChallenges::new(Challenges::new(provider))),
            sources: Arc::new(SharedSources::new(sources)),
            peer_roles: vec![Role::Server],
        };
        Self {
            name: format!("far-{number}:8445#1"),
            id,
            ours: Arc::new(ours),
            its: Arc::new(its),
            ambient: ambient.clone(),
            line: watch::Sender::new(Line::Whole),
            opened: AtomicUsize::new(0),
            told: Arc::default(),
        }
    }

    fn now(&self) -> UnixTime {
        self.ambient.clock.now()
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }

    fn told(&self) -> Vec<&'static str> {
        let told = self.told.lock().unwrap();
        told.iter().copied().filter(|name| !["ping", "hello", "drained"].contains(name)).collect()
    }
}

/// The host's end of one connection.
struct Far {
    connection: Connection<ServerChannel, DuplexStream>,
    id: String,
    leased: bool,
    told: Arc<Mutex<Vec<&'static str>>>,
}

impl Far {
    async fn serve(mut self, mut line: watch::Receiver<Line>) {
        loop {
            let now = *line.borrow_and_update();
            match now {
                Line::Whole => {}
                Line::Dead => {
                    let _whole_again = line.wait_for(|line| *line != Line::Dead).await;
                    continue;
                }
                Line::Cut => return,
            }
            let next = tokio::select! {
                next = self.connection.next(None) => next,
                _ = line.changed() => continue,
            };
            match next {
                Ok(Next::Event(ServerEvent::Ask(ReaderId::Serial(id)))) => {
                    let (channel, now, rng) = self.connection.parts();
                    channel.peer_found(now, rng, Ok::<_, LookupRefusal>(id)).unwrap();
                }
                Ok(Next::Event(ServerEvent::Connected)) => {}
                Ok(Next::Event(ServerEvent::Data(message))) => {
                    let message = ToHost::decode(&message).unwrap();
                    self.told.lock().unwrap().push(message.name());
                    if let Some(answer) = self.answer(message) {
                        self.connection.machine().send(&answer.encode()).unwrap();
                    }
                }
                Ok(_) | Err(_) => return,
            }
        }
    }

    fn answer(&mut self, message: ToHost) -> Option<FromHost> {
        let text = |text: &str| RemoteText::new(text).unwrap();
        let sam_id = text(&format!("sam-of-{}", self.id));
        Some(match message {
            ToHost::Hello(_) => {
                FromHost::Hello { version: REMOTE_V1, host: text(&self.id), modules: 1 }
            }
            ToHost::Lease(_) => {
                assert!(!std::mem::replace(&mut self.leased, true), "leased twice");
                FromHost::Leased(sam_id)
            }
            ToHost::Operate(SamOperation::Begin { .. }) => {
                FromHost::Done(SamResult::Challenge([7; 8]))
            }
            ToHost::Operate(_) => FromHost::Failed(SamError::NotReady),
            ToHost::Ping(number) => {
                let state = if self.leased { ModuleState::Leased } else { ModuleState::Ready };
                let module = ModuleHealth { sam_id, port: text("tty"), state, failures: 0 };
                FromHost::Pong { number, modules: vec![module] }
            }
            ToHost::Release => {
                self.leased = false;
                return None;
            }
            ToHost::Drained(_) => return None,
        })
    }
}

/// A pool of one module at each of so many hosts, all ready.
async fn pool(count: usize) -> (Arc<SamPool>, Vec<Arc<FarHost>>) {
    let seed = AtomicU64::new(5);
    let ambient = Ambient {
        clock: Arc::new(VirtualClock(Instant::now())),
        rng: Arc::new(move || Box::new(seeded(seed.fetch_add(1, Ordering::SeqCst)))),
    };
    let mut pki = TestPki::new(aws_lc::provider(), 3);
    let host = |number| Arc::new(FarHost::new(&mut pki, number, &ambient));
    let hosts: Vec<_> = (1..=count).map(host).collect();
    let connectors = hosts.iter().map(|host| host.clone() as _).collect();
    let pool = SamPool::start_with_hosts(Vec::new(), connectors, Default::default(), &ambient);
    for index in 0..count {
        wait_until_ready(&pool, index, true).await;
    }
    (Arc::new(pool), hosts)
}

async fn wait_until_ready(pool: &SamPool, index: usize, ready: bool) {
    for _ in 0..60_000 {
        if pool.health()[index].ready == ready {
            return;
        }
        sleep(Duration::from_millis(1)).await;
    }
    panic!("never became so: {:?}", pool.health());
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_is_made_anew_and_no_read_notices() {
    let (pool, hosts) = pool(1).await;
    let host = &hosts[0];
    let second = Duration::from_secs(1);
    sleep(SAM_HOST_SESSION_MAX - 10 * second).await;
    let mut lease = pool.lease(READER).await.unwrap();
    begun(&mut lease).await;
    sleep(12 * second).await;
    assert_eq!(host.opened(), 1, "a read under way is not cut");
    begun(&mut lease).await;
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.lease("rdr_2").await }
    });
    sleep(5 * second).await; // longer than reads wait for a pool that serves none
    assert!(!waiting.is_finished(), "a lease ends, and then there is a connection again");
    drop(lease);
    let mut next = waiting.await.unwrap().unwrap();
    assert_eq!(host.opened(), 2, "the next read goes through a new one");
    begun(&mut next).await;
    drop(next);

    sleep(SAM_HOST_SESSION_MAX + 3 * second).await;
    assert_eq!(host.opened(), 3, "one that nobody uses too");
    let health = &pool.health()[0];
    assert_eq!((health.state, health.failures, &health.failure), (SamState::Ready, 0, &None));
    begun(&mut pool.lease(READER).await.unwrap()).await;
    sleep(SAM_HOST_SESSION_MAX - 10 * second).await;
    assert_eq!(host.opened(), 3, "the hour begins anew");
}

/// If the new connection cannot be made, the host is lost like any other.
#[tokio::test(start_paused = true)]
async fn a_host_that_is_gone_after_an_hour_is_named() {
    let (pool, hosts) = pool(2).await;
    sleep(SAM_HOST_SESSION_MAX - Duration::from_secs(5)).await;
    let mut lease = pool.lease(READER).await.unwrap();
    begun(&mut lease).await;
    let index = usize::from(lease.sam_id() == Some("sam-of-HOST-2".to_owned()));
    hosts[1 - index].line.send_replace(Line::Cut);
    sleep(Duration::from_secs(10)).await;
    let health = pool.health();
    let failure = health[1 - index].failure.as_ref().map(|failure| failure.check);
    assert_eq!((health[1 - index].ready, failure), (false, Some("sam-host-unreachable")));
    begun(&mut lease).await;
    drop(lease);
    begun(&mut pool.lease(READER).await.unwrap()).await;
}

/// Lost in mid-read, with and without a word: the lease ends within the heartbeat, the read finds
/// the other host, and what is left of the lease touches nothing when the first one is back.
#[tokio::test(start_paused = true)]
async fn a_connection_lost_in_mid_read_is_free_and_another_serves() {
    for (how, within) in [
        (Line::Cut, Duration::from_millis(10)),
        (Line::Dead, HEARTBEAT_EVERY + HEARTBEAT_WITHIN + Duration::from_millis(10)),
    ] {
        let (pool, hosts) = pool(2).await;
        let mut lease = pool.lease(READER).await.unwrap();
        begun(&mut lease).await;
        let index = usize::from(lease.sam_id() == Some("sam-of-HOST-2".to_owned()));
        let (lost, other) = (&hosts[index], &hosts[1 - index]);
        lost.line.send_replace(how);
        let before = Instant::now();
        assert_eq!(lease.operate(begin()).await.err(), Some(SamError::Gone), "{how:?}");
        assert!(before.elapsed() <= within, "{how:?}: {:?}", before.elapsed());
        assert_eq!(pool.health()[index].failures, 1, "{how:?}");

        let mut next = pool.lease(READER).await.unwrap();
        assert_eq!(next.sam_id(), Some(format!("sam-of-{}", other.id)), "{how:?}");
        begun(&mut next).await;

        lost.line.send_replace(Line::Whole);
        wait_until_ready(&pool, index, true).await;
        lost.told.lock().unwrap().clear();
        assert_eq!(lease.operate(begin()).await.err(), Some(SamError::Gone), "{how:?}");
        drop(lease);
        settle().await;
        assert_eq!(lost.told(), [""; 0], "{how:?}: nothing of the old lease reached it");
        let mut third = pool.lease("rdr_3").await.unwrap();
        assert_eq!(third.sam_id(), Some(format!("sam-of-{}", lost.id)), "{how:?}");
        begun(&mut third).await;
        assert_eq!(lost.told(), ["lease", "operate"], "{how:?}");
    }
}

/// The line dies and nobody says so, while the lease is idle: it is taken away all the same, long
/// before it has lasted too long.
#[tokio::test(start_paused = true)]
async fn a_dead_line_shows_while_the_reader_thinks() {
    let (pool, hosts) = pool(1).await;
    let mut lease = pool.lease(READER).await.unwrap();
    begun(&mut lease).await;
    hosts[0].line.send_replace(Line::Dead);
    let before = Instant::now();
    wait_until_ready(&pool, 0, false).await;
    assert!(before.elapsed() < LEASE_MAX / 4, "{:?}", before.elapsed());
    hosts[0].line.send_replace(Line::Whole);
    let mut next = pool.lease("rdr_2").await.unwrap();
    begun(&mut next).await;
    assert_eq!(lease.operate(begin()).await.err(), Some(SamError::Gone));
    drop(lease);
    settle().await;
    begun(&mut next).await;
}

/// Whatever its task was just waiting for, the host knows what is out of service before it is asked
/// for a module.
#[tokio::test(start_paused = true)]
async fn a_host_hears_what_is_out_of_service_before_it_gives_a_module() {
    let (pool, hosts) = pool(1).await;
    for round in 0..50 {
        hosts[0].told.lock().unwrap().clear();
        pool.set_drained(BTreeSet::from([format!("sam-{round}")]));
        drop(pool.lease(READER).await.unwrap());
        let told = hosts[0].told.lock().unwrap().clone();
        let at = |name| told.iter().position(|told| *told == name);
        assert!(at("drained") < at("lease"), "round {round}: {told:?}");
        assert!(at("drained").is_some());
        settle().await;
    }
}
