//! A server, a manager at home and a sleeve elsewhere, each a process.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::bank::Bank;
use crate::host::{Database, Ended, Host, command, wait_for};

/// Longest that anything here may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(40);
/// The passwords, in files of these names.
pub(super) const LOGIN: &str = "login-password";
pub(super) const ALARM: &str = "alarm-password";
pub(super) const WRONG: &str = "wrong-password";

/// The home: its server, and the directories of one manager and one sleeve.
pub(super) struct Home {
    pub(super) bank: Bank,
    /// Where the manager listens for sleeves of its network.
    pub(super) at: String,
    /// Its cards are test cards in the same process.
    has_test_cards: bool,
}

/// How a sleeve reaches the manager.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    Direct,
    Relay,
}

impl Home {
    /// `cards` is what stands in the manager's settings of its cards.
    pub(super) fn new(host: Host, cards: &str) -> Result<Self, Failed> {
        host.init(&Database::Sqlite)?;
        Self::around(Bank::on(host, false)?, cards)
    }

    /// The same beside a bank.
    pub(super) fn around(bank: Bank, cards: &str) -> Result<Self, Failed> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let (at, has_test_cards) = (format!("127.0.0.1:{port}"), cards == super::CARDS);
        let home = Self { bank, at, has_test_cards };
        for (file, password) in
            [(LOGIN, "correct horse"), (ALARM, "battery staple"), (WRONG, "open sesame")]
        {
            fs::write(home.bank.host.path(file), password)?;
        }
        let manager = ["device", "manager", "enroll", "--manager", "manager", "--serial", "MGR-1"];
        home.bank.done(&manager)?;
        home.sleeve_enrolled("sleeve", "SLV-1")?;
        home.settings("consent = \"never\"", cards)?;
        for (which, file) in [("login", LOGIN), ("alarm", ALARM)] {
            home.owner(&["password", which, "--new-password-file", file])?.ok()?;
        }
        Ok(home)
    }

    pub(super) fn sleeve_enrolled(&self, sleeve: &str, serial: &str) -> Result<(), Failed> {
        let words = ["device", "sleeve", "enroll", "--sleeve", sleeve, "--serial", serial];
        self.bank.done(&words)?;
        Ok(())
    }

    /// Writes the manager's settings.
    pub(super) fn settings(&self, more: &str, cards: &str) -> Result<(), Failed> {
        self.settings_by(&self.bank.ports.gateway(), more, cards)
    }

    /// The same where the server's gateway is reached at another place.
    pub(super) fn settings_by(&self, gateway: &str, more: &str, cards: &str) -> Result<(), Failed> {
        let text = format!("listen = {:?}\ngateway = {gateway:?}\n{more}\n{cards}\n", self.at);
        fs::write(self.bank.host.path("manager/manager.toml"), text)?;
        Ok(())
    }

    /// A command of the manager's owner.
    pub(super) fn owner(&self, words: &[&str]) -> Result<Ended, Failed> {
        let all = [&["--json", "device", "manager"], words, &["--manager", "manager"]].concat();
        self.bank.host.run(&all)
    }

    /// A command of the sleeve's holder.
    pub(super) fn holder(&self, words: &[&str]) -> Result<Ended, Failed> {
        let all = [&["--json", "device", "sleeve"], words, &["--sleeve", "sleeve"]].concat();
        self.bank.host.run(&all)
    }

    /// `manager serve`, once it listens and the server knows it.
    pub(super) fn manager(&self) -> Result<Manager, Failed> {
        let mut words = vec!["--json", "device", "manager", "serve", "--manager", "manager"];
        if self.has_test_cards {
            words.extend(["--emulated", "bank", "--emulated", "spare:9999990000000022"]);
        }
        let mut manager = Manager(Program::start(&self.bank.host, &words, "manager.log")?);
        manager.event("listening")?;
        manager.event("relay")?;
        Ok(manager)
    }

    /// The words for a way.
    pub(super) fn way(&self, way: Way) -> [String; 2] {
        match way {
            Way::Direct => ["--direct".to_owned(), self.at.clone()],
            Way::Relay => ["--relay".to_owned(), self.bank.ports.gateway()],
        }
    }

    /// The sleeve begins to pair; its holder is asked on the log.
    pub(super) fn pairs(&self, sleeve: &str, way: Way) -> Result<Program, Failed> {
        let [flag, place] = self.way(way);
        let words = ["--json", "device", "sleeve", "pair", "--sleeve", sleeve, &flag, &place];
        let words = [&words[..], &["--manager", "MGR-1"]].concat();
        Program::start(&self.bank.host, &words, "pair.log")
    }

    /// The two are paired, as people do it.
    pub(super) fn paired(&self, manager: &mut Manager, sleeve: &str) -> Result<Value, Failed> {
        manager.types("pair 60")?;
        manager.event("pairing-opened")?;
        let mut pairing = self.pairs(sleeve, Way::Direct)?;
        self.is_asked("pair.log", "MGR-1")?;
        pairing.types("yes")?;
        let paired = pairing.ends()?.ok()?.json()?;
        manager.event("paired")?;
        Ok(paired)
    }

    /// Waits until a program's log has these words.
    pub(super) fn is_asked(&self, log: &str, words: &str) -> Result<String, Failed> {
        let log = self.bank.host.path(log);
        wait_for(words, || {
            let said = fs::read_to_string(&log)?;
            Ok(said.contains(words).then_some(said))
        })
    }

    /// The words of `sleeve connect`.
    fn connect_words(&self, dir: &str, way: Way, mode: &str, password: &str) -> Vec<String> {
        let [flag, place] = self.way(way);
        let words = ["--json", "device", "sleeve", "connect", "--sleeve", dir];
        let more = ["--manager", "MGR-1", "--mode", mode, "--password-file", password];
        let own = words.into_iter().chain(more).map(str::to_owned);
        own.chain([flag, place]).collect()
    }

    /// `sleeve connect` by this way, the manager or the relay being at another place.
    pub(super) fn connects_at(
        &self,
        way: Way,
        place: &str,
        more: &[&str],
    ) -> Result<Sleeve, Failed> {
        let [flag, _] = self.way(way);
        self.connects_by(&[&flag, place], "a2", more)
    }

    /// The same by the words of a way.
    pub(super) fn connects_by(
        &self,
        way: &[&str; 2],
        mode: &str,
        more: &[&str],
    ) -> Result<Sleeve, Failed> {
        let words = ["--json", "device", "sleeve", "connect", "--sleeve", "sleeve", "--manager"];
        let own = ["MGR-1", "--mode", mode, "--password-file", LOGIN];
        let words = [&words[..], &own, way, more].concat();
        Ok(Sleeve(Program::start(&self.bank.host, &words, "sleeve.log")?))
    }

    /// `sleeve connect`, whatever comes of it.
    pub(super) fn connects(
        &self,
        way: Way,
        mode: &str,
        password: &str,
        more: &[&str],
    ) -> Result<Sleeve, Failed> {
        self.connects_as("sleeve", (way, mode, password), more)
    }

    /// The same with the sleeve of this directory.
    pub(super) fn connects_as(
        &self,
        dir: &str,
        (way, mode, password): (Way, &str, &str),
        more: &[&str],
    ) -> Result<Sleeve, Failed> {
        let words = self.connect_words(dir, way, mode, password);
        let words: Vec<_> = words.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let log = format!("{dir}.log");
        Ok(Sleeve(Program::start(&self.bank.host, &words, &log)?))
    }

    /// The same, logged in.
    pub(super) fn sleeve(&self, way: Way, more: &[&str]) -> Result<Sleeve, Failed> {
        let mut sleeve = self.connects(way, "a2", LOGIN, more)?;
        sleeve.event("logged-in")?;
        Ok(sleeve)
    }

    /// A connection that fails by this check, before or after its first word.
    pub(super) fn connect_refused(
        &self,
        way: Way,
        password: &str,
        check: &str,
    ) -> Result<Value, Failed> {
        let sleeve = self.connects(way, "a2", password, &["--retry-for", "0"])?;
        let ended = sleeve.0.ends()?;
        let log = fs::read_to_string(self.bank.host.path("sleeve.log"))?;
        assert_ne!(ended.code, 0, "{check}: {} {log}", ended.stdout);
        assert!(
            ended.stdout.contains(&format!("\"{check}\"")) || log.contains(&format!("[{check}]")),
            "{check}: {} {log}",
            ended.stdout
        );
        Ok(ended
            .stdout
            .lines()
            .last()
            .and_then(|line| serde_json::from_str(line).ok())
            .unwrap_or_default())
    }

    /// Copies the sleeve's directory: the same device twice.
    pub(super) fn copied(&self) -> Result<&'static str, Failed> {
        let copy = Command::new("cp")
            .args(["-a", "sleeve", "copy"])
            .current_dir(self.bank.host.path("."))
            .status()?;
        if copy.success() { Ok("copy") } else { Err("the sleeve was not copied".into()) }
    }

    /// The alarms that the server knows of.
    pub(super) fn alarms(&self) -> Result<Vec<Value>, Failed> {
        let told = self.bank.done(&["sleeve", "alarms"])?;
        Ok(told["items"].as_array().cloned().ok_or("no items")?)
    }
}

