use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

use super::PartError;

/// A pseudo-terminal pair in raw mode: a serial line without hardware.
///
/// One side is [`master`](Self::master), the other is opened by path as any serial port is.
/// Dropping the pair is pulling the plug: the path's reader sees the end, its writer an error.
#[derive(Debug)]
pub struct Pty {
    /// The side the test (or an emulated module) holds. Bytes pass unchanged both ways.
    pub master: File,
    path: PathBuf,
    // Held so that the master does not read EIO before the other side opens, or after it closes.
    _line: File,
}

impl Pty {
    /// The path of the other side, for a program that opens a serial port.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A new pty pair, both sides raw (no echo, no line editing, 8 bits).
///
/// # Errors
/// [`PartError::System`] if the machine has no free pty.
pub fn pty() -> Result<Pty, PartError> {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
        .map_err(PartError::system("opening a pty"))?;
    grantpt(&master).map_err(PartError::system("granting a pty"))?;
    unlockpt(&master).map_err(PartError::system("unlocking a pty"))?;
    let path = PathBuf::from(ptsname_r(&master).map_err(PartError::system("naming a pty"))?);
    let line = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NOCTTY.bits())
        .open(&path)
        .map_err(PartError::system("opening a pty's line side"))?;
    let mut mode = tcgetattr(&line).map_err(PartError::system("reading a pty's mode"))?;
    cfmakeraw(&mut mode);
    tcsetattr(&line, SetArg::TCSANOW, &mode).map_err(PartError::system("making a pty raw"))?;
    Ok(Pty { master: File::from(OwnedFd::from(master)), path, _line: line })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn open(path: &Path) -> File {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NOCTTY.bits())
            .open(path)
            .unwrap()
    }

    #[test]
    fn every_byte_passes_unchanged_both_ways() {
        let mut pair = pty().unwrap();
        let mut line = open(pair.path());
        let all: Vec<u8> = (0..=255).collect();
        let mut read = [0; 256];
        pair.master.write_all(&all).unwrap();
        line.read_exact(&mut read).unwrap();
        assert_eq!(read.as_slice(), all);
        line.write_all(&all).unwrap();
        pair.master.read_exact(&mut read).unwrap();
        assert_eq!(read.as_slice(), all, "no echo and no editing on the way back");
    }

    #[test]
    fn closing_and_opening_again_keeps_the_line() {
        let mut pair = pty().unwrap();
        drop(open(pair.path()));
        let mut line = open(pair.path());
        line.write_all(b"again").unwrap();
        let mut read = [0; 5];
        pair.master.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"again");
    }

    #[test]
    fn dropping_the_pair_unplugs_the_line() {
        let pair = pty().unwrap();
        let mut line = open(pair.path());
        drop(pair);
        let mut byte = [0];
        assert!(matches!(line.read(&mut byte), Ok(0) | Err(_)), "no byte comes any more");
        assert!(line.write_all(b"x").is_err());
    }
}
