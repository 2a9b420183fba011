//! What a session has done beside its channel: passwords are verified, cards are listed, lent,
//! asked and let go, and what came of it goes to the flow and into the audit.

use countersign_iso7816::{LinkError, Response};
use countersign_net::Transport;
use countersign_wallet::audit::Entry;
use countersign_wallet::flow::{ManagerEvent, Output};
use countersign_wallet::login::{Access, PaddedPassword};
use countersign_wallet::message::{Atr, CardLine};
use countersign_wallet::policy::{Exchange, Usage};
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::super::desk::{HeldCard, Lent};
use super::super::logins::Attempted;
use super::super::{ManagerError, ManagerHappening, Shared, on_disk};
use super::{Over, Session};

/// What was done beside the channel.
pub(super) enum Done {
    Login(Result<Attempted, ManagerError>),
    Listed(Vec<CardLine>),
    /// The card that was asked for.
    Taken(String, Box<Result<Lent, String>>),
    Answered {
        held: HeldCard,
        /// Class and instruction.
        instruction: [u8; 2],
        /// Nothing was sent where the use could not be stored.
        response: Result<Result<Zeroizing<Vec<u8>>, LinkError>, ManagerError>,
    },
    WasReset {
        held: HeldCard,
        atr: Result<Atr, LinkError>,
    },
}

/// The card of a session.
pub(super) struct Holding {
    pub(super) card: String,
    pub(super) lease: u64,
    /// None while it works.
    held: Option<HeldCard>,
    /// It is to go as soon as it has answered.
    pub(super) over: Option<&'static str>,
}

impl<T: Transport> Session<T> {
    /// A4, A5: not on a thread that serves others, and few at once.
    pub(super) fn verify(&mut self, password: PaddedPassword) {
        let (shared, sleeve, session) = (self.shared.clone(), self.sleeve.clone(), self.number);
        self.work = Some(tokio::spawn(async move {
            let Ok(_turn) = shared.hashes.acquire().await else {
                return Done::Login(Err(ManagerError::Task));
            };
            let trying = shared.clone();
            let tried = on_disk(move || {
                let Shared { logins, passwords, .. } = &*trying;
                let ambient = (trying.now(), &mut *trying.rng() as _);
                logins.attempt(&sleeve, session.into(), passwords, &password, ambient)
            });
            Done::Login(tried.await)
        }));
    }

    pub(super) fn list(&mut self) {
        let (shared, sleeve) = (self.shared.clone(), self.sleeve.clone());
        let after_alarm = self.is_after_alarm();
        self.work = Some(spawn_blocking(move || {
            let shows = |card: &_| shared.settings.shows(card, after_alarm);
            Done::Listed(shared.desk.list(shared.now(), &sleeve, shows))
        }));
    }

    pub(super) fn take(&mut self, card: String) {
        let (shared, sleeve) = (self.shared.clone(), self.sleeve.clone());
        let (access, after_alarm) = (self.access.unwrap_or(Access::usual()), self.is_after_alarm());
        self.work = Some(tokio::spawn(async move {
            let settings = shared.settings.clone();
            let shows = move |card: &_| settings.shows(card, after_alarm);
            let wanted = (card.clone(), sleeve);
            let lent = shared.desk.clone().take(shared.now(), wanted, access, shows).await;
            Done::Taken(card, Box::new(lent))
        }));
    }

    /// Asked only once the answer to the login has left.
    fn is_after_alarm(&self) -> bool {
        self.access.is_some_and(Access::is_alarm)
    }

    /// Sends a command to the card, once.
    pub(super) async fn transmit(
        &mut self,
        lease: u64,
        command: Zeroizing<Vec<u8>>,
        usage: Option<Usage>,
    ) -> Result<(), Over> {
        let Some(mut held) = self.work_with(lease).await? else { return Ok(()) };
        let (shared, card) = (self.shared.clone(), self.card_name());
        let instruction = [command.first(), command.get(1)].map(|byte| *byte.unwrap_or(&0));
        self.work = Some(spawn_blocking(move || {
            let stored = usage.map_or(Ok(()), |used| shared.desk.store_usage(&card, used));
            let response = stored.map(|()| held.transmit(&command));
            Done::Answered { held, instruction, response }
        }));
        Ok(())
    }

    pub(super) async fn reset(&mut self, lease: u64) -> Result<(), Over> {
        let Some(mut held) = self.work_with(lease).await? else { return Ok(()) };
        self.work = Some(spawn_blocking(move || {
            let atr = held.reset();
            Done::WasReset { held, atr }
        }));
        Ok(())
    }

