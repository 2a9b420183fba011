use std::sync::Arc;
use std::time::Duration;

use countersign_idcard::sam::{SamConfig, SamError, SamEvent, SamHost, SamOperation, SamResult};
use countersign_net::{Connection, Next};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::{Request, SamConnector, SamPort, Shared};
use crate::Ambient;

/// The pause before a dead port is opened again, at first and at most.
const REOPEN_FIRST: Duration = Duration::from_millis(200);
const REOPEN_MAX: Duration = Duration::from_secs(10);

/// One module's task.
pub(super) struct Module {
    pub(super) index: usize,
    pub(super) connector: Arc<dyn SamConnector>,
    pub(super) config: SamConfig,
    pub(super) ambient: Ambient,
    pub(super) requests: mpsc::Receiver<Request>,
}

impl Module {
    pub(super) async fn run(mut self, shared: Arc<Shared>) {
        let mut pause = REOPEN_FIRST;
        loop {
            let failure = match self.serve(&shared, &mut pause).await {
                Ok(()) => return, // the pool is gone
                Err(failure) => failure,
            };
            tracing::warn!(port = self.connector.name(), failure, "SAM module not ready");
            shared.lost(self.index, failure);
            if !self.wait(pause).await {
                return;
            }
            pause = (pause * 2).min(REOPEN_MAX);
        }
    }

    /// Lets the time pass before the port is opened again; what is asked of it meanwhile is
    /// answered, not left waiting. False if the pool is gone.
    async fn wait(&mut self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            match timeout_at(until, self.requests.recv()).await {
                Ok(Some(request)) => answer(request.reply, Err(SamError::Gone)),
                Ok(None) => return false,
                Err(_elapsed) => return true,
            }
        }
    }

    /// Opens the port and serves until it dies.
    async fn serve(&mut self, shared: &Arc<Shared>, pause: &mut Duration) -> Result<(), String> {
        let port = self.connector.open().map_err(|error| error.to_string())?;
        let (clock, rng) = (self.ambient.clock.clone(), (self.ambient.rng)());
        let mut connection = Connection::new(SamHost::new(self.config), port, clock, rng);
        let (host, now, _) = connection.parts();
        host.start(now).map_err(|error| error.to_string())?;
        let ready = event(&mut connection).await.map_err(|error| error.to_string())?;
        let SamEvent::Ready(id) = ready else {
            return Err(format!("unexpected event at the start: {ready:?}"));
        };
        *pause = REOPEN_FIRST;
        let generation = shared.ready(self.index, id.to_string());
        tracing::info!(port = self.connector.name(), sam = %id, "SAM module ready");
        loop {
            // Between requests the port is watched, so that an unplugged module shows at once.
            let request = tokio::select! {
                request = self.requests.recv() => request,
                ended = event(&mut connection) => {
                    return Err(ended.map_or_else(|error| error.to_string(), |event| {
                        format!("unexpected event while idle: {event:?}")
                    }));
                }
            };
            let Some(request) = request else { return Ok(()) };
            if request.generation != generation {
                // A lease from before the port was reopened must not touch another read's card.
                answer(request.reply, Err(SamError::Gone));
                continue;
            }
            let result = operate(&mut connection, request.operation).await;
            let fatal = result.as_ref().err().filter(|error| error.is_fatal()).copied();
            if let Some(error) = fatal {
                // Before the answer: whoever gets it gives the place back, for nobody to take.
                shared.lost(self.index, error.to_string());
            }
            answer(request.reply, result);
            if let Some(error) = fatal {
                return Err(error.to_string());
            }
        }
    }
}

fn answer(
    reply: oneshot::Sender<Result<SamResult, SamError>>,
    result: Result<SamResult, SamError>,
) {
    let _reader_gone = reply.send(result);
}

type SamConnection = Connection<SamHost, Box<dyn SamPort>>;

async fn operate(
    connection: &mut SamConnection,
    operation: SamOperation,
) -> Result<SamResult, SamError> {
    let (host, now, _) = connection.parts();
    host.operate(now, operation)?;
    match event(connection).await? {
        SamEvent::Done(result) => Ok(result),
        SamEvent::Failed(error) => Err(error),
        SamEvent::Ready(_) | SamEvent::Bridge(_) => Err(SamError::NotReady),
    }
}

async fn event(connection: &mut SamConnection) -> Result<SamEvent, SamError> {
    match connection.next(None).await {
        Ok(Next::Event(SamEvent::Failed(error))) if error.is_fatal() => Err(error),
        Ok(Next::Event(event)) => Ok(event),
        Ok(Next::Ended | Next::Deadline) | Err(_) => Err(SamError::Gone),
    }
}
