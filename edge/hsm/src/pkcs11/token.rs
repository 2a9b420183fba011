//! One token of a module: found by name, logged in, and a pool of sessions that comes back after
//! the token was away.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_crypto::Secret;
use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::MechanismType;
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::{Limit, Slot, TokenInfo};
use cryptoki::types::RawAuthPin;

use super::failure::{Failure, is_lost, of_token};
use super::module::{InUse, Module};
use crate::{Description, HsmError, Pkcs11Config, TokenName};

/// Sessions that are open at once, where the token allows so many.
const SESSIONS_MAX: u64 = 8;
/// How long an operation waits for a session.
const SESSION_WAIT: Duration = Duration::from_secs(10);
/// How often an operation is begun: a second time after the session was lost.
const ATTEMPTS: u32 = 2;

/// A token, shared by the vault and its keys.
pub(super) struct Token {
    module: Arc<Module>,
    name: TokenName,
    login: Login,
    state: Mutex<State>,
    freed: Condvar,
}

/// How sessions come to be logged in.
enum Login {
    /// With this PIN, unless this process is logged in already.
    Shared(Secret),
    /// With this PIN, which the token tries in any case: somebody's consent hangs on it.
    Own(Secret),
    /// Not at all: what is public is seen without.
    Public,
}

#[derive(Default)]
struct State {
    /// Where the token is; none after it was lost, until it is found again.
    place: Option<Place>,
    /// It was found once, so that it can have come back.
    was_there: bool,
    /// A session was begun, with the PIN.
    had_session: bool,
    idle: Vec<Session>,
    /// Sessions that exist, idle or in use.
    open: u64,
    /// Counts losses; a session of an earlier count is thrown away.
    generation: u64,
    /// The start of the module that the sessions are of.
    start: u64,
    /// Once refused, the PIN is not sent again: the token counts, and locks.
    pin: Pin,
}

#[derive(Clone, Copy, Default)]
enum Pin {
    #[default]
    Good,
    Wrong,
    Locked,
}

#[derive(Clone, Copy)]
struct Place {
    slot: Slot,
    sessions_max: u64,
}

/// A session in use. Object handles are good in sessions of one generation only.
pub(super) struct Lease<'a> {
    pub(super) session: Session,
    pub(super) generation: u64,
    token: &'a Token,
    slot: Slot,
    _in_use: InUse<'a>,
}

impl Lease<'_> {
    /// Asks the token whether it is there. A module may say of a token that was taken away that it
    /// holds nothing; so whatever rests on an absence asks this.
    pub(super) fn check_present(&self) -> Result<(), Failure> {
        let info = self.token.module.library().get_token_info(self.slot);
        if info.is_ok_and(|info| self.token.name.is_of(&info)) {
            return Ok(());
        }
        Err(Failure::Token(Error::Pkcs11(RvError::TokenNotPresent, Function::GetTokenInfo)))
    }
}

impl Token {
    /// Loads the module, finds the token and logs in.
    ///
    /// # Errors
    /// [`HsmError`].
    pub(super) fn open(config: Pkcs11Config) -> Result<Self, HsmError> {
        Self::open_as(&config.module, config.token, Login::Shared(config.pin))
    }

    /// As [`Self::open`], where the token has to have tried this PIN: not within another's login.
    ///
    /// # Errors
    /// [`HsmError`]; [`HsmError::LoggedIn`].
    pub(super) fn open_by_pin(config: Pkcs11Config) -> Result<Self, HsmError> {
        Self::open_as(&config.module, config.token, Login::Own(config.pin))
    }

    /// As [`Self::open`], without a PIN.
    ///
    /// # Errors
    /// [`HsmError`].
    pub(super) fn open_public(module: &Path, name: TokenName) -> Result<Self, HsmError> {
        Self::open_as(module, name, Login::Public)
    }

    fn open_as(module: &Path, name: TokenName, login: Login) -> Result<Self, HsmError> {
        let (module, known) = Module::load(module)?;
        let person = !matches!(login, Login::Shared(_));
        let (state, freed) = (Mutex::default(), Condvar::new());
        let token = Self { module, name, login, state, freed };
        match token.run(|_| Ok(())) {
            // People put their tokens in when they are asked to; some modules look only once.
            Err(Failure::Check(HsmError::TokenAbsent(_) | HsmError::TokenLost(_)))
                if known && person =>
            {
                let seen = *token.module.enter();
                let lost = |error: HsmError| HsmError::TokenLost(error.to_string());
                token.module.restart(seen).map_err(lost)?;
                token.run(|_| Ok(()))?;
            }
            done => done?,
        }
        Ok(token)
    }

