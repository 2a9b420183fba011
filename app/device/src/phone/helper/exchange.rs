//! One request and its answer.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use countersign_crypto::Secret;
use countersign_payment::ConfirmationRequest;
use data_encoding::BASE64URL_NOPAD;
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, mpsc, oneshot};
use zeroize::Zeroizing;

use super::head::{Asked, BODY_MAX, judge};
use super::tokens::{Presented, Tokens};
use super::{Confirm, HelperEvent, PageOrigin, Refusal};
use crate::key::DeviceAnswer;
use crate::phone::answer_body;

/// How long the body of a request may take.
const BODY_WAIT: Duration = Duration::from_secs(5);
/// How long a page may remember that it may ask, in seconds.
const PREFLIGHT_AGE: &str = "60";

const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// What all requests share.
pub(super) struct Exchange {
    origin: PageOrigin,
    port: u16,
    tokens: StdMutex<Tokens>,
    /// Whoever has it is at the device.
    device: Arc<Mutex<Confirm>>,
    tell: mpsc::Sender<HelperEvent>,
    ended: Notify,
}

/// What a page sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asks {
    token: String,
    /// The bytes of a confirmation request, in base64url.
    request: String,
}

/// A refusal as the page sees it.
struct Problem {
    status: StatusCode,
    check: String,
    detail: &'static str,
}

impl Problem {
    fn new(status: StatusCode, check: &str, detail: &'static str) -> Self {
        Self { status, check: check.to_owned(), detail }
    }
}

impl Exchange {
    pub(super) fn new(
        origin: PageOrigin,
        port: u16,
        tokens: Tokens,
        confirm: Confirm,
        tell: mpsc::Sender<HelperEvent>,
    ) -> Self {
        let (tokens, device) = (StdMutex::new(tokens), Arc::new(Mutex::new(confirm)));
        Self { origin, port, tokens, device, tell, ended: Notify::new() }
    }

    /// Done when there were too many wrong tokens.
    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Answers one request.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let asked = match judge(&head, &self.origin, self.port) {
            Ok(asked) => asked,
            Err(bad) => {
                let detail = "this helper answers one page, at one path, in one form";
                let problem = Problem::new(bad.status(), bad.check(), detail);
                return self.refused(&problem, None, bad.is_told_to_the_page());
            }
        };
        match asked {
            Asked::Preflight { private_network } => self.preflight(private_network),
            Asked::Answer => match self.confirm(body).await {
                Ok((value, status)) => self.said(status, &value, true),
                Err(problem) => self.refused(&problem, None, true),
            },
        }
    }

    fn preflight(&self, private_network: bool) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type"));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_AGE));
        if private_network {
            headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
        }
        self.for_the_page(&mut response, true);
        response
    }

    /// What the device answers, or why it does not, with the token that is good next.
    async fn confirm(&self, body: Incoming) -> Result<(Value, StatusCode), Problem> {
        let asks = read(body).await?;
        // One at a time, and before the token: the page's own second click is no wrong token.
        let device = Arc::clone(&self.device).try_lock_owned().map_err(|_| {
            let detail = "the security device is asked already";
            Problem::new(StatusCode::CONFLICT, "helper-busy", detail)
        })?;
        let next = self.present(&Secret::new(asks.token.into_bytes()))?;
        let (answer, answered) = oneshot::channel();
        let asking = Asking {
            device,
            request: asks.request,
            url: self.origin.page(self.port, &next),
            tell: self.tell.clone(),
        };
        // A thread of its own: it waits for people, and nothing may have to wait for it.
        std::thread::spawn(move || asking.run(answer));
        let outcome = answered.await.unwrap_or_else(|_| {
            let problem = "the security device could not be asked";
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "helper-failed", problem))
        });
        Ok(match outcome {
            Ok(answer) => (json!({ "answer": answer, "next": *next }), StatusCode::OK),
            Err(problem) => (problem.json(Some(&next)), problem.status),
        })
    }

    fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uses a token up; gives the next.
    fn present(&self, token: &Secret) -> Result<Zeroizing<String>, Problem> {
        let wrong = || {
            let detail = "the token is wrong, or was used: open the page that the helper prints";
            Problem::new(StatusCode::UNAUTHORIZED, "helper-token", detail)
        };
        let mut tokens = self.tokens();
        match tokens.present(token) {
            Ok(Presented::Good) => Ok(Zeroizing::new(tokens.current().to_owned())),
            Ok(Presented::Wrong) => Err(wrong()),
            Ok(Presented::Ended) => {
                self.ended.notify_one();
                Err(wrong())
            }
            Err(error) => {
                let detail = "no next token could be made";
                Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.check(), detail))
            }
        }
    }

    fn refused(&self, problem: &Problem, next: Option<&str>, to_page: bool) -> Response<Body> {
        self.said(problem.status, &problem.json(next), to_page)
    }

    fn said(&self, status: StatusCode, value: &Value, to_page: bool) -> Response<Body> {
        let mut response = Response::new(Body::from(value.to_string()));
        *response.status_mut() = status;
        let kind = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        self.for_the_page(&mut response, to_page);
        response
    }

    /// The headers of every answer; the page may read it, or nobody.
    fn for_the_page(&self, response: &mut Response<Body>, to_page: bool) {
        let headers = response.headers_mut();
        let own = HeaderValue::from_str(self.origin.as_str());
        if let Some(own) = own.ok().filter(|_| to_page) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, own);
        }
        headers.insert(VARY, HeaderValue::from_static("Origin"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    }
}

