//! The RSA hierarchy in use: what tokens are signed and terminals certified with (E2, E5).

use std::sync::{Arc, PoisonError};

use countersign_crypto::UnixTime;
use countersign_store::{AuthorityRole, AuthorityState, HierarchyPulse, KeyAuthority, StoredCrl};
use tr34::{Certificate, CertificateError, IssuingCa, Kdh, Role, RsaKey};

use super::crl::Renew;
use super::making::stored_certificate;
use super::not_initialised;
use crate::{Service, ServiceError};

/// The hierarchy in use, verified: the active root, Sub_CA_KRD and KDH, and the CA_KDH that
/// certified that KDH.
pub struct Hierarchy {
    /// The root's certificate.
    pub root: Certificate,
    /// Certifies terminals.
    pub ca_krd: Certificate,
    /// Its id, `rka_…`.
    pub ca_krd_id: String,
    /// Its key.
    pub ca_krd_key: Arc<dyn RsaKey>,
    /// Certified the KDH.
    pub ca_kdh: Certificate,
    /// Its id, `rka_…`.
    pub ca_kdh_id: String,
    /// Signs key tokens.
    pub kdh: Certificate,
    /// Its id, `rka_…`.
    pub kdh_id: String,
    /// Its key.
    pub kdh_key: Arc<dyn RsaKey>,
    /// The CRL of the CA_KDH, DER: valid when this was asked for.
    pub crl: Vec<u8>,
    /// Until when the CRL holds.
    pub crl_next_update: UnixTime,
    pulse: HierarchyPulse,
}

impl Hierarchy {
    fn is_current(&self, pulse: &HierarchyPulse, now: UnixTime) -> bool {
        self.pulse == *pulse && now < self.crl_next_update
    }
}

/// A KDH by its id, in use or not, with what goes with it: for the terminals that are bound to it.
pub struct OlderKdh {
    /// `rka_…`.
    pub id: String,
    /// Where it stands; terminals take nothing from one that is revoked.
    pub state: AuthorityState,
    /// Its certificate.
    pub kdh: Certificate,
    /// Its key, if the vault still has it.
    pub key: Option<Arc<dyn RsaKey>>,
    /// The CA_KDH that certified it.
    pub ca_kdh: Certificate,
    /// The CRL of that CA_KDH, DER, valid now.
    pub crl: Vec<u8>,
}

impl OlderKdh {
    /// Its key, where terminals take what that signs.
    ///
    /// # Errors
    /// `kdh-revoked`, `kdh-expired`, `kdh-key-lost`: terminals that are bound to it wait for a
    /// campaign, in which Sub_CA_KRD binds them to another.
    pub fn signing_key(&self, now: UnixTime) -> Result<Arc<dyn RsaKey>, ServiceError> {
        let silent = |check, what: &str| {
            let detail = format!(
                "the KDH {} {what}: bind its terminals to another with `countersign rki rebind`",
                self.id
            );
            ServiceError::refused(check, detail)
        };
        if self.state == AuthorityState::Revoked {
            return Err(silent("kdh-revoked", "is revoked"));
        }
        if self.kdh.not_after() <= now {
            return Err(silent("kdh-expired", "has expired"));
        }
        self.key.clone().ok_or_else(|| silent("kdh-key-lost", "has lost its key"))
    }
}

impl From<CertificateError> for ServiceError {
    fn from(error: CertificateError) -> Self {
        Self::refused(error.check(), error.to_string())
    }
}

impl Service {
    /// The hierarchy in use. The store is asked each time, in one round trip, so that a roll-over
    /// or revocation on another server counts here at once; nothing else is done again.
    ///
    /// # Errors
    /// `rki-not-initialised`; `rki-no-kdh` after the KDH was revoked and until there is another;
    /// what is wrong with a certificate; the vault's.
    pub async fn hierarchy(&self) -> Result<Arc<Hierarchy>, ServiceError> {
        let now = self.now();
        let pulse = self
            .store
            .read("hierarchy_pulse", |tx| Ok::<_, ServiceError>(tx.hierarchy_pulse()?))
            .await?;
        let cached = self.rki.hierarchy.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(cached) = cached
            && cached.is_current(&pulse, now)
        {
            return Ok(cached);
        }
        let loaded = Arc::new(self.load_hierarchy(pulse).await?);
        let kept = loaded.clone();
        *self.rki.hierarchy.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        Ok(loaded)
    }

