//! The thread that talks to the card.
//!
//! PC/SC's calls block and know no time limit. They are made on a thread of their own, so that a
//! card that never answers costs a thread and not the program.

use std::ffi::CString;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use countersign_iso7816::LinkError;
use pcsc::{Card, Context, Disposition, Error, Protocols, ReaderState, ShareMode, State};
use zeroize::Zeroizing;

use super::{PcscError, readers};

/// How often a card that another program uses is tried, and the pause between: 2 s in all. Desktop
/// programs look at every new card for a moment.
const TRIES: u32 = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(100);
/// How long the service may take to notice that the card behind a failed command is gone.
const NOTICE_WITHIN: Duration = Duration::from_secs(2);
/// Changes of the reader that are looked at meanwhile.
const NOTICE_CHANGES: u32 = 4;
/// Longest that a card may take to be powered, reset and connected; a hung one takes for ever.
const CONNECT_WITHIN: Duration = Duration::from_secs(20);
/// Longest that a card may take to be let go.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);
/// Longest response: extended length and a status word.
const RESPONSE_MAX: usize = 65_536 + 2;

/// Every response ends in a status word.
const STATUS_LEN: usize = 2;

type Answer = Result<Vec<u8>, LinkError>;

/// What is known of a card that was connected.
pub(super) struct Found {
    pub(super) reader: String,
    pub(super) atr: Vec<u8>,
}

/// A connected card on its thread.
#[derive(Debug)]
pub(super) struct Worker {
    /// `None` after the card failed to answer in time. Commands carry PINs.
    jobs: Option<Sender<Zeroizing<Vec<u8>>>>,
    /// Disconnected when the thread has let the card go.
    answers: Receiver<Answer>,
}

impl Worker {
    /// Finds and connects to the card in this reader, or in the only one that has a card.
    pub(super) fn start(reader: Option<&str>, wait: Duration) -> Result<(Self, Found), PcscError> {
        let wanted = reader.map(str::to_owned);
        let (jobs, inbox) = mpsc::channel();
        let (outbox, answers) = mpsc::channel();
        let (tell, found) = mpsc::channel();
        thread::spawn(move || {
            serve(wanted.as_deref(), wait, &tell, &inbox, &outbox);
            // Only now, when the card was let go.
            drop(outbox);
        });
        match found.recv_timeout(wait.saturating_add(CONNECT_WITHIN)) {
            Ok(found) => Ok((Self { jobs: Some(jobs), answers }, found?)),
            Err(RecvTimeoutError::Timeout) => Err(PcscError::Stuck),
            Err(RecvTimeoutError::Disconnected) => {
                Err(PcscError::Failed("the connection has ended".to_owned()))
            }
        }
    }

    pub(super) fn transmit(&mut self, command: &[u8], within: Duration) -> Answer {
        let gone = || LinkError::Failed("the connection has ended".to_owned());
        let jobs = self.jobs.as_ref().ok_or(LinkError::Timeout)?;
        jobs.send(Zeroizing::new(command.to_vec())).map_err(|_| gone())?;
        match self.answers.recv_timeout(within) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Disconnected) => Err(gone()),
            Err(RecvTimeoutError::Timeout) => {
                // Its late answer would be taken for the next command's. PC/SC cannot break a
                // command off: the thread keeps the card until it answers or this program ends.
                self.jobs = None;
                tracing::warn!("a card does not answer: its reader stays busy until it does");
                Err(LinkError::Timeout)
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The card is reset before a program ends that has just shown it a PIN, if it lets itself
        // be; one that has missed its time already is not waited for.
        if self.jobs.take().is_some() {
            while self.answers.recv_timeout(CLOSE_WITHIN).is_ok() {}
        }
    }
}

