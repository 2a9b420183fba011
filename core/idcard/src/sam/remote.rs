//! What a server and a SAM host say to each other inside the secure channel (C12).
//!
//! A SAM host stands alone and serves its modules to servers. The server begins: [`ToHost::Hello`]
//! and its answer settle the version; then a lease, operations under it, its release, and so on.
//! Each operation is one message and has one answer. Between them the server may ask how the
//! modules are ([`ToHost::Ping`]) and say which of them are out of service ([`ToHost::Drained`]).
//!
//! Each message is the plaintext of exactly one record: one type byte, fixed fields, lists behind a
//! count with a cap; trailing bytes are an error.

use alloc::vec::Vec;
use core::time::Duration;

use zeroize::Zeroizing;

use super::{SamError, SamOperation, SamResult};
use crate::ENCRYPTED_LEN_MAX;
use crate::ShortText;
use crate::message::MessageError;

mod codec;
mod failure;

use codec::{Input, Output};

/// Version 1 of this protocol.
pub const REMOTE_V1: u16 = 1;
/// Most bytes of an encoded message; longer input is refused unread.
pub const REMOTE_LEN_MAX: usize = 8192;
/// Most versions in a [`ToHost::Hello`].
pub const VERSIONS_MAX: usize = 8;
/// Most modules of one host.
pub const HOST_MODULES_MAX: usize = 32;
/// Most modules that may be out of service at once.
pub const DRAINED_MAX: usize = 64;
/// Most bytes of a module's id as text, of a port's name, of a host's id.
pub const REMOTE_TEXT_MAX: usize = 64;
/// How often a server probes its connection to a SAM host (the channel's heartbeat).
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(2);
/// How long the host may take to answer a probe; then it is lost, in mid-read too. The host gives a
/// server up that is as late with a probe.
pub const HEARTBEAT_WITHIN: Duration = Duration::from_secs(3);
/// Longest time a server may have its request for a lease wait.
pub const REMOTE_WAIT_MAX: Duration = Duration::from_millis(u16::MAX as u64);

const _: () = assert!(ENCRYPTED_LEN_MAX + 3 <= REMOTE_LEN_MAX);
const _: () = assert!(HOST_MODULES_MAX * (2 * (REMOTE_TEXT_MAX + 1) + 5) + 6 <= REMOTE_LEN_MAX);
const _: () = assert!(DRAINED_MAX * (REMOTE_TEXT_MAX + 1) + 2 <= REMOTE_LEN_MAX);

/// A short text of this protocol.
pub type RemoteText = ShortText<REMOTE_TEXT_MAX>;

/// Server to SAM host.
#[derive(Debug, PartialEq, Eq)]
pub enum ToHost {
    /// 0x01: the versions that the server speaks, the first message. Answer: [`FromHost::Hello`].
    Hello(Vec<u16>),
    /// 0x02: a module for one read, if one is free within this time (whole milliseconds, at most
    /// [`REMOTE_WAIT_MAX`]). Answer: [`FromHost::Leased`] or [`FromHost::Unavailable`].
    Lease(Duration),
    /// 0x03 to 0x07: an operation under the lease. Answer: [`FromHost::Done`] or
    /// [`FromHost::Failed`].
    Operate(SamOperation),
    /// 0x08: the lease is over; a module that holds a card forgets it. No answer.
    Release,
    /// 0x09: how the modules are. Answer: [`FromHost::Pong`] with the same number.
    Ping(u32),
    /// 0x0A: exactly these modules are out of service from now on. No answer.
    Drained(Vec<RemoteText>),
}

/// What a module at a SAM host is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ModuleState {
    /// It has not answered yet.
    Starting = 1,
    /// It waits for a read.
    Ready = 2,
    /// A read has it.
    Leased = 3,
    /// Out of service as soon as its read has ended.
    Draining = 4,
    /// Out of service.
    Drained = 5,
    /// Put aside, because it flaps.
    Quarantined = 6,
    /// It failed, and is tried again.
    Failed = 7,
}

