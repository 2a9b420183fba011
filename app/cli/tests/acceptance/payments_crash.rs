//! Payments of several clients while their servers are killed: what was acknowledged stays, what
//! was not is asked for again, and nothing happens twice.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use countersign_crypto::{Provider, SecureElement, aws_lc};
use countersign_payment::sign;
use countersign_pki::{Identity, Role, request};
use data_encoding::BASE64URL_NOPAD;
use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use testkit::parts::{Postgres, Required};
use testkit::rng::seeded;

use crate::host::{Database, Host, Ports, Process, wait_for};

/// Clients, each with a payer's account, a phone and a security device of its own.
const CLIENTS: usize = 4;
/// Payments of each.
const PAYMENTS: usize = 10;
/// What one payment is about, in cents; the payers' accounts hold what all of theirs come to.
const CENTS: usize = 250;
const KILLS: u64 = 5;
/// How often a request without an answer is sent again, and the pause before it.
const TRIES: u32 = 600;
const PAUSE: Duration = Duration::from_millis(50);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer: its status and the very bytes of its body.
type Said = (u16, Vec<u8>);

/// Where servers listen; a request goes to one after the other.
#[derive(Clone)]
struct Servers {
    ports: Vec<u16>,
    turn: Arc<AtomicUsize>,
    /// How often a request had to be sent again.
    resent: Arc<AtomicUsize>,
}

impl Servers {
    /// One try: none if the server is away, or dies before it has said everything.
    fn try_send(&self, head: &str, token: &str, key: Option<&str>, body: &Value) -> Option<Said> {
        let at = self.turn.fetch_add(1, Ordering::Relaxed) % self.ports.len();
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports[at])).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let key = key.map(|key| format!("idempotency-key: {key}\r\n")).unwrap_or_default();
        let length = body.len();
        write!(
            stream,
            "{head} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\
             authorization: Bearer {token}\r\ncontent-type: application/json\r\n{key}\
             content-length: {length}\r\n\r\n{body}"
        )
        .ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8(answer[..end].to_vec()).ok()?.to_ascii_lowercase();
        let body = answer[end + 4..].to_vec();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length: "))?;
        (length.parse() == Ok(body.len())).then_some((status, body))
    }

    /// Until there is an answer that is one: not that the server cannot now, or is still at it.
    fn send(
        &self,
        head: &str,
        token: &str,
        key: Option<&str>,
        body: &Value,
    ) -> Result<Said, Failed> {
        for _ in 0..TRIES {
            match self.try_send(head, token, key, body) {
                Some((429 | 500.., _)) | None => {}
                Some((409, said)) if parsed(&said)?["check"] == "idempotency-in-flight" => {}
                Some(said) => return Ok(said),
            }
            self.resent.fetch_add(1, Ordering::Relaxed);
            thread::sleep(PAUSE);
        }
        Err(format!("{head} was never answered").into())
    }

    /// The same, and it has to be done.
    fn done(
        &self,
        head: &str,
        token: &str,
        key: Option<&str>,
        body: &Value,
    ) -> Result<Value, Failed> {
        let (status, said) = self.send(head, token, key, body)?;
        if !(200..300).contains(&status) {
            return Err(format!("{head}: {status} {}", String::from_utf8_lossy(&said)).into());
        }
        parsed(&said)
    }
}

fn parsed(body: &[u8]) -> Result<Value, Failed> {
    serde_json::from_slice(body)
        .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(body)).into())
}

fn text(value: &Value, name: &str) -> Result<String, Failed> {
    Ok(value[name].as_str().ok_or_else(|| format!("no {name} in {value}"))?.to_owned())
}

/// Who pays: an account, a phone, a security device.
struct Payer {
    number: usize,
    account: String,
    phone: String,
    device: String,
    key: Arc<dyn SecureElement>,
}

/// A payment that was acknowledged: what it was made with, and what was said to it.
struct Paid {
    id: String,
    key: String,
    asked: Value,
    made: Said,
    answer: Value,
    answered: Said,
}

