//! Leases: which process does what only one should do. A lease saves work; whatever must not
//! happen twice is guarded by uniqueness as well, because a clock may be wrong.

use std::time::Duration;

use countersign_crypto::UnixTime;

use crate::value::check_texts;
use crate::{StoreError, Tx};

/// How far the clocks of two servers may lie apart.
pub const CLOCKS_DIFFER: Duration = Duration::from_secs(300);

impl Tx<'_> {
    /// Takes or renews the lease `name` for `holder` until `now + time`, if it is free, expired
    /// or the holder's own. Returns whether the holder has it.
    ///
    /// A lease that lasts longer than any could is from a clock that was ahead, and is taken too:
    /// else nobody could have it until that time comes.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `text-too-long`.
    pub fn take_lease(
        &mut self,
        name: &str,
        holder: &str,
        now: UnixTime,
        time: Duration,
    ) -> Result<bool, StoreError> {
        check_texts([name, holder])?;
        let changed = self.execute(
            "INSERT INTO leases (name, holder, until) VALUES (?1, ?2, ?3)
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
             WHERE leases.holder = excluded.holder OR leases.until <= ?4
                OR leases.until > ?5",
            &[
                name.into(),
                holder.into(),
                now.plus(time).into(),
                now.into(),
                now.plus(time + CLOCKS_DIFFER).into(),
            ],
        )?;
        Ok(changed == 1)
    }

    /// Gives a lease back, if it is the holder's.
    ///
    /// # Errors
    /// What the database answers.
    pub fn release_lease(&mut self, name: &str, holder: &str) -> Result<(), StoreError> {
        let sql = "DELETE FROM leases WHERE name = ?1 AND holder = ?2";
        self.execute(sql, &[name.into(), holder.into()]).map(|_| ())
    }

    /// Who holds a lease at `now`, if anyone.
    ///
    /// # Errors
    /// What the database answers.
    pub fn lease_holder(
        &mut self,
        name: &str,
        now: UnixTime,
    ) -> Result<Option<String>, StoreError> {
        let sql = "SELECT holder FROM leases WHERE name = ?1 AND until > ?2";
        let row = self.query_one(sql, &[name.into(), now.into()])?;
        row.map(|row| row.text(0).map(str::to_owned)).transpose()
    }
}
