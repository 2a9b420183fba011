//! The reader: polls its card, reads it through the server, keeps what it may.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_channel::{
    AlertCode, Error, Mode, Policy, ReaderChannel, ReaderConfig, ReaderEvent,
};
use countersign_crypto::{CryptoRng, Suite};
use countersign_idcard::cache::{CacheHit, CacheMode, ReaderCache};
use countersign_idcard::card::{CardError, CardLink, read_configuration};
use countersign_idcard::message;
use countersign_idcard::reader::{
    ReadFailure, ReadOptions, ReadStart, ReaderEvent as FlowEvent, ReaderFlow,
};
use countersign_idcard::{Configuration, PlainData, READ_ID_LEN, ReadId};
use countersign_net::{Clock, Connection, NetError, Next, mode_name, policy_name};
use thiserror::Error as ThisError;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::Traffic;
use crate::traffic::{Counted, Counters};

/// How long a read command waits for a card.
pub const CARD_WAIT: Duration = Duration::from_secs(3);
/// How long a read is tried again before it is given up, unless set otherwise.
pub const RETRY_FOR: Duration = Duration::from_secs(30);
/// The pause before trying again, at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(3);
/// How often the reader looks for a card.
const POLL_EVERY: Duration = Duration::from_millis(50);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a read's answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The reader's plaintext cache: no server, no SAM (C14).
    Cache,
    /// The server, from encrypted data that the reader kept (C7).
    ServerFromCache,
    /// The server, from the card.
    Server,
}

impl Source {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::ServerFromCache => "serverFromCache",
            Self::Server => "server",
        }
    }
}

/// What a channel was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spoken {
    /// The handshake.
    pub mode: Mode,
    /// The suite agreed on.
    pub suite: Suite,
    /// The protection policy agreed on.
    pub policy: Policy,
}

/// A read that succeeded.
#[derive(Debug)]
pub struct Outcome {
    /// What was on the card.
    pub data: PlainData,
    /// Where it came from.
    pub source: Source,
    /// How often the server was tried.
    pub attempts: u32,
    /// From the read command to the confirmed channel, in the attempt that succeeded; zero from the
    /// cache.
    pub handshake: Duration,
    /// What that channel was made with; none from the cache.
    pub spoken: Option<Spoken>,
    /// From the read command to the answer, all attempts and the wait for a card included.
    pub total: Duration,
}

/// Why a read did not succeed.
#[derive(Debug, ThisError)]
pub enum ReadError {
    /// No card within [`CARD_WAIT`].
    #[error("there is no card on the reader")]
    NoCard,
    /// The card failed before the server was asked.
    #[error("the card: {0}")]
    Card(#[from] CardError),
    /// A check refused the read.
    #[error("the read was refused: {}{}", .0.check, incident_suffix(.0.incident.as_deref()))]
    Refused(ReadFailure),
    /// The secure channel ended.
    #[error("the secure channel: {0}")]
    Channel(Error),
    /// The server does not allow what this reader offers.
    #[error(
        "the secure channel: {error}; this reader offers {offered}, and the server allows others \
         only"
    )]
    NoCommonGround {
        /// How the channel ended.
        error: Error,
        /// Handshake, suite and policy, for a person.
        offered: String,
    },
    /// The server cannot be reached.
    #[error("the server at {gateway} cannot be reached: {detail}")]
    Unreachable {
        /// Where.
        gateway: String,
        /// What the system said.
        detail: String,
    },
}

fn incident_suffix(incident: Option<&str>) -> String {
    incident.map(|id| format!(" (incident {id})")).unwrap_or_default()
}

impl ReadError {
    /// Stable name of the failed check.
    #[must_use]
    pub fn check(&self) -> &str {
        match self {
            Self::NoCard => "no-card",
            Self::Card(_) => "card",
            Self::Refused(failure) => &failure.check,
            Self::Channel(error) | Self::NoCommonGround { error, .. } => error.check(),
            Self::Unreachable { .. } => "server-unreachable",
        }
    }

    /// Where an operator of the server finds more.
    #[must_use]
    pub fn incident(&self) -> Option<&str> {
        match self {
            Self::Refused(failure) => failure.incident.as_deref(),
            Self::Channel(Error::Alert { incident, .. })
            | Self::NoCommonGround { error: Error::Alert { incident, .. }, .. }
                if !incident.is_empty() =>
            {
                Some(incident)
            }
            _ => None,
        }
    }

