//! Payments from an initiating terminal to the ledger, confirmed on a second device (D1-D8).

use std::fs;
use std::io::Read;
use std::time::Duration;

use libtest_mimic::Failed;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::Alone;
use crate::bank::{Bank, OPENING, PRICE};
use crate::host::{Database, Host, Ports, Process, wait_for};

pub(crate) const TRIALS: [(&str, Alone); 6] = [
    ("evidence_is_checked_offline", evidence_is_checked_offline),
    ("bad_requests_cost_little", bad_requests_cost_little),
    ("streams_that_nobody_reads_hold_nobody_up", streams_that_nobody_reads_hold_nobody_up),
    ("a_terminal_is_told_why", a_terminal_is_told_why),
    ("one_wrong_answer_ends_it_where_set_so", one_wrong_answer_ends_it_where_set_so),
    ("a_terminal_waits_through_a_restart", a_terminal_waits_through_a_restart),
];

/// `pay` in a process of its own; it waits for the payer.
fn paying(bank: &Bank, amount: &str) -> Result<Process, Failed> {
    let url = bank.url();
    let client = ["--json", "--server", &url, "--ca", "ca.pem", "--token-file", "till.token"];
    bank.host.spawn(&[&bank.pay_words(amount, &[])[..], &client].concat())
}

/// The id of the one payment that waits.
fn waiting(bank: &Bank) -> Result<String, Failed> {
    wait_for("a payment", || {
        let list = bank.done(&["payment", "list", "--status", "pending"])?;
        Ok(list["items"][0]["id"].as_str().map(str::to_owned))
    })
}

/// The whole way, each party a process: the terminal has no driver for the device (D8).
pub(crate) fn a_payment_is_confirmed_on_a_second_device(database: &Database) -> Result<(), Failed> {
    let mut bank = Bank::new(database)?;
    bank.payer("KEY-1", "PHONE-1")?;
    let terminal = paying(&bank, PRICE)?;
    let id = waiting(&bank)?;
    let approved = bank.approve("PHONE-1", "KEY-1", &id)?.ok()?.json()?;
    assert_eq!(approved["status"], "executed", "{approved}");
    let ended = terminal.finish()?;
    let payment = ended.json()?;
    assert_eq!((ended.code, &payment["status"]), (0, &json!("executed")), "{payment}");
    assert_eq!((&payment["id"], &payment["transactionStatus"]), (&json!(id), &json!("ACSC")));
    assert_eq!(bank.balance("PAYER0001")?, "987.66");
    assert_eq!(bank.balance("SHOP0001")?, PRICE);
    let entries = bank.done(&["account", "entries", "SHOP0001"])?;
    assert_eq!(entries["items"][0]["paymentId"], id.as_str(), "{entries}");
    assert_eq!(entries["items"][0]["otherAccount"]["identification"], "PAYER0001");
    let timeline = bank.done(&["payment", "timeline", &id])?;
    let states: Vec<_> = timeline["items"].as_array().into_iter().flatten().collect();
    let states: Vec<_> = states.iter().filter_map(|row| row["status"].as_str()).collect();
    assert_eq!(states, ["created", "pending", "approved", "executing", "executed"]);
    // Again: the same answer, and nothing is paid twice.
    let again = bank.approve("PHONE-1", "KEY-1", &id)?;
    assert_ne!(again.code, 2, "{}", again.stdout);
    assert_eq!(bank.balance("SHOP0001")?, PRICE);

    // What goes back.
    let refunded = bank.done(&["payment", "refund", &id, "--amount", "2.34"])?;
    assert_eq!(refunded["kind"], "refund", "{refunded}");
    bank.refused("admin", &["payment", "refund", &id, "--amount", "10.01"], "refund-too-much")?;
    bank.refused("till", &["payment", "refund", &id, "--amount", "1.00"], "scope")?;
    bank.refused("admin", &["payment", "reverse", &id], "payment-refunded")?;
    assert_eq!(bank.payment(&id)?["refundedAmount"]["amount"], "2.34");

    // A second payment to the same payee is given back whole.
    let id = bank.pending("1.00")?;
    bank.approve("PHONE-1", "KEY-1", &id)?.ok()?;
    bank.done(&["payment", "reverse", &id])?;
    bank.refused("admin", &["payment", "reverse", &id], "payment-reversed")?;
    assert_eq!(bank.balance("PAYER0001")?, "990.00");
    // People see the same; the auditor too.
    let url = bank.url();
    let show = ["payment", "show", &id, "--server", &url, "--ca", "ca.pem", "--token-file"];
    let text = bank.host.run(&[&show[..], &["audrey.token"]].concat())?.ok()?.stdout;
    for told in [&*id, "executed", "1.00 CNY", "PAYER0001 -> SHOP0001", "Tea Shop", "given back"] {
        assert!(text.contains(told), "{told}: {text}");
    }
    bank.books_hold()
}

