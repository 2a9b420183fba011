//! Which phone it is that comes: by its token, and by a proof of its key if it has one (D2, D5).

use std::time::Duration;

use countersign_store::{PhoneRecord, StoreError};

use super::phones::{PhoneActor, TOKEN_LEN, TOKEN_PREFIX};
use super::proof::{self, PhoneProof};
use crate::refusals::{Party, Refusal};
use crate::{Service, ServiceError};

/// How often it is noted that a phone has come.
const SEEN_EVERY: Duration = Duration::from_secs(60);
/// The audit's action for a token that is shown in the wrong way.
const AUTHORISE: &str = "phone.authorise";

impl Service {
    /// The phone whose token this is, if the token alone counts.
    ///
    /// # Errors
    /// [`ServiceError::Unauthenticated`] for a wrong token, for one of a revoked phone, and for one
    /// that counts beside a proof only.
    pub async fn authorise_phone(&self, token: &str) -> Result<PhoneActor, ServiceError> {
        let record = self.phone_of(token).await?;
        if record.phone.session_key.is_some() {
            return Err(self.refuse_proof(&record, "proof-missing").await);
        }
        self.note_seen(&record).await;
        Ok(PhoneActor { record })
    }

    /// The phone whose token this is, and whose key the proof proves. Each proof counts once, on
    /// whichever server.
    ///
    /// # Errors
    /// [`ServiceError::Unauthenticated`], whatever is wrong with token or proof; of a live token
    /// the audit has the check: `proof-unexpected` (the phone has no key), `proof-size`,
    /// `proof-form`, `proof-type`, `proof-algorithm`, `proof-key`, `proof-signature`, `proof-id`,
    /// `proof-method`, `proof-url`, `proof-token`, `proof-body`, `proof-old`, `proof-future`,
    /// `proof-replayed`.
    pub async fn authorise_phone_with(
        &self,
        token: &str,
        proof: &PhoneProof<'_>,
    ) -> Result<PhoneActor, ServiceError> {
        let record = self.phone_of(token).await?;
        let Some(key) = &record.phone.session_key else {
            return Err(self.refuse_proof(&record, "proof-unexpected").await);
        };
        let provider = &self.authority.provider;
        let whose = (record.phone.id.as_str(), token);
        let unused = match proof::verify(provider, proof, whose, key, self.now()) {
            Ok(unused) => unused,
            Err(check) => return Err(self.refuse_proof(&record, check).await),
        };
        let fresh = self
            .store
            .run_snapshot("use_phone_proof", move |tx| {
                Ok::<_, ServiceError>(tx.use_phone_proof(&unused.hash, unused.until)?)
            })
            .await?;
        if !fresh {
            return Err(self.refuse_proof(&record, "proof-replayed").await);
        }
        self.note_seen(&record).await;
        Ok(PhoneActor { record })
    }

    /// The phone whose token this is, with a key or without: for a stream that was begun with a
    /// proof and looks now and then whether its token is still live. It authorises nothing new.
    ///
    /// # Errors
    /// [`ServiceError::Unauthenticated`] for a wrong token and for one of a revoked phone.
    pub async fn authorise_phone_again(&self, token: &str) -> Result<PhoneActor, ServiceError> {
        Ok(PhoneActor { record: self.phone_of(token).await? })
    }

    /// One answer for all: what is wrong is in the audit. No incident: whoever has a stolen token
    /// is not told that it is one.
    async fn refuse_proof(&self, record: &PhoneRecord, check: &'static str) -> ServiceError {
        let id = record.phone.id.as_str();
        self.audit_refusal(Refusal {
            party: Party::Phone,
            actor: id,
            action: AUTHORISE,
            subject: id,
            check,
            reason: "the token came without the phone's proof".to_owned(),
            reader: Some(id),
        })
        .await;
        ServiceError::Unauthenticated
    }

    async fn phone_of(&self, token: &str) -> Result<PhoneRecord, ServiceError> {
        if token.len() != TOKEN_LEN || !token.starts_with(TOKEN_PREFIX) {
            return Err(ServiceError::Unauthenticated);
        }
        let hash = self.phone_token_hash(token);
        let found: Option<PhoneRecord> = self
            .store
            .read("authorise_phone", move |tx| tx.phone_of_token(&hash))
            .await
            .map_err(|error: StoreError| ServiceError::from(error))?;
        found.ok_or(ServiceError::Unauthenticated)
    }

    /// For people; what cannot be noted now is noted next time.
    async fn note_seen(&self, record: &PhoneRecord) {
        let now = self.now();
        if record.phone.seen_at.is_some_and(|seen| now.since(seen) < SEEN_EVERY) {
            return;
        }
        let id = record.phone.id.clone();
        let noted: Result<(), StoreError> =
            self.store.run_snapshot("note_phone", move |tx| tx.note_phone(&id, now)).await;
        if let Err(error) = noted {
            tracing::debug!(%error, "it could not be noted that a phone came");
        }
    }
}
