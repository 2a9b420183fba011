//! The components of a key-encrypting key: each from another operator, combined when the last one
//! comes.

use countersign_crypto::Secret;
use countersign_store::{AuditEntry, HeldKek, KekComponent, KekState};
use data_encoding::HEXLOWER;
use serde_json::json;
use tr31::{Kcv, KeyFault, Tr31Error, policy};

use super::keks::{KekRecord, Place, algorithm_of, cipher_of, header, record};
use super::{Strongbox, parse_kcv, refuse_taken};
use crate::{Actor, Scope, Service, ServiceError, done};

/// How often an entry is tried again when another one came between.
const ENTRY_TRIES: u32 = 5;

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
    /// Takes one component in, with the check value that stands on its paper. The last one makes
    /// the key: the components are combined in memory that is wiped, or go into the token, and are
    /// erased in the transaction that makes the key usable.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`]; `component-operator-needed`,
    /// `operator-disabled`, `kek-not-collecting`, `component-number`, `component-operator` for an
    /// operator who has entered one, `component-taken`, `component-length`, `component-parity`,
    /// `component-weak`, `component-kcv`; at the last one `kek-kcv` if the whole key is not the one
    /// that was told, `kek-weak`. Nothing has changed then.
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
                let operator = tx.operator_by_id(&component.operator_id)?;
                if operator.is_none_or(|operator| operator.disabled_at.is_some()) {
                    let detail = "the operator is disabled";
                    return Err(ServiceError::refused("operator-disabled", detail));
                }
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
