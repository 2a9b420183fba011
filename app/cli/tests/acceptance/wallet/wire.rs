//! What stands between a sleeve and whom it connects to, and can be made to do harm.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use libtest_mimic::Failed;

/// How late a slow wire is.
const LATE: Duration = Duration::from_millis(100);
/// Longest that an answer to bytes that are said again may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The header of each frame (channel.md): magic, version, mode, type and length.
const HEADER: usize = 8;
/// Type and length of an alert, and what one says that claims a revoked certificate.
const REVOKED: [u8; 7] = [15, 0, 0, 3, 0, 12, 0];

/// What a wire does with the bytes that go to the manager, from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Harm {
    /// Carries them.
    None,
    /// Loses them, and those that come back.
    Lose,
    /// Carries them late.
    Delay,
    /// Alters the last one of what comes next.
    Alter,
    /// Carries what comes next twice.
    Repeat,
}

/// A wire.
pub(super) struct Wire {
    /// Where it begins.
    pub(super) at: String,
    harm: Arc<AtomicU8>,
    said: Arc<Mutex<Vec<u8>>>,
    forger: Arc<Forger>,
}

/// Who answers new connections in the other side's place.
#[derive(Default)]
struct Forger {
    is_there: AtomicBool,
    answered: AtomicU32,
}

impl Forger {
    /// In the clear, as alerts are: whoever comes is revoked.
    fn answer(&self, mut who: TcpStream) -> std::io::Result<()> {
        let mut header = [0; HEADER];
        who.set_read_timeout(Some(PATIENCE))?;
        who.read_exact(&mut header)?;
        let [magic, more, version, mode, ..] = header;
        who.write_all(&[&[magic, more, version, mode][..], &REVOKED].concat())?;
        self.answered.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

impl Wire {
    /// A wire that ends there.
    pub(super) fn to(place: &str) -> Result<Self, Failed> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let at = listener.local_addr()?.to_string();
        let harm = Arc::new(AtomicU8::new(Harm::None as u8));
        let said = Arc::<Mutex<Vec<u8>>>::default();
        let forger = Arc::<Forger>::default();
        let wire = Self { at, harm: harm.clone(), said: said.clone(), forger: forger.clone() };
        let place = place.to_owned();
        thread::spawn(move || {
            for sleeve in listener.incoming().flatten() {
                if forger.is_there.load(Ordering::SeqCst) {
                    let _gone = forger.answer(sleeve);
                    continue;
                }
                let Ok(manager) = TcpStream::connect(&place) else { continue };
                let (Ok(from), Ok(to)) = (sleeve.try_clone(), manager.try_clone()) else {
                    continue;
                };
                let (harming, hearing) = (harm.clone(), said.clone());
                thread::spawn(move || carry(from, to, &harming, Some(&hearing)));
                let harm = harm.clone();
                thread::spawn(move || carry(manager, sleeve, &harm, None));
            }
        });
        Ok(wire)
    }

    pub(super) fn does(&self, harm: Harm) {
        self.harm.store(harm as u8, Ordering::SeqCst);
    }

    /// Answers who connects from now on as if it were the other side, or does so no more.
    pub(super) fn forges(&self, does: bool) {
        self.forger.is_there.store(does, Ordering::SeqCst);
    }

    /// How many it has answered so.
    pub(super) fn forged(&self) -> u32 {
        self.forger.answered.load(Ordering::SeqCst)
    }

    /// All that went to the manager.
    pub(super) fn said(&self) -> Vec<u8> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says these bytes there; what is answered until the other side closes.
    pub(super) fn says(place: &str, bytes: &[u8]) -> Result<Vec<u8>, Failed> {
        let mut stream = TcpStream::connect(place)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(bytes)?;
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => Ok(answer),
            // Closed with bytes of ours that nobody wanted to read.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(answer),
            Err(error) => Err(error.into()),
        }
    }
}

/// Carries bytes to one side.
fn carry(mut from: TcpStream, mut to: TcpStream, harm: &AtomicU8, said: Option<&Mutex<Vec<u8>>>) {
    let mut some = [0; 4096];
    let is = |wanted: Harm| harm.load(Ordering::SeqCst) == wanted as u8;
    let once = |wanted: Harm| {
        let (from, to) = (wanted as u8, Harm::None as u8);
        said.is_some()
            && harm.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    };
    while let Ok(length @ 1..) = from.read(&mut some) {
        if is(Harm::Lose) {
            continue;
        }
        if said.is_some() && is(Harm::Delay) {
            thread::sleep(LATE);
        }
        if once(Harm::Alter) {
            some[length - 1] ^= 1;
        }
        let carried = &some[..length];
        if let Some(said) = said {
            said.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(carried);
        }
        let times = if once(Harm::Repeat) { 2 } else { 1 };
        for _ in 0..times {
            if to.write_all(carried).is_err() {
                return;
            }
        }
    }
    let _closed = to.shutdown(Shutdown::Both);
}
