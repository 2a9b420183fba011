//! `device sleeve`: a card that is every card at home (A).

mod connect;
mod connection;
mod enroll;
mod keys;
mod pair;
mod pairs;
mod slot;
mod way;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use countersign_device::{Sleeve, SleeveDir, SleeveError};
use countersign_server::ambient;

use crate::failure::Failure;
use crate::output::Output;

/// What a sleeve is asked to do.
#[derive(Subcommand)]
pub(crate) enum SleeveCommand {
    /// Make a sleeve's key and have the server certify it.
    ///
    /// Example: countersign device sleeve enroll --sleeve ./sleeve --serial SLV-1
    /// --server https://localhost:8443 --ca ca.pem --token-file admin.token
    Enroll(enroll::Enroll),
    /// Show what the sleeve is.
    ///
    /// Example: countersign device sleeve show --sleeve ./sleeve
    Show {
        #[command(flatten)]
        which: Which,
    },
    /// Pair with a manager whose owner has opened its pairing window.
    ///
    /// Shows the manager's certified serial number on stderr, and takes `yes` or `no` from stdin.
    ///
    /// Example: countersign device sleeve pair --sleeve ./sleeve --direct 192.168.1.20:8446
    Pair(pair::Pair),
    /// The managers that the sleeve is paired with.
    ///
    /// Example: countersign device sleeve managers --sleeve ./sleeve
    Managers {
        #[command(flatten)]
        which: Which,
    },
    /// Forget a manager. Its owner revokes the sleeve there.
    ///
    /// Example: countersign device sleeve forget MGR-1 --sleeve ./sleeve
    Forget(pairs::Forget),
    /// Log in, and look what cards there are.
    ///
    /// Example: countersign device sleeve list --sleeve ./sleeve --relay bank.example:8444
    /// --password-file password
    List {
        #[command(flatten)]
        connection: connection::Connection,
    },
    /// Log in, and be one of the cards in the virtual reader of PC/SC (vpcd).
    ///
    /// It is driven by lines on stdin; type `help`. The card is out of the reader as soon as the
    /// way home is lost.
    ///
    /// Example: countersign device sleeve connect --sleeve ./sleeve --relay bank.example:8444
    /// --password-file password --card bank --virtual-reader 35963
    Connect(connect::Connect),
}

/// Which directory.
#[derive(Args)]
pub(crate) struct Which {
    /// The sleeve's own directory.
    #[arg(long, value_name = "DIR", default_value = "./countersign-sleeve")]
    sleeve: PathBuf,
}

impl SleeveCommand {
    pub(crate) async fn run(self, json: bool) -> Result<Output, Failure> {
        // Files, keys and the API client block.
        let work: Box<dyn FnOnce() -> Result<Output, Failure> + Send> = match self {
            Self::Enroll(enroll) => Box::new(|| enroll.run()),
            Self::Show { which } => Box::new(move || pairs::show(&which)),
            Self::Pair(pair) => return pair.run().await,
            Self::Managers { which } => Box::new(move || pairs::managers(&which)),
            Self::Forget(forget) => Box::new(|| forget.run()),
            Self::List { connection } => return connection::list(connection).await,
            Self::Connect(connect) => return connect.run(json).await,
        };
        let working = tokio::task::spawn_blocking(work);
        working.await.map_err(|error| Failure::environment("task", error.to_string()))?
    }
}

/// The sleeve of this directory.
fn opened(which: &Which) -> Result<Sleeve, Failure> {
    let ambient = ambient();
    let rng = ambient.rng.clone();
    Ok(Sleeve::new(SleeveDir::open(&which.sleeve)?, ambient.clock, rng))
}

impl From<SleeveError> for Failure {
    fn from(error: SleeveError) -> Self {
        let failure = if error.is_environment() {
            Self::environment(error.check(), error.to_string())
        } else {
            Self::check(error.check(), error.to_string())
        };
        Self { incident: error.incident().map(str::to_owned), ..failure }
    }
}
