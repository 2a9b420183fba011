//! A PostgreSQL server of its own for a test.

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{io, net, process, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use tempfile::TempDir;

use super::{PartError, keeper};

const WHAT: &str = "PostgreSQL";
const INSTALL: &str = "run: apt-get install -y postgresql";
/// Where Debian keeps one folder per major version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The unprivileged user that Debian's package makes; PostgreSQL refuses to run as root.
const SERVICE_USER: &str = "postgres";
/// The database role of every URL.
const ROLE: &str = "cs";
/// Start of the folder name of a server's files; the process id and random letters follow.
const FOLDER: &str = "countersign-pg-";
/// How often a fresh server tries another port when someone else was faster.
const PORT_ATTEMPTS: u32 = 5;
/// How often `restart` tries while the processes of a killed server let go of shared memory.
const RESTART_ATTEMPTS: u32 = 100;
/// Pause between two looks at a process or a server.
const POLL: Duration = Duration::from_millis(20);
/// Looks at a starting or stopping server before giving up: 30 s with [`POLL`].
const POLLS: u32 = 1500;
/// How much of the server's log an error quotes, in bytes.
const LOG_TAIL: usize = 2000;
/// Connections the server accepts: several pools of several servers under test.
const MAX_CONNECTIONS: u32 = 200;

/// A PostgreSQL server on a free loopback port, durable (`fsync` on), gone with this value.
///
/// It runs as an unprivileged user, keeps its files in a temporary folder, and dies with this
/// process whatever way that ends. Role `cs`, no password, loopback only.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    folder: TempDir,
    user: Option<User>,
    port: u16,
    server: Option<Child>,
    url: String,
    databases: AtomicU32,
}

