//! `device phone`: a payer's phone in the command line.

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use countersign_device::{AnswerTaken, KeyError, Phone, PhoneError, RejectBecause, WaitingPayment};
use countersign_payment::ConfirmationRequest;
use countersign_server::ambient;
use serde_json::{Value, json};

use super::key::{PinFile, display_json, display_text};
use super::phone_helper::HelperCommand;
use super::read_file;
use super::which_device::WhichDevice;
use crate::failure::Failure;
use crate::output::{Output, print};
use crate::secret_arg;

/// Pushes that one `watch` waits for at most.
const COUNT_MAX: u32 = 1_000_000;

/// A payer's phone: it is told of payments, and carries them to a security device and its answer
/// back.
#[derive(Subcommand)]
pub(crate) enum PhoneCommand {
    /// Enrol the phone for its one-time code (countersign phone allow).
    ///
    /// Example: countersign device phone enroll --phone ./phone --code ABCD-EFGH-…
    /// --server https://localhost:8443 --ca ca.pem
    Enroll(Enroll),
    /// List the payments that wait for an answer.
    ///
    /// Example: countersign device phone list --phone ./phone
    List {
        #[command(flatten)]
        which: Which,
    },
    /// Show a payment: what its request says.
    ///
    /// Example: countersign device phone show pay_0193… --phone ./phone
    Show {
        #[command(flatten)]
        which: Which,
        /// The payment (pay_…), or the push that told of it (psh_…).
        payment: String,
    },
    /// Have a security device show and sign a payment, and send its answer.
    ///
    /// Example: countersign device phone approve pay_0193… --phone ./phone --key ./key
    /// Example: countersign device phone approve pay_0193… --phone ./phone --match 42 --reader
    Approve(Approve),
    /// Say no to a payment.
    ///
    /// Example: countersign device phone reject pay_0193… --phone ./phone --reason not-mine
    Reject(Reject),
    /// Wait for payments and print each once; it never answers one.
    ///
    /// Example: countersign device phone watch --phone ./phone --count 1
    Watch(Watch),
    /// Answer the phone page of a browser on this machine, which cannot reach a security device.
    ///
    /// Example: countersign device phone helper --server https://localhost:8443 --key ./key
    #[command(long_flag = "helper")]
    Helper(HelperCommand),
}

/// Which phone.
#[derive(Args)]
pub(crate) struct Which {
    /// The phone's own directory.
    #[arg(long, value_name = "DIR", default_value = "./countersign-phone")]
    phone: PathBuf,
}

/// Enrol the phone.
#[derive(Args)]
pub(crate) struct Enroll {
    #[command(flatten)]
    which: Which,
    /// Its one-time code, @FILE or - for stdin.
    #[arg(long)]
    code: String,
    /// The server's API, for instance https://localhost:8443; no proxy is used.
    #[arg(long, value_name = "URL", env = "COUNTERSIGN_SERVER")]
    server: String,
    /// The root of its HTTPS certificate, PEM (countersign ca export tls-root).
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_CA")]
    ca: PathBuf,
}

/// Confirm a payment.
#[derive(Args)]
pub(crate) struct Approve {
    #[command(flatten)]
    which: Which,
    /// The payment (pay_…), or the push that told of it (psh_…).
    payment: String,
    #[command(flatten)]
    device: WhichDevice,
    /// The device that is meant, by its serial number: another one is not asked.
    #[arg(long)]
    serial: Option<String>,
    #[command(flatten)]
    pin: PinFile,
    /// The number that the initiating terminal shows, to be sure that it is the same payment.
    #[arg(long = "match", value_name = "NN", value_parser = two_digits)]
    match_code: Option<String>,
}

/// A number to match: 10 to 99.
fn two_digits(word: &str) -> Result<String, String> {
    let right = word.len() == 2 && word.parse::<u8>().is_ok_and(|number| number >= 10);
    if right { Ok(word.to_owned()) } else { Err("the number to match has two digits".to_owned()) }
}

/// Why a payer says no.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Because {
    /// I did not begin this payment.
    NotMine,
    /// It is not what I agreed to.
    WrongDetails,
    /// I do not want it any more.
    ChangedMind,
}

/// Refuse a payment.
#[derive(Args)]
pub(crate) struct Reject {
    #[command(flatten)]
    which: Which,
    /// The payment (pay_…).
    payment: String,
    /// Why.
    #[arg(long, value_enum)]
    reason: Because,
}

/// Wait for payments.
#[derive(Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    which: Which,
    /// End after so many.
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(COUNT_MAX)))]
    count: Option<u32>,
}

impl PhoneCommand {
    pub(crate) async fn run(self, json: bool) -> Result<Output, Failure> {
        // The API client blocks.
        let working = tokio::task::spawn_blocking(move || match self {
            Self::Enroll(enroll) => enroll.run(),
            Self::List { which } => list(&Phone::open(&which.phone)?),
            Self::Show { which, payment } => {
                let payment = Phone::open(&which.phone)?.payment(&payment)?;
                let (json, text) = told(&payment);
                Ok(Output::new(json, text))
            }
            Self::Approve(approve) => approve.run(),
            Self::Reject(reject) => reject.run(),
            Self::Watch(watch) => watch.run(json),
            Self::Helper(helper) => helper.run(json),
        });
        working.await.map_err(|error| Failure::environment("task", error.to_string()))?
    }
}

