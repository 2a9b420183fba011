//! The audit: append-only rows, linked into a hash chain soon after, with signed checkpoints.

mod chain;
mod checkpoint;
mod rows;
mod verify;

pub use chain::{ChainOutcome, LEASE_TIME, MAX_CHAIN_ROWS, chain_audit, release_chain};
pub use checkpoint::{Checkpoint, CheckpointError, MAX_CHECKPOINT_LINE};
pub use rows::{AuditEntry, AuditOutcome, AuditRow, MAX_DETAIL_LEN};
pub(crate) use rows::{append, append_all};
pub use verify::{AuditFault, AuditReport, BadRow, verify_audit};
