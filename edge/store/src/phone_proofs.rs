//! Proofs by which phones show that they hold their key: each counts once (RFC 9449 §11.1).

use countersign_crypto::UnixTime;

use crate::{StoreError, Tx};

/// Most rows that one [`Tx::sweep_phone_proofs`] removes.
pub const PHONE_PROOFS_SWEEP_MAX: u32 = 2000;

impl Tx<'_> {
    /// Uses a proof up, by its hash: returns whether it was new. Two servers that are shown one
    /// proof at once: one of them is told that it was not. It is kept until `expires_at`, after
    /// which no server may take it.
    ///
    /// # Errors
    /// What the database answers.
    pub fn use_phone_proof(
        &mut self,
        hash: &[u8; 32],
        expires_at: UnixTime,
    ) -> Result<bool, StoreError> {
        let inserted = self.execute(
            "INSERT INTO phone_proofs (hash, expires_at) VALUES (?1, ?2)
             ON CONFLICT (hash) DO NOTHING",
            &[hash.into(), expires_at.into()],
        )?;
        Ok(inserted == 1)
    }

    /// Removes proofs whose time is over at `now`, at most [`PHONE_PROOFS_SWEEP_MAX`]. Returns how
    /// many.
    ///
    /// # Errors
    /// What the database answers.
    pub fn sweep_phone_proofs(&mut self, now: UnixTime) -> Result<u64, StoreError> {
        self.execute(
            "DELETE FROM phone_proofs WHERE hash IN (
                 SELECT hash FROM phone_proofs WHERE expires_at <= ?1
                 ORDER BY expires_at LIMIT ?2)",
            &[now.into(), PHONE_PROOFS_SWEEP_MAX.into()],
        )
    }
}