/// Rejected, cancelled, failed: the terminal gets an error, and nobody pays (D7).
pub(crate) fn a_refused_payment_ends_with_code_one(database: &Database) -> Result<(), Failed> {
    let mut bank = Bank::new(database)?;
    bank.payer("KEY-1", "PHONE-1")?;
    let ended = |terminal: Process, status: &str, reason: Value| -> Result<(), Failed> {
        let ended = terminal.finish()?;
        let payment = ended.json()?;
        assert_eq!((ended.code, &payment["status"]), (1, &json!(status)), "{payment}");
        assert_eq!(payment["statusReason"], reason, "{payment}");
        Ok(())
    };
    let terminal = paying(&bank, PRICE)?;
    let id = waiting(&bank)?;
    let reject = ["--json", "device", "phone", "reject", &id, "--phone", "PHONE-1"];
    bank.host.run(&[&reject[..], &["--reason", "not-mine"]].concat())?;
    ended(terminal, "rejected", json!("not-mine"))?;
    let late = bank.approve("PHONE-1", "KEY-1", &id)?;
    assert_eq!(late.code, 1, "{}", late.stdout);
    // Its account pays nothing more until an operator has looked at it.
    let stopped = bank.run("till", &bank.pay_words(PRICE, &[]))?;
    assert_eq!(stopped.json()?["error"]["check"], "account-frozen", "{}", stopped.stdout);
    bank.done(&["account", "unfreeze", "PAYER0001"])?;

    let terminal = paying(&bank, PRICE)?;
    let id = waiting(&bank)?;
    bank.run("till", &["payment", "cancel", &id])?.ok()?;
    let reason = bank.payment(&id)?["statusReason"].clone();
    ended(terminal, "cancelled", reason)?;
    bank.refused("till", &["payment", "receipt", &id], "receipt-not-ready")?;

    // More than there is: confirmed, and not executed.
    let terminal = paying(&bank, "1000.01")?;
    let id = waiting(&bank)?;
    let approved = bank.approve("PHONE-1", "KEY-1", &id)?;
    assert_eq!(approved.code, 1, "{}", approved.stdout);
    ended(terminal, "execution_failed", json!("insufficient-funds"))?;
    assert_eq!(bank.balance("PAYER0001")?, OPENING);
    bank.books_hold()
}

/// The same request before and after a `kill -9` is answered by the same bytes.
pub(crate) fn a_replay_is_the_same_bytes_after_a_restart(
    database: &Database,
) -> Result<(), Failed> {
    let mut bank = Bank::plain(database)?;
    bank.payer("KEY-1", "PHONE-1")?;
    let body = order(PRICE);
    let (line, key) = ("POST /v1/payments", "idempotency-key: order-7\r\n");
    let first = bank.send("till", line, key, &body)?;
    assert_eq!(first.status, 201, "{}", first.head);
    assert!(!first.head.contains("idempotency-replayed"), "{}", first.head);
    bank.restart()?;
    let again = bank.send("till", line, key, &body)?;
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert!(again.head.contains("idempotency-replayed: true"), "{}", again.head);
    let payment: Value = serde_json::from_slice(&first.body)?;
    let id = payment["id"].as_str().ok_or("no id")?;
    bank.approve("PHONE-1", "KEY-1", id)?.ok()?;
    bank.restart()?;
    let late = bank.send("till", line, key, &body)?;
    assert_eq!((late.status, &late.body), (first.status, &first.body), "as at first");
    let other = bank.send("till", line, key, &order("12.35"))?;
    assert_eq!(other.status, 422);
    assert_eq!(serde_json::from_slice::<Value>(&other.body)?["check"], "idempotency-mismatch");
    // By the command: the same key, the same payment.
    let words = bank.pay_words("1.00", &["--no-wait", "--idempotency-key", "by-hand"]);
    let one = bank.run("till", &words)?.ok()?.json()?;
    assert_eq!(bank.run("till", &words)?.ok()?.json()?, one);
    let words = bank.pay_words("1.01", &["--no-wait", "--idempotency-key", "by-hand"]);
    bank.refused("till", &words, "idempotency-mismatch")?;
    assert_eq!(bank.balance("SHOP0001")?, PRICE, "one of all these was paid");
    bank.books_hold()
}

