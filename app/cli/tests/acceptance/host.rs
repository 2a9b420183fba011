//! A machine with the command on it: a temporary directory, and processes that end with the test.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use countersign_device::Api;
use libtest_mimic::Failed;
use serde_json::Value;

/// Which database the server uses.
pub(crate) enum Database {
    Sqlite,
    Postgres(String),
}

/// A command's end.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn json(&self) -> Result<Value, Failed> {
        serde_json::from_str(&self.stdout)
            .map_err(|error| format!("{error}: {:?} / {:?}", self.stdout, self.stderr).into())
    }

    pub(crate) fn ok(self) -> Result<Self, Failed> {
        if self.code == 0 {
            Ok(self)
        } else {
            Err(format!("exit code {}: {} {}", self.code, self.stdout, self.stderr).into())
        }
    }
}

pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.stdin(Stdio::null()).env_remove("CREDENTIALS_DIRECTORY").env_remove("COUNTERSIGN_LOG");
    command
}

/// A process that is killed when the test ends.
pub(crate) struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Result<Self, Failed> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        Ok(Self { child, stdout })
    }

    /// The same with its stdin for the test to write to.
    pub(crate) fn start_with_stdin(mut command: Command) -> Result<(Self, ChildStdin), Failed> {
        command.stdin(Stdio::piped());
        let mut process = Self::start(command)?;
        let stdin = process.child.stdin.take().ok_or("no stdin")?;
        Ok((process, stdin))
    }

    /// SIGKILL; gives what was printed.
    pub(crate) fn kill_and_read(mut self) -> Result<String, Failed> {
        self.child.kill()?;
        let mut stdout = String::new();
        self.stdout.read_to_string(&mut stdout)?;
        Ok(stdout)
    }

    /// The first line, as JSON: what a long-running command says when it is ready.
    pub(crate) fn first_json(&mut self) -> Result<Value, Failed> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        serde_json::from_str(&line).map_err(|error| format!("{error}: {line:?}").into())
    }

    /// The process's id.
    #[cfg(feature = "pcsc")]
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) -> Result<(), Failed> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) -> Result<(), Failed> {
        let kill = format!("kill -TERM {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &kill]).status()?;
        if sent.success() { Ok(()) } else { Err(format!("{kill}: {sent}").into()) }
    }

    /// Waits for the end and gives what was printed.
    pub(crate) fn finish(mut self) -> Result<Ended, Failed> {
        let mut stdout = String::new();
        self.stdout.read_to_string(&mut stdout)?;
        let code = self.child.wait()?.code().unwrap_or(-1);
        Ok(Ended { code, stdout, stderr: String::new() })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A machine.
pub(crate) struct Host {
    dir: tempfile::TempDir,
    env: Vec<(&'static str, PathBuf)>,
}

impl Host {
    pub(crate) fn new() -> Result<Self, Failed> {
        Ok(Self { dir: tempfile::tempdir()?, env: Vec::new() })
    }

    /// The same machine with an environment variable for all that runs on it.
    #[cfg(any(feature = "pcsc", feature = "pkcs11"))]
    pub(crate) fn with_env(mut self, (name, value): (&'static str, PathBuf)) -> Self {
        self.env.push((name, value));
        self
    }

    /// The environment variables for all that runs on it.
    pub(crate) fn environment(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        self.env.iter().cloned()
    }

    fn command(&self) -> Command {
        let mut command = command();
        command.envs(self.env.iter().cloned()).current_dir(self.dir.path());
        command
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs the command in this machine's directory.
    pub(crate) fn run(&self, words: &[&str]) -> Result<Ended, Failed> {
        self.run_with(words, &[])
    }

    /// The same with these environment variables.
    pub(crate) fn run_with(&self, words: &[&str], env: &[(&str, &str)]) -> Result<Ended, Failed> {
        let mut command = self.command();
        command.args(words).envs(env.iter().copied());
        let output = command.output()?;
        Ok(Ended {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout)?,
            stderr: String::from_utf8(output.stderr)?,
        })
    }

    pub(crate) fn spawn(&self, words: &[&str]) -> Result<Process, Failed> {
        let mut command = self.command();
        command.args(words).stderr(Stdio::null());
        Process::start(command)
    }

    /// `init`, as the README has it.
    pub(crate) fn init(&self, database: &Database) -> Result<(), Failed> {
        self.init_with(&[], database)
    }

    /// The same with more words.
    pub(crate) fn init_with(&self, more: &[&str], database: &Database) -> Result<(), Failed> {
        let mut words = vec!["init", "--data", "data", "--admin-token-file", "admin.token"];
        words.extend(more);
        if let Database::Postgres(url) = database {
            words.extend(["--database", url]);
        }
        self.run(&words)?.ok()?;
        let ca = self.run(&["ca", "export", "--data", "data", "tls-root"])?.ok()?;
        std::fs::write(self.path("ca.pem"), ca.stdout)?;
        Ok(())
    }

    /// An emulated SAM module at `sam`.
    pub(crate) fn sam(&self) -> Result<Process, Failed> {
        self.sam_at("sam")
    }

    /// The same at another path.
    pub(crate) fn sam_at(&self, link: &str) -> Result<Process, Failed> {
        let mut sam = self.spawn(&["--json", "emulator", "sam", "--link", link])?;
        sam.first_json()?;
        Ok(sam)
    }

    /// `serve` on these ports.
    pub(crate) fn serve(&self, ports: &Ports) -> Result<Process, Failed> {
        self.serve_on("data", "sam", ports)
    }

    /// The same on another directory and module.
    pub(crate) fn serve_on(&self, data: &str, sam: &str, ports: &Ports) -> Result<Process, Failed> {
        self.serve_as(data, sam, ports, |command| {
            command.stderr(Stdio::null());
        })
    }

    /// The same with the API over plain HTTP.
    pub(crate) fn serve_plain(&self, ports: &Ports) -> Result<Process, Failed> {
        self.serve_as("data", "sam", ports, |command| {
            command.arg("--plain-http").stderr(Stdio::null());
        })
    }

    /// The same with all it can log in the file `log`.
    pub(crate) fn serve_logged(&self, ports: &Ports, log: &str) -> Result<Process, Failed> {
        let log = File::create(self.path(log))?;
        self.serve_as("data", "sam", ports, |command| {
            command.env("COUNTERSIGN_LOG", "trace").stderr(log);
        })
    }

    fn serve_as(
        &self,
        data: &str,
        sam: &str,
        ports: &Ports,
        change: impl FnOnce(&mut Command),
    ) -> Result<Process, Failed> {
        let (https, gateway) = (ports.https.to_string(), ports.gateway.to_string());
        let mut command = self.command();
        command.args(["--json", "serve", "--data", data, "--sam", sam]);
        command.args(["--https-port", &https, "--gateway-port", &gateway]);
        change(&mut command);
        let mut server = Process::start(command)?;
        server.first_json()?;
        Ok(server)
    }

    pub(crate) fn api(&self, ports: &Ports) -> Result<Api, Failed> {
        let ca = std::fs::read_to_string(self.path("ca.pem"))?;
        let token = std::fs::read_to_string(self.path("admin.token"))?;
        Ok(Api::new(&ports.api(), &ca, &token)?)
    }

    pub(crate) fn enroll(&self, ports: &Ports, serial: &str) -> Result<(), Failed> {
        self.try_enroll(ports, serial)?.ok()?;
        Ok(())
    }

    pub(crate) fn try_enroll(&self, ports: &Ports, serial: &str) -> Result<Ended, Failed> {
        self.run(&[
            "--json",
            "device",
            "enroll",
            "--device",
            serial,
            "--serial",
            serial,
            "--server",
            &ports.api(),
            "--ca",
            "ca.pem",
            "--token-file",
            "admin.token",
        ])
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }
}

/// Two free loopback ports that a server can have again after it was killed.
pub(crate) struct Ports {
    pub(crate) https: u16,
    pub(crate) gateway: u16,
}

impl Ports {
    /// Below the range from which the system takes ports for outgoing connections, so that none
    /// of those sits on a server's port while it is away; each call takes its own.
    pub(crate) fn pick() -> Result<Self, Failed> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let first = u16::try_from(std::process::id() % 10_000)?;
        for _ in 0..1000 {
            let at = NEXT.fetch_add(2, Ordering::Relaxed);
            let https = 20_000 + (first + at) % 12_000;
            let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
            if free(https) && free(https + 1) {
                return Ok(Self { https, gateway: https + 1 });
            }
        }
        Err("no two free ports".into())
    }

    pub(crate) fn api(&self) -> String {
        format!("https://127.0.0.1:{}", self.https)
    }

    pub(crate) fn gateway(&self) -> String {
        format!("127.0.0.1:{}", self.gateway)
    }
}

/// Tries until `done` or a bound is reached.
pub(crate) fn wait_for<T>(
    what: &str,
    mut done: impl FnMut() -> Result<Option<T>, Failed>,
) -> Result<T, Failed> {
    for _ in 0..600 {
        if let Some(value) = done()? {
            return Ok(value);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(format!("{what} never happened").into())
}

/// Whether a file exists at all.
pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// The words of `device reader` for the reader `RD-1`.
pub(crate) fn reader_words<'a>(gateway: &'a str, card: &'a str, reads: &'a str) -> Vec<&'a str> {
    let program = ["--json", "device", "reader", "--device", "RD-1"];
    [&program[..], &["--gateway", gateway, "--card", card, "--reads", reads]].concat()
}
