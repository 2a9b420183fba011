//! The crate through its public interface. Whole reads against emulated parts are in
//! `app/emulator`.

mod cache;
mod flows;
mod frames;
mod messages;
mod records;
mod sam_host;
