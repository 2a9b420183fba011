//! Phones that are browsers: each request has a proof of its own, made with a key that is not the
//! token (RFC 9449).

use std::sync::Arc;

use countersign_crypto::{Provider, SecureElement, rust_crypto};
use countersign_service::{PhoneActor, PhoneProof, Service, ServiceError, SessionKey};
use data_encoding::BASE64URL_NOPAD;
use der::asn1::UintRef;
use der::{Decode, Sequence};
use rand_core::CryptoRng;
use serde_json::json;

const URL: &str = "https://bank.example/v1/payments";
const BODY: &[u8] = b"{}";

/// A browser's key.
pub(crate) type BrowserKey = Arc<dyn SecureElement>;

#[derive(Sequence)]
struct Pair<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

fn encode(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(bytes)
}

fn sha256(pure: &Provider, bytes: &[u8]) -> String {
    encode(&pure.hash.hash(&[bytes]))
}

/// The coordinates of a key's point.
fn coordinates(key: &BrowserKey) -> (String, String) {
    let (x, y) = key.public_key()[1..].split_at(32);
    (encode(x), encode(y))
}

pub(crate) fn new_key(rng: &mut dyn CryptoRng) -> (BrowserKey, SessionKey) {
    let key: BrowserKey = rust_crypto::provider().signature.generate(rng).unwrap().key;
    let (x, y) = coordinates(&key);
    let session = SessionKey::from_jwk("EC", "P-256", &x, &y).unwrap();
    (key, session)
}

/// What a browser sends beside its token.
pub(crate) fn prove(
    key: &BrowserKey,
    token: &str,
    at: u64,
    rng: &mut (impl CryptoRng + ?Sized),
) -> String {
    let pure = rust_crypto::provider();
    let (x, y) = coordinates(key);
    let mut number = [0; 16];
    rng.fill_bytes(&mut number);
    let header = json!({
        "typ": "dpop+jwt",
        "alg": "ES256",
        "jwk": { "kty": "EC", "crv": "P-256", "x": x, "y": y },
    });
    let claims = json!({
        "jti": encode(&number),
        "htm": "POST",
        "htu": URL,
        "iat": at,
        "ath": sha256(&pure, token.as_bytes()),
        "bh": sha256(&pure, BODY),
    });
    let parts = [header, claims].map(|part| encode(part.to_string().as_bytes()));
    let input = parts.join(".");
    let mut draw = testkit::rng::seeded(u64::from_be_bytes(*number.first_chunk().unwrap()));
    let signature = key.sign(&mut draw, input.as_bytes()).unwrap();
    let pair = Pair::from_der(&signature).unwrap();
    let mut raw = [0; 64];
    for (half, number) in raw.chunks_mut(32).zip([pair.r.as_bytes(), pair.s.as_bytes()]) {
        half[32 - number.len()..].copy_from_slice(number);
    }
    format!("{input}.{}", encode(&raw))
}

/// The phone, by its token and, if it is a browser, a proof: which counts once and no more.
pub(crate) async fn authorise(
    service: &Service,
    token: &str,
    jwt: Option<&str>,
) -> Result<PhoneActor, ServiceError> {
    let Some(jwt) = jwt else { return service.authorise_phone(token).await };
    let proof = PhoneProof { jwt, method: "POST", url: URL, body: BODY };
    let phone = service.authorise_phone_with(token, &proof).await?;
    let again = service.authorise_phone_with(token, &proof).await;
    let bearer = service.authorise_phone(token).await;
    if again.is_ok() || bearer.is_ok() {
        let detail = "a proof was taken twice, or the token without one".to_owned();
        return Err(ServiceError::Internal { detail });
    }
    Ok(phone)
}
