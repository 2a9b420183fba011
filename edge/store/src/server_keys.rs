//! The keys that all servers of one database have in common, by the hashes of the public ones.

use countersign_crypto::UnixTime;

use crate::value::check_texts;
use crate::{StoreError, Tx};

impl Tx<'_> {
    /// The hash that is kept for the servers' key of this name.
    ///
    /// # Errors
    /// What the database answers.
    pub fn server_key(&mut self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT hash FROM server_keys WHERE name = ?1";
        self.query_one(sql, &[name.into()])?.map(|row| Ok(row.blob(0)?.to_vec())).transpose()
    }

    /// Keeps the hash of the servers' key of this name, if there is none yet, and returns the one
    /// that is kept.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `text-too-long`.
    pub fn keep_server_key(
        &mut self,
        name: &str,
        hash: &[u8],
        now: UnixTime,
    ) -> Result<Vec<u8>, StoreError> {
        check_texts([name])?;
        self.execute(
            "INSERT INTO server_keys (name, hash, at) VALUES (?1, ?2, ?3)
             ON CONFLICT (name) DO NOTHING",
            &[name.into(), hash.into(), now.into()],
        )?;
        let kept = self.server_key(name)?;
        kept.ok_or_else(|| StoreError::corrupt("the row of the servers' key is missing"))
    }
}
