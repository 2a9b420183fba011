//! What a reader and its host say to each other on their serial line, one message per frame.
//!
//! | type | from | payload |
//! |---|---|---|
//! | `01` | both | a sealed datagram between reader and server |
//! | `02` | host | read command: its number (8), flags (1: bit 0 fingerprint) |
//! | `03` | host | who are you: none |
//! | `04` | host | the result of this number (8) has arrived |
//! | `05` | host | the server cannot be reached: why, as text |
//! | `81` | reader | hello: JSON |
//! | `82` | reader | progress: number (8), JSON |
//! | `83` | reader | result: number (8), length of the JSON (2), JSON, text, photo, fingerprint |
//! | `84` | reader | failure: number (8), JSON |

use countersign_crypto::Secret;
use countersign_idcard::{PHOTO_LEN, PlainData, TEXT_LEN};
use countersign_net::framing::{self, PAYLOAD_MAX, SerialFrame};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

/// The version of what is said here.
pub const LINE_VERSION: u32 = 1;
/// The longest text or JSON in a message, in bytes.
pub(crate) const LINE_TEXT_MAX: usize = 1024;

const FINGERPRINT: u8 = 1;

/// A message on the line.
pub(crate) enum LineMessage {
    Datagram(Zeroizing<Vec<u8>>),
    Read { number: u64, fingerprint: bool },
    Who,
    Received { number: u64 },
    NoServer { detail: String },
    Hello(Hello),
    Progress { number: u64, progress: Progress },
    Result { number: u64, result: Box<LineResult> },
    Failed { number: u64, failure: LineFailure },
}

/// A reader's answer to "who are you".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Version of the messages on the line ([`LINE_VERSION`]).
    pub line: u32,
    /// The reader's serial number.
    pub serial: String,
    /// The version of its program.
    pub program: String,
    /// Whether it takes read commands.
    pub resident: bool,
}

/// How far a read is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Step {
    /// No card lies on the reader yet.
    WaitingForCard,
    /// The card and the server are asked.
    Reading,
}

/// A sign of life of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// How far it is.
    pub step: Step,
    /// Since the command came, in milliseconds.
    pub ms: u64,
}

/// How a read went that succeeded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadSummary {
    /// `server`, `serverFromCache` or `cache`.
    pub source: String,
    /// The handshake's name; none from the cache.
    pub handshake: Option<String>,
    /// The suite's name.
    pub suite: Option<String>,
    /// The protection policy's name.
    pub policy: Option<String>,
    /// How often the server was tried.
    pub attempts: u32,
    /// From the command to the answer, in milliseconds.
    pub ms: f64,
    /// Bytes that the reader sent to the server.
    pub bytes_sent: u64,
    /// Bytes that it received.
    pub bytes_received: u64,
}

/// A read's result, for the host that asked for it.
pub struct LineResult {
    /// How it went.
    pub summary: ReadSummary,
    /// What was on the card.
    pub data: PlainData,
}

/// Why a read failed, or was not begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineFailure {
    /// Stable name of the failed check.
    pub check: String,
    /// One sentence.
    pub detail: String,
    /// Where an operator of the server finds more.
    pub incident: Option<String>,
    /// Whether the environment is to blame, rather than a check that refused.
    pub environment: bool,
}

/// A frame that is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum LineError {
    #[error("a frame of the unknown type {0:#04x}")]
    UnknownType(u8),
    #[error("a frame of the type {0:#04x} with an impossible payload")]
    Malformed(u8),
}

