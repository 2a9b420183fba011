use countersign_crypto::{Digest, Hash, Provider, VerifyingKey};
use thiserror::Error;

use super::Checkpoint;
use super::chain::{CHECKPOINT_COLUMNS, GENESIS, checkpoint, row_hash};
use super::rows::{ROW_COLUMNS, ROW_WIDTH};
use crate::{Row, Store, StoreError, Tx, Value};

/// Links looked at per read transaction.
const PAGE: i64 = 500;

/// What verifying the audit found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditReport {
    /// Links verified, up to the first bad one.
    pub chained: u64,
    /// Rows that no link covers yet: not protected so far. 0 if a bad row ended the walk.
    pub unchained: u64,
    /// Checkpoints of the store verified.
    pub checkpoints: u64,
    /// The first thing that is wrong, if anything is.
    pub first_bad: Option<BadRow>,
}

/// Where the audit first fails, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// Position in the chain; one beyond its end if the fault is that something is missing there
    /// or not linked.
    pub position: u64,
    /// The row's number, where it is known.
    pub row_id: Option<i64>,
    /// What is wrong.
    pub fault: AuditFault,
}

/// What can be wrong with an audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AuditFault {
    /// The link at this position is gone.
    #[error("a link of the chain is missing")]
    LinkMissing,
    /// The row that the link, or the queue of new rows, names is gone.
    #[error("the row is missing")]
    RowMissing,
    /// The row or the link does not have the hash it had when it was linked.
    #[error("the row or its link was changed")]
    RowChanged,
    /// A checkpoint is not signed by the audit key.
    #[error("a checkpoint is not signed by the audit key")]
    CheckpointForged,
    /// A signed checkpoint says another hash: the chain was rewritten at or before this row,
    /// and after the previous checkpoint.
    #[error("a signed checkpoint disagrees: rows since the previous checkpoint were rewritten")]
    CheckpointDisagrees,
    /// A checkpoint of the file is not in the store.
    #[error("a checkpoint of the file outside is missing from the store")]
    CheckpointMissing,
    /// The chain's end has no checkpoint: links were added without the key, or a checkpoint
    /// was removed.
    #[error("the end of the chain has no signed checkpoint")]
    EndUnsigned,
    /// A checkpoint lies beyond the end of the chain: the end was cut off.
    #[error("the end of the chain was cut off: a checkpoint lies beyond it")]
    TailCut,
    /// The row is neither linked nor waiting to be.
    #[error("the row is neither linked nor waiting to be")]
    NotQueued,
}

/// Checks the whole audit: every row against its link, every link against the one before, every
/// checkpoint of the store and of the file outside it against the chain and the audit `key`.
///
/// The file is to be read before this is called, because the chain may grow meanwhile. Walks in
/// pages, each a transaction of its own, so writers are not held up.
///
/// What it cannot see: a row removed, with its place in the queue, before it was linked; a tail
/// cut together with the checkpoints in the store *and* in the file.
///
/// # Errors
/// What the database answers. Anything wrong with the audit itself is in the report.
pub async fn verify_audit(
    store: &Store,
    provider: &Provider,
    key: &dyn VerifyingKey,
    file_checkpoints: &[Checkpoint],
) -> Result<AuditReport, StoreError> {
    let mut outside: Vec<&Checkpoint> = file_checkpoints.iter().collect();
    outside.sort_by_key(|checkpoint| checkpoint.position);
    let mut walk = Walk {
        hash: provider.hash.as_ref(),
        key,
        outside,
        position: 0,
        row_id: None,
        previous: GENESIS,
        end_signed: true,
        checkpoints: 0,
    };
    loop {
        let after = walk.position;
        let page = store.read("audit_verify", move |tx| LinkPage::read(tx, after)).await?;
        let last = page.unlinked.is_some();
        let found = match walk.page(&page) {
            Ok(()) if last => walk.end(&page),
            other => other,
        };
        if found.is_err() || last {
            let unchained = page.unlinked.as_ref().map_or(0, |unlinked| unlinked.count);
            return Ok(walk.report(unchained, found.err()));
        }
    }
}

