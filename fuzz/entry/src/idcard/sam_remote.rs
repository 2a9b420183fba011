use countersign_idcard::message::MessageError;
use countersign_idcard::sam::remote::{FromHost, REMOTE_LEN_MAX, ToHost};

/// One message between a server and a SAM host, read as each side reads it: what is accepted
/// encodes to the same bytes, so there is one encoding of everything.
pub fn sam_remote(data: &[u8]) {
    let to_host = ToHost::decode(data);
    let from_host = FromHost::decode(data);
    assert!(to_host.is_err() || from_host.is_err(), "a message of both sides");
    if data.len() > REMOTE_LEN_MAX {
        assert_eq!(to_host, Err(MessageError::TooLong(data.len())));
        assert_eq!(from_host.as_ref().err(), Some(&MessageError::TooLong(data.len())));
    }
    if let Ok(message) = to_host {
        assert_eq!(*message.encode(), data);
    }
    if let Ok(message) = from_host {
        assert_eq!(*message.encode(), data);
    }
}