    /// Whether the environment is to blame, rather than a check that refused.
    #[must_use]
    pub const fn is_environment(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Channel(Error::Truncated))
    }

    /// Whether trying again may help: a server that was killed comes back.
    const fn may_pass(&self) -> bool {
        match self {
            Self::Refused(failure) => failure.retry,
            Self::Channel(error) => matches!(
                error,
                Error::Truncated
                    | Error::Timeout
                    | Error::Alert {
                        code: AlertCode::Busy
                            | AlertCode::SourceLimited
                            | AlertCode::ChallengeStale
                            | AlertCode::Internal,
                        ..
                    }
            ),
            Self::Unreachable { .. } => true,
            Self::NoCard | Self::Card(_) | Self::NoCommonGround { .. } => false,
        }
    }
}

/// The reader program's core.
pub struct Reader {
    config: Arc<ReaderConfig>,
    gateway: String,
    card: Arc<Mutex<Box<dyn CardLink + Send>>>,
    cache: ReaderCache,
    present: Option<([u8; 8], Configuration)>,
    clock: Arc<dyn Clock>,
    rng: Box<dyn Fn() -> Box<dyn CryptoRng + Send> + Send + Sync>,
    counters: Arc<Counters>,
    retry_for: Duration,
    peer: Option<String>,
}

impl Reader {
    /// A reader with several cards' worth of cache (C7) that connects to `gateway` (`host:port`).
    ///
    /// # Panics
    /// If `config` has no credential: the caller's mistake, as no handshake can be begun without.
    #[must_use]
    pub fn new(
        config: ReaderConfig,
        gateway: String,
        card: Box<dyn CardLink + Send>,
        clock: Arc<dyn Clock>,
        rng: Box<dyn Fn() -> Box<dyn CryptoRng + Send> + Send + Sync>,
    ) -> Self {
        let provider =
            config.credentials.first().expect("a reader has a credential").provider.clone();
        let cache = ReaderCache::new(CacheMode::MultiCard, provider);
        Self {
            config: Arc::new(config),
            gateway,
            card: Arc::new(Mutex::new(card)),
            cache,
            present: None,
            clock,
            rng,
            counters: Arc::default(),
            retry_for: RETRY_FOR,
            peer: None,
        }
    }

