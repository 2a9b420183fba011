//! Running other programs: shown, streamed, captured, bounded.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Pause between two looks at a child with a time limit.
const POLL: Duration = Duration::from_millis(50);
/// How long output may keep coming after its program ended.
const PIPE_LIMIT: Duration = Duration::from_secs(2);
/// What `cargo run` sets for us and must not reach the next cargo: build scripts that look at
/// these would run again on every change between a terminal and this program.
const FROM_CARGO_RUN: [&str; 5] =
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.parent().map(PathBuf::from).unwrap_or(here)
}

/// The cargo that runs us, in the workspace's folder.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| FROM_CARGO_RUN.iter().any(|p| name.starts_with(p))) {
            command.env_remove(name);
        }
    }
    command.args(arguments).current_dir(root());
    command
}

/// Runs to the end with our output.
///
/// # Errors
/// If it does not start or fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("cannot run {shown}"))?;
    expect_success(&shown, status)
}

/// Runs to the end and returns what it wrote to stdout; stderr is ours.
///
/// # Errors
/// If it does not start, fails, or writes other than UTF-8.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let shown = words(command);
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run {shown}"))?;
    expect_success(&shown, output.status)?;
    String::from_utf8(output.stdout).with_context(|| format!("{shown} writes no UTF-8"))
}

/// Runs to the end, gives every line of stdout to `each` and prints those it says yes to.
///
/// # Errors
/// If it does not start or its output cannot be read; its failure is in the status.
pub(crate) fn stream(
    command: &mut Command,
    mut each: impl FnMut(&str) -> bool,
) -> Result<ExitStatus> {
    let shown = show(command);
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run {shown}"))?;
    let mut output = BufReader::new(child.stdout.take().context("stdout was piped")?);
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        if each(text.trim_end()) {
            print!("{text}");
        }
        line.clear();
    }
    Ok(child.wait()?)
}

/// Like [`capture`], but kills the child after `limit`.
///
/// # Errors
/// Also when the limit is reached.
pub(crate) fn capture_within(command: &mut Command, limit: Duration) -> Result<String> {
    let shown = show(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {shown}"))?;
    let mut stdout = child.stdout.take().context("stdout was piped")?;
    let (sender, text) = channel();
    thread::spawn(move || {
        let mut text = String::new();
        // Nobody listens any more once the limit was reached.
        let _ = sender.send(stdout.read_to_string(&mut text).map(|_| text));
    });
    let Some(status) = wait_within(&mut child, limit)? else {
        bail!("{shown} did not end within {} s", limit.as_secs());
    };
    expect_success(&shown, status)?;
    // A child of the child that stayed behind would hold the pipe open.
    let text = text.recv_timeout(PIPE_LIMIT);
    Ok(text.with_context(|| format!("{shown} ended but something still holds its output"))??)
}

fn wait_within(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let looks = limit.as_millis() / POLL.as_millis();
    for _ in 0..looks {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(POLL);
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

fn show(command: &Command) -> String {
    let shown = words(command);
    println!("   {shown}");
    shown
}

/// The command as people type it: the program without its folder, then the arguments.
fn words(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program()).to_string_lossy();
    let arguments = command.get_args().map(|argument| argument.to_string_lossy());
    std::iter::once(name).chain(arguments).collect::<Vec<_>>().join(" ")
}

fn expect_success(shown: &str, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_is_captured_only_from_a_success() {
        assert_eq!(capture(&mut shell("echo yes")).unwrap(), "yes\n");
        assert!(capture(&mut shell("echo yes; exit 1")).is_err());
        let second = Duration::from_secs(10);
        assert_eq!(capture_within(&mut shell("echo yes"), second).unwrap(), "yes\n");
        assert!(capture_within(&mut shell("exit 1"), second).is_err());
    }

    #[test]
    fn a_child_that_hangs_is_ended() {
        let error = capture_within(&mut shell("exec sleep 60"), POLL * 2).unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
    }

    #[test]
    fn a_program_that_leaves_one_behind_is_noticed() {
        let limit = Duration::from_secs(10);
        let error = capture_within(&mut shell("sleep 4 & echo yes"), limit).unwrap_err();
        assert!(error.to_string().contains("still holds"), "{error}");
    }

    #[test]
    fn streaming_sees_every_line_even_bytes_that_are_no_text() {
        let mut lines = Vec::new();
        let script = r"printf 'one\n\377\nthree'; exit 3";
        let status = stream(&mut shell(script), |line| {
            lines.push(line.to_owned());
            true
        })
        .unwrap();
        assert_eq!(lines, ["one", "\u{fffd}", "three"]);
        assert_eq!(status.code(), Some(3));
    }

    #[test]
    fn commands_are_shown_without_folders() {
        let mut command = Command::new("/a/b/cargo");
        command.args(["fmt", "--all"]);
        assert_eq!(words(&command), "cargo fmt --all");
    }
}
