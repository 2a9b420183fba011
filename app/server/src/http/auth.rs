//! Bearer tokens (RFC 6750) and the scope each route needs.

use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use countersign_service::{Actor, Scope, Service, ServiceError};
use zeroize::Zeroizing;

use super::Api;
use super::problem::Problem;

/// A scope as a type, so that a handler's signature says what it needs.
pub(super) trait Need: Send + Sync {
    const SCOPE: Scope;
}

macro_rules! needs {
    ($($name:ident),+ $(,)?) => { $(
        pub(super) struct $name;
        impl Need for $name {
            const SCOPE: Scope = Scope::$name;
        }
    )+ };
}

needs!(
    ReadersRead,
    ReadersEnrol,
    ReadersBlock,
    ReadersReport,
    ReadsRead,
    MetricsRead,
    SamsRead,
    SamsManage,
    TerminalsRead,
    TerminalsManage,
    KeysRead,
    KeysManage,
    ComponentsEnter,
    ApprovalsRead,
    ApprovalsVote,
    PaymentsRead,
    PaymentsCreate,
    PaymentsManage,
    AccountsRead,
    AccountsManage,
    SecurityDevicesRead,
    SecurityDevicesManage,
    WebhooksRead,
    WebhooksManage,
    WalletsRead,
    WalletsManage,
);

/// Proof that the request's token is live and has the scope. Taken first by a handler, so that
/// nothing of the request is looked at before.
pub(super) struct Granted<N> {
    pub(super) actor: Actor,
    /// To ask again with, where a request lasts.
    token: Zeroizing<String>,
    scope: PhantomData<N>,
}

impl<N: Need> Granted<N> {
    /// Whether the token is still live and has the scope. Who cannot say so now says that it is:
    /// the next look says more.
    pub(super) async fn still(&self, service: &Service) -> bool {
        let asked = service.authorise(&self.token, N::SCOPE).await;
        matches!(asked, Ok(_) | Err(ServiceError::Unavailable { .. }))
    }
}

impl<N: Need> FromRequestParts<Api> for Granted<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let token = bearer(parts).ok_or(ServiceError::Unauthenticated)?;
        let actor = api.service.authorise(token, N::SCOPE).await?;
        Ok(Self { actor, token: Zeroizing::new(token.to_owned()), scope: PhantomData })
    }
}

/// The token, if there is exactly one `Authorization` header and it is of the Bearer scheme.
pub(super) fn bearer(parts: &Parts) -> Option<&str> {
    let (scheme, token) = credentials(parts)?;
    scheme.eq_ignore_ascii_case("Bearer").then_some(token)
}

/// Scheme and credentials, if there is exactly one `Authorization` header.
pub(super) fn credentials(parts: &Parts) -> Option<(&str, &str)> {
    let mut headers = parts.headers.get_all(AUTHORIZATION).iter();
    let (Some(header), None) = (headers.next(), headers.next()) else { return None };
    header.to_str().ok()?.split_once(' ')
}
