//! Devices and, beside each, its live certificate: the mapping of requirement C4.

use countersign_crypto::UnixTime;

use crate::certificates::{CERTIFICATE_COLUMNS, CERTIFICATE_WIDTH, certificate};
use crate::decisions::stands;
use crate::names::stored_as_text;
use crate::page::{check_cursor, fetch_limit};
use crate::value::check_texts;
use crate::{Certificate, Page, Row, StoreError, Tx, Value};

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceKind {
    /// An ID-card reader (C).
    Reader,
    /// A host of SAM modules (C12).
    SamHost,
    /// A POS terminal that keys are injected into (E).
    Terminal,
    /// An external security device that confirms payments (D).
    SecurityDevice,
    /// A card sleeve that stands for cards kept at home (A).
    Sleeve,
    /// A manager, which keeps real cards at home (A).
    Manager,
}

stored_as_text!(DeviceKind, "device kind", {
    Reader => "reader",
    SamHost => "sam-host",
    Terminal => "terminal",
    SecurityDevice => "security-device",
    Sleeve => "sleeve",
    Manager => "manager",
});

/// Whether a device may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceStatus {
    /// It may.
    Enrolled,
    /// It is refused; the reason stands beside it.
    Blocked,
}

stored_as_text!(DeviceStatus, "device status", { Enrolled => "enrolled", Blocked => "blocked" });

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// `rdr_…` for readers, `smh_…` for SAM hosts, `trm_…` for terminals,
    /// `sdv_…` for security devices, `slv_…` for sleeves, `mgr_…` for managers.
    pub id: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Serial number, unique among devices of its kind.
    pub serial: String,
    /// Whether it may be served.
    pub status: DeviceStatus,
    /// Why it is blocked, if it is.
    pub block_reason: Option<String>,
    /// When it was enrolled.
    pub created_at: UnixTime,
    /// When its status last changed.
    pub updated_at: UnixTime,
}

/// A device and its live (intended or issued) certificate, if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRecord {
    /// The device.
    pub device: Device,
    /// At most one is live at a time, by the database's rule.
    pub certificate: Option<Certificate>,
    /// The most lasting of the risk rules' blocks that have not been ended.
    pub rule_block: Option<RuleBlock>,
}

/// A block by a risk rule, beside and apart from an operator's own (C5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleBlock {
    /// The decision, `dec_…`.
    pub decision_id: String,
    /// Why, in one sentence.
    pub reason: String,
    /// Since when.
    pub at: UnixTime,
    /// Until when; `None` until an operator reverses it.
    pub until: Option<UnixTime>,
}

impl DeviceRecord {
    /// Why the device is refused at `now`, if it is: by an operator's block, or by a rule's that
    /// still stands.
    #[must_use]
    pub fn blocked(&self, now: UnixTime) -> Option<&str> {
        if self.device.status == DeviceStatus::Blocked {
            return Some(self.device.block_reason.as_deref().unwrap_or_default());
        }
        let block = self.rule_block.as_ref()?;
        stands(block.at, block.until, now).then_some(block.reason.as_str())
    }
}

const COLUMNS: &str =
    "d.id, d.kind, d.serial, d.status, d.block_reason, d.created_at, d.updated_at";
const WIDTH: usize = 7;
/// Columns of a [`DeviceRecord`] in what [`select_with`] selects.
pub(crate) const RECORD_WIDTH: usize = WIDTH + CERTIFICATE_WIDTH + 4;

fn device(row: &Row) -> Result<Device, StoreError> {
    Ok(Device {
        id: row.text(0)?.to_owned(),
        kind: DeviceKind::stored(row.text(1)?)?,
        serial: row.text(2)?.to_owned(),
        status: DeviceStatus::stored(row.text(3)?)?,
        block_reason: row.opt_text(4)?.map(str::to_owned),
        created_at: row.time(5)?,
        updated_at: row.time(6)?,
    })
}

pub(crate) fn record(row: &Row) -> Result<DeviceRecord, StoreError> {
    let certificate = if row.is_null(WIDTH)? { None } else { Some(certificate(row, WIDTH)?) };
    let first = WIDTH + CERTIFICATE_WIDTH;
    let rule_block = match row.opt_text(first)? {
        None => None,
        Some(decision_id) => Some(RuleBlock {
            decision_id: decision_id.to_owned(),
            reason: row.text(first + 1)?.to_owned(),
            at: row.time(first + 2)?,
            until: row.opt_time(first + 3)?,
        }),
    };
    Ok(DeviceRecord { device: device(row)?, certificate, rule_block })
}

