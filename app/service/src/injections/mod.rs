//! Injections (E3, E5–E8): which key goes where, the session that brings it there, and runs over
//! an inventory.

mod assign;
mod rebinding;
mod report;
mod runs;
mod session;
mod tokens;

use std::time::Duration;

use countersign_store::{
    Injection, InjectionFilter, InjectionRun, Page, RunKey, RunRow, StoreError, Tx, Unexpected,
};

pub use assign::{ASSIGN_MAX, AssignKey, AssignTo, Assigned};
pub use session::InjectionSession;

use crate::{Service, ServiceError};

/// The metric of injections by `outcome`: `installed`, `failed` (by the terminal's word or a wrong
/// check value).
pub const INJECTIONS: &str = "countersign_injections_total";
/// Tokens that are made for one terminal in [`TOKENS_WINDOW`]. One that asks for more is told to
/// come back later: each costs an RSA signature.
pub const TOKENS_PER_WINDOW: u64 = 240;
/// The time in which they count.
pub const TOKENS_WINDOW: Duration = Duration::from_secs(3600);

/// A run against its inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunReport {
    /// The run.
    pub run: InjectionRun,
    /// Its keys, by place.
    pub keys: Vec<RunKey>,
    /// Its terminals, each with what came of the keys.
    pub terminals: Vec<RunRow>,
    /// Terminals that are not of the inventory and were seen all the same.
    pub unexpected: Vec<Unexpected>,
}

/// Where a terminal stands in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reconciled {
    /// It has all of the run's keys.
    Installed,
    /// It lacks some, and nothing failed.
    Missing,
    /// An injection failed, and was not repaired.
    Failed,
}

impl Reconciled {
    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Missing => "missing",
            Self::Failed => "failed",
        }
    }
}

impl RunReport {
    /// Where this terminal of the inventory stands.
    #[must_use]
    pub fn reconciled(&self, row: &RunRow) -> Reconciled {
        if row.failed > 0 {
            Reconciled::Failed
        } else if !self.keys.is_empty() && row.installed as usize >= self.keys.len() {
            Reconciled::Installed
        } else {
            Reconciled::Missing
        }
    }
}

fn report(tx: &mut Tx<'_>, run: InjectionRun) -> Result<RunReport, StoreError> {
    let keys = tx.run_keys(&run.id)?;
    let terminals = tx.run_rows(&run.id)?;
    let unexpected = tx.run_unexpected(&run)?;
    Ok(RunReport { run, keys, terminals, unexpected })
}

impl Service {
    /// Injections, newest first.
    ///
    /// # Errors
    /// `page-limit`, `page-cursor`.
    pub async fn injections(
        &self,
        filter: InjectionFilter,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<Injection>, ServiceError> {
        self.store
            .read("injections_page", move |tx| {
                Ok(tx.injections_page(&filter, cursor.as_deref(), limit)?)
            })
            .await
    }

    /// One injection by its id.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub async fn injection(&self, id: &str) -> Result<Injection, ServiceError> {
        let id = id.to_owned();
        let found = self
            .store
            .read("injection_by_id", move |tx| Ok::<_, ServiceError>(tx.injection_by_id(&id)?))
            .await?;
        found.ok_or(ServiceError::NotFound { what: "injection" })
    }

    /// What stands in a terminal: for each place the key that was installed last, and what waits
    /// there or has failed since.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub async fn terminal_keys(&self, terminal_id: &str) -> Result<Vec<Injection>, ServiceError> {
        let id = terminal_id.to_owned();
        self.store
            .read("terminal_keys", move |tx| {
                tx.terminal_by_id(&id)?.ok_or(ServiceError::NotFound { what: "terminal" })?;
                Ok(tx.keys_at(&id)?)
            })
            .await
    }
}
