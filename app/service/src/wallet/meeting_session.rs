//! One device at the relay, message by message.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_store::DeviceKind;
use countersign_wallet::relay::{
    Alarm, DeviceMessage, MeetRefusal, RelayError, RelayMessage, SeatId, Serial,
};
use tokio::sync::Notify;

use super::{RELAY_BYTES, RELAY_MEETS, RELAY_PLACE_TIME};
use crate::{KnownDevice, NewAlarm, Service, ServiceError};

/// Requests to meet of one connection in [`MEETS_WINDOW`]: those for a manager that is not here
/// cost the store a look each.
const MEETS_MAX: u32 = 30;
/// See [`MEETS_MAX`].
const MEETS_WINDOW: Duration = Duration::from_secs(60);
/// Alarms of one connection that are being stored at a time; the manager tells of others again.
const ALARMS_AT_ONCE: usize = 4;
/// When a device whose request met a failing store may ask again, in seconds.
const STORE_RETRY: u32 = 5;

/// How a device broke the protocol of the relay.
pub type RelayBroken = RelayError;

/// One authenticated sleeve's or manager's connection (A9). What is to be said to it comes out of
/// [`Self::poll_transmit`]; [`Self::changed`] tells when there may be something.
pub struct RelaySession {
    service: Arc<Service>,
    device: KnownDevice,
    serial: Serial,
    seat: SeatId,
    wake: Arc<Notify>,
    /// Since when requests to meet are counted, and how many there were.
    asked: (UnixTime, u32),
    alarms: Arc<AtomicUsize>,
}

impl RelaySession {
    /// For this device, after its handshake; none if it has a serial number that cannot be told.
    #[must_use]
    pub fn new(service: Arc<Service>, device: KnownDevice) -> Option<Self> {
        let serial = Serial::new(&device.entry.serial).filter(|serial| !serial.is_empty())?;
        let now = service.now();
        let (seat, wake) = service.relay.enter(now, &device, serial.clone());
        let (asked, alarms) = ((now, 0), Arc::default());
        Some(Self { service, device, serial, seat, wake, asked, alarms })
    }

    /// Handles one message.
    ///
    /// # Errors
    /// [`RelayBroken`]: the connection is to be closed.
    pub async fn handle(&mut self, message: &[u8]) -> Result<(), RelayBroken> {
        match DeviceMessage::decode(message)? {
            DeviceMessage::Register => self.register().await,
            DeviceMessage::Meet(manager) => self.meet(&manager).await,
            DeviceMessage::Alarm(alarm) => self.alarm(&alarm),
            message => {
                let mut state = self.service.relay.lock();
                let handled = state.meetings.handle(self.seat, message);
                state.wake(Some(self.seat));
                handled
            }
        }
    }

