//! Receipts and evidence: what is made verifies, and whatever is altered fails a check with a name.
#![expect(clippy::unwrap_used, reason = "tests")]

mod case;
mod evidence;
mod joint;
mod receipt;
