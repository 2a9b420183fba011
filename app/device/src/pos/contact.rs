//! One contact with the server: the channel, then the flow (E2–E8).

use std::sync::Arc;
use std::time::Duration;

use countersign_channel::{Error, ReaderChannel, ReaderConfig, ReaderEvent};
use countersign_crypto::{CryptoRng, UnixTime};
use countersign_injection::message::{InjectionId, KeyToken};
use countersign_injection::terminal::{Failure, TerminalEvent, TerminalFlow, TerminalWork};
use countersign_net::{Clock, Connection, NetError, Next, Transport};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Pos, PosError};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// A key that was injected and is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InjectedKey {
    /// The place.
    pub slot: u8,
    /// The injection.
    pub injection: String,
    /// Key check value.
    pub kcv: Vec<u8>,
}

/// A key that waited from an earlier contact and will not be confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discarded {
    /// The injection.
    pub injection: String,
    /// Why.
    pub check: String,
}

/// What a contact did.
#[derive(Debug, Default)]
pub struct Updated {
    /// It was bound to a KDH, the first one or another.
    pub bound: bool,
    /// Its binding was ended.
    pub unbound: bool,
    /// Keys in use from now on.
    pub keys: Vec<InjectedKey>,
    /// Keys that were erased.
    pub discarded: Vec<Discarded>,
    /// Why it did not come to its end, if it did not. What is above was done all the same.
    pub failure: Option<PosError>,
}

impl Pos {
    /// The one button (E8): binds if needed, takes what waits at the server, checks it, uses it.
    /// `gateway` is `HOST:PORT`. The old keys stay until the new ones are confirmed; a contact that
    /// breaks off is gone on with by the next one.
    pub async fn update(
        &mut self,
        gateway: &str,
        clock: Arc<dyn Clock>,
        rng: impl Fn() -> Box<dyn CryptoRng + Send>,
    ) -> Updated {
        let mut updated = Updated::default();
        if let Err(error) = self.contact(gateway, clock, &rng, &mut updated).await {
            updated.failure = Some(error);
        }
        updated
    }

    async fn contact(
        &mut self,
        gateway: &str,
        clock: Arc<dyn Clock>,
        rng: &dyn Fn() -> Box<dyn CryptoRng + Send>,
        updated: &mut Updated,
    ) -> Result<(), PosError> {
        let unreachable =
            |detail: String| PosError::Unreachable { gateway: gateway.to_owned(), detail };
        let config: Arc<ReaderConfig> =
            Arc::new(self.dir.terminal_config(&self.dir.provider(), clock.now())?);
        let connect = async {
            let stream = TcpStream::connect(gateway).await?;
            stream.set_nodelay(true).map(|()| stream)
        };
        let stream = match timeout(CONNECT_TIMEOUT, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(error.to_string())),
            Err(_) => return Err(unreachable("no answer".to_owned())),
        };
        let mut own_rng = rng();
        let channel = ReaderChannel::new(config, clock.now(), &mut *own_rng);
        let channel = channel.map_err(PosError::Channel)?;
        let connection = Connection::new(channel, stream, clock, own_rng);
        let mut contact = Contact { pos: self, connection, rng: rng(), updated };
        let result = contact.run().await;
        // Tell the server that this was all, if it still listens.
        let _gone = contact.connection.machine().close();
        let _gone = contact.connection.flush().await;
        result.map_err(|error| match error {
            Stopped::Pos(error) => error,
            Stopped::Net(NetError::Machine(error)) => PosError::Channel(error),
            Stopped::Net(other) => unreachable(other.to_string()),
        })
    }
}

enum Stopped {
    Pos(PosError),
    Net(NetError<Error>),
}

impl From<PosError> for Stopped {
    fn from(error: PosError) -> Self {
        Self::Pos(error)
    }
}

impl From<NetError<Error>> for Stopped {
    fn from(error: NetError<Error>) -> Self {
        Self::Net(error)
    }
}

struct Contact<'a, T> {
    pos: &'a mut Pos,
    connection: Connection<ReaderChannel, T>,
    rng: Box<dyn CryptoRng + Send>,
    updated: &'a mut Updated,
}

