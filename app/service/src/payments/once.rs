use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_store::{Claim, IdempotentRequest, Tx};

use crate::{Actor, Service, ServiceError};

/// How long a claim holds. It only matters to a claim without an answer, and a claim is made in the
/// transaction that answers it.
const CLAIM: Duration = Duration::from_secs(60);
/// Requests with a key that one server works on at once.
const IN_FLIGHT_MAX: usize = 1024;

/// What makes a request happen once: its `Idempotency-Key`, and how its answer is written. The
/// answer is stored with what was done, and given again byte by byte.
pub struct Once<T> {
    /// The `Idempotency-Key`, unique for its operator.
    pub key: String,
    /// SHA-256 over the request: the key is for this one and no other.
    pub request_hash: [u8; 32],
    /// Status and body of the answer.
    pub render: Render<T>,
}

/// Makes status and body of an answer.
pub(crate) type Render<T> = Arc<dyn Fn(&T) -> (u16, Vec<u8>) + Send + Sync>;

impl<T> Clone for Once<T> {
    fn clone(&self) -> Self {
        Self { key: self.key.clone(), request_hash: self.request_hash, render: self.render.clone() }
    }
}

/// What became of a request that happens once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled<T> {
    /// It was done now.
    Fresh {
        /// What was done.
        value: T,
        /// Status of the answer.
        status: u16,
        /// Body of the answer, as it is stored.
        body: Vec<u8>,
    },
    /// It was done before: the answer of then.
    Replay {
        /// Status of the answer.
        status: u16,
        /// Body of the answer, byte by byte as it was.
        body: Vec<u8>,
    },
}

impl<T> Settled<T> {
    /// Status and body of the answer.
    #[must_use]
    pub fn answer(&self) -> (u16, &[u8]) {
        match self {
            Self::Fresh { status, body, .. } | Self::Replay { status, body } => (*status, body),
        }
    }
}

/// The keys that this server works on.
#[derive(Default)]
pub(super) struct InFlight(Mutex<HashSet<(String, String)>>);

/// A key that is being worked on; given back on drop.
pub(super) struct Working {
    keys: Arc<InFlight>,
    key: (String, String),
}

impl InFlight {
    /// Takes a key.
    ///
    /// # Errors
    /// `idempotency-in-flight` if the same request is being worked on here. One that another server
    /// works on is waited for in the database, and then its answer is given again.
    pub(super) fn begin(
        self: &Arc<Self>,
        operator: &str,
        key: &str,
    ) -> Result<Working, ServiceError> {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= IN_FLIGHT_MAX {
            let detail = "too many requests are being worked on".to_owned();
            return Err(ServiceError::Unavailable { detail });
        }
        let key = (operator.to_owned(), key.to_owned());
        if !keys.insert(key.clone()) {
            return Err(in_flight());
        }
        Ok(Working { keys: self.clone(), key })
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.keys.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

fn in_flight() -> ServiceError {
    let detail = "a request with this Idempotency-Key is being worked on";
    ServiceError::refused("idempotency-in-flight", detail)
}

/// One request on its way through a transaction.
pub(super) struct Attempt<T> {
    request: IdempotentRequest,
    render: Render<T>,
}

impl<T> Attempt<T> {
    /// Claims the key, does `work`, and stores the answer, all in `tx`: either all of it is there
    /// afterwards or nothing.
    pub(super) fn run(
        &self,
        tx: &mut Tx<'_>,
        now: UnixTime,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, ServiceError>,
    ) -> Result<Settled<T>, ServiceError> {
        match tx.claim_idempotency(&self.request, now, now.plus(CLAIM))? {
            Claim::New => {}
            Claim::Replay { status, body } => {
                let status = u16::try_from(status).map_err(|_| ServiceError::Internal {
                    detail: "a stored answer has no HTTP status".to_owned(),
                })?;
                return Ok(Settled::Replay { status, body });
            }
            Claim::InFlight => return Err(in_flight()),
            Claim::OtherRequest => {
                let detail = "this Idempotency-Key was used for another request";
                return Err(ServiceError::refused("idempotency-mismatch", detail));
            }
        }
        let value = work(tx)?;
        let (status, body) = (self.render)(&value);
        tx.answer_idempotency(&self.request, status.into(), &body)?;
        Ok(Settled::Fresh { value, status, body })
    }
}

impl Service {
    /// Begins a request that happens once: nobody else of this server works on the same key while
    /// the second value lives.
    pub(super) fn once<T>(
        &self,
        actor: &Actor,
        once: Once<T>,
    ) -> Result<(Attempt<T>, Working), ServiceError> {
        let Once { key, request_hash: hash, render } = once;
        let working = self.payments.in_flight.begin(actor.id(), &key)?;
        let mut claim = [0; 16];
        self.rng().fill_bytes(&mut claim);
        let operator_id = actor.id().to_owned();
        let request = IdempotentRequest { operator_id, key, hash, claim };
        Ok((Attempt { request, render }, working))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_worked_on_once_at_a_time_and_is_free_afterwards() {
        let keys = Arc::new(InFlight::default());
        let working = keys.begin("opr_1", "k").expect("it is free");
        let refused = keys.begin("opr_1", "k").err().map(|error| error.check());
        assert_eq!(refused, Some("idempotency-in-flight"));
        assert!(keys.begin("opr_2", "k").is_ok(), "another operator's key is another key");
        drop(working);
        assert!(keys.begin("opr_1", "k").is_ok());
    }

    #[test]
    fn the_number_of_requests_at_work_is_bounded() {
        let keys = Arc::new(InFlight::default());
        let held: Vec<_> =
            (0..IN_FLIGHT_MAX).map(|n| keys.begin("opr_1", &n.to_string())).collect();
        assert!(held.iter().all(Result::is_ok));
        let refused = keys.begin("opr_1", "one more").err().map(|error| error.check());
        assert_eq!(refused, Some("unavailable"));
    }
}