    /// The card, for one piece of work under this lease; none where the lease is over.
    async fn work_with(&mut self, lease: u64) -> Result<Option<HeldCard>, Over> {
        let renewed = self.shared.desk.renew(self.shared.now(), lease);
        let card = self.card.as_mut().filter(|card| card.lease == lease);
        let over = match (card, renewed) {
            (Some(Holding { over: Some(over), .. }), _) => *over,
            (Some(card), Ok(())) => return Ok(card.held.take()),
            (_, Err(error)) => error.check(),
            (None, Ok(())) => "internal",
        };
        self.lease_over(over).await.map(|()| None)
    }

    pub(super) async fn exchanged(
        &mut self,
        exchange: &Exchange,
        usage: Option<Usage>,
    ) -> Result<(), Over> {
        if let Some(used) = usage {
            let (shared, card) = (self.shared.clone(), self.card_name());
            let stored = on_disk(move || shared.desk.store_usage(&card, used)).await;
            stored.map_err(|error| self.failed(&error))?;
        }
        let entry = Entry { card: self.card_id(), ..Entry::of_exchange(exchange) };
        if exchange.only_read() && exchange.check.is_none() {
            self.note_soon(entry).await?;
        } else {
            self.note(entry).await?;
        }
        // A card that is gone is told of in another way.
        if let Some(check) = exchange.check
            && self.card.as_ref().is_some_and(|card| card.held.is_some())
        {
            let (session, card, check) = (self.number, self.card_id(), check.to_owned());
            self.shared.tell(ManagerHappening::CardRefused { session, card, check });
        }
        Ok(())
    }

    pub(super) async fn done(&mut self, done: Done) -> Result<(), Over> {
        let now = self.shared.now();
        self.idle_at = now.plus(self.shared.settings.idle());
        match done {
            Done::Login(tried) => self.tried(tried).await,
            Done::Listed(lines) => {
                let _misuse = self.flow.listed(lines);
                Ok(())
            }
            Done::Taken(card, lent) => self.taken(card, *lent).await,
            Done::Answered { held, response, .. } => {
                let response = response.map_err(|error| self.failed(&error))?;
                let lease = self.back(held, response.as_ref().err());
                let _misuse = match &response {
                    Ok(bytes) => self.flow.answered(lease, Ok(bytes)),
                    Err(error) => self.flow.answered(lease, Err(error)),
                };
                self.if_gone(response.err()).await
            }
            Done::WasReset { held, atr } => {
                let lease = self.back(held, atr.as_ref().err());
                let check = atr.as_ref().err().map(|error| error.check().to_owned());
                self.note(Entry { check, ..self.of_card("reset") }).await?;
                let gone = atr.as_ref().err().cloned();
                let _misuse = self.flow.was_reset(lease, atr.as_ref().cloned());
                self.if_gone(gone).await
            }
        }
    }

    async fn tried(&mut self, tried: Result<Attempted, ManagerError>) -> Result<(), Over> {
        let tried = tried.map_err(|error| self.failed(&error))?;
        self.note(login_entry(&tried)).await?;
        let (now, session) = (self.shared.now(), self.number);
        match tried {
            Attempted::Locked(locked) => {
                let _misuse = self.flow.locked(now, locked);
                let locked_seconds = locked.seconds;
                self.shared.tell(ManagerHappening::LoginFailed { session, locked_seconds });
            }
            Attempted::Verified(verdict, wait) => {
                let _misuse = self.flow.verified(now, verdict, wait);
                if !verdict.is_right() {
                    let locked_seconds = wait.map_or(0, |locked| locked.seconds);
                    self.shared.tell(ManagerHappening::LoginFailed { session, locked_seconds });
                }
            }
        }
        Ok(())
    }

    async fn taken(&mut self, card: String, lent: Result<Lent, String>) -> Result<(), Over> {
        let session = self.number;
        match lent {
            Ok(Lent { card, label, lease, seconds, held, taken }) => {
                let over = None;
                self.card = Some(Holding { card: card.clone(), lease, held: Some(held), over });
                self.note(self.of_card("take")).await?;
                let _misuse = self.flow.taken(self.shared.now(), Ok(taken));
                self.shared.tell(ManagerHappening::Taken { session, card, label, seconds });
            }
            Err(check) => {
                let (card, failed) = (Some(card), Some(check.clone()));
                let entry = Entry { card: card.clone(), check: failed, ..Entry::new("take") };
                self.note(entry).await?;
                let _misuse = self.flow.taken(self.shared.now(), Err(&check));
                self.shared.tell(ManagerHappening::CardRefused { session, card, check });
            }
        }
        Ok(())
    }

    /// The card has done its work; unless it is gone, it waits for more.
    fn back(&mut self, held: HeldCard, gone: Option<&LinkError>) -> u64 {
        let Some(card) = &mut self.card else {
            let_go(held);
            return 0; // no lease has this number
        };
        match gone {
            None => card.held = Some(held),
            Some(_) => let_go(held),
        }
        card.lease
    }