pub(crate) fn trials(postgres: &Required<Postgres>) -> Vec<Trial> {
    let fresh =
        |postgres: &Postgres| Ok::<_, Failed>(Database::Postgres(postgres.fresh_database()?));
    vec![
        Trial::test("acknowledged_payments_survive_kills::sqlite", || {
            acknowledged_payments_survive_kills(&Database::Sqlite)
        }),
        postgres
            .trial("acknowledged_payments_survive_kills::postgres", move |postgres: &Postgres| {
                acknowledged_payments_survive_kills(&fresh(postgres)?)
            }),
        postgres.trial(
            "payments_survive_kills_of_two_servers::postgres",
            move |postgres: &Postgres| payments_survive_kills_of_two_servers(&fresh(postgres)?),
        ),
    ]
}

/// `kill -9` of the one server, again and again.
fn acknowledged_payments_survive_kills(database: &Database) -> Result<(), Failed> {
    let host = Host::new()?;
    host.init(database)?;
    payments_survive(&host, &["data"])
}

/// The same with two servers that share a database, of which now the one and now the other is
/// killed.
fn payments_survive_kills_of_two_servers(database: &Database) -> Result<(), Failed> {
    let host = Host::new()?;
    host.init(database)?;
    let mut copy = Command::new("cp");
    let copied = copy.args(["-a", "data", "data-2"]).current_dir(host.path(".")).status()?;
    assert!(copied.success());
    payments_survive(&host, &["data", "data-2"])
}

