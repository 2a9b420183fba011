//! Bearer tokens (RFC 6750) and the scope each route needs.

use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use countersign_service::{Actor, Scope, ServiceError};

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
);

/// Proof that the request's token is live and has the scope. Taken first by a handler, so that
/// nothing of the request is looked at before.
pub(super) struct Granted<N> {
    pub(super) actor: Actor,
    scope: PhantomData<N>,
}

impl<N: Need> FromRequestParts<Api> for Granted<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let token = bearer(parts).ok_or(ServiceError::Unauthenticated)?;
        let actor = api.service.authorise(token, N::SCOPE).await?;
        Ok(Self { actor, scope: PhantomData })
    }
}

/// The token, if there is exactly one `Authorization` header and it is of the Bearer scheme.
fn bearer(parts: &Parts) -> Option<&str> {
    let mut headers = parts.headers.get_all(AUTHORIZATION).iter();
    let (Some(header), None) = (headers.next(), headers.next()) else { return None };
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then_some(token)
}
