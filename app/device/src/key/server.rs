//! The server as a security device knows it: its certificates, pinned at enrolment, under which
//! requests that come without a connection are verified.

use countersign_crypto::{Provider, UnixTime};
use countersign_pki::{Identity, Role, TrustStore};
use pem::Pem;
use serde::Deserialize;

use super::{KeyDir, KeyError};
use crate::Api;

const ROOT: &str = "root.pem";
const ISSUER: &str = "server-issuer.pem";
const CERTIFICATE: &str = "server.pem";

/// The server's certificates as its API gives them, PEM.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServerChain {
    pub(crate) root: String,
    pub(crate) server_issuer: String,
    /// Servers before there were offline requests do not give it.
    #[serde(default)]
    pub(crate) server_certificate: Option<String>,
    /// Servers before there were signing cards do not give it.
    #[serde(default)]
    pub(crate) server_encryption_certificate: Option<String>,
}

/// The certificate in a PEM text that the server sent.
pub(crate) fn certificate(text: &str) -> Result<Vec<u8>, KeyError> {
    let parsed = pem::parse(text).ok().filter(|pem| pem.tag() == "CERTIFICATE");
    parsed.map(Pem::into_contents).ok_or(KeyError::Foreign)
}

/// Whom `root` trusts to certify servers (DER).
pub(crate) fn servers_under(
    provider: Provider,
    [root, issuer]: [&[u8]; 2],
    now: UnixTime,
) -> Result<TrustStore, KeyError> {
    let mut trust = TrustStore::new(provider);
    trust.trust(root, issuer, Role::Server, now).map_err(KeyError::Pki)?;
    Ok(trust)
}

/// Whether a certificate is of the server `id`.
pub(crate) fn check_server(identity: &Identity, id: &str) -> Result<(), KeyError> {
    let expected = Identity::new(Role::Server, id).map_err(KeyError::Pki)?;
    if *identity == expected { Ok(()) } else { Err(KeyError::Foreign) }
}

/// Verifies a server's certificates (DER): that they are of the server `id`.
fn verified(
    provider: Provider,
    [root, issuer, leaf]: [&[u8]; 3],
    id: &str,
    now: UnixTime,
) -> Result<(), KeyError> {
    let trust = servers_under(provider, [root, issuer], now)?;
    let leaf = trust.verify(leaf, Role::Server, now, None).map_err(KeyError::Pki)?;
    check_server(leaf.identity(), id)
}

impl KeyDir {
    /// Pins the certificates that came with an enrolment at the server `id`.
    pub(super) fn pin_server(
        &self,
        chain: &ServerChain,
        id: &str,
        now: UnixTime,
    ) -> Result<(), KeyError> {
        let root = certificate(&chain.root)?;
        let issuer = certificate(&chain.server_issuer)?;
        if let Some(text) = &chain.server_certificate {
            let leaf = certificate(text)?;
            verified(self.provider()?, [&root, &issuer, &leaf], id, now)?;
            self.files.write(CERTIFICATE, text.as_bytes())?;
        }
        self.files.write(ROOT, chain.root.as_bytes())?;
        self.files.write(ISSUER, chain.server_issuer.as_bytes())
    }

    /// Takes the server's present certificate, if the root that was pinned vouches for it. Over a
    /// client with an operator's token. Blocking.
    ///
    /// # Errors
    /// [`KeyError::NotEnrolled`], [`KeyError::ServerUnpinned`]; [`KeyError::Api`];
    /// [`KeyError::Pki`] or [`KeyError::Foreign`] for a certificate of someone else's.
    pub fn refresh(&self, api: &Api, now: UnixTime) -> Result<(), KeyError> {
        if self.settings.server_id.is_empty() {
            return Err(KeyError::NotEnrolled(self.path()));
        }
        if !self.files.has(ROOT) {
            return Err(KeyError::ServerUnpinned);
        }
        let chain: ServerChain = api.get("/v1/devices/terms")?;
        let (root, issuer) = (self.files.pem(ROOT)?, certificate(&chain.server_issuer)?);
        let text = chain.server_certificate.as_ref().ok_or(KeyError::ServerUnpinned)?;
        let leaf = certificate(text)?;
        let id = &self.settings.server_id;
        verified(self.provider()?, [&root, &issuer, &leaf], id, now)?;
        // The issuer first: with the old leaf it says that it does not fit, and can be repeated.
        self.files.write(ISSUER, chain.server_issuer.as_bytes())?;
        self.files.write(CERTIFICATE, text.as_bytes())
    }

    /// The server's certificate (DER), verified anew from the root that was pinned.
    pub(super) fn server(&self, now: UnixTime) -> Result<Vec<u8>, KeyError> {
        if !self.files.has(ROOT) || !self.files.has(ISSUER) || !self.files.has(CERTIFICATE) {
            return Err(KeyError::ServerUnpinned);
        }
        let [root, issuer, leaf] =
            [self.files.pem(ROOT)?, self.files.pem(ISSUER)?, self.files.pem(CERTIFICATE)?];
        let id = &self.settings.server_id;
        verified(self.provider()?, [&root, &issuer, &leaf], id, now)?;
        Ok(leaf)
    }
}
