use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_payment::{AccountNumber, Amount, ConfirmationRequest};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::*;

const PAGE: &str = "https://pay.example.com";
const PATIENCE: Duration = Duration::from_secs(20);

/// A helper that runs, and a device that answers what the test lets it.
struct Running {
    port: u16,
    token: String,
    asked: Receiver<Vec<u8>>,
    says: Sender<Result<DeviceAnswer, Refusal>>,
    told: Receiver<HelperEvent>,
    stop: Option<oneshot::Sender<()>>,
    ended: Option<JoinHandle<Result<(), HelperError>>>,
}

fn token_of(url: &str, port: u16) -> String {
    url.strip_prefix(&format!("{PAGE}/phone#helper={port}.")).unwrap().to_owned()
}

impl Running {
    fn start() -> Self {
        let (asks, asked) = channel();
        let (says, answers) = channel();
        let (tells, told) = channel();
        let (ready, is_ready) = channel();
        let (stop, stopped) = oneshot::channel();
        let ended = thread::spawn(move || {
            Runtime::new().unwrap().block_on(async {
                let origin = PageOrigin::of(PAGE).unwrap();
                let rng = Box::new(testkit::rng::seeded(1));
                let helper = Helper::listen(origin, 0, rng).await.unwrap();
                ready.send((helper.port(), helper.url())).unwrap();
                let confirm: Confirm = Box::new(move |request| {
                    asks.send(request.to_vec()).unwrap();
                    answers.recv().unwrap()
                });
                let told = move |event| tells.send(event).unwrap();
                helper.run(confirm, told, async { stopped.await.unwrap_or_default() }).await
            })
        });
        let (port, url) = is_ready.recv_timeout(PATIENCE).unwrap();
        let token = token_of(&url, port);
        Self { port, token, asked, says, told, stop: Some(stop), ended: Some(ended) }
    }

    /// A connection with the head of a request of the page; `None` changes take a header away.
    fn begin(&self, line: &str, changed: &[(&str, Option<&str>)], length: usize) -> TcpStream {
        let (host, length) = (format!("127.0.0.1:{}", self.port), length.to_string());
        let own = [
            ("host", &*host),
            ("origin", PAGE),
            ("content-type", "application/json"),
            ("content-length", &*length),
        ];
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let kept = own.into_iter().filter(|(name, _)| !changed.iter().any(|(n, _)| n == name));
        let more = changed.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
        let head: Vec<_> = kept.chain(more).map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        write!(stream, "{line} HTTP/1.1\r\n{}\r\n", head.concat()).unwrap();
        stream
    }

    fn send(&self, line: &str, changed: &[(&str, Option<&str>)], body: &[u8]) -> Said {
        let mut stream = self.begin(line, changed, body.len());
        // A helper that has refused closes before it has read all.
        let _refused = stream.write_all(body);
        Said::read(stream)
    }

    fn post(&self, token: &str, request: &[u8]) -> Said {
        self.send("POST /confirm", &[], &body(token, request))
    }

    fn nothing_was_asked(&self) {
        assert!(self.asked.try_recv().is_err());
    }

    fn end(mut self) -> Result<(), HelperError> {
        drop(self.stop.take());
        self.ended.take().unwrap().join().unwrap()
    }
}

/// An answer as it came.
#[derive(Debug)]
struct Said {
    status: u16,
    head: String,
    body: Value,
}

impl Said {
    fn read(mut stream: TcpStream) -> Self {
        let mut all = Vec::new();
        let _reset = stream.read_to_end(&mut all);
        let text = String::from_utf8(all).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&*text, ""));
        let status = head.get(9..12).and_then(|code| code.parse().ok()).unwrap_or_default();
        let body = serde_json::from_str(body).unwrap_or(Value::Null);
        Self { status, head: head.to_lowercase(), body }
    }

    fn is(&self, status: u16, check: &str) -> bool {
        (self.status, &self.body["error"]["check"]) == (status, &json!(check))
    }

    fn is_for_the_page(&self) -> bool {
        self.head.contains(&format!("access-control-allow-origin: {PAGE}\r\n"))
    }

    fn next(&self) -> String {
        self.body["next"].as_str().unwrap().to_owned()
    }
}

