//! A server that tests talk to, over loopback: it certifies signing cards, makes payments, and
//! decides what terminals submit, with the same functions as a real one and nothing around them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use countersign_crypto::{CryptoRng, DecryptionKey, Provider, Secret, UnixTime};
use countersign_payment::joint::{
    Commitment, Form, JointPassword, Opener, SHARED_LEN, verify_password, verify_signature,
};
use countersign_payment::{AccountNumber, Amount, ConfirmationRequest, PaymentError};
use countersign_pki::{Role, certified_point, identity};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use pem::Pem;
use serde_json::{Value, json};
use testkit::pki::TestPki;

use crate::Api;

/// The account that every card here is bound to.
pub(crate) const PAYER: &str = "PAYER0001";
pub(crate) const SERVER_ID: &str = "bank.example";
/// When every payment here expires.
const EXPIRES: &str = "2027-01-15T08:05:00.000Z";

/// Status and body; `None` if the connection breaks off instead.
type Answer = Option<(u16, Value)>;

/// What is done to a body.
pub(crate) type Alter = fn(&mut Value);

/// A card as the server knows it.
pub(crate) struct Enrolled {
    pub(crate) certificate: Vec<u8>,
    pub(crate) shared: Secret,
}

struct Payment {
    request: Vec<u8>,
    status: &'static str,
    wrong: u32,
    answered: Option<Value>,
}

/// What the server knows, and what is done to its answers.
pub(crate) struct State {
    pub(crate) pki: TestPki,
    encryption: (Arc<dyn DecryptionKey>, Vec<u8>),
    pub(crate) server_id: String,
    pub(crate) cards: BTreeMap<String, Enrolled>,
    /// Id and number of each account, by their ids, as a server gives them.
    pub(crate) accounts: Vec<[&'static str; 2]>,
    payments: BTreeMap<String, Payment>,
    keys: BTreeMap<String, String>,
    pub(crate) forms: Vec<String>,
    /// So many answers get lost on their way.
    pub(crate) lose: u32,
    /// What the answer to this path is made of.
    pub(crate) alter: Option<(&'static str, Alter)>,
    /// All that was asked, method and path.
    pub(crate) asked: Vec<String>,
}

pub(crate) struct Bank {
    pub(crate) provider: Provider,
    state: Arc<Mutex<State>>,
    base: String,
    ca: String,
}

fn pem(der: &[u8]) -> String {
    pem::encode(&Pem::new("CERTIFICATE", der))
}

fn refused(status: u16, check: &str) -> Answer {
    Some((status, json!({ "check": check, "detail": check })))
}

impl Bank {
    pub(crate) fn open(provider: Provider) -> Self {
        let mut pki = TestPki::new(provider.clone(), 7);
        let ca = pem(pki.root());
        let encryption = pki.encryption(Role::Server, SERVER_ID);
        let state = Arc::new(Mutex::new(State {
            pki,
            encryption,
            server_id: SERVER_ID.to_owned(),
            cards: BTreeMap::new(),
            accounts: vec![["acc_1", PAYER]],
            payments: BTreeMap::new(),
            keys: BTreeMap::new(),
            forms: Form::ALL.iter().map(|form| form.name().to_owned()).collect(),
            lose: 0,
            alter: None,
            asked: Vec::new(),
        }));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let served = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                serve(&mut stream.unwrap(), &served);
            }
        });
        Self { provider, state, base, ca }
    }

    pub(crate) fn api(&self) -> Api {
        Api::new(&self.base, &self.ca, "token").unwrap()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Whether it would execute a payment on these.
    pub(crate) fn judge(
        &self,
        serial: &str,
        transaction: &[u8],
        (commitment, signature): (&Commitment, &[u8]),
        password: &JointPassword,
    ) -> Result<(), PaymentError> {
        self.state().judge(serial, transaction, (commitment, signature), password)
    }
}

/// One request and its answer.
fn serve(stream: &mut TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() == 0 {
            return;
        }
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let header = |name: &str| {
        let found = head.iter().find(|line| line.to_ascii_lowercase().starts_with(name));
        found.map(|line| line[name.len()..].trim_start_matches(':').trim().to_owned())
    };
    let length = header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let mut line = head[0].split(' ');
    let (method, path) = (line.next().unwrap(), line.next().unwrap());
    let key = header("idempotency-key").unwrap_or_default();
    let answer = state.lock().unwrap().answer(method, path, &key, &body);
    if let Some((status, body)) = answer {
        let body = body.to_string();
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
        .unwrap();
    }
}

