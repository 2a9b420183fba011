//! What an initiating terminal shows its payer, and a payer's device that has no network (D2, D6).

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::Alone;
use crate::bank::{Bank, PRICE};
use crate::host::Database;

pub(crate) const TRIALS: [(&str, Alone); 3] = [
    ("a_terminal_shows_number_page_and_code", a_terminal_shows_number_page_and_code),
    ("digits_typed_into_the_page_settle_a_payment", digits_typed_into_the_page_settle_a_payment),
    ("a_foreign_page_gets_nothing_over_the_wire", a_foreign_page_gets_nothing_over_the_wire),
];

/// How long an answer over a socket may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Dots of the picture along a module.
const DOTS: usize = 4;

/// The QR code in a terminal's text, as a grey picture: what stands in half blocks is light.
fn picture(text: &str) -> Vec<u8> {
    let halves = |c| match c {
        '█' => Some((true, true)),
        '▀' => Some((true, false)),
        '▄' => Some((false, true)),
        ' ' => Some((false, false)),
        _ => None,
    };
    let drawn = |line: &&str| line.contains(['█', '▀', '▄']);
    let mut rows: Vec<Vec<bool>> = Vec::new();
    for line in text.lines().filter(drawn) {
        let (upper, lower): (Vec<_>, Vec<_>) = line.chars().filter_map(halves).unzip();
        rows.extend([upper, lower]);
    }
    let width = rows.iter().map(Vec::len).max().unwrap_or_default();
    let mut picture = format!("P5 {} {} 255\n", width * DOTS, rows.len() * DOTS).into_bytes();
    for row in rows {
        let mut line = Vec::new();
        for x in 0..width {
            let light = row.get(x).copied().unwrap_or_default();
            line.extend([if light { 255 } else { 0 }; DOTS]);
        }
        picture.extend(line.repeat(DOTS));
    }
    picture
}

/// What another maker's reader finds in the QR code of this text.
fn scanned(bank: &Bank, text: &str) -> Result<String, Failed> {
    let path = bank.host.path("code.pgm");
    fs::write(&path, picture(text))?;
    let found = Command::new("zbarimg").args(["--quiet", "--raw"]).arg(&path).output()?;
    let found = String::from_utf8(found.stdout)?.trim().to_owned();
    if found.is_empty() { Err(format!("no code in\n{text}").into()) } else { Ok(found) }
}

/// A request over a socket of its own; status and body.
fn ask(bank: &Bank, line: &str, head: &[String], body: &str) -> Result<(u16, String), Failed> {
    let mut stream = TcpStream::connect(("127.0.0.1", bank.ports.https))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let port = bank.ports.https;
    let head: String = head.iter().map(|line| format!("{line}\r\n")).collect();
    write!(
        stream,
        "{line} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\
         content-type: application/json\r\n{head}content-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    let status = head.get(9..12).ok_or("no status")?.parse()?;
    Ok((status, body.to_owned()))
}

fn text<'a>(value: &'a Value, member: &str) -> Result<&'a str, Failed> {
    value[member].as_str().ok_or_else(|| format!("no {member} in {value}").into())
}

/// `pay` and `payment checkout` tell the number and the page; the codes are read by another
/// maker's program.
fn a_terminal_shows_number_page_and_code() -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    bank.payer("KEY-1", "PHONE-1")?;
    let asked = bank.run("till", &bank.pay_words(PRICE, &["--no-wait"]))?.ok()?.json()?;
    let id = text(&asked, "id")?;
    let told = bank.run("till", &["payment", "checkout", id])?.ok()?.json()?;
    let (url, number) = (text(&told, "url")?, text(&told, "matchCode")?);
    assert_eq!(
        (&asked["checkout"]["url"], &asked["checkout"]["matchCode"]),
        (&told["url"], &told["matchCode"])
    );
    let page = format!("{}/checkout/{id}#", bank.url());
    assert!(url.starts_with(&page) && url.len() == page.len() + 22, "{url}");
    assert!(number.len() == 2 && number.parse::<u8>()? >= 10, "{number}");

    let api = bank.url();
    let words = ["payment", "checkout", id, "--server", &api, "--ca", "ca.pem"];
    let words = [&words[..], &["--token-file", "till.token", "--qr"]].concat();
    let shown = bank.host.run(&[&words[..], &["page"]].concat())?.ok()?.stdout;
    assert!(shown.contains(url) && shown.contains(number), "{shown}");
    assert_eq!(scanned(&bank, &shown)?, url);
    let shown = bank.host.run(&[&words[..], &["device"]].concat())?.ok()?.stdout;
    let code = scanned(&bank, &shown)?;
    assert!(code.starts_with("CS1:") && shown.contains(&code), "{code}\n{shown}");
    assert_eq!(bank.host.run(&[&words[..], &["moon"]].concat())?.code, 2);

    // It is for the terminal that asked.
    bank.refused("admin", &["payment", "checkout", id], "not-found")?;
    bank.refused("audrey", &["payment", "checkout", id], "scope")?;
    bank.refused("till", &["payment", "checkout", "pay_none"], "not-found")?;
    // The number is what a phone may send along, and then it counts.
    let match_words = ["--match", number];
    let approve = ["--json", "device", "phone", "approve", id, "--phone", "PHONE-1"];
    let approve = [&approve[..], &["--key", "KEY-1", "--pin-file", "pin"], &match_words].concat();
    let approved = bank.host.run(&approve)?.ok()?.json()?;
    assert_eq!(approved["status"], "executed", "{approved}");
    // One that waits says them before it waits.
    let url = bank.url();
    let client = ["--json", "--server", &url, "--ca", "ca.pem", "--token-file", "till.token"];
    let expiring = bank.pay_words(PRICE, &["--expires-in", "30"]);
    let words = [&expiring[..], &client].concat();
    let (told, ended) = std::thread::scope(|threads| {
        let terminal = threads.spawn(|| bank.host.run(&words));
        let id = waiting(&bank)?;
        let told = bank.run("till", &["payment", "checkout", &id])?.ok()?.json()?;
        bank.done(&["payment", "cancel", &id])?;
        let ended = terminal.join().map_err(|_| "the terminal panicked")??;
        Ok::<_, Failed>((told, ended))
    })?;
    assert_eq!(ended.code, 1, "{}", ended.stdout);
    for word in [text(&told, "url")?, text(&told, "matchCode")?] {
        assert!(ended.stderr.contains(word), "{word}: {}", ended.stderr);
    }
    assert!(!ended.stdout.contains(text(&told, "url")?), "{}", ended.stdout);
    bank.books_hold()
}

