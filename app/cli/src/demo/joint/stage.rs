//! What the flow runs on: a bank whose shop has a till for cards, and two signing cards of a payer.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use countersign_crypto::Secret;
use countersign_device::{
    Announced, AnswerTaken, Api, CardChipDir, CardDir, CardEnrolment, CardSigned,
    InProcessJointCard, JointError, JointTerminal, PaymentOrder, TerminalCard, device_suite,
};
use countersign_payment::Line;
use countersign_payment::joint::card::{Interface, View};
use countersign_payment::joint::{Form, JointPassword};
use countersign_server::ambient;

use super::{CARD, OTHER, PIN, SERVER_ID};
use crate::demo::bank::{Bank, CURRENCY, PAYER, SHOP};
use crate::demo::blocking;
use crate::device::provider_of;
use crate::failure::Failure;

/// A signing card and all that its holder can do with it.
pub(super) type Card = InProcessJointCard<CardChipDir>;

/// Everything the flow runs on.
pub(super) struct Stage {
    /// Its shop is the terminal.
    pub(super) bank: Bank,
    pub(super) card: Card,
    pub(super) other: Card,
    payments: AtomicU32,
}

impl Stage {
    pub(super) async fn set_up() -> Result<Self, Failure> {
        let bank = Bank::open(SERVER_ID).await?;
        let (office, dir) = (&bank.office, bank.dir.path());
        let card = enrolled(office, dir.join("card"), CARD).await?;
        let other = enrolled(office, dir.join("other"), OTHER).await?;
        Ok(Self { bank, card, other, payments: AtomicU32::new(0) })
    }

    /// The terminal asks for a payment, and for what the card is to sign.
    pub(super) async fn ask(&self, amount: &str, order: &str) -> Result<Announced, Failure> {
        let number = self.payments.fetch_add(1, Ordering::Relaxed);
        let order = PaymentOrder {
            from: PAYER.to_owned(),
            to: SHOP.to_owned(),
            payee: "Tea Shop".to_owned(),
            amount: amount.to_owned(),
            currency: CURRENCY.to_owned(),
            order: order.to_owned(),
            reference: order.to_owned(),
            initiator: "Tea Shop's till".to_owned(),
            expires_in: None,
        };
        let api = self.bank.shop.clone();
        blocking(move || {
            let terminal = JointTerminal::new(&api);
            let created = terminal.create(&order, &format!("demo-{number}"))?;
            Ok(terminal.announce(&created.id)?)
        })
        .await
    }

    /// The card is put into the terminal and signs; it stays there.
    pub(super) async fn sign(
        &self,
        card: &Card,
        announced: &Announced,
        form: Form,
    ) -> Result<CardSigned, Failure> {
        let (card, announced) = (card.clone(), announced.clone());
        blocking(move || {
            card.insert(Interface::Contact);
            Ok(TerminalCard::new(card)?.sign(&announced, &[form])?)
        })
        .await
    }

    /// The terminal submits what it has (B7): what the server says.
    pub(super) async fn submit(
        &self,
        signed: &Arc<CardSigned>,
        digits: &str,
    ) -> Result<Result<AnswerTaken, JointError>, Failure> {
        let (api, signed) = (self.bank.shop.clone(), signed.clone());
        let password = JointPassword::parse(digits)
            .map_err(|error| Failure::check(error.check(), error.to_string()))?;
        blocking(move || Ok(JointTerminal::new(&api).submit(&signed, &password))).await
    }
}

/// The holder takes the card out and gives it the PIN; Argon2id takes its time.
pub(super) async fn consent(card: &Card, pin: &'static str) -> Result<Option<String>, Failure> {
    let card = card.clone();
    blocking(move || {
        card.remove();
        let _wrong = card.confirm(&Secret::copied_from(pin.as_bytes()));
        Ok(digits(&card))
    })
    .await
}

/// The joint password on the display, if it is there.
pub(super) fn digits(card: &Card) -> Option<String> {
    card.view(|view| match view {
        View::Password { password, .. } => Some(password.digits().to_owned()),
        _ => None,
    })
}

/// The transaction on the display, while the card waits for its holder.
pub(super) fn asked(card: &Card) -> Vec<Line> {
    card.view(|view| match view {
        View::Consent { lines, .. } => lines.to_vec(),
        _ => Vec::new(),
    })
}

/// The stable name of what was refused.
pub(super) fn check(submitted: Result<AnswerTaken, JointError>) -> Result<String, String> {
    submitted.map(|taken| taken.status).map_err(|error| error.check().to_owned())
}

/// A signing card of the payer.
async fn enrolled(office: &Arc<Api>, path: PathBuf, serial: &'static str) -> Result<Card, Failure> {
    let office = office.clone();
    blocking(move || {
        let ambient = ambient();
        let provider = provider_of(device_suite(&office)?)?;
        let enrolment = CardEnrolment {
            serial: serial.to_owned(),
            label: format!("Li Lei's {serial}"),
            accounts: vec![PAYER.to_owned()],
            pin: Secret::copied_from(PIN.as_bytes()),
        };
        let (now, mut rng) = (ambient.clock.now(), (ambient.rng)());
        let dir = CardDir::enroll(&path, &enrolment, &office, &provider, now, &mut *rng)?;
        let (chip, clock) = (CardChipDir::new(dir, now)?, ambient.clock);
        Ok(InProcessJointCard::new(chip, move || clock.now(), rng))
    })
    .await
}
