//! What surrounds every request: its id, its time limit, its log line, its count, and the one
//! place that writes problems.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use countersign_service::Service;

use super::problem::{MEDIA_TYPE, Problem, Rendered};
use super::{Api, REQUEST_TIMEOUT, metrics};

/// The header with the request's id; also in problems and in the log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The id of a request, in its extensions.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) String);

/// The route of a request that met none.
const NO_ROUTE: &str = "none";

/// The outermost layer.
#[expect(clippy::disallowed_methods, reason = "a duration for metrics, measured at the edge")]
pub(super) async fn wrap(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&api.service);
    request.extensions_mut().insert(RequestId(id.clone()));
    let method = request.method().clone();
    // The pattern, never the path: what clients put there does not name metrics.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    let response = finish(within(REQUEST_TIMEOUT, next.run(request)).await, &id, &method);
    let (status, elapsed) = (response.status(), started.elapsed());
    let (method, ms) = (method_label(&method), elapsed.as_secs_f64() * 1000.0);
    tracing::info!(method, route, status = status.as_u16(), ms, requestId = id, "request");
    metrics::count_request(method, route, status, elapsed);
    response
}

/// `req_` and a UUIDv7.
fn request_id(service: &Service) -> String {
    let mut random = [0; 10];
    service.rng().fill_bytes(&mut random);
    let millis = service.now().as_millis();
    let uuid = uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
    format!("req_{}", uuid.as_hyphenated())
}

/// Runs a request in a task of its own: a client that goes away does not cut a use case between
/// two of its transactions, and a panic becomes an answer. The limit ends it either way.
async fn within(
    limit: Duration,
    answer: impl Future<Output = Response> + Send + 'static,
) -> Response {
    match tokio::spawn(tokio::time::timeout(limit, answer)).await {
        Ok(Ok(response)) => response,
        Ok(Err(_elapsed)) => Problem::request_timeout().into_response(),
        Err(failed) => Problem::internal(format!("a handler failed: {failed}")).into_response(),
    }
}

/// Writes the problem, if there is one, and the headers that every answer has.
fn finish(mut response: Response, id: &str, method: &Method) -> Response {
    if let Some(problem) = problem_of(&mut response) {
        if let Some(reason) = &problem.log {
            tracing::error!(requestId = id, check = problem.check, reason, "request failed");
        }
        if response.extensions().get::<Rendered>().is_none() {
            write(&mut response, &problem, id, method);
        }
        if problem.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static(problem.challenge);
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
    // What may be kept says so itself.
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Makes the problem the answer's body.
fn write(response: &mut Response, problem: &Problem, id: &str, method: &Method) {
    let headers = response.headers_mut();
    headers.remove(axum::http::header::CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    *response.body_mut() = if method == Method::HEAD {
        Body::empty()
    } else {
        serde_json::to_vec(&problem.document(id)).unwrap_or_default().into()
    };
}

/// The handler's problem, or one for an error that a layer made without a body of ours.
fn problem_of(response: &mut Response) -> Option<Problem> {
    let told = response.extensions_mut().remove::<Problem>();
    let status = response.status();
    let ours = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    let ours = ours || response.extensions().get::<Rendered>().is_some();
    let foreign = (status.is_client_error() || status.is_server_error()) && !ours;
    told.or_else(|| foreign.then(|| Problem::of_status(status)))
}

/// The method's name, from a bounded set.
fn method_label(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| method == known).unwrap_or("OTHER")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_in_time_passes_a_late_one_is_a_problem() {
        let done = within(REQUEST_TIMEOUT, async { StatusCode::CREATED.into_response() }).await;
        assert_eq!(done.status(), StatusCode::CREATED);
        let late = within(REQUEST_TIMEOUT, std::future::pending()).await;
        assert_eq!(late.extensions().get::<Problem>(), Some(&Problem::request_timeout()));
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_problem_that_tells_nothing() {
        let broken = async { panic!("the secret reason") };
        let response = finish(within(REQUEST_TIMEOUT, broken).await, "req_1", &Method::GET);
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(body.contains("req_1") && !body.contains("secret"), "{body}");
    }

    #[test]
    fn an_error_without_a_problem_becomes_one_and_an_answer_stays() {
        let teapot = StatusCode::IM_A_TEAPOT.into_response();
        let told = finish(teapot, "req_1", &Method::GET);
        assert_eq!(told.headers()[CONTENT_TYPE], MEDIA_TYPE);
        let fine = finish("fine".into_response(), "req_1", &Method::GET);
        assert_eq!(fine.headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
    }

    #[test]
    fn labels_are_bounded() {
        assert_eq!(method_label(&Method::GET), "GET");
        assert_eq!(method_label(&Method::from_bytes(b"X-1").unwrap()), "OTHER");
    }
}
