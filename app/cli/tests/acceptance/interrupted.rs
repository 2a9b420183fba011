//! Terminals, phones and security devices that are killed at what they do, and servers that hear
//! of each other's payments (D1-D6).

use std::fs;
use std::io::Read;
use std::thread;
use std::time::Duration;

use libtest_mimic::Failed;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::Alone;
use crate::bank::{Bank, PRICE};
use crate::host::{Database, Ports, Process, exists};

pub(crate) const TRIALS: [(&str, Alone); 4] = [
    ("a_killed_terminal_asks_again_and_pays_once", a_killed_terminal_asks_again_and_pays_once),
    ("a_killed_key_enrolment_is_gone_on_with", a_killed_key_enrolment_is_gone_on_with),
    ("a_killed_phone_enrolment_is_made_good", a_killed_phone_enrolment_is_made_good),
    ("a_killed_device_gives_no_try_back", a_killed_device_gives_no_try_back),
];

/// Payments whose notices are timed.
const TIMED: u32 = 6;
/// How soon one server's waiters hear of what happens at the other, on average. A waiter that was
/// not told looks by itself, after 2 s (a terminal) or 15 s (a phone).
const SOON: Duration = Duration::from_millis(500);
/// How long a device may take to ask for its PIN.
const PATIENCE: Duration = Duration::from_secs(20);

/// Two servers on one database: a payment asked for at the one wakes a phone that streams from the
/// other, and a terminal that waits at the one hears at once of an answer taken at the other.
pub(crate) fn both_servers_tell_at_once(database: &Database) -> Result<(), Failed> {
    let mut bank = Bank::plain(database)?;
    let other = Ports::pick()?;
    let second = bank.host.serve_plain(&other)?;
    let words = ["phone", "allow", "--label", "Li Lei's phone", "--account", "PAYER0001"];
    let allowed = bank.done(&words)?;
    let code = allowed["enrolmentCode"].as_str().ok_or("no code")?;
    let api = format!("http://127.0.0.1:{}", other.https);
    let words = ["device", "phone", "enroll", "--phone", "phone", "--code", code];
    bank.host.run(&[&words[..], &["--server", &api, "--ca", "ca.pem"]].concat())?.ok()?;
    let mut phone = bank.host.spawn(&["--json", "device", "phone", "watch", "--phone", "phone"])?;
    // Its stream is open when it has been told of this one.
    let first = bank.pending(PRICE)?;
    assert_eq!(phone.first_json()?["id"], json!(first));

    let (mut pushed, mut heard) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..TIMED {
        let id = bank.pending(PRICE)?;
        let asked = Instant::now();
        assert_eq!(phone.first_json()?["id"], json!(id));
        pushed += asked.elapsed();

        let line = format!("GET /v1/payments/{id}?wait=20&version=2");
        let mut terminal = bank.begin("till", &line, "", 0)?;
        let terminal = thread::spawn(move || {
            let mut answer = String::new();
            terminal.read_to_string(&mut answer).map(|_| (Instant::now(), answer))
        });
        thread::sleep(Duration::from_millis(100)); // it waits
        assert!(!terminal.is_finished(), "there is nothing to hear yet");
        let reject = ["device", "phone", "reject", &id, "--phone", "phone"];
        bank.host.run(&[&reject[..], &["--reason", "changed-mind"]].concat())?.ok()?;
        let answered = Instant::now();
        let (at, answer) = terminal.join().map_err(|_| "the terminal panicked")??;
        assert!(answer.contains("\"status\":\"rejected\""), "{answer}");
        heard += at.saturating_duration_since(answered);
    }
    assert!(pushed < SOON * TIMED, "phones hear late: {pushed:?}");
    assert!(heard < SOON * TIMED, "terminals hear late: {heard:?}");
    phone.kill()?;
    second.kill()?;
    bank.books_hold()
}

