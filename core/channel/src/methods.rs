//! What every public channel type can do: thin words over its endpoint.

/// The methods that every public channel type has.
macro_rules! channel {
    ($channel:ident, $event:ty) => {
        impl $channel {
            /// Takes bytes from the peer: any piece of the stream, or one whole datagram.
            ///
            /// # Errors
            /// Any; the channel is dead afterwards.
            pub fn handle(
                &mut self,
                now: UnixTime,
                rng: &mut dyn CryptoRng,
                bytes: &[u8],
            ) -> Result<(), Error> {
                self.0.handle(now, rng, bytes)
            }

            /// Bytes to send, if any; over datagrams, one datagram.
            pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
                self.0.poll_transmit()
            }

            /// What happened, if anything.
            pub fn poll_event(&mut self) -> Option<$event> {
                self.0.poll_event()
            }

            /// When to call [`Self::handle_timeout`], if at all.
            #[must_use]
            pub fn poll_timeout(&self) -> Option<UnixTime> {
                self.0.poll_timeout()
            }

            /// Takes the time: ends a handshake that took too long, repeats a lost message, sends
            /// a probe or gives up a silent peer.
            ///
            /// # Errors
            /// [`Error::Timeout`] or [`Error::Silent`]; the channel is dead afterwards.
            pub fn handle_timeout(&mut self, now: UnixTime) -> Result<(), Error> {
                self.0.handle_timeout(now)
            }

            /// The byte stream has ended.
            ///
            /// # Errors
            /// [`Error::Truncated`] unless the peer had closed properly.
            pub fn handle_end(&mut self) -> Result<(), Error> {
                self.0.handle_end()
            }

            /// Seals `data` (at most [`crate::RECORD_MAX`] bytes) into one record.
            ///
            /// # Errors
            /// [`Error::Misuse`] before the session is open, after closing, or for too much data;
            /// [`Error::KeyExhausted`].
            pub fn send(&mut self, data: &[u8]) -> Result<(), Error> {
                let (session, link) = self.0.open()?;
                session.send(link, data)
            }

            /// Queues the close record.
            ///
            /// # Errors
            /// [`Error::Misuse`] before the session is open.
            pub fn close(&mut self) -> Result<(), Error> {
                let (session, link) = self.0.open()?;
                session.close(link)
            }

            /// Goes on with the next key for what this side sends. The old one is wiped: what it
            /// protected stays closed, whatever leaks later. Happens by itself after
            /// [`crate::RECORDS_PER_KEY_MAX`] records.
            ///
            /// # Errors
            /// [`Error::Misuse`] before the session is open or after closing.
            pub fn rekey(&mut self) -> Result<(), Error> {
                let (session, link) = self.0.open()?;
                session.rekey(link)
            }

            /// Enters sleep mode (A6): sends a probe every `times.every`, and gives the peer up if
            /// an answer takes longer than `times.within`. The owner calls
            /// [`Self::handle_timeout`] when [`Self::poll_timeout`] says so.
            ///
            /// # Errors
            /// [`Error::Misuse`] before the session is open, or for a time of zero.
            pub fn sleep(&mut self, now: UnixTime, times: Heartbeat) -> Result<(), Error> {
                times.check()?;
                self.0.open()?.0.sleep(now, times);
                Ok(())
            }

            /// Watches a peer that may sleep (A6): gives it up when nothing authentic arrives for
            /// `times.every + times.within`.
            ///
            /// # Errors
            /// As [`Self::sleep`].
            pub fn watch(&mut self, now: UnixTime, times: Heartbeat) -> Result<(), Error> {
                times.check()?;
                self.0.open()?.0.watch(now, times);
                Ok(())
            }

            /// Leaves sleep mode, or stops watching.
            ///
            /// # Errors
            /// [`Error::Misuse`] before the session is open.
            pub fn wake(&mut self) -> Result<(), Error> {
                self.0.open()?.0.wake();
                Ok(())
            }

            /// The peer's certificate, once connected.
            #[must_use]
            pub fn peer(&self) -> Option<&Leaf> {
                self.0.session().map(|session| &*session.peer)
            }

            /// The exporter, once connected.
            #[must_use]
            pub fn exporter(&self) -> Option<&Exporter> {
                self.0.session().map(|session| &session.exporter)
            }

            /// The policy agreed on, once connected.
            #[must_use]
            pub fn policy(&self) -> Option<Policy> {
                self.0.session().map(|session| session.policy)
            }

            /// The suite agreed on, once connected.
            #[must_use]
            pub fn suite(&self) -> Option<Suite> {
                self.0.session().map(|session| session.suite)
            }

            /// The mode spoken; before the first message, the first of those possible.
            #[must_use]
            pub fn mode(&self) -> Mode {
                self.0.mode()
            }

            /// How many datagrams were dropped because they were old, damaged or forged.
            #[must_use]
            pub const fn discarded(&self) -> u64 {
                self.0.discarded()
            }
        }
    };
}
pub(crate) use channel;
