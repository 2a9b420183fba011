//! Meeting another device through the server (A9): the sleeve's way to a manager behind a home
//! router, and the manager's way to be met there.
//!
//! A [`RelayLink`] is a device's channel with the server, handshake C1 and its own certificate. A
//! sleeve [meets](RelayLink::meet) a manager on a connection of its own; a manager
//! [serves](RelayLink::serve) on one connection, which comes again when it is lost. Both get a
//! [`Meeting`], a byte stream, and run their own channel over it (A1, A2, A3): the server carries
//! records that it cannot read.

mod error;
mod line;
mod meeting;
mod serve;
mod session;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use countersign_channel::{Error, Heartbeat, ReaderChannel, ReaderEvent};
use countersign_crypto::CryptoRng;
use countersign_net::{Clock, Connection, NetError, Next};
use countersign_wallet::relay::{CloseReason, DeviceMessage, RelayMessage, Serial};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

pub use error::RelayError;
pub use meeting::Meeting;
pub use serve::{Incoming, LinkStatus, RaisedAlarm};

use crate::DeviceDir;
use line::Line;
use meeting::Half;
use session::Session;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the server may take to answer a request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a sleeve goes on from one server to another.
const ELSEWHERE_MAX: u32 = 3;
/// The first pause before coming again; it doubles, up to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How often the link to the server is proven alive, and how long the answer may take.
pub const LINK_HEARTBEAT: Heartbeat =
    Heartbeat { every: Duration::from_secs(60), within: Duration::from_secs(20) };

/// Makes a generator for one connection.
pub type MakeRng = Arc<dyn Fn() -> Box<dyn CryptoRng + Send> + Send + Sync>;

/// How a device reaches the relay. Cheap to clone; each connection is made when it is needed, with
/// the certificates that the directory has then.
#[derive(Clone)]
pub struct RelayLink {
    dir: PathBuf,
    gateway: String,
    clock: Arc<dyn Clock>,
    rng: MakeRng,
    heartbeat: Heartbeat,
}

type Link = Connection<ReaderChannel, Line>;

impl RelayLink {
    /// For the sleeve or manager in this directory; `gateway` is `HOST:PORT`.
    ///
    /// # Errors
    /// [`RelayError::Dir`] for another kind of device, or one that is not enrolled.
    pub fn new(
        dir: &DeviceDir,
        gateway: &str,
        clock: Arc<dyn Clock>,
        rng: MakeRng,
    ) -> Result<Self, RelayError> {
        dir.relay_config(&dir.provider(), clock.now())?;
        let (dir, gateway) = (dir.path().to_owned(), gateway.to_owned());
        Ok(Self { dir, gateway, clock, rng, heartbeat: LINK_HEARTBEAT })
    }

    /// With other times of the link's own heartbeat. The server gives a silent link up after some
    /// minutes.
    #[must_use]
    pub fn with_heartbeat(self, heartbeat: Heartbeat) -> Self {
        Self { heartbeat, ..self }
    }

    /// Meets a manager, by its serial number. If that is at another server, the sleeve goes there.
    ///
    /// # Errors
    /// [`RelayError`]; `manager-absent` in [`RelayError::Refused`] also if there is no such
    /// manager.
    pub async fn meet(&self, manager: &str) -> Result<Meeting, RelayError> {
        let serial = Serial::new(manager).filter(|serial| !serial.is_empty());
        let serial = serial.ok_or(RelayError::Serial)?;
        let mut address = self.gateway.clone();
        for _ in 0..ELSEWHERE_MAX {
            let mut link = self.connect(&address).await?;
            say(&mut link, &DeviceMessage::Meet(serial.clone())).await?;
            match hear(&mut link).await? {
                RelayMessage::Met(met) => {
                    let wake = Arc::<Notify>::default();
                    let half = Arc::new(Half::new(met.meeting, wake.clone()));
                    let session = Session::of_sleeve(link, wake, met.meeting, half.clone());
                    tokio::spawn(session.run());
                    return Ok(Meeting::new(manager.to_owned(), half));
                }
                RelayMessage::Elsewhere(there) => there.as_str().clone_into(&mut address),
                RelayMessage::Refused(refusal) => {
                    let check = refusal.check.as_str().to_owned();
                    return Err(RelayError::Refused { check, retry_after: refusal.retry_after });
                }
                _ => return Err(RelayError::Protocol("another answer than to a meeting")),
            }
            let _gone = link.machine().close();
            let _gone = link.flush().await;
        }
        Err(RelayError::AlwaysElsewhere)
    }

