//! The emulated bank card in a virtual reader, and a terminal that pays with one.

use std::io::BufRead;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::{Args, Subcommand};
use countersign_emulator::{
    BankCard as Card, BankCardSettings, Cryptogram, DISTANCE_MAX, PayError, Payment, Receipt,
    TEST_PAN, TEST_PIN, pay,
};
use countersign_iso7816::TerminalError;
use countersign_server::ambient;
use countersign_smartcard::vpcd::VirtualReader;
use data_encoding::HEXUPPER;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::device::virtual_reader::{listening, permitted, slot_event, tell};
use crate::device::which_device::link;
use crate::failure::Failure;
use crate::output::{Output, print_error};
use crate::secret_arg;
use crate::serve::stopped;

/// How long a card that answers has to be left alone before the program ends all the same.
const GRACE: Duration = Duration::from_secs(1);
/// The longest that the card may be told to take for a command.
const ANSWER_AFTER_MAX: u64 = 60_000;

/// What can be typed while the card is served.
const HELP: &str = "\
  pull    take the card out of the reader
  insert  put it back
  counts  tell how often the card was asked for what";

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct BankCard {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Subcommand)]
enum Command {
    /// Pay with an emulated bank card in a PC/SC reader, as a terminal does, and check its
    /// cryptograms under the published test key. Exit code 1 if the payment is not approved.
    ///
    /// Example: countersign emulator bank-card pay --reader --amount 1250 --pin 1234
    Pay(Pay),
}

/// Be an emulated bank card in a virtual reader.
#[derive(Args)]
struct Serve {
    /// Where the virtual reader (vpcd) of PC/SC listens; without a value, at port 35963 of this
    /// machine.
    #[arg(long, value_name = "[HOST:]PORT", num_args = 0..=1, required = true)]
    virtual_reader: Option<Option<VirtualReader>>,
    /// Let the reader be on another machine. What goes there is not encrypted, nor is the PIN.
    #[arg(long)]
    remote_reader: bool,
    /// The card's number: 16 digits.
    #[arg(long, value_name = "DIGITS", default_value = TEST_PAN)]
    pan: String,
    /// The card's PIN: 4 to 12 digits. A test card's; it is in the list of processes.
    #[arg(long, value_name = "DIGITS", default_value = TEST_PIN)]
    pin: String,
    /// How long an answer to EXCHANGE RELAY RESISTANCE DATA may take, in units of 100 µs.
    #[arg(long, value_name = "N", default_value_t = DISTANCE_MAX)]
    distance_max: u16,
    /// Answer each command only after this many milliseconds, as a real card takes its time.
    #[arg(long, value_name = "MS", default_value_t = 0,
          value_parser = clap::value_parser!(u64).range(..=ANSWER_AFTER_MAX))]
    answer_after: u64,
}

#[derive(Args)]
struct Pay {
    /// The PC/SC reader of this name, or of a name with this part; without a name, the only reader
    /// that has a card (then the last word, or before another option).
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "", required = true)]
    reader: String,
    /// The amount, in the currency's smallest unit.
    #[arg(long, value_name = "N")]
    amount: u64,
    /// The currency: ISO 4217, numeric.
    #[arg(long, value_name = "NNN", default_value_t = 156)]
    currency: u16,
    /// The application, in hex digits; without, the one that the card prefers.
    #[arg(long, value_name = "HEX")]
    aid: Option<String>,
    /// The PIN, to be checked by the card: digits, @FILE or - for stdin.
    #[arg(long, value_name = "PIN")]
    pin: Option<String>,
    /// Measure how far the card is (EXCHANGE RELAY RESISTANCE DATA). Exit code 1 if it is farther
    /// than it allows.
    #[arg(long)]
    distance_check: bool,
    /// Wait so many seconds for a card.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
}

impl BankCard {
    pub(crate) async fn run(self, json: bool) -> Result<Output, Failure> {
        match self.command {
            None => self.serve.run(json).await,
            Some(Command::Pay(pay)) => {
                let working = tokio::task::spawn_blocking(move || pay.run());
                working.await.map_err(|error| Failure::environment("task", error.to_string()))?
            }
        }
    }
}

impl Serve {
    async fn run(self, json: bool) -> Result<Output, Failure> {
        let reader = self.virtual_reader.flatten().unwrap_or_default();
        let reader = permitted(reader, self.remote_reader, "PIN")?;
        let settings = BankCardSettings::new(&self.pan, &self.pin).ok_or_else(|| {
            let detail = "a number has 16 digits and a PIN 4 to 12".to_owned();
            Failure::usage("bank-card", detail)
        })?;
        let settings = settings
            .with_distance_max(self.distance_max)
            .answering_after(Duration::from_millis(self.answer_after));
        let card = Card::new(&settings, (ambient().rng)());
        // Listened to before anybody is told that it runs.
        let mut stopping = pin!(stopped());
        if let Some(stopped) = listening(stopping.as_mut()).await {
            return stopped.map(|()| Output::none());
        }
        let atr = HEXUPPER.encode(&card.answer_to_reset());
        let ready = json!({ "event": "ready", "atr": atr, "pan": self.pan });
        tell(json, &ready, &format!("Test bank card {} for a virtual reader\n{HELP}", self.pan));
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, mut end) = oneshot::channel();
        let (told_to_stop, mut served, handle) = (stop.clone(), card.clone(), card.clone());
        // Threads that nobody waits for: one may be amid a command, the other at a terminal.
        thread::spawn(move || {
            reader.run(&mut served, &told_to_stop, &mut |event| {
                let (event, text) = slot_event(event, "reader");
                tell(json, &event, &text);
            });
            let _waiting = ended.send(());
        });
        thread::spawn(move || listen(&handle, json));
        tokio::select! {
            stopped = &mut stopping => stopped.map_err(Failure::late)?,
            _ = &mut end => {
                let detail = "the card's work ended".to_owned();
                return Err(Failure::environment("virtual-reader", detail).late());
            }
        }
        stop.store(true, Ordering::SeqCst);
        let _answering = tokio::time::timeout(GRACE, end).await;
        Ok(Output::none())
    }
}

