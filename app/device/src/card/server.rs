//! The server as a signing card knows it: the key that joint passwords are encrypted to, under the
//! root that was pinned at enrolment (B3, B4).

use countersign_crypto::{Provider, UnixTime};
use countersign_pki::Role;

use super::CardDir;
use crate::key::files::Files;
use crate::key::server::{ServerChain, certificate, check_server, servers_under};
use crate::{Api, KeyError};

const ROOT: &str = "root.pem";
const ISSUER: &str = "server-issuer.pem";
const ENCRYPTION: &str = "server-encryption.pem";

/// The key in the encryption certificate of the server `id`, which the root vouches for (DER).
fn verified_point(
    provider: Provider,
    [root, issuer, leaf]: [&[u8]; 3],
    id: &str,
    now: UnixTime,
) -> Result<Vec<u8>, KeyError> {
    let trust = servers_under(provider, [root, issuer], now)?;
    let leaf = trust.verify_encryption(leaf, Role::Server, now, None).map_err(KeyError::Pki)?;
    check_server(leaf.identity(), id)?;
    Ok(leaf.point().to_vec())
}

/// Pins what came with an enrolment at the server `id` (PEM), if it fits together.
pub(super) fn pin(
    files: &Files,
    provider: Provider,
    [root, issuer, encryption]: [&str; 3],
    id: &str,
    now: UnixTime,
) -> Result<(), KeyError> {
    let ders = [certificate(root)?, certificate(issuer)?, certificate(encryption)?];
    verified_point(provider, ders.each_ref().map(Vec::as_slice), id, now)?;
    files.write(ROOT, root.as_bytes())?;
    files.write(ISSUER, issuer.as_bytes())?;
    files.write(ENCRYPTION, encryption.as_bytes())
}

impl CardDir {
    /// Takes the server's present encryption certificate, if the root that was pinned vouches for
    /// it. Over a client with an operator's token. Blocking.
    ///
    /// # Errors
    /// [`KeyError::CardNotEnrolled`]; [`KeyError::Api`]; [`KeyError::NoServerEncryption`];
    /// [`KeyError::Pki`] or [`KeyError::Foreign`] for a certificate of someone else's.
    pub fn refresh(&self, api: &Api, now: UnixTime) -> Result<(), KeyError> {
        if !self.is_enrolled() {
            return Err(KeyError::CardNotEnrolled(self.path()));
        }
        let chain: ServerChain = api.get("/v1/devices/terms")?;
        let text = chain.server_encryption_certificate.ok_or(KeyError::NoServerEncryption)?;
        let root = self.files.pem(ROOT)?;
        let (issuer, leaf) = (certificate(&chain.server_issuer)?, certificate(&text)?);
        let id = &self.settings.server_id;
        verified_point(self.provider()?, [&root, &issuer, &leaf], id, now)?;
        // The issuer first: with the old leaf it says that it does not fit, and can be repeated.
        self.files.write(ISSUER, chain.server_issuer.as_bytes())?;
        self.files.write(ENCRYPTION, text.as_bytes())
    }

    /// The server's key for encryption, verified anew from the root that was pinned.
    pub(super) fn server_point(&self, now: UnixTime) -> Result<Vec<u8>, KeyError> {
        let [root, issuer, leaf] =
            [self.files.pem(ROOT)?, self.files.pem(ISSUER)?, self.files.pem(ENCRYPTION)?];
        verified_point(self.provider()?, [&root, &issuer, &leaf], &self.settings.server_id, now)
    }
}