/// A module at a SAM host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleHealth {
    /// Its id; empty until it has answered.
    pub sam_id: RemoteText,
    /// Its port at the host.
    pub port: RemoteText,
    /// What it is doing.
    pub state: ModuleState,
    /// How often it was lost.
    pub failures: u32,
}

/// Why a SAM host gives no lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum NoLease {
    /// No module serves.
    NoneReady = 1,
    /// All are leased.
    Busy = 2,
}

/// SAM host to server.
#[derive(Debug)]
pub enum FromHost {
    /// 0x81: the version chosen, the host's id, and how many modules it has.
    Hello {
        /// One of those offered.
        version: u16,
        /// The id in the host's certificate.
        host: RemoteText,
        /// At most [`HOST_MODULES_MAX`].
        modules: u8,
    },
    /// 0x82: this module is leased.
    Leased(RemoteText),
    /// 0x83: none is.
    Unavailable(NoLease),
    /// 0x84 to 0x88: what an operation gave.
    Done(SamResult),
    /// 0x89: an operation failed.
    Failed(SamError),
    /// 0x8A: how the modules are.
    Pong {
        /// The ping's.
        number: u32,
        /// At most [`HOST_MODULES_MAX`].
        modules: Vec<ModuleHealth>,
    },
}

impl ToHost {
    /// A short name for errors and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Lease(_) => "lease",
            Self::Operate(_) => "operate",
            Self::Release => "release",
            Self::Ping(_) => "ping",
            Self::Drained(_) => "drained",
        }
    }

    /// Encodes.
    ///
    /// # Panics
    /// For a list longer than its cap: the caller's mistake.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Output::new();
        match self {
            Self::Hello(versions) => {
                out.byte(0x01).list(versions, VERSIONS_MAX, |out, version| {
                    out.bytes(&version.to_be_bytes());
                });
            }
            Self::Lease(wait) => {
                let millis = u16::try_from(wait.as_millis()).unwrap_or(u16::MAX);
                out.byte(0x02).bytes(&millis.to_be_bytes());
            }
            Self::Operate(operation) => encode_operation(&mut out, operation),
            Self::Release => drop(out.byte(0x08)),
            Self::Ping(number) => drop(out.byte(0x09).bytes(&number.to_be_bytes())),
            Self::Drained(ids) => {
                out.byte(0x0A).list(ids, DRAINED_MAX, |out, id| {
                    out.text(id);
                });
            }
        }
        out.finish()
    }

    /// Decodes exactly one message.
    ///
    /// # Errors
    /// [`MessageError`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut input = Input::new(bytes)?;
        let message = match input.byte()? {
            0x01 => Self::Hello(input.list(VERSIONS_MAX, Input::u16)?),
            0x02 => Self::Lease(Duration::from_millis(input.u16()?.into())),
            kind @ 0x03..=0x07 => Self::Operate(decode_operation(kind, &mut input)?),
            0x08 => Self::Release,
            0x09 => Self::Ping(input.u32()?),
            0x0A => Self::Drained(input.list(DRAINED_MAX, Input::text)?),
            kind => return Err(MessageError::UnknownType(kind.into())),
        };
        input.end()?;
        Ok(message)
    }
}

fn encode_operation(out: &mut Output, operation: &SamOperation) {
    match operation {
        SamOperation::Begin { configuration } => out.byte(0x03).bytes(configuration.as_bytes()),
        SamOperation::Answer { answer, random } => out.byte(0x04).bytes(answer).bytes(random),
        SamOperation::Decrypt(data) => out.byte(0x05).sized(data.as_bytes()),
        SamOperation::Cancel => out.byte(0x06),
        SamOperation::Status => out.byte(0x07),
    };
}

fn decode_operation(kind: u8, input: &mut Input<'_>) -> Result<SamOperation, MessageError> {
    Ok(match kind {
        0x03 => SamOperation::Begin { configuration: crate::Configuration::new(input.array()?) },
        0x04 => SamOperation::Answer { answer: input.array()?, random: input.array()? },
        0x05 => {
            let data = Zeroizing::new(input.sized()?.to_vec());
            let data = crate::EncryptedData::new(data).map_err(|_| MessageError::Malformed)?;
            SamOperation::Decrypt(data)
        }
        0x06 => SamOperation::Cancel,
        _ => SamOperation::Status,
    })
}

