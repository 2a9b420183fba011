//! A process of this program that takes part in a measurement.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::Fallible;
use crate::channel::anonymous;

/// A process of this program that does as it is told.
pub(super) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    /// `relay-part` with these words, and a variable of its own.
    pub(super) fn start(
        words: &[&str],
        variable: Option<(&'static str, PathBuf)>,
    ) -> Fallible<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("relay-part").args(words).envs(variable);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        Ok(Self { child, stdin, stdout })
    }

    pub(super) fn tell(&mut self, line: &str) -> Fallible<()> {
        let stdin = self.stdin.as_mut().ok_or("it was told to end")?;
        writeln!(stdin, "{line}")?;
        Ok(stdin.flush()?)
    }

    pub(super) fn hear(&mut self) -> Fallible<Value> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            return Err("a part of the bench has ended".into());
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// Its anonymous memory, in bytes.
    pub(super) fn memory(&self) -> Fallible<u64> {
        anonymous(&fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?)
    }
}

impl Drop for Process {
    /// Ends it by the end of its input; a crowd that is stuck, by force.
    fn drop(&mut self) {
        self.stdin = None;
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
