//! Device programs: the ID-card reader without a SAM (C) and its host, the POS terminal (E).
//!
//! [`DeviceDir`] is a device's own storage, with its key in software where there is no security
//! chip; [`enroll`] gets it a certificate; [`Reader`] reads cards, over
//! any [`Uplink`]; [`Resident`] lets it wait for commands; [`Host`] is the PC at the other end of
//! its serial line. [`Pos`] is a terminal that keys are injected into. [`KeyDir`] is a
//! [`SecurityDevice`] that confirms payments, [`CardKey`] one behind a reader, [`Phone`] the phone
//! between it and the server (D). [`CardDir`] is a signing card with a joint password,
//! [`TerminalCard`] and [`JointTerminal`] are the terminal that such a card pays at (B). [`Sleeve`]
//! is a card that shows one of the real cards at home, [`Manager`] the program there that has them
//! (A).
//!
//! [`Helper`] gives a browser's phone page a device's answers, on loopback alone.
//!
//! Absent on purpose: the server's code. A device knows the protocols and its card, nothing else.
#![forbid(unsafe_code)]

mod api;
#[cfg(test)]
mod bank;
mod cache_files;
mod card;
mod device_dir;
mod enroll;
mod hex_secret;
mod host;
mod journal;
mod key;
mod line;
mod manager;
mod phone;
mod pos;
mod private_file;
mod reader;
mod relay;
mod rendering;
mod resident;
mod sleeve;
mod terminal;
mod traffic;
mod uplink;

pub use api::{Api, ApiError, ServerEvent};
pub use cache_files::CacheFiles;
pub use card::{CardChipDir, CardDir, CardEnrolment, CardSettings, InProcessJointCard};
#[cfg(feature = "pkcs11")]
pub use countersign_hsm::TokenName;
pub use device_dir::{DeviceDir, DeviceDirError, DeviceKind, Settings};
pub use enroll::{EnrollError, enroll, enroll_as, server_suite};
pub use host::{Host, HostError, HostEvent, HostOptions};
pub use journal::{JournalError, KEPT_MAX, Kept, KeptRead, KeptReads, ReadJournal};
pub use key::{
    CardKey, DeviceAnswer, Holder, InProcessCard, KeyChip, KeyDir, KeyEnrolment, KeyError,
    KeySettings, OfflineAnswer, PIN_MAX, PIN_MIN, PIN_TRIES, PUK_DIGITS, PUK_TRIES, SecurityDevice,
    ShownBy, SignWith, device_suite,
};
#[cfg(feature = "pkcs11")]
pub use key::{TOKEN_KEY_LABEL, TokenKey, TokenPlace};
pub use line::{Hello, LINE_VERSION, LineFailure, LineResult, Progress, ReadSummary, Step};
pub use manager::{
    AUDIT_MAX, AlarmCards, AlarmSettings, AuditReport, CONTACTS_MAX, CONTACTS_PER_SOURCE_MAX,
    CardSettings as ManagerCardSettings, CardSource, Consent, Entrance, HeldCards,
    LEASE_SECONDS_MIN, Manager, ManagerDir, ManagerError, ManagerHappening, ManagerOrder,
    ManagerSettings, OpenCard, Origin, PairedSleeve, ResetCard, Route, SESSIONS_MAX, SLEEVES_MAX,
    WINDOW_MAX_SECONDS, card_source,
};
pub use phone::{
    AnswerTaken, Confirm, Helper, HelperError, HelperEvent, PageOrigin, Phone, PhoneError,
    PhoneSettings, Refusal, RejectBecause, WRONG_TOKENS_MAX, WaitingPayment,
};
pub use pos::{
    Discarded, Element, Enrolment, InjectedKey, KeyState, Pos, PosError, RSA_BITS, SlotKey, Status,
    TOKEN_REFUSED, Updated,
};
pub use reader::{
    CARD_WAIT, DATAGRAM_ATTEMPT, Outcome, RETRY_FOR, ReadError, Reader, Source, Spoken,
};
pub use relay::{
    Incoming, LINK_HEARTBEAT, LinkStatus, MakeRng, Meeting, RaisedAlarm, RelayError, RelayLink,
};
pub use rendering::{RenderedImage, Rendering};
pub use resident::{Key, Resident, ResidentEvent};
pub use sleeve::{
    MANAGERS_MAX, PairedManager, RelayedCard, Shown, Sleeve, SleeveDir, SleeveError,
    SleeveHappening, SleeveSession, TakenCard, Way,
};
pub use terminal::{
    Announced, CardSigned, CreatedPayment, JointError, JointTerminal, PaymentOrder, SCAN_BYTES_MAX,
    SCAN_PIXELS_MAX, ScanError, TerminalCard, scan,
};
pub use traffic::Traffic;
pub use uplink::Uplink;
