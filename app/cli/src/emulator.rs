mod bank_card;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use countersign_emulator::{EmulatedSam, Faults, LineEnd, LineFaults, SamPty, Scheme, SerialLine};
use countersign_server::ambient;
use serde_json::json;

use crate::failure::Failure;
use crate::output::{self, Output};
use crate::serve::stopped;

/// The serial number in the emulated module's id.
pub(crate) const SAM_SERIAL: u32 = 1;
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// Emulated hardware.
#[derive(Subcommand)]
pub(crate) enum Emulator {
    /// Emulate a SAM module behind a pty. Its card cryptography is the emulator's own: it reads
    /// emulated cards only, never real ones.
    ///
    /// Example: countersign emulator sam --link /tmp/sam
    Sam {
        /// Make this symbolic link to the pty, for a path that is known beforehand.
        #[arg(long, value_name = "PATH")]
        link: Option<PathBuf>,
        /// The serial number in the module's id, to tell several apart.
        #[arg(long, value_name = "N", default_value_t = SAM_SERIAL)]
        serial: u32,
        /// Answer each command only after this many milliseconds, as a real module takes its time.
        #[arg(long, value_name = "MS", default_value_t = 0)]
        answer_after: u64,
    },
    /// Emulate a serial line: two joined ports, so that a reader and its host run on one machine.
    ///
    /// Example: countersign emulator line --link-a /tmp/reader --link-b /tmp/host
    Line {
        /// Make this symbolic link to the first port.
        #[arg(long, value_name = "PATH")]
        link_a: Option<PathBuf>,
        /// Make this symbolic link to the second port.
        #[arg(long, value_name = "PATH")]
        link_b: Option<PathBuf>,
    },
    /// Emulate a bank card in a virtual reader of PC/SC, or pay with one. It speaks EMV's commands;
    /// its key is a published test key, and no issuer takes it.
    ///
    /// Example: countersign emulator bank-card --virtual-reader 35963
    BankCard(bank_card::BankCard),
}

impl Emulator {
    pub(crate) async fn run(self, json: bool) -> Result<Output, Failure> {
        match self {
            Self::Sam { link, serial, answer_after } => {
                let pace = Duration::from_millis(answer_after);
                let sam = start_sam(serial, Faults::none(), pace)?;
                Self::sam(sam, link, json).await
            }
            Self::Line { link_a, link_b } => Self::line([link_a, link_b], json).await,
            Self::BankCard(card) => card.run(json).await,
        }
    }

    async fn line(links: [Option<PathBuf>; 2], json: bool) -> Result<Output, Failure> {
        let line = SerialLine::start(LineFaults::none())
            .map_err(|error| Failure::environment("pty", error.to_string()))?;
        let paths = [LineEnd::A, LineEnd::B].map(|end| line.path(end).to_owned());
        let mut made = Vec::new();
        for (path, link) in paths.iter().zip(links) {
            made.push(link.map(|link| Link::make(path, link)).transpose()?);
        }
        let link = |at: usize| made[at].as_ref().map(|link: &Link| link.0.display().to_string());
        let port = |at: usize| paths[at].display().to_string();
        if json {
            let told = json!({ "ports": [port(0), port(1)], "links": [link(0), link(1)] });
            output::print(&told.to_string());
        } else {
            let shown = |at| link(at).unwrap_or_else(|| port(at));
            output::print(&format!("Serial line between {} and {}", shown(0), shown(1)));
        }
        let ended = async {
            while line.is_running() {
                tokio::time::sleep(WATCH_EVERY).await;
            }
        };
        tokio::select! {
            stopped = stopped() => stopped.map_err(Failure::late)?,
            () = ended => {
                return Err(Failure::environment("line", "the emulated line ended").late());
            }
        }
        line.stop();
        Ok(Output::none())
    }

    async fn sam(sam: SamPty, link: Option<PathBuf>, json: bool) -> Result<Output, Failure> {
        let link = link.map(|link| Link::make(sam.path(), link)).transpose()?;
        let path = sam.path().display().to_string();
        let link_path = link.as_ref().map(|link| link.0.display().to_string());
        if json {
            output::print(&json!({ "port": path, "link": link_path }).to_string());
        } else {
            let linked = link_path.map(|path| format!(", linked as {path}")).unwrap_or_default();
            output::print(&format!("Emulated SAM module at {path}{linked}"));
        }
        let ended = async {
            while sam.is_running() {
                tokio::time::sleep(WATCH_EVERY).await;
            }
        };
        tokio::select! {
            stopped = stopped() => stopped.map_err(Failure::late)?,
            () = ended => {
                return Err(Failure::environment("sam", "the emulated module ended").late());
            }
        }
        sam.stop();
        Ok(Output::none())
    }
}

/// An emulated module on a pty of its own, that takes so long for each command.
pub(crate) fn start_sam(
    serial: u32,
    faults: Faults,
    answer_after: Duration,
) -> Result<SamPty, Failure> {
    let scheme = Scheme::with_demo_key(countersign_crypto::aws_lc::provider());
    let sam = EmulatedSam::new(scheme, serial, faults);
    SamPty::start_paced(sam, (ambient().rng)(), answer_after)
        .map_err(|error| Failure::environment("pty", error.to_string()))
}

/// A symbolic link that goes when the program ends.
struct Link(PathBuf);

impl Link {
    fn make(target: &Path, link: PathBuf) -> Result<Self, Failure> {
        // Only a link may be replaced, never a file.
        match fs::symlink_metadata(&link) {
            Ok(found) if found.is_symlink() => {
                fs::remove_file(&link).map_err(|error| Failure::file(&link, &error))?;
            }
            Ok(_) => {
                let detail = format!("{} exists and is not a symbolic link", link.display());
                return Err(Failure::check("link-taken", detail));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::file(&link, &error)),
        }
        std::os::unix::fs::symlink(target, &link).map_err(|error| Failure::file(&link, &error))?;
        Ok(Self(link))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.0);
    }
}
