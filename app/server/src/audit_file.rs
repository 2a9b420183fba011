//! The file of signed audit checkpoints outside the store, one line each.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use countersign_store::{Checkpoint, MAX_CHECKPOINT_LINE};

/// Appends a checkpoint and has it on the disk before it returns. A line that a crash cut short is
/// removed first.
///
/// # Errors
/// The system's.
pub fn append_checkpoint(path: &Path, checkpoint: &Checkpoint) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    let len = file.seek(SeekFrom::End(0))?;
    let whole = len - cut_line(&mut file, len)?;
    file.set_len(whole)?;
    file.seek(SeekFrom::Start(whole))?;
    file.write_all(format!("{checkpoint}\n").as_bytes())?;
    file.sync_data()?;
    if len == 0 {
        // A new file is there for good only with its directory.
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        File::open(dir.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

/// Bytes after the last newline.
fn cut_line(file: &mut File, len: u64) -> io::Result<u64> {
    let tail = len.min(MAX_CHECKPOINT_LINE as u64 + 1);
    file.seek(SeekFrom::Start(len - tail))?;
    let mut bytes = Vec::new();
    file.take(tail).read_to_end(&mut bytes)?;
    let after = bytes.iter().rev().take_while(|byte| **byte != b'\n').count() as u64;
    Ok(after)
}

/// Reads all checkpoints. A missing file has none; a last line without newline was cut by a crash
/// and is passed over.
///
/// # Errors
/// The system's; `InvalidData` that names the line that is no checkpoint.
pub fn read_checkpoints(path: &Path) -> io::Result<Vec<Checkpoint>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut reader = BufReader::new(file);
    let mut checkpoints = Vec::new();
    for number in 1_u64.. {
        let mut line = Vec::new();
        let limit = MAX_CHECKPOINT_LINE as u64 + 1;
        let read = reader.by_ref().take(limit).read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        let Some(line) = line.strip_suffix(b"\n") else {
            if reader.fill_buf()?.is_empty() {
                break;
            }
            return Err(bad_line(number));
        };
        let text = std::str::from_utf8(line).map_err(|_| bad_line(number))?;
        checkpoints.push(text.parse().map_err(|_| bad_line(number))?);
    }
    Ok(checkpoints)
}

fn bad_line(number: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("line {number} is not a checkpoint"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(position: u64) -> Checkpoint {
        let at = countersign_crypto::UnixTime::from_secs(1);
        Checkpoint { position, hash: [7; 32], at, signature: vec![1, 2, 3] }
    }

    #[test]
    fn a_line_cut_by_a_crash_is_passed_over_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoints");
        assert_eq!(read_checkpoints(&path).unwrap(), []);
        append_checkpoint(&path, &checkpoint(1)).unwrap();
        append_checkpoint(&path, &checkpoint(2)).unwrap();
        let len = std::fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(len - 5).unwrap();
        assert_eq!(read_checkpoints(&path).unwrap(), [checkpoint(1)]);
        append_checkpoint(&path, &checkpoint(3)).unwrap();
        assert_eq!(read_checkpoints(&path).unwrap(), [checkpoint(1), checkpoint(3)]);
    }

    #[test]
    fn a_changed_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoints");
        append_checkpoint(&path, &checkpoint(1)).unwrap();
        let text = format!("{}nonsense\n", std::fs::read_to_string(&path).unwrap());
        std::fs::write(&path, text).unwrap();
        let error = read_checkpoints(&path).unwrap_err();
        assert_eq!(error.to_string(), "line 2 is not a checkpoint");
        std::fs::write(&path, "x".repeat(10_000)).unwrap();
        assert_eq!(read_checkpoints(&path).unwrap_err().to_string(), "line 1 is not a checkpoint");
    }
}
