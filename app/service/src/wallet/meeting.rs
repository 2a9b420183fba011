//! The devices at this server's relay, and what is looked after while they are there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use countersign_crypto::{CryptoRng, UnixTime};
use countersign_pki::CertificateNumber;
use countersign_store::{
    BusState, CLOCKS_DIFFER, CertificateState, DeviceKind, DeviceRecord, WALLET_CHANGES_MAX,
};
use countersign_wallet::relay::{
    Address, Counts, Dismissal, Limits, Meetings, Party, SeatId, Serial,
};
use data_encoding::HEXLOWER;
use tokio::sync::Notify;

use super::RELAY_PRESENT;
use crate::{KnownDevice, Service, ServiceError};

/// How long a server is believed to have a manager after it last said so.
pub const RELAY_PLACE_TIME: Duration = Duration::from_secs(90);
/// How often [`Service::keep_relay`] is to be called: so long, and a moment, a device that was
/// blocked may still be served.
pub const RELAY_KEEP_EVERY: Duration = Duration::from_secs(10);
/// Devices that are looked up in one transaction.
const LOOKED_UP_TOGETHER: usize = 200;

/// The devices that are connected to this server, and their meetings.
pub struct Relay {
    state: Mutex<State>,
    /// A name that no other process has.
    holder: String,
    /// Where sleeves of other servers reach this one.
    address: OnceLock<Address>,
}

pub(super) struct State {
    pub(super) meetings: Meetings,
    seats: HashMap<SeatId, Seated>,
    next: SeatId,
    /// Until when changes of devices have been looked at.
    looked_at: Option<UnixTime>,
}

/// A connection's device.
struct Seated {
    wake: Arc<Notify>,
    id: Box<str>,
    /// The number of the certificate that it came with.
    number: CertificateNumber,
}

impl State {
    /// Wakes whoever there is something for, but `own`, which looks by itself.
    pub(super) fn wake(&mut self, own: Option<SeatId>) {
        while let Some(woken) = self.meetings.poll_woken() {
            if Some(woken) != own
                && let Some(seated) = self.seats.get(&woken)
            {
                seated.wake.notify_one();
            }
        }
    }
}

impl Relay {
    pub(crate) fn new(limits: Limits, server_id: &str, rng: &mut dyn CryptoRng) -> Self {
        let mut random = [0; 8];
        rng.fill_bytes(&mut random);
        let holder = format!("{server_id}/{}", HEXLOWER.encode(&random));
        let meetings = Meetings::new(limits);
        let state = State { meetings, seats: HashMap::new(), next: 0, looked_at: None };
        Self { state: Mutex::new(state), holder, address: OnceLock::new() }
    }

    /// Says where sleeves that come to another server are sent, `host:port`. Told once, before the
    /// first device is served; without it managers here are found by sleeves here only. False if it
    /// is no address that can be told.
    pub fn advertise(&self, address: &str) -> bool {
        let address = Address::new(address).filter(|address| !address.is_empty());
        address.is_some_and(|address| self.address.set(address).is_ok())
    }

    /// How much there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lock().meetings.counts()
    }

    /// Bytes that wait here at this moment, of all meetings.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.lock().meetings.queued()
    }

    pub(super) fn holder(&self) -> &str {
        &self.holder
    }

    pub(super) fn address(&self) -> Option<&Address> {
        self.address.get()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // No method of the bookkeeping panics half-way, so a poisoned lock is still sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A device that has done its handshake; what wakes it, and its seat.
    pub(super) fn enter(
        &self,
        now: UnixTime,
        device: &KnownDevice,
        serial: Serial,
    ) -> (SeatId, Arc<Notify>) {
        let party = match device.kind {
            DeviceKind::Manager => Party::Manager,
            _ => Party::Sleeve,
        };
        let wake = Arc::<Notify>::default();
        let number = device.entry.certificate_number.clone();
        let mut state = self.lock();
        let seat = state.next;
        state.next += 1;
        state.meetings.enter(now, seat, party, serial);
        let seated = Seated { wake: wake.clone(), id: device.id.as_str().into(), number };
        state.seats.insert(seat, seated);
        (seat, wake)
    }

    pub(super) fn leave(&self, seat: SeatId) {
        let mut state = self.lock();
        state.meetings.leave(seat);
        state.seats.remove(&seat);
        state.wake(Some(seat));
    }

    fn dismiss(&self, seats: impl IntoIterator<Item = (SeatId, Dismissal)>) {
        let mut state = self.lock();
        for (seat, why) in seats {
            state.meetings.dismiss(seat, why);
        }
        state.wake(None);
    }
}

