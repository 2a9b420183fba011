//! The relay as servers run it (A9): several on one database, who is barred, alarms on the way; in
//! virtual time.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod barred;
mod meetings;
mod several;
mod stage;
