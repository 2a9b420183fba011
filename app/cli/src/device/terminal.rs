//! `device terminal`: a shop's terminal that takes payments from signing cards (B).

mod password;
mod stop;

use std::mem::replace;
use std::pin::pin;
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};
use countersign_device::{
    Announced, Api, CardSigned, JointError, JointTerminal, ScanError, TerminalCard,
};
use countersign_iso7816::CardLink;
use countersign_payment::card::CardError;
use countersign_payment::joint::{Form, JointPassword, TRIES_MAX};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Client;
use super::virtual_reader::listening;
use super::which_device::{Place, link};
use crate::failure::Failure;
use crate::once::Once;
use crate::output::{Output, print_error};
use crate::pay::{Asked, PATIENCE, ended, wait};
use crate::payment::is_final;
use crate::reader::{encoded, shown};
use crate::serve::stopped;
use password::{Ends, Source};
use stop::{Stop, interrupted};

/// How long a payer takes to put the card in, in seconds; and the longest wait that can be set.
const CARD_WAIT: u64 = 30;
const CARD_WAIT_MAX: u64 = 300;
/// How often a card is asked for its signature that goes before it has come.
const SIGN_TRIES: u32 = 3;
/// Between two looks whether the card is there.
const PAUSE: Duration = Duration::from_millis(200);
/// Who asks for payments by this command.
const INITIATOR: &str = "countersign terminal";
/// What is said of a reader without a card, or with one that is not in firmly.
const AWAITED: [&str; 7] = [
    "reader-absent",
    "reader-unknown",
    "card-absent",
    "card-removed",
    "card-reset",
    "card-link",
    "card-mute",
];

/// Ask for a payment, have the payer's card sign it, and bring the server the joint password.
#[derive(Args)]
#[command(group = ArgGroup::new("way").args(["typed", "scan", "contactless"]))]
pub(crate) struct TerminalCommand {
    #[command(flatten)]
    client: Client,
    /// The account that pays; without, the one that the card names.
    #[arg(long, value_name = "ACCOUNT")]
    from: Option<String>,
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    once: Once,
    /// The PC/SC reader with contacts: its name, or a part that only one has; without, the only
    /// reader that has a card.
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
    reader: Option<String>,
    /// How long to wait for the card, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = CARD_WAIT,
          value_parser = clap::value_parser!(u64).range(..=CARD_WAIT_MAX))]
    card_wait: u64,
    /// The form of the signature; without, the first one that the server announces and the card
    /// has.
    #[arg(long, value_enum)]
    form: Option<FormName>,
    /// The joint password is typed here: its digits, or the names of its pictures. The default.
    #[arg(long)]
    typed: bool,
    /// The joint password is read from a picture of the card's display (PNG, JPEG or PNM), with a
    /// QR or Code 128 code: a file that is waited for, or - for stdin.
    #[arg(long, value_name = "FILE")]
    scan: Option<String>,
    /// The joint password is taken from the card, held to this contactless reader.
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
    contactless: Option<String>,
}

/// The forms that a card may sign in (B3, B4, B5).
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormName {
    /// Over the joint password, encrypted (B3).
    Sealed,
    /// The same with more randomness in it (B4).
    SealedRandom,
    /// Over digests (B5).
    Digest,
}

impl From<FormName> for Form {
    fn from(name: FormName) -> Self {
        match name {
            FormName::Sealed => Self::Sealed,
            FormName::SealedRandom => Self::SealedRandom,
            FormName::Digest => Self::Digest,
        }
    }
}

/// The name of a reader; none if it was left empty.
fn named(reader: &str) -> Option<&str> {
    Some(reader).filter(|name| !name.is_empty())
}

impl TerminalCommand {
    pub(crate) async fn run(self) -> Result<Output, Failure> {
        // Listened to before there is a payment that would have to be taken back.
        let mut stopping = pin!(stopped());
        if let Some(stopped) = listening(stopping.as_mut()).await {
            return stopped.and_then(|()| Err(interrupted()));
        }
        let stop = Stop::default();
        let told = stop.clone();
        // The API client and readers block.
        let mut working = tokio::task::spawn_blocking(move || self.pay(&told));
        let ended = tokio::select! {
            stopped = &mut stopping => {
                stop.stop();
                stopped?;
                working.await
            }
            ended = &mut working => ended,
        };
        ended.map_err(|error| Failure::environment("task", error.to_string()))?
    }