impl Problem {
    fn json(&self, next: Option<&str>) -> Value {
        let mut value = json!({ "error": { "check": self.check, "detail": self.detail } });
        if let Some(next) = next {
            value["next"] = next.into();
        }
        value
    }
}

/// Reads a body within its bounds.
async fn read(body: Incoming) -> Result<Asks, Problem> {
    let whole = tokio::time::timeout(BODY_WAIT, collect(body)).await.map_err(|_| {
        let detail = "the body took too long";
        Problem::new(StatusCode::REQUEST_TIMEOUT, "body-timeout", detail)
    })??;
    serde_json::from_slice(&whole).map_err(|_| not_ours())
}

fn not_ours() -> Problem {
    let detail = "the body is not {\"token\", \"request\"}";
    Problem::new(StatusCode::BAD_REQUEST, "body", detail)
}

async fn collect(mut body: Incoming) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let mut whole = Zeroizing::new(Vec::with_capacity(BODY_MAX));
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(data) = frame.map_err(|_| not_ours())?.into_data() else { continue };
        if whole.len() + data.len() > BODY_MAX {
            let detail = "the body is too large";
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole)
}

/// A request that has come to the device.
struct Asking {
    device: OwnedMutexGuard<Confirm>,
    request: String,
    url: Zeroizing<String>,
    tell: mpsc::Sender<HelperEvent>,
}

impl Asking {
    fn run(mut self, answer: oneshot::Sender<Result<Value, Problem>>) {
        let (payment, outcome) = self.ask();
        let said = match &outcome {
            Ok(answer) => Ok(answer_body(answer)),
            Err((status, refusal)) => {
                Err(Problem::new(*status, &refusal.check, "see the helper's terminal"))
            }
        };
        // Free before the page hears: it may come back at once.
        drop(self.device);
        let heard = answer.send(said).is_ok();
        let outcome = outcome.map(serial).map_err(|(_, why)| why);
        let event = HelperEvent { payment, outcome, heard, url: self.url };
        let _ending = self.tell.blocking_send(event);
    }

    /// Parses before anybody is asked: what is no payment's request comes to no device.
    fn ask(&mut self) -> (Option<String>, Result<DeviceAnswer, (StatusCode, Refusal)>) {
        let unfit = |check: &str, detail: String| {
            let refusal = Refusal { check: check.to_owned(), detail };
            (None, Err((StatusCode::UNPROCESSABLE_ENTITY, refusal)))
        };
        let Ok(request) = BASE64URL_NOPAD.decode(self.request.as_bytes()) else {
            return unfit("request-form", "the request is not base64url".to_owned());
        };
        let payment = match ConfirmationRequest::parse(&request) {
            Ok(parsed) => parsed.payment,
            Err(error) => return unfit(error.check(), error.to_string()),
        };
        let outcome = (*self.device)(&request);
        let outcome = outcome.map_err(|refusal| (status_of(&refusal.check), refusal));
        (Some(payment), outcome)
    }
}

/// The holder said no, or the device is not to be had.
fn status_of(check: &str) -> StatusCode {
    match check {
        "declined" | "pin-wrong" | "pin-blocked" | "pin-locked" | "pin-form" => {
            StatusCode::FORBIDDEN
        }
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn serial(answer: DeviceAnswer) -> String {
    match answer {
        DeviceAnswer::Pki { serial, .. } | DeviceAnswer::Ocra { serial, .. } => serial,
    }
}
