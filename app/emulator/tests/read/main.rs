//! Whole reads against the emulated parts.

mod faults;
mod flow;
mod parts;
mod pty;
mod swap;
mod world;