    /// Lets go of a card that does not answer: after what the flow has to say of it.
    async fn if_gone(&mut self, gone: Option<LinkError>) -> Result<(), Over> {
        let Some(error) = gone else { return Ok(()) };
        while let Some(output) = self.flow.poll() {
            match output {
                Output::Send(bytes) => self.send(&bytes)?,
                Output::Event(ManagerEvent::Exchanged { exchange, usage, .. }) => {
                    self.exchanged(&exchange, usage).await?;
                }
                Output::Event(ManagerEvent::Ended { check }) => return Err(check),
                Output::Event(_) => {}
            }
        }
        self.release(error.check()).await
    }

    /// Ends a lease that is over by itself, once its card is not at work.
    pub(super) async fn look_at_lease(&mut self) -> Result<(), Over> {
        let Some(card) = self.card.as_ref().filter(|_| self.work.is_none()) else { return Ok(()) };
        let over = match (card.over, self.shared.desk.expires(card.lease)) {
            (Some(over), _) => over,
            (None, Some(expires)) if self.shared.now() < expires => return Ok(()),
            (None, _) => "lease-expired",
        };
        self.lease_over(over).await?;
        while let Some(bytes) = self.flow.poll_transmit() {
            self.send(&bytes)?;
        }
        self.flush().await
    }

    async fn lease_over(&mut self, check: &str) -> Result<(), Over> {
        if let Some(card) = &self.card {
            self.flow.lease_ended(card.lease, check);
        }
        self.release(check).await
    }

    /// Gives the card back.
    pub(super) async fn release(&mut self, check: &str) -> Result<(), Over> {
        let Some(Holding { card, lease, held, .. }) = self.card.take() else { return Ok(()) };
        self.shared.desk.release(lease);
        if let Some(held) = held {
            let_go(held);
        }
        let failed = Some(check.to_owned()).filter(|check| check != "released");
        let entry = Entry { card: Some(card.clone()), check: failed, ..Entry::new("release") };
        let noted = self.note(entry).await;
        let (session, because) = (self.number, check.to_owned());
        self.shared.tell(ManagerHappening::Released { session, card, because });
        noted
    }

    /// What was done for nobody.
    pub(super) async fn done_late(&mut self, done: Done) {
        match done {
            Done::Login(Ok(tried)) => {
                let _failed = self.note(login_entry(&tried)).await;
                self.shared.alarms.notify_one();
            }
            Done::Answered { held, instruction, response } => {
                let lease = self.back(held, None);
                let Ok(response) = response else { return };
                let answered = response.as_ref().map(|bytes| &bytes[..]);
                let _misuse = self.flow.answered(lease, answered);
                let mut entry = None;
                while let Some(output) = self.flow.poll() {
                    if let Output::Event(ManagerEvent::Exchanged { exchange, usage, .. }) = output {
                        if let Some(used) = usage {
                            let (shared, card) = (self.shared.clone(), self.card_name());
                            let stored = on_disk(move || shared.desk.store_usage(&card, used));
                            let _failed = stored.await;
                        }
                        entry = Some(Entry::of_exchange(&exchange));
                    }
                }
                let entry = entry.unwrap_or_else(|| late_entry(instruction, &response));
                let _failed = self.note(Entry { card: self.card_id(), ..entry }).await;
            }
            Done::WasReset { held, .. } => {
                self.back(held, None);
            }
            Done::Taken(_, lent) => {
                if let Ok(lent) = *lent {
                    self.shared.desk.release(lent.lease);
                    let_go(lent.held);
                }
            }
            Done::Login(Err(_)) | Done::Listed(_) => {}
        }
    }
}

/// Lets go of a card where waiting for its reset holds up nobody.
fn let_go(held: HeldCard) {
    spawn_blocking(move || drop(held));
}

/// A login, in a line that is as long for either password.
fn login_entry(tried: &Attempted) -> Entry {
    match tried {
        Attempted::Locked(locked) => {
            Entry { check: Some(locked.check().to_owned()), ..Entry::new("login") }
        }
        Attempted::Verified(verdict, _) => {
            Entry { outcome: Some(verdict.word().as_str().to_owned()), ..Entry::new("login") }
        }
    }
}

/// A command that was answered when its session was over.
fn late_entry(instruction: [u8; 2], response: &Result<Zeroizing<Vec<u8>>, LinkError>) -> Entry {
    let status = response.as_ref().ok().and_then(|bytes| Response::parse(bytes));
    let exchange = Exchange {
        instruction: Some(instruction),
        status: status.map(|response| response.status.word()),
        check: Some("session-ended"),
        ..Exchange::default()
    };
    Entry::of_exchange(&exchange)
}
