//! Request bodies: JSON of a known shape, or none.

use std::fmt;
use std::marker::PhantomData;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use countersign_crypto::Secret;
use data_encoding::HEXUPPER_PERMISSIVE;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroize;

use super::problem::Problem;
use super::{Api, BODY_TIMEOUT};

/// A JSON body; unknown fields are refused by the type itself.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Api> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let Json(Object(value)) = in_time(Json::from_request(request, api)).await?;
        Ok(Self(value))
    }
}

/// A JSON body that holds a secret: wiped once it is read, and what is wrong with it is not quoted.
pub(super) struct SecretBody<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Api> for SecretBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        if !says_json(request.headers()) {
            return Err(Problem::media_type());
        }
        let bytes = in_time(Bytes::from_request(request, api)).await?;
        let read = serde_json::from_slice(&bytes);
        // The buffer of the connection, where the body is a part of it, is not ours to wipe.
        if let Ok(mut own) = bytes.try_into_mut() {
            own.as_mut().zeroize();
        }
        let Object(value) =
            read.map_err(|_| Problem::body("the body has not the fields it needs"))?;
        Ok(Self(value))
    }
}

/// A secret in hex, decoded where it stands.
pub(super) struct SecretHex(pub(super) Secret);

/// Longest secret in a body, in bytes.
const SECRET_MAX: usize = 64;

impl<'de> Deserialize<'de> for SecretHex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Hex;

        impl Visitor<'_> for Hex {
            type Value = SecretHex;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("hex digits")
            }

            fn visit_str<E: serde::de::Error>(self, hex: &str) -> Result<SecretHex, E> {
                let refused = || E::custom("not hex digits");
                if hex.len() > 2 * SECRET_MAX {
                    return Err(refused());
                }
                let length = HEXUPPER_PERMISSIVE.decode_len(hex.len()).map_err(|_| refused())?;
                let secret = Secret::try_filled(length, |out| {
                    HEXUPPER_PERMISSIVE.decode_mut(hex.as_bytes(), out).map(|_| ())
                });
                secret.map(SecretHex).map_err(|_| refused())
            }
        }

        deserializer.deserialize_str(Hex)
    }
}

/// A JSON object. Types whose reading is derived would take an array too, field by field.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(Members(PhantomData)).map(Self)
    }
}

/// No body, or an empty object: a field that nobody reads is refused, not dropped.
pub(super) struct NoBody;

impl FromRequest<Api> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let bytes = in_time(Bytes::from_request(request, api)).await?;
        match bytes.trim_ascii() {
            b"" | b"{}" => Ok(Self),
            _ => Err(Problem::body("this request has no body")),
        }
    }
}

/// Whether the body is said to be JSON.
pub(super) fn says_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}

/// A JSON object of a known shape.
pub(super) fn object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let read = serde_json::from_slice(bytes);
    read.map(|Object(value)| value).map_err(|error| Problem::body(error.to_string()))
}

/// The body, if it comes in time.
pub(super) async fn in_time<T, E: Into<Problem>>(
    body: impl Future<Output = Result<T, E>>,
) -> Result<T, Problem> {
    let arrived = tokio::time::timeout(BODY_TIMEOUT, body).await;
    arrived.map_err(|_elapsed| Problem::body_timeout())?.map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let late = in_time(pending::<Result<u8, Problem>>()).await;
        assert_eq!(late, Err(Problem::body_timeout()));
        assert_eq!(in_time(async { Ok::<_, Problem>(7) }).await, Ok(7));
        let broken = Problem::body("broken");
        assert_eq!(in_time(async { Err::<u8, _>(broken.clone()) }).await, Err(broken));
    }
}