/// The thread's work: connects, tells what it found, and then does what comes in.
fn serve(
    wanted: Option<&str>,
    wait: Duration,
    tell: &Sender<Result<Found, PcscError>>,
    inbox: &Receiver<Zeroizing<Vec<u8>>>,
    outbox: &Sender<Answer>,
) {
    let (card, place) = match open(wanted, wait) {
        Ok((card, place, found)) => {
            // Nobody waits any more: the card is let go.
            if tell.send(Ok(found)).is_err() {
                return;
            }
            (card, place)
        }
        Err(error) => {
            let _nobody_waits = tell.send(Err(error));
            return;
        }
    };
    let mut response = Zeroizing::new(vec![0; RESPONSE_MAX]);
    for command in inbox {
        let answer = match card.transmit(&command, &mut response) {
            Ok(bytes) if bytes.len() >= STATUS_LEN => Ok(bytes.to_vec()),
            // What a driver says whose card has just been pulled.
            Ok(_) => Err(place.blamed(Error::NotTransacted)),
            Err(error) => Err(place.blamed(error)),
        };
        drop(command);
        if outbox.send(answer).is_err() {
            return;
        }
    }
}

fn open(wanted: Option<&str>, wait: Duration) -> Result<(Card, Place, Found), PcscError> {
    let (context, reader) = readers::with_card(wanted, wait)?;
    let name = CString::new(reader.as_str())
        .map_err(|_| PcscError::UnknownReader(reader.escape_default().to_string()))?;
    let card = connect(&context, &name)?;
    let atr = card.status2_owned()?.atr().to_vec();
    Ok((card, Place::new(context, name)?, Found { reader, atr }))
}

/// The card, ours alone and fresh from a reset: another program may have left it in the middle of
/// something.
fn connect(context: &Context, reader: &CString) -> Result<Card, PcscError> {
    let mut tries = TRIES;
    let mut card = loop {
        match context.connect(reader, ShareMode::Exclusive, Protocols::ANY) {
            Err(Error::SharingViolation | Error::ResetCard) if tries > 0 => {
                tries -= 1;
                thread::sleep(BETWEEN_TRIES);
            }
            Ok(card) => break card,
            Err(error) => return Err(error.into()),
        }
    };
    card.reconnect(ShareMode::Exclusive, Protocols::ANY, Disposition::ResetCard)?;
    Ok(card)
}

/// The reader as it was when the card was connected.
struct Place {
    context: Context,
    reader: CString,
    /// Cards put in and taken out until then.
    changes: u32,
}

impl Place {
    fn new(context: Context, reader: CString) -> Result<Self, PcscError> {
        let mut states = [ReaderState::new(reader.clone(), State::UNAWARE)];
        context.get_status_change(Duration::ZERO, &mut states)?;
        let changes = states[0].event_count();
        Ok(Self { context, reader, changes })
    }

    /// What a failed command means. A card that is pulled in mid-command is first a failed
    /// transmission; that it is gone the service notices a moment later.
    fn blamed(&self, error: Error) -> LinkError {
        match error {
            Error::RemovedCard | Error::NoSmartcard | Error::ReaderUnavailable => {
                LinkError::Removed
            }
            Error::ResetCard => LinkError::Reset,
            Error::Timeout => LinkError::Timeout,
            Error::NotTransacted | Error::CommError | Error::UnresponsiveCard => {
                if self.is_gone() {
                    return LinkError::Removed;
                }
                LinkError::Failed("the reader lost touch with it for a moment".to_owned())
            }
            other => LinkError::Failed(other.to_string()),
        }
    }

    fn is_gone(&self) -> bool {
        let mut states = [ReaderState::new(self.reader.clone(), State::UNAWARE)];
        for _ in 0..NOTICE_CHANGES {
            match self.context.get_status_change(NOTICE_WITHIN, &mut states) {
                Ok(()) if states[0].event_count() != self.changes => return true,
                Ok(()) if states[0].event_state().contains(State::PRESENT) => {
                    states[0].sync_current_state();
                }
                Ok(()) | Err(Error::UnknownReader | Error::ReaderUnavailable) => return true,
                Err(_) => return false,
            }
        }
        false
    }
}