/// A program that tells events and is typed at. It is killed when the test ends.
pub(super) struct Program {
    child: Child,
    keys: Option<ChildStdin>,
    told: Receiver<String>,
    name: String,
    /// All that it told.
    pub(super) said: Vec<Value>,
}

impl Program {
    pub(super) fn start(host: &Host, words: &[&str], log: &str) -> Result<Self, Failed> {
        let mut program = command();
        program.args(words).current_dir(host.path(".")).envs(host.environment());
        program.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = program.stderr(File::create(host.path(log))?).spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
        let keys = child.stdin.take();
        let (tell, told) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        let name = log.trim_end_matches(".log").to_owned();
        Ok(Self { child, keys, told, name, said: Vec::new() })
    }

    pub(super) fn types(&mut self, line: &str) -> Result<(), Failed> {
        let keys = self.keys.as_mut().ok_or("nobody types any more")?;
        Ok(writeln!(keys, "{line}")?)
    }

    /// What it tells next; nothing when it has ended.
    fn next(&mut self) -> Result<Option<Value>, Failed> {
        match self.told.recv_timeout(PATIENCE) {
            Ok(line) => {
                let told: Value = serde_json::from_str(&line)
                    .map_err(|error| format!("{}: {error}: {line}", self.name))?;
                self.said.push(told.clone());
                Ok(Some(told))
            }
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => {
                Err(format!("{} says no more: {:?}", self.name, self.said).into())
            }
        }
    }