impl<T: Transport> Contact<'_, T> {
    async fn run(&mut self) -> Result<(), Stopped> {
        let due = self.connection.now().plus(HANDSHAKE_TIMEOUT);
        match self.connection.next(Some(due)).await? {
            Next::Event(ReaderEvent::Connected) => {}
            Next::Deadline => return Err(PosError::Channel(Error::Timeout).into()),
            _ => return Err(PosError::Channel(Error::Truncated).into()),
        }
        let mut flow = TerminalFlow::new(self.pos.standing()?, self.connection.now());
        loop {
            if let Some(message) = flow.poll_transmit() {
                let sent = self.connection.machine().send(&message);
                sent.map_err(PosError::Channel)?;
            }
            if let Some(event) = flow.poll_event() {
                let now = self.connection.now();
                match self.work(event, now)? {
                    Some(work) => flow.answer(now, work).map_err(PosError::Flow)?,
                    None => {
                        self.connection.flush().await?;
                        return Ok(());
                    }
                }
                continue;
            }
            match self.connection.next(flow.poll_timeout()).await? {
                Next::Event(ReaderEvent::Data(bytes)) => {
                    flow.handle(self.connection.now(), &bytes).map_err(PosError::Flow)?;
                }
                Next::Event(ReaderEvent::Connected) => {}
                Next::Event(ReaderEvent::Closed) | Next::Ended => {
                    return Err(PosError::Channel(Error::Truncated).into());
                }
                Next::Deadline => {
                    flow.handle_timeout(self.connection.now()).map_err(PosError::Flow)?;
                }
            }
        }
    }

    /// Does what the flow asks; `None` at its end.
    fn work(
        &mut self,
        event: TerminalEvent,
        now: UnixTime,
    ) -> Result<Option<TerminalWork>, PosError> {
        let Self { pos, rng, updated, .. } = self;
        let rng: &mut dyn CryptoRng = &mut **rng;
        let work = match event {
            TerminalEvent::CheckBinding(binding) => pos.bind(&binding, now)?,
            TerminalEvent::Rebind(binding) => pos.rebind(&binding, now)?,
            TerminalEvent::RebindByCa(binding) => pos.rebind_by_ca(&binding, now)?,
            TerminalEvent::Unbind(token) => pos.unbind(token.as_slice(), now)?,
            TerminalEvent::MakeRequest => pos.request(now, rng)?,
            TerminalEvent::Install(key) => install(pos, &key, now, rng)?,
            TerminalEvent::Activate(injection) => {
                if let Some(slot) = pos.activate(&injection)? {
                    updated.keys.push(injected(pos, slot, &injection));
                }
                TerminalWork::Kept
            }
            TerminalEvent::Discard { injection, refusal } => {
                pos.discard(&injection)?;
                let injection = injection.as_str().to_owned();
                let check = refusal.check.as_str().to_owned();
                updated.discarded.push(Discarded { injection, check });
                TerminalWork::Kept
            }
            TerminalEvent::Done => return Ok(None),
            TerminalEvent::Failed(failure) => return Err(told(failure)),
        };
        updated.bound |= matches!(work, TerminalWork::Bound(_));
        updated.unbound |= matches!(work, TerminalWork::Unbound);
        Ok(Some(work))
    }
}

fn install(
    pos: &mut Pos,
    key: &KeyToken,
    now: UnixTime,
    rng: &mut dyn CryptoRng,
) -> Result<TerminalWork, PosError> {
    let work = pos.install(key, now, rng)?;
    if let TerminalWork::Refused(check) = &work {
        tracing::warn!(check = check.as_str(), slot = key.slot, "a key token was refused");
    }
    Ok(work)
}

fn injected(pos: &Pos, slot: u8, injection: &InjectionId) -> InjectedKey {
    let active = pos.kept.slots.get(&slot).and_then(|kept| kept.active.as_ref());
    let kcv = active.map(|held| held.kcv.0.clone()).unwrap_or_default();
    InjectedKey { slot, injection: injection.as_str().to_owned(), kcv }
}

fn told(failure: Failure) -> PosError {
    match failure {
        Failure::Server(refusal) => PosError::Server {
            check: refusal.check.as_str().to_owned(),
            retry: refusal.retry(),
            incident: refusal.incident.as_str().to_owned(),
        },
        Failure::Token { check, incident, .. } => PosError::Token {
            check: check.as_str().to_owned(),
            incident: incident.as_str().to_owned(),
        },
    }
}
