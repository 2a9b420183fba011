//! What lies in the database.

use countersign_store::{StoreError, Tx};

use crate::bank::Bank;

/// How many rows of any table hold this text in one of their columns.
pub(crate) async fn rows_with(bank: &Bank, text: &str) -> i64 {
    let text = text.to_owned();
    let is_sqlite = bank.store().backend_name() != "postgresql";
    let tables = if is_sqlite {
        "SELECT name FROM sqlite_master WHERE type = 'table'"
    } else {
        "SELECT CAST(tablename AS TEXT) FROM pg_tables WHERE schemaname = 'public'"
    };
    let found: Result<i64, StoreError> = bank
        .store()
        .run_tx("test", move |tx| {
            let mut found = 0;
            for table in tx.query(tables, &[])? {
                let table = table.text(0)?.to_owned();
                found += if is_sqlite {
                    in_columns(tx, &table, &text)?
                } else {
                    in_rows(tx, &table, &text)?
                };
            }
            Ok(found)
        })
        .await;
    found.unwrap()
}

/// PostgreSQL: a row as text, in which bytes are in hexadecimal.
fn in_rows(tx: &mut Tx<'_>, table: &str, text: &str) -> Result<i64, StoreError> {
    let hex = data_encoding::HEXLOWER.encode(text.as_bytes());
    let sql = format!(
        "SELECT count(*) FROM {table} t WHERE position(?1 IN CAST(t AS TEXT)) > 0
         OR position(?2 IN CAST(t AS TEXT)) > 0"
    );
    tx.query_one(&sql, &[text.into(), hex.as_str().into()])?.unwrap().int(0)
}

fn in_columns(tx: &mut Tx<'_>, table: &str, text: &str) -> Result<i64, StoreError> {
    let columns = format!("SELECT name FROM pragma_table_info('{table}')");
    let mut found = 0;
    for column in tx.query(&columns, &[])? {
        let sql = format!(
            "SELECT count(*) FROM {table}
             WHERE instr(CAST({} AS BLOB), CAST(?1 AS BLOB)) > 0",
            column.text(0)?
        );
        found += tx.query_one(&sql, &[text.into()])?.unwrap().int(0)?;
    }
    Ok(found)
}
