//! What is sent: a CloudEvents 1.0 envelope under the signature of Standard Webhooks.

use countersign_crypto::{Mac, Secret, UnixTime};
use countersign_payment::to_rfc3339;
use countersign_store::Event;
use data_encoding::BASE64;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::ServiceError;

/// What a secret begins with when it is shown (Standard Webhooks).
const SECRET_PREFIX: &str = "whsec_";
/// Bytes of a secret.
pub(super) const SECRET_BYTES: usize = 32;
/// What the types of events begin with outside.
pub const EVENT_TYPE_PREFIX: &str = "countersign.";
/// Where events come from: the same on every server of one database, as CloudEvents wants of what
/// is sent again.
pub const EVENT_SOURCE: &str = "urn:countersign:events";

/// A request to a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookRequest {
    /// The receiver's URL.
    pub url: String,
    /// The event's id: the same each time it is sent (`webhook-id`).
    pub id: String,
    /// When it is sent, in seconds since 1970 (`webhook-timestamp`).
    pub timestamp: u64,
    /// `v1,` and base64 of HMAC-SHA256 over id, timestamp and body (`webhook-signature`).
    pub signature: String,
    /// The event (`application/cloudevents+json`).
    pub body: Vec<u8>,
}

/// The secret as its receiver writes it into its own configuration.
pub(super) fn shown(secret: &Secret) -> Zeroizing<String> {
    let text = Zeroizing::new(BASE64.encode(secret.expose()));
    Zeroizing::new(format!("{SECRET_PREFIX}{}", *text))
}

/// The request that tells `event` at `now`.
///
/// # Errors
/// [`ServiceError::Internal`] if the event's data are not JSON.
pub(super) fn request(
    mac: &dyn Mac,
    secret: &Secret,
    url: &str,
    event: &Event,
    now: UnixTime,
) -> Result<WebhookRequest, ServiceError> {
    let data: Value = serde_json::from_str(&event.data).map_err(|error| {
        ServiceError::Internal { detail: format!("the data of {}: {error}", event.id) }
    })?;
    // CloudEvents 1.0.2, JSON format 1.0.2, section 3.
    let body = json!({
        "specversion": "1.0",
        "id": event.id,
        "source": EVENT_SOURCE,
        "type": format!("{EVENT_TYPE_PREFIX}{}", event.kind),
        "subject": event.subject,
        "time": to_rfc3339(event.at),
        "datacontenttype": "application/json",
        "data": data,
    });
    let body = body.to_string().into_bytes();
    let timestamp = now.as_secs();
    let signature = sign(mac, secret, &event.id, timestamp, &body);
    Ok(WebhookRequest { url: url.to_owned(), id: event.id.clone(), timestamp, signature, body })
}

fn sign(mac: &dyn Mac, secret: &Secret, id: &str, timestamp: u64, body: &[u8]) -> String {
    let timestamp = timestamp.to_string();
    let parts = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
    format!("v1,{}", BASE64.encode(&mac.mac(secret.expose(), &parts)))
}

#[cfg(test)]
mod tests {
    use countersign_crypto::rust_crypto;

    use super::*;

    /// The example of the Standard Webhooks libraries.
    #[test]
    fn the_published_example_is_signed_as_published() {
        let secret = BASE64.decode(b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let mac = rust_crypto::provider().mac;
        let signature = sign(
            &*mac,
            &Secret::copied_from(&secret),
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn an_event_has_what_cloudevents_requires() {
        let event = Event {
            id: "evt_1".to_owned(),
            kind: "payment.executed".to_owned(),
            subject: "pay_1".to_owned(),
            data: r#"{"status":"executed"}"#.to_owned(),
            owner: None,
            at: UnixTime::from_millis(1_800_000_000_007),
        };
        let (mac, secret) = (rust_crypto::provider().mac, Secret::copied_from(&[7; SECRET_BYTES]));
        let now = UnixTime::from_secs(1_800_000_100);
        let request = request(&*mac, &secret, "https://shop.example/", &event, now).unwrap();
        assert_eq!((request.id.as_str(), request.timestamp), ("evt_1", 1_800_000_100));
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let expected = json!({
            "specversion": "1.0",
            "id": "evt_1",
            "source": "urn:countersign:events",
            "type": "countersign.payment.executed",
            "subject": "pay_1",
            "time": "2027-01-15T08:00:00.007Z",
            "datacontenttype": "application/json",
            "data": { "status": "executed" },
        });
        assert_eq!(body, expected);
        let broken = Event { data: "{".to_owned(), ..event };
        let refused = super::request(&*mac, &secret, "https://shop.example/", &broken, now);
        assert_eq!(refused.unwrap_err().check(), "internal");
    }
}