    /// What went over the network so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.counters.snapshot()
    }

    /// Changes how long a read is tried again, from [`RETRY_FOR`].
    pub const fn set_retry_for(&mut self, retry_for: Duration) {
        self.retry_for = retry_for;
    }

    /// Changes where the reader connects.
    pub fn set_gateway(&mut self, gateway: String) {
        self.gateway = gateway;
    }

    /// Looks for a card once. A card that was not there before has its configuration read and
    /// cached at once, before any read command (C6). Returns whether a card is there.
    ///
    /// # Errors
    /// [`CardError`] if the card's configuration cannot be read.
    pub async fn poll(&mut self) -> Result<bool, CardError> {
        let known = self.present.as_ref().map(|(uid, _)| *uid);
        let found = self
            .with_card(move |link| {
                let Some(card) = link.poll()? else { return Ok(None) };
                if known == Some(card.uid) {
                    return Ok(Some((card.uid, None)));
                }
                Ok(Some((card.uid, Some(read_configuration(link)?))))
            })
            .await?;
        match found {
            None => self.present = None,
            Some((_, None)) => {}
            Some((uid, Some(configuration))) => {
                self.cache.card_appeared(&configuration);
                self.present = Some((uid, configuration));
            }
        }
        Ok(self.present.is_some())
    }

    /// The configuration of the card that is present, as it was cached when it appeared.
    #[must_use]
    pub fn present_configuration(&self) -> Option<&Configuration> {
        self.present.as_ref().map(|(_, configuration)| configuration)
    }

    /// Whether the cache holds this card's configuration.
    #[must_use]
    pub fn knows(&self, configuration: &Configuration) -> bool {
        self.cache.knows(configuration)
    }

    /// Whether a read of this card would be answered by the reader alone, from the plaintext that
    /// the policy let it keep (C13, C14).
    #[must_use]
    pub fn answers_alone(&mut self, configuration: &Configuration, options: ReadOptions) -> bool {
        matches!(self.cache.lookup(configuration, options.fingerprint), CacheHit::Plaintext(_))
    }

    /// The id in the certificate of the server that last proved itself to this reader; none before
    /// the first confirmed channel (C1).
    #[must_use]
    pub fn proven_server(&self) -> Option<&str> {
        self.peer.as_deref()
    }

    async fn with_card<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut (dyn CardLink + Send)) -> Result<T, CardError> + Send + 'static,
    ) -> Result<T, CardError> {
        let card = self.card.clone();
        let worked = tokio::task::spawn_blocking(move || {
            // A link that panicked is asked again: it is the driver's to be sound.
            work(&mut **card.lock().unwrap_or_else(PoisonError::into_inner))
        });
        worked.await.unwrap_or(Err(CardError::Link))
    }

    async fn wait_for_card(&mut self) -> Result<Configuration, ReadError> {
        let until = self.clock.now().plus(CARD_WAIT);
        loop {
            self.poll().await?;
            if let Some(configuration) = self.present_configuration() {
                return Ok(configuration.clone());
            }
            if self.clock.now() >= until {
                return Err(ReadError::NoCard);
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// The read command: answers from the cache, or connects (C1, C2), reads and keeps what the
    /// policy allows. A server that goes away in mid-read is tried again for [`RETRY_FOR`] under
    /// the same read id, with the packets that the reader already has.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read(&mut self, options: ReadOptions) -> Result<Outcome, ReadError> {
        let started = Instant::now();
        let configuration = self.wait_for_card().await?;
        let mut read_id: ReadId = [0; READ_ID_LEN];
        (self.rng)().fill_bytes(&mut read_id);
        let give_up = self.clock.now().plus(self.retry_for);
        let mut pause = RETRY_FIRST;
        let mut attempts = 0;
        let mut failed = None;
        loop {
            let now = self.clock.now();
            let start = ReaderFlow::begin(now, &mut self.cache, &configuration, read_id, options);
            let flow = match start {
                ReadStart::Answered(data) => {
                    return Ok(Outcome {
                        data,
                        source: Source::Cache,
                        attempts,
                        handshake: Duration::ZERO,
                        spoken: None,
                        total: started.elapsed(),
                    });
                }
                ReadStart::Started(flow) => flow,
            };
            let source = match flow.source() {
                message::Source::Cache => Source::ServerFromCache,
                message::Source::Card => Source::Server,
            };
            if let Some(error) = failed.take()
                && source == Source::Server
                && !self.is_still_there(&configuration).await
            {
                return Err(error); // only the card could give what is missing, and it is gone
            }
            attempts += 1;
            match self.run(flow).await {
                Ok((data, Connected { handshake, spoken })) => {
                    let total = started.elapsed();
                    return Ok(Outcome { data, source, attempts, handshake, spoken, total });
                }
                Err(error) if error.may_pass() && self.clock.now() < give_up => {
                    tracing::info!(%error, attempts, "the read is tried again");
                    failed = Some(error);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn is_still_there(&mut self, configuration: &Configuration) -> bool {
        self.poll().await.is_ok() && self.present_configuration() == Some(configuration)
    }

    /// One attempt: connect, handshake, drive the flow.
    async fn run(&mut self, mut flow: ReaderFlow) -> Result<(PlainData, Connected), ReadError> {
        let started = Instant::now();
        let unreachable =
            |detail: String| ReadError::Unreachable { gateway: self.gateway.clone(), detail };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.gateway))
            .await
            .map_err(|_| unreachable("no answer".into()))?
            .map_err(|error| unreachable(error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
        let mut rng = (self.rng)();
        let channel = ReaderChannel::new(self.config.clone(), self.clock.now(), &mut *rng)
            .map_err(ReadError::Channel)?;
        let stream = Counted::new(stream, self.counters.clone());
        let connection = Connection::new(channel, stream, self.clock.clone(), rng);
        let mut attempt = Attempt { reader: self, connection, started, connected: None };
        let result = attempt.drive(&mut flow).await;
        // Tell the server that this was all (or why it was not), if it still listens.
        let _gone = attempt.connection.machine().close();
        let _gone = attempt.connection.flush().await;
        result.map(|data| (data, attempt.connected.unwrap_or_default()))
    }
}

struct Attempt<'a> {
    reader: &'a mut Reader,
    connection: Connection<ReaderChannel, Counted<TcpStream>>,
    started: Instant,
    connected: Option<Connected>,
}

/// A confirmed channel.
#[derive(Default)]
struct Connected {
    /// How long it took.
    handshake: Duration,
    spoken: Option<Spoken>,
}

impl Connected {
    fn new(channel: &ReaderChannel, handshake: Duration) -> Self {
        let (mode, agreed) = (channel.mode(), channel.suite().zip(channel.policy()));
        let spoken = agreed.map(|(suite, policy)| Spoken { mode, suite, policy });
        Self { handshake, spoken }
    }
}

impl Attempt<'_> {
    async fn drive(&mut self, flow: &mut ReaderFlow) -> Result<PlainData, ReadError> {
        loop {
            if self.connected.is_some() {
                while let Some(message) = flow.poll_transmit() {
                    let sent = self.connection.machine().send(&message);
                    sent.map_err(ReadError::Channel)?;
                }
            }
            match flow.poll_event() {
                Some(FlowEvent::Card(work)) => {
                    let done = self.reader.with_card(move |link| work.perform(link)).await;
                    flow.card_done(&mut self.reader.cache, done).map_err(protocol)?;
                    continue;
                }
                Some(FlowEvent::Plaintext(data)) => return Ok(data),
                Some(FlowEvent::Failed(failure)) => {
                    self.connection.flush().await.map_err(|error| self.net_error(error))?;
                    return Err(ReadError::Refused(failure));
                }
                None => {}
            }
            let next = self.connection.next(flow.poll_timeout()).await;
            match next.map_err(|error| self.net_error(error))? {
                Next::Event(ReaderEvent::Connected) => {
                    let took = self.started.elapsed();
                    let channel = self.connection.machine();
                    self.connected = Some(Connected::new(channel, took));
                    let peer = channel.peer();
                    self.reader.peer = peer.map(|leaf| leaf.identity().id().to_owned());
                }
                Next::Event(ReaderEvent::Data(bytes)) => {
                    let mut rng = (self.reader.rng)();
                    // A message that kills the flow is an event too: it is taken above.
                    let _told = flow.handle(&mut *rng, &mut self.reader.cache, &bytes);
                }
                Next::Event(ReaderEvent::Closed) | Next::Ended => {
                    return Err(ReadError::Channel(Error::Truncated));
                }
                Next::Deadline => flow.handle_timeout(self.connection.now()),
            }
        }
    }

    fn net_error(&self, error: NetError<Error>) -> ReadError {
        match error {
            NetError::Machine(error) if self.connected.is_none() && is_no_common_ground(&error) => {
                ReadError::NoCommonGround { error, offered: offered(&self.reader.config) }
            }
            NetError::Machine(error) => ReadError::Channel(error),
            other => ReadError::Unreachable {
                gateway: self.reader.gateway.clone(),
                detail: other.to_string(),
            },
        }
    }
}

/// Whether a handshake ended because of what was offered.
const fn is_no_common_ground(error: &Error) -> bool {
    matches!(error, Error::Incompatible(_) | Error::Alert { code: AlertCode::Incompatible, .. })
}

/// What a reader offers, for a person.
fn offered(config: &ReaderConfig) -> String {
    let suites = config.credentials.iter().map(|one| one.provider.suite);
    let suites: Vec<_> = suites.map(|suite| suite.name().unwrap_or("unknown")).collect();
    let policies: Vec<_> = config.policies.iter().map(|policy| policy_name(*policy)).collect();
    format!(
        "handshake {}, suite {} and policy {}",
        mode_name(config.mode),
        suites.join(" or "),
        policies.join(" or ")
    )
}

fn protocol(error: countersign_idcard::FlowError) -> ReadError {
    ReadError::Refused(error.check().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_server_is_tried_again_and_a_refusal_is_not() {
        let told = |code| Error::Alert { code, incident: String::new() };
        for code in [AlertCode::Busy, AlertCode::SourceLimited, AlertCode::ChallengeStale] {
            assert!(ReadError::Channel(told(code)).may_pass(), "{code:?}");
        }
        for code in [AlertCode::ReaderBlocked, AlertCode::Authentication, AlertCode::Certificate] {
            assert!(!ReadError::Channel(told(code)).may_pass(), "{code:?}");
        }
        let error = told(AlertCode::Incompatible);
        assert!(is_no_common_ground(&error));
        assert!(!ReadError::NoCommonGround { error, offered: String::new() }.may_pass());
    }
}
