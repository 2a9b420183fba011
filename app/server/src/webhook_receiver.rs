//! A small receiver of webhooks, for trying them out and for tests: it verifies what arrives.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use countersign_crypto::{Mac, Secret, UnixTime, aws_lc};
use countersign_net::Clock;
use data_encoding::BASE64;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How far the signed time may lie from now, in seconds (Standard Webhooks).
pub const WEBHOOK_TOLERANCE: u64 = 5 * 60;
/// Longest event taken, in bytes.
const BODY_MAX: usize = 64 * 1024;
/// Events that may wait to be looked at.
const WAITING_MAX: usize = 64;
/// What a secret begins with.
const PREFIX: &str = "whsec_";

/// What arrived.
#[derive(Debug, Clone, PartialEq)]
pub struct ReceivedWebhook {
    /// The `webhook-id`: the same when an event arrives again.
    pub id: String,
    /// Whether the signature was checked: there is a secret. What has a wrong one is refused and
    /// not told.
    pub verified: bool,
    /// The CloudEvent.
    pub event: Value,
}

/// Listens for webhooks over plain HTTP, at any path.
pub struct WebhookReceiver {
    address: SocketAddr,
    arriving: mpsc::Receiver<ReceivedWebhook>,
    serving: JoinHandle<()>,
}

#[derive(Clone)]
struct Receiving {
    secret: Option<Arc<Secret>>,
    mac: Arc<dyn Mac>,
    clock: Arc<dyn Clock>,
    answer: StatusCode,
    arrived: mpsc::Sender<ReceivedWebhook>,
}

/// The key in a secret as it was shown: `whsec_…`.
#[must_use]
pub fn webhook_secret(shown: &str) -> Option<Secret> {
    let text = shown.trim().strip_prefix(PREFIX)?;
    let length = BASE64.decode_len(text.len()).ok()?;
    let mut used = 0;
    let bytes = Secret::try_filled(length, |out| {
        BASE64.decode_mut(text.as_bytes(), out).map(|length| used = length)
    });
    let bytes = bytes.ok()?;
    (used > 0).then(|| Secret::copied_from(&bytes.expose()[..used]))
}

impl WebhookReceiver {
    /// Listens at `address` and answers with `status` what is signed with `secret`; without one,
    /// everything.
    ///
    /// # Errors
    /// What the system says of the address; `InvalidInput` for a status that is none.
    pub async fn start(
        address: SocketAddr,
        secret: Option<Secret>,
        status: u16,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (arrived, arriving) = mpsc::channel(WAITING_MAX);
        let answer = StatusCode::from_u16(status)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let (secret, mac) = (secret.map(Arc::new), aws_lc::provider().mac);
        let receiving = Receiving { secret, mac, clock, answer, arrived };
        let router = axum::Router::new()
            .fallback(post(receive))
            .layer(DefaultBodyLimit::max(BODY_MAX))
            .with_state(receiving);
        let serving = tokio::spawn(async move {
            let server = axum_server::from_tcp(listener.into_std()?)?;
            server.serve(router.into_make_service()).await
        });
        let serving = tokio::spawn(async move {
            if let Ok(Err(error)) = serving.await {
                tracing::error!(%error, "the receiver failed");
            }
        });
        Ok(Self { address, arriving, serving })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next event that arrives.
    pub async fn next(&mut self) -> Option<ReceivedWebhook> {
        self.arriving.recv().await
    }
}

impl Drop for WebhookReceiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn receive(
    State(receiving): State<Receiving>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (id, time, signatures) =
        (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"));
    if let Some(secret) = &receiving.secret {
        let now = receiving.clock.now();
        if !verify(&*receiving.mac, secret, (id, time, signatures), &body, now) {
            return StatusCode::UNAUTHORIZED;
        }
    }
    let Ok(event) = serde_json::from_slice(&body) else { return StatusCode::BAD_REQUEST };
    let verified = receiving.secret.is_some();
    let received = ReceivedWebhook { id: id.to_owned(), verified, event };
    match receiving.arrived.try_send(received) {
        Ok(()) => receiving.answer,
        Err(_full) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Whether one of the signatures is right and its time is near.
fn verify(
    mac: &dyn Mac,
    secret: &Secret,
    (id, time, signatures): (&str, &str, &str),
    body: &[u8],
    now: UnixTime,
) -> bool {
    let near =
        time.parse::<u64>().is_ok_and(|time| time.abs_diff(now.as_secs()) <= WEBHOOK_TOLERANCE);
    let parts = [id.as_bytes(), b".", time.as_bytes(), b".", body];
    let right = |signature: &str| {
        let tag = signature.strip_prefix("v1,").and_then(|tag| BASE64.decode(tag.as_bytes()).ok());
        tag.is_some_and(|tag| mac.verify(secret.expose(), &parts, &tag).is_ok())
    };
    near && signatures.split(' ').any(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks libraries.
    #[test]
    fn the_published_example_is_verified_and_nothing_else() {
        let secret = webhook_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let mac = aws_lc::provider().mac;
        let (id, time, body) =
            ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", &b"{\"test\": 2432232314}"[..]);
        let good = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let check = |head: (&str, &str, &str), body: &[u8], now: u64| {
            verify(&*mac, &secret, head, body, UnixTime::from_secs(now))
        };
        assert!(check((id, time, good), body, 1_614_265_330));
        assert!(check((id, time, &format!("v1,AAAA v2,x {good}")), body, 1_614_265_630));
        for (head, body, now) in [
            ((id, time, good), &b"{\"test\": 2432232315}"[..], 1_614_265_330),
            (("msg_other", time, good), body, 1_614_265_330),
            ((id, "1614265331", good), body, 1_614_265_330),
            ((id, time, good), body, 1_614_265_631),
            ((id, time, good), body, 1_614_265_029),
            ((id, time, ""), body, 1_614_265_330),
            ((id, time, "v1,"), body, 1_614_265_330),
            ((id, time, &good[3..]), body, 1_614_265_330),
            ((id, "", good), body, 1_614_265_330),
        ] {
            assert!(!check(head, body, now), "{head:?} {now}");
        }
        for bad in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!!"] {
            assert!(webhook_secret(bad).is_none(), "{bad}");
        }
    }
}