/// `pay` under a key, in a process of its own.
fn paying(bank: &Bank, key: &str) -> Result<Process, Failed> {
    let url = bank.url();
    let client = ["--json", "--server", &url, "--ca", "ca.pem", "--token-file", "till.token"];
    let words = bank.pay_words(PRICE, &["--idempotency-key", key]);
    bank.host.spawn(&[&words[..], &client].concat())
}

/// `pay` is killed before, while and after it asks; repeated under the same key it is the same
/// payment, which is paid once.
fn a_killed_terminal_asks_again_and_pays_once() -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    bank.payer("KEY-1", "phone")?;
    let moments = [0, 5, 10, 20, 40, 80, 160];
    for moment in moments {
        let key = format!("order-{moment}");
        let terminal = paying(&bank, &key)?;
        thread::sleep(Duration::from_millis(moment));
        terminal.kill()?;
        let words = bank.pay_words(PRICE, &["--no-wait", "--idempotency-key", &key]);
        let asked = bank.run("till", &words)?.ok()?.json()?;
        assert_eq!(bank.run("till", &words)?.ok()?.json()?, asked, "{key}");
    }
    let listed = bank.done(&["payment", "list", "--status", "pending"])?;
    let items = listed["items"].as_array().ok_or("no items")?;
    assert_eq!(items.len(), moments.len(), "one payment for each key: {listed}");

    // Killed while it waits; the one that is begun instead hears how it ended, also afterwards.
    let terminal = paying(&bank, "order-0")?;
    thread::sleep(Duration::from_millis(200));
    terminal.kill()?;
    let terminal = paying(&bank, "order-0")?;
    let of_it = |item: &&Value| item["endToEndIdentification"] == "order-0";
    let id = items.iter().find(of_it).and_then(|item| item["id"].as_str()).ok_or("no payment")?;
    bank.approve("phone", "KEY-1", id)?.ok()?;
    for terminal in [terminal, paying(&bank, "order-0")?] {
        let ended = terminal.finish()?;
        let payment = ended.json()?;
        assert_eq!((ended.code, &payment["status"]), (0, &json!("executed")), "{payment}");
        assert_eq!(payment["id"], json!(id));
    }
    assert_eq!(bank.balance("SHOP0001")?, PRICE);
    bank.books_hold()
}

/// `device key enroll` is killed under way; repeated, it ends with a device that confirms, and the
/// server knows one.
fn a_killed_key_enrolment_is_gone_on_with() -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    bank.phone("phone")?;
    let api = bank.url();
    let words = ["--json", "device", "key", "enroll", "--key", "KEY-1", "--serial", "KEY-1"];
    let more = ["--label", "Li Lei's key", "--account", "PAYER0001", "--pin-file", "pin"];
    let client = ["--server", &api, "--ca", "ca.pem", "--token-file", "admin.token"];
    let enroll = [&words[..], &more, &client].concat();
    let mut kills = 0;
    // Each time later, so that at last it is through; each stage is begun again in between.
    for moment in [0, 4, 6, 8, 10, 14, 20, 50, 200, 300, 400, 600, 800, 1000, 1500, 2000] {
        let enrolling = bank.host.spawn(&enroll)?;
        thread::sleep(Duration::from_millis(moment));
        let said = enrolling.kill_and_read()?;
        if !said.is_empty() {
            break;
        }
        kills += 1;
    }
    assert!(kills > 1, "nothing was cut off");
    let made = bank.host.run(&enroll)?.ok()?.json()?;
    let again = bank.host.run(&enroll)?.ok()?.json()?;
    assert_eq!(again["certificateNumber"], made["certificateNumber"]);
    let devices = bank.done(&["security-device", "list"])?;
    assert_eq!(devices["items"].as_array().map(Vec::len), Some(1), "{devices}");
    let id = bank.pending(PRICE)?;
    bank.approve("phone", "KEY-1", &id)?.ok()?;
    assert_eq!(bank.balance("SHOP0001")?, PRICE);
    bank.books_hold()
}

