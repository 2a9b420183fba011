//! Device programs. So far: the ID-card reader without a SAM (C).
//!
//! [`DeviceDir`] is a device's own storage, with its key in software where there is no security
//! chip; [`enroll`] gets it a certificate; [`Reader`] reads cards.
//!
//! Absent on purpose: server code. A device knows the protocols and its card, nothing else.
#![forbid(unsafe_code)]

mod api;
mod device_dir;
mod enroll;
mod reader;
mod traffic;

pub use api::{Api, ApiError};
pub use device_dir::{DeviceDir, DeviceDirError, Settings};
pub use enroll::{EnrollError, enroll, server_suite};
pub use reader::{CARD_WAIT, Outcome, RETRY_FOR, ReadError, Reader, Source, Spoken};
pub use traffic::Traffic;
