//! The manager at home: its cards, its screen, its orders.

use std::net::SocketAddr;
use std::path::PathBuf;

use countersign_device::{
    HeldCards, Manager, ManagerDir, ManagerError, ManagerHappening, ManagerOrder, OpenCard,
    card_source,
};
use countersign_emulator::{BankCard, BankCardSettings};
use countersign_iso7816::LinkError;
use countersign_server::ambient;
use countersign_wallet::login::{Cost, Which};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::stage::{PATIENCE, typed};
use super::{ALARM, CARD, DECOY, PASSWORD};
use crate::demo::blocking;
use crate::failure::Failure;

/// Events that may wait to be looked at.
const EVENTS: usize = 256;
/// Orders that may wait to be done.
const ORDERS: usize = 8;

/// A manager that runs.
pub(super) struct Home {
    /// The usual card, as it lies in its reader.
    pub(super) card: BankCard,
    /// Where it listens on the LAN.
    pub(super) at: SocketAddr,
    orders: mpsc::Sender<ManagerOrder>,
    events: mpsc::Receiver<ManagerHappening>,
    running: JoinHandle<Result<(), ManagerError>>,
    /// All that it has shown.
    pub(super) shown: Vec<String>,
}

impl Home {
    /// Opens an enrolled manager's directory, gives it cards, rules and passwords, and runs it.
    pub(super) async fn open(path: PathBuf, gateway: &str) -> Result<Self, Failure> {
        let card = card("9999990000000014")?;
        let decoy = self::card("9999990000000022")?;
        let settings = settings(gateway);
        let held = HeldCards::default().with(CARD, held(&card)).with(DECOY, held(&decoy));
        let manager = blocking(move || {
            let ambient = ambient();
            std::fs::write(path.join("manager.toml"), settings)
                .map_err(|error| Failure::environment("io", error.to_string()))?;
            let mut dir = ManagerDir::open(&path)?;
            let mut rng = (ambient.rng)();
            for (which, password) in [(Which::Login, PASSWORD), (Which::Alarm, ALARM)] {
                let now = ambient.clock.now();
                let password = typed(password);
                dir.set_password(which, Some(&password), Cost::USUAL, (now, &mut *rng))?;
            }
            let cards = card_source(dir.settings(), held)?;
            Ok(Manager::new(dir, cards, ambient.clock, ambient.rng)?)
        })
        .await?;
        let (told, events) = mpsc::channel(EVENTS);
        let (orders, ordered) = mpsc::channel(ORDERS);
        let running = tokio::spawn(manager.serve(ordered, told));
        let at = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut home = Self { card, at, orders, events, running, shown: Vec::new() };
        let (mut listens, mut is_registered) = (None, false);
        while listens.is_none() || !is_registered {
            match home.next().await? {
                ManagerHappening::Listening { at } => listens = Some(at),
                ManagerHappening::Relay { connected, .. } => is_registered = connected,
                _ => {}
            }
        }
        home.at = listens.unwrap_or(at);
        Ok(home)
    }

    /// What its screen tells next.
    async fn next(&mut self) -> Result<ManagerHappening, Failure> {
        let told = timeout(PATIENCE, self.events.recv()).await;
        let told = told.ok().flatten();
        let told = told.ok_or_else(|| Failure::check("demo", "the manager tells nothing"))?;
        self.shown.push(format!("{told:?}"));
        Ok(told)
    }

    /// Waits for the first that is wanted.
    pub(super) async fn tells<T>(
        &mut self,
        wanted: impl Fn(&ManagerHappening) -> Option<T>,
    ) -> Result<T, Failure> {
        loop {
            if let Some(found) = wanted(&self.next().await?) {
                return Ok(found);
            }
        }
    }

    /// The number of the session that logs in next.
    pub(super) async fn session(&mut self) -> Result<u32, Failure> {
        let logged_in = |told: &ManagerHappening| match told {
            ManagerHappening::LoggedIn { session } => Some(*session),
            _ => None,
        };
        self.tells(logged_in).await
    }

    /// Waits for a session's end; why it ended.
    pub(super) async fn ended(&mut self, of: u32) -> Result<String, Failure> {
        let ended = |told: &ManagerHappening| match told {
            ManagerHappening::Ended { session, check, .. } if *session == of => Some(check.clone()),
            _ => None,
        };
        self.tells(ended).await
    }

    pub(super) async fn order(&self, order: ManagerOrder) -> Result<(), Failure> {
        let gone = |_| Failure::check("demo", "the manager has ended");
        self.orders.send(order).await.map_err(gone)
    }

    pub(super) async fn stop(self) -> Result<(), Failure> {
        self.order(ManagerOrder::Stop).await?;
        let ended = self.running.await;
        ended.map_err(|error| Failure::environment("task", error.to_string()))??;
        Ok(())
    }
}

/// An EMV-like card of the emulator.
fn card(number: &str) -> Result<BankCard, Failure> {
    let settings = BankCardSettings::new(number, "1234");
    let settings = settings.ok_or_else(|| Failure::check("demo", "no card number"))?;
    Ok(BankCard::new(&settings, (ambient().rng)()))
}

/// The card as the manager opens it.
fn held(card: &BankCard) -> impl Fn() -> Result<OpenCard, LinkError> + Send + Sync + use<> {
    let card = card.clone();
    move || {
        let (atr, again) = (card.answer_to_reset(), card.clone());
        let reset = Box::new(move || {
            again.restart();
            Ok(again.answer_to_reset())
        });
        Ok(OpenCard::new(Box::new(card.clone()), atr, reset))
    }
}

/// What its owner has written down.
fn settings(gateway: &str) -> String {
    format!(
        r#"
listen = "127.0.0.1:0"
gateway = "{gateway}"
policies = ["encrypt+mac", "mac"]
consent = "never"

[alarm]
cards = "decoys"
currency = 156
max-amount = 5000

[[card]]
id = "{CARD}"
label = "Debit card"
aids = ["F04353544553540101"]
limits = {{ currency = 156, max-amount = 50000 }}

[[card]]
id = "{DECOY}"
label = "Prepaid card"
decoy = true
aids = ["F04353544553540101"]
"#
    )
}
