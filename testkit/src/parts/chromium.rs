//! A real browser, driven by its own driver over WebDriver.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::{PartError, keeper, tokens};

const WHAT: &str = "Chromium";
const INSTALL: &str = "run: apt-get install -y chromium chromium-driver fonts-noto-cjk";
const DRIVER: &str = "chromedriver";
const BROWSER: &str = "chromium";
/// What the driver prints before its port.
const READY: &str = "started successfully on port ";
/// Pause between two looks at a starting driver, and how many looks: 30 s.
const POLL: Duration = Duration::from_millis(20);
const POLLS: u32 = 1500;
/// How often the removal of the folder is tried while the last processes close their files.
const SWEEPS: u32 = 50;
/// No window, no sandbox (root has none), nothing that asks the network or the person. Over a pipe
/// the browser ends with its driver, whatever way that ends.
const FLAGS: [&str; 11] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-breakpad",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
];

/// A `chromedriver` on a free loopback port; each WebDriver session is a browser of its own.
///
/// The driver, its browsers and their files are gone with this value, and with this process.
#[derive(Debug)]
pub struct Chromium {
    folder: TempDir,
    driver: Child,
    port: u16,
    profiles: AtomicU32,
}

impl Chromium {
    /// Starts the driver; well below a second. A browser starts with its session.
    ///
    /// # Errors
    /// [`PartError::Absent`] without the Debian packages; otherwise what went wrong, with what the
    /// driver said.
    pub fn start() -> Result<Self, PartError> {
        if !tokens::on_path(DRIVER) || !tokens::on_path(BROWSER) {
            return Err(PartError::Absent { what: WHAT, install: INSTALL });
        }
        let folder = tempfile::Builder::new()
            .prefix("countersign-chromium-")
            .tempdir()
            .map_err(PartError::system("making Chromium's folder"))?;
        let log = folder.path().join("log");
        let file = File::create(&log).map_err(PartError::system("making the driver's log"))?;
        let err = file.try_clone().map_err(PartError::system("sharing the driver's log"))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", DRIVER, "--port=0"]);
        // What it leaves outside its profile goes with the folder, not into somebody's home.
        command.env("HOME", folder.path()).env("TMPDIR", folder.path());
        command.stdin(Stdio::null()).stdout(file).stderr(err).process_group(0);
        let driver = keeper::spawn(command).map_err(PartError::system("starting the driver"))?;
        let mut chromium = Self { folder, driver, port: 0, profiles: AtomicU32::new(0) };
        chromium.port = chromium.wait_for_port(&log)?;
        Ok(chromium)
    }

    /// The driver's URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What a session's browser is to be started with (`goog:chromeOptions`, `args`): headless,
    /// with an empty profile of its own.
    ///
    /// # Errors
    /// [`PartError::System`] if there is no place for the profile.
    pub fn arguments(&self) -> Result<Vec<String>, PartError> {
        let number = self.profiles.fetch_add(1, Ordering::Relaxed);
        let profile = self.folder.path().join(format!("profile-{number}"));
        fs::create_dir(&profile).map_err(PartError::system("making a profile"))?;
        let own = format!("--user-data-dir={}", profile.display());
        Ok(FLAGS.iter().map(|&flag| flag.to_owned()).chain([own]).collect())
    }

    /// Where its files are while it runs.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    fn wait_for_port(&mut self, log: &Path) -> Result<u16, PartError> {
        for _ in 0..POLLS {
            let said = fs::read_to_string(log).unwrap_or_default();
            if let Some(port) = port_in(&said) {
                return Ok(port);
            }
            let ended = self.driver.try_wait().map_err(PartError::system("watching the driver"))?;
            if ended.is_some() {
                return Err(PartError::Failed { what: DRIVER, detail: said });
            }
            thread::sleep(POLL);
        }
        Err(PartError::Failed { what: DRIVER, detail: "it names no port in time".to_owned() })
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // The driver leads a group in which its browsers are.
        let _gone = killpg(Pid::from_raw(self.driver.id().cast_signed()), Signal::SIGKILL);
        let _reaped = self.driver.wait();
        for _ in 0..SWEEPS {
            if fs::remove_dir_all(self.folder.path()).is_ok() {
                return;
            }
            thread::sleep(POLL);
        }
    }
}

/// The port in what the driver has said so far, once its line is complete.
fn port_in(said: &str) -> Option<u16> {
    let (_, after) = said.split_once(READY)?;
    let (port, _) = after.split_once(".\n")?;
    port.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_taken_from_a_whole_line() {
        let head = "Starting ChromeDriver 156.0 on port 0\nOnly local connections are allowed.\n";
        assert_eq!(port_in(head), None);
        let said = |end: &str| format!("{head}ChromeDriver was {READY}{end}");
        assert_eq!(port_in(&said("406")), None, "half a line");
        assert_eq!(port_in(&said("40637.\n")), Some(40637));
        assert_eq!(port_in(&said("nine.\n")), None);
    }
}
