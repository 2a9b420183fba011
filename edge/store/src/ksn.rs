//! Device numbers of DUKPT keys: each is given out once, whatever becomes of the injection.

use countersign_crypto::UnixTime;

use crate::{KeyState, StoreError, Tx};

impl Tx<'_> {
    /// The device number of a DUKPT key that this injection has, taken now if it has none yet.
    ///
    /// One injection has one number and a number belongs to one injection: the database's
    /// uniqueness says so. A second injection into the same terminal takes another one, for the
    /// terminal begins to count its transactions anew.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for no such key or device; [`StoreError::Refused`]
    /// `key-not-active`, `ksn-exhausted`.
    pub fn allot_ksn(
        &mut self,
        key_id: &str,
        injection_id: &str,
        device_id: &str,
        now: UnixTime,
    ) -> Result<i64, StoreError> {
        let sql = "SELECT counter FROM ksn_allotments WHERE injection_id = ?1 AND key_id = ?2";
        if let Some(row) = self.query_one(sql, &[injection_id.into(), key_id.into()])? {
            return row.int(0);
        }
        let sql = "UPDATE keys SET ksn_next = ksn_next + 1
                   WHERE id = ?1 AND state = 'active' AND ksn_next < ksn_end
                   RETURNING ksn_next - 1";
        let Some(row) = self.query_one(sql, &[key_id.into()])? else {
            let record = self.key_by_id(key_id)?;
            let record = record.ok_or(StoreError::NotFound { what: "key" })?;
            let active = record.key.state == KeyState::Active;
            let check = if active { "ksn-exhausted" } else { "key-not-active" };
            return Err(StoreError::Refused { check });
        };
        let counter = row.int(0)?;
        self.execute(
            "INSERT INTO ksn_allotments (key_id, counter, injection_id, device_id, at)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            &[key_id.into(), counter.into(), injection_id.into(), device_id.into(), now.into()],
        )?;
        Ok(counter)
    }
}