impl LineMessage {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Datagram(_) => "datagram",
            Self::Read { .. } => "read",
            Self::Who => "who",
            Self::Received { .. } => "received",
            Self::NoServer { .. } => "no server",
            Self::Hello(_) => "hello",
            Self::Progress { .. } => "progress",
            Self::Result { .. } => "result",
            Self::Failed { .. } => "failure",
        }
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::Datagram(_) => 0x01,
            Self::Read { .. } => 0x02,
            Self::Who => 0x03,
            Self::Received { .. } => 0x04,
            Self::NoServer { .. } => 0x05,
            Self::Hello(_) => 0x81,
            Self::Progress { .. } => 0x82,
            Self::Result { .. } => 0x83,
            Self::Failed { .. } => 0x84,
        }
    }

    /// As it goes onto the line.
    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut payload = Zeroizing::new(Vec::with_capacity(PAYLOAD_MAX));
        match self {
            Self::Datagram(datagram) => payload.extend_from_slice(datagram),
            Self::Read { number, fingerprint } => {
                payload.extend(number.to_be_bytes());
                payload.push(if *fingerprint { FINGERPRINT } else { 0 });
            }
            Self::Who => {}
            Self::Received { number } => payload.extend(number.to_be_bytes()),
            Self::NoServer { detail } => payload.extend_from_slice(cut(detail).as_bytes()),
            Self::Hello(hello) => payload.extend(json(hello)),
            Self::Progress { number, progress } => {
                payload.extend(number.to_be_bytes());
                payload.extend(json(progress));
            }
            Self::Result { number, result } => {
                payload.extend(number.to_be_bytes());
                let summary = json(&result.summary);
                let len = u16::try_from(summary.len()).expect("a summary is short");
                payload.extend(len.to_be_bytes());
                payload.extend(summary);
                payload.extend_from_slice(result.data.text());
                payload.extend_from_slice(result.data.photo());
                payload.extend_from_slice(result.data.fingerprint().unwrap_or_default());
            }
            Self::Failed { number, failure } => {
                payload.extend(number.to_be_bytes());
                let detail = cut(&failure.detail).to_owned();
                payload.extend(json(&LineFailure { detail, ..failure.clone() }));
            }
        }
        let fallback = || framing::encode(self.kind(), &[]).expect("an empty payload fits");
        framing::encode(self.kind(), &payload).unwrap_or_else(|_too_long| fallback())
    }

    /// The message that a frame is.
    pub(crate) fn decode(frame: SerialFrame) -> Result<Self, LineError> {
        let SerialFrame { kind, payload } = frame;
        let malformed = LineError::Malformed(kind);
        let message = match kind {
            0x01 => Some(Self::Datagram(payload)),
            0x02 => numbered(&payload).and_then(|(number, rest)| match rest {
                [flags] if flags & !FINGERPRINT == 0 => {
                    Some(Self::Read { number, fingerprint: flags & FINGERPRINT != 0 })
                }
                _ => None,
            }),
            0x03 => payload.is_empty().then_some(Self::Who),
            0x04 => numbered(&payload)
                .filter(|(_, rest)| rest.is_empty())
                .map(|(number, _)| Self::Received { number }),
            0x05 => text(&payload).map(|detail| Self::NoServer { detail }),
            0x81 => from_json(&payload).map(|hello: Hello| {
                let Hello { line, serial, program, resident } = hello;
                let (serial, program) = (plain(&serial), plain(&program));
                Self::Hello(Hello { line, serial, program, resident })
            }),
            0x82 => numbered(&payload).and_then(|(number, rest)| {
                from_json(rest).map(|progress| Self::Progress { number, progress })
            }),
            0x83 => numbered(&payload).and_then(|(number, rest)| {
                let result = Box::new(result(rest)?);
                Some(Self::Result { number, result })
            }),
            0x84 => numbered(&payload).and_then(|(number, rest)| {
                let LineFailure { check, detail, incident, environment } = from_json(rest)?;
                let (check, detail) = (plain(&check), plain(&detail));
                let incident = incident.as_deref().map(plain);
                let failure = LineFailure { check, detail, incident, environment };
                Some(Self::Failed { number, failure })
            }),
            _ => return Err(LineError::UnknownType(kind)),
        };
        message.ok_or(malformed)
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("these values have a JSON form")
}

fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    // Escapes may make a text longer than it is.
    serde_json::from_slice(bytes.get(..bytes.len().min(4 * LINE_TEXT_MAX))?).ok()
}

fn numbered(payload: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = payload.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number), rest))
}

fn text(payload: &[u8]) -> Option<String> {
    if payload.len() > LINE_TEXT_MAX {
        return None;
    }
    core::str::from_utf8(payload).ok().map(plain)
}

/// A text that may be shown: what the other end says writes no lines and steers no terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// As much of a text as a message takes.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(LINE_TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn result(bytes: &[u8]) -> Option<LineResult> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    let (summary, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    let (text, rest) = rest.split_at_checked(TEXT_LEN)?;
    let (photo, fingerprint) = rest.split_at_checked(PHOTO_LEN)?;
    let fingerprint = (!fingerprint.is_empty()).then(|| Secret::copied_from(fingerprint));
    let (text, photo) = (Secret::copied_from(text), Secret::copied_from(photo));
    let data = PlainData::new(text, photo, fingerprint).ok()?;
    let mut summary: ReadSummary = from_json(summary)?;
    let ReadSummary { source, handshake, suite, policy, .. } = &mut summary;
    for text in [Some(source), handshake.as_mut(), suite.as_mut(), policy.as_mut()] {
        text.into_iter().for_each(|text| *text = plain(text));
    }
    Some(LineResult { summary, data })
}

#[cfg(test)]
mod tests {
    use countersign_net::framing::FrameDecoder;

    use super::*;

    fn through(message: &LineMessage) -> LineMessage {
        let mut frames = FrameDecoder::default().push(&message.encode());
        assert_eq!(frames.len(), 1, "{}", message.name());
        LineMessage::decode(frames.remove(0)).unwrap()
    }

    fn summary() -> ReadSummary {
        ReadSummary {
            source: "server".into(),
            handshake: Some("c1".into()),
            suite: Some("p256".into()),
            policy: None,
            attempts: 2,
            ms: 12.5,
            bytes_sent: 3000,
            bytes_received: 2500,
        }
    }

