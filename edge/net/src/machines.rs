//! The core machines, as a [`Connection`](crate::Connection) drives them.

use countersign_channel::{
    Error, ManagerChannel, ManagerEvent, ReaderChannel, ReaderEvent, ServerChannel, ServerEvent,
    SleeveChannel, SleeveEvent,
};
use countersign_crypto::{CryptoRng, UnixTime};
use countersign_idcard::sam::{SamError, SamEvent, SamHost};
use zeroize::Zeroizing;

use crate::Machine;

macro_rules! channel_machine {
    ($channel:ty, $event:ty) => {
        impl Machine for $channel {
            type Event = $event;
            type Error = Error;
            type Transmit = Vec<u8>;

            fn handle(
                &mut self,
                now: UnixTime,
                rng: &mut dyn CryptoRng,
                bytes: &[u8],
            ) -> Result<(), Error> {
                Self::handle(self, now, rng, bytes)
            }

            fn handle_timeout(&mut self, now: UnixTime) -> Result<(), Error> {
                Self::handle_timeout(self, now)
            }

            fn handle_end(&mut self) -> Result<(), Error> {
                Self::handle_end(self)
            }

            fn poll_transmit(&mut self) -> Option<Vec<u8>> {
                Self::poll_transmit(self)
            }

            fn poll_event(&mut self) -> Option<$event> {
                Self::poll_event(self)
            }

            fn poll_timeout(&self) -> Option<UnixTime> {
                Self::poll_timeout(self)
            }
        }
    };
}

channel_machine!(ReaderChannel, ReaderEvent);
channel_machine!(ServerChannel, ServerEvent);
channel_machine!(SleeveChannel, SleeveEvent);
channel_machine!(ManagerChannel, ManagerEvent);

/// A SAM's failures are events ([`SamEvent::Failed`]); only the port's end is an error.
impl Machine for SamHost {
    type Event = SamEvent;
    type Error = SamError;
    type Transmit = Zeroizing<Vec<u8>>;

    fn handle(
        &mut self,
        now: UnixTime,
        _rng: &mut dyn CryptoRng,
        bytes: &[u8],
    ) -> Result<(), SamError> {
        Self::handle(self, now, bytes);
        Ok(())
    }

    fn handle_timeout(&mut self, now: UnixTime) -> Result<(), SamError> {
        Self::handle_timeout(self, now);
        Ok(())
    }

    fn handle_end(&mut self) -> Result<(), SamError> {
        self.gone();
        Err(SamError::Gone)
    }

    fn poll_transmit(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        Self::poll_transmit(self)
    }

    fn poll_event(&mut self) -> Option<SamEvent> {
        Self::poll_event(self)
    }

    fn poll_timeout(&self) -> Option<UnixTime> {
        Self::poll_timeout(self)
    }
}