impl Postgres {
    /// Starts a server with one fresh database; about a second.
    ///
    /// # Errors
    /// [`PartError::Absent`] without the Debian package; otherwise what went wrong, with the end
    /// of the server's log.
    pub fn start() -> Result<Self, PartError> {
        let programs = newest_programs(Path::new(VERSIONS))?;
        let user = unprivileged_user()?;
        sweep(&std::env::temp_dir());
        let folder = tempfile::Builder::new()
            .prefix(&format!("{FOLDER}{}-", process::id()))
            .tempdir()
            .map_err(PartError::system("making PostgreSQL's folder"))?;
        if let Some(user) = &user {
            chown(folder.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw()))
                .map_err(PartError::system("giving PostgreSQL its folder"))?;
        }
        let mut postgres = Self {
            programs,
            folder,
            user,
            port: 0,
            server: None,
            url: String::new(),
            databases: AtomicU32::new(0),
        };
        postgres.init()?;
        postgres.launch_on_a_free_port()?;
        postgres.url = postgres.fresh_database()?;
        Ok(postgres)
    }

    /// URL of the database made at the start: `postgres://cs@127.0.0.1:PORT/test_0`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The TCP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where a program of the server's own version is, such as `pgbench`.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// Makes a new, empty database (UTF-8, locale C) and gives its URL; tests do not meet there.
    ///
    /// # Errors
    /// [`PartError::Failed`] if the server is not running or refuses.
    pub fn fresh_database(&self) -> Result<String, PartError> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut createdb = self.command("createdb");
        createdb.arg("-h").arg(self.folder.path()).args(["-p", &self.port.to_string()]);
        // template0 has no visitors: concurrent tests do not block each other.
        createdb.args(["-U", ROLE, "-T", "template0", &name]);
        run("createdb", createdb)?;
        Ok(format!("postgres://{ROLE}@127.0.0.1:{}/{name}", self.port))
    }

    /// Stops the server in order: open transactions are rolled back, the rest is checkpointed.
    ///
    /// Does nothing if it is not running.
    ///
    /// # Errors
    /// [`PartError`] if it does not end in time; it is killed then.
    pub fn stop(&mut self) -> Result<(), PartError> {
        self.end(Signal::SIGINT)
    }

    /// Kills the server and all its processes at once (SIGKILL), as a crash does.
    ///
    /// Does nothing if it is not running.
    ///
    /// # Errors
    /// [`PartError::System`] if the signal cannot be sent.
    pub fn kill(&mut self) -> Result<(), PartError> {
        let Some(mut server) = self.server.take() else {
            return Ok(());
        };
        let parent = pid(&server);
        // Stopped first, so that it makes no process between the listing and its death.
        kill(parent, Signal::SIGSTOP).map_err(PartError::system("stopping PostgreSQL"))?;
        let children = children(parent);
        kill(parent, Signal::SIGKILL).map_err(PartError::system("killing PostgreSQL"))?;
        for child in children {
            // One that ended by itself meanwhile is as dead as wanted.
            let _ = kill(child, Signal::SIGKILL);
        }
        server.wait().map_err(PartError::system("waiting for PostgreSQL's end"))?;
        Ok(())
    }

    /// Starts the server again on its files and its port (URLs stay valid), stopping it if needed.
    ///
    /// # Errors
    /// [`PartError`] if it does not come up, for instance because its port was taken meanwhile.
    pub fn restart(&mut self) -> Result<(), PartError> {
        self.stop()?;
        let mut last = None;
        for _ in 0..RESTART_ATTEMPTS {
            match self.launch() {
                Ok(()) => return Ok(()),
                // After `kill` the shared memory is freed only when the last process is gone.
                Err(error) if self.log_tail().contains("shared memory") => last = Some(error),
                Err(error) => return Err(error),
            }
            thread::sleep(POLL);
        }
        Err(last.unwrap_or_else(|| self.failed("it does not start again")))
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// One of PostgreSQL's programs, as the unprivileged user, in the server's folder.
    fn command(&self, program: &str) -> Command {
        self.wrapped(program, &[])
    }

    fn wrapped(&self, program: &str, setpriv: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        if let Some(user) = &self.user {
            command.arg(format!("--reuid={}", user.uid)).arg(format!("--regid={}", user.gid));
            command.arg("--clear-groups");
        }
        command.args(setpriv).arg("--").arg(self.programs.join(program));
        // The current folder may be closed to that user; messages are matched, so no translation.
        command.current_dir(self.folder.path()).env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    fn init(&self) -> Result<(), PartError> {
        let mut initdb = self.command("initdb");
        initdb.arg("-D").arg(self.data()).args(["-A", "trust", "-U", ROLE]);
        // Only making the files goes unsynced; the running server keeps fsync.
        initdb.args(["--no-sync", "--no-instructions", "--encoding=UTF8", "--locale=C"]);
        run("initdb", initdb)
    }

    fn launch_on_a_free_port(&mut self) -> Result<(), PartError> {
        let mut last = None;
        for _ in 0..PORT_ATTEMPTS {
            self.port = free_port()?;
            match self.launch() {
                Ok(()) => return Ok(()),
                Err(error) if self.log_tail().contains("Address already in use") => {
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| self.failed("no free port")))
    }

    /// Starts the server on `self.port` and waits until it accepts connections.
    fn launch(&mut self) -> Result<(), PartError> {
        let log = File::create(self.log()).map_err(PartError::system("making the log"))?;
        let err = log.try_clone().map_err(PartError::system("sharing the log"))?;
        let mut server = self.wrapped("postgres", &["--pdeathsig", "INT"]);
        server.arg("-D").arg(self.data()).arg("-k").arg(self.folder.path());
        server.args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
        server.args(["-c", &format!("max_connections={MAX_CONNECTIONS}")]);
        server.stdout(log).stderr(err);
        let mut server = keeper::spawn(server).map_err(PartError::system("starting PostgreSQL"))?;
        for _ in 0..POLLS {
            let ended = server.try_wait().map_err(PartError::system("watching PostgreSQL"))?;
            if ended.is_some() {
                return Err(self.failed("it ended while starting"));
            }
            if self.is_ready()? {
                self.server = Some(server);
                return Ok(());
            }
            thread::sleep(POLL);
        }
        let error = self.failed("it accepts no connection in time");
        self.server = Some(server);
        self.kill()?;
        Err(error)
    }

    /// Asked on the socket in our own folder: on TCP another server might answer. The server
    /// opens it after TCP, so both are there.
    fn is_ready(&self) -> Result<bool, PartError> {
        let mut probe = self.command("pg_isready");
        probe.arg("-q").arg("-h").arg(self.folder.path()).args(["-p", &self.port.to_string()]);
        let status = probe.status().map_err(PartError::system("asking PostgreSQL"))?;
        Ok(status.success())
    }

    fn end(&mut self, signal: Signal) -> Result<(), PartError> {
        let Some(server) = &mut self.server else {
            return Ok(());
        };
        kill(pid(server), signal).map_err(PartError::system("signalling PostgreSQL"))?;
        for _ in 0..POLLS {
            if server.try_wait().map_err(PartError::system("watching PostgreSQL"))?.is_some() {
                self.server = None;
                return Ok(());
            }
            thread::sleep(POLL);
        }
        self.kill()?;
        Err(self.failed("it did not stop in time"))
    }

    fn failed(&self, detail: &str) -> PartError {
        PartError::Failed { what: WHAT, detail: format!("{detail}\n{}", self.log_tail()) }
    }

    fn log_tail(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL)..]).into_owned()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // At once and without a checkpoint: the files go too.
        if self.end(Signal::SIGQUIT).is_err() {
            let _ = self.kill();
        }
    }
}

