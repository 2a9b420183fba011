//! A service with a hierarchy, and terminals made of the public parts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_channel::DirectoryEntry;
use countersign_crypto::{Secret, SecureElement, UnixTime, aws_lc};
use countersign_hsm::{FileVault, MemoryStorage, Vault};
use countersign_injection::message::{
    Binding, CheckValue, CrlNumber, Installed, KeyToken, ServerMessage,
};
use countersign_injection::terminal::{
    Failure, Standing, TerminalEvent, TerminalFlow, TerminalWork,
};
use countersign_injection::{Bounded, Name};
use countersign_net::Clock;
use countersign_pki::{
    CertificateNumber, Identity, Issuer, Role as PkiRole, Validity, request, self_signed,
};
use countersign_service::{
    Actor, Ambient, AssignKey, AssignTo, Authority, Gated, InjectionSession, KeyToMake,
    KnownDevice, Policy, SamPool, Service, ServiceError, TerminalRequest,
};
use countersign_store::{
    AuditRow, DeviceKind, Injection, KeyScope, MAX_PAGE, Role, Store, StoreError, Tx, Vote,
};
use testkit::pki::uncertified_encryption;
use testkit::rng::seeded;
use tr31::aws_lc::AwsLc as Ciphers;
use tr34::aws_lc::{AwsLc, SoftwareRsaKey};
use tr34::krd::{Receiver, State};
use tr34::token::{CtKrd, RtKrd};
use tr34::{Certificate, IssuingCa, RsaKey};

pub(crate) const START: UnixTime = UnixTime::from_secs(1_800_000_000);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);
/// Of the hierarchy, and of terminals unless a test says otherwise: fit for TDES keys.
pub(crate) const BITS: u32 = 2048;
const YEARS: Duration = Duration::from_secs(15 * 366 * 86_400);

/// The time, and what happens when the service asks for random numbers next.
struct TestClock(AtomicU64, Mutex<Option<Work>>);

type Work = Box<dyn FnOnce() + Send>;

impl Clock for TestClock {
    fn now(&self) -> UnixTime {
        UnixTime::from_millis(self.0.load(Ordering::SeqCst))
    }
}

pub(crate) struct Plant {
    pub(crate) service: Arc<Service>,
    pub(crate) asker: Actor,
    voter: Actor,
    clock: Arc<TestClock>,
}

fn service(store: Store, vault: Arc<dyn Vault>, clock: Arc<TestClock>, policy: Policy) -> Service {
    static SEED: AtomicU64 = AtomicU64::new(1);
    let hooked = clock.clone();
    let rng = move || {
        let work = hooked.1.lock().unwrap().take();
        work.into_iter().for_each(|work| work());
        seeded(SEED.fetch_add(1, Ordering::SeqCst))
    };
    let ambient = Ambient { clock, rng: Arc::new(move || Box::new(rng())) };
    let sams = SamPool::start(Vec::new(), Default::default(), &ambient);
    Service::new(store, authority(), sams, policy, ambient)
        .with_vault(vault, Arc::new(AwsLc))
        .with_ciphers(Arc::new(Ciphers))
}

impl Plant {
    pub(crate) async fn new() -> Self {
        Self::with(Policy::default()).await
    }

    pub(crate) async fn with(policy: Policy) -> Self {
        let clock = Arc::new(TestClock(AtomicU64::new(START.as_millis()), Mutex::default()));
        let vault = Arc::new(FileVault::new(MemoryStorage::new(), seeded(77)));
        let store = Store::in_memory().await.unwrap();
        let service = service(store, vault, clock.clone(), policy);
        let mut operators = Vec::new();
        for name in ["asker", "voter"] {
            let made = service.add_operator(&Actor::Console, name, &[Role::Admin]).await.unwrap();
            operators.push(Actor::Operator(made.0));
        }
        let [asker, voter] = operators.try_into().ok().unwrap();
        service.init_rki(&Actor::Console, BITS).await.unwrap();
        Self { service: Arc::new(service), asker, voter, clock }
    }

