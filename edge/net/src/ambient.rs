//! The real clock and the operating system's randomness.

use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use countersign_crypto::UnixTime;
use getrandom::SysRng;
use rand_core::{TryCryptoRng, TryRng, UnwrapErr};

/// Tells the time. Tests hand in one that stands still.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> UnixTime;
}

/// The system's clock, which here never goes back.
///
/// It follows the wall clock forward. If that is set back, time goes on from where it was, at the
/// pace of the monotonic clock, until the wall clock has caught up or the program is restarted:
/// deadlines, challenge epochs and leases must not stand still because someone set the clock.
#[derive(Debug)]
pub struct SystemClock(Mutex<Anchor>);

#[derive(Debug, Clone, Copy)]
struct Anchor {
    wall: UnixTime,
    since: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self(Mutex::new(Anchor { wall: wall_clock(), since: instant() }))
    }
}

impl Clock for SystemClock {
    fn now(&self) -> UnixTime {
        let mut anchor = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        anchor.advance(wall_clock(), instant())
    }
}

impl Anchor {
    fn advance(&mut self, wall: UnixTime, instant: Instant) -> UnixTime {
        let expected = self.wall.plus(instant.saturating_duration_since(self.since));
        if wall < expected {
            return expected;
        }
        *self = Self { wall, since: instant };
        wall
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one clock that all others take")]
fn wall_clock() -> UnixTime {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

#[expect(clippy::disallowed_methods, reason = "this is the one clock that all others take")]
fn instant() -> Instant {
    Instant::now()
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_clock_follows_forward_and_never_goes_back() {
        let since = instant();
        let at = |seconds| since + Duration::from_secs(seconds);
        let wall = UnixTime::from_secs;
        let mut anchor = Anchor { wall: wall(1000), since };
        assert_eq!(anchor.advance(wall(1001), at(1)), wall(1001));
        assert_eq!(anchor.advance(wall(2000), at(2)), wall(2000), "set forward");
        assert_eq!(anchor.advance(wall(900), at(3)), wall(2001), "set back: time goes on");
        assert_eq!(anchor.advance(wall(905), at(8)), wall(2006));
        assert_eq!(anchor.advance(wall(2100), at(9)), wall(2100), "caught up");
    }
}