impl Tx<'_> {
    /// Inserts a device.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `devices_kind_serial_key` if the serial is taken;
    /// [`StoreError::Refused`] `text-too-long`.
    pub fn insert_device(&mut self, device: &Device) -> Result<(), StoreError> {
        check_texts([device.id.as_str(), &device.serial])?;
        check_texts(device.block_reason.as_deref())?;
        self.execute(
            "INSERT INTO devices (id, kind, serial, status, block_reason, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            &[
                (&device.id).into(),
                device.kind.name().into(),
                (&device.serial).into(),
                device.status.name().into(),
                device.block_reason.as_deref().into(),
                device.created_at.into(),
                device.updated_at.into(),
            ],
        )?;
        Ok(())
    }

    /// The device with this id and its live certificate.
    ///
    /// # Errors
    /// What the database answers.
    pub fn device_by_id(&mut self, id: &str) -> Result<Option<DeviceRecord>, StoreError> {
        self.device_where("d.id = ?1", &[id.into()])
    }

    /// The device with this serial number and its live certificate (C4).
    ///
    /// # Errors
    /// What the database answers.
    pub fn device_by_serial(
        &mut self,
        kind: DeviceKind,
        serial: &str,
    ) -> Result<Option<DeviceRecord>, StoreError> {
        self.device_where("d.kind = ?1 AND d.serial = ?2", &[kind.name().into(), serial.into()])
    }

    /// The device to which the certificate with this number was issued, whatever the state of
    /// that certificate, and the device's *live* certificate: if the two numbers differ, the one
    /// asked for is revoked or replaced (C4).
    ///
    /// # Errors
    /// What the database answers.
    pub fn device_by_certificate_number(
        &mut self,
        number: &str,
    ) -> Result<Option<DeviceRecord>, StoreError> {
        self.device_where(
            "d.id = (SELECT device_id FROM certificates WHERE number = ?1)",
            &[number.into()],
        )
    }

    /// Devices of a kind, oldest first, after `cursor`; `limit` in 1..=[`crate::MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`, `page-cursor`.
    pub fn devices_page(
        &mut self,
        kind: DeviceKind,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<DeviceRecord>, StoreError> {
        let sql = select("d.kind = ?1 AND d.id > ?2 ORDER BY d.id LIMIT ?3");
        let after = check_cursor(cursor)?.unwrap_or_default();
        let values = [kind.name().into(), after.into(), fetch_limit(limit)?.into()];
        let items = self.query(&sql, &values)?.iter().map(record).collect::<Result<_, _>>()?;
        Ok(Page::cut(items, limit, |record: &DeviceRecord| record.device.id.clone()))
    }

    /// Blocks a device; blocking again replaces the reason.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Refused`] `text-too-long`.
    pub fn block_device(
        &mut self,
        id: &str,
        reason: &str,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        self.set_status(id, DeviceStatus::Blocked, Some(reason), now)
    }

    /// Lets a blocked device be served again.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub fn unblock_device(&mut self, id: &str, now: UnixTime) -> Result<(), StoreError> {
        self.set_status(id, DeviceStatus::Enrolled, None, now)
    }

    fn set_status(
        &mut self,
        id: &str,
        status: DeviceStatus,
        reason: Option<&str>,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        check_texts(reason)?;
        self.hold_signer("t.device_id = ?1", id)?;
        self.change_one(
            "device",
            "UPDATE devices SET status = ?2, block_reason = ?3, updated_at = ?4 WHERE id = ?1",
            &[id.into(), status.name().into(), reason.into(), now.into()],
        )
    }

    fn device_where(
        &mut self,
        condition: &str,
        values: &[Value],
    ) -> Result<Option<DeviceRecord>, StoreError> {
        let row = self.query_one(&select(condition), values)?;
        row.map(|row| record(&row)).transpose()
    }
}

pub(crate) fn select(condition: &str) -> String {
    select_with("", "", condition)
}

/// As [`select`], with more columns from [`RECORD_WIDTH`] on (`, t.a, t.b`) and more joins.
pub(crate) fn select_with(columns: &str, joins: &str, condition: &str) -> String {
    format!(
        "SELECT {COLUMNS}, {CERTIFICATE_COLUMNS}, b.id, b.reason, b.at, b.until{columns}
         FROM devices d LEFT JOIN certificates c
           ON c.device_id = d.id AND c.state IN ('intended', 'issued')
         LEFT JOIN risk_decisions b ON b.id = (
             SELECT r.id FROM risk_decisions r
             WHERE r.device_id = d.id AND r.ended_at IS NULL AND r.action = 'block'
             ORDER BY (r.until IS NULL) DESC, r.until DESC LIMIT 1)
         {joins}
         WHERE {condition}"
    )
}
