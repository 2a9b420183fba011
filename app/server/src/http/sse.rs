//! Streams of server-sent events (HTML, section 9.2): bounded, kept alive, ended in time.
//!
//! A handler gives a [`Streams::answer`] its work: an async block that looks, sends, waits and
//! looks again. It runs only as the client reads, and ends with the client's connection.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::FromRequestParts;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Sleep};

use super::places::{Place, Places};
use super::problem::Problem;

/// Streams at once: at most half of the connections that a server takes.
const ALL_STREAMS_MAX: usize = crate::https::HTTP_CONNECTIONS_MAX / 2;
/// Of these, streams of checkouts at once: whoever has a payment's key opens them, and that must
/// leave the others to operators and phones.
const CHECKOUT_STREAMS_MAX: usize = ALL_STREAMS_MAX / 4;
/// Streams at once of one checkout: its terminal's screen, its payer's, and one that comes back to
/// each before the old one is known to be gone.
const STREAMS_PER_CHECKOUT_MAX: usize = 4;
/// Streams at once of operators and phones.
const STREAMS_MAX: usize = ALL_STREAMS_MAX - CHECKOUT_STREAMS_MAX;
/// Streams at once of one token or phone.
const STREAMS_PER_OWNER_MAX: usize = 16;
/// How long a stream may be silent before a comment keeps it alive; less than a connection may be
/// quiet.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a stream lasts; its connection would not last much longer. Clients come back.
const STREAM_TIME: Duration = Duration::from_secs(10 * 60);
/// What a client waits before it comes back, in milliseconds.
const RETRY_MILLIS: u32 = 1000;
/// Events that may wait for a client that does not read.
const WAITING_MAX: usize = 16;
/// Longest `Last-Event-ID`, in bytes.
const LAST_ID_MAX: usize = 64;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Streams of this server that share their places.
#[derive(Clone)]
pub(super) struct Streams {
    places: Places,
    /// What the problem of too many says.
    bound: String,
    stop: watch::Receiver<bool>,
}

impl Streams {
    /// Those of operators and phones, which end when `stop` turns true.
    pub(super) fn new(stop: watch::Receiver<bool>) -> Self {
        let bound = format!("one token has at most {STREAMS_PER_OWNER_MAX}");
        Self { places: Places::new(STREAMS_MAX, STREAMS_PER_OWNER_MAX), bound, stop }
    }

    /// Those of checkouts, which end when `stop` turns true.
    pub(super) fn of_checkouts(stop: watch::Receiver<bool>) -> Self {
        let bound = format!("one payment has at most {STREAMS_PER_CHECKOUT_MAX}");
        Self { places: Places::new(CHECKOUT_STREAMS_MAX, STREAMS_PER_CHECKOUT_MAX), bound, stop }
    }

    /// Answers with a stream of `owner`, the id of an operator, a phone or a checkout's payment:
    /// what `work` sends, until it ends, the client goes, the server stops, or the stream's time is
    /// over.
    pub(super) fn answer<F>(
        &self,
        owner: &str,
        work: impl FnOnce(Events) -> F,
    ) -> Result<Response, Problem>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let place = self.places.take(owner).ok_or_else(|| full(&self.bound))?;
        let (sender, waiting) = mpsc::channel(WAITING_MAX);
        let mut stop = self.stop.clone();
        let over = async move {
            let stopped = async {
                if stop.wait_for(|stop| *stop).await.is_err() {
                    std::future::pending::<()>().await; // nobody can stop this server
                }
            };
            let _stopped_or_late = tokio::time::timeout(STREAM_TIME, stopped).await;
        };
        let first = format!("retry: {RETRY_MILLIS}\n\n");
        let body = Stream {
            first: Some(first.into()),
            work: Some(Box::pin(work(Events(sender)))),
            waiting,
            over: Box::pin(over),
            silence: Box::pin(tokio::time::sleep(HEARTBEAT)),
            _place: place,
        };
        let mut response = Body::new(body).into_response();
        let kind = HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        // A proxy that collects answers would hold events back.
        response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
        Ok(response)
    }
}

