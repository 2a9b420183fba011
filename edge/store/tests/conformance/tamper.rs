//! What someone with the database in hands can do, and that it shows.

use countersign_store::{AuditFault, AuditReport, BadRow, Checkpoint, StoreError};
use sha2::{Digest, Sha256};

use crate::fixture::{Auditor, Db};

/// Nine rows in a chain with checkpoints at 3, 6 and 9, which are also in the file.
async fn chained(db: &Db) -> (Auditor, Vec<Checkpoint>) {
    let mut auditor = Auditor::new(1);
    db.append(1, 9).await;
    let file = auditor.chain_all(&db.store, 3).await;
    assert_eq!(auditor.verify(&db.store, &file).await.first_bad, None);
    (auditor, file)
}

fn bad(position: u64, row_id: Option<i64>, fault: AuditFault) -> Option<BadRow> {
    Some(BadRow { position, row_id, fault })
}

async fn verified(db: &Db, auditor: &Auditor, file: &[Checkpoint]) -> AuditReport {
    auditor.verify(&db.store, file).await
}

pub(crate) async fn a_changed_row_is_named(db: Db) {
    let (auditor, file) = chained(&db).await;
    for (column, value) in [
        ("at", "at + 1"),
        ("actor", "'opr_other'"),
        ("action", "'other'"),
        ("subject", "'other'"),
        ("outcome", "'refused'"),
        ("failed_check", "'other'"),
        ("incident", "'inc_other'"),
        ("detail", "'{\"a\":1}'"),
    ] {
        // Keep the row's own value to put it back.
        db.tamper("CREATE TABLE kept AS SELECT * FROM audit_rows WHERE id = 5").await;
        db.tamper(&format!("UPDATE audit_rows SET {column} = {value} WHERE id = 5")).await;
        let report = verified(&db, &auditor, &file).await;
        assert_eq!(report.first_bad, bad(5, Some(5), AuditFault::RowChanged), "{column}");
        assert_eq!(report.chained, 4);
        db.tamper(&format!(
            "UPDATE audit_rows SET {column} = (SELECT {column} FROM kept) WHERE id = 5;
             DROP TABLE kept"
        ))
        .await;
        assert_eq!(verified(&db, &auditor, &file).await.first_bad, None, "{column} put back");
    }
    db.tamper("UPDATE audit_chain SET hash = x'00' WHERE position = 7").await;
    let report = verified(&db, &auditor, &[]).await;
    assert_eq!(report.first_bad, bad(7, Some(7), AuditFault::RowChanged));
}

pub(crate) async fn a_deleted_row_is_named(db: Db) {
    let (auditor, _) = chained(&db).await;
    db.tamper("DELETE FROM audit_rows WHERE id = 4").await;
    let report = verified(&db, &auditor, &[]).await;
    assert_eq!(report.first_bad, bad(4, Some(4), AuditFault::RowMissing));
}

pub(crate) async fn a_missing_link_is_named(db: Db) {
    let (auditor, _) = chained(&db).await;
    db.tamper("DELETE FROM audit_chain WHERE position = 8; DELETE FROM audit_rows WHERE id = 8")
        .await;
    let report = verified(&db, &auditor, &[]).await;
    assert_eq!(report.first_bad, bad(8, None, AuditFault::LinkMissing));
    // Closing the gap by renumbering does not help.
    db.tamper("UPDATE audit_chain SET position = 8 WHERE position = 9").await;
    let report = verified(&db, &auditor, &[]).await;
    assert_eq!(report.first_bad, bad(8, Some(9), AuditFault::RowChanged));
}

pub(crate) async fn a_cut_tail_shows_against_the_file(db: Db) {
    let (auditor, file) = chained(&db).await;
    // The store's checkpoint left behind gives it away already.
    db.tamper("DELETE FROM audit_rows WHERE id > 6; DELETE FROM audit_chain WHERE position > 6")
        .await;
    let report = verified(&db, &auditor, &[]).await;
    assert_eq!(report.first_bad, bad(7, None, AuditFault::TailCut));
    // Cut cleanly, only the file knows.
    db.tamper("DELETE FROM audit_checkpoints WHERE position > 6").await;
    let report = verified(&db, &auditor, &file[..2]).await;
    assert_eq!(report.first_bad, None, "nothing can show without the later checkpoint");
    let report = verified(&db, &auditor, &file).await;
    assert_eq!(report.first_bad, bad(7, None, AuditFault::TailCut));
    // Everything gone.
    db.tamper("DELETE FROM audit_rows; DELETE FROM audit_chain; DELETE FROM audit_checkpoints")
        .await;
    let report = verified(&db, &auditor, &file).await;
    assert_eq!(report.first_bad, bad(1, None, AuditFault::TailCut));
}

/// The chain's hash formula, written a second time from its description.
fn link_hash(previous: &[u8], position: i64, columns: &[Option<Column>]) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(b"countersign audit row v1");
    hash.update(previous);
    hash.update(position.to_be_bytes());
    for column in columns {
        let (kind, bytes) = match column {
            None => (0, Vec::new()),
            Some(Column::Int(int)) => (1, int.to_be_bytes().to_vec()),
            Some(Column::Text(text)) => (2, text.as_bytes().to_vec()),
        };
        hash.update([kind]);
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    }
    hash.finalize().to_vec()
}

enum Column {
    Int(i64),
    Text(String),
}

