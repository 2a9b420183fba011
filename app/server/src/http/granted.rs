//! Who is let in without being an operator: a payer's phone (D2) and a checkout page.
//!
//! A program's phone shows its token. A browser's phone shows its token and, for each request, a
//! proof (DPoP, RFC 9449) made with a key that never leaves the browser: a token alone, wherever it
//! was read, opens nothing.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::HeaderName;
use axum::http::request::Parts;
use countersign_service::{CheckoutView, PhoneActor, PhoneProof, Service, ServiceError};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::Api;
use super::auth::credentials;
use super::body::{in_time, object, says_json};
use super::problem::Problem;
use super::query::Id;

/// The header with the proof.
const PROOF: HeaderName = HeaderName::from_static("dpop");
/// What a phone that is not let in is told to show.
const PHONE_CHALLENGE: &str = "Bearer, DPoP algs=\"ES256\"";
/// What a checkout page that is not let in is told to show.
const CHECKOUT_CHALLENGE: &str = "Checkout";

/// What a phone has shown, before any of it is checked.
struct Shown {
    token: Zeroizing<String>,
    /// A browser's: the proof, and for which method and URL it is to be.
    proof: Option<(String, String, String)>,
}

impl Shown {
    /// `Authorization: Bearer`, or `Authorization: DPoP` beside one `DPoP`.
    fn read(parts: &Parts, api: &Api) -> Result<Self, ServiceError> {
        let none = || ServiceError::Unauthenticated;
        let (scheme, token) = credentials(parts).ok_or_else(none)?;
        let token = Zeroizing::new(token.to_owned());
        let mut proofs = parts.headers.get_all(PROOF).iter();
        let proof = match (proofs.next(), proofs.next()) {
            (None, _) => None,
            (Some(proof), None) => Some(proof.to_str().map_err(|_| none())?.to_owned()),
            (Some(_), Some(_)) => return Err(none()),
        };
        if scheme.eq_ignore_ascii_case("Bearer") && proof.is_none() {
            return Ok(Self { token, proof: None });
        }
        if !scheme.eq_ignore_ascii_case("DPoP") {
            return Err(none());
        }
        let proof = proof.ok_or_else(none)?;
        let url = api.site.url(parts).ok_or_else(none)?;
        Ok(Self { token, proof: Some((proof, parts.method.to_string(), url)) })
    }

    /// The phone, if what it has shown holds, for a request with this body.
    async fn check(self, service: &Service, body: &[u8]) -> Result<PhoneGranted, ServiceError> {
        let phone = match &self.proof {
            None => service.authorise_phone(&self.token).await?,
            Some((jwt, method, url)) => {
                let proof = PhoneProof { jwt, method, url, body };
                service.authorise_phone_with(&self.token, &proof).await?
            }
        };
        Ok(PhoneGranted { phone, token: self.token })
    }
}

fn challenged(error: ServiceError) -> Problem {
    Problem::from(error).challenging(PHONE_CHALLENGE)
}

/// Proof that a live phone asks. Taken first by a handler, so that nothing of the request is looked
/// at before. An operator's token is none. For requests without a body; a phone's body is taken by
/// [`PhoneBody`], for its proof covers the body.
pub(crate) struct PhoneGranted {
    /// The phone.
    pub(crate) phone: PhoneActor,
    /// To ask again with, where a request lasts.
    token: Zeroizing<String>,
}

impl PhoneGranted {
    /// The phone as it is now, where a request lasts: a proof is good for the beginning only.
    ///
    /// # Errors
    /// [`ServiceError::Unauthenticated`] once the token is void.
    pub(super) async fn again(&self, service: &Service) -> Result<PhoneActor, ServiceError> {
        service.authorise_phone_again(&self.token).await
    }
}

impl FromRequestParts<Api> for PhoneGranted {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let shown = Shown::read(parts, api).map_err(challenged)?;
        shown.check(&api.service, b"").await.map_err(challenged)
    }
}

/// A phone and what it sends: a JSON object of a known shape, whose very bytes its proof covers.
pub(super) struct PhoneBody<T> {
    /// The phone.
    pub(super) phone: PhoneActor,
    /// What it sends.
    pub(super) value: T,
}

impl<T: DeserializeOwned> FromRequest<Api> for PhoneBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let shown = Shown::read(&parts, api).map_err(challenged)?;
        let says_json = says_json(&parts.headers);
        // A program's token is looked at before its body is read; a browser's cannot be.
        let (granted, bytes) = if shown.proof.is_none() {
            let granted = shown.check(&api.service, b"").await.map_err(challenged)?;
            (granted, read(parts, body, api).await?)
        } else {
            let bytes = read(parts, body, api).await?;
            (shown.check(&api.service, &bytes).await.map_err(challenged)?, bytes)
        };
        if !says_json {
            return Err(Problem::media_type());
        }
        Ok(Self { phone: granted.phone, value: object(&bytes)? })
    }
}

/// The whole body, within its bounds.
async fn read(parts: Parts, body: axum::body::Body, api: &Api) -> Result<Bytes, Problem> {
    in_time(Bytes::from_request(Request::from_parts(parts, body), api)).await
}

/// Proof that the checkout page of the payment in the path asks: it has shown the payment's key.
/// For routes with one `{id}`. A wrong key and an unknown payment look alike.
pub(crate) struct CheckoutGranted {
    /// `pay_…`.
    pub(crate) id: String,
    /// What opens it, to ask with.
    pub(crate) key: Zeroizing<String>,
}

impl CheckoutGranted {
    /// The payment, with the text for a device without a phone, which is signed anew each time.
    ///
    /// # Errors
    /// [`ServiceError::Unauthenticated`] if its time has ended meanwhile.
    pub(super) async fn view(&self, service: &Service) -> Result<CheckoutView, Problem> {
        service.checkout_view(&self.id, &self.key).await.map_err(unopened)
    }
}

/// What a checkout page is told that is not let in.
pub(super) fn unopened(error: ServiceError) -> Problem {
    Problem::from(error).challenging(CHECKOUT_CHALLENGE)
}

impl FromRequestParts<Api> for CheckoutGranted {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let refused = || unopened(ServiceError::Unauthenticated);
        let key = match credentials(parts) {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case("Checkout") => {
                Zeroizing::new(key.to_owned())
            }
            _ => return Err(refused()),
        };
        let id = Id::from_request_parts(parts, api).await.and_then(|id| id.of("payment"));
        let id = id.map_err(|_| refused())?;
        api.service.authorise_checkout(&id, &key).await.map_err(unopened)?;
        Ok(Self { id, key })
    }
}
