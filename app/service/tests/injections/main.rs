//! Sessions of terminals against the service, on SQLite, with a middle that tampers with what the
//! terminal gets: each defect is refused under its own name, and the key in use stays.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod assign;
mod lost;
mod plant;
mod rebinding;
mod session;
mod tamper;