fn full(bound: &str) -> Problem {
    let status = StatusCode::TOO_MANY_REQUESTS;
    Problem::new(status, "streams-full", "Too many streams", bound)
}

/// Where a stream's work sends its events.
pub(super) struct Events(mpsc::Sender<Bytes>);

impl Events {
    /// Sends one event: its type, its id (which a client that comes back sends as
    /// `Last-Event-ID`) and its data, one or several lines. Waits while the client does not read.
    /// Returns false once the stream is over.
    pub(super) async fn send(&self, kind: &str, id: &str, data: &str) -> bool {
        self.0.send(event(kind, id, data)).await.is_ok()
    }
}

fn event(kind: &str, id: &str, data: &str) -> Bytes {
    let mut text = String::with_capacity(data.len() + 64);
    for (field, value) in [("event", kind), ("id", id)] {
        // A line break would begin another field.
        let value = value.split(['\r', '\n', '\0']).next().unwrap_or_default();
        text.push_str(field);
        text.push_str(": ");
        text.push_str(value);
        text.push('\n');
    }
    // A carriage return ends a line too.
    for line in data.replace("\r\n", "\n").split(['\r', '\n']) {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
    text.into()
}

/// The body of a stream.
struct Stream {
    first: Option<Bytes>,
    /// `None` once it has ended.
    work: Option<Work>,
    waiting: mpsc::Receiver<Bytes>,
    /// The server's stop, or the end of the stream's time.
    over: Work,
    silence: Pin<Box<Sleep>>,
    _place: Place,
}

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if this.over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        if this.work.as_mut().is_some_and(|work| work.as_mut().poll(cx).is_ready()) {
            this.work = None;
        }
        let bytes = match this.waiting.poll_recv(cx) {
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(bytes)) => bytes,
            Poll::Pending if this.silence.as_mut().poll(cx).is_ready() => Bytes::from(":\n\n"),
            Poll::Pending => return Poll::Pending,
        };
        this.silence.as_mut().reset(Instant::now() + HEARTBEAT);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

