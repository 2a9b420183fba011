use std::sync::Arc;

use countersign_channel::EncryptionCredential;
use countersign_crypto::{Provider, SecureElement, UnixTime};
use countersign_pki::{Issuer, PkiError, Role, TrustStore};

use crate::{Service, ServiceError};

/// The name of the servers' encryption key in the database.
pub const ENCRYPTION_KEY_NAME: &str = "encryption";
/// What is hashed before the public key.
const ENCRYPTION_KEY_LABEL: &[u8] = b"countersign server encryption key v1\0";

/// The CA's working keys and certificates, and the audit key. The root's private key is not here:
/// it signed the intermediates at `init` and is not needed to serve.
#[derive(Clone)]
pub struct Authority {
    /// The suite's algorithms.
    pub provider: Provider,
    /// The root's certificate.
    pub root: Vec<u8>,
    /// Issues devices' certificates.
    pub device_issuer: Vec<u8>,
    /// Its key.
    pub device_issuer_key: Arc<dyn SecureElement>,
    /// Issued this server's certificate.
    pub server_issuer: Vec<u8>,
    /// This server's certificate.
    pub server: Vec<u8>,
    /// Its key.
    pub server_key: Arc<dyn SecureElement>,
    /// The server's second certificate and its key ([`Provider::sealing`]): what is sealed to it
    /// only this server opens. Where the suite's handshakes encrypt, they use it too.
    pub server_encryption: EncryptionCredential,
    /// The id in the server's certificate.
    pub server_id: String,
    /// Signs audit checkpoints.
    pub audit_key: Arc<dyn SecureElement>,
}

impl Authority {
    /// Prepares device certificates.
    ///
    /// # Errors
    /// [`PkiError::Malformed`] if the issuing certificate is damaged.
    pub fn issuer(&self) -> Result<Issuer, PkiError> {
        Issuer::from_certificate(&self.provider, &self.device_issuer)
    }

    /// Whom this server trusts to certify the devices that come to its gateway.
    ///
    /// # Errors
    /// What is wrong with root or intermediate at `now`.
    pub fn trust_in_devices(&self, now: UnixTime) -> Result<TrustStore, PkiError> {
        let mut trust = TrustStore::new(self.provider.clone());
        for role in [Role::Reader, Role::Terminal, Role::Sleeve, Role::Manager] {
            trust.trust(&self.root, &self.device_issuer, role, now)?;
        }
        Ok(trust)
    }

    /// Whom this server trusts to certify the devices that confirm payments (D4). They do not come
    /// to the gateway: what they sign comes over a phone.
    ///
    /// # Errors
    /// What is wrong with root or intermediate at `now`.
    pub fn trust_in_security_devices(&self, now: UnixTime) -> Result<TrustStore, PkiError> {
        let mut trust = TrustStore::new(self.provider.clone());
        trust.trust(&self.root, &self.device_issuer, Role::SecurityDevice, now)?;
        Ok(trust)
    }
}

impl Service {
    /// Whether this server's encryption key is the one that all servers of its database have in
    /// common: what a card seals for one of them each of them must open. The first server's
    /// becomes that. The database keeps the public key's hash.
    ///
    /// # Errors
    /// The database's.
    pub async fn has_common_encryption_key(&self) -> Result<bool, ServiceError> {
        let key = self.authority().server_encryption.key.public_key();
        let hash = self.authority().provider.hash.hash(&[ENCRYPTION_KEY_LABEL, key]);
        let now = self.now();
        let kept = self
            .store
            .run_tx("keep_server_key", move |tx| {
                Ok::<_, ServiceError>(tx.keep_server_key(ENCRYPTION_KEY_NAME, &hash, now)?)
            })
            .await?;
        Ok(kept == hash)
    }
}
