//! The pairing window (A1): opened by the owner, for one sleeve and for a while.

use std::time::Duration;

use countersign_crypto::UnixTime;

/// Longest time that a window may be open, in seconds.
pub const WINDOW_MAX_SECONDS: u32 = 600;

/// Whether a sleeve may pair.
#[derive(Debug, Default)]
pub(super) struct PairingWindow {
    until: Option<UnixTime>,
    /// A sleeve that has come in and is not done yet.
    taken: Option<u32>,
}

impl PairingWindow {
    /// Opens it, or keeps it open for longer.
    pub(super) fn open(&mut self, now: UnixTime, seconds: u32) {
        self.until = Some(now.plus(Duration::from_secs(seconds.into())));
    }

    /// Closes it; whether it was open. A pairing that began is not stored any more.
    pub(super) const fn close(&mut self) -> bool {
        self.taken = None;
        self.until.take().is_some()
    }

    /// Whether this contact may pair. One at a time: a second one would race for the owner's eye.
    pub(super) fn enter(&mut self, now: UnixTime, contact: u32) -> bool {
        let open = self.is_open(now) && self.taken.is_none_or(|taken| taken == contact);
        if open {
            self.taken = Some(contact);
        }
        open
    }

    /// Whether the pairing of this contact may be stored: the window is open still, and was not
    /// opened anew for someone else.
    pub(super) fn admits(&self, now: UnixTime, contact: u32) -> bool {
        self.is_open(now) && self.taken == Some(contact)
    }

    /// A contact that had come in is gone.
    pub(super) fn leave(&mut self, contact: u32) {
        self.taken.take_if(|taken| *taken == contact);
    }

    /// Whether it has just run out of time.
    pub(super) fn expire(&mut self, now: UnixTime) -> bool {
        let over = self.until.is_some_and(|until| now >= until);
        over && self.close()
    }

    /// When [`Self::expire`] is due.
    pub(super) const fn poll_timeout(&self) -> Option<UnixTime> {
        self.until
    }

    fn is_open(&self, now: UnixTime) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: UnixTime = UnixTime::from_secs(1_800_000_000);

    #[test]
    fn one_sleeve_at_a_time_while_it_is_open() {
        let mut window = PairingWindow::default();
        assert!(!window.enter(T0, 1), "closed");
        window.open(T0, 60);
        assert!(window.enter(T0, 1));
        assert!(!window.enter(T0, 2), "someone else is in");
        assert!(window.admits(T0, 1) && !window.admits(T0, 2));
        window.leave(2);
        assert!(!window.enter(T0, 2), "a stranger cannot put someone out");
        window.leave(1);
        assert!(!window.admits(T0, 1));
        assert!(window.enter(T0, 2));
        assert!(window.close());
        assert!(!window.admits(T0, 2), "closed meanwhile");
        assert!(!window.close());
    }

    #[test]
    fn it_closes_by_itself() {
        let mut window = PairingWindow::default();
        window.open(T0, 60);
        assert!(window.enter(T0, 1));
        let end = T0.plus(Duration::from_secs(60));
        assert_eq!(window.poll_timeout(), Some(end));
        assert!(!window.expire(T0));
        assert!(!window.admits(end, 1) && !window.enter(end, 3));
        assert!(window.expire(end));
        assert!(!window.expire(end), "once");
        assert_eq!(window.poll_timeout(), None);
    }
}
