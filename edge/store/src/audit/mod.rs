//! The audit: append-only rows, linked into a hash chain soon after, with signed checkpoints.

mod rows;

pub use rows::{AuditEntry, AuditOutcome, AuditRow, MAX_DETAIL_LEN, MAX_FIELD_LEN};
