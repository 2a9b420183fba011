//! What sleeve and manager say to the server that joins them (A9), inside a channel with it.
//!
//! A manager behind a home router [registers](DeviceMessage::Register) with the server; a sleeve
//! asks to [meet](DeviceMessage::Meet) it. From then on each [piece](Piece) of bytes of one goes to
//! the other as it came: records of their own channel (A1, A2, A3), which the server cannot read.
//!
//! [`message`] has the messages, each the plaintext of one record of the device's channel with the
//! server. [`Meetings`] is the server's bookkeeping and [`MeetingEnd`] a device's, both without
//! input, output or clock. At most [`WINDOW`] bytes of a direction are under way: more is sent only
//! for [`Credit`](DeviceMessage::Credit), which the receiver gives once it has taken what came, and
//! the server may pass on later. So a slow side holds its peer back and costs the server no memory.
//!
//! Absent on purpose: who may meet whom. The manager decides that, in its channel with the sleeve.

mod bucket;
mod end;
mod meetings;
pub mod message;

pub use bucket::Rate;
pub use end::{EndState, MeetingEnd, WindowExceeded};
pub use meetings::{
    Counts, Dismissal, Limits, MeetRefusal, Meetings, Party, RelayError, SeatId, WAITING_MAX,
};
pub use message::{
    Address, Alarm, AlarmId, CheckName, CloseReason, Credited, DeviceMessage, MeetingId,
    MessageError, Piece, RelayMessage, RelayRefusal, Serial,
};

/// Most bytes of a direction of one meeting that are sent and not credited.
pub const WINDOW: u32 = 64 * 1024;
/// Most bytes of one piece.
pub const PIECE_MAX: usize = 8 * 1024;
/// How much a receiver gathers before it gives credit, unless nothing more is under way.
pub const CREDIT_STEP: u32 = WINDOW / 4;