/// A stretch of the chain with its rows and checkpoints, all of one snapshot.
struct LinkPage {
    links: Vec<Row>,
    checkpoints: Vec<Row>,
    /// Present on the last page.
    unlinked: Option<Unlinked>,
}

/// Rows beside the chain.
struct Unlinked {
    count: u64,
    /// A row that is neither linked nor waiting.
    astray: Option<i64>,
    /// A waiting row that does not exist.
    vanished: Option<i64>,
}

impl LinkPage {
    fn read(tx: &mut Tx<'_>, after: i64) -> Result<Self, StoreError> {
        let sql = format!(
            "SELECT c.position, c.row_id, c.hash, {ROW_COLUMNS}
             FROM audit_chain c LEFT JOIN audit_rows r ON r.id = c.row_id
             WHERE c.position > ?1 ORDER BY c.position LIMIT ?2"
        );
        let links = tx.query(&sql, &[after.into(), PAGE.into()])?;
        let last = links.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
        // On the last page also the first checkpoint beyond the end, if there is one.
        let until = match links.last() {
            Some(link) if !last => link.int(0)?,
            _ => i64::MAX,
        };
        let sql = format!(
            "SELECT {CHECKPOINT_COLUMNS} FROM audit_checkpoints
             WHERE position > ?1 AND position <= ?2 ORDER BY position LIMIT ?3"
        );
        let checkpoints = tx.query(&sql, &[after.into(), until.into(), (PAGE + 1).into()])?;
        let unlinked = if last { Some(Unlinked::read(tx)?) } else { None };
        Ok(Self { links, checkpoints, unlinked })
    }
}

impl Unlinked {
    fn read(tx: &mut Tx<'_>) -> Result<Self, StoreError> {
        let first =
            |tx: &mut Tx<'_>, sql: &str| tx.query_one(sql, &[])?.map(|row| row.int(0)).transpose();
        let count = first(
            tx,
            "SELECT count(*) FROM audit_rows r
             WHERE NOT EXISTS (SELECT 1 FROM audit_chain c WHERE c.row_id = r.id)",
        )?;
        let astray = first(
            tx,
            "SELECT r.id FROM audit_rows r
             WHERE NOT EXISTS (SELECT 1 FROM audit_chain c WHERE c.row_id = r.id)
               AND NOT EXISTS (SELECT 1 FROM audit_pending p WHERE p.row_id = r.id)
             ORDER BY r.id LIMIT 1",
        )?;
        let vanished = first(
            tx,
            "SELECT p.row_id FROM audit_pending p
             WHERE NOT EXISTS (SELECT 1 FROM audit_rows r WHERE r.id = p.row_id)
             ORDER BY p.row_id LIMIT 1",
        )?;
        let count = u64::try_from(count.unwrap_or(0)).unwrap_or(0);
        Ok(Self { count, astray, vanished })
    }
}

/// The state of the walk along the chain.
struct Walk<'a> {
    hash: &'a dyn Hash,
    key: &'a dyn VerifyingKey,
    /// Checkpoints of the file, by position.
    outside: Vec<&'a Checkpoint>,
    /// The last good position, its row and its hash.
    position: i64,
    row_id: Option<i64>,
    previous: Digest,
    /// Whether the last position has a good checkpoint in the store.
    end_signed: bool,
    checkpoints: u64,
}

