//! The pages' routes: shells for anybody, parts for who proves that they are theirs, files.
//!
//! They are no part of the OpenAPI document: programs have `/v1`.

use std::convert::Infallible;

use axum::Router;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::header::{
    ACCEPT, ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use countersign_payment::ConfirmationRequest;
use countersign_store::{PhonePayment, SignMethod};

use super::envelope::RequestId;
use super::granted::{CheckoutGranted, PhoneGranted};
use super::problem::{Problem, Rendered};
use super::query::Id;
use super::{Api, site};
use crate::pages::{
    self, Asset, CheckoutPart, Device, ErrorPage, Lang, ListItem, PageKind, PaymentPart,
};

/// Asked for again each time, but not sent again while it is the same.
const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");

/// The routes; each answer, failures too, has the headers of its kind of page. `https_only`: for
/// [`pages::set_headers`].
pub(super) fn router(https_only: bool) -> Router<Api> {
    let of =
        move |kind| from_fn(move |request, next| with_headers(kind, https_only, request, next));
    let phone = Router::new()
        .route("/phone", get(phone))
        .route("/phone/payments/{id}", get(phone_payment))
        .route("/phone/parts/payments", get(list))
        .route("/phone/parts/payments/{id}", get(payment))
        .layer(of(PageKind::Phone));
    let checkout = Router::new()
        .route("/checkout/{id}", get(checkout))
        .route("/checkout/parts/{id}", get(checkout_part))
        .route("/assets/{name}", get(asset))
        .layer(of(PageKind::Checkout));
    phone.merge(checkout)
}

async fn with_headers(kind: PageKind, https_only: bool, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    pages::set_headers(response.headers_mut(), kind, https_only);
    response
}

impl FromRequestParts<Api> for Lang {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _api: &Api) -> Result<Self, Infallible> {
        Ok(lang_of(parts.uri.query(), &parts.headers))
    }
}

fn lang_of(query: Option<&str>, headers: &HeaderMap) -> Lang {
    let accept = headers.get(ACCEPT_LANGUAGE).and_then(|accept| accept.to_str().ok());
    Lang::of_request(query, accept)
}

async fn phone(State(api): State<Api>, lang: Lang) -> Html<String> {
    Html(pages::list_shell(lang, api.service.now()).into_string())
}

async fn phone_payment(State(api): State<Api>, lang: Lang) -> Html<String> {
    // Whether there is such a payment is not said to who has proven nothing.
    Html(pages::payment_shell(lang, api.service.now()).into_string())
}

async fn checkout(State(api): State<Api>, lang: Lang) -> Html<String> {
    Html(pages::checkout_shell(lang, api.service.now()).into_string())
}

async fn list(
    granted: PhoneGranted,
    State(api): State<Api>,
    lang: Lang,
) -> Result<Html<String>, Problem> {
    let waiting = api.service.phone_payments(&granted.phone).await?;
    let item = |payment: PhonePayment| {
        let request = parsed(&payment.id, &payment.request)?;
        Ok(ListItem { id: payment.id, request })
    };
    let items = waiting.into_iter().map(item).collect::<Result<Vec<_>, Problem>>()?;
    Ok(Html(pages::list_part(lang, &items).into_string()))
}

async fn payment(
    granted: PhoneGranted,
    State(api): State<Api>,
    id: Id,
    lang: Lang,
) -> Result<Html<String>, Problem> {
    let asked = id.of("payment")?;
    let found = api.service.phone_payment(&granted.phone, &asked).await?;
    let offline = api.service.phone_offline(&found)?;
    // Asked for by a push, it has its own id.
    let id = found.id;
    let devices = if found.state.is_open() {
        api.service.phone_devices(&granted.phone, &id).await?
    } else {
        Vec::new()
    };
    let devices = devices.into_iter().filter_map(|device| {
        let shows_digits = match device.method {
            SignMethod::Pki => false,
            SignMethod::Ocra => true,
            // A signing card confirms at a terminal, and nothing of it is typed in here.
            SignMethod::Joint => return None,
        };
        Some(Device { serial: device.serial, label: device.label, shows_digits })
    });
    let part = PaymentPart {
        state: found.state,
        reason: found.reason,
        request: parsed(&id, &found.request)?,
        bytes: found.request,
        devices: devices.collect(),
        offline,
        id,
    };
    Ok(Html(pages::payment_part(lang, &part).into_string()))
}