    /// The next message to the device.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        let now = self.service.now();
        let mut state = self.service.relay.lock();
        let message = state.meetings.poll_transmit(now, self.seat);
        state.wake(Some(self.seat));
        drop(state);
        let message = message?;
        if let RelayMessage::Data(piece) = &message {
            metrics::counter!(RELAY_BYTES).increment(piece.bytes.as_slice().len() as u64);
        }
        Some(message.encode())
    }

    /// When [`Self::poll_transmit`] may have something without a further cause.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<UnixTime> {
        let now = self.service.now();
        self.service.relay.lock().meetings.poll_timeout(now, self.seat)
    }

    /// Waits until [`Self::poll_transmit`] may have something. Cancel-safe.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Whether the device was sent away: what [`Self::poll_transmit`] still has is its last word.
    #[must_use]
    pub fn is_dismissed(&self) -> bool {
        self.service.relay.lock().meetings.is_dismissed(self.seat)
    }

    fn tell(&self, message: RelayMessage) {
        self.service.relay.lock().meetings.tell(self.seat, message);
    }

    /// A manager may be met here. Its place is stored first: from then on sleeves of other servers
    /// are sent here.
    async fn register(&self) -> Result<(), RelayBroken> {
        if self.device.kind != DeviceKind::Manager {
            return Err(RelayError::WrongParty);
        }
        if let Err(error) = self.take_place().await {
            tracing::warn!(%error, manager = self.device.id, "a manager could not be registered");
            self.tell(RelayMessage::refused("unavailable", STORE_RETRY));
            return Ok(());
        }
        let mut state = self.service.relay.lock();
        let registered = state.meetings.register(self.seat);
        state.wake(Some(self.seat));
        registered
    }

    async fn take_place(&self) -> Result<(), ServiceError> {
        let relay = &self.service.relay;
        let Some(address) = relay.address() else { return Ok(()) };
        let (manager, address) = (self.serial.as_str().to_owned(), address.as_str().to_owned());
        let (holder, until) =
            (relay.holder().to_owned(), self.service.now().plus(RELAY_PLACE_TIME));
        self.service
            .store
            .run_tx("relay_register", move |tx| {
                tx.take_relay_place(&manager, &holder, &address, until)?;
                Ok::<_, ServiceError>(())
            })
            .await
    }

    async fn meet(&mut self, manager: &Serial) -> Result<(), RelayBroken> {
        let now = self.service.now();
        let (since, asked) = &mut self.asked;
        if now >= since.plus(MEETS_WINDOW) {
            (*since, *asked) = (now, 0);
        }
        *asked = asked.saturating_add(1);
        let met = if *asked > MEETS_MAX {
            let wait = since.plus(MEETS_WINDOW).since(now).as_secs() + 1;
            Err(MeetRefusal::Rate(u32::try_from(wait).unwrap_or(u32::MAX)))
        } else {
            let mut state = self.service.relay.lock();
            let met = state.meetings.meet(now, self.seat, manager);
            state.wake(Some(self.seat));
            met?
        };
        let outcome = match met {
            Ok(meeting) => {
                let (sleeve, manager) = (self.device.id.as_str(), manager.as_str());
                tracing::debug!(sleeve, manager, meeting, "a sleeve meets a manager");
                "met"
            }
            Err(MeetRefusal::Absent) => self.look_elsewhere(manager, now).await,
            Err(refusal) => {
                self.tell(RelayMessage::refused(refusal.check(), refusal.retry_after()));
                refusal.check()
            }
        };
        metrics::counter!(RELAY_MEETS, "outcome" => outcome).increment(1);
        Ok(())
    }

    /// The manager is not here: at another server, or nowhere.
    async fn look_elsewhere(&self, manager: &Serial, now: UnixTime) -> &'static str {
        let (name, relay) = (manager.as_str().to_owned(), &self.service.relay);
        let found = self
            .service
            .store
            .read("relay_place", move |tx| Ok::<_, ServiceError>(tx.relay_place(&name, now)?))
            .await;
        let absent = MeetRefusal::Absent;
        let (answer, outcome) = match found {
            Err(error) => {
                tracing::warn!(%error, "the place of a manager could not be looked up");
                (RelayMessage::refused("unavailable", STORE_RETRY), "unavailable")
            }
            Ok(place) => {
                let own = relay.address().map(countersign_wallet::relay::Address::as_str);
                let elsewhere = place.filter(|place| {
                    // A server that was started again at the same address is not elsewhere.
                    place.server != relay.holder() && Some(place.address.as_str()) != own
                });
                let address = elsewhere
                    .and_then(|place| countersign_wallet::relay::Address::new(&place.address));
                match address {
                    Some(address) => (RelayMessage::Elsewhere(address), "elsewhere"),
                    None => {
                        let refused = RelayMessage::refused(absent.check(), absent.retry_after());
                        (refused, absent.check())
                    }
                }
            }
        };
        self.tell(answer);
        outcome
    }

    /// An alarm is stored beside what the connection carries: nobody who waits for bytes of it can
    /// tell by the time that there was one (A5).
    fn alarm(&self, alarm: &Alarm) -> Result<(), RelayBroken> {
        if self.device.kind != DeviceKind::Manager {
            return Err(RelayError::WrongParty);
        }
        if self.alarms.fetch_add(1, Ordering::Relaxed) >= ALARMS_AT_ONCE {
            self.alarms.fetch_sub(1, Ordering::Relaxed);
            return Ok(()); // told again
        }
        let new = NewAlarm {
            alarm: alarm.id.as_str().to_owned(),
            sleeve: alarm.sleeve.as_str().to_owned(),
            session: alarm.session.to_string(),
            raised_at: UnixTime::from_millis(alarm.at),
        };
        let (service, manager, id) =
            (self.service.clone(), self.device.id.clone(), alarm.id.clone());
        let (seat, alarms) = (self.seat, self.alarms.clone());
        tokio::spawn(async move {
            match service.raise_alarm(&manager, new).await {
                Ok(_stored) => {
                    let mut state = service.relay.lock();
                    state.meetings.tell(seat, RelayMessage::AlarmTaken(id));
                    state.wake(None);
                }
                Err(error) => tracing::warn!(%error, manager, "an alarm was not taken"),
            }
            alarms.fetch_sub(1, Ordering::Relaxed);
        });
        Ok(())
    }
}

/// The device has gone: its meetings end at their other sides at once.
impl Drop for RelaySession {
    fn drop(&mut self) {
        self.service.relay.leave(self.seat);
    }
}