impl FromHost {
    /// A short name for errors and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "hello",
            Self::Leased(_) => "leased",
            Self::Unavailable(_) => "unavailable",
            Self::Done(_) => "done",
            Self::Failed(_) => "failed",
            Self::Pong { .. } => "pong",
        }
    }

    /// Encodes.
    ///
    /// # Panics
    /// For a list longer than its cap: the caller's mistake.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Output::new();
        match self {
            Self::Hello { version, host, modules } => {
                out.byte(0x81).bytes(&version.to_be_bytes()).text(host).byte(*modules);
            }
            Self::Leased(sam_id) => drop(out.byte(0x82).text(sam_id)),
            Self::Unavailable(why) => drop(out.byte(0x83).byte(*why as u8)),
            Self::Done(result) => encode_result(&mut out, result),
            Self::Failed(error) => drop(out.byte(0x89).bytes(&failure::encode(error))),
            Self::Pong { number, modules } => {
                let module = |out: &mut Output, one: &ModuleHealth| {
                    out.text(&one.sam_id).text(&one.port).byte(one.state as u8);
                    out.bytes(&one.failures.to_be_bytes());
                };
                let out = out.byte(0x8A).bytes(&number.to_be_bytes());
                out.list(modules, HOST_MODULES_MAX, module);
            }
        }
        out.finish()
    }

    /// Decodes exactly one message.
    ///
    /// # Errors
    /// [`MessageError`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut input = Input::new(bytes)?;
        let message = match input.byte()? {
            0x81 => {
                let (version, host, modules) = (input.u16()?, input.text()?, input.byte()?);
                if usize::from(modules) > HOST_MODULES_MAX {
                    return Err(MessageError::Malformed);
                }
                Self::Hello { version, host, modules }
            }
            0x82 => Self::Leased(input.text()?),
            0x83 => Self::Unavailable(match input.byte()? {
                1 => NoLease::NoneReady,
                2 => NoLease::Busy,
                other => return Err(MessageError::UnknownType(other.into())),
            }),
            0x84 => Self::Done(SamResult::Challenge(input.array()?)),
            0x85 => Self::Done(SamResult::Proof(input.array()?)),
            0x86 => {
                let card_checked = match input.byte()? {
                    0 => false,
                    1 => true,
                    _ => return Err(MessageError::Malformed),
                };
                Self::Done(SamResult::Plaintext { data: input.plain()?, card_checked })
            }
            0x87 => Self::Done(SamResult::Cancelled),
            0x88 => Self::Done(SamResult::Healthy),
            0x89 => Self::Failed(failure::decode(input.array()?)?),
            0x8A => Self::Pong {
                number: input.u32()?,
                modules: input.list(HOST_MODULES_MAX, module_health)?,
            },
            kind => return Err(MessageError::UnknownType(kind.into())),
        };
        input.end()?;
        Ok(message)
    }
}

fn encode_result(out: &mut Output, result: &SamResult) {
    match result {
        SamResult::Challenge(challenge) => out.byte(0x84).bytes(challenge),
        SamResult::Proof(proof) => out.byte(0x85).bytes(proof),
        SamResult::Plaintext { data, card_checked } => {
            out.byte(0x86).byte(u8::from(*card_checked)).plain(data)
        }
        SamResult::Cancelled => out.byte(0x87),
        SamResult::Healthy => out.byte(0x88),
    };
}

fn module_health(input: &mut Input<'_>) -> Result<ModuleHealth, MessageError> {
    let (sam_id, port) = (input.text()?, input.text()?);
    let state = match input.byte()? {
        1 => ModuleState::Starting,
        2 => ModuleState::Ready,
        3 => ModuleState::Leased,
        4 => ModuleState::Draining,
        5 => ModuleState::Drained,
        6 => ModuleState::Quarantined,
        7 => ModuleState::Failed,
        other => return Err(MessageError::UnknownType(other.into())),
    };
    Ok(ModuleHealth { sam_id, port, state, failures: input.u32()? })
}
