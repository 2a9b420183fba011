//! `device manager`: the cards at home, for paired sleeves (A).

mod audit;
mod enroll;
mod happening;
mod keys;
mod lists;
mod passwords;
mod program;
mod screen;
mod serve;
mod settings;
mod view;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use countersign_device::ManagerError;

use crate::failure::Failure;
use crate::output::Output;

/// What a manager is asked to do.
#[derive(Subcommand)]
pub(crate) enum ManagerCommand {
    /// Make a manager's key and have the server certify it.
    ///
    /// Example: countersign device manager enroll --manager ./manager --serial MGR-1
    /// --server https://localhost:8443 --ca ca.pem --token-file admin.token
    Enroll(enroll::Enroll),
    /// Show what the manager is.
    ///
    /// Example: countersign device manager show --manager ./manager
    Show {
        #[command(flatten)]
        which: Which,
    },
    /// Set, change or take away the login password or the alarm password.
    ///
    /// Both let a sleeve log in, and nobody sees a difference. The alarm password also raises an
    /// alarm at the server, and gives the sleeve only what the settings allow after an alarm.
    ///
    /// Example: countersign device manager password login --manager ./manager
    /// --new-password-file login-password
    Password(passwords::SetPassword),
    /// Show the settings (manager.toml in its directory), or check others and take them.
    ///
    /// Example: countersign device manager settings --manager ./manager --from manager.toml
    Settings(settings::ShowSettings),
    /// The cards that the settings name, and whether each is in its reader.
    ///
    /// Example: countersign device manager cards --manager ./manager
    Cards {
        #[command(flatten)]
        which: Which,
    },
    /// Let sleeves pair, and use the cards.
    ///
    /// On a terminal it draws a screen, whose last line tells the keys. Elsewhere, and with --lines
    /// or --json, it tells a line for all that happens, and is driven by lines on stdin; type
    /// `help`.
    ///
    /// Example: countersign device manager serve --manager ./manager
    Serve(serve::Serve),
    /// The sleeves that are paired with the manager.
    ///
    /// Example: countersign device manager sleeves --manager ./manager
    Sleeves {
        #[command(flatten)]
        which: Which,
    },
    /// End a sleeve's pairing: it is lost. Where the manager serves, type `revoke` there.
    ///
    /// It cannot pair again until it is forgotten.
    ///
    /// Example: countersign device manager revoke SLV-1 --manager ./manager
    Revoke(lists::OneSleeve),
    /// Forget a sleeve, and that it was revoked: it may pair again.
    ///
    /// Example: countersign device manager forget SLV-1 --manager ./manager
    Forget(lists::OneSleeve),
    /// What happened: who came, which cards were used, and how much was paid.
    #[command(subcommand)]
    Audit(audit::Audit),
}

/// Which directory.
#[derive(Args)]
pub(crate) struct Which {
    /// The manager's own directory.
    #[arg(long, value_name = "DIR", default_value = "./countersign-manager")]
    manager: PathBuf,
}

impl ManagerCommand {
    pub(crate) async fn run(self, json: bool) -> Result<Output, Failure> {
        // Files, keys, hashes, cards and the API client block.
        let work: Box<dyn FnOnce() -> Result<Output, Failure> + Send> = match self {
            Self::Enroll(enroll) => Box::new(|| enroll.run()),
            Self::Show { which } => Box::new(move || lists::show(&which)),
            Self::Password(password) => Box::new(|| password.run()),
            Self::Settings(settings) => Box::new(|| settings.run()),
            Self::Cards { which } => Box::new(move || lists::cards(&which)),
            Self::Serve(serve) => return serve.run(json).await,
            Self::Sleeves { which } => Box::new(move || lists::sleeves(&which)),
            Self::Revoke(one) => Box::new(|| one.revoke()),
            Self::Forget(one) => Box::new(|| one.forget()),
            Self::Audit(audit::Audit::Show(show)) => Box::new(|| show.run()),
            Self::Audit(audit::Audit::Verify(verify)) => Box::new(|| verify.run()),
        };
        let working = tokio::task::spawn_blocking(work);
        working.await.map_err(|error| Failure::environment("task", error.to_string()))?
    }
}

impl From<ManagerError> for Failure {
    fn from(error: ManagerError) -> Self {
        let failure = if error.is_environment() {
            Self::environment(error.check(), error.to_string())
        } else {
            Self::check(error.check(), error.to_string())
        };
        Self { incident: error.incident().map(str::to_owned), ..failure }
    }
}
