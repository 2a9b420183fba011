//! What is said again: packets that the server misses (C10), and, over datagrams, whatever may
//! have been lost on the way.

use super::*;

impl ReaderFlow {
    /// Whether the server said this before: it has not heard our answer, or the link brought it
    /// late.
    pub(super) fn is_repeat(&self, state: &State, message: &ServerMessage) -> bool {
        match message {
            ServerMessage::CardChallenge(challenge) => self.challenges.contains(challenge),
            ServerMessage::SamProof(proof) => self.proof.as_ref() == Some(proof),
            ServerMessage::SendPackets => {
                self.source == Source::Cache && matches!(state, State::ExpectPlaintext(_))
            }
            _ => false,
        }
    }

    /// Answers again what the server repeats, if it was answered.
    pub(super) fn repeated(
        &mut self,
        now: UnixTime,
        message: &ServerMessage,
    ) -> Result<(), FlowError> {
        match (&mut self.state, message) {
            (State::ExpectProof, ServerMessage::CardChallenge(challenge))
                if self.challenges.last() == Some(challenge) =>
            {
                self.transmits.push_back(self.last.clone());
                self.pace.again(now);
            }
            // The server repeats this only while it has no packet at all. They may still be on
            // their way.
            (
                State::ExpectPlaintext(sent),
                ServerMessage::SamProof(_) | ServerMessage::SendPackets,
            ) if !sent.acknowledged && now.since(sent.at) >= self.pace.patience() => {
                sent.resends += 1;
                if sent.resends > RESENDS_MAX {
                    return Err(self.die(too_many_resends()));
                }
                sent.at = now;
                let messages: Vec<_> =
                    sent.packets.iter().cloned().map(ReaderMessage::Packet).collect();
                messages.iter().for_each(|message| self.send(message));
            }
            _ => {}
        }
        Ok(())
    }

    /// Sends exactly the packets that the server names (C10).
    pub(super) fn resend(
        &mut self,
        now: UnixTime,
        mut sent: Sent,
        missing: Missing,
    ) -> Result<(), FlowError> {
        let total = u8::try_from(sent.packets.len()).expect("PACKETS_MAX at most");
        if missing.last() >= total {
            let error = DataError::PacketIndex { index: missing.last(), total };
            return Err(self.die(error.into()));
        }
        sent.resends += 1;
        if sent.resends > RESENDS_MAX {
            return Err(self.die(too_many_resends()));
        }
        sent.at = now;
        sent.acknowledged = true;
        for packet in sent.packets.iter().filter(|packet| missing.has(packet.index)) {
            self.send(&ReaderMessage::Packet(packet.clone()));
        }
        self.state = State::ExpectPlaintext(sent);
        Ok(())
    }

    /// Takes a part of the result; the whole once nothing is missing.
    pub(super) fn part(
        &mut self,
        now: UnixTime,
        mut sent: Sent,
        part: &Packet,
    ) -> Result<Option<Plaintext>, FlowError> {
        sent.acknowledged = true;
        let new =
            sent.result.push(part, PLAINTEXT_LEN_MAX).map_err(|error| self.die(error.into()))?;
        if let Some(whole) = sent.result.join() {
            let whole = Plaintext::from_whole(&whole).map_err(|error| self.die(error.into()))?;
            return Ok(Some(whole));
        }
        if new {
            self.pace.heard_a_piece(now);
        }
        self.state = State::ExpectPlaintext(sent);
        Ok(None)
    }

    /// Nothing was heard for a while.
    pub(super) fn say_again(&mut self, now: UnixTime) {
        let unheard = self.pace.is_unheard();
        match &self.state {
            State::ExpectChallenge | State::ExpectSendPackets { .. } | State::ExpectProof => {
                self.transmits.push_back(self.last.clone());
            }
            State::ExpectPlaintext(sent) => {
                let missing = Missing::new(sent.result.missing()).expect("else it is the result");
                self.send(&ReaderMessage::ResendResult(missing));
            }
            State::Authenticating | State::ReadingCard | State::Over => {}
        }
        if unheard { self.pace.again(now) } else { self.pace.said(now) }
    }
}

fn too_many_resends() -> FlowError {
    FlowError::Flood { what: "resend", limit: RESENDS_MAX.into() }
}
