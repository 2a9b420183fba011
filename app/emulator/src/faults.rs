use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Something that goes wrong at an emulated SAM module. Codes are CMD and PARA of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The next `n` answers arrive with a wrong checksum.
    BadChecksumTimes(u32),
    /// The answer to this command arrives with a wrong checksum.
    DamageAnswerTo([u8; 2]),
    /// The next `n` commands are answered with SW3 0x10 (our checksum was wrong).
    ReportChecksumTimes(u32),
    /// This command, and all later ones, are not answered.
    SilentAfter([u8; 2]),
    /// On this command the module is unplugged.
    UnplugAt([u8; 2]),
    /// The SAM rejects the next card: SW3 0x32 to its answer.
    RejectCard,
    /// The next find finds nothing: SW3 0x80.
    CardNotFound,
    /// Garbage precedes the next answer.
    GarbageBeforeAnswer,
    /// The next answer stops in the middle.
    TruncatedAnswer,
    /// The next answer is a vendor's timeout: status `05 05 05`.
    VendorTimeout,
    /// The next answer has a status that nobody knows.
    UnknownStatus,
    /// The next read gives the data, and then the number, of the card that was read before it. If
    /// none was, nothing goes wrong.
    AnotherCardsData,
    /// From now on the module says of this command that it does not know it.
    Unknown([u8; 2]),
}

impl Fault {
    /// Whether the fault can strike at this command.
    fn is_for(self, code: [u8; 2]) -> bool {
        match self {
            Self::SilentAfter(when)
            | Self::UnplugAt(when)
            | Self::DamageAnswerTo(when)
            | Self::Unknown(when) => when == code,
            Self::AnotherCardsData => matches!(code, [0x30, 0x01 | 0x10]),
            Self::RejectCard => code == [0xE0, 0x02],
            Self::CardNotFound => code == [0x20, 0x01],
            Self::BadChecksumTimes(times) | Self::ReportChecksumTimes(times) => times > 0,
            Self::GarbageBeforeAnswer
            | Self::TruncatedAnswer
            | Self::VendorTimeout
            | Self::UnknownStatus => true,
        }
    }
}

/// Faults in waiting, shared with the module: inject while it runs.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<VecDeque<Waiting>>>);

/// A fault, and how many commands are still to pass before it may strike.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    fault: Fault,
    after: u32,
}

/// Most faults in waiting; more are not taken.
const FAULTS_MAX: usize = 64;

impl Faults {
    /// No faults.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a fault.
    pub fn inject(&self, fault: Fault) {
        self.inject_at(0, fault);
    }

    /// Adds a fault that may strike once `after` more commands have passed.
    pub fn inject_at(&self, after: u32, fault: Fault) {
        let mut faults = self.lock();
        if faults.len() < FAULTS_MAX {
            faults.push_back(Waiting { fault, after });
        }
    }

    /// Drops all faults.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Takes the first fault that applies to this command, counting it down or keeping it if it
    /// lasts.
    pub(crate) fn take_for(&self, code: [u8; 2]) -> Option<Fault> {
        let mut faults = self.lock();
        let found =
            faults.iter().position(|waiting| waiting.after == 0 && waiting.fault.is_for(code));
        for waiting in faults.iter_mut() {
            waiting.after = waiting.after.saturating_sub(1);
        }
        let at = found?;
        let fault = faults[at].fault;
        match &mut faults[at].fault {
            Fault::BadChecksumTimes(left) | Fault::ReportChecksumTimes(left) if *left > 1 => {
                *left -= 1;
            }
            Fault::Unknown(_) => {}
            _ => {
                faults.remove(at);
            }
        }
        Some(fault)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