/// The id of the last event that a client has, if it says one.
pub(super) struct LastEventId(pub(super) Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for LastEventId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let mut headers = parts.headers.get_all("last-event-id").iter();
        let (first, second) = (headers.next(), headers.next());
        let refused = || {
            let detail = format!("Last-Event-ID is one id of at most {LAST_ID_MAX} characters");
            Problem::query("last-event-id", detail)
        };
        let Some(header) = first else { return Ok(Self(None)) };
        let text = header.to_str().map_err(|_| refused())?;
        if second.is_some() || text.len() > LAST_ID_MAX {
            return Err(refused());
        }
        Ok(Self((!text.is_empty()).then(|| text.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};

    use super::*;

    fn streams() -> (watch::Sender<bool>, Streams) {
        let (stop, stopped) = watch::channel(false);
        (stop, Streams::new(stopped))
    }

    async fn next(body: &mut Body) -> Option<String> {
        let frame = poll_fn(|cx| hyper::body::Body::poll_frame(Pin::new(&mut *body), cx)).await?;
        let bytes = frame.unwrap().into_data().unwrap();
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn events_flow_and_silence_is_broken() {
        let (_stop, streams) = streams();
        let work = async |events: Events| {
            assert!(events.send("payment", "2", "{\"a\":1}\nsecond").await);
            tokio::time::sleep(HEARTBEAT * 2 + HEARTBEAT / 2).await;
            assert!(events.send("payment", "3", "x").await);
        };
        let response = streams.answer("opr_1", work).unwrap();
        assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
        let mut body = response.into_body();
        assert_eq!(next(&mut body).await.unwrap(), "retry: 1000\n\n");
        let event = "event: payment\nid: 2\ndata: {\"a\":1}\ndata: second\n\n";
        assert_eq!(next(&mut body).await.unwrap(), event);
        let began = Instant::now();
        assert_eq!(next(&mut body).await.unwrap(), ":\n\n");
        assert_eq!(began.elapsed().as_secs(), HEARTBEAT.as_secs());
        assert_eq!(next(&mut body).await.unwrap(), ":\n\n");
        assert_eq!(next(&mut body).await.unwrap(), "event: payment\nid: 3\ndata: x\n\n");
        assert_eq!(next(&mut body).await, None, "the work has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_with_the_server_and_with_its_time() {
        let (stop, streams) = streams();
        let mut body =
            streams.answer("opr_1", async |_events: Events| pending().await).unwrap().into_body();
        next(&mut body).await.unwrap();
        stop.send(true).unwrap();
        assert_eq!(next(&mut body).await, None);
        let (_stop, streams) = self::streams();
        let mut body =
            streams.answer("opr_1", async |_events: Events| pending().await).unwrap().into_body();
        let began = Instant::now();
        while next(&mut body).await.is_some() {}
        let lasted = began.elapsed();
        assert!(lasted >= STREAM_TIME && lasted < STREAM_TIME + HEARTBEAT, "{lasted:?}");
    }

    #[tokio::test]
    async fn streams_are_bounded_by_owner_and_places_come_back() {
        let (_stop, streams) = streams();
        let open = |owner: &str| streams.answer(owner, async |_events: Events| pending().await);
        let mut held: Vec<_> = (0..STREAMS_PER_OWNER_MAX).map(|_| open("opr_1").unwrap()).collect();
        let refused = open("opr_1").unwrap_err();
        assert_eq!(
            (refused.check, refused.status),
            ("streams-full", StatusCode::TOO_MANY_REQUESTS)
        );
        open("opr_2").unwrap();
        held.pop();
        held.push(open("opr_1").unwrap());
        drop(held);
    }

    #[tokio::test]
    async fn streams_are_bounded_in_all() {
        let (_stop, streams) = streams();
        let open = |owner: usize| {
            streams.answer(&format!("opr_{owner}"), async |_events: Events| pending().await)
        };
        let held: Vec<_> = (0..STREAMS_MAX).map(|owner| open(owner).unwrap()).collect();
        assert_eq!(open(STREAMS_MAX).unwrap_err().check, "streams-full");
        drop(held);
        open(STREAMS_MAX).unwrap();
    }

    #[tokio::test]
    async fn checkouts_have_places_of_their_own() {
        let (_stop, stopped) = watch::channel(false);
        let (streams, checkouts) =
            (Streams::new(stopped.clone()), Streams::of_checkouts(stopped.clone()));
        let open = |payment: usize| {
            checkouts.answer(&format!("pay_{payment}"), async |_events: Events| pending().await)
        };
        let mut held: Vec<_> = (0..CHECKOUT_STREAMS_MAX)
            .map(|n| open(n / STREAMS_PER_CHECKOUT_MAX).unwrap())
            .collect();
        assert_eq!(open(CHECKOUT_STREAMS_MAX).unwrap_err().check, "streams-full");
        streams.answer("opr_1", async |_events: Events| pending().await).unwrap();
        held.pop();
        let refused = open(0).unwrap_err();
        assert_eq!(refused.detail, "one payment has at most 4");
        held.push(open(CHECKOUT_STREAMS_MAX).unwrap());
        drop(held);
    }

    #[test]
    fn a_field_cannot_begin_another() {
        let sent = event("a\ndata: forged", "1\r\nid: 2", "one\r\ntwo\rid: 3");
        assert_eq!(sent, "event: a\nid: 1\ndata: one\ndata: two\ndata: id: 3\n\n");
    }

    #[tokio::test]
    async fn the_last_id_is_bounded() {
        let asked = async |value: &str| {
            let request = axum::http::Request::get("/").header("last-event-id", value);
            let mut parts = request.body(()).unwrap().into_parts().0;
            LastEventId::from_request_parts(&mut parts, &()).await.map(|id| id.0)
        };
        assert_eq!(asked("7").await, Ok(Some("7".to_owned())));
        assert_eq!(asked("").await, Ok(None));
        assert_eq!(asked(&"7".repeat(65)).await.unwrap_err().check, "last-event-id");
    }
}
