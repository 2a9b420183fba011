//! Device certificates: the intent is stored before the certificate is signed, so that a crash
//! in between leaves a row that recovery finds.

use countersign_crypto::UnixTime;

use crate::names::stored_as_text;
use crate::page::fetch_limit;
use crate::value::check_texts;
use crate::{Row, StoreError, Tx};

/// Where a certificate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CertificateState {
    /// Decided and numbered, not known to be signed.
    Intended,
    /// Signed and stored.
    Issued,
    /// Revoked, or given up before it was signed.
    Revoked,
}

stored_as_text!(CertificateState, "certificate state", {
    Intended => "intended",
    Issued => "issued",
    Revoked => "revoked",
});

/// A certificate's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate's serial number in lower-case hexadecimal: its identity.
    pub number: String,
    /// To whom.
    pub device_id: String,
    /// Hash of the public key (the suite's).
    pub public_key: [u8; 32],
    /// Where it stands.
    pub state: CertificateState,
    /// The certificate, once issued.
    pub der: Option<Vec<u8>>,
    /// Until when it is valid.
    pub not_after: UnixTime,
    /// When it was decided.
    pub intended_at: UnixTime,
    /// When its signature was stored.
    pub issued_at: Option<UnixTime>,
    /// When it was revoked.
    pub revoked_at: Option<UnixTime>,
    /// Why it was revoked.
    pub revoke_reason: Option<String>,
}

/// The decision to issue a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateIntent {
    /// Serial number in lower-case hexadecimal.
    pub number: String,
    /// To whom.
    pub device_id: String,
    /// Hash of the public key (the suite's).
    pub public_key: [u8; 32],
    /// Until when it will be valid.
    pub not_after: UnixTime,
    /// When it is decided.
    pub at: UnixTime,
}

pub(crate) const CERTIFICATE_COLUMNS: &str = "c.number, c.device_id, c.public_key, c.state, \
     c.der, c.not_after, c.intended_at, c.issued_at, c.revoked_at, c.revoke_reason";
pub(crate) const CERTIFICATE_WIDTH: usize = 10;

/// Reads a certificate from the columns from `first` on.
pub(crate) fn certificate(row: &Row, first: usize) -> Result<Certificate, StoreError> {
    Ok(Certificate {
        number: row.text(first)?.to_owned(),
        device_id: row.text(first + 1)?.to_owned(),
        public_key: row.array(first + 2)?,
        state: CertificateState::stored(row.text(first + 3)?)?,
        der: row.opt_blob(first + 4)?.map(<[u8]>::to_vec),
        not_after: row.time(first + 5)?,
        intended_at: row.time(first + 6)?,
        issued_at: row.opt_time(first + 7)?,
        revoked_at: row.opt_time(first + 8)?,
        revoke_reason: row.opt_text(first + 9)?.map(str::to_owned),
    })
}

impl Tx<'_> {
    /// Stores the intent to issue a certificate. Renewal revokes the old one first, in the same
    /// transaction.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `certificates_device_id_key` if the device has a live
    /// certificate, `certificates_number_key` if the number was used before;
    /// [`StoreError::NotFound`] for no such device; [`StoreError::Refused`] `text-too-long`.
    pub fn intend_certificate(&mut self, intent: &CertificateIntent) -> Result<(), StoreError> {
        check_texts([intent.number.as_str()])?;
        self.execute(
            "INSERT INTO certificates
                 (number, device_id, public_key, state, not_after, intended_at)
             VALUES (?1, ?2, ?3, 'intended', ?4, ?5)",
            &[
                (&intent.number).into(),
                (&intent.device_id).into(),
                (&intent.public_key).into(),
                intent.not_after.into(),
                intent.at.into(),
            ],
        )?;
        Ok(())
    }

    /// Stores the signed certificate of an intent. Storing the same bytes again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for no such number; [`StoreError::Refused`]
    /// `certificate-not-intended` if it is revoked or issued with other bytes.
    pub fn record_issued_certificate(
        &mut self,
        number: &str,
        der: &[u8],
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let changed = self.execute(
            "UPDATE certificates SET state = 'issued', der = ?2, issued_at = ?3
             WHERE number = ?1 AND state = 'intended'",
            &[number.into(), der.into(), now.into()],
        )?;
        if changed == 1 {
            return Ok(());
        }
        let found = self.certificate_by_number(number)?;
        let found = found.ok_or(StoreError::NotFound { what: "certificate" })?;
        if found.state == CertificateState::Issued && found.der.as_deref() == Some(der) {
            Ok(())
        } else {
            Err(StoreError::Refused { check: "certificate-not-intended" })
        }
    }

    /// The certificate with this number, whatever its state.
    ///
    /// # Errors
    /// What the database answers.
    pub fn certificate_by_number(
        &mut self,
        number: &str,
    ) -> Result<Option<Certificate>, StoreError> {
        let sql = format!("SELECT {CERTIFICATE_COLUMNS} FROM certificates c WHERE c.number = ?1");
        self.query_one(&sql, &[number.into()])?.map(|row| certificate(&row, 0)).transpose()
    }

    /// The certificates that were ever decided for a device, the newest first, at most `limit` (in
    /// 1..=[`crate::MAX_PAGE`]): the history of the mapping of serial to number (C4).
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`.
    pub fn certificates_of_device(
        &mut self,
        device_id: &str,
        limit: u32,
    ) -> Result<Vec<Certificate>, StoreError> {
        fetch_limit(limit)?;
        let sql = format!(
            "SELECT {CERTIFICATE_COLUMNS} FROM certificates c WHERE c.device_id = ?1
             ORDER BY c.intended_at DESC, c.number LIMIT ?2"
        );
        let rows = self.query(&sql, &[device_id.into(), limit.into()])?;
        rows.iter().map(|row| certificate(row, 0)).collect()
    }

    /// Intents made before `before` whose outcome was never stored, oldest first: what recovery
    /// signs again or revokes. `limit` in 1..=[`crate::MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`.
    pub fn unfinished_certificates(
        &mut self,
        before: UnixTime,
        limit: u32,
    ) -> Result<Vec<Certificate>, StoreError> {
        fetch_limit(limit)?;
        let sql = format!(
            "SELECT {CERTIFICATE_COLUMNS} FROM certificates c
             WHERE c.state = 'intended' AND c.intended_at < ?1
             ORDER BY c.intended_at, c.number LIMIT ?2"
        );
        let rows = self.query(&sql, &[before.into(), limit.into()])?;
        rows.iter().map(|row| certificate(row, 0)).collect()
    }

    /// Revokes an intended or issued certificate.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if no live certificate has this number;
    /// [`StoreError::Refused`] `text-too-long`.
    pub fn revoke_certificate(
        &mut self,
        number: &str,
        reason: &str,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        check_texts([reason])?;
        self.hold_signer(
            "t.device_id = (SELECT device_id FROM certificates WHERE number = ?1)",
            number,
        )?;
        self.change_one(
            "live certificate",
            "UPDATE certificates SET state = 'revoked', revoked_at = ?3, revoke_reason = ?2
             WHERE number = ?1 AND state IN ('intended', 'issued')",
            &[number.into(), reason.into(), now.into()],
        )
    }
}
