//! The server's encryption certificate and its key: what others seal secrets to.

use countersign_channel::EncryptionCredential;
use countersign_crypto::{CryptoRng, Provider, Secret, Suite, UnixTime};
use countersign_pki::{PkiError, certified_point, identity};

use super::files::replace;
use super::{DataDir, DataError, certificate_path, key_path, to_pem};
use crate::ca::Maker;
use crate::seal::Sealer;

/// The server's encryption certificate in `ca/`, and its key.
pub(super) const ENCRYPTION: &str = "server-encryption";

impl DataDir {
    /// The certificate and its key.
    pub(super) fn server_encryption(
        &self,
        sealer: &Sealer,
        provider: &Provider,
    ) -> Result<EncryptionCredential, DataError> {
        let certificate = self.certificate(&certificate_path(ENCRYPTION))?;
        let secret = self.secret(sealer, ENCRYPTION)?;
        let key = provider
            .sealing
            .load_pkcs8(&secret)
            .map_err(|error| self.damaged_key(ENCRYPTION, error.to_string()))?;
        if certified_point(provider, &certificate)? != key.public_key() {
            return Err(self.foreign_key(ENCRYPTION));
        }
        Ok(EncryptionCredential { key, certificate })
    }

    /// Whether the certificate is there; with `maker`, certifies a key that lost its own, under
    /// the issuer of the server's own certificate. Makes no key: see
    /// [`DataDir::make_encryption_key`].
    ///
    /// # Errors
    /// [`DataError::Outdated`] where it can be made and was not; [`DataError::Damaged`] where key
    /// and certificate are lost; the system's.
    pub(super) fn complete_encryption(
        &self,
        sealer: &Sealer,
        server: &[u8],
        maker: Option<Maker<'_>>,
    ) -> Result<(), DataError> {
        let outdated = match self.certificate_pem(&certificate_path(ENCRYPTION)) {
            Err(outdated @ DataError::Outdated(_)) => outdated,
            read => return read.map(|_pem| ()),
        };
        match maker {
            Some(maker) if self.has_encryption_key() => {
                let secret = self.secret(sealer, ENCRYPTION)?;
                self.certify_encryption(sealer, server, maker, &secret)
            }
            _ => Err(outdated),
        }
    }

    /// Makes key and certificate in a directory of the suite p256 that is from before there were
    /// such. Several servers have one key: call it only where the database knows of none
    /// ([`ENCRYPTION_KEY_NAME`](countersign_service::ENCRYPTION_KEY_NAME)). Where there is one of
    /// the two, does nothing.
    ///
    /// # Errors
    /// [`SealError::WrongPassphrase`](crate::SealError::WrongPassphrase);
    /// [`DataError::Damaged`]; the system's.
    pub(crate) fn make_encryption_key(
        &self,
        passphrase: &Secret,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), DataError> {
        match self.certificate_pem(&certificate_path(ENCRYPTION)) {
            Err(DataError::Outdated(_)) if !self.has_encryption_key() => {}
            Err(DataError::Outdated(_)) => return Ok(()),
            read => return read.map(|_pem| ()),
        }
        let (provider, sealer) = (&self.provider(), self.sealer(passphrase)?);
        let server = self.certificate("ca/server.pem")?;
        // Before anything is written under this passphrase.
        self.certified_key(&sealer, "server", &server, provider)?;
        let made = provider.sealing.generate(rng).map_err(|_| PkiError::SigningFailed)?;
        let sealed = sealer.seal(ENCRYPTION, &made.pkcs8, rng)?;
        // The certificate last: after a crash in between the next start certifies this key.
        replace(&self.path().join(key_path(ENCRYPTION)), &sealed)?;
        self.certify_encryption(&sealer, &server, Maker { provider, rng, now }, &made.pkcs8)
    }

    fn certify_encryption(
        &self,
        sealer: &Sealer,
        server: &[u8],
        mut maker: Maker<'_>,
        key: &Secret,
    ) -> Result<(), DataError> {
        let issuer = self.certificate("ca/servers.pem")?;
        let issuer_key = self.certified_key(sealer, "servers", &issuer, maker.provider)?;
        let id = identity(server)?;
        let certificate = maker.certify_encryption(&issuer, &*issuer_key, id.id(), key)?;
        let path = self.path().join(certificate_path(ENCRYPTION));
        replace(&path, to_pem(&certificate).as_bytes())
    }

    /// What is to be said where the certificate is not there.
    pub(super) fn lacks_encryption(&self) -> DataError {
        let path = self.path().join(certificate_path(ENCRYPTION));
        // Only directories of this suite were ever made without.
        let older = self.suite() == Suite::X25519_P256_AES128GCM_SHA256;
        if older || self.has_encryption_key() {
            return DataError::Outdated(path);
        }
        let detail = format!("lost, and {} with it: restore both", key_path(ENCRYPTION));
        DataError::Damaged { path, detail }
    }

    fn has_encryption_key(&self) -> bool {
        self.path().join(key_path(ENCRYPTION)).exists()
    }
}
