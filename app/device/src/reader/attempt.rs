//! One attempt to read through the server: connect, handshake, drive the flow.

use std::time::Duration;

use countersign_channel::{AlertCode, Error, ReaderChannel, ReaderConfig, ReaderEvent};
use countersign_idcard::PlainData;
use countersign_idcard::reader::{ReaderEvent as FlowEvent, ReaderFlow};
use countersign_net::{Connection, NetError, Next, mode_name, policy_name};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{CONNECT_TIMEOUT, ReadError, Reader, Spoken};
use crate::traffic::Counted;

impl Reader {
    /// One attempt: connect, handshake, drive the flow.
    pub(super) async fn run(
        &mut self,
        mut flow: ReaderFlow,
    ) -> Result<(PlainData, Connected), ReadError> {
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
