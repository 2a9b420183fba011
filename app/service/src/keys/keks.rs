//! Key-encrypting keys: asked for under the gate, opened, retired. `components` enters them.

use std::collections::HashSet;
use std::sync::Arc;

use countersign_crypto::Secret;
use countersign_hsm::{Description, HsmError};
use countersign_store::{
    AuditEntry, IdKind, Kek, KekComponent, KekState, MAX_COMPONENTS, Page, Tx,
};
use serde_json::json;
use tr31::{BlockCipher, CmacKey, Header, Kbpk, Version};

use super::{check_name, parse_kcv, refuse_taken};
use crate::{Actor, Gated, Scope, Service, ServiceError, done};

/// What the labels of key-encrypting keys in a vault begin with: an id, a dot and a random part.
const LABEL_PREFIX: &str = "kek_";

/// A key-encrypting key that is to be entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKek {
    /// Unique name.
    pub name: String,
    /// `A` or `T`.
    pub algorithm: String,
    /// In bytes.
    pub length: u32,
    /// How many components make it: 2 or 3.
    pub components: u32,
    /// The check value that the whole key must have, in hex, if its sender told it.
    pub kcv: Option<String>,
}

/// A key-encrypting key, and who has entered which component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KekRecord {
    /// The key.
    pub kek: Kek,
    /// Its components so far, by number.
    pub components: Vec<KekComponent>,
}

/// A key-encrypting key, ready to wrap and unwrap.
pub(super) enum OpenKek {
    Clear(Secret),
    Held(Arc<dyn CmacKey>),
}

impl OpenKek {
    pub(super) fn kbpk(&self) -> Kbpk<'_> {
        match self {
            Self::Clear(key) => Kbpk::Clear(key),
            Self::Held(key) => Kbpk::Held(&**key),
        }
    }
}

/// How the key is kept in this server's vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In a token, where it only computes CMACs.
    Token,
    /// As a block under the storage key.
    Block,
}

/// One byte: the algorithm of a key-encrypting key.
pub(super) fn algorithm_of(kek: &str) -> Result<u8, ServiceError> {
    match kek {
        "A" => Ok(b'A'),
        "T" => Ok(b'T'),
        _ => {
            let detail = "a key-encrypting key is an AES (A) or TDES (T) key";
            Err(ServiceError::refused("kek-algorithm", detail))
        }
    }
}

pub(super) fn cipher_of(algorithm: u8) -> BlockCipher {
    if algorithm == b'A' { BlockCipher::Aes } else { BlockCipher::Tdes }
}

/// The header of a key-encrypting key, or of its component, in the database: it protects key
/// blocks, and never leaves.
pub(super) fn header(algorithm: u8) -> Header {
    Header::new(Version::D, *b"K1", algorithm, b'B', b'N')
}

impl Service {
    /// Asks for a key-encrypting key; when others have agreed it awaits its components.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; `name-format`, `kek-name-taken`, `kek-algorithm`, `kek-length`,
    /// `kek-components`, `kek-kcv`; `mechanism-unsupported` for a TDES key where the vault is a
    /// token; the gate's.
    pub async fn begin_kek(
        &self,
        actor: &Actor,
        new: &NewKek,
        approval: Option<&str>,
    ) -> Result<Gated<KekRecord>, ServiceError> {
        let begun = self.begin_one_kek(actor, new, approval).await;
        if let Err(error) = &begun {
            self.refused_operator(actor, "kek.begin", "kek", error).await;
        }
        begun
    }

