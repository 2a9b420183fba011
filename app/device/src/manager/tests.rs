//! A manager, with sleeves of the core machines on pipes in this process, in virtual time.

mod cards;
mod connect;
mod end;
mod hand;
mod login;
mod network;
mod outbox;
mod pairing;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use countersign_channel::{Pairing, Policy, SleeveConfig};
use countersign_crypto::{Provider, Secret, Suite, UnixTime, aws_lc};
use countersign_emulator::{AID_CREDIT, AID_DEBIT, BankCard, BankCardSettings};
use countersign_iso7816::LinkError;
use countersign_net::{Clock, SystemRng};
use countersign_pki::{Identity, Role, request};
use countersign_wallet::login::{Cost, Which};
use pem::Pem;
use tempfile::TempDir;
use testkit::pki::{NOW, TestPki};
use testkit::wallet::sleeve_config;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use self::hand::Hand;
use super::{
    AlarmSettings, CardSettings, Consent, Entrance, HeldCards, Manager, ManagerDir, ManagerError,
    ManagerHappening, ManagerOrder, ManagerSettings, OpenCard, Origin, Shared, card_source,
};
use crate::device_dir::Certificates;
use crate::{DeviceDir, DeviceKind, MakeRng, RaisedAlarm};

const MANAGER: &str = "MGR-1";
const SLEEVE: &str = "SLV-1";
const OTHER: &str = "SLV-2";
const PASSWORD: &str = "correct horse";
const ALARM: &str = "incorrect horse";
const CARD: &str = "debit";
const DECOY: &str = "decoy";
/// Longest wait for what must happen, in virtual time.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// Bytes that a pipe holds.
const PIPE: usize = 1024 * 1024;

struct FromNow(Instant);

impl Clock for FromNow {
    fn now(&self) -> UnixTime {
        NOW.plus(self.0.elapsed())
    }
}

fn make_rng() -> MakeRng {
    Arc::new(|| Box::<SystemRng>::default())
}

fn password(text: &str) -> Secret {
    Secret::copied_from(text.as_bytes())
}

fn bank_card() -> BankCard {
    BankCard::new(&BankCardSettings::default(), Box::<SystemRng>::default())
}

/// A manager that serves.
struct Running {
    entrance: Entrance,
    orders: mpsc::Sender<ManagerOrder>,
    happenings: mpsc::Receiver<ManagerHappening>,
    alarms: mpsc::Receiver<RaisedAlarm>,
    serving: JoinHandle<Result<(), ManagerError>>,
    /// Its inside; it goes with it.
    shared: Weak<Shared>,
}

/// A manager, its two cards, and sleeves.
struct World {
    dir: TempDir,
    provider: Provider,
    clock: Arc<dyn Clock>,
    card: BankCard,
    decoy: BankCard,
    sleeves: BTreeMap<&'static str, Arc<SleeveConfig>>,
    pairings: BTreeMap<&'static str, Arc<Pairing>>,
    pki: TestPki,
    running: Option<Running>,
}

fn card(id: &str, label: &str, decoy: bool) -> CardSettings {
    let text = format!(
        "id = \"{id}\"\nlabel = \"{label}\"\ndecoy = {decoy}\naids = [\"{}\"]\n\
         limits = {{ currency = 156, max-amount = 50000 }}\n",
        data_encoding::HEXUPPER.encode(AID_DEBIT)
    );
    toml::from_str(&text).unwrap()
}

/// Two cards; nobody is asked.
fn settings() -> ManagerSettings {
    ManagerSettings {
        consent: Consent::Never,
        alarm: AlarmSettings {
            currency: Some(156),
            max_amount: Some(5_000),
            ..AlarmSettings::default()
        },
        cards: vec![card(CARD, "Debit card", false), card(DECOY, "Other card", true)],
        ..ManagerSettings::default()
    }
}

impl World {
    async fn new() -> Self {
        Self::of(settings()).await
    }

