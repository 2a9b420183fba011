//! Messages and flows of key injection, through the public interface.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod flows;
mod messages;
mod stage;