impl Enroll {
    fn run(self) -> Result<Output, Failure> {
        let code = secret_arg::text(&self.code)?;
        let ca = read_file(&self.ca)?;
        let phone = Phone::enroll(&self.which.phone, &self.server, &ca, &code)?;
        let settings = phone.settings();
        let text = format!(
            "Enrolled  {} ({}) at {}\nDirectory {}",
            settings.id,
            settings.label,
            settings.server_id,
            self.which.phone.display()
        );
        let json = json!({
            "id": settings.id,
            "label": settings.label,
            "serverId": settings.server_id,
            "phone": self.which.phone,
        });
        Ok(Output::new(json, text))
    }
}

fn list(phone: &Phone) -> Result<Output, Failure> {
    let waiting = phone.payments()?;
    let told: Vec<(Value, String)> = waiting.iter().map(told).collect();
    let (items, texts): (Vec<Value>, Vec<String>) = told.into_iter().unzip();
    Ok(Output::new(json!({ "items": items }), texts.join("\n\n")))
}

/// A payment for people and programs. What its request says is for reading only: the security
/// device reads the bytes itself.
fn told(payment: &WaitingPayment) -> (Value, String) {
    let mut json = serde_json::to_value(payment).unwrap_or_default();
    let head = format!("{}  {}  until {}", payment.id, payment.status, payment.expires_at);
    let request = payment.request().ok();
    let parsed = request.and_then(|bytes| ConfirmationRequest::parse(&bytes).ok());
    let Some(parsed) = parsed else {
        return (json, format!("{head}\n  (its request cannot be read: do not confirm it)"));
    };
    let lines = parsed.lines();
    json["display"] = display_json(&lines);
    (json, format!("{head}\n{}", display_text(&lines)))
}

impl Approve {
    fn run(self) -> Result<Output, Failure> {
        let phone = Phone::open(&self.which.phone)?;
        let payment = phone.payment(&self.payment)?;
        let request = payment.to_confirm()?;
        // D3, here in one program: the device reads the bytes, not the phone's words.
        let mut device = self.device.open()?;
        let mut rng = (ambient().rng)();
        if self.serial.as_deref().is_some_and(|serial| serial != device.serial()) {
            return Err(KeyError::OtherCard.into());
        }
        let answer = device.confirm(&request, &self.pin, &mut *rng)?;
        let told = match &self.match_code {
            Some(code) => phone.answer_matched(&payment.id, &answer, code)?,
            None => phone.answer(&payment.id, &answer)?,
        };
        Ok(taken(&told, "executed"))
    }
}

impl Reject {
    fn run(self) -> Result<Output, Failure> {
        let because = match self.reason {
            Because::NotMine => RejectBecause::NotMine,
            Because::WrongDetails => RejectBecause::WrongDetails,
            Because::ChangedMind => RejectBecause::ChangedMind,
        };
        let phone = Phone::open(&self.which.phone)?;
        Ok(taken(&phone.reject(&self.payment, because)?, "rejected"))
    }
}

/// What became of an answer; bad news if the payment is not as was `wanted`.
fn taken(taken: &AnswerTaken, wanted: &str) -> Output {
    let mut text = format!("{}  {}", taken.payment_id, taken.status);
    if let Some(reason) = &taken.status_reason {
        text += &format!(" ({reason})");
    }
    let mut output = Output::new(serde_json::to_value(taken).unwrap_or_default(), text);
    output.refused = taken.status != wanted;
    output
}

impl Watch {
    fn run(self, json: bool) -> Result<Output, Failure> {
        let phone = Phone::open(&self.which.phone)?;
        let (mut left, mut items, mut failed) = (self.count, Vec::new(), None);
        phone.watch(|push| {
            let payment = match phone.payment(push) {
                Ok(payment) => payment,
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            };
            let (value, text) = told(&payment);
            // With a count and --json the one value comes at the end.
            if !json {
                print(&format!("{text}\n"));
            } else if left.is_none() {
                print(&value.to_string());
            } else {
                items.push(value);
            }
            left = left.map(|left| left.saturating_sub(1));
            if left == Some(0) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        match failed {
            Some(error) => Err(error.into()),
            None if json && self.count.is_some() => Ok(Output::new(json!({ "items": items }), "")),
            None => Ok(Output::none()),
        }
    }
}

impl From<PhoneError> for Failure {
    fn from(error: PhoneError) -> Self {
        match error {
            PhoneError::Api(error) => error.into(),
            PhoneError::Key(error) => error.into(),
            PhoneError::File { .. } => Self::environment(error.check(), error.to_string()),
            other => Self::check(other.check(), other.to_string()),
        }
    }
}
