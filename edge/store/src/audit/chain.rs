use std::sync::Arc;
use std::time::Duration;

use countersign_crypto::{
    CryptoRng, Digest, HASH_LEN, Hash, Provider, SecureElement, UnixTime, VerifyingKey,
};

use super::Checkpoint;
use super::rows::{ROW_COLUMNS, ROW_WIDTH};
use crate::{Column, Row, Store, StoreError, Tx, Value};

/// How long an elected chainer stays so without renewing.
pub const LEASE_TIME: Duration = Duration::from_secs(10);
/// Most rows one call links: bounds its memory and the length of its transaction.
pub const MAX_CHAIN_ROWS: u32 = 2_000;

const LEASE: &str = "audit-chain";
const DOMAIN: &[u8] = b"countersign audit row v1";
/// Rows per statement.
const BATCH: usize = 500;

/// What a call of [`chain_audit`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainOutcome {
    /// Another process links the rows at the moment.
    NotElected,
    /// There was nothing to link.
    Idle,
    /// Rows were linked.
    Linked {
        /// How many. If as many as the limit, there may be more.
        rows: u32,
        /// The signed new end of the chain, to be appended to the file outside the store.
        checkpoint: Checkpoint,
    },
}

/// The end of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    position: i64,
    hash: Digest,
}

/// Position 0, before the first row.
pub(super) const GENESIS: Digest = [0; HASH_LEN];

/// Gives up being the elected chainer, so that another process need not wait for the lease to
/// lapse.
///
/// # Errors
/// What the database answers.
pub async fn release_chain(store: &Store, holder: &str) -> Result<(), StoreError> {
    let name = holder.to_owned();
    store.run_tx("audit_release", move |tx| tx.release_lease(LEASE, &name)).await
}

/// Links up to `limit` (at most [`MAX_CHAIN_ROWS`]) audit rows into the chain and signs its new
/// end, if `holder` is, or becomes, the elected chainer. To be called again and again.
///
/// A chain that does not end in a checkpoint signed by this key is not continued: signing over
/// it would turn a forgery into an authentic record.
///
/// # Errors
/// [`StoreError::Corrupt`] for such a chain, [`StoreError::Signer`] if the key fails, else what
/// the database answers.
pub async fn chain_audit(
    store: &Store,
    provider: &Provider,
    signer: &dyn SecureElement,
    rng: &mut (dyn CryptoRng + Send),
    now: UnixTime,
    holder: &str,
    limit: u32,
) -> Result<ChainOutcome, StoreError> {
    let limit = limit.clamp(1, MAX_CHAIN_ROWS);
    let name = holder.to_owned();
    let elected =
        store.run_tx("audit_lease", move |tx| tx.take_lease(LEASE, &name, now, LEASE_TIME)).await?;
    if !elected {
        return Ok(ChainOutcome::NotElected);
    }
    let (head, signed, rows) =
        store.read("audit_unlinked", move |tx| unlinked_rows(tx, limit)).await?;
    if rows.is_empty() {
        return Ok(ChainOutcome::Idle);
    }
    let key = provider.signature.public_key(signer.public_key()).map_err(StoreError::Signer)?;
    check_head(&head, signed.as_ref(), key.as_ref())?;

    let (links, end) = link(provider.hash.as_ref(), head, &rows)?;
    let position = u64::try_from(end.position)
        .map_err(|_| StoreError::corrupt("negative position in the audit chain"))?;
    let checkpoint =
        Checkpoint::sign(position, end.hash, now, signer, rng).map_err(StoreError::Signer)?;

    let (links, name, signed) = (Arc::new(links), holder.to_owned(), checkpoint.clone());
    let stored = store
        .run_snapshot("audit_link", move |tx| append(tx, &name, now, head, &links, &signed))
        .await;
    match stored {
        Ok(true) => {
            let rows = u32::try_from(rows.len()).unwrap_or(limit);
            Ok(ChainOutcome::Linked { rows, checkpoint })
        }
        Ok(false) => Ok(ChainOutcome::NotElected),
        // Another chainer took the position: the database let only one of us have it.
        Err(StoreError::Conflict { constraint })
            if constraint == "audit_chain_position_key"
                || constraint == "audit_chain_row_id_key" =>
        {
            Ok(ChainOutcome::NotElected)
        }
        Err(error) => Err(error),
    }
}

