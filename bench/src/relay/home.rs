//! A manager with emulated cards, and sleeves that are paired with it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use countersign_crypto::Secret;
use countersign_device::{
    DeviceKind, HeldCards, Manager, ManagerDir, ManagerError, ManagerHappening, ManagerOrder,
    OpenCard, RaisedAlarm, Sleeve, SleeveDir, Way, card_source,
};
use countersign_emulator::{BankCard, BankCardSettings};
use countersign_server::ambient;
use countersign_wallet::login::{Cost, Which};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::stage::Stage;
use crate::Fallible;

pub(super) const MANAGER: &str = "MGR-BENCH";
pub(super) const PASSWORD: &str = "correct horse";
pub(super) const ALARM: &str = "incorrect horse";
/// As long as the others: nothing may depend on that.
pub(super) const WRONG: &str = "uncorrect horse";
/// Everything takes less, but for a machine that is stuck.
const PATIENCE: Duration = Duration::from_secs(30);
const EVENTS: usize = 4096;

/// A manager that runs.
pub(super) struct Home {
    /// Where it listens.
    pub(super) at: SocketAddr,
    orders: mpsc::Sender<ManagerOrder>,
    happenings: mpsc::Receiver<ManagerHappening>,
    running: JoinHandle<Result<(), ManagerError>>,
}

pub(super) fn typed(password: &str) -> Secret {
    Secret::copied_from(password.as_bytes())
}

/// An EMV-like card of the emulator.
pub(super) fn card() -> Fallible<BankCard> {
    let settings = BankCardSettings::new("9999990000000014", "1234").ok_or("no card number")?;
    Ok(BankCard::new(&settings, (ambient().rng)()))
}

/// The cards of a manager: what its settings say of them, and those in this process.
#[derive(Default)]
pub(super) struct Cards {
    settings: String,
    held: HeldCards,
}

impl Cards {
    /// Cards in this process.
    pub(super) fn emulated(cards: Vec<(&'static str, BankCard)>) -> Self {
        cards.into_iter().fold(Self::default(), |all, (id, card)| {
            let held = all.held.with(id, move || {
                let again = card.clone();
                let reset = Box::new(move || {
                    again.restart();
                    Ok(again.answer_to_reset())
                });
                Ok(OpenCard::new(Box::new(card.clone()), card.answer_to_reset(), reset))
            });
            Self { settings: all.settings + &of_card(id), held }
        })
    }

    /// Cards in PC/SC readers of these names.
    #[cfg(feature = "pcsc")]
    pub(super) fn in_readers(cards: &[(&str, &str)]) -> Self {
        let each = |(id, reader): &(&str, &str)| format!("{}reader = {reader:?}\n", of_card(id));
        Self { settings: cards.iter().map(each).collect(), held: HeldCards::default() }
    }
}

fn of_card(id: &str) -> String {
    format!("\n[[card]]\nid = \"{id}\"\nlabel = \"{id}\"\naids = [\"F04353544553540101\"]\n")
}

impl Home {
    /// Enrols a manager, gives it cards and passwords, and runs it. Without a `gateway` its alarms
    /// go to `alarms`.
    pub(super) async fn open(
        stage: &Stage,
        dir: &Path,
        cards: Cards,
        gateway: Option<SocketAddr>,
        alarms: Option<mpsc::Sender<RaisedAlarm>>,
    ) -> Fallible<Self> {
        stage.enrolled(DeviceKind::Manager, dir, MANAGER).await?;
        let path = dir.join(MANAGER);
        let gateway_line = gateway.map(|gateway| format!("gateway = \"{gateway}\"\n"));
        let text = format!(
            "listen = \"127.0.0.1:0\"\nconsent = \"never\"\n{}{}",
            gateway_line.unwrap_or_default(),
            cards.settings
        );
        std::fs::write(path.join("manager.toml"), text)?;
        let opened = tokio::task::spawn_blocking(move || {
            let ambient = ambient();
            let mut dir = ManagerDir::open(&path)?;
            let mut rng = (ambient.rng)();
            for (which, password) in [(Which::Login, PASSWORD), (Which::Alarm, ALARM)] {
                let now = ambient.clock.now();
                dir.set_password(which, Some(&typed(password)), Cost::LEAST, (now, &mut *rng))?;
            }
            let cards = card_source(dir.settings(), cards.held)?;
            Manager::new(dir, cards, ambient.clock, ambient.rng)
        });
        let mut manager = opened.await??;
        if let Some(alarms) = alarms {
            manager.alarms_to(alarms);
        }
        let (told, happenings) = mpsc::channel(EVENTS);
        let (orders, ordered) = mpsc::channel(8);
        let running = tokio::spawn(manager.serve(ordered, told));
        let at = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut home = Self { at, orders, happenings, running };
        let (mut listens, mut registered) = (false, gateway.is_none());
        while !listens || !registered {
            match home.next().await? {
                ManagerHappening::Listening { at } => (home.at, listens) = (at, true),
                ManagerHappening::Relay { connected, .. } => registered = connected,
                _ => {}
            }
        }
        Ok(home)
    }

    async fn next(&mut self) -> Fallible<ManagerHappening> {
        let told = timeout(PATIENCE, self.happenings.recv()).await?;
        Ok(told.ok_or("the manager has ended")?)
    }

    /// What it has told meanwhile is not wanted.
    pub(super) fn forget(&mut self) {
        while self.happenings.try_recv().is_ok() {}
    }

    /// Enrols a sleeve and pairs it.
    pub(super) async fn paired(
        &mut self,
        stage: &Stage,
        dir: &Path,
        serial: &str,
    ) -> Fallible<Sleeve> {
        stage.enrolled(DeviceKind::Sleeve, dir, serial).await?;
        let ambient = ambient();
        let sleeve = Sleeve::new(SleeveDir::open(&dir.join(serial))?, ambient.clock, ambient.rng);
        self.orders.send(ManagerOrder::OpenWindow { seconds: 60 }).await?;
        while !matches!(self.next().await?, ManagerHappening::WindowOpened { .. }) {}
        sleeve.pair(&self.way(), Some(MANAGER), |_shown| true).await?;
        Ok(sleeve)
    }

    /// The way on the LAN.
    pub(super) fn way(&self) -> Way {
        Way::Direct(self.at.to_string())
    }

    pub(super) async fn stop(self) -> Fallible<()> {
        self.orders.send(ManagerOrder::Stop).await?;
        Ok(self.running.await??)
    }
}