    /// Another process takes over, on the same database and vault.
    pub(crate) fn restart(&mut self) {
        let (store, vault) = (self.service.store().clone(), self.service.vault().unwrap().clone());
        let again = service(store, vault, self.clock.clone(), Policy::default());
        self.service = Arc::new(again);
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

    /// The id of an approval that was asked for, once the other operator has agreed.
    pub(crate) async fn agreed<T>(&self, asked: Result<Gated<T>, ServiceError>) -> String {
        let Ok(Gated::Pending(approval)) = asked else { panic!("it must need approval") };
        self.service.vote(&self.voter, &approval.id, Vote::Approve).await.unwrap();
        approval.id
    }

    /// A TDES key of which each terminal gets its own.
    pub(crate) async fn tdes_key(&self, name: &str) -> String {
        self.key(name, "T", 16).await
    }

    pub(crate) async fn key(&self, name: &str, algorithm: &str, length: u32) -> String {
        let new = KeyToMake {
            name: name.to_owned(),
            scope: KeyScope::PerTerminal,
            usage: "K0".to_owned(),
            algorithm: algorithm.to_owned(),
            mode: "D".to_owned(),
            exportability: "N".to_owned(),
            length,
            ksn: None,
        };
        let id = self.agreed(self.service.generate_key(&self.asker, &new, None).await).await;
        match self.service.generate_key(&self.asker, &new, Some(&id)).await {
            Ok(Gated::Done(record)) => record.key.id,
            other => panic!("{other:?}"),
        }
    }

    /// Assigns a key to a slot of a terminal.
    pub(crate) async fn assign(&self, key: &str, slot: u8, terminal: &str) -> Injection {
        self.advance(Duration::from_millis(1)); // ids sort by time
        let to = AssignTo::Terminals(vec![terminal.to_owned()]);
        let wanted = AssignKey { key_id: key.to_owned(), slot, to };
        let id = self.agreed(self.service.assign_key(&self.asker, &wanted, None).await).await;
        match self.service.assign_key(&self.asker, &wanted, Some(&id)).await {
            Ok(Gated::Done(assigned)) => assigned.injections[0].clone(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn injection(&self, id: &str) -> Injection {
        self.service.injection(id).await.unwrap()
    }

    /// A terminal that is on the list and has enrolled, with an RSA key of this size.
    pub(crate) async fn terminal(&self, serial: &str, bits: u32) -> Pos {
        let allowed = self.service.allow_terminal(&self.asker, serial, "", "").await.unwrap();
        self.enrol(serial, allowed.code.expose(), bits).await
    }

    /// A terminal that enrols with this code and an RSA key of its own.
    pub(crate) async fn enrol(&self, serial: &str, code: &str, bits: u32) -> Pos {
        let provider = aws_lc::provider();
        let key = provider.signature.generate(&mut seeded(5)).unwrap().key;
        let identity = Identity::new(PkiRole::Terminal, serial).unwrap();
        let rsa = SoftwareRsaKey::generate(bits).unwrap();
        let party = tr34::Party::new(tr34::Role::Krd, serial).unwrap();
        let request = TerminalRequest {
            serial: serial.to_owned(),
            code: Secret::copied_from(code.as_bytes()),
            channel: request(&provider, &identity, &*key, &mut seeded(2)).unwrap(),
            krd: tr34::request(&rsa as &dyn RsaKey, &party).unwrap(),
        };
        let enrolled = self.service.enrol_terminal("192.0.2.7", request).await.unwrap();
        let number = countersign_pki::number(&enrolled.certificate).unwrap();
        let known = KnownDevice {
            id: enrolled.record.device.device.id,
            kind: DeviceKind::Terminal,
            entry: DirectoryEntry { serial: serial.to_owned(), certificate_number: number },
        };
        Pos {
            known,
            rsa,
            certificate: Certificate::parse(&enrolled.krd).unwrap(),
            root: enrolled.hierarchy.root.clone(),
            ca_krd: enrolled.hierarchy.ca_krd.clone(),
            cas: vec![enrolled.hierarchy.ca_kdh.clone()],
            state: State::default(),
            slots: BTreeMap::new(),
            skew: Duration::ZERO,
            lies: false,
            fixed_request: None,
        }
    }

    /// The audit's rows with a failed check, oldest first: action and check.
    pub(crate) async fn refusals(&self) -> Vec<(String, String)> {
        let mut rows: Vec<AuditRow> = self.service.audit_page(None, MAX_PAGE).await.unwrap().items;
        rows.reverse();
        let told = |row: AuditRow| Some((row.entry.action, row.entry.check?));
        rows.into_iter().filter_map(told).collect()
    }

    /// One contact; `middle` may alter what the server says.
    pub(crate) async fn contact(
        &self,
        pos: &mut Pos,
        mut middle: impl FnMut(ServerMessage, &Pos) -> ServerMessage,
    ) -> Result<(), Failure> {
        let mut session = InjectionSession::new(self.service.clone(), pos.known.clone());
        let mut flow = TerminalFlow::new(pos.standing(), self.service.now());
        loop {
            let now = self.service.now();
            if let Some(message) = flow.poll_transmit() {
                let (answer, handled) = session.handle(&message).await;
                handled.unwrap();
                for said in &answer.messages {
                    let said = middle(ServerMessage::decode(said).unwrap(), pos);
                    flow.handle(now, &said.encode()).unwrap();
                }
                continue;
            }
            let event = flow.poll_event().unwrap();
            match &event {
                TerminalEvent::Done => {
                    // The end of a binding is said last.
                    if let Some(last) = flow.poll_transmit() {
                        session.handle(&last).await.1.unwrap();
                    }
                    return Ok(());
                }
                TerminalEvent::Failed(failure) => return Err(failure.clone()),
                _ => {}
            }
            let work = pos.work(event, now);
            flow.answer(now, work).unwrap();
        }
    }

    /// A contact that nobody tampers with.
    pub(crate) async fn update(&self, pos: &mut Pos) -> Result<(), Failure> {
        self.contact(pos, |said, _| said).await
    }
}

/// The refusal's public name.
pub(crate) fn check(result: Result<(), Failure>) -> String {
    match result.unwrap_err() {
        Failure::Server(refusal) => refusal.check.as_str().to_owned(),
        Failure::Token { check, incident, .. } => {
            assert!(incident.as_str().starts_with("inc_"), "an incident goes with it");
            check.as_str().to_owned()
        }
    }
}

/// What a terminal has in a slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) active: Option<Vec<u8>>,
    pending: Option<(String, Vec<u8>)>,
}

/// A terminal whose keys lie in memory.
pub(crate) struct Pos {
    pub(crate) known: KnownDevice,
    pub(crate) rsa: SoftwareRsaKey,
    pub(crate) certificate: Certificate,
    pub(crate) root: Certificate,
    ca_krd: Certificate,
    pub(crate) cas: Vec<Certificate>,
    pub(crate) state: State,
    /// By number; what stands for a key is its check value.
    pub(crate) slots: BTreeMap<u8, Slot>,
    /// How far its clock is ahead.
    pub(crate) skew: Duration,
    /// Reports a check value that is not the key's.
    pub(crate) lies: bool,
    /// Sends this request again.
    pub(crate) fixed_request: Option<Vec<u8>>,
}

impl Pos {
    pub(crate) fn active(&self, slot: u8) -> Option<&[u8]> {
        self.slots.get(&slot)?.active.as_deref()
    }

    /// The nonce that is outstanding.
    pub(crate) fn nonce(&self) -> tr34::token::Nonce {
        self.state.outstanding().unwrap().nonce.clone()
    }

    pub(crate) fn standing(&self) -> Standing {
        let ct_krd = CtKrd { certificate: self.certificate.raw() }.encode();
        let pending = self.slots.iter().filter_map(|(slot, kept)| {
            let (injection, kcv) = kept.pending.as_ref()?;
            let kcv = CheckValue::new(kcv)?;
            Some(Installed { injection: Name::new(injection)?, slot: *slot, kcv })
        });
        Standing {
            ct_krd: Bounded::new(&ct_krd).unwrap(),
            bound: self.state.kdh().map(|kdh| tr34::Rsa::sha256(&AwsLc, kdh.raw())),
            pending: pending.collect(),
        }
    }

    /// Its own CAs, and the one that came if it descends from the root.
    fn cas_with(&self, binding: &Binding, now: UnixTime) -> Vec<Certificate> {
        let came = Certificate::parse(binding.ca_kdh.as_slice()).ok();
        let role = tr34::Role::CaKdh;
        let came = came.and_then(|ca| IssuingCa::verify(&AwsLc, ca, &self.root, role, now).ok());
        let came = came.map(|ca| ca.certificate().clone());
        self.cas.iter().cloned().chain(came).collect()
    }

    pub(crate) fn work(&mut self, event: TerminalEvent, now: UnixTime) -> TerminalWork {
        let now = now.plus(self.skew);
        let cas = match &event {
            TerminalEvent::CheckBinding(binding)
            | TerminalEvent::Rebind(binding)
            | TerminalEvent::RebindByCa(binding) => self.cas_with(binding, now),
            _ => self.cas.clone(),
        };
        let state = self.state.clone();
        let receiver = Receiver {
            rsa: &AwsLc,
            ciphers: &Ciphers,
            key: &self.rsa,
            certificate: &self.certificate,
            kdh_cas: &cas,
            krd_ca: &self.ca_krd,
            policy: tr34::krd::Policy::STRICT,
        };
        let bound = |state: &State| {
            TerminalWork::Bound(tr34::Rsa::sha256(&AwsLc, state.kdh().unwrap().raw()))
        };
        let (work, next) = match &event {
            TerminalEvent::CheckBinding(binding) => {
                match receiver.bind(&state, binding.token.as_slice(), now) {
                    Ok(next) => (bound(&next), Some(next)),
                    Err(error) => (refused(error.check()), None),
                }
            }
            TerminalEvent::Rebind(binding) => {
                match receiver.rebind(&state, binding.token.as_slice(), now) {
                    Ok(next) => (bound(&next), Some(next)),
                    Err(error) => (refused(error.error.check()), error.state.map(|state| *state)),
                }
            }
            TerminalEvent::RebindByCa(binding) => {
                match receiver.rebind_by_ca(&state, binding.token.as_slice(), now) {
                    Ok(next) => (bound(&next), Some(next)),
                    Err(error) => (refused(error.check()), None),
                }
            }
            TerminalEvent::Unbind(token) => match receiver.unbind(&state, token.as_slice(), now) {
                Ok(next) => (TerminalWork::Unbound, Some(next)),
                Err(error) => (refused(error.error.check()), error.state.map(|state| *state)),
            },
            TerminalEvent::MakeRequest => {
                static NONCES: AtomicU64 = AtomicU64::new(1 << 32);
                let mut rng = seeded(NONCES.fetch_add(1, Ordering::SeqCst));
                let (request, next) = receiver.request(&state, &mut rng, now).unwrap();
                let request = self.fixed_request.clone().unwrap_or(request);
                RtKrd::parse(&request).unwrap();
                let request = Bounded::new(&request).unwrap();
                let crl_seen = CrlNumber::new(&seen(&state)).unwrap();
                (TerminalWork::Requested { request, crl_seen }, Some(next))
            }
            TerminalEvent::Install(KeyToken { injection, slot, token }) => {
                match receiver.receive(&state, token.as_slice(), now) {
                    Ok(verified) => {
                        let installation = verified.install();
                        let kcv = installation.kcv.unwrap().as_bytes().to_vec();
                        let pending = Some((injection.as_str().to_owned(), kcv.clone()));
                        self.slots.entry(*slot).or_default().pending = pending;
                        let mut told = kcv;
                        told[0] ^= u8::from(self.lies);
                        let told = CheckValue::new(&told).unwrap();
                        (TerminalWork::Installed(told), Some(installation.state))
                    }
                    Err(error) => (refused(error.error.check()), error.state.map(|state| *state)),
                }
            }
            TerminalEvent::Activate(injection) => {
                for slot in self.slots.values_mut() {
                    let is_it = |pending: &mut (String, Vec<u8>)| pending.0 == injection.as_str();
                    if let Some((_, kcv)) = slot.pending.take_if(is_it) {
                        slot.active = Some(kcv);
                    }
                }
                (TerminalWork::Kept, None)
            }
            TerminalEvent::Discard { injection, .. } => {
                for slot in self.slots.values_mut() {
                    slot.pending.take_if(|pending| pending.0 == injection.as_str());
                }
                (TerminalWork::Kept, None)
            }
            TerminalEvent::Done | TerminalEvent::Failed(_) => panic!("it has ended"),
        };
        if matches!(work, TerminalWork::Bound(_)) {
            self.cas = cas;
        }
        self.state = next.unwrap_or(state);
        work
    }
}

fn refused(check: &str) -> TerminalWork {
    TerminalWork::Refused(Name::clipped(check))
}

/// The number of the newest list seen of any CA, without leading zeros.
fn seen(state: &State) -> Vec<u8> {
    let number = state.crls().iter().filter_map(tr34::CrlSeen::number).max();
    let octets = number.map(|number| number.as_bytes().to_vec()).unwrap_or_default();
    octets.into_iter().skip_while(|octet| *octet == 0).collect()
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
    let device_issuer = Issuer::from_certificate(&provider, &root)
        .unwrap()
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
