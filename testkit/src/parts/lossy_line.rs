use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{PartError, Pty, pty};
use crate::loss::{Direction, LossyLink, Rates, Tally};

/// What parts frames on the line.
const DELIMITER: u8 = 0;
/// The longest frame; more bytes without a delimiter count as one.
const FRAME_MAX: usize = 16 * 1024;
/// How often the thread looks whether it shall end, in milliseconds.
const LOOK_EVERY: u8 = 5;

/// A serial line between two ptys that treats every frame, what stands between two zero bytes, as
/// its link does.
pub struct LossyLine {
    paths: [PathBuf; 2],
    link: Arc<Mutex<LossyLink>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A new line with these rates; [`Direction::Forth`] is from the first end to the second.
///
/// # Errors
/// [`PartError::System`] if the machine has no free pty.
pub fn lossy_line(rates: Rates, seed: u64) -> Result<LossyLine, PartError> {
    let ends = [pty()?, pty()?];
    let paths = [ends[0].path().to_owned(), ends[1].path().to_owned()];
    let link = Arc::new(Mutex::new(LossyLink::new(rates, seed)));
    let stop = Arc::new(AtomicBool::new(false));
    let pump = Pump { ends, pieces: [Vec::new(), Vec::new()], link: link.clone(), started: now() };
    let stopped = stop.clone();
    let thread = std::thread::spawn(move || pump.run(&stopped));
    Ok(LossyLine { paths, link, stop, thread: Some(thread) })
}

impl LossyLine {
    /// The paths of both ends.
    #[must_use]
    pub fn paths(&self) -> [&Path; 2] {
        [&self.paths[0], &self.paths[1]]
    }

    /// What was done to frames of this way.
    #[must_use]
    pub fn tally(&self, direction: Direction) -> Tally {
        lock(&self.link).tally(direction)
    }
}

impl Drop for LossyLine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn lock(link: &Mutex<LossyLink>) -> MutexGuard<'_, LossyLink> {
    link.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::disallowed_methods, reason = "real lines live in real time")]
fn now() -> Instant {
    Instant::now()
}

struct Pump {
    ends: [Pty; 2],
    /// What has come of the next frame, from each end.
    pieces: [Vec<u8>; 2],
    link: Arc<Mutex<LossyLink>>,
    started: Instant,
}

impl Pump {
    fn run(mut self, stop: &AtomicBool) {
        let mut bytes = [0; 4096];
        while !stop.load(Ordering::SeqCst) {
            let Some(ready) = self.wait() else { return };
            for (from, ready) in ready.into_iter().enumerate() {
                if !ready {
                    continue;
                }
                let Ok(count) = self.ends[from].master.read(&mut bytes) else { return };
                self.take(from, &bytes[..count]);
            }
            if self.deliver().is_err() {
                return;
            }
        }
    }

    fn wait(&self) -> Option<[bool; 2]> {
        let fd = |end: usize| PollFd::new(self.ends[end].master.as_fd(), PollFlags::POLLIN);
        let mut fds = [fd(0), fd(1)];
        poll(&mut fds, PollTimeout::from(LOOK_EVERY)).ok()?;
        let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
        Some([ready(&fds[0]), ready(&fds[1])])
    }

    fn take(&mut self, from: usize, bytes: &[u8]) {
        let direction = [Direction::Forth, Direction::Back][from];
        let time = now().duration_since(self.started);
        let piece = &mut self.pieces[from];
        for &byte in bytes {
            if byte != DELIMITER {
                piece.push(byte);
            }
            let over = byte == DELIMITER || piece.len() >= FRAME_MAX;
            if over && !piece.is_empty() {
                lock(&self.link).push(time, direction, piece);
                piece.clear();
            }
        }
    }

    fn deliver(&mut self) -> std::io::Result<()> {
        let time: Duration = now().duration_since(self.started);
        loop {
            let due = lock(&self.link).pop_due(time);
            let Some((direction, frame)) = due else { return Ok(()) };
            let to = match direction {
                Direction::Forth => 1,
                Direction::Back => 0,
            };
            let line: &mut File = &mut self.ends[to].master;
            line.write_all(&[&[DELIMITER], &frame[..], &[DELIMITER]].concat())?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_pass_whole_and_the_lost_ones_are_counted() {
        let line = lossy_line(Rates::dropping(30), 3).unwrap();
        let open = |path: &Path| File::options().read(true).write(true).open(path).unwrap();
        let (mut a, mut b) = (open(line.paths()[0]), open(line.paths()[1]));
        for number in 1..=100 {
            a.write_all(&[0, number, number, 0]).unwrap();
        }
        a.write_all(b"\0end").unwrap(); // not over yet
        while line.tally(Direction::Forth).sent < 100 {
            std::thread::yield_now();
        }
        let arrive = 100 - line.tally(Direction::Forth).dropped;
        assert!((50..=90).contains(&arrive), "{arrive}");
        let mut bytes = vec![0; usize::try_from(arrive).unwrap() * 4];
        b.read_exact(&mut bytes).unwrap();
        let frames = bytes.chunks(4);
        assert!(frames.clone().all(|frame| frame[0] == 0 && frame[3] == 0 && frame[1] == frame[2]));
        assert!(frames.map(|frame| frame[1]).is_sorted());
    }
}