impl State {
    fn answer(&mut self, method: &str, path: &str, key: &str, body: &Value) -> Answer {
        self.asked.push(format!("{method} {path}"));
        let mut answer = self.decide(method, path, key, body);
        if let (Some((altered, alter)), Some((_, body))) = (self.alter, &mut answer)
            && path.ends_with(altered)
        {
            alter(body);
        }
        if self.lose > 0 {
            self.lose -= 1;
            return None;
        }
        answer
    }

    fn decide(&mut self, method: &str, path: &str, key: &str, body: &Value) -> Answer {
        let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
        match (method, &parts[..]) {
            ("GET", ["v1", "devices", "terms"]) => Some((200, self.chain())),
            ("POST", ["v1", "devices", "joint"]) => Some((201, self.enrol(body))),
            ("POST", ["v1", "payments"]) => Some((201, self.create(key, body))),
            ("GET", ["v1", "payments", id]) => {
                let Some(payment) = self.payments.get(*id) else {
                    return refused(404, "not-found");
                };
                Some((200, told(id, payment.status)))
            }
            ("GET", ["v1", "payments", id, "joint"]) => self.announce(id),
            ("POST", ["v1", "payments", id, "joint"]) => self.submit(id, body),
            ("POST", ["v1", "payments", id, "cancel"]) => {
                let Some(payment) = self.payments.get_mut(*id) else {
                    return refused(404, "not-found");
                };
                payment.status = "cancelled";
                Some((200, json!({ "id": id, "status": "cancelled" })))
            }
            _ => refused(404, "not-found"),
        }
    }

    fn chain(&self) -> Value {
        json!({
            "suite": self.pki.provider.suite.name(),
            "root": pem(self.pki.root()),
            "serverIssuer": pem(self.pki.issuer(Role::Server)),
            "serverEncryptionCertificate": pem(&self.encryption.1),
        })
    }

    /// A new key to encrypt to, in the place of the one before.
    pub(crate) fn renew_encryption(&mut self) {
        let id = self.server_id.clone();
        self.encryption = self.pki.encryption(Role::Server, &id);
    }

    fn enrol(&mut self, body: &Value) -> Value {
        let csr = pem::parse(body["request"].as_str().unwrap()).unwrap().into_contents();
        let (mut certificate, _) = self.pki.certify(Role::SecurityDevice, &csr);
        let point = certified_point(&self.pki.provider, &certificate).unwrap();
        let serial = identity(&certificate).unwrap().id().to_owned();
        // The same key pair gets the same certificate, and another shared key.
        if let Some(before) = self.cards.remove(&serial)
            && certified_point(&self.pki.provider, &before.certificate).unwrap() == point
        {
            certificate = before.certificate;
        }
        let mut shared = [0; SHARED_LEN];
        let rng: &mut dyn CryptoRng = &mut self.pki.rng;
        rng.fill_bytes(&mut shared);
        let accounts = body["accounts"].as_array().unwrap();
        let named = |account: &&[&str; 2]| {
            accounts.iter().any(|one| account.iter().any(|name| one == name))
        };
        let bound = self.accounts.iter().filter(named);
        let accounts: Vec<_> =
            bound.map(|[id, number]| json!({ "id": id, "identification": number })).collect();
        let mut answer = self.chain();
        answer["device"] = json!({ "accounts": accounts, "serial": serial });
        answer["certificate"] = json!(pem(&certificate));
        answer["deviceIssuer"] = json!(pem(self.pki.issuer(Role::SecurityDevice)));
        answer["serverId"] = json!(self.server_id);
        answer["sharedKey"] = json!(HEXLOWER.encode(&shared));
        self.cards.insert(serial, Enrolled { certificate, shared: Secret::copied_from(&shared) });
        answer
    }

