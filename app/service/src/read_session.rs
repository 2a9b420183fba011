use std::sync::Arc;
use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_idcard::message::{INCIDENT_MAX, Source};
use countersign_idcard::sam::SamOperation;
use countersign_idcard::server::{ServerEvent, ServerFlow};
use countersign_idcard::{Delivery, FlowError, ReadId, ShortText};
use countersign_store::IdKind;
use zeroize::Zeroizing;

use crate::reads::{Given, Origin, UnderWay};
use crate::{KnownDevice, SamLease, SamUnavailable, Service, ServiceError};

/// What a session has to say.
#[derive(Default)]
pub struct Answer {
    /// Messages for the reader, each to be sealed as one record.
    pub messages: Vec<Zeroizing<Vec<u8>>>,
    /// A read that ended, for the metrics.
    pub ended: Option<ReadEnded>,
}

/// How a read ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadEnded {
    /// `done`, or the stable name of the failed check.
    pub outcome: &'static str,
    /// From the reader's first message to the end.
    pub took: Duration,
    /// Packets that were asked for again (C10).
    pub resent: u32,
    /// SAMs that failed in mid-read and were replaced by another one (C12).
    pub sams_lost: u32,
    /// Whether the SAM said that the data are this card's; false also of a read without result.
    pub card_checked: bool,
}

/// One authenticated reader's connection: reads, one after the other.
///
/// Every read is stored before a SAM works on it and again before its plaintext is handed out, so a
/// crash at any moment leaves a row that tells how far it came, and the reader tries again.
pub struct ReadSession {
    service: Arc<Service>,
    reader: KnownDevice,
    delivery: Delivery,
    origin: Origin,
    current: Option<Current>,
}

struct Current {
    flow: ServerFlow,
    incident: String,
    read: Option<UnderWay>,
    lease: Option<SamLease>,
    sam_id: Option<String>,
    started: UnixTime,
    outcome: Option<&'static str>,
    sams_lost: u32,
    card_checked: bool,
}

fn short<const MAX: usize>(text: &str) -> ShortText<MAX> {
    ShortText::new(text).or_else(|| ShortText::new("")).expect("the empty text fits")
}

impl ReadSession {
    /// For this reader, after its handshake, on a link that delivers like this. Each read asks anew
    /// whether the certificate of that handshake still holds.
    #[must_use]
    pub fn new(service: Arc<Service>, reader: KnownDevice, delivery: Delivery) -> Self {
        let origin = Origin::new(&service);
        Self { service, reader, delivery, origin, current: None }
    }

    /// The same with the peer's address, without its port: reads of one certificate that come from
    /// two addresses in turn are a sign of two devices (C5).
    #[must_use]
    pub fn from_peer(mut self, peer: std::net::IpAddr) -> Self {
        self.origin.peer = peer.to_string();
        self
    }

    /// Whether a read is under way: it has neither result nor refusal yet.
    #[must_use]
    pub fn is_reading(&self) -> bool {
        self.current.as_ref().is_some_and(|current| !current.flow.is_decided())
    }