/// Does what is typed; the end of the input is no reason to end.
fn listen(card: &Card, json: bool) {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        match line.trim() {
            "pull" => {
                card.remove();
                tell(json, &json!({ "event": "pulled" }), "The card is out of the reader");
            }
            "insert" => {
                card.insert();
                tell(json, &json!({ "event": "put-back" }), "The card is in the reader again");
            }
            "counts" => {
                let counts = card.counts();
                let value = json!({
                    "event": "counts", "commands": counts.commands,
                    "cryptograms": counts.cryptograms, "pins": counts.pins,
                    "resets": counts.resets, "triesLeft": card.tries_left(),
                });
                let text = format!(
                    "{} commands, {} GENERATE AC, {} VERIFY, {} resets",
                    counts.commands, counts.cryptograms, counts.pins, counts.resets
                );
                tell(json, &value, &text);
            }
            "" => {}
            _ => print_error(HELP),
        }
    }
}

impl Pay {
    fn run(self) -> Result<Output, Failure> {
        let hex = |text: String| {
            HEXUPPER.decode(text.to_uppercase().as_bytes()).map_err(|_| {
                Failure::usage("aid", "an application's identifier is pairs of hex digits")
            })
        };
        let ambient = ambient();
        let payment = Payment {
            amount: self.amount,
            currency: self.currency,
            date: date(ambient.clock.now().as_secs()),
            aid: self.aid.map(hex).transpose()?,
            pin: self.pin.as_deref().map(secret_arg::text).transpose()?.map(|pin| pin.to_string()),
            distance_check: self.distance_check,
        };
        let name = Some(&*self.reader).filter(|name| !name.is_empty());
        let (mut link, place) = link(name, Duration::from_secs(self.wait))?;
        let paid = pay(&mut *link, &payment, &mut *(ambient.rng)());
        let receipt = paid.map_err(|error| {
            let (check, detail) = (error.check(), format!("the card {place}: {error}"));
            match error {
                PayError::Terminal(TerminalError::Link(_)) => Failure::environment(check, detail),
                _ => Failure::check(check, detail),
            }
        })?;
        let distance = receipt.distance;
        let failed = distance.is_some_and(|distance| !distance.passes());
        let mut output = Output::new(receipt_json(&receipt), receipt_text(&receipt));
        output.refused = failed || !receipt.is_approved();
        Ok(output)
    }
}

fn receipt_json(receipt: &Receipt) -> Value {
    let cryptogram = |one: &Cryptogram| {
        json!({
            "cid": format!("{:02X}", one.cid), "atc": one.atc,
            "cryptogram": HEXUPPER.encode(&one.bytes), "verifies": one.verifies,
        })
    };
    let distance = receipt.distance.map(|check| {
        json!({
            "passes": check.passes(), "measuredMicros": micros(check.measured),
            "allowedMicros": micros(check.allowed),
        })
    });
    json!({
        "approved": receipt.is_approved(), "label": receipt.label,
        "aid": HEXUPPER.encode(&receipt.aid), "number": receipt.number,
        "request": cryptogram(&receipt.request), "outcome": cryptogram(&receipt.outcome),
        "distanceCheck": distance, "exchanges": receipt.exchanges,
    })
}

fn receipt_text(receipt: &Receipt) -> String {
    let said = |verifies: bool| if verifies { "verifies" } else { "does NOT verify" };
    let (request, outcome) = (&receipt.request, &receipt.outcome);
    let mut text = format!(
        "{}\nApplication {} ({})\nCard        {}\nQuestion    {} ({})\nOutcome     {} ({})",
        if receipt.is_approved() { "Approved" } else { "Not approved" },
        receipt.label,
        HEXUPPER.encode(&receipt.aid),
        receipt.number,
        HEXUPPER.encode(&request.bytes),
        said(request.verifies),
        HEXUPPER.encode(&outcome.bytes),
        said(outcome.verifies),
    );
    if let Some(check) = receipt.distance {
        let verdict = if check.passes() { "passes" } else { "FAILS" };
        text.push_str(&format!(
            "\nDistance    {verdict}: {} µs measured, {} µs allowed",
            micros(check.measured),
            micros(check.allowed)
        ));
    }
    text
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// YYMMDD of a time (9A), as decimal digits.
fn date(seconds: u64) -> u32 {
    let time = i64::try_from(seconds)
        .ok()
        .and_then(|at| time::OffsetDateTime::from_unix_timestamp(at).ok());
    let Some(time) = time else { return 0 };
    let year = u32::try_from(time.year().rem_euclid(100)).unwrap_or(0);
    (year * 100 + u32::from(u8::from(time.month()))) * 100 + u32::from(time.day())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_six_digits() {
        assert_eq!(date(0), 700_101);
        assert_eq!(date(1_795_392_000), 261_123);
    }
}
