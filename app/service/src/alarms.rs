//! Alarms: someone has logged in at a manager with the alarm password (A5). The manager tells the
//! server, again and again until it is told that the server has it; operators find it in the list,
//! and webhooks are told.

use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_payment::to_rfc3339;
use countersign_pki::{Identity, Role};
use countersign_store::{
    AuditEntry, Device, DeviceKind, Event, IdKind, Notice, Page, Tx, WalletAlarm,
};
use serde_json::{Value, json};

use crate::refusals::{Party, Refusal};
use crate::{Actor, Service, ServiceError, done};

/// Longest name that a manager gives to an alarm or a session, in bytes.
pub const ALARM_NAME_MAX: usize = 64;
/// Alarms that one manager may raise in an [`ALARMS_WINDOW`]: whoever has stolen a manager cannot
/// fill the disk. It tells the others later.
pub const ALARMS_PER_WINDOW: u64 = 60;
/// See [`ALARMS_PER_WINDOW`].
pub const ALARMS_WINDOW: Duration = Duration::from_secs(3600);

/// The last moment that has a date with a year of four digits.
const RAISED_MAX: UnixTime = UnixTime::from_millis(253_402_300_799_999);

/// What an alarm is called in the audit and by webhooks.
const ALARM_KIND: &str = "sleeve.alarm";

/// What the store counts alarms by, and that they are looked at: for operators only. Who may see
/// other figures, a shop among them, must not see that somebody is under duress (A5).
pub const ALARM_WORK: [&str; 2] = [RAISE, PAGE];
const RAISE: &str = "raise_alarm";
const PAGE: &str = "alarms_page";

/// An alarm as its manager tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAlarm {
    /// What the manager calls it, unique among its own: telling of it again changes nothing.
    pub alarm: String,
    /// The serial number in the certificate of the sleeve.
    pub sleeve: String,
    /// What the manager calls the session.
    pub session: String,
    /// When, by the manager's clock.
    pub raised_at: UnixTime,
}

/// An alarm that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaisedAlarm {
    /// As it is stored.
    pub alarm: WalletAlarm,
    /// Whether it was told for the first time.
    pub created: bool,
}

/// A name that a manager gives: told on as it is, so only what is harmless everywhere.
fn check_name(name: &str) -> Result<(), ServiceError> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > ALARM_NAME_MAX || !name.bytes().all(allowed) {
        let detail =
            format!("a name has 1 to {ALARM_NAME_MAX} of the characters A-Z a-z 0-9 . _ -");
        return Err(ServiceError::refused("alarm-name", detail));
    }
    Ok(())
}

impl NewAlarm {
    fn check(&self) -> Result<(), ServiceError> {
        check_name(&self.alarm)?;
        check_name(&self.session)?;
        let refused = || ServiceError::refused("alarm-sleeve", "that is no sleeve's serial number");
        Identity::new(Role::Sleeve, &self.sleeve).map_err(|_| refused())?;
        if self.raised_at > RAISED_MAX {
            return Err(ServiceError::refused("alarm-time", "that is no date"));
        }
        Ok(())
    }

    fn says(&self, stored: &WalletAlarm) -> bool {
        (self.sleeve.as_str(), self.session.as_str(), self.raised_at)
            == (stored.sleeve.as_str(), stored.session.as_str(), stored.raised_at)
    }
}

impl Service {
    /// Stores an alarm of a manager, which has done its handshake, with its audit row and the event
    /// `sleeve.alarm` in one transaction; afterwards webhooks are told. An alarm that was told
    /// before is answered the same way and changes nothing. The sleeve need not be enrolled here.
    ///
    /// # Errors
    /// `alarm-name`, `alarm-sleeve`, `alarm-time`; `alarm-changed` if its name was another alarm's;
    /// `device-blocked`; `alarm-rate` above [`ALARMS_PER_WINDOW`]: to be told again later;
    /// [`ServiceError::NotFound`] for no such manager. All of these are audited.
    pub async fn raise_alarm(
        &self,
        manager_id: &str,
        new: NewAlarm,
    ) -> Result<RaisedAlarm, ServiceError> {
        let raised = self.store_alarm(manager_id, new).await;
        match &raised {
            Ok(raised) if raised.created => self.store.bus().publish(&[Notice::events()]),
            Ok(_) => {}
            Err(error) if error.is_refusal() => {
                self.audit_refusal(Refusal {
                    party: Party::Wallet,
                    actor: manager_id,
                    action: ALARM_KIND,
                    subject: manager_id,
                    check: error.check(),
                    reason: error.to_string(),
                    reader: Some(manager_id),
                })
                .await;
            }
            Err(error) => tracing::warn!(%error, manager = manager_id, "an alarm is not stored"),
        }
        raised
    }

