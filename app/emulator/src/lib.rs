//! Emulated SAM module, ID card, bank card and serial line: for the demo, the tests, and users
//! without hardware.
//!
//! **The emulator's own scheme.** How real cards and real SAM modules authenticate each other and
//! encrypt is not published. The cryptography here ([`Scheme`]) is this emulator's own, made from
//! standard primitives under a key that card and SAM share; it says nothing about real ones. The
//! module's frames, commands, lengths and status codes are the real protocol's, except for the
//! commands `E0 xx`, which are the emulator's extension for a card that lies on a remote reader.
//! All persons on the sample documents are invented, with region codes that do not exist where
//! the document allows it.
//!
//! The bank card ([`BankCard`]) speaks EMV's commands; its cryptograms are real ones under a
//! published test key.
//!
//! Absent on purpose: any way to read a real card.

mod bank_card;
mod card;
mod card_file;
mod faults;
mod line;
mod sam;
mod sam_pty;
mod samples;
mod scheme;

pub use bank_card::{
    AID_CREDIT, AID_DEBIT, BankCard, BankCardSettings, CRYPTOGRAM_LEN, Counts, Cryptogram,
    CryptogramInput, DISTANCE_MAX, DistanceCheck, Issuer, PIN_TRIES, PPSE, PSE, PayError, Payment,
    Receipt, TEST_ISSUER_KEY, TEST_OBJECT, TEST_PAN, TEST_PIN, pay, pay_timed,
};
pub use card::{CardHandle, CardImage, EmulatedCard};
pub use card_file::{CardFileError, load_card, parse_card};
pub use faults::{Fault, Faults};
pub use line::{LineEnd, LineFault, LineFaults, SerialLine};
pub use sam::{EmulatedSam, Reply};
pub use sam_pty::SamPty;
pub use samples::{sample, samples};
pub use scheme::{EmulatorError, MASTER_KEY_LEN, Scheme};
