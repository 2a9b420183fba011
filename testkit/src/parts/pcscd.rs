//! A smart-card service of its own for a test, with a virtual reader of two slots.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::tokens::on_path;
use super::{PartError, keeper};

const WHAT: &str = "pcscd with a virtual reader";
const INSTALL: &str = "run: apt-get install -y pcscd vsmartcard-vpcd opensc pcsc-tools";
const SERVICE: &str = "/usr/sbin/pcscd";
const DRIVER: &str = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so";
/// Start of the folder name of a service's files; the process id and random letters follow.
const FOLDER: &str = "cs-pcsc-";
/// What pcscd says when its driver cannot listen.
const NO_PORT: &str = "Open Port";
/// Ports are looked for here: below those that Linux gives to outgoing connections, and apart from
/// those where tests put servers.
const PORTS: std::ops::Range<u16> = 10_000..20_000;
/// How often a fresh service tries other ports when someone else was faster.
const PORT_ATTEMPTS: u32 = 5;
/// Pause between two looks, and looks before giving up: 20 s.
const POLL: Duration = Duration::from_millis(10);
const POLLS: u32 = 2000;

/// pcscd sees a `/run` of its own, so it meets neither the machine's service nor another test's,
/// and no driver for USB, so it takes nobody's reader. Everything else stays shared: cards come by
/// TCP. Paths are relative because the folder may itself lie below `/run`.
const START: &str = "mount --bind run /run || exit 1
for bundle in /usr/lib/pcsc/drivers/*.bundle; do
    if [ -d \"$bundle\" ]; then mount --bind empty \"$bundle\" || exit 1; fi
done
exec setpriv --pdeathsig KILL \"$0\" --foreground --critical --config /run/conf";

/// A running pcscd whose virtual reader has two slots, gone with this value or this process.
///
/// A card is who connects to [`Self::slot`]; programs find the service by
/// [`Self::environment`], which is set on child processes only.
#[derive(Debug)]
pub struct Pcscd {
    folder: TempDir,
    name: String,
    port: u16,
    service: Option<Child>,
}

impl Pcscd {
    /// Starts a service with two empty slots.
    ///
    /// # Errors
    /// [`PartError::Absent`] without the Debian packages; [`PartError::Failed`] with what it said,
    /// for instance where mount namespaces are forbidden.
    pub fn start() -> Result<Self, PartError> {
        // Tests look at cards with programs of other makers.
        let programs = on_path("opensc-tool") && on_path("scriptor");
        if !programs || !Path::new(SERVICE).exists() || !Path::new(DRIVER).exists() {
            return Err(PartError::Absent { what: WHAT, install: INSTALL });
        }
        sweep(&std::env::temp_dir());
        // The socket's path has to be short.
        let folder = tempfile::Builder::new()
            .prefix(&format!("{FOLDER}{}-", process::id()))
            .tempdir()
            .map_err(PartError::system("making pcscd's folder"))?;
        for part in ["run/pcscd", "run/conf", "empty"] {
            fs::create_dir_all(folder.path().join(part))
                .map_err(PartError::system("making pcscd's folders"))?;
        }
        let mut pcscd = Self { folder, name: String::new(), port: 0, service: None };
        let mut last = None;
        for _ in 0..PORT_ATTEMPTS {
            pcscd.choose_ports()?;
            match pcscd.restart() {
                Ok(()) => return Ok(pcscd),
                Err(error) if pcscd.log().contains(NO_PORT) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| pcscd.failed("no free ports")))
    }

    /// The name of a slot's reader; slots are 0 and 1. No other service has readers of this name.
    #[must_use]
    pub fn reader(&self, slot: u16) -> String {
        format!("{} 00 0{slot}", self.name)
    }

    /// Where the card of a slot connects, `127.0.0.1:PORT`; slots are 0 and 1.
    #[must_use]
    pub fn slot(&self, slot: u16) -> String {
        format!("127.0.0.1:{}", self.port + slot)
    }

    /// The variable by which PC/SC programs find this service.
    #[must_use]
    pub fn environment(&self) -> (&'static str, PathBuf) {
        ("PCSCLITE_CSOCK_NAME", self.folder.path().join("run/pcscd/pcscd.comm"))
    }

    /// Kills the service; its cards lose their connection. Nothing if it is not running.
    ///
    /// # Errors
    /// [`PartError::System`].
    pub fn kill(&mut self) -> Result<(), PartError> {
        let Some(mut service) = self.service.take() else { return Ok(()) };
        service.kill().map_err(PartError::system("killing pcscd"))?;
        service.wait().map_err(PartError::system("waiting for pcscd's end"))?;
        let files = self.folder.path().join("run/pcscd");
        for file in ["pcscd.comm", "pcscd.pid"] {
            // Left behind by a killed service; the next one would think that it still runs.
            let _ = fs::remove_file(files.join(file));
        }
        Ok(())
    }

    /// Stops it (SIGSTOP) as it stands: it answers nobody, and its connections stay open.
    /// [`Self::restart`] ends that.
    ///
    /// # Errors
    /// [`PartError::System`].
    pub fn pause(&self) -> Result<(), PartError> {
        let Some(service) = &self.service else { return Ok(()) };
        kill(Pid::from_raw(service.id().cast_signed()), Signal::SIGSTOP)
            .map_err(PartError::system("stopping pcscd"))
    }

    /// Starts the service again with the same readers and ports, killing it if it runs.
    ///
    /// # Errors
    /// [`PartError`] if it does not come up.
    pub fn restart(&mut self) -> Result<(), PartError> {
        self.kill()?;
        let log = File::create(self.log_path()).map_err(PartError::system("making the log"))?;
        let err = log.try_clone().map_err(PartError::system("sharing the log"))?;
        let mut command = Command::new("unshare");
        command.args(["-r", "-m", "sh", "-c", START, SERVICE]);
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(log).stderr(err);
        let service = keeper::spawn(command).map_err(PartError::system("starting pcscd"))?;
        let id = service.id();
        self.service = Some(service);
        for _ in 0..POLLS {
            let service = self.service.as_mut().map(Child::try_wait);
            let ended = service.transpose().map_err(PartError::system("watching pcscd"))?;
            if ended.flatten().is_some() {
                self.service = None;
                return Err(self.failed("it ended while starting"));
            }
            if self.environment().1.exists() && listens(id, [self.port, self.port + 1]) {
                return Ok(());
            }
            if self.log().contains(NO_PORT) {
                break;
            }
            thread::sleep(POLL);
        }
        self.kill()?;
        Err(self.failed("it has no reader"))
    }

    /// A pair of ports that nobody has at this moment, and the reader's name after it.
    fn choose_ports(&mut self) -> Result<(), PartError> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let pairs = (PORTS.end - PORTS.start) / 2;
        // Test programs that run side by side start at different places.
        let start = process::id().wrapping_mul(97) % u32::from(pairs);
        let start = u16::try_from(start).unwrap_or_default();
        let free = |port: u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
        for _ in 0..pairs {
            let pair = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % pairs;
            let port = PORTS.start + 2 * pair;
            if free(port).and_then(|_held| free(port + 1)).is_ok() {
                self.port = port;
                self.name = format!("countersign test {}-{port}", process::id());
                return self.configure();
            }
        }
        Err(self.failed("no free ports"))
    }

    fn configure(&self) -> Result<(), PartError> {
        let Self { name, port, .. } = self;
        let text = format!(
            "FRIENDLYNAME \"{name}\"\nDEVICENAME /dev/null:0x{port:04X}\n\
             LIBPATH {DRIVER}\nCHANNELID 0x{port:04X}\n"
        );
        fs::write(self.folder.path().join("run/conf/vpcd"), text)
            .map_err(PartError::system("configuring the virtual reader"))
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    fn failed(&self, detail: &str) -> PartError {
        let detail = format!("{detail}\n{}", self.log().trim());
        PartError::Failed { what: WHAT, detail }
    }
}

impl Drop for Pcscd {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Removes folders of earlier processes that ended without running destructors; their services
/// ended with them.
fn sweep(temporary: &Path) {
    for folder in fs::read_dir(temporary).into_iter().flatten().flatten() {
        let name = folder.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(FOLDER));
        let owner = rest.and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|owner| !Path::new(&format!("/proc/{owner}")).exists()) {
            let _ = fs::remove_dir_all(folder.path());
        }
    }
}

/// True if this very process listens on these ports. To connect would be to put a card in.
fn listens(process: u32, ports: [u16; 2]) -> bool {
    let Ok(sockets) = sockets(process) else { return false };
    let Ok(table) = fs::read_to_string("/proc/net/tcp") else { return false };
    let listening: Vec<_> = table.lines().filter_map(listener).collect();
    let ours = |port: u16| {
        listening.iter().any(|(at, socket)| *at == port && sockets.iter().any(|s| s == socket))
    };
    ports.into_iter().all(ours)
}

/// Port and inode of a listening socket, from its line of `/proc/net/tcp`.
fn listener(line: &str) -> Option<(u16, &str)> {
    let mut words = line.split_whitespace();
    let port = u16::from_str_radix(words.nth(1)?.rsplit(':').next()?, 16).ok()?;
    (words.nth(1)? == "0A").then_some(())?;
    Some((port, words.nth(5)?))
}

/// The inodes of a process's sockets.
fn sockets(process: u32) -> io::Result<Vec<String>> {
    let files = fs::read_dir(format!("/proc/{process}/fd"))?.flatten();
    let links = files.filter_map(|file| fs::read_link(file.path()).ok());
    let inode = |link: PathBuf| {
        Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    };
    Ok(links.filter_map(inode).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeping_takes_only_what_dead_processes_left() {
        let temporary = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let folder = temporary.path().join(name);
            fs::create_dir_all(folder.join("run")).unwrap();
            folder
        };
        // Larger than any process id Linux gives out.
        let dead = make(&format!("{FOLDER}4194399-abc"));
        let ours = make(&format!("{FOLDER}{}-abc", process::id()));
        let other = make(&format!("{FOLDER}abc"));
        sweep(temporary.path());
        assert!(!dead.exists() && ours.exists() && other.exists());
    }

    #[test]
    fn listeners_are_read_from_the_kernels_table() {
        let line = "   0: 00000000:A10E 00000000:0000 0A 00000000:00000000 00:00000000 00000000 \
                    0 0 17190231 1 0000000000000000 100 0 0 10 0";
        assert_eq!(listener(line), Some((0xA10E, "17190231")));
        assert_eq!(listener(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(listener("  sl  local_address rem_address   st tx_queue"), None);
    }
}
