//! The record of a reader and the rules over it (C5), in virtual time.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod clocks;
mod desk;
mod disk;
mod kinds;
mod pace;
mod record;
mod standing;
