//! A manager's side: to be met, and to raise alarms.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_wallet::relay::{
    Alarm, CloseReason, DeviceMessage, RelayMessage, message::Closed, message::Met,
};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

use super::meeting::Half;
use super::session::{Session, Stepped};
use super::{Meeting, Pause, RelayError, RelayLink, hear, say};

/// Alarms that may wait for the server; further ones wait with their sender.
const ALARMS_MAX: usize = 64;
/// When an alarm that the server has not taken is told again.
const ALARM_AGAIN: Duration = Duration::from_secs(30);
/// A link that lasted so long was a good one: the next pause is short again.
const GOOD_LINK: Duration = Duration::from_secs(60);

/// A sleeve that wants in.
#[derive(Debug)]
pub struct Incoming {
    /// Its serial number, as the server authenticated it; its own channel proves it again.
    pub sleeve: String,
    /// The stream to it.
    pub meeting: Meeting,
}

/// An alarm on its way to the server.
#[derive(Debug)]
pub struct RaisedAlarm {
    /// What is told.
    pub alarm: Alarm,
    /// Fires once the server has it on record.
    pub taken: oneshot::Sender<()>,
}

/// Whether the manager can be met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkStatus {
    /// Not yet.
    Connecting,
    /// It can.
    Registered,
    /// Not now.
    Lost {
        /// Stable name of what failed.
        check: String,
        /// When it is tried again.
        retry_in: Duration,
    },
}

/// Alarms that the server has not taken yet.
struct Alarms {
    waiting: VecDeque<RaisedAlarm>,
    source: Option<mpsc::Receiver<RaisedAlarm>>,
    again_at: Option<UnixTime>,
}

impl Alarms {
    /// The next one; never, where there is no place for it or nobody raises any.
    async fn next(&mut self) -> RaisedAlarm {
        if self.waiting.len() < ALARMS_MAX
            && let Some(source) = &mut self.source
        {
            if let Some(raised) = source.recv().await {
                return raised;
            }
            self.source = None;
        }
        std::future::pending().await
    }

    fn taken(&mut self, id: &str) {
        let found = self.waiting.iter().position(|raised| raised.alarm.id.as_str() == id);
        if let Some(raised) = found.and_then(|at| self.waiting.remove(at)) {
            let _no_longer_of_interest = raised.taken.send(());
        }
    }
}

impl RelayLink {
    /// Lets a manager be met, for ever: a connection that is lost comes again after a growing
    /// pause. Each sleeve that comes is handed to `incoming`; while that is full, sleeves are told
    /// that the manager is busy. An alarm is told again, over whatever connection there is, until
    /// the server has it on record or nobody waits for that.
    ///
    /// Dropping the future ends it, and all its meetings.
    ///
    /// # Errors
    /// What this device knows not to mend itself, or the server has said in the channel: blocked,
    /// revoked. An alert, or bytes that do not fit, may be anybody's: the connection comes again.
    /// `Ok` once nobody takes from `incoming` any more.
    pub async fn serve(
        &self,
        incoming: mpsc::Sender<Incoming>,
        alarms: mpsc::Receiver<RaisedAlarm>,
        status: watch::Sender<LinkStatus>,
    ) -> Result<(), RelayError> {
        let mut alarms = Alarms { waiting: VecDeque::new(), source: Some(alarms), again_at: None };
        let mut pause = Pause::default();
        loop {
            let begun = Instant::now();
            status.send_replace(LinkStatus::Connecting);
            let served = self.serve_once(&incoming, &mut alarms, &status).await;
            let Err(error) = served else { return Ok(()) };
            if error.is_final() {
                let (check, retry_in) = (error.check().to_owned(), Duration::MAX);
                status.send_replace(LinkStatus::Lost { check, retry_in });
                return Err(error);
            }
            if begun.elapsed() >= GOOD_LINK {
                pause = Pause::default();
            }
            let retry_in = pause.next(&error, &mut *(self.rng)());
            tracing::debug!(%error, ?retry_in, "the manager cannot be met at the moment");
            let check = error.check().to_owned();
            status.send_replace(LinkStatus::Lost { check, retry_in });
            tokio::select! {
                () = sleep(retry_in) => {}
                () = incoming.closed() => return Ok(()),
            }
        }
    }