    /// When [`Self::handle_timeout`] is due. Over datagrams this may be so although no read is
    /// under way: a result that was kept, in case it had to be sent again, is then wiped.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<UnixTime> {
        self.current.as_ref().and_then(|current| current.flow.poll_timeout())
    }

    /// Takes one message; a message after a finished read begins the next one.
    ///
    /// Beside the answer to send comes a [`FlowError`] for a message that was malformed or out of
    /// turn: send the answer, then close.
    pub async fn handle(&mut self, bytes: &[u8]) -> (Answer, Result<(), FlowError>) {
        let now = self.service.now();
        let mut handled = match &mut self.current {
            Some(current) => current.flow.handle(now, bytes),
            None => Err(FlowError::Over),
        };
        if handled == Err(FlowError::Over) {
            handled = self.next_read(now).flow.handle(now, bytes);
        }
        (self.advance().await, handled)
    }

    fn next_read(&mut self, now: UnixTime) -> &mut Current {
        let incident = self.service.new_id(IdKind::Incident);
        let (policy, told) = (self.service.policy.read, short::<INCIDENT_MAX>(&incident));
        self.current.insert(Current {
            flow: ServerFlow::new(now, policy, self.delivery, told),
            incident,
            read: None,
            lease: None,
            sam_id: None,
            started: now,
            outcome: None,
            sams_lost: 0,
            card_checked: false,
        })
    }

    /// Takes the time.
    pub async fn handle_timeout(&mut self) -> Answer {
        let now = self.service.now();
        let Some(current) = &mut self.current else { return Answer::default() };
        current.flow.handle_timeout(now);
        self.advance().await
    }

    /// The connection is gone: ends a read under way, and frees its SAM.
    pub async fn reader_gone(mut self) {
        if let Some(current) = &mut self.current {
            current.flow.reader_gone();
            let _nobody_to_answer = self.advance().await;
        }
    }

    async fn advance(&mut self) -> Answer {
        let Some(current) = &mut self.current else { return Answer::default() };
        let mut stored = Ok(());
        while let Some(event) = current.flow.poll_event() {
            let (service, reader, origin) = (&self.service, &self.reader, &self.origin);
            let context = Context { service, reader, origin };
            match event {
                ServerEvent::Begun { read_id, source } => {
                    context.begin(current, read_id, source).await;
                }
                ServerEvent::Sam(operation) => context.operate(current, operation).await,
                ServerEvent::SamLost { check } => {
                    current.lease = None; // dead: its place goes to nobody until it is back
                    current.sams_lost += 1;
                    let (reader, sam, check) =
                        (&self.reader.id, current.sam_id.as_deref(), check.name());
                    tracing::warn!(
                        reader,
                        sam,
                        check,
                        "a SAM failed in mid-read; another is tried"
                    );
                }
                ServerEvent::Done { document_type, card_checked } => {
                    current.lease = None;
                    current.outcome = Some("done");
                    current.card_checked = card_checked;
                    stored = context.finish(current, document_type.name()).await;
                }
                ServerEvent::Failed { check } => {
                    current.lease = None;
                    current.outcome = Some(check.name());
                    stored = context.fail(current, check.name()).await;
                }
            }
        }
        if let Err(error) = stored {
            // Acknowledge only what is durable: the reader gets no result, and may try again.
            tracing::warn!(reader = self.reader.id, %error, "a read could not be recorded");
            current.outcome = Some(error.check());
            let retry = error.may_pass_later();
            current.flow.withhold(self.service.now(), error.check(), retry, short(""));
        }
        let messages = std::iter::from_fn(|| current.flow.poll_transmit()).collect();
        let ended = current.outcome.take().map(|outcome| ReadEnded {
            outcome,
            took: self.service.now().since(current.started),
            resent: current.flow.resent(),
            sams_lost: current.sams_lost,
            card_checked: current.card_checked,
        });
        Answer { messages, ended }
    }
}

/// What the handlers of a flow's events work with.
struct Context<'a> {
    service: &'a Service,
    reader: &'a KnownDevice,
    origin: &'a Origin,
}

impl Context<'_> {
    async fn begin(&self, current: &mut Current, read_id: ReadId, source: Source) {
        match self.service.begin_read(self.reader, read_id, self.origin).await {
            Ok(begun) => current.read = Some(UnderWay { begun, source }),
            Err(error) => {
                tracing::warn!(reader = self.reader.id, %error, "a read was refused");
                let retry = error.may_pass_later();
                current.outcome = Some(error.check());
                current.flow.refuse(self.service.now(), error.check(), retry, short(""));
            }
        }
    }

    async fn operate(&self, current: &mut Current, operation: SamOperation) {
        if matches!(operation, SamOperation::Cancel) {
            current.lease = None; // its drop makes the module forget the card
            return;
        }
        if current.flow.is_decided() {
            return; // refused while this operation was queued
        }
        let mut lease = match current.lease.take() {
            Some(lease) => lease,
            None => match self.service.sams.lease(&self.reader.id).await {
                Ok(lease) => lease,
                Err(unavailable) => return self.no_sam(current, unavailable).await,
            },
        };
        current.sam_id = lease.sam_id();
        let result = lease.operate(operation).await;
        current.lease = Some(lease);
        if current.flow.sam_done(self.service.now(), result).is_err() {
            tracing::error!(reader = self.reader.id, "the SAM answered what was not asked");
        }
    }

    async fn no_sam(&self, current: &mut Current, unavailable: SamUnavailable) {
        let check = match unavailable {
            SamUnavailable::NoneReady => "sam-none-ready",
            SamUnavailable::Busy => "sam-busy",
        };
        current.outcome = Some(check);
        current.flow.refuse(self.service.now(), check, true, short(""));
        if let Err(error) = self.fail(current, check).await {
            tracing::warn!(reader = self.reader.id, %error, "a read could not be recorded");
        }
    }

    /// Records a failure; of a read that never began there is nothing to record.
    async fn fail(&self, current: &Current, check: &str) -> Result<(), ServiceError> {
        let Some(read) = &current.read else { return Ok(()) };
        let sam_id = current.sam_id.clone();
        let (incident, resent) = (&current.incident, current.flow.resent());
        self.service.fail_read(self.reader, read, sam_id, check, incident, resent).await
    }

    async fn finish(
        &self,
        current: &Current,
        document_type: &'static str,
    ) -> Result<(), ServiceError> {
        let Some(read) = &current.read else {
            return Err(ServiceError::Internal { detail: "a read ended before it began".into() });
        };
        let sam_id = current.sam_id.clone().unwrap_or_default();
        let resent = current.flow.resent();
        let card_checked = current.card_checked;
        let given = Given { sam_id, document_type, card_checked };
        self.service.finish_read(self.reader, read, given, resent).await
    }
}