fn payments_survive(host: &Host, data: &[&'static str]) -> Result<(), Failed> {
    let ports = data.iter().map(|_| Ports::pick()).collect::<Result<Vec<_>, _>>()?;
    let serve = |at: usize| -> Result<Process, Failed> {
        let [https, gateway] = [ports[at].https, ports[at].gateway].map(|port| port.to_string());
        let words = ["--json", "serve", "--data", data[at], "--plain-http"];
        let ports = ["--https-port", &https, "--gateway-port", &gateway];
        let mut server = host.spawn(&[&words[..], &ports].concat())?;
        server.first_json()?;
        Ok(server)
    };
    let mut running = (0..data.len()).map(serve).collect::<Result<Vec<_>, _>>()?;
    let servers = Servers {
        ports: ports.iter().map(|ports| ports.https).collect(),
        turn: Arc::default(),
        resent: Arc::default(),
    };
    let admin = std::fs::read_to_string(host.path("admin.token"))?.trim().to_owned();
    let payers = furnish(&servers, &admin)?;

    let finished = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    for payer in payers {
        let (servers, admin, finished) = (servers.clone(), admin.clone(), finished.clone());
        clients.push(thread::spawn(move || pay_all(&servers, &admin, &payer, &finished)));
    }
    for kill in 0..KILLS {
        // Some payments get through, then it strikes at a moment that differs each time.
        let wanted = (kill as usize + 1) * CLIENTS * PAYMENTS / (KILLS as usize + 2);
        wait_for("a payment", || {
            let dead = clients.iter().all(thread::JoinHandle::is_finished);
            Ok((dead || finished.load(Ordering::SeqCst) >= wanted).then_some(()))
        })?;
        let mut moment = [0];
        rand_core::Rng::fill_bytes(&mut seeded(kill), &mut moment);
        thread::sleep(Duration::from_millis(moment[0].into()) / 4);
        let at = kill as usize % running.len();
        running.remove(at).kill()?;
        running.insert(at, serve(at)?);
    }
    let mut paid = Vec::new();
    for client in clients {
        paid.extend(client.join().map_err(|_| "a client panicked")??);
    }
    assert_eq!(paid.len(), CLIENTS * PAYMENTS);
    let resent = servers.resent.load(Ordering::Relaxed);
    assert!(resent > 0, "servers were away, so something was sent again");
    check_replays(&servers, &admin, &paid)?;
    check_ledger(&servers, &admin, &paid)?;
    for server in running {
        server.kill()?;
    }
    let verified = host.run(&["--json", "audit", "verify", "--data", "data"])?.ok()?.json()?;
    assert_eq!(verified["ok"], true, "{verified}");
    Ok(())
}

/// Opens accounts, pays money in, enrols devices and phones.
fn furnish(servers: &Servers, admin: &str) -> Result<Vec<Payer>, Failed> {
    let open = |number: &str, kind: &str| {
        let body = json!({
            "identification": number, "holder": number, "currency": "CNY", "kind": kind,
        });
        servers.done("POST /v1/accounts", admin, Some(number), &body)
    };
    open("OUTSIDE0001", "external")?;
    open("SHOP0001", "customer")?;
    let provider = aws_lc::provider();
    let mut payers = Vec::new();
    for number in 0..CLIENTS {
        let account = format!("PAYER000{number}");
        open(&account, "customer")?;
        let cents = CENTS * PAYMENTS;
        let posting = json!({
            "reference": format!("FUND-{number}"),
            "debtorAccount": { "identification": "OUTSIDE0001" },
            "creditorAccount": { "identification": account },
            "amount": money(cents),
        });
        let key = format!("fund-{number}");
        servers.done("POST /v1/postings", admin, Some(&key), &posting)?;
        let device = format!("KEY-{number}");
        let key = enrol_device(servers, admin, &provider, &device, &account)?;
        let phone = enrol_phone(servers, admin, &account)?;
        payers.push(Payer { number, account, phone, device, key });
    }
    Ok(payers)
}

fn money(cents: usize) -> Value {
    json!({ "amount": format!("{}.{:02}", cents / 100, cents % 100), "currency": "CNY" })
}

fn enrol_device(
    servers: &Servers,
    admin: &str,
    provider: &Provider,
    serial: &str,
    account: &str,
) -> Result<Arc<dyn SecureElement>, Failed> {
    let mut rng = seeded(7);
    let key = provider.signature.generate(&mut rng)?.key;
    let identity = Identity::new(Role::SecurityDevice, serial)?;
    let csr = request(provider, &identity, &*key, &mut rng)?;
    let pem = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", csr));
    let body = json!({ "request": pem, "label": serial, "accounts": [account] });
    servers.done("POST /v1/devices", admin, None, &body)?;
    Ok(key)
}

fn enrol_phone(servers: &Servers, admin: &str, account: &str) -> Result<String, Failed> {
    let body = json!({ "label": "phone", "accounts": [account] });
    let allowed = servers.done("POST /v1/phones", admin, None, &body)?;
    let code = json!({ "code": text(&allowed, "enrolmentCode")? });
    text(&servers.done("POST /v1/phone/enrolments", "", None, &code)?, "token")
}

/// One client's payments, each until it is acknowledged that it was executed.
fn pay_all(
    servers: &Servers,
    admin: &str,
    payer: &Payer,
    finished: &AtomicUsize,
) -> Result<Vec<Paid>, Failed> {
    let mut all = Vec::new();
    for number in 0..PAYMENTS {
        let key = format!("pay-{}-{number}", payer.number);
        let asked = json!({
            "endToEndIdentification": key,
            "instructedAmount": money(CENTS),
            "debtorAccount": { "identification": payer.account },
            "creditorAccount": { "identification": "SHOP0001" },
            "creditor": { "name": "Tea Shop" },
            "remittanceInformation": format!("Order {number}"),
            "initiatingParty": { "name": "Web shop" },
        });
        let made = twice(|| servers.send("POST /v1/payments", admin, Some(&key), &asked))?;
        assert_eq!(made.0, 201, "{}", String::from_utf8_lossy(&made.1));
        let id = text(&parsed(&made.1)?, "id")?;
        let shown = format!("GET /v1/phone/payments/{id}");
        let shown = servers.done(&shown, &payer.phone, None, &Value::Null)?;
        let request = BASE64URL_NOPAD.decode(text(&shown, "request")?.as_bytes())?;
        let signature = sign(&*payer.key, &mut seeded(number as u64), &request)?;
        let answer = json!({
            "method": "pki",
            "deviceSerial": payer.device,
            "signature": BASE64URL_NOPAD.encode(&signature),
        });
        let head = format!("POST /v1/payments/{id}/authorisations");
        let answered = twice(|| servers.send(&head, &payer.phone, None, &answer))?;
        let said = parsed(&answered.1)?;
        assert_eq!((answered.0, &said["status"]), (201, &json!("executed")), "{said}");
        finished.fetch_add(1, Ordering::SeqCst);
        // What is needed to say all of it again.
        let answer = json!({ "token": payer.phone, "body": answer });
        all.push(Paid { id, key, asked, made, answer, answered });
    }
    Ok(all)
}

/// The same twice at the same time, as an impatient client sends it: answered alike.
fn twice(send: impl Fn() -> Result<Said, Failed> + Sync) -> Result<Said, Failed> {
    let (one, other) = thread::scope(|scope| {
        let other = scope.spawn(&send);
        (send(), other.join())
    });
    let (one, other) = (one?, other.map_err(|_| "a client panicked")??);
    assert_eq!(one, other, "one and the same answer");
    Ok(one)
}

/// The same request and the same answer again are answered byte by byte as they were.
fn check_replays(servers: &Servers, admin: &str, paid: &[Paid]) -> Result<(), Failed> {
    for one in paid {
        let again = servers.send("POST /v1/payments", admin, Some(&one.key), &one.asked)?;
        assert_eq!(again, one.made, "{}", one.id);
        let head = format!("POST /v1/payments/{}/authorisations", one.id);
        let token = text(&one.answer, "token")?;
        let again = servers.send(&head, &token, None, &one.answer["body"])?;
        assert_eq!(again, one.answered, "{}", one.id);
    }
    let first = paid.first().ok_or("nothing was paid")?;
    let mut other = first.asked.clone();
    other["remittanceInformation"] = json!("another order");
    let refused = servers.send("POST /v1/payments", admin, Some(&first.key), &other)?;
    assert_eq!(parsed(&refused.1)?["check"], "idempotency-mismatch", "{}", refused.0);
    Ok(())
}

/// Every payment was posted once; every payer has paid exactly what was agreed; all sums agree.
fn check_ledger(servers: &Servers, admin: &str, paid: &[Paid]) -> Result<(), Failed> {
    let ledger = servers.done("GET /v1/ledger", admin, None, &Value::Null)?;
    assert_eq!(ledger["balanced"], true, "{ledger}");
    let mut balances = BTreeMap::new();
    let page = servers.done("GET /v1/accounts", admin, None, &Value::Null)?;
    let mut shop = String::new();
    for account in page["items"].as_array().ok_or("no accounts")? {
        let number = text(account, "identification")?;
        if number == "SHOP0001" {
            shop = text(account, "id")?;
        }
        balances.insert(number, text(&account["balance"], "amount")?);
    }
    for number in 0..CLIENTS {
        assert_eq!(balances[&format!("PAYER000{number}")], "0.00", "all of it, and no more");
    }
    let all = money(CENTS * PAYMENTS * CLIENTS)["amount"].clone();
    assert_eq!(balances["SHOP0001"], all);
    let entries = format!("GET /v1/accounts/{shop}/entries?limit=200");
    let entries = servers.done(&entries, admin, None, &Value::Null)?;
    let mut posted = BTreeMap::new();
    for entry in entries["items"].as_array().ok_or("no entries")? {
        *posted.entry(text(entry, "paymentId")?).or_insert(0) += 1;
    }
    assert_eq!(posted.len(), paid.len());
    for one in paid {
        assert_eq!(posted.get(&one.id), Some(&1), "{} is posted once", one.id);
        let payment = format!("GET /v1/payments/{}", one.id);
        let payment = servers.done(&payment, admin, None, &Value::Null)?;
        assert_eq!(payment["status"], "executed", "{payment}");
    }
    Ok(())
}
