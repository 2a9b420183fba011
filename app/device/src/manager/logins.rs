//! Logins (A4, A5): what was tried is counted on the disk before a password is looked at, and what
//! came of it is on the disk before it is answered, an alarm too.
//!
//! One file a sleeve holds its lock-out, its last attempt, and alarms that the server has not taken
//! yet. Each attempt writes it twice, whatever the password was: both writes are of the same length
//! for the login password, the alarm password and a wrong one, so the time of the answer tells
//! nothing. The outbox of alarms is nothing but these files: [`Logins::waiting`] finds them, and
//! [`Logins::taken`] is told of those that the server has on record.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_crypto::{CryptoRng, Secret, UnixTime};
use countersign_wallet::login::{Cost, Locked, Lockout, PaddedPassword, Passwords, Verdict, Which};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::ManagerError;
use super::files::Shelf;

/// Alarms of one sleeve that wait for the server, at most; the newest takes the place of the last.
pub(super) const WAITING_MAX: usize = 64;
/// Bytes of an alarm's id.
const ID_LEN: usize = 16;
/// What stands where [`Verdict::word`] will: of the same length.
const BEGUN: &str = "begun";
/// [`Verdict::word`] of an alarm.
const ALARM: &str = "alarm";
/// The file of the owner's own attempts, at the manager. No sleeve has this id.
const OWNER: &str = "(owner)";

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Attempt {
    /// Drawn for each, as if it were an alarm.
    pub(super) id: String,
    /// The session.
    pub(super) session: u64,
    /// Milliseconds since the epoch.
    pub(super) at: u64,
    word: String,
}

/// A sleeve's file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Kept {
    lockout: Lockout,
    last: Option<Attempt>,
    /// Alarms before the last attempt.
    alarms: Vec<Attempt>,
}

/// What came of an attempt.
#[derive(Debug)]
pub(super) enum Attempted {
    /// The password was not looked at.
    Locked(Locked),
    /// It was, and this is how long the next one waits.
    Verified(Verdict, Option<Locked>),
}

/// An alarm that the server has not taken yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WaitingAlarm {
    pub(super) sleeve: String,
    pub(super) attempt: Attempt,
}

/// All sleeves' files.
pub(super) struct Logins {
    shelf: Shelf,
    kept: Mutex<BTreeMap<String, Arc<Mutex<Kept>>>>,
}

impl Logins {
    pub(super) fn open(dir: &Path) -> Result<Self, ManagerError> {
        let shelf = Shelf::open(dir)?;
        let mut kept = BTreeMap::new();
        for id in shelf.ids()? {
            let loaded: Kept = shelf.load(&id)?.unwrap_or_default();
            kept.insert(id, Arc::new(Mutex::new(loaded)));
        }
        Ok(Self { shelf, kept: Mutex::new(kept) })
    }

    /// Counts an attempt, looks at the password, and stores what came of it. Blocking, and long.
    pub(super) fn attempt(
        &self,
        sleeve: &str,
        session: u64,
        passwords: &Passwords,
        password: &PaddedPassword,
        (now, rng): (UnixTime, &mut dyn CryptoRng),
    ) -> Result<Attempted, ManagerError> {
        let kept = self.of(sleeve);
        let mut kept = lock(&kept);
        let lockout = kept.lockout;
        if let Err(locked) = kept.lockout.before(now) {
            if kept.lockout != lockout {
                // The clock was set back: else each start of the program would begin anew.
                self.shelf.save(sleeve, &*kept)?;
            }
            return Ok(Attempted::Locked(locked));
        }
        kept.begin(session, now, rng);
        // Counted before it is looked at: who cuts the power has gained nothing.
        self.shelf.save(sleeve, &*kept)?;
        let verdict = passwords.verify(password)?;
        kept.lockout.after(verdict);
        if let Some(last) = &mut kept.last {
            verdict.word().as_str().clone_into(&mut last.word);
        }
        self.shelf.save(sleeve, &*kept)?;
        let wait = kept.lockout.waits(now).map(|seconds| Locked { seconds });
        Ok(Attempted::Verified(verdict, wait))
    }

    /// Changes a password for who knows the old one; counted as a login is.
    pub(super) fn change(
        &self,
        passwords: &mut Passwords,
        which: Which,
        (old, new): (&Secret, &Secret),
        cost: Cost,
        (now, rng): (UnixTime, &mut dyn CryptoRng),
    ) -> Result<(), ManagerError> {
        let kept = self.of(OWNER);
        let mut kept = lock(&kept);
        kept.lockout.before(now)?;
        self.shelf.save(OWNER, &*kept)?;
        passwords.change(which, old, new, cost, rng)?;
        kept.lockout.after(Verdict::login());
        self.shelf.save(OWNER, &*kept)
    }

    /// The alarms that the server has not taken yet, the oldest of each sleeve first. Blocking: a
    /// login may be under way.
    pub(super) fn waiting(&self) -> Vec<WaitingAlarm> {
        let all: Vec<_> = {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.iter().map(|(sleeve, kept)| (sleeve.clone(), kept.clone())).collect()
        };
        let mut waiting = Vec::new();
        for (sleeve, kept) in all {
            let kept = lock(&kept);
            let alarms = kept.alarms.iter().chain(&kept.last).filter(|one| one.word == ALARM);
            waiting.extend(
                alarms.map(|attempt| WaitingAlarm {
                    sleeve: sleeve.clone(),
                    attempt: attempt.clone(),
                }),
            );
        }
        waiting
    }

    /// The server has this alarm on record.
    pub(super) fn taken(&self, alarm: &WaitingAlarm) -> Result<(), ManagerError> {
        let kept = self.of(&alarm.sleeve);
        let mut kept = lock(&kept);
        let id = &alarm.attempt.id;
        kept.alarms.retain(|one| one.id != *id);
        if let Some(last) = kept.last.as_mut().filter(|last| last.id == *id) {
            BEGUN.clone_into(&mut last.word);
        }
        self.shelf.save(&alarm.sleeve, &*kept)
    }

    /// Forgets a sleeve's attempts, unless an alarm of it waits.
    pub(super) fn forget(&self, sleeve: &str) -> Result<(), ManagerError> {
        if self.waiting().iter().any(|alarm| alarm.sleeve == sleeve) {
            return Ok(());
        }
        self.shelf.remove(sleeve)?;
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(sleeve);
        Ok(())
    }

    fn of(&self, sleeve: &str) -> Arc<Mutex<Kept>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.entry(sleeve.to_owned()).or_default().clone()
    }
}

impl Kept {
    fn begin(&mut self, session: u64, now: UnixTime, rng: &mut dyn CryptoRng) {
        if let Some(last) = self.last.take()
            && last.word == ALARM
        {
            self.alarms.truncate(WAITING_MAX - 1);
            self.alarms.push(last);
        }
        let mut id = [0; ID_LEN];
        rng.fill_bytes(&mut id);
        let id = HEXLOWER.encode(&id);
        self.last = Some(Attempt { id, session, at: now.as_millis(), word: BEGUN.to_owned() });
    }
}

/// A panic elsewhere left the last value that was stored, or one that counts more.
fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}
