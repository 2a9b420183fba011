use std::sync::Arc;
use std::time::Duration;

use countersign_idcard::sam::{SamConfig, SamError, SamEvent, SamHost, SamOperation, SamResult};
use countersign_net::{Connection, Next};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::health::SamFailure;
use super::shared::Shared;
use super::{LEASE_MAX, Request, SamConnector, SamPort, SamUnavailable, Work};
use crate::Ambient;

/// The pause before a dead port is opened again, at first and at most.
pub(super) const REOPEN_FIRST: Duration = Duration::from_millis(200);
pub(super) const REOPEN_MAX: Duration = Duration::from_secs(10);
/// A module that nobody uses is asked for its status this often, so that a dead one shows before a
/// read meets it.
pub const HEALTH_EVERY: Duration = Duration::from_secs(10);

const _: () = assert!(HEALTH_EVERY.as_secs() < LEASE_MAX.as_secs());

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
            let (port, detail) = (self.connector.name(), &failure.detail);
            tracing::warn!(port, check = failure.check, detail, "SAM module not ready");
            shared.lost(self.index, failure);
            let quarantine = shared.quarantine(self.index);
            if !quarantine.is_zero() {
                let seconds = quarantine.as_secs();
                tracing::warn!(port, seconds, "SAM module put aside: it flaps");
            }
            if !refuse_for(&mut self.requests, quarantine.max(pause)).await {
                return;
            }
            pause = (pause * 2).min(REOPEN_MAX);
        }
    }

    /// Opens the port and serves until it dies.
    async fn serve(
        &mut self,
        shared: &Arc<Shared>,
        pause: &mut Duration,
    ) -> Result<(), SamFailure> {
        let port = self.connector.open();
        let port = port.map_err(|error| port_failure(error.to_string()))?;
        let (clock, rng) = (self.ambient.clock.clone(), (self.ambient.rng)());
        let mut connection = Connection::new(SamHost::new(self.config), port, clock, rng);
        let (host, now, _) = connection.parts();
        host.start(now)?;
        let ready = event(&mut connection).await?;
        let SamEvent::Ready(id) = ready else {
            return Err(port_failure(format!("unexpected event at the start: {ready:?}")));
        };
        *pause = REOPEN_FIRST;
        let generation = shared.ready(self.index, Some(id.to_string()));
        tracing::info!(port = self.connector.name(), sam = %id, "SAM module ready");
        let mut serving = Serving { index: self.index, connection, shared, generation };
        let mut check_at = Instant::now() + HEALTH_EVERY;
        loop {
            let lease_until = shared.lease_until(self.index);
            let due = lease_until.map_or(check_at, |until| until.min(check_at));
            // Between requests the port is watched, so that an unplugged module shows at once.
            tokio::select! {
                request = self.requests.recv() => {
                    let Some(request) = request else { return Ok(()) };
                    serving.request(request).await?;
                }
                ended = event(&mut serving.connection) => {
                    return Err(ended.map_or_else(SamFailure::from, |event| {
                        port_failure(format!("unexpected event while idle: {event:?}"))
                    }));
                }
                () = sleep_until(due) => serving.look_after().await?,
            }
            check_at = Instant::now() + HEALTH_EVERY;
        }
    }
}

fn port_failure(detail: String) -> SamFailure {
    SamFailure { check: "sam-port", detail }
}

/// A module that answers.
struct Serving<'a> {
    index: usize,
    connection: SamConnection,
    shared: &'a Arc<Shared>,
    generation: u64,
}

impl Serving<'_> {
    async fn request(&mut self, request: Request) -> Result<(), SamFailure> {
        if request.generation != self.generation {
            // A lease from before the port was reopened must not touch another read's card.
            request.work.refuse();
            return Ok(());
        }
        match request.work {
            Work::Operate { operation, reply } => {
                let result = self.operate(operation).await;
                let fatal = result.as_ref().err().filter(|error| error.is_fatal()).copied();
                let _reader_gone = reply.send(result);
                fatal.map_or(Ok(()), |error| Err(error.into()))
            }
            Work::Release { reply } => {
                self.forget().await?;
                let _nobody_waits = reply.send(());
                Ok(())
            }
            lease @ Work::Lease { .. } => {
                lease.refuse(); // here a place is a lease already
                Ok(())
            }
        }
    }

    /// Nothing was asked for a while: ends a lease that has lasted too long, or sees whether an
    /// idle module still answers.
    async fn look_after(&mut self) -> Result<(), SamFailure> {
        if let Some(generation) = self.shared.take_back(self.index) {
            tracing::warn!(index = self.index, "a SAM lease lasted too long and was taken back");
            self.generation = generation;
            self.forget().await?;
            self.shared.free(self.index, generation);
            return Ok(());
        }
        let Some(_place) = self.shared.take_idle(self.index) else { return Ok(()) };
        match self.operate(SamOperation::Status).await {
            Err(error) if error.is_fatal() => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn forget(&mut self) -> Result<(), SamFailure> {
        match self.operate(SamOperation::Cancel).await {
            Err(error) if error.is_fatal() => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn operate(&mut self, operation: SamOperation) -> Result<SamResult, SamError> {
        let result = run(&mut self.connection, operation).await;
        self.shared.count(self.index, &result);
        if let Err(error) = &result
            && error.is_fatal()
        {
            // Before the answer: whoever gets it gives the place back, for nobody to take.
            self.shared.lost(self.index, (*error).into());
        }
        result
    }
}

impl Work {
    /// The module cannot do this any more.
    pub(super) fn refuse(self) {
        match self {
            Self::Operate { reply, .. } => drop(reply.send(Err(SamError::Gone))),
            Self::Lease { reply, .. } => drop(reply.send(Err(SamUnavailable::NoneReady))),
            Self::Release { reply } => drop(reply.send(())),
        }
    }
}

/// Lets the time pass before a port is opened again; what is asked of it meanwhile is answered, not
/// left waiting. False if the pool is gone.
pub(super) async fn refuse_for(requests: &mut mpsc::Receiver<Request>, pause: Duration) -> bool {
    let until = Instant::now() + pause;
    loop {
        match timeout_at(until, requests.recv()).await {
            Ok(Some(request)) => request.work.refuse(),
            Ok(None) => return false,
            Err(_elapsed) => return true,
        }
    }
}

type SamConnection = Connection<SamHost, Box<dyn SamPort>>;

async fn run(
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
