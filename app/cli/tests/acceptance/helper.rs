//! The helper beside a browser's phone page (D3): the test is the page, with its own bytes.

#[cfg(feature = "pcsc")]
mod in_reader;
#[cfg(feature = "pkcs11")]
mod in_token;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use countersign_device::Api;
use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use crate::Alone;
use crate::bank::Bank;
use crate::host::{Database, Ended, Host, Process, command, wait_for};

const PATIENCE: Duration = Duration::from_secs(20);
/// What the helper's terminal showed.
const TERMINAL: &str = "terminal";

pub(crate) fn trials() -> Vec<Trial> {
    let alone: [(&'static str, Alone); 5] = [
        ("a_page_is_helped_to_a_devices_answer", a_page_is_helped_to_a_devices_answer),
        ("the_holder_says_no_at_the_helper", the_holder_says_no_at_the_helper),
        ("a_helper_is_deaf_to_other_pages", a_helper_is_deaf_to_other_pages),
        ("a_helper_asks_for_one_at_a_time", a_helper_asks_for_one_at_a_time),
        ("a_helper_that_cannot_start_says_why", a_helper_that_cannot_start_says_why),
    ];
    let mut trials: Vec<_> = alone.into_iter().map(|(name, run)| Trial::test(name, run)).collect();
    #[cfg(feature = "pkcs11")]
    trials.extend(in_token::trials());
    #[cfg(feature = "pcsc")]
    trials.push(in_reader::trial());
    #[cfg(not(feature = "pkcs11"))]
    trials.push(Trial::test("a_build_without_tokens_confirms_with_none", no_tokens));
    trials
}

/// A helper that runs, and what its page knows of it.
struct Helper {
    process: Process,
    origin: String,
    port: u16,
    token: String,
}

/// An answer as it came.
#[derive(Debug)]
struct Said {
    status: u16,
    head: String,
    body: Value,
}

impl Said {
    fn read(mut stream: TcpStream) -> Result<Self, Failed> {
        let mut all = Vec::new();
        let _reset = stream.read_to_end(&mut all);
        let text = String::from_utf8(all)?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or("no answer")?;
        let status = head.get(9..12).ok_or("no status")?.parse()?;
        let body = serde_json::from_str(body).unwrap_or(Value::Null);
        Ok(Self { status, head: head.to_lowercase(), body })
    }

    #[track_caller]
    fn is(&self, status: u16, check: &str) {
        let said = (self.status, &self.body["error"]["check"]);
        assert_eq!(said, (status, &json!(check)), "{self:?}");
    }
}

impl Helper {
    /// `device phone helper` for this bank's page, on `device`.
    fn start(bank: &Bank, device: &[&str]) -> Result<Self, Failed> {
        let url = bank.url();
        let words = ["--json", "device", "phone", "helper", "--server", &url];
        Self::spawn(&bank.host, &[&words[..], device].concat(), &url)
    }

    fn spawn(host: &Host, words: &[&str], origin: &str) -> Result<Self, Failed> {
        let mut helper = command();
        helper.args(words).current_dir(host.path(".")).envs(host.environment());
        helper.stderr(File::create(host.path(TERMINAL))?);
        let mut process = Process::start(helper)?;
        let ready = process.first_json()?;
        assert_eq!((&ready["event"], &ready["origin"]), (&json!("ready"), &json!(origin)));
        let port = u16::try_from(ready["port"].as_u64().ok_or("no port")?)?;
        let mut helper = Self { process, origin: origin.to_owned(), port, token: String::new() };
        helper.open(ready["url"].as_str().ok_or("no URL")?)?;
        Ok(helper)
    }

    /// As a browser opens the URL: the page learns the token from the fragment.
    fn open(&mut self, url: &str) -> Result<(), Failed> {
        let page = format!("{}/phone#helper={}.", self.origin, self.port);
        self.token = url.strip_prefix(&page).ok_or_else(|| format!("{url}, not {page}"))?.into();
        Ok(())
    }

    /// A request of the page, with these headers in the place of its own.
    fn begin(
        &self,
        line: &str,
        changed: &[(&str, Option<&str>)],
        body: &[u8],
    ) -> Result<TcpStream, Failed> {
        let (host, length) = (format!("127.0.0.1:{}", self.port), body.len().to_string());
        let own = [
            ("host", &*host),
            ("origin", &*self.origin),
            ("content-type", "application/json"),
            ("content-length", &*length),
        ];
        let kept = own.into_iter().filter(|(name, _)| !changed.iter().any(|(n, _)| n == name));
        let more = changed.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
        let head: Vec<_> = kept.chain(more).map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "{line} HTTP/1.1\r\n{}\r\n", head.concat())?;
        // Whoever was refused on the head alone is not read to the end.
        let _refused = stream.write_all(body);
        Ok(stream)
    }

    fn send(
        &self,
        line: &str,
        changed: &[(&str, Option<&str>)],
        body: &[u8],
    ) -> Result<Said, Failed> {
        Said::read(self.begin(line, changed, body)?)
    }

    fn body(&self, request: &str) -> Vec<u8> {
        json!({ "token": self.token, "request": request }).to_string().into_bytes()
    }

    /// The page asks, and goes on with the next token if there is one.
    fn ask(&mut self, request: &str) -> Result<Said, Failed> {
        let said = self.send("POST /confirm", &[], &self.body(request))?;
        if let Some(next) = said.body["next"].as_str() {
            self.token = next.to_owned();
        }
        Ok(said)
    }

    fn event(&mut self) -> Result<Value, Failed> {
        self.process.first_json()
    }

    /// SIGTERM, and its exit code.
    fn end(self) -> Result<i32, Failed> {
        self.process.terminate()?;
        Ok(self.process.finish()?.code)
    }
}

