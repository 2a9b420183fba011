//! What follows the handshake, by the kind of device: reads, injections of keys, or the relay.

use std::sync::Arc;

use countersign_crypto::UnixTime;
use countersign_service::{
    Answer, InjectionSession, KnownDevice, ReadSession, RelayBroken, RelaySession, Service,
};
use countersign_store::DeviceKind;

use super::contact::Carrier;

/// One device's session.
pub(super) enum Session {
    Read(Box<ReadSession>),
    Injection(Box<InjectionSession>),
    Relay(Box<RelaySession>),
}

/// Why a session ended: its peer broke the protocol, or was silent.
pub(super) struct Broken {
    /// Which protocol.
    pub(super) protocol: &'static str,
    /// Stable name of the check.
    pub(super) check: &'static str,
    pub(super) detail: String,
}

impl Session {
    /// For this device on this carrier; none for a kind that has no session there.
    pub(super) fn new(
        service: &Arc<Service>,
        device: &KnownDevice,
        carrier: Carrier,
        peer: std::net::IpAddr,
    ) -> Option<Self> {
        match device.kind {
            DeviceKind::Reader => {
                let (service, device) = (service.clone(), device.clone());
                let session = ReadSession::new(service, device, carrier.delivery());
                Some(Self::Read(Box::new(session.from_peer(peer))))
            }
            DeviceKind::Terminal if is_served(device, carrier) => {
                let session = InjectionSession::new(service.clone(), device.clone());
                Some(Self::Injection(Box::new(session)))
            }
            DeviceKind::Sleeve | DeviceKind::Manager if is_served(device, carrier) => {
                let session = RelaySession::new(service.clone(), device.clone())?;
                Some(Self::Relay(Box::new(session)))
            }
            _ => None,
        }
    }

    /// A device at the relay: it may be silent for long, and hears what it has not asked for.
    pub(super) fn relay(&mut self) -> Option<&mut RelaySession> {
        match self {
            Self::Relay(session) => Some(session),
            Self::Read(_) | Self::Injection(_) => None,
        }
    }

    /// Waits until there may be something to say that the device has not asked for. Cancel-safe.
    pub(super) async fn changed(session: Option<&Self>) {
        match session {
            Some(Self::Relay(session)) => session.changed().await,
            _ => std::future::pending().await,
        }
    }

    /// A read has limits of its own and is not cut by the session's.
    pub(super) fn is_reading(&self) -> bool {
        match self {
            Self::Read(session) => session.is_reading(),
            Self::Injection(_) | Self::Relay(_) => false,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<UnixTime> {
        match self {
            Self::Read(session) => session.poll_timeout(),
            Self::Injection(session) => session.poll_timeout(),
            Self::Relay(session) => session.poll_timeout(),
        }
    }

    pub(super) async fn handle(&mut self, message: &[u8]) -> (Answer, Result<(), Broken>) {
        match self {
            Self::Read(session) => {
                let (answer, handled) = session.handle(message).await;
                let broken = |error: countersign_idcard::FlowError| Broken {
                    protocol: "read",
                    check: error.check().name(),
                    detail: error.to_string(),
                };
                (answer, handled.map_err(broken))
            }
            Self::Injection(session) => {
                let (answer, handled) = session.handle(message).await;
                (answer, handled.map_err(injection_broken))
            }
            Self::Relay(session) => {
                (Answer::default(), session.handle(message).await.map_err(relay_broken))
            }
        }
    }

    pub(super) async fn handle_timeout(&mut self) -> (Answer, Result<(), Broken>) {
        match self {
            Self::Read(session) => (session.handle_timeout().await, Ok(())),
            Self::Injection(session) => {
                (Answer::default(), session.handle_timeout().map_err(injection_broken))
            }
            Self::Relay(_) => (Answer::default(), Ok(())), // what is due is polled
        }
    }

    /// The device has gone.
    pub(super) async fn gone(self) {
        match self {
            Self::Read(session) => session.reader_gone().await,
            Self::Injection(_) => {} // every step was stored before its answer
            Self::Relay(_) => {}     // dropping it ends its meetings
        }
    }
}

fn injection_broken(error: countersign_injection::FlowError) -> Broken {
    Broken { protocol: "injection", check: error.check(), detail: error.to_string() }
}

fn relay_broken(error: RelayBroken) -> Broken {
    Broken { protocol: "relay", check: error.check(), detail: error.to_string() }
}

/// Keys are injected over streams only, and the relay is reached over them only: nothing there
/// repeats what a datagram loses.
pub(super) fn is_served(device: &KnownDevice, carrier: Carrier) -> bool {
    match device.kind {
        DeviceKind::Terminal | DeviceKind::Sleeve | DeviceKind::Manager => {
            matches!(carrier, Carrier::Tcp)
        }
        _ => true,
    }
}