    async fn store_alarm(
        &self,
        manager_id: &str,
        new: NewAlarm,
    ) -> Result<RaisedAlarm, ServiceError> {
        new.check()?;
        let now = self.now();
        let (id, event) = (self.new_id(IdKind::Alarm), self.new_id(IdKind::Event));
        let entry = done(now, &Actor::Device(manager_id.to_owned()), ALARM_KIND, &id);
        let manager_id = manager_id.to_owned();
        self.store
            .run_tx(RAISE, move |tx| {
                let manager = manager(tx, &manager_id, now)?;
                let sleeve = tx.device_by_serial(DeviceKind::Sleeve, &new.sleeve)?;
                let alarm = WalletAlarm {
                    id: id.clone(),
                    manager_id: manager_id.clone(),
                    alarm: new.alarm.clone(),
                    sleeve: new.sleeve.clone(),
                    sleeve_id: sleeve.map(|record| record.device.id),
                    session: new.session.clone(),
                    raised_at: new.raised_at,
                    at: now,
                };
                if let Err(stored) = tx.insert_wallet_alarm(&alarm)? {
                    if new.says(&stored) {
                        return Ok(RaisedAlarm { alarm: stored, created: false });
                    }
                    let detail = "the manager has told another alarm under this name";
                    return Err(ServiceError::refused("alarm-changed", detail));
                }
                let since = now.minus(ALARMS_WINDOW);
                if tx.wallet_alarms_since(&manager_id, since)? > ALARMS_PER_WINDOW {
                    let detail = format!("a manager raises at most {ALARMS_PER_WINDOW} an hour");
                    return Err(ServiceError::refused("alarm-rate", detail));
                }
                let data = told(&manager, &alarm);
                let detail = data.to_string();
                tx.append_audit(&AuditEntry { detail: detail.clone(), ..entry.clone() })?;
                tx.insert_events(&[Event {
                    id: event.clone(),
                    kind: ALARM_KIND.to_owned(),
                    subject: alarm.id.clone(),
                    data: detail,
                    owner: None,
                    at: now,
                }])?;
                Ok(RaisedAlarm { alarm, created: true })
            })
            .await
    }

    /// Alarms, newest first.
    ///
    /// # Errors
    /// `page-limit`, `page-cursor`.
    pub async fn alarms(
        &self,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<WalletAlarm>, ServiceError> {
        self.store.read(PAGE, move |tx| Ok(tx.wallet_alarms_page(cursor.as_deref(), limit)?)).await
    }
}

/// The manager that raises an alarm, if it may.
fn manager(tx: &mut Tx<'_>, id: &str, now: UnixTime) -> Result<Device, ServiceError> {
    let record = tx.device_by_id(id)?.filter(|record| record.device.kind == DeviceKind::Manager);
    let record = record.ok_or(ServiceError::NotFound { what: "manager" })?;
    if record.blocked(now).is_some() {
        return Err(ServiceError::refused("device-blocked", "the manager is blocked"));
    }
    Ok(record.device)
}

/// What audit and webhooks say of it.
fn told(manager: &Device, alarm: &WalletAlarm) -> Value {
    json!({
        "alarm": alarm.id,
        "manager": { "id": manager.id, "serial": manager.serial },
        "sleeve": { "id": alarm.sleeve_id, "serial": alarm.sleeve },
        "session": alarm.session,
        "raisedAt": to_rfc3339(alarm.raised_at),
    })
}