    fn pay(self, stop: &Stop) -> Result<Output, Failure> {
        let source = self.source();
        // Before the payer's card signs in vain.
        source.is_there()?;
        let api = self.client.api()?;
        let place = Insertion {
            reader: self.reader.as_deref().and_then(named),
            wait: Duration::from_secs(self.card_wait),
            stop,
        };
        let card = place.card()?;
        let from = self.payer(&card.card)?;
        let once = self.once.fixed();
        let order = self.asked.order(&from, once.key(), INITIATOR);
        let payment = once.post(&api, "/v1/payments", &order.body())?;
        let id = shown(&payment, "id").to_owned();
        let terminal = JointTerminal::new(&api);
        let mut waiting = Waiting { api: &api, terminal: &terminal, stop, id, is_settled: false };
        let form = self.form.map(Form::from);
        match waiting.confirm(card, &place, form, &source) {
            Ok(()) => ended(wait(&api, payment)?),
            Err(failure) => waiting.given_up(failure),
        }
    }

    fn source(&self) -> Source {
        match (&self.scan, &self.contactless) {
            (Some(file), _) => Source::scan(file),
            (None, Some(reader)) => Source::Contactless(named(reader).map(str::to_owned)),
            (None, None) => Source::Typed,
        }
    }

    /// The account that is to pay.
    fn payer(&self, card: &Card) -> Result<String, Failure> {
        match &self.from {
            Some(from) => Ok(from.clone()),
            None if card.account().is_empty() => {
                Err(Failure::usage("card-account", "the card names no account: say --from"))
            }
            None => Ok(card.account().to_owned()),
        }
    }
}

/// The reader that cards are put into.
struct Insertion<'a> {
    reader: Option<&'a str>,
    wait: Duration,
    stop: &'a Stop,
}

impl Insertion<'_> {
    /// The card in the reader. One that goes again is waited for again: it may not have been put
    /// in firmly.
    fn card(&self) -> Result<Placed, Failure> {
        let begun = Instant::now();
        let mut is_asked_for = false;
        loop {
            self.stop.check()?;
            let opened = link(self.reader, Duration::ZERO)
                .and_then(|(link, place)| Ok(Placed { card: TerminalCard::new(link)?, place }));
            match opened {
                Err(failure) if is_awaited(&failure) && begun.elapsed() < self.wait => {
                    if !replace(&mut is_asked_for, true) {
                        print_error("Put the card into the reader.");
                    }
                    self.stop.pause(PAUSE.min(self.wait.saturating_sub(begun.elapsed())))?;
                }
                settled => return settled,
            }
        }
    }

    /// What the card signs, and where it is. A card that goes before its signature has come has
    /// forgotten the transaction: put in again, it signs it again. Another card does not.
    fn signed(
        &self,
        Placed { mut card, mut place }: Placed,
        announced: &Announced,
        forms: &[Form],
    ) -> Result<(CardSigned, Place), Failure> {
        let serial = card.info().serial.clone();
        for _ in 1..SIGN_TRIES {
            self.stop.check()?;
            match card.sign(announced, forms).map_err(Failure::from) {
                Err(failure) if is_awaited(&failure) => {
                    print_error(&format!("{}. Put the card in again.", failure.detail));
                    drop(card);
                    // Where nobody puts it in, that it went is what is wrong.
                    let again = self.card();
                    let gone = again.as_ref().is_err_and(is_awaited);
                    Placed { card, place } = if gone { return Err(failure) } else { again? };
                    if card.info().serial != serial {
                        let detail = "another card than the one that the payment was asked for";
                        return Err(Failure::check("card-other", detail));
                    }
                }
                settled => return settled.map(|signed| (signed, place)),
            }
        }
        self.stop.check()?;
        Ok((card.sign(announced, forms)?, place))
    }
}

/// Whether the card is not there, or not in firmly.
fn is_awaited(failure: &Failure) -> bool {
    AWAITED.contains(&&*failure.check)
}