    /// Runs `work` in a session. If the session turns out to be lost, the token is looked for and
    /// `work` runs once more: it has no effect that shows when it fails so.
    ///
    /// # Errors
    /// What `work` says; [`HsmError::Busy`]; [`HsmError::TokenAbsent`] and the like.
    pub(super) fn run<T>(
        &self,
        mut work: impl FnMut(&Lease<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        for _ in 1..ATTEMPTS {
            match self.run_once(&mut work) {
                Err(Failure::Token(error)) if is_lost(&error) => {}
                done => return done,
            }
        }
        self.run_once(work)
    }

    /// As [`Self::run`], but never again: for what makes something in the token.
    pub(super) fn run_once<T>(
        &self,
        work: impl FnOnce(&Lease<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let lease = self.lease()?;
        let mut done = work(&lease);
        if matches!(done, Err(Failure::Check(HsmError::LabelUnknown(_)))) {
            done = lease.check_present().and(done);
        }
        match &done {
            Err(Failure::Token(error)) if is_lost(error) => self.lose(lease),
            _ => self.give_back(lease),
        }
        done
    }

    /// # Errors
    /// [`HsmError::MechanismUnsupported`].
    pub(super) fn require(
        &self,
        mechanism: MechanismType,
        name: &'static str,
    ) -> Result<(), HsmError> {
        // Asked one by one: the list logs an error for each mechanism that `cryptoki` cannot name.
        Ok(self.run(|lease| {
            match self.module.library().get_mechanism_info(lease.slot, mechanism) {
                Ok(_) => Ok(()),
                Err(Error::Pkcs11(RvError::MechanismInvalid, _)) => {
                    Err(HsmError::MechanismUnsupported(name).into())
                }
                Err(error) => Err(error.into()),
            }
        })?)
    }

    pub(super) fn describe(&self) -> Result<Description, HsmError> {
        Ok(self.run(|lease| {
            lease.check_present()?;
            let token = self.module.library().get_token_info(lease.slot)?;
            let library = self.module.library().get_library_info()?;
            let version = library.library_version();
            Ok(Description::Token {
                label: token.label().to_owned(),
                manufacturer: token.manufacturer_id().to_owned(),
                model: token.model().to_owned(),
                serial: token.serial_number().to_owned(),
                firmware: token.firmware_version().to_string(),
                library: format!("{} {version}", library.library_description()),
            })
        })?)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session that is logged in. If the token was there before and is not, its module is started
    /// again once.
    fn lease(&self) -> Result<Lease<'_>, HsmError> {
        let in_use = self.module.enter();
        let start = *in_use;
        match self.lease_now(in_use) {
            Err(HsmError::TokenAbsent(_) | HsmError::TokenLost(_)) if self.may_come_back() => {
                // A module that worked before is not a wrong one.
                let lost = |error: HsmError| HsmError::TokenLost(error.to_string());
                self.module.restart(start).map_err(lost)?;
                self.lease_now(self.module.enter())
            }
            done => done,
        }
    }

    /// An idle session or a new one.
    fn lease_now<'a>(&'a self, in_use: InUse<'a>) -> Result<Lease<'a>, HsmError> {
        let mut state = self.state();
        state.see_start(*in_use);
        loop {
            let place = self.place(&mut state)?;
            let generation = state.generation;
            let session = match state.idle.pop() {
                Some(session) => Some(session),
                None if state.open < place.sessions_max => {
                    let session = self.start_session(&mut state, place)?;
                    state.open += 1;
                    Some(session)
                }
                None => None,
            };
            if let Some(session) = session {
                let slot = place.slot;
                return Ok(Lease { session, generation, token: self, slot, _in_use: in_use });
            }
            let full = |state: &mut State| {
                let at_most = |place: Place| state.open >= place.sessions_max;
                state.idle.is_empty() && state.place.is_some_and(at_most)
            };
            let (woken, waited) = self
                .freed
                .wait_timeout_while(state, SESSION_WAIT, full)
                .unwrap_or_else(PoisonError::into_inner);
            if waited.timed_out() {
                return Err(HsmError::Busy);
            }
            state = woken;
        }
    }

    fn give_back(&self, lease: Lease<'_>) {
        let mut state = self.state();
        if lease.generation == state.generation {
            state.idle.push(lease.session);
        } else {
            state.open -= 1;
            drop(lease.session);
        }
        drop(state);
        self.freed.notify_one();
    }

    /// Throws away this session and all idle ones of its time, and forgets where the token is.
    fn lose(&self, lease: Lease<'_>) {
        let mut state = self.state();
        state.open -= 1;
        if lease.generation == state.generation {
            state.generation += 1;
            state.place = None;
            let idle = std::mem::take(&mut state.idle);
            state.open -= idle.len() as u64;
            drop(idle);
        }
        drop(lease.session);
        drop(state);
        self.freed.notify_all();
    }

    fn place(&self, state: &mut State) -> Result<Place, HsmError> {
        if let Some(place) = state.place {
            return Ok(place);
        }
        let (slot, info) = self.find()?;
        let sessions_max = match info.max_rw_session_count() {
            Limit::Max(most) => most.clamp(1, SESSIONS_MAX),
            Limit::Unavailable | Limit::Infinite => SESSIONS_MAX,
        };
        let place = Place { slot, sessions_max };
        state.place = Some(place);
        state.was_there = true;
        Ok(place)
    }

    fn find(&self) -> Result<(Slot, TokenInfo), HsmError> {
        let library = self.module.library();
        let slots = library.get_slots_with_token().map_err(|error| of_token(&error))?;
        let mut found = None;
        for slot in slots {
            // A slot whose token just went away is not the one.
            let Ok(info) = library.get_token_info(slot) else { continue };
            if !self.name.is_of(&info) || !info.token_initialized() {
                continue;
            }
            if found.replace((slot, info)).is_some() {
                return Err(HsmError::TokenAmbiguous(self.name.to_string()));
            }
        }
        found.ok_or_else(|| HsmError::TokenAbsent(self.name.to_string()))
    }

    fn may_come_back(&self) -> bool {
        let state = self.state();
        state.was_there && !self.is_spent(&state)
    }

    /// Whether a PIN that was given for one purpose has had its session: who typed it typed it for
    /// the token that was there then, and another one must not be told it.
    fn is_spent(&self, state: &State) -> bool {
        matches!(self.login, Login::Own(_)) && state.had_session && state.open == 0
    }

    fn is_logged_in(&self, place: Place) -> Result<bool, HsmError> {
        let state = || {
            let session = self.module.library().open_rw_session(place.slot)?;
            Ok(session.get_session_info()?.session_state())
        };
        let state = state().map_err(|error: Error| of_token(&error))?;
        Ok(!matches!(state, SessionState::RoPublic | SessionState::RwPublic))
    }

    fn start_session(&self, state: &mut State, place: Place) -> Result<Session, HsmError> {
        match state.pin {
            Pin::Good => {}
            Pin::Wrong => return Err(HsmError::PinWrong),
            Pin::Locked => return Err(HsmError::PinLocked),
        }
        // A login is the process's, and lasts as long as any session of it.
        let is_first_own = matches!(self.login, Login::Own(_)) && state.open == 0;
        if self.is_spent(state) {
            let detail = "it was away after its PIN was given".to_owned();
            return Err(HsmError::TokenLost(detail));
        }
        if is_first_own && self.is_logged_in(place)? {
            return Err(HsmError::LoggedIn);
        }
        let begin = || {
            let session = self.module.library().open_rw_session(place.slot)?;
            let (Login::Shared(pin) | Login::Own(pin)) = &self.login else { return Ok(session) };
            let pin = RawAuthPin::new(Box::new(pin.expose().to_vec()));
            match session.login_with_raw(UserType::User, &pin) {
                Ok(()) => Ok(session),
                // Of another login, which did not look at this PIN.
                Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) if !is_first_own => Ok(session),
                Err(error) => Err(error),
            }
        };
        let begun = begin();
        state.had_session |= begun.is_ok();
        begun.map_err(|error| {
            if matches!(error, Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) {
                return HsmError::LoggedIn;
            }
            let refused = of_token(&error);
            match refused {
                HsmError::PinWrong => state.pin = Pin::Wrong,
                HsmError::PinLocked => state.pin = Pin::Locked,
                _ => {}
            }
            if is_lost(&error) {
                state.place = None;
            }
            refused
        })
    }
}

impl State {
    /// Sessions of an earlier start are dead, and their numbers may be given out again: they are
    /// forgotten, because closing them could close another's.
    fn see_start(&mut self, start: u64) {
        if self.start == start {
            return;
        }
        self.start = start;
        self.generation += 1;
        self.place = None;
        self.open -= self.idle.len() as u64;
        self.idle.drain(..).for_each(std::mem::forget);
    }
}

impl TokenName {
    fn is_of(&self, info: &TokenInfo) -> bool {
        match self {
            Self::Label(label) => info.label() == label,
            Self::Serial(serial) => info.serial_number() == serial,
        }
    }
}
