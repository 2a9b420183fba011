//! SAM modules that operators have taken out of service (C12), by their ids: a module keeps its id
//! wherever it is plugged in.

use countersign_crypto::UnixTime;

use crate::value::check_texts;
use crate::{Row, StoreError, Tx};

/// A module out of service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SamDrain {
    /// The module's id, as the trade writes it.
    pub sam_id: String,
    /// Why.
    pub reason: String,
    /// Who did it, as in the audit.
    pub actor: String,
    /// Since when.
    pub at: UnixTime,
}

fn drain(row: &Row) -> Result<SamDrain, StoreError> {
    Ok(SamDrain {
        sam_id: row.text(0)?.to_owned(),
        reason: row.text(1)?.to_owned(),
        actor: row.text(2)?.to_owned(),
        at: row.time(3)?,
    })
}

impl Tx<'_> {
    /// The modules out of service, by id. Whoever adds one bounds how many there are.
    ///
    /// # Errors
    /// What the database answers.
    pub fn sam_drains(&mut self) -> Result<Vec<SamDrain>, StoreError> {
        let sql = "SELECT sam_id, reason, actor, at FROM sam_drains ORDER BY sam_id";
        self.query(sql, &[])?.iter().map(drain).collect()
    }

    /// Takes a module out of service; doing so again replaces the reason.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `text-too-long`.
    pub fn put_sam_drain(&mut self, drain: &SamDrain) -> Result<(), StoreError> {
        check_texts([drain.sam_id.as_str(), &drain.reason, &drain.actor])?;
        self.execute(
            "INSERT INTO sam_drains (sam_id, reason, actor, at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (sam_id) DO UPDATE SET
                reason = excluded.reason, actor = excluded.actor, at = excluded.at",
            &[
                (&drain.sam_id).into(),
                (&drain.reason).into(),
                (&drain.actor).into(),
                drain.at.into(),
            ],
        )?;
        Ok(())
    }

    /// Puts a module back into service. Whether it was out of it.
    ///
    /// # Errors
    /// What the database answers.
    pub fn remove_sam_drain(&mut self, sam_id: &str) -> Result<bool, StoreError> {
        let removed = self.execute("DELETE FROM sam_drains WHERE sam_id = ?1", &[sam_id.into()])?;
        Ok(removed == 1)
    }
}
