//! The reader: polls its card, reads it through the server, keeps what it may.

mod attempt;
mod error;
mod field;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_channel::{Mode, Policy, ReaderConfig};
use countersign_crypto::{CryptoRng, Suite};
use countersign_idcard::cache::{CacheHit, CacheMode, CacheStorage, ReaderCache};
use countersign_idcard::card::CardLink;
use countersign_idcard::message;
use countersign_idcard::presence::{Presence, WIPE_AFTER};
use countersign_idcard::reader::{ReadOptions, ReadStart, ReaderFlow};
use countersign_idcard::{Configuration, Delivery, PlainData, READ_ID_LEN, ReadId};
use countersign_net::Clock;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::line::{Command, Line};
use crate::traffic::Counters;
use crate::{Traffic, Uplink};
use attempt::Connected;
pub use error::ReadError;

/// How long a read command waits for a card.
pub const CARD_WAIT: Duration = Duration::from_secs(3);
/// How long a read is tried again before it is given up, unless set otherwise.
pub const RETRY_FOR: Duration = Duration::from_secs(30);
/// How long one attempt over datagrams may take. Nothing tells a reader there that its server was
/// restarted in mid-read, and some of [`RETRY_FOR`] must be left then.
pub const DATAGRAM_ATTEMPT: Duration = Duration::from_secs(20);
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

/// The reader program's core.
pub struct Reader {
    config: Arc<ReaderConfig>,
    uplink: Uplink,
    line: Option<Line>,
    card: Arc<Mutex<Box<dyn CardLink + Send>>>,
    cache: ReaderCache,
    presence: Presence,
    wipe_after: Duration,
    present: Option<Configuration>,
    clock: Arc<dyn Clock>,
    rng: Box<dyn Fn() -> Box<dyn CryptoRng + Send> + Send + Sync>,
    counters: Arc<Counters>,
    retry_for: Duration,
    peer: Option<String>,
}

impl Reader {
    /// A reader with several cards' worth of cache in memory (C7) that reaches the server by
    /// `gateway` (C16).
    ///
    /// # Panics
    /// If `config` has no credential: the caller's mistake, as no handshake can be begun without.
    #[must_use]
    pub fn new(
        config: ReaderConfig,
        gateway: impl Into<Uplink>,
        card: Box<dyn CardLink + Send>,
        clock: Arc<dyn Clock>,
        rng: Box<dyn Fn() -> Box<dyn CryptoRng + Send> + Send + Sync>,
    ) -> Self {
        let provider =
            config.credentials.first().expect("a reader has a credential").provider.clone();
        let cache = ReaderCache::new(CacheMode::default(), provider);
        Self {
            config: Arc::new(config),
            uplink: gateway.into(),
            line: None,
            card: Arc::new(Mutex::new(card)),
            cache,
            presence: Presence::new(WIPE_AFTER),
            wipe_after: WIPE_AFTER,
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

    /// Starts with an empty cache of this mode, in `storage` or else in memory (C7, C8). What the
    /// former one kept is wiped.
    ///
    /// # Panics
    /// Never: [`Self::new`] checked that there is a credential.
    pub fn set_cache(&mut self, mode: CacheMode, storage: Option<Box<dyn CacheStorage + Send>>) {
        self.power_off();
        let credential = self.config.credentials.first().expect("checked when it was made");
        let provider = credential.provider.clone();
        self.cache = match storage {
            Some(storage) => ReaderCache::with_storage(mode, provider, storage, (self.rng)()),
            None => ReaderCache::new(mode, provider),
        };
        self.log_notes();
    }

    /// Changes how long what was read is kept without a card, from
    /// [`WIPE_AFTER`](countersign_idcard::presence::WIPE_AFTER) (C11, C15).
    pub fn set_wipe_after(&mut self, wipe_after: Duration) {
        self.wipe_after = wipe_after;
        self.power_off();
    }

    /// Changes how the reader reaches the server.
    pub fn set_gateway(&mut self, gateway: impl Into<Uplink>) {
        self.uplink = gateway.into();
        self.line = None;
    }

    /// The line to the host, if the server is reached through one.
    pub(crate) fn line(&mut self) -> Option<&mut Line> {
        if let (None, Uplink::Serial { path, baud }) = (&self.line, &self.uplink) {
            self.line = Some(Line::open(path, *baud, &self.config.serial, false));
        }
        self.line.as_mut()
    }

    /// Opens the line to the host, if there is one, as a reader that takes commands.
    pub(crate) fn listen(&mut self) -> Option<mpsc::Receiver<Command>> {
        let Uplink::Serial { path, baud } = &self.uplink else { return None };
        self.line = None; // its port is closed before it is opened anew
        let line = self.line.insert(Line::open(path, *baud, &self.config.serial, true));
        line.take_commands()
    }

    /// The configuration of the card that is present, as it was cached when it appeared.
    #[must_use]
    pub fn present_configuration(&self) -> Option<&Configuration> {
        self.present.as_ref()
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

    /// How many cards' data or configurations the cache holds.
    #[must_use]
    pub fn cards_known(&self) -> usize {
        self.cache.len()
    }

    /// The read command: answers from the cache, or connects (C1, C2), reads and keeps what the
    /// policy allows. A server that goes away in mid-read is tried again for [`RETRY_FOR`] under
    /// the same read id, with the packets that the reader already has.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read(&mut self, options: ReadOptions) -> Result<Outcome, ReadError> {
        tracing::debug!("read command");
        let result = self.read_and_keep(options).await;
        self.log_notes();
        result
    }

    async fn read_and_keep(&mut self, options: ReadOptions) -> Result<Outcome, ReadError> {
        let started = Instant::now();
        let mut options = ReadOptions { delivery: self.uplink.delivery(), ..options };
        if options.delivery == Delivery::Datagrams {
            options.timeout = options.timeout.min(DATAGRAM_ATTEMPT);
        }
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
                    self.attend(pause).await; // what is kept goes with the card (C11), also now
                    pause = (pause * 2).min(RETRY_MAX);
                }
                Err(error) => return Err(error),
            }
        }
    }
}