    async fn load_hierarchy(&self, pulse: HierarchyPulse) -> Result<Hierarchy, ServiceError> {
        let (Some(root), Some(ca_krd_id)) = (pulse.root.clone(), pulse.ca_krd.clone()) else {
            return Err(not_initialised());
        };
        let (Some(kdh_id), Some(ca_kdh_id)) = (pulse.kdh.clone(), pulse.ca_kdh.clone()) else {
            return Err(self.no_kdh().await?);
        };
        let root = self.authority_by_id(&root).await?;
        let ca_krd = self.authority_by_id(&ca_krd_id).await?;
        let ca_kdh = self.authority_by_id(&ca_kdh_id).await?;
        let kdh = self.authority_by_id(&kdh_id).await?;
        let crl = self.fresh_crl(&ca_kdh_id, Renew::IfDue).await?;
        let ca_krd_key = self.rsa_key(&ca_krd.label, None).await?;
        let kdh_key = self.rsa_key(&kdh.label, None).await?;
        let root = stored_certificate(root.der.as_deref())?;
        let ca_krd = stored_certificate(ca_krd.der.as_deref())?;
        let ca_kdh = stored_certificate(ca_kdh.der.as_deref())?;
        let kdh = stored_certificate(kdh.der.as_deref())?;
        let (rsa, now) = (self.rsa()?.clone(), self.now());
        let verified = (root.clone(), ca_krd.clone(), ca_kdh.clone(), kdh.clone());
        let keys = (ca_krd_key.clone(), kdh_key.clone());
        self.blocking(move || {
            let (root, ca_krd, ca_kdh, kdh) = verified;
            check_key(&ca_krd, &*keys.0)?;
            check_key(&kdh, &*keys.1)?;
            IssuingCa::verify(&*rsa, ca_krd, &root, Role::CaKrd, now)?;
            let ca_kdh = IssuingCa::verify(&*rsa, ca_kdh, &root, Role::CaKdh, now)?;
            Kdh::verify(&*rsa, kdh, ca_kdh.certificate(), now)?;
            Ok(())
        })
        .await?;
        let StoredCrl { number, next_update, der, .. } = crl;
        Ok(Hierarchy {
            root,
            ca_krd,
            ca_krd_id,
            ca_krd_key,
            ca_kdh,
            ca_kdh_id,
            kdh,
            kdh_id,
            kdh_key,
            crl: der.unwrap_or_default(),
            crl_next_update: next_update,
            pulse: HierarchyPulse { crl: number, ..pulse },
        })
    }

    /// Why there is no KDH: the hierarchy is half made, or the KDH was revoked.
    async fn no_kdh(&self) -> Result<ServiceError, ServiceError> {
        let revoked = self.authority_in(AuthorityRole::Kdh, AuthorityState::Revoked).await?;
        Ok(match revoked {
            None => not_initialised(),
            Some(_) => {
                let detail = "the KDH is revoked: make another with `countersign rki roll kdh`";
                ServiceError::refused("rki-no-kdh", detail)
            }
        })
    }

    /// A KDH of any generation.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`]; the vault's. A vault that does not have its key is none.
    pub async fn kdh_by_id(&self, id: &str) -> Result<Arc<OlderKdh>, ServiceError> {
        let kdh = self.authority_by_id(id).await?;
        let missing = ServiceError::NotFound { what: "KDH" };
        let KeyAuthority { role: AuthorityRole::Kdh, der: Some(der), issuer_id, .. } = &kdh else {
            return Err(missing);
        };
        let issuer = issuer_id.as_deref().ok_or(missing)?;
        let ca_kdh = self.authority_by_id(issuer).await?;
        let crl = self.fresh_crl(issuer, Renew::IfDue).await?;
        let certificate = stored_certificate(Some(der))?;
        let key = match self.rsa_key(&kdh.label, None).await {
            Ok(key) => Some(key),
            Err(ServiceError::Refused { check: "label-unknown", .. }) => None,
            Err(error) => return Err(error),
        };
        if let Some(key) = &key {
            check_key(&certificate, &**key)?;
        }
        Ok(Arc::new(OlderKdh {
            id: kdh.id,
            state: kdh.state,
            kdh: certificate,
            key,
            ca_kdh: stored_certificate(ca_kdh.der.as_deref())?,
            crl: crl.der.unwrap_or_default(),
        }))
    }

    /// The Sub_CA_KRD that certified a terminal, by id, verified under the root in use.
    pub(crate) async fn ca_krd_by_id(&self, id: &str) -> Result<Certificate, ServiceError> {
        let ca = self.authority_by_id(id).await?;
        if ca.role != AuthorityRole::CaKrd
            || !matches!(ca.state, AuthorityState::Active | AuthorityState::Retiring)
        {
            let detail = "the Sub_CA_KRD of this certificate is not in use any more";
            return Err(ServiceError::refused("ca-krd-retired", detail));
        }
        stored_certificate(ca.der.as_deref())
    }

    /// The key of such a Sub_CA_KRD.
    pub(crate) async fn ca_krd_key(&self, id: &str) -> Result<Arc<dyn RsaKey>, ServiceError> {
        let ca = self.authority_by_id(id).await?;
        self.rsa_key(&ca.label, None).await
    }
}

/// What was stored is the certificate of what the vault holds.
fn check_key(certificate: &Certificate, key: &dyn RsaKey) -> Result<(), ServiceError> {
    if certificate.public_key() == key.public_key() {
        return Ok(());
    }
    let detail = "a certificate of the hierarchy is not that of the vault's key".to_owned();
    Err(ServiceError::Internal { detail })
}
