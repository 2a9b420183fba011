//! The messages of a read as they lie on the wire, and what the same ones cost over TLS.

use crate::Fallible;
use crate::party::tls::Tls;
use crate::party::tree::Tree;
use crate::party::{Client, Server};

/// The frame header of our wire format: magic, version, mode, type, u24 length.
const HEADER_LEN: usize = 8;
const RECORD: u8 = 16;
/// A record's body beside its data: content type and tag.
const RECORD_OVERHEAD: usize = 1 + 16;

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Reader,
    Server,
}

/// One record as overheard: the tap sees lengths, never data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) from: From,
    /// Length of the data in bytes; 0 is the close record, as no message is empty.
    pub(super) len: usize,
}

/// Cuts one direction's bytes into frames and keeps the lengths of the records.
pub(super) struct Lengths {
    from: From,
    pending: Vec<u8>,
}

impl Lengths {
    pub(super) const fn new(from: From) -> Self {
        Self { from, pending: Vec::new() }
    }

    /// Takes bytes in, gives the records that are complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Message> {
        self.pending.extend_from_slice(bytes);
        let mut messages = Vec::new();
        while let Some(&[_, _, _, _, kind, a, b, c]) = self.pending.first_chunk::<HEADER_LEN>() {
            let len = u32::from_be_bytes([0, a, b, c]) as usize;
            if self.pending.len() < HEADER_LEN + len {
                break;
            }
            if kind == RECORD {
                let len = len.saturating_sub(RECORD_OVERHEAD);
                messages.push(Message { from: self.from, len });
            }
            self.pending.drain(..HEADER_LEN + len);
        }
        messages
    }
}

/// Bytes on the wire, both directions, of a full mutual handshake and these messages over rustls,
/// each in a write of its own.
pub(super) fn over_tls(tree: &Tree, messages: &[Message]) -> Fallible<usize> {
    let tls = Tls::new(tree)?;
    let (mut client, mut server) = (tls.client()?, tls.server());
    let mut bytes = 0;
    let mut flight = client.answer(&[])?;
    while !flight.is_empty() {
        bytes += flight.len();
        let answer = server.receive(&flight).map_err(|error| error.to_string())?;
        bytes += answer.len();
        flight = client.answer(&answer)?;
    }
    for message in messages {
        let data = vec![0; message.len];
        let mut out = data.clone();
        let records = match (message.from, message.len) {
            (From::Reader, 0) => client.close(),
            (From::Server, 0) => server.close(),
            (From::Reader, _) => client.seal(&data)?,
            (From::Server, _) => server.seal(&data)?,
        };
        bytes += records.len();
        match message.from {
            From::Reader => server.open(&records, &mut out)?,
            From::Server => client.open(&records, &mut out)?,
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, body: usize) -> Vec<u8> {
        let [.., a, b, c] = body.to_be_bytes();
        let mut frame = vec![b'C', b'S', 1, 1, kind, a, b, c];
        frame.resize(HEADER_LEN + body, 0xEE);
        frame
    }

    #[test]
    fn records_are_told_from_handshake_messages_however_the_bytes_are_cut() {
        let stream =
            [frame(1, 40), frame(RECORD, 300 + 17), frame(5, 32), frame(RECORD, 17)].concat();
        let message = |len| Message { from: From::Reader, len };
        for cut in [1, 7, 100, stream.len()] {
            let mut lengths = Lengths::new(From::Reader);
            let seen: Vec<_> = stream.chunks(cut).flat_map(|bytes| lengths.push(bytes)).collect();
            assert_eq!(seen, [message(300), message(0)], "cut at {cut}");
        }
        let cut_off = Lengths::new(From::Server).push(&frame(RECORD, 20)[..27]);
        assert_eq!(cut_off, []);
    }

    #[test]
    fn tls_bytes_grow_by_each_message_and_its_overhead() {
        let tree = Tree::new().unwrap();
        let bytes = |messages: &[Message]| over_tls(&tree, messages).unwrap();
        let close = Message { from: From::Reader, len: 0 };
        let long =
            [Message { from: From::Reader, len: 1000 }, Message { from: From::Server, len: 2000 }];
        let handshake = bytes(&[]);
        assert!(handshake > 1000, "two certificates and two signatures: {handshake}");
        // 22 bytes a record: header, content type, tag. Signatures vary by a few bytes.
        let grown = bytes(&long) - 3000 - 2 * 22;
        assert!(grown.abs_diff(handshake) <= 12, "{grown} and {handshake}");
        assert!(bytes(&[close]) >= handshake - 12 + 24);
    }
}
