//! The real clock and the operating system's randomness.

use std::time::{SystemTime, UNIX_EPOCH};

use countersign_crypto::UnixTime;
use getrandom::SysRng;
use rand_core::{TryCryptoRng, TryRng, UnwrapErr};

/// Tells the time. Tests hand in one that stands still.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> UnixTime;
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one clock that all others take")]
    fn now(&self) -> UnixTime {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixTime::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The operating system's generator.
///
/// It panics if the system has no randomness to give, as no key can be made then.
#[derive(Debug, Clone, Copy)]
pub struct SystemRng(UnwrapErr<SysRng>);

impl Default for SystemRng {
    fn default() -> Self {
        Self(UnwrapErr(SysRng))
    }
}

impl TryRng for SystemRng {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        self.0.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        self.0.try_next_u64()
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        self.0.try_fill_bytes(out)
    }
}

impl TryCryptoRng for SystemRng {}