impl Bank {
    /// The API as the page has it: with the phone's session, which the helper does not have.
    fn page(&self) -> Result<Api, Failed> {
        let token = fs::read_to_string(self.host.path("phone/token"))?;
        Ok(Api::new(&self.url(), &fs::read_to_string(self.host.path("ca.pem"))?, &token)?)
    }

    /// A payment that waits, and its request as the page gets it.
    fn request(&self, amount: &str) -> Result<(String, String), Failed> {
        let id = self.pending(amount)?;
        let payment: Value = self.page()?.get(&format!("/v1/phone/payments/{id}"))?;
        Ok((id, payment["request"].as_str().ok_or("no request")?.to_owned()))
    }

    /// The page sends the device's answer; where the payment stands then.
    fn answer(&self, id: &str, said: &Said) -> Result<Value, Failed> {
        assert_eq!(said.status, 200, "{said:?}");
        let path = format!("/v1/payments/{id}/authorisations");
        let taken: Value = self.page()?.post(&path, &said.body["answer"])?;
        Ok(taken["status"].clone())
    }

    fn key(&self, serial: &str, method: &str) -> Result<(), Failed> {
        let words = ["device", "key", "enroll", "--key", serial, "--serial", serial];
        let more = ["--label", "a key", "--account", "PAYER0001", "--pin-file", "pin"];
        self.done(&[&words[..], &more, &["--method", method]].concat())?;
        Ok(())
    }
}

const KEY: [&str; 4] = ["--key", "KEY-1", "--pin-file", "pin"];

fn bank() -> Result<Bank, Failed> {
    let bank = Bank::new(&Database::Sqlite)?;
    bank.payer("KEY-1", "phone")?;
    Ok(bank)
}

/// The good way with real processes, signatures and digits; each token works once, and the next one
/// goes on.
fn a_page_is_helped_to_a_devices_answer() -> Result<(), Failed> {
    let mut bank = bank()?;
    let mut helper = Helper::start(&bank, &KEY)?;
    let (id, request) = bank.request("12.34")?;
    let first = helper.token.clone();
    let said = helper.ask(&request)?;
    assert_eq!(said.body["answer"]["deviceSerial"], "KEY-1", "{said:?}");
    assert!(said.head.contains(&format!("access-control-allow-origin: {}", helper.origin)));
    assert_eq!(bank.payment(&id)?["status"], "pending", "the helper executes nothing");
    assert_eq!(bank.answer(&id, &said)?, "executed");
    assert_eq!(bank.balance("SHOP0001")?, "12.34");
    let shown = fs::read_to_string(bank.host.path(TERMINAL))?;
    assert!(shown.contains("12.34 CNY") && shown.contains("SHOP 0001"), "{shown}");
    let event = helper.event()?;
    assert_eq!(
        (&event["event"], &event["paymentId"], &event["deviceSerial"], &event["heard"]),
        (&json!("confirmed"), &json!(id), &json!("KEY-1"), &json!(true))
    );

    // A signature is for these bytes: another payment's is not confirmed by it.
    let (other, request) = bank.request("1.00")?;
    let path = format!("/v1/payments/{other}/authorisations");
    let taken = bank.page()?.post::<Value>(&path, &said.body["answer"]);
    assert!(taken.is_err(), "{taken:?}");
    // Used twice; then by the next.
    let next = std::mem::replace(&mut helper.token, first);
    helper.ask(&request)?.is(401, "helper-token");
    helper.token = next;
    let said = helper.ask(&request)?;
    assert_eq!(bank.answer(&other, &said)?, "executed");
    // The URL that it prints is good for as long: a page that lost its token opens that.
    helper.event()?;
    let (id, request) = bank.request("2.00")?;
    helper.ask(&request)?;
    let printed = helper.event()?;
    helper.open(printed["url"].as_str().ok_or("no URL")?)?;
    let said = helper.ask(&request)?;
    assert_eq!(bank.answer(&id, &said)?, "executed");
    assert_eq!(helper.end()?, 0);

    // Digits, and the spelling of the command.
    bank.key("OCRA-1", "ocra")?;
    let url = bank.url();
    let words = ["--json", "device", "phone", "--helper", "--server", &url, "--key", "OCRA-1"];
    let mut helper =
        Helper::spawn(&bank.host, &[&words[..], &["--pin-file", "pin"]].concat(), &url)?;
    let (id, request) = bank.request("3.00")?;
    let said = helper.ask(&request)?;
    let digits = said.body["answer"]["digits"].as_str().ok_or("no digits")?;
    assert!(digits.len() == 8 && digits.bytes().all(|digit| digit.is_ascii_digit()), "{digits}");
    assert_eq!(bank.answer(&id, &said)?, "executed");
    assert_eq!(helper.end()?, 0);
    bank.books_hold()
}