    #[test]
    fn every_message_comes_back_as_it_was() {
        let number = 0x0102_0304_0506_0708;
        let hello = Hello {
            line: LINE_VERSION,
            serial: "RD-1".into(),
            program: "0.1.0".into(),
            resident: true,
        };
        let failure = LineFailure {
            check: "no-card".into(),
            detail: "there is no card".into(),
            incident: None,
            environment: false,
        };
        let progress = Progress { step: Step::Reading, ms: 7 };
        let data = |len: usize| {
            let fingerprint = (len > 0).then(|| Secret::copied_from(&vec![3; len]));
            let (text, photo) = ([1; TEXT_LEN], [2; PHOTO_LEN]);
            let (text, photo) = (Secret::copied_from(&text), Secret::copied_from(&photo));
            PlainData::new(text, photo, fingerprint).unwrap()
        };
        for message in [
            LineMessage::Datagram(Zeroizing::new(vec![0; PAYLOAD_MAX])),
            LineMessage::Read { number, fingerprint: true },
            LineMessage::Read { number, fingerprint: false },
            LineMessage::Who,
            LineMessage::Received { number },
            LineMessage::NoServer { detail: "connection refused".into() },
            LineMessage::Hello(hello),
            LineMessage::Progress { number, progress },
            LineMessage::Failed { number, failure },
        ] {
            let again = through(&message);
            assert_eq!(again.name(), message.name());
            assert_eq!(again.encode(), message.encode());
        }
        for len in [0, 512, 1024] {
            let result = Box::new(LineResult { summary: summary(), data: data(len) });
            let LineMessage::Result { number: 5, result } =
                through(&LineMessage::Result { number: 5, result })
            else {
                panic!("a result")
            };
            assert_eq!(result.summary, summary());
            assert_eq!(result.data.fingerprint().map_or(0, <[u8]>::len), len);
            assert_eq!(result.data.photo(), &[2; PHOTO_LEN]);
        }
    }

    #[test]
    fn impossible_payloads_are_refused_by_type() {
        let decode = |kind, payload: &[u8]| {
            let payload = Zeroizing::new(payload.to_vec());
            LineMessage::decode(SerialFrame { kind, payload }).map(|message| message.name())
        };
        for (kind, payload) in [
            (0x02, &[0; 8][..]),
            (0x02, &[0xff; 9]),
            (0x02, &[0; 10]),
            (0x03, &[0]),
            (0x04, &[0; 7]),
            (0x04, &[0; 9]),
            (0x05, &[0xff]),
            (0x05, &[b'x'; LINE_TEXT_MAX + 1]),
            (0x81, b"{}"),
            (0x82, b"12345678{"),
            (0x83, &[0; 8]),
            (0x83, &[0xff; 2000]),
            (0x84, b"12345678null"),
        ] {
            assert_eq!(decode(kind, payload), Err(LineError::Malformed(kind)), "{kind:#x}");
        }
        for kind in [0x00, 0x06, 0x80, 0x85, 0xff] {
            assert_eq!(decode(kind, &[]), Err(LineError::UnknownType(kind)));
        }
    }

    #[test]
    fn what_the_other_end_says_steers_no_terminal() {
        let bad = || "a\u{1b}[2J\u{9b}31m\r\nb\u{7f}".to_owned();
        let shown = "a\u{fffd}[2J\u{fffd}31m\u{fffd}\u{fffd}b\u{fffd}";
        let hello = Hello { line: 1, serial: bad(), program: bad(), resident: true };
        let LineMessage::Hello(hello) = through(&LineMessage::Hello(hello)) else { panic!() };
        assert_eq!((&*hello.serial, &*hello.program), (shown, shown));
        let (check, detail, incident) = (bad(), bad(), Some(bad()));
        let failure = LineFailure { check, detail, incident, environment: true };
        let failed = LineMessage::Failed { number: 1, failure };
        let LineMessage::Failed { failure, .. } = through(&failed) else { panic!() };
        assert_eq!((&*failure.check, &*failure.detail), (shown, shown));
        assert_eq!(failure.incident.as_deref(), Some(shown));
        let no_server = LineMessage::NoServer { detail: bad() };
        let LineMessage::NoServer { detail } = through(&no_server) else { panic!() };
        assert_eq!(detail, shown);
        let secret = |len| Secret::copied_from(&vec![1; len]);
        let data = PlainData::new(secret(TEXT_LEN), secret(PHOTO_LEN), None).unwrap();
        let summary = ReadSummary { source: bad(), suite: Some(bad()), ..summary() };
        let result = Box::new(LineResult { summary, data });
        let told = LineMessage::Result { number: 1, result };
        let LineMessage::Result { result, .. } = through(&told) else { panic!() };
        assert_eq!((&*result.summary.source, result.summary.attempts), (shown, 2));
        assert_eq!(result.summary.suite.as_deref(), Some(shown));
    }

    #[test]
    fn long_details_are_cut_between_characters() {
        let detail = "读".repeat(LINE_TEXT_MAX);
        let LineMessage::NoServer { detail: cut } = through(&LineMessage::NoServer { detail })
        else {
            panic!("no server")
        };
        assert!(cut.len() <= LINE_TEXT_MAX && cut.chars().all(|c| c == '读'), "{}", cut.len());
    }
}
