use alloc::format; // the codec derives name it
use alloc::string::String;
use alloc::vec::Vec;

use tls_codec::{DeserializeBytes, SerializeBytes, TlsByteVecU8};
use tls_codec::{TlsDeserializeBytes, TlsSerializeBytes, TlsSize};

/// Longest incident id an alert carries, in bytes.
pub const INCIDENT_MAX: usize = 64;

macro_rules! alert_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// What a party tells its peer when it ends a connection. Codes are stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum AlertCode { $($(#[$doc])* $name,)* }

        impl AlertCode {
            /// The wire code.
            #[must_use]
            pub const fn code(self) -> u16 {
                match self { $(Self::$name => $code,)* }
            }

            /// The stable name of the check, as errors print it.
            #[must_use]
            pub const fn check(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            pub(crate) fn from_code(code: u16) -> Self {
                match code { $($code => Self::$name,)* _ => Self::Internal }
            }
        }
    };
}

alert_codes! {
    /// Bytes that are not this protocol, a length beyond its bound, or trailing bytes.
    Decode = 1, "message-format";
    /// A well-formed message that this state does not await.
    Unexpected = 2, "message-unexpected";
    /// No common version, suite or protection policy.
    Incompatible = 3, "incompatible";
    /// The request names another server.
    WrongServer = 4, "wrong-server";
    /// The challenge is older than the window or its epoch.
    ChallengeStale = 5, "challenge-stale";
    /// The challenge was used before.
    ChallengeReplayed = 6, "challenge-replayed";
    /// No reader with this id is enrolled.
    UnknownReader = 7, "reader-unknown";
    /// Serial number and certificate number do not belong together (C4).
    ReaderIdMismatch = 8, "reader-id-mismatch";
    /// An operator or a rule blocked this reader.
    ReaderBlocked = 9, "reader-blocked";
    /// The certificate is outside its profile or of another issuer.
    Certificate = 10, "certificate-refused";
    /// The certificate has expired or is not valid yet.
    CertificateTime = 11, "certificate-expired";
    /// The certificate was revoked.
    CertificateRevoked = 12, "certificate-revoked";
    /// A failure that depends on a secret: one code for all of them.
    Authentication = 13, "authentication";
    /// The handshake took too long.
    Timeout = 14, "handshake-timeout";
    /// The server cannot serve now; try again later.
    Busy = 15, "busy";
    /// The fault is on the sender's side.
    Internal = 16, "internal";
    /// Too many proofs from this address were refused lately.
    SourceLimited = 17, "source-limited";
    /// The manager's pairing window is closed (A1).
    PairingClosed = 18, "pairing-closed";
    /// The sleeve's user said no (A1); the one alert that a sleeve sends.
    PairingRefused = 19, "pairing-refused";
    /// No sleeve with this id is in the manager's pairing list.
    UnknownSleeve = 20, "sleeve-unknown";
    /// The sleeve may not connect for now.
    SleeveBlocked = 21, "sleeve-blocked";
}

#[derive(TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
struct Wire {
    code: u16,
    incident: TlsByteVecU8,
}

/// Only visible ASCII of an incident id travels, as the reader accepts no other.
pub(crate) fn encode(code: AlertCode, incident: &str) -> Vec<u8> {
    let visible = incident.bytes().filter(u8::is_ascii_graphic).take(INCIDENT_MAX);
    let incident = TlsByteVecU8::from(visible.collect::<Vec<_>>());
    let wire = Wire { code: code.code(), incident };
    wire.tls_serialize_bytes().expect("an alert is far below every bound")
}

/// An incident id is shown to people: only printable ASCII passes.
pub(crate) fn decode(body: &[u8]) -> Option<(AlertCode, String)> {
    let wire = Wire::tls_deserialize_exact_bytes(body).ok()?;
    let incident = wire.incident.as_slice();
    if incident.len() > INCIDENT_MAX || !incident.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let incident = String::from_utf8(incident.to_vec()).ok()?;
    Some((AlertCode::from_code(wire.code), incident))
}