fn request() -> Vec<u8> {
    let request = ConfirmationRequest {
        server: "bank.example".to_owned(),
        payment: "pay_1".to_owned(),
        payer_account: AccountNumber::parse("PAYER0001").unwrap(),
        payee_account: AccountNumber::parse("SHOP0001").unwrap(),
        payee_name: "Tea Shop".to_owned(),
        order: "Order 7: 2 teas".to_owned(),
        amount: Amount::parse("12.34", "CNY").unwrap(),
        expires: UnixTime::from_secs(1_790_000_000),
        initiator: "Web shop".to_owned(),
        alerts: Vec::new(),
    };
    request.to_bytes().unwrap()
}

fn body(token: &str, request: &[u8]) -> Vec<u8> {
    let body = json!({ "token": token, "request": BASE64URL_NOPAD.encode(request) });
    body.to_string().into_bytes()
}

fn digits() -> Result<DeviceAnswer, Refusal> {
    Ok(DeviceAnswer::Ocra { serial: "KEY-1".to_owned(), digits: "12345678".to_owned() })
}

fn refusal(check: &str) -> Refusal {
    Refusal { check: check.to_owned(), detail: "./secret-folder: no".to_owned() }
}

#[test]
fn the_page_gets_the_devices_answer_for_the_very_bytes_and_the_next_token() {
    let helper = Running::start();
    helper.says.send(digits()).unwrap();
    let said = helper.post(&helper.token, &request());
    assert_eq!(said.status, 200, "{said:?}");
    let answer = json!({ "method": "ocra", "deviceSerial": "KEY-1", "digits": "12345678" });
    assert_eq!(said.body["answer"], answer);
    assert!(said.is_for_the_page() && said.head.contains("cache-control: no-store"), "{said:?}");
    assert_eq!(helper.asked.recv_timeout(PATIENCE).unwrap(), request());
    let event = helper.told.recv_timeout(PATIENCE).unwrap();
    assert_eq!((event.payment.as_deref(), event.heard), (Some("pay_1"), true));
    assert_eq!(event.outcome, Ok("KEY-1".to_owned()));
    assert_eq!(token_of(&event.url, helper.port), said.next());

    let signed = DeviceAnswer::Pki { serial: "KEY-2".to_owned(), signature: vec![0xfb, 0xff] };
    helper.says.send(Ok(signed)).unwrap();
    let said = helper.post(&said.next(), &request());
    let answer = json!({ "method": "pki", "deviceSerial": "KEY-2", "signature": "-_8" });
    assert_eq!(said.body["answer"], answer);
    helper.end().unwrap();
}

#[test]
fn a_token_works_once_and_the_fifth_wrong_one_ends_it() {
    let helper = Running::start();
    helper.says.send(digits()).unwrap();
    let first = helper.post(&helper.token, &request());
    assert_eq!(first.status, 200);
    assert!(helper.post(&helper.token, &request()).is(401, "helper-token"), "used twice");
    for wrong in ["", "A", &"A".repeat(43)] {
        let said = helper.post(wrong, &request());
        assert!(said.is(401, "helper-token") && said.body["next"].is_null(), "{said:?}");
    }
    let last = helper.post("x", &request());
    assert!(last.is(401, "helper-token"), "{last:?}");
    assert_eq!(helper.asked.try_iter().count(), 1);
    let (port, ended) = (helper.port, helper.ended.unwrap().join().unwrap());
    assert_eq!(ended.err().map(|error| error.check()), Some("helper-token"));
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "it listens no more");
}

#[test]
fn another_page_is_told_nothing_and_costs_nothing() {
    let helper = Running::start();
    let good = body(&helper.token, &request());
    for origin in [None, Some("null"), Some("https://evil.example"), Some("http://127.0.0.1")] {
        let said = helper.send("POST /confirm", &[("origin", origin)], &good);
        assert!(said.is(403, "origin"), "{origin:?}: {said:?}");
        assert!(!said.head.contains("access-control"), "{said:?}");
        let method = ("access-control-request-method", Some("POST"));
        let said = helper.send("OPTIONS /confirm", &[("origin", origin), method], b"");
        assert!(said.is(403, "origin") && !said.head.contains("access-control"), "{said:?}");
    }
    // Its own page, by a name that was made to mean this machine.
    for host in ["evil.example", "pay.example.com", "127.0.0.1:1"] {
        let said = helper.send("POST /confirm", &[("host", Some(host))], &good);
        assert!(said.is(403, "host") && !said.head.contains("access-control"), "{said:?}");
    }
    helper.nothing_was_asked();
    helper.says.send(digits()).unwrap();
    assert_eq!(helper.post(&helper.token, &request()).status, 200, "the token is still good");
}

