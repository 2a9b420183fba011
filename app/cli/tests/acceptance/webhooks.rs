//! Events on their way to a receiver, checked by an independent implementation (D6).

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use libtest_mimic::Failed;
use serde_json::Value;

use crate::bank::{Bank, PRICE};
use crate::host::{Database, Host, Ports, wait_for};

/// How long the sender may take over one request.
const PATIENCE: Duration = Duration::from_secs(20);

/// What arrived at the receiver.
#[derive(Debug, Clone)]
struct Arrived {
    head: String,
    body: String,
    answered: u16,
}

impl Arrived {
    fn header(&self, name: &str) -> &str {
        let line = |line: &'_ str| line.split_once(": ").is_some_and(|(found, _)| found == name);
        let found = self.head.lines().find(|found| line(found));
        found.and_then(|line| line.split_once(": ")).map_or("", |(_, value)| value)
    }

    fn event(&self) -> Result<Value, Failed> {
        Ok(serde_json::from_str(&self.body)?)
    }
}

/// A receiver that answers the first request with 503, and the others with 204.
struct Shop {
    port: u16,
    arriving: mpsc::Receiver<Arrived>,
}

impl Shop {
    fn open() -> Result<Self, Failed> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let (arrived, arriving) = mpsc::channel();
        std::thread::spawn(move || {
            let mut status = 503;
            for stream in listener.incoming().flatten() {
                let Ok(request) = answer(stream, status) else { continue };
                status = 204;
                if arrived.send(request).is_err() {
                    return;
                }
            }
        });
        Ok(Self { port, arriving })
    }

    /// What arrived, up to the first that `last` is true of.
    fn until(&self, last: impl Fn(&Arrived) -> bool) -> Result<Vec<Arrived>, Failed> {
        let mut all = Vec::new();
        loop {
            let one = self.arriving.recv_timeout(PATIENCE)?;
            all.push(one.clone());
            if last(&one) {
                return Ok(all);
            }
        }
    }
}

fn answer(mut stream: TcpStream, status: u16) -> Result<Arrived, Failed> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut bytes = Vec::new();
    let (head, body) = loop {
        let mut some = [0; 4096];
        let length = stream.read(&mut some)?;
        bytes.extend_from_slice(&some[..length]);
        let text = std::str::from_utf8(&bytes)?;
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let wanted = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if wanted.ok_or("no length")?.parse::<usize>()? == body.len() {
                break (head.to_owned(), body.to_owned());
            }
        }
        if length == 0 {
            return Err("half a request".into());
        }
    };
    write!(stream, "HTTP/1.1 {status} Told\r\ncontent-length: 0\r\n\r\n")?;
    Ok(Arrived { head, body, answered: status })
}

/// HMAC-SHA256 over what Standard Webhooks signs, by OpenSSL.
fn openssl_signature(host: &Host, secret: &str, arrived: &Arrived) -> Result<String, Failed> {
    let (id, time) = (arrived.header("webhook-id"), arrived.header("webhook-timestamp"));
    fs::write(host.path("signed"), format!("{id}.{time}.{}", arrived.body))?;
    let key = BASE64.decode(secret.strip_prefix("whsec_").ok_or("no prefix")?.as_bytes())?;
    let key = format!("hexkey:{}", HEXLOWER.encode(&key));
    let mut openssl = Command::new("openssl");
    openssl.args(["dgst", "-sha256", "-mac", "HMAC", "-macopt", &key, "-binary", "signed"]);
    let output = openssl.current_dir(host.path(".")).output()?;
    assert!(output.status.success(), "{output:?}");
    Ok(format!("v1,{}", BASE64.encode(&output.stdout)))
}

/// A bank whose servers may tell receivers on this machine.
pub(crate) fn bank(database: &Database) -> Result<Bank, Failed> {
    let host = Host::new()?;
    host.init(database)?;
    let path = host.path("data/config.toml");
    let config = fs::read_to_string(&path)?;
    let open = config
        .replace("allow-private = false", "allow-private = true")
        .replace("allow-http = false", "allow-http = true");
    assert_ne!(open, config);
    fs::write(path, open)?;
    Bank::on(host, false)
}

