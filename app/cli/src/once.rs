//! Requests that change money: each under a key of its own, so that it may be repeated.

use std::thread::sleep;
use std::time::Duration;

use countersign_device::{Api, ApiError};
use countersign_server::ambient;
use serde_json::Value;

use crate::failure::Failure;

/// Random bytes in a key that the command makes.
const KEY_BYTES: usize = 16;
/// Longest key, in characters.
const KEY_MAX: usize = 255;
/// How often a request whose outcome is not known is sent in all.
const TRIES: u32 = 5;
/// The pause after the first try; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(250);

/// The key of one request.
#[derive(clap::Args)]
pub(crate) struct Once {
    /// The request's Idempotency-Key, to repeat it after a failure: the same key and request do
    /// nothing twice. A random one if it is not given.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

impl Once {
    /// With its key made, if none was given.
    pub(crate) fn fixed(self) -> Fixed {
        Fixed(self.idempotency_key.unwrap_or_else(random_key))
    }

    /// POSTs under this key; when it is not known what became of it, again.
    pub(crate) fn post(self, api: &Api, path: &str, body: &Value) -> Result<Value, Failure> {
        self.fixed().post(api, path, body)
    }
}

/// A key that stands.
pub(crate) struct Fixed(String);

impl Fixed {
    pub(crate) fn key(&self) -> &str {
        &self.0
    }

    /// POSTs under this key; when it is not known what became of it, again.
    pub(crate) fn post(&self, api: &Api, path: &str, body: &Value) -> Result<Value, Failure> {
        check_key(&self.0)?;
        repeated(|| api.post_once(path, &self.0, body)).map_err(|error| {
            let unknown = unknown_outcome(&error);
            let mut failure = Failure::from(error);
            if unknown {
                failure.detail = format!(
                    "{}; what became of it is not known: repeat it with --idempotency-key {}",
                    failure.detail, self.0
                );
            }
            failure
        })
    }
}

/// What a header cannot carry is not sent at all, so its outcome is known.
fn check_key(key: &str) -> Result<(), Failure> {
    if (1..=KEY_MAX).contains(&key.len()) && key.bytes().all(|c| c.is_ascii_graphic()) {
        return Ok(());
    }
    let detail = format!("an Idempotency-Key has 1 to {KEY_MAX} visible ASCII characters");
    Err(Failure::check("idempotency-key", detail))
}

fn random_key() -> String {
    let mut random = [0; KEY_BYTES];
    (ambient().rng)().fill_bytes(&mut random);
    data_encoding::HEXLOWER.encode(&random)
}

/// Whether the server may have done it all the same, or may do it yet.
fn unknown_outcome(error: &ApiError) -> bool {
    match error {
        ApiError::Refused { status, check, .. } => *status >= 500 || check == IN_FLIGHT,
        ApiError::Unreachable { .. } | ApiError::NotOurs { .. } => true,
        ApiError::Url { .. } | ApiError::CaFile { .. } => false,
    }
}

/// The check of a request whose first sending is still being worked on.
const IN_FLIGHT: &str = "idempotency-in-flight";

fn repeated<T>(mut send: impl FnMut() -> Result<T, ApiError>) -> Result<T, ApiError> {
    let mut pause = PAUSE;
    for _ in 1..TRIES {
        match send() {
            Err(error) if unknown_outcome(&error) => {}
            settled => return settled,
        }
        sleep(pause);
        pause *= 2;
    }
    send()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, check: &str) -> ApiError {
        ApiError::Refused { status, check: check.to_owned(), detail: "no".to_owned() }
    }

    #[test]
    fn only_what_has_an_unknown_outcome_is_sent_again_and_not_for_ever() {
        let lost = || ApiError::Unreachable { url: "u".to_owned(), detail: "gone".to_owned() };
        let mut left = vec![Ok(7), Err(refused(409, IN_FLIGHT)), Err(lost())];
        assert_eq!(repeated(|| left.pop().unwrap()), Ok(7));
        let mut sent = 0;
        let settled = repeated::<()>(|| {
            sent += 1;
            Err(refused(422, "amount"))
        });
        assert_eq!((settled, sent), (Err(refused(422, "amount")), 1));
        let mut sent = 0;
        let never = repeated::<()>(|| {
            sent += 1;
            Err(lost())
        });
        assert_eq!((never, sent), (Err(lost()), TRIES));
    }

    #[test]
    fn a_key_that_cannot_be_sent_is_named_and_not_tried() {
        let check = |key: &str| check_key(key).map_err(|failure| failure.check);
        for good in [random_key(), "order-7/try:1".to_owned(), "k".repeat(KEY_MAX)] {
            assert_eq!(check(&good), Ok(()), "{good}");
        }
        for bad in ["", "two words", "a\nb", "größe", &"k".repeat(KEY_MAX + 1)] {
            assert_eq!(check(bad), Err("idempotency-key".to_owned()), "{bad}");
        }
    }

    #[test]
    fn keys_differ() {
        assert_ne!(random_key(), random_key());
        assert_eq!(random_key().len(), 2 * KEY_BYTES);
    }
}