    /// The next event of this name; others are passed over.
    pub(super) fn event(&mut self, event: &str) -> Result<Value, Failed> {
        loop {
            let Some(told) = self.next()? else {
                return Err(format!("{} never said {event}: {:?}", self.name, self.said).into());
            };
            if told["event"] == event {
                return Ok(told);
            }
        }
    }

    /// Waits for its end, which nobody's typing delays; what it printed that nobody looked at yet.
    pub(super) fn ends(mut self) -> Result<Ended, Failed> {
        self.keys = None;
        self.ended()
    }

    /// Waits for its end while somebody could still type.
    pub(super) fn ended(&mut self) -> Result<Ended, Failed> {
        let from = self.said.len();
        while self.next()?.is_some() {}
        let lines: Vec<_> = self.said[from..].iter().map(Value::to_string).collect();
        let code = self.child.wait()?.code().unwrap_or(-1);
        Ok(Ended { code, stdout: lines.join("\n"), stderr: String::new() })
    }

    /// SIGKILL.
    pub(super) fn kill(mut self) -> Result<(), Failed> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The manager, as its owner has it.
pub(super) struct Manager(pub(super) Program);

impl Manager {
    pub(super) fn types(&mut self, line: &str) -> Result<(), Failed> {
        self.0.types(line)
    }

    pub(super) fn event(&mut self, event: &str) -> Result<Value, Failed> {
        self.0.event(event)
    }

    /// The session of the next sleeve that logs in.
    pub(super) fn session(&mut self) -> Result<u64, Failed> {
        Ok(self.event("logged-in")?["session"].as_u64().ok_or("no session")?)
    }

    /// Ends it as its owner does.
    pub(super) fn quits(mut self) -> Result<Vec<Value>, Failed> {
        self.types("quit")?;
        assert_eq!(self.0.ended()?.code, 0);
        Ok(std::mem::take(&mut self.0.said))
    }
}

/// The sleeve, as its holder has it.
pub(super) struct Sleeve(pub(super) Program);

impl Sleeve {
    pub(super) fn types(&mut self, line: &str) -> Result<(), Failed> {
        self.0.types(line)
    }

    pub(super) fn event(&mut self, event: &str) -> Result<Value, Failed> {
        self.0.event(event)
    }

    /// The ids of the cards that are offered.
    pub(super) fn cards(&mut self) -> Result<Vec<String>, Failed> {
        self.types("list")?;
        let told = self.event("cards")?;
        let cards = told["cards"].as_array().ok_or("no cards")?;
        Ok(cards.iter().filter_map(|card| Some(card["id"].as_str()?.to_owned())).collect())
    }

    /// Is this card in its virtual reader from now on.
    pub(super) fn takes(&mut self, card: &str) -> Result<Value, Failed> {
        self.types(&format!("take {card}"))?;
        let taken = self.event("taken")?;
        assert_eq!(taken["card"], json!(card), "{taken}");
        Ok(taken)
    }

    /// The next event that has one of these names.
    pub(super) fn answer(&mut self, names: &[&str]) -> Result<Value, Failed> {
        loop {
            let told = self.0.next()?.ok_or_else(|| format!("never said one of {names:?}"))?;
            if names.iter().any(|name| told["event"] == *name) {
                return Ok(told);
            }
        }
    }

    /// Refused by this check.
    pub(super) fn is_refused(&mut self, check: &str) -> Result<Value, Failed> {
        let refused = self.event("refused")?;
        assert_eq!(refused["check"], json!(check), "{refused}");
        Ok(refused)
    }

    pub(super) fn quits(mut self) -> Result<(), Failed> {
        self.types("quit")?;
        assert_eq!(self.0.ended()?.code, 0);
        Ok(())
    }
}
