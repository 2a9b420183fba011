//! Webhooks: what is sent, where it may go, what happens when it does not arrive; in virtual time.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod addresses;
mod alarms;
mod attempts;
mod people;
mod stage;