/// Hash of a row's place in the chain: `H(domain ‖ previous ‖ position ‖ framed columns)`.
///
/// Each column, the row's id first, is framed by its type and its length.
pub(super) fn row_hash(
    hash: &dyn Hash,
    previous: &Digest,
    position: i64,
    columns: &[Value],
) -> Digest {
    let mut framed = Vec::new();
    for column in columns {
        match column {
            Value::Null => frame(&mut framed, 0, &[]),
            Value::Int(int) => frame(&mut framed, 1, &int.to_be_bytes()),
            Value::Text(text) => frame(&mut framed, 2, text.as_bytes()),
            Value::Blob(blob) => frame(&mut framed, 3, blob),
            Value::Bool(truth) => frame(&mut framed, 4, &[u8::from(*truth)]),
            Value::Time(time) => frame(&mut framed, 5, &time.as_millis().to_be_bytes()),
        }
    }
    hash.hash(&[DOMAIN, previous, &position.to_be_bytes(), &framed])
}

fn frame(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn head(tx: &mut Tx<'_>) -> Result<Head, StoreError> {
    let sql = "SELECT position, hash FROM audit_chain ORDER BY position DESC LIMIT 1";
    match tx.query_one(sql, &[])? {
        Some(row) => Ok(Head { position: row.int(0)?, hash: row.array(1)? }),
        None => Ok(Head { position: 0, hash: GENESIS }),
    }
}

pub(super) const CHECKPOINT_COLUMNS: &str = "position, hash, at, signature";

pub(super) fn checkpoint(row: &Row) -> Result<Checkpoint, StoreError> {
    let position = u64::try_from(row.int(0)?)
        .map_err(|_| StoreError::corrupt("negative position of an audit checkpoint"))?;
    Ok(Checkpoint {
        position,
        hash: row.array(1)?,
        at: row.time(2)?,
        signature: row.blob(3)?.to_vec(),
    })
}

fn unlinked_rows(
    tx: &mut Tx<'_>,
    limit: u32,
) -> Result<(Head, Option<Checkpoint>, Vec<Row>), StoreError> {
    let head = head(tx)?;
    let sql = format!("SELECT {CHECKPOINT_COLUMNS} FROM audit_checkpoints WHERE position = ?1");
    let signed = tx.query_one(&sql, &[head.position.into()])?;
    let signed = signed.map(|row| checkpoint(&row)).transpose()?;
    let sql = format!(
        "SELECT {ROW_COLUMNS} FROM audit_pending p JOIN audit_rows r ON r.id = p.row_id
         ORDER BY p.row_id LIMIT ?1"
    );
    Ok((head, signed, tx.query(&sql, &[limit.into()])?))
}

fn check_head(
    head: &Head,
    signed: Option<&Checkpoint>,
    key: &dyn VerifyingKey,
) -> Result<(), StoreError> {
    if head.position == 0 {
        return Ok(());
    }
    match signed {
        Some(checkpoint) if checkpoint.hash == head.hash && checkpoint.verify(key).is_ok() => {
            Ok(())
        }
        _ => Err(StoreError::corrupt("the audit chain does not end in a checkpoint of this key")),
    }
}

/// Computes the new links, as rows for `audit_chain`, and the new end.
fn link(hash: &dyn Hash, head: Head, rows: &[Row]) -> Result<(Vec<Vec<Value>>, Head), StoreError> {
    let mut end = head;
    let mut links = Vec::with_capacity(rows.len());
    for row in rows {
        debug_assert_eq!(row.cells().len(), ROW_WIDTH);
        end.position += 1;
        end.hash = row_hash(hash, &end.hash, end.position, row.cells());
        links.push(vec![end.position.into(), row.int(0)?.into(), (&end.hash).into()]);
    }
    Ok((links, end))
}

/// Stores links and checkpoint, unless someone else was faster. Uniqueness of positions and
/// rows decides; the look at lease and head only saves the attempt.
fn append(
    tx: &mut Tx<'_>,
    holder: &str,
    now: UnixTime,
    before: Head,
    links: &[Vec<Value>],
    signed: &Checkpoint,
) -> Result<bool, StoreError> {
    if head(tx)? != before || tx.lease_holder(LEASE, now)?.as_deref() != Some(holder) {
        return Ok(false);
    }
    let columns = [("position", Column::Int), ("row_id", Column::Int), ("hash", Column::Blob)];
    for batch in links.chunks(BATCH) {
        tx.insert_many("audit_chain", &columns, batch)?;
    }
    tx.execute(
        "DELETE FROM audit_pending
         WHERE row_id IN (SELECT row_id FROM audit_chain WHERE position > ?1)",
        &[before.position.into()],
    )?;
    let end = before.position + i64::try_from(links.len()).unwrap_or(i64::MAX);
    tx.execute(
        "INSERT INTO audit_checkpoints (position, hash, at, signature) VALUES (?1, ?2, ?3, ?4)",
        &[end.into(), (&signed.hash).into(), signed.at.into(), signed.signature.clone().into()],
    )?;
    Ok(true)
}