/// `device phone enroll` is killed under way: its directory is a phone's that works, or none; with
/// the same code or a new one it is made good.
fn a_killed_phone_enrolment_is_made_good() -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    let api = bank.url();
    let mut cut = 0;
    for moment in [0, 2, 5, 10, 15, 20, 30, 40, 60, 100, 500] {
        let dir = format!("phone-{moment}");
        let words = ["phone", "allow", "--label", &dir, "--account", "PAYER0001"];
        let allowed = bank.done(&words)?;
        let code = allowed["enrolmentCode"].as_str().ok_or("no code")?;
        let enroll = |code: &str| -> Vec<String> {
            let words = ["--json", "device", "phone", "enroll", "--phone", &dir, "--code", code];
            let client = ["--server", &api, "--ca", "ca.pem"];
            words.iter().chain(&client).map(|&word| word.to_owned()).collect()
        };
        let first: Vec<_> = enroll(code);
        let first: Vec<_> = first.iter().map(String::as_str).collect();
        let enrolling = bank.host.spawn(&first)?;
        thread::sleep(Duration::from_millis(moment));
        enrolling.kill()?;
        if !exists(&bank.host.path(&dir).join("phone.toml")) {
            cut += 1;
            let ended = bank.host.run(&first)?;
            if ended.code != 0 {
                // The server has taken the code; the token in its answer is lost.
                assert_eq!(ended.json()?["error"]["check"], "enrolment-code", "{moment}");
                let phone = allowed["phone"]["id"].as_str().ok_or("no phone")?;
                let another = bank.done(&["phone", "code", phone])?;
                let second = enroll(another["enrolmentCode"].as_str().ok_or("no code")?);
                let second: Vec<_> = second.iter().map(String::as_str).collect();
                bank.host.run(&second)?.ok()?;
            }
        }
        let listed = bank.host.run(&["--json", "device", "phone", "list", "--phone", &dir])?;
        assert_eq!(listed.ok()?.json()?, json!({ "items": [] }), "{moment}");
    }
    assert!(cut > 0, "none was cut off");
    bank.books_hold()
}

/// The try is off the counter before the PIN is tried, so that a kill does not give it back; the
/// right PIN does.
fn a_killed_device_gives_no_try_back() -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    bank.payer("KEY-1", "phone")?;
    fs::write(bank.host.path("wrong"), "1111\n")?;
    let id = bank.pending(PRICE)?;
    let tries = bank.host.path("KEY-1").join("pin-tries");
    let left = || -> Result<String, Failed> { Ok(fs::read_to_string(&tries)?.trim().to_owned()) };
    for (pin, after) in [("wrong", "2"), ("pin", "1")] {
        let words = ["--json", "device", "phone", "approve", &id, "--phone", "phone"];
        let words = [&words[..], &["--key", "KEY-1", "--pin-file", pin]].concat();
        let asked = bank.host.spawn(&words)?;
        // It works on the PIN for a fifth of a second: look often.
        let started = Instant::now();
        while left()? != after {
            assert!(started.elapsed() < PATIENCE, "no PIN was tried");
            thread::sleep(Duration::from_millis(1));
        }
        let said = asked.kill_and_read()?;
        assert_eq!((said.as_str(), left()?.as_str()), ("", after), "killed at work");
    }
    let show = ["--json", "device", "key", "show", "--key", "KEY-1"];
    let shown = || -> Result<Value, Failed> { bank.host.run(&show)?.ok()?.json() };
    assert_eq!(shown()?["pinTriesLeft"], 1);
    assert_eq!(bank.payment(&id)?["status"], "pending", "nothing was sent");
    bank.approve("phone", "KEY-1", &id)?.ok()?;
    assert_eq!(shown()?["pinTriesLeft"], 3);
    assert_eq!(bank.balance("SHOP0001")?, PRICE);
    bank.books_hold()
}