/// What was stored was written by this server: if it cannot be read, the server is to blame.
fn parsed(id: &str, request: &[u8]) -> Result<ConfirmationRequest, Problem> {
    let damaged = |error| Problem::internal(format!("the request of {id} is damaged: {error}"));
    ConfirmationRequest::parse(request).map_err(damaged)
}

async fn checkout_part(
    granted: CheckoutGranted,
    State(api): State<Api>,
    lang: Lang,
) -> Result<Html<String>, Problem> {
    let view = granted.view(&api.service).await?;
    let part = CheckoutPart {
        state: view.state,
        reason: view.reason,
        version: view.version,
        request: view.request,
        match_code: view.match_code,
        offline: view.offline,
    };
    Ok(Html(pages::checkout_part(lang, &part).into_string()))
}

async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    let asset = Asset::named(&name).ok_or_else(Problem::unknown_path)?;
    let etag = asset.etag();
    let known = headers.get(IF_NONE_MATCH).is_some_and(|tags| has_tag(tags, &etag));
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, asset.media_type)], asset.content).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, REVALIDATE);
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(ETAG, etag);
    }
    Ok(response)
}

/// Whether a list of entity tags has this one; weak ones count (RFC 9110, section 13.1.2).
fn has_tag(tags: &HeaderValue, etag: &str) -> bool {
    let tags = tags.to_str().unwrap_or_default();
    tags.split(',').map(str::trim).any(|tag| tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// Tells people in words why they do not see what they asked for, where a browser was to show it;
/// programs and scripts get the problem as it is.
pub(super) async fn show_problems(
    State(api): State<Api>,
    request: Request,
    next: Next,
) -> Response {
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let lang = lang_of(request.uri().query(), &headers);
    let id = request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
    let response = next.run(request).await;
    if !wants_page(&method, &headers) {
        return response;
    }
    let Some(problem) = response.extensions().get::<Problem>().cloned() else { return response };
    let page = ErrorPage { status: problem.status.as_u16(), request_id: &id };
    let mut shown =
        (problem.status, Html(pages::error_page(lang, &page).into_string())).into_response();
    pages::set_headers(shown.headers_mut(), PageKind::Checkout, api.site.is_https_only());
    shown.extensions_mut().insert(problem);
    shown.extensions_mut().insert(Rendered);
    shown
}

fn wants_page(method: &Method, headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let shows = method == Method::GET || method == Method::HEAD;
    shows && (site::is_navigation(method, headers) || accept.contains("text/html"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_file_is_not_sent_again() {
        let etag = "\"abc\"";
        for (tags, known) in [
            ("\"abc\"", true),
            ("W/\"abc\"", true),
            ("\"x\", \"abc\"", true),
            ("*", false),
            ("abc", false),
            ("\"abcd\"", false),
        ] {
            assert_eq!(has_tag(&HeaderValue::from_static(tags), etag), known, "{tags}");
        }
    }

    #[test]
    fn only_browsers_that_show_a_page_get_one() {
        let of = |method: Method, headers: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, HeaderValue::from_static(value));
            }
            wants_page(&method, &map)
        };
        assert!(of(Method::GET, &[("accept", "text/html,*/*;q=0.8")]));
        assert!(!of(Method::GET, &[("accept", "*/*")]));
        assert!(!of(Method::GET, &[]));
        assert!(!of(Method::POST, &[("accept", "text/html")]));
    }
}
