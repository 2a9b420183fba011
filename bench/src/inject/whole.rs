//! Whole injections: the service with SQLite on a disk, and terminals that check, open and report.

use std::path::Path;
use std::sync::Arc;

use countersign_channel::ReaderId;
use countersign_crypto::{Secret, UnixTime};
use countersign_injection::Bounded;
use countersign_injection::message::{CheckValue, CrlNumber, Fingerprint, KeyToken};
use countersign_injection::terminal::{Standing, TerminalEvent, TerminalFlow, TerminalWork};
use countersign_pki::{self as pki, Identity};
use countersign_server::{DataDir, open_service};
use countersign_service::{
    Actor, AssignKey, AssignTo, Gated, InjectionSession, KeyToMake, KnownDevice, Service,
    ServiceError, TerminalRequest,
};
use countersign_store::{KeyScope, Role, Vote};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tr34::aws_lc::{AwsLc, SoftwareRsaKey};
use tr34::krd::{Policy, Receiver, State};
use tr34::token::CtKrd;
use tr34::{Certificate, Party, Rsa};

use crate::Fallible;
use crate::card_read::make_data_dir;
use crate::report::Row;

/// Terminals that are served at the same time.
const TERMINALS: usize = 16;
/// Bits of every RSA key: enough for the TDES keys that are injected.
const BITS: u32 = 2048;
/// Most keys of a terminal.
const SLOTS_MAX: usize = 32;

/// Measures.
pub(super) fn rows(rounds: usize) -> Fallible<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(rounds.clamp(2, SLOTS_MAX)))
}

async fn measure(slots: usize) -> Fallible<Vec<Row>> {
    let dir = tempfile::tempdir()?;
    let house = House::new(dir.path()).await?;
    let mut terminals = Vec::new();
    for number in 0..=TERMINALS {
        let mut terminal = house.enrol(number).await?;
        // The first contact binds, and nothing waits yet.
        if terminal.contact(&house.service).await? != 0 {
            return Err("a key came that nobody assigned".into());
        }
        terminals.push(terminal);
    }
    let key_id = house.key().await?;
    let all: Vec<_> = terminals.iter().map(|terminal| terminal.known.id.clone()).collect();
    for slot in 0..slots {
        house.assign(&key_id, u8::try_from(slot)?, all.clone()).await?;
    }
    let rest = terminals.split_off(1);
    let alone = rate(&house.service, terminals, slots).await?;
    let many = rate(&house.service, rest, slots).await?;
    Ok(vec![
        Row::new("injections per second, one terminal", alone, "1/s"),
        Row::new(format!("injections per second, terminals at once: {TERMINALS}"), many, "1/s")
            .against("one terminal", alone),
    ])
}

/// Injections per second of wall time: each terminal has all its keys in one contact.
async fn rate(service: &Arc<Service>, terminals: Vec<Terminal>, slots: usize) -> Fallible<f64> {
    let expected = terminals.len() * slots;
    let started = Instant::now();
    let mut contacts = JoinSet::new();
    for mut terminal in terminals {
        let service = service.clone();
        contacts.spawn(async move { terminal.contact(&service).await });
    }
    let mut installed = 0;
    while let Some(contact) = contacts.join_next().await {
        installed += contact??;
    }
    let spent = started.elapsed();
    if installed != expected {
        return Err(format!("{installed} keys of {expected} were installed").into());
    }
    Ok(installed as f64 / spent.as_secs_f64())
}

/// A server's service, and two operators: one asks, one agrees.
struct House {
    service: Arc<Service>,
    ann: Actor,
    bob: Actor,
}

impl House {
    async fn new(dir: &Path) -> Fallible<Self> {
        let path = dir.join("data");
        let passphrase = Secret::copied_from(b"a bench protects nothing");
        make_data_dir(&path, &passphrase).await?;
        let (service, _keys) = open_service(&DataDir::open(&path)?, &passphrase, None, &[]).await?;
        service.init_rki(&Actor::Console, BITS).await?;
        let [ann, bob] = ["ann", "bob"].map(|name| {
            let service = service.clone();
            async move { service.add_operator(&Actor::Console, name, &[Role::Custodian]).await }
        });
        let (ann, bob) = (Actor::Operator(ann.await?.0), Actor::Operator(bob.await?.0));
        Ok(Self { service, ann, bob })
    }

    /// The other operator agrees.
    async fn agree<T>(&self, asked: Result<Gated<T>, ServiceError>) -> Fallible<String> {
        let Gated::Pending(approval) = asked? else {
            return Err("one operator alone did it".into());
        };
        self.service.vote(&self.bob, &approval.id, Vote::Approve).await?;
        Ok(approval.id)
    }

    /// A TDES key, another one for each terminal.
    async fn key(&self) -> Fallible<String> {
        let new = KeyToMake {
            name: "bench".to_owned(),
            scope: KeyScope::PerTerminal,
            usage: "K0".to_owned(),
            algorithm: "T".to_owned(),
            mode: "B".to_owned(),
            exportability: "N".to_owned(),
            length: 24,
            ksn: None,
        };
        let service = &self.service;
        let approval = self.agree(service.generate_key(&self.ann, &new, None).await).await?;
        match service.generate_key(&self.ann, &new, Some(&approval)).await? {
            Gated::Done(record) => Ok(record.key.id),
            Gated::Pending(_) => Err("an approval was not enough".into()),
        }
    }

    async fn assign(&self, key_id: &str, slot: u8, terminals: Vec<String>) -> Fallible<()> {
        let assign =
            AssignKey { key_id: key_id.to_owned(), slot, to: AssignTo::Terminals(terminals) };
        let service = &self.service;
        let approval = self.agree(service.assign_key(&self.ann, &assign, None).await).await?;
        match service.assign_key(&self.ann, &assign, Some(&approval)).await? {
            Gated::Done(_) => Ok(()),
            Gated::Pending(_) => Err("an approval was not enough".into()),
        }
    }