impl Walk<'_> {
    fn page(&mut self, page: &LinkPage) -> Result<(), BadRow> {
        let mut checkpoints = page.checkpoints.iter().peekable();
        for link in &page.links {
            self.link(link)?;
            let here = Value::Int(self.position);
            let inside = checkpoints.next_if(|row| row.cells().first() == Some(&here));
            self.checkpoints_here(inside)?;
        }
        match checkpoints.next() {
            // A page with more links to come holds no checkpoint beyond its links.
            Some(_) if page.unlinked.is_some() => Err(self.beyond(AuditFault::TailCut)),
            _ => Ok(()),
        }
    }

    fn link(&mut self, link: &Row) -> Result<(), BadRow> {
        let expected = self.position + 1;
        let (Ok(position), Ok(row_id)) = (link.int(0), link.int(1)) else {
            return Err(self.bad(expected, None, AuditFault::RowChanged));
        };
        if position != expected {
            return Err(self.bad(expected, None, AuditFault::LinkMissing));
        }
        let columns = link.cells().get(3..3 + ROW_WIDTH).unwrap_or_default();
        if columns.first() == Some(&Value::Null) {
            return Err(self.bad(position, Some(row_id), AuditFault::RowMissing));
        }
        let hash = row_hash(self.hash, &self.previous, position, columns);
        if link.array(2) != Ok(hash) {
            return Err(self.bad(position, Some(row_id), AuditFault::RowChanged));
        }
        (self.position, self.row_id, self.previous) = (position, Some(row_id), hash);
        Ok(())
    }

    /// Checks the store's and the file's checkpoints at the current position.
    fn checkpoints_here(&mut self, inside: Option<&Row>) -> Result<(), BadRow> {
        let here = |walk: &Self, fault| walk.bad(walk.position, walk.row_id, fault);
        self.end_signed = inside.is_some();
        let inside = match inside {
            None => None,
            Some(row) => {
                let found =
                    checkpoint(row).map_err(|_| here(self, AuditFault::CheckpointForged))?;
                self.check(&found).map_err(|fault| here(self, fault))?;
                self.checkpoints += 1;
                Some(found)
            }
        };
        let position = u64::try_from(self.position).unwrap_or(u64::MAX);
        let first = self.outside.partition_point(|checkpoint| checkpoint.position < position);
        let at_position =
            self.outside[first..].iter().take_while(|checkpoint| checkpoint.position == position);
        for checkpoint in at_position {
            self.check(checkpoint).map_err(|fault| here(self, fault))?;
            if inside.is_none() {
                return Err(here(self, AuditFault::CheckpointMissing));
            }
        }
        Ok(())
    }

    fn check(&self, checkpoint: &Checkpoint) -> Result<(), AuditFault> {
        if checkpoint.verify(self.key).is_err() {
            Err(AuditFault::CheckpointForged)
        } else if checkpoint.hash != self.previous {
            Err(AuditFault::CheckpointDisagrees)
        } else {
            Ok(())
        }
    }

    /// Checks what lies beyond the last link.
    fn end(&self, page: &LinkPage) -> Result<(), BadRow> {
        let end = u64::try_from(self.position).unwrap_or(u64::MAX);
        if let Some(checkpoint) = self.outside.last().filter(|last| last.position > end) {
            return Err(self.beyond(match checkpoint.verify(self.key) {
                Ok(()) => AuditFault::TailCut,
                Err(_) => AuditFault::CheckpointForged,
            }));
        }
        if !self.end_signed {
            return Err(self.bad(self.position, self.row_id, AuditFault::EndUnsigned));
        }
        let Some(unlinked) = &page.unlinked else { return Ok(()) };
        let next = self.position + 1;
        if let Some(row_id) = unlinked.vanished {
            return Err(self.bad(next, Some(row_id), AuditFault::RowMissing));
        }
        match unlinked.astray {
            Some(row_id) => Err(self.bad(next, Some(row_id), AuditFault::NotQueued)),
            None => Ok(()),
        }
    }

    fn beyond(&self, fault: AuditFault) -> BadRow {
        self.bad(self.position + 1, None, fault)
    }

    fn bad(&self, position: i64, row_id: Option<i64>, fault: AuditFault) -> BadRow {
        BadRow { position: u64::try_from(position).unwrap_or_default(), row_id, fault }
    }

    fn report(&self, unchained: u64, first_bad: Option<BadRow>) -> AuditReport {
        AuditReport {
            chained: u64::try_from(self.position).unwrap_or_default(),
            unchained,
            checkpoints: self.checkpoints,
            first_bad,
        }
    }
}
