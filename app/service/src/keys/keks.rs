//! Key-encrypting keys: asked for under the gate, entered as components by different operators.

use std::collections::HashSet;
use std::sync::Arc;

use countersign_crypto::Secret;
use countersign_hsm::{Description, HsmError};
use countersign_store::{
    AuditEntry, HeldKek, IdKind, Kek, KekComponent, KekState, MAX_COMPONENTS, Page, Tx,
};
use data_encoding::HEXLOWER;
use serde_json::json;
use tr31::{BlockCipher, CmacKey, Header, Kbpk, Kcv, KeyFault, Tr31Error, Version, policy};

use super::{Strongbox, check_name, parse_kcv, refuse_taken};
use crate::{Actor, Gated, Scope, Service, ServiceError, done};

/// How often an entry is tried again when another one came between.
const ENTRY_TRIES: u32 = 5;
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
enum Place {
    /// In a token, where it only computes CMACs.
    Token,
    /// As a block under the storage key.
    Block,
}

/// A component as it was checked, on its way to the database.
struct Entry {
    kcv: Kcv,
    block: Option<String>,
    /// The whole key, if this was the last component.
    whole: Option<Whole>,
}

struct Whole {
    kcv: Kcv,
    held: HeldKek,
}

/// What an entry has come to.
enum Entered {
    Stored(Box<KekRecord>),
    /// Other components came between.
    Overtaken,
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
fn header(algorithm: u8) -> Header {
    Header::new(Version::D, *b"K1", algorithm, b'B', b'N')
}

/// The row that a component's block names.
fn component_row(kek: &str, number: u32) -> String {
    format!("{kek}/{number}")
}

/// Whether a component is one: its length, the parity of TDES, and that it hides something.
fn check_component(algorithm: u8, length: u32, component: &Secret) -> Result<(), ServiceError> {
    let refused = |check, detail: &str| Err(ServiceError::refused(check, detail));
    if component.len() != length as usize {
        let detail = format!("a component of this key has {length} bytes");
        return Err(ServiceError::refused("component-length", detail));
    }
    let first = component.expose()[0];
    if component.expose().iter().all(|byte| *byte == first) {
        return refused("component-weak", "a component is random: all its bytes are the same");
    }
    match policy::check_key(&header(algorithm), component) {
        Ok(()) => Ok(()),
        Err(Tr31Error::Key(KeyFault::Parity)) => {
            refused("component-parity", "a component of a TDES key has odd parity")
        }
        Err(error) => Err(ServiceError::refused("component-weak", error.to_string())),
    }
}

/// The components together: XOR, and odd parity for TDES, which the sum of two has lost.
fn combined(algorithm: u8, components: &[Secret]) -> Secret {
    let length = components.first().map_or(0, Secret::len);
    let sum = Secret::try_filled(length, |sum| {
        for component in components {
            for (byte, part) in sum.iter_mut().zip(component.expose()) {
                *byte ^= part;
            }
        }
        Ok::<_, std::convert::Infallible>(())
    });
    let Ok(sum) = sum;
    if algorithm == b'T' { policy::with_odd_parity(&sum) } else { sum }
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
    async fn place_of(&self, algorithm: u8) -> Result<Place, ServiceError> {
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

    /// Takes one component in, with the check value that stands on its paper. The last one makes
    /// the key: the components are combined in memory that is wiped, or go into the token, and are
    /// erased in the transaction that makes the key usable.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`]; `component-operator-needed`,
    /// `kek-not-collecting`, `component-number`, `component-operator` for an operator who has
    /// entered one, `component-taken`, `component-length`, `component-parity`, `component-weak`,
    /// `component-kcv`; at the last one `kek-kcv` if the whole key is not the one that was told,
    /// `kek-weak`. Nothing has changed then.
    pub async fn enter_component(
        &self,
        actor: &Actor,
        kek_id: &str,
        number: u32,
        component: &Secret,
        kcv: &str,
    ) -> Result<KekRecord, ServiceError> {
        let entered = self.enter(actor, kek_id, number, component, kcv).await;
        if let Err(error) = &entered {
            self.refused_operator(actor, "kek.component", kek_id, error).await;
        }
        entered
    }

    async fn enter(
        &self,
        actor: &Actor,
        kek_id: &str,
        number: u32,
        component: &Secret,
        kcv: &str,
    ) -> Result<KekRecord, ServiceError> {
        actor.require(Scope::ComponentsEnter)?;
        let Actor::Operator(operator) = actor else {
            let detail = "a component is entered by an operator: use the API with a token";
            return Err(ServiceError::refused("component-operator-needed", detail));
        };
        for _ in 0..ENTRY_TRIES {
            let seen = self.kek(kek_id).await?;
            check_entry(&seen, number, &operator.id)?;
            let entry = self.check_in(&seen, number, component, kcv).await?;
            let label = match entry.whole.as_ref().map(|whole| &whole.held) {
                Some(HeldKek::Label(label)) => Some(label.clone()),
                _ => None,
            };
            let stored = self.store_entry(actor, &operator.id, seen, number, entry).await;
            match stored {
                Ok(Entered::Stored(record)) => return Ok(*record),
                Ok(Entered::Overtaken) => self.forget(label).await,
                // A transaction whose outcome is not known may have made the key: it stays.
                Err(error) => {
                    if error.is_refusal() {
                        self.forget(label).await;
                    }
                    return Err(error);
                }
            }
        }
        let detail = "others enter components of this key at this moment".to_owned();
        Err(ServiceError::Unavailable { detail })
    }

    /// Checks a component and, if it is the last one, makes the key.
    async fn check_in(
        &self,
        seen: &KekRecord,
        number: u32,
        component: &Secret,
        kcv: &str,
    ) -> Result<Entry, ServiceError> {
        let algorithm = algorithm_of(&seen.kek.algorithm)?;
        let told = parse_kcv("component-kcv", algorithm, kcv)?;
        check_component(algorithm, seen.kek.length, component)?;
        let place = self.place_of(algorithm).await?;
        let (strongbox, mut rng) = (self.strongbox().await?, self.rng());
        let (seen, component) = (seen.clone(), Secret::copied_from(component.expose()));
        let (entry, whole) = self
            .blocking(move || {
                let own = strongbox.kcv(algorithm, &component)?;
                if !own.starts_with(&told) {
                    let detail = "the component does not have this check value: look for a typing \
                                  error in either";
                    return Err(ServiceError::refused("component-kcv", detail));
                }
                let kek = &seen.kek;
                if seen.components.len() + 1 < kek.components as usize {
                    let row = component_row(&kek.id, number);
                    let block = strongbox.seal(&mut *rng, &row, &header(algorithm), &component)?;
                    return Ok((Entry { kcv: own, block: Some(block), whole: None }, None));
                }
                let (key, kcv) = combine(&strongbox, &seen, algorithm, component)?;
                let entry = Entry { kcv: own, block: None, whole: None };
                if place == Place::Token {
                    let mut suffix = [0; 8];
                    rng.fill_bytes(&mut suffix);
                    let label = format!("{}.{}", kek.id, HEXLOWER.encode(&suffix));
                    return Ok((entry, Some((kcv, HeldKek::Label(label), Some(key)))));
                }
                let block = strongbox.seal(&mut *rng, &kek.id, &header(algorithm), &key)?;
                Ok((entry, Some((kcv, HeldKek::Block(block), None))))
            })
            .await?;
        let Some((kcv, held, key)) = whole else { return Ok(entry) };
        if let (HeldKek::Label(label), Some(key)) = (&held, key) {
            let (label, cipher) = (label.clone(), cipher_of(algorithm));
            self.in_vault(move |vault| vault.cmac_import(&label, cipher, key).map(|_| ())).await?;
        }
        Ok(Entry { whole: Some(Whole { kcv, held }), ..entry })
    }

    async fn store_entry(
        &self,
        actor: &Actor,
        operator_id: &str,
        seen: KekRecord,
        number: u32,
        entry: Entry,
    ) -> Result<Entered, ServiceError> {
        let now = self.now();
        let component = KekComponent {
            number,
            operator_id: operator_id.to_owned(),
            kcv: entry.kcv.to_string(),
            block: entry.block,
            at: now,
        };
        let detail = json!({ "number": number, "kcv": component.kcv }).to_string();
        let id = seen.kek.id;
        let row = AuditEntry { detail, ..done(now, actor, "kek.component", &id) };
        let whole = entry.whole.map(|whole| {
            let kcv = whole.kcv.to_string();
            let place = match &whole.held {
                HeldKek::Block(_) => "block",
                HeldKek::Label(_) => "token",
            };
            let detail = json!({ "kcv": kcv, "held": place }).to_string();
            let row = AuditEntry { detail, ..done(now, actor, "kek.activate", &id) };
            (kcv, whole.held, row)
        });
        let numbers: Vec<u32> = seen.components.iter().map(|one| one.number).collect();
        self.store
            .run_tx("enter_component", move |tx| {
                let now_there = tx.kek_components(&id)?;
                if !now_there.iter().map(|one| one.number).eq(numbers.iter().copied()) {
                    return Ok(Entered::Overtaken);
                }
                tx.insert_kek_component(&id, &component).map_err(refuse_taken)?;
                tx.append_audit(&row)?;
                if let Some((kcv, held, row)) = &whole {
                    tx.activate_kek(&id, kcv, held, now)?;
                    tx.append_audit(row)?;
                }
                Ok::<_, ServiceError>(Entered::Stored(Box::new(record(tx, &id)?)))
            })
            .await
    }

    /// Removes a key from the vault that no row names.
    async fn forget(&self, label: Option<String>) {
        let Some(label) = label else { return };
        if let Err(error) = self.in_vault(move |vault| vault.cmac_delete(&label)).await {
            tracing::warn!(%error, "a key that is not used stays in the vault until the next sweep");
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

fn record(tx: &mut Tx<'_>, id: &str) -> Result<KekRecord, ServiceError> {
    let kek = tx.kek_by_id(id)?.ok_or(ServiceError::NotFound { what: "key-encrypting key" })?;
    Ok(KekRecord { components: tx.kek_components(id)?, kek })
}

/// Whether this operator may enter this component now. The database's uniqueness decides; this
/// spares the work and names the check.
fn check_entry(seen: &KekRecord, number: u32, operator_id: &str) -> Result<(), ServiceError> {
    let refused = |check, detail: String| Err(ServiceError::refused(check, detail));
    if seen.kek.state != KekState::Collecting {
        return refused("kek-not-collecting", format!("the key is {}", seen.kek.state));
    }
    if !(1..=seen.kek.components).contains(&number) {
        let detail =
            format!("the components of this key are numbered 1 to {}", seen.kek.components);
        return refused("component-number", detail);
    }
    if seen.components.iter().any(|one| one.operator_id == operator_id) {
        let detail = "this operator has entered a component of this key".to_owned();
        return refused("component-operator", detail);
    }
    if seen.components.iter().any(|one| one.number == number) {
        return refused("component-taken", "this component was entered".to_owned());
    }
    Ok(())
}

/// The whole key from the components in the database and the last one.
fn combine(
    strongbox: &Strongbox,
    seen: &KekRecord,
    algorithm: u8,
    last: Secret,
) -> Result<(Secret, Kcv), ServiceError> {
    let mut parts = vec![last];
    for one in &seen.components {
        let row = component_row(&seen.kek.id, one.number);
        let block = one.block.as_deref().ok_or_else(|| ServiceError::Internal {
            detail: format!("component {row} is erased while others are awaited"),
        })?;
        parts.push(strongbox.open(&row, block)?.1);
    }
    let key = combined(algorithm, &parts);
    let same = key.expose().iter().all(|byte| *byte == key.expose()[0]);
    if same || policy::check_kbpk(cipher_of(algorithm), &key).is_err() {
        let detail = "the components together make a weak key: have them made anew";
        return Err(ServiceError::refused("kek-weak", detail));
    }
    let kcv = strongbox.kcv(algorithm, &key)?;
    if let Some(expected) = &seen.kek.expected_kcv
        && !kcv.starts_with(&parse_kcv("kek-kcv", algorithm, expected)?)
    {
        let detail = "the components together do not make the key with the check value that was \
                      told: one of them is of another key";
        return Err(ServiceError::refused("kek-kcv", detail));
    }
    Ok((key, kcv))
}
