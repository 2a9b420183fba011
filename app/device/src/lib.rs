//! Device programs: the ID-card reader without a SAM (C) and its host, the POS terminal (E).
//!
//! [`DeviceDir`] is a device's own storage, with its key in software where there is no security
//! chip; [`enroll`] gets it a certificate; [`Reader`] reads cards, over
//! any [`Uplink`]; [`Resident`] lets it wait for commands; [`Host`] is the PC at the other end of
//! its serial line. [`Pos`] is a terminal that keys are injected into. [`KeyDir`] is a
//! [`SecurityDevice`] that confirms payments, [`Phone`] the phone between it and the server (D).
//!
//! Absent on purpose: server code. A device knows the protocols and its card, nothing else.
#![forbid(unsafe_code)]

mod api;
mod cache_files;
mod device_dir;
mod enroll;
mod host;
mod journal;
mod key;
mod line;
mod phone;
mod pos;
mod private_file;
mod reader;
mod resident;
mod traffic;
mod uplink;

pub use api::{Api, ApiError, ServerEvent};
pub use cache_files::CacheFiles;
pub use device_dir::{DeviceDir, DeviceDirError, DeviceKind, Settings};
pub use enroll::{EnrollError, enroll, enroll_as, server_suite};
pub use host::{Host, HostError, HostEvent, HostOptions};
pub use journal::{JournalError, KEPT_MAX, Kept, KeptRead, KeptReads, ReadJournal};
pub use key::{
    DeviceAnswer, Holder, KeyDir, KeyEnrolment, KeyError, KeySettings, PIN_MAX, PIN_MIN, PIN_TRIES,
    SecurityDevice, SignWith, device_suite,
};
pub use line::{Hello, LINE_VERSION, LineFailure, LineResult, Progress, ReadSummary, Step};
pub use phone::{AnswerTaken, Phone, PhoneError, PhoneSettings, RejectBecause, WaitingPayment};
pub use pos::{
    Discarded, Element, Enrolment, InjectedKey, KeyState, Pos, PosError, RSA_BITS, SlotKey, Status,
    TOKEN_REFUSED, Updated,
};
pub use reader::{
    CARD_WAIT, DATAGRAM_ATTEMPT, Outcome, RETRY_FOR, ReadError, Reader, Source, Spoken,
};
pub use resident::{Key, Resident, ResidentEvent};
pub use traffic::Traffic;
pub use uplink::Uplink;
