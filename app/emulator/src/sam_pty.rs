use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use countersign_crypto::CryptoRng;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, ioctl_tiocnxcl, tcgetattr, tcsetattr};

use crate::{EmulatedSam, Reply};

/// An emulated SAM module behind a pty: open [`path`](Self::path) as if it were its serial port.
///
/// Runs in a thread of its own until stopped, dropped, or unplugged by a fault; the path then no
/// longer works, as with a real plug.
#[derive(Debug)]
pub struct SamPty {
    path: PathBuf,
    stop: UnixStream,
    thread: Option<JoinHandle<()>>,
    /// Keeps the system from giving the path to another pty while this module is unplugged.
    _reserved: OwnedFd,
}

impl SamPty {
    /// Opens a pty in raw mode and starts the module.
    ///
    /// # Errors
    /// [`io::Error`] if the system gives no pty or thread.
    pub fn start(sam: EmulatedSam, rng: Box<dyn CryptoRng + Send>) -> io::Result<Self> {
        Self::start_paced(sam, rng, Duration::ZERO)
    }

    /// The same with a module that answers each command only after `answer_after`, as a real one
    /// takes its time.
    ///
    /// # Errors
    /// [`io::Error`] if the system gives no pty or thread.
    pub fn start_paced(
        sam: EmulatedSam,
        rng: Box<dyn CryptoRng + Send>,
        answer_after: Duration,
    ) -> io::Result<Self> {
        let (master, slave, path) = open_pty()?;
        let (stop, stopped) = UnixStream::pair()?;
        let reserved = slave.try_clone()?;
        let module = Module { master: File::from(master), slave, sam, rng, answer_after };
        let thread = std::thread::Builder::new()
            .name("emulated-sam".into())
            .spawn(move || module.run(&stopped))?;
        Ok(Self { path, stop, thread: Some(thread), _reserved: reserved })
    }

    /// The serial port's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True while the module runs; false once it was unplugged.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Unplugs the module and waits for its thread.
    pub fn stop(mut self) {
        self.end();
    }

    /// Waits until the module ends by itself (unplugged by a fault, or its port broke).
    pub fn wait(mut self) {
        self.join();
    }

    fn end(&mut self) {
        // The thread sees the end of the stream. It may be gone already: nothing to tell it then.
        let _gone = self.stop.shutdown(std::net::Shutdown::Both);
        self.join();
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

impl Drop for SamPty {
    fn drop(&mut self) {
        self.end();
    }
}

/// A pty in raw mode: master, slave, and the slave's path.
pub(crate) fn open_pty() -> io::Result<(OwnedFd, OwnedFd, PathBuf)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let slave = open(name.as_c_str(), flags, Mode::empty())?;
    let mut settings = tcgetattr(&slave)?;
    settings.make_raw();
    tcsetattr(&slave, OptionalActions::Now, &settings)?;
    Ok((master, slave, OsString::from_vec(name.into_bytes()).into()))
}

struct Module {
    master: File,
    /// Kept open so that the port survives its clients: the master would read an error as soon as
    /// the last slave is closed.
    slave: OwnedFd,
    sam: EmulatedSam,
    rng: Box<dyn CryptoRng + Send>,
    answer_after: Duration,
}

impl Module {
    fn run(mut self, stopped: &UnixStream) {
        let mut bytes = [0; 4096];
        while self.wait(stopped) {
            let count = match self.master.read(&mut bytes) {
                Ok(0) => return,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            // A client that took the port for itself alone and was killed would leave it locked as
            // long as the pty lives; a real port is freed by its last close.
            if ioctl_tiocnxcl(&self.slave).is_err() {
                return;
            }
            for reply in self.sam.handle(&mut *self.rng, &bytes[..count]) {
                match reply {
                    Reply::Bytes(frame) => {
                        std::thread::sleep(self.answer_after);
                        if self.master.write_all(&frame).is_err() {
                            return;
                        }
                    }
                    Reply::Unplugged => return,
                }
            }
        }
    }

    /// Waits for bytes from the host; false when stopped.
    fn wait(&self, stopped: &UnixStream) -> bool {
        loop {
            let mut fds =
                [PollFd::new(&self.master, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
                Ok(_) => {
                    let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
                    return !ready(&fds[1]) && ready(&fds[0]);
                }
            }
        }
    }
}