/// Wrong PINs to the block, no PIN, no payment: each by its name, and nobody pays.
fn the_holder_says_no_at_the_helper() -> Result<(), Failed> {
    let mut bank = bank()?;
    let device = ["--key", "KEY-1", "--pin-file", "typed"];
    let typed = |pin: &str| fs::write(bank.host.path("typed"), pin);
    typed("")?;
    let mut helper = Helper::start(&bank, &device)?;
    let (id, request) = bank.request("1.00")?;
    helper.ask(&request)?.is(403, "declined");
    for bad in ["", "e30", "e30=", "bm8gcGF5bWVudA"] {
        let said = helper.ask(bad)?;
        assert_eq!(said.status, 422, "{bad}: {said:?}");
    }
    fs::remove_file(bank.host.path("typed"))?;
    let said = helper.ask(&request)?;
    said.is(503, "pin-absent");
    assert!(!said.body.to_string().contains("typed"), "paths stay at the terminal: {said:?}");
    typed("000000")?;
    for check in ["pin-wrong", "pin-wrong", "pin-blocked", "pin-blocked"] {
        helper.ask(&request)?.is(403, check);
    }
    typed("2580")?;
    helper.ask(&request)?.is(403, "pin-blocked");
    assert_eq!(bank.payment(&id)?["status"], "pending");
    assert_eq!(bank.balance("SHOP0001")?, "0.00");
    assert_eq!(helper.end()?, 0);

    // A device that is not there yet may come.
    let mut helper = Helper::start(&bank, &["--key", "KEY-2", "--pin-file", "pin"])?;
    helper.ask(&request)?.is(503, "device-not-ours");
    bank.key("KEY-2", "pki")?;
    let said = helper.ask(&request)?;
    assert_eq!(bank.answer(&id, &said)?, "executed");
    bank.books_hold()
}

/// Other pages, forms, rebound names, large bodies: nothing comes to the device and no token is
/// used up; guessed tokens end it.
fn a_helper_is_deaf_to_other_pages() -> Result<(), Failed> {
    let mut bank = bank()?;
    let mut helper = Helper::start(&bank, &KEY)?;
    let (id, request) = bank.request("1.00")?;
    let good = helper.body(&request);
    let post = "POST /confirm";
    let evil = Some("https://evil.example");
    for origin in [None, Some("null"), evil, Some("https://127.0.0.1"), Some("http://localhost")] {
        let said = helper.send(post, &[("origin", origin)], &good)?;
        said.is(403, "origin");
        assert!(!said.head.contains("access-control-allow"), "{said:?}");
    }
    let rebound = format!("evil.example:{}", helper.port);
    helper.send(post, &[("host", Some(&rebound))], &good)?.is(403, "host");
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
        helper.send(post, &[("content-type", kind)], &good)?.is(415, "content-type");
    }
    helper.send("GET /confirm", &[], b"")?.is(405, "method");
    let link = format!("GET /confirm?token={}&request={request}", helper.token);
    helper.send(&link, &[], b"")?.is(404, "path");
    let large = [&good[..], &[b' '; 9000]].concat();
    helper.send(post, &[], &large)?.is(413, "body-too-large");
    helper.send(post, &[("content-length", Some("8000"))], &good)?.is(408, "body-timeout");
    let preflight = [
        ("access-control-request-method", Some("POST")),
        ("access-control-request-headers", Some("content-type")),
        ("access-control-request-private-network", Some("true")),
    ];
    let granted = helper.send("OPTIONS /confirm", &preflight, b"")?;
    assert_eq!(granted.status, 204, "{granted:?}");
    assert!(granted.head.contains("access-control-allow-private-network: true"), "{granted:?}");
    let strange = [&preflight[..], &[("origin", evil)]].concat();
    helper.send("OPTIONS /confirm", &strange, b"")?.is(403, "origin");
    // It listens on loopback, and on nothing else.
    let listening = Command::new("ss").args(["-Hltn"]).output();
    if let Ok(listening) = listening {
        let listening = String::from_utf8(listening.stdout)?;
        let port = format!(":{} ", helper.port);
        for line in listening.lines().filter(|line| line.contains(&port)) {
            assert!(line.contains(&format!("127.0.0.1{port}")), "{line}");
        }
    }
    let shown = fs::read_to_string(bank.host.path(TERMINAL))?;
    assert_eq!(shown, "", "nobody was asked");

    let said = helper.ask(&request)?;
    assert_eq!(bank.answer(&id, &said)?, "executed", "the token was still good");
    for guess in ["", "A", "B", "C", "D"] {
        helper.token = guess.to_owned();
        helper.ask(&request)?.is(401, "helper-token");
    }
    let port = helper.port;
    let ended = helper.process.finish()?;
    assert_eq!(ended.code, 1, "{}", ended.stdout);
    let shown = fs::read_to_string(bank.host.path(TERMINAL))?;
    assert!(shown.contains("[helper-token]"), "{shown}");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "it listens no more");
    bank.books_hold()
}

