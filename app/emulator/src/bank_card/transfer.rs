//! How an emulated bank card hands out its answers: whole, by GET RESPONSE, or after the terminal
//! has said the right length.

use countersign_iso7816::{Command, Response, Status};

const GET_RESPONSE: u8 = 0xC0;
/// Commands that only read: they can be asked for again with the right length.
const READS: [u8; 2] = [0xB2, 0xCA];

/// What waits for GET RESPONSE.
#[derive(Default)]
pub(super) struct Transfer {
    pending: Vec<u8>,
}

impl Transfer {
    /// The answer to GET RESPONSE; `None` for any other command, which drops what waited.
    pub(super) fn rest(&mut self, command: &Command) -> Option<Response> {
        let pending = std::mem::take(&mut self.pending);
        if command.ins != GET_RESPONSE {
            return None;
        }
        if pending.is_empty() || command.ne() == 0 {
            return Some(Status::CONDITIONS.into());
        }
        self.pending = pending;
        Some(self.piece(command))
    }

    /// What this command gets of its answer at once.
    pub(super) fn deliver(&mut self, command: &Command, response: Response) -> Response {
        if response.status != Status::OK || response.data.is_empty() {
            return response;
        }
        let len = response.data.len();
        let asked = usize::try_from(command.ne()).unwrap_or(usize::MAX);
        if READS.contains(&command.ins)
            && let 1..=255 = asked
            && asked != len
            && let Ok(exact @ 0..=0xFF) = u16::try_from(len)
        {
            return Status::new(0x6C00 | exact).into();
        }
        self.pending = response.data.to_vec();
        if asked == 0 { Status::more(len).into() } else { self.piece(command) }
    }

    fn piece(&mut self, command: &Command) -> Response {
        let asked = usize::try_from(command.ne()).unwrap_or(usize::MAX);
        let rest = self.pending.split_off(asked.min(self.pending.len()));
        let data = std::mem::replace(&mut self.pending, rest);
        let mut response = Response::ok(data);
        if !self.pending.is_empty() {
            response.status = Status::more(self.pending.len());
        }
        response
    }
}
