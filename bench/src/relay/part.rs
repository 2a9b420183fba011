//! The processes that a crowd is made of: servers, and crowds of sleeves. They are told what to do
//! line by line on standard input, answer each line with one of JSON, and end with their input.

use std::io::{BufRead, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Subcommand;
use countersign_device::{DeviceDir, Incoming, LinkStatus, Meeting, RelayLink};
use countersign_server::ambient;
use rand_core::Rng;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::crowd::{manager_serial, sleeve_serial};
use super::stage::Stage;
use crate::Fallible;

/// Sleeves of one manager.
pub(super) const PER_MANAGER: usize = 64;
/// Handshakes at once of one crowd.
const AT_ONCE: usize = 32;
/// Bytes of a heartbeat and of its answer: a sealed record with a number in it.
const BEAT_LEN: usize = 40;
/// A heartbeat that is not answered in this time is lost (A6's *t2*).
const WITHIN: Duration = Duration::from_secs(20);

/// What such a process is.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Part {
    /// A server.
    Server {
        /// Its data directory, made anew.
        data: PathBuf,
        /// The loopback address that it listens on.
        listen: IpAddr,
        /// Devices that it has places for.
        connections: usize,
    },
    /// Managers and sleeves.
    Crowd {
        /// The devices' directories.
        devices: PathBuf,
        /// The server's gateway.
        gateway: SocketAddr,
        /// How many managers.
        managers: usize,
    },
    /// A manager whose cards are in readers, and all around it.
    #[cfg(feature = "pcsc")]
    Home {
        /// APDUs per way and link.
        rounds: usize,
        /// The name of a reader, the place of its slot, and the same again.
        readers: Vec<String>,
    },
    /// A program that asks the card in a reader.
    #[cfg(feature = "pcsc")]
    Terminal {
        /// The reader's name.
        reader: String,
    },
}

/// Runs until its input ends.
pub(crate) fn run(part: Part) -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match part {
            Part::Server { data, listen, connections } => serve(data, listen, connections).await,
            Part::Crowd { devices, gateway, managers } => gather(devices, gateway, managers).await,
            #[cfg(feature = "pcsc")]
            Part::Home { rounds, readers } => {
                super::readers::home(rounds, &super::readers::pairs(readers)).await
            }
            #[cfg(feature = "pcsc")]
            Part::Terminal { reader } => {
                tokio::task::block_in_place(|| super::readers::terminal(&reader))
            }
        }
    })
}

pub(super) fn say(answer: &Value) -> Fallible<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{answer}")?;
    Ok(out.flush()?)
}

/// The lines of the input.
pub(super) fn input() -> impl Iterator<Item = String> {
    std::io::stdin().lock().lines().map_while(Result::ok)
}