/// Refused on the head alone: the rest of the body never comes.
#[test]
fn a_stranger_is_refused_before_anything_is_read() {
    let helper = Running::start();
    let began = tokio::time::Instant::now();
    let mut stream = helper.begin("POST /confirm", &[("origin", Some("null"))], 8192);
    stream.write_all(b"{").unwrap();
    assert!(Said::read(stream).is(403, "origin"));
    assert!(began.elapsed() < Duration::from_secs(4), "it waited for the body");
    helper.nothing_was_asked();
}

#[test]
fn what_a_form_or_a_link_could_send_is_refused() {
    let helper = Running::start();
    let good = body(&helper.token, &request());
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
        let said = helper.send("POST /confirm", &[("content-type", kind)], &good);
        assert!(said.is(415, "content-type"), "{kind:?}: {said:?}");
    }
    assert!(helper.send("GET /confirm", &[], b"").is(405, "method"));
    assert!(helper.send("PUT /confirm", &[], &good).is(405, "method"));
    assert!(helper.send("POST /", &[], &good).is(404, "path"));
    let query = format!("POST /confirm?token={}", helper.token);
    assert!(helper.send(&query, &[], &good).is(404, "path"));
    helper.nothing_was_asked();
}

#[test]
fn a_preflight_is_granted_to_the_page_alone() {
    let helper = Running::start();
    let method = ("access-control-request-method", Some("POST"));
    let headers = ("access-control-request-headers", Some("content-type"));
    let private = ("access-control-request-private-network", Some("true"));
    let said = helper.send("OPTIONS /confirm", &[method, headers, private], b"");
    assert!(said.status == 204 && said.is_for_the_page(), "{said:?}");
    for granted in [
        "access-control-allow-methods: post\r\n",
        "access-control-allow-headers: content-type\r\n",
        "access-control-allow-private-network: true\r\n",
        "vary: origin\r\n",
    ] {
        assert!(said.head.contains(granted), "{granted}: {said:?}");
    }
    let said = helper.send("OPTIONS /confirm", &[method, headers], b"");
    assert!(said.status == 204 && !said.head.contains("private-network"), "{said:?}");
    let more = ("access-control-request-headers", Some("content-type, authorization"));
    assert!(helper.send("OPTIONS /confirm", &[method, more], b"").is(415, "content-type"));
}