    async fn begin_one_kek(
        &self,
        actor: &Actor,
        new: &NewKek,
        approval: Option<&str>,
    ) -> Result<Gated<KekRecord>, ServiceError> {
        actor.require(Scope::KeysManage)?;
        check_name(&new.name)?;
        let algorithm = algorithm_of(&new.algorithm)?;
        if !matches!((algorithm, new.length), (_, 16 | 24) | (b'A', 32)) {
            let detail = "an AES key has 16, 24 or 32 bytes, a TDES key 16 or 24";
            return Err(ServiceError::refused("kek-length", detail));
        }
        if !(2..=MAX_COMPONENTS).contains(&new.components) {
            let detail = format!("a key has 2 to {MAX_COMPONENTS} components");
            return Err(ServiceError::refused("kek-components", detail));
        }
        let kcv = new.kcv.as_deref().map(|kcv| parse_kcv("kek-kcv", algorithm, kcv)).transpose()?;
        let kcv = kcv.map(|kcv| kcv.to_string());
        if approval.is_none() {
            let name = new.name.clone();
            let taken = self.store.read("kek_by_name", move |tx| tx.kek_by_name(&name)).await?;
            if taken.is_some() {
                let detail = "a key-encrypting key with this name exists";
                return Err(ServiceError::refused("kek-name-taken", detail));
            }
        }
        self.strongbox().await?; // nobody is asked to approve what this server cannot do
        self.place_of(algorithm).await?;
        let subject = json!({
            "name": new.name,
            "algorithm": new.algorithm,
            "length": new.length,
            "components": new.components,
            "kcv": kcv,
        });
        let grant = match self.gate(actor, "kek.begin", &subject, approval).await? {
            Gated::Done(grant) => grant,
            Gated::Pending(approval) => return Ok(Gated::Pending(approval)),
        };
        let now = self.now();
        let kek = Kek {
            id: self.new_id(IdKind::Kek),
            name: new.name.clone(),
            state: KekState::Collecting,
            algorithm: new.algorithm.clone(),
            length: new.length,
            components: new.components,
            expected_kcv: kcv,
            kcv: None,
            block: None,
            label: None,
            created_by: actor.id().to_owned(),
            created_at: now,
            activated_at: None,
            retired_at: None,
        };
        let detail = json!({ "name": kek.name, "components": kek.components }).to_string();
        let entry = AuditEntry { detail, ..done(now, actor, "kek.begin", &kek.id) };
        let record = self
            .store
            .run_tx("begin_kek", move |tx| {
                grant.consume(tx, now)?;
                tx.insert_kek(&kek).map_err(refuse_taken)?;
                tx.append_audit(&entry)?;
                record(tx, &kek.id)
            })
            .await?;
        Ok(Gated::Done(record))
    }

    /// Where this server's vault would hold such a key.
    pub(super) async fn place_of(&self, algorithm: u8) -> Result<Place, ServiceError> {
        match (self.in_vault(|vault| vault.describe()).await?, algorithm) {
            (Description::File, _) => Ok(Place::Block),
            (_, b'A') => Ok(Place::Token),
            _ => {
                let detail = "the token that is this server's vault holds no TDES key: use an AES \
                              key-encrypting key";
                Err(ServiceError::refused("mechanism-unsupported", detail))
            }
        }
    }

    /// Removes a key from the vault that no row names.
    pub(super) async fn forget(&self, label: Option<String>) {
        let Some(label) = label else { return };
        if let Err(error) = self.in_vault(move |vault| vault.cmac_delete(&label)).await {
            tracing::warn!(%error, "an unused key stays in the vault until the next sweep");
        }
    }

    /// Key-encrypting keys, oldest first.
    ///
    /// # Errors
    /// `page-limit`, `page-cursor`.
    pub async fn keks(
        &self,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<KekRecord>, ServiceError> {
        self.store
            .read("keks_page", move |tx| {
                let page = tx.keks_page(cursor.as_deref(), limit)?;
                let mut items = Vec::with_capacity(page.items.len());
                for kek in page.items {
                    items.push(KekRecord { components: tx.kek_components(&kek.id)?, kek });
                }
                Ok::<_, ServiceError>(Page { items, next: page.next })
            })
            .await
    }

    /// One key-encrypting key.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub async fn kek(&self, id: &str) -> Result<KekRecord, ServiceError> {
        let id = id.to_owned();
        self.store.read("kek", move |tx| record(tx, &id)).await
    }

    /// Erases a key-encrypting key, or gives up one whose components are still awaited. Keys that
    /// came under it stay.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`]; `kek-retired`; the gate's.
    pub async fn retire_kek(
        &self,
        actor: &Actor,
        id: &str,
        approval: Option<&str>,
    ) -> Result<Gated<KekRecord>, ServiceError> {
        let retired = self.retire_one_kek(actor, id, approval).await;
        if let Err(error) = &retired {
            self.refused_operator(actor, "kek.retire", id, error).await;
        }
        retired
    }