/// Recomputes all links over the rows as they are now, as a forger without the key would.
async fn relink(db: &Db) {
    let rows = db
        .store
        .read::<_, StoreError, _>("test", |tx| {
            tx.query(
                "SELECT id, at, actor, action, subject, outcome, failed_check, incident, detail
                 FROM audit_rows ORDER BY id",
                &[],
            )
        })
        .await
        .unwrap();
    let (mut previous, mut statements) = (vec![0; 32], String::new());
    for (index, row) in rows.iter().enumerate() {
        let position = index as i64 + 1;
        let mut columns: Vec<_> = (0..2).map(|n| Some(Column::Int(row.int(n).unwrap()))).collect();
        columns.extend(
            (2..9).map(|n| row.opt_text(n).unwrap().map(|text| Column::Text(text.to_owned()))),
        );
        previous = link_hash(&previous, position, &columns);
        let hex: String = previous.iter().map(|byte| format!("{byte:02x}")).collect();
        statements += &format!(
            "DELETE FROM audit_chain WHERE position = {position};
             INSERT INTO audit_chain (position, row_id, hash)
             VALUES ({position}, {}, x'{hex}');",
            row.int(0).unwrap()
        );
    }
    db.tamper(&statements).await;
}

pub(crate) async fn a_rewritten_chain_shows_without_the_file(db: Db) {
    let (auditor, file) = chained(&db).await;
    relink(&db).await;
    assert_eq!(verified(&db, &auditor, &file).await.first_bad, None, "the forger's sum is right");
    db.tamper("UPDATE audit_rows SET subject = 'forged' WHERE id = 5").await;
    relink(&db).await;
    let disagrees = bad(6, Some(6), AuditFault::CheckpointDisagrees);
    assert_eq!(verified(&db, &auditor, &[]).await.first_bad, disagrees);
    // Without the store's checkpoints the file's still disagree.
    db.tamper("DELETE FROM audit_checkpoints WHERE position > 3").await;
    assert_eq!(verified(&db, &auditor, &file).await.first_bad, disagrees);
    // A checkpoint made up for the forged chain is not signed by the key.
    db.tamper(
        "INSERT INTO audit_checkpoints (position, hash, at, signature)
         SELECT position, hash, 1, x'3006020101020101' FROM audit_chain WHERE position = 6",
    )
    .await;
    let forged = bad(6, Some(6), AuditFault::CheckpointForged);
    assert_eq!(verified(&db, &auditor, &[]).await.first_bad, forged);
}

pub(crate) async fn links_added_without_the_key_show(db: Db) {
    let (auditor, file) = chained(&db).await;
    db.append(10, 1).await;
    db.tamper("DELETE FROM audit_pending").await;
    relink(&db).await;
    let report = verified(&db, &auditor, &file).await;
    assert_eq!(report.first_bad, bad(10, Some(10), AuditFault::EndUnsigned));
}

pub(crate) async fn a_removed_checkpoint_shows(db: Db) {
    let (auditor, file) = chained(&db).await;
    db.tamper("DELETE FROM audit_checkpoints WHERE position = 6").await;
    let report = verified(&db, &auditor, &file).await;
    assert_eq!(report.first_bad, bad(6, Some(6), AuditFault::CheckpointMissing));
    db.tamper("DELETE FROM audit_checkpoints WHERE position = 9").await;
    let report = verified(&db, &auditor, &[]).await;
    assert_eq!(report.first_bad, bad(9, Some(9), AuditFault::EndUnsigned));
    // A forged line in the file is not believed either.
    let forged = Checkpoint { position: 12, ..file[2].clone() };
    let report = verified(&db, &auditor, &[file[0].clone(), forged]).await;
    assert_eq!(report.first_bad, bad(10, None, AuditFault::CheckpointForged));
}

pub(crate) async fn rows_beside_the_chain_show(db: Db) {
    let (auditor, file) = chained(&db).await;
    db.append(10, 3).await;
    let report = verified(&db, &auditor, &file).await;
    assert_eq!((report.unchained, report.first_bad), (3, None));
    db.tamper("DELETE FROM audit_rows WHERE id = 11").await;
    let report = verified(&db, &auditor, &file).await;
    assert_eq!(report.first_bad, bad(10, Some(11), AuditFault::RowMissing));
    db.tamper("DELETE FROM audit_pending WHERE row_id IN (11, 12)").await;
    let report = verified(&db, &auditor, &file).await;
    assert_eq!(report.first_bad, bad(10, Some(12), AuditFault::NotQueued));
}

pub(crate) async fn a_forged_chain_is_not_continued(db: Db) {
    let (mut auditor, _) = chained(&db).await;
    db.tamper("UPDATE audit_rows SET subject = 'forged' WHERE id = 5").await;
    relink(&db).await;
    db.tamper(
        "DELETE FROM audit_checkpoints WHERE position > 3;
         INSERT INTO audit_rows (at, actor, action, subject, outcome, detail)
         VALUES (1, 'a', 'b', 'c', 'done', '{}');
         INSERT INTO audit_pending (row_id) SELECT max(id) FROM audit_rows",
    )
    .await;
    let error = auditor.chain(&db.store, crate::fixture::at(2000), "one", 10).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

pub(crate) async fn a_foreign_key_verifies_nothing(db: Db) {
    let (_, file) = chained(&db).await;
    let mut other = Auditor::new(2);
    let report = verified(&db, &other, &file).await;
    assert_eq!(report.first_bad, bad(3, Some(3), AuditFault::CheckpointForged));
    db.append(10, 1).await;
    let error = other.chain(&db.store, crate::fixture::at(2000), "one", 10).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}