impl Service {
    /// The devices at this server's relay.
    #[must_use]
    pub const fn relay(&self) -> &Relay {
        &self.relay
    }

    /// Looks after the relay, every [`RELAY_KEEP_EVERY`]: sends away whoever may not be served any
    /// more, and says that the managers here are still here. One of them that has meanwhile come to
    /// another server is sent away too: that connection is the newer one.
    ///
    /// # Errors
    /// The store's. What was connected stays so: only who is newly barred stays too long then.
    pub async fn keep_relay(&self) -> Result<(), ServiceError> {
        let counts = self.relay.counts();
        for (kind, count) in [
            ("devices", counts.seats),
            ("managers", counts.managers),
            ("meetings", counts.meetings),
        ] {
            metrics::gauge!(RELAY_PRESENT, "kind" => kind).set(count as f64);
        }
        self.bar_devices().await?;
        self.keep_places().await
    }

    /// No manager is here any more: the server stops.
    ///
    /// # Errors
    /// The store's; the places are forgotten after [`RELAY_PLACE_TIME`] then.
    pub async fn release_relay(&self) -> Result<(), ServiceError> {
        let holder = self.relay.holder.clone();
        let release = move |tx: &mut countersign_store::Tx<'_>| {
            tx.release_relay_places(&holder)?;
            Ok::<_, ServiceError>(())
        };
        self.store.run_tx("relay_release", release).await
    }

    async fn keep_places(&self) -> Result<(), ServiceError> {
        let managers = self.relay.lock().meetings.registered();
        if managers.is_empty() || self.relay.address().is_none() {
            return Ok(());
        }
        let (holder, until) = (self.relay.holder.clone(), self.now().plus(RELAY_PLACE_TIME));
        let keep = move |tx: &mut countersign_store::Tx<'_>| {
            Ok::<_, ServiceError>(tx.keep_relay_places(&holder, &managers, until)?)
        };
        let lost = self.store.run_tx("relay_keep", keep).await?;
        let state = self.relay.lock();
        let seats: Vec<_> =
            lost.iter().filter_map(|manager| state.meetings.manager(manager)).collect();
        drop(state);
        self.relay.dismiss(seats.into_iter().map(|seat| (seat, Dismissal::Elsewhere)));
        Ok(())
    }

    /// Sends away devices that were blocked, or whose certificate was revoked, since last time.
    async fn bar_devices(&self) -> Result<(), ServiceError> {
        let now = self.now();
        let since = self.relay.lock().looked_at.unwrap_or_default().minus(CLOCKS_DIFFER);
        let changed = self
            .store
            .read("relay_changes", move |tx| {
                Ok::<_, ServiceError>(tx.wallet_devices_changed(since)?)
            })
            .await?;
        let everyone = changed.len() >= WALLET_CHANGES_MAX as usize;
        let mut here = self.seated(|id| everyone || changed.iter().any(|changed| changed == id));
        while !here.is_empty() {
            let rest = here.split_off(here.len().min(LOOKED_UP_TOGETHER));
            let looked_up = std::mem::replace(&mut here, rest);
            let barred = self
                .store
                .read("relay_devices", move |tx| {
                    let mut barred = Vec::new();
                    for (seat, id, number) in &looked_up {
                        let record = tx.device_by_id(id)?;
                        barred.extend(barred_by(record, number, now).map(|why| (*seat, why)));
                    }
                    Ok::<_, ServiceError>(barred)
                })
                .await?;
            self.relay.dismiss(barred);
        }
        self.relay.lock().looked_at = Some(now);
        Ok(())
    }

    /// The seats of devices with such ids.
    fn seated(&self, wanted: impl Fn(&str) -> bool) -> Vec<(SeatId, String, String)> {
        let state = self.relay.lock();
        let here = state.seats.iter().filter(|(_, seated)| wanted(&seated.id));
        here.map(|(seat, seated)| (*seat, seated.id.to_string(), seated.number.to_string()))
            .collect()
    }

    /// Whether servers on one database are told where this one is.
    #[must_use]
    pub fn relay_is_apart(&self) -> bool {
        self.store.bus().state() != BusState::Local && self.relay.address().is_none()
    }
}

/// Why a device may not be served any more, if it may not.
fn barred_by(record: Option<DeviceRecord>, number: &str, now: UnixTime) -> Option<Dismissal> {
    let Some(record) = record else { return Some(Dismissal::Revoked) };
    if record.blocked(now).is_some() {
        return Some(Dismissal::Blocked);
    }
    let live = record.certificate.is_some_and(|certificate| {
        certificate.state == CertificateState::Issued
            && certificate.number == number
            && certificate.not_after > now
    });
    (!live).then_some(Dismissal::Revoked)
}
