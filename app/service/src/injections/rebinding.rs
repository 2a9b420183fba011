//! Tokens that bind a terminal to another KDH (E2, E8), and how the server learns that one was
//! followed.

use std::sync::Arc;
use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_injection::message::{Fingerprint, ServerMessage};
use countersign_store::{TokenIntent, TokenKind};
use tr34::kdh::Authority;
use tr34::{Dialect, Kdh};

use super::tokens::{Request, binding, fingerprint, token_error};
use crate::{KnownDevice, OlderKdh, Rebind, Service, ServiceError};

/// Signing times in tokens are whole seconds.
const SECOND: Duration = Duration::from_secs(1);

impl Service {
    /// The terminal is bound to another KDH than the database says: it has followed a rebinding,
    /// and its word of it was lost.
    pub(super) async fn rebound_before(
        &self,
        terminal: &KnownDevice,
        due: &Option<Rebind>,
        claimed: Fingerprint,
    ) -> Result<Arc<OlderKdh>, ServiceError> {
        let other = || {
            let detail = "the terminal is bound to another KDH than this server says";
            ServiceError::refused("terminal-other-kdh", detail)
        };
        if let Some(rebind) = due {
            let new = self.kdh_by_id(&rebind.new).await?;
            if fingerprint(&**self.rsa()?, &new.kdh) == claimed {
                self.rebound(&terminal.id, rebind, Ok(())).await?;
                return Ok(new);
            }
        }
        // It may have followed a campaign that has ended since: only a visit would help it else.
        for offered in self.rebinds_offered(&terminal.id).await? {
            let new = self.kdh_by_id(&offered.new).await?;
            if fingerprint(&**self.rsa()?, &new.kdh) == claimed {
                self.rebound_late(&terminal.id, offered).await?;
                return Ok(new);
            }
        }
        Err(other())
    }

    /// The KDH of a campaign, which must be able to sign what comes after it.
    async fn new_kdh(&self, rebind: &Rebind) -> Result<(Arc<OlderKdh>, Kdh), ServiceError> {
        let (new, now) = (self.kdh_by_id(&rebind.new).await?, self.now());
        new.signing_key(now)?;
        let kdh = Kdh::verify(&**self.rsa()?, new.kdh.clone(), &new.ca_kdh, now)?;
        Ok((new, kdh))
    }

    /// `RBT_KDH`: another KDH, at the word of the one that the terminal is bound to.
    pub(super) async fn rebind_token(
        &self,
        terminal: &KnownDevice,
        request: &Request,
        rebind: &Rebind,
    ) -> Result<ServerMessage, ServiceError> {
        let (new, kdh) = self.new_kdh(rebind).await?;
        let other_ca = new.ca_kdh.raw() != request.kdh.ca_kdh.raw();
        let new_crl = other_ca.then_some(new.crl.as_slice());
        let prepared = self.sender(&request.kdh, |sender| {
            sender.rebind(request.krd.identity(), &request.nonce, &kdh, new_crl)
        })?;
        let key = request.kdh.signing_key(self.now())?;
        let intent = self.token_intent(terminal, request, TokenKind::Rebind);
        self.intend_token(terminal, intent).await?;
        let token = self.blocking(move || prepared.sign(&*key).map_err(token_error)).await?;
        Ok(ServerMessage::Rebind(binding(&token, &new.ca_kdh)?))
    }

    /// `RBT_CA`: another KDH, at the word of the Sub_CA_KRD that certified the terminal, because
    /// the KDH that it is bound to was revoked, has expired or has lost its key.
    pub(super) async fn rebind_token_by_ca(
        &self,
        terminal: &KnownDevice,
        request: &Request,
        rebind: &Rebind,
    ) -> Result<ServerMessage, ServiceError> {
        let (new, kdh) = self.new_kdh(rebind).await?;
        let key = self.ca_krd_key(&request.ca_krd_id).await?;
        let at = self.signing_time(terminal).await?;
        let authority = Authority {
            rsa: &**self.rsa()?,
            certificate: &request.ca_krd,
            dialect: Dialect::STRICT,
        };
        let (krd, old) = (request.krd.identity(), request.kdh.kdh.identity());
        let prepared = authority.rebind(krd, old, &kdh, Some(&new.crl), at).map_err(token_error)?;
        let intent = self.token_intent(terminal, request, TokenKind::RebindByCa);
        // Refused if another server has taken this time: the terminal's next try has a later one.
        self.intend_token(terminal, TokenIntent { at, ..intent }).await?;
        let token = self.blocking(move || prepared.sign(&*key).map_err(token_error)).await?;
        Ok(ServerMessage::RebindByCa(binding(&token, &new.ca_kdh)?))
    }

    /// The time that the next `RBT_CA` for a terminal bears: now, or the second after the last.
    async fn signing_time(&self, terminal: &KnownDevice) -> Result<UnixTime, ServiceError> {
        let id = terminal.id.clone();
        let last = self
            .store
            .read("signing_time", move |tx| Ok::<_, ServiceError>(tx.signing_time(&id)?))
            .await?;
        let now = UnixTime::from_secs(self.now().as_secs());
        Ok(last.map_or(now, |last| now.max(last.plus(SECOND))))
    }
}
