//! The `Idempotency-Key` header: a request that may be sent again without being done again.

use std::marker::PhantomData;

use axum::body::Bytes;
use axum::extract::{FromRequest, OriginalUri, Request};
use serde::de::DeserializeOwned;

use super::Api;
use super::body::{in_time, object, says_json};
use super::problem::Problem;

/// Longest key, in characters.
const KEY_MAX: usize = 255;
const HEADER: &str = "idempotency-key";

/// A request with a key: what it is, by key and by content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    /// The key: 1 to 255 visible ASCII characters.
    pub(super) key: String,
    /// SHA-256 over method, path and body: the same key with another one is refused.
    pub(super) hash: [u8; 32],
}

/// A JSON body under an `Idempotency-Key`.
pub(super) struct Idempotent<T> {
    /// Which request it is.
    pub(super) key: Key,
    /// The body.
    pub(super) value: T,
}

impl<T: DeserializeOwned> FromRequest<Api> for Idempotent<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        if !says_json(request.headers()) {
            return Err(Problem::media_type());
        }
        let (key, body) = read(request, api).await?;
        Ok(Self { key, value: object(&body)? })
    }
}

/// No body, or an empty object, under an `Idempotency-Key`.
pub(super) struct IdempotentNoBody {
    /// Which request it is.
    pub(super) key: Key,
    _no_body: PhantomData<()>,
}

impl FromRequest<Api> for IdempotentNoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let (key, body) = read(request, api).await?;
        match body.trim_ascii() {
            b"" | b"{}" => Ok(Self { key, _no_body: PhantomData }),
            _ => Err(Problem::body("this request has no body")),
        }
    }
}

async fn read(request: Request, api: &Api) -> Result<(Key, Bytes), Problem> {
    let key = key(&request)?;
    let method = request.method().to_string();
    // The path as it came, not as a nested router sees it.
    let path = request.extensions().get::<OriginalUri>();
    let path = path.map_or(request.uri(), |original| &original.0).path().to_owned();
    let body = in_time(Bytes::from_request(request, api)).await?;
    let hash = hash(&method, &path, &body);
    Ok((Key { key, hash }, body))
}

/// The key, if there is exactly one.
fn key(request: &Request) -> Result<String, Problem> {
    let mut headers = request.headers().get_all(HEADER).iter();
    let Some(header) = headers.next() else {
        let detail = "this request needs an Idempotency-Key: a text that is new for each payment";
        return Err(Problem::query("idempotency-key-missing", detail));
    };
    let refused = || {
        let detail = format!("an Idempotency-Key has 1 to {KEY_MAX} visible ASCII characters");
        Problem::query("idempotency-key", detail)
    };
    let bytes = header.as_bytes();
    let fits = (1..=KEY_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    if !fits || headers.next().is_some() {
        return Err(refused());
    }
    header.to_str().map(str::to_owned).map_err(|_| refused())
}

/// Method and path have no line break, so that no two requests are hashed alike.
fn hash(method: &str, path: &str, body: &[u8]) -> [u8; 32] {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in [method.as_bytes(), b"\n", path.as_bytes(), b"\n", body] {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn with_keys(keys: &[&[u8]]) -> Result<String, Problem> {
        let mut request = Request::post("/v1/payments");
        for value in keys {
            request = request.header(HEADER, *value);
        }
        key(&request.body(Body::empty()).unwrap())
    }

    #[test]
    fn a_key_is_one_visible_text_of_bounded_length() {
        let longest = "k".repeat(KEY_MAX);
        for good in ["7", "order-7/try:1", longest.as_str()] {
            assert_eq!(with_keys(&[good.as_bytes()]).as_deref(), Ok(good));
        }
        assert_eq!(with_keys(&[]).unwrap_err().check, "idempotency-key-missing");
        let long = "k".repeat(KEY_MAX + 1);
        let bad: [&[&[u8]]; 6] = [
            &[b""],
            &[b"two words"],
            &[b"tab\there"],
            &["größe".as_bytes()],
            &[long.as_bytes()],
            &[b"one", b"two"],
        ];
        for keys in bad {
            assert_eq!(with_keys(keys).unwrap_err().check, "idempotency-key", "{keys:?}");
        }
    }

    #[test]
    fn another_method_path_or_body_is_another_request() {
        let one = hash("POST", "/v1/payments", b"{}");
        assert_eq!(one, hash("POST", "/v1/payments", b"{}"));
        for (method, path, body) in [
            ("PUT", "/v1/payments", &b"{}"[..]),
            ("POST", "/v1/payment", b"{}"),
            ("POST", "/v1/payments", b"{ }"),
            ("POST", "/v1/payments\n{}", b""),
        ] {
            assert_ne!(one, hash(method, path, body), "{method} {path}");
        }
    }
}