/// Two servers, a receiver that fails once, a payment: the receiver hears of it, signed; each event
/// is delivered once, and again when it is asked for.
pub(crate) fn a_shop_is_told_of_its_payment(database: &Database) -> Result<(), Failed> {
    let mut bank = bank(database)?;
    let ports = Ports::pick()?;
    let mut copy = Command::new("cp");
    assert!(
        copy.args(["-a", "data", "data-2"]).current_dir(bank.host.path(".")).status()?.success()
    );
    let second = bank.host.serve_on("data-2", "sam-2", &ports)?;
    let shop = Shop::open()?;
    let url = format!("http://127.0.0.1:{}/hooks", shop.port);
    let hook = bank.run("till", &["webhook", "add", &url])?.ok()?.json()?;
    let (id, secret) =
        (hook["id"].as_str().ok_or("no id")?, hook["secret"].as_str().ok_or("none")?);
    let listed = bank.run("till", &["webhook", "list"])?.ok()?;
    assert!(listed.stdout.contains(id) && !listed.stdout.contains("whsec_"), "{}", listed.stdout);
    bank.payer("KEY-1", "phone")?;
    let payment = bank.pending(PRICE)?;
    bank.approve("phone", "KEY-1", &payment)?.ok()?;

    let settled = || {
        let deliveries = bank.run("till", &["webhook", "deliveries", id])?.ok()?.json()?;
        let items = deliveries["items"].as_array().ok_or("no items")?.clone();
        let done = items.iter().all(|one| one["state"] == "delivered");
        let last = items.iter().any(|one| one["eventType"] == "payment.executed");
        Ok((done && last).then_some(items))
    };
    let deliveries = wait_for("all deliveries", settled)?;
    let expected = deliveries.len() + 1; // one was answered with 503 first
    let mut arrived = Vec::new();
    while arrived.len() < expected {
        arrived.push(shop.arriving.recv_timeout(PATIENCE)?);
    }
    assert!(shop.arriving.recv_timeout(Duration::from_secs(1)).is_err(), "each comes once");
    assert_eq!(arrived[0].answered, 503);
    for one in &arrived {
        let event = one.event()?;
        assert_eq!(one.header("webhook-id"), event["id"], "{event}");
        assert_eq!(one.header("webhook-signature"), openssl_signature(&bank.host, secret, one)?);
        for name in ["specversion", "id", "source", "type"] {
            assert!(event[name].as_str().is_some_and(|text| !text.is_empty()), "{name}: {event}");
        }
        assert_eq!(
            (&event["subject"], &event["specversion"]),
            (&payment.clone().into(), &"1.0".into())
        );
    }
    let told: Vec<&str> = arrived.iter().map(|one| one.header("webhook-id")).collect();
    assert_eq!(told.iter().filter(|id| **id == told[0]).count(), 2, "it was sent again, unchanged");
    let executed = |one: &Arrived| one.body.contains("\"countersign.payment.executed\"");
    assert_eq!(arrived.iter().filter(|one| executed(one) && one.answered == 204).count(), 1);

    let delivery = deliveries[0]["id"].as_str().ok_or("no id")?;
    bank.run("till", &["webhook", "resend", delivery])?.ok()?;
    let again = shop.until(|_| true)?;
    assert_eq!(again[0].header("webhook-id"), deliveries[0]["eventId"]);
    second.kill()?;
    bank.books_hold()
}

/// The command's own receiver verifies what it is sent, and refuses what others sign.
pub(crate) fn the_receiver_of_the_command_verifies() -> Result<(), Failed> {
    let bank = bank(&Database::Sqlite)?;
    let listen = format!("127.0.0.1:{}", Ports::pick()?.https);
    let url = format!("http://{listen}/");
    let add = ["webhook", "add", &url, "--type", "payment.cancelled"];
    let hook = bank.run("till", &add)?.ok()?.json()?;
    fs::write(bank.host.path("secret"), hook["secret"].as_str().ok_or("no secret")?)?;
    let words = ["--json", "webhook", "receive", "--listen", &listen, "--secret-file", "secret"];
    let receiving = bank.host.spawn(&[&words[..], &["--count", "1", "--wait", "60"]].concat())?;
    wait_for("the receiver", || Ok(TcpStream::connect(&listen).ok()))?;
    let mut forged = TcpStream::connect(&listen)?;
    write!(
        forged,
        "POST / HTTP/1.1\r\nhost: a\r\nwebhook-id: evt_1\r\nwebhook-timestamp: 1\r\n\
         webhook-signature: v1,AAAA\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}"
    )?;
    let mut refused = String::new();
    forged.read_to_string(&mut refused)?;
    assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
    let payment = bank.pending(PRICE)?;
    bank.run("till", &["payment", "cancel", &payment])?.ok()?;
    let ended = receiving.finish()?.ok()?.json()?;
    let item = &ended["items"][0];
    assert_eq!((&item["verified"], &item["event"]["subject"]), (&true.into(), &payment.into()));
    assert_eq!(item["event"]["type"], "countersign.payment.cancelled");
    Ok(())
}

/// Anyone may send to a receiver that knows no secret: what arrives steers no terminal.
pub(crate) fn what_a_receiver_prints_steers_no_terminal() -> Result<(), Failed> {
    let host = Host::new()?;
    let listen = format!("127.0.0.1:{}", Ports::pick()?.https);
    let receiving = host.spawn(&["webhook", "receive", "--listen", &listen, "--wait", "60"])?;
    wait_for("the receiver", || Ok(TcpStream::connect(&listen).ok()))?;
    let body = "{\"order\":\"\u{9b}2J\u{7f}\"}";
    let mut sending = TcpStream::connect(&listen)?;
    let length = body.len();
    write!(
        sending,
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    let printed = receiving.finish()?.ok()?.stdout;
    let steers = |c: char| c.is_control() && c != '\n';
    assert!(!printed.contains(steers) && printed.contains("2J"), "{printed:?}");
    Ok(())
}

/// Unless the configuration says otherwise, nothing on this machine is told anything.
pub(crate) fn receivers_inside_are_refused() -> Result<(), Failed> {
    let bank = Bank::new(&Database::Sqlite)?;
    for (url, check) in [
        ("http://127.0.0.1:9000/", "webhook-url-scheme"),
        ("https://127.0.0.1:9000/", "webhook-address-loopback"),
        ("https://169.254.169.254/", "webhook-address-link-local"),
        ("nonsense", "webhook-url"),
    ] {
        bank.refused("till", &["webhook", "add", url], check)?;
    }
    bank.refused("audrey", &["webhook", "add", "https://shop.example/"], "scope")?;
    bank.refused("till", &["webhook", "show", "whk_none"], "not-found")?;
    Ok(())
}
