//! Making a member of the hierarchy: intent, key in the vault, numbered, signed, active. A crash
//! between any two leaves an intent that the next try finishes.

use std::time::Duration;

use countersign_store::{
    AuditEntry, AuthorityRole, AuthorityState, IdKind, KeyAuthority, StoreError,
};
use data_encoding::HEXLOWER;
use serde_json::json;
use tr34::{
    Certificate, IssueError, Issuer, Party, RSA_BITS, Role, Validity, parse_request, prepare_root,
    request,
};

use crate::approvals::Grant;
use crate::{Actor, Service, ServiceError, done};

const YEAR: Duration = Duration::from_secs(365 * 86_400);
const ROOT_VALIDITY: Duration = YEAR.saturating_mul(20);
const CA_VALIDITY: Duration = YEAR.saturating_mul(10);

/// The order in which a hierarchy is made: issuers first.
pub(crate) const ROLES: [AuthorityRole; 4] =
    [AuthorityRole::Root, AuthorityRole::CaKrd, AuthorityRole::CaKdh, AuthorityRole::Kdh];

/// Who certifies a role.
const fn parent(role: AuthorityRole) -> Option<AuthorityRole> {
    match role {
        AuthorityRole::Root => None,
        AuthorityRole::CaKrd | AuthorityRole::CaKdh => Some(AuthorityRole::Root),
        AuthorityRole::Kdh => Some(AuthorityRole::CaKdh),
    }
}

/// The role in the certificate; a root's has none.
const fn certified_role(role: AuthorityRole) -> Option<Role> {
    match role {
        AuthorityRole::Root => None,
        AuthorityRole::CaKrd => Some(Role::CaKrd),
        AuthorityRole::CaKdh => Some(Role::CaKdh),
        AuthorityRole::Kdh => Some(Role::Kdh),
    }
}

impl From<IssueError> for ServiceError {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::SigningFailed => Self::Unavailable { detail: error.to_string() },
            _ => Self::refused(error.check(), error.to_string()),
        }
    }
}

/// A certificate that this service made and stored itself.
pub(crate) fn stored_certificate(der: Option<&[u8]>) -> Result<Certificate, ServiceError> {
    let damaged = |detail: String| ServiceError::Internal { detail };
    let der = der.ok_or_else(|| damaged("an authority has no certificate".to_owned()))?;
    Certificate::parse(der).map_err(|error| damaged(format!("a stored certificate: {error}")))
}

pub(crate) fn check_bits(bits: u32) -> Result<(), ServiceError> {
    if RSA_BITS.contains(&bits) {
        return Ok(());
    }
    let detail = "an RSA key has 2048, 3072 or 4096 bits";
    Err(ServiceError::refused("key-size", detail))
}

impl Service {
    /// The newest authority of a role in this state.
    pub(crate) async fn authority_in(
        &self,
        role: AuthorityRole,
        state: AuthorityState,
    ) -> Result<Option<KeyAuthority>, ServiceError> {
        self.store.read("authority_in", move |tx| Ok(tx.authority_in(role, state)?)).await
    }

    pub(crate) async fn authority_by_id(&self, id: &str) -> Result<KeyAuthority, ServiceError> {
        let id = id.to_owned();
        let found = self
            .store
            .read("authority_by_id", move |tx| Ok::<_, ServiceError>(tx.authority_by_id(&id)?))
            .await?;
        found.ok_or(ServiceError::NotFound { what: "authority" })
    }

    /// Stores the intent to make the next generation of a role under the active issuer. With a
    /// grant, that is used up in the same transaction.
    ///
    /// # Errors
    /// `rki-not-initialised` if there is no issuer; `roll-under-way` if one is intended.
    pub(crate) async fn intend_authority(
        &self,
        actor: &Actor,
        role: AuthorityRole,
        bits: u32,
        grant: Option<Grant>,
    ) -> Result<KeyAuthority, ServiceError> {
        check_bits(bits)?;
        let now = self.now();
        let id = self.new_id(IdKind::KeyAuthority);
        let new = KeyAuthority {
            label: format!("{}.{id}", role.name()),
            role,
            generation: 0,
            state: AuthorityState::Intended,
            issuer_id: None,
            bits,
            serial: None,
            der: None,
            not_after: None,
            intended_at: now,
            issued_at: None,
            ended_at: None,
            end_reason: None,
            id,
        };
        let entry = done(now, actor, "rki.intend", &new.id);
        self.store
            .run_tx("intend_authority", move |tx| {
                if let Some(grant) = &grant {
                    grant.consume(tx, now)?;
                }
                if tx.authority_in(role, AuthorityState::Intended)?.is_some() {
                    let detail = "one of this role is being made";
                    return Err(ServiceError::refused("roll-under-way", detail));
                }
                let mut new = new.clone();
                if let Some(parent) = parent(role) {
                    let issuer = tx.authority_in(parent, AuthorityState::Active)?;
                    new.issuer_id = Some(issuer.ok_or_else(super::not_initialised)?.id);
                }
                new.generation = tx.intend_authority(&new)?;
                let detail = json!({ "role": role.name(), "generation": new.generation });
                tx.append_audit(&AuditEntry { detail: detail.to_string(), ..entry.clone() })?;
                Ok(new)
            })
            .await
    }

