//! A server with a ledger, an initiating terminal, and a payer with a phone and a security device.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::host::{Database, Ended, Host, Ports, Process};

/// What the payer has at first.
pub(crate) const OPENING: &str = "1000.00";
/// What `pay` asks for.
pub(crate) const PRICE: &str = "12.34";

/// How long an answer over a socket may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server, who asks for payments, and who confirms them.
pub(crate) struct Bank {
    pub(crate) host: Host,
    pub(crate) ports: Ports,
    pub(crate) server: Option<Process>,
    /// The API is spoken in the clear, for tests that look at bytes.
    plain: bool,
}

/// An answer as it came over the wire.
pub(crate) struct Said {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Bank {
    /// A server with accounts; `till` is an initiating terminal's token, `audrey` an auditor's.
    pub(crate) fn new(database: &Database) -> Result<Self, Failed> {
        let host = Host::new()?;
        host.init(database)?;
        Self::on(host, false)
    }

    /// The same with the API in the clear.
    pub(crate) fn plain(database: &Database) -> Result<Self, Failed> {
        let host = Host::new()?;
        host.init(database)?;
        Self::on(host, true)
    }

    pub(crate) fn on(host: Host, plain: bool) -> Result<Self, Failed> {
        let ports = Ports::pick()?;
        for (name, role) in [("till", "integrator"), ("audrey", "auditor")] {
            let words = ["--json", "operator", "add", name, "--role", role, "--data", "data"];
            let added = host.run(&words)?.ok()?.json()?;
            let token = added["token"]["secret"].as_str().ok_or("no token")?;
            fs::write(host.path(&format!("{name}.token")), token)?;
        }
        fs::write(host.path("pin"), "2580\n")?;
        let mut bank = Self { host, ports, server: None, plain };
        bank.serve()?;
        for (number, kind) in
            [("OUTSIDE01", "external"), ("PAYER0001", "customer"), ("SHOP0001", "customer")]
        {
            let open = ["account", "open", number, "--holder", "Tea Shop", "--currency", "CNY"];
            bank.done(&[&open[..], &["--kind", kind]].concat())?;
        }
        bank.post("opening", "OUTSIDE01", "PAYER0001", OPENING)?.ok()?;
        Ok(bank)
    }

    fn serve(&mut self) -> Result<(), Failed> {
        let (host, ports) = (&self.host, &self.ports);
        let server = if self.plain { host.serve_plain(ports) } else { host.serve(ports) };
        self.server = Some(server?);
        Ok(())
    }

    /// The API's URL.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.plain { "http" } else { "https" };
        format!("{scheme}://127.0.0.1:{}", self.ports.https)
    }

    /// A request over a socket of its own, with more head lines; the answer byte by byte.
    pub(crate) fn send(
        &self,
        who: &str,
        line: &str,
        more: &str,
        body: &[u8],
    ) -> Result<Said, Failed> {
        let mut stream = self.begin(who, line, more, body.len())?;
        // A server that has refused closes before it has read all.
        let _refused = stream.write_all(body);
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
        let split = answer.windows(4).position(|end| end == b"\r\n\r\n").ok_or("no answer")?;
        let head = String::from_utf8(answer[..split].to_vec())?;
        let status = head.get(9..12).ok_or("no status")?.parse()?;
        Ok(Said { status, head, body: answer[split + 4..].to_vec() })
    }

