//! A pool whose modules are emulated behind in-memory ports that can be pulled and barred.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use countersign_crypto::{UnixTime, aws_lc};
use countersign_emulator::{EmulatedSam, Faults, Reply, Scheme};
use countersign_net::Clock;
use countersign_service::{Ambient, SamConnector, SamLease, SamPool, SamPort, SamUnavailable};
use testkit::rng::seeded;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Who leases where it does not matter.
pub(crate) const READER: &str = "rdr_1";
/// The command that makes a module forget everything.
pub(crate) const RESET: [u8; 2] = [0x10, 0xFF];
/// The emulator's command that begins a read.
pub(crate) const SHOW_CARD: [u8; 2] = [0xE0, 0x01];
/// Where CMD and PARA stand in a frame: after the preamble and LEN.
const CODE_AT: usize = 7;

/// The clock of tokio's virtual time.
pub(crate) struct VirtualClock(pub(crate) Instant);

impl Clock for VirtualClock {
    fn now(&self) -> UnixTime {
        UnixTime::from_secs(1_800_000_000).plus(self.0.elapsed())
    }
}

/// A port with an emulated module behind it.
pub(crate) struct Plug {
    name: String,
    serial: u32,
    faults: Faults,
    barred: AtomicBool,
    pulled: Arc<Notify>,
    commands: Arc<Mutex<Vec<[u8; 2]>>>,
}

impl SamConnector for Plug {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self) -> io::Result<Box<dyn SamPort>> {
        if self.barred.load(Ordering::SeqCst) {
            return Err(io::Error::other("barred"));
        }
        let (host, module) = duplex(8192);
        let scheme = Scheme::with_demo_key(aws_lc::provider());
        let sam = EmulatedSam::new(scheme, self.serial, self.faults.clone());
        let (pulled, commands) = (self.pulled.clone(), self.commands.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = serve(sam, module, commands) => {}
                () = pulled.notified() => {}
            }
        });
        Ok(Box::new(host))
    }
}

async fn serve(mut sam: EmulatedSam, mut port: DuplexStream, commands: Arc<Mutex<Vec<[u8; 2]>>>) {
    let (mut rng, mut bytes) = (seeded(7), [0; 4096]);
    while let Ok(count @ 1..) = port.read(&mut bytes).await {
        // The host sends one command, in one write, and waits for its answer.
        commands.lock().unwrap().push([bytes[CODE_AT], bytes[CODE_AT + 1]]);
        for reply in sam.handle(&mut rng, &bytes[..count]) {
            match reply {
                Reply::Bytes(frame) => port.write_all(&frame).await.unwrap(),
                Reply::Unplugged => return,
            }
        }
    }
}

pub(crate) struct Bank {
    pub(crate) pool: Arc<SamPool>,
    plugs: Vec<Arc<Plug>>,
}

impl Bank {
    /// A pool of `count` modules, all ready, in order of their index.
    pub(crate) async fn start(count: u32) -> Self {
        let plug = |serial: u32| {
            Arc::new(Plug {
                name: format!("plug-{serial}"),
                serial,
                faults: Faults::none(),
                barred: AtomicBool::new(false),
                pulled: Arc::default(),
                commands: Arc::default(),
            })
        };
        let plugs: Vec<_> = (1..=count).map(plug).collect();
        let connectors = plugs.iter().map(|plug| plug.clone() as _).collect();
        let ambient = Ambient {
            clock: Arc::new(VirtualClock(Instant::now())),
            rng: Arc::new(|| Box::new(seeded(5))),
        };
        let pool = Arc::new(SamPool::start(connectors, Default::default(), &ambient));
        let bank = Self { pool, plugs };
        for index in 0..bank.plugs.len() {
            bank.wait_until_ready(index, true).await;
        }
        bank
    }

    pub(crate) async fn lease(&self) -> SamLease {
        self.pool.lease(READER).await.unwrap()
    }

    /// Asks for a lease beside the test.
    pub(crate) fn queue(&self) -> JoinHandle<Result<SamLease, SamUnavailable>> {
        self.queue_as(READER)
    }

    /// The same for this reader.
    pub(crate) fn queue_as(&self, reader: &str) -> JoinHandle<Result<SamLease, SamUnavailable>> {
        let (pool, reader) = (self.pool.clone(), reader.to_owned());
        tokio::spawn(async move { pool.lease(&reader).await })
    }

    pub(crate) fn faults(&self, index: usize) -> &Faults {
        &self.plugs[index].faults
    }

    /// The commands that reached this module.
    pub(crate) fn commands(&self, index: usize) -> MutexGuard<'_, Vec<[u8; 2]>> {
        self.plugs[index].commands.lock().unwrap()
    }

    pub(crate) fn unplug(&self, index: usize) {
        self.plugs[index].pulled.notify_one();
    }

    pub(crate) fn refuse_to_open(&self, index: usize) {
        self.plugs[index].barred.store(true, Ordering::SeqCst);
    }

    pub(crate) async fn wait_until_ready(&self, index: usize, ready: bool) {
        for _ in 0..10_000 {
            if self.pool.health()[index].ready == ready {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("never became so: {:?}", self.pool.health());
    }

    /// Ends the pool; what is left are the connectors.
    pub(crate) fn drop_pool(self) -> Vec<Arc<Plug>> {
        self.plugs
    }
}