/// The id of the one payment that waits.
fn waiting(bank: &Bank) -> Result<String, Failed> {
    crate::host::wait_for("a payment", || {
        let list = bank.done(&["payment", "list", "--status", "pending"])?;
        Ok(list["items"][0]["id"].as_str().map(str::to_owned))
    })
}

/// A device without a network scans the code, checks that it is the server's, and shows digits; who
/// has the page's URL types them in. No phone is there.
fn digits_typed_into_the_page_settle_a_payment() -> Result<(), Failed> {
    let mut bank = Bank::plain(&Database::Sqlite)?;
    let enroll = ["device", "key", "enroll", "--key", "OCRA-1", "--serial", "OCRA-1"];
    let more = ["--label", "token", "--account", "PAYER0001", "--pin-file", "pin"];
    bank.run("admin", &[&enroll[..], &more, &["--method", "ocra"]].concat())?.ok()?;
    let id = bank.pending(PRICE)?;
    let told = bank.run("till", &["payment", "checkout", &id])?.ok()?.json()?;
    let (url, code) = (text(&told, "url")?, text(&told, "offline")?);
    let (_, key) = url.split_once('#').ok_or("no key")?;
    let offline = ["--json", "device", "key", "offline", "--key", "OCRA-1", "--qr", code];
    let made = bank.host.run(&[&offline[..], &["--pin-file", "pin"]].concat())?.ok()?.json()?;
    let path = format!("/v1/checkout/{id}");
    let with = |key: &str| vec![format!("authorization: Checkout {key}")];
    let body = json!({ "deviceSerial": "OCRA-1", "digits": made["digits"] }).to_string();
    let answers = format!("POST {path}/answers");

    // Another payment's key opens nothing of this one.
    let other = bank.pending("1.00")?;
    let other = bank.run("till", &["payment", "checkout", &other])?.ok()?.json()?;
    let (_, foreign) = text(&other, "url")?.split_once('#').ok_or("no key")?;
    let (status, problem) = ask(&bank, &answers, &with(foreign), &body)?;
    assert!(status == 401 && problem.contains("\"token\""), "{status} {problem}");
    let (status, answered) = ask(&bank, &answers, &with(key), &body)?;
    assert!(status == 201 && answered.contains("\"executed\""), "{status} {answered}");
    let (status, page) = ask(&bank, &format!("GET {path}"), &with(key), "")?;
    let page: Value = serde_json::from_str(&page)?;
    assert_eq!((status, &page["status"]), (200, &json!("executed")), "{page}");
    // The stream of a payment that has ended says so and ends.
    let (status, events) = ask(&bank, &format!("GET {path}/events"), &with(key), "")?;
    assert!(status == 200 && events.contains("\"executed\""), "{status} {events}");
    assert_eq!(bank.balance("SHOP0001")?, PRICE);
    bank.books_hold()
}

/// Over a real socket: the server's own page is let in, another site's is not.
fn a_foreign_page_gets_nothing_over_the_wire() -> Result<(), Failed> {
    let bank = Bank::plain(&Database::Sqlite)?;
    let health = "GET /v1/health";
    let own = format!("origin: {}", bank.url());
    assert_eq!(ask(&bank, health, &[], "")?.0, 200);
    assert_eq!(ask(&bank, health, &[own], "")?.0, 200);
    for foreign in [
        "origin: https://evil.example".to_owned(),
        format!("origin: {}", bank.url().replace("http:", "https:")),
        format!("origin: http://localhost:{}", bank.ports.https),
        "origin: null".to_owned(),
        "sec-fetch-site: cross-site".to_owned(),
    ] {
        let (status, problem) = ask(&bank, health, std::slice::from_ref(&foreign), "")?;
        assert!(status == 403 && problem.contains("\"origin\""), "{foreign}: {status} {problem}");
    }
    Ok(())
}