    fn create(&mut self, key: &str, body: &Value) -> Value {
        let next = format!("pay_{}", self.payments.len() + 1);
        let id = self.keys.entry(key.to_owned()).or_insert(next).clone();
        let text = |pointer: &str| body.pointer(pointer).unwrap().as_str().unwrap().to_owned();
        let account = |pointer| AccountNumber::parse(&text(pointer)).unwrap();
        let amount = text("/instructedAmount/amount");
        let request = ConfirmationRequest {
            server: "Bank of Example".to_owned(),
            payment: id.clone(),
            payer_account: account("/debtorAccount/identification"),
            payee_account: account("/creditorAccount/identification"),
            payee_name: text("/creditor/name"),
            order: text("/remittanceInformation"),
            amount: Amount::parse(&amount, &text("/instructedAmount/currency")).unwrap(),
            expires: UnixTime::from_secs(1_800_000_300),
            initiator: text("/initiatingParty/name"),
            alerts: Vec::new(),
        };
        let request = request.to_bytes().unwrap();
        let new = Payment { request, status: "pending", wrong: 0, answered: None };
        told(&id, self.payments.entry(id.clone()).or_insert(new).status)
    }

    fn announce(&self, id: &str) -> Answer {
        let Some(payment) = self.payments.get(id) else { return refused(404, "not-found") };
        if payment.status != "pending" {
            return refused(409, &format!("payment-{}", payment.status));
        }
        let transaction = BASE64URL_NOPAD.encode(&payment.request);
        let expires = "2027-01-15T08:05:00.000Z";
        let told = json!({ "transaction": transaction, "forms": self.forms, "expiresAt": expires });
        Some((200, told))
    }

    fn submit(&mut self, id: &str, body: &Value) -> Answer {
        let Some(payment) = self.payments.get(id) else { return refused(404, "not-found") };
        if payment.answered.as_ref() != Some(body) && payment.status != "pending" {
            return refused(409, &format!("payment-{}", payment.status));
        }
        let bytes =
            |name: &str| BASE64URL_NOPAD.decode(body[name].as_str().unwrap().as_bytes()).unwrap();
        let (serial, digits) = (&body["deviceSerial"], &body["jointPassword"]);
        let password = JointPassword::parse(digits.as_str().unwrap()).unwrap();
        let commitment = Commitment::parse(&bytes("commitment")).unwrap();
        let signed = (&commitment, &*bytes("signature"));
        let given = bytes("transaction");
        let right = given == payment.request
            && self.judge(serial.as_str().unwrap(), &given, signed, &password).is_ok();
        let payment = self.payments.get_mut(id)?;
        if !right {
            payment.wrong += 1;
            if payment.wrong == 3 {
                payment.status = "failed";
            }
            return refused(422, "authorisation-refused");
        }
        payment.status = "executed";
        payment.answered = Some(body.clone());
        let told = json!({
            "authorisationId": "aut_1", "scaStatus": "finalised", "paymentId": id,
            "status": "executed", "transactionStatus": "ACSC", "statusReason": null,
        });
        Some((201, told))
    }

    fn judge(
        &self,
        serial: &str,
        transaction: &[u8],
        (commitment, signature): (&Commitment, &[u8]),
        password: &JointPassword,
    ) -> Result<(), PaymentError> {
        let provider = &self.pki.provider;
        let card = self.cards.get(serial).ok_or(PaymentError::Signature)?;
        let point = certified_point(provider, &card.certificate).unwrap();
        let key = provider.signature.public_key(&point).unwrap();
        verify_signature(&*key, &*provider.hash, transaction, commitment, signature)?;
        let opener = match commitment.form() {
            Form::Digest => Opener::Shared(&card.shared),
            _ => Opener::Server(&*self.encryption.0),
        };
        verify_password(provider, opener, serial, transaction, commitment, password)
    }
}

/// A payment, as the API tells it.
fn told(id: &str, status: &str) -> Value {
    json!({ "id": id, "status": status, "expiresAt": EXPIRES })
}

/// A request to confirm, of this payment.
pub(crate) fn transaction(payment: &str) -> Vec<u8> {
    let request = ConfirmationRequest {
        server: "Bank of Example".to_owned(),
        payment: payment.to_owned(),
        payer_account: AccountNumber::parse(PAYER).unwrap(),
        payee_account: AccountNumber::parse("SHOP0001").unwrap(),
        payee_name: "Tea Shop".to_owned(),
        order: "Order 7: 2 teas".to_owned(),
        amount: Amount::parse("12.34", "CNY").unwrap(),
        expires: UnixTime::from_secs(1_800_000_300),
        initiator: "Till 3".to_owned(),
        alerts: Vec::new(),
    };
    request.to_bytes().unwrap()
}