/// Many servers, one truth: asked for at one, confirmed at the other, told at both.
pub(crate) fn a_payment_goes_over_two_servers(database: &Database) -> Result<(), Failed> {
    let mut bank = Bank::new(database)?;
    bank.payer("KEY-1", "PHONE-1")?;
    let other = Ports::pick()?;
    let second = bank.host.serve(&other)?;
    let url = other.api();
    let client = ["--json", "--server", &url, "--ca", "ca.pem", "--token-file", "till.token"];
    let once = ["--idempotency-key", "order-7", "--reference", "ORDER-7"];
    let words = bank.pay_words(PRICE, &once);
    let terminal = bank.host.spawn(&[&words[..], &client].concat())?;
    let id = waiting(&bank)?;
    // The phone is enrolled at the first server; the terminal waits at the second.
    let started = Instant::now();
    bank.approve("PHONE-1", "KEY-1", &id)?.ok()?;
    let ended = terminal.finish()?;
    assert_eq!((ended.code, &ended.json()?["status"]), (0, &json!("executed")));
    assert!(started.elapsed() < Duration::from_secs(15), "it was told, not timed out");
    // A repeated request is answered the same by the server that did not see it.
    let again = bank.run("till", &[&words[..], &["--no-wait"]].concat())?.ok()?.json()?;
    assert_eq!((&again["id"], &again["status"]), (&json!(id), &json!("pending")), "as at first");
    assert_eq!(bank.balance("SHOP0001")?, PRICE);
    second.kill()?;
    bank.books_hold()
}

fn order(amount: &str) -> Vec<u8> {
    let order = json!({
        "endToEndIdentification": "ORDER-7",
        "instructedAmount": { "amount": amount, "currency": "CNY" },
        "debtorAccount": { "identification": "PAYER0001" },
        "creditorAccount": { "identification": "SHOP0001" },
        "creditor": { "name": "Tea Shop" },
        "remittanceInformation": "Order 7: 2 teas",
        "initiatingParty": { "name": "Web shop" },
    });
    order.to_string().into_bytes()
}

