use std::time::Duration;

use libtest_mimic::Failed;
use rusqlite::Connection;
use serde_json::Value;

use crate::host::{Database, Host, Ports, wait_for};

/// A directory with a chained audit of some rows, and no server on it.
fn audited(suite: &str) -> Result<Host, Failed> {
    let host = Host::new()?;
    host.init_with(&["--suite", suite], &Database::Sqlite)?;
    for name in ["one", "two", "three"] {
        host.run(&["operator", "add", "--data", "data", name, "--role", "auditor"])?.ok()?;
    }
    let ports = Ports::pick()?;
    let _sam = host.sam()?;
    let _server = host.serve(&ports)?;
    wait_for("the chaining", || {
        let report = verify(&host)?;
        Ok((report["unchained"] == 0 && report["chained"].as_u64() >= Some(4)).then_some(()))
    })?;
    Ok(host)
}

fn verify(host: &Host) -> Result<Value, Failed> {
    host.run(&["--json", "audit", "verify", "--data", "data"])?.json()
}

/// Opens the file as someone would who has got hold of it: no rule of ours holds for him.
fn intruder(host: &Host) -> Result<Connection, Failed> {
    let connection = Connection::open(host.data().join("store.sqlite"))?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.execute_batch("PRAGMA foreign_keys = OFF")?;
    let mut triggers = connection
        .prepare("SELECT name FROM sqlite_master WHERE type = 'trigger'")?
        .query_map([], |row| row.get::<_, String>(0))?
        .collect::<Result<Vec<_>, _>>()?;
    for trigger in triggers.drain(..) {
        connection.execute_batch(&format!("DROP TRIGGER {trigger}"))?;
    }
    Ok(connection)
}

fn expect_bad(host: &Host, row: Option<i64>) -> Result<(), Failed> {
    let ended = host.run(&["audit", "verify", "--data", "data"])?;
    assert_eq!(ended.code, 1, "{}", ended.stdout);
    assert!(ended.stdout.starts_with("BAD at position"), "{}", ended.stdout);
    let report = verify(host)?;
    assert_eq!(report["ok"], false);
    if let Some(row) = row {
        assert_eq!(report["firstBad"]["row"], row, "{report}");
    }
    Ok(())
}

pub(crate) fn tampering_is_found(suite: &str) -> Result<(), Failed> {
    let host = audited(suite)?;
    assert_eq!(verify(&host)?["ok"], true);
    let second: i64 = intruder(&host)?.query_row(
        "SELECT row_id FROM audit_chain WHERE position = 2",
        [],
        |row| row.get(0),
    )?;
    let change = |sql: &str| -> Result<(), Failed> {
        let changed = intruder(&host)?.execute(sql, [second])?;
        assert_eq!(changed, 1, "{sql}");
        Ok(())
    };
    change("UPDATE audit_rows SET actor = 'somebody else' WHERE id = ?1")?;
    expect_bad(&host, Some(second))?;
    change("UPDATE audit_rows SET actor = 'console' WHERE id = ?1")?;
    assert_eq!(verify(&host)?["ok"], true, "put right again");
    // Checkpoints are signed, in the directory's suite.
    intruder(&host)?.execute_batch("UPDATE audit_checkpoints SET at = at + 1")?;
    expect_bad(&host, None)?;
    let fault = verify(&host)?["firstBad"]["fault"].clone();
    assert_eq!(fault, "a checkpoint is not signed by the audit key");
    intruder(&host)?.execute_batch("UPDATE audit_checkpoints SET at = at - 1")?;
    assert_eq!(verify(&host)?["ok"], true, "put right again");
    change("DELETE FROM audit_rows WHERE id = ?1")?;
    expect_bad(&host, Some(second))
}

pub(crate) fn a_cut_tail_is_found_by_the_file() -> Result<(), Failed> {
    let host = audited("p256")?;
    let connection = intruder(&host)?;
    connection.execute_batch(
        "DELETE FROM audit_checkpoints WHERE position > 2;
         DELETE FROM audit_rows WHERE id IN (SELECT row_id FROM audit_chain WHERE position > 2);
         DELETE FROM audit_chain WHERE position > 2;",
    )?;
    drop(connection);
    expect_bad(&host, None)?;
    // A checkpoint file that was tampered with shows too.
    std::fs::write(host.data().join("audit/checkpoints"), "1 2 3\n")?;
    let ended = host.run(&["--json", "audit", "verify", "--data", "data"])?;
    assert_eq!(ended.code, 1);
    assert_eq!(ended.json()?["error"]["check"], "audit-checkpoints");
    Ok(())
}