    /// The head of a request; the rest is the caller's.
    pub(crate) fn begin(
        &self,
        who: &str,
        line: &str,
        more: &str,
        length: usize,
    ) -> Result<TcpStream, Failed> {
        let token = fs::read_to_string(self.host.path(&format!("{who}.token")))?;
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports.https))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "{line} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\
             authorization: Bearer {}\r\ncontent-type: application/json\r\n{more}\
             content-length: {length}\r\n\r\n",
            token.trim()
        )?;
        Ok(stream)
    }

    pub(crate) fn run(&self, who: &str, words: &[&str]) -> Result<Ended, Failed> {
        let (token, api) = (format!("{who}.token"), self.url());
        let client = ["--json", "--server", &api, "--ca", "ca.pem", "--token-file", &token];
        self.host.run(&[words, &client].concat())
    }

    /// By the admin, and done.
    pub(crate) fn done(&self, words: &[&str]) -> Result<Value, Failed> {
        self.run("admin", words)?.ok()?.json()
    }

    /// Refused with exit code 1 by this check.
    pub(crate) fn refused(&self, who: &str, words: &[&str], check: &str) -> Result<Value, Failed> {
        let ended = self.run(who, words)?;
        let told = ended.json()?;
        assert_eq!((ended.code, &told["error"]["check"]), (1, &json!(check)), "{words:?}: {told}");
        Ok(told)
    }

    pub(crate) fn post(
        &self,
        reference: &str,
        from: &str,
        to: &str,
        amount: &str,
    ) -> Result<Ended, Failed> {
        let words = ["account", "post", "--from", from, "--to", to, "--amount", amount];
        let more = ["--currency", "CNY", "--reference", reference];
        self.run("admin", &[&words[..], &more].concat())
    }

    /// A security device `serial` in the directory of that name, and a phone that asks it.
    pub(crate) fn payer(&self, serial: &str, phone: &str) -> Result<(), Failed> {
        let enroll = ["device", "key", "enroll", "--device", serial, "--serial", serial];
        let bound = ["--label", "Li Lei's key", "--account", "PAYER0001", "--pin-file", "pin"];
        self.done(&[&enroll[..], &bound].concat())?;
        self.phone(phone)
    }

    /// A phone of the payer in the directory `phone`.
    pub(crate) fn phone(&self, phone: &str) -> Result<(), Failed> {
        let words = ["phone", "allow", "--label", "Li Lei's phone", "--account", "PAYER0001"];
        let allowed = self.done(&words)?;
        let code = allowed["enrolmentCode"].as_str().ok_or("no code")?;
        let (api, words) = (self.url(), ["--json", "device", "phone", "enroll"]);
        let more = ["--phone", phone, "--code", code, "--server", &api, "--ca", "ca.pem"];
        self.host.run(&[&words[..], &more].concat())?.ok()?;
        Ok(())
    }

    /// The words of `pay`.
    pub(crate) fn pay_words<'a>(&self, amount: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let words = ["pay", "--from", "PAYER0001", "--to", "SHOP0001", "--payee", "Tea Shop"];
        let order = ["--currency", "CNY", "--order", "Order 7: 2 teas", "--amount", amount];
        [&words[..], &order, more].concat()
    }

    /// A payment that waits for its payer; its id.
    pub(crate) fn pending(&self, amount: &str) -> Result<String, Failed> {
        let asked = self.run("till", &self.pay_words(amount, &["--no-wait"]))?.ok()?.json()?;
        assert_eq!(asked["status"], "pending", "{asked}");
        Ok(asked["id"].as_str().ok_or("no id")?.to_owned())
    }

    /// The payer confirms on device `key` through `phone`.
    pub(crate) fn approve(&self, phone: &str, key: &str, id: &str) -> Result<Ended, Failed> {
        let words = ["--json", "device", "phone", "approve", id, "--phone", phone];
        self.host.run(&[&words[..], &["--key", key, "--pin-file", "pin"]].concat())
    }

    pub(crate) fn payment(&self, id: &str) -> Result<Value, Failed> {
        self.done(&["payment", "show", id])
    }

    pub(crate) fn balance(&self, number: &str) -> Result<String, Failed> {
        let account = self.done(&["account", "show", number])?;
        Ok(account["balance"]["amount"].as_str().ok_or("no balance")?.to_owned())
    }

    /// `kill -9`, and the same server again.
    pub(crate) fn restart(&mut self) -> Result<(), Failed> {
        self.server.take().ok_or("no server")?.kill()?;
        self.serve()
    }

    /// The ledger is balanced, and the audit holds. The last of a test.
    pub(crate) fn books_hold(&mut self) -> Result<(), Failed> {
        assert_eq!(self.done(&["account", "ledger"])?["balanced"], true);
        self.server.take().ok_or("no server")?.kill()?;
        let words = ["--json", "audit", "verify", "--data", "data"];
        let verified = self.host.run(&words)?.ok()?.json()?;
        assert_eq!(verified["ok"], true, "{verified}");
        Ok(())
    }
}