fn evidence_is_checked_offline() -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    bank.payer("KEY-1", "PHONE-1")?;
    let id = bank.pending(PRICE)?;
    bank.refused("till", &["payment", "evidence", &id], "evidence-not-ready")?;
    bank.approve("PHONE-1", "KEY-1", &id)?.ok()?;
    bank.run("till", &["payment", "evidence", &id, "--out", "e.json"])?.ok()?;
    let receipt = bank.run("till", &["payment", "receipt", &id])?.ok()?.json()?;
    assert_eq!(receipt["receipt"].as_str().map(|jws| jws.split('.').count()), Some(3));
    // Nothing is written over.
    let twice = bank.run("till", &["payment", "evidence", &id, "--out", "e.json"])?;
    assert_eq!((twice.code, &twice.json()?["error"]["check"]), (3, &json!("file")));
    let root = bank.host.run(&["ca", "export", "--data", "data", "root"])?.ok()?.stdout;
    fs::write(bank.host.path("root.pem"), root)?;
    bank.server.take().ok_or("no server")?.kill()?;
    fs::rename(bank.host.path("data"), bank.host.path("gone"))?;

    // Nothing but the file and the root.
    let host = &bank.host;
    let verify =
        |file: &str, root: &str| host.run(&["--json", "evidence", "verify", file, "--root", root]);
    let good = verify("e.json", "root.pem")?;
    let report = good.json()?;
    assert_eq!((good.code, &report["ok"]), (0, &json!(true)), "{report}");
    assert!(report["checks"].as_array().is_some_and(|checks| checks.len() > 5), "{report}");
    let text = host.run(&["evidence", "verify", "e.json", "--root", "root.pem"])?.ok()?.stdout;
    assert!(text.ends_with("ok: the evidence holds\n"), "{text}");

    // Every place in which a byte is changed is noticed, and named.
    let bundle = fs::read(host.path("e.json"))?;
    let step = (bundle.len() / 40).max(1);
    for at in (0..bundle.len()).step_by(step) {
        let mut altered = bundle.clone();
        altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
        fs::write(host.path("altered.json"), &altered)?;
        let ended = verify("altered.json", "root.pem")?;
        let report = ended.json()?;
        assert_eq!((ended.code, &report["ok"]), (1, &json!(false)), "byte {at}: {report}");
        assert!(report["failed"][0].is_string(), "byte {at}: {report}");
    }
    let amount = String::from_utf8(bundle)?.replace(PRICE, "92.34");
    fs::write(host.path("altered.json"), amount)?;
    let text = host.run(&["evidence", "verify", "altered.json", "--root", "root.pem"])?;
    assert_eq!(text.code, 1);
    assert!(text.stdout.contains("BAD"), "{}", text.stdout);

    for garbage in [&b""[..], b"{}", b"null", b"[[[[", b"\xff\xfe", &[b'['; 100_000]] {
        fs::write(host.path("garbage"), garbage)?;
        let ended = verify("garbage", "root.pem")?;
        let report = ended.json()?;
        assert_eq!((ended.code, &report["ok"]), (1, &json!(false)), "{report}");
        let words = report["checks"][0]["detail"].as_str().unwrap_or_default().to_owned();
        assert!(words.len() > 5, "a clear word: {report}");
    }
    let long = fs::File::create(host.path("long"))?;
    long.set_len(5 * 1024 * 1024)?;
    let ended = verify("long", "root.pem")?;
    assert_eq!((ended.code, &ended.json()?["error"]["check"]), (1, &json!("evidence-too-long")));
    // Another's root; no root; no file.
    let other = verify("e.json", "ca.pem")?;
    assert_eq!((other.code, &other.json()?["ok"]), (1, &json!(false)));
    let none = verify("e.json", "pin")?;
    assert_eq!((none.code, &none.json()?["error"]["check"]), (2, &json!("root-file")));
    assert_eq!(verify("absent", "root.pem")?.code, 3);
    Ok(())
}

fn bad_requests_cost_little() -> Result<(), Failed> {
    let mut bank = Bank::plain(&Database::Sqlite)?;
    let (line, key) = ("POST /v1/payments", "idempotency-key: k\r\n");
    let check = |body: &[u8]| -> Result<(u16, String), Failed> {
        let said = bank.send("till", line, key, body)?;
        let problem: Value = serde_json::from_slice(&said.body)?;
        Ok((said.status, problem["check"].as_str().unwrap_or_default().to_owned()))
    };
    let large = vec![b'a'; 10 * 1024 * 1024];
    let started = Instant::now();
    assert_eq!(check(&large)?, (413, "body-too-large".to_owned()));
    assert!(started.elapsed() < Duration::from_secs(5), "ten megabytes are not read to the end");
    let mut not_utf8 = order(PRICE);
    let at = not_utf8.len() - 10;
    not_utf8[at] = 0xFF;
    for bad in [&not_utf8[..], b"{", b"", &[b'['; 60_000], b"{\"a\":1,\"a\":2}"] {
        assert_eq!(check(bad)?, (400, "body".to_owned()));
    }
    for amount in ["0", "-1", "1.001", "1e9", "99999999999999999999"] {
        let (status, check) = check(&order(amount))?;
        assert!(status == 422 && check.starts_with("amount-"), "{amount}: {status} {check}");
    }
    let none = bank.send("till", line, "", &order(PRICE))?;
    assert_eq!(none.status, 400);
    assert_eq!(bank.done(&["payment", "list"])?["items"], json!([]));
    bank.books_hold()
}