    async fn serve_once(
        &self,
        incoming: &mpsc::Sender<Incoming>,
        alarms: &mut Alarms,
        status: &watch::Sender<LinkStatus>,
    ) -> Result<(), RelayError> {
        let mut link = self.connect(&self.gateway).await?;
        say(&mut link, &DeviceMessage::Register).await?;
        match hear(&mut link).await? {
            RelayMessage::Registered(_) => {}
            RelayMessage::Refused(refusal) => return Err(refused(&refusal)),
            _ => return Err(RelayError::Protocol("another answer than to a registration")),
        }
        status.send_replace(LinkStatus::Registered);
        let mut session = Session::new(link, Arc::<Notify>::default());
        let ended = serve_on(&mut session, incoming, alarms).await;
        session.end().await;
        ended
    }
}

fn refused(refusal: &countersign_wallet::relay::RelayRefusal) -> RelayError {
    let check = refusal.check.as_str().to_owned();
    RelayError::Refused { check, retry_after: refusal.retry_after }
}

async fn serve_on(
    session: &mut Session,
    incoming: &mpsc::Sender<Incoming>,
    alarms: &mut Alarms,
) -> Result<(), RelayError> {
    alarms.again_at = Some(session.link.now()); // what another connection left
    loop {
        if alarms.again_at.is_some_and(|at| session.link.now() >= at) {
            alarms.waiting.retain(|raised| !raised.taken.is_closed());
            for raised in &alarms.waiting {
                tell(session, &DeviceMessage::Alarm(raised.alarm.clone()))?;
            }
            alarms.again_at = Some(session.link.now().plus(ALARM_AGAIN));
        }
        // Flushed first, so that nothing is lost when another branch is taken.
        session.link.flush().await.map_err(super::lost)?;
        let stepped = tokio::select! {
            stepped = session.step(alarms.again_at) => stepped?,
            raised = alarms.next() => {
                tell(session, &DeviceMessage::Alarm(raised.alarm.clone()))?;
                alarms.waiting.push_back(raised);
                continue;
            }
            () = incoming.closed() => return Ok(()),
        };
        match stepped {
            Stepped::Nothing | Stepped::Deadline => {}
            Stepped::Message(RelayMessage::Met(met)) => welcome(session, &met, incoming)?,
            Stepped::Message(RelayMessage::AlarmTaken(id)) => alarms.taken(id.as_str()),
            Stepped::Message(RelayMessage::Refused(refusal)) => return Err(refused(&refusal)),
            Stepped::Message(_) => return Err(RelayError::Protocol("an answer to nothing")),
        }
    }
}

fn tell(session: &mut Session, message: &DeviceMessage) -> Result<(), RelayError> {
    session.link.machine().send(&message.encode()).map_err(RelayError::Channel)
}

/// A sleeve comes: it is handed on, or told that there is no place.
fn welcome(
    session: &mut Session,
    met: &Met,
    incoming: &mpsc::Sender<Incoming>,
) -> Result<(), RelayError> {
    let Ok(place) = incoming.try_reserve() else {
        let (meeting, reason) = (met.meeting, CloseReason::Busy);
        return tell(session, &DeviceMessage::Close(Closed { meeting, reason }));
    };
    if session.halves.contains_key(&met.meeting) {
        return Err(RelayError::Protocol("a meeting that is already there"));
    }
    let half = Arc::new(Half::new(met.meeting, session.wake.clone()));
    session.halves.insert(met.meeting, half.clone());
    let sleeve = met.peer.as_str().to_owned();
    place.send(Incoming { sleeve: sleeve.clone(), meeting: Meeting::new(sleeve, half) });
    Ok(())
}
