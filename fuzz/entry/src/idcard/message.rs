use countersign_idcard::PacketAssembler;
use countersign_idcard::message::{MESSAGE_LEN_MAX, MessageError, ReaderMessage, ServerMessage};

/// One message, read as each side reads it: what is accepted encodes to the same bytes, so there is
/// one encoding of everything.
pub fn messages(data: &[u8]) {
    let to_server = ReaderMessage::decode(data);
    let to_reader = ServerMessage::decode(data);
    assert!(to_server.is_err() || to_reader.is_err(), "a message of both sides");
    if data.len() > MESSAGE_LEN_MAX {
        assert_eq!(to_server, Err(MessageError::TooLong(data.len())));
        assert_eq!(to_reader.as_ref().err(), Some(&MessageError::TooLong(data.len())));
    }
    if let Ok(message) = to_server {
        assert_eq!(*message.encode(), data);
        if let ReaderMessage::Packet(packet) = &message {
            let mut assembler = PacketAssembler::new();
            if let Ok(Some(whole)) = assembler.push(packet) {
                assert_eq!(whole.as_bytes(), packet.data.as_slice(), "the only packet of all");
            }
        }
    }
    if let Ok(message) = to_reader {
        assert_eq!(*message.encode(), data);
    }
}