/// The same for tasks; reading them blocks, so a thread does.
fn lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in input() {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

async fn serve(data: PathBuf, listen: IpAddr, connections: usize) -> Fallible<()> {
    let Stage { server, ca, token } = Stage::set_up(&data, listen, connections).await?;
    let gateway = server.gateway().to_string();
    say(&json!({ "api": server.url(), "ca": ca, "token": token, "gateway": gateway }))?;
    let mut lines = lines();
    while lines.recv().await.is_some() {
        let counts = server.service().relay().counts();
        say(&json!({ "seats": counts.seats, "meetings": counts.meetings }))?;
    }
    server.stop().await;
    Ok(())
}

/// What all sleeves of a crowd share.
struct Crowd {
    devices: PathBuf,
    gateway: String,
    /// How often a heartbeat is sent.
    every: watch::Sender<Duration>,
    /// Where times go in microseconds, while they are wanted.
    times: std::sync::Mutex<Option<Vec<u64>>>,
    lost: AtomicU64,
}

impl Crowd {
    fn link(&self, serial: &str) -> Fallible<RelayLink> {
        let dir = DeviceDir::open(&self.devices.join(serial))?;
        let ambient = ambient();
        Ok(RelayLink::new(&dir, &self.gateway, ambient.clock, ambient.rng)?)
    }

    fn times(&self) -> std::sync::MutexGuard<'_, Option<Vec<u64>>> {
        self.times.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Heartbeats come about so often from now on. Where they do already, no wait
    /// begins anew.
    fn beat_every(&self, every: Duration) {
        self.every.send_if_modified(|now| std::mem::replace(now, every) != every);
    }

    /// A manager that answers heartbeats, for ever.
    async fn manager(self: &Arc<Self>, number: usize) -> Fallible<()> {
        let link = self.link(&manager_serial(number))?;
        let (to, mut incoming) = mpsc::channel::<Incoming>(PER_MANAGER);
        let (no_alarms, alarms) = mpsc::channel(1);
        let (told, mut status) = watch::channel(LinkStatus::Connecting);
        tokio::spawn(async move {
            if let Err(error) = link.serve(to, alarms, told).await {
                eprintln!("bench: a manager ended: {error}");
            }
        });
        tokio::spawn(async move {
            while let Some(come) = incoming.recv().await {
                tokio::spawn(answer(come.meeting));
            }
            drop(no_alarms); // until now somebody might have raised one
        });
        status.wait_for(|status| *status == LinkStatus::Registered).await?;
        Ok(())
    }

    /// A sleeve that sends heartbeats, for ever; returns once it has met its manager.
    async fn sleeve(self: Arc<Self>, number: usize) -> Fallible<()> {
        let link = self.link(&sleeve_serial(number % PER_MANAGER))?;
        let manager = manager_serial(number / PER_MANAGER);
        let meeting = link.meet_within(&manager, Duration::from_secs(120)).await?;
        tokio::spawn(async move { self.beats(meeting).await });
        Ok(())
    }

    async fn beats(&self, mut meeting: Meeting) {
        let mut rng = (ambient().rng)();
        let mut every = self.every.subscribe();
        loop {
            // Not all at once: each has a phase of its own from the first wait on.
            let period = *every.borrow_and_update();
            let part = f64::from(rng.next_u32()) / f64::from(u32::MAX);
            let wait = period.mul_f64(0.5 + part);
            tokio::select! {
                () = sleep(wait) => {}
                changed = every.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    continue;
                }
            }
            let begun = Instant::now();
            let beat = async {
                meeting.write_all(&[7; BEAT_LEN]).await?;
                meeting.read_exact(&mut [0; BEAT_LEN]).await
            };
            if !matches!(timeout(WITHIN, beat).await, Ok(Ok(_))) {
                self.lost.fetch_add(1, Ordering::Relaxed);
                return; // A6: it drops the connection
            }
            if let Some(times) = &mut *self.times() {
                times.push(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
            }
        }
    }
}

async fn answer(mut meeting: Meeting) {
    let mut beat = [0; BEAT_LEN];
    while meeting.read_exact(&mut beat).await.is_ok() {
        if meeting.write_all(&beat).await.is_err() {
            return;
        }
    }
}

/// Lines: `connect N MILLIS`: so many more sleeves, each with a heartbeat about every so often;
/// `beat MILLIS MILLIS`: a heartbeat about every so often from now on, and after so long their
/// times.
async fn gather(devices: PathBuf, gateway: SocketAddr, managers: usize) -> Fallible<()> {
    let crowd = Arc::new(Crowd {
        devices,
        gateway: gateway.to_string(),
        every: watch::Sender::new(Duration::from_secs(60)),
        times: std::sync::Mutex::new(None),
        lost: AtomicU64::new(0),
    });
    for number in 0..managers {
        crowd.manager(number).await?;
    }
    say(&json!({ "managers": managers }))?;
    let (mut lines, mut there) = (lines(), 0);
    while let Some(line) = lines.recv().await {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["connect", more, every] => {
                crowd.beat_every(Duration::from_millis(every.parse()?));
                connect(&crowd, there, more.parse()?).await?;
                there += more.parse::<usize>()?;
                say(&json!({ "sleeves": there }))?;
            }
            ["beat", every, lasting] => {
                crowd.beat_every(Duration::from_millis(every.parse()?));
                *crowd.times() = Some(Vec::new());
                sleep(Duration::from_millis(lasting.parse()?)).await;
                let times = crowd.times().take().unwrap_or_default();
                say(&json!({ "micros": times, "lost": crowd.lost.load(Ordering::Relaxed) }))?;
            }
            _ => return Err(format!("what is {line:?}?").into()),
        }
    }
    Ok(())
}

async fn connect(crowd: &Arc<Crowd>, first: usize, count: usize) -> Fallible<()> {
    let (mut next, mut coming) = (first, JoinSet::new());
    loop {
        while next < first + count && coming.len() < AT_ONCE {
            coming.spawn(crowd.clone().sleeve(next));
            next += 1;
        }
        match coming.join_next().await {
            Some(come) => come??,
            None => return Ok(()),
        }
    }
}
