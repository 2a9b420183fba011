//! `device reader`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use countersign_channel::{Credential, Mode, Policy, ReaderConfig};
use countersign_device::{CacheFiles, DeviceDir, ReadJournal, Reader};
use countersign_idcard::cache::{CacheMode, CacheStorage};
use countersign_idcard::reader::ReadOptions;
use countersign_net::{mode_of, policy_name, policy_of};
use countersign_server::ambient;

use super::batch::{Batch, Plan, READS_MAX};
use super::cards::{Cards, emulated_field};
use super::resident;
use crate::failure::Failure;
use crate::output::Output;
use crate::serve::stopped;

/// Longest time that can be asked for.
const SECONDS_MAX: f64 = 86_400.0;

/// How many cards' data the reader keeps.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Cache {
    /// Up to eight cards; the one used longest ago makes room.
    Multi,
    /// One card: another one erases it first.
    Single,
    /// None.
    Off,
}

/// Read ID cards.
#[derive(Args)]
pub(crate) struct ReaderCommand {
    /// The device's own directory.
    #[arg(long, value_name = "DIR", default_value = "./countersign-device")]
    device: PathBuf,
    /// The server's device gateway: HOST:PORT over TCP, udp:HOST:PORT over UDP, or
    /// serial:PATH or serial:PATH:BAUD through the host on that serial port (countersign host).
    #[arg(long, value_name = "WAY", default_value = "localhost:8444")]
    gateway: String,
    /// Try a read again for so long when server or host are not there or busy.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    retry_for: Duration,
    /// Stay: look for cards all the time, and read when the host or the keys say so.
    #[arg(long, conflicts_with_all = [
        "reads", "until_stopped", "keep_going", "pause", "away", "keep", "photo", "fingerprint"
    ])]
    resident: bool,
    /// Take the reader's own keys from stdin: r reads, f reads with the fingerprint, p takes the
    /// emulated card or puts the next one, q ends the program.
    #[arg(long, requires = "resident")]
    keys: bool,
    /// The handshake to begin: c1 (the reader proves itself first) or c2 (the server shows its
    /// certificate first).
    #[arg(long, value_name = "NAME", default_value = "c1", value_parser = mode_of)]
    handshake: Mode,
    /// The protection to ask for: encrypt+mac, encrypt, mac, or certificate-sealed (suite sm2).
    #[arg(long, value_name = "NAME", default_value = "encrypt+mac", value_parser = policy_of)]
    policy: Policy,
    /// The card on the reader: emulated:citizen, emulated:foreigner2017, emulated:foreigner2023,
    /// emulated:residencePermit, or emulated:FILE with a card of your own as JSON. Several take
    /// turns, one after the other.
    #[arg(long, value_name = "CARD", required = true)]
    card: Vec<String>,
    /// How many reads to do; without, each card is read once.
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(READS_MAX)))]
    reads: Option<u32>,
    /// Read until stopped (SIGINT or SIGTERM).
    #[arg(long, conflicts_with = "reads")]
    until_stopped: bool,
    /// Count a failed read and go on with the next.
    #[arg(long)]
    keep_going: bool,
    /// Wait so long between two reads.
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pause: Duration,
    /// Take the emulated card away for so long between two reads; several cards always are, until
    /// the reader has noticed.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    away: Option<Duration>,
    /// How many cards' data to keep, so that a card need not be read twice.
    #[arg(long, value_name = "CARDS", value_enum, default_value = "multi")]
    cache: Cache,
    /// Keep them in memory; without, they lie sealed in the device's directory and their keys
    /// alone are in memory.
    #[arg(long)]
    cache_memory: bool,
    /// Wipe what is kept when no card was seen for so long.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    wipe_after: Duration,
    /// Keep every record read, sealed, in the device's directory (countersign reads export).
    #[arg(long)]
    keep: bool,
    /// Also read the fingerprint, if the card has one.
    #[arg(long)]
    fingerprint: bool,
    /// Write the raw photo (WLT, 1024 bytes) of the last read to this new file.
    #[arg(long, value_name = "FILE", conflicts_with = "until_stopped")]
    photo: Option<PathBuf>,
}

/// Seconds, with a fraction if need be.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("a number of seconds from 0 to {SECONDS_MAX}");
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    if !(0.0..=SECONDS_MAX).contains(&seconds) {
        return Err(wrong());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

impl ReaderCommand {
    pub(super) async fn run(self, json: bool) -> Result<Output, Failure> {
        let (link, field) = emulated_field();
        let mut cards = Cards::new(&self.card, field, self.away)?;
        let ambient = ambient();
        let dir = DeviceDir::open(&self.device)?;
        let config = self.config(&dir, dir.reader_config(&dir.provider(), ambient.clock.now())?)?;
        let rng = Box::new(move || (ambient.rng)());
        let mut reader =
            Reader::new(config, self.gateway.clone(), Box::new(link), ambient.clock, rng);
        self.set_cache(&dir, &mut reader);
        reader.set_retry_for(self.retry_for);
        if self.resident {
            return resident::run(reader, cards, self.keys, json).await;
        }
        let reads = self.reads.unwrap_or(u32::try_from(cards.len()).unwrap_or(READS_MAX));
        let mut batch = Batch::new(Plan {
            reads: (!self.until_stopped).then_some(reads),
            options: ReadOptions { fingerprint: self.fingerprint, ..ReadOptions::default() },
            pause: self.pause,
            keep_going: self.keep_going,
            journal: self.keep.then(|| ReadJournal::new(&dir)),
            photo: self.photo,
            json,
        });
        let ended = tokio::select! {
            biased;
            ended = batch.run(&mut reader, &mut cards) => ended,
            stopped = stopped() => match stopped {
                Ok(()) if self.until_stopped => Ok(()),
                Ok(()) => Err(Failure::environment("stopped", "stopped before all was read")),
                Err(failure) => Err(failure),
            },
        };
        // Before power goes (C11, C15).
        reader.power_off();
        batch.finish(ended)
    }

    /// The channel's configuration as it was asked for.
    fn config(&self, dir: &DeviceDir, mut config: ReaderConfig) -> Result<ReaderConfig, Failure> {
        // The contribution is sealed to the reader in C1, to the server in C2.
        let receives = self.handshake == Mode::C1;
        let lacks = |credential: &Credential| {
            credential.provider.encryption.is_none()
                || (receives && credential.encryption.is_none())
        };
        if self.policy.certificate_sealed && config.credentials.iter().all(lacks) {
            let suite = dir.settings.suite.name().unwrap_or("unknown");
            let detail = format!(
                "{} needs an encryption certificate (suite sm2); this device, of the suite \
                 {suite}, has none",
                policy_name(self.policy)
            );
            return Err(Failure::usage("policy", detail));
        }
        (config.mode, config.policies) = (self.handshake, vec![self.policy]);
        Ok(config)
    }

    fn set_cache(&self, dir: &DeviceDir, reader: &mut Reader) {
        let mode = match self.cache {
            Cache::Multi => CacheMode::MultiCard,
            Cache::Single => CacheMode::SingleCard,
            Cache::Off => CacheMode::Off,
        };
        let in_files = !self.cache_memory && self.cache != Cache::Off;
        let storage: Option<Box<dyn CacheStorage + Send>> = if in_files {
            match CacheFiles::open(dir) {
                Ok(files) => Some(Box::new(files)),
                Err(error) => {
                    tracing::warn!(%error, "the cache is kept in memory only");
                    None
                }
            }
        } else {
            None
        };
        reader.set_wipe_after(self.wipe_after);
        reader.set_cache(mode, storage);
    }
}