/// A client that opens a stream and never reads costs its own place, and nobody else's.
fn streams_that_nobody_reads_hold_nobody_up() -> Result<(), Failed> {
    const PER_TOKEN: usize = 16;
    let mut bank = Bank::plain(&Database::Sqlite)?;
    bank.payer("KEY-1", "PHONE-1")?;
    let id = bank.pending(PRICE)?;
    let line = format!("GET /v1/payments/{id}/events");
    let mut silent = Vec::new();
    for _ in 0..PER_TOKEN {
        let mut stream = bank.begin("till", &line, "", 0)?;
        // The head has come: the stream has its place.
        stream.read_exact(&mut [0; 12])?;
        silent.push(stream);
    }
    let refused = bank.send("till", &line, "", b"")?;
    assert_eq!(refused.status, 429, "{}", refused.head);
    let problem: Value = serde_json::from_slice(&refused.body)?;
    assert_eq!(problem["check"], "streams-full");
    // Others have theirs, and payments go on.
    let mut auditors = bank.begin("audrey", &line, "", 0)?;
    bank.approve("PHONE-1", "KEY-1", &id)?.ok()?;
    let mut told = String::new();
    auditors.read_to_string(&mut told)?;
    assert!(told.contains("text/event-stream") && told.contains("event: payment"), "{told}");
    assert!(told.contains("\"status\":\"executed\""), "it is told, and the stream ends: {told}");
    // Who goes away gives the place back.
    silent.truncate(PER_TOKEN - 1);
    wait_for("a free place", || {
        Ok((bank.send("till", &line, "", b"")?.status == 200).then_some(()))
    })?;
    // A server that is told to stop does not wait for them.
    let id = bank.pending(PRICE)?;
    let _open = bank.begin("audrey", &format!("GET /v1/payments/{id}/events"), "", 0)?;
    let server = bank.server.take().ok_or("no server")?;
    let started = Instant::now();
    server.terminate()?;
    server.finish()?;
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    bank.server = Some(bank.host.serve_plain(&bank.ports)?);
    bank.books_hold()
}

/// What a terminal asks wrongly, or at the wrong time.
fn a_terminal_is_told_why() -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    let with =
        |from: &str, to: &str, amount: &str, order: &str, check: &str| -> Result<(), Failed> {
            let words =
                ["pay", "--from", from, "--to", to, "--payee", "Tea Shop", "--amount", amount];
            let more = ["--currency", "CNY", "--order", order];
            bank.refused("till", &[&words[..], &more].concat(), check)?;
            Ok(())
        };
    with("NOBODY001", "SHOP0001", "1.00", "tea", "account-unknown")?;
    with("PAYER0001", "NOBODY001", "1.00", "tea", "payee-unknown")?;
    with("PAYER0001", "PAYER0001", "1.00", "tea", "same-account")?;
    with("PAYER0001", "SHOP0001", "1.001", "tea", "amount-decimals")?;
    with("PAYER0001", "SHOP0001", "-1.00", "tea", "amount-form")?;
    with("PAYER0001", "SHOP0001", "1.00", "t\u{202e}ea", "text-direction")?;
    with("PAYER0001", "SHOP0001", "1.00", "", "text-empty")?;
    bank.refused("audrey", &bank.pay_words(PRICE, &[]), "scope")?;
    let soon = bank.pay_words(PRICE, &["--expires-in", "5"]);
    bank.refused("till", &soon, "expiry-range")?;
    bank.refused("till", &["payment", "show", "pay_none"], "not-found")?;
    bank.refused("admin", &["account", "show", "NOBODY001"], "not-found")?;
    bank.refused("till", &["account", "show", "PAYER0001"], "scope")?;
    bank.refused("till", &["account", "freeze", "PAYER0001", "--reason", "x"], "scope")?;
    let overdrawn = bank.post("p-1", "SHOP0001", "PAYER0001", "0.01")?;
    assert_eq!(overdrawn.json()?["error"]["check"], "insufficient-funds");
    let again = bank.post("opening", "OUTSIDE01", "PAYER0001", "1.00")?;
    assert_eq!(again.json()?["error"]["check"], "reference-taken");
    bank.done(&["account", "freeze", "SHOP0001", "--reason", "investigated"])?;
    with("PAYER0001", "SHOP0001", "1.00", "tea", "account-frozen")?;
    bank.done(&["account", "unfreeze", "SHOP0001"])?;
    bank.refused(
        "admin",
        &["account", "close", "PAYER0001", "--reason", "x"],
        "account-not-empty",
    )?;
    bank.done(&["account", "close", "SHOP0001", "--reason", "the shop moved"])?;
    with("PAYER0001", "SHOP0001", "1.00", "tea", "account-closed")?;

    // A terminal whose server is away says what to do.
    bank.server.take().ok_or("no server")?.kill()?;
    let away = bank.run("till", &bank.pay_words(PRICE, &["--idempotency-key", "k-9"]))?;
    let told = away.json()?;
    assert_eq!((away.code, &told["error"]["check"]), (3, &json!("server-unreachable")), "{told}");
    let detail = told["error"]["detail"].as_str().unwrap_or_default().to_owned();
    assert!(detail.contains("--idempotency-key k-9"), "{detail}");
    Ok(())
}