fn pid(server: &Child) -> Pid {
    Pid::from_raw(server.id().cast_signed())
}

fn children(parent: Pid) -> Vec<Pid> {
    let list = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    list.unwrap_or_default()
        .split_whitespace()
        .filter_map(|word| word.parse().ok().map(Pid::from_raw))
        .collect()
}

fn run(what: &'static str, mut command: Command) -> Result<(), PartError> {
    let output = command.output().map_err(PartError::system("running a PostgreSQL program"))?;
    if output.status.success() {
        return Ok(());
    }
    let detail = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(PartError::Failed { what, detail })
}

/// The `bin` folder of the newest version under `versions` that has a server.
fn newest_programs(versions: &Path) -> Result<PathBuf, PartError> {
    let folders = fs::read_dir(versions).into_iter().flatten().flatten();
    folders
        .filter_map(|folder| {
            let version: u32 = folder.file_name().to_str()?.parse().ok()?;
            let programs = folder.path().join("bin");
            programs.join("postgres").exists().then_some((version, programs))
        })
        .max()
        .map(|(_, programs)| programs)
        .ok_or(PartError::Absent { what: WHAT, install: INSTALL })
}

/// Who the server runs as if we are root; `None` if we already are an ordinary user.
fn unprivileged_user() -> Result<Option<User>, PartError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let user = User::from_name(SERVICE_USER)
        .map_err(|errno| PartError::system("looking up a user")(io::Error::from(errno)))?;
    user.map(Some).ok_or(PartError::Absent { what: WHAT, install: INSTALL })
}

fn free_port() -> Result<u16, PartError> {
    net::TcpListener::bind((net::Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(PartError::system("finding a free port"))
}

/// Removes folders of earlier processes that ended without running destructors.
fn sweep(temporary: &Path) {
    for folder in fs::read_dir(temporary).into_iter().flatten().flatten() {
        let name = folder.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(FOLDER)) else {
            continue;
        };
        let owner = rest.split('-').next().unwrap_or_default();
        let is_dead = |pid: &str| !Path::new("/proc").join(pid).exists();
        let lock = fs::read_to_string(folder.path().join("data/postmaster.pid"));
        let server = lock.as_deref().unwrap_or_default().lines().next().unwrap_or("none");
        if owner.parse::<u32>().is_ok() && is_dead(owner) && is_dead(server) {
            let _ = fs::remove_dir_all(folder.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_found_by_number_not_by_text() {
        let versions = tempfile::tempdir().unwrap();
        for version in ["9", "15", "x"] {
            let programs = versions.path().join(version).join("bin");
            fs::create_dir_all(&programs).unwrap();
            fs::write(programs.join("postgres"), "").unwrap();
        }
        // Newest of all, but only its client programs are installed.
        fs::create_dir_all(versions.path().join("17/bin")).unwrap();
        let found = newest_programs(versions.path()).unwrap();
        assert_eq!(found, versions.path().join("15/bin"));
    }

    #[test]
    fn without_any_version_it_is_absent() {
        let found = newest_programs(Path::new("/nonexistent"));
        assert!(matches!(found, Err(PartError::Absent { .. })));
    }

    #[test]
    fn sweeping_takes_only_what_dead_processes_left() {
        let temporary = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let folder = temporary.path().join(name);
            fs::create_dir_all(folder.join("data")).unwrap();
            folder
        };
        // Larger than any process id Linux gives out.
        let dead = make(&format!("{FOLDER}4194399-abc"));
        let running = make(&format!("{FOLDER}4194399-def"));
        fs::write(running.join("data/postmaster.pid"), format!("{}\n", process::id())).unwrap();
        let ours = make(&format!("{FOLDER}{}-abc", process::id()));
        let other = make("something-else");
        sweep(temporary.path());
        assert!(!dead.exists());
        assert!(running.exists() && ours.exists() && other.exists());
    }
}