    async fn of(settings: ManagerSettings) -> Self {
        let (card, decoy) = (bank_card(), bank_card());
        Self::with(settings, card, decoy).await
    }

    async fn with(settings: ManagerSettings, card: BankCard, decoy: BankCard) -> Self {
        let provider = aws_lc::provider_of(Suite::X25519_P256_AES128GCM_SHA256).unwrap();
        let mut pki = TestPki::new(provider.clone(), 11);
        let dir = TempDir::new().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(FromNow(Instant::now()));
        let home = dir.path().join("manager");
        enrolled(&mut pki, &home, DeviceKind::Manager, MANAGER);
        let mut manager = ManagerDir::open(&home).unwrap();
        manager.set_settings(settings).unwrap();
        let mut rng = SystemRng::default();
        for (which, text) in [(Which::Login, PASSWORD), (Which::Alarm, ALARM)] {
            let ambient = (clock.now(), &mut rng as _);
            manager.set_password(which, Some(&password(text)), Cost::LEAST, ambient).unwrap();
        }
        drop(manager);
        let mut sleeves = BTreeMap::new();
        for id in [SLEEVE, OTHER] {
            let party = pki.party(Role::Sleeve, id);
            sleeves.insert(id, Arc::new(sleeve_config(&pki, &party, provider.clone())));
        }
        let pairings = BTreeMap::new();
        let running = None;
        let mut world = Self { dir, provider, clock, card, decoy, sleeves, pairings, pki, running };
        world.start().await;
        world
    }

    /// With both sleeves paired.
    async fn paired() -> Self {
        let mut world = Self::new().await;
        world.pair_both().await;
        world
    }

    async fn paired_of(settings: ManagerSettings) -> Self {
        let mut world = Self::of(settings).await;
        world.pair_both().await;
        world
    }

    async fn pair_both(&mut self) {
        for sleeve in [SLEEVE, OTHER] {
            self.open_window(60).await;
            self.pair(sleeve, true).await.unwrap();
            self.until(|told| matches!(told, ManagerHappening::WindowClosed { .. })).await;
        }
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join("manager")
    }

    /// Its directory, once nobody else has it.
    async fn opened(&self) -> ManagerDir {
        loop {
            match ManagerDir::open(&self.home()) {
                Err(ManagerError::Busy) => tokio::time::sleep(Duration::from_millis(1)).await,
                opened => return opened.unwrap(),
            }
        }
    }

    fn made(&self, dir: ManagerDir) -> Result<Manager, ManagerError> {
        let held =
            HeldCards::default().with(CARD, opens(&self.card)).with(DECOY, opens(&self.decoy));
        let cards = card_source(dir.settings(), held)?;
        Manager::new(dir, cards, self.clock.clone(), make_rng())
    }

    async fn start(&mut self) {
        let mut manager = self.made(self.opened().await).unwrap();
        let entrance = manager.entrance();
        let (raise, alarms) = mpsc::channel(4);
        manager.alarms_to(raise);
        let (orders, ordered) = mpsc::channel(8);
        let (tell, happenings) = mpsc::channel(256);
        let shared = Arc::downgrade(&manager.shared);
        let serving = tokio::spawn(manager.serve(ordered, tell));
        self.running = Some(Running { entrance, orders, happenings, alarms, serving, shared });
    }

    /// The program ends as it should, and is started again.
    async fn restart(&mut self) {
        self.stop().await.unwrap();
        self.start().await;
    }

    async fn stop(&mut self) -> Result<(), ManagerError> {
        let running = self.running.take().unwrap();
        running.orders.send(ManagerOrder::Stop).await.unwrap();
        running.serving.await.unwrap()
    }

    /// The program is gone from one moment to the next.
    async fn crash(&mut self) {
        let running = self.running.take().unwrap();
        running.serving.abort();
        assert!(running.serving.await.unwrap_err().is_cancelled());
    }

