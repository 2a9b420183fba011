//! A shop with a terminal of two readers, a bank behind it, and a card in its holder's hand.

use std::fs;
use std::io::Write;
use std::process::{ChildStdin, Command};

use libtest_mimic::Failed;
use serde_json::{Value, json};
use testkit::parts::Pcscd;

use crate::bank::Bank;
use crate::host::{Database, Ended, Host, Process, command, wait_for};
use crate::pcsc::behind_readers::happens;

/// The right PIN, as it is typed.
pub(super) const PIN: &str = "pin 2580";
/// Where cards show pictures.
pub(super) const DISPLAY: &str = "display";

/// The shop and its bank.
pub(super) struct Shop {
    pub(super) pcscd: Pcscd,
    pub(super) bank: Bank,
}

impl Shop {
    pub(super) fn new(pcscd: Pcscd, suite: &str, database: &Database) -> Result<Self, Failed> {
        let host = Host::new()?.with_env(pcscd.environment());
        host.init_with(&["--suite", suite], database)?;
        Ok(Self { bank: Bank::on(host, true)?, pcscd })
    }

    /// Makes a signing card for an account; its PUK is in `SERIAL.puk`.
    pub(super) fn card(&self, serial: &str, account: &str) -> Result<Value, Failed> {
        let words = ["device", "card", "enroll", "--card", serial, "--serial", serial];
        let puk = format!("{serial}.puk");
        let more = ["--label", "Li Lei's card", "--account", account];
        let files = ["--pin-file", "pin", "--puk-file", &puk];
        self.bank.done(&[&words[..], &more, &files].concat())
    }

    /// The card in the reader with contacts; the other reader is there too.
    pub(super) fn insert(&self, serial: &str) -> Result<Holder, Failed> {
        self.insert_at(serial, &self.pcscd.slot(0))
    }

    /// The same where something stands between the card and its slot.
    pub(super) fn insert_at(&self, serial: &str, at: &str) -> Result<Holder, Failed> {
        let contactless = self.pcscd.slot(1);
        let words = ["--json", "device", "card", "serve", "--card", serial];
        let readers = ["--virtual-reader", at, "--contactless-reader", &contactless];
        // Hung up is hung up, also where the tests themselves run under nohup.
        let plain = command();
        let mut card = Command::new("env");
        card.arg("--default-signal=HUP").arg(plain.get_program());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => card.env(name, value),
                None => card.env_remove(name),
            };
        }
        card.args(words).args(readers).args(["--display-dir", DISPLAY]);
        card.current_dir(self.bank.host.path(".")).envs(self.bank.host.environment());
        let (process, keys) = Process::start_with_stdin(card)?;
        let mut holder = Holder { process, keys };
        assert_eq!(holder.event("ready")?["serial"], serial);
        holder.event("inserted")?;
        Ok(holder)
    }

    /// The words of `device terminal`.
    pub(super) fn words<'a>(amount: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let words = ["--json", "device", "terminal", "--to", "SHOP0001", "--payee", "Tea Shop"];
        let order = ["--currency", "CNY", "--order", "Order 7: 2 teas", "--amount", amount];
        [&words[..], &order, more].concat()
    }

    /// The terminal asks for a payment; the card is in its reader.
    pub(super) fn terminal(&self, amount: &str, more: &[&str]) -> Result<Terminal, Failed> {
        let reader = self.pcscd.reader(0);
        let api = self.bank.url();
        let client = ["--server", &api, "--ca", "ca.pem", "--token-file", "till.token"];
        let mut terminal = command();
        terminal.args(Self::words(amount, more)).args(["--reader", &reader]).args(client);
        let host = &self.bank.host;
        terminal.current_dir(host.path(".")).envs(host.environment());
        terminal.stderr(fs::File::create(host.path("terminal.log"))?);
        let (process, keys) = Process::start_with_stdin(terminal)?;
        Ok(Terminal { process, keys })
    }

    /// Waits until the terminal has told this to whoever stands there.
    pub(super) fn is_told(&self, words: &str) -> Result<(), Failed> {
        let log = self.bank.host.path("terminal.log");
        wait_for(words, || Ok(fs::read_to_string(&log)?.contains(words).then_some(())))
    }

    /// A failure of the card, and what the terminal said meanwhile.
    pub(super) fn beside(&self, failed: &Failed, terminal: Terminal) -> Failed {
        let log = fs::read_to_string(self.bank.host.path("terminal.log")).unwrap_or_default();
        let told = terminal.ends().map(|ended| ended.stdout).unwrap_or_default();
        let failed = failed.message().unwrap_or_default();
        format!("{failed}; the terminal said: {log}{told}").into()
    }

    /// A payment, typed in at the terminal, that executes.
    pub(super) fn pays(&self, holder: &mut Holder, amount: &str) -> Result<Value, Failed> {
        let mut terminal = self.terminal(amount, &["--typed"])?;
        let shown = match holder.consents(amount) {
            Ok(shown) => shown,
            Err(failed) => return Err(self.beside(&failed, terminal)),
        };
        terminal.types(&shown)?;
        let paid = terminal.executed()?;
        holder.press("in")?;
        holder.event("inserted")?;
        Ok(paid)
    }
}

