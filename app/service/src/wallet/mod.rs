//! What joins sleeves and managers (A9): who is here, who meets whom, and where else a manager is.

mod meeting;
mod meeting_session;

pub use meeting::{RELAY_KEEP_EVERY, RELAY_PLACE_TIME, Relay};
pub use meeting_session::{RelayBroken, RelaySession};

/// Meetings asked for, by outcome: `met`, `elsewhere`, or the check that refused.
pub const RELAY_MEETS: &str = "countersign_relay_meets_total";
/// Bytes that the relay has passed on.
pub const RELAY_BYTES: &str = "countersign_relay_bytes_total";
/// What is at the relay now, by kind: `devices`, `managers`, `meetings`.
pub const RELAY_PRESENT: &str = "countersign_relay_present";