#[test]
fn large_slow_and_malformed_bodies_cost_no_token() {
    let helper = Running::start();
    let large = body(&helper.token, &[b' '; 9000]);
    assert!(helper.send("POST /confirm", &[], &large).is(413, "body-too-large"));
    // The same without saying so beforehand.
    let chunked = [("content-length", None), ("transfer-encoding", Some("chunked"))];
    let mut stream = helper.begin("POST /confirm", &chunked, 0);
    for _ in 0..9 {
        let _refused = write!(stream, "400\r\n{}\r\n", " ".repeat(0x400));
    }
    let said = Said::read(stream);
    assert!(said.is(413, "body-too-large"), "{said:?}");
    for bad in [
        "",
        "{",
        "[]",
        "null",
        r#"{"token":"x"}"#,
        r#"{"token":1,"request":""}"#,
        r#"{"token":"x","request":"","more":1}"#,
        r#"{"token":"x","token":"y","request":""}"#,
    ] {
        let said = helper.send("POST /confirm", &[], bad.as_bytes());
        assert!(said.is(400, "body") && said.is_for_the_page(), "{bad}: {said:?}");
    }
    let mut stream = helper.begin("POST /confirm", &[], 100);
    stream.write_all(b"{").unwrap();
    assert!(Said::read(stream).is(408, "body-timeout"));
    // A head that never ends is cut off.
    let mut stream = TcpStream::connect(("127.0.0.1", helper.port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"POST /confirm HTTP/1.1\r\nhost: 127").unwrap();
    let mut rest = Vec::new();
    assert!(stream.read_to_end(&mut rest).is_ok(), "it was closed, not timed out here");
    helper.nothing_was_asked();
    helper.says.send(digits()).unwrap();
    assert_eq!(helper.post(&helper.token, &request()).status, 200);
}

#[test]
fn what_is_no_payment_comes_to_no_device() {
    let helper = Running::start();
    let mut token = helper.token.clone();
    let shown = String::from_utf8(request()).unwrap();
    for bad in [
        b"".to_vec(),
        b"a login challenge".to_vec(),
        shown.replacen("12.34", "12.3", 1).into_bytes(),
        shown.replacen("Tea Shop", "Tea\u{202e}Shop", 1).into_bytes(),
        [shown.as_bytes(), b" "].concat(),
    ] {
        let said = helper.post(&token, &bad);
        assert_eq!(said.status, 422, "{said:?}");
        token = said.next();
        let event = helper.told.recv_timeout(PATIENCE).unwrap();
        assert_eq!(event.payment, None);
        assert_eq!(event.outcome.unwrap_err().check, said.body["error"]["check"]);
    }
    let odd = json!({ "token": token, "request": "e30=" }).to_string();
    assert!(helper.send("POST /confirm", &[], odd.as_bytes()).is(422, "request-form"));
    helper.nothing_was_asked();
}

#[test]
fn why_the_device_did_not_answer_is_told_by_its_name_only() {
    let helper = Running::start();
    let mut token = helper.token.clone();
    for (check, status) in [
        ("declined", 403),
        ("pin-wrong", 403),
        ("pin-blocked", 403),
        ("pin-locked", 403),
        ("card-removed", 503),
        ("device-not-ours", 503),
    ] {
        helper.says.send(Err(refusal(check))).unwrap();
        let said = helper.post(&token, &request());
        assert!(said.is(status, check), "{said:?}");
        assert!(!said.body.to_string().contains("secret-folder"), "paths stay here: {said:?}");
        token = said.next();
        let event = helper.told.recv_timeout(PATIENCE).unwrap();
        assert_eq!(event.outcome, Err(refusal(check)));
    }
}

#[test]
fn one_request_at_a_time_and_the_second_is_not_held_against_anybody() {
    let helper = Running::start();
    let good = body(&helper.token, &request());
    let mut first = helper.begin("POST /confirm", &[], good.len());
    first.write_all(&good).unwrap();
    helper.asked.recv_timeout(PATIENCE).unwrap();
    for _ in 0..=WRONG_TOKENS_MAX {
        let second = helper.post(&helper.token, &request());
        assert!(second.is(409, "helper-busy"), "{second:?}");
    }
    helper.says.send(digits()).unwrap();
    assert_eq!(Said::read(first).status, 200);
    assert_eq!(helper.asked.try_iter().count(), 0);
}

#[test]
fn a_page_that_went_away_costs_its_answer_only() {
    let helper = Running::start();
    let good = body(&helper.token, &request());
    let mut stream = helper.begin("POST /confirm", &[], good.len());
    stream.write_all(&good).unwrap();
    helper.asked.recv_timeout(PATIENCE).unwrap();
    drop(stream);
    // The device is still being asked; nobody else comes in between.
    for _ in 0..3 {
        assert!(helper.post(&helper.token, &request()).is(409, "helper-busy"));
    }
    helper.says.send(digits()).unwrap();
    let event = helper.told.recv_timeout(PATIENCE).unwrap();
    assert!(!event.heard, "{event:?}");
    helper.says.send(digits()).unwrap();
    let again = token_of(&event.url, helper.port);
    assert_eq!(helper.post(&again, &request()).status, 200);
}

/// Whoever holds connections open keeps the page out for as long as a head may take, no longer.
#[test]
fn idle_connections_keep_nobody_out() {
    let helper = Running::start();
    let held: Vec<_> = (0..=CONNECTIONS_MAX)
        .map(|_| TcpStream::connect(("127.0.0.1", helper.port)).unwrap())
        .collect();
    helper.says.send(digits()).unwrap();
    assert_eq!(helper.post(&helper.token, &request()).status, 200);
    drop(held);
    helper.end().unwrap();
}

#[test]
fn a_port_that_is_taken_is_named() {
    let helper = Running::start();
    let second = Runtime::new().unwrap().block_on(async {
        let origin = PageOrigin::of(PAGE).unwrap();
        Helper::listen(origin, helper.port, Box::new(testkit::rng::seeded(2))).await.err()
    });
    let second = second.unwrap();
    assert!(second.check() == "helper-port" && second.is_environment(), "{second}");
}