/// A card behind whatever reader.
type Card = TerminalCard<Box<dyn CardLink>>;

/// A card and where it is.
struct Placed {
    card: Card,
    place: Place,
}

/// A payment that was asked for.
struct Waiting<'a> {
    api: &'a Api,
    terminal: &'a JointTerminal<'a>,
    stop: &'a Stop,
    id: String,
    /// It has ended, or nobody here can know.
    is_settled: bool,
}

impl Waiting<'_> {
    fn now(&self) -> Result<Value, Failure> {
        Ok(self.api.get(&format!("/v1/payments/{}", encoded(&self.id)))?)
    }

    /// From the card's signature to the server's answer.
    fn confirm(
        &mut self,
        card: Placed,
        reader: &Insertion<'_>,
        form: Option<Form>,
        source: &Source,
    ) -> Result<(), Failure> {
        // A repeated request is answered as the first one was, whatever has become of it since.
        let payment = self.now()?;
        if is_final(&payment) {
            return Ok(());
        }
        let announced = self.terminal.announce(&self.id)?;
        let forms = form.map_or_else(|| announced.forms().to_vec(), |form| vec![form]);
        // The reader lets the card go with it.
        let (signed, place) = reader.signed(card, &announced, &forms)?;
        print_error(&format!(
            "{} is signed. Take the card out, look at what it shows, and confirm it there.",
            self.id
        ));
        let told = shown(&payment, "expiresAt").to_owned();
        let ends = Ends { at: announced.expires_at(), told, stop: self.stop.clone() };
        let mut source = source.begin(ends, place);
        for _ in 0..TRIES_MAX {
            let password = source.obtain(&signed)?;
            match self.submit(&signed, &password) {
                Err(failure) if failure.check == REFUSED && source.may_ask_again() => {
                    self.go_on(&failure)?;
                }
                other => return other,
            }
        }
        Err(Failure::check(REFUSED, "the server has refused three joint passwords"))
    }

    /// After a refusal: another try, unless that was the payment's last one.
    fn go_on(&self, refused: &Failure) -> Result<(), Failure> {
        match self.now() {
            Ok(payment) if is_final(&payment) => {
                let how = shown(&payment, "status");
                let detail = format!("{}; the payment has ended: {how}", refused.detail);
                Err(Failure::check(REFUSED, detail))
            }
            _ => {
                print_error(&format!("{}.", refused.detail));
                Ok(())
            }
        }
    }

    /// While it is not known what became of an answer, the same one is sent again.
    fn submit(&mut self, signed: &CardSigned, password: &JointPassword) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            let submitted = self.terminal.submit(signed, password);
            // What is not known to be refused is not taken back.
            let is_lost = submitted.as_ref().is_err_and(JointError::is_lost);
            self.is_settled = is_lost || submitted.is_ok();
            if !is_lost || begun.elapsed() > PATIENCE || self.stop.is_set() {
                return submitted.map(|_taken| ()).map_err(Failure::from);
            }
            print_error("The server does not answer; trying again.");
        }
    }

    /// Takes the payment back, for nobody is going to confirm it any more; and tells how it stands:
    /// one that was executed all the same is no failure.
    fn given_up(&self, failure: Failure) -> Result<Output, Failure> {
        if !self.is_settled {
            // One that has ended meanwhile is left as it is.
            let _ended = self.terminal.cancel(&self.id);
        }
        match self.now() {
            Ok(payment) if payment["status"] == EXECUTED => ended(payment),
            Ok(payment) => Err(failure.after(json!({ "payment": payment }))),
            Err(_) => Err(failure),
        }
    }
}

/// The state of a payment that was made.
const EXECUTED: &str = "executed";
/// The server's one word for whatever is wrong with an answer.
const REFUSED: &str = "authorisation-refused";

impl From<JointError> for Failure {
    fn from(error: JointError) -> Self {
        match error {
            JointError::Api(error) => error.into(),
            JointError::Card(CardError::Link(_)) => {
                Self::environment(error.check(), error.to_string())
            }
            other => Self::check(other.check(), other.to_string()),
        }
    }
}

impl From<ScanError> for Failure {
    fn from(error: ScanError) -> Self {
        Self::check(error.check(), error.to_string())
    }
}