/// Who holds the card.
pub(super) struct Holder {
    process: Process,
    keys: ChildStdin,
}

impl Holder {
    pub(super) fn press(&mut self, key: &str) -> Result<(), Failed> {
        Ok(writeln!(self.keys, "{key}")?)
    }

    pub(super) fn event(&mut self, event: &str) -> Result<Value, Failed> {
        happens(&mut self.process, event)
    }

    /// The display, once it shows this.
    pub(super) fn sees(&mut self, view: &str) -> Result<Value, Failed> {
        loop {
            let shown = self.event("display")?;
            if shown["view"] == view {
                return Ok(shown);
            }
        }
    }

    /// Refused at the card by this check.
    pub(super) fn is_refused(&mut self, check: &str) -> Result<(), Failed> {
        let refused = self.event("refused")?;
        assert_eq!(refused["check"], check, "{refused}");
        Ok(())
    }

    /// Takes the card out when it has signed, reads it, and consents: the digits that it shows.
    pub(super) fn consents(&mut self, amount: &str) -> Result<String, Failed> {
        self.sees("take-out")?;
        self.press("out")?;
        let asked = self.sees("consent")?;
        let wanted = json!({ "label": "Amount", "text": format!("{amount} CNY") });
        assert!(
            asked["display"].as_array().is_some_and(|lines| lines.contains(&wanted)),
            "{asked}"
        );
        assert_eq!(asked["shown"], Value::Null, "not before the PIN: {asked}");
        self.press(PIN)?;
        self.press("ok")?;
        let shown = self.sees("password")?;
        Ok(shown["shown"].as_str().ok_or("no joint password")?.trim().to_owned())
    }

    /// Presses keys that are no text.
    pub(super) fn press_bytes(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        Ok(self.keys.write_all(bytes)?)
    }

    /// The terminal that it runs in is closed; it ends as it should.
    pub(super) fn hangs_up(self) -> Result<(), Failed> {
        signal("HUP", &self.process)?;
        assert_eq!(self.process.finish()?.code, 0);
        Ok(())
    }

    /// `kill -9`.
    pub(super) fn kill(self) -> Result<(), Failed> {
        self.process.kill()
    }

    /// Ends the program.
    pub(super) fn quit(mut self) -> Result<(), Failed> {
        self.press("quit")?;
        assert_eq!(self.process.finish()?.code, 0);
        Ok(())
    }
}

/// The terminal, while it asks for a payment.
pub(super) struct Terminal {
    process: Process,
    keys: ChildStdin,
}

impl Terminal {
    pub(super) fn types(&mut self, line: &str) -> Result<(), Failed> {
        Ok(writeln!(self.keys, "{line}")?)
    }

    /// Types bytes that are no text.
    pub(super) fn types_bytes(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        Ok(self.keys.write_all(bytes)?)
    }

    /// Stopped by a signal while it waits; how it ends.
    pub(super) fn stopped_by(self, name: &str) -> Result<Ended, Failed> {
        signal(name, &self.process)?;
        let ended = self.process.finish();
        // Its prompt stood open until then.
        drop(self.keys);
        ended
    }

    /// Nobody types any more; how it ends.
    pub(super) fn ends(self) -> Result<Ended, Failed> {
        drop(self.keys);
        self.process.finish()
    }

    pub(super) fn executed(self) -> Result<Value, Failed> {
        let paid = self.ends()?.ok()?.json()?;
        assert_eq!(paid["status"], "executed", "{paid}");
        Ok(paid)
    }

    /// Refused with exit code 1 by this check; the payment as it stands then.
    pub(super) fn refused(self, check: &str) -> Result<Value, Failed> {
        let ended = self.ends()?;
        let told = ended.json()?;
        assert_eq!((ended.code, &told["error"]["check"]), (1, &json!(check)), "{told}");
        Ok(told["payment"].clone())
    }
}

fn signal(name: &str, process: &Process) -> Result<(), Failed> {
    let kill = format!("kill -{name} {}", process.id());
    let sent = Command::new("sh").args(["-c", &kill]).status()?;
    if sent.success() { Ok(()) } else { Err(format!("{kill}: {sent}").into()) }
}
