//! What is asked for again: packets that did not come (C10), and, over datagrams, whatever may
//! have been lost on the way.

use countersign_crypto::UnixTime;

use super::{ServerFlow, State};
use crate::message::{Missing, ReaderMessage, ServerMessage, Source};
use crate::{Check, Delivery, FlowError, Packet, PacketAssembler, RESENDS_MAX};

/// The packets are coming.
#[derive(Default)]
pub(super) struct Receiving {
    packets: PacketAssembler,
    /// The packets asked for last; all there are, if none were asked for again.
    asked: Option<Missing>,
    resends: u8,
}

impl ServerFlow {
    pub(super) fn packet(
        &mut self,
        now: UnixTime,
        mut receiving: Receiving,
        packet: &Packet,
    ) -> Result<(), FlowError> {
        let before = receiving.packets.missing();
        let complete =
            receiving.packets.push(packet).map_err(|error| self.die(now, error.into()))?;
        if let Some(data) = complete {
            self.pace.heard(now);
            self.received(data);
            return Ok(());
        }
        let new = receiving.packets.missing() != before;
        // Over a stream what was sent before the last one is here, or was not sent.
        let last = receiving.asked.map_or(packet.total - 1, Missing::last);
        let gap = new && self.delivery == Delivery::Stream && packet.index == last;
        self.state = State::ExpectPackets(receiving);
        if new {
            self.pace.heard_a_piece(now);
            self.await_reader(now);
        }
        if gap {
            self.ask_for_missing(now);
        }
        Ok(())
    }

    /// Names exactly the packets that are missing (C10).
    fn ask_for_missing(&mut self, now: UnixTime) {
        let State::ExpectPackets(receiving) = &mut self.state else { return };
        let Some(missing) = Missing::new(receiving.packets.missing()) else { return };
        if receiving.resends >= RESENDS_MAX {
            return self.refuse_check(now, Check::Packets);
        }
        receiving.resends += 1;
        receiving.asked = Some(missing);
        self.resent += missing.bits().count_ones();
        self.send(ServerMessage::Resend(missing).encode());
    }

    /// Whether the reader said this before: it has not heard our answer, or the link brought it
    /// late. It must not kill the read.
    pub(super) fn is_repeat(&self, state: &State, message: &ReaderMessage) -> bool {
        let datagrams = self.delivery == Delivery::Datagrams;
        let with_data = matches!(state, State::AwaitSelected { .. } | State::AwaitPlaintext { .. });
        match message {
            // Asked for again and come twice.
            ReaderMessage::Packet(_) => with_data && (datagrams || self.resent > 0),
            ReaderMessage::ReadBegin(begin) => datagrams && self.read.as_ref() == Some(begin),
            ReaderMessage::CardAnswer(_) => datagrams && !self.answers.is_empty(),
            // Asked for before it is there.
            ReaderMessage::ResendResult(_) => {
                datagrams && (with_data || matches!(state, State::ExpectPackets(_)))
            }
            ReaderMessage::Abort(_) | ReaderMessage::Received => false,
        }
    }

    /// Says again what the reader has not heard, as its repeat shows.
    pub(super) fn repeated(&mut self, now: UnixTime, message: &ReaderMessage) {
        let source = self.read.as_ref().map(|read| read.source);
        let unheard = match (&self.state, message) {
            (State::ExpectAnswer, ReaderMessage::ReadBegin(_)) => self.answers.is_empty(),
            (State::ExpectAnswer, ReaderMessage::CardAnswer(_)) => true,
            (State::ExpectPackets(receiving), ReaderMessage::ReadBegin(_)) => {
                source == Some(Source::Cache) && receiving.packets.is_empty()
            }
            (State::ExpectPackets(receiving), ReaderMessage::CardAnswer(_)) => {
                receiving.packets.is_empty()
            }
            _ => false,
        };
        if unheard {
            self.send(self.last.clone());
            self.pace.again(now);
        }
    }

    /// Nothing was heard from the reader for a while.
    pub(super) fn say_again(&mut self, now: UnixTime) {
        let unheard = self.pace.is_unheard();
        match &self.state {
            State::ExpectPackets(receiving) if !receiving.packets.is_empty() => {
                self.ask_for_missing(now);
            }
            State::ExpectAnswer | State::ExpectPackets(_) => self.send(self.last.clone()),
            _ => {}
        }
        if unheard { self.pace.again(now) } else { self.pace.said(now) }
    }
}
