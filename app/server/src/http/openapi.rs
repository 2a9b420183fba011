//! `/v1/openapi.json`: the document that describes the other routes, made from them.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Components, Info, OpenApi, OpenApiBuilder};

use super::problem::MEDIA_TYPE;
use super::{Api, BODY_MAX};

/// The document's frame, to which the routes add themselves.
pub(super) fn base() -> OpenApi {
    let mut info = Info::new("Countersign", env!("CARGO_PKG_VERSION"));
    info.description = Some(format!(
        "Times are RFC 3339, UTC, milliseconds. Unknown JSON fields and query parameters are \
         refused; bodies have at most {BODY_MAX} bytes. Amounts are decimal strings. What moves \
         money takes an Idempotency-Key: the same request again is answered by the same bytes. \
         Every failure is an RFC 9457 problem. \
         Every answer has an X-Request-Id."
    ));
    let mut components = Components::new();
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    components.add_security_scheme("token", bearer.clone());
    // The token of a payer's phone, which is no operator's.
    components.add_security_scheme("phone", bearer);
    let header = |name: &str, what: &str| {
        let value = ApiKeyValue::with_description(name, what);
        SecurityScheme::ApiKey(ApiKey::Header(value))
    };
    let bound = "`DPoP` and the token of a browser's phone, which has a key (RFC 9449)";
    components.add_security_scheme("boundPhone", header("Authorization", bound));
    let proof = "A proof made with that key for this one request (RFC 9449, section 4); where \
                 there is a body, its claim `bh` is the body's SHA-256 in base64url";
    components.add_security_scheme("proof", header("DPoP", proof));
    let checkout = "`Checkout` and the key in the fragment of the checkout page's URL";
    components.add_security_scheme("checkout", header("Authorization", checkout));
    OpenApiBuilder::new().info(info).components(Some(components)).build()
}

/// Adds to every operation the problems that any may answer, and renders the document.
pub(super) fn render(document: OpenApi) -> Bytes {
    let problem = |description: &str| {
        json!({
            "description": description,
            "content": { MEDIA_TYPE: { "schema": { "$ref": "#/components/schemas/Problem" } } },
        })
    };
    let mut document = serde_json::to_value(document).unwrap_or_default();
    let paths = document.get_mut("paths").and_then(Value::as_object_mut);
    for operation in paths.into_iter().flat_map(|paths| paths.values_mut()).flat_map(operations) {
        let security = operation.get("security").cloned();
        let secured = security.is_some();
        let scoped = security.is_some_and(|security| security.pointer("/0/token").is_some());
        let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else {
            continue;
        };
        if secured {
            responses.insert("401".to_owned(), problem("`token`: no live token"));
        }
        if scoped {
            responses.insert("403".to_owned(), problem("`scope`: the token lacks the scope"));
        }
        responses.insert("default".to_owned(), problem("Any other failure"));
    }
    document.to_string().into()
}

fn operations(path: &mut Value) -> impl Iterator<Item = &mut Value> {
    path.as_object_mut().into_iter().flat_map(|methods| methods.values_mut())
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", operation_id = "openapi", tag = "operation",
    responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
pub(super) async fn document(State(api): State<Api>) -> Response {
    ([(CONTENT_TYPE, "application/json")], api.openapi).into_response()
}
