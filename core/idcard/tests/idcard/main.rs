//! The crate through its public interface. Whole reads against emulated parts are in
//! `app/emulator`.

mod cache;
mod failover;
mod flows;
mod frames;
mod lossy;
mod messages;
mod presence;
mod records;
mod remote;
mod resend;
mod resend_reader;
mod sam_host;
mod storage;