    /// As [`Self::meet`], and again after a growing pause while that may help.
    ///
    /// # Errors
    /// The last attempt's.
    pub async fn meet_within(
        &self,
        manager: &str,
        within: Duration,
    ) -> Result<Meeting, RelayError> {
        let until = Instant::now() + within;
        let mut pause = Pause::default();
        loop {
            let error = match self.meet(manager).await {
                Err(error) if error.is_lost() => error,
                ended => return ended,
            };
            let wait = pause.next(&error, &mut *(self.rng)());
            if Instant::now() + wait >= until {
                return Err(error);
            }
            sleep(wait).await;
        }
    }

    async fn connect(&self, address: &str) -> Result<Link, RelayError> {
        let unreachable =
            |detail: String| RelayError::Unreachable { gateway: address.to_owned(), detail };
        let dir = DeviceDir::open(&self.dir)?;
        let config = Arc::new(dir.relay_config(&dir.provider(), self.clock.now())?);
        let connect = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true).map(|()| stream)
        };
        let stream = match timeout(CONNECT_TIMEOUT, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(error.to_string())),
            Err(_) => return Err(unreachable("no answer".to_owned())),
        };
        let mut rng = (self.rng)();
        let channel = ReaderChannel::new(config, self.clock.now(), &mut *rng);
        let channel = channel.map_err(RelayError::Channel)?;
        let mut link = Connection::new(channel, Line::new(stream), self.clock.clone(), rng);
        let due = link.now().plus(ANSWER_TIMEOUT);
        let failed = |error| match error {
            NetError::Machine(error) => RelayError::Channel(error),
            other => unreachable(other.to_string()),
        };
        match link.next(Some(due)).await.map_err(failed)? {
            Next::Event(ReaderEvent::Connected) => {}
            Next::Deadline => return Err(RelayError::Channel(Error::Timeout)),
            _ => return Err(RelayError::Channel(Error::Truncated)),
        }
        let now = link.now();
        link.machine().sleep(now, self.heartbeat).map_err(RelayError::Channel)?;
        Ok(link)
    }
}

/// The pauses between attempts.
#[derive(Debug, Default)]
struct Pause {
    before: Option<Duration>,
}

impl Pause {
    /// The next one: at least what the server asked for, and with a random part, so that devices
    /// that were lost together do not come again together.
    fn next(&mut self, error: &RelayError, rng: &mut dyn CryptoRng) -> Duration {
        let doubled = self.before.map_or(PAUSE_FIRST, |before| (before * 2).min(PAUSE_MAX));
        self.before = Some(doubled);
        let base = doubled.max(error.pause());
        let mut random = [0; 1];
        rng.fill_bytes(&mut random);
        base + base * u32::from(random[0]) / 1024 // up to a quarter more
    }
}

fn lost(error: NetError<Error>) -> RelayError {
    match error {
        NetError::Machine(error) => RelayError::Channel(error),
        _ => RelayError::Channel(Error::Truncated),
    }
}

async fn say(link: &mut Link, message: &DeviceMessage) -> Result<(), RelayError> {
    link.machine().send(&message.encode()).map_err(RelayError::Channel)?;
    link.flush().await.map_err(lost)
}

/// The server's answer.
async fn hear(link: &mut Link) -> Result<RelayMessage, RelayError> {
    let due = link.now().plus(ANSWER_TIMEOUT);
    match link.next(Some(due)).await.map_err(lost)? {
        Next::Event(ReaderEvent::Data(bytes)) => {
            RelayMessage::decode(&bytes).map_err(|_| RelayError::Protocol("no message"))
        }
        Next::Deadline => Err(RelayError::Channel(Error::Timeout)),
        _ => Err(RelayError::Channel(Error::Truncated)),
    }
}

/// All these meetings are over, as their link is.
fn all_over<'a>(halves: impl Iterator<Item = &'a Arc<Half>>) {
    halves.for_each(|half| half.over(CloseReason::PeerGone));
}

#[cfg(test)]
mod tests;
