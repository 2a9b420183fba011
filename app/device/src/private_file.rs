//! Small files that only their owner may read, each replaced at once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Replaces a file, or makes it: a crash leaves the old one or the new one, and what was replaced
/// is on the disk before this returns. Follows no link.
///
/// # Errors
/// What the system refused.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    crash::point()?;
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    crash::point()?;
    fs::rename(&new, path)?;
    crash::point()?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Where a program may end amid [`replace`].
#[cfg(not(test))]
mod crash {
    pub(super) const fn point() -> std::io::Result<()> {
        Ok(())
    }
}

/// The same where tests end it: at the point that [`after`] says, and at all that come later.
#[cfg(test)]
pub(crate) mod crash {
    use std::cell::Cell;
    use std::io;

    thread_local!(static POINTS: Cell<Option<u32>> = const { Cell::new(None) });

    /// This thread's program lives for so many points more, and then does nothing any more, until
    /// [`reborn`].
    pub(crate) fn after(points: u32) {
        POINTS.set(Some(points));
    }

    /// It is started again.
    pub(crate) fn reborn() {
        POINTS.set(None);
    }

    pub(super) fn point() -> io::Result<()> {
        match POINTS.get() {
            None => Ok(()),
            Some(0) => Err(io::Error::other("the program has ended")),
            Some(left) => {
                POINTS.set(Some(left - 1));
                Ok(())
            }
        }
    }
}
