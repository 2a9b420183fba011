//! The child process that is a PC/SC program built on this crate, and the handle on it.

use std::io::{BufRead, BufReader, Write, stdin};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use countersign_iso7816::CardLink;
use countersign_smartcard::pcsc::{PcscLink, readers};
use libtest_mimic::Failed;
use testkit::parts::Pcscd;

/// The argument by which this program becomes a client.
pub(crate) const AS_CLIENT: &str = "--as-client";

/// Longest that an answer may take, in seconds: longer than our side waits for a service that
/// hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Does what stdin says, one line of answer for each line.
pub(crate) fn run() {
    let mut link = None;
    for line in stdin().lines().map_while(Result::ok) {
        println!("{}", obey(&mut link, &line));
    }
}

fn obey(link: &mut Option<PcscLink>, line: &str) -> String {
    let (order, rest) = line.split_once(' ').unwrap_or((line, ""));
    match order {
        "readers" => match readers() {
            Ok(readers) => {
                let one = |reader: countersign_smartcard::pcsc::Reader| {
                    let card = reader.card.map_or("-".to_owned(), |atr| hex(&atr));
                    format!("{}={card}{}", reader.name, if reader.in_use { "*" } else { "" })
                };
                readers.into_iter().map(one).collect::<Vec<_>>().join("|")
            }
            Err(error) => error.check().to_owned(),
        },
        "connect" | "wait" => {
            *link = None;
            let name = (!rest.is_empty()).then_some(rest);
            let wait = Duration::from_secs(if order == "wait" { 20 } else { 0 });
            match PcscLink::connect_within(name, wait) {
                Ok(connected) => {
                    let answer = format!("{}={}", connected.reader(), hex(connected.atr()));
                    *link = Some(connected);
                    answer
                }
                Err(error) => error.check().to_owned(),
            }
        }
        "send" => transmit(link, &unhex(rest)),
        "echo" => echo(link, rest.parse().expect("a length")),
        "time" => time(link, rest.parse().expect("a count")),
        "drop" => {
            *link = None;
            "dropped".to_owned()
        }
        other => format!("what is {other}?"),
    }
}

fn transmit(link: &mut Option<PcscLink>, command: &[u8]) -> String {
    let Some(link) = link else { return "nothing is connected".to_owned() };
    match link.transmit(command) {
        Ok(response) => hex(&response),
        Err(error) => error.check().to_owned(),
    }
}

/// Sends so many bytes, extended, and compares what comes back.
fn echo(link: &mut Option<PcscLink>, length: u16) -> String {
    let data: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
    let [high, low] = length.to_be_bytes();
    let command = [&[0x80, 0xEE, 0, 0, 0, high, low], &data[..], &[0, 0]].concat();
    let whole = hex(&[&data[..], &[0x90, 0x00]].concat());
    let answer = transmit(link, &command);
    if answer == whole { "the same".to_owned() } else { answer }
}

/// The median of so many round trips, in microseconds.
#[expect(clippy::disallowed_methods, reason = "a real card takes real time")]
fn time(link: &mut Option<PcscLink>, count: usize) -> String {
    let mut took: Vec<_> = (0..count)
        .map(|_| {
            let start = Instant::now();
            let answer = transmit(link, &[0x80, 0xEE, 0, 0, 4, 1, 2, 3, 4, 0]);
            assert_eq!(answer, "010203049000");
            start.elapsed().as_micros()
        })
        .collect();
    took.sort_unstable();
    took[count / 2].to_string()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal")).collect()
}

/// A running client.
pub(crate) struct Client {
    process: Child,
    orders: ChildStdin,
    answers: Receiver<String>,
}

impl Client {
    pub(crate) fn start(pcscd: &Pcscd) -> Result<Self, Failed> {
        let (name, value) = pcscd.environment();
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(AS_CLIENT).env(name, value);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = process.stdin.take().ok_or("no stdin")?;
        let stdout = BufReader::new(process.stdout.take().ok_or("no stdout")?);
        let (tell, answers) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ended = tell.send(line);
            }
        });
        Ok(Self { process, orders, answers })
    }

    /// Gives an order; [`Self::answer`] waits for what comes of it.
    pub(crate) fn order(&mut self, line: &str) -> Result<(), Failed> {
        Ok(writeln!(self.orders, "{line}")?)
    }

    pub(crate) fn answer(&self) -> Result<String, Failed> {
        Ok(self.answers.recv_timeout(PATIENCE)?)
    }

    /// Gives an order and expects an answer.
    pub(crate) fn gets(&mut self, line: &str, wanted: &str) -> Result<(), Failed> {
        self.order(line)?;
        let got = self.answer()?;
        if got == wanted {
            return Ok(());
        }
        Err(format!("{line:?}: got {got:?}, wanted {wanted:?}").into())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
