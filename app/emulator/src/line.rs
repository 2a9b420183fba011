//! A serial line without hardware: a null modem between two ptys, with faults to inject.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::ioctl_tiocnxcl;

use crate::sam_pty::open_pty;

/// What parts frames on the line.
const DELIMITER: u8 = 0;
/// Most faults in waiting; more are not taken.
const FAULTS_MAX: usize = 64;

/// Which end of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineEnd {
    /// The first.
    A,
    /// The second.
    B,
}

/// Something that goes wrong on the line, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineFault {
    /// One bit of the frame flips: of this byte, or of its last one if it is shorter.
    FlipBit {
        /// Which byte of the frame.
        byte: usize,
        /// Which of its bits, 0 to 7.
        bit: u8,
    },
    /// One bit of the first frame flips that has this byte at all; shorter ones pass.
    FlipBitOfLong {
        /// Which byte of the frame.
        byte: usize,
        /// Which of its bits, 0 to 7.
        bit: u8,
    },
    /// The whole frame is lost.
    DropFrame,
    /// The frame is cut off after so many bytes.
    CutAfter(usize),
    /// These bytes come before the frame.
    Noise(Vec<u8>),
}

/// Faults in waiting, shared with the line: inject while it runs.
#[derive(Debug, Clone, Default)]
pub struct LineFaults(Arc<Mutex<VecDeque<Waiting>>>);

#[derive(Debug)]
struct Waiting {
    from: LineEnd,
    /// How many frames from that end pass before it strikes.
    after: u32,
    fault: LineFault,
}

impl LineFaults {
    /// No faults.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Lets a fault strike the frame that comes from this end once `after` more have passed.
    pub fn inject(&self, from: LineEnd, after: u32, fault: LineFault) {
        let mut faults = self.lock();
        if faults.len() < FAULTS_MAX {
            faults.push_back(Waiting { from, after, fault });
        }
    }

