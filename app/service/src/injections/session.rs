use std::sync::Arc;

use countersign_crypto::UnixTime;
use countersign_injection::message::ServerMessage;
use countersign_injection::server::{ServerEvent, ServerFlow, refusal};
use countersign_injection::{FlowError, Name};
use countersign_store::{CertificateState, TerminalRecord};
use zeroize::Zeroizing;

use crate::refusals::{Party, Refusal};
use crate::{Answer, KnownDevice, Service, ServiceError};

/// What people at a terminal see of everything that depends on a secret; the audit has the check.
pub(super) const TOKEN_REFUSED: &str = "token-refused";

/// One authenticated terminal's connection, message by message (E2–E8).
///
/// What a message leads to is stored and audited before the answer leaves, so a crash at any moment
/// leaves rows from which both sides go on: the terminal asks again, and is given the same key.
pub struct InjectionSession {
    service: Arc<Service>,
    terminal: KnownDevice,
    flow: ServerFlow,
}

impl InjectionSession {
    /// For this terminal, after its handshake. Each message asks anew whether it may be served.
    #[must_use]
    pub fn new(service: Arc<Service>, terminal: KnownDevice) -> Self {
        let flow = ServerFlow::new(service.now());
        Self { service, terminal, flow }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<UnixTime> {
        self.flow.poll_timeout()
    }

    /// Handles one message. What there is to say comes first, also when it broke the protocol.
    pub async fn handle(&mut self, message: &[u8]) -> (Answer, Result<(), FlowError>) {
        let now = self.service.now();
        if let Err(error) = self.flow.handle(now, message) {
            return (Answer::default(), Err(error));
        }
        let Some(event) = self.flow.poll_event() else { return (Answer::default(), Ok(())) };
        if event == ServerEvent::Unbound {
            self.service.terminal_unbound(&self.terminal).await;
            return (Answer::default(), Ok(()));
        }
        let said = self.service.answer_terminal(&self.terminal, event).await;
        let mut answer = Answer::default();
        let told = self.flow.answer(self.service.now(), &said);
        answer.messages.extend(self.flow.poll_transmit().map(Zeroizing::new));
        (answer, told)
    }

    /// Gives a terminal up that says nothing; an error then.
    ///
    /// # Errors
    /// [`FlowError::Timeout`].
    pub fn handle_timeout(&mut self) -> Result<(), FlowError> {
        self.flow.handle_timeout(self.service.now())
    }
}

impl Service {
    /// Decides on what a terminal said. Every failure is an answer too.
    async fn answer_terminal(&self, terminal: &KnownDevice, event: ServerEvent) -> ServerMessage {
        let (action, decided) = match event {
            ServerEvent::Bind(token) => {
                ("terminal.bind", self.bind(terminal, token.as_slice()).await)
            }
            ServerEvent::Asked(asked) => ("token.request", self.next_token(terminal, &asked).await),
            ServerEvent::Installed(installed) => {
                ("injection.confirm", self.confirm(terminal, &installed).await)
            }
            ServerEvent::Refused(refused) => {
                ("token.refuse", self.note_refusal(terminal, &refused).await)
            }
            // The session has dealt with it; it wants no answer.
            ServerEvent::Unbound => return ServerMessage::Nothing,
        };
        match decided {
            Ok(message) => message,
            Err(error) => self.refuse_terminal(terminal, action, &error).await,
        }
    }

    /// The refusal that the terminal is told. Policy and state name their check; the audit has the
    /// row, and the terminal the incident.
    async fn refuse_terminal(
        &self,
        terminal: &KnownDevice,
        action: &str,
        error: &ServiceError,
    ) -> ServerMessage {
        if !error.is_refusal() {
            tracing::warn!(%error, terminal = terminal.id, "a terminal could not be served");
            return refusal(error.check(), true, "");
        }
        let incident = self
            .audit_refusal(Refusal {
                party: Party::Terminal,
                actor: &terminal.id,
                reader: Some(&terminal.id),
                action,
                subject: &terminal.id,
                check: error.check(),
                reason: error.to_string(),
            })
            .await;
        let later = match error.check() {
            "injection-closed" | "not-found" => false,
            // It may count as installed already: the terminal keeps it, and reports it again (E7).
            _ if action == "injection.confirm" => true,
            // Another server, or another contact of this terminal, was at it at the same moment.
            check => matches!(check, "terminal-throttled" | "conflict" | "signing-time-taken"),
        };
        refusal(error.check(), later, &incident)
    }

    /// The terminal may be served: not blocked, and the certificate of its handshake still holds.
    /// Its connection may be older than an operator's decision.
    pub(super) async fn served_terminal(
        &self,
        terminal: &KnownDevice,
    ) -> Result<TerminalRecord, ServiceError> {
        let record = self.terminal_record(&terminal.id).await?;
        let now = self.now();
        if record.device.blocked(now).is_some() {
            return Err(ServiceError::refused("device-blocked", "the terminal is blocked"));
        }
        let number = terminal.entry.certificate_number.to_string();
        let live = record.device.certificate.as_ref().filter(|certificate| {
            certificate.state == CertificateState::Issued && certificate.number == number
        });
        let revoked = || {
            let detail = "the certificate of this connection is revoked or replaced";
            ServiceError::refused("certificate-revoked", detail)
        };
        if live.ok_or_else(revoked)?.not_after <= now {
            let detail = "the certificate of this connection has run out";
            return Err(ServiceError::refused("certificate-expired", detail));
        }
        Ok(record)
    }

    async fn terminal_unbound(&self, terminal: &KnownDevice) {
        if let Err(error) = self.unbound(&terminal.id).await {
            // It says so again: its next contact begins with a binding.
            tracing::warn!(%error, terminal = terminal.id, "the end of a binding is not stored");
        }
    }
}

/// A name that fits a message.
pub(super) fn name<const MAX: usize>(text: &str) -> Name<MAX> {
    Name::clipped(text)
}
