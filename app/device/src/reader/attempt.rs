//! One attempt to read through the server: connect, handshake, drive the flow.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use countersign_channel::{
    self as channel, AlertCode, Error, ReaderChannel, ReaderConfig, ReaderEvent,
};
use countersign_idcard::reader::{ReaderEvent as FlowEvent, ReaderFlow};
use countersign_idcard::{self as idcard, PlainData};
use countersign_net::{Connection, NetError, Next, Transport, UdpLink, mode_name, policy_name};
use tokio::net::TcpStream;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout};

use super::{CONNECT_TIMEOUT, POLL_EVERY, ReadError, Reader, Spoken};
use crate::Uplink;
use crate::traffic::Counted;

impl Reader {
    /// One attempt: connect, handshake, drive the flow.
    pub(super) async fn run(
        &mut self,
        mut flow: ReaderFlow,
    ) -> Result<(PlainData, Connected), ReadError> {
        let started = Instant::now();
        match &self.uplink {
            Uplink::Tcp(address) => {
                let connect = async {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true).map(|()| stream)
                };
                let stream = timeout(CONNECT_TIMEOUT, connect).await;
                let stream = self.reached(stream)?;
                self.talk(stream, started, &mut flow).await
            }
            Uplink::Udp(address) => {
                let link = timeout(CONNECT_TIMEOUT, UdpLink::connect(address)).await;
                let link = self.reached(link)?;
                self.talk(link, started, &mut flow).await
            }
            Uplink::Serial { .. } => {
                let link = match self.line() {
                    Some(line) => line.link(CONNECT_TIMEOUT).await,
                    None => Err(io::ErrorKind::NotConnected.into()),
                };
                let link = self.reached(Ok(link))?;
                self.talk(link, started, &mut flow).await
            }
        }
    }

    fn reached<T>(&self, result: Result<io::Result<T>, Elapsed>) -> Result<T, ReadError> {
        let connected = result.unwrap_or_else(|_| Err(io::Error::other("no answer")));
        connected.map_err(|error| self.unreachable(error.to_string()))
    }

    fn unreachable(&self, detail: String) -> ReadError {
        ReadError::Unreachable { gateway: self.uplink.to_string(), detail }
    }

    async fn talk<T: Transport>(
        &mut self,
        transport: T,
        started: Instant,
        flow: &mut ReaderFlow,
    ) -> Result<(PlainData, Connected), ReadError> {
        let mut rng = (self.rng)();
        let channel = ReaderChannel::new(self.channel_config(), self.clock.now(), &mut *rng)
            .map_err(ReadError::Channel)?;
        let transport = Counted::new(transport, self.counters.clone());
        let connection = Connection::new(channel, transport, self.clock.clone(), rng);
        let mut attempt = Attempt { reader: self, connection, started, connected: None };
        let result = attempt.drive(flow).await;
        // Tell the server that this was all (or why it was not), if it still listens.
        let _gone = attempt.connection.machine().close();
        let _gone = attempt.connection.flush().await;
        result.map(|data| (data, attempt.connected.unwrap_or_default()))
    }

    /// The reader's configuration, its policies over what the uplink is.
    fn channel_config(&self) -> Arc<ReaderConfig> {
        match self.uplink.delivery() {
            idcard::Delivery::Stream => self.config.clone(),
            idcard::Delivery::Datagrams => {
                let mut config = (*self.config).clone();
                for policy in &mut config.policies {
                    policy.delivery = channel::Delivery::Datagrams;
                }
                Arc::new(config)
            }
        }
    }
}

struct Attempt<'a, T> {
    reader: &'a mut Reader,
    connection: Connection<ReaderChannel, Counted<T>>,
    started: Instant,
    connected: Option<Connected>,
}

/// A confirmed channel.
#[derive(Default)]
pub(super) struct Connected {
    /// How long it took.
    pub(super) handshake: Duration,
    pub(super) spoken: Option<Spoken>,
}

impl Connected {
    fn new(channel: &ReaderChannel, handshake: Duration) -> Self {
        let (mode, agreed) = (channel.mode(), channel.suite().zip(channel.policy()));
        let spoken = agreed.map(|(suite, policy)| Spoken { mode, suite, policy });
        Self { handshake, spoken }
    }
}

impl<T: Transport> Attempt<'_, T> {
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
                    flow.card_done(self.connection.now(), &mut self.reader.cache, done)
                        .map_err(protocol)?;
                    continue;
                }
                Some(FlowEvent::Plaintext(data)) => return Ok(data),
                Some(FlowEvent::Failed(failure)) => {
                    self.connection.flush().await.map_err(|error| self.net_error(error))?;
                    return Err(ReadError::Refused(failure));
                }
                None => {}
            }
            let look = (!flow.holds_card()).then(|| self.connection.now().plus(POLL_EVERY));
            let due = [flow.poll_timeout(), look].into_iter().flatten().min();
            let next = self.connection.next(due).await;
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
                    let now = self.connection.now();
                    let _told = flow.handle(now, &mut *rng, &mut self.reader.cache, &bytes);
                }
                Next::Event(ReaderEvent::Closed) | Next::Ended => {
                    return Err(ReadError::Channel(Error::Truncated));
                }
                Next::Deadline => {
                    flow.handle_timeout(self.connection.now());
                    self.look(flow).await;
                }
            }
        }
    }

    /// Looks for the card while the server is awaited: it may go, and what is kept with it (C11).
    async fn look(&mut self, flow: &mut ReaderFlow) {
        if flow.holds_card() {
            return;
        }
        if let Err(error) = self.reader.poll().await {
            tracing::debug!(%error, "the card cannot be read");
        }
        let here = self.reader.card_is_present()
            && self.reader.present_configuration() == Some(flow.configuration());
        if !here {
            flow.card_removed();
        }
    }

    fn net_error(&self, error: NetError<Error>) -> ReadError {
        match error {
            NetError::Machine(error) if self.connected.is_none() && is_no_common_ground(&error) => {
                ReadError::NoCommonGround { error, offered: offered(&self.reader.config) }
            }
            // Over datagrams nothing tells that nobody is there.
            NetError::Machine(Error::Timeout)
                if self.connected.is_none()
                    && self.reader.uplink.delivery() == idcard::Delivery::Datagrams =>
            {
                self.reader.unreachable("no answer".into())
            }
            NetError::Machine(error) => ReadError::Channel(error),
            other => self.reader.unreachable(other.to_string()),
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