    fn run(&mut self) -> &mut Running {
        self.running.as_mut().unwrap()
    }

    async fn order(&mut self, order: ManagerOrder) {
        self.run().orders.send(order).await.unwrap();
    }

    async fn open_window(&mut self, seconds: u32) {
        self.order(ManagerOrder::OpenWindow { seconds }).await;
        self.until(|told| matches!(told, ManagerHappening::WindowOpened { .. })).await;
    }

    /// What is told next.
    async fn told(&mut self) -> ManagerHappening {
        timeout(PATIENCE, self.run().happenings.recv()).await.unwrap().unwrap()
    }

    /// The first that is wanted; and all before it.
    async fn until(&mut self, wanted: impl Fn(&ManagerHappening) -> bool) -> Vec<ManagerHappening> {
        let mut all = Vec::new();
        loop {
            all.push(self.told().await);
            if all.last().is_some_and(&wanted) {
                return all;
            }
        }
    }

    /// Why this session ended.
    async fn ended(&mut self, session: u32) -> String {
        loop {
            if let ManagerHappening::Ended { session: ended, check, .. } = self.told().await
                && ended == session
            {
                return check;
            }
        }
    }

    /// A pipe to the manager.
    async fn pipe(&mut self) -> DuplexStream {
        self.pipe_from(Origin::Address(IpAddr::V4(Ipv4Addr::LOCALHOST))).await
    }

    async fn pipe_from(&mut self, origin: Origin) -> DuplexStream {
        let (ours, theirs) = duplex(PIPE);
        assert!(self.run().entrance.enter(theirs, origin).await);
        ours
    }

    /// Logged in.
    async fn inside(&mut self, sleeve: &'static str) -> Hand {
        let mut hand = self.connect(sleeve).await.unwrap();
        hand.login(PASSWORD).await.unwrap();
        hand
    }

    /// Every line of its audit.
    fn audit(&self) -> String {
        std::fs::read_to_string(self.home().join("audit.jsonl")).unwrap()
    }

    fn audited(&self, what: &str) -> usize {
        self.audit().lines().filter(|line| line.contains(what)).count()
    }
}

/// How a card of this process is opened.
fn opens(card: &BankCard) -> impl Fn() -> Result<OpenCard, LinkError> + Send + Sync + use<> {
    let card = card.clone();
    move || {
        let (atr, again) = (card.answer_to_reset(), card.clone());
        let reset = Box::new(move || {
            again.restart();
            Ok(again.answer_to_reset())
        });
        Ok(OpenCard::new(Box::new(card.clone()), atr, reset))
    }
}

/// A device's directory with a certificate of this tree.
fn enrolled(pki: &mut TestPki, path: &Path, kind: DeviceKind, id: &str) {
    let (provider, role) = (pki.provider.clone(), kind.role());
    let mut rng = testkit::rng::seeded(id.len() as u64);
    let mut dir = DeviceDir::open_or_make_of(kind, path, id, &provider, &mut rng).unwrap();
    let key = dir.key(&provider).unwrap();
    let identity = Identity::new(role, id).unwrap();
    let csr = request(&provider, &identity, &*key, &mut rng).unwrap();
    let (certificate, _) = pki.certify(role, &csr);
    let pem = |der: &[u8]| pem::encode(&Pem::new("CERTIFICATE", der));
    let certificates = Certificates {
        own: &pem(&certificate),
        encryption: None,
        device_issuer: &pem(pki.issuer(Role::Reader)),
        server_issuer: &pem(pki.issuer(Role::Server)),
        root: &pem(pki.root()),
    };
    dir.store_enrolment("server", &certificates, &provider, NOW).unwrap();
}

/// SELECT by name.
fn select(aid: &[u8]) -> Vec<u8> {
    [&[0x00, 0xa4, 0x04, 0x00, aid.len() as u8], aid, &[0x00]].concat()
}