/// A terminal that waits while its server is killed and comes back hears how it ended.
fn a_terminal_waits_through_a_restart() -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    bank.payer("KEY-1", "PHONE-1")?;
    let terminal = paying(&bank, PRICE)?;
    let id = waiting(&bank)?;
    bank.restart()?;
    bank.approve("PHONE-1", "KEY-1", &id)?.ok()?;
    let ended = terminal.finish()?;
    assert_eq!((ended.code, &ended.json()?["status"]), (0, &json!("executed")));
    assert_eq!(bank.balance("SHOP0001")?, PRICE);
    bank.books_hold()
}

/// The patent's letter (step 107): with `wrong-answers = 1` the first wrong answer terminates the
/// payment, and the terminal that waits is told so. The device shows the server's own name.
fn one_wrong_answer_ends_it_where_set_so() -> Result<(), Failed> {
    let host = Host::new()?;
    host.init(&Database::Sqlite)?;
    let path = host.path("data/config.toml");
    let usual = fs::read_to_string(&path)?;
    let set = usual.replace("wrong-answers = 3", "wrong-answers = 1");
    let set = set.replace("# server-name = ", "server-name = ");
    fs::write(&path, &set)?;
    let mut bank = Bank::on(host, false)?;
    bank.payer("KEY-1", "PHONE-1")?;
    let foreign = ["device", "key", "enroll", "--key", "FOREIGN", "--serial", "FOREIGN"];
    let bound = ["--label", "the shop's key", "--account", "SHOP0001", "--pin-file", "pin"];
    bank.done(&[&foreign[..], &bound].concat())?;
    let terminal = paying(&bank, PRICE)?;
    let id = waiting(&bank)?;
    let show = ["--json", "device", "phone", "show", &id, "--phone", "PHONE-1"];
    let shown = bank.host.run(&show)?.ok()?.json()?;
    let server = json!({ "label": "Server", "text": "Example Bank" });
    let display = shown["display"].as_array().ok_or("no display")?;
    assert!(display.contains(&server), "{shown}");
    let wrong = bank.approve("PHONE-1", "FOREIGN", &id)?;
    let told = wrong.json()?;
    assert_eq!((wrong.code, &told["error"]["check"]), (1, &json!("authorisation-refused")));
    let ended = terminal.finish()?;
    let payment = ended.json()?;
    assert_eq!((ended.code, &payment["status"]), (1, &json!("failed")), "{payment}");
    assert_eq!(payment["statusReason"], "too-many-wrong-answers");
    let late = bank.approve("PHONE-1", "KEY-1", &id)?;
    assert_eq!(late.json()?["error"]["check"], "payment-failed");
    assert_eq!(bank.balance("PAYER0001")?, OPENING);
    bank.books_hold()
}
