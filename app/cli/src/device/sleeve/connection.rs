//! Connecting to a manager and logging in there, as all commands do it that use its cards.

use std::path::PathBuf;

use clap::Args;
use countersign_channel::{Mode, Policy};
use countersign_crypto::Secret;
use countersign_device::{Sleeve, SleeveHappening, SleeveSession};
use countersign_net::{mode_name, policy_of};
use countersign_wallet::message::{CardLine, LoginOutcome};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::way::WayArgs;
use super::{Which, opened};
use crate::device::wallet::password;
use crate::failure::Failure;
use crate::output::Output;

/// Whom to connect to, and how.
#[derive(Args)]
pub(crate) struct Connection {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    way: WayArgs,
    /// The manager's serial number; without, the only one that the sleeve is paired with.
    #[arg(long, value_name = "SERIAL")]
    manager: Option<String>,
    /// How to connect: a2 (by the binding factor) or a3 (by the pairing list).
    #[arg(long, value_name = "NAME", default_value = "a2", value_parser = mode_of)]
    mode: Mode,
    /// The protection to ask for: encrypt+mac, encrypt, or mac, under which no password is sent.
    #[arg(long, value_name = "NAME", default_value = "encrypt+mac", value_parser = policy_of)]
    policy: Policy,
    /// File with the password, in its first line; without, it is asked for.
    #[arg(long, value_name = "FILE")]
    pub(super) password_file: Option<PathBuf>,
}

/// A session and what happens in it.
pub(super) type Connected = (SleeveSession, mpsc::Receiver<SleeveHappening>);

fn mode_of(name: &str) -> Result<Mode, String> {
    let found = [Mode::A2, Mode::A3].into_iter().find(|mode| mode_name(*mode) == name);
    found.ok_or_else(|| "a2 or a3".to_owned())
}

impl Connection {
    /// The sleeve that connects.
    pub(super) fn sleeve(&self) -> Result<Sleeve, Failure> {
        let mut sleeve = opened(&self.which)?;
        sleeve.set_policies(vec![self.policy]);
        Ok(sleeve)
    }

    /// The password, from its file or from whoever types it.
    pub(super) fn password(&self) -> Result<Secret, Failure> {
        password(self.password_file.as_deref(), "The password of the manager: ")
    }

    /// Connects, without a login.
    pub(super) async fn connect(&self, sleeve: &Sleeve) -> Result<Connected, Failure> {
        let way = self.way.way();
        Ok(sleeve.connect(&way, self.mode, self.manager.as_deref()).await?)
    }

    /// What is told of a new connection.
    pub(super) fn told(&self, session: &SleeveSession) -> (Value, String) {
        let mode = mode_name(self.mode);
        let (manager, way) = (session.manager(), self.way.name());
        let event = json!({ "event": "connected", "manager": manager, "way": way, "mode": mode });
        (event, format!("Connected to the manager {manager} ({way}, {mode})"))
    }
}

/// Logs in; what the manager says against it has a name.
pub(super) async fn log_in(session: &SleeveSession, password: Secret) -> Result<(), Failure> {
    let result = session.login(password).await?;
    let wait = |what: &str| match result.seconds {
        0 => what.to_owned(),
        seconds => format!("{what}; the next one is taken in {seconds} s"),
    };
    match result.outcome {
        LoginOutcome::Ok => Ok(()),
        LoginOutcome::Refused => {
            Err(Failure::check("login-refused", wait("the manager refuses this password")))
        }
        LoginOutcome::Locked => {
            Err(Failure::check("login-locked", wait("the manager takes no password now")))
        }
        LoginOutcome::Declined => {
            Err(Failure::check("consent-refused", "the manager's owner says no"))
        }
    }
}

/// The cards, looked at once.
pub(super) async fn list(connection: Connection) -> Result<Output, Failure> {
    let sleeve = connection.sleeve()?;
    let password = connection.password()?;
    let (session, _events) = connection.connect(&sleeve).await?;
    log_in(&session, password).await?;
    let cards = session.list().await?;
    session.close().await;
    Ok(Output::new(json!({ "cards": cards_json(&cards) }), cards_text(&cards)))
}

/// Cards for programs.
pub(super) fn cards_json(cards: &[CardLine]) -> Value {
    let card = |card: &CardLine| {
        json!({
            "id": card.card.as_str(),
            "label": card.label.as_str(),
            "present": card.is_present(),
            "lent": card.is_lent(),
        })
    };
    cards.iter().map(card).collect()
}

/// Cards for people.
pub(super) fn cards_text(cards: &[CardLine]) -> String {
    let line = |card: &CardLine| {
        let state = match (card.is_present(), card.is_lent()) {
            (_, true) => "  (another sleeve has it)",
            (false, false) => "  (not in its reader)",
            (true, false) => "",
        };
        format!("{}  {}{state}", card.card.as_str(), card.label.as_str())
    };
    let lines: Vec<_> = cards.iter().map(line).collect();
    if lines.is_empty() { "There are no cards.".to_owned() } else { lines.join("\n") }
}
