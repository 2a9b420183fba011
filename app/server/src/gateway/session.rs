//! What follows the handshake, by the kind of device: reads, or injections of keys.

use std::sync::Arc;

use countersign_crypto::UnixTime;
use countersign_service::{Answer, InjectionSession, KnownDevice, ReadSession, Service};
use countersign_store::DeviceKind;

use super::contact::Carrier;

/// One device's session.
pub(super) enum Session {
    Read(Box<ReadSession>),
    Injection(Box<InjectionSession>),
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
            _ => None,
        }
    }

    /// A read has limits of its own and is not cut by the session's.
    pub(super) fn is_reading(&self) -> bool {
        match self {
            Self::Read(session) => session.is_reading(),
            Self::Injection(_) => false,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<UnixTime> {
        match self {
            Self::Read(session) => session.poll_timeout(),
            Self::Injection(session) => session.poll_timeout(),
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
        }
    }

    pub(super) async fn handle_timeout(&mut self) -> (Answer, Result<(), Broken>) {
        match self {
            Self::Read(session) => (session.handle_timeout().await, Ok(())),
            Self::Injection(session) => {
                (Answer::default(), session.handle_timeout().map_err(injection_broken))
            }
        }
    }

    /// The device has gone.
    pub(super) async fn gone(self) {
        match self {
            Self::Read(session) => session.reader_gone().await,
            Self::Injection(_) => {} // every step was stored before its answer
        }
    }
}

fn injection_broken(error: countersign_injection::FlowError) -> Broken {
    Broken { protocol: "injection", check: error.check(), detail: error.to_string() }
}

/// Keys are injected over streams only: nothing there repeats what a datagram loses.
pub(super) fn is_served(device: &KnownDevice, carrier: Carrier) -> bool {
    match device.kind {
        DeviceKind::Terminal => matches!(carrier, Carrier::Tcp),
        _ => true,
    }
}
