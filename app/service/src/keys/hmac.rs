//! Keys of HMAC in the database: what makes dynamic passwords (D4) and signs for webhooks. They lie
//! there as every symmetric key does, as a TR-31 block under the vault's storage key.

use countersign_crypto::Secret;
use tr31::{Header, OptionalBlock, OptionalId, Version};

use crate::{Service, ServiceError};

/// The `HM` block's value for HMAC with SHA-256 (X9.143, table 17).
const HMAC_SHA256: &str = "21";

fn header() -> Header {
    let mut header = Header::new(Version::D, *b"M7", b'H', b'C', b'N');
    header.optional.push(OptionalBlock::new(OptionalId::HM, HMAC_SHA256));
    header
}

impl Service {
    /// The block of an HMAC key that belongs to `row` (the row's id): it opens for no other.
    ///
    /// # Errors
    /// [`ServiceError::Unavailable`] without a vault; the vault's.
    pub(crate) async fn seal_hmac(&self, row: &str, key: &Secret) -> Result<String, ServiceError> {
        let (strongbox, mut rng) = (self.strongbox().await?, self.rng());
        let (row, key) = (row.to_owned(), Secret::copied_from(key.expose()));
        self.blocking(move || strongbox.seal(&mut *rng, &row, &header(), &key)).await
    }

    /// The HMAC key of `row` from its block.
    ///
    /// # Errors
    /// [`ServiceError::Internal`] for a damaged block, or one of another row or use; else as
    /// [`Self::seal_hmac`].
    pub(crate) async fn open_hmac(&self, row: &str, block: &str) -> Result<Secret, ServiceError> {
        let strongbox = self.strongbox().await?;
        let (row, block) = (row.to_owned(), block.to_owned());
        self.blocking(move || {
            let (found, key) = strongbox.open(&row, &block)?;
            let wanted = header();
            if (found.usage, found.algorithm, found.mode)
                != (wanted.usage, wanted.algorithm, wanted.mode)
            {
                let detail = format!("the key of {row}: it is not for HMAC");
                return Err(ServiceError::Internal { detail });
            }
            Ok(key)
        })
        .await
    }
}
