//! How modules are, as operators and metrics see it.

use std::collections::BTreeMap;

use countersign_idcard::Check;
use countersign_idcard::sam::SamError;

use super::record::SamTally;

/// Why a module, or a connection to a SAM host, is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SamFailure {
    /// Stable name of the failed check.
    pub check: &'static str,
    /// One sentence for an operator.
    pub detail: String,
}

impl From<SamError> for SamFailure {
    fn from(error: SamError) -> Self {
        Self { check: Check::from(&error).name(), detail: error.to_string() }
    }
}

/// What a module is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SamState {
    /// It has not answered yet.
    Starting,
    /// It waits for a read.
    Ready,
    /// A read has it.
    Leased,
    /// An operator takes it out of service; what is under way may finish.
    Draining,
    /// It is out of service, by an operator's word.
    Drained,
    /// It failed too often in too short a time and is put aside.
    Quarantined,
    /// It failed, and is tried again.
    Failed,
}

/// How a module is, or a connection to a SAM host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SamHealth {
    /// The port's name, or the host's and the number of the connection.
    pub port: String,
    /// The module's id once it has answered, as the trade writes it; at a SAM host, of the module
    /// leased last.
    pub sam_id: Option<String>,
    /// Whether it answers.
    pub ready: bool,
    /// What it is doing.
    pub state: SamState,
    /// The last failure, if it is not ready.
    pub failure: Option<SamFailure>,
    /// How often it was lost.
    pub failures: u64,
    /// How many reads it did for this server.
    pub reads: u64,
    /// What each module that was at this port did.
    pub tallies: Vec<(String, SamTally)>,
}

/// A module, wherever it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SamModule {
    /// The module's id, once it has answered.
    pub sam_id: Option<String>,
    /// The port, or the SAM host and the port there.
    pub port: String,
    /// What it is doing.
    pub state: SamState,
    /// How often it was lost; of a port whose module has never answered, how often the port was.
    pub failures: u64,
    /// How many reads it did for this server.
    pub reads: u64,
    /// Its operations that failed for this server, by the check's name.
    pub failed: BTreeMap<&'static str, u64>,
}