    async fn enrol(&self, number: usize) -> Fallible<Terminal> {
        let serial = format!("POS-{number}");
        let service = &self.service;
        let allowed = service.allow_terminal(&self.ann, &serial, "bench", "bench").await?;
        let provider = countersign_crypto::aws_lc::provider();
        let channel_key = provider.signature.generate(&mut *service.rng())?.key;
        let identity = Identity::new(pki::Role::Terminal, &serial)?;
        let channel = pki::request(&provider, &identity, &*channel_key, &mut *service.rng())?;
        let key = tokio::task::spawn_blocking(|| SoftwareRsaKey::generate(BITS)).await??;
        let krd = tr34::request(&key, &Party::new(tr34::Role::Krd, &serial)?)?;
        let code = Secret::copied_from(allowed.code.expose().as_bytes());
        let request = TerminalRequest { serial, code, channel, krd };
        let enrolled = service.enrol_terminal("bench", request).await?;
        let number = pki::number(&enrolled.certificate)?;
        let known = service.look_up(&ReaderId::CertificateNumber(number)).await;
        Ok(Terminal {
            known: known.map_err(|refusal| format!("the directory refuses: {refusal:?}"))?,
            key,
            certificate: Certificate::parse(&enrolled.krd)?,
            ca_krd: enrolled.hierarchy.ca_krd.clone(),
            ca_kdh: enrolled.hierarchy.ca_kdh.clone(),
            state: State::default(),
        })
    }
}

/// A terminal that keeps everything in memory, and of its keys the check values only.
struct Terminal {
    known: KnownDevice,
    key: SoftwareRsaKey,
    certificate: Certificate,
    ca_krd: Certificate,
    ca_kdh: Certificate,
    state: State,
}

impl Terminal {
    fn receiver(&self) -> Receiver<'_> {
        Receiver {
            rsa: &AwsLc,
            ciphers: &tr31::aws_lc::AwsLc,
            key: &self.key,
            certificate: &self.certificate,
            kdh_cas: std::slice::from_ref(&self.ca_kdh),
            krd_ca: &self.ca_krd,
            policy: Policy::STRICT,
        }
    }

    fn bound(&self) -> Option<Fingerprint> {
        self.state.kdh().map(|kdh| AwsLc.sha256(kdh.raw()))
    }

    /// One contact with the service, to its end; how many keys were confirmed.
    async fn contact(&mut self, service: &Arc<Service>) -> Fallible<usize> {
        let mut session = InjectionSession::new(service.clone(), self.known.clone());
        let ct_krd = CtKrd { certificate: self.certificate.raw() }.encode();
        let ct_krd = Bounded::new(&ct_krd).ok_or("CT_KRD is too long")?;
        let standing = Standing { ct_krd, bound: self.bound(), pending: Vec::new() };
        let mut flow = TerminalFlow::new(standing, service.now());
        let mut confirmed = 0;
        loop {
            let now = service.now();
            if let Some(message) = flow.poll_transmit() {
                let (answer, told) = session.handle(&message).await;
                told?;
                for message in answer.messages {
                    flow.handle(service.now(), &message)?;
                }
                continue;
            }
            let Some(event) = flow.poll_event() else {
                return Err("the server says nothing".into());
            };
            let work = match event {
                TerminalEvent::Done => return Ok(confirmed),
                TerminalEvent::Activate(_) => {
                    confirmed += 1;
                    TerminalWork::Kept
                }
                event => self.work(event, service, now)?,
            };
            flow.answer(now, work)?;
        }
    }

    fn work(
        &mut self,
        event: TerminalEvent,
        service: &Service,
        now: UnixTime,
    ) -> Fallible<TerminalWork> {
        match event {
            TerminalEvent::CheckBinding(binding) => {
                let token = binding.token.as_slice();
                self.state = self.receiver().bind(&self.state, token, now)?;
                Ok(TerminalWork::Bound(self.bound().ok_or("bound to nobody")?))
            }
            TerminalEvent::MakeRequest => {
                let made = self.receiver().request(&self.state, &mut *service.rng(), now)?;
                let (request, state) = made;
                self.state = state;
                let request = Bounded::new(&request).ok_or("RT_KRD is too long")?;
                Ok(TerminalWork::Requested { request, crl_seen: self.crl_seen()? })
            }
            TerminalEvent::Install(token) => self.install(&token, now),
            other => Err(format!("the server asks for what nobody ordered: {other:?}").into()),
        }
    }

    fn install(&mut self, token: &KeyToken, now: UnixTime) -> Fallible<TerminalWork> {
        let received = self.receiver().receive(&self.state, token.token.as_slice(), now)?;
        let installation = received.install();
        self.state = installation.state;
        let kcv = installation.kcv.ok_or("a key without a check value")?;
        let kcv = CheckValue::new(kcv.as_bytes()).ok_or("the check value is too long")?;
        Ok(TerminalWork::Installed(kcv))
    }

    /// The number of the newest list that was seen.
    fn crl_seen(&self) -> Fallible<CrlNumber> {
        let number = self.state.crls().last().and_then(tr34::CrlSeen::number);
        let octets = number.map(|number| *number.as_bytes()).unwrap_or_default();
        let zeros = octets.iter().take_while(|octet| **octet == 0).count();
        CrlNumber::new(&octets[zeros..]).ok_or_else(|| "a CRL number is too long".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_assigned_key_arrives() {
        let rows = rows(2).unwrap();
        assert_eq!(rows.len(), 2);
    }
}