    async fn retire_one_kek(
        &self,
        actor: &Actor,
        id: &str,
        approval: Option<&str>,
    ) -> Result<Gated<KekRecord>, ServiceError> {
        actor.require(Scope::KeysManage)?;
        let kek = self.kek(id).await?.kek;
        if kek.state == KekState::Retired && approval.is_none() {
            return Err(ServiceError::refused("kek-retired", "the key is retired"));
        }
        let subject = json!({ "kek": id, "name": kek.name });
        let grant = match self.gate(actor, "kek.retire", &subject, approval).await? {
            Gated::Done(grant) => grant,
            Gated::Pending(approval) => return Ok(Gated::Pending(approval)),
        };
        let (now, id) = (self.now(), id.to_owned());
        let entry = done(now, actor, "kek.retire", &id);
        let record = self
            .store
            .run_tx("retire_kek", move |tx| {
                grant.consume(tx, now)?;
                tx.retire_kek(&id, now)?;
                tx.append_audit(&entry)?;
                record(tx, &id)
            })
            .await?;
        self.forget(record.kek.label.clone()).await;
        Ok(Gated::Done(record))
    }

    /// An active key-encrypting key, opened.
    pub(super) async fn open_kek(&self, kek: &Kek) -> Result<OpenKek, ServiceError> {
        if kek.state != KekState::Active {
            let detail = format!("the key-encrypting key is {}", kek.state);
            return Err(ServiceError::refused("kek-not-active", detail));
        }
        if let Some(label) = kek.label.clone() {
            let held = self.in_vault(move |vault| vault.cmac_open(&label)).await?;
            return Ok(OpenKek::Held(held));
        }
        let (strongbox, id, block) = (self.strongbox().await?, kek.id.clone(), kek.block.clone());
        self.blocking(move || {
            let block = block.ok_or_else(|| ServiceError::Internal {
                detail: format!("the row of {id} is damaged"),
            })?;
            Ok(OpenKek::Clear(strongbox.open(&id, &block)?.1))
        })
        .await
    }

    /// Removes what a crash has left in a token: keys that no row will name any more. Returns how
    /// many.
    ///
    /// # Errors
    /// The store's or the vault's.
    pub async fn sweep_keks(&self) -> Result<usize, ServiceError> {
        if self.in_vault(|vault| vault.describe()).await? == Description::File {
            return Ok(0);
        }
        let held = self.in_vault(|vault| vault.labels()).await?;
        let labels: Vec<String> = held
            .into_iter()
            .map(|held| held.label)
            .filter(|label| label.starts_with(LABEL_PREFIX))
            .collect();
        let orphans: HashSet<String> = self
            .store
            .read("sweep_keks", move |tx| {
                let mut orphans = HashSet::new();
                for label in &labels {
                    let id = label.split('.').next().unwrap_or_default();
                    // While components are awaited, a label may be of an entry under way.
                    let orphan = tx.kek_by_id(id)?.is_some_and(|kek| match kek.state {
                        KekState::Collecting => false,
                        KekState::Active => kek.label.as_ref() != Some(label),
                        KekState::Retired => true,
                    });
                    if orphan {
                        orphans.insert(label.clone());
                    }
                }
                Ok::<_, ServiceError>(orphans)
            })
            .await?;
        let count = orphans.len();
        self.in_vault(move |vault| {
            orphans.iter().try_for_each(|label| match vault.cmac_delete(label) {
                Err(HsmError::LabelUnknown(_)) => Ok(()), // another server was faster
                deleted => deleted,
            })
        })
        .await?;
        Ok(count)
    }
}

pub(super) fn record(tx: &mut Tx<'_>, id: &str) -> Result<KekRecord, ServiceError> {
    let kek = tx.kek_by_id(id)?.ok_or(ServiceError::NotFound { what: "key-encrypting key" })?;
    Ok(KekRecord { components: tx.kek_components(id)?, kek })
}
