//! Contacts that fail before a reader has proven itself: audited, but never faster than a bound,
//! so that noise from the network cannot fill the disk.

use std::sync::Mutex;
use std::time::Duration;

use countersign_channel::Error;
use countersign_crypto::UnixTime;
use countersign_store::{AuditEntry, AuditOutcome, IdKind};

use crate::{Service, ServiceError};

/// Refused contacts written to the audit per [`PERIOD`], per process. The rest are counted.
const ROWS_MAX: u32 = 20;
const PERIOD: Duration = Duration::from_secs(1);

/// The bound's state.
#[derive(Default)]
pub(crate) struct Contacts(Mutex<Window>);

#[derive(Default)]
struct Window {
    since: UnixTime,
    rows: u32,
    suppressed: u64,
}

impl Contacts {
    /// Whether a row may be written now; if so, how many were left out since the last one.
    fn admit(&self, now: UnixTime) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if now.since(window.since) >= PERIOD {
            window.since = now;
            window.rows = 0;
        }
        if window.rows >= ROWS_MAX {
            window.suppressed += 1;
            return None;
        }
        window.rows += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

impl Service {
    /// Audits a handshake or session that failed, and returns the incident id for the peer, empty
    /// if
    /// the bound on such rows is reached. `peer` is an address or a device id.
    pub async fn refused_contact(&self, peer: &str, error: &Error) -> String {
        let now = self.now();
        let Some(suppressed) = self.contacts.admit(now) else { return String::new() };
        let incident = self.new_id(IdKind::Incident);
        let detail = serde_json::json!({ "error": error.to_string(), "suppressed": suppressed });
        let entry = AuditEntry {
            at: now,
            actor: peer.to_owned(),
            action: "channel.refuse".to_owned(),
            subject: self.authority.server_id.clone(),
            outcome: AuditOutcome::Refused,
            check: Some(error.check().to_owned()),
            incident: Some(incident.clone()),
            detail: detail.to_string(),
        };
        let written = self
            .store
            .run_snapshot("refuse_contact", move |tx| {
                tx.append_audit(&entry)?;
                Ok::<_, ServiceError>(())
            })
            .await;
        match written {
            Ok(()) => incident,
            Err(error) => {
                tracing::warn!(%error, "a refused contact could not be audited");
                String::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_bounded_per_period_and_the_rest_is_counted() {
        let contacts = Contacts::default();
        let now = UnixTime::from_secs(1000);
        for _ in 0..ROWS_MAX {
            assert_eq!(contacts.admit(now), Some(0));
        }
        assert_eq!(contacts.admit(now), None);
        assert_eq!(contacts.admit(now), None);
        assert_eq!(contacts.admit(now.plus(PERIOD)), Some(2));
        assert_eq!(contacts.admit(now.plus(PERIOD)), Some(0));
    }
}