    /// Makes key and certificate of an intended authority and puts it into use. Another server may
    /// do the same at once: one of the two certificates counts.
    pub(crate) async fn finish_authority(
        &self,
        actor: &Actor,
        intended: &KeyAuthority,
    ) -> Result<KeyAuthority, ServiceError> {
        let key = self.rsa_key(&intended.label, Some(intended.bits)).await?;
        let issuer = match &intended.issuer_id {
            None => None,
            Some(id) => {
                let issuer = self.authority_by_id(id).await?;
                let certificate = stored_certificate(issuer.der.as_deref())?;
                Some((certificate, self.rsa_key(&issuer.label, None).await?))
            }
        };
        let (rsa, mut rng) = (self.rsa()?.clone(), self.rng());
        let (role, id, now) = (intended.role, intended.id.clone(), self.now());
        let kdh_validity = self.policy.rki.kdh_validity;
        let (signer, prepared) = self
            .blocking(move || {
                let validity = |term| Validity::from(now, term);
                let (Some((certificate, signer)), Some(certified)) = (issuer, certified_role(role))
                else {
                    let (name, own) = (format!("RKI root {id}"), key.public_key());
                    let validity = validity(ROOT_VALIDITY);
                    let prepared = prepare_root(&*rsa, &name, own, &mut *rng, validity)?;
                    return Ok((key.clone(), prepared));
                };
                let internal = |detail: String| ServiceError::Internal { detail };
                let party = Party::new(certified, &id).map_err(|e| internal(e.to_string()))?;
                let request = request(&*key, &party)
                    .and_then(|der| parse_request(&*rsa, &der))
                    .map_err(|error| internal(error.to_string()))?;
                let term = if certified == Role::Kdh { kdh_validity } else { CA_VALIDITY };
                let validity = validity(term).within(&certificate);
                let issuer = Issuer::new(certificate)?;
                let prepared = issuer.prepare(&*rsa, &request, certified, &mut *rng, validity)?;
                Ok((signer, prepared))
            })
            .await?;
        let serial = HEXLOWER.encode(prepared.identity().serial());
        let not_after = prepared.validity().not_after;
        self.note_serial(actor, &intended.id, &serial).await?;
        let rsa = self.rsa()?.clone();
        let der = self.blocking(move || Ok(prepared.sign(&*rsa, &*signer)?)).await?;
        self.activate(actor, &intended.id, serial, der, not_after).await
    }

    /// The intent of the certificate itself.
    async fn note_serial(&self, actor: &Actor, id: &str, serial: &str) -> Result<(), ServiceError> {
        let (id, serial) = (id.to_owned(), serial.to_owned());
        let detail = json!({ "authority": id }).to_string();
        let entry = AuditEntry { detail, ..done(self.now(), actor, "certificate.intend", &serial) };
        let noted = self
            .store
            .run_tx("intend_authority_serial", move |tx| {
                tx.intend_authority_serial(&id, &serial)?;
                tx.append_audit(&entry)?;
                Ok::<_, ServiceError>(())
            })
            .await;
        match noted {
            // Another server has finished it meanwhile; storing ours will find that too.
            Err(ServiceError::Refused { check: "authority-not-intended", .. }) => Ok(()),
            noted => noted,
        }
    }

    async fn activate(
        &self,
        actor: &Actor,
        id: &str,
        serial: String,
        der: Vec<u8>,
        not_after: countersign_crypto::UnixTime,
    ) -> Result<KeyAuthority, ServiceError> {
        let now = self.now();
        let entry = done(now, actor, "rki.make", id);
        let id = id.to_owned();
        self.store
            .run_tx("activate_authority", move |tx| {
                match tx.activate_authority(&id, &serial, &der, not_after, now) {
                    Ok(()) => {
                        tx.append_audit(&entry)?;
                    }
                    // Another server was faster: its certificate is the one.
                    Err(StoreError::Refused { check: "authority-not-intended" }) => {}
                    Err(error) => return Err(error.into()),
                }
                tx.authority_by_id(&id)?.ok_or(ServiceError::NotFound { what: "authority" })
            })
            .await
    }
}