    /// How many have not struck yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().len()
    }

    /// A frame from this end begins: the faults that strike it.
    fn strike(&self, from: LineEnd) -> Vec<LineFault> {
        let mut struck = Vec::new();
        self.lock().retain_mut(|waiting| {
            if waiting.from != from
                || (waiting.after == 0 && matches!(waiting.fault, LineFault::FlipBitOfLong { .. }))
            {
                return true;
            }
            if waiting.after == 0 {
                struck.push(waiting.fault.clone());
                return false;
            }
            waiting.after -= 1;
            true
        });
        struck
    }

    /// A frame from this end has the byte `at`: the bit of it that flips, if one does.
    fn strike_long(&self, from: LineEnd, at: usize) -> Option<u8> {
        let mut faults = self.lock();
        let (index, bit) =
            faults.iter().enumerate().find_map(|(index, waiting)| match waiting.fault {
                LineFault::FlipBitOfLong { byte, bit }
                    if waiting.from == from && waiting.after == 0 && byte == at =>
                {
                    Some((index, bit))
                }
                _ => None,
            })?;
        faults.remove(index);
        Some(bit)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Two joined ptys: what is written to one end is read at the other. Runs in a thread of its own
/// until stopped or dropped; the paths then no longer work, as with a real plug.
#[derive(Debug)]
pub struct SerialLine {
    paths: [PathBuf; 2],
    stop: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl SerialLine {
    /// Opens both ends in raw mode and joins them.
    ///
    /// # Errors
    /// [`io::Error`] if the system gives no pty or thread.
    pub fn start(faults: LineFaults) -> io::Result<Self> {
        let ([a, a_slave, b, b_slave], paths) = {
            let (a, a_slave, a_path) = open_pty()?;
            let (b, b_slave, b_path) = open_pty()?;
            ([a, a_slave, b, b_slave], [a_path, b_path])
        };
        let (stop, stopped) = UnixStream::pair()?;
        let joined = Joined {
            masters: [File::from(a), File::from(b)],
            slaves: [a_slave, b_slave],
            frames: [Frame::default(), Frame::default()],
            faults,
        };
        let thread = std::thread::Builder::new()
            .name("serial-line".into())
            .spawn(move || joined.run(&stopped))?;
        Ok(Self { paths, stop, thread: Some(thread) })
    }

    /// The path of an end.
    #[must_use]
    pub fn path(&self, end: LineEnd) -> &Path {
        &self.paths[end as usize]
    }

    /// True while the ends are joined.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Takes the line apart and waits for its thread.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // The thread sees the end of the stream. It may be gone already: nothing to tell it then.
        let _gone = self.stop.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

impl Drop for SerialLine {
    fn drop(&mut self) {
        self.end();
    }
}

/// The frame that passes from one end.
#[derive(Default)]
struct Frame {
    /// Bytes of it that have come; none between frames.
    len: usize,
    struck: Vec<LineFault>,
    /// A bit is still to flip; the byte before it, held back, in case it is the last one.
    held: Option<(u8, u8)>,
}

impl Frame {
    /// Takes a byte, adds to `out` what passes.
    fn pass(&mut self, from: LineEnd, faults: &LineFaults, byte: u8, out: &mut Vec<u8>) {
        if byte == DELIMITER {
            if let Some((held, bit)) = self.held.take() {
                out.push(held ^ (1 << (bit % 8))); // the frame's last byte
            }
            *self = Self::default();
            out.push(byte);
            return;
        }
        if self.len == 0 {
            self.struck = faults.strike(from);
        }
        let at = self.len;
        self.len += 1;
        let byte = faults.strike_long(from, at).map_or(byte, |bit| byte ^ (1 << (bit % 8)));
        let mut passes = true;
        let mut flip = None;
        for fault in &self.struck {
            match fault {
                LineFault::Noise(bytes) if at == 0 => out.extend_from_slice(bytes),
                LineFault::Noise(_) => {}
                LineFault::DropFrame => passes = false,
                LineFault::CutAfter(len) => passes &= at < *len,
                LineFault::FlipBit { byte, bit } => flip = Some((*byte, *bit)),
                LineFault::FlipBitOfLong { .. } => {} // struck when it is long enough
            }
        }
        if !passes {
            return;
        }
        match flip {
            Some((target, bit)) if at < target => {
                out.extend(self.held.replace((byte, bit)).map(|(before, _)| before));
            }
            Some((target, bit)) if at == target => {
                out.extend(self.held.take().map(|(before, _)| before));
                out.push(byte ^ (1 << (bit % 8)));
            }
            _ => out.push(byte),
        }
    }
}

struct Joined {
    masters: [File; 2],
    /// Kept open so that the line survives its clients.
    slaves: [OwnedFd; 2],
    frames: [Frame; 2],
    faults: LineFaults,
}

impl Joined {
    fn run(mut self, stopped: &UnixStream) {
        let mut bytes = [0; 4096];
        let mut out = Vec::new();
        while let Some(ready) = self.wait(stopped) {
            for end in [LineEnd::A, LineEnd::B] {
                if !ready[end as usize] {
                    continue;
                }
                let (from, to) = (end as usize, 1 - end as usize);
                let count = match self.masters[from].read(&mut bytes) {
                    Ok(0) => return,
                    Ok(count) => count,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(_) => return,
                };
                // A client that took the port for itself alone and was killed would leave it locked
                // as long as the pty lives; a real port is freed by its last close.
                if ioctl_tiocnxcl(&self.slaves[from]).is_err() {
                    return;
                }
                out.clear();
                for byte in &bytes[..count] {
                    self.frames[from].pass(end, &self.faults, *byte, &mut out);
                }
                if self.masters[to].write_all(&out).is_err() {
                    return;
                }
            }
        }
    }

    /// Waits for bytes and tells from which ends; none when stopped.
    fn wait(&self, stopped: &UnixStream) -> Option<[bool; 2]> {
        loop {
            let mut fds = [
                PollFd::new(&self.masters[0], PollFlags::IN),
                PollFd::new(&self.masters[1], PollFlags::IN),
                PollFd::new(stopped, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return None,
                Ok(_) => {
                    let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
                    return (!ready(&fds[2])).then(|| [ready(&fds[0]), ready(&fds[1])]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(faults: &LineFaults, sent: &[&[u8]]) -> Vec<u8> {
        let mut frame = Frame::default();
        let mut out = Vec::new();
        for byte in sent.concat() {
            frame.pass(LineEnd::A, faults, byte, &mut out);
        }
        out
    }

    #[test]
    fn each_fault_strikes_its_frame_and_no_other() {
        let sent: [&[u8]; 3] = [b"\0abc\0", b"\0def\0", b"\0ghi\0"];
        for (fault, expected) in [
            (LineFault::DropFrame, &b"\0abc\0\0\0\0ghi\0"[..]),
            (LineFault::CutAfter(1), b"\0abc\0\0d\0\0ghi\0"),
            (LineFault::Noise(b"xx".to_vec()), b"\0abc\0\0xxdef\0\0ghi\0"),
            (LineFault::FlipBit { byte: 1, bit: 1 }, b"\0abc\0\0dgf\0\0ghi\0"),
            (LineFault::FlipBit { byte: 9, bit: 0 }, b"\0abc\0\0deg\0\0ghi\0"),
        ] {
            let faults = LineFaults::none();
            faults.inject(LineEnd::A, 1, fault.clone());
            faults.inject(LineEnd::B, 0, LineFault::DropFrame);
            assert_eq!(through(&faults, &sent), expected, "{fault:?}");
            assert_eq!(faults.waiting(), 1, "the other end's waits");
        }
        assert_eq!(through(&LineFaults::none(), &sent), sent.concat());
        let faults = LineFaults::none();
        faults.inject(LineEnd::A, 0, LineFault::FlipBitOfLong { byte: 3, bit: 0 });
        let sent: [&[u8]; 3] = [b"\0abc\0", b"\0defg\0", b"\0hijk\0"];
        assert_eq!(through(&faults, &sent), b"\0abc\0\0deff\0\0hijk\0", "the first long one");
    }

    #[test]
    fn what_one_end_writes_the_other_reads_and_stopping_unplugs_both() {
        let line = SerialLine::start(LineFaults::none()).unwrap();
        let open = |end| File::options().read(true).write(true).open(line.path(end)).unwrap();
        let (mut a, mut b) = (open(LineEnd::A), open(LineEnd::B));
        let all: Vec<u8> = (0..=255).collect();
        let mut read = [0; 256];
        a.write_all(&all).unwrap();
        b.read_exact(&mut read).unwrap();
        assert_eq!(read[..], all);
        b.write_all(&all).unwrap();
        a.read_exact(&mut read).unwrap();
        assert_eq!(read[..], all);
        assert!(line.is_running());
        line.stop();
        assert!(a.write_all(b"x").is_err());
        assert!(matches!(b.read(&mut read), Ok(0) | Err(_)));
    }
}