/// While the holder is asked nobody else is heard, also not when the page has gone.
fn a_helper_asks_for_one_at_a_time() -> Result<(), Failed> {
    let mut bank = bank()?;
    // A PIN that comes when the test types it.
    let keypad = bank.host.path("keypad");
    let made = Command::new("mkfifo").arg(&keypad).status()?;
    assert!(made.success(), "mkfifo: {made}");
    let mut helper = Helper::start(&bank, &["--key", "KEY-1", "--pin-file", "keypad"])?;
    let (id, request) = bank.request("1.00")?;
    let asked = |times: usize| {
        wait_for("the device's display", || {
            let shown = fs::read_to_string(bank.host.path(TERMINAL))?;
            Ok((shown.matches("The security device KEY-1 in KEY-1 shows:").count() == times)
                .then_some(()))
        })
    };
    let first = helper.begin("POST /confirm", &[], &helper.body(&request))?;
    asked(1)?;
    for _ in 0..6 {
        helper.send("POST /confirm", &[], &helper.body(&request))?.is(409, "helper-busy");
    }
    fs::write(&keypad, "2580")?;
    let said = Said::read(first)?;
    helper.token = said.body["next"].as_str().ok_or("no next token")?.to_owned();
    assert_eq!(bank.answer(&id, &said)?, "executed", "and none of the six counted");
    helper.event()?;

    let (id, request) = bank.request("2.00")?;
    let page = helper.begin("POST /confirm", &[], &helper.body(&request))?;
    asked(2)?;
    drop(page);
    helper.send("POST /confirm", &[], &helper.body(&request))?.is(409, "helper-busy");
    fs::write(&keypad, "2580")?;
    let lost = helper.event()?;
    assert_eq!((&lost["event"], &lost["heard"]), (&json!("confirmed"), &json!(false)), "{lost}");
    assert_eq!(bank.payment(&id)?["status"], "pending");
    helper.open(lost["url"].as_str().ok_or("no URL")?)?;
    let again = helper.begin("POST /confirm", &[], &helper.body(&request))?;
    asked(3)?;
    fs::write(&keypad, "2580")?;
    assert_eq!(bank.answer(&id, &Said::read(again)?)?, "executed");
    bank.books_hold()
}

fn a_helper_that_cannot_start_says_why() -> Result<(), Failed> {
    let host = Host::new()?;
    let helper = |more: &[&str]| -> Result<Ended, Failed> {
        host.run(&[&["--json", "device", "phone", "helper"], more].concat())
    };
    let refused = |ended: Ended, code: i32, check: &str| -> Result<(), Failed> {
        let error = ended.json()?["error"].clone();
        assert_eq!((ended.code, &error["check"]), (code, &json!(check)), "{error}");
        Ok(())
    };
    for origin in ["http://pay.example.com", "null", "*", "https://user@pay.example.com"] {
        refused(helper(&["--origin", origin])?, 2, "helper-origin")?;
        refused(helper(&["--server", origin])?, 2, "helper-origin")?;
    }
    refused(helper(&[])?, 2, "usage")?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    let words = ["--origin", "https://pay.example.com", "--port", &port];
    refused(helper(&words)?, 3, "helper-port")
}

#[cfg(not(feature = "pkcs11"))]
fn no_tokens() -> Result<(), Failed> {
    let host = Host::new()?;
    let words = ["--json", "device", "key", "show", "--token", "x", "--pkcs11-module", "m.so"];
    let ended = host.run(&words)?;
    let error = ended.json()?["error"].clone();
    assert_eq!((ended.code, &error["check"]), (1, &json!("pkcs11-not-built")), "{error}");
    Ok(())
}
